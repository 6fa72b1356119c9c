"""Which product of a forward is which of the plan's: by the parameters that it multiplies with.

Another batch may take another way through a model's Python than the example did, so the count of products
alone says nothing: a product is known by its weights, and counted among those that have the same.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from numerics.formats.errors import NumericsError
from numerics.model.deciding.plan import Plan
from numerics.model.looking.places import name_in
from numerics.model.looking.products import BESIDE, PRODUCTS, ROWS_OF, name_of
from numerics.model.looking.trace import Site, factors_in, is_opening, named_tensors, outside, tensors_of
from numerics.model.wrapped.quantizers import Quantizer


class Planned(NamedTuple):
    """A product of a module's forward: its site, the parameters in it, and the quantizers by their places."""

    site: Site
    weights: frozenset[str]
    places: Mapping[int, str]


@dataclass
class Sites:
    """Every product that the example had in a module's own forward.

    by_weights: of an operation and the names of its weights, in order.  by_order: of an operation, by number.
    owners: where each of the weights is.
    """

    by_weights: dict[tuple[str, frozenset[str]], list[Planned]] = field(default_factory=dict)
    by_order: dict[str, dict[int, Planned]] = field(default_factory=dict)
    owners: dict[str, tuple[nn.Module, str]] = field(default_factory=dict)

    def quantized_partners(self) -> Iterator[tuple[nn.Module, str]]:
        """The weights, by module and leaf, that are multiplied with something quantized."""
        for some in self.by_weights.values():
            for one in some:
                if one.places:
                    yield from (self.owners[name] for name in one.weights if name in self.owners)


def sites_of(
    model: nn.Module, plan: Plan, attributes: Mapping[Site, str], modules: Mapping[str, nn.Module]
) -> dict[str, Sites]:
    """By the name of each module that the plan quantizes something in, the products of its forward."""
    first: dict[int, str] = {}
    known: dict[str, str] = {}
    for name, x in named_tensors(model):
        known[name] = first.setdefault(id(x), name)
    found: dict[str, Sites] = {}
    products: dict[Site, tuple[frozenset[str], dict[int, str]]] = {}
    for row in plan.rows:
        if row.site is not None:
            weights = frozenset(known.get(name, name) for name in row.weights)
            _, places = products.setdefault(row.site._replace(place=0), (weights, {}))
            if row.site in attributes:
                places[row.site.place] = attributes[row.site]
    for site, (weights, places) in sorted(products.items()):
        sites = found.setdefault(site.module, Sites())
        one = Planned(site, weights, places)
        sites.by_weights.setdefault((site.operation, weights), []).append(one)
        sites.by_order.setdefault(site.operation, {})[site.number] = one
        for name in weights:
            owner, _, leaf = name.rpartition(".")
            if owner in modules:
                sites.owners[name] = modules[owner], leaf
    for name, sites in found.items():
        sites.owners = {**_own(name, modules[name], known), **sites.owners}
    return found


def _own(name: str, module: nn.Module, known: Mapping[str, str]) -> dict[str, tuple[nn.Module, str]]:
    """The module's own parameters and buffers, which may be multiplied with one another alone."""
    own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return {known[name_in(name, leaf)]: (module, leaf) for leaf, _ in own}


# ---- of what a tensor is made ---------------------------------------------------------------------


class _Known(threading.local):
    """Tensors of the forward that runs in this thread that are made of parameters alone, and of which.

    They are not kept alive: a weight that is read quantized is as large as the weight.
    """

    def __init__(self) -> None:
        self.tensors: dict[int, tuple[Any, frozenset[str]]] = {}


_known = _Known()


def note(x: Tensor, names: frozenset[str]) -> None:
    """Notes of which parameters a tensor is made."""
    _known.tensors[id(x)] = weakref.ref(x), names


def forget() -> None:
    """Forgets them, when the outermost forward is over."""
    _known.tensors.clear()


def names_of(x: Tensor) -> frozenset[str] | None:
    """The names of the parameters that a tensor, or what it is a view of, is made of alone."""
    for one in (x, x._base, outside(x)):
        found = None if one is None else _known.tensors.get(id(one))
        if found is not None and found[0]() is one:
            return found[1]
    return None


def follow(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
    """Notes what a function made of such tensors alone, as `trace.joined` does."""
    first = next((x for x in args[:2] if not isinstance(x, str)), None)  # an einsum begins with a text
    if isinstance(first, (list, tuple)):
        first = first[0] if first else None
    if not isinstance(first, Tensor) or (names := names_of(first)) is None:
        return
    operation = name_of(function)
    if is_opening(operation):
        return
    came = {} if operation in ROWS_OF else {x: names_of(x) for x in tensors_of((args, kwargs))}
    if None in came.values():
        return
    for x in tensors_of(out):
        note(x, _joined(x, operation, {first: names} | came))


def _joined(x: Tensor, operation: str, came: Mapping[Tensor, frozenset[str] | None]) -> frozenset[str]:
    """The parameters that a result is made of; none of what products made."""
    every = [names or frozenset() for names in came.values()]
    if operation in PRODUCTS:
        return frozenset()
    if all(every):
        return frozenset().union(*every)
    besides = operation in BESIDE
    alike = [one for of, one in came.items() if one and x.ndim > 1 and (besides or of.shape == x.shape)]
    return frozenset().union(*alike)


# ---- one forward ----------------------------------------------------------------------------------


class Matching:
    """The products of one run of a module's forward, each found in the plan.

    follows: are tensors known apart?  Not while torch.compile looks, which knows them by order.
    """

    def __init__(self, module: nn.Module, sites: Sites, follows: bool) -> None:
        self.module, self.sites, self.follows = module, sites, follows
        self.order: Counter[str] = Counter()
        self.nth: Counter[tuple[str, frozenset[str]]] = Counter()
        self.by_order: dict[str, Planned] = {}
        if follows:
            for name, (owner, leaf) in sites.owners.items():
                x: Tensor | None = owner._parameters.get(leaf)
                x = owner._buffers.get(leaf) if x is None else x
                if x is not None:
                    note(x, frozenset((name,)))

    def planned(self, operation: str, args: Any, kwargs: Any) -> Planned | None:
        """The plan's product of a call; None for one of parameters alone.

        Raises NumericsError for a call that the example did not have.
        """
        if not self.sites.by_order:  # a module that is looked at for another reason
            return None
        number = self.order[operation]
        self.order[operation] += 1
        if not self.follows:
            return self._compiled(operation, number)
        weights, unknown, computed = _met(operation, args, kwargs)
        if unknown is None and not computed:
            return None
        alike = self.sites.by_weights.get((operation, weights))
        if alike is None or unknown is not None:
            return self._ordered(operation, number, weights, unknown)
        nth = self.nth[operation, weights]
        self.nth[operation, weights] += 1
        if nth >= len(alike) and not self._equal(alike):
            self._refuse(operation, f"number {nth + 1} with {_said(weights)}, of which it had {len(alike)}")
        return alike[min(nth, len(alike) - 1)]

    def _compiled(self, operation: str, number: int) -> Planned | None:
        """By order, where nothing else is known."""
        planned = self.sites.by_order.get(operation)
        if planned is None:
            return None
        if number > max(planned) and any(one.places for one in planned.values()):
            self._refuse(operation, f"number {number + 1}, of which it had {max(planned) + 1}")
        return planned.get(number)

    def _ordered(self, operation: str, number: int, weights: frozenset[str], unknown: Any) -> Planned | None:
        """By order, a product of what nobody followed, such as a weight that a model keeps in a cache."""
        planned = self.sites.by_order.get(operation, {})
        found = planned.get(number)
        if weights or unknown is not None:
            self._refuse(operation, f"one with {_said(weights) if weights else unknown}")
        if found is None or not found.weights:
            if any(one.places for one in planned.values()):
                self._refuse(operation, f"number {number + 1}, of tensors that are computed")
            return None
        self.by_order[operation] = found
        return found

    def close(self) -> None:
        """Raises NumericsError where the forward had fewer products than the order of the example needs."""
        for operation, planned in self.sites.by_order.items():
            count, due = self.order[operation], max(planned) + 1
            if count >= due or (self.follows and operation not in self.by_order):
                continue
            never = count == 0 and any(one.places for one in planned.values())
            if never or not self._equal([*planned.values()]):
                self._refuse(operation, f"{count} in all, of which it had {due}")
        for (operation, weights), count in self.nth.items():
            alike = self.sites.by_weights[operation, weights]
            if not weights and count < len(alike) and not self._equal(alike):
                self._refuse(operation, f"{count} of tensors that are computed, of which it had {len(alike)}")

    def _equal(self, some: Sequence[Planned]) -> bool:
        """Is it all the same which of some products it is?"""
        every = []
        for one in some:
            quantizers = {place: getattr(self.module, name) for place, name in one.places.items()}
            if any(type(x) is not Quantizer for x in quantizers.values()):
                return False
            every.append({place: x.text for place, x in quantizers.items()})
        return all(one == every[0] for one in every)

    def _refuse(self, operation: str, what: str) -> None:
        name = min(site for one in self.sites.by_order.values() for site in one.values()).site.module
        raise NumericsError(
            f"{name or 'model'}:{operation}: this call takes another way through {type(self.module).__name__}"
            f" than the example did, and meets {what}: what is planned for it is not known; give an example= "
            f"that goes there, or rules={{'{name or 'model'}:{operation}*': {{'activations': None}}}}"
        )


def _said(weights: frozenset[str]) -> str:
    return ", ".join(sorted(weights)) or "no parameter"


def _met(operation: str, args: Any, kwargs: Any) -> tuple[frozenset[str], str | None, bool]:
    """The parameters in a product; one that the example never had there; is something computed in it?"""
    weights: set[str] = set()
    unknown, computed = None, False
    for _, came, _ in PRODUCTS[operation].factors(args, kwargs):
        for x in factors_in(came):
            if not isinstance(x, Tensor):
                continue
            names = names_of(x)
            if names:
                weights |= names if x.ndim > 1 else frozenset()
            elif (
                names is None
                and x.ndim > 1
                and (isinstance(x, nn.Parameter) or isinstance(x._base, nn.Parameter))
            ):
                unknown = f"a parameter of shape {tuple(x.shape)}"
            else:
                computed = computed or x.is_floating_point()
    return frozenset(weights), unknown, computed
