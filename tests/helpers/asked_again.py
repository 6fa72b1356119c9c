"""What the judge asks of products and of kernels that find scales: made once, not anew for every target.

It depends on the claim alone, and takes more time than most targets of tests: so do the exact answers.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import wraps
from itertools import count
from math import prod
from typing import Any

from numerics.conform.products import asking
from numerics.conform.products import trial as of_products
from numerics.conform.scales import inputs

CLAIMS = 2  # whose questions are kept
LARGE = 1 << 18  # terms of a product, past which its answer is not


def kept(make: Callable[..., Iterator[Any]], of_rules: bool = False) -> Callable[..., Iterator[Any]]:
    """A maker of questions that gives those of its last claims again; it makes no more than are asked for.

    of_rules: questions are arrays, which stay as they are.
    """
    streams: OrderedDict[Any, tuple[list[Any], Iterator[Any]]] = OrderedDict()

    @wraps(make)
    def again(*claim: Any) -> Iterator[Any]:
        if claim not in streams:
            streams[claim] = [], make(*claim)
        streams.move_to_end(claim)
        if len(streams) > CLAIMS:
            streams.popitem(last=False)
        found, source = streams[claim]
        for place in count():
            if place == len(found):
                try:
                    question = next(source, None)
                except BaseException:  # a maker that was interrupted gives nothing more
                    streams.pop(claim, None)
                    raise
                if question is None:
                    return
                if of_rules:
                    question.flags.writeable = False
                found.append(question)
            yield found[place]

    return again


def answered_once(answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The answer to a problem, which keeps it; its sides forget the bounds that led there: much memory.

    A large problem forgets all that was found of it: its answer is soon found again.
    """

    @wraps(answer)
    def found(problem: Any) -> Any:
        known = problem.__dict__
        if prod(problem.shape) > LARGE:
            made = answer(problem)
            for part in (problem, problem.a, problem.b):
                fields = {field.name for field in dataclasses.fields(part)}
                for name in set(part.__dict__) - fields:
                    part.__dict__.pop(name)
            return made
        if "answer" not in known:
            known["answer"] = answer(problem)
            for array in known["answer"]:
                array.flags.writeable = False
            for side in () if problem.claim.blends else (problem.a, problem.b):  # they share their bounds
                for name in ("bounds", "factors"):
                    side.__dict__.pop(name, None)
        return known["answer"]

    return found


def laid_once(alike: Callable[[Any], Iterator[Any]]) -> Callable[[Any], Iterator[Any]]:
    """The problems that are made of one, which keeps them."""

    @wraps(alike)
    def found(problem: Any) -> Iterator[Any]:
        if "alike" not in problem.__dict__:
            problem.__dict__["alike"] = [*alike(problem)]
        yield from problem.__dict__["alike"]

    return found


of_products.alike = laid_once(of_products.alike)
of_products.problems = kept(of_products.problems)
of_products.answer = asking.answer = answered_once(asking.answer)
inputs.tensors, inputs.usual = kept(inputs.tensors, True), kept(inputs.usual, True)
