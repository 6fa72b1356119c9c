"""Parts of a quantized tensor, for every array library: slices, one index, and the flat view.

What shares a scale stays together: along a blocked axis a part begins and ends between blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, cast

from numerics.backends.partition import check_axis
from numerics.formats.block import Blocks
from numerics.formats.errors import NumericsError, integer, items_of, said
from numerics.tensor.scheme import per_channel, per_group, per_tensor
from numerics.tensor.spec import QuantSpec

Index = tuple[Any, ...]


class Quantized(Protocol):
    """What is cut: a QTensor (qtensor.py) of arrays or of tensors, by its parts."""

    spec: QuantSpec
    packed: Any
    shared: Any
    zero_point: Any
    tensor_scale: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor, as it was."""
        ...

    @property
    def codes(self) -> Any:
        """Unpacked, in the tensor's shape."""

    @property
    def blocks_alone(self) -> Blocks:
        """Codes and what blocks share, without the scale of a tensor."""
        ...

    def with_parts(
        self, spec: QuantSpec, shape: tuple[int, ...], packed: Any, shared: Any, zero_point: Any
    ) -> Any:
        """Returns one of the same kind, made of other parts."""

    def dequantize(self) -> Any:
        """Returns the values."""


def part(q: Quantized, index: Any) -> Any:
    """q[index]: integers, slices and `...`; of one element in a block the value: no block holds it alone."""
    places = _places(index, len(q.shape))
    if blocked_axes(q) and not any(isinstance(place, slice) for place in places):
        return _element(q, places)
    axis = 0
    for called, place in enumerate(places):
        if isinstance(place, slice):
            q, axis = sliced(q, axis, place, called), axis + 1
        else:
            q = selected(q, axis, place, called)
    return q


def _element(q: Quantized, places: list[Any]) -> Any:
    """The value at one place, of which no more than its block is decoded."""
    spans = []
    for axis, (place, length) in enumerate(zip(places, q.shape, strict=True)):
        size, found = sharing(q, axis), _inside(place, length, axis)
        spans.append((found // size * size, size, found % size))
    block = part(q, tuple(slice(start, start + size) for start, size, _ in spans))
    values = block.dequantize()
    for _, _, inside in spans:
        values = values[inside]
    return values


def sliced(q: Quantized, axis: int, places: slice, called: int | None = None) -> Any:
    """Some indices of an axis; raises NumericsError where they cut what shares a scale.

    called: the axis, as who asked counts it.
    """
    axis = check_axis(axis, tuple(q.shape))
    length, size = q.shape[axis], sharing(q, axis)
    start, stop, step = places.indices(length)
    count = len(range(start, stop, step))
    if not count:  # nothing lies everywhere, and cuts nothing
        start, stop, step = 0, 0, 1
    if (count, step) == (length, 1):
        return q.with_parts(q.spec, tuple(q.shape), q.packed, q.shared, q.zero_point)
    if size > 1 and (step != 1 or start % size or (stop % size and stop != length)):
        named = _named(q, axis, called)
        raise NumericsError(
            f"{start}:{stop}:{step} of {named} cuts the {size} elements that share a scale; "
            f"cut at multiples of {size}, or dequantize first"
        )
    before = (slice(None),) * axis
    elements = (*before, slice(start, None if stop < 0 else stop, step))
    shared = (*before, slice(start // size, -(-stop // size))) if size > 1 else elements
    if _is_a_line(q, axis):
        shared = ()  # which a line of no elements has, too
    shape = (*q.shape[:axis], count, *q.shape[axis + 1 :])
    return _taken(q, q.spec, shape, axis, (elements, shared))


def _is_a_line(q: Quantized, axis: int) -> bool:
    """Do all along that axis share a scale, however many there are, as those of a token do?"""
    return not q.spec.blocked and q.spec.scheme_of_elements.kind == "per_token" and axis == len(q.shape) - 1


def selected(q: Quantized, axis: int, place: int, called: int | None = None) -> Any:
    """One index of an axis, which goes; raises NumericsError for a blocked axis and beyond its end."""
    axis = check_axis(axis, tuple(q.shape))
    found = _inside(place, q.shape[axis], axis if called is None else called)
    if axis in blocked_axes(q):
        raise NumericsError(
            f"{_named(q, axis, called)} is the one along which scales are shared: slice it instead, or "
            "dequantize first"
        )
    where = ((slice(None),) * axis) + (found,)
    shape = (*q.shape[:axis], *q.shape[axis + 1 :])
    return _taken(q, _without(q, axis), shape, axis, (where, where))


def _named(q: Quantized, axis: int, called: int | None) -> str:
    """The axis in words.  torch takes q[0, :3] apart, so that q may be a view, whose axes count anew."""
    return f"axis {axis} of a tensor of shape {tuple(q.shape)}" if called is None else f"axis {called}"


def rows(q: Quantized, take: Callable[[Any], Any]) -> tuple[Any, Any, Any] | None:
    """Bytes, scales and zero points of some indices of the first axis; None where those are no whole bytes.

    take: gives of a part, whose first axis is the tensor's, the indices that are asked for.
    """
    bits = bits_of_index(q) if q.shape else None
    if bits is None or bits % 8 or 0 in blocked_axes(q):
        return None
    packed = take(q.packed.reshape(q.shape[0], bits // 8)).reshape(-1)
    beside = take if shared_along(q, 0) else (lambda part: part)
    shared, zero = (None if p is None else beside(p) for p in (q.shared, q.zero_point))
    return packed, shared, zero


def flattened(q: Quantized) -> Any:
    """Returns the same bytes in one dimension; None where elements that share a scale are not neighbours."""
    if len(q.shape) == 1:
        return q
    count = math.prod(q.shape)
    if q.spec.blocked:
        whole = blocked_axes(q) == (len(q.shape) - 1,) and q.shape[-1] % q.spec.block.block == 0
        spec = (q.spec.replace(scheme=None) if q.spec.rows > 1 else q.spec).with_axis(-1)
    else:
        partition = q.spec.partition(tuple(q.shape))
        whole, scales = partition.in_order and count > 0, math.prod(partition.shared)
        scheme = per_tensor() if partition.axis is None else per_group(max(count // max(scales, 1), 1))
        spec = q.spec.with_scheme(scheme)
    if not whole:
        return None
    flat = () if not spec.blocked and spec.scheme_of_elements == per_tensor() else (-1,)
    shared, zero = (None if p is None else p.reshape(flat) for p in (q.shared, q.zero_point))
    return q.with_parts(spec, (count,), q.packed, shared, zero)


def as_row(q: Quantized) -> Any:
    """Returns a tensor of one dimension as a matrix of one row: what `selected` made of that row."""
    spec = q.spec
    if spec.blocked:
        spec, along = spec.with_axis(-1), True
    else:
        scheme = spec.scheme_of_elements
        along = spec.partition(tuple(q.shape)).size is not None
        if scheme.axis is not None:
            spec = spec.with_scheme(per_channel(1) if scheme.size is None else per_group(scheme.size, 1))
    shared, zero = (p.reshape(1, -1) if along and p is not None else p for p in (q.shared, q.zero_point))
    return q.with_parts(spec, (1, *q.shape), q.packed, shared, zero)


def blocked_axes(q: Quantized) -> tuple[int, ...]:
    """The axes along which blocks or groups lie, from the front: none, one, or the last two."""
    if q.spec.blocked:
        return (check_axis(cast(int, q.spec.axis), tuple(q.shape)),)
    partition = q.spec.partition(tuple(q.shape))
    if partition.size is None or partition.axis is None:
        return ()
    return (partition.axis,) if partition.rows == 1 else (partition.axis - 1, partition.axis)


def sharing(q: Quantized, axis: int) -> int:
    """How many neighbours along that axis share a scale, where not all do: 1 but for the blocked axis."""
    if axis not in blocked_axes(q):
        return 1
    return q.spec.block.block if q.spec.blocked else q.spec.partition(tuple(q.shape)).sharing(axis)


def shared_along(q: Quantized, axis: int) -> bool:
    """Do the fields that elements share have that axis?"""
    if q.spec.blocked:
        return True
    partition = q.spec.partition(tuple(q.shape))
    return partition.axis is not None and (partition.size is not None or partition.axis == axis)


def _taken(
    q: Quantized, spec: QuantSpec, shape: tuple[int, ...], axis: int, places: tuple[Index, Index]
) -> Any:
    """What lies at the first of two places of the codes, and at the second of what blocks share."""
    elements, shared = places
    packed = _bytes(q, elements[0]) if axis == 0 else None
    if spec.blocked:
        packed = _packed_blocks(q, spec, elements, shared) if packed is None else packed
        return q.with_parts(spec, shape, packed, None if q.shared is None else q.shared[shared], None)
    packed = spec.element.pack(q.codes[elements]) if packed is None else packed
    partition = q.spec.partition(tuple(q.shape))
    channel = partition.axis
    if partition.size is None:  # one scale for all, or one for each index of an axis
        shared = elements[axis:] if channel == axis else ()
    scale, zero = (None if p is None else p[shared] for p in (q.shared, q.zero_point))
    return q.with_parts(spec, shape, packed, scale, zero)


def _packed_blocks(q: Quantized, spec: QuantSpec, elements: Index, shared: Index) -> Any:
    whole = q.blocks_alone
    micro = None if whole.microexponents is None else whole.microexponents[shared]
    codes, scale = whole.codes[elements], whole.scale[shared]
    return spec.block.pack(Blocks(spec.block, cast(int, spec.axis), codes, scale, micro))


def _bytes(q: Quantized, places: Any) -> Any:
    """The bytes of neighbouring indices of the first axis, where they are whole: a view, no copy."""
    span = places if isinstance(places, slice) else slice(places, places + 1, 1)
    bits = bits_of_index(q)
    if span.step != 1 or bits is None or bits * span.start % 8:
        return None
    if bits * span.stop % 8 and span.stop != q.shape[0]:
        return None
    return q.packed.reshape(-1)[bits * span.start // 8 : -(-bits * span.stop // 8)]


def bits_of_index(q: Quantized) -> int | None:
    """Bits of one index of the first axis; None where they do not lie together."""
    inner = math.prod(q.shape[1:])
    if not q.spec.blocked:
        return inner * q.spec.element.bits
    d, (axis,) = q.spec.block, blocked_axes(q)
    if d.scale_beside:
        return inner * d.element_bits
    lines = inner // max(q.shape[axis], 1)
    return None if axis == 0 else 8 * d.bytes_per_block * lines * -(-q.shape[axis] // d.block)


def _inside(place: int, length: int, axis: int) -> int:
    """An index of an axis, from the front."""
    if not -length <= place < length:
        raise NumericsError(f"index {said(place)} is outside axis {axis}, which has {length}")
    return place % length


def _without(q: Quantized, axis: int) -> QuantSpec:
    """The spec of what is left when an axis goes."""
    spec, ndim = q.spec, len(q.shape)
    if spec.blocked:
        spec = (
            spec.replace(scheme=None) if spec.rows > 1 and ndim == 2 else spec
        )  # what is left has no rows to share with
        return spec.with_axis(_renumbered(cast(int, spec.axis), axis, ndim))
    scheme = spec.scheme_of_elements
    if scheme.kind in ("per_token", "per_block"):
        return spec  # of the last axes, which stay
    if scheme.axis is None or spec.partition(tuple(q.shape)).axis == axis:
        return spec.with_scheme(per_tensor())
    kept = _renumbered(scheme.axis, axis, ndim)
    return spec.with_scheme(per_channel(kept) if scheme.size is None else per_group(scheme.size, kept))


def _renumbered(axis: int, gone: int, ndim: int) -> int:
    """What an axis is called when another is gone."""
    if axis < 0:
        return axis if ndim + axis > gone else axis + 1
    return axis - (axis > gone)


def _places(index: Any, ndim: int) -> list[Any]:
    """An index as one integer or slice an axis."""
    given = tuple(items_of("index", index)) if isinstance(index, tuple) else (index,)
    count = sum(place is not Ellipsis for place in given)
    if count > ndim or len(given) - count > 1:
        raise NumericsError(f"{said(index)} does not fit {ndim} axes: one place an axis, and one ...")
    places: list[Any] = []
    for place in given if len(given) > count else (*given, Ellipsis):
        places += [slice(None)] * (ndim - count) if place is Ellipsis else [_place(place)]
    return places


def _place(place: Any) -> Any:
    if isinstance(place, slice):
        return place
    try:
        return integer("an index", place)
    except NumericsError:
        raise NumericsError(f"a QTensor takes integers, slices and ..., not {said(place)}") from None
