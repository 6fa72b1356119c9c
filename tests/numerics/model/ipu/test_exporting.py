"""A wrapped torch model as an ONNX file: its scales are the wrapped ones, the passes those of any model."""

from __future__ import annotations

import copy
import os

import numpy as np
import onnx
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("torch")

import torch

import numerics as nx
from numerics.formats import NumericsError
from numerics.model.ipu import network as networks
from numerics.model.ipu.exporting import _take_scales
from numerics.model.ipu.writing import constant_of
from tests.helpers.onnx_models import model, node

LONG = os.environ.get("NUMERICS_TEST_LONG") == "1"  # torch.onnx.export takes seconds each time
long = pytest.mark.skipif(not LONG, reason="make verify")
POF2 = nx.QuantSpec("int8", scale_type="pof2")
CHANNELS = nx.QuantSpec("int8", scheme="per_channel(0)")
X = torch.from_numpy(np.random.default_rng(0).standard_normal((8, 2, 6, 6)).astype(np.float32))


def float_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 5),
    ).eval()


def wrapped(weights=POF2, activations=POF2, model=None, **options):
    observer = {} if activations == "bfloat16" else {"observer": "min_max"}
    m = nx.wrap(model or float_model(), weights, activations=activations, device="IPU", example=X[:2],
                **observer, **options)  # fmt: skip
    return nx.calibrate(m, [X]) if observer else m


def sqnr(came, due):
    return 10 * np.log10((due**2).sum() / ((came - due) ** 2).sum())


@pytest.mark.parametrize(
    ("weights", "activations", "config", "least"),
    [
        pytest.param(POF2, POF2, "xint8", 20, marks=long),
        pytest.param(CHANNELS, "int8", "a8w8", 25, marks=long),
        pytest.param(CHANNELS, "int16", "a16w8", 40, marks=long),
        pytest.param("bfloat16", "bfloat16", "bf16", 35, marks=long),
    ],
)
def test_the_formats_of_the_plan_choose_the_configuration(tmp_path, weights, activations, config, least):
    found = nx.ipu.export_model(wrapped(weights, activations), tmp_path / "m.onnx", data={"input": X.numpy()})
    assert found.report.config == config
    came = nx.ipu.session(tmp_path / "m.onnx").run({"input": X[:2].numpy()})
    with torch.no_grad():
        assert sqnr(next(iter(came.values())), float_model()(X[:2]).numpy()) > least


def test_scales_that_torch_found_are_those_of_the_file(tmp_path):
    m = wrapped(CHANNELS, "int8")
    found = nx.ipu.export_model(m, tmp_path / "m.onnx", data={"input": X.numpy()})
    sites = {name: float(b) for name, b in m.named_buffers() if name.endswith("scale")}
    assert len(sites) == 2
    assert sites["0.quantize_conv2d_0.scale"] == found.scales["input"]
    assert sites["4.quantize_linear_0.scale"] in found.scales.values() or any(
        row.step == "share" for row in found.report
    )
    weights = nx.quantize(m[0]._parameters["weight"].detach(), CHANNELS)
    names = [each.name for each in found.model.graph.initializer if each.name.endswith("_quantized")]
    name = next(each for each in names if constant_of(found.model, each).shape == (4, 2, 3, 3))
    assert (constant_of(found.model, f"{name}_scale") == weights.scale.numpy().reshape(-1)).all()
    assert (constant_of(found.model, name) == weights.codes.numpy().view(np.int8)).all()


@long
def test_what_torch_computes_and_what_the_file_computes_agree(tmp_path):
    """int16 hides what the file rounds besides: results of layers, which torch leaves in float."""
    m = wrapped(CHANNELS, "int16")
    nx.ipu.export_model(m, tmp_path / "m.onnx", data={"input": X.numpy()})
    came = nx.ipu.session(tmp_path / "m.onnx").run({"input": X[:2].numpy()})
    with torch.no_grad():
        assert sqnr(next(iter(came.values())), m(X[:2]).numpy()) > 70


@pytest.mark.parametrize(
    "kind", ["frozen", *(pytest.param(k, marks=long) for k in ("values", "graph", "tqt"))]
)
def test_every_kind_of_wrapped_model_gives_integers_that_are_predicted(tmp_path, kind):
    options = {"graph": {"mode": "fx_graph_mode"}, "tqt": {"qat": "tqt"}}.get(kind, {})
    if kind == "tqt":
        m = nx.wrap(float_model(), POF2, activations=POF2, device="IPU", example=X[:2], qat="tqt")
    else:
        m = wrapped(**options)
    if kind in ("frozen", "values"):
        m = nx.freeze(m, keep={"frozen": "packed", "values": "values"}[kind])
    found = nx.ipu.export_model(m, tmp_path / "m.onnx", data={"input": X.numpy()})
    layers = nx.ipu.compare(found.model, [{"input": X[:2].numpy()}])
    assert len(layers) > 4
    assert all(layer.differing == 0 for layer in layers)


@long
def test_the_model_stays_as_it_is_and_the_example_calibrates_the_rest(tmp_path):
    m = wrapped()
    before = copy.deepcopy(m.state_dict())
    with torch.no_grad():
        due = m(X)
    nx.ipu.export_model(m, tmp_path / "m.onnx", "phx")
    assert all((m.state_dict()[name] == x).all() for name, x in before.items())
    with torch.no_grad():
        assert (m(X) == due).all()


@pytest.mark.parametrize("share", [False, pytest.param(True, marks=long)])
def test_results_that_are_rounded_are_exported(tmp_path, share):
    """The pair at the model's end was taken out with its name: "no valid ONNX model"."""
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.ReLU(), torch.nn.Conv2d(3, 2, 3)).eval()
    m = wrapped(model=net, outputs=POF2, share=share)
    found = nx.ipu.export_model(m, tmp_path / "m.onnx", data={"input": X.numpy()})
    scales = {name: float(x) for name, x in m.named_buffers() if name.endswith("scale")}
    assert scales["2.quantize_conv2d_out.scale"] == found.scales[found.model.graph.output[0].name]
    rows = [(row.what, row.node) for row in found.report.of("load") if "is not used" in row.what]
    assert rows == [(f"the plan's scale {scales['0.quantize_conv2d_out.scale']:.6g} is not used", "conv2d")]
    came = nx.ipu.session(tmp_path / "m.onnx").run({"input": X[:2].numpy()})
    assert next(iter(came.values())).shape == (2, 2, 2, 2)
    assert all(layer.differing == 0 for layer in nx.ipu.compare(found.model, [{"input": X[:2].numpy()}]))


def pairs(nodes, **constants):
    """A model of `x` with pairs of QuantizeLinear and DequantizeLinear: "x a scale", each."""
    made = []
    for one in nodes:
        if isinstance(one, str):
            x, y, scale = one.split()
            made += [node("QuantizeLinear", f"{x} {scale} zero", f"{y}_q"),
                     node("DequantizeLinear", f"{y}_q {scale} zero", y)]  # fmt: skip
        else:
            made.append(one)
    held = {"s": np.float32(0.5), "t": np.float32(0.25), "zero": np.int8(0), **constants}
    return made, held


@pytest.mark.parametrize(
    ("nodes", "outputs", "scales", "operators"),
    [
        ([node("Relu", "x", "r"), "r y s"], ["y"], {"y": 0.5}, ["Relu"]),
        ([node("Relu", "x", "r"), "r y s", node("Abs", "r", "z")], ["y", "z"], {"y": 0.5}, ["Relu", "Abs"]),
        ([node("Relu", "x", "r"), "r y s", "r z s"], ["y", "z"], {"y": 0.5}, ["Relu", "Identity"]),
        ([node("Relu", "x", "r"), "r y s"], ["r", "y"], {"r": 0.5}, ["Relu", "Identity"]),
        ([node("Relu", "x", "r"), "r a s", "a y t"], ["y"], {"y": 0.5}, ["Relu"]),
        (["x y s"], ["y"], {"x": 0.5}, ["Identity"]),
    ],
)
def test_pairs_at_the_end_leave_the_names_of_results(nodes, outputs, scales, operators):
    made, held = pairs(nodes)
    found = model(made, {"x": (1, 2)}, dict.fromkeys(outputs, (1, 2)), held)
    rows = []
    assert _take_scales(found, rows) == scales
    assert [each.op_type for each in found.graph.node] == operators
    onnx.checker.check_model(found, full_check=True)
    assert [row.what for row in rows] == ["a second scale of r, 0.25, is not used"] * ("a y t" in nodes)


@long
def test_one_scale_for_all_of_a_weight_is_said_where_channels_have_their_own(tmp_path):
    rows = {
        weights: nx.ipu.export_model(wrapped(weights, "int8"), tmp_path / "m.onnx").report.of("load")
        for weights in ("int8", CHANNELS)
    }
    said = {weights: [row.node for row in rows[weights] if "one scale" in row.what] for weights in rows}
    assert said == {"int8": ["0.weight", "4.weight"], CHANNELS: []}


def test_what_cannot_be_exported_is_refused_by_name(tmp_path):
    path = tmp_path / "m.onnx"
    with pytest.raises(NumericsError, match="not wrapped"):
        nx.ipu.export_model(float_model(), path)
    waits = nx.wrap(float_model(), POF2, activations=POF2, observer="min_max", device="IPU", example=X[:2])
    with pytest.raises(NumericsError, match=r"never got a scale: nx.calibrate\(model, batches\) first"):
        nx.ipu.export_model(waits, path)
    with pytest.raises(NumericsError, match=r"no configuration has weights in \['mxfp4'\]"):
        nx.ipu.export_model(nx.wrap(float_model(), "mxfp4", example=X[:2], rules={"0": None}), path)
    with pytest.raises(NumericsError, match="phx runs no BF16 models"):
        nx.ipu.export_model(wrapped("bfloat16", "bfloat16"), path, "phx")
    assert not path.exists()


@long
@pytest.mark.parametrize("export", [nx.ipu.export_model, nx.ipu.export_quark])
def test_a_model_of_more_than_a_file_may_have_is_refused_before_it_is_exported(tmp_path, monkeypatch, export):
    m = wrapped()
    monkeypatch.setattr(networks, "MOST_BYTES", 600)  # of 644
    monkeypatch.setattr(torch.onnx, "export", None)
    with pytest.raises(
        NumericsError, match=r"this torch model, as float32, have [\d,]+ bytes, the largest '.*weight'"
    ):
        export(m, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_activations_that_bring_their_own_scales_are_refused(tmp_path):
    anew = nx.wrap(float_model(), POF2, activations=POF2, device="IPU", example=X[:2])
    with pytest.raises(NumericsError, match="finds a new scale for every tensor; way out"):
        nx.ipu.export_model(anew, tmp_path / "m.onnx")


def test_float_scales_and_channels_are_planned_for_the_ipu():
    assert nx.plan(float_model(), CHANNELS, "int16", device="IPU", example=X).device == "IPU"
    wrong = nx.QuantSpec("int8", scheme="per_channel(0)", scale_type="pof2")
    for weights in (
        wrong,
        nx.QuantSpec("int8", symmetric=False),
        nx.QuantSpec("int8", scheme="per_group(2)"),
    ):
        with pytest.raises(NumericsError, match="device='IPU' takes int8 and int16 with one scale"):
            nx.plan(float_model(), weights, device="IPU", example=X)


def normalized():
    torch.manual_seed(1)
    layers = [torch.nn.Conv2d(2, 3, 3, bias=False), torch.nn.BatchNorm2d(3), torch.nn.ReLU()]
    m = torch.nn.Sequential(*layers, torch.nn.ConvTranspose2d(3, 2, 2, bias=False), torch.nn.BatchNorm2d(2))
    m.train()(X)
    return m.eval()


@pytest.mark.parametrize("fold", [False, True])
def test_layers_without_a_bias_and_their_normalizations_are_integer(tmp_path, fold):
    """Of such a network most layers stayed in float: their bias, a constant 0, counted as computed."""
    m = wrapped(CHANNELS, "int8", normalized(), fold=fold)
    found = nx.ipu.export_model(m, tmp_path / "m.onnx", data={"input": X.numpy()})
    assert found.report.of("keep") == []
    assert [row.operator for row in found.report.of("quantize")] == ["Conv+Relu", "ConvTranspose"]
    twice = [row.node for row in found.report.of("fold") if "fold=True" in row.why]
    assert sorted(twice) == ([] if fold else ["0.weight", "3.weight"])
    layers = nx.ipu.compare(found.model, [{"input": X[:2].numpy()}])
    assert not any(layer.unexplained for layer in layers)


def test_scales_of_weights_that_the_graph_turns_around_are_those_of_torch(tmp_path):
    """A layer on three axes is a product with transposed weights, whose scale was looked for anew."""
    torch.manual_seed(2)
    m = nx.wrap(torch.nn.Sequential(torch.nn.Linear(6, 4)), CHANNELS, activations="int8", qat="lsq",
                device="IPU", example=X[:2, 0])  # fmt: skip
    m(X[:, 0]).sum().backward()  # LSQ begins at 2 mean |w| / sqrt(127), which is no maximum over 127
    frozen = nx.freeze(copy.deepcopy(m.eval()))
    learned = frozen[0]._parameters["weight"].scale.numpy().reshape(-1)
    assert not np.allclose(learned * 127, np.abs(m[0].weight.detach().numpy()).max(1))
    found = nx.ipu.export_model(m, tmp_path / "m.onnx")
    names = [each.name for each in found.model.graph.initializer if each.name.endswith("_scale")]
    assert any(np.array_equal(constant_of(found.model, name), learned) for name in names)


def test_scales_of_the_example_alone_are_said_and_batches_of_torch_are_taken(tmp_path):
    """The results of a larger batch were cut at those of the example, 12 dB below, without a word."""
    m = wrapped(CHANNELS, "int16", torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(72, 5)).eval())
    alone = nx.ipu.export_model(m, tmp_path / "m.onnx")
    whole = nx.ipu.export_model(m, tmp_path / "m.onnx", data=[X[k : k + 2] for k in range(0, 8, 2)])
    said = [row for row in alone.report.of("calibrate") if "the plan's example alone" in row.what]
    assert said
    assert all(alone.scales[row.node] < whole.scales[row.node] for row in said)
    assert not whole.report.of("calibrate")
    tuples = nx.ipu.export_model(m, tmp_path / "m.onnx", data=((X[k : k + 2],) for k in range(0, 8, 2)))
    assert tuples.scales == whole.scales
    with pytest.raises(NumericsError, match="holds 2 tensors; one is due for each of"):
        nx.ipu.export_model(m, tmp_path / "m.onnx", data=[(X[:2], X[:2])])
