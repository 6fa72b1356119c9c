"""Launches: a kernel, its arguments and what is compiled into it, on the device of its tensors."""

from __future__ import annotations

from typing import Any

import torch

from numerics.backends.environment import ieee_arithmetic
from numerics.backends.gpu.build import build, interpreting

OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}  # a fused multiply-add rounds once where we round twice
PER_PROGRAM = 2048  # elements: 16 a thread, four wide loads
INTERPRETED = 1 << 16  # elements of a program that is interpreted: a program costs more than its work


def per_program() -> int:
    """Elements that a program works on."""
    return INTERPRETED if interpreting() else PER_PROGRAM


def programs(n: int) -> tuple[int]:
    """The grid of a launch over n elements."""
    return (-(-n // per_program()),)


def launch(name: str, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Runs a kernel of kernels.py on the device and the current stream of its first tensor."""
    if 0 not in grid:
        execute(getattr(build(), name), grid, arguments, constants)


def execute(
    kernel: Any, grid: tuple[int, ...], arguments: tuple[Any, ...], constants: dict[str, Any]
) -> None:
    """Compiles where needed, and runs."""
    if interpreting():
        with ieee_arithmetic():  # NumPy is what interprets
            kernel[grid](*arguments, **constants)
        return
    first = next(a for a in arguments if isinstance(a, torch.Tensor))
    with torch.cuda.device(first.device):
        kernel[grid](*arguments, **constants, **OPTIONS)
