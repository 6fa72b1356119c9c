"""TABLE of known deviations, one row each: what else a kernel may compute, so that it can be named.

Each row says how the exact answer is bent: another option of the exact encoder, other inputs, or
other results.  Where a row is known from a library, `seen_in` names it and its version.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from numerics.conform.deviations import affine, blocks, elements
from numerics.conform.deviations.applies import (
    Applies,
    decodes,
    of_elements,
    of_floats,
    of_integers,
    of_micro,
    of_mx,
    of_scaled,
    of_short_floats,
    quantizes,
    rescaled_mx,
    rounds,
    signed_floats,
    signed_floats_alone,
)
from numerics.conform.deviations.deviation import (
    Deviation,
    Stage,
    after,
    before,
    by_sign,
    instead,
    option,
    values_after,
)
from numerics.conform.task import Task
from numerics.formats.dtype import Float, Integer
from numerics.formats.floats import bfloat16, e8m0, float16
from numerics.formats.rounding import DETERMINISTIC


@dataclass(frozen=True)
class Dialect:
    """One known deviation, and the tasks to which it applies."""

    name: str
    sentence: str
    applies: Applies
    deviation: Deviation
    seen_in: str = ""

    def __str__(self) -> str:
        return self.sentence + (f" (seen in {self.seen_in})" if self.seen_in else "")


# ---- the table ----------------------------------------------------------------------------------

WORDS: dict[str, tuple[str, str, str]] = {
    "half_even": ("ties to even", "a tie goes to the even code", ""),
    "half_away": ("ties away", "a tie goes away from zero", "microxcaling's default, qtorch 0.3.0"),
    "half_up": ("ties up", "a tie goes toward +Inf", "floor(x + 0.5); Quark's GPU kernel for round=2"),
    "half_down": ("ties down", "a tie goes toward -Inf", ""),
    "toward_zero": ("truncates", "what does not fit is cut off", "microxcaling's floor"),
    "floor": ("floors", "everything goes toward -Inf", ""),
    "ceil": ("ceils", "everything goes toward +Inf", ""),
    "to_odd": ("rounds to odd", "what is inexact goes to the odd code", ""),
}
RULE_WORDS: dict[str, str] = {
    "floor": "torchao's default, microxcaling, gfloat 0.5.2, brevitas 0.13.4",
    "ceil": "torchao's CEIL",
    "even": "Quark 0.13's default, torchao's EVEN",
    "rceil": "torchao HEAD's RCEIL, triton_kernels",
    "tosa": "TOSA 1.0's block scaling; it differs from even for fp8_e4m3",
    "bump": "AMD Quark's BFP16 in torch",
    "nvidia": "TransformerEngine's NVFP4",
}


def _asks(attribute: str, value: str, which: Applies) -> Applies:
    """Tasks of some sort that ask for something else."""
    return lambda task: which(task) and getattr(task, attribute) != value


def _roundings() -> Iterator[Dialect]:
    for rounding in DETERMINISTIC:
        name, said, seen_in = WORDS[rounding]
        yield Dialect(name, said, _asks("rounding", rounding, quantizes), option(rounding=rounding), seen_in)


def _having(rule: str) -> Applies:
    """Of blocks whose scale may be found by the rule."""
    return lambda task: (of_mx(task) or of_scaled(task)) and rule in task.block.scale_rules


def _rules() -> Iterator[Dialect]:
    for rule in RULE_WORDS:  # those that search would take the judge minutes
        said, asks = f"the scale is found by the rule {rule}", _asks("scale_rule", rule, _having(rule))
        yield Dialect(f"scale rule {rule}", said, asks, option(scale_rule=rule), RULE_WORDS[rule])


def _of_floor(task: Task) -> bool:
    """Blocks whose float scale is the nearest to amax / the largest element / the tensor's scale."""
    return of_scaled(task) and task.scale_rule == "floor"


def _with_nan(task: Task) -> bool:
    return of_floats(task) and task.dtype.has_nan  # type: ignore[attr-defined]


def _asks_overflow(overflow: str) -> Applies:
    return lambda task: _with_nan(task) and task.overflow != overflow


def _is(dtype: object, which: Applies = quantizes) -> Applies:
    return lambda task: which(task) and task.dtype is dtype


def _integers_in(which: Applies) -> Applies:
    return lambda task: which(task) and isinstance(getattr(task.dtype, "element", None), Integer)


def _draws(task: Task) -> bool:
    return task.draws


def _without(special: str, which: Applies = of_floats) -> Applies:
    """Formats that lack Inf or NaN."""
    return lambda task: which(task) and isinstance(task.dtype, Float) and not getattr(task.dtype, special)


def _of_few_exponents(task: Task) -> bool:
    """Floats whose smallest normal number is no subnormal float32, nor the least normal one."""
    return of_floats(task) and task.element.smallest_normal > 2.0**-126


def _rounds_floats(task: Task) -> bool:
    return rounds(task) and isinstance(task.dtype, Float)


REVERSED = "draws reversed"
THROUGH_FLOAT32 = Dialect(
    "double rounding through float32", "rounded to float32 first", lambda task: task.inputs == "float64",
    Deviation(Stage.INPUTS, lambda first: first), "float32 kernels behind x.astype(np.float32)",
)  # fmt: skip
"""Of float64 numbers; not of the table, whose deviations bend what a kernel makes of float32 numbers."""
DIALECTS: tuple[Dialect, ...] = (
    *_roundings(),
    Dialect("ties to zero", "a tie goes toward zero", quantizes, by_sign("half_up", "half_down"),
            "modelopt 0.47.0 MXFP4, tensorcast's zero"),
    Dialect("DPU rounding", "a negative tie goes up, a positive one to even", quantizes,
            by_sign("half_up", "half_even"), "brevitas 0.13.4"),
    Dialect(REVERSED, "up when R, of N bits, lies below f * 2**N (f: the fraction)", _draws,
            Deviation(Stage.INPUTS, elements.reversed_draws)),
    Dialect("saturates", "what is too large becomes the largest value", _asks_overflow("saturate"),
            option(overflow="saturate"), "torch 2.13 for e4m3, tensorcast, gfloat 0.5.2 with saturation"),
    Dialect("does not saturate", "what is too large becomes Inf or NaN", _asks_overflow("nonsaturate"),
            option(overflow="nonsaturate"), "ml_dtypes 0.6.0, torch before 2.13, torch for e5m2"),
    Dialect("only infinity overflows", "Inf becomes Inf or NaN, a large input the largest value",
            _with_nan, elements.overflowing(np.isinf)),
    Dialect("only finite numbers overflow", "a large input becomes Inf or NaN, Inf the largest value",
            _with_nan, elements.overflowing(np.isfinite)),
    Dialect("overflows past the largest", "what exceeds the largest value overflows, before it is rounded",
            _with_nan, before(elements.largest_overflows)),
    Dialect("overflows to Inf", "what is too large becomes Inf, which the format lacks",
            lambda task: _without("has_inf")(task) and rounds(task), values_after(elements.infinite),
            "microxcaling of August 2024"),
    Dialect("one more number", "the code past the largest value is a number, and Inf and NaN become it",
            lambda task: _without("has_inf")(task) and rounds(task),
            values_after(elements.unused_specials), "qtorch 0.3.0 for e4m3"),
    Dialect("Inf stays", "Inf is not rounded", rounds, elements.staying(np.isinf),
            "microxcaling of August 2024"),
    Dialect("Inf becomes NaN", "Inf becomes NaN", _rounds_floats, values_after(elements.nan_for_infinity),
            "brevitas 0.13.4"),
    Dialect("the largest float32 becomes NaN", "a float32 logarithm rounds up to 128", _rounds_floats,
            values_after(elements.exponent_overflows), "microxcaling of August 2024"),
    Dialect("floor(|x| + 0.5)", "just below half the least step the sum rounds up to one step", of_floats,
            before(elements.add_half), "microxcaling of August 2024"),
    Dialect("flushes subnormal results", "what is below the smallest normal becomes zero", of_floats,
            after(elements.flush_codes)),
    Dialect("flushes before rounding", "what is below the smallest normal becomes zero, before it is rounded",
            _of_few_exponents, before(elements.flush_small)),
    Dialect("flushes subnormal inputs", "a subnormal float32 counts as zero", quantizes,
            before(elements.flush), "Quark 0.13, and threads that flush denormals"),
    Dialect("loses -0", "what rounds to zero becomes +0", signed_floats, after(elements.bare_zero),
            "microxcaling of August 2024, Quark's low-precision kernels"),
    Dialect("reads -0 as 0", "-0 becomes 0; what rounds to zero keeps its sign", signed_floats,
            before(elements.plain_zero), "compressed-tensors 0.20.0, modelopt 0.47.0 NVFP4"),
    Dialect("every zero is -0", "what becomes zero becomes -0", signed_floats, after(elements.minus_zero),
            "modelopt 0.47.0 MXFP4"),
    Dialect("loses the sign", "every number counts as positive", quantizes, before(elements.no_sign)),
    Dialect("double rounding through float16", "rounded to float16 first", quantizes,
            before(elements.through(float16)), "Triton's compiled fp8 casts on Ada"),
    Dialect("double rounding through bfloat16", "rounded to bfloat16 first", quantizes,
            before(elements.through(bfloat16))),
    Dialect("NaN becomes the largest", "NaN becomes the largest value", of_elements,
            elements.nan_becomes(np.inf), "modelopt 0.47.0 NVFP4 elements"),
    Dialect("NaN becomes 0", "NaN becomes +0", of_elements, elements.nan_becomes(0.0)),
    Dialect("NaN becomes -0", "NaN becomes -0", signed_floats_alone, elements.nan_becomes(-0.0)),
    Dialect("NaN becomes the other zero", "NaN becomes the zero of the other sign", signed_floats_alone,
            after(elements.other_zero), "ml_dtypes 0.6.0, fp4 and fp6"),
    Dialect("NaN read as a number", "NaN becomes 1 and its payload: a quiet one becomes 1.5",
            _without("has_nan"), before(elements.nan_as_number), "torchao 0.18.0, fp4 and fp6"),
    Dialect("NaN is cut", "a NaN loses its low bits: with no others set it becomes Inf", of_short_floats,
            elements.nan_by_bits(""), "u >> 16"),
    Dialect("NaN rounds away as a number", "half a unit is added to a NaN's bits: it becomes Inf, or a zero",
            of_short_floats, elements.nan_by_bits("away"), "(u + 0x8000) >> 16"),
    Dialect("NaN rounds to even as a number", "a NaN is rounded by its bits: it becomes Inf, or a zero",
            of_short_floats, elements.nan_by_bits("even"), "(u + 0x7fff + (u >> 16 & 1)) >> 16"),
    Dialect("wraps around", "integers out of range keep their low bits", of_integers, after(elements.wrap)),
    Dialect("symmetric integers", "the lowest integer is left out", of_integers,
            before(elements.symmetric_range)),
    Dialect("e8m0 by its exponent field", "no sign, ties up, subnormals by their highest bits, Inf to NaN",
            _is(e8m0), instead(elements.exponent_field), "torch 2.13"),
    Dialect("e8m0 by its exponent field, positive", "ties up, subnormals by their highest bits, Inf to NaN",
            _is(e8m0), after(elements.positive_field), "ml_dtypes 0.6.0"),
    *_rules(),
    Dialect("floor by float log2", "the logarithm of the maximum is rounded by float32, then floored",
            rescaled_mx, blocks.with_scale(blocks.float_log2(np.floor, False)),
            "microxcaling of August 2024, Quark 0.13's floor"),
    Dialect("ceil by float log2", "the logarithm of the maximum is rounded by float32, then ceiled",
            rescaled_mx, blocks.with_scale(blocks.float_log2(np.ceil, False)), "Quark 0.13's ceil"),
    Dialect("rceil by float log2", "the logarithm of maximum over largest is rounded, then ceiled",
            rescaled_mx, blocks.with_scale(blocks.float_log2(np.ceil, True)),
            "torchao 0.18.0 on CPUs, modelopt 0.47.0"),
    Dialect("fp4's threshold", "the rule even with fp4's mantissa, whatever the element",
            rescaled_mx, blocks.with_scale(blocks.fp4_threshold), "compressed-tensors 0.20.0 MXFP8"),
    Dialect("the least scale counts twice", "a scale byte of 0 says 2**-127, elements are over 2**-126",
            rescaled_mx, blocks.fields_after(blocks.least_scale_counts_twice), "torchao 0.18.0"),
    Dialect("the lowest integer", "elements reach the most negative integer", _integers_in(rescaled_mx),
            instead(blocks.lowest_integer), "gfloat 0.5.2, pychop 0.6.2"),
    Dialect("a zero block has scale 1", "the scale of a block of zeros is 1", of_mx,
            blocks.scale_of_zeros(127)),
    Dialect("an Inf counts as 2^128", "an Inf has a scale as numbers have, and saturates", rescaled_mx,
            blocks.infinity_is_large(largest=False), "torchao 0.18.0"),
    Dialect("an Inf takes the largest scale", "a block with an Inf has the scale 2**127; Inf saturates",
            rescaled_mx, blocks.infinity_is_large(largest=True), "Quark 0.13's even"),
    Dialect("NaN stays where it is", "a NaN does not reach its neighbours", rounds,
            elements.staying(np.isnan), "tensorcast HEAD and pychop 0.6.2, for NaN"),
    Dialect("Inf and NaN stay where they are", "neither reaches its neighbours", rounds,
            elements.staying(lambda x: ~np.isfinite(x)), "Quark 0.13, mx6 and mx9"),
    Dialect("reciprocal of the scale", "multiplied by 1 / scale instead of divided", of_scaled,
            instead(blocks.scale_reciprocal)),
    *(Dialect(f"block scale {formula}", f"the block scale is the nearest to {formula}: ts is the tensor's, E "
              "the largest element", _of_floor, blocks.block_scale_by(find))
      for formula, find in blocks.BLOCK_SCALES.items()),
    Dialect("no microexponents", "every microexponent is 0", of_micro, instead(blocks.no_microexponents)),
    Dialect("exponents after rounding", "a round-up past the top raises the exponent", of_micro,
            instead(blocks.rounded_exponents)),
    Dialect("loose clamp", "in shifted sub-blocks the clamp is a bit too wide",
            lambda task: of_micro(task) and rounds(task), Deviation(Stage.DECODED, blocks.loose_clamp),
            "Quark through 0.12.post1"),
    Dialect("subnormals read as zero", "a code below the smallest normal decodes to zero", decodes,
            values_after(elements.flat_subnormals)),
    Dialect("-0 read as 0", "negative zero decodes to +0", decodes, values_after(elements.unsigned_zero)),
    Dialect("specials read as numbers", "the codes of Inf and NaN decode to numbers", decodes,
            values_after(elements.numbers_for_specials)),
    Dialect("bias one too small", "every value is twice what it should be", decodes,
            values_after(elements.times(2.0))),
    Dialect("bias one too large", "every value is half of what it should be", decodes,
            values_after(elements.times(0.5))),
)  # fmt: skip


def _affine(task: Task) -> bool:
    return task.kind == "affine"


AFFINE_DIALECTS: tuple[Dialect, ...] = (
    Dialect("reciprocal of the scale", "multiplied by 1 / scale instead of divided", _affine,
            affine.BY_RECIPROCAL, "torch 2.13, torchao 0.18.0, Quark 0.13"),
    Dialect("divides in float64", "x / scale is taken in float64", _affine, affine.IN_FLOAT64,
            "kernels of NumPy, where the scale is a number of float64"),
    Dialect("zero point after the clamp", "clamped, then moved, then clamped", _affine,
            affine.ZERO_POINT_AFTER_CLAMP),
    Dialect("zero point wraps", "clamped, then moved past the ends", _affine, affine.ZERO_POINT_WRAPS),
    Dialect("zero point before rounding", "round(x / scale + zero_point)", _affine,
            affine.ZERO_POINT_BEFORE_ROUNDING,
            "compressed-tensors 0.20.0, Quark 0.13's real quantization"),
    Dialect("fused with the zero point", "round(x * (1 / scale) + zero_point), the sum rounded once", _affine,
            affine.FUSED, "torch 2.13's quantize_per_tensor"),
    *(Dialect(WORDS[name][0], WORDS[name][1], _affine, option(rounding=name), WORDS[name][2])
      for name in DETERMINISTIC),
    Dialect("DPU rounding", "a negative tie goes up, a positive one to even", _affine,
            by_sign("half_up", "half_even"), "brevitas 0.13.4"),
    Dialect("NaN becomes the lowest", "NaN becomes the lowest integer", _affine,
            affine.nan_becomes(lambda task: task.element.min), "torch 2.13's fake_quantize"),
    Dialect("NaN becomes the highest", "NaN becomes the highest integer", _affine,
            affine.nan_becomes(lambda task: task.element.max), "torch 2.13's quantize_per_tensor"),
    Dialect("NaN becomes code 0", "NaN becomes the integer 0, whatever the zero point", _affine,
            affine.nan_becomes(lambda task: 0), "torchao 0.18.0, compressed-tensors 0.20.0"),
)  # fmt: skip
"""The same of integers with a scale and a zero point."""
