"""Functions of exact numbers, for the integer reference: what QuantizeLinear then rounds once.

table: of one number, computed once for each integer that occurs.  rows: of many.  Formulas in float64, with
nothing of ONNX Runtime in them, whose own are in float32: what lies within 2**-20 of midway may differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

import numpy as np
from onnx import NodeProto

from numerics.model.ipu.fixed import Array, Fixed
from numerics.model.ipu.network import attribute

ONE: Final = Fraction(1)


def _erf(x: Array) -> Array:
    return np.array([math.erf(value) for value in x.ravel()]).reshape(x.shape)


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


def _gelu(node: NodeProto, x: Array) -> Array:
    if attribute(node, "approximate", "none") == "tanh":
        return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    return np.asarray(0.5 * x * (1 + _erf(x / math.sqrt(2))))


def _elu(node: NodeProto, x: Array) -> Array:
    return np.where(x < 0, attribute(node, "alpha", 1.0) * np.expm1(np.minimum(x, 0)), x)


def _celu(node: NodeProto, x: Array) -> Array:
    alpha = attribute(node, "alpha", 1.0)
    return np.where(x < 0, alpha * np.expm1(np.minimum(x, 0) / alpha), x)


def _shrink(node: NodeProto, x: Array) -> Array:
    bound, bias = attribute(node, "lambd", 0.5), attribute(node, "bias", 0.0)
    return np.where(x < -bound, x + bias, np.where(x > bound, x - bias, 0.0))


TABLES: Final[dict[str, Callable[[NodeProto, Array], Array]]] = {
    "Abs": lambda _, x: np.abs(x),
    "Ceil": lambda _, x: np.ceil(x),
    "Celu": _celu,
    "Cos": lambda _, x: np.cos(x),
    "Elu": _elu,
    "Erf": lambda _, x: _erf(x),
    "Exp": lambda _, x: np.exp(x),
    "Floor": lambda _, x: np.floor(x),
    "Gelu": _gelu,
    "HardSwish": lambda _, x: x * np.clip(x / 6 + 0.5, 0, 1),
    "Mish": lambda _, x: x * np.tanh(np.logaddexp(0, x)),
    "Neg": lambda _, x: -x,
    "Round": lambda _, x: np.rint(x),
    "Shrink": _shrink,
    "Sigmoid": lambda _, x: _sigmoid(x),
    "Sign": lambda _, x: np.sign(x),
    "Sin": lambda _, x: np.sin(x),
    "Softsign": lambda _, x: x / (1 + np.abs(x)),
    "Tanh": lambda _, x: np.tanh(x),
    "ThresholdedRelu": lambda node, x: np.where(x > attribute(node, "alpha", 1.0), x, 0.0),
}


SUMMANDS: Final[dict[str, Callable[[NodeProto, Array], Any]]] = {
    "Celu": lambda node, _: abs(attribute(node, "alpha", 1.0)),
    "Cos": lambda _, x: np.abs(x),
    "Elu": lambda node, _: abs(attribute(node, "alpha", 1.0)),
    "Erf": lambda _, x: 1.0,
    "Gelu": lambda _, x: np.abs(x),
    "HardSwish": lambda _, x: np.abs(x),
    "Mish": lambda _, x: np.abs(x),
    "Shrink": lambda node, x: np.abs(x) + abs(attribute(node, "bias", 0.0)),
    "Sigmoid": lambda _, x: 1.0,
    "Sin": lambda _, x: np.abs(x),
}
"""Functions whose formulas add numbers that may cancel -> how large these are."""


def table(node: NodeProto, x: Fixed) -> Fixed | None:
    """A function of each number; None where the integers have several scales."""
    if not isinstance(x.scale, Fraction):
        return None
    every, places = np.unique(x.q, return_inverse=True)
    values = every * float(x.scale)
    made = TABLES[node.op_type](node, values)
    summands = SUMMANDS.get(node.op_type, lambda *_: 0.0)(node, values)
    reach = np.broadcast_to(np.maximum(np.abs(made), summands), made.shape)
    at = places.reshape(x.q.shape)
    return Fixed(made[at], ONE, reach[at])


# ---- rows -----------------------------------------------------------------------------------------


def softmax(node: NodeProto, x: Fixed, opset: int) -> Fixed:
    """exp(x) over its sum along an axis; before opset 13 over all axes from that one on."""
    values = x.values
    axis = attribute(node, "axis", 1 if opset < 13 else -1) % values.ndim
    axes = tuple(range(axis, values.ndim)) if opset < 13 else axis
    powers = np.exp(values - values.max(axis=axes, keepdims=True))
    made = powers / powers.sum(axis=axes, keepdims=True)
    return Fixed(made, ONE, np.abs(made))


def layer_norm(node: NodeProto, x: Array, scale: Array, bias: Array | None = None, *_: Any) -> Array:
    """Along the axes from `axis` on, with its own scale and bias."""
    axes = tuple(range(attribute(node, "axis", -1) % x.ndim, x.ndim))
    made = _normalized(x, axes, attribute(node, "epsilon", 1e-5)) * scale.astype(np.float64)
    return np.asarray(made if bias is None else made + bias)


def instance_norm(node: NodeProto, x: Array, scale: Array, bias: Array, *_: Any) -> Array:
    """Along the axes behind the channels."""
    shape = [1, -1, *[1] * (x.ndim - 2)]
    made = _normalized(x, tuple(range(2, x.ndim)), attribute(node, "epsilon", 1e-5))
    return np.asarray(made * scale.astype(np.float64).reshape(shape) + bias.reshape(shape))


def _normalized(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    apart = x - x.mean(axis=axes, keepdims=True)
    return np.asarray(apart / np.sqrt((apart**2).mean(axis=axes, keepdims=True) + epsilon))


ROWS: Final[dict[str, Callable[..., Array]]] = {
    "LayerNormalization": layer_norm,
    "InstanceNormalization": instance_norm,
}


def rows(node: NodeProto, taken: list[Any]) -> Fixed:
    """A function of many numbers, with the constants beside them."""
    made = ROWS[node.op_type](node, taken[0].values, *taken[1:])
    return Fixed(made, ONE, np.abs(made))


def reduced(node: NodeProto, taken: list[Any]) -> Fixed | None:
    """ReduceSum and ReduceMean: the sum of integers, whose unit is the mean's where it is one."""
    x = taken[0]
    if not isinstance(x.scale, Fraction):
        return None
    axes = _axes(node, taken, x.q.ndim)
    if axes is None:
        return x
    acc = x.q.sum(axis=axes, keepdims=bool(attribute(node, "keepdims", 1)))
    reach = np.abs(x.q).sum(axis=axes, keepdims=bool(attribute(node, "keepdims", 1)))
    count = int(np.prod([x.q.shape[k] for k in axes])) if node.op_type == "ReduceMean" else 1
    return Fixed(acc, x.scale / count, reach)


def _axes(node: NodeProto, taken: list[Any], rank: int) -> tuple[int, ...] | None:
    """The axes of a reduction: an attribute, or an input from some opset on; None for none at all."""
    given = attribute(node, "axes") if len(taken) < 2 or taken[1] is None else taken[1]
    if given is None or not len(given):
        return None if attribute(node, "noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(int(axis) % rank for axis in given)


# ---- sizes ----------------------------------------------------------------------------------------


def refusal(node: NodeProto) -> str | None:
    """Why an operator has no rule as its attributes are; None where it has one."""
    check = _REFUSALS.get(node.op_type)
    return None if check is None else check(node)


def _gemm_refusal(node: NodeProto) -> str | None:
    if attribute(node, "transA", 0):
        return "transA: the device multiplies rows"
    return (
        "its alpha or beta is not 1" if any(attribute(node, n, 1.0) != 1 for n in ("alpha", "beta")) else None
    )


def _transposed_refusal(node: NodeProto) -> str | None:
    if attribute(node, "auto_pad", "NOTSET") != "NOTSET" or attribute(node, "output_shape") is not None:
        return "its pads are left to the runtime: auto_pad, output_shape"
    return None


def _hard_sigmoid_refusal(node: NodeProto) -> str | None:
    if abs(attribute(node, "alpha", 0.2) - 1 / 6) > 1e-6:
        return "the device's HardSigmoid has the slope 1/6"
    return "the device's HardSigmoid has beta 0.5" if attribute(node, "beta", 0.5) != 0.5 else None


def _average_refusal(node: NodeProto) -> str | None:
    padded = any(attribute(node, "pads", [0])) or attribute(node, "auto_pad", "NOTSET").startswith("SAME")
    if (padded and not attribute(node, "count_include_pad", 0)) or attribute(node, "ceil_mode", 0):
        return "windows at the edge count fewer values: no one multiplier"
    return None


def _leaky_refusal(node: NodeProto) -> str | None:
    return None if math.isfinite(attribute(node, "alpha", 0.01)) else "its slope is not finite"


WAYS: Final = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")


def resize_refusal(node: NodeProto) -> str | None:
    """Why a Resize has no rule; None where it has."""
    mode, way = attribute(node, "mode", "nearest"), attribute(node, "coordinate_transformation_mode", WAYS[0])
    if mode not in ("nearest", "linear"):
        return f"its mode is {mode}, whose weights are no averages: the result may leave the shared scale"
    if way not in WAYS:
        return f"the coordinates {way} have no rule here"
    return "it filters first" if attribute(node, "antialias", 0) else None


_REFUSALS: Final[dict[str, Callable[[NodeProto], str | None]]] = {
    "AveragePool": _average_refusal,
    "ConvTranspose": _transposed_refusal,
    "Gemm": _gemm_refusal,
    "HardSigmoid": _hard_sigmoid_refusal,
    "LeakyRelu": _leaky_refusal,
    "Resize": resize_refusal,
}


def resized(node: NodeProto, taken: list[Any]) -> Fixed | None:
    """Resize by averages of two neighbours along each axis, or by the nearest one."""
    old = len(taken) == 2  # of opset 10: it has no regions, and no attributes of coordinates
    x, scales, sizes = taken[0], *(*taken[1 if old else 2 :], None, None)[:2]
    rank = x.q.ndim
    axes = [axis % rank for axis in attribute(node, "axes", list(range(rank)))]
    if attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    q, scale, reach = x.q.astype(np.float64), x.scale, np.abs(x.q).astype(np.float64)
    for k, axis in enumerate(axes):
        before = x.q.shape[axis]
        ratio = float(scales[k]) if scales is not None and len(scales) else int(sizes[k]) / before
        after = int(sizes[k]) if scales is None or not len(scales) else math.floor(before * ratio)
        if after != before or ratio != 1:
            weights = _weights(node, before, after, ratio, old)
            q, reach = (np.moveaxis(np.moveaxis(part, axis, -1) @ weights, -1, axis) for part in (q, reach))
    return Fixed(q, scale, reach)


def _weights(node: NodeProto, before: int, after: int, ratio: float, old: bool) -> Array:
    """[before, after]: how much of each value goes into each.  old: as opset 10 has it."""
    way, nearest = "half_pixel", "round_prefer_floor"
    if old:
        way, nearest = "asymmetric", "ceil" if ratio < 1 else "floor"
    at = _coordinates(attribute(node, "coordinate_transformation_mode", way), before, after, ratio)
    weights = np.zeros((before, after))
    if attribute(node, "mode", "nearest") == "nearest":
        where = _NEAREST[attribute(node, "nearest_mode", nearest)](at)
        weights[np.clip(where, 0, before - 1).astype(int), np.arange(after)] = 1
        return weights
    at = np.clip(at, 0, before - 1)
    low = np.floor(at).astype(int)
    part = at - low
    np.add.at(weights, (low, np.arange(after)), 1 - part)
    np.add.at(weights, (np.minimum(low + 1, before - 1), np.arange(after)), part)
    return weights


_NEAREST: Final[dict[str, Callable[[Array], Array]]] = {
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _coordinates(way: str, before: int, after: int, ratio: float) -> Array:
    """Where each result lies among the values."""
    k = np.arange(after, dtype=np.float64)
    if way == "align_corners":
        return k * (before - 1) / (after - 1) if after > 1 else k * 0
    if way == "asymmetric":
        return np.asarray(k / ratio)
    if way == "pytorch_half_pixel" and after == 1:
        return k * 0
    return np.asarray((k + 0.5) / ratio - 0.5)
