"""What a target warns of is shown once while it is judged, not at each of some hundred calls."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NUMBERS = re.compile(r"\d[\d.,e+-]*")
"""What differs from call to call in one warning: counts, shapes."""


@contextmanager
def warned_once() -> Iterator[None]:
    """Shows each warning from inside once: those of one line whose words differ by numbers alone are one.

    Filters hold as they are: what is an error is raised, what is ignored stays so.

    >>> with warnings.catch_warnings(record=True) as shown, warned_once():
    ...     warnings.simplefilter("always")
    ...     for count in range(100):
    ...         warnings.warn(f"{count} of 100 are lost")
    >>> [str(each.message) for each in shown]
    ['0 of 100 are lost']
    """
    show: Any = warnings.showwarning
    shown: set[tuple[Any, ...]] = set()

    def seen(message: Warning | str, category: type[Warning], filename: str, line: int, *rest: Any) -> None:
        place = category, filename, line, NUMBERS.sub("#", str(message))
        if place not in shown:
            shown.add(place)
            show(message, category, filename, line, *rest)

    first: Any = seen
    warnings.showwarning = first
    try:
        yield
    finally:
        if warnings.showwarning is first:
            warnings.showwarning = show
