"""Torch operators, `torch.ops.numerics.*`: what tensors go through, eager and compiled alike.

One operator, one row of OPERATORS: its schema, its kernel, what its result looks like (for tracing),
and its gradient.  A kernel asks the backend that owns the tensor (formats/dispatch.py): Numba on the
CPU, Triton on a GPU.  Formats and recipes are texts (formats/text.py, tensor/spec.py); what a
result lacks is an empty tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from operator import attrgetter
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from numerics.backends.host.arrays import FLOATS
from numerics.backends.host.float_bits import to_float32
from numerics.backends.host.hadamard import Rotation
from numerics.backends.host.ieee import ieee_arithmetic
from numerics.backends.host.tensors import as_array, as_tensor, number_of, number_tensor
from numerics.backends.partition import Blocking, check_axis
from numerics.formats import dispatch
from numerics.formats.block import Block, Blocks, PackedBlocks, ScaledBlock, stored_scale
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError, one_of, said
from numerics.formats.protocol import Given
from numerics.formats.protocol import Parts as QuantizedParts
from numerics.formats.rounding import BlockOptions, Draw, Rounding, draw_of
from numerics.formats.text import parse
from numerics.pytorch.autograd import with_gradient, without_gradient
from numerics.pytorch.gradients import within_range
from numerics.pytorch.learned_scales import (
    check_lsq,
    check_tqt,
    learns_zero,
    lsq_gradients,
    lsq_scale,
    lsq_zero,
    tqt_gradients,
    tqt_scale,
)
from numerics.pytorch.second_gradients import of_lsq, of_tqt
from numerics.tensor.arithmetic import Operation
from numerics.tensor.parts import PARTS, check_parts, check_shape
from numerics.tensor.product import COMPUTE, check_int8, columns_times, rows_times
from numerics.tensor.qtensor import ArrayQTensor, float_name
from numerics.tensor.spec import QuantSpec

Parts = tuple[Tensor, Tensor, Tensor, Tensor]
NEAREST = "half_even"
SIGNED = 1 << 63  # operators take signed integers
_float_name = lru_cache(maxsize=64)(float_name)  # of texts, which can be remembered


# ---- elements ------------------------------------------------------------------------------------


def _on_elements(method: str, *rest: None) -> Callable[..., Tensor]:
    """A backend's operation on values, with the options of a rounding."""

    def kernel(
        x: Tensor, dtype: str, rounding: str = NEAREST, overflow: str | None = None, *drawn: Any
    ) -> Tensor:
        d, how = _rounding(dtype, rounding, overflow, *drawn)
        return tensor_of(getattr(dispatch.owner(x), method)(x, d, how, *rest))

    return kernel


def _rounding(
    dtype: str, mode: str, overflow: str | None, seed: int | None = None, bits: Any = None
) -> tuple[Element, Rounding]:
    """A format and a rounding by their texts, checked: operators are called by anybody."""
    d = _element(dtype)
    return d, d.check_options(mode, overflow, _unsigned(seed), bits)


def _decode(codes: Tensor, dtype: str) -> Tensor:
    return tensor_of(dispatch.owner(codes).decode(codes, _element(dtype), None))


def _pack(codes: Tensor, dtype: str) -> Tensor:
    return _apart(tensor_of(dispatch.owner(codes).pack(codes, _element(dtype))), codes)


def _unpack(packed: Tensor, shape: Sequence[int], dtype: str) -> Tensor:
    return _apart(tensor_of(dispatch.owner(packed).unpack(packed, tuple(shape), _element(dtype))), packed)


def _decode_packed(packed: Tensor, shape: Sequence[int], dtype: str) -> Tensor:
    return tensor_of(dispatch.owner(packed).decode_packed(packed, tuple(shape), _element(dtype)))


def _operate(codes: Tensor, *asked: Any) -> Tensor:
    operation, operands = _operation(codes, *asked)
    return cast(Tensor, operation.of_tensors(operands))


def _fake_operate(codes: Tensor, *asked: Any) -> Tensor:
    operation, operands = _operation(codes, *asked)
    return cast(Tensor, operation.like(operands))


def _operation(codes: Tensor, name: str, dtype: str, *asked: Any) -> tuple[Operation, list[Tensor]]:
    """An operation, checked, as operators are called by anybody, and its operands.

    asked: the second and the third operand, to, rounding, overflow, seed and random bits; torch leaves out
    those at the end that are the usual ones.
    """
    second, third, to, mode, overflow, seed, bits = asked + _USUAL[len(asked) :]
    operands = [x for x in (codes, second, third) if x is not None]
    how = mode, overflow, _unsigned(seed), bits
    return Operation.of(name, parse(dtype), len(operands), None if to is None else parse(to), *how), operands


_USUAL: tuple[Any, ...] = (None, None, None, NEAREST, None, None, None)


# ---- blocks --------------------------------------------------------------------------------------


def _encode_blocks(x: Tensor, dtype: str, axis: int = -1, *asked: Any) -> Parts:
    d = _block(dtype)
    made = dispatch.owner(x).encode_blocks(x, d, axis, _block_options(d, *asked), None)
    return _tensors(x, made.codes, made.scale, made.microexponents, made.tensor_scale)


def _decode_blocks(
    codes: Tensor, scale: Tensor, microexponents: Any, tensor_scale: Any, dtype: str, axis: int = -1
) -> Tensor:
    made = Blocks(_block(dtype), axis, codes, scale, microexponents, _number(tensor_scale))
    return tensor_of(dispatch.owner(codes).decode_blocks(made, None))


def _round_blocks(x: Tensor, dtype: str, axis: int = -1, *asked: Any) -> Tensor:
    d = _block(dtype)
    return tensor_of(dispatch.owner(x).round_blocks(x, d, axis, _block_options(d, *asked), None))


def _block_options(
    d: Block, scale_rule: str = "floor", rounding: str = NEAREST, tensor_scale: float | None = None,
    *drawn: Any,
) -> BlockOptions:  # fmt: skip
    """What an operator is called with, as options that are checked: operators are called by anybody."""
    return d.check_options(BlockOptions(scale_rule, rounding, tensor_scale, _draw(*drawn)))


def _pack_blocks(codes: Tensor, scale: Tensor, microexponents: Any, dtype: str, axis: int = -1) -> Tensor:
    made = Blocks(_block(dtype), axis, codes, scale, microexponents)
    return _apart(tensor_of(dispatch.owner(codes).pack_blocks(made)), codes)


def _unpack_blocks(packed: Tensor, scale: Any, shape: Sequence[int], dtype: str, axis: int = -1) -> Parts:
    stored = PackedBlocks(_block(dtype), axis, tuple(shape), packed, scale)
    made = dispatch.owner(packed).unpack_blocks(stored)
    beside = None if scale is not None else made.scale
    codes, found, micro, _ = _tensors(packed, made.codes, beside, made.microexponents, None)
    return _apart(codes, packed), found, micro, packed.new_empty(0, dtype=torch.uint8)


# ---- tensors with their scales -------------------------------------------------------------------


def _quantize(
    x: Tensor, recipe: str, scale: Any = None, zero_point: Any = None, seed: int | None = None,
    bits: Any = None, tensor_scale: Any = None,
) -> Parts:  # fmt: skip
    spec, draw = _asked(recipe, seed, bits)
    given = Given(scale, zero_point, _of_tensor(tensor_scale))
    made = dispatch.owner(x).quantize(x, spec, given, draw)
    return _tensors(x, made.packed, made.shared, made.zero_point, made.tensor_scale)


def _dequantize(
    packed: Tensor, scale: Any, zero_point: Any, tensor_scale: Any, shape: Sequence[int], recipe: str,
    original: str, dtype: str,
) -> Tensor:  # fmt: skip
    owner, spec = dispatch.owner(packed), QuantSpec.parse(recipe)
    arrays = owner.native((packed, scale, zero_point))
    parts = QuantizedParts._make((*arrays, _number(tensor_scale), tuple(shape), original))
    check_parts(spec, parts.shape, original, dict(zip(PARTS, parts, strict=False)))
    return tensor_of(owner.dequantize(parts, spec, _float_name(dtype)))


def _linear(x: Tensor, *asked: Any) -> Tensor:
    """x times a QTensor of two dimensions by its parts; across: its rows are summed, as a gradient's are."""
    *parts, shape, recipe, original, bias, across, compute = _product_asked(asked)
    q = matrix_of(parts, check_shape(shape), QuantSpec.parse(recipe), original)
    return times(x, q, bias, across, compute)


def _product_asked(asked: tuple[Any, ...]) -> tuple[Any, ...]:
    """Seven arguments of a product, and the three that torch leaves out where they are the usual ones."""
    return (*asked, *(None, False, "float32")[len(asked) - 7 :])


def matrix_of(parts: Sequence[Any], shape: tuple[int, ...], spec: QuantSpec, original: str) -> ArrayQTensor:
    """The same QTensor of the backend's arrays; raises NumericsError for parts that do not fit together."""
    owner, number = dispatch.owner(parts[0]), _number(parts[3])
    packed, shared, zero = owner.native(parts[:3])
    return ArrayQTensor.fitting(spec, QuantizedParts(packed, shared, zero, number, shape, original))


def times(x: Tensor, q: ArrayQTensor, bias: Tensor | None, across: bool, compute: str = "float32") -> Tensor:
    """x (..., length) times the rows of q, plus a bias; across: x (..., rows) times q."""
    _check_linear(x, q.shape, bias, across)
    return multiplied(x, q, bias, across, compute)


def multiplied(x: Tensor, q: ArrayQTensor, bias: Tensor | None, across: bool, compute: str) -> Tensor:
    """`times` of what is known to fit together."""
    if compute != "float32" and one_of("compute", compute, COMPUTE) == "int8":
        check_int8(q, _name(x.dtype))
    data, added = to_float32(as_array(x)), None if bias is None else to_float32(as_array(bias))
    rows = np.ascontiguousarray(data).reshape(math.prod(data.shape[:-1]), data.shape[-1])
    found = as_tensor(columns_times(rows, q) if across else rows_times(rows, q, added, compute))
    found = found if x.ndim == 2 else found.reshape(*x.shape[:-1], found.shape[-1])
    return found if x.dtype == torch.float32 else found.to(x.dtype)


def _check_linear(x: Tensor, shape: Sequence[int], bias: Tensor | None, across: bool) -> None:
    """Raises NumericsError unless x, a matrix of that shape and a bias fit together."""
    if _name(x.dtype) not in FLOATS[:3]:
        raise NumericsError(f"x of {_name(x.dtype)} cannot be multiplied; allowed: {', '.join(FLOATS[:3])}")
    if len(shape) != 2 or x.ndim < 1 or x.shape[-1] != shape[0 if across else 1]:
        raise NumericsError(f"x of shape {tuple(x.shape)} does not fit a matrix of shape {tuple(shape)}")
    if bias is not None and (across or tuple(bias.shape) != (shape[0],) or bias.dtype != x.dtype):
        raise NumericsError(f"bias is {_name(bias.dtype)} of shape {tuple(bias.shape)}; {_name(x.dtype)} of "
                            f"shape ({shape[0]},) is due")  # fmt: skip


def _fake_linear(x: Tensor, *asked: Any) -> Tensor:
    _, _, _, _, shape, _, _, bias, across, _ = _product_asked(asked)
    _check_linear(x, check_shape(shape), bias, across)
    return x.new_empty((*x.shape[:-1], shape[1] if across else shape[0]))


def _fake_quantize(
    x: Tensor, recipe: str, scale: Any = None, zero_point: Any = None, seed: int | None = None,
    bits: Any = None, clip_gradient: bool = False, tensor_scale: Any = None,
) -> Tensor:  # fmt: skip
    spec, draw = _asked(recipe, seed, bits)
    given = Given(scale, zero_point, _of_tensor(tensor_scale))
    return _apart(tensor_of(dispatch.owner(x).fake_quantize(x, spec, given, draw)), x)


def _of_tensor(scale: Any) -> float | None:
    """A tensor's scale as a backend takes it, checked; where subnormals are flushed it would be read as 0."""
    if scale is None:
        return None
    with ieee_arithmetic():
        return stored_scale(scale)


def _asked(recipe: str, seed: int | None, bits: Any) -> tuple[QuantSpec, Draw]:
    """What a backend takes, its randomness checked: operators are called by anybody."""
    if seed is None and bits is None:
        return _asked_alone(recipe)
    spec = QuantSpec.parse(recipe)
    return spec, draw_of(spec.rounding, _unsigned(seed), bits)


@lru_cache(maxsize=1024)
def _asked_alone(recipe: str) -> tuple[QuantSpec, Draw]:
    spec = QuantSpec.parse(recipe)
    return spec, draw_of(spec.rounding, None, None)


def _hadamard(x: Tensor, size: int, signs: Any = None, inverse: bool = False) -> Tensor:
    return _apart(tensor_of(dispatch.owner(x).hadamard(x, rotation_of(size, signs, inverse))), x)


@lru_cache(maxsize=256)
def _rotation(size: int, signs: tuple[int, ...] | None, inverse: bool) -> Rotation:
    return Rotation(size, signs, inverse)


def rotation_of(size: int, signs: Sequence[int] | None, inverse: bool) -> Rotation:
    """The rotation of an operator's arguments, made once."""
    return _rotation(size, None if signs is None else tuple(signs), inverse)


# ---- tensors with scales that are learned ----------------------------------------------------------


def _tqt(x: Tensor, log2_threshold: Tensor, recipe: str) -> Tensor:
    d, _ = check_tqt(x, log2_threshold, recipe)
    return _fake_quantize(x, recipe, tqt_scale(log2_threshold, d))


def _lsq(x: Tensor, scale: Tensor, zero_point: Tensor | None, recipe: str) -> Tensor:
    d, _ = check_lsq(x, scale, zero_point, recipe)
    if isinstance(d, ScaledBlock):
        return _fake_quantize(x, recipe, tensor_scale=lsq_scale(scale))
    if zero_point is not None and learns_zero(recipe):
        zero_point = lsq_zero(zero_point, d)
    return _fake_quantize(x, recipe, lsq_scale(scale), zero_point)


# ---- what results look like ----------------------------------------------------------------------


def _codes_like(x: Tensor, d: Any) -> Tensor:
    return x.new_empty(x.shape, dtype=getattr(torch, d.code_dtype))


def _plain_like(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _bytes(like: Tensor, count: int) -> Tensor:
    return like.new_empty(count, dtype=torch.uint8)


def _looks(fake: Callable[..., Any], of_values: bool, x: Tensor, *rest: Any) -> Any:
    """What a result looks like.

    of_values: the operator takes values, not codes or bytes.  Raises NumericsError for an x of the other
    kind, and where the result would have no values beside an x that has.
    """
    if not isinstance(x, Tensor):
        raise NumericsError(f"the first argument is a tensor, not {said(x)}")
    if x.is_meta and (_name(x.dtype) in FLOATS) != of_values:
        raise NumericsError(f"cannot {'compute with' if of_values else 'decode'} {_name(x.dtype)} data")
    for beside in rest:
        if isinstance(beside, Tensor) and beside.is_meta and not x.is_meta:
            raise NumericsError(f"x is on {x.device}, what is given beside it on {beside.device}")
    return fake(x, *rest)


def _fake_encode_blocks(x: Tensor, dtype: str, axis: int = -1, *_: Any) -> Parts:
    d = _block(dtype)
    shape = _blocking(d, x.shape, axis).shared_shape
    micro = x.new_empty(shape if d.sub_blocks else 0, dtype=getattr(torch, d.micro_dtype))
    scale = x.new_empty(shape, dtype=_scale_type(d))
    number = x.new_empty((), dtype=torch.float32)
    tensor_scale = number if d.has_tensor_scale else x.new_empty(0, dtype=torch.uint8)
    return _codes_like(x, d), scale, micro, tensor_scale


def _fake_pack_blocks(codes: Tensor, _: Tensor, __: Any, dtype: str, axis: int = -1) -> Tensor:
    return _bytes(codes, QuantSpec(_block(dtype), axis=axis).packed_bytes(codes.shape))


def _fake_unpack_blocks(
    packed: Tensor, scale: Any, shape: Sequence[int], dtype: str, axis: int = -1
) -> Parts:
    d = _block(dtype)
    shared = _blocking(d, check_shape(shape), axis).shared_shape
    codes = packed.new_empty(tuple(shape), dtype=getattr(torch, d.code_dtype))
    beside = packed.new_empty(shared if scale is None else 0, dtype=torch.uint8)
    micro = packed.new_empty(shared if d.sub_blocks else 0, dtype=getattr(torch, d.micro_dtype))
    return codes, beside, micro, packed.new_empty(0, dtype=torch.uint8)


def _fake_quantize_parts(x: Tensor, recipe: str, *_: Any) -> Parts:
    r, shape = QuantSpec.parse(recipe), tuple(x.shape)
    packed, nothing = _bytes(x, r.packed_bytes(shape)), x.new_empty(0, dtype=torch.uint8)
    if r.blocked:
        d = r.block
        shared = nothing
        if d.scale_beside:
            shared = x.new_empty(r.blocking(shape).shared_shape, dtype=_scale_type(d))
        tensor_scale = x.new_empty((), dtype=torch.float32) if d.has_tensor_scale else nothing
        return packed, shared, nothing.clone(), tensor_scale
    wide = r.stored_scale_type(_name(x.dtype)) == "float64"
    fields = r.partition(shape).shared
    scale = x.new_empty(fields, dtype=torch.float64 if wide else torch.float32)
    zero = nothing if r.symmetric else x.new_empty(fields, dtype=getattr(torch, r.zero_point_type))
    return packed, scale, zero, nothing.clone()


def _fake_tqt(x: Tensor, log2_threshold: Tensor, recipe: str) -> Tensor:
    check_tqt(x, log2_threshold, recipe)
    return _plain_like(x)


def _fake_tqt_backward(
    gradient: Tensor, x: Tensor, log2_threshold: Tensor, recipe: str
) -> tuple[Tensor, Tensor]:
    check_tqt(x, log2_threshold, recipe, gradient)
    return _plain_like(gradient), _plain_like(log2_threshold)


def _fake_lsq(x: Tensor, scale: Tensor, zero_point: Tensor | None, recipe: str) -> Tensor:
    check_lsq(x, scale, zero_point, recipe)
    return _plain_like(x)


def _fake_lsq_backward(
    gradient: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor | None, recipe: str
) -> tuple[Tensor, Tensor, Tensor]:
    check_lsq(x, scale, zero_point, recipe, gradient)
    learned = zero_point is not None and learns_zero(recipe)
    of_zero = _plain_like(cast(Tensor, zero_point)) if learned else x.new_empty(0)
    return _plain_like(gradient), _plain_like(scale), of_zero


# ---- gradients -----------------------------------------------------------------------------------


def _straight_through(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    """Returns the gradient as if nothing had been rounded (arXiv 1308.3432)."""
    return (gradient, *[None] * ctx.others)


def _count_arguments(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.others = len(inputs) - 1


def _keep_input(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, ctx.spec, scale, zero_point, _, _, ctx.clip, tensor_scale = inputs
    ctx.others = len(inputs) - 1
    if ctx.clip:
        ctx.save_for_backward(x, scale, zero_point, tensor_scale)


def _clipped(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    """Straight through, where asked only within the range of the format."""
    if ctx.clip:
        x, *given = ctx.saved_tensors
        inside = torch.ops.numerics.within_range(x, ctx.spec, *given)
        gradient = torch.where(inside, gradient, 0.0)
    return (gradient, *[None] * ctx.others)


def _keep_rotation(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.rotation = (*inputs[1:], *(None, False)[len(inputs) - 2 :])


def _hadamard_gradients(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    """The transposed matrix is the way back, but for a power of two."""
    size, signs, inverse = ctx.rotation
    back = torch.ops.numerics.hadamard(gradient, size, signs, not inverse)
    there, other = (rotation_of(size, signs, way).scale for way in (inverse, not inverse))
    return back * (there / other), None, None, None


def _keep_learned(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.spec = inputs
    ctx.save_for_backward(*tensors)


def _tqt_gradients(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    return (*torch.ops.numerics.tqt_backward(gradient, *ctx.saved_tensors, ctx.spec), None)


def _lsq_gradients(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    found = torch.ops.numerics.lsq_backward(gradient, *ctx.saved_tensors, ctx.spec)
    of_zero = found[2] if ctx.needs_input_grad[2] and found[2].numel() else None
    return (*found[:2], of_zero, None)


def _keep_matrix(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, *parts, ctx.shape, ctx.recipe, ctx.original, ctx.bias, ctx.across, _ = inputs
    ctx.bias = ctx.bias is not None
    ctx.save_for_backward(*parts)


def _linear_gradients(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    """The gradient of x reads the codes, too; that of a bias is a sum; codes have none."""
    matrix = *ctx.saved_tensors, ctx.shape, ctx.recipe, ctx.original
    of_x = torch.ops.numerics.linear(gradient, *matrix, None, not ctx.across)
    of_bias = gradient.reshape(-1, gradient.shape[-1]).sum(0) if ctx.bias else None
    return (of_x, *[None] * 7, of_bias, None, None)


# ---- the table -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operator:
    """One operator: `name(arguments) -> results`, how it is computed, traced and differentiated."""

    schema: str
    kernel: Callable[..., Any]
    fake: Callable[..., Any]
    backward: Callable[..., Any] | None = None
    keep: Callable[..., Any] = _count_arguments
    fixed: tuple[int, ...] = ()
    """Arguments, by their places, to which no gradient comes, of an operator that has one."""


_DRAW = "int? seed=None, Tensor? random_bits=None"
_ROUND = f"str rounding='half_even', str? overflow=None, {_DRAW}"
_BLOCK = (
    "str dtype, int axis=-1, str scale_rule='floor', str rounding='half_even', "
    f"float? tensor_scale=None, {_DRAW}"
)
_OF_TENSOR = "Tensor? tensor_scale=None"
_GIVEN = f"str recipe, Tensor? scale=None, Tensor? zero_point=None, {_DRAW}"

OPERATORS: dict[str, Operator] = {
    "encode": Operator(
        f"(Tensor x, str dtype, {_ROUND}) -> Tensor", _on_elements("encode", None),
        lambda x, d, *_: _codes_like(x, parse(d))
    ),
    "decode": Operator(
        "(Tensor codes, str dtype) -> Tensor", _decode, lambda c, d: c.new_empty(c.shape, dtype=torch.float32)
    ),
    "round": Operator(
        f"(Tensor x, str dtype, {_ROUND}) -> Tensor", _on_elements("round", None),
        lambda x, *_: _plain_like(x), _straight_through
    ),
    "pack": Operator(
        "(Tensor codes, str dtype) -> Tensor", _pack,
        lambda codes, d: _bytes(codes, -(-codes.numel() * _element(d).bits // 8)),
    ),
    "unpack": Operator(
        "(Tensor packed, SymInt[] shape, str dtype) -> Tensor", _unpack,
        lambda packed, shape, d: _codes_like(packed.new_empty(check_shape(shape)), _element(d)),
    ),
    "encode_packed": Operator(
        f"(Tensor x, str dtype, {_ROUND}) -> Tensor", _on_elements("encode_packed"),
        lambda x, d, *_: _bytes(x, -(-x.numel() * _element(d).bits // 8)),
    ),
    "decode_packed": Operator(
        "(Tensor packed, SymInt[] shape, str dtype) -> Tensor", _decode_packed,
        lambda packed, shape, d: packed.new_empty(check_shape(shape), dtype=torch.float32),
    ),
    "operate": Operator(
        "(Tensor codes, str operation, str dtype, Tensor? second=None, Tensor? third=None, str? to=None, "
        f"{_ROUND}) -> Tensor",
        _operate, _fake_operate,
    ),
    "encode_blocks": Operator(
        f"(Tensor x, {_BLOCK}) -> (Tensor, Tensor, Tensor, Tensor)", _encode_blocks, _fake_encode_blocks
    ),
    "decode_blocks": Operator(
        "(Tensor codes, Tensor scale, Tensor? microexponents, Tensor? tensor_scale, str dtype, int axis=-1)"
        " -> Tensor",
        _decode_blocks, lambda codes, *_: codes.new_empty(codes.shape, dtype=torch.float32),
    ),
    "round_blocks": Operator(
        f"(Tensor x, {_BLOCK}) -> Tensor", _round_blocks, lambda x, *_: _plain_like(x), _straight_through
    ),
    "pack_blocks": Operator(
        "(Tensor codes, Tensor scale, Tensor? microexponents, str dtype, int axis=-1) -> Tensor",
        _pack_blocks, _fake_pack_blocks,
    ),
    "unpack_blocks": Operator(
        "(Tensor packed, Tensor? scale, SymInt[] shape, str dtype, int axis=-1)"
        " -> (Tensor, Tensor, Tensor, Tensor)",
        _unpack_blocks, _fake_unpack_blocks,
    ),
    "quantize": Operator(
        f"(Tensor x, {_GIVEN}, {_OF_TENSOR}) -> (Tensor, Tensor, Tensor, Tensor)",
        _quantize, _fake_quantize_parts,
    ),
    "dequantize": Operator(
        "(Tensor packed, Tensor? scale, Tensor? zero_point, Tensor? tensor_scale, SymInt[] shape, "
        "str recipe, str original, str dtype) -> Tensor",
        _dequantize,
        lambda packed, _, __, ___, shape, ____, _____, dtype: packed.new_empty(
            check_shape(shape), dtype=getattr(torch, float_name(dtype))
        ),
    ),
    "linear": Operator(
        "(Tensor x, Tensor packed, Tensor? scale, Tensor? zero_point, Tensor? tensor_scale, SymInt[] shape, "
        "str recipe, str original, Tensor? bias=None, bool across=False, str compute='float32') -> Tensor",
        _linear, _fake_linear, _linear_gradients, _keep_matrix, fixed=(1, 2, 3, 4),
    ),
    "fake_quantize": Operator(
        f"(Tensor x, {_GIVEN}, bool clip_gradient=False, {_OF_TENSOR}) -> Tensor", _fake_quantize,
        lambda x, *_: _plain_like(x), _clipped, _keep_input, fixed=(2, 3, 7),
    ),
    "hadamard": Operator(
        "(Tensor x, int size, int[]? signs=None, bool inverse=False) -> Tensor", _hadamard,
        lambda x, *_: _plain_like(x), _hadamard_gradients, _keep_rotation,
    ),
    "within_range": Operator(
        f"(Tensor x, str recipe, Tensor? scale=None, Tensor? zero_point=None, {_OF_TENSOR}) -> Tensor",
        within_range,
        lambda x, *_: x.new_empty(x.shape, dtype=torch.bool),
    ),
    "tqt": Operator(
        "(Tensor x, Tensor log2_threshold, str recipe) -> Tensor", _tqt,
        _fake_tqt, _tqt_gradients, _keep_learned,
    ),
    "tqt_backward": Operator(
        "(Tensor gradient, Tensor x, Tensor log2_threshold, str recipe) -> (Tensor, Tensor)", tqt_gradients,
        _fake_tqt_backward, of_tqt, _keep_learned,
    ),
    "lsq": Operator(
        "(Tensor x, Tensor scale, Tensor? zero_point, str recipe) -> Tensor", _lsq,
        _fake_lsq, _lsq_gradients, _keep_learned,
    ),
    "lsq_backward": Operator(
        "(Tensor gradient, Tensor x, Tensor scale, Tensor? zero_point, str recipe)"
        " -> (Tensor, Tensor, Tensor)",
        lsq_gradients, _fake_lsq_backward, of_lsq, _keep_learned,
    ),
}  # fmt: skip


def _define(name: str, operator: Operator) -> None:
    of_values = operator.schema.startswith(("(Tensor x", "(Tensor gradient"))
    library.define(name + operator.schema)
    library.impl(name, operator.kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"numerics::{name}", partial(_looks, operator.fake, of_values), lib=library)
    op = getattr(torch.ops.numerics, name).default
    if operator.backward is not None:
        found = with_gradient(op, operator.backward, operator.keep, operator.fixed)
        library.impl(name, found, "Autograd", with_keyset=True)
    elif name != "within_range":  # whose answers are no values, as those of torch's comparisons
        library.impl(name, without_gradient(op), "Autograd", with_keyset=True)


def run(name: str, *arguments: Any) -> Any:
    """An operator's results; by its kernel where torch does not look on, whose way there takes longer."""
    tensors = [given for given in arguments if isinstance(given, Tensor)]
    if is_watched() or not have_memory(tensors) or are_recorded(tensors):
        return called(name, *arguments)
    return OPERATORS[name].kernel(*arguments)


def called(name: str, *arguments: Any) -> Any:
    """An operator's results by torch; raises NumericsError where parts of a QTensor are to learn."""
    if OPERATORS[name].backward is None and not torch.compiler.is_compiling():
        parts = arguments[1:] if OPERATORS[name].schema.startswith("(Tensor x") else arguments
        check_fixed(name, [given for given in parts if isinstance(given, Tensor)])
    return getattr(torch.ops.numerics, name)(*arguments)


def check_fixed(what: str, tensors: Collection[Any]) -> None:
    """Raises NumericsError for what is to learn: autograd would be silent, and it would wait."""
    if _learn(tensors):
        raise NumericsError(
            f"{what}: packed codes, scales or zero points that are given require a gradient, and none comes "
            "to them: requires_grad_(False); numerics.train.LSQ and TQT learn scales"
        )


def is_watched() -> bool:
    """Does anybody look at every function or operator of torch?"""
    return bool(torch._C._len_torch_function_stack()) or is_traced()


def is_traced() -> bool:
    """Does a compiler, a mode of torch's, or a transformation, look at every operator?"""
    return (
        torch.compiler.is_compiling()
        or bool(torch._C._len_torch_dispatch_stack())
        or torch._C._functorch.maybe_current_level() is not None
        or torch._C._get_tracing_state() is not None
    )


def have_memory(tensors: Collection[Any]) -> bool:
    """Are they torch's own, with values?"""
    return PLAIN.issuperset(map(type, tensors)) and not any(map(_is_meta, tensors))


def are_recorded(tensors: Collection[Any]) -> bool:
    """Is one of them to have a gradient, or could it have a tangent?"""
    return _learn(tensors) or forward_ad._current_level >= 0


def _learn(tensors: Collection[Any]) -> bool:
    return torch.is_grad_enabled() and any(map(_requires_grad, tensors))


PLAIN = frozenset((Tensor, torch.nn.Parameter))
_is_meta, _requires_grad = attrgetter("is_meta"), attrgetter("requires_grad")


# ---- tensors and the backends' arrays ------------------------------------------------------------


def tensor_of(x: Any) -> Tensor:
    """What a backend made, as a tensor."""
    return as_tensor(np.asarray(x)) if isinstance(x, (np.ndarray, np.generic)) else x


def _tensors(like: Tensor, *parts: Any) -> Parts:
    """Parts as tensors; empty ones for what is not there, and a number as a tensor of one."""
    found = []
    for part in parts:
        if part is None:
            found.append(like.new_empty(0, dtype=torch.uint8))
        elif isinstance(part, float):
            found.append(number_tensor(part, like.device))
        elif isinstance(part, Tensor):
            found.append(part)
        else:
            found.append(as_tensor(np.asarray(part)))
    return cast(Parts, tuple(found))


def _apart(x: Tensor, source: Tensor) -> Tensor:
    """x in memory of its own: an operator's result is no view of its argument."""
    return x.clone() if torch._C._is_alias_of(x, source) else x  # type: ignore[attr-defined] # is not in its stubs


def _draw(seed: int | None = None, bits: Any = None) -> Draw:
    return Draw(_unsigned(seed), bits)


def _unsigned(seed: int | None) -> int | None:
    return seed if seed is None or seed >= 0 else seed + 2 * SIGNED


def _number(x: Tensor | None) -> float | None:
    if x is not None and (x.dtype != torch.float32 or x.numel() != 1 or x.is_meta):
        came = f"{_name(x.dtype)} of shape {tuple(x.shape)} on {x.device}"
        raise NumericsError(f"tensor_scale must be float32 of shape (), not {came}")
    return None if x is None else number_of(x)


def _element(text: str) -> Element:
    found = parse(text)
    if not isinstance(found, Element):
        raise NumericsError(f"{found} is a block format; this operator takes one of single numbers")
    return found


def _block(text: str) -> Block:
    found = parse(text)
    if not isinstance(found, Block):
        raise NumericsError(f"{found} is not a block format")
    return found


def _blocking(d: Block, shape: Sequence[int], axis: int) -> Blocking:
    return Blocking(tuple(shape), check_axis(axis, tuple(shape)), d.block)


def _scale_type(d: Block) -> torch.dtype:
    return cast(torch.dtype, getattr(torch, d.scale_code_dtype))


def _name(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


library = torch.library.Library("numerics", "DEF")
for _name_, _operator in OPERATORS.items():
    _define(_name_, _operator)
