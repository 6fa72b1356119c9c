"""What a wrapped model shares with the float one, until it is moved."""

from __future__ import annotations

import copyreg
import weakref
from functools import cache
from typing import Any

from torch import nn

from numerics.tensor.qtensor import QTensor

SHARED = "numerics_shared"
"""Under that name a module that shares parameters with the float model knows the wrapped one it is of."""


class Sharing:
    """The wrapped model, while its parameters are those of the float one; a copy of it shares nothing."""

    def __init__(self, root: nn.Module) -> None:
        self.root = weakref.ref(root)

    def __deepcopy__(self, memo: Any) -> None:
        """A copied model has parameters of its own."""

    def __reduce__(self) -> Any:
        return type(None), ()


class Parting:
    """What a class of modules has besides its own, so that they part from the float model when they move."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Moves it, but not the float model whose parameters it shares."""
        part(self)  # type: ignore[arg-type]
        return super()._apply(fn, recurse)  # type: ignore[misc]


class Shared(Parting):
    """What the class of a module has that is not quantized and shares parameters; copies have their own."""

    numerics_base: type[nn.Module]

    def __init_subclass__(cls, **_: Any) -> None:
        """What a base class does with its subclasses is not done with this one, which stands for its base."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        reduced: Any = super().__reduce_ex__(protocol)
        made = _new if reduced[0] is copyreg.__newobj__ else reduced[0]  # type: ignore[attr-defined]
        return made, tuple(self.numerics_base if x is type(self) else x for x in reduced[1]), *reduced[2:]

    def _get_name(self) -> str:
        return self.numerics_base.__name__


def _new(base: type[nn.Module], *args: Any) -> nn.Module:
    return base.__new__(base, *args)


@cache
def _shared_class(base: type[nn.Module]) -> type[nn.Module]:
    members = {"__module__": base.__module__, "__doc__": base.__doc__, "numerics_base": base}
    return type(base.__name__, (Shared, base), members)


def share(wrapped: nn.Module, original: nn.Module) -> None:
    """Makes every module of a wrapped model that has a parameter of the float one part before it is moved."""
    theirs, sharing = {id(x) for x in original.parameters()}, Sharing(wrapped)
    for module in wrapped.modules():
        own = any(id(x) in theirs for x in module._parameters.values())
        if own and not isinstance(module, Parting):
            module.__class__ = _shared_class(type(module))  # type: ignore[arg-type]
        if isinstance(module, Parting):
            module.__dict__[SHARED] = sharing


def unshare(model: nn.Module) -> None:
    """Gives modules their own classes back."""
    for module in model.modules():
        module.__dict__.pop(SHARED, None)
        if isinstance(module, Shared):
            module.__class__ = module.numerics_base  # type: ignore[assignment]


def part(module: nn.Module) -> None:
    """Gives the wrapped model that a module is of parameters of its own, of the same values; once."""
    sharing = module.__dict__.get(SHARED)
    if sharing is None:
        return
    own: dict[int, nn.Parameter] = {}
    for one in (sharing.root() or module).modules():
        if one.__dict__.pop(SHARED, None) is None:
            continue
        for name, x in one._parameters.items():
            if x is not None and not isinstance(x, QTensor):
                made = own.setdefault(id(x), nn.Parameter(x.detach(), requires_grad=x.requires_grad))
                made.grad = x.grad
                one._parameters[name] = made
