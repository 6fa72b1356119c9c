"""A model as a graph of torch.export: its products, those of nested regions too, and of what each is made."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.fx import GraphModule, Node

from numerics.files.ties import ties_among
from numerics.formats.errors import NumericsError
from numerics.model.looking.products import LIKE, PRODUCTS, ROWS_OF, VIEWS, classified, name_of
from numerics.model.looking.refusing import quiet, refusal
from numerics.model.looking.restoring import restored
from numerics.model.looking.trace import (
    CONSTANT,
    ONE_PRODUCT,
    Found,
    Origin,
    Site,
    Use,
    added,
    arguments,
    factors_in,
    is_opening,
    joined,
    named_tensors,
    shape_of,
    stacked_at,
    tensors_of,
)

REGIONS = ("cond", "while_loop", "scan", "map", "set_grad_enabled", "autocast")
_ONE_MODULE = (*ONE_PRODUCT, nn.Embedding, nn.EmbeddingBag, nn.Bilinear)


@dataclass(frozen=True)
class Graph:
    """A graph, the one at the root or a nested one, and of what its inputs are made."""

    module: GraphModule
    origins: Mapping[Node, Origin | None]


@dataclass(frozen=True)
class Made:
    """A product in a graph.  unseen: is it in a region of control flow, which is called as one operator?"""

    graph: Graph
    node: Node
    site: Site
    factors: list[tuple[int, Any, tuple[int, ...]]]
    unseen: bool = False


def export(model: nn.Module, example: Any, dynamic: bool = False) -> GraphModule:
    """The model as a graph of its own parameters; raises NumericsError, with the reason, where it is none.

    Not decomposed, which would change bits; with gradients on, since torch takes other ways without.
    dynamic: sizes of the example may be others later, where the model allows.
    """
    args, kwargs = arguments(example)
    shapes = _dynamic((args, kwargs)) if dynamic else None
    try:
        with restored(model), torch.enable_grad(), warnings.catch_warnings(), quiet():
            warnings.filterwarnings(
                "ignore", "The tensor attribute"
            )  # they are given back, lists of weights too
            program = torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
            found = program.module()
    except NumericsError:
        raise
    except Exception as wrong:
        if dynamic:
            return export(model, example)
        raise refusal(model, wrong) from None
    _fetch_by_name(found, model)
    return found


def _fetch_by_name(root: GraphModule, model: nn.Module) -> None:
    """Has a graph fetch parameters under their names, where it has them from a list or a function.

    Of what a forward has otherwise than as an attribute torch makes constants, of the same memory.
    """
    named, own = dict(model.named_parameters()), {name for name, _ in named_tensors(model)}
    fetched = [node for node in root.graph.nodes if node.op == "get_attr" and node.target not in own]
    came = {node.target: attribute(root, node.target) for node in fetched}
    every = {**named, **{target: x for target, x in came.items() if isinstance(x, torch.Tensor)}}
    ties = ties_among({name: x.detach() for name, x in every.items()})  # of plain tensors, not of a subclass
    for node in fetched:
        if ties.get(node.target) in named:
            node.target = ties[node.target]


def _dynamic(tree: Any) -> Any:
    """Every size as one that may change, or None where nothing has one."""
    args, kwargs = tree

    def sizes(x: Any) -> Any:
        if isinstance(x, torch.Tensor):
            return dict.fromkeys(range(x.ndim), torch.export.Dim.AUTO)
        return None

    shapes = torch.utils._pytree.tree_map(sizes, (*args, *kwargs.values()))
    return tuple(shapes)


def products(root: GraphModule, model: nn.Module) -> Iterator[Made]:
    """Every product of the graph, in order, those of nested regions in their place."""
    yield from _products(_Walk(root, Counter(), _first_names(model)), root, {})


class _Walk(NamedTuple):
    """A way through a graph: its root, the products counted so far, and the modules by their names."""

    root: GraphModule
    counts: Counter[Any]
    modules: Mapping[str, tuple[str, nn.Module]]


def _products(
    walk: _Walk, at: GraphModule, inputs: dict[Node, Origin | None], unseen: bool = False
) -> Iterator[Made]:
    """The products of a graph, with those of its regions.  unseen: is it in a region of control flow?"""
    root, counts, modules = walk
    origins = _origins(root, at, inputs)
    graph = Graph(at, origins)
    for node in list(at.graph.nodes):
        if node.op != "call_function":
            continue
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            for child, operands in regions(at, node):
                known = [_origin_inside(x, origins) for x in operands]
                holders = [x for x in child.graph.nodes if x.op == "placeholder"]
                inside = dict(zip(holders, known, strict=False))
                alone = unseen or not _is_transparent(node)
                yield from _products(walk, child, inside, alone)
            continue
        name = name_of(node.target)
        if name not in PRODUCTS:
            continue
        factors = PRODUCTS[name].factors(node.args, node.kwargs)
        key, module = _stack(node)
        module = modules[module][0] if module in modules else module
        owner = None if at is root else _owner(factors, origins, modules)
        module = owner or module
        index = 0 if owner else counts[(key, module, name)]  # each call of a module counts from 0
        counts[(key, module, name)] += 1
        yield Made(graph, node, Site(module, name, index, 0), factors, unseen)


def _is_transparent(node: Node) -> bool:
    """Is it of a region that Python runs as it is, so that all in it is seen?"""
    return any(kind in str(node.target) for kind in ("set_grad_enabled", "autocast"))


def _first_names(model: nn.Module) -> dict[str, tuple[str, nn.Module]]:
    """By each name of a module its first, under which a plan has it, and itself."""
    first: dict[nn.Module, str] = {}
    every = model.named_modules(remove_duplicate=False)
    return {name: (first.setdefault(module, name), module) for name, module in every}


def module_of(node: Node) -> tuple[str, str]:
    """The name of the module that a node belongs to, and of its class; both empty where none is known."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "", ""
    name, kind = stack[-1]
    return str(name).partition("@")[0], str(getattr(kind, "__name__", kind)).rpartition(".")[2]


def _stack(node: Node) -> tuple[str, str]:
    """The call and the name of the module that a node belongs to."""
    return next(reversed(node.meta.get("nn_module_stack") or {}), ""), module_of(node)[0]


def _owner(
    factors: Any, origins: Mapping[Node, Origin | None], modules: Mapping[str, tuple[str, nn.Module]]
) -> str | None:
    """The module of one product whose parameter is a factor: of a region torch knows the caller only."""
    for _, came, _ in factors:
        for x in factors_in(came):
            origin = origins.get(x) if isinstance(x, Node) else None
            if origin is not None and origin.names:
                name = origin.names[0].rpartition(".")[0]
                first, module = modules.get(name, (name, None))
                if isinstance(module, _ONE_MODULE):
                    return first
    return None


class Entries(NamedTuple):
    """What a region sees of an operand that it takes one entry of at a time, along the first axis."""

    of: Any


COMPUTED = None
"""What a region has in the place of what its last step made."""


def regions(at: GraphModule, node: Node) -> Iterator[tuple[GraphModule, list[Any]]]:
    """The graphs inside an operator, each with what goes in; raises NumericsError for one not known here."""
    name = getattr(node.target, "name", None)
    kind = str(name() if callable(name) else node.target)
    found = _inside(kind, node.args)
    if found is None:
        raise NumericsError(
            f"{kind}: a region of a graph that is not known here; known are {', '.join(REGIONS)}. "
            "mode='eager_mode' does not look inside"
        )
    for branch, operands in found:
        yield getattr(at, str(branch.target)), list(operands)


def _inside(kind: str, args: Any) -> list[tuple[Node, Sequence[Any]]] | None:
    """Each region of an operator with what goes in; None of one that is not known here."""
    if "while_loop" in kind:
        operands = [COMPUTED] * len(args[2]) + [*args[3]]
        return [(args[0], operands), (args[1], operands)]
    if kind == "scan":
        return [(args[0], [COMPUTED] * len(args[1]) + [Entries(x) for x in args[2]] + [*args[3]])]
    if kind == "associative_scan":
        return [(args[0], [COMPUTED] * (2 * len(args[1])) + [*args[2]])]
    if kind.startswith("map"):
        return [(args[0], [Entries(x) for x in args[1]] + [*args[2]])]
    if "cond" in kind:
        return [(args[1], args[3]), (args[2], args[3])]
    if "set_grad_enabled" in kind:
        return [(args[1], args[2:])]
    if "autocast" in kind:
        return [(args[4], args[5:])]
    return None


def _origin_inside(operand: Any, origins: Mapping[Node, Origin | None]) -> Origin | None:
    """Of what parameters alone an operand of a region is made, as the region sees it."""
    if isinstance(operand, Entries):
        whole = _origin_inside(operand.of, origins)
        return None if whole is None else whole.without(0)
    return origins.get(operand) if isinstance(operand, Node) else None


def _origins(
    root: GraphModule, at: GraphModule, inputs: dict[Node, Origin | None]
) -> dict[Node, Origin | None]:
    """For each node of a graph, of which parameters and buffers alone it is made."""
    found: dict[Node, Origin | None] = dict(inputs)
    for node in at.graph.nodes:
        if node.op == "get_attr":
            x = attribute(at, node.target)
            if at is root and isinstance(x, torch.Tensor):
                found[node] = Origin.of(x, str(node.target))
        elif node.op == "call_function" and node not in found:
            found[node] = _made_of(node, found)
            _write(node, found)
    return found


def _write(node: Node, found: dict[Node, Origin | None]) -> None:
    """Notes of what nodes are made, after one that writes into them."""
    if not isinstance(node.target, torch._ops.OpOverload) or not node.target._schema.is_mutable:
        return
    made, into = found[node], node.args[0] if node.args else None
    while isinstance(into, Node) and (before := found.get(into)) is not None:
        shape = shape_of(into) or ()
        if made is not None:
            found[into] = added(before, made, len(shape), shape == shape_of(node))
        elif before.constant:
            found[into] = None
        shows = into.op == "call_function" and name_of(into.target) in VIEWS
        into = into.args[0] if shows else None


def _made_of(node: Node, found: Mapping[Node, Origin | None]) -> Origin | None:
    args: Any = node.args
    of, name = node, name_of(node.target)
    if name == "getitem" and not isinstance(args[0].meta.get("val"), torch.Tensor):  # one of a tuple
        of, name = args[0], name_of(args[0].target)
    came = [x for x in of.all_input_nodes if tensors_of(x.meta.get("val"))]
    came = came[: 1 if name in ROWS_OF else None]
    pairs: list[Any] = [(x.meta.get("val"), one) for x in came if (one := found.get(x)) is not None]
    view: Any = node.meta.get("val")
    if name in LIKE and not pairs:
        return CONSTANT
    if len(pairs) < len(came) or (not came and of.all_input_nodes) or is_opening(name):
        return None
    if name == "_remove_batch_dim" and pairs:
        return pairs[0][1].regained(args[3] % view.ndim)
    if name == "_add_batch_dim" and pairs:
        return pairs[0][1].without(args[1] % pairs[0][0].ndim)
    if isinstance(view, torch.Tensor) and all(isinstance(x, torch.Tensor) for x, _ in pairs):
        return joined(view, pairs, name, stacked_at(name, args, node.kwargs, view))
    parts = {part.name: part._replace(axes=()) for _, one in pairs for part in one.parts}
    return Origin(tuple(parts.values()))


def attribute(at: nn.Module, target: str) -> Any:
    """What a dotted name leads to, from a module on; None where it leads nowhere."""
    found: Any = at
    for part in str(target).split("."):
        found = getattr(found, part, None)
    return found


def seen(root: GraphModule, model: nn.Module, found: Found) -> None:
    """Adds what the graph shows to what was found: fused functions and nested regions it opens."""
    names = _names_of_ties(model)
    for made in products(root, model):
        known = made.graph.origins

        def origin(x: Any, known: Mapping[Node, Origin | None] = known) -> Origin | None:
            one = known.get(x) if isinstance(x, Node) else None
            if one is None or not one.names:
                return None
            ties = [part._replace(name=n) for part in one.parts for n in names.get(part.name, (part.name,))]
            return one._replace(parts=tuple(ties))

        before = set(found.sites)
        found.product(made.site, made.factors, origin, made.node)
        found.hidden |= set(found.sites) - before
        if made.unseen:  # also where a product of that number is outside
            found.hidden |= {site for site in found.sites if site._replace(place=0) == made.site}
        _biases(made, origin, found)
    known = _origins(root, root, {})
    for node in root.graph.nodes:
        if node.op == "call_function" and not isinstance(node.target, torch._ops.HigherOrderOperator):
            _unknown(root, node, known, found)


def _biases(made: Made, origin: Any, found: Found) -> None:
    """Notes the parameters that a product takes and does not multiply with."""
    factors = {x for _, came, _ in made.factors for x in factors_in(came)}
    for x in made.node.all_input_nodes:
        made_of = None if x in factors else origin(x)
        if made_of is not None:
            found.use(made_of.names, Use(made.site.module, made.site.operation, "bias"))


def _unknown(root: GraphModule, node: Node, known: Mapping[Node, Origin | None], found: Found) -> None:
    """Notes parameters that an operation nobody knows takes together with something computed."""
    name = name_of(node.target)
    came = [x for x in node.all_input_nodes if shape_of(x) is not None]
    if classified(name) or not tensors_of(node.meta.get("val")) or all(known.get(x) for x in came):
        return
    for x in came:
        if x.op == "get_attr" and len(shape_of(x) or ()) > 1:
            value = attribute(root, str(x.target))
            if isinstance(value, nn.Parameter) and value.is_floating_point():
                found.unknown.setdefault(str(x.target), f"{_stack(node)[1] or 'model'}:{name}")


def graphs(root: GraphModule) -> list[GraphModule]:
    """The graph and every one nested in it."""
    return [x for x in root.modules() if isinstance(x, GraphModule)]


def _names_of_ties(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Every name of each tensor, by each of them."""
    every: dict[int, list[str]] = {}
    for name, x in named_tensors(model):
        every.setdefault(id(x), []).append(name)
    return {name: tuple(names) for names in every.values() for name in names}
