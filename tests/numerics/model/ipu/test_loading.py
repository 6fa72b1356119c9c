"""What is refused when a model is opened, each with the name of the node."""

from __future__ import annotations

import os
import tracemalloc

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx import TensorProto, helper

import numerics as nx
from numerics.formats import NumericsError
from numerics.model.ipu import loading
from tests.helpers.onnx_models import items, model, node, numbers, residual


def relu(opset=17, shape=(1, 3)):
    return model([node("Relu", "x", "y")], {"x": shape}, {"y": shape}, opset=opset)


def branches():
    ends = [helper.make_tensor_value_info("o", TensorProto.FLOAT, [1])]
    inside = helper.make_graph([helper.make_node("Identity", ["x"], ["o"])], "then", [], ends)
    flag = {"flag": np.array(True)}
    return model(
        [node("If", "flag", "y", then_branch=inside, else_branch=inside)], {"x": (1,)}, {"y": (1,)}, flag
    )


def quantized():
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    return model(nodes, {"x": (1,)}, {"y": (1,)}, {"s": np.float32(1), "z": np.int8(0)})


def foreign():
    found = relu()
    found.graph.node[0].domain = "com.somebody"
    found.opset_import.append(helper.make_opsetid("com.somebody", 1))
    return found


def twins():
    nodes = [helper.make_node(op, names, [y], "same") for op, names, y in
             (("MatMul", ["x", "w"], "h"), ("Relu", ["h"], "y"))]  # fmt: skip
    return model(nodes, {"x": (1, 3)}, {"y": (1, 3)}, {"w": numbers(3, 3)})


def sparse():
    found = model([node("MatMul", "x w", "y")], {"x": (1, 3)}, {"y": (1, 3)})
    values = onnx.numpy_helper.from_array(np.float32([1, 2]), "w")
    places = onnx.numpy_helper.from_array(np.array([0, 4]), "places")
    found.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [3, 3]))
    return found


def conv(weights):
    return model([node("Conv", "x w", "y")], {"x": (1, 1, 4, 4)}, {"y": (1, 1, 4, 4)}, {"w": weights})


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: relu(opset=22), r"opset 22, Relu 'y' the first of them; allowed: 13 \.\. 21.*advises 17"),
        (lambda: relu(opset=12), r"opset 12, Relu 'y'.*convert_version"),
        (lambda: relu(shape=("n", 3)), r"input 'x' of Relu 'y' has the dynamic shape \['n', 3\].*--shape x="),
        (lambda: relu(shape=(None, 3)), r"'x' of Relu 'y' has the dynamic shape \['\?', 3\]"),
        (branches, "If 'y' holds a graph of its own"),
        (quantized, "QuantizeLinear 'q': this model is quantized already"),
        (foreign, "Relu 'y' is an operator of 'com.somebody'"),
        (lambda: conv(np.float32([[[[np.nan]]]])), "'w' of Conv 'y' has NaN or Inf"),
        (lambda: conv(np.float32([[[1]]])), "no valid ONNX model"),
        (twins, "MatMul 'same' and Relu 'same' have one name"),
        (sparse, "'w' is a sparse constant.*make it dense"),
        (lambda: b"not a model", "the model is no ONNX model"),
        (lambda: b"", "the model is no ONNX model"),
        (lambda: "/nowhere/x.onnx", "cannot open /nowhere/x.onnx: it is not there"),
        (lambda: ".", "it is a folder"),
        (lambda: 3, "3 is not the path of a file"),
    ],
)
def test_what_cannot_be_quantized_is_refused_by_name(made, said):
    with pytest.raises(NumericsError, match=said):
        loading.open_model(made(), {})


def test_a_model_of_more_than_two_gigabytes_beside_the_file_is_refused_before_it_is_read(tmp_path):
    found = conv(np.float32([[[[1]]]]))
    weights = found.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "w.bin"), ("length", str(2**31))):
        weights.external_data.add(key=key, value=value)
    path = tmp_path / "large.onnx"
    path.write_bytes(found.SerializeToString())
    with pytest.raises(NumericsError, match=r"2,147,483,648 bytes, the largest 'w' of Conv 'y'.*split it"):
        loading.open_model(path, {})
    weights.external_data[1].value = "4"
    path.write_bytes(found.SerializeToString())
    with pytest.raises(NumericsError, match="its data beside the file cannot be read"):
        loading.open_model(path, {})


@pytest.mark.skipif(os.environ.get("NUMERICS_TEST_LONG") != "1", reason="make verify")
def test_a_file_of_more_than_two_gigabytes_is_refused_in_little_memory(tmp_path):
    """Sparse: its zeros take no room on the disk, and none of them is read."""
    sizes = (2**15, 2**14 + 1)  # 2,147,614,720 bytes of float32
    found = model([node("MatMul", "x w", "y")], {"x": (1, sizes[0])}, {"y": (1, sizes[1])})
    weights = found.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=sizes)
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="w.bin")
    with open(tmp_path / "w.bin", "wb") as file:
        file.truncate(4 * sizes[0] * sizes[1])
    (tmp_path / "large.onnx").write_bytes(found.SerializeToString())
    tracemalloc.start()
    with pytest.raises(NumericsError, match=r"2,147,614,720 bytes, the largest 'w' of MatMul 'y'"):
        nx.ipu.quantize_model(tmp_path / "large.onnx", {"x": np.zeros((1, sizes[0]), np.float32)})
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


@pytest.mark.parametrize("config", ["xint8", "a8w8", "bf16"])
def test_data_beside_the_file_gives_the_model_that_data_inside_gives(tmp_path, config):
    onnx.save(residual(), tmp_path / "a.onnx", save_as_external_data=True, location="a.bin", size_threshold=0)
    data = None if config == "bf16" else items()
    beside, inside = (nx.ipu.quantize_model(x, data, config) for x in (tmp_path / "a.onnx", residual()))
    assert beside.model.SerializeToString(deterministic=True) == inside.model.SerializeToString(
        deterministic=True
    )


def test_data_beside_the_file_is_read(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(residual(), path, save_as_external_data=True, location="net.bin", size_threshold=0)
    assert (loading.open_model(path, {}).constants["w3"] == numbers(5, 4, seed=8)).all()


def test_open_sizes_are_given_by_shapes():
    network = loading.open_model(relu(shape=("n", 3)), {"x": (4, 3)})
    assert network.shapes["y"] == (4, 3)
    for shape in ((4,), (4, 2), (0, 3), ("n", 3)):
        with pytest.raises(NumericsError, match="does not fit input 'x'"):
            loading.open_model(relu(shape=("n", 3)), {"x": shape})
    with pytest.raises(NumericsError, match="shapes= names z; the inputs are x"):
        loading.open_model(relu(), {"z": (1, 3)})


def test_the_model_that_came_stays_as_it_is():
    found = relu(shape=("n", 3))
    before = found.SerializeToString()
    loading.open_model(found, {"x": (4, 3)})
    assert found.SerializeToString() == before
