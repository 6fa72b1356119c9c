"""The shared arithmetic keeps to its dialect (docs/dialect.md): what breaks a rule often works on three
executors and fails on the fourth."""

from __future__ import annotations

import inspect

import pytest

from numerics.formats import codec, scaling
from tests.helpers.dialect import faults


@pytest.mark.parametrize("module", [codec, scaling])
def test_the_shared_arithmetic_keeps_to_the_dialect(module):
    assert list(faults(inspect.getsource(module))) == []


@pytest.mark.parametrize(
    "line",
    [
        "return x * 0.5", "return x // 2", "return -x", "return ~x", "return x if x > 0 else 0",
        "return abs(x).y", "return f(x, k=1)", "return 0x80000000", "return 1 < x < 2", "return x in (1, 2)",
        "if x > 0:\n        x = 1\n    return x", "if f.nan is not None:\n        return x\n    return 0",
        "for i in x:\n        x = i\n    return x", "x += 1\n    return x", "return x != 1", "return [x]",
        "y: Lane = f.steps\n    return y", "y: Table = x\n    return y",
    ],
)  # fmt: skip
def test_the_lint_notices(line):
    assert list(faults(f"def g(x, f):\n    {line}\n"))
