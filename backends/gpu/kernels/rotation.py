"""The Hadamard rotation of rows (backends/host/hadamard.py): sums and differences in registers."""

from __future__ import annotations

import triton.language as tl

from numerics.backends.gpu.kernels.memory import load_bits, store_bits
from numerics.backends.gpu.primitives import as_bits, as_float


def hadamard_kernel(x, factors, out, rows, cut: tl.constexpr):
    """Rows of cut.size elements; factors: two lines of float32 bits, before the sums and after them."""
    row = tl.program_id(0).to(tl.int64) * cut.tile + tl.arange(0, cut.tile)[:, None]
    column = tl.arange(0, cut.size)[None, :]
    mask, place = (row < rows) & (column >= 0), row * cut.size + column
    y = as_float(load_bits(x, place, mask, cut.kind)) * as_float(tl.load(factors + column))
    stages: tl.constexpr = cut.stages
    for stage in tl.static_range(stages):
        y = tl.reshape(y, [cut.tile, cut.size >> (stage + 1), 2, 1 << stage])
        a, b = tl.split(tl.permute(y, [0, 1, 3, 2]))
        y = tl.reshape(tl.permute(tl.join(a + b, a - b), [0, 1, 3, 2]), [cut.tile, cut.size])
    y = y * as_float(tl.load(factors + cut.size + column))
    store_bits(out, place, as_bits(y), mask, cut.kind, cut.bfloat16)
