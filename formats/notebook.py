"""What notebooks show: tables of facts as HTML, and a format's number line as SVG; nothing else is needed."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

from numerics.formats.errors import digits

WIDTH, HEIGHT = 600, 34  # of a number line, in pixels


def facts_table(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and what is said of each, as an HTML table; foreign text is escaped.

    >>> facts_table([("bits", "8"), ("name", "<b>")])
    '<table><tr><th scope="row">bits</th><td>8</td></tr><tr><th scope="row">name</th><td>&lt;b&gt;</td></tr>\
</table>'
    """
    rows = (f'<tr><th scope="row">{html.escape(a)}</th><td>{html.escape(b)}</td></tr>' for a, b in pairs)
    return f"<table>{''.join(rows)}</table>"


def rows_table(headings: Sequence[str], rows: Iterable[Sequence[str]], below: str = "") -> str:
    """Rows under headings as an HTML table, and a line below it; foreign text is escaped."""
    heads = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in headings)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(text)}</td>' for text in row)}</tr>" for row in rows
    )  # fmt: skip
    line = f"<p>{html.escape(below)}</p>" if below else ""
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>{line}"


def number_line(name: str, values: Iterable[float]) -> str:
    """Every finite value where it lies, as SVG: a line each, those of one pixel once."""
    found = sorted({value for value in values if math.isfinite(value)})
    low, high = found[0], found[-1]
    wide = (high / 2 - low / 2) or 1.0  # the difference itself may be beyond float64
    places = sorted({round(10 + (WIDTH - 20) * ((value / 2 - low / 2) / wide), 1) for value in found})
    lines = "".join(f"M{place:g} 4v14" for place in places)
    told = f"{name}: {len(found)} finite values from {digits(low)} to {digits(high)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img">'
        f"<title>{html.escape(told)}</title>"
        f'<path d="{lines}" stroke="#0072B2" fill="none"/><g font-size="11" fill="#767676" '
        f'font-family="sans-serif"><text x="10" y="31">{digits(low)}</text><text x="{WIDTH - 10}" y="31" '
        f'text-anchor="end">{digits(high)}</text></g></svg>'
    )
