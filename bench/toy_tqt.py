"""The toy of TQT (arXiv 1903.08066): a Gaussian, a quantizer, and where its threshold goes.

python -m bench.toy_tqt [--out docs/pictures/tqt_toy.png]

A thousand numbers of a Gaussian are quantized, and the squared error teaches the threshold alone.  It ends
at the same place wherever it begins, for every width and every scale of the numbers: where the gradient
changes its sign, between two powers of two of which one has the least error.  That one is found by trying
all, in integers.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import numerics as nx

FORMATS = ("int3", "int4", "int8")
SIGMAS = (1e-2, 1e-1, 1.0, 1e1, 1e2)
AWAY = (-8, -4, 4, 8)  # powers of two from the best threshold to where training begins
COUNT = 1000  # numbers
STEPS = 400
RATE = 0.1  # of Adam; in the second half it falls to a hundredth, so that the end does not swing
BETAS = (0.9, 0.9)  # short: a power of two nearer to the best threshold the gradient is a quarter of itself
UNIT = 149  # every float32 is a multiple of 2**-149
COLOURS = ("#0b6e4f", "#c8553d", "#588b8b", "#8d6a9f", "#d9a441")


def numbers(sigma: float) -> NDArray[np.float32]:
    """The numbers that are quantized."""
    drawn = np.random.default_rng(19).standard_normal(COUNT)
    return (sigma * drawn).astype(np.float32)


def squared_error(values: list[int], log2_threshold: int, bits: int) -> int:
    """The squared error of integers of that many bits up to a threshold, in units of 2**-298, exactly."""
    end = 1 << (bits - 1)
    step = 1 << (UNIT + log2_threshold - bits + 1)
    return sum((v - min(max(_nearest(v, step), -end), end - 1) * step) ** 2 for v in values)


def _nearest(v: int, step: int) -> int:
    """v / step, rounded half to even."""
    q, left = divmod(v, step)
    return q + (2 * left + (q & 1) > step)


def best(x: NDArray[np.float32], bits: int) -> int:
    """The log2 of the threshold, a power of two, of the least squared error: all are tried, in integers."""
    values = [int(math.ldexp(float(v), UNIT)) for v in x]
    middle = math.frexp(float(np.abs(x).max()))[1]
    return min(range(middle - 12, middle + 3), key=lambda k: squared_error(values, k, bits))


def path(x: NDArray[np.float32], name: str, begin: float, steps: int = STEPS) -> list[float]:
    """The log2 of the threshold before each step, and after the last."""
    data, format = torch.from_numpy(x), nx.dtype(name)
    learned = torch.tensor(float(begin), requires_grad=True)
    optimizer = torch.optim.Adam([learned], lr=RATE, betas=BETAS)
    falls = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 100 ** (1 - 2 * step / steps)))
    found = [float(begin)]
    for _ in range(steps):
        optimizer.zero_grad()
        ((nx.train.tqt(data, learned, format) - data).square().sum() / 2).backward()
        optimizer.step()
        falls.step()
        found.append(learned.item())
    return found


@dataclass(frozen=True)
class Trained:
    """One format and one Gaussian: the log2 of the best threshold, and the paths from everywhere."""

    name: str
    sigma: float
    best: int
    paths: list[list[float]]

    @property
    def ends(self) -> list[float]:
        """Where the paths end."""
        return [found[-1] for found in self.paths]


def trained(name: str, sigma: float, away: Iterable[int] = AWAY) -> Trained:
    """Trains from each of the places, which are powers of two from the best threshold."""
    x = numbers(sigma)
    due = best(x, nx.dtype(name).bits)
    return Trained(name, sigma, due, [path(x, name, due + far) for far in away])


def draw(results: list[Trained], out: Path) -> None:
    """Draws a panel a format: the paths of all Gaussians from everywhere, and the best powers of two."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(FORMATS), figsize=(12, 4.5), sharey=True, layout="constrained")
    for panel, name in zip(axes, FORMATS, strict=True):
        shown = [result for result in results if result.name == name]
        for result, colour in zip(shown, COLOURS, strict=True):
            panel.axhspan(result.best - 1, result.best, color=colour, alpha=0.2, linewidth=0)
            for found in result.paths:
                panel.plot(found, color=colour, linewidth=1.3)
            panel.plot([], color=colour, label=f"$\\sigma$ = {result.sigma:g}")
        panel.set_title(name, fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    axes[-1].legend(fontsize=8, frameon=False, loc="upper right")
    figure.supxlabel("step of training (bands: what the best power of two stands for)", fontsize=10)
    figure.supylabel("log2 of the threshold", fontsize=10)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=80, metadata={"Software": None})
    pyplot.close(figure)


def main() -> None:
    """Draws, and prints where each path ends."""
    options = argparse.ArgumentParser(prog="python -m bench.toy_tqt")
    options.add_argument("--out", type=Path, default=Path("docs/pictures/tqt_toy.png"))
    asked = options.parse_args()
    results = []
    for name, sigma in product(FORMATS, SIGMAS):
        results.append(trained(name, sigma))
        ends = ", ".join(f"{end:.2f}" for end in results[-1].ends)
        print(f"{name} sigma={sigma:g}: best {results[-1].best}, ends at {ends}", flush=True)
    draw(results, asked.out)


if __name__ == "__main__":
    main()
