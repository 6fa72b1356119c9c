"""ONNX Runtime on the CPU: whole models that show their inner tensors, and single nodes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from numerics.backends.ipu.session import INEXACT, exact_options
from numerics.formats.errors import NumericsError
from numerics.model.ipu.network import named

Array = NDArray[Any]
OPTIMIZED = {
    True: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    False: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


def opened(
    model: ModelProto,
    optimized: bool = True,
    *,
    left_out: Sequence[str] = (),
    written: str | os.PathLike[str] | None = None,
) -> Any:
    """Returns a session on the CPU's provider; raises NumericsError with the runtime's words.

    left_out: names of optimizers that do not run.  written: a file for the graph as the optimizers leave it.
    """
    options = exact_options()
    if written is not None:
        options.optimized_model_filepath = os.fspath(written)
    options.graph_optimization_level = OPTIMIZED[optimized]
    options.log_severity_level = 3  # errors come as exceptions
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=[*INEXACT, *left_out],
        )
    except Exception as wrong:
        raise NumericsError(f"ONNX Runtime cannot open the model: {_words(wrong)}") from wrong


def run(session: Any, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
    """Outputs by name; raises NumericsError for inputs that the model does not take."""
    names = [value.name for value in session.get_outputs()] if outputs is None else list(outputs)
    if not names:
        return {}  # the runtime would take an empty list for all
    try:
        return dict(
            zip(names, session.run(names, {name: np.asarray(x) for name, x in feeds.items()}), strict=True)
        )
    except Exception as wrong:
        raise NumericsError(f"the model refused its inputs: {_words(wrong)}") from wrong


class Nodes:
    """Runs nodes alone, each with what is given to it; sessions are kept for nodes that come again."""

    def __init__(self, opset: int, optimized: bool = False) -> None:
        self.opset, self.optimized = opset, optimized
        self._sessions: dict[Any, Any] = {}

    def run(self, node: NodeProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The node's outputs by name.  feeds: its inputs by name; those it leaves out are not there."""
        key = id(node), tuple((name, a.dtype.str, a.shape) for name, a in feeds.items())
        try:
            if key not in self._sessions:
                self._sessions[key] = opened(self._model(node, feeds), self.optimized)
            return run(self._sessions[key], feeds)
        except NumericsError as wrong:
            raise NumericsError(f"{named(node)}: {wrong}") from wrong

    def _model(self, node: NodeProto, feeds: Mapping[str, Array]) -> ModelProto:
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for name, a in feeds.items()
        ]
        outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
        graph = helper.make_graph([node], "one", inputs, outputs)
        imports = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=10)


def feeds_of(node: NodeProto, known: Mapping[str, Array]) -> dict[str, Array]:
    """What is known of a node's inputs, by name."""
    return {name: np.asarray(known[name]) for name in node.input if name}


def _words(wrong: Exception) -> str:
    return f"{' '.join(str(wrong).split()):.400}" or type(wrong).__name__
