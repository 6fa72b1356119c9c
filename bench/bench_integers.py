"""Integers with a scale a row or a group."""

from __future__ import annotations

import numpy as np

import numerics as nx
from bench import ceiling, peers
from bench.measure import Contest
from numerics.backends.cpu import EXECUTOR
from numerics.backends.host.executor import Affine
from numerics.formats.rounding import Rounding

COLUMNS = 1024


def contest(name: str, group: int, what: str) -> object:
    """round_affine or encode_affine_packed with given scales, one every `group` elements."""

    def make(n: int) -> Contest:
        d = nx.dtype(name)
        x = np.random.default_rng(0).standard_normal((n // group, group), np.float32)
        affine = Affine(np.full(len(x), 3 / d.max, np.float32), None)
        executor = EXECUTOR
        call = executor.round_affine if what == "fake" else executor.encode_affine_packed
        out = nx.empty(x.shape) if what == "fake" else nx.empty(n * d.bits // 8, np.uint8)
        written = x.nbytes if what == "fake" else n * d.bits // 8
        copy, size = ceiling.copy(x.reshape(-1)) if what == "fake" else ceiling.encode(x.reshape(-1), d.bits)
        low, high = int(d.min), int(d.max)
        others = peers.integers(x, affine.scale, low, high, name) if group == COLUMNS else {}
        if what != "fake":
            others = peers.integer_codes(x, affine.scale) if group == COLUMNS else {}
        return Contest(lambda: call(x, d, affine, Rounding(), out), x.nbytes + written, copy, size, others)

    return make


CASES = {
    "fake_quantize int8 per_channel": contest("int8", COLUMNS, "fake"),
    "fake_quantize int4 per_channel": contest("int4", COLUMNS, "fake"),
    "fake_quantize int4 per_group 128": contest("int4", 128, "fake"),
    "store int4 per_channel": contest("int4", COLUMNS, "pack"),
    "store int8 per_channel": contest("int8", COLUMNS, "pack"),
}
