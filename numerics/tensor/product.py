"""Products with quantized matrices: x times the codes as they are stored, in sums that are written down.

The arithmetic is that of docs/formats.md §11: float32, fused multiply-adds, an order of its own.  A row of a
result depends on that row of x and the matrix, and on nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from operator import is_
from typing import Any, Never, cast

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.arrays import FLOATS, take
from numerics.backends.host.float_bits import to_float32
from numerics.backends.host.product import VALUES, Int8Rows, Matrix
from numerics.backends.host.tensors import is_tensor
from numerics.formats import dispatch
from numerics.formats.arguments import MISSING, keywords, required, unknown_argument
from numerics.formats.errors import NumericsError, one_of
from numerics.formats.protocol import Given
from numerics.formats.rounding import draw_of
from numerics.tensor import slicing
from numerics.tensor.qtensor import QTensor, check_quantized
from numerics.tensor.scheme import per_channel, per_group
from numerics.tensor.spec import QuantSpec

Floats = NDArray[np.float32]
_DECODED: ContextVar[bool] = ContextVar("decoded products", default=False)
COMPUTE = ("float32", "int8")
ROWS = 256  # of a matrix that is decoded before it is multiplied: a part at a time, never the whole


@required
def linear(
    x: Any, q: QTensor, bias: Any = None, compute: str = "float32", *unnamed: Never, **unknown: Never
) -> Any:
    """Returns x @ q.T + bias, reading the packed codes of q: `torch.nn.functional.linear` for any format.

    x: an array or a tensor of float32, bfloat16, float16 or float64, of shape (..., length).
    q: a QTensor of shape (rows, length), quantized in any format and scheme.
    bias: an array or a tensor of shape (rows), or None (the default).

    The result has the shape (..., rows) and x's type: it is summed in float32 and rounded once.  Where x or
    what q was made of is float64, so are the sums and the result.  Tensors, unlike arrays, are of one type: x
    and the bias have the one that q stands for (`q.original`; `q.to(torch.bfloat16)` changes it, not its
    codes), under torch.autocast too.

    The sums are the same on every machine, for every number of threads and every batch: elements times x by
    fused multiply-adds in 16 lanes, scales of groups and blocks on the sums of their elements, scales of rows
    and of the tensor at the end.  What cannot be read as it is stored (blocks along the other axis, a scale a
    column) is decoded, some rows at a time.  float64 is multiplied by NumPy or torch.

    compute: "float32", or "int8": each row of x, or each of its groups where groups of q have a scale, is
    quantized to int8 first, as `nx.quantize(x, "int8", scheme=...)` does it, and integers are multiplied.
    Less exact than float32 and faster, for elements of 4 and 8 bits that are integers or fp4 (W4A8, W8A8).
    Every result of a row of x that has NaN or Inf is NaN.  The gradient is that of "float32".

    Raises NumericsError for shapes, types and kinds of data that do not fit together, and for a q that
    "int8" cannot multiply: floats but fp4, mx4, mx6 and mx9, blocks along the other axis, a scale a column.

    >>> import numpy as np, numerics as nx
    >>> q = nx.quantize(np.float32([[0.5, -1.0], [2.0, 3.5]]), "int4")
    >>> nx.linear(np.float32([1, 1]), q, bias=np.float32([0, 1]))
    array([-0.5,  6.5], dtype=float32)
    >>> nx.linear(np.float32([1, 0.5]), q, compute="int8")
    array([-0.00393701,  3.7637794 ], dtype=float32)
    """
    if unknown or unnamed or x is MISSING or q is MISSING:
        raise unknown_argument(linear, unknown, (x, q), unnamed)
    check_quantized("q", q)
    compute = one_of("compute", compute, COMPUTE)
    if is_tensor(x) or is_tensor(q):
        for name, came in (("x", x), ("q", q), ("bias", bias)):
            if came is not None and not is_tensor(came):
                raise NumericsError(f"{name} is {type(came).__name__}: give all as arrays, or all as tensors")
        return dispatch.of(x).linear(x, q, bias, compute)
    if is_tensor(bias):
        raise NumericsError("x and q are arrays, bias is a tensor: give all as arrays, or all as tensors")
    data, added = take(x)[0], None if bias is None else take(bias)[0]
    check_operands(data, q, added)
    if compute == "int8":
        check_int8(q, str(data.dtype))
    if data.dtype == np.float64 or q.original == "float64":
        found = data @ q.dequantize("float64").T
        return found if added is None else found + added
    added = None if added is None else to_float32(added)
    rows = np.ascontiguousarray(to_float32(data)).reshape(math.prod(data.shape[:-1]), q.shape[1])
    found = rows_times(rows, q, added, compute).reshape(*data.shape[:-1], q.shape[0])
    with np.errstate(over="ignore"):
        return found.astype(data.dtype, copy=False)


@contextmanager
@keywords
def decoded_products() -> Iterator[None]:
    """Inside, torch multiplies the decoded values of QTensors, as it would multiply any dense weight.

    So a frozen model gives the bits of the wrapped one that it was made of, whose weights are dense; it is
    as slow, and decodes whole weights.  It holds for this thread or task, and for what is compiled inside.

    >>> import torch, numerics as nx
    >>> q, x = nx.quantize(torch.ones(4, 32), "mxfp4"), torch.ones(2, 32)
    >>> with nx.decoded_products():
    ...     torch.equal(torch.nn.functional.linear(x, q), torch.nn.functional.linear(x, q.dequantize()))
    True
    """
    before = _DECODED.set(True)
    try:
        yield
    finally:
        _DECODED.reset(before)


def are_decoded() -> bool:
    """Are products of torch those of decoded values here?"""
    return _DECODED.get()


def rows_times(x: Floats, q: Any, bias: Floats | None = None, compute: str = "float32") -> Floats:
    """x (m, length) times the rows of a QTensor of arrays, plus a bias: (m, rows)."""
    owner: Any = dispatch.owner(q.packed)
    matrix = _matrix(q)
    if compute == "int8":
        found = owner.linear(_in_int8(x, matrix.order.group, owner), matrix, bias)
        finite = np.isfinite(x)
        if not finite.all():
            found[~finite.all(axis=1)] = np.nan
        return cast(Floats, found)
    if matrix.order.kind != VALUES.kind:
        return cast(Floats, owner.linear(x, matrix, bias))
    found = np.empty((len(x), q.shape[0]), np.float32)
    for first, values in _decoded(q):
        part = slice(first, first + len(values))
        matrix = Matrix(values, None, None, None, None, (len(values), q.shape[1]))
        found[:, part] = owner.linear(x, matrix, None if bias is None else bias[part])
    return found


def _matrix(q: Any) -> Matrix:
    """A QTensor of arrays as executors take it, kept beside it: what kernels need to know is found once.

    Not where parts had to be copied, as those of a slice: nobody would see what is written into them later.
    """
    parts = q.packed, q.shared, q.zero_point, q.tensor_scale
    known = q.__dict__.get("_matrix")
    if known is None or not all(map(is_, known[0], parts)):
        shared, zero = (None if part is None else _each_row(q, np.asarray(part)) for part in parts[1:3])
        packed, shared, zero = map(_in_order, (q.packed, shared, zero))
        known = parts, Matrix(packed, shared, zero, q.tensor_scale, q.spec, tuple(q.shape))
        read = zip((packed, shared, zero), parts, strict=False)
        if all(a is None or np.may_share_memory(a, b) for a, b in read):
            q.__dict__["_matrix"] = known
    return cast(Matrix, known[1])


def _in_order(part: Any) -> Any:
    """A part as kernels read it, by its address alone: one number right after the other."""
    return part if part is None or part.flags.c_contiguous else np.ascontiguousarray(part)


def _each_row(q: Any, part: Any) -> Any:
    """Scales as kernels read them: those of two-dimensional blocks once a row."""
    return part if q.spec.blocked else q.spec.partition(tuple(q.shape)).each_row(part)


def check_int8(q: Any, kind: str) -> None:
    """Raises NumericsError unless a QTensor of arrays can be multiplied in int8 with numbers of that type."""
    why = "float64 is multiplied in float64" if "float64" in (kind, q.original) else _matrix(q).refusal
    if why is not None:
        raise NumericsError(
            f"compute='int8' cannot multiply this: {why}; allowed: int4, uint4, int8, uint8 and fp4 with a "
            "scale a tensor, row, or group along rows; mxfp4, mxint8 and nvfp4 along rows; compute='float32'"
        )


@lru_cache(maxsize=64)
def _spec_of_int8(group: int) -> QuantSpec:
    return QuantSpec("int8", scheme=per_group(group) if group else per_channel(0))


def _in_int8(x: Floats, group: int, owner: Any) -> Int8Rows:
    """Rows of x as integers, with a scale a row, or a group of so many."""
    if not x.size:
        return Int8Rows(np.zeros(x.shape, np.int8), np.ones((len(x), 1) if group else len(x), np.float32))
    parts = owner.quantize(x, _spec_of_int8(group), Given(), draw_of("half_even", None, None))
    return Int8Rows(parts.packed.view(np.int8).reshape(x.shape), parts.shared.reshape(len(x), -1) if group
                    else parts.shared.reshape(-1))  # fmt: skip


def columns_times(x: Floats, q: Any) -> Floats:
    """x (m, rows) times a QTensor (rows, length): (m, length); what a gradient is.

    Rows are decoded ROWS at a time; the sums over each part are those of decoded values, and are added in
    the order of the parts.
    """
    owner: Any = dispatch.owner(q.packed)
    found = np.zeros((len(x), q.shape[1]), np.float32)
    for first, values in _decoded(q):
        turned = np.ascontiguousarray(values.T)
        matrix = Matrix(turned, None, None, None, None, (q.shape[1], len(values)))
        part = np.ascontiguousarray(x[:, first : first + len(values)])
        with np.errstate(all="ignore"):
            found += owner.linear(part, matrix, None)
    return found


def _decoded(q: Any) -> Iterator[tuple[int, Floats]]:
    """float32 values of some rows after others, and which the first is."""
    step = ROWS * slicing.sharing(q, 0)
    bits = slicing.bits_of_index(q)
    if bits is None or bits * step % 8:  # rows that cannot be parted
        step = max(q.shape[0], 1)
    for first in range(0, q.shape[0], step):
        part = q if step >= q.shape[0] else slicing.sliced(q, 0, slice(first, first + step))
        yield first, np.ascontiguousarray(part.dequantize("float32"))


def check_operands(x: Any, q: Any, bias: Any) -> None:
    """Raises NumericsError unless x, q and the bias are floats whose shapes fit together."""
    for name, came in (("x", x), ("bias", bias)):
        kind = "float32" if came is None else str(came.dtype).removeprefix("torch.")
        if kind not in FLOATS:
            raise NumericsError(f"{name} of {kind} cannot be multiplied; allowed: {', '.join(FLOATS)}")
    shape = tuple(q.shape)
    if len(shape) != 2:
        raise NumericsError(
            f"q has the shape {shape}; a matrix (rows, length) is due; matrices side by side "
            "are multiplied by x @ q.mT or torch.bmm"
        )
    if not x.shape or x.shape[-1] != shape[1]:
        shapes = f"x of shape {tuple(x.shape)} and q of shape {shape}"
        raise NumericsError(f"{shapes} do not fit: the last axis of each is summed")
    if bias is not None and tuple(bias.shape) != (shape[0],):
        raise NumericsError(f"bias is of shape {tuple(bias.shape)}; an array of shape ({shape[0]},) is due")
