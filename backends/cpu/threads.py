"""Parts of an array on several threads: kernels hold no interpreter lock, so plain threads serve.

Results do not depend on how the work is cut: every part holds whole units of its operation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from math import lcm
from typing import NamedTuple

from numerics.backends.cpu import team
from numerics.backends.cpu.helpers import share, sharing
from numerics.formats.errors import NumericsError

PART = 1 << 12  # elements: parts are no smaller, or handing them out costs more than they save
WORTHWHILE = 1 << 21  # elements below which handing work to a thread costs more than it saves
MOST = max(64, 4 * (os.cpu_count() or 1))  # threads: more would only wait for one another


class Moving(NamedTuple):
    """An array that is cut into parts: its address, and its bits an element."""

    address: int
    bits: Fraction

    def at(self, first: int) -> int:
        """The address of an element, which begins on a byte."""
        offset, within = divmod(first * self.bits.numerator, 8 * self.bits.denominator)
        assert not within, f"element {first} of {self.bits} bits each does not begin on a byte"
        return self.address + offset


def count() -> int:
    """Threads to use: NUMERICS_NUM_THREADS, else OMP_NUM_THREADS, else torch's number where it is imported,
    else the CPUs we may run on; at most MOST.

    Raises NumericsError where NUMERICS_NUM_THREADS is no positive number.  OMP_NUM_THREADS is another
    library's: of its list, a number a level, the first counts, and what is no number is passed over.
    """
    asked = os.environ.get("NUMERICS_NUM_THREADS")
    if asked:
        found = _number(asked)
        if found is None:
            raise NumericsError(f"NUMERICS_NUM_THREADS={asked!r} is not a positive number of threads")
    else:
        found = (
            _number(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]) or team.size() or _processors()
        )
    return min(found, MOST)


def _number(text: str) -> int | None:
    """The positive number that a text is, or one as good."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdecimal() and digits.strip("0")):
        return None
    return int(digits.lstrip("0")[:9])  # a number of more digits is beyond MOST either way


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def whole(unit: int) -> int:
    """Elements of the smallest part that is made of whole units.

    >>> whole(64), whole(96)
    (4096, 4128)
    """
    return -(-PART // unit) * unit


def unit_of(streams: Sequence[Fraction], *together: int) -> int:
    """The fewest elements that end on a byte of every array, given its bits an element, and hold whole
    numbers of what belongs together: blocks, tiles.

    >>> unit_of([Fraction(32), Fraction(3)], 12), unit_of([Fraction(8, 5)], 5, 32)
    (24, 160)
    """
    return lcm(*together, *((8 / bits).numerator for bits in streams))


class Job(NamedTuple):
    """A kernel and its data.  fixed: what each call takes last.  keep: what lies at the addresses.

    numbers: addresses of one number a row, or a column.  unit: elements that no cut parts.
    """

    kernel: Callable[..., None]
    arrays: Sequence[Moving]
    fixed: Sequence[int]
    keep: object
    unit: int = 1
    numbers: Sequence[Moving] = ()


def run(job: Job, size: int, threads: int) -> None:
    """kernel(addresses..., size, fixed...) on threads, cut between units."""
    part = whole(job.unit)
    step = -(-size // (threads * part)) * part
    calls = [
        (*shifted(job.arrays, first), min(step, size - first), *job.fixed) for first in range(0, size, step)
    ]
    work(job.kernel, calls, job.keep)


def work(kernel: Callable[..., None], calls: Sequence[tuple[int, ...]], keep: object) -> None:
    """The calls side by side: on torch's threads where these are as many as we may use, else on helpers.

    keep: the arrays behind their addresses, and what else lies at one.
    """
    if len(calls) == 1:
        kernel(*calls[0])
        return
    most = count()
    together = team.of_torch() if team.size() == most and not sharing() else None
    if together is None:
        share(kernel, calls, keep, helpers=min(len(calls), most) - 1)
    else:
        together.run(kernel, calls, most)


def run_rows(job: Job, rows: int, size: int) -> None:
    """kernel(addresses..., addresses of the rows' numbers..., rows, size, fixed...), cut when that pays.

    Many rows are shared out; few and long ones are cut.
    """
    if rows * size == 0:
        return
    threads = count() if rows * size >= WORTHWHILE else 1
    few, part = rows < threads, whole(job.unit)
    step = -(-size // (threads * part)) * part if few else size
    take = 1 if few else -(-rows // threads)
    calls = [
        (*shifted(job.arrays, row * size + first), *shifted(job.numbers, row), min(take, rows - row),
         min(step, size - first), *job.fixed)
        for row in range(0, rows, take)
        for first in range(0, size, step)
    ]  # fmt: skip
    work(job.kernel, calls, job.keep)


def run_columns(job: Job, rows: int, per_batch: int, size: int) -> None:
    """kernel(addresses..., numbers..., first row, rows, per_batch, size, fixed...), cut when that pays."""
    if rows * size:
        numbers = shifted(job.numbers, 0)
        calls = [
            (*shifted(job.arrays, first * size), *numbers, first, count, per_batch, size, *job.fixed)
            for first, count in shares(rows, rows * size)
        ]
        work(job.kernel, calls, job.keep)


def shares(rows: int, elements: int, unit: int = 1) -> list[tuple[int, int]]:
    """First row and number of rows for each thread, in whole units; all for one where that is enough."""
    threads = count() if elements >= WORTHWHILE else 1
    step = -(-rows // (threads * unit)) * unit
    return [(first, min(step, rows - first)) for first in range(0, rows, step)]


def shifted(arrays: Sequence[Moving], first: int) -> list[int]:
    """The addresses of element `first` of arrays."""
    return [array.at(first) for array in arrays]
