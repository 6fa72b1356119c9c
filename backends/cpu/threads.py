"""Parts of an array on several threads: kernels hold no interpreter lock, so plain threads serve.

The pool is our own: torch's and Numba's thread counts stay as they are, and a forked child makes a
new pool when it needs one.  Results do not depend on how the work is cut.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from fractions import Fraction

from numerics.formats.errors import NumericsError

PART = 1 << 12  # elements: parts begin at multiples of it, whole tiles of every kernel
WORTHWHILE = 1 << 21  # elements below which handing work to a thread costs more than it saves

Moving = tuple[int, Fraction]
"""The address of an array that is cut into parts, and its bits an element."""

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


def count() -> int:
    """Threads to use: NUMERICS_NUM_THREADS, else OMP_NUM_THREADS, else the CPUs we may run on."""
    for name in ("NUMERICS_NUM_THREADS", "OMP_NUM_THREADS"):
        asked = os.environ.get(name)
        if asked:
            if not asked.isdecimal() or int(asked) < 1:
                raise NumericsError(f"{name}={asked!r} is not a positive number of threads")
            return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _workers() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max(os.cpu_count() or 1, count()), thread_name_prefix="numerics")
        return _pool


def _forget() -> None:
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def run(kernel: Callable[..., None], arrays: Sequence[Moving], size: int, *fixed: int) -> None:
    """kernel(addresses..., size, fixed...), the arrays cut into parts when that pays."""
    threads = count() if size >= WORTHWHILE else 1
    if threads == 1:
        kernel(*[address for address, _ in arrays], size, *fixed)
        return
    step = -(-size // (threads * PART)) * PART
    calls = [(*shifted(arrays, first), min(step, size - first), *fixed) for first in range(0, size, step)]
    work(kernel, calls)


def work(kernel: Callable[..., None], calls: Sequence[tuple[int, ...]]) -> None:
    """The calls side by side; the last one on this thread."""
    if len(calls) == 1:
        kernel(*calls[0])
        return
    others = [_workers().submit(kernel, *call) for call in calls[:-1]]
    kernel(*calls[-1])
    wait(others)
    for other in others:
        other.result()


def run_rows(
    kernel: Callable[..., None],
    arrays: Sequence[Moving],
    numbers: Sequence[tuple[int, int]],
    rows: int,
    size: int,
    *fixed: int,
) -> None:
    """kernel(addresses..., addresses of the rows' numbers..., rows, size, fixed...), cut when that pays.

    numbers: address and bytes of an entry.  Many rows are shared out; few and long ones are cut.
    """
    if rows * size == 0:
        return
    threads = count() if rows * size >= WORTHWHILE else 1
    if threads == 1 or rows >= threads:
        step = -(-rows // threads)
        calls = [
            (*shifted(arrays, first * size), *_entries(numbers, first), min(step, rows - first), size, *fixed)
            for first in range(0, rows, step)
        ]
    else:
        step = -(-size // (threads * PART)) * PART
        calls = [
            (
                *shifted(arrays, row * size + first),
                *_entries(numbers, row),
                1,
                min(step, size - first),
                *fixed,
            )
            for row in range(rows)
            for first in range(0, size, step)
        ]
    work(kernel, calls)


def run_columns(
    kernel: Callable[..., None], arrays: Sequence[Moving], numbers: Sequence[int], rows: int, per_batch: int,
    size: int, *fixed: int,
) -> None:  # fmt: skip
    """kernel(addresses..., numbers..., first row, rows, per_batch, size, fixed...), cut when that pays."""
    if rows * size:
        calls = [
            (*shifted(arrays, first * size), *numbers, first, count, per_batch, size, *fixed)
            for first, count in shares(rows, rows * size)
        ]
        work(kernel, calls)


def shares(rows: int, elements: int, unit: int = 1) -> list[tuple[int, int]]:
    """First row and number of rows for each thread, in whole units; all for one where that is enough."""
    threads = count() if elements >= WORTHWHILE else 1
    step = -(-rows // (threads * unit)) * unit
    return [(first, min(step, rows - first)) for first in range(0, rows, step)]


def _entries(numbers: Sequence[tuple[int, int]], row: int) -> list[int]:
    return [address + row * itemsize for address, itemsize in numbers]


def shifted(arrays: Sequence[Moving], first: int) -> list[int]:
    """The addresses of element `first` of arrays."""
    return [address + first * bits.numerator // (8 * bits.denominator) for address, bits in arrays]
