"""Transcoding against exact fractions, and GGUF's blocks against ggml's own reading of them."""

from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

import numerics as nx
from numerics.interop import as_tensors, from_gguf, to_gguf
from numerics.tensor.qtensor import ArrayQTensor
from numerics.tensor.spec import QuantSpec
from numerics.transcoding import transcode
from tests.helpers.bits import assert_same_bits

LIBRARIES = {"numpy": np.asarray, "torch": torch.from_numpy}


def data(shape, seed=0) -> np.ndarray:
    """Magnitudes over many powers of two, and zeros of both signs."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal(shape) * np.exp2(rng.integers(-9, 9, shape))).astype(np.float32)
    x.reshape(-1)[::7] = -0.0
    return x


X = data((4, 96))


def values(q) -> np.ndarray:
    return np.asarray(q.dequantize())


def quantized(x, library, name, **options):
    return nx.quantize(LIBRARIES[library](x), name, **options)


# ---- MX elements: every code of one among the values of the other ---------------------------------

WIDER = [
    ("mxfp4", "mxfp8_e4m3"), ("mxfp4", "mxfp8_e5m2"), ("mxfp4", "mxfp6_e3m2"), ("mxfp4", "mxfp6_e2m3"),
    ("mxfp6_e3m2", "mxfp8_e4m3"), ("mxfp6_e3m2", "mxfp8_e5m2"), ("mxfp6_e2m3", "mxfp8_e4m3"),
    ("mx4", "mx6"), ("mx4", "mx9"), ("mx6", "mx9"),
]  # fmt: skip


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(("source", "target"), WIDER)
def test_wider_elements_keep_every_value(source, target, library):
    q = quantized(X, library, source, axis=0)
    made = transcode(q, target)
    assert (made.format, made.axis, type(made)) == (nx.dtype(target), 0, type(q))
    assert_same_bits(values(made), values(q))
    assert np.array_equal(np.asarray(made.scale), np.asarray(q.scale))
    back = transcode(made, source)
    assert np.array_equal(np.asarray(back.packed), np.asarray(q.packed))


@pytest.mark.parametrize(("source", "target"), [pair for pair in WIDER if "mxfp" in pair[0]])
def test_every_code_is_among_the_wider_ones(source, target):
    narrow, wide = nx.dtype(source).element, nx.dtype(target).element
    due = {Fraction(v) for v in narrow.values()}
    assert due <= {Fraction(v) for v in wide.values() if v - v == 0}  # the finite ones
    codes = np.tile(np.arange(1 << narrow.bits, dtype=np.uint8), 2)
    x = (narrow.decode(codes).reshape(-1, 32) * np.float32(2.0**-3)).astype(np.float32)
    q = nx.quantize(x, source)
    assert_same_bits(values(transcode(q, target)), values(q))


def test_the_code_is_the_wider_formats():
    made = transcode(nx.quantize([1.0, -0.5, 6.0, -0.0], "mxfp4"), "mxfp8_e4m3")
    assert made.scale.tolist() == [127]
    assert made.codes.tolist() == [0x38, 0xB0, 0x4C, 0x80]  # 1, -0.5, 6, -0 of S.EEEE.MMM, bias 7


def test_blocks_of_nan_stay_so():
    x = X.copy()
    x[0, 3] = np.nan
    q = nx.quantize(x, "mxfp8_e5m2")
    for target in ("mxfp4", "mxfp8_e4m3"):
        part = q[:1, :32]
        assert np.isnan(values(transcode(part, target))).all()


def test_integers_among_floats():
    whole = np.float32([[k / 64 for k in range(-16, 16)]])
    q = nx.quantize(whole, "mxint8", scale_rule="rceil")
    with pytest.raises(nx.NumericsError, match="values would change"):
        transcode(nx.quantize(np.float32([[127 / 64] + [0] * 31]), "mxint8"), "mxfp8_e4m3")
    assert_same_bits(values(transcode(q, "mxfp8_e4m3")), values(q))


def test_how_many_and_which():
    x = np.zeros((3, 32), np.float32)
    x[1, 5], x[1, 6], x[2, 7] = 1.125, 1.0, -1.125  # significands of 4 bits: fp6_e2m3 has them, fp4 has not
    q = nx.quantize(x, "mxfp6_e2m3")
    with pytest.raises(nx.NumericsError) as refused:
        transcode(q, "mxfp4")
    assert "2 of 96 values would change; the first, at (1, 5), from 1.125 to 1" in str(refused.value)


# ---- other blocks -------------------------------------------------------------------------------


def nvfp4(scales: list[list[int]]) -> ArrayQTensor:
    """Every code of fp4 in each block, under scales given as codes of fp8_e4m3 and a tensor scale of 1."""
    scale = np.array(scales, np.uint8)
    codes = np.tile(np.arange(16, dtype=np.uint8), scale.size)
    return ArrayQTensor(
        spec=QuantSpec("nvfp4"), shape=(scale.shape[0], 16 * scale.shape[1]), packed=nx.fp4.pack(codes),
        shared=scale, tensor_scale=1.0,
    )  # fmt: skip


@pytest.mark.parametrize("move", [lambda q: q, as_tensors], ids=LIBRARIES)
def test_nvfp4_with_power_of_two_scales_becomes_mxfp4(move):
    q = move(nvfp4([[0x38, 0x38], [0x08, 0x08]]))  # 1 and 2**-6
    made = transcode(q, "mxfp4")
    assert_same_bits(values(made), values(q))
    assert np.asarray(made.scale).tolist() == [[127], [121]]
    assert made.tensor_scale is None
    for scales in ([0x3C, 0x3C], [0x38, 0x40]):  # 1.5; 1 beside 2: their fourfold range is fp4's no more
        with pytest.raises(nx.NumericsError, match=r"nvfp4 to mxfp4: .* values would change"):
            transcode(move(nvfp4([scales])), "mxfp4")


def exact_somewhere(values_: list[Fraction], d) -> bool:
    """Is there a power of two under which all are values of the element?"""
    grid = {Fraction(v) * Fraction(d.element_unit) for v in d.element.values() if v - v == 0}
    return any(all(v / Fraction(2) ** e in grid for v in values_) for e in range(-127, 128))


@pytest.mark.parametrize(
    ("source", "target"),
    [("fp8_e4m3", "fp4"), ("fp8_e4m3", "fp8_e5m2"), ("int8", "fp6_e2m3"), ("fp6_e3m2", "int4")],
)
def test_a_scale_is_found_where_there_is_one(source, target):
    source, target = nx.mx(source, block=4), nx.mx(target, block=4)
    rng, found = np.random.default_rng(5), set()
    for _ in range(40):
        x = rng.choice([1, 1.5, 2, 3, 4, 6, 1.25, 1.125, 0], 4) * np.exp2(rng.integers(-2, 2, 4))
        q = nx.quantize(x.astype(np.float32), source)
        exact = exact_somewhere([Fraction(float(v)) for v in values(q)], target)
        found.add(exact)
        if exact:
            assert_same_bits(values(transcode(q, target)), values(q))
        else:
            with pytest.raises(nx.NumericsError, match="values would change"):
                transcode(q, target)
    assert found == {True, False}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(("source", "target"), [("mxfp4", "mx16_fp4"), ("mxfp4", "bfp16"), ("mx6", "mxint8")])
def test_other_blocks_find_their_scales_again(source, target, library):
    d = nx.mx("fp4", block=16) if target == "mx16_fp4" else nx.dtype(target)
    x = np.abs(data((2, 64), 3)) + np.float32(0.01)
    x = np.exp2(np.floor(np.log2(x)).clip(-1, 1)).astype(np.float32)  # a few powers of two: exact in all
    q = quantized(x, library, source)
    made = transcode(q, d)
    assert made.format is d
    assert made.original == q.original
    assert_same_bits(values(made), values(q))


def test_the_finest_scale_is_found_where_the_floor_rule_would_clip():
    x = np.float32([[480.0, 1.0] + [0.0] * 14])  # 480 = 1.875 * 2**8: above e4m3's 448, 240 * 2 is not
    q = nx.quantize(x, nx.mx("int16", block=16))
    made = transcode(q, nx.mx("fp8_e4m3", block=32))
    assert_same_bits(values(made), values(q))


def test_the_type_that_it_stands_for_stays():
    half = torch.from_numpy(X).to(torch.bfloat16)
    made = transcode(nx.quantize(half, "mxfp4"), nx.mx("fp4", block=16))
    assert made.dtype == torch.bfloat16
    assert torch.equal(made.dequantize(), nx.quantize(half, "mxfp4").dequantize())


# ---- single numbers -------------------------------------------------------------------------------

SCALED = [
    ("int4", "int8", {"scheme": "per_group(32)"}), ("int2", "int3", {"scheme": "per_channel(0)"}),
    ("int4", "fp8_e4m3", {"scheme": "per_group(32)"}), ("uint4", "uint8", {"symmetric": False}),
    ("uint4", "int8", {"symmetric": False, "scheme": "per_channel(1)"}),
    ("int8", "int16", {"symmetric": False, "zero_point_type": "float32"}),
    ("int8", "float16", {"zero_point_type": "float32"}),
    ("fp8_e4m3", "bfloat16", {}), ("fp8_e5m2", "float16", {"scheme": "per_channel(0)"}),
    ("fp4", "fp6_e2m3", {"scale_type": "pof2"}), ("fp6_e3m2", "fp8_e5m2", {"scale_type": "float"}),
]  # fmt: skip


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(("source", "target", "options"), SCALED, ids=lambda o: str(o))
def test_scales_stay(source, target, options, library):
    q = quantized(X, library, source, **options)
    made = transcode(q, target)
    assert (made.format, made.scheme, type(made)) == (nx.dtype(target), q.scheme, type(q))
    assert np.array_equal(np.asarray(made.scale), np.asarray(q.scale))
    assert_same_bits(values(made), values(q))
    assert np.array_equal(np.asarray(transcode(made, source).packed), np.asarray(q.packed))


def test_integers_have_no_negative_zero():
    q = nx.quantize(np.float32([1.0, -0.0, 2.0]), "fp8_e4m3", scale=1.0)
    with pytest.raises(
        nx.NumericsError, match=r"1 of 3 values would change; the first, at \(1,\), from -0 to 0"
    ):
        transcode(q, "int8")


def test_infinity_and_nan():
    x = np.float32([1.0, np.inf, -np.inf, np.nan])
    packed = nx.fp8_e5m2.encode_packed(x, overflow="nonsaturate")
    one = np.ones((), np.float32)
    q = ArrayQTensor(spec=QuantSpec("fp8_e5m2"), shape=(4,), packed=packed, shared=one)
    assert values(q)[1] == np.inf
    for target in ("float16", "bfloat16"):
        assert_same_bits(values(transcode(q, target)), values(q))
    with pytest.raises(nx.NumericsError, match=r"2 of 4 values would change; .* from inf to nan"):
        transcode(q, "fp8_e4m3")


def test_nan_is_no_number():
    q = nx.quantize(np.float32([1.0, np.nan]), "fp8_e4m3", scale=1.0)
    for target in ("fp4", "int8"):  # neither has a NaN
        with pytest.raises(nx.NumericsError, match=r"1 of 2 .* at \(1,\), from nan"):
            transcode(q, target)


def test_the_same_format_is_the_same_tensor():
    q = nx.quantize(X, "int4")
    assert transcode(q, "int4") is q


def test_nothing_at_all():
    q = nx.quantize(np.empty((0, 32), np.float32), "mxfp4")
    assert transcode(q, "mxfp8_e4m3").shape == (0, 32)


def test_subnormals_are_told_apart_where_the_caller_flushes_them():
    x = torch.tensor([2.0**-127, 0.0])
    q = nx.quantize(x, "bfloat16", scale=1.0)
    torch.set_flush_denormal(True)
    try:
        with pytest.raises(nx.NumericsError, match="1 of 2 values would change"):
            transcode(q, "float16")
    finally:
        torch.set_flush_denormal(False)


REFUSED = {
    "a scheme into blocks": ("int8", "mxint8", {}, "do not become each other"),
    "blocks into numbers": ("mxfp4", "fp8_e4m3", {}, "do not become each other"),
    "float block scales": ("mxfp4", "nvfp4", {}, "no rule finds exact scales in fp8_e4m3"),
    "a zero point into floats": ("uint8", "bfloat16", {"symmetric": False}, "float format has no zero point"),
    "a zero point too large": (
        "uint8", "int8", {"symmetric": False}, r"zero point \d+ is outside -128 .. 127"),
    "an unknown format": ("int8", "int5", {}, "unknown format"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_formats_that_do_not_meet(name):
    source, target, options, why = REFUSED[name]
    q = nx.quantize(-np.abs(X), source, **options)
    with pytest.raises(nx.NumericsError, match=why):
        transcode(q, target)


# ---- GGUF -----------------------------------------------------------------------------------------

DOUBLED = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)  # ggml's kvalues_mxfp4


def read_by_ggml(row: list[int]) -> list[Fraction]:
    """ggml's dequantize_row_mxfp4: doubled elements times half the scale, 2**(e - 128)."""
    found = []
    for start in range(0, len(row), 17):
        e, *pairs = row[start : start + 17]
        found += [DOUBLED[byte & 15] * Fraction(2) ** (e - 128) for byte in pairs]
        found += [DOUBLED[byte >> 4] * Fraction(2) ** (e - 128) for byte in pairs]
    return found


@pytest.mark.parametrize("library", LIBRARIES)
def test_ggml_reads_the_same_values(library):
    q = quantized(data((2, 3, 64)) * np.float32(2.0**-110), library, "mxfp4")
    blocks = to_gguf(q)
    assert (tuple(blocks.shape), str(blocks.dtype).removeprefix("torch.")) == ((2, 3, 34), "uint8")
    for row, due in zip(blocks.reshape(-1, 34).tolist(), values(q).reshape(-1, 64), strict=True):
        assert read_by_ggml(row) == [Fraction(float(v)) for v in due]


@pytest.mark.parametrize("library", LIBRARIES)
def test_gguf_and_back(library):
    q = quantized(X, library, "mxfp4")
    back = from_gguf(to_gguf(q))
    assert (type(back), repr(back)) == (type(q), repr(q))
    assert np.array_equal(np.asarray(back.packed), np.asarray(q.packed))
    assert np.array_equal(np.asarray(back.scale), np.asarray(q.scale))


@pytest.mark.parametrize("library", LIBRARIES)
def test_any_bytes_are_blocks(library):
    blocks = np.random.default_rng(1).integers(0, 256, (5, 3 * 17)).astype(np.uint8)
    blocks[:, ::17] //= 2  # any scale byte but 255
    q = from_gguf(LIBRARIES[library](blocks))
    assert np.array_equal(np.asarray(to_gguf(q)), blocks)
    for row, came in zip(blocks.tolist(), values(q), strict=True):
        assert read_by_ggml(row) == [Fraction(float(v)) for v in came]


def test_what_is_read_is_no_view():
    blocks = to_gguf(nx.quantize(X, "mxfp4"))
    q, due = from_gguf(blocks), values(from_gguf(blocks))
    blocks[:] = 0
    assert_same_bits(values(q), due)


def with_nan() -> np.ndarray:
    x = X[:, :64].copy()
    x[1, 40] = np.nan
    return x


NO_GGUF = {
    "another format": (lambda: to_gguf(nx.quantize(X, "mxfp6_e2m3")), "no blocks of .*mxfp6_e2m3"),
    "short blocks": (
        lambda: to_gguf(nx.quantize(X[:, :40], "mxfp4")),
        "whole blocks of 32 along the last axis",
    ),
    "another axis": (lambda: to_gguf(nx.quantize(X[:, :32].T.copy(), "mxfp4", axis=0)), "not axis 0 of"),
    "NaN": (lambda: to_gguf(nx.quantize(with_nan(), "mxfp4")), "32 values would change: .* block 3,"),
    "a scale of 255": (lambda: from_gguf(np.full(34, 255, np.uint8)), "64 values would change: .* block 0,"),
    "half a block": (
        lambda: from_gguf(np.zeros((2, 18), np.uint8)),
        r"\[..., k \* 17\] bytes, not \(2, 18\)",
    ),
    "no QTensor": (lambda: to_gguf(3), "to_gguf takes a QTensor, not int"),
    "an array to transcode": (lambda: transcode(X, "int8"), "transcode takes a QTensor, not ndarray"),
    "other bytes": (lambda: from_gguf(np.zeros(17, np.int8)), "are uint8, not int8"),
}


@pytest.mark.parametrize("name", NO_GGUF)
def test_no_gguf(name):
    call, why = NO_GGUF[name]
    with pytest.raises(nx.NumericsError, match=why):
        call()


@pytest.mark.parametrize("library", LIBRARIES)
def test_another_float_format_of_scales_keeps_what_it_has(library):
    """ue5m3fn has all scales of ue5m3ieee but Inf: it was refused, as no rule finds exact scales."""
    fn, ieee = (nx.block_format(element="fp4", scale=f"ue5m3{kind}", block=16) for kind in ("fn", "ieee"))
    q = nx.quantize(LIBRARIES[library](X), ieee, tensor_scale=1.0)
    made = transcode(q, fn)
    assert (made.format, made.tensor_scale) == (fn, q.tensor_scale)
    assert_same_bits(values(made), values(q))
    assert_same_bits(values(transcode(made, ieee)), values(q))
    wide = nx.block_format(element="fp6_e2m3", scale="fp8_e4m3", block=16)  # another element, fewer exponents
    half = nx.quantize(LIBRARIES[library](np.float32([0.5, 6.0] * 16)), ieee, tensor_scale=1.0)
    assert_same_bits(values(transcode(half, wide)), values(half))
    far = nx.quantize(LIBRARIES[library](np.float32([4e5] * 16)), fn, tensor_scale=1.0)
    with pytest.raises(nx.NumericsError, match="16 of 16 values would change"):
        transcode(far, ieee)


def test_a_refused_tensor_scale_names_the_whole_spec():
    """The advice had the format alone: who took it lost the axis and the rule."""
    q = nx.quantize(X, "nvfp4", axis=0, scale_rule="mse")
    with pytest.raises(nx.NumericsError, match=r"nx\.quantize\(q\.dequantize\(\), q\.spec, tensor_scale"):
        transcode(q, tensor_scale=q.tensor_scale * 1.1)
    again = nx.quantize(q.dequantize(), q.spec, tensor_scale=q.tensor_scale * 1.1)
    assert (again.axis, again.spec) == (0, q.spec)
