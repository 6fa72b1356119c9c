"""Has the judge teeth?  The arithmetic is changed in one place at a time; each change must be noticed."""

from __future__ import annotations

import inspect
import re
import types
from contextlib import contextmanager
from functools import lru_cache, partial

import numpy as np
import pytest

import numerics as nx
from numerics.backends import bind
from numerics.backends.array import executor as array
from numerics.backends.array import primitives
from numerics.conform import check
from numerics.formats import codec, scaling
from numerics.formats.rounding import DETERMINISTIC, ROUNDINGS
from tests.helpers.inputs import edges

CHANGES = [
    # one element, in integers
    ("half - 1 + odd", "half - odd"),
    ("half - 1 + odd", "half"),
    ('"half_away":\n        add = half', '"half_away":\n        add = half - 1'),
    ("half - where(b < 0, 1, 0)", "half - where(b < 0, 0, 1)"),
    ("half - where(b < 0, 0, 1)", "half"),
    ("add = where(b < 0, rest, 0)", "add = where(b < 0, half, 0)"),
    ("add = where(b < 0, 0, rest)", "add = where(b < 0, rest, 0)"),
    ("where(odd == 0, rest, 0)", "where(odd == 1, rest, 0)"),
    ("((n >> s) + base) & 1", "(n >> s) & 1"),
    ("minimum(shift, 30)", "minimum(shift, 23)"),
    ("n = n >> minimum(shift - s, 31)", "n = n >> 0"),
    ("random & 0x3FFFFFFF", "random & 0x1FFFFFFF"),
    ("r >> (30 - s)\n", "r >> (31 - s)\n"),
    ("maximum(c >> 23, 1)", "(c >> 23)"),
    ("maximum(e, f.emin)", "maximum(e, f.emin + 1)"),
    ("c = minimum(a, limit)", "c = a"),
    ("(low >> s) + ", "(low >> 30) + "),
    ("low = where(a < limit, low, 0)", "low = low"),
    # one element, by the adder
    ("maximum(c & INF, f.emin << 23)", "maximum(c & INF, (f.emin + 1) << 23)"),
    ("steps + ((m >> f.drop)", "steps + 1 + ((m >> f.drop)"),
    # what has no subnormals, no zero, no sign
    ("ones << (23 - f.drop), code)", "ones, code)"),
    ("c < (f.emin << 23)", "c < (f.emin << 22)"),
    ("maximum(c, f.lowest)", "c"),
    ("where(c < ONE, (c - TINY) << 1, c)", "where(c < ONE, c - TINY, c)"),
    ("((c - TINY) << 1) + (low >> 29)", "((c - TINY) << 1)"),
    ("low = where(c < f.lowest, 0, low)", "low = low"),
    # normal numbers among float32's subnormals
    ("minimum(33 - (lifted >> 23), 23)", "minimum(33 - (lifted >> 23), 22)"),
    ("33 - (lifted >> 23)", "32 - (lifted >> 23)"),
    ("digits = digits << missing", "digits = digits"),
    ("digits = digits + (low >> (30 - missing))", "digits = digits"),
    ("where(c < ONE, (c << missing) + (low >> (30 - missing)), c)", "c << missing"),
    ("c = c - (missing << 23)", "c = c"),
    ("field = e + f.emin - 1", "field = e + f.emin"),
    ("digits = where(bits < ONE, 0, digits)", "digits = digits"),
    ("where(code == f.nan_code, NAN, r)", "r"),
    ("where(code > 0, f.negative, code)", "where(code > 1, f.negative, code)"),
    ("where(b < 1, f.negative, code)", "where(b < 0, f.negative, code)"),
    ("where(code == 0, 0, code | sign)", "code | sign"),
    # specials and signs
    ("where(a == INF, f.overflow, code)", "code"),
    ("with_sign(where(a > INF, f.nan, code), b, f)", "where(a > INF, f.nan, with_sign(code, b, f))"),
    ("0 - code, code) & f.wrap", "code, code) & f.wrap"),
    # decoding
    ("where(bits < ONE, subnormal", "where(bits < ONE + ONE, subnormal"),
    ("magnitude > f.last, NAN", "magnitude > f.last + 1, NAN"),
    ("magnitude == f.inf, INF", "magnitude == f.inf, NAN"),
    ("f.wrap + 1 - code", "f.wrap - code"),
    # codebooks
    ("where(b < 0, -1 - a, a)", "where(b < 0, 0 - a, a)"),
    ("where(b < 0, -1 - a, a)", "where(b < 0, -2 - a, a)"),
    ("entry(codes, places_up_to(steps, key))", "places_up_to(steps, key)"),
    ("entry(codes, place)", "place"),
    ("entry(values, code)", "entry(values, code & 7)"),
    ("where(apart < 0, -1, where(apart > 0, 1, 0))", "where(apart < 0, -1, 0)"),
    ("where(apart < 0, -1, where(apart > 0, 1, 0))", "where(apart > 0, 1, 0)"),
    ("where(n + (random & LOW) > LOW, further", "where(n + (random & LOW) > LOW - ONE, further"),
    ("(120 - e, 0), 31)", "(119 - e, 0), 31)"),
    ("(e - 120, 0), 7)", "(e - 121, 0), 7)"),
    # OCP MX
    ("where(top < INF, byte, 255)", "byte"),
    ("field - s.emax, 0)", "field - s.emax, 1)"),
    ("where(top < ONE, s.subnormal_addend, s.addend)", "s.addend"),
    ("where(top < ONE, s.subnormal_addend, s.addend)", "where(top < ONE, s.subnormal_addend, s.addend + 1)"),
    ("maximum(field << 23, TINY)", "(field << 23)"),
    ("maximum(y, minimum(a, 1))", "y"),
    ("where(scale == 255, f.nan_block,", "where(scale == 256, f.nan_block,"),
    ("where(b < 0, s.least, f.last)", "f.last"),
    ("count_up_to(y, s.past, b", "count(y, b"),
    ("where(scale < 254, scale + up, scale)", "scale + up"),
    ("where(scale < 254, scale + up, scale)", "scale"),
    ("where(scale == 255, NAN, y)", "y"),
    # float scales
    ("as_float(divisor))), 0)", "as_float(divisor))), a)"),
    ("where(top < INF, scaled_scale(b, tensor_scale, f, g, rule), g.nan)",
     "scaled_scale(b, tensor_scale, f, g, rule)"),
    ("divide(divide(as_float(top), as_float(f.limit)), as_float(tensor_scale))",
     "divide(as_float(top), as_float(f.limit))"),
    # blocks of two readings
    ("where(less, counted, code)", "code"),
    ("less = scaled_error_of_counts(b, total, h, rule)",
     "less = scaled_error_of_counts(b, total, h, rule) - 1"),
    ("as_float(h.inverse + (y & 0))", "as_float(h.step + (y & 0))"),
    ("as_float(h.step + (code & 0))", "as_float(h.inverse + (code & 0))"),
    ("scale = scale & ((1 << g.sign) - 1)", "scale = scale"),
    # microexponents
    ("< below, 1, 0)", "<= below, 1, 0)"),
    ("where(exponent == 255, MAGNITUDE, ONE - 1)", "where(exponent == 255, ONE - 1, ONE - 1)"),
    ("where(exponent == 255, MAGNITUDE, ONE - 1)", "0"),
    ("one = (151 - m - shift) << 23  #", "one = (151 - m) << 23  #"),
    ("exponent - shift - e + (24 - m)", "exponent - e + (24 - m)"),
    ("minimum(n, (1 << m) - 1)", "minimum(n, 1 << m)"),
    ("((taken >> (31 - m)) & (1 << m))", "((b >> (31 - m)) & (1 << m))"),
    ("r | (taken & SIGN)", "r | (b & SIGN)"),
    ("where(exponent == 255, 0, exponent)", "exponent"),
    ("n = minimum(n, one + ((1 << m) - 1))", "n = minimum(n, one + (1 << m))"),
    # microexponents in two tiers
    ("> BELOW_FOUR, 1, 0)", "> BELOW_TWO, 1, 0)"),
    ("where(upper == 1, BELOW_FOUR, BELOW_TWO)", "BELOW_TWO"),
    ("minimum(maximum(code, 0), LAST), LAST + 1)", "minimum(maximum(code, 0), LAST + 1), LAST + 1)"),
    ("minimum(maximum(code, 0), LAST), LAST + 1)", "minimum(maximum(code, 1), LAST), LAST + 1)"),
    ("t = nearest_bfloat16(as_bits(", "t = (as_bits("),
    ("inverse = nearest_bfloat16(as_bits(", "inverse = (as_bits("),
    ("power_of_two((126 + m) - up)", "power_of_two(126 + m)"),
    ("where(scale > LAST, 0, code)", "code"),
    ("y = where(scale > LAST, 0, as_bits(as_float(a) * as_float(inverse)))",
     "y = as_bits(as_float(a) * as_float(inverse))"),
    ("where(scale > LAST, NAN, value", "where(scale > LAST + 1, NAN, value"),
    ("one = ((151 - m) + up) << 23", "one = (151 - m) << 23"),
    # values without their codes
    ("where(a > INF, NAN, r) | (b & SIGN)", "r | (b & SIGN)"),
    ("r = r | where(a > INF, 0, b & SIGN)", "r = r | (b & SIGN)"),
    ("where(r == 0, 0, signed)", "signed"),
    ("(as_float(c) + m) - m", "(as_float(c) + m) - m + m"),
]  # fmt: skip

RULES = [  # of float scales: what is changed, and the rule that it belongs to
    ('count(wanted, wanted, g, "ceil", None, None)', "scaled_nearest(wanted, g)", "ceil"),
    ("minimum(inverse, LARGEST), LARGEST)", "minimum(inverse, LARGEST), 0)", "nvidia"),
    ("as_float(inverse) * divide(as_float(one), as_float(f.limit))",
     "divide(as_float(inverse), as_float(f.limit))", "nvidia"),
    ("y = as_bits(as_float(a) * as_float(inverse))", "y = as_bits(divide(as_float(a), as_float(divisor)))",
     "nvidia"),
    ("scaled_least_of_sixteen(b, scale - 8", "scaled_least_of_sixteen(b, scale - 7", "mse"),
    ("where(other < error, high, low)", "where(error < other, low, high)", "mse"),
    ("as_float(total) - as_float(b)", "as_float(total) - as_float(b & MAGNITUDE)", "mse"),
    ("as_float(as_bits(off) & MAGNITUDE)", "off", "four_over_six_mae"),
    ("< error, four, scale)", "< error + 1, four, scale)", "four_over_six"),
    ("ONE_AND_A_HALF + (wanted & 0)", "FLOAT_ONE + (wanted & 0)", "four_over_six"),
]  # fmt: skip

ELEMENTS = [
    nx.fp8_e4m3, nx.fp8_e5m2, nx.fp6_e2m3, nx.fp8_e4m3fnuz, nx.int4, nx.uint4, nx.e8m0, nx.bfloat16,
    nx.float_format(6, 0, signed=False, subnormals=False, has_zero=False, specials="fn"),
    nx.float_format(4, 3, subnormals=False), nx.float_format(5, 3, signed=False),
    nx.float_format(5, 0, specials="none"),
    nx.float_format(4, 2, bias=140), nx.float_format(3, 2, bias=148, subnormals=False),
    nx.float_format(7, 0, bias=149, signed=False, subnormals=False, has_zero=False, specials="fn"),
    nx.bnb_fp4, nx.nf4,
]  # fmt: skip
BLOCKS = [nx.mxfp8_e4m3, nx.mxfp6_e3m2, nx.mxint8, nx.nvfp4, nx.if4, nx.mx6, nx.hifloat4]
RNG = np.random.default_rng(5)
SPECIALS = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e38, -1e38, 465.0, -465.0, 2.0**-149], np.float32)
X = np.concatenate([RNG.choice(edges(), 900), SPECIALS])

# float64 with a known fraction of fp8_e4m3's step above 1, and draws at and just below its threshold
FRACTIONS = RNG.integers(1, 1 << 30, 60)
X64 = np.concatenate([1 + FRACTIONS / 2.0**33, 1 + FRACTIONS / 2.0**33, [7.00000005] * 4])
DRAWS = np.concatenate([(1 << 30) - FRACTIONS, (1 << 30) - FRACTIONS - 1, [(1 << 30) - 1] * 4])
# the same of powers of two, and of steps, among float32's subnormals; and just below the least power of two
TINY64 = [np.tile((1 + FRACTIONS / 2.0**30 / part) * least, 2) for part, least in
          ((1, 2.0**-127), (1, 2.0**-140), (4, 2.0**-135), (4, 2.0**-145))]  # fmt: skip
X64 = np.concatenate([X64, *TINY64, [2.0**-127 * (1 - 2.0**-28)] * 2])
DRAWS = np.concatenate([DRAWS, *[DRAWS[: 2 * FRACTIONS.size]] * 4, [(1 << 30) - 1] * 2])
DRAWS = DRAWS.astype(np.uint32)
# small fractions of a step of bnb_fp4 above 1/2, and draws that just do not reach up
LOW = np.float32(0.5) + np.float32(1 / 6) * np.exp2(-np.arange(6, 13, dtype=np.float32))
SHORT = ((1 << 30) - 3 * (1 << (29 - np.arange(6, 13)))).astype(np.uint32)


EVEN = np.random.default_rng(7).uniform(-7, 7, (20, 32)).astype(np.float32)


def block_inputs() -> np.ndarray:
    rng = np.random.default_rng(6)
    near = rng.standard_normal((12, 32)) * np.exp2(rng.integers(-140, 120, (12, 1)))
    tiny = rng.integers(0, 1 << 24, (6, 32)).astype(np.uint32).view(np.float32)
    x = np.concatenate([near.astype(np.float32), tiny, rng.choice(edges(), (6, 32))])
    x[0, 4], x[1, 7], x[2] = np.inf, np.nan, 0
    x[3, ::3], x[4] = -0.0, np.float32(2.0**-126) * rng.integers(1, 4, 32)
    x[5] = 0
    x[5, 3], x[5, 4] = 2.0**-130, -(2.0**-140)
    x[6], x[6, 0] = np.float32(1e-38), np.float32(3e38)
    x[7, :16], x[7, 16:], x[8] = -1e-42, 1.9999, 1e30
    powers = np.zeros((20, 32), np.float32)
    bits = [(e << 23) + d for e in (0, 1, 127, 254) for d in (-1, 0, 1, 0x7E0000, 0x7F0001)]
    powers[:, 0] = np.clip(bits, 0, 0x7F7FFFFF).astype(np.int32).view(np.float32)
    halves = np.where(np.arange(32) == 3, [[127.5 / 64], [-127.5 / 64]], 0.75).astype(np.float32)
    return np.concatenate([x, powers, halves])


def outputs(d):
    """All that the arithmetic gives in one format on the inputs above, as bytes, one after the other."""
    return outputs_of_blocks(d) if d in BLOCKS else outputs_of_elements(d)


def outputs_of_elements(d):
    for rounding in ROUNDINGS:
        seed = {"seed": 9} if rounding == "stochastic" else {}
        for overflow in d.overflows:
            yield d.encode(X, rounding=rounding, overflow=overflow, **seed).tobytes()
        if rounding == "half_even":
            values = d.round(X, overflow="saturate")
            yield np.where(np.isnan(values), np.float32(np.nan), values).tobytes()
    yield d.encode(X64, rounding="stochastic", random_bits=DRAWS).tobytes()
    yield d.encode(LOW, rounding="stochastic", random_bits=SHORT).tobytes()
    values = d.decode(np.arange(1 << d.bits).astype(d.code_dtype))
    yield np.where(np.isnan(values), np.float32(np.nan), values).tobytes()


def outputs_of_blocks(d):
    x = block_inputs()
    yield poisoned_by_hand(d)
    if isinstance(d, nx.ScaledBlock):  # under its own tensor's scale most of x is 0
        made = d.encode(EVEN, tensor_scale=1.0)
        yield made.codes.tobytes() + made.scale.tobytes() + made.decode().tobytes()
    if isinstance(d, nx.TieredBlock):  # pairs of sub-blocks of several sizes
        made = d.encode(EVEN * np.repeat(np.float32([1, 0.5, 0.4, 0.25]), 8))
        yield made.codes.tobytes() + made.microexponents.tobytes()
        yield d.encode(np.float32([[7.898, 3.0, 1.0]])).scale.tobytes()  # a tie of scales in bfloat16 alone
    for rule in d.scale_rules if isinstance(d, nx.MXBlock) else ("floor",):
        for rounding in ROUNDINGS if rule == "floor" else ("half_even",):
            seed = {"seed": 9} if rounding == "stochastic" else {}
            made = d.encode(x, scale_rule=rule, rounding=rounding, **seed)
            yield made.codes.tobytes() + made.scale.tobytes()
            yield b"" if made.microexponents is None else made.microexponents.tobytes()
            values = made.decode()
            if rounding == "half_even":
                rounded = d.round(x, scale_rule=rule)
                yield np.where(np.isnan(rounded), np.float32(np.nan), rounded).tobytes()
            yield np.where(np.isnan(values), np.float32(np.nan), values).tobytes()


def poisoned_by_hand(d: nx.Block) -> bytes:
    """Blocks that say NaN in their scale and numbers in their codes: NaN all the same."""
    codes = np.tile(np.arange(1, d.block + 1, dtype=np.uint8) % 8, (2, 1))
    nan = 255 if isinstance(d, nx.MicroexponentBlock) else d.scale.nan
    micro = np.zeros((2, 1), d.micro_dtype) if isinstance(d, nx.MicroexponentBlock) else None
    values = nx.Blocks(d, -1, codes, np.array([[nan], [100]], np.uint8), micro, 1.0).decode()
    return np.where(np.isnan(values), np.float32(np.nan), values).tobytes()


@lru_cache
def before(d) -> list[bytes]:
    """What the source as it is gives; `test_the_source_as_it_is_equals_the_judge` asks the judge."""
    with nx.use("array"):
        return list(outputs(d))


@contextmanager
def changed(old: str | None, new: str | None):
    """NumPy runs the changed source inside."""
    modules, places = [], 0
    for module in (codec, scaling):
        text = inspect.getsource(module)
        places += text.count(old) if old else 0
        made = types.ModuleType(module.__name__)
        exec(compile(text.replace(old, new, 1) if old else text, module.__name__, "exec"), vars(made))
        modules.append(made)
    assert places or old is None, f"{old!r} is not in the source"
    names = {name: getattr(primitives, name) for name in bind.PRIMITIVES}
    was, array.bound = array.bound, bind.bind(names, sources=tuple(modules))
    try:
        with nx.use("array"):
            yield
    finally:
        array.bound = was


def likeliest_first(old: str | None) -> list[nx.Dtype]:
    """The formats whose arithmetic is changed, before the others."""
    of_blocks = old is not None and old not in inspect.getsource(codec)
    return [*BLOCKS, *ELEMENTS] if of_blocks else [*ELEMENTS, *BLOCKS]


def bent(old: str, new: str) -> nx.Dtype | None:
    """A format in which NumPy, running the changed source, differs from the source as it is."""
    for d in likeliest_first(old):
        due = before(d)
        with changed(old, new):
            try:
                if any(came != right for came, right in zip(outputs(d), due, strict=True)):
                    return d
            except (OverflowError, ValueError):
                return d
    return None


def test_the_source_as_it_is_equals_the_judge():
    for d in (*ELEMENTS, *BLOCKS):
        with nx.use("reference"):
            due = list(outputs(d))
        assert before(d) == due, d
        with changed(None, None):
            assert list(outputs(d)) == due, d


@pytest.mark.turns
@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_a_change_is_noticed(old, new):
    assert bent(old, new)


def test_there_are_enough_changes():
    assert len(CHANGES) >= 40


# ---- and by the conformance kit, which knows nothing of this source ------------------------------


def element_kernels():
    """Kernels of single numbers, and how `check` is told what they do."""
    for d in (d for d in ELEMENTS if d is not nx.bfloat16):  # whose 65,536 codes take long
        for rounding in DETERMINISTIC if d is nx.fp8_e4m3 else ("half_even",):
            for overflow in d.overflows:
                options = {"rounding": rounding, "overflow": overflow}
                yield partial(d.encode, **options), d, {**options, "strict_nan": True}
        yield d.decode, d, {"kind": "decode"}
        yield partial(d.round, overflow="saturate"), d, {"kind": "round", "overflow": "saturate"}
    for d in (nx.fp8_e4m3, nx.bnb_fp4):
        yield partial(drawn, d), d, {"rounding": "stochastic"}


def drawn(d, x, random_bits):
    return d.encode(x, rounding="stochastic", random_bits=random_bits)


def block_kernels():
    """The same of blocks."""
    for d in BLOCKS:
        scale = {"tensor_scale": 1.5} if isinstance(d, nx.ScaledBlock) else {}
        for rounding in ("half_even", "ceil"):
            yield partial(d.encode, rounding=rounding, **scale), d, {"rounding": rounding, **scale}
        for rule in d.scale_rules if d is nx.mxint8 else ():
            yield partial(d.encode, scale_rule=rule), d, {"scale_rule": rule}
        yield partial(decoded, d), d, {"kind": "decode", **scale}
        yield partial(d.round, **scale), d, {"kind": "round", **scale}


def decoded(d, codes, scale, microexponents=None):
    return nx.Blocks(
        d, -1, codes, scale, microexponents, 1.5 if isinstance(d, nx.ScaledBlock) else None
    ).decode()


FLOAT64 = [old for old, _ in CHANGES if re.search(r"\blow\b", old)]  # what float32 kernels do not have
UNSAID = ["where(code == f.nan_code, NAN, r)", "minimum(33 - (lifted >> 23), 23)"]  # NaN's sign; one number


def made_by(kernel, d, options) -> bytes | None:
    """What a kernel of single numbers makes of some; None of blocks, and where it has no answer."""
    if d in BLOCKS:
        return None
    given = (X,) if options.get("kind") != "decode" else (np.arange(1 << d.bits).astype(d.code_dtype),)
    try:
        return kernel(*((X64, DRAWS) if options.get("rounding") == "stochastic" else given)).tobytes()
    except (OverflowError, ValueError):
        return None


def convicted(old: str | None, new: str | None) -> str | None:
    """The law that a kernel of the changed source breaks; those of a format that differs are asked first.

    Among these the ones that make something else of a few numbers: all others take a second each.
    """
    differs = None if old is None else bent(old, new)
    kernels = [*element_kernels(), *block_kernels()]
    with nx.use("array"):
        was = [made_by(*kernel) for kernel in kernels]
    with changed(old, new):
        alike = [made_by(*kernel) == one for kernel, one in zip(kernels, was, strict=True)]
        order = sorted(range(len(kernels)), key=lambda at: (kernels[at][1] is not differs, alike[at]))
        asked = (kernels[at] for at in order)
        verdicts = (check(kernel, d, **options | {"strict_nan": True}) for kernel, d, options in asked)
        return next((verdict.law for verdict in verdicts if not verdict), None)


@pytest.mark.long
def test_the_kit_acquits_the_source_as_it_is():
    assert convicted(None, None) is None


@pytest.mark.turns(180)
@pytest.mark.parametrize(
    ("old", "new"), [change for change in CHANGES if change[0] not in [*FLOAT64, *UNSAID]]
)
def test_the_kit_convicts_a_change(old, new):
    assert convicted(old, new)


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [pytest.param(*c, marks=[pytest.mark.proof] * (c[2] == "mse")) for c in RULES],  # whose judge is slow
)
def test_the_kit_convicts_a_change_of_a_rule(old, new, rule):
    with changed(old, new):
        kernel = partial(nx.nvfp4.encode, scale_rule=rule, tensor_scale=1.5)
        assert not check(kernel, nx.nvfp4, scale_rule=rule, tensor_scale=1.5)
