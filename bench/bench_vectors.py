"""Vectors a second: written, through a device in C (the one of docs/vectors.md), and judged.

python -m bench.bench_vectors [--count N] [--blocks N] [--rounds R]
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from bench.measure import once
from numerics.conform.vectors.operations import operation
from numerics.conform.vectors.vectors import generate, verify

DOCS = Path(__file__).parents[1] / "docs" / "vectors.md"
LIMIT = 600.0  # seconds after which a child hangs
COMMAND = f"{sys.executable} -m numerics vectors"
ELEMENTS, BLOCKS = ("fp4", "fp8_e4m3", "bfloat16"), ("mxfp4", "mxfp8_e4m3", "mx6", "nvfp4")


def device(folder: Path) -> Path:
    """The C program of the docs, compiled."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        sys.exit("bench_vectors needs a C compiler")
    source = DOCS.read_text(encoding="utf-8").partition("```c\n")[2].partition("```")[0]
    (folder / "mine.c").write_text(source, encoding="utf-8")
    subprocess.run([compiler, "-O2", "-o", folder / "mine", folder / "mine.c"], check=True, timeout=LIMIT)
    return folder / "mine"


def rate(call: Callable[[], object], count: int, rounds: int) -> float:
    """Vectors a second, in thousands; the median of the rounds after a first that warms up."""
    call()
    return count / median(once(call, 1) for _ in range(rounds)) / 1e3


def judged(name: str, count: int, rounds: int) -> tuple[float, float]:
    """The rates of writing and of judging, in this process."""
    asked = operation(name)
    text = b"".join(generate(asked, count=count))
    writing = rate(lambda: sum(map(len, generate(asked, count=count))), count, rounds)
    return writing, rate(lambda: verify(io.BytesIO(text)), count, rounds)


def piped(count: int, rounds: int) -> float:
    """The rate of three processes: generate | mine | verify, their start included."""
    with tempfile.TemporaryDirectory() as folder:
        mine = device(Path(folder))
        line = f"{COMMAND} generate fp8_e4m3 --count {count} --inputs-only | {mine} | {COMMAND} verify"
        run = partial(subprocess.run, shell=True, check=True, capture_output=True, timeout=LIMIT)
        return rate(lambda: run(line), count, rounds)


def main() -> None:
    """Prints one line a format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1 << 21)
    parser.add_argument("--blocks", type=int, default=1 << 15)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print("encode, thousands a second: generate, verify")
    for name in ELEMENTS + BLOCKS:
        count = options.count if name in ELEMENTS else options.blocks
        writing, judging = judged(name, count, options.rounds)
        print(f"{name}: {writing:,.0f}, {judging:,.0f} {'vectors' if name in ELEMENTS else 'blocks'}")
    print(f"fp8_e4m3 | a device in C | verify: {piped(options.count, options.rounds):,.0f} vectors")


if __name__ == "__main__":
    main()
