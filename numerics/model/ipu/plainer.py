"""Operators in the words of those that the device takes: parts, quotients by constants, one slope for all."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from numerics.model.ipu.network import Array, Network, attribute
from numerics.model.ipu.report import Report


def plainer(network: Network, report: Report) -> None:
    """All passes, in their order; each row of the report says how far the result is from what stood there."""
    for step in (splits, picks, quotients, slopes):
        step(network, report)
    network.infer()


def splits(network: Network, report: Report) -> None:
    """A Split as a Slice for each part, which more configurations take: the same numbers."""
    for node in network.walk_free():
        ends = _ends(network, node) if node.op_type == "Split" else None
        if ends is None:
            continue
        slices = []
        for name, low, high in zip(node.output, [0, *ends[:-1]], ends, strict=True):
            if not name:
                continue  # a part that nobody takes
            slices.append(_slice(network, node, name, (low, high)))
        network.replace(node, *slices)
        report.about(node, "fold", f"became {len(slices)} Slices", "the same numbers")


def _slice(network: Network, node: NodeProto, y: str, ends: tuple[int, int], step: int = 1) -> NodeProto:
    """A Slice of what a node takes, along the node's axis."""
    places = {"start": ends[0], "end": ends[1], "axis": attribute(node, "axis", 0), "step": step}
    bounds = [network.add_constant(f"{y}_{at}", np.array([n])) for at, n in places.items()]
    return helper.make_node("Slice", [node.input[0], *bounds], [y], network.new_name(f"{y}_slice"))


def picks(network: Network, report: Report) -> None:
    """A Gather of one known index as Slice and Squeeze, of several at one distance as Slice.

    So torch writes how attention takes q, k and v apart; Ryzen AI lists Gather for bf16 only.
    """
    for node in network.walk_free():
        found = _range(network, node) if node.op_type == "Gather" else None
        if found is None:
            continue
        indices, y = network.constant(node, 1), node.output[0]
        single = indices is not None and not indices.ndim
        part = network.new_name(f"{y}_part") if single else y
        nodes = [_slice(network, node, part, (found.start, found.stop), found.step)]
        if single:
            axis = network.add_constant(f"{y}_axis", np.array([attribute(node, "axis", 0)]))
            nodes.append(helper.make_node("Squeeze", [part, axis], [y], network.new_name(f"{y}_squeeze")))
        network.replace(node, *nodes)
        report.about(node, "fold", f"became {' and '.join(n.op_type for n in nodes)}", "the same numbers")


def _range(network: Network, node: NodeProto) -> range | None:
    """The known indices of a Gather as a range that goes up; None where they are none."""
    indices, shape = network.constant(node, 1), network.shapes.get(node.input[0])
    if indices is None or indices.ndim > 1 or not indices.size or not network.is_float(node.input[0]):
        return None
    if node.input[0] in network.constants or shape is None:
        return None
    size = shape[attribute(node, "axis", 0)]
    if not isinstance(size, int):
        return None
    places = [int(k) % size if -size <= k < size else -1 for k in indices.reshape(-1)]
    step = places[1] - places[0] if len(places) > 1 else 1
    found = range(places[0], places[-1] + 1, step) if step > 0 else range(0)
    return found if places == [*found] and places[0] >= 0 else None


def _ends(network: Network, node: NodeProto) -> list[int] | None:
    """Where the parts end; None where the sizes are not known."""
    shape, given = network.shapes.get(node.input[0]), network.constant(node, 1)
    if shape is None or (given is None and len(node.input) > 1 and node.input[1]):
        return None
    size, count = shape[attribute(node, "axis", 0)], len(node.output)
    if not isinstance(size, int):
        return None
    each = -(-size // count)  # num_outputs, opset 18: the last may be smaller
    sizes = [each] * (count - 1) + [size - each * (count - 1)] if given is None else given.tolist()
    return [int(end) for end in np.cumsum(sizes)]


def quotients(network: Network, report: Report) -> None:
    """A quotient by a constant as a product with its reciprocal."""
    for node in network.walk_free():
        below = network.constant(node, 1) if node.op_type == "Div" else None
        if below is None or below.dtype != np.float32 or node.input[0] in network.constants:
            continue
        with np.errstate(all="ignore"):
            factor = (np.float32(1) / below).astype(np.float32)
        if not np.isfinite(factor).all() or not factor.all():
            continue
        node.op_type = "Mul"
        node.input[1] = network.add_constant(f"{node.input[1]}_reciprocal", factor)
        exact = bool((np.abs(np.frexp(below)[0]) == 0.5).all())
        why = (
            "the same numbers" if exact else "differs by the rounding of the reciprocal, 2**-24 of it at most"
        )
        report.about(node, "fold", "Div by a constant became Mul by its reciprocal", why)


def slopes(network: Network, report: Report) -> None:
    """A PRelu of one slope as LeakyRelu."""
    for node in network.walk_free():
        slope = network.constant(node, 1) if node.op_type == "PRelu" else None
        if slope is None or not _is_one(slope):
            continue
        after = helper.make_node("LeakyRelu", [node.input[0]], list(node.output), node.name,
                                 alpha=float(slope.reshape(-1)[0]))  # fmt: skip
        network.replace(node, after)
        report.about(node, "fold", "one slope: became LeakyRelu", "the same numbers")


def _is_one(slope: Array) -> bool:
    return slope.size > 0 and bool((slope == slope.reshape(-1)[0]).all())
