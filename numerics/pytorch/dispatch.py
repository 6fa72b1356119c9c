"""What a call with a torch tensor goes to: torch's operators (ops.py), and QTensors as tensors.

`Face` is a Backend (formats/dispatch.py) of torch's own dispatch: gradients pass, torch.compile sees
one operator, and the operator finds the backend that owns the device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from numerics.backends.host.tensors import check_dense, given_tensor, number_of, number_tensor
from numerics.backends.partition import as_shape, check_axis
from numerics.formats import dispatch
from numerics.formats.block import Block, Blocks
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError
from numerics.formats.rounding import Draw, Rounding
from numerics.formats.text import text_of
from numerics.pytorch import kept_ops as _kept  # noqa: F401 - what QTensors do is known with them
from numerics.pytorch.operators import SIGNED
from numerics.pytorch.qtensor import TensorQTensor
from numerics.tensor.spec import Recipe

_ops = torch.ops.numerics


class Face:
    """Tensors through torch's operators; with `out`, straight to the backend.

    Codes have no gradient; values that went through a format have a straight-through one.
    """

    name = "torch"

    def check(self) -> None:
        """Torch is there: a tensor came."""

    def owns(self, x: Any) -> bool:
        """Tensors, whatever their device."""
        return isinstance(x, Tensor)

    # ---- elements --------------------------------------------------------------------------

    def encode(self, x: Tensor, dtype: Element, rounding: Rounding, out: Any) -> Tensor:
        """Element.encode."""
        check_dense(x)
        if out is not None:
            dispatch.owner(x).encode(x, dtype, rounding, out)
            return out
        return _ops.encode(x.detach(), text_of(dtype), *_rounded(x, rounding))

    def decode(self, codes: Tensor, dtype: Element, out: Any) -> Tensor:
        """Element.decode."""
        check_dense(codes)
        if out is not None:
            dispatch.owner(codes).decode(codes, dtype, out)
            return out
        return _ops.decode(codes, text_of(dtype))

    def round(self, x: Tensor, dtype: Element, rounding: Rounding, out: Any) -> Tensor:
        """Element.round, with a straight-through gradient."""
        check_dense(x)
        if out is not None:
            _check_graph(x)
            dispatch.owner(x).round(x, dtype, rounding, out)
            return out
        return _ops.round(x, text_of(dtype), *_rounded(x, rounding))

    def pack(self, codes: Tensor, dtype: Element) -> Tensor:
        """Element.pack."""
        check_dense(codes)
        return _ops.pack(codes, text_of(dtype))

    def unpack(self, packed: Tensor, shape: Any, dtype: Element) -> Tensor:
        """Element.unpack."""
        check_dense(packed)
        return _ops.unpack(packed, _sizes(shape), text_of(dtype))

    def encode_packed(self, x: Tensor, dtype: Element, rounding: Rounding) -> Tensor:
        """Element.encode_packed."""
        check_dense(x)
        return _ops.encode_packed(x.detach(), text_of(dtype), *_rounded(x, rounding))

    def decode_packed(self, packed: Tensor, shape: Any, dtype: Element) -> Tensor:
        """Element.decode_packed."""
        check_dense(packed)
        return _ops.decode_packed(packed, _sizes(shape), text_of(dtype))

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
            x.detach(), text_of(dtype), axis, rule, rounding, tensor_scale, *_drawn(x, draw.seed, draw.bits)
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
        return _ops.round_blocks(
            x, text_of(dtype), axis, rule, rounding, tensor_scale, *_drawn(x, draw.seed, draw.bits)
        )

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

    # ---- tensors with their scales (quantization.py) ------------------------------------------

    def quantize(
        self, x: Tensor, recipe: str, scale: Any, zero_point: Any, seed: int | None, bits: Any
    ) -> TensorQTensor:
        """numerics.quantize."""
        _check(x, scale)
        given = _beside("scale", scale), _beside("zero_point", zero_point)
        parts = _ops.quantize(x.detach(), recipe, *given, *_drawn(x, seed, bits))
        return wrapped(recipe, x, *parts)

    def fake_quantize(
        self, x: Tensor, recipe: str, scale: Any, zero_point: Any, seed: int | None, bits: Any, clip: bool
    ) -> Tensor:
        """numerics.fake_quantize."""
        _check(x, scale)
        given = _beside("scale", scale), _beside("zero_point", zero_point)
        return _ops.fake_quantize(x, recipe, *given, *_drawn(x, seed, bits), clip)


def _check(x: Tensor, scale: Any) -> None:
    check_dense(x)
    if isinstance(scale, Tensor) and scale.requires_grad:
        raise NumericsError("scale requires a gradient; numerics.train.LSQ and TQT learn scales")


def _beside(name: str, given: Any) -> Tensor | None:
    """A scale or a zero point as a tensor: float64, so that nothing is lost before it is checked."""
    return None if given is None else given_tensor(name, given, torch.float64)


def _rounded(x: Tensor, rounding: Rounding) -> tuple[Any, ...]:
    """A rounding as an operator takes it."""
    return rounding.mode, rounding.overflow, *_drawn(x, rounding.draw.seed, rounding.draw.bits)


def _drawn(x: Tensor, seed: int | None, bits: Any) -> tuple[int | None, Tensor | None]:
    """Where random bits come from, as an operator takes it: a signed integer, or a tensor beside x."""
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


def wrapped(recipe: str, x: Tensor, *parts: Tensor) -> TensorQTensor:
    """What the operator `quantize` made of x, as one tensor."""
    return TensorQTensor.of_parts(Recipe.parse(recipe), x, *parts)


dispatch.register_face(Tensor, Face())
