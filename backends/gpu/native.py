"""Conversion instructions of the hardware: where they may stand in for the arithmetic.

An instruction is used only where `PROVEN` says that all 2**32 float32 inputs were compared with the
CPU's proof on that architecture (bench/bench_gpu.py runs it and prints the rows).  NUMERICS_NATIVE=0
switches all of them off.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import torch

from numerics.backends.gpu.build import interpreting
from numerics.formats.dtype import Element

CAPABLE: dict[str, tuple[int, int]] = {
    "fp8_e4m3": (8, 9),  # cvt.rn.satfinite.e4m3x2.f32: PTX ISA 7.8, sm_89
    "fp8_e5m2": (8, 9),
    "fp6_e2m3": (8, 9),  # through the fp8 format with the same digits
    "fp6_e3m2": (8, 9),
    "fp4": (10, 0),  # cvt.rn.satfinite.e2m1x2.f32: PTX ISA 8.6, sm_100a
}
"""Formats, and the least compute capability that has the instruction."""


class Proof(NamedTuple):
    """An exhaustive comparison that found no difference."""

    capability: tuple[int, int]
    device: str
    date: str
    triton: str


H200 = Proof((9, 0), "NVIDIA H200", "2026-11-26", "3.6.0")
H100 = Proof((9, 0), "NVIDIA H100 80GB HBM3", "2026-11-26", "3.6.0")
PROVEN: dict[str, tuple[Proof, ...]] = {
    "fp8_e4m3": (H200, H100),
    "fp8_e5m2": (H200, H100),
    "fp6_e2m3": (H200, H100),
    "fp6_e3m2": (H200, H100),
}
"""Format to the proofs that were run; what is not here is not trusted."""


def native(d: Element | None, rounding: str, overflow: str, device: torch.device) -> str | None:
    """The name of the instruction to use, or None for the arithmetic."""
    if rounding != "half_even" or overflow != "saturate" or d is None or d.name not in CAPABLE:
        return None
    if os.environ.get("NUMERICS_NATIVE") == "0" or interpreting() or torch.version.hip:
        return None
    capability = torch.cuda.get_device_capability(device)
    proven = any(proof.capability == capability for proof in PROVEN.get(d.name, ()))
    return d.name if proven else None
