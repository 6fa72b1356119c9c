"""A callable under test: how it is imported, given its arrays and watched."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from numerics.backends.host.ieee import set_ieee
from numerics.conform import watching
from numerics.conform.inputs.edges import Edge
from numerics.conform.inputs.margins import UNUSED
from numerics.conform.takes import Takes
from numerics.conform.targets.faults import Case
from numerics.conform.targets.returned import Raised, guarded, torch_module
from numerics.conform.task import Array
from numerics.formats.errors import NumericsError, a_kind_of, kind_of, nearest, not_a_file, said

OWN_MODE = "what a call sets holds until it returns: wrong answers may come from its own mode"
"""What is said of a target that sets its thread's mode (MXCSR of x86) within a call."""
HANDLING = "it leaves NumPy's handling of errors changed (np.seterr), which was set back after each call"
"""What is said of a target that calls np.seterr: later arithmetic of its caller may raise."""


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


def _near(module: str, function: str) -> str:
    """Which function of a module may be meant; nothing of a module that is not there."""
    inside = vars(sys.modules[module]) if module in sys.modules else {}
    near = nearest(function, [name for name, thing in inside.items() if callable(thing)])
    return f"; did you mean {module}:{near}?" if near else ""
