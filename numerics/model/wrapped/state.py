"""What a wrapped model was made of, and where it keeps that."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from torch import nn
from torch.fx import GraphModule

from numerics.formats.errors import NumericsError, said
from numerics.formats.text import json_in
from numerics.model.deciding.plan import Plan
from numerics.model.looking.places import packed
from numerics.model.wrapped.following import followed
from numerics.view.text import folded

STATE = "numerics_state"
"""Under that name a wrapped model keeps what it was made of."""


class State:
    """What a wrapped model was made of.

    planned: the plan that it was wrapped by.  plan: that by the names of now (following.py).  original: the
    model that was wrapped; None in what came from a pickle.  qat: what it learns.  frozen: what it keeps
    since it was frozen.  seen: what its modules had when they were looked at, a `structure.Seen`; None before
    that.  told: was it said what tracing does not see?  looks: does the next call look for parameters that
    are read aside of their modules, as the first one does?
    """

    def __init__(self, plan: Plan, original: nn.Module | None, qat: str | None) -> None:
        self.planned = self.plan = plan
        self.original, self.qat = original, qat
        self.frozen: str | None = None
        self.seen: Any = None
        self.told, self.looks = False, True

    def __deepcopy__(self, memo: Any) -> State:
        """A copy of a wrapped model was made of the same model."""
        return self.as_frozen(self.frozen)

    def as_frozen(self, keep: str | None) -> State:
        """The same of a model that keeps that since it was frozen."""
        found = State(self.planned, self.original, self.qat)
        found.frozen = keep
        return found

    def __reduce__(self) -> Any:
        """In a pickle there is no original: what is loaded cannot be unwrapped to it."""
        return _state, (self.planned.as_dict(), self.qat, self.frozen)


def _state(plan: Any, qat: str | None, frozen: str | None) -> State:
    return State(Plan.from_dict(plan), None, qat).as_frozen(frozen)  # type: ignore[arg-type]


def note_in(text: Any) -> tuple[Mapping[str, Any], Plan]:
    """What a file says of its frozen model, and its plan; raises NumericsError for another text."""
    try:
        came = json_in(text)
        return came, Plan.from_dict(came["plan"])
    except (ValueError, KeyError, TypeError) as wrong:
        raise NumericsError(f"what the file says of its model is no plan: {said(str(wrong))}") from None


def notes_of(model: nn.Module) -> dict[str, Any]:
    """Where a model keeps what it was made of: a graph copies and pickles nothing else but `meta`."""
    return model.meta if isinstance(model, GraphModule) else model.__dict__


def state_in(model: nn.Module) -> State | None:
    """What a wrapped model was made of, its plan by the names that modules have now; None of another."""
    found = notes_of(model).get(STATE)
    if not isinstance(found, State):
        return None
    found.plan = followed(found.planned, model)
    return found


def state_of(model: Any) -> State:
    """The same; raises NumericsError for a model that is not wrapped."""
    found = state_in(model) if isinstance(model, nn.Module) else None
    if found is None:
        raise NumericsError(f"this {type(model).__name__} is not wrapped: {_way_to_wrapped(model)}")
    return found


def _way_to_wrapped(model: Any) -> str:
    """Which child is what was meant, as of DDP and of torch.compile; or how a model is wrapped."""
    children = model.named_children() if isinstance(model, nn.Module) else ()
    inner = [name for name, child in children if is_wrapped(child)]
    if len(inner) == 1:
        return f"the model in it is, model.get_submodule({inner[0]!r})"
    if isinstance(model, nn.Module) and (names := [*packed(model)]):
        return (
            f"{folded(names[:4])} came packed, as of a file; it runs, nx.report and nx.compare judge it as "
            "it is, and nx.wrap takes the float model"
        )
    return "nx.wrap(model, ...) makes one that is"


def original_of(model: nn.Module) -> nn.Module:
    """The model that was wrapped; raises NumericsError where it is not known."""
    found = state_of(model).original
    if found is None:
        raise NumericsError("this model came from a pickle: the model that was wrapped is not with it")
    return found


def is_wrapped(model: nn.Module) -> bool:
    """Was the model made by `wrap`?"""
    return STATE in notes_of(model)


def check_unwrapped(model: nn.Module) -> None:
    """Raises NumericsError for a model that is wrapped, or has a part that is: its plan is made already."""
    if is_wrapped(model):
        frozen = state_of(model).frozen
        way = (
            "the model that was wrapped has its floats"
            if frozen
            else "nx.unwrap(model) gives back what it was"
        )
        raise NumericsError(f"this model is wrapped already{' and frozen' if frozen else ''}; {way}")
    inner = [name for name, module in model.named_modules() if is_wrapped(module)]
    if inner:
        raise NumericsError(
            f"{', '.join(inner[:4])} of this model is wrapped already, by a plan of its own; put what "
            "nx.unwrap gives in its place, and give its formats as rules"
        )


def check_deleted(model: nn.Module, wrong: Exception) -> None:
    """Raises NumericsError where a forward failed as a planned parameter of the model was deleted."""
    if not (isinstance(wrong, (AttributeError, TypeError)) or "NoneType" in str(wrong)):
        return
    made = state_in(model)
    for name in () if made is None else made.plan.parameters:
        owner, _, leaf = name.rpartition(".")
        with suppress(AttributeError):  # a module that was deleted says that itself
            if model.get_submodule(owner)._parameters.get(leaf) is None:
                raise NumericsError(
                    f"{name} is quantized when it is read, and was deleted: assign a torch.nn.Parameter to "
                    "it, or delete it from nx.unwrap(model), and wrap that"
                )


def check_trainable(model: nn.Module, mode: bool) -> None:
    """Raises NumericsError where a frozen model, with nothing else to train, is put into training."""
    if not mode or not is_wrapped(model) or any(x.requires_grad for x in model.parameters()):
        return
    state = state_in(model)
    if state is None or not state.frozen:
        return
    first, *more = state.plan.parameters
    others = f" and {len(more)} more parameter{'s' * (len(more) > 1)} are" if more else " is"
    raise NumericsError(
        f"{first}{others} frozen, and nothing of this model can be trained: "
        f"nx.wrap(float_model, ..., qat={state.qat or 'ste'!r}) makes one that can, before it is frozen"
    )
