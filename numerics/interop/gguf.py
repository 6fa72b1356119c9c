"""Tensors as llama.cpp's files hold them, and back: MXFP4, NVFP4, Q8_0 and Q4_0.

A GGUF block is 32 values along the last axis with their scale before them (ggml, `block_mxfp4`,
`block_q8_0`, `block_q4_0` in ggml-common.h); of NVFP4 it is 64 values and four scales (`block_nvfp4`).
Encoders differ, also among those that write these files; what is read from a block is the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from numerics.backends.host.tensors import has_values, is_tensor
from numerics.backends.partition import check_axis
from numerics.formats.arguments import keywords
from numerics.formats.blocks import mxfp4, nvfp4
from numerics.formats.errors import NumericsError, one_of, said
from numerics.formats.floats import fp4
from numerics.formats.integers import int4, int8
from numerics.formats.protocol import Parts
from numerics.interop.native import check_kind
from numerics.pytorch.convert import as_tensors
from numerics.tensor.qtensor import ArrayQTensor, QTensor, check_quantized
from numerics.tensor.scheme import per_group
from numerics.tensor.spec import QuantSpec

BLOCK = 32  # values
NAN_SCALE = 0xFF  # of E8M0 (OCP MX 1.0 §5.4.1)
NAN_E4M3 = 0x7F  # from here on codes of E4M3 are NaN or negative
GROUP = 16  # values of NVFP4 that share a scale


@dataclass(frozen=True)
class Kind:
    """A type of GGUF's: the spec of what is read, and bytes of a block and of the scales before it.

    values: of a block.
    """

    spec: QuantSpec
    nbytes: int
    scale: int = 2
    values: int = BLOCK


KINDS = {
    "MXFP4": Kind(QuantSpec(mxfp4), 17, scale=1),
    "NVFP4": Kind(QuantSpec(nvfp4), 36, scale=4, values=64),
    "Q8_0": Kind(QuantSpec(int8, scheme=per_group(BLOCK), scale_type="float16"), 34),
    "Q4_0": Kind(QuantSpec(int4, scheme=per_group(BLOCK), scale_type="float16"), 18),
}
"""By the names of ggml's types, which number them 39, 40, 8 and 2."""


@keywords
def gguf_type(q: QTensor) -> str:
    """Returns the name of the GGUF type that holds a tensor's values: MXFP4, NVFP4, Q8_0 or Q4_0.

    These are mxfp4, nvfp4, and int8 and int4 with per_group(32) and scales in float16, symmetric, in whole
    blocks along the last axis.  Raises NumericsError for others, with what would fit.

    >>> import numerics as nx
    >>> gguf_type(nx.quantize([1.0] * 64, "int8", scheme=nx.per_group(32), scale_type="float16"))
    'Q8_0'
    """
    check_quantized("gguf_type", q)
    name = next((name for name, kind in KINDS.items() if kind.spec.dtype is q.format), None)
    if name is None or not q.spec.symmetric:
        raise NumericsError(
            f"GGUF has no blocks of {q.spec!r}: it has mxfp4, nvfp4, and int8 (Q8_0) and "
            "int4 (Q4_0), both symmetric"
        )
    _check_blocks(q, KINDS[name].values)
    return name


def _check_blocks(q: QTensor, values: int) -> None:
    """Whole blocks along the last axis."""
    shape = tuple(q.shape)
    axis: int | None
    if q.axis is not None:
        lie, axis = f"axis {q.axis}", check_axis(q.axis, shape)
    else:
        scheme = q.spec.scheme_of_elements
        lie, axis = repr(scheme), q.spec.partition(shape).axis if scheme.size == BLOCK else None
    if axis != len(shape) - 1 or shape[-1] % values:
        raise NumericsError(f"GGUF has whole blocks of {values} along the last axis, not {lie} of {shape}")


@keywords
def to_gguf(q: QTensor) -> Any:
    """Returns a tensor as GGUF's blocks, row after row: uint8 [..., last axis / 32 * bytes of a block].

    MXFP4, 17 bytes: the E8M0 byte, then element j in the low nibble and j + 16 in the high one (ggml doubles
    the elements and halves the scale; it reads -0 as 0).  Q8_0, 34 bytes: the scale in float16, then 32 int8.
    Q4_0, 18 bytes: the scale, then nibbles in MXFP4's order, counted from the smallest code.
    NVFP4, 36 bytes: the E4M3 scales of four groups of 16, then each group's element j low and j + 8 high;
    the tensor's scale (`q.tensor_scale`) is a number beside them in llama.cpp's files.  Raises
    NumericsError for what `gguf_type` refuses, for scales of NVFP4 that are NaN or below zero, for scales
    that float16 would round, and for MXFP4's blocks of NaN, which ggml would read as numbers.

    >>> import numerics as nx
    >>> to_gguf(nx.quantize([1.0] * 16 + [-6.0] * 16, "mxfp4")).tolist()[:4]
    [127, 242, 242, 242]
    """
    check_quantized("to_gguf", q)
    kind = KINDS[gguf_type(q)]
    if q.format is nvfp4:
        return _nvfp4_blocks(q)
    scale, codes = q.scale.reshape(-1, 1), q.codes.reshape(-1, BLOCK)
    if q.spec.blocked:
        _check_scales(scale)
    else:
        scale = _halves(scale)
    if q.format is int4:
        codes = codes ^ 8  # counted from the smallest
    if q.format is not int8:
        codes = codes[:, : BLOCK // 2] | codes[:, BLOCK // 2 :] << 4
    shape = tuple(q.shape)
    return _joined(scale, codes).reshape(*shape[:-1], shape[-1] // BLOCK * kind.nbytes)


def _nvfp4_blocks(q: QTensor) -> Any:
    """Four scales, then the codes of four groups, each the first half low and the second high."""
    scale = q.scale.reshape(-1, 4)
    _check_e4m3(scale)
    codes = q.codes.reshape(-1, GROUP)
    halves = codes[:, : GROUP // 2] | codes[:, GROUP // 2 :] << 4
    shape = tuple(q.shape)
    return _joined(scale, halves.reshape(-1, 32)).reshape(*shape[:-1], shape[-1] // 64 * 36)


def _check_e4m3(scale: Any) -> None:
    """Raises NumericsError for scales that ggml reads as other numbers: it has no sign, and NaN is 0."""
    if is_tensor(scale) and not has_values(scale):
        return
    wrong = int((scale >= NAN_E4M3).sum())
    if wrong:
        raise NumericsError(f"{wrong} scales are NaN or below zero, which GGUF's NVFP4 does not have")


@keywords
def from_gguf(blocks: Any, kind: str = "MXFP4", tensor_scale: float | None = None) -> QTensor:
    """Returns the tensor, standing for float32, that `to_gguf` or llama.cpp made blocks of.

    blocks: uint8, a NumPy array or a torch tensor, the last axis whole blocks.  kind: the name of ggml's
    type: MXFP4 (the default), NVFP4, Q8_0, Q4_0.  tensor_scale: of NVFP4, the number beside it, 1 without.
    Raises NumericsError for others, and for a scale byte of 255 in MXFP4, which is NaN in OCP MX and a number
    in ggml, and those of NVFP4 that are not positive numbers.

    >>> import numpy as np
    >>> from_gguf(np.array([127] + [0xF2] * 16, np.uint8)).dequantize()[[0, 15, 16]]
    array([ 1.,  1., -6.], dtype=float32)
    """
    check_kind(blocks, "uint8", "GGUF's blocks")
    known = KINDS[one_of("type of GGUF's", kind, KINDS)]
    shape = tuple(blocks.shape)
    if not shape or shape[-1] % known.nbytes:
        raise NumericsError(f"GGUF's blocks of {kind} are [..., k * {known.nbytes}] bytes, not {shape}")
    lead, count = shape[:-1], shape[-1] // known.nbytes
    rows = blocks.reshape(-1, known.nbytes)
    scale, codes = rows[:, : known.scale], rows[:, known.scale :]
    if kind == "NVFP4":
        whole = (*lead, count * known.values)
        return _of_nvfp4(scale, codes, whole, 1.0 if tensor_scale is None else tensor_scale)
    if tensor_scale is not None:
        raise NumericsError(f"tensor_scale={said(tensor_scale)} belongs to NVFP4, not to {kind}")
    if known.spec.blocked:
        _check_scales(scale)
        scale = scale.clone() if is_tensor(scale) else scale.copy()  # not a view into what came
    else:
        scale = _singles(scale)
    parts = Parts(_packed(codes, known.spec), scale.reshape(*lead, count), None, None,
                  (*lead, count * BLOCK), "float32")  # fmt: skip
    made = ArrayQTensor.fitting(known.spec, parts)  # a scale of NaN or Inf is read as ggml reads it
    return as_tensors(made) if is_tensor(blocks) else made


def _of_nvfp4(scale: Any, codes: Any, shape: tuple[int, ...], tensor_scale: float) -> QTensor:
    _check_e4m3(scale)
    groups = codes.reshape(-1, GROUP // 2)
    whole = _joined(groups & 15, groups >> 4).reshape(shape)
    scales = scale.reshape(*shape[:-1], shape[-1] // GROUP)
    scales = scales.clone() if is_tensor(scales) else scales.copy()
    return QTensor.from_parts(QuantSpec(nvfp4), whole, scales, tensor_scale=tensor_scale)


def _packed(codes: Any, spec: QuantSpec) -> Any:
    """The codes of blocks, [blocks, bytes], as a QTensor has them."""
    if spec.dtype is int8:
        return int8.pack(codes)
    whole = _joined(codes & 15, codes >> 4)
    return fp4.pack(whole) if spec.dtype is mxfp4 else int4.pack(whole ^ 8)


def _halves(scale: Any) -> Any:
    """Scales [blocks, 1] as the bytes of float16, [blocks, 2]."""
    if is_tensor(scale):
        import torch

        half = scale.to(torch.float16).contiguous()  # without blocks an expanded scale has no stride to view
        kept = half.to(scale.dtype) == scale
        found = half.view(torch.uint8)
    else:
        with np.errstate(over="ignore"):
            half = scale.astype(np.float16)
        kept = half.astype(scale.dtype) == scale
        found = half.view(np.uint8)
    if not bool(kept.all()):
        raise NumericsError(
            f"{int((~kept).sum())} of {kept.shape[0]} scales are not float16, as GGUF has them; "
            "quantize with scale_type='float16'"
        )
    return found


def _singles(halves: Any) -> Any:
    """The bytes of float16, [blocks, 2], as scales in float32."""
    if is_tensor(halves):
        import torch

        return halves.contiguous().view(torch.float16).to(torch.float32)
    return np.ascontiguousarray(halves).view(np.float16).astype(np.float32)


def _check_scales(scale: Any) -> None:
    """Raises NumericsError for scales of NaN, where there are values to look at."""
    if is_tensor(scale) and not has_values(scale):
        return
    wrong = scale.reshape(-1) == NAN_SCALE
    count = int(wrong.sum())
    if count:
        raise NumericsError(
            f"{count * BLOCK} values would change: blocks of NaN, the first of them block "
            f"{wrong.tolist().index(True)}, whose scale ggml reads as a number"
        )


def _joined(left: Any, right: Any) -> Any:
    """Two matrices side by side."""
    if not is_tensor(left):
        return np.concatenate((left, right), axis=1)
    import torch

    return torch.cat((left, right), dim=1)
