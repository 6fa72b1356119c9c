"""Small ONNX models for tests of numerics/model/ipu: whole in a line or two, in float32."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shapes = dict[str, tuple]


def node(op: str, inputs: str, output: str, **attributes) -> onnx.NodeProto:
    """A node with the name of what it makes; inputs: names with blanks between."""
    return helper.make_node(op, inputs.split(), [output], name=output, **attributes)


def model(nodes: list, x: Shapes, y: Shapes, constants: dict | None = None, opset: int = 17):
    """Nodes from the inputs x to the outputs y, name -> shape, None to infer it; constants: name -> array."""
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in end.items()]
        for end in (x, y)
    ]
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", *ends, held)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    if None in y.values():
        inferred = onnx.shape_inference.infer_shapes(made, data_prop=True).graph.output
        del made.graph.output[:]
        made.graph.output.extend(inferred)
    return made


def numbers(*shape: int, seed: int = 0, spread: float = 1.0) -> np.ndarray:
    """Normal numbers, the same on every run."""
    found = np.random.default_rng(seed).standard_normal(shape) * spread
    return found.astype(np.float32)


def residual(batch: int = 2) -> onnx.ModelProto:
    """Three convolutions, one past the others, a normalization, a pool and a classifier: 12 nodes."""
    nodes = [
        node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c1 gamma beta mean variance", "n1"),
        node("Relu", "n1", "r1"),
        node("Conv", "r1 w2", "c2", pads=[1, 1, 1, 1], group=2),
        node("Add", "c2 b2", "c2b"),
        node("LeakyRelu", "c2b", "l2", alpha=0.1),
        node("Add", "l2 r1", "sum"),
        node("Relu", "sum", "r3"),
        node("MaxPool", "r3", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("AveragePool", "p", "a", kernel_shape=[3, 3]),
        node("Flatten", "a", "f"),
        node("Gemm", "f w3 b3", "y", transB=1),
    ]
    constants = {
        "w1": numbers(4, 3, 3, 3, spread=0.3), "b1": numbers(4, seed=1), "gamma": numbers(4, seed=2) + 2,
        "beta": numbers(4, seed=3), "mean": numbers(4, seed=4), "variance": np.abs(numbers(4, seed=5)) + 1,
        "w2": numbers(4, 2, 3, 3, seed=6, spread=0.3), "b2": numbers(4, 1, 1, seed=7),
        "w3": numbers(5, 4, seed=8), "b3": numbers(5, seed=9),
    }  # fmt: skip
    return model(nodes, {"x": (batch, 3, 6, 6)}, {"y": (batch, 5)}, constants)


def items(count: int = 16, seed: int = 1) -> dict[str, np.ndarray]:
    """Inputs of `residual`."""
    return {"x": numbers(count, 3, 6, 6, seed=seed)}
