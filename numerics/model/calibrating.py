"""calibrate: batches run through a wrapped model, and observers find its scales."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError
from numerics.model.looking.restoring import restored, undone
from numerics.model.looking.trace import arguments, batches_of, tensors_of
from numerics.model.wrapped.beginning import beginning
from numerics.model.wrapped.quantizers import Static, quantizers, unbegun
from numerics.model.wrapped.running import run
from numerics.model.wrapped.state import state_of
from numerics.model.wrapped.structure import check_structure
from numerics.model.wrapping import in_evaluation


@keywords
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

    >>> import torch, numerics as nx
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4))
    >>> x = torch.linspace(-1, 1, 8).reshape(1, 8)
    >>> wrapped = nx.wrap(model, "int8", activations="int8", observer="min_max", example=x)
    >>> float(nx.calibrate(wrapped, [x, 2 * x])[0].quantize_linear_0.scale)
    0.015748031437397003
    """
    if state_of(model).frozen:
        raise NumericsError(
            "this model is frozen, and so are its scales; nx.wrap(float_model, plan) makes one to calibrate "
            "with other batches"
        )
    check_structure(model, anew=True)
    every = quantizers(model)
    static = [one for one in every if isinstance(one, Static) and one.observed_by is not None]
    learned = unbegun(model)
    if not static and not learned:
        raise NumericsError(
            "nothing waits for a scale: no activation of this model has an observer; "
            "nx.wrap(model, ..., observer='min_max') plans them"
        )
    runs = in_evaluation(model)
    with undone(model, values=True):
        for one in static:
            one.watch()
        with restored(model, every), beginning(learned):
            _run_all(runs, batches)
        _check_watched(static)
        for one in static:
            one.found()
    return model


def _run_all(model: nn.Module, batches: Iterable[Any]) -> None:
    for count, batch in enumerate(batches_of(batches)):
        for x in tensors_of(arguments(batch)):
            if x.is_floating_point() and not x.is_meta and bool(torch.isnan(x).any()):
                raise NumericsError(f"batch {count} has NaN: no scale can be found from it")
        run(model, batch)


def _check_watched(static: list[Static]) -> None:
    never = [one.name for one in static if one.watching is not None and not one.watching.batches]
    if never:
        raise NumericsError(f"no batch reached {', '.join(never[:6])}{' ...' if never[6:] else ''}")
