"""The shared arithmetic and the kernels as Triton functions, made when first asked for.

Triton chooses between compiling and interpreting (TRITON_INTERPRET=1) when a function is decorated;
so nothing is decorated on import.
"""

from __future__ import annotations

import os
import tempfile
from functools import lru_cache
from types import FunctionType, SimpleNamespace
from typing import Any

import triton
import triton.language as tl

from numerics.backends.bind import SOURCES, bind
from numerics.backends.gpu import kernels, primitives
from numerics.backends.gpu.values import with_tables
from numerics.backends.temporary import temporary_folder

# Triton looks up the annotations of what it compiles; any constant will do.
_ANNOTATIONS: dict[str, Any] = {
    name: tl.constexpr(0) for name in ("Any", "Grid", "Lane", "Range", "Scale", "Table", "str", "tuple")
} | {"Other": tl.constexpr}  # such a local is compiled in: Triton 3.6 does not pass it on otherwise


def interpreting() -> bool:
    """Do kernels run on the CPU, one operation at a time?  For tests."""
    return bool(triton.knobs.runtime.interpret)


def _survive_unwritable_cache() -> None:
    """Triton cannot compile without a folder to write to: a temporary one, where its own refuses."""
    folder = triton.knobs.cache.dir
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        triton.knobs.cache.dir = str(temporary_folder("numerics-triton-"))


def _interpreted(function: FunctionType) -> Any:
    return triton.jit(function) if function.__name__.endswith("_kernel") else function


@lru_cache(maxsize=1)
def build() -> SimpleNamespace:
    """Every kernel, bound."""
    own = {"tl": tl, "with_tables": with_tables}
    if interpreting():  # what a kernel calls may stay plain Python, which is far quicker
        return bind(own, _interpreted, sources=(*SOURCES, primitives, *kernels.SOURCES))
    _survive_unwritable_cache()
    return bind(own | _ANNOTATIONS, triton.jit, tl.constexpr, (*SOURCES, primitives, *kernels.SOURCES))
