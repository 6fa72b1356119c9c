"""`numerics formats`, `show` and `encode`: what formats are, and what numbers become in them."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, replace
from functools import partial
from inspect import cleandoc
from itertools import cycle
from typing import TYPE_CHECKING, Any

import click

from numerics.cli.completing import OVERFLOW, ROUNDING, SCALE_RULE
from numerics.cli.words import (
    FORMAT,
    as_json,
    check_seed,
    examples,
    format_of,
    json_of,
    no_such_option,
    seeded,
)
from numerics.formats.block import no_tensor_scale
from numerics.formats.errors import NumericsError
from numerics.formats.rounding import OVERFLOWS, ROUNDINGS_TEXT, SCALE_RULES_TEXT
from numerics.view.screen import Screen, deliver, draw, tell
from numerics.view.table import Column, Table, name_column, records, text_column
from numerics.view.text import number, pointed, wrapped

if TYPE_CHECKING:
    from numerics.formats.dtype import Element
    from numerics.view.describe import Encoded, EncodedBlocks

COLOURS = {"sign": "red", "exponent": "green", "mantissa": "blue", "integer": "blue", "code": "blue"}
ALSO = 22  # cells of other names where somebody looks: two of them, or one
LISTED = 16  # values of a book that stand in its facts
PIPED = 80  # cells of a line of codes on a pipe: a grid is read by people, its values by --json
ACROSS = (16, 8, 4, 2, 1)  # codes of a line, as many as fit


@click.command(
    "formats",
    help="List every format." + examples("numerics formats", "numerics formats --json"),
)
@as_json
def formats_command(as_json: bool) -> None:
    from numerics.formats import dtypes
    from numerics.view.describe import facts

    if as_json:
        deliver(json_of([facts(d) for d in dtypes()]) + "\n")
        return
    table = Table([
        name_column("format", least=16), text_column("kind"), Column("bits"), Column("max"),
        Column("smallest", spare=2), name_column("also called", least=ALSO, spare=1),
        text_column("source", spare=3),
    ])  # fmt: skip
    screen = Screen.of(sys.stdout)
    every = dtypes()
    bits = [number(facts(d)["bits"]) for d in every]
    for d, own in zip(every, bits if screen.width is None else pointed(bits), strict=True):
        said, also = facts(d), ", ".join(d.aliases[:2])
        if screen.width is not None and len(also) > ALSO:
            also = d.aliases[0]
        numbers = [number(said[name]) for name in ("max", "smallest_subnormal")]
        table.add(d.name, d.kind, own, *numbers, also, d.source)
    draw([*table.lines(screen), *table.left_out(screen)])


@click.command(
    "show",
    help=cleandoc("""The facts of a FORMAT, and the value of every code.

    Of formats of more than 8 bits: the values from which and to which runs of codes lead.  A format of
    your own is module:name, or its facts as JSON; one of IEEE P3109 its name.
    """)
    + examples(
        "numerics show fp8_e4m3",
        "numerics show mypkg.formats:e5m3",
        """numerics show '{"exponent": 5, "mantissa": 3, "signed": false}'""",
        "numerics show binary8p3se",
    ),
)
@click.argument("d", metavar="FORMAT", type=FORMAT)
@click.option("--all", "every", is_flag=True,
              help="Every value of a book; by default it is said how many they are.")  # fmt: skip
@as_json
def show_command(d: Any, as_json: bool, every: bool) -> None:
    from numerics.formats import Element
    from numerics.view.describe import code_table, facts, has_code_table

    codes = code_table(d) if isinstance(d, Element) and has_code_table(d) else []
    if as_json:
        deliver(json_of(facts(d) | ({"values": [value for _, value in codes]} if codes else {})) + "\n")
        return
    screen = Screen.of(sys.stdout)
    short = bool(codes) and not every
    told = {fact: _fact(value, fact == "book" and short) for fact, value in facts(d).items()}
    lines = records([(fact, said) for fact, said in told.items() if said], screen)
    if isinstance(d, Element):
        lines += ["", *(code_grid(codes, screen) if codes else run_table(d).lines(screen))]
    else:
        lines += _of_parts(d, screen)
    draw(lines)


def _of_parts(d: Any, screen: Screen) -> list[str]:
    """Where the values of a block's codes are shown; those of a format that no name finds are listed."""
    from numerics.formats.block import ElementBlock
    from numerics.view.describe import code_table, has_code_table

    found = [d.element, d.scale] if isinstance(d, ElementBlock) else []
    parts = dict.fromkeys(part for part in found if part is not None)
    lines = []
    for part in parts:
        if not _is_known(str(part)) and has_code_table(part):
            lines += ["", f"the codes of its {part}:", *code_grid(code_table(part), screen)]
    if names := [f"`numerics show {part}`" for part in parts if _is_known(str(part))]:
        below = f"the values of its codes: {' and '.join(names)}"
        lines += ["", *(wrapped(below, screen.width) if screen.width else [below])]
    return lines


def _is_known(name: str) -> bool:
    try:
        return bool(format_of(name))
    except NumericsError:
        return False


def _fact(value: Any, counted: bool = False) -> str:
    """A fact in words.  counted: only how many values a book has, where codes and values stand below it."""
    if counted and len(values := str(value).split()) > LISTED:
        return f"{len(values)} values, those of the codes below; --all lists them"
    if isinstance(value, list):
        return ", ".join(value)
    return number(value) if isinstance(value, float) else str(value)


def code_grid(codes: list[tuple[int, float]], screen: Screen) -> list[str]:
    """Every code and its value, as many in a line as fit whole: in PIPED cells where nobody looks."""
    screen = screen if screen.width else replace(screen, width=PIPED, plain=True)
    for across in ACROSS:
        table = _grid(codes, min(across, len(codes)))
        if table.fits(screen):
            break
    return table.lines(screen)


def _grid(codes: list[tuple[int, float]], across: int) -> Table:
    table = Table([text_column("code"), *(Column(f"+{i:x}") for i in range(across))])
    for start in range(0, len(codes), across):
        table.add(f"0x{start:02x}", *(number(value) for _, value in codes[start : start + across]))
    return table


def run_table(d: Element) -> Table:
    """Runs of codes of one kind: the codes and the values that they lead from and to."""
    from numerics.view.describe import runs

    table = Table([text_column("codes"), text_column("what"), Column("from"), Column("to")])
    for run in runs(d):
        codes = f"0x{run.first:04x}" + (f"-0x{run.last:04x}" if run.last > run.first else "")
        table.add(codes, run.kind, number(run.begins), number(run.ends) if run.last > run.first else "")
    return table


@click.command(
    "encode",
    context_settings={"ignore_unknown_options": True},
    help=cleandoc("""VALUES in a FORMAT: codes, bits by field, error, neighbours.

    In a block format they are blocks in a row: the scale that they share stands above them.
    """)
    + examples(
        "numerics encode fp8_e4m3 0.3 448 inf",
        "numerics encode mxfp4 1 0.3 -0.05 5 --scale-rule even",
        "numerics encode nvfp4 0.5 6 --tensor-scale 0.25 --scale-rule four_over_six",
        "numerics encode fp4 2.5 --rounding stochastic --seed 7",
        """numerics encode '{"exponent": 4, "mantissa": 2, "specials": "fn"}' 0.3 inf""",
    ),
)
@click.argument("d", metavar="FORMAT", type=FORMAT)
@click.argument("values", nargs=-1, required=True)
@click.option("--rounding", type=ROUNDING, default="half_even", show_default=True, help=ROUNDINGS_TEXT + ".")
@click.option("--overflow", type=OVERFLOW, help=" or ".join(OVERFLOWS) + "; the format's own by default.")
@click.option("--scale-rule", type=SCALE_RULE, help=SCALE_RULES_TEXT)
@click.option("--tensor-scale", type=float, help="Of NVFP4: the scale of the whole tensor, instead of found.")
@seeded
@as_json
def encode_command(d: Any, values: tuple[str, ...], as_json: bool, **options: Any) -> None:
    from numerics.formats import Block
    from numerics.view.describe import encoded, encoded_blocks

    numbers = [_number(text) for text in values]
    check_seed(options["rounding"], options["seed"])
    scale_rule, tensor_scale = options.pop("scale_rule"), options.pop("tensor_scale")
    if isinstance(d, Block):
        asked = {"scale_rule": scale_rule or "floor", "tensor_scale": tensor_scale, **options}
        _say_blocks(encoded_blocks(d, numbers, **asked), as_json)
        return
    if tensor_scale is not None:
        raise no_tensor_scale(d)
    if scale_rule is not None:
        raise NumericsError(
            f"--scale-rule is for MX formats and blocks with float scales; {d} has no scale of its own"
        )
    found = encoded(d, numbers, **options)
    if as_json:
        deliver(json_of([_json(one) for one in found]) + "\n")
        return
    draw(_encoded_table(found).lines(Screen.of(sys.stdout)))


def _encoded_table(found: list[Encoded]) -> Table:
    """A line a number: its code, what that means, and the values between which the number lies."""
    table = Table([
        Column("x", right=True), Column("code"), _bits_column(found), Column("value"), Column("error"),
        Column("below"), Column("above"), text_column("tie"),
    ])  # fmt: skip
    for one in found:
        beside = ["" if value is None else number(value) for value in (one.below, one.above)]
        table.add(*_cells(one), *beside, "tie" if one.tie else "")
    return table


def _number(text: str) -> float:
    """The number of an argument, which may begin with a minus; so unknown options come here, too."""
    if text.startswith("--"):
        raise NumericsError(
            f"{no_such_option(text, click.get_current_context().command)} --help lists them all"
        )
    try:
        found = float.fromhex(text) if "0x" in text.lower() else float(text)
        if math.isinf(found) and any(letter.isdigit() for letter in text):
            raise OverflowError
        return found
    except OverflowError:
        raise NumericsError(
            f"{text!r} is beyond float64, in which numbers are read: inf is what lies there"
        ) from None
    except ValueError:
        raise NumericsError(f"{text!r} is not a number; allowed: 0.3, 448, 0x1.8p3, inf, nan") from None


def _json(one: Encoded) -> dict[str, Any]:
    return {**asdict(one), "bits": dict(one.bits)}


def _cells(one: Encoded) -> list[str]:
    bits = " ".join(bits for _, bits in one.bits)
    digits = 2 if sum(len(field) for _, field in one.bits) <= 8 else 4
    return [number(one.x), f"0x{one.code:0{digits}x}", bits, number(one.value), number(one.error)]


def _bits_column(found: list[Encoded]) -> Column:
    fields = [name for name, _ in found[0].bits]
    return text_column("bits", paint=partial(_painted, fields))


def _painted(fields: list[str], cell: str) -> str:
    """The bits of each field in its colour."""
    names = cycle(fields)
    return " ".join(click.style(part, COLOURS[next(names)]) if part else "" for part in cell.split(" "))


def _say_blocks(found: EncodedBlocks, as_json: bool) -> None:
    if as_json:
        blocks = [
            {**asdict(block), "elements": [_json(one) for one in block.elements]} for block in found.blocks
        ]
        deliver(json_of({"tensor_scale": found.tensor_scale, "blocks": blocks}) + "\n")
        return
    screen = Screen.of(sys.stdout)
    if found.tensor_scale is not None:
        tell(f"scale of the tensor: {number(found.tensor_scale)}")
    for k, block in enumerate(found.blocks):
        micro = "" if block.microexponents is None else f", microexponents 0b{block.microexponents}"
        read = "" if block.counts is None else f", read as {'counts' if block.counts else 'floats'}"
        tell(f"block {k}: scale 0x{block.scale:02x} = {number(block.scale_value)}{micro}{read}")
        draw(_encoded_table(block.elements).lines(screen))
