"""`numerics vectors generate` and `numerics vectors verify`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from inspect import cleandoc
from typing import Any, BinaryIO

import click

from numerics.cli.completing import OVERFLOW, ROUNDING, SCALE_RULE_OF_ALL, WordType
from numerics.cli.conform import progress
from numerics.cli.words import CLAIMED, examples, json_of
from numerics.conform.kinds import OPERATIONS
from numerics.formats.errors import NumericsError
from numerics.formats.rounding import OVERFLOWS, ROUNDINGS_TEXT, SCALE_RULES_TEXT
from numerics.view.bar import Bar, bar
from numerics.view.screen import deliver, deliver_bytes, say


@click.group(
    "vectors",
    help="Questions and answers as hex, for any device on a pipe."
    + examples(
        "numerics vectors generate fp8_e4m3 --inputs-only | ./mine > answers.txt",
        "numerics vectors verify answers.txt",
    ),
)
def vectors_group() -> None: ...


@vectors_group.command(
    "generate",
    help=cleandoc("""Write vectors of a FORMAT to stdout.

    With --inputs-only each line is a question in hex, as 3f800000 of encode.  A device copies lines that
    begin with #, and appends its answer to the others: 3f800000 38.  `numerics vectors verify` judges them.
    """)
    + examples("numerics vectors generate fp8_e4m3 --inputs-only | ./mine > answers.txt"),
)
@click.argument("dtype", metavar="FORMAT", type=CLAIMED)
@click.option(
    "--op",
    "name",
    type=WordType(OPERATIONS),
    default="encode",
    show_default=True,
    help=", ".join(OPERATIONS) + ".",
)
@click.option("--rounding", type=ROUNDING, help=ROUNDINGS_TEXT + "; half_even by default.")
@click.option("--overflow", type=OVERFLOW, help=" or ".join(OVERFLOWS) + "; the format's own by default.")
@click.option(
    "--scale-rule",
    type=SCALE_RULE_OF_ALL,
    help=SCALE_RULES_TEXT + "  floor by default.",
)
@click.option("--tensor-scale", type=float, help="For NVFP4; 1 by default.")
@click.option("--draw", help="Of stochastic rounding: a rule and its random bits, as in a8; a30 by default.")
@click.option(
    "--scheme", help="Of quantize: how many numbers, a line, share a scale; per_group(16) by default."
)
@click.option(
    "--least",
    help="Of quantize: the scale of zeros, one or none, or what clamps: `amax 1e-12`, `scale 1e-7`.",
)
@click.option("--count", type=int, help="So many at random, instead of the values that matter.")
@click.option("--exhaustive", is_flag=True, help="Every code, or all 2**32 float32 inputs.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of what is random.")
@click.option("--inputs-only", is_flag=True, help="Leave the answers to a device.")
@click.option(
    "--format",
    "written",
    type=click.Choice(["lines", "readmemh"], case_sensitive=False),
    default="lines",
    show_default=True,
    help="readmemh: a file for Verilog's $readmemh, with the group of every vector.",
)
def generate_command(written: str, inputs_only: bool, **asked: Any) -> None:
    from numerics.conform.vectors.operations import operation
    from numerics.conform.vectors.vectors import generate, readmemh

    chosen = {name: asked.pop(name) for name in ("count", "exhaustive", "seed")}
    if inputs_only and written == "readmemh":
        raise NumericsError("--inputs-only leaves the answers out, with which a testbench compares")
    wanted = operation(asked.pop("dtype"), **asked)
    chunks = (
        readmemh(wanted, **chosen)
        if written == "readmemh"
        else generate(wanted, **chosen, answers=not inputs_only)
    )
    with bar(
        quiet=sys.stdout is None or sys.stdout.isatty()
    ) as shown:  # where the lines are read, they say it
        deliver_bytes(_counted(chunks, shown, "vectors"))


def _counted(chunks: Iterator[bytes], shown: Bar, what: str) -> Iterator[bytes]:
    """The chunks as they are, and a bar that tells of how many bytes they were."""
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        shown.update(what, done, None)


@vectors_group.command(
    "verify",
    help="Judge the answers in FILE, or on stdin.  Exit code 0: all are right; 1: not."
    + examples("numerics vectors verify answers.txt --show 3"),
)
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--show", "shown", type=click.IntRange(0), default=10, show_default=True, help="Mismatches.")
@click.option("--strict-nan", is_flag=True, help="Compare the bits of NaN too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify_command(file: BinaryIO, shown: int, strict_nan: bool, as_json: bool) -> None:
    from numerics.conform.vectors.vectors import verify
    from numerics.conform.verdict import SCHEMA

    with progress("vectors"):
        verdict = verify(file, strict_nan=strict_nan, shown=shown)
    if as_json:
        broken = (verdict.unknown, verdict.counterexample)
        said = verdict.operation.facts | {
            "schema": SCHEMA,
            "passed": bool(verdict),
            "vectors": verdict.vectors,
            "mismatches": verdict.mismatches,
            "failures": [failure.to_dict() for failure in broken if failure is not None],
            "dialect": verdict.dialect,
            "first": [asdict(mismatch) for mismatch in verdict.first],
        }
        deliver(json_of(said) + "\n")
    else:
        say(str(verdict))
    sys.exit(0 if verdict else 1)
