"""Shapes under which things are remembered: equal sizes of other types leave nothing wrong behind."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest

import numerics as nx
from numerics.backends.partition import blocks_along
from numerics.tensor.parts import parts_of

SPECS = [
    nx.QuantSpec("int8"),
    nx.QuantSpec("int8", symmetric=False, scheme=nx.per_channel(0)),
    nx.QuantSpec("int4", scheme=nx.per_group(16)),
    nx.QuantSpec("fp8_e4m3", scheme=nx.per_token()),
    nx.QuantSpec("int4", scheme=nx.per_block((16, 16))),
    nx.QuantSpec("mxfp4"),
    nx.QuantSpec("nvfp4"),
    nx.QuantSpec("mx9"),
]


@pytest.mark.parametrize("one", [1.0, True, np.int64(1), np.True_, np.float32(1)])
@pytest.mark.parametrize("number", range(len(SPECS)))
def test_a_shape_of_sizes_that_only_equal_integers_is_remembered(one, number):
    spec = SPECS[number]
    rows = 401 + number  # a shape that nothing else has asked for
    came = (one, rows, 64)
    for ask in (
        spec.shared_shape, spec.packed_bytes, lambda shape: parts_of(spec, shape, "float32"),
        lambda shape: blocks_along(-1, shape, 32),
    ):  # fmt: skip
        with suppress(nx.NumericsError, TypeError):
            ask(came)
    due = (1, rows, 64)
    sizes = [*spec.shared_shape(due), *blocks_along(-1, due, 32).shape, spec.packed_bytes(due)]
    sizes += [size for part in parts_of(spec, due, "float32").values() for size in part.shape]
    assert {type(size) for size in sizes} == {int}
    x = np.random.default_rng(0).standard_normal(due).astype(np.float32)
    nx.fake_quantize(x, spec)
    assert nx.quantize(x, spec).dequantize().shape == due
