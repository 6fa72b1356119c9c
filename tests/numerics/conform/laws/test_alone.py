"""What a wrong number depends on is told: the array that it is in, the calls before, or where memory lies."""

import numpy as np

import numerics as nx
from numerics.conform.checking import check

e4m3 = nx.fp8_e4m3


def test_a_number_that_is_wrong_by_itself_was_told_of_a_layout():
    """A path for arrays of finite numbers does not clamp: among others, NaN beside them, it is right."""

    def kernel(x):
        overflow = "nonsaturate" if np.isfinite(x).all() else "saturate"
        return e4m3.encode(x, overflow=overflow)

    found = check(kernel, "fp8_e4m3", effort="quick")
    assert found.law == "overflow", str(found)
    wrong = found.counterexample.tensor
    assert kernel(wrong) != e4m3.encode(wrong)


def test_a_cache_of_addresses_was_told_of_a_layout():
    """Asked again at once, in the memory that was free again, it gave the same wrong answer."""
    known = {}

    def kernel(x):
        key = (x.ctypes.data, x.shape, x.strides)
        if len(known) > 64:
            known.clear()
        return known.setdefault(key, np.array(e4m3.encode(x))).copy()

    found = check(kernel, "fp8_e4m3", effort="quick")
    assert found.law == "repeatable", str(found)


def test_a_loop_before_the_first_line_of_a_cache_was_told_of_earlier_calls():
    """The numbers before a multiple of 64 bytes are truncated: a single one begins where its memory does."""

    def kernel(x):
        codes = np.array(e4m3.encode(x))
        if x.ndim == 1 and x.size and x.strides[0] == 4:
            before = min(x.size, -x.ctypes.data % 64 // 4)
            codes[:before] = e4m3.encode(x[:before], rounding="toward_zero")
        return codes

    found = check(kernel, "fp8_e4m3", effort="quick")
    assert found.law in ("layout", "nearest", "ties"), str(found)
    assert "depends on the calls" not in str(found)
