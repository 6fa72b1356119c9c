"""What torch.export prints and says of a model that is no graph: nothing, and one sentence with its place."""

from __future__ import annotations

import linecache
import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from numerics.formats.errors import NumericsError, shortened, with_article, words_of

_MACHINERY = tuple(f"{folder}{os.sep}" for folder in (Path(torch.__file__).parent, Path(__file__).parents[2]))
_LOGGERS = ("torch.export._trace", "torch._export.non_strict_utils", "torch.fx.experimental.symbolic_shapes")
_LONGEST = 200


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps torch.export from printing, where it fails, the graph that it had and hints at its own logs.

    Loggers that somebody has set a level of, as TORCH_LOGS does, are left alone.
    """
    tracing = vars(import_module(_LOGGERS[0]))
    loggers = [one for one in map(logging.getLogger, _LOGGERS) if one.level == logging.NOTSET]
    tracing["print"] = lambda *_, **__: None  # what its module prints is that graph alone
    for one in loggers:
        one.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        tracing.pop("print", None)
        for one in loggers:
            one.setLevel(logging.NOTSET)


def refusal(model: nn.Module, wrong: Exception) -> NumericsError:
    """What torch.export raised, in one sentence with the place in the model that it is of."""
    first = words_of(next(iter(str(wrong).splitlines()), ""))
    if "data-dependent" in first:
        why = (
            "needs the values of a tensor to go on, as `if`, `int` and `.item()` of one do, and a graph has "
            "none of them"
        )
    else:
        why = f"raises {type(wrong).__name__}: {shortened(first, _LONGEST)}"
    return NumericsError(
        f"torch.export makes no graph of this model: {_place(model, wrong)} {why}; mode='eager_mode' needs "
        "none"
    )


def _place(model: nn.Module, wrong: Exception) -> str:
    """The module whose call raised, and the line of the model's code in it."""
    names = {id(module): (name, type(module).__name__) for name, module in model.named_modules()}
    name, kind = "", type(model).__name__
    line = ""
    for frame, number in traceback.walk_tb(wrong.__traceback__):
        name, kind = names.get(id(frame.f_locals.get("self")), (name, kind))
        if not frame.f_code.co_filename.startswith(_MACHINERY):
            line = _line(frame, number)
    return (f"{name}, {with_article(kind)}" if name else f"the {kind} itself") + line


def _line(frame: Any, number: int) -> str:
    file = frame.f_code.co_filename
    code = linecache.getline(file, number, frame.f_globals).strip()
    return f" ({Path(file).name}:{number}" + (f": {shortened(code, _LONGEST)})" if code else ")")
