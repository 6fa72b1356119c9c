"""How long a check of one 8-bit encoder takes: quick, and over all 2**32 float32 inputs.

python -m bench.bench_conform

The targets: our own kernel, and a table look-up, which is what NumPy does fastest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

import numerics as nx
from bench.measure import once
from numerics.conform import check

Codes = NDArray[np.uint8]


def looked_up() -> Callable[[NDArray[np.float32]], Codes]:
    """fp8_e4m3 by a table over the upper half of float32's bits, toward zero: no lower bit matters."""
    heads = (np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)).view(np.float32)
    table = nx.fp8_e4m3.encode(heads, rounding="toward_zero")
    table[np.flatnonzero((np.arange(1 << 16) & 0x7FFF) == 0x7F80)] = [0x7E, 0xFE]

    def encode(x: NDArray[np.float32]) -> Codes:
        bits = x.view(np.uint32)
        found: Codes = table[bits >> np.uint32(16)]
        beyond = (bits & np.uint32(0x7FFFFFFF)) > 0x7F800000  # NaN whose head alone is infinite
        if beyond.any():
            found[beyond] = np.where(bits[beyond] >> np.uint32(31), 0xFF, 0x7F)
        return found

    return encode


def timed(target: Callable[..., object], **options: object) -> float:
    """Seconds of a check that passes."""
    verdicts = []
    seconds = once(lambda: verdicts.append(check(target, "fp8_e4m3", **options)), 1)
    assert verdicts[0], verdicts[0]
    return seconds


def main() -> None:
    """Prints one line a target."""
    ours, table = nx.fp8_e4m3.encode, looked_up()
    for name, target, rounding in (("numerics", ours, "half_even"), ("NumPy's table", table, "toward_zero")):
        quick, whole = (timed(target, rounding=rounding, exhaustive=every) for every in (False, True))
        print(f"{name}: quick {quick:.2f} s, all 2**32 inputs {whole:.1f} s")


if __name__ == "__main__":
    main()
