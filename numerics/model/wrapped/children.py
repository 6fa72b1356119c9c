"""What a module shows of its children: those of the float model, without the quantizers beside them.

A quantizer is a child of the module whose parameter or product it serves, so that torch moves, trains and
saves it.  A forward that runs its children one after the other, as that of nn.Sequential does, must not meet
it.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from numerics.formats.errors import NumericsError
from numerics.model.wrapped.quantizers import Learned, Quantizer

_TORCH = str(Path(torch.__file__).parent)


def own(module: nn.Module) -> dict[str, Any]:
    """The children of a module by name, but for its quantizers."""
    return {name: x for name, x in module._modules.items() if not isinstance(x, (Quantizer, Learned))}


def _asked_by_torch() -> bool:
    """Is it a function of torch that asks for the children, by whichever of their methods?"""
    frame: Any = sys._getframe(2)
    if frame.f_code is nn.Module.children.__code__:
        frame = frame.f_back
    return frame is not None and str(frame.f_code.co_filename).startswith(_TORCH)


def _named_children(self: Any) -> Iterator[tuple[str, Any]]:
    """The children and their names; to torch's own code all of them, to others the float model's."""
    if not torch.compiler.is_compiling() and _asked_by_torch():
        return nn.Module.named_children(self)
    return iter(own(self).items())


def _get(self: Any, index: Any) -> Any:
    """A child of a list by its place, or a list of some."""
    found, base = own(self), self.numerics_base
    if not isinstance(index, slice):
        return list(found.values())[index]
    some = list(found.items())[index]
    return base(OrderedDict(some)) if issubclass(base, nn.Sequential) else base([x for _, x in some])


def _get_parameters(self: Any, index: Any) -> Any:
    """An entry of a list of parameters, read as it is by its name, or a list of some."""
    if isinstance(index, slice):
        return [self[place] for place in range(len(self))[index]]
    return nn.ParameterList.__getitem__(self, index)


_LENGTH = {"__len__": lambda self: len(own(self))}
_LIST = {**_LENGTH, "__iter__": lambda self: iter(own(self).values()), "__getitem__": _get}
_DICT = {
    **_LENGTH, "__iter__": lambda self: iter(own(self)), "keys": lambda self: own(self).keys(),
    "items": lambda self: own(self).items(), "values": lambda self: own(self).values(),
}  # fmt: skip
_OF: dict[type[nn.Module], dict[str, Any]] = {
    nn.Module: {"named_children": _named_children}, nn.Sequential: _LIST, nn.ModuleList: _LIST,
    nn.ModuleDict: _DICT, nn.ParameterList: {"__getitem__": _get_parameters},
}  # fmt: skip


def shown(base: type[nn.Module]) -> dict[str, Any]:
    """The methods by which a quantized class of that base shows the float model's children alone.

    Those of torch are replaced, not those that the class has of its own.
    """
    return {
        name: method
        for kind, methods in _OF.items()
        if issubclass(base, kind)
        for name, method in methods.items()
        if getattr(base, name) is getattr(kind, name)
    }


def check_children(module: nn.Module, name: str) -> None:
    """Raises NumericsError for a module whose forward would take a quantizer for one of its layers.

    name: of what is quantized there.
    """
    code = getattr(type(module).forward, "__code__", None)
    if code is not None and "_modules" in code.co_names:
        raise NumericsError(
            f"{name}: the forward of {type(module).__name__} goes through self._modules, where its "
            "quantizers will be: let it go through self.children(), or self.named_children(); "
            "mode='fx_graph_mode' takes it as it is"
        )
