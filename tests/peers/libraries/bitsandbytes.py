"""bitsandbytes on the CPU: blocks of 64 over their largest magnitude, which is here made 1 or the number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from bitsandbytes import functional

from tests.peers.claims import Claim, of_tensors

BLOCK = 64
FORMATS = {"nf4": "nf4", "fp4": "bnb_fp4"}


def claims() -> Iterator[Claim]:
    """Its two tables, both ways."""
    for theirs, ours in FORMATS.items():
        call = f'quantize_4bit(x, blocksize=64, quant_type="{theirs}")'
        yield of_tensors(Claim(ours, call, lambda x, kind=theirs: _encoded(x, kind), "encode"))
        call = f'dequantize_4bit(codes, ones, blocksize=64, quant_type="{theirs}")'
        yield of_tensors(Claim(ours, call, lambda codes, kind=theirs: _decoded(codes, kind), "decode"))


def _encoded(x: torch.Tensor, kind: str) -> torch.Tensor:
    """Each number in a block of its own, beside a 1: what is larger is its block's largest, and saturates."""
    blocks = torch.zeros(x.numel(), BLOCK, dtype=x.dtype)
    blocks[:, 0], blocks[:, 1] = x.reshape(-1), 1.0
    packed, _ = functional.quantize_4bit(blocks, blocksize=BLOCK, quant_type=kind)
    return (packed.reshape(x.numel(), BLOCK // 2)[:, 0] >> 4).reshape(x.shape)  # the first is the high half


def _decoded(codes: torch.Tensor, kind: str) -> torch.Tensor:
    flat = codes.reshape(-1).to(torch.uint8)
    filled = torch.zeros(-(-flat.numel() // BLOCK) * BLOCK, dtype=torch.uint8)
    filled[: flat.numel()] = flat
    packed = ((filled[0::2] << 4) | filled[1::2]).reshape(-1, 1)
    ones: Any = torch.ones(len(filled) // BLOCK)
    state = functional.QuantState(
        absmax=ones, shape=filled.shape, dtype=torch.float32, blocksize=BLOCK, quant_type=kind,
        code=functional.get_4bit_type(kind, device="cpu"),
    )  # fmt: skip
    return functional.dequantize_4bit(packed, state).reshape(-1)[: flat.numel()].reshape(codes.shape)
