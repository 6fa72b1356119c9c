"""Kernels on torch's own threads: the same bits, never in a child, nor where they keep callers waiting."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import numpy as np
import pytest

import numerics as nx
from numerics.backends.cpu import BACKEND, compiler, helpers, team, threads, warmup
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
    made = team._team(str(torch._C.__file__))
    if made is None:
        pytest.skip("torch has no threads of OpenMP here")
    monkeypatch.setattr(team, "LATE", 1e9)
    monkeypatch.setattr(made, "_owes_until", 0.0)
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
    monkeypatch.setattr(found, "_owes_until", 0.0)
    now = found._clock()
    for first, ended in ((1e-4, 5e-4), (0.01, 0.015), (0.0, 4e-4)):
        found._note(now, now + first, now + ended)
        assert not found.rests, "a little later, or a thread that is in a long call"
    found._note(now, now + 1e-4, now + 0.005)
    assert not found.rests, "once in a while"
    for _ in range(4):
        found._note(now, now + 1e-4, now + 100.0)
    assert found.rests
    assert found._owes_until == pytest.approx(now + 100.0 + team.SHARE * 4 * 99.9999)
    assert_same_bits(nx.fake_quantize(X, "mxfp4"), due)
    assert not calls, "helpers take its place"
    monkeypatch.setattr(found, "_owes_until", now)
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


def test_one_thread_at_a_time_works_with_a_team(found, monkeypatch):
    """Eight callers had eight teams, all of them awake."""
    torch.set_num_threads(2)
    due, run = nx.fake_quantize(X, "mxfp4"), team.Team._run
    inside, others = threading.Event(), []

    def held(self, kernel, calls, count):
        assert not inside.is_set(), "a second team"
        inside.set()
        with ThreadPoolExecutor(3) as pool:
            others.extend(pool.map(lambda place: nx.fake_quantize(X, "mxfp4"), range(6)))
        run(self, kernel, calls, count)
        inside.clear()

    monkeypatch.setattr(team.Team, "_run", held)
    for came in (nx.fake_quantize(X, "mxfp4"), *others):
        assert_same_bits(came, due)
    assert len(others) == 6
    monkeypatch.undo()
    assert found.serves


def test_few_threads_have_a_team_and_those_that_end_make_room(found, monkeypatch):
    """OpenMP ends the process where the system has no thread left for a set more."""
    torch.set_num_threads(2)
    due, calls = nx.fake_quantize(X, "mxfp4"), counted(monkeypatch)
    room = team.SEATS - len(team._seats)
    assert room >= 0
    barrier = threading.Barrier(room + 3)

    def one(place):
        serves = found.serves
        barrier.wait(60)
        return serves, nx.fake_quantize(X, "mxfp4")

    for _ in range(2):
        calls.clear()
        with ThreadPoolExecutor(room + 3) as pool:
            came = [*pool.map(one, range(room + 3))]
        assert sum(serves for serves, _ in came) == room
        assert len(calls) <= room
        for _, values in came:
            assert_same_bits(values, due)


def test_the_main_thread_has_a_team_however_many_others_do(found):
    """It is the one that runs a model."""
    ended = """
import threading, torch
found, go = team._team(torch._C.__file__), threading.Event()
asked = threading.Barrier(9)
def ask():
    seats.append(found.serves)
    asked.wait(60), go.wait(60)
seats = []
for _ in range(8):
    threading.Thread(target=ask).start()
asked.wait(60)
print(sum(seats), found.serves)
go.set()
"""
    assert run(WORK + ended) == [str(team.SEATS), "True"]


def test_what_a_signal_handler_left_behind_keeps_nobody_from_a_team(found):
    """A job that stayed open meant, for good, that helpers were at work."""
    left, call = helpers.Job(print, [], None, 1), team._Token()
    helpers._open.add(left)
    found._working.add(call)
    assert helpers.sharing()
    assert not found.serves
    del left, call
    assert not helpers.sharing()
    assert found.serves


def test_what_threads_of_a_team_do_is_compiled_once(monkeypatch):
    """Two threads that asked at once loaded two functions of one name."""
    build, made = compiler.build, []
    monkeypatch.setattr(team, "_made", {})
    monkeypatch.setattr(compiler, "build", lambda *given: (made.append(given[0]), build(*given))[1])
    with ThreadPoolExecutor(4) as pool:
        addresses = {*pool.map(team.taking, [41] * 8)}
    assert len(addresses) == 1
    assert made == ["team_41"]


def test_warmup_compiles_what_threads_of_a_team_do():
    """The first large call after it compiled."""
    nx.fake_quantize(X, "mxfp4")
    assert all(name.startswith("team_") for name in warmup._warm_teams())
    assert BACKEND.executor.launcher.words() <= team.made()
    assert not [*warmup._warm_teams()]


def stands_in(**facts):
    made = ModuleType("torch")
    made.__dict__.update(facts)
    return made


STANDINS = {
    "none": None, "object": object(), "empty": stands_in(), "mock": MagicMock(),
    "text": stands_in(get_num_threads=lambda: "2"), "no function": stands_in(get_num_threads=3),
    "no file": stands_in(get_num_threads=lambda: 2), "negative": stands_in(get_num_threads=lambda: -1),
}  # fmt: skip


@pytest.mark.parametrize("name", STANDINS)
def test_what_only_has_the_name_of_torch_is_asked_for_no_threads(monkeypatch, name):
    """Large calls ended with an AttributeError or a TypeError."""
    due, came = nx.mxfp4.round(X), []
    with monkeypatch.context() as here:
        here.setitem(sys.modules, "torch", STANDINS[name])
        came.append(nx.mxfp4.round(X))
        here.setitem(sys.modules, "torch._C", STANDINS[name])
        came.append(nx.mxfp4.round(X))
        sizes = [team.size(), team.of_torch()]
        here.delitem(sys.modules, "torch._C")
        sizes.append(team.size())
    assert sizes == [None] * 3
    for values in came:
        assert_same_bits(values, due)


def test_what_has_no_openmp_or_is_not_loaded_has_no_team(tmp_path):
    core = tmp_path / "_C.so"
    assert team._team.__wrapped__(str(core)) is None
    openmp = next(Path(torch.__file__).parent.glob("lib/libgomp*"), None)
    if openmp is None:
        pytest.skip("torch brings no OpenMP")
    (tmp_path / "lib").mkdir()
    shutil.copy(openmp, tmp_path / "lib" / "libtorch_cpu.so")
    assert team._team.__wrapped__(str(core)) is None, "nothing is loaded that torch has not loaded"


def test_openmp_that_was_loaded_in_place_of_torchs_is_the_one(found, monkeypatch):
    """With LD_PRELOAD=libiomp5.so a second set of threads began."""
    asked = []
    monkeypatch.setattr(team, "Team", lambda library: (asked.append(library._name), library)[1])
    assert team._team.__wrapped__(torch._C.__file__)._name is None
    assert asked[0].endswith("libtorch_cpu.so")


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
    """OpenMP would wait for ever: in a call of ours, and in torch's own."""
    ended = """
import signal, torch
torch.set_num_threads(2)
due = nx.mxfp4.round(x)
child = os.fork()
if not child:
    signal.alarm(100)
    same = np.array_equal(nx.mxfp4.round(x), due) and team.of_torch() is None
    same = same and torch.ones(1 << 20).add_(1).sum().item() == 1 << 21
    grandchild = os.fork()
    if not grandchild:
        signal.alarm(100)
        os._exit(0 if np.array_equal(nx.mxfp4.round(x), due) else 1)
    same = same and not os.waitpid(grandchild, 0)[1]
    os._exit(0 if same else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), np.array_equal(nx.mxfp4.round(x), due))
"""
    assert run(WORK + ended) == ["0", "True"]
