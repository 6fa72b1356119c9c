"""quantize, dequantize, fake_quantize against fractions: docs/formats.md §6 word by word, every bit."""

import itertools
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import numerics as nx
from numerics.tensor.spec import SCALE_TYPES, QuantSpec
from tests.helpers.bits import assert_same_bytes
from tests.helpers.by_fractions import (
    KINDS,
    SCALES,
    SCHEMES,
    code_of,
    expected_group,
    groups,
    half_even,
    rounded,
    signed,
)
from tests.helpers.executors import HOST_EXECUTORS, each_executor
from tests.helpers.marks import either_sign

# ---- the judge: exact arithmetic, rounded half to even where a standard rounds ------------------


# ---- integers -----------------------------------------------------------------------------------


def check(x, d, scheme, symmetric, scale_type, zero_type):
    own = x.dtype.name
    wide = "float64" if own == "float64" else "float32"
    options = {
        "scheme": scheme,
        "symmetric": symmetric,
        "scale_type": scale_type,
        "zero_point_type": zero_type,
    }
    before = x.copy()
    q = nx.quantize(x, d, **options)
    found, decoded, scales, zeros = signed(q.codes, d), q.decoded(), q.scale, q.zero_point
    for key, indices in groups(scheme, x.shape).items():
        values = [float(x[index]) for index in indices]
        stored = own if scale_type == "float" else scale_type
        scale, zero, codes, back = expected_group(values, d, symmetric, stored, zero_type, wide)
        assert Fraction(float(scales[key])) == scale
        assert Fraction(0 if symmetric else float(zeros[key])) == zero
        assert [int(found[index]) for index in indices] == codes
        assert_same_bytes(np.array([decoded[index] for index in indices]), np.array(back, wide))
    with np.errstate(over="ignore"):
        assert_same_bytes(q.dequantize(), decoded.astype(x.dtype))
    assert_same_bytes(nx.fake_quantize(x, d, **options), q.dequantize())
    assert_same_bytes(nx.dequantize(q), q.dequantize())
    assert_same_bytes(x, before)
    assert (q.zero_point is None) == symmetric
    return q


@pytest.mark.turns(18)
@either_sign
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [nx.int8, nx.uint8, nx.int4, nx.uint4, nx.int2, nx.int16], ids=str)
def test_every_option_on_every_type(d, kind):
    rng = np.random.default_rng(d.bits)
    x = rng.standard_normal((3, 10)).astype(np.float32)
    x[1] = np.abs(x[1]) + 1  # a row that the range must be widened for
    x[2, 4:8] = 0  # a group of zeros
    x[0, :4] = [np.nan, np.inf, -np.inf, 2.5]
    x = x.astype(KINDS[kind])
    for options in itertools.product(SCHEMES, (True, False), SCALES, ("int32", "float32")):
        if options[1:4:2] == (True, "float32"):  # without zero points, of whatever type
            continue
        for _ in each_executor(HOST_EXECUTORS):
            check(x, d, *options)


@pytest.mark.parametrize("scheme", [*SCHEMES, nx.per_channel(2), nx.per_group(2, axis=1)], ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_reference_quantizes_tensors(scheme, symmetric):
    """Rows and columns of batches too."""
    x = np.random.default_rng(5).standard_normal((3, 4, 5)).astype(np.float32)
    x[0, 1], x[1, 2, 3] = 0, np.nan
    x = x[0] if scheme in (nx.per_channel(1), nx.per_group(4)) else x
    with nx.use("reference"):
        for zero_type in ("int32", "float32")[: 1 if symmetric else 2]:
            check(x, nx.int4, scheme, symmetric, "float32", zero_type)
        watching = nx.observe.MinMax("int4", scheme=scheme, symmetric=symmetric)
        watching.observe(x)
        assert_same_bytes(watching.scale, nx.quantize(x, "int4", scheme=scheme, symmetric=symmetric).scale)


arrays = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=6),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
)  # fmt: skip


@either_sign
@given(arrays, st.sampled_from(SCHEMES), st.booleans(), st.sampled_from(SCALES),
       st.sampled_from(["int32", "float32"]), st.sampled_from([nx.int8, nx.uint4, nx.int3]))  # fmt: skip
def test_any_float32(x, scheme, symmetric, scale_type, zero_type, d):
    with nx.use("array"):
        check(x, d, scheme, symmetric, scale_type, zero_type)


@given(hnp.arrays(np.float64, (2, 3), elements=st.floats(allow_nan=True, allow_infinity=True)),
       st.booleans(), st.sampled_from(SCALES), st.sampled_from(["int32", "float32"]))  # fmt: skip
def test_any_float64(x, symmetric, scale_type, zero_type):
    with nx.use("array"):
        check(x, nx.int8, nx.per_channel(0), symmetric, scale_type, zero_type)


@pytest.mark.parametrize("rounding", ["half_even", "half_away", "toward_zero", "floor", "ceil"])
def test_the_rounding_is_asked_for(host_executor, rounding):
    x = np.array([0.5, 1.5, -0.5, -2.5, 1.25, 127.0], np.float32)
    exact = {
        "half_even": half_even,
        "half_away": lambda f: math.floor(abs(f) + Fraction(1, 2)) * (1 if f > 0 else -1),
        "toward_zero": math.trunc,
        "floor": math.floor,
        "ceil": math.ceil,
    }[rounding]
    q = nx.quantize(x, "int8", rounding=rounding)
    assert float(q.scale) == 1.0
    assert signed(q.codes, nx.int8).tolist() == [exact(Fraction(float(v))) for v in x]


def test_stochastic_draws_by_the_place_of_an_element(host_executor):
    x = np.random.default_rng(1).standard_normal((4, 10)).astype(np.float32)
    scale = np.full((4, 3), 0.5, np.float32)
    q = nx.quantize(x, "int8", scheme=nx.per_group(4), scale=scale, rounding="stochastic", seed=7)
    assert_same_bytes(q.codes, nx.int8.encode(x / np.float32(0.5), rounding="stochastic", seed=7))
    bits = np.zeros(x.shape, np.uint32)
    down = nx.quantize(x, "int8", scale=np.float32(0.5), rounding="stochastic", random_bits=bits)
    assert_same_bytes(down.codes, nx.int8.encode(x / np.float32(0.5), rounding="toward_zero"))


# ---- scales at the ends of their types ----------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.* values are NaN and become .*:numerics.NumericsWarning")
@pytest.mark.parametrize(
    ("x", "scale_type", "scale"),
    [
        (1e-45, "float32", 2.0**-149),  # would round to 0
        (1e-9, "float16", 2.0**-24),
        (1e-45, "pof2", 2.0**-127),
        (3e38, "float16", 65504.0),  # would round to infinity
        (127.0, "pof2", 1.0),
        (float(np.nextafter(np.float32(127), np.float32(200))), "pof2", 2.0),  # just above a power of two
        (0.0, "bfloat16", 1.0),
        (math.nan, "float32", 1.0),
    ],
)
def test_scales_are_positive_and_finite(x, scale_type, scale):
    assert float(nx.quantize(np.float32([x]), "int8", scale_type=scale_type).scale) == scale


def test_a_range_beyond_float32_has_its_scale():
    x = np.float32([-3.4e38, 3.4e38])
    q = nx.quantize(x, "int8", symmetric=False)
    span = Fraction(float(x[1])) - Fraction(float(x[0]))
    assert Fraction(float(q.scale)) == rounded(2 * rounded(span / 2, "float32") / 255, "float32")


def test_float_is_the_type_of_x():
    x = np.float32([0.3, 1.0])
    for kind, made in KINDS.items():
        q = nx.quantize(x.astype(made), "int8", scale_type="float")
        assert q.spec.stored_scale_type(q.original) == kind
    q = nx.quantize([0.3, 1.0], "int8", scale_type="float")
    assert q.spec.stored_scale_type(q.original) == "float64"


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale_type", SCALE_TYPES)
def test_a_quantized_tensor_shows_options_that_quantize_takes(scale_type, kind, library):
    x = np.float32([[0.3, 1.0, -7.0, 2.0]])
    x = x.astype(KINDS[kind]) if library == "numpy" else torch.from_numpy(x).to(getattr(torch, kind))
    q = nx.quantize(x, "int8", scale_type=scale_type, scheme=nx.per_channel(1), symmetric=False)
    assert q.scale_type == scale_type
    again = nx.quantize(x, q.format, scheme=repr(q.scheme), scale_type=q.scale_type, symmetric=False)
    assert again.spec == q.spec
    assert np.array_equal(np.asarray(again.scale), np.asarray(q.scale))
    assert QuantSpec.parse(q.spec.text) == q.spec


@pytest.mark.parametrize("ask", [nx.quantize, nx.fake_quantize])
def test_float64_as_a_scale_type_is_told_its_name(ask):
    with pytest.raises(
        nx.NumericsError, match="unknown scale type 'float64'; scale_type='float' is the type"
    ):
        ask([1.0], "int8", scale_type="float64")


# ---- floats and blocks --------------------------------------------------------------------------


@pytest.mark.parametrize("d", [nx.fp8_e4m3, nx.fp8_e5m2, nx.fp6_e2m3, nx.fp4, nx.fp8_e4m3fnuz], ids=str)
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_floats_scale_to_their_largest_value(host_executor, d, scheme):
    x = np.random.default_rng(3).standard_normal((3, 10)).astype(np.float32)
    q = nx.quantize(x, d, scheme=scheme)
    for key, indices in groups(scheme, x.shape).items():
        values = [Fraction(float(x[index])) for index in indices]
        scale = rounded(max(map(abs, values)) / Fraction(d.max), "float32")
        assert Fraction(float(q.scale[key])) == scale
        quotients = np.array([float(rounded(v / scale, "float32")) for v in values], np.float32)
        codes = d.encode(quotients, overflow="saturate")
        assert [int(q.codes[index]) for index in indices] == codes.tolist()
        back = [float(rounded(Fraction(v) * scale, "float32")) for v in d.decode(codes).tolist()]
        assert_same_bytes(
            np.abs(np.array([q.decoded()[index] for index in indices])), np.abs(np.array(back, np.float32))
        )
    assert_same_bytes(nx.fake_quantize(x, d, scheme=scheme), q.dequantize())


@pytest.mark.turns
@pytest.mark.parametrize("d", [d for d in nx.dtypes() if d.kind == "block"], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_are_what_the_format_encodes(host_executor, d, kind):
    x = (
        np.random.default_rng(4)
        .standard_normal((5, 3, 40))
        .astype(np.float32)
        .astype(KINDS[kind])[::2, :, ::-1]
    )
    for axis in (-1, 0, 1):
        q, blocks = nx.quantize(x, d, axis=axis), d.encode(x, axis=axis)
        assert_same_bytes(q.codes, blocks.codes)
        assert_same_bytes(q.scale, blocks.scale)
        assert (q.microexponents is None) == (blocks.microexponents is None)
        assert q.tensor_scale == blocks.tensor_scale
        assert_same_bytes(q.dequantize(), d.round(x, axis=axis))
        assert_same_bytes(nx.fake_quantize(x, d, axis=axis), q.dequantize())


def test_blocks_take_a_scale_rule():
    x = np.random.default_rng(5).standard_normal((4, 64)).astype(np.float32)
    for rule in ("floor", "ceil", "even", "rceil"):
        assert_same_bytes(
            nx.quantize(x, "mxfp4", scale_rule=rule).dequantize(), nx.mxfp4.round(x, scale_rule=rule)
        )


# ---- kinds of input, and the QTensor ------------------------------------------------------------


def test_python_numbers_come_back_as_they_were():
    assert nx.fake_quantize(0.5, "int8", scale=0.25) == 0.5
    assert nx.fake_quantize([[1, -2], [3, 4]], "int8", scale=1) == [[1.0, -2.0], [3.0, 4.0]]
    assert nx.fake_quantize([], "mx6") == []
    assert isinstance(nx.quantize(3, "int4").dequantize(), float)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0), (1, 1)])
def test_arrays_of_every_shape_and_empty_ones_are_quantized(shape):
    x = np.ones(shape, np.float32)
    q = nx.quantize(x, "int4", symmetric=False)
    assert_same_bytes(q.dequantize(), x)
    assert q.codes.shape == q.shape == shape
    assert q.error(x).max_error == 0.0


def test_a_qtensor_says_what_it_is_and_travels():
    x = np.random.default_rng(6).standard_normal((8, 100)).astype(np.float32)
    q = nx.quantize(x, "int4", scheme=nx.per_group(32), symmetric=False, scale_type="float16")
    assert q.packed.nbytes == 400
    assert q.nbytes == 400 + 32 * 2 + 32 * 4
    assert q.bits == 8 * q.nbytes / 800
    assert (
        repr(q)
        == "QTensor(int4, shape=(8, 100), per_group(32, axis=-1), last groups of 4, 5.92 bits a value)"
    )
    q.codes  # noqa: B018 - unpacked, and yet not pickled
    again = pickle.loads(pickle.dumps(q))
    assert "codes" not in vars(again)
    assert_same_bytes(again.dequantize(), q.dequantize())
    assert again.dtype is nx.int4
    for kind in KINDS.values():
        assert_same_bytes(q.dequantize(kind), q.dequantize().astype(kind))


@pytest.mark.parametrize("index", [np.s_[-100::-1], np.s_[5:5], np.s_[9:10], np.s_[3:1], np.s_[1:1:3]])
@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_a_part_of_nothing_is_empty(index, library):
    """Wherever it is cut, and whatever shares a scale."""
    x = np.random.default_rng(1).standard_normal((8, 5)).astype(np.float32)
    for d, options in (("int4", {}), ("int3", {"scheme": "per_group(4, axis=0)"}), ("mx6", {"axis": 0}),
                       ("int4", {"scheme": "per_channel(0)"}), ("nvfp4", {"axis": 0})):  # fmt: skip
        if library is torch.from_numpy and (index.step or 1) < 0:
            continue  # torch has no negative steps
        q = nx.quantize(library(x), d, **options)
        part = q[index]
        assert isinstance(part, nx.QTensor)
        assert tuple(part.shape) == part.dequantize().shape == (0, 5)
        assert part.packed.shape == (0,)


def test_a_qtensor_is_a_sequence_of_its_rows():
    x = np.float32([[0.5, -7.0], [2.0, 3.5], [1.0, 1.0]])
    for scheme in (nx.per_tensor(), nx.per_channel(0), nx.per_channel(1), nx.per_group(2)):
        q = nx.quantize(x, "int4", scheme=scheme)
        assert len(q) == len(list(q)) == 3
        assert_same_bytes(np.stack([row.dequantize() for row in q]), q.dequantize())
        assert_same_bytes(np.asarray(q), q.dequantize())
        assert [row.shape for row in reversed(q)] == [(2,)] * 3
    with pytest.raises(nx.NumericsError, match="along which scales are shared"):
        list(nx.quantize(x, "int4", scheme="per_group(2, axis=0)"))
    with pytest.raises(nx.NumericsError, match="axis 0 does not exist"):
        len(nx.quantize(1.0, "int4"))


OTHERS = {
    "text": "x", "bytes": b"x", "None": None, "object": object(), "texts": np.array(["a", "b"]),
    "dates": np.zeros(2, "M8[s]"), "number": 1.0, "list": [1.0, 3.0],
}  # fmt: skip


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_comparison_with_what_is_no_number_raised(other):
    """NumPy's arrays answer it: nothing equals that."""
    q = nx.quantize([1.0, 2.0], "int4")
    values = np.asarray(q)
    assert np.array_equal(q == other, values == other)
    assert np.array_equal(q != other, values != other)
    assert (q == q).all()
    assert not (q != q).any()


def test_the_error_of_a_quantized_tensor_is_that_of_its_values():
    q, other = nx.quantize(X, "int4"), nx.quantize(X * 0.3, "fp4")
    assert q.error(q).max_error == 0.0
    assert q.error(other) == q.error(other.dequantize())


def test_the_error_of_a_quantized_array_is_that_of_the_definition():
    x = np.float32([1.0, -2.0, 0.25, 8.0])
    q = nx.quantize(x, "int4", scale=1.0)
    differences = [Fraction(float(a)) - Fraction(float(b)) for a, b in zip(x, q.dequantize(), strict=True)]
    signal, noise = sum(Fraction(float(a)) ** 2 for a in x), sum(e**2 for e in differences)
    assert q.error(x).max_error == float(max(map(abs, differences))) == 1.0
    assert q.error(x).sqnr == 10 * math.log10(float(signal) / float(noise))
    assert nx.quantize(x, "int16", scale=0.25).error(x).sqnr == math.inf
    x[3] = np.nan
    assert q.error(x).max_error == 0.25
    with pytest.raises(nx.NumericsError, match=r"shape \(2,\), the quantized tensor \(4,\)"):
        q.error(x[:2])


# ---- what cannot be -----------------------------------------------------------------------------

X = np.ones((4, 8), np.float32)
ZERO = {"dtype": "int8", "scale": 1.0, "symmetric": False}
BAD = [
    ({"dtype": "int9"}, "unknown format 'int9'; did you mean"),
    ({"dtype": "int8", "scheme": "per_row"}, "unknown scheme 'per_row'"),
    ({"dtype": "int8", "scheme": "per_channel(2)"}, "axis 2 does not exist in shape"),
    ({"dtype": "int8", "scheme": "per_group(0)"}, "a group of 0 elements"),
    ({"dtype": "int8", "scale_type": "float8"}, "unknown scale type 'float8'"),
    ({"dtype": "int8", "zero_point_type": "int8"}, "unknown zero point type 'int8'"),
    ({"dtype": "int8", "rounding": "nearest"}, "unknown rounding mode 'nearest'"),
    ({"dtype": "int8", "scale_rule": "even"}, "scale_rule='even' cannot be"),
    ({"dtype": "int8", "axis": 0}, "axis=0 cannot be"),
    ({"dtype": "int8", "seed": 1}, "seed and random_bits belong to"),
    ({"dtype": "int8", "rounding": "stochastic"}, "needs either seed"),
    ({"dtype": "int8", "rounding": "stochastic", "seed": 1.5}, "seed must be an integer, not 1.5"),
    ({"dtype": "int8", "scheme": ""}, "'' is not a scheme"),
    ({"dtype": "int8", "symmetric": "False"}, "symmetric='False' is not allowed: True or False"),
    ({"dtype": "int8", "symmetric": 0}, "symmetric=0 is not allowed"),
    ({"dtype": "mx6", "axis": 1.0}, "axis must be an integer, not 1.0"),
    ({"dtype": "mx6", "axis": True}, "axis must be an integer, not True"),
    ({"dtype": "mx6", "axis": 2}, "axis 2 does not exist"),
    ({"dtype": "mx6", "scheme": "per_tensor"}, "mx6: scheme='per_tensor' cannot be"),
    ({"dtype": "mx6", "symmetric": False}, "mx6: symmetric=False cannot be"),
    ({"dtype": "mx6", "scale": 1.0}, "mx6: scale=1.0 cannot be"),
    ({"dtype": "mx6", "scale_type": "pof2"}, "mx6: scale_type='pof2' cannot be"),
    ({"dtype": "mx6", "scale_rule": "even"}, "is for MX formats"),
    ({"dtype": "fp8_e4m3", "symmetric": False}, "fp8_e4m3: symmetric=False cannot be"),
    ({"dtype": "fp8_e4m3", "zero_point_type": "float32"}, "zero_point_type='float32' cannot be"),
    ({"dtype": "int8", "scale": 0.0}, "scale 0 is not allowed: positive and finite"),
    ({"dtype": "int8", "scale": -1.0}, "scale -1 is not allowed"),
    ({"dtype": "int8", "scale": math.nan}, "scale nan is not allowed"),
    ({"dtype": "int8", "scale": math.inf}, "scale inf is not allowed"),
    ({"dtype": "int8", "scale": [1.0, 2.0]}, r"scale has shape \(2,\); the scheme needs \(\)"),
    ({"dtype": "int8", "scheme": "per_channel", "scale": [1.0]}, r"the scheme needs \(4,\)"),
    ({"dtype": "int8", "scheme": "per_group(3)", "scale": np.ones((4, 2))}, r"the scheme needs \(4, 3\)"),
    ({"dtype": "int8", "scale": "big"}, "scale must be real numbers"),
    ({"dtype": "int8", "scale": [[1.0], [1.0, 2.0]]}, "scale cannot be read as numbers"),
    ({"dtype": "int8", "zero_point": 3, "scale": 1.0}, "symmetric=True has no zero point"),
    ({**ZERO, "scale": None, "zero_point": 3}, "given without its scale"),
    ({**ZERO, "zero_point": 128}, "zero_point 128 is outside -128 .. 127"),
    ({**ZERO, "zero_point": 0.5}, "zero_point 0.5 is not an integer"),
    ({**ZERO, "zero_point": math.nan}, "zero_point nan is outside"),
    ({**ZERO, "zero_point": [1]}, r"zero_point has shape \(1,\)"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "said"), BAD)
@pytest.mark.parametrize("verb", ["quantize", "fake_quantize"])
def test_options_that_contradict_each_other_are_refused_before_any_kernel(monkeypatch, verb, options, said):
    from numerics.backends import array

    for kernel in ("encode_affine", "decode_affine", "encode_blocks", "round_blocks"):
        monkeypatch.setattr(array.BACKEND.executor, kernel, None)
    with nx.use("array"), pytest.raises(nx.NumericsError, match=said):
        getattr(nx, verb)(X, **options)


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
@pytest.mark.parametrize(("d", "name", "due", "same", "refused"), [
    ("mxfp4", "axis", 1, np.int64(1), (1.0, True, np.True_)),
    ("int4", "symmetric", False, np.False_, (0, 0.0, "")),
])  # fmt: skip
def test_an_option_that_only_equals_an_allowed_one_is_refused_and_forgotten(
    library, d, name, due, same, refused
):
    """NumPy's numbers are what they are; what only equals an allowed one is refused, and forgotten."""
    x = library(X)
    for came in refused:
        for _ in range(2):
            with pytest.raises(nx.NumericsError, match=f"^{name}"):
                nx.quantize(x, d, **{name: came})
    first = nx.quantize(x, d, **{name: same})
    assert first.spec.text == nx.quantize(x, d, **{name: due}).spec.text
    assert type(getattr(first.spec, name)) is type(due)


@pytest.mark.parametrize(
    "x", [np.ones(3, complex), np.array([None]), np.ones(3, int), "text", [[1.0], [1.0, 2.0]]]
)
def test_quantizing_what_is_no_tensor_is_refused(x):
    with pytest.raises(nx.NumericsError):
        nx.quantize(x, "int8")


def test_given_scales_and_zero_points(host_executor):
    x = np.float32([[0.5, -1.0, 3.0], [100.0, 7.0, 0.1]])
    q = nx.quantize(x, "uint8", scheme="per_channel", symmetric=False, scale=[0.5, 0.7], zero_point=[2, 10])
    for row, (scale, zero) in enumerate(zip(np.float32([0.5, 0.7]), [2, 10], strict=True)):
        due = [
            code_of(float(v), Fraction(float(scale)), Fraction(zero), nx.uint8, "float32", False)
            for v in x[row]
        ]
        assert q.codes[row].tolist() == due
    third = nx.quantize(x, "int8", scale=1 / 3, scale_type="bfloat16")
    assert Fraction(float(third.scale)) == rounded(Fraction(1 / 3), "bfloat16")
    real = nx.quantize(x, "int8", symmetric=False, scale=1.0, zero_point=0.5, zero_point_type="float32")
    assert real.zero_point.dtype == np.float32
    assert float(real.zero_point) == 0.5
    found = nx.quantize(x, "int8", symmetric=False, scale=1.0)
    assert int(found.zero_point) == -127


@pytest.mark.parametrize("verb", [nx.quantize, nx.fake_quantize])
def test_what_is_quantized_already(verb):
    with pytest.raises(nx.NumericsError, match="is quantized already; dequantize it first"):
        verb(nx.quantize(X, "int4"), "int8")


def test_dequantize_takes_a_qtensor():
    with pytest.raises(nx.NumericsError, match="takes a QTensor, not list"):
        nx.dequantize([1])
    with pytest.raises(nx.NumericsError, match="unknown float type 'int8'"):
        nx.quantize([1.0], "int8").dequantize("int8")
    with pytest.raises(nx.NumericsError, match="int8 is not a block format"):
        nx.quantize([1.0], "int8").blocks  # noqa: B018


def test_a_qtensor_of_arrays_that_is_written_into_says_what_takes_a_write():
    q = nx.quantize(np.ones((4, 32), np.float32), "int8", scheme="per_channel(0)")
    with pytest.raises(nx.NumericsError, match=r"not written into.*quantize again"):
        q[0] = q[1]
