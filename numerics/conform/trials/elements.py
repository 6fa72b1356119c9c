"""Trials of single numbers: encoders, quantizers that round, decoders; with draws, and in any shape."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from numerics.conform.deviations.search import nearest
from numerics.conform.inputs import elements, random_bits, shapes
from numerics.conform.laws import DECODE_LAWS, Codes, Elements, Law, element_laws, unbiased
from numerics.conform.shrink import simpler_number
from numerics.conform.target import Target
from numerics.conform.task import Array, Float32, Task
from numerics.conform.trials.findings import Findings, Trial, layout, misplaced
from numerics.conform.verdict import Counterexample


def trials(task: Task) -> Iterator[Trial]:
    """Yields the trials of an encoder, a decoder or a quantizer of single numbers."""
    if task.kind == "decode":
        yield Trial(DECODE_LAWS, _decode)
    elif task.draws:
        yield Trial((*element_laws(task), unbiased), _drawn)
    else:
        yield Trial(element_laws(task), _every_turn)
    yield Trial((layout,), _layouts)


def observe(target: Target, x: Float32, random: Array | None = None) -> Elements:
    """What the target makes of numbers, beside what is due."""
    inputs = (x,) if random is None else (x, random)
    came = target.elements(*inputs)
    return Elements(target.task, x, came, np.asarray(target.task.answer(x, random)), random)


def simpler(target: Target, law: Law, broken: Counterexample) -> Counterexample:
    """Returns the same law broken by a simpler number, where there is one."""
    return simpler_number(law, broken, lambda x: observe(target, x))


def _every_turn(target: Target, found: Findings) -> None:
    """Every code, every middle and its neighbours, and float32's own edges."""
    seen = observe(target, target.asked(elements.probes(target.task.element)))
    found.tried += len(seen.x)
    found.judge(element_laws(target.task), seen, lambda law, broken: simpler(target, law, broken))
    if found.failures:
        found.explain = lambda: nearest(target.task, seen.x, seen.came, seen.wrong, seen.labels)


def _drawn(target: Target, found: Findings) -> None:
    """Stochastic rounding: every threshold, and the mean over evenly spaced draws."""
    x, random = random_bits.elements(target.task.element)
    kept = target.keeps(x)
    seen = observe(target, x[kept], random[kept])
    found.tried += len(seen.x)
    found.judge(element_laws(target.task), seen)
    even = observe(target, *random_bits.even_draws(target.task.element))
    found.tried += len(even.x)
    found.judge((unbiased,), even)
    if seen.wrong.any():
        drawn = seen.x, seen.came, seen.wrong, seen.labels, seen.random
        found.explain = lambda: nearest(target.task, *drawn)


def _decode(target: Target, found: Findings) -> None:
    """Every code."""
    task = target.task
    codes = np.arange(1 << task.element.bits).astype(task.element.code_dtype)
    seen = Codes(task, codes, target.elements(codes), task.values(codes))
    found.tried += len(codes)
    found.judge(DECODE_LAWS, seen)
    if found.failures:
        found.explain = lambda: nearest(task, codes, seen.came, seen.wrong, np.zeros(len(codes)))


def _layouts(target: Target, found: Findings) -> None:
    """Tries the same numbers in other shapes and strides."""
    task = target.task
    for x in shapes.shaped(_some_inputs(task), target.takes):
        random = shapes.some_draws(x.shape) if task.draws else None
        due = task.values(x) if task.kind == "decode" else np.asarray(task.answer(x, random))
        came = target.elements(*(part for part in (x, random) if part is not None))
        found.tried += x.size
        wrong = task.differs(came, due)
        if wrong.any():
            found.failures.append(misplaced(x, came, due, wrong))
            return


def _some_inputs(task: Task) -> Array:
    """Numbers, or codes, of which the same kernel has already made the right thing one by one."""
    if task.kind == "decode":
        return np.arange(1 << task.element.bits)[:: shapes.EVERY].astype(task.element.code_dtype)
    return shapes.SINGLES
