"""In which order products are asked, and of which shapes: a law that breaks early says most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import cast

import numpy as np

from numerics.conform.products.cases import draw
from numerics.conform.products.cases.aliasing import aliased
from numerics.conform.products.cases.batches import batched, past_tiles, problem_in, whole
from numerics.conform.products.cases.blending import Plain, blended
from numerics.conform.products.cases.corners import corners
from numerics.conform.products.cases.empty import empty, others
from numerics.conform.products.cases.ends import ends, named, single_ends
from numerics.conform.products.cases.ladders import ladders
from numerics.conform.products.cases.maker import Maker, Shape
from numerics.conform.products.cases.many_scales import many_scales
from numerics.conform.products.cases.not_finite import beside_zeros, last, no_scales, special
from numerics.conform.products.cases.overflows import overflow
from numerics.conform.products.cases.singles import alone, few
from numerics.conform.products.cases.subnormals import subnormal
from numerics.conform.products.cases.tile_ends import tile_ends, tile_ends_of_batches
from numerics.conform.products.cases.tiles import scattered, tiled, tiled_batches
from numerics.conform.products.claim import Claim
from numerics.conform.products.problem import VIA, Problem, meanings

SHAPES: tuple[Shape, ...] = (
    (1, 1, 1),
    (1, 3, 2),
    (1, 17, 33),
    (1, 64, 256),
    (2, 5, 31),
    (3, 8, 64),
    (4, 33, 65),
    (5, 96, 160),
    (7, 2, 127),
    (16, 16, 128),
    (17, 65, 96),
    (33, 7, 272),
    (64, 130, 48),
)
"""m, n, k: single rows, odd numbers, what is left over of 16, 32, 64 and 128."""
LENGTHS = range(1, 72)
"""Of short products: every remainder of lanes up to 64 wide, in rows, columns and terms."""
TILED = (*range(72, 200), 255, 256, 257, 383, 384, 385, 511, 513, 767, 769, 1023, 1025, 1536, 2047)
"""Rows, columns or terms of thin products: what second and later tiles leave over."""
LONG = (2051, 4099, 16391)  # terms of integer sums: more than float32 holds, more than int16 does
FAR: tuple[Shape, ...] = ((1, 3, 4352), (17, 1, 4352), (1, 3, 16640), (2, 1, 16640), (17, 2, 16640))
"""Long sums of single rows and columns, and of more rows than a tile has, which whole blocks fill."""
LARGE: tuple[Shape, ...] = (
    (24, 64, 64), (64, 24, 64), (128, 128, 128), (129, 130, 64), (257, 257, 17), (300, 130, 32),
    (1040, 130, 5), (130, 1040, 5), (40, 70, 1), (70, 40, 2),
)  # fmt: skip
"""Rows and columns past a tile at once, whole and not, of few terms; operands as long as they are wide."""
OF_ENDS: tuple[Shape, ...] = ((24, 40, 72),)
"""What is no number, subnormal or large, in more rows, columns and terms than small products have."""
MANY = 1024  # terms, of which few fit that have several bits
WHOLE: tuple[Shape, ...] = (
    (130, 3, 33), (3, 130, 33), (33, 34, 40), (17, 16, 272), (5, 2, 300), (6, 3, 264), (7, 2, 513),
    (8, 3, 271), (3, 7, 300), (2, 3, 1040),
)  # fmt: skip
"""Of numbers of all bits: more rows and columns than a tile has, and few of them beside many terms."""
COLUMNS: tuple[Shape, ...] = ((3, 1, 2), (17, 1, 33), (64, 1, 256), (130, 1, 5))
"""Of numbers of all bits in a single column: kernels have a path of their own for it, as for a single row."""
RESULTS: tuple[Shape, ...] = tuple((1, 1, k) for k in (1, 1, 1, 1, 1, 1, 2, 8, 40))
"""Of the same, single results."""
ALL_ENDS: tuple[Shape, ...] = ((1, 17, 33), (17, 1, 33), (1, 1, 1), (1, 1, 8), (17, 19, 40))
"""Of products of all bits that are subnormal, or about the largest number."""
PAST_INT32 = (2.2e9, 4.4e9)
"""Magnitudes that sums of the largest products reach: past 2**31 either way, and past 2**32."""
MOST_TERMS = 1 << 19  # by which they have to be reached
BLENDED: tuple[Shape, ...] = ((1, 1, 1), (4, 6, 24), (18, 36, 40), (1, 66, 96), (66, 6, 130))
"""Of products that are asked each alpha and beta: some with sizes that make batches."""
BITS = (4, 12, 24)  # of their sums, at most
ROOM = 4  # bits that an alpha, and a c beside the sum, take
SUMMED = 200  # terms, from which on single lengths are summed
SPLIT = (4099, 16391)  # of other sums: as many as kernels sum in parts


def problems(
    claim: Claim, seed: int = 0, shapes: tuple[tuple[int, ...], ...] | None = None, quick: bool = False
) -> Iterator[Problem]:
    """What a target is asked, in order: a law that breaks early says most about the fault.

    quick: without most ends of numbers in full tiles, and without more scales than 16 bits count.

    >>> found = [problem.law for problem in problems(Claim.of("float32", "mxfp4"))]
    >>> len(found) > 100, found[:3]
    (True, ['one_term', 'one_term', 'sums'])
    """
    return (problem.scattered() for problem in _problems(claim, seed, shapes, quick))


def _problems(
    claim: Claim, seed: int, shapes: tuple[tuple[int, ...], ...] | None, quick: bool
) -> Iterator[Problem]:
    """The same before the rows of large products are made of few ones."""
    maker = Maker(claim, np.random.default_rng(seed))
    usual = _in_batches(maker, shapes) if claim.laid.axes else _single(maker, shapes)
    usual = chain(usual, _last(maker, quick) if shapes is None and not claim.integers else ())
    if not claim.blends:
        yield from usual
        return
    other = Maker(claim, np.random.default_rng(seed))
    asked = (BLENDED if shapes is None else others(shapes) or ())[: len(BLENDED)]
    made = _plain(other, tuple(whole(claim, shape) for shape in asked))
    if claim.laid.axes:
        axes = claim.laid.axes
        made = made.within([(3, 2)[2 - axes :] if shapes is None else shape[:axes] for shape in asked])
    yield from blended(usual, made, other.rng)


def _last(maker: Maker, quick: bool) -> Iterator[Problem]:
    """What is asked where all else is right: ends of numbers in full tiles, and unless quick many scales."""
    if maker.claim.laid.axes:
        yield from tile_ends_of_batches(maker, quick)
        return
    yield from tile_ends(maker, quick)
    if not quick:
        yield from many_scales(maker)


def _plain(maker: Maker, shapes: tuple[Shape, ...]) -> Plain:
    """From what products of alpha and beta are made: sums of few bits, powers of two, and zeros."""
    room = maker.claim.accumulator.bits - ROOM
    if maker.claim.integers:
        few = tuple(maker.integers(shape) for shape in shapes)
        return Plain(few, (), tuple(replace(one, a=one.a.with_codes(maker.nothing(one.a))) for one in few))
    few = tuple(maker.sums(shape, bits=min(room, bits)) for bits in BITS for shape in shapes)
    powers, nothing = [], []
    for turn, shape in enumerate(shapes):
        sides = [draw.of_powers(op, rows, shape[2], maker.claim.splits, maker.rng)
                 for op, rows in ((maker.claim.a, shape[0]), (maker.claim.b, shape[1]))]  # fmt: skip
        kept = "ab".index(maker.few_side(turn))
        sides[kept] = maker.kept(sides[kept], turn, 1)
        powers.append(Problem(maker.claim, sides[0], sides[1]))
        zeros = [side.with_codes(maker.nothing(side)) for side in sides]
        nothing.append(Problem(maker.claim, zeros[0], zeros[1]))
    return Plain(few, tuple(powers), tuple(nothing))


def _single(maker: Maker, shapes: tuple[tuple[int, ...], ...] | None) -> Iterator[Problem]:
    """Products of single matrices: many shapes, each code, scale and end."""
    claim = maker.claim
    asked = SHAPES if shapes is None else cast("tuple[Shape, ...]", others(shapes))
    yield from _integers(maker, asked) if claim.integers else _shaped(maker, asked)
    yield from maker.pairs()
    if shapes is not None:
        yield from named(maker, asked)
    yield from empty(claim, maker.rng, shapes)
    if shapes is None:
        yield from _lengths(maker)
        yield from _large(maker, LARGE)
    if not claim.integers and shapes is None:
        for length in SPLIT:
            yield maker.long((2, 3, length))
            yield maker.sums((2, 3, length), window=0)
            yield maker.few((2, 3, length), "a", turn=-1)
        yield maker.few((2, 3, SPLIT[1]), "b", turn=SPLIT[1] // 2)
        for shape in FAR:
            yield maker.long(shape)
            yield maker.few(shape, "a", turn=-1)
            if 1 in shape:  # of all bits, since kernels have paths of their own for single rows and columns
                yield from maker.whole(shape, turn=-1)
        yield from _all_bits(maker)
        yield from _apart(maker)
        yield from _places(maker)
        yield from _ends(maker)
        yield from _corners(maker)
    if shapes is None:
        yield from aliased(claim, maker.rng)
        yield from tiled(maker)


def _in_batches(maker: Maker, shapes: tuple[tuple[int, ...], ...] | None) -> Iterator[Problem]:
    """The same of operands that come in batches: many shapes, then each code, scale and end."""
    claim = maker.claim

    def shaped(asked: tuple[Shape, ...]) -> Iterator[Problem]:
        return _integers(maker, asked, far=False) if claim.integers else _shaped(maker, asked)

    yield from batched(claim, shaped, others(shapes))
    if shapes is not None:
        yield from batched(claim, lambda asked: named(maker, asked), others(shapes))
    yield from empty(claim, maker.rng, shapes)
    if shapes is None:
        yield from batched(claim, lambda asked: _large(maker, asked), past_tiles(claim))
    more = [maker.pairs()]
    if not claim.integers and shapes is None:
        more += [maker.scale_ranges(), _ends(maker), _corners(maker)]
    for problem in chain(*more):
        yield problem_in(problem, (3,) * claim.laid.axes)
    if shapes is None:
        yield from aliased(claim, maker.rng)
        yield from tiled_batches(maker)


def _integers(maker: Maker, shapes: tuple[Shape, ...], far: bool = True) -> Iterator[Problem]:
    """far: long sums, too."""
    for turn, shape in enumerate(shapes):
        yield maker.integers(shape)
        yield maker.integers(shape, extreme=1 + turn % 2)
    for length in LONG if far else ():
        yield maker.integers((2, 3, length), extreme=3)
        yield maker.integers((1, 3, length))
    for shape in FAR if far else ():
        yield maker.integers(shape, extreme=3)
    if far:
        yield from _past_int32(maker)


def _past_int32(maker: Maker) -> Iterator[Problem]:
    """Sums that an int32 does not hold, which are due modulo 2**32; nothing where codes are too small."""
    largest = float(np.prod([np.abs(meanings(op)).max() for op in (maker.claim.a, maker.claim.b)]))
    for reached in PAST_INT32:
        length = int(reached / largest)
        if length <= MOST_TERMS:
            few = maker.integers((2, 3, length), extreme=4)
            yield few
            yield few.cut([0], [0])
            yield scattered(maker, (16, 17, length), few)


def _shaped(maker: Maker, shapes: tuple[Shape, ...]) -> Iterator[Problem]:
    for turn, shape in enumerate(shapes):
        yield maker.few(shape, "a", turn)
        yield maker.few(shape, "b", turn)
        yield maker.sums(shape, window=0)
        yield maker.sums(shape, window=2)
        yield maker.sums(shape, bits=12, law="output")
        yield from maker.whole(shape, turn)
        yield from _of_all_bits(maker, shape, turn)
        if shape[2] > MANY:
            yield maker.long(shape)
        if not maker.claim.splits and shape[2] > 1:
            yield maker.few(shape, "a", turn, terms=2)
            yield from maker.whole(shape, turn, terms=2)


def _of_all_bits(maker: Maker, shape: Shape, turn: int) -> Iterator[Problem]:
    """Products of factors with all their bits; where 16 bits come out, also sums of them."""
    yield from maker.products(shape, turn)
    if maker.claim.out in VIA and shape[2] <= MANY:
        yield maker.ordinary(shape)


def _large(maker: Maker, shapes: tuple[Shape, ...]) -> Iterator[Problem]:
    """Dense sums alone, in which every element counts, since of large results each question costs much."""
    for shape in shapes:
        if maker.claim.integers:
            yield maker.integers(shape, extreme=3 if shape[2] > MANY else 0)
            continue
        yield maker.sums(shape, window=0)
        if shape[2] > MANY:
            yield maker.long(shape)


def _apart(maker: Maker) -> Iterator[Problem]:
    """Long scales of codes on both sides: where zeros are sums of what is split off, one term is decided."""
    if maker.claim.splits and maker.claim.a.shifts and maker.claim.b.shifts:
        yield from maker.whole((17, 19, 1), turn=0)
        for k in {2 * (op.size or 32) + 1 for op in (maker.claim.a, maker.claim.b)}:
            yield from maker.groups(k)


def _lengths(maker: Maker) -> Iterator[Problem]:
    """Each number of terms, with another number of rows and of columns: what is left over at three ends."""
    for k in LENGTHS:
        shape = (1 + 3 * k % 17, 1 + 5 * k % 37, k)
        yield maker.integers(shape) if maker.claim.integers else maker.sums(shape, window=0)
        if maker.claim.integers:
            yield maker.integers((2, 2, k), extreme=4)
            continue
        yield from last(maker, shape, turn=2 * k)
        yield from last(maker, shape, turn=2 * k + 1)
    for size in TILED:
        few = 1 + size % 2
        for shape in ((size, few, 3 + size % 5), (few, size, 3 + size % 5)):
            yield maker.integers(shape) if maker.claim.integers else maker.sums(shape, window=0)
        if size > SUMMED and not maker.claim.integers:
            yield maker.sums((2, 3, size), window=0)  # of many bits: what parts of a sum are rounded to shows
        terms = (4, few, size)  # one in a row, in the last places
        if not maker.claim.integers:
            yield from last(
                maker, ((size, few, 3), (few, size, 3), terms)[size % 3], turn=size % 3 + size // 3 * 2
            )
        yield maker.integers(terms) if maker.claim.integers else maker.few(terms, "a", turn=-1)


def _all_bits(maker: Maker) -> Iterator[Problem]:
    """Numbers and scales of all their bits in larger products: a kernel may choose its precision by shape."""
    for turn, shape in enumerate(WHOLE):
        yield from maker.whole(shape, turn)
    for turn, shape in enumerate(COLUMNS + RESULTS):
        yield maker.few(shape, "a", turn)
        yield from maker.whole(shape, turn)
        yield from _of_all_bits(maker, shape, turn)
    for turn, shape in enumerate(ALL_ENDS):
        yield from maker.far_products(shape, turn)


def _places(maker: Maker) -> Iterator[Problem]:
    """One term in every place of k, of both sides; every scale."""
    for k in (96, 160):
        for turn in range(-(-k // 32)):
            yield maker.few((32, 9, k), "a", turn)
            yield maker.few((9, 32, k), "b", turn)
    yield from maker.scale_ranges()
    if maker.claim.a.power_scale and maker.claim.b.power_scale and maker.claim.a.size and maker.claim.b.size:
        for turn in range(8):
            found = maker.few((16, 16, 160), "ab"[turn % 2], turn, whole=True)
            yield replace(found, law="scale_range")


def _corners(maker: Maker) -> Iterator[Problem]:
    """Codes at the ends of their scales, in tiles, and a few of them alone."""
    for problem in corners(maker.claim, maker.rng):
        yield problem
        yield from islice(alone(few(problem)), 1, None)


def _ends(maker: Maker) -> Iterator[Problem]:
    """NaN and Inf, the subnormal numbers, the largest ones; the accumulator's bits."""
    for shape, times in (
        ((4, 6, 40), 5),
        ((16, 5, 64), 5),
        ((1, 33, 96), 5),
        ((33, 1, 64), 3),
        ((1, 1, 40), 6),
    ):
        for _ in range(times):
            yield special(maker, shape)
        for nothing in (False, True):
            for name in ("a", "b"):
                yield from beside_zeros(maker, shape, name, nothing)
        yield from no_scales(maker, shape)
    for shape in ((1, 5, 33), (4, 6, 64), (33, 1, 40), (1, 1, 24)):
        yield from subnormal(maker, shape)
    for shape in ((4, 13, 40), (1, 33, 17)) if maker.claim.bias else ():
        yield from maker.biases(shape)
    for problem in chain(single_ends(maker, 40), *(maker.negative(2 * size + 3) for size in maker.sizes)):
        yield from alone(problem)
    for shape in OF_ENDS:
        yield from ends(maker, shape)
    late = overflow(maker)
    if late is not None:
        yield from alone(late)
    for k in (3, 33, 64, 160):
        yield from ladders(maker, k)
