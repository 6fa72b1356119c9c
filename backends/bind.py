"""How one source becomes a target's code: the functions, rebound to an executor's primitives.

`types.FunctionType` copies a function with the same code object and other globals, so source,
line numbers and tracebacks still point to formats/.
"""

from __future__ import annotations

import builtins
import types
from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

from numerics.formats import codec, scaling

SOURCES: tuple[ModuleType, ...] = (codec, scaling)
PRIMITIVES = (
    "where",
    "minimum",
    "maximum",
    "as_bits",
    "as_float",
    "divide",
    "entry",
    "places_up_to",
    "max_of_block",
    "max_of_group",
    "max_of_pair",
    "sum_of_block",
)


def bind(
    primitives: Mapping[str, Any],
    wrap: Callable[[Any], Any] = lambda function: function,
    constant: Callable[[int], Any] = lambda value: value,
    sources: tuple[ModuleType, ...] = SOURCES,
) -> SimpleNamespace:
    """The shared arithmetic for one executor.

    primitives: its own `PRIMITIVES`, and any function that it replaces as a whole because a proof
    says it may.  wrap: what a target makes of a function (a JIT); constant: of an integer.
    """
    space: dict[str, Any] = {"__name__": "numerics.formats.bound", "__builtins__": builtins}
    for module in sources:
        for name, value in vars(module).items():
            if isinstance(value, int) and name.isupper():
                space[name] = constant(value)
            elif isinstance(value, types.FunctionType) and value.__module__ == module.__name__:
                copied = types.FunctionType(value.__code__, space, name)
                copied.__annotations__ = value.__annotations__
                space[name] = wrap(copied)
    space.update(primitives)
    return SimpleNamespace(**space)
