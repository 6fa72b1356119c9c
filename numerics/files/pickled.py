"""What a file of torch.save holds, by its pickle alone: nothing in it is made or executed, no tensor read.

A pickle is a program for a machine with a stack; what is followed here is where dicts and lists lie, and
which of their values are tensors.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

LONGEST = 1 << 23  # bytes of a pickle, which of torch's are some hundred a tensor
BEFORE = 3  # pickles before that of the object, in torch's older files
_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # of those files, after two bytes


class Thing(NamedTuple):
    """What a pickle calls, or would make by that call: known by its module and name alone."""

    module: str
    name: str

    @property
    def is_tensor(self) -> bool:
        """Is it a tensor, ours too?"""
        rebuilt = self.name.startswith("_rebuild") and self.module in ("torch._utils", "torch._tensor")
        return rebuilt or (self.module.startswith("numerics.") and self.name == "rebuilt")

    @property
    def is_safe(self) -> bool:
        """Does torch.load(weights_only=True) take it?  Where that is not sure, no."""
        return self.module in _SAFE or self.module.startswith("numerics.")


_SAFE = ("torch", "torch._utils", "torch._tensor", "torch.nn.parameter", "torch.storage", "collections",
         "_codecs")  # fmt: skip


class Held(NamedTuple):
    """What a pickle holds: the object, of dicts, lists and `Thing`s; and all that it calls."""

    root: Any
    called: list[Thing]

    @property
    def is_safe(self) -> bool:
        """Does torch.load(weights_only=True) take it?"""
        return all(one.is_safe for one in self.called)


MODULE = Thing("torch.nn", "Module")
"""A whole module of torch, of whatever class."""


def held_in(path: Any) -> Held | None:
    """What a file of torch.save holds; None for one that is damaged, or of another kind."""
    try:
        with open(path, "rb") as file:
            return _Machine().run(_pickle(file))
    except (OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile, RecursionError, EOFError):
        return None
    except (
        AttributeError,
        NotImplementedError,
        RuntimeError,
    ):  # zips that are encrypted, or compressed oddly
        return None


def _pickle(file: Any) -> io.BytesIO:
    """The pickle of the object that a file of torch.save holds, with what precedes it left out."""
    if file.read(4)[:2] == b"PK":
        with zipfile.ZipFile(file) as zipped:
            name = next(name for name in zipped.namelist() if name.endswith("data.pkl"))
            with zipped.open(name) as one:
                return io.BytesIO(one.read(LONGEST))
    file.seek(0)
    found = io.BytesIO(file.read(LONGEST))
    if found.getvalue()[2:].startswith(_MAGIC):
        for _ in range(BEFORE):
            for _step in pickletools.genops(found):
                pass
    return found


class _Machine:
    """The machine for which a pickle is a program, that makes nothing but dicts, lists and tuples."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[Any, Any] = {}
        self.called: list[Thing] = []

    def run(self, pickle: io.BytesIO) -> Held:
        """Follows a pickle to its end."""
        for op, arg, _ in pickletools.genops(pickle):
            if op.name == "STOP":
                break
            if op.name == "MARK":
                self.stack.append(_MARK)
            elif op.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
                self.memo[len(self.memo) if arg is None else arg] = self.stack[-1]
            elif op.name in ("GET", "BINGET", "LONG_BINGET"):
                self.stack.append(self.memo[arg])
            else:
                self.stack.extend(self._made(op, arg, self._taken(op)))
        return Held(self.stack[-1], self.called)

    def _taken(self, op: Any) -> list[Any]:
        """What a step takes from the stack: what lies above the last mark is one list of it."""
        taken: list[Any] = []
        for due in reversed(op.stack_before):
            if due is pickletools.stackslice:
                above: list[Any] = []
                while (one := self.stack.pop()) is not _MARK:
                    above.append(one)
                taken.append(above[::-1])
            elif due is not pickletools.markobject:  # it went with what lay above
                taken.append(self.stack.pop())
        return taken[::-1]

    def _made(self, op: Any, arg: Any, taken: list[Any]) -> Iterator[Any]:
        """What a step puts there."""
        if op.name in ("GLOBAL", "STACK_GLOBAL"):
            module, name = arg.split(" ", 1) if arg is not None else map(str, taken)
            self.called.append(Thing(module, name))
            yield self.called[-1]
        elif (make := _STEPS.get(op.name)) is not None:
            yield make(taken)
        elif op.name == "DUP":
            yield from taken * 2
        elif op.stack_after:
            yield arg if isinstance(arg, (str, int)) else None


_MARK = object()


def _into_dict(taken: list[Any]) -> Any:
    """A dict, or what stands for one, with more items."""
    target, *rest = taken
    items = rest[0] if isinstance(rest[0], list) and len(rest) == 1 else rest
    if isinstance(target, dict):
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[key if isinstance(key, (str, int)) else repr(type(key))] = value
    return target


def _into_list(taken: list[Any]) -> Any:
    target, more = taken
    if isinstance(target, list):
        target.extend(more)
    return target


def _appended(taken: list[Any]) -> Any:
    return _into_list([taken[0], [taken[1]]])


def _called(taken: list[Any]) -> Any:
    """What comes of a call."""
    function, given = taken[0], taken[1]
    if not isinstance(function, Thing):
        return None
    if (function.module, function.name) == ("collections", "OrderedDict"):
        return {}
    if (function.module, function.name) == ("torch._utils", "_rebuild_parameter"):
        return given[0]
    return function


def _built(taken: list[Any]) -> Any:
    """An object that was given its state: a module of torch is known by that."""
    target, state = taken
    return MODULE if isinstance(state, dict) and {"_parameters", "_modules"} <= set(state) else target


_STEPS: dict[str, Callable[[list[Any]], Any]] = {
    "EMPTY_DICT": lambda taken: {},
    "EMPTY_LIST": lambda taken: [],
    "EMPTY_TUPLE": lambda taken: (),
    "DICT": lambda taken: _into_dict([{}, *taken]),
    "LIST": lambda taken: list(taken[0]),
    "TUPLE": lambda taken: tuple(taken[0]),
    "TUPLE1": tuple, "TUPLE2": tuple, "TUPLE3": tuple,
    "SETITEM": _into_dict, "SETITEMS": _into_dict,
    "APPEND": _appended, "APPENDS": _into_list,
    "REDUCE": _called, "NEWOBJ": _called, "BUILD": _built,
}  # fmt: skip
"""What a step makes of what it takes."""
