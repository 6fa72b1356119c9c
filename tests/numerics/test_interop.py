"""Views as other libraries' types, against those libraries' own reading of the bits."""

import re
import warnings

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("torch")
import torch

import numerics as nx
from numerics import interop
from tests.helpers.bits import assert_same_bits

NUMPY = {
    "int2": ml_dtypes.int2, "int4": ml_dtypes.int4, "int8": np.int8, "int16": np.int16,
    "uint2": ml_dtypes.uint2, "uint4": ml_dtypes.uint4, "uint8": np.uint8,
    "float16": np.float16, "bfloat16": ml_dtypes.bfloat16,
    "fp8_e4m3": ml_dtypes.float8_e4m3fn, "fp8_e5m2": ml_dtypes.float8_e5m2,
    "fp8_e3m4": ml_dtypes.float8_e3m4, "fp8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "fp8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz, "fp6_e3m2": ml_dtypes.float6_e3m2fn,
    "fp6_e2m3": ml_dtypes.float6_e2m3fn, "fp4": ml_dtypes.float4_e2m1fn, "e8m0": ml_dtypes.float8_e8m0fnu,
}  # fmt: skip
TORCH = {
    "int8": torch.int8, "int16": torch.int16, "uint8": torch.uint8,
    "float16": torch.float16, "bfloat16": torch.bfloat16,
    "fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2,
    "fp8_e4m3fnuz": torch.float8_e4m3fnuz, "fp8_e5m2fnuz": torch.float8_e5m2fnuz,
    "e8m0": torch.float8_e8m0fnu,
}  # fmt: skip
ELEMENTS = [d for d in nx.dtypes() if d.kind != "block"]
# Sixteen-bit codes, and what torch makes of NaN, include signalling NaNs.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
X = np.linspace(-3, 3, 24, dtype=np.float32).reshape(3, 8)


def codes_of(name: str) -> np.ndarray:
    d = nx.dtype(name)
    return np.arange(1 << d.bits, dtype=d.code_dtype)


# ---- views -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NUMPY)
def test_every_code_means_the_same_to_numpy(name):
    codes = codes_of(name)
    native = interop.to_native(codes, name)
    assert native.dtype == NUMPY[name]
    assert native.ctypes.data == codes.ctypes.data
    assert_same_bits(nx.dtype(name).decode(codes), native.astype(np.float32))


@pytest.mark.parametrize("name", NUMPY)
def test_from_numpy_is_the_inverse(name):
    written = nx.dtype(name).decode(codes_of(name)).astype(NUMPY[name])  # the library's own encoding
    codes, d = interop.from_native(written)
    assert d is nx.dtype(name)
    assert codes.dtype == d.code_dtype
    assert codes.ctypes.data == written.ctypes.data
    assert_same_bits(d.decode(codes), written.astype(np.float32))


@pytest.mark.parametrize("name", TORCH)
def test_every_code_means_the_same_to_torch(name):
    codes = torch.from_numpy(codes_of(name))
    native = interop.to_native(codes, nx.dtype(name))
    assert native.dtype == TORCH[name]
    assert native.data_ptr() == codes.data_ptr()
    assert_same_bits(nx.dtype(name).decode(codes).numpy(), native.float().numpy())
    back, d = interop.from_native(native)
    assert d is nx.dtype(name)
    assert back.data_ptr() == codes.data_ptr()
    assert torch.equal(back, codes)


def test_views_keep_strides():
    codes = np.arange(64, dtype=np.uint8).reshape(8, 8)[::2, ::-1]
    native = interop.to_native(codes, "fp8_e5m2")
    assert native.strides == codes.strides
    assert np.shares_memory(native, codes)
    turned = torch.arange(64, dtype=torch.uint8).reshape(8, 8).T
    assert interop.to_native(turned, "fp8_e5m2").stride() == turned.stride()
    assert interop.to_native(np.empty((0, 3), np.uint8), "fp4").shape == (0, 3)


def test_packed_fp4():
    packed = nx.quantize(torch.from_numpy(X), "fp4").packed.view(3, 4)
    native = interop.to_native_packed(packed, "fp4")
    assert native.dtype == torch.float4_e2m1fn_x2
    assert native.shape == (3, 4)
    assert native.data_ptr() == packed.data_ptr()
    back, d = interop.from_native_packed(native)
    assert (d, back.dtype, back.data_ptr()) == (nx.fp4, torch.uint8, packed.data_ptr())


@pytest.mark.parametrize("d", [d for d in ELEMENTS if d.name not in NUMPY], ids=str)
def test_numpy_has_no_type(d):
    with pytest.raises(nx.NumericsError, match=f"has a type of {d}'s bits"):
        interop.to_native(np.zeros(1, d.code_dtype), d)


@pytest.mark.parametrize("d", [d for d in ELEMENTS if d.name not in TORCH], ids=str)
def test_torch_has_no_type(d):
    with pytest.raises(nx.NumericsError, match=f"torch has no type of {d}'s bits with one code"):
        interop.to_native(torch.zeros(1, dtype=getattr(torch, d.code_dtype)), d)


WRONG = {
    "a block format": (lambda: interop.to_native(np.zeros(4, np.uint8), "mxfp4"), "mxfp4 is a block format"),
    "wide codes": (lambda: interop.to_native(np.zeros(4, np.int64), "fp4"), "are uint8, not int64"),
    "wide tensors": (lambda: interop.to_native(torch.zeros(4), "fp8_e4m3"), "are uint8, not float32"),
    "a list": (lambda: interop.to_native([1, 2], "fp4"), "a NumPy array .* not a list"),
    "a QTensor": (lambda: interop.from_native(nx.quantize(torch.ones(2), "fp4")), "not a TensorQTensor"),
    "a code too large": (lambda: interop.to_native(np.array([16], np.uint8), "fp4"), "code 16 is outside"),
    "bits beyond the code": (
        lambda: interop.from_native(np.array([255], np.uint8).view(ml_dtypes.int4)), "code 255 is outside"),
    "a declared format that borrows a name": (
        lambda: interop.to_native(np.zeros(1, np.uint8), nx.float_format(2, 2, name="a")), "neither NumPy"),
    "no QTensor for tensors": (lambda: interop.as_tensors(3), "as_tensors takes a QTensor, not int"),
    "a tensor for arrays": (lambda: interop.as_arrays(torch.ones(2)), "takes a QTensor, not Tensor"),
    "no format": (lambda: interop.from_native(np.zeros(2, np.float32)), "unknown format"),
    "the other byte order": (lambda: interop.from_native(np.zeros(2, ">f2")), "not the codes of float16"),
    "torch's 4 bits": (
        lambda: interop.from_native(torch.zeros(2, dtype=torch.uint8).view(torch.uint4)), "not the codes"),
    "packed for NumPy": (lambda: interop.to_native_packed(np.zeros(2, np.uint8), "fp4"), "NumPy has no type"),
    "packed int4": (
        lambda: interop.to_native_packed(torch.zeros(2, dtype=torch.uint8), "int4"), "with two codes a byte"),
    "not packed": (lambda: interop.from_native_packed(torch.zeros(2)), "does not hold two codes a byte"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_has_no_view_is_refused(name):
    call, why = WRONG[name]
    with pytest.raises(nx.NumericsError, match=why):
        call()


# ---- decode takes them as they are -----------------------------------------------------------------


@pytest.mark.parametrize("name", NUMPY)
def test_decode_takes_numpys_own_type(host_executor, name):
    d, native = nx.dtype(name), codes_of(name).view(NUMPY[name])
    assert_same_bits(d.decode(native[::-1]), native.astype(np.float32)[::-1])


@pytest.mark.parametrize("name", TORCH)
def test_decode_takes_torchs_own_type(host_executor, name):
    d, codes = nx.dtype(name), torch.from_numpy(codes_of(name))
    assert_same_bits(d.decode(codes.view(TORCH[name])).numpy(), d.decode(codes).numpy())


@pytest.mark.parametrize("name", TORCH)
def test_a_gpus_backend_takes_torchs_own_type(name):
    d, codes = nx.dtype(name), torch.from_numpy(codes_of(name))
    gpu = pytest.importorskip("numerics.backends.gpu.tensors", exc_type=ImportError)
    taken = gpu.take_codes(codes.view(TORCH[name]), d.bits, d.code_dtype, d.name)
    assert taken.data_ptr() == codes.data_ptr()
    assert torch.equal(taken, codes)
    with pytest.raises(nx.NumericsError, match="not bool"):
        gpu.take_codes(torch.zeros(2, dtype=torch.bool), d.bits, d.code_dtype, d.name)


def test_decode_compiles_on_torchs_own_type():
    x = torch.tensor([0.3125, -448.0]).to(torch.float8_e4m3fn)
    decode = torch.compile(nx.fp8_e4m3.decode, fullgraph=True, backend="eager")
    assert decode(x).tolist() == [0.3125, -448.0]


def test_decode_refuses_another_formats_type():
    with pytest.raises(nx.NumericsError, match="not float8_e5m2"):
        nx.fp8_e4m3.decode(np.zeros(2, ml_dtypes.float8_e5m2))
    with pytest.raises(nx.NumericsError, match="float8_e5m2"):
        nx.fp8_e4m3.decode(torch.zeros(2, dtype=torch.float8_e5m2))
    with pytest.raises(nx.NumericsError, match="not float32"):
        nx.fp8_e4m3.decode(np.zeros(2, np.float32))


# ---- QTensors between NumPy and torch --------------------------------------------------------------

KINDS = {
    "int4 in groups": {"dtype": "int4", "scheme": "per_group(4)"},
    "uint8 with zero points": {"dtype": "uint8", "scheme": "per_channel(0)", "symmetric": False},
    "float zero points": {"dtype": "int8", "symmetric": False, "zero_point_type": "float32"},
    "fp6": {"dtype": "fp6_e2m3"}, "mxfp4": {"dtype": "mxfp4"}, "nvfp4": {"dtype": "nvfp4", "axis": 0},
    "mx6": {"dtype": "mx6"},
}  # fmt: skip
PARTS = ("packed", "shared", "zero_point")


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", KINDS)
def test_the_same_tensor_in_the_other_library(name, kind):
    x = X.astype(kind)
    arrays, tensors = nx.quantize(x, **KINDS[name]), nx.quantize(torch.from_numpy(x), **KINDS[name])
    for made in (interop.as_tensors(arrays), interop.as_tensors(interop.as_arrays(tensors))):
        assert repr(made) == repr(tensors)
        assert made.dtype == tensors.dtype
        assert torch.equal(made, tensors)
        assert_same_bits(made.dequantize().numpy(), tensors.dequantize().numpy())
    for made in (interop.as_arrays(tensors), interop.as_arrays(interop.as_tensors(arrays))):
        assert_same_bits(made.dequantize(), arrays.dequantize())
        assert (made.spec, made.tensor_scale) == (arrays.spec, arrays.tensor_scale)


@pytest.mark.parametrize("name", KINDS)
def test_memory_is_shared(name):
    q = nx.quantize(X, **KINDS[name])
    moved = interop.as_tensors(q)
    back = interop.as_arrays(moved)
    for part in PARTS:
        mine, theirs, again = (getattr(one, part) for one in (q, moved, back))
        assert (mine is None) == (theirs is None) == (again is None)
        if mine is not None:
            assert mine.ctypes.data == theirs.data_ptr() == again.ctypes.data


def test_what_is_there_already_stays():
    q = nx.quantize(torch.from_numpy(X), "int4")
    assert interop.as_tensors(q) is q
    assert interop.as_tensors(nx.quantize([0.5, 1.0], "int4")).dtype == torch.float64


def test_read_only_arrays_are_copied():
    q = nx.quantize(X, "int4")
    q.packed.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moved = interop.as_tensors(q)
    assert moved.packed.data_ptr() != q.packed.ctypes.data
    assert_same_bits(moved.dequantize().numpy(), q.dequantize())


def test_tensors_elsewhere_are_refused():
    with pytest.raises(nx.NumericsError, match="on meta cannot be read"):
        interop.as_arrays(nx.quantize(torch.from_numpy(X), "int4").each(lambda part: part.to("meta")))


@pytest.mark.parametrize("name", KINDS)
def test_parts_go_through_dlpack(name):
    q = nx.quantize(X, **KINDS[name])
    for part in (getattr(q, part) for part in PARTS if getattr(q, part) is not None):
        tensor = torch.from_dlpack(part)
        assert tensor.data_ptr() == part.ctypes.data
        assert np.from_dlpack(tensor).ctypes.data == part.ctypes.data


@pytest.mark.parametrize("options", [{"scheme": None}, {"device": "nowhere"}, {"dtype": "int4"}])
def test_to_raised_what_torch_raises(options):
    with pytest.raises(nx.NumericsError, match=r"to\(\) takes what torch.Tensor.to takes"):
        nx.quantize(X, "int4").to(**options)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fp8", "'fp8_e4m3', which most people mean"),
        ("mxfp8", "'mxfp8_e4m3'"),
        ("fp8_e4m4", "did you mean 'fp8_e4m3'"),
        ("e4m3", "nx.dtype('e4m3') is nx.fp8_e4m3"),
        ("E4M3FN", "did you mean 'fp8_e4m3'"),
        ("mxfp", "family of formats: mxfp8_e4m3"),
    ],
)
def test_attributes_forgive_as_strings_do(name, told):
    """Python itself named what is spelled alike: fp3 for fp8."""
    with pytest.raises(AttributeError, match=re.escape(told)) as wrong:
        getattr(nx, name)
    assert wrong.value.obj is None  # so that Python names nothing beside it
    assert not hasattr(nx, name)


@pytest.mark.parametrize("name", ["quantise", "__wrapped__", "_fp8", "load2"])
def test_names_that_look_like_no_formats_are_left_to_python(name):
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'$"):
        getattr(nx, name)


def test_families_are_told_whole_and_what_stands_in_a_formats_place_is_named():
    with pytest.raises(nx.NumericsError, match="family of formats: mxfp8_e4m3, mxfp8_e5m2, mxfp6_e3m2"):
        nx.dtype("mxfp")
    for turned in (
        lambda: nx.conform.check("fp4", nx.fp4.encode),
        lambda: nx.quantize("int8", np.ones(3, np.float32)),
    ):
        with pytest.raises(nx.NumericsError, match=r"is no format.* comes first, and the format behind it"):
            turned()
    with pytest.raises(nx.NumericsError, match=r"a file is read by nx\.load\(path\)"):
        nx.quantize("w.npy", "int8")
    with pytest.raises(nx.NumericsError, match="cannot compute with texts; allowed: "):
        nx.quantize([[1, 2], [3, "a"]], "int8")
