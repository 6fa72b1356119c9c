"""From one format to another without loss, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from numerics.backends.blocking import check_axis
from numerics.backends.tensors import as_array, is_tensor
from numerics.formats.aliases import dtype as find_dtype
from numerics.formats.block import Block
from numerics.formats.blocks import mxfp4
from numerics.formats.dtype import Dtype, Element
from numerics.formats.errors import NumericsError
from numerics.formats.floats import fp4
from numerics.interop import as_tensors, check_kind
from numerics.quantization import quantize
from numerics.recipe import FOR_INTEGERS, Recipe
from numerics.tensor import ArrayQTensor, QTensor, check_quantized

if TYPE_CHECKING:
    from numerics.subclass import TensorQTensor

GGUF_BYTES = 17  # of a GGUF block of MXFP4: one scale, 32 nibbles
NAN_SCALE = 0xFF  # of E8M0 (OCP MX 1.0 §5.4.1)


def transcode(q: QTensor, dtype: Any) -> QTensor:
    """The same values in another format, bit for bit as `dequantize` computes them; NaN stays NaN.

    Single numbers keep their scheme, scales and zero points.  Blocks of the same size and scale format,
    and microexponents of the same blocks, keep their scales where the codes allow.  Other blocks become
    MX or microexponent blocks when the largest magnitude of each gives a scale with which all others
    are exact too.  Raises NumericsError, which says how many values would change and the first of them,
    where any would, and where the formats share their scales in ways that do not meet.

    >>> import numerics as nx
    >>> q = nx.quantize([1.0, 0.3, -0.05, 5.0], "mxfp4")
    >>> transcode(q, "mxfp8_e4m3"), transcode(q, "mxfp8_e4m3").dequantize()
    (QTensor(mxfp8_e4m3, shape=(4,), axis=-1, 10 bits a value), [1.0, 0.5, -0.0, 4.0])
    """
    check_quantized("transcode", q)
    d = find_dtype(dtype)
    if d is q.format:
        return q
    for way in _ways(q, d):
        made = way(q, d)
        changed = _changed(q, made)
        if not bool(changed.any()):
            return made
    raise _lossy(q, made, changed)


def to_gguf(q: QTensor) -> Any:
    """MXFP4 as GGUF's blocks of it (type 39), row after row: uint8 [..., last axis / 32 * 17].

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
    """The inverse of `to_gguf`: a QTensor that stands for float32.

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
        recipe=Recipe.make(mxfp4), shape=(*lead, count * mxfp4.block),
        packed=fp4.pack(_joined(pairs & 15, pairs >> 4)), shared=scale.reshape(*lead, count),
    )  # fmt: skip
    return as_tensors(made) if is_tensor(blocks) else made


# ---- ways from one format to another ---------------------------------------------------------------


def _ways(q: QTensor, d: Dtype) -> list[Callable[[QTensor, Any], QTensor]]:
    """What may keep the values, the first choice first; raises NumericsError where nothing may."""
    if isinstance(d, Element) and not q.recipe.blocked:
        return [_elements]
    if not (isinstance(d, Block) and q.recipe.blocked):
        raise NumericsError(
            f"{q.format} to {d}: scales of blocks and scales by a scheme do not become each other; "
            "dequantize and quantize instead"
        )
    source = q.recipe.block
    stay = (source.block, source.scale, source.sub_block) == (d.block, d.scale, d.sub_block)
    if d.family != "scaled":
        return [_blocks, _reblocked] if stay else [_reblocked]
    if not stay:
        raise NumericsError(
            f"{source} to {d}: their blocks differ, and no rule finds exact scales in {d.scale}; "
            "dequantize and quantize instead"
        )
    return [_blocks]


def _elements(q: QTensor, d: Element) -> QTensor:
    """Other codes under the same scales and zero points."""
    if q.zero_point is not None:
        _check_zero_point(q, d)
    codes = d.encode(q.recipe.element.decode(q.codes), overflow=d.overflows[-1])
    silent: dict[str, Any] = {} if d.kind == "integer" else FOR_INTEGERS
    recipe = replace(q.recipe, dtype=d, **silent)
    return q.with_parts(recipe, tuple(q.shape), d.pack(codes), q.shared, q.zero_point)


def _check_zero_point(q: QTensor, d: Element) -> None:
    if d.kind != "integer":
        raise NumericsError(f"{q.format} to {d}: a float format has no zero point, and this tensor has one")
    zero = q.zero_point
    outside = (zero < d.min) | (zero > d.max)
    if bool(outside.any()):
        raise NumericsError(
            f"{q.format} to {d}: zero point {float(zero[outside][0]):g} is outside {d.min:g} .. {d.max:g}"
        )


def _blocks(q: QTensor, d: Block) -> QTensor:
    """Other codes under the same scales."""
    before, source = q.blocks, q.recipe.block
    blocks = replace(before, dtype=d, codes=_block_codes(before.codes, source, d))
    recipe = replace(q.recipe, dtype=d)
    return q.with_parts(recipe, tuple(q.shape), d.pack(blocks), q.shared, None)


def _block_codes(codes: Any, source: Block, d: Block) -> Any:
    if source.element is None or d.element is None:
        return _widened(codes, source.mantissa or 0, d.mantissa or 0)
    values = source.element.decode(codes) * (source.element_unit / d.element_unit)
    return d.element.encode(values, overflow=d.element.overflows[-1])


def _widened(codes: Any, before: int, after: int) -> Any:
    """Sign and magnitude with as many bits as the other format has; the first ones weigh the same."""
    wide = codes.int() if is_tensor(codes) else codes.astype(np.int32)
    sign, magnitude = wide >> before, wide & ((1 << before) - 1)
    return sign << after | (magnitude << after) >> before


def _reblocked(q: QTensor, d: Block) -> QTensor:
    """Blocks anew, in MX under the finest scales that do not clip.

    Where any scale is exact this one is, but for the least code of integers, which encoding never
    gives: a finer step has all multiples of a coarser one.
    """
    rule = "rceil" if d.family == "mx" else "floor"
    made = quantize(q.decoded(), d, axis=cast(int, q.axis), scale_rule=rule)
    if isinstance(made, ArrayQTensor):
        return replace(made, original=q.original)
    tensors = cast("TensorQTensor", made)
    return tensors.each(lambda part: part, cast("TensorQTensor", q).dtype)


# ---- what must not change --------------------------------------------------------------------------


def _changed(q: QTensor, made: QTensor) -> Any:
    """Which values differ, NaN compared by class."""
    before, after = q.decoded(), made.decoded()
    return (_bits(before) != _bits(after)) & ((before == before) | (after == after))


def _lossy(q: QTensor, made: QTensor, changed: Any) -> NumericsError:
    wrong, old, new = (
        as_array(x.cpu()) if is_tensor(x) else x for x in (changed, q.decoded(), made.decoded())
    )
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    return NumericsError(
        f"{q.format} to {made.format}: {int(wrong.sum())} of {wrong.size} values would change; "
        f"the first, at {at}, from {old[at]:g} to {new[at]:g}"
    )


def _bits(x: Any) -> Any:
    """As integers: comparing floats would take subnormals for zero where the caller flushes them."""
    kind = f"int{8 * x.dtype.itemsize}"
    if not is_tensor(x):
        return x.view(kind)
    import torch

    return x.view(getattr(torch, kind))


def _check_scales(scale: Any) -> None:
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
