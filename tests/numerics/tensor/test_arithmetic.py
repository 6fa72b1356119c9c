"""P3109's operations: all codes, all pairs, against the report's own projection in fractions."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from fractions import Fraction

import gfloat
import gfloat.formats
import ml_dtypes
import numpy as np
import pytest
import torch

import numerics as nx
from numerics.formats.rounding import DETERMINISTIC
from numerics.tensor.arithmetic import OPERANDS, UNROUNDED
from tests.helpers.children import LIMIT

INF, NAN = math.inf, math.nan


class Report:
    """A format of the report, and its Project: RoundToPrecision, Saturate, Encode."""

    def __init__(self, bits, precision, signed=True, extended=True):
        self.d = nx.p3109(bits, precision, signed=signed, extended=extended)
        self.precision, self.signed, self.extended = precision, signed, extended
        self.bias = 2 ** (bits - precision - signed)
        sign = gfloat.Signedness.Signed if signed else gfloat.Signedness.Unsigned
        domain = gfloat.Domain.Extended if extended else gfloat.Domain.Finite
        info = gfloat.formats.format_info_p3109(bits, precision, sign, domain)
        self.values = [float(v) for v in gfloat.decode_ndarray(info, np.arange(1 << bits))]
        self.codes = {v: code for code, v in enumerate(self.values) if v == v}
        self.nan = next(code for code, v in enumerate(self.values) if v != v)
        finite = [Fraction(v) for v in self.codes if math.isfinite(v)]
        self.low, self.high = min(finite), max(finite)

    def __getitem__(self, code):
        v = self.values[code]
        return Fraction(v) if math.isfinite(v) else v

    def project(self, x, rounding="half_even", mode="saturate"):
        if x != x:
            return self.nan
        if x not in (INF, -INF):
            x = self.rounded(Fraction(x), rounding)
        found = self.saturated(x, rounding, mode)
        return self.nan if found != found else self.codes[float(found)]

    def rounded(self, x, rounding):
        if x == 0:
            return x
        e = max(math.frexp(abs(x))[1] - 1, 1 - self.bias)
        e -= Fraction(2) ** e > abs(x) and e > 1 - self.bias  # where the float64 was rounded up
        step = Fraction(2) ** (e - self.precision + 1)
        whole, rest = divmod(abs(x), step)
        odd = whole % 2 == 1 if self.precision > 1 else whole == 1 and (e + self.bias) % 2 == 1
        negative = x < 0
        tie = {"half_even": odd, "half_away": True, "half_up": not negative, "half_down": negative}
        if rounding in tie:
            away = 2 * rest > step or (2 * rest == step and tie[rounding])
        else:
            away = rest > 0 and {
                "toward_zero": False, "floor": negative, "ceil": not negative, "to_odd": not odd
            }[rounding]  # fmt: skip
        return (whole + away) * step * (-1 if negative else 1)

    def saturated(self, x, rounding, mode):
        if self.low <= x <= self.high:
            return x
        end = self.low if x < self.low else self.high
        infinity = x in (INF, -INF)
        held = self.extended and (x > 0 or self.signed)
        if mode == "saturate" or (mode == "propagate" and not (infinity and held)):
            return end
        inward = ("toward_zero", "to_odd", "ceil" if x < 0 else "floor")  # to_odd: docs/formats.md §12
        if not infinity and rounding in inward:
            return end
        return (INF if x > 0 else -INF) if held else NAN


def plus(*terms):
    ends = {x for x in terms if x in (INF, -INF)}
    if any(x != x for x in terms) or len(ends) == 2:
        return NAN
    return ends.pop() if ends else sum(terms, Fraction(0))


def by(x, y):
    if x != x or y != y or (0 in (x, y) and (INF in (x, y) or -INF in (x, y))):
        return NAN
    if INF in (x, y) or -INF in (x, y):
        return INF if (x > 0) == (y > 0) else -INF
    return x * y


def inverse(x):
    return NAN if x != x or x == 0 else Fraction(0) if x in (INF, -INF) else 1 / x


def extreme(x, y, name):
    """One of two, by the words of its name."""
    if "number" in name or "finite" in name:
        if x != x or y != y:
            return y if x != x else x
    elif x != x or y != y:
        return NAN
    if "finite" in name and (x in (INF, -INF)) != (y in (INF, -INF)):
        return y if x in (INF, -INF) else x
    sign = 1 if name.startswith("maximum") else -1
    key = (lambda v: (sign * abs(v), sign * v)) if "magnitude" in name else lambda v: sign * v
    return max(x, y, key=key)


DUE = {
    "convert": lambda x: x, "negate": lambda x: -x, "abs": abs, "recip": inverse, "add": plus,
    "subtract": lambda x, y: plus(x, -y), "multiply": by, "fma": lambda x, y, z: plus(by(x, y), z),
    "faa": plus,
    **{name: lambda x, y, name=name: extreme(x, y, name) for name in OPERANDS if "imum" in name},
}  # fmt: skip
COMPARED = {
    "less": lambda x, y: x < y, "less_equal": lambda x, y: x <= y, "equal": lambda x, y: x == y,
    "greater": lambda x, y: x > y, "greater_equal": lambda x, y: x >= y,
}  # fmt: skip
FORMATS = [(4, 2), (4, 1), (4, 3, True, False), (4, 2, False), (4, 4, False, False)]
HOW = list(itertools.product(DETERMINISTIC, ("saturate", "nonsaturate", "propagate")))


def pairs(bits, count=2):
    return [np.uint8(c) for c in zip(*itertools.product(range(1 << bits), repeat=count), strict=True)]


def exact_of(report, name, codes):
    """What an operation makes of the numbers of codes: nothing is rounded yet."""
    held = [report[code] for code in range(len(report.values))]
    numbers = [[held[c] for c in column.tolist()] for column in codes]
    operation = COMPARED.get(name) or DUE[name]
    return [operation(*row) for row in zip(*numbers, strict=True)]


def due_of(report, exact, how):
    """The codes of numbers, each projected once, however often it came; what was compared stays as it is."""
    keys = [(x.numerator, x.denominator) if isinstance(x, Fraction) else x for x in exact]
    known = {
        key: x if isinstance(x, bool) else report.project(x, *how)
        for key, x in dict(zip(keys, exact, strict=True)).items()
    }
    return [known[key] for key in keys]


@pytest.mark.turns(8)
@pytest.mark.parametrize("facts", FORMATS, ids=str)
@pytest.mark.parametrize("name", [name for name in OPERANDS if not name.startswith("next")])
def test_every_operation_of_all_codes_is_the_reports(facts, name):
    report = Report(*facts)
    codes = pairs(facts[0], OPERANDS[name]) if OPERANDS[name] < 3 else drawn(report.d, 300, 3)
    exact = exact_of(report, name, codes)
    for rounding, overflow in HOW if name not in UNROUNDED else [("half_even", None)]:
        due = due_of(report, exact, (rounding, overflow))
        options = {"rounding": rounding, "overflow": overflow}
        assert nx.operate(name, report.d, *codes, **options).tolist() == due, options
        with nx.use("reference"):
            few = [c[::7] for c in codes]
            assert nx.operate(name, report.d, *few, **options).tolist() == due[::7], options


def drawn(d, count, columns):
    """Codes with many special ones."""
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 1 << d.bits, (columns, count)).astype(np.uint8)
    ends = np.uint8([0, d.nan, d.encode(d.max), d.encode(d.min), (1 << d.bits) - 1, 1])
    chosen = rng.random(codes.shape) < 0.2
    return list(np.where(chosen, rng.choice(ends, codes.shape), codes))


@pytest.mark.turns
@pytest.mark.parametrize(
    "name", ["add", "subtract", "multiply", "minimum_finite", "maximum_magnitude", "less"]
)
@pytest.mark.parametrize("facts", [(8, 3), (8, 1, False)], ids=str)
def test_all_pairs_of_eight_bits(name, facts):
    report = Report(*facts)
    codes = [c[:: 1 if facts == (8, 3) else 7] for c in pairs(8)]
    overflow = None if name == "less" else "nonsaturate"
    due = due_of(report, exact_of(report, name, codes), ("half_even", overflow))
    assert nx.operate(name, report.d, *codes, overflow=overflow).tolist() == due
    tensors = map(torch.from_numpy, codes)
    assert nx.operate(name, report.d, *tensors, overflow=overflow).tolist() == due


@pytest.mark.parametrize("facts", [(8, 1, False), (8, 1), (8, 3), (8, 7)], ids=str)
@pytest.mark.parametrize("name", ["fma", "faa"])
def test_three_operands_round_once_whatever_lies_between_their_exponents(facts, name):
    report = Report(*facts)
    codes = drawn(report.d, 1200, 3)
    codes[2][:400] = nx.operate("negate", report.d, codes[0][:400])  # cancels
    exact = exact_of(report, name, codes)
    for how in (("half_even", "nonsaturate"), ("floor", "propagate"), ("to_odd", "saturate")):
        due = due_of(report, exact, how)
        options = {"rounding": how[0], "overflow": how[1]}
        assert nx.operate(name, report.d, *codes, **options).tolist() == due
        tensors = map(torch.from_numpy, codes)
        assert nx.operate(name, report.d, *tensors, **options).tolist() == due


def test_results_in_another_format():
    source, target = Report(8, 3), Report(6, 3, False)
    for name in ("convert", "recip", "multiply"):
        codes = drawn(source.d, 800, OPERANDS[name])
        exact = exact_of(source, name, codes)
        for how in (("half_away", "nonsaturate"), ("ceil", "propagate")):
            due = due_of(target, exact, how)
            options = {"to": target.d, "rounding": how[0], "overflow": how[1]}
            assert nx.operate(name, source.d, *codes, **options).tolist() == due


@pytest.mark.parametrize("facts", [*FORMATS, (8, 3)], ids=str)
def test_the_next_value_up_and_down(facts):
    report = Report(*facts)
    rising = sorted(report.codes)
    due = {"next_up": dict(itertools.pairwise(rising)), "next_down": dict(itertools.pairwise(rising[::-1]))}
    for name, after in due.items():
        expected = [report.codes.get(after.get(v), report.nan) for v in report.values]
        for chosen in ("array", "reference"):
            with nx.use(chosen):
                assert nx.operate(name, report.d, list(range(1 << facts[0]))) == expected


def test_ml_dtypes_adds_and_multiplies_alike():
    """binary8p4sf is float8_e4m3fnuz, of which sums and products are exact in float32."""
    d, codes = nx.p3109(8, 4, extended=False), pairs(8)
    x, y = (c.view(ml_dtypes.float8_e4m3fnuz) for c in codes)
    for name, theirs in (("add", x + y), ("subtract", x - y), ("multiply", x * y)):
        came = nx.operate(name, d, *codes, overflow="nonsaturate")
        assert np.array_equal(came, theirs.view(np.uint8)), name


@pytest.mark.parametrize("name", ["negate", "multiply", "faa"])
def test_draws_are_those_of_encode(name):
    """What a table cannot hold is computed, and rounds as the exact numbers do."""
    report = Report(8, 3)
    codes = drawn(report.d, 2000, OPERANDS[name])
    exact = np.float64([DUE[name](*(float(report[c]) for c in row)) for row in zip(*codes, strict=True)])
    small = nx.p3109(5, 2)
    for kind in (np.asarray, torch.from_numpy):
        due = small.encode(exact, rounding="stochastic", seed=5)
        came = nx.operate(name, report.d, *map(kind, codes), to=small, rounding="stochastic", seed=5)
        assert np.array_equal(came, due)


def test_kinds_and_shapes():
    d = nx.p3109(8, 4)
    assert nx.operate("add", d, 64, 64) == 72
    assert nx.operate("add", d, np.uint8([[64], [0]]), 64).tolist() == [[72], [64]]
    assert (
        nx.operate("less", d, torch.tensor([0], dtype=torch.uint8), torch.tensor([[64]])).dtype == torch.bool
    )
    assert nx.operate("add", d, np.zeros((0, 3), np.uint8), 1).shape == (0, 3)
    assert nx.operate("fma", nx.posit8, [64], [64], [64]) == nx.posit8.encode([2.0])


COMPILED = """
import numerics as nx, torch
d, codes = nx.p3109(8, 3), torch.arange(256, dtype=torch.uint8)
calls = (
    lambda x: nx.operate("add", d, x, x.flip(0)), lambda x: nx.operate("less", d, x, 66),
    lambda x: nx.operate("fma", d, x, x.flip(0), x, to=nx.posit8, rounding="floor", overflow="propagate"),
    lambda x: nx.operate("multiply", d, x, x, rounding="stochastic", seed=3),
    lambda x: nx.operate("recip", d, x),
)
def every(x):
    return [call(x) for call in calls]
made = torch.compile(every, fullgraph={fullgraph}, backend="aot_eager")(codes)
assert all(map(torch.equal, made, every(codes)))
"""


@pytest.mark.turns(4)
@pytest.mark.parametrize("fullgraph", [True, False])
def test_operations_compile_in_a_process_that_has_made_no_table(fullgraph):
    text = COMPILED.replace("{fullgraph}", str(fullgraph))
    subprocess.run([sys.executable, "-c", text], check=True, timeout=LIMIT)


@pytest.mark.parametrize(
    "make",
    [lambda: nx.p3109(8, 4), lambda: nx.p3109(12, 5), lambda: nx.float_format(4, 5),
     lambda: nx.integer_format(5), lambda: nx.codebook_format([-1, 0, 2, 5])],
    ids=["listed", "wide", "float", "integer", "codebook"],
)  # fmt: skip
def test_a_format_that_is_declared_in_a_compiled_region_ends_the_graph(make):
    x = torch.linspace(-3, 3, 50)
    torch._dynamo.reset()
    assert torch.equal(torch.compile(lambda x: make().round(x), backend="aot_eager")(x), make().round(x))


def test_a_tensor_goes_with_an_integer_as_an_array_does():
    d, codes = nx.p3109(8, 3), torch.arange(256, dtype=torch.uint8)
    for name in ("subtract", "less"):
        for order in (1, -1):
            came, due = (nx.operate(name, d, *[x, 70][::order]) for x in (codes, codes.numpy()))
            assert isinstance(came, torch.Tensor)
            assert np.array_equal(came, due)
    with pytest.raises(nx.NumericsError, match=r"code 256 is outside 0 \.\. 255"):
        nx.operate("add", d, codes, 256)


@pytest.mark.parametrize(
    ("args", "options", "said"),
    [
        (("sum", "d", 1, 2), {}, "operation"),
        (("add", "d", 1), {}, "2 operands, not 1"),
        (("add", nx.fp8_e4m3, 1, 2), {}, "no P3109 arithmetic"),
        (("add", nx.nf4, 1, 2), {}, "no P3109 arithmetic"),
        (("add", "d", 1, 256), {}, "256"),
        (("add", "d", np.uint8([1, 2]), np.uint8([1, 2, 3])), {}, "broadcast"),
        (("add", "d", np.uint8([1]), torch.tensor([1])), {}, "not some of each"),
        (("less", "d", 1, 2), {"rounding": "floor"}, "rounds nothing"),
        (("add", "d", 1, 2), {"overflow": "clip"}, "saturate"),
        (("add", "d", 1, 2), {"seed": 1}, "stochastic"),
    ],
)
def test_what_cannot_be_is_refused(args, options, said):
    operation, d, *codes = args
    with pytest.raises(nx.NumericsError, match=said):
        nx.operate(operation, nx.p3109(8, 3) if d == "d" else d, *codes, **options)
