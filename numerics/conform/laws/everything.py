"""The trial of all 2**32 float32 inputs, by runs against the breakpoints."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from numerics.backends.reference.breakpoints import breakpoints
from numerics.conform.laws.elements import element_laws, observe, simpler
from numerics.conform.laws.findings import Findings, Trial, repeatable
from numerics.conform.laws.law import hardness, sentence
from numerics.conform.sweep import Sweep, sweep
from numerics.conform.targets.target import Target
from numerics.conform.task import Array, Float32, Task
from numerics.conform.verdict import Counterexample, numbers
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError
from numerics.formats.rounding import DETERMINISTIC

SIGNS = (False, True)
INFINITE = 0x7F800000


def trial() -> Trial:
    """It has no laws but those of elements, and that results do not change."""
    return Trial((repeatable,), _exhaustive)


def refuse(task: Task) -> None:
    """Raises NumericsError for tasks whose inputs are not single float32 numbers."""
    if task.inputs != "float32":
        raise NumericsError(f"exhaustive=True is for float32 inputs; of {task.inputs}, leave it out")
    if not isinstance(task.dtype, Element) or task.kind not in ("encode", "round") or task.draws:
        raise NumericsError(
            f"exhaustive=True is for a deterministic encode or round of an element format, not {task}; "
            "decode, pack and unpack always try every code"
        )


def can_be(task: Task) -> bool:
    """Are the inputs of a task single float32 numbers, all of which can be asked?

    >>> import numerics as nx
    >>> can_be(Task.of(nx.fp4)), can_be(Task.of(nx.fp4, "decode")), can_be(Task.of(nx.mxfp4))
    (True, False, False)
    """
    try:
        refuse(task)
    except NumericsError:
        return False
    return True


def _exhaustive(target: Target, found: Findings) -> None:
    """The two signs beside each other; what is wrong then is asked again, alone."""
    sweeps = _beside_each_other(target)
    if any(part.mismatches for part in sweeps) and not _wrong_alone(target, found, sweeps):
        sweeps = [_swept(target, negative) for negative in SIGNS]  # it may not bear two threads
        if any(part.mismatches for part in sweeps) and not _wrong_alone(target, found, sweeps):
            found.failures.append(_not_repeatable(target, sweeps))
    found.tried += sum(part.inputs for part in sweeps)
    found.differs += sum(part.mismatches for part in sweeps)


def _beside_each_other(target: Target) -> list[Sweep]:
    if target.takes.one_thread:
        return [_swept(target, negative) for negative in SIGNS]
    contexts = [contextvars.copy_context() for _ in SIGNS]
    with ThreadPoolExecutor(len(SIGNS)) as pool:
        futures = [
            pool.submit(context.run, _swept, target, negative)
            for context, negative in zip(contexts, SIGNS, strict=True)
        ]
        return [future.result() for future in futures]


def _wrong_alone(target: Target, found: Findings, sweeps: list[Sweep]) -> bool:
    """Judges the first wrong inputs by the laws of elements; False where none is broken."""
    firsts = np.array([part.first[0] for part in sweeps if part.first], np.uint32).view(np.float32)
    seen = observe(target, firsts[np.argsort(hardness(firsts))])
    before = found.differs
    found.judge(element_laws(target.task), seen, lambda law, broken: simpler(target, law, broken))
    found.differs = before
    return bool(found.failures)


def _not_repeatable(target: Target, sweeps: list[Sweep]) -> Counterexample:
    """The first input that was wrong among others and is right alone."""
    bits, came, due = next(part.first for part in sweeps if part.first)
    count, x = sum(part.mismatches for part in sweeps), np.array([bits], np.uint32).view(np.float32)
    where = f"among 2**18 neighbours; alone it gives 0x{due:X}"
    shown = numbers(x)
    return Counterexample(
        "repeatable", sentence(repeatable), shown, f"0x{came:X}", f"0x{due:X}", count, where
    )


def _swept(target: Target, negative: bool) -> Sweep:
    """All magnitudes of one sign; where no NaN is due, answers need not be looked at by class."""
    task = target.task
    assert task.rounding in DETERMINISTIC
    steps = breakpoints(task.element, task.rounding, task.overflow, negative)
    same, answers = _classes(task), np.asarray(task.answer(_at(steps, negative)))
    meant = answers if task.kind == "round" else task.values(answers)
    first_nan = min(
        (first for (first, _), v in zip(steps, meant, strict=True) if np.isnan(v)), default=1 << 31
    )

    def encode(x: Float32, out: Array) -> None:
        came = target.elements_alone(x)
        last = int(x[-1:].view(np.uint32)[0]) & 0x7FFFFFFF
        out[...] = came.view(out.dtype) if last < first_nan else same(came)

    due = list(zip((first for first, _ in steps), same(answers).tolist(), strict=True))
    kind = "uint32" if task.kind == "round" else task.element.code_dtype
    return sweep(encode, due, negative, kind, INFINITE if target.takes.finite else 1 << 31)


def _at(steps: list[tuple[int, int]], negative: bool) -> Float32:
    """The inputs at which the steps begin."""
    return np.array([first | negative << 31 for first, _ in steps], np.uint32).view(np.float32)


def _classes(task: Task) -> Callable[[Array], Array]:
    """Answers as integers that are equal when the answers count as equal: NaN by its class."""
    if task.kind == "round":
        return lambda values: np.where(np.isnan(values), np.uint32(0x7FC00000), values.view(np.uint32))
    codes = np.arange(1 << task.element.bits).astype(task.element.code_dtype)
    if task.strict_nan:
        return lambda came: came
    nan = np.isnan(task.values(codes))
    table = np.where(nan, codes[nan][:1] if nan.any() else codes, codes)
    return lambda came: table[came]
