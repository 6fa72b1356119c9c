"""Products with QTensors that read the packed codes: what torch's `mm`, `mv`, `bmm` and their kin come to.

Torch makes products of matrices of them all, a QTensor with its axes turned among their operands; those of
several axes are brought there in folds.py.  Nothing is kept for a gradient but the bytes, and the gradient
of x reads them too.  On other devices than the CPU, and in float64, the values are multiplied by torch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling as is_compiling

from numerics.formats.errors import NumericsError
from numerics.pytorch.operators import are_recorded, have_memory, is_traced, multiplied, times
from numerics.pytorch.qtensor import FLOATS, TensorQTensor, check_unwritten, text_of
from numerics.pytorch.wrapper import Kept, Permuted, Repeated, Wrapper
from numerics.tensor import slicing
from numerics.tensor.product import are_decoded

aten = torch.ops.aten
REAL = {int, float, np.float64, torch.SymInt, torch.SymFloat}
"""Numbers that a product is multiplied by: torch's own are those that a compiled graph does not know yet."""


def _read(q: Any, x: Any) -> TensorQTensor | None:
    """The QTensor of two dimensions that q is, or is with its axes turned, where x can be multiplied so."""
    held = q.quantized if isinstance(q, Permuted) else q
    plain = isinstance(x, Tensor) and isinstance(held, TensorQTensor)
    return held if plain and _multiplies(held, x) else None


def _multiplies(q: TensorQTensor, x: Tensor) -> bool:
    """Are x and q, both tensors, of two dimensions, a type and a place of which kernels make products?"""
    kind = x.dtype
    if are_decoded() or q.ndim != 2 or kind != q.dtype or kind == torch.float64 or kind not in FLOATS:
        return False
    if x.layout != torch.strided or x.is_nested or q.spec.scale_type == "float64":
        return False
    return (x.is_cpu and q.is_cpu) or (x.is_meta and q.is_meta)


def product(x: Tensor, q: TensorQTensor, bias: Tensor | None, across: bool) -> Tensor:
    """The operator's result: by the operator where torch traces, at once where it does not."""
    arrays = q.arrays if not is_traced() and have_memory((x,)) else None
    return operator(x, q, bias, across) if arrays is None else times(x, arrays, bias, across)


def operator(
    x: Tensor, q: TensorQTensor, bias: Tensor | None, across: bool = False, compute: str = "float32"
) -> Tensor:
    """The product by torch's operator, which has a gradient of its own."""
    if not is_compiling():  # what a compiler makes of q is asked when its graph is run with stand-ins
        check_unwritten(q)
    return cast(Tensor, torch.ops.numerics.linear(
        x, q.packed, q.shared, q.zero_point, q.tensor_scale, list(q.shape), text_of(q.spec), q.original, bias,
        across, compute,
    ))  # fmt: skip


def at_once(x: Any, weight: Any, bias: Any = None, compute: str = "float32") -> Tensor | None:
    """A linear layer's product without torch's way to it, which makes views of both; None where torch looks
    on: for a gradient, a trace, an autocast.
    """
    parts = (x,) if bias is None else (x, bias)
    if not isinstance(weight, TensorQTensor) or is_traced() or torch.is_autocast_enabled("cpu"):
        return None
    if not have_memory(parts) or are_recorded((weight, *parts)) or not _multiplies(weight, x):
        return None
    arrays = weight.arrays if x.numel() and x.ndim else None
    if arrays is None:
        return None
    rows, length = arrays.shape
    fits = x.shape[-1] == length and (bias is None or (bias.dtype == x.dtype and bias.shape == (rows,)))
    return multiplied(x, arrays, bias, False, compute) if fits else None


# ---- torch's products of vectors and matrices -------------------------------------------------------------
#
# Where both are quantized, the codes of the second are read, and the first one's values are x.  wide: sums
# are left in float32, for what is added to them.


def _mm(a: Any, b: Any, wide: bool = False) -> Any:
    if a.ndim != 2 or b.ndim != 2:
        return NotImplemented
    if not isinstance(b, Wrapper):  # q @ x is (x.t() @ q.t()).t()
        found = _mm(b.t(), a.t(), wide)
        return found if found is NotImplemented else found.t().contiguous()
    q = _read(b, a)
    if q is None:
        return NotImplemented
    return product(_values(a, wide), q, None, isinstance(b, TensorQTensor))


def _values(x: Tensor, wide: bool = False) -> Tensor:
    """An operand as values."""
    plain = x.dequantize() if isinstance(x, Wrapper) else x
    return plain.float() if wide else plain


def _mv(a: Any, b: Any, wide: bool = False) -> Any:
    if a.ndim != 2 or b.ndim != 1:
        return NotImplemented
    if isinstance(b, Wrapper):
        q = _row(b, a)
        return NotImplemented if q is None else product(_values(a, wide), q, None, False).squeeze(1)
    q = _read(a, b)
    return NotImplemented if q is None else product(_values(b, wide), q, None, isinstance(a, Permuted))


def _dot(a: Any, b: Any) -> Any:
    x, vector = (a, b) if isinstance(b, Wrapper) else (b, a)
    q = _row(vector, x) if x.ndim == vector.ndim == 1 else None
    return NotImplemented if q is None else product(_values(x), q, None, False).reshape(())


def _row(vector: Any, x: Any) -> TensorQTensor | None:
    """A vector as a matrix of one row, where x can be multiplied so."""
    one = slicing.as_row(vector) if isinstance(vector, TensorQTensor) else None
    return None if one is None else _read(one, x)


def _linear(x: Any, weight: Any, bias: Any = None) -> Any:
    q = _read(weight, x)
    if q is None or isinstance(weight, Permuted) or (bias is not None and isinstance(bias, Wrapper)):
        return NotImplemented
    return product(_values(x), q, bias, False)


def _bmm(a: Any, b: Any, wide: bool = False) -> Any:
    """Matrix by matrix: experts, or the same matrix again and again."""
    if a.ndim != 3 or b.ndim != 3 or len(a) != len(b) or a.shape[2] != b.shape[1]:
        return NotImplemented
    if not isinstance(b, Wrapper):
        turned = a.transpose(1, 2)
        found = _bmm(b.mT, turned, wide) if isinstance(turned, Wrapper) else NotImplemented
        return found if found is NotImplemented else found.mT.contiguous()
    if isinstance(b, Repeated):
        found = _mm(_values(a).flatten(0, 1), b.quantized, wide)
        return found if found is NotImplemented else found.reshape(*a.shape[:2], b.shape[2])
    experts = parts_of(b)
    if not experts or any(_read(expert, a) is None for expert in experts):
        return NotImplemented
    return torch.stack(
        [_mm(x, expert, wide) for x, expert in zip(_values(a).unbind(0), experts, strict=True)]
    )


def parts_of(q: Any) -> list[Any] | None:
    """What a QTensor, maybe turned, has along its first axis, each quantized; None where that cannot be."""
    held, axis = (q.quantized, q.axes[0]) if isinstance(q, Permuted) else (q, 0)
    if not isinstance(held, TensorQTensor) or axis in slicing.blocked_axes(held):
        return None
    parts = list(q.unbind(0))
    return parts if all(isinstance(part, Wrapper) for part in parts) else None


# ---- products that something is added to ------------------------------------------------------------------


def _added(of: Callable[..., Any], bias: Any, *factors: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    """alpha times a product, plus beta times a bias: each in float32, rounded once more to their type."""
    if (
        not isinstance(bias, Tensor)
        or bias.dtype != factors[0].dtype
        or not {type(beta), type(alpha)} <= REAL
    ):
        return NotImplemented
    found = of(*factors, True)
    if found is NotImplemented or bias.ndim > found.ndim or not _spreads(bias.shape, found.shape):
        return NotImplemented
    return weighted(found, _values(bias, True), beta, alpha).to(bias.dtype)


def weighted(found: Tensor, bias: Tensor, beta: float, alpha: float) -> Tensor:
    """alpha times a product plus beta times a bias, both in float32: nothing is multiplied by 1, or by 0."""
    found = found if alpha == 1 else found * alpha
    return found if beta == 0 else found + (bias if beta == 1 else bias * beta)


def _addmm(bias: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    q = _read(b, a) if isinstance(b, Permuted) and a.ndim == 2 else None
    usual = q is not None and isinstance(bias, Tensor) and (beta, alpha) == (1, 1)
    if usual and bias.dtype == a.dtype and bias.shape == (b.shape[1],):
        return product(_values(a), cast(TensorQTensor, q), _values(bias), False)
    return _added(_mm, bias, a, b, beta=beta, alpha=alpha)


def _spreads(shape: Any, over: Any) -> bool:
    """Does a shape broadcast to another without widening it?"""
    return all(n in (1, size) for n, size in zip(reversed(shape), reversed(over), strict=False))


def _summed(a: Any, b: Any, wide: bool) -> Any:
    """A sum of matrix products, each added to those before it."""
    found = _bmm(a, b, wide)
    return found if found is NotImplemented else in_turn(found)


def in_turn(products: Tensor) -> Tensor:
    """The sum of products along the first axis, one after the other."""
    return reduce(torch.add, products.unbind(0))


# ---- what torch's operators come to -----------------------------------------------------------------------


def into(out: Tensor, found: Tensor) -> Tensor:
    """Writes a result into out=, under torch's own rules for its type, its shape and gradients."""
    if torch.is_grad_enabled() and (found.requires_grad or out.requires_grad):
        raise NumericsError(
            "x or out requires a gradient, which out= would lose; call without out=, or give x.detach()"
        )
    aten.clone.out(found, out=out)
    return out


def _with_out(kept: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, out: Any, **options: Any) -> Any:
        found = NotImplemented if isinstance(out, Wrapper) else kept(*args, **options)
        return found if found is NotImplemented else into(out, found)

    return call


def _in_place(kept: Callable[..., Any]) -> Callable[..., Any]:
    def call(x: Any, *args: Any, **options: Any) -> Any:
        found = NotImplemented if isinstance(x, Wrapper) else kept(x, *args, **options)
        fits = found is not NotImplemented and found.shape == x.shape
        return x.copy_(found) if fits else NotImplemented

    return call


_KEPT: dict[str, Callable[..., Any]] = {
    "mm": _mm, "mv": _mv, "dot": _dot, "vdot": _dot, "bmm": _bmm, "linear": _linear, "addmm": _addmm,
    "addmv": partial(_added, _mv), "baddbmm": partial(_added, _bmm), "addbmm": partial(_added, _summed),
}  # fmt: skip
PRODUCTS: Kept = {getattr(aten, name).default: kept for name, kept in _KEPT.items()}
PRODUCTS |= {getattr(aten, name).out: _with_out(kept) for name, kept in _KEPT.items()}
PRODUCTS |= {
    getattr(aten, f"{name}_").default: _in_place(kept)
    for name, kept in _KEPT.items() if name.startswith(("add", "badd"))
}  # fmt: skip
"""Operators of torch, for QTensors of one, two and three dimensions."""
