"""The report of a quantized model: every row once, folded on a screen, whole where nobody looks."""

from __future__ import annotations

import pytest

pytest.importorskip("onnxruntime")

import numerics as nx
from numerics.model.ipu.report import STEPS, Report
from numerics.view.screen import Screen
from numerics.view.text import cells
from tests.helpers.onnx_models import items, model, node, numbers, residual


def deep(count=30):
    """Layers that are alike, and one that stays in float."""
    nodes, x = [], "x"
    for k in range(count):
        nodes += [
            node("Conv", f"{x} w", f"/body/body.{k}/Conv"),
            node("Relu", f"/body/body.{k}/Conv", f"r{k}"),
        ]
        x = f"r{k}"
    nodes += [node("AveragePool", x, "pool", kernel_shape=[3, 3]), node("Softplus", "pool", "y")]
    return model(nodes, {"x": (1, 2, 3, 3)}, {"y": None}, {"w": numbers(2, 2, 1, 1)})


@pytest.fixture(scope="module")
def report():
    return nx.ipu.quantize_model(deep(), {"x": numbers(4, 2, 3, 3)}).report


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_deep_network_fits_on_a_screen_with_what_matters_first(report, columns):
    """It was five lines a row: 514 of a network of 105 rows."""
    lines = report.lines(Screen(columns))
    assert max(map(cells, lines)) <= columns
    assert len(lines) < (35 if columns == 40 else 20)
    text = " ".join(" ".join(lines).split())
    assert text.startswith("xint8 for stx: 62 nodes are integer; 1 stays in float; 1 approximated")
    headings = [line.split(":")[0] for line in lines if line.split(":")[0] in STEPS]
    assert headings == [step for step in STEPS if report.of(step)]
    assert headings.index("keep") < headings.index("approximate") < headings.index("quantize")
    assert "30 Conv+Relu" in text
    assert "/body/body.{0-29}/Conv" in text or columns == 40  # there the name goes on below


def test_every_row_is_shown_where_all_are_asked_for_and_where_nobody_looks(report):
    for lines in (report.table(full=True).split("\n"), report.lines(Screen(80), full=True)):
        text = "\n".join(lines)
        assert all(row.node in text for row in report)
        assert text.count("Ryzen AI lists it for xint8") in (1, len(report.of("quantize")))
    assert report.table(full=True).split("\n")[0].split() == ["node", "operator", "step", "what", "why"]
    assert len(report.table(full=True).split("\n")) == 1 + len(report.rows)
    assert str(report) == report.table()


@pytest.mark.parametrize("config", [*nx.ipu.CONFIGS])
def test_no_row_is_lost_by_folding(config):
    """The counts of the groups of a step are its rows; a group of one has none."""
    found = nx.ipu.quantize_model(residual(), items(), config).report
    text = found.lines(Screen(200))
    counted = [line.split()[0] for line in text if line.startswith("  ") and not line.startswith("   ")]
    assert sum(int(word) if word.isdigit() else 1 for word in counted) == len(found.rows)


def test_totals_are_in_the_plain_facts(report):
    totals = report.as_dict()["totals"]
    assert (totals["quantized"], totals["in float"], totals["approximated"]) == (62, 1, 1)


def test_a_text_like_a_terminals_orders_is_harmless():
    found = Report("xint8", "stx")
    found.add("a\x1b[2Jb", "Conv", "keep", "stays in float", "why")
    assert "\x1b" not in "".join(found.lines(Screen(80)))


@pytest.mark.parametrize(
    "names",
    [
        ["\u00b2", "\u00b3"],  # digits that are no numbers
        ["9" * 5000, "8" * 5000],
        ["of 1e999999999 b", "of 1e-999999999 b", "of 1/0 b", "of * b"],
        ["it's 1", "a \"b\" 'c' 2", "'", "\x00"],
    ],
)
def test_names_of_any_kind_are_folded_or_stay(names):
    found = Report("xint8", "stx")
    for name in names:
        found.add(name, "Conv", "share", f"scale of {name} 0.5 became 1/4 of Conv {name!r}", f"why {name}")
    for columns in (40, 80):
        lines = found.lines(Screen(columns))
        assert max(map(cells, lines)) <= columns
    assert len(found.table(full=True).splitlines()) >= 1 + len(names)
