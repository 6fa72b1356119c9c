"""Which known faults explain what came of a product: the fewest, under which everything is as it came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from numerics.conform.products.certificate import Mask, answer, reach, results_of
from numerics.conform.products.problem import SMALLEST, VIA, Problem
from numerics.conform.products.telling.deviations.deviation import ProductDeviation
from numerics.conform.products.telling.deviations.table import DEVIATIONS, OF_BIASES, OF_BLENDS, TOGETHER

if TYPE_CHECKING:
    from numerics.conform.products.asking import Seen

MOST = 3  # deviations at once
TOLD = 8  # wrong products, and right ones, that a deviation must explain before all are looked at
TERMS = 1 << 14  # of all sums of a product that is looked at whole; of a larger one some rows are
ROWS = 4  # of them, with their neighbours
FIRST = 4  # of them, by which guesses are sorted
FOLLOWED = 4  # guesses that are looked at further
AGAIN = 3  # times that other products are told, where those that were explained say too little
ENOUGH = 64  # decided results of the shapes that are wrong, where these alone are explained
NORMAL = "; subnormal numbers it does not explain"
ALONE = ", in shapes like this one: the others that were asked are right"


def explained(seen: Sequence[Seen]) -> tuple[ProductDeviation, ...]:
    """The fewest deviations that give everything that came and is decided under them; none where none do.

    Of those that explain as much, the one under which most of what is wrong is decided: it says most of it.
    Where none explains all, those that explain everything of products without subnormal numbers, or else of
    the shapes in which something is wrong: kernels go other ways in others.
    """
    if found := _explaining(seen):
        return found
    shapes = {_form(one) for one in seen if one.wrong.any()}
    normal = [one for one in seen if not _has_small_numbers(one.problem)]
    for some, said in ((normal, NORMAL), ([one for one in seen if _form(one) in shapes], ALONE)):
        told = len(some) < len(seen) and any(one.wrong.any() for one in some)
        enough = told and sum(int(one.decided.sum()) for one in some) >= ENOUGH
        if enough and (found := _explaining(some)):
            return tuple(replace(one, sentence=one.sentence + said) for one in found)
    return ()


def _has_small_numbers(problem: Problem) -> bool:
    """Are its numbers, or scales of float32, subnormal?"""
    scales = [side.scale for side in (problem.a, problem.b) if side.scale is not None]
    least = SMALLEST["float32"]
    return problem.law == "subnormals" or any(
        bool(((scale != 0) & (np.abs(scale) < least)).any()) for scale in scales if scale.dtype.kind == "f"
    )


def _form(seen: Seen) -> tuple[tuple[int, ...], ...]:
    return seen.problem.shape, seen.problem.batch


def _explaining(seen: Sequence[Seen]) -> tuple[ProductDeviation, ...]:
    told = _telling(seen)
    for _ in range(AGAIN):
        spoken = _fewest(told, seen)
        if not spoken or not _unexplained(spoken, seen)[0]:
            return spoken if all(_says_something(one, spoken, seen) for one in spoken) else ()
        against = [one for one in seen if _counted(spoken, [one])[0]]
        told = [*(against or [one for one in seen if one.wrong.any()])[:FIRST], *told]
    return ()


def _says_something(one: ProductDeviation, spoken: Sequence[ProductDeviation], seen: Sequence[Seen]) -> bool:
    """Does a deviation give a result that the others do not, where it is not alone?

    Another accumulator leaves fewer results decided: so it may explain all that came, and say nothing.
    """
    others = [other for other in spoken if other is not one]
    bent_ = one.bend(seen[0].problem)
    if not others or bent_ is None or bent_.claim.accumulate == seen[0].problem.claim.accumulate:
        return True
    return any(bool((_given(spoken, each) & ~_given(others, each)).any()) for each in seen)


def _given(spoken: Sequence[ProductDeviation], seen: Seen) -> Mask:
    """The wrong results that deviations give, to the last bit."""
    from numerics.conform.products.asking import unequal

    problem = _bent(spoken, seen.problem)
    if problem is None:
        return np.zeros(seen.came.shape, np.bool_)
    due, decided = answer(problem)
    return np.asarray(seen.wrong & decided & ~unequal(seen.came, due))


def _bent(spoken: Sequence[ProductDeviation], problem: Problem) -> Problem | None:
    """What deviations make of a problem, one after the other; None where they say nothing of it."""
    found: Problem | None = problem
    with np.errstate(all="ignore"):
        for deviation in spoken:
            found = None if found is None else deviation.bend(found)
    return found


def _fewest(told: Sequence[Seen], seen: Sequence[Seen]) -> tuple[ProductDeviation, ...]:
    """The fewest deviations that explain some products, and all that were seen if any do; else none.

    Two that meet under autocast are tried together, since neither alone explains more than others do.
    """
    found = _one_by_one(told, seen)
    if len(found) == 1:
        return found
    parts = (told[:FIRST], told, seen)
    fitting: list[tuple[ProductDeviation, ...]]
    fitting = [two for two in TOGETHER if not any(_unexplained(two, part)[0] for part in parts)]
    fitting += [found] if found else []
    return min(fitting, key=lambda some: (len(some), _unexplained(some, seen)), default=())


def _one_by_one(told: Sequence[Seen], seen: Sequence[Seen]) -> tuple[ProductDeviation, ...]:
    """The same, where each of them explains more."""
    claim = seen[0].problem.claim
    known = OF_BLENDS * claim.blends + OF_BIASES * claim.bias + DEVIATIONS
    spoken: tuple[ProductDeviation, ...] = ()
    left = _unexplained(spoken, told)
    while left[0] and len(spoken) < MOST:
        guesses = [(*spoken, one) for one in known if one not in spoken]
        first = sorted(guesses, key=lambda guess: _unexplained(guess, told[:FIRST]))
        followed = sorted((_unexplained(guess, told), place) for place, guess in enumerate(first[:FOLLOWED]))
        for (missed, _), place in followed:
            if not missed and not _unexplained(first[place], seen)[0]:
                return first[place]
        found, place = followed[0]
        if found[0] >= left[0]:
            return ()
        spoken, left = first[place], found
    return spoken if not left[0] else ()


def _telling(seen: Sequence[Seen]) -> list[Seen]:
    """The small ones of those that are wrong, and some that are right."""
    size = sorted(seen, key=lambda one: one.came.size * one.problem.shape[2])
    wrong = [one for one in size if one.wrong.any()]
    right = [one for one in size if not one.wrong.any()]
    chosen = wrong[:: -(-len(wrong) // TOLD) or 1] + right[:: -(-len(right) // TOLD) or 1]
    return [_smaller(one) for one in chosen]


def _smaller(seen: Seen) -> Seen:
    """Of many terms some rows and columns, wrong ones first, each with its neighbour; else all of it."""
    if seen.came.size * seen.problem.shape[2] <= TERMS:
        return seen
    kept = []
    for axis, size in enumerate(seen.problem.matrix):
        wrong = np.flatnonzero(seen.wrong.any(axis=1 - axis)) % size
        first = np.unique(np.concatenate([wrong[:ROWS], np.arange(0, ROWS - min(len(wrong), ROWS))]) // 2 * 2)
        kept.append([int(i) for pair in first for i in (pair, pair + 1) if i < size])
    return seen.cut(kept[0], kept[1])


def _unexplained(spoken: Sequence[ProductDeviation], seen: Sequence[Seen]) -> tuple[int, int]:
    """Results that differ from what is predicted, one more where few of the wrong ones are; less of these."""
    left, wrong, told = _counted(spoken, seen)
    return left + (2 * told < wrong or not told), -told


def _counted(spoken: Sequence[ProductDeviation], seen: Sequence[Seen]) -> tuple[int, int, int]:
    """How many results differ from what is predicted; how many are wrong, and of these predicted.

    What is wrong and comes near both to what is due and to what is predicted speaks for nothing.  Where
    nothing is said of any product that is wrong, all of these results differ.
    """
    from numerics.conform.products.asking import unequal

    left, wrong, told, silent = 0, 0, 0, 0
    for one in seen:
        problem = _bent(spoken, one.problem)
        if problem is None:
            silent += int(one.wrong.sum())
        else:
            due, decided = answer(problem)
            missed, near = _near(problem, one, decided)
            left += int(((unequal(one.came, due) & decided) | missed).sum())
            told_so = decided | (near & _near(problem, replace(one, came=one.due), decided)[0])
            wrong += int((one.wrong & ~(near & ~told_so)).sum())
            told += int((one.wrong & told_so).sum())
    return left + (0 if wrong else silent), wrong, told


def _near(problem: Problem, seen: Seen, decided: Mask) -> tuple[Mask, Mask]:
    """Of what is not decided: where no order of additions comes so far, and where one may.

    Numbers of all bits, as of an operand that is quantized on the way, have few sums that no order changes.
    """
    asked, nothing = seen.problem, np.zeros(decided.shape, np.bool_)
    others = (problem.blend, problem.parts, problem.flushed, problem.added)
    bent = others != (None, asked.parts, asked.flushed, asked.added)
    if bent or problem.claim.rounding not in ("half_even", *VIA) or decided.all():
        return nothing, nothing
    with np.errstate(all="ignore"):
        open_ = ~decided & np.isfinite(seen.came) & np.isfinite(problem.exact) & results_of(problem)
        near = np.abs(seen.came - problem.exact) <= reach(problem)
    return open_ & ~near, open_ & near
