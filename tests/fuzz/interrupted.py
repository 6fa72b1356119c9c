"""Ctrl-C at random moments of threaded calls: python interrupted.py COUNT SEED LIBRARY SECONDS."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

os.environ["NUMERICS_NUM_THREADS"] = "4"

import numpy as np

import numerics as nx

SIZE = (1 << 23) + 40  # elements: parts of no even length
CALLS: dict[str, Callable[[Any], Any]] = {
    "round": nx.mx6.round,
    "encode": nx.fp8_e4m3.encode,
    "fake_quantize": lambda x: nx.fake_quantize(x, "mxfp4"),
    "quantize": lambda x: nx.quantize(x, "int8").packed,
}


def main(count: int, seed: int, library: str, seconds: float) -> None:
    """Until so many calls were left by KeyboardInterrupt, or the time is over."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    x = _data(library)
    due, takes = {}, {}
    for name, call in CALLS.items():
        due[name] = call(x)
        began = time.perf_counter()
        call(x)
        takes[name] = time.perf_counter() - began
    drawn, caught, end = random.Random(seed), 0, time.monotonic() + seconds
    while caught < count and time.monotonic() < end:
        name = drawn.choice(list(CALLS))
        try:
            found = _struck(CALLS[name], x, drawn.random() * 1.2 * takes[name])
        except KeyboardInterrupt:
            caught += 1
        else:
            assert bool((found == due[name]).all()), f"{name} is wrong after {caught} interrupts"
    for name, call in CALLS.items():
        assert bool((call(x) == due[name]).all()), f"{name} is wrong after all interrupts"
    print(f"{caught} calls were interrupted")


def _data(library: str) -> Any:
    x = np.resize(np.float32([0.1, -2.5, 3.0, 1e-3, 7.0]), SIZE)
    if library == "numpy":
        return x
    import torch

    return torch.from_numpy(x)


def _struck(call: Callable[[Any], Any], x: Any, after: float) -> Any:
    """The call on a copy that is freed as soon as it is left."""
    timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    found = call(x + 0)
    timer.cancel()
    timer.join(60)
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
