"""wrap: a model that computes as a plan says."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from torch import nn
from torch.fx import GraphModule

from numerics.formats.arguments import keywords, unknown_argument
from numerics.formats.errors import NumericsError, one_of, said
from numerics.model.deciding.plan import Plan
from numerics.model.folding import fold
from numerics.model.looking.places import check_finite, check_model, parameters
from numerics.model.looking.restoring import restored
from numerics.model.looking.trace import arguments, named_tensors
from numerics.model.planning import check_plan
from numerics.model.planning import plan as plan_of
from numerics.model.wrapped import eager, graph
from numerics.model.wrapped.aside import HELD, Memory, ReadAside, beside_modules, held_in, planned_in
from numerics.model.wrapped.beginning import beginning, passing, run_every_branch
from numerics.model.wrapped.graph import TRAINED, QuantizedGraph
from numerics.model.wrapped.quantizers import (
    LEARNED,
    QAT,
    Learned,
    Quantizer,
    Static,
    learnable,
    quantizer,
    quantizers,
    unbegun,
)
from numerics.model.wrapped.running import run
from numerics.model.wrapped.sharing import share
from numerics.model.wrapped.state import STATE, State, check_unwrapped, notes_of, original_of, state_of
from numerics.model.wrapped.structure import know
from numerics.train import THRESHOLD_INIT
from numerics.view.text import folded


@keywords
def wrap(
    model: nn.Module,
    plan: Plan | Any = None,
    activations: Any = None,
    *,
    qat: str | None = None,
    threshold_init: str | None = None,
    **arguments_of_plan: Any,
) -> nn.Module:
    """Returns a model that computes as a plan says: quantized parameters, inputs and outputs of products.

    model: a torch module.  It stays as it is: what comes back shares its parameters and buffers.  An
        optimizer of either changes both, and so does a forward that writes into buffers (the statistics of
        normalizations in training, caches), until a module of it is moved to another device or type.
    plan: a Plan; or the format of weights, and with it the other arguments of `plan` in their places and by
        their names, to make one: `wrap(model, "mxfp4", "mxfp8_e4m3", example=x)`.  Beside a Plan, example=
        alone can be given: one from a file has none, and graph mode needs it.
    activations: as for `plan`.
    qat: what the quantizers learn in training.  None (the default) and ste: nothing of their own, gradients
        pass straight through; tqt: thresholds of integers, by powers of two; lsq: scales of integers,
        floats and codebooks, and the tensor scale of blocks that have one, such as nvfp4.  Under tqt and lsq
        gradients pass straight through all other formats, such as mxfp4, whose blocks find their scales.
    threshold_init: where the thresholds of tqt begin: _3SD (weights, by default), _LL_J or _KL_J
        (activations).

    Weights' thresholds begin with the weights, those of activations with the plan's example, or,
    where others are observed, with the first batch of `calibrate`.  In graph mode
    a torch.fx.GraphModule comes back, of the model in evaluation unless qat is given.

    Raises NumericsError for a plan that quantizes nothing or is of another model, for options without effect,
    for NaN and Inf in what is to be quantized, and for sites that the mode does not reach.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 4))
    >>> x = torch.linspace(-1, 1, 64).reshape(1, 64)
    >>> wrapped = wrap(model, "mxfp4", "mxfp8_e4m3", example=x)
    >>> bool((wrapped(x) != model(x)).all()), wrapped[0].weight.shape, list(wrapped.state_dict())
    (True, torch.Size([4, 64]), ['0.weight', '0.bias'])
    """
    beside = {} if activations is None else {"activations": activations}
    made = _plan(model, plan, beside | arguments_of_plan)
    if qat is not None:
        qat = str(one_of("qat", qat, QAT))
    if threshold_init is not None:
        threshold_init = str(one_of("threshold initialization", threshold_init, THRESHOLD_INIT))
    _check_observers(made, qat)
    check_parameters(model, made)
    return wrapped_by(model, made, qat, threshold_init)


def _check_observers(plan: Plan, qat: str | None) -> None:
    """Raises NumericsError for an observer whose scales are all learned: nothing would be left of it."""
    rows = [row for row in plan.rows if row.spec is not None and row.observer is not None]
    acting = {row.observer for row in rows if row.spec and not learnable(row.spec, qat)}
    inert = [row for row in rows if row.observer not in acting]
    if inert:
        raise NumericsError(
            f"observer={inert[0].observer!r} finds scales in nx.calibrate, and qat={qat!r} learns that of "
            f"{folded([row.name for row in inert])}: plan without it (rules can give one to what is not "
            "learned), or qat='ste' keeps it"
        )


def check_parameters(model: nn.Module, plan: Plan) -> None:
    """Raises NumericsError for NaN and Inf in planned parameters: integers have no code for them."""
    places = parameters(model)
    for row in plan.rows:
        if row.kind == "parameter" and row.spec is not None:
            check_finite(row.name, places[row.name].tensor)


def wrapped_by(
    model: nn.Module, made: Plan, qat: str | None = None, threshold_init: str | None = None,
    inplace: bool = False,
) -> nn.Module:  # fmt: skip
    """The model by a plan: a copy of its modules, or itself."""
    _check(model, made, qat, threshold_init)
    check_unwrapped(model)
    copied = model if inplace else shared_copy(model)
    held = held_in(copied, planned_in(copied, made))
    if made.fold:
        fold(copied, made.fold)
    every: dict[Any, nn.Module] = {row.name: quantizer(row, qat, threshold_init) for row in made.rows
                                   if row.kind == "parameter" and row.spec}  # fmt: skip
    every |= _of_sites(made, qat, threshold_init)
    _begin_weights(copied, every)
    if made.mode == "fx_graph_mode":
        wrapped = _graph(copied, made, every, qat)
    else:
        _check_classes(copied)
        wrapped = eager.wrap(copied, made, every)
        if held:
            wrapped.__dict__[HELD] = held
    notes_of(wrapped)[STATE] = State(made, model, qat)
    know(wrapped)
    if not inplace:
        share(wrapped, model)
    _check_reads(wrapped, every, made)
    _begin_activations(wrapped, every, made, model)
    return wrapped


def _check_reads(wrapped: nn.Module, every: dict[Any, nn.Module], plan: Plan) -> None:
    """Raises NumericsError where a forward in eager mode has planned parameters otherwise than by name.

    Without an example the first call raises it.
    """
    if isinstance(wrapped, QuantizedGraph) or plan.example is None:
        return
    try:
        with passing(every.values()), restored(wrapped, quantizers(wrapped)):
            run(wrapped, plan.example)
    except ReadAside:
        raise
    except NumericsError:  # what else the example meets, a call of the model says
        return


def _check_classes(model: nn.Module) -> None:
    """Raises NumericsError for modules that cannot become quantized ones."""
    traced = [name for name, module in model.named_modules() if isinstance(module, GraphModule)]
    if traced:
        raise NumericsError(
            f"{traced[0] or 'this model'} is a torch.fx.GraphModule, whose class is written anew when it is "
            "copied: wrap what it was traced from; mode='fx_graph_mode' takes it as it is"
        )


def _of_sites(plan: Plan, qat: str | None, threshold_init: str | None) -> dict[Any, nn.Module]:
    """The quantizers of computed tensors by site: one for all of a group."""
    shared: dict[str, nn.Module] = {}
    for row in plan.sites.values():
        one = shared.setdefault(row.quantizer, quantizer(row, qat, threshold_init))
        if row.group and type(one) is Quantizer:
            raise NumericsError(
                f"{row.name} shares the scale of {row.group}, and each tensor would bring its own: "
                "observer='min_max' (or another) in the plan finds one, qat='tqt' or 'lsq' learns one"
            )
    return {site: shared[row.quantizer] for site, row in plan.sites.items()}


def _graph(copied: nn.Module, made: Plan, every: dict[Any, nn.Module], qat: str | None) -> nn.Module:
    """The graph: what is not trained is of the model in evaluation."""
    modes = {module: module.training for module in copied.modules()}
    if qat is None:
        copied.eval()
    try:
        return graph.wrap(copied, made, every)
    finally:
        for module, training in modes.items():
            module.training = training


_ARGUMENTS = tuple(inspect.signature(plan_of).parameters)[1:]


def _plan(model: nn.Module, came: Any, options: dict[str, Any]) -> Plan:
    check_model("wrap", model)
    if isinstance(came, Plan):
        example = options.pop("example", None)
        if options:
            raise NumericsError(
                f"{', '.join(options)} beside a Plan, which says it all: nx.plan(model, ...) anew"
            )
        check_plan(model, came, came.example if example is None else example)
        return came if example is None else replace(came, example=example)
    if unknown := [name for name in options if name not in _ARGUMENTS]:
        raise unknown_argument(wrap, unknown, also=_ARGUMENTS)
    if came is not None and "weights" in options:
        raise NumericsError(f"weights= beside {said(came)}, which is the format of weights: give one of them")
    return plan_of(model, came, **options) if came is not None else plan_of(model, **options)


def _check(model: nn.Module, plan: Plan, qat: str | None, threshold_init: str | None) -> None:
    planned = [row for row in plan.rows if row.spec is not None]
    if not planned:
        raise NumericsError(
            f"this plan quantizes nothing: {plan.summary}; give weights=, activations= or rules="
        )
    if qat in LEARNED and not any(row.spec and learnable(row.spec, qat) for row in planned):
        formats = ", ".join(sorted({row.spec.dtype.name for row in planned if row.spec}))
        raise NumericsError(
            f"qat={qat!r} learns scales of {LEARNED[qat]}, and this plan has {formats} only; "
            "qat='ste' trains the weights of every format"
        )
    if threshold_init is not None and qat != "tqt":
        raise NumericsError(f"threshold_init={threshold_init!r} belongs to qat='tqt', not to qat={qat!r}")


def shared_copy(model: nn.Module) -> nn.Module:
    """A copy of the modules that shares parameters and buffers; raises NumericsError where there is none."""
    tensors = [*model.parameters(), *model.buffers()]
    memory = Memory(("", x) for x in tensors)
    tensors += [x for x in beside_modules(model) if memory.names(x)]  # what shows them goes on to do so
    try:
        with warnings.catch_warnings():  # torch copies a kind of tree of its own graphs that it has given up
            warnings.simplefilter("ignore", FutureWarning)
            return copy.deepcopy(model, {id(x): x for x in tensors})
    except Exception as wrong:
        raise NumericsError(
            f"this {type(model).__name__} cannot be copied: {type(wrong).__name__}: {wrong}; a __deepcopy__ "
            "of what is in the way lets it be, and nx.quantize_ packs weights without a copy"
        ) from wrong


def _begin_weights(model: nn.Module, every: dict[Any, nn.Module]) -> None:
    for name, one in every.items():
        if isinstance(name, str) and isinstance(one, Learned):
            parameter = model.get_parameter(name)
            if not parameter.is_meta:
                one.begin(parameter)


def _begin_activations(
    wrapped: nn.Module, every: dict[Any, nn.Module], plan: Plan, original: nn.Module
) -> None:
    """The thresholds of what is computed begin with the example, those of branches that it skips too.

    Where something beside them is observed they wait, as that does, for the batches of `calibrate`.
    """
    learned = unbegun(wrapped)
    observed = any(isinstance(one, Static) for one in quantizers(wrapped))
    if not learned or plan.example is None or observed:
        return
    with beginning(learned):
        if isinstance(wrapped, QuantizedGraph):
            runs = _graph_of(original, plan, every) if wrapped.meta[TRAINED] else wrapped
            with restored(original):
                run_every_branch(runs, arguments(plan.example))
            return
        with restored(wrapped, quantizers(wrapped)):
            run(wrapped, plan.example)
        if unbegun(wrapped) and any(row.kind == "module" for row in plan.rows):  # regions are among them
            with restored(original):
                run_every_branch(_graph_of(original, plan, every), arguments(plan.example))


def float_of(wrapped: nn.Module) -> nn.Module:
    """The float model of a graph: a copy of what was wrapped, with the tensors that the graph has by now.

    Packed ones are not among these.  Raises NumericsError where what was wrapped is not known.
    """
    made = shared_copy(original_of(wrapped))
    fold(made, state_of(wrapped).plan.fold)
    _give(made, wrapped)
    return made


def _give(model: nn.Module, wrapped: nn.Module) -> None:
    """Gives a model the tensors that a graph of it has under their names, but for packed ones."""
    state = state_of(wrapped)
    packed = state.plan.parameters if state.frozen else {}
    own = {name: x for name, x in named_tensors(wrapped) if name not in packed}
    swaps = {id(x): own[name] for name, x in named_tensors(model) if name in own}
    for module in model.modules():
        for place in (module._parameters, module._buffers):
            for leaf, x in place.items():
                place[leaf] = swaps.get(id(x), x)  # type: ignore[assignment]


def quantizers_of(wrapped: nn.Module, plan: Plan) -> dict[Any, nn.Module]:
    """The quantizers of a graph by the names and the sites of its plan."""
    named = {one.name: one for one in quantizers(wrapped)}
    return {
        row.site if row.site is not None else row.name: named.get(
            row.quantizer, Quantizer(row.name, row.spec)
        )
        for row in plan.rows
        if row.spec is not None
    }


def packed_of(wrapped: nn.Module, names: Iterable[str]) -> dict[str, Any]:
    """What a frozen graph has in the place of planned parameters, by those of the names that these have."""
    state = state_of(wrapped)
    planned = state.plan.parameters if state.frozen else {}
    return {name: wrapped.get_parameter(planned[name].name) for name in names if name in planned}


def in_evaluation(model: nn.Module) -> nn.Module:
    """What runs where the house looks at a model: of a graph of one in training that of it in evaluation.

    It has the tensors and the quantizers of the graph that came.  Another model is what runs itself.
    """
    if not isinstance(model, QuantizedGraph) or not model.meta[TRAINED]:
        return model
    original, plan = original_of(model), state_of(model).plan
    made = _graph_of(original, plan, quantizers_of(model, plan), dynamic=True)
    own = dict(made.named_parameters(remove_duplicate=False))
    graph.freeze(made, {id(own[name]): x for name, x in packed_of(model, own).items()})
    _give(made, model)
    return made


def _graph_of(
    original: nn.Module, plan: Plan, every: dict[Any, nn.Module], dynamic: bool = False
) -> GraphModule:
    """The float model in evaluation as a graph with the quantizers of a wrapped one."""
    copied = shared_copy(original).eval()
    fold(copied, plan.fold)
    return graph.wrap(copied, plan, every, dynamic)
