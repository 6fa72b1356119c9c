"""How operands of a product come: which axes lead, which of a matrix is the last one, what is broadcast."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from numerics.formats.errors import NumericsError, said

SPELLED = re.compile(r"(?:([c1]?)([b1]))?(mk|km),(?:([c1]?)([b1]))?(nk|kn)")
LAYOUTS = ("nk", "kn", "km,nk", "km,kn", "bmk,nk", "bmk,bnk", "bmk,bkn", "bkm,bnk", "mk,bnk", "1mk,bnk",
           "cbmk,bnk", "cbmk,cbnk", "cbmk,c1nk", "c1mk,1bnk")  # fmt: skip
"""Those that are named most; others are spelled like them."""
MATRICES = tuple(name for name in LAYOUTS if not set("bc1") & set(name))
"""Those of one product, without batches."""
ALLOWED = (
    "allowed: nk, kn, or both operands as in 'km,nk', 'bmk,bnk', 'cbmk,c1kn': m rows of a, n columns of the "
    "result, k summed; before them b, or c and b, axes of batches, 1 one of length 1 that is broadcast"
)


@dataclass(frozen=True)
class Layout:
    """The axes of both operands: letters of the axes of batches, and whether a matrix is turned.

    a, b: "", "b", "cb", where 1 stands for an axis of length 1.

    >>> Layout.of("cbmk,1kn")
    Layout(a='cb', b='1', turned_a=False, turned_b=True)
    >>> Layout.of("cbmk,1kn").axes, Layout.of("kn").axes
    (2, 0)
    """

    a: str
    b: str
    turned_a: bool
    turned_b: bool

    @classmethod
    def of(cls, text: object) -> Layout:
        """The layout of a text; raises NumericsError for what is none."""
        whole = f"mk,{text}" if isinstance(text, str) and text in ("nk", "kn") else text
        found = SPELLED.fullmatch(whole) if isinstance(whole, str) else None
        if found is None:
            raise NumericsError(f"layout={said(text)}; {ALLOWED}")
        parts = [part or "" for part in found.groups()]
        layout = cls(parts[0] + parts[1], parts[3] + parts[4], parts[2] == "km", parts[5] == "kn")
        for place in range(layout.axes):
            if not layout._holds("a", place) and not layout._holds("b", place):
                raise NumericsError(
                    f"layout={said(text)} has an axis of length 1 in both operands; {ALLOWED}"
                )
        return layout

    @cached_property
    def axes(self) -> int:
        """How many axes of batches the result has."""
        return max(len(self.a), len(self.b))

    def _letters(self, side: str) -> str:
        letters = self.a if side == "a" else self.b
        return letters.rjust(self.axes)

    def _holds(self, side: str, place: int) -> bool:
        """Has an operand an axis of the result as its own, of full length?"""
        return self._letters(side)[place] in "cb"

    def lead(self, side: str, batch: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of an operand before its matrix, where the result's is `batch`.

        >>> Layout.of("cbmk,1kn").lead("b", (2, 3))
        (1,)
        """
        letters = self._letters(side)
        return tuple(1 if x == "1" else n for x, n in zip(letters, batch, strict=True) if x != " ")

    def groups(self, side: str, batch: tuple[int, ...]) -> int:
        """How many matrices an operand has."""
        return prod(self.lead(side, batch))

    def of_result(self, side: str, batch: tuple[int, ...]) -> NDArray[np.int64]:
        """Which matrix of an operand each of the result's batches takes, in their shape.

        >>> Layout.of("cbmk,bnk").of_result("b", (2, 3)).tolist()
        [[0, 1, 2], [0, 1, 2]]
        """
        lead = self.lead(side, batch)
        return np.broadcast_to(np.arange(prod(lead)).reshape(lead), batch)

    def kept(self, side: str, batch: tuple[int, ...], axes: list[list[int]]) -> list[int]:
        """Which matrices of an operand remain, where of each axis of the result these indices do.

        >>> Layout.of("cbmk,bnk").kept("a", (2, 3), [[1], [0, 2]])
        [3, 5]
        """
        lead = self.lead(side, batch)
        own = axes[len(axes) - len(lead) :]
        indices = [[0] if n == 1 else kept for n, kept in zip(lead, own, strict=True)]
        whole = np.arange(prod(lead)).reshape(lead)
        return [int(i) for i in whole[np.ix_(*indices)].reshape(-1)] if lead else [0]
