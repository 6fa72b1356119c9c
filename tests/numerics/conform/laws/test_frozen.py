"""Arrays that cannot be written to: who writes into them, who refuses them, who reads them wrongly."""

import numpy as np
import pytest

import numerics as nx
from numerics.conform.checking import check
from numerics.conform.laws.frozen import FROZEN, REFUSES

QUICK = {"effort": "quick"}
KINDS = {
    "encode": (nx.fp4.encode, "fp4", {}),
    "decode": (nx.fp8_e5m2.decode, "fp8_e5m2", {"kind": "decode"}),
    "blocks": (nx.mxfp4.encode, "mxfp4", {}),
    "pack": (nx.int4.pack, "int4", {"kind": "pack"}),
    "unpack": (nx.int4.unpack, "int4", {"kind": "unpack"}),
}


@pytest.mark.turns(8)
@pytest.mark.parametrize("name", KINDS)
def test_the_same_bytes_written_into_an_input_passed(name):
    right, dtype, options = KINDS[name]

    def kernel(x, *others):
        x[...] = x
        return right(x, *others)

    assert check(right, dtype, **options, **QUICK)
    assert check(kernel, dtype, **options, **QUICK).law == "inputs_unchanged"


def test_an_output_that_is_an_input_is_told():
    def kernel(x):
        return nx.fp4.encode(np.add(x, 0, out=x) if x.size > 64 and not np.signbit(x[x == 0]).any() else x)

    assert check(kernel, "fp4", **QUICK).law in ("inputs_unchanged", "negative_zero", "nan")


@pytest.mark.turns
def test_a_kernel_that_refuses_them_is_right_and_a_note_says_so():
    """As Cython's typed memoryviews do."""

    def kernel(x):
        if not x.flags.writeable:
            raise ValueError("buffer source array is read-only")
        return nx.fp4.encode(x)

    found = check(kernel, "fp4", **QUICK)
    assert found
    assert REFUSES in str(found)
    assert "buffer source array is read-only" in str(found)


@pytest.mark.turns
def test_a_wrong_path_for_such_arrays_is_told_as_layout():
    def kernel(x):
        return np.where(x.flags.writeable, nx.fp4.encode(x), 0).astype(np.uint8)

    found = check(kernel, "fp4", **QUICK)
    assert found.law == "layout"
    assert FROZEN in str(found)


@pytest.mark.turns
def test_own_draws_are_given_them_too():
    def kernel(x):
        x[...] = x
        return nx.fp4.encode(x, rounding="stochastic", seed=np.random.default_rng().integers(1 << 60))

    assert check(kernel, "fp4", rounding="stochastic", draw="own", **QUICK).law == "inputs_unchanged"
