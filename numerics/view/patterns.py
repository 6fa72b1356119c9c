"""Many texts as one: names of one pattern, and sentences that differ in numbers only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DIGITS = 18  # of a number that a name may have in a range
SHOWN = 4  # names in braces, and patterns in a line; more are counted
NUMBER = r"(?<![\w./])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?:/\d+)?(?![\w/])"
VARIES = re.compile(rf"'[^']*'|(?<=\bof )\S+(?= -?\d)|{NUMBER}")
"""What sentences that are alike may differ in: names in quotes or before a number, and numbers."""


Parts = tuple[tuple[str, ...], ...]
"""The parts of names, each with what stands in its place."""


@dataclass(frozen=True)
class Pattern:
    """Names that one text stands for.

    parts: the parts of the names, each with what stands in its place.  names: all of them, in their order.
    """

    parts: Parts
    names: tuple[str, ...]

    @property
    def counts(self) -> bool:
        """Does its text count names in the place of naming them?"""
        return any(
            len(part) > SHOWN and _braced(part).endswith(f",+{len(part) - SHOWN}}}") for part in self.parts
        )

    def __str__(self) -> str:
        return "".join(_braced(part) for part in self.parts)


def _braced(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    if all(name.isascii() and name.isdecimal() and len(name) <= DIGITS for name in names):
        numbers = sorted(map(int, names))
        if numbers == list(range(numbers[0], numbers[-1] + 1)):
            return f"{{{numbers[0]}-{numbers[-1]}}}"
    more = f",+{len(names) - SHOWN}" if len(names) > SHOWN else ""
    return f"{{{','.join(names[:SHOWN])}{more}}}"


def patterns(names: Iterable[str], seams: str = r"([.:#\[\]/_]|\d+)") -> list[Pattern]:
    """Returns the patterns of names: those that differ in one part only become one, again and again.

    seams: a regular expression with a group, where the parts of a name end.

    >>> [str(one) for one in patterns(["h.0.q", "h.1.q", "h.0.k", "h.1.k", "head"])]
    ['h.{0-1}.{q,k}', 'head']
    """
    found = [
        Pattern(tuple((part,) for part in re.split(seams, name)), (name,)) for name in dict.fromkeys(names)
    ]
    while True:
        before = len(found)
        for place in range(max((len(one.parts) for one in found), default=0)):
            found = _joined_at(place, found)
        if len(found) == before:
            return found


def _joined_at(place: int, found: Sequence[Pattern]) -> list[Pattern]:
    """Those that differ in that place only as one."""
    alike: dict[object, list[Pattern]] = {}
    for one in found:
        parts = one.parts
        key = (len(parts), parts[:place], parts[place + 1 :]) if place < len(parts) else (parts,)
        alike.setdefault(key, []).append(one)
    return [_in_place(place, same) if same[1:] else same[0] for same in alike.values()]


def _in_place(place: int, same: Sequence[Pattern]) -> Pattern:
    first = same[0].parts
    every = tuple(part for one in same for part in one.parts[place])
    names = tuple(name for one in same for name in one.names)
    return Pattern((*first[:place], every, *first[place + 1 :]), names)


def template(text: str) -> tuple[str, ...]:
    """Returns what stands around all that may vary in a sentence: those that are alike have one template.

    >>> template("scale of /a/b 0.5 became 2"), template("taken into Conv 'c'")
    (('scale of ', ' ', ' became ', ''), ('taken into Conv ', ''))
    """
    return tuple(VARIES.split(text))


def in_one(texts: Sequence[str]) -> str:
    """Returns sentences of one template as one: numbers become the least and the most, names "…".

    >>> in_one(["scale of a 0.5 became 2", "scale of b 0.25 became 2"])
    'scale of … 0.25 .. 0.5 became 2'
    """
    columns = iter(zip(*(VARIES.findall(text) for text in texts), strict=True))
    return VARIES.sub(lambda _: _range(next(columns)), texts[0])


def _range(values: Sequence[str]) -> str:
    if len(set(values)) == 1:
        return values[0]
    if not all(re.fullmatch(NUMBER, value) for value in values):
        return "…"
    ordered = sorted(values, key=_value)
    return f"{ordered[0]} .. {ordered[-1]}"


def _value(number: str) -> float:
    above, _, below = number.partition("/")
    return float(above) / float(below) if below and float(below) else float(above)
