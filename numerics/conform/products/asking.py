"""A target that multiplies: asked one problem, its result made plain and compared."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.float_bits import bfloat16_type, to_float32
from numerics.conform.inputs.edges import Edge
from numerics.conform.inputs.margins import UNUSED
from numerics.conform.inputs.shapes import Room, like
from numerics.conform.inputs.tensors import tensor_of
from numerics.conform.laws.law import sentence
from numerics.conform.products import given
from numerics.conform.products.cases.aliasing import as_one, is_turned
from numerics.conform.products.certificate import answer, negated_zeros, never_finite
from numerics.conform.products.claim import Claim
from numerics.conform.products.laws import strides
from numerics.conform.products.lying import DENSE, OTHERS, PLACES, Place
from numerics.conform.products.pace import Watch
from numerics.conform.products.problem import Problem
from numerics.conform.takes import ANYTHING, Takes
from numerics.conform.targets.faults import Case, Fault
from numerics.conform.targets.held import holding
from numerics.conform.targets.judged import Judged
from numerics.conform.targets.memory import CHANGED, OTHERWISE, Filled, Forms, Unchanged
from numerics.conform.targets.reading import read
from numerics.conform.targets.returned import Raised, check_device, guarded, returned, torch_module
from numerics.conform.task import Array
from numerics.conform.verdict import Counterexample
from numerics.tensor.parts import PARTS
from numerics.tensor.qtensor import QTensor

SHARED = PARTS[:-1]
"""The parts of a QTensor that are arrays: all but the scale of the tensor."""
HELD = UNUSED ^ OTHERWISE
"""Each byte of the memory of a result before a call: numbers that are large in every type, so that a kernel
that adds to them shows."""


@dataclass(frozen=True)
class Seen:
    """What came of a problem, what was due, and where one right answer exists."""

    problem: Problem
    came: Array
    due: Array
    decided: NDArray[np.bool_]

    @cached_property
    def never_finite(self) -> NDArray[np.bool_]:
        """The results that are not decided, but may be no finite number: Inf, or NaN, is right."""
        return never_finite(self.problem, self.due) & ~self.decided

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """The results that no order of right additions gives."""
        differs = self.decided & unequal(self.came, self.due)
        if self.never_finite.any():
            differs |= self.never_finite & np.isfinite(self.came)
        return differs | negated_zeros(self.problem, self.came, self.decided)

    def cut(self, rows: list[int], columns: list[int]) -> Seen:
        """The same of some rows and columns of each batch alone."""
        laid, batch = self.problem.claim.laid, self.problem.batch
        places = np.ix_(*(
            [group * size + i for group in range(laid.groups(name, batch) if batch else 1) for i in kept]
            for name, size, kept in zip("ab", self.problem.matrix, (rows, columns), strict=True)
        ))  # fmt: skip
        came, due, decided = (x[places] for x in (self.came, self.due, self.decided))
        return Seen(self.problem.cut(rows, columns), came, due, decided)

    def turned_around(self) -> Seen:
        """The same with all rows of both sides in reverse, so that other numbers are due in its places."""
        came, due, decided = (x[::-1, ::-1] for x in (self.came, self.due, self.decided))
        return Seen(self.problem.turned_around(), came, due, decided)


def unequal(came: Array, due: Array) -> NDArray[np.bool_]:
    """Where numbers differ; any NaN equals any other, and so do zeros."""
    with np.errstate(invalid="ignore"):
        differs = np.asarray(came != due)
    if due.dtype.kind == "f" and differs.any():
        differs &= ~(np.isnan(came) & np.isnan(due))
    return differs


class ProductTarget(Judged):
    """A callable of (a, b[, bias]), the claim that it is judged by, and what it takes."""

    def __init__(self, function: Callable[..., Any] | str, claim: Claim, takes: Takes = ANYTHING) -> None:
        super().__init__(function, takes)
        self.claim = claim
        self.held = HELD
        self.watch = Watch()

    def takes_problem(self, problem: Problem) -> bool:
        """Is a problem within what it takes: whole blocks alone, finite numbers, nothing empty, no view?"""
        if self.takes.whole_blocks and any(op.size and problem.shape[2] % op.size for op in
                                           (self.claim.a, self.claim.b)):  # fmt: skip
            return False
        if self.takes.nonempty and 0 in problem.sizes_of_all:
            return False
        if self.takes.contiguous and problem.one and is_turned(problem):
            return False
        return not self.takes.finite or bool(np.isfinite(problem.exact).all())

    def see(self, problem: Problem) -> Seen:
        """Asks a problem; raises Fault where there is no result, or another one beside forbidden memory."""
        came = self.came(problem)
        due, decided = answer(problem)
        seen = Seen(problem, came, due, decided)
        for edge in self.witness.edges((problem,)):
            other = replace(seen, came=self.result(self.once((problem,), edge), problem))
            if other.wrong.any() and not seen.wrong.any():
                raise Fault.of(_beside_edge(other), (problem.a.codes,))
        return seen

    def again(self, seen: Seen) -> Seen:
        """Asks what was asked before, whose answer is known."""
        return replace(seen, came=self.came(seen.problem))

    def came(self, problem: Problem) -> Array:
        """What the target returns for a problem, as float32, float16 or int32."""
        return self.result(self.once((problem,)), problem)

    def once(self, case: Case, edge: Edge | None = None) -> Any:
        """The same, called a single time; edge: its operands lie beside forbidden memory."""
        problem = case[0]
        arguments = _arguments(problem, edge)
        arrays = [(name, x) for name, part in zip(given.names_of(problem.claim), arguments, strict=True)
                  for x in _arrays_of(part)]  # fmt: skip
        unchanged = Unchanged(tuple(x for _, x in arrays), edge is None)

        def call(filled: tuple[Array, ...] = ()) -> Any:
            return self._called((*arguments, *filled), case, edge)

        fills = self.takes.fills
        came = self._filled(problem, call, _shown(arguments), edge) if fills else call()
        if law := unchanged.broken():
            said = f"{CHANGED[law]}: {arrays[unchanged.changed][0]}"
            raise Fault(law, _shown(arguments), said, "the same bytes")
        return came

    def leaving(self, problem: Problem, byte: int) -> Array:
        """What a call leaves where the memory of its result held that byte, which it need not overwrite."""
        with self.holding(byte):
            arguments = _arguments(problem, None)
            if not self.takes.fills:
                return self.result(self._called(arguments, (problem,), None), problem)
            room = Filled.of(_forms(problem, None), None, byte)
            self._called((*arguments, *room.arrays), (problem,), None)
            return self.result(room.arrays[0], problem)

    def _filled(
        self, problem: Problem, call: Callable[..., Any], shown: tuple[Array, ...], edge: Edge | None
    ) -> Any:
        """What a call writes into an array for the result: unused memory, or c where it is added in place."""
        forms = _forms(problem, edge)
        if not problem.claim.in_place:
            return Filled.by(call, forms, shown, edge, self.held)
        room = Filled.of(forms, edge)
        room.arrays[0][...] = given.c_of(problem)[0]
        call(room.arrays)
        return room.result(shown)

    def _called(self, arguments: tuple[Any, ...], case: Case, edge: Edge | None) -> Any:
        if self.takes.array == "torch":
            within = edge is None and not self.gives.stored_alone
            made = {id(x): _torch_of(x, place, within) for place, x in enumerate(arguments)}
            arguments = tuple(made[id(x)] for x in arguments)
        inputs = len(arguments) - self.takes.fills
        copied = self.takes.array == "torch"
        before = [_bytes_of(x) for x in arguments[:inputs]] if copied else []
        self.witness.before(case, edge)
        memory = holding(self.held, [_form(case[0])]) if self.primed else nullcontext()
        try:
            with np.errstate(all="ignore"), memory, self.watch.running():
                came = guarded(lambda: self.function(*arguments))
        except Raised as wrong:
            check_device(self.name, wrong)
            raise Fault("runs", _shown(arguments), f"{wrong}{_hint(case[0])}", "a result") from wrong
        finally:
            self.came_back(_shown(arguments[:1])[0])
        if copied and [_bytes_of(x) for x in arguments[:inputs]] != before:
            raise Fault("inputs_unchanged", _shown(arguments), CHANGED["inputs_unchanged"], "the same bytes")
        return came

    def result(self, came: Any, problem: Problem) -> Array:
        """What came, as a matrix of the type that is claimed; raises Fault for anything else."""
        shape = _form(problem)[0]
        shown = (problem.a.codes,)
        with self.watch.running():  # of a device, which may still be at work on it
            array, name = read(came, shown)
        if name != self.claim.out:
            raise Fault("dtype", shown, name, self.claim.out)
        if array.shape != shape:
            raise Fault("shape", shown, str(array.shape), str(shape))
        return _side_by_side(self._plain(array), problem)

    def _plain(self, array: Array) -> Array:
        """An array of the type that is claimed, as float32, float16 or int32."""
        if self.claim.out == "bfloat16":
            bits = array.view(np.uint16).astype(np.uint32) << np.uint32(16)
            return np.ascontiguousarray(bits).view(np.float32)
        array = array.astype(array.dtype.newbyteorder("="))
        return np.asarray(to_float32(array) if array.dtype.kind == "f" else array)


def _hint(problem: Problem) -> str:
    """What may be meant where a target raises that was given nothing."""
    return "; nonempty=True (--nonempty) gives it no empty operands" if 0 in problem.sizes_of_all else ""


def _beside_edge(seen: Seen) -> Counterexample:
    """A result that is right in memory of its own, and wrong beside forbidden memory."""
    at = tuple(int(i) for i in np.argwhere(seen.wrong)[0])
    where = f"{seen.problem.where(at)}, of operands at the end, or the beginning, of their memory"
    came, due, count = str(seen.came[at]), str(seen.due[at]), int(seen.wrong.sum())
    return Counterexample(strides.__name__, sentence(strides), (), came, due, count, where)


def _form(problem: Problem) -> tuple[tuple[int, ...], Any]:
    """Shape and type of a result."""
    out = problem.claim.out
    return (*problem.batch, *problem.matrix), bfloat16_type() if out == "bfloat16" else np.dtype(out)


def _forms(problem: Problem, edge: Edge | None) -> Forms:
    """The array of a result that a target fills, and how it lies: as the problem says, or at an edge."""
    lies = problem.lies.place("out")
    plain = edge is not None or lies == DENSE.place("out")
    return Forms([_form(problem)], None if plain else lies.view)


def _side_by_side(came: Array, problem: Problem) -> Array:
    """The results of all batches as one matrix of all rows and columns; zeros between them."""
    if not problem.batch:
        return came
    found = np.zeros(problem.shape[:2], came.dtype)
    for at, rows, columns in problem.blocks():
        found[rows, columns] = came[at]
    return found


def _arguments(problem: Problem, edge: Edge | None) -> tuple[Any, ...]:
    """What a target is given for a problem, where that lies in memory."""
    lies = [problem.lies.place(name) for name in PLACES]
    placed = (_placed(x, lies[min(at, OTHERS)], edge) for at, x in enumerate(given.arguments(problem)))
    return as_one(problem, tuple(placed))


def _placed(x: Any, lies: Place, edge: Edge | None) -> Any:
    """An operand as a target finds it: with gaps, beside forbidden memory, or amid unused memory."""
    if not isinstance(x, (np.ndarray, QTensor)):  # alpha, beta
        return x
    if lies.how and isinstance(x, np.ndarray):
        x = lies.lying(cast(Array, x))
        return x if edge is None else beside(edge.room, x)
    return beside(lies.room if edge is None else edge.room, x)


def beside(room: Room, x: Any) -> Any:
    """The same operand, of which every array lies in memory of its own: beside what may not be touched."""
    if not isinstance(x, QTensor):
        return like(x, x, room)
    arrays = {name: part for name in PARTS if isinstance(part := getattr(x, name), np.ndarray)}
    return replace(cast(Any, x), **{name: like(part, part, room) for name, part in arrays.items()})


def _torch_of(x: Any, place: int, within: bool) -> Any:
    """An operand as tensors in the same memory; within: many begin within their storage."""
    torch = torch_module()
    if not isinstance(x, QTensor):
        return tensor_of(torch, x, place, within) if isinstance(x, np.ndarray) else x
    from numerics.formats import dispatch

    tensors: Any = dispatch.converter("torch")(x)
    shared = (getattr(x, name) for name in SHARED)
    parts = [
        tensor_of(torch, part, place + turn, within)
        if isinstance(part, np.ndarray)
        else getattr(tensors, name)
        for turn, (name, part) in enumerate(zip(SHARED, shared, strict=True))
    ]
    return tensors.with_parts(tensors.spec, tuple(x.shape), *parts)


def _bytes_of(x: Any) -> bytes:
    """The bytes of an operand: of a QTensor those of all its parts."""
    parts = (getattr(x, name) for name in PARTS) if isinstance(x, QTensor) else (x,)
    return b"".join(returned(part).array.tobytes() for part in parts if part is not None)


def _arrays_of(x: Any) -> list[Array]:
    """The arrays of an operand: of a QTensor all its parts."""
    parts = (getattr(x, name) for name in PARTS) if isinstance(x, QTensor) else (x,)
    return [part for part in parts if isinstance(part, np.ndarray)]


def _shown(arguments: tuple[Any, ...]) -> tuple[Array, ...]:
    return tuple(returned(x.packed if isinstance(x, QTensor) else x).array for x in arguments)
