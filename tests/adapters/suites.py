"""The hosts' own tests, stock, substituted and after: the same must pass, and our kernels must have run.

    python -m tests.adapters.suites SOURCES [host ...]

SOURCES: a folder with the hosts' repositories, each by its own name (`REPOSITORIES`); of one that is not
there a line says where it is to be had, and the others run.  `substituted.py` runs them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.helpers.asked import add_names

RESULTS = Path(__file__).parents[2] / "bench" / "results" / "adapters-suites.json"
REPOSITORIES = {
    "microxcaling": ("https://github.com/microsoft/microxcaling", "7bc4195"),
    "ao": ("https://github.com/pytorch/ao", "v0.18.0"),
    "compressed-tensors": ("https://github.com/vllm-project/compressed-tensors", "ac8e2ba8"),
    "Model-Optimizer": ("https://github.com/NVIDIA/Model-Optimizer", "a2fbac7ba"),
}
"""Where each is to be had, and as what `make adapters` last ran it."""
LIMIT = 1800  # seconds of one run


@dataclass(frozen=True)
class Suite:
    """A host's test files, and how they are run."""

    adapter: str
    folder: str
    files: tuple[str, ...]
    options: tuple[str, ...] = ()
    path: str = ""  # what PYTHONPATH needs beside, within the folder


SUITES = (
    Suite("microxcaling", "microxcaling", tuple(
        f"mx/tests/test_{name}.py" for name in (
            "formats", "quantize_mx", "quantize_elemwise", "corners_mx", "corners_elemwise", "e5m0_scale",
            "fp8_e4m3_fix",
        )), ("-k", "not cuda"), "."),
    Suite("torchao", "ao", (
        "test/quantization/test_quant_primitives.py", "test/prototype/mx_formats/test_mx_tensor.py",
        "test/prototype/mx_formats/test_kernels.py",
    )),
    Suite("compressed_tensors", "compressed-tensors", (
        "tests/test_quantization/test_utils", "tests/test_quantization/lifecycle/test_forward.py",
        *(f"tests/test_compressors/test_{name}.py" for name in (
            "compress_decompress_module", "fp4_optimizations", "fp4_quant", "fp8_quant", "int_quant",
            "mxfp4_quant", "mxfp8_quant", "pack_quant", "packed_asym_decompression",
        )),
    ), (), "."),
    Suite("modelopt", "Model-Optimizer", tuple(
        f"tests/unit/torch/quantization/test_{name}.py"
        for name in ("custom_backend", "tensor_quant_cpu", "tensor_quantizer_cpu")
    ), (), "tests"),
)  # fmt: skip


def run(suite: Suite, sources: Path, substituted: bool) -> tuple[list[dict[str, str]], Any]:
    """How each test ended, and the counts of calls.

    substituted: with our kernels, and again in the same process once they are taken out (`substituted.py`).
    """
    folder = sources / suite.folder
    with tempfile.TemporaryDirectory() as out:
        counts = Path(out) / "calls.json"
        name = suite.adapter if substituted else ""
        options = ["-q", "-o", "addopts=", "-p", "no:cacheprovider", "-W", "ignore", *suite.options]
        runner = Path(__file__).parent / "substituted.py"
        command = [sys.executable, str(runner), out, name, *options, *suite.files]
        paths = [str(folder), str(folder / suite.path), os.environ.get("PYTHONPATH", "")]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        subprocess.run(command, cwd=folder, env=env, timeout=LIMIT, capture_output=True, check=False)
        reports = [Path(out) / f"{k}.xml" for k in range(1 + substituted)]
        ended = [_ended(report) if report.exists() else {} for report in reports]
        return ended, json.loads(counts.read_text(encoding="utf-8")) if counts.exists() else None


def _ended(report: Path) -> dict[str, str]:
    """Each test of a report as passed, failed or skipped."""
    ended = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        word = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        ended[f"{case.get('classname')}::{case.get('name')}"] = word
    return ended


def compare(suite: Suite, sources: Path) -> dict[str, Any]:
    """All runs, counted.

    lost: tests that pass stock and not substituted.  not_restored: those that end otherwise, once the adapter
    is taken out again, than they do where it never was.
    """
    (stock,), _ = run(suite, sources, substituted=False)
    (ours, after), calls = run(suite, sources, substituted=True)
    words = ("passed", "failed", "skipped")
    told = {"stock": stock, "substituted": ours, "after": after}
    return {
        **{name: {word: list(ended.values()).count(word) for word in words} for name, ended in told.items()},
        "lost": sorted(name for name, word in stock.items() if word == "passed" != ours.get(name)),
        "not_restored": sorted(name for name in {*stock, *after} if stock.get(name) != after.get(name)),
        "still_failing": sorted(name for name, word in ours.items() if word == "failed"),
        "calls": calls,
    }


def missing(suite: Suite, sources: Path) -> str:
    """The line for a host whose repository is not there."""
    address, commit = REPOSITORIES[suite.folder]
    place = sources / suite.folder
    return (
        f"{suite.adapter}: its own tests are left out, they need its repository: "
        f"git clone {address} {place} && git -C {place} checkout {commit}"
    )


def main() -> int:
    """Runs those that are asked for, prints a row each, keeps the results; 1 where a test was lost."""
    names = [suite.adapter for suite in SUITES]
    options = argparse.ArgumentParser(prog="python -m tests.adapters.suites")
    options.add_argument("sources", type=Path, metavar="SOURCES", help="a folder with the repositories")
    add_names(options, "hosts", names, "HOST")
    asked = options.parse_args()
    sources = asked.sources.resolve()
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    lost = 0
    for suite in SUITES:
        if suite.adapter not in asked.hosts:
            continue
        if not (sources / suite.folder).is_dir():
            print(missing(suite, sources))
            continue
        found[suite.adapter] = row = compare(suite, sources)
        lost += len(row["lost"]) + len(row["not_restored"])
        lost += not row["calls"] or not row["calls"]["ours"] or row["calls"]["after"]
        print(f"{suite.adapter}:", *(f"{name} {found}," for name, found in row.items()
                                     if name != "still_failing"), flush=True)  # fmt: skip
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 1 if lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
