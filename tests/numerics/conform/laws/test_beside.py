"""Two threads: ends of arrays in a thread that is not the first, long arrays, steps within one line."""

import threading

import numpy as np
import pytest

import numerics as nx
from numerics.conform.checking import check
from numerics.conform.laws.again import rolled
from numerics.conform.target import Target
from numerics.conform.task import Task


def _scratch(least=0, bits=20):
    """A kernel whose numbers pass through memory that all threads share, where they are so many."""
    room = np.empty(1 << bits, np.float32)

    def kernel(x):
        n = x.size
        if not least <= n < len(room):
            return nx.fp8_e4m3.encode(x)
        return (room.__setitem__(slice(n), x.reshape(-1)), nx.fp8_e4m3.encode(room[:n]).reshape(x.shape))[1]

    return kernel


@pytest.mark.parametrize(("least", "bits"), [(0, 13), (50_000, 20)])
def test_memory_that_threads_share_within_one_line_was_not_met(least, bits):
    found = check(_scratch(least, bits), "fp8_e4m3")
    assert found.law == "threads", str(found)
    assert "alone each is right" in str(found)


def test_memory_that_threads_share_is_right_under_a_lock():
    kernel, lock = _scratch(), threading.Lock()

    def locked(x):
        with lock:
            return kernel(x)

    assert check(locked, "fp8_e4m3")


def test_what_other_threads_lose_at_the_end_was_never_last_there():
    """-0 in the last places of a length that four does not divide; the text says that the thread does it."""
    first = threading.get_ident()

    def kernel(x):
        codes = np.array(nx.fp8_e4m3.encode(x))
        if threading.get_ident() != first and x.size:
            tail = codes.reshape(-1)[x.size // 4 * 4 :]
            tail[tail == 0x80] = 0
        return codes

    found = check(kernel, "fp8_e4m3")
    assert found.law == "threads", str(found)
    assert "depends on the thread" in str(found)


@pytest.mark.parametrize(
    ("dtype", "kind"), [("fp4", "encode"), ("fp8_e5m2", "decode"), ("int4", "pack"), ("mxfp4", "round")]
)
def test_every_number_is_the_last_of_one_question(dtype, kind):
    every = list(rolled(Target(lambda x: x, Task.of(dtype, kind)), 67))
    firsts, lasts = ({one.inputs[0][at].tobytes() for one in every} for at in (0, -1))
    assert len(firsts & lasts) > 4
    assert len(every) == min(48, len(every[0].inputs[0]))
