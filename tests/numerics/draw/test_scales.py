"""nx.scales, its picture and its command: which scale rule loses least on a tensor."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("click")
pytest.importorskip("matplotlib")

from click.testing import CliRunner

import numerics as nx
from numerics import cli
from numerics.draw.scales import found_by

X = np.random.default_rng(0).standard_normal((8, 96), np.float32)
FORMATS = ("nvfp4", "mxfp4", "mxint8", "mx6", "int4", "uint4", "fp8_e4m3", "nf4", "bfloat16")


@pytest.mark.parametrize("d", FORMATS)
@pytest.mark.filterwarnings("ignore:.*negative:UserWarning")
def test_every_rule_that_a_format_takes_is_there_with_what_quantize_loses(d):
    found = nx.scales(X, d)
    assert {one.rule for one in found} == set(nx.dtype(d).scale_rules)
    for one in found:
        error = nx.quantize(X, d, scale_rule=one.rule).error(X)
        assert (one.sqnr, one.max_error) == (error.sqnr, error.max_error)
    assert [one.sqnr for one in found] == sorted((one.sqnr for one in found), reverse=True)
    assert found.best == found.rules[0].rule


def test_the_clipped_are_those_more_than_half_a_step_beyond_what_a_scale_represents():
    x = np.float32([[4.0, -7.9, 1, 0], [7.0, 2.0, 6.9, 0]])  # floor: the scale 1 of 6 at most, ties at 7
    clipped = {one.rule: one.clipped for one in nx.scales(x, nx.block_format(block=4, element="fp4"))}
    assert clipped["floor"] == 1 / 8
    assert clipped["rceil"] == 0


@pytest.mark.parametrize(("d", "options", "due"), [
    ("int4", {"symmetric": False}, ["floor"]),
    ("int4", {"scheme": nx.per_group(32)}, ["floor", "full_range"]),
    (nx.QuantSpec("int4", scheme="per_group(32)"), {}, ["floor", "full_range"]),
    (nx.QuantSpec("nvfp4", axis=0, scale_rule="mse"), {}, sorted(nx.nvfp4.scale_rules)),
])  # fmt: skip
def test_options_are_those_of_quantize(d, options, due):
    found = nx.scales(X, d, **options)
    assert sorted(one.rule for one in found) == due
    spec = d if isinstance(d, nx.QuantSpec) else nx.QuantSpec(d, **options)
    for one in found:
        assert one.sqnr == nx.quantize(X, spec.replace(scale_rule=one.rule)).error(X).sqnr


def test_nothing_finite_comes_last_and_progress_is_told():
    told = []
    found = found_by(np.full(32, np.nan, np.float32), "mxfp4", {}, lambda *how_far: told.append(how_far))
    assert len(found) == len(nx.mxfp4.scale_rules)
    assert told[0] == ("floor", 0, 6)
    assert told[-1][1:] == (6, 6)


HOLES = np.ones((4, 64), np.float32)
HOLES[1, 7], HOLES[2, 40] = np.nan, np.inf


def test_what_every_rule_made_nan_was_won_by_the_first_one(tmp_path):
    """Two blocks became NaN by all six rules, and "floor loses least" stood below."""
    found = nx.scales(HOLES, "mxfp4")
    assert {one.lost for one in found} == {62}
    assert found.alike == ()
    assert "cannot be told, as by every one 62 finite values became NaN or Inf" in found.verdict
    assert "green" not in _label(nx.draw.scales(HOLES, "mxfp4"))
    assert nx.draw.scales(HOLES, "mxfp4").alt.endswith(f" W{found.verdict[1:]}.")
    np.save(tmp_path / "x.npy", HOLES)
    for words in (["scales"], ["plot", "scales"]):
        out = [tmp_path / "out.png"] * (len(words) - 1)
        said = asked(*words, tmp_path / "x.npy", *out, "--dtype", "mxfp4").stdout
        assert said.splitlines()[-1].endswith(found.verdict)
        assert not {"nan", "inf"} & set(said.split())
        assert "made NaN/Inf" in said
    whole = json.loads(asked("scales", tmp_path / "x.npy", "--dtype", "mxfp4", "--json").stdout)
    assert {one["lost"] for one in whole["rules"]} == {62}


def _label(picture):
    return picture.figure.axes[0].get_xlabel()


def test_a_rule_that_makes_fewer_nan_or_inf_comes_first():
    """Values beyond float32: by floor the largest is left, by all others Inf, and none was called clipped."""
    x = np.full((4, 32), 1e300)
    found = nx.scales(x, "mxfp4")
    assert found.verdict == "floor loses least"
    assert [(one.rule == "floor", one.lost, one.clipped) for one in found] == [
        (True, 0, 1.0), *[(False, 128, 1.0)] * 5
    ]  # fmt: skip


def test_where_nothing_finite_came_no_rule_loses_least_and_beside_nan_what_is_exact_does():
    assert nx.scales(np.full(32, np.nan), "int4").verdict.endswith("cannot be told, as no value is finite")
    beside = np.ones((2, 32), np.float32)
    beside[0] = np.nan
    assert nx.scales(beside, "mxfp4").alike == nx.mxfp4.scale_rules
    assert nx.scales(HOLES, "mx6").verdict.startswith("floor is the one scale rule that it has; ")


@pytest.mark.parametrize(("x", "options", "due"), [
    (X, {"scale_rule": "mse"}, "tells apart"),
    (X, {"group_size": 32}, r"nx\.per_group\(32\)"), (np.empty(0), {}, "no elements"),
])  # fmt: skip
def test_what_cannot_be_asked_is_refused_in_words(x, options, due):
    with pytest.raises(nx.NumericsError, match=due):
        nx.scales(x, "int4", **options)


@pytest.fixture
def file(tmp_path):
    np.save(tmp_path / "x.npy", X)
    return tmp_path / "x.npy"


def asked(*words):
    return CliRunner().invoke(cli.commands, [*map(str, words)])


def test_the_command_shows_the_best_rule_first(file):
    found = asked("scales", file, "--dtype", "nvfp4")
    rules = [line.split()[0] for line in found.stdout.splitlines()]
    assert rules[1:-1] == [one.rule for one in nx.scales(X, "nvfp4")]
    assert found.stdout.endswith("x in nvfp4: mse loses least\n")
    whole = json.loads(asked("scales", file, "--dtype", "int4", "--group-size", "32", "--json").stdout)
    assert whole["tensor"] == "x"
    assert whole["spec"] == {"dtype": "int4", "scheme": "per_group(32, axis=-1)"}
    assert [one["rule"] for one in whole["rules"]] == ["full_range", "floor"]


def test_rules_that_lose_alike_are_all_named(file):
    assert asked("scales", file, "--dtype", "mxfp4").stdout.endswith(": even and tosa and bump lose least\n")


@pytest.mark.parametrize(("words", "due"), [
    (["--dtype", "nvfp4", "--group-size", 32], "--group-size cannot be, since blocks have their own size"),
    (["--dtype", "int8", "--axis", 0], "--scheme per_channel, or --group-size N"),
])  # fmt: skip
@pytest.mark.parametrize("command", [["scales"], ["plot", "scales"], ["plot", "tensor"]])
def test_options_that_do_not_fit_are_refused_in_the_words_of_the_command(file, tmp_path, command, words, due):
    out = [tmp_path / "out.png"] * (len(command) - 1)
    found = asked(*command, file, *out, *words)
    assert due in str(found.exception)
    assert not (tmp_path / "out.png").exists()


def test_the_picture_says_what_the_table_says(file, tmp_path):
    found = asked("plot", "scales", file, tmp_path / "out.png", "--dtype", "nvfp4")
    assert found.exit_code == 0, found.output
    assert (tmp_path / "out.png").read_bytes()[:4] == b"\x89PNG"
    assert "The scale rules of nvfp4 on 768 values" in found.stdout
    rows = [line.split()[0] for line in found.stdout.splitlines() if line]
    assert rows.index("mse") < rows.index("nvidia") < rows.index("ceil")
    assert nx.draw.scales(X, "bfloat16").alt.startswith("The scale rules of bfloat16 on 768 values: floor ")


def test_what_is_quantized_already_was_to_be_dequantized_first(tmp_path):
    """`plot tensor --dtype` took the same tensor, and dequantized it by itself."""
    q = nx.quantize(X, "int8", scheme=nx.per_group(32))
    assert nx.scales(q, "mxfp4").rules == nx.scales(q.dequantize(), "mxfp4").rules
    nx.save({"w": q}, tmp_path / "q.safetensors")
    words = [tmp_path / "q.safetensors", "--dtype", "mxfp4"]
    said = asked("scales", *words).stdout
    assert "w in mxfp4, of its values as int8 per_group(32, axis=-1) stores them: " in said
    for kind in ("tensor", "scales", "formats"):
        said = asked("plot", kind, words[0], tmp_path / "out.png", *words[1:]).stdout
        assert said.endswith("its values are those that int8 per_group(32, axis=-1) stores\n"), kind
    assert "its values" not in asked("plot", "tensor", words[0], tmp_path / "out.png").stdout
    assert json.loads(asked("scales", *words, "--json").stdout)["stored"] == "int8 per_group(32, axis=-1)"


def test_of_a_format_with_one_scale_rule_it_is_said_that_there_is_no_other(file):
    said = asked("scales", file, "--dtype", "mx6").stdout
    assert said.endswith("x in mx6: floor is the one scale rule that it has\n")
