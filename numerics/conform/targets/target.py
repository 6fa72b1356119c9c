"""A kernel that is judged by a task: called with copies, what comes back is made plain."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerics.conform.inputs import shapes
from numerics.conform.inputs.edges import PAGE, Edge
from numerics.conform.inputs.margins import roomy
from numerics.conform.inputs.narrow import narrowed, type_of
from numerics.conform.inputs.strings import packed, unpacked
from numerics.conform.inputs.tensors import tensor_of
from numerics.conform.laws.company import misplaced, place_or_chance
from numerics.conform.scales.groups import groups_of
from numerics.conform.takes import ANYTHING, Takes
from numerics.conform.targets.faults import Case, Fault
from numerics.conform.targets.forms import results_of
from numerics.conform.targets.held import holding
from numerics.conform.targets.judged import Judged
from numerics.conform.targets.memory import CHANGED, Filled, Forms, Unchanged
from numerics.conform.targets.reading import (
    arrays_of,
    codes_in,
    one_number,
    per_group,
    plain_array,
    scales_in,
    values_in,
    zeros_in,
)
from numerics.conform.targets.returned import Raised, check_device, guarded, parts_of, torch_module
from numerics.conform.task import TOP, Answer, Array, Fields, Task
from numerics.formats.block import Block, Blocks, ElementBlock, ScaledBlock
from numerics.formats.dtype import Integer
from numerics.formats.errors import kind_of
from numerics.interop.layouts import ScaleLayout
from numerics.tensor.qtensor import QTensor

POWERS = (0, 5, 2, 3, 1, 4)
"""Of two, by which tensors are multiplied that are given to a target which finds their scale."""
LEAST = 2.0**-100
EARLY, FEW_BYTES, FIRST_BYTES = 24, 1 << 14, 1 << 22
"""How many of the first calls are kept with their results, and of how many bytes at most."""
OF_TENSORS = ("numpy.ndarray", "tensors with negative strides")
"""What torch's functions say where they are given an array of NumPy."""
OF_NUMBERS = ("0-dimensional arrays", "truth value of an array", "size-1 arrays")
"""What functions of a number say where they are given an array."""


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
        array = plain_array(came, inputs, shape)
        if self.task.kind in ("decode", "round"):
            return values_in(array, inputs, self.task.inputs)
        if array.dtype.kind == "f" and array.dtype.itemsize > 2 and self.task.kind == "encode":
            told = f'{array.dtype.name}; kind="round" (--kind round) judges values'
            if isinstance(came, (list, tuple)):
                told = f"a {type(came).__name__}, of which NumPy makes {array.dtype.name}"
            raise Fault("dtype", inputs, told, "integers")
        return codes_in(array, inputs, self.task.element.bits, isinstance(self.task.dtype, Integer))

    def affine(self, x: Array, scale: Any, zero_point: Any) -> Array:
        """Codes, or float32 values where floats came back."""

        def plain(came: Any) -> Array:
            array = plain_array(came, (x,), x.shape)
            if array.dtype.kind == "f":
                return values_in(array, (x,), self.task.inputs)
            return codes_in(array, (x,), self.task.element.bits, True)

        return np.asarray(self._answer((x, scale, zero_point), plain))

    def found(self, x: Array) -> Fields | Array:
        """Codes with the scales and zero points that the target found; or float32 values."""
        return self._answer((x,), lambda came: self._found(came, x))

    def _found(self, came: Any, x: Array) -> Fields | Array:
        rule, inputs = self.task.rule, (x,)
        assert rule is not None
        if self.task.kind == "fake_quantize":
            return values_in(plain_array(came, inputs, x.shape), inputs, self.task.inputs)
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
        codes = codes_in(plain_array(parts[0], inputs, x.shape), inputs, d.bits, isinstance(d, Integer))
        scale = per_group(parts[1], inputs, shared)
        has_zeros = wanted == 3 or (len(parts) == 3 and parts[2] is not None)
        zeros = zeros_in(per_group(parts[2], inputs, shared), inputs) if has_zeros else None
        if wanted == 2 and zeros is not None:
            if zeros.any():
                raise Fault("result", inputs, "zero points that are not 0", "none, or 0: it is symmetric")
            zeros = None
        return Fields(codes.astype(d.code_dtype), scales_in(scale, inputs), zeros)

    def packed(self, codes: Array, size: int) -> Array:
        """The bytes of codes."""

        def plain(came: Any) -> Array:
            array = plain_array(came, (codes,), (size,))
            if array.dtype != np.uint8:
                raise Fault("dtype", (codes,), array.dtype.name, "uint8")
            return array

        return np.asarray(self._answer((codes,), plain))

    def unpacked(self, packed: Array, count: int) -> Array:
        """The codes of bytes."""
        d = self.task.element

        def plain(came: Any) -> Array:
            array = plain_array(came, (packed,), (count,))
            return codes_in(array, (packed,), d.bits, isinstance(d, Integer))

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
                return values_in(plain_array(came, inputs, inputs[0].shape), inputs, self.task.inputs)
            every, scale = self._parts(came, inputs)
            told.append(scale)
            return self._fields(self._unlaid(every, inputs), inputs)

        return self._answer(inputs, plain, self._laid(inputs)), told[0]

    def _fields(self, parts: tuple[Any, ...], inputs: tuple[Array, ...]) -> Fields:
        """The parts of blocks as arrays of their types."""
        x = inputs[0]
        d, shared = self.task.block, self.task.blocking(x.shape).shared_shape
        signed = isinstance(d, ElementBlock) and isinstance(d.element, Integer)
        codes = codes_in(plain_array(parts[0], inputs, x.shape), inputs, d.element_bits, signed)
        scale = codes_in(plain_array(parts[1], inputs, shared), inputs, d.scale_bits)
        if not d.sub_blocks:
            return Fields(codes.astype(d.code_dtype), scale.astype(np.uint8), None)
        micro = codes_in(plain_array(parts[2], inputs, shared), inputs, d.micro_bits)
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
            scale = one_number(more[0], inputs) if more else None
        given = 1.0 if self.task.tensor_scale is None else self.task.tensor_scale
        if not self.task.finds_scale and scale not in (None, float(np.float32(given))):
            raise Fault("result", inputs, f"a tensor scale of {scale:.9g}", f"{given:.9g}, which was given")
        return scale

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
            strings = plain_array(codes, inputs, (*shape[:-1], shape[-1] * width // 8))
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
        laid = plain_array(scale, inputs, due)
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

    def copies(self, inputs: tuple[Any, ...], count: int) -> list[Array]:
        """So many copies, as calls are given them: while these are held, the next ones lie elsewhere."""
        return [self._own(x, None) for x in self.arrays_in(inputs) for _ in range(count)]

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


def _told(came: Blocks, ndim: int) -> tuple[str, int]:
    return came.dtype.name, came.axis % ndim


def _spelled(facts: tuple[str, int]) -> str:
    return f"{facts[0]} along axis {facts[1]}"
