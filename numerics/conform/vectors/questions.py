"""What a device is asked: the inputs that matter, random ones, all of them, and blocks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from numerics.conform.inputs import affine
from numerics.conform.inputs.blocks import lone_maxima
from numerics.conform.inputs.blocks import probes as block_probes
from numerics.conform.inputs.close_calls import close_calls
from numerics.conform.inputs.drawn import NOTABLE, exponents_of, random_blocks, random_inputs
from numerics.conform.inputs.elements import SIGN, probes
from numerics.conform.inputs.strings import packed
from numerics.conform.vectors.lines import Field, Words
from numerics.conform.vectors.operations import (
    STRING,
    AffineOperation,
    BlockOperation,
    ElementOperation,
    Fields,
    Operation,
    StringOperation,
)
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError

BLOCKS = 512
"""Random blocks beside those that matter, when no count is given."""
RANDOM = 1024
"""Random inputs beside those that matter."""
MIXED = 1 << 12
"""Lines after those in rising order, in an order drawn by lot: what a device keeps of a line shows."""
SPECIAL = 1 / 16
"""The part of them that are zeros, Inf, NaN or the ends of float32, each of which comes again and again."""
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
    if isinstance(asked, (AffineOperation, StringOperation)):
        if exhaustive:
            raise NumericsError(f"the questions of {asked} are too many; give a count")
        return _of_scales(asked, count, rng) if isinstance(asked, AffineOperation) else \
            _of_strings(asked, count, rng)  # fmt: skip
    assert isinstance(asked, ElementOperation)
    d, name = asked.dtype, asked.asked[0].name
    if asked.name == "decode" and count is not None:
        return count, lambda start, size: random_codes(asked.asked, size, rng)
    if asked.name == "decode" or exhaustive:
        total = 1 << asked.asked[0].bits
        return total, lambda start, size: {name: _range(start, size)}
    if count is not None:
        return count, lambda start, size: {name: random_inputs(d, size, rng)[:, None]}
    every = inputs_that_matter(d, rng)
    every = np.concatenate([every, _mixed(d, every, rng)])[:, None]
    return len(every), lambda start, size: {name: every[start : start + size]}


def _mixed(dtype: Element, every: Words, rng: np.random.Generator) -> Words:
    """Some of the inputs once more, random ones and specials, none of which is like the one before it."""
    half = MIXED // 2
    drawn = np.concatenate([rng.choice(every, half, replace=False), random_inputs(dtype, half, rng)])
    notable = np.array(NOTABLE, np.uint32)
    specials = rng.choice(np.concatenate([notable, notable | SIGN]), MIXED)
    return np.where(rng.random(MIXED) < SPECIAL, specials, rng.permutation(drawn))


RUN = 256  # random lines of one scale and zero point


def _of_scales(asked: AffineOperation, count: int | None, rng: np.random.Generator) -> tuple[int, Source]:
    """The scales, zero points and numbers on which kernels are checked, then some by lot; or random runs."""
    d = asked.dtype
    if count is not None:
        return count, lambda start, size: _joined(
            [affine.drawn(d, min(RUN, size - at), rng) for at in range(0, size, RUN)]
        )
    pairs = affine.scales_and_zero_points(d)
    rising = _joined([(affine.numbers(d, *pair), *pair) for pair in pairs])
    again = rng.permutation(len(rising["input"]))[:MIXED]
    every = {name: np.concatenate([part, part[again]]) for name, part in rising.items()}
    return len(every["input"]), lambda start, size: {
        name: part[start : start + size] for name, part in every.items()
    }


def _joined(parts: list[tuple[NDArray[np.float32], float, int]]) -> Fields:
    """Lines of numbers, each beside its scale and zero point."""
    sizes = [len(x) for x, _, _ in parts]
    words = {"input": np.concatenate([x for x, _, _ in parts]).view(np.uint32)}
    words["scale"] = np.repeat(np.array([scale for _, scale, _ in parts], np.float32), sizes).view(np.uint32)
    words["zero-point"] = np.repeat(np.array([zero for _, _, zero in parts], np.int32), sizes).view(np.uint32)
    return {name: part[:, None] for name, part in words.items()}


def _of_strings(asked: StringOperation, count: int | None, rng: np.random.Generator) -> tuple[int, Source]:
    """One bit in each place, all bits but one, and random codes; count: random ones alone."""
    bits = asked.dtype.bits
    one = np.uint32(1) << np.arange(bits, dtype=np.uint32)
    single = np.where(np.eye(STRING, dtype=np.bool_)[:, None], one[:, None], np.uint32(0)).reshape(-1, STRING)
    full = np.uint32((1 << bits) - 1)
    first = np.concatenate([single, full ^ single]) if count is None else single[:0]

    def strings(start: int, size: int) -> Fields:
        told = first[start : start + size]
        drawn = rng.integers(0, 1 << bits, (size - len(told), STRING), dtype=np.uint32)
        codes = np.concatenate([told, drawn])
        return {"code": codes} if asked.name == "pack" else {"byte": packed(codes, bits)}

    return len(first) + BLOCKS if count is None else count, strings


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
    contested = close_calls(asked.dtype, asked.scale_rule or "floor", asked.tensor_scale).view(np.uint32)
    return np.concatenate([matter, contested, _blocks(asked, first[:BLOCKS], BLOCKS, rng)])


def _blocks(asked: BlockOperation, first: Words, size: int, rng: np.random.Generator) -> Words:
    """These blocks, each by a power of two that the format has a scale for, and random ones."""
    others = random_blocks(asked.dtype, size - len(first), rng, asked.tensor_scale)
    low, high = exponents_of(asked.dtype, asked.tensor_scale)
    moved = rng.integers(max(low - 120, -110), max(min(high - 127, 110), -109), (len(first), 1))
    with np.errstate(all="ignore"):
        scaled = np.ldexp(first.view(np.float32), moved).astype(np.float32)
    return np.concatenate([scaled.view(np.uint32), others])
