"""The Hadamard rotation: sums and differences of neighbours, in a written order (docs/formats.md §13).

y = H (signs * x) * 2**-a, and back x = signs * (H y) * 2**-b, where a + b = log2(size) and H is Sylvester's
matrix of ones and minus ones.  H H is size times the identity, so that the scales are powers of two.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.ieee import ieee_arithmetic
from numerics.formats.errors import NumericsError, integer, number_in, said, truth

Array = NDArray[Any]
LARGEST = 1 << 15  # elements of a rotation
WHOLE = 1 << 15  # elements that are rotated at a time by NumPy, in the cache


@dataclass(frozen=True)
class Rotation:
    """A rotation: of how many neighbours, by which signs, and which way.

    size: a power of two, 2 to 32768.  signs: 1 or -1, one a neighbour, or None for ones.  inverse: back.
    Raises NumericsError for another size and other signs.
    """

    size: int
    signs: tuple[int, ...] | None = None
    inverse: bool = False

    def __post_init__(self) -> None:
        size = integer("size", self.size)
        if not 2 <= size <= LARGEST or size & (size - 1):
            raise NumericsError(f"size={said(size)} cannot be; allowed: powers of two, 2 to {LARGEST}")
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "signs", None if self.signs is None else _signs(self.signs, size))
        object.__setattr__(self, "inverse", truth("inverse", self.inverse))

    @property
    def stages(self) -> int:
        """log2(size)."""
        return self.size.bit_length() - 1

    @property
    def scale(self) -> float:
        """What sums are multiplied by: 2**-a, or 2**-b on the way back."""
        return 2.0 ** -(self.stages // 2 if self.inverse else self.stages - self.stages // 2)

    @cached_property
    def factors(self) -> NDArray[np.float64]:
        """Two lines of powers of two: what elements are multiplied by before the sums, and after them."""
        signs = np.ones(self.size) if self.signs is None else np.array(self.signs, np.float64)
        ones = np.ones(self.size)
        return np.stack([ones, signs * self.scale] if self.inverse else [signs, ones * self.scale])

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises NumericsError for a tensor whose last axis is not whole rotations."""
        if not shape or shape[-1] % self.size:
            raise NumericsError(
                f"shape {tuple(shape)} cannot be rotated by {self.size}: its last axis must be a multiple"
            )


def _signs(came: Any, size: int) -> tuple[int, ...]:
    try:
        listed = came.tolist() if hasattr(came, "tolist") else came
        numbers = [number_in(s) for s in listed]
        found = tuple(int(s) if s in (1, -1) else 0 for s in numbers)
    except Exception:  # no numbers, or not one after the other
        found = ()
    if len(found) != size or 0 in found:
        raise NumericsError(f"signs={said(came)} cannot be; allowed: {size} numbers, each 1 or -1")
    return found


def rotated(x: Array, rotation: Rotation) -> Array:
    """The rows of x [n, size], float32 or float64, rotated: stages of (a, b) to (a + b, a - b)."""
    found = np.empty_like(x)
    before, after = rotation.factors.astype(x.dtype)
    step = max(WHOLE // rotation.size, 1)
    with ieee_arithmetic(), np.errstate(all="ignore"):
        for first in range(0, len(x), step):
            y = x[first : first + step] * before
            for stage in range(rotation.stages):
                pairs = y.reshape(len(y), -1, 2, 1 << stage)
                y = np.stack((pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]), axis=2)
            np.multiply(y.reshape(-1, rotation.size), after, out=found[first : first + step])
    return found
