"""QTensors sent between processes: DTensor and torch's collectives, of which each moves bytes only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from numerics.pytorch.qtensor import TensorQTensor
from numerics.pytorch.rows import cut_along_first, joined

functional = torch.ops._c10d_functional


# ---- between processes -----------------------------------------------------------------------------


def _all_gather(q: TensorQTensor, ranks: int, group: str) -> Any:
    """Parts of one tensor, one below the other; what is not cut along the first axis is the same on all."""
    cut, whole = cut_along_first(q)
    gathered = {
        name: functional.wait_tensor(functional.all_gather_into_tensor(part, ranks, group))
        for name, part in cut.items()
    }
    size = ranks * q.shape[0], *q.shape[1:]
    return TensorQTensor(q.spec, size, q.dtype, joined(size[0], gathered, whole))


def _part(place: int, q: TensorQTensor) -> Tensor:
    return q.parts[place]


def _each_part(op: str) -> Callable[..., Any]:
    """A collective that only moves memory, for each of the tensors that a QTensor holds."""

    def move(*args: Any, **kwargs: Any) -> Any:
        leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, TensorQTensor)]
        for q in leaves:
            q.check_whole()
        for place in range(len(leaves[0].parts)):
            part = pytree.tree_map_only(TensorQTensor, partial(_part, place), (args, kwargs))
            _, work = getattr(torch.ops.c10d, op)(*part[0], **part[1])
            work.wait()
        return args[0], work

    return move


def _waited_for(q: TensorQTensor, *_: Any) -> Any:
    return q.detach()


COLLECTIVES: dict[str, Callable[..., Any]] = {  # by name: torch defines them when it distributes
    "_c10d_functional.all_gather_into_tensor.default": _all_gather,
    "_c10d_functional.wait_tensor.default": _waited_for,
    "_c10d_functional._wrap_tensor_autograd.default": _waited_for,
    "c10d.broadcast_.default": _each_part("broadcast_"),
    "c10d.scatter_.default": _each_part("scatter_"),
}
