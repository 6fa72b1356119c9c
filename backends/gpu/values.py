"""A grid whose tables lie in memory (tables.py), as Triton passes it from function to function.

The shared arithmetic asks a grid for its tables; so the pointer to them travels with the grid, and no
function has a parameter for it.
"""

from __future__ import annotations

from typing import Any

import triton.language as tl

from numerics.backends.gpu.tables import Laid


class GridType(tl.core.base_type):  # type: ignore[misc]
    """The type of an InMemory: what is known of it, and the type of the pointer."""

    def __init__(self, known: Any, pointer: Any) -> None:
        self.known, self.pointer = known, pointer

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GridType) and (self.known, self.pointer) == (other.known, other.pointer)

    __hash__ = None  # type: ignore[assignment]

    def mangle(self) -> str:
        """A part of the name of a function that takes such a value."""
        return f"G{self.known!r}{self.pointer.mangle()}"

    def _flatten_ir_types(self, builder: Any, out: list[Any]) -> None:
        self.pointer._flatten_ir_types(builder, out)

    def _unflatten_ir(self, handles: list[Any], cursor: int) -> tuple[Any, int]:
        pointer, cursor = self.pointer._unflatten_ir(handles, cursor)
        return InMemory(self.known, pointer), cursor


class InMemory(tl.core.base_value):  # type: ignore[misc]
    """A Grid, or a Laid, and the pointer to the memory that it speaks of; it has the fields of the former."""

    def __init__(self, known: Any, pointer: Any) -> None:
        self.known, self.pointer = known, pointer

    @property
    def type(self) -> GridType:
        """Its type."""
        return GridType(self.known, self.pointer.type)

    def _flatten_ir(self, handles: list[Any]) -> None:
        self.pointer._flatten_ir(handles)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(self.known, name)
        return InMemory(found, self.pointer) if isinstance(found, Laid) else found


def with_tables(f: Any, pointer: Any) -> Any:
    """Returns a grid as functions of the arithmetic take it: a codebook's together with the pointer."""
    known = f.value if isinstance(f, tl.constexpr) else f
    return InMemory(known, pointer) if isinstance(known.values, Laid) else f


with_tables.__triton_builtin__ = True  # type: ignore[attr-defined]  # Triton calls it where it compiles a call
