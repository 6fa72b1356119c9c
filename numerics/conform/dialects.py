"""TABLE of known deviations, one row each: what else a kernel may compute, so that it can be named.

Each row says how the exact answer is bent: another option of the exact encoder, other inputs, or
other results.  Where a row is known from a library, `seen_in` names it and its version.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from numerics.conform.deviations import (
    Applies,
    Bent,
    Float32,
    Rescaled,
    add_half,
    after,
    as_values,
    bare_zero,
    before,
    by_reciprocal,
    by_sign,
    decoded,
    decodes,
    doubled,
    elementwise_specials,
    exponent_field,
    flat_subnormals,
    float_log2,
    flush,
    flush_codes,
    fp4_threshold,
    infinite,
    keeps_infinity,
    largest_overflows,
    loose_clamp,
    lowest_integer,
    nan_becomes,
    nan_stays,
    no_microexponents,
    no_sign,
    numbers_for_specials,
    of_elements,
    of_floats,
    of_integers,
    of_micro,
    of_mx,
    of_scaled,
    one_of_zero_blocks,
    only_finite_overflow,
    only_infinity_overflows,
    option,
    other_zero,
    positive_zero,
    quantizes,
    rescaled_dpu,
    rescaled_mx,
    rescaled_rounding,
    reversed_draws,
    rounded_exponents,
    rounds,
    scale_reciprocal,
    signed_floats,
    signed_floats_alone,
    symmetric_range,
    through,
    unsigned_zero,
    unused_specials,
    values_after,
    with_scale,
    wrap,
    zero_point_after_clamp,
    zero_point_before_rounding,
    zero_point_wraps,
)
from numerics.conform.laws import Scaled
from numerics.conform.task import Answer, Array, Fields, Task
from numerics.formats.dtype import Integer
from numerics.formats.floats import bfloat16, e8m0, float16, fp4, fp8_e4m3
from numerics.formats.rounding import DETERMINISTIC, SCALE_RULES


@dataclass(frozen=True)
class Dialect:
    """One known deviation.

    applies: to which tasks.  answer: what such a kernel returns; float32 values, where it returns
    them, are for targets that round only.
    """

    name: str
    sentence: str
    applies: Applies
    answer: Bent
    seen_in: str = ""

    def __str__(self) -> str:
        return self.sentence + (f" (seen in {self.seen_in})" if self.seen_in else "")


@dataclass(frozen=True)
class AffineDialect:
    """One known deviation of integers with a scale and a zero point."""

    name: str
    sentence: str
    codes: Rescaled
    seen_in: str = ""

    __str__ = Dialect.__str__


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
}


def _asks(attribute: str, value: str, which: Applies) -> Applies:
    """Tasks of some sort that ask for something else."""
    return lambda task: which(task) and getattr(task, attribute) != value


def _roundings() -> Iterator[Dialect]:
    for rounding in DETERMINISTIC:
        name, said, seen_in = WORDS[rounding]
        yield Dialect(name, said, _asks("rounding", rounding, quantizes), option(rounding=rounding), seen_in)


def _rules() -> Iterator[Dialect]:
    for rule in SCALE_RULES:
        said = f"the scale is found by the rule {rule}"
        yield Dialect(f"scale rule {rule}", said, _asks("scale_rule", rule, of_mx), option(scale_rule=rule),
                      RULE_WORDS[rule])  # fmt: skip


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


DIALECTS: tuple[Dialect, ...] = (
    *_roundings(),
    Dialect("ties to zero", "a tie goes toward zero", quantizes, by_sign("half_up", "half_down"),
            "modelopt 0.47.0 MXFP4, tensorcast's zero"),
    Dialect("DPU rounding", "a negative tie goes up, a positive one to even", quantizes,
            by_sign("half_up", "half_even"), "brevitas 0.13.4"),
    Dialect("draws reversed", "up when R / 2**30 lies below the fraction", _draws, reversed_draws),
    Dialect("saturates", "what is too large becomes the largest value", _asks_overflow("saturate"),
            option(overflow="saturate"), "torch 2.13 for e4m3, tensorcast, gfloat 0.5.2 with saturation"),
    Dialect("does not saturate", "what is too large becomes Inf or NaN", _asks_overflow("nonsaturate"),
            option(overflow="nonsaturate"), "ml_dtypes 0.6.0, torch before 2.13, torch for e5m2"),
    Dialect("only infinity overflows", "Inf becomes Inf or NaN, a large input the largest value",
            _with_nan, only_infinity_overflows),
    Dialect("only finite numbers overflow", "a large input becomes Inf or NaN, Inf the largest value",
            _with_nan, only_finite_overflow),
    Dialect("overflows past the largest", "what exceeds the largest value overflows, before it is rounded",
            _with_nan, before(largest_overflows)),
    Dialect("floor(|x| + 0.5)", "just below half the least step the sum rounds up to one step", of_floats,
            before(add_half), "microxcaling of August 2024, even"),
    Dialect("flushes subnormal results", "what is below the smallest normal becomes zero", of_floats,
            after(flush_codes)),
    Dialect("flushes subnormal inputs", "a subnormal float32 counts as zero", quantizes, before(flush),
            "Quark 0.13, and threads that flush denormals"),
    Dialect("loses -0", "what rounds to zero becomes +0", signed_floats, after(bare_zero),
            "compressed-tensors 0.20.0, Quark's low-precision kernels"),
    Dialect("loses the sign", "every number counts as positive", quantizes, before(no_sign)),
    Dialect("double rounding through float16", "rounded to float16 first", quantizes,
            before(through(float16)), "Triton's compiled fp8 casts on Ada"),
    Dialect("double rounding through bfloat16", "rounded to bfloat16 first", quantizes,
            before(through(bfloat16))),
    Dialect("NaN becomes the largest", "NaN becomes the largest value", of_elements, nan_becomes(np.inf),
            "modelopt 0.47.0 NVFP4 elements"),
    Dialect("NaN becomes 0", "NaN becomes +0", of_elements, nan_becomes(0.0)),
    Dialect("NaN becomes -0", "NaN becomes -0", signed_floats_alone, nan_becomes(-0.0)),
    Dialect("NaN becomes the other zero", "NaN becomes the zero of the other sign", signed_floats_alone,
            after(other_zero), "ml_dtypes 0.6.0, fp4 and fp6"),
    Dialect("NaN becomes 1.5", "NaN becomes 1.5", _is(fp4), nan_becomes(1.5), "torchao 0.18.0"),
    Dialect("wraps around", "integers out of range keep their low bits", of_integers, after(wrap)),
    Dialect("symmetric integers", "the lowest integer is left out", of_integers, before(symmetric_range)),
    Dialect("microxcaling default", "half away, zero loses its sign, overflow to an Inf that e4m3 lacks",
            _is(fp8_e4m3, rounds), values_after(positive_zero, values_after(infinite, option(
                rounding="half_away", overflow="nonsaturate"))), "microxcaling of August 2024"),
    Dialect("microxcaling even, saturating", "floor(|x| + 0.5), zero loses its sign, Inf stays",
            _is(fp8_e4m3, rounds), values_after(positive_zero, values_after(keeps_infinity, before(
                add_half, option(overflow="saturate")))), "microxcaling of August 2024"),
    Dialect("qtorch", "half away, zero loses its sign, 480 for what is too large and for NaN",
            _is(fp8_e4m3, rounds), values_after(positive_zero, values_after(unused_specials, option(
                rounding="half_away"))), "qtorch 0.3.0"),
    Dialect("e8m0 by its exponent field", "no sign, ties up, subnormals by their highest bits, Inf to NaN",
            _is(e8m0), exponent_field, "torch 2.13"),
    *_rules(),
    Dialect("floor by float log2", "the logarithm of the maximum is rounded by float32, then floored",
            rescaled_mx, with_scale(float_log2(np.floor, False)),
            "microxcaling of August 2024, Quark 0.13's floor"),
    Dialect("ceil by float log2", "the logarithm of the maximum is rounded by float32, then ceiled",
            rescaled_mx, with_scale(float_log2(np.ceil, False)), "Quark 0.13's ceil"),
    Dialect("rceil by float log2", "the logarithm of maximum over largest is rounded, then ceiled",
            rescaled_mx, with_scale(float_log2(np.ceil, True)), "torchao 0.18.0 on CPUs, modelopt 0.47.0"),
    Dialect("fp4's threshold", "the rule even with fp4's mantissa, whatever the element",
            rescaled_mx, with_scale(fp4_threshold), "compressed-tensors 0.20.0 MXFP8"),
    Dialect("the lowest integer", "elements reach the most negative integer", _integers_in(rescaled_mx),
            lowest_integer, "gfloat 0.5.2, pychop 0.6.2"),
    Dialect("a zero block has scale 1", "the scale of a block of zeros is 1", of_mx, one_of_zero_blocks),
    Dialect("NaN stays where it is", "a NaN does not reach its neighbours", rounds, nan_stays,
            "tensorcast HEAD and pychop 0.6.2, for NaN"),
    Dialect("Inf and NaN stay where they are", "neither reaches its neighbours", rounds,
            elementwise_specials, "Quark 0.13, mx6 and mx9"),
    Dialect("reciprocal of the scale", "multiplied by 1 / scale instead of divided", of_scaled,
            scale_reciprocal),
    Dialect("no microexponents", "every microexponent is 0", of_micro, no_microexponents),
    Dialect("exponents after rounding", "a round-up past the top raises the exponent", of_micro,
            rounded_exponents),
    Dialect("loose clamp", "in shifted sub-blocks the clamp is a bit too wide",
            lambda task: of_micro(task) and rounds(task), loose_clamp, "Quark through 0.12.post1"),
    Dialect("subnormals read as zero", "a code below the smallest normal decodes to zero", decodes,
            decoded(flat_subnormals)),
    Dialect("-0 read as 0", "negative zero decodes to +0", decodes, decoded(unsigned_zero)),
    Dialect("specials read as numbers", "the codes of Inf and NaN decode to numbers", decodes,
            decoded(numbers_for_specials)),
    Dialect("bias one too small", "every value is twice what it should be", decodes, doubled(2.0)),
    Dialect("bias one too large", "every value is half of what it should be", decodes, doubled(0.5)),
)  # fmt: skip

AFFINE_DIALECTS: tuple[AffineDialect, ...] = (
    AffineDialect("reciprocal of the scale", "multiplied by 1 / scale instead of divided", by_reciprocal,
                  "Quark 0.13"),
    AffineDialect("zero point after the clamp", "clamped, then moved, then clamped", zero_point_after_clamp),
    AffineDialect("zero point wraps", "clamped, then moved past the ends", zero_point_wraps),
    AffineDialect("zero point before rounding", "round(x / scale + zero_point)", zero_point_before_rounding,
                  "Quark 0.13, real quantization"),
    *(AffineDialect(WORDS[name][0], WORDS[name][1], rescaled_rounding(name), WORDS[name][2])
      for name in DETERMINISTIC),
    AffineDialect("DPU rounding", "a negative tie goes up, a positive one to even", rescaled_dpu,
                  "brevitas 0.13.4"),
)  # fmt: skip


# ---- which one is it? ---------------------------------------------------------------------------

SAMPLE = 64  # inputs that a dialect must explain before all of them are computed
SAMPLED_BLOCKS = 6


def nearest(
    task: Task, x: Float32, came: Answer, wrong: NDArray[np.bool_], random: Array | None = None
) -> Dialect | None:
    """The dialect that gives exactly what came, on every input; None where there is none.

    x: float32 elements, float32 rows of blocks, or an element's codes when the task decodes.
    wrong: which of them did not give what was due.

    >>> from numerics.formats import fp4
    >>> x = np.float32([0.25, 0.75, -0.25])
    >>> nearest(Task.of(fp4), x, np.uint8([1, 2, 9]), np.array([True, False, True])).name
    'ties away'
    """
    few = _telling(wrong, SAMPLE if x.ndim == 1 else SAMPLED_BLOCKS)
    for dialect in DIALECTS:
        if dialect.applies(task) and all(
            _matches(dialect, task, *part) for part in _parts(x, came, random, few)
        ):
            return dialect
    return None


def _telling(wrong: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Inputs spread over all, and some that are wrong."""
    spread = np.linspace(0, len(wrong) - 1, min(count, len(wrong))).astype(np.int64)
    places = np.flatnonzero(wrong)
    return np.unique(np.concatenate([spread, places[:: -(-len(places) // count) or 1]]))


def _parts(
    x: Float32, came: Answer, random: Array | None, few: NDArray[np.int64]
) -> Iterator[tuple[Float32, Answer, Array | None]]:
    """Few inputs, then all."""
    yield x[few], _take(came, few), None if random is None else random[few]
    yield x, came, random


def _take(answer: Answer, places: NDArray[np.int64]) -> Answer:
    if isinstance(answer, Fields):
        return Fields(*(None if part is None else part[places] for part in answer))  # type: ignore[arg-type]
    return answer[places]


def _matches(dialect: Dialect, task: Task, x: Float32, came: Answer, random: Array | None) -> bool:
    answer = dialect.answer(task, x, random)
    is_values = isinstance(answer, np.ndarray) and answer.dtype.kind == "f"
    if task.kind == "encode" and is_values:
        return False
    return not _unequal(task, came, as_values(task, answer) if task.kind != "encode" else answer).any()


def _unequal(task: Task, came: Answer, due: Answer) -> NDArray[np.bool_]:
    """Which elements or blocks differ."""
    if isinstance(came, Fields) and isinstance(due, Fields):
        micro = came.microexponents is not None and due.microexponents is not None
        parts = [(came.codes != due.codes).any(axis=1), came.scale != due.scale]
        parts += [np.asarray(came.microexponents != due.microexponents)] if micro else []
        return np.asarray(np.logical_or.reduce(parts))
    assert isinstance(came, np.ndarray)
    assert isinstance(due, np.ndarray)
    differs = task.differs(came, due.astype(came.dtype))
    return np.asarray(differs.reshape(len(differs), -1).any(axis=1))


def nearest_affine(every: list[Scaled]) -> AffineDialect | None:
    """The same for integers with a scale and a zero point: what came at each of them."""
    telling = sorted(every, key=lambda seen: -int(seen.wrong.sum()))
    for dialect in AFFINE_DIALECTS:
        if all(not _affine_differs(dialect, seen).any() for seen in telling):
            return dialect
    return None


def _affine_differs(dialect: AffineDialect, seen: Scaled) -> NDArray[np.bool_]:
    codes = dialect.codes(seen.task, seen.x, seen.scale, seen.zero_point)
    if seen.came.dtype.kind == "f":
        return seen.task.differs(seen.came, seen.task.affine_values(codes, seen.scale, seen.zero_point))
    return np.asarray(seen.came != codes)
