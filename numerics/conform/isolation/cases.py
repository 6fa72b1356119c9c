"""What a target was given, so that another process gives it again, and less and less of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import numpy as np

from numerics.conform.inputs.margins import LINE
from numerics.conform.inputs.spread import spread
from numerics.conform.products.cases import draw
from numerics.conform.products.problem import Problem, with_side
from numerics.conform.products.telling.shrink import LENGTHS
from numerics.conform.targets.faults import Case
from numerics.conform.task import Array, Task
from numerics.formats.block import Block
from numerics.tensor.scheme import Scheme, per_tensor

PARTS = (64, 16, 4, 2)
"""Into so many pieces an axis is cut."""
LESS = (8, 64)
"""Of so many parts one is left out, at either end; in the end a single number."""


class Laid(NamedTuple):
    """An array that can be sent: its numbers, its strides, and where in a cache line it begins."""

    numbers: Array
    strides: tuple[int, ...]
    past: int

    @classmethod
    def of(cls, x: Array) -> Laid:
        """What makes the same array again.

        >>> x = np.arange(9)[8:2:-2]
        >>> y = Laid.of(x).array()
        >>> y, y.strides == x.strides, (y.ctypes.data - x.ctypes.data) % LINE
        (array([8, 6, 4]), True, 0)
        """
        return cls(np.ascontiguousarray(x).reshape(x.shape), x.strides, x.ctypes.data % LINE)

    def array(self) -> Array:
        """The array, in memory of its own."""
        x, strides = self.numbers, self.strides
        steps = [(n - 1) * stride for n, stride in zip(x.shape, strides, strict=True)] if x.size else []
        low, high = (sum(part for part in steps if part * way > 0) for way in (-1, 1))
        room = np.zeros(high - low + x.itemsize + 2 * LINE, np.uint8)
        first = -low + (self.past + low - room.ctypes.data) % LINE
        found: Array = np.ndarray(x.shape, x.dtype, room, first, strides)
        found[...] = x
        return found


def recorded(case: Case) -> Case:
    """A case that can be sent."""
    return tuple(Laid.of(x) if isinstance(x, np.ndarray) else x for x in case)


def restored(case: Case) -> Case:
    """The inverse of `recorded`."""
    return tuple(x.array() if isinstance(x, Laid) else x for x in case)


def layouts(case: Case) -> set[Any]:
    """How the arrays of a case lie, whatever is in them; of a product each of its sizes.

    >>> layouts((np.zeros((2, 3), np.float32), 1.0)) == layouts((np.ones((2, 3), np.float32), 7.0))
    True
    """
    if isinstance(case[0], Problem):
        return {(size, case[0].lies) for size in zip("mnk", case[0].shape, strict=True)}
    kinds = ((x.shape, x.strides, x.dtype.name) if isinstance(x, np.ndarray) else type(x) for x in case)
    return {tuple(kinds)}


def length(case: Case) -> int:
    """The numbers of a line; of a product, those that are summed."""
    if isinstance(case[0], Problem):
        return case[0].shape[2]
    return int(case[0].shape[-1]) if case[0].ndim else 0


def size_of(case: Case) -> int:
    """The bytes that a case takes, about."""
    if isinstance(case[0], Problem):
        return case[0].a.codes.nbytes + case[0].b.codes.nbytes
    return sum(x.nbytes for x in case if isinstance(x, np.ndarray))


def smaller(task: Any, case: Case) -> Iterator[Case]:
    """Cases with less of the same in them, those with the least first; task: a Task, or a product's Claim.

    >>> [x.tolist() for x, in smaller(Task.of("fp4"), (np.float32([1, 2, 3]),))]
    [[1.0], [2.0], [3.0], [1.0, 2.0], [2.0, 3.0]]
    """
    if isinstance(case[0], Problem):
        yield from ((problem,) for problem in _problems(case[0]))
    elif task.kind == "unpack":
        yield from _strings(task.element.bits, *case)
    elif task.scheme is not None:
        yield from _scaled(task.scheme, *case)
    elif task.scale_layout is None:
        yield from _arrays(task, case)


def _cuts(count: int) -> Iterator[tuple[int, int]]:
    """Pieces of `count` things as (start, stop), the smallest first.

    >>> list(_cuts(4))
    [(0, 1), (1, 2), (2, 3), (3, 4), (0, 2), (2, 4), (0, 3), (1, 4)]
    """
    sizes = sorted({-(-count // parts) for parts in PARTS} - {0, count})
    found = [(start, min(start + size, count)) for size in sizes for start in range(0, count, size)]
    for less in sorted({max(1, count // parts) for parts in LESS} | {1}, reverse=True):
        found += [(0, count - less), (less, count)] if less < count else []
    yield from dict.fromkeys(found)


# ---- arrays ----------------------------------------------------------------------------------------


def _arrays(task: Task, case: Case) -> Iterator[Case]:
    """Fewer numbers, then fewer along each axis, so that strides stay; then zeros in a block."""
    block = isinstance(task.dtype, Block)
    axis = task.axis % case[0].ndim if block and case[0].ndim else None
    x = case[0]
    alike = all(not isinstance(one, np.ndarray) or one.shape == x.shape for one in case)
    if not block and alike and x.ndim > 1:
        flat = tuple(one.reshape(-1) if isinstance(one, np.ndarray) else one for one in case)
        yield from _along(flat, 0, [1] * len(flat))
    for across in sorted(range(x.ndim), key=lambda a: -x.shape[a]):
        if across != axis:
            yield from _along(case, across, [1] * len(case))
        else:
            yield from _along(case, across, _units(task, case))
    if block and task.kind != "decode" and x.size <= task.block.block:
        yield from ((y, *case[1:]) for y in _emptier(x))


def _units(task: Task, case: Case) -> list[int]:
    """How much of each array along the blocks' axis belongs to one block."""
    size = task.block.block
    if task.kind != "decode":
        return [size] * len(case)
    return [size * task.block.element_bits // 8 if task.packed else size] + [1] * (len(case) - 1)


def _along(case: Case, axis: int, units: list[int]) -> Iterator[Case]:
    """Pieces along an axis, where every array has as many units there, or shares one."""
    x = case[0]
    if not x.ndim or not x.size:
        return
    count = -(-x.shape[axis] // units[0])
    for one, unit in zip(case, units, strict=True):
        if isinstance(one, np.ndarray) and one.ndim and (
            one.ndim != x.ndim or -(-one.shape[axis] // unit) not in (1, count)
        ):  # fmt: skip
            return
    for start, stop in _cuts(count):
        yield tuple(_part(one, axis, start * unit, stop * unit, count) for one, unit in
                    zip(case, units, strict=True))  # fmt: skip


def _part(x: Any, axis: int, start: int, stop: int, count: int) -> Any:
    if not isinstance(x, np.ndarray) or not x.ndim or (x.shape[axis] == 1 and count > 1):
        return x
    return x[(*[slice(None)] * axis, slice(start, stop))]


def _scaled(scheme: Scheme, x: Array, *shared: Array) -> Iterator[Case]:
    """Whole groups with their scales; of a single group, fewer numbers."""
    units = [1] * x.ndim
    if scheme.block is not None:
        units[-2:] = scheme.block
    elif scheme.kind == "per_group":
        units[scheme.axis or 0] = scheme.size or 1
    wide = _counts(scheme, x.shape, units)
    for axis in sorted(range(x.ndim), key=lambda a: -x.shape[a]):
        unit = units[axis] if x.shape[axis] > units[axis] else 1
        for y, *parts in _along((x, *(part.reshape(wide) for part in shared)), axis, [unit, 1, 1]):
            yield y, *(part.reshape(spread(scheme, y.shape).shared) for part in parts)


def _counts(scheme: Scheme, shape: tuple[int, ...], units: list[int]) -> tuple[int, ...]:
    """How many scales there are along each axis."""
    if scheme.kind == "per_channel":
        channel = (scheme.axis or 0) % len(shape)
        return tuple(n if axis == channel else 1 for axis, n in enumerate(shape))
    if scheme.kind == "per_token":
        return (*shape[:-1], 1)
    if scheme == per_tensor():
        return (1,) * len(shape)
    return tuple(-(-n // unit) for n, unit in zip(shape, units, strict=True))


def _emptier(x: Array) -> Iterator[Array]:
    """The same numbers first in their block; zeros everywhere but in a piece, then everywhere in a piece."""
    used = np.flatnonzero((x != 0) | np.signbit(x))
    if len(used) and used[-1] >= len(used):
        ahead = np.zeros(x.size, x.dtype)
        ahead[: len(used)] = x.reshape(-1)[used]
        yield ahead.reshape(x.shape)
    for rest in (True, False):
        for start, stop in _cuts(len(used)):
            chosen = np.zeros(x.size, bool)
            chosen[used[start:stop]] = True
            y = x.copy()
            y[(chosen != rest).reshape(x.shape)] = 0
            yield y


def _strings(bits: int, packed: Array, count: int) -> Iterator[Case]:
    """Eights of codes, whose bytes are whole; fewer codes at the end."""
    for start, stop in _cuts(-(-count // 8)):
        codes = min(stop * 8, count) - start * 8
        yield packed[start * bits : start * bits - (-codes * bits // 8)], codes
    for fewer in range(max(1, count - 8), count):
        yield packed[: -(-fewer * bits // 8)], fewer


# ---- products --------------------------------------------------------------------------------------


def _problems(problem: Problem) -> Iterator[Problem]:
    """Fewer rows of a and of b; of one result a shorter sum, and zeros in it."""
    (m, n), k = problem.matrix, problem.shape[2]
    rows, columns, axes = [*range(m)], [*range(n)], [[*range(count)] for count in problem.batch]
    for place, axis in enumerate(axes):
        for start, stop in _cuts(len(axis)):
            yield problem.cut(rows, columns, [*axes[:place], axis[start:stop], *axes[place + 1 :]])
    for start, stop in _cuts(m):
        yield problem.cut(rows[start:stop], columns)
    for start, stop in _cuts(n):
        yield problem.cut(rows, columns[start:stop])
    if prod((*problem.batch, m, n)) > 1:
        return
    for length in LENGTHS:
        if length < k:
            yield replace(problem, a=problem.a.short(length), b=problem.b.short(length))
    for name in ("a", "b"):
        side = getattr(problem, name)
        if side.zero is None:
            nothing = draw.zero_codes(side.op)[0]
            used = np.flatnonzero(side.codes[0] != nothing)
            for start, stop in _cuts(len(used)):
                codes = np.full_like(side.codes, nothing)
                codes[0, used[start:stop]] = side.codes[0, used[start:stop]]
                yield with_side(problem, name, side.with_codes(codes))
