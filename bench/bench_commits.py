"""This checkout beside another commit, call by call in turn: did anything grow slower?

Each side is installed in a folder of its own and runs in a process of its own, which waits until it is
asked for a call.  The sides take turns, and change who begins, so that a neighbour's load weighs on both
alike; the median of the rounds' ratios is quoted.

python -m bench.bench_commits [REVISION] [--rounds R] [--largest N] [--only WORD] [--threads T]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
SIZES = (1 << 10, 1 << 26)  # elements: the cost of a call, the cost of an element
SAMPLE = 2e-2  # seconds that a sample should last
CALLS = {
    "encode fp8_e4m3": "nx.fp8_e4m3.encode(x, out=codes)",
    "decode fp8_e4m3": "nx.fp8_e4m3.decode(codes, out=y)",
    "round fp8_e4m3": "nx.fp8_e4m3.round(x, out=y)",
    "round fp4 from float16": "nx.fp4.round(half)",
    "encode mxfp4": "nx.mxfp4.encode(x)",
    "round mx6": "nx.mx6.round(x, out=y)",
    "round nvfp4": "nx.nvfp4.round(x, out=y)",
    "quantize int4, groups of 128": "nx.quantize(x, 'int4', scheme=group)",
    "dequantize int4, groups of 128": "q.dequantize()",
    "fake_quantize int8": "nx.fake_quantize(x, 'int8')",
    "fake_quantize int8, asymmetric": "nx.fake_quantize(x, 'int8', symmetric=False)",
    "fake_quantize mxfp4": "nx.fake_quantize(x, 'mxfp4')",
    "torch: encode fp8_e4m3": "nx.fp8_e4m3.encode(t)",
    "torch: fake_quantize int8": "nx.fake_quantize(t, 'int8')",
    "torch: fake_quantize mxfp4": "nx.fake_quantize(t, 'mxfp4')",
}
WORKER = """
import sys, time
import numpy as np, torch
import numerics as nx
n = int(sys.argv[1])
x = np.random.default_rng(0).standard_normal(n, np.float32)
codes, y, half, t = nx.fp8_e4m3.encode(x), np.empty_like(x), x.astype(np.float16), torch.from_numpy(x)
group = nx.per_group(128)
q = nx.quantize(x, 'int4', scheme=group)
for line in sys.stdin:
    repeats, _, call = line.strip().partition(' ')
    code = compile(call, 'call', 'eval')
    start = time.perf_counter()
    for _ in range(int(repeats)):
        eval(code)
    print((time.perf_counter() - start) / int(repeats), flush=True)
"""


@dataclass(frozen=True, eq=False)
class Side:
    """An installed commit at work in a process of its own."""

    process: subprocess.Popen[str]

    def seconds(self, call: str, repeats: int) -> float:
        """What the call takes, the mean of as many calls."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{repeats} {call}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


@contextmanager
def at_work(folder: Path, elements: int, threads: int) -> Iterator[Side]:
    """The commit that is installed in a folder, until the block is left."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "NUMERICS_NUM_THREADS": str(threads),
        "NUMERICS_CACHE_DIR": str(folder / "cache"),
    }
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", WORKER, str(elements)], cwd=folder, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Side(process)
    finally:
        process.kill()
        process.communicate(timeout=60)


def install(source: Path, folder: Path) -> Path:
    """The distribution of a checkout, in that folder."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "install", "--no-deps"]
    subprocess.run(
        [*pip, "--no-build-isolation", "--target", str(folder), str(source)], check=True, timeout=600
    )
    return folder


def checkout(revision: str, folder: Path) -> Path:
    """The files of a commit, in that folder."""
    folder.mkdir()
    archive = subprocess.run(
        ["git", "archive", revision], cwd=ROOT, check=True, capture_output=True, timeout=60
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True, timeout=60)
    return folder


def compare(sides: list[Side], call: str, rounds: int) -> tuple[float, list[float]]:
    """Seconds of ours (the first side), and its time over the other's, round by round."""
    for side in sides:
        side.seconds(call, 1)  # compiles what it needs
    repeats = max(1, int(SAMPLE / max(side.seconds(call, 1) for side in sides)))
    ours, ratios = [], []
    for turn in range(rounds):
        order = sides if turn % 2 else sides[::-1]
        taken = {side: side.seconds(call, repeats) for side in order}
        ours.append(taken[sides[0]])
        ratios.append(taken[sides[0]] / taken[sides[1]])
    return median(ours), sorted(ratios)


def main() -> None:
    """Prints one line a call: microseconds of ours, and ratios to the other commit (below 1: faster)."""
    options = argparse.ArgumentParser(prog="python -m bench.bench_commits")
    options.add_argument("revision", nargs="?", default="HEAD~1")
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--largest", type=int, default=SIZES[-1])
    options.add_argument("--only", default="")
    options.add_argument("--threads", type=int, default=2)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room)
        theirs = install(checkout(asked.revision, folder / "source"), folder / "theirs")
        ours = install(checkout("HEAD", folder / "head"), folder / "ours")
        for elements in (n for n in SIZES if n <= asked.largest):
            with (
                at_work(ours, elements, asked.threads) as one,
                at_work(theirs, elements, asked.threads) as other,
            ):
                for name, call in CALLS.items():
                    if asked.only in name:
                        taken, ratios = compare([one, other], call, asked.rounds)
                        print(
                            f"{name} | {elements:,} elements | {1e6 * taken:,.1f} us | "
                            f"{median(ratios):.3f} of {asked.revision} ({ratios[0]:.3f} - {ratios[-1]:.3f})",
                            flush=True,
                        )


if __name__ == "__main__":
    main()
