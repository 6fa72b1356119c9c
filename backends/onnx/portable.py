"""Profile `portable`: rounding by float arithmetic alone, opset 13, for runtimes that know no BitCast.

Shares nothing with the integer arithmetic: exponents are found by comparing with powers of two, halving
the range each time, and `Round` ties to even.  It needs subnormals kept, as ONNX Runtime does unless
told otherwise.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto

from numerics.backends.onnx.trace import BOOL, FLOAT, INT64, Graph, Lane
from numerics.formats.block import Block, MXBlock
from numerics.formats.codebook import Codebook
from numerics.formats.dtype import Element, Float, Integer

OPSET = 13  # ONNX Runtime 1.20 and earlier


def refusal(d: Element | Block, overflow: str) -> str | None:
    """Why a format is not offered, or None."""
    if isinstance(d, Block):
        return refusal(d.element, overflow) if isinstance(d, MXBlock) else "only OCP MX blocks are"
    if isinstance(d, Integer):
        return None
    if isinstance(d, Codebook):
        return "codebooks are looked up, which profile='bits' does"
    assert isinstance(d, Float)
    offered = "nonsaturate" if d.name == "bfloat16" else "saturate"  # the one is a Cast, the others clamp
    if overflow != offered:
        return f"only overflow={offered!r} is"
    if d.name == "bfloat16":
        return None
    if not d.signed or not d.subnormals or not d.has_zero:
        return "unsigned formats, and those without zero or subnormals, are not"
    if d.mantissa < 1:
        return "a tie between powers of two goes to the even code, which no float operation says"
    if d.max / d.smallest_normal >= 2.0**127:
        return "its range is too wide for float arithmetic"
    return None


class Float32:
    """Float operations on lanes of a graph, by name."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def of(self, value: float) -> Lane:
        """A number."""
        return self.graph.constant(np.array(value, np.float32))

    def op(self, name: str, *lanes: Any) -> Lane:
        """An operator on lanes and numbers."""
        kind = BOOL if name in ("IsNaN", "Greater", "GreaterOrEqual", "Less", "Equal") else FLOAT
        return self.graph.node(name, [v if isinstance(v, Lane) else self.of(v) for v in lanes], kind)

    def where(self, condition: Lane, yes: Any, no: Any) -> Lane:
        """A choice."""
        lanes = [condition, *(v if isinstance(v, Lane) else self.of(v) for v in (yes, no))]
        return self.graph.node("Where", lanes, FLOAT)

    def binade(self, a: Lane, highest: int, lowest: int = 0) -> Lane:
        """2**floor(log2(a)) for 2**lowest <= a < 2**(highest + 1); 1 for smaller a where lowest is 0."""
        power = self.of(1.0)
        for k in _halvings(highest):
            beyond = self.op("GreaterOrEqual", a, 2.0**k)
            a = self.where(beyond, self.op("Mul", a, 2.0**-k), a)
            power = self.where(beyond, self.op("Mul", power, 2.0**k), power)
        for k in _halvings(-lowest):
            below = self.op("Less", a, 2.0 ** (1 - k))
            a = self.where(below, self.op("Mul", a, 2.0**k), a)
            power = self.where(below, self.op("Mul", power, 2.0**-k), power)
        return power

    def integer(self, x: Lane, d: Integer, unit: float = 1.0, symmetric: bool = False) -> Lane:
        """A number to the nearest multiple of unit that d holds, half to even, saturating; one zero."""
        low = -d.max if symmetric else d.min
        steps = self.op("Max", self.op("Min", self.op("Mul", x, 1 / unit), d.max), low)
        y = self.op("Mul", self.op("Round", steps), unit)
        return self.where(self.op("Equal", y, 0.0), 0.0, y)

    def magnitude(self, x: Lane, d: Float) -> Lane:
        """The magnitude of the nearest value of d, half to even, saturating."""
        a = self.op("Mul", self.op("Min", self.op("Abs", x), d.max), 1 / d.smallest_normal)
        highest = int(math.log2(d.max / d.smallest_normal))
        step = self.op("Mul", self.binade(a, highest), 2.0**-d.mantissa)
        rounded = self.op("Mul", self.op("Round", self.op("Div", a, step)), step)
        return self.op("Mul", rounded, d.smallest_normal)

    def with_sign(self, y: Lane, x: Lane, d: Float) -> Lane:
        """A magnitude under the sign of x, -0 too; last of all, since Where may make +0 of -0."""
        below = [self.op("Less", x, 0.0), self.op("Less", self.op("Div", 1.0, x), 0.0)]
        negative = self.graph.node("Or", below, BOOL)
        if d.nan_is_negative_zero:  # one zero
            negative = self.graph.node("And", [negative, self.op("Greater", y, 0.0)], BOOL)
        return self.op("Mul", y, self.where(negative, -1.0, 1.0))


def _halvings(most: int) -> list[int]:
    """64, 32 ... 1, as far as an exponent up to `most` needs them; no power beyond float32."""
    fine = [1 << k for k in reversed(range(min(most, 127).bit_length()))]
    return [64] * (most // 128) + fine


def round_elements(d: Element) -> ModelProto:
    """Float32 x to the nearest values, half to even."""
    graph = Graph()
    x = graph.input("x", FLOAT)
    f = Float32(graph)
    if d.name == "bfloat16":
        y = graph.cast(graph.cast(x, TensorProto.BFLOAT16), FLOAT)
    elif isinstance(d, Integer):
        y = f.where(f.op("IsNaN", x), 0.0, f.integer(x, d))
    else:
        assert isinstance(d, Float)
        y = f.where(f.op("IsNaN", x), math.nan if d.has_nan else d.max, f.magnitude(x, d))
        y = f.with_sign(y, x, d)
    return graph.model({"y": y}, OPSET, f"round_{d.name}", f"numerics round {d.name}, half_even")


def round_blocks(d: MXBlock) -> ModelProto:
    """Float32 x, blocked along its last axis, to the nearest values; scale rule `floor`."""
    graph = Graph()
    f, x = Float32(graph), graph.input("x", FLOAT, ["rows", "columns"])
    whole = graph.node("Shape", [x], INT64)
    rows = graph.reshape(x, [-1, d.block])
    top = graph.node("ReduceMax", [f.op("Abs", rows)], FLOAT, axes=(1,), keepdims=1)
    missing = graph.cast(f.op("IsNaN", f.op("Mul", rows, 0.0)), FLOAT)  # Inf times 0 is NaN too
    poisoned = f.op("Equal", graph.node("ReduceMax", [missing], FLOAT, axes=(1,), keepdims=1), 1.0)
    scale = f.op("Max", f.op("Mul", f.binade(top, 127, -149), 2.0**-d.emax), 2.0**-127)
    u = f.op("Div", rows, scale)
    element = d.element
    if isinstance(element, Integer):
        y = f.op("Mul", f.integer(u, element, d.element_unit, symmetric=True), scale)
        y = f.where(poisoned, math.nan, f.where(f.op("Equal", y, 0.0), 0.0, y))
    else:
        assert isinstance(element, Float)
        y = f.where(poisoned, math.nan, f.op("Mul", f.magnitude(u, element), scale))
        y = f.with_sign(y, rows, element)
    note = f"numerics round {d.name}, half_even, floor"
    return graph.model({"y": graph.reshape(y, whole)}, OPSET, f"round_{d.name}", note)
