"""Numbers that tell kernels apart, as rows of 64 elements."""

from __future__ import annotations

import torch
from torch import Tensor

SIZE = 2048  # elements of a kind
ROW = 64


def rows(kind: torch.dtype, tame: bool = False) -> Tensor:
    """All of them in a type; tame: without Inf and NaN, within a thousand."""
    x = torch.cat([*_random(), *_special(), *_steps()])
    if tame:
        x = torch.nan_to_num(x.clamp(-1e3, 1e3))
    return x.to(kind).view(-1, ROW)


def _random() -> list[Tensor]:
    """Three regimes: one magnitude, a magnitude a block, any bits; near the end of float32; subnormals."""
    g = torch.Generator().manual_seed(15)
    normal = torch.randn(SIZE, generator=g)
    blocks = torch.exp2(torch.randint(-20, 20, (SIZE // 32,), generator=g).float()).repeat_interleave(32)
    patterns = torch.randint(-(1 << 31), (1 << 31) - 1, (SIZE,), generator=g, dtype=torch.int64)
    tiny = torch.randint(0, 1 << 24, (SIZE,), generator=g).to(torch.int32)
    any_bits = patterns.to(torch.int32).view(torch.float32)
    return [normal, normal.roll(1) * blocks, any_bits, normal * 1e38, tiny.view(torch.float32)]


def _special() -> list[Tensor]:
    """Blocks with Inf, with NaN, with zeros of both signs; ties of every small format."""
    mixed = torch.randn(SIZE, generator=torch.Generator().manual_seed(16))
    mixed[::32], mixed[1::64] = torch.inf, torch.nan
    mixed[2::96] = -torch.inf
    zeros = torch.zeros(SIZE)
    zeros[::2] = -0.0
    return [mixed, zeros, torch.arange(SIZE) * 0.125 - 100, torch.arange(SIZE) * -(2.0**-9)]


def _steps() -> list[Tensor]:
    """Around every power of two, and around six of them; halves of them: the least steps of formats."""
    power = torch.exp2(torch.arange(SIZE).float() % 270 - 145)
    ends = (torch.tensor(0.0), torch.tensor(torch.inf))
    around = [torch.nextafter(power * factor, end) for factor in (1.0, 6.0, 448.0) for end in ends]
    return [*around, power * torch.tensor([1.0, 1.5, 1.75, 1.25]).repeat(SIZE // 4), -around[0]]
