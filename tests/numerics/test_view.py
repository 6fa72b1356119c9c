"""What is drawn: harmless text, whole numbers, names cut in the middle, at every width and encoding."""

from __future__ import annotations

import io
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import numerics as nx
from numerics.view import screen as screens
from numerics.view.bar import Bar, bar
from numerics.view.describe import encoded
from numerics.view.screen import Screen, Undelivered
from numerics.view.table import Column, Table, name_column, records, text_column
from numerics.view.text import apart, cells, fitted, number, printable, shortened, wrapped

ANY = st.text(st.characters(exclude_categories=()), max_size=40)
PRINTED = ANY.map(printable)
NUMBERS = st.floats(allow_nan=False).map(number)
ENCODINGS = ("ascii", "cp437", "cp1252", "latin-1", "utf-8", "shift_jis")


class Terminal(io.StringIO):
    """A stream where somebody looks."""

    def isatty(self):
        return True


@given(ANY)
def test_no_text_can_drive_a_terminal(text):
    shown = printable(text)
    assert shown.isprintable()
    assert "\x1b" not in shown
    assert printable(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x\x1b]0;owned\x07", "x\\x1b]0;owned\\x07"),
        ("\u202egnp", "\\u202egnp"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x9b2J", "\\x9b2J"),
        ("n\udcff.st", "n\\xff.st"),
        ("\ud800", "\\ud800"),
        ("[bold]w[/]", "[bold]w[/]"),
        ("tensör.重み", "tensör.重み"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_instead(text, shown):
    assert printable(text) == shown


@given(ANY, st.sampled_from(ENCODINGS))
def test_every_encoding_can_write_what_was_fitted_to_it(text, encoding):
    shown = fitted(text, encoding)
    assert shown.encode(encoding).decode(encoding) == shown
    assert not any(letter < " " for letter in shown)


def test_our_own_signs_are_spelled_where_an_encoding_lacks_them():
    assert fitted("OFP8 1.0 §5 … ─", "ascii") == "OFP8 1.0 sec. 5 ... -"
    assert fitted("OFP8 1.0 §5", "cp1252") == "OFP8 1.0 §5"


@given(st.floats())
def test_numbers_read_back_as_they_were(value):
    back = float(number(value))
    assert back == value or math.isnan(value)
    assert math.copysign(1, back) == math.copysign(1, value) or math.isnan(value)


@given(PRINTED, st.integers(0, 60), st.sampled_from(["…", "..."]))
def test_a_short_name_keeps_both_ends(text, room, gap):
    cut = shortened(text, room, gap)
    assert cells(cut) <= max(room, 0) or cut == text
    if cut == text:
        return
    if room >= cells(gap):
        head, _, tail = cut.partition(gap) if gap not in text else ("", "", "")
        assert text.startswith(head)
        assert text.endswith(tail)


@given(PRINTED, st.integers(2, 40))
def test_wrapped_lines_fit_and_lose_nothing(text, room):
    lines = wrapped(text, room)
    assert all(cells(line) <= room for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


TABLES = st.lists(st.tuples(PRINTED, NUMBERS, NUMBERS, PRINTED), max_size=6)


def table_of(rows):
    table = Table(
        [name_column("tensor"), Column("max"), Column("smallest", spare=1), text_column("source", spare=2)]
    )
    for row in rows:
        table.add(*row)
    return table


@given(TABLES, st.integers(45, 200))
def test_a_table_fits_and_its_numbers_stay_whole(rows, width):
    lines = table_of(rows).lines(Screen(width))
    assert len(lines) == len(rows) + 2, "one line a row"
    assert all(cells(line) <= width for line in lines)
    headings = lines[0].split()
    assert headings[:2] == ["tensor", "max"]
    for row, line in zip(rows, lines[2:], strict=True):
        kept = row[1 : 1 + len(set(headings) & {"max", "smallest"})]
        assert all(f" {value} " in f" {line} " for value in kept)


@given(TABLES)
def test_where_nobody_looks_nothing_is_cut_and_every_row_has_every_field(rows):
    lines = table_of(rows).lines(Screen(None))
    assert len(lines) == len(rows) + 1
    for row, line in zip(rows, lines[1:], strict=True):
        assert all(text.strip() in line for text in row)


LAYERS = [f"model.layers.{k}.self_attn.{x}_proj.weight" for k in (0, 17) for x in "qkvo"]


def test_names_that_begin_and_end_alike_all_became_the_same_in_a_narrow_table():
    table = Table([text_column("kind"), name_column("tensor", least=24), Column("values differ")])
    for name in LAYERS:
        table.add("parameter", name, "65536")
    lines = table.lines(Screen(50))
    assert len({line.split()[1] for line in lines[2:]}) == len(LAYERS)
    assert lines[2].split()[1] == "…0.self_attn.q_proj…"


@given(st.lists(PRINTED, max_size=8), st.integers(3, 40))
def test_names_that_are_kept_apart_fit_and_those_that_fit_stay_whole(names, room):
    found = apart(names, room)
    assert found.keys() == set(names)
    assert all(cells(short) <= room for short in found.values())
    assert all(short == name for name, short in found.items() if cells(name) <= room)


def test_the_first_column_to_go_is_the_one_that_can_be_spared_most():
    table = table_of([("w" * 40, "448", "0.001953125", "OCP OFP8 1.0 §5")])
    headings = [table.lines(Screen(width))[0].split() for width in (90, 45, 22)]
    assert headings == [
        ["tensor", "max", "smallest", "source"],
        ["tensor", "max", "smallest"],
        ["tensor", "max"],
    ]
    assert table.lines(Screen(45))[2].startswith("wwwwww")
    assert "…" in table.lines(Screen(45))[2]


def test_numbers_too_wide_for_any_table_stand_one_below_another():
    table = Table([Column("x"), Column("value"), Column("error")])
    row = ("-1.7976931348623157e+308", "-5.877471754111438e-39", "1.7976931348623157e+308")
    table.add(*row)
    lines = table.lines(Screen(40))
    assert [line.split() for line in lines] == [
        [name, text] for name, text in zip(("x", "value", "error"), row, strict=True)
    ]


def test_colours_take_no_room_and_stand_only_where_they_are_wanted():
    table = Table([text_column("bits", paint=lambda cell: f"\x1b[31m{cell}\x1b[0m"), Column("value")])
    table.add("0101", "5")
    assert table.lines(Screen(80, colour=True))[2] == "\x1b[31m0101\x1b[0m      5"
    assert table.lines(Screen(80))[2] == "0101      5"


def test_records_go_on_below_in_whole_words():
    lines = records([("aliases", "float8_e4m3fn, E4M3, OFP8"), ("max", "448")], Screen(24))
    assert lines == ["aliases  float8_e4m3fn,", "         E4M3, OFP8", "max      448"]
    assert records([("aliases", "a " * 200)], Screen(None)) == ["aliases  " + ("a " * 200).rstrip()]


@pytest.mark.parametrize(
    ("environment", "width", "colour"),
    [({"COLUMNS": "57", "TERM": "xterm"}, 57, True), ({"COLUMNS": "80", "NO_COLOR": "1"}, 80, False),
     ({"COLUMNS": "80", "TERM": "dumb"}, 80, False)],
)  # fmt: skip
def test_a_terminal_has_the_width_and_colours_that_the_environment_says(
    monkeypatch, environment, width, colour
):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    found = Screen.of(Terminal())
    assert (found.width, found.colour) == (width, colour)
    assert Screen.of(io.StringIO()).width is None


def looked_at(monkeypatch, columns=80):
    """stderr as a terminal."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    return terminal


@pytest.mark.parametrize("name", ["a[/b]", "w[/]", "[red]x", "x\x1b[2J\n\u202e", "n" * 300, "重み" * 60, ""])
@pytest.mark.parametrize("columns", [20, 80])
def test_no_name_breaks_the_bar(monkeypatch, name, columns):
    terminal = looked_at(monkeypatch, columns)
    with bar() as shown:
        for done in range(0, 11, 5):
            shown.update(name, done, 10)
    pictures = terminal.getvalue().split("\r")
    assert any(picture.strip() for picture in pictures)
    assert all(cells(picture) < columns for picture in pictures)
    assert all(picture.isprintable() for picture in pictures)
    assert pictures[-2].strip() == "", "gone when the work is done"


def test_what_is_said_beside_a_bar_stands_on_lines_of_its_own(monkeypatch):
    terminal = looked_at(monkeypatch)
    monkeypatch.setattr(sys, "stdout", terminal)
    with bar(in_bytes=False) as shown:
        shown.update("float32 inputs", 5, 10)
        shown.say("fp4 decode: 16 inputs")
    assert "\rfp4 decode: 16 inputs\n" in terminal.getvalue()


def test_no_bar_on_a_dumb_terminal_nor_where_nobody_looks(monkeypatch):
    terminal = looked_at(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    with bar() as shown:
        shown.update("w", 5, 10)
    monkeypatch.setattr(sys, "stderr", None)
    with bar() as shown:
        shown.update("w", 5, 10)
    assert terminal.getvalue() == ""


def test_a_terminal_that_went_away_ends_the_bar_not_the_work(monkeypatch):
    looked_at(monkeypatch).close()
    shown = Bar(Screen(80))
    shown.update("w", 1, 10)
    shown.update("w", 10, 10)
    assert shown.screen is None


def test_what_stdout_does_not_take_is_an_error_that_says_what_was_done(monkeypatch):
    class Full(io.StringIO):
        def flush(self):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    with (
        pytest.raises(Undelivered, match=r"out is written, but standard output .* No space left"),
        screens.after("out is written"),
    ):
        screens.say("a report")
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(Undelivered, match="it is closed"):
        screens.say("a report")


@pytest.mark.parametrize(
    ("name", "x", "above", "tie"),
    [("fp8_e4m3", 464.0, 480.0, True), ("fp8_e4m3", -464.0, -448.0, True), ("fp8_e4m3", 470.0, 480.0, False),
     ("fp8_e5m2", 61440.0, 65536.0, True), ("hifloat8", 40960.0, 49152.0, True),
     ("fp8_e4m3", 480.0, None, False), ("fp8_e4m3", 1e9, None, False), ("fp8_e4m3", 447.0, 448.0, False)],
)  # fmt: skip
def test_between_the_largest_value_and_what_would_follow_numbers_had_no_neighbour(name, x, above, tie):
    """At 464 fp8_e4m3 overflows by a tie: the command said that there is none."""
    d = nx.dtype(name)
    one = encoded(d, [x], overflow="nonsaturate")[0]
    assert (one.above, one.tie) == (above, tie)
    assert one.below is not None
    assert one.below <= x
    assert encoded(d, [x], overflow="saturate")[0].tie is (tie and abs(x) <= d.max)
