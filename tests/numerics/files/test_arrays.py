"""NumPy's own files: read by whatever reads checkpoints, and refused in a line where they hold no numbers."""

from __future__ import annotations

import contextlib
import random
import zipfile

import ml_dtypes
import numpy as np
import pytest

import numerics as nx
from numerics.checkpoints.converting import convert
from numerics.checkpoints.loading import load as load_any
from numerics.checkpoints.looking import compare, inspect
from numerics.files.arrays import ArrayFile, arrays_in

RNG = np.random.default_rng(0)
ARRAYS = {
    "layer.0.weight": RNG.standard_normal((4, 64), np.float32),
    "turned": RNG.standard_normal((3, 5), np.float32).T,
    "big endian": np.arange(5, dtype=">f4"),
    "double": RNG.standard_normal((2, 2)),
    "half": np.array([[1.5, -0.0]], np.float16),
    "count": np.int64(3),
    "mask": np.array([True, False]),
    "empty": np.zeros((0, 4), np.float32),
}


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_arrays_come_as_they_were_written(tmp_path, write):
    path = tmp_path / "m.npz"
    write(path, **ARRAYS)
    for found in (arrays_in(path), load_any(path)):
        assert list(found) == list(ARRAYS)
        for name, x in ARRAYS.items():
            assert (found[name].shape, found[name].dtype) == (x.shape, x.dtype.newbyteorder("="))
            assert found[name].flags.c_contiguous
            assert np.array_equal(found[name], x)


def test_a_lone_array_has_the_name_of_its_file(tmp_path):
    np.save(tmp_path / "x.npy", ARRAYS["layer.0.weight"])
    assert list(load_any(tmp_path / "x.npy")) == ["x"]
    assert ArrayFile(tmp_path / "x.npy").alone
    (tmp_path / "x.npy").rename(tmp_path / "weights.dat")  # known by its first bytes
    assert np.array_equal(load_any(tmp_path / "weights.dat")["weights"], ARRAYS["layer.0.weight"])


def test_it_becomes_a_checkpoint_that_is_the_same(tmp_path):
    source, made = tmp_path / "m.npz", tmp_path / "m.safetensors"
    np.savez(source, **ARRAYS)
    convert(source, made)
    assert [row.name for row in inspect(source)] == list(ARRAYS)
    assert compare(source, made).same
    with pytest.raises(nx.NumericsError, match=r"numerics convert FILE OUT\.safetensors"):
        nx.load(source)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (np.array(["text"]), "holds <U4"),
        (np.zeros(2, np.complex64), "holds complex64"),
        (np.zeros(2, "f4,i4"), "raw bytes"),
        (np.zeros(2, ml_dtypes.bfloat16), "raw bytes, as NumPy writes bfloat16"),
        (np.array([{}], object), "it holds no array of numbers"),
    ],
)
@pytest.mark.parametrize("write", [np.save, np.savez])
def test_what_is_no_number_is_refused_by_name(tmp_path, write, x, said):
    path = tmp_path / ("x.npy" if write is np.save else "x.npz")
    write(path, x)
    with pytest.raises(nx.NumericsError, match=said) as caught:
        load_any(path)
    assert str(path) in str(caught.value)
    assert "allow_pickle" not in str(caught.value)


def test_damaged_files_are_refused_without_much_memory(tmp_path):
    """Lengths that lie, bytes that changed, ends that are cut: an error, or arrays, and nothing else."""
    np.save(tmp_path / "x.npy", np.arange(64, dtype=np.float32))
    np.savez(tmp_path / "x.npz", a=np.arange(64, dtype=np.float32), b=np.zeros((2, 2)))
    draw = random.Random(0)
    for ending in ("npy", "npz"):
        whole, path = (tmp_path / f"x.{ending}").read_bytes(), tmp_path / f"y.{ending}"
        for _ in range(300):
            held = bytearray(whole[: draw.randrange(len(whole))] if draw.random() < 0.3 else whole)
            for _ in range(draw.randrange(4)):
                if held:
                    held[draw.randrange(min(len(held), 512))] = draw.randrange(256)
            path.write_bytes(held)
            with contextlib.suppress(nx.NumericsError):
                assert all(x.nbytes <= len(whole) for x in load_any(path).values())


def test_a_header_that_claims_more_than_the_file_has(tmp_path):
    head = np.lib.format.magic(1, 0)
    told = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }".ljust(117) + b"\n"
    held = head + len(told).to_bytes(2, "little") + told + bytes(64)
    (tmp_path / "x.npy").write_bytes(held)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as zipped:
        zipped.writestr("a.npy", held)
    for name in ("x.npy", "x.npz"):
        with pytest.raises(nx.NumericsError, match="file of numbers"):
            load_any(tmp_path / name)
