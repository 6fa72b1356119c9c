"""Packed codes straight to values under a scale: what unpacking and multiplying give, without the codes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import numerics as nx
from numerics.backends.host import unfused
from numerics.backends.host.executor import Affine
from numerics.backends.partition import Partition
from numerics.formats import dispatch
from tests.helpers.bits import assert_same_bits

rng = np.random.default_rng(17)
PARTITIONS = {
    "per_tensor": Partition((6, 20, 7)), "channels first": Partition((6, 20, 7), 0),
    "channels between": Partition((6, 20, 7), 1), "channels last": Partition((6, 20, 7), 2),
    "groups": Partition((6, 10, 8), 2, 4), "short groups": Partition((6, 20, 7), 2, 4),
    "groups across": Partition((6, 32, 8), 1, 8), "one element": Partition((1,), 0),
    "nothing": Partition((0, 4), 1), "no rows": Partition((4, 0), 0),
}  # fmt: skip
FORMATS = (nx.int2, nx.int3, nx.int4, nx.int8, nx.uint4, nx.integer_format(11), nx.fp6_e2m3, nx.fp8_e4m3)


@pytest.mark.turns(54)
@pytest.mark.parametrize("backend", ["array", "cpu", "reference", "interpreter"])
@pytest.mark.parametrize("name", PARTITIONS)
def test_packed_codes_become_the_values_of_the_codes(monkeypatch, name, backend):
    monkeypatch.setattr(unfused, "TILE", 16)  # tiles must meet without a seam
    owner, partition = dispatch.get(backend), PARTITIONS[name]
    if backend == "interpreter":
        pytest.importorskip("triton")
    for d in FORMATS if backend in ("array", "cpu") else (nx.int3, nx.int4, nx.integer_format(11)):
        codes = rng.integers(0, 1 << d.bits, partition.shape).astype(d.code_dtype)
        for kind in (np.float32, np.float64):
            scale = np.asarray(np.exp2(rng.uniform(-4, 2, partition.shared)).astype(kind))
            zeros = (None, np.asarray(rng.integers(0, 3, partition.shared).astype(np.int32)),
                     np.asarray(rng.uniform(0, 3, partition.shared).astype(kind)))  # fmt: skip
            for zero in zeros if d.kind == "integer" else zeros[:1]:
                affine = Affine(scale, zero)
                came = owner.dequantize_packed(d.pack(codes), d, partition, affine)
                assert_same_bits(came, owner.decode_affine(codes, d, partition, affine))


@pytest.mark.parametrize("backend", ["array", "cpu"])
@pytest.mark.parametrize("scheme", [nx.per_tensor(), nx.per_group(128)], ids=repr)
def test_dequantizing_keeps_no_codes_in_memory(backend, scheme):
    n = 1 << 22
    with nx.use(backend):
        q = nx.quantize(rng.standard_normal((n >> 10, 1 << 10)).astype(np.float32), "int4", scheme=scheme)
        q.dequantize()
        tracemalloc.start()
        try:
            values = q.dequantize()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert values.nbytes <= peak < values.nbytes + n // 2  # codes would take n bytes
