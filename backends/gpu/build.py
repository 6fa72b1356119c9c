"""The shared arithmetic and the kernels as Triton functions, made when first asked for.

Triton chooses between compiling and interpreting (TRITON_INTERPRET=1) when a function is decorated;
so nothing is decorated on import.
"""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace

import triton
import triton.language as tl

from numerics.backends.bind import SOURCES, bind
from numerics.backends.gpu import kernels, primitives

# Triton looks up the annotations of what it compiles; any constant will do.
_ANNOTATIONS = {name: tl.constexpr(0) for name in ("Any", "Grid", "Lane", "Range", "Scale", "str", "tuple")}


def interpreting() -> bool:
    """Do kernels run on the CPU, one operation at a time?  For tests."""
    return bool(triton.knobs.runtime.interpret)


@lru_cache(maxsize=1)
def build() -> SimpleNamespace:
    """Every kernel, bound."""
    if interpreting():  # the arithmetic may stay plain Python: only a kernel must be interpreted
        lanes = bind({"tl": tl}, sources=(primitives, *SOURCES))
        return bind({**vars(lanes), "tl": tl}, triton.jit, sources=(kernels,))
    return bind({"tl": tl, **_ANNOTATIONS}, triton.jit, tl.constexpr, (primitives, *SOURCES, kernels))
