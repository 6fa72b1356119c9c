"""What comes in beside the numbers: masks, units, signs that a format has not; and torch that is a stub."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

import numerics as nx

KINDS = {"numpy": np.float32, "torch": torch.tensor}


class Metres(np.ndarray):
    """An array with a unit."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", [nx.quantize, nx.fake_quantize])
@pytest.mark.parametrize(
    "dtype",
    ["uint4", "uint8", nx.float_format(5, 3, signed=False, name="ue5m3"), nx.float_format(5, 6, signed=False),
     nx.p3109(8, 5, signed=False), nx.p3109(12, 5, signed=False),
     nx.p3109(13, 6, signed=False, extended=False)],
    ids=str,
)  # fmt: skip
def test_what_an_unsigned_format_loses_is_said_once(kind, verb, dtype):
    x = KINDS[kind]([[-1.0, 2.0, -3.0, 4.0], [0.0, -0.0, 1.0, 2.0]])
    with pytest.warns(
        nx.NumericsWarning, match=r"2 of 8 values are negative and become 0: .* is unsigned"
    ) as said:
        verb(x, dtype)
    assert len(said) == 1
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verb(x * x, dtype)
        if isinstance(dtype, str):
            verb(x, dtype, symmetric=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", [nx.quantize, nx.fake_quantize])
@pytest.mark.parametrize("dtype", nx.dtypes(), ids=str)
def test_nan_that_a_format_does_not_have_is_said_where_nothing_else_is_finite(kind, verb, dtype):
    """A tensor of NaN alone was quantized to zeros, or to the largest value, in silence."""
    x = KINDS[kind]([[np.nan, -np.nan, 0.0], [np.nan, np.inf, -0.0]])
    d = nx.QuantSpec(dtype)
    if d.blocked or not d.scaled or np.isnan(d.element.round(np.nan)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            verb(x, dtype)
        return
    becomes = 0 if dtype.kind == "integer" else dtype.max
    told = f"3 of 6 values are NaN and become {becomes:g}: {dtype} has no NaN"
    with pytest.warns(nx.NumericsWarning, match=told) as said:
        verb(x, dtype)
    assert (len(said), said[0].filename) == (1, __file__)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verb(KINDS[kind]([[0.0, -0.0]]), dtype)
        verb(KINDS[kind]([[np.inf, 0.0]]), dtype)


@pytest.mark.parametrize("learns", [nx.train.LSQ, nx.train.TQT])
@pytest.mark.parametrize(
    "dtype", ["uint8", nx.p3109(8, 5, signed=False), nx.p3109(12, 5, signed=False)], ids=str
)
def test_what_an_unsigned_format_loses_is_said_where_learning_begins(learns, dtype):
    if learns is nx.train.TQT and dtype != "uint8":
        return
    made, x = learns(dtype), torch.tensor([-1.0, 2.0, -3.0, 4.0])
    with pytest.warns(nx.NumericsWarning, match=r"2 of 4 values are negative and become 0") as said:
        made(x)
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made(x)  # its scale is given now
        learns(dtype)(x.abs())


MASKED = np.ma.masked_array(np.float32([1, 2, 1e30, 4]), [0, 0, 1, 0])
LOST = {
    "hidden values": (MASKED, "hides 1 of 4 values"),
    "a mask of nothing": (np.ma.masked_array(np.ones(4, np.float32)), "hides none of its 4 values"),
    "a matrix": (np.ones((1, 4), np.float32).view(np.matrix), "is a matrix"),
    "units": (np.ones(4, np.float32).view(Metres), "is a Metres"),
    "masked in a list": ([MASKED, [1.0, 2.0, 3.0, 4.0]], "hides 1 of 4 values"),
}


@pytest.mark.parametrize("name", LOST)
def test_arrays_that_are_more_than_their_numbers_are_refused_at_every_door(name):
    came, said = LOST[name]
    whole = np.ones(4, np.float32)
    q, ones = nx.quantize(whole, "int8"), np.ones((4, 2))
    for call in (
        lambda: nx.quantize(came, "int8"), lambda: nx.fake_quantize(came, "int8"),
        lambda: nx.mx6.encode(came),
        lambda: nx.int8.encode(came), lambda: nx.int8.round(came), lambda: nx.mx6.round(came),
        lambda: nx.int8.encode_packed(came), lambda: q.error(came), lambda: nx.int8.decode(came),
        lambda: nx.int8.pack(came), lambda: nx.int8.unpack(came, 4), lambda: nx.int8.decode_packed(came, 4),
        lambda: nx.quantize(ones, "int8", scheme="per_channel", scale=came),
        lambda: nx.quantize(torch.ones(4, 2), "int8", scheme="per_channel", scale=came),
        lambda: nx.quantize(np.ones(4), "int8", symmetric=False, scale=1.0, zero_point=came),
        lambda: nx.int8.encode(whole, rounding="stochastic", random_bits=came),
        lambda: nx.int8.encode(torch.ones(4), rounding="stochastic", random_bits=came),
        lambda: nx.mxfp4.decode(nx.Blocks(nx.mxfp4, -1, np.ones(128, np.uint8), came)),
    ):  # fmt: skip
        with pytest.raises(nx.NumericsError, match=said):
            call()
    if isinstance(came, np.ndarray):
        for call in (lambda: nx.int8.round(np.ones(came.shape, np.float32), out=came),
                     lambda: nx.interop.from_native(came)):  # fmt: skip
            with pytest.raises(nx.NumericsError, match=said):
                call()


@pytest.mark.parametrize("name", LOST)
def test_masks_and_units_were_dropped_by_files_pictures_and_scales(name, tmp_path):
    came, said = LOST[name]
    for call in (
        lambda: nx.save({"a": came}, tmp_path / "a.safetensors"), lambda: nx.explore({"a": came}),
        lambda: nx.draw.tensor([came, came], "int8"), lambda: nx.draw.block(came, "mxfp4"),
        lambda: nx.linear(came, nx.quantize(np.ones((2, 4), np.float32), "int8")),
    ):  # fmt: skip
        with pytest.raises(nx.NumericsError, match=said):
            call()
    assert not list(tmp_path.iterdir())


def test_a_number_under_a_mask_is_no_scale_and_no_value_of_a_codebook():
    hidden, x = np.ma.masked_array(0.5, True), np.ones((2, 32), np.float32)
    for call in (
        lambda: nx.quantize(x, "nvfp4", tensor_scale=hidden),
        lambda: nx.nvfp4.round(x, tensor_scale=hidden),
    ):
        with pytest.raises(nx.NumericsError, match="is not a positive finite float32 number"):
            call()
    with pytest.raises(nx.NumericsError, match="must be real numbers, not <MaskedArray"):
        nx.codebook_format(np.ma.masked_array([-1.0, 0, 1, 2], [1, 0, 0, 0]))


WORDS = {
    "uint64": np.array([0, 1 << 32], np.uint64), "int64": np.array([0, -1]), "a list": [0, 1 << 40],
    "negative": [-1, 0], "a tensor": torch.tensor([0, 1 << 33]), "a negative tensor": torch.tensor([-5, 0]),
}  # fmt: skip


@pytest.mark.parametrize("bits", WORDS.values(), ids=WORDS)
def test_random_bits_that_are_no_uint32_were_cut(bits):
    x = torch.ones(2) if isinstance(bits, torch.Tensor) else np.ones(2, np.float32)
    for call in (nx.int8.round, lambda x, **draw: nx.quantize(x, "int8", **draw)):
        with pytest.raises(
            nx.NumericsError, match=r"random_bits must be uint32: -?\d+ is outside 0 .. 4294967295"
        ):
            call(x, rounding="stochastic", random_bits=bits)


def test_random_bits_of_other_integers_are_words_of_32_bits():
    x = np.full(4, 1.5, np.float32)
    due = nx.int8.round(x, rounding="stochastic", random_bits=np.uint32([0, 1 << 29, (1 << 32) - 1, 1 << 31]))
    for kind in (np.uint64, np.int64):
        bits = np.array([0, 1 << 29, (1 << 32) - 1, 1 << 31], kind)
        assert nx.int8.round(x, rounding="stochastic", random_bits=bits).tolist() == due.tolist()
    bits = np.array([0, 1 << 29, -1, -(1 << 31)], np.int32)
    assert nx.int8.round(x, rounding="stochastic", random_bits=bits).tolist() == due.tolist()


def test_random_bits_of_one_byte_in_64_bits_are_warned_of(executor):
    """randint(0, 256) was taken as the lowest of 30 bits, without a word: nothing went up."""
    own = np.random.default_rng(0).integers(0, 256, 256)
    for make in (np.asarray, *[torch.from_numpy] * (executor != "interpreter")):
        x = make(np.full(256, 0.25, np.float32))
        with pytest.warns(nx.NumericsWarning, match=r"at most \d+, of 30 bits: .* random_bits << 22$"):
            assert not nx.int8.round(x, rounding="stochastic", random_bits=make(own)).any()
        up = nx.int8.round(x, rounding="stochastic", random_bits=make(own << 22))
        assert float(up.sum()) == (own >= 192).sum() > 0
        nx.int8.round(x, rounding="stochastic", random_bits=make(own * 0))  # no draw at all may be meant


def test_a_mapped_file_is_a_plain_array(tmp_path):
    np.ones(64, np.float32).tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", np.float32, "r")
    assert nx.int8.encode(mapped).tolist() == [1] * 64


STUBS = {
    "an empty module": "types.ModuleType('torch')",
    "a mock": "unittest.mock.MagicMock()",
    "a mock of the import system": "type('M', (types.ModuleType,), {'__getattr__': lambda s, n: s})('torch')",
    "None": "None",
}


@pytest.mark.turns(6)
@pytest.mark.parametrize("name", STUBS)
def test_a_stub_in_the_place_of_torch_is_no_fault(name):
    """Builders of documentation put one there."""
    code = f"""
import sys, types, unittest.mock
sys.modules["torch"] = {STUBS[name]}
import numpy as np
import numerics as nx
with nx.use("array"):
    assert nx.fp4.encode(np.ones(2, np.float32)).tolist() == [2, 2]
    q = nx.quantize([1.0], "int4")
try:
    nx.interop.as_tensors(q)
except nx.NumericsError as refused:
    assert "torch is not installed" in str(refused)
"""
    if name == "a mock":
        code += """
del sys.modules["torch"]
import torch
with nx.use("array"):
    assert nx.quantize(torch.ones(2), "int4").dequantize().tolist() == [1.0, 1.0]
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_the_refusal_of_a_mask_names_the_argument():
    """It said that the format was a masked array, and that nothing hidden could not be coded."""
    for call, what in (
        (lambda: nx.fp8_e4m3.encode(np.ma.array([1.0, 2.0])), "x"),
        (lambda: nx.fp8_e4m3.decode(np.ma.array([1, 2], dtype=np.uint8)), "codes"),
    ):
        with pytest.raises(nx.NumericsError) as refused:
            call()
        assert str(refused.value) == (
            f"{what} is a masked array, whose mask would be lost; it hides none of its 2 values: "
            "give its .data"
        )
