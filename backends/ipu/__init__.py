"""AMD's Ryzen AI NPU, by way of ONNX: models of the shared arithmetic, and ONNX Runtime to open them.

docs/ipu.md says what runs where, what was proven, and what was never seen on silicon.

>>> import numerics as nx
>>> nx.ipu.export("mxfp4", "round", "portable").opset_import[0].version
13
"""

from numerics.backends.host.backend import HostBackend
from numerics.backends.ipu import bfp16ebs8, limits
from numerics.backends.ipu.export import export
from numerics.backends.ipu.session import session
from numerics.backends.ipu.verify import verify
from numerics.backends.onnx.executor import IpuExecutor

__all__ = ["BACKEND", "bfp16ebs8", "export", "limits", "session", "verify"]

BACKEND = HostBackend(IpuExecutor())
