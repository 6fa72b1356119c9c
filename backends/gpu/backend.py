"""The Backend (formats/protocol.py) for torch tensors on a GPU."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from numerics.backends.gpu import affine, blocks
from numerics.backends.gpu.affine import How
from numerics.backends.gpu.blocks import BFLOAT16, Cut, Fields, codes_of_words
from numerics.backends.gpu.build import interpreting
from numerics.backends.gpu.launch import launch, per_program, programs
from numerics.backends.gpu.native import native
from numerics.backends.gpu.packing import as_bytes, pack, pack_micro, room, take_bytes, unpack, unpack_micro
from numerics.backends.gpu.rotation import hadamard
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
from numerics.backends.host.executor import Affine
from numerics.backends.host.hadamard import Rotation
from numerics.backends.host.output import admit_blocks, check_apart, written
from numerics.backends.host.quantizing import AffineOptions, Prepared, Quantizing
from numerics.backends.host.tensors import number_of, settled
from numerics.backends.partition import Blocking, Partition, as_shape, blocks_along, check_axis
from numerics.formats.block import Block, Blocks, PackedBlocks, ScaledBlock
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError
from numerics.formats.grid import grid
from numerics.formats.rounding import BlockOptions, Rounding

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
        """Returns the code of each of x, in its shape; in out where it is given."""
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
        """Returns the float32 value of each code; in out where it is given."""
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
        """Returns the format's value for each of x, in x's type; in out where it is given."""
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
        """Returns codes, in C order, as one little-endian string of bits (uint8)."""
        return pack(take_codes(codes, dtype.bits, dtype.code_dtype, dtype.name), dtype.bits)

    def unpack(self, packed: Any, shape: Any, dtype: Element) -> Any:
        """Returns the codes, in that shape, of bytes that `pack` made."""
        shape = as_shape(shape)
        return unpack(take_bytes(packed, math.prod(shape), dtype.bits), shape, dtype.bits)

    def encode_packed(self, x: Any, dtype: Element, rounding: Rounding) -> Any:
        """Returns the codes of x as bytes, without the codes between."""
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
        """Returns the float32 values of packed codes, in that shape."""
        shape = as_shape(shape)
        data = take_bytes(packed, math.prod(shape), dtype.bits)
        return self._decode(data, dtype, target(None, shape, torch.float32, data), dtype.bits)

    # ---- blocks ----------------------------------------------------------------------------

    def encode_blocks(
        self, x: Any, dtype: Block, axis: int, options: BlockOptions, out: Blocks | None = None
    ) -> Blocks:
        """Returns x as blocks along axis; in the arrays of out where it is given."""
        came = take(x)
        data, options = _options(came, dtype, options)
        cut = Cut.of(tuple(data.shape), axis, dtype)
        results = _block_targets(out, axis, cut, data)
        made: Sequence[torch.Tensor | None]
        if _looks_further(came, dtype, options):
            made = self._encode_exactly(came, axis, cut, options)
        else:
            made = [None if result is None else landing(result, data) for result in results]
            blocks.encode(data, cut, options, "encode", Fields(*made))  # type: ignore[arg-type]
        for result, part in zip(results, made, strict=True):
            if result is not None and part is not None:
                _done(result, part)
        codes, scale, micro = results
        return Blocks(dtype, axis, codes, scale, micro, options.tensor_scale)

    def _encode_exactly(
        self, x: torch.Tensor, axis: int, cut: Cut, o: BlockOptions
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Codes, scale and microexponents of float64 under stochastic rounding (blocks.drawn_codes)."""
        rule = "floor" if o.scale_rule == "bump" else o.scale_rule
        plain = self.encode_blocks(x, cut.dtype, axis, BlockOptions(rule))
        fields = Fields(plain.codes, plain.scale, plain.microexponents)
        return (*blocks.drawn_codes(x, cut, o, fields), plain.microexponents)

    def decode_blocks(self, of: Blocks, out: Any) -> Any:
        """Returns the float32 values of blocks; in out where it is given."""
        fields, cut = _fields(of)
        result = target(out, tuple(fields.codes.shape), torch.float32, fields.codes)
        direct = landing(result, fields.codes, fields.scale, fields.micro)
        blocks.decode(fields, cut, of.tensor_scale, False, direct)
        return _done(result, direct)

    def round_blocks(self, x: Any, dtype: Block, axis: int, options: BlockOptions, out: Any) -> Any:
        """Returns the values of x in blocks along axis, in x's type; in out where it is given."""
        came = take(x)
        result = target(out, tuple(came.shape), came.dtype, came)
        if _looks_further(came, dtype, options):
            return _done(result, self.decode_blocks(self.encode_blocks(came, dtype, axis, options), None))
        data, options = _options(came, dtype, options)
        direct = landing(result, came) if data is came else torch.empty_like(data)
        cut = Cut.of(tuple(data.shape), axis, dtype)
        blocks.encode(data, cut, options, "round", Fields(direct, None))
        return _done(result, direct)

    def pack_blocks(self, of: Blocks) -> Any:
        """Returns blocks as bytes: packed codes, or whole microexponent blocks (docs/layout.md)."""
        fields, cut = _fields(of)
        d = of.dtype
        if d.scale_beside:
            return pack(fields.codes, d.element_bits)
        assert fields.scale is not None
        assert fields.micro is not None
        return pack_micro(fields.codes, fields.scale, fields.micro, d, cut.blocking)

    def unpack_blocks(self, stored: PackedBlocks) -> Blocks:
        """Returns the blocks, of a tensor of that shape, of bytes that `pack_blocks` made."""
        dtype, axis, scale = stored.dtype, stored.axis, stored.scale
        shape = as_shape(stored.shape)
        if dtype.scale_beside:
            if scale is None:
                raise NumericsError(f"{dtype.name}: the scales stand beside the packed codes; give scale=")
            check_axis(axis, shape)
            data = take_bytes(stored.packed, math.prod(shape), dtype.element_bits)
            codes = unpack(data, shape, dtype.element_bits)
            return Blocks(dtype, axis, codes, scale, None, stored.tensor_scale)
        blocking = blocks_along(axis, shape, dtype.block)
        data = take_codes(stored.packed, 8, "uint8", "packed bytes")
        check_blocks(data.numel(), blocking.count, dtype)
        return Blocks(dtype, axis, *unpack_micro(data, dtype, blocking))

    def quantize_blocks(self, x: Any, dtype: Block, axis: int, options: BlockOptions) -> PackedBlocks:
        """Block.encode as stored."""
        came = take(x)
        shape = tuple(came.shape)
        cut = Cut.of(shape, axis, dtype)
        if not blocks.packs(cut) or _looks_further(came, dtype, options):
            made = self.encode_blocks(came, dtype, axis, options)
            beside = made.scale if dtype.scale_beside else None
            return PackedBlocks(dtype, axis, shape, self.pack_blocks(made), beside, made.tensor_scale)
        data, options = _options(came, dtype, options)
        size, scale = cut.blocking.count * dtype.bytes_per_block, None
        if dtype.scale_beside:
            size, kind = data.numel() * dtype.element_bits // 8, CODES[dtype.scale_code_dtype]
            scale = torch.empty(cut.blocking.shared_shape, dtype=kind, device=data.device)
        packed = torch.empty(size, dtype=torch.uint8, device=data.device)
        blocks.encode(data, cut, options, "pack", Fields(packed, scale))
        return PackedBlocks(dtype, axis, shape, packed, scale, options.tensor_scale)

    def dequantize_blocks(self, stored: PackedBlocks) -> Any:
        """float32 values of what quantize_blocks made; raises NumericsError for fewer bytes or scales."""
        dtype, shape = stored.dtype, tuple(stored.shape)
        cut = Cut.of(shape, stored.axis, dtype)
        if not blocks.packs(cut):
            return self.decode_blocks(self.unpack_blocks(stored), None)
        data = take_codes(stored.packed, 8, "uint8", "packed bytes")
        shared = None
        if dtype.scale_beside:
            check_bytes(data.numel(), math.prod(shape), dtype.element_bits)
            shared = _shared(stored.scale, "scale", dtype, cut.blocking)
        else:
            check_blocks(data.numel(), cut.blocking.count, dtype)
        out = torch.empty(shape, dtype=torch.float32, device=data.device)
        blocks.decode(Fields(data, shared), cut, stored.tensor_scale, True, out)
        return out

    def hadamard(self, x: Any, rotation: Rotation) -> torch.Tensor:
        """numerics.hadamard: the last axis rotated, in x's type and shape."""
        data = take(x)
        rotation.check(tuple(data.shape))
        return hadamard(data, rotation)

    # ---- a scale and a zero point (backends/host/affine.py) --------------------------------------

    def prepare(self, x: Any) -> Prepared:
        """x itself where kernels read it; float16 and bfloat16 need not be widened."""
        return Prepared(take(x), FLOATS[x.dtype])

    def native(self, parts: Iterable[Any]) -> list[Any]:
        """Tensors, and None, as they are."""
        return [settled(part) for part in parts]

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
        """Returns the codes of `quantize` as one string of bits."""
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


def _looks_further(x: torch.Tensor, d: Block, o: BlockOptions) -> bool:
    """Does a draw see what float64 has below float32's last place (array/executor.py: looks_further)?"""
    drawn = o.draw.seed is not None or o.draw.bits is not None
    return drawn and x.dtype == torch.float64 and not d.in_float32


def _options(x: torch.Tensor, d: Block, o: BlockOptions) -> tuple[torch.Tensor, BlockOptions]:
    """What block kernels take: x in a type that they read, the options with the tensor's scale."""
    wide = words(x)[0]
    if o.tensor_scale is not None or not isinstance(d, ScaledBlock):
        return wide, o
    finite = torch.where(wide.isfinite(), wide.abs(), torch.zeros((), dtype=wide.dtype, device=wide.device))
    amax = number_of(finite.amax().to(torch.float32)) if finite.numel() else 0.0
    return wide, o._replace(tensor_scale=tensor_scale_of(amax, d, o.scale_rule))


def _block_targets(
    out: Blocks | None, axis: int, cut: Cut, source: torch.Tensor
) -> list[torch.Tensor | None]:
    """codes, scale and microexponents: the caller's where they fit, else new ones."""
    d, blocking = cut.dtype, cut.blocking
    if out is not None:
        admit_blocks(out, d, axis, len(blocking.shape))
    found: dict[str, torch.Tensor] = {}
    for name, field in d.fields.items():
        given, shape = getattr(out, name, None), blocking.shape if name == "codes" else blocking.shared_shape
        if out is not None and given is None:
            raise NumericsError(f"out.{name} is missing")
        found[name] = target(given, shape, CODES[field.code_dtype], source, f"out.{name}")
    if out is not None:
        check_apart({f"out.{name}": result for name, result in found.items()})
    return [*found.values(), *[None] * (3 - len(found))]


def _fields(of: Blocks) -> tuple[Fields, Cut]:
    d = of.dtype
    codes = take_codes(of.codes, d.element_bits, d.code_dtype, d.name)
    cut = Cut.of(tuple(codes.shape), of.axis, d)
    shared = [_shared(getattr(of, name), name, d, cut.blocking) for name in d.fields if name != "codes"]
    return Fields(codes, *shared), cut


def _shared(field: Any, name: str, d: Block, blocking: Blocking) -> torch.Tensor:
    """What blocks share; checked."""
    taken = take_codes(field, *d.fields[name], f"{d.name} {name}")
    if tuple(taken.shape) != blocking.shared_shape:
        raise NumericsError(
            f"{name} has shape {tuple(taken.shape)}; codes of {blocking.shape} need {blocking.shared_shape}"
        )
    return taken
