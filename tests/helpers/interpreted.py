"""The GPU backend on NumPy arrays: Triton's interpreter runs its kernels, so every law is tried on them.

TRITON_INTERPRET=1 must stand before Triton is imported (conftest.py sees to it).  With
NUMERICS_TEST_DEVICE=cuda the kernels are compiled instead, and run on the GPU that is there.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import torch

from numerics.backends.gpu import BACKEND as GPU
from numerics.backends.host.arrays import take
from numerics.backends.host.executor import Affine
from numerics.backends.host.quantizing import Prepared
from numerics.formats.block import Blocks, PackedBlocks
from numerics.formats.protocol import Parts
from numerics.formats.rounding import BlockOptions, Draw, Rounding

DEVICE = os.environ.get("NUMERICS_TEST_DEVICE", "cpu")


def to_tensor(x: Any) -> Any:
    """The same memory as a tensor on the CPU, where strides allow; a copy on another device."""
    if isinstance(x, Blocks):
        parts = {name: to_tensor(getattr(x, name)) for name in ("codes", "scale", "microexponents")}
        return replace(x, **parts)
    if isinstance(x, Affine):
        return Affine(*(to_tensor(part) for part in x))
    if isinstance(x, (Rounding, BlockOptions)):
        return x._replace(draw=to_tensor(x.draw))
    if isinstance(x, PackedBlocks):
        return x._replace(packed=to_tensor(x.packed), scale=to_tensor(x.scale))
    if isinstance(x, (Parts, Prepared)):
        return type(x)(*map(to_tensor, x))
    if isinstance(x, Draw):
        return Draw(x.seed, None if x.bits is None else to_tensor(np.asarray(x.bits)))
    if not isinstance(x, np.ndarray):
        return x
    if any(stride < 0 for stride in x.strides) or not x.dtype.isnative:
        x = x.astype(x.dtype.newbyteorder("="), order="C", copy=True)
    if x.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16).to(DEVICE)
    return torch.from_numpy(x if x.flags.writeable else x.copy()).to(DEVICE)


def copy_back(came: Any, out: Any) -> Any:
    """What a call wrote into tensors of another device, written into the arrays that they stand for."""
    if isinstance(out, Blocks):
        for name in ("codes", "scale", "microexponents"):
            if getattr(out, name) is not None:
                copy_back(getattr(came, name), getattr(out, name))
    elif DEVICE != "cpu":
        out[...] = to_array(came, lambda result: result)
    return out


def to_array(result: Any, give: Any) -> Any:
    """A result in NumPy's kinds, then as `give` makes it."""
    if isinstance(result, Blocks):
        parts = {n: to_array(getattr(result, n), give) for n in ("codes", "scale", "microexponents")}
        return replace(result, **parts)
    if isinstance(result, tuple):
        parts = [to_array(part, give) for part in result]
        return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)
    if not isinstance(result, torch.Tensor):
        return result
    result = result.cpu()
    if result.dtype == torch.bfloat16:
        return give(result.view(torch.int16).numpy().view(ml_dtypes.bfloat16))
    return give(result.numpy())


def _plain(x: Any) -> tuple[Any, Any]:
    """Data of any kind as an array, and how to give a result back."""
    if isinstance(x, np.ndarray):
        return x, lambda result: result
    if isinstance(x, np.generic):
        return np.asarray(x), lambda result: result[()]
    if isinstance(x, Blocks):
        _, give = _plain(x.codes)
        made = {n: None if getattr(x, n) is None else np.asarray(getattr(x, n)) for n in
                ("codes", "scale", "microexponents")}  # fmt: skip
        return replace(x, **made), give
    if isinstance(x, PackedBlocks):
        packed, give = _plain(x.packed)
        return x._replace(
            packed=packed if isinstance(x.packed, np.ndarray) else packed.astype(np.int64)
        ), give
    try:
        return take(x)
    except ValueError:
        return np.asarray(x), lambda result: result.tolist()


class Interpreted:
    """A Backend for NumPy arrays around the one for tensors."""

    name = "interpreter"

    def check(self) -> None:
        """The interpreter is there."""

    def owns(self, x: Any) -> bool:
        """What the host's backends own."""
        return isinstance(x, (np.ndarray, np.generic, int, float, complex, list, tuple))

    def __getattr__(self, name: str) -> Any:
        method = getattr(GPU, name)

        def call(first: Any, *others: Any) -> Any:
            if name in ("prepare", "quantize", "native"):  # what they give are arrays, whatever came
                data = _plain(first)[0]
                return to_array(method(to_tensor(data), *map(to_tensor, others)), lambda result: result)
            if isinstance(first, (Parts, Prepared, Affine)):
                return to_array(method(to_tensor(first), *map(to_tensor, others)), lambda result: result)
            if name == "given_affine":  # scale and zero point come as NumPy's; only the data is the GPU's
                return to_array(method(first, *others[:-1], to_tensor(others[-1])), lambda result: result)
            data, give = _plain(first)
            if (
                name.startswith(("decode", "pack", "unpack"))
                and isinstance(data, np.ndarray)
                and not (isinstance(first, (np.ndarray, np.generic)))
            ):
                data = data.astype(np.int64)
            out = others[-1] if others and isinstance(others[-1], (np.ndarray, Blocks)) else None
            tensors = [to_tensor(other) for other in others]
            result = method(to_tensor(data), *tensors)
            if out is not None and not name.startswith("unpack"):
                return copy_back(tensors[-1], out)
            return to_array(result, give)

        return call


BACKEND = Interpreted()
