"""Rows of numbers that are asked of a product, and what they say of its order, width and rounding.

The order is found as FPRev finds it (arXiv 2411.00442): a large number and its negative hide all that is
added before they meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

import numpy as np

from numerics.conform.products.adding.sums import Cut, Model
from numerics.conform.products.adding.trees import Tree, built, in_sequence, widest
from numerics.conform.products.asking import ProductTarget
from numerics.conform.products.cases.draw import SIGNIFICAND
from numerics.conform.products.problem import Float64, Problem, Side, rounded

WIDE, NARROW = (100, 0), (15, -20)
"""Exponents of the number that hides others, and of those that are counted; the same in float16's range."""
WIDEST = 54
TRIED = 64
WHOLE = 8
"""Whole numbers below it are held by every type of an operand and of a sum."""
HALVES = (1.0, 1.5, 0.5)
ROUNDINGS = {
    "-U-": "to nearest, ties to even",
    "---": "toward zero",
    "UU-": "to nearest, ties away",
    "UUU": "away from zero",
}


@dataclass(frozen=True)
class Prober:
    """Asks a target rows of numbers, as many at once as the shape says."""

    target: ProductTarget
    shape: tuple[int, int, int]

    @property
    def kind(self) -> str:
        """The type of a."""
        return str(self.target.claim.a.name)

    def product(self, a: Float64, b: Float64) -> Float64:
        """One product."""
        claim = self.target.claim
        sides = [Side(op, np.ascontiguousarray(x, np.float32)) for op, x in ((claim.a, a), (claim.b, b))]
        return self.target.came(Problem(claim, sides[0], sides[1])).astype(np.float64)

    def mistaken(self) -> str | None:
        """What comes in place of small whole numbers times 1; None where they come themselves."""
        m, n, k = self.shape
        rng = np.random.default_rng(7)
        a, b = np.zeros((m, k)), rng.integers(0, WHOLE, (n, k)).astype(np.float64)
        a[np.arange(m), rng.integers(0, k, m)] = 1
        came, due = self.product(a, b), a @ b.T
        wrong = np.argwhere(came != due).tolist()
        if not wrong:
            return None
        row, column = wrong[0]
        what = f"of rows of a that hold a single 1, result {wrong[0]} is {came[row, column]:g}"
        return f"{what} where {due[row, column]:g} is due, and {len(wrong)} of {m * n} results are wrong"

    def dots(self, a: Float64, b: Float64) -> Float64:
        """The products of rows with rows [rows, k], each as the first result of a product of the asked shape.

        Always the first: other results of the same product may be summed in another order.
        """
        m, n, k = self.shape
        left, right = np.zeros((m, k)), np.zeros((n, k))
        found = np.empty(len(a))
        for row, (x, y) in enumerate(zip(a, b, strict=True)):
            left[:], right[:] = x, y
            found[row] = self.product(left, right)[0, 0]
        return found

    def sums(self, rows: Float64) -> Float64:
        """Sums of rows: b is ones."""
        return self.dots(rows, np.ones_like(rows))

    @cached_property
    def exponents(self) -> tuple[int, int]:
        """Of the large number that hides others, and of those that are counted: within the range of sums."""
        if self.kind == "float16" or self.target.claim.b.name == "float16":
            return NARROW
        row = np.zeros((1, self.shape[2]))
        row[0, :2] = 2.0 ** WIDE[0], -(2.0 ** WIDE[0])
        return WIDE if self.sums(row)[0] == 0 else (15, -8)

    # ---- what is seen ------------------------------------------------------------------------------

    def _held(self, places: tuple[int, ...]) -> int:
        """Bits of the accumulator: the largest j with 2**j + 1 - 2**j = 1, and one."""
        large, unit = self.exponents
        steps = np.arange(1, min(WIDEST, large - unit + 1))
        rows = np.zeros((len(steps), self.shape[2]))
        rows[:, places[0]], rows[:, places[2]] = np.ldexp(1.0, steps + unit), -np.ldexp(1.0, steps + unit)
        rows[:, places[1]] = np.ldexp(1.0, unit)
        right = self.sums(rows) == np.ldexp(1.0, unit)
        return int(steps[-1] if right.all() else steps[right.argmin()] - 1) + 1

    @cached_property
    def bits(self) -> int:
        """The least over places of the three terms: two that meet first hide the width."""
        last = self.shape[2] - 1
        some = ((0, 1, last), (0, last // 2, last), (0, last - 1, last))
        places = {order for three in some if len(set(three)) == len(three) for order in permutations(three)}
        return min(self.inner_bits, *map(self._held, sorted(places)))

    @cached_property
    def inner_bits(self) -> int:
        """The same of neighbours, which may be added at once: in more bits than the sum is kept in."""
        return min(map(self._held, permutations((0, 1, 2))))

    @cached_property
    def rounding(self) -> str:
        """Of one addition, seen when the larger term is taken away again."""
        large, unit = self.exponents
        unit, seen = unit + 1, set()
        if self.bits + unit > large or self.bits >= WIDEST - 1:
            return "no rounding seen"
        for places in permutations((0, 1, 2)):
            rows = np.zeros((len(HALVES), self.shape[2]))
            rows[:, places[0]], rows[:, places[2]] = 2.0 ** (self.bits + unit), -(2.0 ** (self.bits + unit))
            rows[:, places[1]] = np.array(HALVES) * 2.0**unit
            came = self.sums(rows) / 2.0**unit
            if np.isin(came, (0, 2)).all():  # others were rounded twice, or not at all
                seen.add("".join("U" if x else "-" for x in came))
        return (
            " or ".join(sorted(ROUNDINGS.get(key, f"otherwise ({key})") for key in seen))
            or "no rounding seen"
        )

    @cached_property
    def tree(self) -> Tree:
        """Which terms are added to which, by how many a large one and its negative hide until they meet."""
        k = self.shape[2]
        pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
        large, unit = self.exponents
        rows = np.full((len(pairs), k), 2.0**unit)
        for row, (i, j) in enumerate(pairs):
            rows[row, i], rows[row, j] = 2.0**large, -(2.0**large)
        left = self.sums(rows) / 2.0**unit
        under = np.zeros((k, k), np.int64)
        for (i, j), kept in zip(pairs, left, strict=True):
            under[i, j] = under[j, i] = k - int(kept) if np.isfinite(kept) else k
        return in_sequence(built(under, list(range(k))))

    @cached_property
    def products(self) -> str:
        """Are products rounded before they are added: to float32, or of two types of 16 bits to that type?"""
        kinds = [SIGNIFICAND[str(op.name)] for op in (self.target.claim.a, self.target.claim.b)]
        short = sum(kinds) <= 24
        if self.bits > 48 or (short and kinds[0] != kinds[1]):
            return "exact"
        unit = 8.0 if short else 1.0  # what is left of a product is no subnormal float16
        odd = [unit + unit * 2.0 ** -(bits - 1) for bits in kinds]
        product = odd[0] * odd[1]
        nearest = unit**2 * (1 + 2.0 ** (2 - kinds[0])) if short else float(np.float32(product))
        unrounded = "exact" if short else "fused into the sum"
        others = [place for place in (1, 2, 4, 8, self.shape[2] - 1) if place < self.shape[2]]
        pairs = [pair for place in others for pair in ((0, place), (place, 0))]
        a, b = np.zeros((len(pairs), self.shape[2])), np.zeros((len(pairs), self.shape[2]))
        for row, (first, second) in enumerate(pairs):
            a[row, first], b[row, first] = odd
            wide = (a, b) if kinds[0] == 24 else (b, a)
            wide[0][row, second], wide[1][row, second] = -nearest, 1.0
        return unrounded if (self.dots(a, b) == product - nearest).any() else "rounded first"

    def _significand(self, side: str) -> int:
        return SIGNIFICAND[str(getattr(self.target.claim, side).name)]

    def _of_one(self, side: str, numbers: Float64) -> Float64:
        """What comes of single numbers of a side times one, each alone in its row."""
        rows = np.zeros((len(numbers), self.shape[2]))
        rows[:, 0] = numbers
        ones = np.ones_like(rows)
        return self.dots(rows, ones) if side == "a" else self.dots(ones, rows)

    def kept_bits(self, side: str) -> int:
        """How many bits of a number of a side reach the result."""
        steps = np.arange(1, self._significand(side))
        numbers = 1 + np.ldexp(1.0, -steps)
        came = rounded(numbers, self.target.claim.out).astype(np.float64)
        right = (self._of_one(side, numbers) == numbers) | (came != numbers)
        return int(steps[-1] if right.all() else steps[right.argmin()] - 1) + 1

    @cached_property
    def product_bits(self) -> int:
        """How many bits of a product of two numbers are kept; 0 where operands are cut, or nothing is.

        Two numbers that have as many bits as were kept of each lose none of them, if operands are cut.
        """
        bits, other = self.kept_bits("a"), self.kept_bits("b")
        if bits != other or bits >= min(self._significand("a"), self._significand("b")):
            return 0
        number = np.array([1 + 2.0 ** (1 - bits)])
        a, b = np.zeros((1, self.shape[2])), np.zeros((1, self.shape[2]))
        a[:, 0] = b[:, 0] = number
        due = rounded(number**2, self.target.claim.out).astype(np.float64)
        return 0 if self.dots(a, b)[0] == due[0] else bits

    def cut(self, side: str) -> Cut | None:
        """How numbers of a side lose bits before they are multiplied; None where they keep all.

        Or as many as the accumulator has, which takes them from their product.
        """
        bits = self.kept_bits(side)
        if bits >= min(self._significand(side), SIGNIFICAND[self.target.claim.out], self.bits):
            return None
        step = 2.0 ** (1 - bits)
        return Cut(bits, bool(self._of_one(side, np.array([1 + 0.75 * step]))[0] == 1))

    @cached_property
    def reach(self) -> int:
        """The distance of the farthest large number in its row that changes a small one."""
        k = self.shape[2]
        a, b = np.zeros((k - 1, k)), np.zeros((k - 1, k))
        a[:, 0] = b[:, 0] = 1.0
        a[np.arange(k - 1), np.arange(1, k)] = 1000.0 if self.kind != "bfloat16" else 1024.0
        changed = np.flatnonzero(self.dots(a, b) != 1.0)
        return int(changed.max()) + 2 if len(changed) else 0

    @cached_property
    def subnormals(self) -> str:
        """Are results, or numbers, below the least normal one kept?"""
        lost = [side for side in ("a", "b") if self._loses(side)]
        return "kept" if not lost else "flushed" if len(lost) > 1 else f"of {lost[0]} flushed"

    def _loses(self, side: str) -> bool:
        """Is a subnormal number of a side, times one, no longer there?"""
        least = -24 if self.exponents == NARROW else -130
        return bool(self._of_one(side, np.array([2.0**least]))[0] != 2.0**least)

    # ---- what bits depend on -----------------------------------------------------------------------

    def _random(self, rows: int, side: str) -> Float64:
        rng = np.random.default_rng(5 if side == "a" else 6)
        bits = SIGNIFICAND[str(getattr(self.target.claim, side).name)]
        shape = (rows, self.shape[2])
        whole = rng.integers(1 << (bits - 1), 1 << bits, shape) * rng.choice([-1, 1], shape)
        return np.asarray(np.ldexp(whole.astype(np.float64), rng.integers(-4, 4, shape) - bits))

    @cached_property
    def _drawn(self) -> tuple[Float64, Float64]:
        return self._random(self.shape[0], "a"), self._random(self.shape[1], "b")

    @cached_property
    def alone(self) -> bool:
        """Does the first row give the same bits alone?"""
        a, b = self._drawn
        return bool((self.product(a[:1], b)[0] == self.product(a, b)[0]).all())

    @cached_property
    def repeats(self) -> bool:
        """Do three calls agree?"""
        first, *others = (self.product(*self._drawn) for _ in range(3))
        return all(bool((first == other).all()) for other in others)

    @cached_property
    def reproduced(self) -> int:
        """How many random results the description gives, bit for bit."""
        a, b = self._random(TRIED, "a"), self._random(TRIED, "b")
        came = self.dots(a, b)
        cut = self.rounding == "toward zero" or widest(self.tree) > 2
        model = Model((self.bits, self.inner_bits), cut, self.products == "rounded first")
        a, b = (x if (less := self.cut(side)) is None else less.of(x) for side, x in (("a", a), ("b", b)))
        total = np.array([model.total(self.tree, x, y) for x, y in zip(a, b, strict=True)])
        return int((rounded(total, self.target.claim.out).astype(np.float64) == came).sum())
