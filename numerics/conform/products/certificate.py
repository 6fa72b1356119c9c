"""Which results of a product are the same in any order: those whose sums no addition has to round.

Let every term that a kernel may add be a multiple of 2**q, and the magnitudes of all together be at most
2**(q + p), p the accumulator's bits.  Then every partial sum of every order is a number of the accumulator,
and nothing is rounded.  One term is decided where its product is rounded once, and two are where their one
addition is rounded to nearest.  So are terms of one sign that go past the largest number by more than all
roundings together: Inf is due.  Where a type of 16 bits comes out, a sum is decided whose roundings all
together cannot bring it past the middle of two of its numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.ieee import inside_ieee
from numerics.conform.products.blend import Blend
from numerics.conform.products.claim import ACCUMULATORS, Claim
from numerics.conform.products.problem import ENDS, SMALLEST, VIA, Factors, Float64, Problem, rounded
from numerics.conform.task import Array
from numerics.formats.arguments import keywords
from numerics.formats.dtype import Integer

Mask = NDArray[np.bool_]
Exponents = NDArray[np.int64]

NONE = 1 << 20  # the lowest bit of zero
MARGIN = 900  # exponents, either way, past which sums of a product's terms do not come
SAFE = 127.9999  # log2 of what a factor of float32 may reach
FAR_FROM_SUBNORMAL = 2.0**-100
SINGLE = 24  # bits of a number of float32
PARTS = 3  # terms that one makes whose code is shifted, and whose zero point is split off
ROUNDINGS = 8  # of factors before they are added, and of the sum when it comes out
PAST = {"float32": 2.0**128 - 2.0**103, "bfloat16": 2.0**128 - 2.0**119, "float16": 65520.0}
"""From where on the nearest number of what comes out is Inf."""
STEPS = {"float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10, "int32": 0.0}
"""Of a result, how far its neighbours are at most."""
ZEROS = 1 << 10  # results of a product whose sign is looked at
TERMS = 1 << 15  # looked at in one array


def lowest_bit(x: Float64) -> Exponents:
    """The exponent of the last bit of each number that is set; NONE for zero, and for what is no number.

    >>> lowest_bit(np.array([1.0, 12.0, 0.375, 0.0])).tolist()
    [0, 2, -3, 1048576]
    """
    x = np.where(np.isfinite(x), x, 0.0)
    significand, exponent = np.frexp(x)
    whole = np.abs(np.ldexp(significand, 53)).astype(np.int64)
    last = np.frexp((whole & -whole).astype(np.float64))[1] - 1
    return np.where(whole == 0, NONE, exponent - 53 + last).astype(np.int64)


def power(exponents: Exponents) -> Float64:
    """2.0 to each exponent, which is one of a normal number of float64; ldexp takes longer.

    >>> power(np.array([-1, 10])).tolist()
    [0.5, 1024.0]
    """
    return (exponents + 1023 << 52).view(np.float64)


def log_size(x: Float64) -> Float64:
    """log2 of each magnitude; -NONE for zero, and for what is no number."""
    x = np.where(np.isfinite(x), np.abs(x), 0.0)
    return np.where(x == 0, -float(NONE), np.log2(np.where(x == 0, 1.0, x)))


Sizes = tuple[Float64, Exponents]
"""log2 of magnitudes, and their last bits."""


class Bounds(NamedTuple):
    """Of each element of a side: magnitude and last bit of what a kernel may multiply by, and its factors."""

    magnitude: Float64
    lowest: Exponents
    element: Sizes
    scale: Sizes


def bounds(side: Any, claim: Claim) -> Bounds:
    """The bounds of a side; where codes may be shifted, or zero points split off, of what is added then."""
    known: dict[str, Bounds] = side.__dict__.setdefault(
        "bounds", {}
    )  # as cached_property keeps what it finds
    if claim.zero_point not in known:
        known[claim.zero_point] = _bounds(side, claim)
    return known[claim.zero_point]


def _bounds(side: Any, claim: Claim) -> Bounds:
    f: Factors = side.factors
    scale = np.where(np.isfinite(f.scale), f.scale, 0.0)
    element = np.where(np.isfinite(f.element), f.element, 0.0)
    whole = bool(
        (element == np.rint(element)).all() and (f.zero == np.rint(f.zero)).all()
    )  # not of a deviation
    if claim.zero_point == "split" and side.op.shifts and whole:
        parts, added = _split(element, f.zero, 1 << (side.op.bits - 1) if _signed(side.op.element) else 0)
        magnitude = added * np.abs(scale)
        lowest = np.where(magnitude == 0, NONE, lowest_bit(scale) + lowest_bit(parts))
    else:
        parts = np.abs(element - f.zero)
        if (scale == 1).all():
            last, one = lowest_bit(parts), np.zeros(parts.shape)
            return Bounds(parts, last, (log_size(parts), last - _fraction(side)), (one, one.astype(np.int64)))
        values = parts * scale
        magnitude, lowest = np.abs(values), lowest_bit(values)
    return Bounds(
        magnitude,
        lowest,
        (log_size(parts), lowest_bit(parts) - _fraction(side)),
        (log_size(scale), lowest_bit(scale)),
    )


def _fraction(side: Any) -> int:
    """Bits of its codes behind the point, where that may stand before them."""
    return 0 if side.op.micro is None else int(side.op.micro.mantissa)


def _split(element: Float64, zero: Float64, shift: int) -> tuple[Float64, Float64]:
    """What codes and zero points apart, as they are or with codes shifted to unsigned ones, are made of.

    First a number that every part is a multiple of the last bit of, and none is larger than; then the
    magnitudes of the parts, added.
    """
    ways: list[tuple[Float64, ...]] = [(element, zero)]
    if shift:
        ways += [(element + shift, zero + shift), (element + shift, zero, np.full_like(zero, shift))]
    every = [[np.abs(part) for part in way] for way in ways]
    bits = np.bitwise_or.reduce([part.astype(np.int64) for way in every for part in way])
    return bits.astype(np.float64), np.max([np.sum(way, axis=0) for way in every], axis=0)


def _signed(element: Any) -> bool:
    return isinstance(element, Integer) and element.signed


@dataclass
class Sums:
    """Of each result [m, n]: all magnitudes added, the last bit of any term, how many there are."""

    total: Float64
    lowest: Exponents
    count: NDArray[np.int64]
    narrow: Mask
    """Is every single product a number of the accumulator, or of float32 where that has more bits?"""

    def times(self, alpha: float) -> Sums:
        """The same of terms that alpha multiplies."""
        last = int(lowest_bit(np.array(alpha)))
        gone = (self.lowest == NONE) | (last == NONE)
        lowest = np.where(gone, NONE, self.lowest + last)
        return replace(self, total=self.total * abs(alpha), lowest=lowest)

    def plus(self, terms: Float64) -> Sums:
        """The same with one more term in each sum; what is no number is left out."""
        held = np.where(np.isfinite(terms), np.abs(terms), 0.0)
        return replace(self, total=self.total + held, lowest=np.minimum(self.lowest, lowest_bit(held)))


def sums_of(problem: Problem) -> Sums:
    """What the sums of a problem stay within, without its bias and c; found once for each two sides."""
    if problem.few is not None:
        known = sums_of(problem.few.problem)
        return Sums(*map(problem.few.spread, (known.total, known.lowest, known.count, known.narrow)))
    a, b = (bounds(side, problem.claim) for side in (problem.a, problem.b))
    bits = min(problem.claim.accumulator.bits, SINGLE)
    if not problem.claim.blends:
        return sums(a, b, bits)
    kept: dict[str, Any] = problem.a.__dict__
    if "sums" not in kept or kept["sums"][0] is not b or kept["sums"][1] != bits:
        kept["sums"] = b, bits, sums(a, b, bits)  # as cached_property keeps what it finds
    found: Sums = kept["sums"][2]
    return found


def sums(a: Bounds, b: Bounds, bits: int = SINGLE) -> Sums:
    """What every order of additions of these terms stays within; bits: of what single products must be."""
    m, n = len(a.magnitude), len(b.magnitude)
    found = Sums(np.zeros((m, n)), np.full((m, n), NONE, np.int64), np.zeros((m, n), np.int64),
                 np.ones((m, n), np.bool_))  # fmt: skip
    for k in some_columns(np.arange(a.magnitude.shape[1]), m * n):
        term = a.magnitude[:, None, k] * b.magnitude[:, k]
        lowest = np.where(term == 0, NONE, a.lowest[:, None, k] + b.lowest[:, k])
        found.total += term.sum(axis=2)
        found.count += (term != 0).sum(axis=2)
        narrow = (term == 0) | (term < power(np.clip(lowest, -MARGIN, MARGIN) + bits))
        found.narrow &= narrow.all(axis=2)
        np.minimum(found.lowest, lowest.min(axis=2), out=found.lowest)
    return found


def some_columns(columns: NDArray[np.int64], results: int) -> Iterator[NDArray[np.int64]]:
    """Columns, some at a time: as many as make arrays of TERMS for so many results."""
    size = max(TERMS // max(results, 1), 1)
    return (columns[start : start + size] for start in range(0, len(columns), size))


def fit(found: Sums, claim: Claim) -> Mask:
    """Which sums the accumulator holds exactly, whatever the order."""
    acc = claim.accumulator
    room = power(np.clip(found.lowest, -MARGIN, MARGIN) + acc.bits)
    whole = (
        (found.total <= room)
        & (found.lowest >= acc.least)
        & (found.total < np.ldexp(1 - 2.0**-acc.bits, min(acc.top, 1023)))
    )
    return np.asarray((found.lowest == NONE) | whole)


def factors_stay(a: Bounds, b: Bounds) -> Mask:
    """[m, n]: does float32 hold every product of some of the factors, in whatever order they are multiplied?

    Some kernels multiply elements first, some decode first, some multiply both scales first.
    """
    m, n = len(a.magnitude), len(b.magnitude)
    room = int(np.ceil(np.log2(max(a.magnitude.shape[1], 2))))
    stays = np.ones((m, n), np.bool_)
    for side, shape in ((a, (m, 1)), (b, (1, n))):
        own = _both(side.element, side.scale)
        stays &= (_within(own, 0) | (own[0] < -NONE // 2)).all(axis=1).reshape(shape)
    for first, second, more in _combinations(a, b):
        if _all_within(first, second, room if more else 0):
            continue
        for k in some_columns(_distinct(first, second), m * n):
            pair = tuple(x[:, None, k] + y[:, k] for x, y in zip(first, second, strict=True))
            stays &= (_within(pair, room if more else 0) | (pair[0] < -NONE // 2)).all(axis=2)
    return stays


def _all_within(first: Sizes, second: Sizes, room: int) -> bool:
    """Does float32 hold even the largest of one times that of the other, and the last bits of both?"""
    if not first[0].size or not second[0].size:
        return True
    return bool(first[0].max() + second[0].max() + room < SAFE and first[1].min() + second[1].min() >= -149)


def _combinations(a: Bounds, b: Bounds) -> Iterator[tuple[Any, Any, bool]]:
    yield a.scale, b.scale, False
    yield a.element, b.element, True
    yield _both(a.element, a.scale), b.element, _any_scale(b)
    yield a.element, _both(b.element, b.scale), _any_scale(a)


def _any_scale(side: Bounds) -> bool:
    """Is a scale left out of such a sum?  Of what all is in, `fit` says what it may reach."""
    return bool((side.scale[0] != 0).any())


def _both(x: Sizes, y: Sizes) -> Sizes:
    return x[0] + y[0], x[1] + y[1]


def _within(exponents: Any, room: int) -> Mask:
    return np.asarray((exponents[0] + room < SAFE) & (exponents[1] >= -149))


def _distinct(first: Any, second: Any) -> NDArray[np.int64]:
    """Columns that differ from the one before: a block's scales are looked at once."""
    both = np.concatenate([*first, *second])
    changes = (both[:, 1:] != both[:, :-1]).any(axis=0)
    return np.flatnonzero(np.concatenate([np.ones(min(both.shape[1], 1), np.bool_), changes]))


# ---- the answer ------------------------------------------------------------------------------------


def answer(problem: Problem) -> tuple[Array, Mask]:
    """What is due [m, n], and which of it every right kernel must give, bit for bit."""
    if problem.few is not None:
        due, decided = map(problem.few.spread, answer(problem.few.problem))
        return due, decided & results_of(problem)
    due, claim = problem.due(), problem.claim
    if claim.integers:
        return due, results_of(problem)
    a, b = bounds(problem.a, claim), bounds(problem.b, claim)
    found = sums_of(problem)
    two = (found.count <= 2) & (problem.parts is None)
    finite = np.isfinite(problem.exact)
    if problem.blend is not None and not problem.blend.plain:
        decided = finite & _blended(problem, problem.blend, found, (a, b))
        return due, (decided | _not_finite(problem, finite)) & results_of(problem)
    if problem.bias is not None:
        found = found.plus(problem.bias.astype(np.float64))
        two = np.zeros_like(two)
    safe = factors_stay(a, b)
    decided = finite & safe & fit(found, claim)
    decided |= finite & _one_product(problem, found, safe)
    decided |= finite & safe & _narrow(problem, found)
    if claim.accumulator == ACCUMULATORS.get(claim.narrowed) and not claim.splits:
        held = found.narrow & ((found.lowest >= claim.accumulator.least) | (found.lowest == NONE))
        decided |= finite & safe & two & held & _one_addition(problem)
        decided |= finite & safe & (found.count == 1) & (np.abs(problem.exact) >= 2.0**128)  # Inf
    past = np.isinf(rounded(problem.exact, claim.out)) if claim.rounding in ENDS else np.isinf(due)
    if (past & finite & ~decided).any():
        decided |= past & finite & _past_any(problem, (a, b))
    return due, (decided | _not_finite(problem, finite)) & results_of(problem)


def _blended(problem: Problem, blend: Blend, found: Sums, sides: tuple[Bounds, Bounds]) -> Mask:
    """Which results are the same whatever alpha multiplies, and whenever beta * c and the bias are added.

    alpha may multiply a sum, or each element or scale of either side; c may be what a sum begins with.
    """
    claim, whole = problem.claim, found.times(blend.alpha).plus(blend.added)
    whole = whole if problem.bias is None else whole.plus(problem.bias.astype(np.float64))
    a, b = (_widened(side, blend.alpha) for side in sides)
    return np.asarray(factors_stay(a, b) & fit(found, claim) & fit(whole, claim))


def _widened(side: Bounds, alpha: float) -> Bounds:
    """The same with scales that reach as far as those that alpha multiplies, and as they do without it."""
    size, last = log_size(np.array(alpha or 1.0)), lowest_bit(np.array(alpha or 1.0))
    larger, lower = max(float(size), 0.0), min(int(last), 0)
    return side._replace(scale=(side.scale[0] + larger, side.scale[1] + lower))


def results_of(problem: Problem) -> Mask:
    """Which products of a row of a and a row of b [m, n] are results: of batches those of the same one."""
    found = np.full(problem.shape[:2], not problem.batch)
    for _, rows, columns in problem.blocks() if problem.batch else ():
        found[rows, columns] = True
    return found


def _past_any(problem: Problem, sides: tuple[Bounds, Bounds]) -> Mask:
    """Which sums are past the largest number in every order, though most are rounded on the way.

    Their terms have one sign, so that every partial sum is nearer to zero, and no rounding to nearest
    makes one smaller by more than its half bit: all of them together do not bring the sum back.
    """
    claim = problem.claim
    nearest = claim.accumulator.rounds_to_nearest  # toward zero, the largest number remains
    if claim.splits or claim.out not in PAST or not nearest:
        return np.zeros(problem.exact.shape, np.bool_)
    left, right = ([(side.values > 0) * 1.0, (side.values < 0) * 1.0] for side in (problem.a, problem.b))
    positive = left[0] @ right[0].T + left[1] @ right[1].T
    negative = left[0] @ right[1].T + left[1] @ right[0].T
    if problem.bias is not None:
        positive, negative = positive + (problem.bias > 0), negative + (problem.bias < 0)
    bits = min(claim.accumulator.bits, 24)  # products may be rounded to float32, too
    kept = 1 - (positive + negative + ROUNDINGS) * 2.0**-bits
    with np.errstate(over="ignore"):
        past = np.abs(problem.exact) * kept >= PAST[claim.out]
    return np.asarray(((positive == 0) | (negative == 0)) & past & _no_nan(sides))


def _no_nan(sides: tuple[Bounds, Bounds]) -> Mask:
    """[m, n]: is nothing zero times an Inf, where some of the factors are multiplied first?"""
    a, b = sides
    m, n = len(a.magnitude), len(b.magnitude)
    stays = np.ones((m, n), np.bool_)
    for side, shape in ((a, (m, 1)), (b, (1, n))):
        own = side.element[0] + side.scale[0]
        stays &= ((own < SAFE) & (side.scale[0] > -NONE // 2)).all(axis=1).reshape(shape)
    largest = a.scale[0].max(axis=1)[:, None] + b.scale[0].max(axis=1)
    return np.asarray(stays & (largest < SAFE))


def _one_addition(problem: Problem) -> Mask:
    """Which sums of two terms one rounding to nearest decides: scales are powers of two, none is tiny."""
    powers = all(bool((np.frexp(s.factors.scale)[0] == 0.5).all()) for s in (problem.a, problem.b))
    exact = problem.exact
    large = (np.abs(exact) > FAR_FROM_SUBNORMAL) | (exact == 0)
    held = np.abs(exact) < 2.0 ** (problem.claim.accumulator.top - 1)
    return np.asarray(powers & _alike_on_the_way(problem) & large & held)


def _alike_on_the_way(problem: Problem) -> Mask:
    """Which results are the same, whether they are rounded to float32 and to the accumulator first or not."""
    exact, claim = problem.exact, problem.claim
    with np.errstate(all="ignore"):
        once = exact.astype(np.float32).astype(np.float64)
        due = rounded(exact, claim.out, claim.rounding)
        alike = rounded(once, claim.out, claim.rounding) == due
        for kind in VIA:
            if claim.accumulator == ACCUMULATORS[kind]:
                first = rounded(exact, kind).astype(np.float64)
                alike &= (rounded(once, kind) == first) & (rounded(first, claim.out) == due)
    return np.asarray(alike)


def _one_product(problem: Problem, found: Sums, safe: Mask) -> Mask:
    """Which sums of one term are its product, rounded once, whatever is multiplied first.

    Two plain numbers are multiplied in one way, beside zeros too.  Of codes and scales at most two factors
    may be no powers of two: their product is rounded where it is formed, and the others shift its exponent.
    """
    claim = problem.claim
    one = found.count == 1
    floats = [ACCUMULATORS[kind] for kind in ("float32", "float64", *VIA)]
    if claim.splits or problem.parts is not None or claim.accumulator not in floats or not one.any():
        return np.zeros_like(one)
    if problem.bias is not None:
        one = one & (problem.bias == 0)
    if not (problem.a.op.is_value and problem.b.op.is_value):
        normal = np.abs(problem.exact) >= SMALLEST["float32"]
        one = one & safe & normal & (_factors(problem) <= 2)
    return np.asarray(one & _alike_on_the_way(problem))


def _factors(problem: Problem) -> NDArray[np.float64]:
    """Of each sum of one term [m, n]: how many factors of it are no powers of two."""
    there, long = [], []
    for side in (problem.a, problem.b):
        f: Factors = side.factors
        with np.errstate(all="ignore"):
            parts = (f.element - f.zero, f.scale / side.number, np.full_like(f.scale, side.number))
        there.append((np.where(np.isfinite(side.values), side.values, 0.0) != 0) * 1.0)
        long.append(there[-1] * sum(np.abs(np.frexp(part)[0]) != 0.5 for part in parts))
    return np.asarray(long[0] @ there[1].T + there[0] @ long[1].T)


def _narrow(problem: Problem, found: Sums) -> Mask:
    """Which results of 16 bits are the same from the least to the largest that any order of sums gives."""
    claim, exact = problem.claim, problem.exact
    if claim.out not in VIA or problem.parts is not None or claim.accumulator.rounding == "any":
        return np.zeros(exact.shape, np.bool_)
    with np.errstate(all="ignore"):
        far = _wandering(found, claim)
        ends = (rounded(exact + end * far, claim.out, claim.rounding) for end in (-1, 1))
        alike = np.equal(*ends)
        return np.asarray(alike & (found.total + far < 2.0 ** (claim.accumulator.top - 1)))


def reach(problem: Problem) -> Float64:
    """How far from the exact result any order of additions may come, where its operands are all that is bent.

    Each term is rounded when it is decoded, multiplied and added, and the result when it comes out.
    """
    found, claim = sums_of(problem), problem.claim
    if problem.bias is not None:
        found = found.plus(problem.bias.astype(np.float64))
    with np.errstate(all="ignore"):
        result = np.where(np.isfinite(problem.exact), np.abs(problem.exact), 0.0)
    step = max(STEPS[claim.out], STEPS.get(claim.rounding, 0.0))
    return np.asarray(_wandering(found, claim) + result * step)


def _wandering(found: Sums, claim: Claim) -> Float64:
    """The same before the result comes out: how far roundings of terms and sums may bring it all together."""
    share = 2.0 ** -min(claim.accumulator.bits, SINGLE)
    least = np.ldexp(1.0, max(claim.accumulator.least, -1000))
    return np.asarray((PARTS * found.count + ROUNDINGS) * found.total * share + (found.count + 2) * least)


def never_finite(problem: Problem, due: Array) -> Mask:
    """Which results that are Inf may be NaN as well, being a difference of two sums, but no finite number.

    An Inf of an operand stays one, or meets another in the sum that is taken off, if zero points are.  A sum
    past the largest number has one of its two parts there, too, if it is past it by more than all their
    roundings, also where no more is taken off than what shifts codes to unsigned ones.  With alpha,
    beta and c nothing is said.
    """
    claim, infinite = problem.claim, np.isinf(due)
    if not claim.splits or problem.blend is not None or not infinite.any():
        return np.zeros(due.shape, np.bool_)
    found = infinite & ~np.isfinite(problem.exact) & claim.apart
    if claim.accumulator.rounds_to_nearest:
        parts = sums(bounds(problem.a, claim), bounds(problem.b, claim))
        total = parts.total if problem.bias is None else parts.total + np.abs(problem.bias)
        roundings = PARTS * parts.count + ROUNDINGS
        with np.errstate(all="ignore"):
            lost = roundings * total * 2.0 ** -min(claim.accumulator.bits, 24)
            found |= infinite & (np.abs(problem.exact) - lost >= PAST[claim.out])
    return np.asarray(found & results_of(problem))


def negated_zeros(problem: Problem, came: Array, decided: Mask) -> Mask:
    """Which results are -0 where every order of additions gives +0.

    A sum of terms that are not all -0 is +0 where it is exactly 0: x - x is, and so is +0 beside -0, however
    they are rounded to nearest.  Nothing is said of terms that are all -0, which a kernel may add to +0 or
    not; of scales that are negative or 0, or an alpha, which may multiply a sum; of sums that are split.
    """
    found = np.zeros(came.shape, np.bool_)
    claim = problem.claim
    if came.dtype.kind != "f" or claim.splits or problem.blend is not None:
        return found
    negated = (came == 0) & np.signbit(came)
    if not negated.any():
        return found
    places = np.argwhere(negated & decided & (problem.exact == 0))
    if not len(places) or not claim.accumulator.rounds_to_nearest or problem.shape[2] == 0:
        return found
    if any(
        (side.scale is not None) and bool((side.factors.scale < 0).any()) for side in (problem.a, problem.b)
    ):
        return found
    a, b = problem.a.values, problem.b.values
    nothing = [(side.factors.scale == 0).any(axis=1) for side in (problem.a, problem.b)]
    for row, column in places[~(nothing[0][places[:, 0]] | nothing[1][places[:, 1]])][:ZEROS]:
        terms = a[row] * b[column]
        found[row, column] = bool(((terms != 0) | ~np.signbit(terms)).any())
    return found


def _not_finite(problem: Problem, finite: Mask) -> Mask:
    """NaN and Inf of a side or the bias; an Inf is not decided where a zero point may be split off."""
    reached = [~np.isfinite(side.values).all(axis=1) for side in (problem.a, problem.b)]
    came = np.logical_or.outer(*reached)
    of_bias = np.zeros(1, np.bool_) if problem.bias is None else ~np.isfinite(problem.bias)
    if problem.blend is not None:  # whether 0 times an Inf of a sum is looked at is left to a kernel
        alone = ~came & (of_bias | ~np.isfinite(problem.blend.added))
        came = (came & (problem.blend.alpha != 0)) | alone
    else:
        alone = np.zeros_like(came)
        came |= of_bias
    telling = np.isnan(problem.exact) | (not problem.claim.apart) | alone
    return np.asarray(~finite & came & telling)


@inside_ieee
@keywords
def decidable(a: Any, b: Any, accumulate: Any = "float32") -> Mask:
    """Which results of a product have one right answer, in whatever order its terms are added?

    a: an array (m, k) of float32, bfloat16 or float16, or a QTensor of that shape.  b: the same, of shape
    (n, k): rows of both are summed along k.  accumulate: what sums are kept in: float32 (the default),
    float64, float16, bfloat16, or an Accumulator.  Returns a mask (m, n): where it is true, compare bits;
    where not, the order matters.  Raises NumericsError for what is no matrix, or of unlike lengths.

    >>> import numpy as np, numerics as nx
    >>> a, b = np.float32([[1, 2**-20], [1, 2**-25]]), np.float32([[1, 1]])
    >>> nx.conform.decidable(a, b).tolist()
    [[True], [True]]
    >>> nx.conform.decidable(a, b, accumulate="bfloat16").tolist()
    [[False], [False]]
    """
    from numerics.conform.products.given import problem_of

    problem = problem_of(a, b, accumulate)
    return answer(problem)[1]
