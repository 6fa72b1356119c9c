"""MXFP4 as llama.cpp's files hold it, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from numerics.backends.host.tensors import has_values, is_tensor
from numerics.backends.partition import check_axis
from numerics.formats.blocks import mxfp4
from numerics.formats.errors import NumericsError
from numerics.formats.floats import fp4
from numerics.interop.native import check_kind
from numerics.pytorch.convert import as_tensors
from numerics.tensor.qtensor import ArrayQTensor, QTensor, check_quantized
from numerics.tensor.spec import QuantSpec

GGUF_BYTES = 17  # of a GGUF block of MXFP4: one scale, 32 nibbles
NAN_SCALE = 0xFF  # of E8M0 (OCP MX 1.0 §5.4.1)


def to_gguf(q: QTensor) -> Any:
    """Returns an MXFP4 tensor as GGUF's blocks (type 39), row after row: uint8 [..., last axis / 32 * 17].

    A block is the E8M0 byte, then 16 bytes with element j in the low nibble and j + 16 in the high one
    (ggml, `block_mxfp4`; it doubles the elements and halves the scale).  ggml reads -0 as 0.  Raises
    NumericsError for other formats, for blocks that are short or along another axis, and for blocks
    of NaN, which ggml would read as numbers.

    >>> import numerics as nx
    >>> to_gguf(nx.quantize([1.0] * 16 + [-6.0] * 16, "mxfp4")).tolist()[:4]
    [127, 242, 242, 242]
    """
    check_quantized("to_gguf", q)
    shape = tuple(q.shape)
    if q.format is not mxfp4:
        raise NumericsError(f"GGUF's type 39 is mxfp4, not {q.format}")
    if check_axis(q.axis, shape) != len(shape) - 1 or shape[-1] % mxfp4.block:
        raise NumericsError(
            f"GGUF has whole blocks of {mxfp4.block} along the last axis, not axis {q.axis} of {shape}"
        )
    scale = q.scale.reshape(-1, 1)
    _check_scales(scale)
    codes = q.codes.reshape(-1, 2, mxfp4.block // 2)
    blocks = _joined(scale, codes[:, 0] | codes[:, 1] << 4)
    return blocks.reshape(*shape[:-1], shape[-1] // mxfp4.block * GGUF_BYTES)


def from_gguf(blocks: Any) -> QTensor:
    """Returns the MXFP4 tensor, standing for float32, that `to_gguf` or llama.cpp made blocks of.

    blocks: uint8, a NumPy array or a torch tensor, the last axis whole blocks of 17 bytes.  Raises
    NumericsError for others, and for a scale byte of 255, which is NaN in OCP MX and a number in ggml.

    >>> import numpy as np
    >>> from_gguf(np.array([127] + [0xF2] * 16, np.uint8)).dequantize()[[0, 15, 16]]
    array([ 1.,  1., -6.], dtype=float32)
    """
    check_kind(blocks, "uint8", "GGUF's blocks")
    shape = tuple(blocks.shape)
    if not shape or shape[-1] % GGUF_BYTES:
        raise NumericsError(f"GGUF's blocks are [..., k * {GGUF_BYTES}] bytes, not {shape}")
    rows = blocks.reshape(-1, GGUF_BYTES)
    scale, pairs = rows[:, 0], rows[:, 1:]
    _check_scales(scale)
    scale = scale.clone() if is_tensor(scale) else scale.copy()  # not a view into what came
    lead, count = shape[:-1], shape[-1] // GGUF_BYTES
    made = ArrayQTensor(
        spec=QuantSpec(mxfp4), shape=(*lead, count * mxfp4.block),
        packed=fp4.pack(_joined(pairs & 15, pairs >> 4)), shared=scale.reshape(*lead, count),
    )  # fmt: skip
    return as_tensors(made) if is_tensor(blocks) else made


def _check_scales(scale: Any) -> None:
    """Raises NumericsError for scales of NaN, where there are values to look at."""
    if is_tensor(scale) and not has_values(scale):
        return
    wrong = scale.reshape(-1) == NAN_SCALE
    count = int(wrong.sum())
    if count:
        raise NumericsError(
            f"{count * mxfp4.block} values would change: blocks of NaN, the first of them block "
            f"{wrong.tolist().index(True)}, whose scale ggml reads as a number"
        )


def _joined(left: Any, right: Any) -> Any:
    """Two matrices side by side."""
    if not is_tensor(left):
        return np.concatenate((left, right), axis=1)
    import torch

    return torch.cat((left, right), dim=1)
