"""Makes problems of a claim: one term a row, sums that fit their accumulator, every code and scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from math import lcm
from typing import Any

import numpy as np

from numerics.conform.products.cases import draw
from numerics.conform.products.cases.draw import Integers
from numerics.conform.products.cases.fitting import Fitting
from numerics.conform.products.certificate import NONE, bounds, sums
from numerics.conform.products.claim import Claim, Operand
from numerics.conform.products.given import original_of
from numerics.conform.products.problem import SMALLEST, TOP, VIA, Problem, Side, meanings, table, with_side
from numerics.conform.task import Array

Shape = tuple[int, int, int]
"""m, n, k."""
BYTES = (0, 1, 32, 64, 127, 190, 222, 253, 254)
SINGLE = 24  # bits of a float32 number
WIDE = 40  # exponents of two elements together, so that scales may answer them
FEW = 64  # terms of integers of 8 bits that fit, whose codes and zero points may be split
SHORT = 12  # bits of codes in sums of many terms


@dataclass
class Maker:
    """Makes the problems of a claim from a stream of random numbers."""

    claim: Claim
    rng: np.random.Generator

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
        kept = self.kept(kept, turn, terms)
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
            few = self.few_side((turn + place) % 2)
            sides[few] = self.kept(sides[few], turn, terms)
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
            kept = self.few_side(turn + place)
            sides[kept] = self.kept(sides[kept], turn, 1)
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
        return {"a": draw.moved(sides["a"], first), "b": draw.moved(sides["b"], other)}

    def ordinary(self, shape: Shape) -> Problem:
        """Dense rows of numbers, codes and scales of all bits: most results of 16 bits are decided."""
        m, n, k = shape
        sides = [
            draw.anything(op, rows, np.zeros(k, np.int64), SINGLE, self.rng)
            for op, rows in ((self.claim.a, m), (self.claim.b, n))
        ]
        return Problem(self.claim, sides[0], sides[1], law="output")

    def few_side(self, turn: int) -> str:
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

    def kept(self, side: Side, turn: int, terms: int) -> Side:
        """A side whose rows have so many elements that are no zeros, or not their zero points."""
        rows, length = side.codes.shape
        codes = self.nothing(side)
        for row in range(rows):
            others = self.rng.choice(length, min(terms, length) - 1, replace=False)
            places = [(row + turn * rows) % length, *others]
            codes[row, places] = side.codes[row, places]
        return side.with_codes(codes)

    def nothing(self, side: Side) -> Array:
        if side.zero is None:
            return draw.blank(side.op, len(side.codes), side.codes.shape[1], self.rng)
        return side.factors.zero.astype(np.int64) & ((1 << side.op.bits) - 1)

    def beside(self, place: int, side: Side, other: Side, law: str) -> Problem:
        """One side and the other, the first being a where place is 0."""
        sides = (side, other) if place == 0 else (other, side)
        return Problem(self.claim, *sides, law=law)

    def sums(self, shape: Shape, window: int = 1, bits: int | None = None, law: str = "sums") -> Problem:
        """Dense rows: exponents of a and b add up to the same at every k, whatever rows shift by.

        bits: how many the sums may take; elements are zeros until they fit.
        """
        m, n, k = shape
        a, b = self.claim.a, self.claim.b
        element, shift = self._ties(k)
        small = 1 if draw.of_few_exponents(a) or draw.of_few_exponents(b) else 3
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
        yield replace(found, a=found.a.with_codes(self.nothing(found.a)), bias=alone)
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
            bottom, top = draw.EXPONENTS["float16"]
            low, high = max(low, self._spread() - top), min(high, -bottom - self._spread())
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
        if any(draw.of_few_exponents(op) for op in sides):
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


def _telling(op: Operand) -> Array:
    if op.is_value:
        return np.array([0.0, -0.0, 1, -1, 1.5, 2.0**-7, 3, -127, 64.5], np.float32)
    return np.arange(1 << op.bits)
