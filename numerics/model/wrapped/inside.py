"""Modules whose products only a graph reaches, run one by one: each as a graph of its own.

A report takes a model apart by its modules, and fused attention quantizes inside one function; of such a
module a graph is made, with the quantizers of the whole model's, when it is first called.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from numerics.model.deciding.plan import Plan
from numerics.model.deciding.rows import Row
from numerics.model.wrapped import graph

INSIDE = "numerics_inside"
"""Under that name a module of a report has the quantizers inside its graph."""


def without_hidden(plan: Plan) -> Plan:
    """The plan without what only a graph reaches."""
    return replace(plan, rows=[replace(row, spec=None) if row.graph else row for row in plan.rows])


def hidden_modules(plan: Plan) -> list[str]:
    """The modules in whose functions a plan quantizes what only a graph reaches."""
    return list(dict.fromkeys(row.site.module for row in plan.rows if row.graph and row.spec and row.site))


def run_as_graph(
    module: nn.Module, original: nn.Module, plan: Plan, every: Mapping[Any, nn.Module],
    packed: Mapping[str, Tensor],
) -> None:  # fmt: skip
    """Makes the forward of a module that of its graph.

    original: the float module, in evaluation.  plan: its own, as `part_of` makes it; every: the quantizers,
    by its names and sites.  packed: by name what took the place of parameters, where the model is frozen.
    """
    made: list[Any] = []

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not made:
            names = list(inspect.signature(original.forward).parameters)
            example: Any = {**dict(zip(names, args, strict=False)), **kwargs} if kwargs else args
            found = graph.wrap(original, replace(plan, example=example), dict(every))
            graph.freeze(found, {id(found.get_parameter(name)): x for name, x in packed.items()})
            made.append(found)
        return made[0](*args, **kwargs)

    module.__dict__["forward"] = forward
    module.__dict__[INSIDE] = list({id(one): one for one in every.values()}.values())


def part_of(plan: Plan, name: str) -> tuple[Plan, dict[Any, Any]]:
    """The plan of one module, by its own names, and by each of those names and sites the model's."""
    prefix, rows, theirs = f"{name}.", [], {}
    for row in plan.rows:
        found = _parameter(row, prefix) if row.site is None else _site(row, name)
        if found is not None and row.spec is not None:
            rows.append(found)
            theirs[found.site or found.name] = row.site or row.name
    return replace(plan, rows=rows, mode="fx_graph_mode", fold={}), theirs


def _parameter(row: Row, prefix: str) -> Row | None:
    names = [one.removeprefix(prefix) for one in row.names if one.startswith(prefix)]
    return replace(row, name=names[0], also=tuple(names[1:])) if names and row.kind == "parameter" else None


def _site(row: Row, name: str) -> Row | None:
    assert row.site is not None
    module = row.site.module
    if module != name and not module.startswith(f"{name}."):
        return None
    return replace(row, site=row.site._replace(module=module.removeprefix(name).removeprefix(".")))
