"""The one door of `out=`: what a caller's array or tensor must be before anything is written into it.

Every backend lets its targets through here, whole and before it computes: a refused one is unchanged.
Layouts, byte orders and overlaps with what is read are no reason to refuse: the result is then made
beside and copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from numerics.backends.host.executor import Array
from numerics.backends.host.tensors import check_memory, check_plain, check_storage, is_qtensor, is_tensor
from numerics.formats.block import Block, Blocks
from numerics.formats.errors import NumericsError, with_article

if TYPE_CHECKING:
    import torch

WORK = 10_000  # steps in which two odd layouts must be told apart; then they count as overlapping


def admit(out: Any, shape: tuple[int, ...], kind: str, name: str = "out", what: str = "array") -> None:
    """Raises NumericsError for an `out` that cannot hold a result of that shape and type.

    Or that is read-only, whose elements lie over each other, whose memory was freed, or that is part of
    a graph.  kind: a type by its name, in any byte order.  what: an array, or where only that is
    taken, a tensor.
    """
    tensor = is_tensor(out)
    if tensor:
        if is_qtensor(out):
            raise NumericsError(f"{name} is a QTensor, whose values lie nowhere; give a plain {what}")
        check_memory(out)
    else:
        check_plain(name, out)
    if not (tensor or isinstance(out, np.ndarray)) or (tuple(out.shape), _kind(out)) != (shape, kind):
        came = (
            f"{_kind(out)} {tuple(out.shape)}"
            if tensor or isinstance(out, np.ndarray)
            else type(out).__name__
        )
        raise NumericsError(f"{name} must be {with_article(str(kind))} {what} of shape {shape}, not {came}")
    if tensor:
        _admit_tensor(out, name)
    elif not out.flags.writeable:
        raise NumericsError(f"{name} is read-only")
    if not (out.is_contiguous() if tensor else out.flags.c_contiguous) and _folded(place(out)):
        raise NumericsError(f"{name} has elements that share their memory; give one whose elements lie apart")


def _kind(out: Any) -> str:
    return str(out.dtype).removeprefix("torch.") if is_tensor(out) else out.dtype.newbyteorder("=").name


def _admit_tensor(out: torch.Tensor, name: str) -> None:
    """What torch's own `out=` refuses too, and views that are computed when they are read."""
    import torch

    if out.requires_grad and torch.is_grad_enabled():
        raise NumericsError(
            f"{name} requires a gradient, and what is written into it has none; "
            f"give {name}.detach(), or call under torch.no_grad()"
        )
    if out.is_inference() and not torch.is_inference_mode_enabled():
        raise NumericsError(f"{name} was made in inference mode; call there, or give a clone of it")
    if out.is_neg() or out.is_conj():
        raise NumericsError(f"{name} is a view that negates when it is read; give a plain tensor")
    if out._is_zerotensor():
        raise NumericsError(f"{name} stands for zeros, and has no memory; give a clone of it")
    check_storage(out)


def written(out: Any) -> None:
    """Tells autograd that a tensor was changed: a graph that kept it then refuses to go backward."""
    if is_tensor(out) and not out.is_inference():
        import torch

        torch.autograd.graph.increment_version(out)


def admit_blocks(out: Any, dtype: Block, axis: int, rank: int) -> None:
    """Raises NumericsError for what is no Blocks of that format along that axis, with all their parts."""
    if not isinstance(out, Blocks):
        raise NumericsError(f"out must be Blocks of {dtype} along axis {axis}, not {type(out).__name__}")
    if out.dtype is not dtype or out.axis not in (axis % rank, axis % rank - rank):
        raise NumericsError(f"out must be Blocks of {dtype} along axis {axis}, not {out.dtype}, {out.axis}")
    if (out.microexponents is None) == ("microexponents" in dtype.fields):
        lacks = "is missing" if out.microexponents is None else f"cannot be: {dtype} has none"
        raise NumericsError(f"out.microexponents {lacks}")


def check_apart(parts: Mapping[str, Any]) -> None:
    """Raises NumericsError where two of these outputs share memory."""
    names = [name for name, part in parts.items() if part is not None]
    for count, name in enumerate(names):
        for other in names[:count]:
            if overlap(parts[name], parts[other]):
                raise NumericsError(f"{name} and {other} share memory; give them apart")


# ---- where things lie --------------------------------------------------------------------------------


def place(x: Any) -> Array:
    """The memory of an array or a tensor on any device, as an array that is never read."""
    if not is_tensor(x):
        return np.asarray(x)
    if x.numel() == 0:
        return np.empty(tuple(x.shape), np.uint8)
    size = x.dtype.itemsize
    interface = {
        "version": 3, "typestr": f"|V{size}", "data": (x.data_ptr(), True), "shape": tuple(x.shape),
        "strides": tuple(step * size for step in x.stride()),
    }  # fmt: skip
    return np.asarray(SimpleNamespace(__array_interface__=interface))


def overlap(one: Any, other: Any) -> bool:
    """Do they share memory?"""
    a, b = place(one), place(other)
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=cast(Any, WORK))
    except np.exceptions.TooHardError:
        return True


def _folded(x: Array) -> bool:
    """Do elements of it lie over each other, as those of broadcast arrays do?"""
    if x.size < 2:
        return False
    steps = sorted((abs(step), size) for step, size in zip(x.strides, x.shape, strict=True) if size > 1)
    apart, reach = True, x.itemsize
    for step, size in steps:
        apart, reach = apart and step >= reach, reach + step * (size - 1)
    if apart or reach < x.size * x.itemsize:
        return not apart
    places = np.zeros(1, np.int64)
    for step, size in steps:
        places = (places[:, None] + step * np.arange(size)).reshape(-1)
    return bool((np.diff(np.sort(places)) < x.itemsize).any())
