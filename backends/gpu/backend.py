"""The Backend (formats/dispatch.py) for torch tensors on a GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from numerics.backends.gpu import affine, blocks
from numerics.backends.gpu.affine import How
from numerics.backends.gpu.blocks import BFLOAT16, Cut, Fields, codes_of_words
from numerics.backends.gpu.build import interpreting
from numerics.backends.gpu.launch import launch, per_program, programs
from numerics.backends.gpu.native import native
from numerics.backends.gpu.packing import as_bytes, pack, pack_micro, room, take_bytes, unpack, unpack_micro
from numerics.backends.gpu.tensors import (
    CODES,
    FLOATS,
    landing,
    memory,
    pointers,
    random_bits,
    take,
    take_codes,
    target,
    words,
)
from numerics.backends.host.arrays import check_blocks, check_bytes
from numerics.backends.host.backend import tensor_scale_of
from numerics.backends.host.executor import Affine, BlockOptions
from numerics.backends.host.output import admit_blocks, check_apart, written
from numerics.backends.host.tensors import number_of
from numerics.backends.partition import Blocking, Partition, as_shape, check_axis
from numerics.backends.quantizing import AffineOptions, Prepared, Quantizing
from numerics.formats.block import Block, Blocks
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError
from numerics.formats.grid import grid
from numerics.formats.rounding import Draw, Rounding

OLDEST = (8, 0)  # compute capability: what the kernels are compiled for in the tests


class GpuBackend(Quantizing):
    """Triton kernels; what comes back lies on the device of what came."""

    name = "gpu"

    def check(self) -> None:
        """Raises NumericsError where torch sees no GPU, or one that is too old."""
        if interpreting():
            return
        if not torch.cuda.is_available():
            raise NumericsError(
                f"no GPU: torch {torch.__version__} sees none; where there is one, install "
                "numerics-formats[gpu] with the torch that is built for it"
            )
        check_device(torch.device("cuda"))

    def owns(self, x: Any) -> bool:
        """Tensors on a GPU; those on the CPU only while kernels are interpreted, for tests."""
        if not isinstance(x, torch.Tensor):
            return False
        if x.is_cuda:
            check_device(x.device)
            return True
        return x.device.type == "cpu" and interpreting()

    # ---- elements --------------------------------------------------------------------------

    def encode(self, x: Any, dtype: Element, rounding: Rounding, out: Any) -> Any:
        """Element.encode."""
        data, (mode, overflow, draw) = take(x), rounding
        result = target(out, tuple(data.shape), CODES[dtype.code_dtype], data)
        direct = landing(result, data)
        draws, random, seed = random_bits(draw, data)
        wide, low = _elements(data, dtype, mode)
        source, n = memory(wide), data.numel()
        launch(
            "encode_kernel", programs(n), source, *pointers(source, low, random), memory(direct), n, seed,
            f=grid(dtype, mode, overflow), rounding=mode, KIND=FLOATS[wide.dtype], DRAW=draws,
            LOW=low is not None, NATIVE=native(dtype, mode, overflow, data.device), BLOCK=per_program(n),
        )  # fmt: skip
        return _done(result, direct)

    def decode(self, codes: Any, dtype: Element, out: Any) -> Any:
        """Element.decode."""
        data = take_codes(codes, dtype.bits, dtype.code_dtype, dtype.name)
        result = target(out, tuple(data.shape), torch.float32, data)
        return self._decode(data, dtype, result, None)

    def _decode(self, codes: torch.Tensor, dtype: Element, result: torch.Tensor, bits: int | None) -> Any:
        direct = landing(result, codes)
        f = grid(dtype, "half_even", dtype.default_overflow)
        n = direct.numel()
        launch(
            "decode_kernel",
            programs(n),
            memory(codes),
            memory(direct),
            n,
            f=f,
            BITS=bits,
            BLOCK=per_program(n),
        )
        return _done(result, direct)

    def round(self, x: Any, dtype: Element, rounding: Rounding, out: Any) -> Any:
        """Element.round."""
        data, (mode, overflow, draw) = take(x), rounding
        result = target(out, tuple(data.shape), data.dtype, data)
        wide, low = _elements(data, dtype, mode)
        direct = landing(result, data) if wide is data else torch.empty_like(wide)
        draws, random, seed = random_bits(draw, data)
        source, n = memory(wide), data.numel()
        launch(
            "round_kernel", programs(n), source, *pointers(source, low, random), memory(direct), n, seed,
            f=grid(dtype, mode, overflow), rounding=mode, KIND=FLOATS[wide.dtype],
            TARGET=FLOATS[wide.dtype], DRAW=draws, LOW=low is not None, BFLOAT16=BFLOAT16,
            BLOCK=per_program(n),
        )  # fmt: skip
        return _done(result, direct)

    def pack(self, codes: Any, dtype: Element) -> Any:
        """Element.pack."""
        return pack(take_codes(codes, dtype.bits, dtype.code_dtype, dtype.name), dtype.bits)

    def unpack(self, packed: Any, shape: Any, dtype: Element) -> Any:
        """Element.unpack."""
        shape = as_shape(shape)
        return unpack(take_bytes(packed, math.prod(shape), dtype.bits), shape, dtype.bits)

    def encode_packed(self, x: Any, dtype: Element, rounding: Rounding) -> Any:
        """Element.encode_packed."""
        data, bits, (mode, overflow, draw) = take(x), dtype.bits, rounding
        draws, random, seed = random_bits(draw, data)
        if data.dtype == torch.float64:
            return self.pack(self.encode(data, dtype, rounding, None), dtype)
        packed, n = room(data.numel(), bits, data), data.numel()
        source, codes = memory(data), codes_of_words(bits)
        tile = per_program(n) // codes
        launch(
            "encode_packed_kernel", programs(n),
            source, *pointers(source, random), packed, n, packed.numel(), seed,
            f=grid(dtype, mode, overflow), rounding=mode, KIND=FLOATS[data.dtype], DRAW=draws,
            NATIVE=native(dtype, mode, overflow, data.device), BITS=bits, CODES=codes, TILE=tile,
        )  # fmt: skip
        return as_bytes(packed, n, bits)

    def decode_packed(self, packed: Any, shape: Any, dtype: Element) -> Any:
        """Element.decode_packed."""
        shape = as_shape(shape)
        data = take_bytes(packed, math.prod(shape), dtype.bits)
        return self._decode(data, dtype, target(None, shape, torch.float32, data), dtype.bits)

    # ---- blocks ----------------------------------------------------------------------------

    def encode_blocks(
        self, x: Any, dtype: Block, axis: int, rule: str, rounding: str, tensor_scale: float | None,
        draw: Draw, out: Blocks | None = None,
    ) -> Blocks:  # fmt: skip
        """Block.encode."""
        came = take(x)
        data, options, draws = _options(came, dtype, rule, rounding, tensor_scale, draw)
        cut = Cut.of(tuple(data.shape), axis, dtype)
        results = _block_targets(out, dtype, axis, cut.blocking, data)
        made: Sequence[torch.Tensor | None]
        if _looks_further(came, dtype, draw):
            made = self._encode_exactly(came, data, dtype, axis, options, draws)
        else:
            made = [None if result is None else landing(result, data) for result in results]
            blocks.encode(data, dtype, cut, options, "encode", draws, Fields(*made))  # type: ignore[arg-type]
        for result, part in zip(results, made, strict=True):
            if result is not None and part is not None:
                _done(result, part)
        codes, scale, micro = results
        return Blocks(dtype, axis, codes, scale, micro, options.tensor_scale)

    def _encode_exactly(
        self, x: torch.Tensor, wide: torch.Tensor, dtype: Block, axis: int, o: BlockOptions, draws: Any
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Codes, scale and microexponents of float64 under stochastic rounding (blocks.drawn_codes)."""
        rule = "floor" if o.rule == "bump" else o.rule
        plain = self.encode_blocks(wide, dtype, axis, rule, "half_even", None, Draw())
        cut = Cut.of(tuple(x.shape), axis, dtype)
        fields = Fields(plain.codes, plain.scale, plain.microexponents)
        return (*blocks.drawn_codes(x, dtype, o, cut, draws, fields), plain.microexponents)

    def decode_blocks(self, of: Blocks, out: Any) -> Any:
        """Block.decode."""
        fields, cut = _fields(of)
        result = target(out, tuple(fields.codes.shape), torch.float32, fields.codes)
        direct = landing(result, fields.codes, fields.scale, fields.micro)
        blocks.decode(fields, of.dtype, cut, of.tensor_scale, False, direct)
        return _done(result, direct)

    def round_blocks(
        self, x: Any, dtype: Block, axis: int, rule: str, rounding: str, tensor_scale: float | None,
        draw: Draw, out: Any,
    ) -> Any:  # fmt: skip
        """Block.round."""
        came = take(x)
        result = target(out, tuple(came.shape), came.dtype, came)
        if _looks_further(came, dtype, draw):
            made = self.encode_blocks(came, dtype, axis, rule, rounding, tensor_scale, draw)
            return _done(result, self.decode_blocks(made, None))
        data, options, draws = _options(came, dtype, rule, rounding, tensor_scale, draw)
        direct = landing(result, came) if data is came else torch.empty_like(data)
        cut = Cut.of(tuple(data.shape), axis, dtype)
        blocks.encode(data, dtype, cut, options, "round", draws, Fields(direct, None))
        return _done(result, direct)

    def pack_blocks(self, of: Blocks) -> Any:
        """Block.pack."""
        fields, cut = _fields(of)
        d = of.dtype
        if d.family != "micro":
            return pack(fields.codes, d.element_bits)
        assert fields.scale is not None
        assert fields.micro is not None
        return pack_micro(fields.codes, fields.scale, fields.micro, d, cut.blocking)

    def unpack_blocks(
        self, packed: Any, dtype: Block, shape: Any, axis: int, scale: Any, tensor_scale: float | None
    ) -> Blocks:
        """Block.unpack."""
        shape = as_shape(shape)
        if dtype.family != "micro":
            if scale is None:
                raise NumericsError(f"{dtype.name}: the scales stand beside the packed codes; give scale=")
            check_axis(axis, shape)
            data = take_bytes(packed, math.prod(shape), dtype.element_bits)
            return Blocks(dtype, axis, unpack(data, shape, dtype.element_bits), scale, None, tensor_scale)
        blocking = Blocking(shape, check_axis(axis, shape), dtype.block)
        data = take_codes(packed, 8, "uint8", "packed bytes")
        check_blocks(data.numel(), blocking.count, dtype)
        return Blocks(dtype, axis, *unpack_micro(data, dtype, blocking))

    def quantize_blocks(
        self,
        x: Any,
        dtype: Block,
        axis: int,
        rule: str,
        rounding: str,
        tensor_scale: float | None,
        draw: Draw,
    ) -> tuple[Any, Any, float | None]:
        """Block.encode as stored: packed bytes, the scales beside them or None, the tensor's scale."""
        came = take(x)
        cut = Cut.of(tuple(came.shape), axis, dtype)
        if not blocks.packs(dtype, cut) or _looks_further(came, dtype, draw):
            made = self.encode_blocks(came, dtype, axis, rule, rounding, tensor_scale, draw)
            beside = None if dtype.family == "micro" else made.scale
            return self.pack_blocks(made), beside, made.tensor_scale
        data, options, draws = _options(came, dtype, rule, rounding, tensor_scale, draw)
        if dtype.family == "micro":
            size, scale = cut.blocking.count * dtype.bytes_per_block, None
        else:
            size = data.numel() * dtype.element_bits // 8
            scale = torch.empty(cut.blocking.shared_shape, dtype=_scale_type(dtype), device=data.device)
        packed = torch.empty(size, dtype=torch.uint8, device=data.device)
        blocks.encode(data, dtype, cut, options, "pack", draws, Fields(packed, scale))
        return packed, scale, options.tensor_scale

    def dequantize_blocks(
        self,
        packed: Any,
        scale: Any,
        dtype: Block,
        shape: tuple[int, ...],
        axis: int,
        tensor_scale: float | None,
    ) -> Any:
        """float32 values of what quantize_blocks made; raises NumericsError for fewer bytes or scales."""
        cut = Cut.of(shape, axis, dtype)
        if not blocks.packs(dtype, cut):
            return self.decode_blocks(
                self.unpack_blocks(packed, dtype, shape, axis, scale, tensor_scale), None
            )
        data = take_codes(packed, 8, "uint8", "packed bytes")
        shared = None
        if dtype.scale is None:
            check_blocks(data.numel(), cut.blocking.count, dtype)
        else:
            check_bytes(data.numel(), math.prod(shape), dtype.element_bits)
            bits, kind = dtype.scale.bits, dtype.scale.code_dtype
            shared = _of_shape(scale, bits, kind, f"{dtype.name} scale", cut.blocking)
        out = torch.empty(shape, dtype=torch.float32, device=packed.device)
        blocks.decode(Fields(data, shared), dtype, cut, tensor_scale, True, out)
        return out

    # ---- a scale and a zero point (backends/host/affine.py) --------------------------------------

    def prepare(self, x: Any) -> Prepared:
        """x itself where kernels read it; float16 and bfloat16 need not be widened."""
        return Prepared(take(x), FLOATS[x.dtype])

    def native(self, part: Any) -> Any:
        """A tensor as it is."""
        return part

    def give(self, values: torch.Tensor, original: str) -> torch.Tensor:
        """float32 or float64 values as what they were, half to even."""
        return affine.narrow(values, original)

    def extremes(self, data: torch.Tensor, partition: Partition) -> tuple[torch.Tensor, torch.Tensor]:
        """The least and the largest finite value of those that share a scale; 0 where there is none."""
        return affine.extremes(data, partition)

    def find_affine(
        self, low: torch.Tensor, high: torch.Tensor, dtype: Element, options: AffineOptions, scale: Any = None
    ) -> Affine:
        """The scale, unless it is given, and the zero point for values from low to high."""
        return affine.find(low, high, dtype, options, scale)

    def given_affine(
        self, scale: Any, zero: Any, options: AffineOptions, wide: str, data: torch.Tensor
    ) -> Affine:
        """A scale, rounded to its type, and a zero point, both given as NumPy arrays."""
        return affine.given_affine(scale, zero, options, wide, data.device)

    def encode_affine(
        self, data: Any, dtype: Element, partition: Partition, scales: Affine, rounding: Rounding
    ) -> Any:
        """Codes of the shape of data: clamp(round(x / scale) + zero_point)."""
        return affine.encode(data, scales, How(dtype, partition, rounding, "encode"))

    def quantize_packed(
        self, data: Any, dtype: Element, partition: Partition, scales: Affine, rounding: Rounding
    ) -> Any:
        """The same codes as one string of bits."""
        return pack(self.encode_affine(data, dtype, partition, scales, rounding), dtype.bits)

    def round_affine(
        self, data: Any, dtype: Element, partition: Partition, scales: Affine, rounding: Rounding
    ) -> Any:
        """dequantize_packed(quantize_packed(data)) in one pass."""
        return affine.encode(data, scales, How(dtype, partition, rounding, "round"))

    def dequantize_packed(self, packed: Any, dtype: Element, partition: Partition, scales: Affine) -> Any:
        """Values of such bytes, in the type of the scale; raises NumericsError for fewer of them."""
        data = take_bytes(packed, math.prod(partition.shape), dtype.bits)
        return affine.decode(data, dtype, partition, scales, dtype.bits)

    def decode_affine(self, codes: Any, dtype: Element, partition: Partition, scales: Affine) -> Any:
        """Values of the codes, in the type of the scale: (q - zero_point) * scale."""
        return affine.decode(codes, dtype, partition, scales)


def check_device(device: torch.device) -> None:
    """Raises NumericsError for a GPU older than the kernels are tested for."""
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < OLDEST:
        raise NumericsError(
            f"{torch.cuda.get_device_name(device)} has compute capability "
            f"{'.'.join(map(str, torch.cuda.get_device_capability(device)))}; 8.0 or later is needed: "
            "use x.cpu()"
        )


def _done(result: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    if made is not result:
        narrow = made if made.dtype == result.dtype else affine.narrow(made, FLOATS[result.dtype])
        result.detach().copy_(narrow)  # autograd's counter is shared with what is detached
    written(result)
    return result


def _elements(x: torch.Tensor, d: Element, rounding: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """x as kernels read it; a value of float64 that is too small for float32 is still not zero."""
    wide, low = words(x, rounding == "stochastic")
    if low is not None and not getattr(d, "has_zero", True):
        raised = (wide == 0) & (x > 0)
        wide = torch.where(raised, torch.full_like(wide, 2.0**-149), wide)
        low = low.masked_fill(raised, 0)
    return wide, low


def _looks_further(x: torch.Tensor, d: Block, draw: Draw) -> bool:
    """Does a draw see what float64 has below float32's last place (array/executor.py: looks_further)?"""
    return (
        x.dtype == torch.float64 and d.family != "scaled" and (draw.seed is not None or draw.bits is not None)
    )


def _options(
    x: torch.Tensor, d: Block, rule: str, rounding: str, tensor_scale: float | None, draw: Draw
) -> tuple[torch.Tensor, BlockOptions, tuple[str, Any, int]]:
    """What block kernels take: x in a type that they read, the options, where random bits come from."""
    wide, draws = words(x)[0], random_bits(draw, x)
    if d.family == "scaled" and tensor_scale is None:
        finite = torch.where(
            wide.isfinite(), wide.abs(), torch.zeros((), dtype=wide.dtype, device=wide.device)
        )
        amax = number_of(finite.amax().to(torch.float32)) if finite.numel() else 0.0
        tensor_scale = tensor_scale_of(amax, d)
    return wide, BlockOptions(rule, rounding, tensor_scale, None), draws


def _scale_type(d: Block) -> torch.dtype:
    return torch.uint8 if d.scale is None else CODES[d.scale.code_dtype]


def _block_targets(
    out: Blocks | None, d: Block, axis: int, blocking: Blocking, source: torch.Tensor
) -> list[torch.Tensor | None]:
    """codes, scale and microexponents: the caller's where they fit, else new ones."""
    if out is not None:
        admit_blocks(out, d, axis, len(blocking.shape))
    parts: list[tuple[str, tuple[int, ...], torch.dtype]] = [
        ("codes", blocking.shape, CODES[d.code_dtype]),
        ("scale", blocking.shared_shape, _scale_type(d)),
    ]
    if d.family == "micro":
        parts.append(("microexponents", blocking.shared_shape, torch.uint8))
    found: list[torch.Tensor | None] = []
    for name, shape, kind in parts:
        given = None if out is None else getattr(out, name)
        if out is not None and given is None:
            raise NumericsError(f"out.{name} is missing")
        found.append(target(given, shape, kind, source, f"out.{name}"))
    if out is not None:
        check_apart({f"out.{part[0]}": result for part, result in zip(parts, found, strict=True)})
    return found if len(found) == 3 else [*found, None]


def _fields(of: Blocks) -> tuple[Fields, Cut]:
    d = of.dtype
    codes = take_codes(of.codes, d.element_bits, d.code_dtype, d.name)
    cut = Cut.of(tuple(codes.shape), of.axis, d)
    width, kind = (8, "uint8") if d.scale is None else (d.scale.bits, d.scale.code_dtype)
    scale = _of_shape(of.scale, width, kind, f"{d.name} scale", cut.blocking)
    micro = None
    if d.family == "micro":
        bits = d.block // (d.sub_block or 1)
        micro = _of_shape(of.microexponents, bits, "uint8", f"{d.name} microexponents", cut.blocking)
    return Fields(codes, scale, micro), cut


def _of_shape(field: Any, bits: int, kind: str, name: str, blocking: Blocking) -> torch.Tensor:
    taken = take_codes(field, bits, kind, name)
    if tuple(taken.shape) != blocking.shared_shape:
        raise NumericsError(
            f"{name.split()[-1]} has shape {tuple(taken.shape)}; codes of {blocking.shape} need "
            f"{blocking.shared_shape}"
        )
    return taken
