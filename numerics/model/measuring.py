"""What is measured of models: how far results are apart, and which values scales cut off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from numerics.backends.host.tensors import as_array
from numerics.model.wrapped.quantizers import Learned, Quantizer, Static
from numerics.tensor.qtensor import ErrorSums


def within(one: Quantizer | Learned, x: Tensor) -> Tensor:
    """Which values of x lie within what the quantizer can say."""
    scale = zero = of_tensor = None
    if isinstance(one, Static):
        scale, zero, of_tensor = one.scale, one.zero_point, one.tensor_scale
    elif isinstance(one, Learned):
        scale = one.learns.scale
    found: Tensor = torch.ops.numerics.within_range(x.detach(), one.spec.text, scale, zero, of_tensor)
    return found


def add(sums: ErrorSums, expected: Any, actual: Any) -> None:
    """Adds the tensors of floats of two results that correspond."""
    for x, y in zip(floats_in(expected), floats_in(actual), strict=False):
        if x.shape == y.shape:
            sums.add(_array(x), _array(y))


def _array(x: Tensor) -> Any:
    """The values as float32, or float64 where that is it."""
    x = x.detach().cpu()
    return as_array(x if x.dtype is torch.float64 else x.float())


def floats_in(tree: Any) -> list[Tensor]:
    """The tensors of floats in a result, complex ones as pairs of them."""
    found = []
    for x in pytree.tree_leaves(tree):
        if isinstance(x, Tensor):
            x = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
            found += [x.to_dense() if x.layout is not torch.strided else x] if x.is_floating_point() else []
        elif is_dataclass(x) and not isinstance(x, type):  # that torch's trees do not know
            found += floats_in([getattr(x, one.name) for one in fields(x)])
        elif isinstance(x, Mapping):
            found += floats_in([*x.values()])
    return found
