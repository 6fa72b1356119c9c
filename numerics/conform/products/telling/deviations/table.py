"""The known faults of products: simple ones first, since of those that explain as much the first is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from numerics.conform.products.blend import adding_late, scaling_both, scaling_late
from numerics.conform.products.problem import (
    VIA,
    Parts,
    Problem,
    Side,
    adding_bias_late,
    adding_bias_to_c,
    ignoring_bias,
    scaling_bias,
)
from numerics.conform.products.telling.deviations import bends
from numerics.conform.products.telling.deviations.deviation import ProductDeviation, of_claim, of_sides
from numerics.formats.floats import fp8_e4m3fnuz, fp8_e5m2


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
    Narrower("bfloat16", "rounded to bfloat16", bends.in_bfloat16),
    Narrower("float16", "rounded to float16", bends.in_float16),
    Narrower("tf32", "cut to 11 bits", bends.in_tf32(np.zeros_like), "tensor cores by default"),
    Narrower("tf32, to nearest", "rounded to 11 bits, halves to even",
             bends.in_tf32(lambda bits: np.uint32(0xFFF) + (bits >> np.uint32(13) & np.uint32(1)))),
    Narrower("tf32, halves away", "rounded to 11 bits, halves away from zero",
             bends.in_tf32(lambda bits: np.full_like(bits, 0x1000)), "cvt.rna.tf32.f32"),
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
        bends.INPUTS,
    ),
    *(
        ProductDeviation(
            f"flushes subnormal inputs of {name}",
            f"plain numbers of {name} below the smallest normal one of their type count 0",
            of_sides(bends.flushed_inputs, name),
        )
        for name in ("a", "b")
    ),
    ProductDeviation(
        "flushes subnormal weights",
        "decoded numbers below the smallest normal float32 count 0",
        bends.WEIGHTS,
    ),
    ProductDeviation(
        "flushes subnormal products",
        "terms below the smallest normal float32 count 0",
        bends.flushed_products,
    ),
    ProductDeviation(
        "flushes subnormal results", "results below the smallest normal number become 0", bends.RESULTS
    ),
    ProductDeviation(
        "flushes subnormal numbers",
        "inputs, decoded weights, products and results below the smallest normal number count 0",
        bends.flushed_everywhere,
        "threads and GPU kernels that flush denormals",
    ),
    ProductDeviation(
        "nibbles swapped", "b's codes of 4 bits are read high nibble first", bends.nibbles_swapped
    ),
    ProductDeviation(
        "scale byte 0 counts 0", "the least scale, 2**-127, counts 0", of_sides(bends.shifted_byte(0))
    ),
    ProductDeviation(
        "scale byte 255 is Inf",
        "the scale that says NaN counts Inf",
        of_sides(bends.shifted_byte(255)),
        "mlx 0.32",
    ),
    ProductDeviation(
        "scale byte << 23",
        "a scale byte becomes float32 by a shift: 0 counts 0, 255 Inf",
        of_sides(bends.shifted_byte(0, 255)),
    ),
    ProductDeviation(
        "subnormal codes are zero",
        "elements below the least normal one count 0",
        of_sides(bends.no_subnormals),
    ),
    ProductDeviation(
        "NaN code is a number",
        "the code of NaN counts as the next value, 480 in fp8_e4m3",
        of_sides(bends.nan_is_large),
    ),
    ProductDeviation(
        "fnuz table", "fp8_e4m3 is read as fp8_e4m3fnuz", of_sides(bends.other_table(fp8_e4m3fnuz))
    ),
    ProductDeviation("e5m2 table", "fp8_e4m3 is read as fp8_e5m2", of_sides(bends.other_table(fp8_e5m2))),
    *NARROWED_SIDES,
    ProductDeviation(
        "a in int8/32",
        "a is rounded to int8 by blocks of 32",
        of_sides(bends.in_int8(32), "a"),
        "onnxruntime MatMulNBits accuracy_level 4",
    ),
    ProductDeviation(
        "a in int8/row",
        "a is rounded to int8 by rows",
        of_sides(bends.in_int8(1 << 20), "a"),
        "dynamic quantization",
    ),
    *(
        ProductDeviation(
            f"scales{said} in {kind}",
            f"scales{said} are rounded to {kind} before they are used",
            of_sides(bends.rounded_scale(kind), *names),
        )
        for kind in VIA[::-1]
        for said, names in (("", ()), (" of a", ("a",)), (" of b", ("b",)))
    ),
    ProductDeviation(
        "scales without their sign", "the magnitudes of scales are taken", of_sides(bends.absolute_scale)
    ),
    ProductDeviation(
        "zero point assumed",
        "the middle code is taken for every zero point",
        of_sides(bends.assumed_zero(None)),
        "kernels for symmetric weights",
    ),
    ProductDeviation("zero point ignored", "zero points count 0", of_sides(bends.assumed_zero(0.0))),
    ProductDeviation(
        "tensor scale forgotten", "the scale of the whole tensor is left out", of_sides(bends.no_number, "b")
    ),
    ProductDeviation(
        "scale of the block before",
        "b takes the scale of the block before",
        of_sides(bends.scale_of(lambda j, n: max(j - 1, 0)), "b"),
    ),
    ProductDeviation(
        "last block has the scale before",
        "b's last block takes the scale before it",
        of_sides(bends.scale_of(lambda j, n: min(j, max(n - 2, 0))), "b"),
    ),
    ProductDeviation(
        "scale of block 0",
        "every block of b takes the scale of the first",
        of_sides(bends.scale_of(lambda j, n: 0), "b"),
        "torch-xpu-ops 4765, one row",
    ),
    ProductDeviation(
        "scale of the neighbour row", "rows of b take each other's scales", of_sides(bends.rows_swapped, "b")
    ),
    ProductDeviation(
        "tail of 32 dropped", "what is left over of 32 is not summed", of_sides(bends.without_tail(32))
    ),
    ProductDeviation(
        "tail of 16 dropped", "what is left over of 16 is not summed", of_sides(bends.without_tail(16))
    ),
    ProductDeviation(
        "tail of 64 dropped",
        "what is left over of 64 is not summed",
        of_sides(bends.without_tail(64)),
        "mlx 3444",
    ),
    ProductDeviation(
        "tail dropped at m=1",
        "of one row what is left over of 32 is not summed",
        of_sides(bends.without_tail(32, single=True)),
    ),
    ProductDeviation(
        "codes read as unsigned", "b's integers are read without their sign", of_sides(bends.unsigned, "b")
    ),
    *(
        ProductDeviation(
            f"codes of {name} read as signed",
            f"integers of {name} without a sign are read as if they had one",
            of_sides(bends.signed, name),
        )
        for name in "ab"
    ),
    ProductDeviation(
        "pairs saturate at int16",
        "the sum of every two neighbouring terms is held within int16, and then added",
        bends.pairs_within_int16,
        "vpmaddubsw; onnxruntime's MatMulInteger of uint8 by int8 on AVX2",
    ),
    ProductDeviation("accumulates in float16", "sums are kept in float16", bends.accumulates("float16")),
    ProductDeviation(
        "accumulates in bfloat16",
        "sums are kept in bfloat16",
        bends.accumulates("bfloat16"),
        "mlx 0.32.4 on the CPU",
    ),
    ProductDeviation(
        "14 bits",
        "sums hold 13 bits below their largest term",
        bends.accumulates("hopper_fp8"),
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


OF_BLENDS: tuple[ProductDeviation, ...] = (
    ProductDeviation(
        "alpha ignored", "alpha counts 1", bends.with_blend(lambda blend: replace(blend, alpha=1.0))
    ),
    ProductDeviation(
        "beta ignored",
        "beta counts 1, also where it is 0",
        bends.with_blend(lambda blend: replace(blend, beta=1.0)),
    ),
    ProductDeviation(
        "beta counts 1",
        "c is added as it is wherever beta is not 0",
        bends.with_blend(lambda blend: replace(blend, beta=float(blend.beta != 0))),
    ),
    ProductDeviation("c ignored", "c counts 0", bends.with_blend(lambda blend: replace(blend, c=None))),
    ProductDeviation(
        "c read where beta is 0",
        "c is multiplied by beta also where that is 0: its NaN and Inf come out",
        bends.with_blend(lambda blend: replace(blend, reads=True)),
    ),
    ProductDeviation(
        "c left where alpha is 0",
        "where alpha is 0, c comes out as it is, not times beta; where beta is 0 too, nothing is written",
        bends.c_where_alpha_is_0,
        "torch 2.13's baddbmm of bfloat16 and float16 on AVX-512",
    ),
    ProductDeviation(
        "alpha and beta exchanged",
        "beta multiplies the product, and alpha c",
        bends.with_blend(lambda blend: replace(blend, alpha=blend.beta, beta=blend.alpha)),
    ),
    ProductDeviation(
        "alpha of c, too",
        "alpha multiplies what beta * c has been added to",
        bends.with_blend(lambda blend: replace(blend, way=scaling_both)),
    ),
    ProductDeviation(
        "alpha twice",
        "alpha multiplies both operands",
        bends.with_blend(lambda blend: replace(blend, alpha=blend.alpha**2)),
    ),
    ProductDeviation(
        "alpha after rounding",
        "alpha multiplies sums that have been rounded to the type that comes out",
        bends.with_blend(lambda blend: replace(blend, way=scaling_late)),
    ),
    ProductDeviation(
        "c after rounding",
        "beta * c is added to products that have been rounded to the type that comes out",
        bends.with_blend(lambda blend: replace(blend, way=adding_late)),
    ),
    ProductDeviation(
        "alpha and beta in bfloat16",
        "alpha and beta are rounded to bfloat16",
        bends.with_blend(bends.of_bfloat16),
    ),
)
"""Those of products that alpha multiplies, or that beta * c is added to."""


OF_BIASES: tuple[ProductDeviation, ...] = (
    ProductDeviation("bias ignored", "the bias counts 0", bends.with_bias(ignoring_bias)),
    ProductDeviation(
        "bias after rounding",
        "the bias is added to results that have been rounded to the type that comes out",
        bends.with_bias(adding_bias_late),
    ),
    ProductDeviation(
        "alpha of the bias, too", "alpha multiplies the bias, too", bends.with_bias(scaling_bias)
    ),
    ProductDeviation(
        "beta of the bias, too", "beta multiplies the bias, too", bends.with_bias(adding_bias_to_c)
    ),
)
"""Those of products to which a bias is added."""
