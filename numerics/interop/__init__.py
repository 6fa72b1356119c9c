"""The same bits as other libraries': their types, their layouts, and QTensors between NumPy and torch.

>>> import numpy as np, numerics as nx
>>> codes = nx.fp8_e4m3.encode(np.float32([0.3, 448]))
>>> nx.interop.to_native(codes, "fp8_e4m3").dtype.name
'float8_e4m3fn'
"""

from numerics.formats.arguments import answer_calls
from numerics.interop.gguf import from_gguf, gguf_type, to_gguf
from numerics.interop.native import from_native, from_native_packed, to_native, to_native_packed
from numerics.pytorch.convert import as_arrays, as_tensors

__all__ = [
    "as_arrays", "as_tensors", "from_gguf", "from_native", "from_native_packed", "gguf_type", "to_gguf",
    "to_native", "to_native_packed",
]  # fmt: skip

answer_calls(__name__)
