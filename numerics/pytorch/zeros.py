"""QTensors of zeros: the codes that stand for 0, which is not code 0 everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from numerics.backends.broadcast import spread
from numerics.formats.block import ElementBlock
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError
from numerics.pytorch.qtensor import TensorQTensor
from numerics.tensor import slicing
from numerics.tensor.parts import parts_of

Fields = dict[str, Tensor | None]


def zeros(q: TensorQTensor, rows: int) -> TensorQTensor:
    """Returns a QTensor of zeros with q's spec and so many indices of the first axis, in memory of its own.

    What all rows share is copied from q: a scale, and a zero point, whose code is then written; where the
    zero point is no code, it becomes the nearest that is one.  In a format without zero the scales are 0.
    Raises NumericsError for blocks that can say no zero: of elements without one, with scales without one.
    """
    shape = (rows, *q.shape[1:])
    made = _room(q, shape)
    if q.spec.blocked:
        d = q.spec.block
        codes = _codes(shape, _block_code(d), q) if isinstance(d, ElementBlock) else None
    elif made["zero_point"] is not None:
        codes = _at_zero_point(q, shape, made)
    else:
        code, is_zero = _code(q.spec.element)
        if not is_zero:
            made["shared"] = torch.zeros_like(cast(Tensor, made["shared"]))
        codes = _codes(shape, code, q)
    if codes is not None:
        element = q.spec.block.element if q.spec.blocked else q.spec.element  # type: ignore[attr-defined]
        made["packed"] = element.pack(codes)
    return TensorQTensor(q.spec, shape, q.dtype, made)


def _room(q: TensorQTensor, shape: tuple[int, ...]) -> Fields:
    """The parts of such a shape: of zeros, but for what all rows share, which is q's."""
    along = slicing.shared_along(q, 0)
    made: Fields = {}
    for name, due in parts_of(q.spec, shape, q.original).items():
        part: Tensor = getattr(q, name)
        cut = name == "packed" or (along and name != "tensor_scale")
        made[name] = part.new_zeros(due.shape) if cut else part.clone()
    return {**dict.fromkeys(("zero_point", "tensor_scale", "shared")), **made}


def _code(d: Element) -> tuple[int, bool]:
    """The code of 0, and that it is; of a format without zero one of a number."""
    code = int(d.encode(0.0))
    if d.decode(code) == 0:
        return code, True
    return int(d.encode(d.max)), False


def _block_code(d: ElementBlock) -> int:
    """The code of elements that are 0 beside a scale whose code is 0."""
    code, is_zero = _code(d.element)
    if not is_zero and d.scale.decode(0) != 0:
        raise NumericsError(
            f"{d} has no zeros: neither its elements ({d.element}) nor its scales ({d.scale}) can be 0; "
            "allowed: zeros of a plain tensor, torch.zeros(...)"
        )
    return code


def _codes(shape: tuple[int, ...], code: int, q: TensorQTensor) -> Tensor | None:
    """One code everywhere; None for 0, which bytes of zeros are."""
    kind = q.spec.block.code_dtype if q.spec.blocked else q.spec.element.code_dtype
    if code == 0:
        return None
    return torch.full(shape, code, dtype=getattr(torch, kind), device=q.packed.device)


def _at_zero_point(q: TensorQTensor, shape: tuple[int, ...], made: Mapping[str, Any]) -> Tensor:
    """The code of the zero point, everywhere; moves the zero point where no code is it."""
    d: Any = q.spec.element
    zero = made["zero_point"]
    zero.copy_(zero.nan_to_num().round().clamp(d.min, d.max))
    codes = spread(zero.to(torch.int32) & ((1 << d.bits) - 1), q.spec.partition(shape))
    return codes.expand(shape).to(getattr(torch, d.code_dtype))
