"""Graph mode: the model as a graph of torch.export, with quantizers where the plan has them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from numerics.formats.errors import NumericsError
from numerics.model.deciding.plan import Plan
from numerics.model.deciding.rows import Row
from numerics.model.looking import exported
from numerics.model.looking.places import is_shard, shard_read
from numerics.model.looking.trace import OUT, Site, arguments
from numerics.model.wrapped.calling import Arguments, arguments_of
from numerics.model.wrapped.fitting import Fitting
from numerics.model.wrapped.quantizers import Quantizer
from numerics.model.wrapped.renaming import QUANTIZERS, in_graph
from numerics.model.wrapped.sharing import Parting
from numerics.model.wrapped.state import STATE, State, check_deleted
from numerics.model.wrapped.structure import check_structure
from numerics.model.wrapped.where import say_where

_BY_MODE = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm, nn.RNNBase, nn.MultiheadAttention)
TRAINING = "training"
"""In a graph's notes: was the model in training, where that makes a difference?"""
TRAINED = "trained"
"""In a graph's notes: was a module of the model in training, whatever difference that makes?"""
ARGUMENTS = "arguments"
"""In a graph's notes: what it can be called with."""


@contextmanager
def outside_of_vmap() -> Iterator[None]:
    """Leaves torch.vmap at its end: a graph enters it by an operator, and an error would stay inside."""
    depth = torch._C._functorch.get_dynamic_layer_stack_depth()
    try:
        yield
    finally:
        torch._C._functorch.pop_dynamic_layer_stack_and_undo_to_depth(depth)


@contextmanager
def _without_torchs_own_warning() -> Iterator[None]:
    """Graphs are copied without a word of torch's about a kind of tree in them that it has given up."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


class QuantizedGraph(Fitting, Parting, GraphModule):
    """A model as a graph, which is of the mode, training or evaluation, that the model was in."""

    def __init__(self, root: Any, graph: torch.fx.Graph, class_name: str = "GraphModule") -> None:
        super().__init__(root, graph, class_name)
        _keep_unsaved(root, self)
        if isinstance(root, nn.Module):
            _keep_hooks(root, self, lambda hook, _: hook)

    def _deepcopy_init(self) -> Any:
        return QuantizedGraph.__init__

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refused: what torch.export checks of arguments has no pickle."""
        raise NumericsError(
            f"this {type(self).__name__} is a graph of torch.export, which is not pickled: "
            "nx.save(model.state_dict(), file) keeps its tensors, for nx.load_into(float_model, file, "
            "example=) once it is frozen, or load_state_dict of one that is wrapped alike; "
            "torch.export.save(torch.export.export(model, args), file) keeps all of it; copy.deepcopy copies "
            "it; and a model in mode='eager_mode' is pickled"
        )

    def __deepcopy__(self, memo: Any) -> Any:
        with _without_torchs_own_warning():
            return super().__deepcopy__(memo)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs it; raises NumericsError for sizes and arguments that its example did not have."""
        if torch.compiler.is_compiling():
            return super().__call__(*args, **kwargs)
        check_structure(self)
        takes = self.meta.get(ARGUMENTS)
        if isinstance(takes, Arguments):
            args, kwargs = (), takes.fitted(args, kwargs)
        try:
            with outside_of_vmap():
                return super().__call__(*args, **kwargs)
        except NotImplementedError:
            shards = [name for name, x in self.named_parameters() if is_shard(x)]
            if shards:
                raise shard_read(shards[0]) from None
            raise
        except AssertionError as wrong:
            if (why := _refusal(str(wrong))) is None:
                raise
            raise NumericsError(why) from None
        except Exception as wrong:
            check_deleted(self, wrong)
            say_where(self, wrong)
            raise

    def numerics_read_quantized(self, made: State | None) -> Iterable[str]:
        """The names of the parameters that the plan quantizes, of the whole model."""
        return made.plan.parameters if made is not None else ()

    @property
    def _learns(self) -> str:
        """What it was wrapped to learn; ste where that is nothing."""
        made = self.meta.get(STATE)
        return (made.qat if made is not None else None) or "ste"

    def train(self, mode: bool = True) -> QuantizedGraph:
        """Sets the mode of what is called; raises NumericsError where the graph is of the other mode."""
        was = self.meta.get(TRAINING)
        if was is not None and was is not mode:
            raise NumericsError(
                f"this graph was made of a model in {'training' if was else 'evaluation'}, with dropouts or "
                f"normalizations that are part of it: nx.wrap(model.{'train' if mode else 'eval'}(), "
                f"qat={self._learns!r}, mode='fx_graph_mode') makes one of the other mode"
            )
        super().train(mode)
        return self


def check_exporting(site: str) -> None:
    """Raises NumericsError inside torch.export, which loses what a region has of its own, such as scales."""
    if torch.compiler.is_exporting():
        raise NumericsError(
            f"{site}: it is in a region of control flow of this graph and has a scale of its own, which "
            "torch.export would lose: the same model in mode='eager_mode' is exported; where each tensor "
            "brings its scale (no observer=, no qat=) both are"
        )


def _refusal(wrong: str) -> str | None:
    """What an assertion of torch's in a graph means to whoever called it; None where it is another's."""
    if "numerics." in wrong and "FakeTensors" in wrong:
        return (
            "a branch of this graph has scales of its own, and torch has no gradient of a branch with "
            "tensors of its own: mode='eager_mode' trains this model, torch.no_grad() runs it"
        )
    if not wrong.startswith("Guard failed"):
        return None
    return (
        f"this graph is of other sizes or values: {wrong}. A size that was 1 in the example, or that the "
        "model tests, and what is no tensor, is fixed: nx.wrap(model, ..., mode='fx_graph_mode', "
        "example=...) with an example of two and more there, or one of these; mode='eager_mode' takes all"
    )


def _keep_unsaved(of: nn.Module, graph: nn.Module) -> None:
    """Leaves out of a graph's state what its model does not save: torch.fx makes saved buffers of all of it.

    That is buffers that are not saved, and tensors that a forward makes of numbers (`torch.tensor(2.0)`).
    """
    modules = dict(of.named_modules(remove_duplicate=False))
    for name, module in graph.named_modules(remove_duplicate=False):
        if name in modules:
            own = modules[name]
            saved = own._buffers.keys() - own._non_persistent_buffers_set
            module._non_persistent_buffers_set |= module._buffers.keys() - saved


_EXTRA = nn.modules.module._EXTRA_STATE_KEY_SUFFIX
_STATE_HOOKS = (
    "_state_dict_pre_hooks", "_state_dict_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip


def _keep_hooks(of: nn.Module, graph: nn.Module, theirs: Callable[[Any, nn.Module], Any]) -> None:
    """Gives a graph's modules what hooks the model's have on their states.

    theirs: of a hook and the module that it was of the one that the graph's module has.  What a class says
    of its state besides tensors is among them.
    """
    modules = dict(graph.named_modules(remove_duplicate=False))
    for name, module in of.named_modules(remove_duplicate=False):
        hooks = {kind: getattr(module, kind) for kind in _STATE_HOOKS if getattr(module, kind)}
        if not hooks and not _has_extra(module):
            continue
        if name not in modules:  # without parameters, so the graph has none
            modules[name] = nn.Module()
            graph.add_submodule(name, modules[name])  # type: ignore[operator]
        for kind, found in hooks.items():
            own = getattr(modules[name], kind)
            own.update({key: theirs(hook, module) for key, hook in found.items() if key not in own})
        if _has_extra(module) and not _has_extra(modules[name]):  # the same module says it itself
            _keep_extra(module, modules[name])


def _has_extra(module: nn.Module) -> bool:
    """Has its class something to say in a state besides tensors?"""
    return type(module).get_extra_state is not nn.Module.get_extra_state


def _keep_extra(of: nn.Module, at: nn.Module) -> None:
    """Has a graph's module write what the model's says besides tensors, and give it back when it loads."""

    def write(_: nn.Module, state: dict[str, Any], prefix: str, notes: Any) -> None:
        state[prefix + _EXTRA] = of.get_extra_state()

    def read(state: Any, prefix: str, *notes: Any) -> None:
        _, strict, missing, *_ = notes
        if prefix + _EXTRA in state:
            of.set_extra_state(state.pop(prefix + _EXTRA))
        elif strict:
            missing.append(prefix + _EXTRA)

    at.register_state_dict_post_hook(write)
    at._register_load_state_dict_pre_hook(read)  # one without a reference that may die


def _of_model(hook: Any, module: nn.Module) -> Any:
    """A hook that is called with the model's module, whose attributes and methods a graph's has not."""
    if isinstance(hook, nn.modules.module._WrappedHook):  # it knows its module, by a reference that may die

        def before(*args: Any) -> Any:
            return hook.hook(module, *args) if hook.with_module else hook.hook(*args)

        return before

    def called(_: nn.Module, *rest: Any) -> Any:
        return hook(module, *rest)

    called._from_public_api = getattr(hook, "_from_public_api", False)  # type: ignore[attr-defined]
    return called


def wrap(model: nn.Module, plan: Plan, quantizers: dict[Any, nn.Module], dynamic: bool = True) -> GraphModule:
    """Returns the model as a graph that reads and computes as planned.

    quantizers: of each planned parameter, by its first name, and of each site.  dynamic: sizes of the example
    may be others later.  Raises NumericsError for a model that is no graph, and for what is planned and not
    found in it.
    """
    _check(model, plan)
    found = exported.export(model, plan.example, dynamic)
    root = QuantizedGraph(found, found.graph, type(model).__name__)  # torch's own is not copied, not pickled
    if any(isinstance(module, _BY_MODE) for module in model.modules()):
        root.meta[TRAINING] = model.training
    root.meta[TRAINED] = any(module.training for module in model.modules())
    names = root.graph._codegen.pytree_info.orig_args  # type: ignore[attr-defined]
    root.meta[ARGUMENTS] = arguments_of(model, names, arguments(plan.example))
    root.training = model.training
    _keep_hooks(model, root, _of_model)
    writer = _Writer(root, plan, quantizers)
    writer.sites(model)
    writer.parameters()
    missing = writer.missing()
    if missing:
        raise NumericsError(
            f"planned, and not found in the graph: {', '.join(missing[:8])}; torch.export has it elsewhere "
            "or not at all (what torch.compiler.nested_compile_region marks loses its modules): "
            "mode='eager_mode' takes this model"
        )
    _without_copies(root)
    for graph in exported.graphs(root):
        graph.graph.lint()
        graph.recompile()
    return root


def _check(model: nn.Module, plan: Plan) -> None:
    """Raises NumericsError without an example, and for a model with the name under which quantizers are."""
    if plan.example is None:
        raise NumericsError(
            "mode='fx_graph_mode' needs a plan with an example: nx.plan(model, ..., example=...)"
        )
    if hasattr(model, QUANTIZERS):
        raise NumericsError(
            f"this {type(model).__name__} has a {QUANTIZERS!r} of its own, which is what the graph calls its "
            "quantizers; give it another name, or mode='eager_mode'"
        )


class _Writer:
    """Puts quantizers into a graph and those nested in it."""

    def __init__(self, root: GraphModule, plan: Plan, quantizers: dict[Any, nn.Module]) -> None:
        self.root, self.plan, self.quantizers = root, plan, quantizers
        self.made: set[Any] = set()
        self.names, self.held = in_graph(plan), set[str]()
        self.leaving: dict[Node, Node] = {}
        root.add_module(QUANTIZERS, nn.Module())

    def sites(self, model: nn.Module) -> None:
        """Quantizes what goes into products, and what comes out."""
        planned = self.plan.sites
        for made in list(exported.products(self.root, model)):
            for place, came, _ in made.factors:
                site = made.site._replace(place=place)
                row = planned.get(site)
                if row is not None and isinstance(came, Node):
                    self._before(made.graph.module, made.node, came, site, row)
            site = made.site._replace(place=OUT)
            if site in planned:
                self._after(made.graph.module, made.node, site, planned[site])

    def _before(self, at: GraphModule, node: Node, came: Node, site: Site, row: Row) -> None:
        came = self.leaving.get(came, came)  # what leaves another product quantized
        with at.graph.inserting_before(node):
            put = self._call(at, came, site, row.name)
        place = _place_of(node, came, site)
        node.update_arg(place, put) if place is not None else node.replace_input_with(came, put)
        self.made.add(site)

    def _after(self, at: GraphModule, node: Node, site: Site, row: Row) -> None:
        with at.graph.inserting_after(node):
            put = self._call(at, node, site, row.name)
        node.replace_all_uses_with(put, delete_user_cb=lambda user: user is not put)
        self.leaving[node] = put
        self.made.add(site)

    def parameters(self) -> None:
        """Quantizes parameters where the graph fetches them."""
        planned = self.plan.parameters
        for node in list(self.root.graph.nodes):
            row = planned.get(node.target) if node.op == "get_attr" else None
            if row is not None:
                with self.root.graph.inserting_after(node):
                    put = self._call(self.root, node, row.name, row.name)
                node.replace_all_uses_with(put, delete_user_cb=lambda user, put=put: user is not put)
                self.made.add(row.name)

    def missing(self) -> list[str]:
        """What is planned and was not met."""
        due = {row.name for row in self.plan.parameters.values()} | set(self.plan.sites)
        return sorted(map(str, due - self.made))

    def _call(self, at: GraphModule, came: Node, key: Any, name: str) -> Node:
        """A call of a quantizer: as an operator where it has no state, so that equal ones are found.

        One that loses negative values says so, and is called itself where a graph may have modules.
        """
        quantizer = self.quantizers[key]
        if type(quantizer) is Quantizer and not (quantizer.spec.clips and at is self.root):
            put = at.graph.call_function(torch.ops.numerics.fake_quantize.default, (came, quantizer.text))
            if at is self.root:
                self._held(quantizer, name)
        else:
            put = at.graph.call_module(self._target(at, quantizer, name), (came,))
        put.meta = {k: v for k, v in came.meta.items() if k in ("val", "nn_module_stack", "stack_trace")}
        return put

    def _held(self, quantizer: nn.Module, name: str) -> str:
        """Its name under QUANTIZERS, once."""
        if name not in self.held:
            self.root.get_submodule(QUANTIZERS).add_module(self.names[name], quantizer)
            self.held.add(name)
        return self.names[name]

    def _target(self, at: GraphModule, quantizer: nn.Module, name: str) -> str:
        attribute = self._held(quantizer, name)
        if at is not self.root:  # a nested graph has attributes of its own
            if QUANTIZERS not in at._modules:
                at.add_module(QUANTIZERS, nn.Module())
                with at.graph.inserting_before(next(x for x in at.graph.nodes if x.op != "placeholder")):
                    at.graph.call_function(check_exporting, (name,))
            at.get_submodule(QUANTIZERS).add_module(attribute, quantizer)
        return f"{QUANTIZERS}.{attribute}"


def _place_of(node: Node, came: Node, site: Site) -> int | None:
    """Where in the arguments of a node that factor stands alone; None in a list, or by name."""
    if site.operation == "einsum":
        return None
    return site.place if site.place < len(node.args) and node.args[site.place] is came else None


def _without_copies(root: GraphModule) -> None:
    """Calls a quantizer once for each of its inputs, such as one that three products take."""
    for graph in exported.graphs(root):
        alike: dict[tuple[Any, ...], Node] = {}
        for node in list(graph.graph.nodes):
            if node.op != "call_function" or node.target is not torch.ops.numerics.fake_quantize.default:
                continue
            first = alike.setdefault(node.args, node)
            if first is not node:
                node.replace_all_uses_with(first)
                graph.graph.erase_node(node)


def freeze(root: GraphModule, packed: dict[int, Tensor]) -> None:
    """Puts what is packed, by the identity of the parameter, in the parameters' places."""
    with _without_torchs_own_warning():
        graph = copy.deepcopy(root.graph)  # the one that the model has stays what it is until all is done
    for node in list(graph.nodes):
        if node.op != "get_attr":
            continue
        owner_name, _, leaf = str(node.target).rpartition(".")
        owner = root.get_submodule(owner_name)
        parameter = owner._parameters.get(leaf)
        frozen = None if parameter is None else packed.get(id(parameter))
        for user in list(node.users) if frozen is not None else []:
            user.replace_all_uses_with(node)
            graph.erase_node(user)
    for module in root.modules():
        for leaf, parameter in list(module._parameters.items()):
            if parameter is not None and id(parameter) in packed:
                module._parameters[leaf] = packed[id(parameter)]  # type: ignore[assignment]
    root.graph = graph
    graph.lint()
