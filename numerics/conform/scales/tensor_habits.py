"""Known ways to find the scale of a tensor of blocks otherwise than docs/formats.md §8 says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from numerics.backends.reference.blocks import tensor_scale_of
from numerics.conform.task import Task
from numerics.formats.block import ScaledBlock

ONE = np.float32(1)


class TensorHabit(NamedTuple):
    """A known way: its name, what it does, the scale that it finds of a tensor's largest magnitude."""

    name: str
    sentence: str
    find: Callable[[float], float]
    seen_in: str = ""

    def __str__(self) -> str:
        return self.sentence + (f" (seen in {self.seen_in})" if self.seen_in else "")


def ways(task: Task) -> Iterator[TensorHabit]:
    """Those that a format can have, what is due first."""
    d = task.block
    assert isinstance(d, ScaledBlock)
    one, other = np.float32(d.scale.max), np.float32(d.element_unit * d.element.scale_end)
    both = one * other
    due = TensorHabit("tensor scale as due", f"the tensor scale is amax / {both:g}",
                      lambda amax: float(tensor_scale_of([amax], d, task.scale_rule)))  # fmt: skip
    yield due
    found: dict[str, tuple[Callable[[np.float32], np.float32], str]] = {
        f"amax · float32(1 / {both:g})": (lambda amax: amax * (ONE / both), "compilers under fast-math"),
        f"amax · float32(1 / {one:g}) · float32(1 / {other:g})": (
            lambda amax: amax * (ONE / one) * (ONE / other), ""),
        f"amax · float32(1 / {other:g}) · float32(1 / {one:g})": (
            lambda amax: amax * (ONE / other) * (ONE / one), ""),
        f"amax / {one:g} / {other:g}": (lambda amax: amax / one / other, ""),
        f"amax / {other:g} / {one:g}": (lambda amax: amax / other / one, ""),
        f"1 / ({both:g} / amax)": (lambda amax: ONE / (both / amax), "TransformerEngine, FlashInfer"),
        f"1 / ({one:g} / amax · {other:g})": (lambda amax: ONE / (one / amax * other), ""),
        f"amax / {256 * other:g}": (lambda amax: amax / (256 * other), "four over six"),
        f"amax / {one:g}": (lambda amax: amax / one, ""),
        f"amax / {other:g}": (lambda amax: amax / other, ""),
        "1": (lambda amax: ONE, "")}  # fmt: skip
    for text, (find, seen_in) in found.items():
        name = f"tensor scale {text}"
        yield TensorHabit(name, f"the tensor scale is {text}, not amax / {both:g}", _kept(find, due), seen_in)


def _kept(find: Callable[[np.float32], np.float32], due: TensorHabit) -> Callable[[float], float]:
    """The same; what is due of zeros, and where nothing is left that a scale can be."""

    def found(amax: float) -> float:
        with np.errstate(all="ignore"):
            scale = find(np.float32(amax)) if amax else np.float32(0)
        return float(scale) if 0 < scale < np.inf else due.find(amax)

    return found
