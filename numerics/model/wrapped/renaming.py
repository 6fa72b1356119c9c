"""Names of quantizers in the states of both modes: a state of one mode is loaded into a model of the other.

Parameters and buffers have the float model's names in both.  A quantizer is a child of its module in eager
mode, and of one module for all in a graph.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from numerics.model.deciding.plan import Plan
from numerics.model.deciding.rows import Row
from numerics.model.looking.places import name_in
from numerics.model.looking.trace import OUT, Site
from numerics.model.wrapped.following import named_in_state
from numerics.model.wrapped.quantizers import Learned, Quantizer

QUANTIZERS = "quantizers"
"""The name, in a graph, of the module that holds the quantizers."""


def in_module(site: Site) -> str:
    """The name of the quantizer of a site, in its module."""
    place = "out" if site.place == OUT else str(site.place)
    if site.number == 0:
        return f"quantize_{site.operation}_{place}"
    return f"quantize_{site.operation}{site.number}_{place}"


def in_graph(plan: Plan) -> dict[str, str]:
    """The name that each quantizer of a plan has in a graph, by the name of its row."""
    found: dict[str, str] = {}
    for row in plan.rows:
        if row.spec is not None:
            name = "".join(c if c.isalnum() else "_" for c in row.name)
            while name in found.values():
                name += "_"
            found[row.name] = name
    return found


def renamed(model: nn.Module, plan: Plan, frozen: bool, state: dict[str, Any], prefix: str) -> None:
    """Gives what a state of the other mode says of quantizers the names of this mode, in place.

    model: wrapped by that plan; state, prefix: as load_state_dict hands them to modules.  frozen: the
    parameters of the model are packed, so that their quantizers say nothing.
    """
    own: dict[str, list[tuple[str, nn.Module]]] = {}  # by what the plan called them when they were made
    for name, module in named_in_state(model):
        if isinstance(module, (Quantizer, Learned)):
            own.setdefault(module.name, []).append((f"{prefix}{name}.", module))
    here = {one: places for places in own.values() for one, _ in places}
    quantizers = {row.name: row.quantizer for row in plan.rows}
    for name, others in _others(plan).items():
        others = [prefix + other + "." for other in others]
        mine = next((here[one] for one in others if one in here), ())
        came = _taken(state, [one for one in others if one not in here])
        for place, module in own.get(quantizers[name], mine):
            if any(key.startswith(place) for key in state):
                continue
            kept = module.state_dict() if frozen and name in plan.parameters else {}
            state.update({place + tail: x for tail, x in (came or kept).items()})


def _others(plan: Plan) -> dict[str, list[str]]:
    """What each quantizer of a plan is called in either mode, by the name of its row."""
    graph, planned = in_graph(plan), {name_in(site.module, in_module(site)) for site in plan.sites}
    tied = [[_split(name)[0] for name in row.names] for row in plan.rows if len(row.names) > 1]
    found = {}
    for row in plan.rows:
        if row.spec is not None and row.kind != "cache":
            first, *more = _in_modules(row, tied)
            found[row.name] = [first, *(set(more) - planned), f"{QUANTIZERS}.{graph[row.name]}"]
    return found


def _in_modules(row: Row, tied: list[list[str]]) -> list[str]:
    """Its names in eager mode; of a site those too that its module may have besides.

    tied: the modules that have one parameter each time, which may be one module.
    """
    if row.site is None:
        return [name_in(owner, f"quantize_{leaf}") for owner, leaf in map(_split, row.names)]
    module = row.site.module
    besides = {owner for owners in tied if module in owners for owner in owners} - {module}
    return [name_in(owner, in_module(row.site)) for owner in (module, *sorted(besides))]


def _split(name: str) -> tuple[str, str]:
    owner, _, leaf = name.rpartition(".")
    return owner, leaf


def _taken(state: dict[str, Any], places: list[str]) -> dict[str, Any]:
    """What a state has at some places, taken out of it: by what follows the place."""
    found: dict[str, Any] = {}
    for place in places:
        _, nested, name = place.rpartition(f"{QUANTIZERS}.")
        for key in list(state):
            if key.startswith(place):
                found[key.removeprefix(place)] = state.pop(key)
            elif nested and f".{QUANTIZERS}.{name}" in key:  # of a graph inside: the same quantizer
                del state[key]
    return found
