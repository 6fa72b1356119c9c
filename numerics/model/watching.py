"""An operator that shows tensors to observers, which torch.compile and torch.cond leave alone.

What a module does in Python is traced away in a compiled branch, or refused there; an operator is called
whenever the branch is taken.
"""

from __future__ import annotations

import weakref
from itertools import count

import torch
from torch import Tensor

from numerics.observe import Observer

_observers: weakref.WeakValueDictionary[int, Observer] = weakref.WeakValueDictionary()
_keys = count(1)


def key_of(observer: Observer) -> int:
    """A number by which the operator finds the observer, for as long as it lives."""
    key = next(_keys)
    _observers[key] = observer
    return key


@torch.library.custom_op("numerics::watched", mutates_args=())
def watched(x: Tensor, key: int) -> Tensor:
    """Returns a copy of x, once the observer of that key has seen it."""
    _observers[key].observe(x)
    return x.clone()


@watched.register_fake
def _(x: Tensor, key: int) -> Tensor:
    return torch.empty_like(x)
