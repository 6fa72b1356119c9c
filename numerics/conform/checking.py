"""Is a kernel right?  The laws, on inputs that matter or on all of them, and a verdict."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.backends.reference import bits as bit_strings
from numerics.backends.reference.breakpoints import breakpoints
from numerics.conform import layouts, probes
from numerics.conform.block_laws import BLOCK_DECODE_LAWS, BLOCK_LAWS, SeenBlocks, SeenFields
from numerics.conform.dialects.search import Dialects, nearest, nearest_affine
from numerics.conform.exhaustive import Sweep, sweep
from numerics.conform.laws import (
    AFFINE_LAWS,
    DECODE_LAWS,
    Codes,
    Elements,
    Law,
    Packing,
    Scaled,
    element_laws,
    hardness,
    last_byte,
    order,
    sentence,
    unbiased,
)
from numerics.conform.shrink import simpler_block, simpler_number
from numerics.conform.target import ANYTHING, SENTENCES, Fault, Takes, Target, load
from numerics.conform.task import Answer, Array, Fields, Task
from numerics.conform.verdict import Counterexample, Verdict, numbers
from numerics.formats.block import Block
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError
from numerics.formats.rounding import DETERMINISTIC

Float32 = NDArray[np.float32]
THREADS = 2  # of an exhaustive check: one a sign


def check(
    target: Callable[..., Any] | str,
    dtype: Any,
    *,
    kind: str | None = None,
    rounding: str = "half_even",
    overflow: str | None = None,
    scale_rule: str = "floor",
    axis: int = -1,
    tensor_scale: float | None = None,
    exhaustive: bool = False,
    strict_nan: bool = False,
    array: str = "numpy",
    contiguous: bool = False,
    whole_blocks: bool = False,
) -> Verdict:
    """Is a kernel right, bit for bit?  A verdict: true when it passed; its text says why not.

    target: a callable, or "module:function".  What it takes and returns is its kind (task.KINDS):
    `encode` (the default), `decode`, `round`, `pack`, `unpack` of an element format, `affine` of an
    integer format, and `encode`, `decode`, `round` of a block format, where codes stand beside their
    scales and microexponents: numerics' Blocks, or a tuple (codes, scale[, microexponents]).  With
    rounding="stochastic" it takes random bits (uint32, of x's shape) after x.
    rounding, overflow, scale_rule, axis, tensor_scale: as in the format's own `encode`; a format
    with a float scale (nvfp4) is judged at a tensor scale of 1 unless another is given.
    exhaustive: all 2**32 float32 inputs, for `encode` and `round` of an element format.
    strict_nan: NaN must be written as the canonical code (FORMATS §2); otherwise any NaN will do.
    array: "torch" for a target that takes torch tensors.  contiguous: it takes only contiguous
    arrays of one dimension (of a block format: contiguous ones).  whole_blocks: it takes only lines
    that are whole blocks.
    Raises NumericsError for an unknown format, kind or option, and for a target that cannot be called.

    >>> import numerics as nx
    >>> print(check(nx.fp8_e4m3.encode, "fp8_e4m3"))
    encode is right: fp8_e4m3 encode, half_even, saturate; 17 laws hold on 14098 inputs
    """
    task = Task.of(
        dtype, kind, rounding=rounding, overflow=overflow, scale_rule=scale_rule, axis=axis,
        tensor_scale=tensor_scale, strict_nan=strict_nan,
    )  # fmt: skip
    if exhaustive:
        _refuse_exhaustive(task)
    takes = Takes(array, contiguous, whole_blocks)
    tested = Target(load(target) if isinstance(target, str) else target, task, takes)
    found = Findings()
    try:
        for part in _parts(task, takes, exhaustive):
            part.run(tested, found)
            found.laws += [law.__name__ for law in part.laws]
            if found.failures:
                break
    except Fault as fault:
        found.failures.append(fault.found)
    return found.verdict(tested)


def _refuse_exhaustive(task: Task) -> None:
    if not isinstance(task.dtype, Element) or task.kind not in ("encode", "round") or task.draws:
        raise NumericsError(
            f"exhaustive=True is for a deterministic encode or round of an element format, not {task}; "
            "decode, pack and unpack always try every code"
        )


@dataclass
class Findings:
    """What has been found so far."""

    laws: list[str] = field(default_factory=lambda: [*SENTENCES])
    tried: int = 0
    differs: int = 0
    failures: list[Counterexample] = field(default_factory=list)
    dialects: Dialects = ()

    def judge(
        self,
        laws: Sequence[Law],
        seen: Any,
        simpler: Callable[[Law, Counterexample], Counterexample] | None = None,
    ) -> None:
        """Asks every law of what was seen; simpler: looks for a simpler counterexample."""
        self.differs += int(seen.wrong.sum())
        for law in laws:
            broken = law(seen)
            if broken is not None:
                self.failures.append(simpler(law, broken) if simpler else broken)

    def verdict(self, target: Target) -> Verdict:
        """All of it."""
        return Verdict(
            target.name, target.task, tuple(self.laws), self.tried, self.differs, tuple(self.failures),
            self.dialects,
        )  # fmt: skip


@dataclass(frozen=True)
class Part:
    """Some laws, and the inputs on which they are judged together."""

    laws: Sequence[Callable[..., Any]]
    run: Callable[[Target, Findings], None]


def laws_of(task: Task, takes: Takes = ANYTHING) -> tuple[str, ...]:
    """The names of the laws by which targets of a task are judged, in their order.

    >>> laws_of(Task.of("fp4", "pack"))
    ('runs', 'inputs_unchanged', 'result', 'shape', 'dtype', 'code_range', 'order', 'last_byte')
    """
    return *SENTENCES, *(law.__name__ for part in _parts(task, takes) for law in part.laws)


def _parts(task: Task, takes: Takes, exhaustive: bool = False) -> Iterator[Part]:
    """What is tried one after the other, until a law is broken."""
    yield from _block_parts(task, takes) if isinstance(task.dtype, Block) else _element_parts(task)
    if not isinstance(task.dtype, Block) and task.kind not in ("pack", "unpack"):
        yield Part((layout,), _layouts)
    if exhaustive:
        yield Part((), _exhaustive)


def _element_parts(task: Task) -> Iterator[Part]:
    if task.kind == "affine":
        yield Part(AFFINE_LAWS, _affine)
    elif task.kind in ("pack", "unpack"):
        yield Part((order, last_byte), _packing)
    elif task.kind == "decode":
        yield Part(DECODE_LAWS, _decode)
    elif task.draws:
        yield Part((*element_laws(task), unbiased), _drawn)
    else:
        yield Part(element_laws(task), _elements)


def _block_parts(task: Task, takes: Takes) -> Iterator[Part]:
    if task.kind == "decode":
        yield Part(BLOCK_DECODE_LAWS, _decode_blocks)
        return
    yield Part(BLOCK_LAWS, _blocks)
    yield Part((layout,) if takes.whole_blocks else (short_block, layout), _lines_of_blocks)
    if not takes.contiguous:
        yield Part((), _strided_blocks)


# ---- single numbers -----------------------------------------------------------------------------


def _observe(target: Target, x: Float32, random: Array | None = None) -> Elements:
    inputs = (x,) if random is None else (x, random)
    came = target.elements(*(part.copy() for part in inputs))
    return Elements(target.task, x, came, np.asarray(target.task.answer(x, random)), random)


def _elements(target: Target, found: Findings) -> None:
    """Every code, every middle and its neighbours, and float32's own edges."""
    seen = _observe(target, probes.probes(target.task.element))
    found.tried += len(seen.x)
    found.judge(element_laws(target.task), seen, lambda law, broken: _simpler(target, law, broken))
    if found.failures:
        found.dialects = nearest(target.task, seen.x, seen.came, seen.wrong, seen.labels)


def _simpler(target: Target, law: Law, broken: Counterexample) -> Counterexample:
    return simpler_number(law, broken, lambda x: _observe(target, x))


def _drawn(target: Target, found: Findings) -> None:
    """Stochastic rounding: every threshold, and the mean over evenly spaced draws."""
    seen = _observe(target, *probes.drawn_probes(target.task.element))
    found.tried += len(seen.x)
    found.judge(element_laws(target.task), seen)
    even = _observe(target, *probes.even_draws(target.task.element))
    found.tried += len(even.x)
    found.judge((unbiased,), even)
    if found.failures:
        found.dialects = nearest(target.task, seen.x, seen.came, seen.wrong, seen.labels, seen.random)


def _decode(target: Target, found: Findings) -> None:
    """Every code."""
    task = target.task
    codes = np.arange(1 << task.element.bits).astype(task.element.code_dtype)
    seen = Codes(task, codes, target.elements(codes.copy()), task.values(codes))
    found.tried += len(codes)
    found.judge(DECODE_LAWS, seen)
    if found.failures:
        found.dialects = nearest(task, codes, seen.came, seen.wrong, np.zeros(len(codes)))


def _layouts(target: Target, found: Findings) -> None:
    """The same numbers in other shapes and strides."""
    task = target.task
    for x in layouts.shaped(_some_inputs(task), target.takes.contiguous):
        if task.kind == "affine":
            due = task.affine_codes(x.reshape(-1), 0.5, 0).reshape(x.shape)
            came = target.affine(_copy(x), 0.5, 0)
            due = (
                due
                if came.dtype.kind != "f"
                else task.affine_values(due.reshape(-1), 0.5, 0).reshape(x.shape)
            )
        else:
            random = _some_draws(x.shape) if task.draws else None
            due = task.values(x) if task.kind == "decode" else np.asarray(task.answer(x, random))
            came = target.elements(*(_copy(part) for part in (x, random) if part is not None))
        found.tried += x.size
        wrong = task.differs(came, due)
        if wrong.any():
            found.failures.append(_misplaced(x, came, due, wrong))
            return


def _some_inputs(task: Task) -> Array:
    """Numbers, or codes, of which the same kernel has already made the right thing one by one."""
    if task.kind == "decode":
        return np.arange(1, 1 << min(task.element.bits, 6)).astype(task.element.code_dtype)
    return np.array([1.0, -0.3, 0.7, 2.5, -1.25, 0.0, 3.3, -100.0, 0.01], np.float32)


def _some_draws(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(3).integers(0, 1 << 30, shape).astype(np.uint32)


def _copy(x: Array) -> Array:
    """The same numbers in memory of the same strides."""
    if not x.size or x.flags.c_contiguous:
        return x.copy()
    last = sum((n - 1) * stride for n, stride in zip(x.shape, x.strides, strict=True))
    room = np.lib.stride_tricks.as_strided(np.zeros(last // x.itemsize + 1, x.dtype), x.shape, x.strides)
    room[...] = x
    return room


def layout() -> None:
    """A result depends on the numbers alone, not on shape, strides or place in memory."""


def short_block() -> None:
    """A last block that is short is padded with zeros that take part in nothing."""


def _misplaced(
    x: Array, came: Array, due: Array, wrong: NDArray[np.bool_], law: Any = layout
) -> Counterexample:
    """A counterexample that is an array's shape and strides: the first element that is wrong."""
    at = tuple(int(place) for place in np.argwhere(wrong)[0])
    shown = numbers(x[at]) if x.shape == wrong.shape and x.dtype == np.float32 else ()
    steps = tuple(stride // x.itemsize for stride in x.strides)
    where = f"at {at} of an array of shape {x.shape}, strides {steps}"
    return Counterexample(
        law.__name__, sentence(law), shown, f"{came[at]!s}", f"{due[at]!s}", int(wrong.sum()), where, x
    )


# ---- codes as bytes -----------------------------------------------------------------------------


def _packing(target: Target, found: Findings) -> None:
    """Strings of codes, the shortest and simplest first."""
    task = target.task
    for codes in _strings(task.element.bits, task.element.code_dtype):
        packed = np.frombuffer(bit_strings.pack(codes.tolist(), task.element.bits), np.uint8).copy()
        if task.kind == "pack":
            came = target.packed(codes.copy(), len(packed))
        else:
            came = target.unpacked(packed.copy(), len(codes))
        found.tried += len(codes)
        law = last_byte if len(codes) * task.element.bits % 8 else order
        broken = law(Packing(task, codes, packed, came))
        if broken is not None:
            found.differs += 1
            found.failures.append(broken)
            return


def _strings(bits: int, kind: str) -> Iterator[Array]:
    """One code in each place of whole bytes, then random codes, then those with a short last byte."""
    whole = 8
    for place in range(whole):
        for code in (1, (1 << bits) - 1):
            yield np.where(np.arange(whole) == place, code, 0).astype(kind)
    random = np.random.default_rng(4).integers(0, 1 << bits, 1000).astype(kind)
    yield random
    for count in (0, 1, 2, 3, 5, 7, 9, 31, 257):
        yield random[:count]


# ---- integers with a scale and a zero point -----------------------------------------------------


def _affine(target: Target, found: Findings) -> None:
    """Several scales and zero points; at each, the integers, their middles, the clamps."""
    task = target.task
    every: list[Scaled] = []
    for scale, zero_point in probes.scales_and_zero_points(task.element):
        x = probes.affine_probes(task.element, scale, zero_point)
        came = target.affine(x.copy(), scale, zero_point)
        due = _affine_truth(task, scale, zero_point)
        due = due if came.dtype.kind != "f" else task.affine_values(due, scale, zero_point)
        every.append(Scaled(task, scale, zero_point, x, came, due))
    found.tried += sum(len(seen.x) for seen in every)
    for seen in every:
        already = {failure.law for failure in found.failures}
        found.judge([law for law in AFFINE_LAWS if law.__name__ not in already], seen)
    found.failures.sort(key=lambda broken: [law.__name__ for law in AFFINE_LAWS].index(broken.law))
    if found.failures:
        found.dialects = nearest_affine(every)


@lru_cache(maxsize=256)
def _affine_truth(task: Task, scale: float, zero_point: int) -> Array:
    return task.affine_codes(probes.affine_probes(task.element, scale, zero_point), scale, zero_point)


# ---- blocks -------------------------------------------------------------------------------------


def _observe_blocks(
    target: Target, rows: Float32, random: Array | None = None, truth: tuple[Fields, Answer] | None = None
) -> SeenBlocks:
    """Whole blocks, given to the target along its axis and taken back as rows."""
    task = target.task
    inputs = [layouts.placed(part, task.axis) for part in (rows, random) if part is not None]
    came = _as_rows(task, target.blocks(*(part.copy() for part in inputs)))
    fields, due = _truth(task, rows, random) if truth is None else truth
    if isinstance(came, Fields):
        came = task.with_same_nan(came, fields)
    return SeenBlocks(task, rows, came, due, fields, random)


def _truth(task: Task, rows: Float32, random: Array | None = None) -> tuple[Fields, Answer]:
    """The exact Fields of rows, and the answer that is due."""
    fields = _fields(task, rows, random)
    return fields, fields if task.kind == "encode" else _values(task, fields)


def _fields(task: Task, rows: Float32, random: Array | None = None) -> Fields:
    by_rows = replace(task, axis=-1)
    found = _as_rows(by_rows, by_rows.fields(rows, random))
    assert isinstance(found, Fields)
    return found


def _values(task: Task, fields: Fields) -> Array:
    columns = [None if part is None else part[:, None] for part in fields[1:]]
    assert columns[0] is not None
    return replace(task, axis=-1).block_values(Fields(fields.codes, columns[0], columns[1]))


def _truth_of_probes(task: Task) -> tuple[Fields, Answer]:
    """The same for the probes, which every target of a task is given."""
    shared = replace(task, kind="encode", axis=-1, strict_nan=False)
    return _probed_fields(shared), _probed_fields(shared) if task.kind == "encode" else _probed_values(shared)


@lru_cache(maxsize=64)
def _probed_fields(task: Task) -> Fields:
    rows = probes.block_probes(task.block)
    return _fields(task, rows, _some_draws(rows.shape) if task.draws else None)


@lru_cache(maxsize=64)
def _probed_values(task: Task) -> Array:
    return _values(task, _probed_fields(task))


@lru_cache(maxsize=64)
def _decoded_probes(task: Task) -> Array:
    return _values(task, probes.block_codes(task.block))


def _as_rows(task: Task, answer: Answer) -> Answer:
    shape = answer.codes.shape if isinstance(answer, Fields) else answer.shape
    blocking = task.blocking(shape)
    if not isinstance(answer, Fields):
        return blocking.rows(answer)
    shared = [None if part is None else blocking.shared_rows(part, "a shared field") for part in answer[1:]]
    assert shared[0] is not None
    return Fields(blocking.rows(answer.codes), shared[0], shared[1])


def _blocks(target: Target, found: Findings) -> None:
    """Whole blocks."""
    rows = probes.block_probes(target.task.block)
    random = _some_draws(rows.shape) if target.task.draws else None
    seen = _observe_blocks(target, rows, random, _truth_of_probes(target.task))
    found.tried += len(rows)

    def simpler(law: Law, broken: Counterexample) -> Counterexample:
        if random is not None:
            return broken
        return simpler_block(law, broken, lambda x: replace(_observe_blocks(target, x), blame=seen.blamed))

    found.judge(BLOCK_LAWS, seen, simpler)
    if found.failures:
        found.dialects = nearest(target.task, rows, seen.came, seen.wrong, seen.labels, random)


def _lines_of_blocks(target: Target, found: Findings) -> None:
    """Last blocks that are short, and whole ones in longer lines and more axes."""
    for x in layouts.tensors(target.task, target.takes.whole_blocks):
        if not found.failures:
            short = bool(x.shape[target.task.axis] % target.task.block.block)
            _compare_tensor(target, found, x, short_block if short else layout)


def _strided_blocks(target: Target, found: Findings) -> None:
    """Blocks in memory that is not contiguous."""
    for x in layouts.strided(target.task):
        if not found.failures:
            _compare_tensor(target, found, x, layout)


def _compare_tensor(target: Target, found: Findings, x: Array, law: Any) -> None:
    task = target.task
    random = _some_draws(x.shape) if task.draws else None
    came = target.blocks(*(_copy(part) for part in (x, random) if part is not None))
    due = task.answer(np.ascontiguousarray(x), random)
    found.tried += task.blocking(x.shape).count
    if isinstance(came, Fields) and isinstance(due, Fields):
        came = task.with_same_nan(came, due)
    pairs = zip(came, due, strict=True) if isinstance(came, Fields) else [(came, due)]
    for one, other in pairs:
        if one is not None and not found.failures:
            wrong = task.differs(np.asarray(one), np.asarray(other))
            if wrong.any():
                found.failures.append(_misplaced(x, np.asarray(one), np.asarray(other), wrong, law))


def _decode_blocks(target: Target, found: Findings) -> None:
    """Every code at some scales, and every scale."""
    task = target.task
    rows = probes.block_codes(task.block)
    shared = [part[:, None] for part in rows[1:] if part is not None]
    due = _decoded_probes(replace(task, axis=-1))
    given = [layouts.placed(part, task.axis) for part in (rows.codes, *shared)]
    came = target.blocks(*given)
    assert isinstance(came, np.ndarray)
    found.tried += rows.codes.size
    found.judge(BLOCK_DECODE_LAWS, SeenFields(task, rows, task.blocking(came.shape).rows(came), due))


# ---- all of float32 -----------------------------------------------------------------------------


def _exhaustive(target: Target, found: Findings) -> None:
    """All 2**32 inputs, by runs against the breakpoints; the two signs beside each other."""
    contexts = [contextvars.copy_context() for _ in (False, True)]
    with ThreadPoolExecutor(THREADS) as pool:
        futures = [
            pool.submit(context.run, _swept, target, negative)
            for context, negative in zip(contexts, (False, True), strict=True)
        ]
        sweeps = [future.result() for future in futures]
    found.tried += sum(part.inputs for part in sweeps)
    firsts = np.array([part.first[0] for part in sweeps if part.first], np.uint32).view(np.float32)
    if not len(firsts):
        return
    seen = _observe(target, firsts[np.argsort(hardness(firsts))])
    found.judge(element_laws(target.task), seen, lambda law, broken: _simpler(target, law, broken))
    found.differs = sum(part.mismatches for part in sweeps)


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
    return sweep(encode, due, negative, "uint32" if task.kind == "round" else task.element.code_dtype)


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
