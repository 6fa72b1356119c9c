"""What a call with a torch tensor goes to: torch's operators (operators.py), and QTensors as tensors.

`TorchDispatch` is the backend of torch's own dispatch: gradients pass, torch.compile sees
one operator, and the operator finds the backend that owns the device.  Where torch does not look on,
the operator's kernel is called at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import maybe_current_level
from torch.autograd import forward_ad
from torch.compiler import is_compiling
from torch.nn.functional import linear

from numerics.backends.host.tensors import (
    check_dense,
    check_memory,
    given_tensor,
    has_values,
    is_of_level,
    number_of,
    number_tensor,
)
from numerics.backends.partition import as_shape, check_axis
from numerics.formats import dispatch
from numerics.formats.block import Block, Blocks, PackedBlocks, stored_scale
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError, check_no_gradient, integer
from numerics.formats.protocol import Given
from numerics.formats.rounding import BlockOptions, Draw, Rounding
from numerics.formats.text import text_of
from numerics.pytorch import folds as _folds  # noqa: F401 - what QTensors do is known with them
from numerics.pytorch import kept_ops as _kept  # noqa: F401
from numerics.pytorch.operators import SIGNED, run
from numerics.pytorch.products import at_once, operator
from numerics.pytorch.qtensor import FLOATS, TensorQTensor, wrapped
from numerics.pytorch.wrapper import constant_of_levels
from numerics.tensor.arithmetic import UNROUNDED, Operation
from numerics.tensor.product import check_operands
from numerics.tensor.spec import QuantSpec


def _of_values(verb: str, gradient: bool = False) -> Callable[..., Any]:
    """An operation on values: codes have no gradient, values that went through a format keep theirs."""

    def call(self: TorchDispatch, x: Tensor, dtype: Element, rounding: Rounding, out: Any = None) -> Any:
        source = x if gradient else _constant(x)
        check_dense(x)
        if out is None:
            return run(verb, source, text_of(dtype), *_rounded(x, rounding))
        if gradient:
            _check_graph(x)
        _into(x, verb, x, dtype, rounding, out)
        return out

    return call


def _of_codes(verb: str) -> Callable[..., Any]:
    """An operation on codes."""

    def call(self: TorchDispatch, codes: Tensor, dtype: Element, out: Any = None) -> Any:
        check_dense(codes)
        if out is None:
            return run(verb, codes, text_of(dtype))
        _into(codes, verb, codes, dtype, out)
        return out

    return call


def _of_bytes(verb: str) -> Callable[..., Any]:
    """An operation on packed bytes, whose shape stands beside them."""

    def call(self: TorchDispatch, packed: Tensor, shape: Any, dtype: Element) -> Any:
        check_dense(packed)
        return run(verb, packed, _sizes(shape), text_of(dtype))

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

    def operate(self, asked: Operation, codes: list[Any]) -> Tensor:
        """Returns the codes of an operation's results, for tensors of one device."""
        first, second, third = [*codes, None, None][:3]
        check_dense(first)
        how = asked.rounding.mode, None if asked.name in UNROUNDED else asked.overflow
        return run("operate", first, asked.name, text_of(asked.source), second, third,
                   None if asked.target is asked.source else text_of(asked.target),
                   *how, *_drawn(first, asked.rounding.draw))  # fmt: skip

    # ---- blocks ----------------------------------------------------------------------------

    def encode_blocks(
        self, x: Tensor, dtype: Block, axis: int, options: BlockOptions, out: Blocks | None
    ) -> Blocks:
        """Returns x as blocks along axis; in the arrays of out where it is given."""
        axis = _axis(axis, x)
        if out is not None:
            return _into(x, "encode_blocks", x, dtype, axis, options, out)
        codes, scale, micro, found = run(
            "encode_blocks", _constant(x), text_of(dtype), axis, *_arguments(x, options)
        )
        tensor_scale = options.tensor_scale
        if dtype.has_tensor_scale and tensor_scale is None:
            tensor_scale = _scale_of(found)
        return Blocks(dtype, axis, codes, scale, micro if dtype.sub_blocks else None, tensor_scale)

    def decode_blocks(self, blocks: Blocks, out: Any) -> Tensor:
        """Returns the float32 values of blocks; in out where it is given."""
        if out is not None:
            _into(blocks.codes, "decode_blocks", blocks, out)
            return out
        number = blocks.tensor_scale
        scaled = None if number is None else number_tensor(number)
        codes, scale, micro = _parts(blocks)
        return run(
            "decode_blocks", codes, scale, micro, scaled, text_of(blocks.dtype), _axis(blocks.axis, codes)
        )

    def round_blocks(self, x: Tensor, dtype: Block, axis: int, options: BlockOptions, out: Any) -> Tensor:
        """Returns the values of x in blocks along axis, with a straight-through gradient."""
        axis = _axis(axis, x)
        if out is not None:
            _check_graph(x)
            _into(x, "round_blocks", x, dtype, axis, options, out)
            return out
        return run("round_blocks", x, text_of(dtype), axis, *_arguments(x, options))

    def pack_blocks(self, blocks: Blocks) -> Tensor:
        """Returns blocks as bytes: packed codes, or whole microexponent blocks (docs/layout.md)."""
        codes, scale, micro = _parts(blocks)
        return run("pack_blocks", codes, scale, micro, text_of(blocks.dtype), _axis(blocks.axis, codes))

    def unpack_blocks(self, stored: PackedBlocks) -> Blocks:
        """Returns the blocks, of a tensor of that shape, of bytes that `pack_blocks` made."""
        dtype, packed = stored.dtype, stored.packed
        check_dense(packed)
        sizes, beside = _sizes(stored.shape), None
        if stored.scale is not None:
            beside = given_tensor("scale", stored.scale, device=packed.device)
        axis = _axis(stored.axis, sizes)
        codes, found, micro, _ = run("unpack_blocks", packed, beside, sizes, text_of(dtype), axis)
        beside = found if beside is None else beside
        micro = micro if dtype.sub_blocks else None
        return Blocks(dtype, axis, codes, beside, micro, stored.tensor_scale)

    # ---- tensors with their scales ------------------------------------------

    def quantize(self, x: Tensor, spec: Any, given: Given, draw: Draw) -> TensorQTensor:
        """Returns x quantized as the spec says; what is not given is found."""
        scale, zero_point, number = _beside(x, given)
        parts = run("quantize", _constant(x), spec.text, scale, zero_point, *_drawn(x, draw), number)
        return wrapped(spec if isinstance(spec, QuantSpec) else spec.text, x, *parts)

    def hadamard(self, x: Tensor, rotation: Any) -> Tensor:
        """Returns x rotated along its last axis."""
        check_dense(x)
        rotation.check(tuple(x.shape))
        return run("hadamard", x, rotation.size, rotation.signs, rotation.inverse)

    def linear(self, x: Tensor, q: TensorQTensor, bias: Tensor | None, compute: str) -> Tensor:
        """Returns x times the rows of q, plus a bias."""
        with torch._C.DisableTorchFunctionSubclass():  # what is asked of q need not go round by it
            _check_product(x, q, bias)
            if x.device.type not in ("cpu", "meta") and compute == "int8":
                raise NumericsError(
                    f"compute='int8' of x on {x.device}: products in int8 run on the CPU; allowed: x.cpu() "
                    "and q.cpu(), or compute='float32'"
                )
            found = at_once(x, q, bias, compute)
        if found is not None:
            return found
        if compute == "int8":
            return operator(x, q, bias, compute=compute)
        if x.is_meta:  # which torch.autocast does not know
            return linear(x, q, bias)
        with torch.autocast(x.device.type, enabled=False):  # of one type with x, whoever asks
            return linear(x, q, bias)

    def fake_quantize(self, x: Tensor, spec: Any, given: Given, draw: Draw, clip: bool = False) -> Tensor:
        """Returns x quantized and dequantized as the spec says, with a straight-through gradient."""
        scale, zero_point, number = _beside(x, given)
        return run("fake_quantize", x, spec.text, scale, zero_point, *_drawn(x, draw), clip, number)


def _into(x: Tensor, verb: str, *arguments: Any) -> Any:
    """What the owner of x writes into the last argument; a compiled graph ends before it (compiled.py)."""
    return getattr(dispatch.owner(x), verb)(*arguments)


def _constant(x: Tensor) -> Tensor:
    """x as codes are made of it: without its graph.

    At a level of torch.func, or of dual numbers, its derivative would be 0: the operator refuses there.
    """
    looked_at = is_compiling() or maybe_current_level() is not None or forward_ad._current_level >= 0
    return x if looked_at else x.detach()


def _scale_of(found: Tensor) -> float:
    """The scale that was found for a tensor, a number of its `Blocks`."""
    found = constant_of_levels(found)
    if not has_values(found) or is_of_level(found):
        raise NumericsError(
            "x has no values, from which a tensor's scale is found, on meta and within torch.vmap: "
            "give tensor_scale=, or call quantize, whose scale is a tensor"
        )
    return number_of(found)


def _check_product(x: Tensor, q: TensorQTensor, bias: Tensor | None) -> None:
    """Raises NumericsError unless x, q and the bias are dense, of fitting shapes, and of one type."""
    check_memory(x)
    check_dense(q)
    if bias is not None:
        check_memory(bias)
    check_operands(x, q, bias)
    given = {name: FLOATS[came.dtype] for name, came in (("x", x), ("bias", bias)) if came is not None}
    due = q.original
    if set(given.values()) != {due}:
        what = " and ".join(f"{name} is {kind}" for name, kind in given.items())
        came = "x" if given["x"] != due else "bias"
        raise NumericsError(f"{what}, q stands for {due}: tensors are of one type; give "
                            f"{came}.to(torch.{due}), or q.to(torch.{min(given.values())})")  # fmt: skip


def _beside(x: Tensor, given: Given) -> tuple[Tensor | None, ...]:
    """A scale and a zero point as tensors: float64, so that nothing is lost before they are checked."""
    if x.is_nested:
        check_dense(x)
    scale, zero_point, tensor_scale = given
    if scale is None and zero_point is None and tensor_scale is None:
        return None, None, None
    check_no_gradient("scale", scale, "numerics.train.LSQ and TQT learn scales")
    check_no_gradient("zero_point", zero_point, "numerics.train.LSQ learns zero points")
    check_no_gradient("tensor_scale", tensor_scale)
    return _given("scale", scale), _given("zero_point", zero_point), _of_tensor(tensor_scale)


def _of_tensor(scale: Any) -> Tensor | None:
    """A tensor's scale as an operator takes it: a tensor of one number, its checks to come there."""
    if scale is None:
        return None
    if not isinstance(scale, Tensor) and type(scale) is not float:  # torch.compile may not know a float yet
        scale = stored_scale(scale)
    return given_tensor("tensor_scale", scale, torch.float64)


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


def _arguments(x: Tensor, options: BlockOptions) -> tuple[Any, ...]:
    """The options of blocks as an operator takes them."""
    scale_rule, mode, tensor_scale, draw = options
    return scale_rule, mode, tensor_scale, *_drawn(x, draw)


def _parts(blocks: Blocks) -> list[Tensor | None]:
    """Codes, scale and microexponents of which the first is a tensor: all as tensors beside it."""
    device = blocks.codes.device
    beside = {"scale": blocks.scale, "microexponents": blocks.microexponents}
    given = (None if x is None else given_tensor(name, x, device=device) for name, x in beside.items())
    return [blocks.codes, *given]


def _sizes(shape: Any) -> list[int]:
    """A shape as an operator takes it; sizes that torch.compile does not know yet are left to it."""
    if is_compiling():
        return [shape] if isinstance(shape, int) else list(shape)
    return list(as_shape(shape))


def _axis(axis: Any, of: Any) -> int:
    """An axis of a tensor or of a shape as an operator takes it; errors as everywhere (`check_axis`)."""
    if isinstance(of, Tensor):
        check_dense(of)
        of = of.shape
    check_axis(axis, tuple(of))
    return integer("axis", axis)


def _check_graph(x: Tensor) -> None:
    """Refuses out= as torch does: the gradient of what is written into it would be lost."""
    if x.requires_grad and torch.is_grad_enabled():
        raise NumericsError(
            "x requires a gradient, which out= would lose; call without out=, or give x.detach()"
        )


dispatch.register_face(Tensor, TorchDispatch())
