"""Where what is learned begins: with the example, in every branch of it, whether it is taken or not.

A branch of `torch.cond` is compiled, and a quantizer without a threshold cannot be: until it has one, an
operator stands in its place, which is called whenever the branch is.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter
from torch.utils import _pytree as pytree

from numerics.model.looking.trace import same_random
from numerics.model.wrapped.graph import outside_of_vmap
from numerics.model.wrapped.quantizers import Learned

_learning: weakref.WeakValueDictionary[int, Learned] = weakref.WeakValueDictionary()
_keys = count(1)


@torch.library.custom_op("numerics::begun", mutates_args=())
def begun(x: Tensor, key: int) -> Tensor:
    """Returns x by the quantizer of that key, which begins with x where it has not begun."""
    one = _learning[key]
    one.begin(x)
    found: Tensor = one.learns(x).detach()
    return found


@begun.register_fake
def _(x: Tensor, key: int) -> Tensor:
    return torch.empty_like(x)


def beginning(waiting: Iterable[Learned]) -> AbstractContextManager[None]:
    """While it lasts, each of these quantizers takes the first tensor that comes for its first batch."""
    return _doing({one: _begins(one) for one in waiting})


def passing(every: Iterable[nn.Module]) -> AbstractContextManager[None]:
    """While it lasts, each of these quantizers returns a copy of what comes, as it is."""
    return _doing(dict.fromkeys(every, torch.clone))


@contextmanager
def _doing(forwards: Mapping[nn.Module, Any]) -> Iterator[None]:
    """While it lasts, each of these quantizers does that in the place of its forward."""
    for one, forward in forwards.items():
        one.forward = forward
    try:
        yield
    finally:
        for one in forwards:
            one.__dict__.pop("forward", None)


def _begins(one: Learned) -> Any:
    key = next(_keys)
    _learning[key] = one

    def forward(x: Tensor) -> Tensor:
        one.check_whole(x)  # the operator would be called once for each entry
        found: Tensor = begun(x, key)
        return found

    return forward


def run_every_branch(graph: GraphModule, example: tuple[Any, Any]) -> None:
    """Runs a graph on the positional and the named arguments of its example, both branches of conditions."""
    with torch.no_grad(), same_random(graph), outside_of_vmap():
        _EveryBranch(graph).run(*pytree.tree_leaves(example), enable_io_processing=False)


class _EveryBranch(Interpreter):
    """Runs node by node, and goes on with the branch that the condition says."""

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """What the node makes; of a region that is an operator, what is in it."""
        if not isinstance(target, torch._ops.HigherOrderOperator):
            return super().call_function(target, args, kwargs)
        kind = str(target.name())
        if "cond" in kind:
            condition, *branches, operands = args
            results = [self._inside(branch, operands) for branch in branches]
            return results[0] if bool(condition) else results[1]
        if "autocast" in kind:
            device, dtype, enabled, cached, region, *operands = args
            with torch.autocast(device, dtype, enabled, cached):
                return self._inside(region, operands)
        if "set_grad_enabled" in kind:
            _, region, *operands = args  # without gradients, as all of this run
            return self._inside(region, operands)
        return super().call_function(target, args, kwargs)  # a loop runs all that is in it

    def _inside(self, graph: Any, operands: Sequence[Any]) -> Any:
        return _EveryBranch(graph).run(*operands, enable_io_processing=False)
