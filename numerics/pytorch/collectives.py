"""Rows of QTensors as bytes, cut, sent between processes and joined again: DTensor, FSDP2, collectives."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from numerics.formats.errors import NumericsError
from numerics.pytorch.qtensor import TensorQTensor
from numerics.tensor import slicing
from numerics.tensor.parts import PARTS
from numerics.tensor.spec import QuantSpec

functional = torch.ops._c10d_functional


# ---- rows, for what cuts and joins tensors along the first axis ---------------------------------------


def cut_along_first(q: TensorQTensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Its tensors whose first index goes with the tensor's, each as rows; and the others."""
    bits = slicing.bits_of_index(q)
    if bits is None or bits % 8:
        raise NumericsError(
            f"{q!r} cannot be cut along axis 0: its rows are not whole bytes of their own; "
            "shard another axis, or pad rows to whole bytes"
        )
    cut: dict[str, Tensor] = {"packed": q.packed.reshape(q.shape[0], -1)}
    whole: dict[str, Tensor] = {}
    for name in PARTS[1:]:
        part = getattr(q, name)
        if part is not None:
            (cut if slicing.shared_along(q, 0) and name != "tensor_scale" else whole)[name] = part
    return cut, whole


def joined(
    spec: QuantSpec,
    size: tuple[int, ...],
    dtype: torch.dtype,
    cut: dict[str, Tensor],
    whole: dict[str, Tensor],
) -> TensorQTensor:
    """Returns the tensor that `cut_along_first` cut, for as many rows as `size` says."""
    rows = {name: part[: size[0]] for name, part in cut.items()}
    rows["packed"] = rows["packed"].reshape(-1)
    return TensorQTensor(spec, size, dtype, rows | whole)


def resized(q: TensorQTensor, rows: int) -> TensorQTensor:
    cut, whole = cut_along_first(q)
    made = {name: part.new_zeros((rows, *part.shape[1:])) for name, part in cut.items()}
    return joined(q.spec, (rows, *q.shape[1:]), q.dtype, made, whole)


# ---- between processes -----------------------------------------------------------------------------


def _all_gather(q: TensorQTensor, ranks: int, group: str) -> Any:
    """Parts of one tensor, one below the other; what is not cut along the first axis is the same on all."""
    cut, whole = cut_along_first(q)
    gathered = {
        name: functional.wait_tensor(functional.all_gather_into_tensor(part, ranks, group))
        for name, part in cut.items()
    }
    return joined(q.spec, (ranks * q.shape[0], *q.shape[1:]), q.dtype, gathered, whole)


def _part(place: int, q: TensorQTensor) -> Tensor:
    return q.parts[place]


def _each_part(op: str) -> Callable[..., Any]:
    """A collective that only moves memory, for each of the tensors that a QTensor holds."""

    def move(*args: Any, **kwargs: Any) -> Any:
        leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, TensorQTensor)]
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
