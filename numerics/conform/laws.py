"""The laws of single numbers: each judges what was observed and gives None or the simplest counterexample.

A law's sentence is the first line of its function.  Inputs are told apart by what they are (a value
of the format, a tie, too large, NaN ...), and each wrong answer counts against the law of its own
class, so that the first broken law of a table says what kind of fault it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.conform.inputs.elements import values
from numerics.conform.task import Array, Task
from numerics.conform.verdict import Counterexample, code_text, numbers
from numerics.formats.dtype import Float
from numerics.formats.rounding import NEAREST

Mask = NDArray[np.bool_]
Law = Callable[[Any], Counterexample | None]
NO_SIGN = np.uint32(0x7FFFFFFF)
FRACTION = 0x7FFFFF
SYMMETRIC = ("half_even", "half_away", "toward_zero", "to_odd")


def sentence(law: Callable[..., Any]) -> str:
    """What a law says: the first line of its docstring.

    >>> sentence(ties)
    'A number midway between two values goes where the rounding says.'
    """
    return (law.__doc__ or "").partition("\n")[0]


def hardness(x: NDArray[np.float32]) -> NDArray[np.int64]:
    """How far from simple each number is: significant bits, then distance from 1, then the sign.

    >>> hardness(np.float32([1.0, -1.0, 0.5, 1.5])).tolist()
    [0, 1, 2, 512]
    """
    bits = np.ascontiguousarray(x).view(np.uint32)
    fraction = (bits & np.uint32(FRACTION)).astype(np.int64)
    lowest = np.frexp((fraction & -fraction).astype(np.float64))[1] - 1  # its place, where there is one
    significant = np.where(fraction == 0, 0, 23 - lowest)
    field = ((bits & NO_SIGN) >> np.uint32(23)).astype(np.int64)
    distance = np.where((bits & NO_SIGN) == 0, 0, np.abs(field - 127))
    return np.asarray((significant << 9) + (distance << 1) + (bits >> np.uint32(31)))


@dataclass(frozen=True)
class Elements:
    """What a target made of float32 numbers, beside what was due: codes, or values when it rounds.

    >>> from numerics.formats import fp4
    >>> seen = Elements(Task.of(fp4), np.float32([0.25, 7.0]), np.uint8([1, 7]), np.uint8([0, 7]))
    >>> ties(seen).due, nearest(seen)
    ('0x0 (0)', None)
    """

    task: Task
    x: NDArray[np.float32]
    came: Array
    due: Array
    random: Array | None = None

    @cached_property
    def wrong(self) -> Mask:
        """Where what came differs from what was due."""
        return self.task.differs(self.came, self.due)

    @cached_property
    def came_values(self) -> NDArray[np.float32]:
        """What the answers mean."""
        return self._values(self.came)

    @cached_property
    def due_values(self) -> NDArray[np.float32]:
        """What the right answers mean."""
        return self._values(self.due)

    def _values(self, answers: Array) -> NDArray[np.float32]:
        return answers if answers.dtype.kind == "f" else self.task.values(answers)

    @cached_property
    def labels(self) -> Array:
        """The law that each input falls under, by what the input is."""
        d, held = self.task.element, values(self.task.element)
        with np.errstate(invalid="ignore"):
            x = self.x.astype(np.float64)
            place = np.clip(np.searchsorted(held, x, "right"), 1, len(held) - 1)
            low, high = held[place - 1], held[place]
            exact = (x == low) | (x == high)
            outside = (x > held[-1]) | (x < held[0])
            small = np.abs(x) < max(d.smallest_normal, 2.0**-126)
            held_back = exact | ((np.abs(x) < 2.0**-126) & (np.abs(x) >= d.smallest_subnormal))
            tiny = small & held_back & (self.came_values == 0) & (self.due_values != 0)
            both_zero = (self.due_values == 0) & (self.came_values == 0) & np.signbit(x)
            minus_zero = ((x == 0) & np.signbit(x)) | both_zero
            classes = {
                "nan": np.isnan(x), "infinity": np.isinf(x), "overflow": outside, "negative_zero": minus_zero,
                "subnormals": tiny, "round_trip": exact, "ties": 2 * x == low + high,
            }  # fmt: skip
        return np.select(list(classes.values()), list(classes), default="inexact")

    def simplest(self, law: Law, where: Mask) -> Counterexample | None:
        """The simplest of the wrong inputs that a law speaks of."""
        places = np.flatnonzero(where & self.wrong)
        return self.shown(law, places) if len(places) else None

    def shown(self, law: Law, places: Array, inputs: Sequence[int] = ()) -> Counterexample:
        """A counterexample of the places where a law fails: the simplest input."""
        at = int(places[hardness(self.x[places]).argmin()])
        chosen = self.x[[*inputs] or [at]]
        draw = "" if self.random is None else f"random bits 0x{int(self.random[at]):08X}"
        return Counterexample(
            law.__name__, sentence(law), numbers(chosen), self.text(self.came, at), self.text(self.due, at),
            len(places), draw, chosen,
        )  # fmt: skip

    def text(self, answers: Array, at: int) -> str:
        """One answer: its code and value, or the bits of its value."""
        if answers.dtype.kind == "f":
            return str(numbers(answers[at : at + 1])[0])
        return code_text(int(answers[at]), self.task.element, float(self._values(answers)[at]))


# ---- where each number goes: every wrong answer falls under exactly one of these ----------------


def round_trip(seen: Elements) -> Counterexample | None:
    """Encoding the value of a code gives that code: decode, then encode, is the identity.

    For a target that rounds: a value of the format stays as it is (idempotent).
    """
    return seen.simplest(round_trip, seen.labels == "round_trip")


def subnormals(seen: Elements) -> Counterexample | None:
    """Subnormal numbers are kept, of float32 and of the format: nothing is flushed to zero."""
    return seen.simplest(subnormals, seen.labels == "subnormals")


def nearest(seen: Elements) -> Counterexample | None:
    """A number that is not midway between two values becomes the nearer one."""
    return seen.simplest(nearest, seen.labels == "inexact")


def directed(seen: Elements) -> Counterexample | None:
    """A number between two values becomes the one on the side that the rounding says."""
    return seen.simplest(directed, _between(seen))


def ties(seen: Elements) -> Counterexample | None:
    """A number midway between two values goes where the rounding says."""
    return seen.simplest(ties, seen.labels == "ties")


def negative_zero(seen: Elements) -> Counterexample | None:
    """Zero has the sign of what was rounded to it, where the format has a negative zero."""
    return seen.simplest(negative_zero, seen.labels == "negative_zero")


def nan(seen: Elements) -> Counterexample | None:
    """NaN stays NaN; without one it becomes the largest value of a float format, 0 of an integer."""
    return seen.simplest(nan, (seen.labels == "nan") & ~_same_class(seen))


def canonical_nan(seen: Elements) -> Counterexample | None:
    """NaN is written as the one canonical code, with the sign of the input (checked with strict_nan)."""
    return seen.simplest(canonical_nan, (seen.labels == "nan") & _same_class(seen))


def _same_class(seen: Elements) -> Mask:
    return np.isnan(seen.came_values) & np.isnan(seen.due_values)


def infinity(seen: Elements) -> Counterexample | None:
    """An infinite input overflows whatever the rounding: to Inf, NaN or the largest value, as asked."""
    return seen.simplest(infinity, seen.labels == "infinity")


def overflow(seen: Elements) -> Counterexample | None:
    """What lies past the largest or smallest value overflows only when it rounds past it, as asked.

    "Too large" is judged after rounding on the grid that goes on: 464 is not, for fp8_e4m3
    (docs/formats.md §2, IEEE 754-2019 §7.4).
    """
    return seen.simplest(overflow, seen.labels == "overflow")


# ---- stochastic rounding ------------------------------------------------------------------------


def one_step(seen: Elements) -> Counterexample | None:
    """Stochastic rounding gives one of the two values beside the number, never another one."""
    held = values(seen.task.element)
    with np.errstate(invalid="ignore"):
        place = np.clip(np.searchsorted(held, seen.x), 1, len(held) - 1)
    beside = (seen.came_values == held[place - 1]) | (seen.came_values == held[place])
    return seen.simplest(one_step, _between(seen) & ~beside)


def draws(seen: Elements) -> Counterexample | None:
    """Up, away from zero, exactly when the fraction of a step plus R / 2**30 reaches 1."""
    return seen.simplest(draws, _between(seen))


def _between(seen: Elements) -> Mask:
    found: Mask = np.isin(seen.labels, ("inexact", "ties"))
    return found


def unbiased(seen: Elements) -> Counterexample | None:
    """Over evenly spaced draws the mean of the results is the number itself.

    seen: every number with all of its draws, numbers and draws as inputs/random_bits.py gives them.
    """
    inputs, groups = np.unique(seen.x, return_inverse=True)
    exact = seen.came_values.astype(np.float64)
    mean = np.bincount(groups, exact) / np.bincount(groups)
    places = np.flatnonzero((mean != inputs)[groups])
    if not len(places):
        return None
    found = seen.shown(unbiased, places)
    number = found.input[0].value
    came = f"a mean of {mean[inputs == np.float32(number)][0]:.9g}"
    biased = int((mean != inputs).sum())
    return replace(found, came=came, due=f"a mean of {number:.9g}", differs=biased, where="", tensor=None)


# ---- laws that need no other judge than the answers themselves ----------------------------------


def monotone(seen: Elements) -> Counterexample | None:
    """A larger number never becomes a smaller value."""
    kept = np.flatnonzero(~np.isnan(seen.x) & ~np.isnan(seen.came_values))
    order = kept[np.argsort(seen.x[kept], kind="stable")]
    ordered = seen.came_values[order]
    falls = np.flatnonzero(ordered[1:] < ordered[:-1])
    if not len(falls):
        return None
    found = seen.shown(monotone, order[falls], (int(order[falls[0]]), int(order[falls[0] + 1])))
    two = [seen.text(seen.came, int(order[falls[0] + k])) for k in (0, 1)]
    return replace(found, came=", then ".join(two), due="a second one that is not smaller")


def sign_symmetry(seen: Elements) -> Counterexample | None:
    """The negative of a number becomes the negative of its value, for roundings that know no side."""
    x, came = seen.x, seen.came_values
    inside = np.isfinite(x) & (np.abs(x) <= seen.task.element.max)
    mirrored = _mirror(x)
    broken = (
        inside & (mirrored >= 0) & (came != -came[mirrored]) & ~(np.isnan(came) | np.isnan(came[mirrored]))
    )
    places = np.flatnonzero(broken)
    if not len(places):
        return None
    found = seen.shown(sign_symmetry, places)
    at = int(places[hardness(x[places]).argmin()])
    return replace(found, due=f"the negative of {seen.text(seen.came, int(mirrored[at]))}")


def _mirror(x: NDArray[np.float32]) -> NDArray[np.int64]:
    """Where the negative of each number stands; -1 where it does not."""
    bits = x.view(np.uint32)
    order = np.argsort(bits)
    wanted = bits ^ np.uint32(1 << 31)
    place = np.minimum(np.searchsorted(bits, wanted, sorter=order), len(bits) - 1)
    found = order[place]
    return np.where(bits[found] == wanted, found, -1)


def element_laws(task: Task) -> tuple[Law, ...]:
    """The laws of an encoder, and of a quantizer that rounds, the most telling first.

    >>> from numerics.formats import fp4
    >>> [law.__name__ for law in element_laws(Task.of(fp4, rounding="floor"))][:3]
    ['round_trip', 'subnormals', 'directed']
    """
    shared = (negative_zero, nan, infinity, overflow)
    if task.rounding == "stochastic":
        laws: tuple[Law, ...] = (round_trip, subnormals, one_step, draws, *shared)
    else:
        between = (nearest, ties) if task.rounding in NEAREST else (directed,)
        laws = (round_trip, subnormals, *between, *shared, monotone)
        if task.rounding in SYMMETRIC and task.element.signed:
            laws += (sign_symmetry,)
    return laws + (canonical_nan,) * task.strict_nan


# ---- decoders, and codes as bytes ---------------------------------------------------------------


@dataclass(frozen=True)
class Codes:
    """What a target made of codes: float32 values, beside those that were due."""

    task: Task
    codes: Array
    came: NDArray[np.float32]
    due: NDArray[np.float32]

    @cached_property
    def wrong(self) -> Mask:
        """Where what came differs from what was due."""
        return self.task.differs(self.came, self.due)

    def simplest(self, law: Law, where: Mask) -> Counterexample | None:
        """The least wrong code that a law speaks of."""
        places = np.flatnonzero(where & self.wrong)
        if not len(places):
            return None
        at = int(places[0])
        came, due = (str(numbers(v[at : at + 1])[0]) for v in (self.came, self.due))
        width = -(-self.task.element.bits // 4)
        code = f"code 0x{int(self.codes[at]):0{width}X}"
        tensor = self.codes[at : at + 1]
        return Counterexample(law.__name__, sentence(law), (), came, due, len(places), code, tensor)


def table(seen: Codes) -> Counterexample | None:
    """Every code decodes to the value that the format's row gives it."""
    return seen.simplest(table, np.isfinite(seen.due) & (seen.due != 0) & ~_is_subnormal(seen))


def subnormal_codes(seen: Codes) -> Counterexample | None:
    """The codes below the smallest normal decode to their own values, not to zero."""
    return seen.simplest(subnormal_codes, _is_subnormal(seen))


def _is_subnormal(seen: Codes) -> Mask:
    d = seen.task.dtype
    below = d.smallest_normal if isinstance(d, Float) else 0.0
    found: Mask = (seen.due != 0) & (np.abs(seen.due) < below)
    return found


def zeros(seen: Codes) -> Counterexample | None:
    """Zero decodes to zero with its sign."""
    return seen.simplest(zeros, seen.due == 0)


def special_codes(seen: Codes) -> Counterexample | None:
    """The codes of Inf and NaN decode to Inf and NaN."""
    return seen.simplest(special_codes, ~np.isfinite(seen.due))


DECODE_LAWS: tuple[Law, ...] = (table, subnormal_codes, zeros, special_codes)


@dataclass(frozen=True)
class Packing:
    """One string of codes and its bytes: what the target made of the one or the other."""

    task: Task
    codes: Array
    packed: Array
    came: Array

    @property
    def due(self) -> Array:
        """Bytes for a target that packs, codes for one that unpacks."""
        return self.packed if self.task.kind == "pack" else self.codes

    def broken(self, law: Law) -> Counterexample | None:
        """The counterexample where what came is not what was due."""
        if np.array_equal(self.came, self.due):
            return None
        given = self.codes if self.task.kind == "pack" else self.packed
        name = "codes" if self.task.kind == "pack" else "bytes"
        where = f"{name} {_hex(given)}" + (f", {len(self.codes)} codes" * (name == "bytes"))
        return Counterexample(
            law.__name__, sentence(law), (), _hex(self.came), _hex(self.due), 1, where, given
        )


def _hex(numbers: Array) -> str:
    return " ".join(f"{int(n):02x}" for n in numbers) or "nothing"


def order(seen: Packing) -> Counterexample | None:
    """Codes form one little-endian string of bits, element 0 in the lowest (docs/formats.md §2)."""
    return seen.broken(order)


def last_byte(seen: Packing) -> Counterexample | None:
    """Codes that do not fill their last byte leave zeros in it, and come back all the same."""
    return seen.broken(last_byte)


# ---- integers with a scale and a zero point (docs/formats.md §6) -------------------------------


@dataclass(frozen=True)
class Scaled:
    """What a target made of float32 numbers at a scale and a zero point."""

    task: Task
    scale: float
    zero_point: int
    x: NDArray[np.float32]
    came: Array
    due: Array

    @cached_property
    def wrong(self) -> Mask:
        """Where what came differs from what was due."""
        return self.task.differs(self.came, self.due)

    @cached_property
    def labels(self) -> Array:
        """The law that each input falls under."""
        d, scale = self.task.element, np.float32(self.scale)
        with np.errstate(all="ignore"):
            quotient = self.x / scale
            product = self.x * (np.float32(1) / scale)
            whole = np.rint(quotient.astype(np.float64))
            outside = [(q < d.min) | (q > d.max) for q in (whole, whole + self.zero_point)]
            classes = {
                "nan_is_zero": np.isnan(self.x),
                "zero_point": (outside[0] | outside[1]) & (self.zero_point != 0),
                "clamp": outside[0],
                "division": np.rint(product) != np.rint(quotient),
                "midway": np.abs(quotient - np.trunc(quotient)) == np.float32(0.5),
            }
        return np.select(list(classes.values()), list(classes), default="quotient")

    def simplest(self, law: Law) -> Counterexample | None:
        """The simplest of the wrong inputs that a law speaks of."""
        places = np.flatnonzero((self.labels == law.__name__) & self.wrong)
        if not len(places):
            return None
        at = int(places[hardness(self.x[places]).argmin()])
        chosen = self.x[at : at + 1]
        where = f"scale {numbers(np.array([self.scale], np.float32))[0]}, zero point {self.zero_point}"
        return Counterexample(
            law.__name__, sentence(law), numbers(chosen), self._text(self.came, at), self._text(self.due, at),
            len(places), where, chosen,
        )  # fmt: skip

    def _text(self, answers: Array, at: int) -> str:
        if answers.dtype.kind == "f":
            return str(numbers(answers[at : at + 1])[0])
        d = self.task.element
        return code_text(int(answers[at]), d, float(self.task.values(answers[at : at + 1])[0]))


def quotient(seen: Scaled) -> Counterexample | None:
    """q = clamp(round(x / scale) + zero_point), and its value is (q - zero_point) * scale."""
    return seen.simplest(quotient)


def division(seen: Scaled) -> Counterexample | None:
    """x is divided by the scale; a product with its reciprocal differs in the last bit."""
    return seen.simplest(division)


def zero_point(seen: Scaled) -> Counterexample | None:
    """The zero point is added after rounding and before the clamp."""
    return seen.simplest(zero_point)


def clamp(seen: Scaled) -> Counterexample | None:
    """What lies past the largest or smallest integer becomes that integer: it does not wrap."""
    return seen.simplest(clamp)


def midway(seen: Scaled) -> Counterexample | None:
    """A quotient midway between two integers goes where the rounding says."""
    return seen.simplest(midway)


def nan_is_zero(seen: Scaled) -> Counterexample | None:
    """NaN becomes the zero point, whose value is 0."""
    return seen.simplest(nan_is_zero)


AFFINE_LAWS: tuple[Law, ...] = (quotient, midway, division, clamp, zero_point, nan_is_zero)
