"""aarch64 under qemu-user: Debian's Python and wheels for ARM, unpacked, with kernels compiled here.

Compiling in emulation takes minutes a kernel, so `seed` has the package itself compile for ARM on this
machine, into the cache that the emulated one then reads: LLVM is told another triple, and the kernels
are not run.
"""

from __future__ import annotations

import os
import platform
import runpy
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.platforms.run import CORPUS, LIMIT, ROOT, Machine

QEMU, UNPACK = "qemu-aarch64-static", "mmdebstrap"
TRIPLE = "aarch64-unknown-linux-gnu"
DEBIAN, PYTHON = "bookworm", "3.11"
PACKAGES = f"python{PYTHON},libgomp1,libstdc++6,zlib1g,libffi8,libexpat1"
TAGS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64")
STANDS_ON = ("numpy", "numba", "llvmlite", "ml_dtypes")
CPU = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}  # the same key for both compilers
SECTIONS = (
    "elements float32", "elements float16", "elements bfloat16", "codes", "blocks float32", "affine float32",
    "flushed",
)  # fmt: skip
PATIENCE = 1800.0  # seconds of a download


def why_not() -> str | None:
    """What keeps this machine from it."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return "it is emulated on x86-64 Linux only"
    missing = [tool for tool in (QEMU, UNPACK) if shutil.which(tool) is None]
    return f"no {' and no '.join(missing)}; Debian: qemu-user-static, mmdebstrap" if missing else None


def machine(folder: Path) -> Machine:
    """The emulated one, made where it is not there yet.  Raises CalledProcessError without a network."""
    root, site = folder / "aarch64-root", folder / "aarch64-site"
    python = root / f"usr/bin/python{PYTHON}"
    if not python.exists():
        command = [UNPACK, "--arch=arm64", "--variant=extract", f"--include={PACKAGES}", DEBIAN, str(root)]
        subprocess.run(command, check=True, timeout=PATIENCE)
    if not site.exists():
        wanted = [f"{name}=={version(name)}" for name in STANDS_ON]
        tags = [f"--platform={tag}" for tag in TAGS]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "install", "--no-deps"]
        only = ["--only-binary=:all:", f"--python-version={PYTHON}", f"--target={site}"]
        subprocess.run([*pip, *tags, *only, *wanted], check=True, timeout=PATIENCE)
    environment = {"PYTHONPATH": f"{ROOT}{os.pathsep}{site}", "PYTHONHOME": str(root / "usr"), **CPU}
    emulator = (QEMU, "-L", str(root), *_told(environment), str(python))
    return Machine("aarch64", emulator, sections=SECTIONS)


def _told(environment: dict[str, str]) -> list[str]:
    """For the emulated program only: here they would lead another Python astray."""
    return [word for name, value in environment.items() for word in ("-E", f"{name}={value}")]


def seed(section: str, cache: Path, options: list[str]) -> None:
    """Fills the cache of the emulated machine with the kernels of a section."""
    unused = str(cache / "unused.json")
    command = [sys.executable, "-m", "tests.platforms.emulated", unused, section, *options]
    environment = {**os.environ, "NUMERICS_CACHE_DIR": str(cache), **CPU}
    cache.mkdir(parents=True, exist_ok=True)
    subprocess.run(command, check=True, timeout=LIMIT, cwd=ROOT, env=environment)


def _compile_for_arm() -> None:
    """The corpus with LLVM told that this is ARM: kernels are compiled and kept, and do nothing."""
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.get_process_triple = lambda: TRIPLE  # type: ignore[assignment]
    platform.machine = lambda: "aarch64"
    from numerics.backends.cpu import compiler

    build = compiler.build

    def built(name: str, words: int, emit: Any) -> compiler.Kernel:
        return compiler.Kernel(lambda *_: None, build(name, words, emit).library)

    compiler.build = built
    runpy.run_path(str(CORPUS), run_name="__main__")


if __name__ == "__main__":
    _compile_for_arm()
