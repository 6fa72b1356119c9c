"""The tables of codebooks as kernels find them: a small tensor a grid and device, made once.

A table that is compiled in is a choice a number: 255 of them take a compiler minutes, and an element longer
than memory does.  So a grid's tables lie in memory, one behind another, and in the grid stands where each
begins; kernels of codebooks of the same shape are the same.
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from numerics.formats.errors import NumericsError
from numerics.formats.grid import UNREACHED, Grid

MOST_RUNS = 2048  # of a sign; more of them than a GPU keeps near by are not laid
COARSEST = 23  # bits of a magnitude that a run may be long: a binade
Numbers = NDArray[np.int64]


class Runs(NamedTuple):
    """Magnitudes in runs of 2**shift, in each of which a codebook has less than 2**depth steps.

    Run k, from 0 to last, is of the magnitudes a with a >> shift equal to first + k, the outer ones of all
    that lie beyond, too; after the runs of positive numbers follow as many of negative ones.  Of depth 1 a
    run is two words: the key of its step, and the code below it and, in the upper half, the code from it on
    (where there are draws: the places).  Of another depth it is a word: the place where its keys begin.
    """

    shift: int
    first: int
    last: int
    depth: int


class Laid(NamedTuple):
    """A table in memory: the place of its first number, how many they are; of steps also their runs.

    runs: they stand at the beginning of the memory.
    """

    start: int
    size: int
    runs: Runs | None = None


def laid(f: Grid, beside: torch.Tensor) -> tuple[Grid, torch.Tensor]:
    """A codebook's grid with Laid in the place of its tables, and the tensor that holds them.

    Of another grid itself, and the tensor beside which the tables would lie: a pointer that nobody follows.
    """
    return (f, beside) if f.values is None else _on(f, beside.device)


@cache  # a table that is in use by another stream may not be freed
def _on(f: Grid, device: torch.device) -> tuple[Grid, torch.Tensor]:
    if device.type != "cpu" and torch.cuda.is_current_stream_capturing():
        raise NumericsError(
            "the tables of a codebook are copied to the GPU by the first call, which a graph cannot capture: "
            "call it once before the capture"
        )
    known, memory = layout(f)
    return known, torch.from_numpy(memory).to(device)


def layout(f: Grid) -> tuple[Grid, NDArray[np.int32]]:
    """The grid that says where its tables are, and the memory that holds them."""
    tables = {field.name: getattr(f, field.name) for field in fields(f)}
    tables = {name: table for name, table in tables.items() if isinstance(table, tuple)}
    runs, words = runs_of(f)
    memory, start, where = [words], len(words), {}
    for name, table in tables.items():
        where[name] = Laid(start, len(table), runs if name == "steps" else None)
        beyond = [UNREACHED] * (1 << runs.depth) if name == "steps" else []  # a search may look there
        memory.append(np.array([*table, *beyond], np.int64))
        start += len(memory[-1])
    return replace(f, **where), np.concatenate(memory).astype(np.int32)


def runs_of(f: Grid) -> tuple[Runs, Numbers]:
    """The runs of the least depth, as long as they can be, and their words."""
    steps = np.array([step for step in f.steps if step != UNREACHED], np.int64)
    lengths = (_runs(steps, shift) for shift in range(COARSEST, -1, -1))
    runs = min((_deep(runs, steps) for runs in lengths if runs.last < MOST_RUNS), key=lambda runs: runs.depth)
    low, high = _places(runs, steps)
    if runs.depth > 1:
        return runs, low
    codes = np.arange(len(f.codes)) if f.heights is not None else np.array(f.codes, np.int64)
    step = np.where(high > low, np.append(steps, UNREACHED)[low], UNREACHED)
    return runs, np.stack((step, codes[low] | codes[high] << 16), 1).reshape(-1)


def _runs(steps: Numbers, shift: int) -> Runs:
    """Runs of that length: each sign's first step, and its last, may lie in the outer ones."""
    signs = [np.sort(steps[steps > 0]), np.sort(-1 - steps[steps < 0])]
    inner = np.concatenate([magnitudes[1:-1] for magnitudes in signs]) >> shift
    first = max(int(inner.min()) - 1, 0) if len(inner) else 0
    return Runs(shift, first, int(inner.max()) + 1 - first if len(inner) else 0, 1)


def _deep(runs: Runs, steps: Numbers) -> Runs:
    """The runs with their depth."""
    low, high = _places(runs, steps)
    return runs._replace(depth=max(int((high - low).max()).bit_length(), 1))


def _places(runs: Runs, steps: Numbers) -> tuple[Numbers, Numbers]:
    """The places of the first and of the last key of each run, positive numbers' before negative ones'."""
    low = (runs.first + np.arange(runs.last + 1)) << runs.shift
    high = low + (1 << runs.shift) - 1
    low[0], high[-1] = 0, UNREACHED - 1
    ends = np.concatenate((low, -1 - high)), np.concatenate((high, -1 - low))
    first, last = (np.searchsorted(steps, end, "right") for end in ends)
    return first, last
