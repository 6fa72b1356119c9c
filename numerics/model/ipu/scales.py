"""Scales as the device takes them: shared where numbers only move, and within the limits of its shifts.

Two passes, both on tables of scales that calibration found: `share` and `limit`.  A scale of a power of two
has a position p, 2**-p, and what a limit moves is a position.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from onnx import NodeProto

from numerics.backends.ipu import limits
from numerics.formats.errors import NumericsError
from numerics.model.ipu.calibrating import scales_of
from numerics.model.ipu.choosing import Chosen, Group
from numerics.model.ipu.configs import Config
from numerics.model.ipu.network import Array, Network, attribute, named
from numerics.model.ipu.operators import STEEP, is_layer, operator_of, shares, values_of
from numerics.model.ipu.report import Report

HELD = 2.0**31 - 2.0**8
"""What int32 surely holds when the scales were rounded to float32."""
LEAST = 2.0**-126
"""The smallest scale: float32's smallest normal number, below which runtimes differ."""
ROUNDS = 100  # of repairs: a limit that is met may break another


@dataclass
class Scales:
    """tensors: of computed tensors.  constants: of weights and other constants, rank 0 or 1, by name.
    biases: of a group's bias where it has a position of its own, by the name of the layer's output.
    zeros: the tensors that were 0 in all calibration, whose scale says nothing.
    """

    tensors: dict[str, float]
    constants: dict[str, Array] = field(default_factory=dict)
    biases: dict[str, float] = field(default_factory=dict)
    zeros: set[str] = field(default_factory=set)


def position(scale: float) -> int:
    """The p of a scale 2**-p; raises NumericsError for a scale that is no power of two.

    >>> position(0.25), position(8.0)
    (2, -3)
    """
    mantissa, exponent = math.frexp(scale)
    if mantissa != 0.5:
        raise NumericsError(f"the scale {scale!r} is no power of two")
    return 1 - exponent


def separate(network: Network, chosen: Chosen, config: Config) -> None:
    """Gives a constant that two nodes take along different axes a name for each: its scales differ."""
    axes: dict[str, int | None] = {}
    for group in chosen.groups:
        for node, place, axis in constants_of(network, group, config):
            name = node.input[place]
            if axes.setdefault(name, axis) != axis:
                node.input[place] = network.add_constant(f"{name}_apart", network.constants[name])
                axes[node.input[place]] = axis


def constants_of(
    network: Network, group: Group, config: Config
) -> Iterator[tuple[NodeProto, int, int | None]]:
    """The constants of a group that become integers: the node, their place, the axis of their scales."""
    for node in group.nodes:
        kind = operator_of(network, node).kind
        if kind == "layer":
            yield node, 1, channels_axis(node) if config.per_channel and _has_channels(node) else None
        elif kind in ("sum", "product") and node is group.first:
            for place, name in enumerate(node.input):
                if name in network.constants:
                    yield node, place, None


def find_constants(network: Network, chosen: Chosen, config: Config, scales: Scales) -> None:
    """Finds the scales of weights, of other constants, and of biases with a position of their own."""
    for group in chosen.groups:
        for node, place, axis in constants_of(network, group, config):
            name = node.input[place]
            scales.constants[name] = scales_of(network.constants[name], config, axis)
            bias = network.constant(node, 2) if is_layer(network, node) else None
            if bias is not None and config.bias == "int8":
                scales.biases[node.output[0]] = float(scales_of(bias, config))


def channels_axis(node: NodeProto) -> int:
    """The axis of a layer's weights that counts its outputs."""
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return 1 if node.op_type in ("MatMul", "ConvTranspose") else 0


def _has_channels(node: NodeProto) -> bool:
    """Does an axis of the weights count all outputs?  Not where a ConvTranspose has groups."""
    return node.op_type != "ConvTranspose" or attribute(node, "group", 1) == 1


# ---- sharing --------------------------------------------------------------------------------------


def share(network: Network, chosen: Chosen, config: Config, scales: Scales, report: Report) -> None:
    """Gives what concat, pads, slices, reshapes and most pools take and make one scale, the largest.

    What was 0 in all calibration has no say: it takes the scale of the others, and that of what it is
    added to.
    """
    changed = True
    while changed:
        changed = False
        for group in chosen.groups:
            taken = values_of(network, group.first)
            if shares(network, group.first, config):
                why = "its inputs and its result share one scale"
                every = [*taken, group.output]
                changed |= _shared(Shared(group, every, every, why), scales, report)
            elif operator_of(network, group.first).kind == "sum" and scales.zeros & {*taken}:
                why = "it was 0 in all calibration: it has the scale of what it is added to"
                empty = [name for name in taken if name in scales.zeros]
                changed |= _shared(Shared(group, taken, empty, why), scales, report)


class Shared(NamedTuple):
    """Tensors of a group, those of them that take the largest scale of all, and why they do."""

    group: Group
    all_of: list[str]
    moved: list[str]
    why: str


def _shared(asked: Shared, scales: Scales, report: Report) -> bool:
    """Gives what is asked for the largest scale of all that say something; had one another?"""
    group, all_of, moved, why = asked
    told = [name for name in all_of if name not in scales.zeros]
    largest = max(scales.tensors[name] for name in told or all_of)
    if told:
        scales.zeros.difference_update(all_of)
    others = {name: scales.tensors[name] for name in moved if scales.tensors[name] != largest}
    for name, scale in others.items():
        scales.tensors[name] = largest
        what = f"scale of {name} {scale:.6g} became {largest:.6g}"
        report.add(group.name, group.operator, "share", what, why)
    return bool(others)


def whole_reciprocals(network: Network, chosen: Chosen, scales: Scales, report: Report) -> None:
    """Gives Softmax in int8 a scale whose reciprocal is a whole number, the next coarser one.

    ONNX Runtime 1.32 computes it in integers (QLinearSoftmax) and cuts the reciprocal to a whole number; then
    its integers are those of the formula, rounded once.
    """
    for group in chosen.groups:
        before = np.float32(scales.tensors[group.output])
        count = np.floor(np.float32(1) / before)
        if group.first.op_type != "Softmax" or count < 1 or np.float32(1) / before == count:
            continue
        after = np.float32(1) / count
        while np.float32(1) / after < count:
            after = np.nextafter(after, np.float32(0))
        scales.tensors[group.output] = float(after)
        what = f"scale {before:.6g} became 1/{count:.0f}"
        report.about(group.first, "share", what, "ONNX Runtime cuts its reciprocal to a whole number")


def above_least(network: Network, scales: Scales, report: Report) -> None:
    """Raises scales to float32's smallest normal number: what is smaller than half of it becomes 0."""
    found = [(scales.tensors, name) for name in scales.tensors]
    found += [(scales.constants, name) for name in scales.constants]  # type: ignore[misc]
    for table, name in found:
        before = np.asarray(table[name])
        if (before < LEAST).any():
            after = np.maximum(before, np.float32(LEAST))
            table[name] = after if table is scales.constants else float(after)  # type: ignore[assignment]
            node = network.producer(name) or network.consumers(name)[0]
            what = f"scale of {name} {before.min():.6g} became {LEAST:.6g}"
            report.about(
                node, "limit", what, "float32's smallest normal number: what is far below it becomes 0"
            )


def fit_biases(network: Network, chosen: Chosen, scales: Scales, config: Config, report: Report) -> None:
    """Widens scales of weights at which int32 does not hold a bias: of a channel with hardly any weights.

    A bias is int32 at the scale of the activation times that of the weight, which is a normal number.
    """
    for group in chosen.groups:
        for node in group.nodes:
            if not is_layer(network, node):
                continue
            name, x = node.input[1], np.float64(scales.tensors[node.input[0]])
            bias = network.constant(node, 2)
            due = np.zeros(1) if bias is None or node.output[0] in scales.biases else np.abs(np.float64(bias))
            before, least = scales.constants[name], np.maximum(due / HELD, LEAST) / x
            least = least if before.ndim else least.max(initial=0.0)
            after = np.exp2(np.ceil(np.log2(least))) if config.pof2 else least
            after = np.where(least > before, after, before).astype(np.float32)
            count = int((after != before).sum())
            if count:
                scales.constants[name] = after
                what = f"{count} of {before.size} scales of {name} widened, up to {after.max():.6g}"
                report.about(node, "bias", what, "int32 at activation x weight holds the bias then")


def say_vanished(network: Network, chosen: Chosen, config: Config, scales: Scales, report: Report) -> None:
    """Rows about constants, and channels of weights, whose integers are all 0."""
    for group in chosen.groups:
        for node, place, axis in constants_of(network, group, config):
            name, values = node.input[place], np.abs(np.float64(network.constants[node.input[place]]))
            others = None if axis is None else tuple(k for k in range(values.ndim) if k != axis)
            most = values.max(axis=others, initial=0)
            gone = (most > 0) & (most <= scales.constants[name].astype(np.float64) / 2)
            if gone.any():
                part = "" if axis is None else f"{gone.sum()} of {gone.size} channels of "
                why = f"what is largest, {most[gone].max():.6g}, is at most half of the scale"
                report.about(node, "limit", f"{part}{name} became 0", why)


def say_steep(network: Network, scales: Scales, report: Report) -> None:
    """Rows about integers that a function in float takes where it is steep, near 0."""
    for node in network.nodes:
        name = node.input[node.op_type == "Div"] if node.op_type in STEEP else ""
        if name in scales.tensors:
            what = f"takes {name} in steps of {scales.tensors[name]:.6g}"
            report.about(node, "limit", what, "what is below half of a step is 0 there, where it is steep")


# ---- limits ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a position is kept: in a table of Scales, under a name."""

    table: str
    name: str


def limit(network: Network, chosen: Chosen, scales: Scales, report: Report) -> None:
    """Moves positions until every shift is within the device's limits.

    Raises NumericsError, naming the nodes, where the limits contradict each other.
    """
    stuck: list[Group] = []
    while (last := _contradicted(network, chosen, stuck, scales, report)) is not None:
        stuck.append(last)
    if stuck:
        names = ", ".join(named(group.first) for group in stuck)
        its, it = ("their", "them") if stuck[1:] else ("its", "it")
        raise NumericsError(
            f"{names}: no positions meet {its} limits and those of {its} neighbours; keep {it} in float: "
            f"config.replace(keep={tuple(group.name for group in stuck)!r}), on the command line "
            f"{' '.join(f'--keep {group.name}' for group in stuck)}"
        )


def _contradicted(
    network: Network, chosen: Chosen, without: list[Group], scales: Scales, report: Report
) -> Group | None:
    """Repairs all but some groups; returns one that is still to be repaired after ROUNDS."""
    looked = [group for group in chosen.groups if not any(group is one for one in without)]
    last = None
    for _ in range(ROUNDS):
        last = None
        for group in looked:
            if _repaired(network, group, scales, report):
                last = group
        if last is None:
            return None
    return last


def _repaired(network: Network, group: Group, scales: Scales, report: Report) -> bool:
    """Applies what `limits.check` finds; was there anything?"""
    operation, places = operation_of(network, group, scales)
    if operation is None:
        return False
    positions = {name: position(_scale(scales, place)) for name, place in places.items()}
    findings = limits.check(operation, **positions)
    for finding in findings:
        place, before = places[finding.position], positions[finding.position]
        _put(scales, place, 2.0**-finding.to)
        positions[finding.position] = finding.to
        what = f"{finding.position} of {place.name} {before} became {finding.to}"
        why = f"{finding.shift} was {finding.value}, allowed {_allowed(finding)}"
        report.add(group.name, group.operator, "limit", what, why)
    return bool(findings)


def _allowed(finding: limits.Finding) -> str:
    return f"at least {finding.low}" if finding.high is None else f"{finding.low} .. {finding.high}"


def _scale(scales: Scales, place: Place) -> float:
    return float(getattr(scales, place.table)[place.name])


def _put(scales: Scales, place: Place, scale: float) -> None:
    table = getattr(scales, place.table)
    table[place.name] = np.float32(scale) if place.table == "constants" else scale


def operation_of(network: Network, group: Group, scales: Scales) -> tuple[str | None, dict[str, Place]]:
    """The group as `limits` names it, and where its positions are kept; None where nothing is limited."""
    first = group.first
    operation = operator_of(network, first).limit
    if operation in ("conv", "gemm") and any(node.op_type == "LeakyRelu" for node in group.rest):
        operation = f"{operation}_leaky_relu"
    if operation == "mul" and _is_swish(network, first):
        operation = "swish"
    if operation is None or (operation == "concat" and len(values_of(network, first)) == 1):
        return None, {}  # of one tensor nothing is shifted
    places = dict(_inputs(network, first, scales))
    if operator_of(network, first).kind == "layer":
        places["wpos"] = Place("constants", first.input[1])
        if first.output[0] in scales.biases:
            places["bpos"] = Place("biases", first.output[0])
    return operation, {**places, "opos": Place("tensors", group.output)}


def _inputs(network: Network, node: NodeProto, scales: Scales) -> Iterator[tuple[str, Place]]:
    kind = operator_of(network, node).kind
    both = list(node.input) if kind in ("sum", "product") else values_of(network, node)
    names = [f"ipos{k}" for k in range(len(both))] if len(both) > 1 else ["ipos"]
    if kind == "product" and node.op_type == "MatMul":
        names = ["ipos", "wpos"]
    for name, tensor in zip(names, both, strict=True):
        yield name, Place("constants" if tensor in network.constants else "tensors", tensor)


def _is_swish(network: Network, node: NodeProto) -> bool:
    """Is it x * HardSigmoid(x), the gate rounded between them?"""
    a, b = node.input
    for gate, x in ((a, b), (b, a)):
        made = network.producer(gate)
        if made is not None and made.op_type == "Mul":
            made = network.producer(made.input[0])
        if made is not None and made.op_type == "HardSigmoid" and made.input[0] == x:
            return True
    return False
