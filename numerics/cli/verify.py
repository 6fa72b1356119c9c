"""`numerics verify`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING

import click

from numerics._version import __version__
from numerics.cli.completing import OVERFLOW, ROUNDING, of, word_option
from numerics.cli.words import FORMAT, examples
from numerics.formats.errors import NumericsError
from numerics.formats.rounding import DETERMINISTIC, OVERFLOWS
from numerics.view.bar import Bar, bar
from numerics.view.screen import deliver, say, say_beside

if TYPE_CHECKING:
    from numerics.conform.vectors.operations import ElementOperation
    from numerics.conform.verify.journal import Journal
    from numerics.conform.verify.proof import Advance, Result

Asked = tuple[str, ...]


@click.command(
    "verify",
    help=cleandoc("""Prove encoders and decoders again: all float32 inputs.

    Every one of 2**32 inputs, against shipped hashes; a format of yours (module:name, or its facts as
    JSON) against the exact judge.  Exit code 0 when all is right, 1 when not.
    Without FORMAT every one, in each rounding and overflow policy: 322 cases.  With --backend cpu an encoder
    takes about 3.5 s of CPU (a Xeon with AVX-512): a format of 8 or 16 encoders half a minute or one, all of
    them 17 minutes.  How long it will be here is said when the first one is done.
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
@word_option("--backend", of("numerics.conform.verify.proof", "BACKENDS"), "cpu", "cpu, array or gpu.")
@click.option("--resume", type=click.Path(dir_okay=False, path_type=Path), help="A journal of what is done.")
@click.option("--sample", "sampled", is_flag=True, help="A slice of the inputs: quick, and no proof.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify_command(backend: str, resume: Path | None, sampled: bool, as_json: bool, **asked: Asked) -> None:
    from numerics.conform.verify.journal import Journal
    from numerics.conform.verify.proof import cases

    if sampled and resume:
        raise NumericsError("--sample proves nothing that a journal could keep; give --resume or --sample")
    wanted = cases(**asked)
    kept = None if resume is None else Journal(resume)
    done = set[tuple[str, str]]() if kept is None else set(kept.finished)
    left = sum(_encodes(case) and (str(case), backend) not in done for case in wanted)
    found, pace = [], _Pace(left, time.monotonic())
    with bar(sampled, in_bytes=False) as shown:
        for result in _results(wanted, backend, kept, sampled, _advance(shown, wanted)):
            found.append(result)
            pace.take(result, shown)
            if not as_json:
                shown.say(str(result))
    if as_json:
        deliver(f"{_json(found, sampled)}\n")
    else:
        say(_summary(found, sampled))
    sys.exit(0 if all(found) else 1)


WORTH_SAYING = 30.0  # seconds that are left


@dataclass
class _Pace:
    """Says once how long all will take, when the first encoder is proven.

    encoders: how many are to be.  start: when the last case ended.
    """

    encoders: int
    start: float
    said: bool = False

    def take(self, result: Result, shown: Bar) -> None:
        """Takes in the result of a case."""
        from numerics.conform.vectors.questions import EVERY

        now = time.monotonic()
        seconds, self.start = now - self.start, now
        if self.said or result.resumed or result.inputs < EVERY:
            return
        self.said, others = True, self.encoders - 1
        if seconds * others >= WORTH_SAYING:
            shown.clear()
            say_beside(
                f"the first encoder took {seconds:.1f} s; at that pace the {others} others take "
                f"{_time(seconds * others)}"
            )


def _encodes(case: ElementOperation) -> bool:
    return case.name == "encode"


def _time(seconds: float) -> str:
    """Seconds as a person says them.

    >>> _time(44.0), _time(1010.0), _time(30_000.0)
    ('44 s', '17 minutes', '8.3 hours')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _results(
    wanted: list[ElementOperation], backend: str, kept: Journal | None, sampled: bool, advance: Advance
) -> Iterator[Result]:
    from numerics.conform.verify.journal import prove_all
    from numerics.conform.verify.proof import sample

    if sampled:
        yield from (sample(case, backend) for case in wanted)
        return
    yield from prove_all(wanted, backend, kept, advance)


def _advance(shown: Bar, wanted: list[ElementOperation]) -> Advance:
    """Moves the bar on by inputs."""
    from numerics.conform.vectors.questions import EVERY

    total, done = EVERY * sum(map(_encodes, wanted)), 0

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
