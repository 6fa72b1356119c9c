"""What the hosts' tensors have in common: which elements share a scale, and how a type of floats is called.

A host says with a block, a size an axis, which elements share a scale; here it is a Scheme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from numerics.formats.errors import NumericsError, said
from numerics.pytorch.qtensor import FLOATS, TensorQTensor
from numerics.tensor.qtensor import QTensor, check_quantized
from numerics.tensor.scheme import Scheme, per_block, per_channel, per_group, per_tensor, per_token
from numerics.tensor.spec import QuantSpec

TYPES = {name: kind for kind, name in FLOATS.items()}


def tensor_of(host: str, q: Any) -> TensorQTensor:
    """q, where it is a QTensor of torch on the CPU or a GPU; raises NumericsError where it is not."""
    check_quantized(f"to_host of {host}", q)
    if not isinstance(q, TensorQTensor):
        raise NumericsError(f"{host} takes torch tensors, not NumPy's: nx.interop.as_tensors(q)")
    check_filled(host, q.shape)
    return q


def check_filled(host: str, shape: Sequence[int]) -> None:
    """Raises NumericsError for tensors without elements, whose scales no host has."""
    if not math.prod(shape):
        raise NumericsError(f"{host} has no tensor of no elements, as of {tuple(shape)}")


def name_of(kind: torch.dtype, what: str) -> str:
    """`float32` for torch's type; raises NumericsError for one that no QTensor stands for."""
    if kind not in FLOATS:
        raise NumericsError(f"{what} is {kind}; allowed are {said(sorted(TYPES))}")
    return FLOATS[kind]


def scheme_of(shape: Sequence[int], block: Sequence[int]) -> Scheme:
    """The scheme of scales for blocks of a shape; raises NumericsError where none makes them.

    >>> scheme_of((4, 64), (1, 64)), scheme_of((4, 64), (1, 32)), scheme_of((4, 64), (4, 64))
    (per_channel(0), per_group(32, axis=-1), per_tensor())
    >>> scheme_of((4, 8, 8), (2, 1, 1))
    per_group(2, axis=0)
    """
    shape, block = tuple(shape), tuple(min(one, size) for one, size in zip(block, shape, strict=True))
    whole = [one == size for one, size in zip(block, shape, strict=True)]
    if all(whole):
        return per_tensor()
    parted = [axis for axis, one in enumerate(whole) if not one]
    if len(parted) == 1 and block[parted[0]] == 1:
        return per_channel(parted[0])
    if all(one == 1 for one in block[:-1]):
        return per_token() if whole[-1] else per_group(block[-1])
    if all(one == 1 for one in block[:-2]):
        return per_block((block[-2], block[-1]))
    along = [axis for axis, one in enumerate(block) if one != 1]
    if len(along) == 1:
        return per_group(block[along[0]], axis=along[0])
    raise NumericsError(f"blocks of {block} elements of {shape} share no scale by a scheme of ours")


def block_of(q: QTensor) -> tuple[int, ...]:
    """Which elements of q share a scale, as a size an axis.

    Raises NumericsError where the last block of an axis would be cut.

    >>> import torch, numerics as nx
    >>> block_of(nx.quantize(torch.ones(4, 64), "int4", scheme=nx.per_group(32)))
    (1, 32)
    """
    scheme, shape = q.spec.scheme_of_elements, tuple(q.shape)
    if scheme.kind == "per_tensor":
        return shape
    block = [1] * len(shape)
    if scheme.kind == "per_channel":
        block = list(shape)
        block[cast(int, scheme.axis)] = 1
    elif scheme.kind == "per_group":
        block[cast(int, scheme.axis)] = cast(int, scheme.size)
    else:
        sizes = (shape[-1],) if scheme.block is None else scheme.block
        block[-len(sizes) :] = sizes
    block = [min(one, size) for one, size in zip(block, shape, strict=True)]
    if any(size % one for one, size in zip(block, shape, strict=True)):
        raise NumericsError(
            f"a host has no tensor of {q.spec!r}: {scheme!r} cuts the last group of {shape}; fill the axis up"
        )
    return tuple(block)


def scales_of(q: TensorQTensor) -> Tensor:
    """The scales with an axis for each of q's, as hosts keep them, in the type that q rounded them to."""
    grid = [size // one for size, one in zip(q.shape, block_of(q), strict=True)]
    scale = cast(Tensor, q.shared).reshape(grid)
    kind = q.spec.stored_scale_type(q.original)
    return scale.to(TYPES[kind]) if kind in TYPES else scale


def zeros_of(q: TensorQTensor, kind: torch.dtype) -> Tensor:
    """The zero points in the shape of the scales; zeros where q is symmetric.

    Raises NumericsError for zero points that the type does not hold.
    """
    scale = scales_of(q)
    if q.zero_point is None:
        return torch.zeros(scale.shape, dtype=kind, device=scale.device)
    found = q.zero_point.reshape(scale.shape).to(kind)
    if not bool((found == q.zero_point.reshape(scale.shape)).all()):
        raise NumericsError(f"zero points of {q.zero_point.dtype} do not fit {kind}: use int32 ones")
    return found


def moved(zero: Tensor | None) -> Tensor | None:
    """Zero points, None where all are 0; raises NumericsError where they are no integers of 32 bits."""
    if zero is None or not bool(zero.any()):
        return None
    found = zero.to(torch.int32)
    if not bool((found == zero).all()):
        raise NumericsError("zero points that are no integers of 32 bits are not read from hosts")
    return found


def elements_of(dtype: Any, codes: Tensor, scale: Tensor, block: Sequence[int], **beside: Any) -> QTensor:
    """A QTensor of an element format: a code an element, a scale a block.

    beside: zero_point, in the shape of the scales; original, the type for which it stands.
    """
    zero = moved(beside.pop("zero_point", None))
    scheme = scheme_of(codes.shape, block)
    kind = _scale_type(scale, beside.get("original", "float32"))
    spec = QuantSpec(dtype, scheme=scheme, scale_type=kind, symmetric=zero is None)
    shape = spec.shared_shape(tuple(codes.shape))
    if math.prod(shape) != scale.numel():
        raise NumericsError(f"{scale.numel()} scales for {tuple(codes.shape)} in blocks of {tuple(block)}")
    wide = scale if scale.dtype == torch.float64 else scale.float()
    zero = None if zero is None else zero.reshape(shape)
    return QTensor.from_parts(spec, codes, wide.reshape(shape).contiguous(), zero_point=zero, **beside)


def _scale_type(scale: Tensor, original: str) -> str:
    """The scale type of a QTensor with scales of that type; raises NumericsError where there is none."""
    kind = name_of(scale.dtype, "the scale")
    if kind != "float64":
        return kind
    if original != kind:
        raise NumericsError(f"scales of float64 are those of a float64 tensor, not of a {original} one")
    return "float"  # the type of the tensor itself


def refuse(x: Any, names: Sequence[str]) -> None:
    """Raises NumericsError where x says one of these, which belong to inputs and not to a weight."""
    for name in names:
        if getattr(x, name, None) is not None:
            raise NumericsError(
                f"{type(x).__name__} has {name}, which is about inputs; a QTensor is a weight alone: "
                f"quantize weights only, or keep {name} beside it and set it to None"
            )


def no_form(host: str, q: QTensor, allowed: str) -> NumericsError:
    """The error for a QTensor of which the host has no tensor."""
    return NumericsError(f"{host} has no tensor of {q.spec!r}; it has them of {allowed}")
