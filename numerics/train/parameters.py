"""What a model learns of its quantizers, apart from its weights: for optimizers, and to hold it still."""

from __future__ import annotations

import inspect
import math
from functools import cache
from numbers import Real
from typing import Any

import torch
from torch import nn

from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError, one_of, said, truth, words_of
from numerics.train.modules import LSQ, TQT

__all__ = ["freeze_thresholds", "parameter_groups", "thresholds"]


@keywords
def thresholds(model: nn.Module) -> list[nn.Parameter]:
    """Returns what the quantizers of a model learn: TQT's log2 thresholds and LSQ's steps, each once.

    model: a module that holds TQT or LSQ, such as what `nx.wrap(model, ..., qat="tqt")` returns.  Those that
    have seen no batch yet are there, too; an optimizer may hold them.  Raises NumericsError for a model that
    learns none, and for what is no module.

    >>> import torch
    >>> from numerics.train import TQT
    >>> thresholds(torch.nn.Sequential(torch.nn.Linear(4, 4), TQT("int8")))
    [<UninitializedParameter>]
    """
    if not isinstance(model, nn.Module):
        raise NumericsError(f"thresholds are those of a torch module, not of {said(model)}")
    learners = (module for module in model.modules() if isinstance(module, (TQT, LSQ)))
    found = [parameter for learner in learners for parameter in learner.parameters(recurse=False)]
    if not found:
        raise NumericsError(
            f"this {type(model).__name__} learns no thresholds: it holds neither TQT nor LSQ; "
            "nx.wrap(model, ..., qat='tqt') makes one that does, and nx.freeze makes them fixed scales"
        )
    return list({id(parameter): parameter for parameter in found}.values())


@keywords
def parameter_groups(model: nn.Module, *, weight_decay: float = 0.0, **options: Any) -> list[dict[str, Any]]:
    """Returns a model's parameters for an optimizer: thresholds with options of their own, and the rest.

    model: as for `thresholds`.  weight_decay, options: of the thresholds' group, such as lr or betas; the
    rest has what the optimizer is made with.  Weight decay is 0 by default: it would pull a threshold to 1,
    and a step to 0, for nothing.  Raises NumericsError as `thresholds`, for an option that no optimizer of
    torch.optim has, which torch would take and ignore, and for a value that all of them refuse when they are
    made, which they do not look at in a group.

    >>> import torch
    >>> from numerics.train import TQT
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), TQT("int8"))
    >>> optimizer = torch.optim.AdamW(parameter_groups(model, lr=1e-2), lr=1e-3)
    >>> [(len(group["params"]), group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    [(1, 0.01, 0.0), (2, 0.001, 0.01)]
    """
    learned = thresholds(model)
    for name, value in {"weight_decay": weight_decay, **options}.items():
        _check_option(one_of("option of an optimizer", name, _options()), value)
    ours = {id(parameter) for parameter in learned}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in ours]
    groups: list[dict[str, Any]] = [{"params": learned, "weight_decay": weight_decay, **options}]
    return [*groups, {"params": rest}] if rest else groups


@keywords
def freeze_thresholds(model: nn.Module, frozen: bool = True) -> nn.Module:
    """Holds the thresholds of a model still while its weights go on learning; returns the model.

    model: as for `thresholds`.  frozen: False lets them learn again.  Near its end a threshold swings about a
    power of two, and the weights cannot settle: arXiv 1903.08066 freezes it there.  Raises NumericsError as
    `thresholds`.

    >>> import torch
    >>> from numerics.train import TQT
    >>> [p.requires_grad for p in freeze_thresholds(TQT("int8")).parameters()]
    [False]
    """
    frozen = truth("frozen", frozen)
    for parameter in thresholds(model):
        parameter.requires_grad = not frozen  # the method is refused to what has seen no batch
        if frozen:
            parameter.grad = None  # an optimizer would go on with what momentum and decay say
    return model


@cache
def _options() -> tuple[str, ...]:
    """The options of the optimizers of torch."""
    return tuple(sorted(_defaults().keys() - {"params", "defaults"}))


@cache
def _defaults() -> dict[str, dict[Any, Any]]:
    """Of each option the optimizers that have it, each with its own value of it."""
    kinds = [kind for kind in vars(torch.optim).values() if inspect.isclass(kind)]
    found: dict[str, dict[Any, Any]] = {}
    for kind in kinds:
        if issubclass(kind, torch.optim.Optimizer):
            for name, option in inspect.signature(kind).parameters.items():
                found.setdefault(name, {})[kind] = option.default
    return found


def _check_option(name: str, value: Any) -> None:
    """Raises NumericsError for a value that no optimizer with that option takes."""
    kinds = _defaults()[name]
    usual = list(kinds.values())
    if all(isinstance(one, bool) for one in usual) or (usual == [None] * len(usual) and name in _SWITCHES):
        if value is not None:
            truth(name, value)
        return
    numbers = value if isinstance(value, (tuple, list)) else [value]
    if any(isinstance(one, (int, float, tuple)) for one in usual):
        for number in numbers:
            _check_number(name, value, number)
    why = [_refusal(kind, name, value) for kind in kinds]
    if None not in why:
        raise NumericsError(f"{name}={said(value)} is not allowed: {why[0]}")


_SWITCHES = ("foreach", "fused")
"""Options that are True, False or, for torch to choose, None."""
_SIGNED = ("beta2_decay", "dampening", "ns_coefficients")
"""Options whose numbers may be below 0."""


def _check_number(name: str, value: Any, number: Any) -> None:
    """Raises NumericsError, about the whole value of an option, for a number in it that is not finite."""
    if isinstance(number, torch.Tensor) and number.numel() == 1:
        number = number.item()
    real = isinstance(number, Real) and not isinstance(number, bool)
    least = -math.inf if name in _SIGNED else 0
    if number is not None and not (real and math.isfinite(number) and number >= least):
        raise NumericsError(
            f"{name}={said(value)} is not allowed: finite{' and from 0' if least == 0 else ''}"
        )


def _refusal(kind: Any, name: str, value: Any) -> str | None:
    """What an optimizer says against a value when it is made; None where it takes it."""
    try:
        kind([torch.zeros(1, 1, requires_grad=True)], **{name: value})
    except Exception as wrong:  # of whatever type: each has checks of its own
        return f"{kind.__name__}: {words_of(wrong)}"
    return None
