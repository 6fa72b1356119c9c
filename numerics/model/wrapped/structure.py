"""Modules and parameters that come into a model after it was wrapped: none of the plan's, refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from itertools import chain
from operator import methodcaller
from typing import Any

from torch import nn
from torch.fx import GraphModule
from torch.nn.parameter import is_lazy

from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError, items_of, said, warn
from numerics.model.deciding.reach import pattern_of
from numerics.model.looking.places import is_shard, modules_around, name_in
from numerics.model.wrapped.following import NAMED, note_names
from numerics.model.wrapped.guarding import GUARDED
from numerics.model.wrapped.state import STATE, State, notes_of, state_of
from numerics.pytorch.wrapper import Wrapper
from numerics.view.text import folded

KNOWN = "numerics_known"
"""Under that name a module of a wrapped model says that it was there, or was admitted: with which matrices.

Of each, by its leaf, is it packed?
"""
_UNSEEN = (
    "torch.compile and torch.export know the products of this wrapped model by their order: where a call "
    "takes another way than the example did, what is multiplied there is not compared with the plan, and may "
    "be in float; the model as it is, not compiled, raises for such a call"
)


_IT = ("it in as it is, as an adapter", "all in as they are, as adapters")


def know(model: nn.Module) -> None:
    """Notes that the modules of a model are those that its plan is of, and by which names."""
    note_names(model)
    for module in model.modules():
        _know(module)


def know_tensors(model: nn.Module) -> None:
    """Notes of the modules that are known what they have by now, such as packed weights."""
    for module in model.modules():
        if KNOWN in module.__dict__:
            _know(module)


def _know(module: nn.Module) -> None:
    module.__dict__[KNOWN] = {leaf: isinstance(x, Wrapper) for leaf, x in module._parameters.items()
                              if _is_matrix(x)}  # fmt: skip


@contextmanager
def converted(model: nn.Module) -> Iterator[None]:
    """What is packed may become its values inside, as a type that has others makes it: it is known still."""
    every = list(model.modules()) if isinstance(model, GraphModule) else [model]
    packed = [(one, leaf) for one in every for leaf, x in one._parameters.items() if isinstance(x, Wrapper)]
    yield
    for one, leaf in packed:
        if leaf in (known := one.__dict__.get(KNOWN, {})):
            known[leaf] = isinstance(one._parameters[leaf], Wrapper)


def forget_modules(model: nn.Module) -> None:
    """Takes these notes away."""
    for module in model.modules():
        module.__dict__.pop(KNOWN, None)
        module.__dict__.pop(NAMED, None)


class Seen:
    """The children and the parameters of all modules of a model, when it was looked at.

    Each call asks whether they are what they were, so it is asked at once of all.  A parameter is known by
    its identity.  Those that are no matrices of floats are kept, so that nothing that takes the place of one
    has that; those that are would only be kept from being freed: one is followed by any other.
    """

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.modules())
        self.children = [module._modules for module in modules]
        self.parameters = [module._parameters for module in modules]
        self.were = _each(self.children)
        every = _each(self.parameters)
        self.ids, self.kept = list(map(id, every)), [x for x in every if not _is_wide(x)]

    def is_so(self) -> bool:
        """Are they the same by now?  No parameter is compared by its values."""
        same: bool = _each(self.children) == self.were
        return same and list(map(id, chain.from_iterable(map(_values, self.parameters)))) == self.ids


_values = methodcaller("values")


def _each(of: list[Any]) -> list[Any]:
    """Everything in these dictionaries, in their order."""
    return list(chain.from_iterable(map(_values, of)))


def check_structure(model: nn.Module, anew: bool = False) -> None:
    """Raises NumericsError where a wrapped model has modules or parameters that its plan does not know.

    anew: looked for whatever was seen before.  Otherwise, as in each call, only when a module of it has other
    children, or other parameters, than when it was looked at.
    """
    state = notes_of(model).get(STATE)
    if not isinstance(state, State):
        return
    if not anew and state.seen is not None and state.seen.is_so():
        return
    new = [name for name, _ in _strangers(model, state)]
    if new:
        raise NumericsError(_refused(new, isinstance(model, GraphModule)))
    state.seen = Seen(model)


def check_traced(model: nn.Module) -> None:
    """The same while a call is traced, where products are not looked at; that is said, once a model."""
    check_structure(model)
    state = notes_of(model).get(STATE)
    watched = (GUARDED, "numerics_sites")
    if not isinstance(state, State) or state.told:
        return
    if any(module.__dict__.get(name) for module in model.modules() for name in watched):
        state.told = True
        warn(_UNSEEN)


def _strangers(model: nn.Module, state: State) -> Iterator[tuple[str, nn.Module]]:
    """What a plan does not know: modules with matrices of floats of their own, and such parameters of others.

    With each name comes the module.  A graph reads what its modules have by name, whichever they are.
    """
    is_graph = isinstance(model, GraphModule)
    wide = [row for row in state.plan.rows if len(row.shape) > 1] if is_graph else []
    names = {name for row in wide for name in row.names}
    for prefix, module in model.named_modules():
        known = module.__dict__.get(KNOWN)
        for leaf, x in module._parameters.items():
            name, was_packed = name_in(prefix, leaf), (known or {}).get(leaf)
            if not _is_wide(x) or was_packed is False or (name in names and not was_packed):
                continue
            yield (prefix if known is None else name), module
            if known is None or is_graph:
                break


def _is_wide(x: Any) -> bool:
    """Is it a matrix of floats, neither packed nor the shard of one?"""
    return _is_matrix(x) and not isinstance(x, Wrapper) and not is_shard(x)


def _is_matrix(x: Any) -> bool:
    """Is it a matrix of floats, or one to be, packed or not?"""
    return x is not None and (is_lazy(x) or (x.ndim > 1 and x.is_floating_point()))


def _refused(new: list[str], is_graph: bool) -> str:
    if is_graph:
        return (
            f"{folded(new)} came into this graph after it was wrapped, and a graph calls no module: put "
            "it into the float model, and nx.wrap that"
        )
    return (
        f"{folded(new)} came into this model after it was wrapped: the plan does not know it, and it would "
        f"compute in its own floats; put it into the float model before nx.wrap, rules={{{new[0]!r}: None}} "
        f"leaves it in floats; or {_call(new)} lets {_IT[len(new) > 1]}"
    )


def _call(new: list[str]) -> str:
    """The call that admits modules, by patterns of which each is of layers that differ in numbers alone."""
    patterns = [*dict.fromkeys(map(pattern_of, new))]
    names = new if len(new) <= len(patterns) else patterns
    return f"nx.admit(model, {(names[0] if len(names) == 1 else names)!r})"


@keywords
def admit(model: nn.Module, names: str | Iterable[str] | None = None, *more: str) -> nn.Module:
    """Lets modules into a wrapped model that came into it later, as they are: in floats; returns the model.

    model: what `wrap`, `freeze`, `quantize_` or `load_into` returned, in eager mode, with such modules, or
        with such parameters of modules that were there.
    names: of one, or a list of several, or patterns: "*.lora_A" of modules beside a layer,
        "layers.*.linear1" of wrappers around layers; None for all.  What is inside is let in too.
    more: further names.
    Raises NumericsError for names that are of no such module, where there is none, and for a graph, which
    calls no modules.

    >>> import torch, numerics as nx
    >>> frozen = nx.quantize_(torch.nn.Sequential(torch.nn.Linear(64, 64)), "mxfp4")
    1 of 2 tensors quantized (1 mxfp4), 98.5% of all values; 16640 bytes become 2432 bytes
    >>> adapted = frozen.append(torch.nn.Linear(64, 4))     # a call of it raises now
    >>> nx.admit(adapted, "1")(torch.ones(1, 64)).shape
    torch.Size([1, 4])
    """
    state = state_of(model)
    new = dict(_strangers(model, state))
    if isinstance(model, GraphModule):
        raise NumericsError("a graph calls no modules: nx.wrap a float model that has them")
    if not new:
        raise NumericsError("this model has no module that came into it after it was wrapped")
    asked = ["*"] if names is None else [names] if isinstance(names, str) else items_of("names", names)
    asked = [*asked, *more]
    if not asked or not all(isinstance(one, str) for one in asked):
        raise NumericsError(
            f"names={said(asked if more else names)} is no name of a module, nor a list of some: "
            f"{folded([*new])}"
        )
    chosen = {one for name in asked for one in _matched(name, new)}
    for name in chosen:
        _know(new[name])
    return model


def _matched(asked: str, new: dict[str, nn.Module]) -> list[str]:
    """The names of modules that a name, or a pattern of names, is of, or is of one around them."""
    named = {name: (name, *modules_around(name)[:-1]) for name in new}  # the model itself is none
    found = [name for name, parts in named.items() if any(fnmatchcase(part, asked) for part in parts)]
    if not found:
        raise NumericsError(
            f"{said(asked)} is no module that came into this model after it was wrapped: "
            f"{folded(list(new))}; {_call(list(new))} lets all of them in"
        )
    return found
