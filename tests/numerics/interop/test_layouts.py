"""Layouts against the vendors' formulas, index by index, in plain Python loops."""

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import numerics as nx
from numerics.interop.layouts import AWQ, CDNA4, CUBLAS, pack_words, unpack_words

rng = np.random.default_rng(6)
LIBRARIES = {"numpy": np.asarray, "torch": torch.from_numpy}


def cublas_offset(row: int, column: int, columns: int) -> int:
    """cuBLAS documentation, "1D Block Scaling Factors Layout"; columns: padded."""
    outer, inner = row % 128, column % 4
    within = (outer % 32) * 16 + (outer // 32) * 4 + inner
    sf_outer, sf_inner = row - outer, column - inner
    return (sf_inner // 4 + sf_outer // 128 * (columns // 4)) * 512 + within


def cdna4_offset(row: int, column: int, columns: int) -> int:
    """Triton's unswizzle_mx_scale_cdna4, which reads [N/32, K/8, 4, 16, 2, 2] as axes (0, 5, 3, 1, 4, 2)."""
    n, (high, lane) = row // 32, divmod(row % 32, 16)
    k, (half, byte) = column // 8, divmod(column % 8, 4)
    return ((((n * (columns // 8) + k) * 4 + byte) * 16 + lane) * 2 + half) * 2 + high


VENDORS = {"cuBLAS": (CUBLAS, cublas_offset, (128, 4)), "CDNA4": (CDNA4, cdna4_offset, (32, 8))}


def expected(scales: np.ndarray, offset, tile) -> np.ndarray:
    """The vendor's buffer of one matrix."""
    padded = [-(-n // size) * size for n, size in zip(scales.shape, tile, strict=True)]
    buffer = np.zeros(padded[0] * padded[1], scales.dtype)
    for row, column in np.ndindex(*scales.shape):
        buffer[offset(row, column, padded[1])] = scales[row, column]
    return buffer


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("shape", [(128, 4), (32, 8), (256, 16), (1, 1), (129, 5), (70, 9), (33, 24)])
@pytest.mark.parametrize("name", VENDORS)
def test_every_scale_lies_where_the_vendor_says(name, shape, library):
    layout, offset, tile = VENDORS[name]
    scales = rng.integers(1, 256, shape, np.uint8)
    arranged = layout.arrange(LIBRARIES[library](scales))
    assert np.array_equal(np.asarray(arranged), expected(scales, offset, tile))
    assert np.array_equal(np.asarray(layout.restore(arranged, shape)), scales)


@settings(max_examples=40)
@given(st.sampled_from([CUBLAS, CDNA4]), st.lists(st.integers(0, 3), max_size=2), st.integers(0, 150),
       st.integers(0, 20), st.sampled_from(sorted(LIBRARIES)))  # fmt: skip
def test_restore_is_the_inverse(layout, lead, rows, columns, library):
    scales = rng.integers(0, 256, (*lead, rows, columns), np.uint8)
    arranged = layout.arrange(LIBRARIES[library](scales))
    assert arranged.shape[:-1] == tuple(lead)
    assert np.array_equal(np.asarray(layout.restore(arranged, scales.shape)), scales)


def test_matrices_are_laid_out_one_by_one():
    scales = rng.integers(0, 256, (3, 40, 6), np.uint8)
    for k in range(3):
        assert np.array_equal(CUBLAS.arrange(scales)[k], CUBLAS.arrange(scales[k]))


def test_what_fills_up_tiles_is_bytes_of_zero_whatever_the_type():
    scales = torch.full((2, 3), 2.0).to(torch.float8_e8m0fnu)  # e8m0 has no zero to pad with
    arranged = CUBLAS.arrange(scales)
    assert arranged.dtype == torch.float8_e8m0fnu
    assert sorted(set(arranged.view(torch.uint8).tolist())) == [0, 128]
    assert torch.equal(CUBLAS.restore(arranged, (2, 3)).view(torch.uint8), scales.view(torch.uint8))


def test_scales_of_a_quantized_tensor():
    q = nx.quantize(rng.standard_normal((130, 96)).astype(np.float32), "mxfp8_e4m3")
    assert CUBLAS.arrange(q.scale).shape == (2 * 1 * 512,)


WRONG_SCALES = {
    "wide scales": (lambda: CUBLAS.arrange(np.zeros((4, 4), np.float32)), "of one byte"),
    "a list": (lambda: CUBLAS.arrange([[1]]), "not a list"),
    "one dimension": (lambda: CUBLAS.arrange(np.zeros(4, np.uint8)), "not of shape"),
    "too few bytes": (lambda: CDNA4.restore(np.zeros(255, np.uint8), (2, 2)), r"lie in \(256,\), not \(255,"),
}


@pytest.mark.parametrize("name", WRONG_SCALES)
def test_wrong_scales_are_refused(name):
    call, why = WRONG_SCALES[name]
    with pytest.raises(nx.NumericsError, match=why):
        call()


# ---- words -----------------------------------------------------------------------------------------


def word(values: list[int], bits: int, least: int, order) -> int:
    """One word of values, as a signed number: value order[i], less the least one, at bit i * bits."""
    fields = sum((values[order[i]] - least) << i * bits for i in range(len(values)))
    return fields - (1 << 32) if fields >= 1 << 31 else fields


def value(code: int, d) -> int:
    """Two's complement by hand."""
    return code - (1 << d.bits) if d.signed and code >> (d.bits - 1) else code


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("order", [None, AWQ])
@pytest.mark.parametrize("name", ["int2", "uint2", "int4", "uint4", "int8", "uint8"])
def test_every_field_of_a_word(name, order, library):
    d, fields = nx.dtype(name), 32 // nx.dtype(name).bits
    if order is not None and len(order) != fields:
        order = tuple(range(fields))[::-1]
    codes = rng.integers(0, 1 << d.bits, (3, 2 * fields)).astype(np.uint8)
    words = pack_words(LIBRARIES[library](codes), d, order=order)
    places = order or range(fields)
    for row, column in np.ndindex(3, 2):
        values = [value(int(c), d) for c in codes[row, column * fields : (column + 1) * fields]]
        assert int(words[row, column]) == word(values, d.bits, int(d.min), places)
    assert np.array_equal(np.asarray(unpack_words(words, d, 2 * fields, order=order)), codes)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("index", [np.s_[:, ::2], np.s_[:1, ::4], np.s_[::2, ::3], np.s_[:0, ::2]])
def test_words_need_not_be_neighbours(index, library):
    words = rng.integers(-(2**31), 2**31, (3, 4)).astype(np.int32)
    due = unpack_words(np.ascontiguousarray(words[index]), "int4", 8 * words[index].shape[1])
    found = unpack_words(LIBRARIES[library](words)[index], "int4", 8 * words[index].shape[1])
    assert np.array_equal(np.asarray(found), due)
    line = LIBRARIES[library](words[0])[::3]
    assert np.array_equal(
        np.asarray(unpack_words(line, "uint4", 16)), unpack_words(words[0][::3], "uint4", 16)
    )


def test_along_another_axis_as_gptq():
    codes = rng.integers(0, 16, (16, 5)).astype(np.uint8)
    words = pack_words(codes, "uint4", axis=0)
    assert words.shape == (2, 5)
    assert int(words[1, 3]) & 0xFFFFFFFF == sum(int(codes[8 + i, 3]) << 4 * i for i in range(8))


def test_the_last_word_is_filled_up_with_zeros():
    words = pack_words(np.array([[8, 8, 8]], np.uint8), "int4")  # the least value is stored as 0
    assert words.tolist() == [[0]]
    assert pack_words(np.array([[7, 7, 7]], np.uint8), "int4").tolist() == [[0xFFF]]


@settings(max_examples=40)
@given(st.sampled_from(["int2", "int4", "uint4", "uint8"]),
       st.lists(st.integers(0, 20), min_size=1, max_size=3), st.data())  # fmt: skip
def test_unpacking_is_the_inverse(name, shape, data):
    d, axis = nx.dtype(name), data.draw(st.integers(-len(shape), len(shape) - 1))
    codes = rng.integers(0, 1 << d.bits, shape).astype(np.uint8)
    library = LIBRARIES[data.draw(st.sampled_from(sorted(LIBRARIES)))]
    words = pack_words(library(codes), d, axis=axis)
    assert np.array_equal(np.asarray(unpack_words(words, d, shape[axis], axis=axis)), codes)


CODES = np.zeros((2, 8), np.uint8)


def test_codes_without_values_had_to_be_read():
    """Their range was asked for: on "meta" there is nothing to ask."""
    codes = torch.zeros((2, 8), dtype=torch.uint8, device="meta")
    words = pack_words(codes, "int2")
    assert (words.device.type, words.shape, words.dtype) == ("meta", (2, 1), torch.int32)
    assert unpack_words(words, "int2", 8).shape == (2, 8)
    blocks = nx.interop.to_gguf(nx.quantize(torch.zeros((2, 64), device="meta"), "mxfp4"))
    assert (blocks.device.type, blocks.shape) == ("meta", (2, 34))
    assert nx.interop.from_gguf(blocks).shape == (2, 64)


WRONG_WORDS = {
    "3 bits": (lambda: pack_words(CODES, "int3"), "2, 4 or 8 bits, not int3"),
    "a float format": (lambda: pack_words(CODES, "fp4"), "not fp4"),
    "wide codes": (lambda: pack_words(CODES.astype(np.int8), "int4"), "are uint8, not int8"),
    "a code too large": (lambda: pack_words(CODES + 16, "uint4"), "code 16 is outside"),
    "a signed code too large": (lambda: pack_words(CODES + 16, "int4"), "code 16 is outside"),
    "a number for an order": (lambda: pack_words(CODES, "int4", order=5), "order=5 does not say where"),
    "letters for an order": (lambda: pack_words(CODES, "int4", order="abcdefgh"), "does not say where"),
    "half a code": (lambda: unpack_words(np.zeros(1, np.int32), "int4", 2.5), "an integer, not 2.5"),
    "fewer than no codes": (lambda: unpack_words(np.zeros(0, np.int32), "int4", -1), "-1 codes of int4"),
    "an order with a hole": (lambda: pack_words(CODES, "int4", order=(0,) * 8), "does not say where"),
    "another axis": (lambda: pack_words(CODES, "int4", axis=2), "axis 2 does not exist"),
    "wide words": (lambda: unpack_words(np.zeros(1, np.int64), "int4", 8), "are int32, not int64"),
    "too few words": (lambda: unpack_words(np.zeros(1, np.int32), "int4", 9), "are 2 words, but 1 came"),
}


@pytest.mark.parametrize("name", WRONG_WORDS)
def test_wrong_words_are_refused(name):
    call, why = WRONG_WORDS[name]
    with pytest.raises(nx.NumericsError, match=why):
        call()
