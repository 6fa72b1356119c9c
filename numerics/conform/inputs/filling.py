"""What arrays of other shapes are filled with: a few numbers of every kind, and very many beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from numerics.conform.inputs.margins import roomy
from numerics.conform.task import Array

TABLE = 1 << 16  # places, of which a uint16 that is drawn is one
UNCOUNTED = range(15, 24)  # bits that do not count all numbers of an array
SALT = 61  # of the seed of an array, beside its shape


@dataclass(eq=False)
class Filling:
    """few: numbers of which each stands alone, and last, somewhere.  table: the numbers that are drawn.

    An array has no period, and no two arrays hold the same: a kernel that takes a row for another one, or
    that treats numbers of arrays otherwise than those of a line, meets those that show it.
    """

    few: Array
    table: Array
    ends: Array
    """One number of each kind, which stands last in every kind of layout; the table begins with them."""
    _last: tuple[Array, Array] | None = field(default=None, repr=False)
    """The large array that was made last, and which places of the table it holds."""
    _due: tuple[Array | None] | None = field(default=None, repr=False)
    """What is due to the table, once it is known; or that nothing is."""

    @classmethod
    def of(cls, few: Array, *others: Array, ends: Array | None = None) -> Filling:
        """Equal parts of the few numbers, and of each of the others that holds any.

        ends: those that stand last; all of the few, where none are named.

        >>> found = Filling.of(np.float32([1, 2]), np.float32([3]), np.float32([]))
        >>> len(found.table), sorted(set(found.table.tolist())), float((found.table == 3).mean())
        (65536, [1.0, 2.0, 3.0], 0.5)
        """
        parts = [part for part in (few, *others) if len(part)] or [few]
        each = -(-TABLE // len(parts))
        table = np.concatenate([_spread(part, each) for part in parts])[:TABLE]
        last = few[:TABLE] if ends is None else ends
        table[: len(last)] = last
        return cls(few, table, last)

    def filled(self, shape: int | Sequence[int], turn: int = 0) -> Array:
        """An array of such a shape, filled with numbers that are drawn; turn: which one of that shape.

        >>> filling = Filling.of(np.float32([1, 2, 3]))
        >>> filling.filled((2, 5)).shape, bool((filling.filled(9) == filling.filled(9, turn=1)).all())
        ((2, 5), False)
        """
        return np.asarray(self.table[self._places(shape, turn)])

    def _places(self, shape: int | Sequence[int], turn: int) -> Array:
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        rng = np.random.default_rng((SALT, turn, len(shape), *shape))
        return rng.integers(0, len(self.table), shape, np.uint16)

    def large(self, shape: int | Sequence[int], turn: int = 0, rises: bool = False) -> Array:
        """The same, of which `by_place` knows what is due; it cannot be written to.

        rises: in the order of the table.
        """
        places = self._places(shape, turn)
        return self._known(np.sort(places, axis=None).reshape(places.shape) if rises else places)

    def _known(self, places: Array) -> Array:
        """The numbers of these places, from the start of a cache line on; `by_place` knows the array."""
        found = roomy(places.size, self.table.dtype).reshape(places.shape)
        np.take(self.table, places, out=found, mode="clip")  # no place is past its end
        found.flags.writeable = False
        self._last = found, places
        return found

    def ended(self, shape: Sequence[int], view: Callable[[Array], Array], turn: int) -> Array:
        """A view of the same, whose last number is that of the turn among the ends.

        The next one of these is its first, another one the last of its first line.  The first number that
        n bits do not count is that of the last, or the next, for each n from 15 on.  `by_place` knows it.

        >>> filling = Filling.of(np.float32([1, 2, 3]))
        >>> x = filling.ended((2, 4), lambda x: x[::-1, ::2], 1)
        >>> x.strides, float(x[-1, -1]), float(x[0, 0])
        ((-16, 8), 2.0, 3.0)
        """
        places = self._places(shape, turn)
        own = view(places)
        if own.size:
            least = own.ctypes.data - places.ctypes.data
            line = least + (own.shape[-1] - 1) * own.strides[-1] if own.ndim else least
            last = least + sum((n - 1) * step for n, step in zip(own.shape, own.strides, strict=True))
            told = [
                (bits % 2, (1 << bits) * places.itemsize) for bits in UNCOUNTED if 1 << bits < places.size
            ]
            for further, at in (*told, (2, line), (1, least), (0, last)):
                places.reshape(-1)[at // places.itemsize] = (turn + further) % len(self.ends)
        return view(self._known(places))

    def by_place(self, x: Array, due: Callable[[Array], Array | None]) -> Array | None:
        """What is due to a view of the last large array, by what is due to the table; of others None.

        due: of the table, and of one task at a time: it is asked once.  None where it cannot say.

        >>> filling = Filling.of(np.float32([1, 2, 3]))
        >>> x = filling.large((3, 4))[::-1, ::2]
        >>> bool((filling.by_place(x, lambda table: table * 2) == x * 2).all())
        True
        """
        whole, places = self._last or (x, x)
        if not x.size or not np.may_share_memory(x, whole) or whole.flags.writeable:
            return None
        begins = (x.ctypes.data - whole.ctypes.data) // x.itemsize
        steps = [stride // x.itemsize * places.itemsize for stride in x.strides]
        own = np.lib.stride_tricks.as_strided(places.reshape(-1)[begins:], x.shape, steps)
        if self._due is None:
            self._due = (due(self.table),)
        (known,) = self._due
        return None if known is None else np.asarray(known.take(own))

    def line(self, length: int, turn: int = 0) -> Array:
        """A line that begins with the few numbers in turn, and goes on with what is drawn.

        >>> Filling.of(np.float32([1, 2, 3])).line(2).tolist()
        [1.0, 2.0]
        """
        found = self.filled(length, turn)
        found[: len(self.few)] = self.few[:length]
        return found


def _spread(part: Array, count: int) -> Array:
    """So many of the numbers, each equally often, or evenly spread where they are more."""
    return part[np.arange(count) * len(part) // count] if len(part) > count else np.resize(part, count)
