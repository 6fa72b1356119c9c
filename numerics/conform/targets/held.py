"""What memory holds before a target is given it: a byte that is known, so that what is not written shows."""

from __future__ import annotations

import ctypes
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

Form = tuple[tuple[int, ...], Any]
"""Shape and type of an array of a result."""
PRIMED = 6
"""Arrays of a size that NumPy keeps for the next one who asks for it, nearly."""
KEPT = 2048
"""Bytes of an array: NumPy, or the thread of glibc, keeps those below for the next one who asks."""
M_PERTURB = -6
"""What glibc's mallopt calls the byte whose complement new memory holds; of 0, memory is left as it is."""
AS_EVER = "MALLOC_PERTURB_"
"""The variable by which a process has that byte from its start."""


@contextmanager
def holding(byte: int, forms: Iterable[Form]) -> Iterator[None]:
    """Memory that is asked for holds that byte, as far as one process can have it so.

    That of malloc does where the C library is glibc, for whoever asks; of NumPy's and CUDA's stores, what
    lay in arrays of those forms.  forms: shapes and types of what will be asked for.

    >>> with holding(0xA5, []):
    ...     np.empty(5000, np.uint8).tolist().count(0xA5) in (0, 5000)  # 0 where the C library is another
    True
    """
    sizes = [math.prod(shape) * np.dtype(kind).itemsize for shape, kind in forms]
    perturb = _mallopt()
    _prime_gpu(sizes, byte)
    prime(sizes if perturb is None else [size for size in sizes if size < KEPT], byte)
    if perturb is None:
        yield
        return
    perturb(M_PERTURB, byte ^ 0xFF)
    try:
        yield
    finally:
        perturb(M_PERTURB, _as_ever(os.environ.get(AS_EVER, "")))


def prime(sizes: Iterable[int], byte: int) -> None:
    """Gives so many bytes back to NumPy, several times, full of that byte: who asks next may have them."""
    every = [np.full(size, byte, np.uint8) for size in sizes for _ in range(PRIMED)]
    del every


def _prime_gpu(sizes: list[int], byte: int) -> None:
    """Gives torch the same on its CUDA device, where it has one in use."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        prime_tensors(torch, sizes, byte, "cuda")


def prime_tensors(torch: Any, sizes: Iterable[int], byte: int, device: str) -> None:
    """Gives so many bytes of a device back to torch, several times, full of that byte."""
    every = [
        torch.full((size,), byte, dtype=torch.uint8, device=device) for size in sizes for _ in range(PRIMED)
    ]
    del every


@lru_cache(maxsize=1)
def _mallopt() -> Callable[[int, int], Any] | None:
    """glibc's; None of another C library."""
    try:
        found: Callable[[int, int], Any] = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return None
    return found


def _as_ever(said: str) -> int:
    """The byte that memory holds the complement of in this process.

    >>> _as_ever("165"), _as_ever("")
    (165, 0)
    """
    found = re.match(r"\d+", said)
    return int(found[0]) % 256 if found else 0
