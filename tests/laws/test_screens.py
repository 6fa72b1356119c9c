"""Screens of 80 columns: no line is longer, every number whole on its line, all headings; and pipes."""

from __future__ import annotations

import io
import json
import math
import re
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

import numerics as nx
from bench import demo
from numerics import cli
from numerics.backends.cpu import warmup
from numerics.cli import doctor
from numerics.cli.words import format_of
from numerics.view.describe import facts, runs
from numerics.view.screen import Screen, say_error
from numerics.view.text import cells, figure, number, wrapped
from tests.helpers import terminal
from tests.helpers.terminal import NUMERICS, drawn

DTYPES = list(nx.dtypes())
ELEMENTS = [d for d in DTYPES if d.kind != "block"]
HOSTILE = [
    "a[/b]",
    "w[/]",
    "[red]x",
    "[bold",
    "x\x1b]0;owned\x07\x1b[2Jy",
    "\u202egnp",
    "a\nb",
    "tensör.重み",
]
NAME = "encoder.layer.{}.attention.self.query.weight"


class Terminal(io.StringIO):
    """stdout where somebody looks."""

    def isatty(self):
        return True


@pytest.fixture
def look(monkeypatch):
    """look(columns, words...): the lines that a command draws; columns None: on a pipe."""

    def look(columns, *words):
        stream = io.StringIO() if columns is None else Terminal()
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setenv("COLUMNS", str(columns or 20))
        monkeypatch.setenv("TERM", "xterm")
        cli.commands.main([str(word) for word in words], standalone_mode=False)
        lines = [drawn(line) for line in stream.getvalue().splitlines()]
        if columns is not None:
            assert max(map(cells, lines)) <= columns
        return lines

    return look


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Twelve weights of long names, biases, and a large one."""
    path, rng = tmp_path_factory.mktemp("model") / "model.safetensors", np.random.default_rng(0)
    tensors = {NAME.format(i): rng.standard_normal((96, 96)).astype(np.float32) for i in range(12)}
    tensors |= {NAME.format(i).replace("weight", "bias"): np.ones(96, np.float32) for i in range(12)}
    tensors["embeddings.weight"] = rng.standard_normal((30522, 32)).astype(np.float32)
    save_file(tensors, path)
    return path


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "model.safetensors"
    save_file({name: np.full((8, 32), k + 0.3, np.float32) for k, name in enumerate(HOSTILE)}, path)
    return path


# ---- formats and show ---------------------------------------------------------------------------


def numbers_of(d):
    said = facts(d)
    return [number(said[name]) for name in ("bits", "max", "smallest_subnormal")]


@pytest.mark.parametrize("columns", [80, 110, 200])
def test_formats_are_a_line_each_with_whole_numbers(look, columns):
    headings, _, *lines = look(columns, "formats")
    shown = ["format", "kind", "bits", "max", "smallest"][: 4 + (columns > 80)]
    assert headings.split()[: len(shown)] == shown
    lines = [line for line in lines if not line.startswith("left out: ")]
    due = [[d.name, d.kind, *numbers_of(d)][: len(shown)] for d in DTYPES]
    assert [line.split()[: len(shown)] for line in lines] == due
    assert ("source" in headings) == (columns == 200)
    assert "also called" in headings
    assert all(d.aliases[0] in line for d, line in zip(DTYPES, lines, strict=True) if d.aliases)


def test_a_book_of_values_is_counted_and_whole_where_that_is_asked(look):
    """The facts of hifloat8 were fifty lines, and its codes stand below them."""
    for width in (80, None):
        assert any(line.split()[:3] == ["book", "256", "values,"] for line in look(width, "show", "hifloat8"))
    for width in (80, None):
        assert not any("256 values" in line for line in look(width, "show", "hifloat8", "--all"))


def test_the_reading_of_a_block_is_said(look):
    for dtype, read in (("if4", ", read as counts"), ("nvfp4", "")):
        assert look(80, "encode", dtype, 7, 6, 5, 4, 1)[1].endswith(read or "448")
    assert look(80, "encode", "if4", 6, 3, 1.5, 1)[1].endswith(", read as floats")


def test_a_format_of_p3109_is_a_fact_of_another_by_its_name():
    due = nx.block_format(element=nx.p3109(6, 3), scale="e8m0", block=16)
    assert format_of('{"block": 16, "element": "binary6p3se"}') is due
    assert format_of('{"block": 16, "element": {"p3109": [6, 3]}}') is due
    assert format_of('{"p3109": {"bits": 8, "precision": 3, "signed": false}}') is nx.p3109(
        8, 3, signed=False
    )
    for wrong, said in (("[8]", "[bits, precision]"), ("[99, 3]", "outside 3"), ('{"bit": 8}', "'bits'")):
        with pytest.raises(nx.NumericsError, match=re.escape(said)):
            format_of(f'{{"p3109": {wrong}}}')


def test_a_format_of_p3109_is_shown_by_its_name_and_by_its_call(look):
    assert look(80, "show", "Binary8p3se") == look(80, "show", "p3109(8, 3)")


def test_formats_on_a_pipe_have_every_field(look):
    headings, *lines = look(None, "formats")
    assert re.split(" {2,}", headings) == [
        "format",
        "kind",
        "bits",
        "max",
        "smallest",
        "also called",
        "source",
    ]
    for d, line in zip(DTYPES, lines, strict=True):
        aliases = ", ".join(d.aliases[:2]) or "-"
        assert re.split(" {2,}", line) == [d.name, d.kind, *numbers_of(d), aliases, d.source]


@pytest.mark.parametrize("columns", [80, None])
@pytest.mark.parametrize("d", DTYPES, ids=str)
def test_show_has_every_fact_and_every_code_exact(look, d, columns):
    lines = look(columns, "show", d.name)
    words = " ".join(lines).split()
    assert {*numbers_of(d), number(d.min)} <= set(words)
    assert all(alias in " ".join(words) for alias in d.aliases)
    if d.kind == "block":
        return
    rows = [line.split() for line in lines if line.startswith("0x")]
    if d.bits <= 8:
        assert [value for row in rows for value in row[1:]] == [number(value) for value in d.values()]
        assert [int(row[0], 16) for row in rows] == list(range(0, 1 << d.bits, len(rows[0]) - 1))
        return
    dues = [(f"0x{run.first:04x}", run.kind, number(run.begins)) for run in runs(d)]
    assert [(row[0].split("-")[0], *row[1:3]) for row in rows] == dues


@pytest.mark.parametrize("d", [d for d in ELEMENTS if d.bits > 8], ids=str)
def test_runs_of_codes_hold_every_code_once_and_lead_where_they_say(d):
    values, found = d.values(), runs(d)
    assert [code for run in found for code in (run.first, run.last + 1)][1:-1:2] == [
        run.first for run in found[1:]
    ]
    assert (found[0].first, found[-1].last) == (0, len(values) - 1)
    for run in found:
        inside = values[run.first : run.last + 1]
        assert {repr(run.begins), repr(run.ends)} == {repr(inside[0]), repr(inside[-1])}
        assert all(math.isnan(v) for v in inside) if run.kind == "nan" else len({v < 0 for v in inside}) == 1


# ---- encode -------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [80, 40, None])
@pytest.mark.parametrize("d", DTYPES, ids=str)
def test_encode_shows_whole_numbers(look, d, columns):
    x = ["0.3", "-1.0625", "1.7976931348623157e+308", "5e-324", "448"]
    words = " ".join(look(columns, "encode", d.name, *x)).split()
    assert set(x) <= set(words)
    assert {number(value) for value in d.round([float(text) for text in x])} <= set(words)
    bits = json.loads("\n".join(look(None, "encode", d.name, "--json", *x)))
    first = bits[0] if d.kind != "block" else bits["blocks"][0]["elements"][0]
    assert " ".join(first["bits"].values()) in " ".join(words)


# ---- quantize -----------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200, None])
def test_quantize_reports_a_line_a_tensor(look, model, tmp_path, columns):
    lines = look(columns, "quantize", model, tmp_path / "out", "--dtype", "mxfp4")
    said = json.loads(
        "\n".join(look(None, "quantize", model, tmp_path / "out", "--dtype", "mxfp4", "--json"))
    )
    tensors, total = said["tensors"], said["total"]
    start = 1 if columns is None else 2
    rows = [line.split() for line in lines[start : start + 13]]
    assert columns == 40 or len({row[0] for row in rows}) == 13
    quantized = [tensor for tensor in tensors if tensor["dtype"]]
    assert len(rows) == len(quantized) == 13
    for tensor, row in zip(sorted(quantized, key=lambda t: t["sqnr"]), rows, strict=True):
        size = tensor["bytes_after"]
        assert all(part in tensor["name"] for part in row[0].split("…"))
        assert {"4.25", f"{tensor['sqnr']:.2f}", f"{size}" if columns is None else f"{size:,}"} <= set(row)
    table = lines[: next(k for k, line in enumerate(lines) if line.startswith("all "))]
    assert not any("bias" in line for line in table)
    size = f"{total['bytes_after']:d}" if columns is None else f"{total['bytes_after']:,d}"
    assert [line for line in lines if line.startswith("all ") and line.endswith(size)]
    assert [line for line in lines if line.startswith("12 copied ")]
    assert [line for line in lines if line.startswith("13 quantized") and "4.25" in line.split()]
    worst = min(tensor["sqnr"] for tensor in tensors if tensor["dtype"])
    assert [line for line in lines if line.startswith(f"worst: {worst:.2f} dB, ")]
    headings = lines[0].split("  ")
    assert {"tensor", "bits", "SQNR dB", "after"} <= {heading.strip() for heading in headings}


@pytest.mark.parametrize(
    ("columns", "lost"), [(80, "smallest, source"), (110, "source"), (250, None), (None, None)]
)
def test_a_list_of_formats_says_which_columns_are_left_out(look, columns, lost):
    said = [line for line in look(columns, "formats") if line.startswith("left out")]
    shows = f"a wider terminal or --json shows {'them' if lost and ',' in lost else 'it'}"
    assert said == [f"left out: {lost}; {shows}"] * (lost is not None)


def test_a_report_says_which_columns_are_left_out(look, model, tmp_path):
    said = " ".join(look(60, "quantize", model, tmp_path / "out", "--dtype", "mxfp4"))
    assert "left out: shape, max error, before; a wider terminal or --json shows them" in said


@pytest.mark.parametrize("columns", [40, 80, 120, None])
def test_quantize_says_which_values_were_nan_or_inf(look, tmp_path, columns):
    path, some = tmp_path / "holes.safetensors", np.ones((4, 64), np.float32)
    some[0, :3] = np.nan, np.inf, -np.inf
    save_file({"some": some, "none": some * np.nan, "whole": np.ones((4, 64), np.float32)}, path)
    lines = look(columns, "quantize", path, tmp_path / "out", "--dtype", "int4")
    said = json.loads("\n".join(look(None, "quantize", path, tmp_path / "out", "--dtype", "int4", "--json")))
    counts = {tensor["name"]: tensor["non_finite"] for tensor in said["tensors"]}
    assert counts == {"some": 3, "none": 256, "whole": 0}
    assert (said["total"]["non_finite"], said["total"]["sqnr"]) == (259, "nan")
    assert {tensor["name"]: tensor["sqnr"] for tensor in said["tensors"]}["none"] == "nan"
    assert "259 NaN or Inf, in no SQNR or error: none, some" in " ".join(lines)
    row = next(line.split() for line in lines if line.startswith("none"))
    assert "-" in row
    assert not {"nan", "inf"} & set(row)
    if columns is None or columns > 80:
        assert "NaN/Inf" in lines[0]
        assert "256" in row
    assert [line for line in lines if line == "worst: 256 NaN or Inf, none"]
    names = [line.split()[0] for line in lines if line.startswith(("none ", "some ", "whole "))]
    assert names == ["none", "some", "whole"]  # what became 0 stood last, as if nothing were to say of it


@pytest.mark.parametrize("columns", [40, 80, 120, None])
def test_quantize_did_not_say_how_many_finite_values_became_nan(look, tmp_path, columns):
    path, holes = tmp_path / "holes.safetensors", np.ones((4, 64), np.float32)
    holes[1, 7], holes[2, 40] = np.nan, np.inf
    lines = {"holes": holes, "odd": np.where(np.arange(64) < 32, np.nan, holes[:1]), "whole": holes[:1]}
    save_file(lines, path)
    lines = look(columns, "quantize", path, tmp_path / "out", "--dtype", "mxfp4")
    said = " ".join(lines)
    assert "62 finite values became NaN or Inf, which leaves no SQNR and error: holes" in said
    assert "34 NaN or Inf, in no SQNR or error: holes, odd" in said
    assert [line for line in lines if line == "worst: 62 made NaN or Inf, holes"]
    assert "nan" not in said.split()
    names = [line.split()[0] for line in lines if line.startswith(("holes ", "odd ", "whole "))]
    assert names == ["holes", "odd", "whole"]
    found = json.loads("\n".join(look(None, "quantize", path, tmp_path / "o", "--dtype", "mxfp4", "--json")))
    assert {tensor["name"]: tensor["lost"] for tensor in found["tensors"]} == {
        "holes": 62,
        "odd": 0,
        "whole": 0,
    }
    assert found["total"]["lost"] == 62


@pytest.mark.parametrize("errors", ["all", "none"])
def test_the_sums_of_what_was_not_measured_were_exact(look, tmp_path, errors):
    path = tmp_path / "x.safetensors"
    save_file({"w": np.ones((4 * (errors == "none"), 64), np.float32)}, path)
    lines = look(None, "quantize", path, tmp_path / "out", "--dtype", "mxfp4", "--errors", errors)
    assert next(line.split() for line in lines if line.startswith("1 quantized"))[4:6] == ["-", "-"]


def test_quantize_on_a_pipe_has_full_names_and_every_field(look, model, tmp_path):
    lines = look(None, "quantize", model, tmp_path / "out", "--dtype", "mx6")
    end = next(k for k, line in enumerate(lines) if line.startswith("all "))
    table = [re.split(" {2,}", line) for line in lines[: end + 1]]
    assert {len(row) for row in table} == {7}  # no column of NaN and Inf, where there are none
    assert [line for line in lines[end:] if line.startswith("copied, fewer than two dimensions: ")]
    assert {NAME.format(i) for i in range(12)} <= {row[0] for row in table}
    assert all(row[-1].isdecimal() for row in table[1:])


def test_quantize_says_why_tensors_were_copied(look):
    from numerics.cli.files import say_report
    from numerics.files.checkpoint import FileReport, TensorReport

    report = FileReport(
        [TensorReport(f"b{i}", (3,), None, 32.0, None, None, 12, 12, why="one dimension") for i in range(5)]
    )
    report.tensors.append(TensorReport("w", (4, 4), "mx6", 6.0, 20.0, 0.5, 64, 12, axis=0))
    some, names = " and 2 more along", ", b3, b4 along"
    for screen, every, more in [
        (Screen(40), False, some),
        (Screen(40), True, names),
        (Screen(None), False, names),
    ]:
        stream = sys.stdout = io.StringIO() if screen.width is None else Terminal()
        try:
            say_report(report, every)
        finally:
            sys.stdout = sys.__stdout__
        words = " ".join(stream.getvalue().split())
        assert f"copied, one dimension: b0, b1, b2{more}" in words
        assert "along axis 0: w" in words


def test_a_terminal_gets_the_tensors_that_lost_most_and_the_rest_when_asked(look, tmp_path):
    path, rng = tmp_path / "many.safetensors", np.random.default_rng(0)
    shapes = {f"model.layers.{i}.mlp.down_proj.weight": (8, 64) for i in range(30)}
    save_file({name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}, path)
    words = ("quantize", path, tmp_path / "out", "--dtype", "mxfp4")
    few, every, piped = look(80, *words), look(80, *words, "--all"), look(None, *words)
    counts = [sum("proj.weight " in line for line in lines) for lines in (few, every, piped)]
    assert counts == [20, 30, 30]
    assert "and 10 more that lost less; --all shows them" in few
    assert not any("--all" in line for line in (*every, *piped))
    lost = [float(line.split()[3]) for line in piped[1:31]]
    assert lost == sorted(lost)
    assert lost[0] < lost[-1]


@pytest.mark.parametrize("columns", [80, 120])
def test_a_plan_of_shards_fits_the_terminal(look, tmp_path, columns):
    folder = tmp_path / "shards"
    folder.mkdir()
    weights = {f"model.layers.{i}.self_attn.q_proj.weight": np.ones((128, 256), np.float32) for i in range(3)}
    save_file(weights | {"norm.weight": np.ones(256, np.float32)}, folder / "model.safetensors")
    lines = look(columns, "quantize", folder, tmp_path / "out", "--dtype", "int4", "--group-size", "128")
    text = "\n".join(lines)
    assert "int4 per_group(128) " in text
    assert "the format of all" in text
    assert text.count("model.layers.{0-2}.self_attn.q_proj.weight") == 1
    assert "left out: kind" not in text  # the reasons are numbers at 80 columns, so that there is room
    assert ("reason 1: the format of all" in text) == (columns == 80)


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_names_that_differ_differ_on_the_screen_where_columns_can_be_spared(look, tmp_path, columns):
    x = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    path, shared = tmp_path / "q.safetensors", {"scheme": nx.per_group(32), "scale_type": "float16"}
    q = nx.quantize(x, "int8", **shared)
    nx.save({f"blk.{i}.attn_{part}.weight": q for i in (0, 11) for part in "qkv"}, path)
    lines = look(columns, "inspect", path)
    names = [line.split("  ")[0] for line in lines if line.startswith("blk") and "weight:" not in line]
    assert len(set(names)) == len(names) == 6
    assert any("int8 per_group(32) scale_type=float16" in line for line in lines)


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200, None])
def test_where_two_files_differ_first_is_on_every_screen(look, tmp_path, columns):
    x = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    names = [f"model.layers.{i}.self_attn.q_proj.weight" for i in (0, 11)]
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    nx.save({name: x + i for i, name in enumerate(names)} | {"odd": x, "long": x}, one)
    packed = {name: nx.quantize(x + i, "int4", scheme=nx.per_group(32)) for i, name in enumerate(names)}
    nx.save(packed | {"odd": x[:3], "long": x}, other)
    lines = look(columns, "compare", one, other)
    text = " ".join(" ".join(lines).split())
    values = [nx.load(path)[name] for path in (one, other) for name in names]
    assert text.count("[0, 0]:") == 2
    for k in range(2):
        left, right = values[k][0, 0], values[2 + k].dequantize()[0, 0]
        assert f"[0, 0]: {str(left).removesuffix('.0')}, {str(right).removesuffix('.0')}" in text
    assert "shapes (64, 256) and (3, 256)" in text
    assert "first place" in text
    assert not any("left out" in line and "first place" in line for line in lines)


@pytest.mark.parametrize("more", [(), ("--all",)])
def test_first_places_that_have_no_column_are_some_lines_and_all_where_all_are_asked(look, tmp_path, more):
    """Twenty tensors had twenty lines below their table."""
    x = np.random.default_rng(0).standard_normal((24, 8, 64)).astype(np.float32)
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    nx.save({f"model.layers.{i}.self_attn.q_proj.weight": x[i] for i in range(24)}, one)
    look(None, "quantize", one, other, "--dtype", "mxfp4")
    lines = look(80, "compare", one, other, *more)
    assert "first place in each, of the first and the second:" in lines
    assert sum("[0, 0]: " in line for line in lines) == (24 if more else 3)
    assert ("and in 17 more; --all shows them" in lines) is not bool(more)


@pytest.mark.parametrize("columns", [80, 200, None])
def test_all_of_inspect_is_every_name_of_what_is_odd(look, tmp_path, columns):
    path = tmp_path / "zeros.safetensors"
    nx.save({f"layers.{i}.w": np.zeros((2, 64), np.float32) for i in range(6)}, path)
    few, every = look(columns, "inspect", path), look(columns, "inspect", path, "--all")
    some, whole = (
        " ".join(
            " ".join(part[next(k for k, line in enumerate(part) if line.startswith("6 tensors")) :]).split()
        )
        for part in (few, every)
    )
    for i in range(6):
        assert f"layers.{i}.w" in whole
        assert (f"layers.{i}.w" in some) is (columns is None or i < 3)
    assert ("and 3 more" in some) is (columns is not None)
    assert "more" not in whole


@pytest.mark.parametrize("columns", [80, None])
def test_no_name_of_a_tensor_drives_the_terminal(look, hostile, tmp_path, columns):
    lines = look(columns, "quantize", hostile, tmp_path / "out", "--dtype", "int4")
    assert all(line.isprintable() for line in lines)
    text = "\n".join(lines)
    for shown in ("a[/b]", "w[/]", "[red]x", "[bold", "\\x1b]0;owned", "\\u202egnp", "a\\nb", "tensör.重み"):
        assert shown in text


def test_json_holds_nothing_that_a_terminal_would_obey(look, tmp_path):
    save_file({name: np.ones((2, 32), np.float32) for name in (*HOSTILE, "\x7f\x9b")}, tmp_path / "model")
    text = "\n".join(look(None, "quantize", tmp_path / "model", tmp_path / "out", "--dtype", "mx6", "--json"))
    assert {tensor["name"] for tensor in json.loads(text)["tensors"]} == {*HOSTILE, "\x7f\x9b"}
    assert text.replace("\n", "").isprintable()
    assert text.isascii()


# ---- doctor, help, demo -------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [80, None])
def test_doctor_keeps_the_extra_in_brackets(look, monkeypatch, columns):
    advice = "backend 'gpu' needs triton, which is not installed: pip install 'numerics-formats[gpu]'"
    monkeypatch.setattr(doctor, "_state", lambda name: advice)
    lines = look(columns, "doctor")
    assert "pip install 'numerics-formats[gpu]'" in " ".join(" ".join(lines).split())
    if columns is None:
        assert [line for line in lines if line.startswith("backends.gpu ") and line.endswith(advice)]


def every_command():
    for name, command in cli.commands.commands.items():
        yield (name,)
        yield from ((name, inner) for inner in getattr(command, "commands", ()))


@pytest.mark.parametrize("words", [(), *every_command()], ids=" ".join)
def test_help_stands_without_docstrings_and_is_not_cut(look, words):
    """Under `python -OO` there are none: what click prints comes from `help=`."""
    command = cli.commands
    for word in words:
        command = command.commands[word]
    callback, command.callback.__doc__ = command.callback.__doc__, None
    try:
        text = command.get_help(command.make_context("numerics", [], resilient_parsing=True))
    finally:
        command.callback.__doc__ = callback
    assert command.help
    assert command.help.split()[0] in text
    assert "Examples:" in text
    assert "..." not in text.partition("Commands:")[2], "no sentence is cut"
    assert all(len(line) <= 80 for line in text.splitlines())


HEADINGS_OF_THE_DEMO = ["format", "bits", "MB", "ratio", "SQNR dB", "worst", "same", "seconds"]


def test_the_demo_fits_with_all_its_headings():
    from numerics.files.checkpoint import FileReport, TensorReport

    tensors = [TensorReport("w", (30522, 384), "int4", 4.25, 17.5, 0.1, 46_881_792, 6_226_488)]
    labels = [f"{name} {options.get('scheme', '')}".rstrip() for name, options in demo.DTYPES.items()]
    results = [demo.Result("all-MiniLM-L6-v2", label, FileReport(tensors), 12.5, 100) for label in labels]
    lines = demo.table(results).lines(Screen(80))
    assert max(map(cells, lines)) <= 80
    assert re.split(" {2,}", lines[0]) == HEADINGS_OF_THE_DEMO
    assert "int4 per_group(128, axis=1)" in lines[-1]
    assert len(lines) == 2 + 1 + len(demo.DTYPES)


# ---- on a real terminal -------------------------------------------------------------------------


def test_names_in_brackets_do_not_end_quantize_on_a_terminal(hostile, tmp_path):
    ended = terminal.run([*NUMERICS, "quantize", hostile, tmp_path / "out", "--dtype", "int4"])
    assert ended.code == 0, ended.text
    assert "\x1b]0;owned" not in ended.text
    assert "\u202e" not in ended.text
    assert "8 quantized" in ended.text
    assert (tmp_path / "out").exists()
    assert max(map(cells, ended.lines)) <= 80


def test_a_terminal_of_80_columns_gets_80(model, tmp_path):
    ended = terminal.run([*NUMERICS, "quantize", model, tmp_path / "out", "--dtype", "mxfp4"], columns=80)
    assert (ended.code, max(map(cells, ended.lines))) == (0, 80)
    assert "…" in ended.text
    wide = terminal.run([*NUMERICS, "formats"], columns=200)
    assert "OCP OFP8 1.0 §5" in wide.text


SHOWN = """
import fcntl, struct, termios
from numerics import cli
for columns in {widths}:
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    print("width", columns)
    for words in {words}:
        cli.commands.main(words, standalone_mode=False)
"""


def test_a_real_terminal_of_any_width_gets_no_line_that_folds(tmp_path):
    x = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    save_file({NAME.format(i): x for i in range(3)}, tmp_path / "m.safetensors")
    model, out = str(tmp_path / "m.safetensors"), str(tmp_path / "q.safetensors")
    words = [
        ["formats"], ["show", "mx6"], ["show", "fp8_e4m3"], ["encode", "fp8_e4m3", "0.3", "inf", "1e-9"],
        ["encode", "mxfp4", "1", "0.3"], ["doctor"], ["quantize", model, out, "--dtype", "int4"],
        ["inspect", out], ["quantize", model, out, "--dtype", "mxfp4", "--dry-run"],
    ]  # fmt: skip
    script = SHOWN.format(widths=(80, 120, 200), words=words)
    ended = terminal.run([sys.executable, "-c", script], columns=80, timeout=120)
    assert ended.code == 0, ended.text
    screens = "\n".join(ended.lines).split("width ")[1:]
    for screen, columns in zip(screens, (80, 120, 200), strict=True):
        lines = screen.split("\n")
        assert max(map(cells, lines)) <= columns
        assert any("0.012500000000000011" in line for line in lines)
        assert columns == 80 or any(line.startswith(NAME.format(1)) for line in lines)


def test_every_name_of_a_plan_is_to_be_found(look, tmp_path):
    """A row of braces named four tensors and counted the others, on a pipe and with --all too."""
    names = [NAME.format(i) for i in range(3)] + [
        f"{word}_of_many" for word in ("a", "b", "c", "d", "e", "f")
    ]
    save_file(
        {name: np.ones((4, 32 + 32 * ("of" in name)), np.float32) for name in names},
        tmp_path / "m.safetensors",
    )
    words = (
        "quantize",
        tmp_path / "m.safetensors",
        tmp_path / "q.safetensors",
        "--dtype",
        "mxfp4",
        "--dry-run",
    )
    assert [line.split()[2] for line in look(None, *words)[1:-1]] == sorted(names)
    folded = look(80, *words)
    assert "in full: encoder.layer.{0-2}.attention.self.query.weight" in folded
    assert "+N: so many more names, which --all shows" in folded
    every = " ".join(look(80, *words, "--all"))
    assert all(name in every for name in names)


def test_warmup_shows_how_far_it_is(look, monkeypatch):
    monkeypatch.setattr(warmup, "warm_up", lambda: iter(["encode_float32", "decode_uint8"]))
    monkeypatch.setattr(sys, "stderr", seen := Terminal())
    lines = look(80, "warmup")
    assert "\rcompiling  0" in seen.getvalue()
    assert "".join(lines).startswith("2 kernels in ")


def test_two_files_are_compared_worst_first_and_the_rest_when_asked(look, tmp_path):
    path, rng = tmp_path / "other.safetensors", np.random.default_rng(1)
    tensors = {f"layers.{i}.weight": rng.standard_normal((8, 64)).astype(np.float32) for i in range(30)}
    save_file(tensors, tmp_path / "one.safetensors")
    save_file({name: x * (1 + 2.0 ** -(k % 7 + 2)) for k, (name, x) in enumerate(tensors.items())}, path)
    words = ("compare", tmp_path / "one.safetensors", path)
    few, every, piped = look(80, *words), look(80, *words, "--all"), look(None, *words)
    tables = [[line for line in lines if "float32  float32" in line] for lines in (few, every, piped)]
    assert list(map(len, tables)) == [20, 30, 30]
    assert "and 10 more that lost less; --all shows them" in few
    assert [sum("[0, 0]: " in line for line in lines) for lines in (few, every)] == [3, 30]
    left = [float(re.split(" {2,}", line)[6]) for line in tables[2]]
    assert left == sorted(left)
    assert left[0] < left[-1]


@pytest.mark.parametrize("columns", [40, 60, 80, None])
def test_a_verdict_ends_a_line_between_words_and_keeps_numbers_beside_their_units(look, monkeypatch, columns):
    stopped: list[int] = []
    monkeypatch.setattr(sys, "exit", stopped.append)
    lines = look(columns, "conform", "numerics:fp8_e4m3.encode", "--dtype", "fp8_e4m3", "--here")
    assert stopped == [0]
    text = " ".join(line.strip() for line in lines)
    assert "fp8_e4m3 encode, half_even, saturate" in text
    assert not any(line.endswith("-") for line in lines)
    assert wrapped("48 of 97 become 0.658 MB", 23) == ["48 of 97 become", "0.658 MB"]
    assert wrapped("  input 0x01 came 3 due 4", 14) == ["  input 0x01", "  came 3 due 4"]


def test_a_column_that_says_nothing_gives_way_to_names(look, tmp_path):
    """Of floats beside a format no codes are compared: dashes took the room that the names lacked."""
    x = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    name = "encoder.layer.0.attention.output.dense.weight"
    save_file({name: x}, tmp_path / "one.safetensors")
    nx.save({name: nx.quantize(x, "mxfp4")}, tmp_path / "other.safetensors")
    words = ("compare", tmp_path / "one.safetensors", tmp_path / "other.safetensors")
    lines = look(120, *words)
    assert lines[0].split()[:3] == ["tensor", "first", "second"]
    assert "codes differ" not in lines[0]
    assert not any(line.startswith("left out") for line in lines)
    assert lines[2].startswith(name)
    assert "codes differ" in look(None, *words)[0]
    assert "codes differ" in look(160, *words)[0]


def test_names_that_are_cut_are_told(look, tmp_path):
    names = [f"model.layers.{k}.block_sparse_moe.experts.gate_up_projection.weight" for k in range(3)]
    save_file({name: np.ones((2, 32), np.float32) for name in names}, tmp_path / "long.safetensors")
    told = "names are cut; a wider terminal or --json shows them whole"
    assert told in look(80, "inspect", tmp_path / "long.safetensors")
    assert told not in look(200, "inspect", tmp_path / "long.safetensors")
    assert told not in look(None, "inspect", tmp_path / "long.safetensors")


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_scales_are_said_at_every_width(look, tmp_path, width):
    """80 columns had no room for them: they were left out, and who looked learned nothing of them."""
    x = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    q = {"int4": nx.quantize(x, "int4", scheme="per_group(32)"), "mxfp4": nx.quantize(x, "mxfp4")}
    name = "model.layers.{}.self_attention.{}.weight"
    nx.save({name.format(i, d): one for i in range(2) for d, one in q.items()}, tmp_path / "m.safetensors")
    said = "\n".join(look(width, "inspect", tmp_path / "m.safetensors"))
    scales = np.asarray(q["int4"].scale)
    shown = [f"{figure(scales.min(), n)} .. {figure(scales.max(), n)}" for n in (3, 6)]
    assert any(one in said for one in shown)
    if "left out: " in said:
        assert "scales of mxfp4: " in said
        assert "in 2 tensors" in " ".join(said.split())


def test_compared_formats_that_are_long_are_numbers(look, tmp_path):
    """At 80 columns each tensor took eight lines, a field each, for the length of a format's name."""
    x = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    asymmetric = {"scheme": "per_group(32)", "symmetric": False, "scale_type": "bfloat16"}
    for file, options in (("a", {"scheme": "per_group(32)"}), ("b", asymmetric)):
        quantized = {f"model.layers.{i}.self_attn.q_proj.weight": nx.quantize(x, "int4", **options)
                     for i in range(3)}  # fmt: skip
        nx.save({**quantized, "same.weight": nx.quantize(x, "int4", **asymmetric)},
                tmp_path / f"{file}.safetensors")  # fmt: skip
    said = look(80, "compare", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert said[0].split()[:3] == ["tensor", "first", "second"]
    assert [line.split()[1:3] for line in said[2:5]] == [["1", "2"]] * 3
    assert "format 1: int4 per_group(32)" in said
    assert "format 2: int4 per_group(32) symmetric=False scale_type=bfloat16" in said


@pytest.mark.parametrize("d", [d for d in ELEMENTS if d.bits <= 8], ids=str)
def test_a_grid_of_codes_on_a_pipe_has_lines_that_are_read(look, d):
    """Sixteen codes of hifloat8 were a line of 317 letters, where nobody said how wide one may be."""
    lines = look(None, "show", d.name)
    grid = lines[lines.index("") + 1 :]
    assert max(map(len, grid)) <= 80
    assert grid[0].split()[:2] == ["code", "+0"]


@pytest.mark.parametrize("columns", [40, 80, None])
def test_an_error_on_a_terminal_ends_lines_between_words_and_is_one_line_on_a_pipe(monkeypatch, columns):
    """Terminals broke an error in the middle of a word; a path is left whole, so that it can be copied."""
    path = "/data/" + "a-folder-of-a-long-name/" * 4 + "model.safetensors"
    said = f"cannot read {path}: it was changed while it was read; begin again, and let nobody write to it"
    stream = io.StringIO() if columns is None else Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", str(columns or 20))
    say_error(said)
    lines = stream.getvalue().splitlines()
    assert " ".join(stream.getvalue().split()) == f"numerics: {said}"
    if columns is None:
        assert len(lines) == 1
        return
    assert all(len(line) <= columns or line.strip() == f"{path}:" for line in lines)
    assert all(line.startswith("  ") for line in lines[1:])
    assert len(lines) > 2
