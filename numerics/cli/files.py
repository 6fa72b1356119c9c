"""`numerics dequantize`, and what `numerics quantize` takes and says: checkpoints into a format, and back."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

import click

from numerics.cli.completing import (
    FILE,
    OBSERVER,
    ROUNDING,
    RULE,
    SCALE_RULE_OF_ALL,
    SCHEME,
    TensorType,
    WordType,
    of,
)
from numerics.cli.words import (
    Command,
    every_line,
    examples,
    quietly,
    say_kept,
    seeded,
    stoppable,
    with_options,
    worst,
)
from numerics.formats import Block, dtype
from numerics.formats.errors import NumericsError
from numerics.formats.rounding import FULL_RANGE, ROUNDINGS_TEXT, SCALE_RULES_TEXT
from numerics.view.bar import bar
from numerics.view.screen import Screen, after, draw, tell
from numerics.view.table import MADE, Column, Table, measured, name_column
from numerics.view.text import became, cells, figure, named, shortened, some_of, wrapped

if TYPE_CHECKING:
    from numerics.files.checkpoint import FileReport, TensorReport


SPECS = "numerics.tensor.spec"


def job_options(command: Command) -> Command:
    """How a job runs, as options of a command."""
    options = [
        click.option("--plan", "plan_file", type=FILE,
                     help="A plan that was saved (.toml, .json): a format a tensor."),
        click.option("--save-plan", type=FILE,
                     help="Write what is decided: .toml, .json, or .html to look at."),
        click.option("--dry-run", is_flag=True, help="Say what would become of each tensor, and stop."),
        click.option("--errors", type=click.Choice(["all", "sampled", "none"], case_sensitive=False),
                     default="all", show_default=True, help="Which values are measured."),
        every_line,
        click.option("--observer", type=OBSERVER,
                     help="What finds the scales of integers and other single numbers: mse (of least "
                     "error), percentile(99.9), kl, pof2, pof2_mse; by default their largest magnitude."),
        click.option("--max-memory", default="64MB", show_default=True,
                     help="Working memory, about: bytes, or with a unit as 64MB or 1.5GiB."),
    ]  # fmt: skip
    return with_options(command, options)


def quantize_options(command: Command) -> Command:
    """How tensors are quantized, as options of a command."""
    options = [
        click.option("--dtype", "dtypes", multiple=True, type=RULE,
                     help="The format: mx6, int4 ... (`numerics formats`), module:name, or facts as "
                     "JSON; or a rule for some tensors, PATTERN=FORMAT, PATTERN=FORMAT:SCHEME, "
                     "PATTERN=none; may be repeated."),
        click.option("--scheme", type=SCHEME,
                     help="per_tensor, per_channel, per_token, per_group, per_block((128, 128)); of blocks "
                     "only per_block((ROWS, BLOCK)): rows of blocks share a scale."),
        click.option("--group-size", type=int, help="Values that share a scale; for per_group."),
        click.option("--axis", type=int, help="Along which channels, groups or blocks lie."),
        click.option("--asymmetric", is_flag=True, help="With a zero point; for integers."),
        click.option("--scale-type", type=WordType(of(SPECS, "SCALE_TYPES")),
                     help="float32 (the default), float (the tensor's own), float16, bfloat16, pof2; "
                     "bfloat16 and float16 are a plain cast without it and a scheme."),
        click.option("--zero-point-type", type=WordType(of(SPECS, "ZERO_POINT_TYPES")), default="int32",
                     show_default=True, help="int32 or float32."),
        click.option("--rounding", type=ROUNDING, default="half_even", show_default=True,
                     help=ROUNDINGS_TEXT + "."),
        click.option("--scale-rule", type=SCALE_RULE_OF_ALL, default="floor",
                     show_default=True,
                     help=f"{SCALE_RULES_TEXT}  {FULL_RANGE}: of integers."),
        click.option("--tensor-scale", type=float,
                     help="Of NVFP4: one scale for every tensor; by default each finds its own."),
        seeded,
        click.option("--include", multiple=True, type=TensorType("model"),
                     help="Pattern of the tensors or layers to quantize; may be repeated."),
        click.option("--exclude", multiple=True, type=TensorType("model"),
                     help="Pattern of the tensors or layers to copy; may be repeated."),
    ]  # fmt: skip
    return with_options(command, options)


def spec_arguments(
    scheme: str | None, group_size: int | None, axis: int | None, asymmetric: bool, **others: Any
) -> dict[str, Any]:
    """The command's options as QuantSpec's: the axis is the scheme's, or the blocks'."""
    from numerics.files.selection import says_axis
    from numerics.tensor.scheme import Scheme

    _check_sharing(others["dtype"], scheme, group_size, axis)
    if others["zero_point_type"] != "int32" and not asymmetric:
        raise NumericsError("--zero-point-type belongs to --asymmetric: without a zero point it has no type")
    found = {**others, "symmetric": not asymmetric}
    if scheme is None and group_size is not None:
        scheme = "per_group"
    if scheme is not None:
        parsed = Scheme.parse(scheme, size=group_size, axis=axis)
        said = axis is not None or says_axis(
            parsed.kind, scheme
        )  # then its text says it, and it is not chosen
        return {**found, "scheme": repr(parsed) if said else parsed}
    return found if axis is None else {**found, "axis": axis}


def _check_sharing(name: Any, scheme: str | None, group_size: int | None, axis: int | None) -> None:
    """Raises NumericsError where --scheme, --group-size and --axis do not fit the format or each other."""
    d = dtype(name)
    tiles = (scheme or "").strip().startswith("per_block") and group_size is None
    if isinstance(d, Block) and not tiles and (scheme is not None or group_size is not None):
        drop = "--scheme" if group_size is None else "--group-size" if scheme is None else "both"
        came = " and ".join(f"--{name}" for name, given in (("scheme", scheme), ("group-size", group_size))
                            if given is not None)  # fmt: skip
        raise NumericsError(
            f"{d}: {came} cannot be, since blocks have their own size ({d.block}): drop {drop}; "
            "--axis chooses the axis of the blocks"
        )
    if not isinstance(d, Block) and axis is not None and scheme is None and group_size is None:
        raise NumericsError(
            f"{d}: --axis {axis} needs channels or groups: give --scheme per_channel, or --group-size N"
        )
    if scheme is not None and scheme.strip() == "per_group" and group_size is None:
        raise NumericsError("--scheme per_group needs --group-size, such as 128")


@click.command(
    "dequantize",
    help=cleandoc("""Write the floats of a quantized file or folder.

    MODEL: what `numerics quantize` made, or what another tool quantized and `numerics convert` reads.  The
    tensors come back in the types that they had, under their names, in OUT: a folder where MODEL is one.
    """)
    + examples(
        "numerics dequantize out.safetensors back.safetensors", "numerics dequantize FP8_FOLDER FLOAT"
    ),
)
@click.argument("model", type=FILE)
@click.argument("out", type=FILE)
@quietly
def dequantize_command(model: str, out: str, quiet: bool) -> None:
    from numerics.checkpoints.converting import Running, dequantize
    from numerics.checkpoints.ranks import Ranks
    from numerics.files.checkpoint import dequantize_file, is_ours
    from numerics.files.replacement import check_output

    check_output(out, (".safetensors",), model)
    report: object
    ours = is_ours(model)
    ranks = Ranks.of_environment()
    quiet = quiet or ranks.rank > 0
    with stoppable(out, quiet), bar(quiet, in_bytes=ours) as shown:
        if ours and ranks.world == 1:
            report = dequantize_file(model, out, progress=shown.update)
        else:
            report = dequantize(model, out, running=Running(shown.update, ranks))
    if not quiet:
        with after(f"{out} is written"):
            tell(f"{out}: {report}")
            for note in getattr(report, "notes", ()):
                tell(note)
        say_kept(getattr(report, "resumed", 0))


# ---- the report of quantize ---------------------------------------------------------------------

SOME = 3  # names that stand for all of their kind
MEASURED = (Column("shape", spare=2), Column("bits"), Column("SQNR dB"), Column("max error", spare=1))
NON_FINITE = Column("NaN/Inf", spare=1)  # where there is any
SIZES = (Column("before", spare=3), Column("after"))


def report_json(report: FileReport) -> dict[str, Any]:
    error = report.sums.error
    known = any(tensor.sqnr is not None for tensor in report.tensors)
    totals = {"bytes_before": report.bytes_before, "bytes_after": report.bytes_after, "bits": report.bits,
              "sqnr": error.sqnr if known else None, "max_error": error.max_error if known else None,
              "non_finite": error.non_finite, "lost": report.sums.lost}  # fmt: skip
    tensors, already = [asdict(tensor) for tensor in report.tensors], _already(report)
    return {"tensors": tensors, "total": totals, "notes": [already] if already else []}


def _already(report: FileReport) -> str | None:
    from numerics.files.selection import already_said

    return already_said((tensor.shape, tensor.why) for tensor in report.tensors)


def say_report(report: FileReport, every: bool = True, planned: bool = False) -> None:
    """What became of a file: a line a tensor that was quantized, worst first, the totals, the worst of them.

    every: False shows on a terminal those that lost the most, and says how many it does not.
    planned: a terminal has the plan above it, whose reasons are not said again.
    """
    screen = Screen.of(sys.stdout)
    table = report_table(report, screen)
    table.rows, spared = worst(table.rows, every or screen.width is None)
    below = _below(report, screen, every or screen.width is None, planned and screen.width is not None)
    draw([*table.lines(screen), *spared, *below, *table.left_out(screen), *table.names_cut(screen)])


def report_table(report: FileReport, screen: Screen) -> Table:
    """The tensors that were quantized, worst first, with their sums: sizes in bytes."""
    count = "{:d}" if screen.width is None else "{:,d}"
    quantized = [tensor for tensor in report.tensors if tensor.dtype]
    copied = [tensor for tensor in report.tensors if not tensor.dtype]
    columns = [*MEASURED, *[NON_FINITE] * (report.sums.non_finite > 0), *[MADE] * (report.sums.lost > 0)]
    table = Table([name_column("tensor", least=28), *columns, *SIZES])

    def line(name: str, tensors: list[TensorReport], *figures: str) -> list[str]:
        shown = [*figures, *[""] * len(columns)][: len(columns)]
        return [name, *shown, *_sizes(tensors, count)]

    def counts(*found: int | None) -> list[str]:
        kinds = zip((NON_FINITE, MADE), found, strict=True)
        return [f"{count or 0:d}" for column, count in kinds if column in columns]

    for tensor in sorted(quantized, key=_loss):
        shape = "x".join(map(str, tensor.shape)) or "number"
        known = _figures(tensor.bits, tensor, tensor.measured)
        made = counts(tensor.non_finite, tensor.lost)
        table.add(*line(named(tensor.name), [tensor], shape, *known, *made))
    sums = report.sums
    known = _figures(report.bits, sums.error, bool(sums.count))
    figures = ("", *known, *counts(sums.non_finite, sums.lost)) if quantized else ()
    table.totals = [
        line(f"{len(quantized)} quantized", quantized, *figures),
        line(f"{len(copied)} copied", copied),
        line("all", report.tensors),
    ]
    return table


def _loss(tensor: TensorReport) -> tuple[int, int, float]:
    """What sorts tensors: those of which most became NaN or Inf first, then those with the most of them, then
    by the least SQNR; what was not measured last.
    """
    if tensor.lost or tensor.non_finite:
        return 0, -(tensor.lost or 0), -(tensor.non_finite or 0)
    if tensor.sqnr is None or not tensor.measured:
        return 2, 0, 0.0
    return 1, 0, tensor.sqnr


def _of_worst(tensor: TensorReport) -> str:
    """What is wrong with the tensor that lost the most."""
    if tensor.lost:
        return f"{tensor.lost:,} made NaN or Inf"
    return f"{tensor.non_finite:,} NaN or Inf" if tensor.non_finite else f"{tensor.sqnr:.2f} dB"


def _figures(bits: float, error: Any, known: bool) -> list[str]:
    """Bits a value, and what an Error or a TensorReport says, where it is known: both or neither."""
    both = (error.sqnr, error.max_error) if known and not math.isnan(error.sqnr) else (math.nan, math.nan)
    return [figure(bits, 8), measured(both[0], "{:.2f}".format), measured(both[1])]


def _sizes(tensors: list[TensorReport], count: str) -> list[str]:
    sums = (sum(t.bytes_before for t in tensors), sum(t.bytes_after for t in tensors))
    return [count.format(total) for total in sums]


def _below(report: FileReport, screen: Screen, every: bool, planned: bool) -> list[str]:
    """The tensor that lost the most; of reasons every name or some; where one looks, what columns count."""
    lost = [tensor for tensor in report.tensors if tensor.measured or tensor.non_finite]
    worst = min(lost, key=_loss, default=None)
    nothing = f"nothing was {'measured' if any(tensor.dtype for tensor in report.tensors) else 'quantized'}"
    said = f"worst: {_of_worst(worst)}, " if worst else nothing
    already = _already(report)
    told = [*([already] if already else []), *_reasons(report, None if every else SOME, planned)]
    name, reasons = screen.text(worst.name if worst else ""), map(screen.text, told)
    if screen.width is None:
        return [said + name, *reasons]
    short = shortened(name, max(screen.width - cells(said), 1), screen.text("…"))
    sizes = f"{report.bytes_before:,} bytes became {report.bytes_after:,}; bits: a value, scales included"
    return [said + short, *(line for text in (*reasons, sizes) for line in wrapped(text, screen.width))]


def _reasons(report: FileReport, some: int | None, planned: bool) -> list[str]:
    """Why tensors were copied, where NaN and Inf are and where they were made, which axis other than the last
    some have, which are routers, and which have groups or blocks shorter than asked.  some: how many names
    stand for all; None for every name.  planned: all but NaN and Inf, which a plan says too, is left out.
    """
    from numerics.model.deciding.routers import routers

    found: dict[str, list[str]] = {}
    odd = f"{report.sums.non_finite} NaN or Inf, in no SQNR or error"
    made = f"{became(report.sums.lost)}, which leaves no SQNR and error"
    chosen = routers({tensor.name: tensor.shape for tensor in report.tensors})
    for tensor in report.tensors:
        if tensor.dtype and tensor.name in chosen:
            found.setdefault("routers, which --dtype NAME=none keeps", []).append(tensor.name)
        if tensor.why is not None:
            found.setdefault(f"copied, {tensor.why}", []).append(tensor.name)
        if tensor.axis is not None:
            found.setdefault(f"along axis {tensor.axis}", []).append(tensor.name)
        if tensor.short is not None:
            found.setdefault(tensor.short, []).append(tensor.name)
        if tensor.non_finite:
            found.setdefault(odd, []).append(tensor.name)
        if tensor.lost:
            found.setdefault(made, []).append(tensor.name)
    told = {why: names for why, names in found.items() if why in (odd, made) or not planned}
    return [f"{why}: {some_of(names, some)}" for why, names in told.items()]
