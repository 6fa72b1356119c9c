"""How far a judge has come is told while it works, in this process and out of another."""

from __future__ import annotations

import io
from functools import partial

import numpy as np
import pytest

import numerics as nx
from numerics.checkpoints.looking import compare
from numerics.conform.vectors.operations import operation
from numerics.conform.vectors.vectors import generate, verify
from numerics.conform.watching import watched


@pytest.mark.turns(4)
@pytest.mark.parametrize("isolated", [False, True])
def test_the_calls_of_a_kernel_are_counted_while_it_is_judged(tmp_path, monkeypatch, isolated):
    (tmp_path / "counted.py").write_text(
        "import numerics as nx\n\n\ndef encode(x):\n    return nx.fp4.encode(x)\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    told = []
    with watched(lambda done, total: told.append(done)):
        assert nx.conform.check("counted:encode", "fp4", effort="quick", isolated=isolated)
    assert len(told) > 1
    assert told == sorted(told)
    before = len(told)
    assert nx.conform.check("counted:encode", "fp4", effort="quick")
    assert len(told) == before, "nobody watches"


@pytest.mark.turns(4)
@pytest.mark.parametrize(
    "judge",
    [
        partial(nx.conform.check, kind="matmul", a="float32", b="float32", effort="quick"),
        nx.conform.fingerprint,
    ],
)
def test_the_calls_of_a_product_are_counted_while_it_is_judged(judge):
    called, told = [], []

    def counted(a, b):
        called.append(a.shape)
        return a @ b.T

    with watched(lambda done, total: told.append(done)):
        judge(counted)
    assert told == list(range(1, len(called) + 1))


def test_vectors_are_counted_while_they_are_judged():
    told = []
    lines = b"".join(generate(operation("fp4", "decode")))
    with watched(lambda *far: told.append(far)):
        assert verify(io.BytesIO(lines))
    count = sum(line[:1] not in (b"#", b"") for line in lines.splitlines())
    assert count > 16  # each code, and what stands behind it
    assert told[-1] == (count, count)


def test_a_comparison_tells_each_tensor_before_it_is_read(tmp_path):
    nx.save({"a": np.ones(3, np.float32), "b": np.ones(3, np.float32)}, tmp_path / "m.safetensors")
    told = []
    compare(tmp_path / "m.safetensors", tmp_path / "m.safetensors", lambda *far: told.append(far))
    assert told == [("a", 0, 2), ("b", 1, 2)]


def test_nothing_yet_was_shown_as_a_count_of_0():
    from numerics.cli.conform import _come
    from numerics.view.bar import Bar
    from numerics.view.screen import Screen

    bar = Bar(Screen(80), in_bytes=False)
    assert bar._picture(bar.screen, *_come("calls of a:f", 0, 9), 1.0) == "calls of a:f: the first is awaited"
    assert bar._picture(bar.screen, *_come("calls of a:f", 3, None), 1.0) == "calls of a:f  3"
