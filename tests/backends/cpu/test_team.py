"""Kernels on torch's own threads: the same bits, never in a child, nor where they keep callers waiting."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import numerics as nx
from numerics.backends.cpu import BACKEND, helpers, team, threads
from tests.helpers.bits import assert_same_bits

torch = pytest.importorskip("torch")

X = np.random.default_rng(0).standard_normal((64, 640)).astype(np.float32)
RECIPES = {
    "mxfp4": {}, "mx6": {}, "nvfp4": {"tensor_scale": 0.5}, "int4": {"scheme": "per_group(32)"},
    "int8": {"scheme": "per_channel(0)"}, "fp6_e2m3": {"scheme": "per_tensor"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def cut_small(monkeypatch):
    """Small arrays are cut, too, and torch's number of threads is given back."""
    from numerics.backends.cpu.product import calls

    monkeypatch.setattr(threads, "WORTHWHILE", 1 << 10)
    monkeypatch.setattr(threads, "PART", 64)
    monkeypatch.setattr(calls, "WORTHWHILE", 1 << 10)
    for name in ("NUMERICS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def found(monkeypatch):
    """The team, of a patience that no load ends; without one nothing is to be tested."""
    made = team.of_torch()
    if made is None:
        pytest.skip("torch has no threads of OpenMP here")
    monkeypatch.setattr(team, "LATE", 1e9)
    return made


def counted(monkeypatch):
    """Calls of teams: by how many threads."""
    run, calls = team.Team.run, []
    monkeypatch.setattr(
        team.Team, "run", lambda self, *given: (calls.append(given[-1]), run(self, *given))[1]
    )
    return calls


def everything(name):
    q = nx.quantize(X, name, **RECIPES[name])
    product = nx.linear(torch.from_numpy(X[:3]), nx.quantize(torch.from_numpy(X), name, **RECIPES[name]))
    return [q.packed, q.dequantize(), nx.fake_quantize(X, name, **RECIPES[name]), product.numpy()]


@pytest.mark.parametrize("name", RECIPES)
def test_a_team_computes_the_same_bits(found, monkeypatch, name):
    monkeypatch.setenv("NUMERICS_NUM_THREADS", "1")
    due, calls = everything(name), counted(monkeypatch)
    monkeypatch.delenv("NUMERICS_NUM_THREADS")
    for count in (2, 3, 5):
        torch.set_num_threads(count)
        for came, wanted in zip(everything(name), due, strict=True):
            assert_same_bits(came, wanted, on=f"{count} threads of torch")
    assert set(calls) == {2, 3, 5}


def test_torchs_number_of_threads_holds_where_no_variable_says_another(found, monkeypatch):
    calls = counted(monkeypatch)
    torch.set_num_threads(3)
    assert threads.count() == 3
    for variable in ("OMP_NUM_THREADS", "NUMERICS_NUM_THREADS"):
        monkeypatch.setenv(variable, "2")
        assert threads.count() == 2
        nx.fake_quantize(X, "mxfp4")
    assert not calls, "a team of another number would start and end threads at every call"
    torch.set_num_threads(2)
    nx.fake_quantize(X, "mxfp4")
    assert calls == [2]
    monkeypatch.delenv("NUMERICS_NUM_THREADS")
    monkeypatch.delenv("OMP_NUM_THREADS")
    torch.set_num_threads(1)
    nx.fake_quantize(X, "mxfp4")
    assert threads.count() == 1
    assert calls == [2]


def test_a_team_that_kept_its_caller_waiting_rests(found, monkeypatch):
    """Beside other programs a thread that had nothing to do was waited for, ten times as long as the work."""
    torch.set_num_threads(2)
    due, calls = nx.fake_quantize(X, "mxfp4"), counted(monkeypatch)
    monkeypatch.setattr(team, "LATE", 5e-4)
    monkeypatch.setattr(found, "_rests_until", 0.0)
    now = found._clock()
    for first, ended in ((1e-4, 5e-4), (0.01, 0.015), (0.0, 4e-4)):
        found._note(now, now + first, now + ended)
        assert not found.rests, "a little later, or a thread that is in a long call"
    found._note(now, now + 1e-4, now + 100.0)
    assert found.rests
    assert found._rests_until == pytest.approx(now + 100.0 + team.REST * 99.9999)
    assert_same_bits(nx.fake_quantize(X, "mxfp4"), due)
    assert not calls, "helpers take its place"
    monkeypatch.setattr(found, "_rests_until", now)
    assert_same_bits(nx.fake_quantize(X, "mxfp4"), due)
    assert calls == [2]


def test_beside_helpers_at_work_no_team_is_asked(found, monkeypatch):
    """They have the CPUs already."""
    torch.set_num_threads(2)
    due, calls = nx.fake_quantize(X, "mxfp4"), counted(monkeypatch)
    for came in BACKEND.each(lambda place: nx.fake_quantize(X, "mxfp4"), 4):
        assert_same_bits(came, due)
    assert not calls
    assert not helpers.sharing()
    nx.fake_quantize(X, "mxfp4")
    assert calls


def test_what_has_no_openmp_has_no_team(tmp_path):
    assert team._team.__wrapped__(str(tmp_path / "torch" / "__init__.py")) is None


def run(text):
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=300, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


WORK = """
import os, sys
import numpy as np, numerics as nx
from numerics.backends.cpu import team, threads
x = np.random.default_rng(0).standard_normal(1 << 21).astype(np.float32)
"""


def test_without_torch_there_is_none():
    ended = "nx.mxfp4.round(x); print(team.size(), team.of_torch(), 'torch' in sys.modules)"
    assert run(WORK + ended) == ["None", "None", "False"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_waits_for_no_thread_that_a_fork_has_ended():
    """OpenMP would wait for ever."""
    ended = """
import torch
torch.set_num_threads(2)
due = nx.mxfp4.round(x)
child = os.fork()
if not child:
    same = np.array_equal(nx.mxfp4.round(x), due) and team.of_torch() is None
    os._exit(0 if same else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), np.array_equal(nx.mxfp4.round(x), due))
"""
    assert run(WORK + ended) == ["0", "True"]
