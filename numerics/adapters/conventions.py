"""What hosts do otherwise than docs/formats.md §4 and §6: arguments of one kernel.

To a number at its row's scale, or to a block.  Each is in the dialect of the shared arithmetic, whose
functions it calls; an executor runs it over rows or blocks in one pass (`Executor.by_rows`, `by_blocks`).  Of
blocks it also says which are odd: those that a host may compute otherwise than by its rule; they are left to
the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from numerics.backends.host.executor import WIDEST, Executor, RowFunction
from numerics.backends.host.memory import allocate
from numerics.backends.host.tensors import as_array
from numerics.backends.host.unfused import Composed
from numerics.formats import dispatch
from numerics.formats.block import Block, MXBlock
from numerics.formats.dtype import Element, Integer
from numerics.formats.grid import Grid, Range, Scale, element_grid, float32_bits, grid, range_of, scale_of

NO_LEAST = -1  # no magnitude
MINUS_HALF = -0x41000000  # -0.5 in float32
LN2 = 0x3F317218  # ln 2 in float32
MANTISSA = 0x7FFFFF  # of float32
NEAR = 4  # steps of float32 from 2**0, and 2 more for each power from there: beyond, logarithms are right
BIAS = 127  # of float32's exponents
NAN_SCALE = 255  # of E8M0 (OCP MX 1.0 §5.4.1)


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


@dataclass(frozen=True)
class Within:
    """Float32 bits of the least and the most of which a host is known to keep its rule."""

    least: Any
    most: Any


@dataclass(frozen=True)
class Over:
    """Float32 bits of a number, and of the least quotient by it of which a host is known to keep its rule."""

    divisor: Any
    least: Any


@dataclass(frozen=True)
class Steps:
    """A block's power of two, as microxcaling finds it: the exponent of its largest number, less `emax`.

    least, most: of its exponent field, which is clamped from below; above it the block is NaN.
    """

    emax: Any
    least: Any
    most: Any


class Convention(NamedTuple):
    """How a host comes from a number to the values of a format and back.

    multiplies: by the first number of the row, a reciprocal, instead of dividing by it.
    divides_back: the value by the second number of the row, instead of multiplying by it.
    plain: a quotient that is -0 counts as +0.
    zeros: of what becomes zero: "ours", as docs/formats.md §2 has it; "kept", the sign of its quotient;
        "positive", +0.
    rounding: one of numerics.formats.rounding's.
    nan: what a quotient that is NaN becomes: "ours", as docs/formats.md §2 has it; "kept", NaN; "least", the
        least number of the format; "code 0", that code, whatever the zero point and the range are.
    infinite: what a quotient that is Inf becomes, of a finite number too: "ours", the largest number of the
        format; "kept", Inf.
    """

    multiplies: bool = False
    divides_back: bool = False
    plain: bool = False
    zeros: str = "ours"
    rounding: str = "half_even"
    nan: str = "ours"
    infinite: str = "ours"

    @property
    def name(self) -> str:
        """Says all of it."""
        return "_".join(str(one).lower().replace(" ", "") for one in self)


Hit = tuple[float, float] | None
"""A magnitude that a host rounds as another, and which; None where there is none."""


# ---- in the dialect ----------------------------------------------------------------------------------


def _quotient(shared: Any, how: Convention, b: Any, first: Any) -> Any:
    if how.multiplies:
        y = shared.as_bits(shared.as_float(b & shared.MAGNITUDE) * shared.as_float(first)) | (b & shared.SIGN)
    else:
        y = shared.quotient(b, first)
    if how.plain:
        y = _positive(shared, y)
    if how.nan == "least":
        y = shared.where((y & shared.MAGNITUDE) > shared.INF, shared.SIGN | shared.INF, y)
    return y


def _keeping(shared: Any, how: Convention, y: Any, r: Any) -> Any:
    """What a quotient became, and NaN or Inf where it is one that is kept."""
    if how.nan == "kept":
        r = shared.where((y & shared.MAGNITUDE) > shared.INF, shared.NAN, r)
    return shared.where((y & shared.MAGNITUDE) == shared.INF, y, r) if how.infinite == "kept" else r


def _back(shared: Any, how: Convention, r: Any, second: Any) -> Any:
    value, number = shared.as_float(r), shared.as_float(second)
    return shared.as_bits(shared.divide(value, number) if how.divides_back else value * number)


def _positive(shared: Any, r: Any) -> Any:
    """The same, and +0 for -0."""
    return shared.where((r & shared.MAGNITUDE) == 0, 0, r)


def _on_grid(shared: Any, how: Convention, f: Grid, least: Least, y: Any) -> Any:
    """A quotient on the grid."""
    y = shared.where((y & shared.MAGNITUDE) == least.magnitude, least.becomes | (y & shared.SIGN), y)
    r = shared.round_bits(y, f, how.rounding, None, None)
    if how.zeros == "kept":
        r = (r & shared.MAGNITUDE) | (y & shared.SIGN)
    elif how.zeros == "positive":
        r = _positive(shared, r)
    return _keeping(shared, how, y, r)


def _value(how: Convention, shared: Any, f: Grid, least: Least, first: Any, second: Any, b: Any) -> Any:
    """round(x / first) * second."""
    return _back(shared, how, _on_grid(shared, how, f, least, _quotient(shared, how, b, first)), second)


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
    return _back(shared, how, _keeping(shared, how, y, r), second)


def _moved_code(how: Convention, shared: Any, f: Grid, q: Range, first: Any, zero: Any, b: Any) -> Any:
    """clamp(round(x / first) + zero), as a code."""
    y = _quotient(shared, how, b, first)
    n = _count(shared, how, f, q, y, zero)
    code = (zero + shared.where(y < 0, 0 - n, n)) & q.mask
    return shared.where((y & shared.MAGNITUDE) > shared.INF, 0, code) if how.nan == "code 0" else code


def _code_value(shared: Any, scale: Any, zero: Any, n: Any) -> Any:
    """(float32(n) - float32(zero)) * scale, of int32."""
    moved = shared.as_float(shared.float_of_any(n)) - shared.as_float(shared.float_of_any(zero))
    return shared.as_bits(moved * shared.as_float(scale))


def _difference_value(shared: Any, scale: Any, zero: Any, n: Any) -> Any:
    """float32(n - zero) * scale, of int32."""
    return shared.as_bits(shared.as_float(shared.float_of_any(n - zero)) * shared.as_float(scale))


def _within(shared: Any, y: Any, ends: Ends) -> Any:
    """-1 where a quotient is NaN, or rounds half to even into the range; else 0."""
    a = y & shared.MAGNITUDE
    inside = shared.where(a < shared.where(y < 0, ends.below, ends.above), -1, 0)
    return shared.where(a > shared.INF, -1, inside)


def _slope(shared: Any, f: Grid, inside: Any, y: Any, most: int) -> Any:
    """round(y) - y inside of the range, its end outside, as float32 bits; NaN beyond the most magnitude."""
    r = shared.round_bits(y, f, "half_even", None, None)
    slope = shared.where(inside < 0, shared.as_bits(shared.as_float(r) - shared.as_float(y)), r)
    return shared.where((y & shared.MAGNITUDE) > most, shared.NAN, slope)


def _tqt_slopes(shared: Any, f: Grid, ends: Ends, scale: Any, b: Any, g: Any) -> tuple[Any, Any]:
    """The gradient of x, and what is summed for that of a threshold, in which negative ties go up."""
    y = shared.quotient(b, scale)
    inside = _within(shared, y, ends)
    slope = _slope(shared, f, inside, y, shared.INF)
    upward = shared.where(y < 0, shared.where(slope == MINUS_HALF, inside & shared.FLOAT_ONE, 0), 0)
    slope = shared.as_bits(shared.as_float(slope) + shared.as_float(upward))
    part = shared.as_float(g) * shared.as_float(scale) * shared.as_float(LN2 + (g & 0))
    return g & inside, shared.as_bits(part * shared.as_float(slope))


def _lsq_slopes(
    shared: Any, f: Grid, ends: Ends, scale: Any, zero: Any, factor: Any, b: Any, g: Any
) -> tuple[Any, Any]:
    """The gradient of x, and what is summed for that of a scale: of an infinite step Inf - Inf."""
    y = shared.as_bits(shared.as_float(shared.quotient(b, scale)) + shared.as_float(zero))
    inside = _within(shared, y, ends)
    part = (
        shared.as_float(_slope(shared, f, inside, y, shared.INF - 1))
        * shared.as_float(g)
        * shared.as_float(factor)
    )
    kept = shared.as_float(inside & shared.FLOAT_ONE) * shared.as_float(g)
    return shared.as_bits(kept), shared.as_bits(part)


def _around(shared: Any, number: Any) -> Any:
    """1 where a number is a power of two, or so near that a float32 logarithm may be one too high or low.

    A logarithm of 2**k is a number of k's size: rounded, it is off by 0.69 |k| steps of x below, half as many
    above, and by as much again for each unit in the last place that a library errs.
    """
    power = (number >> 23) - BIAS
    near = NEAR + 2 * shared.maximum(power, 0 - power)
    return shared.where(((number + near) & MANTISSA) < near + near, 1, 0)


def _mx_value(
    how: Convention, logarithm: bool, shared: Any, f: Grid, s: Scale, within: Within, b: Any
) -> Any:
    """A block rounded by a rule of ours, and is it odd: beyond the numbers of which the host keeps the rule,
    or, where it finds scales by a logarithm, 0 or around a power of two.
    """
    top, r = shared.max_of_block(b & shared.MAGNITUDE), shared.mx_round(b, f, s, how.rounding, None)
    if logarithm:
        odd = shared.where(top < within.least, 1, _around(shared, top))
    else:
        odd = shared.where(top < within.least, shared.where(top == 0, 0, 1), 0)
    odd = shared.where(top > within.most, 1, odd)
    return (_positive(shared, r) if how.zeros == "positive" else r), odd


def _mx_code(logarithm: bool, shared: Any, f: Grid, s: Scale, over: Over, b: Any) -> Any:
    """The codes of a block by a rule of ours, its scale byte, and is it odd: at an end of the scales, or,
    where the host takes a logarithm of the largest number over another, that quotient below the least, or
    around a power of two.
    """
    top = shared.max_of_block(b & shared.MAGNITUDE)
    scale, code = shared.mx_encode(b, f, s, "half_even", None)
    odd = shared.where(scale == 0, 1, shared.where(scale == NAN_SCALE, 1, 0))
    if logarithm:
        q = shared.as_bits(shared.divide(shared.as_float(top), shared.as_float(over.divisor + (top & 0))))
        odd = odd | shared.where(q < over.least, 1, _around(shared, q))
    return code, scale, shared.where(top == 0, 0, odd)


def _power_value(how: Convention, shared: Any, f: Grid, s: Steps, least: Least, b: Any) -> Any:
    """A block over its power of two, on the grid, times it; and is it odd: of float32's subnormals, Inf or
    NaN, a largest number next to a power of two, or a power that there is not.
    """
    a = b & shared.MAGNITUDE
    top = shared.max_of_block(a)
    field = shared.maximum(top >> 23, 1) - s.emax
    odd = shared.where(top < shared.ONE, shared.where(top == 0, 0, 1), _around(shared, top))
    odd = shared.where((top & MANTISSA) == 0, shared.where(top < shared.ONE, odd, 0), odd)
    odd = odd | shared.where(top < shared.INF, 0, 1) | shared.where(field > s.most, 1, 0)
    field = shared.maximum(field, s.least)
    odd = shared.where(field < 0, 1, odd)
    y = shared.as_bits(shared.as_float(a) * shared.power_of_two(2 * BIAS - field)) | (b & shared.SIGN)
    r = _on_grid(shared, how, f, least, _positive(shared, y) if how.plain else y)
    return shared.as_bits(shared.as_float(r) * shared.power_of_two(field)), odd


def _limited_value(how: Convention, shared: Any, f: Grid, least: Least, within: Within, b: Any) -> Any:
    """Numbers on the grid, and is one of the block odd: beyond the most."""
    top = shared.max_of_block(b & shared.MAGNITUDE)
    y = _positive(shared, b) if how.plain else b
    return _on_grid(shared, how, f, least, y), shared.where(top > within.most, 1, 0)


# ---- over tensors ------------------------------------------------------------------------------------


def _executor(x: Tensor) -> Executor:
    """Whose kernels run: those of the backend of x, or NumPy's where that one has none over rows."""
    found: Executor | None = getattr(dispatch.owner(x), "executor", None)
    if found is None or type(found).by_rows is Composed.by_rows:
        found = dispatch.get("array").executor
    return found


def in_rows(x: Tensor, *numbers: Tensor) -> tuple[Tensor, tuple[Tensor, ...]] | None:
    """x as rows, and the numbers of each; None where x is not float32 in rows that share their numbers.

    numbers: of the whole of x one, or one of each row of its last axis.  One without axes is taken in x's
    type, as torch takes it; other floats are float32, or x is computed in their type and not here.
    """
    if x.dtype != torch.float32 or not x.is_contiguous() or x.dim() == 0:
        return None
    length, beside = x.shape[-1], []
    for one in numbers:
        if one.is_floating_point() and one.dim() == 0:
            one = one.float()
        if one.is_floating_point() and one.dtype != torch.float32:
            return None
        if one.numel() != 1 and one.shape != (*x.shape[:-1], 1):
            return None
        if one.dim() > x.dim():  # beside which x has more axes
            return None
        beside.append(one.reshape(-1).expand(x.numel() // length))
    return x.view(-1, length), tuple(beside)


def room(like: Tensor, kind: type[np.generic] = np.float32) -> Tensor:
    """Memory for as many numbers."""
    return torch.from_numpy(allocate(tuple(like.shape), kind))


CACHED = 24 << 20  # bytes that are read and written from which on no cache holds them until they are used
MOST_SPARE = 1 << 26  # bytes that are kept from one call to the next
_SPARE: list[NDArray[Any]] = []
_KEEPING: list[None] = []  # one for each adapter that is installed and whose calls take what was kept


@contextmanager
def spare(count: int) -> Iterator[Tensor]:
    """Memory for so many float32 until the end: the last call's, since what is new is zeroed page by page.

    It is kept between `keep_spare` and `give_back_spare`.
    """
    try:
        held = _SPARE.pop()
    except IndexError:
        held = None
    if held is None or held.size < count:
        held = allocate((count,))
    yield torch.from_numpy(held[:count])
    if held.nbytes <= MOST_SPARE and _KEEPING and not _SPARE:
        _SPARE.append(held)


def keep_spare() -> None:
    """From now on the memory of one call is kept for the next."""
    _KEEPING.append(None)


def give_back_spare() -> None:
    """Undoes one `keep_spare`; after the last nothing is kept, and what was goes back."""
    _KEEPING.pop()
    if not _KEEPING:
        _SPARE.clear()


def _run(
    how: RowFunction, inputs: Sequence[Tensor], numbers: Sequence[Tensor], outputs: Sequence[Tensor]
) -> None:
    """how's function over rows, into these."""
    given, made = ([as_array(one) for one in some] for some in (inputs, outputs))
    _executor(inputs[0]).by_rows(_past_caches(how, *given, *made), given, _words_of(numbers), made)


def _past_caches(how: RowFunction, *arrays: NDArray[Any]) -> RowFunction:
    """The same, writing past the caches where they do not hold all that it reads and writes."""
    return how._replace(past=sum(array.nbytes for array in arrays) >= CACHED)


def _words_of(numbers: Sequence[Tensor]) -> list[NDArray[Any]]:
    """The numbers of rows, in the 32 bits that kernels read; a call with others is the host's."""
    for one in numbers:
        if one.dtype not in (torch.float32, torch.int32):
            raise TypeError(f"numbers of rows are float32 or int32, not {one.dtype}")
    return [as_array(one) for one in numbers]


def run(
    how: RowFunction, inputs: Sequence[Tensor], numbers: Sequence[Tensor], kind: type[np.generic]
) -> Tensor:
    """how's function over rows: a tensor of that type."""
    made = room(inputs[0], kind)
    _run(how, inputs, numbers, (made,))
    return made


def _least(least: Hit) -> Least:
    return Least(*map(float32_bits, least)) if least else Least()


@lru_cache(maxsize=256)
def _values(element: Element, how: Convention, least: Hit) -> RowFunction:
    records = grid(element, how.rounding, "saturate"), _least(least)
    return RowFunction(f"value_{how.name}", partial(_value, how), records)


def values(
    x: Tensor, numbers: Sequence[Tensor], element: Element, how: Convention, least: Hit = None
) -> Tensor:
    """The value of every number of rows of finite float32, at the two numbers of its row.

    least: a magnitude of a quotient that is rounded as another is.
    """
    return run(_values(element, how, least), (x,), numbers, np.float32)


Limits = tuple[int, int]
"""The least and the most code of a range within that of a format."""


@lru_cache(maxsize=256)
def _moved(
    function: Callable[..., Any], element: Integer, how: Convention, limits: Limits | None = None
) -> RowFunction:
    q = range_of(element)
    low, high = limits or (q.low, q.high)
    records = grid(element, how.rounding, "saturate"), replace(q, low=low, high=high)
    return RowFunction(f"{function.__name__.strip('_')}_{how.name}", partial(function, how), records)


def moved_values(
    x: Tensor, numbers: Sequence[Tensor], zero: Tensor, element: Integer, how: Convention
) -> Tensor:
    """The same of integers with a zero point a row, a whole number within their range."""
    if not bool(zero.any()):
        return values(x, numbers, element, how)
    return run(_moved(_moved_value, element, how), (x,), (*numbers, zero.int()), np.float32)


def moved_codes(
    x: Tensor, numbers: tuple[Tensor, Tensor], element: Integer, how: Convention, limits: Limits
) -> Tensor:
    """Codes as uint8, of x over the first number of its row, moved by its zero point.

    limits: the range, in which every zero point lies.
    """
    return run(_moved(_moved_code, element, how, limits), (x,), numbers, np.uint8)


CODES = RowFunction("code_value", _code_value, ()), RowFunction("difference_value", _difference_value, ())


def values_of_integers(codes: Tensor, scale: Tensor, zero: Tensor, *, exactly: bool) -> Tensor:
    """(code - zero) * scale of rows of int32, as float32.

    exactly: the difference is one of integers, instead of one of what float32 makes of both.
    """
    return run(CODES[exactly], (codes,), (scale, zero), np.float32)


def _in_blocks(how: RowFunction, x: Tensor, outputs: Sequence[tuple[int, type[np.generic]]]) -> list[Tensor]:
    """how's function over rows that are blocks: of each output what a block has of it, and its type; then of
    each block whether it is odd.
    """
    every: list[tuple[int, type[np.generic]]] = [*outputs, (0, np.uint8)]
    made = [allocate((len(x), size) if size else len(x), kind) for size, kind in every]
    _executor(x).by_blocks(how, as_array(x.detach()), made)
    return [torch.from_numpy(one) for one in made]


def _odd(said: Tensor) -> Tensor:
    """The numbers of the odd blocks."""
    return said.nonzero().squeeze(1) if bool(said.any()) else torch.empty(0, dtype=torch.long)


def _of_mx(d: Block) -> MXBlock:
    assert isinstance(d, MXBlock)
    return d


@lru_cache(maxsize=256)
def _mx_values(
    d: MXBlock, rule: str, how: Convention, within: tuple[float, float], logarithm: bool
) -> RowFunction:
    records = element_grid(d, rule, how.rounding), scale_of(d, rule), Within(*map(float32_bits, within))
    return RowFunction(f"mx_value_{how.name}_{logarithm}", partial(_mx_value, how, logarithm), records)


def mx_values(
    x: Tensor, d: Block, rule: str, how: Convention, within: tuple[float, float], *, logarithm: bool
) -> tuple[Tensor, Tensor]:
    """The values of rows of float32 as blocks by a rule of ours, and the numbers of the odd ones.

    within: between which largest numbers of a block the host is known to keep the rule.  logarithm: it finds
    scales by one, of float32.
    """
    found = _in_blocks(_mx_values(_of_mx(d), rule, how, within, logarithm), x, [(x.shape[1], np.float32)])
    return found[0], _odd(found[1])


@lru_cache(maxsize=256)
def _mx_codes(d: MXBlock, rule: str, least: float | None) -> RowFunction:
    over = Over(float32_bits(d.element.max), float32_bits(least or 1.0))
    records = element_grid(d, rule), scale_of(d, rule), over
    return RowFunction(f"mx_code_{least is not None}", partial(_mx_code, least is not None), records)


def mx_codes(
    x: Tensor, d: Block, rule: str, *, packed: bool, least: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The codes of rows as blocks, a byte each or packed, their scale bytes, and the numbers of the odd ones.

    least: of the host's quotient of a largest number and the element's; None where it takes no logarithm.
    """
    size = d.block * d.element_bits // 8 if packed else d.block
    codes, scale, said = _in_blocks(_mx_codes(_of_mx(d), rule, least), x, [(size, np.uint8), (0, np.uint8)])
    return codes, scale, _odd(said)


def holds(block: int) -> bool:
    """Are there kernels that hold blocks of so many numbers whole?"""
    return block <= WIDEST


@lru_cache(maxsize=256)
def _power_values(element: Element, how: Convention, least: Hit, emax: int, bits: int) -> RowFunction:
    furthest = (1 << (bits - 1)) - 1
    steps = Steps(emax, max(BIAS - furthest, -1), min(BIAS + furthest, 2 * BIAS))
    records = grid(element, how.rounding, "saturate"), steps, _least(least)
    return RowFunction(f"power_value_{how.name}", partial(_power_value, how), records)


def power_values(
    x: Tensor, element: Element, how: Convention, least: Hit, emax: int, bits: int
) -> tuple[Tensor, Tensor]:
    """The values of rows of float32 as blocks that share a power of two, and the numbers of the odd ones.

    least: as `values` has it.  emax: how far the power lies below the block's largest number.  bits: of it.
    """
    found = _in_blocks(_power_values(element, how, least, emax, bits), x, [(x.shape[1], np.float32)])
    return found[0], _odd(found[1])


@lru_cache(maxsize=256)
def _limited_values(element: Element, how: Convention, least: Hit, limit: float) -> RowFunction:
    records = grid(element, how.rounding, "saturate"), _least(least), Within(0, float32_bits(limit) - 1)
    return RowFunction(f"limited_value_{how.name}", partial(_limited_value, how), records)


def limited_values(
    x: Tensor, element: Element, how: Convention, least: Hit, limit: float
) -> tuple[Tensor, bool]:
    """The value of every number of rows of float32, and are all of them below a limit, none of them NaN?"""
    made, said = _in_blocks(_limited_values(element, how, least, limit), x, [(x.shape[1], np.float32)])
    return made, not bool(said.any())


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


def tqt_slopes(x: Tensor, gradient: Tensor, scale: Tensor, element: Integer, out: Sequence[Tensor]) -> None:
    """Of rows of x and of a gradient: the gradient of x, and what is summed for that of a threshold.

    scale: the one of each row.  out: where both go.
    """
    _run(_slopes(_tqt_slopes, element), (x, gradient), (scale,), out)


def lsq_slopes(
    x: Tensor, gradient: Tensor, numbers: Sequence[Tensor], element: Integer, of_x: Tensor, parts: Tensor,
    ends: Sequence[int],
) -> Iterator[int]:  # fmt: skip
    """The same for a scale, by LSQ: some rows at a time, what is summed in the same memory each time.

    numbers: of each row its scale, zero point and gradient factor.  ends: where the rows of a turn end, the
    last one where all do; each is given back once they are done.
    """
    how, executor, first = _slopes(_lsq_slopes, element), _executor(x), 0
    every = [*map(as_array, (x, gradient)), *_words_of(numbers), as_array(of_x)]
    room = as_array(parts)
    how = _past_caches(how, every[0], every[1], every[-1])
    for end in ends:
        one, g, scale, zero, factor, out = (array[first:end] for array in every)
        executor.by_rows(how, (one, g), (scale, zero, factor), (out, room[: end - first]))
        yield end
        first = end
