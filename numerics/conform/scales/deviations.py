"""Known deviations of kernels that find their scales: one step of the rule that is done otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numerics.conform.scales.groups import groups_of
from numerics.conform.scales.rule import REFERENCE, Float32, Rule
from numerics.conform.scales.steps import Least
from numerics.conform.task import Answer, Fields, Task
from numerics.formats.codebook import Codebook
from numerics.formats.dtype import Element, Integer
from numerics.formats.rounding import DETERMINISTIC

FLOORS = (1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
"""What amax or a scale is at least, or what is added to it, in kernels that avoid a division by 0."""
LIBRARIES = {
    1e-12: "torchao's float8", 1e-10: "vLLM's per_token_group_quant_fp8", 1e-4: "DeepSeek-V3, DeepGEMM",
    1e-5: "torchao's int8 activations",
}  # fmt: skip
"""Whose amax is at least that."""
EPSILONS = {
    2.0**-23: "torchao and Quark, of float32", 2.0**-7: "torchao, of bfloat16",
    2.0**-10: "torchao, of float16", 2.0**-126: "",
}  # fmt: skip
"""What a scale is at least, or is of zeros, beside those: the epsilon of a type, and its smallest normal."""
COUNTS_AS_ZERO = {2.0**-24: "modelopt", 1e-12: "", 2.0**-126: ""}
"""Up to which amax all numbers count as 0."""
BESIDE = (("before", "the group before it"), ("after", "the group after it"))
"""Whose scale, or zero point, a kernel may take for that of a group."""
DIGITS = 3  # at most, of a decimal that somebody may have written
TOGETHER = 2
"""Deviations of scales, and as many of codes, that together explain what came."""


class Observed(NamedTuple):
    """A tensor, and what a target made of it."""

    x: Float32
    came: Answer


class Habit(NamedTuple):
    """A known deviation: its name, what it does, and the steps that it changes."""

    name: str
    sentence: str
    steps: dict[str, Any]
    seen_in: str = ""
    of_codes: bool = False
    """Does it leave the scales alone?"""

    def __str__(self) -> str:
        return self.sentence + (f" (seen in {self.seen_in})" if self.seen_in else "")


def habits(rule: Rule, seen: Sequence[Observed] = ()) -> Iterator[Habit]:
    """Those that a rule can have; seen: of what came the constants that a kernel may have are read."""
    yield from _of_division(rule, seen)
    yield from _of_amax(rule)
    yield from _of_types(rule)
    yield from _of_least(rule, seen)
    if not rule.spec.symmetric:
        yield from _of_zero_points(rule)
    yield from _of_codes(rule)


# ---- scales ------------------------------------------------------------------------------------------


def _of_division(rule: Rule, seen: Sequence[Observed]) -> Iterator[Habit]:
    yield Habit("reciprocal of the maximum", f"amax is multiplied by float32(1 / {rule.end:g})",
                {"divide": "reciprocal"}, "compilers under fast-math")  # fmt: skip
    yield Habit("reciprocal twice", f"the scale is 1 / ({rule.end:g} / amax)", {"divide": "twice"},
                "torchao's float8, TransformerEngine")  # fmt: skip
    what = "amax" if rule.spec.symmetric else "the range"
    for told, end, whose in _ends(rule, seen):
        said = f"{what} is divided by {told}{end:g}, not {rule.end:g}"
        yield Habit(f"{what} over {end:g}", said, {"end": end}, whose)
    yield Habit("gives the reciprocal", "1 / scale comes back in place of the scale", {"gives": "inverse"},
                "torchao's amax_to_scale")  # fmt: skip
    yield Habit("gives amax", "amax comes back in place of the scale", {"gives": "amax"},
                "bitsandbytes' int8_vectorwise_quant")  # fmt: skip


def _ends(rule: Rule, seen: Sequence[Observed]) -> Iterator[tuple[str, float, str]]:
    """What amax or the range may become: what it is called, the number, in whose kernels."""
    d, half = rule.element, "torchao's symmetric integers, compressed-tensors, AMD Quark"
    every = d.max - d.min
    found: dict[float, tuple[str, str]]
    if rule.spec.symmetric:
        found = {every / 2: ("half of all steps, ", half if every % 2 else ""),
                 float(d.max): ("the largest value, ", ""),
                 d.max + 1.0: ("one more, ", ""), d.max - 1.0: ("one less, ", "")}  # fmt: skip
        if isinstance(d, Integer):
            found[float(-d.min)] = ("minus the least, ", "")
            found[float(d.max // 2)] = ("the largest value of a bit less, ", "ONNX Runtime's reduce_range")
        if d.name == "fp8_e4m3":
            found[240.0] = ("the largest value of fp8_e4m3fnuz, ", "")
            found[224.0] = ("half of the largest value, ", "")
    else:
        found = {every - 1: ("one step less, ", ""), every + 1: ("the number of codes, ", ""),
                 float(every // 2): ("the steps of a bit less, ", "ONNX Runtime's reduce_range")}  # fmt: skip
    for end, (told, whose) in found.items():
        if end not in (rule.end, 0) and end > 0:
            yield told, end, whose
    end_that_came = _end_of(rule, seen)
    if end_that_came not in (None, rule.end, *found):
        yield "", float(end_that_came or 0), ""


def _of_amax(rule: Rule) -> Iterator[Habit]:
    yield Habit("Inf counts", "an infinite number makes the scale infinite", {"amax": "inf"}, "fmaxf of CUDA")
    yield Habit("NaN counts", "NaN, and Inf, become the scale", {"amax": "nan"}, "torch.amax")
    if rule.spec.symmetric:
        yield Habit(
            "loses the sign", "the largest number is taken for the largest magnitude", {"amax": "signed"}
        )
    else:
        yield Habit("range without 0", "the range is that of the numbers, 0 or not", {"bare": True},
                    "HQQ, AWQ")  # fmt: skip
    yield Habit("subnormal amax counts as 0", "a subnormal number takes no part in amax", {"amax": "flushed"},
                "threads and GPUs that flush denormals")  # fmt: skip
    for group, told in BESIDE:
        yield Habit(f"scale of {told}", f"a group has the scale of {told}", {"group": group})
    if rule.scheme.kind != "per_tensor":
        yield Habit("one scale for the tensor", "all groups have the scale of the largest", {"group": "all"})


def _of_types(rule: Rule) -> Iterator[Habit]:
    own = rule.spec.stored_scale_type(rule.inputs)
    for kind in ("bfloat16", "float16", "float32", "pof2"):
        if kind != own:
            yield Habit(f"scale in {kind}", f"the scale is rounded to {kind}", {"store": kind})
    yield Habit("scales underflow to 0", "a scale may round to 0 in its type, that of zeros is as is due",
                {"underflow": "zero"})  # fmt: skip
    yield Habit("subnormal scales become 0", "a scale that is subnormal in its type becomes 0",
                {"underflow": "flushed"}, "threads and GPUs that flush denormals")  # fmt: skip
    yield Habit("scales overflow to Inf", "a scale past its type is infinite", {"overflow": "inf"})


def _of_least(rule: Rule, seen: Sequence[Observed]) -> Iterator[Habit]:
    """Constants against a division by 0: those that are known, and those that came for groups of zeros."""
    zeros = _of_zeros(rule, seen)
    if rule.least.kind != "none":
        yield Habit("zeros have the scale 0", "a scale may be 0", {"least": Least("none")},
                    "vLLM's int8, bitsandbytes")  # fmt: skip
    if rule.least.kind != "one":
        yield Habit("zeros have the scale 1", "the scale of zeros is 1", {"least": Least()})
    elif zeros == 0:
        yield Habit("only zeros have the scale 0", "the scale of zeros is 0, another is not", {"zeros": 0.0})
    came = [zeros] if zeros and zeros != 1 else []
    made = [amax for one in came if (amax := _amax_of(rule, one)) is not None]
    for eps in (*FLOORS, *made):
        told = f"amax is at least {eps:g}"
        yield Habit(told, told, {"least": Least.of(f"amax {eps!r}")}, LIBRARIES.get(eps, ""))
        yield Habit(f"adds {eps:g}", f"{eps:g} is added to amax", {"add": eps})
    known = dict.fromkeys(FLOORS, "") | EPSILONS | {1 / (rule.end * 512): "vLLM's per-token fp8"}
    for eps, whose in (known | {one: known.get(one, "") for one in came}).items():
        yield Habit(f"scale at least {eps:.6g}", f"a scale is at least {eps:.6g}",
                    {"least": Least.of(f"scale {eps!r}")}, whose)  # fmt: skip
        yield Habit(f"adds {eps:.6g} to the scale", f"{eps:.6g} is added to the scale", {"more": eps})
    for eps in came:
        yield Habit(f"zeros have the scale {eps:.6g}", f"the scale of zeros is {eps:.6g}", {"zeros": eps},
                    "compressed-tensors" * (eps in EPSILONS))  # fmt: skip
    for eps, whose in COUNTS_AS_ZERO.items():
        told = f"amax up to {eps:.6g} counts as 0"
        yield Habit(told, f"numbers whose {told}", {"nothing": eps}, whose)


# ---- constants that a kernel shows -------------------------------------------------------------------


def _scales_of(rule: Rule, seen: Sequence[Observed]) -> tuple[Float32, Float32]:
    """The magnitudes, or ranges, of all groups, and the scales that came."""
    plain = rule.bent(least=Least("none"))
    every = [(plain.find(x).extent, came.scale) for x, came in seen if isinstance(came, Fields) and x.size]
    extents, scales = ([part.reshape(-1) for part in parts] for parts in zip(*every, strict=True)) if every \
        else ([], [])  # fmt: skip
    nothing = np.zeros(0, np.float32)
    return np.concatenate([nothing, *extents]), np.concatenate([nothing, *scales])


def _of_zeros(rule: Rule, seen: Sequence[Observed]) -> float | None:
    """The scale that came for all groups of zeros; None where it is not one, or not finite."""
    extent, scale = _scales_of(rule, seen)
    found = np.unique(scale[extent == 0])
    return float(found[0]) if len(found) == 1 and 0 <= found[0] < np.inf else None


def _amax_of(rule: Rule, scale: float) -> float | None:
    """The decimal, or the power of two, that over the maximum gives this scale, and is shorter than it."""
    near = scale * rule.end
    short = [(float(f"{near:.{digits}e}"), digits) for digits in range(DIGITS)]
    for amax, digits in (*short, (float(2.0 ** np.rint(np.log2(near))), 0)):
        if np.float32(amax) / np.float32(rule.end) == np.float32(scale):
            return None if np.float32(float(f"{scale:.{digits}e}")) == np.float32(scale) else amax
    return None


def _end_of(rule: Rule, seen: Sequence[Observed]) -> float | None:
    """What amax becomes, read from the scales that came: a whole number, or half of one; None where none."""
    extent, scale = (part.astype(np.float64) for part in _scales_of(rule, seen))
    plain = (extent > 1e-2) & (extent < 1e4) & np.isfinite(scale) & (scale > 0)
    if not plain.any():
        return None
    end = float(np.rint(2 * np.median(extent[plain] / scale[plain])) / 2)
    return end if 0 < end < 2.0**20 else None


# ---- zero points and codes ---------------------------------------------------------------------------


def _of_zero_points(rule: Rule) -> Iterator[Habit]:
    d = rule.element
    for group, told in BESIDE if rule.scheme.kind != "per_tensor" else ():
        yield Habit(f"zero point of {told}", f"a group has the zero point of {told}",
                    {"zero_group": group}, "", True)  # fmt: skip
        yield Habit(f"scale of {told}, zero point of its own", f"a group has the scale of {told} alone",
                    {"scale_group": group})  # fmt: skip
        yield Habit(f"codes by the zero point of {told}",
                    f"codes are those under the zero point of {told}, its own comes back",
                    {"code_zero": group}, "", True)  # fmt: skip
    for how, told in (("floor", "rounded down"), ("ceil", "rounded up"), ("toward_zero", "cut off"),
                      ("half_away", "rounded half away from zero")):  # fmt: skip
        yield Habit(f"zero point {how}", f"the zero point is {told}", {"zero": how}, "", True)
    yield Habit("zero point of a rounded quotient", f"the zero point is {d.min:g} - round(min / scale)",
                {"zero": "apart"}, "torchao, AMD Quark", True)  # fmt: skip
    yield Habit("zero point not clamped", f"the zero point leaves {d.min:g} .. {d.max:g}",
                {"clamped": False}, "", True)  # fmt: skip


def _of_codes(rule: Rule) -> Iterator[Habit]:
    d = rule.element
    for group, told in BESIDE if rule.scheme.kind != "per_tensor" else ():
        yield Habit(f"codes by the scale of {told}",
                    f"codes are those under the scale of {told}, its own comes back",
                    {"code_scale": group}, "", True)  # fmt: skip
    yield Habit("reciprocal of the scale", "x is multiplied by 1 / scale", {"code": "reciprocal"},
                "vLLM, torchao, compilers under fast-math", True)  # fmt: skip
    what = "amax" if rule.spec.symmetric else "the range"
    yield Habit(f"x times maximum over {what}", f"x is multiplied by maximum / {what}",
                {"code": "ratio"}, "bitsandbytes' int8_vectorwise_quant, vLLM's int8", True)  # fmt: skip
    yield Habit("codes by the scale before it is stored", "x is divided by the scale before its rounding",
                {"code": "unstored"}, "", True)  # fmt: skip
    yield Habit("codes in float64", "x / scale is taken in float64", {"code": "double"}, "", True)
    yield Habit("codes by a float64 scale", "x is divided in float64 by a scale that is not rounded",
                {"code": "doubles"}, "kernels of NumPy", True)  # fmt: skip
    if not rule.spec.symmetric:
        yield Habit("zero point before rounding", "x / scale + zero point is rounded", {"code": "moved"},
                    "compressed-tensors", True)  # fmt: skip
    for rounding in DETERMINISTIC:
        if rounding != rule.spec.rounding:
            yield Habit(
                f"rounds {rounding}", f"codes are rounded {rounding}", {"rounding": rounding}, "", True
            )
    if isinstance(d, Integer) and d.signed:
        claim = f'nx.integer_format({d.bits}, narrow=True), \'{{"bits": {d.bits}, "narrow": true}}\' on the '
        yield Habit("no least integer", f"{d.min:g} becomes {d.min + 1:g}, as is due of {claim}command line",
                    {"clip": True}, "", True)  # fmt: skip
    if _has_minus_zero(d):
        yield Habit("loses -0", "what rounds to zero becomes +0", {"minus_zero": "lost"}, "", True)
        yield Habit("reads -0 as 0", "-0 becomes 0; what rounds to zero keeps its sign",
                    {"minus_zero": "read"}, "", True)  # fmt: skip
    if isinstance(d, Codebook) and d.bits <= 4:
        yield Habit("middles in float32", "a number goes up where it is above the middle rounded to float32",
                    {"middles": "float32"}, "bitsandbytes", True)  # fmt: skip


def _has_minus_zero(d: Element) -> bool:
    if isinstance(d, Integer):
        return False
    values = REFERENCE.decode(np.arange(1 << d.bits).astype(d.code_dtype), d)
    return bool(((values == 0) & np.signbit(values)).any())


# ---- the search --------------------------------------------------------------------------------------


def nearest(task: Task, seen: list[Observed]) -> tuple[Habit, ...]:
    """The fewest deviations that explain all that came; none where no two of scales and two of codes do."""
    assert task.rule is not None
    every = list({one.name: one for one in habits(task.rule, seen)}.values())
    if task.kind == "fake_quantize":
        return next((some for some in _sets(every) if _explains(task, some, seen, True)), ())
    of_scales, of_codes = ([one for one in every if one.of_codes == codes] for codes in (False, True))
    best: tuple[Habit, ...] = ()
    for some in ((), *_sets(of_scales)):
        if best and len(some) >= len(best):
            break
        if _explains(task, some, seen, False):
            fewer = (more for more in ((), *_sets(of_codes)) if not best or len(some + more) < len(best))
            both = (some + more for more in fewer if some + more)
            best = next((one for one in both if _explains(task, one, seen, True)), best)
    return best


def _sets(every: list[Habit]) -> Iterator[tuple[Habit, ...]]:
    """Sets of those that change different steps, the small ones first."""
    for count in range(1, TOGETHER + 1):
        for some in combinations(every, count):
            if len({name for one in some for name in one.steps}) == sum(len(one.steps) for one in some):
                yield some


def _explains(task: Task, some: tuple[Habit, ...], seen: list[Observed], codes: bool) -> bool:
    """Would these make all that came?  codes: or the scales alone."""
    rule = task.rule
    assert rule is not None
    for one in some:
        rule = rule.bent(**one.steps)
    for x, came in seen[::-1]:
        if not codes:
            assert isinstance(came, Fields)
            if task.differs(came.scale, rule.given(rule.find(x))).any():
                return False
        elif any(wrong.any() for wrong in _unexplained(task, x, came, task.found(rule, x))):
            return False
    return True


def _unexplained(task: Task, x: Float32, came: Answer, due: Answer) -> Iterator[NDArray[np.bool_]]:
    """What is not so, part by part; of codes beside a scale that is none (0, Inf, NaN) nothing is due."""
    codes, *shared = (task.differs(*pair) for pair in task.pairs(came, due))
    if isinstance(came, Fields):
        assert task.rule is not None
        none = ~np.isfinite(came.scale) | (came.scale == 0)
        codes = codes & ~none.reshape(-1)[groups_of(task.rule.scheme, x.shape).places]
    yield from (codes, *shared)
