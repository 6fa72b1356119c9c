"""Upon what a fault depends: memory that nobody wrote, the calls before it, strides, shape, place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from time import process_time
from typing import Any

import numpy as np

from numerics.conform.inputs import shapes
from numerics.conform.inputs.drawn import random_inputs
from numerics.conform.laws.alone import (
    ALONE,
    DEPENDS,
    KEPT,
    LIES,
    OTHERS,
    STORED,
    begins,
    by_storage,
    inputs_of,
)
from numerics.conform.laws.company import (
    WARMED,
    as_of,
    keeps_by_shape,
    layout,
    repeatable,
    short_block,
    tires,
)
from numerics.conform.laws.filled import RESULT
from numerics.conform.laws.frozen import FROZEN
from numerics.conform.laws.questions import drawn_question, given_fields, in_place, question_of, wrong_of
from numerics.conform.laws.shrink import fault_of
from numerics.conform.laws.stays import USED_AGAIN
from numerics.conform.laws.twins import is_wrong_now, longer, twins
from numerics.conform.laws.undrawn import neighbours
from numerics.conform.laws.unwritten import as_unwritten, left_alone, unwritten
from numerics.conform.scales.of_tensor import ITS
from numerics.conform.targets.faults import SENTENCES, Fault
from numerics.conform.targets.reading import arrays_of
from numerics.conform.targets.returned import Raised
from numerics.conform.targets.target import Target
from numerics.conform.task import Array, Task
from numerics.conform.verdict import Counterexample
from numerics.formats.block import Block

SETTLED = (*SENTENCES, "repeatable", "threads", "independent", "mean", "tensor_scale")
"""Laws that say themselves upon what a fault depends, or of which no single case is wrong."""
OF_RESULTS = ("runs", "result", "shape", "dtype", "code_range", "written")
"""Those that the same inputs may break in one call and not in the next."""
PLACES = (layout.__name__, short_block.__name__, "scale_arrays")
"""Laws whose counterexamples are whole arrays."""
DRAWN, SELDOM = 64, 2  # calls of a kernel that draws for itself, and how many may be wrong by what is kept
SIZE, MOST = 978, 1 << 20  # numbers of the questions by which what is kept from call to call is found
FEW = 1 << 16  # numbers of a question, at most, that is asked in every likeness and very often
PATIENCE = 8.0  # seconds of the CPU in which what a target keeps is sought: most take less than one
TIMES = 17  # times by which shapes that are asked very often are longer than others
LARGER = (5003, 70001)
"""Numbers of the questions by which unwritten memory is found that is larger than what NumPy keeps."""
APART = 1002  # numbers by which their shapes differ, times what they differ by
SCALED, SCALED_APART = 45_000, 9_001
"""The same of arrays with scales, of which no call had as many; and of strings of bytes."""
STRIDES = "in contiguous memory it is right: it depends on the strides"
OF_ONE = "with the strides of new memory it is right: it depends on the stride of an axis of one number"
IN_MEMORY = ", in the same memory"
TIRES = f"it {DEPENDS}: the first of a shape is right, and a later one of the same numbers is not"
AGAIN = f"asked again with the same it is right: it {DEPENDS}"
EARLIER = f"it {DEPENDS}: an earlier call ({{}}), asked again, gives another result"


def depends(target: Target, broken: Counterexample) -> Counterexample:
    """A counterexample with what it depends on, of the law that says so; itself, where nothing is found."""
    if broken.law == repeatable.__name__:
        return _by_calls(target, broken)
    if broken.law in SETTLED or any(known in broken.where for known in (ITS, FROZEN, RESULT)):
        return broken
    case = case_of(target, broken)
    if (found := _held(target, broken, case)) is not None:
        return found
    if broken.law == "padding":  # which belongs to no number: right ones say nothing of it
        return broken
    if LIES in broken.where or STORED in broken.where:
        return broken
    if (found := _by_address(target, broken, case)) is not None:
        return found
    said = _calls(target, None if OTHERS in broken.where else case)
    return as_of(broken, repeatable, said) if said else _placed(target, broken, case)


def _by_calls(target: Target, broken: Counterexample) -> Counterexample:
    """A counterexample of `repeatable`, which says what is kept, where that is found."""
    if any(known in broken.where for known in (USED_AGAIN, LIES, STORED)):
        return broken
    case = case_of(target, broken)
    if (found := _held(target, broken, case)) is not None:
        return found
    if (found := _by_address(target, broken, case)) is not None:
        return found
    if DEPENDS in broken.where:
        return broken
    said = _calls(target, None if OTHERS in broken.where else case)
    return _also(broken, said) if said else broken


def _by_address(
    target: Target, broken: Counterexample, case: tuple[Any, ...] | None
) -> Counterexample | None:
    """The same of a law of places, where its place in a storage or a page decides whether it is wrong."""
    if case is None:
        return None
    wrong = _asks_again(target, case)
    lies = STORED if by_storage(target, wrong) else begins(target, case, lambda *_: wrong())
    if lies is None:
        return None
    return _also(broken, lies) if broken.law in PLACES else as_of(broken, layout, lies)


def of_fault(target: Target, fault: Fault) -> Counterexample:
    """The counterexample of a law of `SENTENCES`, which says so where the same is right when asked again."""
    task = target.task
    if fault.law not in OF_RESULTS:
        return fault.found
    found = None
    if fault.law != "runs" and len(fault.case) == _given(task):
        left = unwritten(target, fault.case)
        found = as_unwritten(fault.found, left) if left else _held_more(target, fault.case)
    asks = task.kind in ("encode", "round", "decode") and task.scale_layout is None  # that of whole matrices
    if found is not None or not asks or fault_of(target, fault.inputs) is not None:
        return found or fault.found
    where = "; ".join(part for part in (fault.found.where, AGAIN) if part)
    return replace(fault.found, where=where)


def case_of(target: Target, broken: Counterexample) -> tuple[Any, ...] | None:
    """What a target is given, array by array, of a counterexample; None where it cannot be asked again."""
    if broken.tensor is None:
        return None
    if isinstance(target.task.dtype, Block) and (broken.law not in PLACES or ALONE in broken.where):
        case = in_place(target.task, inputs_of(target, broken))
    else:
        case = broken.tensor, *broken.given
    if target.task.scale_layout is not None and np.ndim(case[0]) < 2:  # whose scales are those of matrices
        return None
    return case if len(case) == _given(target.task) else None


def _given(task: Task) -> int:
    """How many arrays and numbers a target is given."""
    if task.kind == "decode" and isinstance(task.dtype, Block):
        return len(task.dtype.fields)
    return {"affine": 3, "unpack": 2}.get(task.kind, 2 if task.draws else 1)


def is_wrong(target: Target, case: tuple[Any, ...]) -> bool:
    """Is a result of whole arrays wrong anywhere, asked now?"""
    return _asks_again(target, case)()


def _asks_again(target: Target, case: tuple[Any, ...]) -> Callable[[], bool]:
    """What says whether a result of whole arrays is wrong anywhere, asked then; what is due is found once."""
    differs = _differing(target, case)

    def asks() -> bool:
        try:
            return differs()
        except Fault:
            return True

    return asks


def _differing(target: Target, case: tuple[Any, ...]) -> Callable[[], bool]:
    task = target.task
    if task.kind in ("affine", "pack", "unpack") or task.rule is not None:
        return lambda: bool(wrong_of(target, case).any())
    if task.draws_itself:
        return lambda: _is_no_neighbour(target, case)
    plain = tuple(map(np.ascontiguousarray, case))
    if not isinstance(task.dtype, Block):
        of_numbers = np.asarray(task.values(case[0]) if task.kind == "decode" else task.answer(*case))
        return lambda: bool(task.differs(target.elements(*case), of_numbers).any())
    due = task.block_values(given_fields(plain)) if task.kind == "decode" else task.answer(*plain)
    return lambda: any(task.differs(*pair).any() for pair in task.pairs(target.blocks(*case), due))


def _is_no_neighbour(target: Target, case: tuple[Any, ...]) -> bool:
    came = target.elements(*case)
    return bool(target.task.differs(came, neighbours(target, case[0], came)).any())


# ---- memory that nobody wrote ----------------------------------------------------------------------


def _held(target: Target, broken: Counterexample, case: tuple[Any, ...] | None) -> Counterexample | None:
    """The same, of the law `written`, where what came is what the memory of the result held before.

    Of a result of few bytes, whose memory a target's own short arrays have held meanwhile, larger ones are
    asked.
    """
    if case is not None and (said := unwritten(target, target.given(*case))) is not None:
        return as_unwritten(replace(broken, where="") if ALONE in broken.where else broken, said)
    return _held_more(target, case)


def _held_more(target: Target, case: tuple[Any, ...] | None) -> Counterexample | None:
    """A counterexample of that law of results that need more memory."""
    for inputs in _larger(target, case):
        if (said := unwritten(target, target.given(*inputs))) is not None:
            return left_alone(inputs[0], said)
    return None


def _larger(target: Target, case: tuple[Any, ...] | None) -> Iterator[tuple[Any, ...]]:
    """What needs more memory: the same lines many times, where there are few; then what is drawn."""
    task = target.task
    if case is not None and task.kind in ("encode", "round", "decode"):
        x, lines = case[0], int(isinstance(task.dtype, Block) and task.axis % max(1, np.ndim(case[0])) == 0)
        if 0 < x.size < LARGER[0] and x.ndim > lines:
            times = LARGER[0] // x.size | 1  # an odd number: what is left over of tiles stays so
            yield tuple(np.concatenate([part] * times, axis=lines) for part in case)
    rng = np.random.default_rng(71)
    for size in LARGER:
        if task.draws_itself:
            yield (_drawn(target, size, rng),)
        else:
            yield in_place(task, drawn_question(target, size, rng).inputs)


# ---- the calls before it ---------------------------------------------------------------------------


def _calls(target: Target, case: tuple[Any, ...] | None) -> str | None:
    """What is kept from call to call, in words."""
    if case is not None and _is_right_again(target, case):
        return AGAIN
    if (call := _changed(target)) is not None:
        return EARLIER.format(call)
    sizes = {SIZE, SIZE if case is None else min(MOST, max(SIZE, case[0].size // 2 * 2))}
    until = process_time() + PATIENCE
    try:
        return next(filter(None, (_kept(target, size, case, until) for size in sorted(sizes))), None)
    except _Spent:
        return None


class _Spent(Exception):
    """A target is so slow that what it keeps is not sought any longer."""


def _kept(target: Target, size: int, case: tuple[Any, ...] | None, until: float) -> str | None:
    """The same of questions of about so many numbers, that are like each other: of many, of fewer likenesses.

    At last in the same memory, written anew.  until: by the CPU's time of this process; raises _Spent then.
    """

    def wrong(asks: Callable[[], bool]) -> bool:
        if process_time() > until:
            raise _Spent
        return asks()

    own = _numbers(target, size, case)
    likenesses = [twin.alike for twin in twins(target.task, own)][: None if size <= FEW else 1]
    memories: list[dict[Any, Array] | None] = [None, {}]
    for memory in memories[: None if size <= FEW else 1]:
        with target.giving(rewritten=memory):
            for alike in likenesses:
                if keeps_by_shape(lambda more, alike=alike: _two(target, size, more, case, alike),  # type: ignore[misc]
                                  wrong, WARMED if memory is None else 1):  # fmt: skip
                    return f"{KEPT}, {alike}" + IN_MEMORY * (memory is not None)
    if size <= FEW and tires(lambda more: _two(target, size, TIMES * more, case), wrong):
        return TIRES
    return None


def _is_right_again(target: Target, case: tuple[Any, ...]) -> bool:
    """Is what was wrong right now?  Of a kernel that draws for itself: in nearly all of many calls."""
    if not target.task.draws_itself:
        return not all(is_wrong(target, case) for _ in range(2))
    return sum(is_wrong(target, case) for _ in range(DRAWN)) <= SELDOM


def _changed(target: Target) -> str | None:
    """Which of the first calls gives another result now: of those whose arrays have no gaps.

    What a kernel reads between numbers is memory that no call has kept.
    """
    if target.task.draws_itself:
        return None
    for number, (case, before) in enumerate(target.early, 1):
        arrays = target.arrays_in(case)
        if not all(x.flags.c_contiguous for x in arrays):
            continue
        try:
            now = arrays_of(target.once(case), arrays)
        except (Fault, Raised):
            return None
        if [x.tobytes() for x in before] != [x.tobytes() for x in now]:
            return f"number {number}, of shape {case[0].shape}"
    return None


def _two(
    target: Target, size: int, more: int, case: tuple[Any, ...] | None, alike: str = ""
) -> Iterator[Callable[[], bool]]:
    """Asks two questions of one shape that no call had: each says whether it is wrong now.

    alike: in what the second one is like the first; the first of the likenesses, where it is not said.
    """
    task = target.task
    own = _numbers(target, size, case)
    if longer(task, own, 1) is None:
        own = _numbers(target, SCALED + SCALED_APART * more, case)
    other = next(twin.inputs for twin in twins(task, own) if not alike or twin.alike == alike)
    for inputs in (own, other):
        yield _asks(target, longer(task, inputs, APART * more) or inputs)


def _asks(target: Target, inputs: tuple[Any, ...]) -> Callable[[], bool]:
    """Asks them, of which it is known what is due: of blocks as rows."""
    if target.task.draws_itself:
        return lambda: is_wrong(target, inputs)
    question = question_of(target.task, inputs)
    return lambda: is_wrong_now(target, question)


def _numbers(target: Target, size: int, case: tuple[Any, ...] | None) -> tuple[Any, ...]:
    """About so many numbers, with what comes beside them.

    case: what was wrong, whose numbers are half of theirs, if it is an array of several.
    """
    task, rng = target.task, np.random.default_rng(67)
    if task.draws_itself:
        inputs: tuple[Any, ...] = (_drawn(target, size, rng),)
    else:
        inputs = drawn_question(target, size, rng).inputs
    first, *others = inputs
    if case is not None and len(case) == len(inputs) == 1 and task.kind in ("encode", "round", "decode"):
        known = np.ascontiguousarray(case[0]).reshape(-1)
        if known.size > 1 and first.ndim == 1:
            first = np.where(np.arange(first.size) % 2, first, np.resize(known, first.size))
    return first, *others


def _drawn(target: Target, size: int, rng: np.random.Generator) -> Array:
    """So many numbers, nearly, of a target that draws for itself."""
    return target.asked(random_inputs(target.task.element, size, rng).view(np.float32))


# ---- strides, shape, place -------------------------------------------------------------------------


def _placed(target: Target, broken: Counterexample, case: tuple[Any, ...] | None) -> Counterexample:
    """The same with what makes it right: memory without gaps, or another shape; as far as one can tell."""
    if broken.law not in PLACES or case is None or ALONE in broken.where:
        return broken
    plain = tuple(x.copy() if np.ndim(x) else x for x in case)
    strided = any(np.ndim(x) and not shapes.is_plain(x) for x in case)
    if strided and not is_wrong(target, plain):
        return _also(broken, STRIDES if _has_gaps(case) else OF_ONE)
    if case[0].ndim == 0 and not is_wrong(target, tuple(np.reshape(x, (1,)) for x in case)):
        return _also(broken, "in an array of shape (1,) it is right: it depends on the shape ()")
    return broken


def _has_gaps(case: tuple[Any, ...]) -> bool:
    return not all(x.flags.c_contiguous for x in case if isinstance(x, np.ndarray))


def _also(broken: Counterexample, said: str) -> Counterexample:
    return replace(broken, where=f"{broken.where}; {said}")
