"""What a look says is there, and what a comparison finds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

import numerics as nx
from numerics.checkpoints.looking import compare, inspect
from numerics.cli import commands

RNG = np.random.default_rng(2)


@pytest.fixture
def two(tmp_path):
    x = RNG.standard_normal((8, 64)).astype(np.float32)
    x[3, :32] = 0
    q = nx.quantize(x, "mxfp4")
    scale = q.scale.copy()
    scale[5, 1] = 0xFF
    codes = q.codes.copy()
    codes[2, 7] ^= 1
    first = {"w": q, "n": np.float32([1, np.nan, np.inf]), "same": q, "a": np.ones(2), "ids": np.arange(3)}
    second = {"w": nx.QTensor.from_parts("mxfp4", codes, q.scale), "n": first["n"], "same": q,
              "broken": nx.QTensor.from_parts("mxfp4", q.codes, scale), "ids": np.arange(4)}  # fmt: skip
    nx.save(first, tmp_path / "a.safetensors")
    nx.save(second, tmp_path / "b.safetensors")
    return tmp_path / "a.safetensors", tmp_path / "b.safetensors"


def test_a_look_says_formats_ranges_and_what_is_odd(two):
    first, second = ({look.name: look for look in inspect(path)} for path in two)
    q = nx.load(two[0])["w"]
    assert (first["w"].format, first["w"].bits) == ("mxfp4", 4.25)
    assert first["w"].amax == float(np.abs(q.dequantize()).max())
    assert "1 of 16 blocks are zeros" in first["w"].odd
    assert first["n"].odd == ("2 values are NaN or Inf",)
    assert any("1 of 16 scales are NaN" in odd for odd in second["broken"].odd)
    assert any("32 values are NaN" in odd for odd in second["broken"].odd)
    assert first["ids"].amax is None


def test_codes_that_nothing_uses_are_counted(tmp_path):
    codes = np.resize(np.uint8([0, 1, 2, 3]), (16, 64))
    nx.save({"w": nx.QTensor.from_parts("int4", codes, np.float32(1))}, tmp_path / "a.safetensors")
    (look,) = inspect(tmp_path / "a.safetensors")
    assert "12 of 16 codes are unused" in look.odd


def test_a_comparison_finds_the_first_code_that_differs(two):
    found = compare(*two)
    by_name = {one.name: one for one in found.tensors}
    assert (found.only_first, found.only_second) == (["a"], ["broken"])
    assert not found.same
    w = by_name["w"]
    values = [nx.load(path)["w"].dequantize()[2, 7] for path in two]
    assert (w.codes, w.values, w.first) == (1, 1, ((2, 7), *map(float, values)))
    assert 0 < w.sqnr < 100
    assert by_name["same"].same
    assert by_name["n"].same
    assert by_name["ids"].why == "shapes (3,) and (4,)"
    assert compare(two[0], two[0]).same


def run(*words):
    return CliRunner().invoke(commands, [str(word) for word in words], standalone_mode=False)


def test_the_commands_say_the_same(two, tmp_path):
    came = json.loads(run("inspect", two[0], "--json").output)
    assert {look["name"] for look in came} == {"w", "n", "same", "a", "ids"}
    assert "1 of 16 blocks are zeros" in run("inspect", two[0]).output
    differing = run("compare", *two)
    assert differing.return_value == 1
    assert "only in the second: broken" in differing.output
    assert "values differ" in differing.output.splitlines()[0]
    assert "4 tensors in both, 2 differ, 1 only in the first, 1 only in the second" in differing.output
    equal = run("compare", two[0], two[0])
    assert equal.return_value == 0
    assert equal.output == "5 tensors, all the same\n"
    assert "2 quantized tensors, 3 others" in run("convert", two[0], tmp_path / "c.safetensors").output
    assert run("compare", two[0], tmp_path / "c.safetensors").return_value == 0


def test_a_comparison_leaves_nan_and_inf_out_without_a_word(tmp_path):
    odd, whole = np.ones((4, 8), np.float32), np.ones((4, 8), np.float32)
    odd[0, :3] = np.nan, np.inf, -np.inf
    nx.save({"w": odd, "v": whole}, tmp_path / "a.safetensors")
    nx.save({"w": whole, "v": odd}, tmp_path / "b.safetensors")
    w, v = sorted(compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors").tensors,
                  key=lambda one: -one.non_finite)  # fmt: skip
    assert np.isnan(w.sqnr)
    assert (w.values, w.non_finite, w.lost) == (3, 3, 0)
    assert np.isnan(v.sqnr)
    assert (v.values, v.non_finite, v.lost) == (3, 0, 3)
    args = ["compare", str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")]
    said = CliRunner().invoke(commands, args).output
    assert "w: 3 NaN or Inf in the first, in no SQNR" in said
    assert "v: 3 NaN or Inf in the second alone" in said
    assert " inf " not in said
    told = {
        one["name"]: one
        for one in json.loads(CliRunner().invoke(commands, [*args, "--json"]).output)["tensors"]
    }
    assert (told["w"]["non_finite"], told["v"]["lost"]) == (3, 3)


def test_values_that_differ_are_shown_whole(tmp_path):
    """Six digits of them were, which read back as others."""
    for name, value in (("a", -1.0392305), ("b", 1.0392305)):
        nx.save({"w": np.float32([value])}, tmp_path / f"{name}.safetensors")
    nx.save({"w": np.float64([-1.03923046])}, tmp_path / "c.safetensors")
    a, b, c = (str(tmp_path / f"{name}.safetensors") for name in "abc")
    assert "[0]: -1.0392305, 1.0392305" in run("compare", a, b).output
    assert "[0]: -1.039230465888977, -1.03923046" in run("compare", a, c).output


def test_what_has_no_finite_value_has_no_magnitude_and_is_not_zero(tmp_path):
    """A tensor of Inf alone was said to be of zeros alone."""
    half = np.where(np.arange(64) % 2, np.nan, 0).astype(np.float32).reshape(2, 32)
    nx.save({"inf": np.full_like(half, np.inf), "half": half, "zero": np.zeros_like(half),
             "none": half[:0], "q": nx.quantize(np.full_like(half, np.nan), "int4")},
            tmp_path / "a.safetensors")  # fmt: skip
    looks = {look.name: (look.amax, look.odd[:2]) for look in inspect(tmp_path / "a.safetensors")}
    assert looks["inf"] == (None, ("64 values are NaN or Inf",))
    assert looks["half"] == (0, ("32 values are NaN or Inf", "all others are zero"))
    assert looks["zero"] == (0, ("all values are zero",))
    assert looks["none"] == (None, ())


def test_where_nothing_is_finite_there_is_no_sqnr_even_of_equals(tmp_path):
    """NaN against its own mxfp4 was "inf" dB, with no NaN counted."""
    nan, some = np.full((2, 32), np.nan, np.float32), np.ones((2, 32), np.float32)
    some[0, 0] = np.nan
    nx.save({"nan": nan, "ids": np.ones(2, np.int8)}, tmp_path / "a.safetensors")
    nx.save({"nan": nx.quantize(nan, "mxfp4"), "ids": np.ones(2, np.int8)}, tmp_path / "b.safetensors")
    found = {one.name: one for one in compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors").tensors}
    assert (found["nan"].values, found["nan"].non_finite, found["ids"].sqnr) == (0, 64, np.inf)
    assert np.isnan(found["nan"].sqnr)
    said = run("compare", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert "nan: 64 NaN or Inf in the first, in no SQNR" in said.output
    assert " inf " not in said.output
