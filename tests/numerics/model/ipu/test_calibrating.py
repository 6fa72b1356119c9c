"""Calibration: what data is taken, what is refused by name, and what an interrupted one leaves."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import numerics as nx
from numerics import observe
from numerics.formats import NumericsError
from numerics.model.ipu.calibrating import calibrate, feeds_from
from numerics.model.ipu.configs import CONFIGS
from numerics.model.ipu.network import Network
from tests.helpers.onnx_models import items, model, node, numbers, residual

NETWORK = Network(residual(batch=2))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "calibration is missing.*--data calibration.npz"),
        ({"z": numbers(2, 3, 6, 6)}, "calibration names z; the model takes x"),
        ({"x": numbers(3, 3, 6, 6)}, r"'x' has shape \(3, 3, 6, 6\); allowed: \[k \* 2, 3, 6, 6\]"),
        ({"x": numbers(2, 3, 6, 7)}, r"allowed: \[k \* 2, 3, 6, 6\]"),
        ({"x": numbers(0, 3, 6, 6)}, r"allowed: \[k \* 2"),
        ([], "no items"),
        (3, "data is 3; allowed: a path, a mapping"),
        ([3], "a batch is a mapping of input name -> array, not 3"),
        (
            [{"x": numbers(1, 3, 6, 6)}],
            r"a batch of 'x' has shape \(1, 3, 6, 6\); the model takes \(2, 3, 6, 6\)",
        ),
        ({"x": np.full((2, 3, 6, 6), np.nan, np.float32)}, "'x' has NaN or Inf, which goes into Conv 'c1'"),
        ("nowhere.npz", "no calibration data: nowhere.npz: No such file"),
    ],
)
def test_data_that_cannot_calibrate_is_refused_by_name(data, said):
    with pytest.raises(NumericsError, match=said):
        feeds_from(data, NETWORK)


def test_an_array_that_hides_values_is_refused():
    hides = np.ma.masked_array(numbers(2, 3, 6, 6), mask=numbers(2, 3, 6, 6) > 0)
    for data in ({"x": hides}, [{"x": hides}]):
        with pytest.raises(NumericsError, match="calibration of 'x' is a masked array"):
            feeds_from(data, NETWORK)


def test_one_array_is_no_archive(tmp_path):
    np.save(tmp_path / "x.npy", numbers(2, 3, 6, 6))
    with pytest.raises(NumericsError, match=r"x\.npy holds one array; an \.npz"):
        feeds_from(tmp_path / "x.npy", NETWORK)


def test_a_node_that_makes_nan_of_a_batch_is_named():
    network = Network(model([node("Sub", "x x", "s"), node("Div", "s s", "d"), node("Relu", "d", "y")],
                            {"x": (1, 2)}, {"y": (1, 2)}))  # fmt: skip
    with pytest.raises(NumericsError, match="batch 0: Div 'd' makes NaN or Inf of it"):
        calibrate(network, ["d"], [{"x": numbers(1, 2)}], CONFIGS["xint8"])


def test_scales_are_those_of_the_observers_of_the_house():
    feeds = feeds_from(items(8), NETWORK)
    found = calibrate(NETWORK, ["x", "y"], feeds, CONFIGS["a8w8"]).scales
    watching = observe.MinMax("int8")
    watching.observe(items(8)["x"])
    assert found["x"] == float(watching.scale)
    found = calibrate(NETWORK, ["x"], feeds, CONFIGS["xint8"].replace(observer="pof2")).scales
    watching = observe.Pof2("int8")
    watching.observe(items(8)["x"])
    assert found["x"] == float(watching.scale)


def test_progress_counts_every_batch():
    told = []
    calibrate(
        NETWORK, ["x"], feeds_from(items(8), NETWORK), CONFIGS["a8w8"], lambda *so_far: told.append(so_far)
    )
    assert told == [("calibrating", k, 4) for k in (1, 2, 3, 4)]


def test_an_interrupted_calibration_leaves_the_model_as_it_was():
    def stop(*_):
        raise KeyboardInterrupt

    found = residual()
    before = found.SerializeToString()
    with pytest.raises(KeyboardInterrupt):
        nx.ipu.quantize_model(found, items(), progress=stop)
    assert found.SerializeToString() == before


@pytest.mark.parametrize("dtype", ["float64", "int64", "float16", "object"])
def test_another_type_than_the_models_is_refused_by_name(dtype):
    found = model([node("MatMul", "x w", "y")], {"x": (2, 3)}, {"y": (2, 3)}, {"w": numbers(3, 3)})
    with pytest.raises(
        NumericsError, match=rf"'x' is of {dtype}, which goes into MatMul 'y'; the model takes float32"
    ):
        nx.ipu.quantize_model(found, {"x": np.ones((4, 3), dtype)})


def test_a_model_without_inputs_is_refused():
    found = model([node("Relu", "w", "y")], {}, {"y": (3, 3)}, {"w": numbers(3, 3)})
    with pytest.raises(NumericsError, match="the model has no inputs, Relu 'y'"):
        nx.ipu.quantize_model(found, {})


def test_single_numbers_are_one_an_item():
    """Of shape (8,) they were refused as no whole batches of the model's ()."""
    made = model([node("Mul", "x s", "y")], {"x": (1, 3), "s": ()}, {"y": None})
    x, s = numbers(4, 3), np.float32([1, 2, 3, 4])
    whole = nx.ipu.quantize_model(made, {"x": x, "s": s})
    parts = nx.ipu.quantize_model(made, [{"x": x[k : k + 1], "s": s[k]} for k in range(4)])
    assert whole.scales == parts.scales
    for wrong in (np.float32(1), np.ones((4, 1), np.float32)):
        with pytest.raises(NumericsError, match=r"allowed: \[k \* 1\], whole batches of the model's \(\)"):
            nx.ipu.quantize_model(made, {"x": x, "s": wrong})
