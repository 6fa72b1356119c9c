"""Targets that crash, exit or hang, in a process of their own."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import numerics as nx
from numerics.cli.conform import fingerprint_command
from numerics.conform import check
from numerics.conform.checking import asked
from numerics.conform.inputs import strings
from numerics.conform.inputs.edges import EDGES, PAGE, can_guard
from numerics.conform.isolation import cases, judging, narrowing, process
from numerics.conform.isolation.calls import BACK, UNDER_WAY, Calls, Progress
from numerics.conform.isolation.child import Noting
from numerics.conform.isolation.messages import ASKED, CALLS, Asked
from numerics.conform.isolation.narrowing import Narrowing
from numerics.conform.isolation.showing import shown
from numerics.conform.products.asking import beside
from numerics.conform.targets.faults import Fault
from numerics.conform.targets.judged import Witness
from numerics.conform.task import Task
from numerics.formats.errors import NumericsError
from tests.helpers.children import LIMIT, child

KERNELS = """
import ctypes, os, threading, time
import numpy as np
import numerics as nx

calls, kept = [], {}

def after_three(x):
    calls.append(1)
    return nx.fp4.encode(x, rounding="half_even" if len(calls) < 4 else "toward_zero")

def decode_by_shape(codes, scale):
    scale = kept.setdefault(scale.shape, scale.copy())
    return nx.Blocks(nx.mxfp4, -1, codes, scale).decode()

room = np.zeros(1 << 16, np.float32)

def races(x):
    if x.size > room.size:
        return nx.fp4.encode(x)
    own = room[: x.size].reshape(x.shape)
    own[...] = x
    time.sleep(0)
    return nx.fp4.encode(own.copy())

def once_wrong(x):
    found = nx.bfloat16.encode(x)
    if found.size:  # an empty array has no answer to be wrong
        calls.append(x.size)
        found.reshape(-1)[-1] ^= len(calls) == int(os.environ["WRONG"])
    return found

def of_channels(x, scale, zero_point):
    calls.append(1)
    scale, zero_point = (part.reshape(-1, *[1] * (x.ndim - 1)) for part in (scale, zero_point))
    with np.errstate(all="ignore"):
        y = np.nan_to_num(x / scale, posinf=1e9, neginf=-1e9).astype(np.float64)
    found = np.clip(np.rint(y) + zero_point, -128, 127)
    return (found * (len(calls) < 30)).astype(np.int8)

def twice_later(a, b):
    calls.append(1)
    return nx.linear(a, b) * np.float32(1 + (len(calls) > 30))

def adds_one_at_a_page(a, b):
    return a @ b.T + np.float32((a.ctypes.data + a.nbytes) % 4096 == 0)


def reads_past_its_result(x, out):
    out[...] = nx.fp4.encode(x)
    if out.size:
        ctypes.string_at(out.ctypes.data + out.nbytes, 1000)

def right(x):
    print("what a kernel says")
    return nx.fp4.encode(x)

def away(x):
    return nx.fp4.encode(x, rounding="half_away")

def exits(x):
    os._exit(0)

def slow(x):
    time.sleep(0.0025)
    return nx.fp4.encode(x)

def stays(x):
    if not calls:
        calls.append(threading.Thread(target=time.sleep, args=(1000,)).start())
    return nx.fp4.encode(x)

def slow_at_last(x):
    calls.append(1)
    time.sleep(1000 if len(calls) == 9 else 0)
    return nx.fp4.encode(x)

def crashes(x):
    ctypes.string_at(0)

def hangs(x):
    if np.isinf(x).any():
        with open("alive", "w") as file:
            file.write(str(os.getpid()))
        time.sleep(1000)
    return nx.fp4.encode(x)

def crashes_on_nan(x):
    if np.isnan(x).any():
        ctypes.string_at(0)
    return nx.fp4.encode(x)

def crashes_when_long(x):
    if x.size > 10:
        os._exit(3)
    return nx.fp4.encode(x)

def crashes_on_a_row(x):
    if (x == np.inf).any():
        os._exit(3)
    return nx.mxfp4.encode(x)

def crashes_on_a_sum(a, b):
    if (a < 0).any() and (b < 0).any():
        os._exit(3)
    return a @ b.T

def tires(x):
    calls.append(1)
    if len(calls) == 5:
        os._exit(3)
    return nx.fp4.encode(x)

def reads_on(x):
    ctypes.string_at(x.ctypes.data, x.nbytes + 4)
    return nx.fp4.encode(x)

def reads_before(x):
    if x.flags.c_contiguous:
        ctypes.string_at(x.ctypes.data - 1, 1)
    return nx.fp4.encode(x)
"""


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    (tmp_path / "their_own_kernels.py").write_text(KERNELS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def judged(name, dtype="fp4", **options):
    found = check(f"their_own_kernels:{name}", dtype, isolated=True, effort="quick", **options)
    assert not found
    return found.counterexample


@pytest.mark.turns
@pytest.mark.usefixtures("kernels")
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGSEGV")
def test_a_crash_named_the_first_numbers_of_thousands():
    found = judged("crashes_on_nan")
    assert (found.law, found.came, len(found.input)) == ("runs", "the process died of SIGSEGV", 1)
    assert np.isnan(found.tensor).all()


@pytest.mark.turns
@pytest.mark.usefixtures("kernels")
def test_an_exit_at_a_length_named_a_longer_input():
    found = judged("crashes_when_long")
    assert found.tensor.size == 11
    assert "exit code 3" in found.came


@pytest.mark.usefixtures("kernels")
def test_a_hang_named_the_first_numbers_of_its_input(tmp_path, monkeypatch):
    monkeypatch.setattr(narrowing, "FIRST", 2.0)
    monkeypatch.setattr(narrowing, "PATIENCE", 0.5)
    with process.room() as folder, Calls(folder / CALLS) as calls:
        wanted = Asked("their_own_kernels:hangs", {"dtype": "fp4"}, [str(tmp_path)])
        (folder / ASKED).write_bytes(pickle.dumps(wanted))
        Noting(folder).before((np.float32([1, np.inf, 3]),), None)
        found = Narrowing(folder, calls, Task.of("fp4"), 60).counterexample("no result")
    assert (found.came, found.tensor.tolist()) == ("no result for 2 seconds", [np.inf])


@pytest.mark.turns
@pytest.mark.usefixtures("kernels")
def test_the_time_of_all_calls_together_was_a_hang():
    start = time.monotonic()
    assert check("their_own_kernels:slow", "fp4", isolated=True, effort="quick", timeout=1.5)
    assert time.monotonic() - start > 3


@pytest.mark.turns
@pytest.mark.usefixtures("kernels")
def test_a_call_that_hangs_after_others_is_no_matter_of_time_in_all():
    found = judged("slow_at_last", timeout=1.5)
    assert (found.law, found.came) == ("runs", "no result for 1.5 seconds")
    assert "it depends on what came before it (8 calls)" in found.where


@pytest.mark.turns
@pytest.mark.usefixtures("kernels")
def test_a_thread_that_a_target_leaves_behind_kept_the_verdict(monkeypatch):
    monkeypatch.setattr(process, "LEAVING", 0.1)
    assert check("their_own_kernels:stays", "fp4", isolated=True, effort="quick")


ENDS = {
    "import time; time.sleep(1000)": "no result for 3 seconds",
    "import os; os._exit(4)": "the process ended with exit code 4",
    "import os; os._exit(0)": "the process ended with exit code 0",
    "import sys; sys.exit(3)": "SystemExit: 3",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": "the process died of SIGKILL",
}


@pytest.mark.turns
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("source", ENDS)
def test_an_import_that_ends_its_process_was_a_verdict_on_a_target_that_was_never_there(
    source, tmp_path, monkeypatch
):
    """os._exit at import was "not right", sys.exit "cannot be imported": neither could be judged."""
    (tmp_path / "never_there.py").write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    said = re.escape(f"target 'never_there:encode' cannot be imported: {ENDS[source]}")
    with pytest.raises(NumericsError, match=said + "$"):
        check("never_there:encode", "fp4", isolated=True, timeout=3)


@pytest.mark.turns
def test_a_module_is_imported_elsewhere_first(tmp_path, monkeypatch):
    (tmp_path / "never_there.py").write_text("import os; os._exit(4)", encoding="utf-8")
    (tmp_path / "raises_there.py").write_text("raise RuntimeError('no GPU')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NumericsError, match=r"cannot be imported: the process ended with exit code 4$"):
        judging.imported("never_there:f", 60)
    judging.imported("raises_there:f", 60)  # whoever imports it is told
    assert not {"never_there", "raises_there"} & set(sys.modules)
    with pytest.raises(NumericsError, match=r"cannot be imported: the process ended with exit code 4$"):
        fingerprint_command.main(["never_there:f"], standalone_mode=False)


def test_a_process_that_does_nothing_between_two_calls_was_blamed_on_a_call(monkeypatch):
    def run(part, folder, calls, limits):
        raise process.Hangs("no result for 600 seconds")

    monkeypatch.setattr(judging, "run", run)
    with pytest.raises(NumericsError, match="cannot be judged: for 600 seconds its process neither called"):
        check("math:sqrt", "fp4", isolated=True)


def test_each_call_of_each_thread_has_a_clock_of_its_own():
    clock, limits = process.Clock(), process.Limits(50.0, lambda number: 5.0 if number else 20.0)
    rooms = [(0, 0)] * 16

    def at(now, *threads):
        clock.look(Progress(0, 0.0, (*threads, *rooms[len(threads) :])), now)
        return clock.over(limits, now)

    start = time.monotonic()
    assert at(start, (0, UNDER_WAY)) is None
    assert at(start + 19, (0, UNDER_WAY)) is None
    assert at(start + 21, (0, UNDER_WAY)) == 20
    assert at(start + 22, (1, UNDER_WAY), (2, UNDER_WAY)) is None
    assert at(start + 26, (1, UNDER_WAY), (3, UNDER_WAY)) is None
    assert at(start + 28, (1, UNDER_WAY), (4, UNDER_WAY)) == 5  # the other thread goes on
    assert at(start + 29, (1, BACK), (4, BACK)) is None
    assert at(start + 70, (1, BACK), (4, BACK)) is None
    assert at(start + 80, (1, BACK), (4, BACK)) == 50


@pytest.mark.turns
@pytest.mark.usefixtures("kernels")
def test_a_row_that_crashes_was_not_named():
    found = judged("crashes_on_a_row", "mxfp4")
    assert [number.value for number in found.input] == [np.inf]


@pytest.mark.turns
@pytest.mark.usefixtures("kernels")
def test_a_product_that_crashes_was_not_named():
    found = judged("crashes_on_a_sum", None, kind="matmul", a="float32", b="float32", shapes=[(2, 3, 5)])
    assert "m=1 n=1" in found.where
    assert len(found.terms) == 1


@pytest.mark.turns
@pytest.mark.usefixtures("kernels")
def test_an_exit_after_some_calls_was_blamed_on_an_input():
    found = judged("tires")
    assert "alone, in a new process, this comes back: it depends on what came before it (4" in found.where


@pytest.mark.turns(4)
@pytest.mark.usefixtures("kernels")
@pytest.mark.skipif(not can_guard(), reason="this system forbids no single pages")
@pytest.mark.parametrize(
    ("name", "options", "where"),
    [
        ("reads_on", {}, "ends where nothing may be touched"),
        ("reads_before", {}, "begins where nothing before it may be touched"),
    ],
)
def test_a_read_beyond_an_input_passed(name, options, where):
    found = judged(name, **options)
    assert found.law == "within"
    assert where in found.where


def least(task, case, fails):
    """What is left of a case that fails, as the processes find it."""
    assert fails(*case)
    for _ in range(30):
        found = next((one for one in cases.smaller(task, case) if fails(*one)), None)
        if found is None:
            return case
        case = cases.restored(pickle.loads(pickle.dumps(cases.recorded(found))))
    raise AssertionError("it never ends")


X = np.linspace(-3, 3, 3 * 64 * 5, dtype=np.float32).reshape(3, 64, 5)


def test_a_number_among_many_was_not_found():
    (x,) = least(Task.of("fp4"), (X[:, ::2].T,), lambda x: (x == X[1, 8, 3]).any())
    assert x.tolist() == [X[1, 8, 3]]
    x, bits = least(
        Task.of("fp4", rounding="stochastic"), (X, X.view(np.uint32)), lambda x, r: x.max() > 2.99
    )
    assert (x.size, bits.tolist()) == (1, x.view(np.uint32).tolist())


def test_an_input_whose_strides_matter_lost_them():
    (x,) = least(Task.of("fp4"), (X[:, ::-2],), lambda x: x.ndim == 3 and x.strides[1] < 0)
    assert (x.shape, x.strides) == ((1, 1, 1), X[:, ::-2].strides)
    (x,) = least(Task.of("fp4"), (X.reshape(-1),), lambda x: x.size > 700)
    assert x.size == 701


def test_strides_that_matter_were_not_shown_or_counted_in_bytes():
    wider = X[:1].reshape(64, 5)
    for x, where in (
        (wider[:2, :3], "an input of shape (2, 3), strides (5, 1), the first 4 of 6"),
        (wider[:1, :2], "an input of shape (1, 2), strides (5, 1)"),
        (wider, "an input of shape (64, 5), the first 4 of 320"),
    ):
        assert shown(Task.of("fp4"), (x,)).where == where
    assert Fault("runs", (wider[:2, :3],), "", "").found.where == "an input of shape (2, 3), strides (5, 1)"


@pytest.mark.parametrize("axis", [1, -2])
def test_a_block_among_many_was_not_found(axis):
    task = Task.of("mxfp4", axis=axis)
    (x,) = least(task, (X,), lambda x: (x == X[2, 40, 3]).any())
    assert (x.shape, np.flatnonzero(x).tolist()) == ((1, 32, 1), [0])
    fields = task.fields(X)
    case = (fields.codes, fields.scale)
    codes, scale = least(Task.of("mxfp4", "decode", axis=axis), case, lambda c, s: (s == s[0, 0, 0]).any())
    assert (codes.shape, scale.shape) == ((1, 32, 1), (1, 1, 1))


def test_packed_codes_were_cut_within_a_block():
    codes, scale = np.arange(64, dtype=np.uint8).reshape(2, 32), np.uint8([[1, 2], [3, 4]])
    task = Task.of("mxfp4", "decode", packed=True)
    codes, scale = least(task, (codes, scale), lambda c, s: 4 in s)
    assert (codes.tolist(), scale.tolist()) == ([[*range(48, 64)]], [[4]])


def test_scales_were_parted_from_their_channels():
    task = Task.of("int8", "affine", scheme="per_channel(0)")
    case = (X[:, :, 0], np.float32([1, 2, 3]), np.zeros(3, np.int32))
    x, scale, zero_point = least(task, case, lambda x, s, z: 2 in s)
    assert (x.shape, scale.tolist(), zero_point.shape) == ((1, 1), [2.0], (1,))
    for scheme, shape in (("per_group(32, axis=1)", (3, 2, 5)), ("per_token", (3, 64)), ((16, 3), (3, 4, 2))):
        case = (X, np.arange(np.prod(shape), dtype=np.float32).reshape(shape), np.zeros(shape, np.int32))
        task = Task.of("int8", "affine", scheme=scheme)
        x, scale, zero_point = least(task, case, lambda x, s, z, case=case: case[1].max() in s)
        assert (x.size, scale.size, zero_point.size) == (1, 1, 1)
    x, scale, zero_point = least(Task.of("int8", "affine"), (X, 0.5, 3), lambda x, s, z: x.max() > 2.99)
    assert (x.size, scale, zero_point) == (1, 0.5, 3)


def test_strings_were_cut_within_a_code():
    codes = np.arange(50, dtype=np.uint8)
    assert least(Task.of("fp6_e2m3", "pack"), (codes,), lambda c: 33 in c)[0].tolist() == [33]
    bits = strings.packed(codes, 6)
    unpack = Task.of("fp6_e2m3", "unpack")
    found, count = least(unpack, (bits, 50), lambda b, n: 33 in strings.unpacked(b, n, 6))
    assert (strings.unpacked(found, count, 6).tolist(), count) == ([32, 33], 2)


@pytest.mark.parametrize("b", ["float32", "mxfp4", "int4 per_group(32)"])
def test_a_term_of_a_product_was_not_found(b):
    check = asked(lambda a, b: None, kind="matmul", a="float32", b=b, shapes=[(3, 5, 64)])
    problem = next(one for one in check._problems() if one.law == "sums")
    column, row = problem.b.codes[4], problem.a.codes[2]
    wanted = int(np.flatnonzero(row)[0])

    def fails(one):
        return (one.b.codes == column[: one.shape[2]]).all(1).any() and (one.a.codes[:, wanted:] != 0).any()

    (found,) = least(check.target.claim, (problem,), fails)
    assert found.shape[:2] == (1, 1)
    assert np.count_nonzero(found.a.codes) == 1


def test_operands_lay_somewhere_in_a_page():
    q = nx.quantize(X[:, :, 0], "int4", scheme=nx.per_group(32), symmetric=False)
    for edge in EDGES:
        for x in (
            beside(edge.room, q).packed,
            beside(edge.room, q).shared,
            beside(edge.room, X),
            beside(edge.room, X[:, ::-2]),
        ):
            low, high = np.lib.array_utils.byte_bounds(x)
            assert (high if edge.behind else low) % PAGE == 0
    assert (beside(EDGES[0].room, q).dequantize() == q.dequantize()).all()


class First(Witness):
    """Keeps the first case that is given."""

    case = None

    def before(self, case, edge):
        self.case = self.case or case


TASKS = {
    "encode": ("fp4", {}), "encode, blocks": ("mxfp4", {"axis": 0}), "decode": ("fp4", {}),
    "decode, blocks": ("mxfp6_e2m3", {"packed": True}), "round": ("bfloat16", {"inputs": "bfloat16"}),
    "affine": ("int8", {"scheme": "per_group(32)"}), "pack": ("fp6_e2m3", {}), "unpack": ("fp6_e2m3", {}),
    "matmul": (None, {"a": "bfloat16", "b": "nvfp4"}),
    "matmul, plain": (None, {"a": "float32", "b": "float32"}),
}  # fmt: skip


@pytest.mark.skipif(not can_guard(), reason="this system forbids no single pages")
@pytest.mark.parametrize("name", TASKS)
def test_an_argument_of_some_kind_lay_amid_memory_that_is_free(name):
    ends = []

    def target(*given):
        parts = [getattr(x, part, None) for x in given for part in ("packed", "shared", "zero_point")]
        arrays = [x for x in (*given, *parts) if isinstance(x, np.ndarray) and x.size]
        ends.append([[at % PAGE == 0 for at in np.lib.array_utils.byte_bounds(x)] for x in arrays])
        raise ValueError

    dtype, options = TASKS[name]
    check = asked(target, dtype, kind=name.partition(",")[0], **options)
    check.target.witness = first = First()
    assert not check.verdict()
    for edge in EDGES:
        with pytest.raises(Fault):
            check.target.once(first.case, edge)
        assert ends[-1]
        assert all(place[edge.behind] for place in ends[-1])


ENDED = """
import sys
from numerics.conform import check
check("their_own_kernels:hangs", "fp4", isolated=True, timeout=100)
"""


@pytest.mark.usefixtures("kernels")
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_judge_that_is_ended_left_a_folder_or_a_process(number, code, tmp_path):
    (tmp_path / "tmp").mkdir()
    given = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
    with child([sys.executable, "-c", ENDED], cwd=tmp_path, env=given) as judge:
        alive = wait_for(
            lambda: (tmp_path / "alive").exists() and (tmp_path / "alive").read_text(encoding="utf-8")
        )
        assert list((tmp_path / "tmp").iterdir())
        judge.send_signal(number)
        assert judge.wait(LIMIT) == code
        if number == signal.SIGTERM:  # at once
            assert not list((tmp_path / "tmp").iterdir())
    wait_for(lambda: not list((tmp_path / "tmp").iterdir()) and not runs(int(alive)))


def runs(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return (
        "Z" not in Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
        if Path("/proc/self/stat").exists()
        else True
    )


def wait_for(what):
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError("in vain")


@pytest.mark.turns
@pytest.mark.usefixtures("kernels")
def test_what_a_target_prints_stood_among_the_json(capfd):
    found = check("their_own_kernels:right", "fp4", isolated=True, effort="quick")
    assert found
    assert '"schema": 1' in found.to_json()
    assert "what a kernel says" not in capfd.readouterr().out


@pytest.mark.usefixtures("kernels")
def test_a_request_that_is_wrong_was_a_verdict():
    for target, dtype in (("their_own_kernels:gone", "fp4"), ("math:sqrt", "fp99")):
        with pytest.raises(NumericsError):
            check(target, dtype, isolated=True)


@pytest.mark.turns
@pytest.mark.usefixtures("kernels")
def test_a_crash_in_a_notebook_ended_the_notebook():
    import their_own_kernels as own

    found = check(own.exits, "fp4", isolated=True)
    assert (found.law, bool(found)) == ("runs", False)
    found = check("their_own_kernels:away", "fp4", isolated=True)
    assert (found.law, found.dialect) == ("ties", "ties away")
    assert (found.task.dtype, found.target) == (nx.fp4, "their_own_kernels:away")
    for nameless in (lambda x: x, own.right.__get__(0)):
        with pytest.raises(NumericsError, match="another process can import"):
            check(nameless, "fp4", isolated=True)
    with pytest.raises(NumericsError, match="timeout=-1; allowed: seconds"):
        check(own.right, "fp4", isolated=True, timeout=-1)


@pytest.mark.turns
def test_a_thread_that_is_left_flushing_was_not_said():
    torch = pytest.importorskip("torch")

    def flushes(x):
        torch.set_flush_denormal(True)
        return nx.bfloat16.encode(x)

    found = nx.conform.check(flushes, "bfloat16", effort="quick")
    assert found
    assert "flushing subnormal numbers" in str(found)
    assert "wrong answers may come from its own mode" in str(found)


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
    for asked in sys.argv[1:]:
        torch.set_flush_denormal(True)  # whatever the check before it left
        found = nx.conform.check(effort="quick", **eval(asked))
        said = "flushing subnormal numbers" in str(found)
        print(bool(found), found.law, found.dialect, "said" if said else repr(str(found)), sep=";")
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


@pytest.mark.turns
def test_a_process_that_flushes_subnormals_bent_what_is_due(tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "flushing.py").write_text(FLUSHING, encoding="utf-8")
    command = [sys.executable, "flushing.py", *(asked for asked, _ in IN_FLUSH.values())]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=LIMIT)
    due = {name: f"{verdict};said" for name, (_, verdict) in IN_FLUSH.items()}
    assert dict(zip(IN_FLUSH, found.stdout.splitlines(), strict=True)) == due


@pytest.mark.turns
def test_an_import_that_makes_the_process_flush_bent_what_is_due(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    (tmp_path / "flushing.py").write_text(FLUSHING, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = check("flushing:rounds", "bfloat16", kind="round", isolated=True, effort="quick")
    assert found
    assert "to import the target leaves its thread flushing" in str(found)
    found = check("flushing:flushes", "bfloat16", kind="round", isolated=True, effort="quick")
    assert (found.law, found.dialect) == ("subnormals", "flushes subnormal results")


@pytest.mark.turns(12)
@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    ("name", "dtype", "options"),
    [("after_three", "fp4", {}), ("of_channels", "int8", {"kind": "affine", "scheme": "per_channel(0)"}),
     ("decode_by_shape", "mxfp4", {"kind": "decode"}),
     ("twice_later", None, {"kind": "matmul", "a": "float32", "b": "mxfp4"})],
)  # fmt: skip
def test_what_depends_on_earlier_calls_was_blamed_on_an_input(name, dtype, options):
    found = judged(name, dtype, **options)
    assert found.law == "repeatable"
    assert "it depends on the calls before it" in found.where


@pytest.mark.turns
@pytest.mark.usefixtures("kernels")
def test_a_race_in_a_process_of_its_own_was_blamed_on_earlier_calls():
    """Asked first, by one thread, it is right: so is each, alone."""
    found = check("their_own_kernels:races", "fp4", isolated=True)
    assert found.law == "threads", str(found)
    assert "while another thread called" in found.counterexample.where


@pytest.mark.turns
@pytest.mark.usefixtures("kernels")
def test_a_wrong_kernel_is_wrong_as_the_first_call_too():
    assert judged("away").law == "ties"


@pytest.mark.turns
@pytest.mark.skipif(not can_guard(), reason="nothing is forbidden here")
@pytest.mark.usefixtures("kernels")
def test_what_lies_behind_a_result_may_not_be_touched():
    assert judged("reads_past_its_result", fills=True).law == "within"


@pytest.mark.turns
@pytest.mark.usefixtures("kernels")
@pytest.mark.skipif(not can_guard(), reason="no pages are forbidden here")
def test_a_product_that_was_wrong_at_the_end_of_its_memory_passed():
    found = judged("adds_one_at_a_page", None, kind="matmul", a="float32", b="float32")
    assert found.law == "strides"
    assert "memory" in found.where


@pytest.mark.turns(20)
@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("call", [5, 9, 70, 71, 230, 300])
def test_a_call_whose_answer_nobody_looked_at(monkeypatch, call):
    """Those beside forbidden memory: every second one."""
    monkeypatch.setenv("WRONG", str(call))
    assert judged("once_wrong", "bfloat16").law in ("repeatable", "layout")
