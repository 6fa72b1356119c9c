"""What is asked of products that alpha multiplies, and that beta * c is added to.

The usual products are asked with c of zeros first, so that a fault of theirs is told as ever; then alpha and
beta are; then the usual ones again, each with an alpha, a beta and a c of few bits that fits beside its sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np

from numerics.conform.products.blend import Blend
from numerics.conform.products.cases import draw
from numerics.conform.products.cases.batches import problem_in
from numerics.conform.products.certificate import NONE, lowest_bit, sums_of
from numerics.conform.products.claim import Claim
from numerics.conform.products.problem import Problem
from numerics.conform.task import Array

FIRST = 24  # products that are asked with alpha 1, and with c of zeros
SOME = 7  # the largest of whole numbers that c holds beside sums
LONG = 24  # bits of an alpha, and of a beta, at most: they are float32
ENDS = (np.nan, np.inf, -np.inf)


class Turn(NamedTuple):
    """An alpha and a beta; where beta is 0, c holds NaN and Inf."""

    alpha: float
    beta: float


TURNS = (Turn(-2, 1), Turn(1, 0), Turn(0.5, -1), Turn(-1, 2), Turn(2, 0))
"""Of the usual products: powers of two, so that what was decided stays decided."""
OF_INTEGERS = (Turn(-2, 1), Turn(1, 0), Turn(3, -1), Turn(-1, 5), Turn(2, 0))
ALPHAS = (2, 3, 0, -1, 0.5, -0.75)
PAIRS = (Turn(1, 1), Turn(1, -1), Turn(2, 3), Turn(3, 2), Turn(-1, 0.5), Turn(0, 2), Turn(-0.75, 1))
PAST_INT32 = 3 * 2**30  # of sums times alpha
BETAS = (1, -2, 0.5)  # beside zeros
MIXED = ("sums", "output", "one_term", "integers", "pairs", "bias", "empty")
"""Laws of usual products that are asked with every turn; those of others have alpha 1, and c of zeros."""


class Plain(NamedTuple):
    """Products from which those of alpha and beta are made.

    few: sums of few bits.  powers: one term a row, of powers of two; none of integers.  nothing: zeros.
    """

    few: tuple[Problem, ...]
    powers: tuple[Problem, ...]
    nothing: tuple[Problem, ...]

    def within(self, batches: Sequence[tuple[int, ...]]) -> Plain:
        """The same problems, of each shape in its batches, or in others that divide its rows."""
        return Plain(
            *(
                tuple(
                    problem_in(problem, batch) for problem, batch in zip(part, cycle(batches), strict=False)
                )
                for part in self
            )
        )


def blended(usual: Iterable[Problem], made: Plain, rng: draw.Rng) -> Iterator[Problem]:
    """All that is asked of a claim that has alpha or beta, in order."""
    problems = iter(usual)
    for problem in islice(problems, FIRST):
        yield with_turn(problem, Turn(1, 1), rng, zeros=True)
    yield from _alphas(made, rng)
    yield from _betas(made, rng)
    for place, problem in enumerate(problems):
        turns = OF_INTEGERS if problem.claim.integers else TURNS
        turn = turns[place % len(turns)] if problem.law in MIXED else turns[1]
        yield with_turn(problem, turn, rng)


def _alphas(made: Plain, rng: draw.Rng) -> Iterator[Problem]:
    for problem in made.few if made.few and made.few[0].claim.alpha else ():
        whole = problem.claim.integers
        for alpha in (x for x in ALPHAS if not whole or x == int(x)):
            yield replace(with_turn(problem, Turn(alpha, 1), rng, zeros=True), law="alpha")
        largest = float(np.abs(problem.exact).max())
        for sign in (1, -1) if whole and largest > 1 else ():  # past int32, which is due modulo 2**32
            turn = Turn(sign * (PAST_INT32 // largest + 1), 1)
            yield replace(with_turn(problem, turn, rng, zeros=True), law="alpha")
        if not whole:  # rounded once with the bits of the sum, so that a narrower alpha shows in any type
            turn = Turn(_long(problem.claim, rng, _bits_of(problem)), 1)
            yield replace(with_turn(problem, turn, rng, zeros=True), law="alpha")
    for problem in made.powers if made.powers and made.powers[0].claim.alpha else ():
        turn = Turn(_long(problem.claim, rng), 1)
        yield replace(with_turn(problem, turn, rng, zeros=True), law="alpha")


def _betas(made: Plain, rng: draw.Rng) -> Iterator[Problem]:
    if not made.few or not made.few[0].claim.beta:
        return
    for problem in made.few:
        yield replace(with_turn(problem, Turn(1, 0), rng), law="unread")
        whole = problem.claim.integers
        for turn in (x for x in PAIRS if not whole or x == (int(x.alpha), int(x.beta))):
            yield replace(with_turn(problem, turn, rng), law="beta")
        if problem.claim.alpha:  # nothing is read then, and zeros are due, which somebody has to write
            yield replace(with_turn(problem, Turn(0, 0), rng), law="unread")
    for problem in made.nothing:
        shape, claim = problem.shape[:2], problem.claim
        for beta in (x for x in BETAS if not claim.integers or x == int(x)):
            yield replace(problem, blend=Blend(1, beta, _of_all_bits(shape, claim.out, rng)), law="beta")
        for bits in (1, 3):
            whole = rng.integers(1 << (bits - 1), 1 << bits, shape) * rng.choice([-1.0, 1.0], shape)
            c = np.ldexp(whole, rng.integers(-3, 4, shape)).astype(np.float32)
            c = whole.astype(np.int32) if claim.integers else c
            yield replace(problem, blend=Blend(1, _long(claim, rng, bits - 1), c), law="beta")


def with_turn(problem: Problem, turn: Turn, rng: draw.Rng, zeros: bool = False) -> Problem:
    """The same with an alpha and a beta, each 1 where the claim has none, and c; zeros: c of zeros."""
    claim = problem.claim
    alpha, beta = (turn.alpha if claim.alpha else 1), (turn.beta if claim.beta else 1)
    kind = np.int32 if claim.integers else np.float32
    if not claim.beta:
        c = None
    elif beta == 0:
        c = _unread(problem.shape[:2], claim, rng)
    elif zeros:
        c = np.zeros(problem.shape[:2], kind)
    else:
        c = _beside(problem, Turn(alpha, beta), rng)
    return replace(problem, blend=Blend(alpha, beta, c))


def _unread(shape: tuple[int, int], claim: Claim, rng: draw.Rng) -> Array:
    """NaN and Inf; of integers any."""
    return _any_integers(shape, rng) if claim.integers else rng.choice(np.array(ENDS, np.float32), shape)


def _any_integers(shape: tuple[int, int], rng: draw.Rng) -> Array:
    return rng.integers(-(1 << 31), 1 << 31, shape).astype(np.int32)


def _beside(problem: Problem, turn: Turn, rng: draw.Rng) -> Array:
    """Numbers of few bits that, times beta, fit beside what alpha makes of the sums; zeros where none do."""
    claim, shape = problem.claim, problem.shape[:2]
    if claim.integers:
        return _any_integers(shape, rng)
    found, bits = sums_of(problem).times(turn.alpha), claim.accumulator.bits
    found = found if problem.bias is None else found.plus(problem.bias.astype(np.float64))
    last = np.where(found.lowest == NONE, 0, found.lowest)
    least = int(lowest_bit(np.array(turn.beta)))
    room = 2.0**bits - np.ldexp(found.total, -np.clip(last, -900, 900))
    most = np.clip(room // (abs(turn.beta) / 2.0**least), 0, SOME)
    whole = np.minimum(rng.integers(1, SOME + 1, shape), most) * rng.choice([-1, 1], shape)
    ends = draw.EXPONENTS[claim.out]
    held = (last - least >= ends[0]) & (last - least + 3 <= ends[1])
    return np.where(held, np.ldexp(whole, np.clip(last - least, -900, 900)), 0).astype(np.float32)


def _of_all_bits(shape: tuple[int, int], out: str, rng: draw.Rng) -> Array:
    """Numbers of all the bits of a type; its ends, NaN and Inf among them."""
    if out == "int32":
        return _any_integers(shape, rng)
    long = draw.significands(shape, draw.SIGNIFICAND[out], rng) * rng.choice([-1.0, 1.0], shape)
    found = np.ldexp(long, rng.integers(-6, 7, shape)).astype(np.float32).reshape(-1)
    least, most = draw.EXPONENTS[out]
    ends = (*ENDS, 2.0**least, -3 * 2.0**least, 1.5 * 2.0 ** (most - 1))
    found[1 : 1 + len(ends)] = ends[: max(len(found) - 1, 0)]
    return np.asarray(found.reshape(shape))


def _bits_of(problem: Problem) -> int:
    """How many bits the sums of a problem take, at most."""
    found = sums_of(problem)
    units = np.ldexp(found.total, -np.where(found.lowest == NONE, 0, found.lowest))
    return int(np.frexp(units.max())[1])


def _long(claim: Claim, rng: draw.Rng, less: int = 0) -> float:
    """A number of all the bits that sums are kept in, up to those of float32, or less; of integers 3."""
    if claim.integers:
        return 3
    bits = max(min(LONG, claim.accumulator.bits) - less, 2)
    return float(draw.significands((1,), bits, rng)[0])
