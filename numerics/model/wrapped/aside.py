"""Planned parameters that a forward reads otherwise than as attributes of their modules: refused by name.

A parameter is quantized where its module is asked for it by name.  A forward that has it from a list, from
`parameters()` or from what a function closed over has the floats themselves.  The functions of a first call
are looked at for these, and those of every call where a module keeps one beside its registered place.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from numerics.backends.host.tensors import has_values
from numerics.formats.errors import NumericsError
from numerics.model.deciding.plan import Plan
from numerics.model.looking.places import is_shard
from numerics.model.looking.products import FUNCTIONS, LIKE, OPAQUE, PRODUCTS, name_of
from numerics.model.looking.restoring import INNER
from numerics.model.looking.trace import outside, tensors_of, written_by
from numerics.pytorch.wrapper import Wrapper
from numerics.view.text import folded

HELD = "numerics_held"
"""Under that name a wrapped model has the planned parameters that something beside its modules holds."""

_ALIKE = frozenset({"to", "type", "type_as", "view_as", "reshape_as", "expand_as"})
"""They take a type or a shape from their second tensor, and none of its values."""
_DEEP = 6
"""So many containers inside one another are looked into."""


class ReadAside(NumericsError):
    """A forward has planned parameters otherwise than as attributes of their modules."""


def planned_in(model: nn.Module, plan: Plan) -> dict[str, Tensor]:
    """The planned parameters of a float model by their first names."""
    every = dict(model.named_parameters(remove_duplicate=False))
    rows = [row for row in plan.rows if row.kind == "parameter" and row.spec is not None]
    return {row.name: every[row.name] for row in rows if row.name in every}


def held_in(model: nn.Module, planned: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those planned parameters that attributes of its modules hold, themselves or a view of them."""
    memory = Memory(planned.items())
    names = {name for x in beside_modules(model) for name in memory.names(x)}
    return {name: x for name, x in planned.items() if name in names}


def beside_modules(model: nn.Module) -> Iterator[Tensor]:
    """The tensors in attributes of its modules: in lists, mappings, functions and objects."""
    met = set[int]()
    for module in model.modules():
        own = {*INNER}
        if isinstance(module, nn.RNNBase):
            own |= {"_flat_weights", "_flat_weight_refs"}
        yield from _inside([x for name, x in vars(module).items() if name not in own], met, _DEEP)


class Memory:
    """Which of some tensors another one is or shows."""

    def __init__(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        self._by_id: dict[int, set[str]] = {}
        self._by_storage: dict[int, list[tuple[int, int, str]]] = {}
        self._kept: list[Tensor] = []  # so that no identity is another's
        for name, x in tensors:
            if isinstance(x, Wrapper) or is_shard(x):
                continue
            self._kept.append(x)
            self._by_id.setdefault(id(x), set()).add(name)
            if (start := _start(x)) is not None:
                stretch = start, start + x.numel() * x.element_size(), name
                self._by_storage.setdefault(_storage(x), []).append(stretch)

    def names(self, x: Tensor) -> frozenset[str]:
        """The names of the tensors in whose memory it is."""
        if id(x) in self._by_id:
            return frozenset(self._by_id[id(x)])
        start = _start(x)
        if start is None:
            return frozenset()
        stretches = self._by_storage.get(_storage(x), ())
        return frozenset(name for first, end, name in stretches if first <= start < end)


def _inside(things: Iterable[Any], met: set[int], depth: int) -> Iterator[Tensor]:
    """The tensors in containers, functions and plain objects, but for those of modules."""
    for thing in things:
        if isinstance(thing, Tensor):
            yield thing
        elif depth and id(thing) not in met and not isinstance(thing, (str, bytes, int, float, nn.Module)):
            met.add(id(thing))
            yield from _inside(_parts(thing), met, depth - 1)


def _parts(thing: Any) -> list[Any]:
    """What a container, a function or a plain object holds."""
    if isinstance(thing, Mapping):
        return [*thing.values()]
    if isinstance(thing, (list, tuple, set, frozenset, deque)):
        return [*thing]
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, MethodType):
        return [thing.__self__, thing.__func__]
    if isinstance(thing, FunctionType):
        cells = [cell.cell_contents for cell in thing.__closure__ or () if _is_filled(cell)]
        return [*cells, *(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()]
    if isinstance(thing, (type, ModuleType)):
        return []
    return [*getattr(thing, "__dict__", {}).values()]


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # of a variable that was never given
        return False


class Aside(TorchFunctionMode):
    """Sees which of some parameters go into functions as they are.

    own: those that modules have, by name.  held: those that something beside them holds.  reads: the code of
    what reads one quantized, inside of which all are as they are.
    """

    def __init__(
        self, own: Iterable[tuple[str, Tensor]], held: Mapping[str, Tensor], reads: CodeType
    ) -> None:
        super().__init__()
        self.held, self.reads, self.used = tuple(held), reads, dict[str, str]()
        self._memory = Memory((*own, *held.items()))
        self._made: dict[int, tuple[Any, frozenset[str]]] = {}

    def _names(self, x: Tensor) -> frozenset[str]:
        """Those of the parameters that a tensor is, shows, or is made of alone."""
        for one in (x, outside(x)):
            if one is None:
                continue
            found = self._made.get(id(one))
            if found is not None and found[0]() is one:
                return found[1]
            if names := self._memory.names(one):
                return names
        return frozenset()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What the function makes; notes the parameters that it takes as they are."""
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():  # a branch of torch.cond
            return func(*args, **kwargs)
        if isinstance(func, torch._ops.HigherOrderOperator):  # inside of which nobody sees
            self.used |= dict.fromkeys(self.held, str(func))
            return func(*args, **kwargs)
        came = {x: self._names(x) for x in tensors_of((args, kwargs))}
        out = func(*args, **kwargs)
        if any(came.values()) and not self._in_a_read():
            self._look(func, args, kwargs, came, out)
        return out

    def _in_a_read(self) -> bool:
        frame: Any = sys._getframe(2)
        while frame is not None:
            if frame.f_code is self.reads:
                return True
            frame = frame.f_back
        return False

    def _look(self, func: Any, args: Any, kwargs: Any, came: dict[Tensor, frozenset[str]], out: Any) -> None:
        """Notes the parameters in a product or beside something computed, and what is made of them alone."""
        name = FUNCTIONS.get(func) or name_of(func)
        results = [x for x in tensors_of(out) if x.is_floating_point()]
        written = {id(x) for x in written_by(func, args, kwargs)}
        names = frozenset().union(*(of for x, of in came.items() if id(x) not in written))
        if not names or not results or name in LIKE or (name in _ALIKE and not next(iter(came.values()))):
            return
        mixed = any(x.is_floating_point() and x.ndim and not of for x, of in came.items())
        if name in PRODUCTS or name in OPAQUE or mixed:
            self.used |= dict.fromkeys(sorted(names), name)
            return
        for x in results:
            if x.ndim and not self._names(x):
                self._made[id(x)] = weakref.ref(x), names


def _start(x: Tensor) -> int | None:
    """Where its values begin; None of what has none of its own, such as an entry of what vmap shows."""
    if isinstance(x, Wrapper) or is_shard(x) or is_lazy(x) or not has_values(x) or x.layout != torch.strided:
        return None
    if torch._C._functorch.is_functorch_wrapped_tensor(x):
        return None
    try:
        return x.data_ptr() or None
    except RuntimeError:  # a part of a wrapper that is being made, or what torch traces with
        return None


def _storage(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def check_read(module: nn.Module, used: Mapping[str, str]) -> None:
    """Raises NumericsError where planned parameters went into functions as they are."""
    if not used:
        return
    first, operation = next(iter(used.items()))
    raise ReadAside(
        f"{folded([*used])}: the forward of {type(module).__name__}, or of a module in it, has "
        f"{'them' if len(used) > 1 else 'it'} otherwise than as an attribute of its module (from a list, a "
        f"function, parameters() or state_dict()), and would compute in floats there ({operation}): read "
        f"self.{first.rpartition('.')[2]} there; mode='fx_graph_mode' with example= takes it as it "
        f"is; rules={{{first!r}: None}} leaves it in floats"
    )
