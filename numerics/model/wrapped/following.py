"""The plan of a wrapped model by the names that its modules have by now.

An adapter around a layer gives the layer another name, and so does whatever else is put around it; a layer
that is taken out has none.  The plan was made before, and what reads it asks the model by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from torch import nn
from torch.fx import GraphModule
from torch.nn.parameter import is_lazy

from numerics.model.deciding.plan import Plan
from numerics.model.deciding.rows import Row
from numerics.model.looking.places import name_in
from numerics.model.wrapped.quantizers import Learned, Quantizer

NAMED = "numerics_named"
"""Under that name a module of a wrapped model has what it was called in the plan, and its tensors."""
LATER = "came in after the model was wrapped"
"""The reason of a tensor that no plan was made of."""
_UNSAID = ("_checkpoint_wrapped_module", "_fsdp_wrapped_module")
"""What torch puts around modules and leaves out of the names of states."""

Now = Mapping[str, list[tuple[str, ...]]]
"""By the name that modules had when they were wrapped, the names of each of them by now."""


class Named(NamedTuple):
    """What a module was called in the plan, and the names of its own tensors then."""

    names: tuple[str, ...]
    leaves: frozenset[str]


def note_names(model: nn.Module) -> None:
    """Notes in modules what the plan calls them."""
    for module, names in _names(model).items():
        module.__dict__[NAMED] = Named(tuple(names), frozenset((*module._parameters, *module._buffers)))


def named_now(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module by each of its names, as states have them, but for quantizers."""
    return (pair for pair in named_in_state(model) if not isinstance(pair[1], (Quantizer, Learned)))


def _names(model: nn.Module) -> dict[nn.Module, dict[str, None]]:
    """The names that each of these modules has, in order."""
    found: dict[nn.Module, dict[str, None]] = {}
    for name, module in named_now(model):
        found.setdefault(module, {})[name] = None
    return found


def named_in_state(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module by each of the names that a state has of it."""
    for name, module in model.named_modules(remove_duplicate=False):
        yield ".".join(part for part in name.split(".") if part not in _UNSAID), module


def as_planned(plan: Plan, model: nn.Module) -> tuple[Plan, dict[str, nn.Module]]:
    """The plan that a model was wrapped by, without what is gone, and its modules by the names of then."""
    modules: dict[str, nn.Module] = {}
    for _, module in named_now(model):
        for name in _noted(module).names:
            modules.setdefault(name, module)
    here: Now = {name: [(name,)] for name in modules}
    return replace(plan, rows=[one for row in plan.rows for one in _moved(row, here)]), modules


def _noted(module: nn.Module) -> Named:
    found: Any = module.__dict__.get(NAMED)
    return Named((), frozenset()) if found is None else found


def followed(plan: Plan, model: nn.Module) -> Plan:
    """A plan by the names of now: without what is gone, and with what came in as it is; itself where none is.

    A graph has the names that it was wrapped with.
    """
    if isinstance(model, GraphModule):
        return plan
    now = _now(model)
    rows = [one for row in plan.rows for one in _moved(row, now)]
    known = {name for row in rows for name in row.names}
    rows += _later(model, known)
    if rows == plan.rows:
        return plan
    return replace(plan, rows=rows, fold={_first(a, now): _first(b, now) for a, b in plan.fold.items()})


def _now(model: nn.Module) -> Now:
    """What each module that was wrapped is called by now."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for module, names in _names(model).items():
        for name, its in _pairs(_noted(module).names, list(names)).items():
            found.setdefault(name, []).append(its)
    return found


def _pairs(planned: Iterable[str], now: list[str]) -> dict[str, tuple[str, ...]]:
    """Which names of a module stand for which that it had: itself, or the next; further ones for any."""
    found: dict[str, tuple[str, ...]] = {name: (name,) for name in planned if name in now}
    others = iter([name for name in now if name not in found])
    for name in planned:
        if name not in found and (other := next(others, None)) is not None:
            found[name] = (other,)
    for name in list(found)[:1]:
        found[name] += tuple(others)
    return found


def _moved(row: Row, now: Now) -> list[Row]:
    """A row by the names of now: one of each place of a computed tensor; none of what is gone."""
    row = replace(
        row,
        uses=tuple(_use(one, now) for one in row.uses),
        weights=tuple(_leaf(one, now) for one in row.weights),
    )
    if row.site is not None:
        sites = [row.site._replace(module=names[0]) for names in now.get(row.site.module, ())]
        return [replace(row, site=site, name=str(site)) for site in sites]
    if row.kind in ("parameter", "buffer"):
        names = dict.fromkeys(one for name in row.names for one in _leaves(name, now))
        return [replace(row, name=next(iter(names)), also=tuple(names)[1:])] if names else []
    return [replace(row, name=_first(row.name, now))]


def _first(name: str, now: Now) -> str:
    """The first name that a module has by now; its own where it is gone."""
    return now[name][0][0] if name in now else name


def _use(use: str, now: Now) -> str:
    """What a plan says of an operation: of which module, and which."""
    module, colon, operation = use.partition(":")
    return f"{_first(module, now)}{colon}{operation}"


def _leaf(name: str, now: Now) -> str:
    return next(iter(_leaves(name, now)), name)


def _leaves(name: str, now: Now) -> list[str]:
    """The names that a tensor has by now."""
    owner, _, leaf = name.rpartition(".")
    return [name_in(one, leaf) for names in now.get(owner, ()) for one in names]


def _later(model: nn.Module, known: set[str]) -> list[Row]:
    """The tensors that a state has, and that were not there when the model was wrapped."""
    found: dict[int, list[tuple[str, str, Any]]] = {}
    for prefix, module in named_now(model):
        was, unsaved = _noted(module).leaves, module._non_persistent_buffers_set
        for kind, tensors in (("parameter", module._parameters), ("buffer", module._buffers)):
            for leaf, x in tensors.items():
                name = name_in(prefix, leaf)
                if x is not None and not ({leaf} & (was | unsaved) or name in known or is_lazy(x)):
                    found.setdefault(id(x), []).append((kind, name, x))
    return [
        Row(some[0][0], some[0][1], tuple(some[0][2].shape), None, LATER,
            also=tuple(name for _, name, _ in some[1:]), value_bits=8 * some[0][2].element_size())
        for some in found.values()
    ]  # fmt: skip


def parameters_now(model: nn.Module) -> dict[str, Any]:
    """The parameters of a model by the names that its state has, by each of them."""
    return {
        name_in(prefix, leaf): x
        for prefix, module in named_now(model)
        for leaf, x in module._parameters.items()
        if x is not None
    }
