"""The float graph made plain, with the same results: constants computed, normalizations and biases folded.

Each pass takes a Network and a Report, and says there what it did.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import NodeProto, helper

from numerics.model.ipu.network import Array, Network, attribute, label, named, set_attribute
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
LOOKED_AT = {"CastLike": (1, False), "EyeLike": (0, True), "Size": (0, True)}
"""Operator -> the input of which only the type counts, and whether its shape does too."""
TURNING = ("Transpose", "Identity")
MOST_FOLDED = 1 << 24  # values of a constant that is computed; a larger one stays a node


NO_BIAS = "MatMul has no bias, and Gemm, which has one, takes two axes; AMD Quark 0.13 leaves both too"
LARGE = 1 << 14  # bytes of a constant after which the size of all is looked at


def is_random(node: NodeProto, constants: Mapping[str, Array]) -> bool:
    """Does it draw numbers, others at every run?  A Dropout does in training."""
    if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
        trains = constants.get(node.input[2])
        return trains is None or bool(trains.any())
    return node.op_type in RANDOM


def fold(network: Network, report: Report) -> None:
    """All passes, in their order."""
    for step in (
        fold_constants, drop_nothing, plain_gemms, fold_batch_norms, norms_to_convolutions, fold_biases,
    ):  # fmt: skip
        step(network, report)
        network.infer()
    network.drop_unused()


def fold_constants(network: Network, report: Report) -> None:
    """Computes what depends on no input, and the shapes of tensors whose shape is fixed."""
    one = Nodes(network.opset)
    for node in network.walk():
        made = _constant_of(node, network, one)
        if made is not None:
            network.constants.update(made)
            if node.op_type in TURNING:
                network.turned[node.output[0]] = node.input[0]
            network.nodes.remove(node)
            if node.op_type != "Constant":
                report.about(node, "fold", "became a constant", "nothing that it takes is an input")
            if any(array.nbytes >= LARGE for array in made.values()):
                network.drop_unused()
                network.check_size()


def _constant_of(node: NodeProto, network: Network, one: Nodes) -> dict[str, Array] | None:
    if is_random(node, network.constants) or any(name in network.outputs for name in node.output):
        return None
    if node.op_type == "Shape":
        shape = network.shapes.get(node.input[0])
        if shape is None or not all(isinstance(size, int) for size in shape):
            return None
        ends = slice(attribute(node, "start", 0), attribute(node, "end"))
        return {node.output[0]: np.array(shape[ends], np.int64)}
    known = {**network.constants, **_looked_at(node, network)}
    if any(name and name not in known for name in node.input):
        return None
    made = one.run(node, feeds_of(node, known))
    return made if all(array.size <= MOST_FOLDED for array in made.values()) else None


def _looked_at(node: NodeProto, network: Network) -> dict[str, Array]:
    """An input of which only type or shape counts, as zeros; nothing where these are not known."""
    place, needs_shape = LOOKED_AT.get(node.op_type, (None, False))
    if place is None:
        return {}
    name = node.input[place]
    shape, dtype = network.shapes.get(name) if needs_shape else (), network.types.get(name)
    if not dtype or shape is None or not all(isinstance(size, int) for size in shape):
        return {}
    return {name: np.zeros(tuple(map(int, shape)), helper.tensor_dtype_to_np_dtype(dtype))}


def drop_nothing(network: Network, report: Report) -> None:
    """Takes out nodes that change nothing: Identity, and Dropout in use."""
    for node in network.walk():
        if _is_nothing(network, node) and node.output[0] not in network.outputs:
            network.nodes.remove(node)
            network.redirect(node.output[0], node.input[0])
            report.about(node, "fold", "removed", "it changes nothing in use")


def _is_nothing(network: Network, node: NodeProto) -> bool:
    """Does it give what it takes, and nothing else that is taken?"""
    if node.op_type not in NOTHING:
        return False
    if any(network.consumers(name) or name in network.outputs for name in node.output[1:] if name):
        return False  # a Dropout whose mask is taken
    return not is_random(node, network.constants)


# ---- batch normalization -----------------------------------------------------------------------------


def _scale_and_shift(node: NodeProto, network: Network) -> tuple[Array, Array] | None:
    """A normalization with fixed statistics as y = x * scale + shift, in float64.

    None for one that finds its statistics itself, of another type than float32, and where no numbers come.
    """
    parts = [network.constant(node, place) for place in range(1, 5)]
    if any(part is None for part in parts) or not network.is_float(node.input[0]):
        return None
    if attribute(node, "training_mode", 0):
        return None
    gamma, beta, mean, variance = (np.asarray(part, np.float64) for part in parts)
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
        shift = beta - mean * scale
    return (scale, shift) if _are_float32(scale, shift) else None


def _are_float32(*arrays: Array) -> bool:
    """Are they finite in float32?"""
    return all(bool((np.abs(array) <= np.finfo(np.float32).max).all()) for array in arrays)


def fold_batch_norms(network: Network, report: Report) -> None:
    """Takes a BatchNormalization into the layer before it, in float64."""
    for node in network.walk():
        if node.op_type != "BatchNormalization":
            continue
        layer = network.producer(node.input[0])
        affine = _scale_and_shift(node, network)
        if layer is None or affine is None or layer.op_type not in LAYERS:
            continue
        if network.only_consumer(layer.output[0]) is None or not _is_plain(network, layer):
            continue
        if not _take_in(network, layer, *affine):
            continue
        _take_result(network, layer, node)
        report.about(
            node, "fold", f"taken into {named(layer)}", "a product by channels and a sum: the layer has both"
        )


def _take_result(network: Network, layer: NodeProto, node: NodeProto) -> None:
    """The layer makes what the node after it made.  One without a name is called by what it made before."""
    name = label(layer)
    if not any(each.name == name for each in network.nodes):
        layer.name = name
    layer.output[0] = node.output[0]
    network.nodes.remove(node)


def _is_plain(network: Network, layer: NodeProto) -> bool:
    """Is it a product with constants, and no more than a vector added to it?"""
    if network.constant(layer, 1) is None or any(attribute(layer, n, 1.0) != 1.0 for n in ("alpha", "beta")):
        return False
    bias = network.constant(layer, 2)
    return bias.ndim == 1 if bias is not None else len([name for name in layer.input if name]) < 3


def _take_in(network: Network, layer: NodeProto, scale: Array, shift: Array) -> bool:
    """Gives a layer other constants; False, and nothing is changed, where float32 does not hold them."""
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
    if not _are_float32(weights, shifted):
        return False
    _set_input(layer, 1, network.add_constant(f"{layer.input[1]}_folded", weights.astype(np.float32)))
    _set_input(layer, 2, network.add_constant(f"{layer.output[0]}_bias", shifted.astype(np.float32)))
    return True


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
        name = label(node)
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
            f"{_why_alone(network, node)}; the device normalizes by a convolution",
        )


def _why_alone(network: Network, norm: NodeProto) -> str:
    """Why a normalization is not part of the layer before it."""
    layer = network.producer(norm.input[0])
    if layer is None or layer.op_type not in LAYERS:
        return "no layer stands before it"
    if network.only_consumer(layer.output[0]) is None:
        return f"others take the result of {named(layer)} before it"
    if not _is_plain(network, layer):
        return f"the weights or the bias of {named(layer)} before it are computed"
    return f"float32 does not hold its product with the weights of {named(layer)}"


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
                _take_result(network, layer, node)
                report.about(node, "fold", f"became the bias of {named(layer)}", "a constant by channels")
                break
            if layer is not None and added is not None and _would_be_bias(network, layer, added):
                report.about(node, "bias", f"stays a sum: {named(layer)} is rounded before it", NO_BIAS)


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


def _would_be_bias(network: Network, layer: NodeProto, added: Array) -> bool:
    """Is it a vector of outputs, after a product that has no place for it?"""
    weights = network.constant(layer, 1)
    if layer.op_type != "MatMul" or weights is None or network.only_consumer(layer.output[0]) is None:
        return False
    return weights.ndim == 2 and added.size == weights.shape[1] and added.shape[-1:] == weights.shape[1:]


def _give_bias(network: Network, layer: NodeProto, added: Array) -> None:
    name = network.add_constant(f"{layer.output[0]}_bias", np.ascontiguousarray(added.reshape(-1)))
    _set_input(layer, 2, name)
    if layer.op_type == "MatMul":
        layer.op_type = "Gemm"


def plain_gemms(network: Network, report: Report) -> None:
    """Takes alpha and beta of a Gemm into its constants, and makes what it adds a vector of its outputs.

    So that it is a product and a sum.  What is added row by row stays as it is.
    """
    for node in network.walk():
        weights = network.constant(node, 1) if node.op_type == "Gemm" else None
        if weights is None or weights.dtype != np.float32:
            continue
        for name, place in (("alpha", 1), ("beta", 2)):
            if _scale_constant(network, node, name, place):
                report.about(node, "fold", f"{name} taken into its constant", "it is a product and a sum")
        _make_vector(network, node, weights.shape[_outputs_axis(node)])


def _scale_constant(network: Network, node: NodeProto, name: str, place: int) -> bool:
    """Takes a factor into a constant; False where there is none, or float32 does not hold the product."""
    factor, array = attribute(node, name, 1.0), network.constant(node, place)
    if factor == 1.0 or array is None:
        return False
    scaled = array.astype(np.float64) * factor
    if _are_float32(scaled):
        _set_input(
            node, place, network.add_constant(f"{node.input[place]}_{name}", scaled.astype(np.float32))
        )
        set_attribute(node, name, 1.0)
        return True
    return False


def _make_vector(network: Network, node: NodeProto, outputs: int) -> None:
    bias = network.constant(node, 2)
    if bias is not None and bias.shape != (outputs,) and bias.size in (1, max(bias.shape[-1:], default=0)):
        made = np.ascontiguousarray(np.broadcast_to(bias.reshape(-1), (outputs,)))
        _set_input(node, 2, network.add_constant(f"{node.input[2]}_vector", made))
