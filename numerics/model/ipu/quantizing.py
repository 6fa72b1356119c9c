"""quantize_model: a float ONNX model to one whose nodes the device takes, and a report of what was done."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnx import ModelProto

from numerics.backends.ipu.devices import device as find_device
from numerics.files.replacement import replace_file
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError, said
from numerics.model.ipu import approximating, choosing, folding, plainer, writing
from numerics.model.ipu import scales as scaling
from numerics.model.ipu.calibrating import Calibrated, Progress, calibrate, feeds_from
from numerics.model.ipu.configs import Config, check_device, config_of, remark
from numerics.model.ipu.loading import ADVISED, open_model
from numerics.model.ipu.network import Network, check_bytes, label
from numerics.model.ipu.operators import UNWRITTEN_KINDS, is_layer, operator_of
from numerics.model.ipu.report import UNWRITTEN, Report, Row

ROUNDED_TWICE = (
    "a normalization was folded into weights that were rounded already; nx.wrap(fold=True) rounds once"
)
LISTED = "Ryzen AI lists it for"


@dataclass(frozen=True, repr=False)
class Quantized:
    """A model, and what was done to it; shown by its totals.

    model: what ONNX Runtime and the VitisAI provider open.  report: a row for everything that was done.
    prepared: the float model after folding and approximating, whose tensors have the names of the model's.
    scales: of the computed tensors, by name; empty for bf16.

    >>> import numpy as np, onnx, numerics as nx
    >>> node = onnx.helper.make_node("Relu", ["x"], ["y"], name="relu")
    >>> ends = [onnx.helper.make_tensor_value_info(name, 1, [1, 4]) for name in "xy"]
    >>> graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:])
    >>> model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    >>> nx.ipu.quantize_model(model, {"x": np.ones((8, 4), np.float32)}).scales["y"]
    0.015625
    """

    model: ModelProto
    report: Report
    prepared: ModelProto
    scales: dict[str, float]

    def __repr__(self) -> str:
        return f"Quantized({self.report.summary}; {len(self.model.graph.node)} nodes in the file)"

    @keywords
    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model: whole, or not at all."""
        replace_file(path, self.model.SerializeToString())


@keywords
def quantize_model(
    model: Any, data: Any = None, config: Config | str = "xint8", device: str = "stx",
    progress: Progress | None = None,
) -> Quantized:  # fmt: skip
    """Quantizes an ONNX model for AMD's Ryzen AI NPU; returns the new model with a report, as `Quantized`.

    model: a ModelProto, its bytes, or the path of a file, in float32, of opset 13 to 21; it stays as it is.
    data: what it is calibrated on: the path of an .npz file or a mapping, input name -> array whose first
        axis holds the items; or an iterable of batches.  bf16 needs none; what comes is looked at, not used.
    config: xint8 (the default: int8, scales of powers of two), a8w8 (int8, float scales), a16w8 (activations
        of int16), bf16 (bfloat16 as casts); or a Config, for another observer, bias or nodes to keep.
    device: phx, hpt, stx (the default) or krk.  progress: called with a step, done and total.

    Nothing is silent: `report` lists each node that was folded, approximated, moved or left in float.
    Raises NumericsError, naming the node, for what cannot be quantized (docs/ipu.md lists it).

    >>> import numpy as np, onnx, numerics as nx
    >>> w, x = np.float32([[[[0.5]]]]), np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 1, 2, 2)
    >>> node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    >>> ends = [onnx.helper.make_tensor_value_info(name, 1, [1, 1, 2, 2]) for name in "xy"]
    >>> weights = [onnx.numpy_helper.from_array(w, "w")]
    >>> graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:], weights)
    >>> model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    >>> found = nx.ipu.quantize_model(model, {"x": x})
    >>> [node.op_type for node in found.model.graph.node][-3:], found.scales
    (['Conv', 'QuantizeLinear', 'DequantizeLinear'], {'x': 0.0078125, 'y': 0.00390625})
    """
    return quantized(open_for(model, config), data, device, progress=progress)


@dataclass(frozen=True)
class Opened:
    """A model that was opened for a configuration.

    tensors, weights: scales that are known already, by the names of tensors and constants.  rows: what the
    report begins with.
    """

    network: Network
    config: Config
    tensors: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()


def open_for(model: Any, config: Config | str) -> Opened:
    """Opens a model; raises NumericsError as `quantize_model`."""
    found = config_of(config)
    return Opened(open_model(model, found.shapes), found)


def quantized(source: Opened, data: Any, device: str, progress: Progress | None = None) -> Quantized:
    """All passes on an opened model; what its scales are known for is not calibrated."""
    if progress is not None and not callable(progress):
        raise NumericsError(
            f"progress={said(progress)} cannot be called; allowed: a function of three values"
        )
    network, config, profile = source.network, source.config, find_device(device)
    check_device(config, profile)
    report = Report(config.name, profile.name, list(source.rows))
    network.keep = config.keep
    _first_rows(network, config, report, remark(config, profile))
    folding.fold(network, report)
    plainer.plainer(network, report)
    if config.pof2:
        approximating.approximate(network, report)
    chosen = choosing.choose(network, config, report)
    prepared = network.model()
    writer = writing.Writer(network, chosen, config, report)
    if config.floats:
        _say_not_needed(data, network, report)
        for group in chosen.groups:
            _say_quantized(network, group, config, report, "bfloat16, by casts")
        return Quantized(writing.write_casts(writer), report, prepared, {})
    check_bytes(writing.bytes_written(writer), network.nodes, "the quantized model")
    _say_unused(source, chosen, report)
    found = _calibrated(source, chosen, data, report, progress)
    scales = _scales(source, chosen, found, report)
    return Quantized(writing.write_integers(writer, scales), report, prepared, dict(scales.tensors))


def _say_unused(source: Opened, chosen: choosing.Chosen, report: Report) -> None:
    """Rows about scales that came with the model, of tensors that are not rounded in the file."""
    for name, scale in source.tensors.items():
        if name not in chosen.tensors:
            why = "nothing is rounded there: it is inside of nodes that are one to the device, or in float"
            report.add(name, "-", "load", f"the plan's scale {scale:.6g} is not used", why)


def _calibrated(
    source: Opened, chosen: choosing.Chosen, data: Any, report: Report, progress: Progress | None
) -> Calibrated:
    """The scales of the chosen tensors: those that are known, and the others from the data."""
    unknown = [name for name in chosen.tensors if name not in source.tensors]
    known = {name: source.tensors[name] for name in chosen.tensors if name in source.tensors}
    if not unknown:
        return Calibrated(known, [])
    feeds = feeds_from(data, source.network)
    calibrated = calibrate(source.network, unknown, feeds, source.config, progress)
    for name in calibrated.zeros:
        what = f"0 in all calibration, scale {calibrated.scales[name]:.6g}"
        report.add(name, "-", "calibrate", what, "its scale says nothing of other inputs")
    found = {**known, **calibrated.scales}
    return Calibrated({name: found[name] for name in chosen.tensors}, calibrated.zeros)


def _scales(source: Opened, chosen: choosing.Chosen, found: Calibrated, report: Report) -> scaling.Scales:
    network, config = source.network, source.config
    scales = scaling.Scales(dict(found.scales), zeros={*found.zeros})
    scaling.separate(network, chosen, config)
    scaling.find_constants(network, chosen, config, scales)
    origins = {name: network.turned.get(name, name) for name in scales.constants}
    known = source.weights
    scales.constants |= {name: known[origin] for name, origin in origins.items() if origin in known}
    for name in known.keys() - network.constants.keys() - set(origins.values()):
        report.add(name, "-", "fold", "its integers became others", ROUNDED_TWICE)
    scaling.above_least(network, scales, report)
    scaling.share(network, chosen, config, scales, report)
    if config.activations == "int8" and not config.pof2:
        scaling.whole_reciprocals(network, chosen, scales, report)
        scaling.share(network, chosen, config, scales, report)
    scaling.fit_biases(network, chosen, scales, config, report)
    if config.pof2:
        scaling.limit(network, chosen, scales, report)
    scaling.say_vanished(network, chosen, config, scales, report)
    scaling.say_steep(network, scales, report)
    for group in chosen.groups:
        weights = f", weights {config.weights}" if is_layer(network, group.first) else ""
        what = f"{config.activations}{weights}, result {scales.tensors[group.output]:.6g}"
        _say_quantized(network, group, config, report, what)
    return scales


def _say_quantized(
    network: Network, group: choosing.Group, config: Config, report: Report, what: str
) -> None:
    """A row about a group: what was made of it, and the names of the nodes that are one with the first.

    It says who lists the operator, and that nobody says how the device computes it, where that is so.
    """
    unwritten = operator_of(network, group.first).kind in UNWRITTEN_KINDS
    why = f"{LISTED} {config.name}{f'; {UNWRITTEN}' if unwritten else ''}"
    others = "".join(f"; with {label(node)!r}" for node in group.rest)
    report.add(group.name, group.operator, "quantize", f"{what}{others}", why)


def _say_not_needed(data: Any, network: Network, report: Report) -> None:
    """A row about calibration that came for a configuration without scales; raises where it is none."""
    if data is not None:
        count = len(feeds_from(data, network))
        what = f"{count} {'batch' if count == 1 else 'batches'} of calibration not used"
        report.add("-", "-", "load", what, f"{report.config} has no scales to find")


def _first_rows(network: Network, config: Config, report: Report, remarked: str | None) -> None:
    for name in network.defaults:
        report.add(name, "-", "load", "is no input any more", "it has a value, which is a constant now")
    if network.opset != ADVISED:
        report.add("-", "-", "load", f"opset {network.opset} is kept", f"Ryzen AI advises {ADVISED}")
    if remarked is not None:
        report.add("-", "-", "load", f"{config.name} on {report.device}", remarked)
