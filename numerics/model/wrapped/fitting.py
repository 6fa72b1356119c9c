"""What a wrapped or frozen model takes from a state: tensors of its own kind, of its own formats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from numerics.files.save_load import MODEL
from numerics.formats.errors import NumericsError
from numerics.model.deciding.plan import Plan
from numerics.model.deciding.rows import Row
from numerics.model.wrapped.following import named_in_state, parameters_now
from numerics.model.wrapped.quantizers import Learned, Quantizer, Static, waits
from numerics.model.wrapped.renaming import renamed
from numerics.model.wrapped.state import State, check_trainable, note_in, state_in
from numerics.model.wrapped.structure import check_structure, converted
from numerics.pytorch.kept_ops import check_copied
from numerics.tensor.qtensor import QTensor
from numerics.tensor.spec import RECORD
from numerics.train.states import (
    ASSIGN,
    Recorded,
    check_recorded,
    check_records,
    of_other_specs,
    without_scales,
)
from numerics.view.text import folded

_KINDS = {
    "learns.log2_threshold": "thresholds of qat='tqt'",
    "learns.step": "steps of qat='lsq'",
    "scale": "fixed scales",
    "tensor_scale": "fixed scales",
}
"""What a state has of quantizers, by the ends of its names."""
_WRAPPED = {
    "thresholds of qat='tqt'": "qat='tqt'", "steps of qat='lsq'": "qat='lsq'", "fixed scales": "observer=...",
}  # fmt: skip
"""How a model is wrapped whose state has that."""
_ASSIGN = "assign_to_params_buffers"
"""Under that name torch notes that load_state_dict was called with assign=True."""
_OF_FROZEN = "nx.load_into(float_model, file) makes the frozen model of its file"


class Fitting:
    """What classes of wrapped modules have besides their own: a state is looked at before it is loaded."""

    def numerics_read_quantized(self, made: State | None) -> Iterable[str]:
        """The names of its parameters that are quantized when they are read.  made: of a whole model."""
        raise NotImplementedError

    def _load_from_state_dict(self, state: Any, prefix: str, notes: Any, *rest: Any) -> None:
        model: Any = self
        made = state_in(model)
        names = [prefix + name for name in self.numerics_read_quantized(made)]
        if made is not None:
            renamed(model, made.plan, bool(made.frozen), state, prefix)
        if made is not None and made.frozen:
            check_frozen(model, made.plan, state, prefix, notes)
        elif names or made is not None:
            check_floats(model, state, names, notes)
        if made is not None or not prefix:  # a part may be what is loaded
            check_scales(model, state, prefix, notes)
        super()._load_from_state_dict(state, prefix, notes, *rest)  # type: ignore[misc]

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Loads a state; raises NumericsError where its scales are of another kind of wrapping."""
        model: Any = self
        made = state_in(model)
        if made is not None and strict:
            check_quantizers(model, made, state_dict, assign)
        return super().load_state_dict(state_dict, strict, assign)  # type: ignore[misc]

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Its state; raises NumericsError where modules came into it that its plan does not know."""
        check_structure(self, anew=True)  # type: ignore[arg-type]
        return super().state_dict(*args, **kwargs)  # type: ignore[misc]

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Moves it, and knows what is packed in it afterwards."""
        with converted(self):  # type: ignore[arg-type]
            return super()._apply(fn, recurse)  # type: ignore[misc]

    def train(self, mode: bool = True) -> Any:
        """Sets the mode; raises NumericsError for a frozen model with nothing to train."""
        check_trainable(self, mode)  # type: ignore[arg-type]
        return super().train(mode)  # type: ignore[misc]


# ---- tensors --------------------------------------------------------------------------------------


def check_floats(
    model: nn.Module, state: Mapping[str, Any], names: Iterable[str], notes: Mapping[str, Any]
) -> None:
    """Raises NumericsError where a frozen state comes to parameters that are quantized when they are read.

    model: the one of these parameters.  names: theirs, as the state has them.  notes: what the state says
    of itself.
    """
    packed = [name for name in names if isinstance(state.get(name), QTensor)]
    if packed or MODEL in notes:
        what = f"{packed[0]} is packed" if packed else "this state is a frozen model's"
        ready = "nx.calibrate(model, batches)" if any(map(waits, model.modules())) else "model"
        raise NumericsError(
            f"{what}, and this model is wrapped: its values would be quantized again wherever they are read; "
            f"{_OF_FROZEN}; nx.freeze({ready}) makes one that takes it where both have the same plan"
        )


def check_frozen(
    model: nn.Module, plan: Plan, state: Mapping[str, Any], prefix: str, notes: Mapping[str, Any]
) -> None:
    """Raises NumericsError where a state would put other formats, or floats, into a frozen model.

    plan: by which the model was frozen.  state, prefix, notes: as load_state_dict hands them to modules;
    its notes say where it is of a frozen model.
    """
    theirs = note_in(notes[MODEL])[1] if MODEL in notes else None
    if theirs is not None:
        check_same_plan(plan, theirs)
    own = parameters_now(model)
    for name, row in plan.parameters.items():
        held, came = own.get(name), state.get(prefix + name)
        if came is None or held is None:
            continue
        spec = came.spec if isinstance(came, QTensor) else None
        packed = isinstance(held, QTensor)
        if spec != held.spec if packed else spec or not (prefix or MODEL in notes):
            due = f"packed as {held.spec.dtype}" if packed else "kept as quantized values"
            what = repr(spec) if spec else "floats, which would not be quantized"
            raise NumericsError(
                f"{prefix + name} of this frozen model is {due}, and the state has {what}: "
                f"{_before_freezing(model, plan, state, spec is not None or MODEL in notes)}"
            )
        if theirs is not None and not packed:
            _check_values(prefix + name, row, theirs.parameters.get(name))
        if isinstance(came, QTensor) and isinstance(held, QTensor):
            _check_bytes(prefix + name, held, came, bool(notes.get(_ASSIGN)))


def _check_values(name: str, mine: Row, theirs: Row | None) -> None:
    """Raises NumericsError where values that a frozen model keeps are quantized to another format.

    mine, theirs: what the plans of the model and of the state say of that parameter.
    """
    spec = None if theirs is None else theirs.spec
    if spec != mine.spec:
        raise NumericsError(
            f"{name} of this frozen model is kept as values of {mine.spec!r}, and the state has "
            f"{f'those of {spec!r}' if spec else 'floats'}: {_OF_FROZEN}"
        )


def _check_bytes(name: str, held: Any, came: Any, assign: bool) -> None:
    """Raises NumericsError for a packed tensor that does not fit into the one that a frozen model has.

    assign: it takes the place of that, in its own float type.
    """
    if came.shape != held.shape:
        raise NumericsError(
            f"{name} has shape {tuple(came.shape)} in this state, and {tuple(held.shape)} in this model"
        )
    if not assign:
        try:
            check_copied(held, came)
        except NumericsError as wrong:
            raise NumericsError(f"{name} cannot be loaded: {wrong}; {ASSIGN}") from None


def _before_freezing(model: nn.Module, plan: Plan, state: Mapping[str, Any], frozen: bool) -> str:
    """Where a state belongs that a frozen model does not take.  frozen: it is a frozen model's itself."""
    if frozen:
        return _OF_FROZEN
    of_weights = [f".{name}.scale" for name, one in named_in_state(model)
                  if isinstance(one, Static) and one.name in plan.parameters]  # fmt: skip
    kinds = kinds_of_scales(name for name in state if not f".{name}".endswith(tuple(of_weights)))
    if not kinds:
        observed = ", nx.calibrate" if any(row.observer for row in plan.rows) else ""
        return f"load it into the float model, and nx.wrap{observed} and nx.freeze that again"
    return (
        f"it has {' and '.join(kinds)}: load it into a model that {_wrapped(kinds)} made, and nx.freeze that"
    )


def check_same_plan(mine: Plan, theirs: Plan) -> None:
    """Raises NumericsError where the computed tensors of a frozen state have other formats."""
    formats = [{str(site): row.spec for site, row in plan.sites.items()} for plan in (mine, theirs)]
    differing = [name for name in formats[0] | formats[1] if formats[0].get(name) != formats[1].get(name)]
    if differing:
        here, there = (found.get(differing[0]) or "none" for found in formats)
        raise NumericsError(
            "this state is of a frozen model whose computed tensors have other formats: "
            f"{folded(differing)}, of which {differing[0]} has {there} there and {here} here; {_OF_FROZEN}"
        )


# ---- names ----------------------------------------------------------------------------------------


def check_quantizers(model: nn.Module, made: State, came: Any, assign: bool) -> None:
    """Raises NumericsError, before anything is loaded, where a state has the scales of another wrapping.

    made: what the model was made of.  came: a state, of which all names are asked for.  assign: it is
    loaded so.  What strict=False refuses, too, is told first.  What
    else does not fit is left to torch to say.
    """
    if not isinstance(came, Mapping):
        return
    state = dict(came)
    notes = {**(getattr(came, "_metadata", None) or {}).get("", {}), _ASSIGN: assign}
    renamed(model, made.plan, bool(made.frozen), state, "")
    check_tensors(model, made.plan, bool(made.frozen), state, notes)
    every = recorded(model, "")
    check_recorded(state, every)
    own = {f"{name}.{tail}" for name, module in named_in_state(model)
           if isinstance(module, (Quantizer, Learned)) for tail in module.state_dict()}  # fmt: skip
    here = own | {*model.state_dict()}
    missing, more = ({name for name in names if not name.endswith(RECORD)}
                     for names in (here - state.keys(), state.keys() - here))  # fmt: skip
    if not (missing & own or any(map(kind_of_scale, more))):
        return
    told = [f"missing {folded(sorted(missing))}"] if missing else []
    told += [f"not in the model {folded(sorted(more))}"] if more else []
    told += of_other_specs(state, every)
    raise NumericsError(
        f"this state does not fit this {type(model).__name__}, which is unchanged: {'; '.join(told)}. "
        f"{way_of_scales(model, state, MODEL in notes)}"
    )


def check_tensors(
    model: nn.Module, plan: Plan, frozen: bool, state: Mapping[str, Any], notes: Mapping[str, Any]
) -> None:
    """Raises NumericsError for the state of a whole model whose tensors are of the other kind."""
    if frozen:
        check_frozen(model, plan, state, "", notes)
    else:
        check_floats(model, state, plan.parameters, notes)


def way_of_scales(model: nn.Module, state: Mapping[str, Any], frozen: bool, source: str = "state") -> str:
    """What to do with a state that has other scales than the model.

    frozen: the state is a frozen model's.  source: an expression that gives the state.
    """
    if prefix := prefix_of(model, state):
        return way_of_prefix(prefix, source)
    packed_names = tuple(_of_packed(model))
    due, held = (
        kinds_of_scales(name for name in names if not name.startswith(packed_names))
        for names in (model.state_dict(), state)
    )
    has, brings = (" and ".join(kinds) or "no scales of its own" for kinds in (due, held))
    packed = any(isinstance(x, QTensor) for x in state.values())
    if frozen:
        made = _OF_FROZEN
    elif packed:
        made = "nx.save the state_dict() of the frozen model as it is, which says its plan, and nx.load_into"
    elif due == held:
        made = "wrap the model as the saved one was"
    elif held:
        made = f"load it into a model that {_wrapped(held)} made, with the same formats"
    else:
        made = "load it into the float model, and wrap that"
    return f"The model has {has}, the state {brings}: {made}{_without(model, state, source, packed)}"


def _without(model: nn.Module, state: Mapping[str, Any], source: str, packed: bool) -> str:
    """The call that loads what is no scale, where there is something and it is taken."""
    names = {*model.state_dict()}
    if not any(name in names and not kind_of_scale(name) for name in state):
        return ""
    call = f"load_state_dict({source}, strict=False)"
    if packed and not isinstance(model, Fitting):
        call = f"load_state_dict({source}, strict=False, assign=True)"
    alone = "which leaves the state's scales"
    if kinds_of_scales(names):
        alone = "which leaves the model's own scales"
        try:
            check_scales(model, state, "", {})
        except NumericsError:
            call = without_scales([], state, source)
    if any(isinstance(one, Static) and waits(one) for one in model.modules()):
        alone += ", and nx.calibrate finds them"
    return f"; or {call}, {alone}"


def prefix_of(model: nn.Module, state: Iterable[str]) -> str:
    """The beginning that all names of a state have before the model's; empty where they fit as they are."""
    here, came = {*model.state_dict()}, list(state)
    if not came or not here.isdisjoint(came):
        return ""
    ends = [place + 1 for place, letter in enumerate(came[0]) if letter == "."]
    fitting = (came[0][:end] for end in ends if came[0][end:] in here)
    return next((one for one in fitting if all(name.startswith(one) for name in came)), "")


def way_of_prefix(prefix: str, source: str) -> str:
    """How names lose a beginning that the model's have not.  source: an expression that gives the state."""
    given = "" if source == "state" else f"state = {source}; "
    after = "" if source == "state" else "; nx.save(state, path)"
    return (
        f"Every name of the state begins with {prefix!r}, as those of DDP (module.) and of torch.compile "
        f"(_orig_mod.): {given}torch.nn.modules.utils.consume_prefix_in_state_dict_if_present(state, "
        f"{prefix!r}) takes that away{after}"
    )


def _of_packed(model: nn.Module) -> Iterable[str]:
    """How names of quantizers of packed parameters begin, which say nothing any more."""
    made = state_in(model)
    if made is not None and made.frozen:
        for name, module in named_in_state(model):
            if isinstance(module, (Quantizer, Learned)) and module.name in made.plan.parameters:
                yield f"{name}."


def recorded(model: nn.Module, prefix: str) -> list[tuple[str, Recorded]]:
    """What of a model has scales, with the beginnings of its names in a state; shared ones by each name."""
    every = named_in_state(model)
    return [(f"{prefix}{name}." if name else prefix, module) for name, module in every
            if isinstance(module, Recorded)]  # fmt: skip


def check_scales(model: nn.Module, state: Mapping[str, Any], prefix: str, notes: Mapping[str, Any]) -> None:
    """Raises NumericsError, before anything is loaded, for a state whose scales are not those of the model.

    state, prefix, notes: as load_state_dict hands them to modules, with the names that the model has.
    """
    assign, every = bool(notes.get(_ASSIGN)), recorded(model, prefix)
    check_records(state, every)
    for at, module in every:
        module.check_state(state, at, assign)
    for name, one in named_in_state(model):
        if isinstance(one, Learned):
            one.check_shapes(state, f"{prefix}{name}.learns.")


def kind_of_scale(name: str) -> str | None:
    """What of a quantizer has that name; None for what is no quantizer's."""
    parts = name.split(".")
    if not any(part.startswith("quantize") for part in parts[:-1]):
        return None
    return next((kind for tail, kind in _KINDS.items() if name.endswith(f".{tail}")), None)


def kinds_of_scales(names: Iterable[str]) -> list[str]:
    """What of quantizers is among the names of a state, each kind once."""
    return list(dict.fromkeys(kind for kind in map(kind_of_scale, names) if kind))


def _wrapped(kinds: Iterable[str]) -> str:
    """The call that makes a model whose state has that: of what is learned, where something is."""
    options = [_WRAPPED[kind] for kind in kinds]
    learned = [option for option in options if option.startswith("qat")]
    return f"nx.wrap(model, ..., {(learned or options)[0]})"
