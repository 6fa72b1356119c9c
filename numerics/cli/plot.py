"""`numerics plot`: pictures of formats, roundings, tensors, blocks, images and models, into files."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from numerics.cli.completing import (
    FILE,
    ROUNDING,
    SCALE_RULE,
    SCALE_RULE_OF_ALL,
    SCHEME,
    TensorType,
)
from numerics.cli.files import spec_arguments
from numerics.cli.words import (
    FORMAT,
    FORMAT_OR_HOW,
    HOW,
    Command,
    examples,
    with_options,
)
from numerics.files.replacement import check_output
from numerics.formats.errors import NumericsError
from numerics.formats.rounding import FULL_RANGE, SCALE_RULES_TEXT
from numerics.view.bar import bar
from numerics.view.screen import Screen, after, tell
from numerics.view.screen import draw as draw_lines

if TYPE_CHECKING:
    from numerics.draw.picture import Picture
    from numerics.tensor.spec import QuantSpec
    from numerics.view.table import Table

out_argument = click.argument("out", metavar="OUT", type=FILE)
tensor_option = click.option(
    "--tensor", "name", type=TensorType("file"), help="Its name, where the file has several."
)


@click.group(
    "plot",
    help="Draw formats, tensors and models, as .png, .svg or .pdf."
    + examples(
        "numerics plot format fp8_e4m3 e4m3.png",
        "numerics plot tensor m.safetensors w.png --tensor fc1.weight --dtype nvfp4",
    ),
)
def plot_group() -> None: ...


def sharing_options(command: Command) -> Command:
    """Which elements of a tensor share a scale, as options of a command."""
    options = [
        click.option("--scheme", type=SCHEME,
                     help="per_tensor, per_token, per_channel(AXIS), per_group(SIZE) or per_block((R, C))."),
        click.option("--group-size", type=int, help="How many neighbours share a scale: per_group."),
        click.option("--axis", type=int, help="Along which the blocks of a block format, or groups, lie."),
        click.option("--asymmetric", is_flag=True, help="With a zero point; for integers."),
    ]  # fmt: skip
    return with_options(command, options)


def how_options(command: Command) -> Command:
    """How a tensor is quantized, as options of a command."""
    rule = click.option("--scale-rule", type=SCALE_RULE_OF_ALL,
                        help=f"{SCALE_RULES_TEXT}  {FULL_RANGE}: of integers.")  # fmt: skip
    return sharing_options(rule(command))


def how(dtype: Any, scale_rule: str | None = None, **shared: Any) -> tuple[Any, dict[str, Any]]:
    """The format, and the options as `nx.quantize` takes them: only those that were given.

    dtype: a format, or a QuantSpec of one with options behind it.  shared: those of `sharing_options`.
    Raises NumericsError where they do not fit the format, or say again what stands behind it.
    """
    from numerics.tensor.spec import QuantSpec

    found: dict[str, Any] = {} if scale_rule is None else {"scale_rule": scale_rule}
    if dtype is None:  # of a tensor that is quantized already, which takes none of them
        return None, found | {name: value for name, value in shared.items() if value not in (None, False)}
    behind = dtype.options if isinstance(dtype, QuantSpec) else {"dtype": dtype}
    d = behind.pop("dtype")
    if "scheme" in behind and (
        wrong := [name for name in ("group_size", "axis") if shared[name] is not None]
    ):
        raise _said_twice(dtype, "scheme", wrong[0])
    found |= spec_arguments(**shared, dtype=d, zero_point_type="int32")
    usual = {"symmetric": True, "scheme": None}
    given = {name: value for name, value in found.items()
             if name not in ("dtype", "zero_point_type") and value != usual.get(name, ...)}  # fmt: skip
    for name in behind:
        if name in given:
            raise _said_twice(dtype, name, "asymmetric" if name == "symmetric" else name)
    return d, {**behind, **given}


def _said_twice(spec: QuantSpec, name: str, option: str) -> NumericsError:
    from numerics.tensor.spec import described

    return NumericsError(
        f"--dtype {described(spec)!r} says {name}, which --{option.replace('_', '-')} says too"
    )


def _check(out: str, *sources: str) -> None:
    """Raises NumericsError, before anything is drawn, for an output that is an input or no picture."""
    from numerics.draw.picture import KINDS

    check_output(out, tuple(KINDS), *sources)


def _save(picture: Picture, out: str, *below: str) -> None:
    """The file, and what is on it in words, with lines below them."""
    picture.save(out)
    with after(f"{out} is written"):
        tell(f"{out}: {picture.alt}", *below)


def _as_stored(x: Any) -> list[str]:
    """Of a tensor that is quantized already, whose values are drawn in other formats, what those are."""
    from numerics.draw.sources import stored_as

    stored = stored_as(x)
    return [f"its values are those that {stored} stores"] if stored else []


def _save_table(picture: Picture, table: Table, out: str, *below: str) -> None:
    """The file, and what is on it as a table, with lines below it."""
    picture.save(out)
    with after(f"{out} is written"):
        tell(f"{out}: {picture.alt.rpartition(': ')[0]}")
        draw_lines([*table.lines(Screen.of(sys.stdout)), *below])


@plot_group.command("format", help="A FORMAT: number line, binades, specials, steps."
                    + examples("numerics plot format fp8_e4m3 e4m3.png"))  # fmt: skip
@click.argument("d", metavar="FORMAT", type=FORMAT)
@out_argument
def format_command(d: Any, out: str) -> None:
    from numerics import draw

    _check(out)
    _save(draw.format(d), out)


@plot_group.command(
    "rounding",
    help="Roundings of a FORMAT as staircases, with their ties."
    + examples("numerics plot rounding fp4 ties.png --rounding half_even"),
)
@click.argument("d", metavar="FORMAT", type=FORMAT)
@out_argument
@click.option(
    "--rounding",
    "roundings",
    multiple=True,
    type=ROUNDING,
    help="What is drawn; may be repeated; half_even by default; of stochastic the mean of 64 draws.",
)
@click.option("--around", type=float, help="The value in the middle; 0 by default.")  # fmt: skip
def rounding_command(d: Any, out: str, roundings: Sequence[str], around: float | None) -> None:
    from numerics import draw

    _check(out)
    _save(draw.rounding(d, list(roundings) or "half_even", around=around), out)


@plot_group.command(
    "tensor",
    help="A tensor of FILE, a checkpoint or .npy: codes and error."
    + examples("numerics plot tensor m.safetensors w.png --tensor fc1.weight --dtype mx6"),
)
@click.argument("file", type=FILE)
@out_argument
@tensor_option
@click.option("--dtype", type=HOW, help=f"{FORMAT_OR_HOW}  None for a tensor that is quantized already.")
@how_options
def tensor_command(file: str, out: str, name: str | None, dtype: Any, **options: Any) -> None:
    from numerics import draw
    from numerics.draw.picture import of_tensor
    from numerics.draw.sources import tensor_in

    _check(out, file)
    d, given = how(dtype, **options)
    name, x = tensor_in(file, name)
    below = [] if d is None else _as_stored(x)
    _save(of_tensor(draw.tensor(x, d, **given), name), out, *below)


@plot_group.command("block", help="A block of FILE's tensor, as all of it is quantized."
                    + examples("numerics plot block x.npy block.png --dtype nvfp4 --block 7"))  # fmt: skip
@click.argument("file", type=FILE)
@out_argument
@tensor_option
@click.option("--dtype", type=FORMAT,
              help="A block format; none for a tensor that is quantized already.")  # fmt: skip
@click.option("--scale-rule", type=SCALE_RULE, default="floor", show_default=True, help=SCALE_RULES_TEXT)
@click.option("--block", type=int, default=0, show_default=True, help="Which one, row after row.")
def block_command(file: str, out: str, name: str | None, dtype: Any, **which: Any) -> None:
    from numerics import draw
    from numerics.draw.picture import of_tensor
    from numerics.draw.sources import tensor_in

    _check(out, file)
    name, x = tensor_in(file, name)
    _save(of_tensor(draw.block(x, dtype, **which), name), out)


@plot_group.command(
    "image",
    help="A picture IN in formats: each posterizes in its own way."
    + examples("numerics plot image photo.png out.png --dtype fp4 --dtype mxfp4"),
)
@click.argument("file", metavar="IN", type=FILE)
@out_argument
@click.option(
    "--dtype",
    "dtypes",
    type=HOW,
    multiple=True,
    required=True,
    help="A format to show it in, or `int4 per_group(32)`; may be repeated.",
)
def image_command(file: str, out: str, dtypes: Sequence[Any]) -> None:
    from numerics import draw
    from numerics.draw.sources import image_in

    _check(out, file)
    _save(draw.image(image_in(file), list(dtypes)), out)


@plot_group.command(
    "formats",
    help="What formats leave of FILE's tensor, against their bits."
    + examples("numerics plot formats m.safetensors out.svg --tensor fc1.weight"),
)
@click.argument("file", type=FILE)
@out_argument
@tensor_option
@click.option(
    "--dtype",
    "dtypes",
    type=HOW,
    multiple=True,
    help="A format to draw, or `int4 per_group(32)`; may be repeated; by default all.",
)
def formats_command(file: str, out: str, name: str | None, dtypes: Sequence[Any]) -> None:
    from numerics.draw.formats import compared, pictured, table_of
    from numerics.draw.grids import array_of
    from numerics.draw.picture import of_tensor
    from numerics.draw.sources import tensor_in

    _check(out, file)
    name, x = tensor_in(file, name)
    data = array_of(x)
    with bar(in_bytes=False) as shown:
        rows = compared(data, list(dtypes) or None, {}, shown.update)
    _save_table(of_tensor(pictured(rows, data.size), name), table_of(rows), out, *_as_stored(x))


@plot_group.command(
    "scales",
    help="What each scale rule of a format leaves of FILE's tensor."
    + examples("numerics plot scales x.npy rules.png --dtype nvfp4"),
)
@click.argument("file", type=FILE)
@out_argument
@tensor_option
@click.option("--dtype", type=HOW, required=True, help=FORMAT_OR_HOW)
@sharing_options
def scales_command(file: str, out: str, name: str | None, dtype: Any, **options: Any) -> None:
    from numerics.draw.picture import of_tensor
    from numerics.draw.rules import pictured
    from numerics.draw.scales import found_by
    from numerics.draw.sources import tensor_in

    _check(out, file)
    name, x = tensor_in(file, name)
    with bar(in_bytes=False) as shown:
        found = found_by(x, *how(dtype, **options), shown.update)
    below = [*_as_stored(x), *([] if found.alike else [found.verdict])]
    count = math.prod(x.shape)
    _save_table(of_tensor(pictured(found, count), name), found.table(), out, *below)


@plot_group.command("model", help="The layers of a REPORT, worst first: JSON of its as_dict()."
                    + examples("numerics plot model report.json layers.png --most 20"))  # fmt: skip
@click.argument("report", type=FILE)
@out_argument
@click.option("--most", type=click.IntRange(1), default=30, show_default=True, help="How many layers.")
def model_command(report: str, out: str, most: int) -> None:
    from numerics import draw
    from numerics.draw.sources import report_in

    _check(out, report)
    _save(draw.model(report_in(report), most=most), out)
