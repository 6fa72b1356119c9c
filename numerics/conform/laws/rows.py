"""Blocks as rows: answers along any axis taken back as rows [n, block], and the exact answers to rows."""

from __future__ import annotations

from dataclasses import replace

from numerics.conform.task import Answer, Array, Fields, Float32, Task


def as_rows(task: Task, answer: Answer) -> Answer:
    """An answer along the task's axis, block by block."""
    shape = answer.codes.shape if isinstance(answer, Fields) else answer.shape
    blocking = task.blocking(shape)
    if not isinstance(answer, Fields):
        return blocking.rows(answer)
    shared = [None if part is None else blocking.shared_rows(part, "a shared field") for part in answer[1:]]
    assert shared[0] is not None
    return Fields(blocking.rows(answer.codes), shared[0], shared[1])


def fields_of_rows(task: Task, rows: Float32, random: Array | None = None) -> Fields:
    """The exact Fields of rows of one block each."""
    by_rows = replace(task, axis=-1)
    found = as_rows(by_rows, by_rows.fields(rows, random))
    assert isinstance(found, Fields)
    return found


def values_of_rows(task: Task, fields: Fields) -> Array:
    """What rows of blocks stand for."""
    columns = [None if part is None else part[:, None] for part in fields[1:]]
    assert columns[0] is not None
    return replace(task, axis=-1).block_values(Fields(fields.codes, columns[0], columns[1]))
