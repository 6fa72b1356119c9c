"""The kernels on disk: what is found there is ours, or it is not run."""

from __future__ import annotations

import hashlib
import importlib
import os
import pickle
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import numerics
import numerics.backends
from numerics.backends.cpu import cache
from numerics.formats.errors import NumericsWarning

ENCODE = """
import os, warnings
import numpy as np, numerics as nx
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    print(nx.fp8_e4m3.encode(np.ones(1000, np.float32))[0])
    from numerics.backends.cpu.cache import folder
    print(folder())
    print(len(said), " ".join(str(w.message) for w in said))
"""
POSIX = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="owners and modes are POSIX's")
ROOT = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives files away")


def run(code: str = ENCODE, cwd: Path | None = None, **environment: str | None) -> list[str]:
    """The lines that a fresh process prints: a code, the folder, the warnings; None unsets a variable."""
    env = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    found = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()


def kernels(place: Path) -> list[Path]:
    return sorted(place.rglob("*.kernel"))


KEY, CODE = ("kernel", "machine"), bytes(range(256)) * 4


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The file under KEY, in a cache of this process's own."""
    monkeypatch.setenv("NUMERICS_CACHE_DIR", str(tmp_path / "cache"))
    cache.folder.cache_clear()
    cache.write(KEY, CODE)
    assert cache.read(KEY) == CODE
    (file,) = kernels(tmp_path)
    yield file
    cache.folder.cache_clear()


class Evil:
    """A pickle that says that it was read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@POSIX
def test_folders_and_files_are_the_owners_alone_whatever_the_umask(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMERICS_CACHE_DIR", str(tmp_path / "cache"))
    cache.folder.cache_clear()
    before = os.umask(0)
    try:
        cache.write(KEY, CODE)
    finally:
        os.umask(before)
        cache.folder.cache_clear()
    made = [*tmp_path.rglob("*")]
    assert len(made) == 3
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in made)


def test_no_pickle_is_read(tmp_path):
    """Anybody who could write there, and compute a sha256, ran code in every process."""
    place, mark = tmp_path / "cache", tmp_path / "read"
    run(NUMERICS_CACHE_DIR=str(place))
    (file,) = kernels(place)
    whole, evil = file.read_bytes(), pickle.dumps(Evil(mark))
    file.write_bytes(hashlib.sha256(evil).digest() + evil)
    assert run(NUMERICS_CACHE_DIR=str(place))[0] == "56"
    assert not mark.exists()
    assert file.read_bytes() == whole
    assert kernels(place) == [file]


def test_damaged_kernels_and_those_of_another_key_are_not_read(kept):
    whole = kept.read_bytes()
    for k in range(0, len(whole), 11):
        kept.write_bytes(whole[:k] + bytes([whole[k] ^ 1]) + whole[k + 1 :])
        assert cache.read(KEY) is None
    for damaged in (b"", whole[:-1], whole + b"x", whole[1:], cache.MAGIC, b"\0" * 4096):
        kept.write_bytes(damaged)
        assert cache.read(KEY) is None
    kept.write_bytes(cache._sealed(CODE, ("another", "machine")))
    assert cache.read(KEY) is None
    cache.write(KEY, CODE)
    assert kept.read_bytes() == whole


@POSIX
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777, 0o702])
def test_a_folder_that_others_may_write_to_is_not_used(kept, monkeypatch, mode):
    kept.parents[1].chmod(mode)
    cache.folder.cache_clear()
    with pytest.warns(NumericsWarning, match=f"{mode:04o}"):
        fresh = cache.folder()
    assert cache.read(KEY) is None
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o700
    cache.write(KEY, CODE)
    assert cache.read(KEY) == CODE


@POSIX
def test_a_temporary_folder_goes_with_its_process(tmp_path):
    place = tmp_path / "cache"
    place.mkdir()
    place.chmod(0o777)
    code, used, warned = run(NUMERICS_CACHE_DIR=str(place))
    assert code == "56"
    assert Path(used) != place
    assert not list(place.iterdir())
    assert not Path(used).exists(), "the temporary one goes with the process"
    assert warned.startswith("1 ")


@ROOT
@pytest.mark.parametrize("which", ["file", "folder", "cache"])
def test_what_belongs_to_another_user_is_not_read(kept, which):
    os.chown({"file": kept, "folder": kept.parent, "cache": kept.parents[1]}[which], 65534, 65534)
    cache.folder.cache_clear()
    if which == "cache":
        with pytest.warns(NumericsWarning, match="belongs to user 65534"):
            assert cache.folder() != kept.parents[1]
    assert cache.read(KEY) is None
    cache.write(KEY, CODE)
    assert (cache.read(KEY) == CODE) == (which != "folder")
    assert kept.stat().st_uid == (os.geteuid() if which == "file" else kept.stat().st_uid)


@POSIX
@pytest.mark.parametrize("how", ["link", "hard link", "writable", "fifo", "folder", "writable folder"])
def test_what_others_may_have_written_is_not_read(kept, tmp_path, how):
    outside = tmp_path / "outside"
    outside.write_bytes(kept.read_bytes())
    if how in ("link", "hard link", "fifo", "folder"):
        kept.unlink()
    {
        "link": lambda: kept.symlink_to(outside),
        "hard link": lambda: os.link(outside, kept),
        "writable": lambda: kept.chmod(0o622),
        "fifo": lambda: os.mkfifo(kept),
        "folder": lambda: kept.mkdir(),
        "writable folder": lambda: kept.parent.chmod(0o720),
    }[how]()
    assert cache.read(KEY) is None
    cache.write(KEY, CODE)
    assert (cache.read(KEY) == CODE) == ("folder" not in how)
    assert cache._opened(outside.read_bytes(), KEY) == CODE


@POSIX
def test_a_folder_that_is_a_link_of_anothers_is_not_used(kept, tmp_path, monkeypatch):
    link = tmp_path / "link"
    link.symlink_to(kept.parents[1])
    monkeypatch.setenv("NUMERICS_CACHE_DIR", str(link))
    cache.folder.cache_clear()
    assert cache.folder() == link, "a link of one's own to a folder of one's own"
    if os.geteuid() == 0:
        os.chown(link, 65534, 65534, follow_symlinks=False)
        cache.folder.cache_clear()
        with pytest.warns(NumericsWarning, match="65534"):
            assert cache.folder() != link


@POSIX
def test_without_a_home_folder_nothing_comes_from_the_current_one(tmp_path):
    """`~` stayed `~`: a folder of that name was made where the process stood, and read."""
    code = (
        """
import os
os.path.expanduser = lambda path: path  # no HOME, and a user whom nobody knows
"""
        + ENCODE
    )
    here = {"HOME": None, "XDG_CACHE_HOME": None, "NUMERICS_CACHE_DIR": None}
    found = run(code, cwd=tmp_path, **here)
    assert found[0] == "56"
    assert "there is no home folder" in found[2]
    found = run(cwd=tmp_path, **{**here, "HOME": "home", "XDG_CACHE_HOME": "cache"})
    assert found[0] == "56"
    assert os.path.isabs(found[1])
    assert found[2][:2] == "1 "
    found = run(cwd=tmp_path, NUMERICS_CACHE_DIR="cache")
    assert "relative" in found[2]
    assert not list(tmp_path.iterdir())


@POSIX
def test_a_relative_xdg_folder_is_passed_over(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    found = run(cwd=tmp_path, HOME=str(home), XDG_CACHE_HOME="cache", NUMERICS_CACHE_DIR=None)
    assert found[1:] == [
        str(home / (".cache" if sys.platform != "darwin" else "Library/Caches") / "numerics"),
        "0 ",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize(
    ("platform", "name", "due"),
    [("linux", "posix", ".cache/numerics"), ("darwin", "posix", "Library/Caches/numerics")],
)
def test_each_system_has_its_place_for_caches(monkeypatch, platform, name, due):
    monkeypatch.setattr(cache.sys, "platform", platform)
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.usual() == Path("/home/somebody") / due
    if platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
        assert cache.usual() == Path("/elsewhere/numerics")


def test_a_place_where_nothing_can_be_kept_is_survived_in_silence(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine", encoding="utf-8")
    assert run(NUMERICS_CACHE_DIR=str(file)) == ["56", str(file), "0 "]
    assert file.read_text(encoding="utf-8") == "mine"


FLOOR = """
import sys; sys.path.insert(0, sys.argv[1])
import numpy as np, numerics as nx
assert sys.argv[1] in nx.__file__
print(nx.fp4.round(np.float32([0.3]), rounding="floor")[0])
"""


def package_in(folder: Path) -> Path:
    """The whole package in a folder, from wherever its rooms lie."""
    rooms = [Path(path.__file__).parent for path in (numerics, numerics.formats, numerics.backends)]
    target = folder / "numerics"
    ignored = shutil.ignore_patterns("__pycache__", "formats", "backends")
    shutil.copytree(rooms[0], target, ignore=ignored)
    for room, name in zip(rooms[1:], ("formats", "backends"), strict=True):
        shutil.copytree(room, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def archived(package: Path, name: str, compiled: bool) -> Path:
    """The package in a zip, as sources or as bytecode alone."""
    place = package.parent / name
    for folder in [*package.rglob("__pycache__")]:
        shutil.rmtree(folder)
    with zipfile.PyZipFile(place, "w") as archive:
        if compiled:
            archive.writepy(str(package))
        else:
            for path in package.rglob("*.py"):
                archive.write(path, path.relative_to(package.parent))
    return place


@pytest.mark.parametrize("compiled", [False, True], ids=["sources", "bytecode"])
def test_kernels_of_another_archive_are_not_run(tmp_path, compiled):
    """In an archive no source was hashed: the kernels of one version served another."""
    package, found = package_in(tmp_path), []
    codec = package / "formats" / "codec.py"
    places = [archived(package, "one.zip", compiled)]
    text = codec.read_text(encoding="utf-8")  # floor becomes ceil: another arithmetic under the same version
    edited = text.replace('"floor"', '"-"').replace('"ceil"', '"floor"').replace('"-"', '"ceil"')
    assert edited != text
    codec.write_text(edited, encoding="utf-8")
    places.append(archived(package, "two.zip", compiled))
    for place in places:
        env = {**os.environ, "NUMERICS_CACHE_DIR": str(tmp_path / "cache")}
        process = subprocess.run(
            [sys.executable, "-c", FLOOR, str(place)], env=env, cwd="/", capture_output=True,
            text=True, timeout=300,
        )  # fmt: skip
        assert process.returncode == 0, process.stderr
        found.append(float(process.stdout))
    assert found == [0.0, 0.5]
    assert len(kernels(tmp_path / "cache")) == 2


def test_the_cache_follows_the_sources(monkeypatch):
    before = cache.stamp()
    sources = cache._sources

    def edited(package):
        for name, text in sources(package):
            yield name, text + b"#" if name == "codec.py" else text

    monkeypatch.setattr(cache, "_sources", edited)
    cache.stamp.cache_clear()
    try:
        assert cache.stamp() != before
        monkeypatch.setattr(cache, "_sources", lambda package: iter(()))
        cache.stamp.cache_clear()
        assert cache.stamp() is None, "where there are no sources, nothing tells one version from another"
        assert cache.read(("name", "machine")) is None
    finally:
        monkeypatch.undo()
        cache.stamp.cache_clear()
    assert cache.stamp() == before


def test_a_kernel_outlives_a_source_that_it_was_made_from():
    """Kernels of products were found on disk after their sources had changed: another number of words, and
    the process died.  Their folder was new, and not among those that the key hashes.  Nor was that of the
    functions that others hand in (RowFunction).
    """
    root = Path(cache.__file__).parent
    made_of = {"numerics.backends.cpu"}
    for file in root.rglob("*.py"):
        inner = file.relative_to(root).parent.parts
        made_of.add(".".join(("numerics.backends.cpu", *inner)))
        for module in re.findall(r"^from (numerics\.[\w.]+) import", file.read_text(encoding="utf-8"), re.M):
            is_package = hasattr(importlib.import_module(module), "__path__")
            made_of.add(module if is_package else module.rpartition(".")[0])
    numerics = root.parents[1]
    for file in numerics.rglob("*.py"):
        if "RowFunction(" in file.read_text(encoding="utf-8"):
            made_of.add(".".join(("numerics", *file.relative_to(numerics).parent.parts)))
    assert made_of <= set(cache.PACKAGES)
    assert "numerics.adapters" in made_of
