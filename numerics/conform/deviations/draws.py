"""Deviations of stochastic kernels: they draw by another rule, or another number of bits, than they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

import numpy as np

from numerics.conform.deviations.deviation import Deviation, Kernel, Stage
from numerics.conform.deviations.table import Dialect
from numerics.conform.inputs.draws import ALL_RULES, Drawing
from numerics.conform.task import Answer, Array, Float32, Task
from numerics.formats.block import Block
from numerics.formats.rounding import RANDOM_BITS

WORD = 32  # random bits of a kernel that takes all of a uint32
USUAL = (8, 16, 24, 23, WORD, RANDOM_BITS)
"""Random bits that kernels take; tried before other numbers of them."""


def drawings(task: Task) -> Iterator[Dialect]:
    """Every other way in which a kernel may draw, the likeliest first: of a task that gives random bits.

    It may compare as many bits by another rule, take fewer of them, the lowest or the highest, or read what
    is given as an integer of more bits.

    >>> from numerics.formats import fp4
    >>> task = Task.of(fp4, rounding="stochastic", draw="a8")
    >>> print(*[f"{way.name}: {way}" for way in drawings(task)][:1])
    draws b8: Up, away from zero, when f * 2**8 + R + 1/2 >= 2**8 (f: the fraction of a step); \
draw="b8" (--draw b8) judges it
    """
    asked, every = task.drawing, range(1, WORD + 1)
    likely = dict.fromkeys((asked.bits, *USUAL, *every))
    for bits, rule in product(likely, _rules(task)):
        drawing = Drawing(rule, bits)
        if drawing != asked and (rule == "a" or bits < RANDOM_BITS):
            yield from _read(drawing, asked.bits)


def _rules(task: Task) -> tuple[str, ...]:
    return tuple(r for r in ALL_RULES if not (isinstance(task.dtype, Block) and Drawing(r).needs_numbers))


def _read(drawing: Drawing, given: int) -> Iterator[Dialect]:
    """A rule of fewer bits than are given, by the lowest and by the highest of them; else by all of them."""
    fewer = given - drawing.bits
    if fewer <= 0:
        yield _dialect(drawing, "", lambda random: random)
        return
    mask = np.uint32((1 << drawing.bits) - 1)
    yield _dialect(drawing, "lowest", lambda random: random & mask)
    yield _dialect(drawing, "highest", lambda random: random >> np.uint32(fewer))


def _dialect(drawing: Drawing, part: str, read: Callable[[Array], Array]) -> Dialect:
    """The kernel under another rule; part: which of the given bits it takes; "" for all."""

    def bend(first: Kernel) -> Kernel:
        def kernel(task: Task, x: Float32, random: Array) -> Answer:
            return first(replace(task, drawing=drawing), x, read(random))

        return kernel

    taken = f", R being the {part} {drawing.bits} bits" if part else ""
    advice = f'; draw="{drawing.spelling}" (--draw {drawing.spelling}) judges it' if drawing.is_asked else ""
    name = f"draws {drawing.spelling}{f' of the {part} bits' if part else ''}"
    return Dialect(name, f"{drawing.sentence.rstrip('.')}{taken}{advice}", _draws,
                   Deviation(Stage.OPTIONS, bend))  # fmt: skip


def _draws(task: Task) -> bool:
    return task.draws
