"""What a device is asked: the inputs that matter, random ones, all of them, and blocks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from numerics.conform.inputs.blocks import lone_maxima
from numerics.conform.inputs.blocks import probes as block_probes
from numerics.conform.inputs.drawn import exponents_of, random_blocks, random_inputs
from numerics.conform.inputs.elements import probes
from numerics.conform.vectors.lines import Field, Words
from numerics.conform.vectors.operations import BlockOperation, ElementOperation, Fields, Operation
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError

BLOCKS = 512
"""Random blocks beside those that matter, when no count is given."""
RANDOM = 1024
"""Random inputs beside those that matter."""
EVERY = 1 << 32

DRAWS = (0, 1, (1 << 28) - 1, 1 << 28, (1 << 29) - 1, 1 << 29, 3 << 28, (1 << 30) - 1)
"""Random bits that decide where a fraction is a quarter, a half, three quarters, next to 0 or to 1."""


def inputs_that_matter(dtype: Element, rng: np.random.Generator) -> Words:
    """float32 bits: those on which kernels are checked (conform/inputs/elements.py), and some at random.

    >>> from numerics.formats import fp4
    >>> inputs_that_matter(fp4, np.random.default_rng(0))[:2].tolist()
    [0, 1]
    """
    return np.unique(np.concatenate([probes(dtype).view(np.uint32), random_inputs(dtype, RANDOM, rng)]))


def random_codes(fields: tuple[Field, ...], count: int, rng: np.random.Generator) -> Fields:
    """Any bits in each field."""
    return {f.name: rng.integers(0, 1 << f.bits, (count, f.count), dtype=np.uint32) for f in fields}


def random_draws(shape: tuple[int, ...], rng: np.random.Generator) -> Words:
    """30 random bits each; half of them those on which a tie hangs."""
    draws = rng.integers(0, 1 << 30, shape, dtype=np.uint32)
    made: Words = np.where(rng.random(shape) < 0.5, rng.choice(np.array(DRAWS, np.uint32), shape), draws)
    return made


Source = Callable[[int, int], Fields]
"""source(start, size): so many questions, the first of which is number `start`."""


def questions(
    asked: Operation, count: int | None, exhaustive: bool, rng: np.random.Generator
) -> tuple[int, Source]:
    """How many questions, and where they come from; but for the random bits.

    count, exhaustive: as in vectors.generate.  Raises NumericsError for all inputs of a block.
    """
    if isinstance(asked, BlockOperation):
        return _of_blocks(asked, count, exhaustive, rng)
    assert isinstance(asked, ElementOperation)
    d, name = asked.dtype, asked.asked[0].name
    if asked.name == "decode" and count is not None:
        return count, lambda start, size: random_codes(asked.asked, size, rng)
    if asked.name == "decode" or exhaustive:
        total = 1 << asked.asked[0].bits
        return total, lambda start, size: {name: _range(start, size)}
    if count is not None:
        return count, lambda start, size: {name: random_inputs(d, size, rng)[:, None]}
    every = inputs_that_matter(d, rng)[:, None]
    return len(every), lambda start, size: {name: every[start : start + size]}


def _range(start: int, size: int) -> Words:
    return np.arange(start, start + size, dtype=np.uint64).astype(np.uint32)[:, None]


def _of_blocks(
    asked: BlockOperation, count: int | None, exhaustive: bool, rng: np.random.Generator
) -> tuple[int, Source]:
    if exhaustive:
        raise NumericsError(f"the inputs of a {asked.dtype} block are too many; give a count")
    total = BLOCKS if count is None else count
    if asked.name == "decode":
        return total, lambda start, size: random_codes(asked.asked, size, rng)
    if count is None:
        every = _blocks_that_matter(asked, rng)
        return len(every), lambda start, size: {"input": every[start : start + size]}
    first = lone_maxima(asked.dtype).astype(np.float32).view(np.uint32)
    return total, lambda start, size: {"input": _blocks(asked, first[start : start + size], size, rng)}


def _blocks_that_matter(asked: BlockOperation, rng: np.random.Generator) -> Words:
    """Those on which kernels are checked (conform/inputs/blocks.py), and random ones."""
    first = lone_maxima(asked.dtype).astype(np.float32).view(np.uint32)
    matter = block_probes(asked.dtype, asked.tensor_scale).view(np.uint32)
    return np.concatenate([matter, _blocks(asked, first[:BLOCKS], BLOCKS, rng)])


def _blocks(asked: BlockOperation, first: Words, size: int, rng: np.random.Generator) -> Words:
    """These blocks, each by a power of two that the format has a scale for, and random ones."""
    others = random_blocks(asked.dtype, size - len(first), rng, asked.tensor_scale)
    low, high = exponents_of(asked.dtype, asked.tensor_scale)
    moved = rng.integers(max(low - 120, -110), max(min(high - 127, 110), -109), (len(first), 1))
    with np.errstate(all="ignore"):
        scaled = np.ldexp(first.view(np.float32), moved).astype(np.float32)
    return np.concatenate([scaled.view(np.uint32), others])
