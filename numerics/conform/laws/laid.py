"""Arrays of every rank, size and layout, in twos: what each of two threads is given at the same time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from numerics.conform.inputs import shapes
from numerics.conform.laws.again import base
from numerics.conform.laws.block_layouts import Known, in_memory, in_tensor, shape_of
from numerics.conform.laws.questions import drawn_question, in_place
from numerics.conform.targets.target import Target
from numerics.conform.task import Array
from numerics.formats.block import Block

SALT = 79  # of the seed of an array, beside which of two it is
LINES = (1, 3, 8, 1500, 20_011, 40_009, 262_147)
"""Numbers of lines: fewer than a vector, about a thousand, more than 16 bits count, than caches hold."""
TENSORS = ((), (5, 9), (67, 69), (1, 5), (3, 4, 5), (9, 3, 66), (2, 3, 4, 5), (66, 67))
STARTS = (1, 2, 3)  # elements past a cache line at which an array begins
OTHERS = (1, 9, 300, 40_009)  # numbers of arrays that come with scales, and of strings of codes
FACTORS = ((15, 20), (3, 4, 25))
SHORTER = 7  # codes, at most, by which a string that is drawn is shorter than was asked
BLOCKS = ((1,), (2, 3), (33, 2), (2, 5, 2), (1, 700))
"""Lines, and how many blocks are in each."""
MOST = 1 << 19  # numbers of a tensor of blocks, at most

Case = tuple[Any, ...]


def cases(target: Target, turn: int) -> list[Case]:
    """What a target is given, as it lies: the same forms, in the same order, for each turn; other numbers.

    >>> from numerics.conform.task import Task
    >>> from numerics.formats import fp4
    >>> target = Target(lambda x: x, Task.of(fp4))
    >>> one, other = (cases(target, turn) for turn in range(2))
    >>> [a[0].strides for a in one] == [b[0].strides for b in other]
    True
    >>> any(x.strides == (-4,) for x, in one), any(x.ndim == 3 and not x.flags.c_contiguous for x, in one)
    (True, True)
    """
    task, rng = target.task, np.random.default_rng((SALT, turn))
    if isinstance(task.dtype, Block):
        return list(_of_blocks(target, rng))
    if task.kind in ("affine", "pack", "unpack") or task.rule is not None:
        return list(_of_questions(target, rng))
    return list(_of_elements(target, rng))


def _of_elements(target: Target, rng: np.random.Generator) -> Iterator[Case]:
    """Lines and tensors of numbers, or codes, of every kind; random bits lie as they do."""
    every = base(target, LINES[3])[0]
    for x in _elements(target, lambda *shape: rng.choice(every, shape)):
        yield from shapes.beside(x, *shapes.draws_of(target.task, x.shape))


def _elements(target: Target, filled: Any) -> Iterator[Array]:
    yield from (filled(length) for length in LINES)
    yield from (filled(99 + start)[start:] for start in STARTS)
    if target.takes.contiguous:
        return
    yield from (filled(*shape) for shape in TENSORS)
    yield filled(2 * LINES[3])[::2]
    yield filled(33)[::3]
    yield filled(*TENSORS[2]).T
    yield filled(67, 72)[:, :69]
    yield filled(5, 18)[:, ::2]
    yield filled(9, 66, 3).transpose(0, 2, 1)
    yield np.broadcast_to(filled(1, 69), (67, 69))
    yield filled(2, 5, 4, 3).transpose(0, 3, 1, 2)
    if target.takes.backward:
        yield filled(LINES[3])[::-1]
        yield filled(5, 9)[:, ::-1]


def _of_questions(target: Target, rng: np.random.Generator) -> Iterator[Case]:
    """Arrays with scales, codes or bytes that are drawn: of few numbers and of many, as they are and laid."""
    task = target.task
    strings = task.kind in ("pack", "unpack")
    for size in OTHERS:
        first, *others = in_place(task, drawn_question(target, size + SHORTER * strings, rng).inputs)
        forms = [first]
        if task.kind == "affine" and task.scheme is None and not target.takes.contiguous:
            forms += [first.reshape(shape) for shape in FACTORS if math.prod(shape) == size]
        for form in forms:
            yield from ((x, *others) for x in ([form] if strings else in_memory(form, target.takes)))


def _of_blocks(target: Target, rng: np.random.Generator) -> Iterator[Case]:
    """Tensors of blocks along the task's axis: whole ones, and short ones; their parts lie as they do."""
    task = target.task
    rows = base(target, LINES[3])
    elements, shared = (rows[:1], rows[1:]) if task.kind == "decode" else (rows, ())
    known = Known(elements, shared, rows[0], np.arange(len(rows[0])))
    for lines in BLOCKS:
        if (shape := shape_of(task, lines, MOST)) is None:
            continue
        count = math.prod(shape) // task.block.block
        given, _ = in_tensor(task, known, shape, rng.integers(0, len(rows[0]), count))
        for parts in (given, _cut(target, given)):
            for x in in_memory(parts[0], target.takes) if parts else ():
                yield from shapes.beside(x, *parts[1:])


def _cut(target: Target, given: list[Array]) -> list[Array]:
    """The same whose last blocks are short; nothing where the target takes none."""
    task = target.task
    past = task.block.block // 2 // task.fill_bytes * task.fill_bytes
    if target.takes.whole_blocks or not past or task.scale_layout is not None:
        return []
    along = [slice(None)] * given[0].ndim
    along[task.axis] = slice(None, -past)
    kept = len(given) if task.draws else 1
    return [np.ascontiguousarray(part[tuple(along)]) for part in given[:kept]] + given[kept:]
