"""The names of the formats of IEEE P3109, and the calls that make them."""

from __future__ import annotations

import re
from typing import Any

NAMED = re.compile(r"binary(\d{1,3})p(\d{1,3})([su])([ef])")
CALLED = re.compile(r"(?:nx\.)?p3109\((\d{1,3}), *(\d{1,3})\)")
"""A name of the report, and the call that makes its format."""


def numbers_of(name: str) -> dict[str, Any] | None:
    """Returns what `p3109` takes for a format of that name or call, whatever its case, or None."""
    if found := NAMED.fullmatch(name.strip().lower()):
        bits, precision, sign, domain = found.groups()
        return {
            "bits": int(bits),
            "precision": int(precision),
            "signed": sign == "s",
            "extended": domain == "e",
        }
    if found := CALLED.fullmatch(name.strip().lower()):
        return {"bits": int(found[1]), "precision": int(found[2]), "signed": True, "extended": True}
    return None


def call_of(name: str) -> str:
    """Returns the call that makes the format of that name; nothing for a name that is not P3109's.

    >>> call_of("Binary8p3sf")
    'nx.p3109(8, 3, extended=False)'
    """
    if (numbers := numbers_of(name)) is None:
        return ""
    more = "".join(f", {word}=False" for word in ("signed", "extended") if not numbers[word])
    return f"nx.p3109({numbers['bits']}, {numbers['precision']}{more})"
