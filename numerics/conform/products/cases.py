"""The products that are asked, and the law that each is judged by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, combinations, islice
from math import lcm
from typing import Any, cast

import numpy as np

from numerics.conform.products import draw
from numerics.conform.products.aliasing import aliased
from numerics.conform.products.batches import batched, past_tiles, problem_in, whole
from numerics.conform.products.blending import Plain, blended
from numerics.conform.products.certificate import NONE, bounds, sums
from numerics.conform.products.claim import Claim, Operand
from numerics.conform.products.corners import corners
from numerics.conform.products.draw import Integers
from numerics.conform.products.empty import empty, others
from numerics.conform.products.fitting import Fitting
from numerics.conform.products.given import original_of
from numerics.conform.products.many_scales import many_scales
from numerics.conform.products.problem import SMALLEST, TOP, VIA, Problem, Side, meanings, table
from numerics.conform.products.shrink import with_side
from numerics.conform.products.singles import alone, covering, few
from numerics.conform.products.tile_ends import tile_ends, tile_ends_of_batches
from numerics.conform.products.tiles import tiled, tiled_batches
from numerics.conform.task import Array

Shape = tuple[int, int, int]

TERMS_PAST = ((2, 127, 1), (2, 127, -1), (3, 127, 1), (5, 127, -1), (40, 123, 1), (40, 127, -1))
"""Of sums past float32: how many terms, the exponent of each, their sign."""
FEWEST_PAST = 2
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
BLENDED: tuple[Shape, ...] = ((1, 1, 1), (4, 6, 24), (18, 36, 40), (1, 66, 96), (66, 6, 130))
"""Of products that are asked each alpha and beta: some with sizes that make batches."""
BITS = (4, 12, 24)  # of their sums, at most
ROOM = 4  # bits that an alpha, and a c beside the sum, take
SUMMED = 200  # terms, from which on single lengths are summed
SPLIT = (4099, 16391)  # of other sums: as many as kernels sum in parts
BYTES = (0, 1, 32, 64, 127, 190, 222, 253, 254)
SINGLE = 24  # bits of a float32 number
WIDE = 40  # exponents of two elements together, so that scales may answer them
FEW = 64  # terms of integers of 8 bits that fit, whose codes and zero points may be split
SHORT = 12  # bits of codes in sums of many terms
LARGE_SUMS = (
    (256, 0, 0),
    (448, 56, 7),
    (448, 60, 2),
    (448, 60, 1),
    (-448, -56, -7),
    (384, 120, 0),
    (64, 60, 3),
    (127, 127, 127),
)


@dataclass
class Maker:
    """Makes the problems of a claim from a stream of random numbers."""

    claim: Claim
    rng: np.random.Generator

    # ---- one term, two terms -------------------------------------------------------------------

    def few(self, shape: Shape, side: str, turn: int, terms: int = 1, whole: bool = False) -> Problem:
        """All codes and scales, but each row of one side has so many terms, whose place moves through k.

        whole: scales of both sides go through their whole range, one answering the other.
        """
        m, n, k = shape
        centres = self._centres(k, turn, whole)
        a, b = (
            self._full(op, rows, centre)
            for op, rows, centre in ((self.claim.a, m, centres[0]), (self.claim.b, n, centres[1]))
        )
        if terms > 1:
            a, b = self._powers(a), self._powers(b)
        kept = a if side == "a" else b
        kept = self._kept(kept, turn, terms)
        a, b = (kept, b) if side == "a" else (a, kept)
        return Problem(self.claim, a, b, law="one_term" if terms == 1 else "two_terms")

    def whole(self, shape: Shape, turn: int, terms: int = 1) -> Iterator[Problem]:
        """Numbers, or scales, of all the bits that their type holds, times powers of two: products are exact.

        Each row of one side has so many terms.  An accumulator of more bits has more of the other side, too.
        """
        m, n, k = shape
        bits = self.claim.accumulator.bits
        ops = {"a": self.claim.a, "b": self.claim.b}
        for place, (name, part) in enumerate((x, y) for x, op in ops.items() for y in draw.long_parts(op)):
            if terms > 1 and part != "codes":
                continue
            sides = {
                x: draw.of_powers(op, rows, k, self.claim.splits, self.rng)
                for (x, op), rows in zip(ops.items(), (m, n), strict=True)
            }
            sides[name] = draw.with_long(sides[name], part, bits, self.rng)
            other = "b" if name == "a" else "a"
            if ops[other].is_value and bits > SINGLE:
                sides[other] = draw.with_long(sides[other], "codes", bits - SINGLE, self.rng)
            few = self._few_side((turn + place) % 2)
            sides[few] = self._kept(sides[few], turn, terms)
            yield Problem(self.claim, sides["a"], sides["b"], law="one_term" if terms == 1 else "two_terms")

    def products(self, shape: Shape, turn: int, goal: int = 0) -> Iterator[Problem]:
        """One term a row, of two factors with all their bits: what a float32 product is rounded to shows.

        Of results of 16 bits all factors have them: what one of them is rounded to before shows.
        goal: products of plain numbers are ordinary (0), subnormal (1), or about the largest number (2).
        """
        m, n, k = shape
        ops = {"a": self.claim.a, "b": self.claim.b}
        parts = [(name, part) for name, op in ops.items() for part in ("codes", *draw.long_parts(op))]
        parts = list(dict.fromkeys(parts))
        chosen: list[Any] = [] if self.claim.splits else [
            two for two in combinations(parts, 2)
            if sum(draw.bits_of(ops[name], part) for name, part in two) > self.claim.accumulator.bits
        ]  # fmt: skip
        if self.claim.out in VIA and parts not in chosen:
            chosen.append(parts)
        for place, long in enumerate(chosen):
            sides = {
                x: draw.of_powers(op, rows, k, self.claim.splits, self.rng)
                for (x, op), rows in zip(ops.items(), (m, n), strict=True)
            }
            for name, part in long:
                sides[name] = draw.with_long(sides[name], part, SINGLE, self.rng)
            if all(op.is_value for op in ops.values()):
                sides = self._in_range(sides, goal)
            kept = self._few_side(turn + place)
            sides[kept] = self._kept(sides[kept], turn, 1)
            yield Problem(self.claim, sides["a"], sides["b"], law="one_term")

    def far_products(self, shape: Shape, turn: int = 0) -> Iterator[Problem]:
        """The same of plain numbers whose products are subnormal, and of those about the largest number."""
        if self.claim.a.is_value and self.claim.b.is_value:
            for goal in (1, 2):
                yield from self.products(shape, turn, goal)

    def _in_range(self, sides: dict[str, Side], goal: int) -> dict[str, Side]:
        """Two sides whose products are ordinary, subnormal or about the largest number."""
        least, top = (int(np.frexp(x)[1]) for x in (SMALLEST[self.claim.out], TOP[self.claim.out]))
        exponent = (0, least - 4, top - 2)[goal]
        first = int(np.clip(exponent // 2, *draw.room_of(sides["a"].op)))
        other = int(np.clip(exponent - first, *draw.room_of(sides["b"].op)))
        return {"a": _moved(sides["a"], first), "b": _moved(sides["b"], other)}

    def ordinary(self, shape: Shape) -> Problem:
        """Dense rows of numbers, codes and scales of all bits: most results of 16 bits are decided."""
        m, n, k = shape
        sides = [
            draw.anything(op, rows, np.zeros(k, np.int64), SINGLE, self.rng)
            for op, rows in ((self.claim.a, m), (self.claim.b, n))
        ]
        return Problem(self.claim, sides[0], sides[1], law="output")

    def _few_side(self, turn: int) -> str:
        """Which side has the zeros: one whose zeros add nothing, where zero points are split off."""
        free = [
            x for x, op in (("a", self.claim.a), ("b", self.claim.b)) if not (self.claim.splits and op.shifts)
        ]
        return (free or ["a", "b"])[turn % len(free or "ab")]

    def _full(self, op: Operand, rows: int, centre: Integers) -> Side:
        room = draw.loose_bits(self.claim)
        if draw.is_loose(self.claim.a) and draw.is_loose(self.claim.b):
            first = int(self.rng.integers(1, max(room, 2)))
            room = first if op is self.claim.a else max(room - first, 1)
            room = min(room, max(draw.loose_bits(self.claim) // 2, 1))
        return draw.anything(op, rows, centre, max(room, 1), self.rng)

    def _centres(self, k: int, turn: int, whole: bool) -> tuple[Integers, Integers]:
        a, b, rng = self.claim.a, self.claim.b, self.rng
        zeros = np.zeros(k, np.int64)
        if not (a.power_scale and b.power_scale and a.size and b.size):
            return zeros, zeros
        step = lcm(a.size, b.size)
        block = np.arange(k) // step
        span = 127 if whole else 30
        drawn = rng.integers(-span, span + 1, int(block[-1]) + 1)
        if whole:
            drawn = np.clip(
                (np.arange(len(drawn)) * 37 + turn * 61 + rng.integers(0, 8)) % 255 - 127, -120, 120
            )
        return drawn[block], -drawn[block]

    def _powers(self, side: Side) -> Side:
        """Scales that are powers of two: another may be applied to the sum, which is another rounding."""
        if side.scale is None or side.op.power_scale:
            return side
        if side.op.scale is None:
            return replace(side, scale=np.ldexp(0.5, np.frexp(side.scale)[1]).astype(np.float32))
        exponent = np.frexp(table(side.op.scale)[side.scale])[1] - 1
        return replace(side, scale=draw.power_codes(side.op, exponent))

    def _kept(self, side: Side, turn: int, terms: int) -> Side:
        """A side whose rows have so many elements that are no zeros, or not their zero points."""
        rows, length = side.codes.shape
        codes = self._nothing(side)
        for row in range(rows):
            others = self.rng.choice(length, min(terms, length) - 1, replace=False)
            places = [(row + turn * rows) % length, *others]
            codes[row, places] = side.codes[row, places]
        return side.with_codes(codes)

    def _nothing(self, side: Side) -> Array:
        if side.zero is None:
            return draw.blank(side.op, len(side.codes), side.codes.shape[1], self.rng)
        return side.factors.zero.astype(np.int64) & ((1 << side.op.bits) - 1)

    # ---- sums ----------------------------------------------------------------------------------

    def sums(self, shape: Shape, window: int = 1, bits: int | None = None, law: str = "sums") -> Problem:
        """Dense rows: exponents of a and b add up to the same at every k, whatever rows shift by.

        bits: how many the sums may take; elements are zeros until they fit.
        """
        m, n, k = shape
        a, b = self.claim.a, self.claim.b
        element, shift = self._ties(k)
        small = 1 if _coarse(a) or _coarse(b) else 3
        sides = []
        for op, rows, place in ((a, m, 0), (b, n, 1)):
            per_row = self.rng.integers(-small, small + 1, rows)
            own = shift[place][:: op.size][None] if op.size else np.zeros((1, 1), np.int64)
            exponents = np.broadcast_to(own, op.shared(rows, k))
            if len(exponents) == rows:
                exponents = exponents + per_row[:, None]
            codes = draw.of_exponents(op, element[place] + shift[place] * op.is_value, rows, window, self.rng)
            side = draw.finish(op, codes, draw.scales(op, exponents, self.rng), self.rng)
            coarse = self._of_integers and self.claim.splits and not window
            sides.append(draw.coarse(side) if coarse and k > FEW else side)
        found = Problem(self.claim, sides[0], sides[1], self._bias(n), law)
        return self.fitted(found, bits)

    def long(self, shape: Shape) -> Problem:
        """Dense rows of many terms: plain numbers and scales are powers of two, so that all terms fit."""
        m, n, k = shape
        element, shift = self._ties(k)
        sides = []
        for op, rows, place in ((self.claim.a, m, 0), (self.claim.b, n, 1)):
            own = shift[place][:: op.size][None] if op.size else np.zeros((1, 1), np.int64)
            exponents = np.broadcast_to(own, op.shared(rows, k))
            if len(exponents) == rows:
                exponents = exponents + self.rng.integers(-1, 2, (rows, 1))
            if op.is_value:
                codes = np.ldexp(self.rng.choice([-1.0, 1.0], (rows, k)), shift[place]).astype(np.float32)
            else:
                codes = draw.of_exponents(op, element[place], rows, 0, self.rng)
                codes = draw.short(op, codes, SHORT, self.rng)
            side = draw.finish(op, codes, draw.scales(op, exponents, self.rng, plain=True), self.rng)
            sides.append(draw.coarse(side) if self._of_integers else side)
        return self.fitted(Problem(self.claim, sides[0], sides[1], self._bias(n), "sums"))

    def biases(self, shape: Shape) -> Iterator[Problem]:
        """A bias of all the bits of its type: beside zeros, also what is no number, and beside sums."""
        kind, room = original_of(self.claim), self.claim.accumulator.bits
        found = self.sums(shape, bits=room // 2, law="bias")
        columns, bits = shape[1], min(draw.SIGNIFICAND[kind], room - 2)
        long = draw.significands((columns,), draw.SIGNIFICAND[kind], self.rng)
        long *= self.rng.choice([-1.0, 1.0], columns)
        alone = np.ldexp(long, self.rng.integers(-6, 7, columns)).astype(np.float32)
        least, most = draw.EXPONENTS[kind]
        ends = (np.nan, np.inf, -np.inf, 2.0**least, -3 * 2.0**least, 1.5 * 2.0**most)
        alone[: len(ends)] = ends[:columns]
        yield replace(found, a=found.a.with_codes(self._nothing(found.a)), bias=alone)
        lowest = sums(bounds(found.a, self.claim), bounds(found.b, self.claim)).lowest.min(axis=0)
        last = np.where(lowest == NONE, 0, lowest)
        long = draw.significands((columns,), bits, self.rng) * self.rng.choice([-1.0, 1.0], columns)
        beside = np.ldexp(long, last + bits - 1)
        held = (last >= least) & (last + bits <= most)
        yield replace(found, bias=np.where(held, beside, 0.0).astype(np.float32))

    @property
    def sizes(self) -> set[int]:
        """How many neighbours share a scale, on sides where not all of a row do."""
        return {op.size for op in (self.claim.a, self.claim.b) if op.size}

    @property
    def _of_integers(self) -> bool:
        """Are both sides codes of integers, whose products take most of an accumulator's bits?"""
        return self.claim.a.is_integer and self.claim.b.is_integer

    def groups(self, k: int) -> Iterator[Problem]:
        """Codes that are half of their range, at scales of as many bits as sums of k terms leave.

        Where codes of both sides may be shifted to unsigned ones, a zero adds as much as any other code.
        """
        ops = {"a": self.claim.a, "b": self.claim.b}
        bits = self.claim.accumulator.bits - 2 - int(np.ceil(np.log2(k)))
        for name, op in ops.items():
            if not draw.is_loose(op) or bits < 2:
                continue
            sides = {
                x: replace(
                    draw.of_powers(y, rows, k, True, self.rng), scale=np.ones(y.shared(rows, k), np.float32)
                )
                for (x, y), rows in zip(ops.items(), (5, 7), strict=True)
            }
            sides[name] = draw.with_long(sides[name], "scale", bits, self.rng)
            yield Problem(self.claim, sides["a"], sides["b"], law="sums")

    def _bias(self, n: int) -> Array | None:
        if not self.claim.bias:
            return None
        return self.rng.integers(-8, 9, n).astype(np.float32)

    def _ties(self, k: int) -> tuple[tuple[Integers, Integers], tuple[Integers, Integers]]:
        """Exponents of elements, and of scales, [k] of both sides: all four add up to the same at every k."""
        a, b, rng = self.claim.a, self.claim.b, self.rng
        step = lcm(a.size or 1, b.size or 1) if (a.size or b.size) else k
        block = np.arange(k) // step
        blocks = int(block[-1]) + 1
        ranges = draw.op_range(a), draw.op_range(b)
        low, high = (sum(r[i] for r in ranges) for i in (0, -1))
        low, high = max(low, min(-WIDE, high)), min(high, max(WIDE, low))
        if "float16" in (a.name, b.name):  # which answers the other side's elements: no farther than it goes
            first_one, last_one = draw.EXPONENTS["float16"]
            low, high = max(low, self._spread() - last_one), min(high, -first_one - self._spread())
        free = [op.is_value or op.size > 0 for op in (a, b)]
        odd = _odd_bits(np.arange(blocks)) ^ int(rng.integers(2))
        both = low + _unlike(np.full(blocks, rng.integers(2)) if all(free) else odd, high - low, rng)
        first = np.zeros(blocks, np.int64)
        if all(free):
            spread = self._spread()
            first = _unlike(odd, 2 * spread, rng) - spread
        elif free[0]:
            first = -both
        second = -both - first if free[1] else np.zeros(blocks, np.int64)
        if self._of_integers and any(free) and not all(free):  # nothing answers one side's scales
            moved = _unlike(odd, 3, rng)
            first, second = first + moved * free[0], second + moved * free[1]
        total = both[block]
        least = np.maximum(ranges[0][0], total - ranges[1][-1])
        most = np.minimum(ranges[0][-1], total - ranges[1][0])
        mine = np.minimum(least + (rng.random(k) * (most - least + 1)).astype(np.int64), most)
        return (mine, total - mine), (first[block], second[block])

    def _spread(self) -> int:
        sides = (self.claim.a, self.claim.b)
        if any(_coarse(op) for op in sides):
            return 4
        kinds = [str(op.name if op.spec is None else op.spec.scale_type) for op in sides]
        return min(draw.SPREAD.get(kind, 20) for kind in kinds)

    def fitted(self, found: Problem, bits: int | None = None) -> Problem:
        """The same with zeros in place of those elements of a that make some sum too long."""
        claim = found.claim if bits is None else found.claim.accumulating(bits)
        if found.claim.integers or found.a.zero is not None:
            return found
        m, n, k = found.shape
        start = None if found.bias is None else found.bias.astype(np.float64)
        order = np.array([k - 1, *self.rng.permutation(k - 1)])  # the last one counts, whatever else fits
        fitting = Fitting.of(claim.accumulator, m, start, n)
        kept = fitting.kept(bounds(found.a, claim), bounds(found.b, claim), order)
        codes = np.where(kept, found.a.codes, draw.blank(found.a.op, m, k, self.rng))
        return replace(found, a=found.a.with_codes(codes))

    # ---- every code, every scale -----------------------------------------------------------------

    def pairs(self, k: int = 40) -> Iterator[Problem]:
        """Every code of a (some of 16 bits) times every code of b, one term a row."""
        a, b = self.claim.a, self.claim.b
        if a.zero or max(a.bits, b.bits) > 8:
            return
        codes = [_telling(op) for op in (a, b)]
        left = draw.unit(a, len(codes[0]), k, self.rng)
        left.codes[np.arange(len(codes[0])), np.arange(len(codes[0])) * 7 % k] = codes[0]
        right = draw.unit(b, len(codes[1]), k, self.rng)
        right.codes[:] = codes[1][:, None]
        yield Problem(self.claim, left, right, law="integers" if self.claim.integers else "pairs")

    def scale_ranges(self, k: int = 40) -> Iterator[Problem]:
        """Every byte of a scale that is a power of two, beside some of the other side's; one term a row."""
        a, b = self.claim.a, self.claim.b
        bytes_ = [np.arange(255) if op.size and op.power_scale else np.zeros(1, int) for op in (a, b)]
        few = [np.array(BYTES) if len(found) > 1 else found for found in bytes_]
        for x, y in ((bytes_[0], few[1]), (few[0], bytes_[1])):
            if max(len(x), len(y)) > 1:
                left, right = draw.unit(a, len(x), k, self.rng), draw.unit(b, len(y), k, self.rng)
                left.codes[np.arange(len(x)), np.arange(len(x)) * 11 % k] = draw.one(a)
                right.codes[:] = draw.one(b)
                sides = [
                    replace(s, scale=draw.powers(s.scale, np.repeat(v[:, None], s.scale.shape[1], 1) - 127))
                    if len(v) > 1 and s.scale is not None
                    else s
                    for s, v in ((left, x), (right, y))
                ]
                yield Problem(self.claim, sides[0], sides[1], law="scale_range")

    def negative(self, k: int) -> Iterator[Problem]:
        """Sums under scales of a float type, of each side, some of which are negative."""
        for name in ("a", "b"):
            op: Operand = getattr(self.claim, name)
            if op.share == "none" or op.power_scale or op.scale is not None:
                continue
            found = self.sums((5, 7, k), window=0, law="scale_range")
            side: Side = getattr(found, name)
            assert side.scale is not None
            signs = self.rng.choice(np.array([-1, 1], np.float32), side.scale.shape)
            signs[0, 0] = -1
            yield with_side(found, name, replace(side, scale=side.scale * signs))

    # ---- what is no number, what is tiny, what is large --------------------------------------------

    def special(self, shape: Shape) -> Problem:
        """NaN and Inf in some rows' codes, numbers and scales, also beside zeros of the other side."""
        found = self.sums(shape, bits=min(16, self.claim.accumulator.bits), law="special")
        for name, other in (("a", "b"), ("b", "a")):
            side, beside = getattr(found, name), getattr(found, other)
            rows = len(side.codes)
            chosen = (
                self.rng.permutation(rows)[: max(1, rows // 3)]
                if rows > 1
                else range(int(self.rng.integers(2)))
            )
            for row in chosen:
                side, beside = self._spoiled(side, beside, int(row))
            found = replace(found, **{name: side, other: beside})
        return self._with_zeros(found)

    def _with_zeros(self, found: Problem) -> Problem:
        """The same with a row of zeros in each side that has some, all of whose numbers were finite."""
        for name in ("a", "b"):
            side: Side = getattr(found, name)
            held = np.flatnonzero(np.isfinite(side.values).all(axis=1))
            if side.zero is None and len(held) > 1:
                codes = side.codes.copy()
                codes[held[-1]] = draw.blank(side.op, 1, codes.shape[1], self.rng)[0]
                found = with_side(found, name, side.with_codes(codes))
        return found

    def beside_zeros(self, shape: Shape, name: str, nothing: bool) -> Iterator[Problem]:
        """NaN and Inf in every third row of one side; rows of the other are zeros, or one number and zeros.

        nothing: all of its rows are zeros.  0 times NaN or Inf is NaN, also to a kernel that skips zeros.
        """
        found = self.sums(shape, bits=min(16, self.claim.accumulator.bits), law="special")
        other = "b" if name == "a" else "a"
        side, beside = getattr(found, name), getattr(found, other)
        if beside.zero is not None:
            return
        rows = range(0, len(side.codes), 3)
        if kinds := _not_finite(side.op):
            codes = side.codes.copy()
            for turn, row in enumerate(rows):
                codes[row, (5 * turn + row) % shape[2]] = kinds[turn % len(kinds)]
            side = side.with_codes(codes)
        elif (spoiler := _nan_scale(side.op)) is not None:
            scale = side.scale.copy()
            for row in rows:
                scale[row, row % scale.shape[1]] = spoiler
            side = replace(side, scale=scale)
        else:
            return
        zeros, codes = self._nothing(beside), beside.codes.copy()
        codes[::2] = zeros[::2]
        codes[1::4, 1:] = zeros[1::4, 1:]
        yield replace(found, **{name: side, other: beside.with_codes(zeros if nothing else codes)})

    def last(self, shape: Shape, turn: int) -> Iterator[Problem]:
        """NaN and Inf in the last place of some rows of a side, the last one too, no zeros beside them."""
        found = self.sums(shape, bits=min(16, self.claim.accumulator.bits), law="special")
        sides = {"a": found.a, "b": found.b}
        name, other = ("a", "b") if turn % 2 == 0 else ("b", "a")
        kinds = _not_finite(sides[name].op)
        if not len(kinds):
            return
        side, beside = sides[name].codes.copy(), sides[other].codes.copy()
        for row in range(min(len(side), len(kinds))):  # the last one, then the first ones
            side[row - 1, -1] = _nan_of(sides[name].op, kinds[(turn // 2 + row) % len(kinds)], turn + row)
        if sides[other].zero is None:
            beside[sides[other].values[:, -1] == 0, -1] = draw.one(sides[other].op)
        sides = {name: sides[name].with_codes(side), other: sides[other].with_codes(beside)}
        yield replace(found, a=sides["a"], b=sides["b"])

    def _spoiled(self, side: Side, beside: Side, row: int) -> tuple[Side, Side]:
        k = int(self.rng.integers(side.codes.shape[1]))
        kinds = _not_finite(side.op)
        spoiler = _nan_scale(side.op)
        if spoiler is not None and self.rng.random() < 1 / (1 + len(kinds)) + 0.2:
            return self._with_scale(side, beside, (row, k // side.op.size), spoiler)
        if not kinds:
            return side, beside
        codes, others = side.codes.copy(), beside.codes.copy()
        codes[row, k] = _nan_of(side.op, kinds[int(self.rng.integers(len(kinds)))], row + k)
        if beside.zero is None and self.rng.random() < 0.5:
            others[int(self.rng.integers(len(others))), k] = draw.zero_codes(beside.op)[0]
        return side.with_codes(codes), beside.with_codes(others)

    def _with_scale(self, side: Side, beside: Side, at: tuple[int, int], byte: int) -> tuple[Side, Side]:
        """A scale that says NaN, over numbers of one sign: an Inf in its place would stay Inf."""
        assert side.scale is not None
        scale = side.scale.copy()
        scale[at] = byte
        block = slice(at[1] * side.op.size, (at[1] + 1) * side.op.size)
        codes, others = side.codes.copy(), beside.codes.copy()
        if self.rng.random() < 0.6:
            codes[:, block], others[:, block] = draw.one(side.op), draw.one(beside.op)
        elif beside.zero is None:
            others[int(self.rng.integers(len(others))), block] = draw.zero_codes(beside.op)[0]
        return replace(side.with_codes(codes), scale=scale), beside.with_codes(others)

    def subnormal(self, shape: Shape) -> Iterator[Problem]:
        """Sums among the subnormal numbers of what comes out, by small numbers or scales of either side."""
        movable = [self._moves(op) for op in (self.claim.a, self.claim.b)]
        if self.claim.accumulator.least > -149:
            return
        for moves in ((True, False), (False, True), (True, True)):
            found = self.fitted(self.long(shape), 12)
            top = np.abs(found.exact).max()
            if top and all(can or not moved for can, moved in zip(movable, moves, strict=True)):
                need = self._normal - int(np.frexp(top)[1])
                share = need // sum(moves)
                sides = [
                    _moved(side, share) if moved else side
                    for side, moved in zip((found.a, found.b), moves, strict=True)
                ]
                yield replace(found, a=sides[0], b=sides[1], bias=None, law="subnormals")

    @property
    def _normal(self) -> int:
        """The exponent of the smallest normal number of what comes out."""
        return int(np.frexp(SMALLEST[self.claim.out])[1]) - 1

    def _moves(self, op: Operand) -> bool:
        """Has a side numbers, or scales, that make results subnormal?"""
        return _movable(op) or (op.name == "float16" and self.claim.out == "float16")

    def tiny(self, k: int) -> Iterator[Problem]:
        """Subnormal numbers of a plain side, one a row, times one and times a large number.

        An operand that is flushed shows, also where the result is no subnormal number.
        """
        ops = (self.claim.a, self.claim.b)
        for place, op in enumerate(ops):
            if not op.is_value or self.claim.accumulator.least > -149:
                continue
            least, bits = draw.EXPONENTS[str(op.name)][0], draw.SIGNIFICAND[str(op.name)]
            numbers = np.ldexp([1.0, -3.0, 5.0, 64.0, 1 - 2.0 ** (bits - 1)], least)
            side = draw.unit(op, len(numbers), k, self.rng)
            side.codes[np.arange(len(numbers)), np.arange(len(numbers)) * 11 % k] = numbers
            other = draw.unit(ops[1 - place], 4, k, self.rng)
            other.codes[:] = draw.one(other.op)
            if other.op.is_value:
                other.codes[2:] *= 2.0 ** (LARGE_HALF if other.op.name == "float16" else LARGE_FLOAT)
            yield self._beside(place, side, other)
            if not other.op.is_value and _movable(other.op):
                yield self._beside(place, side, _moved(other, LARGE_FLOAT))

    def small_results(self, k: int) -> Iterator[Problem]:
        """One term a row whose product is subnormal in what comes out, of factors that are not, if can be."""
        sides = []
        for op, rows in ((self.claim.a, 4), (self.claim.b, 3)):
            side = draw.unit(op, rows, k, self.rng)
            side.codes[:] = draw.one(op)
            if op.is_value:
                side.codes[:] *= np.array([1, -1, 1.5, 1.25], np.float32)[:rows, None]
            sides.append(side)
        sides[0] = self._kept(sides[0], 1, 1)
        moves = [self._moves(side.op) for side in sides]
        if self.claim.accumulator.least > -149 or not any(moves):
            return
        for less in (1, 6, 9):
            first = (self._normal - less) // sum(moves) * moves[0]
            by = first, (self._normal - less - first) * moves[1]
            moved = [_moved(side, n) if n else side for side, n in zip(sides, by, strict=True)]
            yield Problem(self.claim, moved[0], moved[1], law="subnormals")

    def past_largest(self, k: int) -> Iterator[Problem]:
        """One term a row, about the largest number of what comes out and past it."""
        top = int(np.frexp(TOP[self.claim.out])[1]) - 1
        ops = (self.claim.a, self.claim.b)
        for place, op in enumerate(ops):
            sides = []
            for one, numbers in ((op, None), (ops[1 - place], [1.0, 2.0, -1.0, 1.25])):
                side = draw.unit(one, 4, k, self.rng)
                if one.is_value:
                    most = (2 - 2.0 ** (1 - draw.SIGNIFICAND[str(one.name)])) * 2.0**top
                    of_top = [most, -most, 2.0**top, -1.5 * 2.0 ** (top - 1)]
                    side.codes[:] = np.array(of_top if numbers is None else numbers)[:, None]
                else:
                    finite = np.where(np.isfinite(meanings(one)), meanings(one), 0.0)
                    side.codes[:] = np.array(
                        [draw.one(one), finite.argmax(), finite.argmin(), draw.one(one)]
                    )[:, None]
                    if numbers is None and _movable(one):
                        side = _moved(side, top - int(np.frexp(finite.max())[1]) + 1)
                sides.append(side)
            if op.name == "float16" and top > draw.EXPONENTS["float16"][1]:
                continue
            sides[0] = self._kept(sides[0], 1, 1)
            found = self._beside(place, *sides)
            if np.isinf(found.due()).any():
                yield replace(found, law="output")

    def beside_tiny(self, k: int) -> Iterator[Problem]:
        """What tells one flush from another, one row each.

        Subnormal numbers of a side whose products are not; products whose sum is subnormal, or alone is not.
        """
        ops = (self.claim.a, self.claim.b)
        if self.claim.accumulator.least > -149 or any(op.zero for op in ops):
            return
        for place, op in enumerate(ops):
            other = draw.unit(ops[1 - place], 2, k, self.rng)
            other.codes[:] = draw.one(ops[1 - place])
            if _movable(op) and _movable(other.op):
                side = draw.unit(op, 3, k, self.rng)
                side.codes[np.arange(3), np.arange(3) * 11 % k] = draw.one(op)
                yield self._beside(place, _moved(side, TINY), _moved(other, -TINY - 20))
            if op.name in ("float32", "bfloat16") and k > 1:
                side = draw.unit(op, 2, k, self.rng)
                side.codes[:, :2] = np.array([[1.5, -1.0], [0.5, 0.5]]) * 2.0**-126
                yield self._beside(place, side, other)

    def ends(self, shape: Shape) -> Iterator[Problem]:
        """NaN and Inf, what is subnormal or past the largest number, and a bias of all bits, in a shape."""
        yield self.special(shape)
        for turn in range(2):
            yield from self.last(shape, turn)
        yield from self.subnormal(shape)
        yield from self.far_products(shape)
        if self.claim.bias:
            yield from self.biases(shape)
        k = shape[2]
        for problem in self.single_ends(k):
            yield from covering(problem, *shape[:2])

    def single_ends(self, k: int) -> Iterator[Problem]:
        """Single terms, and few, that are subnormal or past the largest number; negative scales."""
        yield from self.tiny(k)
        yield from self.beside_tiny(k)
        yield from self.small_results(k)
        yield from self.past_largest(k)
        yield from self.past_float32(k)
        yield from self.negative(k)

    def named(self, shape: Shape) -> Iterator[Problem]:
        """What else is asked in a shape that somebody names."""
        if self.claim.integers:
            yield from (self.integers(shape, extreme) for extreme in (3, 4))
        else:
            yield from self.ends(shape)

    def _beside(self, place: int, side: Side, other: Side) -> Problem:
        """One side and the other, the first being a where place is 0."""
        sides = (side, other) if place == 0 else (other, side)
        return Problem(self.claim, *sides, law="subnormals")

    def overflow(self) -> Problem | None:
        """Exact results about the largest number of what comes out, and past it."""
        a, b = self.claim.a, self.claim.b
        if a.zero or b.zero:
            return None
        if self.claim.out == "float32":
            return self._past_float32()
        top = 2.0 ** (16 if self.claim.out == "float16" else 127)
        goals = top * np.array([0.5, 1 - 2.0**-8, 1 - 2.0**-9, 1 - 2.0**-11, 1 - 2.0**-12, 1.0, -1.0, 1.5])
        left, right = draw.unit(a, len(goals), 3, self.rng), draw.unit(b, 4, 3, self.rng)
        right.codes[:] = draw.one(b)
        if a.name in ("float32", "bfloat16"):
            largest = 2.0**127 * (2 - 2.0**-7) if self.claim.out == "bfloat16" else 65504.0
            step = 2.0**119 if self.claim.out == "bfloat16" else 16.0  # half of the last bit
            left.codes[:, 0] = largest * (-1.0) ** np.arange(len(goals))
            left.codes[:, 1] = step * np.array([0, 0, 0.5, -0.5, 1, -1, 2, -2])
            return Problem(self.claim, left, right, law="output")
        if a.share in ("row", "block", "tensor") and a.scale is None and a.micro is None:
            assert left.scale is not None
            left.codes[:, 0] = draw.one(a)
            if a.share == "tensor":
                return self._overflow_by_codes(left, right, top)
            left = replace(left, scale=np.repeat(goals[:, None], left.scale.shape[1], 1).astype(np.float32))
            return Problem(self.claim, left, right, law="output")
        return None

    def _past_float32(self) -> Problem | None:
        """One term a row, whose scales, and numbers, float32 holds, but not their product."""
        a, b = self.claim.a, self.claim.b
        if not all(op.size and op.power_scale for op in (a, b)):
            return None
        sides = []
        for op in (a, b):
            side = draw.unit(op, 3, 40, self.rng)
            assert side.scale is not None
            values = meanings(op)
            codes = side.codes if op is b else side.codes.copy()
            codes[:, 0 if op is a else slice(None)] = np.nanargmax(
                np.where(np.isfinite(values), values, np.nan)
            )
            scale = draw.powers(side.scale, np.full(side.scale.shape, 62))
            sides.append(replace(side.with_codes(codes), scale=scale))
        return Problem(self.claim, sides[0], sides[1], law="output")

    def past_float32(self, k: int) -> Iterator[Problem]:
        """Terms of one sign, each of which float32 holds, but not their sum: Inf is due in any order."""
        ops = (self.claim.a, self.claim.b)
        if self.claim.out == "float16" or k < FEWEST_PAST:
            return
        for place, op in enumerate(ops):
            other = draw.unit(ops[1 - place], 4, k, self.rng)
            other.codes[:] = draw.one(other.op)
            side = draw.unit(op, len(TERMS_PAST), k, self.rng)
            found = self._large(side, int(np.frexp(other.values[0, 0])[1]) - 1)
            if found is not None:
                sides = (found, other) if place == 0 else (other, found)
                yield Problem(self.claim, *sides, law="output")

    @staticmethod
    def _large(side: Side, less: int) -> Side | None:
        """Rows of so many terms of either sign, which times 2**less are past float32; None where none is."""
        op, codes = side.op, side.codes.copy()
        wide = op.spec is not None and (op.power_scale or op.spec.scale_type in ("float32", "bfloat16"))
        by_scale = wide and op.micro is None and side.scale is not None
        if less < 0 or not (op.name in ("float32", "bfloat16") or by_scale):
            return None
        unit = 1.0 if op.is_value else float(meanings(op)[int(draw.one(op))])
        for row, (count, exponent, sign) in enumerate(TERMS_PAST):
            if count > codes.shape[1]:
                continue
            places = np.arange(count) * codes.shape[1] // count
            one = unit * (sign if op.is_value or draw.has_signs(op) else 1)
            large = one * 1.5 * 2.0 ** (exponent - less)
            codes[row, places] = large if op.is_value else draw.code_of(op, one)
        if op.is_value:
            return side.with_codes(codes)
        assert side.scale is not None
        scale: Any = 254 - less if op.scale is not None else 2.0 ** (127 - less)
        return replace(side.with_codes(codes), scale=np.full_like(side.scale, scale))

    def _overflow_by_codes(self, left: Side, right: Side, top: float) -> Problem:
        """Sums of three codes beside 512 at a scale by which 512 is past the largest number."""
        scale = 2 * top / 512 if self.claim.out == "bfloat16" else top / 512
        rows = [row for row in LARGE_SUMS if draw.has(left.op, *row)]
        for place, row in enumerate(rows[: len(left.codes)]):
            left.codes[place] = [draw.code_of(left.op, value) for value in row]
        left = replace(left, scale=np.full((1, 1), scale, np.float32))
        return Problem(self.claim, left, right, law="output")

    # ---- the accumulator -------------------------------------------------------------------------

    def ladders(self, k: int) -> Iterator[Problem]:
        """Rows of 2**j, 1 and -2**j: the one is there at the end, for every j that the accumulator holds."""
        a, b = self.claim.a, self.claim.b
        if k < 3 or a.zero or b.zero or not (a.is_value or (a.size and a.power_scale)):
            return
        places = ((0, 1, k - 1), (1, 0, k - 1), (0, k // 2, k - 1))
        steps = np.arange(1, self.claim.accumulator.bits - 2 * b.shifts)
        for large, small, back in places:
            left, right = draw.unit(a, len(steps), k, self.rng), draw.unit(b, 4, k, self.rng)
            right.codes[:] = draw.one(b)
            found = self._ladder(left, steps, (large, small, back))
            if found is not None:
                yield Problem(self.claim, found, right, law="accumulator")

    @staticmethod
    def _ladder(side: Side, steps: Integers, places: tuple[int, int, int]) -> Side | None:
        large, small, back = places
        op, codes = side.op, side.codes.copy()
        if op.is_value:
            unit = 2.0**-9 if op.name == "float16" else 1.0
            codes[:, large], codes[:, small], codes[:, back] = unit * 2.0**steps, unit, -unit * 2.0**steps
            return side.with_codes(codes)
        blocks = [place // op.size for place in places]
        if blocks[1] in (blocks[0], blocks[2]) or not draw.has_signs(op):
            return None
        assert side.scale is not None
        scale = side.scale.copy()
        scale[:, blocks[0]] = scale[:, blocks[2]] = draw.powers(scale, steps)
        unit_value = float(meanings(op)[int(draw.one(op))])
        codes[:, large] = codes[:, small] = draw.one(op)
        codes[:, back] = draw.code_of(op, -unit_value)
        return replace(side.with_codes(codes), scale=scale)

    # ---- integers ----------------------------------------------------------------------------------

    def integers(self, shape: Shape, extreme: int = 0) -> Problem:
        """All codes; extreme: 1 the largest alone, 2 the largest and the least in turn, 3 nine of ten.

        4: rows of one of them throughout.
        """
        m, n, k = shape
        sides = []
        for op, rows in ((self.claim.a, m), (self.claim.b, n)):
            ends = np.array([meanings(op).argmax(), meanings(op).argmin()], np.uint8)
            codes = self.rng.integers(0, 1 << op.bits, (rows, k))
            if extreme:
                share = 0.9 if extreme == 3 else 1.0
                chosen = self.rng.choice(ends[: 2 if extreme == 2 else 1], (rows, k))
                codes = np.where(self.rng.random((rows, k)) < share, chosen, codes)
            if extreme == 4:
                codes = np.repeat(ends[np.arange(rows) % 2, None], k, axis=1)
            sides.append(Side(op, codes.astype(np.uint8)))
        return Problem(self.claim, sides[0], sides[1], law="integers")


def _odd_bits(x: Integers) -> Integers:
    """Has each number an odd count of bits that are set?  It differs from itself without its first one."""
    for shift in (16, 8, 4, 2, 1):
        x = x ^ x >> shift
    return x & 1


def _unlike(odd: Integers, most: int, rng: np.random.Generator) -> Integers:
    """Numbers from 0 to a largest one, odd where it is said: another's is another number."""
    if most < 1:
        return np.zeros_like(odd)
    return odd + 2 * rng.integers(0, (most + 1) // 2, len(odd))


NANS = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFBFFFFF, 0x7FFFFFFF], np.uint32).view(np.float32)
"""NaN: as it is usually written, of the other sign, two that signal, and one of all bits."""
LARGE_FLOAT, LARGE_HALF = 100, 12
"""Exponents of numbers that make subnormal numbers ordinary: of the range of float32, and of float16."""
TINY = -127
"""Times this power of two, one is subnormal in float32."""


def _telling(op: Operand) -> Array:
    if op.is_value:
        return np.array([0.0, -0.0, 1, -1, 1.5, 2.0**-7, 3, -127, 64.5], np.float32)
    return np.arange(1 << op.bits)


def _coarse(op: Operand) -> bool:
    """Are its scales codes of few exponents?"""
    return op.scale is not None and op.scale.name != "e8m0"


def _not_finite(op: Operand) -> list[float]:
    """NaN and both Inf as plain numbers, or the codes of such."""
    return [np.nan, np.inf, -np.inf] if op.is_value else list(np.flatnonzero(~np.isfinite(meanings(op))))


def _nan_of(op: Operand, number: float, turn: int) -> float:
    """A number that is not finite; a NaN of float32 in turn of another sign and payload, quiet or not."""
    if op.name != "float32" or not np.isnan(number):
        return number
    found: float = NANS[turn % len(NANS)]
    return found


def _nan_scale(op: Operand) -> int | None:
    """The scale that says NaN, where there is one."""
    if not op.size or (op.scale is None and op.micro is None):
        return None
    if op.micro is not None:
        return 255
    assert op.scale is not None
    found = np.flatnonzero(np.isnan(table(op.scale)))
    return int(found[0]) if len(found) else None


def _movable(op: Operand) -> bool:
    """Has a side numbers, or scales, of the exponents of float32?"""
    if op.spec is None or op.share == "none":
        return op.name in ("float32", "bfloat16")
    return op.power_scale or (op.scale is None and op.spec.scale_type in ("float32", "bfloat16"))


def _moved(side: Side, by: int) -> Side:
    """A side times a power of two."""
    if side.op.is_value:  # what has bits below the type's last one becomes 0
        moved = np.ldexp(side.codes.astype(np.float64), by)
        least = 2.0 ** draw.EXPONENTS[str(side.op.name)][0]
        return side.with_codes(np.where(np.rint(moved / least) * least == moved, moved, 0.0))
    assert side.scale is not None
    whole = side.scale.dtype.kind != "f"
    exponents = side.scale.astype(np.int64) - 127 if whole else np.frexp(side.scale)[1] - 1
    return replace(side, scale=draw.powers(side.scale, exponents + by))


# ---- all of them -----------------------------------------------------------------------------------


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
        return Plain(few, (), tuple(replace(one, a=one.a.with_codes(maker._nothing(one.a))) for one in few))
    few = tuple(maker.sums(shape, bits=min(room, bits)) for bits in BITS for shape in shapes)
    powers, nothing = [], []
    for turn, shape in enumerate(shapes):
        sides = [draw.of_powers(op, rows, shape[2], maker.claim.splits, maker.rng)
                 for op, rows in ((maker.claim.a, shape[0]), (maker.claim.b, shape[1]))]  # fmt: skip
        kept = "ab".index(maker._few_side(turn))
        sides[kept] = maker._kept(sides[kept], turn, 1)
        powers.append(Problem(maker.claim, sides[0], sides[1]))
        zeros = [side.with_codes(maker._nothing(side)) for side in sides]
        nothing.append(Problem(maker.claim, zeros[0], zeros[1]))
    return Plain(few, tuple(powers), tuple(nothing))


def _single(maker: Maker, shapes: tuple[tuple[int, ...], ...] | None) -> Iterator[Problem]:
    """Products of single matrices: many shapes, each code, scale and end."""
    claim = maker.claim
    asked = SHAPES if shapes is None else cast("tuple[Shape, ...]", others(shapes))
    yield from _integers(maker, asked) if claim.integers else _shaped(maker, asked)
    yield from maker.pairs()
    if shapes is not None:
        yield from chain(*map(maker.named, asked))
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
        yield from batched(claim, lambda asked: chain(*map(maker.named, asked)), others(shapes))
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
        yield from maker.last(shape, turn=2 * k)
        yield from maker.last(shape, turn=2 * k + 1)
    for size in TILED:
        few = 1 + size % 2
        for shape in ((size, few, 3 + size % 5), (few, size, 3 + size % 5)):
            yield maker.integers(shape) if maker.claim.integers else maker.sums(shape, window=0)
        if size > SUMMED and not maker.claim.integers:
            yield maker.sums((2, 3, size), window=0)  # of many bits: what parts of a sum are rounded to shows
        terms = (4, few, size)  # one in a row, in the last places
        if not maker.claim.integers:
            yield from maker.last(
                ((size, few, 3), (few, size, 3), terms)[size % 3], turn=size % 3 + size // 3 * 2
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
            yield maker.special(shape)
        for nothing in (False, True):
            for name in ("a", "b"):
                yield from maker.beside_zeros(shape, name, nothing)
    for shape in ((1, 5, 33), (4, 6, 64), (33, 1, 40), (1, 1, 24)):
        yield from maker.subnormal(shape)
    for shape in ((4, 13, 40), (1, 33, 17)) if maker.claim.bias else ():
        yield from maker.biases(shape)
    for problem in chain(maker.single_ends(40), *(maker.negative(2 * size + 3) for size in maker.sizes)):
        yield from alone(problem)
    for shape in OF_ENDS:
        yield from maker.ends(shape)
    late = maker.overflow()
    if late is not None:
        yield from alone(late)
    for k in (3, 33, 64, 160):
        yield from maker.ladders(k)
