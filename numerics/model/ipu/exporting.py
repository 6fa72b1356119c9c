"""export_model: a wrapped torch model as a quantized ONNX model for the device.

torch.onnx.export makes the graph, with fake_quantize as QuantizeLinear and DequantizeLinear; the scales are
read from there, and from packed weights; then the passes of `quantizing` run as on any ONNX model.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from numerics.backends.ipu.devices import device as find_device
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError, said, words_of
from numerics.model.ipu.configs import CONFIGS, Config, check_device, config_of
from numerics.model.ipu.loading import open_model
from numerics.model.ipu.network import Array, check_bytes
from numerics.model.ipu.quantizing import Opened, Quantized, quantized
from numerics.model.ipu.report import Row

if TYPE_CHECKING:
    from torch import nn

CUT: Final = "the plan has none there, and larger values are cut: data=batches, as nx.calibrate had them"
OPSET: Final = 18  # the oldest that torch.onnx.export writes by itself


@keywords
def export_model(
    model: nn.Module, path: str | os.PathLike[str], device: str = "stx", data: Any = None,
    config: Config | str | None = None,
) -> Quantized:  # fmt: skip
    """Writes a wrapped torch model as a quantized ONNX model for AMD's NPU; returns it, as `Quantized`.

    model: what `nx.wrap(model, ..., device="IPU")` returned, calibrated, learned or frozen.  It stays as it
        is; the file's shapes are those of the plan's example.
    path: the file, written whole or not at all.  device: phx, hpt, stx (the default) or krk.
    data: what the tensors are calibrated on that the plan has no scale for (sums, pools, results): a list of
        batches, as nx.calibrate had them, in the example's shape; or as for `quantize_model`.  Without it
        the plan's example alone, and the report names each tensor of which that is so.
    config: by default what the plan's formats say: int8 with powers of two is xint8, int8 with float scales
        a8w8, int16 with int8 a16w8, bfloat16 bf16.

    The file rounds more than the wrapped model: every tensor between integer nodes, not only what the plan
    names; so its error is larger than what nx.report says of the wrapped one.  The report of what came back
    names scales of the plan that the file does not use.

    Raises NumericsError for a model that is not wrapped or not calibrated, for formats that no configuration
    has, without onnxscript, and as `quantize_model`.

    >>> import tempfile, torch, numerics as nx
    >>> spec, x = nx.QuantSpec("int8", scale_type="pof2"), torch.linspace(-1, 1, 32).reshape(1, 2, 4, 4)
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.ReLU()).eval()
    >>> wrapped = nx.wrap(net, spec, activations=spec, observer="pof2", device="IPU", example=x)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = nx.ipu.export_model(nx.calibrate(wrapped, [x]), f"{folder}/net.onnx", device="krk")
    >>> [(row.operator, row.step) for row in found.report.of("quantize")]
    [('Conv+Relu', 'quantize')]
    """
    chosen = _config_of(model) if config is None else config_of(config)
    check_device(chosen, find_device(device))
    frozen, example = frozen_copy(model)
    weights = {name: _scale_of(name, q) for name, q in unpacked(frozen).items() if q.scale is not None}
    made = exported(frozen, example, _pair)
    tensors = _take_scales(made, rows := _rows_of_weights(chosen, weights))
    shapes = {value.name: _shape(value) for value in made.graph.input}
    network = open_model(made, {**shapes, **chosen.shapes})
    alone = data is None and not chosen.floats
    if alone:
        data = [dict(zip(shapes, _arrays(example), strict=True))]
    source = Opened(network, chosen, tensors, weights, tuple(rows))
    found = quantized(source, _feeds(data, [*shapes]), device)
    if alone:
        _say_alone(found, tensors)
    found.save(path)
    return found


def _feeds(data: Any, names: list[str]) -> Any:
    """Batches as nx.calibrate takes them, tensors or tuples, as a mapping each; others as they are."""
    whole = data is None or isinstance(data, (str, os.PathLike, Mapping)) or hasattr(data, "shape")
    if whole or not isinstance(data, Iterable):
        return data
    return [_feed(batch, names) for batch in data]


def _feed(batch: Any, names: list[str]) -> Any:
    import torch

    if not isinstance(batch, (torch.Tensor, tuple, list)):
        return batch
    arrays = _arrays(batch)
    if len(arrays) != len(names):
        raise NumericsError(
            f"a batch of data holds {len(arrays)} tensors; one is due for each of {', '.join(names)}"
        )
    return dict(zip(names, arrays, strict=True))


def _say_alone(found: Quantized, known: Mapping[str, float]) -> None:
    """Rows about the scales that only the plan's example was looked at for."""
    for name in found.scales:
        if name not in known:
            what = f"its scale {found.scales[name]:.6g} is of the plan's example alone"
            found.report.add(name, "-", "calibrate", what, CUT)


def _rows_of_weights(config: Config, weights: Mapping[str, Array]) -> list[Row]:
    """A row where weights came with one scale a tensor, and the configuration has one an output channel."""
    whole = [name for name, scale in weights.items() if config.per_channel and not scale.ndim]
    why = (
        f"so the plan says; {config.name} by itself has one an output channel: "
        "nx.wrap(model, nx.QuantSpec('int8', scheme='per_channel(0)'), ...)"
    )
    return [Row(name, "-", "load", "one scale for all of a weight", why) for name in whole]


def _check_size(model: nn.Module) -> None:
    """Raises NumericsError, before anything is exported, where the values are more than a model may have."""
    sizes = {name: 4 * tensor.numel() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    check_bytes(sizes, (), "this torch model, as float32,")


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(size.dim_value for size in value.type.tensor_type.shape.dim)


def _arrays(example: Any) -> list[Array]:
    import torch

    leaves = torch.utils._pytree.tree_leaves(example)
    return [x.detach().cpu().numpy() for x in leaves if isinstance(x, torch.Tensor)]


# ---- what is exported -----------------------------------------------------------------------------


def frozen_copy(model: Any) -> tuple[nn.Module, Any]:
    """A frozen copy on the CPU, in evaluation, and what it is called with."""
    from numerics.model.freezing import freeze
    from numerics.model.looking.trace import arguments
    from numerics.model.wrapped.state import state_of

    state = state_of(model)
    _check_size(model)
    if state.plan.example is None:
        raise NumericsError("the plan has no example, whose shapes the file has: nx.wrap(..., example=x)")
    copied = copy.deepcopy(model)
    if not state.frozen:
        copied = freeze(copied)
    args, kwargs = arguments(state.plan.example)
    return copied.cpu(), (tuple(args), dict(kwargs))


def unpacked(model: nn.Module) -> dict[str, Any]:
    """Puts values in the place of packed parameters; returns the packed ones by name."""
    import torch

    from numerics.model.wrapped.structure import know_tensors
    from numerics.tensor.qtensor import QTensor

    found: dict[str, Any] = {}
    for prefix, module in model.named_modules():
        for leaf, parameter in list(module._parameters.items()):
            if isinstance(parameter, QTensor):
                found[f"{prefix}.{leaf}" if prefix else leaf] = parameter
                values = parameter.dequantize().detach().float()
                module._parameters[leaf] = torch.nn.Parameter(values, requires_grad=False)
    know_tensors(model)
    return found


def _scale_of(name: str, q: Any) -> Array:
    """The scale of a packed weight, rank 0 or 1."""
    scale = np.asarray(q.scale.detach().cpu().numpy(), np.float32)
    if scale.size == 1:
        return scale.reshape(())
    if max(scale.shape) != scale.size:
        raise NumericsError(f"{name} has scales of shape {scale.shape}, not one a tensor or a channel")
    return scale.reshape(-1)


def exported(model: nn.Module, example: Any, write: Callable[[Any, Any, Any, Any], Any]) -> ModelProto:
    """The graph of torch.onnx.export; raises NumericsError with its reason where there is none."""
    import torch

    args, kwargs = example
    try:
        table: dict[Any, Any] = {torch.ops.numerics.fake_quantize.default: _translation(write)}
        with _quiet(), torch.no_grad():
            program: Any = torch.onnx.export(
                model, args, kwargs=kwargs, dynamo=True, verbose=False, opset_version=OPSET,
                custom_translation_table=table, optimize=False, input_names=_names(model, example),
            )  # fmt: skip
            found: ModelProto = program.model_proto
    except ImportError as missing:
        raise NumericsError(
            f"torch.onnx.export needs {missing.name or missing}, which is not there: pip install onnxscript"
        ) from missing
    except Exception as wrong:
        raise NumericsError(f"torch.onnx.export cannot write this model: {_reason(wrong):.400}") from wrong
    return found


def _reason(wrong: BaseException) -> str:
    """Our own words where an error of ours led to it, else the first of torch's."""
    inner: BaseException | None = wrong
    while inner is not None and not isinstance(inner, NumericsError):
        inner = inner.__cause__
    return words_of(inner or wrong.__cause__ or wrong)


def _names(model: nn.Module, example: Any) -> list[str]:
    """What the forward of the module calls its arguments: a wrapped one takes *args."""
    forward = getattr(type(model), "numerics_base", type(model)).forward
    places = [name for name, _ in list(inspect.signature(forward).parameters.items())[1:]]
    args, kwargs = example
    return [*places[: len(args)], *kwargs] if len(places) >= len(args) else []


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch.onnx prints its progress, and warns of its own parts and of what is not installed."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _translation(write: Callable[[Any, Any, Any, Any], Any]) -> Any:
    """fake_quantize as torch.onnx.export takes it; write makes nodes of x, the spec, scale and zero point."""
    from onnxscript import FLOAT, INT64

    def fake_quantize(
        x: FLOAT, recipe: str, scale: FLOAT | None = None, zero_point: INT64 | None = None,
        seed: int | None = None, random_bits: INT64 | None = None, clip_gradient: bool = False,
        tensor_scale: FLOAT | None = None,
    ) -> FLOAT:  # fmt: skip
        from numerics.tensor.spec import QuantSpec

        return write(x, QuantSpec.parse(recipe), scale, zero_point)

    fake_quantize.__annotations__ = {
        "x": FLOAT, "recipe": str, "scale": FLOAT, "zero_point": INT64, "seed": int, "random_bits": INT64,
        "clip_gradient": bool, "tensor_scale": FLOAT, "return": FLOAT,
    }  # fmt: skip
    return fake_quantize


def _pair(x: Any, spec: Any, scale: Any, zero_point: Any) -> Any:
    """A pair of nodes where there is a scale; bfloat16 is cast by the passes."""
    from onnxscript import opset18

    if spec.dtype.name == "bfloat16" and not spec.scaled:
        return opset18.Identity(x)
    if scale is None or zero_point is not None or spec.dtype.name not in ("int8", "int16"):
        raise NumericsError(_no_pair(spec, scale))
    # integers of int16 are ONNX Runtime's own before opset 21: the pair only carries the scale
    zero = opset18.Cast(opset18.Constant(value_int=0), to=TensorProto.INT8)
    return opset18.DequantizeLinear(opset18.QuantizeLinear(x, scale, zero), scale, zero)


def _no_pair(spec: Any, scale: Any) -> str:
    why = "finds a new scale for every tensor; way out: nx.wrap(..., observer='pof2_mse') and nx.calibrate"
    if scale is not None or spec.dtype.name not in ("int8", "int16"):
        why = "is no type of the device: symmetric int8, symmetric int16, bfloat16"
    return f"an activation in {spec} {why}"


def _take_scales(model: ModelProto, rows: list[Row]) -> dict[str, float]:
    """Takes pairs of QuantizeLinear and DequantizeLinear out of a model; returns the scales of tensors.

    rows: takes in what is lost with that: of a tensor that is rounded twice, the second scale.
    """
    constants = {each.name: each for each in model.graph.initializer}
    by_output = {each.output[0]: each for each in model.graph.node}
    found: dict[str, float] = {}
    around: dict[str, str] = {}
    gone = []
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear":
            continue
        pair = by_output[node.input[0]]
        scale = numpy_helper.to_array(constants[node.input[1]])
        if scale.size != 1:
            raise NumericsError(f"{pair.input[0]} has scales of shape {scale.shape}, not one a tensor")
        x, own = _bare(pair.input[0], around), float(scale.reshape(()))
        if found.setdefault(x, own) != own:
            what = f"a second scale of {x}, {own:.6g}, is not used"
            rows.append(Row(x, "-", "load", what, f"a tensor has one scale: its first, {found[x]:.6g}"))
        around[node.output[0]] = x
        gone += [node, pair, *(by_output[name] for name in pair.input[2:] if name in by_output)]
    for node in {id(node): node for node in gone}.values():
        model.graph.node.remove(node)
    for node in model.graph.node:
        node.input[:] = [_bare(name, around) for name in node.input]
    _end_bare(model, around, found)
    return found


def _bare(name: str, around: Mapping[str, str]) -> str:
    """What stands before the pairs that made a tensor."""
    while name in around:
        name = around[name]
    return name


def _end_bare(model: ModelProto, around: Mapping[str, str], found: dict[str, float]) -> None:
    """Gives results that pairs made to the nodes before those: the result's name is theirs."""
    ends = {value.name for value in model.graph.output}
    makers = {name: node for node in model.graph.node for name in node.output}
    renamed: dict[str, str] = {}
    for y in sorted(ends & {*around}):
        x = _bare(y, around)
        x = renamed.get(x, x)
        if x not in makers or x in ends:  # an input, or a result itself: it keeps its name
            model.graph.node.append(helper.make_node("Identity", [x], [y], f"{y}_node"))
            continue
        _rename(model, x, y)
        renamed[x] = y
        found[y] = found.pop(x)


def _rename(model: ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]


# ---- the configuration ----------------------------------------------------------------------------


def _config_of(model: Any) -> Config:
    """The configuration whose types and scales the plan's rows have."""
    from numerics.model.wrapped.state import state_of

    rows = [(row.kind, row.spec) for row in state_of(model).plan.rows if row.spec is not None]
    kinds = {"parameter": set(), "activation": set()}  # type: dict[str, set[str]]
    for kind, spec in rows:
        kinds["parameter" if kind == "parameter" else "activation"].add(spec.dtype.name)
    weights, activations = kinds["parameter"], kinds["activation"] or kinds["parameter"]
    pof2 = all(spec.scale_type == "pof2" for _, spec in rows)
    for config in CONFIGS.values():
        if weights <= {config.weights} and activations == {config.activations} and (config.pof2 == pof2):
            return config
    raise NumericsError(
        f"no configuration has weights in {said(sorted(weights))} and activations in "
        f"{said(sorted(activations))}; allowed: int8 and int8 (xint8, a8w8), int8 and int16 (a16w8), "
        "bfloat16 (bf16); or give config="
    )
