"""A format as JSON: the facts that it was declared with, from which it is made again."""

from __future__ import annotations

import json
from dataclasses import fields
from functools import lru_cache
from typing import Any

from numerics.formats import aliases
from numerics.formats.block import Block
from numerics.formats.dtype import Dtype, Float, Integer, intern
from numerics.formats.errors import NumericsError

LONGEST = 10_000  # characters of a format or a recipe as a text
KINDS = {"integer": Integer, "float": Float, "block": Block}


def facts_of(d: Dtype) -> dict[str, Any]:
    """A format as JSON: the facts that it was declared with, and its kind."""
    facts = {f.name: getattr(d, f.name) for f in fields(d) if f.init and f.name != "source"}
    nested = {name: facts_of(value) for name, value in facts.items() if isinstance(value, Dtype)}
    return {"kind": d.kind, **facts, **nested}


_TYPES: dict[str, tuple[type, ...]] = {"Specials": (str,), "Element": (dict,), "Float": (dict,)}
_TYPES |= {kind.__name__: (kind,) for kind in (bool, int, str)}


def dtype_of(said: Any) -> Dtype:
    """The format with those facts: the table's own where it has it, else a declared one.

    Facts that only equal others (12.0, True for 1) would stand for them wherever the format is asked for
    again: raises NumericsError for facts of another type, for more or fewer facts, and for no format.

    >>> from numerics.formats import float_format, mx6
    >>> dtype_of(facts_of(mx6)) is mx6, dtype_of(facts_of(float_format(3, 2))) is float_format(3, 2)
    (True, True)
    """
    if not isinstance(said, dict):
        raise NumericsError(f"{said!r} does not describe a format: its facts are due, by name")
    kind = KINDS[said["kind"]]
    facts = {key: value for key, value in said.items() if key != "kind"}
    due = {f.name: str(f.type) for f in fields(kind) if f.init and f.name != "source"}
    if facts.keys() != due.keys():
        raise NumericsError(
            f"a format of kind {said['kind']} has the facts {', '.join(due)}, not {list(facts)}"
        )
    for name, value in facts.items():
        optional, _, _ = due[name].partition(" | None")
        if type(value) not in _TYPES[optional] and not (value is None and optional != due[name]):
            raise NumericsError(f"{name}={value!r} is not a fact of a format; due: {due[name]}")
    for known in aliases.dtypes():
        if known.name == said["name"] and facts_of(known) == said:
            return known
    facts = {name: dtype_of(value) if isinstance(value, dict) else value for name, value in facts.items()}
    try:
        made = kind(**facts)
    except OverflowError as wrong:
        raise NumericsError(f"{said['name']!r} is no format: {wrong}") from None
    return intern(kind, tuple((f.name, getattr(made, f.name)) for f in fields(kind)))


def spelled(d: Dtype) -> str | dict[str, Any]:
    """The shortest that `read` takes back: the name of a format of the tables, else its facts.

    >>> from numerics.formats import mx6
    >>> spelled(mx6), read("mx6") is mx6
    ('mx6', True)
    """
    return d.name if any(d is known for known in aliases.dtypes()) else facts_of(d)


def read(said: str | dict[str, Any]) -> Dtype:
    """The inverse of `spelled`."""
    return aliases.dtype(said) if isinstance(said, str) else dtype_of(said)


def text_of(d: Dtype) -> str:
    """`spelled` as one string, made once: an operator's argument, a constant for torch.compile."""
    return _text(d)


@lru_cache(maxsize=1024)
def _text(d: Dtype) -> str:
    said = spelled(d)
    return said if isinstance(said, str) else json.dumps(said)


@lru_cache(maxsize=1024)
def parse(text: str) -> Dtype:
    """The inverse of `text_of`; raises NumericsError for another text."""
    if not text.startswith("{"):
        return aliases.dtype(text)
    try:
        return dtype_of(facts_in(text, "a format"))
    except (KeyError, TypeError) as wrong:
        raise NumericsError(f"{text!r} does not describe a format: {wrong!r}") from wrong


def facts_in(text: str, what: str) -> dict[str, Any]:
    """The JSON object in a text of our own; raises NumericsError where there is none, or a longer one."""
    try:
        if not isinstance(text, str) or len(text) > LONGEST:
            raise ValueError(f"at most {LONGEST} characters are allowed")
        said = json.loads(text)
        if isinstance(said, dict):
            return said
        raise ValueError("it is no JSON object")
    except (ValueError, RecursionError) as wrong:
        raise NumericsError(f"{text!r} does not describe {what}: {wrong}") from wrong
