"""Tensors in and out: kinds, devices, shapes and `out=`, checked and made plain."""

from __future__ import annotations

import math
from typing import Any

import torch

from numerics.backends.host.float_bits import BEYOND
from numerics.backends.host.output import admit
from numerics.backends.host.random_bits import check_words, wrong_bits
from numerics.backends.host.tensors import check_readable, own_codes, settled
from numerics.formats.codec import NAN, SIGN
from numerics.formats.errors import NumericsError, with_article
from numerics.formats.rounding import RANDOM_BITS, Draw

FLOATS = {
    torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64"
}  # fmt: skip
INTEGERS = (torch.uint8, torch.uint16, torch.uint32, torch.int8, torch.int16, torch.int32, torch.int64)
CODES = {"uint8": torch.uint8, "uint16": torch.uint16, "uint32": torch.uint32}
_MEMORY = {torch.float32: torch.int32, torch.bfloat16: torch.int16}


def name_of(kind: torch.dtype) -> str:
    """`float32` for torch.float32."""
    return str(kind).removeprefix("torch.")


def memory(x: torch.Tensor) -> torch.Tensor:
    """x as kernels read it: floats by their bits, in types that every GPU has."""
    return x.view(_MEMORY[x.dtype]) if x.dtype in _MEMORY else x


def pointers(filler: torch.Tensor, *parts: torch.Tensor | None) -> list[torch.Tensor]:
    """The parts' memory; what a kernel does not use still points somewhere."""
    return [filler if part is None else memory(part) for part in parts]


def take(x: torch.Tensor) -> torch.Tensor:
    """x without its history and contiguous; raises NumericsError unless it is of a float type."""
    check_readable(x)
    if x.dtype not in FLOATS:
        raise NumericsError(
            f"cannot compute with {name_of(x.dtype)} data; allowed: {', '.join(FLOATS.values())} "
            "(x.to(...) first)"
        )
    return settled(x.detach()).contiguous()


def take_codes(codes: torch.Tensor, bits: int, kind: str, name: str) -> torch.Tensor:
    """Codes, contiguous and of their own unsigned type, checked against 2**bits."""
    check_readable(codes)
    codes = own_codes(settled(codes), bits, kind, name)
    if codes.dtype not in INTEGERS:
        raise NumericsError(f"{name}: codes are unsigned integers ({kind}), not {name_of(codes.dtype)}")
    wanted = CODES[kind]
    if (codes.dtype != wanted or bits != 8 * wanted.itemsize) and codes.numel():
        wide = codes.to(torch.int64)
        low, high = (int(end) for end in wide.aminmax())
        if low < 0 or high >= 1 << bits:
            raise NumericsError(f"{name}: code {low if low < 0 else high} is outside 0 .. {(1 << bits) - 1}")
    return codes.to(wanted).contiguous()


def target(
    out: Any, shape: tuple[int, ...], kind: torch.dtype, source: torch.Tensor, name: str = "out"
) -> torch.Tensor:
    """The caller's `out` where it fits, else a new tensor beside the source."""
    if out is None:
        return torch.empty(shape, dtype=kind, device=source.device)
    if not isinstance(out, torch.Tensor):
        raise NumericsError(
            f"{name} must be {with_article(name_of(kind))} tensor of shape {shape}, not {type(out).__name__}"
        )
    admit(out, shape, name_of(kind), name, "tensor")
    if out.device != source.device:
        raise NumericsError(f"{name} is on {out.device}, but x is on {source.device}")
    return out


def landing(out: torch.Tensor, *sources: torch.Tensor | None) -> torch.Tensor:
    """Returns the buffer that kernels write: out, where it is contiguous and apart from the sources."""
    if out.is_contiguous() and all(source is None or _apart(out, source) for source in sources):
        return out
    return torch.empty(out.shape, dtype=out.dtype, device=out.device)


def _apart(out: torch.Tensor, source: torch.Tensor) -> bool:
    """Does the source stay as it is while out is written, other than element by element?"""
    same = out.data_ptr() == source.data_ptr() and out.dtype == source.dtype
    return same or out.untyped_storage().data_ptr() != source.untyped_storage().data_ptr()


def random_bits(draw: Draw, like: torch.Tensor) -> tuple[str, torch.Tensor | None, int]:
    """What stochastic rounding takes: `none`, `bits` or `seed`, the bits, the seed."""
    if draw.seed is not None:
        seed = draw.seed - (1 << 64) if draw.seed >= 1 << 63 else draw.seed
        return "seed", None, seed
    if draw.bits is None:
        return "none", None, 0
    bits = draw.bits
    whole = isinstance(bits, torch.Tensor) and bits.dtype in INTEGERS and bits.itemsize >= 4
    if not whole or bits.shape != like.shape:
        came = (
            f"{name_of(bits.dtype)} {tuple(bits.shape)}"
            if isinstance(bits, torch.Tensor)
            else type(bits).__name__
        )
        raise wrong_bits(like.shape, came)
    if bits.device != like.device:
        raise NumericsError(f"random_bits is on {bits.device}, but x is on {like.device}")
    check_readable(bits)
    bits = settled(bits)
    if bits.itemsize > 4 and bits.numel():
        check_words(int(bits.min()), int(bits.max()), bits.numel())
    word = bits.view(torch.int32) if bits.dtype == torch.uint32 else bits.to(torch.int64)
    return "bits", (word & ((1 << RANDOM_BITS) - 1)).to(torch.int32).contiguous(), 0


# ---- float64, as in backends/host/float_bits.py ------------------------------------------------------------


def truncate(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 cut toward zero to float32, and where something was lost.  Finite stays finite."""
    near = x.to(torch.float32)
    bits = near.view(torch.int32)
    beyond = near.to(torch.float64).abs() > x.abs()
    cut = torch.where(beyond, bits - 1, bits)  # one step toward zero, infinity too
    nan = (x.view(torch.int64) >> 32).to(torch.int32) & SIGN | NAN  # a GPU's conversion drops its sign
    cut = torch.where(x.isnan(), nan, cut).view(torch.float32)
    return cut, (cut.to(torch.float64) != x) & ~x.isnan()


def words(x: torch.Tensor, stochastic: bool = False) -> tuple[torch.Tensor, torch.Tensor | None]:
    """x in a type that kernels read; under stochastic rounding also what float64 has below that."""
    if x.dtype != torch.float64:
        return x, None
    cut, lost = truncate(x)
    if not stochastic:
        return (cut.view(torch.int32) | lost.to(torch.int32)).view(torch.float32), None
    beyond = x.abs() >= BEYOND
    field = ((cut.view(torch.int32) & 0x7FFFFFFF) >> 23).clamp(min=1)
    rest = torch.where(lost & ~beyond, x.abs() - cut.to(torch.float64).abs(), 0.0)
    unit = ((1023 + 180 - field).to(torch.int64) << 52).view(torch.float64)  # 2**30 last places of cut
    return torch.where(beyond, x.sign().to(torch.float32) * math.inf, cut), (rest * unit).to(torch.int32)
