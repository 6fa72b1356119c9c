"""Parameters that a forward reads where the plan knows of no product with them: one raises, by name.

A product that the example never had is of a weight that a forward reads for it.  What is read there is a
tensor that says so when it is multiplied; whatever else is done with it is done with the parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from numerics.formats.errors import NumericsError
from numerics.model.deciding.plan import UNUSED, Plan
from numerics.model.looking.places import name_in
from numerics.model.looking.products import FUNCTIONS, OPAQUE, PRODUCTS, classified, in_order, name_of
from numerics.model.looking.trace import factors_in, tensors_of
from numerics.pytorch.wrapper import Wrapper

GUARDED = "numerics_guarded"
"""Under that name a module has, by leaf, the names of its parameters that are guarded."""


class Known(NamedTuple):
    """A parameter that is guarded: its name, the first of its names, and whether the example used it."""

    name: str
    first: str
    used: bool


class Reader(NamedTuple):
    """Who reads a parameter that is guarded.

    parameter: which one.  module: the module in whose method it is read, if it is one.  looked_after: is a
    product, where it is asked, one that the plan has, or refuses itself?
    """

    parameter: Known
    module: Any
    looked_after: Callable[[], bool]

    def is_constant(self, x: Tensor) -> bool:
        """Is it a parameter, or a buffer of that module?"""
        if isinstance(x, (Guarded, nn.Parameter)):
            return True
        return isinstance(self.module, nn.Module) and any(x is one for one in self.module.buffers())


class Guarded(Tensor):
    """A parameter, or what is made of parameters alone, that no product is planned for.

    numerics_of: the tensor itself.  numerics_by: who reads it.
    """

    numerics_of: Tensor
    numerics_by: Reader

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What the function makes of the tensors themselves; raises NumericsError for a product."""
        kwargs = kwargs or {}
        every = tensors_of((args, kwargs))
        guards = [x for x in every if isinstance(x, Guarded)]
        by = guards[0].numerics_by
        alone = all(by.is_constant(x) for x in every)
        if not alone and not by.looked_after():
            _check(func, args, kwargs, guards)
        out = func(*pytree.tree_map(_itself, args), **pytree.tree_map(_itself, kwargs))
        if not alone or _is_alike(out, every):
            return out
        return pytree.tree_map(lambda x: guard(x, by) if isinstance(x, Tensor) else x, out)


def _is_alike(out: Any, every: Sequence[Tensor]) -> bool:
    """Is it one of the tensors themselves, as an operation in place returns?"""
    return any(out is x for x in every)


def _itself(x: Any) -> Any:
    return x.numerics_of if isinstance(x, Guarded) else x


def guard(x: Tensor, by: Reader) -> Tensor:
    """The tensor, as one that raises NumericsError where it is multiplied with what is computed."""
    if isinstance(x, Guarded):
        return x
    if isinstance(x, Wrapper):  # which keeps no values as they are: of the stand-in nobody sees any
        found = torch.zeros((), dtype=x.dtype, device=x.device).expand(x.shape).as_subclass(Guarded)
    else:
        found = x.as_subclass(Guarded)
    found.numerics_of, found.numerics_by = x, by
    return found


def _check(func: Any, args: Any, kwargs: Any, guards: Sequence[Guarded]) -> None:
    """Raises NumericsError for a product, and for an operation that nobody knows."""
    name = FUNCTIONS.get(func) or name_of(func)
    product = PRODUCTS.get(name)
    if product is None:
        wide = [x for x in guards if x.numerics_of.ndim > 1]
        if wide and (name in OPAQUE or not classified(name)):
            raise _refused(wide[0], name)
        return
    if product.rows:
        return
    factors = product.factors(in_order(func, args)[1], kwargs)
    every = [x for _, came, _ in factors for x in factors_in(came) if isinstance(x, Tensor)]
    found = [x for x in every if isinstance(x, Guarded) and x.numerics_of.ndim > 1]
    if found and any(x.is_floating_point() and not found[0].numerics_by.is_constant(x) for x in every):
        raise _refused(found[0], name)


def to_guard(
    modules: Mapping[str, nn.Module], plan: Plan, multiplied: set[tuple[nn.Module, str]]
) -> Iterator[tuple[nn.Module, str, Known]]:
    """The parameters to guard, each with its module and its leaf.

    Those that the example never used, and those whose partners are quantized in every product that it had.
    multiplied: the modules and leaves of parameters whose partners are quantized.
    """
    unused = {name for row in plan.rows if row.reason.startswith(UNUSED) for name in row.names}
    left = {
        name for row in plan.rows if row.kind == "activation" and row.spec is None for name in row.weights
    }
    partners = {id(module._parameters.get(leaf)) for module, leaf in multiplied}
    loose = {id(_parameter(modules, name)) for name in left}
    first: dict[int, str] = {}
    for prefix, module in modules.items():
        for leaf, x in module._parameters.items():
            name = name_in(prefix, leaf)
            if x is None or x.ndim < 2:
                continue
            if name in unused or (id(x) in partners and id(x) not in loose):
                yield module, leaf, Known(name, first.setdefault(id(x), name), name not in unused)


def _parameter(modules: Mapping[str, nn.Module], name: str) -> Tensor | None:
    owner, _, leaf = name.rpartition(".")
    return modules[owner]._parameters.get(leaf) if owner in modules else None


def _refused(x: Guarded, operation: str) -> NumericsError:
    known = x.numerics_by.parameter
    owner = known.name.rpartition(".")[0] or known.name
    never = "only elsewhere" if known.used else "not at all"
    return NumericsError(
        f"{known.name}: this call takes another way than the example did, and meets a product with it "
        f"({operation}), which the example had {never}: what is planned for it is not known; give an "
        f"example= that goes there, or rules={{{owner!r}: None}}"
    )
