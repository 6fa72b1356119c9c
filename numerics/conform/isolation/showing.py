"""What a target was given, for people: its first numbers, how many there are, what lies beside them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from numerics.conform.inputs.shapes import is_plain, steps_of
from numerics.conform.kinds import FINDS
from numerics.conform.products.circumstances.other_memory import laid
from numerics.conform.products.problem import Problem
from numerics.conform.products.telling.terms import terms
from numerics.conform.targets.faults import Case
from numerics.conform.task import Array, Task
from numerics.conform.verdict import Number, numbers
from numerics.formats.block import Block

SHOWN = 4
"""Numbers of more; of a single block, all up to its last that is not zero."""
BESIDE = {
    "encode": ("", "random bits"), "round": ("", "random bits"), "affine": ("", "scale", "zero point"),
    "decode": ("codes", "scales", "microexponents"), "pack": ("codes",), "unpack": ("bytes", "count"),
    "quantize": ("",), "fake_quantize": ("",),
}  # fmt: skip
"""What the arguments of each kind are called; values stand for themselves."""


class Shown(NamedTuple):
    """The parts of a counterexample that say what was given."""

    input: tuple[Number, ...]
    where: str
    tensor: Array | None = None
    terms: tuple[str, ...] = ()


def shown(task: Any, case: Case) -> Shown:
    """A case, of a Task or of a product's Claim."""
    if isinstance(case[0], Problem):
        (m, n), k = case[0].matrix, case[0].shape[2]
        batches = f"batches {' x '.join(map(str, case[0].batch))}, " if case[0].batch else ""
        return Shown(
            (),
            f"{batches}m={m} n={n} k={k}{laid(case[0])}",
            None,
            terms(case[0], (0, 0)) if m * n == 1 else (),
        )
    x = case[0]
    floats = task.kind in ("encode", "round", "affine", *FINDS)
    flat = x.reshape(-1).astype(np.float32) if floats else x.reshape(-1)
    used = _used(task, flat)
    strides = "" if is_plain(x) else f", strides {steps_of(x)}"
    said = [] if x.shape == (1,) and not strides else [f"an input of shape {x.shape}{strides}"]
    if floats and used < x.size:
        rest = flat[used:].view(np.uint32).any()
        said.append(f"the first {used} of {x.size:,}" if rest else f"then {x.size - used} zeros")
    for name, part in zip(BESIDE[task.kind], case, strict=False):
        said += [f"{name} {_text(part, used)}"] if name else []
    first = numbers(flat[:used]) if floats else ()
    return Shown(first, ", ".join(said), x if floats and x.dtype == np.float32 else None)


def _used(task: Task, flat: Array) -> int:
    """How many of the numbers are shown."""
    if isinstance(task.dtype, Block) and flat.dtype == np.float32 and flat.size <= task.dtype.block:
        return int(np.flatnonzero(np.append(1, flat.view(np.uint32)))[-1]) or 1
    return min(SHOWN, flat.size)


def _text(part: Any, used: int) -> str:
    """Codes and bits in hex; other numbers as they are."""
    if not isinstance(part, np.ndarray):
        return f"{part:.9g}" if isinstance(part, float) else str(part)
    flat = part.reshape(-1)
    whole = flat.dtype.kind == "u"
    text = " ".join(f"0x{int(one):02X}" if whole else f"{one:.9g}" for one in flat[:used].tolist())
    return text + f" ... ({flat.size:,})" * (flat.size > used)
