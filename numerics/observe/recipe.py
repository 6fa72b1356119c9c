"""Observers by a text: a name, and options of its own in parentheses, as plans and files hold them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from numerics.formats.errors import NumericsError, one_of, said

_CALL = re.compile(r"(\w+)\s*(?:\(([^()]*)\))?")
_OPTION = re.compile(r"\s*(?:(\w+)\s*=\s*)?([^\s=]+)\s*")
_INTEGER = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?(e-?[0-9]{1,2})?")
_SPELLED = (
    "a text: a name, and options of its own in parentheses, as in 'percentile(99.9)' or 'mse(bins=512)'"
)


def parsed(came: Any, known: Mapping[str, Sequence[str]]) -> tuple[str, dict[str, Any]]:
    """The name of an observer and the options that a text gives it, in the order in which it has them.

    known: of each observer the names of its own options, of which the first may come as its value alone.
    Raises NumericsError for other names, for options that it has not, and for what is no text.

    >>> parsed("percentile(99.9, bins=512)", {"percentile": ("percentile", "bins")})
    ('percentile', {'percentile': 99.9, 'bins': 512})
    """
    if not isinstance(came, str):
        raise NumericsError(f"observer={said(came)}: give {_SPELLED}; names: {', '.join(known)}")
    call = _CALL.fullmatch(came.strip())
    if call is None:
        one_of("observer", came.partition("(")[0].strip(), known)
        raise NumericsError(f"observer={said(came)} cannot be read: give {_SPELLED}")
    name, inside = str(one_of("observer", call[1], known)), call[2]
    found: dict[str, Any] = {}
    for place, part in enumerate(inside.split(",") if inside is not None and inside.strip() else ()):
        option = _OPTION.fullmatch(part)
        if option is None or (option[1] is None and place):
            raise NumericsError(f"observer={said(came)} cannot be read: give {_SPELLED}")
        if not known[name]:
            raise NumericsError(f"observer={said(came)}: {name} has no options of its own")
        key = option[1] or known[name][0]
        if key in found:
            raise NumericsError(f"observer={said(came)} gives {key} twice")
        found[str(one_of(f"option of {name}", key, known[name]))] = _value(option[2])
    return name, {key: found[key] for key in known[name] if key in found}


def text_of(name: str, options: Mapping[str, Any], own: Sequence[str]) -> str:
    """The one text of an observer with these options, which `parsed` reads back.

    >>> text_of("percentile", {"percentile": 99.9, "bins": 512}, ("percentile", "bins"))
    'percentile(99.9, bins=512)'
    """
    first = own[0] if own else ""
    told = [str(value) if key == first else f"{key}={value}" for key, value in options.items()]
    return f"{name}({', '.join(told)})" if told else name


def _value(text: str) -> Any:
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text
