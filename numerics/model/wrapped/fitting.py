"""What a wrapped or frozen model takes from a state: tensors of its own kind, of its own formats."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from numerics.files.save_load import MODEL
from numerics.formats.errors import NumericsError
from numerics.model.deciding.plan import Plan
from numerics.model.looking.places import folded
from numerics.model.wrapped.quantizers import Learned, Quantizer
from numerics.model.wrapped.renaming import renamed
from numerics.model.wrapped.state import STATE, State, check_trainable, notes_of
from numerics.tensor.qtensor import QTensor
from numerics.train.states import RECORD, Recorded, check_recorded

_KINDS = {
    "learns.log2_threshold": "thresholds of qat='tqt'",
    "learns.step": "steps of qat='lsq'",
    "scale": "scales that observers found",
    "tensor_scale": "scales that observers found",
}
"""What a state has of quantizers, by the ends of its names."""


class Fitting:
    """What classes of wrapped modules have besides their own: a state is looked at before it is loaded."""

    def numerics_read_quantized(self, made: State | None) -> Iterable[str]:
        """The names of its parameters that are quantized when they are read.  made: of a whole model."""
        raise NotImplementedError

    def _load_from_state_dict(self, state: Any, prefix: str, notes: Any, *rest: Any) -> None:
        model: Any = self
        made = notes_of(model).get(STATE)
        names = [prefix + name for name in self.numerics_read_quantized(made)]
        if made is not None:
            renamed(model, made.plan, bool(made.frozen), state, prefix)
        if made is not None and made.frozen:
            check_frozen(model, made.plan, state, prefix, notes)
        elif names or made is not None:
            check_floats(state, names, notes)
        if made is not None:
            check_scales(model, state, prefix, notes)
        super()._load_from_state_dict(state, prefix, notes, *rest)  # type: ignore[misc]

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Loads a state; raises NumericsError where its scales are of another kind of wrapping."""
        model: Any = self
        made = notes_of(model).get(STATE)
        if made is not None and strict:
            check_quantizers(model, made.plan, bool(made.frozen), state_dict)
        return super().load_state_dict(state_dict, strict, assign)  # type: ignore[misc]

    def train(self, mode: bool = True) -> Any:
        """Sets the mode; raises NumericsError for a frozen model with nothing to train."""
        check_trainable(self, mode)  # type: ignore[arg-type]
        return super().train(mode)  # type: ignore[misc]


# ---- tensors --------------------------------------------------------------------------------------


def check_floats(state: Mapping[str, Any], names: Iterable[str], notes: Mapping[str, Any]) -> None:
    """Raises NumericsError where a frozen state comes to parameters that are quantized when they are read.

    names: of those parameters, as the state has them.  notes: what the state says of itself.
    """
    packed = [name for name in names if isinstance(state.get(name), QTensor)]
    if packed or MODEL in notes:
        what = f"{packed[0]} is packed" if packed else "this state is a frozen model's"
        raise NumericsError(
            f"{what}, and this model is wrapped: its values would be quantized again wherever they are read; "
            "nx.load_into(float_model, file) makes the frozen model of a file, nx.freeze(model) first takes "
            "the packed tensors as they are"
        )


def check_frozen(
    model: nn.Module, plan: Plan, state: Mapping[str, Any], prefix: str, notes: Mapping[str, Any]
) -> None:
    """Raises NumericsError where a state would put other formats, or floats, into a frozen model.

    plan: by which the model was frozen.  state, prefix, notes: as load_state_dict hands them to modules;
    its notes say where it is of a frozen model.
    """
    if MODEL in notes:
        _check_same_plan(plan, Plan.from_dict(json.loads(notes[MODEL])["plan"]))
    for name in plan.parameters:
        came, held = state.get(prefix + name), model.get_parameter(name)
        if came is None:
            continue
        spec = came.spec if isinstance(came, QTensor) else None
        if isinstance(held, QTensor) and spec != held.spec:
            raise _other(prefix + name, f"packed as {held.spec.dtype}", spec)
        if not isinstance(held, QTensor) and (spec or not (prefix or MODEL in notes)):
            raise _other(prefix + name, "kept as quantized values", spec)


def _other(name: str, due: str, came: Any) -> NumericsError:
    what = "floats, which would not be quantized" if came is None else f"{came!r}"
    return NumericsError(
        f"{name} of this frozen model is {due}, and the state has {what}: load them before freezing, into "
        "the float model or the wrapped one, and freeze that; nx.load_into(float_model, file) makes the "
        "frozen model of a frozen state's file"
    )


def _check_same_plan(mine: Plan, theirs: Plan) -> None:
    """Raises NumericsError where the computed tensors of a frozen state have other formats."""
    formats = [{str(site): row.spec for site, row in plan.sites.items()} for plan in (mine, theirs)]
    differing = [name for name in formats[0] | formats[1] if formats[0].get(name) != formats[1].get(name)]
    if differing:
        here, there = (found.get(differing[0]) or "none" for found in formats)
        raise NumericsError(
            "this state is of a frozen model whose computed tensors have other formats: "
            f"{folded(differing)}, of which {differing[0]} has {there} there and {here} here; "
            "nx.load_into(float_model, file) makes the frozen model of its file"
        )


# ---- names ----------------------------------------------------------------------------------------


def check_quantizers(model: nn.Module, plan: Plan, frozen: bool, came: Any) -> None:
    """Raises NumericsError, before anything is loaded, where a state has the scales of another wrapping.

    came: a state, of which all names are asked for.  What else does not fit is left to torch to say.
    """
    if not isinstance(came, Mapping):
        return
    state = dict(came)
    renamed(model, plan, frozen, state, "")
    check_recorded(state, recorded(model, ""))
    own = {f"{name}.{tail}" for name, module in model.named_modules(remove_duplicate=False)
           if isinstance(module, (Quantizer, Learned)) for tail in module.state_dict()}  # fmt: skip
    here = own | {*model.state_dict()}
    missing = sorted(name for name in own - state.keys() if not name.endswith(RECORD))
    more = sorted(name for name in state.keys() - here if _kind(name))
    if missing or more:
        due, held = (_told(map(_kind, names)) for names in (own, state))
        told = [f"missing {folded(missing)}"] if missing else []
        told += [f"not in the model {folded(more)}"] if more else []
        raise NumericsError(
            f"this state does not fit this {type(model).__name__}, which is unchanged: "
            f"{'; '.join(told)}. The model has {due}, the state {held}: wrap the model as the saved one was "
            "(qat=, observer=), or load_state_dict(state, strict=False), which leaves the model's own scales"
        )


def recorded(model: nn.Module, prefix: str) -> list[tuple[str, Recorded]]:
    """What of a model has scales, with the beginnings of its names in a state; shared ones by each name."""
    every = model.named_modules(remove_duplicate=False)
    return [(f"{prefix}{name}." if name else prefix, module) for name, module in every
            if isinstance(module, Recorded)]  # fmt: skip


def check_scales(model: nn.Module, state: Mapping[str, Any], prefix: str, notes: Mapping[str, Any]) -> None:
    """Raises NumericsError, before anything is loaded, for a state whose scales are not those of the model.

    state, prefix, notes: as load_state_dict hands them to modules, with the names that the model has.
    """
    assign = bool(notes.get("assign_to_params_buffers"))
    for at, module in recorded(model, prefix):
        module.check_state(state, at, assign)
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, Learned):
            module.check_shapes(state, f"{prefix}{name}.learns.")


def _kind(name: str) -> str | None:
    """What of a quantizer has that name; None for what is no quantizer's."""
    parts = name.split(".")
    if not any(part.startswith("quantize") for part in parts[:-1]):
        return None
    return next((kind for tail, kind in _KINDS.items() if name.endswith(f".{tail}")), None)


def _told(kinds: Iterable[str | None]) -> str:
    return " and ".join(dict.fromkeys(kind for kind in kinds if kind)) or "no scales of its own"
