"""The proof: every float32 input x format x rounding x overflow policy, through the kernels that ship.

`make test` proves a fourth of these by turns: the defaults of every format and every rounding of fp4 on every
input, every case on the inputs that decide.  `make verify` proves every case on every input.
"""

from __future__ import annotations

import numpy as np
import pytest

import numerics as nx
from numerics.backends.cpu import EXECUTOR
from numerics.backends.cpu.executor import CpuExecutor
from numerics.backends.reference.breakpoints import breakpoints
from numerics.conform.sweep import Sweep, sweep
from numerics.formats.rounding import DETERMINISTIC, Rounding
from tests.helpers.proofs import LONG, Proof, near_steps

P3109 = [nx.p3109(12, 5), nx.p3109(15, 8, signed=False), nx.p3109(9, 1, extended=False)]
FLOATS = [d for d in nx.dtypes() if d.kind == "float"] + P3109
CASES = [
    pytest.param(d, rounding, overflow, id=f"{d}-{rounding}-{overflow}")
    for d in FLOATS
    for rounding in DETERMINISTIC
    for overflow in d.overflows
    if LONG or (rounding == "half_even" and overflow == d.overflows[0]) or d is nx.fp4
]


def prove(executor: CpuExecutor, dtype: nx.Float, rounding: str, overflow: str, over: Proof = sweep) -> Sweep:
    """All 2**32 inputs, or those that `over` takes."""

    def encode(x: np.ndarray, out: np.ndarray) -> None:
        executor.encode(x, dtype, Rounding(rounding, overflow), out)

    return sum(
        (
            over(encode, breakpoints(dtype, rounding, overflow, negative), negative, dtype.code_dtype)
            for negative in (False, True)
        ),
        Sweep(0, 0),
    )


@pytest.mark.turns(8)
@pytest.mark.proof
@pytest.mark.parametrize(("dtype", "rounding", "overflow"), CASES)
def test_every_float32_input(dtype, rounding, overflow):
    found = prove(EXECUTOR, dtype, rounding, overflow)
    assert found.inputs == 1 << 32
    assert found.mismatches == 0, str(found)


@pytest.mark.turns(8)
@pytest.mark.proof
@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize("dtype", FLOATS, ids=repr)
def test_every_float32_input_that_decides(dtype, rounding):
    every = LONG or dtype.bits < 16 or rounding == "half_even"  # the longest lists of steps
    for overflow in dtype.overflows if every else dtype.overflows[-1:]:
        found = prove(EXECUTOR, dtype, rounding, overflow, near_steps)
        assert found.inputs > 1 << 19
        assert found.mismatches == 0, f"{overflow}: {found}"


@pytest.mark.parametrize("over", [sweep, near_steps])
def test_the_proof_can_fail(over):
    """One breakpoint moved by one ulp is noticed, and named."""
    steps = breakpoints(nx.fp4, "half_even", "saturate", False)
    steps[2] = (steps[2][0] + 1, steps[2][1])

    def encode(x: np.ndarray, out: np.ndarray) -> None:
        nx.fp4.encode(x, out=out)

    found = over(encode, steps, False, "uint8")
    assert found.mismatches == 1
    assert found.first == (steps[2][0] - 1, 2, 1)
