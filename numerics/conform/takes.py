"""What arrays a target takes."""

from __future__ import annotations

from typing import Any, NamedTuple

from numerics.formats.errors import one_of, truth

ARRAYS = ("numpy", "torch")


class Takes(NamedTuple):
    """What a target takes: NumPy's arrays or torch's, of any strides and shape or not.

    contiguous: only contiguous arrays of one dimension; of blocks, contiguous ones.  whole_blocks: only
    lines that are whole blocks, or groups.  finite: neither NaN nor Inf.  one_thread: calls of one thread
    alone.  fills: after its inputs it is given the arrays of its result, which it fills.  nonempty: of
    products, no operands without rows, columns or batches.
    """

    array: str = "numpy"
    contiguous: bool = False
    whole_blocks: bool = False
    finite: bool = False
    one_thread: bool = False
    fills: bool = False
    nonempty: bool = False

    @property
    def backward(self) -> bool:
        """May arrays stride backward?  torch has no negative strides."""
        return self.array == "numpy"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a verdict says of what a target does not take, and so was not asked, if anything.

        >>> Takes(finite=True, whole_blocks=True).notes
        ('not asked, as it does not take them: last blocks that are short, NaN and Inf',)
        """
        told = ", ".join(word for name, word in WORDS.items() if getattr(self, name))
        return (f"not asked, as it does not take them: {told}",) if told else ()

    @classmethod
    def of(cls, array: str = "numpy", **flags: Any) -> Takes:
        """What is said of a target; raises NumericsError for other arrays, and for a flag that is no truth.

        >>> Takes.of("torch", finite=True)               # doctest: +NORMALIZE_WHITESPACE
        Takes(array='torch', contiguous=False, whole_blocks=False, finite=True, one_thread=False, fills=False,
        nonempty=False)
        """
        return cls(
            one_of("array", array, ARRAYS), **{name: truth(name, came) for name, came in flags.items()}
        )


WORDS = {
    "contiguous": "memory that is not contiguous", "whole_blocks": "last blocks that are short",
    "finite": "NaN and Inf", "one_thread": "calls of two threads",
    "nonempty": "empty operands",
}  # fmt: skip
ANYTHING = Takes()
