"""The executors under test, and the judge, which remembers what it said."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from importlib.util import find_spec
from typing import Any

import numpy as np

import numerics as nx
from numerics.backends.reference.executor import ReferenceExecutor
from numerics.backends.reference.judge import Judge
from numerics.formats import dispatch

QUICK = bool(os.environ.get("NUMERICS_TEST_QUICK"))
"""`make quick`: one executor, for whoever waits for it."""

dispatch.register("interpreter", "tests.helpers.interpreted")
_NEEDS = {"ipu": ("onnx", "onnxruntime"), "interpreter": ("torch", "triton")}
EXECUTORS = tuple(
    name for name in ("array", "cpu", "ipu", "interpreter") if all(map(find_spec, _NEEDS.get(name, ())))
)
"""All that must equal `reference`, bit for bit; `interpreter`: the GPU's kernels, without a GPU."""
if QUICK:
    EXECUTORS = ("cpu",)
HOST_EXECUTORS = tuple(name for name in ("array", "cpu") if name in EXECUTORS)


def each_executor(names: Iterable[str] = EXECUTORS) -> Iterator[str]:
    """The executors in turn, each chosen in its turn; for tests whose judge is slow and needed once."""
    for name in names:
        with nx.use(name):
            yield name


# ---- the judge is slow, and is asked the same for every executor ------------------------------------------

KEPT, LARGEST = 64, 1 << 20  # answers, and bytes of a question


def _key(x: Any) -> Any:
    """What tells two questions apart: bits of arrays and floats, so that -0.0 is not 0.0."""
    if isinstance(x, (np.ndarray, np.generic)):
        if x.nbytes > LARGEST:
            raise TypeError("too large to be kept")
        return type(x), x.shape, x.dtype.str, x.dtype.name, x.tobytes()
    if isinstance(x, tuple):
        return type(x), *map(_key, x)
    return type(x), x.hex() if isinstance(x, float) else x


def _copy(x: Any) -> Any:
    """An answer that its owner may write into."""
    if isinstance(x, np.ndarray):
        return x.copy()
    if isinstance(x, tuple):
        parts = map(_copy, x)
        return type(x)(*parts) if hasattr(x, "_fields") else tuple(parts)
    return x


def remembered(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of the judge that finds what it found before: it knows nothing but its arguments."""
    kept: OrderedDict[Any, Any] = OrderedDict()

    @wraps(method)
    def call(self: Any, *arguments: Any) -> Any:
        try:
            key = _key(arguments)
            hash(key)
        except TypeError:
            return method(self, *arguments)
        if key not in kept:
            kept[key] = _copy(method(self, *arguments))
            if len(kept) > KEPT:
                kept.popitem(last=False)
        return _copy(kept[key])

    return call


for owner, names in (
    (ReferenceExecutor, ("encode", "encode_blocks", "decode_blocks", "pack", "pack_blocks")),
    (Judge, ("encode_affine", "decode_affine")),
):
    for name in names:
        setattr(owner, name, remembered(getattr(owner, name)))
