"""Hypothesis strategies of the inputs that matter, drawn from a format's own row (inputs/)."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from numerics.backends.host.ieee import inside_ieee
from numerics.conform.inputs import blocks as block_probes
from numerics.conform.inputs import elements as probes
from numerics.conform.inputs import shapes
from numerics.formats.block import Block
from numerics.formats.dtype import Element
from numerics.formats.rounding import RANDOM_BITS

Float32 = NDArray[np.float32]


@inside_ieee
def values(dtype: Element) -> st.SearchStrategy[np.float32]:
    """One float32 number: a turning point of the format, a special, another probe, or any bits at all.

    >>> from numerics.formats import fp4
    >>> from hypothesis import find
    >>> find(values(fp4), lambda x: x > 6) > 6
    np.True_
    """
    signed = np.concatenate([probes.SPECIALS, probes.SPECIALS | probes.SIGN])
    sources = (probes.turning_points(dtype).view(np.uint32), signed, probes.probes(dtype).view(np.uint32))
    return st.one_of(*map(_one_of, sources), st.integers(0, 0xFFFFFFFF)).map(_float32)


def _one_of(bits: NDArray[np.uint32]) -> st.SearchStrategy[int]:
    return st.integers(0, len(bits) - 1).map(lambda place: int(bits[place]))


def _float32(bits: int) -> np.float32:
    return np.uint32(bits).view(np.float32)


@st.composite
def arrays(draw: Any, dtype: Element, max_side: int = 40) -> Float32:
    """float32 arrays of any shape and strides, empty ones too, filled with `values`."""
    sizes = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=max_side)
    bits = values(dtype).map(lambda x: int(x.view(np.uint32)))
    x: Float32 = draw(npst.arrays(np.uint32, sizes, elements=bits, fill=st.just(0))).view(np.float32)
    turned = x.T if draw(st.booleans(), label="turned") else x
    return turned[::2] if x.ndim and draw(st.booleans(), label="every second") else turned


def random_bits(shape: tuple[int, ...]) -> st.SearchStrategy[NDArray[np.uint32]]:
    """Random bits for stochastic rounding, the least and the greatest among them."""
    most = (1 << RANDOM_BITS) - 1
    one = st.one_of(st.sampled_from((0, 1, most // 2, most // 2 + 1, most)), st.integers(0, most))
    return npst.arrays(np.uint32, shape, elements=one)


def codes(dtype: Element, max_side: int = 40) -> st.SearchStrategy[NDArray[Any]]:
    """Arrays of codes of any shape."""
    sizes = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=max_side)
    return npst.arrays(dtype.code_dtype, sizes, elements=st.integers(0, (1 << dtype.bits) - 1))


@st.composite
def blocks(draw: Any, dtype: Block, axis: int = -1) -> Float32:
    """float32 tensors to be blocked along `axis`: maxima at thresholds, the grid, short last blocks.

    >>> from numerics.formats import mxfp4
    >>> from hypothesis import find
    >>> find(blocks(mxfp4), lambda x: x.shape[-1] % 32 == 1).shape[-1] % 32
    1
    """
    rows = block_probes.probes(dtype)
    length = draw(st.one_of(st.sampled_from(shapes.lengths(dtype.block)), st.integers(0, 3 * dtype.block)))
    count = draw(st.integers(1, 3))
    per_line = -(-length // dtype.block)
    chosen = draw(
        st.lists(st.integers(0, len(rows) - 1), min_size=count * per_line, max_size=count * per_line)
    )
    lines = rows[chosen].reshape(count, per_line * dtype.block)[:, :length]
    place = st.tuples(st.integers(0, count - 1), st.integers(0, max(length - 1, 0)))
    lines = lines.copy()
    for at in draw(st.lists(place, max_size=3)) if length else ():
        lines.view(np.uint32)[at] = draw(st.integers(0, 0xFFFFFFFF))
    return shapes.placed(lines, axis)
