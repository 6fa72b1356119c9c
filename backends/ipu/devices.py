"""The Ryzen AI devices: what VitisAI's execution provider must be told, and how the device rounds.

Everything here is documented or reported by others; nothing was seen on silicon by us:

- targets, their options, xclbin: Ryzen AI Software 1.8, `modelrun.rst` and `model_quantization.rst`;
- xlnx_enable_py3_round: RyzenAI-SW pull requests 373 and 379 (2026) - Ryzen AI 1.7 made ties to even the
  default, which PHX and HPT cannot do;
- bfp16ebs8: a type of the AIE2P core in mlir-aie, not a type that VitisAI takes in an ONNX network.

Whether a device equals the integer SRS of its mode bit for bit is unknown.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from numerics.backends.ipu.srs import MODES
from numerics.backends.paths import path_of
from numerics.formats.errors import NumericsError, one_of, said

TARGETS: Final = ("X1", "X2")
"""VitisAI's INT8 back ends: X1 the legacy one, which PHX and HPT need; X2 the default elsewhere."""


@dataclass(frozen=True)
class Device:
    """One NPU.

    name: AMD's abbreviation.  sold_as: the processors.  core: the generation of its AI engine.
    target: X1 or X2.  mode: the rounding of int8 requantization, a name from `srs.MODES`.
    options: what the execution provider is told always.  needs_xclbin: the user must name the NPU binary;
    where it is False, none may be named.  blocks: block formats that the core itself computes in.
    """

    name: str
    sold_as: str
    core: str
    target: str
    mode: str
    options: Mapping[str, str] = field(hash=False)
    needs_xclbin: bool
    blocks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        one_of("target", self.target, TARGETS)
        one_of("SRS mode", self.mode, MODES)

    def provider_options(self, xclbin: str | os.PathLike[str] | None = None, **more: str) -> dict[str, str]:
        """The options of VitisAIExecutionProvider, all strings.

        xclbin: for phx and hpt the path of `.../xclbins/phoenix/4x4.xclbin` in the user's Ryzen AI
        installation; it is passed on as it is and not opened.  more: further options (cache_dir, cache_key,
        config_file ...).  Raises NumericsError for an xclbin that is missing or must not be set, and for an
        option that the device decides.

        >>> DEVICES["stx"].provider_options(cache_key="net")
        {'target': 'X2', 'cache_key': 'net'}
        """
        decided = sorted(more.keys() & self.options.keys())
        if decided:
            raise NumericsError(f"{', '.join(decided)}: {self.name} decides it: {dict(self.options)}")
        return {**self.options, **self._binary(xclbin), **more}

    def _binary(self, xclbin: str | os.PathLike[str] | None) -> dict[str, str]:
        if not self.needs_xclbin and xclbin is not None:
            raise NumericsError(f"xclbin={str(path_of(xclbin))!r}: on {self.name} none may be set")
        if self.needs_xclbin and not xclbin:
            raise NumericsError(
                f"{self.name} needs xclbin=, the path of phoenix/4x4.xclbin in the Ryzen AI installation;"
                f" came {said(xclbin)}"
            )
        return {"xclbin": str(path_of(xclbin))} if xclbin is not None else {}


def _x1(name: str, sold_as: str) -> Device:
    options = MappingProxyType({"target": "X1", "xlnx_enable_py3_round": "0"})
    return Device(name, sold_as, "AIE2 (XDNA)", "X1", "pos_inf", options, needs_xclbin=True)


def _x2(name: str, sold_as: str) -> Device:
    options = MappingProxyType({"target": "X2"})
    return Device(name, sold_as, "AIE2P (XDNA 2)", "X2", "conv_even", options, False, ("bfp16ebs8",))


DEVICES: Final = {
    device.name: device
    for device in (
        _x1("phx", "Phoenix, Ryzen 7040"),
        _x1("hpt", "Hawk Point, Ryzen 8040"),
        _x2("stx", "Strix, Ryzen AI 300"),
        _x2("krk", "Krackan, Ryzen AI 300"),
    )
}
"""Name -> Device.  phx, hpt: ties toward +Inf (DPU_ROUND).  stx, krk: ties to even."""


def device(name: str) -> Device:
    """The device of that name; raises NumericsError for any other.

    >>> device("phx").mode, device("krk").mode
    ('pos_inf', 'conv_even')
    """
    return DEVICES[one_of("device", name, DEVICES)]
