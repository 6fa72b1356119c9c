"""`numerics convert`, `inspect` and `compare`: checkpoints of any kind."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from inspect import cleandoc
from typing import TYPE_CHECKING

import click

from numerics.cli.completing import FILE
from numerics.cli.words import WORST, as_json, examples, json_of, quietly, say_kept, stoppable, worst
from numerics.formats.errors import NumericsError, digits
from numerics.view.bar import bar
from numerics.view.screen import Screen, after, deliver, draw, tell
from numerics.view.table import EMPTY, Column, Table, measured, name_column, text_column
from numerics.view.text import brief, figure, hanging, many, named, some_of, wrapped

if TYPE_CHECKING:
    from numerics.checkpoints.looking import Comparison, Difference, Look

TARGETS = ("numerics", "safetensors", "compressed-tensors", "torchao", "gguf")
SOME = 3  # names that stand for all of whom the same is odd
SCALES = "scales"  # the heading of the column with the least and the largest scale
RANGE = (6, 3)  # digits of those, and where they have no room so
FORMATS = ("format", "stored", "read as")  # headings: of our own files; of others, two
PLACE = "first place"  # the heading of the column that says where two tensors differ first


@click.command(
    "convert",
    help=cleandoc("""Another kind of file, no number rounded.

    But for tensor scales of NVFP4 that compressed-tensors has not: a line
    names them.  MODEL: .safetensors (of anybody), a folder of shards, GGUF, .pth or .bin,
    ONNX, .npy or .npz.  What the kind of OUT does not have is refused, and
    nothing is dequantized to make it fit.  A folder goes on where the same
    command was stopped, and under torchrun ranks share its shards.
    """)
    + examples(
        "numerics convert model.gguf out.safetensors", "numerics convert OURS OUT --to compressed-tensors"
    ),
)
@click.argument("model", type=FILE)
@click.argument("out", type=FILE)
@click.option("--to", type=click.Choice(TARGETS, case_sensitive=False), default="numerics",
              show_default=True, help="What OUT is.")  # fmt: skip
@click.option(
    "--ggml",
    type=click.Choice(["Q8_0", "Q4_0", "MXFP4"], case_sensitive=False),
    help="Of --to gguf: float matrices become this, byte for byte as ggml makes it.",
)
@quietly
def convert_command(model: str, out: str, to: str, ggml: str | None, quiet: bool) -> None:
    from numerics.checkpoints.converting import Running, convert
    from numerics.checkpoints.ranks import Ranks
    from numerics.files.replacement import check_inputs, check_output

    check_inputs(model)
    if to != "gguf" and out.lower().endswith(".gguf"):
        raise NumericsError(
            f"--to {to} writes no GGUF file, and {out} has the name of one: give --to gguf, or another name"
        )
    if to == "gguf" and not out.lower().endswith(".gguf"):
        raise NumericsError(f"--to gguf writes a GGUF file, and {out} is no name of one: give {out}.gguf")
    check_output(out, (".gguf" if to == "gguf" else ".safetensors",), model)
    ranks = Ranks.of_environment()
    quiet = quiet or ranks.rank > 0
    with stoppable(out, quiet), bar(quiet, in_bytes=False) as shown:
        found = convert(model, out, to, ggml=ggml, running=Running(shown.update, ranks))
    if not quiet:
        with after(f"{out} is written"):
            tell(f"{out}: {found}")
            some = None if Screen.of(sys.stdout).width is None else SOME
            left = [(name, f"left as it was, {why}") for name, why in found.left.items()]
            decoded = [(name, f"{why} (--to gguf keeps the bytes)") for name, why in found.decoded.items()]
            tell(*_alike([*left, *decoded], some), *found.notes)
        say_kept(found.resumed)


@click.command(
    "inspect",
    help="What each tensor of MODEL is, and what is odd."
    + examples("numerics inspect model.safetensors", "numerics inspect model.gguf --json"),
)
@click.argument("model", type=FILE)
@click.option(
    "--all", "every", is_flag=True,
    help="Every name of what is odd, and a line for records too; by default a terminal gets some names.",
)  # fmt: skip
@as_json
def inspect_command(model: str, every: bool, as_json: bool) -> None:
    from numerics.checkpoints.looking import inspect

    looks = list(inspect(model))
    if as_json:
        deliver(json_of([asdict(look) for look in looks]) + "\n")
        return
    screen = Screen.of(sys.stdout)
    every = every or screen.width is None
    table, formats = _looks_to_fit(looks, screen, every)
    scales = _scales(looks, screen.width) if SCALES in table.spared(screen) else []
    told = [*formats, *scales, *_odd(looks, None if every else SOME), *_records(looks, screen.width, every)]
    draw([*table.lines(screen), *table.left_out(screen), *table.names_cut(screen), *_below(told, screen)])


def _below(told: list[str], screen: Screen) -> list[str]:
    """What is said below a table, in lines of that screen."""
    return [line for text in map(screen.text, told) for line in hanging(text, screen.width or len(text) + 2)]


def _looks_to_fit(looks: list[Look], screen: Screen, every: bool) -> tuple[Table, list[str]]:
    """The table of tensors with numbers for its long formats, and what they stand for.

    Scales lose digits where that gives them room.
    """
    tried = []
    for places in RANGE:
        table = _looks(looks, screen.width, every, places)
        formats = [one.heading for one in table.columns if one.heading in FORMATS]
        tried.append(table.numbered_to_fit(screen, *formats, what="format"))
        if SCALES not in tried[-1][0].spared(screen):
            return tried[-1]
    return tried[0]


def _scales(looks: list[Look], room: int | None) -> list[str]:
    """The least and the largest scale of all tensors of a format: a line for each."""
    found: dict[str, list[tuple[float, float]]] = {}
    for look in looks:
        if look.scales is not None:
            found.setdefault(brief(look.format, room), []).append(look.scales)
    return [
        f"scales of {spec}: {figure(min(least))} .. {figure(max(most))} in {many(len(ranges), 'tensor')}"
        for spec, ranges in found.items()
        for least, most in [zip(*ranges, strict=True)]
    ]


def _odd(looks: list[Look], some: int | None) -> list[str]:
    """What is odd, and of which tensors: of so many of them, None for all."""
    return _alike(((look.name, odd) for look in looks for odd in look.odd), some)


def _alike(said: Iterable[tuple[str, str]], some: int | None) -> list[str]:
    """What is said of names, a line for each thing that is said: of so many names, None for all."""
    found: dict[str, list[str]] = {}
    for name, what in said:
        found.setdefault(what, []).append(name)
    return [f"{what}: {some_of(names, some)}" for what, names in found.items()]


def _records(looks: list[Look], room: int | None, every: bool) -> list[str]:
    """Where one looks: the records that have no line of their own, by what they say."""
    specs = Counter(look.record for look in looks if look.record)
    if every or not specs:
        return []
    said = ", ".join(f"{brief(spec, room)} ({count})" for spec, count in specs.items())
    return [f"records of what the scales beside them are (_extra_state): {said}"]


def _looks(looks: list[Look], room: int | None, every: bool, places: int = RANGE[0]) -> Table:
    """A line a tensor, of records only where every one is asked for; what it is stored as where that has
    another name.  places: digits of the least and the largest scale.
    """
    kinds = any(look.stored for look in looks)
    formats = [text_column(heading) for heading in (FORMATS[1:] if kinds else FORMATS[:1])]
    table = Table([name_column("tensor", least=24), text_column("shape"), *formats,
                   Column("bits", spare=2), Column("amax", spare=3),
                   Column(SCALES, spare=4), Column("bytes", spare=1)])  # fmt: skip
    for look in (look for look in looks if every or not look.record):
        scales = EMPTY if look.scales is None else " .. ".join(figure(one, places) for one in look.scales)
        amax = EMPTY if look.amax is None else figure(look.amax)
        shape = "x".join(map(str, look.shape)) or "number"
        made = ([look.stored or EMPTY] if kinds else []) + [brief(look.format, room), figure(look.bits, 8)]
        table.add(named(look.name), shape, *made, amax, scales, str(look.nbytes))
    total, others = sum(look.nbytes for look in looks), len(table.columns) - 2
    table.totals = [[many(len(looks), "tensor"), *[""] * others, str(total)]]
    return table


@click.command(
    "compare",
    help=cleandoc("""What differs between two checkpoints.

    Of tensors those first that lost most.  Tensors of which every value is equal, but not how they are
    stored (format, codes, scales), are counted by themselves.  Exit code 1 where anything differs, be it
    only how it is stored.
    """)
    + examples(
        "numerics compare model.safetensors out.safetensors",
        "numerics compare model.safetensors out.safetensors --all",
    ),
)
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@click.option(
    "--all", "every", is_flag=True,
    help=f"Every tensor that differs; by default a terminal gets the {WORST} that lost most, and the first "
    f"places of {SOME}.",
)  # fmt: skip
@as_json
def compare_command(first: str, second: str, every: bool, as_json: bool) -> int:
    from numerics.checkpoints.looking import compare

    with bar(in_bytes=False) as shown:
        found = compare(first, second, shown.update)
    if as_json:
        deliver(json_of({**asdict(found), "same": found.same, "equal": found.equal}) + "\n")
        return 0 if found.same else 1
    draw(_comparison(found, Screen.of(sys.stdout), every))
    return 0 if found.same else 1


def _comparison(found: Comparison, screen: Screen, every: bool = True) -> list[str]:
    """The tensors that differ, worst first, the names that only one has, and how many of each there are."""
    differing = sorted((one for one in found.tensors if not one.equal), key=_kept)
    shown, spared = worst(differing, every or screen.width is None)
    table = Table([name_column("tensor", least=24), text_column("first"), text_column("second"),
                   Column("codes differ", spare=2), Column("scales differ", spare=3),
                   Column("values differ"), Column("SQNR dB"), text_column(PLACE, spare=1)])  # fmt: skip
    for one in shown:
        formats = (brief(text, screen.width) for text in one.formats)
        table.add(named(one.name), *formats, _count(one.codes), _count(one.scales), _count(one.values),
                  _sqnr(one), _place(one))  # fmt: skip
    table, numbers = table.numbered_to_fit(screen, "first", "second", what="format")
    below = [*_below(numbers, screen), *_places(table, screen, every), *table.left_out(screen, PLACE)]
    below += table.names_cut(screen)
    lines = [*table.lines(screen), *spared, *below] if differing else []
    for where, names in (("first", found.only_first), ("second", found.only_second)):
        lines += [f"only in the {where}: {name}" for name in names]
    otherwise, _ = worst([one for one in found.tensors if one.equal and not one.same], screen.width is None)
    told = [text for one in (*shown, *otherwise) if (text := _left_out(one, screen))]
    lines += [line for text in told for line in wrapped(text, screen.width or 1000)]
    told = [*_stored(found, screen, every), _summary(found, len(differing))]
    return [*lines, *(line for text in told for line in wrapped(text, screen.width or 1000))]


def _stored(found: Comparison, screen: Screen, every: bool) -> list[str]:
    """Which tensors have equal values that are stored in other ways, by what differs."""
    ways: dict[str, list[str]] = {}
    for one in found.tensors:
        if one.equal and not one.same:
            ways.setdefault(brief(one.stored, screen.width), []).append(one.name)
    some = None if every or screen.width is None else SOME
    return [screen.text(f"equal values, stored otherwise ({way}): {some_of(names, some)}")
            for way, names in ways.items()]  # fmt: skip


def _kept(one: Difference) -> tuple[bool, bool, float]:
    """What sorts by how much is left of a tensor: none of those that cannot be compared, then of NaN."""
    return one.why is None, one.lost == 0, math.inf if math.isnan(one.sqnr) else one.sqnr


def _left_out(one: Difference, screen: Screen) -> str:
    """What is in no SQNR of a tensor, where it is something; and what makes one of no use."""
    told = [f"{one.non_finite} NaN or Inf in the first, in no SQNR"] if one.non_finite else []
    told += [f"{one.lost} NaN or Inf in the second alone"] if one.lost else []
    return screen.text(f"{one.name}: {'; '.join(told)}") if told else ""


def _places(table: Table, screen: Screen, every: bool) -> list[str]:
    """Where tensors differ first, below a table that has no room for it: those that lost most, or every one;
    those of which the same is said share a line.
    """
    if PLACE not in table.spared(screen):
        return []
    found: dict[str, list[str]] = {}
    for row in table.rows:
        if row[-1] != EMPTY:
            found.setdefault(row[-1], []).append(row[0])
    some = None if every else SOME
    told = [f"{some_of(names, some)}: {place}" for place, names in found.items()]
    more = sum(map(len, list(found.values())[some:])) if some else 0
    said = [f"{PLACE} in each, of the first and the second:", *told[:some]]
    said += [f"and in {more} more; --all shows them"] * bool(more)
    return [line for text in said for line in wrapped(screen.text(text), screen.width or len(text))]


def _summary(found: Comparison, differing: int) -> str:
    """How many tensors both have, how many of those differ and how, and how many only one has."""
    both = many(len(found.tensors), "tensor")
    if found.same:
        return f"{both}, all the same"
    alone = f", {len(found.only_first)} only in the first, {len(found.only_second)} only in the second"
    otherwise = sum(one.equal and not one.same for one in found.tensors)
    equal = f", {otherwise} with equal values that are stored otherwise" * bool(otherwise)
    return f"{both} in both, {differing} differ{equal}" + alone * bool(found.only_first or found.only_second)


def _count(count: int | None) -> str:
    return EMPTY if count is None else f"{count:d}"


def _sqnr(one: Difference) -> str:
    return EMPTY if one.why else measured(one.sqnr, "{:.2f}".format)


def _place(one: Difference) -> str:
    if one.why:
        return one.why
    if one.first is None:
        return EMPTY
    import numpy as np  # late: help needs none

    place, *values = one.first
    left, right = (digits(np.dtype(one.type).type(value)) for value in values)
    return f"{list(place)}: {left}, {right}"
