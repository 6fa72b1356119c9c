"""Blocks that matter in tensors of every shape and memory, and tensors of blocks of one class alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from numerics.backends.partition import Blocking
from numerics.conform.effort import Effort
from numerics.conform.inputs import matrices, shapes
from numerics.conform.inputs.layouts import LINES as LONG_LINES
from numerics.conform.inputs.layouts import WIDEST, WIDTHS
from numerics.conform.laws.questions import question_of, rounded_values
from numerics.conform.laws.rows import fields_of_rows
from numerics.conform.takes import Takes
from numerics.conform.task import Answer, Array, Fields, Task, answers_at

SALT = 67  # of the seed of a tensor, beside its shape
LINES = (1, 2, 3, 5, 8, 33, 128)  # blocks of a tensor of one axis
TENSORS = ((9, 3), (2, 3, 2), (33, 5, 1), (2, 3, 5, 2), (2, 1, 3, 2, 1), (3, 2, 5, 3, 2), (131, 7))
"""Lines of tensors, and how many blocks are in each, along the last of these axes."""
LED = ((1,), (5, 2), (33, 9))  # lines of blocks of such tensors
OF_ONE_NUMBER = ((1,), (3,), (1, 2), (3, 2), (2, 5), (5, 1), (2, 3, 2), (33, 2))  # of those of a single one
OF_ONE_CLASS = ((1, 1), (1, 5), (3, 2), (33, 9), (2, 5, 3))
LONG = 1 << 20  # numbers of blocks of one class
MOST = 1 << 18  # numbers of other tensors, at most: of longer blocks there are fewer
MANY = ((2, 1027), (3, 2051), (4099,), (65_601,), (1, 65_601), (257, 257, 1))
"""Lines, and blocks of each: more than a block of threads, or 16 bits, counts; so many lines of two axes."""
MOST_LONG, PAST = 1 << 22, (7, 468_753)
"""Numbers of these, at most; lines, and numbers of each, of the largest tensor: more than 3 * 2**20."""
HIGH = (7, 2_396_757)  # with much effort: more than 2**24
WEIGHTS = 8  # below which the numbers of a tensor lie that is largest in the octave before it
MODERATE = 2.0**20  # magnitudes and their reciprocals, at most, that no shortcut leaves out


Ask = Callable[[list[Array], Answer], None]
"""Gives a target some arrays and compares what comes with what is due."""


class Known(NamedTuple):
    """Blocks whose answers are known: what a target is given of each, and what is due.

    elements: numbers, or codes, and random bits, as rows.  shared: the scales of codes, and microexponents.
    due: the answers to the rows.  kept: which of them the target takes.
    """

    elements: tuple[Array, ...]
    shared: tuple[Array, ...]
    due: Answer
    kept: Array


AskAll = Callable[[Task, Known, Takes, Ask, Effort], None]
"""Asks many arrays of known blocks."""


def led(task: Task, known: Known) -> Iterator[tuple[tuple[int, ...], Known]]:
    """Shapes, and their blocks in order: of negative numbers; with one NaN, or -0, that is first or last.

    The others are finite.
    """
    rows = known.elements[0][known.kept]
    rows = rows[np.isfinite(rows).all(axis=1)]
    ends = ((0, -np.nan), (0, -0.0), (-1, np.nan))
    for turn, lines in enumerate(LED * (1 + len(ends))):
        if not len(rows) or (shape := shape_of(task, lines)) is None:
            continue
        count = task.blocking(shape).count
        own = rows[np.random.default_rng((SALT, turn)).integers(0, len(rows), count)]
        if turn < len(LED):
            own = -np.where(own == 0, np.float32(1), np.abs(own))  # 1 is a number of every type
        else:
            place, number = ends[turn // len(LED) - 1]
            own[place, place] = number
        yield shape, Known((own,), (), question_of(task, (own,)).due, np.arange(count))


def constant(task: Task, known: Known) -> Iterator[tuple[tuple[int, ...], Known]]:
    """Shapes, and their blocks in order: each is of one number, or code; in some shapes all of the same."""
    rows, size = known.elements[0][known.kept], task.block.block
    for turn, lines in enumerate((*LED, *OF_ONE_NUMBER)):
        if not len(rows) or (shape := shape_of(task, lines)) is None:
            continue
        count, rng = task.blocking(shape).count, np.random.default_rng((SALT, turn, *lines))
        numbers = rng.choice(rows.reshape(-1), count if turn < len(LED) else 1)
        own = np.repeat(np.resize(numbers, count)[:, None], size, axis=1)
        at = rng.integers(0, len(rows), count)
        shared = tuple(part[known.kept][at] for part in known.shared)
        yield shape, Known((own,), shared, question_of(task, (own, *shared)).due, np.arange(count))


def in_tensor(task: Task, known: Known, shape: tuple[int, ...], order: Array) -> tuple[list[Array], Answer]:
    """The blocks of an order as a tensor of such a shape, with what is due to it."""
    blocking = task.blocking(shape)
    given = [blocking.elements(part[order]) for part in known.elements]
    given += [blocking.shared(part[order]) for part in known.shared]
    due = answers_at(known.due, order)
    if not isinstance(due, Fields):
        return given, blocking.elements(due)
    shared = [None if part is None else blocking.shared(part) for part in due[1:]]
    assert shared[0] is not None
    return given, Fields(blocking.elements(due.codes), shared[0], shared[1])


def orders(task: Task, kept: Array, seed: int) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Shapes whose axis is of whole blocks, and which of the blocks stand there: thousands in all."""
    for lines in (*((count,) for count in LINES), *TENSORS):
        if (found := shape_of(task, lines)) is not None:
            rng = np.random.default_rng((SALT, seed, *lines))
            yield found, kept[rng.integers(0, len(kept), task.blocking(found).count)]


def shape_of(task: Task, lines: tuple[int, ...], most: int = MOST) -> tuple[int, ...] | None:
    """The shape of so many lines of blocks, the last along the task's axis; None where there is none."""
    block = task.block.block
    size, rank = math.prod(lines) * block, len(lines)
    laid = rank < 2 and task.scale_layout is not None  # tiles have rows
    if not -rank <= task.axis < rank or size > most or laid:
        return None
    at = task.axis % rank
    return (*lines[:-1][:at], lines[-1] * block, *lines[:-1][at:])


def in_memory(x: Array, takes: Takes) -> Iterator[Array]:
    """The same numbers as they are, turned, with gaps, from other starts, and backward where it is taken.

    >>> from numerics.conform.takes import ANYTHING
    >>> len(list(in_memory(np.zeros((2, 3)), ANYTHING))), len(list(in_memory(np.zeros(3), ANYTHING)))
    (7, 6)
    """
    yield x
    for start in (1, 2):
        begun = np.zeros(x.size + start, x.dtype)[start:].reshape(x.shape)
        begun[...] = x
        yield begun
    if takes.contiguous or not x.ndim:
        return
    yield np.repeat(x, 2, axis=-1)[..., ::2]
    yield np.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 2)])[..., 1:-2]
    if x.ndim > 1:
        yield np.asfortranarray(x)
    if takes.backward:
        at = x.ndim // 2
        yield np.flip(np.ascontiguousarray(np.flip(x, at)), at)


def classes(known: Known) -> Iterator[Array]:
    """Which blocks are finite, of moderate magnitudes, of one sign, without zeros, without the largest code.

    Those of zeros for the most part, and those of numbers such as weights have, in an octave and less than 1.
    Of codes, by their scales: no NaN.  A shortcut for a whole tensor of such blocks meets no other.
    """
    rows = known.elements[0][known.kept]
    if known.shared:
        scale = known.shared[0][known.kept]
        yield known.kept[scale < scale.max()]
        return
    size, finite = np.abs(rows), np.isfinite(rows).all(axis=1)
    moderate = finite & (size <= MODERATE).all(axis=1) & (size.max(axis=1) >= 1 / MODERATE)
    plus = finite & ~np.signbit(rows).any(axis=1)
    found = [finite, moderate, plus, finite & (size > 0).all(axis=1)]
    if isinstance(known.due, Fields):
        codes = known.due.codes[known.kept]
        half = (int(codes.max(initial=0)) + 1) // 2 or 1
        found.append(moderate & (codes % half < half - 1).all(axis=1))
    found += [finite & (size < most).all(axis=1) & (size.max(axis=1) > 0) for most in (WEIGHTS, 1)]
    found.append(finite & ((rows == 0).mean(axis=1) > 1 / 2))
    yield from (known.kept[mask] for mask in found if mask.any())


def of_one_class(task: Task, known: Known, long: bool) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Shapes, and the blocks of one class that stand there; long: in a very long tensor, too."""
    for turn, kept in enumerate(classes(known)):
        very_long = ((max(1, LONG // 8 // task.block.block), 8),) * (long and turn == 1)
        for lines in (*OF_ONE_CLASS, *very_long):
            if (shape := shape_of(task, lines, LONG)) is not None:
                rng = np.random.default_rng((SALT, turn, *lines))
                yield shape, kept[rng.integers(0, len(kept), task.blocking(shape).count)]


def long_lines(task: Task, whole: bool, effort: Effort) -> Iterator[tuple[int, ...]]:
    """Shapes whose lines, the axes before the last, are as long as those of networks, and longer.

    whole: of whole blocks alone; otherwise the last block of each second shape is short.
    """
    size = task.block.block
    wide = [((3, 1, 2)[turn % 3], width) for turn, width in enumerate((*WIDTHS, *WIDEST))]
    found: list[tuple[int, ...]] = [*((width,) for width in (*WIDEST, *LONG_LINES)), *wide, (2, 2, WIDTHS[0])]
    found += [(*lines, n * size) for *lines, n in MANY if math.prod((*lines, n)) * size <= MOST_LONG]
    found += [PAST] * (effort.drawn > 0) + [HIGH] * (effort.name == "high")
    for turn, (*lines, length) in enumerate(found):
        if length < size:  # which the lines of other tensors are, too
            continue
        blocks, left = -(-length // size), turn % 2 * (1 + 7 * turn % max(1, size - 1))
        cut = 0 if whole or left >= size else left // task.fill_bytes * task.fill_bytes
        yield (*lines, blocks * size + cut)


def in_long_lines(task: Task, known: Known, takes: Takes, ask: Ask, effort: Effort) -> None:
    """Asks the blocks of before in these shapes, with what is due to them."""
    for *lines, length in long_lines(task, takes.whole_blocks, effort):
        if not _has_axis(task, 1 + len(lines)):
            continue
        at = task.axis % (1 + len(lines))
        ask(*_drawn(task, known, (*lines[:at], length, *lines[at:]), effort.seed))


def _has_axis(task: Task, rank: int) -> bool:
    """Do blocks lie along one of so many axes?  Those whose scales are in tiles need rows."""
    return -rank <= task.axis < rank and (rank > 1 or task.scale_layout is None)


def _drawn(task: Task, known: Known, shape: tuple[int, ...], seed: int) -> tuple[list[Array], Answer]:
    """Blocks that are drawn among the known ones as a tensor, and what is due to it, to short ones, too."""
    blocking = task.blocking(shape)
    rng = np.random.default_rng((SALT, seed, *shape))
    order = known.kept[rng.integers(0, len(known.kept), blocking.count)]
    return in_tensor(task, _cut(task, known, order, blocking), shape, np.arange(len(order)))


def laid(task: Task, known: Known, takes: Takes, ask: Ask, effort: Effort) -> None:
    """Asks the blocks of before in matrices that are turned, parts of wider ones, or of one row."""
    for lying in () if takes.contiguous else matrices.every():
        x = lying.room(known.elements[0].dtype)
        if not _has_axis(task, x.ndim):
            continue
        length = x.shape[task.axis]
        if length % task.multiple(takes.whole_blocks):
            continue
        (numbers, *others), due = _drawn(task, known, x.shape, effort.seed)
        x[...] = numbers
        for every in shapes.beside(x, *others):
            ask([*every], due)


def _cut(task: Task, known: Known, order: Array, blocking: Blocking) -> Known:
    """The blocks of an order, with what is due where the last one of each line is short."""
    elements = tuple(part[order] for part in known.elements)
    shared, due = tuple(part[order] for part in known.shared), answers_at(known.due, order)
    left = blocking.length % blocking.size
    if left and not known.shared:
        last = slice(blocking.per_line - 1, None, blocking.per_line)
        short = tuple(np.where(np.arange(blocking.size) < left, part[last], 0) for part in elements)
        fields = fields_of_rows(
            task, *(part.astype(one.dtype) for part, one in zip(short, elements, strict=True))
        )
        _put(due, last, fields if isinstance(due, Fields) else rounded_values(task, fields))
    return Known(elements, shared, due, known.kept)


def _put(due: Answer, at: slice, own: Answer) -> None:
    """Puts the answers to some rows in their places."""
    pairs = zip(due, own, strict=True) if isinstance(due, Fields) else [(due, own)]
    for whole, part in pairs:
        if whole is not None:
            whole[at] = part


def everything(task: Task, known: Known, takes: Takes, ask: Ask, effort: Effort) -> None:
    """Asks all of these; ask: is told what is given, and what is due."""
    for shape, order in orders(task, known.kept, effort.seed):
        given, due = in_tensor(task, known, shape, order)
        for x in in_memory(given[0], takes):
            for every in shapes.beside(x, *given[1:]):
                ask([*every], due)
    for shape, order in of_one_class(task, known, effort.drawn > 0):
        ask(*in_tensor(task, known, shape, order))
    for shape, own in () if task.draws else constant(task, known):
        ask(*in_tensor(task, own, shape, own.kept))
    if task.kind != "decode" and not task.draws:
        for shape, own in () if takes.finite else led(task, known):
            ask(*in_tensor(task, own, shape, own.kept))
