"""Where the tensors of a model lie in what a training script saved, beside optimizers and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from numerics.formats.errors import NumericsError, said

NESTED = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params", "ema")
"""Where training scripts put a state dict, beside other things; the first one that is there is taken."""
DEPTH = 100
TOO_DEEP = f"its dicts and lists are nested more than {DEPTH} deep"
MOST = 1 << 20  # tensors, each as often as it has a name
OPTIMIZER = {"state", "param_groups"}
"""What the state of an optimizer of torch has, whose tensors are no model's."""
Keys = tuple[Any, ...]
Holds = Callable[[Any], bool]


class Found(NamedTuple):
    """The keys that lead to tensors.

    places: to those of the model; several where nothing says which of them are, none where there are none
    by name.  beside: to what else holds tensors, optimizers among it, with their number.
    """

    places: list[Keys]
    beside: dict[Keys, int]


def model_in(root: Any, holds: Holds) -> Found:
    """Returns where in nested dicts and lists the tensors of a model lie, and what lies beside them.

    holds: says of an object whether it is a tensor.  Who holds tensors by name is a model, with all dicts
    below it; but a name that scripts give to a model is followed first, and so is whatever alone has
    tensors, down to the last such name.  Raises NumericsError for what is nested too deep.

    >>> number = lambda x: type(x) is float
    >>> model_in({"epoch": 3, "model": {"x": {"w": 1.0, "b": 2.0}}, "ema": {"w": 1.0}}, number)
    Found(places=[('model',)], beside={('ema',): 1})
    >>> model_in({"net_g": {"w": 1.0}, "net_d": {"w": 2.0}}, number).places
    [('net_g',), ('net_d',)]
    """
    counting = _Counting(holds)
    keys: Keys = ()
    one, known = root, False
    beside: dict[Keys, int] = {}
    while True:
        inside = [(key, value) for key, value in _items(one) if counting.all_in(value)]
        models = {key: value for key, value in inside if counting.named_in(value)}
        names = [name for name in NESTED if name in models]
        if known and len(models) > 1:
            names = []  # they are parts of one model
        if not names and (known or tensors_in(one, holds)):
            return Found([keys], beside | dict(counting.without_name(one, keys)))
        chosen = names[:1] or sorted(models, key=lambda key: -counting.named_in(models[key]))
        beside |= {(*keys, key): counting.all_in(value) for key, value in inside if key not in chosen}
        if len(chosen) != 1:
            return Found([(*keys, key) for key in chosen], beside)
        keys, one, known = (*keys, chosen[0]), models[chosen[0]], known or bool(names)


def by_name(one: Any, holds: Holds) -> dict[str, Any]:
    """Returns the tensors of a dict and of the dicts inside it, by their names with dots between.

    Raises NumericsError for a name that two of them would have, and for more than a model has.

    >>> by_name({"w": 1.0, "layers": {0: {"w": 2.0}}, "epoch": 3}, lambda x: type(x) is float)
    {'w': 1.0, 'layers.0.w': 2.0}
    """
    found: dict[str, Any] = {}
    for keys, value in _named(one, (), holds):
        name = ".".join(map(str, keys))
        if name in found:
            raise NumericsError(f"{said(name)} stands for two tensors")
        if len(found) == MOST:
            raise NumericsError(f"it has more than {MOST} names of tensors")
        found[name] = value
    return found


def at(root: Any, keys: Keys) -> Any:
    """What lies there."""
    for key in keys:
        root = root[key]
    return root


def place_of(keys: Keys) -> str:
    """How Python is asked for what lies there.

    >>> place_of((0, "model"))
    "[0]['model']"
    """
    return "".join(f"[{key!r}]" for key in keys)


def tensors_in(one: Any, holds: Holds) -> int:
    """How many tensors a dict has by name."""
    return sum(map(holds, one.values())) if isinstance(one, Mapping) else 0


def every(one: Any, keys: Keys = (), seen: set[int] | None = None) -> Iterator[tuple[Keys, Any]]:
    """All that lies inside dicts and lists, but for optimizers, each once, with the keys that lead to it."""
    seen = set() if seen is None else seen
    if _is_optimizer(one):
        return
    yield keys, one
    if id(one) in seen or len(keys) > DEPTH:
        return
    if items := _items(one):
        seen.add(id(one))
    for key, value in items:
        yield from every(value, (*keys, key), seen)


def _is_optimizer(one: Any) -> bool:
    return isinstance(one, Mapping) and set(one) >= OPTIMIZER


def _items(one: Any) -> list[tuple[Any, Any]]:
    """What lies in a dict or a list, each with its key."""
    if isinstance(one, Mapping):
        return list(one.items())
    return list(enumerate(one)) if type(one) in (list, tuple) else []


def _named(one: Any, keys: Keys, holds: Holds) -> Iterator[tuple[Keys, Any]]:
    """The tensors of a dict and of the dicts inside it, but for optimizers, with the keys to each."""
    if len(keys) > DEPTH:
        raise NumericsError(TOO_DEEP)
    if isinstance(one, Mapping) and not _is_optimizer(one):
        for key, value in one.items():
            if holds(value):
                yield (*keys, key), value
            else:
                yield from _named(value, (*keys, key), holds)


class _Counting:
    """How many tensors lie in or below an object; what lies in several places is counted once for all."""

    def __init__(self, holds: Holds) -> None:
        self._holds = holds
        self._found: dict[int, tuple[int, int]] = {}

    def all_in(self, one: Any) -> int:
        """All tensors there."""
        return self._counts(one, 0)[0]

    def named_in(self, one: Any) -> int:
        """Those that have a name in a dict, and are no optimizer's."""
        return self._counts(one, 0)[1]

    def without_name(self, one: Any, keys: Keys) -> Iterator[tuple[Keys, int]]:
        """What `by_name` does not give of a dict: lists of tensors, and optimizers, with their number."""
        if isinstance(one, Mapping) and not _is_optimizer(one):
            for key, value in one.items():
                if not self._holds(value) and self.all_in(value):
                    yield from self.without_name(value, (*keys, key))
        else:
            yield keys, self.all_in(one)

    def _counts(self, one: Any, depth: int) -> tuple[int, int]:
        if self._holds(one):
            return 1, 0
        items = _items(one)
        if not items or id(one) in self._found:
            return self._found.get(id(one), (0, 0))
        if depth > DEPTH:
            raise NumericsError(TOO_DEEP)
        self._found[id(one)] = 0, 0  # of what lies inside itself
        below = [self._counts(value, depth + 1) for _, value in items]
        named = 0 if _is_optimizer(one) else tensors_in(one, self._holds) + sum(pair[1] for pair in below)
        self._found[id(one)] = sum(pair[0] for pair in below), named
        return self._found[id(one)]
