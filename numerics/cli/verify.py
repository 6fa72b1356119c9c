"""`numerics verify`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING

import click

from numerics._version import __version__
from numerics.cli.completing import OVERFLOW, ROUNDING, WordType, of
from numerics.cli.words import FORMAT, examples
from numerics.formats.errors import NumericsError
from numerics.formats.rounding import DETERMINISTIC, OVERFLOWS
from numerics.view.bar import Bar, bar
from numerics.view.screen import deliver, say

if TYPE_CHECKING:
    from numerics.conform.vectors.operations import ElementOperation
    from numerics.conform.verify.proof import Advance, Result

Asked = tuple[str, ...]


@click.command(
    "verify",
    help=cleandoc("""Prove encoders and decoders again: all float32 inputs.

    Every one of 2**32 inputs, against shipped hashes; a format of yours (module:name, or its facts as
    JSON) against the exact judge.  Exit code 0 when all is right, 1 when not.
    Every format, rounding and overflow policy by default; some seconds a case.
    """)
    + examples("numerics verify fp8_e4m3", "numerics verify fp4 fp6_e3m2 --rounding half_even --sample"),
)
@click.argument("formats", metavar="[FORMAT]...", nargs=-1, type=FORMAT)
@click.option(
    "--rounding",
    "roundings",
    type=ROUNDING,
    multiple=True,
    help=", ".join(DETERMINISTIC) + "; may be repeated.",
)
@click.option("--overflow", "overflows", type=OVERFLOW, multiple=True,
              help=" or ".join(OVERFLOWS) + "; may be repeated.")  # fmt: skip
@click.option(
    "--backend",
    type=WordType(of("numerics.conform.verify.proof", "BACKENDS")),
    default="cpu",
    show_default=True,
    help="cpu, array or gpu.",
)
@click.option("--resume", type=click.Path(dir_okay=False, path_type=Path), help="A journal of what is done.")
@click.option("--sample", "sampled", is_flag=True, help="A slice of the inputs: quick, and no proof.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify_command(backend: str, resume: Path | None, sampled: bool, as_json: bool, **asked: Asked) -> None:
    from numerics.conform.verify.proof import cases

    if sampled and resume:
        raise NumericsError("--sample proves nothing that a journal could keep; give --resume or --sample")
    wanted = cases(**asked)
    found = []
    with bar(sampled, in_bytes=False) as shown:
        for result in _results(wanted, backend, resume, sampled, _advance(shown, wanted)):
            found.append(result)
            if not as_json:
                shown.say(str(result))
    if as_json:
        deliver(f"{_json(found, sampled)}\n")
    else:
        say(_summary(found, sampled))
    sys.exit(0 if all(found) else 1)


def _results(
    wanted: list[ElementOperation], backend: str, resume: Path | None, sampled: bool, advance: Advance
) -> Iterator[Result]:
    from numerics.conform.verify.journal import Journal, prove_all
    from numerics.conform.verify.proof import sample

    if sampled:
        yield from (sample(case, backend) for case in wanted)
        return
    yield from prove_all(wanted, backend, Journal(resume) if resume else None, advance)


def _advance(shown: Bar, wanted: list[ElementOperation]) -> Advance:
    """Moves the bar on by inputs."""
    from numerics.conform.vectors.questions import EVERY

    total, done = EVERY * sum(case.name == "encode" for case in wanted), 0

    def advance(inputs: int) -> None:
        nonlocal done
        done += inputs
        shown.update("float32 inputs", done, total)

    return advance


def _summary(found: list[Result], sampled: bool) -> str:
    wrong, inputs = sum(not result for result in found), sum(result.inputs for result in found)
    what = "a slice of the inputs, not a proof" if sampled else "every input"
    return f"{len(found)} cases, {inputs:,} inputs, {wrong} wrong: {what}"


def _json(found: list[Result], sampled: bool) -> str:
    said = {"numerics": __version__, "proof": not sampled, "right": all(found)}
    return json.dumps(said | {"cases": [asdict(result) for result in found]}, indent=1)
