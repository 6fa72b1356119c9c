"""The bench runs: every file of it, small; what it measures is for `make bench` to say."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import FILES
from bench.measure import Contest, run
from tests.helpers.children import LIMIT

ROOT = Path(__file__).parents[1]


def test_every_file_is_run():
    found = {p.stem.removeprefix("bench_") for p in (ROOT / "bench").glob("bench_*.py")}
    assert found == {
        *FILES,
        "start",
        "gpu",
        "ipu",
        "vectors",
        "conform",
        "commits",
        "product",
        "qat",
        "models",
        "emulation",
        "checkpoint",
    }  # these are commands of their own


@pytest.mark.parametrize("name", FILES)
def test_cases_run(name):
    for case, make in importlib.import_module(f"bench.bench_{name}").CASES.items():
        contest: Contest = make(1 << 10)
        contest.peers = {}
        row = run(case, 1 << 10, 1, contest, 1)
        assert row.seconds > 0
        assert row.of_ceiling > 0


def test_a_lost_row_says_so():
    row = run("case", 8, 1, Contest(lambda: sum(range(20000)), 8, int, 8, {"peer": int}), 3)
    assert row.lost == ["peer"]


@pytest.mark.long
def test_the_program_writes_json(tmp_path):
    options = ["--only", "decode fp8_e4m3", "--largest", "1024", "--rounds", "1", "--no-peers"]
    command = [sys.executable, "-m", "bench", *options, "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=LIMIT)
    made = json.loads((tmp_path / "cpu.json").read_text(encoding="utf-8"))
    assert made["machine"]["numba"]
    assert [row["elements"] for row in made["rows"]] == [1024, 1024]


@pytest.mark.long
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_bench_of_vectors_runs():
    options = ["--count", "2000", "--blocks", "20", "--rounds", "1"]
    command = [sys.executable, "-m", "bench.bench_vectors", *options]
    found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=LIMIT)
    assert found.stdout.splitlines()[-1].startswith("fp8_e4m3 | a device in C | verify: ")


@pytest.mark.long
def test_the_bench_of_training_goes_on_where_it_ended(tmp_path):
    pytest.importorskip("sklearn")
    table = tmp_path / "qat.md"
    options = [
        "--seeds",
        "1",
        "--epochs",
        "0",
        "--only",
        "mlp int2",
        "--out",
        str(tmp_path),
        "--page",
        str(table),
    ]
    command = [sys.executable, "-m", "bench.bench_qat", *options]
    first, again = (
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=LIMIT).stdout
        for _ in range(2)
    )
    assert [line.split(":")[0] for line in first.splitlines()[:3]] == [
        f"{count}/3 mlp 0 int2 int4 {method}" for count, method in enumerate(("ste", "tqt", "lsq"), 1)
    ]
    assert again == "".join(first.splitlines(keepends=True)[3:])
    assert (
        "Each of the 3 models was frozen to packed weights; 3 of them then gave the same bits."
        in table.read_text(encoding="utf-8")
    )
    assert len(json.loads((tmp_path / "qat.json").read_text(encoding="utf-8"))["runs"]) == 3


@pytest.mark.long
@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_a_commit_is_measured_beside_another():
    options = ["HEAD", "--rounds", "1", "--largest", "1024", "--only", "decode fp8"]
    command = [sys.executable, "-m", "bench.bench_commits", *options]
    found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300)
    assert found.stdout.startswith("decode fp8_e4m3 | 1,024 elements | ")


def test_the_bench_of_products_runs(tmp_path):
    written = tmp_path / "product.json"
    command = [sys.executable, "-m", "bench.bench_product", "--small", "--json", str(written)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, env=environment)
    assert found.returncode == 0, found.stderr
    rows = json.loads(written.read_text(encoding="utf-8"))["rows"]
    assert {row["batch"] for row in rows} == {1, 16}
    assert all(row["microseconds"] > 0 and row["of read"] > 0 for row in rows)


def test_the_bench_of_checkpoints_runs(tmp_path):
    options = [
        "--megabytes",
        "1",
        "--rounds",
        "1",
        "--folder",
        str(tmp_path),
        "--json",
        str(tmp_path / "a.json"),
    ]
    command = [sys.executable, "-m", "bench.bench_checkpoint", *options]
    found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=LIMIT)
    assert [line.split(" | ")[0] for line in found.stdout.splitlines()] == [
        "format mxfp4", "format int4 per_group(128)", "format mx6", "format nvfp4",
    ]  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"a.json"}
