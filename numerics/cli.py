"""The command line: click says what can be asked, rich draws the answers; nothing is computed here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from numerics._version import __version__
from numerics.conform.command import conform_command
from numerics.conform.pipe.command import vectors_group
from numerics.conform.proof.command import verify_command
from numerics.formats.errors import NumericsError
from numerics.formats.rounding import OVERFLOWS, ROUNDINGS, SCALE_RULES

if TYPE_CHECKING:
    from rich.table import Table

    from numerics.checkpoint import FileReport, TensorReport
    from numerics.describe import Encoded
    from numerics.formats.dtype import Dtype

COLOURS = {"sign": "red", "exponent": "green", "mantissa": "blue", "integer": "blue"}
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="numerics")
def commands() -> None:
    """Low-precision number formats, bit-exact."""


commands.add_command(conform_command)
commands.add_command(vectors_group)
commands.add_command(verify_command)


def run() -> None:
    """The command line; a NumericsError is one line on stderr and exit code 2."""
    try:
        commands(prog_name="numerics")
    except NumericsError as wrong:
        sys.exit(_say(wrong))


def _say(wrong: NumericsError) -> int:
    click.echo(f"numerics: {' '.join(str(wrong).split())}", err=True)
    return 2


def _print_json(said: Any) -> None:
    from numerics.describe import plain

    click.echo(json.dumps(plain(said), indent=1, allow_nan=False))


def _print(*drawn: Any) -> None:
    """What was drawn; as wide as it needs where nobody looks."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    for thing in drawn:
        console.print(thing)


def _table(*columns: str, **options: Any) -> Table:
    """A table whose columns stand right, but for the first."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, **options)
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left", overflow="fold")
    return table


# ---- files --------------------------------------------------------------------------------------


def quantize_options(command: Callable[..., None]) -> Callable[..., None]:
    """How tensors are quantized, as options of a command."""
    options = [
        click.option("--dtype", required=True, help="The format: mx6, int4 ... (`numerics formats`)."),
        click.option("--scheme", help="per_tensor, per_channel or per_group; for integers and floats."),
        click.option("--group-size", type=int, help="Values that share a scale; for per_group."),
        click.option("--axis", type=int, help="Along which channels, groups or blocks lie."),
        click.option("--asymmetric", is_flag=True, help="With a zero point; for integers."),
        click.option("--scale-type", default="float32", show_default=True,
                     help="float32, float (the tensor's own), float16, bfloat16 or pof2."),
        click.option("--zero-point-type", default="int32", show_default=True, help="int32 or float32."),
        click.option("--rounding", default="half_even", show_default=True, help=", ".join(ROUNDINGS) + "."),
        click.option("--scale-rule", default="floor", show_default=True,
                     help=", ".join(SCALE_RULES) + "; for MX formats."),
        click.option("--seed", type=int, help="For --rounding stochastic."),
        click.option("--include", multiple=True, help="Pattern of the tensors to quantize; may be repeated."),
        click.option("--exclude", multiple=True, help="Pattern of the tensors to copy; may be repeated."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@commands.command("quantize")
@click.argument("model")
@click.argument("out")
@quantize_options
@as_json
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def quantize_command(model: str, out: str, as_json: bool, quiet: bool, **options: Any) -> None:
    """Write the weights of a .safetensors MODEL in a format to OUT.

    Float tensors of two and more dimensions are quantized, all others copied.
    """
    from numerics.checkpoint import quantize_file

    with _progress(quiet) as progress:
        report = quantize_file(model, out, progress=progress, **_arguments(**options))
    if as_json:
        _print_json(_report_json(report))
    elif not quiet:
        _print(_report_table(report))


def _arguments(
    scheme: str | None, group_size: int | None, axis: int | None, asymmetric: bool, **others: Any
) -> dict[str, Any]:
    """The command's options as quantize_file's: the axis is the scheme's, or the blocks'."""
    from numerics.scheme import Scheme

    found = {**others, "symmetric": not asymmetric}
    if scheme is None and group_size is not None:
        scheme = "per_group"
    if scheme is not None:
        parsed = Scheme.parse(scheme, size=group_size, axis=axis)
        return {**found, "scheme": repr(parsed) if axis is not None or "," in scheme else parsed}
    return found if axis is None else {**found, "axis": axis}


@commands.command("dequantize")
@click.argument("model")
@click.argument("out")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def dequantize_command(model: str, out: str, quiet: bool) -> None:
    """Write the floats of a MODEL that `numerics quantize` made to OUT."""
    from numerics.checkpoint import dequantize_file

    with _progress(quiet) as progress:
        dequantize_file(model, out, progress=progress)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar on stderr where somebody looks, else nothing."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda name, done, total: bar.update(task, description=name[-40:], completed=done, total=total)


def _report_json(report: FileReport) -> dict[str, Any]:
    error = report.sums.error
    totals = {"bytes_before": report.bytes_before, "bytes_after": report.bytes_after, "bits": report.bits,
              "sqnr": error.sqnr, "max_error": error.max_error}  # fmt: skip
    return {"tensors": [asdict(tensor) for tensor in report.tensors], "total": totals}


def _report_table(report: FileReport) -> Table:
    from rich.markup import escape

    table = _table("tensor", "shape", "bits a value", "SQNR dB", "max error", "bytes before", "after",
                   show_footer=True)  # fmt: skip
    for tensor in report.tensors:
        table.add_row(escape(tensor.name), *_figures(tensor), style=None if tensor.dtype else "dim")
    error = report.sums.error
    totals = ("total", "", f"{report.bits:.3f}", f"{error.sqnr:.2f}", f"{error.max_error:.3g}",
              f"{report.bytes_before:,}", f"{report.bytes_after:,}")  # fmt: skip
    for column, total in zip(table.columns, totals, strict=True):
        column.footer = total
    return table


def _figures(tensor: TensorReport) -> list[str]:
    shape = "x".join(map(str, tensor.shape)) or "number"
    error = [f"{tensor.sqnr:.2f}", f"{tensor.max_error:.3g}"] if tensor.dtype else ["copied", ""]
    return [shape, f"{tensor.bits:.3f}", *error, f"{tensor.bytes_before:,}", f"{tensor.bytes_after:,}"]


# ---- formats ------------------------------------------------------------------------------------


@commands.command("formats")
@as_json
def formats_command(as_json: bool) -> None:
    """List every format."""
    from numerics.describe import facts
    from numerics.formats import dtypes

    if as_json:
        _print_json([facts(d) for d in dtypes()])
        return
    table = _table("format", "kind", "bits", "max", "smallest", "also called", "source")
    table.columns[5].justify = table.columns[6].justify = "left"
    for d in dtypes():
        said = facts(d)
        numbers = [f"{said[name]:g}" for name in ("bits", "max", "smallest_subnormal")]
        table.add_row(d.name, d.kind, *numbers, ", ".join(d.aliases[:2]), d.source)
    _print(table)


@commands.command("show")
@click.argument("name", metavar="FORMAT")
@as_json
def show_command(name: str, as_json: bool) -> None:
    """The facts of a FORMAT and, up to 8 bits, the value of every code."""
    from numerics.describe import code_table, facts, has_code_table
    from numerics.formats import dtype

    d: Any = dtype(name)
    codes = code_table(d) if has_code_table(d) else []
    if as_json:
        _print_json(facts(d) | ({"values": [value for _, value in codes]} if codes else {}))
        return
    table = _table("fact", d.name)
    for fact, value in facts(d).items():
        table.add_row(fact, ", ".join(value) if isinstance(value, list) else str(value))
    _print(table, *([_code_grid(d, codes)] if codes else []))


def _code_grid(d: Dtype, codes: list[tuple[int, float]]) -> Table:
    """All values, 16 a row at most."""
    width = min(16, len(codes))
    table = _table("code", *(f"+{i:x}" for i in range(width)), padding=(0, 0, 0, 1))
    for start in range(0, len(codes), width):
        table.add_row(f"0x{start:02x}", *(f"{value:.6g}" for _, value in codes[start : start + width]))
    return table


@commands.command("encode", context_settings={"ignore_unknown_options": True})
@click.argument("name", metavar="FORMAT")
@click.argument("values", nargs=-1, required=True)
@click.option("--rounding", default="half_even", show_default=True, help=", ".join(ROUNDINGS) + ".")
@click.option("--overflow", help=" or ".join(OVERFLOWS) + "; the format's own by default.")
@click.option("--seed", type=int, help="For --rounding stochastic.")
@as_json
def encode_command(name: str, values: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """VALUES in a FORMAT: bits by field, value, error, the neighbours, tie or not."""
    from numerics.describe import encoded
    from numerics.formats import dtype

    found = encoded(dtype(name), [_number(text) for text in values], **options)
    if as_json:
        _print_json([{**asdict(one), "bits": dict(one.bits)} for one in found])
        return
    table = _table("x", "code", "bits", "value", "error", "below", "above", "tie")
    for one in found:
        table.add_row(*_encoded_row(one))
    _print(table)


def _number(text: str) -> float:
    try:
        return float.fromhex(text) if "0x" in text.lower() else float(text)
    except (ValueError, OverflowError):
        raise NumericsError(f"{text!r} is not a number; allowed: 0.3, 448, 0x1.8p3, inf, nan") from None


def _encoded_row(one: Encoded) -> list[Any]:
    from rich.text import Text

    parts = [part for name, bits in one.bits for part in ((" ", ""), (bits, COLOURS[name]))]
    beside = ["" if value is None else f"{value:.9g}" for value in (one.below, one.above)]
    return [f"{one.x:.9g}", f"0x{one.code:02x}", Text.assemble(*parts[1:]), f"{one.value:.9g}",
            f"{one.error:.3g}", *beside, "tie" if one.tie else ""]  # fmt: skip


@commands.command("doctor")
@as_json
def doctor_command(as_json: bool) -> None:
    """What this machine offers: versions, backends, caches, threads, processor."""
    from numerics.doctor import examine

    found = examine()
    if as_json:
        _print_json(found)
        return
    table = _table("", "")
    table.columns[1].justify = "left"
    for topic, facts in found.items():
        table.add_row(topic, style="bold")
        for name, value in facts.items():
            said = " ".join(value) if isinstance(value, list) else "-" if value is None else str(value)
            table.add_row(f"  {name}", said)
    _print(table)


@commands.command("warmup")
@as_json
def warmup_command(as_json: bool) -> None:
    """Compile the CPU kernels of every format now, so that no first call waits."""
    import time

    from numerics.backends.cpu.cache import folder
    from numerics.backends.cpu.warmup import warm_up

    start = time.perf_counter()
    names = list(warm_up())
    seconds = time.perf_counter() - start
    if as_json:
        _print_json({"kernels": names, "seconds": seconds, "folder": str(folder())})
        return
    click.echo(f"{len(names)} kernels in {seconds:.1f} s, kept in {folder()}")


@commands.group("ipu")
def ipu_group() -> None:
    """AMD's Ryzen AI NPU, by way of ONNX."""


@ipu_group.command("export")
@click.argument("name", metavar="FORMAT")
@click.argument("out")
@click.option(
    "--op", default="round", show_default=True, help="encode, decode, round, pack, unpack, requantize."
)
@click.option("--profile", default="bits", show_default=True, help="bits, portable or npu.")
@click.option("--rounding", help="half_even by default; for requantize a mode of AIE-ML.")
@click.option("--overflow", help=" or ".join(OVERFLOWS) + "; the format's own by default.")
@click.option("--scale-rule", default="floor", show_default=True, help=", ".join(SCALE_RULES) + ".")
@click.option("--shift", type=int, help="For requantize.")
@click.option("--device", help="For requantize: phx, hpt, stx or krk.")
def ipu_export_command(name: str, out: str, **options: Any) -> None:
    """Write an operation on FORMAT as an ONNX model to OUT."""
    import numerics as nx
    from numerics.replacement import replace_file

    model = nx.ipu.export(name, options.pop("op"), options.pop("profile"), **options)
    replace_file(out, model.SerializeToString())
    click.echo(f"{out}: {len(model.graph.node)} nodes, opset {model.opset_import[0].version}")


@ipu_group.command("verify")
@click.option("--device", default="stx", show_default=True, help="phx, hpt, stx or krk.")
@click.option("--xclbin", help="The NPU binary that phx and hpt need.")
@click.option("--require-npu", is_flag=True, help="Fail without the NPU's provider.")
@as_json
def ipu_verify_command(device: str, xclbin: str | None, require_npu: bool, as_json: bool) -> None:
    """Run known-answer networks, and say which rounding this runtime shows."""
    import numerics as nx

    found = nx.ipu.verify(device, require_npu=require_npu, xclbin=xclbin)
    if as_json:
        _print_json(found)
    else:
        shown = ", ".join(found["shown_modes"]) or "no mode of AIE-ML"
        click.echo(f"active providers: {', '.join(found['providers'])}")
        click.echo(
            f"{found['outputs']} outputs show {shown}; {device} should round {found['documented_mode']}"
        )
        click.echo(found["note"])
    sys.exit(0 if found["agrees"] else 1)
