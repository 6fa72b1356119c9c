"""A target that finds the scale of a tensor: from all that this call gives it, whatever came before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numerics.conform.deviations.search import Asked as BlocksAsked
from numerics.conform.deviations.table import DIALECTS, Dialect
from numerics.conform.effort import AS_EVER, Effort
from numerics.conform.inputs import shapes
from numerics.conform.inputs.elements import FLOAT32_MAX
from numerics.conform.inputs.margins import LINE
from numerics.conform.inputs.narrow import narrowed
from numerics.conform.laws.blocks import elements, scale_rule
from numerics.conform.laws.company import as_of, misplaced, repeatable
from numerics.conform.laws.findings import Findings, Trial
from numerics.conform.laws.law import sentence
from numerics.conform.laws.rows import as_rows
from numerics.conform.scales.groups import place_of_largest
from numerics.conform.scales.tensor_habits import TensorHabit, ways
from numerics.conform.targets.faults import SENTENCES, Fault
from numerics.conform.targets.target import Target
from numerics.conform.task import TOP, Answer, Array, Fields, Float32, Task, answers_at
from numerics.conform.verdict import Counterexample, Named, numbers

LARGEST = (
    2688.0, TOP, 1.0, 1e-20, 7.7e4, 2.0**-126, 3e-3, 2.0**-149, 448.0, 1e30, 2.0**-140, float(FLOAT32_MAX),
    6.0, 1e-30, 2.0**-125 * 1e3, 0.1, 1e-12, 3.3e38, 2.0**-15, 6e4,
)  # fmt: skip
"""Largest magnitudes: those whose scale is 1, the ends of float32 and of float16, scales that underflow."""
ALONE = (1.0, 2600.0, -TOP, 6.0, 4e4)
"""Numbers that stand alone in a tensor: it is the simplest counterexample."""
DRAWN = 24  # more of them
KEPT, MORE = 8, 16  # tensors that a deviation has to explain: the last that were asked, and others
SHAPES = ((2, 1), (1, 3), (5, 3), (33, 5), (4, 65), (67, 64))
"""Lines, and blocks of each."""
PAST = ((1 << 16) + 1, (1 << 21) + 1)
"""Numbers, at least, of longer tensors: those past 2**16, and with more effort past 2**21."""
ITS = "its scale is"
SAID = "behind a block of zeros"
MANY = 64  # blocks of which longer tensors are made
BLOCKS = 18  # of shapes.CUT, numbers of whole blocks, too
LONG = 8192  # numbers of a line, of which few are asked
NUMBER, LONGEST, ENDS = 1 << 12, 1 << 16, (0.0, 0.37, 0.5, 0.99, 1.0)
"""Numbers of a tensor that is judged whole, and of a wrong one; where in a longer one the largest stands."""
SCALES = "a scale of "


def tensor_scale() -> None:
    """A tensor's scale comes from the largest finite magnitude of all of it, and of nothing else."""


def first() -> Trial:
    """Tensors of few numbers that are not 0, of which a wrong scale of the tensor, and little else, shows."""
    return Trial((tensor_scale,), lambda target, found: _found(target, found, _lone(target), far=True))


def trial(effort: Effort) -> Trial:
    """Tensors of every magnitude, one after the other; then larger ones, whose largest stands anywhere."""
    return Trial((tensor_scale,), lambda target, found: _all(target, found, effort))


def _all(target: Target, found: Findings, effort: Effort) -> None:
    _found(target, found, _tensors(target, effort))
    if not found.failures:
        _found(target, found, _cut(target))


class Known(NamedTuple):
    """What explains a target, in the place of a known deviation."""

    name: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


OWN = Known(
    "its own tensor scale",
    "the tensor's scale is found from the largest magnitude of each call, as docs/formats.md §8 says",
)


def as_finder(target: Target) -> Target | None:
    """The target as one that finds the tensor's scale; None where it is none, by tensors of few numbers."""
    if (task := target.task.finding_scale) is None:
        return None
    finder = Target(target.function, task, target.takes)
    finder.witness = target.witness
    found = Findings()
    try:
        first().run(finder, found)
    except Fault:
        return None
    return None if found.failures else finder


class Tensor(NamedTuple):
    """Rows of a block each, and which of them stand in lines [lines, blocks of a line]."""

    rows: Float32
    order: NDArray[np.int64]

    @property
    def numbers(self) -> Float32:
        """The lines."""
        return self.rows[self.order].reshape(len(self.order), -1)


class Line(NamedTuple):
    """Lines of any length, of which the last block may be short."""

    numbers: Float32


class Asked(NamedTuple):
    """What a target made of a tensor, beside what was due: blocks as rows, and the tensor's scale."""

    came: Answer
    due: Answer
    scale: float | None
    due_scale: float

    def pairs(self) -> Iterator[tuple[str, Array, Array]]:
        """What came and what was due, part by part."""
        if not isinstance(self.came, Fields) or not isinstance(self.due, Fields):
            yield "", np.asarray(self.came), np.asarray(self.due)
            return
        yield SCALES, self.came.scale, self.due.scale
        yield "a code of ", self.came.codes, self.due.codes


def _found(target: Target, found: Findings, tensors: Iterator[Tensor | Line], far: bool = False) -> None:
    """far: what another fault than that of the tensor's scale may explain is left to other laws."""
    before: list[float] = []
    seen: list[Case] = []
    for tensor in tensors:
        found.tried += tensor.numbers.size
        inputs = _inputs(target, tensor)
        asked = _ask(target, inputs, tensor if isinstance(tensor, Tensor) else None)
        broken = _broken(target.task, inputs, asked)
        told = broken is not None and (not far or _is_far(asked))
        if tensor.numbers.size <= (LONGEST if told else NUMBER if isinstance(tensor, Tensor) else 0):
            seen.append(Case(inputs, asked))
        if broken is not None and told:
            kept = _kept(target, inputs, asked, before)
            found.failures.append(broken if kept is None else as_of(broken, repeatable, kept))
            found.differs += 1
            found.explain = lambda: nearest(target, seen)
            return
        before.append(asked.due_scale)


def is_right(target: Target, inputs: tuple[Array, ...]) -> bool:
    """Is such a tensor right, asked now?"""
    return _broken(target.task, inputs, _ask(target, inputs, None)) is None


# ---- deviations ------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A tensor that was asked, and what came."""

    inputs: tuple[Array, ...]
    asked: Asked


def nearest(target: Target, seen: list[Case]) -> tuple[Named, ...]:
    """The way to find the tensor's scale, and at most one deviation of blocks, that explain all that came.

    Nothing where all of it is due: what is wrong elsewhere is not explained by what is right here.
    """
    task = target.task
    if task.draws:
        return ()
    more = [_inputs(target, tensor) for tensor in islice(_tensors(target, AS_EVER), MORE)]
    every = [*seen[-KEPT:], *(Case(inputs, _ask(target, inputs, None)) for inputs in more)]
    due, *_ = ways(task)
    if all(_is_made(task, one, due, ()) for one in every):
        return ()
    for way in ways(task):
        for blocks in ((), *((one,) for one in DIALECTS if one.applies(task))):
            if all(_is_made(task, one, way, blocks) for one in every[::-1]):
                return (way, *blocks)
    return ()


def or_of_tensor(target: Target, explain: Callable[[], tuple[Named, ...]]) -> Callable[[], tuple[Named, ...]]:
    """Looks for deviations of blocks, and where none explain what came, for those of the tensor's scale."""
    return lambda: explain() or nearest(target, [])


def _is_made(task: Task, one: Case, way: TensorHabit, blocks: tuple[Dialect, ...]) -> bool:
    """Would a kernel that finds the tensor's scale in that way make what came?"""
    (x, *_), asked = one
    scale = way.find(place_of_largest(narrowed(x, task.inputs))[1])
    if asked.scale is not None and np.float32(asked.scale) != np.float32(scale):
        return False
    at = replace(task, tensor_scale=scale, finds_scale=False)
    rows = at.blocking(x.shape).rows(narrowed(x, task.inputs))
    return not BlocksAsked(replace(at, axis=-1), rows, asked.came).unexplained(blocks).any()


# ---- tensors ---------------------------------------------------------------------------------------


def _tensors(target: Target, effort: Effort) -> Iterator[Tensor]:
    """Those that the target takes."""
    rng = np.random.default_rng((41, effort.seed))
    for tensor in _every(target.task, effort, rng):
        rows = narrowed(tensor.rows, target.task.inputs)
        past = np.isinf(rows) & np.isfinite(tensor.rows)
        if not past.any() and (np.isfinite(rows).all() or not target.takes.finite):
            yield tensor._replace(rows=rows)


def _cut(target: Target) -> Iterator[Line]:
    """Lines, and a few of them, whose largest number stands among the last, and is larger than the rest.

    Of a target that takes whole blocks alone, lines of as many blocks, or more, as tiles leave over.
    """
    size = target.task.block.block
    cut: tuple[int, ...] = shapes.CUT
    if target.takes.whole_blocks:
        cut = tuple(
            sorted({*(-(-length // size) * size for length in cut), *(k * size for k in cut[:BLOCKS])})
        )
    for length in cut:
        if length % target.task.fill_bytes:  # packed codes that would end within a byte
            continue
        for turn, after in enumerate(shapes.BEFORE_END if length < LONG else shapes.BEFORE_END[:2]):
            lines = 3 if turn % 2 and length < LONG else 1
            if after >= length:
                break
            x = shapes.uneven(lines, length, size)
            largest = np.float32(4 * np.abs(x).max())
            x[-1, -1 - after] = -largest if turn % 3 == 1 else largest
            yield Line(narrowed(x, target.task.inputs))


def _lone(target: Target) -> Iterator[Tensor]:
    """A number, and an eighth of it in another block, last and first, in short tensors and longer ones."""
    size = target.task.block.block
    for turn, largest in enumerate(ALONE):
        for lines, blocks in ((1, 2), (7, 5)):
            rows = np.zeros((3, size), np.float32)
            rows[1, turn % size], rows[2, -1 - turn % size] = largest, largest / 8
            order = np.zeros((lines, blocks), np.int64)
            order[-1, -1], order[0, 0] = (1, 2) if turn % 2 else (2, 1)
            if not np.isinf(narrowed(rows, target.task.inputs)).any():
                yield Tensor(narrowed(rows, target.task.inputs), order)


def _every(task: Task, effort: Effort, rng: np.random.Generator) -> Iterator[Tensor]:
    size = task.block.block
    drawn = rng.permutation(np.exp2(rng.uniform(-40, 15, DRAWN)))
    one = np.zeros((1, 1), np.int64)
    for turn, largest in enumerate((*LARGEST, *drawn.tolist())):
        yield Tensor(_rows(1, size, largest, turn), one)
    yield Tensor(np.zeros((1, size), np.float32), one)
    for turn, shape in enumerate(SHAPES):
        for most in (TOP, 0.3, 7e4 if turn % 2 else 2.0**-20):
            rows = _rows(min(MANY, shape[0] * shape[1]), size, most, turn)
            yield Tensor(rows, rng.integers(0, len(rows), shape) if len(rows) == MANY else
                         np.arange(len(rows)).reshape(shape))  # fmt: skip
    yield from _special(size)
    for least in PAST[: 1 if effort.name == "quick" else 2]:
        for turn, end in enumerate(ENDS):
            yield _long(size, least, end, (3.0, TOP, 0.02, 1e5, 1e-6)[turn])


def _rows(count: int, size: int, largest: float, turn: int) -> Float32:
    """Blocks of unlike magnitudes, in one of which the largest number stands."""
    every = shapes.uneven(count, size, size).astype(np.float64)
    every *= 0.9 * largest / np.abs(every).max()
    at = turn * shapes.FAR_APART % every.size
    every.flat[at] = -largest if turn % 2 else largest
    with np.errstate(all="ignore"):
        return every.astype(np.float32)


def _special(size: int) -> Iterator[Tensor]:
    """The largest number beside NaN, beside Inf, in their block and in another; nothing finite but zeros."""
    order = np.arange(3).reshape(1, 3)
    for turn, special in enumerate((np.nan, np.inf, -np.inf)):
        for block in (0, 1, 2):
            rows = _rows(3, size, (5.0, 700.0, 0.01)[block], 0)
            rows = np.roll(rows, block, axis=0)
            rows[1, (turn + 1) % size if size > 1 else 0] = special
            yield Tensor(rows, order)
    for special in (np.nan, np.inf, -0.0):
        rows = np.zeros((3, size), np.float32)
        rows[1, -1] = special
        yield Tensor(rows, order)


def _long(size: int, least: int, end: float, largest: float) -> Tensor:
    """A tensor of so many numbers or more, of few unlike blocks, in which the largest stands once."""
    rows = np.concatenate([_rows(MANY, size, largest / 8, 1), _rows(1, size, largest, 3)])
    per_line = 64
    lines = -(-least // (size * per_line))
    order = np.resize(np.arange(MANY), (lines, per_line))
    order.flat[int(end * (order.size - 1))] = MANY
    return Tensor(rows, order)


# ---- asking ----------------------------------------------------------------------------------------


def _inputs(target: Target, tensor: Tensor | Line) -> tuple[Array, ...]:
    x = shapes.placed(tensor.numbers, target.task.axis)
    return x, *shapes.draws_of(target.task, x.shape)


def _ask(target: Target, inputs: tuple[Array, ...], tensor: Tensor | None) -> Asked:
    came, scale = target.blocks_and_scale(*inputs)
    task = target.task.at_scale_of(inputs[0])
    due = _due(task, inputs, tensor)
    came = as_rows(task, came)
    if isinstance(came, Fields) and isinstance(due, Fields):
        came = task.with_same_nan(came, due)
    return Asked(came, due, scale, task.tensor_scale or 0.0)


def _due(task: Task, inputs: tuple[Array, ...], tensor: Tensor | None) -> Answer:
    """What is due, as rows; of a long tensor, to each of its unlike blocks once."""
    if tensor is None or tensor.order.size <= len(tensor.rows) or task.draws:
        return as_rows(task, task.answer(*map(np.ascontiguousarray, inputs)))
    rows = replace(task, axis=-1)
    return answers_at(as_rows(rows, rows.answer(tensor.rows)), tensor.order.reshape(-1))


def _broken(task: Task, inputs: tuple[Array, ...], asked: Asked) -> Counterexample | None:
    """What is wrong, with the number that decides the scale and its place."""
    x = inputs[0]
    law: Callable[..., Any] = tensor_scale
    said = _told(x, asked.due_scale)
    if asked.scale is not None and asked.scale != asked.due_scale:
        came, due = (f"a tensor scale of {one:.9g}" for one in (asked.scale, asked.due_scale))
        return Counterexample(
            law.__name__, sentence(law), said[0], came, due, 1, said[1], x, given=inputs[1:]
        )
    for name, one, other in asked.pairs():
        wrong = task.differs(one, other)
        if wrong.any():
            if asked.scale is not None:  # which is right: the block's own scale, or a code, is not
                law = scale_rule if name == SCALES else elements
            broken = misplaced(np.zeros(one.shape), one, other, wrong, law)
            at = f"block {int(np.argwhere(wrong)[0][0])}"
            where = f"{said[1]}; wrong in {at}"
            return replace(broken, input=said[0], came=_text(name, broken.came), due=_text(name, broken.due),
                           where=where, tensor=x, given=inputs[1:])  # fmt: skip
    return None


def _is_far(asked: Asked) -> bool:
    """Is the tensor's scale another; where none came, is a block's scale or a value not even the next one?"""
    if asked.scale is not None:
        return asked.scale != asked.due_scale
    if isinstance(asked.came, Fields) and isinstance(asked.due, Fields):
        steps = asked.came.scale.astype(np.int64) - asked.due.scale
        return bool((np.abs(steps) > 1).any())
    came, due = (np.asarray(part, np.float64) for part in (asked.came, asked.due))
    with np.errstate(invalid="ignore"):
        return bool((np.abs(came - due) > np.abs(due) / 5).any())


def _text(name: str, answer: str) -> str:
    return f"{name}0x{int(answer):02X}" if name else answer


def _told(x: Array, scale: float) -> tuple[Any, str]:
    """A short tensor whole, of a longer one its largest number; and what it decides."""
    at, amax = place_of_largest(x)
    shown = numbers(x if x.size <= 2 * LINE else x[at])
    where = f"in a tensor of shape {x.shape}, whose largest finite magnitude, {amax:.9g}, stands at {at}"
    return shown, f"{where}: {ITS} {scale:.9g}"


def _kept(target: Target, inputs: tuple[Array, ...], asked: Asked, before: list[float]) -> str | None:
    """Whether a scale of the calls before explains what came, and what comes for a third of the tensor."""
    for scale in {before[0], before[-1], max(before)} if before else ():
        if _explains(target.task, inputs, asked, scale):
            with np.errstate(all="ignore"):
                x = (inputs[0] * (scale / asked.due_scale / 3)).astype(np.float32)
            again = narrowed(x, target.task.inputs), *inputs[1:]
            other = _ask(target, again, None)
            told = any(_explains(target.task, again, other, one) for one in (scale, asked.due_scale))
            if told and _broken(target.task, again, other) is not None:
                return "it depends on the calls before it: the tensor scale is that of an earlier one"
    return None


def _explains(task: Task, inputs: tuple[Array, ...], asked: Asked, scale: float) -> bool:
    """Is what came due at another scale?"""
    task = replace(task, tensor_scale=scale)
    due = as_rows(task, task.answer(*map(np.ascontiguousarray, inputs)))
    return _broken(task, inputs, asked._replace(due=due, due_scale=scale)) is None


def led(target: Target, broken: Counterexample) -> Counterexample:
    """A counterexample of another law, which says what decided the tensor's scale when it was asked."""
    x = broken.tensor
    if not target.task.finds_scale or x is None or broken.law in SENTENCES or ITS in broken.where:
        return broken
    rows = x if x.ndim > 1 else x[None]
    power = target.power_of(rows)
    scale = np.ldexp(target.task.tensor_scale or 0.0, power)
    times = f", all of it times {1 << power}" if power else ""
    said = f"{SAID} with {TOP:g} or its negative in it{times}: tensor scale {scale:.9g}"
    return replace(broken, where="; ".join(part for part in (broken.where, said) if part))
