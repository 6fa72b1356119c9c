"""Bad input gets one clear NumericsError that names what came and what is allowed; nothing is changed."""

from __future__ import annotations

import numpy as np
import pytest

import numerics as nx

X = np.linspace(-2, 2, 24, dtype=np.float32).reshape(4, 6)
READ_ONLY = np.empty((4, 6), np.uint8)
READ_ONLY.flags.writeable = False

CASES = {
    "object array": (lambda: nx.fp4.encode(np.array([None, 1.0], object)), "object.*allowed: float16"),
    "complex array": (lambda: nx.fp4.encode(X + 1j), "complex.*allowed: float16"),
    "integer array": (lambda: nx.fp4.encode(np.arange(3)), "int64.*allowed: float16"),
    "bool array": (lambda: nx.fp4.encode(X > 0), "bool.*allowed"),
    "string": (lambda: nx.fp4.encode("1.0"), "str"),
    "ragged list": (lambda: nx.fp4.encode([[1.0], [1.0, 2.0]]), "cannot make an array"),
    "huge integer": (lambda: nx.fp4.encode(10**400), "cannot (make|encode|compute)"),
    "name in capitals": (lambda: nx.dtype("FP8_E4M"), "did you mean 'fp8_e4m3'"),
    "beginning of a name": (lambda: nx.dtype("fp8"), "did you mean 'fp8_e4m3'"),
    "beginning of a block's name": (lambda: nx.dtype("MXFP8"), "did you mean 'mxfp8_e4m3'"),
    "unknown rounding": (lambda: nx.fp4.encode(X, rounding="half_evn"), "did you mean 'half_even'"),
    "nearest, whose ties go four ways": (
        lambda: nx.fp4.encode(X, rounding="Nearest"),
        "'half_even', as in IEEE 754 and torch, or 'half_away'",
    ),
    "RNE, which must not be taken for round": (
        lambda: nx.fp4.encode(X, rounding="RNE"),
        r"unknown rounding mode 'RNE'; did you mean 'half_even'\?",
    ),
    "rn, which must not be taken for round": (
        lambda: nx.fp4.encode(X, rounding="rn"),
        r"did you mean 'half_even'\?",
    ),
    "truncation": (lambda: nx.fp4.encode(X, rounding="RTZ"), r"did you mean 'toward_zero'\?"),
    "clipping": (lambda: nx.fp8_e4m3.encode(X, overflow="satfinite"), r"did you mean 'saturate'\?"),
    "infinity": (
        lambda: nx.fp8_e4m3.encode(X, overflow="inf"),
        "becomes Inf or NaN where it is 'nonsaturate'",
    ),
    "float32 by a short name": (lambda: nx.dtype("FP32"), "float32 is what it is computed from"),
    "a scheme for a format": (lambda: nx.dtype("per_token"), "a scheme, to give beside a format"),
    "a float that no table has": (lambda: nx.dtype("e4m2"), r"nx.float_format\(4, 2\) makes it"),
    "a float with its bits": (lambda: nx.dtype("fp7_e4m2"), r"'\{\"exponent\": 4, \"mantissa\": 2\}'"),
    "ggml's name": (lambda: nx.dtype("Q8_0"), r"'int8' with scheme 'per_group\(32\)'"),
    "unknown overflow": (lambda: nx.fp8_e4m3.encode(X, overflow="wrap"), "allowed: saturate, nonsaturate"),
    "impossible overflow": (lambda: nx.fp4.encode(X, overflow="nonsaturate"), "neither Inf nor NaN"),
    "integer overflow": (lambda: nx.int8.encode(X, overflow="nonsaturate"), "allowed: saturate"),
    "block overflow": (lambda: nx.mx6.encode(X, overflow="nonsaturate"), "saturate"),
    "stochastic without bits": (lambda: nx.fp4.encode(X, rounding="stochastic"), "seed= or random_bits="),
    "seed without stochastic": (lambda: nx.fp4.encode(X, seed=1), "belong to rounding='stochastic'"),
    "fractional seed": (lambda: nx.fp4.encode(X, rounding="stochastic", seed=1.5), "an integer, not 1.5"),
    "seed of letters": (lambda: nx.mx6.encode(X, rounding="stochastic", seed="a"), "an integer, not 'a'"),
    "negative seed": (lambda: nx.fp4.encode(X, rounding="stochastic", seed=-1), "outside 0"),
    "seed and bits": (
        lambda: nx.fp4.encode(X, rounding="stochastic", seed=1, random_bits=X.view(np.uint32)),
        "exactly one",
    ),
    "bits of another shape": (
        lambda: nx.fp4.encode(X, rounding="stochastic", random_bits=np.zeros(3, np.uint32)),
        r"shape \(4, 6\)",
    ),
    "float bits": (lambda: nx.fp4.encode(X, rounding="stochastic", random_bits=X), "uint32"),
    "wrong axis": (lambda: nx.mx6.encode(X, axis=2), r"axis 2 .* allowed: -2 .. 1"),
    "fractional axis": (lambda: nx.mx6.encode(X, axis=0.5), "axis 0.5"),
    "no axis": (lambda: nx.mx6.encode(1.0), "no axis to block"),
    "unknown scale rule": (lambda: nx.mxfp4.encode(X, scale_rule="flor"), "did you mean 'floor'"),
    "scale rule of another family": (lambda: nx.mx6.encode(X, scale_rule="even"), "for MX formats"),
    "tensor scale of another family": (lambda: nx.mx6.encode(X, tensor_scale=2.0), "no tensor scale"),
    "tensor scale beyond float32": (lambda: nx.nvfp4.encode(X, tensor_scale=1e60), "positive finite"),
    "tensor scale below float32": (lambda: nx.nvfp4.encode(X, tensor_scale=1e-60), "positive finite"),
    "tensor scale of zero": (lambda: nx.nvfp4.encode(X, tensor_scale=0.0), "positive finite"),
    "code too large": (lambda: nx.fp4.decode(np.array([3, 16], np.uint8)), "code 16 is outside 0 .. 15"),
    "negative code": (lambda: nx.fp4.decode([-1]), "code -1 is outside"),
    "float codes": (lambda: nx.fp4.decode(X), "unsigned integers"),
    "16-bit code for 8": (lambda: nx.fp8_e4m3.decode([256]), "outside 0 .. 255"),
    "packing a large code": (lambda: nx.fp6_e2m3.pack([64]), "outside 0 .. 63"),
    "too few bytes": (
        lambda: nx.fp4.unpack(np.zeros(2, np.uint8), (5,)),
        "5 codes of 4 bits are 3 bytes, but 2",
    ),
    "negative shape": (lambda: nx.fp4.unpack(np.zeros(2, np.uint8), (-4,)), "not a shape"),
    "too few block bytes": (lambda: nx.mx6.unpack(np.zeros(11, np.uint8), (16,)), "12 bytes, but 11"),
    "no scales beside": (lambda: nx.mxfp4.unpack(np.zeros(8, np.uint8), (16,)), "give scale="),
    "blocks of another format": (lambda: nx.mx6.decode(nx.mx9.encode(X)), "not mx9 blocks"),
    "array for blocks": (lambda: nx.mx6.decode(X), "not ndarray"),
    "scales of another shape": (
        lambda: nx.Blocks(nx.mxfp4, -1, np.zeros((2, 64), np.uint8), np.zeros(3, np.uint8)).decode(),
        r"scale has shape \(3,\)",
    ),
    "out of another type": (lambda: nx.fp4.encode(X, out=X.copy()), "out must be a uint8 array"),
    "out of another shape": (lambda: nx.fp4.encode(X, out=np.empty(24, np.uint8)), r"shape \(4, 6\)"),
    "out read-only": (lambda: nx.fp4.encode(X, out=READ_ONLY), "read-only"),
    "out a list": (lambda: nx.fp4.encode(X, out=[]), "not list"),
    "unknown backend": (lambda: nx.use("cqu").__enter__(), "unknown backend 'cqu'; did you mean 'cpu'"),
    "nobody's data": (lambda: nx.fp4.encode({1.0}), "no backend takes a builtins.set"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused_in_words_that_name_it(name):
    call, says = CASES[name]
    before = X.copy()
    with pytest.raises(nx.NumericsError, match=says):
        call()
    assert np.array_equal(X, before)


def test_nothing_is_half_written():
    out = np.full((4, 6), 7, np.uint8)
    with pytest.raises(nx.NumericsError):
        nx.fp4.encode(X, rounding="stochastic", random_bits=np.zeros(3, np.uint32), out=out)
    assert (out == 7).all()


# ---- options of classes whose own methods raise ------------------------------------------------------

METHODS = (
    "lower", "strip", "startswith", "replace", "encode", "casefold", "__eq__", "__ne__", "__hash__",
    "__len__", "__getitem__", "__iter__", "__index__", "__int__", "__float__", "__array__",
    "__str__", "__repr__", "__bool__", "__getattr__",
)  # fmt: skip


def _raises(*_, **__):
    raise ArithmeticError("raised by what came")


def hostile():
    """Objects, texts, numbers and lists, one of whose methods raises; no format or option is called so."""
    for base, made in (
        (object, ()),
        (str, ("no such word",)),
        (int, (77,)),
        (list, ([[]],)),
        (tuple, ([[]],)),
    ):
        for name in METHODS:
            if hasattr(base, name) or base is object:
                yield type(f"{base.__name__} whose {name}", (base,), {name: _raises})(*made)


NUMBERS = ("seed=", "axis=", "scale=", "tensor_scale=", "a part's scale")
TEXTS = ("scheme", "scale_type", "zero_point_type", "rounding", "scale_rule")
READERS = {
    **{f"{name}=": lambda came, name=name: nx.quantize(X, "int4", **{name: came}) for name in TEXTS},
    "symmetric=": lambda came: nx.quantize(X, "int4", symmetric=came),
    "axis=": lambda came: nx.mxfp4.round(X, axis=came),
    "scale=": lambda came: nx.quantize(X, "int4", scale=came),
    "tensor_scale=": lambda came: nx.nvfp4.round(X, tensor_scale=came),
    "seed=": lambda came: nx.fp4.encode(X, rounding="stochastic", seed=came),
    "overflow=": lambda came: nx.fp4.encode(X, overflow=came),
    "out=": lambda came: nx.fp4.encode(X, out=came),
    "a format": nx.dtype,
    "x": lambda came: (
        nx.quantize(came, "int4") if not isinstance(came, (int, list, tuple)) else nx.dtype(came)
    ),
    "a spec": nx.QuantSpec.parse,
    "per_block": nx.per_block,
    "a backend": lambda came: nx.use(came).__enter__(),
    "a name": lambda came: nx.float_format(came, 3),
    "an original": lambda came: nx.QTensor.from_parts("int4", READ_ONLY, np.float32(1), original=came),
    "a part's scale": lambda came: nx.QTensor.from_parts("nvfp4", READ_ONLY, X, tensor_scale=came),
    "compute=": lambda came: nx.linear(X, nx.quantize(X, "int4"), compute=came),
    "signs=": lambda came: nx.hadamard(X[:, :4], 4, signs=came),
    "inverse=": lambda came: nx.hadamard(X[:, :4], 4, inverse=came),
}


@pytest.mark.parametrize("name", READERS)
def test_what_an_option_raises_itself_was_raised_by_the_call(name):
    """ArithmeticError out of `nx.quantize(x, "int4", scheme=theirs)`, which says nothing of schemes."""
    for came in hostile():
        if name in NUMBERS and type(came).__mro__[1] is int:
            continue  # a number, whatever its other methods do
        try:
            READERS[name](came)
        except nx.NumericsError:
            continue
        except ArithmeticError:
            pytest.fail(f"{name} ran what {type(came).__name__} raises")
        pytest.fail(f"{name} took an object of the class {type(came).__name__}")
