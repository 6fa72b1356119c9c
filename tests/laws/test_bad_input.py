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
    "huge integer": (lambda: nx.fp4.encode(10**400), "cannot (make|encode)"),
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
