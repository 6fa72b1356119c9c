"""Rows of blocks that share a scale (NVFP4 of 16 x 16), and per_block schemes, whatever their edges."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import numerics as nx
from numerics.cli import commands
from tests.helpers.by_fractions import rounded
from tests.helpers.tensors import everywhere

SHAPES = [(16, 32), (33, 20), (2, 17, 18)]
E4M3 = sorted({(1 + m / 8) * 2.0 ** (e - 7) if e else m / 8 * 2.0**-6 for e in range(16) for m in range(8)})[
    :-1
]
E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


def nearest(y: Fraction, grid: list[float]) -> int:
    """The place of the nearest number; at a tie the even place; beyond the end the last."""
    return min(range(len(grid)), key=lambda k: (abs(Fraction(grid[k]) - y), k % 2))


def float32(y: Fraction) -> Fraction:
    return Fraction(rounded(y, "float32"))


def nvfp4_of_a_tile(tile: np.ndarray, ts: Fraction) -> tuple[int, np.ndarray]:
    """docs/formats.md §8, word by word, of a whole tile: the scale's code, and the values."""
    amax = max(abs(Fraction(float(v))) for v in tile.reshape(-1))
    code = nearest(float32(float32(amax / 6) / ts), E4M3)
    total = float32(ts * Fraction(E4M3[code]))
    values = np.zeros(tile.shape, np.float32)
    for place, v in np.ndenumerate(tile):
        y = float32(abs(Fraction(float(v))) / total) if total else Fraction(0)
        values[place] = np.copysign(float(float32(total * Fraction(E2M1[nearest(y, E2M1)]))), v)
    return code, values


def tiles(shape: tuple[int, ...], rows: int, columns: int):
    for outer in np.ndindex(*shape[:-2]):
        for i in range(0, shape[-2], rows):
            for j in range(0, shape[-1], columns):
                yield (*outer, slice(i, i + rows), slice(j, j + columns))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_tile_of_nvfp4_has_the_scale_of_its_largest_element_in_every_row(shape):
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    ts = float32(Fraction(float(np.abs(x).max())) / 2688)
    values, scale = np.zeros_like(x), np.zeros((*shape[:-1], -(-shape[-1] // 16)), np.uint8)
    for at in tiles(shape, 16, 16):
        code, values[at] = nvfp4_of_a_tile(x[at], ts)
        scale[(*at[:-1], at[-1].start // 16)] = code
    for data in everywhere(x):
        q = nx.quantize(data, "nvfp4", scheme="per_block((16, 16))")
        assert np.array_equal(np.asarray(q.scale), scale)
        assert np.array_equal(np.asarray(q.dequantize()), values)
        assert np.array_equal(np.asarray(nx.fake_quantize(data, q.spec)), values)


@pytest.mark.parametrize("dtype", ["int8", "fp8_e4m3"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_block_of_a_scheme_is_quantized_as_a_tensor_of_its_own(shape, dtype):
    x = np.random.default_rng(4).standard_normal(shape).astype(np.float32)
    due, asymmetric = np.zeros_like(x), {"symmetric": False} if dtype == "int8" else {}
    for at in tiles(shape, 5, 8):
        due[at] = nx.quantize(x[at], dtype, **asymmetric).dequantize()
    for data in everywhere(x):
        q = nx.quantize(data, dtype, scheme=nx.per_block((5, 8)), **asymmetric)
        assert np.array_equal(np.asarray(q.dequantize()), due)
        assert np.array_equal(np.asarray(nx.fake_quantize(data, q.spec)), due)


@pytest.mark.parametrize("d", ["mxfp4", "nvint4", "nvfp4"])
def test_tiles_of_one_row_are_the_format_itself_and_draws_stay_with_their_elements(d):
    x = np.random.default_rng(5).standard_normal((9, 40)).astype(np.float32)
    block = nx.dtype(d).block
    plain = nx.fake_quantize(x, d, rounding="stochastic", seed=7)
    assert np.array_equal(
        nx.fake_quantize(x, d, scheme=nx.per_block((1, block)), rounding="stochastic", seed=7), plain
    )
    same = (
        np.repeat(np.abs(x).max(keepdims=True), 9 * 40).reshape(9, 40).astype(np.float32)
    )  # one scale for all
    drawn = nx.fake_quantize(same, d, scheme=nx.per_block((4, block)), rounding="stochastic", seed=7)
    assert np.array_equal(drawn, nx.fake_quantize(same, d, rounding="stochastic", seed=7))
    bits = torch.from_numpy(nx.random_bits((9, 40), 7).astype(np.int32))
    spec = nx.QuantSpec(d, scheme=nx.per_block((4, block)), rounding="stochastic")
    given = nx.fake_quantize(torch.from_numpy(same), spec, random_bits=bits)
    assert np.array_equal(given.numpy(), drawn)


@pytest.mark.parametrize(("dtype", "scheme"), [
    ("nvfp4", "per_block((16, 16))"), ("fp8_e4m3", "per_block((5, 8))"), ("int4", "per_block((5, 8))"),
    ("int8", "per_token()"),
])  # fmt: skip
def test_files_slices_and_products_keep_what_shares_a_scale(dtype, scheme, tmp_path):
    x = np.random.default_rng(6).standard_normal((40, 48)).astype(np.float32)
    q = nx.quantize(x, dtype, scheme=scheme)
    nx.save({"w": x}, tmp_path / "x.safetensors")
    command = ["quantize", "x.safetensors", "q.safetensors", "--dtype", dtype, "--scheme", scheme]
    found = CliRunner().invoke(
        commands, [str(tmp_path / w) if w.endswith("safetensors") else w for w in command]
    )
    assert found.exit_code == 0, found.output
    kept = nx.load(tmp_path / "q.safetensors")["w"]
    assert (kept.spec, kept.spec.scheme) == (q.spec, nx.Scheme.parse(scheme))
    assert np.array_equal(kept.dequantize(), q.dequantize())
    assert np.array_equal(q[5:40:1, 16:].dequantize() if dtype != "int8" else q[5:].dequantize()[:, 16:],
                          q.dequantize()[5:, 16:])  # fmt: skip
    y = np.random.default_rng(7).standard_normal((3, 48)).astype(np.float32)
    assert np.allclose(nx.linear(y, q), y @ q.dequantize().T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("make", "said"), [
    (lambda: nx.QuantSpec("nvfp4", scheme="per_block((16, 32))"), r"per_block\(\(16, 16\)\)"),
    (lambda: nx.QuantSpec("nvfp4", scheme="per_block((16, 16))", axis=0), "along the last axis"),
    (lambda: nx.QuantSpec("mx6", scheme="per_block((16, 16))"), "among the codes"),
    (lambda: nx.QuantSpec("nvfp4", scheme="per_token"), "cannot be: blocks have a size of their own"),
    (lambda: nx.quantize(np.ones(32, np.float32), "nvfp4", scheme="per_block((16, 16))"), "needs two axes"),
])  # fmt: skip
def test_a_scheme_that_blocks_cannot_have_is_refused(make, said):
    with pytest.raises(nx.NumericsError, match=said):
        make()


@pytest.mark.parametrize("rows", [1, 2, 16])
@pytest.mark.parametrize("like", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_scales_of_one_row_of_tiles_lay_in_memory_that_may_not_be_written(like, rows):
    """torch warned of it, and -W error made it an error; scales are the tensor's own."""
    x = np.linspace(-3, 3, rows * 64, dtype=np.float32).reshape(rows, 64)
    for d, scheme in (("nvfp4", "per_block((16, 16))"), ("mxfp4", "per_block((32, 32))")):
        q = nx.quantize(like(x), d, scheme=scheme)
        q.shared[...] = q.shared.copy() if isinstance(q.shared, np.ndarray) else q.shared.clone()
        if not isinstance(q.shared, np.ndarray):
            assert q.shared.numpy().flags.writeable
