"""Observers: they watch tensors batch by batch, and say by which scale to quantize them.

Memory stays bounded however many batches come.  What several observers saw, in one process or in
many, joins exactly: `merge`, `all_reduce`.

>>> import numpy as np, numerics as nx
>>> from numerics import observe
>>> watching = observe.MinMax("int8", symmetric=False)
>>> for batch in np.float32([[-1, 2], [0.5, 3]]), np.float32([[0.25, 4.1]]):
...     watching.observe(batch)
>>> scale, zero_point = watching.scale, watching.zero_point
>>> nx.quantize(np.float32([3, -1]), "int8", symmetric=False, scale=scale, zero_point=zero_point).dequantize()
array([ 3., -1.], dtype=float32)
"""

from __future__ import annotations

from typing import Any

from numerics.formats.arguments import answer_calls, keywords
from numerics.formats.errors import NumericsError
from numerics.observe.base import Observer
from numerics.observe.divergence import KL
from numerics.observe.extremes import MinMax, MovingAverage, Pof2
from numerics.observe.histogram import Histogram, Percentile
from numerics.observe.recipe import parsed, text_of
from numerics.observe.search import MSE, Pof2MSE

__all__ = [
    "KL",
    "MSE",
    "OBSERVERS",
    "Histogram",
    "MinMax",
    "MovingAverage",
    "Observer",
    "Percentile",
    "Pof2",
    "Pof2MSE",
    "observer",
    "observer_text",
]

OBSERVERS: dict[str, type[Observer]] = {
    "min_max": MinMax,
    "moving_average": MovingAverage,
    "percentile": Percentile,
    "mse": MSE,
    "kl": KL,
    "pof2": Pof2,
    "pof2_mse": Pof2MSE,
}


OWN = {name: kind.own for name, kind in OBSERVERS.items()}
"""Of each, the names of its own options; the first may stand without its name in a text."""


@keywords
def observer(name: str, dtype: Any, **options: Any) -> Observer:
    """Returns an observer by its name, for that format.

    name: min_max, moving_average, percentile, mse, kl, pof2 or pof2_mse; the classes say what each finds.
        Its own options may stand in parentheses, as in "percentile(99.9)", "mse(bins=512)", "pof2(ceil)": so
        `nx.plan` and `nx.wrap` take them too.
    dtype: an integer or float format, or its name; or a QuantSpec, which says the first four options at once.
    Of nvfp4 the tensor scale is observed.
    options: scheme, symmetric, scale_type, zero_point_type, and the observer's own, such as percentile=99.9.
    Raises NumericsError for an unknown name, for an option that is given twice, and what the observer raises.

    >>> observer("percentile(99.9)", "int4", scheme="per_channel(1)")
    Percentile(int4 per_channel(1), percentile=99.9, bins=256, batches=0)
    """
    kind, told = parsed(name, OWN)
    for twice in told.keys() & options.keys():
        raise NumericsError(f"{twice} is given in the observer's name and beside it; give it once")
    return OBSERVERS[kind](dtype, **told, **options)


@keywords
def observer_text(came: Any) -> str:
    """The one text of an observer, its options checked; raises NumericsError for what none has.

    >>> observer_text(" percentile( percentile = 99.90 )")
    'percentile(99.9)'
    """
    name, told = parsed(came, OWN)
    try:
        OBSERVERS[name]("int4", **told)
    except NumericsError as wrong:
        raise NumericsError(f"observer={came!r}: {wrong}") from None
    return text_of(name, told, OWN[name])


answer_calls(__name__)
