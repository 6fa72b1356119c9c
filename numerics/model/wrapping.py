"""wrap, calibrate, freeze, unwrap: a model that follows a plan, from its first look to packed weights."""

from __future__ import annotations

import copy
import inspect
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from numerics.files.save_load import MODEL
from numerics.formats.errors import NumericsError, one_of, said
from numerics.model import eager, graph
from numerics.model.beginning import beginning, run_every_branch
from numerics.model.folding import fold
from numerics.model.graph import STATE, QuantizedGraph
from numerics.model.places import check_finite, check_model, folded, parameters, stored
from numerics.model.places import replace as replace_tensors
from numerics.model.plan import Plan
from numerics.model.planning import plan as plan_of
from numerics.model.quantizers import QAT, Learned, Quantizer, Static, quantizer, quantizers
from numerics.model.restoring import restored
from numerics.model.sharing import share, unshare
from numerics.model.trace import arguments, as_in_use, batches_of, tensors_of
from numerics.pytorch.qtensor import TensorQTensor
from numerics.train import THRESHOLD_INIT


class State:
    """What a wrapped model was made of.

    plan: what it follows.  original: the model that was wrapped; None in what came from a pickle.  qat: what
    it learns.  frozen: what it keeps since it was frozen.
    """

    def __init__(self, plan: Plan, original: nn.Module, qat: str | None) -> None:
        self.plan, self.original, self.qat = plan, original, qat
        self.frozen: str | None = None

    def __deepcopy__(self, memo: Any) -> State:
        """A copy of a wrapped model was made of the same model."""
        found = State(self.plan, self.original, self.qat)
        found.frozen = self.frozen
        return found

    def __reduce__(self) -> Any:
        """In a pickle there is no original: what is loaded cannot be unwrapped to it."""
        return _state, (self.plan.as_dict(), self.qat, self.frozen)


def _state(plan: Any, qat: str | None, frozen: str | None) -> State:
    found = State(Plan.from_dict(plan), None, qat)  # type: ignore[arg-type]
    found.frozen = frozen
    return found


def wrap(
    model: nn.Module,
    plan: Plan | Any = None,
    *,
    qat: str | None = None,
    threshold_init: str | None = None,
    **arguments_of_plan: Any,
) -> nn.Module:
    """Returns a model that computes as a plan says: quantized parameters, inputs and outputs of products.

    model: a torch module.  It stays as it is: what comes back shares its parameters and buffers.  An
        optimizer of either changes both, and so does a forward that writes into buffers (the statistics of
        normalizations in training, caches), until a module of it is moved to another device or type.
    plan: a Plan; or the format of weights and the other arguments of `plan`, to make one.  Beside a Plan,
        example= alone can be given: one from a file has none, and graph mode needs it.
    qat: what the quantizers learn in training.  None (the default) and ste: nothing of their own, gradients
        pass straight through; tqt: thresholds, by powers of two; lsq: scales.  tqt and lsq learn for the
        integer formats of the plan; its other formats are straight through.
    threshold_init: where the thresholds of tqt begin: _3SD (weights, by default), _LL_J or _KL_J
        (activations).

    Weights' thresholds begin with the weights, those of activations with the plan's example.  In graph mode
    a torch.fx.GraphModule comes back, of the model in evaluation unless qat is given.

    Raises NumericsError for a plan that quantizes nothing or is of another model, for options without effect,
    for NaN and Inf in what is to be quantized, and for sites that the mode does not reach.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 4))
    >>> x = torch.linspace(-1, 1, 64).reshape(1, 64)
    >>> wrapped = wrap(model, "mxfp4", activations="mxfp8_e4m3", example=x)
    >>> bool((wrapped(x) != model(x)).all()), wrapped[0].weight.shape, list(wrapped.state_dict())
    (True, torch.Size([4, 64]), ['0.weight', '0.bias'])
    """
    made = _plan(model, plan, arguments_of_plan)
    if qat is not None:
        qat = str(one_of("qat", qat, QAT))
    if threshold_init is not None:
        threshold_init = str(one_of("threshold initialization", threshold_init, THRESHOLD_INIT))
    _check_finite(model, made)
    return _wrapped(model, made, qat, threshold_init)


def _check_finite(model: nn.Module, plan: Plan) -> None:
    """Raises NumericsError for NaN and Inf in planned parameters: integers have no code for them."""
    places = parameters(model)
    for row in plan.rows:
        if row.kind == "parameter" and row.spec is not None:
            check_finite(row.name, places[row.name].tensor)


def _wrapped(
    model: nn.Module, made: Plan, qat: str | None = None, threshold_init: str | None = None,
    inplace: bool = False,
) -> nn.Module:  # fmt: skip
    """The model by a plan: a copy of its modules, or itself."""
    _check(model, made, qat, threshold_init)
    if is_wrapped(model):
        raise NumericsError("this model is wrapped already; nx.unwrap(model) gives back what it was")
    inner = [name for name, module in model.named_modules() if is_wrapped(module)]
    if inner:
        raise NumericsError(
            f"{', '.join(inner[:4])} of this model is wrapped already, by a plan of its own; put what "
            "nx.unwrap gives in its place, and give its formats as rules"
        )
    copied = model if inplace else shared_copy(model)
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
    _notes(wrapped)[STATE] = State(made, model, qat)
    if not inplace:
        share(wrapped, model)
    _begin_activations(wrapped, every, made, model)
    return wrapped


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
        came.check_model(model)
        return came if example is None else replace(came, example=example)
    for name in options:
        one_of("argument of wrap", name, _ARGUMENTS)
    if came is not None and "weights" in options:
        raise NumericsError(f"weights= beside {said(came)}, which is the format of weights: give one of them")
    return plan_of(model, came, **options) if came is not None else plan_of(model, **options)


def _check(model: nn.Module, plan: Plan, qat: str | None, threshold_init: str | None) -> None:
    planned = [row for row in plan.rows if row.spec is not None]
    if not planned:
        raise NumericsError(
            f"this plan quantizes nothing: {plan.summary}; give weights=, activations= or rules="
        )
    if qat in ("tqt", "lsq") and not any(row.spec and row.spec.dtype.kind == "integer" for row in planned):
        formats = ", ".join(sorted({row.spec.dtype.name for row in planned if row.spec}))
        raise NumericsError(f"qat={qat!r} learns scales of integer formats, and this plan has {formats} only")
    if threshold_init is not None and qat != "tqt":
        raise NumericsError(f"threshold_init={threshold_init!r} belongs to qat='tqt', not to qat={qat!r}")


def shared_copy(model: nn.Module) -> nn.Module:
    """A copy of the modules that shares parameters and buffers; raises NumericsError where there is none."""
    tensors = [*model.parameters(), *model.buffers()]
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
    """The thresholds of what is computed begin with the example, those of branches that it skips too."""
    waiting = _waiting(wrapped)
    if not waiting or plan.example is None:
        return
    with beginning(waiting):
        if isinstance(wrapped, QuantizedGraph):
            with restored(original):
                run_every_branch(wrapped, arguments(plan.example))
            return
        with restored(wrapped, quantizers(wrapped)):
            run(wrapped, plan.example)
        if _waiting(wrapped) and any(row.kind == "module" for row in plan.rows):  # regions are among them
            with restored(original):
                run_every_branch(_graph_of(original, plan, every), arguments(plan.example))


def _waiting(model: nn.Module) -> list[Learned]:
    """What has no threshold yet."""
    return [one for one in quantizers(model) if isinstance(one, Learned) and not one.learns.initialized]


def _graph_of(original: nn.Module, plan: Plan, every: dict[Any, nn.Module]) -> GraphModule:
    """The float model as a graph with the quantizers of an eager one."""
    copied = shared_copy(original)
    fold(copied, plan.fold)
    return graph.wrap(copied, plan, every, dynamic=False)


def run(model: nn.Module, batch: Any) -> Any:
    """What a model makes of a batch, in evaluation, without gradients; a graph has its mode for good.

    Raises NumericsError, with the module, where the model does not run on it.
    """
    args, kwargs = arguments(batch)
    with named_failure(model):
        if isinstance(model, QuantizedGraph):
            with torch.no_grad():
                return model(*args, **kwargs)
        with as_in_use(model):
            return model(*args, **kwargs)


@contextmanager
def named_failure(model: nn.Module) -> Iterator[None]:
    """Says of what a model raises inside in which of its modules that was, as a NumericsError."""
    try:
        yield
    except NumericsError:
        raise
    except Exception as wrong:
        words = " ".join(str(wrong).split())
        raise NumericsError(
            f"the model does not run on this batch: {type(wrong).__name__} in "
            f"{_innermost(model, wrong) or 'its own forward'}: {words:.300}; a batch is what the model is "
            "called with: (a, b) is model(a, b), a mapping gives arguments by name"
        ) from wrong


def _innermost(model: nn.Module, wrong: Exception) -> str:
    """The name of the module whose method raised, the innermost that the model has."""
    names = {id(module): name for name, module in model.named_modules()}
    found, at = "", wrong.__traceback__
    while at is not None:
        found = names.get(id(at.tb_frame.f_locals.get("self")), found)
        at = at.tb_next
    return found


def _notes(model: nn.Module) -> dict[str, Any]:
    """Where a model keeps what it was made of: a graph copies and pickles nothing else but `meta`."""
    return model.meta if isinstance(model, QuantizedGraph) else model.__dict__


def state_of(model: Any) -> State:
    """What a wrapped model was made of; raises NumericsError for another."""
    found = _notes(model).get(STATE) if isinstance(model, nn.Module) else None
    if not isinstance(found, State):
        raise NumericsError(
            f"this {type(model).__name__} is not wrapped: nx.wrap(model, ...) makes one that is"
        )
    return found


# ---- calibrating ----------------------------------------------------------------------------------


def calibrate(model: nn.Module, batches: Iterable[Any]) -> nn.Module:
    """Runs batches through a wrapped model to find the scales that observers are planned for; returns it.

    model: what `wrap` returned.
    batches: each what the model is called with: a tuple of arguments, a mapping of named ones, or one tensor.
    What is observed passes unquantized meanwhile; the rest is quantized.  Scales that are learned begin with
    the first batch where the example has not given them.

    Called again, it finds the scales anew, of those batches alone: observers begin from nothing.

    Raises NumericsError for a frozen model, whose scales are fixed, where nothing waits for a scale, where no
    batch came or none reached an observer, and for NaN, in a batch or where an observer sees it.  Then the
    model is as it was before.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4))
    >>> x = torch.linspace(-1, 1, 8).reshape(1, 8)
    >>> wrapped = wrap(model, "int8", activations="int8", observer="min_max", example=x)
    >>> float(calibrate(wrapped, [x, 2 * x])[0].quantize_linear_0.scale)
    0.015748031437397003
    """
    if state_of(model).frozen:
        raise NumericsError(
            "this model is frozen, and so are its scales; nx.wrap(float_model, plan) makes one to calibrate "
            "with other batches"
        )
    every = quantizers(model)
    static = [one for one in every if isinstance(one, Static) and one.observed_by is not None]
    learned = _waiting(model)
    if not static and not learned:
        raise NumericsError(
            "nothing waits for a scale: no activation of this model has an observer; "
            "nx.wrap(model, ..., observer='min_max') plans them"
        )
    before = [(one, one.ready, dict(one._buffers.items())) for one in static]
    for one in static:
        one.watch()
    try:
        with beginning(learned):
            _run_all(model, batches)
        _check_watched(static)
        for one in static:
            one.found()
    except BaseException:
        for one, ready, buffers in before:
            one.watching, one.ready = None, ready
            one._buffers.update(buffers)
        raise
    return model


def _run_all(model: nn.Module, batches: Iterable[Any]) -> None:
    for count, batch in enumerate(batches_of(batches)):
        every = tensors_of(arguments(batch))
        for x in every:
            if x.is_floating_point() and not x.is_meta and bool(torch.isnan(x).any()):
                raise NumericsError(f"batch {count} has NaN: no scale can be found from it")
        empty = [x for x in every if x.numel() == 0]
        if any(x.is_floating_point() for x in empty) or (empty and len(empty) == len(every)):
            raise NumericsError(f"batch {count} is empty: its shape is {tuple(empty[0].shape)}")
        run(model, batch)


def _check_watched(static: list[Static]) -> None:
    never = [one.name for one in static if one.watching is not None and not one.watching.batches]
    if never:
        raise NumericsError(f"no batch reached {', '.join(never[:6])}{' ...' if never[6:] else ''}")


# ---- freezing -------------------------------------------------------------------------------------

KEEP = ("packed", "values")


def freeze(model: nn.Module, keep: str = "packed") -> nn.Module:
    """Packs the planned parameters of a wrapped model, in place, and returns it; their values stay the same.

    keep: packed (the default): parameters become QTensors, which take as many bytes as the plan says;
        products read their codes and sum in an order of their own (`nx.linear`), so results differ in the
        last digits, but within `nx.decoded_products()`.  values: they stay dense, with the quantized values,
        and the bits that come out are the wrapped model's.
    Learned scales become fixed.  What is tied stays tied.  The float parameters are gone from this model (the
    one that was wrapped has them), and nothing in it is trained by its weights any more.
    Raises NumericsError for a model that is not wrapped or is frozen, and where a scale was never found.

    >>> import torch
    >>> frozen = freeze(wrap(torch.nn.Sequential(torch.nn.Linear(64, 4)), "mxfp4"))
    >>> frozen
    Sequential(
      (0): Linear(in_features=64, out_features=4, bias=True, weight=mxfp4)
    )
    """
    state = state_of(model)
    keep = str(one_of("keep", keep, KEEP))
    if state.frozen:
        raise NumericsError("this model is frozen already")
    waiting = [one.name for one in quantizers(model) if _waits(one)]
    if waiting:
        raise NumericsError(
            f"{', '.join(waiting[:6])}{' ...' if waiting[6:] else ''} never got a scale: "
            "nx.calibrate(model, batches) before freezing"
        )
    by_identity = _packed(model, state.plan, keep)
    mode = graph if isinstance(model, QuantizedGraph) else eager
    mode.freeze(model, by_identity)  # type: ignore[arg-type]
    _fix(model)
    state.frozen = keep
    model.register_state_dict_post_hook(_say_in_state)
    return model


def _waits(one: Any) -> bool:
    if isinstance(one, Learned):
        return not one.learns.initialized
    return isinstance(one, Static) and not one.ready


def _packed(model: nn.Module, plan: Plan, keep: str) -> dict[int, Tensor]:
    """For the identity of each planned parameter what takes its place."""
    found: dict[int, Tensor] = {}
    holders = _holders(model, plan)
    for name in plan.parameters:
        if name not in holders:
            continue
        parameter, one = holders[name]
        if id(parameter) in found:
            continue
        check_finite(name, parameter)
        q = one.quantize(parameter.detach())
        values = q if keep == "packed" else q.dequantize()
        found[id(parameter)] = nn.Parameter(values, requires_grad=False)  # type: ignore[arg-type]
    return found


def _holders(model: nn.Module, plan: Plan) -> dict[str, tuple[Tensor, Any]]:
    """The planned parameters by name, each with its quantizer."""
    if isinstance(model, QuantizedGraph):
        by_name = {one.name: one for one in quantizers(model)}
        first = {name: row.name for name, row in plan.parameters.items()}
        return {name: (model.get_parameter(name), by_name[first[name]])
                for name, _ in model.named_parameters(remove_duplicate=False) if name in first}  # fmt: skip
    found = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for leaf in getattr(module, "_leaves", ()):
            name = f"{prefix}.{leaf}" if prefix else leaf
            found[name] = (module._parameters[leaf], module._modules[f"quantize_{leaf}"])
    return found  # type: ignore[return-value]


def _say_in_state(model: nn.Module, _: Any, prefix: str, local: dict[str, Any]) -> None:
    """A hook of state_dict(): a frozen model says there what it was made of, for `nx.save`."""
    state = _notes(model).get(STATE)
    if isinstance(state, State) and state.frozen and not prefix:
        said = {"plan": state.plan.as_dict(), "qat": state.qat, "frozen": state.frozen}
        local[MODEL] = json.dumps(said, separators=(",", ":"))


def frozen_from(model: nn.Module, text: str, tensors: Mapping[str, Tensor], example: Any) -> nn.Module:
    """A float model frozen as `_say_in_state` said, with these parameters; in place in eager mode, unfolded.

    Everything else of the state is still the float model's, and its scales are unknown.  Raises
    NumericsError for a text that says something else, and for a plan of another model.
    """
    plan, qat, frozen = _said(text)
    plan.check_model(model)
    plan.example = example
    if plan.mode == "fx_graph_mode" and example is None:
        raise NumericsError("the file is of a model in graph mode: give example=, what it is called with")
    missing = [name for name in plan.parameters if name not in tensors]
    if missing:
        raise NumericsError(f"the file says that it has {folded(missing)}, and has not")
    wrapped = _wrapped(model, plan, qat, inplace=plan.mode == "eager_mode" and not plan.fold)
    by_identity: dict[int, Tensor] = {}
    for name, (parameter, _) in _holders(wrapped, plan).items():
        by_identity.setdefault(id(parameter), nn.Parameter(tensors[name], requires_grad=False))
    mode = graph if isinstance(wrapped, QuantizedGraph) else eager
    mode.freeze(wrapped, by_identity)  # type: ignore[arg-type]
    _fix(wrapped)
    packed = any(isinstance(tensors[name], TensorQTensor) for name in plan.parameters)
    state_of(wrapped).frozen = frozen if packed else "values"  # `numerics dequantize` was there
    wrapped.register_state_dict_post_hook(_say_in_state)
    return wrapped


def computes(text: str) -> bool:
    """Does the plan of that text quantize more than parameters, or fold normalizations?"""
    plan, _, _ = _said(text)
    return bool(plan.sites or plan.fold or any(row.kind == "cache" and row.spec for row in plan.rows))


def is_wrapped(model: nn.Module) -> bool:
    """Was the model made by `wrap`?"""
    return STATE in _notes(model)


def thaw(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Makes a model that `frozen_from` froze in place what it was: its classes, and these tensors."""
    if isinstance(model, QuantizedGraph) or state_of(model).plan.fold:  # another than the float one
        return
    del _notes(model)[STATE]
    eager.unwrap(model)
    for name, place in stored(model).items():
        if place.tensor is not tensors[name]:
            setattr(place.module, place.leaf, tensors[name])


def _said(text: str) -> tuple[Plan, str | None, str]:
    try:
        came = json.loads(text)
        plan, qat, frozen = Plan.from_dict(came["plan"]), came["qat"], came["frozen"]
    except (ValueError, KeyError, TypeError, RecursionError) as wrong:
        raise NumericsError(f"what the file says of its model is no plan: {said(str(wrong))}") from None
    if qat is not None:
        one_of("qat", qat, QAT)
    return plan, qat, one_of("frozen", frozen, KEEP)


def _fix(model: nn.Module) -> None:
    """What is learned becomes what it is."""
    fixed: dict[int, Static] = {}
    for module in list(model.modules()):
        for name, one in list(module._modules.items()):
            if isinstance(one, Learned):
                module._modules[name] = fixed.setdefault(id(one), one.fixed())


def unwrap(model: nn.Module) -> nn.Module:
    """Returns the float model of a wrapped one: its own tensors, its own classes.

    In eager mode that is the wrapped model itself, whose quantizers are gone; in graph mode, and where
    normalizations were folded, the model that was wrapped, or, where a graph was moved and has parameters of
    its own, a copy of that with these.  Raises NumericsError for one that is not wrapped, for a frozen one,
    whose float parameters are gone, and for a folded one that was trained.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(32, 4))
    >>> weight = model[0].weight
    >>> unwrap(wrap(model, "mxfp4", example=torch.ones(1, 32)))[0].weight is weight
    True
    """
    state = state_of(model)
    if state.frozen:
        raise NumericsError(
            "this model is frozen: its float parameters are gone; the model that was wrapped has them"
        )
    if isinstance(model, QuantizedGraph) or state.plan.fold:
        if state.original is None:
            raise NumericsError("this model came from a pickle: the model that was wrapped is not with it")
        return _original(model, state.original, state.plan)
    del _notes(model)[STATE]
    unshare(model)
    return eager.unwrap(model)


def _original(model: nn.Module, original: nn.Module, plan: Plan) -> nn.Module:
    """The model that was wrapped; a copy of it with the tensors of this one, where those are others."""
    made = shared_copy(original)
    fold(made, plan.fold)
    places = stored(made)
    tensors = (*model.named_parameters(), *model.named_buffers())
    own = {name: x for name, x in tensors if name in places}
    alike = {name for name, x in own.items() if _equal(x, places[name].tensor)}
    if len(alike) == len(own):
        return original
    if plan.fold:
        changed = next(name for name in own if name not in alike)
        raise NumericsError(
            f"{changed} is not what folding makes of the model that was wrapped: it was trained or moved "
            "since, and a folded normalization is not taken apart again; nx.freeze(model) packs what was "
            "trained, model.state_dict() has it in floats"
        )
    swaps: dict[int, Any] = {id(places[name].tensor): x for name, x in own.items()}
    replace_tensors(places.values(), swaps)
    return made


def _equal(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.dtype == b.dtype and a.device == b.device and torch.equal(a, b))


def quantize_(
    model: nn.Module, dtype: Any, *, rules: Any = None, example: Any = None, biases: Any = None
) -> nn.Module:
    """Packs the weights of a model in place: plan, wrap and freeze in one; prints the plan's last line.

    model: a torch module.  dtype: a format, its name, or a QuantSpec.  rules, example, biases: as for `plan`.
    Returns the model.  Raises NumericsError as those do.

    >>> import torch
    >>> model = quantize_(torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Linear(32, 4)), "mxfp4")
    2 of 4 tensors quantized (2 mxfp4), 98.4% of all values; 8848 bytes become 1300 bytes
    >>> type(model[0].weight).__name__, model[0].weight.spec
    ('TensorQTensor', QuantSpec('mxfp4'))
    """
    made = plan_of(model, dtype, rules=rules, example=example, biases=biases)
    _check_finite(model, made)
    frozen = freeze(_wrapped(model, made, inplace=True))
    print(made.summary)
    return frozen
