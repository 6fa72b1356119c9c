"""`numerics explore`: a file, or a format, as one page in which every number is explained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from numerics.cli.completing import FILE, FILE_OR_FORMAT, TensorType
from numerics.cli.words import HOW, examples, format_of
from numerics.files.replacement import check_inputs, check_output
from numerics.formats.dtype import Dtype
from numerics.formats.errors import NumericsError
from numerics.view.bar import size
from numerics.view.screen import after, tell
from numerics.view.text import shortened, some_of

if TYPE_CHECKING:
    from numerics.draw.explorer import Page

PAGES = (".html", ".htm")
SOME = 5  # names that stand for all
LONGEST = 60  # letters of a file's name that a format gives


class PlaceType(click.ParamType):  # type: ignore[type-arg]  # generic in newer ones
    """A row or an index on the command line: numbers with commas between."""

    name = "index"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """The numbers; NumericsError for what are none."""
        if isinstance(value, tuple):
            return value
        if not re.fullmatch(r"\[?\s*\d+(\s*,\s*\d+)*\s*\]?", value.strip(), re.ASCII):
            raise NumericsError(f"--at {value!r} is no row, as 17, and no index, as 17,64")
        return tuple(map(int, re.findall(r"\d+", value)))


PLACE = PlaceType()


@click.command(
    "explore",
    help=cleandoc("""One HTML page that explains every number of FILE.

    FILE is a checkpoint (.safetensors, a folder of them, GGUF and what else `numerics inspect` reads), a
    .npy file, a model's report (JSON of nx.report(...).as_dict()), or the name of a format.  OUT is
    FILE's name (of a format its own) with .html by default, in the current directory.  The page needs no
    network; of large tensors it shows the pieces that lose most, and says how many it does not.  Of what is
    quantized already it shows the codes and scales that FILE holds, then what formats would make of them.
    page.html#tensor=NAME&at=17,64 opens it at a number.
    """)
    + examples(
        "numerics explore model.safetensors",
        "numerics explore model.safetensors page.html --tensor fc1.weight --at 17",
        "numerics explore report.json --weights model.safetensors",
        "numerics explore fp8_e4m3",
    ),
)
@click.argument("file", type=FILE_OR_FORMAT)
@click.argument("out", type=FILE, required=False)
@click.option(
    "--dtype",
    "dtypes",
    type=HOW,
    multiple=True,
    help="What tensors are shown in, or what a format is beside; also `int4 per_group(32)`; may be repeated; "
    "by default mxfp4, nvfp4, mx6 and int4, of a format those of as many bits.",
)
@click.option(
    "--tensor",
    "names",
    multiple=True,
    type=TensorType("weights", "file"),
    help="Its name; may be repeated; all by default.",
)
@click.option(
    "--weights", type=FILE, help="The checkpoint of a report's model: its tensors go on the page, too."
)
@click.option(
    "--at", multiple=True, type=PLACE, help="A row, as 17, or an index, as 17,64: shown before all others."
)
def explore_command(
    file: str, out: str | None, dtypes: Sequence[Any], weights: str | None, **chosen: Any
) -> None:
    names, at = chosen["names"], list(chosen["at"])
    from numerics.draw.explorer import explore
    from numerics.draw.sources import names_a_file, report_in

    kind, of_format = Path(file).suffix, not names_a_file(file)
    check_inputs(None if of_format else file)
    if weights and kind != ".json":
        raise NumericsError(f"--weights {weights} belongs to a model's report (.json), and {file} is none")
    if names and not weights and (of_format or kind == ".json"):
        raise NumericsError(f"--tensor {names[0]} is of a checkpoint or, with --weights, of a report's model")
    if at and not weights and (of_format or kind == ".json"):
        raise NumericsError(
            f"--at {','.join(map(str, at[0]))} is of a checkpoint or, with --weights, of a report's model"
        )
    d = _format(file) if of_format else None
    out = f"{safe_name(str(d)) if d else Path(file).resolve().stem}.html" if out is None else out
    check_output(out, PAGES, None if d else file, weights)
    if d:
        page = explore(d, list(dtypes) or None)
    elif kind == ".json":
        tensors = _tensors(weights, names) if weights else None
        page = explore(report_in(file), list(dtypes) or None, tensors=tensors, at=at)
    else:
        page = explore(_tensors(file, names), list(dtypes) or None, at=at)
    page.save(out)
    with after(f"{out} is written"):
        tell(f"{out}: {size(len(page.html.encode()))}; open it in a browser", *_left_out(page))


def safe_name(text: str) -> str:
    """A text as the name of a file: in letters, digits and signs that no system and no shell obeys.

    >>> safe_name("fp8_e4m3"), safe_name('a/b "c"'), safe_name("..")
    ('fp8_e4m3', 'a_b_c', 'format')
    """
    return shortened(re.sub(r"\W*[^\w.+-]\W*", "_", text).strip("._"), LONGEST, gap="_") or "format"


def _left_out(page: Page) -> list[str]:
    """Which tensors are not on a page, and why; a line for each reason."""
    return [f"not on it, {why}: {some_of(names, SOME)}" for why, names in page.left_out.items()]


def _format(name: str) -> Dtype:
    try:
        return format_of(name)
    except NumericsError as wrong:
        raise NumericsError(f"{name!r} is no file that is there, and no format: {wrong}") from None


def _tensors(path: str, names: Sequence[str]) -> dict[str, Any]:
    """The tensors of a file, or those of these names."""
    from numerics.draw.sources import everything_in, tensor_in

    if not names:
        return everything_in(path)
    found = dict(tensor_in(path, name) for name in names)
    if len(found) < len(names):
        raise NumericsError(f"--tensor names one tensor twice: {', '.join(names)}")
    return found
