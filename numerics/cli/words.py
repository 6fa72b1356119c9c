"""What commands share: options that many take, and errors in the command line's own words."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import click

from numerics.formats.errors import NumericsError

Command = Callable[..., None]
QUOTED = r"(?<!\w)'[^']*'|(?<!\w)\"[^\"]*\"|[\w.]+\([^()]*\)"  # what came, and calls: they stay as they are
ARGUMENT = r"(?<![\w/.-])(?P<name>symmetric=False|\w+)(?P<given>=(?P<value>(?=[\w'\"(\[-]))?)?"
WORDS = re.compile(f"{QUOTED}|{ARGUMENT}")

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quietly = click.option("--quiet", is_flag=True, help="Print nothing but errors.")
seeded = click.option("--seed", type=int, help="For --rounding stochastic.")


def check_seed(rounding: str, seed: int | None) -> None:
    """Raises NumericsError where --rounding and --seed do not belong together."""
    if rounding == "stochastic" and seed is None:
        raise NumericsError("--rounding stochastic draws at random: give --seed N, which can be repeated")
    if rounding != "stochastic" and seed is not None:
        raise NumericsError(f"--seed belongs to --rounding stochastic, not to {rounding}")


def json_of(said: Any) -> str:
    """JSON that holds no character which a terminal would obey."""
    from numerics.view.describe import plain

    return json.dumps(plain(said), indent=1, allow_nan=False).replace("\x7f", "\\u007f")


def in_options(said: str, group: click.Group, arguments: Sequence[str]) -> str:
    """An error of the library with its arguments spelled as the options of the command that was asked.

    An argument is `name=`, and a name with an underscore, which is no word of a sentence; others stay.

    >>> import click
    >>> option = click.Option(["--scale-rule"])
    >>> group = click.Group(commands={"quantize": click.Command("quantize", params=[option])})
    >>> in_options("mx6: scale_rule='even' is for MX formats", group, ["quantize", "--dtype", "mx6"])
    "mx6: --scale-rule 'even' is for MX formats"
    """
    options = _options(group, arguments)

    def spelled(found: re.Match[str]) -> str:
        name = found["name"] or ""
        option = options.get(name)
        if option is None or any(f"{name}=" in argument for argument in arguments):
            return found[0]  # it may be a path that the error repeats
        if not (found["given"] or "_" in name or "=" in name):
            return found[0]
        return option if found["value"] is None else f"{option} "

    return WORDS.sub(spelled, said)


def _options(command: click.Command, arguments: Sequence[str]) -> dict[str, str]:
    """The options of the command that the arguments begin with, by the names of their values."""
    words = [word for word in arguments if not word.startswith("-")]
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    found = {option.name: max(option.opts, key=len) for option in options if option.name}
    return found | ({"symmetric=False": found["asymmetric"]} if "asymmetric" in found else {})


def usage(wrong: click.ClickException) -> str:
    """What click says of wrong usage, to the end of its last line."""
    said = io.StringIO()
    wrong.show(said)
    return said.getvalue().rstrip("\n")
