"""Trials of blocks: quantizers that give codes or values, decoders; short blocks, any axis and strides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np

from numerics.conform.deviations.search import Asked, decoded_elsewhere, nearest
from numerics.conform.effort import AS_EVER, Effort
from numerics.conform.inputs import blocks, narrow, random_bits, shapes
from numerics.conform.inputs.close_calls import close_calls
from numerics.conform.inputs.edges import at_ends
from numerics.conform.inputs.margins import UNUSED
from numerics.conform.inputs.narrow import type_of
from numerics.conform.inputs.shapes import uneven
from numerics.conform.inputs.spread import Shapes
from numerics.conform.laws import block_layouts, counted, drawn
from numerics.conform.laws.alone import alone, confirmed
from numerics.conform.laws.blocks import BLOCK_DECODE_LAWS, BLOCK_LAWS, SeenBlocks, SeenFields
from numerics.conform.laws.findings import Findings, Named, Trial, layout, misplaced, short_block, together
from numerics.conform.laws.law import Law
from numerics.conform.laws.questions import Question, rounded_values
from numerics.conform.laws.rows import as_rows, fields_of_rows, values_of_rows
from numerics.conform.laws.shrink import simpler_block
from numerics.conform.scales import of_tensor
from numerics.conform.takes import Takes
from numerics.conform.targets.faults import Fault
from numerics.conform.targets.reading import arrays_of
from numerics.conform.targets.target import Target
from numerics.conform.task import TOP, Answer, Array, Fields, Float32, Task, answers_at
from numerics.conform.verdict import Counterexample, numbers
from numerics.formats.block import Block
from numerics.interop.layouts import CUBLAS


class Pair(NamedTuple):
    """What came and what was due; part: which field of blocks it is, 0 of codes, and of values."""

    came: Array
    due: Array
    part: int = 0


def trials(task: Task, takes: Takes, effort: Effort = AS_EVER, named: Shapes = ()) -> Iterator[Trial]:
    """Whole blocks, then lines of several blocks and of short ones, then memory that is not contiguous.

    named: shapes that are asked, too.
    """
    lines = (layout,) if takes.whole_blocks else (short_block, layout)
    if task.finds_scale:
        yield of_tensor.first()
    if task.kind == "decode":
        yield Trial(BLOCK_DECODE_LAWS, _decode)
    else:
        yield Trial(BLOCK_LAWS, _whole)
    if task.finds_scale:
        yield of_tensor.trial(effort)
    if task.inputs == "float64" and task.kind != "decode" and not task.draws:
        yield Trial(BLOCK_LAWS, _doubles)
    yield Trial((layout,), _rearranged)
    yield Trial((layout,), _counted)
    yield Trial((layout,), lambda target, found: _in_tensors(target, found, block_layouts.everything, effort))
    yield Trial(lines, lambda target, found: _lines(target, found, named))
    yield Trial(
        (layout,), lambda target, found: _in_tensors(target, found, block_layouts.in_long_lines, effort)
    )
    if task.kind == "encode" and task.scale_layout in ZEROS_BEYOND:
        yield Trial((padding,), _padded)
    if not takes.contiguous:
        yield Trial((), _strided)
        yield Trial((), lambda target, found: _in_tensors(target, found, block_layouts.laid, effort))
    yield Trial((layout,), _at_pages)
    yield from drawn.repeated(task, takes, effort, None if task.kind == "decode" else _alone)


# ---- whole blocks ---------------------------------------------------------------------------------


def _whole(target: Target, found: Findings) -> None:
    """Every threshold of a scale, every element at some scales, every scale, what is no number."""
    task = target.task
    every = probes(task)
    kept = target.keeps(every)
    rows, truth = every[kept], _kept(_truth_of_probes(task), kept)
    random = _draws_of_probes(task)[kept] if task.draws else None
    seen = _observe(target, rows, random, truth)
    found.tried += len(rows)

    def simpler(law: Law, broken: Counterexample) -> Counterexample:
        def observe(x: Float32) -> SeenBlocks:
            drawn = np.broadcast_to(broken.given[0], x.shape) if broken.given else None
            return replace(_observe(target, x, drawn), blame=seen.blamed)

        given = (rows,) if random is None else (rows, random)
        return alone(target, simpler_block(law, broken, observe), given)

    found.judge(BLOCK_LAWS, seen, simpler)
    if found.failures:
        asked = Asked(task, rows, seen.came, random)
        given = (rows,) if random is None else (rows, random)
        found.explain = confirmed(target, lambda: nearest(asked, seen.wrong, seen.labels), given)
        if task.finds_scale:
            found.explain = of_tensor.or_of_tensor(target, found.explain)


def _doubles(target: Target, found: Findings) -> None:
    """Blocks that no float32 holds: the maximum, or all the others, a little beside what matters."""
    task, every = target.task, probes(target.task)
    some = every[np.isfinite(every).all(axis=1)]
    some = some[np.random.default_rng(5).permutation(len(some))[:MOST_DOUBLES]]
    moves = np.arange(task.block.block) == 0
    wide = np.concatenate(
        [narrow.beside(some, np.where(moved, bit, 0)) for moved in (moves, ~moves) for bit in DOUBLES]
        + [_spoiled(task.block.block)]
    )
    wide = wide[target.keeps(narrow.single(wide))]
    rows = narrow.single(wide)
    came = as_rows(task, target.blocks(shapes.placed(wide, task.axis)))
    fields, due = _truth(task, rows)
    came = task.with_same_nan(came, fields) if isinstance(came, Fields) else came
    found.tried += len(rows)

    seen = SeenBlocks(task, rows, came, due, fields)

    def exact(law: Law, broken: Counterexample) -> Counterexample:
        shown_row = np.asarray(broken.tensor, np.float32)
        same = (rows == shown_row) | np.isnan(rows) & np.isnan(shown_row)
        at = np.flatnonzero(seen.wrong & same.all(axis=1))[:1]
        shown = [narrow.exactly(x) for x in wide[at].reshape(-1) if x != 0]
        return replace(broken, where=f"as float64 {', '.join(shown)}", tensor=None)

    found.judge(BLOCK_LAWS, seen, exact)


def _spoiled(block: int) -> Array:
    """Rows of ones, with one float64 in each that is NaN or Inf, or that no float32 holds."""
    beyond = narrow.beyond()
    rows = np.ones((len(beyond), block))
    rows[np.arange(len(beyond)), np.arange(len(beyond)) % block] = beyond
    return rows


def _alone(target: Target, found: Findings, question: Question, at: Array) -> None:
    """Judges blocks that were wrong among many, by the laws of blocks."""
    found.judge(BLOCK_LAWS, _observe(target, *(part[at] for part in question.inputs)))


def by_block(target: Target, broken: Counterexample) -> list[Counterexample]:
    """What a fault of place is by the laws of blocks, where a block of its array is wrong alone, too.

    A short one with the zeros that fill it up.
    """
    task, x = target.task, broken.tensor
    plain = isinstance(task.dtype, Block) and task.kind in ("encode", "round") and not task.draws
    placed = broken.law in (layout.__name__, short_block.__name__)
    if not placed or not plain or task.finds_scale or x is None or x.ndim < 2:
        return []
    if not x.size or x.dtype != np.float32:
        return []
    rows = task.blocking(x.shape).rows(np.ascontiguousarray(x))[:MOST_ALONE]
    found = Findings()
    with suppress(Fault):  # of a target that is not wrong in the same way again
        found.judge(BLOCK_LAWS, _observe(target, rows), lambda _, one: alone(target, one, (rows,)))
    laws = {law.__name__ for law in BLOCK_LAWS}
    return [one for one in found.failures if one.law in laws]


def _observe(
    target: Target, rows: Float32, random: Array | None = None, truth: tuple[Fields, Answer] | None = None
) -> SeenBlocks:
    """Whole blocks, given to the target along its axis and taken back as rows."""
    task = target.task
    inputs = [shapes.placed(part, task.axis) for part in (rows, random) if part is not None]
    came = as_rows(task, target.blocks(*inputs))
    fields, due = _truth(task, rows, random) if truth is None else truth
    if isinstance(came, Fields):
        came = task.with_same_nan(came, fields)
    return SeenBlocks(task, rows, came, due, fields, random)


def _truth(task: Task, rows: Float32, random: Array | None = None) -> tuple[Fields, Answer]:
    """The exact Fields of rows, and the answer that is due."""
    fields = fields_of_rows(task, rows, random)
    return fields, fields if task.kind == "encode" else rounded_values(task, fields)


def _kept(truth: tuple[Fields, Answer], kept: Array) -> tuple[Fields, Answer]:
    fields, due = (answers_at(answer, kept) for answer in truth)
    assert isinstance(fields, Fields)
    return fields, due


def probes(task: Task) -> Float32:
    """The blocks that matter, in the type that the target takes."""
    return _probes(task.block, task.scale_rule, task.tensor_scale, task.inputs)


@lru_cache(maxsize=64)
def _probes(dtype: Block, rule: str, tensor_scale: float | None, inputs: str) -> Float32:
    every = narrow.narrowed(blocks.probes(dtype, tensor_scale), inputs)
    contested = close_calls(dtype, rule, tensor_scale, inputs)
    return np.concatenate([every, contested]) if len(contested) else every


# ---- what is due to the probes, which every target of a task is given --------------------------------


def _truth_of_probes(task: Task) -> tuple[Fields, Answer]:
    shared = replace(task, kind="encode", axis=-1, strict_nan=False)
    return _probed_fields(shared), _probed_fields(shared) if task.kind == "encode" else _probed_values(shared)


@lru_cache(maxsize=64)
def _probed_fields(task: Task) -> Fields:
    return fields_of_rows(task, probes(task), _draws_of_probes(task) if task.draws else None)


@lru_cache(maxsize=64)
def _probed_values(task: Task) -> Array:
    return rounded_values(task, _probed_fields(task))


@lru_cache(maxsize=64)
def _decoded_probes(task: Task) -> Array:
    return values_of_rows(task, blocks.codes(task.block))


def _draws_of_probes(task: Task) -> Array:
    """Random bits at, just below and just above the threshold of each element, least and greatest ones."""
    drawn = _drawn(replace(task, kind="encode", axis=-1, strict_nan=False, rounding="half_even"))
    return task.drawing.narrow(drawn)


@lru_cache(maxsize=64)
def _drawn(task: Task) -> Array:
    rows = probes(task)
    return random_bits.of_blocks(task, rows, _probed_fields(task))


# ---- the same blocks in other company ---------------------------------------------------------------

DOUBLES = (1 << 28, -(1 << 28), 1, -1)
"""Units of a float64's last place: just short of half a float32's, and the least."""
MOST_ALONE = 1 << 12  # blocks of an array that are asked again, each for itself
MOST_DOUBLES = 600  # blocks of which each is so moved
PER_LINE = (1, 5, 64, 320)  # 320: more than a byte counts
FAR, MOST = (
    65_601,
    1 << 22,
)  # lines of a block each: more than a grid of a GPU has in its second axis; numbers
TALL = (4_099, 3)  # lines and blocks of each: a grid of two axes
PLACED = 1 << 20  # numbers, at most, of lines in which the maximum stands in every place of every block
CUT_LINES, LAST_LINES = 257, 8  # whose last blocks are cut short, and how many of them stand alone
ZEROS_BEYOND = (CUBLAS,)
"""Layouts whose makers say that bytes which belong to no block are 0."""
PADDED = ((1, 1), (5, 3), (127, 4), (128, 6), (129, 5), (300, 2))
"""Rows, and blocks of each, that fill no tile of 128 by 4."""
PAGED = ((1, 1), (3, 5), (5, 33))  # lines, and blocks of each, that end where a page of memory does
MANY = 2560  # blocks: more than a grid of threads, or a tile of scales, takes at once


def _rearranged(target: Target, found: Findings) -> None:
    """The blocks of before in another order, and many in a line: what is due to them is known."""
    _ask_in_order(target, found, _orders(target))


def _counted(target: Target, found: Findings) -> None:
    """Every number of blocks, in a line and of lines, no one of which has the scale of its neighbour."""
    task = target.task
    decodes = task.kind == "decode"
    scales = blocks.codes(task.block).scale if decodes else _truth_of_probes(task)[0].scale
    kept = np.arange(len(scales)) if decodes else np.flatnonzero(target.keeps(probes(task)))
    _ask_in_order(target, found, counted.orders(task.block.block, scales, kept))


def _ask_in_order(target: Target, found: Findings, orders: Iterator[Array]) -> None:
    task = target.task
    if task.draws:
        return
    for order in orders:
        if found.failures:
            return
        inputs, due = _in_lines(target, order)
        given = [shapes.placed(part, task.axis) for part in inputs]
        came = target.blocks(*given)
        found.tried += order.size
        for part, pair in enumerate(task.pairs(as_rows(task, came), due)):
            found_there, due_there = _in_place(task, pair, len(order))
            _expect_equal(task, found, given, Pair(found_there, due_there, part), layout)


def _in_place(task: Task, answers: tuple[Array, Array], lines: int) -> tuple[Array, Array]:
    """What belongs to blocks, row by row, where it stands in so many lines of them."""
    one, other = (shapes.placed(part.reshape(lines, -1), task.axis) for part in answers)
    return one, other


def _orders(target: Target) -> Iterator[Array]:
    """Which of the probes, or of a decoder's blocks, stand in lines [lines, blocks of a line]."""
    task = target.task
    decodes = task.kind == "decode"
    kept = (
        np.arange(len(blocks.codes(task.block).codes))
        if decodes
        else np.flatnonzero(target.keeps(probes(task)))
    )
    for per_line in PER_LINE:
        order = np.random.default_rng(per_line).integers(0, len(kept), MANY)
        yield kept[order].reshape(-1, per_line)
    n = task.block.block
    if TALL[0] * TALL[1] * n <= MOST:
        order = np.random.default_rng(TALL[0]).integers(0, len(kept), TALL)
        yield kept[order]
    if FAR * n <= MOST:
        yield kept[np.random.default_rng(FAR).integers(0, len(kept), FAR)].reshape(-1, 1)
    if not decodes:
        lines = min(2 * n, max(1, PLACED // (PER_LINE[-1] * n)))
        yield blocks.lone_places(task.block, lines, PER_LINE[-1])


def _in_lines(target: Target, order: Array) -> tuple[list[Array], Answer]:
    """Blocks in lines, and the answers to each block."""
    task = target.task
    lines, order = len(order), order.reshape(-1)
    if task.kind == "decode":
        chosen = answers_at(blocks.codes(task.block), order)
        assert isinstance(chosen, Fields)
        parts = [part.reshape(lines, -1) for part in chosen if part is not None]
        return parts, answers_at(_decoded_probes(replace(task, axis=-1)), order)
    return [probes(task)[order].reshape(lines, -1)], answers_at(_truth_of_probes(task)[1], order)


def _in_tensors(target: Target, found: Findings, ask_all: block_layouts.AskAll, effort: Effort) -> None:
    """The blocks of before in tensors of every shape and memory, and those of one class; or in long lines."""
    task = target.task
    if task.kind == "decode":
        codes, *others = (part for part in blocks.codes(task.block) if part is not None)
        due: Answer = _decoded_probes(replace(task, axis=-1))
        known = block_layouts.Known((codes,), tuple(others), due, np.arange(len(codes)))
    else:
        elements = (probes(task), *[_draws_of_probes(task)] * task.draws)
        kept = np.flatnonzero(target.keeps(elements[0]))
        known = block_layouts.Known(elements, (), _truth_of_probes(task)[1], kept)

    def ask(given: list[Array], due: Answer) -> None:
        if found.failures:
            return
        came = target.blocks(*given)
        found.tried += task.blocking(given[0].shape).count
        for part, pair in enumerate(task.pairs(came, due)):
            _expect_equal(task, found, given, Pair(*pair, part), layout)

    ask_all(task, known, target.takes, ask, effort)


# ---- lines of blocks --------------------------------------------------------------------------------


def _lines(target: Target, found: Findings, named: Shapes) -> None:
    """Last blocks that are short, and whole ones in longer lines and more axes."""
    task, whole = target.task, target.takes.whole_blocks
    every = shapes.tensors(task, whole), _cut_short(target), shapes.long_tensors(task, whole, named)
    for x in _asked(target, chain(*every)):
        if not found.failures:
            short = bool(x.shape[target.task.axis] % target.task.block.block)
            _compare(target, found, x, short_block if short else layout)


def _cut_short(target: Target) -> Iterator[Array]:
    """The probes in lines whose last blocks are cut: ties, what saturates and what is small stand last."""
    size = target.task.block.block
    if target.takes.whole_blocks or size == 1:
        return
    every = target.asked(probes(target.task))
    lefts, whole = (1, min(3, size - 1), size // 2, size - 1), target.task.fill_bytes
    for turn, left in enumerate(sorted({max(whole, left // whole * whole) for left in lefts})):
        rng = np.random.default_rng((left, size))
        lines = max(1, min(CUT_LINES, MOST // 64 // size))
        rows = every[rng.integers(0, len(every), (lines, 1 + turn % 3))].reshape(lines, -1)
        last = every[rng.integers(0, len(every), lines)]
        move = rng.integers(0, size, lines)[:, None]
        turned = np.take_along_axis(last, (np.arange(size) + move) % size, axis=1)
        x = np.concatenate([rows, turned[:, :left]], axis=1)
        yield shapes.placed(x, target.task.axis)
        yield from (shapes.placed(line[None], target.task.axis) for line in x[:LAST_LINES])


def _asked(target: Target, every: Iterator[Array]) -> Iterator[Array]:
    """Those tensors that a target takes: finite ones alone, or of numbers that its tensor scale reaches.

    Of packed codes, and of scales in tiles, those that have whole bytes, or rows.
    """
    rank = 1 if target.task.scale_layout is None else 2
    for x in every:
        if x.shape[target.task.axis] % target.task.fill_bytes or x.ndim < rank:
            continue
        if not target.takes.finite or target.task.kind == "decode" or np.isfinite(x).all():
            yield shapes.fitting(x, TOP) if target.task.finds_scale else x


def padding() -> None:
    """Bytes of tiles that belong to no block are 0 (cuBLAS, "1D Block Scaling Factors Layout")."""


def _padded(target: Target, found: Findings) -> None:
    """Matrices of rows and blocks that fill no tile; in memory that holds something else."""
    task = target.task
    layout = task.scale_layout
    assert layout is not None
    for rows, count in PADDED:
        x = uneven(rows, count * task.block.block, task.block.block)
        given = target.given(x)  # of a target that finds the tensor's scale, a row or block more
        shared = task.blocking(given[0].shape).shared_shape
        beyond = layout.arrange(np.ones(shared, np.uint8)) == 0
        target.blocks(x)  # of the right shape and type
        with target.holding(UNUSED):
            _, scale, *_ = arrays_of(target.called(*given), (x,))
        came = np.ascontiguousarray(scale).view(np.uint8)
        found.tried += int(beyond.sum())
        if (wrong := beyond & (came != 0)).any():
            found.differs += int(wrong.sum())
            broken = misplaced(x, came, np.zeros_like(came), wrong, padding)
            found.failures.append(broken)
            return


def _strided(target: Target, found: Findings) -> None:
    """Blocks in memory that is not contiguous."""
    for x in _asked(target, shapes.strided(target.task, target.takes.backward)):
        if not found.failures:
            _compare(target, found, x, layout)


def _at_pages(target: Target, found: Findings) -> None:
    """Blocks that begin where a page of memory does, and that end where one does; lines of one axis, too."""
    task = target.task
    kind = task.block.code_dtype if task.kind == "decode" else type_of(task.inputs)
    every, rng = target.asked(probes(task)), np.random.default_rng(53)
    for rows, count in PAGED:
        lines = every[rng.integers(0, len(every), rows * count)].reshape(rows, -1)
        forms = [shapes.placed(lines, task.axis), *[lines.reshape(-1)] * (task.axis in (0, -1))]
        for x in _asked(target, iter(forms)):
            for past in at_ends(x.size * np.dtype(kind).itemsize):
                if not found.failures:
                    with target.giving(begins=past, stored_alone=True):
                        _compare(target, found, x, layout)


def _compare(target: Target, found: Findings, x: Array, law: Named) -> None:
    task = target.task
    found.tried += task.blocking(x.shape).count
    if task.kind == "decode":
        _compare_decoded(target, found, x, law)
        return
    for given in shapes.beside(x, *shapes.draws_of(task, x.shape)):
        if not found.failures:
            _compare_given(target, found, given, law)


def _compare_given(target: Target, found: Findings, given: tuple[Array, ...], law: Named) -> None:
    """given: numbers; and random bits, where the target takes them."""
    task, came = target.task, target.blocks(*given)
    due = task.answer(*map(np.ascontiguousarray, given))
    for part, pair in enumerate(task.pairs(came, due)):
        _expect_equal(task, found, given, Pair(*pair, part), law)


def _compare_decoded(target: Target, found: Findings, x: Array, law: Named) -> None:
    """The blocks of x, whose codes have its strides."""
    task = target.task
    fields = task.fields(np.ascontiguousarray(x))
    due = task.block_values(fields)
    shared = [part for part in fields[1:] if part is not None]
    for given in shapes.beside(shapes.like(fields.codes, x), *shared):
        came = target.blocks(*given)
        assert isinstance(came, np.ndarray)
        _expect_equal(task, found, given, Pair(came, due), law)


def _expect_equal(task: Task, found: Findings, given: Sequence[Array], answers: Pair, law: Named) -> None:
    """given: numbers or codes, and what comes beside them."""
    wrong = task.differs(answers.came, answers.due)
    if wrong.any() and not found.failures:
        name = "scales" if task.kind == "decode" else "random bits"
        law = layout if law is short_block and not _is_short(task, given[0], wrong) else law
        broken = misplaced(given[0], answers.came, answers.due, wrong, law)
        if answers.part:
            broken = _of_shared(task, given[0], broken, answers)
        found.failures.append(together(broken, given[1:], name))


def _is_short(task: Task, x: Array, wrong: Array) -> bool:
    """Is the first block that is wrong the short one at the end of its line?"""
    axis, whole = task.axis % x.ndim, x.shape[task.axis] // task.block.block
    of_numbers = wrong.shape == x.shape
    by_block = wrong if of_numbers or wrong.ndim == x.ndim else task.blocking(x.shape).shared(wrong)
    at = int(np.argwhere(by_block)[0][axis])
    return bool(at // (task.block.block if of_numbers else 1) == whole)


def _of_shared(task: Task, x: Array, broken: Counterexample, answers: Pair) -> Counterexample:
    """The same of a field that blocks share: which block it is, and the largest of its numbers."""
    blocking, field = task.blocking(x.shape), tuple(task.block.fields)[answers.part]
    came, due = (one if one.ndim == x.ndim else blocking.shared(one) for one in answers[:2])
    at = tuple(int(i) for i in np.argwhere(task.differs(came, due))[0])
    axis, size = task.axis % x.ndim, task.block.block
    block = x[tuple(slice(i * size, (i + 1) * size) if a == axis else i for a, i in enumerate(at))]
    shown = numbers(block[[int(np.abs(np.nan_to_num(block)).argmax())]]) if block.dtype == np.float32 else ()
    where = f"{field} of block {at} of an array of shape {x.shape}"
    if task.scale_layout is not None:
        where += ", counted row by row, not in the order of the layout"
    return replace(broken, input=shown, came=f"{field} 0x{int(came[at]):02X}", due=f"0x{int(due[at]):02X}",
                   where=f"{where}, strides {shapes.steps_of(x)}")  # fmt: skip


# ---- decoding ---------------------------------------------------------------------------------------


def _decode(target: Target, found: Findings) -> None:
    """Every code at some scales, and every scale."""
    task = target.task
    rows = blocks.codes(task.block)
    shared = [part[:, None] for part in rows[1:] if part is not None]
    due = _decoded_probes(replace(task, axis=-1))
    came = target.blocks(*(shapes.placed(part, task.axis) for part in (rows.codes, *shared)))
    assert isinstance(came, np.ndarray)
    found.tried += rows.codes.size
    given = tuple(part for part in rows if part is not None)
    seen = SeenFields(task, rows, task.blocking(came.shape).rows(came), due)
    found.judge(BLOCK_DECODE_LAWS, seen, lambda law, broken: alone(target, broken, given))
    if found.failures:
        found.explain = lambda: decoded_elsewhere(task, rows, seen.came)
