"""Targets that crash, exit or hang, in a process of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

import numerics as nx
from numerics.conform import check
from numerics.formats.errors import NumericsError

KERNELS = """
import ctypes, os, time
import numerics as nx

def right(x):
    print("what a kernel says")
    return nx.fp4.encode(x)

def away(x):
    return nx.fp4.encode(x, rounding="half_away")

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
    [("exits", 200, "exit code 0"), ("crashes", 200, "SIGSEGV"), ("hangs", 8, "8 seconds")],
)
def test_a_target_that_does_not_come_back_ended_the_judge(name, timeout, said):
    found = check(f"their_own_kernels:{name}", "fp4", isolated=True, timeout=timeout)
    assert not found
    assert found.law == "runs"
    assert said in str(found)
    assert "an input of shape" in str(found)


@pytest.mark.usefixtures("kernels")
def test_what_a_target_prints_stood_among_the_json(capfd):
    found = check("their_own_kernels:right", "fp4", isolated=True)
    assert found
    assert '"schema": 1' in found.to_json()
    assert "what a kernel says" not in capfd.readouterr().out


@pytest.mark.usefixtures("kernels")
def test_a_request_that_is_wrong_was_a_verdict():
    for target, dtype in (("their_own_kernels:gone", "fp4"), ("math:sqrt", "fp99")):
        with pytest.raises(NumericsError):
            check(target, dtype, isolated=True)


@pytest.mark.usefixtures("kernels")
def test_a_crash_in_a_notebook_ended_the_notebook():
    import their_own_kernels as own

    found = check(own.exits, "fp4", isolated=True)
    assert (found.law, bool(found)) == ("runs", False)
    found = check("their_own_kernels:away", "fp4", isolated=True)
    assert (found.law, found.dialect) == ("ties", "ties away")
    assert found.task.dtype is nx.fp4
    for nameless in (lambda x: x, own.right.__get__(0)):
        with pytest.raises(NumericsError, match="another process can import"):
            check(nameless, "fp4", isolated=True)
    with pytest.raises(NumericsError, match="timeout=-1; allowed: seconds"):
        check(own.right, "fp4", isolated=True, timeout=-1)


def test_a_thread_that_is_left_flushing_was_not_said():
    torch = pytest.importorskip("torch")

    def flushes(x):
        torch.set_flush_denormal(True)
        return nx.bfloat16.encode(x)

    found = nx.conform.check(flushes, "bfloat16", effort="quick")
    assert found
    assert "flushing subnormal numbers" in str(found)


FLUSHING = """
import sys
import numpy as np
import torch
import numerics as nx

torch.set_flush_denormal(True)  # as a library of -Ofast does when it is loaded

def rounds(x):  # by integers alone, which no mode changes
    u = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    nan = (u & 0x7FFFFFFF) > 0x7F800000
    u = np.where(nan, 0x7FC00000, (u + 0x7FFF + ((u >> 16) & 1)) >> 16 << 16)
    return u.astype(np.uint32).view(np.float32)

def flushes(x):
    out = rounds(x).view(np.uint32).copy()
    out[(out & 0x7F800000) == 0] &= 0x80000000
    return out.view(np.float32)

def decodes(codes):
    return (np.asarray(codes).astype(np.uint32) << 16).view(np.float32)

def loses(codes):
    out = decodes(codes).view(np.uint32).copy()
    out[(out & 0x7F800000) == 0] &= 0x80000000
    return out.view(np.float32)

def multiplies(a, b):
    return (a.astype(np.float64) @ b.T.astype(np.float64)).astype(np.float32)

if __name__ == "__main__":
    asked = eval(sys.argv[1])
    found = nx.conform.check(effort="quick", **asked)
    print(bool(found), found.law, found.dialect, sep=";")
    print(found)
"""
IN_FLUSH = {
    "right": ('dict(target=rounds, dtype="bfloat16", kind="round")', "True;None;None"),
    "by name": ('dict(target="flushing:rounds", dtype="bfloat16", kind="round")', "True;None;None"),
    "flushes": (
        'dict(target=flushes, dtype="bfloat16", kind="round")',
        "False;subnormals;flushes subnormal results",
    ),
    "decodes": ('dict(target=decodes, dtype="bfloat16", kind="decode")', "True;None;None"),
    "loses": (
        'dict(target=loses, dtype="bfloat16", kind="decode")',
        "False;subnormal_codes;subnormals read as zero",
    ),
    "multiplies": ('dict(target=multiplies, kind="matmul", a="float32", b="float32")', "True;None;None"),
    "blocks": ('dict(target=nx.mxfp4.encode, dtype="mxfp4")', "True;None;None"),
}


@pytest.mark.parametrize("name", IN_FLUSH)
def test_a_process_that_flushes_subnormals_bent_what_is_due(name, tmp_path):
    pytest.importorskip("torch")
    asked, due = IN_FLUSH[name]
    (tmp_path / "flushing.py").write_text(FLUSHING, encoding="utf-8")
    command = [sys.executable, "flushing.py", asked]
    found = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120
    ).stdout
    assert found.startswith(due)
    assert "flushing subnormal numbers" in found


def test_an_import_that_makes_the_process_flush_bent_what_is_due(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    (tmp_path / "flushing.py").write_text(FLUSHING, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = check("flushing:rounds", "bfloat16", kind="round", isolated=True, effort="quick")
    assert found
    assert "to import the target leaves its thread flushing" in str(found)
    found = check("flushing:flushes", "bfloat16", kind="round", isolated=True, effort="quick")
    assert (found.law, found.dialect) == ("subnormals", "flushes subnormal results")
