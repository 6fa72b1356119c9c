"""Every member of the enumerations that tensors know (AMD Quark's quantization.config.type), bit for bit.

Formats x schemes x scale types x zero-point types x roundings x types of input, against fractions and
the reference: short groups, a group of zeros, NaN and Inf among the values.
"""

from __future__ import annotations

import itertools
from fractions import Fraction
from functools import lru_cache

import numpy as np
import pytest

import numerics as nx
from numerics.conform.task import REFERENCE
from numerics.formats.rounding import MX_RULES
from tests.helpers.bits import assert_same_bytes
from tests.helpers.by_fractions import KINDS, SCALES, SCHEMES, found_scale, groups, kept, rounded
from tests.helpers.executors import HOST_EXECUTORS, each_executor
from tests.helpers.marks import either_sign

INTEGERS = ("int8", "uint8", "int4", "uint4")
FLOATS = ("bfloat16", "float16", "fp8_e4m3", "fp8_e5m2", "fp6_e3m2", "fp6_e2m3", "fp4")
BLOCKS = ("mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4", "mxint8", "mx6", "mx9")
ROUND_TYPES = {"round": "half_away", "floor": "floor", "half_even": "half_even"}
ZERO_POINT_TYPES = ("int32", "float32")


def tensor(kind: str) -> np.ndarray:
    """Rows of unlike size; NaN, Inf, a row and a group of zeros."""
    x = np.random.default_rng(11).standard_normal((4, 10)).astype(np.float32)
    x *= np.float32([[1.0], [1e-3], [300.0], [1.0]])
    x[0, :3] = [np.nan, np.inf, -0.0]
    x[2, 4:8] = 0
    x[3] = 0
    return x.astype(KINDS[kind])


def quotient(v: float, scale: Fraction, wide: str) -> float:
    """v / scale, rounded once to the type that is computed in."""
    if not np.isfinite(v):
        return v
    near = rounded(Fraction(v) / scale, wide)
    return float(np.copysign(float(near), v))


@lru_cache(maxsize=64)
def due_of_floats(name: str, kind: str) -> list[tuple]:
    """What is due under every option: options, and for each scale its key, itself, indices, codes, values."""
    d, x = nx.dtype(name), tensor(kind)
    wide = "float64" if kind == "float64" else "float32"
    found = []
    for scheme, scale_type, mode in itertools.product(SCHEMES, SCALES, ROUND_TYPES.values()):
        if mode != "half_even" and scale_type not in ("float", "pof2"):
            continue  # the scale is the same as for half_even
        shares = []
        for key, indices in groups(scheme, x.shape).items():
            values = [float(x[index]) for index in indices]
            finite = [Fraction(v) for v in values if np.isfinite(v)]
            scale = kept(found_scale(finite, d, True, wide), kind if scale_type == "float" else scale_type)
            y = np.array([quotient(v, scale, wide) for v in values], wide)
            codes = REFERENCE.encode(y, d, mode, "saturate", None)
            meant = REFERENCE.decode(codes, d)
            back = [float(v) if not np.isfinite(v) else product(float(v), scale, wide) for v in meant]
            shares.append((key, scale, indices, codes, meant, np.array(back, wide)))
        found.append(({"scheme": scheme, "scale_type": scale_type, "rounding": mode}, shares))
    return found


@pytest.mark.turns(18)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FLOATS)
def test_floats_by_every_scheme_scale_and_rounding(name, kind):
    x = tensor(kind)
    for executor, (options, shares) in itertools.product(HOST_EXECUTORS, due_of_floats(name, kind)):
        with nx.use(executor):
            q = nx.quantize(x, name, **options)
            found, values = q.codes, q.decoded()
            assert_same_bytes(nx.fake_quantize(x, name, **options), q.dequantize())
        for key, scale, indices, codes, meant, back in shares:
            assert Fraction(float(q.scale[key])) == scale
            places = tuple(np.array(indices).T)
            assert_codes(found[places], codes, meant)
            assert_same_bytes(values[places], back)


def product(value: float, scale: Fraction, wide: str) -> float:
    return float(np.copysign(float(rounded(Fraction(value) * scale, wide)), value))


def assert_codes(came: np.ndarray, due: np.ndarray, meant: np.ndarray) -> None:
    """Equal, NaN by its class."""
    differ = (came != due) & ~np.isnan(meant)
    assert not differ.any(), (came[differ], due[differ])


def by_reference(x: np.ndarray, name: str, options: list[dict]) -> list[tuple]:
    """Each of the options with the quantized tensor and its values that the reference makes."""
    with nx.use("reference"):
        made = [(one, nx.quantize(x, name, **one)) for one in options]
        return [(one, q, q.dequantize()) for one, q in made]


def equal_reference(x: np.ndarray, name: str, due: list[tuple]) -> None:
    """Each of the host's executors."""
    for _ in each_executor(HOST_EXECUTORS):
        for options, judged, values in due:
            q = nx.quantize(x, name, **options)
            assert_same_bytes(q.packed, judged.packed)
            assert_same_bytes(q.scale, judged.scale)
            assert_same_bytes(q.dequantize(), values)
            assert_same_bytes(nx.fake_quantize(x, name, **options), values)


@lru_cache(maxsize=64)
def due_of_integers(name: str, kind: str) -> list[tuple]:
    every = itertools.product(
        SCHEMES, (True, False), ("float", "pof2"), ZERO_POINT_TYPES, ("half_away", "floor")
    )
    names = ("scheme", "symmetric", "scale_type", "zero_point_type", "rounding")
    return by_reference(tensor(kind), name, [dict(zip(names, one, strict=True)) for one in every])


@pytest.mark.turns(18)
@either_sign
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "float64"])
@pytest.mark.parametrize("name", INTEGERS)
def test_integers_by_every_rounding_equal_the_reference(name, kind):
    """tests/numerics/test_quantization.py judges half_even and float64, by fractions, in every option."""
    equal_reference(tensor(kind), name, due_of_integers(name, kind))


@lru_cache(maxsize=64)
def due_of_blocks(name: str, kind: str) -> list[tuple]:
    rules = ({},) if name in ("mx6", "mx9") else ({"scale_rule": rule} for rule in MX_RULES)
    every = itertools.product(rules, (0, 1), ROUND_TYPES.values())
    options = [{**rule, "axis": axis, "rounding": mode} for rule, axis, mode in every]
    return by_reference(lines(kind), name, options)


def lines(kind: str) -> np.ndarray:
    """40 numbers a line: a whole block of 32, or two of 16, and a short one."""
    return np.concatenate([tensor(kind)] * 4, axis=1)


@pytest.mark.turns(18)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_by_every_rule_rounding_and_axis_equal_the_reference(name, kind):
    equal_reference(lines(kind), name, due_of_blocks(name, kind))


QUARK = {  # a member's name: its bits and its largest value, by AMD Quark's documentation
    "int8": (8, 127), "uint8": (8, 255), "int4": (4, 7), "uint4": (4, 15), "bfloat16": (16, 255 * 2.0**120),
    "float16": (16, 65504), "fp8_e4m3": (8, 448), "fp8_e5m2": (8, 57344), "fp6_e3m2": (6, 28),
    "fp6_e2m3": (6, 7.5), "fp4": (4, 6),
}  # fmt: skip


@pytest.mark.parametrize("name", QUARK)
def test_a_name_of_quarks_enumeration_is_the_format_that_quark_means(name):
    d = nx.dtype(name)
    assert (d.name, d.bits, float(d.max)) == (name, *QUARK[name])


@pytest.mark.parametrize(("name", "bits"), [("mx6", 6), ("mx9", 9)])
def test_quarks_microexponent_formats_have_the_bits_of_their_names(name, bits):
    assert nx.quantize(np.ones((4, 64), np.float32), name).bits == bits
