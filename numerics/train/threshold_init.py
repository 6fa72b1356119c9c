"""Where TQT's threshold starts: how much of a tensor lies within it (docs/formats.md §7)."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from numerics.backends.host.tensors import check_readable, has_values
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError
from numerics.pytorch.learned_scales import integer, levels

Curve = NDArray[np.float64]
BINS = 2048  # of a histogram, and most thresholds tried in it: they become powers of two
PER_LEVEL = 5  # bins that a level of the best threshold has: with fewer, resampling costs next to nothing


@keywords
def threshold_3sd(x: Tensor) -> float:
    """Returns |mean| + 3 standard deviations of the population, of the finite values; 0 where there is none.

    x: a tensor of real numbers, any shape.  For weights (arXiv 1903.08066).  Raises NumericsError for what is
    no such tensor.

    >>> threshold_3sd(torch.tensor([1.0, 3.0]))
    5.0
    """
    values = _finite(x)
    if values.numel() == 0:
        return 0.0
    unit = math.ldexp(1.0, math.frexp(float(values.abs().max()))[1] - 1)  # squares of others may overflow
    deviation, mean = torch.std_mean(values / (unit or 1.0), correction=0)
    return min(float(mean.abs() + 3 * deviation) * (unit or 1.0), sys.float_info.max)


@keywords
def threshold_kl_j(x: Tensor, dtype: Any) -> float:
    """Returns the threshold whose levels keep the distribution of |x| best, by J distance; 0 where all is 0.

    x: a tensor, any shape; its finite values count.  dtype: an integer format, or its name.  For each
    candidate, P is the CDF of |x| in at least 2048 bins, however few values there are, and Q is P cut at the
    candidate, resampled to the levels of the format and back; the smallest J = sum (P - Q) log2(P / Q) wins,
    the larger of equal candidates (arXiv 1805.07941, Algorithm 1, for activations).  The bins go up to the
    largest value.  Where the best threshold has fewer than 5 of them a level (of formats with more than 204
    levels: 4), they are too wide to tell, as beside an outlier: then as many bins go up to 4 times that
    threshold, at most half as far, and so on; P stays the share of all values.  Where the first bin holds
    most of what is not zero, Q begins at zero, so that what the bin hides costs what it should. So the
    resolution follows the data: the threshold is the best to a fifth of a level.  Raises NumericsError for
    another format, and for what is no tensor of real numbers.

    >>> threshold_kl_j(torch.tensor([0.1] * 5000 + [0.2] * 5000 + [50.0]), "int4") < 0.3
    True
    """
    count = levels(integer(dtype))
    bins = max(BINS, 4 * count)
    enough = min(PER_LEVEL * count, bins // 2)
    magnitudes = _finite(x).abs()
    total, end, found = magnitudes.numel(), math.inf, 0.0
    zeros = int((magnitudes == 0).sum()) / max(total, 1)
    while (magnitudes := magnitudes[magnitudes <= end]).numel():
        largest = float(magnitudes.max())
        if largest == 0:
            break
        cdf = _distribution(magnitudes / largest, bins) * (magnitudes.numel() / total)
        origin = zeros if 2 * (cdf[0] - zeros) > cdf[-1] - zeros else None
        _, threshold = min(_candidates(cdf, count, origin), key=lambda one: (one[0], -one[1]))
        found = max(threshold * largest, math.ulp(0.0))  # 0 is what nothing has
        if threshold * bins >= enough:
            break
        end = min(4 * found, largest / 2)
    return found


def _finite(x: Tensor) -> Tensor:
    if not isinstance(x, Tensor) or x.is_complex() or not has_values(x):
        came = f"one of {x.dtype} on {x.device}" if isinstance(x, Tensor) else type(x).__name__
        raise NumericsError(f"a threshold is found for a tensor of real numbers, not {came}")
    check_readable(x)
    values = x.detach().to(torch.float64)
    return values[values.isfinite()]


def _distribution(shares: Tensor, bins: int) -> Curve:
    """The CDF of values in 0 .. 1, at the upper ends of bins."""
    places = (shares * bins).to(torch.int64).clamp(max=bins - 1)
    counts = torch.bincount(places, minlength=bins).cpu().numpy()
    return np.asarray(np.cumsum(counts) / counts.sum())


def _candidates(cdf: Curve, count: int, origin: float | None) -> Iterator[tuple[float, float]]:
    """The J distance of each threshold, and the threshold as a share of the largest value.

    origin: the CDF at zero, where Q is to begin there.
    """
    before = [] if origin is None else [origin]
    bins = len(cdf)
    for kept in range(bins, count, -max(1, bins // BINS)):
        resampled = np.ones(bins)
        curve = np.concatenate([before, cdf[: kept - 1], [1.0]])
        resampled[:kept] = _resampled(curve, count)[len(before) :]
        threshold = min((kept + 0.5) / bins, 1.0)  # beyond the largest value a power of two may be passed
        yield _distance(cdf, resampled), threshold


def _resampled(curve: Curve, count: int) -> Curve:
    """The curve through `count` of its points, evenly spaced."""
    fine, coarse = np.linspace(0, 1, len(curve)), np.linspace(0, 1, count)
    return np.interp(fine, coarse, np.interp(coarse, fine, curve))


def _distance(p: Curve, q: Curve) -> float:
    some = p > 0
    return float(np.sum((p[some] - q[some]) * np.log2(p[some] / q[some])))


THRESHOLD_INIT: dict[str, Callable[[Tensor, Any], float]] = {
    "_3SD": lambda x, _: threshold_3sd(x),
    "_LL_J": threshold_kl_j,
    "_KL_J": threshold_kl_j,
}
"""By the names of Quark's TQTThresholdInitMeth; `_KL_J` is what its documentation calls `_LL_J`."""
