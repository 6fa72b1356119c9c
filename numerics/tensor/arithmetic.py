"""operate: IEEE P3109's operations on codes of at most 8 bits, each exact and then rounded once."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import inf, nextafter
from typing import Any, NamedTuple

import numpy as np

from numerics.backends.host.arrays import take_codes
from numerics.backends.host.executor import Array
from numerics.backends.host.float_bits import odd_sum, split_sum
from numerics.backends.host.ieee import ieee_arithmetic
from numerics.backends.host.tensors import as_tensor, is_tensor, settled
from numerics.backends.reference import arithmetic as exact
from numerics.formats import dispatch
from numerics.formats.arguments import keywords
from numerics.formats.codebook import Codebook
from numerics.formats.errors import NumericsError, check_no_gradient, one_of, said, text_in
from numerics.formats.registry import dtype as find_dtype
from numerics.formats.rounding import Rounding

OPERANDS: dict[str, int] = {
    **dict.fromkeys(("convert", "negate", "abs", "recip", "next_up", "next_down"), 1),
    **dict.fromkeys(("add", "subtract", "multiply", *exact.CHOICES, *exact.COMPARISONS), 2),
    **dict.fromkeys(("fma", "faa"), 3),
}
"""How many operands an operation has."""
UNROUNDED = ("next_up", "next_down", *exact.COMPARISONS)
"""What rounds nothing."""
_MEANT = {
    "sub": "did you mean 'subtract'?", "mul": "did you mean 'multiply'?", "neg": "did you mean 'negate'?",
    "min": "did you mean 'minimum'?", "max": "did you mean 'maximum'?", "absolute": "did you mean 'abs'?",
    "divide": "P3109's minimum set has none; recip and multiply round twice;",
}  # fmt: skip

_MIXED = "operands are arrays, or tensors of one device, not some of each; Python integers go with both"


@keywords
def operate(
    operation: str,
    dtype: Any,
    *codes: Any,
    to: Any = None,
    rounding: str = "half_even",
    overflow: str | None = None,
    seed: int | None = None,
    random_bits: Any = None,
) -> Any:
    """Returns the codes of an operation's results: of IEEE P3109's minimum set, exact, then rounded once.

    operation: of one operand: convert, negate, abs, recip (of 0 it is NaN), next_up, next_down (past the
        last value NaN).  Of two: add, subtract, multiply; minimum, maximum, and each with _number (a NaN
        gives way), _magnitude, _magnitude_number, _finite (NaN and infinities give way); less, less_equal,
        equal, greater, greater_equal, which answer bools.  Of three: fma, x * y + z, and faa, x + y + z.
    dtype: the format of the operands: a codebook with a NaN and one zero, as nx.p3109 makes, or its name.
    codes: one array or tensor of codes for each operand, whose shapes broadcast; Python integers beside
        either, or alone.
    to: the format of the results, such a codebook too; None (the default) for dtype.
    rounding, seed, random_bits: as for `Element.encode`.
    overflow: saturate (SatFinite) or nonsaturate (SatNone), as for `Element.encode`; or propagate
        (SatPropagate): numbers that are too large saturate, infinities stay.  None: to's own.

    Inf - Inf and 0 * Inf are NaN, and what is NaN stays NaN.  Results are of the codes' library and on their
    device.  Raises NumericsError for another operation or number of operands, other formats, shapes that do
    not fit, and options where nothing is rounded.  docs/formats.md §12.

    >>> import numerics as nx
    >>> d = nx.p3109(8, 4)
    >>> x, y = d.encode([1.5, -2.0, 200.0]), d.encode([0.25, 2.0, 100.0])
    >>> d.decode(nx.operate("add", d, x, y)), nx.operate("less", d, x, y)
    ([1.75, 0.0, 224.0], [False, True, False])
    >>> d.decode(nx.operate("fma", d, x, y, y, overflow="nonsaturate"))
    [0.625, -2.0, inf]
    """
    asked = Operation.of(operation, dtype, len(codes), to, rounding, overflow, seed, random_bits)
    tensor = next((x for x in codes if is_tensor(x)), None)
    if tensor is not None:
        return dispatch.of(tensor).operate(asked, _as_tensors(codes, tensor, asked.source))
    given = [take_codes(x, asked.source.bits, asked.source.code_dtype, asked.source.name) for x in codes]
    operands = _together([x for x, _ in given])
    widest = max(range(len(given)), key=lambda k: given[k][0].ndim)
    return given[widest][1](asked.results(operands))


class Operation(NamedTuple):
    """An operation, checked: of codes of which format, into which, and how what it gives is rounded.

    overflow: saturate, nonsaturate or propagate, which stands in the place of the rounding's own.
    """

    name: str
    source: Codebook
    target: Codebook
    overflow: str
    rounding: Rounding

    @classmethod
    def of(cls, operation: str, dtype: Any, count: int, to: Any, *options: Any) -> Operation:
        """An operation on so many operands; raises NumericsError as `operate`.

        options: rounding, overflow, seed and random_bits.
        """
        name = one_of("operation", operation, OPERANDS, _MEANT)
        source = _operated(dtype)
        target = source if to is None else _operated(to)
        if count != OPERANDS[name]:
            raise NumericsError(f"{name} has {OPERANDS[name]} operands, not {count}")
        rounding, overflow, *draw = options
        propagates = text_in(overflow) == "propagate"
        how = target.check_options(rounding, "saturate" if propagates else overflow, *draw)
        if name in UNROUNDED and (target, how.mode, overflow) != (source, "half_even", None):
            raise NumericsError(f"{name} rounds nothing: to, rounding and overflow are of other operations")
        return cls(name, source, target, "propagate" if propagates else how.overflow, how)

    def results(self, operands: Sequence[Any]) -> Any:
        """The codes of the results, or bools, for operands of one shape."""
        mode, (seed, bits) = self.rounding.mode, self.rounding.draw
        if mode == "stochastic":
            draw = {"rounding": mode, "seed": seed, "random_bits": bits}
            return _rounded(_exactly(self.name, self.source, operands), self.target, self.overflow, draw)
        return _answer(self.name, (self.source, self.target), operands, (mode, self.overflow))

    def of_tensors(self, codes: Sequence[Any]) -> Any:
        """The same of tensors of one device that have values, in plain order."""
        for x in codes:
            self.source.decode(x)  # it refuses what cannot be read, and what are no codes of the format
        return self.results(_together([settled(x) for x in codes])).contiguous()

    def like(self, codes: Sequence[Any]) -> Any:
        """A tensor as the results of such tensors are, without their values."""
        import torch

        first = _together(codes)[0]
        kind = torch.bool if self.name in exact.COMPARISONS else torch.uint8
        return first.new_empty(first.shape, dtype=kind)


def _answer(
    name: str, formats: tuple[Codebook, Codebook], operands: Sequence[Any], how: tuple[str, str]
) -> Any:
    """Results that no draws decide: the judge's, or out of a table, or of three operands computed."""
    source, target = formats
    if dispatch.choice.get() == "reference":
        return _one_by_one(name, source, target, operands, how)
    if len(operands) == 3:
        return _rounded(_exactly(name, source, operands), target, how[1], {"rounding": how[0]})
    return _entries(_table(name, source, target, *how), operands, source)


# ---- what comes in --------------------------------------------------------------------------------------


def _operated(came: Any) -> Codebook:
    """The format that came; raises NumericsError for one whose zeros or NaN are not P3109's."""
    d = find_dtype(came)
    if isinstance(d, Codebook) and d.has_nan and "-0.0" not in d.book.split():
        return d
    raise NumericsError(
        f"{said(d)} has no P3109 arithmetic: that is of codebooks (8 bits at most) with a NaN and one zero, "
        "as nx.p3109(8, 4)"
    )


def _as_tensors(codes: Sequence[Any], beside: Any, d: Codebook) -> list[Any]:
    """Operands as tensors on one device; a Python integer becomes one there."""
    made = [x if is_tensor(x) else _number(x, beside, d) for x in codes]
    for x in made:
        check_no_gradient("codes", x)
    if len({x.device for x in made}) > 1:
        raise NumericsError(_MIXED)
    return made


def _number(x: Any, beside: Any, d: Codebook) -> Any:
    """A code, checked, as a tensor beside another; graphs of torch trace this, and not `take_codes`."""
    if isinstance(x, bool) or not isinstance(x, (int, np.integer)):
        raise NumericsError(_MIXED)
    if not 0 <= x < 1 << d.bits:
        raise NumericsError(f"{d.name}: code {x} is outside 0 .. {(1 << d.bits) - 1}")
    import torch

    return beside.new_full((), int(x), dtype=torch.uint8)


def _together(operands: Sequence[Any]) -> list[Any]:
    """Operands of one shape; raises NumericsError where theirs do not broadcast."""
    try:
        if is_tensor(operands[0]):
            import torch

            together: Any = torch.broadcast_tensors
            return list(together(*operands))
        return list(np.broadcast_arrays(*operands))
    except (ValueError, RuntimeError):
        shapes = ", ".join(str(tuple(x.shape)) for x in operands)
        raise NumericsError(f"operands of shapes {shapes} do not broadcast") from None


# ---- tables and fused sums ------------------------------------------------------------------------------


def _like(table: Array, x: Any) -> Any:
    """A table where the operand is."""
    return as_tensor(table).to(x.device) if is_tensor(x) else table


def _entries(table: Array, operands: Sequence[Any], d: Codebook) -> Any:
    """The entry of each operand, or pair of them."""
    wide = [x.long() if is_tensor(x) else x.astype(np.int64) for x in operands]
    index = wide[0] if len(wide) == 1 else (wide[0] << d.bits) + wide[1]
    found = _like(table, index)[index]
    return found if is_tensor(found) else np.asarray(found)


@lru_cache(maxsize=256)
def _table(name: str, d: Codebook, to: Codebook, rounding: str, overflow: str) -> Array:
    """The results of all codes or pairs of codes."""
    if name in ("next_up", "next_down"):
        return np.array(
            [exact.neighbour(code, d, name == "next_up") for code in range(1 << d.bits)], np.uint8
        )
    if name in exact.COMPARISONS:
        x, y = _pairs(d)
        with np.errstate(invalid="ignore"):
            return np.asarray(getattr(np, name)(x, y))
    return np.asarray(_rounded(_results(name, d), to, overflow, {"rounding": rounding}))


def _numbers(d: Codebook) -> Array:
    """The value of every code as float64, in which no float32 is subnormal."""
    return np.array(d.listed, np.float64)


def _pairs(d: Codebook) -> tuple[Array, Array]:
    count = 1 << d.bits
    return np.repeat(_numbers(d), count), np.tile(_numbers(d), count)


@lru_cache(maxsize=64)
def _results(name: str, d: Codebook) -> Array:
    """The results of all codes or pairs as float64, rounded to odd: enough to round them again."""
    with ieee_arithmetic():
        if OPERANDS[name] == 1:
            x = _numbers(d)
            ways: dict[str, Any] = {"convert": x, "negate": -x, "abs": np.abs(x)}
            return ways[name] + 0.0 if name in ways else np.array([_recip(v) for v in x.tolist()])
        x, y = _pairs(d)
        if name in exact.CHOICES:
            return _chosen(name, x, y)
        return x * y + 0.0 if name == "multiply" else _sum(x, -y if name == "subtract" else y)


def _recip(x: float) -> float:
    """One over a value, rounded to odd."""
    found = exact.result("recip", [x if x != x or x in (inf, -inf) else Fraction(x)])
    return to_odd(found) if isinstance(found, Fraction) else found


def to_odd(number: Fraction) -> float:
    """The float64 of a fraction, rounded to odd.

    >>> to_odd(Fraction(1, 3)).hex(), to_odd(Fraction(3, 4))
    ('0x1.5555555555555p-2', 0.75)
    """
    near = float(number)
    even = near.hex().split("p")[0][-1] in "02468ace"
    if Fraction(near) == number or not even:
        return near
    return nextafter(near, inf if number > Fraction(near) else -inf)


def _chosen(name: str, x: Array, y: Array) -> Array:
    """A minimum or maximum; of infinities a larger one is none."""
    pick, other = (np.minimum, np.less) if name.startswith("minimum") else (np.maximum, np.greater)
    found = pick(x, y)
    if "_magnitude" in name:
        a, b = np.abs(x), np.abs(y)
        found = np.where(other(a, b), x, np.where(other(b, a), y, found))
    if name.endswith("_finite"):
        found = np.where(np.isfinite(x) == np.isfinite(y), found, np.where(np.isfinite(x), x, y))
    if name.endswith(("_number", "_finite")):
        found = np.where(np.isnan(x), y, np.where(np.isnan(y), x, found))
    return found


def _sum(x: Any, y: Any) -> Any:
    """x + y in float64, rounded to odd; of infinities as IEEE 754 has it; no -0.0."""
    return odd_sum(x, y, *_library(x)) + 0.0


def _library(x: Any) -> tuple[Any, Any]:
    """`where` and the 64-bit integer of an operand's library."""
    if is_tensor(x):
        import torch

        return torch.where, torch.int64
    return np.where, np.int64


def _sum_of_three(x: Any, y: Any, z: Any) -> Any:
    """x + y + z in float64, rounded to odd, by error-free sums (Boldo and Melquiond, 2008)."""
    high, low = split_sum(y, z)
    top, rest = split_sum(x, high)
    found = _sum(top, _sum(rest, low))
    where, _ = _library(found)
    plain = x + y + z
    return where(abs(plain) < inf, found, plain)


def _exactly(name: str, d: Codebook, operands: Sequence[Any]) -> Any:
    """The results as float64, rounded to odd; products of float32 numbers are exact in it."""
    if len(operands) < 3:
        return _entries(_results(name, d), operands, d)
    with ieee_arithmetic():
        x, y, z = (_entries(_numbers(d), [codes], d) for codes in operands)
        return _sum(x * y, z) if name == "fma" else _sum_of_three(x, y, z)


# ---- what goes out --------------------------------------------------------------------------------------


def _rounded(found: Any, to: Codebook, overflow: str, options: dict[str, Any]) -> Any:
    """Codes of exact results; under "propagate" infinities keep theirs."""
    if overflow != "propagate":
        return to.encode(found, overflow=overflow, **options)
    codes = to.encode(found, overflow="saturate", **options)
    where, _ = _library(codes)
    for end in {inf, -inf} & set(to.listed):
        codes = where(found == end, _like(np.array(to.listed.index(end), np.uint8), codes), codes)
    return codes


def _one_by_one(name: str, d: Codebook, to: Codebook, operands: Sequence[Any], how: tuple[str, str]) -> Any:
    """As the judge has them: one number at a time, by fractions."""
    shape, compares = operands[0].shape, name in exact.COMPARISONS
    rows = zip(*(x.reshape(-1).tolist() for x in operands), strict=True)
    codes = [exact.operate(name, d, row, to, how) for row in rows]
    found = np.array(codes, bool if compares else np.uint8).reshape(tuple(shape))
    return _like(found, operands[0])
