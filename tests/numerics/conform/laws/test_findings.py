"""Faults are named by what they depend on, at places that are there."""

import io
import itertools

import numpy as np
import pytest

import numerics as nx
from numerics.conform import check
from numerics.conform.vectors.operations import operation
from numerics.conform.vectors.vectors import generate, verify


def test_a_fault_of_one_block_in_many_is_shown_in_its_array():
    def wrong(x):
        made = nx.quantize(x, nx.mxfp4)
        codes = np.array(made.codes)
        if x.ndim == 2 and x.shape[0] > 300 and x.shape[1] > 32:
            codes[-1, -1] ^= 1
        return codes, made.scale

    (broken,) = check(wrong, "mxfp4", effort="quick").failures
    assert broken.law == "layout"
    assert "at (511, 159) of an array of shape (512, 160)" in broken.where
    assert broken.input


def _answered(change):
    """The vectors of fp8_e4m3 with some answers changed by their numbers and the line before."""
    lines = b"".join(generate(operation("fp8_e4m3", "encode"))).decode().splitlines()
    before, found = "", []
    for line in lines:
        found.append(line if line.startswith("#") else change(before, line))
        before = line
    return verify(io.BytesIO("\n".join(found).encode() + b"\n"))


def test_every_special_is_asked_behind_every_other():
    lines = b"".join(generate(operation("fp8_e4m3", "encode"), answers=False)).decode().splitlines()
    asked = [line[:8] for line in lines if not line.startswith("#")]
    behind = set(itertools.pairwise(asked))
    specials = np.array(
        [0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F7FFFFF, 1, 0x43E00000], np.uint32
    )
    specials = [f"{word:08x}" for word in specials]
    assert {(one, other) for one in specials for other in specials} <= behind


OF_SPECIALS = [
    ("fp8_e4m3", "decode", 8), ("fp8_e5m2", "decode", 10), ("float16", "decode", 10), ("int8", "decode", 5),
    ("nf4", "decode", 5), ("mxfp4", "encode", 9), ("mxfp4", "round", 9), ("nvfp4", "encode", 9),
    ("mxfp4", "decode", 16), ("mxfp8_e5m2", "decode", 16), ("nvfp4", "decode", 16), ("mx6", "decode", 16),
    ("int8", "quantize", 9), ("uint8 symmetric=False", "quantize", 9), ("fp8_e4m3", "fake_quantize", 9),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "name", "count"), OF_SPECIALS)
def test_decoders_blocks_and_groups_had_no_special_behind_every_other(dtype, name, count):
    text = b"".join(generate(operation(dtype, name), answers=False)).decode().splitlines()
    lines = [line for line in text if not line.startswith("#")]
    last = lines[-2 * count * count :]  # each of so many beside each
    specials = set(last)
    assert len(specials) == count
    assert {(one, other) for one in specials for other in specials} <= set(itertools.pairwise(last))


@pytest.mark.turns(4)
@pytest.mark.parametrize(
    ("dtype", "name", "special", "behind"),
    [
        ("fp8_e5m2", "decode", "7c", "00"),
        ("mxfp4", "encode", " ".join(["00000000"] * 32), " ".join(["7f7fffff"] * 32)),
        ("int8", "quantize", " ".join(["00000000"] * 16), " ".join(["80000000"] * 16)),
        ("mxfp4", "encode", " ".join(["80000000"] * 32), " ".join(["00000001"] * 32)),
    ],
)
def test_a_device_that_keeps_a_special_of_the_line_before_passed(dtype, name, special, behind):
    lines = b"".join(generate(operation(dtype, name))).decode().splitlines()
    found, before = [], ""
    for line in lines:
        kept = before.startswith(special) and line.startswith(behind)
        found.append(line[:-1] + ("1" if line[-1] == "0" else "0") if kept else line)
        before = line
    assert found != lines
    assert not verify(io.BytesIO("\n".join(found).encode() + b"\n"))


@pytest.mark.turns
def test_what_a_line_owes_to_the_line_before_is_no_law_of_arithmetic():
    def change(before, line):
        return line[:-2] + "7e" if before.startswith("7f800000") and line.startswith("00000000") else line

    found = _answered(change)
    assert found.counterexample.law == "repeatable"
    assert "answered rightly in another line" in found.counterexample.where


@pytest.mark.turns
def test_what_packed_codes_leave_out_is_not_blamed_on_the_target():
    def packed(x):
        made = nx.quantize(x, nx.mxfp4)
        codes = np.array(made.codes)
        return codes[..., ::2] | codes[..., 1::2] << 4, made.scale

    found = check(packed, "mxfp4", packed=True, effort="quick")
    assert found, str(found)
    assert "not asked: lines whose packed codes end within a byte" in found.notes
    assert not any("does not take" in note for note in found.notes)


@pytest.mark.parametrize("least", [2, 8])
def test_a_tensor_of_one_number_was_told_to_depend_on_the_calls_before_it(least):
    """The number was asked again alone, and among others, where it was right: never in its own array."""

    def kernel(x):
        one = x.size >= least and bool((x == x.flat[0]).all())
        return nx.fp8_e4m3.encode(x, rounding="toward_zero" if one else "half_even")

    found = check(kernel, "fp8_e4m3", effort="quick")
    assert found.law == "layout"
    assert "calls" not in found.counterexample.where


def test_a_whole_block_of_a_line_that_has_a_short_one_was_told_as_a_short_block():
    def kernel(x):
        found = nx.mxfp4.encode(x)
        codes = np.array(found.codes)
        if x.ndim == 2 and x.shape[0] > 1 and x.shape[1] > 32 and x.shape[1] % 4:
            codes[1, :32] = np.roll(codes[1, :32], 1)  # rows that begin at no whole vector
        return codes, found.scale

    found = check(kernel, "mxfp4", effort="quick")
    assert (found.law, found.counterexample.where[:9]) == ("layout", "at (1, 0)")
