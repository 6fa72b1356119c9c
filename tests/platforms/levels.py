"""The machines: this one at lower levels of x86-64, other versions of what we stand on, aarch64 emulated."""

from __future__ import annotations

import platform
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tests.platforms.run import ROOT, Machine

PATIENCE = 3600.0  # seconds of an installation
LEVELS = {
    "avx512": ("skylake-avx512", "avx512bw"),
    "avx2": ("haswell", "avx2"),
    "sse4.2": ("nehalem", "sse4.2"),
    "x86-64-v2": ("x86-64-v2", "sse4.2"),
    "generic": ("x86-64", "sse2"),
}
"""LLVM's name of a CPU of the level, and a feature without which this one cannot run its code."""
STANDS_ON = ("numpy", "numba", "ml_dtypes", "click", "rich", "safetensors")


def native(backend: str = "cpu") -> Machine:
    """This machine as it is."""
    return Machine("native" if backend == "cpu" else backend, (sys.executable,), backend=backend)


def levels() -> Iterator[Machine]:
    """This machine as if it were older.  The name alone would keep the host's features."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return
    from llvmlite.binding import get_host_cpu_features

    features = get_host_cpu_features()
    for name, (cpu, needed) in LEVELS.items():
        if features.get(needed):
            yield level(name, cpu)
        else:
            print(f"{name}: SKIPPED, this CPU has no {needed}", flush=True)


def level(name: str, cpu: str) -> Machine:
    """This machine as another CPU."""
    return Machine(name, (sys.executable,), {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""})


def oldest() -> list[str]:
    """The lowest versions that pyproject.toml promises."""
    facts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = facts["optional-dependencies"].values()
    asked = [*facts["dependencies"], *(line for extra in extras for line in extra)]
    floors = dict(line.split(">=") for line in asked if ">=" in line and ";" not in line)
    return [f"{name}=={floors[name]}" for name in STANDS_ON]


def with_versions(name: str, requirements: list[str], folder: Path) -> Machine:
    """This machine with other versions of what the package stands on, in an environment of its own."""
    home = folder / f"{name}-environment"
    python = home / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, timeout=PATIENCE)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "-q", "install", "--upgrade"]
    subprocess.run([*pip, *requirements], check=True, timeout=PATIENCE)
    return Machine(name, (str(python),))
