"""Where the tensors of a model lie in what a training script saved, beside optimizers and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

NESTED = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params", "ema")
"""Where training scripts put a state dict, beside other things; the first one that is there is taken."""
DEPTH = 6
OPTIMIZER = {"state", "param_groups"}
"""What the state of an optimizer of torch has, whose tensors are no model's."""
Keys = tuple[Any, ...]


def places_of(root: Any, holds: Callable[[Any], bool]) -> list[Keys]:
    """The keys that lead to tensors by name in nested dicts and lists, those of the model first.

    holds: says of an object whether it is a tensor.  A name that scripts give to a model comes before
    others, and of these what has more tensors.

    >>> places_of({"epoch": 3, "net_g": {"w": 1.0, "b": 2.0}, "ema": {"w": 1.0}}, lambda x: type(x) is float)
    [('ema',), ('net_g',)]
    """
    found = {keys: count for keys, one in every(root) if (count := tensors_in(one, holds))}
    return sorted(found, key=lambda keys: (_rank(keys), -found[keys], len(keys)))


def at(root: Any, keys: Keys) -> Any:
    """What lies there."""
    for key in keys:
        root = root[key]
    return root


def tensors_in(one: Any, holds: Callable[[Any], bool]) -> int:
    """How many tensors a dict has by name."""
    return sum(map(holds, one.values())) if isinstance(one, Mapping) else 0


def every(one: Any, keys: Keys = (), seen: set[int] | None = None) -> Iterator[tuple[Keys, Any]]:
    """All that lies inside dicts and lists, but for optimizers, each once, with the keys that lead to it."""
    seen = set() if seen is None else seen
    if isinstance(one, Mapping) and set(one) >= OPTIMIZER:
        return
    yield keys, one
    inside = type(one) in (list, tuple) or isinstance(one, Mapping)
    if not inside or id(one) in seen or len(keys) > DEPTH:
        return
    seen.add(id(one))
    for key, value in one.items() if isinstance(one, Mapping) else enumerate(one):
        yield from every(value, (*keys, key), seen)


def _rank(keys: Keys) -> tuple[int, ...]:
    """The places of its keys among the names that scripts give to a model."""
    return tuple(NESTED.index(key) if key in NESTED else len(NESTED) for key in keys) or (len(NESTED),)
