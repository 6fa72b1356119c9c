"""Launches: a kernel, its arguments and what is compiled into it, on the device of its tensors."""

from __future__ import annotations

from typing import Any

import torch

from numerics.backends.gpu.build import build, interpreting
from numerics.backends.gpu.tables import laid
from numerics.backends.host.ieee import ieee_arithmetic

OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}  # a fused multiply-add rounds once where we round twice
PER_PROGRAM = 2048  # elements: 16 a thread, four wide loads
INTERPRETED = 1 << 7, 1 << 16  # when interpreted: as few programs as may be, none much larger than its work


def power_of_two(n: int) -> int:
    """The smallest one that is not less."""
    return 1 << (n - 1).bit_length()


def per_program(n: int) -> int:
    """Elements that a program works on, of n."""
    least, most = INTERPRETED
    return min(max(power_of_two(max(n, 1)), least), most) if interpreting() else PER_PROGRAM


def programs(n: int) -> tuple[int]:
    """The grid of a launch over n elements."""
    return (-(-n // per_program(n)),)


def launch(name: str, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Runs a kernel of kernels/ on the device and the current stream of its first tensor.

    A kernel of a format, f, is also given the memory of its tables, before its own arguments.
    """
    if 0 in grid:
        return
    if "f" in constants:
        constants["f"], tables = laid(constants["f"], arguments[0])
        arguments = tables, *arguments
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
