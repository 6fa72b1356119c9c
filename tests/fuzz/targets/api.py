"""Every public function, class and method, called by its own signature with what fits and what does not."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

import numerics as nx
from numerics import conform, interop, layouts, observe, train
from tests.fuzz import pools
from tests.fuzz.pools import Texts, call, one_of

NOT_DRAWN = {"self", "exhaustive", "progress"}  # exhaustive: minutes are due
NOT_CALLED = {
    "dtypes", "use", "NumericsError", "NumericsWarning", "Dtype", "Element", "QTensor", "Observer",
    "Histogram", "Counterexample", "Task", "Verdict", "OBSERVERS",
}  # fmt: skip
OURS = {"all_reduce", "check_options", "own", "decoded", "with_parts"}  # methods for the package itself
OBSERVER_OPTIONS = ("scheme", "symmetric", "scale_type", "zero_point_type")


def api() -> Texts:
    """Calls whose results are used."""
    calls = [call(f"used({name}({{}}))", _arguments(function)) for name, function in _functions()]
    for receiver, name, method in _methods():
        calls.append(call(f"used({{}}.{name}({{}}))", receiver, _arguments(method)))
    return st.one_of(calls)


def _functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Functions and classes, with the texts that call them."""
    for prefix, module in (("nx", nx), ("observe", observe), ("train", train), ("nx.conform", conform)):
        for name in set(module.__all__) - NOT_CALLED:
            found = getattr(module, name)
            if callable(found) and not isinstance(found, nx.Dtype):
                yield f"{prefix}.{name}", found
    for name in interop.__all__:
        yield f"interop.{name}", getattr(interop, name)
    for name, found in inspect.getmembers(layouts, inspect.isfunction):
        if found.__module__ == layouts.__name__ and not name.startswith("_"):
            yield f"layouts.{name}", found


def _methods() -> Iterator[tuple[Texts, str, Callable[..., Any]]]:
    """Methods, with what they are called on."""
    kinds = (name for name in observe.__all__ if name[0].isupper() and name not in NOT_CALLED)
    watcher = call("observe.{}('int8', scheme={})", one_of(kinds), one_of(("None", "'per_channel(0)'")))
    receivers: list[tuple[Texts, type]] = [
        (pools.element, nx.Float), (pools.block, nx.Block), (pools.of("blocks"), nx.Blocks),
        (pools.q, nx.QTensor), (pools.scheme, nx.Scheme), (watcher, observe.Observer),
    ]  # fmt: skip
    for receiver, kind in receivers:
        for name, method in inspect.getmembers(kind, inspect.isfunction):
            if not name.startswith("_") and name not in OURS:
                yield receiver, name, method


def _arguments(function: Callable[..., Any]) -> Texts:
    """Those that a function needs, and some others."""
    needed, others = [], []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            others += [call(f"{option}={{}}", pools.of(option)) for option in OBSERVER_OPTIONS]
        elif name in NOT_DRAWN or name.startswith("_") or parameter.kind is parameter.VAR_POSITIONAL:
            continue
        elif parameter.default is not parameter.empty:
            others.append(call(f"{name}={{}}", pools.of(name)))
        elif parameter.kind is parameter.KEYWORD_ONLY:
            needed.append(call(f"{name}={{}}", pools.of(name)))
        else:
            needed.append(pools.of(name))
    if not others:
        return st.tuples(*needed).map(", ".join)
    some = st.lists(st.integers(0, len(others) - 1), unique=True, max_size=4)
    return some.flatmap(lambda which: st.tuples(*needed, *(others[k] for k in which))).map(", ".join)
