"""Many texts as one: names of one pattern, and sentences that differ in numbers only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction

SHOWN = 4  # names in braces, and patterns in a line; more are counted
NUMBER = r"(?<![\w./])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?:/\d+)?(?![\w/])"
VARIES = re.compile(rf"'[^']*'|(?<=\bof )\S+(?= -?\d)|{NUMBER}")
"""What sentences that are alike may differ in: names in quotes or before a number, and numbers."""


class Pattern:
    """Names that differ in one of their parts at most.

    parts: the parts of a name, each with what stands in its place.
    """

    def __init__(self, parts: Iterable[str]) -> None:
        self.parts = [[part] for part in parts]

    def joined(self, other: Pattern) -> bool:
        """Takes the other in where one part of the names differs at most."""
        if len(self.parts) != len(other.parts):
            return False
        differing = [k for k, (a, b) in enumerate(zip(self.parts, other.parts, strict=True)) if a != b]
        if len(differing) > 1:
            return False
        for k in differing:
            self.parts[k] = list(dict.fromkeys([*self.parts[k], *other.parts[k]]))
        return True

    def __str__(self) -> str:
        return "".join(_braced(part) for part in self.parts)


def _braced(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    if all(name.isdigit() for name in names):
        numbers = sorted(map(int, names))
        if numbers == list(range(numbers[0], numbers[-1] + 1)):
            return f"{{{numbers[0]}-{numbers[-1]}}}"
    more = f",+{len(names) - SHOWN}" if len(names) > SHOWN else ""
    return f"{{{','.join(names[:SHOWN])}{more}}}"


def patterns(names: Iterable[str], seams: str = r"([.:#\[\]/_]|\d+)") -> list[str]:
    """Returns names as ever fewer texts, those of one pattern as one.

    seams: a regular expression with a group, where the parts of a name end.

    >>> patterns(["h.0.q", "h.1.q", "h.0.k", "h.1.k", "head"])
    ['h.{0-1}.{q,k}', 'head']
    """
    found = [Pattern(re.split(seams, name)) for name in dict.fromkeys(names)]
    while True:
        fewer: list[Pattern] = []
        for one in found:
            if not any(kept.joined(one) for kept in fewer):
                fewer.append(one)
        if len(fewer) == len(found):
            return [str(one) for one in found]
        found = fewer


def template(text: str) -> str:
    """Returns a sentence without what may vary in it: those that are alike have one template.

    >>> template("scale of /a/b 0.5 became 2"), template("taken into Conv 'c'")
    ('scale of * * became *', 'taken into Conv *')
    """
    return VARIES.sub("*", text)


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
    ordered = sorted(values, key=Fraction)
    return f"{ordered[0]} .. {ordered[-1]}"
