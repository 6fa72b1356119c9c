"""A QuantSpec in words, as tables say it: a format, a scheme and options; all else is what is usual."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from numerics.formats.errors import NumericsError, said, text_in

DEFAULTS: Mapping[str, Any] = {
    "scheme": None, "symmetric": True, "scale_type": None, "zero_point_type": "int32",
    "rounding": "half_even", "scale_rule": "floor", "axis": -1,
}  # fmt: skip
"""What options are where nobody gives them."""
OPTIONS = tuple(DEFAULTS)
"""What a QuantSpec takes beside a format, in the order of its arguments."""
_PARTS = re.compile(
    r"(?P<dtype>[^{=][^=]*?)[\s:]\s*(?P<scheme>per_[a-z]+(?:\((?:[^()]|\([^()]*\))*\))?|\d+x\d+)?"
    rf"(?P<options>(?:\s*(?:asymmetric|(?:{'|'.join(OPTIONS[1:])})=[^\s=]+))*)\s*"
)
_MOST = 200
_VALUES: dict[str, Any] = {"True": True, "False": False, "None": None}


def words_in(came: Any) -> dict[str, Any] | None:
    """The options of a QuantSpec that a text says beside a format's name; None where it says none.

    >>> words_in("int4 per_group(32, axis=-1) symmetric=False")
    {'dtype': 'int4', 'scheme': 'per_group(32, axis=-1)', 'symmetric': False}
    >>> words_in("int4:per_group(32)"), words_in("FP8 E4M3")
    ({'dtype': 'int4', 'scheme': 'per_group(32)'}, None)
    """
    text = text_in(came)
    match = _PARTS.fullmatch(text.strip()) if text is not None and len(text) <= _MOST else None
    if match is None or not (match["scheme"] or match["options"]):
        return None
    found: dict[str, Any] = {"dtype": match["dtype"]}
    if match["scheme"]:
        found["scheme"] = match["scheme"]
    for word in match["options"].split():
        name, _, value = ("symmetric", "", "False") if word == "asymmetric" else word.partition("=")
        if name in found:
            raise NumericsError(f"{said(text)} says {name} twice")
        found[name] = _VALUES.get(value, value)
        if value.lstrip("-").isdigit():
            found[name] = int(value)
    return found
