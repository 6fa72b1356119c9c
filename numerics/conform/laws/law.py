"""What a law is: a function with a sentence, and which of the inputs that break it is the simplest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.conform.verdict import Counterexample

Mask = NDArray[np.bool_]
Law = Callable[[Any], Counterexample | None]
NO_SIGN = np.uint32(0x7FFFFFFF)
FRACTION = 0x7FFFFF


def sentence(law: Callable[..., Any]) -> str:
    """What a law says: the first line of its docstring.

    >>> from numerics.conform.laws.elements import ties
    >>> sentence(ties)
    'A number midway between two values goes where the rounding says.'
    """
    return (law.__doc__ or "").partition("\n")[0]


def hardness(x: NDArray[np.float32]) -> NDArray[np.int64]:
    """How far from simple each number is: significant bits, then distance from 1, then the sign.

    >>> hardness(np.float32([1.0, -1.0, 0.5, 1.5])).tolist()
    [0, 1, 2, 512]
    """
    bits = np.ascontiguousarray(x).view(np.uint32)
    fraction = (bits & np.uint32(FRACTION)).astype(np.int64)
    lowest = np.frexp((fraction & -fraction).astype(np.float64))[1] - 1  # its place, where there is one
    significant = np.where(fraction == 0, 0, 23 - lowest)
    field = ((bits & NO_SIGN) >> np.uint32(23)).astype(np.int64)
    distance = np.where((bits & NO_SIGN) == 0, 0, np.abs(field - 127))
    return np.asarray((significant << 9) + (distance << 1) + (bits >> np.uint32(31)))
