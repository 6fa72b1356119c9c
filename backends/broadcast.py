"""Who shares a scale, on torch tensors of any device: one number to all, and all to one number."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from numerics.backends.partition import Partition


def spread(field: Tensor, partition: Partition) -> Tensor:
    """A scale or zero point for every element, to broadcast over the tensor."""
    axis, size = partition.axis, partition.size
    if axis is None:
        return field.reshape(())
    if size is None:
        return field.reshape([-1 if k == axis else 1 for k in range(len(partition.shape))])
    field, length = each_row(field, partition), partition.shape[axis]
    return field.repeat_interleave(min(size, max(length, 1)), axis).narrow(axis, 0, length)


def each_row(field: Tensor, partition: Partition) -> Tensor:
    """Scales of blocks, once a row: those of `partition.groups`."""
    if partition.rows == 1 or partition.axis is None:
        return field
    axis = partition.axis - 1
    return field.repeat_interleave(partition.rows, axis).narrow(axis, 0, partition.shape[axis])


def reduced(x: Tensor, partition: Partition, reduce: Callable[..., Tensor], neutral: float) -> Tensor:
    """One number of all that share a scale, in the shape of the scales; `neutral` where there is none."""
    axis, size = partition.axis, partition.size
    if x.numel() == 0:
        return torch.full(partition.shared, neutral, dtype=x.dtype, device=x.device)
    if axis is None:
        return reduce(x)
    if partition.rows > 1:
        rows = Partition(partition.groups.shared, axis - 1, partition.rows)
        return reduced(reduced(x, partition.groups, reduce, neutral), rows, reduce, neutral)
    if size is None:
        others = [k for k in range(x.ndim) if k != axis]
        return reduce(x, others) if others else x
    size = min(size, x.shape[axis])
    missing = -x.shape[axis] % size
    lines = torch.nn.functional.pad(x.movedim(axis, -1), (0, missing), value=neutral)
    return reduce(lines.reshape(*lines.shape[:-1], -1, size), -1).movedim(-1, axis)
