"""The quantized model as ONNX: pairs of nodes around what is integer, or casts to bfloat16.

Opset and operators stay the model's.  The pairs are standard operators, but ONNX Runtime's own, of domain
com.microsoft, where the standard has none of int16 (before opset 21), and from opset 21 on: pairs that ONNX
Runtime itself puts around what moves numbers carry a type there beside their zero point, which it refuses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from numerics._version import __version__
from numerics.model.ipu.choosing import Chosen, Group
from numerics.model.ipu.configs import Config
from numerics.model.ipu.network import Array, Network
from numerics.model.ipu.operators import operator_of
from numerics.model.ipu.report import Report
from numerics.model.ipu.scales import Scales, channels_axis, constants_of
from numerics.quantization import quantize
from numerics.tensor.scheme import Scheme

MICROSOFT: Final = "com.microsoft"
TYPED = 21
"""The opset from which on QuantizeLinear has an attribute of its type."""
INT32 = 2**31 - 1


@dataclass
class Writer:
    """What is known while a model is written.

    shared: constants of its own that several nodes take, by what they are.
    """

    network: Network
    chosen: Chosen
    config: Config
    report: Report
    shared: dict[str, str] = field(default_factory=dict)

    def domain(self, dtype: str) -> dict[str, Any]:
        """Whose operators a pair of that type is made of."""
        return {"domain": MICROSOFT} if dtype == "int16" or self.network.opset >= TYPED else {}

    def pair(self, x: str, y: str, scale: str, dtype: str) -> list[NodeProto]:
        """x rounded to integers and back, as y."""
        new_name = self.network.new_name
        if dtype not in self.shared:
            self.shared[dtype] = self.network.add_constant(f"zero_{dtype}", np.zeros((), dtype))
        zero = self.shared[dtype]
        domain = self.domain(dtype)
        integers = new_name(f"{x}_quantized")
        names = [new_name(f"{name}_node") for name in (integers, y)]
        return [
            helper.make_node("QuantizeLinear", [x, scale, zero], [integers], names[0], **domain),
            helper.make_node("DequantizeLinear", [integers, scale, zero], [y], names[1], **domain),
        ]


# ---- integers -------------------------------------------------------------------------------------


def write_integers(writer: Writer, scales: Scales) -> ModelProto:
    """The model with a pair of nodes at every tensor that has a scale, and integer constants."""
    network = writer.network
    for group in writer.chosen.groups:
        _constants_of(writer, group, scales)
    for name in writer.chosen.tensors:
        scale = network.add_constant(f"{name}_scale", np.array(scales.tensors[name], np.float32))
        _put_pair(writer, name, scale)
    network.drop_unused()
    return _finished(writer)


def _put_pair(writer: Writer, name: str, scale: str) -> None:
    """A tensor passes through integers on its way to all who take it."""
    network, dtype = writer.network, writer.config.activations
    producer = network.producer(name)
    if name in network.outputs and producer is not None:  # the name stays at the end of the way
        before = network.new_name(f"{name}_float")
        producer.output[list(producer.output).index(name)] = before
        after = name
        network.redirect(name, name)
        nodes = writer.pair(before, after, scale, dtype)
    else:
        after = network.new_name(f"{name}_dequantized")
        network.redirect(name, after)
        nodes = writer.pair(name, after, scale, dtype)
    at = 0 if producer is None else 1 + next(k for k, each in enumerate(network.nodes) if each is producer)
    network.nodes[at:at] = nodes


def _constants_of(writer: Writer, group: Group, scales: Scales) -> None:
    for node in group.nodes:
        kind = operator_of(writer.network, node).kind
        if kind == "layer":
            x = scales.tensors[node.input[0]]
            weight = scales.constants[node.input[1]]
            _put_bias(writer, node, scales, np.float64(x) * weight.astype(np.float64))
            _put_constant(writer, node, 1, weight, channels_axis(node))
        elif kind in ("sum", "product") and node is group.first:
            for place, name in enumerate(node.input):
                if name in scales.constants:
                    _put_constant(writer, node, place, scales.constants[name], 0)


def bytes_written(writer: Writer) -> dict[str, int]:
    """About how many bytes the constants of the integer model will have: name -> bytes.

    Each node that takes a constant as integers has them for itself; who takes it in float shares it.
    """
    network = writer.network
    found: dict[str, int] = {}
    integer = {
        (id(node), place)
        for group in writer.chosen.groups
        for node, place, _ in constants_of(network, group, writer.config)
    }
    for node in network.nodes:
        for place, name in enumerate(node.input):
            array = network.constants.get(name)
            if array is not None and (id(node), place) in integer:
                found[name] = found.get(name, 0) + array.size
            elif array is not None:
                found[f"{name} in float"] = array.nbytes
    return found


def _put_constant(writer: Writer, node: NodeProto, place: int, scale: Array, axis: int) -> None:
    """A constant as int8 with its scale, once for each node that takes it.

    ONNX Runtime 1.32 does not open a model in its exact mode where two products share their integers.
    """
    network, name = writer.network, node.input[place]
    integers = network.new_name(f"{name}_quantized")
    network.constants[integers] = integers_of(network.constants[name], scale, axis)
    node.input[place] = _dequantized(writer, integers, scale.astype(np.float32), axis)


def _dequantized(writer: Writer, integers: str, scale: Array, axis: int) -> str:
    """Puts the node that makes floats of a constant; returns their name.  By an axis for several scales."""
    network = writer.network
    zeros = np.zeros(scale.shape, network.constants[integers].dtype)
    parts = [network.add_constant(f"{integers}_{n}", a) for n, a in (("scale", scale), ("zero", zeros))]
    y = network.new_name(f"{integers}_dequantized")
    along: dict[str, Any] = {"axis": axis} if scale.ndim else {}
    domain = writer.domain(network.constants[integers].dtype.name)
    node = helper.make_node(
        "DequantizeLinear", [integers, *parts], [y], network.new_name(f"{y}_node"), **along, **domain
    )
    network.nodes.insert(0, node)
    return y


def integers_of(x: Array, scale: Array, axis: int = 0) -> Array:
    """x / scale to int8, half to even, saturated: `nx.quantize` with that scale, one an index of the axis.

    >>> integers_of(np.float32([0.3, 0.25, -9.0]), np.float32(0.125)).tolist()
    [2, 2, -72]
    """
    x, scale = np.ascontiguousarray(x, np.float32), np.asarray(scale, np.float32)
    scheme = Scheme.parse(f"per_channel({axis})" if scale.ndim else "per_tensor()")
    q = quantize(x.reshape(x.shape or (1,)), "int8", scheme=scheme, scale=scale)
    return np.ascontiguousarray(q.codes).view(np.int8).reshape(x.shape)


def _put_bias(writer: Writer, node: NodeProto, scales: Scales, product: Array) -> None:
    """The bias as int32 at the scale of the products, or as int8 at its own."""
    network, bias = writer.network, writer.network.constant(node, 2)
    if bias is None:
        return
    own = scales.biases.get(node.output[0])
    name = network.new_name(f"{node.output[0]}_bias_quantized")
    if own is None:
        scale = np.asarray(product, np.float32)
        codes = np.rint(bias.astype(np.float64) / scale)
        integers = np.clip(codes, -INT32 - 1, INT32).astype(np.int32)
        _say_clipped(writer, node, int((np.abs(codes) > INT32).sum()))
    else:
        scale = np.asarray(own, np.float32)
        integers = integers_of(bias, scale)
    network.constants[name] = integers
    node.input[2] = _dequantized(writer, name, scale, 0)
    what = f"{integers.dtype}, " + (
        "at activation x weight" if own is None else f"at its own 2**-p, {own:.6g}"
    )
    writer.report.about(node, "bias", what,
                      "it is added to the accumulator")  # fmt: skip


def _say_clipped(writer: Writer, node: NodeProto, count: int) -> None:
    if count:
        writer.report.about(node, "bias", f"{count} values clipped to int32",
                          "the scale of activation x weight is too fine for them")  # fmt: skip


# ---- bfloat16 -------------------------------------------------------------------------------------


def write_casts(writer: Writer) -> ModelProto:
    """The model with a pair of casts at every tensor that is chosen, and weights in bfloat16."""
    network = writer.network
    for name in writer.chosen.tensors:
        producer = network.producer(name)
        before, after = name, network.new_name(f"{name}_rounded")
        if name in network.outputs and producer is not None:
            before, after = network.new_name(f"{name}_float"), name
            producer.output[list(producer.output).index(name)] = before
        else:
            network.redirect(name, after)
        at = 0 if producer is None else 1 + next(k for k, e in enumerate(network.nodes) if e is producer)
        network.nodes[at:at] = _casts(network, before, after)
    for group in writer.chosen.groups:
        for node in group.nodes:
            _cast_constants(writer, node)
    return _finished(writer)


def _casts(network: Network, x: str, y: str) -> list[NodeProto]:
    narrow = network.new_name(f"{x}_bfloat16")
    return [
        _cast(network, x, narrow, TensorProto.BFLOAT16),
        _cast(network, narrow, y, TensorProto.FLOAT),
    ]


def _cast(network: Network, x: str, y: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [x], [y], network.new_name(f"{y}_node"), to=to)


def _cast_constants(writer: Writer, node: NodeProto) -> None:
    network = writer.network
    if operator_of(network, node).kind not in ("layer", "sum", "product"):
        return
    for place, name in enumerate(node.input):
        array = network.constants.get(name)
        if array is None or array.dtype != np.float32:
            continue
        if name not in writer.shared:
            bfloat16 = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
            narrow = network.add_constant(f"{name}_bfloat16", array.astype(bfloat16))
            writer.shared[name] = network.new_name(f"{name}_rounded")
            network.nodes.insert(0, _cast(network, narrow, writer.shared[name], TensorProto.FLOAT))
        node.input[place] = writer.shared[name]


# ---- both -----------------------------------------------------------------------------------------


def _finished(writer: Writer) -> ModelProto:
    """The model as a file holds it: checked, with the report's first facts beside it."""
    network = writer.network
    network.drop_unused()
    made = network.model()
    for value in made.graph.output:
        _set_sizes(value, network.shapes.get(value.name))
    if any(node.domain == MICROSOFT for node in made.graph.node):
        made.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    _sign(made, writer)
    onnx.checker.check_model(made)
    return made


def _sign(made: ModelProto, writer: Writer) -> None:
    """Says who made the file, for what; who made the float model, and what it says of itself, stays."""
    facts = {"numerics.config": writer.config.name, "numerics.device": writer.report.device}
    if made.producer_name:
        facts["numerics.source"] = f"{made.producer_name} {made.producer_version}".strip()
    facts = {**{each.key: each.value for each in made.metadata_props if each.key not in facts}, **facts}
    made.producer_name, made.producer_version = "numerics", __version__
    helper.set_model_props(made, facts)


def _set_sizes(value: ValueInfoProto, sizes: tuple[int | str, ...] | None) -> None:
    """The sizes that are known; those that only a run says stay open."""
    if sizes is None:
        return
    shape = value.type.tensor_type.shape
    del shape.dim[:]
    for size in sizes:
        shape.dim.add(**({"dim_value": size} if isinstance(size, int) else {"dim_param": size}))


def constant_of(model: ModelProto, name: str) -> Array:
    """A constant of a finished model by its name."""
    found = next(each for each in model.graph.initializer if each.name == name)
    return np.asarray(numpy_helper.to_array(found))
