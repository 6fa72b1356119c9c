"""Kernels of products: tiles, tails, threads and batches that change no bit."""

import numpy as np
import pytest

import numerics as nx
from numerics.backends.array import BACKEND as ARRAY
from numerics.backends.cpu import EXECUTOR
from numerics.backends.cpu.product import calls, codes, vectors
from numerics.backends.cpu.product.blocked import Tile
from numerics.backends.host.product import Int8Rows, Matrix, order_of
from tests.helpers.bits import assert_same_bits
from tests.helpers.matrices import IN_INT8, MATRICES, matrix, rows

CODES = [name for name, spec in MATRICES.items() if order_of(spec, (5, 192)).kind != "values"]


def of(q) -> Matrix:
    shared, zero = (None if part is None else np.asarray(part) for part in (q.shared, q.zero_point))
    return Matrix(q.packed, shared, zero, q.tensor_scale, q.spec, q.shape)


def due(x, q):
    """By NumPy, which tests/backends/host compares with fractions."""
    return ARRAY.executor.products(x, of(q))


@pytest.mark.turns(18)
@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("many", [1, 3, calls.FEW + 9, calls.FEW_AT_EASE + 3])
def test_tiles_change_the_sums(name, many):
    for shape in ((1, 192), (50, 64), (6, 576), (5, 24), (3, 120)):
        x, q = rows(many, shape[1]), matrix(name, shape)
        assert_same_bits(EXECUTOR.products(x, of(q)), due(x, q))


@pytest.mark.turns(18)
@pytest.mark.parametrize("name", CODES)
def test_a_row_depends_on_its_batch(name):
    x, q = rows(calls.FEW_AT_EASE + 5, 192), matrix(name, (9, 192))
    whole = nx.linear(x, q)
    most = (slice(0, limit + 1) for limit in (calls.FEW, calls.FEW_OF_SMALL))
    for part in (slice(0, 1), slice(3, 5), slice(2, 9), *most):
        assert_same_bits(nx.linear(x[part], q), whole[part])
    assert_same_bits(nx.linear(x, q[2:5]), whole[:, 2:5])


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("many", [1, 4, 20, calls.FEW_AT_EASE + 9])
def test_threads_change_the_sums(threads, many, monkeypatch):
    monkeypatch.setenv("NUMERICS_NUM_THREADS", str(threads))
    monkeypatch.setattr(calls, "WORTHWHILE", 1)
    for name in ("mxfp4", "mx6", "nvfp4", "int4 groups", "int8 rows offset", "fp8_e5m2"):
        x, q = rows(many, 128), matrix(name, (103, 128))
        assert_same_bits(EXECUTOR.products(x, of(q)), due(x, q))


@pytest.mark.parametrize("block", [1, 5, 12])
@pytest.mark.parametrize("long", [1 << 10, 1 << 15])
def test_parts_of_rows_and_blocks_change_the_sums(block, long, monkeypatch):
    """Rows are decoded a few at a time, and a part of their spans at a time, of which a few are near."""
    monkeypatch.setattr(calls, "NEAR", 1 << 9)
    monkeypatch.setattr(calls, "LONG", long)
    monkeypatch.setattr(calls, "PART", long)
    monkeypatch.setattr(calls, "BLOCK", block)
    for name in ("mxfp4", "int4 groups", "mx9", "int8 offset"):
        x, q = rows(39, 576), matrix(name, (23, 576))
        assert_same_bits(EXECUTOR.products(x, of(q)), due(x, q))


@pytest.mark.parametrize("name", ["mxfp4", "mxfp8_e4m3", "mxfp8_e5m2", "nvfp4", "mx6", "mx9", "bfp16"])
def test_a_code_or_a_scale_is_read_as_another(name):
    """Bytes in no order: every code, every scale, NaN and Inf among them."""
    q = matrix(name, (64, 256))
    rng = np.random.default_rng(5)
    for part in (q.packed, q.shared):
        if part is not None:
            part[...] = np.resize(rng.permutation(256), part.shape)
    for many in (1, 12):
        x = rows(many, 256)
        found, expected = EXECUTOR.products(x, of(q)), due(x, q)
        assert np.array_equal(np.isnan(found), np.isnan(expected))
        finite = ~np.isnan(expected)
        assert_same_bits(found[finite], expected[finite])
        assert finite.any() or name in ("mxfp8_e5m2", "mxfp8_e4m3")


@pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan, -0.0, 1e-45, 3e38])
def test_what_is_special_in_x_stays_in_its_row(special):
    x, q = rows(3, 64), matrix("mxfp4", (5, 64))
    x[1, 17] = special
    found = EXECUTOR.products(x, of(q))
    assert np.array_equal(found, due(x, q), equal_nan=True)
    assert np.isfinite(found[[0, 2]]).all()


LACKS = {
    "all": {"avx512f", "avx512bw", "avx512vnni", "avxvnni", "avx2", "fma"},
    "AVX-512": {"avx512f", "avx512bw", "avx512vnni"},
    "AVX-512 and VNNI": {"avx512f", "avx512bw", "avx512vnni", "avxvnni"},
    "VNNI": {"avx512vnni", "avxvnni"},
    "AVX-512 for bytes": {"avx512bw", "avx512vnni"},
}


@pytest.fixture(params=LACKS)
def lesser(request, monkeypatch):
    """A processor that lacks some of what the one at hand has; its kernels have names of their own."""
    has, lacks = vectors.has, LACKS[request.param]
    monkeypatch.setattr(vectors, "has", lambda feature: feature not in lacks and has(feature))
    name = "_".join(["without", *request.param.split()])
    monkeypatch.setattr(codes.Codes, "name", property(lambda own: f"{name}_{hash(own)}"))
    memories = calls._codes_of, calls._codes_of_blocks, calls._counted
    for memory in memories:
        memory.cache_clear()
    yield
    for memory in memories:
        memory.cache_clear()


@pytest.mark.turns(6)
def test_without_an_instruction_for_it_sums_are_fused_otherwise(lesser):
    """Where a CPU has no fused multiply-add, none that shuffles bytes, no large registers: the same bits."""
    for name in ("mxfp4", "int4 groups", "mx6", "fp8_e5m2", "mxfp6_e2m3", "int3 groups"):
        for many in (1, 11, calls.FEW_AT_EASE + 3):
            x, q = rows(many, 192), matrix(name, (6, 192))
            assert_same_bits(EXECUTOR.products(x, of(q)), due(x, q))


@pytest.mark.parametrize("tile", [Tile(4, 4, 16), Tile(4, 4, 4), Tile(2, 2, 4)], ids=["avx512", "arm", "sse"])
def test_tiles_of_other_processors_change_the_sums(tile, monkeypatch):
    """Those of AVX-512, ARM and SSE, whatever the processor at hand has."""
    monkeypatch.setattr(calls, "best_tile", lambda codes: tile)
    monkeypatch.setattr(calls, "DOT", calls.DOT._replace(rows=lambda codes, together: tile.width // 8 or 1))
    for name in ("mxfp4", "int8 rows offset"):
        for many in (2, 11, calls.FEW_AT_EASE + 3):
            x, q = rows(many, 576), matrix(name, (7, 576))
            assert_same_bits(EXECUTOR.products(x, of(q)), due(x, q))


def test_nothing_is_read_or_written_beside_the_arrays():
    """The last row ends where its memory does: a tail that is read whole would leave the page."""
    for name in ("mxfp4", "mx6", "int3 groups", "uint4 groups"):
        for length in (96, 104):  # that ends in a short block, too
            q, x = matrix(name, (3, length)), rows(2, length)
            assert_same_bits(EXECUTOR.products(x, of(q)), due(x, q))
        assert EXECUTOR.products(x[:0], of(q)).shape == (0, 3)


# ---- in int8 -----------------------------------------------------------------------------------------


def integers(many, q, seed=1) -> Int8Rows:
    """Every code that x can have, and scales over some binades."""
    rng, (_, length), group = np.random.default_rng(seed), q.shape, of(q).order.group
    codes = rng.integers(-127, 128, (many, length)).astype(np.int8)
    codes.flat[:: max(codes.size // 50, 1)] = 127
    shape = (many, -(-length // group)) if group else (many,)
    return Int8Rows(codes, np.exp2(rng.integers(-9, 9, shape)).astype(np.float32) * np.float32(1.1))


@pytest.mark.turns
@pytest.mark.parametrize("name", IN_INT8)
@pytest.mark.parametrize("many", [1, 3, 10])
def test_tiles_change_the_sums_of_integers(name, many):
    for shape in ((1, 192), (50, 64), (6, 576), (2, 32)):
        q = matrix(name, shape)
        x = integers(many, q)
        assert_same_bits(EXECUTOR.products(x, of(q)), due(x, q))


@pytest.mark.parametrize("name", IN_INT8)
def test_every_code_times_every_integer(name):
    """Sums of four at their ends: 16 bits would overflow where they were trusted too far."""
    q = matrix(name, (8, 256))
    q.packed[...] = np.random.default_rng(5).integers(0, 256, q.packed.shape)
    q.packed[: q.packed.size // 4] = 0x77  # the largest, and by turns the least, of 4 bits
    q.packed[q.packed.size // 4 : q.packed.size // 2] = 0x88
    for sign in (1, -1):
        x = integers(2, q)
        x.codes[0] = 127 * sign
        assert_same_bits(EXECUTOR.products(x, of(q)), due(x, q))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_and_caches_change_the_sums_of_integers(threads, monkeypatch):
    monkeypatch.setenv("NUMERICS_NUM_THREADS", str(threads))
    monkeypatch.setattr(calls, "WORTHWHILE", 1)
    monkeypatch.setattr(calls, "CACHED", 1 << 10)
    for name in ("mxfp4", "int4 groups", "int8 rows offset"):
        for many in (1, 13):
            q = matrix(name, (103, 128))
            x = integers(many, q)
            assert_same_bits(EXECUTOR.products(x, of(q)), due(x, q))


@pytest.mark.turns(6)
def test_without_an_instruction_for_it_integers_are_summed_otherwise(lesser):
    """By VNNI of both widths, by AVX2, and one after the other: the same bits."""
    for name in ("mxfp4", "uint8", "int4 groups of 64", "uint4 groups", "int8 rows offset", "mine of 4 bits"):
        for many in (1, 5):
            q = matrix(name, (6, 192))
            x = integers(many, q)
            assert_same_bits(EXECUTOR.products(x, of(q)), due(x, q))
