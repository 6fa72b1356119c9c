"""Methods that users call beside forward: they warn, once, of products whose inputs no plan quantizes there.

A plan is of a model's forward.  Another method of a module, such as `encode` or `get_image_features`, that is
called by itself computes with quantized weights, and with activations as they come.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from numerics.formats.errors import warn
from numerics.model.looking.products import FUNCTIONS, PRODUCTS, in_order
from numerics.model.looking.trace import factors_in
from numerics.model.wrapped.matching import forget, names_of
from numerics.pytorch.wrapper import Wrapper

MULTIPLIED = "numerics_multiplied"
"""Under that name a module has the names of its parameters whose partners a plan quantizes."""
TOLD = "numerics_told"
"""Under that name it has the names of its methods that have said so."""


def methods_of(base: type[nn.Module], running: Any) -> dict[str, Any]:
    """The public methods of a class of modules, but for forward, that say what they do not quantize.

    running: the modules whose forwards run, and whether such a method does.
    """
    found: dict[str, Any] = {}
    for kind in reversed(base.__mro__):
        if issubclass(kind, nn.Module) and not kind.__module__.startswith("torch."):
            for name, member in vars(kind).items():
                if isinstance(member, FunctionType) and _is_called_by_users(name):
                    found[name] = _telling(member, running)
                else:
                    found.pop(name, None)
    return found


def _is_called_by_users(name: str) -> bool:
    return name != "forward" and not name.startswith("_") and not hasattr(nn.Module, name)


def _telling(method: Callable[..., Any], running: Any) -> Any:
    @functools.wraps(method)
    def called(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or running.modules or running.outside or not _quantizes(self):
            return method(self, *args, **kwargs)
        told = method.__name__ in self.__dict__.get(TOLD, ())
        running.outside = True
        try:
            with nullcontext() if told else _Outside(self, method, running):
                return method(self, *args, **kwargs)
        finally:
            running.outside = False
            forget()

    return called


def _quantizes(module: nn.Module) -> bool:
    """Are there sites in it, or around it?"""
    return any(module.__dict__.get(name) is not None for name in ("numerics_sites", "numerics_entry"))


class _Outside(TorchFunctionMode):
    """Says once that a method multiplies a planned weight with what a forward would have quantized."""

    def __init__(self, module: nn.Module, method: Callable[..., Any], running: Any) -> None:
        super().__init__()
        self.module, self.method, self.running = module, method, running

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, FUNCTIONS.get(func)
        if name is not None and not self.running.modules and not self._in_a_forward():
            factors = PRODUCTS[name].factors(in_order(func, args)[1], kwargs)
            every = [x for _, came, _ in factors for x in factors_in(came) if isinstance(x, Tensor)]
            if self._mixed(every):
                self._tell(name)
        return func(*args, **kwargs)

    def _in_a_forward(self) -> bool:
        """Is the product one of a module that the method calls?"""
        frame: Any = sys._getframe(2)
        while frame is not None and frame.f_locals.get("method") is not self.method:
            if frame.f_code.co_filename == nn.modules.module.__file__:
                return True
            frame = frame.f_back
        return False

    def _mixed(self, factors: list[Tensor]) -> bool:
        """Is one of them a weight whose partners a plan quantizes, and another computed?"""
        planned = [self._is_planned(x) for x in factors]
        return any(planned) and not all(planned)

    def _is_planned(self, x: Tensor) -> bool:
        if isinstance(x, Wrapper):
            return True
        known = names_of(x)
        if known is not None:
            return bool(known & {name for _, name in _multiplied(self.module)})
        of = x if x._base is None else x._base
        return any(of is weight for weight, _ in _multiplied(self.module))

    def _tell(self, operation: str) -> None:
        told = self.module.__dict__.setdefault(TOLD, set())
        if self.method.__name__ not in told:
            told.add(self.method.__name__)
            kind = type(self.module).__name__
            warn(
                f"{kind}.{self.method.__name__} is called from outside a forward: the {operation} in it "
                "takes a weight of the plan and an input that is not quantized there, though it is in "
                "forward; wrap a module whose forward is that method, with an example of it"
            )


def _multiplied(module: nn.Module) -> Iterator[tuple[Any, str | None]]:
    """The weights in it whose partners are quantized, and what their quantizers call them."""
    for one in module.modules():
        for leaf in one.__dict__.get(MULTIPLIED, ()):
            quantizer = one._modules.get(f"quantize_{leaf}")
            yield one._parameters.get(leaf), getattr(quantizer, "name", None)
