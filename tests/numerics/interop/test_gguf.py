"""GGUF's blocks against the gguf package: what it reads of ours, and what we read of its own."""

import numpy as np
import pytest

pytest.importorskip("gguf")
pytest.importorskip("torch")
import gguf
import torch

import numerics as nx
from numerics.interop import from_gguf, gguf_type, to_gguf
from tests.helpers.bits import assert_same_bits

LIBRARIES = {"numpy": np.asarray, "torch": torch.from_numpy}
SPECS = {
    "MXFP4": nx.QuantSpec("mxfp4"),
    "NVFP4": nx.QuantSpec("nvfp4"),
    "Q8_0": nx.QuantSpec("int8", scheme="per_group(32)", scale_type="float16"),
    "Q4_0": nx.QuantSpec("int4", scheme="per_group(32)", scale_type="float16"),
}
NUMBERS = {"MXFP4": 39, "NVFP4": 40, "Q8_0": 8, "Q4_0": 2}


def data(shape, seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * np.exp2(rng.integers(-6, 6, shape))).astype(np.float32)


def read(blocks, name: str) -> np.ndarray:
    """What the gguf package makes of blocks."""
    kind = gguf.GGMLQuantizationType[name]
    assert kind == NUMBERS[name]
    return gguf.quants.dequantize(np.asarray(blocks), kind)


def assert_same_values(ours, theirs):
    """The same bits, but that ggml reads MXFP4's -0 as 0: adding 0 makes it so here."""
    assert_same_bits(np.asarray(ours) + np.float32(0), theirs + np.float32(0))


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_gguf_reads_the_values(name, library):
    alone = {"tensor_scale": 1.0} if name == "NVFP4" else {}  # ggml multiplies by another when it is done
    q = nx.quantize(LIBRARIES[library](data((6, 128))), SPECS[name], **alone)
    blocks = to_gguf(q)
    assert gguf_type(q) == name
    assert tuple(blocks.shape) == gguf.quant_shape_to_byte_shape((6, 128), gguf.GGMLQuantizationType[name])
    assert_same_values(q.dequantize(), read(blocks, name))


@pytest.mark.parametrize("name", [name for name in SPECS if name != "NVFP4"])  # which it cannot make
@pytest.mark.parametrize("library", LIBRARIES)
def test_blocks_of_the_gguf_package_are_read_as_it_reads_them_and_written_back(name, library):
    """Its encoders choose other codes, and for Q4_0 scales below zero."""
    theirs = gguf.quants.quantize(data((6, 128), seed=1), gguf.GGMLQuantizationType[name])
    q = from_gguf(LIBRARIES[library](theirs), name)
    assert q.spec == SPECS[name]
    assert_same_values(q.dequantize(), read(theirs, name))
    assert np.array_equal(np.asarray(to_gguf(q)), theirs)


@pytest.mark.parametrize("name", SPECS)
def test_any_bytes_are_blocks(name):
    """Every code, and scales of all kinds: subnormal, negative, infinite; NaN is no scale of ours."""
    size = {"MXFP4": 17, "NVFP4": 36, "Q8_0": 34, "Q4_0": 18}[name]
    blocks = np.random.default_rng(2).integers(0, 256, (4000, size)).astype(np.uint8)
    if name == "MXFP4":
        blocks = blocks[blocks[:, 0] < 254]  # above, ggml's products are Inf in another order
    if name == "NVFP4":
        blocks[:, :4] %= 0x7F  # ggml reads NaN as 0, and no sign
    q = from_gguf(blocks, name)
    with np.errstate(all="ignore"):
        ours, theirs = q.dequantize() + np.float32(0), read(blocks, name) + np.float32(0)
    assert np.array_equal(np.isnan(ours), np.isnan(theirs))
    assert_same_bits(ours[~np.isnan(ours)], theirs[~np.isnan(theirs)])
    finite = ~np.isnan(q.scale.astype(np.float32)).reshape(len(blocks), -1).any(axis=1)
    assert np.array_equal(to_gguf(from_gguf(blocks[finite], name)), blocks[finite])


@pytest.mark.parametrize("name", SPECS)
def test_what_is_read_is_no_view(name):
    blocks = to_gguf(nx.quantize(data((2, 64)), SPECS[name]))
    q = from_gguf(blocks, name)
    due = q.dequantize().copy()
    blocks[:] = 0
    assert_same_bits(q.dequantize(), due)


def test_a_file_of_all_of_them_comes_back(tmp_path):
    path = str(tmp_path / "a.gguf")
    made = {name: nx.quantize(data((8, 64), seed=k), spec) for k, (name, spec) in enumerate(SPECS.items())}
    writer = gguf.GGUFWriter(path, "llama")
    for name, q in made.items():
        writer.add_tensor(name, to_gguf(q), raw_dtype=gguf.GGMLQuantizationType[gguf_type(q)])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    assert tensors.keys() == made.keys()
    for name, q in made.items():
        back = from_gguf(np.array(tensors[name].data), tensors[name].tensor_type.name, q.tensor_scale)
        assert (back.spec, back.shape) == (q.spec, q.shape)
        assert_same_bits(back.dequantize(), q.dequantize())


X = data((2, 64))
GROUPS = nx.QuantSpec("int4", scheme="per_group(32)")
REFUSED = {
    "groups of 64": (lambda: to_gguf(nx.quantize(X, "int8", scheme="per_group(64)")), "not per_group"),
    "one scale": (lambda: to_gguf(nx.quantize(X, "int8")), r"not per_tensor\(\) of \(2, 64\)"),
    "groups of rows": (
        lambda: to_gguf(nx.quantize(X[:, :32].T, GROUPS.replace(scheme="per_group(32, axis=0)"))), "axis=0"),
    "a short group": (lambda: to_gguf(nx.quantize(X[:, :40], GROUPS)), r"of \(2, 40\)"),
    "scales of float32": (lambda: to_gguf(nx.quantize(X, GROUPS)), "are not float16"),
    "zero points": (lambda: to_gguf(nx.quantize(X, GROUPS.replace(symmetric=False))), "both symmetric"),
    "another format": (lambda: gguf_type(nx.quantize(X, GROUPS.with_dtype("int3"))), r"no blocks of .*int3"),
    "no QTensor": (lambda: gguf_type(X), "gguf_type takes a QTensor, not ndarray"),
    "no type": (lambda: from_gguf(np.zeros(18, np.uint8), "Q4_1"), "unknown type of GGUF's 'Q4_1'"),
    "a scale of another": (lambda: from_gguf(np.zeros(34, np.uint8), "Q8_0", 2.0), "belongs to NVFP4"),
    "NaN of E4M3": (lambda: from_gguf(np.full(36, 0x7F, np.uint8), "NVFP4"), "4 scales are NaN"),
    "half a block": (lambda: from_gguf(np.zeros((2, 33), np.uint8), "Q8_0"), r"k \* 34\] bytes, not"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_block_is_refused(name):
    call, why = REFUSED[name]
    with pytest.raises(nx.NumericsError, match=why):
        call()


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", SPECS)
def test_a_weight_without_rows_has_no_blocks(name, library):
    q = nx.quantize(LIBRARIES[library](np.empty((0, 64), np.float32)), SPECS[name])
    blocks = to_gguf(q)
    assert tuple(blocks.shape) == (0, blocks.shape[1])
    assert from_gguf(blocks, name).dequantize().shape == (0, 64)
