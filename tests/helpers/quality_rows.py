"""A row of bench/quality.py as tests want it."""

from __future__ import annotations

from dataclasses import replace

from bench.quality import Row, versions


def row(**facts) -> Row:
    """One of crepe-tiny, with other facts."""
    made = Row(
        "crepe-tiny", "mxfp4", "W", "blocks of 32, summed axis", 100, 20.0, 90, 60, 5, 8, 15.0, 18.0, 4.25, 7,
        "1: 7", versions(), 1.0,
    )  # fmt: skip
    return replace(made, **facts)
