"""`numerics doctor` and `numerics warmup`: what this machine offers, and its kernels compiled ahead."""

from __future__ import annotations

import sys
from typing import Any

import click

from numerics.cli.words import as_json, examples, json_of
from numerics.view.bar import bar
from numerics.view.screen import Screen, after, deliver, draw, tell
from numerics.view.table import records


@click.command(
    "doctor",
    help="What this machine offers: versions, backends, threads."
    + examples("numerics doctor", "numerics doctor --json"),
)
@as_json
def doctor_command(as_json: bool) -> None:
    from numerics.cli.doctor import examine

    found = examine()
    if as_json:
        deliver(json_of(found) + "\n")
        return
    screen = Screen.of(sys.stdout)
    for topic, facts in found.items():
        pairs = [(f"{topic}.{name}" if screen.width is None else f"  {name}", _said(value))
                 for name, value in facts.items()]  # fmt: skip
        draw([*([] if screen.width is None else [topic]), *records(pairs, screen)])


def _said(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else "-" if value is None else str(value)


@click.command(
    "warmup",
    help="Compile the CPU's kernels now, so that no first call waits." + examples("numerics warmup"),
)
@as_json
def warmup_command(as_json: bool) -> None:
    import time

    from numerics.backends.cpu.cache import folder
    from numerics.backends.cpu.warmup import warm_up

    start, names = time.perf_counter(), list[str]()
    with bar(in_bytes=False) as shown:
        shown.update("compiling", 0, None)
        for name in warm_up():
            names.append(name)
            shown.update(name, len(names), None)
    seconds = time.perf_counter() - start
    with after(f"{len(names)} kernels are compiled"):
        if as_json:
            deliver(json_of({"kernels": names, "seconds": seconds, "folder": str(folder())}) + "\n")
        else:
            tell(f"{len(names)} kernels in {seconds:.1f} s, kept in {folder()}")
