"""What a call with a torch tensor goes to: torch's operators (operators.py), and QTensors as tensors.

`TorchDispatch` is the backend of torch's own dispatch: gradients pass, torch.compile sees
one operator, and the operator finds the backend that owns the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from numerics.backends.host.tensors import check_dense, given_tensor, number_of, number_tensor
from numerics.backends.partition import as_shape, check_axis
from numerics.formats import dispatch
from numerics.formats.block import Block, Blocks
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError
from numerics.formats.protocol import Given
from numerics.formats.rounding import Draw, Rounding
from numerics.formats.text import text_of
from numerics.pytorch import kept_ops as _kept  # noqa: F401 - what QTensors do is known with them
from numerics.pytorch.operators import SIGNED
from numerics.pytorch.qtensor import TensorQTensor
from numerics.tensor.spec import QuantSpec

_ops = torch.ops.numerics


def _of_values(verb: str, gradient: bool = False) -> Callable[..., Any]:
    """An operation on values: codes have no gradient, values that went through a format keep theirs."""

    def call(self: TorchDispatch, x: Tensor, dtype: Element, rounding: Rounding, out: Any = None) -> Any:
        check_dense(x)
        if out is None:
            source = x if gradient else x.detach()
            return getattr(_ops, verb)(source, text_of(dtype), *_rounded(x, rounding))
        if gradient:
            _check_graph(x)
        getattr(dispatch.owner(x), verb)(x, dtype, rounding, out)
        return out

    return call


def _of_codes(verb: str) -> Callable[..., Any]:
    """An operation on codes."""

    def call(self: TorchDispatch, codes: Tensor, dtype: Element, out: Any = None) -> Any:
        check_dense(codes)
        if out is None:
            return getattr(_ops, verb)(codes, text_of(dtype))
        getattr(dispatch.owner(codes), verb)(codes, dtype, out)
        return out

    return call


def _of_bytes(verb: str) -> Callable[..., Any]:
    """An operation on packed bytes, whose shape stands beside them."""

    def call(self: TorchDispatch, packed: Tensor, shape: Any, dtype: Element) -> Any:
        check_dense(packed)
        return getattr(_ops, verb)(packed, _sizes(shape), text_of(dtype))

    return call


class TorchDispatch:
    """A Backend of tensors, through torch's operators; with `out`, straight to the owner."""

    name = "torch"

    def check(self) -> None:
        """Torch is there: a tensor came."""

    def owns(self, x: Any) -> bool:
        """Tensors, whatever their device."""
        return isinstance(x, Tensor)

    encode, encode_packed = _of_values("encode"), _of_values("encode_packed")
    round = _of_values("round", gradient=True)
    decode, pack = _of_codes("decode"), _of_codes("pack")
    unpack, decode_packed = _of_bytes("unpack"), _of_bytes("decode_packed")

    # ---- blocks ----------------------------------------------------------------------------

    def encode_blocks(
        self, x: Tensor, dtype: Block, axis: int, rule: str, rounding: str, tensor_scale: float | None,
        draw: Draw, out: Blocks | None,
    ) -> Blocks:  # fmt: skip
        """Block.encode."""
        axis = _axis(axis, x)
        if out is not None:
            return dispatch.owner(x).encode_blocks(x, dtype, axis, rule, rounding, tensor_scale, draw, out)
        codes, scale, micro, found = _ops.encode_blocks(
            x.detach(), text_of(dtype), axis, rule, rounding, tensor_scale, *_drawn(x, draw)
        )
        if dtype.family == "scaled" and tensor_scale is None:
            if found.is_meta:
                raise NumericsError(
                    "x has no values, from which a tensor's scale is found; give tensor_scale="
                )
            tensor_scale = number_of(found)
        return Blocks(dtype, axis, codes, scale, micro if dtype.family == "micro" else None, tensor_scale)

    def decode_blocks(self, blocks: Blocks, out: Any) -> Tensor:
        """Block.decode."""
        if out is not None:
            dispatch.owner(blocks.codes).decode_blocks(blocks, out)
            return out
        number = blocks.tensor_scale
        scaled = None if number is None else number_tensor(number)
        codes, scale, micro = _parts(blocks)
        return _ops.decode_blocks(
            codes, scale, micro, scaled, text_of(blocks.dtype), _axis(blocks.axis, codes)
        )

    def round_blocks(
        self, x: Tensor, dtype: Block, axis: int, rule: str, rounding: str, tensor_scale: float | None,
        draw: Draw, out: Any,
    ) -> Tensor:  # fmt: skip
        """Block.round, with a straight-through gradient."""
        axis = _axis(axis, x)
        if out is not None:
            _check_graph(x)
            dispatch.owner(x).round_blocks(x, dtype, axis, rule, rounding, tensor_scale, draw, out)
            return out
        return _ops.round_blocks(x, text_of(dtype), axis, rule, rounding, tensor_scale, *_drawn(x, draw))

    def pack_blocks(self, blocks: Blocks) -> Tensor:
        """Block.pack."""
        codes, scale, micro = _parts(blocks)
        return _ops.pack_blocks(codes, scale, micro, text_of(blocks.dtype), _axis(blocks.axis, codes))

    def unpack_blocks(
        self, packed: Tensor, dtype: Block, shape: Any, axis: int, scale: Any, tensor_scale: float | None
    ) -> Blocks:
        """Block.unpack."""
        check_dense(packed)
        sizes, beside = _sizes(shape), None
        if scale is not None:
            beside = given_tensor("scale", scale, device=packed.device)
        axis = _axis(axis, sizes)
        codes, found, micro, _ = _ops.unpack_blocks(packed, beside, sizes, text_of(dtype), axis)
        beside = found if beside is None else beside
        return Blocks(dtype, axis, codes, beside, micro if dtype.family == "micro" else None, tensor_scale)

    # ---- tensors with their scales ------------------------------------------

    def quantize(self, x: Tensor, spec: Any, given: Given, draw: Draw) -> TensorQTensor:
        """numerics.quantize."""
        beside = _beside(x, given)
        parts = _ops.quantize(x.detach(), spec.text, *beside, *_drawn(x, draw))
        return wrapped(spec if isinstance(spec, QuantSpec) else spec.text, x, *parts)

    def fake_quantize(self, x: Tensor, spec: Any, given: Given, draw: Draw, clip: bool = False) -> Tensor:
        """numerics.fake_quantize, with a straight-through gradient."""
        beside = _beside(x, given)
        return _ops.fake_quantize(x, spec.text, *beside, *_drawn(x, draw), clip)


def _beside(x: Tensor, given: Given) -> tuple[Tensor | None, Tensor | None]:
    """A scale and a zero point as tensors: float64, so that nothing is lost before they are checked."""
    if x.is_nested:
        check_dense(x)
    scale, zero_point, _ = given
    if isinstance(scale, Tensor) and scale.requires_grad:
        raise NumericsError("scale requires a gradient; numerics.train.LSQ and TQT learn scales")
    if scale is None and zero_point is None:
        return None, None
    return _given("scale", scale), _given("zero_point", zero_point)


def _given(name: str, came: Any) -> Tensor | None:
    return None if came is None else given_tensor(name, came, torch.float64)


def _rounded(x: Tensor, rounding: Rounding) -> tuple[Any, ...]:
    """A rounding as an operator takes it."""
    return rounding.mode, rounding.overflow, *_drawn(x, rounding.draw)


def _drawn(x: Tensor, draw: Draw) -> tuple[int | None, Tensor | None]:
    """Where random bits come from, as an operator takes it: a signed integer, or a tensor beside x."""
    seed, bits = draw
    if seed is not None:
        seed = int(seed) if seed < SIGNED else int(seed) - 2 * SIGNED
    return seed, None if bits is None else given_tensor("random_bits", bits, device=x.device)


def _parts(blocks: Blocks) -> list[Tensor | None]:
    """Codes, scale and microexponents of which the first is a tensor: all as tensors beside it."""
    device = blocks.codes.device
    beside = {"scale": blocks.scale, "microexponents": blocks.microexponents}
    given = (None if x is None else given_tensor(name, x, device=device) for name, x in beside.items())
    return [blocks.codes, *given]


def _sizes(shape: Any) -> list[int]:
    """A shape as an operator takes it; sizes that torch.compile does not know yet are left to it."""
    if torch.compiler.is_compiling():
        return [shape] if isinstance(shape, int) else list(shape)
    return list(as_shape(shape))


def _axis(axis: Any, of: Any) -> int:
    """An axis of a tensor or of a shape as an operator takes it; errors as everywhere (`check_axis`)."""
    if isinstance(of, Tensor):
        check_dense(of)
        of = of.shape
    check_axis(axis, tuple(of))
    return int(axis)


def _check_graph(x: Tensor) -> None:
    """As torch's own `out=` does: the gradient of what is written into it would be lost."""
    if x.requires_grad and torch.is_grad_enabled():
        raise NumericsError(
            "x requires a gradient, which out= would lose; call without out=, or give x.detach()"
        )


def wrapped(spec: Any, x: Tensor, *parts: Tensor) -> TensorQTensor:
    """What the operator `quantize` made of x, as one tensor."""
    made = QuantSpec.parse(spec) if isinstance(spec, str) else spec
    return TensorQTensor.of_parts(made, x, *parts)


dispatch.register_face(Tensor, TorchDispatch())
