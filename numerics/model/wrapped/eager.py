"""Eager mode: modules that are what they were, but for parameters and arguments that come quantized.

A parameter is quantized where it lives: the module's class gets a property of its name, so whoever reads
it, in whatever operation, reads the quantized values, while the parameter itself stays where it was, for
optimizers and state dictionaries.  What is computed is quantized where the plan's sites are: at the entry
of modules that are one product, else at the functions that the module's own forward calls.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.utils import stateless
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

from numerics.formats.errors import NumericsError, a_kind_of
from numerics.model.caches.placing import CACHES, placed, with_cache
from numerics.model.deciding.plan import Plan
from numerics.model.deciding.reach import unreached
from numerics.model.looking.places import is_shard, memory_footprint, name_in, packed, shard_read
from numerics.model.looking.products import FUNCTIONS, PRODUCTS, in_order
from numerics.model.looking.trace import OUT, Site, is_one_product
from numerics.model.wrapped.aside import HELD, Aside, check_read
from numerics.model.wrapped.children import check_children, shown
from numerics.model.wrapped.fitting import Fitting
from numerics.model.wrapped.guarding import GUARDED, Reader, guard, to_guard
from numerics.model.wrapped.matching import Matching, Planned, Sites, follow, forget, note, sites_of
from numerics.model.wrapped.outside import MULTIPLIED, TOLD, methods_of
from numerics.model.wrapped.quantizers import Learned, Quantizer
from numerics.model.wrapped.renaming import in_module
from numerics.model.wrapped.sharing import Parting
from numerics.model.wrapped.state import STATE, State, check_deleted
from numerics.model.wrapped.structure import check_structure, check_traced, forget_modules
from numerics.model.wrapped.where import say_where
from numerics.tensor.qtensor import QTensor

_FUSING = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)


class _Stack(threading.local):
    """The modules whose forwards run in this thread, the innermost last."""

    def __init__(self) -> None:
        self.modules: list[nn.Module] = []
        self.called: list[Any] = []
        self.region = False  # is an operator called that takes functions, such as torch.cond?
        self.outside = False  # of any forward, in a method that is watched
        self.read: list[tuple[dict[Any, Any], set[Any]]] = []  # by each of the forwards; see _once


_running = _Stack()


class Quantized(Fitting, Parting):
    """What a module's class has besides its own, once something of it is quantized.

    All names begin with numerics, since a module may have any other name of its own.
    `numerics_leaves`: the parameters of the class that are read quantized; `quantize_<leaf>` are their
    quantizers.  `numerics_base`: the class that the module had.
    `numerics_sites`: of the functions of its forward, the names of the quantizers of their arguments.
    """

    numerics_leaves: tuple[str, ...] = ()
    numerics_base: type[nn.Module]
    numerics_entry: str | None = None
    numerics_exit: str | None = None
    numerics_sites: Sites | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls it: what its forward does is its own, and not that of the module that calls."""
        if torch.compiler.is_compiling():  # which can't change what is outside of a branch
            return super().__call__(*args, **kwargs)  # type: ignore[misc]
        depth = len(_running.called)
        _running.called.append(self)
        try:
            return super().__call__(*args, **kwargs)  # type: ignore[misc]
        finally:
            del _running.called[depth:]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own, with what comes in, and goes into its functions, quantized."""
        if not torch.compiler.is_compiling():
            if _running.called and _running.called[-1] is self:
                _running.called.pop()
            elif _running.modules and sys._getframe(1).f_code.co_filename != nn.modules.module.__file__:
                return super().forward(*args, **kwargs)  # type: ignore[misc]  # a function of what runs
            state = self.__dict__.get(STATE)
            if state is not None:
                check_structure(self)  # type: ignore[arg-type]
            computed = _looked if state is not None and state.looks else _computed
            _running.read.append(({}, set()))
            try:
                return computed(self, super().forward, args, kwargs)  # type: ignore[misc]
            except Exception as wrong:
                if state is not None:
                    check_deleted(self, wrong)  # type: ignore[arg-type]
                    say_where(self, wrong)  # type: ignore[arg-type]
                raise
            finally:
                _running.read.pop()
        if STATE in self.__dict__:
            self._numerics_traced()
        return _computed(self, super().forward, args, kwargs)  # type: ignore[misc]

    @torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
    def _numerics_traced(self) -> bool:
        """Looks at the whole model while a call of it is traced, where nothing of that is part of a graph."""
        check_traced(self)  # type: ignore[arg-type]
        return True

    def __getstate__(self) -> Any:
        with torch.no_grad():  # what is read quantized is no leaf, and modules of recurrence keep some
            return super().__getstate__()  # type: ignore[misc]

    def __reduce_ex__(self, protocol: Any) -> Any:
        kind = self.numerics_base, self.numerics_leaves, tuple(self.__dict__.get(GUARDED, ()))
        return _blank, kind, self.__getstate__()

    def numerics_read_quantized(self, made: State | None) -> Iterable[str]:
        """The names of its own parameters that are read quantized."""
        return self.numerics_leaves

    def _get_name(self) -> str:
        return self.numerics_base.__name__

    def extra_repr(self) -> str:
        """The module's own, and what is packed."""
        own = super().extra_repr()  # type: ignore[misc]
        parameters = self._parameters  # type: ignore[attr-defined]
        packed = [f"{leaf}={x.spec.dtype}" for leaf, x in parameters.items() if isinstance(x, QTensor)]
        return ", ".join([own, *packed] if own else packed)


def _computed(module: Any, forward: Any, args: Any, kwargs: Any) -> Any:
    """What a forward makes of its arguments, with the cache, the input and the output of the plan."""
    if CACHES in module.__dict__:
        args, kwargs = with_cache(module, args, kwargs)
    if module.numerics_entry is not None:
        args, kwargs = _entered(module, module.numerics_entry, args, kwargs)
    if module.numerics_sites is None:
        out = forward(*args, **kwargs)
    else:
        out = _watched(module, forward, args, kwargs)
    return out if module.numerics_exit is None else getattr(module, module.numerics_exit)(out)


def _looked(model: Any, forward: Any, args: Any, kwargs: Any) -> Any:
    """A forward of a whole model; raises NumericsError where it has planned parameters as they are."""
    state, held = model.__dict__[STATE], model.__dict__.get(HELD, {})
    own = [] if state.frozen else [*_read_quantized(model)]
    if held or own:
        with Aside(own, held, _READS) as aside:
            out = _computed(model, forward, args, kwargs)
        check_read(model, aside.used)
    else:
        out = _computed(model, forward, args, kwargs)
    state.looks = bool(held)
    return out


def _read_quantized(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters that are quantized when they are read, by their names."""
    for prefix, module in model.named_modules():
        for leaf in module.numerics_leaves if isinstance(module, Quantized) else ():
            x = module._parameters.get(leaf)  # type: ignore[attr-defined]
            if x is not None:
                yield name_in(prefix, leaf), x


def _watched(module: Any, forward: Any, args: Any, kwargs: Any) -> Any:
    """A forward whose functions are looked at, where the plan has something of them."""
    if torch.compiler.is_compiling() and _running.region and not module.numerics_sites.by_order:
        return forward(*args, **kwargs)  # in a branch, which changes nothing outside of it
    _running.modules.append(module)
    try:
        if not module.numerics_sites.by_order and not isinstance(module, _FUSING):
            return forward(*args, **kwargs)
        matching = Matching(module, module.numerics_sites, not torch.compiler.is_compiling())
        with _Sites(module, matching):
            out = forward(*args, **kwargs)
        matching.close()
        return out
    finally:
        _running.modules.pop()
        if not _running.modules and not torch.compiler.is_compiling():
            forget()


def _entered(module: Any, entry: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The arguments of a module that is one product, its input quantized."""
    quantize = getattr(module, entry)
    if args:
        return (_quantized(quantize, args[0]), *args[1:]), kwargs
    name = "input" if "input" in kwargs else next(iter(kwargs))
    return args, {**kwargs, name: _quantized(quantize, kwargs[name])}


def _quantized(quantize: Any, x: Any) -> Any:
    """A tensor, or sequences that are packed into one."""
    return x._replace(data=quantize(x.data)) if isinstance(x, PackedSequence) else quantize(x)


@cache
def quantized_class(
    base: type[nn.Module], leaves: tuple[str, ...], guards: tuple[str, ...] = ()
) -> type[nn.Module]:
    """The class of modules of a base class, of which some parameters are read quantized, some guarded.

    It has the name of the base class: others write that down, as transformers does in a configuration.
    """
    properties: dict[str, Any] = {leaf: property(_reading(leaf)) for leaf in leaves}
    for leaf in guards:
        read = properties[leaf].fget if leaf in leaves else _plainly(leaf)
        properties[leaf] = property(_guarding(leaf, read))
    members: dict[str, Any] = {
        "__module__": base.__module__,
        "__doc__": base.__doc__,
        "numerics_leaves": leaves,
        "numerics_base": base,
    }
    members |= methods_of(base, _running) | shown(base)
    if hasattr(base, "get_memory_footprint"):  # of transformers, which counts the values of packed weights
        members["get_memory_footprint"] = memory_footprint
    members["forward"] = _with_signature(base)
    made: type[nn.Module] = type(base.__name__, (Quantized, base), {**members, **properties})
    return made


def _with_signature(base: type[nn.Module]) -> Any:
    """The quantized forward with the signature of the class's own: others call models by what it says."""
    own = Quantized.forward
    made = FunctionType(own.__code__, own.__globals__, "forward", own.__defaults__, own.__closure__)
    made.__doc__, made.__module__ = base.forward.__doc__, base.__module__
    with suppress(TypeError, ValueError):  # one that is no function of Python
        made.__signature__ = inspect.signature(base.forward)  # type: ignore[attr-defined]
    return made


_ASK_FOR_PARAMETERS = (nn.Module.register_parameter.__code__, nn.Module.get_parameter.__code__)
"""What puts a parameter into a module asks whether there is one; what gets one by name has it as it is."""


def _reading(leaf: str) -> Any:
    """What reads a parameter quantized."""

    def read(module: nn.Module) -> Any:
        x = module._parameters.get(leaf)
        quantizer: Any = module._modules[f"quantize_{leaf}"]
        if x is None:
            if leaf not in module._parameters:
                raise AttributeError(f"{type(module).__name__!r} object has no attribute {leaf!r}")
            return x
        if not torch.compiler.is_compiling() and sys._getframe(1).f_code in _ASK_FOR_PARAMETERS:
            return x
        if not isinstance(x, nn.Parameter) and _is_given_inside(quantizer.name):
            return x
        if is_shard(x):
            if sys._getframe(1).f_globals.get("__name__", "").startswith("torch.distributed.fsdp"):
                return x  # FSDP2 looks for what it has put there
            raise shard_read(quantizer.name)
        out = _once(x, quantizer)
        if (_running.modules or _running.outside) and not torch.compiler.is_compiling():
            note(out, frozenset((quantizer.name,)))
        return out

    return read


_READS = _reading("").__code__
_GIVES = stateless._functional_call.__code__
"""What torch.func.functional_call and its like call a module by."""


def _is_given_inside(name: str) -> bool:
    """Does a forward that runs here call a module with a tensor in the place of its parameter?

    What it made of quantized parameters is none: it is not quantized again.  What the model is called with
    from outside is.  Raises NumericsError, with that name, where torch.compile hides who has put it there.
    """
    if torch.compiler.is_dynamo_compiling():
        raise NumericsError(
            f"{name}: torch.func.functional_call gives a tensor in its place, and a compiled call does not "
            "show whether that is quantized by now: call the model as it is, or compile its graph "
            "(mode='fx_graph_mode')"
        )
    frame: Any = sys._getframe(2)
    while frame is not None and frame.f_code is not _GIVES:
        frame = frame.f_back
    while frame is not None and frame.f_code is not Quantized.forward.__code__:
        frame = frame.f_back
    return frame is not None


def _plainly(leaf: str) -> Any:
    """What reads a parameter as it is."""
    return lambda module: module._parameters.get(leaf)


def _guarding(leaf: str, read: Any) -> Any:
    """What reads a parameter that is guarded where its product is none of the plan's.

    read: what reads it elsewhere.
    """

    def found(module: nn.Module) -> Any:
        if not torch.compiler.is_compiling() and sys._getframe(1).f_code in _ASK_FOR_PARAMETERS:
            return module._parameters.get(leaf)
        x = read(module)
        if torch.compiler.is_compiling() or not _running.read or x is None or is_shard(x):
            return x
        if not isinstance(module._parameters.get(leaf), nn.Parameter) and _is_given_inside(leaf):
            return x
        known = module.__dict__[GUARDED][leaf]
        frame = sys._getframe(1)
        name = frame.f_globals.get("__name__", "")
        if name.startswith("torch." if known.used else "torch.distributed") or _is_watched():
            return x
        out = guard(x, Reader(known, frame.f_locals.get("self"), _is_watched))
        note(out, frozenset((known.first,)))
        return out

    return found


def _is_watched() -> bool:
    """Is each product of the forward that runs looked for in the plan?"""
    return bool(_running.modules and _running.modules[-1].numerics_sites.by_order)  # type: ignore[union-attr]


MOST = 8
"""So many quantized parameters are kept for a forward: those of a loop over experts, not a model's."""


def _once(x: Tensor, quantizer: Any) -> Tensor:
    """A parameter quantized: once in a forward, however often that reads it, while nothing changes it.

    A loop over experts reads all of them at each step, a recurrence its matrix.
    """
    if torch.compiler.is_compiling() or not _running.read or x.is_inference() or _is_transformed():
        return quantizer(x)  # type: ignore[no-any-return]
    (kept, spent), made_of = _running.read[-1], (x, *quantizer.parameters())
    key = id(quantizer), torch.is_grad_enabled(), *((id(one), one._version) for one in made_of)
    found = kept.get(key)
    if found is not None and key not in spent and found[0]._version == found[1]:  # nobody wrote into it
        return found[0]  # type: ignore[no-any-return]
    out = quantizer(x)
    if not out.is_inference():
        if out.requires_grad:
            out.register_hook(lambda _: spent.add(key))  # a backward in the forward frees its graph
        spent.discard(key)
        kept[key] = out, out._version, made_of  # which live as long, so that no id is another's
        if len(kept) > MOST:
            del kept[next(iter(kept))]
    return out  # type: ignore[no-any-return]


def _is_transformed() -> bool:
    """Would what is computed here be of another level, or be computed again: vmap, checkpoints, modes?"""
    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
        or torch._C._len_torch_dispatch_stack() > 0
    )


def _blank(base: type[nn.Module], leaves: tuple[str, ...], guards: tuple[str, ...] = ()) -> nn.Module:
    kind: Any = quantized_class(base, leaves, guards)  # type: ignore[arg-type]
    return kind.__new__(kind)


def base_of(module: nn.Module) -> type[nn.Module]:
    """The class that a module had."""
    return module.numerics_base if isinstance(module, Quantized) else type(module)


def become(module: nn.Module, leaves: tuple[str, ...]) -> None:
    """Makes a module one whose parameters of those names are read quantized."""
    if "forward" in module.__dict__:
        raise NumericsError(
            f"{a_kind_of(module)} has a forward of its own instead of its class's (as accelerate's "
            "hooks make it): wrap the model before that is put there"
        )
    guards = tuple(module.__dict__.get(GUARDED, ()))
    module.__class__ = quantized_class(base_of(module), leaves, guards)  # type: ignore[arg-type]


# ---- functions of a forward -----------------------------------------------------------------------


class _Sites(TorchFunctionMode):
    """Quantizes what goes into the products of one module's own forward; its children have their own."""

    def __init__(self, module: nn.Module, matching: Matching) -> None:
        super().__init__()
        self.module, self.matching, self.follows = module, matching, matching.follows
        self.depth = len(_running.modules)
        self.hook = _checkpointing() if self.follows else None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, planned = FUNCTIONS.get(func), None
        if name is not None and len(_running.modules) == self.depth:  # no other's, nor its own, called anew
            func, args = in_order(func, args)
            planned = self.matching.planned(name, args, kwargs)
            if planned is not None and planned.places:
                return self._product(planned, func, args, kwargs)
        if isinstance(func, torch._ops.HigherOrderOperator):
            out = _called_as_region(func, args, kwargs)
        else:
            out = func(*args, **kwargs)
        if planned is None and self.follows:
            follow(func, args, kwargs, out)
        return out

    def _product(self, planned: Planned, func: Any, args: Any, kwargs: Any) -> Any:
        """A product, what goes in and what comes out quantized."""
        if self.follows:
            self._check_checkpoint(planned.site.operation)
        factors, named = _replaced(self.module, planned, args, kwargs)
        out = func(*factors, **named)
        leaving = planned.places.get(OUT)
        if leaving is not None:
            out = getattr(self.module, leaving)(out)
        if self.follows:
            follow(func, args, kwargs, out)
        return out

    def _check_checkpoint(self, name: str) -> None:
        """Raises NumericsError in a function that runs again without this mode: its gradient were wrong."""
        if _checkpointing() is not self.hook or _reentrant(self.module):
            raise NumericsError(
                f"{type(self.module).__name__}: {name} runs inside torch.utils.checkpoint of a function of "
                "its forward, which runs again for its gradient when nothing quantizes; checkpoint a module "
                "instead"
            )


def _called_as_region(func: Any, args: Any, kwargs: Any) -> Any:
    """What an operator makes that takes functions, which torch compiles."""
    was, _running.region = _running.region, True
    try:
        return func(*args, **kwargs)
    finally:
        _running.region = was


def _checkpointing() -> Any:
    """The hooks of a checkpoint that saves no tensors; None outside of one."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    found = None if hooks is None else hooks[0]
    return found if "_checkpoint_hook" in getattr(found, "__qualname__", "") else None


def _reentrant(module: nn.Module) -> bool:
    """Does a reentrant checkpoint stand between the module's forward and here?"""
    if torch.is_grad_enabled() or not module.training:
        return False
    frame: Any = sys._getframe()
    while frame is not None and not _is_forward(frame, module):
        if frame.f_code.co_qualname == "CheckpointFunction.forward":
            return True
        frame = frame.f_back
    return False


def _is_forward(frame: Any, module: nn.Module) -> bool:
    """Is it the frame in which this module's quantized forward runs?"""
    return frame.f_code is Quantized.forward.__code__ and frame.f_locals.get("self") is module


def _replaced(module: Any, planned: Planned, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The arguments of a product, those quantized that the plan says."""
    name = planned.site.operation
    args, kwargs = list(args), dict(kwargs)
    if name == "einsum" and len(args) == 2 and isinstance(args[1], (list, tuple)):
        args = [args[0], *args[1]]
    names = PRODUCTS[name].arguments
    for place, quantizer in planned.places.items():
        if place == OUT:
            continue
        if place < len(args):
            args[place] = getattr(module, quantizer)(args[place])
        elif place < len(names) and names[place] in kwargs:
            kwargs[names[place]] = getattr(module, quantizer)(kwargs[names[place]])
    return args, kwargs


# ---- wrapping -------------------------------------------------------------------------------------


def wrap(model: nn.Module, plan: Plan, quantizers: dict[Any, nn.Module]) -> nn.Module:
    """Makes a model read and compute as planned, in place.

    quantizers: of each planned parameter, by its first name, and of each site.  Raises NumericsError for
    sites that only a graph reaches.
    """
    if (why := unreached(plan.rows)) is not None:
        raise NumericsError(why)
    modules = dict(model.named_modules(remove_duplicate=False))
    leaves: dict[nn.Module, list[str]] = {}
    for row in plan.rows:
        if row.kind == "parameter" and row.spec is not None:
            for name in row.names:
                owner, _, leaf = name.rpartition(".")
                module = modules[owner]
                if leaf not in leaves.setdefault(module, []):
                    leaves[module].append(leaf)
                    _add(module, f"quantize_{leaf}", quantizers[row.name])
    watched = _place_sites(modules, plan, quantizers)
    guards = _place_guards(modules, plan)
    for module in dict.fromkeys([model, *leaves, *watched, *guards]):
        become(module, tuple(leaves.get(module, ())))
    placed(model, plan)
    return model


def _add(module: nn.Module, name: str, quantizer: nn.Module) -> None:
    """Gives a module a quantizer; raises NumericsError where something of that name is there."""
    if hasattr(module, name):
        raise NumericsError(
            f"{quantizer.name}: its quantizer would be {name} in {type(module).__name__}, "
            "which has that name already; give what is there another"
        )
    check_children(module, str(quantizer.name))
    module.add_module(name, quantizer)


def _place_sites(
    modules: dict[str, nn.Module], plan: Plan, quantizers: dict[Any, nn.Module]
) -> list[nn.Module]:
    """Gives modules the quantizers of their sites; returns those whose forwards change."""
    by_module: dict[str, dict[Site, str]] = {}
    attributes = {site: in_module(site) for site in plan.sites}
    for site, attribute in attributes.items():
        by_module.setdefault(site.module, {})[site] = attribute
    every = sites_of(modules[""], plan, attributes, modules)
    for owner, leaf in (one for sites in every.values() for one in sites.quantized_partners()):
        owner.__dict__.setdefault(MULTIPLIED, set()).add(leaf)
    changed: dict[nn.Module, None] = {}
    inner: set[str] = set()
    for name, sites in by_module.items():
        module = modules[name]
        for site, attribute in sites.items():
            _add(module, attribute, quantizers[site])
        if is_one_product(module) and all(s.number == 0 and s.place in (0, OUT) for s in sites):
            for site, attribute in sites.items():
                module.__dict__["numerics_exit" if site.place == OUT else "numerics_entry"] = attribute
            changed[module] = None
        else:
            inner |= {n for n in modules if n == name or name == "" or n.startswith(name + ".")}
            module.__dict__["numerics_sites"] = every[name]
    for name, module in modules.items():
        if name in inner or isinstance(module, _FUSING):
            module.__dict__.setdefault("numerics_sites", Sites())
            changed[module] = None
    return list(changed)


def _place_guards(modules: dict[str, nn.Module], plan: Plan) -> list[nn.Module]:
    """Says in modules which of their parameters are guarded; returns those modules."""
    multiplied = {
        (module, leaf) for module in modules.values() for leaf in module.__dict__.get(MULTIPLIED, ())
    }
    changed: dict[nn.Module, None] = {}
    for module, leaf, known in to_guard(modules, plan, multiplied):
        if leaf not in vars(type(module)) and "forward" not in module.__dict__:
            module.__dict__.setdefault(GUARDED, {}).setdefault(leaf, known)
            changed[module] = None
    return list(changed)


def unwrap(model: nn.Module) -> nn.Module:
    """Takes the quantizers away: the model's own parameters and classes are left."""
    forget_modules(model)
    for module in list(model.modules()):
        if not isinstance(module, Quantized):
            continue
        children: dict[str, Any] = module._modules  # type: ignore[attr-defined]
        for name in [n for n, child in children.items() if isinstance(child, (Quantizer, Learned))]:
            del children[name]
        for name in (
            "numerics_sites",
            "numerics_entry",
            "numerics_exit",
            MULTIPLIED,
            TOLD,
            CACHES,
            GUARDED,
            HELD,
        ):
            module.__dict__.pop(name, None)
        module.__class__ = module.numerics_base  # type: ignore[assignment]
    return model


def show_packed(model: nn.Module) -> None:
    """Makes modules of a model that is not wrapped say, when they are printed, what is packed in them."""
    for module in {place.module for place in packed(model).values()}:
        if not (isinstance(module, (Parting, GraphModule)) or "forward" in module.__dict__):
            become(module, ())


def freeze(model: nn.Module, by_identity: dict[int, Tensor]) -> None:
    """Puts what is packed, by the identity of the parameter, in the parameters' places."""
    for module in model.modules():
        if isinstance(module, Quantized) and module.numerics_leaves:
            for leaf in module.numerics_leaves:
                parameter = module._parameters[leaf]  # type: ignore[attr-defined]
                module._parameters[leaf] = by_identity[id(parameter)]  # type: ignore[assignment]
                del module._modules[f"quantize_{leaf}"]  # type: ignore[attr-defined]
            become(module, ())  # type: ignore[arg-type]
