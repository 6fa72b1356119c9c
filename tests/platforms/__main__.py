"""The corpus on every machine that can be had here; exit code 1 where bits differ."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.platforms import emulated
from tests.platforms.corpus import SECTIONS
from tests.platforms.levels import STANDS_ON, levels, native, oldest, with_versions
from tests.platforms.run import Machine, differences

SHOWN = 8  # differences of a section
NAMES = ("array", "levels", "oldest", "newest", "aarch64")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.platforms", description=__doc__)
    parser.add_argument("--only", action="append", choices=NAMES, help="machines; may be repeated")
    parser.add_argument("--section", action="append", choices=SECTIONS, help="may be repeated")
    parser.add_argument("--folder", type=Path, default=Path(sys.prefix) / "platforms")
    parser.add_argument("--count", type=int, default=1 << 12, help="random inputs beside those that matter")
    parser.add_argument("--all", action="store_true", help="every rounding mode; hours")
    asked = parser.parse_args()
    options = ["--count", str(asked.count), *["--all"] * asked.all]
    folder, sections = asked.folder.resolve(), tuple(asked.section or SECTIONS)
    folder.mkdir(parents=True, exist_ok=True)
    due = {section: native().run(section, folder, options) for section in sections}
    wrong = _told("native", [said for found in due.values() for said in differences(found, found)])
    for name in asked.only or NAMES:
        for machine in _machines(name, folder):
            wrong += _compared(machine, due, folder, options)
    return int(wrong > 0)


def _machines(name: str, folder: Path) -> list[Machine]:
    """Those of a name; said where there are none, and why."""
    why = emulated.why_not() if name == "aarch64" else None
    if why:
        print(f"aarch64: SKIPPED, {why}", flush=True)
        return []
    make: dict[str, Callable[[], list[Machine]]] = {
        "array": lambda: [native("array")],
        "levels": lambda: list(levels()),
        "oldest": lambda: [with_versions(name, oldest(), folder)],
        "newest": lambda: [with_versions(name, list(STANDS_ON), folder)],
        "aarch64": lambda: [emulated.machine(folder)],
    }
    try:
        return make[name]()
    except subprocess.SubprocessError as failed:
        print(f"{name}: SKIPPED, it cannot be installed: {failed}", flush=True)
        return []


def _compared(
    machine: Machine, due: dict[str, dict[str, str] | str], folder: Path, options: list[str]
) -> int:
    """How many sections of a machine are not as they are due."""
    wrong = 0
    for section in (section for section in due if section in (machine.sections or SECTIONS)):
        began = time.monotonic()
        if machine.name == "aarch64":
            emulated.seed(section, folder / machine.name / "cache", options)
        found = machine.run(section, folder, options)
        count = 0 if isinstance(found, str) else len(found)
        said = f"{machine.name}: {section}, {count} cases, {time.monotonic() - began:.0f} s"
        wrong += _told(said, differences(found, due[section]))
    return wrong


def _told(said: str, wrong: list[str]) -> int:
    print(f"{said}: {f'{len(wrong)} WRONG' if wrong else 'the same bits'}", flush=True)
    for line in wrong[:SHOWN]:
        print(f"    {line}", flush=True)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
