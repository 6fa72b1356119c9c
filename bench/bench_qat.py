"""Training with quantization, on scikit-learn's digits: what it wins back, by each way to learn a scale.

python -m bench.bench_qat [--seeds 5] [--only WORD] [--epochs N] [--out FOLDER] [--page FILE]

A small perceptron and a small convolutional network are trained in float, quantized (weights and the inputs
of all products, a scale a tensor), measured, and trained on for a few epochs: straight through (ste), with
learned thresholds (tqt), with learned steps (lsq).  mxfp4 stands beside them, quantized only.  What was
trained is frozen, and must then give the same bits.

Each run is written to bench/results/qat.json when it is done, and is not run again; one of other epochs is.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import numerics as nx
from bench.records import text_of
from numerics.files.replacement import replace_file

FORMATS = (("int8", "int8"), ("int4", "int4"), ("int3", "int3"), ("int2", "int4"), ("mxfp4", "mxfp4"))
METHODS = ("ste", "tqt", "lsq")
FLOAT_EPOCHS, FLOAT_RATE = 30, 3e-3
EPOCHS, RATE, THRESHOLD_RATE = 10, 1e-3, 1e-2
SETTLED = {"tqt": 0.5}  # the share of the epochs after which thresholds rest, as the paper of TQT has it
BATCH, EXAMPLES = 64, 256  # items of a step, and those from which thresholds begin
PACKAGES = ("torch", "scikit-learn", "numpy")


class CNN(nn.Module):
    """Two convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.last = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ten scores for each picture of 64 numbers."""
        x = self.first(x.view(-1, 1, 8, 8)).relu()
        scores: Tensor = self.last(self.second(x).relu().flatten(1))
        return scores


def mlp() -> nn.Module:
    """Three linear layers."""
    hidden = (nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
    return nn.Sequential(*hidden, nn.Linear(32, 10))


MODELS: dict[str, Callable[[], nn.Module]] = {"mlp": mlp, "cnn": CNN}


class Digits(NamedTuple):
    """Pictures of 64 numbers in 0 .. 1, and the digits that they show."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


@cache
def digits() -> Digits:
    """1,078 pictures to train with, and 719 to measure."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    found = train_test_split(x / 16, y, test_size=0.4, random_state=0, stratify=y)
    train_x, test_x = (torch.tensor(part, dtype=torch.float32) for part in found[:2])
    train_y, test_y = (torch.tensor(part) for part in found[2:])
    return Digits(train_x, train_y, test_x, test_y)


@dataclass(frozen=True)
class Run:
    """One model, trained: accuracies in % of float, of the same quantized, and after training on.

    after: None where it was only quantized.  frozen: did it, frozen, give the bits that it gave before?
    """

    model: str
    seed: int
    weights: str
    activations: str
    method: str
    epochs: int
    float: float
    before: float
    after: float | None
    frozen: bool

    @property
    def key(self) -> tuple[Any, ...]:
        """What was asked for."""
        return self.model, self.seed, self.weights, self.activations, self.method, self.epochs


def train(
    model: nn.Module, epochs: int, groups: Any, rate: float, seed: int, settled: float | None = None
) -> None:
    """Trains with Adam and a cosine, in an order that the seed says; thresholds rest after a share of it."""
    data, order = digits(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(groups, lr=rate)
    falls = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(epochs, 1))
    model.train()
    for epoch in range(epochs):
        if settled is not None and epoch == int(settled * epochs):
            nx.train.freeze_thresholds(model)
        for batch in torch.randperm(len(data.x), generator=order).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data.x[batch]), data.y[batch]).backward()
            optimizer.step()
        falls.step()
    model.eval()


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    """Right answers, in %."""
    data = digits()
    return 100 * float((model(data.test_x).argmax(1) == data.test_y).float().mean())


def in_float(name: str, seed: int, epochs: int = FLOAT_EPOCHS) -> nn.Module:
    """The model, trained in float: the same each time."""
    torch.manual_seed(seed)
    made = MODELS[name]()
    train(made, epochs, made.parameters(), FLOAT_RATE, seed)
    return made


def run(model: nn.Module, asked: tuple[Any, ...]) -> Run:
    """Quantizes a trained model, and trains it on; the model itself stays as it is."""
    name, seed, weights, activations, method, epochs = asked
    copy = MODELS[name]()  # a wrapped model shares its parameters with what was wrapped
    copy.load_state_dict(model.state_dict())
    qat = None if method == "ptq" else method
    wrapped = nx.wrap(copy, weights, activations=activations, qat=qat, example=digits().x[:EXAMPLES]).eval()
    before, after = accuracy(wrapped), None
    if qat is not None:
        groups: Any = wrapped.parameters()
        if qat != "ste":
            groups = nx.train.parameter_groups(wrapped, lr=THRESHOLD_RATE)
        train(wrapped, epochs, groups, RATE, seed + 1000, SETTLED.get(method))
        after = accuracy(wrapped)
    return Run(*asked, accuracy(model), before, after, _frozen_gives_the_same(wrapped))


@torch.no_grad()
def _frozen_gives_the_same(wrapped: nn.Module) -> bool:
    x = digits().test_x
    due = wrapped(x)
    frozen = nx.freeze(wrapped)
    with nx.decoded_products():  # sums in torch's order, as they were
        return torch.equal(frozen(x), due)


def asked_for(seeds: int, epochs: int) -> Iterator[tuple[Any, ...]]:
    """All runs: every model of a seed, every format, every way to learn it."""
    for seed, name, (weights, activations) in product(range(seeds), MODELS, FORMATS):
        for method in METHODS if weights.startswith("int") else ("ptq",):
            yield name, seed, weights, activations, method, epochs


def known(path: Path) -> list[Run]:
    """The runs that a file holds."""
    if not path.exists():
        return []
    return [Run(**row) for row in json.loads(path.read_text(encoding="utf-8"))["runs"]]


def write(path: Path, runs: list[Run]) -> None:
    """Writes the runs, each a line, and what ran them."""
    machine = {package: version(package) for package in PACKAGES} | {"python": platform.python_version()}
    replace_file(path, text_of({"machine": machine, "runs": [asdict(one) for one in runs]}).encode())


# ---- the page ----------------------------------------------------------------------------------------

PAGE = """# Training with quantization: scikit-learn's digits

`make qat` writes this page and bench/results/qat.json. Small networks, a perceptron of three layers (mlp) and
two convolutions with a linear layer (cnn), learn the digits in float ({float_epochs} epochs), are quantized
(weights and the inputs of all products, one scale a tensor), and learn on for {epochs} epochs:

- *ste*: gradients go straight through; scales come from each tensor's largest magnitude;
- *tqt*: thresholds are learned, and scales are powers of two; after half of the epochs thresholds rest, as in
  TQT's paper, since a threshold beside a power of two goes on to change its scale from step to step;
- *lsq*: steps are learned.

Figures are % of {items} pictures that nobody learned from, mean ± standard deviation over {seeds} seeds; one
picture is {item:.2f} %. *quantized* is before learning on, with the scales of *ste*; mxfp4 is quantized only.
*tqt - ste* is the mean difference within a seed ± its standard error: only that tells small differences from
the luck of a seed.

{table}

Each of the {runs} models was frozen to packed weights; {frozen} of them then gave the same bits.
"""


def page(runs: list[Run], epochs: int) -> str:
    """The page, of runs of that many epochs."""
    seeds = len({one.seed for one in runs})
    items = len(digits().test_y)
    return PAGE.format(
        float_epochs=FLOAT_EPOCHS, epochs=epochs, items=items, seeds=seeds, item=100 / items,
        table=table(runs), runs=len(runs), frozen=sum(one.frozen for one in runs),
    )  # fmt: skip


def table(runs: list[Run]) -> str:
    """A line a model and format, in the order of the runs."""
    columns = ("model", "weights / inputs", "float", "quantized", *METHODS, "tqt - ste", "lsq - ste")
    lines = ["| " + " | ".join(columns) + " |", "|---|---|" + "---:|" * (len(columns) - 2)]
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for one in runs:
        groups.setdefault((one.model, one.weights, one.activations), []).append(one)
    for (model, weights, activations), of in sorted(groups.items(), key=lambda item: item[0][0] != "mlp"):
        cells = [
            model,
            f"{weights} / {activations}",
            _said([one.float for one in of if one.method == of[0].method]),
        ]
        cells.append(_said([one.before for one in of if one.method in ("ste", "ptq")]))
        cells += [_said([one.after for one in of if one.method == method]) for method in METHODS]
        cells += [_difference(of, method) for method in ("tqt", "lsq")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _said(figures: list[Any]) -> str:
    """Mean and standard deviation; a dash of none."""
    found = [figure for figure in figures if figure is not None]
    if not found:
        return "-"
    return f"{mean(found):.1f}" + (f" ± {stdev(found):.1f}" if len(found) > 1 else "")


def _difference(runs: list[Run], method: str) -> str:
    """The mean difference to ste of the same seed, and its standard error."""
    plain = {one.seed: one.after for one in runs if one.method == "ste"}
    found = [
        (one.after or 0) - (plain[one.seed] or 0)
        for one in runs
        if one.method == method and one.seed in plain
    ]
    if not found:
        return "-"
    return f"{mean(found):+.1f}" + (f" ± {stdev(found) / len(found) ** 0.5:.1f}" if len(found) > 1 else "")


def main() -> None:
    """Runs what is not there yet, and writes the page."""
    options = argparse.ArgumentParser(prog="python -m bench.bench_qat")
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--only", default="", help="a word of `mlp int4 tqt`")
    options.add_argument("--epochs", type=int, default=EPOCHS)
    options.add_argument("--out", type=Path, default=Path("bench/results"))
    options.add_argument("--page", type=Path, default=Path("docs/qat.md"))
    asked = options.parse_args()
    torch.set_num_threads(1)  # the order of sums, and so the figures, must not depend on the machine's cores
    path = asked.out / "qat.json"
    asked.out.mkdir(parents=True, exist_ok=True)
    runs = known(path)
    there = {one.key for one in runs}
    every = [one for one in asked_for(asked.seeds, asked.epochs) if all(w in one for w in asked.only.split())]
    models: dict[tuple[str, int], nn.Module] = {}
    for count, one in enumerate(every, 1):
        if one in there:
            continue
        if one[:2] not in models:
            models = {one[:2]: in_float(one[0], one[1], FLOAT_EPOCHS if asked.epochs else 0)}
        runs.append(run(models[one[:2]], one))
        write(path, runs)
        made = runs[-1]
        after = "" if made.after is None else f" -> {made.after:.1f}"
        print(
            f"{count}/{len(every)} {' '.join(map(str, one[:5]))}: {made.float:.1f} {made.before:.1f}{after}",
            flush=True,
        )
    order = {
        key: place for place, key in enumerate(asked_for(max(one.seed for one in runs) + 1, asked.epochs))
    }
    shown = sorted((one for one in runs if one.key in order), key=lambda one: order[one.key])
    replace_file(asked.page, page(shown, asked.epochs).encode())
    print(table(shown))


if __name__ == "__main__":
    main()
