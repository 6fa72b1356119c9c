"""`nx.ipu.session`: a model opened by ONNX Runtime, on the NPU's provider where there is one.

A provider that is active takes the nodes it wants; which ones it took, only its own report says.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from numerics.backends.ipu.devices import device as find_device
from numerics.backends.paths import kind_of, path_of
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError

NPU = "VitisAIExecutionProvider"
CPU = "CPUExecutionProvider"
EXACT = {
    "session.x64quantprecision": "1",  # sums of two int8 products saturated at int16 on x86 without VNNI
    "session.qdq_matmulnbits_accuracy_level": "1",  # Gemm of int16 and int8 rounded the int16 to int8
}
"""What ONNX Runtime's CPU provider is told, so that its fusions do not change integers."""
INEXACT = ("WeightBiasQuantization",)
"""Optimizers that are left out: it rounds float weights between quantized tensors to int8, unasked."""


@dataclass(frozen=True)
class Session:
    """An open model.  providers: those that are active, the first asked first."""

    runtime: Any
    providers: tuple[str, ...]
    device: str

    @property
    def has_npu(self) -> bool:
        """Is the NPU's provider active?  It does not say that any node runs there."""
        return NPU in self.providers

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name.  Raises NumericsError for inputs that the model does not take."""
        try:
            made = self.runtime.run(None, dict(feeds))
        except Exception as wrong:
            raise NumericsError(f"the model refused its inputs: {_first_line(wrong)}") from wrong
        return dict(zip((output.name for output in self.runtime.get_outputs()), made, strict=True))


@keywords
def session(
    model: ModelProto | bytes | str | os.PathLike[str],
    *,
    require_npu: bool = False,
    device: str = "stx",
    xclbin: str | os.PathLike[str] | None = None,
    config_file: str | os.PathLike[str] | None = None,
) -> Session:
    """Returns a model opened by ONNX Runtime: the VitisAI provider first where it is there, then the CPU.

    model: a ModelProto, its bytes, or the path of a file.  device: phx, hpt, stx or krk (devices.py),
    which decides the provider's options; xclbin: for phx and hpt, config_file: of a BF16 flow, both
    from the Ryzen AI software.  require_npu: no provider, no session.  Raises NumericsError for a
    file that is not a model, for a missing provider, and for options that the device does not take.

    >>> import numpy as np, numerics as nx
    >>> opened = nx.ipu.session(nx.ipu.export("fp4", "round"))
    >>> opened.run({"x": np.array([0.7, -5.0], np.float32)})["y"].tolist()
    [0.5, -4.0]
    """
    profile, source = find_device(device), _source(model)
    has_npu = NPU in onnxruntime.get_available_providers()
    if require_npu and not has_npu:
        raise NumericsError(
            f"this ONNX Runtime ({onnxruntime.__version__}) has no {NPU}; install AMD's Ryzen AI Software, "
            "which brings its own ONNX Runtime, and run in its environment"
        )
    asked: list[Any] = [CPU]
    if has_npu:
        more = {} if config_file is None else {"config_file": str(path_of(config_file))}
        asked.insert(0, (NPU, profile.provider_options(xclbin, **more)))
    try:
        opened = onnxruntime.InferenceSession(
            source, exact_options(), providers=asked, disabled_optimizers=INEXACT
        )
    except Exception as wrong:
        raise NumericsError(f"ONNX Runtime cannot open {_name(model)}: {_first_line(wrong)}") from wrong
    active: Sequence[str] = opened.get_providers()
    if require_npu and NPU not in active:
        raise NumericsError(f"{NPU} is installed but did not start; active: {', '.join(active)}")
    return Session(opened, tuple(active), device)


def exact_options() -> Any:
    """Returns ONNX Runtime's SessionOptions under which the CPU provider's integers are those of the file."""
    options = onnxruntime.SessionOptions()
    for key, value in EXACT.items():
        options.add_session_config_entry(key, value)
    return options


def _source(model: ModelProto | bytes | str | os.PathLike[str]) -> bytes | str:
    if isinstance(model, ModelProto):
        serialized: bytes = model.SerializeToString()
        return serialized
    if isinstance(model, bytes):
        return model
    path = path_of(model)
    what = kind_of(path.stat().st_mode) if os.path.exists(path) else None
    if what is not None:
        raise NumericsError(f"cannot open {path}: it is {what}; allowed: the file of an ONNX model")
    return str(path)


def _name(model: Any) -> str:
    return "the model" if isinstance(model, (ModelProto, bytes)) else str(path_of(model))


def _first_line(wrong: Exception) -> str:
    return str(wrong).strip().splitlines()[0] if str(wrong).strip() else type(wrong).__name__
