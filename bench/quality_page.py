"""docs/quality.md and its pictures, from the rows of bench/quality.py."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.intervals import mcnemar, paired, wilson
from bench.quality import MODES, Row
from bench.tasks import ANSWERS, BATCH, TASKS
from numerics.draw.names import name_points
from numerics.files.replacement import replace_file

INTRODUCTION = """# What formats cost real models

Written by `python -m bench.quality`.  Computed with {versions}.

Four models whose weights ship inside packages, on items that are the same on every run, and each format
that holds numbers of either sign or brings a zero point: of weights alone (W), and of weights and of what
goes into the products with them (W+A), whose scales each batch of {batch} items finds for itself.
Embeddings, norms and biases stay in float32; so do the products of attention, in which there is no weight.
Nothing is calibrated, trained or corrected: round and look.

{about}
How to read the tables, which are sorted by the SQNR of the outputs:

- **SQNR** compares all outputs with float's, in dB.  It ranks formats; 6 dB are one bit.
- **agrees** is the share of items with float's own answer, and its 95 % interval (Wilson's).
- **right** is the difference to float in the share of true answers, in points, and its 95 % interval
  (Newcombe's for pairs): what counts are the items that one of the two alone gets right, and p is
  McNemar's.  Where the interval holds 0, so many items cannot tell the format from float.  This figure
  ranks nothing: a format that is far from float is right now and then where float is wrong.
- **layers** are the least and the mean SQNR of a layer alone, on the inputs that float gives it, in dB.  A
  layer far below the mean is one to leave in another format.
- **bits** are stored bits a value of the weights that are quantized, scales included.
- Blocks and groups lie along an axis that the product sums: along the channels of a kernel, or along its
  length where that is longer.  Short axes make short blocks, whose scales take more bits.
- A scale for a whole tensor breaks silero-vad: the largest value of `conv4.weight` is 130 deviations out,
  and eight bits of it leave the others a few steps.

"""
ABOUT = {
    "MiniLM": (
        "all-MiniLM-L6-v2, a transformer of 6 layers",
        "first paragraphs of docstrings of Python and NumPy, each to find its own rest among all",
    ),
    "crepe-tiny": ("a pitch tracker of 6 convolutions", "tones of 55 Hz to 1.2 kHz, in noise of -5 to 20 dB"),
    "silero-vad": (
        "a voice detector, convolutions and an LSTM cell",
        "a quarter of a second of eSpeak NG's speech in noise, or of noise alone",
    ),
    "g2p_en": (
        "a speller in phonemes, two GRU cells",
        "words of CMU's dictionary, on which it was trained",
    ),
}
PICTURES = {
    "quality_sqnr.png": ("SQNR of the outputs, dB", lambda row: row.sqnr),
    "quality_agreement.png": ("% of answers as float's", lambda row: 100 * row.agree / row.items),
}
MOST_BITS = 9.5  # in the pictures: what has 16 bits is right everywhere
FAMILIES: tuple[tuple[str, str, str], ...] = (
    ("mx4, mx6, mx9", r"mx\d+$", "#c8553d"),
    ("OCP MX", r"mx", "#0b6e4f"),
    ("blocks with float scales, bfp16", r"nv|if\d|bfp|hifloat4", "#8d6a9f"),
    ("floats with scales", r"fp\d", "#588b8b"),
    ("integers, scale a tensor", r"u?int\d+ per_tensor", "#d9a441"),
    ("integers, scale a channel", r"u?int\d+ per_channel", "#b08900"),
    ("integers, scale a group", r"u?int\d+ per_group", "#6b5200"),
    ("others with scales", r"", "#555555"),
)
"""Name, how the names of its formats begin, colour: a format is of the first that fits."""


def write_page(rows: list[Row], page: Path) -> None:
    """Writes the page, and its pictures into pictures/ beside it where matplotlib is installed."""
    shown = {model: of_most_items([row for row in rows if row.model == model]) for model in TASKS}
    shown = {model: found for model, found in shown.items() if found}
    page.parent.mkdir(parents=True, exist_ok=True)
    replace_file(page, markdown(shown).encode())
    try:
        importlib.import_module("matplotlib")
    except ImportError:
        print("no pictures: matplotlib is not installed")
        return
    (page.parent / "pictures").mkdir(exist_ok=True)
    for name, (label, figure) in PICTURES.items():
        draw(shown, label, figure, page.parent / "pictures" / name)


def of_most_items(rows: list[Row]) -> list[Row]:
    """Returns the rows with as many items as any, best first: runs on fewer items are not comparable."""
    most = max((row.items for row in rows), default=0)
    return sorted(
        (row for row in rows if row.items == most),
        key=lambda row: math.inf if math.isnan(row.sqnr) else -row.sqnr,
    )


def markdown(shown: dict[str, list[Row]]) -> str:
    """Returns the page: a table a model."""
    heads, about = ("model", "what it is", "its items"), ((name, *said) for name, said in ABOUT.items())
    versions = dict.fromkeys(row.versions for rows in shown.values() for row in rows)
    parts = [INTRODUCTION.format(versions="; or ".join(versions), batch=BATCH, about=_table(heads, about))]
    parts += [f"![{label} against bits](pictures/{name})\n\n" for name, (label, _) in PICTURES.items()]
    for model, rows in shown.items():
        parts += _model(model, rows)
    return "".join(parts).rstrip() + "\n"


def _model(model: str, rows: list[Row]) -> Iterator[str]:
    first = rows[0]
    answers, figure = ANSWERS[model]
    low, high = wilson(first.right, first.items)
    yield f"## {model}\n\n{first.items:,} items.  agrees: {answers}.  right: {figure}; float itself is right "
    yield f"on {100 * first.right / first.items:.1f} % [{100 * low:.1f} .. {100 * high:.1f}].\n\n"
    heads = ("format", "scales", "of", "bits", "SQNR", "agrees, %", "right, points", "p", "layers, dB")
    yield _table(heads, map(_cells, rows)) + "\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in (heads, ["---"] * len(heads), *rows))


def _cells(row: Row) -> list[str]:
    low, high = wilson(row.agree, row.items)
    points = [100 * end for end in paired(row.right, row.gained, row.lost, row.items)]
    return [
        f"`{row.format}`", row.scales, f"{row.mode}, {row.layers} weights", f"{row.bits:.2f}",
        f"{row.sqnr:.1f}",
        f"{100 * row.agree / row.items:.1f} [{100 * low:.1f} .. {100 * high:.1f}]",
        f"{points[0]:+.1f} [{points[1]:+.1f} .. {points[2]:+.1f}]", f"{mcnemar(row.gained, row.lost):.2g}",
        f"{row.local_min:.1f}, {row.local_mean:.1f}",
    ]  # fmt: skip


# ---- pictures ----


def draw(shown: dict[str, list[Row]], label: str, figure: Callable[[Row], float], path: Path) -> None:
    """Draws a figure of rows of few bits against bits a value, a panel a model: W full, W+A hollow.

    Named are the formats of weights alone that none of fewer bits equals, as far as there is room.
    """
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    columns = min(2, len(shown))
    sheet, panels = pyplot.subplots(
        -(-len(shown) // columns), columns, figsize=(7 * columns, 4.6 * -(-len(shown) // columns)),
        squeeze=False, sharey=True, layout="constrained",
    )  # fmt: skip
    for panel, (model, rows) in zip(panels.flat, shown.items(), strict=False):
        drawn = [row for row in rows if row.bits <= MOST_BITS]
        for family, colour, members in _families(drawn):
            for mode, full in zip(MODES, (colour, "none"), strict=True):
                points = [(r.bits, figure(r)) for r in members if r.mode == mode]
                name = family if mode == MODES[0] else None
                panel.scatter(*_sides(points), s=26, edgecolors=colour, facecolors=full, label=name)
        panel.set_xlim(1.5, MOST_BITS + 1)
        panel.set_title(f"{model}, {rows[0].items:,} items", fontsize=10)
        panel.set(xlabel="stored bits a weight", ylabel=label)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
    for panel in panels.flat[len(shown) :]:
        panel.set_visible(False)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    sheet.legend(handles, labels, fontsize=8, frameon=False, loc="outside lower center", ncols=4,
                 title="full: W, hollow: W+A", title_fontsize=8)  # fmt: skip
    sheet.draw_without_rendering()  # now the panels have their places
    for panel, rows in zip(panels.flat, shown.values(), strict=False):
        drawn = [row for row in rows if row.bits <= MOST_BITS and math.isfinite(figure(row))]
        best = list(_best([row for row in drawn if row.mode == MODES[0]], figure))
        best.sort(key=figure, reverse=True)
        marks = [(row.bits, figure(row)) for row in drawn if row not in best]
        name_points(panel, [(row.bits, figure(row)) for row in best], [row.format for row in best],
                    marks, every=False)  # fmt: skip
    sheet.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(sheet)


def _families(rows: list[Row]) -> Iterator[tuple[str, str, list[Row]]]:
    """Yields each family's name and colour, and the rows of its formats: every row is in one."""
    left = rows
    for family, begins, colour in FAMILIES:
        yield family, colour, [row for row in left if re.match(begins, row.format)]
        left = [row for row in left if not re.match(begins, row.format)]


def _sides(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _best(rows: list[Row], figure: Callable[[Row], float]) -> Iterator[Row]:
    """Yields the rows that none of as few or fewer bits reaches."""
    best = float("-inf")
    for row in sorted(rows, key=lambda row: (row.bits, -figure(row))):
        if figure(row) > best:
            best = figure(row)
            yield row
