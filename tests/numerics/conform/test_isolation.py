"""Targets that crash, exit or hang, in a process of their own."""

from __future__ import annotations

import pytest

from numerics.conform.isolation import judged
from numerics.formats.errors import NumericsError

KERNELS = """
import ctypes, os, time
import numerics as nx

def right(x):
    print("what a kernel says")
    return nx.fp4.encode(x)

def exits(x):
    os._exit(0)

def crashes(x):
    ctypes.string_at(0)

def hangs(x):
    time.sleep(1000)
"""


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    (tmp_path / "their_own_kernels.py").write_text(KERNELS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    ("name", "timeout", "said"),
    [("exits", 200, "exit code 0"), ("crashes", 200, "SIGSEGV"), ("hangs", 15, "15 seconds")],
)
def test_a_target_that_does_not_come_back_ended_the_judge(name, timeout, said):
    found = judged(f"their_own_kernels:{name}", {"dtype": "fp4"}, timeout)
    assert not found.passed
    assert found.law == "runs"
    assert said in found.text
    assert "an input of shape" in found.text


@pytest.mark.usefixtures("kernels")
def test_what_a_target_prints_stood_among_the_json(capfd):
    found = judged("their_own_kernels:right", {"dtype": "fp4"}, 200)
    assert found.passed
    assert '"schema": 1' in found.json
    assert "what a kernel says" not in capfd.readouterr().out


@pytest.mark.usefixtures("kernels")
def test_a_request_that_is_wrong_was_a_verdict():
    for target, options in (("their_own_kernels:gone", {"dtype": "fp4"}), ("math:sqrt", {"dtype": "fp99"})):
        with pytest.raises(NumericsError):
            judged(target, options, 200)
