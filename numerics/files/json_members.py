"""A JSON object read member by member, so that no text takes much more memory than it is long.

`json.loads` makes 28 bytes of objects of one byte of `[],[],[]`.  Here whoever reads says what comes next,
a text, an object of members or one short value, and anything else is refused before it is made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from numerics.formats.errors import said

USUAL, LONGEST = 1 << 12, 1 << 18  # characters of one value
_BLANK = re.compile(r"[ \t\n\r]*")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    "".join(found).encode()  # refuses half of a surrogate pair
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


_read = json.JSONDecoder(object_pairs_hook=_without_twins).raw_decode


class Members:
    """A JSON text and how far it is read; every method raises ValueError where something else comes.

    >>> said = Members('{"name": "w", "shapes": {"a": [1, 2]}}')
    >>> {name: said.text() if name == "name" else dict(said.members(Members.value)) for name in said.names()}
    {'name': 'w', 'shapes': {'a': [1, 2]}}
    """

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def names(self) -> Iterator[str]:
        """The names of an object's members, each once; its value is to be read before the next."""
        seen: set[str] = set()
        self._expect("{")
        if self._next("}"):
            return
        while True:
            name = self.text()
            if name in seen:
                raise ValueError("a name stands twice")
            seen.add(name)
            self._expect(":")
            yield name
            if not self._next(","):
                self._expect("}")
                return

    def items(self) -> Iterator[Any]:
        """The values of an array."""
        self._expect("[")
        if self._next("]"):
            return
        while True:
            yield self.value()
            if not self._next(","):
                self._expect("]")
                return

    def members(self, read: Any) -> Iterator[tuple[str, Any]]:
        """The names and values of an object, each value read by that method."""
        return ((name, read(self)) for name in self.names())

    def text(self) -> str:
        """A string, in whole characters."""
        self._skip()
        if self._text[self._at : self._at + 1] != '"':
            raise ValueError(f"a text is due at {self._at}")
        found, self._at = _read(self._text, self._at)
        found.encode()  # refuses half of a surrogate pair
        return str(found)

    def value(self) -> Any:
        """Any value of at most LONGEST characters."""
        self._skip()
        for most in (USUAL, LONGEST):
            part = self._text[self._at : self._at + most]
            try:
                found, used = _read(part)
                if used < most or most == LONGEST:  # a number may go on
                    break
            except RecursionError:
                raise ValueError(f"too many brackets in each other at {self._at}") from None
            except ValueError:
                if len(part) < most:
                    raise
                if most == LONGEST:
                    raise ValueError(
                        f"{said(part)} at {self._at} goes on: {LONGEST} characters are allowed"
                    ) from None
        self._at += used
        return found

    def end(self) -> None:
        """Nothing but blanks may follow."""
        self._skip()
        if self._at != len(self._text):
            raise ValueError(f"more follows at {self._at}")

    def _skip(self) -> None:
        self._at = _BLANK.match(self._text, self._at).end()  # type: ignore[union-attr]  # it always matches

    def _next(self, sign: str) -> bool:
        """Is it that sign?  Then it is read."""
        self._skip()
        found = self._text[self._at : self._at + 1] == sign
        self._at += found
        return found

    def _expect(self, sign: str) -> None:
        if not self._next(sign):
            raise ValueError(f"{sign!r} is due at {self._at}")
