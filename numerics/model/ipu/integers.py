"""The integers of a quantized model, predicted: what a device of documented rounding makes of an input.

A reference of its own, which shares with ONNX Runtime only nodes that stay in float.  Between a
DequantizeLinear and the next QuantizeLinear everything is exact: integers with an exact scale
(`fixed.Fixed`), rounded once, in the device's mode, by the arithmetic of `backends/ipu/srs.py`.  Where floats
enter, QuantizeLinear runs on the host and rounds half to even.  Nothing here was compared with silicon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from numerics.backends.ipu.devices import device as find_device
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError
from numerics.model.ipu import functions
from numerics.model.ipu.approximating import HARD
from numerics.model.ipu.fixed import (
    Array,
    Fixed,
    Geometry,
    Rounded,
    convolved,
    exact_product,
    requantized,
    windows_of,
)
from numerics.model.ipu.network import attribute, named
from numerics.model.ipu.predictable import check, opset_of, zero_of
from numerics.model.ipu.running import Nodes

Value = Any  # a Fixed, or an array


@dataclass
class Prediction:
    """integers: what each QuantizeLinear gives, by the name of its output.  outputs: the model's.

    rounded: how each of the integers came about, where it came from an accumulator.  own: what ONNX
    Runtime's Softmax in integers gives in the place of some of them: it cuts the reciprocal of the scale to
    a whole number.
    """

    integers: dict[str, Array] = field(default_factory=dict)
    outputs: dict[str, Array] = field(default_factory=dict)
    rounded: dict[str, Rounded] = field(default_factory=dict)
    own: dict[str, Rounded] = field(default_factory=dict)


class Reference:
    """A quantized model, ready to be predicted for one device.

    model: what `quantize_model` gave, or another one of QuantizeLinear and DequantizeLinear with fixed
    scales, zero points included.  device: phx or hpt (ties toward +Inf), stx or krk (ties to even).  Raises
    NumericsError, naming the node, for what is not modelled (`predictable.py`).

    >>> import numerics as nx
    >>> from numerics.backends.ipu.verify import known_inputs, network
    >>> found = Reference(network(2), "phx").run({"x": known_inputs()})
    >>> found.integers["second_value_q"].ravel()[:3].tolist()
    [-128, -128, -128]
    """

    @keywords
    def __init__(self, model: ModelProto, device: str = "stx") -> None:
        self.model, self.mode, self.opset = model, find_device(device).mode, opset_of(model)
        self._alone = Nodes(self.opset)
        self.constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant":
                self.constants |= self._alone.run(node, {})
        check(model, self.constants)
        self._rounded_next = _rounded_next(model)
        every = _in_order(model, {*self.constants, *(value.name for value in model.graph.input)})
        self.nodes = [node for node in every if node.op_type != "Constant"]
        pairs = [node for node in self.nodes if node.op_type == "QuantizeLinear"]
        self.zeros = {node.output[0]: zero_of(node, self.constants) for node in pairs}
        self._softmaxes = {node.output[0] for node in self.nodes if node.op_type == "Softmax"}

    @keywords
    def run(self, feeds: Mapping[str, Array], given: Mapping[str, Array] | None = None) -> Prediction:
        """What the device is expected to make of an input.

        feeds: input name -> array.  given: integers of QuantizeLinear nodes, by their output's name: what
        follows is then predicted from these, layer by layer, and no difference travels on.  Raises
        NumericsError, naming the node, for accumulators that leave int32.
        """
        inputs = [value.name for value in self.model.graph.input if value.name not in self.constants]
        if not set(inputs) <= set(feeds):
            raise NumericsError(f"the model's inputs are {', '.join(inputs)}; came: {', '.join(feeds)}")
        found = Prediction()
        known: dict[str, Value] = {**self.constants, **feeds}
        for node in self.nodes:
            try:
                self._step(node, known, found)
            except NumericsError as wrong:
                if str(wrong).startswith(named(node)):
                    raise
                raise NumericsError(f"{named(node)}: {wrong}") from wrong
            if given is not None and node.output[0] in given:
                known[node.output[0]] = given[node.output[0]]
        found.outputs = {value.name: as_floats(known[value.name]) for value in self.model.graph.output}
        return found

    def _step(self, node: NodeProto, known: dict[str, Value], found: Prediction) -> None:
        if node.op_type == "DequantizeLinear":
            known[node.output[0]] = _dequantized(node, known)
        elif node.op_type == "QuantizeLinear":
            known[node.output[0]] = self._quantized(node, known, found)
        else:
            taken = [known[name] if name else None for name in node.input]
            rule = RULES.get(node.op_type) if any(isinstance(x, Fixed) for x in taken) else None
            if node.op_type in ONCE and node.output[0] not in self._rounded_next:
                rule = None  # it stays in float in this file
            if functions.refusal(node) is not None:
                rule = None  # its attributes have none
            made = None if rule is None else rule(self, node, taken)
            if made is None:
                self._in_float(node, known)
            else:
                known[node.output[0]] = made

    def _quantized(self, node: NodeProto, known: dict[str, Value], found: Prediction) -> Array:
        x, scale, zero = known[node.input[0]], known[node.input[1]].reshape(()), self.zeros[node.output[0]]
        ends = np.iinfo(zero.dtype)
        if isinstance(x, Fixed):
            both = int(ends.min), int(ends.max)
            rounded = requantized(x, Fraction(float(scale)), self.mode, both, int(zero.reshape(())))
            found.rounded[node.output[0]] = rounded
            integers = rounded.integers.astype(zero.dtype)
            if node.input[0] in self._softmaxes and zero.itemsize == 1:
                whole = Fixed(x.q * np.floor(np.float32(1) / scale), x.scale, x.reach)
                found.own[node.output[0]] = requantized(
                    whole, Fraction(1), "conv_even", both, int(zero.reshape(()))
                )
        else:
            scaled = np.asarray(x, np.float32) / scale
            integers = np.clip(np.rint(scaled) + int(zero.reshape(())), ends.min, ends.max).astype(zero.dtype)
        found.integers[node.output[0]] = integers
        return np.asarray(integers)

    def _in_float(self, node: NodeProto, known: dict[str, Value]) -> None:
        feeds = {name: as_floats(known[name]) for name in node.input if name}
        known.update(self._alone.run(node, feeds))

    @keywords
    def alone(self, node: NodeProto, integers: Array, others: Mapping[str, Array]) -> Array:
        """The node itself on integers, as float64, which hold them: it moves or compares them only."""
        made = self._alone.run(node, {node.input[0]: integers.astype(np.float64), **others})
        return made[node.output[0]].astype(np.int64)


def _rounded_next(model: ModelProto) -> set[str]:
    """The tensors that nothing but QuantizeLinear takes."""
    taken = {name for each in model.graph.node if each.op_type != "QuantizeLinear" for name in each.input}
    taken |= {value.name for value in model.graph.output}
    rounded = {each.input[0] for each in model.graph.node if each.op_type == "QuantizeLinear"}
    return rounded - taken


def _in_order(model: ModelProto, known: set[str]) -> list[NodeProto]:
    """The nodes, each after those whose results it takes: ONNX Runtime opens files in any order."""
    waiting, found, ready = list(model.graph.node), [], set(known)
    while waiting:
        later = []
        for node in waiting:
            if all(not name or name in ready for name in node.input):
                found.append(node)
                ready.update(node.output)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise NumericsError(f"{named(later[0])} takes what nothing makes: {', '.join(later[0].input)}")
        waiting = later
    return found


def as_floats(x: Value) -> Array:
    """Numbers as the float nodes of a model take them."""
    return x.values.astype(np.float32) if isinstance(x, Fixed) else np.asarray(x)


def _dequantized(node: NodeProto, known: Mapping[str, Value]) -> Fixed:
    scale, zero = np.asarray(known[node.input[1]]), zero_of(node, known)
    q = known[node.input[0]].astype(np.int64)
    if scale.size == 1:
        return Fixed(q - int(zero.reshape(())), Fraction(float(scale.reshape(()))))
    axis = attribute(node, "axis", 1)
    shape = [-1 if k == axis % q.ndim else 1 for k in range(q.ndim)]
    q = q - (zero.astype(np.int64).reshape(shape) if zero.size > 1 else int(zero.reshape(())))
    return Fixed(q, scale.astype(np.float64).reshape(shape))


# ---- layers ---------------------------------------------------------------------------------------


def _scale_of_products(x: Fixed, w: Fixed, axis: int, rank: int) -> Any:
    """The scale of x * w, which is by channels where the weights' is."""
    if isinstance(w.scale, Fraction):
        return x.scale * w.scale
    shape = [1] * rank
    shape[axis] = -1
    return float(x.scale) * w.scale.reshape(shape)


def _with_bias(acc: Fixed, bias: Fixed | None, axis: int) -> Fixed:
    """acc plus the bias, shifted into the accumulator's units; a finer one is kept exactly."""
    if bias is None:
        return acc
    shape = [1] * acc.q.ndim
    shape[axis] = -1
    q, scale, reach = bias.q.reshape(shape), acc.scale, acc.reach
    exact = isinstance(scale, Fraction) and isinstance(bias.scale, Fraction)
    ratio = bias.scale / scale if exact else Fraction(1)
    if abs(ratio - 1) < Fraction(1, 2**20):  # int32 at activation x weight, whose product was rounded once
        return Fixed(acc.q + q, scale, reach + np.abs(q))
    up, down = ratio.numerator, ratio.denominator
    return Fixed(acc.q * down + q * up, scale / down, reach * down + np.abs(q) * up)


def _sums(x: Fixed, w: Fixed, acc: Array, axis: int) -> Fixed:
    """Sums of x * w, w with its outputs first."""
    shape = [1] * acc.ndim
    shape[axis] = -1
    most = int(np.abs(x.q).max(initial=0))
    reach = most * np.abs(w.q).reshape(len(w.q), -1).sum(axis=1)
    return Fixed(acc, _scale_of_products(x, w, axis, acc.ndim), reach.reshape(shape))


def geometry_of(node: NodeProto, x: Array, kernel: tuple[int, ...]) -> Geometry:
    """Strides, dilations and pads of a node, auto_pad included."""
    rank = len(kernel)
    strides = tuple(attribute(node, "strides", [1] * rank))
    dilations = tuple(attribute(node, "dilations", [1] * rank))
    automatic = attribute(node, "auto_pad", "NOTSET")
    pads = tuple(attribute(node, "pads", [0] * 2 * rank))
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        sizes = zip(x.shape[2:], kernel, strides, dilations, strict=True)
        total = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in sizes]
        less, more = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = tuple([*less, *more] if automatic == "SAME_UPPER" else [*more, *less])
    return Geometry(strides, dilations, pads, attribute(node, "group", 1))


def _are_integers(x: Value, w: Value, bias: Value) -> bool:
    """Are they integers, the bias, if there is one, in a vector?  Else the layer stays in float."""
    if not isinstance(x, Fixed) or not isinstance(w, Fixed):
        return False
    return bias is None or (isinstance(bias, Fixed) and bias.q.ndim == 1)


def _conv(_: Reference, node: NodeProto, taken: list[Value]) -> Fixed | None:
    x, w, bias = (*taken, None)[:3]
    if not _are_integers(x, w, bias):
        return None
    acc = convolved(x.q, w.q, geometry_of(node, x.q, w.q.shape[2:]))
    return _with_bias(_sums(x, w, acc, 1), bias, 1)


def _gemm(_: Reference, node: NodeProto, taken: list[Value]) -> Fixed | None:
    x, w, bias = (*taken, None)[:3]
    if not _are_integers(x, w, bias):
        return None
    weights = w.q.T if attribute(node, "transB", 0) else w.q
    if node.op_type == "MatMul" and isinstance(w.scale, Fraction):
        return _matmul(x, w)
    if weights.ndim != 2:
        return None
    acc = exact_product(x.q, weights)
    by_output = Fixed(weights.T, w.scale)
    return _with_bias(_sums(x, by_output, acc, acc.ndim - 1), bias, acc.ndim - 1)


def _matmul(x: Fixed, w: Fixed) -> Fixed | None:
    """A product of any two with one scale each."""
    if not isinstance(x.scale, Fraction) or min(x.q.ndim, w.q.ndim) < 2:
        return None
    return Fixed(exact_product(x.q, w.q), x.scale * w.scale, exact_product(np.abs(x.q), np.abs(w.q)))


def _conv_transpose(_: Reference, node: NodeProto, taken: list[Value]) -> Fixed | None:
    """As the convolution that it is: values apart by the strides, the kernels turned around."""
    x, w, bias = (*taken, None)[:3]
    if not _are_integers(x, w, bias):
        return None
    kernel = w.q.shape[2:]
    asked = geometry_of(node, x.q, kernel)
    rank, groups = len(kernel), asked.groups
    more = attribute(node, "output_padding", [0] * rank)
    reach = [(k - 1) * d for k, d in zip(kernel, asked.dilations, strict=True)]
    before = [r - p for r, p in zip(reach, asked.pads[:rank], strict=True)]
    after = [r - p + m for r, p, m in zip(reach, asked.pads[rank:], more, strict=True)]
    sizes = [(n - 1) * s + 1 for n, s in zip(x.q.shape[2:], asked.strides, strict=True)]
    apart = np.zeros((*x.q.shape[:2], *sizes), np.int64)
    apart[(slice(None), slice(None), *(slice(None, None, s) for s in asked.strides))] = x.q
    for axis, (low, high) in enumerate(zip(before, after, strict=True), 2):  # negative pads cut
        apart = np.pad(apart, [(0, 0)] * axis + [(max(low, 0), max(high, 0))] + [(0, 0)] * (rank + 1 - axis))
        apart = np.take(apart, range(max(-low, 0), apart.shape[axis] - max(-high, 0)), axis)
    parts = np.split(np.flip(w.q, tuple(range(2, 2 + rank))), groups)  # [channels / groups, outputs, ...]
    turned = np.concatenate([np.swapaxes(part, 0, 1) for part in parts])
    acc = convolved(apart, turned, Geometry((1,) * rank, asked.dilations, (0,) * 2 * rank, groups))
    return _with_bias(_sums(x, Fixed(turned, w.scale), acc, 1), bias, 1)


# ---- sums and products ----------------------------------------------------------------------------


def _both(taken: list[Value]) -> tuple[Fixed, Fixed] | None:
    a, b = taken
    return (a, b) if isinstance(a, Fixed) and isinstance(b, Fixed) else None


def _sum(sign: int) -> Callable[[Reference, NodeProto, list[Value]], Fixed | None]:
    def rule(_: Reference, node: NodeProto, taken: list[Value]) -> Fixed | None:
        pair = _both(taken)
        if pair is None:
            return None
        a, b = pair
        if isinstance(a.scale, Fraction) and isinstance(b.scale, Fraction):
            unit = min(a.scale, b.scale)
            up, down = a.scale / unit, b.scale / unit
            if up.denominator == down.denominator == 1:
                one, other = a.q * up.numerator, b.q * down.numerator
                return Fixed(one + sign * other, unit, np.abs(one) + np.abs(other))
        one, other = a.values, b.values
        return Fixed(one + sign * other, Fraction(1), np.abs(one) + np.abs(other))

    return rule


def _mul(_: Reference, node: NodeProto, taken: list[Value]) -> Fixed | None:
    pair = _both(taken)
    if pair is not None:
        a, b = pair
        return Fixed(a.q * b.q, a.scale * b.scale)
    x, factor = taken if isinstance(taken[0], Fixed) else reversed(taken)
    if np.ndim(factor) or not np.isfinite(factor) or not isinstance(x.scale, Fraction):
        return None
    return Fixed(x.q, x.scale * _multiplier(float(factor)), x.reach)


def _multiplier(factor: float) -> Fraction:
    """A constant of float32 as the fraction that it stands for: the device's multipliers are exact ones."""
    return HARD if np.float32(factor) == np.float32(float(HARD)) else Fraction(factor)


# ---- functions ------------------------------------------------------------------------------------


def _relu(_: Reference, node: NodeProto, taken: list[Value]) -> Fixed:
    return Fixed(np.maximum(taken[0].q, 0), taken[0].scale, taken[0].reach)


def _clip(_: Reference, node: NodeProto, taken: list[Value]) -> Fixed | None:
    x, low, high = (*taken, None, None)[:3]
    q = x.q
    low, high = (  # before opset 11 they are attributes
        attribute(node, name) if bound is None else bound for name, bound in (("min", low), ("max", high))
    )
    for bound, extreme, nothing in ((low, np.maximum, -np.inf), (high, np.minimum, np.inf)):
        if bound is None or bound == nothing:
            continue
        if not np.isfinite(bound):
            return None
        q = extreme(q, _in_units(float(bound), x.scale))
    return Fixed(q, x.scale, x.reach)


def _in_units(number: float, scale: Any) -> Any:
    """A number in units of a scale: a whole one as an integer; between two, or of several, in float64."""
    if not isinstance(scale, Fraction):
        return number / scale
    units = Fraction(number) / scale
    return float(units) if units.denominator != 1 else min(max(units.numerator, -(2**62)), 2**62)


def _leaky_relu(_: Reference, node: NodeProto, taken: list[Value]) -> Fixed:
    x, slope = taken[0], Fraction(attribute(node, "alpha", 0.01))
    if slope.denominator > 256 or not isinstance(x.scale, Fraction) or x.q.dtype.kind == "f":
        return Fixed(np.where(x.q < 0, x.q * float(slope), x.q), x.scale, x.reach)
    q = np.where(x.q < 0, x.q * slope.numerator, x.q * slope.denominator)
    return Fixed(q, x.scale / slope.denominator, x.reach)


def _hard_sigmoid(_: Reference, node: NodeProto, taken: list[Value]) -> Fixed | None:
    """clip(x + 3, 0, 6) / 6, in the units of x; the 2731/16384 comes with the multiplier after it."""
    x = taken[0]
    three = Fraction(3) / x.scale if isinstance(x.scale, Fraction) else Fraction(1, 2)
    if three.denominator != 1:
        return None
    return Fixed(np.clip(x.q + three.numerator, 0, 2 * three.numerator), x.scale / 6, x.reach)


# ---- pools and what moves -------------------------------------------------------------------------


def _average_pool(_: Reference, node: NodeProto, taken: list[Value]) -> Fixed | None:
    x, kernel = taken[0], tuple(attribute(node, "kernel_shape"))
    if not isinstance(x.scale, Fraction) or attribute(node, "ceil_mode", 0):
        return None
    windows = windows_of(x.q, kernel, geometry_of(node, x.q, kernel))
    axes = tuple(range(-len(kernel), 0))
    return Fixed(windows.sum(axis=axes), x.scale / int(np.prod(kernel)), np.abs(windows).sum(axis=axes))


def _global_average_pool(_: Reference, node: NodeProto, taken: list[Value]) -> Fixed | None:
    x = taken[0]
    if not isinstance(x.scale, Fraction):
        return None
    axes = tuple(range(2, x.q.ndim))
    acc, reach = (q.sum(axis=axes, keepdims=True) for q in (x.q, np.abs(x.q)))
    return Fixed(acc, x.scale / int(np.prod(x.q.shape[2:])), reach)


def _global_max_pool(_: Reference, node: NodeProto, taken: list[Value]) -> Fixed | None:
    x = taken[0]
    return x.moved(x.q.max(axis=tuple(range(2, x.q.ndim)), keepdims=True))


def _concat(_: Reference, node: NodeProto, taken: list[Value]) -> Fixed | None:
    if not all(isinstance(x, Fixed) and isinstance(x.scale, Fraction) for x in taken):
        return None
    if len({x.scale for x in taken}) > 1:
        return None
    return Fixed(np.concatenate([x.q for x in taken], axis=attribute(node, "axis")), taken[0].scale)


def _moved(reference: Reference, node: NodeProto, taken: list[Value]) -> Fixed | None:
    x = taken[0]
    if not isinstance(x, Fixed) or not isinstance(x.scale, Fraction) or x.q.dtype.kind == "f":
        return None
    fills = [
        v for v in (*taken[2:3], attribute(node, "value")) if v is not None
    ]  # the latter before opset 11
    if node.op_type == "Pad" and any(np.any(v != 0) for v in fills):
        return None  # what it pads with is no integer
    rest = zip(node.input[1:], taken[1:], strict=True)
    others = {name: _as_double(other) for name, other in rest if name}
    return x.moved(reference.alone(node, x.q, others))


def _as_double(array: Array) -> Array:
    """A value to pad with has the type of what it pads; shapes and axes are integers."""
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _chosen(
    choose: Callable[[list[Array]], Array],
) -> Callable[[Reference, NodeProto, list[Value]], Fixed | None]:
    """A rule for numbers of one scale, of which some are chosen."""

    def rule(_: Reference, node: NodeProto, taken: list[Value]) -> Fixed | None:
        fixed = [x for x in taken if isinstance(x, Fixed)]
        scales = {x.scale if isinstance(x.scale, Fraction) else None for x in fixed}
        if (
            len(scales) > 1
            or None in scales
            or any(isinstance(x, np.ndarray) and x.dtype.kind == "f" for x in taken)
        ):
            return None
        return Fixed(choose([x.q if isinstance(x, Fixed) else x for x in taken]), fixed[0].scale)

    return rule


def _table(_: Reference, node: NodeProto, taken: list[Value]) -> Fixed | None:
    return functions.table(node, taken[0])


def _rows(_: Reference, node: NodeProto, taken: list[Value]) -> Fixed | None:
    return functions.rows(node, taken) if isinstance(taken[0], Fixed) else None


def _softmax(reference: Reference, node: NodeProto, taken: list[Value]) -> Fixed | None:
    return functions.softmax(node, taken[0], reference.opset)


def _reduced(_: Reference, node: NodeProto, taken: list[Value]) -> Fixed | None:
    return functions.reduced(node, taken)


def _resized(_: Reference, node: NodeProto, taken: list[Value]) -> Fixed | None:
    return functions.resized(node, taken)


RULES: Final[dict[str, Callable[[Reference, NodeProto, list[Value]], Fixed | None]]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _gemm,
    "Add": _sum(+1),
    "Sub": _sum(-1),
    "Mul": _mul,
    "Relu": _relu,
    "Clip": _clip,
    "LeakyRelu": _leaky_relu,
    "HardSigmoid": _hard_sigmoid,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "Concat": _concat,
    "Max": _chosen(np.maximum.reduce),
    "Min": _chosen(np.minimum.reduce),
    "Where": _chosen(lambda taken: np.where(*taken)),
    "Resize": _resized,
    **dict.fromkeys(functions.TABLES, _table),
    **dict.fromkeys(functions.ROWS, _rows),
    "Softmax": _softmax,
    **dict.fromkeys(("ReduceSum", "ReduceMean"), _reduced),
    **dict.fromkeys(
        (
            "MaxPool",
            "Pad",
            "Slice",
            "Reshape",
            "Flatten",
            "Transpose",
            "Squeeze",
            "Unsqueeze",
            "DepthToSpace",
            "Expand",
            "Gather",
            "Tile",
            "ReduceMax",
            "ReduceMin",
        ),
        _moved,
    ),
}
"""Operator -> what it makes of Fixed operands; None where it has none for these, and runs in float."""


ONCE: Final = (*functions.TABLES, *functions.ROWS, "Softmax", "ReduceSum", "ReduceMean", "Resize")
"""Functions of exact numbers where their result is rounded next; elsewhere they stay in float."""
