"""What starting costs: importing, the first call of a process, warming up; each in fresh processes.

python -m bench.bench_start
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from statistics import median

FIRST = """
import time, numpy as np, numba
start = time.perf_counter(); import numerics as nx; imported = time.perf_counter() - start
x = np.ones(1000, np.float32)
start = time.perf_counter(); nx.fp8_e4m3.encode(x); first = time.perf_counter() - start
start = time.perf_counter(); nx.mx6.encode(x); second = time.perf_counter() - start
calls = 2000
start = time.perf_counter()
for _ in range(calls): nx.fp8_e4m3.encode(x)
print(imported, first, second, (time.perf_counter() - start) / calls)
"""
WARM = """
import time
start = time.perf_counter()
from numerics.backends.cpu.warmup import warm_up
names = list(warm_up())
print(time.perf_counter() - start, len(names))
"""


def run(code: str, folder: str) -> list[float]:
    """The numbers that a fresh process prints."""
    environment = {**os.environ, "NUMERICS_CACHE_DIR": folder}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True, timeout=600
    )
    return [float(word) for word in found.stdout.split()]


def main(rounds: int = 7) -> None:
    """Prints medians."""
    with tempfile.TemporaryDirectory() as folder:
        cold, kernels = run(WARM, folder)
        print(f"warm-up, cold cache: {kernels:.0f} kernels in {cold:.1f} s, {cold / kernels:.3f} s a kernel")
        print(f"warm-up, warm cache: {run(WARM, folder)[0]:.2f} s")
        runs = [run(FIRST, folder) for _ in range(rounds)]
        names = (
            "import numerics, beyond NumPy and Numba",
            "first call, warm cache",
            "second kernel",
            "1K encode",
        )
        for name, times in zip(names, zip(*runs, strict=True), strict=True):
            print(f"{name}: {median(times) * 1e3:.3f} ms ({min(times) * 1e3:.3f} - {max(times) * 1e3:.3f})")


if __name__ == "__main__":
    main()
