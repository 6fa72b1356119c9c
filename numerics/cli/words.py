"""What commands share: options that many take, and errors in the command line's own words."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from click.shell_completion import CompletionItem

from numerics.cli.completing import formats_begun, specs_begun
from numerics.formats.arguments import MEANT, MissingArgument, UnknownArgument, listed
from numerics.formats.dtype import Dtype
from numerics.formats.errors import NumericsError, hint, nearest, not_a_file, said
from numerics.view.screen import deliver, say_beside, say_error

SHOWN = 10  # formats of a module, where none of them is the one that was named
Command = Callable[..., None]
INSIDE = r"(?:[^()]|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))*"  # brackets in brackets, as reprs have them
QUOTED = rf"(?<!\w)'[^']*'|(?<!\w)\"[^\"]*\"|[\w.]+\({INSIDE}\)"  # what came, calls and reprs: they stay
ARGUMENT = r"(?<![\w/.-])(?P<name>symmetric=False|\w+=True|\w+)(?P<given>=(?P<value>(?=[\w'\"(\[-]))?)?"
PICTURE = re.compile(r"\bnx\.draw\.(\w+)\b(?!\()")  # a picture of the library, which is a command too
WORDS = re.compile(f"{QUOTED}|{ARGUMENT}")

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quietly = click.option("--quiet", is_flag=True, help="Print nothing but errors.")
quietly_or_json = click.option(
    "--quiet", is_flag=True, help="Print nothing but errors, and JSON where that is asked for."
)
seeded = click.option("--seed", type=int, help="For --rounding stochastic.")


def examples(*lines: str) -> str:
    """Examples below the help of a command, a line each, which click leaves as they are.

    >>> examples("numerics formats")
    '\\n\\n\\x08\\nExamples:\\n  numerics formats'
    """
    return "\n\n\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


class FormatType(click.ParamType):  # type: ignore[type-arg]  # generic in newer ones
    """A format on the command line: a name, `module:name`, or facts as JSON; completed by name."""

    name = "format"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Dtype:
        """The format that was asked for; NumericsError says what is wrong with it."""
        return format_of(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names of formats that begin so, in any case."""
        return formats_begun(incomplete)


class ClaimType(FormatType):
    """A format, or a text of one with options behind it, which `check` reads."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The format, or the text."""
        text = value.strip() if isinstance(value, str) else ""
        return text if " " in text and not text.startswith("{") else super().convert(value, param, ctx)


class HowType(FormatType):
    """A format on the command line, or one with a scheme and options behind it: `int4 per_group(32)`.

    It becomes a QuantSpec where it says more than a format.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The format or the QuantSpec that was asked for; NumericsError says what is wrong with it."""
        from numerics.tensor.spec import QuantSpec
        from numerics.tensor.words import words_in

        words = words_in(value)
        if words is None:
            return super().convert(value, param, ctx)
        return QuantSpec(**{**words, "dtype": format_of(words["dtype"])})

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names of formats that begin so; after a format and a blank, the schemes."""
        return specs_begun(incomplete)


FORMAT, CLAIMED, HOW = FormatType(), ClaimType(), HowType()
FORMAT_OR_HOW = "The format, alone or with a scheme and options behind it: 'int4 per_group(32)'."


def with_options(command: Command, options: Sequence[Callable[[Any], Any]]) -> Command:
    """A command with these options, in their order."""
    for option in reversed(options):
        command = option(command)
    return command


def format_of(text: Any) -> Dtype:
    """The format of a word of the command line.

    text: a name, as `nx.dtype` takes it; that of a format of IEEE P3109, as binary8p3se; `module:name` of a
    format of yours, looked for in the current directory too; or JSON of its facts, as nx.float_format,
    nx.integer_format, nx.codebook_format and nx.block_format take them, whose element and scale are such
    words again; {"p3109": [8, 3]} is binary8p3se.

    >>> format_of("e4m3"), format_of('{"exponent": 5, "mantissa": 3, "signed": false}').bits
    (fp8_e4m3, 8)
    >>> format_of('{"block": 16, "element": "binary6p3se"}'), format_of('{"p3109": [8, 3]}')
    (block16_binary6p3se_e8m0, binary8p3se)
    """
    from numerics.formats import dtype
    from numerics.formats.p3109 import called

    if isinstance(text, str) and (made := called(text)) is not None:
        return made
    if not isinstance(text, str) or not (":" in text or text.lstrip().startswith("{")):
        return dtype(text)
    return _of_facts(text) if text.lstrip().startswith("{") else _of_module(text)


def _of_module(text: str) -> Dtype:
    from numerics.conform.targets.returned import Raised, guarded

    module, _, name = text.partition(":")
    if not (name and all(part.isidentifier() for part in module.removesuffix(".py").split("."))):
        raise NumericsError(
            f"format {said(text)} is no module:name, as in mypkg.formats:e5m3, nor JSON of a format's facts"
        )
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        inside = vars(guarded(lambda: importlib.import_module(module)))
    except Raised as wrong:  # whatever somebody's module does when it is imported
        raise NumericsError(f"format {text}: {wrong}{not_a_file(module, name)}") from None
    found = inside.get(name)
    if isinstance(found, Dtype):
        return found
    formats = [own for own, thing in inside.items() if isinstance(thing, Dtype)]
    what = f" it is {said(found)};" if name in inside else hint(name, formats)
    known = f"it has {', '.join(formats[:SHOWN])}" if formats else "it has none at all"
    raise NumericsError(f"format {text}: {module} has no format {name!r};{what} {known}")


def _of_facts(text: str) -> Dtype:
    from numerics.formats import blocks, codebooks, floats, integers
    from numerics.formats.text import dtype_of, facts_in

    facts = facts_in(text, "a format")
    if list(facts) == ["p3109"]:
        return _of_p3109(facts["p3109"], text)
    if "kind" in facts:
        return dtype_of(facts)
    makers: dict[str, Any] = {
        "block": blocks.block_format, "exponent": floats.float_format, "bits": integers.integer_format,
        "values": codebooks.codebook_format,
    }  # fmt: skip
    maker = next((made for fact, made in makers.items() if fact in facts), None)
    if maker is None:
        near = "".join(dict.fromkeys(hint(fact, (*makers, "mantissa")) for fact in facts))
        raise NumericsError(
            f"{said(text)} describes no format;{near} a float has exponent and mantissa, an integer bits, a "
            "codebook values, a block format block with element or mantissa, one of IEEE P3109 "
            "p3109, as [8, 3]"
        )
    nested = {name: _inner(name, fact) for name, fact in facts.items()}
    try:
        made: Dtype = maker(**nested)
    except UnknownArgument as wrong:  # which says what is allowed
        raise NumericsError(f"{said(text)} describes no format: {wrong}") from None
    except MissingArgument as wrong:
        taken = ", ".join(inspect.signature(maker).parameters)
        raise NumericsError(
            f"{said(text)} describes no format: it needs {listed(wrong.names)}; allowed: {taken}"
        ) from None
    except TypeError as wrong:
        taken = ", ".join(inspect.signature(maker).parameters)
        raise NumericsError(f"{said(text)} describes no format: {wrong}; allowed: {taken}") from None
    return made


def _inner(name: str, fact: Any) -> Any:
    """A fact, which may be a format itself: JSON within JSON, or a name as the command line takes it."""
    if isinstance(fact, dict):
        return format_of(json.dumps(fact))
    return format_of(fact) if name in ("element", "scale", "integers") and isinstance(fact, str) else fact


def _of_p3109(numbers: Any, text: str) -> Dtype:
    """The format of IEEE P3109 with these bits and this precision; or with its facts by name."""
    from numerics.formats.p3109 import p3109

    if isinstance(numbers, dict):
        return p3109(**numbers)
    if isinstance(numbers, list) and len(numbers) == 2:
        return p3109(*numbers)
    raise NumericsError(
        f"{said(text)} describes no format: p3109 is [bits, precision], as [8, 3], or an object of bits, "
        "precision, signed and extended"
    )


def check_seed(rounding: str, seed: int | None) -> None:
    """Raises NumericsError where --rounding and --seed do not belong together."""
    if rounding == "stochastic" and seed is None:
        raise NumericsError("--rounding stochastic draws at random: give --seed N, which can be repeated")
    if rounding != "stochastic" and seed is not None:
        raise NumericsError(f"--seed belongs to --rounding stochastic, not to {rounding}")


WORST = 20  # tensors of which a terminal shows a line where it is not asked for all
every_line = click.option(
    "--all", "every", is_flag=True,
    help=f"A line for every tensor; by default a terminal gets the {WORST} that lost most, and a plan in "
    "which those alike share a line.",
)  # fmt: skip


def worst(rows: list[Any], every: bool) -> tuple[list[Any], list[str]]:
    """Of rows that are worst first all or the first, and the line that says how many are left out."""
    more = 0 if every else max(len(rows) - WORST, 0)
    return (rows[:WORST], [f"and {more} more that lost less; --all shows them"]) if more else (rows, [])


def json_of(said: Any) -> str:
    """JSON that holds no character which a terminal would obey."""
    from numerics.view.describe import plain

    return json.dumps(plain(said), indent=1, allow_nan=False).replace("\x7f", "\\u007f")


class OfText(NumericsError):
    """An error about a text that was given, whose names are that text's and no options."""


@contextmanager
def of_text() -> Iterator[None]:
    """Errors inside are about a text: a rule, a plan, facts of a format."""
    try:
        yield
    except NumericsError as wrong:
        raise OfText(str(wrong)) from wrong


def in_options(said: str, group: click.Group, arguments: Sequence[str]) -> str:
    """An error of the library with its arguments spelled as the options of the command that was asked.

    An argument is `name=`, and a name with an underscore, which is no word of a sentence; others stay.

    >>> import click
    >>> option = click.Option(["--scale-rule"])
    >>> group = click.Group(commands={"quantize": click.Command("quantize", params=[option])})
    >>> in_options("mx6: scale_rule='even' is for MX formats", group, ["quantize", "--dtype", "mx6"])
    "mx6: --scale-rule 'even' is for MX formats"
    >>> in_options("Made(int4, (2, (3,)), scale_rule='even') has its scale_rule", group, ["quantize"])
    "Made(int4, (2, (3,)), scale_rule='even') has its --scale-rule"
    >>> in_options("nx.draw.block shows how it rounds", group, ["plot"])
    '`numerics plot block` shows how it rounds'
    """
    options = _options(group, arguments)
    said = said.replace("nx.observe has", "--observer has") if "observer" in options else said
    said = PICTURE.sub(r"`numerics plot \1`", said)

    def spelled(found: re.Match[str]) -> str:
        name = found["name"] or ""
        option = options.get(name)
        if option is None or any(f"{name.partition('=')[0]}=" in argument for argument in arguments):
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
    found: dict[str, str] = {}
    for option in options:
        spelled = max(option.opts, key=len)
        own = spelled.removeprefix("--").replace("-", "_")
        names = [option.name or own, own]
        names += [f"{own}=True"] * option.is_flag + [f"{own}s"] * option.multiple
        found |= dict.fromkeys(names, spelled)
    others = {"asymmetric": "symmetric=False", "op": "kind"}  # as the library calls what they say
    return found | {name: found[own] for own, name in others.items() if own in found}


def say_usage(wrong: click.ClickException) -> None:
    """Says what click says of wrong usage in one line on standard error; the help where nothing was asked."""
    if isinstance(wrong, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # older ones have none
        say_beside(wrong.format_message())
    else:
        say_error(usage(wrong))


def usage(wrong: click.ClickException) -> str:
    """What click says of wrong usage: what is wrong, and what is due.

    >>> with click.Context(click.Command("show"), info_name="show") as context:
    ...     usage(click.UsageError("No such option '--x'.", context))
    "No such option '--x'. Usage: show [OPTIONS]; --help says more"
    """
    context, said = getattr(wrong, "ctx", None), wrong.format_message()
    if context is None:
        return said
    if isinstance(wrong, click.NoSuchOption):
        said = no_such_option(wrong.option_name, context.command)
    said += "" if said.endswith((".", "?", "?)")) else "."
    if said.startswith("No such command"):
        said = no_such_command(said, context)
        said += f" Allowed: {', '.join(sorted(getattr(context.command, 'commands', ())))}."
    return f"{said} {' '.join(context.get_usage().split())}; --help says more"


WANTED = {
    "decode": "`numerics show FORMAT` has the value of every code, and nx.FORMAT.decode(codes) decodes",
    "round": "`numerics encode FORMAT VALUES` shows what becomes of numbers",
    "list": "`numerics formats` lists them",
    "info": "`numerics show FORMAT` is of formats, `numerics inspect MODEL` of files",
    "version": "`numerics --version` shows it",
    "diff": "`numerics compare` shows what differs",
    "check": "`numerics conform` judges a kernel, `numerics inspect` says what is odd in a file",
    "test": "`numerics conform` judges a kernel, `numerics verify` proves our own",
    "draw": "`numerics plot` draws",
    "view": "`numerics explore` makes a page of a file",
    "export": "`numerics ipu export` and `numerics convert` write other kinds of files",
}
"""Commands that there are not, and which one does what they say."""


def no_such_command(said: str, context: click.Context) -> str:
    """What is said of a command that there is not: the one that does it, where click names the most alike.

    >>> with click.Context(click.Group("numerics"), info_name="numerics") as context:
    ...     no_such_command("No such command 'help'.", context)
    "No such command 'help': `numerics --help` and `numerics COMMAND --help` are the help."
    """
    name = said.split("'")[1] if "'" in said else ""
    way = "" if context.parent else WANTED.get(name, "")
    if name == "help":
        path = context.command_path
        way = f"`{path} --help` and `{path} COMMAND --help` are the help"
    return f"No such command {name!r}: {way}." if way else said


def no_such_option(text: str, command: click.Command) -> str:
    """What is said of an option that a command does not have: what others call so, else the nearest name.

    >>> no_such_option("--bits", click.Command("quantize", params=[click.Option(["--dtype"])]))
    "No such option '--bits': --dtype takes the name of a format, which says how many bits it has."
    >>> no_such_option("--sead", click.Command("encode", params=[seeded(lambda: None).__click_params__[0]]))
    "No such option '--sead'; did you mean '--seed'?"
    """
    name = text.partition("=")[0].lstrip("-").replace("-", "_")
    options = [option for one in command.params for option in one.opts if option.startswith("--")]
    spelled = {option[2:].replace("-", "_"): option for option in options}
    option, way = MEANT.get(name.lower(), ("", ""))
    if option in spelled and option == "dtype":
        return f"No such option {text!r}: {way.replace('dtype=', '--dtype')}."
    if option == "dtype" and any(one.name == "d" for one in command.params):
        return f"No such option {text!r}: FORMAT says how many bits it has."
    near = nearest(name, spelled)
    return f"No such option {text!r}" + (f"; did you mean {spelled[near]!r}?" if near else ".")


def _say_help(context: click.Context, option: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        deliver(f"{context.get_help()}\n")
        context.exit()


def with_help(command: click.Command) -> None:
    """Gives a command and all below it a --help that is delivered as answers are, not lost on a pipe."""
    command.params.append(click.Option(["-h", "--help"], is_flag=True, is_eager=True, expose_value=False,
                                       callback=_say_help, help="Show this message and exit."))  # fmt: skip
    for below in getattr(command, "commands", {}).values():
        with_help(below)


@contextmanager
def stoppable(out: str, quiet: bool = False) -> Iterator[None]:
    """Whoever stops what is done inside reads what became of the output, where nobody else says it.

    A folder's journal does, as soon as a shard is done.  Of a file that was there and is another one
    afterwards it is said that it was replaced, but to who wants it quiet.
    """
    before = _file_at(out)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stopped:
        if not getattr(stopped, "__notes__", ()):
            stopped.add_note(f"stopped: nothing new is kept in {out}; the same command begins again")
        raise
    if not quiet and before is not None and before != _file_at(out):
        say_beside(f"the file that was {out} is replaced")


def _file_at(path: str) -> tuple[int, int] | None:
    """Which file lies there; None for none, and for whatever else."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def say_kept(shards: int) -> None:
    """Says of a job that went on what it found done, where that is anything."""
    if shards:
        say_beside(f"shards that were done before and are kept: {shards}")
