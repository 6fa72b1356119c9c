"""Every float32 input: an encoder against its breakpoints.

An encoder is a step function of the magnitude's bits, so its whole truth is a short list of
(first bits, code).  `sweep` runs the encoder over all inputs of one sign and compares run by run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Encoder = Callable[[NDArray[np.float32], NDArray[Any]], None]
"""encode(x, out): codes of float32 inputs into out."""

CHUNK = 1 << 18  # inputs and codes of a chunk stay in a second-level cache
SIGN = 1 << 31


@dataclass(frozen=True)
class Sweep:
    """What a sweep found: inputs tried, mismatches, and the first of them."""

    inputs: int
    mismatches: int
    first: tuple[int, int, int] | None = None
    """Bits of the input, the code that came, the code that should have."""

    def __add__(self, other: Sweep) -> Sweep:
        return Sweep(
            self.inputs + other.inputs, self.mismatches + other.mismatches, self.first or other.first
        )

    def __str__(self) -> str:
        if self.first is None:
            return f"{self.inputs} inputs, 0 mismatches"
        bits, came, due = self.first
        value = np.uint32(bits).view(np.float32)
        return (
            f"{self.inputs} inputs, {self.mismatches} mismatches; first: "
            f"{value!r} (0x{bits:08X}) gave 0x{came:X}, should be 0x{due:X}"
        )


def sweep(
    encode: Encoder, steps: Sequence[tuple[int, int]], negative: bool, code_dtype: str, end: int = SIGN
) -> Sweep:
    """The encoder over the magnitudes 0 .. end - 1 of one sign, against its steps.

    steps: rising (first magnitude bits, code from there on), from 0.

    >>> import numerics as nx
    >>> from numerics.backends.reference.breakpoints import breakpoints
    >>> def encode(x, out):
    ...     nx.fp4.encode(x, out=out)
    >>> print(sweep(encode, breakpoints(nx.fp4, "half_even", "saturate", False), False, "uint8", 1 << 20))
    1048576 inputs, 0 mismatches
    """
    firsts = np.array([first for first, _ in steps] + [end], np.int64)
    codes = np.array([code for _, code in steps], code_dtype)
    count = np.arange(CHUNK, dtype=np.uint32)
    bits, out = np.empty(CHUNK, np.uint32), np.empty(CHUNK, code_dtype)
    total = Sweep(0, 0)
    for start in range(0, end, CHUNK):
        size = min(CHUNK, end - start)
        np.add(count[:size], np.uint32(start + (SIGN if negative else 0)), out=bits[:size])
        encode(bits[:size].view(np.float32), out[:size])
        total += _compare(bits[:size], out[:size], firsts, codes, start)
    return total


def _compare(
    bits: NDArray[np.uint32], out: NDArray[Any], firsts: NDArray[np.int64], codes: NDArray[Any], start: int
) -> Sweep:
    """One chunk: as a rule it lies within a single step."""
    low = int(np.searchsorted(firsts, start, "right")) - 1
    high = int(np.searchsorted(firsts, start + len(out), "left"))
    due: Any = codes[low]
    if high - low > 1:
        edges = np.clip(firsts[low : high + 1], start, start + len(out))
        due = np.repeat(codes[low:high], np.diff(edges))
    wrong = out != due
    if not wrong.any():
        return Sweep(len(out), 0)
    place = int(wrong.argmax())
    expected = int(due[place]) if isinstance(due, np.ndarray) else int(due)
    return Sweep(len(out), int(wrong.sum()), (int(bits[place]), int(out[place]), expected))
