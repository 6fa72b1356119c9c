"""A fault of memory, of the calls before, of a thread is told as what it is, whatever it spoils first."""

from __future__ import annotations

import numpy as np
import pytest

import numerics as nx
from numerics.conform import check
from numerics.conform.inputs.edges import PAGE
from numerics.conform.laws.alone import LIES
from numerics.conform.laws.company import misplaced
from numerics.conform.laws.depends import depends
from numerics.conform.targets.target import Target
from numerics.conform.task import Task
from tests.helpers.cross_faults import FAULTS, KINDS, planted
from tests.helpers.faults import FAULTS as OTHERS

SLOW = ("quantize", "fake_quantize")
CROSS = [(kind, fault) for kind in KINDS for fault in FAULTS]
SAYS = {"repeatable": ("depends on the calls before it", "a buffer that is used again"),
        "threads": ("another thread", "the thread", "at once", "a second thread")}  # fmt: skip


@pytest.mark.turns(200)
@pytest.mark.parametrize(("kind", "fault"), [one for one in CROSS if one[0] not in SLOW])
def test_a_fault_of_memory_of_calls_or_of_threads_was_told_as_a_wrong_value(kind, fault):
    _told(kind, fault)


@pytest.mark.turns(72)
@pytest.mark.parametrize(("kind", "fault"), [one for one in CROSS if one[0] in SLOW])
def test_so_it_was_of_kernels_that_find_their_scales(kind, fault):
    """A scratch buffer that was kept was `layout`, or a scale by a wrong rule."""
    _told(kind, fault)


def _told(kind, fault):
    target, dtype, options, law = planted(kind, fault)
    with np.errstate(all="ignore"):
        found = check(target, dtype, **options)
    assert found.law == law, str(found)
    assert len(found.failures) == 1
    assert found.differs <= found.tried
    if law in SAYS:
        assert any(word in found.counterexample.where for word in SAYS[law]), str(found)


@pytest.mark.turns(32)
@pytest.mark.parametrize("kind", KINDS)
def test_the_kernels_in_which_they_are_planted_are_right(kind):
    kernel, _, dtype, options = KINDS[kind]
    with np.errstate(all="ignore"):
        found = check(kernel, dtype, **options)
    assert found, str(found)


@pytest.mark.turns(54)
@pytest.mark.parametrize("name", OTHERS)
def test_no_more_inputs_differ_than_were_tried(name):
    fault = OTHERS[name]
    found = check(fault.target, fault.dtype, **fault.options)
    assert found.differs <= found.tried, str(found)


@pytest.mark.parametrize(("dtype", "options"), [
    ("int8 per_token", {}), ("uint8 per_token symmetric=False", {}), ("int8", {"scheme": "per_group(32)"})
])  # fmt: skip
def test_44_of_39_inputs_differed(dtype, options):
    """A wrong scale, and each code below it, were counted one by one."""

    def kernel(x):
        task = planted_task(dtype, options)
        codes, scale, zero = task.answer(np.ascontiguousarray(x).reshape(np.shape(x)))
        return tuple(part for part in (codes ^ 1, scale * 2, zero) if part is not None)

    found = check(kernel, dtype, kind="quantize", effort="quick", **options)
    assert not found
    assert 0 < found.differs <= found.tried


def planted_task(dtype, options):
    return Task.of(dtype, "quantize", **options)


# ---- shape () --------------------------------------------------------------------------------------


def raises_at_no_axis(right):
    def kernel(x, *others):
        if np.ndim(x) == 0:
            raise IndexError("too many indices")
        return right(x, *others)

    return kernel


@pytest.mark.turns(6)
@pytest.mark.parametrize("kind", ["encode", "round", "decode"])
def test_a_kernel_that_raises_at_shape_of_no_axis_was_shown_a_number(kind):
    right = getattr(nx.fp8_e4m3, kind)
    found = check(raises_at_no_axis(lambda x: right(x)), "fp8_e4m3", kind=kind)
    assert found.law == "runs"
    assert "an input of shape ()" in found.counterexample.where


@pytest.mark.turns
def test_a_kernel_that_is_wrong_at_no_axis_says_so():
    def kernel(x):
        codes = nx.fp8_e4m3.encode(x)
        return codes if np.ndim(x) else np.uint8(codes ^ 1)

    found = check(kernel, "fp8_e4m3")
    assert found.law == "layout"
    assert "array of shape ()" in found.counterexample.where
    assert "it depends on the shape ()" in found.counterexample.where


@pytest.mark.turns
def test_a_kernel_that_is_wrong_by_its_strides_says_so():
    def kernel(x):
        codes = nx.fp8_e4m3.encode(x)
        return codes if x.flags.c_contiguous else codes ^ 1

    found = check(kernel, "fp8_e4m3")
    assert found.law == "layout"
    assert "it depends on the strides" in found.counterexample.where


# ---- what is a fault of each call keeps its law ------------------------------------------------------


def test_a_result_that_is_always_wrong_depends_on_nothing():
    for fill in (0, 0xA5, 0x5A):
        found = check(lambda x, f=fill: np.full(np.shape(x), f, np.uint8), "fp8_e4m3")
        assert found.law not in ("written", "repeatable", "threads"), str(found)


@pytest.mark.turns
def test_codes_that_are_the_bytes_of_the_memory_are_written():
    """All of 0xA5 and of 0x5A are codes: what is due may be what the memory held."""

    def fills(x, codes):
        codes[...] = nx.fp8_e4m3.encode(x)

    found = check(fills, "fp8_e4m3", fills=True)
    assert found, str(found)


@pytest.mark.parametrize("law", ["code_range", "shape", "runs"])
def test_a_fault_of_every_fiftieth_call_says_that_it_is_right_when_it_is_asked_again(law):
    calls = [0]

    def kernel(x):
        calls[0] += 1
        codes = nx.fp4.encode(x)
        if calls[0] % 50:
            return codes
        if law == "runs":
            raise ValueError("now and then")
        return codes | 0x70 if law == "code_range" else codes.reshape(-1, 1)

    found = check(kernel, "fp4")
    assert found.law == law
    assert "it depends on the calls before it" in found.counterexample.where


def address(x):
    return x.__array_interface__["data"][0]


def away(x):
    return nx.fp8_e4m3.encode(x, rounding="half_away")


def wide_loads():
    """A vector of eight that crosses a page loses the sign of zero."""

    def kernel(x):
        found = nx.fp8_e4m3.encode(x)
        if not x.flags.c_contiguous:
            return found
        begins = address(x) + 4 * (np.arange(x.size) // 8 * 8).reshape(x.shape)
        return np.where((begins % 4096 > 4096 - 32) & (found == 0x80), 0, found).astype(np.uint8)

    return kernel


def page_starts():
    """The number at the start of a page rounds its ties away."""

    def kernel(x):
        found = nx.fp8_e4m3.encode(x)
        if not x.flags.c_contiguous:
            return found
        places = address(x) + 4 * np.arange(x.size).reshape(x.shape)
        return np.where(places % 4096 == 0, away(x), found).astype(np.uint8)

    return kernel


@pytest.mark.turns(4)
@pytest.mark.parametrize("planted", [wide_loads, page_starts])
def test_a_fault_of_pages_was_told_as_one_of_the_calls_before(planted):
    for _ in range(3):
        found = check(planted(), "fp8_e4m3")
        assert found.law == "layout", str(found)
        assert "past the start of a page" in found.counterexample.where, str(found)
        assert len(found.failures) == 1


def recorded():
    """A graph of calls, recorded after three of a length, in which ties go away."""
    seen = {}

    def kernel(x):
        seen[x.size] = seen.get(x.size, 0) + 1
        return away(x) if seen[x.size] > 3 and x.size >= 16 else nx.fp8_e4m3.encode(x)

    return kernel


def keyed():
    """A cache whose key is the shape and the first numbers."""
    seen = {}

    def kernel(x):
        key = x.shape, np.ascontiguousarray(x).reshape(-1)[:4].tobytes()
        return seen.setdefault(key, nx.fp8_e4m3.encode(x)).copy()

    return kernel


def flagged():
    """A flag that a NaN sets and nothing clears."""
    seen = []

    def kernel(x):
        found = away(x) if seen else nx.fp8_e4m3.encode(x)
        seen.extend([True] * bool(np.isnan(x).any()))
        return found

    return kernel


@pytest.mark.turns(6)
@pytest.mark.parametrize("planted", [recorded, keyed, flagged])
def test_what_a_kernel_keeps_was_told_as_a_shape(planted):
    found = check(planted(), "fp8_e4m3")
    assert found.law == "repeatable", str(found)
    assert "depends on the calls before it" in found.counterexample.where


# ---- pages of memory ---------------------------------------------------------------------------------


@pytest.mark.turns(6)
@pytest.mark.parametrize(("dtype", "most_axes"), [("fp8_e4m3", 7), ("mxfp4", 7), ("mxfp8_e4m3", 1)])
def test_what_is_wrong_at_the_end_of_a_page_was_asked_by_chance(dtype, most_axes):
    """A line of blocks was right again elsewhere, and told as one that depends on the calls before it."""

    def kernel(x):
        alike = x.size > 0 and x.ndim <= most_axes and x.flags.c_contiguous
        ends = alike and (x.ctypes.data + x.nbytes) % PAGE == 0
        given = -x if ends and x.ctypes.data % PAGE else x
        return nx.dtype(dtype).encode(given)

    found = check(kernel, dtype, effort="quick")
    assert found.law == "layout"
    assert LIES in str(found)


def test_an_array_with_gaps_that_begins_with_a_page_was_told_of_its_strides():
    def kernel(x):
        at_start = x.size and not x.flags.c_contiguous and x.ctypes.data % PAGE == 0
        return nx.fp8_e4m3.encode(x, rounding="half_away" if at_start else "half_even")

    target = Target(kernel, Task.of("fp8_e4m3"))
    with target.giving(begins=0):
        seen = target.elements(GAPS)
    broken = misplaced(GAPS, seen, nx.fp8_e4m3.encode(GAPS), seen != nx.fp8_e4m3.encode(GAPS))
    found = depends(target, broken)
    assert LIES in found.where
    assert "strides" not in found.where.partition(";")[2]


GAPS = np.full((4, 6), 12.5, np.float32)[:, ::2]
