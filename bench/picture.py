"""bench/results/cpu.json as one picture: a panel a kind of kernel; ours, the peers, the limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

from bench.measure import Row

KINDS: dict[str, Callable[[str], bool]] = {
    "encode": lambda case: case.startswith("encode ") and not _of_blocks(case),
    "decode": lambda case: case.startswith("decode "),
    "fake-quantize": lambda case: case.startswith("fake") and not _of_blocks(case) and "per_" not in case,
    "packed codes": lambda case: "_packed" in case,
    "blocks: encode, store": lambda case: _of_blocks(case) and not case.startswith("fake"),
    "blocks: fake-quantize": lambda case: _of_blocks(case) and case.startswith("fake"),
    "integers with scales": lambda case: "per_" in case and not case.startswith("tensor"),
    "torch tensors with scales": lambda case: case.startswith("tensor "),
}  # fmt: skip
OURS, LIMIT = "#0b6e4f", "#222222"
PEERS = ("#c8553d", "#588b8b", "#8d6a9f", "#d9a441")


def _of_blocks(case: str) -> bool:
    return any(word.startswith(("mx", "nvfp")) for word in case.split())


def draw(rows: list[Row], path: Path) -> None:
    """Draws the rows of the most threads; raises ImportError without matplotlib.

    A line is the median over the cases of a panel, the band from the slowest case to the fastest.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    most = max(row.threads for row in rows)
    figure, axes = pyplot.subplots(2, 4, figsize=(15, 7), sharex=True, sharey=True, layout="constrained")
    for panel, (title, belongs) in zip(axes.flat, KINDS.items(), strict=True):
        shown = [row for row in rows if row.threads == most and belongs(row.case)]
        sizes, ours = _line(shown, lambda row: row.of_ceiling)
        panel.axhline(100, color=LIMIT, linewidth=1, linestyle="--", label="memory ceiling")
        panel.fill_between(sizes, [min(at) for at in ours], [max(at) for at in ours], color=OURS, alpha=0.15)
        panel.plot(sizes, [median(at) for at in ours], color=OURS, linewidth=2.5, label="numerics")
        names = sorted({name for row in shown for name in row.peers})
        for name, colour in zip(names, PEERS, strict=False):
            found, theirs = _line(shown, lambda row, name=name: _share(row, name))
            panel.plot(found, [median(at) for at in theirs], color=colour, linewidth=1.2, label=name)
        panel.set_title(f"{title} ({len({row.case for row in shown})} cases)", fontsize=10)
        panel.set(xscale="log", ylim=(0, 125))
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(fontsize=7, frameon=False, loc="upper left", ncols=2)
    figure.supxlabel("float32 elements")
    figure.supylabel("% of the memory ceiling, measured in the same run")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _share(row: Row, name: str) -> float | None:
    ratio = row.peers.get(name)
    return row.of_ceiling / ratio if isinstance(ratio, float) else None


def _line(rows: Iterable[Row], figure: Callable[[Row], float | None]) -> tuple[list[int], list[list[float]]]:
    """Sizes, and the figures of all rows of a size, in percent."""
    at: dict[int, list[float]] = {}
    for row in rows:
        found = figure(row)
        if found is not None:
            at.setdefault(row.elements, []).append(100 * found)
    sizes = sorted(at)
    return sizes, [at[size] for size in sizes]
