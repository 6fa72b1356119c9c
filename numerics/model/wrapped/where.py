"""Where in a model an error was raised: by the frames of its modules, and by the lines of a graph's code."""

from __future__ import annotations

import linecache
import re
from types import TracebackType

from torch import nn
from torch.fx import GraphModule

from numerics.formats.errors import NumericsError, with_article
from numerics.model.looking.exported import module_of
from numerics.model.wrapped.quantizers import Quantizer

_ASSIGNED = re.compile(r"\s*(\w+)\s*(:[^=]*)?=")


def say_where(model: nn.Module, wrong: Exception) -> None:
    """Notes at an error in which module of a wrapped model it was raised, unless it names that itself."""
    name, kind = _innermost(model, wrong)
    if name and not (isinstance(wrong, NumericsError) and f"{name}:" in str(wrong)):
        wrong.add_note(f"numerics: raised in {name}, {with_article(kind)}")


def innermost(model: nn.Module, wrong: Exception) -> str:
    """The name of the innermost module whose method raised, or whose operator in a graph."""
    return _innermost(model, wrong)[0]


def _innermost(model: nn.Module, wrong: Exception) -> tuple[str, str]:
    """The same, and its class."""
    names = {
        id(module): (name, type(module).__name__)
        for name, module in model.named_modules()
        if not isinstance(module, Quantizer)  # which is its layer's
    }
    found, at = ("", ""), wrong.__traceback__
    while at is not None:
        found = _in_graph(at) or names.get(id(at.tb_frame.f_locals.get("self")), found)
        at = at.tb_next
    return found


def _in_graph(at: TracebackType) -> tuple[str, str] | None:
    """The module, and its class, to which the operator belongs that a line of a graph's code calls."""
    graph, code = at.tb_frame.f_locals.get("self"), at.tb_frame.f_code
    if not isinstance(graph, GraphModule) or code is not type(graph).forward.__code__:
        return None
    line = _ASSIGNED.match(linecache.getline(code.co_filename, at.tb_lineno))
    nodes = (node for node in graph.graph.nodes if line is not None and node.name == line[1])
    near = (
        (node, *node.users) for node in nodes
    )  # a quantizer's own node belongs to none: who reads it does
    return next((module_of(one) for some in near for one in some if module_of(one)[0]), None)
