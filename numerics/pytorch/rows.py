"""Rows of QTensors as bytes, cut and joined again: what shards and collectives send."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from numerics.formats.errors import NumericsError
from numerics.tensor import slicing
from numerics.tensor.parts import PARTS

Parts = dict[str, Tensor]


def cut_along_first(q: Any) -> tuple[Parts, Parts]:
    """Its tensors whose first index goes with the tensor's, each as rows; and the others."""
    q.check_whole()
    bits = slicing.bits_of_index(q)
    if bits is None or bits % 8:
        raise NumericsError(
            f"{q!r} cannot be cut along axis 0: its rows are not whole bytes of their own; "
            "shard another axis, or pad rows to whole bytes"
        )
    cut: Parts = {"packed": q.packed.reshape(q.shape[0], bits // 8)}
    whole: Parts = {}
    for name in PARTS[1:]:
        part = getattr(q, name)
        if part is not None:
            (cut if slicing.shared_along(q, 0) and name != "tensor_scale" else whole)[name] = part
    return cut, whole


def joined(rows: int, cut: Parts, whole: Parts) -> Parts:
    """Returns the parts of a tensor of so many rows, of what `cut_along_first` gave."""
    kept = {name: part[:rows] for name, part in cut.items()}
    kept["packed"] = kept["packed"].reshape(-1)
    return kept | whole
