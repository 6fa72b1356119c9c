"""The Hadamard rotation on the GPU: float32 and narrower in one kernel, float64 and long rows by torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from numerics.backends.gpu.blocks import BFLOAT16
from numerics.backends.gpu.launch import launch, per_program
from numerics.backends.gpu.tensors import FLOATS, memory
from numerics.backends.host.hadamard import Rotation
from numerics.formats.grid import Grid

LONGEST = 2048  # elements of a row that a program holds


@dataclass(frozen=True)
class Rows:
    """What is compiled in: float type, grid of bfloat16, elements and stages of a row, rows of a program."""

    kind: str
    bfloat16: Grid
    size: int
    stages: int
    tile: int


def hadamard(x: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """The last axis of contiguous x rotated, in its type."""
    if x.dtype == torch.float64 or rotation.size > LONGEST:
        return _by_torch(x, rotation)
    factors = torch.from_numpy(rotation.factors.astype(np.float32)).to(x.device)
    out, rows = torch.empty_like(x), x.numel() // rotation.size
    tile = max(per_program(x.numel()) // rotation.size, 1)
    launch(
        "hadamard_kernel", (-(-rows // tile),), memory(x), memory(factors), memory(out), rows,
        cut=Rows(FLOATS[x.dtype], BFLOAT16, rotation.size, rotation.stages, tile),
    )  # fmt: skip
    return out


def _by_torch(x: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    wide = x if x.dtype == torch.float64 else x.to(torch.float32)
    before, after = torch.from_numpy(rotation.factors).to(x.device, wide.dtype)
    y = wide.reshape(-1, rotation.size) * before
    for stage in range(rotation.stages):
        pairs = y.reshape(len(y), -1, 2, 1 << stage)
        y = torch.stack((pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]), 2)
    return (y.reshape(-1, rotation.size) * after).reshape(x.shape).to(x.dtype)
