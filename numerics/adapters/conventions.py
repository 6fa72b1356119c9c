"""What hosts do otherwise than docs/formats.md §6 to a number at its row's scale: arguments of one kernel.

Each function here is in the dialect of the shared arithmetic, whose functions it calls; an executor runs it
over rows in one pass (`Executor.by_rows`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from numerics.backends.host.executor import Executor, RowFunction
from numerics.backends.host.memory import allocate
from numerics.backends.host.unfused import Composed
from numerics.formats import dispatch
from numerics.formats.dtype import Element, Integer
from numerics.formats.grid import Grid, Range, float32_bits, grid, range_of

NO_LEAST = -1  # no magnitude
MINUS_HALF = -0x41000000  # -0.5 in float32
LN2 = 0x3F317218  # ln 2 in float32


@dataclass(frozen=True)
class Least:
    """A magnitude that a host rounds to another, both as float32 bits."""

    magnitude: Any = NO_LEAST
    becomes: Any = 0


@dataclass(frozen=True)
class Ends:
    """Float32 bits of the magnitudes from which on a quotient rounds out of a range, below 0 and above."""

    below: Any
    above: Any


class Convention(NamedTuple):
    """How a host comes from a number to the values of a format and back.

    multiplies: by the first number of the row, a reciprocal, instead of dividing by it.
    divides_back: the value by the second number of the row, instead of multiplying by it.
    plain: a quotient that is -0 counts as +0.
    zeros: of what becomes zero: "ours", as docs/formats.md §2 has it; "kept", the sign of its quotient;
        "positive", +0.
    rounding: one of numerics.formats.rounding's.
    """

    multiplies: bool = False
    divides_back: bool = False
    plain: bool = False
    zeros: str = "ours"
    rounding: str = "half_even"

    @property
    def name(self) -> str:
        """Says all of it."""
        return "_".join(str(one).lower() for one in self)


# ---- in the dialect ----------------------------------------------------------------------------------


def _quotient(shared: Any, how: Convention, b: Any, first: Any) -> Any:
    if how.multiplies:
        y = shared.as_bits(shared.as_float(b & shared.MAGNITUDE) * shared.as_float(first)) | (b & shared.SIGN)
    else:
        y = shared.quotient(b, first)
    return shared.where((y & shared.MAGNITUDE) == 0, 0, y) if how.plain else y


def _back(shared: Any, how: Convention, r: Any, second: Any) -> Any:
    value, number = shared.as_float(r), shared.as_float(second)
    return shared.as_bits(shared.divide(value, number) if how.divides_back else value * number)


def _value(how: Convention, shared: Any, f: Grid, least: Least, first: Any, second: Any, b: Any) -> Any:
    """round(x / first) * second."""
    y = _quotient(shared, how, b, first)
    y = shared.where((y & shared.MAGNITUDE) == least.magnitude, least.becomes | (y & shared.SIGN), y)
    r = shared.round_bits(y, f, how.rounding, None, None)
    if how.zeros == "kept":
        r = (r & shared.MAGNITUDE) | (y & shared.SIGN)
    elif how.zeros == "positive":
        r = shared.where((r & shared.MAGNITUDE) == 0, 0, r)
    return _back(shared, how, r, second)


def _count(shared: Any, how: Convention, f: Grid, q: Range, y: Any, zero: Any) -> Any:
    """The magnitude of clamp(round(y) + zero) - zero; NaN counts as 0."""
    a, room = y & shared.MAGNITUDE, shared.float_of(shared.where(y < 0, zero - q.low, q.high - zero))
    return shared.where(a > shared.INF, 0, shared.count_up_to(a, room, y, f, how.rounding, None, None))


def _moved_value(
    how: Convention, shared: Any, f: Grid, q: Range, first: Any, second: Any, zero: Any, b: Any
) -> Any:
    """(clamp(round(x / first) + zero) - zero) * second."""
    y = _quotient(shared, how, b, first)
    n = _count(shared, how, f, q, y, zero)
    r = shared.float_of(n) | shared.where(n > 0, y & shared.SIGN, 0)
    return _back(shared, how, r, second)


def _moved_code(how: Convention, shared: Any, f: Grid, q: Range, first: Any, zero: Any, b: Any) -> Any:
    """clamp(round(x / first) + zero), as a code."""
    y = _quotient(shared, how, b, first)
    n = _count(shared, how, f, q, y, zero)
    return (zero + shared.where(y < 0, 0 - n, n)) & q.mask


def _code_value(shared: Any, scale: Any, zero: Any, n: Any) -> Any:
    """(float32(n) - float32(zero)) * scale, of int32."""
    moved = shared.as_float(shared.float_of_any(n)) - shared.as_float(shared.float_of_any(zero))
    return shared.as_bits(moved * shared.as_float(scale))


def _difference_value(shared: Any, scale: Any, zero: Any, n: Any) -> Any:
    """float32(n - zero) * scale, of int32."""
    return shared.as_bits(shared.as_float(shared.float_of_any(n - zero)) * shared.as_float(scale))


def _within(shared: Any, y: Any, ends: Ends) -> Any:
    """-1 where a quotient rounds into the range, half to even, else 0; by the order of magnitudes."""
    a = y & shared.MAGNITUDE
    return shared.where(a < shared.where(y < 0, ends.below, ends.above), -1, 0)


def _slope(shared: Any, f: Grid, inside: Any, y: Any) -> Any:
    """round(y) - y inside of the range, its end outside; as float32 bits."""
    r = shared.round_bits(y, f, "half_even", None, None)
    return shared.where(inside < 0, shared.as_bits(shared.as_float(r) - shared.as_float(y)), r)


def _tqt_slopes(shared: Any, f: Grid, ends: Ends, scale: Any, b: Any, g: Any) -> tuple[Any, Any]:
    """The gradient of x, and what is summed for that of a threshold, in which negative ties go up."""
    y = shared.quotient(b, scale)
    inside = _within(shared, y, ends)
    slope = _slope(shared, f, inside, y)
    upward = shared.where(y < 0, shared.where(slope == MINUS_HALF, inside & shared.FLOAT_ONE, 0), 0)
    slope = shared.as_bits(shared.as_float(slope) + shared.as_float(upward))
    part = shared.as_float(g) * shared.as_float(scale) * shared.as_float(LN2 + (g & 0))
    return g & inside, shared.as_bits(part * shared.as_float(slope))


def _lsq_slopes(
    shared: Any, f: Grid, ends: Ends, scale: Any, zero: Any, factor: Any, b: Any, g: Any
) -> tuple[Any, Any]:
    """The gradient of x, and what is summed for that of a scale."""
    y = shared.as_bits(shared.as_float(shared.quotient(b, scale)) + shared.as_float(zero))
    inside = _within(shared, y, ends)
    part = shared.as_float(_slope(shared, f, inside, y)) * shared.as_float(g) * shared.as_float(factor)
    kept = shared.as_float(inside & shared.FLOAT_ONE) * shared.as_float(g)
    return shared.as_bits(kept), shared.as_bits(part)


# ---- over tensors ------------------------------------------------------------------------------------


def _executor(x: Tensor) -> Executor:
    """Whose kernels run: those of the backend of x, or NumPy's where that one has none over rows."""
    found: Executor | None = getattr(dispatch.owner(x), "executor", None)
    if found is None or type(found).by_rows is Composed.by_rows:
        found = dispatch.get("array").executor
    return found


def in_rows(x: Tensor, *numbers: Tensor) -> tuple[Tensor, tuple[Tensor, ...]] | None:
    """x as rows, and the numbers of each; None where x is not float32 in rows that share their numbers.

    numbers: of the whole of x one, or one of each row of its last axis.
    """
    if x.dtype != torch.float32 or not x.is_contiguous() or x.dim() == 0:
        return None
    length, beside = x.shape[-1], []
    for one in numbers:
        if one.numel() != 1 and (one.shape != (*x.shape[:-1], 1)):
            return None
        beside.append(one.reshape(-1).expand(x.numel() // length))
    return x.view(-1, length), tuple(beside)


def run(
    how: RowFunction, inputs: Sequence[Tensor], numbers: Sequence[Tensor], kinds: Sequence[type[np.generic]]
) -> list[Tensor]:
    """how's function over rows: a tensor of each of those types."""
    shape = tuple(inputs[0].shape)
    made = [allocate(shape, kind) for kind in kinds]
    given, beside = ([one.detach().numpy() for one in some] for some in (inputs, numbers))
    _executor(inputs[0]).by_rows(how, given, beside, made)
    return [torch.from_numpy(one) for one in made]


@lru_cache(maxsize=256)
def _values(element: Element, how: Convention, least: tuple[float, float] | None) -> RowFunction:
    f = grid(element, how.rounding, "saturate")
    record = Least(*map(float32_bits, least)) if least else Least()
    return RowFunction(f"value_{how.name}", partial(_value, how), (f, record))


def values(
    x: Tensor, numbers: Sequence[Tensor], element: Element, how: Convention,
    least: tuple[float, float] | None = None,
) -> Tensor:  # fmt: skip
    """The value of every number of rows of finite float32, at the two numbers of its row.

    least: a magnitude of a quotient that is rounded as another is.
    """
    return run(_values(element, how, least), (x,), numbers, (np.float32,))[0]


@lru_cache(maxsize=256)
def _moved(function: Callable[..., Any], element: Integer, how: Convention) -> RowFunction:
    records = grid(element, how.rounding, "saturate"), range_of(element)
    return RowFunction(f"{function.__name__.strip('_')}_{how.name}", partial(function, how), records)


def moved_values(
    x: Tensor, numbers: Sequence[Tensor], zero: Tensor, element: Integer, how: Convention
) -> Tensor:
    """The same of integers with a zero point a row, a whole number within their range."""
    if not bool(zero.any()):
        return values(x, numbers, element, how)
    return run(_moved(_moved_value, element, how), (x,), (*numbers, zero.int()), (np.float32,))[0]


def moved_codes(x: Tensor, first: Tensor, zero: Tensor, element: Integer, how: Convention) -> Tensor:
    """Their codes as uint8."""
    return run(_moved(_moved_code, element, how), (x,), (first, zero), (np.uint8,))[0]


CODES = RowFunction("code_value", _code_value, ()), RowFunction("difference_value", _difference_value, ())


def values_of_integers(codes: Tensor, scale: Tensor, zero: Tensor, *, exactly: bool) -> Tensor:
    """(code - zero) * scale of rows of int32, as float32.

    exactly: the difference is one of integers, instead of one of what float32 makes of both.
    """
    return run(CODES[exactly], (codes,), (scale, zero), (np.float32,))[0]


@lru_cache(maxsize=256)
def _slopes(function: Callable[..., Any], element: Integer) -> RowFunction:
    ends = Ends(*(_rounds_out(end) for end in (element.min, element.max)))
    f = grid(element, "half_even", "saturate")
    return RowFunction(function.__name__.strip("_"), function, (f, ends))


def _rounds_out(end: float) -> int:
    """The bits of the least magnitude beyond `end`, on its side of 0, that is not rounded to it half to even.

    An even end takes its tie, an odd one gives it to the even number beyond.
    """
    return float32_bits(abs(end) + 0.5) + (end % 2 == 0)


def tqt_slopes(x: Tensor, gradient: Tensor, scale: Tensor, element: Integer) -> list[Tensor]:
    """Of rows of x and of a gradient: the gradient of x, and what is summed for that of a threshold.

    scale: the one of each row.  x over it is finite.
    """
    return run(_slopes(_tqt_slopes, element), (x, gradient), (scale,), (np.float32,) * 2)


def lsq_slopes(x: Tensor, gradient: Tensor, numbers: Sequence[Tensor], element: Integer) -> list[Tensor]:
    """The same for a scale, by LSQ; numbers: of each row its scale, zero point and gradient factor."""
    return run(_slopes(_lsq_slopes, element), (x, gradient), numbers, (np.float32,) * 2)
