"""Two threads: ends of arrays in a thread that is not the first, long arrays, steps within one line."""

import threading

import numpy as np
import pytest

import numerics as nx
from numerics.conform.checking import check
from numerics.conform.laws.again import rolled
from numerics.conform.laws.laid import cases
from numerics.conform.targets.target import Target
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


@pytest.mark.turns(4)
@pytest.mark.parametrize(("least", "bits"), [(0, 13), (50_000, 20)])
def test_memory_that_threads_share_within_one_line_was_not_met(least, bits):
    found = check(_scratch(least, bits), "fp8_e4m3")
    assert found.law == "threads", str(found)
    assert "alone each is right" in str(found)


@pytest.mark.turns
def test_memory_that_threads_share_is_right_under_a_lock():
    kernel, lock = _scratch(), threading.Lock()

    def locked(x):
        with lock:
            return kernel(x)

    assert check(locked, "fp8_e4m3")


@pytest.mark.turns
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


def _packs(where):
    """A kernel of C-like steps that copies such arrays into memory that all threads share."""
    room = np.empty(1 << 19, np.float32)

    def kernel(x):
        if x.size > len(room) or not where(x):
            return nx.fp8_e4m3.encode(x)
        packed = room[: x.size]
        packed[:] = x.reshape(-1)
        return nx.fp8_e4m3.encode(packed).reshape(x.shape)

    return kernel


@pytest.mark.turns(6)
@pytest.mark.parametrize("where", [
    lambda x: x.ndim == 3 and not x.flags.c_contiguous, lambda x: 0 < x.size < 9, lambda x: x.size > 1 << 17
])  # fmt: skip
def test_a_buffer_for_arrays_of_one_form_was_met_by_one_thread(where):
    """Threads had lines of 8,205 numbers and of a few others, that lay in one piece."""
    found = check(_packs(where), "fp8_e4m3")
    assert found.law == "threads", str(found)
    assert "alone each is right" in str(found)


@pytest.mark.turns
@pytest.mark.parametrize(("dtype", "kind", "where"), [
    ("fp8_e4m3", "encode", lambda x: x.ctypes.data % 16), ("fp8_e4m3", "decode", lambda x: x.ndim == 2),
    ("mxfp4", "round", lambda x: x.shape[-1] % 32), ("mxfp4", "decode", lambda x: not x.flags.c_contiguous),
    ("int4", "pack", lambda x: x.size > 20_000), ("int8", "affine", lambda x: x.ndim == 3),
])  # fmt: skip
def test_what_a_second_thread_lacks_for_one_layout_is_told(dtype, kind, where):
    task, first = Task.of(dtype, kind), threading.get_ident()
    given = [{form(case[0]) for case in cases(Target(lambda x: x, task), 0)} for form in (np.ndim, np.size)]
    assert min(map(len, given)) >= (1 if kind == "pack" else 2)

    def kernel(x, *others):
        result = np.array(RIGHT[dtype, kind](x, *others))
        return result[::-1] if threading.get_ident() != first and where(x) and result.size > 1 else result

    found = check(kernel, dtype, kind=kind)
    assert found.law == "threads", str(found)
    assert "depends on the thread" in str(found)


RIGHT = {
    ("fp8_e4m3", "encode"): nx.fp8_e4m3.encode, ("fp8_e4m3", "decode"): nx.fp8_e4m3.decode,
    ("int4", "pack"): nx.int4.pack, ("mxfp4", "round"): nx.mxfp4.round,
    ("mxfp4", "decode"): lambda codes, scale: nx.Blocks(nx.mxfp4, -1, codes, scale, None, None).decode(),
    ("int8", "affine"): Task.of("int8", "affine").affine_codes,
}  # fmt: skip


@pytest.mark.turns
def test_what_is_wrong_without_another_thread_is_no_fault_of_threads():
    """All numbers of a tensor that begins with NaN are wrong: that was told of the thread."""

    def kernel(x):
        first = np.asarray(x).reshape(-1)[:1]
        return nx.mxfp4.encode(x, scale_rule="ceil" if np.isnan(first).any() else "floor")

    found = check(kernel, "mxfp4")
    assert found.law in ("layout", "short_block"), str(found)
    assert "thread" not in str(found)


@pytest.mark.turns
def test_a_kernel_that_writes_into_its_input_and_restores_it_was_right():
    """Each call had a copy of its own, in which nobody looked meanwhile."""

    def kernel(x):
        if not (x.size and x.flags.writeable):
            return nx.fp8_e4m3.encode(x)
        before = x.copy()
        x[...] = 0
        x[...] = before
        return nx.fp8_e4m3.encode(before)

    found = check(kernel, "fp8_e4m3")
    assert found.law == "threads", str(found)
