"""What a command line names: some of a few words, all of them where it names none."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def add_names(options: argparse.ArgumentParser, place: str, allowed: Sequence[str], metavar: str) -> None:
    """Adds arguments that are each one of the allowed words; all of these where none is given.

    Not by `choices`, to which Python 3.11 compares the empty list as well, and refuses it.
    """

    def word(text: str) -> str:
        if text not in allowed:
            raise argparse.ArgumentTypeError(
                f"invalid choice: {text!r} (choose from {', '.join(map(repr, allowed))})"
            )
        return text

    options.add_argument(
        place, nargs="*", type=word, default=list(allowed), metavar=metavar, help=", ".join(allowed)
    )
