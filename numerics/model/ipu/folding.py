"""The float graph made plain, with the same results: constants computed, normalizations and biases folded.

Each pass takes a Network and a Report, and says there what it did.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from numerics.model.ipu.network import Array, Network, attribute, named, set_attribute
from numerics.model.ipu.report import Report
from numerics.model.ipu.running import Nodes, feeds_of

LAYERS = ("Conv", "ConvTranspose", "Gemm")
NOTHING = ("Identity", "Dropout")
RANDOM = (
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
)
MOST_FOLDED = 1 << 24  # values of a constant that is computed; a larger one stays a node


def fold(network: Network, report: Report) -> None:
    """All passes, in their order."""
    for step in (fold_constants, drop_nothing, fold_batch_norms, norms_to_convolutions, fold_biases):
        step(network, report)
        network.infer()
    network.drop_unused()


def fold_constants(network: Network, report: Report) -> None:
    """Computes what depends on no input, and the shapes of tensors whose shape is fixed."""
    one = Nodes(network.opset)
    count = 0
    for node in network.walk():
        made = _constant_of(node, network, one)
        if made is not None:
            network.constants.update(made)
            network.nodes.remove(node)
            count += node.op_type != "Constant"
    if count:
        report.add("-", "-", "fold", f"{count} nodes became constants", "nothing that they take is an input")


def _constant_of(node: NodeProto, network: Network, one: Nodes) -> dict[str, Array] | None:
    if node.op_type in RANDOM or any(name in network.outputs for name in node.output):
        return None
    if node.op_type == "Shape":
        shape = network.shapes.get(node.input[0])
        if shape is None or not all(isinstance(size, int) for size in shape):
            return None
        ends = slice(attribute(node, "start", 0), attribute(node, "end"))
        return {node.output[0]: np.array(shape[ends], np.int64)}
    if network.computed(node):
        return None
    made = one.run(node, feeds_of(node, network.constants))
    return made if all(array.size <= MOST_FOLDED for array in made.values()) else None


def drop_nothing(network: Network, report: Report) -> None:
    """Takes out nodes that change nothing: Identity, and Dropout in use."""
    for node in network.walk():
        if node.op_type in NOTHING and node.output[0] not in network.outputs:
            network.nodes.remove(node)
            network.redirect(node.output[0], node.input[0])
            report.add(
                node.name or node.output[0], node.op_type, "fold", "removed", "it changes nothing in use"
            )


# ---- batch normalization -----------------------------------------------------------------------------


def _scale_and_shift(node: NodeProto, network: Network) -> tuple[Array, Array] | None:
    """A normalization with fixed statistics as y = x * scale + shift, in float64."""
    parts = [network.constant(node, place) for place in range(1, 5)]
    if any(part is None for part in parts):
        return None
    gamma, beta, mean, variance = (np.asarray(part, np.float64) for part in parts)
    scale = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    return scale, beta - mean * scale


def fold_batch_norms(network: Network, report: Report) -> None:
    """Takes a BatchNormalization into the layer before it, in float64."""
    for node in network.walk():
        if node.op_type != "BatchNormalization":
            continue
        layer = network.producer(node.input[0])
        affine = _scale_and_shift(node, network)
        if layer is None or affine is None or layer.op_type not in LAYERS:
            continue
        if network.only_consumer(layer.output[0]) is None or network.constant(layer, 1) is None:
            continue
        _take_in(network, layer, *affine)
        layer.output[0] = node.output[0]
        network.nodes.remove(node)
        report.about(
            node, "fold", f"taken into {named(layer)}", "a product by channels and a sum: the layer has both"
        )


def _take_in(network: Network, layer: NodeProto, scale: Array, shift: Array) -> None:
    weights = np.asarray(network.constant(layer, 1), np.float64)
    bias = network.constant(layer, 2)
    axis = _outputs_axis(layer)
    if layer.op_type == "ConvTranspose":  # [in, out / group, ...]: the channels of a group lie apart
        group = attribute(layer, "group", 1)
        per_input = np.repeat(scale.reshape(group, -1), len(weights) // group, axis=0)
        weights = weights * per_input.reshape(*per_input.shape, *[1] * (weights.ndim - 2))
    else:
        weights = weights * np.expand_dims(scale, tuple(a for a in range(weights.ndim) if a != axis))
    shifted = shift if bias is None else np.asarray(bias, np.float64) * scale + shift
    _set_input(layer, 1, network.add_constant(f"{layer.input[1]}_folded", weights.astype(np.float32)))
    _set_input(layer, 2, network.add_constant(f"{layer.output[0]}_bias", shifted.astype(np.float32)))


def _outputs_axis(layer: NodeProto) -> int:
    return 0 if layer.op_type != "Gemm" or attribute(layer, "transB", 0) else 1


def _set_input(node: NodeProto, place: int, name: str) -> None:
    while len(node.input) <= place:
        node.input.append("")
    node.input[place] = name


def norms_to_convolutions(network: Network, report: Report) -> None:
    """Makes a BatchNormalization that stands alone a convolution of 1 x 1, channel by channel."""
    for node in network.walk():
        affine = _scale_and_shift(node, network) if node.op_type == "BatchNormalization" else None
        rank = len(network.shapes.get(node.input[0], ())) if node.input else 0
        if affine is None or rank < 3:
            continue
        scale, shift = (part.astype(np.float32) for part in affine)
        name = node.name or node.output[0]
        weights = network.add_constant(f"{name}_weight", scale.reshape(-1, *[1] * (rank - 1)))
        bias = network.add_constant(f"{name}_bias", shift)
        layer = helper.make_node(
            "Conv",
            [node.input[0], weights, bias],
            [node.output[0]],
            name=name,
            group=scale.size,
            kernel_shape=[1] * (rank - 2),
        )
        network.replace(node, layer)
        report.add(
            name,
            node.op_type,
            "fold",
            "became a Conv of 1 x 1 by channels",
            "no layer stands before it; the device normalizes by a convolution",
        )


# ---- biases ---------------------------------------------------------------------------------------


def fold_biases(network: Network, report: Report) -> None:
    """Takes the constant that is added after a layer into its bias; makes MatMul with one a Gemm."""
    for node in network.walk():
        if node.op_type != "Add":
            continue
        for place in (0, 1):
            layer = network.producer(node.input[1 - place])
            added = network.constant(node, place)
            if layer is not None and added is not None and _takes_bias(network, layer, added):
                _give_bias(network, layer, added)
                layer.output[0] = node.output[0]
                network.nodes.remove(node)
                report.about(node, "fold", f"became the bias of {named(layer)}", "a constant by channels")
                break


def _takes_bias(network: Network, layer: NodeProto, added: Array) -> bool:
    weights = network.constant(layer, 1)
    if weights is None or added.dtype != np.float32 or network.only_consumer(layer.output[0]) is None:
        return False
    if len([name for name in layer.input if name]) > 2:
        return False
    if layer.op_type == "MatMul":
        two = len(network.shapes.get(layer.input[0], ())) == 2 and weights.ndim == 2
        return two and added.shape in ((weights.shape[1],), (1, weights.shape[1]))
    if layer.op_type == "Conv":
        shape = (weights.shape[0], *[1] * (weights.ndim - 2))
        return added.shape in (shape, (1, *shape))
    return False


def _give_bias(network: Network, layer: NodeProto, added: Array) -> None:
    name = network.add_constant(f"{layer.output[0]}_bias", np.ascontiguousarray(added.reshape(-1)))
    _set_input(layer, 2, name)
    if layer.op_type == "MatMul":
        layer.op_type = "Gemm"


def plain_gemm(network: Network, node: NodeProto) -> None:
    """Takes alpha and beta of a Gemm into its constants, so that it is a product and a sum."""
    for name, place in (("alpha", 1), ("beta", 2)):
        factor, array = attribute(node, name, 1.0), network.constant(node, place)
        if factor != 1.0 and array is not None:
            scaled = (array.astype(np.float64) * factor).astype(np.float32)
            _set_input(node, place, network.add_constant(f"{node.input[place]}_{name}", scaled))
            set_attribute(node, name, 1.0)
