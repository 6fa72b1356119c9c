"""A result that the target allocates itself and does not write whole breaks the law `written`."""

from __future__ import annotations

import numpy as np
import pytest

import numerics as nx
from numerics.conform import check
from tests.helpers.cross_faults import KINDS, like, parts


def of_numpy(part):
    return np.empty(part.shape, part.dtype)


def of_torch(part):
    torch = pytest.importorskip("torch")
    kind = {1: torch.uint8, 4: torch.float32}[part.itemsize]
    return torch.empty(part.shape, dtype=kind).numpy().view(part.dtype)


def whole_eights(shape):
    """All but what a loop of eight leaves over at the end."""
    count = int(np.prod(shape))
    return (np.arange(count) < count // 8 * 8).reshape(shape)


def whole_sixteens(shape):
    """All but what a loop of sixteen leaves over in each row."""
    return (
        np.broadcast_to(np.arange(shape[-1]) < shape[-1] // 16 * 16, shape) if shape else np.zeros((), bool)
    )


def all_but_the_last_row(shape):
    kept = np.ones(shape, bool)
    if shape and shape[0] > 1:
        kept[-1] = False
    return kept


def up_to_65536(shape):
    return (np.arange(int(np.prod(shape))) < 1 << 16).reshape(shape)


def nothing(shape):
    return np.zeros(shape, bool)


ALLOCATED = {"numpy": of_numpy, "torch": of_torch}
KEPT = (whole_eights, whole_sixteens, all_but_the_last_row, up_to_65536, nothing)
RESULTS = {"blocks": 2, "quantize": 2}
CASES = [
    (kind, number, memory, kept)
    for kind in KINDS for number in range(RESULTS.get(kind, 1)) for memory in ALLOCATED for kept in KEPT
]  # fmt: skip


def leaves(kernel, number, allocated, kept):
    """The kernel, of whose result with that number only what is kept is written."""

    def call(*given):
        found = kernel(*given)
        every = parts(found)
        part = np.ascontiguousarray(every[number]).reshape(every[number].shape)
        every[number] = allocated(part)
        where = kept(part.shape)
        every[number][where] = part[where]
        return like(found, every)

    return call


@pytest.mark.turns(20)
@pytest.mark.parametrize(
    ("kind", "number", "memory", "kept"), CASES, ids=lambda x: getattr(x, "__name__", str(x))
)
def test_memory_that_a_kernel_returned_as_it_was_was_told_as_layout_or_repeatable(kind, number, memory, kept):
    """Of torch's memory nothing was told: it was never the memory that had been filled before."""
    kernel, _, dtype, options = KINDS[kind]
    with np.errstate(all="ignore"):
        found = check(leaves(kernel, number, ALLOCATED[memory], kept), dtype, effort="quick", **options)
    assert found.law == "written", str(found)
    assert "numbers of its result follow what memory held, the first at" in found.counterexample.where
    assert len(found.failures) == 1


def test_which_array_of_a_result_is_not_written_is_said():
    kernel, _, dtype, options = KINDS["blocks"]
    found = check(leaves(kernel, 1, of_numpy, nothing), dtype, effort="quick", **options)
    assert "of array 2 of 2" in found.counterexample.where


def test_a_scratch_array_that_is_read_before_it_is_written_is_told():
    def kernel(x):
        codes = nx.fp8_e4m3.encode(x)
        scratch = np.empty(4096, np.uint8)
        return codes ^ scratch[-1]

    found = check(kernel, "fp8_e4m3", effort="quick")
    assert found.law == "written", str(found)


@pytest.mark.parametrize("period", [2, 3, 4, 8])
def test_what_changes_from_call_to_call_follows_no_memory(period):
    calls = [0]

    def kernel(x):
        calls[0] += 1
        return nx.fp8_e4m3.encode(x) ^ np.uint8(calls[0] % period == 0)

    found = check(kernel, "fp8_e4m3", effort="quick")
    assert not found
    assert found.law != "written", str(found)


def test_codes_that_differ_by_chance_follow_no_memory():
    rng = np.random.default_rng(3)

    def kernel(x):
        codes = nx.fp8_e4m3.encode(x)
        return codes ^ (rng.random(codes.shape) < 0.5).astype(codes.dtype)

    found = check(kernel, "fp8_e4m3", effort="quick")
    assert not found
    assert found.law != "written", str(found)


def test_a_code_out_of_range_now_and_then_ended_the_judge():
    """A block was asked again by the laws of blocks, and the target then broke another law."""
    calls = [0]

    def kernel(x):
        calls[0] += 1
        made = nx.mxfp4.encode(x)
        codes = made.codes.copy()
        if codes.shape[0] == 2560:
            codes[-1, -1] ^= 1 if calls[0] % 2 else 0x70
        return codes, made.scale

    assert not check(kernel, "mxfp4", effort="quick")
