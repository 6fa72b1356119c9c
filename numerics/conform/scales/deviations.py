"""Known deviations of kernels that find their scales: one step of the rule that is done otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any, NamedTuple

from numerics.conform.scales.rule import Float32, Least, Rule
from numerics.conform.task import Answer, Fields, Task
from numerics.formats.dtype import Integer
from numerics.formats.rounding import DETERMINISTIC

FLOORS = (1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
"""What amax or a scale is at least, or what is added to amax, in kernels that avoid a division by 0."""
LIBRARIES = {
    1e-12: "torchao's float8", 1e-10: "vLLM's per_token_group_quant_fp8", 1e-4: "DeepSeek-V3, DeepGEMM",
    1e-5: "torchao's int8 activations",
}  # fmt: skip
"""Whose amax is at least that."""
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


def habits(rule: Rule) -> Iterator[Habit]:
    """Those that a rule can have."""
    yield from _of_division(rule)
    yield from _of_amax()
    for kind in ("bfloat16", "float16", "float32", "pof2"):
        if kind != rule.spec.stored_scale_type(rule.inputs):
            yield Habit(f"scale in {kind}", f"the scale is rounded to {kind}", {"store": kind})
    yield from _least(rule)
    yield from _of_codes(rule)


def _of_division(rule: Rule) -> Iterator[Habit]:
    d = rule.element
    yield Habit("reciprocal of the maximum", f"amax is multiplied by float32(1 / {rule.end:g})",
                {"divide": "reciprocal"}, "compilers under fast-math")  # fmt: skip
    yield Habit("reciprocal twice", f"the scale is 1 / ({rule.end:g} / amax)", {"divide": "twice"},
                "torchao's float8, TransformerEngine")  # fmt: skip
    ends = {
        "half of all steps": (d.max - d.min) / 2,
        "the largest value": float(d.max),
        "one more": d.max + 1.0,
    }
    if isinstance(d, Integer):
        ends["minus the least"] = float(-d.min)
    if d.name == "fp8_e4m3":
        ends["the largest value of fp8_e4m3fnuz"] = 240.0
        ends["half of the largest value"] = 224.0
    for what, end in ends.items():
        if rule.spec.symmetric and end != rule.end and end > 0:
            told = f"amax is divided by {what}, {end:g}, not {rule.end:g}"
            yield Habit(
                f"amax over {end:g}",
                told,
                {"end": end},
                "torchao's symmetric integers, AMD Quark" * (end % 1 > 0),
            )
    yield Habit("gives the reciprocal", "1 / scale comes back in place of the scale", {"gives": "inverse"},
                "torchao's amax_to_scale")  # fmt: skip
    yield Habit("gives amax", "amax comes back in place of the scale", {"gives": "amax"},
                "bitsandbytes' int8_vectorwise_quant")  # fmt: skip


def _of_amax() -> Iterator[Habit]:
    yield Habit("Inf counts", "an infinite number makes the scale infinite", {"amax": "inf"}, "fmaxf of CUDA")
    yield Habit("NaN counts", "NaN, and Inf, become the scale", {"amax": "nan"}, "torch.amax")
    yield Habit("loses the sign", "the largest number is taken for the largest magnitude", {"amax": "signed"})
    for eps in FLOORS:
        yield Habit(f"adds {eps:g}", f"{eps:g} is added to amax", {"add": eps})


def _least(rule: Rule) -> Iterator[Habit]:
    if rule.least.kind != "none":
        yield Habit("zeros have the scale 0", "a scale may be 0", {"least": Least("none")},
                    "vLLM's int8, bitsandbytes")  # fmt: skip
    if rule.least.kind != "one":
        yield Habit("zeros have the scale 1", "the scale of zeros is 1", {"least": Least()})
    for eps in FLOORS:
        told = f"amax is at least {eps:g}"
        yield Habit(told, told, {"least": Least.of(f"amax {eps!r}")}, LIBRARIES.get(eps, ""))
    scales = dict.fromkeys(FLOORS, "") | {
        2.0**-23: "torchao, of float32", 2.0**-7: "torchao, of bfloat16", 2.0**-10: "torchao, of float16",
        2.0**-126: "", 1 / (rule.end * 512): "vLLM's per-token fp8",
    }  # fmt: skip
    for eps, whose in scales.items():
        yield Habit(f"scale at least {eps:.6g}", f"a scale is at least {eps:.6g}",
                    {"least": Least.of(f"scale {eps!r}")}, whose)  # fmt: skip


def _of_codes(rule: Rule) -> Iterator[Habit]:
    yield Habit("reciprocal of the scale", "x is multiplied by 1 / scale", {"code": "reciprocal"},
                "vLLM, torchao, compilers under fast-math", True)  # fmt: skip
    if rule.spec.symmetric:
        yield Habit("x times maximum over amax", "x is multiplied by maximum / amax",
                    {"code": "ratio"}, "bitsandbytes' int8_vectorwise_quant, vLLM's int8", True)  # fmt: skip
    yield Habit("codes by the scale before it is stored", "x is divided by the scale before its rounding",
                {"code": "unstored"}, "", True)  # fmt: skip
    for rounding in DETERMINISTIC:
        if rounding != rule.spec.rounding:
            yield Habit(
                f"rounds {rounding}", f"codes are rounded {rounding}", {"rounding": rounding}, "", True
            )
    if isinstance(rule.element, Integer) and rule.element.signed:
        yield Habit("no least integer", "-128, or its like, becomes the next one", {"clip": True}, "", True)


def nearest(task: Task, seen: list[Observed]) -> tuple[Habit, ...]:
    """The fewest deviations that explain all that came; none where no two of scales and two of codes do."""
    assert task.rule is not None
    every = list(habits(task.rule))
    if task.kind == "fake_quantize":
        return next((some for some in _sets(every) if _explains(task, some, seen, True)), ())
    of_scales, of_codes = ([one for one in every if one.of_codes == codes] for codes in (False, True))
    for some in ((), *_sets(of_scales)):
        if _explains(task, some, seen, False):
            for more in ((), *_sets(of_codes)):
                if some + more and _explains(task, some + more, seen, True):
                    return some + more
    return ()


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
        elif any(task.differs(*pair).any() for pair in task.pairs(came, task.found(rule, x))):
            return False
    return True
