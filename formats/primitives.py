"""The twelve operations that every executor supplies to the shared arithmetic.

The functions here only say what each means; `backends/bind.py` puts an executor's own in their
place.  A lane is a 32-bit value, or an array or vector of them: int32 or float32.
"""

from __future__ import annotations

from typing import Any, NoReturn

Lane = Any
"""An int32 or float32 value of some executor: a NumPy array, an LLVM value, a graph node."""
Table = Any
"""Integers that are compiled in, or run-time numbers, in registers or in memory: what `entry` looks into."""
Other = Any
"""A Grid within a Grid, of a block's other reading: compiled in, as that is."""


def _unbound() -> NoReturn:
    raise NotImplementedError("the shared arithmetic runs through an executor: see backends/bind.py")


def where(condition: Lane, yes: Lane, no: Lane) -> Lane:
    """`yes` where the condition holds, else `no`; int32 lanes; both sides are computed."""
    _unbound()


def minimum(x: Lane, y: Lane) -> Lane:
    """The smaller of two int32 lanes."""
    _unbound()


def maximum(x: Lane, y: Lane) -> Lane:
    """The larger of two int32 lanes."""
    _unbound()


def as_bits(x: Lane) -> Lane:
    """A float32 lane's bits as int32."""
    _unbound()


def as_float(bits: Lane) -> Lane:
    """The float32 lane that has these int32 bits."""
    _unbound()


def divide(x: Lane, y: Lane) -> Lane:
    """The float32 quotient, correctly rounded half to even."""
    _unbound()


def entry(table: Table, index: Lane) -> Lane:
    """The number of a table (integers, or run-time numbers) at 0 <= index < its length; int32."""
    _unbound()


def places_up_to(steps: Table, key: Lane) -> Lane:
    """How many of rising numbers (as `entry` takes them) are at or below an int32 key."""
    _unbound()


def max_of_block(x: Lane) -> Lane:
    """The largest int32 lane of the block, in a shape that broadcasts back over it."""
    _unbound()


def max_of_group(x: Lane) -> Lane:
    """The largest int32 lane of the sub-block, in a shape that broadcasts back over it."""
    _unbound()


def max_of_pair(x: Lane) -> Lane:
    """The largest int32 lane of two sub-blocks side by side, the first of which has an even number."""
    _unbound()


def sum_of_block(x: Lane) -> Lane:
    """The sum of a block's float32 lanes, added in halves as if zeros filled it up to a power of two.

    x[0 .. h) + x[h .. 2h), and so on until one is left, in a shape that broadcasts back over the block.
    """
    _unbound()
