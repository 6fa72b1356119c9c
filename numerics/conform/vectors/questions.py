"""What a device is asked: the inputs that matter, random ones, all of them, and blocks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from numerics.conform.inputs import affine, random_bits
from numerics.conform.inputs.blocks import lone_maxima
from numerics.conform.inputs.blocks import probes as block_probes
from numerics.conform.inputs.close_calls import close_calls
from numerics.conform.inputs.drawn import NOTABLE, exponents_of, random_blocks, random_inputs
from numerics.conform.inputs.elements import SIGN, probes
from numerics.conform.inputs.strings import packed
from numerics.conform.laws.rows import fields_of_rows
from numerics.conform.scales import inputs as scales
from numerics.conform.task import Task
from numerics.conform.vectors.lines import Field, Words
from numerics.conform.vectors.operations import (
    STRING,
    AffineOperation,
    BlockOperation,
    ElementOperation,
    Fields,
    FoundOperation,
    Operation,
    StringOperation,
    every_code,
)
from numerics.conform.vectors.pairs import in_pairs, special_codes, special_numbers, special_rows
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
    """How many questions, and where they come from; random bits, 30 of each, where these matter.

    count, exhaustive: as in vectors.generate.  Raises NumericsError for all inputs of a block.
    """
    if isinstance(asked, BlockOperation):
        return _of_blocks(asked, count, exhaustive, rng)
    if isinstance(asked, FoundOperation):
        return _of_groups(asked, count, exhaustive, rng)
    if isinstance(asked, (AffineOperation, StringOperation)):
        if exhaustive:
            raise NumericsError(f"the questions of {asked} are too many; give a count")
        return _of_scales(asked, count, rng) if isinstance(asked, AffineOperation) else \
            _of_strings(asked, count, rng)  # fmt: skip
    assert isinstance(asked, ElementOperation)
    d, name = asked.dtype, asked.asked[0].name
    if asked.name == "decode" and count is not None:
        return count, lambda start, size: random_codes(asked.asked, size, rng)
    if asked.name == "decode" and not exhaustive:
        every = np.concatenate([every_code(d).astype(np.uint32), in_pairs(special_codes(d))])
        return _told({name: every[:, None]})
    if exhaustive:
        total = 1 << asked.asked[0].bits
        return total, lambda start, size: {name: _range(start, size)}
    if count is not None:
        return count, lambda start, size: {name: random_inputs(d, size, rng)[:, None]}
    every = inputs_that_matter(d, rng)
    every = np.concatenate([every, _mixed(d, every, rng), in_pairs(special_numbers(d))])
    return _told({name: every[:, None]} if not asked.draws else _drawn(d, every, rng))


def _told(every: Fields) -> tuple[int, Source]:
    """These questions, in their order."""
    total = len(next(iter(every.values())))
    return total, lambda start, size: {name: part[start : start + size] for name, part in every.items()}


def _drawn(dtype: Element, every: Words, rng: np.random.Generator) -> Fields:
    """These inputs with any random bits; then numbers at the threshold of their bits and beside it."""
    x, random = random_bits.elements(dtype)
    order = rng.permutation(len(x))
    inputs = np.concatenate([every, x.view(np.uint32)[order]])
    bits = np.concatenate([random_draws(every.shape, rng), random[order]])
    return {"input": inputs[:, None], "random": bits[:, None]}


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
    given = affine.scales_and_zero_points(d)
    rising = _joined([(affine.numbers(d, *pair), *pair) for pair in given])
    again = rng.permutation(len(rising["input"]))[:MIXED]
    last = _joined([(in_pairs(special_numbers(d)).view(np.float32), *given[0])])
    every = {name: np.concatenate([part, part[again], last[name]]) for name, part in rising.items()}
    return _told(every)


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


def _of_groups(
    asked: FoundOperation, count: int | None, exhaustive: bool, rng: np.random.Generator
) -> tuple[int, Source]:
    """Groups whose scale a device finds: those that decide it, then some by lot; count: random ones alone."""
    if exhaustive:
        raise NumericsError(f"the numbers of a group of {asked.size} are too many; give a count")
    rule, size = asked.rule, asked.size
    if count is not None:
        return count, lambda start, lines: {"input": scales.drawn_lines(rule, (lines, size), rng)}
    every = scales.lines(rule, size, rng)
    again = rng.permutation(len(every))[:MIXED]
    last = in_pairs(scales.due_lines(rule, special_rows(size)))
    return _told({"input": np.concatenate([every, every[again], last])})


def _range(start: int, size: int) -> Words:
    return np.arange(start, start + size, dtype=np.uint64).astype(np.uint32)[:, None]


def _of_blocks(
    asked: BlockOperation, count: int | None, exhaustive: bool, rng: np.random.Generator
) -> tuple[int, Source]:
    if exhaustive:
        raise NumericsError(f"the inputs of a {asked.dtype} block are too many; give a count")
    if count is None:
        return _told(_codes_that_matter(asked, rng) if asked.name == "decode" else _every_block(asked, rng))
    if asked.name == "decode":
        return count, lambda start, size: random_codes(asked.asked, size, rng)
    first = lone_maxima(asked.dtype).astype(np.float32).view(np.uint32)
    return count, lambda start, size: {"input": _blocks(asked, first[start : start + size], size, rng)}


# ---- blocks that are decoded -------------------------------------------------------------------------

AT_ENDS, TIMES = (
    4,
    8,
)  # shared fields next to all zeros and all ones, and how often each is asked with any codes


def _codes_that_matter(asked: BlockOperation, rng: np.random.Generator) -> Fields:
    """Every code in every place, and each bit pattern of what a block shares; then any bits.

    The codes lie under scales at which they are all different; the shared fields beside codes that are
    finite under them, and not 0.
    """
    code = next(f for f in asked.asked if f.name == "code")
    shared = [f for f in asked.asked if f.name != "code"]
    scales, shown = _that_tell(asked)
    special = _special(asked, int(scales[0]))
    columns = np.tile(_patterns(code)[:, None], (1, code.count))
    under = {"code": rng.permuted(columns, axis=0), "scale": rng.choice(scales, (len(columns), 1))}
    parts = [random_codes(asked.asked, len(columns), rng) | under]
    for f in shared:
        told = rng.permutation(_patterns(f))[:, None]
        given = random_codes(asked.asked, len(told), rng) | {"scale": rng.choice(scales, told.shape)}
        given[f.name] = told
        given["code"] = np.stack([rng.choice(shown[scale], code.count) for scale in given["scale"][:, 0]])
        parts.append(given)
        ends = np.concatenate([_patterns(f)[:AT_ENDS], _patterns(f)[-AT_ENDS:]])
        rows = np.tile(special[:, None], (1, code.count))
        told = np.concatenate([rng.permuted(rows, axis=0) for _ in ends])
        given = random_codes(asked.asked, len(told), rng) | {"code": told}
        parts.append(given | {f.name: np.repeat(ends, len(special))[:, None]})
        ends = np.repeat(ends, TIMES)[:, None]
        parts.append(random_codes(asked.asked, len(ends), rng) | {f.name: ends})
    parts.append(random_codes(asked.asked, BLOCKS, rng))
    parts.append(_special_blocks(asked, special, shown))
    return {f.name: np.concatenate([part[f.name] for part in parts]) for f in asked.asked}


def _special_blocks(asked: BlockOperation, special: Words, shown: dict[int, Words]) -> Fields:
    """Blocks at the ends of scales and at one that tells, of plain codes and of zeros, NaN, Inf and ends.

    Each behind each.
    """
    fields = {f.name: f for f in asked.asked}
    ends = _patterns(fields["scale"])[[0, 1, -2, -1]]
    tells = max(shown, key=lambda scale: len(shown[scale]))
    scales = np.unique([*ends.tolist(), tells]).astype(np.uint32)
    rows = [shown[tells], special[:1], special[-1:], special] if len(special) else [shown[tells]]
    codes = np.stack([np.resize(row, fields["code"].count) for row in rows])
    order = in_pairs(np.arange(len(scales) * len(rows)))
    found = {name: np.zeros((len(order), f.count), np.uint32) for name, f in fields.items()}
    return found | {"scale": scales[order // len(rows)][:, None], "code": codes[order % len(rows)]}


def _patterns(field: Field) -> Words:
    """All numbers of a field; of one of more than 8 bits those of which one bit differs from all others."""
    if field.bits <= 8:
        return np.arange(1 << field.bits, dtype=np.uint32)
    one, full = np.uint32(1) << np.arange(field.bits, dtype=np.uint32), np.uint32((1 << field.bits) - 1)
    return np.unique(np.concatenate([[np.uint32(0), full], one, full ^ one])).astype(np.uint32)


def _special(asked: BlockOperation, scale: int) -> Words:
    """The codes of zeros, NaN and Inf, and of the least and largest magnitudes."""
    fields = {f.name: f for f in asked.asked}
    codes = _patterns(fields["code"])
    given = {name: np.zeros((len(codes), f.count), np.uint32) for name, f in fields.items()}
    given["code"][:] = codes[:, None]
    given["scale"][:] = scale
    values: NDArray[np.float32] = np.abs(asked.due(given)["value"][:, 0].view(np.float32))
    plain = np.isfinite(values) & (values != 0)
    ends = np.isin(values, [values[plain].min(), values[plain].max()]) if plain.any() else plain
    found: Words = codes[~plain | ends]
    return found


def _that_tell(asked: BlockOperation) -> tuple[Words, dict[int, Words]]:
    """The scales under which most codes differ in their values; of each scale the codes that show it.

    These are finite and not 0; any where none is.
    """
    fields = {f.name: f for f in asked.asked}
    scales, codes = _patterns(fields["scale"]), _patterns(fields["code"])
    rows = -(-len(codes) // fields["code"].count)
    padded = np.resize(codes, rows * fields["code"].count).reshape(rows, -1)
    given = {name: np.zeros((len(scales) * rows, f.count), np.uint32) for name, f in fields.items()}
    given["code"] = np.tile(padded, (len(scales), 1))
    given["scale"] = np.repeat(scales, rows)[:, None]
    values = asked.due(given)["value"].reshape(len(scales), -1)[:, : len(codes)]
    different = (np.diff(np.sort(values, axis=1), axis=1) != 0).sum(axis=1)
    plain = values.view(np.float32)
    shown = np.isfinite(plain) & (plain != 0)
    shown[~shown.any(axis=1)] = True
    every = {int(scale): codes[told] for scale, told in zip(scales, shown, strict=True)}
    return scales[different == different.max()], every


# ---- blocks that are encoded -------------------------------------------------------------------------


def _every_block(asked: BlockOperation, rng: np.random.Generator) -> Fields:
    """Those that matter; of a device that draws, most random bits lie at the threshold of their number."""
    every = _blocks_that_matter(asked, rng)
    if not asked.draws:
        return {"input": every}
    d, x = asked.dtype, every.view(np.float32)
    task = Task.of(d, scale_rule=asked.scale_rule or "floor", tensor_scale=asked.tensor_scale)
    with np.errstate(all="ignore"):
        telling = random_bits.of_blocks(task, x, fields_of_rows(task, x))
    return {
        "input": every,
        "random": np.where(rng.random(x.shape) < 0.75, telling, random_draws(x.shape, rng)),
    }


def _blocks_that_matter(asked: BlockOperation, rng: np.random.Generator) -> Words:
    """Those on which kernels are checked (conform/inputs/blocks.py), and random ones."""
    first = lone_maxima(asked.dtype).astype(np.float32).view(np.uint32)
    matter = block_probes(asked.dtype, asked.tensor_scale).view(np.uint32)
    contested = close_calls(asked.dtype, asked.scale_rule or "floor", asked.tensor_scale).view(np.uint32)
    last = in_pairs(special_rows(asked.dtype.block))
    return np.concatenate([matter, contested, _blocks(asked, first[:BLOCKS], BLOCKS, rng), last])


def _blocks(asked: BlockOperation, first: Words, size: int, rng: np.random.Generator) -> Words:
    """These blocks, each by a power of two that the format has a scale for, and random ones."""
    others = random_blocks(asked.dtype, size - len(first), rng, asked.tensor_scale)
    low, high = exponents_of(asked.dtype, asked.tensor_scale)
    moved = rng.integers(max(low - 120, -110), max(min(high - 127, 110), -109), (len(first), 1))
    with np.errstate(all="ignore"):
        scaled = np.ldexp(first.view(np.float32), moved).astype(np.float32)
    return np.concatenate([scaled.view(np.uint32), others])
