"""Errors of a file's tensors: the bits of the whole tensor, whatever the parts and the threads."""

from __future__ import annotations

import numpy as np
import pytest

import numerics as nx
from numerics.backends.host.sums import CHUNK
from numerics.checkpoints import Request, quantize
from numerics.checkpoints.job import Options
from numerics.files import stream
from numerics.files.chunks import Cut, size
from numerics.files.stretches import Joined, Stretch
from numerics.tensor.qtensor import ArrayQTensor, ErrorSums

SPECS = [
    nx.QuantSpec("mxfp4"), nx.QuantSpec("nvfp4"), nx.QuantSpec("mx6"), nx.QuantSpec("int8"),
    nx.QuantSpec("int4", scheme="per_group(40)"), nx.QuantSpec("int8", scheme="per_channel(1)"),
]  # fmt: skip


def odd(shape):
    """Many magnitudes."""
    rng = np.random.default_rng(7)
    return (rng.standard_normal(shape) * np.exp2(rng.integers(-9, 9, shape))).astype(np.float32)


@pytest.mark.turns(6)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.dtype}-{spec.scheme}")
@pytest.mark.parametrize("threads", ["1", "3"])
def test_the_memory_of_a_job_showed_in_the_last_bits_of_its_report(tmp_path, monkeypatch, spec, threads):
    x = odd((1003, 1000))
    x[3], x[77] = np.nan, -np.inf
    nx.save({"w": x}, tmp_path / "m.safetensors")
    due = nx.quantize(x, spec).error(x)
    monkeypatch.setenv("NUMERICS_NUM_THREADS", threads)
    for memory, part in [
        (64 << 20, stream.CACHED),
        (64 << 20, 30_000),
        (1 << 20, stream.CACHED),
        (1 << 17, 999),
    ]:
        monkeypatch.setattr(stream, "CACHED", part)
        out = tmp_path / f"{memory}-{part}"
        (found,) = quantize(
            tmp_path / "m.safetensors", out, Request(spec), Options(max_memory=memory)
        ).tensors
        assert found.sqnr > 5
        assert (found.sqnr, found.max_error, found.non_finite) == (due.sqnr, due.max_error, due.non_finite)


@pytest.mark.parametrize("axis", [0, 1])
def test_blocks_of_another_axis_are_summed_in_the_order_in_which_they_are_stored(tmp_path, axis):
    x, found = odd((320, 1000)), set()
    nx.save({"w": x}, tmp_path / "m.safetensors")
    for memory in (64 << 20, 1 << 20, 1 << 17):
        request = Request(nx.QuantSpec("mx6", axis=axis))
        report = quantize(tmp_path / "m.safetensors", tmp_path / "o", request, Options(max_memory=memory))
        found.add((report.tensors[0].sqnr, report.tensors[0].max_error, report.sums.signal))
    assert len(found) == 1


@pytest.mark.parametrize(
    "cuts", [[], [0, 0], [1, 2, 3], [CHUNK], [CHUNK - 1, CHUNK + 1, 2 * CHUNK], [5, 3 * CHUNK]]
)
def test_stretches_are_joined_where_chunks_are(cuts):
    x = np.random.default_rng(1).standard_normal(3 * CHUNK + 77).astype(np.float32)
    y = np.round(x, 1)
    due, joined, alone, each = ErrorSums(), Joined(True), Joined(False), ErrorSums()
    due.add(x, y)
    for first, last in zip([0, *cuts], [*cuts, x.size], strict=True):
        joined.add(Stretch.of(x[first:last], y[first:last], first))
        alone.add(Stretch.of(x[first:last], y[first:last], 0))
        each.add(x[first:last], y[first:last])
    assert joined.end() == due
    assert alone.end() == each


def never(*_):
    raise AssertionError("codes were decoded into memory")


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shape", [(1100, 352), (65, 4096), (7, 64), (40, 20480)], ids=str)
def test_a_report_decoded_what_was_quantized(tmp_path, monkeypatch, kind, shape):
    """Of what lies as it is stored nothing is decoded into memory: parts end where chunks do."""
    torch = pytest.importorskip("torch")
    x = odd(shape)
    nx.save({"w": torch.from_numpy(x).to(getattr(torch, kind))}, tmp_path / "m.safetensors")
    monkeypatch.setattr(stream, "CACHED", 100_000)
    for spec in SPECS[:4]:
        q = nx.quantize(torch.from_numpy(x).to(getattr(torch, kind)), spec)
        due = q.error(torch.from_numpy(x).to(getattr(torch, kind)))
        with monkeypatch.context() as patch:
            patch.setattr(ArrayQTensor, "decoded", never)
            request = Request(spec)
            (found,) = quantize(tmp_path / "m.safetensors", tmp_path / f"{spec.dtype}", request).tensors
        assert (found.sqnr, found.max_error) == (due.sqnr, due.max_error)


@pytest.mark.parametrize("shape", [(1100, 352), (65, 4096), (7, 1000), (3, 40, 512), (5,)], ids=str)
def test_parts_hold_whole_chunks_where_none_is_twice_as_long(shape):
    cut = Cut(shape, tuple(range(len(shape))), 4)
    for most in (1 << 12, 100_000, 1 << 19):
        sizes = [size(piece) for piece in cut.pieces(most, CHUNK, 2 * most)]
        plain = [size(piece) for piece in cut.pieces(most)]
        assert sum(sizes) == sum(plain) == np.prod(shape)
        if sizes[0] % CHUNK:
            assert sizes == plain
        assert max(sizes) <= max(2 * most, *plain)
    assert size(next(Cut((1100, 352), (0, 1), 4).pieces(100_000, CHUNK, 200_000))) == 512 * 352
