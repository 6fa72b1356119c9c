"""An operator that shows tensors to observers, which torch.compile and torch.cond leave alone.

What a module does in Python is traced away in a compiled branch, or refused there; an operator is called
whenever the branch is taken.
"""

from __future__ import annotations

import weakref
from itertools import count

import torch
from torch import Tensor

from numerics.backends.host.quantizing import Clipped
from numerics.formats.errors import NumericsError
from numerics.observe import Observer

_observers: weakref.WeakValueDictionary[int, Observer] = weakref.WeakValueDictionary()
_lost: weakref.WeakKeyDictionary[Observer, Clipped] = weakref.WeakKeyDictionary()
_names: weakref.WeakKeyDictionary[Observer, str] = weakref.WeakKeyDictionary()
_keys = count(1)


def key_of(observer: Observer, name: str, lost: Clipped | None) -> int:
    """A number by which the operator finds the observer, for as long as it lives.

    name: of what it sees.  lost: counts the values that an unsigned format loses of that.
    """
    key = next(_keys)
    if lost is not None:
        _lost[observer] = lost
    _observers[key], _names[observer] = observer, name
    return key


@torch.library.custom_op("numerics::watched", mutates_args=())
def watched(x: Tensor, key: int) -> Tensor:
    """Returns a copy of x, once the observer of that key has seen it; raises NumericsError for NaN, Inf."""
    observer = _observers[key]
    for bad, name in ((x.isnan(), "NaN"), (x.isinf(), "Inf")):
        if bool(bad.any()):
            raise NumericsError(f"{name} reaches {_names[observer]}: no scale can be found from it")
    try:
        observer.observe(x)
        if observer in _lost:
            _lost[observer].add(x)
    except NumericsError as wrong:
        raise NumericsError(f"{_names[observer]}: {wrong}") from None
    return x.clone()


@watched.register_fake
def _(x: Tensor, key: int) -> Tensor:
    return torch.empty_like(x)
