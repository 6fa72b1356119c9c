"""A model is run on a batch, and what it raises says in which of its modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from numerics.formats.errors import NumericsError, words_of
from numerics.model.looking.trace import arguments, as_in_use, same_random
from numerics.model.wrapped.graph import QuantizedGraph
from numerics.model.wrapped.where import innermost


def run(model: nn.Module, batch: Any) -> Any:
    """What a model makes of a batch, in evaluation, without gradients.

    A graph has its mode for good: `wrapping.in_evaluation` gives the one to run.
    Raises NumericsError, with the module, where the model does not run on it.
    """
    args, kwargs = arguments(batch)
    with named_failure(model):
        if isinstance(model, QuantizedGraph):
            with torch.no_grad(), same_random(model):
                return model(*args, **kwargs)
        with as_in_use(model):
            return model(*args, **kwargs)


@contextmanager
def named(name: str) -> Iterator[None]:
    """Says of what is raised inside of which parameter or site it is."""
    try:
        yield
    except NumericsError as wrong:
        raise (wrong if name in str(wrong) else NumericsError(f"{name}: {wrong}")) from None
    except Exception as wrong:
        wrong.add_note(f"numerics: this is of {name}")
        raise


@contextmanager
def named_failure(model: nn.Module) -> Iterator[None]:
    """Says of what a model raises inside in which of its modules that was, as a NumericsError."""
    try:
        yield
    except NumericsError:
        raise
    except Exception as wrong:
        raise NumericsError(
            f"the model does not run on this batch: {type(wrong).__name__} in "
            f"{innermost(model, wrong) or 'its own forward'}: {words_of(wrong):.300}; a batch is "
            "what the model is called with: (a, b) is model(a, b), a mapping gives arguments by name"
        ) from wrong
