"""compressed-tensors: casts, packing, quantize, dequantize and fake_quantize by its own scales."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from compressed_tensors.compressors.nvfp4 import helpers as nvfp4
from compressed_tensors.compressors.pack_quantized import helpers as words
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle import forward
from compressed_tensors.quantization.utils import calculate_qparams, fp4_utils, fp6_utils

from tests.adapters.hard import rows

Case = tuple[str, Callable[[bool], Any]]
MX = {"scale_dtype": torch.uint8, "zp_dtype": torch.uint8}
SCHEMES: tuple[tuple[str, int, bool, str, int | None, dict[str, Any]], ...] = (
    ("float", 4, True, "group", 32, MX), ("float", 6, True, "group", 32, MX),
    ("float", 8, True, "group", 32, MX), ("float", 8, True, "tensor", None, {}),
    ("float", 8, True, "channel", None, {}), ("float", 4, True, "channel", None, {}),
    ("int", 8, True, "channel", None, {}), ("int", 8, False, "channel", None, {}),
    ("int", 4, True, "group", 32, {}), ("int", 4, False, "group", 32, {}),
    ("int", 8, False, "tensor", None, {}), ("int", 3, True, "group", 16, {}),
)  # fmt: skip


def cases() -> Iterator[Case]:
    """Names and functions."""
    for kind in (torch.float32, torch.bfloat16, torch.float16):
        for tame in (False, True):
            x = rows(kind, tame)
            yield from _casts(x, f"{kind} tame={tame}")
            if not tame:
                yield from _casts(torch.nan_to_num(x, posinf=torch.inf, neginf=-torch.inf), f"{kind} no NaN")
            for scheme in SCHEMES:
                yield from _scaled(x, scheme, f"{scheme[:5]} {kind} tame={tame}")
    for bits in range(1, 9):
        yield from _words(bits)


def _casts(x: torch.Tensor, said: str) -> Iterator[Case]:
    fours = fp4_utils.cast_to_fp4(torch.nan_to_num(x.float())).to(x.dtype)
    packed = nvfp4.pack_fp4_to_uint8(fours)
    yield f"cast_to_fp4 {said}", lambda _: fp4_utils.cast_to_fp4(x)
    yield f"cast_to_fp6 {said}", lambda _: fp6_utils.cast_to_fp6(x)
    yield f"pack_fp4 {said}", lambda _: nvfp4.pack_fp4_to_uint8(fours)
    for back in (torch.bfloat16, torch.float32):
        yield f"unpack_fp4 {said} {back}", lambda _, b=back: nvfp4.unpack_fp4_from_uint8(packed, *x.shape, b)


def _scaled(x: torch.Tensor, scheme: Any, said: str) -> Iterator[Case]:
    kind, bits, symmetric, strategy, size, extra = scheme
    args = QuantizationArgs(
        num_bits=bits, type=kind, symmetric=symmetric, strategy=strategy, group_size=size, **extra
    )
    groups = {
        "group": lambda: x.unflatten(-1, (-1, size)),
        "channel": lambda: x,
        "tensor": lambda: x.view(1, -1),
    }
    low, high = (getattr(groups[strategy](), f)(-1, keepdim=strategy == "channel") for f in ("amin", "amax"))
    found, zero = calculate_qparams(low, high, args)
    codes = torch.int8 if kind == "int" else torch.float8_e4m3fn if bits == 8 else None
    for scale in {torch.float32: found.float(), x.dtype: found.to(x.dtype)}.values():
        for z in (None, zero):
            for tensor_scale in (None, torch.tensor([2.5])):
                given, more = (x, scale, z, args), {"global_scale": tensor_scale}
                name = f"{said} {scale.dtype} zero={z is not None} {tensor_scale is not None}"
                yield f"fake {name}", lambda _, a=given, m=more: forward.fake_quantize(*a, **m)
                yield f"quantize {name}", lambda _, a=given, m=more: forward.quantize(*a, dtype=codes, **m)
            q = forward.quantize(x, scale, z, args, dtype=codes)
            yield f"dequantize {said} {scale.dtype}", lambda _, a=(q, scale, z, args): forward.dequantize(*a)


def _words(bits: int) -> Iterator[Case]:
    half = 1 << (bits - 1)
    g = torch.Generator().manual_seed(bits)
    codes = torch.randint(-half, half, (ROWS, ROWS), dtype=torch.int8, generator=g)
    for axis in (0, 1):
        packed = words.pack_to_int32(codes, bits, axis)
        yield f"pack_to_int32 {bits} {axis}", lambda _, a=axis: words.pack_to_int32(codes, bits, a)
        yield f"unpack_from_int32 {bits} {axis}", (
            lambda _, p=packed, a=axis: words.unpack_from_int32(p, bits, codes.shape, a)
        )  # fmt: skip


ROWS = 64
