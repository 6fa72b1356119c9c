"""A model stays as it was: what a look at it writes is taken back, and what a change that fails has done."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.parameter import is_lazy

from numerics.formats.errors import NumericsError
from numerics.tensor.qtensor import QTensor

INNER = ("_parameters", "_buffers", "_modules")
"""Where a module has what is registered in it."""


@contextmanager
def restored(model: nn.Module, but: Iterable[nn.Module] = ()) -> Iterator[None]:
    """Takes back what runs inside write into buffers, attributes, and embeddings with max_norm.

    Tensors, lists, dicts and sets that are attributes of modules come back with what was in them, all others
    as the objects that they were.  but: modules inside that keep what is written.
    Raises NumericsError afterwards where a forward wrote into another
    parameter: copying all of them beforehand would take the model's memory twice.
    """
    left = {module for one in but for module in one.modules()}
    modules = [module for module in model.modules() if module not in left]
    learned = {id(x) for module in left for x in module.parameters()}
    written = _renormed(model)
    before = [_held(module, True, written) for module in modules]
    versions = {
        name: (x, _version(x))
        for name, x in model.named_parameters()
        if id(x) not in learned and id(x) not in written
    }
    try:
        yield
    finally:
        for module, held in zip(modules, before, strict=True):
            _give_back(module, held)
    changed = [name for name, (x, version) in versions.items() if _version(x) != version]
    if changed:
        raise NumericsError(
            f"the forward of this model writes into {', '.join(changed[:4])}, which looking at it has "
            "changed: give a copy of it, copy.deepcopy(model)"
        )


@contextmanager
def undone(model: nn.Module, values: bool = False) -> Iterator[None]:
    """Makes a model what it was where what runs inside raises or is interrupted: all happens, or nothing.

    It gets back its classes, attributes, children, hooks and graphs, and the tensors that it had.  values:
    what was in buffers, too, which costs a copy of them.
    """
    written = _renormed(model) if values else frozenset()
    before = [(module, type(module), _held(module, values, written)) for module in model.modules()]
    waiting = [x for x in model.parameters() if is_lazy(x)]
    try:
        yield
    except BaseException:
        while not _all_given_back(before, waiting):
            pass
        raise


@contextmanager
def rewritten() -> Iterator[Callable[[Tensor], None]]:
    """Gives a function that keeps what is in a tensor, to be written back where what runs inside raises."""
    kept: list[tuple[Tensor, Tensor]] = []
    try:
        yield lambda x: kept.append((x, x.detach().clone()))
    except BaseException:
        with torch.no_grad():
            for x, values in kept:
                x.detach().copy_(values)
        raise


def _all_given_back(
    before: list[tuple[nn.Module, type[nn.Module], Any]], waiting: list[nn.Parameter]
) -> bool:
    """Gives modules back what they had; False where that was interrupted, to begin again."""
    try:
        for module, kind, held in before:
            module.__class__ = kind  # type: ignore[assignment]
            graph = module.__dict__.get("_graph")
            _give_back(module, held)
            if isinstance(module, GraphModule) and module.graph is not graph:
                module.recompile()
        for x in waiting:
            if not is_lazy(x):  # the same parameter, which an optimizer may hold
                x.data = torch.empty(0, device=x.device)
                x.__class__ = nn.UninitializedParameter  # type: ignore[assignment]
    except KeyboardInterrupt:  # one is on its way already
        return False
    return True


def _held(
    module: nn.Module, values: bool, written: Set[int]
) -> list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """The dicts that hold what a module has: each, what was in it, and copies of what can be written into.

    values: tensors are among these, but of parameters only those that are written into, by identity.
    """
    places = [module.__dict__, *(module.__dict__[name] for name in INNER if name in module.__dict__)]
    found = []
    for place in places:
        kept = {k: v for k, v in place.items() if k not in INNER}
        found.append(
            (place, kept, {k: y for k, x in kept.items() if (y := _copied(x, values, written)) is not None})
        )
    return found


def _copied(x: Any, values: bool, written: Set[int]) -> Any:
    """A copy of what a forward can write into; None of what it cannot, or is not expected to."""
    if isinstance(x, Tensor) and not values:
        return None
    if isinstance(x, nn.Parameter):
        return x.detach().clone() if id(x) in written else None
    if isinstance(x, Tensor):
        return (
            None if isinstance(x, QTensor) or is_lazy(x) or x.is_meta else (x.detach().clone(), _version(x))
        )
    return x.copy() if type(x) in (list, dict, set, OrderedDict) else None


def _give_back(module: nn.Module, held: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]) -> None:
    for place, kept, copies in held:
        inner = {k: v for k, v in place.items() if k in INNER}
        for name in [k for k in place if k not in kept and k not in inner]:
            del place[name]
        if not inner and list(place) != list(kept):  # the order is that of state dictionaries
            place.clear()
        place.update(kept)
        for name, copy in copies.items():
            _write_back(kept[name], copy)


def _write_back(x: Any, copy: Any) -> None:
    if isinstance(x, list):
        x[:] = copy
    elif isinstance(x, (dict, set)):
        x.clear()
        x.update(copy)
    else:
        values, version = copy if isinstance(copy, tuple) else (copy, None)
        if version is None or _version(x) != version or _was_written(x.detach(), values):
            with torch.no_grad():
                x.detach().copy_(values)


def _was_written(x: Tensor, values: Tensor) -> bool:
    """Is it another?  Normalizations write their statistics without a new version."""
    return x.layout is torch.strided and not torch.equal(x, values)


def _version(x: Tensor) -> int:
    return -1 if is_lazy(x) or x.is_inference() or isinstance(x, QTensor) else x._version


def renorms(module: nn.Module) -> bool:
    """Does a module write into its weight in each forward, as embeddings with max_norm do?"""
    return isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None


def _renormed(model: nn.Module) -> Set[int]:
    """The identities of the parameters that a forward of the model writes into."""
    found = {id(module._parameters.get("weight")) for module in model.modules() if renorms(module)}
    for graph in (module for module in model.modules() if isinstance(module, GraphModule)):
        for node in graph.graph.nodes:
            if node.op == "call_function" and "embedding_renorm_" in str(node.target):
                found.update(_fetched(graph, node.args[0]))
    return found


def _fetched(graph: GraphModule, node: Any) -> Iterator[int]:
    """The identity of the parameter that a node of a graph fetches, itself or by way of a view."""
    while node.op == "call_function" and node.all_input_nodes:
        node = node.all_input_nodes[0]
    if node.op == "get_attr":
        yield id(attrgetter(node.target)(graph))
