"""What this machine offers: versions, backends, caches, threads, the processor."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

from numerics._version import __version__
from numerics.formats import dispatch
from numerics.formats.errors import NumericsError

LIBRARIES = (
    "numpy", "numba", "llvmlite", "ml_dtypes", "safetensors", "torch", "triton", "onnx", "onnxruntime",
    "click", "rich",
)  # fmt: skip


def examine() -> dict[str, Any]:
    """Everything, as plain data.

    >>> sorted(examine())
    ['backends', 'cache', 'cpu', 'threads', 'versions']
    """
    return {
        "versions": versions(),
        "backends": {name: _state(name) for name in dispatch.names()},
        "cache": _cache(),
        "threads": _threads(),
        "cpu": _processor(),
    }


def versions() -> dict[str, str | None]:
    """The version of each library, None where it is not installed."""
    return {"numerics": __version__, "python": platform.python_version(), "platform": platform.platform(),
            **{name: _version(name) for name in LIBRARIES}}  # fmt: skip


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _state(name: str) -> str:
    """`ready`, or why not."""
    try:
        dispatch.get(name).check()
    except NumericsError as missing:
        return str(missing)
    return "ready"


def _cache() -> dict[str, Any]:
    """Where compiled kernels are kept; the folder itself is not made."""
    try:
        from numerics.backends.cpu.cache import folder
    except ImportError as missing:
        return {"folder": None, "writable": False, "why": str(missing)}
    place = Path(folder())
    there = next(path for path in (place, *place.parents) if os.path.exists(path))
    return {"folder": str(place), "writable": os.path.isdir(there) and os.access(there, os.W_OK)}


def _threads() -> dict[str, Any]:
    asked = {name: os.environ.get(name) for name in ("NUMERICS_NUM_THREADS", "OMP_NUM_THREADS")}
    try:
        from numerics.backends.cpu.threads import count

        return {"used": count(), "cpus": os.cpu_count(), **asked}
    except (ImportError, NumericsError) as wrong:
        return {"used": None, "cpus": os.cpu_count(), "why": str(wrong), **asked}


def _processor() -> dict[str, Any]:
    found = {"machine": platform.machine(), "byteorder": sys.byteorder}
    try:
        from llvmlite import binding
    except ImportError:
        return found
    features = sorted(name for name, there in binding.get_host_cpu_features().items() if there)
    return {**found, "name": binding.get_host_cpu_name(), "features": features}
