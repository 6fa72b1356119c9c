"""AMD's Ryzen AI NPU: single operations and whole models as ONNX files, opened, measured and predicted.

docs/ipu.md says what runs where, what was proven, and what was never seen on silicon.

>>> import numerics as nx
>>> nx.ipu.export("mxfp4", "round", "portable").opset_import[0].version
13
"""

from numerics.backends.ipu import BACKEND, bfp16ebs8, export, limits, session, verify
from numerics.formats.arguments import answer_calls
from numerics.model.ipu.comparing import compare
from numerics.model.ipu.configs import CONFIGS, Config
from numerics.model.ipu.exporting import export_model
from numerics.model.ipu.integers import Reference
from numerics.model.ipu.quantizing import Quantized, quantize_model
from numerics.model.ipu.quark import export_quark

__all__ = [
    "BACKEND", "CONFIGS", "Config", "Quantized", "Reference", "bfp16ebs8", "compare", "export",
    "export_model", "export_quark", "limits", "quantize_model", "session", "verify",
]  # fmt: skip

answer_calls(__name__)
