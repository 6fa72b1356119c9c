"""Arrays as tensors of torch: many of them begin within a larger storage, as views of a tensor do."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from numerics.conform.inputs.margins import memory_of
from numerics.conform.task import Array

WHOLE_OF = 3  # of so many shapes the tensors of one are all that their storage holds


def tensor_of(torch: Any, x: Array, place: int = 0, within: bool = True) -> Any:
    """The array as a tensor in the same memory; of most shapes with a storage offset that is not 0.

    The storage then holds bytes that belong to no number before the tensor and behind it.  Which offset it
    is depends on the shape, the strides and the place alone, so that the same is asked again alike; a
    single number, or line of numbers, begins where its storage does, so that a fault of the offset is
    right where one number is asked alone.  place: which argument it is.  within: False gives no tensor an
    offset.

    >>> import torch
    >>> from numerics.conform.inputs.margins import roomy
    >>> [tensor_of(torch, roomy(n, np.float32)).storage_offset() > 0 for n in (1, 2, 3, 4, 5, 6)]
    [False, True, True, True, True, True]
    """
    plain = x.view(np.int16) if x.dtype.name == "bfloat16" else x
    memory = memory_of(x) if within else None
    before = 0 if memory is None else _before(plain, memory, place)
    if memory is None or not before:
        found = torch.from_numpy(plain)
    else:
        start = x.ctypes.data - memory.ctypes.data - before * x.itemsize
        count = (len(memory) - start) // x.itemsize
        whole = torch.from_numpy(memory[start : start + count * x.itemsize].view(plain.dtype))
        strides = [stride // x.itemsize for stride in x.strides]
        found = torch.as_strided(whole, x.shape, strides, before)
    return found if plain is x else found.view(torch.bfloat16)


def _before(x: Array, memory: Array, place: int) -> int:
    """How many numbers of the storage come before the tensor."""
    lines = sum(n > 1 for n in x.shape)
    room = (x.ctypes.data - memory.ctypes.data) // x.itemsize
    turn = zlib.crc32(repr((place, x.shape, x.strides)).encode())
    if turn % WHOLE_OF == 0 or room < 1 or (x.ndim and 1 in x.shape and lines < 2):
        return 0
    return 1 + turn // WHOLE_OF % room
