"""What arrays a target takes."""

from __future__ import annotations

from typing import NamedTuple

ARRAYS = ("numpy", "torch")


class Takes(NamedTuple):
    """What a target takes: NumPy's arrays or torch's, of any strides and shape or not.

    contiguous: only contiguous arrays of one dimension; of blocks, contiguous ones.  whole_blocks: only
    lines that are whole blocks.  finite: neither NaN nor Inf.
    """

    array: str = "numpy"
    contiguous: bool = False
    whole_blocks: bool = False
    finite: bool = False


ANYTHING = Takes()
