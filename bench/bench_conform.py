"""How long a judge takes: quick checks of each kind, in fresh processes, and all 2**32 float32 inputs.

python -m bench.bench_conform [--rounds R]

The target of a quick check was called once before, so that what it compiles is not counted; what the judge
imports, and the inputs that it finds, are.  All inputs are asked of our own kernel and of a table look-up,
which is what NumPy does fastest.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

import numerics as nx
from bench.measure import once
from numerics.conform import check

Codes = NDArray[np.uint8]
X = np.linspace(-3, 3, 64, dtype=np.float32).reshape(2, 32)
Kind = tuple[Callable[..., Any], tuple[Any, ...], str | None, dict[str, Any]]
"""A target, arguments of its first call, a format, the options of its check."""


def stochastic(x: NDArray[np.float32], bits: NDArray[np.uint32]) -> Codes:
    """Rounds by random bits that it is given."""
    return nx.fp8_e4m3.encode(x, rounding="stochastic", random_bits=bits)


def product(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """A BLAS's product with a weight of (n, k)."""
    return np.asarray(a @ b.T)


def encoded(q: nx.QTensor) -> NDArray[np.float32]:
    """Numbers of a quantized operand."""
    return np.asarray(q.dequantize())


def quantized_product(a: nx.QTensor, b: nx.QTensor) -> NDArray[np.float32]:
    """The same of quantized operands."""
    return product(encoded(a), encoded(b))


ENCODE = nx.fp8_e4m3.encode
KINDS: dict[str, Kind] = {
    "fp8_e4m3 of float32": (ENCODE, (X,), "fp8_e4m3", {}),
    "fp8_e4m3 of bfloat16": (ENCODE, (X,), "fp8_e4m3", {"inputs": "bfloat16"}),
    "fp8_e4m3, stochastic": (
        *(stochastic, (X, np.zeros(X.shape, np.uint32)), "fp8_e4m3"),
        {"rounding": "stochastic"},
    ),
    "mxfp4": (nx.mxfp4.encode, (X,), "mxfp4", {}),
    "mx6": (nx.mx6.encode, (X,), "mx6", {}),
    "a product of float32": (product, (X, X), None, {"kind": "matmul", "a": "float32", "b": "float32"}),
    "a product of mxfp4 weights": (
        *(lambda a, q: product(a, encoded(q)), (X, nx.quantize(X, "mxfp4")), None),
        {"kind": "matmul", "a": "float32", "b": "mxfp4"},
    ),
}


def quick(name: str) -> float:
    """Seconds of a quick check, which passes."""
    target, first, dtype, options = KINDS[name]
    target(*first)
    start = time.perf_counter()
    verdict = check(target, dtype, effort="quick", **options)
    seconds = time.perf_counter() - start
    if not verdict:
        raise SystemExit(str(verdict))
    return seconds


def looked_up() -> Callable[[NDArray[np.float32]], Codes]:
    """fp8_e4m3 by a table over the upper half of float32's bits, toward zero: no lower bit matters."""
    heads = (np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)).view(np.float32)
    table = nx.fp8_e4m3.encode(heads, rounding="toward_zero")
    table[np.flatnonzero((np.arange(1 << 16) & 0x7FFF) == 0x7F80)] = [0x7E, 0xFE]

    def encode(x: NDArray[np.float32]) -> Codes:
        bits = x.view(np.uint32)
        found: Codes = np.asarray(table[bits >> np.uint32(16)])
        beyond = (bits & np.uint32(0x7FFFFFFF)) > 0x7F800000  # NaN whose head alone is infinite
        if beyond.any():
            found[beyond] = np.where(bits[beyond] >> np.uint32(31), 0xFF, 0x7F)
        return found

    return encode


def every(target: Callable[..., object], rounding: str) -> float:
    """Seconds of a check of all inputs, which passes."""
    verdicts: list[Any] = []
    seconds = once(lambda: verdicts.append(check(target, "fp8_e4m3", rounding=rounding, exhaustive=True)), 1)
    if not verdicts[0]:
        raise SystemExit(str(verdicts[0]))
    return seconds


def main() -> None:
    """Prints a line for every kind and every target: the median, and the range."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    spawned = multiprocessing.get_context("spawn")
    times: dict[str, list[float]] = {name: [] for name in KINDS}
    for _ in range(options.rounds):  # in turn: a neighbour's load weighs on all alike
        for name, found in times.items():
            with spawned.Pool(1) as alone:
                found.append(alone.apply(quick, (name,)))
    for name, found in times.items():
        print(f"quick, {name}: {median(found):.2f} s ({min(found):.2f} - {max(found):.2f})", flush=True)
    for name, target, rounding in (
        ("numerics", ENCODE, "half_even"),
        ("NumPy's table", looked_up(), "toward_zero"),
    ):
        print(f"all 2**32 inputs, {name}: {every(target, rounding):.1f} s", flush=True)


if __name__ == "__main__":
    main()
