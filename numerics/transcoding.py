"""From one format to another without loss, or not at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from numerics.backends.host.tensors import as_array, has_values, is_tensor
from numerics.formats.arguments import keywords
from numerics.formats.block import Block, ElementBlock, ScaledBlock, no_tensor_scale, stored_scale
from numerics.formats.dtype import Dtype, Element
from numerics.formats.errors import NumericsError, digits
from numerics.formats.registry import dtype as find_dtype
from numerics.quantization import quantize
from numerics.tensor.qtensor import ArrayQTensor, QTensor, check_quantized

if TYPE_CHECKING:
    from numerics.pytorch.qtensor import TensorQTensor


@keywords
def transcode(q: QTensor, dtype: Any = None, *, tensor_scale: Any = None) -> QTensor:
    """Returns the same values in another format, bit for bit as `dequantize` computes them; NaN stays NaN.

    q: a QTensor.  dtype: the other format, or its name; None (the default) for q's own.
    tensor_scale: of blocks with float scales, as NVFP4: another scale of the tensor, under which the scales
        of the blocks make up for it; a positive float32 number.  They can where the ratio of both is a power
        of two and no block's scale leaves its format; for a scale that several tensors share, quantize them
        with tensor_scale= the largest of theirs (docs/formats.md §8).
    Single numbers keep their scheme, scales and zero points.  Blocks of the same size and scale format,
    and microexponents of the same blocks, keep their scales where the codes allow; blocks with float scales
    become those of another float format of scales that has the same numbers.  Other blocks become
    MX or microexponent blocks when the largest magnitude of each gives a scale with which all others
    are exact too.  Raises NumericsError, which says how many values would change and the first of them,
    where any would, and where the formats share their scales in ways that do not meet.

    >>> import numerics as nx
    >>> q = nx.quantize([1.0, 0.3, -0.05, 5.0], "mxfp4")
    >>> transcode(q, "mxfp8_e4m3"), transcode(q, "mxfp8_e4m3").dequantize()
    (QTensor(mxfp8_e4m3, shape=(4,), axis=-1, 10 bits a value), [1.0, 0.5, -0.0, 4.0])
    >>> q = nx.quantize([0.5, 6.0], "nvfp4", tensor_scale=0.25)
    >>> q.scale.tolist(), transcode(q, tensor_scale=0.5).scale.tolist()
    ([72], [64])
    """
    check_quantized("transcode", q)
    found = q if dtype is None else _in_format(q, find_dtype(dtype))
    return found if tensor_scale is None else _under(found, tensor_scale)


def _in_format(q: QTensor, d: Dtype) -> QTensor:
    """The same values in that format; raises NumericsError where it does not have them."""
    if d is q.format:
        return q
    if is_tensor(q.packed) and not has_values(q.packed):
        raise NumericsError(
            f"{q.format} to {d}: the tensor is on {q.packed.device} and has no values to compare"
        )
    for way in _ways(q, d):
        made = way(q, d)
        changed = _changed(q, made)
        if not bool(changed.any()):
            return made
    raise _lossy(q, made, changed)


def _under(q: QTensor, tensor_scale: Any) -> QTensor:
    """The same values under another scale of the tensor; raises NumericsError where any would change."""
    if not (q.spec.blocked and q.spec.block.has_tensor_scale):
        raise no_tensor_scale(q.format)
    scale, blocks, number = cast(ScaledBlock, q.spec.block).scale, q.blocks, stored_scale(tensor_scale)
    ratio = cast(float, blocks.tensor_scale) / number
    beside = scale.encode(scale.decode(blocks.scale) * ratio)
    made = QTensor.from_parts(q.spec, blocks.codes, beside, tensor_scale=number, original=q.original)
    changed = int(_changed(q, made).sum())
    if changed:
        raise NumericsError(
            f"{q.format}: tensor_scale={digits(number)} would change {changed} of {math.prod(q.shape)} "
            f"values; nx.quantize(q.dequantize(), q.spec, tensor_scale=...) rounds them again"
        )
    return made


# ---- ways from one format to another ---------------------------------------------------------------


def _ways(q: QTensor, d: Dtype) -> list[Callable[[QTensor, Any], QTensor]]:
    """What may keep the values, the first choice first; raises NumericsError where nothing may."""
    if isinstance(d, Element) and not q.spec.blocked:
        return [_elements]
    if not (isinstance(d, Block) and q.spec.blocked):
        raise NumericsError(
            f"{q.format} to {d}: scales of blocks and scales by a scheme do not become each other; "
            "dequantize and quantize instead"
        )
    source = q.spec.block
    stay = source.sharing == d.sharing
    if not isinstance(d, ScaledBlock):
        return [_blocks, _reblocked] if stay else [_reblocked]
    if not stay and isinstance(source, ScaledBlock) and source.block == d.block:
        return [_rescaled]
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
    codes = d.encode(q.spec.element.decode(q.codes), overflow=d.overflows[-1])
    return q.with_parts(q.spec.with_dtype(d), tuple(q.shape), d.pack(codes), q.shared, q.zero_point)


def _check_zero_point(q: QTensor, d: Element) -> None:
    if d.kind != "integer":
        raise NumericsError(f"{q.format} to {d}: a float format has no zero point, and this tensor has one")
    zero = q.zero_point
    outside = (zero < d.min) | (zero > d.max)
    if bool(outside.any()):
        first = digits(float(zero[outside][0]))
        raise NumericsError(f"{q.format} to {d}: zero point {first} is outside {d.min:g} .. {d.max:g}")


def _blocks(q: QTensor, d: Block) -> QTensor:
    """Other codes under the same scales."""
    before, source = q.blocks, q.spec.block
    blocks = replace(before, dtype=d, codes=_block_codes(before.codes, source, d))
    return q.with_parts(q.spec.with_dtype(d), tuple(q.shape), d.pack(blocks), q.shared, None)


def _rescaled(q: QTensor, d: Block) -> QTensor:
    """Other codes under the same scales in another format of scales, which may not have all of them."""
    before, source, made = q.blocks, cast(ScaledBlock, q.spec.block), cast(ScaledBlock, d)
    scales = source.scale.decode(before.scale)
    beside = made.scale.encode(scales, overflow=made.scale.overflows[-1])
    codes = _block_codes(before.codes, source, d)
    return QTensor.from_parts(
        q.spec.with_dtype(d), codes, beside, tensor_scale=before.tensor_scale, original=q.original
    )


def _block_codes(codes: Any, source: Block, d: Block) -> Any:
    if isinstance(source, ElementBlock) and isinstance(d, ElementBlock):
        values = source.element.decode(codes) * (source.element_unit / d.element_unit)
        return d.element.encode(values, overflow=d.element.overflows[-1])
    return _widened(codes, source.element_bits - 1, d.element_bits - 1)  # beside the sign


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
    rule = "rceil" if "rceil" in d.scale_rules else "floor"
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
        f"the first, at {at}, from {digits(old[at])} to {digits(new[at])}"
    )


def _bits(x: Any) -> Any:
    """Returns floats as integers: comparing floats takes subnormals for zero where the caller flushes."""
    kind = f"int{8 * x.dtype.itemsize}"
    if not is_tensor(x):
        return x.view(kind)
    import torch

    return x.view(getattr(torch, kind))
