"""What ONNX Runtime takes for a `bits` graph, beside NumPy and Numba: for verification, not for speed.

python -m bench.bench_ipu [--elements N] [--out FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

import numerics as nx
from bench.__main__ import machine
from bench.measure import once, repeats
from bench.records import text_of
from numerics.files.replacement import replace_file

CASES = ("fp8_e4m3", "fp6_e2m3", "int8", "mxfp8_e4m3", "mxfp4", "mx6", "mx9")
BACKENDS = ("ipu", "array", "cpu")


def rates(name: str, n: int, rounds: int = 5) -> dict[str, float]:
    """Elements a second, in G, of `round` on each backend; medians of interleaved rounds, one thread."""
    x = np.random.default_rng(0).standard_normal((n // 1024, 1024), np.float32)
    d, out = nx.dtype(name), nx.empty((n // 1024, 1024))
    times: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
    counts = {}
    for backend in BACKENDS:
        with nx.use(backend):
            counts[backend] = repeats(lambda: d.round(x, out=out))
    for _ in range(rounds):
        for backend in BACKENDS:
            with nx.use(backend):
                times[backend].append(once(lambda: d.round(x, out=out), counts[backend]))
    return {backend: n / median(seconds) / 1e9 for backend, seconds in times.items()}


def main() -> None:
    """Prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=1 << 20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ipu.json")
    options = parser.parse_args()
    shown = Table(
        "round", "ONNX Runtime, G/s", "NumPy", "Numba", title=f"{options.elements:,} float32, one thread"
    )
    found = {}
    for name in CASES:
        found[name] = rates(name, options.elements)
        shown.add_row(name, *(f"{found[name][backend]:.4f}" for backend in BACKENDS))
    Console().print(shown)
    data = {"machine": machine() | {"onnxruntime": onnxruntime.__version__}, "elements": options.elements,
            "G elements a second": found}  # fmt: skip
    replace_file(options.out, text_of(data).encode())


if __name__ == "__main__":
    main()
