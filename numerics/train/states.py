"""What a state brings for steps, thresholds, scales and zero points: looked at before it is loaded.

It says itself, under torch's own name for what is no parameter, of which format and scheme they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from numerics.backends.host.arrays import FLOATS
from numerics.backends.host.tensors import check_dense, check_storage, has_values
from numerics.formats.arguments import keywords
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError, said
from numerics.pytorch.learned_scales import INTEGERS
from numerics.tensor.qtensor import QTensor
from numerics.tensor.spec import RECORD, QuantSpec

ASSIGN = "load_state_dict(..., assign=True) takes it as it is"
_LEAVES = ("scale", "zero_point", "tensor_scale", "step", "log2_threshold", RECORD)
Held = dict[str, Any]


class Recorded(nn.Module):
    """A module with scales, whose state says of which spec they are: those of another are refused."""

    spec: QuantSpec

    def get_extra_state(self) -> Tensor:
        """The spec of its scales: a text as bytes, which every kind of file keeps."""
        return torch.tensor(list(self.spec.text.encode()), dtype=torch.uint8, device="cpu")

    def set_extra_state(self, state: Any) -> None:
        """Nothing is kept of what was read before the scales were taken."""

    @keywords
    def scales(self) -> Held:
        """What it has of scales and zero points, by name."""
        every = (*self._parameters.items(), *self._buffers.items())
        return {name: x for name, x in every if x is not None}

    def check_state(self, state: Mapping[str, Any], prefix: str, assign: bool) -> None:
        """Raises NumericsError for a state that has, at that prefix, scales that cannot be this module's.

        assign: what comes takes the place of what is here, in its own type.
        """
        check_records(state, [(prefix, self)])

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Loads a state; who gives one without a record to this very module says that it is of its spec."""
        if isinstance(state_dict, Mapping) and RECORD not in state_dict:
            state_dict = {**state_dict, RECORD: self.get_extra_state()}
        return super().load_state_dict(state_dict, strict, assign)


def without_scales(names: Iterable[str], state: Iterable[str], source: str = "state") -> str:
    """The call that loads a state without its scales, so that the model keeps its own.

    names: of the model's scales.  state: the names that the state has.  source: an expression that gives it.
    """
    others = [name for name in state if "quantize" in name and not _is_ours(name)]
    if not all(map(_is_ours, names)):
        kept = f"not k.startswith({tuple(dict.fromkeys(name[: name.rfind('.') + 1] for name in names))!r})"
    elif others:  # somebody's, of that name
        kept = "k in float_model.state_dict()"
    else:
        kept = "'quantize' not in k"
    return f"load_state_dict({{k: x for k, x in {source}.items() if {kept}}}, strict=False)"


def _is_ours(name: str) -> bool:
    """Is it what a quantizer of a wrapped model says in a state?"""
    *owner, leaf = name.split(".")
    return leaf in _LEAVES and any(part.startswith("quantize") for part in owner)


def check_recorded(state: Mapping[str, Any], modules: Iterable[tuple[str, Recorded]]) -> None:
    """Raises NumericsError for a state that has scales of these modules and no record of their spec."""
    for prefix, module in modules:
        came = [prefix + name for name in module.scales() if prefix + name in state]
        if came and prefix + RECORD not in state:
            raise NumericsError(
                f"this state has {', '.join(came)}, and not {prefix + RECORD}, which says of which format "
                f"that is: give the state_dict() of a model as it is; or, if it is of {module.spec!r}, "
                "load_state_dict(state, strict=False), which takes its word"
            )


def check_records(state: Mapping[str, Any], modules: Iterable[tuple[str, Recorded]]) -> None:
    """Raises NumericsError, with all their names, for scales that a state says are of other specs."""
    every = list(modules)
    if told := of_other_specs(state, every):
        names = [f"{prefix}{name}" for prefix, module in every for name in module.scales()]
        raise NumericsError(
            f"{'; '.join(told)}, and the scales of one are none of the other: wrap the model as the saved "
            f"one was; or {without_scales(names, state)}, which keeps the model's own"
        )


def of_other_specs(state: Mapping[str, Any], modules: Iterable[tuple[str, Recorded]]) -> list[str]:
    """What a state has of scales that are not of the specs of these modules: a text for each two specs."""
    found: dict[tuple[str, str], list[str]] = {}
    for prefix, module in modules:
        came = state.get(prefix + RECORD)
        if came is None or (isinstance(came, Tensor) and not has_values(came)):
            continue
        theirs, mine = spec_recorded(prefix + RECORD, came), module.spec
        if theirs.replace(rounding=mine.rounding) != mine:  # a scale is the same however values are rounded
            names = [prefix + name for name in module.scales() if prefix + name in state]
            found.setdefault((repr(theirs), repr(mine)), []).extend(names or [prefix + RECORD])
    return [
        f"{', '.join(names)}: in this state of {theirs}, in the model of {mine}"
        for (theirs, mine), names in found.items()
    ]


def spec_recorded(key: str, came: Any) -> QuantSpec:
    """The spec that a record says; raises NumericsError for what is none."""
    if not isinstance(came, Tensor) or came.dtype != torch.uint8 or came.ndim != 1:
        raise NumericsError(f"{key} is {said(came)} in this state; the text of a spec is due, as uint8")
    try:
        return QuantSpec.parse(bytes(came.tolist()).decode())
    except (NumericsError, UnicodeDecodeError) as wrong:
        raise NumericsError(f"{key} is no text of a spec: {wrong}") from None


def check_state(key: str, came: Any, held: Any, *, assign: bool = False, finite: bool = True) -> None:
    """Raises NumericsError unless that is a tensor of real numbers that stay what they are where they go.

    key: its name in the state.  held: what it becomes; what has not begun takes the type that comes.
    assign: it takes the place of that in its own type.  finite: NaN is refused, too; Inf is always.
    What has no values here (on meta, sharded, not begun) is looked at by its type alone.
    """
    if not isinstance(came, Tensor):
        raise NumericsError(f"{key} is {said(came)} in this state; a tensor is due")
    if is_lazy(came):
        if not is_lazy(held):
            raise NumericsError(f"{key} has not begun in this state, and has here: call the saved model once")
        return
    try:
        check_dense(came)
    except NumericsError as wrong:
        raise NumericsError(f"{key} cannot be loaded: {wrong}") from None
    if isinstance(came, QTensor) or came.layout != torch.strided or came.is_quantized:
        raise NumericsError(f"{key} is {said(came)} in this state; a plain dense tensor is due")
    kind = str(came.dtype).removeprefix("torch.")
    whole = not is_lazy(held) and not held.is_floating_point()
    if kind not in (*FLOATS, *INTEGERS):
        raise NumericsError(f"{key} is {kind} in this state; allowed: {', '.join((*FLOATS, *INTEGERS))}")
    if assign and came.is_floating_point() is whole:
        due = "integers" if whole else "floats"
        raise NumericsError(
            f"{key} is {kind} in this state; {due} are due with assign=True: "
            f"state[{key!r}].to({held.dtype}), or assign=False"
        )
    if is_read(came):
        check_storage(came)
        _check_values(key, came.detach(), None if assign else _kept(came, held), whole, finite)


def is_read(x: Any) -> bool:
    """Is it a tensor whose values are here?"""
    return type(x) in (Tensor, nn.Parameter) and has_values(x)


def _kept(came: Tensor, held: Any) -> torch.dtype:
    """The type in which it is kept."""
    return torch.promote_types(came.dtype, torch.float32) if is_lazy(held) else held.dtype


def _check_values(key: str, came: Tensor, dtype: torch.dtype | None, whole: bool, finite: bool) -> None:
    """Raises NumericsError for what is not finite, and for what a type does not keep as it is."""
    odd = came.isinf() if not finite else ~came.isfinite()
    if bool(odd.any()):
        raise NumericsError(f"{key} has NaN or Inf in this state; finite numbers are due")
    if dtype is None or dtype == came.dtype:
        return
    lost = ~_is_kept(came, dtype)
    if not bool(lost.any()):
        return
    first, kind = came[lost][0].item(), str(dtype).removeprefix("torch.")
    if whole and isinstance(first, float) and not first.is_integer():
        raise NumericsError(
            f"{key} has fractions in this state ({first}), and is {kind} here, which would cut it to an "
            "integer: zero_point_type='float32' in the plan's QuantSpec, or LSQ(..., zero_point='learned'), "
            "keeps them"
        )
    way = f"state[{key!r}].to(torch.{kind}) rounds it, where that is meant; {ASSIGN}"
    if whole or not bool(came[lost][0].to(dtype).isfinite()):
        way = "the numbers of another model, or of a broken one" + ("" if whole else f"; {ASSIGN}")
    raise NumericsError(f"{key} has {first} in this state, which {kind} does not hold here: {way}")


def _is_kept(came: Tensor, dtype: torch.dtype) -> Tensor:
    """Where numbers stay what they are in another type; NaN does in floats."""
    wide = came.cpu().to(torch.float64)
    exact = torch.ones_like(wide, dtype=torch.bool) if came.is_floating_point() else wide.abs() <= 2.0**53
    if dtype.is_floating_point:
        return (exact & (wide.to(dtype).to(torch.float64) == wide) | wide.isnan()).to(came.device)
    info = torch.iinfo(dtype)
    inside = (wide >= info.min) & (wide <= info.max) & (wide < 2.0**63) & (wide == wide.round())
    return inside.to(came.device)


def check_shape(key: str, came: Any, due: tuple[int, ...], of: str) -> None:
    """Raises NumericsError for scales of another shape; one number may come in the shape (1,).

    of: what has that shape.
    """
    if isinstance(came, Tensor) and not is_lazy(came) and tuple(came.shape) not in (due, due or (1,)):
        raise NumericsError(f"{key} has shape {tuple(came.shape)} in this state; {of} has {due}")


def check_zero_point(key: str, came: Tensor, d: Element) -> None:
    """Raises NumericsError for a zero point that is none of the format's values."""
    if is_read(came) and bool(((came < d.min) | (came > d.max)).any()):
        ends = f"{came.min().item()} .. {came.max().item()}"
        raise NumericsError(f"{key} is {ends} in this state, outside {d.min} .. {d.max}, the range of {d}")


def check_positive(key: str, came: Tensor) -> None:
    """Raises NumericsError for a scale that is 0 or less."""
    if is_read(came) and bool((came <= 0).any()):
        raise NumericsError(f"{key} is {came.min().item()} in this state; scales are above 0")


def check_values_come(prefix: str, came: Mapping[str, Tensor], held: Mapping[str, Any]) -> None:
    """Raises NumericsError where what is to begin would be given room and no values: a state on meta."""
    for name, x in came.items():
        if x.is_meta and not held[name].is_meta:
            raise NumericsError(
                f"{prefix + name} is on meta in this state, and has no values to begin with; {ASSIGN}"
            )
