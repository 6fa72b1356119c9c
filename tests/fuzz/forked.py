"""fork while other threads compile: python forked.py COUNT SEED SECONDS, with an empty cache."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
import warnings

import numpy as np

import numerics as nx

X = np.resize(np.float32([0.1, -2.5, 3.0, 1e-3]), (4, 96))
ROUNDINGS = ("floor", "ceil", "half_away", "half_down", "half_up", "to_odd", "toward_zero")
ELEMENTS = [d for d in nx.dtypes() if d.kind != "block"]


def main(count: int, seed: int, seconds: float) -> None:
    """So many children, one after the other, each of which needs kernels that nobody has built."""
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork beside threads
    drawn = random.Random(seed)
    for k in range(2):
        threading.Thread(target=_first_calls, args=(k,), daemon=True).start()
    for k in range(count):
        time.sleep(drawn.random() * 0.05)
        d, rounding = drawn.choice(ELEMENTS), drawn.choice(ROUNDINGS)
        child = os.fork()
        if child == 0:
            _work(d, rounding)
        status = _status(child, seconds)
        if status:
            sys.stderr.write(f"child {k} of {d} {rounding}: {status}\n")
            sys.stderr.flush()
            os._exit(1)  # the threads still compile
    print(f"{count} children ended well", flush=True)
    os._exit(0)


def _first_calls(seed: int) -> None:
    """Kernel after kernel, for ever."""
    drawn = random.Random(seed)
    for k in range(2, 10**6):
        d = nx.block_format(block=k % 97 + 2, element=drawn.choice(("fp4", "int8", "fp6_e2m3")))
        d.round(X, rounding=drawn.choice(ROUNDINGS))


def _work(d: nx.Element, rounding: str) -> None:
    """The child's: a call, compared with another backend's."""
    status = 1
    try:
        found = d.round(X, rounding=rounding)
        with nx.use("array"):
            status = 0 if found.tobytes() == d.round(X, rounding=rounding).tobytes() else 2
    finally:
        os._exit(status)


def _status(child: int, seconds: float) -> str:
    """How a child ended, where not well."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return f"status {status}" if status else ""
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return f"hangs for {seconds:g} s"


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
