"""Kernels that find the scales of single numbers: right ones by several routes, and planted faults."""

from __future__ import annotations

import numpy as np
import pytest

import numerics as nx
from numerics.conform import check
from numerics.conform.inputs.spread import sharing
from numerics.conform.scales.rule import Rule, ScalesClaim
from numerics.conform.vectors.operations import operation
from numerics.formats.errors import NumericsError
from numerics.formats.rounding import DETERMINISTIC

F = np.float32


def kernel(
    dtype="int8", end=127.0, amax=None, scale=None, zeros=1.0, quotient=None, codes=None, stored=None
):  # fmt: skip
    """A kernel of NumPy: a scale for each row; each step may be another one."""
    element = nx.dtype(dtype)

    def largest(x):
        return np.where(np.isfinite(x), np.abs(x), F(0)).max(axis=-1, keepdims=True, initial=0)

    def encode(x):
        x = np.ascontiguousarray(x)
        most = F((amax or largest)(x))
        own = (scale or (lambda most: most / F(end)))(most)
        own = np.where(most == 0, F(zeros), np.maximum(own, F(2.0**-149 if zeros else 0))).astype(F)
        kept = own if stored is None else stored(own)
        with np.errstate(all="ignore"):
            y = (quotient or (lambda x, own, most: np.where(own == 0, x * F(0), x / own)))(x, kept, most)
        found = (codes or (lambda y: element.encode(y.astype(F), overflow="saturate")))(y)
        return found, kept

    return encode


def fp8(**steps):
    return kernel("fp8_e4m3", 448.0, **steps)


def judged(target, dtype="int8", scheme="per_token", **options):
    return check(target, dtype, scheme=scheme, **{"kind": "quantize", "effort": "quick", **options})


def bfloat16(x):
    """As a scale: never 0."""
    return np.maximum(nx.bfloat16.round(x), F(nx.bfloat16.smallest_subnormal))


def flushed(x):
    return np.where(np.abs(x) < 2.0**-126, F(0), x)


# ---- right kernels -----------------------------------------------------------------------------------


def by_torch(x):
    import torch

    finite = torch.where(torch.isfinite(x), x, 0)
    most = finite.abs().amax(-1, keepdim=True) if x.shape[-1] else x.new_zeros((*x.shape[:-1], 1))
    scale = torch.where(most == 0, 1.0, (most / 127.0).clamp(min=2.0**-149))
    y = torch.where(torch.isnan(x), 0.0, x / scale)
    return torch.round(y).clamp(-128, 127).to(torch.int8), scale


def numba_kernel():
    numba = pytest.importorskip("numba")

    @numba.njit
    def rows(x, codes, scales):
        for i in range(x.shape[0]):
            most = F(0)
            for j in range(x.shape[1]):
                if np.isfinite(x[i, j]) and abs(x[i, j]) > most:
                    most = abs(x[i, j])
            scale = F(1) if most == F(0) else max(most / F(127), F(2.0**-149))
            scales[i] = scale
            for j in range(x.shape[1]):
                y = x[i, j] / scale
                codes[i, j] = 0 if np.isnan(y) else np.int8(min(max(np.rint(y), F(-128)), F(127)))

    def encode(x):
        flat = np.ascontiguousarray(x).reshape(int(np.prod(x.shape[:-1])), x.shape[-1])
        codes, scales = np.empty(flat.shape, np.int8), np.ones(len(flat), F)
        rows(flat, codes, scales)
        return codes.reshape(x.shape), scales.reshape((*x.shape[:-1], 1))

    return encode


ROUTES = {
    "NumPy": lambda: judged(kernel(), effort="default"),
    "NumPy, fp8": lambda: judged(fp8(), "fp8_e4m3", effort="default"),
    "torch": lambda: judged(by_torch, array="torch"),
    "numba": lambda: judged(numba_kernel()),
}


@pytest.mark.turns(8)
@pytest.mark.parametrize("route", ROUTES)
def test_right_kernels_by_three_routes_pass(route):
    if route == "torch":
        pytest.importorskip("torch")
    found = ROUTES[route]()
    assert found, str(found)


SPECS = (
    ("fp8_e4m3", "per_tensor"),
    ("fp8_e5m2", "per_token"),
    ("nf4", "per_group(64)"),
    ("int4", "per_group(32, axis=0)"),
    ("int8", "per_channel(0)"),
    ("int8", "per_channel(1)"),
    ("fp8_e4m3", "128x128"),
    ("uint8 symmetric=False", "per_token"),
    ("int8 symmetric=False scale_type=float16", "per_group(5)"),
    ("int8 scale_type=bfloat16", "per_token"),
    ("fp8_e4m3 scale_type=pof2", "per_group(128)"),
    ("int8 scale_rule=full_range", "per_token"),
    ("hifloat8", "per_token"),
)


@pytest.mark.turns(80)
@pytest.mark.parametrize("inputs", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("dtype", "scheme"), SPECS)
def test_our_own_pass_in_every_scheme(dtype, scheme, inputs):
    spec = nx.QuantSpec(dtype, scheme=nx.per_block((128, 128)) if scheme == "128x128" else scheme)
    found = judged(lambda x: nx.quantize(x, spec), dtype, scheme, inputs=inputs)
    assert found, str(found)
    found = judged(lambda x: nx.fake_quantize(x, spec), dtype, scheme, inputs=inputs, kind="fake_quantize")
    assert found, str(found)


@pytest.mark.turns(16)
@pytest.mark.parametrize("seed", range(8))
def test_a_seed_raises_no_false_alarm(seed):
    assert judged(kernel(), effort="default", seed=seed)


CLAMPED = {
    "amax 1e-12": kernel(scale=lambda most: np.maximum(most, F(1e-12)) / F(127), zeros=F(1e-12) / F(127)),
    "scale 1.1920929e-07": kernel(scale=lambda most: np.maximum(most / F(127), F(2.0**-23)), zeros=2.0**-23),
    "none": kernel(zeros=0),
}


@pytest.mark.turns(6)
@pytest.mark.parametrize("least", CLAMPED)
def test_clamps_are_options(least):
    found = judged(CLAMPED[least], least=least)
    assert found, str(found)
    assert not judged(kernel(), least=least)
    assert not judged(CLAMPED[least])


# ---- faults ------------------------------------------------------------------------------------------


def left_out(place):
    def amax(x):
        kept = np.where(np.isfinite(x), np.abs(x), F(0))
        if kept.shape[-1] > abs(place):
            kept[..., place] = 0
        return kept.max(axis=-1, keepdims=True, initial=0)

    return amax


def up_to(count):
    return lambda x: np.where(np.isfinite(x), np.abs(x), F(0))[..., :count].max(
        axis=-1, keepdims=True, initial=0
    )


def whole(count):
    """Rows of which the numbers past the last whole vector are not looked at."""

    def amax(x):
        size = x.shape[-1]
        return up_to(size // count * count or size)(x)

    return amax


def plain(x, taken=np.abs, keep=np.isfinite):
    return taken(np.where(keep(x), x, F(0))).max(axis=-1, keepdims=True, initial=0)


def clip(y, low=-128, high=127):
    return np.clip(np.rint(np.nan_to_num(y, posinf=1e30, neginf=-1e30)), low, high).astype(np.int8)


def rounded(how):
    return lambda y: nx.int8.encode(y.astype(F), rounding=how)


FAULTS = {
    "reciprocal of the maximum": ("found_scale", kernel(scale=lambda most: most * (F(1) / F(127)))),
    "reciprocal twice": (
        "found_scale",
        kernel(scale=lambda most: F(1) / (F(127) / np.where(most == 0, F(1), most))),
    ),
    "scale in bfloat16": ("found_scale", kernel(stored=bfloat16)),
    "scale in float16": (
        "found_scale",
        kernel(stored=lambda s: np.clip(nx.float16.round(s), 2.0**-24, 65504).astype(F)),
    ),
    "amax over 128": ("found_scale", kernel(end=128)),
    "amax over 127.5": ("found_scale", kernel(end=127.5)),
    "amax is at least 1e-12": ("found_scale", CLAMPED["amax 1e-12"]),
    "amax is at least 1e-10": (
        "found_scale",
        kernel(scale=lambda m: np.maximum(m, F(1e-10)) / F(127), zeros=F(1e-10) / F(127)),
    ),
    "scale at least 1.19209e-07": ("found_scale", CLAMPED["scale 1.1920929e-07"]),
    "adds 1e-08": ("found_scale", kernel(amax=lambda x: plain(x) + F(1e-8))),
    "zeros have the scale 0": ("scale_of_zeros", kernel(zeros=0)),
    "loses the sign": ("found_scale", kernel(amax=lambda x: plain(x, lambda x: x))),
    "reciprocal of the scale": ("under_scale", kernel(quotient=lambda x, own, most: x * (F(1) / own))),
    "x times maximum over amax": (
        "under_scale",
        kernel(quotient=lambda x, own, most: x * (F(127) / np.where(most == 0, F(127), most))),
    ),
    "rounds half_away": ("under_scale", kernel(codes=rounded("half_away"))),
    "rounds toward_zero": ("under_scale", kernel(codes=rounded("toward_zero"))),
    "no least integer": ("under_scale", kernel(end=127, codes=lambda y: clip(y, -127))),
}
"""By the deviation that is named, and the law that is broken."""
UNNAMED = {
    "the first number is left out": kernel(amax=left_out(0)),
    "the last number is left out": kernel(amax=left_out(-1)),
    "the sixth number is left out": kernel(amax=left_out(5)),
    "number 77 is left out": kernel(amax=left_out(77)),
    "only 1,024 numbers are looked at": kernel(amax=up_to(1024)),
    "only 2**16 numbers are looked at": kernel(amax=up_to(1 << 16)),
    "the last of fours are left out": kernel(amax=whole(4)),
    "the last of 256 are left out": kernel(amax=whole(256)),
    "amax of the whole tensor": kernel(amax=lambda x: np.full((*x.shape[:-1], 1), plain(x).max(initial=0))),
    "the row before": kernel(amax=lambda x: np.roll(plain(x), 1, axis=0)),
    "subnormal amax is flushed": kernel(amax=lambda x: flushed(plain(x))),
    "scales past 65,535 rows": kernel(
        amax=lambda x: plain(x)[np.arange(len(x)) % 65536] if x.ndim > 1 else plain(x)
    ),
    "Inf counts": kernel(amax=lambda x: plain(x, keep=lambda x: ~np.isnan(x))),
    "codes wrap": kernel(
        codes=lambda y: np.rint(np.nan_to_num(y, posinf=0, neginf=0)).astype(np.int64).astype(np.int8),
        end=126.9,
    ),
    "a code is one more": kernel(codes=lambda y: clip(np.where(y == F(3), F(4), y))),
}


def lost(where):
    """Rows of which the numbers at some places, by the length of a row, are not looked at."""

    def amax(x):
        kept = np.where(np.isfinite(x), np.abs(x), F(0))
        if x.ndim:
            kept[..., where(np.arange(x.shape[-1]), x.shape[-1])] = 0
        return kept.max(axis=-1, keepdims=True, initial=0)

    return kernel(amax=amax)


LOST = {
    "lane 17 of 32 of long rows": lambda i, n: (n >= 512) & (i % 32 == 17),
    "lane 21 of 32 of longer rows": lambda i, n: (n >= 4096) & (i % 32 == 21),
    "a third of 768": lambda i, n: (n == 768) & (i >= 512),
    "a third of 3,072": lambda i, n: (n == 3072) & (i >= 2048),
    "a fifth of 5,120": lambda i, n: (n == 5120) & (i // 1024 == 3),
    "a tile of 1,024": lambda i, n: (n == 1024) & (i // 256 == 1),
    "a vector of 8 of 128": lambda i, n: (n >= 2048) & (i % 128 // 8 == 5),
    **{f"the last of {k} past 1,024": (lambda i, n, k=k: (n > 1024) & (i >= n // k * k))
       for k in (2, 4, 8, 16, 32, 64, 128, 256)},
}  # fmt: skip


@pytest.mark.turns(20)
@pytest.mark.parametrize("name", LOST)
def test_places_of_usual_rows_were_lost(name):
    assert not judged(lost(LOST[name])), name


def of_tensors(where):
    """Tensors with one scale, as rows."""
    of_rows = lost(where)

    def encode(x):
        codes, scale = of_rows(np.ascontiguousarray(x).reshape(1, -1))
        return codes.reshape(x.shape), scale.reshape(())

    return encode


@pytest.mark.turns(20)
@pytest.mark.parametrize("name", [name for name in LOST if "past" not in name or "256" in name])
def test_places_of_usual_tensors_were_lost(name):
    assert not judged(of_tensors(LOST[name]), scheme="per_tensor"), name


@pytest.mark.turns
def test_every_place_of_a_shape_that_is_named_is_asked():
    wrong = lost(lambda i, n: (n == 301) & (i == 123))
    assert judged(wrong)
    found = judged(wrong, shapes=[(4, 301)])
    assert found.law == "found_scale"
    assert "at 123 of 301" in found.counterexample.where
    assert not judged(values_of(wrong), kind="fake_quantize", shapes=((4, 301),))
    wrong = of_tensors(lambda i, n: (n == 301) & (i == 123))
    assert not judged(wrong, scheme="per_tensor", shapes=[301])
    assert judged(kernel(), shapes=[(3, 5)])


@pytest.mark.parametrize("shapes", [[], 5, [(-1, 2)], ["3"], [(0, 3)], [(1 << 14, 1 << 14)], [()]])
def test_shapes_that_are_none_are_refused(shapes):
    with pytest.raises(NumericsError, match="shape"):
        judged(kernel(), shapes=shapes, scheme="per_channel(0)")
    with pytest.raises(NumericsError, match="shape"):
        check(nx.fp4.pack, "fp4", kind="pack", shapes=[(3, 5)])


@pytest.mark.turns(20)
@pytest.mark.parametrize("name", FAULTS)
def test_a_known_deviation_is_named(name):
    law, wrong = FAULTS[name]
    found = judged(wrong)
    assert law in [broken.law for broken in found.failures], str(found)
    assert found.dialect == name, str(found)


@pytest.mark.turns
@pytest.mark.parametrize("name", UNNAMED)
def test_a_planted_fault_is_found(name):
    assert not judged(UNNAMED[name]), name


def values_of(wrong, dtype="int8"):
    return lambda x: (nx.dtype(dtype).decode(wrong(x)[0]) * wrong(x)[1]).astype(F)


@pytest.mark.turns(40)
@pytest.mark.parametrize("name", FAULTS)
def test_values_alone_show_it_too(name):
    assert judged(values_of(kernel()), kind="fake_quantize")
    assert not judged(values_of(FAULTS[name][1]), kind="fake_quantize")


def test_a_wrong_scale_does_not_hide_in_wrong_codes():
    found = judged(FAULTS["scale in bfloat16"][1])
    assert [broken.law for broken in found.failures] == ["found_scale"]
    assert "0x3C010204 (0.00787401572), of 1 / 127" in found.counterexample.due
    assert "amax 1, at 0" in found.counterexample.where


def test_the_kept_scale_of_an_earlier_call_is_found():
    kept = {}

    def encode(x):
        codes, scale = kernel()(x)
        return codes, kept.setdefault(x.shape, scale)

    assert not judged(encode)


def turned(part):
    """Scales, or zero points, that lie turned in memory of the shape that is due."""
    if part.ndim < 2 or min(part.shape[-2:]) < 2 or part.shape[-2] == part.shape[-1]:
        return part
    *lead, rows, columns = part.shape
    return part.reshape(*lead, columns, rows).swapaxes(-1, -2)


def strided(part):
    """Scales that are written with as many places for a row as there are rows."""
    if part.ndim < 2:
        return part
    *lead, rows, columns = part.shape
    places = np.minimum(np.arange(rows)[:, None] * rows + np.arange(columns), rows * columns - 1)
    return part.reshape(*lead, rows * columns)[..., places]


TURNED = ("128x128", "64x32", "1x128", "per_group(128)", "per_group(128, axis=0)", "per_group(200, axis=2)")


@pytest.mark.turns(30)
@pytest.mark.parametrize("wrong", [turned, strided])
@pytest.mark.parametrize("scheme", TURNED)
def test_scales_that_lie_turned_are_found(scheme, wrong):
    spec = nx.QuantSpec("fp8_e4m3", scheme=sharing(scheme))

    def encode(x):
        q = nx.quantize(x, spec)
        return q.codes, wrong(q.scale)

    assert not judged(encode, "fp8_e4m3", scheme)

    def zeros(x):
        q = nx.quantize(x, "uint8", scheme=sharing(scheme), symmetric=False)
        return q.codes, q.scale, wrong(q.zero_point)

    assert not judged(zeros, "uint8 symmetric=False", scheme)


WHOLE = {
    "per_group(32)": (1, 32),
    "per_group(200)": (1, 200),
    "per_group(16, axis=0)": (16, 1),
    "32x64": (32, 64),
}


@pytest.mark.turns(8)
@pytest.mark.parametrize("scheme", WHOLE)
def test_a_kernel_of_whole_groups_alone_was_given_others(scheme):
    """`whole_blocks` said what it takes, and groups of 3 numbers came all the same."""
    rows, columns = WHOLE[scheme]
    spec = nx.QuantSpec("int8", scheme=sharing(scheme))

    def encode(x, lost=None):
        assert rows == 1 or x.shape[0 if "axis=0" in scheme else -2] % rows == 0
        assert x.shape[-1] % columns == 0
        x = np.array(x)
        q = nx.quantize(x, spec)
        if lost is None or not x.size:
            return q.codes, q.scale
        kept = x.copy()
        kept[..., lost::columns] = 0
        return q.codes, nx.quantize(kept, spec).scale

    found = judged(encode, scheme=scheme, whole_blocks=True)
    assert found, str(found)
    assert "last blocks that are short" in str(found)
    wrong = judged(lambda x: encode(x, columns - 1), scheme=scheme, whole_blocks=True)
    assert not wrong
    assert wrong.law in ("found_scale", "scale_of_zeros"), str(wrong)


def test_zero_points_are_judged_under_the_scale_that_came():
    def encode(x):
        q = nx.quantize(x, "uint8", scheme="per_token", symmetric=False)
        return q.codes, q.scale, np.minimum(q.zero_point + 1, 255)

    found = judged(encode, "uint8 symmetric=False")
    assert found.law == "found_zero_point"


def test_fp8_loses_the_sign_of_zero():
    def encode(x):
        codes, scale = fp8()(x)
        return np.where(codes == 0x80, 0, codes).astype(np.uint8), scale

    assert judged(encode, "fp8_e4m3").law == "under_scale"


def test_what_is_not_so_is_refused():
    wrong = {"tensor_scale": 1.0, "axis": 0, "inputs": "float64", "rounding": "stochastic", "packed": True}
    for options in (
        *({"least": came} for came in ("amax", "scale -1", 3)),
        *({k: v} for k, v in wrong.items()),
    ):
        with pytest.raises(NumericsError):
            judged(kernel(), **options)
    with pytest.raises(NumericsError, match="least"):
        check(nx.int8.encode, "int8", least="none")
    with pytest.raises(NumericsError, match="blocks"):
        judged(kernel(), "mxfp4", None)


@pytest.mark.turns
def test_what_comes_back_is_read():
    assert judged(lambda x: kernel()(x)[0]).law == "result"
    assert judged(lambda x: (kernel()(x)[0], kernel()(x)[1].astype(np.int32))).law == "dtype"
    assert judged(lambda x: (kernel()(x)[0], kernel()(x)[1].T[..., :1])).law in ("shape", "found_scale")
    assert judged(lambda x: (kernel()(x)[0], kernel()(x)[1][..., 0]))


@pytest.mark.turns
def test_it_fills_arrays():
    def fills(x, codes, scales):
        codes[...], scales[...] = (
            part.view(codes.dtype) if part.dtype == np.int8 else part for part in kernel()(x)
        )

    assert judged(fills, fills=True)


@pytest.mark.parametrize("rounding", DETERMINISTIC)
def test_the_rounding_floor_was_judged_as_half_even(rounding):
    """Claimed values that are not said were told from those that are by a list of both options' defaults."""
    claim = ScalesClaim("per_token", rounding=rounding)
    assert Rule.of("int8", claim).spec.rounding == rounding
    assert Rule.of("int8", claim._replace(scale_rule="full_range")).spec.rounding == rounding
    asked = operation("int8", "quantize", rounding=rounding)
    assert asked.facts["rounding"] == rounding
    x = np.float32([127, 0.5, 1.5, 0.25, 0.75, -0.5, -0.25, -0.75, *[0] * 8])
    due = asked.due({"input": x.view(np.uint32)[None]})["code"][0]
    assert np.array_equal(due.astype(np.uint8), nx.int8.encode(x, rounding=rounding).view(np.uint8))


@pytest.mark.turns(6)
def test_a_largest_number_past_two_to_the_20_was_not_asked():
    def largest(x):
        some = x.reshape(-1)[: 1 << 20]
        return np.where(np.isfinite(some), np.abs(some), F(0)).max(initial=0)

    found = check(kernel(amax=largest), "int8", kind="quantize", scheme="per_tensor")
    assert found.law == "found_scale", str(found)
    assert "at 1049599 of 1049600" in str(found)
