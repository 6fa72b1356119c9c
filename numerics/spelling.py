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

KINDS = {"integer": Integer, "float": Float, "block": Block}


def facts_of(d: Dtype) -> dict[str, Any]:
    """A format as JSON: the facts that it was declared with, and its kind."""
    facts = {f.name: getattr(d, f.name) for f in fields(d) if f.init and f.name != "source"}
    nested = {name: facts_of(value) for name, value in facts.items() if isinstance(value, Dtype)}
    return {"kind": d.kind, **facts, **nested}


def dtype_of(said: dict[str, Any]) -> Dtype:
    """The format with those facts: the table's own where it has it, else a declared one.

    >>> from numerics.formats import float_format, mx6
    >>> dtype_of(facts_of(mx6)) is mx6, dtype_of(facts_of(float_format(3, 2))) is float_format(3, 2)
    (True, True)
    """
    for known in aliases.dtypes():
        if known.name == said["name"] and facts_of(known) == said:
            return known
    kind = KINDS[said["kind"]]
    facts = {key: dtype_of(value) if isinstance(value, dict) else value for key, value in said.items()}
    del facts["kind"]
    made = kind(**facts)
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
        return dtype_of(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as wrong:
        raise NumericsError(f"{text!r} does not describe a format: {wrong}") from wrong
