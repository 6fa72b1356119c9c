"""Text for terminals and pipes: foreign text made harmless, numbers exact, names cut in the middle."""

from __future__ import annotations

import codecs
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

_NUMBER = re.compile(r"\d+")
UNBROKEN = re.compile(r"(?<!\d) | (?!(?:[kMGT]?B|dB|bits?|m?s|%)(?!\w))")  # blanks where a line may end
ENDS = (0.5, 0.25, 0.75, 0.0, 1.0)  # shares of what is kept that stand before a gap
SPELLED = {"…": "...", "─": "-", "━": "#", "§": "sec. "}
"""What stands for our own signs where an encoding lacks them."""


def printable(text: str) -> str:
    r"""The text with everything that a terminal would obey, or not show, as an escape.

    >>> printable("w\x1b[2J\n\u202e"), printable("layer.0[a]")
    ('w\\x1b[2J\\n\\u202e', 'layer.0[a]')
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def spelled(text: str, known: Callable[[str], object]) -> str:
    r"""The printable text, with letters that are not known as escapes.

    >>> spelled("重み.w", str.isascii)
    '\\u91cd\\u307f.w'
    """
    return "".join(letter if known(letter) else _escaped(letter) for letter in printable(text))


def _escaped(letter: str) -> str:
    """An escape as Python writes it; of what stands for a byte of a file name, that byte."""
    place = ord(letter)
    if 0xDC80 <= place <= 0xDCFF:
        return f"\\x{place - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(SPELLED.get(letter) or _escaped(letter) for letter in lost), error.end


SPELL = "numerics.spell"  # the name of an error handler, as `errors=` takes it
codecs.register_error(SPELL, _spell)


def fitted(text: str, encoding: str) -> str:
    """Printable text as that encoding will show it: what it lacks is spelled out."""
    return printable(text).encode(encoding, SPELL).decode(encoding)


def cells(text: str) -> int:
    """Columns of a terminal that printable text takes.

    >>> cells("weight"), cells("重み"), cells("e\u0301")
    (6, 4, 1)
    """
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(letter: str) -> int:
    if unicodedata.combining(letter) or unicodedata.category(letter) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1


def shortened(text: str, room: int, gap: str = "…", at: float = 0.5) -> str:
    """The text in at most `room` cells: what is too long loses its middle and keeps both ends.

    at: the share of what is kept that stands before the gap.

    >>> shortened("encoder.layer.0.attention.weight", 17)
    'encoder.…n.weight'
    """
    if cells(text) <= room:
        return text
    left = max(room - cells(gap), 0)
    before = int(left * at)
    head, tail = _taken(text, before), _taken(text[::-1], left - before)[::-1]
    return (head + gap + tail)[: max(room, 0)]


def apart(names: Iterable[str], room: int, gap: str = "…") -> dict[str, str]:
    """The names in at most `room` cells each, those that differ still different where there is a way.

    What is too long loses its middle; where names became alike by that, what all begin and end with goes
    first, part by part; then more of one end is kept than of the other.

    >>> names = ["model.layers.10.q_proj.weight", "model.layers.11.k_proj.weight"]
    >>> list(apart(names, 14).values()), list(apart(names, 18).values())
    (['…10.q_proj…', '…11.k_proj…'], ['…10.q_proj.weight', '…11.k_proj.weight'])
    """
    every = list(dict.fromkeys(names))
    lost = [name for name in every if cells(name) > room]
    if not lost:
        return {name: name for name in every}
    inner = _inner(lost, room, gap)
    best: dict[str, str] = {}
    for texts, at in ((lost, 0.5), *((texts, at) for at in ENDS for texts in (inner, lost))):
        cut = {name: shortened(text, room, gap, at) for name, text in zip(lost, texts, strict=True)}
        found = {name: cut.get(name, name) for name in every}
        if len(set(found.values())) > len(set(best.values())):
            best = found
    return best


def _inner(names: list[str], room: int, gap: str) -> list[str]:
    """The names without what all begin and end with, but for as many parts of it as there is room for."""

    def texts(head: int, tail: int) -> list[str]:
        return [
            f"{gap if head else ''}{name[head : len(name) - tail]}{gap if tail else ''}" for name in names
        ]

    def fit(head: int, tail: int) -> bool:
        return all(cells(text) <= room for text in texts(head, tail))

    head, tail, one = _shared(names), _shared([name[::-1] for name in names]), names[0]
    tails = (k for k in range(tail) if not k or one[-k] == ".")
    tail = next((k for k in tails if fit(head, k)), tail)
    heads = (k for k in range(head) if not k or one[k - 1] == ".")
    return texts(next((k for k in heads if fit(k, tail)), head), tail)


def _shared(names: list[str]) -> int:
    """How many letters all names begin with, up to a dot; never all of one."""
    least, most = min(names), max(names)
    count = next((k for k, (a, b) in enumerate(zip(least, most, strict=False)) if a != b), 0)
    return least[:count].rfind(".") + 1


def _taken(text: Iterable[str], room: int) -> str:
    """The first letters that fit."""
    taken = ""
    for letter in text:
        room -= _cells(letter)
        if room < 0:
            break
        taken += letter
    return taken


def brief(spec: str, room: int | None) -> str:
    """A format and its scheme without the axis that goes without saying, where there is not all the room.

    >>> brief("int4 per_group(128, axis=-1)", 80), brief("int4 per_group(128, axis=-1)", None)
    ('int4 per_group(128)', 'int4 per_group(128, axis=-1)')
    """
    return spec if room is None else spec.replace(", axis=-1)", ")")


def padded(text: str, width: int, right: bool = False) -> str:
    """The text in `width` cells."""
    blanks = " " * (width - cells(text))
    return blanks + text if right else text + blanks


def wrapped(text: str, room: int, whole: bool = False) -> list[str]:
    """Lines of whole words in `room` cells, each indented as the text is; a number keeps its unit.

    whole: a word that is longer than a line stays whole on a line of its own, so that it can be copied; by
    default it is cut.

    >>> wrapped("OCP Microscaling Formats 1.0", 14)
    ['OCP', 'Microscaling', 'Formats 1.0']
    >>> wrapped("  they become 0.658 MB", 18)
    ['  they become', '  0.658 MB']
    """
    if cells(text) <= room:
        return [text]
    bare = text.lstrip(" ")
    indent = " " * min(len(text) - len(bare), room // 2)
    lines = [""]
    for word in UNBROKEN.split(bare):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if cells(joined) <= room - len(indent):
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        while cells(word) > room - len(indent) and not whole:
            head = _taken(word, room - len(indent)) or word[:1]
            lines[-1:] = [head, ""]
            word = word[len(head) :]
        lines[-1] = word
    return [indent + line for line in lines]


def hanging(text: str, room: int, whole: bool = False) -> list[str]:
    """The same, and what goes on below begins two cells further in: it is told from a line of its own.

    >>> hanging("all are zero: a.weight", 14)
    ['all are', '  zero:', '  a.weight']
    """
    first, *others = wrapped(text, max(room - 2, 1), whole)
    return [first, *(f"  {line}" for line in others)]


def number(value: float) -> str:
    """The shortest text that reads back as this number: nothing is rounded.

    >>> number(448.0), number(0.001953125), number(2.0**-127), number(float("nan"))
    ('448', '0.001953125', '5.877471754111438e-39', 'nan')
    """
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    return repr(float(value)).removesuffix(".0")


def pointed(numbers: Sequence[str]) -> list[str]:
    """The numbers with blanks behind them, so that their points stand below each other from the right.

    >>> pointed(["8.25", "4", "4.5"])
    ['8.25', '4   ', '4.5 ']
    """
    behind = [len(one) - len(one.partition(".")[0]) for one in numbers]
    return [one + " " * (max(behind) - own) for one, own in zip(numbers, behind, strict=True)]


def figure(value: float, digits: int = 6) -> str:
    """What was measured, to so many digits; trailing zeros are left out.

    >>> figure(0.03125), figure(4.250000001)
    ('0.03125', '4.25')
    """
    return f"{value:.{digits}g}"


def named(name: str) -> str:
    """A name as lists show it: an empty one is seen, too.

    >>> named("a.weight"), named("")
    ('a.weight', "''")
    """
    return name or "''"


def folded(names: Iterable[str]) -> str:
    """Returns names as a text, those that differ in one number only as one.

    >>> folded(["layer.0.query", "layer.1.query", "layer.2.query", "head", "layer.4.key"])
    'layer.{0-2}.query, head, layer.4.key'
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_NUMBER.sub("*", name), []).append(name)
    return ", ".join(part for group in alike.values() for part in _in_one(group))


def _in_one(names: list[str]) -> list[str]:
    """One text where the names differ in one number that runs without a gap; else themselves."""
    numbers = [list(map(int, _NUMBER.findall(name))) for name in names]
    differing = [k for k, column in enumerate(zip(*numbers, strict=True)) if len(set(column)) > 1]
    if len(differing) != 1:
        return names
    found = sorted(row[differing[0]] for row in numbers)
    if found != list(range(found[0], found[0] + len(found))):
        return names
    at = list(_NUMBER.finditer(names[0]))[differing[0]]
    return [f"{names[0][: at.start()]}{{{found[0]}-{found[-1]}}}{names[0][at.end() :]}"]


def some_of(names: Sequence[str], some: int | None) -> str:
    """The first names, and how many more there are; None for every name.

    >>> some_of(["a", "b", "c"], 2), some_of(["a", "b"], None)
    ('a, b and 1 more', 'a, b')
    """
    more = len(names) - len(names[:some])
    return f"{', '.join(names[:some])}{f' and {more} more' if more else ''}"


def decibels(value: float) -> str:
    """A ratio in dB, as people read it.

    >>> decibels(18.349), decibels(math.inf), decibels(math.nan)
    ('18.3 dB', 'exact', 'no SQNR')
    """
    return "exact" if value == math.inf else "no SQNR" if math.isnan(value) else f"{value:.1f} dB"


def became(lost: int) -> str:
    """How many finite values became what is none.

    >>> became(1), became(6200)
    ('1 finite value became NaN or Inf', '6,200 finite values became NaN or Inf')
    """
    return f"{lost:,} finite value{'s' * (lost != 1)} became NaN or Inf"


def many(count: int, what: str) -> str:
    """A number of things.

    >>> many(1, "node"), many(2, "node")
    ('1 node', '2 nodes')
    """
    return f"{count} {what}{'s' * (count != 1)}"
