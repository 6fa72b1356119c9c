"""docs/speed.md and its pictures, from the results that are committed in bench/results; nothing is measured.

python -m bench.speed_page
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from numerics.draw.picture import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, Picture, canvas, styled
from numerics.files.replacement import replace_file

RESULTS = Path("bench/results")
PAGE = Path("docs/speed.md")
DOTS = [(colour, marker) for marker in "os^" for colour in (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK)]
TICKS = [0.1, 0.3, 1, 3, 10, 30, 100, 300]
SMALL, LARGE = 1 << 10, 1 << 24  # elements: a call's own cost decides, and memory does
GPUS = ("nvidia-h100-80gb-hbm3", "nvidia-h200")
INTRODUCTION = """# What it costs

Written by `python -m bench.speed_page` from the figures in `bench/results`, all of them.  A figure is a
ratio: ours and the peers take turns in one run, and the median
of the rounds is kept, so that a neighbour's load weighs on all alike.  The dots right of the line are ours
ahead; each section ends with **every row that is lost**, worst first.

"""


REPORT_TIME, REPORT_CPU = "the report's time", "the report's CPU"
REPORT_IS = """about two thirds of that are sums of squares, in float64 and in the kernel's own pass (14 of \
AVX-512's instructions for 16 values, which two ports take in 0.2 ns a value, and the codes are decoded \
first), the rest is Python's for each part of a file."""


@dataclass(frozen=True)
class Race:
    """One case beside one peer.  ratio: the peer's time over ours; above 1 is ours ahead."""

    panel: str
    case: str
    peer: str
    ratio: float


@dataclass(frozen=True)
class Section:
    """A part of the page: its picture shows races, a panel for each that they name."""

    title: str
    picture: str
    text: str
    races: Sequence[Race]

    def markdown(self) -> str:
        """Returns heading, picture, what is measured, and the rows that are lost."""
        lost = sorted((race for race in self.races if race.ratio < 1), key=lambda race: race.ratio)
        counted = f"{len(self.races) - len(lost)} of {len(self.races)} rows are ahead, the median row "
        counted += f"{median(race.ratio for race in self.races):.1f} times as fast as its peer."
        said = f"## {self.title}\n\n{self.text}\n\n![{alt(self)}](pictures/{self.picture})\n\n{counted}\n"
        if not lost:
            return said + "\nNo row is lost.\n"
        rows = ((race.panel, race.case, race.peer, f"{race.ratio:.2f}") for race in lost)
        return said + "\n" + table(("where", "case", "lost to", "times as fast"), rows)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table of Markdown."""
    return "".join(f"| {' | '.join(line)} |\n" for line in (heads, ["---"] * len(heads), *rows))


def alt(section: Section) -> str:
    """Returns what is on a section's picture, in words."""
    ends = min(section.races, key=lambda r: r.ratio), max(section.races, key=lambda r: r.ratio)
    told = (f"{race.case} beside {race.peer} ({race.panel}), {race.ratio:.2f} times" for race in ends)
    return f"{section.title}: times as fast as a peer, a dot a row; from {' to '.join(told)}"


# ---- what was measured ----------------------------------------------------------------------------


def sections(results: Path = RESULTS) -> list[Section]:
    """Returns the parts of the page, from the files of a folder."""
    return [_elements(_read(results / "cpu.json")), _products(_read(results / "product.json")),
            _adapters(_read(results / "adapters.json"))]  # fmt: skip


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _elements(told: Any) -> Section:
    machine, rows = told["machine"], told["rows"]
    most = max(row["threads"] for row in rows)
    small = [row for row in rows if row["threads"] == most and row["elements"] == SMALL]
    large = [row for row in rows if row["threads"] == most and row["elements"] >= LARGE]
    races = [
        Race(panel, row["case"], peer, ratio)
        for panel, shown in (("1,024 values", small), ("2^24 or 2^26 values", large)) for row in shown
        for peer, ratio in row["peers"].items() if isinstance(ratio, float)
    ]  # fmt: skip
    of_ceiling = median(row["of_ceiling"] for row in large)
    text = (
        f"`make bench`, {machine['date']}, {machine['cpu']} with {machine['cores']} cores, {most} threads, "
        f"torch {machine['torch']}: kernels on float32 (or as named) beside what else computes the same "
        f"format.  Of many values the median case moves {100 * of_ceiling:.0f} % of the bytes that a copy "
        "moves in the same time.  Of 1,024 values a call's own cost decides, which is Python's here."
    )
    return Section("Kernels on a CPU", "speed_kernels.png", text, races)


BOUNDS = """Why rows are lost.  The law asks for one float32 multiply-add a weight, and one more a lane's \
run for the scale of its group.  A core with AVX-512 (Zen 5, timed instruction by instruction) \
starts two of 16 lanes a cycle, and four vector instructions in all: 32 weights a cycle, \
before anything is decoded.

- One row of x, four bits: 16 weights take 3.25 instructions (a fourth of a load, three fourths of a \
shift, a lookup, a multiply-add, a fourth for the scale), so 0.81 cycles at least; the kernels take 1.2 to \
1.4.  A matrix in a cache is read faster than that: 65 % of its pace would be more than two multiply-adds \
a cycle.  6 and 8 bits take 4 to 6 instructions, mx6 and mx9 8 to 12: signs and microexponents lie apart.
- Products of bfloat16 and of int8 sum two and four products with one instruction; float32 has no such \
one.
- torch's int4 product, of groups of 128, sums bfloat16: ours of int4 and nf4 is level with it where weights \
are many (4096 x 4096 and more), MX, NVFP4 and wider formats are behind.
- Many rows of x: groups with scales take five multiply-adds for four products, so no more than four \
fifths of the float32 peak; a product that decodes scaled values to float32 first takes four, and rounds \
each of them.
- Small matrices: 20 to 25 us of a call are Python's, 50 and more with `compute="int8"`, where x is \
quantized first; all of a dense product of 1024 x 1024 takes 50."""


def _products(told: Any) -> Section:
    machine, rows = told["machine"], told["rows"]
    most = max(row["threads"] for row in rows)
    races = [
        Race(f"batch {row['batch']}", row["format"], peer, ratio)
        for row in rows if row["threads"] == most for peer, ratio in row["peers"].items()
    ]  # fmt: skip
    rows_, columns = rows[0]["shape"]
    text = (
        f"`python -m bench.bench_product`, {machine['processor']}, torch {machine['torch']}, {most} threads: "
        f"`nx.linear` of a packed weight of {rows_} x {columns}, read as it is stored, beside torch's "
        "product with the dense float32 and bfloat16 weight and others' products of four bits.  Every bit of "
        "ours is promised, whatever the batch and the threads ([the law of formats](formats.md)); no peer "
        "promises its own.\n\n" + BOUNDS
    )
    return Section("Products with packed weights", "speed_products.png", text, races)


def _adapters(told: Any) -> Section:
    about, rows = told["about"], told["rows"]
    races = [
        Race(f"{row['threads']} thread{'s' * (row['threads'] > 1)}", f"{row['host']}: {row['call']}",
             "the host's own code", row["ratio"]) for row in rows
    ]  # fmt: skip
    text = (
        f"`make adapters`, {about['machine']}, torch {about['torch']}: the calls of other quantizers on "
        f"{about['numbers']:,} float32 numbers, with our kernels under them and as they come.  {said(about)}"
    ).rstrip()
    return Section("Under other quantizers", "speed_adapters.png", text, races)


def said(about: Mapping[str, Any]) -> str:
    """Returns what a run says of itself, as a sentence."""
    note = str(about.get("note") or "")
    return note[:1].upper() + note[1:] + "." if note else ""


def gpu_table(results: Path = RESULTS) -> str:
    """Returns what GPUs reach of a copy of as many bytes."""
    told = {name: _read(results / f"{name}.json") for name in GPUS}
    cases: dict[str, dict[str, Any]] = {}
    for name, run in told.items():
        for row in run["figures"]:
            cases.setdefault(row["case"], {})[name] = row
    heads = (
        "kernel",
        *(f"{told[name]['machine']['gpu']}, % of a copy" for name in GPUS),
        "peers there, times as fast",
    )
    rows = []
    for case, found in cases.items():
        shares = (f"{100 * found[name]['of_copy']:.0f}" if name in found else "" for name in GPUS)
        peers = next(iter(found.values()))["peers"]
        ratios = ", ".join(f"{peer} {ratio:.1f}" for peer, ratio in peers.items() if isinstance(ratio, float))
        rows.append((case, *shares, ratios))
    proofs = "; ".join(f"{run['machine']['gpu']}: {len(run['proofs'])} proofs, {len(run['failed'])} failed"
                       for run in told.values())  # fmt: skip
    return (
        "## Kernels on GPUs\n\n`python -m bench.bench_gpu`, which proves every kernel there first "
        f"({proofs}).\n\n{table(heads, rows)}"
    )


def checkpoint_table(results: Path = RESULTS) -> str:
    """Returns how fast checkpoints are quantized beside a copy of the file, and what the report costs."""
    told = _read(results / "checkpoint.json")
    machine, kinds = told["machine"], ("speed of a copy", "sampled", "without the report")
    rows = (
        (row["format"], *(f"{100 * row[kind]:.0f}" for kind in kinds), f"{row[REPORT_TIME]:.2f}",
         f"{row[REPORT_CPU]:.2f}")
        for row in told["rows"]
    )  # fmt: skip
    heads = (
        "format", "% of a copy's speed", "errors sampled", "without the report", REPORT_TIME, REPORT_CPU,
    )  # fmt: skip
    return (
        f"## Checkpoints\n\n`python -m bench.bench_checkpoint`, {machine['date']}, {machine['cpu']} with "
        f"{machine['cores']} cores, the median of {machine['rounds']} rounds: `numerics quantize` of "
        f"{machine['megabytes']:,} MB of float32, the report included, beside a copy of the same file out of "
        "the system's cache into another.  The last two columns are what the report multiplies time and CPU "
        f"by: {REPORT_IS}\n\n{table(heads, rows)}"
    )


def models_table(results: Path = RESULTS) -> str:
    """Returns what a quantized model costs beside the float one."""
    told = _read(results / "models.json")
    rows = ((row["case"], row["model"], f"{row['milliseconds']:.2f}", f"{row['of float']:.2f}")
            for row in told["rows"])  # fmt: skip
    threads = told["machine"]["threads"]
    return (
        f"## Models\n\n`python -m bench.bench_models`, {threads} thread, CPU time: above 1 is slower than "
        "float.\n\n" + table(("model", "weights", "ms", "of float's time"), rows)
    )


def emulation_table(results: Path = RESULTS) -> str:
    """Returns what hosts' emulation of MiniLM costs beside ours, rows that we lose too."""
    told = _read(results / "emulation.json")
    rows = (
        (row["shape"], row["case"], row["host"], f"{row['ours milliseconds']:.1f}",
         f"{row['theirs milliseconds']:.1f}", f"{row['theirs to ours']:.2f}")
        for row in told["rows"]
    )  # fmt: skip
    heads = ("texts x tokens", "format", "host", "ours, ms", "theirs, ms", "times as fast as theirs")
    return (
        "## Models that round weights and activations in every forward\n\nMiniLM as `nx.wrap` "
        "leaves it, beside hosts that quantize the same layers: `python -m bench.bench_emulation` in the "
        f"environment of `make adapters`, {told['machine']['threads']} thread, CPU time.\n\n"
        + table(heads, rows)
    )


# ---- the page and its pictures ----------------------------------------------------------------------


def page(results: Path = RESULTS) -> str:
    """Returns the text of the page."""
    kernels, *rest = (section.markdown() for section in sections(results))
    return INTRODUCTION + "\n".join(
        [
            kernels,
            gpu_table(results),
            *rest,
            checkpoint_table(results),
            models_table(results),
            emulation_table(results),
        ]
    )


def draw(section: Section) -> Picture:
    """Returns a picture of a section: a line a case, a dot a peer, a panel beside the other a size."""
    names = list(dict.fromkeys(race.panel for race in section.races))
    cases = list(dict.fromkeys(race.case for race in section.races))[::-1]
    peers = dict(zip(dict.fromkeys(race.peer for race in section.races), DOTS, strict=False))
    size = (3.2 + 1.9 * len(names), 2.0 + 0.19 * len(cases))
    with styled():
        figure, axes = canvas(1, len(names), size, sharex=True, sharey=True)
        panels = axes[0]
        for panel, name in zip(panels, names, strict=True):
            panel.axvline(1, color=BLACK, linewidth=1)
            shown = [race for race in section.races if race.panel == name]
            for peer, (colour, marker) in peers.items():
                dots = [(race.ratio, cases.index(race.case)) for race in shown if race.peer == peer]
                panel.scatter(
                    *zip(*dots, strict=True) if dots else ([], []), 24, colour, marker=marker, label=peer
                )
            panel.set(xscale="log", title=name, yticks=range(len(cases)), yticklabels=cases)
            low, high = panel.get_xlim()
            panel.set_xticks([at for at in TICKS if low <= at <= high])
            panel.minorticks_off()
            panel.xaxis.set_major_formatter("{x:g}")
            panel.tick_params(labelsize=8, length=0)
            panel.grid(axis="both", color=GREY, alpha=0.2)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=8)
        figure.supxlabel("times as fast as the peer; right of the line is ours ahead", fontsize=9)
    return Picture(figure, alt(section))


def main() -> None:
    """Writes the page, and its pictures."""
    replace_file(PAGE, page().encode())
    for section in sections():
        draw(section).save(PAGE.parent / "pictures" / section.picture)


if __name__ == "__main__":
    main()
