"""What a quantized MiniLM costs beside the float one: weights alone, activations too, some rows of a table.

python -m bench.bench_models [--rounds N] [--json FILE]

CPU seconds of one thread, all models in turn, round after round; the median of the rounds' ratios is
written to bench/results/models.json, with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

import numerics as nx
from bench.records import text_of
from bench.tasks import task
from numerics.files.replacement import replace_file

SHAPES = {"1 x 16": (1, 16, 8), "16 x 24": (16, 24, 2)}  # texts, tokens of each, calls of a sample
FORMATS = ("mxfp4", "int8")
ACTIVATIONS = "mxfp8_e4m3"
ROWS = 16  # of a table of words

Calls = dict[str, Callable[[], object]]


def models(model: nn.Module, example: tuple[torch.Tensor, ...]) -> dict[str, nn.Module]:
    """The float model and its frozen ones, by what is quantized and what is kept."""
    made = {"float": model}
    for dtype in FORMATS:
        packed, dense = (nx.wrap(model, dtype, example=example) for _ in range(2))
        both = nx.wrap(model, dtype, activations=ACTIVATIONS, example=example)
        made[f"{dtype}, packed"] = nx.freeze(packed)
        made[f"{dtype}, values kept"] = nx.freeze(dense, keep="values")
        made[f"{dtype}, values kept, activations {ACTIVATIONS}"] = nx.freeze(both, keep="values")
    return made


def of_shape(model: nn.Module, example: tuple[torch.Tensor, ...], shape: tuple[int, int]) -> Calls:
    """A forward of each model, for so many texts of so many tokens."""
    texts, tokens = shape
    batch = tuple(x.repeat(texts, 1 + tokens)[:texts, :tokens].contiguous() for x in example)
    return {name: lambda one=one: one(*batch) for name, one in models(model, batch).items()}


def of_rows() -> Calls:
    """Some rows of a table of 30,522 words, which is what an embedding is asked for."""
    table, words = nn.Embedding(30522, 384), torch.arange(ROWS)
    calls: Calls = {"float": lambda: table(words)}
    for dtype in FORMATS:
        scheme = {} if nx.dtype(dtype).kind == "block" else {"scheme": nx.per_channel(0)}
        weight = nn.Parameter(nx.quantize(table.weight.detach(), dtype, **scheme), requires_grad=False)
        packed = nn.Embedding(30522, 384, _weight=weight, _freeze=True)
        calls[f"{dtype}, packed"] = lambda packed=packed: packed(words)
    return calls


def timed(calls: Calls, rounds: int, several: int) -> dict[str, list[float]]:
    """Milliseconds of CPU time of each call, all in turn, round after round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            for _ in range(several):
                call()
            times[name].append((time.process_time() - start) / several * 1e3)
    return times


def measured(calls: Calls, rounds: int, several: int) -> list[dict[str, Any]]:
    """Milliseconds of each call, and their ratio to the float one's of the same round."""
    times, rows = timed(calls, rounds, several), []
    for name, found in times.items():
        ratios = [mine / floats for mine, floats in zip(found, times["float"], strict=True)]
        rows.append({"model": name, "milliseconds": median(found), "of float": median(ratios),
                     "lowest": min(ratios), "highest": max(ratios)})  # fmt: skip
    return rows


def main() -> None:
    """Prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="of all models in turn")
    parser.add_argument(
        "--json", type=Path, default=Path(__file__).parent / "results" / "models.json", help="where to write"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["NUMERICS_NUM_THREADS"] = "1"
    words = task("MiniLM", 2)
    cases = [
        (f"MiniLM, {name}", of_shape(words.model, words.example, shape[:2]), shape[2])
        for name, shape in SHAPES.items()
    ]
    cases.append((f"embedding of {ROWS} rows", of_rows(), 200))
    rows = []
    with torch.no_grad():
        for case, calls, several in cases:
            for row in measured(calls, options.rounds, several):
                rows.append({"case": case, **row})
                print(f"{case:24s} {row['model']:45s} {row['milliseconds']:8.3f} ms {row['of float']:6.2f} "
                      f"of float ({row['lowest']:.2f} - {row['highest']:.2f})", flush=True)  # fmt: skip
    machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__,
               "threads": 1, "python": platform.python_version()}  # fmt: skip
    replace_file(options.json, text_of({"machine": machine, "rows": rows}).encode())


if __name__ == "__main__":
    main()
