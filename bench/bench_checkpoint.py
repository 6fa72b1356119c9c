"""A checkpoint quantized, beside a copy of the same file: with the report, without it, and copied, in turn.

python -m bench.bench_checkpoint [--megabytes N] [--rounds R] [--folder FOLDER] [--json FILE]

Of a round each comes once, in an order that turns, and figures are ratios within a round, of which the median
is written to bench/results/checkpoint.json.  The file is read from the system's cache where there is memory
for it, as the copy reads it.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import numerics as nx
from bench.__main__ import machine
from bench.records import text_of
from numerics.checkpoints import Request, quantize
from numerics.checkpoints.job import Options
from numerics.files.replacement import replace_file
from numerics.files.safetensors import Entry, Writer

FORMATS = {
    "mxfp4": nx.QuantSpec("mxfp4"),
    "int4 per_group(128)": nx.QuantSpec("int4", scheme="per_group(128)"),
    "mx6": nx.QuantSpec("mx6"),
    "nvfp4": nx.QuantSpec("nvfp4"),
}
COLUMNS, MATRICES = 4096, 8
RESULTS = Path(__file__).parent / "results" / "checkpoint.json"
Times = dict[str, list[tuple[float, float]]]  # seconds of a clock and of the CPUs, by what was done


def model(path: Path, megabytes: int) -> None:
    """Writes normal numbers, eight matrices of float32."""
    rows = max(megabytes * (1 << 20) // (4 * COLUMNS * MATRICES), 1)
    rng = np.random.default_rng(0)
    names = [f"model.layers.{k}.mlp.up_proj.weight" for k in range(MATRICES)]
    with Writer(path, {name: Entry("F32", (rows, COLUMNS)) for name in names}, {}) as writer:
        for name in names:
            end = 0
            while end < 4 * rows * COLUMNS:
                count = min(1 << 10, rows - end // (4 * COLUMNS))
                end = writer.put(name, end, rng.standard_normal((count, COLUMNS)).astype(np.float32))


def once(call: Callable[[Path], object], out: Path) -> tuple[float, float]:
    """Seconds of a clock and of the CPUs that a call takes whose output is removed afterwards."""
    clock, cpu = time.perf_counter(), time.process_time()
    call(out)
    found = time.perf_counter() - clock, time.process_time() - cpu
    out.unlink()
    return found


def measured(source: Path, spec: nx.QuantSpec, rounds: int) -> Times:
    """All that is compared, in turn; a first round warms up."""
    done: dict[str, Callable[[Path], object]] = {
        "copy": partial(shutil.copyfile, source),
        **{f"errors={kind}": lambda out, kind=kind: quantize(source, out, Request(spec), Options(errors=kind))
           for kind in ("all", "none", "sampled")},
    }  # fmt: skip
    names, found = list(done), {name: [] for name in done}
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            took = once(done[name], source.with_name("out.safetensors"))
            if turn:
                found[name].append(took)
    return found


def row(name: str, times: Times, nbytes: int) -> dict[str, Any]:
    """The medians of the ratios of rounds."""

    def of(one: str, other: str, clock: int = 0) -> float:
        pairs = zip(times[one], times[other], strict=True)
        return median(a[clock] / b[clock] for a, b in pairs)

    return {
        "format": name,
        "gigabytes a second": nbytes / median(wall for wall, _ in times["errors=all"]) / 1e9,
        "speed of a copy": of("copy", "errors=all"),
        "without the report": of("copy", "errors=none"),
        "sampled": of("copy", "errors=sampled"),
        "the report's time": of("errors=all", "errors=none"),
        "the report's CPU": of("errors=all", "errors=none", 1),
    }


def main() -> None:
    """Prints a line for each format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where the files are, of the disk that is meant")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to write")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        source = Path(folder) / "model.safetensors"
        model(source, options.megabytes)
        for name, spec in FORMATS.items():
            rows.append(row(name, measured(source, spec, options.rounds), source.stat().st_size))
            print(*(f"{key} {x if isinstance(x, str) else format(x, '.2f')}" for key, x in rows[-1].items()),
                  sep=" | ", flush=True)  # fmt: skip
    asked = {"megabytes": options.megabytes, "rounds": options.rounds}
    replace_file(options.json, text_of({"machine": machine() | asked, "rows": rows}).encode())


if __name__ == "__main__":
    main()
