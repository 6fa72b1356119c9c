"""A hook of mkdocs: the page of every public name, written from the docstrings when the site is built."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import numerics as nx
from numerics.formats import Dtype

MODULES = ("conform", "draw", "interop", "ipu", "layouts", "observe", "train", "vocabulary")
PAGE = "reference.md"


def names() -> Iterator[tuple[str, Any]]:
    """Every public name and what it stands for, those of the modules after their modules."""
    yield from ((name, getattr(nx, name)) for name in sorted(dir(nx)) if name in {*nx.__all__, *MODULES})
    for module in MODULES:
        found = getattr(nx, module)
        for name in sorted(getattr(found, "__all__", [])):
            yield f"{module}.{name}", getattr(found, name)


def page() -> str:
    """The page: formats as a table, then each name with its signature and docstring."""
    every = list(names())
    formats = [thing for _, thing in every if isinstance(thing, Dtype)]
    rows = "\n".join(f"| `nx.{d}` | {d.kind} | {d.bits:g} | {d.source} |" for d in formats)  # type: ignore[attr-defined]
    parts = [
        f"# Every public name\n\n## Formats\n\n| name | kind | bits | source |\n|---|---|---|---|\n{rows}\n"
    ]
    for name, thing in every:
        if not isinstance(thing, (Dtype, str)):
            parts.append(f"## nx.{name}\n\n{_signature(name, thing)}{_fenced(inspect.getdoc(thing) or '')}\n")
            parts += [f"### nx.{name}.{own}\n\n{_fenced(text)}\n" for own, text in _members(thing)]
    return "\n".join(parts)


def _signature(name: str, thing: Any) -> str:
    try:
        said = str(inspect.signature(thing))
    except (TypeError, ValueError):
        return ""
    said = re.sub(r"<([^<> ]+)[^<>]*>", r"\1", said)
    return f"```text\nnx.{name}{said}\n```\n\n"


def _members(thing: Any) -> Iterator[tuple[str, str]]:
    """The public methods and properties of a class of ours that have a docstring of their own."""
    if not inspect.isclass(thing) or not thing.__module__.startswith("numerics"):
        return
    for own, member in vars(thing).items():
        told = inspect.getdoc(member) if callable(member) or isinstance(member, property) else None
        if told and not own.startswith("_"):
            yield own, told


def _fenced(text: str) -> str:
    """A docstring as Markdown: examples as code, lists of options as they stand."""
    found: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        if block.lstrip().startswith(">>>"):
            found.append(f"```pycon\n{inspect.cleandoc(block)}\n```")
        elif re.search(r"^ {2,}\S", block, re.M) or re.search(r"^\w[\w, ]*:", block, re.M):
            found.append(f"```text\n{block}\n```")
        else:
            found.append(block.replace("<", "&lt;").replace("*", "\\*"))
    return "\n\n".join(found)


def on_files(files: Any, config: Any) -> Any:
    """Puts the page among those of the site."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, PAGE, content=page()))
    return files
