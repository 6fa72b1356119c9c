"""The kernel under test as a function of NumPy arrays: called with copies, its results made plain."""

from __future__ import annotations

import importlib
import math
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial, reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.ieee import set_ieee
from numerics.conform import watching
from numerics.conform.held import Form, holding
from numerics.conform.inputs import shapes
from numerics.conform.inputs.edges import PAGE, Edge
from numerics.conform.inputs.margins import UNUSED, memory_of, roomy, spaced, unused_about
from numerics.conform.inputs.narrow import narrowed, type_of
from numerics.conform.inputs.strings import packed, unpacked
from numerics.conform.inputs.tensors import tensor_of
from numerics.conform.laws.company import misplaced, place_or_chance
from numerics.conform.returned import (
    Raised,
    Returned,
    Unreadable,
    check_device,
    guarded,
    parts_of,
    returned,
    torch_module,
)
from numerics.conform.scales.groups import groups_of
from numerics.conform.scales.rule import Rule
from numerics.conform.takes import ANYTHING, Takes
from numerics.conform.task import TOP, Answer, Array, Fields, Task
from numerics.conform.verdict import Counterexample, numbers
from numerics.formats.block import Block, Blocks, ElementBlock, ScaledBlock
from numerics.formats.dtype import Integer
from numerics.formats.errors import NumericsError, a_kind_of, kind_of, nearest, not_a_file, said
from numerics.interop.layouts import ScaleLayout
from numerics.tensor.qtensor import QTensor

SENTENCES: dict[str, str] = {
    "runs": "The target takes its input without raising.",
    "inputs_unchanged": "The target does not write into its input.",
    "within": "The target reads and writes nothing outside the arrays that it is given.",
    "written": "Every number of a result is written: none is what its memory held before the call.",
    "result": "The target returns what its kind says.",
    "shape": "The result has the shape that its kind says.",
    "dtype": "Codes are integers, bytes are uint8, values are float32.",
    "code_range": "A code lies in 0 .. 2**bits - 1.",
}

Case = tuple[Any, ...]
"""What a target is given: arrays and numbers; of a product the problem."""
SMALL = 1 << 24
"""Bytes of an array, at most, whose own bytes are told from those beside them."""
POWERS = (0, 5, 2, 3, 1, 4)
"""Of two, by which tensors are multiplied that are given to a target which finds their scale."""
LEAST = 2.0**-100
EARLY, FEW_BYTES, FIRST_BYTES = 24, 1 << 14, 1 << 22
"""How many of the first calls are kept with their results, and of how many bytes at most."""
OTHERWISE = 0xFF
"""Bits that differ between two fillings of the memory for a result."""
OF_TENSORS = ("numpy.ndarray", "tensors with negative strides")
"""What torch's functions say where they are given an array of NumPy."""
OF_NUMBERS = ("0-dimensional arrays", "truth value of an array", "size-1 arrays")
"""What functions of a number say where they are given an array."""


class Witness:
    """Is told what a target is given, and that it came back: it may not live to say it.

    This one does nothing; that of a process of its own takes notes (isolation/child.py).
    """

    def before(self, case: Case, edge: Edge | None) -> None:
        """The target is about to be given the case; edge: beside forbidden memory."""

    def after(self) -> None:
        """It came back, or raised."""

    def edges(self, case: Case) -> tuple[Edge, ...]:
        """Where forbidden memory is to lie when the same case is given again."""
        return ()


NOBODY = Witness()
CHANGED = {
    "inputs_unchanged": "an input that is no longer what it was",
    "within": "memory beside an input, or in its gaps, that is no longer what it was",
}
"""What came where a target wrote into memory that it was given to read."""
FEW_SHOWN = 24  # bytes or codes of an input that are shown
OUTSIDE = "memory before or behind a result, or in its gaps, that is no longer what it was"


class Fault(Exception):
    """The target broke a law of `SENTENCES`: there is nothing to compare.  at: the element that did it.

    case: all that it was given.
    """

    def __init__(self, law: str, inputs: tuple[Array, ...], came: str, due: str, at: int = 0) -> None:
        super().__init__(law)
        self.law, self.inputs = law, inputs
        self.case: Case = inputs
        x = inputs[0]
        shown = numbers(x.reshape(-1)[at : at + 1]) if x.dtype == np.float32 else ()
        strides = f", strides {shapes.steps_of(x)}" if x.size != 1 else ""
        where = "" if x.shape == (1,) and shown else f"an input of shape {x.shape}{strides}{_of_few(x)}"
        self.found = Counterexample(law, SENTENCES[law], shown, came, due, where=where)

    @classmethod
    def of(cls, found: Counterexample, inputs: tuple[Array, ...]) -> Fault:
        """The same of another law, whose counterexample is known."""
        fault = cls("runs", inputs, found.came, found.due)
        fault.law, fault.found = found.law, found
        return fault


def _of_few(x: Array) -> str:
    """The bytes or codes of a short line; nothing of numbers, and of more."""
    few = x.ndim == 1 and 0 < x.size <= FEW_SHOWN and x.dtype.kind == "u"
    return f", in hex {' '.join(f'{int(n):0{2 * x.itemsize}x}' for n in x)}" if few else ""


class Unchanged:
    """Arrays that a target may read; whole: the memory beside them and between their numbers is ours, too."""

    def __init__(self, arrays: tuple[Array, ...], whole: bool) -> None:
        self._arrays = arrays
        self._memory = [memory_of(x) if whole else None for x in arrays]
        self._before = [(x if m is None else m).tobytes() for x, m in zip(arrays, self._memory, strict=True)]
        self._views = [x[...] for x in arrays]  # a target may give an array another shape
        self.changed = 0

    def broken(self) -> str | None:
        """The law that is broken, if any; `changed` is then which of the arrays is another one."""
        parts = zip(self._arrays, self._views, self._memory, self._before, strict=True)
        for self.changed, (x, view, memory, was) in enumerate(parts):
            if (x if memory is None else memory).tobytes() != was:
                told = memory is not None and view.size and len(memory) <= SMALL
                return "within" if told and _numbers_of(view, was) == x.tobytes() else "inputs_unchanged"
        return None


def _numbers_of(x: Array, was: bytes) -> bytes:
    """The bytes of an array's numbers when those of all its memory were these."""
    memory = memory_of(x)
    assert memory is not None
    start = x.ctypes.data - memory.ctypes.data
    return np.ndarray(x.shape, x.dtype, was, start, x.strides).tobytes()


class Forms(NamedTuple):
    """Shapes and types of the arrays for a result; laid: makes of each one that lies otherwise in memory."""

    forms: Sequence[Form]
    laid: Callable[[Array], Array] | None = None


class Filled:
    """Arrays for a result, which a target fills: with unused memory about them, or a forbidden page.

    held: each byte of what they hold before it does.
    """

    def __init__(self, arrays: tuple[Array, ...], held: int) -> None:
        self.arrays, self.held = arrays, held
        self._about = [unused_about(x) for x in arrays]
        self._before = [about() for about in self._about]

    @classmethod
    def of(cls, forms: Iterable[Form] | Forms, edge: Edge | None, held: int = UNUSED) -> Filled:
        """Arrays of these shapes and types."""
        forms = forms if isinstance(forms, Forms) else Forms(list(forms))
        room = spaced if edge is None else edge.room
        found = []
        for shape, kind in forms.forms:
            array = room(math.prod(shape), kind)
            array.view(np.uint8)[...] = held
            array = array.reshape(shape)
            if forms.laid is not None:
                other = forms.laid(array)
                other[...] = array
                array = other
            found.append(array)
        return cls(tuple(found), held)

    @classmethod
    def by(cls, fill: Callable[[tuple[Array, ...]], Any], forms: Iterable[Form] | Forms,
           inputs: tuple[Array, ...], edge: Edge | None, held: int = UNUSED) -> Any:  # fmt: skip
        """What `fill` writes into arrays of these shapes and types, for inputs.

        Numbers that hold what they held before are asked again in memory of other bytes.  Raises Fault for
        those that are left as they were there, too, and for what is written beside the arrays.
        """
        forms = forms if isinstance(forms, Forms) else Forms(list(forms))
        first = cls.of(forms, edge, held)
        fill(first.arrays)
        if forms.laid is not None:  # numbers in gaps are missing elsewhere: the gaps say more
            first.expect_within(inputs)
        if any(left.any() for left in first.left()):
            second = cls.of(forms, edge, held ^ OTHERWISE)
            fill(second.arrays)
            first.expect_written(second, inputs)
        return first.result(inputs)

    def left(self) -> list[NDArray[np.bool_]]:
        """Which numbers of each array are what they were."""
        every = (np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in self.arrays)
        return [
            (part == self.held).reshape(-1, x.itemsize).all(axis=1)
            for part, x in zip(every, self.arrays, strict=True)
        ]

    def expect_written(self, other: Filled, inputs: tuple[Array, ...]) -> None:
        """Raises Fault for numbers that are as they were here, and in memory that held something else."""
        for number, (one, two) in enumerate(zip(self.left(), other.left(), strict=True), 1):
            unwritten = np.flatnonzero(one & two)
            if len(unwritten):
                shape = self.arrays[number - 1].shape
                at = tuple(int(i) for i in np.unravel_index(unwritten[0], shape))
                which = f" of array {number} of {len(self.arrays)}" if len(self.arrays) > 1 else ""
                came = f"{len(unwritten)} of {one.size} numbers left as they were, the first at {at}{which}"
                where = int(unwritten[0]) if shape == inputs[0].shape else 0
                raise Fault("written", inputs, came, "numbers that the target writes", where)

    def expect_within(self, inputs: tuple[Array, ...]) -> None:
        """Raises Fault where the target wrote beside the arrays, or into their gaps."""
        if [about() for about in self._about] != self._before:
            raise Fault("within", inputs, OUTSIDE, "the same bytes")

    def result(self, inputs: tuple[Array, ...]) -> Any:
        """What the target wrote; raises Fault where it wrote beside it."""
        self.expect_within(inputs)
        return self.arrays if len(self.arrays) > 1 else self.arrays[0]


class Gives(NamedTuple):
    """How a target is given its arrays, beside what they hold.

    frozen: those that it reads cannot be written to
    stored_alone: every tensor begins where its storage does, without an offset
    begins: bytes past the start of a page at which arrays begin; None: as their own memory does
    rewritten: memory, by place, shape, strides and type, in which arrays of one form come from call to call
    laid: makes of each array for a result, which the target fills, one that lies otherwise in memory
    shared: the one copy of each array, beside it, by its identity: calls of two threads are given the same
    """

    frozen: bool = False
    stored_alone: bool = False
    begins: int | None = None
    rewritten: dict[Any, Array] | None = None
    laid: Callable[[Array], Array] | None = None
    shared: dict[int, tuple[Array, Array]] | None = None


class Judged:
    """A callable, which is imported where it comes as a name, and what it takes."""

    def __init__(self, function: Callable[..., Any] | str, takes: Takes) -> None:
        self.notes: list[str] = []
        self.spelled = function if isinstance(function, str) else None
        if isinstance(function, str):
            function = load(function)
            if set_ieee():
                self.note("to import the target leaves its thread")
        if not callable(function):
            raise NumericsError(f"the target is {a_kind_of(function)}, which cannot be called")
        self.function, self.takes = function, takes
        self.witness = NOBODY
        self.held, self.primed = UNUSED, False
        self.gives = Gives()
        if takes.array == "torch":
            torch_module()

    @contextmanager
    def holding(self, byte: int) -> Iterator[None]:
        """The memory of results holds that byte, as far as it can be had before the target has it."""
        before = self.held, self.primed
        self.held, self.primed = byte, True
        try:
            yield
        finally:
            self.held, self.primed = before

    @contextmanager
    def giving(self, **how: Any) -> Iterator[None]:
        """The arrays of calls are given otherwise; how: by the names of `Gives`."""
        before, self.gives = self.gives, self.gives._replace(**how)
        try:
            yield
        finally:
            self.gives = before

    def keep_ieee(self, x: Array) -> None:
        """Sets this thread back to IEEE arithmetic; notes the first call that left it otherwise."""
        if set_ieee():  # a library of -Ofast, or the target itself
            when = f", first after an input of shape {x.shape}"
            self.note("the target leaves its thread", when, f"; {OWN_MODE}")

    def came_back(self, x: Array) -> None:
        """What follows each call, however it ended; x: the first array that it was given."""
        self.witness.after()
        self.keep_ieee(x)
        watching.one_more()

    def _note_handling(self) -> None:
        """Notes a call that changed how NumPy handles errors; before the next one it is as it was."""
        if set(np.geterr().values()) != {"ignore"} and HANDLING not in self.notes:
            self.notes.append(HANDLING)

    def note(self, who: str, when: str = "", more: str = "") -> None:
        """Notes, of each the first time, who has a thread that is not set to IEEE arithmetic."""
        if not any(note.startswith(who) for note in self.notes):
            self.notes.append(
                f"{who} flushing subnormal numbers or rounding another way{when}; "
                f"it was judged under IEEE arithmetic all the same{more}"
            )

    @property
    def name(self) -> str:
        """How the target was spelled, or what it calls itself where it came as a callable."""
        if self.spelled is not None:
            return self.spelled
        try:
            return guarded(lambda: str(self.function.__name__))
        except Raised:
            return kind_of(self.function)


OWN_MODE = "what a call sets holds until it returns: wrong answers may come from its own mode"
"""What is said of a target that sets its thread's mode (MXCSR of x86) within a call."""
HANDLING = "it leaves NumPy's handling of errors changed (np.seterr), which was set back after each call"
"""What is said of a target that calls np.seterr: later arithmetic of its caller may raise."""


class Target(Judged):
    """A callable, the task that it is judged by, and what it takes."""

    def __init__(self, function: Callable[..., Any] | str, task: Task, takes: Takes = ANYTHING) -> None:
        super().__init__(function, takes)
        self.task = task
        self.early: list[tuple[Case, list[Array]]] = []

    def keeps(self, x: Array) -> NDArray[np.bool_]:
        """Which numbers, or rows of blocks, it takes."""
        flat = x.reshape(len(x), -1)
        if self.takes.finite and not self.task.finds_scale:
            return np.asarray(np.isfinite(narrowed(flat, self.task.inputs)).all(axis=1))
        if self.takes.finite:
            return np.asarray((np.abs(narrowed(flat, self.task.inputs)) <= TOP).all(axis=1))
        past = np.isinf(narrowed(flat, self.task.inputs)) & np.isfinite(flat)
        if self.task.finds_scale:
            past |= (np.abs(flat) > TOP) & np.isfinite(flat)
        return np.asarray(~past.any(axis=1))

    def asked(self, x: Array) -> Array:
        """Returns those numbers, or rows of blocks, that the target takes, in its own type's precision."""
        return narrowed(x[self.keeps(x)], self.task.inputs)

    def elements(self, *inputs: Array) -> Array:
        """Codes of the task's format, or float32 values, of the first input's shape."""
        return np.asarray(
            self._answer(inputs, lambda came: self._element_array(came, inputs, inputs[0].shape))
        )

    def elements_alone(self, x: Array) -> Array:
        """The same, where it is known that the target leaves its input alone."""
        return self._element_array(self._called((x,), (x,)), (x,), x.shape)

    def _element_array(self, came: Any, inputs: tuple[Array, ...], shape: tuple[int, ...]) -> Array:
        array = self._plain(came, inputs, shape)
        if self.task.kind in ("decode", "round"):
            return self._values(array, inputs)
        if array.dtype.kind == "f" and array.dtype.itemsize > 2 and self.task.kind == "encode":
            told = f'{array.dtype.name}; kind="round" (--kind round) judges values'
            if isinstance(came, (list, tuple)):
                told = f"a {type(came).__name__}, of which NumPy makes {array.dtype.name}"
            raise Fault("dtype", inputs, told, "integers")
        return self._codes(array, inputs, self.task.element.bits, isinstance(self.task.dtype, Integer))

    def affine(self, x: Array, scale: Any, zero_point: Any) -> Array:
        """Codes, or float32 values where floats came back."""

        def plain(came: Any) -> Array:
            array = self._plain(came, (x,), x.shape)
            if array.dtype.kind == "f":
                return self._values(array, (x,))
            return self._codes(array, (x,), self.task.element.bits, True)

        return np.asarray(self._answer((x, scale, zero_point), plain))

    def found(self, x: Array) -> Fields | Array:
        """Codes with the scales and zero points that the target found; or float32 values."""
        return self._answer((x,), lambda came: self._found(came, x))

    def _found(self, came: Any, x: Array) -> Fields | Array:
        rule, inputs = self.task.rule, (x,)
        assert rule is not None
        if self.task.kind == "fake_quantize":
            return self._values(self._plain(came, inputs, x.shape), inputs)
        wanted = 2 if rule.spec.symmetric else 3
        due = "(codes, scales" + ", zero points" * (wanted == 3) + ")"
        try:
            parts = (
                guarded(lambda: (came.codes, came.scale, came.zero_point))
                if isinstance(came, QTensor)
                else parts_of(came)
            )
        except Raised as wrong:
            raise Fault("result", inputs, f"{kind_of(came)} ({wrong})", due) from wrong
        if not wanted <= len(parts) <= 3:
            told = kind_of(came) if any(part is came for part in parts) else f"{len(parts)} of them"
            raise Fault("result", inputs, told, due)
        shared, d = groups_of(rule.scheme, x.shape).shared, self.task.element
        codes = self._codes(self._plain(parts[0], inputs, x.shape), inputs, d.bits, isinstance(d, Integer))
        scale = self._shared(parts[1], inputs, shared)
        has_zeros = wanted == 3 or (len(parts) == 3 and parts[2] is not None)
        zeros = self._zeros(self._shared(parts[2], inputs, shared), inputs) if has_zeros else None
        if wanted == 2 and zeros is not None:
            if zeros.any():
                raise Fault("result", inputs, "zero points that are not 0", "none, or 0: it is symmetric")
            zeros = None
        return Fields(codes.astype(d.code_dtype), self._scales(scale, inputs), zeros)

    @staticmethod
    def _shared(came: Any, inputs: tuple[Array, ...], shared: tuple[int, ...]) -> Array:
        """An array of one number a group; axes of one number may be there or not."""
        told = read(came, inputs)
        array = told.array
        if told.dtype == "bfloat16" and array.dtype == np.uint16:  # torch's, by its bits
            array = (array.astype(np.uint32) << 16).view(np.float32)
        long = [[n for n in shape if n != 1] for shape in (array.shape, shared)]
        if long[0] != long[1]:
            raise Fault("shape", inputs, f"scales of shape {array.shape}", f"of shape {shared}")
        return np.ascontiguousarray(array).reshape(shared)

    @staticmethod
    def _scales(array: Array, inputs: tuple[Array, ...]) -> NDArray[np.float32]:
        """Scales of any float type, which float32 holds."""
        with np.errstate(all="ignore"):
            if array.dtype.kind not in "fV" or array.dtype.type is np.void:
                raise Fault("dtype", inputs, f"scales of {array.dtype.name}", "floats")
            scales = array.astype(np.float32)
            if array.dtype == np.float64 and not np.array_equal(scales, array, equal_nan=True):
                raise Fault("dtype", inputs, "scales of float64", "float32, or numbers that it holds")
        return scales

    @staticmethod
    def _zeros(array: Array, inputs: tuple[Array, ...]) -> NDArray[np.int32]:
        """Zero points of any type, which are whole."""
        with np.errstate(all="ignore"):
            zeros = array.astype(np.int32)
        if array.dtype.kind not in "iuf" or not np.array_equal(zeros, array):
            raise Fault("dtype", inputs, f"zero points of {array.dtype.name} that are not whole", "integers")
        return zeros

    def packed(self, codes: Array, size: int) -> Array:
        """The bytes of codes."""

        def plain(came: Any) -> Array:
            array = self._plain(came, (codes,), (size,))
            if array.dtype != np.uint8:
                raise Fault("dtype", (codes,), array.dtype.name, "uint8")
            return array

        return np.asarray(self._answer((codes,), plain))

    def unpacked(self, packed: Array, count: int) -> Array:
        """The codes of bytes."""
        d = self.task.element

        def plain(came: Any) -> Array:
            array = self._plain(came, (packed,), (count,))
            return self._codes(array, (packed,), d.bits, isinstance(d, Integer))

        return np.asarray(self._answer((packed, count), plain))

    def blocks(self, *inputs: Array) -> Fields | Array:
        """Fields of blocks, or float32 values."""
        if not self.task.finds_scale:
            return self.blocks_and_scale(*inputs)[0]
        axis, size = self.task.axis, self.task.block.block
        led = self.given(*inputs)
        found, scale = self.blocks_and_scale(*led)
        power = self.power_of(inputs[0])
        due = math.ldexp(self.task.tensor_scale or 0.0, power)
        if scale is not None and scale != due:
            said, right = (f"a tensor scale of {one:.9g}" for one in (scale, due))
            largest = f", of its largest magnitude, {math.ldexp(TOP, power):.9g}"
            raise Fault("result", led, said, right + largest)
        if not isinstance(found, Fields):
            return np.ldexp(shapes.behind(found, axis, size), -power)
        parts = zip(found, (size, 1, 1), strict=True)
        return Fields(*(None if part is None else shapes.behind(part, axis, lead) for part, lead in parts))  # type: ignore[arg-type]

    def given(self, *inputs: Any) -> tuple[Any, ...]:
        """What it is given for these: where it finds the tensor's scale, behind a number that decides it."""
        if not self.task.finds_scale:
            return inputs
        axis, size = self.task.axis, self.task.block.block
        x, *others = inputs
        return self.led(x), *(shapes.led(other, axis, size, 0) for other in others)

    def led(self, x: Array) -> Array:
        """What a target that finds the tensor's scale is given for x: behind the number that decides it.

        All of it is times a power of two that x decides, which moves that scale and no code: a scale that is
        kept from another call, or is always the same, shows.
        """
        found = shapes.led(x, self.task.axis, self.task.block.block, TOP)
        if power := self.power_of(x):
            np.ldexp(found, power, out=found, where=np.isfinite(found))
        return found

    def power_of(self, x: Array) -> int:
        """The exponent of that power of two.

        0 where numbers among float32's least ones, or float16's, may move a code by it.
        """
        turning = self.task.scale_rule in ("ceil", "nvidia") or self.task.inputs == "float64"
        least = turning and bool(((x != 0) & (np.abs(x) < LEAST)).any())
        if least or self.task.inputs == "float16":
            return 0
        return POWERS[zlib.crc32(x.tobytes()) % len(POWERS)]

    def blocks_and_scale(self, *inputs: Array) -> tuple[Fields | Array, float | None]:
        """Fields of blocks, or float32 values; and the scale of the tensor, where one comes back."""
        told: list[float | None] = []

        def plain(came: Any) -> Fields | Array:
            if self.task.kind != "encode":
                told.append(None)
                return self._values(self._plain(came, inputs, inputs[0].shape), inputs)
            every, scale = self._parts(came, inputs)
            told.append(scale)
            return self._fields(self._unlaid(every, inputs), inputs)

        return self._answer(inputs, plain, self._laid(inputs)), told[0]

    def _fields(self, parts: tuple[Any, ...], inputs: tuple[Array, ...]) -> Fields:
        """The parts of blocks as arrays of their types."""
        x = inputs[0]
        d, shared = self.task.block, self.task.blocking(x.shape).shared_shape
        signed = isinstance(d, ElementBlock) and isinstance(d.element, Integer)
        codes = self._codes(self._plain(parts[0], inputs, x.shape), inputs, d.element_bits, signed)
        scale = self._codes(self._plain(parts[1], inputs, shared), inputs, d.scale_bits)
        if not d.sub_blocks:
            return Fields(codes.astype(d.code_dtype), scale.astype(np.uint8), None)
        micro = self._codes(self._plain(parts[2], inputs, shared), inputs, d.micro_bits)
        return Fields(codes.astype(d.code_dtype), scale.astype(np.uint8), micro.astype(d.micro_dtype))

    def _parts(self, came: Any, inputs: tuple[Array, ...]) -> tuple[tuple[Any, ...], float | None]:
        """The fields of blocks, and the tensor's scale; of Blocks, the task's alone."""
        wanted = tuple(self.task.block.fields)
        due = f"Blocks or ({', '.join(wanted)})"
        try:
            parts = parts_of(came)
            told = guarded(lambda: _told(came, inputs[0].ndim)) if issubclass(type(came), Blocks) else None
        except Raised as wrong:
            raise Fault("result", inputs, f"{kind_of(came)} ({wrong})", due) from wrong
        if len(parts) < len(wanted):
            several = "list" if issubclass(type(came), list) else "tuple"
            alone = any(part is came for part in parts)
            raise Fault("result", inputs, kind_of(came) if alone else f"a {several} of {len(parts)}", due)
        if told is not None and told != self._claims(inputs[0].ndim):
            claims = self._claims(inputs[0].ndim)
            raise Fault("result", inputs, f"Blocks that say {_spelled(told)}", _spelled(claims))
        return parts, self._scale_told(came, parts[len(wanted) :], inputs, due)

    def _scale_told(
        self, came: Any, more: tuple[Any, ...], inputs: tuple[Array, ...], due: str
    ) -> float | None:
        """The scale of the tensor that comes back beside the fields, if any: the one that is given, or found.

        Raises Fault for another one, and for whatever else comes back.
        """
        if issubclass(type(came), Blocks):
            scale = None if came.tensor_scale is None else float(came.tensor_scale)
        else:
            more = tuple(part for part in more if part is not None)
            if len(more) > isinstance(self.task.block, ScaledBlock):
                raise Fault("result", inputs, f"{len(self.task.block.fields) + len(more)} arrays", due)
            scale = self._one_number(more[0], inputs) if more else None
        given = 1.0 if self.task.tensor_scale is None else self.task.tensor_scale
        if not self.task.finds_scale and scale not in (None, float(np.float32(given))):
            raise Fault("result", inputs, f"a tensor scale of {scale:.9g}", f"{given:.9g}, which was given")
        return scale

    @staticmethod
    def _one_number(came: Any, inputs: tuple[Array, ...]) -> float:
        array = read(came, inputs).array
        if array.size != 1:
            raise Fault("shape", inputs, f"a tensor scale of shape {array.shape}", "one number")
        if array.dtype.kind not in "fiu":
            raise Fault("dtype", inputs, f"a tensor scale of {array.dtype.name}", "a float")
        return float(np.float32(array.reshape(-1)[0]))

    def _claims(self, ndim: int) -> tuple[str, int]:
        """What Blocks have to say of themselves: their format, and along which axis they lie."""
        return self.task.block.name, self.task.axis % ndim

    # ---- codes in bytes, scales in tiles ----------------------------------------------------------

    def _laid(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """What a decoder is given: codes packed, scales in the kernel's order, where it takes them so."""
        task = self.task
        if task.kind != "decode" or not (task.packed or task.scale_layout):
            return inputs
        codes, scale = inputs
        if task.packed:  # lines have the gaps of those of codes
            strings = packed(np.ascontiguousarray(codes), task.block.element_bits)
            whole = codes.flags.c_contiguous
            codes = strings if whole else shapes.like(strings, codes[..., : strings.shape[-1]])
        if task.scale_layout is not None:
            scale = np.ascontiguousarray(scale)
        return codes, scale if task.scale_layout is None else task.scale_layout.arrange(scale)

    def _unlaid(self, parts: tuple[Any, ...], inputs: tuple[Array, ...]) -> tuple[Any, ...]:
        """The inverse, of what an encoder returns: a byte for every code, scales row by row."""
        task, shape = self.task, inputs[0].shape
        if not (task.packed or task.scale_layout):
            return parts
        codes, scale = parts[:2]
        if task.packed:
            width = task.block.element_bits
            strings = self._plain(codes, inputs, (*shape[:-1], shape[-1] * width // 8))
            if strings.dtype.itemsize != 1:
                raise Fault("dtype", inputs, strings.dtype.name, "uint8")
            bytes_of = np.ascontiguousarray(strings).view(np.uint8)
            codes = unpacked(bytes_of, shape[-1], width).astype(task.block.code_dtype)
        if task.scale_layout is not None:
            scale = self._restored(task.scale_layout, scale, inputs)
        return codes, scale

    def _restored(self, layout: ScaleLayout, scale: Any, inputs: tuple[Array, ...]) -> Array:
        shared = self.task.blocking(inputs[0].shape).shared_shape
        due = layout.arrange(np.zeros(shared, np.uint8)).shape
        laid = self._plain(scale, inputs, due)
        if laid.dtype.itemsize != 1:
            raise Fault("dtype", inputs, laid.dtype.name, "a type of one byte")
        return np.asarray(layout.restore(np.ascontiguousarray(laid).view(np.uint8), shared))

    def _answer(
        self, inputs: tuple[Any, ...], plain: Callable[[Any], Answer], laid: tuple[Any, ...] | None = None
    ) -> Answer:
        """What `plain` makes of what comes back, which is the same beside forbidden memory.

        laid: the inputs as the target is given them.  Raises Fault where it is not the same.
        """
        given = inputs if laid is None else laid
        try:
            came = plain(self.once(given))
            for edge in self.witness.edges(given):
                self._expect_alike(inputs, came, lambda edge=edge: plain(self.once(given, edge)))  # type: ignore[misc]
        except Fault as fault:
            fault.case = inputs
            raise
        return came

    def _expect_alike(self, inputs: tuple[Any, ...], came: Answer, again: Callable[[], Answer]) -> None:
        """Raises Fault, of the law that is broken, where the same inputs give something else again."""
        other = again()
        if self.task.draws_itself:
            return
        for at, (one, first) in enumerate(self.task.pairs(other, came)):
            wrong = self.task.differs(one, first)
            if wrong.any():
                still, before = self.task.pairs(again(), came)[at]
                law = place_or_chance(wrong, self.task.differs(still, before))
                found = replace(misplaced(inputs[0], one, first, wrong, law), given=tuple(inputs[1:]))
                raise Fault.of(found, self.arrays_in(inputs))

    def called(self, *inputs: Any) -> Any:
        """Whatever comes back for the inputs of its kind, as it comes: nothing is made plain."""
        return self.call(*self._as_laid(inputs))

    def called_once(self, *inputs: Any) -> Any:
        """The same of a single call, not beside forbidden memory."""
        return self.once(self._as_laid(inputs))

    def _as_laid(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return self._laid(inputs) if isinstance(self.task.dtype, Block) else inputs

    def call(self, *inputs: Any) -> Any:
        """Whatever the target returns for copies of these inputs, which it must leave alone."""
        came = self.once(inputs)
        for edge in self.witness.edges(inputs):
            self.once(inputs, edge)
        return came

    def once(self, case: Case, edge: Edge | None = None) -> Any:
        """The same, called a single time; edge: its copies lie beside forbidden memory."""
        given = tuple(self._one_copy(x, edge) if isinstance(x, np.ndarray) else x for x in case)
        if self.gives.rewritten is not None and edge is None:
            given = tuple(self._rewrite(at, x) for at, x in enumerate(given))
        arrays = self.arrays_in(given)
        for x in arrays:
            x.flags.writeable = x.flags.writeable and not self.gives.frozen
        unchanged = Unchanged(arrays, edge is None)
        came = self._called(given, arrays, edge)
        if law := unchanged.broken():
            raise Fault(law, self.arrays_in(case), CHANGED[law], "the same bytes")
        self._remember(case, came)
        return came

    def _rewrite(self, at: int, x: Any) -> Any:
        """The array in the memory of the one of that place, type and strides that came before it."""
        if self.gives.rewritten is None or not isinstance(x, np.ndarray):
            return x
        kept = self.gives.rewritten.setdefault((at, x.shape, x.strides, x.dtype), x)
        if kept is not x:
            kept[...] = x
        return kept

    def _remember(self, case: Case, came: Any) -> None:
        """Keeps the first results, of inputs that are short: the same may be asked again."""
        inputs = self.arrays_in(case)
        most = FEW_BYTES if self.early else FIRST_BYTES
        if len(self.early) < EARLY and sum(x.nbytes for x in inputs) <= most:
            with suppress(Fault):  # no result: whoever looks at it says so
                self.early.append((case, [x.copy() for x in arrays_of(came, inputs)]))

    def _one_copy(self, x: Array, edge: Edge | None) -> Array:
        """Its own copy; the one of earlier calls, where these share it."""
        if self.gives.shared is None or edge is not None:
            return self._own(x, edge)
        if id(x) not in self.gives.shared:
            self.gives.shared[id(x)] = x, self._own(x, edge)
        return self.gives.shared[id(x)][1]

    def _own(self, x: Array, edge: Edge | None) -> Array:
        """A copy for the target alone; float32 values in the type that it takes."""
        room = None if edge is None else edge.room
        if room is None and self.gives.begins is not None:
            room = partial(roomy, past=self.gives.begins, unit=PAGE)
        kind = self.kind_of(x)
        return shapes.kept(x, None if kind == x.dtype else kind, room)

    def kind_of(self, x: Array) -> np.dtype[Any]:
        """The type in which an array is given: that which the target takes, of float32 values."""
        return np.dtype(type_of(self.task.inputs)) if x.dtype == np.float32 else x.dtype

    @staticmethod
    def arrays_in(inputs: tuple[Any, ...]) -> tuple[Array, ...]:
        """Those of a case that are arrays."""
        return tuple(x for x in inputs if isinstance(x, np.ndarray))

    def _called(self, inputs: tuple[Any, ...], arrays: tuple[Array, ...], edge: Edge | None = None) -> Any:
        if not self.takes.fills:
            return self._ran(inputs, arrays, edge)
        forms = Forms(list(results_of(self.task, inputs)), self.gives.laid if edge is None else None)
        return Filled.by(
            lambda filled: self._ran(inputs, arrays, edge, filled), forms, arrays, edge, self.held
        )

    def _ran(
        self, inputs: tuple[Any, ...], arrays: tuple[Array, ...], edge: Edge | None,
        filled: tuple[Array, ...] = (),
    ) -> Any:  # fmt: skip
        """What the function itself returns; filled: the arrays that it fills."""
        self.witness.before(inputs, edge)
        try:
            given = [self._given(x, place) for place, x in enumerate((*inputs, *filled))]
            held = holding(self.held, results_of(self.task, inputs)) if self.primed else nullcontext()
            with np.errstate(all="ignore"), held:
                try:
                    return guarded(lambda: self.function(*given))
                finally:
                    self._note_handling()
        except Raised as wrong:
            check_device(self.name, wrong)
            raise Fault("runs", arrays, f"{wrong}{self._hint(wrong)}", "a result") from wrong
        finally:
            self.came_back(arrays[0])

    def _hint(self, wrong: Raised) -> str:
        """What may be meant where a target of tensors, contiguous memory or numbers was given an array."""
        said = str(wrong)
        if self.takes.array == "numpy" and any(word in said for word in OF_TENSORS):
            return '; array="torch" (--array torch) gives it tensors'
        if not self.takes.contiguous and "contiguous" in said:
            return "; contiguous=True (--contiguous) gives it contiguous arrays"
        if said.startswith(("TypeError", "ValueError")) and any(word in said for word in OF_NUMBERS):
            return "; it is given whole arrays: numpy.vectorize makes of a function of numbers one of arrays"
        return ""

    def _given(self, x: Any, place: int) -> Any:
        if self.takes.array != "torch" or not isinstance(x, np.ndarray):
            return x
        return tensor_of(torch_module(), x, place, not self.gives.stored_alone)

    @staticmethod
    def _plain(came: Any, inputs: tuple[Array, ...], shape: tuple[int, ...]) -> Array:
        """What came as a NumPy array of its own memory and type, and of the right shape."""
        array = read(came, inputs).array
        if array.dtype.type is np.void:  # bytes without a type, and records; not ml_dtypes' types
            raise Fault("dtype", inputs, array.dtype.name, "an array of numbers")
        if array.shape != shape:
            raise Fault("shape", inputs, str(array.shape), str(shape))
        return array.astype(array.dtype.newbyteorder("="))

    def _values(self, array: Array, inputs: tuple[Array, ...]) -> NDArray[np.float32]:
        """float32 values; those of the type that went in, widened."""
        taken = self.task.inputs
        if taken == "bfloat16" and array.dtype == np.uint16:  # torch's, by its bits
            array = array.view(type_of(taken))
        if taken != "float32" and array.dtype == type_of(taken):
            with np.errstate(all="ignore"):
                array = array.astype(np.float32)
        if array.dtype != np.float32:
            raise Fault("dtype", inputs, array.dtype.name, "float32")
        return np.ascontiguousarray(array).reshape(array.shape)

    @staticmethod
    def _codes(array: Array, inputs: tuple[Array, ...], bits: int, signed: bool = False) -> Array:
        """Codes in the low bits; integers may also come as the numbers that they are."""
        kind, size = array.dtype.kind, array.dtype.itemsize
        if kind not in "iu":
            if kind not in "fV" or size not in (1, 2) or (kind == "f" and size == 2 and bits != 16):
                raise Fault("dtype", inputs, array.dtype.name, "integers")
            array, kind = np.ascontiguousarray(array).view(f"u{size}").reshape(array.shape), "u"
        if kind == "u" and 8 * size == bits:  # every code that fits is one
            return array
        if kind == "i" and 8 * size == bits:  # a view of codes as signed bytes
            return array.view(f"u{size}")
        low, end = -(1 << (bits - 1)) if signed and kind == "i" else 0, 1 << bits
        if array.size and not low <= int(array.min()) <= int(array.max()) < end:
            outside = (array < low) | (array >= end)
            at = int(outside.reshape(-1).argmax()) if outside.shape == inputs[0].shape else 0
            place = ", ".join(map(str, np.argwhere(outside)[0]))
            came = f"{array[outside][0]} at place {place} of shape {array.shape}"
            raise Fault("code_range", inputs, came, f"{low} .. {end - 1}", at)
        found: Array = np.bitwise_and(array.astype(np.min_scalar_type(end - 1)), end - 1)
        return found


def results_of(task: Task, case: Case) -> Iterator[Form]:
    """Shape and type of each array of a result, of what a target is given."""
    x = case[0]
    if task.rule is not None:
        yield from _found_forms(task.rule, task, x.shape)
    elif task.kind == "pack":
        yield (-(-x.size * task.element.bits // 8),), np.uint8
    elif task.kind == "unpack":
        yield (case[1],), task.element.code_dtype
    elif task.kind in ("round", "decode"):
        values = type_of(task.inputs) if task.kind == "round" else np.dtype(np.float32)
        codes = x.shape if not task.packed else (*x.shape[:-1], x.shape[-1] * 8 // task.block.element_bits)
        yield codes, values
    elif not isinstance(task.dtype, Block):
        yield x.shape, task.element.code_dtype
    else:
        yield from _fields_of(task, x.shape)


def _found_forms(rule: Rule, task: Task, shape: tuple[int, ...]) -> Iterator[Form]:
    """The same of a target that finds its scales: codes, scales, zero points; or values."""
    if task.kind == "fake_quantize":
        yield shape, type_of(task.inputs)
        return
    shared = groups_of(rule.scheme, shape).shared
    yield shape, task.element.code_dtype
    yield shared, np.float32
    if not rule.spec.symmetric:
        yield shared, np.int32


def _fields_of(task: Task, shape: tuple[int, ...]) -> Iterator[Form]:
    """The same of blocks that are encoded: codes, scales, microexponents."""
    d, shared = task.block, task.blocking(shape).shared_shape
    packed = (*shape[:-1], shape[-1] * d.element_bits // 8)
    yield (packed, np.uint8) if task.packed else (shape, d.code_dtype)
    laid = (
        shared if task.scale_layout is None else task.scale_layout.arrange(np.zeros(shared, np.uint8)).shape
    )
    yield laid, np.uint8
    if d.sub_blocks:
        yield shared, d.micro_dtype


def _told(came: Blocks, ndim: int) -> tuple[str, int]:
    return came.dtype.name, came.axis % ndim


def _spelled(facts: tuple[str, int]) -> str:
    return f"{facts[0]} along axis {facts[1]}"


def read(came: Any, inputs: tuple[Array, ...]) -> Returned:
    """An array that came for inputs; raises Fault for what is none."""
    try:
        return returned(came)
    except Unreadable as wrong:
        raise Fault("result", inputs, str(wrong), "an array of numbers") from wrong


def arrays_of(came: Any, inputs: tuple[Array, ...]) -> list[Array]:
    """Everything that a target returned and that has memory; raises Fault where one is no array."""
    try:
        parts = parts_of(came)
    except Raised as wrong:
        raise Fault("result", inputs, f"{kind_of(came)} ({wrong})", "arrays") from wrong
    return [read(part, inputs).array for part in parts if part is not None]


def check_same_form(first: Array, later: Array, inputs: tuple[Array, ...]) -> None:
    """Raises Fault for a result that another call has made one of another type or shape."""
    if (first.shape, first.dtype) != (later.shape, later.dtype):
        due, came = (f"{x.dtype} of shape {x.shape}" for x in (first, later))
        raise Fault("result", inputs, f"{came}, after another call", due)


def _near(module: str, function: str) -> str:
    """Which function of a module may be meant; nothing of a module that is not there."""
    inside = vars(sys.modules[module]) if module in sys.modules else {}
    near = nearest(function, [name for name, thing in inside.items() if callable(thing)])
    return f"; did you mean {module}:{near}?" if near else ""


def load(name: str) -> Callable[..., Any]:
    """The function that a name like `package.module:function` stands for.

    Raises NumericsError where there is none.

    >>> load("math:sqrt")(4)
    2.0
    """
    module, colon, function = name.partition(":")
    if not (module and colon and function) or (("/" in module or module[0] == ".") and ".py" not in module):
        raise NumericsError(
            f"target {said(name)} is not spelled module:function, as in mypkg.kernels:encode"
            f"{not_a_file(module, function) if function else ''}"
        )
    try:
        found: Any = guarded(lambda: reduce(getattr, function.split("."), importlib.import_module(module)))
    except Raised as wrong:  # whatever somebody's module does when it is imported
        raise NumericsError(
            f"target {said(name)} cannot be imported: {wrong}{not_a_file(module, function)}"
            f"{_near(module, function)}"
        ) from wrong
    if not callable(found):
        raise NumericsError(f"target {said(name)} is {a_kind_of(found)}, which cannot be called")
    return found  # type: ignore[no-any-return]
