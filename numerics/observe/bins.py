"""Bins that follow the data: every octave is cut into equally many, on each side of zero.

A bin is the sign of a value, its exponent and the first bits of its significand, so it depends on
nothing but the value: neither on what else comes nor on the order.  Only bins that hold something are
kept, each with its count and the least and the largest value in it.  Counts add, least and largest
join: so bins of parts come exactly to the bins of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from numerics.backends.partition import Partition
from numerics.formats.errors import NumericsError

Array = NDArray[Any]
Integers = NDArray[np.int64]
SIGNIFICAND = 52  # bits of float64's
LIFTED = 64  # octaves by which float64's subnormals become normal, so that they have octaves too
OCTAVES = 1 << 13  # numbers of octaves, both signs: more than any value has
MOST_VALUES = 2**63 - 1


@dataclass(frozen=True, eq=False)
class Bins:
    """Bins of some scales, in the order of the scales and then of the values; none is empty.

    places: scale * OCTAVES * bins an octave + the bin's number (`numbers`), ascending.  counts: int64.
    least, largest: of the values in the bin, in the type of the tensors.
    """

    places: Integers
    counts: Integers
    least: Array
    largest: Array

    @classmethod
    def none(cls, kind: str) -> Bins:
        """No bins, of values of that type."""
        empty = np.zeros(0, np.int64)
        return cls(empty, empty, np.zeros(0, kind), np.zeros(0, kind))

    @property
    def fields(self) -> tuple[Array, ...]:
        """All that is told of every bin."""
        return self.places, self.counts, self.least, self.largest

    def owners(self, per_octave: int) -> Integers:
        """The scale of each bin."""
        return np.asarray(self.places // (OCTAVES * per_octave))

    def part(self, which: Any) -> Bins:
        """Some of them."""
        return Bins(*(field[which] for field in self.fields))

    def magnitudes(self, per_octave: int) -> Bins:
        """The bins of |x|."""
        owners = self.owners(per_octave)
        middle = owners * (OCTAVES * per_octave) + OCTAVES * per_octave // 2
        below = self.least < 0
        sides = self.part(~below), Bins(
            (2 * middle - self.places)[below], self.counts[below], -self.largest[below], -self.least[below]
        )  # fmt: skip
        return join(sides)


def numbers(x: Array, per_octave: int) -> Integers:
    """The number of the bin of every finite value, at least 0, ascending with the values; zero has its own.

    per_octave: a power of two.

    >>> one, next, two = numbers(np.array([1.0, 1.25, 2.0]), 4)
    >>> int(next - one), int(two - one), int(numbers(np.array([-0.0]), 4)[0]) == OCTAVES * 4 // 2
    (1, 4, True)
    """
    shift = SIGNIFICAND - int(math.log2(per_octave))
    wide = np.abs(x.astype(np.float64))
    bits = wide.view(np.int64)
    found = (bits >> shift) + LIFTED * per_octave
    tiny = bits < 1 << SIGNIFICAND
    if tiny.any():  # zero, and float64's subnormals
        lifted = np.ldexp(wide[tiny], LIFTED).view(np.int64)
        found[tiny] = lifted >> shift
    return np.asarray(np.where(x < 0, -found, found) + OCTAVES * per_octave // 2)


def count(x: Array, owner: Integers | None, per_octave: int) -> Bins:
    """The bins of finite values; owner: the scale of each, None where there is but one."""
    if x.size == 0:
        return Bins.none(x.dtype.name)
    x, owner = _in_order(x + 0, owner)  # 0, not -0
    places = numbers(x, per_octave)
    if owner is not None:
        places += owner * (OCTAVES * per_octave)
    starts = _starts(places)
    stops = np.append(starts[1:], x.size)
    return Bins(places[starts], stops - starts, x[starts], x[stops - 1])


def join(parts: Sequence[Bins]) -> Bins:
    """All of them as one, whatever their order.  Raises NumericsError where the counts grow past int64."""
    places, counts, least, largest = (
        np.concatenate(fields) for fields in zip(*(part.fields for part in parts), strict=True)
    )
    if counts.sum(dtype=np.float64) > MOST_VALUES - 2**10 and sum(counts.tolist()) > MOST_VALUES:
        raise NumericsError("more than 2**63 - 1 values cannot be counted")
    if places.size == 0:
        return Bins(places, counts, least, largest)
    order = np.argsort(places, kind="stable")  # runs that are in order are merged
    starts = _starts(places[order])
    return Bins(
        places[order[starts]],
        np.add.reduceat(counts[order], starts),
        np.minimum.reduceat(least[order], starts),
        np.maximum.reduceat(largest[order], starts),
    )


def _starts(places: Integers) -> NDArray[np.intp]:
    """Where, in ascending places, another one begins."""
    new = np.empty(places.size, bool)
    new[0] = True
    np.not_equal(places[1:], places[:-1], out=new[1:])
    return np.flatnonzero(new)


def _in_order(x: Array, owner: Integers | None) -> tuple[Array, Integers | None]:
    """Values in ascending order, those of one scale after those of another."""
    if owner is None:
        return np.sort(x), None
    if x.dtype != np.float32:
        order = np.lexsort((x, owner))
        return x[order], owner[order]
    both = np.sort((owner << 32) + _in_integers(x.view(np.int32)))  # one sort of words is faster than two
    owner = (both + (1 << 31)) >> 32
    return _in_integers((both - (owner << 32)).astype(np.int32)).view(np.float32), owner


def _in_integers(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """The bits of float32 as integers in the order of the values, and the way back."""
    return np.asarray(bits ^ ((bits >> 31) & 0x7FFFFFFF))


def owners_of(partition: Partition, places: Integers) -> Integers:
    """Whose scale the elements at these places of a tensor take; all places are counted in C order."""
    axis, shape = partition.axis, partition.shape
    if axis is None:
        return np.zeros_like(places)
    outer, inner = np.divmod(places, math.prod(shape[axis + 1 :]))
    line, along = np.divmod(outer, shape[axis])
    if partition.size is None:
        return np.asarray(along)
    if partition.rows > 1:  # blocks of the last two axes
        outermost, row = np.divmod(line, shape[axis - 1])
        line = outermost * partition.shared[axis - 1] + row // partition.rows
    group = line * partition.shared[axis] + along // partition.size
    return cast(Integers, np.asarray(group * math.prod(shape[axis + 1 :]) + inner))
