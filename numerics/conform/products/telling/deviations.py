"""Known faults of products: each bends what a side means, or what the claim says, and predicts every result.

No order of additions is assumed: a deviation is judged on those results that are decided under it, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numerics.conform.products.blend import Blend, adding_late, scaling_both, scaling_late
from numerics.conform.products.certificate import Mask, answer, reach, results_of
from numerics.conform.products.claim import ACCUMULATORS, Operand
from numerics.conform.products.problem import (
    SMALLEST,
    VIA,
    Factors,
    Float64,
    Parts,
    Problem,
    Side,
    adding_bias_late,
    adding_bias_to_c,
    flush,
    ignoring_bias,
    scaling_bias,
    to_bfloat16,
)
from numerics.formats.floats import fp8_e4m3fnuz, fp8_e5m2

if TYPE_CHECKING:
    from numerics.conform.products.asking import Seen

Bend = Callable[[Problem], "Problem | None"]
"""What it makes of a problem; None where it says nothing of it."""
MOST = 3  # deviations at once
TOLD = 8  # wrong products, and right ones, that a deviation must explain before all are looked at
TERMS = 1 << 14  # of all sums of a product that is looked at whole; of a larger one some rows are
ROWS = 4  # of them, with their neighbours
FIRST = 4  # of them, by which guesses are sorted
FOLLOWED = 4  # guesses that are looked at further
AGAIN = 3  # times that other products are told, where those that were explained say too little
ENOUGH = 64  # decided results of the shapes that are wrong, where these alone are explained
NORMAL = "; subnormal numbers it does not explain"
ALONE = ", in shapes like this one: the others that were asked are right"


@dataclass(frozen=True)
class ProductDeviation:
    """A known way to be wrong: name, sentence, who was seen to do it, and what it makes of a problem."""

    name: str
    sentence: str
    bend: Bend
    seen_in: str = ""

    def __str__(self) -> str:
        return self.sentence + (f" (seen in {self.seen_in})" if self.seen_in else "")


def bent(side: Side, **changes: Float64) -> Side:
    """A side that stands for other numbers than its codes say."""
    return replace(side, meant=replace(side.factors, **changes))


def of_sides(change: Callable[[Side, Problem], Side], *names: str) -> Bend:
    """A bend of one side or both."""

    def bend(problem: Problem) -> Problem:
        sides = {name: change(getattr(problem, name), problem) for name in names or ("a", "b")}
        return replace(problem, a=sides.get("a", problem.a), b=sides.get("b", problem.b))

    return bend


def of_claim(**changes: object) -> Bend:
    """Another accumulator, or another rounding of what comes out."""

    def bend(problem: Problem) -> Problem:
        return replace(problem, claim=replace(problem.claim, **changes))  # type: ignore[arg-type]

    return bend


# ---- what a side means -----------------------------------------------------------------------------


def _swapped(problem: Problem) -> Problem | None:
    """Behind the last code of an odd row stands what nobody knows."""
    side, length = problem.b, problem.shape[2]
    if side.op.bits != 4 or length % 2:
        return None
    order = np.arange(length) ^ 1
    return replace(problem, b=bent(side, element=side.factors.element[:, order]))


def _shifted_byte(*bytes_: int) -> Callable[[Side, Problem], Side]:
    """Some bytes of e8m0 as a shift makes float32 of them; all others as they are."""

    def change(side: Side, problem: Problem) -> Side:
        if side.op.scale is None or side.op.scale.name != "e8m0" or side.scale is None:
            return side
        values = (side.scale.astype(np.uint32) << np.uint32(23)).view(np.float32).astype(np.float64)
        shifted = np.asarray(side.spread(values) * side.number)
        return bent(
            side, scale=np.where(side.spread(np.isin(side.scale, bytes_)), shifted, side.factors.scale)
        )

    return change


def _no_subnormals(side: Side, problem: Problem) -> Side:
    element = side.op.element
    least = getattr(element, "smallest_normal", None)
    if least is None or side.op.is_integer:
        return side
    f = side.factors
    return bent(side, element=np.where(np.abs(f.element) < least, 0.0, f.element))


def _nan_is_large(side: Side, problem: Problem) -> Side:
    f, element = side.factors, side.op.element
    if element is None or side.op.is_value or not np.isnan(f.element).any():
        return side
    past = element.max * 480 / 448 if element.name == "fp8_e4m3" else element.max
    sign = np.where(side.codes >> (element.bits - 1) & 1, -1.0, 1.0)
    return bent(side, element=np.where(np.isnan(f.element), sign * past, f.element))


def _other_table(dtype: object) -> Callable[[Side, Problem], Side]:
    def change(side: Side, problem: Problem) -> Side:
        if side.op.element is None or side.op.element.name != "fp8_e4m3":
            return side
        other = Operand.of(dtype)
        from numerics.conform.products.problem import meanings

        return bent(side, element=meanings(other)[side.codes])

    return change


def _in_bfloat16(side: Side, problem: Problem) -> Side:
    f = side.factors
    if side.op.is_value:
        return bent(side, element=to_bfloat16(f.element).astype(np.float64))
    if side.op.share == "none":
        return side
    return _whole(side, to_bfloat16(f.values).astype(np.float64))


def _in_float16(side: Side, problem: Problem) -> Side:
    with np.errstate(over="ignore"):
        return _whole(side, side.values.astype(np.float16).astype(np.float64))


def _in_tf32(more: Callable[[NDArray[np.uint32]], NDArray[np.uint32]]) -> Callable[[Side, Problem], Side]:
    """Numbers of 11 bits; more: what is added to the bits of a float32 before its last 13 are cut off."""

    def change(side: Side, problem: Problem) -> Side:
        with np.errstate(over="ignore"):
            bits = side.values.astype(np.float32).view(np.uint32)
        kept = ((bits + more(bits)) & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)
        return _whole(side, np.where(np.isfinite(side.values), kept, side.values))

    return change


def _whole(side: Side, values: Float64) -> Side:
    ones = np.ones_like(values)
    return bent(side, element=values, zero=ones * 0, scale=ones)


def _in_int8(reach: int) -> Callable[[Side, Problem], Side]:
    def change(side: Side, problem: Problem) -> Side:
        if not side.op.is_value:
            return side
        rows, length = side.codes.shape
        size = min(reach, length)
        groups = -(-length // size)
        room = np.zeros((rows, groups * size), np.float32)
        room[:, :length] = side.codes
        room = room.reshape(rows, groups, size)
        with np.errstate(all="ignore"):
            scale = np.abs(room).max(axis=2, keepdims=True) / np.float32(127)
            whole = np.where(scale > 0, np.rint(room / np.where(scale > 0, scale, 1)), 0)
        codes, scales = (
            np.broadcast_to(part, room.shape).reshape(rows, -1)[:, :length].astype(np.float64)
            for part in (whole, scale)
        )
        return bent(side, element=codes, zero=np.zeros_like(codes), scale=scales)

    return change


def _rounded_scale(kind: str) -> Callable[[Side, Problem], Side]:
    def change(side: Side, problem: Problem) -> Side:
        if side.scale is None or side.scale.dtype.kind != "f":
            return side
        with np.errstate(over="ignore"):
            one = (
                to_bfloat16(side.scale.astype(np.float64))
                if kind == "bfloat16"
                else side.scale.astype(np.float16)
            )
        return bent(side, scale=np.asarray(side.spread(one.astype(np.float64)) * side.number))

    return change


def _absolute_scale(side: Side, problem: Problem) -> Side:
    return bent(side, scale=np.abs(side.factors.scale))


def _assumed_zero(zero: float | None) -> Callable[[Side, Problem], Side]:
    def change(side: Side, problem: Problem) -> Side:
        if side.zero is None:
            return side
        due = float(1 << (side.op.bits - 1)) if zero is None else zero
        return bent(side, zero=np.full_like(side.factors.zero, due))

    return change


def _no_number(side: Side, problem: Problem) -> Side:
    return bent(side, scale=side.factors.scale / side.number)


def _scale_of(shift: Callable[[int, int], int]) -> Callable[[Side, Problem], Side]:
    """The scale of another block: shift(block, blocks)."""

    def change(side: Side, problem: Problem) -> Side:
        if side.op.size == 0 or side.scale is None:
            return side
        blocks = side.scale.shape[1]
        order = [shift(j, blocks) for j in range(blocks)]
        micro = None if side.micro is None else side.micro[:, order]
        other = replace(side, scale=side.scale[:, order], micro=micro, meant=None)
        return bent(side, scale=other.factors.scale)

    return change


def _rows_swapped(side: Side, problem: Problem) -> Side:
    rows = len(side.codes)
    if side.scale is None or len(side.scale) != rows:
        return side
    order = np.minimum(np.arange(rows) ^ 1, rows - 1)
    return bent(side, scale=replace(side, scale=side.scale[order], meant=None).factors.scale)


def _tail(unit: int, single: bool = False) -> Callable[[Side, Problem], Side]:
    def change(side: Side, problem: Problem) -> Side:
        length = side.codes.shape[1]
        if single and len(problem.a.codes) != 1:
            return side
        keep = np.arange(length) < length // unit * unit
        f: Factors = side.factors
        return bent(
            side,
            element=np.where(keep, f.element, 0.0),
            zero=np.where(keep, f.zero, 0.0),
            scale=np.where(keep, f.scale, 1.0),
        )

    return change


def _unsigned(side: Side, problem: Problem) -> Side:
    if not side.op.is_integer or side.zero is not None:
        return side
    return bent(side, element=side.codes.astype(np.float64))


def _signed(side: Side, problem: Problem) -> Side:
    """Codes of 8 bits without a sign, read as int8."""
    if not side.op.is_integer or side.zero is not None or getattr(side.op.element, "signed", True):
        return side
    half = 1 << (side.op.bits - 1)
    codes = side.codes.astype(np.float64)
    return bent(side, element=np.where(codes >= half, codes - 2 * half, codes))


def _small_values(which: Callable[[Side], bool]) -> Callable[[Side, Problem], Side]:
    """Subnormal numbers of some sides as zeros: plain ones of their type, decoded ones of float32."""

    def change(side: Side, problem: Problem) -> Side:
        kind = str(side.op.name) if side.op.is_value else "float32"
        return _whole(side, flush(side.values, SMALLEST[kind])) if which(side) else side

    return change


def _products(problem: Problem) -> Problem:
    return replace(problem, flushed=True)


_FLUSHED_INPUTS = _small_values(lambda side: side.op.is_value)
_INPUTS = of_sides(_FLUSHED_INPUTS)
_WEIGHTS = of_sides(_small_values(lambda side: not side.op.is_value))
_RESULTS = of_claim(rounding="flushed")


def _everywhere(problem: Problem) -> Problem | None:
    found: Problem | None = problem
    for bend in (_INPUTS, _WEIGHTS, _products, _RESULTS):
        found = None if found is None else bend(found)
    return found


def _accumulates(name: str) -> Bend:
    """Sums in an accumulator; of a narrow type the nearest number of it, as a sum of two terms shows."""
    kept = {"rounding": name} if name in VIA else {}
    return of_claim(accumulate=ACCUMULATORS[name], **kept)


def _pairs_within_int16(problem: Problem) -> Problem:
    return replace(problem, parts=Parts(2, "int16")) if problem.claim.integers else problem


def _in_parts(parts: Parts) -> ProductDeviation:
    """Sums of some terms each that are rounded before they are added: split-K in a narrow type."""
    several = " and their sums" * parts.kept
    return ProductDeviation(
        f"parts of {parts.length}{several} in {parts.kind}",
        f"the sum of each {parts.length} terms is rounded to {parts.kind}, and then added"
        + f" to a sum in {parts.kind}" * parts.kept,
        lambda problem: replace(problem, parts=parts),
        "split-K whose partial sums have the type that comes out",
    )


PARTS = tuple(Parts(1 << n, kind, kept) for n in range(12, 4, -1) for kind in VIA for kept in (False, True))
"""Split-K: 4096 to 32 terms each, long ones first, since short parts explain of one sum what long ones do."""


class Narrower(NamedTuple):
    """A type to which operands are rounded first: its name, what is done, who was seen to do it."""

    name: str
    done: str
    change: Callable[[Side, Problem], Side]
    seen_in: str = ""


NARROWER = (
    Narrower("bfloat16", "rounded to bfloat16", _in_bfloat16),
    Narrower("float16", "rounded to float16", _in_float16),
    Narrower("tf32", "cut to 11 bits", _in_tf32(np.zeros_like), "tensor cores by default"),
    Narrower("tf32, to nearest", "rounded to 11 bits, halves to even",
             _in_tf32(lambda bits: np.uint32(0xFFF) + (bits >> np.uint32(13) & np.uint32(1)))),
    Narrower("tf32, halves away", "rounded to 11 bits, halves away from zero",
             _in_tf32(lambda bits: np.full_like(bits, 0x1000)), "cvt.rna.tf32.f32"),
)  # fmt: skip
NARROWED_SIDES = tuple(
    ProductDeviation(
        f"{which} in {one.name}", f"{said} {one.done} first", of_sides(one.change, *sides), one.seen_in
    )
    for which, said, sides in (("a", "a is", "a"), ("b", "b is", "b"), ("both", "both operands are", "ab"))
    for one in NARROWER
)
"""Operands in a narrower type: one of them, and both, which is less simple and comes later."""

DEVIATIONS: tuple[ProductDeviation, ...] = (
    ProductDeviation(
        "flushes subnormal inputs",
        "plain numbers below the smallest normal one of their type count 0",
        _INPUTS,
    ),
    *(
        ProductDeviation(
            f"flushes subnormal inputs of {name}",
            f"plain numbers of {name} below the smallest normal one of their type count 0",
            of_sides(_FLUSHED_INPUTS, name),
        )
        for name in ("a", "b")
    ),
    ProductDeviation(
        "flushes subnormal weights", "decoded numbers below the smallest normal float32 count 0", _WEIGHTS
    ),
    ProductDeviation(
        "flushes subnormal products", "terms below the smallest normal float32 count 0", _products
    ),
    ProductDeviation(
        "flushes subnormal results", "results below the smallest normal number become 0", _RESULTS
    ),
    ProductDeviation(
        "flushes subnormal numbers",
        "inputs, decoded weights, products and results below the smallest normal number count 0",
        _everywhere,
        "threads and GPU kernels that flush denormals",
    ),
    ProductDeviation("nibbles swapped", "b's codes of 4 bits are read high nibble first", _swapped),
    ProductDeviation(
        "scale byte 0 counts 0", "the least scale, 2**-127, counts 0", of_sides(_shifted_byte(0))
    ),
    ProductDeviation(
        "scale byte 255 is Inf",
        "the scale that says NaN counts Inf",
        of_sides(_shifted_byte(255)),
        "mlx 0.32",
    ),
    ProductDeviation(
        "scale byte << 23",
        "a scale byte becomes float32 by a shift: 0 counts 0, 255 Inf",
        of_sides(_shifted_byte(0, 255)),
    ),
    ProductDeviation(
        "subnormal codes are zero", "elements below the least normal one count 0", of_sides(_no_subnormals)
    ),
    ProductDeviation(
        "NaN code is a number",
        "the code of NaN counts as the next value, 480 in fp8_e4m3",
        of_sides(_nan_is_large),
    ),
    ProductDeviation("fnuz table", "fp8_e4m3 is read as fp8_e4m3fnuz", of_sides(_other_table(fp8_e4m3fnuz))),
    ProductDeviation("e5m2 table", "fp8_e4m3 is read as fp8_e5m2", of_sides(_other_table(fp8_e5m2))),
    *NARROWED_SIDES,
    ProductDeviation(
        "a in int8/32",
        "a is rounded to int8 by blocks of 32",
        of_sides(_in_int8(32), "a"),
        "onnxruntime MatMulNBits accuracy_level 4",
    ),
    ProductDeviation(
        "a in int8/row",
        "a is rounded to int8 by rows",
        of_sides(_in_int8(1 << 20), "a"),
        "dynamic quantization",
    ),
    *(
        ProductDeviation(
            f"scales{said} in {kind}",
            f"scales{said} are rounded to {kind} before they are used",
            of_sides(_rounded_scale(kind), *names),
        )
        for kind in VIA[::-1]
        for said, names in (("", ()), (" of a", ("a",)), (" of b", ("b",)))
    ),
    ProductDeviation(
        "scales without their sign", "the magnitudes of scales are taken", of_sides(_absolute_scale)
    ),
    ProductDeviation(
        "zero point assumed",
        "the middle code is taken for every zero point",
        of_sides(_assumed_zero(None)),
        "kernels for symmetric weights",
    ),
    ProductDeviation("zero point ignored", "zero points count 0", of_sides(_assumed_zero(0.0))),
    ProductDeviation(
        "tensor scale forgotten", "the scale of the whole tensor is left out", of_sides(_no_number, "b")
    ),
    ProductDeviation(
        "scale of the block before",
        "b takes the scale of the block before",
        of_sides(_scale_of(lambda j, n: max(j - 1, 0)), "b"),
    ),
    ProductDeviation(
        "last block has the scale before",
        "b's last block takes the scale before it",
        of_sides(_scale_of(lambda j, n: min(j, max(n - 2, 0))), "b"),
    ),
    ProductDeviation(
        "scale of block 0",
        "every block of b takes the scale of the first",
        of_sides(_scale_of(lambda j, n: 0), "b"),
        "torch-xpu-ops 4765, one row",
    ),
    ProductDeviation(
        "scale of the neighbour row", "rows of b take each other's scales", of_sides(_rows_swapped, "b")
    ),
    ProductDeviation("tail of 32 dropped", "what is left over of 32 is not summed", of_sides(_tail(32))),
    ProductDeviation("tail of 16 dropped", "what is left over of 16 is not summed", of_sides(_tail(16))),
    ProductDeviation(
        "tail of 64 dropped", "what is left over of 64 is not summed", of_sides(_tail(64)), "mlx 3444"
    ),
    ProductDeviation(
        "tail dropped at m=1",
        "of one row what is left over of 32 is not summed",
        of_sides(_tail(32, single=True)),
    ),
    ProductDeviation(
        "codes read as unsigned", "b's integers are read without their sign", of_sides(_unsigned, "b")
    ),
    *(
        ProductDeviation(
            f"codes of {name} read as signed",
            f"integers of {name} without a sign are read as if they had one",
            of_sides(_signed, name),
        )
        for name in "ab"
    ),
    ProductDeviation(
        "pairs saturate at int16",
        "the sum of every two neighbouring terms is held within int16, and then added",
        _pairs_within_int16,
        "vpmaddubsw; onnxruntime's MatMulInteger of uint8 by int8 on AVX2",
    ),
    ProductDeviation("accumulates in float16", "sums are kept in float16", _accumulates("float16")),
    ProductDeviation(
        "accumulates in bfloat16",
        "sums are kept in bfloat16",
        _accumulates("bfloat16"),
        "mlx 0.32.4 on the CPU",
    ),
    ProductDeviation(
        "14 bits",
        "sums hold 13 bits below their largest term",
        _accumulates("hopper_fp8"),
        "NVIDIA H100, fp8",
    ),
    ProductDeviation(
        "wraps at int8", "sums are kept in int8", of_claim(rounding="int8"), "numpy int8 @ int8"
    ),
    ProductDeviation("wraps at int16", "sums are kept in int16", of_claim(rounding="int16")),
    ProductDeviation(
        "output truncated", "the sum is cut to the type that comes out", of_claim(rounding="toward_zero")
    ),
    ProductDeviation(
        "output half away",
        "the middle between two numbers of the type that comes out goes away from zero",
        of_claim(rounding="half_away"),
    ),
    *(
        ProductDeviation(
            f"through {kind}",
            f"the sum is rounded to {kind}, and then to what comes out",
            of_claim(rounding=kind),
        )
        for kind in VIA
    ),
    ProductDeviation("saturates", "the largest number comes in place of Inf", of_claim(rounding="largest")),
    ProductDeviation(
        "finite sums saturate",
        "the largest number comes in place of what is past it, and Inf where an operand is Inf",
        of_claim(rounding="held"),
    ),
    ProductDeviation(
        "Inf becomes NaN",
        "NaN comes in place of Inf, as where shifts of codes are summed apart",
        of_claim(rounding="nan"),
    ),
    *map(_in_parts, PARTS),
)


TOGETHER = tuple(
    (one, through)
    for one in NARROWED_SIDES
    for through in DEVIATIONS
    if through.name in map("through {}".format, VIA)
)
"""Operands in a narrower type, and results that go through one."""


def _with_blend(change: Callable[[Blend], Blend]) -> Bend:
    def bend(problem: Problem) -> Problem:
        return problem if problem.blend is None else replace(problem, blend=change(problem.blend))

    return bend


def _alone(problem: Problem) -> Problem | None:
    """c where alpha is 0 and beta is not; where both are, the result is memory of which nobody knows."""
    blend = problem.blend
    if blend is None or blend.alpha != 0:
        return problem
    return None if blend.beta == 0 else replace(problem, blend=replace(blend, beta=1.0))


def _in_bfloat16_too(blend: Blend) -> Blend:
    alpha, beta = to_bfloat16(np.array([blend.alpha, blend.beta], np.float64))
    return replace(blend, alpha=float(alpha), beta=float(beta))


OF_BLENDS: tuple[ProductDeviation, ...] = (
    ProductDeviation("alpha ignored", "alpha counts 1", _with_blend(lambda blend: replace(blend, alpha=1.0))),
    ProductDeviation(
        "beta ignored",
        "beta counts 1, also where it is 0",
        _with_blend(lambda blend: replace(blend, beta=1.0)),
    ),
    ProductDeviation(
        "beta counts 1",
        "c is added as it is wherever beta is not 0",
        _with_blend(lambda blend: replace(blend, beta=float(blend.beta != 0))),
    ),
    ProductDeviation("c ignored", "c counts 0", _with_blend(lambda blend: replace(blend, c=None))),
    ProductDeviation(
        "c read where beta is 0",
        "c is multiplied by beta also where that is 0: its NaN and Inf come out",
        _with_blend(lambda blend: replace(blend, reads=True)),
    ),
    ProductDeviation(
        "c left where alpha is 0",
        "where alpha is 0, c comes out as it is, not times beta; where beta is 0 too, nothing is written",
        _alone,
        "torch 2.13's baddbmm of bfloat16 and float16 on AVX-512",
    ),
    ProductDeviation(
        "alpha and beta exchanged",
        "beta multiplies the product, and alpha c",
        _with_blend(lambda blend: replace(blend, alpha=blend.beta, beta=blend.alpha)),
    ),
    ProductDeviation(
        "alpha of c, too",
        "alpha multiplies what beta * c has been added to",
        _with_blend(lambda blend: replace(blend, way=scaling_both)),
    ),
    ProductDeviation(
        "alpha twice",
        "alpha multiplies both operands",
        _with_blend(lambda blend: replace(blend, alpha=blend.alpha**2)),
    ),
    ProductDeviation(
        "alpha after rounding",
        "alpha multiplies sums that have been rounded to the type that comes out",
        _with_blend(lambda blend: replace(blend, way=scaling_late)),
    ),
    ProductDeviation(
        "c after rounding",
        "beta * c is added to products that have been rounded to the type that comes out",
        _with_blend(lambda blend: replace(blend, way=adding_late)),
    ),
    ProductDeviation(
        "alpha and beta in bfloat16", "alpha and beta are rounded to bfloat16", _with_blend(_in_bfloat16_too)
    ),
)
"""Those of products that alpha multiplies, or that beta * c is added to."""


def _with_bias(added: Callable[[Problem, Float64], Float64]) -> Bend:
    def bend(problem: Problem) -> Problem:
        return problem if problem.bias is None else replace(problem, added=added)

    return bend


OF_BIASES: tuple[ProductDeviation, ...] = (
    ProductDeviation("bias ignored", "the bias counts 0", _with_bias(ignoring_bias)),
    ProductDeviation(
        "bias after rounding",
        "the bias is added to results that have been rounded to the type that comes out",
        _with_bias(adding_bias_late),
    ),
    ProductDeviation("alpha of the bias, too", "alpha multiplies the bias, too", _with_bias(scaling_bias)),
    ProductDeviation("beta of the bias, too", "beta multiplies the bias, too", _with_bias(adding_bias_to_c)),
)
"""Those of products to which a bias is added."""

# ---- which of them explain what came ---------------------------------------------------------------


def explained(seen: Sequence[Seen]) -> tuple[ProductDeviation, ...]:
    """The fewest deviations that give everything that came and is decided under them; none where none do.

    Of those that explain as much, the one under which most of what is wrong is decided: it says most of it.
    Where none explains all, those that explain everything of products without subnormal numbers, or else of
    the shapes in which something is wrong: kernels go other ways in others.
    """
    if found := _explaining(seen):
        return found
    shapes = {_form(one) for one in seen if one.wrong.any()}
    normal = [one for one in seen if one.problem.law != "subnormals"]
    for some, said in ((normal, NORMAL), ([one for one in seen if _form(one) in shapes], ALONE)):
        told = len(some) < len(seen) and any(one.wrong.any() for one in some)
        enough = told and sum(int(one.decided.sum()) for one in some) >= ENOUGH
        if enough and (found := _explaining(some)):
            return tuple(replace(one, sentence=one.sentence + said) for one in found)
    return ()


def _form(seen: Seen) -> tuple[tuple[int, ...], ...]:
    return seen.problem.shape, seen.problem.batch


def _explaining(seen: Sequence[Seen]) -> tuple[ProductDeviation, ...]:
    told = _telling(seen)
    for _ in range(AGAIN):
        spoken = _fewest(told, seen)
        if not spoken or not _unexplained(spoken, seen)[0]:
            return spoken if all(_says_something(one, spoken, seen) for one in spoken) else ()
        against = [one for one in seen if _counted(spoken, [one])[0]]
        told = [*(against or [one for one in seen if one.wrong.any()])[:FIRST], *told]
    return ()


def _says_something(one: ProductDeviation, spoken: Sequence[ProductDeviation], seen: Sequence[Seen]) -> bool:
    """Does a deviation give a result that the others do not, where it is not alone?

    Another accumulator leaves fewer results decided: so it may explain all that came, and say nothing.
    """
    others = [other for other in spoken if other is not one]
    bent_ = one.bend(seen[0].problem)
    if not others or bent_ is None or bent_.claim.accumulate == seen[0].problem.claim.accumulate:
        return True
    return any(bool((_given(spoken, each) & ~_given(others, each)).any()) for each in seen)


def _given(spoken: Sequence[ProductDeviation], seen: Seen) -> Mask:
    """The wrong results that deviations give, to the last bit."""
    from numerics.conform.products.asking import unequal

    problem = _bent(spoken, seen.problem)
    if problem is None:
        return np.zeros(seen.came.shape, np.bool_)
    due, decided = answer(problem)
    return np.asarray(seen.wrong & decided & ~unequal(seen.came, due))


def _bent(spoken: Sequence[ProductDeviation], problem: Problem) -> Problem | None:
    """What deviations make of a problem, one after the other; None where they say nothing of it."""
    found: Problem | None = problem
    with np.errstate(all="ignore"):
        for deviation in spoken:
            found = None if found is None else deviation.bend(found)
    return found


def _fewest(told: Sequence[Seen], seen: Sequence[Seen]) -> tuple[ProductDeviation, ...]:
    """The fewest deviations that explain some products, and all that were seen if any do; else none.

    Two that meet under autocast are tried together, since neither alone explains more than others do.
    """
    found = _one_by_one(told, seen)
    if len(found) == 1:
        return found
    parts = (told[:FIRST], told, seen)
    fitting: list[tuple[ProductDeviation, ...]]
    fitting = [two for two in TOGETHER if not any(_unexplained(two, part)[0] for part in parts)]
    fitting += [found] if found else []
    return min(fitting, key=lambda some: (len(some), _unexplained(some, seen)), default=())


def _one_by_one(told: Sequence[Seen], seen: Sequence[Seen]) -> tuple[ProductDeviation, ...]:
    """The same, where each of them explains more."""
    claim = seen[0].problem.claim
    known = OF_BLENDS * claim.blends + OF_BIASES * claim.bias + DEVIATIONS
    spoken: tuple[ProductDeviation, ...] = ()
    left = _unexplained(spoken, told)
    while left[0] and len(spoken) < MOST:
        guesses = [(*spoken, one) for one in known if one not in spoken]
        first = sorted(guesses, key=lambda guess: _unexplained(guess, told[:FIRST]))
        followed = sorted((_unexplained(guess, told), place) for place, guess in enumerate(first[:FOLLOWED]))
        for (missed, _), place in followed:
            if not missed and not _unexplained(first[place], seen)[0]:
                return first[place]
        found, place = followed[0]
        if found[0] >= left[0]:
            return ()
        spoken, left = first[place], found
    return spoken if not left[0] else ()


def _telling(seen: Sequence[Seen]) -> list[Seen]:
    """The small ones of those that are wrong, and some that are right."""
    size = sorted(seen, key=lambda one: one.came.size * one.problem.shape[2])
    wrong = [one for one in size if one.wrong.any()]
    right = [one for one in size if not one.wrong.any()]
    chosen = wrong[:: -(-len(wrong) // TOLD) or 1] + right[:: -(-len(right) // TOLD) or 1]
    return [_smaller(one) for one in chosen]


def _smaller(seen: Seen) -> Seen:
    """Of many terms some rows and columns, wrong ones first, each with its neighbour; else all of it."""
    if seen.came.size * seen.problem.shape[2] <= TERMS:
        return seen
    kept = []
    for axis, size in enumerate(seen.problem.matrix):
        wrong = np.flatnonzero(seen.wrong.any(axis=1 - axis)) % size
        first = np.unique(np.concatenate([wrong[:ROWS], np.arange(0, ROWS - min(len(wrong), ROWS))]) // 2 * 2)
        kept.append([int(i) for pair in first for i in (pair, pair + 1) if i < size])
    return seen.cut(kept[0], kept[1])


def _unexplained(spoken: Sequence[ProductDeviation], seen: Sequence[Seen]) -> tuple[int, int]:
    """Results that differ from what is predicted, one more where few of the wrong ones are; less of these."""
    left, wrong, told = _counted(spoken, seen)
    return left + (2 * told < wrong or not told), -told


def _counted(spoken: Sequence[ProductDeviation], seen: Sequence[Seen]) -> tuple[int, int, int]:
    """How many results differ from what is predicted; how many are wrong, and of these predicted.

    What is wrong and comes near both to what is due and to what is predicted speaks for nothing.  Where
    nothing is said of any product that is wrong, all of these results differ.
    """
    from numerics.conform.products.asking import unequal

    left, wrong, told, silent = 0, 0, 0, 0
    for one in seen:
        problem = _bent(spoken, one.problem)
        if problem is None:
            silent += int(one.wrong.sum())
        else:
            due, decided = answer(problem)
            missed, near = _near(problem, one, decided)
            left += int(((unequal(one.came, due) & decided) | missed).sum())
            told_so = decided | (near & _near(problem, replace(one, came=one.due), decided)[0])
            wrong += int((one.wrong & ~(near & ~told_so)).sum())
            told += int((one.wrong & told_so).sum())
    return left + (0 if wrong else silent), wrong, told


def _near(problem: Problem, seen: Seen, decided: Mask) -> tuple[Mask, Mask]:
    """Of what is not decided: where no order of additions comes so far, and where one may.

    Numbers of all bits, as of an operand that is quantized on the way, have few sums that no order changes.
    """
    asked, nothing = seen.problem, np.zeros(decided.shape, np.bool_)
    others = (problem.blend, problem.parts, problem.flushed, problem.added)
    bent = others != (None, asked.parts, asked.flushed, asked.added)
    if bent or problem.claim.rounding not in ("half_even", *VIA) or decided.all():
        return nothing, nothing
    with np.errstate(all="ignore"):
        open_ = ~decided & np.isfinite(seen.came) & np.isfinite(problem.exact) & results_of(problem)
        near = np.abs(seen.came - problem.exact) <= reach(problem)
    return open_ & ~near, open_ & near
