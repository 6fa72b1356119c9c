"""The gradients of operators: under autograd, under torch.compile, and at every level of torch.func.

torch.library.register_autograd makes a torch.autograd.Function, which torch.func refuses, since that expects
to be called once for all levels.  An operator is called once for each level, so its gradient is a function of
one level, as torch.func itself makes of a torch.autograd.Function.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch._library.utils import fill_defaults
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from numerics.formats.errors import NumericsError


def with_gradient(
    op: Any, backward: Callable[..., Any], keep: Callable[..., Any], fixed: Collection[int] = ()
) -> Callable[..., Any]:
    """What an operator does where gradients are recorded: calls itself, and keeps what its gradient needs.

    op: the operator.  backward, keep: as register_autograd takes backward and setup_context.  fixed: the
    places of those arguments, scales and codes, to which no gradient comes.
    """

    class Gradient(_SingleLevelFunction):
        @staticmethod
        def forward(ctx: Any, *asked: Any) -> Any:
            *given, keys = asked
            with _recording():  # at the levels beneath
                out = _beneath(op, keys, given)
            keep(ctx, fill_defaults(op._schema, given, {})[0], out)  # type: ignore[no-untyped-call]
            return out

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            found = backward(ctx, *gradients)
            return (*found, None)

    def called(keys: Any, *given: Any) -> Any:
        if forward_ad._current_level >= 0:
            _check_tangents(op, given, BACKWARD)
        _check_levels(op, [x for place, x in enumerate(given) if place in fixed], FIXED)
        if not (torch.is_grad_enabled() and torch._C._any_requires_grad(*given)):
            return _beneath(op, keys, given)
        with enable_single_level_autograd_function() if is_transformed() else nullcontext():
            return Gradient.apply(*given, keys)  # type: ignore[attr-defined]

    return called


def without_gradient(op: Any) -> Callable[..., Any]:
    """What an operator that makes codes, or takes them, does where torch looks on: calls itself.

    Under autograd its results have no graph, as codes have none.  torch.func and dual numbers take what
    has no derivative for 0, in the midst of a sum too, so they are told.
    """

    def called(keys: Any, *given: Any) -> Any:
        if forward_ad._current_level >= 0:
            _check_tangents(op, given, CODES)
        _check_levels(op, given, CODES)
        return _beneath(op, keys, given)

    return called


CODES = (
    "codes do not change with what they were made of, and torch.func and dual numbers would take that for 0; "
    "nx.fake_quantize and a format's round have a straight-through gradient, x.detach() is a constant"
)


FIXED = (
    "packed codes, scales and zero points are taken as they are, and torch.func would take that for 0; "
    "give x.detach() of them; numerics.train.LSQ and TQT learn scales"
)


def _check_levels(op: Any, given: Any, instead: str) -> None:
    """Raises NumericsError where torch.func asks for a gradient that no tensor of those can have."""
    if is_transformed() and torch.is_grad_enabled() and torch._C._any_requires_grad(*given):
        raise NumericsError(f"{op._opname} has no gradient there: {instead}")


def is_transformed() -> bool:
    """Does a transformation of torch.func look at what is computed?"""
    return torch._C._functorch.maybe_current_level() is not None


def _beneath(op: Any, keys: Any, given: Any) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return op.redispatch(keys & torch._C._after_autograd_keyset, *given)


@contextmanager
def _recording() -> Iterator[None]:
    """A function's forward records nothing, and other levels of torch.func are to."""
    with torch.set_grad_enabled(is_transformed()), forward_ad._set_fwd_grad_enabled(True):
        yield


BACKWARD = "torch.func.grad, vjp and jacrev, and loss.backward(), go through it"


def _check_tangents(op: Any, given: Any, instead: str) -> None:
    """Raises NumericsError where a derivative goes forward: without a rule it would be 0 without a word."""
    if any(isinstance(x, Tensor) and has_tangent(x) for x in given):
        raise NumericsError(
            f"{op._opname} has no derivative in forward mode (torch.func.jvp, jacfwd, hessian, dual "
            f"numbers): {instead}"
        )


def has_tangent(x: Tensor) -> bool:
    """Is it a dual number of the level that is now?"""
    if forward_ad._current_level < 0:
        return False
    return forward_ad.unpack_dual(x).tangent is not None  # type: ignore[no-untyped-call]
