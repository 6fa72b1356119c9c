"""Threads change no bit: what is cut lies between the units of the operation; and how many there are."""

from __future__ import annotations

import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import numerics as nx
from numerics.backends.cpu import BACKEND, helpers, threads
from numerics.formats import dispatch
from numerics.formats.errors import NumericsError
from tests.helpers.bits import assert_same_bits
from tests.helpers.marks import either_sign

BLOCKS = (3, 5, 7, 12, 24, 48, 96, 100)
ODD = [
    nx.Integer(name="int3", bits=3),
    nx.Integer(name="uint7", bits=7, signed=False),
    nx.Integer(name="int12", bits=12),
]
CASES = [
    *(("mx", block) for block in BLOCKS),
    *(("scaled", block) for block in (5, 12, 100)),
    *(("integers", block) for block in (3, 48)),
    *(("micro", block) for block in (7, 24, 96)),
]
FAMILIES = {
    "mx": lambda block: nx.block_format(block=block, element="fp6_e2m3"),
    "scaled": lambda block: nx.block_format(block=block, element="fp4", scale="fp8_e4m3"),
    "integers": lambda block: nx.block_format(block=block, element="int4"),
    "micro": lambda block: nx.block_format(block=block, mantissa=4, sub_block=block),
}


@pytest.fixture
def cut_small(monkeypatch):
    """Arrays of a few thousand elements are cut, too."""
    monkeypatch.setattr(threads, "WORTHWHILE", 1 << 10)
    monkeypatch.setattr(threads, "PART", 64)


def everything(d, x):
    """All that a block format does to x."""
    blocks, q = d.encode(x), nx.quantize(x, d)
    parts = [blocks.codes, blocks.scale, *([] if blocks.microexponents is None else [blocks.microexponents])]
    parts += [q.packed, *([] if q.scale is None else [q.scale]), d.pack(blocks)]
    return [*parts, d.decode(blocks), d.round(x), q.dequantize(), nx.fake_quantize(x, d)]


@pytest.mark.turns
@pytest.mark.parametrize(("family", "block"), CASES)
def test_parts_end_between_blocks_of_any_size(cut_small, monkeypatch, family, block):
    """They were multiples of 4096 elements: 6 to 16 % of the values were another block's."""
    d = FAMILIES[family](block)
    rng = np.random.default_rng(block)
    x = (rng.standard_normal(block * 1031) * np.exp2(rng.integers(-9, 9, block * 1031))).astype(np.float32)
    with nx.use("array"):
        due = everything(d, x)
    for count in ("1", "2", "3", "5"):
        monkeypatch.setenv("NUMERICS_NUM_THREADS", count)
        for came, wanted in zip(everything(d, x), due, strict=True):
            assert_same_bits(came, wanted, on=f"{count} threads")


@pytest.mark.parametrize("block", [12, 100])
def test_blocks_that_do_not_divide_a_part_as_they_are_cut_in_earnest(monkeypatch, block):
    d = FAMILIES["integers"](block)
    x = np.random.default_rng(1).standard_normal((threads.WORTHWHILE // block + 7) * block).astype(np.float32)
    found = []
    for count in ("1", "2", "5"):
        monkeypatch.setenv("NUMERICS_NUM_THREADS", count)
        found.append(d.round(x))
    assert_same_bits(found[1], found[0])
    assert_same_bits(found[2], found[0])


@either_sign
@pytest.mark.parametrize("dtype", ["fp4", "fp6_e2m3", "int4", *ODD], ids=str)
def test_packed_codes_of_any_width_and_rows_of_any_length_are_cut_between_bytes(
    cut_small, monkeypatch, dtype
):
    d = nx.dtype(dtype)
    rng = np.random.default_rng(2)
    for shape in ((5003,), (2, 2504), (3, 1001), (7, 640), (2, 9, 333)):
        x = rng.standard_normal(shape).astype(np.float32)
        found = {}
        for count in ("array", "1", "2", "3", "5"):
            monkeypatch.setenv("NUMERICS_NUM_THREADS", "1" if count == "array" else count)
            with nx.use("array" if count == "array" else "cpu"):
                q = nx.quantize(x, d, scheme=nx.per_channel(0) if x.ndim > 1 else "per_tensor")
                last = nx.fake_quantize(x, d, scheme=nx.per_channel(x.ndim - 1))
                packed = d.encode_packed(x)
                found[count] = [
                    q.packed,
                    q.scale,
                    q.dequantize(),
                    last,
                    packed,
                    d.decode_packed(packed, shape),
                ]
        for count, came in found.items():
            for one, due in zip(came, found["array"], strict=True):
                assert_same_bits(np.asarray(one), np.asarray(due), on=f"{count}, {shape}")


def test_units_hold_whole_tiles_bytes_and_lines():
    from numerics.backends.cpu.operations import block_operation, field_streams
    from numerics.formats.rounding import BlockOptions

    for block in (*BLOCKS, 2, 13, 127, 128):
        d = nx.block_format(block=block, element="int4")
        options = BlockOptions()
        operation = block_operation("encode", "float32", d, options, field_streams(d))
        assert operation.cut % block == 0
        assert operation.cut % operation.width == 0
        for stream in operation.streams:
            assert (operation.cut * stream.bits / 8).denominator == 1
        assert operation.cut * operation.outputs[0].bits % (8 * 64) == 0


def test_a_large_scale_array_that_is_not_aligned_is_written(monkeypatch):
    """Stores past the caches want an aligned place; only the first output is promised one."""
    from numerics.backends.cpu import launch

    monkeypatch.setattr(threads, "WORTHWHILE", 1 << 10)
    monkeypatch.setattr(launch, "STREAM_BYTES", 1 << 12)
    d = nx.block_format(block=2, element="int8")
    x = np.random.default_rng(4).standard_normal(1 << 14).astype(np.float32)
    codes = nx.empty(x.size, np.uint8)
    room = np.zeros(x.size // 2 + 64, np.uint8)
    with nx.use("array"):
        due = d.encode(x)
    for shift in (1, 8, 24):
        scale = room[shift : shift + x.size // 2]
        made = d.encode(x, out=nx.Blocks(d, -1, codes, scale))
        assert_same_bits(made.scale, due.scale)
        assert_same_bits(made.codes, due.codes)


@pytest.mark.parametrize(
    ("numerics", "openmp", "due"),
    [
        *[(None, "4,2", 4), (None, " 4", 4), (None, "3 , 1", 3), ("", "2", 2), ("2", "junk", 2)],
        *[(" 2 ", None, 2), ("0004", None, 4), (str(10**8), None, threads.MOST)],
        *[("9" * 5000, None, threads.MOST), (None, "9" * 5000, threads.MOST)],
        *[(None, other, None) for other in ("junk", "0", ",2", "-1", "", "1.5", "\u0663")],
    ],
)
def test_the_number_of_threads_is_read_as_each_variable_means_it(monkeypatch, numerics, openmp, due):
    """OMP_NUM_THREADS=4,2, which OpenMP allows, was refused, and only for large arrays."""
    for name, value in (("NUMERICS_NUM_THREADS", numerics), ("OMP_NUM_THREADS", openmp)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert threads.count() == (min(cpus, threads.MOST) if due is None else due)


@pytest.mark.parametrize("asked", ["many", "0", "-2", "1.5", "4,2", "0x4", "\u0663"])
def test_a_number_of_threads_that_is_none_is_refused_before_anything_is_written(monkeypatch, asked):
    """Eleven elements of an unaligned `out=` had been written."""
    x = np.ones(1 << 23, np.float32)
    room = np.full((1 << 23) + 16, -1, np.float32)
    out = room[1 : 1 + x.size] if room.ctypes.data % 64 == 0 else room[: x.size]
    nx.fp4.round(x[:8])
    monkeypatch.setenv("NUMERICS_NUM_THREADS", asked)
    with pytest.raises(nx.NumericsError, match="NUMERICS_NUM_THREADS"):
        nx.fp4.round(x, out=out)
    assert (room == -1).all()


def test_an_absurd_number_of_threads_starts_few(monkeypatch):
    monkeypatch.setenv("NUMERICS_NUM_THREADS", str(10**8))
    x = np.random.default_rng(5).standard_normal(1 << 21).astype(np.float32)
    came = nx.fp4.round(x)
    assert helpers.started() < threads.MOST
    monkeypatch.setenv("NUMERICS_NUM_THREADS", "1")
    assert_same_bits(came, nx.fp4.round(x))


def test_formats_that_are_declared_and_forgotten_leave_few_operations(monkeypatch):
    """Twelve kilobytes stayed for each: its operations, each with an arithmetic of its own."""
    from numerics.backends.cpu import EXECUTOR, executor, lanes

    monkeypatch.setattr(executor, "OPERATIONS", 40)
    x = np.ones(8, np.float32)
    for k in range(100):
        d = nx.float_format(4, 3, bias=k % 50, name=f"forgotten{k}")
        assert_same_bits(d.round(x), d.decode(d.encode(x)))
    assert len(EXECUTOR._operations) <= 40
    assert lanes.arithmetic() is lanes.arithmetic()


def test_a_call_took_the_tensors_scale_of_another_thread():
    """Operations are shared, their first number is each call's own."""
    x = np.random.default_rng(2).standard_normal(512, np.float32)
    scales = [1.0 + k / 16 for k in range(8)]
    due = [nx.nvfp4.round(x, tensor_scale=scale) for scale in scales]

    def again(k: int) -> bool:
        return all(np.array_equal(nx.nvfp4.round(x, tensor_scale=scales[k]), due[k]) for _ in range(200))

    with ThreadPoolExecutor(len(scales)) as pool:
        assert all(pool.map(again, range(len(scales))))
    assert len({values.tobytes() for values in due}) == len(scales)


def test_work_is_shared_in_order_in_the_context_of_the_caller_and_its_errors_come_out(monkeypatch):
    monkeypatch.setenv("NUMERICS_NUM_THREADS", "3")
    with nx.use("array"):
        chosen = dispatch.owner(np.ones(1, np.float32))
        found = BACKEND.each(lambda place: (place, dispatch.owner(np.ones(1, np.float32))), 50)
    assert chosen is not BACKEND
    assert found == [(place, chosen) for place in range(50)]

    def refused(place):
        if place == 7:
            raise NumericsError("place 7")

    with pytest.raises(NumericsError, match="place 7"):
        BACKEND.each(refused, 50)


@pytest.fixture
def late(monkeypatch):
    """Helpers of which the only one is busy: it looks at no job until the test has ended."""
    monkeypatch.setattr(helpers, "_pool", helpers.Helpers())
    busy, go, ended = threading.Event(), threading.Event(), threading.Event()

    def wait():
        if threading.current_thread() is not owner:
            busy.set()
            go.wait(60)

    def own():
        helpers.share(lambda: (wait(), busy.wait(60)), [(), ()], None, 1)
        ended.set()

    owner = threading.Thread(target=own, daemon=True)
    owner.start()
    assert busy.wait(60)
    yield helpers._pool
    go.set()
    assert ended.wait(60)


def test_jobs_that_are_done_keep_nothing_while_they_wait_for_a_helper_that_is_late(late):
    class Large:
        pass

    large = Large()
    seen = weakref.ref(large)
    for _ in range(10 * helpers.WAITING):
        helpers.share(lambda large=large: None, [()], large, 1)
    del large
    assert seen() is None
    assert late._jobs.qsize() <= helpers.WAITING
