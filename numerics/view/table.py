"""Tables and records: one row a line, every number whole, whatever the width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from numerics.view.screen import Screen
from numerics.view.text import apart, cells, fitted, padded, shortened, wrapped

BETWEEN = "  "  # of columns
EMPTY = "-"  # where nobody looks: every row has every field
LEAST = 8  # cells of a name, where no column is left that could be spared

Paint = Callable[[str], str]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    name: its texts may lose their middle, but columns are spared before less than `least` cells of them
    are left; else they are numbers, which stay whole.  spare: how soon it is left out where the table
    is too wide; 0 never, the largest first.
    paint: what colours a cell.
    """

    heading: str
    name: bool = False
    right: bool = True
    least: int = 12
    spare: int = 0
    paint: Paint | None = None


def name_column(heading: str, least: int = 12, spare: int = 0) -> Column:
    """A column of names, from the left."""
    return Column(heading, name=True, right=False, least=least, spare=spare)


def text_column(heading: str, spare: int = 0, paint: Paint | None = None) -> Column:
    """A column of texts that stay whole, from the left."""
    return Column(heading, right=False, spare=spare, paint=paint)


Row = Sequence[str]


@dataclass
class Table:
    """Rows of texts under headings; `totals` stand under a line of their own.

    way: what, in Python, has the columns that a table leaves out.
    """

    columns: Sequence[Column]
    rows: list[Row] = field(default_factory=list)
    totals: list[Row] = field(default_factory=list)
    way: str = "as_dict()"

    def add(self, *row: str) -> None:
        """A row; what it lacks at its end is empty."""
        self.rows.append(row)

    def numbered(self, *headings: str, longest: int = 0, what: str = "") -> tuple[Table, list[str]]:
        """The same with numbers for the texts of columns, and below it what each of them stands for.

        headings: the columns; a text that stands in several of them has one number.  longest: cells of the
        texts that stay.  what: the texts' name below the table; the first column's heading by default.

        >>> table = Table([name_column("name"), text_column("why")], [["a", "too few"], ["b", "too few"]])
        >>> table.numbered("why")[0].rows, table.numbered("why")[1]
        ([['a', '1'], ['b', '1']], ['why 1: too few'])
        """
        places = self._places(headings)
        texts = [text for text in self._texts(places) if cells(text) > longest]
        numbers = {text: str(place) for place, text in enumerate(texts, 1)}
        columns = [
            text_column(column.heading, column.spare) if k in places else column
            for k, column in enumerate(self.columns)
        ]
        rows: list[Row] = [[numbers.get(text, text) if k in places else text for k, text in enumerate(row)]
                for row in self.rows]  # fmt: skip
        return (replace(self, columns=columns, rows=rows),
                [f"{what or headings[0]} {place}: {text}" for text, place in numbers.items()])  # fmt: skip

    def numbered_to_fit(self, screen: Screen, *headings: str, what: str = "") -> tuple[Table, list[str]]:
        """The same with numbers for as few of the columns' texts, the longest, as show the most on a screen.

        The most is: all columns, or as many as there can be; then names of which the fewest cells are lost.
        """
        lengths = {cells(screen.text(text)) for text in self._texts(self._places(headings))}
        tried = [
            self.numbered(*headings, longest=longest, what=what)
            for longest in sorted({0, *lengths}, reverse=True)
        ]
        return min(tried, key=lambda one: one[0]._lost(screen))

    def _places(self, headings: Sequence[str]) -> list[int]:
        return [k for k, column in enumerate(self.columns) if column.heading in headings]

    def _texts(self, places: Sequence[int]) -> list[str]:
        """What stands in these columns, each text once."""
        found = dict.fromkeys(row[k] for row in self.rows for k in places if k < len(row))
        return [text for text in found if text not in ("", EMPTY)]

    def _lost(self, screen: Screen) -> tuple[int, int]:
        """How many columns are not shown there, all of them where rows are listed, and cells of the names."""
        shown, widths = self._chosen(screen)
        if widths is None:
            return len(self.columns), 0
        return len(self.spared(screen)), sum(shown.natural) - sum(widths)

    def lines(self, screen: Screen) -> list[str]:
        """The table on that screen.

        Where nobody looks, every column and every letter.  Else as many columns as fit, names
        shortened where they must be; numbers that do not fit even alone are listed one below another.
        """
        shown, widths = self._chosen(screen)
        return self._listed(screen) if widths is None else shown.drawn(widths)

    def text(self, *below: str) -> str:
        """The table as Python prints it, with what is said below it, in lines that fit where that is read."""
        screen = Screen.of_text()
        lines = [*self.lines(screen), *self.left_out(screen), *self.names_cut(screen)]
        return "\n".join([*(line.rstrip() for line in lines),
                          *(line for said in below for line in clauses(said, screen))])  # fmt: skip

    def spared(self, screen: Screen) -> list[str]:
        """The headings of the columns that `lines` leaves out on that screen."""
        shown, widths = self._chosen(screen)
        if widths is None:
            return []
        return [self.columns[k].heading for k in self._telling() if k not in shown.kept]

    def left_out(self, screen: Screen, below: str = "") -> list[str]:
        """A sentence about the columns that `lines` leaves out on that screen; nothing where it shows all.

        below: the heading of one that is said below the table.
        """
        lost = [heading for heading in self.spared(screen) if heading != below]
        if not lost:
            return []
        way = self.way if screen.plain else "--json"
        said = f"left out: {', '.join(lost)}; a wider terminal or {way} shows {'them' if lost[1:] else 'it'}"
        return wrapped(said, screen.width or len(said))

    def names_cut(self, screen: Screen) -> list[str]:
        """A sentence about names that `lines` shortens on that screen; nothing where all are whole."""
        shown, widths = self._chosen(screen)
        if widths is None or all(name == told for name, told in shown.names(widths).items()):
            return []
        way = self.way if screen.plain else "--json"
        said = f"names are cut; a wider terminal or {way} shows them whole"
        return wrapped(said, screen.width or len(said))

    def _chosen(self, screen: Screen) -> tuple[_Shown, list[int] | None]:
        """What is shown there, and how wide its columns are: the most that leaves different names different.

        Where nothing does, the most that fits at all; widths are None where nothing fits.
        """
        whole = _Shown(self, screen, range(len(self.columns)))
        if (widths := whole.fitting()) == whole.natural:
            return whole, widths
        fewer = [_Shown(self, screen, kept) for kept in self._ever_fewer()]
        tried = [
            (shown, shown.fitting(most)) for shown, most in (*((s, None) for s in fewer), (fewer[-1], LEAST))
        ]
        fitting = [(shown, widths) for shown, widths in tried if widths is not None]
        apart = [(shown, widths) for shown, widths in fitting if shown.apart(widths)]
        return next(iter((*apart, *fitting)), (fewer[-1], None))

    def fits(self, screen: Screen) -> bool:
        """Does that screen show all of it side by side?"""
        return _Shown(self, screen, range(len(self.columns))).fitting() is not None

    def _ever_fewer(self) -> list[list[int]]:
        """Ever fewer columns: without those that say nothing, then without one rank after another."""
        telling = self._telling()
        ranks = sorted({self.columns[k].spare for k in telling}, reverse=True)
        return [[k for k in telling if self.columns[k].spare <= rank] for rank in ranks]

    def _telling(self) -> list[int]:
        """The columns that say something, or cannot be spared."""
        said = [{row[k] for row in self.rows if k < len(row)} - {"", EMPTY} for k in range(len(self.columns))]
        return [k for k, column in enumerate(self.columns) if said[k] or not column.spare]

    def _listed(self, screen: Screen) -> list[str]:
        """Every row as a record."""
        headings = [column.heading for column in self.columns]
        found: list[str] = []
        for row in (*self.rows, *self.totals):
            pairs = [pair for pair in zip(headings, row, strict=False) if pair[1]]
            found += [*records(pairs, screen), ""]
        return found[:-1]


class _Shown:
    """Some columns of a table, as a screen shows their texts."""

    def __init__(self, table: Table, screen: Screen, kept: Sequence[int]) -> None:
        self.screen, self.kept = screen, kept
        self.columns = [table.columns[k] for k in kept]
        self.named = next((k for k, column in enumerate(self.columns) if column.name), None)
        self.parts = [
            [[screen.text(row[k]) if k < len(row) else "" for k in kept] for row in rows]
            for rows in (table.rows, table.totals)
        ]
        every = [[column.heading for column in self.columns], *self.parts[0], *self.parts[1]]
        self.natural = [max(map(cells, texts)) for texts in zip(*every, strict=True)]

    def fitting(self, least_of_all: int | None = None) -> list[int] | None:
        """The widths of the columns where they fit: names give way; None where that is not enough.

        least_of_all: cells of a name, instead of what its column wants.
        """
        if self.screen.width is None:
            return self.natural
        least = [
            min(own, max(least_of_all or column.least, cells(column.heading))) if column.name else own
            for column, own in zip(self.columns, self.natural, strict=True)
        ]
        left = self.screen.width - sum(least) - len(BETWEEN) * (len(least) - 1)
        if left < 0:
            return None
        for k, own in enumerate(self.natural):
            more = min(own - least[k], left)
            least[k], left = least[k] + more, left - more
        return least

    def apart(self, widths: Sequence[int]) -> bool:
        """Are names that differ in the first column of names still different once they are shortened?"""
        names = self.names(widths)
        return len(set(names.values())) == len(names)

    def names(self, widths: Sequence[int]) -> dict[str, str]:
        """What is shown of the names of the first column of names."""
        if self.named is None:
            return {}
        return apart((row[self.named] for row in self.parts[0]), widths[self.named], self.screen.text("…"))

    def _renamed(self, row: list[str], names: dict[str, str]) -> list[str]:
        return [names.get(text, text) if k == self.named else text for k, text in enumerate(row)]

    def drawn(self, widths: Sequence[int]) -> list[str]:
        """The lines; headings and totals are set off only where somebody looks."""
        rows, totals = self.parts
        headings = [column.heading for column in self.columns]
        names = self.names(widths)
        rows = [self._renamed(row, names) for row in rows]
        found = [self._line(row, widths) for row in (headings, *rows, *totals)]
        if self.screen.width is None or self.screen.plain:
            return found
        rule = fitted("─", self.screen.encoding) * (sum(widths) + len(BETWEEN) * (len(widths) - 1))
        found.insert(1, rule)
        if totals:
            found.insert(2 + len(rows), rule)
        return found

    def _line(self, row: Row, widths: Sequence[int]) -> str:
        nobody, filled = self.screen.width is None, self.screen.width is None or self.screen.plain
        found = []
        for text, width, column in zip(row, widths, self.columns, strict=True):
            text = EMPTY if filled and not text else text
            cut = text if nobody else shortened(text, width, self.screen.text("…"))
            cell = padded(cut, width, column.right)
            painted = column.paint is not None and self.screen.colour and text != column.heading
            found.append(column.paint(cell) if painted and column.paint else cell)
        return BETWEEN.join(found).rstrip()


def clauses(text: str, screen: Screen) -> list[str]:
    """A sentence of several clauses in lines of that screen: whole clauses a line where they fit.

    >>> clauses("2 of 3 tensors; 9 bytes; 1 of 2 caches", Screen(24))
    ['2 of 3 tensors; 9 bytes;', '1 of 2 caches']
    """
    if screen.width is None:
        return [screen.text(text)]
    found = [""]
    parts = screen.text(text).split("; ")
    for k, part in enumerate(parts):
        said = part + ";" * (k < len(parts) - 1)
        joined = f"{found[-1]} {said}" if found[-1] else said
        if cells(joined) <= screen.width:
            found[-1] = joined
        else:
            found[len(found) - (not found[-1]) :] = wrapped(said, screen.width)
    return found


def records(pairs: Sequence[tuple[str, str]], screen: Screen) -> list[str]:
    """Names and what is said of each, side by side; long texts go on below where somebody looks."""
    names = [screen.text(name) for name, _ in pairs]
    margin = max(map(cells, names), default=0) + len(BETWEEN)
    found = []
    for name, (_, said) in zip(names, pairs, strict=True):
        said = screen.text(said)
        room = None if screen.width is None else max(screen.width - margin, LEAST)
        texts = [said] if room is None else wrapped(said, room)
        for left, text in zip_longest([name], texts, fillvalue=""):
            found.append((padded(left, margin) + text).rstrip())
    return found
