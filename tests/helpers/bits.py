"""Bits are equal or they are not; there is no tolerance."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def as_array(x: Any) -> np.ndarray:
    """The bits of an array, of a tensor, or of what NumPy makes an array of."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(x, torch.Tensor):
        return np.asarray(x)
    from numerics.backends.host import tensors

    return tensors.as_array(x.detach())


def assert_same_bits(came, due, inputs=None, on="") -> None:
    """Equal bit for bit; NaN by class (docs/formats.md §2).  on: which executor, for the message."""
    came, due = as_array(came), as_array(due)
    assert came.shape == due.shape
    assert came.dtype == due.dtype
    if came.dtype.kind == "f" or came.dtype.name == "bfloat16":
        unsigned = f"u{came.dtype.itemsize}"
        nan = np.isnan(came.astype(np.float64)), np.isnan(due.astype(np.float64))
        wrong = (nan[0] != nan[1]) | (~nan[0] & (came.view(unsigned) != due.view(unsigned)))
    else:
        wrong = came != due
    if wrong.any():
        at = np.argwhere(wrong)[0]
        place = tuple(at)
        source = "" if inputs is None else f" for {np.asarray(inputs)[place]!r}"
        on = f"on {on}: " if on else ""
        found = f"{came[place]!r}, not {due[place]!r}{source}"
        raise AssertionError(f"{on}{wrong.sum()} differ; at {place}: {found}")


def assert_same_bytes(came, due) -> None:
    """Equal bit for bit, those of NaN too."""
    came, due = np.asarray(came), np.asarray(due)
    assert (came.dtype, came.shape) == (due.dtype, due.shape)
    unsigned = f"u{came.itemsize}"
    differ = came.view(unsigned) != due.view(unsigned)
    assert not differ.any(), (came[differ][:3], due[differ][:3])
