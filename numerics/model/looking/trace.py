"""One forward of a model as it is: which parameters and which computed tensors go into which operation.

No numbers change, and nothing stays behind on the model.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakTensorKeyDictionary

from numerics.formats.errors import NumericsError, a_kind_of, items_of, said, words_of
from numerics.model.looking.axes import Place, agreed, axes_of, inside, settled
from numerics.model.looking.products import (
    BARE,
    BESIDE,
    JOINS,
    LIKE,
    ON_GRID,
    OPAQUE,
    PRODUCTS,
    ROWS_OF,
    classified,
    in_order,
    name_of,
)
from numerics.model.looking.restoring import restored

ONE_PRODUCT = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase)
"""Modules whose forward is one product, of what comes in first."""


def is_one_product(module: nn.Module | None) -> bool:
    """Is its forward one product of what comes in?  That of a class of somebody else's may do more.

    A convolution that pads with what comes in multiplies what was padded.
    """
    own = isinstance(module, ONE_PRODUCT) and type(module).forward.__module__.startswith("torch.nn.modules.")
    return own and getattr(module, "padding_mode", "zeros") == "zeros"


OUT = -1
"""The place of what an operation returns."""


class Site(NamedTuple):
    """A tensor on its way into an operation, or out of it: of which module's forward, which operation of that
    kind there, and at which place (OUT: what it returns).
    """

    module: str
    operation: str
    number: int
    place: int

    def __str__(self) -> str:
        number = f"#{self.number}" if self.number else ""
        place = "out" if self.is_output else self.place
        return f"{self.module or 'model'}:{self.operation}{number}[{place}]"

    @property
    def is_output(self) -> bool:
        """Is it what the operation returns?"""
        return self.place == OUT


def is_place(site: Site) -> bool:
    """Is it one of an operation that is known here, at a place where that has a factor?"""
    product = PRODUCTS.get(site.operation)
    if product is None or site.is_output:
        return product is not None
    return site.place in product.reduced or (not product.reduced and site.place > 0)  # an einsum has as many


class Use(NamedTuple):
    """What is done with a parameter.

    product: is it a factor, a row table or a bias of one?  axis: of the parameter, along which it is summed.
    """

    module: str
    operation: str
    role: str  # factor, rows, bias, fused, other
    axis: int | None = None

    def __str__(self) -> str:
        return f"{self.module or 'model'}:{self.operation}"


class Part(NamedTuple):
    """A parameter or buffer in what is made of it: each axis of that in the parameter's own, where known.

    ndim: how many axes the parameter has.
    """

    name: str
    ndim: int
    axes: tuple[Place, ...]

    def regained(self, at: int) -> Part:
        """It with one axis more: the only one of the parameter that it does not have, where that is one."""
        had = inside(self.axes)
        missing = set(range(self.ndim)).difference(axis for axis in had if axis is not None)
        back = missing.pop() if len(missing) == 1 and None not in had else None
        return self._replace(axes=(*self.axes[:at], back, *self.axes[at:]))

    def agreed(self, other: Part) -> Part:
        """It with the axes that another way to the same tensor has, too."""
        return self._replace(axes=tuple(map(agreed, self.axes, other.axes)))

    def without(self, axis: int) -> Part:
        """It as one entry along an axis shows it."""
        return self._replace(axes=self.axes[:axis] + self.axes[axis + 1 :])


class Origin(NamedTuple):
    """Of which parameters or buffers a tensor is made, and nothing else; none of what products make of them.

    constant: is it made of none, nor of what the model is given?
    """

    parts: tuple[Part, ...]
    constant: bool = False

    @classmethod
    def of(cls, x: Any, *names: str) -> Origin:
        """The Origin of a parameter or buffer itself."""
        return cls(tuple(Part(name, x.ndim, tuple(range(x.ndim))) for name in names))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters and buffers."""
        return tuple(part.name for part in self.parts)

    def without(self, axis: int) -> Origin:
        """It as one entry along an axis shows it."""
        return self._replace(parts=tuple(part.without(axis) for part in self.parts))

    def regained(self, at: int) -> Origin:
        """It where its entries are put together again along a new axis."""
        return self._replace(parts=tuple(part.regained(at) for part in self.parts))

    def reduced(self, axes: Sequence[int], shape: Sequence[int], alone: bool) -> dict[str, int | None]:
        """The longest of some axes of a tensor of that shape, as an axis of each that it is made of.

        alone: is it the only factor?  Where others are and nothing is summed, it is the last axis.
        """
        ndim = len(shape)
        inside = [axis % ndim for axis in axes if -ndim <= axis < ndim]
        if not inside and not alone:
            return {one.name: one.ndim - 1 for one in self.parts}
        longest = max(inside, key=lambda axis: shape[axis]) if inside else ndim
        return {
            one.name: settled(one.axes[longest]) if longest < len(one.axes) else None for one in self.parts
        }


CONSTANT = Origin((), True)
"""What a forward makes of nothing that it is given and of no parameter: zeros, a mask, an identity."""


class Seen(NamedTuple):
    """A computed tensor at its site.

    axis: along which it is summed, from the end; None of what an operation returns.  weights: the parameters
    that it is multiplied with.
    """

    shape: tuple[int, ...]
    axis: int | None
    weights: tuple[str, ...]


Meeting = frozenset[tuple[Site, tuple[str, ...]]]
"""Sites whose tensors meet, each with the batch normalizations that its tensor has passed."""


@dataclass
class Found:
    """What was seen of a model.

    uses: of each parameter and buffer, by name.  sites: of each computed tensor that is multiplied, its
        shape.
    calls: how often each module ran.  fused: modules that run one
    function with products inside.  regions: modules with control flow that is an operator.  hidden: sites
    that only a graph shows.  unknown: parameters in operations that are not known here.  caches: of keys and
    values, among the results.  after: of each batch normalization the convolution right before it.
    strangers: parameters in products that are none of the model's.
    meetings: of what products return, where it is joined or added, and where it goes into another.
    """

    uses: dict[str, list[Use]] = field(default_factory=dict)
    sites: dict[Site, Seen] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    fused: dict[str, str] = field(default_factory=dict)
    regions: dict[str, str] = field(default_factory=dict)
    hidden: set[Site] = field(default_factory=set)
    unknown: dict[str, str] = field(default_factory=dict)
    caches: dict[str, str] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)
    strangers: dict[int, tuple[Site, nn.Parameter]] = field(default_factory=dict)
    meetings: dict[Meeting, None] = field(default_factory=dict)

    def use(self, names: Sequence[str], use: Use) -> None:
        """Notes a use, once."""
        for name in names:
            uses = self.uses.setdefault(name, [])
            if use not in uses:
                uses.append(use)

    def product(
        self, site: Site, factors: Sequence[tuple[int, Any, tuple[int, ...]]], origin: Any, out: Any = None
    ) -> None:
        """Notes a product: origin(x) gives the Origin of a factor, or None where it is computed."""
        rows = PRODUCTS[site.operation].rows
        computed: list[tuple[int, Seen]] = []
        weights: list[str] = []
        for place, came, axes in factors:
            for x in factors_in(came):
                shape = shape_of(x)
                if shape is None:
                    continue
                made_of = origin(x)
                if made_of is not None:
                    role = ("rows" if rows else "factor") if len(shape) > 1 else "bias"
                    for name, axis in made_of.reduced(axes, shape, len(factors) == 1).items():
                        self.use([name], Use(site.module, site.operation, role, axis))
                    weights += made_of.names if len(shape) > 1 else ()
                elif is_float(x) and not rows:
                    computed.append((place, Seen(shape, _from_end(axes, shape), ())))
                    stranger = _parameter_of(x)
                    if stranger is not None:
                        self.strangers.setdefault(id(stranger), (site._replace(place=place), stranger))
        partners = tuple(dict.fromkeys(weights))
        for place, seen in computed:
            self.sites.setdefault(site._replace(place=place), seen._replace(weights=partners))
        shape = shape_of(out)
        if shape is not None and computed:
            self.sites.setdefault(site._replace(place=OUT), Seen(shape, None, partners))


def _parameter_of(x: Any) -> nn.Parameter | None:
    """The parameter that a tensor is or shows; None of what is computed, and of nodes of graphs."""
    of = getattr(x, "_base", None) if isinstance(x, Tensor) and not isinstance(x, nn.Parameter) else x
    return of if isinstance(of, nn.Parameter) else None


def _from_end(axes: Sequence[int], shape: Sequence[int]) -> int:
    """The longest of some axes, counted from the end."""
    inside = [axis % len(shape) for axis in axes if -len(shape) <= axis < len(shape)]
    return max(inside, key=lambda axis: shape[axis]) - len(shape) if inside else -1


def shape_of(x: Any) -> tuple[int, ...] | None:
    """The shape of a tensor, or of what a node of a graph gives."""
    x = getattr(x, "meta", {}).get("val", None) if isinstance(x, torch.fx.Node) else x
    return tuple(int(n) if isinstance(n, int) else -1 for n in x.shape) if isinstance(x, Tensor) else None


def is_float(x: Any) -> bool:
    """Does it hold real floating point numbers?"""
    x = getattr(x, "meta", {}).get("val", None) if isinstance(x, torch.fx.Node) else x
    return isinstance(x, Tensor) and x.is_floating_point()


def joined(view: Any, came: Sequence[tuple[Any, Origin]], operation: str, stacked: int | None) -> Origin:
    """Of what the result of an operation is made that takes nothing computed from what the model is given.

    view: the result.  came: the tensors that it is made of, with their Origins.  stacked: the new axis along
    which they were stacked.  What a product makes of parameters (such as the two factors of an update of low
    rank) has no names of its own; what it is added to, divides, or is put beside, stays what it was.
    """
    came = [pair for pair in came if not pair[1].constant]
    if not came:
        return CONSTANT
    if operation in PRODUCTS:
        return Origin(())
    named = [pair for pair in came if pair[1].parts]
    if len(named) < len(came):
        besides = operation in BESIDE
        named = [pair for pair in named if view.ndim > 1 and (besides or pair[0].shape == view.shape)]

    def nearness(pair: tuple[Any, Origin]) -> tuple[bool, int]:
        axes = [axis for part in pair[1].parts for axis in part.axes]
        return pair[0].shape == view.shape, sum(axis is not None for axis in axes)

    nearest = {part.name: nearness(pair) for pair in sorted(named, key=nearness) for part in pair[1].parts}
    found: dict[str, Part] = {}
    for of, origin in named:
        for part in origin.parts:
            if nearest[part.name] == nearness((of, origin)):
                one = _moved(part, view, of, operation, stacked)
                found[part.name] = one.agreed(found.get(part.name, one))
    return Origin(tuple(found.values()))


def _moved(part: Part, view: Any, of: Any, operation: str, stacked: int | None) -> Part:
    """A part of a tensor in what an operation made of that."""
    if stacked is not None:
        return part.regained(stacked)
    return part._replace(axes=axes_of(view, of, part.axes, operation))


def stacked_at(operation: str, args: Sequence[Any], kwargs: Mapping[str, Any], view: Any) -> int | None:
    """The new axis along which an operation stacks tensors; None where it does not."""
    if operation != "stack":
        return None
    return int(args[1] if len(args) > 1 else kwargs.get("dim", 0)) % view.ndim


def is_opening(operation: str) -> bool:
    """Does what it makes of parameters count as computed?  Layers may be fed with parameters, too."""
    return operation in PRODUCTS and operation not in BARE


def outside(x: Tensor) -> Tensor | None:
    """The tensor that torch.vmap shows one entry of at a time; None where it shows x itself."""
    if not torch._C._functorch.is_batchedtensor(x):
        return None
    return torch._C._functorch.get_unwrapped(x)


# ---- arguments ------------------------------------------------------------------------------------


def arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """An example or a batch as positional and keyword arguments: a tuple, a mapping, or one tensor."""
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, (tuple, list)):
        return tuple(items_of("example", example)), {}
    if isinstance(example, Tensor):
        return (example,), {}
    raise NumericsError(
        f"an example is a tuple of arguments, a mapping of named ones, or one tensor; not "
        f"{type(example).__name__}"
    )


def batches_of(came: Any) -> Iterator[Any]:
    """Each batch that came; raises NumericsError for one batch in their place, an empty one, and for none."""
    if isinstance(came, (Tensor, str, bytes, Mapping)) or not isinstance(came, Iterable):
        one = "" if not isinstance(came, (Tensor, Mapping)) else "; one batch is a list of it, [batch]"
        raise NumericsError(f"batches is a list or an iterator of batches, not {a_kind_of(came)}{one}")
    try:
        batches = iter(came)
    except Exception as wrong:  # an array of no axes says that it can be iterated; what comes later is theirs
        raise NumericsError(f"batches={said(came)} cannot be read one by one: {wrong!s:.200}") from None
    count = 0
    for batch in batches:
        _check_values_in(f"batch {count}", batch)
        count += 1
        yield batch
    if not count:
        raise NumericsError("no batch came: batches= is empty, or an iterator that was used up")


def _check_values_in(name: str, batch: Any) -> None:
    """Raises NumericsError for a batch without values: nothing that a model makes of it says anything."""
    every = tensors_of(arguments(batch))
    empty = [x for x in every if x.numel() == 0]
    if any(x.is_floating_point() for x in empty) or (empty and len(empty) == len(every)):
        raise NumericsError(f"{name} is empty: its shape is {tuple(empty[0].shape)}")


def factors_in(came: Any) -> Sequence[Any]:
    """What stands at the place of a factor: one, or the list of them that recurrences take."""
    return came if isinstance(came, (list, tuple)) else [came]


# ---- which module runs ----------------------------------------------------------------------------


class Running:
    """Which module's forward runs, by hooks that are taken away again."""

    def __init__(self, model: nn.Module) -> None:
        self.names: list[str] = []
        self.numbers: list[int] = []
        self.last = ""
        self.calls: Counter[str] = Counter()
        self._handles: list[Any] = []
        for name, module in model.named_modules():
            self._handles.append(module.register_forward_pre_hook(self._entering(name)))
            self._handles.append(module.register_forward_hook(self._left, always_call=True))

    def _entering(self, name: str) -> Any:
        def enter(*_: Any) -> None:
            if not torch.compiler.is_dynamo_compiling():
                self.names.append(name)
                self.last = name
                self.calls[name] += 1
                self.numbers.append(self.calls[name])

        return enter

    def _left(self, *_: Any) -> None:
        if not torch.compiler.is_dynamo_compiling():
            self.names.pop()
            self.numbers.pop()

    @property
    def call(self) -> tuple[str, int]:
        """The module that runs, and its how manieth call this is."""
        return (self.names[-1], self.numbers[-1]) if self.names else ("", 0)

    def close(self) -> None:
        """Takes the hooks away."""
        for handle in self._handles:
            handle.remove()


@contextmanager
def same_random(model: nn.Module) -> Iterator[None]:
    """Gives the random numbers back that a model draws, on the CPU and where its tensors are."""
    every = (*model.parameters(), *model.buffers())
    devices = sorted({x.device.index for x in every if x.is_cuda})
    with torch.random.fork_rng(devices):
        yield


@contextmanager
def not_compiled() -> Iterator[None]:
    """Runs what a model has compiled, or has torch compile, as the Python that it is: hooks see all of it.

    Without a word to torch.compile where nothing has loaded it: it takes a second.
    """
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


Casts = dict[str, tuple[bool, torch.dtype]]
"""By device: is torch.autocast on, and to what."""


def autocast_here() -> Casts:
    """What torch.autocast does where this is called."""
    accelerator = torch.accelerator.current_accelerator()
    devices = ("cpu",) if accelerator is None else ("cpu", accelerator.type)
    return {name: (torch.is_autocast_enabled(name), torch.get_autocast_dtype(name)) for name in devices}


@contextmanager
def autocast_as(casts: Casts) -> Iterator[None]:
    """Has torch.autocast do what it did where that was noted."""
    here = autocast_here()
    with ExitStack() as stack:
        for device, (enabled, dtype) in casts.items():
            if (enabled, dtype) != here[device]:
                stack.enter_context(torch.autocast(device, dtype, enabled))
        yield


@contextmanager
def as_in_use(model: nn.Module) -> Iterator[None]:
    """The model in evaluation, without gradients, its random numbers and each module's mode as before."""
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad(), same_random(model), not_compiled():
            with suppress(NotImplementedError):  # what torch.export made has its mode for good
                model.eval()
            yield
    finally:
        for module, training in modes.items():
            module.training = training


@dataclass
class _Made:
    """What a convolution made: of which module it is, and how many operations took it."""

    by: str
    touched: int = 0


class _Watching(TorchFunctionMode):
    """Sees every function that torch dispatches."""

    def __init__(self, model: nn.Module, running: Running, found: Found, given: list[Tensor]) -> None:
        super().__init__()
        self.running, self.found = running, found
        self.counts: Counter[Any] = Counter()
        self.origins = WeakTensorKeyDictionary()  # which keep no tensor alive that the model lets go
        self.made_by = WeakTensorKeyDictionary()
        self.grids = WeakTensorKeyDictionary()  # the products on whose results' grid a tensor lies
        self.computed = WeakTensorKeyDictionary()
        for x in given:
            self.computed[x] = None
        self.normed: dict[str, _Made] = {}
        for name, x in named_tensors(model):
            known = self.origins.get(x)
            names = (*known.names, name) if known else (name,)
            self.origins[x] = Origin.of(x, *names)
        for x in plain_tensors(model):
            self.origins.setdefault(x, CONSTANT)

    def origin(self, x: Any) -> Origin | None:
        """Of what a tensor is made, where it is made of parameters and buffers alone, and of no products."""
        found = self._origin(x)
        return found if found is not None and found.names else None

    def _origin(self, x: Any) -> Origin | None:
        """The same, without names where products made it."""
        found: Origin | None = self.origins.get(x) if isinstance(x, Tensor) else None
        whole = outside(x) if found is None and isinstance(x, Tensor) else None
        of = None if whole is None else self._origin(whole)
        if of is None or whole is None:
            return found
        axis = torch._C._functorch.maybe_get_bdim(x)
        return of.without(axis)

    def unmapped(self, entry: Any, whole: Any, at: int) -> None:
        """Notes of what torch.vmap puts the entries together again."""
        found = self._origin(entry) if isinstance(entry, Tensor) else None
        if found is not None and isinstance(whole, Tensor):
            self.origins[whole] = found.regained(at % whole.ndim)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = name_of(func)
        if isinstance(func, torch._ops.HigherOrderOperator):
            self.found.regions.setdefault(self._module(), name)
        elif name in PRODUCTS:
            self._product(name, in_order(func, args)[1], kwargs, out)
        elif name in OPAQUE:
            self._fused(name, args, kwargs)
        else:
            self._other(func, args, kwargs, out)
        for x in tensors_of(out):
            if x not in self.origins:
                self.computed[x] = None
        return out

    def _module(self) -> str:
        return self.running.names[-1] if self.running.names else ""

    def _product(self, name: str, args: Any, kwargs: Any, out: Any) -> None:
        module = self._module()
        if any(outside(x) is not None for x in tensors_of((args, kwargs))):
            self._mapped(module, name, args, kwargs)
            return
        key = *self.running.call, name
        site = Site(module, name, self.counts[key], 0)
        self.counts[key] += 1
        product = PRODUCTS[name]
        factors = product.factors(args, kwargs)
        self.found.product(site, factors, self.origin, out)
        self._meet(site, factors, out)
        self._touch((args, kwargs))
        if name.startswith("conv") and isinstance(out, Tensor):
            self.made_by[out] = _Made(module)
        places = {id(x) for _, came, _ in factors for x in factors_in(came)}
        for x in tensors_of((args, kwargs)):
            made_of = self.origin(x)
            if made_of is not None and id(x) not in places:
                self.found.use(made_of.names, Use(module, name, "bias"))
        self._constant(name, tensors_of((args, kwargs)), out)

    def _constant(self, name: str, came: list[Tensor], out: Any) -> None:
        """Notes of what a product of parameters alone is made."""
        pairs = self._pairs(came)
        if isinstance(out, Tensor) and pairs and not is_opening(name):
            self.origins[out] = joined(out, pairs, name, None)

    def _pairs(self, came: Sequence[Tensor]) -> list[tuple[Tensor, Origin]]:
        """Tensors with their Origins, where every one has one; nothing where not."""
        found = [(x, one) for x in came if (one := self._origin(x) or self._unseen(x)) is not None]
        return found if len(found) == len(came) else []

    def _unseen(self, x: Tensor) -> Origin | None:
        """The Origin of numbers of rows, masks and numbers that nothing here made: they are constants."""
        known = x in self.computed or outside(x) is not None
        return None if known or (x.ndim and x.is_floating_point()) else CONSTANT

    def _meet(self, site: Site, factors: Any, out: Any) -> None:
        """Notes of which products' results each factor is made, and that the result is this one's."""
        for place, came, _ in factors:
            for grid in (self.grids.get(x) for x in factors_in(came) if isinstance(x, Tensor)):
                if grid:
                    self.found.meetings[grid | {(site._replace(place=place), ())}] = None
        if isinstance(out, Tensor):
            self.grids[out] = frozenset([(site._replace(place=OUT), ())])

    def _follow_grids(self, name: str, came: Sequence[Tensor], results: Sequence[Tensor]) -> None:
        """Notes what meets in an operation, and what stays on the grid it came from."""
        grid: Meeting = frozenset().union(*(self.grids.get(x, frozenset()) for x in came))
        if name == "batch_norm":
            grid = frozenset((site, (*norms, self._module())) for site, norms in grid)
        elif name in JOINS and len(grid) > 1:
            self.found.meetings[grid] = None
        if grid and (name in ON_GRID or name == "batch_norm"):
            for x in results:
                self.grids[x] = grid

    def _mapped(self, module: str, name: str, args: Any, kwargs: Any) -> None:
        """A product inside torch.vmap: of what is computed it shows one entry, a graph all of it."""
        self.found.fused.setdefault(module, "vmap")
        factors = PRODUCTS[name].factors(args, kwargs)
        for _, came, axes in factors:
            for x in factors_in(came):
                made_of = self.origin(x)
                if made_of is not None and x.ndim > 1:
                    reduced = made_of.reduced(axes, tuple(x.shape), len(factors) == 1)
                    for each, axis in reduced.items():
                        self.found.use([each], Use(module, name, "factor", axis))

    def _touch(self, tree: Any) -> None:
        found = [self.made_by.get(x) for x in tensors_of(tree)]
        for made in {id(made): made for made in found if made is not None}.values():
            made.touched += 1

    def _fused(self, name: str, args: Any, kwargs: Any) -> None:
        module = self._module()
        self.found.fused.setdefault(module, name)
        for x in tensors_of((args, kwargs)):
            made_of = self.origin(x)
            if made_of is not None:
                role = "fused" if x.ndim > 1 else "bias"
                self.found.use(made_of.names, Use(module, name, role, x.ndim - 1 if x.ndim > 1 else None))

    def _follow(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Notes of what results are made, and what is written into."""
        name = name_of(func)
        written = written_by(func, args, kwargs)
        came = tensors_of((args, {key: x for key, x in kwargs.items() if key != "out"}))
        pairs = self._pairs(came[:1] if name in ROWS_OF else came)
        made = bool(pairs) or not came or name in LIKE
        for x in written:
            for one in (x, x._base):
                if one is not None:
                    self._write(one, pairs, name, whole=one is x and all(y.shape == x.shape for y in came))
        for x in tensors_of(out) if made else ():
            if x not in self.origins:
                self.origins[x] = joined(x, pairs, name, stacked_at(name, args, kwargs, x))

    def _write(self, x: Tensor, pairs: list[tuple[Tensor, Origin]], name: str, whole: bool) -> None:
        """Notes of what a tensor is made that something was written into."""
        before = self.origins.get(x)
        if before is not None and pairs:
            self.origins[x] = added(before, joined(x, pairs, name, None), x.ndim, whole)
        elif before is not None and before.constant:
            del self.origins[x]

    def _other(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        name = name_of(func)
        came = tensors_of((args, kwargs))
        made_of = [self.origin(x) for x in came]
        results = tensors_of(out)
        known = [one for one in made_of if one is not None]
        if results:
            self._touch((args, kwargs))
            self._follow_grids(name, came, results)
        if name == "batch_norm" and came and came[0] in self.made_by:
            self.normed[self._module()] = self.made_by[came[0]]
        self._follow(func, args, kwargs, out)
        if not known or not results:
            return
        for x, one in zip(came, made_of, strict=True):
            if one is not None:
                self.found.use(one.names, Use(self._module(), name, "other"))
                if x.ndim > 1 and x.is_floating_point() and not all(made_of) and not classified(name):
                    for each in one.names:
                        self.found.unknown.setdefault(each, f"{self._module() or 'model'}:{name}")


def added(before: Origin, came: Origin, ndim: int, whole: bool) -> Origin:
    """Of what a tensor is made after something was written into it.  whole: into all of it, axis by axis."""
    new = [part for part in came.parts if part.name not in before.names]
    if not whole:
        new = [part._replace(axes=(None,) * ndim) for part in new]
    return Origin((*before.parts, *new), before.constant and came.constant)


def written_by(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors that a function writes into."""
    spelled = getattr(function, "__name__", "")
    inside = spelled in ("__setitem__", "__set__") or (
        spelled.startswith("__i") and hasattr(Tensor, f"__{spelled[3:]}")
    )
    if inside or (spelled.endswith("_") and not spelled.endswith("__")):
        return tensors_of(args[:1])
    return tensors_of(kwargs.get("out"))


def plain_tensors(model: nn.Module) -> Iterator[Tensor]:
    """The tensors that modules keep as plain attributes."""
    for module in model.modules():
        yield from (x for x in vars(module).values() if isinstance(x, Tensor))


def tensors_of(tree: Any) -> list[Tensor]:
    """The tensors among arguments or results."""
    return [x for x in pytree.tree_leaves(tree) if isinstance(x, Tensor)]


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer by every name that it has."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


@contextmanager
def _unmapping(watching: _Watching) -> Iterator[None]:
    """Shows what torch.vmap puts together again, which no function that torch dispatches does."""
    vmap = sys.modules["torch._functorch.vmap"]
    put_together = vars(vmap)["_remove_batch_dim"]

    def noted(entry: Any, level: int, size: Any, at: int) -> Any:
        whole = put_together(entry, level, size, at)
        watching.unmapped(entry, whole, at)
        return whole

    vars(vmap)["_remove_batch_dim"] = noted
    try:
        yield
    finally:
        vars(vmap)["_remove_batch_dim"] = put_together


def traced(model: nn.Module, example: Any) -> Found:
    """What one forward of the model does with its parameters and with what it computes.

    Raises NumericsError where the model does not run on the example: another shape, type or device.
    """
    args, kwargs = arguments(example)
    found, running = Found(), Running(model)
    try:
        watching = _Watching(model, running, found, tensors_of((args, kwargs)))
        with restored(model), as_in_use(model), _unmapping(watching), watching:
            out = model(*args, **kwargs)
    except NumericsError:
        raise
    except Exception as wrong:
        raise NumericsError(
            f"the model does not run on the example: {type(wrong).__name__} in or after "
            f"{running.last or 'its own forward'}: {words_of(wrong):.400}"
        ) from wrong
    finally:
        running.close()
    found.calls = running.calls
    found.caches = dict(_caches(out))
    found.after = {norm: made.by for norm, made in watching.normed.items() if made.touched == 1}
    return found


def _caches(out: Any) -> Iterator[tuple[str, str]]:
    """Key-value caches among what a model returns."""
    items = (
        out.items()
        if isinstance(out, Mapping)
        else [(str(k), x) for k, x in enumerate(out)]
        if isinstance(out, (tuple, list))
        else []
    )
    for name, x in items:
        if "key_values" in str(name) or "cache" in type(x).__name__.lower():
            yield str(name), type(x).__name__
