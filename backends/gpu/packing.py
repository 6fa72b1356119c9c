"""Strings of bits on the GPU: codes to bytes and back, and whole microexponent blocks of any size."""

from __future__ import annotations

import torch

from numerics.backends.gpu.launch import launch, per_program, programs
from numerics.backends.gpu.tensors import CODES, memory, take_codes
from numerics.backends.host.arrays import check_bytes
from numerics.backends.partition import Blocking
from numerics.formats.block import Block, TieredBlock
from numerics.formats.packing import planes


def room(count: int, bits: int, beside: torch.Tensor) -> torch.Tensor:
    """Words for that many codes."""
    return torch.empty(-(-count * bits // 32), dtype=torch.int32, device=beside.device)


def as_bytes(packed: torch.Tensor, count: int, bits: int) -> torch.Tensor:
    """The bytes of the words that codes fill."""
    return packed.view(torch.uint8)[: -(-count * bits // 8)]


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Contiguous codes to bytes."""
    packed = room(codes.numel(), bits, codes)
    arguments = memory(codes), packed, codes.numel(), packed.numel()
    block = per_program(packed.numel()) // 4
    launch("pack_kernel", (-(-packed.numel() // block),), *arguments, BITS=bits, BLOCK=block)
    return as_bytes(packed, codes.numel(), bits)


def unpack(packed: torch.Tensor, shape: tuple[int, ...], bits: int) -> torch.Tensor:
    """Bytes to codes."""
    codes = torch.empty(shape, dtype=torch.uint8 if bits <= 8 else torch.uint16, device=packed.device)
    launch(
        "unpack_kernel", programs(codes.numel()), packed, memory(codes), codes.numel(), BITS=bits,
        BLOCK=per_program(codes.numel()),
    )  # fmt: skip
    return codes


def take_bytes(packed: torch.Tensor, count: int, bits: int) -> torch.Tensor:
    """Packed bytes, when they are as many as that many codes take."""
    data = take_codes(packed, 8, "uint8", "packed bytes")
    check_bytes(data.numel(), count, bits)
    return data


# ---- whole microexponent blocks (docs/layout.md), by operations on whole tensors ------------------


def pack_micro(
    codes: torch.Tensor, scale: torch.Tensor, micro: torch.Tensor, d: Block, blocking: Blocking
) -> torch.Tensor:
    """Fields to the bytes of their blocks."""
    rows = _rows(codes, blocking)
    parts = [_gathered(_bits(rows >> first, width)) for first, width in planes(d.element_bits)]
    shared = [field.movedim(blocking.axis, -1).reshape(-1, 1) for field in (micro, scale)]
    if isinstance(d, TieredBlock):
        wide = shared[0].to(torch.int64)
        held = (((wide >> (8 * k)) & 255).to(torch.uint8) for k in range(d.micro_bytes))
        shared = [shared[1], *held]
    return torch.cat([*parts, *shared], 1).reshape(-1)


def unpack_micro(
    packed: torch.Tensor, d: Block, blocking: Blocking
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Bytes to codes, scale and microexponents, in the tensor's shape."""
    rows = packed.reshape(blocking.count, d.bytes_per_block).to(torch.int32)
    codes = torch.zeros(blocking.count, d.block, dtype=torch.int32, device=packed.device)
    start = 0
    for first, width in planes(d.element_bits):
        size = -(-d.block * width // 8)
        codes |= _joined(_bits(rows[:, start : start + size], 8), width)[:, : d.block] << first
        start += size
    if isinstance(d, TieredBlock):
        flags = rows[:, start + 1].clone()
        for k in range(1, d.micro_bytes):
            flags |= rows[:, start + 1 + k] << (8 * k)
        kept = flags.view(torch.uint32) if d.micro_dtype == "uint32" else flags.to(torch.uint8)
        scale, micro = _shared(rows[:, start].to(torch.uint8), blocking), _shared(kept, blocking)
        return _elements(codes.to(CODES[d.code_dtype]), blocking), scale, micro
    scale, micro = (_shared(rows[:, -k].to(torch.uint8), blocking) for k in (1, 2))
    return _elements(codes.to(CODES[d.code_dtype]), blocking), scale, micro


def _rows(codes: torch.Tensor, blocking: Blocking) -> torch.Tensor:
    """Returns codes as rows [blocks, size], short last blocks filled with zeros."""
    moved = codes.to(torch.int32).movedim(blocking.axis, -1)
    missing = blocking.per_line * blocking.size - blocking.length
    return torch.nn.functional.pad(moved, (0, missing)).reshape(blocking.count, blocking.size)


def _elements(rows: torch.Tensor, blocking: Blocking) -> torch.Tensor:
    """Returns the elements that _rows made rows of."""
    lines = rows.reshape(*blocking.lines, blocking.per_line * blocking.size)[..., : blocking.length]
    return lines.movedim(-1, blocking.axis).contiguous()


def _shared(field: torch.Tensor, blocking: Blocking) -> torch.Tensor:
    return field.reshape(*blocking.lines, blocking.per_line).movedim(-1, blocking.axis).contiguous()


def _bits(fields: torch.Tensor, width: int) -> torch.Tensor:
    """[n, k] as single bits [n, k * width], the lowest first."""
    places = torch.arange(width, dtype=torch.int32, device=fields.device)
    return ((fields[..., None] >> places) & 1).flatten(1)


def _joined(bits: torch.Tensor, width: int) -> torch.Tensor:
    """[n, k * width] single bits as fields [n, k]."""
    places = torch.arange(width, dtype=torch.int32, device=bits.device)
    return (bits.unflatten(1, (bits.shape[1] // width, width)) << places).sum(-1, dtype=torch.int32)


def _gathered(bits: torch.Tensor) -> torch.Tensor:
    """Single bits as bytes, the last one of a row filled with zeros."""
    return _joined(torch.nn.functional.pad(bits, (0, -bits.shape[1] % 8)), 8).to(torch.uint8)
