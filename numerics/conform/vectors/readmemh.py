"""Vectors as files that Verilog's $readmemh reads as they are: a word a line, and its group beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from numerics.conform.inputs.elements import walking
from numerics.conform.laws.affine import Scaled
from numerics.conform.laws.elements import Elements
from numerics.conform.task import Array, Task
from numerics.conform.vectors.operations import (
    AffineOperation,
    BlockOperation,
    ElementOperation,
    Fields,
    FoundOperation,
    Operation,
    StringOperation,
    each_scale,
)
from numerics.conform.vectors.selection import Chosen
from numerics.formats.errors import NumericsError

Groups = NDArray[np.str_]
NAMES = {"round_trip": "exact", "ties": "tie", "infinity": "inf", "inexact": "inexact"}
"""Groups of encode and round, for the laws that such inputs fall under; others have the law's name."""


def words(asked: Operation, chosen: Chosen) -> Iterator[bytes]:
    """The lines of a file for $readmemh (IEEE 1800-2017 §21.4), in chunks.

    A line is one word: all fields of the question, then of the answer, the first in the highest digits, with
    underscores between; its group follows as a comment.  The facts stand in comments before the words, how
    many words each group has in comments after them.  Raises NumericsError for all inputs of a format.

    >>> from numerics.conform.vectors.operations import operation
    >>> lines = b"".join(words(operation("fp4", "decode"), Chosen(None, False, 0))).decode().splitlines()
    >>> [line for line in lines if "//" not in line[:2]][:2], lines[-1]
    (['0_00000000 // zero', '1_3f000000 // subnormal'], '// covered: zero 26')
    """
    if chosen.exhaustive and asked.name != "decode":
        raise NumericsError("a file for $readmemh is held in memory: all inputs are too many; give a count")
    total, source = chosen.questions(asked)
    yield _facts(asked, total, chosen)
    counted: Counter[str] = Counter()
    for fields in source:
        due = asked.due(fields)
        named = groups(asked, fields, due)
        counted.update(named.tolist())
        lines = asked.layout.format(fields | due).decode().splitlines()
        told = (line.replace(" : ", "_").replace(" ", "_") for line in lines)
        yield "".join(f"{word} // {name}\n" for word, name in zip(told, named, strict=True)).encode()
    yield "".join(f"// covered: {name} {count}\n" for name, count in sorted(counted.items())).encode()


def _facts(asked: Operation, total: int, chosen: Chosen) -> bytes:
    bits = sum(4 * f.digits * f.count for f in (*asked.asked, *asked.answered))
    shown = {**asked.facts, "words": f"{total} of {bits} bits, reg [{bits - 1}:0] vectors [0:{total - 1}]",
             "questions": chosen.text, "word": str(asked.layout)}  # fmt: skip
    return "".join(f"// {name}: {fact}\n" for name, fact in shown.items()).encode()


# ---- the group of each line -------------------------------------------------------------------------


def groups(asked: Operation, fields: Fields, due: Fields) -> Groups:
    """What each line is there for: tie, overflow, walking, subnormal_tie, nan ...

    >>> from numerics.conform.vectors.operations import operation
    >>> given = {"input": np.float32([[0.25], [0.1], [7.0]]).view(np.uint32)}
    >>> groups(asked := operation("fp4"), given, asked.due(given)).tolist()
    ['subnormal_tie', 'subnormal_inexact', 'overflow']
    """
    if isinstance(asked, AffineOperation):
        return _of_scales(asked, fields, due)
    if isinstance(asked, StringOperation):
        return _of_strings(asked, fields | due)
    if isinstance(asked, ElementOperation) and asked.name != "decode":
        return _of_numbers(asked, fields)
    assert isinstance(asked, (ElementOperation, BlockOperation, FoundOperation))
    if isinstance(asked, FoundOperation) or asked.name != "decode":
        return _of_blocks(_floats(fields["input"]))
    values = _floats(due["value"])
    if isinstance(asked, BlockOperation):
        return _of_blocks(values)
    tiny = np.abs(values[:, 0]) < asked.dtype.smallest_normal
    return _first({"zero": values[:, 0] == 0, "nan": np.isnan(values[:, 0]), "inf": np.isinf(values[:, 0]),
                   "subnormal": tiny}, "normal")  # fmt: skip


def _floats(bits: Array) -> NDArray[np.float32]:
    return np.ascontiguousarray(bits, np.uint32).view(np.float32)


def _first(classes: dict[str, Array], otherwise: str) -> Groups:
    """The first class that each line belongs to."""
    return np.select(list(classes.values()), list(classes), default=otherwise)


def _of_numbers(asked: ElementOperation, fields: Fields) -> Groups:
    d, x = asked.dtype, _floats(fields["input"][:, 0])
    task = Task.of(d, "encode", overflow=asked.overflow)
    codes = np.asarray(task.answer(x))
    found = np.array([NAMES.get(label, label) for label in Elements(task, x, codes, codes).labels])
    sticky = np.isin(x.view(np.uint32) & np.uint32(0x7FFFFFFF), walking(d))
    found = np.where((found == "inexact") & sticky, "walking", found)
    small = (np.abs(x) < max(d.smallest_normal, 2.0**-126)) & (x != 0) & (found != "negative_zero")
    return np.where(small, np.char.add("subnormal_", found), found)


def _of_blocks(x: NDArray[np.float32]) -> Groups:
    finite = np.asarray(np.isfinite(x).all(axis=1))
    magnitudes = np.abs(np.where(np.isfinite(x), x, 0))
    top = magnitudes.max(axis=1)
    with np.errstate(under="ignore"):
        binade = np.frexp(magnitudes)[1] == np.frexp(top)[1][:, None]
    lone = ((magnitudes > 0) & binade).sum(axis=1) == 1
    return _first({"nan_or_inf": np.logical_not(finite), "zero": top == 0, "subnormal": top < 2.0**-126,
                   "lone_maximum": lone}, "ordinary")  # fmt: skip


def _of_scales(asked: AffineOperation, fields: Fields, due: Fields) -> Groups:
    task = Task.of(asked.dtype, "affine", rounding=asked.rounding or "half_even")
    x, codes = _floats(fields["input"][:, 0]), due["code"][:, 0].astype(asked.dtype.code_dtype)
    found = np.empty(len(x), "<U16")
    for own, scale, zero_point in each_scale(fields):
        found[own] = Scaled(task, scale, zero_point, x[own], codes[own], codes[own]).labels
    return found


def _of_strings(asked: StringOperation, fields: Fields) -> Groups:
    codes = fields["code"].astype(np.uint32)
    places = np.arange(asked.dtype.bits, dtype=np.uint32)
    ones = np.asarray((codes[..., None] >> places & 1).sum(axis=(1, 2)))
    whole = codes.shape[1] * asked.dtype.bits
    single, missing = (np.asarray(ones == count) for count in (1, whole - 1))
    return _first({"one_bit": single, "one_bit_missing": missing}, "random")
