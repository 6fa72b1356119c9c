"""A counterexample asked again, alone; and deviations tried once more, before either is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, takewhile
from time import process_time
from typing import Any

import numpy as np

from numerics.conform.deviations.affine import PARAMETERS
from numerics.conform.deviations.search import Asked, Dialects, affine_differs
from numerics.conform.inputs.edges import PAGE, at_ends
from numerics.conform.laws.company import as_of, keeps_by_shape, layout, repeatable
from numerics.conform.laws.questions import Question, ask, in_place, wrong_of
from numerics.conform.laws.unwritten import as_unwritten, unwritten
from numerics.conform.targets.faults import Fault
from numerics.conform.targets.target import Target
from numerics.conform.task import Array
from numerics.conform.verdict import Counterexample
from numerics.formats.block import Block

NOT_ALONE = ("layout", "short_block", "repeatable", "monotone", "sign_symmetry", "unbiased")
"""Laws whose counterexamples are more than one number or block."""
ORDERS = 3  # in which a target is asked once more, before a deviation is named
MOST, MOST_BLOCKS = 1 << 13, 1 << 9  # numbers and blocks of each
MOST_BEGUN, PATIENCE = 1 << 15, 2.0
"""Numbers of an array that is begun at many places of a page, and the seconds of the CPU that it may take."""
LINE, NEAR = 64, 256
"""Bytes of a line of a cache, each of which is such a place; and of a page's ends, where every one is."""
COPIES = 100  # of one number, in a line that is begun at many places
IN_TURN = tuple(map(bool, (1, 0, 0, 1, 1, 0, 1, 1, 1, 0, 0, 0)))
"""Where it is asked at last, in no period of calls: at the place that was found, or at the start."""
LIES = "it depends on where the numbers lie"
ALONE = "asked alone it is right"
OTHERS = f"others; {ALONE}"
DEPENDS = "depends on the calls before it"
STORED = "where tensors begin with their storage it is right: it depends on the storage offset"
KEPT = f"it {DEPENDS}: the first of a shape is right, others of that shape are not"


def alone(target: Target, broken: Counterexample, among: tuple[Any, ...]) -> Counterexample:
    """A counterexample that is asked again, alone: if it is right then, what it depends on.

    among: all that was asked when it was wrong, what comes beside the numbers too.
    """
    if broken.tensor is None or broken.law in NOT_ALONE or _wrong(target, inputs_of(target, broken)):
        return broken
    if (left := unwritten(target, target.given(*in_place(target.task, among)))) is not None:
        return as_unwritten(replace(broken, where=f"among {len(among[0])} others"), left)
    said, law = f"among {len(among[0])} {OTHERS}", layout
    if (lies := begins(target, among, _places) or _of_copies(target, broken)) is not None:
        return as_of(broken, layout, f"{said}; {lies}")
    if not _wrong(target, among):
        said, law = f"{said}, and asked with the same others again, too: it {DEPENDS}", repeatable
    elif keeps_by_shape(lambda more: _two(target, among, more), lambda inputs: _wrong(target, inputs)):
        said, law = f"{said}; {KEPT}", repeatable
    elif by_storage(target, lambda: _wrong(target, among)):
        said = f"{said}; {STORED}"
    return as_of(broken, law, said)


def begins(
    target: Target, case: tuple[Any, ...], told: Callable[[Target, tuple[Any, ...]], Any]
) -> str | None:
    """The place in a page of memory at which a case is told otherwise than at its start, each time; in words.

    told: what is wrong of it, asked now.
    """
    x = case[0]
    if target.task.draws_itself or x.size < 2:
        return None

    def at(past: int) -> Any:
        with target.giving(begins=past, stored_alone=True):
            return told(target, case)

    step, late, first = target.kind_of(x).itemsize, process_time() + PATIENCE, at(0)
    meets = PAGE - NEAR - min(x.nbytes, NEAR)  # from where vectors of its numbers may meet the next page
    asked = (past for past in range(step, PAGE, step) if past < NEAR or past >= meets or past % LINE == 0)
    with_page = at_ends(x.size * step)[1:]  # of arrays without gaps, the place at which they end with a page
    every = chain(with_page, asked if x.size <= MOST_BEGUN else ())
    places = takewhile(lambda _: process_time() < late, every)
    found = next(((past, came) for past in places if (came := at(past)) != first), None)
    if found is None or any(at(found[0] if turn else 0) != (found[1] if turn else first) for turn in IN_TURN):
        return None
    return f"begun {found[0]} bytes past the start of a page it is otherwise than at that start: {LIES}"


def _of_copies(target: Target, broken: Counterexample) -> str | None:
    """The same of a line of the number that is wrong: it may be the first, or last, of a line of a cache."""
    if isinstance(target.task.dtype, Block):
        return None
    case = tuple(np.repeat(part, COPIES) if np.ndim(part) else part for part in inputs_of(target, broken))
    return begins(target, case, _places)


def by_storage(target: Target, wrong: Callable[[], bool]) -> bool:
    """Is what was wrong right where every tensor begins with its storage?"""
    if target.takes.array != "torch":
        return False
    with target.giving(stored_alone=True):
        return not wrong()


def inputs_of(target: Target, broken: Counterexample) -> tuple[Any, ...]:
    """What a target is given, of a counterexample that is a number or a block."""
    assert broken.tensor is not None
    parts = (broken.tensor, *broken.given)
    if not isinstance(target.task.dtype, Block):
        return parts
    return np.atleast_2d(parts[0]), *(
        part if np.ndim(part) == 0 else _row(target, part) for part in parts[1:]
    )


def _row(target: Target, part: Array) -> Array:
    return part if target.task.kind == "decode" else np.atleast_2d(part)


def _wrong(target: Target, inputs: tuple[Any, ...]) -> bool:
    return any(_places(target, inputs))


def _places(target: Target, inputs: tuple[Any, ...]) -> bytes:
    """Which of the inputs are wrong; one for all, where nothing comes that can be judged."""
    try:
        return wrong_of(target, inputs).tobytes()
    except Fault:
        return b"\1"


def _two(target: Target, inputs: tuple[Any, ...], more: int) -> Iterator[tuple[Any, ...]]:
    """The inputs with the last of them once more; others of that shape."""
    for one in (inputs, _other(target, inputs)):
        yield tuple(np.concatenate([part, part[-more:]]) if np.ndim(part) else part for part in one)


def _other(target: Target, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same numbers from last to first; with another scale and zero point, where these are given."""
    turned = tuple(np.ascontiguousarray(part[::-1]) if np.ndim(part) else part for part in inputs)
    if target.task.kind != "affine":
        return turned
    return turned[0], *next(pair for pair in PARAMETERS if pair != turned[1:])


# ---- deviations ------------------------------------------------------------------------------------


def confirmed(
    target: Target, found: Callable[[], Dialects], inputs: tuple[Any, ...]
) -> Callable[[], Dialects]:
    """Finds deviations, and names them if they explain what the target returns in other orders, too.

    What a kernel makes of one array may look like a deviation that it has not: one that takes the random
    bits of the first number for all looks as if it truncated, where these are 0.
    """

    def explain() -> Dialects:
        spoken = found()
        return (
            spoken
            if spoken and all(_explains(target, spoken, one) for one in _orders(target, inputs))
            else ()
        )

    return explain


def _orders(target: Target, inputs: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Some of the inputs in orders that were drawn, with other random bits."""
    task, most = target.task, MOST_BLOCKS if isinstance(target.task.dtype, Block) else MOST
    for seed in range(ORDERS):
        rng = np.random.default_rng((29, seed))
        order = rng.permutation(len(inputs[0]))[:most]
        chosen = tuple(part[order] for part in inputs)
        if seed and task.draws:
            chosen = chosen[0], rng.integers(0, 1 << task.drawing.bits, chosen[0].shape, dtype=np.uint32)
        yield chosen


def _explains(target: Target, spoken: Dialects, inputs: tuple[Any, ...]) -> bool:
    x, random = (*inputs, None)[:2]
    try:
        came = ask(target, Question(inputs, inputs[0]))
    except Fault:
        return False
    return not Asked(target.task, x, came, random).unexplained(spoken).any()


def confirmed_affine(
    target: Target, found: Callable[[], Dialects], every: list[Any]
) -> Callable[[], Dialects]:
    """The same, of integers with a scale and a zero point: these come in another order.

    every: what was seen at each of them.
    """

    def again(seen: Any) -> Any:
        x = np.ascontiguousarray(seen.x[::-1])
        return replace(seen, x=x, came=target.affine(x, seen.scale, seen.zero_point), due=seen.due[::-1])

    def explain() -> Dialects:
        spoken = found()
        try:
            told = spoken and not any(affine_differs(spoken, again(seen)).any() for seen in every[::-1])
        except Fault:
            return ()
        return spoken if told else ()

    return explain
