"""Products with QTensors that read the packed codes: what `linear`, `matmul`, `addmm` and `bmm` come to.

Torch makes products of matrices of them all, a QTensor with its axes turned among their operands.  Nothing
is kept for a gradient but the bytes, and the gradient of x reads them too.  On other devices than the CPU,
in float64, and where both operands are quantized, the values are multiplied by torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from numerics.pytorch.operators import are_recorded, have_memory, is_traced, matrix_of, no_gradient, times
from numerics.pytorch.qtensor import FLOATS, TensorQTensor, text_of
from numerics.pytorch.wrapper import Kept, Permuted, Wrapper
from numerics.tensor import slicing
from numerics.tensor.parts import PARTS
from numerics.tensor.product import are_decoded
from numerics.tensor.qtensor import ArrayQTensor

aten = torch.ops.aten


def _read(q: Any, x: Any) -> TensorQTensor | None:
    """The QTensor of two dimensions that q is, or is with its axes turned, where x can be multiplied so."""
    held = q.quantized if isinstance(q, Permuted) else q
    plain = isinstance(x, Tensor) and not isinstance(x, Wrapper) and isinstance(held, TensorQTensor)
    if not plain or are_decoded() or held.ndim != 2 or x.dtype != held.dtype or x.dtype == torch.float64:
        return None
    cpu = x.device.type == held.device.type and x.device.type in ("cpu", "meta")
    return held if cpu and x.dtype in FLOATS and held.spec.scale_type != "float64" else None


def product(x: Tensor, q: TensorQTensor, bias: Tensor | None, across: bool) -> Tensor:
    """The operator's result: by the operator where torch traces, at once where it does not."""
    if not is_traced() and have_memory((x, *q.parts)):
        return times(x, _arrays(q), bias, across)
    return operator(x, q, bias, across)


def operator(
    x: Tensor, q: TensorQTensor, bias: Tensor | None, across: bool = False, compute: str = "float32"
) -> Tensor:
    """The product by torch's operator, which has a gradient of its own."""
    return cast(Tensor, torch.ops.numerics.linear(
        x, q.packed, q.shared, q.zero_point, q.tensor_scale, list(q.shape), text_of(q.spec), q.original, bias,
        across, compute,
    ))  # fmt: skip


def at_once(x: Any, weight: Any, bias: Any = None, compute: str = "float32") -> Tensor | None:
    """A linear layer's product without torch's way to it, which makes views of both; None where torch looks
    on: for a gradient, a trace, an autocast.
    """
    parts = (x,) if bias is None else (x, bias)
    if is_traced() or torch.is_autocast_enabled("cpu") or not have_memory(parts):
        return None
    if are_recorded((weight, *parts)):
        return None
    q = _read(weight, x) if isinstance(weight, TensorQTensor) else None
    if q is None or not x.numel() or not x.ndim or x.shape[-1] != q.shape[1]:
        return None
    if not have_memory(q.parts):
        return None
    fits = bias is None or (bias.dtype == x.dtype and tuple(bias.shape) == (q.shape[0],))
    return times(x, _arrays(q), bias, False, compute) if fits else None


def _arrays(q: TensorQTensor) -> ArrayQTensor:
    """The QTensor of its arrays, kept beside it until its memory is another.

    Arrays show what is written into parts; a tensor's scale is a number there, and is read each time.
    """
    memory = [_place(part) for part in q.parts]
    if any(place[-1] for place in memory) and torch.is_grad_enabled():
        raise no_gradient("a product with a QTensor")
    known = q.__dict__.get("_read")
    if known is None or known[0] != memory or known[1].spec is not q.spec or q.tensor_scale is not None:
        parts = [getattr(q, name) for name in PARTS]
        known = q.__dict__["_read"] = memory, matrix_of(parts, tuple(q.shape), q.spec, q.original)
    return cast(ArrayQTensor, known[1])


def _place(part: Tensor) -> tuple[Any, ...]:
    """Where a part lies, and as what: another place, shape or type is another part."""
    held = part.untyped_storage().nbytes()
    return part.data_ptr(), held, part.shape, part.stride(), part.dtype, part.is_neg(), part.requires_grad


# ---- torch's products of matrices ------------------------------------------------------------------------


def _mm(a: Any, b: Any) -> Any:
    if a.ndim != 2 or b.ndim != 2:
        return NotImplemented
    q = _read(b, a)
    if q is not None:
        return product(a, q, None, isinstance(b, TensorQTensor))
    q = _read(a, b)  # q @ x is (x.t() @ q.t()).t()
    if q is None:
        return NotImplemented
    return product(b.t(), q, None, isinstance(a, Permuted)).t()


def _addmm(bias: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    kind = b.dtype if isinstance(b, Wrapper) else getattr(a, "dtype", None)
    if not isinstance(bias, Tensor) or isinstance(bias, Wrapper) or bias.dtype != kind or a.ndim != 2:
        return NotImplemented
    q = _read(b, a)
    if q is not None and isinstance(b, Permuted) and (bias.shape, beta, alpha) == ((q.shape[0],), 1, 1):
        return product(a, q, bias, False)
    found = _mm(a, b)
    if found is NotImplemented or bias.ndim > 2 or not _spreads(bias.shape, found.shape):
        return NotImplemented
    scaled = found if alpha == 1 else found * alpha
    return scaled if beta == 0 else scaled + (bias if beta == 1 else bias * beta)


def _spreads(shape: Any, over: Any) -> bool:
    """Does a shape broadcast to another without widening it?"""
    return all(n in (1, size) for n, size in zip(reversed(shape), reversed(over), strict=False))


def _mv(a: Any, b: Any) -> Any:
    q = _read(a, b) if a.ndim == 2 and b.ndim == 1 else None
    return NotImplemented if q is None else product(b, q, None, isinstance(a, Permuted))


def _linear(x: Any, weight: Any, bias: Any = None) -> Any:
    q = _read(weight, x)
    if q is None or isinstance(weight, Permuted) or (bias is not None and isinstance(bias, Wrapper)):
        return NotImplemented
    return product(x, q, bias, False)


def _bmm(a: Any, b: Any) -> Any:
    """Matrix by matrix: experts."""
    held = b.quantized if isinstance(b, Permuted) else b
    if not isinstance(held, TensorQTensor) or isinstance(a, Wrapper) or held.ndim != 3:
        return NotImplemented
    turned = isinstance(b, Permuted)
    if (turned and b.axes != (0, 2, 1)) or a.ndim != 3 or len(a) != held.shape[0] or not len(a):
        return NotImplemented
    if a.shape[2] != b.shape[1] or held.shape[0] == 0 or 0 in slicing.blocked_axes(held):
        return NotImplemented
    parts = [_read(held.select(0, expert), x) for expert, x in enumerate(a)]
    if any(part is None for part in parts):
        return NotImplemented
    return torch.stack(
        [product(x, cast(TensorQTensor, part), None, not turned) for x, part in zip(a, parts, strict=True)]
    )


PRODUCTS: Kept = {
    aten.mm.default: _mm,
    aten.addmm.default: _addmm,
    aten.mv.default: _mv,
    aten.linear.default: _linear,
    aten.bmm.default: _bmm,
}
"""Operators of torch, for QTensors of two and three dimensions."""


# ---- rows of several axes --------------------------------------------------------------------------------


def _folded_linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """Torch makes a product of many small matrices where x is not contiguous, of decoded weights."""
    return F.linear(x.reshape(-1, x.shape[-1]), weight, bias).reshape(*x.shape[:-1], weight.shape[0])


def _folded_matmul(x: Any, other: Any) -> Any:
    if other.ndim == 3 and x.ndim == 3 and x.shape[0] == other.shape[0]:
        return torch.bmm(x, other)
    if other.ndim != 2:
        return None
    return torch.mm(x.reshape(-1, x.shape[-1]), other).reshape(*x.shape[:-1], other.shape[1])


def _turned(other: Any, x: Any) -> Any:
    return _folded_matmul(x, other)


_FOLDS: dict[Any, Callable[..., Any]] = {
    F.linear: _folded_linear, torch.matmul: _folded_matmul, Tensor.matmul: _folded_matmul,
    Tensor.__matmul__: _folded_matmul, Tensor.__rmatmul__: _turned,
}  # fmt: skip


def fold(func: Any, args: Any, kwargs: Any) -> Any:
    """A linear layer's product at once, that of x of three axes and more by rows; None for other calls."""
    others = set(kwargs or ()) - ({"bias"} if func is F.linear else set())
    if func not in _FOLDS or others or len(args) < 2 or not all(isinstance(arg, Tensor) for arg in args[:2]):
        return None
    if func is F.linear:
        with torch._C.DisableTorchFunctionSubclass():  # each look at the weight's shape would come here again
            found = at_once(*args, **(kwargs or {}))
        if found is not None:
            return found
    x, other = args[:2] if func is not Tensor.__rmatmul__ else args[1::-1]
    if (
        x.ndim < 3
        or not x.numel()
        or isinstance(x, Wrapper)
        or not isinstance(other, Wrapper)
        or are_decoded()
    ):
        return None
    return _FOLDS[func](*args, **(kwargs or {}))


Wrapper.folds = staticmethod(fold)
