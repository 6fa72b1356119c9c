"""Picture: a figure that is the same on every machine, in colours that everybody can tell apart."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from numerics.backends.paths import path_of
from numerics.files.replacement import replace_file
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError
from numerics.view.text import printable, shortened, spelled

PALETTE = "Okabe-Ito"
"""The palette: eight colours that people with any colour blindness tell apart (Okabe and Ito, 2008)."""
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, BLACK, GREY = "#56B4E9", "#CC79A7", "#000000", "#8A8A8A"
RED_SAID = "orange-red"  # as people call that red where they read of it
KINDS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}
ROOM = 40  # letters of a name
DPI = 110  # dots an inch, of what is saved as dots
STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 10.5, "axes.titlelocation": "left", "figure.titlesize": 12.5,
    "figure.constrained_layout.use": True, "legend.frameon": False, "svg.hashsalt": "numerics",
    "image.interpolation": "nearest", "savefig.dpi": DPI, "axes.unicode_minus": True,
}  # fmt: skip


def of_tensor(picture: Picture, name: str) -> Picture:
    """The picture with the name of the tensor that is on it before its title and its sentence."""
    title = picture.figure._suptitle or picture.figure.axes[0]._left_title
    title.set_text(f"{named(name)}: {title.get_text()}")
    return replace(picture, alt=f"{name}: {picture.alt}")


@dataclass(frozen=True, repr=False)
class Picture:
    """A figure of matplotlib, and the sentences that say what is on it.

    figure: to change what you like.  alt: for those who do not see it; it goes into the files, too.

    >>> import numerics as nx
    >>> nx.draw.format("int2")
    Picture('The number format int2: 4 codes, from -2 to 1, the smallest positive one 1; no Inf, no NaN.')
    """

    figure: Any
    alt: str

    def __repr__(self) -> str:
        return f"Picture({self.alt!r})"

    @keywords
    def save(self, path: Any) -> None:
        """Writes the picture: as .png, .svg or .pdf, by the name's ending.

        The same picture is the same bytes, with the same matplotlib.  Raises NumericsError for other endings,
        and for what is no path.
        """
        file = path_of(path)
        kind = KINDS.get(file.suffix.lower())
        if kind is None:
            raise NumericsError(
                f"{file.name!r} says no kind of picture; allowed: names that end in {', '.join(KINDS)}"
            )
        replace_file(file, self._as(kind))

    def _as(self, kind: str) -> bytes:
        """The bytes of a file, without the hour in which they were made."""
        said = {
            "png": {"Description": self.alt, "Software": None},
            "svg": {"Date": None, "Description": self.alt},
            "pdf": {"CreationDate": None, "Subject": self.alt},
        }
        held = io.BytesIO()
        with styled():
            self.figure.savefig(held, format=kind, metadata=said[kind], dpi=DPI)
        return held.getvalue()

    def _repr_png_(self) -> bytes:
        """The picture, for notebooks."""
        return self._as("png")

    def _repr_html_(self) -> str:
        """The picture with its alt text, for notebooks."""
        data = base64.b64encode(self._as("png")).decode()
        return f'<img alt="{html.escape(printable(self.alt))}" src="data:image/png;base64,{data}">'


def named(text: str, room: int = ROOM) -> str:
    """A name as pictures show it: in letters that their font has, others spelled out, cut in the middle."""
    with styled():
        from matplotlib.font_manager import findfont, get_font

        font = get_font(findfont(STYLE["font.family"]))
        shown = shortened(spelled(text, lambda letter: font.get_char_index(ord(letter))), room)
    return shown.replace("$", r"\$")  # which begins no formula


@contextmanager
def styled() -> Iterator[None]:
    """matplotlib's own defaults and ours on them, whatever the user has set; raises where it is missing."""
    try:
        import matplotlib
        from matplotlib import style
    except ImportError as missing:
        raise NumericsError(
            f"pictures need {missing.name or missing}, which is not installed: "
            "pip install 'numerics-formats[plot]'"
        ) from missing
    with style.context("default"), matplotlib.rc_context(STYLE):
        yield


def canvas(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Any, Any]:
    """A figure and its axes, rows x columns of them; no window, and nothing of pyplot's.

    size: width and height in inches.  options: as for matplotlib's `Figure.subplots`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)
