"""The executors under test."""

from __future__ import annotations

from importlib.util import find_spec

import numerics as nx
from numerics.formats import dispatch

dispatch.register("interpreter", "tests.helpers.interpreted")
_NEEDS = {"ipu": ("onnx", "onnxruntime"), "interpreter": ("torch", "triton")}
EXECUTORS = tuple(
    name for name in ("array", "cpu", "ipu", "interpreter") if all(map(find_spec, _NEEDS.get(name, ())))
)
"""All that must equal `reference`, bit for bit; `interpreter`: the GPU's kernels, without a GPU."""


def each_executor():
    """The executors in turn, each chosen in its turn; for tests whose judge is slow and needed once."""
    for name in EXECUTORS:
        with nx.use(name):
            yield name
