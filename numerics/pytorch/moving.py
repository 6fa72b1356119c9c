"""How a module takes a QTensor of another float type, or on another device, while its own is held elsewhere.

`module.half()` puts tensors of subclasses in the place of parameters by exchanging the insides of two
objects, which torch refuses while a graph or an exported program holds one.  By `x.data = ...` it takes what
is none.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from numerics.pytorch.callers import callers

_APPLY = torch.nn.Module._apply.__code__
BECAME = "_became"
"""Under that name a parameter that is held has the one that took its place, for all that is tied to it."""


class Moved(Tensor):
    """What a module is given for a parameter that is held: `x.data = ...` takes the QTensor in it.

    numerics_of: the QTensor.
    """

    numerics_of: Any


def moved(q: Any, made: Any) -> Any:
    """What a function made of a QTensor, for who called it: of a module's parameter that is held, a Moved."""
    if not isinstance(q, torch.nn.Parameter) or _is_free(q) or _applying(q) is None:
        return made
    found = torch.empty(0).as_subclass(Moved)
    found.numerics_of = made
    return found


def _is_free(q: Any) -> bool:
    """Can torch exchange the insides of its object?"""
    return not weakref.getweakrefcount(q) and q._use_count() == 1


def may_become(q: Any) -> bool:
    """Can a parameter become its values, or these take its place in the module that converts it?"""
    return _is_free(q) or _applying(q) is not None


def become_values(q: Any, values: Tensor, beside: Mapping[str, Any]) -> None:
    """Makes a parameter a plain one of these values, its gradient in their type too.

    beside: what its owner attached to it.  Where it is held elsewhere a plain one takes its place in the
    module, for all that is tied to it.
    """
    gradient = None if q.grad is None else q.grad.to(values)
    frame = None if _is_free(q) else _applying(q)
    plain = torch.nn.Parameter(values, q.requires_grad) if frame is None else _replaced(q, values, frame)
    plain.__dict__.update(beside)
    if frame is not None:
        plain.grad = gradient
        return
    q.grad = None  # which torch would count as a holder
    torch.utils.swap_tensors(q, plain)  # type: ignore[no-untyped-call]
    q.grad = gradient


def _replaced(q: Any, made: Any, frame: FrameType) -> torch.nn.Parameter:
    """What takes a parameter's place in the module that converts it: one Parameter for all that is tied."""
    new: torch.nn.Parameter | None = q.__dict__.get(BECAME)
    if new is None or (new.device, new.dtype) != (made.device, made.dtype):
        new = q.__dict__[BECAME] = torch.nn.Parameter(made, q.requires_grad)
    frame.f_locals["self"]._parameters[frame.f_locals["key"]] = new
    return new


def _applying(q: Any) -> FrameType | None:
    """Where a module converts that parameter, unless torch was told to put new ones in their places."""
    future = torch.__future__
    if future.get_swap_module_params_on_conversion() or future.get_overwrite_module_params_on_conversion():
        return None
    for frame in callers():
        if frame.f_code is _APPLY:
            return frame if frame.f_locals.get("param") is q else None
    return None


def take(q: Any, made: Any) -> bool:
    """Gives a parameter the type of another QTensor; on another device that takes its place in the module.

    Returns whether the parameter became that itself, and takes its parts.
    """
    try:
        with torch._C.DisableTorchFunctionSubclass():
            Tensor.data.__set__(q, made)  # type: ignore[attr-defined]
        return True
    except RuntimeError as wrong:
        frame = _applying(q)
        if "incompatible tensor type" not in str(wrong) or frame is None:
            raise
        _replaced(q, made, frame)
        return False
