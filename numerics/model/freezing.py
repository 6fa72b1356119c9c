"""freeze, unwrap, quantize_: the end of a wrapped model, in packed weights or in its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from numerics.files.save_load import MODEL
from numerics.formats.arguments import keywords, unknown_argument
from numerics.formats.errors import NumericsError, one_of, said
from numerics.model.deciding.plan import Plan
from numerics.model.folding import fold
from numerics.model.looking.places import check_finite, parameters, stored
from numerics.model.looking.places import replace as replace_tensors
from numerics.model.looking.products import CUTS
from numerics.model.looking.restoring import restored, undone
from numerics.model.planning import plan as plan_of
from numerics.model.wrapped import eager, graph
from numerics.model.wrapped.following import named_now
from numerics.model.wrapped.graph import QuantizedGraph
from numerics.model.wrapped.quantizers import QAT, Learned, Static, check_known, quantizers, waits
from numerics.model.wrapped.running import named, run
from numerics.model.wrapped.sharing import unshare
from numerics.model.wrapped.state import STATE, State, note_in, notes_of, original_of, state_in, state_of
from numerics.model.wrapped.structure import check_structure, know_tensors
from numerics.model.wrapping import check_parameters, shared_copy, wrapped_by
from numerics.pytorch.qtensor import TensorQTensor
from numerics.tensor.spec import QuantSpec
from numerics.tensor.words import OPTIONS
from numerics.view.text import folded

KEEP = ("packed", "values")


@keywords
def freeze(model: nn.Module, keep: str = "packed") -> nn.Module:
    """Packs the planned parameters of a wrapped model, in place, and returns it; their values stay the same.

    keep: packed (the default): parameters become QTensors, which take as many bytes as the plan says;
        products read their codes and sum in an order of their own (`nx.linear`), so results differ in the
        last digits, but within `nx.decoded_products()`.  values: they stay dense, with the quantized values,
        and the bits that come out are the wrapped model's.
    Learned scales become fixed.  What is tied stays tied.  The float parameters are gone from this model (the
    one that was wrapped has them), and nothing in it is trained by its weights any more.
    Raises NumericsError for a model that is not wrapped or is frozen, where a scale was never found, and
    for scales, thresholds and parameters with NaN or Inf, by their names, and for packed parameters of which
    the plan's example takes parts that cut blocks or groups.  Whatever is raised, by an
    interrupt too, the model is what it was before.

    >>> import torch, numerics as nx
    >>> frozen = nx.freeze(nx.wrap(torch.nn.Sequential(torch.nn.Linear(64, 4)), "mxfp4"))
    >>> frozen
    Sequential(
      (0): Linear(in_features=64, out_features=4, bias=True, weight=mxfp4)
    )
    """
    state = state_of(model)
    keep = str(one_of("keep", keep, KEEP))
    if state.frozen:
        raise NumericsError("this model is frozen already")
    check_structure(model, anew=True)
    waiting = [one.name for one in quantizers(model) if waits(one)]
    if waiting:
        raise NumericsError(
            f"{', '.join(waiting[:6])}{' ...' if waiting[6:] else ''} never got a scale: "
            "nx.calibrate(model, batches) first"
        )
    check_known(model)
    by_identity = _packed(model, state.plan, keep)
    with undone(model):
        _become_frozen(model, by_identity, keep)
        if keep == "packed":
            _check_cuts(model, state.plan)
    return model


def _check_cuts(model: nn.Module, plan: Plan) -> None:
    """Raises NumericsError where the example's forward takes parts of packed parameters that they have not.

    Blocks and groups are not cut: elements that share a scale stay together.
    """
    planned = [row for row in plan.rows if row.kind == "parameter" and row.spec is not None]
    cut = [row.name for row in planned if any(use.rpartition(":")[2] in CUTS for use in row.uses)]
    if not cut or plan.example is None:
        return
    try:
        with restored(model):
            run(model, plan.example)
    except NumericsError as wrong:
        raise NumericsError(
            f"{folded(cut)}: a forward takes parts of it, which it cannot of packed ones: {wrong}; "
            f"nx.freeze(model, keep='values') keeps the quantized values dense, rules={{{cut[0]!r}: None}} "
            "leaves it in floats"
        ) from None


def _become_frozen(model: nn.Module, by_identity: dict[int, Tensor], keep: str) -> None:
    """Puts these in the place of parameters, by their identity, and fixes what is learned."""
    mode = graph if isinstance(model, QuantizedGraph) else eager
    mode.freeze(model, by_identity)  # type: ignore[arg-type]
    _fix(model)
    notes_of(model)[STATE] = state_of(model).as_frozen(keep)
    know_tensors(model)
    model.register_state_dict_post_hook(_say_in_state)


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
        with named(name):
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
    for prefix, module in named_now(model):
        for leaf in getattr(type(module), "numerics_leaves", ()):
            name = f"{prefix}.{leaf}" if prefix else leaf
            found[name] = (module._parameters[leaf], module._modules[f"quantize_{leaf}"])
    return found  # type: ignore[return-value]


def _say_in_state(model: nn.Module, _: Any, prefix: str, local: dict[str, Any]) -> None:
    """A hook of state_dict(): a frozen model says there what it was made of, for `nx.save`."""
    state = None if prefix else state_in(model)
    if state is not None and state.frozen:
        text = {"plan": state.plan.as_dict(), "qat": state.qat, "frozen": state.frozen}
        local[MODEL] = json.dumps(text, separators=(",", ":"))


def frozen_from(model: nn.Module, text: str, tensors: Mapping[str, Tensor], example: Any) -> nn.Module:
    """A float model frozen as `_say_in_state` said, with these parameters; in place in eager mode, unfolded.

    Everything else of the state is still the float model's, and its scales are unknown.  Raises
    NumericsError for a text that says something else, and for a plan of another model.
    """
    plan, qat, frozen = _said_in(text)
    plan.check_model(model)
    plan.example = example
    _tie(model, plan, tensors)
    if plan.mode == "fx_graph_mode" and example is None:
        raise NumericsError("the file is of a model in graph mode: give example=, what it is called with")
    missing = [name for name in plan.parameters if name not in tensors]
    if missing:
        raise NumericsError(f"the file says that it has {folded(missing)}, and has not")
    wrapped = wrapped_by(model, plan, qat, inplace=plan.mode == "eager_mode" and not plan.fold)
    by_identity: dict[int, Tensor] = {}
    for name, (parameter, _) in _holders(wrapped, plan).items():
        by_identity.setdefault(id(parameter), nn.Parameter(tensors[name], requires_grad=False))
    packed = any(isinstance(tensors[name], TensorQTensor) for name in plan.parameters)
    _become_frozen(wrapped, by_identity, frozen if packed else "values")  # `numerics dequantize` was there
    return wrapped


def _tie(model: nn.Module, plan: Plan, tensors: Mapping[str, Tensor]) -> None:
    """Ties what the plan knows as one parameter, the file has as one, and the model has as several.

    A model comes to have several as `to("meta")` makes each place a parameter of its own.
    """
    places = parameters(model)
    for row in plan.rows:
        names = [name for name in row.names if name in places and name in tensors]
        if row.kind != "parameter" or not names:
            continue
        first, came = places[names[0]].tensor, tensors[names[0]]
        others = [places[name] for name in names[1:] if tensors[name] is came]
        same = [one for one in others if one.tensor is not first and one.tensor.shape == first.shape]
        replace_tensors(same, {id(one.tensor): cast(nn.Parameter, first) for one in same})


def computes(text: str) -> bool:
    """Does the plan of that text quantize more than parameters, or fold normalizations?"""
    return quantizes_computed(plan_said(text))


def plan_said(text: str) -> Plan:
    """The plan that a file says its model was frozen by."""
    return _said_in(text)[0]


def quantizes_computed(plan: Plan) -> bool:
    """Does a plan quantize more than parameters, or fold normalizations?"""
    return bool(plan.sites or plan.fold or any(row.kind == "cache" and row.spec for row in plan.rows))


def _said_in(text: str) -> tuple[Plan, str | None, str]:
    came, plan = note_in(text)
    qat, frozen = came.get("qat"), came.get("frozen")
    if qat is not None:
        one_of("qat", qat, QAT)
    return plan, qat, one_of("frozen", frozen, KEEP)


def _fix(model: nn.Module) -> None:
    """What is learned becomes what it is."""
    fixed: dict[int, Static] = {}
    for module in list(model.modules()):
        for name, one in list(module._modules.items()):
            if isinstance(one, Learned):
                if id(one) not in fixed:
                    with named(one.name):
                        fixed[id(one)] = one.fixed()
                module._modules[name] = fixed[id(one)]


@keywords
def unwrap(model: nn.Module) -> nn.Module:
    """Returns the float model of a wrapped one: its own tensors, its own classes.

    In eager mode that is the wrapped model itself, whose quantizers are gone; in graph mode, and where
    normalizations were folded, the model that was wrapped, or, where a graph was moved and has parameters of
    its own, a copy of that with these.  Raises NumericsError for one that is not wrapped, for a frozen one,
    whose float parameters are gone, and for a folded one that was trained.

    >>> import torch, numerics as nx
    >>> model = torch.nn.Sequential(torch.nn.Linear(32, 4))
    >>> weight = model[0].weight
    >>> nx.unwrap(nx.wrap(model, "mxfp4", example=torch.ones(1, 32)))[0].weight is weight
    True
    """
    state = state_of(model)
    if state.frozen:
        raise NumericsError(
            "this model is frozen: its float parameters are gone; the model that was wrapped has them"
        )
    if isinstance(model, QuantizedGraph) or state.plan.fold:
        _check_rebuilt(state)
        return _original(model, original_of(model), state.plan)
    with undone(model):
        del notes_of(model)[STATE]
        unshare(model)
        return eager.unwrap(model)


def _check_rebuilt(state: State) -> None:
    """Raises NumericsError where a model has other modules than it was wrapped with: they would be lost."""
    here, there = ({name for row in plan.rows for name in row.names} for plan in (state.plan, state.planned))
    if here != there:
        raise NumericsError(
            f"{folded(sorted(here - there) or sorted(there - here))}: this model has other modules than when "
            "it was wrapped, and its normalizations were folded: what was wrapped would come back, without "
            "the change; nx.wrap without fold= makes a model that is unwrapped with it"
        )


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


_ELSEWHERE = {
    **dict.fromkeys(
        ("activations", "outputs", "mode", "observer", "caches", "fold", "qat"),
        "quantize_ packs weights alone; nx.freeze(nx.wrap(model, {dtype!r}, {name}=...)) does both, with "
        "nx.calibrate between them where an observer is due",
    ),
    **dict.fromkeys(
        ("exclude", "skip", "modules_to_not_convert"), "rules={{'lm_head': None}} leaves it in floats"
    ),
}
"""What some expect of quantize_, and where it is."""


def _check_options(dtype: Any, options: Mapping[str, Any]) -> None:
    """Raises NumericsError for a Plan, and for what is no option of a QuantSpec, with the way."""
    if isinstance(dtype, Plan):
        raise NumericsError("a Plan is no format: nx.freeze(nx.wrap(model, plan)) packs by it")
    for name in options:
        if way := _ELSEWHERE.get(name):
            raise NumericsError(f"{name}={said(options[name])}: {way.format(dtype=str(dtype), name=name)}")
    if unknown := [name for name in options if name not in (*OPTIONS, "biases")]:
        raise unknown_argument(quantize_, unknown, also=(*OPTIONS, "biases"))


@keywords
def quantize_(
    model: nn.Module, dtype: Any, *, rules: Any = None, example: Any = None, **options: Any
) -> nn.Module:
    """Packs the weights of a model in place: plan, wrap and freeze in one; prints the plan's last line.

    model: a torch module.  dtype: a format, its name, or a QuantSpec.  rules, example: as for `plan`.
    options: biases=, as for `plan`; and those of a QuantSpec beside a format: scheme=, symmetric= ...
    Returns the model.  Raises NumericsError as those do; the model is then what it was before.

    Each tensor finds its own scales: the tensor scales of NVFP4 differ among q, k and v, which engines join,
    where `numerics quantize` gives them one.  docs/formats.md §8 has the lines that share one.

    >>> import torch, numerics as nx
    >>> model = nx.quantize_(torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Linear(32, 4)), "mxfp4")
    2 of 4 tensors quantized (2 mxfp4), 98.4% of all values; 8848 bytes become 1300 bytes
    >>> type(model[0].weight).__name__, model[0].weight.spec
    ('TensorQTensor', QuantSpec('mxfp4'))
    """
    _check_options(dtype, options)
    biases = options.pop("biases", None)
    spec = QuantSpec(dtype, **options) if options else dtype
    made = plan_of(model, spec, rules=rules, example=example, biases=biases)
    check_parameters(model, made)
    with undone(model):
        frozen = freeze(wrapped_by(model, made, inplace=True))
        print(made.summary)
    return frozen
