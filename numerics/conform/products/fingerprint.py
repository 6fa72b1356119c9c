"""How a product of plain numbers adds, told by probes: order, width, rounding.  A description, no verdict.

The order is found as FPRev finds it (arXiv 2411.00442): a large number and its negative hide all that is
added before they meet.  What is found is tried on random rows: a description that does not give their bits
says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.ieee import inside_ieee
from numerics.conform.products.asking import ProductTarget
from numerics.conform.products.claim import VALUES, Claim
from numerics.conform.products.draw import SIGNIFICAND
from numerics.conform.products.problem import Float64, Problem, Side, rounded
from numerics.conform.products.trial import check_shapes
from numerics.conform.products.turned import fitting_layout, hint
from numerics.conform.takes import Takes
from numerics.conform.target import Fault
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError, said

Tree = Any
"""A leaf's place, or a tuple of trees that are added: of two, or of all that are added at once."""
WIDE, NARROW = (100, 0), (15, -20)
"""Exponents of the number that hides others, and of those that are counted; the same in float16's range."""
WIDEST = 54
TRIED = 64
LONGEST = 64
UNKNOWN = " alone: how it adds is none of the ways that are known here"
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
class Fingerprint:
    """What was seen of a product; `text` of each line stands in `lines`.

    bits: of the accumulator.  rounding: of its additions.  order: how terms are added, in words; tree: which
    with which.  products: exact where they go into a sum unrounded.  a_bits, b_bits: bits of a and of b that
    are kept.  reach: how far in its row a number of a is rounded with others; 0 where it is not.
    subnormals: kept or flushed, or of which operand they are flushed.  alone: does one row give the bits that
    it gives with others?  repeats: do calls agree?  reproduced: of how many random results the description
    gives every bit.
    """

    target: str
    claim: str
    bits: int
    rounding: str
    order: str
    tree: Tree = field(repr=False)
    products: str
    a_bits: int
    b_bits: int
    reach: int
    subnormals: str
    alone: bool
    repeats: bool
    reproduced: int

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What was found, in words, each with the name of what it is of."""
        kept = f"a is rounded with its neighbours, up to {self.reach} of them; " if self.reach else ""
        kept += f"{self.a_bits} bits of a and {self.b_bits} of b are kept"
        alone, calls = "the same" if self.alone else "other", "agree" if self.repeats else "differ"
        return [
            ("adds", self.order),
            ("in", f"{self.bits} bits, {self.rounding}; products {self.products}"),
            ("operands", f"{kept}; subnormal numbers {self.subnormals}"),
            ("a row", f"gives {alone} bits alone; calls {calls}"),
        ]

    @property
    def heading(self) -> str:
        """The target and what it takes and gives."""
        return f"{self.target}: {self.claim}"

    @property
    def tried(self) -> str:
        """How many results the description gives bit for bit."""
        found = f"this gives every bit of {self.reproduced} of {TRIED} random results"
        return found + UNKNOWN * (self.reproduced < TRIED)

    def __str__(self) -> str:
        facts = (f"{name:<9}  {said}" for name, said in self.facts)
        return "\n  ".join([self.heading, *facts, self.tried])


@inside_ieee
@keywords
def fingerprint(
    target: Any,
    a: str = "float32",
    b: str = "float32",
    *,
    out: str | None = None,
    shape: tuple[int, int, int] = (64, 64, 32),
    array: str = "numpy",
    layout: str = "nk",
) -> Fingerprint:
    """Describes how a product adds: order, width, rounding, and what its bits depend on.

    target: a callable of (a, b), a (m, k) times the rows of b (n, k), or "module:function".  a, b: float32,
    bfloat16 or float16.  out: the type of the result, float32 by default.  shape: m, n, k of the product that
    is probed: 2 and more rows, 64 terms at most; the order may depend on it.  array: numpy or torch.
    layout: nk (the default) where b comes as (n, k), kn where it comes turned, as (k, n); or both, as km,kn.

    Raises NumericsError for other operands, shapes and layouts, and for a target that returns no product of
    operands that come so.

    >>> import numpy as np
    >>> print(fingerprint(lambda a, b: (a.astype(np.float64) @ b.T).astype(np.float32), shape=(8, 8, 4)))
    <lambda>: float32 x float32 -> float32
      adds       one after the other
      in         53 bits, no rounding seen; products exact
      operands   24 bits of a and 24 of b are kept; subnormal numbers kept
      a row      gives the same bits alone; calls agree
      this gives every bit of 64 of 64 random results
    """
    for name, came in (("a", a), ("b", b)):
        if not isinstance(came, str) or came not in VALUES:
            raise NumericsError(
                f"{name}={said(came)}: a fingerprint is of plain numbers, {', '.join(VALUES)}; decode the "
                "operands"
            )
    claim = Claim.of(a, b, out=out, layout=layout)
    if claim.laid.axes:
        raise NumericsError(f"layout={said(layout)}: a fingerprint is of one product, without batches")
    checked = check_shapes([shape], claim)
    assert checked is not None
    m, n, k = checked[0]
    if m < 2 or n < 2 or not 3 <= k <= LONGEST:
        raise NumericsError(f"shape={(m, n, k)}; 2 rows and columns and 3 to {LONGEST} terms are due")
    judged = ProductTarget(target, claim, Takes.of(array))
    prober = Prober(judged, (m, n, k))
    try:
        if (mistaken := prober.mistaken()) is not None:
            raise NumericsError(_no_product(judged, mistaken))
        return prober.fingerprint()
    except Fault as fault:
        lines = (line.strip().removesuffix(".") for line in str(fault.found).splitlines())
        raise NumericsError(_no_product(judged, "; ".join(lines))) from fault


def _no_product(target: ProductTarget, found: str) -> str:
    """Why nothing is described: first that an operand comes turned, where it does."""
    layout = fitting_layout(target)
    return f"there is no product to describe: {found}" if layout is None else f"{target.name}: {hint(layout)}"


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

    def fingerprint(self) -> Fingerprint:
        """All of it."""
        claim = self.target.claim
        return Fingerprint(
            self.target.name,
            f"{claim.dtype} -> {claim.out}",
            self.bits,
            self.rounding,
            described(self.tree),
            self.tree,
            self.products,
            self.kept_bits("a"),
            self.kept_bits("b"),
            self.reach,
            self.subnormals,
            self.alone,
            self.repeats,
            self.reproduced,
        )

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
        cut = self.rounding == "toward zero" or _widest(self.tree) > 2
        model = Model((self.bits, self.inner_bits), cut, self.products == "rounded first")
        a, b = (x if (less := self.cut(side)) is None else less.of(x) for side, x in (("a", a), ("b", b)))
        total = np.array([model.total(self.tree, x, y) for x, y in zip(a, b, strict=True)])
        return int((rounded(total, self.target.claim.out).astype(np.float64) == came).sum())


# ---- trees -----------------------------------------------------------------------------------------


def built(under: NDArray[np.int64], leaves: list[int]) -> Tree:
    """The tree in which `under[i, j]` leaves are below the node where i and j meet.

    >>> built(np.array([[0, 2, 3], [2, 0, 3], [3, 3, 0]]), [0, 1, 2])
    ((0, 1), 2)
    """
    first, *others = leaves
    node: Tree = first
    for size in sorted({int(under[first, other]) for other in others}):
        members = [other for other in others if under[first, other] == size]
        part = built(under, members)
        at_once = len(members) > 1 and max(under[i, j] for i in members for j in members if i != j) == size
        node = (node, *part) if at_once else (node, part)
    return node


def in_sequence(tree: Tree) -> Tree:
    """The same tree with what was added first in front, where one term is added after the other.

    Which of the first two comes first is not seen: it is taken to be the one that goes on from there.

    >>> in_sequence((0, (1, (2, 3))))
    (((3, 2), 1), 0)
    """
    if not isinstance(tree, tuple) or len(tree) > 2:
        return tree
    first, second = map(in_sequence, tree)
    if isinstance(first, tuple) or not isinstance(second, tuple):
        return (first, second)
    if all(isinstance(part, int) for part in second) and len(second) == 2 and first < min(second):
        second = (max(second), min(second))
    return (second, first)


def described(tree: Tree) -> str:
    """A tree in words.

    >>> described(((0, 1), 2)), described(((0, 1), (2, 3))), described((0, 1, 2, 3))
    ('one after the other', 'a tree of depth 2', '4 terms at once')
    >>> described(((((0, 1), 2), ((3, 4), 5)), ((6, 7), 8)))
    '3 chains of 3, the first 0 1 2, then one after the other'
    """
    widest, depth, count = _widest(tree), _depth(tree), len(_leaves(tree))
    if widest > 2:
        whole = depth == 1
        return f"{widest} terms at once" + ("" if whole else f", the sum before among them, {depth} times")
    order = _leaves(tree)
    if depth == count - 1:
        return "one after the other" + ("" if order == sorted(order) else f", in the order {_shown(order)}")
    chains = _chains(tree)
    if len(chains) < count // 2:
        longest, last = max(map(len, chains)), _of_chains(tree)
        return f"{len(chains)} chains of {longest}, the first {_shown(chains[0])}, then {last}"
    return f"a tree of depth {depth}"


def _shown(order: list[int]) -> str:
    return " ".join(map(str, order[:6])) + (" ..." if len(order) > 6 else "")


def _leaves(tree: Tree) -> list[int]:
    return [leaf for part in tree for leaf in _leaves(part)] if isinstance(tree, tuple) else [tree]


def _depth(tree: Tree) -> int:
    return 1 + max(map(_depth, tree)) if isinstance(tree, tuple) else 0


def _widest(tree: Tree) -> int:
    return max(len(tree), *map(_widest, tree)) if isinstance(tree, tuple) else 0


def _chains(tree: Tree) -> list[list[int]]:
    """The parts of a tree in which one term is added after the other."""
    leaves = _leaves(tree)
    if not isinstance(tree, tuple) or _depth(tree) == len(leaves) - 1:
        return [leaves]
    return [chain for part in tree for chain in _chains(part)]


def _of_chains(tree: Tree) -> str:
    """How the sums of chains are added, in words."""

    def whole(part: Tree) -> Tree:
        return 0 if len(_chains(part)) == 1 else tuple(map(whole, part))

    count = len(_chains(tree))
    if count == 2:
        return "both"
    return "one after the other" if _depth(whole(tree)) == count - 1 else "a tree"


@dataclass(frozen=True)
class Cut:
    """Numbers that keep so many bits before they are multiplied: cut off, or rounded to the nearest."""

    bits: int
    toward_zero: bool

    def of(self, x: Float64) -> Float64:
        """The numbers that are left."""
        significand, exponent = np.frexp(x)
        whole = np.ldexp(significand, self.bits)
        left = np.trunc(whole) if self.toward_zero else np.rint(whole)
        return np.asarray(np.ldexp(left, exponent - self.bits))


@dataclass(frozen=True)
class Model:
    """Sums along a tree: additions of so many bits, toward zero or to nearest; products rounded first or not.

    bits: of a sum, and of terms that are added at once.
    """

    bits: tuple[int, int]
    cut: bool
    rounds_products: bool

    def total(self, tree: Tree, a: Float64, b: Float64) -> float:
        """The sum of one row."""
        if not isinstance(tree, tuple):
            return self._rounded(float(a[tree] * b[tree]))
        if len(tree) > 2:
            return self._at_once([self._term(part, a, b) for part in tree])
        leaf = [not isinstance(part, tuple) and not self.rounds_products for part in tree]
        exact = 1 if leaf[1] else 0  # a multiply-add rounds its other side first
        sides = [
            self._term(part, a, b) if leaf[i] and i == exact else self.total(part, a, b)
            for i, part in enumerate(tree)
        ]
        return self._rounded(sides[0] + sides[1])

    def _term(self, tree: Tree, a: Float64, b: Float64) -> float:
        return self.total(tree, a, b) if isinstance(tree, tuple) else float(a[tree] * b[tree])

    def _at_once(self, terms: list[float]) -> float:
        top = max((np.frexp(term)[1] for term in terms if term), default=0)
        step = 2.0 ** (int(top) - self.bits[1])
        return self._rounded(sum(float(np.trunc(term / step)) * step for term in terms))

    def _rounded(self, x: float) -> float:
        if self.bits[0] >= 53 or x == 0:
            return x
        significand, exponent = np.frexp(x)
        whole = np.ldexp(significand, self.bits[0])
        return float(np.ldexp(np.trunc(whole) if self.cut else np.rint(whole), exponent - self.bits[0]))
