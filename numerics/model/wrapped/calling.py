"""What a graph can be called with: the arguments that its example had, of the same parts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from numerics.formats.errors import NumericsError, said, with_article

CONSTANTS = (type(None), bool, int, float, str)
ANOTHER = (
    "nx.wrap(model, ..., mode='fx_graph_mode', example=...) with an example that has what the call has makes "
    "a graph of it; mode='eager_mode' takes all"
)


@dataclass(frozen=True)
class Arguments:
    """The arguments of an example.

    leaves: by the name of each, its parts, and whether they are tensors or what else.  order: the names of
    the float model's arguments, as its forward has them.  defaults: those of them that are constants.
    """

    leaves: dict[str, dict[str, str]]
    order: tuple[str, ...]
    defaults: dict[str, Any]

    def fitted(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by name, in the example's order; those left out are the model's defaults.

        Raises NumericsError for arguments and parts that the example did not have, and for those it had
        and the call has not.
        """
        given = {**dict(zip(self.order, args, strict=False)), **kwargs}
        if len(args) > len(self.order) or len(given) < len(args) + len(kwargs):
            raise NumericsError(f"this graph takes {', '.join(self.order)}, each once; not {said(args)}")
        for name in [name for name in given if name not in self.leaves]:
            if not self._is_default(name, given.pop(name)):
                raise NumericsError(
                    f"this graph does not know the argument {name!r}: its example had "
                    f"{', '.join(self.leaves)} alone, and a graph has no way for another; {ANOTHER}"
                )
        return {name: self._part(name, given) for name in self.leaves}

    def _is_default(self, name: str, came: Any) -> bool:
        """Is it what the float model took when the example was run?"""
        if name not in self.defaults:
            return False
        return type(came) is type(self.defaults[name]) and bool(came == self.defaults[name])

    def _part(self, name: str, given: Mapping[str, Any]) -> Any:
        if name not in given and name not in self.defaults:
            raise NumericsError(f"this graph is called without {name!r}, which its example had; {ANOTHER}")
        came = given.get(name, self.defaults.get(name))
        found, due = leaves_of(came), self.leaves[name]
        if found != due:
            more, less = [k for k in found if due.get(k) != found[k]], [k for k in due if k not in found]
            what = (
                f"{name}{more[0]} is {with_article(found[more[0]])}"
                if more
                else f"{name}{less[0]} is missing"
            )
            was = (
                ", ".join(f"{name}{part} {with_article(kind)}" for part, kind in list(due.items())[:8])
                or "nothing"
            )
            raise NumericsError(f"{what} in this call of a graph, whose example had {was}; {ANOTHER}")
        return came


def leaves_of(x: Any) -> dict[str, str]:
    """The parts of an argument, and what each is.

    >>> leaves_of(None), leaves_of({"a": [1, 2.0]})
    ({'': 'NoneType'}, {"['a'][0]": 'int', "['a'][1]": 'float'})
    """
    if isinstance(x, Tensor):
        return {"": "Tensor"}
    found = pytree.tree_flatten_with_path(x)[0]
    return {pytree.keystr(path): "Tensor" if isinstance(one, Tensor) else type(one).__name__
            for path, one in found}  # fmt: skip


def arguments_of(model: nn.Module, names: Sequence[str], example: Any) -> Arguments | None:
    """What a graph of a model, made of an example, can be called with; None where that has no names.

    names: of the graph's arguments.  example: the positional and the named ones.
    """
    args, kwargs = example
    parameters = list(inspect.signature(model.forward).parameters.values())
    order = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    positional = any(one.kind in (one.VAR_POSITIONAL, one.POSITIONAL_ONLY) for one in parameters)
    every = {**dict(zip(order, args, strict=False)), **kwargs}
    if positional or sorted(every) != sorted(names):
        return None
    defaults = {one.name: one.default for one in parameters if isinstance(one.default, CONSTANTS)}
    return Arguments({name: leaves_of(every[name]) for name in names}, tuple(order), defaults)
