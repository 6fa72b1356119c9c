"""One product: two sides in memory, and the exact value of each result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numerics.conform.products.blend import Blend
from numerics.conform.products.claim import NARROWED, Claim, Operand
from numerics.conform.products.lying import DENSE, Lies
from numerics.conform.task import REFERENCE, Array
from numerics.formats.block import ElementBlock
from numerics.formats.dtype import Element
from numerics.formats.floats import bfloat16

Float64 = NDArray[np.float64]


@lru_cache(maxsize=64)
def table(dtype: Element) -> Float64:
    """The values of all codes of a format, as float64.

    >>> from numerics.formats import int2
    >>> table(int2).tolist()
    [0.0, 1.0, -2.0, -1.0]
    """
    found = REFERENCE.decode(np.arange(1 << dtype.bits).astype(dtype.code_dtype), dtype).astype(np.float64)
    found.flags.writeable = False
    return found


@lru_cache(maxsize=64)
def meanings(op: Operand) -> Float64:
    """What each code of an operand counts, before its scale."""
    if op.element is None:
        m = op.bits - 1
        code = np.arange(1 << op.bits)
        return np.asarray(np.where(code >> m, -1.0, 1.0) * (code & ((1 << m) - 1)))
    unit = op.block.element_unit if isinstance(op.block, ElementBlock) else 1.0
    return np.asarray(table(op.element) * unit)


@dataclass(frozen=True)
class Factors:
    """What a side multiplies, element by element: (element - zero) * scale; each (rows, length)."""

    element: Float64
    zero: Float64
    scale: Float64

    def part(self, at: Any) -> Factors:
        """Those of some rows or columns; at: an index of both axes."""
        return Factors(self.element[at], self.zero[at], self.scale[at])

    @cached_property
    def values(self) -> Float64:
        """The numbers that a side stands for."""
        with np.errstate(all="ignore"):
            return (self.element - self.zero) * self.scale


@dataclass(frozen=True)
class Side:
    """One operand in memory: codes (or plain numbers) [rows, length], scales, zero points, microexponents.

    scale: codes of a byte, or float32.  number: the scale of the whole tensor.  meant: of a deviation, what
    it stands for in place of what its codes say.
    """

    op: Operand
    codes: Array
    scale: Array | None = None
    zero: Array | None = None
    micro: Array | None = None
    number: float = 1.0
    meant: Factors | None = None

    def spread(self, shared: Array) -> Array:
        """What groups, rows or the tensor share, once for each element."""
        rows, length = self.codes.shape
        if self.op.share == "block":
            shared = np.repeat(shared, min(self.op.size, length), axis=1)[:, :length]
        return np.broadcast_to(shared, (rows, length))

    @cached_property
    def factors(self) -> Factors:
        """Its elements, zero points and scales, as exact numbers."""
        if self.meant is not None:
            return self.meant
        shape = self.codes.shape
        with np.errstate(invalid="ignore"):  # NaN that signals
            element = self.codes.astype(np.float64) if self.op.is_value else meanings(self.op)[self.codes]
        zero = np.zeros(shape) if self.zero is None else self.spread(self.zero.astype(np.float64))
        return Factors(element, zero, self._scales() * self.number)

    def _scales(self) -> Float64:
        if self.scale is None:
            return np.ones(self.codes.shape)
        if self.op.scale is not None:
            return np.asarray(self.spread(table(self.op.scale)[self.scale]))
        if self.op.micro is None:
            return np.asarray(self.spread(self.scale.astype(np.float64)))
        d = self.op.micro
        assert self.micro is not None
        place = np.arange(self.codes.shape[1]) % d.block // d.sub_block
        shift = self.spread(self.micro.astype(np.int64)) >> place & 1
        byte = self.spread(self.scale.astype(np.int64))
        return np.where(byte == 255, np.nan, np.ldexp(1.0, byte - 127 - shift - (d.mantissa - 1)))

    @property
    def values(self) -> Float64:
        """The numbers that it stands for."""
        return self.factors.values

    def rows(self, kept: list[int]) -> Side:
        """Some rows alone."""
        count = self.codes.shape[0]
        shared = [
            part if part is None or len(part) != count or self.op.share not in ("row", "block")
            else part[kept] for part in (self.scale, self.zero, self.micro)
        ]  # fmt: skip
        meant = None if self.meant is None else self.meant.part(np.s_[kept])
        return replace(
            self, codes=self.codes[kept], scale=shared[0], zero=shared[1], micro=shared[2], meant=meant
        )

    def alike(self, *more: Array) -> list[int]:
        """Of each row the first one that is the same, bit for bit; more: rows of numbers beside each row."""
        parts = [self.codes, *(part for part in (self.scale, self.zero, self.micro)
                               if part is not None and self.op.share in ("row", "block"))]  # fmt: skip
        parts += (
            more if self.meant is None else (*more, self.meant.element, self.meant.zero, self.meant.scale)
        )
        first: dict[tuple[bytes, ...], int] = {}
        keys = zip(*(map(np.ndarray.tobytes, np.ascontiguousarray(part)) for part in parts), strict=True)
        return [first.setdefault(key, row) for row, key in enumerate(keys)]

    def short(self, length: int) -> Side:
        """The first columns alone."""
        cut = self.op.shared(len(self.codes), length)[1]
        shared = [None if part is None else part[:, :cut] for part in (self.scale, self.zero, self.micro)]
        meant = None if self.meant is None else self.meant.part(np.s_[:, :length])
        return replace(self, codes=self.codes[:, :length].copy(), scale=shared[0], zero=shared[1],
                       micro=shared[2], meant=meant)  # fmt: skip

    def of_terms(self, kept: list[int]) -> Side | None:
        """Some columns alone; None where those that share a scale then would not share it now."""
        if self.micro is not None:
            return None
        shared, places = [self.scale, self.zero], np.array(kept)
        if self.op.share == "block":
            blocks, first = places // self.op.size, np.arange(len(places)) // self.op.size * self.op.size
            if (blocks != blocks[first]).any():
                return None
            shared = [None if part is None else part[:, blocks[:: self.op.size]] for part in shared]
        meant = None if self.meant is None else self.meant.part(np.s_[:, kept])
        return replace(self, codes=self.codes[:, kept], scale=shared[0], zero=shared[1], meant=meant)

    def with_codes(self, codes: Array) -> Side:
        """The same with other codes, or numbers."""
        return replace(self, codes=codes.astype(self.codes.dtype), meant=None)


class Parts(NamedTuple):
    """How a deviation adds: the sums of so many terms each are rounded to a type, and then added.

    kind: a type of floats, or int16, past whose ends a sum is that end.
    kept: the sum of those before is rounded to it, too, whenever one is added.
    """

    length: int
    kind: str
    kept: bool = False

    def product(self, a: Float64, b: Float64) -> Float64:
        """a times the rows of b, exact but for these roundings."""
        found = np.zeros((len(a), len(b)))
        with np.errstate(all="ignore"):
            for start in range(0, a.shape[1], self.length):
                places = slice(start, start + self.length)
                found = found + self._rounded(exact_product(a[:, places], b[:, places]))
                found = self._rounded(found) if self.kept else found
        return found

    def _rounded(self, x: Float64) -> Float64:
        if self.kind == "int16":
            return np.clip(x, -(2.0**15), 2.0**15 - 1)
        return rounded(x, self.kind).astype(np.float64)


class Scatter(NamedTuple):
    """Which row of a, and of b, each row of a larger product is; the axes of batches that it has."""

    rows: list[int]
    columns: list[int]
    batch: tuple[int, ...] = ()


class Few(NamedTuple):
    """A product of the rows that differ, and which of them each row of the whole one is."""

    problem: Problem
    rows: list[int]
    columns: list[int]

    def spread(self, found: Array) -> Array:
        """What was found of these rows, for all of the whole product."""
        return found[np.ix_(self.rows, self.columns)]


LARGE = 1 << 20  # terms of a product of which it is asked whether its rows are few ones
FEWER = 8  # times less results, for which it is worth while


def _as_epilogue(problem: Problem, product: Float64) -> Float64:
    """alpha * product + beta * c, and then the bias, as epilogues of cuBLASLt and CUTLASS add it."""
    found = problem.blended(product)
    return found if problem.bias is None else found + problem.bias


@dataclass(frozen=True)
class Problem:
    """One product that is asked: a (m, k) times the rows of b (n, k), its alpha, beta and c, its bias."""

    claim: Claim
    a: Side
    b: Side
    bias: NDArray[np.float32] | None = None
    law: str = ""
    blend: Blend | None = None
    """alpha, beta and c, where the claim has any of them."""
    flushed: bool = False
    """Of a deviation: are products below the smallest normal float32 zeros?"""
    parts: Parts | None = None
    """Of a deviation: in which parts are terms added, and how is each rounded?"""
    lies: Lies = DENSE
    """How its arrays lie in memory."""
    batch: tuple[int, ...] = ()
    """Lengths of the result's axes of batches: rows of both sides are those of all their matrices."""
    added: Callable[[Problem, Float64], Float64] = _as_epilogue
    """What is added to exact products, and when; another one of a deviation."""
    one: str = ""
    """Whether b is a itself, or lies in its memory, one of `aliasing.ONE`; "" where it has its own."""
    sizes: tuple[int, int] | None = None
    """m and n of one batch, where there may be none and rows do not say it."""
    scatter: Scatter | None = None
    """Of which rows of these the product is made that is asked; None where it is this one."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """m, n, k; of batches the rows and the columns of all of them."""
        return len(self.a.codes), len(self.b.codes), self.a.codes.shape[1]

    @property
    def matrix(self) -> tuple[int, int]:
        """m and n of one batch."""
        if self.sizes is not None and 0 in self.batch:
            return self.sizes
        groups = [self.claim.laid.groups(side, self.batch) if self.batch else 1 for side in ("a", "b")]
        return len(self.a.codes) // groups[0], len(self.b.codes) // groups[1]

    @property
    def sizes_of_all(self) -> tuple[int, ...]:
        """The lengths of its axes of batches, m, n and k."""
        return (*self.batch, *self.matrix, self.shape[2])

    def blocks(self) -> Iterator[tuple[tuple[int, ...], slice, slice]]:
        """Of each batch of the result its index, its rows of a, and its rows of b."""
        (m, n), laid = self.matrix, self.claim.laid
        of_a, of_b = (laid.of_result(side, self.batch) for side in ("a", "b"))
        for at in np.ndindex(self.batch):
            first, second = int(of_a[at]), int(of_b[at])
            yield at, slice(first * m, (first + 1) * m), slice(second * n, (second + 1) * n)

    def where(self, at: tuple[int, ...]) -> str:
        """Its size, and where a result of all rows and columns stands, in words."""
        m, n = self.matrix
        said = f"m={m} n={n} k={self.shape[2]}, result "
        if not self.batch:
            return said + str(list(at))
        index = self.batch_of(at)
        lengths = " x ".join(map(str, self.batch))
        return f"batches {lengths}, {said}{[*index, at[0] % m, at[1] % n]}"

    def batch_of(self, at: tuple[int, ...]) -> tuple[int, ...]:
        """In which batch of the result a row of a meets a row of b."""
        return next(
            index for index, rows, columns in self.blocks()
            if rows.start <= at[0] < rows.stop and columns.start <= at[1] < columns.stop
        )  # fmt: skip

    def cut(self, rows: list[int], columns: list[int], batch: list[list[int]] | None = None) -> Problem:
        """Some rows and columns of each batch alone; batch: which indices of each axis of batches remain."""
        axes = [[*range(n)] for n in self.batch] if batch is None else batch
        sides = []
        for name, size, kept in (("a", self.matrix[0], rows), ("b", self.matrix[1], columns)):
            groups = self.claim.laid.kept(name, self.batch, axes) if self.batch else [0]
            sides.append([group * size + row for group in groups for row in kept])
        bias = None if self.bias is None else self.bias[sides[1]]
        blend = None if self.blend is None else self.blend.kept(*sides)
        return replace(self, a=self.a.rows(sides[0]), b=self.b.rows(sides[1]), bias=bias, blend=blend,
                       batch=tuple(map(len, axes)))  # fmt: skip

    def scattered(self) -> Problem:
        """The product that is asked, whose rows and columns are some of these."""
        if self.scatter is None:
            return self
        found = replace(self, scatter=None).cut(self.scatter.rows, self.scatter.columns)
        return replace(found, batch=self.scatter.batch)

    @cached_property
    def few(self) -> Few | None:
        """The same of the rows and columns that differ, where these are much fewer; None elsewhere."""
        m, n, k = self.shape
        if m * n * k < LARGE:
            return None
        c = [] if self.blend is None or self.blend.c is None else [self.blend.c]
        bias = [] if self.bias is None else [self.bias[:, None]]
        first = self.a.alike(*c), self.b.alike(*(x.T for x in c), *bias)
        rows, columns = (list(dict.fromkeys(part)) for part in first)
        if len(rows) * len(columns) * FEWER > m * n:
            return None
        at = [dict(zip(part, range(len(part)), strict=True)) for part in (rows, columns)]
        places = [[where[row] for row in part] for where, part in zip(at, first, strict=True)]
        return Few(replace(self, batch=()).cut(rows, columns), places[0], places[1])

    @cached_property
    def exact(self) -> Float64:
        """The results [m, n] in float64: exact wherever `certificate.decided` says so."""
        if self.few is not None:
            return self.few.spread(self.few.problem.exact)
        a, b = self.a.values, self.b.values
        product = exact_product(a, b, self.flushed) if self.parts is None else self.parts.product(a, b)
        with np.errstate(all="ignore"):
            return self.added(self, product)

    def blended(self, product: Float64) -> Float64:
        """alpha times a product plus beta * c, where there are any."""
        return product if self.blend is None else self.blend.of(product, self._rounded)

    def _rounded(self, exact: Float64) -> Array:
        return rounded(exact, self.claim.out, self.claim.rounding)

    def turned_around(self) -> Problem:
        """The same with the rows of both sides in reverse, so that the results are, too."""
        backward = [[*range(rows)][::-1] for rows in self.shape[:2]]
        a, b = (side.rows(rows) for side, rows in zip((self.a, self.b), backward, strict=True))
        blend = None if self.blend is None else self.blend.kept(*backward)
        return replace(self, a=a, b=b, blend=blend, bias=None if self.bias is None else self.bias[::-1])

    def due(self) -> Array:
        """The exact results, rounded once to what comes out."""
        return self._rounded(self.exact)


# ---- ways of adding a bias that are known to be wrong ----------------------------------------------


def ignoring_bias(problem: Problem, product: Float64) -> Float64:
    """The bias counts 0."""
    return problem.blended(product)


def adding_bias_late(problem: Problem, product: Float64) -> Float64:
    """The bias is added to what has been rounded to the type that comes out."""
    found = rounded(problem.blended(product), problem.claim.out).astype(np.float64)
    return found if problem.bias is None else found + problem.bias


def scaling_bias(problem: Problem, product: Float64) -> Float64:
    """alpha multiplies the bias, too."""
    return problem.blended(product if problem.bias is None else product + problem.bias)


def adding_bias_to_c(problem: Problem, product: Float64) -> Float64:
    """beta multiplies the bias, too."""
    found = problem.blended(product)
    if problem.bias is None:
        return found
    return found + problem.bias * (1.0 if problem.blend is None else problem.blend.beta)


# ---- exact sums, rounded ---------------------------------------------------------------------------

SMALLEST = {"float32": 2.0**-126, "bfloat16": 2.0**-126, "float16": 2.0**-14}
"""The smallest normal number of what comes out."""


def exact_product(a: Float64, b: Float64, flushed: bool = False) -> Float64:
    """a times the rows of b in float64; NaN and Inf as IEEE 754 adds them.

    flushed: products below the smallest normal float32 are zeros.
    """
    with np.errstate(all="ignore"):
        if not a.size or not b.size:
            return np.zeros((len(a), len(b)))
        if flushed:
            terms = (a * row for row in b)
            found = np.stack([flush(term).sum(axis=1) for term in terms], axis=1)
        elif np.isfinite(a).all() and np.isfinite(b).all():
            found = a @ b.T
        else:
            found = np.stack([(a * row).sum(axis=1) for row in b], axis=1)
        return np.asarray(found)


def flush(x: Float64, least: float = SMALLEST["float32"]) -> Float64:
    """Numbers nearer to zero than the smallest normal one as zeros."""
    return np.where(np.abs(x) < least, 0.0, x)


def rounded(exact: Float64, out: str, rounding: str = "half_even") -> Array:
    """Exact results, rounded once to float32, float16, bfloat16 (as float32), or an int32 modulo 2**32.

    rounding: half_even, half_away, toward_zero, or flushed: half_even without subnormal numbers; float16 or
    bfloat16: rounded to that type first; largest: what is past the largest number becomes it, held: unless it
    is Inf itself; nan: what is Inf is NaN; of integers int8 and int16 where those wrap.

    >>> rounded(np.array([1 + 2.0**-8, 2.0**31]), "bfloat16").tolist(), rounded(np.array([2.0**31]), "int32")
    ([1.0, 2147483648.0], array([-2147483648], dtype=int32))
    """
    with np.errstate(all="ignore"):
        if out == "int32":
            return _wrapped(exact.astype(np.int64), WRAPS.get(rounding, 32)).astype(np.int32)
        if rounding == "toward_zero":
            return _toward_zero(exact, out)
        if rounding == "half_away":
            exact = _middle_away(exact, out)
        if rounding == "flushed":
            exact = flush(exact, SMALLEST[out])
        if rounding in VIA:
            exact = rounded(exact.astype(np.float32).astype(np.float64), rounding).astype(np.float64)
        found = to_bfloat16(exact) if out == "bfloat16" else np.asarray(exact.astype(out))
        if rounding in ENDS:
            end = np.nan if rounding == "nan" else TOP[out]
            past = np.isinf(found) & (np.isfinite(exact) if rounding == "held" else True)
            found = np.where(past, np.copysign(end, found), found).astype(found.dtype)
        return found


VIA = NARROWED
"""Types to which a deviation rounds first."""
ENDS = ("largest", "held", "nan")
TOP = {"float32": float(np.finfo(np.float32).max), "bfloat16": float(bfloat16.max), "float16": 65504.0}
"""The largest number of what comes out."""
GRID = {"float32": (24, -149), "bfloat16": (8, -133), "float16": (11, -24)}
"""Bits of a significand, and the exponent of the smallest number."""
WRAPS = {"int8": 8, "int16": 16}


def _wrapped(x: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    half = 1 << (bits - 1)
    return (x + half) % (1 << bits) - half


def to_bfloat16(exact: Float64) -> NDArray[np.float32]:
    """float64 to the nearest bfloat16, rounded once, as float32."""
    step = np.ldexp(1.0, np.maximum(np.frexp(exact)[1] - 8, -133))
    with np.errstate(all="ignore"):
        found = np.where(np.isfinite(exact), np.rint(exact / step) * step, exact)
        return np.where(np.abs(found) > bfloat16.max, np.copysign(np.inf, found), found).astype(np.float32)


def _middle_away(exact: Float64, out: str) -> Float64:
    """Exact results moved to the larger number where they lie in the middle between two of what comes out."""
    bits, least = GRID[out]
    step = np.ldexp(1.0, np.maximum(np.frexp(exact)[1] - bits, least))
    steps = np.abs(exact / step)
    return np.where(steps % 1 == 0.5, np.copysign(np.ceil(steps) * step, exact), exact)


def _toward_zero(exact: Float64, out: str) -> Array:
    bits, least = GRID[out]
    step = np.ldexp(1.0, np.maximum(np.frexp(exact)[1] - bits, least))
    found = np.where(np.isfinite(exact), np.trunc(exact / step) * step, exact)
    return found.astype("float16" if out == "float16" else "float32")


def with_side(problem: Problem, name: str, side: Side) -> Problem:
    """The same problem with another side; name: a or b."""
    return replace(problem, a=side) if name == "a" else replace(problem, b=side)
