"""A tensor that is quantized already, for the explorer: the codes and the scales that it holds."""

from __future__ import annotations

from typing import Any

from numerics.backends.host.quantizing import to_host
from numerics.draw.grids import Array, partition_of, scales, shared_by
from numerics.draw.pieces import Chosen, Encoded, at_starts, fields_of, integers_of, starts_of
from numerics.tensor.qtensor import QTensor
from numerics.tensor.spec import QuantSpec


def axis_of_stored(q: QTensor) -> int:
    """The axis along which its pieces lie: that of its blocks or groups, or the last."""
    shares = partition_of(q)
    if shares.axis is None or shares.size is None:
        return max(len(q.shape) - 1, 0)
    return shares.axis


def sharing(q: QTensor) -> int:
    """How many neighbours along that axis share a scale; 1 where their number is no matter."""
    shares = partition_of(q)
    return 1 if shares.axis is None or shares.size is None else shares.group


def along_the_last(spec: QuantSpec) -> QuantSpec:
    """The same options where the axis of the blocks is the last one."""
    return spec.with_axis(-1) if spec.blocked else spec


def held(q: QTensor, axis: int, picked: Chosen, y: Array) -> dict[str, Any]:
    """What it holds, as the explorer's page takes it.  y: its values, [..., axis].

    Nothing is said of what was lost, nor of other roundings: nobody knows here what it was made of.
    """
    made = _encoded(q, axis, picked, y)
    return {
        "stored": _shared_in_words(q), "bits": q.bits, "format": str(q.format),
        "integers": integers_of(q.spec),
        "tensor_scale": None if q.tensor_scale is None else float(to_host(q.tensor_scale)),
        "pieces": [made.own(k, size) for k, size in enumerate(picked.sizes)],
    }  # fmt: skip


def _encoded(q: QTensor, axis: int, picked: Chosen, y: Array) -> Encoded:
    """Its codes and what they share at the pieces, read and not computed."""
    places, shares = picked.indices, partition_of(q)
    at = places[:-1]
    at.insert(axis, places[-1])
    starts = starts_of(shares, axis, picked)
    blocks = q.blocks if q.spec.blocked else None
    fields = [q.scale, None, None, q.zero_point]
    if blocks is not None:
        fields = [scales(q.spec.block, blocks), blocks.scale, blocks.microexponents, None]
    unit, codes, micro, zero = (
        None if field is None else at_starts(shared_by(field, shares, at), starts) for field in fields
    )
    own = to_host(q.codes).reshape(q.shape or (1,))[tuple(at)]
    return Encoded(
        y[tuple(places)], own, fields_of(q.spec), unit or [], _whole(codes), _whole(micro), zero, starts
    )


def _whole(fields: list[list[float]] | None) -> list[list[int]] | None:
    return None if fields is None else [[int(one) for one in row] for row in fields]


def _shared_in_words(q: QTensor) -> str:
    """By whom a scale is shared: "blocks of 32 along axis 1", or the scheme."""
    if not q.spec.blocked:
        return f"{q.scheme!r}{'' if q.zero_point is None else ', with zero points'}"
    rows = f", {q.spec.rows} rows of them a scale" if q.spec.rows > 1 else ""
    return f"blocks of {q.spec.block.block} along axis {axis_of_stored(q)}{rows}"
