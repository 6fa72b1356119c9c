"""`numerics verify`: hashes by hand and by the reference, proofs, faults found, journals, the command."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from click.testing import CliRunner

import numerics as nx
from numerics.cli import verify
from numerics.cli.verify import verify_command
from numerics.conform.sweep import CHUNK
from numerics.conform.verify import hashes, journal, proof
from numerics.conform.verify.hashes import cases_of, hash_of_reference, shipped
from numerics.conform.verify.journal import Journal, prove_all
from numerics.conform.verify.proof import Result, cases, encoder, prove, runs, sample
from tests.helpers import terminal
from tests.helpers.children import LIMIT, child
from tests.helpers.dtypes import ELEMENTS
from tests.helpers.proofs import near_steps

COMMAND = [sys.executable, "-m", "numerics", "verify"]
LONG = bool(os.environ.get("NUMERICS_TEST_LONG"))
ENCODER = cases(["fp4"], ["floor"])[1]


def nothing(inputs):
    """Nobody looks."""


def command(*arguments):
    return CliRunner().invoke(verify_command, list(arguments), catch_exceptions=False)


# ---- hashes -------------------------------------------------------------------------------------


def test_a_hash_by_hand():
    steps = [(0, 0), (0x3F000001, 1), (0x7F800001, 0)]  # to int2: 0, 1 above 0.5, NaN
    steps += [(0x80000000, 0), (0xBF000001, 3), (0xBFC00000, 2), (0xFF800001, 0)]  # -1, -2 from -1.5 on
    content = b"".join(struct.pack("<IH", *step) for step in steps)
    assert shipped()["int2 encode half_even saturate"] == hashlib.sha256(content).hexdigest()
    content = struct.pack("<4f", 0.0, 1.0, -2.0, -1.0)
    assert shipped()["int2 decode"] == hashlib.sha256(content).hexdigest()


def test_every_case_has_a_hash():
    assert list(shipped()) == [str(case) for d in ELEMENTS for case in cases_of(d)] == list(map(str, cases()))
    encoders = [hash for case, hash in shipped().items() if "encode" in case and "half_even" in case]
    assert len(set(encoders)) == len(encoders)


@pytest.mark.turns(6)
@pytest.mark.parametrize("dtype", ELEMENTS, ids=str)
def test_shipped_hashes_are_the_reference_s(dtype):
    """16-bit formats in half_even; in all modes where tests may take long."""
    every = LONG or dtype.bits <= 8
    for case in cases_of(dtype):
        if every or case.rounding in (None, "half_even"):
            assert shipped()[str(case)] == hash_of_reference(case), case


# ---- proofs -------------------------------------------------------------------------------------


@pytest.mark.turns
def test_a_proof():
    done = []
    found = prove(ENCODER, "cpu", done.append)
    assert found
    assert (found.inputs, sum(done)) == (1 << 32, 1 << 32)
    assert found.sha256 == shipped()["fp4 encode floor saturate"]


@pytest.mark.turns
def test_one_wrong_input_of_all_is_found(monkeypatch):
    """1.0 gives the code of 1.5.  All inputs are hashed; the wrong one is looked for where it can be."""
    if not LONG:
        monkeypatch.setattr(proof, "sweep", near_steps)
    right = encoder(ENCODER, "cpu")

    def faulty(x, out):
        right(x, out)
        bits = x.view(np.uint32)
        if bits[0] <= 0x3F800000 <= bits[-1]:
            out[bits == 0x3F800000] += 1

    monkeypatch.setattr(proof, "encoder", lambda case, backend: faulty)
    found = prove(ENCODER)
    assert not found
    assert str(found).endswith(
        f"{'4294967296' if LONG else ''} inputs, 1 mismatches; first: np.float32(1.0) (0x3F800000) gave 0x3, "
        "should be 0x2"
    )


@pytest.mark.parametrize("backend", ["cpu", "array"])
@pytest.mark.parametrize("dtype", ELEMENTS, ids=str)
def test_decoders(dtype, backend):
    found = prove(next(cases_of(dtype)), backend)
    assert found
    assert found.inputs == 1 << dtype.bits


def test_a_faulty_decoder_is_found(monkeypatch):
    right = proof._decoded

    def faulty(codes, dtype, backend):
        values = right(codes, dtype, backend)
        values[8] = 0.0  # -0 without its sign
        return values

    monkeypatch.setattr(proof, "_decoded", faulty)
    assert "16 inputs, 1 mismatches; first: 0x8 gave np.float32(0.0), should be np.float32(-0.0)" in str(
        prove(cases(["fp4"])[0])
    )


def test_a_wrong_hash_is_not_laid_at_the_backend_s_door(monkeypatch):
    monkeypatch.setattr(proof, "shipped", lambda: {"fp4 decode": "0" * 64})
    assert "0 mismatches, but the shipped hash is another" in str(prove(cases_of(nx.fp4).__next__()))


def small(monkeypatch):
    """2**20 inputs stand for all of them; the second half begins a side."""
    monkeypatch.setattr(proof, "EVERY", 4 * CHUNK)
    monkeypatch.setattr(proof, "SIGN", 2 * CHUNK)


def test_runs(monkeypatch):
    """Within a chunk, at its ends, over several; the second side begins a run of its own."""
    small(monkeypatch)
    steps = {0: 5, 1: 6, CHUNK - 1: 7, CHUNK: 8, CHUNK + 9: 9, 3 * CHUNK: 4, 4 * CHUNK - 1: 5}
    firsts, after = np.array(list(steps)), np.array(list(steps.values()), np.uint8)

    def encode(x, out):
        out[...] = after[np.searchsorted(firsts, x.view(np.uint32), "right") - 1]

    came = dict(zip(*(a.tolist() for a in runs(encode, "uint8", nothing)), strict=True))
    assert came == steps | {2 * CHUNK: 9}


def test_an_encoder_without_runs_ends_early(monkeypatch):
    small(monkeypatch)
    monkeypatch.setattr(proof, "MOST_RUNS", 10)
    calls = []

    def encode(x, out):
        calls.append(1)
        out[...] = x.view(np.uint32) & 1

    firsts, _ = runs(encode, "uint8", nothing)
    assert (len(calls), len(firsts)) == (1, CHUNK)


@pytest.mark.parametrize("backend", ["cpu", "array"])
def test_samples(backend):
    for case in cases(["fp8_e4m3fnuz", "int8", "e8m0"], ["half_up", "ceil"]):
        found = sample(case, backend)
        assert found, str(found)
        assert found.sha256 is None or case.name == "decode"


def test_a_sample_finds_a_moved_breakpoint(monkeypatch):
    wrong = cases(["fp4"], ["half_away"])[1]
    monkeypatch.setattr(proof, "encoder", lambda case, backend: encoder(wrong, backend))
    found = sample(cases(["fp4"], ["half_even"])[1])
    assert "8 mismatches; first: 0x3E800000 gave 1, should be 0" in str(found).replace(
        "np.uint8(", ""
    ).replace(")", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([["fp8_e4m4"]], "unknown format"),
        ([["mx6"]], r"mx6 is of blocks, .* allowed: int2, .*, fp8_e4m3, .*, nf4, "),
        ([[], ["stochastic"]], "unknown deterministic rounding mode 'stochastic'"),
        ([[], [], ["saturated"]], "did you mean 'saturate'"),
        ([["fp4"], [], ["nonsaturate"]], "neither Inf nor NaN"),
    ],
)
def test_refused_cases(arguments, message):
    with pytest.raises(nx.NumericsError, match=message):
        cases(*arguments)


def test_a_format_of_ones_own_is_judged_by_the_reference_and_kept_in_no_journal(tmp_path, monkeypatch):
    """Formats without a shipped hash were refused, and every other command takes them."""
    own = nx.float_format(3, 2, name="e3m2_own")
    decode, encode = cases([own], ["floor"], ["saturate"])
    assert sample(encode)
    assert str(sample(decode)) == "e3m2_own decode on cpu: 64 inputs, 0 mismatches"
    journal = Journal(tmp_path / "proofs.jsonl")
    assert [found.sha256 for found in prove_all([decode], journal=journal)] == [None]
    assert not Journal(tmp_path / "proofs.jsonl").finished
    due = cases([own], ["ceil"], ["saturate"])[1]
    monkeypatch.setattr("numerics.conform.verify.proof.encoder", lambda case, backend: encoder(due, backend))
    assert "mismatches; first" in str(sample(encode))


def test_chosen_cases():
    assert [str(case) for case in cases(["E4M3", "fp4"], ["floor"], ["nonsaturate", "saturate"])] == [
        "fp8_e4m3 decode",
        "fp8_e4m3 encode floor saturate",
        "fp8_e4m3 encode floor nonsaturate",
        "fp4 decode",
        "fp4 encode floor saturate",
    ]


def test_refused_backends():
    with pytest.raises(nx.NumericsError, match="unknown backend 'reference'"):
        prove(ENCODER, "reference")
    with pytest.raises(nx.NumericsError, match="unknown backend 'ipu'"):
        sample(ENCODER, "ipu")


def test_the_gpu_s_kernels_interpreted():
    """Without a GPU; their bits on all edges are for tests/backends to judge."""
    assert prove(cases(["fp8_e4m3"])[0], "gpu")
    x, out = np.float32([0.3, -448.0, np.nan]), np.empty(3, np.uint8)
    with nx.use("gpu"):
        encoder(cases(["fp8_e4m3"], ["floor"])[1], "gpu")(x, out)
    assert out.tolist() == [0x29, 0xFE, 0x7F]


@pytest.mark.turns
def test_a_gpu_that_is_not_there():
    if pytest.importorskip("torch").cuda.is_available():
        pytest.skip("there is one")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    found = subprocess.run(
        [*COMMAND, "fp4", "--backend", "gpu"], env=environment, capture_output=True, timeout=60
    )
    assert (found.returncode, found.stdout) == (2, b"")
    assert found.stderr.startswith(b"numerics: no GPU: ")


# ---- the journal --------------------------------------------------------------------------------


@pytest.fixture
def proved(monkeypatch):
    """The names of the cases that were run; nothing is computed."""
    names = []

    def quick(case, backend, advance):
        names.append(str(case))
        return Result(str(case), backend, 16, shipped()[str(case)])

    monkeypatch.setattr(journal, "prove", quick)
    return names


WANTED = cases(["fp4"], ["half_even", "floor"])
NAMES = [str(case) for case in WANTED]


def test_a_journal_of_other_arithmetic_said_that_a_broken_kernel_was_proven(tmp_path, proved, monkeypatch):
    path = tmp_path / "proofs.jsonl"
    list(prove_all(WANTED, "cpu", Journal(path)))
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[0])["arithmetic"] == journal.arithmetic()
    monkeypatch.setattr(journal, "arithmetic", lambda: "0" * 64)
    assert not any(result.resumed for result in prove_all(WANTED, "cpu", Journal(path)))
    assert proved == [*NAMES, *NAMES]


def test_the_hash_of_arithmetic_missed_a_changed_line(tmp_path, monkeypatch):
    (tmp_path / "kernel.py").write_text("code = half - 1", encoding="utf-8")
    home = types.SimpleNamespace(__file__=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(journal, "imported", lambda name: home)
    before = journal.arithmetic.__wrapped__()
    (tmp_path / "kernel.py").write_text("code = half - 2", encoding="utf-8")
    assert journal.arithmetic.__wrapped__() != before


def test_a_journal_resumes(tmp_path, proved):
    path = tmp_path / "proofs.jsonl"
    first = prove_all(WANTED, "cpu", Journal(path))
    next(first), next(first)
    assert [json.loads(line)["case"] for line in path.read_text(encoding="utf-8").splitlines()] == NAMES[:2]
    found = list(prove_all(WANTED, "cpu", Journal(path)))
    assert proved == NAMES
    assert [(result.case, result.resumed) for result in found] == list(
        zip(NAMES, [True, True, False], strict=True)
    )
    list(prove_all(WANTED, "array", Journal(path)))  # another backend has proved nothing yet
    assert proved == NAMES * 2


def test_a_torn_line_counts_for_nothing(tmp_path, proved):
    path = tmp_path / "proofs.jsonl"
    list(prove_all(WANTED, "cpu", Journal(path)))
    whole = path.read_bytes()
    for torn in (whole[:-1], whole[:-9], whole[: whole.rindex(b"{") + 5]):
        path.write_bytes(torn)
        del proved[:]
        assert all(prove_all(WANTED, "cpu", Journal(path)))
        assert proved == ([] if torn == whole[:-1] else NAMES[-1:])
        assert [
            json.loads(line)["case"] for line in path.read_bytes().splitlines() if line.endswith(b"}")
        ] == NAMES


def test_only_right_cases_of_this_version_are_finished(tmp_path, proved):
    path = tmp_path / "proofs.jsonl"
    list(prove_all(WANTED, "cpu", Journal(path)))
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    entries[0]["numerics"], entries[1]["sha256"] = "0.0.0", "0" * 64
    path.write_text(
        "".join(json.dumps(entry) + "\n" for entry in [*entries, {"numerics": 1}]), encoding="utf-8"
    )
    del proved[:]
    list(prove_all(WANTED, "cpu", Journal(path)))
    assert proved == NAMES[:2]


@pytest.mark.parametrize("change", [{"backend": ["cpu"]}, {"case": {}}, {"inputs": "many"}, {"sha256": None}])
def test_a_damaged_line_counts_for_nothing(tmp_path, proved, change):
    path = tmp_path / "proofs.jsonl"
    list(prove_all(WANTED, "cpu", Journal(path)))
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    entries[0] |= change
    path.write_text(
        "".join(json.dumps(entry) + "\n" for entry in entries) + "[" * 100_000 + "\n", encoding="utf-8"
    )
    del proved[:]
    assert all(prove_all(WANTED, "cpu", Journal(path)))
    assert proved == NAMES[:1]


def test_refused_journals(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"\x00" * 100)
    with pytest.raises(nx.NumericsError, match="is no journal"):
        Journal(weights)
    assert weights.read_bytes() == b"\x00" * 100
    with pytest.raises(nx.NumericsError, match="cannot be the journal: No such file"):
        Journal(tmp_path / "nowhere" / "proofs.jsonl")


# ---- the command --------------------------------------------------------------------------------


def test_the_command(tmp_path, proved):
    arguments = ["fp4", "--rounding", "half_even", "--rounding", "floor", "--resume", str(tmp_path / "j")]
    found = command(*arguments)
    assert (found.exit_code, found.stdout.splitlines()[0]) == (
        0,
        "fp4 decode on cpu: 16 inputs, 0 mismatches",
    )
    assert found.stdout.splitlines()[-1] == "3 cases, 48 inputs, 0 wrong: every input"
    said = json.loads(command(*arguments, "--json").stdout)
    assert (said["proof"], said["right"], [case["case"] for case in said["cases"]]) == (True, True, NAMES)
    assert all(case["resumed"] for case in said["cases"])


def test_the_command_says_that_a_sample_is_no_proof(monkeypatch):
    found = command("fp4", "--rounding", "floor", "--sample", "--backend", "array")
    assert found.exit_code == 0
    assert found.stdout.endswith(" 0 wrong: a slice of the inputs, not a proof\n")
    monkeypatch.setattr(proof, "encoder", lambda case, backend: lambda x, out: out.fill(0))
    found = command("fp4", "--rounding", "floor", "--sample", "--json")
    said = json.loads(found.stdout)
    assert (found.exit_code, said["proof"], said["right"]) == (1, False, False)
    with pytest.raises(nx.NumericsError, match="give --resume or --sample"):
        command("fp4", "--sample", "--resume", "anything")


@pytest.mark.turns
def test_a_bar_where_somebody_looks_and_plain_lines_elsewhere():
    """stderr is a terminal, stdout a file."""
    ended = terminal.run([*COMMAND, "fp4", "--rounding", "floor"], stdout_to_file=True, timeout=120)
    assert (ended.code, ended.printed.splitlines()[1]) == (
        0,
        "fp4 encode floor saturate on cpu: 4294967296 inputs, 0 mismatches",
    )
    assert "float32 inputs" in ended.text
    assert ended.lines == [""], "nothing is left of the bar"


def test_results_stand_on_lines_of_their_own_beside_the_bar(monkeypatch):
    def proved(wanted, backend, journal, advance):
        for case in wanted:
            advance(1 << 31)
            yield Result(str(case), backend, 16, "hash")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(journal, "prove_all", proved)
    monkeypatch.setattr(sys, "stdout", seen := Terminal())
    monkeypatch.setattr(sys, "stderr", seen)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(SystemExit, match="0"):
        verify_command.main(["fp4", "--rounding", "floor"], standalone_mode=False)
    assert "float32 inputs  ━━━━━" in seen.getvalue()
    assert [terminal.drawn(line) for line in seen.getvalue().split("\n")] == [
        "fp4 decode on cpu: 16 inputs, 0 mismatches",
        "fp4 encode floor saturate on cpu: 16 inputs, 0 mismatches",
        "2 cases, 32 inputs, 0 wrong: every input",
        "",
    ]


@pytest.mark.parametrize(
    ("arguments", "seconds", "due"),
    [
        (["fp4"], 6.0, ["the first encoder took 6.0 s; at that pace the 6 others take 36 s"]),
        ([], 4.0, ["the first encoder took 4.0 s; at that pace the 295 others take 20 minutes"]),
        ([], 100.0, ["the first encoder took 100.0 s; at that pace the 295 others take 8.2 hours"]),
        (["fp4"], 1.0, []),
        (["fp4", "--sample"], 100.0, []),
    ],
)
def test_how_long_all_of_it_takes_was_not_said(monkeypatch, tmp_path, arguments, seconds, due):
    """Of fp4 the first of 8 encoders is in the journal: 7 are left, and the first of them is timed."""
    clock, proofs = [0.0], tmp_path / "proofs.jsonl"

    def proved(case, backend, advance):
        clock[0] += seconds * (case.name == "encode")
        return Result(str(case), backend, 1 << 32 if case.name == "encode" else 16, shipped()[str(case)])

    monkeypatch.setattr(journal, "prove", proved)
    monkeypatch.setattr(proof, "sample", lambda case, backend: Result(str(case), backend, 16, None))
    monkeypatch.setattr(verify.time, "monotonic", lambda: clock[0])
    if due and arguments:
        command(*arguments, "--rounding", "half_even", "--resume", str(proofs))
        arguments = [*arguments, "--resume", str(proofs)]
    ended = command(*arguments)
    assert ended.exit_code == 0
    assert ended.stderr.splitlines() == due


def test_an_interrupt_leaves_the_journal_whole(tmp_path):
    path = tmp_path / "proofs.jsonl"
    with child(
        [*COMMAND, "fp8_e4m3", "--resume", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
    ) as process:  # fmt: skip
        end = time.monotonic() + LIMIT
        while (not path.exists() or not path.read_bytes()) and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert b"Traceback" not in said
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert entries[0]["case"] == "fp8_e4m3 decode"


def test_the_truth_is_written_by_its_module(monkeypatch, capsys):
    monkeypatch.setattr(hashes, "dtypes", lambda: [nx.int2, nx.mx6, nx.fp4])
    hashes.main()
    made = json.loads(capsys.readouterr().out)
    assert made == {name: shipped()[name] for name in made}
    assert len(made) == 2 + 2 * 8
