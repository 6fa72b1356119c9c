"""What formats cost real models: each format, of weights alone and of weights and activations, beside float.

python -m bench.quality [--models MiniLM,crepe-tiny] [--formats mxfp4,int4] [--items 2000] [--out FILE]
[--no-page]

A row is a line of JSON in bench/results/quality.jsonl.  A row that is there is not made again, so that a run
which was stopped goes on where it was; with other items or other versions of what computes it is.  From all
rows the page docs/quality.md and its pictures are written.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

import numerics as nx
from bench.records import rounded
from bench.tasks import ANSWERS, TASKS, Outcome, Task, task
from numerics.formats.errors import NumericsError, one_of
from numerics.tensor.qtensor import ErrorSums

RESULTS, PAGE = Path("bench/results/quality.jsonl"), Path("docs/quality.md")
ITEMS = 2000  # an interval of a share is then 4 % wide at most
MODES = ("W", "W+A")  # weights alone, weights and activations
COMPUTES = ("numpy", "torch", "transformers")  # packages whose version may change a figure
SUMMED = "summed axis"  # where blocks and groups lie: along what a product sums


@dataclass(frozen=True)
class Format:
    """What a row is about: formats of weights and of activations, and how their scales lie."""

    name: str
    weights: nx.QuantSpec
    activations: nx.QuantSpec

    @property
    def scales(self) -> str:
        """Returns who shares a scale, and along which axis."""
        if not self.weights.scaled:
            return "a cast"
        if self.weights.blocked:
            return f"blocks of {self.weights.block.block}, {SUMMED}"
        scheme = self.weights.scheme
        if scheme.kind == "per_group":
            return f"groups of {scheme.size}, {SUMMED}"
        if scheme.kind == "per_channel":
            return "W an output channel, A a tensor"
        return "a tensor"


def _formats() -> Iterator[Format]:
    casts = ("bfloat16", "float16")
    mx = ("mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4", "mxint8")
    readings = ("if4", "if3", "if6_e2m3", "if6_e3m2", "hifloat4")
    for name in (*casts, *mx, "nvfp4", "bfp16", "mx4", "mx6", "mx9", "mxfp3", "nvfp3", "nvint4", *readings):
        yield Format(name, nx.QuantSpec(name), nx.QuantSpec(name))
    floats = (
        "fp8_e4m3",
        "fp8_e5m2",
        "fp8_e3m4",
        "fp8_e4m3fnuz",
        "fp8_e5m2fnuz",
        "fp6_e3m2",
        "fp6_e2m3",
        "fp4",
    )
    for name in (*floats, "int16", "int8", "int4", "int3", "int2"):
        yield _of_elements(name, "per_tensor")
    for name in ("fp8_e4m3", "fp8_e5m2", "fp6_e2m3", "fp4", "int8", "int4", "int3"):
        yield _of_elements(name, "per_channel")
    for name in ("fp4", "int8", "int4", "int3", "int2"):
        yield _of_elements(name, "per_group(32)")
    yield _of_elements("int4", "per_group(128)")
    for name, scheme in (("fp3", "per_group(32)"), ("nf4", "per_group(64)"), ("bnb_fp4", "per_group(64)"),
                         ("hifloat8", "per_tensor"), ("posit8", "per_tensor")):  # fmt: skip
        yield _of_elements(name, scheme)
    for name, scheme in (("uint8", "per_tensor"), ("uint8", "per_channel"), ("uint4", "per_channel"),
                         ("uint4", "per_group(32)"), ("uint2", "per_group(32)")):  # fmt: skip
        yield _of_elements(name, scheme, symmetric=False)


def _of_elements(dtype: str, scheme: str, **options: bool) -> Format:
    """Returns a format with a scheme; a tensor of activations has no channels that are known beforehand."""
    of_inputs = "per_tensor" if scheme == "per_channel" else scheme
    words = [dtype, scheme, *(["asymmetric"] if options else [])]
    return Format(
        " ".join(words),
        nx.QuantSpec(dtype, scheme=scheme, **options),
        nx.QuantSpec(dtype, scheme=of_inputs, **options),
    )


FORMATS = {found.name: found for found in _formats()}
LEFT_OUT = {
    "e8m0": "a format of scales: it has no zero and no sign",
    "ue5m3fn": "a format of scales: it has no sign",
    "ue5m3ieee": "a format of scales: it has no sign",
}


@dataclass(frozen=True)
class Row:
    """What was measured of one format on one model.

    sqnr: of the outputs, in dB; infinity where nothing differs.  agree: items with float's answer.  right:
    items that float answers rightly; gained, lost: those that only the quantized model, and only float,
    answers rightly. local_min, local_mean: dB, of a layer alone on float's inputs.  bits: stored, a value of
    the weights that are quantized, scales included.  layers: how many tensors are.  axes: along which blocks
    and groups lie in them, or which axis has the channels.  versions: of what computed it.  seconds: all in
    all, on whatever else the machine did.
    """

    model: str
    format: str
    mode: str
    scales: str
    items: int
    sqnr: float
    agree: int
    right: int
    gained: int
    lost: int
    local_min: float
    local_mean: float
    bits: float
    layers: int
    axes: str
    versions: str
    seconds: float

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells it from other rows."""
        return self.model, self.format, self.mode, self.items


# ---- one row ----


def measured(asked: Task, float_outcome: Outcome, chosen: Format, mode: str) -> Row:
    """Returns the row of a format on a model, beside what the model makes of the items in float32."""
    start = time.perf_counter()
    activations = chosen.activations if mode == "W+A" else None
    plan = nx.plan(asked.model, chosen.weights, activations, rules=asked.rules or None, example=asked.example)
    quantized = nx.freeze(nx.wrap(asked.model, plan), keep="values")
    stored = list({id(row): row for row in plan.parameters.values()}.values())  # a row has several names
    local = [layer.local for layer in nx.report(quantized, asked.model, [asked.example]).layers]
    outcome = asked.run(quantized)
    same = (outcome.choices == float_outcome.choices).reshape(asked.items, -1).all(1)
    return Row(
        asked.name, chosen.name, mode, chosen.scales, asked.items, sqnr(float_outcome.values, outcome.values),
        int(same.sum()), int(float_outcome.right.sum()), int((outcome.right & ~float_outcome.right).sum()),
        int((float_outcome.right & ~outcome.right).sum()), min(local), sum(local) / len(local),
        8 * sum(row.nbytes for row in stored) / sum(row.size for row in stored), len(stored), axes(stored),
        versions(), time.perf_counter() - start,
    )  # fmt: skip


def axes(rows: list[Any]) -> str:
    """Returns the axes of blocks, groups and channels, and how many weights have each: "1: 5, -1: 2"."""
    found = Counter(
        row.spec.axis if row.spec.blocked else getattr(row.spec.scheme, "axis", None) for row in rows
    )
    return ", ".join(f"{axis}: {count}" for axis, count in found.most_common() if axis is not None)


def sqnr(signal: Tensor, quantized: Tensor) -> float:
    """Returns the ratio of signal to error in dB, summed in float64; infinity where nothing differs."""
    sums = ErrorSums()
    sums.add(signal.numpy(), quantized.numpy())
    return sums.error.sqnr


def versions() -> str:
    """Returns what computes the figures, in words."""
    return ", ".join(
        [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in COMPUTES)]
    )


# ---- all rows ----


def read(path: Path) -> list[Row]:
    """Returns the rows of a file, the last of each key; none where there is no file.

    A last line that was cut by a stop is left out; raises NumericsError for any other line that is no row.
    """
    found: dict[tuple[Any, ...], Row] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            row = Row(**json.loads(line))
        except (ValueError, TypeError) as wrong:
            if number == len(lines) and not line.endswith("}"):
                break
            raise NumericsError(
                f"{path}:{number} is no row of this program ({wrong}); remove the line"
            ) from None
        found[row.key] = row
    return list(found.values())


def write(path: Path, row: Row) -> None:
    """Adds a row to a file; what a stop cut off is taken away before it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        file.write(json.dumps(rounded(asdict(row))).encode() + b"\n")


def due(
    rows: list[Row], models: list[str], formats: list[str], items: int
) -> dict[str, list[tuple[str, str]]]:
    """Returns the formats and modes of each model that no row has, with so many items and these versions."""
    there = {row.key for row in rows if row.versions == versions()}
    return {
        model: [(name, mode) for name in formats for mode in MODES if (model, name, mode, items) not in there]
        for model in models
    }


def run(models: list[str], formats: list[str], items: int, path: Path) -> None:
    """Makes the rows that are due, one after another, and says each on standard error."""
    for model, missing in due(read(path), models, formats, items).items():
        if not missing:
            continue
        asked = task(model, items)
        float_outcome = asked.run(asked.model)
        for number, (name, mode) in enumerate(missing, start=1):
            row = measured(asked, float_outcome, FORMATS[name], mode)
            write(path, row)
            told = (
                f"{model} {number}/{len(missing)}  {name} {mode}: {row.sqnr:.1f} dB, {row.agree} of {items}"
            )
            print(f"{told} {ANSWERS[model][0]}, {row.seconds:.0f} s", file=sys.stderr, flush=True)


def names(came: str, allowed: Any, what: str) -> list[str]:
    """Returns the names in a text with commas between them; a first word stands for all names that begin with
    it.

    Raises NumericsError for one that names nothing.
    """
    found: list[str] = []
    for name in filter(None, map(str.strip, came.split(","))):
        begin = [known for known in allowed if known == name or known.split()[0] == name]
        found += begin or [one_of(what, name, allowed)]
    return list(dict.fromkeys(found)) if came else list(allowed)


def main() -> None:
    """Makes what is due, then the page."""
    options = argparse.ArgumentParser(prog="python -m bench.quality")
    options.add_argument("--models", default="")
    options.add_argument("--formats", default="")
    options.add_argument("--items", type=int, default=ITEMS)
    options.add_argument("--out", type=Path, default=RESULTS)
    options.add_argument(
        "--page", type=Path, default=PAGE, help="the page; its pictures lie in pictures/ beside it"
    )
    options.add_argument("--no-page", action="store_true")
    came = options.parse_args()
    if came.items < 2:
        raise NumericsError(f"--items {came.items} cannot be; allowed: 2 and more")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    run(names(came.models, TASKS, "model"), names(came.formats, FORMATS, "format"), came.items, came.out)
    if not came.no_page:
        from bench.quality_page import write_page

        write_page(read(came.out), came.page)


if __name__ == "__main__":
    try:
        main()
    except NumericsError as refused:
        sys.exit(f"bench.quality: {refused}")
