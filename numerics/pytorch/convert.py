"""QTensors between NumPy and torch, in the same memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numerics.backends.host.tensors import as_array, as_tensor, is_tensor, number_of, number_tensor
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError
from numerics.formats.protocol import Parts
from numerics.tensor.parts import PARTS
from numerics.tensor.qtensor import ArrayQTensor, QTensor, check_quantized

if TYPE_CHECKING:
    from numerics.pytorch.qtensor import TensorQTensor


@keywords
def as_tensors(q: QTensor) -> TensorQTensor:
    """Returns a quantized tensor of torch tensors, which share the memory of q's arrays.

    What was quantized from Python numbers stands for float64.  Read-only arrays (`load` gives views
    of a file) are copied: torch has no read-only tensors.  Raises NumericsError without torch.

    >>> import numerics as nx
    >>> as_tensors(nx.quantize([0.5, -1.0, 2.0, 3.5], "int4")).dequantize()
    tensor([ 0.5000, -1.0000,  2.0000,  3.5000], dtype=torch.float64)
    """
    check_quantized("as_tensors", q)
    try:
        import torch

        if not isinstance(getattr(torch, "Tensor", None), type):
            raise ImportError("a stub stands in its place")
        from numerics.pytorch.qtensor import TensorQTensor
    except ImportError:
        raise NumericsError("torch is not installed: pip install 'numerics-formats[torch]'") from None
    if isinstance(q, TensorQTensor):
        return q
    packed, shared, zero_point = (_shared_tensor(part) for part in (q.packed, q.shared, q.zero_point))
    number = q.tensor_scale
    scale = None if number is None else number_tensor(number, packed.device)
    kind = getattr(torch, "float64" if q.original == "python" else q.original)
    parts = dict(zip(PARTS, (packed, shared, zero_point, scale), strict=True))
    return TensorQTensor(q.spec, q.shape, kind, parts)


@keywords
def as_arrays(q: QTensor) -> ArrayQTensor:
    """Returns a quantized tensor of NumPy arrays, which share the memory of q's tensors.

    Raises NumericsError for tensors that are not on the CPU.

    >>> import torch, numerics as nx
    >>> as_arrays(nx.quantize(torch.tensor([0.5, -1.0]), "fp4")).packed
    array([245], dtype=uint8)
    """
    check_quantized("as_arrays", q)
    packed, shared, zero_point = (
        as_array(part) if is_tensor(part) else part for part in (q.packed, q.shared, q.zero_point)
    )
    number = None if q.tensor_scale is None else number_of(q.tensor_scale)
    parts = Parts(packed, shared, zero_point, number, tuple(q.shape), q.original)
    return ArrayQTensor.fitting(q.spec, parts)


def _shared_tensor(part: Any) -> Any:
    if part is None or is_tensor(part):
        return part
    if not part.flags.writeable or any(step < 0 for step in part.strides):  # torch has neither
        part = part.copy()
    return as_tensor(part)
