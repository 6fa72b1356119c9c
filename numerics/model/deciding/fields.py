"""The fields of a plan as plain values: what each may be, looked at before a plan is made of any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from numerics.backends.partition import fits_array
from numerics.formats.errors import NumericsError, hint, said, text_in, with_article
from numerics.observe import OBSERVERS, observer_text
from numerics.tensor.spec import QuantSpec

MODES = ("eager_mode", "fx_graph_mode")
DEVICES = ("CPU", "IPU")
COMPUTED = ("activation", "output")
KINDS = ("parameter", "buffer", "activation", "output", "norm", "cache", "module")
WIDEST = 128
"""Bits of the widest value that torch has, a complex128."""
SITE = 4
"""What a site has: module, operation, number and place."""


class Field(NamedTuple):
    """What a field may be, in words and as a test; and must it be there?"""

    allowed: str
    fits: Callable[[Any], bool]
    due: bool = False


def _is_integer(came: Any, least: int) -> bool:
    return type(came) is int and least <= came < 1 << 63


def _is_text(came: Any) -> bool:
    return text_in(came) is not None


def _is_list(came: Any) -> bool:
    return isinstance(came, (list, tuple))


def _are_texts(came: Any) -> bool:
    return _is_list(came) and all(map(_is_text, came))


def _is_shape(came: Any) -> bool:
    return (
        _is_list(came)
        and all(_is_integer(size, -1) for size in came)
        and fits_array([max(size, 0) for size in came])
    )


def _is_site(came: Any) -> bool:
    if not _is_list(came) or len(came) != SITE:
        return False
    module, operation, number, place = came
    return _is_text(module) and _is_text(operation) and _is_integer(number, 0) and _is_integer(place, -1)


def _is_fold(came: Any) -> bool:
    return isinstance(came, Mapping) and _are_texts([*came, *came.values()])


def _maybe(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda came: came is None or fits(came)


def _among(names: tuple[str, ...], due: bool) -> Field:
    return Field(f"one of {', '.join(names)}", lambda came: text_in(came) in names, due)


def _is_observer(came: Any) -> bool:
    try:
        return bool(observer_text(text_in(came)))
    except NumericsError:
        return False


TEXTS = Field("a list of texts", _are_texts)
NAME = Field("a text, or none", _maybe(_is_text))
ROW = {
    "kind": _among(KINDS, due=True),
    "name": Field("a text", _is_text, due=True),
    "shape": Field("a list of sizes, integers of 0 and more, or -1 for an open one", _is_shape, due=True),
    "spec": Field("the text of a QuantSpec, or none", _maybe(_is_text)),
    "reason": Field("a text", _is_text, due=True),
    "uses": TEXTS,
    "also": TEXTS,
    "observer": Field(f"one of {', '.join(OBSERVERS)}, with options of its own in parentheses, or none",
                      _maybe(_is_observer)),
    "site": Field("a module's name, an operation, its number and a place: [text, text, integer, integer]; "
                  "or none", _maybe(_is_site)),
    "graph": Field("true or false", lambda came: came is True or came is False),
    "value_bits": Field(f"an integer from 1 to {WIDEST}",
                        lambda came: _is_integer(came, 1) and came <= WIDEST),
    "weights": TEXTS,
    "group": NAME,
}  # fmt: skip
PLAN = {
    "format": Field("the text that names the kind of file", _is_text),
    "mode": _among(MODES, due=True),
    "device": _among(DEVICES, due=True),
    "fold": Field("a table of texts: normalizations and the convolutions before them", _is_fold),
    "rows": Field("a list of rows, each a table of fields", _is_list, due=True),
}


def check_fields(came: Any) -> None:
    """Raises NumericsError for values that no plan is made of: names the row, the field, and what is allowed.

    >>> check_fields({"mode": "eager_mode", "device": "CPU", "rows": [{"kind": "parameter", "name": 3}]})
    Traceback (most recent call last):
        ...
    numerics.formats.errors.NumericsError: this is no plan: rows[0].name=3; allowed: a text
    """
    _check("", came, PLAN)
    for number, row in enumerate(came["rows"]):
        _check(f"rows[{number}]", row, ROW)
        _check_row(f"rows[{number}]", row)


def check_whole(came: Mapping[str, Any], row: type) -> None:
    """Raises NumericsError for what a plan is not made of itself.  row: what its rows are."""
    _check("", came, PLAN)
    for number, one in enumerate(came["rows"]):
        if not isinstance(one, row):
            raise _no_plan(
                f"rows[{number}]={said(one)}; allowed: {with_article(row.__name__)}; "
                "nx.plan(model, ...) makes them"
            )


def spec_in(came: Any) -> QuantSpec:
    """The spec of a row, as a plan is saved with it, or in words, as "int4 per_group(32)".

    Raises NumericsError for what is neither.
    """
    words = isinstance(came, str) and not came.lstrip().startswith("{")
    return QuantSpec(came) if words else QuantSpec.parse(came)


def _check_row(where: str, row: Mapping[str, Any]) -> None:
    """What the texts of a row say, and whether it has a site where its kind has one."""
    try:
        if row.get("spec") is not None:
            spec_in(row["spec"])
    except NumericsError as wrong:
        raise _no_plan(f"{where}.spec: {wrong}") from None
    computed = row["kind"] in COMPUTED
    if computed is not (row.get("site") is not None):
        due = "has a site" if computed else "has none"
        raise _no_plan(f"{where}.site={said(row.get('site'))}; a row of kind {row['kind']!r} {due}")


def _check(where: str, came: Any, fields: Mapping[str, Field]) -> None:
    if not isinstance(came, Mapping):
        raise _no_plan(f"{where}{'=' * bool(where)}{said(came)}; allowed: a table of {', '.join(fields)}")
    dot = f"{where}." if where else ""
    for name in came:
        if name not in fields:
            raise _no_plan(
                f"{dot}{_shown(name)} is no field;{hint(text_in(name) or '', fields)} "
                f"allowed: {', '.join(fields)}"
            )
    for name, field in fields.items():
        if name in came and not field.fits(came[name]):
            raise _no_plan(f"{dot}{name}={said(came[name])}; allowed: {field.allowed}")
        if field.due and name not in came:
            raise _no_plan(f"{dot}{name} is missing; allowed: {field.allowed}")


def _shown(name: Any) -> str:
    return text_in(name) or said(name)


def _no_plan(why: str) -> NumericsError:
    return NumericsError(f"this is no plan: {why}")
