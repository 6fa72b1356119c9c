"""Torch's products of tensors of several axes, brought to products of matrices whose codes are read.

Torch repeats a weight, flattens it or puts its axes elsewhere before it multiplies, which takes the values of
a QTensor.  Here rows of x are put together instead, and a QTensor is parted along its first axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from numerics.pytorch.autograd import is_transformed
from numerics.pytorch.products import REAL, at_once, in_turn, into, parts_of, weighted
from numerics.pytorch.wrapper import Repeated, Wrapper
from numerics.tensor.product import are_decoded

aten = torch.ops.aten
Labels = list[Any]


def _are_taken(a: Any, b: Any) -> bool:
    """Are they two tensors, one of them quantized, that have axes?"""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor) or a.is_nested or b.is_nested:
        return False
    return (isinstance(a, Wrapper) or isinstance(b, Wrapper)) and a.ndim > 0 and b.ndim > 0


def _rows(x: Tensor) -> Tensor:
    return x.unsqueeze(0) if x.ndim == 1 else x.flatten(0, -2)


def _linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """Torch makes a product of many small matrices where x is not contiguous, and adds the bias by itself."""
    if not _are_taken(x, weight):
        return None
    if x.ndim == 2 and weight.ndim == 2:
        late = bias is not None and x.dtype in SHORT and is_transformed()
        return _added(_mm, bias, x, weight.t()) if late else None
    if weight.ndim == 1 and bias is None:
        return torch.matmul(x, weight)
    if weight.ndim == 2 and isinstance(weight, Wrapper):
        return F.linear(_rows(x), weight, bias).reshape(*x.shape[:-1], weight.shape[0])
    parts = parts_of(x) if x.ndim > 2 else None
    return torch.stack([F.linear(part, weight, bias) for part in parts]) if parts else None


def _attention(func: Any, args: Any, named: Any) -> Any:
    """Its linear layers are torch's own, in C++: of rows that lie together they make one product of each.

    Torch asks which of query, key and value are the same one.
    """
    whole = {id(x): x.contiguous() for x in args[:3]}
    if all(whole[id(x)] is x for x in args[:3]):
        return None
    return func(*(whole[id(x)] for x in args[:3]), *args[3:], **named)


# ---- axes that are multiplied side by side ----------------------------------------------------------------


def _matmul(a: Any, b: Any) -> Any:
    if not _are_taken(a, b):
        return None
    if max(a.ndim, b.ndim) < 3:
        return _of_vectors(a, b) if is_transformed() else None
    if isinstance(b, Wrapper):
        return _times(a, b)
    if a.ndim == 1:
        return _times(b.mT, a)
    found = _times(b if b.ndim == 1 else b.mT, a.mT)  # q @ x is (x.mT @ q.mT).mT
    return found if found is None or b.ndim == 1 else found.mT.contiguous()


def _times(x: Any, q: Any) -> Any:
    """x @ q, q quantized; None where q cannot be parted, or the shapes do not fit."""
    if q.ndim == 1:
        return torch.mv(_rows(x), q).reshape(x.shape[:-1])
    if q.ndim == 2:
        return torch.mm(_rows(x), q).reshape(*x.shape[:-1], q.shape[1])
    if x.ndim == 1:
        found = _times(x.unsqueeze(0), q)
        return None if found is None else found.squeeze(-2)
    if isinstance(q, Repeated):
        return _repeated(x, q)
    lead = q.ndim - 2
    for _ in range(q.ndim - x.ndim):
        x = x.unsqueeze(0)
    fits = x.shape[-1] == q.shape[-2] and all(
        1 in (mine, its) or mine == its
        for mine, its in zip(x.shape[-2 - lead : -2], q.shape[:lead], strict=True)
    )
    return _parted(x, q, lead) if fits else None


def _repeated(x: Any, q: Any) -> Any:
    """x (..., m, k) times a matrix that is the same along the axes before its own."""
    if 0 in q.before:
        return None
    before = torch.broadcast_shapes(x.shape[:-2], q.before)  # type: ignore[no-untyped-call]
    for _ in q.before:
        q = q.select(0, 0)
    found = _times(x, q)
    return found.expand(*before, *found.shape[-2:]).contiguous()


def _parted(x: Any, q: Any, lead: int) -> Any:
    """x (..., lead, m, k) times q (lead, k, n) or (lead, k), part by part of the leading axes of q."""
    if not lead:
        return torch.matmul(x, q)
    parts = parts_of(q)
    if not parts:
        return None
    if len(parts) == 1:
        return _parted(x, parts[0], lead - 1)
    axis = x.ndim - 2 - lead
    each = x.unbind(axis) if x.shape[axis] > 1 else [x.squeeze(axis)] * len(parts)
    found = [_parted(one, part, lead - 1) for one, part in zip(each, parts, strict=True)]
    if any(one is None for one in found):
        return None
    return torch.stack(found, found[0].ndim + 1 - q.ndim)


# ---- axes by their names ----------------------------------------------------------------------------------


def _contracted(a: Any, b: Any, of_a: Labels, of_b: Labels, out: Labels) -> Any:
    """A product of two that is summed over one axis of both: matmul's, once axes are where matmul has them.

    of_a, of_b, out: a label for each axis.  None where another number of axes is summed, or where an axis is
    summed that one of them lacks, appears twice, or is stretched.
    """
    x, q, of_x, of_q = (a, b, of_a, of_b) if isinstance(b, Wrapper) else (b, a, of_b, of_a)
    sizes = dict(zip(of_x, x.shape, strict=True))
    once = len(set(of_x)) == x.ndim and len(set(of_q)) == q.ndim and len(set(out)) == len(out)
    if not once or any(sizes.get(label, size) != size for label, size in zip(of_q, q.shape, strict=True)):
        return None
    both = [label for label in of_q if label in of_x]
    summed, beside = [k for k in both if k not in out], [k for k in both if k in out]
    of_x_alone, of_q_alone = ([k for k in one if k not in both] for one in (of_x, of_q))
    if len(summed) != 1 or {*beside, *of_x_alone, *of_q_alone} != set(out):
        return None
    long = dict(zip(of_q, q.shape, strict=True))
    of_q_alone.sort(key=lambda label: long[label])  # the longest is that of a matrix: fewest parts
    lead, last = beside + of_q_alone[:-1], of_q_alone[-1:]
    rows = x.permute([of_x.index(k) for k in (*beside, *of_x_alone, *summed)])
    rows = rows.reshape(
        [sizes[k] for k in beside] + [1] * (len(lead) - len(beside))
        + [math.prod(sizes[k] for k in of_x_alone), sizes[summed[0]]]
    )  # fmt: skip
    found = _parted(rows, q.permute([of_q.index(k) for k in (*lead, *summed, *last)]), len(lead))
    if found is None:
        return None
    found = found.reshape(
        [*(long[k] for k in lead), *(sizes[k] for k in of_x_alone), *(long[k] for k in last)]
    )
    made = [*lead, *of_x_alone, *last]
    return found.permute([made.index(label) for label in out])


def _einsum(equation: Any, *operands: Any) -> Any:
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    if not isinstance(equation, str) or len(operands) != 2 or not _are_taken(*operands):
        return None
    given, arrow, result = equation.replace(" ", "").partition("->")
    texts = given.split(",")
    first, second = (_labels(text, x.ndim) for text, x in zip([*texts, "", ""][:2], operands, strict=True))
    if len(texts) != 2 or first is None or second is None:
        return None
    rest = max((first, second), key=lambda labels: sum(isinstance(k, int) for k in labels))
    dots = [label for label in rest if isinstance(label, int)]
    if arrow:
        before, there, after = result.partition("...")
        out = [*before, *(dots if there else []), *after]
    else:
        letters = [k for k in (*first, *second) if isinstance(k, str)]
        out = [*dots, *sorted(k for k in letters if letters.count(k) == 1)]
    return _contracted(*operands, first, second, out)


def _labels(text: str, ndim: int) -> list[Any] | None:
    """A letter an axis; for those that `...` stands for their places from the last of them, below 0."""
    before, dots, after = text.partition("...")
    count = ndim - len(before) - len(after)
    if count < 0 or (count and not dots):
        return None
    return [*before, *range(-count, 0), *after]


def _tensordot(a: Any, b: Any, dims: Any = 2) -> Any:
    if not _are_taken(a, b):
        return None
    if type(dims) is int:
        dims = list(range(-dims, 0)), list(range(dims))
    lists = isinstance(dims, (list, tuple)) and len(dims) == 2 and all(
        isinstance(axes, (list, tuple)) and len(axes) == 1 for axes in dims
    )  # fmt: skip
    return _over(a, b, dims[0][0], dims[1][0]) if lists else None


def _inner(a: Any, b: Any) -> Any:
    return _over(a, b, -1, -1) if _are_taken(a, b) else None


def _over(a: Any, b: Any, axis: int, other: int) -> Any:
    """A product over an axis of each; the others follow one another in the result."""
    if not (-a.ndim <= axis < a.ndim and -b.ndim <= other < b.ndim):
        return None
    of_a, of_b = list(range(a.ndim)), list(range(a.ndim, a.ndim + b.ndim))
    of_b[other] = of_a[axis]
    found = _contracted(a, b, of_a, of_b, [k for k in (*of_a, *of_b) if k != of_a[axis]])
    return None if found is None else found.contiguous()


# ---- under torch.vmap and its kin -------------------------------------------------------------------------
#
# Torch's rules for a batch make others of these products, of views of q that are no QTensor any more, and
# round what is added to.  Here they are made of `mm`, of which a batch is more rows.

SHORT = torch.bfloat16, torch.float16


def _of_vectors(a: Any, b: Any) -> Any:
    """matmul of two of which one is a vector, the other one or a matrix."""
    if a.ndim == 1:
        return _dot(a, b) if b.ndim == 1 else _mv(b.t(), a)
    return _mv(a, b) if b.ndim == 1 else None


def _mm(a: Any, b: Any) -> Any:
    return torch.mm(a, b) if a.ndim == b.ndim == 2 else None


def _mv(a: Any, b: Any) -> Any:
    if a.ndim != 2 or b.ndim != 1:
        return None
    one = b.unsqueeze(0)
    return torch.mm(a, one.t()).squeeze(1) if isinstance(b, Wrapper) else torch.mm(one, a.t()).squeeze(0)


def _dot(a: Any, b: Any) -> Any:
    x, vector = (a, b) if isinstance(b, Wrapper) else (b, a)
    return _mv(x.unsqueeze(0), vector).squeeze(0) if x.ndim == vector.ndim == 1 else None


def _bmm(a: Any, b: Any) -> Any:
    if a.ndim != 3 or b.ndim != 3 or len(a) != len(b):
        return None
    left, right = (parts_of(x) if isinstance(x, Wrapper) else x.unbind(0) for x in (a, b))
    pairs = zip(left, right, strict=True) if left and right else ()
    return torch.stack([torch.mm(one, other) for one, other in pairs]) if pairs else None


def _summed(a: Any, b: Any) -> Any:
    """A sum of matrix products, each added to those before it."""
    found = _bmm(a, b)
    return None if found is None else in_turn(found)


def _added(of: Callable[..., Any], bias: Any, *factors: Any, beta: float = 1, alpha: float = 1) -> Any:
    """alpha times a product, plus beta times a bias: each in float32, rounded once more to their type."""
    (kind, *others), numbers = {bias.dtype, *(x.dtype for x in factors)}, {type(beta), type(alpha)}
    if others or not numbers <= REAL:
        return None
    found = of(*(x.float() for x in factors))
    if found is None or bias.ndim > found.ndim:
        return None
    return weighted(found, bias.float(), beta, alpha).to(kind)


def _transformed(func: Any, args: Any, kwargs: Any) -> Any:
    """A product of torch's under a transformation, by the codes; None for all else."""
    kept, names = _TRANSFORMED.get(func, (None, ()))
    if kept is None:
        return None
    given, named = list(args), dict(kwargs or ())
    given += [named.pop(name) for name in names[len(given) :] if name in named]
    if not named.keys() <= {"beta", "alpha"} or (names and not _are_factors(given, len(names))):
        return None
    return kept(*given, **named)


def _are_factors(given: list[Any], count: int) -> bool:
    """Are they so many tensors, of which the last two are multiplied, one of these quantized?"""
    if len(given) != count or not all(isinstance(x, Tensor) for x in given):
        return False
    return _are_taken(*given[-2:]) and not all(isinstance(x, Wrapper) for x in given[-2:])


# ---- who comes here ---------------------------------------------------------------------------------------

_MATMUL = _matmul, ("input", "other")
_FOLDS: dict[Any, tuple[Callable[..., Any], tuple[str, ...]]] = {
    F.linear: (_linear, ("input", "weight", "bias")),
    torch.matmul: _MATMUL, Tensor.matmul: _MATMUL, Tensor.__matmul__: _MATMUL, torch.linalg.matmul: _MATMUL,
    Tensor.__rmatmul__: (lambda b, a: _matmul(a, b), ("input", "other")),
    torch.inner: (_inner, ("input", "other")), Tensor.inner: (_inner, ("input", "other")),
    torch.tensordot: (_tensordot, ("a", "b", "dims")), torch.einsum: (_einsum, ()),
}  # fmt: skip
_FOLDS |= {
    call: (kept, tuple(names.split()))
    for packet, kept, names in (
        (aten.linear, _linear, "input weight bias"), (aten.matmul, _matmul, "self other"),
        (aten.inner, _inner, "self other"), (aten.einsum, _einsum, ""),
        (aten.tensordot, lambda a, b, axes, others: _tensordot(a, b, (list(axes), list(others))),
         "self other dims_self dims_other"),
    )
    for call in (packet, packet.default)
}  # fmt: skip
"""Torch's functions that make products of matrices by themselves, and what their arguments are called."""

_NAMES: dict[str, tuple[Callable[..., Any], str]] = {
    "mv": (_mv, "vec"), "dot": (_dot, "tensor"), "vdot": (_dot, "other"), "bmm": (_bmm, "mat2"),
    "addmm": (partial(_added, _mm), "mat1 mat2"), "addmv": (partial(_added, _mv), "mat vec"),
    "baddbmm": (partial(_added, _bmm), "batch1 batch2"),
    "addbmm": (partial(_added, _summed), "batch1 batch2"),
}  # fmt: skip
_TRANSFORMED: dict[Any, tuple[Callable[..., Any], tuple[str, ...]]] = {
    call: (kept, (first, *names.split()))
    for name, (kept, names) in _NAMES.items()
    for call, first in (
        (getattr(torch, name), "input"), (getattr(Tensor, name), "input"),
        (getattr(aten, name), "self"), (getattr(aten, name).default, "self"),
    )
}  # fmt: skip
"""Products that torch makes of the kernels for matrices, but under a transformation."""


def fold(func: Any, args: Any, kwargs: Any) -> Any:
    """A product by those of matrices, a linear layer's at once where torch does not look on; else None."""
    if func is F.multi_head_attention_forward and not are_decoded():
        return _attention(func, args, kwargs or {})
    folded, names = _FOLDS.get(func, (None, ()))
    if folded is None:
        return _transformed(func, args, kwargs) if is_transformed() and not are_decoded() else None
    named = dict(kwargs or ())
    out, given = named.pop("out", None), list(args)
    while named and names[len(given) :] and names[len(given)] in named:
        given.append(named.pop(names[len(given)]))
    if named or len(given) < 2 or (names and len(given) > len(names)):
        return None
    if func is F.linear and out is None:
        with torch._C.DisableTorchFunctionSubclass():  # each look at the weight's shape would come here again
            found = at_once(*given)
        if found is not None:
            return found
    found = None if are_decoded() else folded(*given)
    return found if found is None or out is None else into(out, found)


Wrapper.folds = staticmethod(fold)
