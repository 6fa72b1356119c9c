"""Whole models: what is written, that nothing is silent, and that devices differ where the documents say."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

pytest.importorskip("onnxruntime")

import numerics as nx
from numerics.formats import NumericsError
from numerics.model.ipu.running import opened, run
from numerics.model.ipu.writing import constant_of
from tests.helpers.onnx_models import items, model, node, numbers, residual


def sqnr(came, due):
    return 10 * np.log10((due**2).sum() / ((came - due) ** 2).sum())


@pytest.fixture(scope="module")
def quantized():
    return {
        name: nx.ipu.quantize_model(residual(), None if name == "bf16" else items(), name)
        for name in nx.ipu.CONFIGS
    }


def test_each_configuration_runs_and_is_near_the_float_model(quantized):
    due = run(opened(residual()), {"x": items()["x"][:2]})["y"]
    found = {
        name: sqnr(run(opened(q.model), {"x": items()["x"][:2]})["y"], due) for name, q in quantized.items()
    }
    assert found["xint8"] > 15
    assert found["a8w8"] > 25
    assert found["a16w8"] > found["a8w8"]
    assert found["bf16"] > 35


def test_every_node_of_the_float_model_is_in_the_report(quantized):
    for q in quantized.values():
        told = " ".join(f"{row.node} {row.what}" for row in q.report)
        fused = {"r1", "r3", "l2"}  # with the layer before them
        for each in residual().graph.node:
            assert each.name in told or each.name in fused, each.name


def test_xint8_has_powers_of_two_one_a_tensor_and_int32_biases(quantized):
    found = quantized["xint8"]
    scales = [constant_of(found.model, each.input[1]) for each in found.model.graph.node
              if each.op_type in ("QuantizeLinear", "DequantizeLinear")]  # fmt: skip
    assert all(scale.shape == () and np.frexp(scale)[0] == 0.5 for scale in scales)
    kinds = {each.name: each.data_type for each in found.model.graph.initializer}
    assert {kind for name, kind in kinds.items() if name.endswith("bias_quantized")} == {
        onnx.TensorProto.INT32
    }


def test_a_bias_has_the_scale_of_activation_times_weight(quantized):
    for name in ("xint8", "a8w8"):
        found = quantized[name]
        activation = np.float64(found.scales["f"])
        weight = constant_of(found.model, "w3_quantized_scale").astype(np.float64)
        bias = constant_of(found.model, "y_bias_quantized_scale")
        assert (bias == (activation * weight).astype(np.float32)).all()


def test_a16w8_keeps_opset_17_by_the_runtimes_own_operators(quantized):
    found = quantized["a16w8"].model
    assert {each.domain for each in found.graph.node if each.op_type == "QuantizeLinear"} == {"com.microsoft"}
    assert [(each.domain, each.version) for each in found.opset_import] == [("", 17), ("com.microsoft", 1)]


def test_bf16_is_casts_and_needs_no_calibration(quantized):
    ops = [each.op_type for each in quantized["bf16"].model.graph.node]
    assert ops.count("Cast") > 8
    assert "QuantizeLinear" not in ops


def test_devices_differ_only_where_the_documents_say():
    """The file is the same but for its note; BF16 is for stx and krk; for X1 float scales are a remark."""
    for config in ("xint8", "a8w8", "a16w8"):
        files, remarks = set(), {}
        for device in ("phx", "hpt", "stx", "krk"):
            found = nx.ipu.quantize_model(residual(), items(), config, device)
            remarks[device] = [row.why for row in found.report.of("load")]
            del found.model.metadata_props[:]
            files.add(found.model.SerializeToString(deterministic=True))
        assert len(files) == 1
        assert [bool(remarks[device]) for device in remarks] == [config != "xint8"] * 2 + [False] * 2
    for device in ("phx", "hpt"):
        with pytest.raises(NumericsError, match=f"{device} runs no BF16 models"):
            nx.ipu.quantize_model(residual(), None, "bf16", device)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("xint9",), "unknown config 'xint9'; did you mean 'xint8'"),
        ((3,), "config is 3; allowed: a Config, or xint8"),
        (("xint8", "npu"), "unknown device 'npu'"),
    ],
)
def test_unknown_words_are_refused(arguments, said):
    with pytest.raises(NumericsError, match=said):
        nx.ipu.quantize_model(residual(), items(), *arguments)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"per_channel": True}, "share one a tensor"),
        ({"observer": "best"}, "unknown observer 'best'"),
        ({"bias": "int16"}, "unknown bias 'int16'"),
        ({"scale": 1}, "unknown field of a Config 'scale'"),
        ({"pof2": False, "bias": "int8"}, "a bias of int8 has a power of two"),
        (
            {"pof2": False},
            "observer='pof2_mse': scale type 'float32' of an observer that finds powers of two",
        ),
        ({"keep": "Add"}, r"keep is 'Add'; allowed: a tuple of nodes' names"),
        ({"keep": ("Add", 3)}, r"keep is .*3.*; allowed: a tuple of nodes' names"),
        ({"keep": 3}, "keep=3 cannot be read item by item"),
    ],
)
def test_a_config_that_no_device_takes_is_refused(changed, said):
    with pytest.raises(NumericsError, match=said):
        nx.ipu.CONFIGS["xint8"].replace(**changed)


@pytest.mark.parametrize("changed", [{"observer": "kl"}, {"observer": "min_max"}, {"per_channel": True}])
def test_bfloat16_takes_nothing_that_is_about_scales(changed):
    with pytest.raises(NumericsError, match=r"bf16: .* is about scales, which bfloat16 has none of"):
        nx.ipu.CONFIGS["bf16"].replace(**changed)
    assert nx.ipu.CONFIGS["bf16"].observer is None
    assert nx.ipu.CONFIGS["a8w8"].replace(observer=None).observer == "min_max"


def test_calibration_that_bfloat16_does_not_need_is_looked_at_and_said(tmp_path):
    found = nx.ipu.quantize_model(residual(), items(6), "bf16")
    assert "3 batches of calibration not used" in [row.what for row in found.report.of("load")]
    assert not nx.ipu.quantize_model(residual(), None, "bf16").report.of("load")
    for data in (tmp_path / "none.npz", {"z": numbers(2, 3, 6, 6)}, {"x": numbers(2, 3, 6, 7)}):
        with pytest.raises(NumericsError, match="calibration"):
            nx.ipu.quantize_model(residual(), data, "bf16")


@pytest.mark.parametrize("config", [*nx.ipu.CONFIGS])
def test_what_the_file_says_of_itself_stays_and_an_input_with_a_value_is_said(config):
    """Names of classes were gone, an input with a default became a constant without a word."""
    float_model = residual()
    float_model.producer_name, float_model.producer_version = "pytorch", "2.9"
    onnx.helper.set_model_props(float_model, {"names": "cat, dog", "numerics.config": "mine"})
    float_model.graph.input.append(onnx.helper.make_tensor_value_info("w1", 1, (4, 3, 3, 3)))
    found = nx.ipu.quantize_model(float_model, items(), config)
    facts = {each.key: each.value for each in found.model.metadata_props}
    assert facts == {"names": "cat, dog", "numerics.source": "pytorch 2.9", "numerics.config": config,
                     "numerics.device": "stx"}  # fmt: skip
    assert (found.model.producer_name, found.model.producer_version) == ("numerics", nx.__version__)
    rows = [(row.node, row.what) for row in found.report.of("load")]
    assert ("w1", "is no input any more") in rows


def test_a_tensor_that_calibration_only_saw_as_zero_is_said():
    for config in ("xint8", "a8w8", "a16w8"):
        found = nx.ipu.quantize_model(residual(), {"x": np.zeros((4, 3, 6, 6), np.float32)}, config)
        assert [row.node for row in found.report.of("calibrate")] == ["x"]
        assert not nx.ipu.quantize_model(residual(), items(), config).report.of("calibrate")


def test_functions_whose_way_is_not_written_down_are_said_and_counted():
    weights = {"w": numbers(6, 6), "g": np.ones(6, np.float32)}
    nodes = [node("MatMul", "x w", "m"), node("LayerNormalization", "m g", "l"), node("Softmax", "l", "y")]
    found = nx.ipu.quantize_model(model(nodes, {"x": (4, 6)}, {"y": None}, weights), {"x": numbers(8, 6)})
    why = {row.operator: row.why for row in found.report.of("quantize")}
    assert "not written down" not in why["MatMul"]
    assert all("not written down" in why[name] for name in ("LayerNormalization", "Softmax"))
    assert (found.report.totals["quantized"], found.report.totals["unwritten"]) == (3, 2)


def test_a_result_is_shown_by_its_totals(quantized):
    assert repr(quantized["xint8"]).startswith("Quantized(xint8 for stx: 11 nodes are integer; none stays in")
    assert len(repr(quantized["xint8"])) < 200


def test_a_tensor_that_is_a_result_and_goes_on_keeps_its_name():
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "y")]
    found = model(nodes, {"x": (1, 2, 3, 3)}, {"y": None, "c": None}, {"w": numbers(2, 2, 1, 1)})
    made = nx.ipu.quantize_model(found, {"x": numbers(4, 2, 3, 3)}).model
    assert [each.name for each in made.graph.output] == ["y", "c"]
    came = run(opened(made), {"x": numbers(1, 2, 3, 3)})
    assert (came["y"] == np.maximum(came["c"], 0)).all()


def test_weights_that_two_layers_share_are_written_for_each():
    """ONNX Runtime 1.32 did not open the model in its exact mode: it replaced the same integers twice."""
    nodes = [node("Conv", "x w", "c"), node("Conv", "c w", "y")]
    found = model(nodes, {"x": (1, 2, 3, 3)}, {"y": None}, {"w": numbers(2, 2, 1, 1)})
    made = nx.ipu.quantize_model(found, {"x": numbers(4, 2, 3, 3)}).model
    assert {"w_quantized", "w_quantized_0"} <= {each.name for each in made.graph.initializer}
    assert nx.ipu.session(made).run({"x": numbers(1, 2, 3, 3)})["y"].shape == (1, 2, 3, 3)


def test_a_file_is_written_whole_and_opens(tmp_path, quantized):
    quantized["xint8"].save(tmp_path / "out.onnx")
    opened_file = nx.ipu.session(tmp_path / "out.onnx")
    assert opened_file.run({"x": items()["x"][:2]})["y"].shape == (2, 5)


def test_sums_of_two_products_do_not_saturate_at_int16():
    """On x86 without VNNI, ONNX Runtime's int8 kernels clip them, by default: results were wrong by a lot."""
    weights = np.full((8, 32), 1.0, np.float32)
    found = model([node("MatMul", "x w", "y")], {"x": (4, 8)}, {"y": None}, {"w": weights})
    x = np.ones((4, 8), np.float32)
    for config in ("xint8", "a8w8"):
        made = nx.ipu.quantize_model(found, {"x": x}, config).model
        assert (
            nx.ipu.session(made).run({"x": x})["y"] == nx.ipu.Reference(made).run({"x": x}).outputs["y"]
        ).all()


def test_a_product_of_int16_and_int8_is_not_rounded_to_int8():
    """ONNX Runtime made a MatMulNBits of it, whose default rounds what it multiplies to int8."""
    found = model([node("Gemm", "x w", "y")], {"x": (4, 64)}, {"y": None}, {"w": numbers(64, 8)})
    x = numbers(4, 64, seed=1)
    made = nx.ipu.quantize_model(found, {"x": x}, "a16w8").model
    came, due = nx.ipu.session(made).run({"x": x})["y"], nx.ipu.Reference(made).run({"x": x}).outputs["y"]
    assert np.abs(came - due).max() <= constant_of(made, "y_scale") * 1.01


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda: nx.ipu.quantize_model(onnx.ModelProto(), items()), "the model is no ONNX model: it has no"),
        (lambda: nx.ipu.CONFIGS["xint8"].replace(shapes=[1]), r"shapes=\[1\]; allowed: a mapping"),
        (lambda: nx.ipu.CONFIGS["xint8"].replace(shapes={"x": (True, 2)}), r"shape .*'x'; allowed: integers"),
        (lambda: nx.ipu.CONFIGS["xint8"].replace(shapes={"x": (10**20, 2)}), r"of input 'x'; allowed: int"),
        (lambda: nx.ipu.CONFIGS["xint8"].replace(shapes={"x": 3}), r"shape 3 of input 'x'; allowed: int"),
        (lambda: nx.ipu.quantize_model(residual(), items(), progress=3), "progress=3 cannot be called"),
    ],
)
def test_arguments_of_another_type_raised_pythons_errors(given, said):
    with pytest.raises(NumericsError, match=said):
        given()


@pytest.mark.parametrize("config", [*nx.ipu.CONFIGS])
def test_the_report_names_every_node_that_came(config, residual_names):
    """What is computed on an accumulator, a Relu after a Conv, was named nowhere."""
    rows = nx.ipu.quantize_model(residual(), items(), config).report
    text = " ".join(f"{row.node} {row.what} {row.why}" for row in rows)
    assert [name for name in residual_names if name not in text] == []


@pytest.fixture
def residual_names():
    return [each.name or each.output[0] for each in residual().graph.node]
