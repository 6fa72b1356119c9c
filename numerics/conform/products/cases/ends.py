"""Ends of numbers together: NaN and Inf, what is subnormal, what is past the largest number."""

from __future__ import annotations

from collections.abc import Iterator

from numerics.conform.products.cases.maker import Maker, Shape
from numerics.conform.products.cases.not_finite import last, special
from numerics.conform.products.cases.overflows import past_float32, past_largest
from numerics.conform.products.cases.singles import covering
from numerics.conform.products.cases.subnormals import beside_tiny, small_results, subnormal, tiny
from numerics.conform.products.problem import Problem


def ends(maker: Maker, shape: Shape) -> Iterator[Problem]:
    """NaN and Inf, what is subnormal or past the largest number, and a bias of all bits, in a shape."""
    yield special(maker, shape)
    for turn in range(2):
        yield from last(maker, shape, turn)
    yield from subnormal(maker, shape)
    yield from maker.far_products(shape)
    if maker.claim.bias:
        yield from maker.biases(shape)
    k = shape[2]
    for problem in single_ends(maker, k):
        yield from covering(problem, *shape[:2])


def single_ends(maker: Maker, k: int) -> Iterator[Problem]:
    """Single terms, and few, that are subnormal or past the largest number; negative scales."""
    yield from tiny(maker, k)
    yield from beside_tiny(maker, k)
    yield from small_results(maker, k)
    yield from past_largest(maker, k)
    yield from past_float32(maker, k)
    yield from maker.negative(k)


def named(maker: Maker, shapes: tuple[Shape, ...]) -> Iterator[Problem]:
    """What else is asked in shapes that somebody names."""
    for shape in shapes:
        if maker.claim.integers:
            yield from (maker.integers(shape, extreme) for extreme in (3, 4))
        else:
            yield from ends(maker, shape)
