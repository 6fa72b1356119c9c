"""What a type checker sees of the package: inside, and from a user's seat with the strictest options."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import numerics as nx
from tests.helpers.children import LIMIT

pytest.importorskip("mypy")
ROOT = Path(__file__).parents[2]

USE = """
import numpy as np
import numerics as nx

q = nx.quantize(np.ones(4, np.float32), "int4", scheme=nx.per_group(2))
reveal_type(q)
reveal_type(nx.fp8_e4m3)
reveal_type(nx.mxfp4)
reveal_type(nx.int4)
reveal_type(nx.Scheme)
reveal_type(nx.load)
nx.quantise
nx.conform.check(nx.fp4.encode, "fp4")
nx.observe.MinMax("int8")
nx.train.TQT("int8")
nx.layouts.CUBLAS
nx.interop.to_gguf(q)
nx.ipu.export
nx.checkpoints.loading.load("a.gguf")
nx.adapters.torchao.install()
nx.model.compressed_tensors.save
"""


def mypy(folder: Path, *arguments: str) -> str:
    house = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    command = [sys.executable, "-m", "mypy", *house, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT).stdout


def test_a_type_is_wrong_or_a_public_name_was_any(tmp_path):
    """One test: the first run fills the cache of the second."""
    told = mypy(tmp_path, "-p", "numerics")
    assert told.startswith("Success: no issues found"), told
    (tmp_path / "use.py").write_text(USE, encoding="utf-8")
    told = mypy(tmp_path, "--strict", "use.py")
    revealed = [
        line.partition("Revealed type is ")[2].strip('"') for line in told.splitlines() if "note:" in line
    ]
    due = ["QTensor", "Float", "Block", "Integer", "Scheme", "def ("]
    assert all(any(word in line for line in revealed) for word in due), told
    assert "Any" not in revealed
    errors = [line for line in told.splitlines() if " error: " in line]
    assert len(errors) == 1, told
    assert 'Module has no attribute "quantise"' in errors[0]


def test_each_late_name_is_typed_and_looked_up_once(monkeypatch):
    late = [*nx._LAZY, *nx._MODULES, *nx._BACKENDS]
    assert set(late) <= set(dir(nx))
    for name in late:
        found = getattr(nx, name)
        assert vars(nx)[name] is found
    assert set(nx.__all__) <= set(dir(nx))


def named_in_words() -> list[str]:
    """What docs and errors name as a part of the package: numerics.checkpoints.loading.load and its kin."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "numerics").rglob("*.py")]
    found: set[str] = set()
    for page in pages:
        text = page.read_text(encoding="utf-8")
        spoken = text if page.suffix == ".md" else " ".join(re.findall(r"\"[^\"\n]* [^\"\n]*\"", text))
        found |= set(
            re.findall(r"(?<![\w./])numerics\.(?:adapters|checkpoints|model)(?:\.[a-z]\w*)*", spoken)
        )
    return sorted(found)


def test_a_name_of_the_docs_is_reached_after_one_import():
    """nx.checkpoints was an AttributeError, though the README and an error told to call it."""
    names = named_in_words()
    assert {"numerics.checkpoints.loading.load", "numerics.adapters"} <= set(names)
    program = f"""
import operator, numerics
assert {{"adapters", "checkpoints", "model"}} <= set(dir(numerics))
for name in {names}:
    path = name.removeprefix("numerics.")
    try:
        operator.attrgetter(path)(numerics)
    except AttributeError:
        print(name)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT)
    assert (told.stdout, told.returncode) == ("", 0), told


def test_a_star_brings_no_name_that_is_likely_the_users_own():
    assert not {"adapters", "checkpoints", "model"} & set(nx.__all__)
