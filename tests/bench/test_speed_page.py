"""The page of speed says what the committed figures say, lost rows too."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")
from bench import speed_page
from tests.helpers.pictures import ROOT, assert_same_pixels

SECTIONS = {section.picture: section for section in speed_page.sections(ROOT / speed_page.RESULTS)}


def test_the_page_is_the_one_of_the_figures_that_are_committed():
    page = speed_page.page(ROOT / speed_page.RESULTS)
    assert (ROOT / speed_page.PAGE).read_text(encoding="utf-8") == page, "run python -m bench.speed_page"


def test_every_figure_of_checkpoints_is_on_the_page():
    text = speed_page.checkpoint_table(ROOT / speed_page.RESULTS)
    told = speed_page._read(ROOT / speed_page.RESULTS / "checkpoint.json")
    _, _, *lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == len(told["rows"]) == 4
    for line, row in zip(lines, told["rows"], strict=True):
        name, *figures = [cell.strip() for cell in line.strip("|").split("|")]
        assert name == row["format"]
        assert len(figures) == len(row) - 2, "a ratio each; how many bytes a second is the disk's"
        assert figures[0] == f"{100 * row['speed of a copy']:.0f}"
        assert figures[-1] == f"{row[speed_page.REPORT_CPU]:.2f}"
    assert told["machine"]["cpu"] in text


@pytest.mark.parametrize("name", SECTIONS)
def test_every_row_that_is_lost_is_on_the_page_worst_first(name):
    text = SECTIONS[name].markdown()
    lost = sorted(race.ratio for race in SECTIONS[name].races if race.ratio < 1)
    _, _, *rows = [line for line in text.splitlines() if line.startswith("| ")]
    shown = [float(row.split("|")[-2]) for row in rows]
    assert shown == [round(ratio, 2) for ratio in lost]


def test_a_section_without_lost_rows_says_so():
    race = speed_page.Race("1 thread", "encode", "a peer", 2.0)
    assert "No row is lost." in speed_page.Section("Kernels", "a.png", "Measured.", [race]).markdown()


@pytest.mark.parametrize("name", SECTIONS)
def test_a_picture_of_speed_that_is_committed_is_the_one_that_is_drawn(name, tmp_path):
    picture = speed_page.draw(SECTIONS[name])
    assert_same_pixels(picture, ROOT / "docs" / "pictures" / name, tmp_path)


@pytest.mark.parametrize("name", SECTIONS)
def test_every_peer_has_a_dot_of_its_own(name):
    peers = {race.peer for race in SECTIONS[name].races}
    legend = speed_page.draw(SECTIONS[name]).figure.legends[0]
    assert {text.get_text() for text in legend.get_texts()} == peers
    assert len(peers) <= len(speed_page.DOTS)
