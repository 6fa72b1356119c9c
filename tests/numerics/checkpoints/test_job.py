"""Folders of shards as one job: the same bytes whoever does it, and nothing begun twice or lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest

import numerics as nx
from numerics.checkpoints import Request, Source, job, quantize
from numerics.checkpoints.converting import convert
from numerics.checkpoints.job import Options
from numerics.checkpoints.ranks import Ranks
from numerics.cli import commands, ended
from numerics.files.checkpoint import quantize_file
from numerics.files.replacement import lock
from numerics.files.safetensors import Entry, Reader, header_bytes, placed
from tests.helpers.checkpoint_jobs import kill_at_a_name, kill_until_done, run_ranks, started
from tests.helpers.children import LIMIT
from tests.helpers.disks import fill_up
from tests.helpers.shards import INDEX, contents, tensors_of, write_shards

NVFP4 = Request(nx.QuantSpec("nvfp4"), {"lm_head": None})
CODE = """
import sys, time, numerics as nx
from numerics.checkpoints import Request, quantize
from numerics.checkpoints.job import Options
from numerics.checkpoints.ranks import Ranks
quantize(sys.argv[1], sys.argv[2], Request(nx.QuantSpec("nvfp4"), {"lm_head": None}),
         Options(ranks=Ranks.of_environment(),
                 finished=lambda *told: [print(*told, flush=True), time.sleep(0.03)]))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("source") / "model", tensors_of(3), 6)


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """What one process makes of it."""
    out = tmp_path_factory.mktemp("whole") / "out"
    quantize(model, out, NVFP4)
    return contents(out)


def loaded(folder):
    found = {}
    for shard in sorted(folder.glob("*.safetensors")):
        found |= nx.load(shard)
    return found


def test_a_folder_becomes_a_folder_that_says_where_all_is(model, tmp_path):
    report = quantize(model, tmp_path / "out", NVFP4)
    assert report.shards == 6
    assert sorted(os.listdir(tmp_path / "out")) == sorted([*os.listdir(model), "numerics_job.json"])
    index = json.loads((tmp_path / "out" / INDEX).read_text(encoding="utf-8"))
    total = 0
    for shard in (tmp_path / "out").glob("*.safetensors"):
        entries = Reader(shard).entries
        assert {index["weight_map"][name] for name in entries} == {shard.name}
        total += sum(entry.nbytes for entry in entries.values())
    assert index["metadata"]["total_size"] == total == report.bytes_after
    source, tensors = tensors_of(3), loaded(tmp_path / "out")
    assert tensors.keys() == source.keys()
    assert tensors["lm_head.weight"].tobytes() == source["lm_head.weight"].tobytes()
    q = tensors["model.layers.0.self_attn.o_proj.weight"]
    assert (
        q.dequantize().tobytes()
        == nx.fake_quantize(source["model.layers.0.self_attn.o_proj.weight"], "nvfp4").tobytes()
    )


def test_partners_have_one_tensor_scale_the_largest(model, tmp_path):
    quantize(model, tmp_path / "out", NVFP4)
    source, tensors = tensors_of(3), loaded(tmp_path / "out")
    for layer in range(3):
        names = [f"model.layers.{layer}.self_attn.{k}_proj.weight" for k in "qkv"]
        every = np.concatenate([source[name] for name in names])
        due = nx.quantize(every, "nvfp4").tensor_scale
        assert {tensors[name].tensor_scale for name in names} == {due}
        for name in names:
            expected = nx.quantize(source[name], "nvfp4", tensor_scale=due)
            assert tensors[name].packed.tobytes() == expected.packed.tobytes()


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_make_the_same_bytes_as_one_process(model, whole, tmp_path, world):
    run_ranks(CODE, model, tmp_path / "out", world=world)
    assert contents(tmp_path / "out") == whole


def test_memory_and_what_is_measured_change_no_weights(model, whole, tmp_path):
    for options in (Options(max_memory=1 << 14), Options(errors="none"), Options(errors="sampled")):
        out = tmp_path / f"{options.errors}{options.max_memory}"
        quantize(model, out, NVFP4, options)
        made = contents(out)
        assert {k: v for k, v in made.items() if k != "numerics_job.json"} == {
            k: v for k, v in whole.items() if k != "numerics_job.json"
        }


def test_a_killed_job_goes_on_where_it_was(model, whole, tmp_path):
    """Killed at moments that differ, until it is done: finished shards are never touched again."""
    out, rng = tmp_path / "out", np.random.default_rng(5)

    def wait(process, kills):
        process.stdout.readline() if not kills or rng.random() < 0.7 else time.sleep(rng.uniform(0.05, 0.6))
        time.sleep(rng.uniform(0, 0.04))

    stamps = kill_until_done(lambda: started(CODE, model, out), out, wait, runs=40)
    report = quantize(model, out, NVFP4)
    assert all((out / shard).stat().st_mtime_ns == stamp for shard, stamp in stamps.items())
    assert report.resumed >= len(stamps)
    assert contents(out) == whole


def test_a_shard_that_had_its_name_when_the_job_was_killed_was_made_anew(model, whole, tmp_path):
    """It had its name before it stood in the journal: a kill in between had it made a second time."""
    out, stamps = tmp_path / "out", {}
    for kills in range(1, 3):
        kill_at_a_name(CODE, model, out, before=False)
        made = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.glob("*.safetensors")}
        assert len(made) == kills
        assert made.items() >= stamps.items()
        stamps = made
    kill_at_a_name(CODE, model, out, before=True)
    assert set(out.glob("*.safetensors")) == set(stamps)
    assert len(list((out / ".numerics").glob("*.safetensors.json"))) == 3, "one is noted and has no name"
    assert quantize(model, out, NVFP4).resumed == 2
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in stamps} == stamps
    assert contents(out) == whole


def test_a_job_that_is_done_is_not_done_again(model, whole, tmp_path):
    out = tmp_path / "out"
    first = quantize(model, out, NVFP4)
    stamps = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    again = quantize(model, out, NVFP4)
    assert again.resumed == 6
    assert again.tensors == first.tensors
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == stamps
    shard = next(out.glob("*.safetensors"))
    damaged = bytearray(shard.read_bytes())
    damaged[-1] ^= 1
    shard.write_bytes(damaged)
    with pytest.raises(nx.NumericsError, match=f"{shard} is not what this job wrote"):
        quantize(model, out, NVFP4)


@pytest.mark.parametrize(
    ("file", "bytes_too"), [("model-00001", False), ("model-00001", True), ("config.json", True)]
)
def test_a_finished_job_whose_source_changed_gave_the_old_report(tmp_path, file, bytes_too):
    model = write_shards(tmp_path / "model", tensors_of(1), 2)
    quantize(model, tmp_path / "out", NVFP4)
    before = contents(tmp_path / "out")
    (changed,) = model.glob(f"{file}*")
    if bytes_too:
        changed.write_bytes(changed.read_bytes()[:-1] + b" ")
    os.utime(changed, ns=(1, 1))
    with pytest.raises(
        nx.NumericsError, match=rf"out was made of another source: {changed.name} has changed"
    ):
        quantize(model, tmp_path / "out", NVFP4)
    assert contents(tmp_path / "out") == before


def test_a_finished_job_does_not_mind_other_times_of_files_that_are_copied(tmp_path):
    model = write_shards(tmp_path / "model", tensors_of(1), 2)
    quantize(model, tmp_path / "out", NVFP4)
    os.utime(model / "config.json", ns=(1, 1))
    assert quantize(model, tmp_path / "out", NVFP4).resumed == 2


def test_a_folder_of_something_else_is_left_alone(model, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(nx.NumericsError, match=r"out is not empty: it holds mine.txt"):
        quantize(model, tmp_path / "out", NVFP4)
    with pytest.raises(nx.NumericsError, match="lies in the input"):
        quantize(model, model / "out", NVFP4)
    with pytest.raises(nx.NumericsError, match="is the input"):
        quantize(model, model, NVFP4)
    assert contents(tmp_path / "out") == {"mine.txt": b"mine"}


def test_an_output_that_cannot_be_is_refused_before_a_plan_is_told_or_saved(model, tmp_path, capsys):
    """The plan of a large model came first, and below it that OUT is not empty."""
    full, file, ours, plan = (tmp_path / name for name in ("full", "file", "ours", "plan.toml"))
    full.mkdir()
    for path in (full / "mine.txt", file):
        path.write_text("mine", encoding="utf-8")
    quantize(model, ours, Request(nx.QuantSpec("int8")))
    begun, busy = tmp_path / "begun", tmp_path / "busy"
    for folder, other in ((begun, "another"), (busy, None)):
        (folder / ".numerics").mkdir(parents=True)
        (folder / ".numerics" / "lock").touch()
        if other:
            (folder / ".numerics" / "job.json").write_text(json.dumps({"job": other}), encoding="utf-8")
    due = {full: "is not empty: it holds mine.txt", file: "it is a file; name a folder",
           ours: "finished output of another job", begun: "unfinished job of another kind",
           model / "out": "lies in the input", model: "is the input"}  # fmt: skip
    with open(busy / ".numerics" / "lock", "rb+") as held:
        if os.name != "nt":
            assert lock(held.fileno(), wait=False)
            due[busy] = "another job is at work"
        for out, why in due.items():
            before = contents(out) if out.is_dir() else None
            command = ["quantize", str(model), str(out), "--dtype", "mxfp4", "--save-plan", str(plan)]
            assert ended(lambda command=command: commands.main(command, standalone_mode=False)) == 2
            said = capsys.readouterr()
            assert why in said.err, out
            assert not said.out, "nothing was told before"
            assert not plan.exists()
            assert before == (contents(out) if out.is_dir() else None)


class Stopped(Exception):
    pass


def stop_after(count):
    def finished(name, done, total):
        if done == count:
            raise Stopped

    return Options(finished=finished)


def test_an_unfinished_job_of_other_options_is_refused(model, tmp_path):
    with pytest.raises(Stopped):
        quantize(model, tmp_path / "out", NVFP4, stop_after(2))
    with pytest.raises(nx.NumericsError, match="holds an unfinished job of another kind"):
        quantize(model, tmp_path / "out", Request(nx.QuantSpec("mxfp4")))
    assert quantize(model, tmp_path / "out", NVFP4).resumed == 2


@pytest.mark.parametrize(
    ("request_", "options", "named"),
    [
        (Request(nx.QuantSpec("mxfp4"), {"lm_head": None}), Options(), r"\(another format of some tensor\)"),
        (NVFP4, Options(errors="none"), r"\(another errors\)"),
        (NVFP4, Options(errors="none", tensor_scale=0.5), r"\(another errors, another tensor scale\)"),
    ],
)
def test_the_refusal_of_other_options_did_not_say_which(model, tmp_path, request_, options, named):
    with pytest.raises(Stopped):
        quantize(model, tmp_path / "out", NVFP4, stop_after(2))
    with pytest.raises(nx.NumericsError, match=named) as refused:
        quantize(model, tmp_path / "out", request_, options)
    assert not getattr(refused.value, "__notes__", [])


def test_a_job_that_was_stopped_did_not_say_how_far_it_is(model, tmp_path):
    with pytest.raises(Stopped) as stopped:
        quantize(model, tmp_path / "out", NVFP4, stop_after(2))
    assert stopped.value.__notes__ == [
        f"2 of 6 shards are done in {tmp_path / 'out'}; the same command goes on"
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_how_far_it_is_and_what_it_kept(model, tmp_path, monkeypatch, capfd, number):
    command = ["quantize", str(model), str(tmp_path / "out"), "--dtype", "mxfp4"]
    write = job.write_quantized

    def stop(*given):
        write(*given)
        os.kill(os.getpid(), number)

    with monkeypatch.context() as patched:
        patched.setattr(job, "write_quantized", stop)
        try:
            code = ended(lambda: commands.main(command, prog_name="numerics", standalone_mode=False))
        except SystemExit as stopped:
            code = stopped.code
    assert code == 128 + number
    assert "1 of 6 shards are done in" in capfd.readouterr().err
    assert not ended(lambda: commands.main(command, prog_name="numerics", standalone_mode=False))
    assert "shards that were done before and are kept: 1" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("folder", [True, False])
def test_a_command_that_was_stopped_before_anything_was_whole_said_nothing(
    model, tmp_path, monkeypatch, capfd, number, folder
):
    source, out = (model, tmp_path / "out") if folder else (min(model.glob("*.safetensors")), tmp_path / "o")
    monkeypatch.setattr(job, "write_quantized", lambda *_: os.kill(os.getpid(), number))
    if not folder and number == signal.SIGTERM:
        monkeypatch.setattr(job, "write_quantized", lambda *_: sys.exit(128 + number))
    command = ["quantize", str(source), str(out), "--dtype", "mxfp4"]
    with suppress(SystemExit):
        ended(lambda: commands.main(command, prog_name="numerics", standalone_mode=False))
    assert f"stopped: nothing new is kept in {out}; the same command begins again" in capfd.readouterr().err
    assert not os.path.exists(out)


def test_shards_that_are_kept_were_told_as_if_they_were_done_again(model, tmp_path, capfd):
    command = ["quantize", str(model), str(tmp_path / "out"), "--dtype", "nvfp4", "--dtype", "lm_head=none"]
    with pytest.raises(Stopped):
        quantize(model, tmp_path / "out", NVFP4, stop_after(2))
    made, kept = [], []
    with pytest.raises(Stopped):
        quantize(model, tmp_path / "out", NVFP4, Options(
            finished=lambda *told: [made.append(told), stop_after(3).finished(*told)],
            kept=lambda *told: kept.append(told)))  # fmt: skip
    assert [told[1:] for told in kept] == [(1, 6), (2, 6)]
    assert [told[1:] for told in made] == [(3, 6)]
    assert not ended(lambda: commands.main(command, prog_name="numerics", standalone_mode=False))
    said = capfd.readouterr().err
    assert [" done before and kept: " in line for line in said.splitlines()[:6]] == [True] * 3 + [False] * 3
    assert "shards that were done before and are kept: 3" in said


@pytest.mark.parametrize("words", [["--max-memory", "lots"], ["--max-memory", "1"], ["--tensor-scale", "-1"]])
def test_an_option_of_the_job_was_refused_below_a_plan_that_was_said_and_saved(model, tmp_path, capfd, words):
    command = ["quantize", str(model), str(tmp_path / "out"), "--dtype", "nvfp4", *words,
               "--save-plan", str(tmp_path / "plan.toml")]  # fmt: skip
    assert ended(lambda: commands.main(command, prog_name="numerics", standalone_mode=False)) == 2
    assert capfd.readouterr().out == ""
    assert not os.listdir(tmp_path)


def test_the_output_of_another_job_was_called_a_folder_that_is_not_empty(model, tmp_path):
    other = write_shards(tmp_path / "other", tensors_of(1), 2)
    quantize(other, tmp_path / "out", NVFP4)
    before = contents(tmp_path / "out")
    said = r"is the finished output of another job \({}\), made of 'other'; name another folder, or remove"
    with pytest.raises(nx.NumericsError, match=said.format("another format of some tensor")):
        quantize(other, tmp_path / "out", Request(nx.QuantSpec("mxfp4")))
    with pytest.raises(nx.NumericsError, match=said.format("another format of some tensor, another source")):
        quantize(model, tmp_path / "out", NVFP4)
    with pytest.raises(nx.NumericsError, match="another command began it"):
        convert(other, tmp_path / "out", "safetensors")
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("room", [0, 1, 3])
def test_a_job_that_could_not_write_left_its_journal(model, tmp_path, monkeypatch, room):
    fill_up(monkeypatch, room)
    with pytest.raises(nx.NumericsError, match="nothing was written"):
        quantize(model, tmp_path / "a" / "out", NVFP4)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("command", [["quantize", "--dtype", "mxfp4"], ["convert"], ["dequantize"]])
def test_what_lies_beside_and_is_not_copied_was_not_said(tmp_path, capfd, command):
    model = write_shards(tmp_path / "model", tensors_of(1), 2)
    if command[0] == "dequantize":
        quantize(model, tmp_path / "q", NVFP4)
        model = tmp_path / "q"
    for name in ("sub-1", "sub-2"):
        (model / name).mkdir()
    os.mkfifo(model / "pipe")
    (model / "link").symlink_to("nowhere")
    (model / "to").symlink_to("sub-1")
    (model / "pytorch_model.bin").write_bytes(b"")
    for quiet in ([], ["--quiet"]):
        out = tmp_path / f"out{len(quiet)}"
        asked = [command[0], str(model), str(out), *command[1:], *quiet]
        assert not ended(lambda asked=asked: commands.main(asked, standalone_mode=False))
        told = "".join(capfd.readouterr())
        due = "not copied: link, pipe, pytorch_model.bin, sub-{1-2}, to\n"
        assert (due in told) is not bool(quiet)


@pytest.mark.parametrize("inner", ["", "out"])
def test_an_output_behind_a_link_to_nowhere_is_called_so(model, tmp_path, inner):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(nx.NumericsError, match="link is a symbolic link that leads nowhere"):
        quantize(model, tmp_path / "link" / inner, NVFP4)
    assert os.listdir(tmp_path) == ["link"]


def test_a_shard_that_was_damaged_after_it_was_done_is_done_again(model, whole, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(Stopped):
        quantize(model, out, NVFP4, stop_after(2))
    shard = sorted(out.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-1] + b"\0")
    assert quantize(model, out, NVFP4).resumed == 1
    assert contents(out) == whole


def test_two_jobs_on_one_output_are_refused(model, tmp_path):
    seen = []

    def meanwhile(name, done, total):
        if not seen:
            seen.append(name)
            with started(CODE, model, tmp_path / "out") as other:
                _, err = other.communicate(timeout=LIMIT)
            assert other.returncode
            assert "another job is at work on" in err

    quantize(model, tmp_path / "out", NVFP4, Options(finished=meanwhile))
    assert seen


def test_a_shard_that_changes_while_it_is_read_is_refused(model, tmp_path):
    folder = write_shards(tmp_path / "model", tensors_of(1), 2)
    source = Source(folder)
    shard = source.shards[1].path

    def change(name, done, total):
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(data)
        os.utime(shard, ns=(1, 1))

    with pytest.raises(nx.NumericsError, match=f"{shard}: it was changed while it was read"):
        quantize(source, tmp_path / "out", Request(nx.QuantSpec("mxfp4")), Options(progress=change))
    assert not (tmp_path / "out" / shard.name).exists()


def test_a_full_disk_names_the_file_and_the_job_goes_on(model, whole, tmp_path, monkeypatch):
    fill_up(monkeypatch, 60)
    with pytest.raises(nx.NumericsError, match=r"cannot write .*model-0000.*the disk is full"):
        quantize(model, tmp_path / "out", NVFP4)
    monkeypatch.undo()
    quantize(model, tmp_path / "out", NVFP4)
    assert contents(tmp_path / "out") == whole


def test_a_rank_that_fails_ends_the_others(model, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with started(CODE, model, out, world=2) as leader:
        until = time.monotonic() + LIMIT
        while not (out / ".numerics" / "job.json").exists():
            assert time.monotonic() < until
            time.sleep(0.05)

        def fails(*_):
            raise nx.NumericsError("no luck")

        monkeypatch.setattr(job, "write_quantized", fails)
        with pytest.raises(nx.NumericsError, match="no luck"):
            quantize(model, out, NVFP4, Options(ranks=Ranks(1, 2)))
        _, err = leader.communicate(timeout=LIMIT)
    assert leader.returncode
    assert "rank 1 failed: no luck" in err


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("-1", "2"), ("x", "2"), ("0", None), (None, "4")])
def test_ranks_that_cannot_be_are_refused(monkeypatch, rank, world):
    for name, value in (("RANK", rank), ("WORLD_SIZE", world)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(nx.NumericsError, match="are no rank of a job"):
        Ranks.of_environment()


def test_every_shard_is_one_ranks(model):
    shards = Source(model).shards
    for world in (1, 2, 3, 7):
        shares = [Ranks(rank, world).share(shards) for rank in range(world)]
        assert sorted(shard.name for share in shares for shard in share) == [shard.name for shard in shards]


def test_a_file_becomes_what_quantize_file_makes(tmp_path):
    nx.save(tensors_of(1), tmp_path / "m.safetensors")
    options = {"scheme": "per_group(32)", "symmetric": False}
    spec = nx.QuantSpec("int4", **options)
    quantize_file(tmp_path / "m.safetensors", tmp_path / "a", "int4", **options)
    report = quantize(tmp_path / "m.safetensors", tmp_path / "b", Request(spec))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert report.shards == 1
    with pytest.raises(nx.NumericsError, match="is one file, which ranks cannot share"):
        quantize(tmp_path / "m.safetensors", tmp_path / "c", Request(nx.QuantSpec("int4")),
                 Options(ranks=Ranks(0, 2)))  # fmt: skip


LIMITED = """
import resource, sys, numerics as nx
from numerics.checkpoints import Request, quantize
from numerics.checkpoints.converting import convert
from numerics.checkpoints.job import Options

def told(name):
    return int(open("/proc/self/status").read().partition(name + ":")[2].split()[0])

def work(source, target):
    if sys.argv[3] == "convert":
        return convert(source, target, "safetensors")
    spec = nx.QuantSpec.parse(sys.argv[3])
    quantize(source, target, Request(spec), Options(max_memory=32 << 20))

most, more = map(int, sys.argv[4:6])
if more:  # beside what the libraries and compiled kernels take already
    work(sys.argv[1] + "-small", sys.argv[2] + "-small")
    most = (told("VmSize") << 10) + more
resource.setrlimit(resource.RLIMIT_AS, (most, most))
work(sys.argv[1], sys.argv[2])
print(told("VmHWM"))
"""


def write_floats(folder, shards, rows, fill=None):
    """Shards of two matrices of float32 with 4096 columns each: holes, or a stretch over and over again."""
    folder.mkdir()
    places = {}
    for k in range(shards):
        entries = placed({f"l.{k}.{j}.weight": Entry("F32", (rows, 4096)) for j in range(2)})
        name, header = f"model-{k + 1:05d}-of-{shards:05d}.safetensors", header_bytes(entries, {})
        with open(folder / name, "wb") as file:
            file.write(header)
            for _ in range(2 * rows * 4 * 4096 // fill.nbytes if fill is not None else 0):
                file.write(fill)
            file.truncate(len(header) + max(e.stop for e in entries.values()))
        places |= dict.fromkeys(entries, name)
    (folder / INDEX).write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    return folder


def limited(source, target, what, most=0, more=0):
    """Runs a job under a hard limit of the address space; returns the most memory that it had, in kB."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the peak of a process that was forked is its parent's; Linux says its own")
    command = [sys.executable, "-c", LIMITED, *map(str, (source, target, what, most, more))]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return int(ran.stdout.split()[-1])


BOUNDED = ['{"dtype": "nvfp4"}', '{"dtype": "int4", "scheme": "per_group(128)"}', '{"dtype": "mx6"}']


@pytest.mark.turns(6)
@pytest.mark.parametrize("what", BOUNDED)
def test_a_job_takes_no_more_memory_for_larger_shards(tmp_path, what):
    """300 MB of holes may take 100 MB of address space more than a small job: no shard is held or mapped."""
    source = write_floats(tmp_path / "m", 2, 4608)
    write_floats(tmp_path / "m-small", 1, 64)
    assert sum(shard.stat().st_size for shard in source.iterdir()) > 300_000_000
    limited(source, tmp_path / "out", what, more=100_000_000)


@pytest.mark.long
@pytest.mark.parametrize("what", [*BOUNDED, "convert"])
def test_gigabytes_pass_through_a_gigabyte(tmp_path, what):
    """3 GB of numbers under a limit of 1 GB of address space, libraries and compiler included."""
    rng = np.random.default_rng(0)
    if what == "convert":
        made = write_floats(tmp_path / "m", 12, 1 << 13, rng.standard_normal(1 << 22).astype(np.float32))
        source = tmp_path / "q"
        quantize(made, source, Request(nx.QuantSpec("mxfp8_e4m3")))
    else:
        source = write_floats(tmp_path / "m", 6, 1 << 14, rng.standard_normal(1 << 22).astype(np.float32))
        assert sum(shard.stat().st_size for shard in source.iterdir()) > 3 << 30
    assert limited(source, tmp_path / "out", what, most=1 << 30) < 600_000


# ---- scales that are looked for ------------------------------------------------------------------


OBSERVED = [
    ("int4", {"scheme": "per_group(32)"}), ("int4", {"scheme": "per_group(32)", "symmetric": False}),
    ("int8", {"scheme": "per_channel(0)"}), ("int8", {"scheme": "per_channel(1)", "symmetric": False}),
    ("fp8_e4m3", {}), ("nf4", {"scheme": "per_group(64)", "scale_type": "bfloat16"}),
    ("int4", {"scheme": "per_block((16, 32))"}),
    ("uint4", {"symmetric": False, "zero_point_type": "float32"}),
]  # fmt: skip


@pytest.mark.turns(40)
@pytest.mark.parametrize("found_by", ["mse", "percentile(99)", "pof2_mse"])
@pytest.mark.parametrize("original", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize(("dtype", "options"), OBSERVED)
def test_scales_of_a_job_were_those_of_the_largest_magnitude_alone(
    tmp_path, dtype, options, original, found_by
):
    """Whatever the memory: bit for bit what the observer finds for the whole tensor."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    spec = nx.QuantSpec(dtype, **options)
    if found_by == "pof2_mse" and "scale_type" in options:
        pytest.skip("powers of two are a scale type of their own")
    kind = ml_dtypes.bfloat16 if original == "bfloat16" else original
    x = np.random.default_rng(3).standard_normal((48, 192)).astype(kind)
    x[3, 5], x[7] = np.inf, 0
    nx.save({"w": x, "empty": np.zeros((0, 32), np.float32)}, tmp_path / "m.safetensors")
    watching = nx.observe.observer(found_by, spec)
    watching.observe(x)
    due = nx.quantize(x, watching.spec, scale=watching.scale, zero_point=watching.zero_point)
    for memory in (1 << 9, 1 << 14, 64 << 20):
        out = tmp_path / f"{memory}"
        quantize(
            tmp_path / "m.safetensors", out, Request(spec, observer=found_by), Options(max_memory=memory)
        )
        q = nx.load(out)["w"]
        assert q.spec == due.spec
        for part in ("packed", "scale", "zero_point"):
            one, other = getattr(q, part), getattr(due, part)
            assert (one is None) is (other is None)
            assert one is None or (one.dtype, one.tobytes()) == (other.dtype, other.tobytes()), part


def test_an_observer_that_finds_nothing_or_cannot_is_refused(tmp_path):
    nx.save({"w": np.ones((8, 64), np.float32), "v": np.ones((8, 64), np.float32)}, tmp_path / "m")
    int4, mx = nx.QuantSpec("int4"), nx.QuantSpec("mxfp4")
    for request, said in (
        (Request(mx, observer="mse"), "finds the scales of nothing"),
        (Request(int4, observer="best"), "best"),
        (Request(int4, observer="moving_average"), "depends on the order"),
        (Request(int4.replace(rounding="toward_zero"), observer="mse"), r"tensor 'w': .*half_even"),
        (Request(int4.replace(scale_type="float16"), observer="pof2_mse"), r"tensor 'w': .*pof2"),
    ):
        with pytest.raises(nx.NumericsError, match=said):
            quantize(tmp_path / "m", tmp_path / "out", request)
    assert not (tmp_path / "out").exists()
    quantize(tmp_path / "m", tmp_path / "out", Request(mx, {"w": int4}, observer="mse"))


def test_a_plan_that_was_saved_keeps_the_observer(model, tmp_path):
    from numerics.checkpoints.deciding import decide, planned
    from numerics.model.deciding.plan import Plan

    spec = nx.QuantSpec("int4", scheme="per_group(32)")
    asked = Request(spec, {"lm_head": nx.QuantSpec("mxfp4")}, observer="mse(bins=128)")
    source = Source(model)
    decide(source, asked).plan.save(tmp_path / "plan.toml")
    again = planned(Request(), Plan.load(tmp_path / "plan.toml"), source)
    for name, request in (("a", asked), ("b", again)):
        quantize(source, tmp_path / name, request)
    made = [loaded(tmp_path / name) for name in "ab"]
    for name, x in made[0].items():
        if isinstance(x, nx.QTensor):
            assert x.packed.tobytes() == made[1][name].packed.tobytes(), name
    with pytest.raises(nx.NumericsError, match=r"another job \(another observer\)"):
        quantize(source, tmp_path / "a", Request(spec, {"lm_head": nx.QuantSpec("mxfp4")}))
