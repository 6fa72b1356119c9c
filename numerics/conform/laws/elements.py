"""Single numbers: the laws of encoders and of quantizers that round, and their trials.

Inputs are told apart by what they are (a value of the format, a tie, too large, NaN ...), and each
wrong answer counts against the law of its own class, so that the first broken law of a table says
what kind of fault it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from numerics.conform.deviations.search import Asked
from numerics.conform.deviations.search import nearest as nearest_deviations
from numerics.conform.deviations.table import THROUGH_FLOAT32
from numerics.conform.effort import AS_EVER, Effort
from numerics.conform.inputs import alike, elements, layouts, matrices, narrow, random_bits, shapes
from numerics.conform.inputs.drawn import random_inputs
from numerics.conform.inputs.edges import at_ends
from numerics.conform.inputs.elements import values
from numerics.conform.inputs.filling import Filling
from numerics.conform.inputs.matrices import Share
from numerics.conform.inputs.spread import Shapes
from numerics.conform.laws import decoding, drawn, lanes
from numerics.conform.laws.alone import alone, confirmed
from numerics.conform.laws.findings import Findings, Trial, layout, misplaced, place_or_chance, together
from numerics.conform.laws.law import Law, Mask, hardness, sentence
from numerics.conform.laws.questions import Question
from numerics.conform.laws.shrink import simpler_number
from numerics.conform.takes import ANYTHING, Takes
from numerics.conform.targets.target import Target
from numerics.conform.task import Array, Float32, Task
from numerics.conform.verdict import Counterexample, code_text, numbers
from numerics.formats.codebook import Codebook
from numerics.formats.dtype import Element
from numerics.formats.rounding import NEAREST

SYMMETRIC = ("half_even", "half_away", "toward_zero", "to_odd")


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
    doubles: NDArray[np.float64] | None = None
    """What was given, where that were float64 numbers, which x stands for."""

    @property
    def given(self) -> Array:
        """The numbers that the target was given."""
        return self.x if self.doubles is None else self.doubles

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
        shown = [*inputs] or [at]
        chosen = self.x[shown]
        where = "" if self.random is None else f"random bits 0x{int(self.random[at]):08X}"
        if self.doubles is not None:
            where = "as a float64 " + ", then ".join(map(narrow.exactly, self.doubles[shown]))
        return Counterexample(
            law.__name__, sentence(law), numbers(chosen), self.text(self.came, at), self.text(self.due, at),
            len(places), where, chosen if self.doubles is None else None,
            given=() if self.random is None else (self.random[at : at + 1],),
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
    """Up, away from zero, exactly when fraction and random bits say so: by rule a, b or c of draw=."""
    found = seen.simplest(draws, _between(seen))
    return None if found is None else replace(found, sentence=seen.task.drawing.sentence)


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
    order = kept[np.argsort(seen.given[kept], kind="stable")]
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
    mirrored = _mirror(seen.given)
    broken = (
        inside & (mirrored >= 0) & (came != -came[mirrored]) & ~(np.isnan(came) | np.isnan(came[mirrored]))
    )
    places = np.flatnonzero(broken)
    if not len(places):
        return None
    found = seen.shown(sign_symmetry, places)
    at = int(places[hardness(x[places]).argmin()])
    return replace(found, due=f"the negative of {seen.text(seen.came, int(mirrored[at]))}")


def _mirror(x: Array) -> NDArray[np.int64]:
    """Where the negative of each float32 or float64 stands; -1 where it does not."""
    bits = x.view(f"u{x.itemsize}")
    order = np.argsort(bits)
    wanted = np.negative(x).view(bits.dtype)
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
        if task.rounding in SYMMETRIC and _is_mirrored(task.element):
            laws += (sign_symmetry,)
    return laws + (canonical_nan,) * task.strict_nan


def _is_mirrored(d: Element) -> bool:
    """Has it a zero, and the negatives of its values, but for an integer's least?"""
    held = values(d)
    return d.signed and (not isinstance(d, Codebook) or (0 in held and np.array_equal(held, -held[::-1])))


FEWEST = 6  # random bits that are spaced evenly


def _mean_laws(task: Task) -> tuple[Law, ...]:
    """Of drawn results: none of codebooks, whose fractions are float32's (docs/formats.md §12)."""
    return () if isinstance(task.element, Codebook) or task.drawing.bits < FEWEST else (unbiased,)


SMALLEST_NORMAL = np.float32(2.0**-126)
ROW = 66  # float64 numbers of a row
MOST_NEAR = 4096  # numbers beside which float64's are asked
LONG = (1 << 22) + 4099  # numbers of the longest line but that of much effort
CALLS = 3  # of the same very long array
SHOWN = 64  # wrong numbers of an array that are asked again
AGAIN = 4  # times that an array is asked once more, which was wrong
HELD = 9  # copies of an array that are held while it is asked again: more than NumPy keeps of short ones
LOOKED_AT = (
    4  # numbers that are asked by themselves: a kernel may take another way after some calls of a shape
)
LINE = 6007  # numbers of a line of one number alone: no other question has so many
BRIEF = 512  # numbers of arrays that are asked beside random bits of one layout each
MANY = 1 << 13  # numbers that arrays are filled with, beside all that are asked one by one
ENDS = 16  # codes that stand last in every kind of layout
MOST_CODES = 257  # that arrays of other shapes are filled with


# ---- trials ----------------------------------------------------------------------------------------


def trials(
    task: Task, takes: Takes = ANYTHING, effort: Effort = AS_EVER, named: Shapes = ()
) -> Iterator[Trial]:
    """Those of an encoder, a decoder or a quantizer of single numbers; named: shapes that are asked, too."""
    if task.kind == "decode":
        yield decoding.trial()
    elif task.draws:
        yield Trial((*element_laws(task), *_mean_laws(task)), _drawn)
    else:
        yield Trial(element_laws(task), _every_turn)
    if task.inputs == "float64" and not task.draws:
        yield Trial(element_laws(task), _doubles)
    yield Trial((layout,), lambda target, found: _layouts(target, found, effort, named))
    yield Trial((layout,), lambda target, found: _at_pages(target, found, effort))
    yield lanes.trial()
    yield from drawn.repeated(task, takes, effort, decoding.alone if task.kind == "decode" else _alone)


def observe(target: Target, x: Float32, random: Array | None = None) -> Elements:
    """What the target makes of numbers, beside what is due."""
    inputs = (x,) if random is None else (x, random)
    came = target.elements(*inputs)
    return Elements(target.task, x, came, np.asarray(target.task.answer(x, random)), random)


def simpler(target: Target, law: Law, broken: Counterexample) -> Counterexample:
    """The same law on a simpler number, where there is one."""
    found = simpler_number(law, broken, lambda x: observe(target, x))
    return alone(target, found, (numbers_of(target),))


def _alone(target: Target, found: Findings, question: Question, at: Array) -> None:
    """Judges numbers that were wrong among many, by the laws of elements: those that are wrong alone, too.

    Others are wrong by what stands beside them, and a line of them is another array than the wrong one.
    """
    every = [tuple(part[i : i + 1] for part in question.inputs) for i in at]
    own = at[[bool(observe(target, *one).wrong.any()) for one in every]]
    if not len(own):
        return
    seen = observe(target, *(part[own] for part in question.inputs))
    found.judge(element_laws(target.task), seen, lambda law, broken: simpler(target, law, broken))


def _every_turn(target: Target, found: Findings) -> None:
    """Every code, every middle and its neighbours, and float32's own edges."""
    seen = observe(target, numbers_of(target))
    found.tried += len(seen.x)
    found.judge(element_laws(target.task), seen, lambda law, broken: simpler(target, law, broken))
    if found.failures:
        asked = Asked(target.task, seen.x, seen.came)
        found.explain = confirmed(
            target, lambda: nearest_deviations(asked, seen.wrong, seen.labels), (seen.x,)
        )


def numbers_of(target: Target) -> Float32:
    """What tells an encoder from a wrong one; of a type of 16 bits, every number."""
    name = target.task.inputs
    plain = name in ("float32", "float64")
    return target.asked(elements.probes(target.task.element) if plain else narrow.every(name))


def _doubles(target: Target, found: Findings) -> None:
    """float64 numbers that no float32 is, beside the middles: ties to a kernel that narrows first."""
    task = target.task
    x = narrow.doubles(_some_near(target.asked(elements.turning_points(task.element))))
    x = x[target.keeps(narrow.single(x))]
    stands = narrow.single(x)
    seen = Elements(task, stands, target.elements(x), np.asarray(task.answer(stands)), doubles=x)
    found.tried += len(x)
    found.judge(element_laws(task), seen)
    if found.failures:
        with np.errstate(all="ignore"):
            twice = np.asarray(task.answer(x.astype(np.float32)))
        found.explain = lambda: () if task.differs(seen.came, twice).any() else (THROUGH_FLOAT32,)
    if not found.failures and not target.takes.contiguous:
        _doubles_in_rows(target, found, x)


def _doubles_in_rows(target: Target, found: Findings, x: Array) -> None:
    """The same in rows, and those alone that are within the format's range."""
    d = target.task.element
    inside = np.isfinite(x) & (np.abs(x) <= min(abs(d.min), abs(d.max)))
    for part in (x, x[inside]):
        rows = part[: len(part) // ROW * ROW].reshape(-1, ROW)
        for given in (rows, rows.T, rows[:, ::2]):
            if not found.failures:
                due, came = np.asarray(target.task.answer(narrow.single(given))), target.elements(given)
                found.tried += given.size
                wrong = target.task.differs(came, due)
                if wrong.any():
                    found.failures.append(misplaced(given, came, due, wrong))


def _some_near(near: Float32) -> Float32:
    """Values and middles of every binade alike, and all among float32's subnormal numbers."""
    step = -(-len(near) // MOST_NEAR)
    while step % 2 == 0 or step % 3 == 0:  # each value and each middle has a neighbour on either side
        step += 1
    return np.union1d(near[::step], near[np.abs(near) < SMALLEST_NORMAL])


def _drawn(target: Target, found: Findings) -> None:
    """Stochastic rounding: every threshold, and the mean over evenly spaced draws."""
    x, random = random_bits.elements(target.task.element)
    kept = target.keeps(x)
    random = target.task.drawing.narrow(random[kept])
    seen = observe(target, narrow.narrowed(x[kept], target.task.inputs), random)
    found.tried += len(seen.x)
    given = (seen.x, random)
    found.judge(element_laws(target.task), seen, lambda law, broken: alone(target, broken, given))
    x, random = random_bits.even_draws(target.task.element)
    kept = target.keeps(x) & narrow.is_held(x, target.task.inputs)
    even = observe(target, x[kept], target.task.drawing.narrow(random[kept]))
    found.tried += len(even.x)
    found.judge(_mean_laws(target.task), even)
    if seen.wrong.any():
        every = _joined(seen, even)
        asked = Asked(target.task, every.x, every.came, every.random)
        found.explain = confirmed(target, lambda: nearest_deviations(asked, every.wrong, every.labels), given)


def _joined(seen: Elements, more: Elements) -> Elements:
    """Both, as if they had been asked together."""
    x, came, due = (
        np.concatenate([getattr(one, name) for one in (seen, more)]) for name in ("x", "came", "due")
    )
    assert seen.random is not None
    assert more.random is not None
    return Elements(seen.task, x, came, due, np.concatenate([seen.random, more.random]))


def _layouts(target: Target, found: Findings, effort: Effort, named: Shapes) -> None:
    """Such numbers in other shapes and strides; with much effort in a very long array, too."""
    task, rng = target.task, np.random.default_rng((31, effort.seed))
    for filled, x in _laid_out(target, effort, named):
        random, known = _beside(task, filled, x, rng)
        every = list(shapes.beside(x, *random))
        if len(every) > 1 and x.size < BRIEF:  # of many that lie alike, each in one way or another
            every = [every[int(rng.integers(len(every)))]]
        for given in every:
            if not found.failures:
                _lay_out(target, found, given, known)


def _at_pages(target: Target, found: Findings, effort: Effort) -> None:
    """Lines that begin where a page of memory does, and that end where one does, each in several numbers."""
    task, rng, filled = target.task, np.random.default_rng((43, effort.seed)), filling(target, effort.seed)
    for x in layouts.paged(filled):
        random, known = _beside(task, filled, x, rng)
        for past in at_ends(x.size * target.kind_of(x).itemsize):
            if not found.failures:
                with target.giving(begins=past, stored_alone=True):
                    _lay_out(target, found, (x, *random), known)


def _beside(
    task: Task, filled: Filling, x: Array, rng: np.random.Generator
) -> tuple[tuple[Array, ...], Array | None]:
    """Random bits for an array, where the target takes them; what is due to it, where its places say that."""
    if not task.draws:
        return (), filled.by_place(x, lambda table: _due(task, table))
    turning = filled.by_place(x, lambda table: random_bits.turning(task, table))
    thresholds = random_bits.thresholds(task.element, x) if turning is None else turning["threshold"]
    random = task.drawing.narrow(random_bits.beside(thresholds, rng))
    if turning is None or _repeats(x):  # random bits that lie as x does are then others, from place to place
        return (random,), None
    return (random,), np.where(task.drawing.wide(random) < thresholds, turning["below"], turning["above"])


def _repeats(x: Array) -> bool:
    """Does one number stand in several places, by a stride of zero?"""
    return any(step == 0 and n > 1 for step, n in zip(x.strides, x.shape, strict=True))


def _laid_out(target: Target, effort: Effort, named: Shapes) -> Iterator[tuple[Filling, Array]]:
    """Arrays of every shape; and those of which no number is NaN, or past the range, or negative ..."""
    task, every = target.task, filling(target, effort.seed)
    few = task.draws and not effort.drawn
    for x in shapes.shaped(every, target.takes, named, few):
        yield every, x
    yield from ((every, x) for x in layouts.sized(every, few))
    if not few:
        yield from ((every, x) for x in layouts.tailed(every, far=effort.drawn > 0 and not task.draws))
    share = Share.EVERY if effort.drawn else Share.FEW if few else Share.SOME
    yield from ((every, x) for x in matrices.tailed(every, target.takes, share))
    yield from ((every, x) for x in layouts.apart(every, target.takes))
    yield from ((every, x) for x in matrices.laid(every, target.takes, few))
    near = every.table[len(every.table) // 3 :]  # nearly all of these are next to ties
    values = task.values(near) if task.kind == "decode" else near
    masks = alike.classes(values, task.element)
    for x in alike.arrays(near, masks, target.takes):
        yield every, x
    if effort.drawn or not task.draws:
        yield from alike.tensors(
            *_with_pixels(target, near, values), long=effort.drawn > 0 and not task.draws
        )
    if effort.drawn and masks[alike.WITHIN].any():
        within = Filling.of(near[masks[alike.WITHIN]])
        yield from ((within, x) for x in (within.large(alike.LONG),) * CALLS)  # what each few calls do shows
    if effort.drawn and not task.draws:
        yield every, layouts.long(every, LONG)
    if effort.name == "high" and not task.draws:
        yield every, every.large(shapes.FARTHEST)


def _with_pixels(target: Target, near: Array, values: Array) -> tuple[Array, Array]:
    """Numbers, or codes, and what they stand for; with those of pixels, where they are numbers."""
    if target.task.kind == "decode":
        return near, values
    x = np.append(near, target.asked(np.arange(alike.MOST_WHOLE + 1, dtype=np.float32)))
    return x, x


def _due(task: Task, *given: Array) -> Array:
    return task.values(given[0]) if task.kind == "decode" else np.asarray(task.answer(*given))


def _lay_out(target: Target, found: Findings, given: tuple[Array, ...], known: Array | None = None) -> None:
    """given: numbers, or codes; and random bits, where the target takes them.  known: what is due."""
    task, x = target.task, given[0]
    due = _due(task, *given) if known is None else known
    came = target.elements(*given)
    found.tried += x.size
    wrong = task.differs(came, due)
    if wrong.any() and not _is_wrong_alone(target, found, given, wrong):
        broken = misplaced(x, came, due, wrong, place_or_chance(wrong, _still(target, given, due)))
        found.failures.append(together(broken, given[1:], "random bits"))


def _still(target: Target, given: tuple[Array, ...], due: Array) -> Mask:
    """What is wrong each time that it is asked again, each time in memory of another address."""
    held, still = [], np.ones(due.shape, np.bool_)
    for _ in range(AGAIN):
        held += target.copies(given, HELD)
        still &= target.task.differs(target.elements(*given), due)
    return still


def _is_wrong_alone(target: Target, found: Findings, given: tuple[Array, ...], wrong: Mask) -> bool:
    """Judges wrong numbers by their own laws: those not asked before, and what is wrong by itself."""
    if target.task.kind == "decode":
        return False
    at = np.flatnonzero(wrong)[:SHOWN]
    flat = [np.ascontiguousarray(part).reshape(-1)[at] for part in given]
    new = np.full(len(at), target.task.draws)
    if not target.task.draws:
        new = ~np.isin(flat[0].view(np.uint32), numbers_of(target).view(np.uint32))
    if new.any():
        _alone(target, found, Question(tuple(flat), flat[0]), np.flatnonzero(new))
    if not found.failures and given[0].size > 1 and not target.task.draws:
        _by_itself(target, found, [flat[0][i : i + 1] for i in np.flatnonzero(~new)])
    return bool(found.failures)


def _by_itself(target: Target, found: Findings, every: list[Array]) -> None:
    """Judges the first that is wrong as an array of one number and as a long line of nothing else, too.

    It is right among others, now as before: a kernel may choose its way by what a whole array holds.
    """
    others = target.asked(shapes.kinds(target.task.element))
    for x in every[:LOOKED_AT]:
        seen = observe(target, x)
        if not (seen.wrong.all() and observe(target, np.repeat(x, LINE)).wrong.all()):
            continue
        if not observe(target, np.append(others, x)).wrong[-1]:
            found.judge(element_laws(target.task), seen, lambda law, broken: simpler(target, law, broken))
        return


def _some_codes(bits: int) -> Array:
    """Codes from end to end, each bit alone and each bit missing: the least and largest numbers, NaN."""
    codes, bit = np.arange(1 << bits), 1 << np.arange(bits)
    return np.unique(
        np.concatenate([codes[:: -(-len(codes) // MOST_CODES)], bit, codes[-1] ^ bit, codes[-1:]])
    )


def filling(target: Target, seed: int = 0) -> Filling:
    """Numbers, or codes, of which the same kernel has already made the right thing one by one.

    A third each of a few of every kind, of those on which an encoder may turn, and of all others and some
    that are drawn.
    """
    task = target.task
    rng = np.random.default_rng((19, seed))
    if task.kind == "decode":
        bits, kind = task.element.bits, task.element.code_dtype
        few = _some_codes(bits)
        ends = few[np.linspace(0, len(few) - 1, ENDS).astype(np.int64)] if len(few) > ENDS else few
        own = np.unique([*ends, 1 << (bits - 1), (1 << bits) - 1 ^ 1 << (bits - 1)]).astype(kind)
        return Filling.of(few.astype(kind), rng.permutation(1 << bits).astype(kind), ends=own)
    few = target.asked(shapes.telling(task.element))
    near, walked = elements.turning_points(task.element), elements.walking(task.element)
    either = np.concatenate([walked, walked | elements.SIGN]).view(np.float32)
    turning = target.asked(np.concatenate([near, either]))
    drawn = target.asked(random_inputs(task.element, MANY, rng).view(np.float32))
    return Filling.of(few, rng.permutation(turning), rng.permutation(np.append(numbers_of(target), drawn)),
                      ends=target.asked(shapes.kinds(task.element)))  # fmt: skip
