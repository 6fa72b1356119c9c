"""`make bench`: every case, as a table, as bench/results/cpu.json and as a picture beside it.

python -m bench [--only WORD] [--largest N] [--threads 1,2] [--rounds R] [--no-peers] [--out FOLDER]

With --only, the other rows of an earlier run stay.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.measure import SIZES, Contest, Row, run
from bench.picture import draw
from bench.records import text_of
from numerics.files.replacement import replace_file

FILES = ("encode", "decode", "fake_quantize", "pack", "mx", "micro", "integers", "tensors", "tables")
PACKAGES = ("numpy", "numba", "llvmlite", "ml_dtypes", "torch", "torchao", "amd-quark")


def machine() -> dict[str, str]:
    """What ran, and with what."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    names = [line for line in lines if line.startswith("model name")]
    found = {"cpu": names[0].split(": ")[1] if names else platform.processor(), "cores": str(os.cpu_count())}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found | {"python": platform.python_version(), "date": date.today().isoformat()}


def use_threads(count: int) -> None:
    """Ours and torch's."""
    os.environ["NUMERICS_NUM_THREADS"] = str(count)
    try:
        import torch

        torch.set_num_threads(count)
    except ImportError:
        pass


def table(rows: list[Row]) -> Table:
    """One line a case, size and number of threads."""
    shown = Table(title="ours beside the memory ceiling and the peers (ratios: more than 1 is ours ahead)")
    for column in ("case", "elements", "threads", "G/s", "% of ceiling", "low - high", "peers"):
        shown.add_column(column, justify="left" if column in ("case", "peers") else "right")
    for row in rows:
        others = ", ".join(
            f"{n} {r:.1f}x" if isinstance(r, float) else f"{n}: {r}" for n, r in row.peers.items()
        )
        low, high = (f"{100 * part:.0f}" for part in row.spread)
        shown.add_row(
            row.case, f"{row.elements:,}", str(row.threads), f"{row.rate:.2f}", f"{100 * row.of_ceiling:.0f}",
            f"{low} - {high}", others + ("  LOST" if row.lost else ""),
        )  # fmt: skip
    return shown


def main() -> None:
    """Runs what was asked for."""
    options = argparse.ArgumentParser(prog="python -m bench")
    options.add_argument("--only", default="")
    options.add_argument("--largest", type=int, default=1 << 26)
    options.add_argument("--threads", default="1,2")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--no-peers", action="store_true")
    options.add_argument("--out", type=Path, default=Path("bench/results"))
    asked = options.parse_args()
    rows: list[Row] = []
    console = Console(width=200)
    for name in FILES:
        module = importlib.import_module(f"bench.bench_{name}")
        for case, make in module.CASES.items():
            tried = [n for n in getattr(module, "SIZES", SIZES) if n <= asked.largest]
            for n in tried if asked.only in case else ():
                for threads in map(int, asked.threads.split(",")):
                    use_threads(threads)
                    contest: Contest = make(n)
                    if asked.no_peers or (threads == 1 and n > 1 << 20):
                        contest.peers = {}
                    rows.append(run(case, n, threads, contest, asked.rounds))
                    console.print(f"{case} {n:,} {threads}: {100 * rows[-1].of_ceiling:.0f} %", style="dim")
    console.print(table(rows))
    lost = [(row.case, row.elements, row.threads, row.lost) for row in rows if row.lost]
    console.print(f"rows lost to a peer: {lost or 'none'}")
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.only:
        rows = merged(asked.out / "cpu.json", rows)
    made = {"machine": machine(), "rows": [vars(row) for row in rows]}
    replace_file(asked.out / "cpu.json", text_of(made).encode())
    try:
        draw(rows, asked.out / "cpu.png")
    except ImportError:
        console.print("no picture: matplotlib is not installed")


def merged(path: Path, rows: list[Row]) -> list[Row]:
    """The rows of an earlier run, those of the same case, size and threads replaced, and the new ones."""
    new = {(row.case, row.elements, row.threads): row for row in rows}
    said = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    before = [Row(**row) for row in said]
    kept = [row for row in before if (row.case, row.elements, row.threads) not in new]
    return kept + rows


if __name__ == "__main__":
    main()
