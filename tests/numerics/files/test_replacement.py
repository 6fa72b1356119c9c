"""What is written: targets that are no files, modes, signals, kills, forks, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import numerics as nx
from numerics.cli import commands
from numerics.conform.verify.journal import Journal
from numerics.files import replacement
from numerics.files.checkpoint import dequantize_file, quantize_file
from numerics.files.replacement import Replacement, replace_file
from numerics.files.signals import terminable
from tests.helpers.children import child

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX's files, signals and processes")
HANG = 120  # seconds


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model of eight tensors, and the same quantized."""
    folder = tmp_path_factory.mktemp("made")
    nx.save({f"w{k}": np.ones((64, 64), np.float32) for k in range(8)}, folder / "in.st")
    quantize_file(folder / "in.st", folder / "in.q", "int8")
    return folder


@pytest.fixture
def model(made, tmp_path):
    """Both in a folder of their own."""
    for path in made.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path / "in.st"


WRITERS = {
    "quantize": lambda model, target: quantize_file(model, target, "int4"),
    "dequantize": lambda model, target: dequantize_file(model.with_name("in.q"), target),
    "save": lambda model, target: nx.save({"w": np.ones(3)}, target),
    "bytes": lambda model, target: replace_file(target, b"new"),
}


@pytest.fixture(params=WRITERS)
def write(request, model):
    """Everything that writes a file, as a call with its target."""
    return lambda target: WRITERS[request.param](model, target)


def bind(path: Path) -> None:
    """A socket, by its relative name: the length of an absolute one is limited."""
    before = Path.cwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(before)


NO_FILES = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a socket": bind,
    "a symbolic link that leads nowhere": lambda path: path.symlink_to("nothing/there"),
    "a symbolic link that leads nowhere ": lambda path: path.symlink_to(path.name),
    "a device": lambda path: os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3)),
}


def leavings(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix == ".partial"]


@pytest.mark.parametrize("what", NO_FILES)
def test_a_target_that_is_no_file_was_replaced(write, model, what):
    target = model.with_name("target")
    try:
        NO_FILES[what](target)
    except PermissionError:
        pytest.skip("only root makes devices")
    before = os.lstat(target)
    link = model.with_name("link")
    link.symlink_to(target)
    for path in (target, link):
        with pytest.raises(nx.NumericsError, match=f"it is {what.strip()}; allowed: a regular file"):
            write(path)
    assert os.lstat(target).st_mode == before.st_mode
    assert os.lstat(target).st_ino == before.st_ino
    assert leavings(model.parent) == []


@pytest.mark.parametrize("path", [None, 5, b"out.st", "", "a\0b", "\ud800", object(), ["out.st"]])
def test_paths_of_odd_types_were_foreign_exceptions(write, path):
    with pytest.raises(nx.NumericsError, match="is not the path of a file"):
        write(path)


@pytest.mark.parametrize("path", [None, 5, b"in.st", "", "a\0b", "\ud800"])
def test_sources_of_odd_types_were_foreign_exceptions(tmp_path, path):
    for read in (
        nx.load,
        lambda p: quantize_file(p, tmp_path / "o", "int4"),
        lambda p: dequantize_file(p, tmp_path / "o"),
    ):
        with pytest.raises(nx.NumericsError, match="is not the path of a file"):
            read(path)


@pytest.mark.parametrize("make", [os.mkfifo, bind], ids=["pipe", "socket"])
def test_a_source_that_nobody_writes_hung(tmp_path, make):
    make(tmp_path / "source")
    with pytest.raises(nx.NumericsError, match=r"cannot read .*source: (it is a pipe|No such device)"):
        nx.load(tmp_path / "source")


def test_the_mode_of_a_replaced_file_was_lost(write, model):
    target = model.with_name("target")
    for mode in (0o600, 0o640, 0o444, 0o755):
        target.write_bytes(b"old")
        target.chmod(mode)
        write(target)
        assert stat.S_IMODE(target.stat().st_mode) == mode
        assert target.read_bytes() != b"old"
        target.unlink()
    umask = os.umask(0o027)
    try:
        write(target)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_private_file_was_open_to_all_while_it_was_made(tmp_path):
    target = tmp_path / "private"
    target.write_bytes(b"old")
    target.chmod(0o640)
    with Replacement(target) as file:
        assert stat.S_IMODE(file.partial.stat().st_mode) == 0o600
        file.write(0, b"new")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_of_a_replaced_file_was_lost(write, model):
    target = model.with_name("target")
    target.write_bytes(b"old")
    target.chmod(0o660)
    os.chown(target, 1234, 4321)
    write(target)
    found = target.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 4321, 0o660)


def test_where_the_group_cannot_be_kept_it_gets_no_more(tmp_path, monkeypatch):
    """The mode of 0660 would open the file to another group than it was for."""
    target = tmp_path / "target"
    target.write_bytes(b"old")
    target.chmod(0o664)
    old = os.stat(target)
    other = os.stat_result((*old[:5], old.st_gid + 1, *old[6:]))

    def refused(handle, user, group):
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refused)
    with Replacement(target) as file:
        monkeypatch.setattr(file, "_old", lambda path: other)
    assert stat.S_IMODE(target.stat().st_mode) == 0o644


def test_names_of_every_length_that_folders_take(write, model):
    for name in ("a" * 255, "ü" * 127, "b" * 240, ".st"):
        write(model.with_name(name))
        assert model.with_name(name).stat().st_size
    assert leavings(model.parent) == []


def test_a_target_that_became_a_pipe_meanwhile(tmp_path):
    file = Replacement(tmp_path / "x").__enter__()
    os.mkfifo(tmp_path / "x")
    with pytest.raises(nx.NumericsError, match="it is a pipe"):
        file.__exit__(None, None, None)
    assert stat.S_ISFIFO(os.lstat(tmp_path / "x").st_mode)
    assert leavings(tmp_path) == []


def test_the_command_that_exports_models_refuses_the_same(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    found = CliRunner().invoke(commands, ["ipu", "export", "fp4", str(tmp_path / "pipe")])
    assert isinstance(found.exception, nx.NumericsError)
    assert "it is a pipe" in str(found.exception)


# ---- journals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/full", "/dev/null"])
def test_a_journal_that_never_ends_was_read_for_ever(device):
    with pytest.raises(nx.NumericsError, match="it is a device; allowed: a regular file"):
        Journal(Path(device))


def test_a_journal_that_nobody_writes_or_of_any_size(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(nx.NumericsError, match=r"it is a pipe|No such device"):
        Journal(tmp_path / "pipe")
    with (tmp_path / "long").open("wb") as file:
        file.write(Journal.BEGINNING)
        file.truncate(1 << 40)
    with pytest.raises(nx.NumericsError, match=r"is no journal .*: it has more than"):
        Journal(tmp_path / "long")


# ---- ends ---------------------------------------------------------------------------------------

RUN = """
import sys, time, numpy as np, numerics as nx
from numerics.files.checkpoint import quantize_file
def progress(name, done, total):
    if name == "w3":
        print("here", flush=True)
        time.sleep(60)
quantize_file(sys.argv[1], sys.argv[2], "int4", progress=progress)
"""


@contextmanager
def started(model: Path, target: Path):
    """A process in the middle of quantizing."""
    with child(
        [sys.executable, "-c", RUN, str(model), str(target)], stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stdout.readline() == b"here\n"
        yield process


@pytest.fixture
def unhandled():
    """Gives a signal its default for the test: whoever started us may ignore it, or use it."""
    before = {}

    def default(number):
        before[number] = signal.signal(number, signal.SIG_DFL)

    yield default
    for number, handler in before.items():
        signal.signal(number, handler)


ENDINGS = ["SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU", "SIGUSR1", "SIGALRM"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere fewer signals are caught")
@pytest.mark.parametrize("name", ENDINGS)
def test_half_a_file_stayed_after_a_signal(model, name, unhandled):
    unhandled(getattr(signal, name))

    def progress(tensor, done, total):
        if tensor == "w3":
            assert len(leavings(model.parent)) == 1
            os.kill(os.getpid(), getattr(signal, name))

    with pytest.raises(SystemExit) as ended:
        quantize_file(model, model.with_name("out"), "int4", progress=progress)
    assert ended.value.code == 128 + getattr(signal, name)
    assert sorted(path.name for path in model.parent.iterdir()) == ["in.q", "in.st"]


def test_half_a_file_stayed_after_sigkill_for_ever(model):
    """The next run removes what the dead left, and only that."""
    with started(model, model.with_name("live")):
        with started(model, model.with_name("dead")):
            assert len(leavings(model.parent)) == 2
        foreign = model.with_name(".other.ffffffff-00000000.partial")
        foreign.write_bytes(b"of another host")
        mine = model.with_name(".notes.partial")
        mine.write_bytes(b"a user's own")
        nx.save({"w": np.ones(2)}, model.with_name("other"))
        left = leavings(model.parent)
        assert sorted(left)[:1] == [".live." + sorted(left)[0][6:]]
        assert set(left) - {sorted(left)[0]} == {foreign.name, mine.name}
    nx.save({"w": np.ones(2)}, model.with_name("other"))
    assert set(leavings(model.parent)) == {foreign.name, mine.name}


def test_a_crowded_folder_is_looked_through_once(tmp_path, monkeypatch):
    monkeypatch.setattr(replacement, "CROWD", 3)
    looked, listed = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: looked.append(folder) or listed(folder))
    for k in range(9):
        replace_file(tmp_path / str(k), b"")
    assert len(looked) == 5


def test_signals_have_their_own_handlers_back():
    names = [getattr(signal, name) for name in ENDINGS]
    mine = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        before = [signal.getsignal(name) for name in names]
        with terminable():
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
            assert signal.getsignal(signal.SIGUSR1) is before[names.index(signal.SIGUSR1)]
            with terminable():  # within another it does nothing
                pass
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert [signal.getsignal(name) for name in names] == before
    finally:
        signal.signal(signal.SIGUSR1, mine)


FORK = """
import os, sys, numpy as np, numerics as nx
from numerics.files.checkpoint import quantize_file
ways = {"exit": lambda: sys.exit(0), "end": lambda: None, "_exit": lambda: os._exit(0)}
def progress(name, done, total):
    if name == "w3" and not children:
        children.append(os.fork())
        if children[0] == 0:
            ways[sys.argv[3]]()
        else:
            os.waitpid(children[0], 0)
children = []
try:
    quantize_file(sys.argv[1], sys.argv[2], "int4", progress=progress)
except nx.NumericsError as wrong:
    assert children == [0], wrong
"""


@pytest.mark.turns(6)
@pytest.mark.parametrize("way", ["exit", "end", "_exit"])
def test_a_child_that_ended_deleted_its_parents_file(model, way):
    out = model.with_name("out")
    subprocess.run([sys.executable, "-c", FORK, str(model), str(out), way], check=True, timeout=HANG)
    assert leavings(model.parent) == []
    quantize_file(model, model.with_name("due"), "int4")
    assert out.read_bytes() == model.with_name("due").read_bytes()


@pytest.mark.parametrize("dtype", ["int4", "mx6"])
def test_a_source_that_is_cut_while_it_is_read_was_a_sigbus(model, dtype):
    def progress(name, done, total):
        if name == "w3":
            os.truncate(model, 20_000)

    with pytest.raises(nx.NumericsError, match="was cut while it was read"):
        quantize_file(
            model, model.with_name("out"), dtype, axis=0 if dtype == "mx6" else None, progress=progress
        )
    assert leavings(model.parent) == []


def test_the_report_of_a_run_is_json(model, tmp_path):
    found = CliRunner().invoke(
        commands, ["quantize", str(model), str(tmp_path / "o"), "--dtype", "int4", "--json"]
    )
    assert found.exit_code == 0, found.output
    assert {tensor["axis"] for tensor in json.loads(found.stdout)["tensors"]} == {None}
