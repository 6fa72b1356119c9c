"""The executors under test, and the judge, which remembers what it said and looks up what is long."""

from __future__ import annotations

import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from importlib.util import find_spec
from typing import Any

import numpy as np

import numerics as nx
from numerics.backends.host.executor import BlockFields
from numerics.backends.reference import lookup
from numerics.backends.reference.executor import ReferenceExecutor
from numerics.backends.reference.judge import Judge
from numerics.formats import dispatch

LONG = bool(os.environ.get("NUMERICS_TEST_LONG"))
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


SLOW, TURNS = ("ipu", "interpreter"), 3


def each_executor(names: Iterable[str] = EXECUTORS, turn: int = 0) -> Iterator[str]:
    """The executors in turn, each chosen in its turn; for tests whose judge is slow and needed once.

    turn: a number of the case; those that build a graph, or interpret a kernel, take every third, where
    tests may not take long.  A case's number is its format's place plus its rounding's, so that each of
    them meets every format and every rounding.
    """
    for name in names:
        if LONG or turn % TURNS == 0 or name not in SLOW:
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
    """A method of the judge that finds what it found before: it knows its arguments and its owner's type."""
    kept: OrderedDict[Any, Any] = OrderedDict()

    @wraps(method)
    def call(self: Any, *arguments: Any) -> Any:
        try:
            key = type(self), _key(arguments)
            hash(key)
        except TypeError:
            return method(self, *arguments)
        if key not in kept:
            kept[key] = _copy(method(self, *arguments))
            if len(kept) > KEPT:
                kept.popitem(last=False)
        return _copy(kept[key])

    return call


# ---- and looks up what is long: the exact judge is asked for a part of it ---------------------------------

EVERY = 13
"""Of how many elements, or blocks, one is asked of the exact judge; of all, where tests may take long."""
LISTED = 1 << 13  # numbers of 16 bits, of one array or of all so far, for which all their steps are listed
_singly: Counter[Any] = Counter()
"""How many were asked one by one, of each format, rounding and overflow."""
FEW = 8  # elements or blocks: all are asked
EXACT = {name: getattr(ReferenceExecutor, name) for name in ("encode", "encode_blocks", "decode_blocks")}


def _taken(draw: Any, part: slice) -> Any:
    return draw._replace(bits=draw.bits[part]) if draw.bits is not None else draw


def _agreed(found: Iterable[Any], exact: Iterable[Any], part: slice) -> None:
    """tests/backends/reference/test_lookup.py has every format in every mode; this, whatever is asked."""
    for ours, due in zip(found, exact, strict=True):
        assert (ours is None and due is None) or ours[part].tobytes() == due.tobytes(), "the look-up is wrong"


def _encode(self: Any, x: Any, dtype: Any, rounding: str, overflow: str, random: Any) -> Any:
    asked = dtype, rounding, overflow
    if random is None and dtype.bits == 16 and x.size < LISTED and _singly[asked] < LISTED:
        _singly[asked] += x.size
        with np.errstate(invalid="ignore"):
            x = x.astype(np.float64)  # one by one
    if random is None or x.dtype != np.float32 or x.size <= FEW:
        return EXACT["encode"](self, x, dtype, rounding, overflow, random)
    found = lookup.encode(x, dtype, rounding, overflow, random)
    part = slice(x.size % EVERY, None, EVERY)
    _agreed([found], [EXACT["encode"](self, x[part], dtype, rounding, overflow, random[part])], part)
    return found


def _encode_blocks(self: Any, x: Any, dtype: Any, options: Any) -> Any:
    if len(x) <= FEW or x.dtype != np.float32:
        return EXACT["encode_blocks"](self, x, dtype, options)
    found = lookup.encode_blocks(x, dtype, options)
    part = slice(len(x) % EVERY, None, EVERY)
    asked = options._replace(draw=_taken(options.draw, part))
    _agreed(found, EXACT["encode_blocks"](self, x[part], dtype, asked), part)
    return tuple(found)


def _decode_blocks(self: Any, codes: Any, scale: Any, micro: Any, tensor_scale: Any, dtype: Any) -> Any:
    if len(codes) <= FEW:
        return EXACT["decode_blocks"](self, codes, scale, micro, tensor_scale, dtype)
    found = lookup.decode_blocks(BlockFields(codes, scale, micro), dtype, tensor_scale)
    part = slice(len(codes) % EVERY, None, EVERY)
    few = None if micro is None else micro[part]
    due = EXACT["decode_blocks"](self, codes[part], scale[part], few, tensor_scale, dtype)
    _agreed([found], [due], part)
    return found


if not LONG:
    for name, method in (
        ("encode", _encode), ("encode_blocks", _encode_blocks), ("decode_blocks", _decode_blocks)
    ):  # fmt: skip
        setattr(ReferenceExecutor, name, method)

for owner, names in (
    (ReferenceExecutor, ("encode", "encode_blocks", "decode_blocks", "pack", "pack_blocks")),
    (Judge, ("encode_affine", "decode_affine")),
):
    for name in names:
        setattr(owner, name, remembered(getattr(owner, name)))
