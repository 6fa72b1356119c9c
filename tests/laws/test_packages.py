"""What is given out: the sdist is the whole repository, the wheel the package and nothing else."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("build")
from tests.helpers.children import LIMIT

ROOT = Path(__file__).parents[2]
MADE = ("PKG-INFO", "setup.cfg", "numerics_formats.egg-info/")  # by setuptools


def tracked() -> list[str]:
    """The files of the repository; no test where there is none, as in an sdist."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no git, or no repository")
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=LIMIT)
    return [name for name in found.stdout.splitlines() if (ROOT / name).exists()]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist, and the wheel that is built from it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    found = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT, env={**os.environ, "PIP_NO_INDEX": "1"}
    )
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    return out


def test_the_sdist_is_the_whole_repository(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert {name for name in names if not name.startswith(MADE)} == set(tracked())


def test_the_wheel_is_the_package_and_nothing_else(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        names = archive.namelist()
    beside = [name for name in names if not name.startswith(("numerics/", "numerics_formats-"))]
    assert beside == ["_numerics_pytest/__init__.py"]
    due = {name for name in tracked() if name.startswith(("numerics/", "formats/", "backends/"))}
    assert len([name for name in names if name.startswith("numerics/")]) == len(due) - len(beside)
    assert {"numerics/py.typed", "numerics/conform/verify/truth.json"} <= set(names)


RELATIVE = re.compile(r"\]\((?!https?:)[^)\s]+\)")


def page_of(text):
    """A page without its code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def test_a_package_index_shows_no_link_that_leads_nowhere(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode()
    assert "Description-Content-Type: text/markdown" in text
    assert "a format is one row" in text
    assert not RELATIVE.search(page_of(text))


def test_links_of_the_readme_are_absolute_once_the_repository_has_an_address():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    given_out = runpy.run_path(str(ROOT / "setup.py"))["given_out"]
    shown = given_out(readme, "https://example.org/numerics")
    assert not RELATIVE.search(page_of(shown))
    assert "(https://example.org/numerics/raw/main/docs/pictures/image.png)" in shown
    assert "[docs/formats.md](https://example.org/numerics/blob/main/docs/formats.md)" in shown
    assert re.sub(r"https://example.org/numerics/(raw|blob)/main/", "", shown) == readme


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize("target", ["quick", "test", "verify"])
def test_a_command_names_tests_that_have_moved(target):
    """pytest ends with "no tests ran" where one of its paths is not there."""
    said = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
    named = {word for word in said.stdout.split() if word.startswith("tests/")}
    assert named or target == "test", said.stderr
    assert not [name for name in named if not (ROOT / name).exists()]
