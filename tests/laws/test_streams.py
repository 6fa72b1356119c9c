"""Streams that are closed, full, unread or of few letters, and processes that are interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
from safetensors.numpy import save_file

import numerics as nx
from numerics import cli
from numerics.view.screen import Undelivered
from tests.helpers.terminal import NUMERICS

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full to write to")
LIMIT = 60  # seconds
CAPTURED = {"capture_output": True, "text": True}
NAMES = ["tensör.重み", "w[/]", "a\x1b[2J"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_file({name: np.full((8, 32), 0.3, np.float32) for name in NAMES}, path)
    return path


def shell(redirected, *words, **environment):
    """A command of ours with its streams redirected by a shell: its exit code, stdout and stderr."""
    line = f'"$@" {redirected}'
    command = ["sh", "-c", line, "sh", *NUMERICS, *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment}, check=False,
        errors="replace",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("redirected", "why", "as_json"),
    [(">&-", "it is closed", ()), (">/dev/full", "No space left on device", ("--json",))],
    ids=["closed", "full"],
)
def test_a_written_file_is_said_where_its_report_is_lost(model, tmp_path, redirected, why, as_json):
    out = tmp_path / "out"
    failed = shell(redirected, "quantize", model, out, "--dtype", "int4", *as_json)
    assert failed.returncode == 2
    assert failed.stderr == f"numerics: {out} is written, but standard output cannot be written: {why}\n"
    assert set(nx.load(out)) == set(NAMES)


HELP = [("--help",), ("--version",), ("plot", "tensor", "-h")]


@pytest.mark.parametrize("words", HELP, ids=" ".join)
def test_help_is_an_answer_as_others_are(words):
    """A closed stdout took it without a word, and a pipe that nobody read was a fault of ours."""
    assert shell("", *words).returncode == 0
    failed = shell(">&-", *words)
    assert (failed.returncode, failed.stderr) == (
        2, "numerics: standard output cannot be written: it is closed\n"
    )  # fmt: skip


@pytest.mark.parametrize("words", [("formats",), ("vectors", "generate", "fp4"), *HELP], ids=" ".join)
def test_an_answer_that_a_full_disk_does_not_take_is_an_error(words):
    failed = shell(">/dev/full", *words)
    assert failed.returncode == 2
    assert re.fullmatch("numerics: .*No space left on device\n", failed.stderr)


@pytest.mark.parametrize(
    ("redirected", "quiet"), [("2>&-", ()), ("<&- >&- 2>&-", ("--quiet",))], ids=["stderr", "all"]
)
def test_a_closed_stream_is_no_place_for_a_file(model, tmp_path, redirected, quiet):
    """What is opened first would get the number of a closed stream, and what is said would go into it."""
    out = tmp_path / "out"
    done = shell(redirected, "quantize", model, out, "--dtype", "int4", *quiet)
    assert done.returncode == 0
    assert set(nx.load(out)) == set(NAMES)


def test_errors_that_nobody_hears_keep_their_exit_code():
    assert shell("2>&-", "show", "nothing").returncode == 2
    assert shell("2>/dev/full", "show", "nothing").returncode == 2
    assert shell("2>&-", "nothing").returncode == 2


def test_a_closed_stdin_is_an_empty_one():
    failed = shell("<&-", "vectors", "verify")
    assert failed.returncode == 2
    assert failed.stderr.startswith("numerics: nothing came: did the device start? ")


@pytest.mark.parametrize("words", [("formats",), ("vectors", "generate", "fp8_e4m3"), *HELP], ids=" ".join)
def test_a_pipe_that_nobody_reads_ends_quietly(words):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as unread:
        ended = subprocess.run(
            [*NUMERICS, *words], stdout=unread, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert (ended.returncode, ended.stderr) == (141, b"")


FEW_LETTERS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "cp437": {"PYTHONIOENCODING": "cp437"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
}


@pytest.mark.turns
@pytest.mark.parametrize("environment", FEW_LETTERS.values(), ids=FEW_LETTERS)
def test_an_encoding_without_our_letters_spells_them(model, tmp_path, environment):
    if environment == FEW_LETTERS["C"]:
        done = shell("", "quantize", model, tmp_path / "out", "--dtype", "int4", **environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert "\\u91cd\\u307f" in done.stdout
    shown = shell("", "show", "fp8_e4m3", **environment)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "OCP OFP8 1.0" in shown.stdout


def test_a_name_of_no_encoding_is_shown_by_its_bytes(tmp_path):
    command = [*map(os.fsencode, NUMERICS), b"quantize", b"missing\xff.st", b"out", b"--dtype", b"int4"]
    failed = subprocess.run(command, capture_output=True, timeout=60, cwd=tmp_path, check=False)
    assert (failed.returncode, failed.stdout) == (2, b"")
    assert failed.stderr == b"numerics: cannot read missing\\xff.st: No such file or directory\n"


def few_files(limit):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


@pytest.mark.parametrize("limit", [5, 8])
def test_few_file_descriptors_work_or_are_one_clear_error(model, tmp_path, limit):
    out = tmp_path / "out"
    command = [*NUMERICS, "quantize", str(model), str(out), "--dtype", "int4", "--quiet"]
    ended = subprocess.run(
        command, preexec_fn=partial(few_files, limit), check=False, timeout=LIMIT, **CAPTURED
    )
    if ended.returncode:
        assert re.fullmatch(r"numerics: .*[Tt]oo many open files.*\n", ended.stderr)
    assert out.exists() == (ended.returncode == 0)
    assert not list(tmp_path.glob(".*"))


def test_without_docstrings_the_help_is_whole():
    commands = [[sys.executable, *flags, *NUMERICS[1:], "quantize", "--help"] for flags in ((), ("-OO",))]
    helped = [subprocess.run(command, check=True, timeout=LIMIT, **CAPTURED).stdout for command in commands]
    assert helped[0] == helped[1]
    assert "Write the weights of MODEL in a format." in helped[1]


# ---- interrupts and faults ----------------------------------------------------------------------


def interrupted(command, folder):
    """What a command that writes into a folder says to Ctrl-C as soon as it has begun to write."""
    listens = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # a background job may not
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=listens)
    try:
        deadline = time.monotonic() + LIMIT
        while not list(folder.glob(".*.partial")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
        process.wait(LIMIT)
    return process.returncode, said[0], said[1].strip()


def test_ctrl_c_leaves_nothing_behind_and_says_130(tmp_path):
    model, out = tmp_path / "model.safetensors", tmp_path / "out.safetensors"
    save_file({f"w{i}": np.ones((512, 1024), np.float32) for i in range(60)}, model)
    command = [*NUMERICS, "quantize", str(model), str(out), "--dtype", "int4", "--asymmetric"]
    for _ in range(5):
        out.write_bytes(b"old")
        found = interrupted(command, tmp_path)
        if out.read_bytes() == b"old":  # it was not finished before this process got a core again
            break
    code, printed, said = found
    assert (code, printed) == (130, b"")
    assert said in (b"", f"stopped: nothing new is kept in {out}; the same command begins again".encode())
    assert out.read_bytes() == b"old"
    assert not list(tmp_path.glob(".*.partial"))


def raising(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (nx.NumericsError("x is no format"), 2, "numerics: x is no format"),
        (KeyboardInterrupt(), 130, ""),
        (MemoryError(), 2, "numerics: not enough memory"),
        (OSError(24, "Too many", "f"), 2, "numerics: Too many: f; raise the limit (ulimit -n)"),
        (ZeroDivisionError("a\x1bb\nc"), 1,
         "numerics: ZeroDivisionError: a\\x1bb c; a fault of numerics: NUMERICS_DEBUG=1 shows where"),
        (Undelivered("gone", broken_pipe=True), 141, ""),
        (nx.NumericsError("w" * 10**6), 2, None),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_every_failure_is_one_line_and_a_code(monkeypatch, capsys, error, code, said):
    monkeypatch.delenv("NUMERICS_DEBUG", raising=False)
    assert cli.ended(raising(error)) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err) < 3000
    assert said is None or printed.err.rstrip("\n") == said


def test_a_fault_of_ours_shows_where_it_was_when_asked(monkeypatch):
    monkeypatch.setenv("NUMERICS_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.ended(raising(ZeroDivisionError()))
