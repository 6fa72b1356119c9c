"""A format as JSON: the facts that it was declared with, from which it is made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, lru_cache
from inspect import signature
from typing import Any, Final

from numerics.formats import registry
from numerics.formats.block import Block
from numerics.formats.codebook import Codebook
from numerics.formats.dtype import NO_FACTS, Dtype, Float, Integer, with_later
from numerics.formats.errors import NumericsError, said, text_in

LONGEST = 10_000  # characters of a format or a recipe as a text
KINDS: dict[str, type[Dtype]] = {"integer": Integer, "float": Float, "codebook": Codebook, "block": Block}
LATER: Final = {"narrow": False, "integers": None, "step": None, "tiers": None, "scaled_to": ""}
"""Facts that files of before do not say, and what they are there."""


def facts_of(d: Dtype) -> dict[str, Any]:
    """A format as JSON: the facts that it was declared with, and its kind."""
    facts = {name: getattr(d, name, None) for name in _facts_of(KINDS[d.kind])}
    facts = {name: fact for name, fact in facts.items() if name not in LATER or fact != LATER[name]}
    nested = {name: facts_of(value) for name, value in facts.items() if isinstance(value, Dtype)}
    return {"kind": d.kind, **facts, **nested}


def dtype_of(described: Any) -> Dtype:
    """The format with those facts: the table's own where it has it, else a declared one.

    Facts that only equal others (12.0, True for 1) would stand for them wherever the format is asked for
    again: raises NumericsError for facts of another type, for more or fewer facts, and for no format.

    >>> from numerics.formats import float_format, mx6
    >>> dtype_of(facts_of(mx6)) is mx6, dtype_of(facts_of(float_format(3, 2))) is float_format(3, 2)
    (True, True)
    """
    kind = KINDS.get(str(described.get("kind"))) if isinstance(described, dict) else None
    if kind is None:
        raise NumericsError(
            f"{said(described)} does not describe a format: its facts are due by name, and its kind: "
            f"{', '.join(KINDS)}"
        )
    facts = {name: value for name, value in described.items() if name != "kind"}
    due = _facts_of(kind)
    if not set(due) - LATER.keys() <= facts.keys() <= set(due):
        unknown, missing = ([*facts.keys() - set(due)], [n for n in due if n not in {*LATER, *facts}])
        parts = [f"{said(sorted(unknown, key=str))} are none of them"] * bool(unknown)
        parts += [f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"] * bool(missing)
        raise NumericsError(
            f"a format of kind {described['kind']} has the facts {', '.join(due)}; {', '.join(parts)}"
        )
    facts = {name: dtype_of(value) if isinstance(value, dict) else value for name, value in facts.items()}
    made: Dtype = kind(**with_later(kind, facts))
    return made


@cache
def _facts_of(kind: type[Dtype]) -> list[str]:
    """The facts that formats of a kind are declared with; a block format says null of those it has not."""
    return [name for name in signature(kind).parameters if name not in NO_FACTS]


def spelled(d: Dtype) -> str | dict[str, Any]:
    """The shortest that `read` takes back: the name of a format of the tables, else its facts.

    >>> from numerics.formats import mx6
    >>> spelled(mx6), read("mx6") is mx6
    ('mx6', True)
    """
    return d.name if any(d is known for known in registry.dtypes()) else facts_of(d)


def read(said: str | dict[str, Any]) -> Dtype:
    """Returns the format of a text that `spelled` made."""
    return registry.dtype(said) if isinstance(said, str) else dtype_of(said)


def text_of(d: Dtype) -> str:
    """`spelled` as one string, made once: an operator's argument, a constant for torch.compile."""
    return _text(d)


@lru_cache(maxsize=1024)
def _text(d: Dtype) -> str:
    said = spelled(d)
    return said if isinstance(said, str) else json.dumps(said)


@lru_cache(maxsize=1024)
def parse(text: str) -> Dtype:
    """Returns the format of a text that `text_of` made; raises NumericsError for another text."""
    if not text.startswith("{"):
        return registry.dtype(text)
    return dtype_of(facts_in(text, "a format"))


def json_in(text: str | bytes) -> Any:
    """What a text of JSON says; raises ValueError for one that is none, or nested too deep.

    >>> json_in('{"bits": 4}')
    {'bits': 4}
    """
    return parsed_by(json.loads, text)


def parsed_by(parse: Callable[[Any], Any], text: str | bytes) -> Any:
    """What a parser makes of a text; raises ValueError, as parsers do, for one that is nested too deep."""
    try:
        return parse(text)
    except RecursionError:
        raise ValueError("too many brackets in each other") from None


def facts_in(text: str, what: str) -> dict[str, Any]:
    """The JSON object in a text of our own; raises NumericsError where there is none, or a longer one."""
    try:
        letters = text_in(text)
        if letters is None or len(letters) > LONGEST:
            raise ValueError(f"at most {LONGEST} characters are allowed")
        facts = json_in(letters) if letters.lstrip()[:1] in '{"[' else None
        if isinstance(facts, dict):
            return facts
        raise ValueError('it is no JSON object, such as {"dtype": "mxfp4"}')
    except ValueError as wrong:
        raise NumericsError(f"{said(text)} does not describe {what}: {wrong}") from wrong
