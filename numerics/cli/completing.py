"""What a shell completes: files, formats, rules, words and tensors; and how bash is told of them."""

from __future__ import annotations

import ast
import importlib
import os
import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

from numerics.formats.errors import NumericsError
from numerics.formats.rounding import FULL_RANGE, OVERFLOWS, ROUNDINGS, SCALE_RULES

Completed = list[CompletionItem]
Words = Iterable[str] | Callable[[], Iterable[str]]

SCHEMES = ("per_tensor", "per_channel", "per_token", "per_group", "per_block")


def of(module: str, name: str) -> Callable[[], Iterable[str]]:
    """Returns what gives the words of a module's table; the module is imported where they are asked for."""
    return lambda: getattr(importlib.import_module(module), name)


class FileType(click.ParamType):  # type: ignore[type-arg]  # generic in newer ones
    """A file or folder on the command line: completed by the shell, opened by what it is given to."""

    name = "file"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Completed:
        """The files that the shell finds."""
        return [CompletionItem(incomplete, type="file")]


class WordType(click.ParamType):  # type: ignore[type-arg]  # generic in newer ones
    """A word of a list on the command line: completed here, judged by what it is given to.

    words: the list, or a function that returns it, which is called where a shell asks.
    """

    name = "word"

    def __init__(self, words: Words) -> None:
        self.words = words

    def every(self) -> Iterable[str]:
        """The words of the list."""
        return self.words() if callable(self.words) else self.words

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Completed:
        """The words that begin so."""
        return [CompletionItem(word) for word in self.every() if word.startswith(incomplete)]


def word_option(flag: str, words: Words, default: str, told: str) -> Callable[[Any], Any]:
    """Returns the option of a command that takes a word of a list, one of them by default; told: its help."""
    return click.option(flag, type=WordType(words), default=default, show_default=True, help=told)


class ScaleType(WordType):
    """A number on the command line, or one of some words."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The word, or the number."""
        return value if value in self.every() else click.FLOAT.convert(value, param, ctx)


class TensorType(click.ParamType):  # type: ignore[type-arg]  # generic in newer ones
    """The name of a tensor, or a pattern of names; completed from the file that the command line names.

    of: the parameters that may name the file; the first that does.
    """

    name = "name"

    def __init__(self, *of: str) -> None:
        self.of = of

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Completed:
        """The tensors whose names begin so; none where no file can be read."""
        path = next((ctx.params[name] for name in self.of if ctx.params.get(name)), None)
        names = () if path is None else _tensors(path)
        return [CompletionItem(name) for name in names if name.startswith(incomplete) and name.isprintable()]


class RuleOfType(WordType):
    """A scale rule on the command line: completed with those of the format that it names, else with all."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Completed:
        """The rules that begin so."""
        came = next((ctx.params[name] for name in ("d", "dtype") if ctx.params.get(name)), None)
        own = getattr(getattr(came, "dtype", came), "scale_rules", None)
        return _begun(self.every() if own is None else own, incomplete)


class TargetType(click.ParamType):  # type: ignore[type-arg]  # generic in newer ones
    """A function on the command line, module:function: completed from the files of the current directory.

    Nothing is imported: what a module defines is read from its text.
    """

    name = "target"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Completed:
        """The modules and packages that begin so; behind a colon, what the module defines."""
        module, colon, begun = incomplete.partition(":")
        if colon:
            return [CompletionItem(f"{module}:{name}") for name in _defined(module) if name.startswith(begun)]
        package, dot, last = module.rpartition(".")
        stems = _modules(package.replace(".", os.sep) or ".")
        return [CompletionItem(f"{package}{dot}{stem}") for stem in stems if stem.startswith(last)]


def _modules(folder: str) -> list[str]:
    """What can be imported from a folder: modules with a colon behind them, packages with a dot."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                stem, ending = os.path.splitext(entry.name)
                if ending == ".py" and stem.isidentifier():
                    found.append(f"{stem}:")
                elif entry.name.isidentifier() and os.path.exists(os.path.join(entry.path, "__init__.py")):
                    found.append(f"{entry.name}.")
    except OSError:
        return []
    return found


def _defined(module: str) -> list[str]:
    """What the text of a module defines: functions, classes and values, but those with a line before."""
    path = module.replace(".", os.sep)
    for file in (f"{path}.py", os.path.join(path, "__init__.py")):
        try:
            with open(file, "rb") as text:
                tree = ast.parse(text.read())
        except (OSError, SyntaxError, ValueError):
            continue
        defined = [one.name for one in tree.body
                   if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]  # fmt: skip
        given = [place.id for one in tree.body if isinstance(one, ast.Assign) for place in one.targets
                 if isinstance(place, ast.Name)]  # fmt: skip
        return [name for name in dict.fromkeys([*defined, *given]) if not name.startswith("_")]
    return []


class FileOrFormatType(FileType):
    """A file on the command line, or a format where no file is there."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Completed:
        """The formats that begin so, where something does, and the shell's files."""
        formats = formats_begun(incomplete) if incomplete else []
        return [*formats, *super().shell_complete(ctx, param, incomplete)]


def _tensors(path: str) -> Iterable[str]:
    from numerics.checkpoints.loading import open_any

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the line that is typed is no place for them
            opened = open_any(path, mapped=False)
        return (*opened.names, *opened.ties)
    except (NumericsError, OSError):
        return ()


class RuleType(TensorType):
    """A format, or a rule that gives some tensors one: both as `numerics quantize --dtype` takes them."""

    name = "format"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Completed:
        """The formats that begin as what stands after the pattern, or the schemes after a format; and the
        modules and tensors of the file that begin so, where a pattern can stand.
        """
        from numerics.model.deciding.rules import KEPT

        pattern, equals, what = incomplete.rpartition("=")
        found = [CompletionItem(f"{pattern}{equals}{item.value}", help=item.help)
                 for item in (*(_begun(KEPT, what) if equals else ()), *specs_begun(what))]  # fmt: skip
        if equals or not incomplete:
            return found
        tensors = [item.value for item in super().shell_complete(ctx, param, incomplete)]
        modules = (name.rpartition(".")[0] for name in tensors)
        places = dict.fromkeys([*modules, *tensors])
        return found + [CompletionItem(f"{place}=") for place in places if place.startswith(incomplete)]


class SpecType(click.ParamType):  # type: ignore[type-arg]  # generic in newer ones
    """A format, and a scheme after a blank; or the name of a plain type."""

    name = "format"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> Completed:
        """The formats and types that begin so, or the schemes after a format."""
        return [*_begun(("float32",), incomplete), *specs_begun(incomplete)]


def _begun(words: Iterable[str], incomplete: str) -> Completed:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def specs_begun(text: str) -> Completed:
    """The formats that begin so; after a format and a blank or a colon, the schemes."""
    match = re.fullmatch(r"(?P<said>[^{]*\w[ :])(?P<scheme>\w*)", text)
    if match is None:
        return formats_begun(text)
    return [CompletionItem(match["said"] + item.value) for item in _begun(SCHEMES, match["scheme"])]


def formats_begun(incomplete: str) -> Completed:
    """The formats whose names begin so, in any case; and what else those are called that do not.

    >>> [item.value for item in formats_begun("e5m")]
    ['E5M2']
    """
    from numerics.formats import dtypes
    from numerics.formats.p3109 import begun as p3109_begun

    found, begun = list[CompletionItem](), incomplete.lower()
    for d in dtypes():
        names = [d.name] if d.name.startswith(begun) else [
            alias for alias in d.aliases if alias.lower().startswith(begun) and not re.search(r"[\s:]", alias)
        ]  # fmt: skip
        found += [CompletionItem(name, help=d.source if name == d.name else d.name) for name in names]
    return found + [CompletionItem(name, help="IEEE P3109") for name in p3109_begun(incomplete)]


FILE, FILE_OR_FORMAT = FileType(), FileOrFormatType()
TARGET = TargetType()
RULE, SPEC = RuleType("model", "file"), SpecType()
ROUNDING, OVERFLOW, SCALE_RULE = WordType(ROUNDINGS), WordType(OVERFLOWS), RuleOfType(SCALE_RULES)
SCALE_RULE_OF_ALL = RuleOfType((*SCALE_RULES, FULL_RANGE))
SCHEME = WordType(SCHEMES)
OBSERVER = WordType(of("numerics.observe", "OBSERVERS"))
DEVICE = WordType(of("numerics.backends.ipu.devices", "DEVICES"))


# ---- shells -------------------------------------------------------------------------------------


class _Whole(ShellComplete):
    """What click knows of a shell, and that an option's value may stand behind a blank or an `=`.

    click reads no argument before an option whose value is not there yet, nor gives back what stands before
    an `=`.
    """

    def get_completions(self, args: list[str], incomplete: str) -> Completed:
        """What may stand there, as the whole word."""
        if args and re.fullmatch(r"--\w[^=]*", args[-1]):
            return super().get_completions(args[:-1], f"{args[-1]}={incomplete}")
        found, option = super().get_completions(args, incomplete), re.match(r"--\w[^=]*=", incomplete)
        return found if option is None else [one for item in found for one in self.whole(option[0], item)]

    def whole(self, option: str, item: CompletionItem) -> Completed:
        """The completion of an option's value with the option before it, a file's too."""
        values = _files(item.value) if item.type == "file" else [item.value]
        return [CompletionItem(option + value, help=item.help) for value in values]


def _files(begun: str) -> list[str]:
    """The files whose paths begin so; folders end with a slash."""
    folder, name = os.path.split(begun)
    place = os.path.expanduser(folder) or "."
    try:
        entries = sorted(os.listdir(place))
    except OSError:
        return []
    return [
        os.path.join(folder, entry) + "/" * os.path.isdir(os.path.join(place, entry))
        for entry in entries
        if entry.startswith(name) and (name or not entry.startswith("."))
    ]


@add_completion_class
class Zsh(_Whole, ZshComplete):
    """Completion in zsh, as click has it."""


@add_completion_class
class Fish(_Whole, FishComplete):
    """Completion in fish, as click has it."""


@add_completion_class
class Bash(_Whole, BashComplete):
    """Completion in bash, which cuts words at `=` and `:` and wants only what stands after the last cut.

    So the line comes whole, up to the cursor, and what bash takes for the word beside it.  Files are
    completed by bash's own means, unless other words can stand there, too.
    """

    name = "bash"
    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' item files
    COMPREPLY=()
    for item in $(env %(complete_var)s=bash_complete COMP_WORDS="${COMP_LINE:0:COMP_POINT}" \\
            COMP_WORD="${COMP_WORDS[COMP_CWORD]}" "$1"); do
        case $item in
            file,*) files=${item#file,} ;;
            dir,*) compopt -o dirnames ;;
            plain,*[=:.]) compopt -o nospace; COMPREPLY+=("${item#plain,}") ;;
            plain,*) COMPREPLY+=("${item#plain,}") ;;
        esac
    done
    if [[ -v files && ${#COMPREPLY[@]} -eq 0 ]]; then
        compopt -o default
    elif [[ -v files ]]; then
        compopt -o filenames
        COMPREPLY+=($(compgen -f -- "$files"))
    fi
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the cursor, and the one at it."""
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)
        ended = line[-1:].isspace() and split_arg_string(f"{line}.")[-1:] == ["."]
        return (words[1:], "") if ended or len(words) < 2 else (words[1:-1], words[-1])

    def get_completions(self, args: list[str], incomplete: str) -> Completed:
        """What may stand there, without what bash has cut off."""
        found = super().get_completions(args, incomplete)
        word = os.environ.get("COMP_WORD", incomplete)
        self.quoted = word[:1] in ("'", '"')
        seen = "" if word in ("=", ":") else "".join(split_arg_string(word)[:1])
        cut = incomplete[: len(incomplete) - len(seen)] if incomplete.endswith(seen) else ""
        for item in found:
            item.value = item.value.removeprefix(cut) if item.type == "plain" else item.value
        return found

    def whole(self, option: str, item: CompletionItem) -> Completed:
        """The completion of an option's value; files are bash's own."""
        return [item] if item.type == "file" else super().whole(option, item)

    def format_completion(self, item: CompletionItem) -> str:
        """The kind of a completion and its text, spelled so that bash reads it as one word."""
        plain = item.type == "plain" and not self.quoted
        value = re.sub(r"([^\w@%+=:,./-])", r"\\\1", item.value) if plain else item.value
        return f"{item.type},{value}"
