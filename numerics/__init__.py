"""numerics: low-precision number formats, bit-exact, at the speed of memory.

>>> import numerics as nx
>>> nx.fp8_e4m3.round(0.3), nx.mxfp4.bits
(0.3125, 4.25)
"""

from __future__ import annotations

import importlib
import os
from typing import Any

if not os.path.isdir(os.path.join(__path__[0], "formats")):  # a checkout: they stand beside us
    __path__.append(os.path.dirname(__path__[0]))

from numerics import when_torch as _when_torch
from numerics._version import __version__
from numerics.formats import *  # noqa: F403
from numerics.formats import __all__ as _formats
from numerics.formats import backend as _backend
from numerics.formats.backend import use
from numerics.formats.errors import NumericsError

_backend.register("cpu", "numerics.backends.cpu")
_backend.register("array", "numerics.backends.array")
_backend.register("reference", "numerics.backends.reference")
_backend.register("ipu", "numerics.backends.ipu", device=None, extra="ipu")
_backend.register("gpu", "numerics.backends.gpu", device="gpu", extra="gpu")

_BACKENDS = ("ipu",)  # those that offer more than a place to run
_MODULES = ("conform", "interop", "layouts", "observe")
_OF_TORCH = ("train",)  # those that need it: a star must not ask for them
_LAZY: dict[str, str] = {
    "empty": "numerics.backends.memory",
    "QTensor": "numerics.tensor",
    "Scheme": "numerics.scheme",
    "dequantize": "numerics.quantization",
    "fake_quantize": "numerics.quantization",
    "load": "numerics.files",
    "per_channel": "numerics.scheme",
    "per_group": "numerics.scheme",
    "per_tensor": "numerics.scheme",
    "quantize": "numerics.quantization",
    "save": "numerics.files",
    "transcode": "numerics.transcoding",
}
__all__ = [*_formats, *_LAZY, "__version__", *_BACKENDS, *_MODULES, "use"]
_when_torch.arrange()


def __getattr__(name: str) -> Any:
    if name in _BACKENDS:
        return _backend.module(name)
    if name in _MODULES:
        return importlib.import_module(f"numerics.{name}")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _OF_TORCH:
        return _of_torch(name)
    raise AttributeError(f"module 'numerics' has no attribute {name!r}")


def __dir__() -> list[str]:
    """All public names, those too that are imported when they are first asked for."""
    return sorted({*globals(), *__all__, *_OF_TORCH})


def _of_torch(name: str) -> Any:
    try:
        return importlib.import_module(f"numerics.{name}")
    except ImportError as missing:
        raise NumericsError(
            f"numerics.{name} needs {missing.name or missing}, which is not installed: "
            "pip install 'numerics-formats[torch]'"
        ) from missing
