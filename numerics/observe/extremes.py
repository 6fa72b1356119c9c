"""Observers of the least and the largest value: MinMax, MovingAverage, Pof2."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.affine import POF2_EXPONENTS, widest_scale
from numerics.backends.partition import Partition
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError, one_of
from numerics.formats.rounding import FULL_RANGE
from numerics.observe.base import POF2, Observer, check_within, with_pof2
from numerics.observe.histogram import have_finite

Array = NDArray[Any]
POF2_RULES = ("nearest", "ceil")


class MinMax(Observer):
    """Observes the least and the largest value of all batches; of one, the scale is that of `quantize`.

    dtype and the other options: as for `Observer`.

    >>> import numpy as np, numerics as nx
    >>> watching, x = MinMax("int4", scheme=nx.per_channel(0)), np.float32([[1, -3.5], [14, 7]])
    >>> watching.observe(x)
    >>> watching.scale, nx.quantize(x, "int4", scheme=nx.per_channel(0)).scale
    (array([0.5, 2. ], dtype=float32), array([0.5, 2. ], dtype=float32))
    """


class MovingAverage(Observer):
    """Observes the exponential moving average of the batches' ranges (arXiv 1712.05877 §3.1).

    dtype and the other options: as for `Observer`.
    averaging_constant: c, 0 < c <= 1, by default 0.01: the weight of a new batch.

    Each batch makes low = (1 - c) * low + c * (its least finite value), and high likewise; both begin with
    those of the first batch that has a finite value, are float64, and NaN before.  The order of the batches
    matters, so it is the one observer that cannot be merged.  Raises NumericsError as `Observer`, and for
    another constant.

    >>> watching = MovingAverage("int8", averaging_constant=0.25)
    >>> for amax in 127.0, 635.0:
    ...     watching.observe([amax])
    >>> float(watching.scale)
    2.0
    """

    mergeable: ClassVar[bool] = False
    own: ClassVar[tuple[str, ...]] = ("averaging_constant",)

    @keywords
    def __init__(self, dtype: Any, *, averaging_constant: float = 0.01, **options: Any) -> None:
        super().__init__(dtype, **options)
        self.averaging_constant = check_within("averaging_constant", averaging_constant, 1)

    def _blank(self, original: str, shared: tuple[int, ...]) -> dict[str, Array]:
        return {name: np.full(shared, np.nan) for name in self.arrays}

    def _take(self, low: Array, high: Array, data: Any, partition: Partition) -> None:
        told = np.asarray((low != 0) | (high != 0))
        if not told.all():  # zeros, or nothing that is finite
            told = told | have_finite(data, partition)
        self.low, self.high = self._moved(self.low, low, told), self._moved(self.high, high, told)

    def _moved(self, before: Array, new: Array, told: Array) -> Array:
        moved = (1 - self.averaging_constant) * before + self.averaging_constant * new.astype(np.float64)
        return np.asarray(np.where(told, np.where(np.isnan(before), new, moved), before))

    def _check_state(self, arrays: dict[str, Array]) -> None:
        low, high = arrays["low"], arrays["high"]
        right = np.where(np.isnan(low), np.isnan(high), np.isfinite(low) & (low <= high) & np.isfinite(high))
        if not right.all():
            raise NumericsError("low and high of a state are finite, low at most high, or both NaN")

    def _range(self) -> tuple[Array, Array]:
        return np.nan_to_num(self.low), np.nan_to_num(self.high)


class Pof2(Observer):
    """Observes the range of all batches; the scale is a power of two near the one for it.

    dtype and the other options: as for `Observer`.
    scale_type: pof2, the only one; a QuantSpec that says no scale_type means it, too.
    rule: "nearest" (the default) rounds the scale's log2 to the nearest integer, as AMD Quark's PowOf2
        observers do: it may clip.  "ceil" never clips, and is MinMax with scale_type="pof2".

    Pof2MSE searches for the power of two of least error instead.
    Raises NumericsError as `Observer`, for another rule, and for a scale_type that is not pof2.

    >>> for rule in "nearest", "ceil":
    ...     watching = Pof2("int8", rule=rule)
    ...     watching.observe([127 * 1.4])
    ...     float(watching.scale)
    1.0
    2.0
    """

    own: ClassVar[tuple[str, ...]] = ("rule",)

    @keywords
    def __init__(self, dtype: Any, *, rule: str = "nearest", scale_type: str = POF2, **options: Any) -> None:
        dtype, asked = with_pof2(dtype, scale_type)
        super().__init__(dtype, **options, **asked)
        self.rule = one_of("rule", rule, POF2_RULES)

    def _scale(self, low: Array, high: Array) -> Array | None:
        if self.rule == "ceil":
            return None
        return nearest_power_of_two(
            widest_scale(
                low, high, self.spec.element, self.spec.symmetric, self.spec.scale_rule == FULL_RANGE
            )
        )


def nearest_power_of_two(scale: Array) -> Array:
    """2**round(log2(scale)), with the exponents of pof2 scales.

    There is no tie, since a square root of two has no end: so the nearest float64 to it decides.

    >>> nearest_power_of_two(np.array([1.0, 1.4142135623730949, 1.4142135623730951, 3.0]))
    array([1., 1., 2., 4.])
    """
    least = np.finfo(scale.dtype).smallest_subnormal  # what became 0 in its type was not
    mantissa, exponent = np.frexp(np.maximum(scale, least).astype(np.float64))
    power = np.clip(exponent - (mantissa < math.sqrt(0.5)), *POF2_EXPONENTS)
    return np.asarray(np.ldexp(scale.dtype.type(1), power))
