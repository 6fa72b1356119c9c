"""Every known deviation is recognised by its name, from a kernel written beside the table."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

import numerics as nx
from numerics.conform import check
from numerics.conform.deviations.places import orders
from numerics.conform.deviations.table import AFFINE_DIALECTS, DIALECTS
from numerics.conform.inputs.blocks import probes as block_probes
from numerics.conform.inputs.draws import Drawing
from numerics.conform.inputs.rescale import fields_at, values_at
from numerics.conform.task import Task
from tests.helpers.faults import FAULTS, affine, blocks_of
from tests.helpers.nvfp4 import BLOCKS, GIVEN, of_blocks


class Kernel(NamedTuple):
    """A kernel that has a deviation, and what it is asked to be."""

    target: Any
    dtype: str
    options: dict[str, Any]


def by_sign(negative, positive):
    return lambda x: np.where(
        np.signbit(x), nx.fp8_e4m3.encode(x, rounding=negative), nx.fp8_e4m3.encode(x, rounding=positive)
    )


def at_exponent(dtype, find):
    """MX blocks along the last axis at the exponents that find(amaxes) gives: NaN blocks as they are."""

    def encode(x):
        made = dtype.encode(x)
        lines = x.reshape(-1, x.shape[-1]).astype(np.float64)
        padded = np.pad(lines, ((0, 0), (0, -x.shape[-1] % 32)))
        parts = padded.reshape(len(lines), -1, 32)
        own = np.isfinite(parts).all(axis=-1) & parts.any(axis=-1)
        amax = np.abs(np.where(own[..., None], parts, 1)).max(axis=-1).astype(np.float32)
        exponent = np.clip(find(amax), -127, 127).astype(np.int64)
        codes = dtype.element.encode(np.where(own[..., None], np.ldexp(parts, -exponent[..., None]), 0))
        codes = codes.reshape(padded.shape)[:, : x.shape[-1]].reshape(x.shape)
        own_of_each = np.repeat(own, 32, axis=-1)[:, : x.shape[-1]].reshape(x.shape)
        scale = np.where(own, exponent + 127, made.scale.reshape(own.shape)).astype(np.uint8)
        return np.where(own_of_each, codes, made.codes), scale.reshape(made.scale.shape)

    return encode


def log2(x):
    return np.float32(np.log2(np.float64(x)))


def wrapped(x):
    codes = nx.int4.encode(x)
    with np.errstate(all="ignore"):
        near = np.isfinite(x) & (np.abs(x) < 32767)
        return np.where(near, np.rint(np.where(near, x, 0)).astype(np.int64) & 15, codes)


def qtorch(x):
    y = nx.fp8_e4m3.round(x, rounding="half_away")
    y = np.where((np.abs(x) >= 464) | np.isnan(x), np.copysign(480, x), y).astype(np.float32)
    return y + np.float32(0)


def microxcaling_even(x):
    least = np.nextafter(np.float32(2.0**-10), np.float32(0))
    y = nx.fp8_e4m3.round(np.where(np.abs(x) == least, np.copysign(np.float32(2.0**-9), x), x))
    return np.where(np.isinf(x), x, y) + np.float32(0)


def exponent_field(x):
    """As torch writes e8m0: of 1.5 and more the next power of two, and above 2**-127 too."""
    with np.errstate(all="ignore"):
        a = np.abs(x.astype(np.float64))
        significand, power = np.frexp(np.where(np.isfinite(a), a, 1))
        normal = power + 126 + (significand >= 0.75)
        code = np.where(a >= 2.0**-126, normal, a > 2.0**-127)
    return np.where(np.isfinite(x), np.minimum(code, 255), 255).astype(np.uint8)


def only_infinity(x):
    return np.where(np.isinf(x), np.where(x < 0, 0xFC, 0x7C), nx.fp8_e5m2.encode(x)).astype(np.uint8)


def nan_stays(x):
    return np.where(np.isnan(x), x, nx.mxfp4.round(np.where(np.isnan(x), np.float32(0), x)))


def nvfp4_by_reciprocal(x):
    made = nx.nvfp4.encode(x, tensor_scale=1.0)
    scale = np.repeat(nx.fp8_e4m3.decode(made.scale), 16, axis=-1)[..., : x.shape[-1]]
    with np.errstate(all="ignore"):
        y = x * np.where(scale > 0, np.float32(1) / scale, np.float32(0))
    return np.where(np.isnan(scale) | np.isnan(y), made.codes, nx.fp4.encode(y)), made.scale


def mx6_rows(x, change):
    """mx6 through change(block) for each finite block: (exponent, microexponents, codes)."""
    made = nx.mx6.encode(x)
    codes, scale, micro = made.codes.copy(), made.scale.copy(), made.microexponents.copy()
    for at in np.ndindex(*x.shape[:-1]):
        for j in range(scale.shape[-1]):
            part = np.zeros(16)
            end = min(16 * j + 16, x.shape[-1])
            part[: end - 16 * j] = x[at][16 * j : end]
            if np.isfinite(part).all():
                scale[at][j], micro[at][j], found = change(np.where(np.abs(part) < 2.0**-126, 0, part))
                codes[at][16 * j : end] = found[: end - 16 * j]
    return codes, scale, micro


def exponent_of(a):
    return int(np.frexp(a)[1]) + 126 if a >= 2.0**-126 else 0


def mx6_codes(part, exponent, shifts):
    step = np.ldexp(1.0, exponent - 127 - np.repeat(shifts, 2) - 3)
    return np.minimum(np.rint(np.abs(part) / step), 15).astype(int) | np.signbit(part) << 4


def unshifted(part):
    exponent = exponent_of(np.abs(part).max())
    return exponent, 0, mx6_codes(part, exponent, np.zeros(8, int))


def after_rounding(part):
    """Four significant bits, half away, then the exponents."""
    significand, power = np.frexp(np.abs(part))
    rounded = np.minimum(np.ldexp(np.floor(significand * 16 + 0.5) / 16, power), np.finfo(np.float32).max)
    fields = [exponent_of(a) if abs(v) >= 2.0**-126 else 0 for a, v in zip(rounded, part, strict=True)]
    exponent = max(fields)
    shifts = np.array([max(fields[i : i + 2]) < exponent for i in range(0, 16, 2)], int)
    return exponent, int((shifts << np.arange(8)).sum()), mx6_codes(part, exponent, shifts)


def loose_mx6(x):
    """Values of mx6 whose clamp in shifted pairs lets 16 steps through."""
    made = nx.mx6.encode(x)
    values = made.decode()
    pad = [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % 16)]
    e = np.repeat(made.scale.astype(int), 16, axis=-1)
    d = np.repeat(
        (made.microexponents[..., None] >> np.arange(8) & 1).reshape(*made.scale.shape[:-1], -1), 2, axis=-1
    )
    step = np.ldexp(1.0, e - 127 - d - 3)
    wide = np.pad(x, pad)
    with np.errstate(all="ignore"):
        past = (d == 1) & (np.abs(wide) / step >= 15.5) & (e < 255)
    loose = np.where(past, np.copysign(16 * step, wide), np.pad(values, pad))
    return loose[..., : x.shape[-1]].astype(np.float32)


def least_scale_twice(x):
    """MXFP4 whose elements at the scale 2**-127 are over 2**-126."""
    made = nx.mxfp4.encode(x)
    least = np.repeat(made.scale == 0, 32, axis=-1)[..., : x.shape[-1]]
    halved = nx.mxfp4.encode((x.astype(np.float64) / 2).astype(np.float64))
    return np.where(least, halved.codes, made.codes), made.scale


def with_infinite(find):
    """MXFP4 whose blocks with an Inf and no NaN have the scale byte that find() gives."""

    def encode(x):
        made = nx.mxfp4.encode(x)
        pad = [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % 32)]
        rows = np.pad(x, pad).reshape(*x.shape[:-1], -1, 32)
        some = np.isinf(rows).any(-1) & ~np.isnan(rows).any(-1)
        with np.errstate(all="ignore"):
            codes = nx.fp4.encode(np.where(np.isnan(rows), 0, rows) / np.float32(2.0 ** (find - 127)))
        wide = np.repeat(some, 32, axis=-1)[..., : x.shape[-1]]
        codes = codes.reshape(*x.shape[:-1], -1)[..., : x.shape[-1]]
        return np.where(wide, codes, made.codes), np.where(some, find, made.scale).astype(np.uint8)

    return encode


def bits_of(x):
    return np.ascontiguousarray(x).view(np.uint32).reshape(x.shape)


def by_bits(x, added):
    """bfloat16 as short kernels make it: something is added to the bits, and the upper half is taken."""
    return ((bits_of(x) + np.uint32(added)) >> np.uint32(16)).astype(np.uint16)


def positive_field(x):
    return np.where((x > 0) & np.isfinite(x), exponent_field(x), nx.e8m0.encode(x)).astype(np.uint8)


def log2_of_the_largest(x):
    with np.errstate(all="ignore"):
        over = np.isfinite(x) & (np.log2(np.abs(x), dtype=np.float32) >= 128)
    return np.where(over, np.float32(np.nan), nx.bfloat16.round(x)).astype(np.float32)


def affine_by(rounded):
    return lambda x, s, z: affine(x, s, z, change=lambda y, z: np.clip(rounded(y) + z, -128, 127))


def odd(y):
    low, high = np.floor(y), np.ceil(y)
    return np.where(low % 2 != 0, low, high)


def offset_first(x, scale, zero_point):
    with np.errstate(all="ignore"):
        y = x / np.float32(scale) + np.float32(zero_point)
    return (
        np.clip(np.rint(np.nan_to_num(y.astype(np.float64), nan=0, posinf=1e9, neginf=-1e9)), -128, 127)
        .astype(np.int64)
        .astype(np.uint8)
    )


def fused(x, scale, zero_point):
    """x * (1 / scale) + zero_point, rounded once to float32, as vector units do it."""
    with np.errstate(all="ignore"):
        y = (x.astype(np.float64) * np.float64(np.float32(1) / np.float32(scale)) + zero_point).astype(
            np.float32
        )
    return np.clip(np.rint(np.where(np.isnan(y), 0, y)), -128, 127).astype(np.int64).astype(np.uint8)


KERNELS = {
    "ties to zero": Kernel(by_sign("half_up", "half_down"), "fp8_e4m3", {}),
    "DPU rounding": Kernel(by_sign("half_up", "half_even"), "fp8_e4m3", {}),
    "only infinity overflows": Kernel(only_infinity, "fp8_e5m2", {}),
    "NaN read as a number": Kernel(
        lambda x: nx.fp4.encode(
            np.where(np.isnan(x), np.copysign((1 + (x.view(np.uint32) & 0x7FFFFF) / 2.0**23), x), x)
        ),
        "fp4",
        {},
    ),
    "NaN becomes -0": Kernel(lambda x: np.where(np.isnan(x), 8, nx.fp4.encode(x)), "fp4", {}),
    "wraps around": Kernel(wrapped, "int4", {}),
    "Inf stays + floor(|x| + 0.5) + loses -0": Kernel(microxcaling_even, "fp8_e4m3", {"kind": "round"}),
    "ties away + one more number + loses -0": Kernel(qtorch, "fp8_e4m3", {"kind": "round"}),
    "truncates + NaN is cut": Kernel(lambda x: by_bits(x, 0), "bfloat16", {}),
    "ties away + NaN rounds away as a number": Kernel(lambda x: by_bits(x, 0x8000), "bfloat16", {}),
    "NaN rounds to even as a number": Kernel(
        lambda x: by_bits(x, 0x7FFF + (bits_of(x) >> np.uint32(16) & 1)), "bfloat16", {}
    ),
    "e8m0 by its exponent field": Kernel(exponent_field, "e8m0", {}),
    "scale rule floor": Kernel(nx.mxfp6_e2m3.encode, "mxfp6_e2m3", {"scale_rule": "rceil"}),
    "scale rule rceil": Kernel(lambda x: nx.mxfp4.encode(x, scale_rule="rceil"), "mxfp4", {}),
    "scale rule tosa": Kernel(lambda x: nx.mxfp8_e4m3.encode(x, scale_rule="tosa"), "mxfp8_e4m3", {}),
    "scale rule bump": Kernel(lambda x: nx.bfp16.encode(x, scale_rule="bump"), "bfp16", {}),
    "ceil by float log2": Kernel(
        at_exponent(nx.mxfp4, lambda a: np.ceil(log2(a)) - 2), "mxfp4", {"scale_rule": "ceil"}
    ),
    "rceil by float log2": Kernel(
        at_exponent(nx.mxfp4, lambda a: np.ceil(log2(np.maximum(a / np.float32(6), np.float32(2.0**-149))))),
        "mxfp4",
        {"scale_rule": "rceil"},
    ),
    "fp4's threshold": Kernel(
        at_exponent(nx.mxfp8_e4m3, lambda a: (a.view(np.uint32).astype(np.int64) + 0x200000 >> 23) - 127 - 8),
        "mxfp8_e4m3",
        {"scale_rule": "even"},
    ),
    "NaN stays where it is": Kernel(nan_stays, "mxfp4", {"kind": "round"}),
    "reciprocal of the scale": Kernel(nvfp4_by_reciprocal, "nvfp4", {}),
    **{f"block scale {way}": Kernel(of_blocks(way), "nvfp4", {"tensor_scale": GIVEN}) for way in BLOCKS},
    "no microexponents": Kernel(lambda x: mx6_rows(x, unshifted), "mx6", {}),
    "exponents after rounding": Kernel(lambda x: mx6_rows(x, after_rounding), "mx6", {}),
    "loose clamp": Kernel(loose_mx6, "mx6", {"kind": "round"}),
    "Inf becomes NaN": Kernel(
        lambda x: np.where(np.isinf(x), np.float32(np.nan), nx.fp8_e5m2.round(x)),
        "fp8_e5m2",
        {"kind": "round"},
    ),
    "the largest float32 becomes NaN": Kernel(log2_of_the_largest, "bfloat16", {"kind": "round"}),
    "reads -0 as 0": Kernel(lambda x: nx.fp8_e4m3.encode(np.where(x == 0, np.float32(0), x)), "fp8_e4m3", {}),
    "every zero is -0": Kernel(
        blocks_of(nx.mxfp4, lambda x, c, s, m: (np.where(c == 0, 8, c), s)), "mxfp4", {}
    ),
    "e8m0 by its exponent field, positive": Kernel(positive_field, "e8m0", {}),
    "the least scale counts twice": Kernel(least_scale_twice, "mxfp4", {}),
    "an Inf counts as 2^128": Kernel(with_infinite(253), "mxfp4", {}),
    "an Inf takes the largest scale": Kernel(with_infinite(254), "mxfp4", {}),
    "bias one too large": Kernel(lambda c: nx.fp8_e4m3.decode(c) / 2, "fp8_e4m3", {"kind": "decode"}),
    "the lowest integer": Kernel(
        blocks_of(
            nx.mxint8,
            lambda x, c, s, m: (
                np.where(
                    (c == 0x81)
                    & (
                        x / np.repeat(np.ldexp(1.0, s.astype(int) - 127), 32, -1)[..., : x.shape[-1]] * 64
                        <= -127.5
                    ),
                    0x80,
                    c,
                ),
                s,
            ),
        ),
        "mxint8",
        {},
    ),
}
KERNELS["flushes before rounding"] = Kernel(
    lambda x: nx.fp8_e5m2.encode(np.where(np.abs(x) < 2.0**-14, np.copysign(np.float32(0), x), x)),
    "fp8_e5m2",
    {},
)
AFFINE = {
    "zero point before rounding": offset_first,
    "divides in float64": lambda x, s, z: affine(x.astype(np.float64), np.float64(np.float32(s)), z),
    "ties up": affine_by(lambda y: np.floor(y + 0.5)),
    "ties down": affine_by(lambda y: np.ceil(y - 0.5)),
    "truncates": affine_by(np.trunc),
    "floors": affine_by(np.floor),
    "ceils": affine_by(np.ceil),
    "rounds to odd": affine_by(odd),
    "DPU rounding": affine_by(lambda y: np.where(y < 0, np.floor(y + 0.5), np.rint(y))),
    "NaN becomes the lowest": lambda x, s, z: np.where(np.isnan(x), 128, affine(x, s, z)).astype(np.uint8),
    "NaN becomes the highest": lambda x, s, z: np.where(np.isnan(x), 127, affine(x, s, z)).astype(np.uint8),
    "fused with the zero point": fused,
    "NaN becomes code 0": lambda x, s, z: np.where(np.isnan(x), 0, affine(x, s, z)).astype(np.uint8),
}


@pytest.mark.turns(90)
@pytest.mark.parametrize("name", KERNELS)
def test_a_dialect_is_recognised(name):
    kernel = KERNELS[name]
    found = check(kernel.target, kernel.dtype, **kernel.options)
    assert found.dialect == name, str(found)
    for part in name.split(" + ") if name != "floor(|x| + 0.5)" else [name]:
        assert part in str(found)


@pytest.mark.turns
@pytest.mark.parametrize("name", AFFINE)
def test_an_affine_dialect_is_recognised(name):
    found = check(AFFINE[name], "int8", kind="affine")
    assert found.dialect == name, str(found)


def in_other_places(dtype, order):
    """Blocks whose codes stand where those of another place belong; in lines of whole blocks."""

    def encode(x):
        made = dtype.encode(x)
        codes = np.pad(made.codes, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % dtype.block)])
        turned = codes.reshape(*x.shape[:-1], -1, dtype.block)[..., order].reshape(codes.shape)
        return turned[..., : x.shape[-1]], made.scale

    return encode


@pytest.mark.parametrize("told", ["i xor 1", "31 - i", "(i + 1) mod 32", "16 * (i mod 2) + i div 2"])
def test_codes_in_the_places_of_others_had_no_name(told):
    order = dict(orders(32))[told]
    found = check(in_other_places(nx.mxfp4, order), "mxfp4", effort="quick")
    assert found.dialect == f"place {told}", str(found)
    made = lambda codes, scale: nx.mxfp4.decode(nx.Blocks(nx.mxfp4, -1, codes[..., order], scale))  # noqa: E731
    decoder = lambda codes, scale: made(codes, scale) if codes.shape[-1] == 32 else None  # noqa: E731
    found = check(decoder, "mxfp4", kind="decode", effort="quick")
    assert found.dialect == f"place {told}", str(found)


def written(codes, width):
    """Codes as bytes, the first in the highest bits."""
    bits = np.unpackbits(codes[..., None].astype(np.uint8), axis=-1)[..., 8 - width :]
    return np.packbits(bits.reshape(*codes.shape[:-1], -1), axis=-1)


def read(strings, count, width):
    bits = np.unpackbits(strings, axis=-1)[..., : count * width].reshape(*strings.shape[:-1], count, width)
    return (bits << np.arange(width, dtype=np.uint8)[::-1]).sum(axis=-1, dtype=np.uint8)


@pytest.mark.parametrize("dtype", [nx.mxfp4, nx.mxfp6_e2m3], ids=str)
def test_nibbles_in_the_other_order_had_no_name(dtype):
    width = dtype.element_bits

    def encode(x):
        made = dtype.encode(x)
        return written(made.codes, width), made.scale

    def decode(strings, scale):
        codes = read(strings, strings.shape[-1] * 8 // width, width)
        return dtype.decode(nx.Blocks(dtype, -1, codes, scale))

    for kind, target in (("encode", encode), ("decode", decode)):
        found = check(target, dtype, kind=kind, packed=True, effort="quick")
        assert found.dialect == "first code in the highest bits", str(found)


@pytest.mark.parametrize("name", ["fp4", "fp6_e2m3", "uint2"])
def test_strings_from_the_highest_bits_had_no_name(name):
    """Of two codes that change places both are counted: they were one input of eight."""
    d = nx.dtype(name)
    found = check(lambda codes: written(codes, d.bits), name, kind="pack", effort="quick")
    assert (found.law, found.dialect) == ("order", "first code in the highest bits")
    assert found.differs == 2 or name == "fp6_e2m3"
    found = check(lambda strings, n: read(strings, n, d.bits), name, kind="unpack", effort="quick")
    assert (found.law, found.dialect) == ("order", "first code in the highest bits")
    assert found.differs == 2 or name == "fp6_e2m3"
    found = check(lambda codes: written(codes[::-1], d.bits), name, kind="pack", effort="quick")
    assert found.dialect is None


def test_even_ties_are_a_dialect_of_another_rounding():
    assert check(nx.fp4.encode, "fp4", rounding="half_away").dialect == "ties to even"
    found = check(affine_by(np.rint), "int8", kind="affine", rounding="half_away")
    assert found.dialect == "ties to even"


def test_every_row_of_the_tables_is_tried():
    known = {fault.dialect for fault in FAULTS.values()} | {*KERNELS, *AFFINE, "ties to even"}
    every = [dialect.name for dialect in (*DIALECTS, *AFFINE_DIALECTS)]
    tried = {name for name in every for heard in known - {None} if name in heard}
    assert tried == set(every)


def test_what_torch_is():
    torch = pytest.importorskip("torch")
    found = check(lambda x: x.to(torch.float8_e5m2), "fp8_e5m2", array="torch")
    assert found.dialect == "does not saturate"
    found = check(lambda x: x.to(torch.float8_e8m0fnu), "e8m0", array="torch")
    assert found.dialect == "e8m0 by its exponent field"


def test_several_deviations_at_once_are_all_named():
    found = check(lambda x: nx.fp8_e4m3.encode(np.abs(x), rounding="half_away"), "fp8_e4m3")
    assert found.dialect == "ties away + loses the sign"

    def torchs(x, scale, zero_point):  # torch.fake_quantize_per_tensor_affine
        with np.errstate(all="ignore"):
            product = (x * (np.float32(1) / np.float32(scale))).astype(np.float64)
        q = np.clip(np.rint(np.where(np.isnan(product), -np.inf, product)) + zero_point, -128, 127)
        return q.astype(np.int64).astype(np.uint8)

    found = check(torchs, "int8", kind="affine")
    assert found.dialect == "reciprocal of the scale + NaN becomes the lowest"


def test_what_nobody_does_is_no_dialect():
    found = check(lambda x: nx.fp8_e4m3.encode(np.where(x == 17, np.float32(3), x)), "fp8_e4m3")
    assert (bool(found), found.dialect) == (False, None)
    assert "it matches no known dialect" in str(found)


@pytest.mark.parametrize("dtype", [d for d in nx.dtypes() if d.kind == "block"], ids=repr)
@pytest.mark.parametrize("rounding", ["half_even", "ceil"])
def test_the_blocks_that_dialects_bend_are_exact(dtype, rounding):
    """At the right scales, what conform/inputs/rescale.py makes of blocks is what the reference makes."""
    task, x = Task.of(dtype, rounding=rounding), block_probes(dtype)[::4]
    due = task.fields(x)
    micro = None if due.microexponents is None else due.microexponents[:, 0]
    came = fields_at(task, x, due.scale[:, 0], micro)
    assert np.array_equal(came.codes, due.codes)
    values = values_at(task, came)
    assert not task.differs(values, task.block_values(due)).any()


# ---- other draws -----------------------------------------------------------------------------------


def drawing(dtype, rule, read):
    """A stochastic encoder by a rule of draws, of what it reads of the bits that it is given."""
    d, how = nx.dtype(dtype), Drawing(rule.rstrip("0123456789"), int(rule.lstrip("abcup")))
    scaled = {"tensor_scale": 1.0} if d.kind == "block" and d.has_tensor_scale else {}

    def encode(x, random):
        if how.rule == "c":
            return Task.of(d, rounding="stochastic", draw=rule).codes(x, read(random))
        return d.encode(x, rounding="stochastic", random_bits=how.wide(read(random)), **scaled)

    return encode


def low8(random):
    return random & 255


def as_it_is(random):
    return random


OTHERWISE = [
    ("bfloat16", "b8", "a8", as_it_is, "draws b8"),
    ("bfloat16", "a8", None, low8, "draws a8 of the lowest bits"),
    ("bfloat16", "a32", None, as_it_is, "draws a32"),
    ("fp8_e4m3", "c8", "a8", as_it_is, "draws c8"),
    ("fp8_e4m3", "a8", "b8", as_it_is, "draws a8"),
    ("fp8_e4m3", "up8", "a8", as_it_is, "draws up8"),
    ("fp8_e4m3", "b10", None, lambda random: random >> 20, "draws b10 of the highest bits"),
    (
        "fp8_e4m3",
        "a8",
        None,
        lambda random: 255 - (random & 255),
        "draws reversed + draws a8 of the lowest bits",
    ),
    ("int8", "a16", "a8", as_it_is, "draws a16"),
    ("mxfp4", "b8", "a8", as_it_is, "draws b8"),
    ("mxfp8_e4m3", "a16", None, lambda random: random & 65535, "draws a16 of the lowest bits"),
    ("nvfp4", "a8", None, low8, "draws a8 of the lowest bits"),
    ("mx6", "b8", "a8", as_it_is, "draws b8"),
]


@pytest.mark.turns
@pytest.mark.parametrize(
    ("dtype", "rule", "asked", "read", "name"), OTHERWISE, ids=[f"{d}-{r}-{a}" for d, r, a, *_ in OTHERWISE]
)
def test_a_kernel_that_draws_by_another_rule_or_fewer_bits_spoke_no_known_dialect(
    dtype, rule, asked, read, name
):
    found = check(drawing(dtype, rule, read), dtype, rounding="stochastic", draw=asked, effort="quick")
    assert found.dialect == name, str(found)
    if rule[0] in "abc" and rule != "a32":
        assert f'draw="{rule}"' in str(found)


def test_another_rule_of_draws_is_told_beside_another_fault():
    b8 = drawing("fp8_e4m3", "b8", as_it_is)

    def bare(x, random):
        codes = b8(x, random)
        return np.where(codes == 0x80, 0, codes)

    found = check(bare, "fp8_e4m3", rounding="stochastic", draw="a8", effort="quick")
    assert found.dialect == "loses -0 + draws b8"


def test_a_draw_was_shown_wrong_by_a_number_that_is_no_simple_one():
    """0xCEB18080 where 0x3F800080 shows the same: half a unit of 8 bits above 1."""
    found = check(drawing("bfloat16", "b8", as_it_is), "bfloat16", rounding="stochastic", draw="a8")
    assert [number.bits for number in found.counterexample.input] == [0x3F800080]
    assert found.counterexample.where == "random bits 0x000000FF"
    block = check(drawing("mxfp8_e4m3", "b8", as_it_is), "mxfp8_e4m3", rounding="stochastic", draw="a8")
    assert sum(number.bits != 0 for number in block.counterexample.input) == 1


STOCHASTIC = {"rounding": "stochastic"}
E4M3 = Task.of("fp8_e4m3", **STOCHASTIC)


@pytest.mark.turns(6)
@pytest.mark.parametrize(
    "taken",
    [
        lambda r: np.full_like(r, r.reshape(-1)[0] if r.size else 0),
        lambda r: np.repeat(r.reshape(-1)[::2], 2)[: r.size].reshape(r.shape),
        lambda r: np.concatenate([r.reshape(-1)[:1], r.reshape(-1)[:-1]]).reshape(r.shape),
    ],
    ids=["the first for all", "one for two", "one late"],
)
def test_random_bits_of_another_number_had_a_true_counterexample_and_three_false_dialects(taken):
    """Where the first bits are 0 such a kernel truncates; it draws by no rule, and is right alone."""

    def kernel(x, r):
        return E4M3.codes(np.ascontiguousarray(x), np.ascontiguousarray(taken(r))).reshape(x.shape)

    found = check(kernel, "fp8_e4m3", effort="quick", **STOCHASTIC)
    assert found.law == "layout"
    assert "asked alone it is right" in found.counterexample.where
    assert found.dialect is None
