"""Pieces of tensors for the explorer: which ones, and all that is said of each of their numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

from numerics.backends.partition import Partition
from numerics.conform.deviations import elements
from numerics.conform.deviations.deviation import as_values, bent
from numerics.conform.deviations.table import DIALECTS
from numerics.conform.task import Task
from numerics.draw.grids import Array, Rounded, differing, partition_of, scales, tensor_scale
from numerics.formats.block import Block, MicroexponentBlock, element_of
from numerics.formats.dtype import Integer
from numerics.formats.errors import NumericsError
from numerics.formats.rounding import DETERMINISTIC
from numerics.quantization import quantize
from numerics.tensor.spec import QuantSpec
from numerics.view.describe import bit_fields

PIECE = 32  # elements: as many as the blocks of OCP MX have
LONGEST = 256
FEW = 1 << 16  # elements that are looked at together
DEVIATED = 2  # pieces of a tensor for which the judge is asked, which takes its time


@dataclass(frozen=True)
class Chosen:
    """Pieces of a tensor: elements in a row along its last axis.

    length: elements of a piece; count: pieces that there are.  at: the index of the first element of each
    that is shown; rows: their elements, those at the end of a line padded with zeros; sizes: without padding.
    asked: how many of them, the first ones, are there since they were asked for; worst: how many of those
    that follow since they lose most.
    """

    length: int
    count: int
    at: list[list[int]]
    rows: Array
    sizes: list[int]
    worst: int
    asked: int = 0

    @property
    def inside(self) -> Array:
        """Of each place of each piece: is it an element, and no padding?"""
        found: Array = np.arange(self.length) < np.array(self.sizes)[:, None]
        return found

    @property
    def indices(self) -> list[Array]:
        """The indices of the elements of each piece, an array for each axis; padding repeats the last one."""
        *at, first = (axis[:, None] for axis in np.array(self.at).T)
        last = np.array(self.sizes)[:, None] - 1
        return [*at, first + np.minimum(np.arange(self.length), last)]

    def fewer(self, most: int) -> list[int]:
        """Which of them are shown where so many fit: what was asked for, some that lose most, some spread."""
        every, asked = len(self.at), min(self.asked, most)
        if every <= most:
            return list(range(every))
        most -= asked
        first, last = self.asked, self.asked + self.worst
        worst = min(self.worst, -(-most // 2))
        others = np.linspace(last, every - 1, min(most - worst, every - last))
        return [*range(asked), *range(first, first + worst), *others.astype(int).tolist()]


def check_pieces(specs: list[QuantSpec], axes: int, own: int = 1) -> int:
    """Returns how long a piece is; raises NumericsError for formats that have none along the last axis.

    own: how many elements share what is stored; pieces end between those unless they were too long.
    """
    length = math.lcm(PIECE, *(spec.block.block for spec in specs if spec.blocked))
    if length > LONGEST:
        names = ", ".join(str(spec.dtype) for spec in specs)
        raise NumericsError(
            f"{names}: a piece of {length} elements would not fit; at most {LONGEST}: fewer formats"
        )
    _check_lines(specs, axes)
    whole = math.lcm(length, own)
    return whole if whole <= LONGEST else length


def chosen(x: Array, y: Array, length: int, most: int, asked: Sequence[int] = ()) -> Chosen:
    """The pieces of x with these numbers, those that lose most where it becomes y, and others spread over it.

    At most so many in all; those asked for come first.
    """
    line = x.shape[-1]
    a_line = -(-line // length)
    lines, starts = x.reshape(-1, line), np.arange(0, line, length)
    share = _share_lost(lines, y.reshape(-1, line), starts).ravel()
    asked = list(asked)[:most]
    most -= len(asked)
    share[asked] = -1  # they are here already
    worst = np.argsort(-share, kind="stable")[: -(-most // 2)]
    worst = worst[share[worst] > 0]
    others = np.delete(np.arange(share.size), [*worst.tolist(), *asked])
    spread = np.linspace(0, others.size - 1, min(most - worst.size, others.size)).astype(int)
    places = [*asked, *worst.tolist(), *others[spread].tolist()]
    rows, at, sizes = np.zeros((len(places), length), held_as(x)), [], []
    for k, place in enumerate(places):
        row, first = place // a_line, place % a_line * length
        own = lines[row, first : first + length]
        rows[k, : len(own)] = own
        sizes.append(len(own))
        at.append([*map(int, np.unravel_index(row, x.shape[:-1] or (1,))), first][-x.ndim :])
    return Chosen(length, share.size, at, rows, sizes, len(worst), len(asked))


def _share_lost(lines: Array, made: Array, starts: Array) -> Array:
    """Of each piece of each line the share of its power that is lost, a few lines at a time.

    What they become in between is then in the caches.  Of a piece in which a finite number became NaN or Inf
    all is lost, and more: inf.
    """
    share, step = np.empty((len(lines), len(starts))), max(1, FEW // lines.shape[1])
    for few in (slice(first, first + step) for first in range(0, len(lines), step)):
        signal = lines[few].astype(np.float64)
        error = made[few] - signal
        if lines.dtype == np.float64:  # whose squares may be beyond it
            power = _powers(signal, starts)
            error, signal = np.ldexp(error, power), np.ldexp(signal, power)
        noise, signal = _power(error, starts), _power(signal, starts)
        share[few] = noise / np.maximum(signal, 1e-300)
        if not np.isfinite(made[few]).all():
            gone = np.isfinite(lines[few]) & ~np.isfinite(made[few])
            share[few][np.logical_or.reduceat(gone, starts, axis=1)] = math.inf
    return share


def held_as(x: Array) -> type[np.floating[Any]]:
    """The type of floats that holds each number of an array: what is wider than float32 is float64."""
    return np.float64 if x.dtype.itemsize > 4 else np.float32


def _powers(x: Array, starts: Array) -> Array:
    """The powers of 2 that bring the largest finite number of each piece near 1, for each number of it."""
    largest = np.maximum.reduceat(np.where(np.isfinite(x), np.abs(x), 0), starts, axis=1)
    found: Array = np.repeat(-np.frexp(largest)[1], np.diff([*starts, x.shape[1]]), axis=1)
    return found


def _power(x: Array, starts: Array) -> Array:
    """The sums of squares of the pieces of each line; what is not finite counts 0.  x is overwritten."""
    with np.errstate(over="ignore", invalid="ignore"):
        sums: Array = np.add.reduceat(np.square(x, out=x), starts, axis=1)
        if not np.isfinite(sums).all():
            sums = np.add.reduceat(np.nan_to_num(x, posinf=0.0), starts, axis=1)
    return sums


def _check_lines(specs: list[QuantSpec], axes: int) -> None:
    """Raises NumericsError for blocks that are no neighbours in a line, or whose lines share scales."""
    for spec in specs:
        if spec.blocked and spec.axis not in (-1, axes - 1):
            raise NumericsError(
                f"{spec!r}: pieces lie along the last axis, as its blocks must: explore the tensor transposed"
            )
        if spec.blocked and spec.rows > 1:
            raise NumericsError(
                f"{spec!r}: rows of blocks that share a scale cannot be explored; "
                "nx.draw.block(nx.quantize(x, spec)) draws one of them"
            )


@dataclass(frozen=True)
class Looked:
    """What is asked of a whole tensor in a format before its pieces are encoded: all but its numbers.

    said: what the page says of all of it.  tensor_scales: of block formats the scale of the tensor by each
    rule, None where there is none.  unit, zero: of other formats what each element of the pieces shares;
    starts: where in a piece.  deviations: of the first pieces what known deviations make.
    """

    spec: QuantSpec
    picked: Chosen
    said: dict[str, Any]
    tensor_scales: dict[str, float | None]
    unit: Array | None
    zero: Array | None
    starts: list[list[int]]
    deviations: dict[str, Array]

    @property
    def alike(self) -> tuple[Any, ...]:
        """Pieces of tensors of which this is the same are encoded by one call."""
        zero = None if self.zero is None else self.zero.dtype
        return (
            self.spec, self.picked.length, self.picked.rows.dtype, zero, tuple(self.tensor_scales.items())
        )  # fmt: skip


def looked(found: Rounded, spec: QuantSpec, picked: Chosen, *, deviations: bool) -> Looked:
    """Returns what the page asks of a whole tensor in a format, which is then needed no more."""
    said = {
        "sqnr": found.sqnr, "bits": found.q.bits, "clipped": found.clipped.size / found.data.size,
        "format": str(spec.dtype), "integers": integers_of(spec),
        "blocks": spec.block.block if spec.blocked else picked.length,
        **({"lost": found.lost} if found.lost else {}),
    }  # fmt: skip
    if spec.blocked:
        d, rules = spec.block, dict.fromkeys([spec.scale_rule, *_variants(spec)[1]])
        by_rule = {rule: tensor_scale(found.data, d, rule) for rule in rules}
        deviated = _deviated(found, spec, picked) if deviations else {}
        return Looked(spec, picked, said, by_rule, None, None, [], deviated)
    unit, zero = (np.where(picked.inside, field, 1.0) for field in found.shared(picked.indices))
    stored = None if found.q.zero_point is None else zero.astype(np.asarray(found.q.zero_point).dtype)
    starts = starts_of(partition_of(found.q), found.data.ndim - 1, picked)
    return Looked(spec, picked, said, {}, unit, stored, starts, {})


def coded(every: Sequence[Looked]) -> list[dict[str, Any]]:
    """What formats make of tensors' pieces, of each in its order: everything that the page says of it.

    Pieces of one format are encoded together, whatever tensor they are of: a page has thousands of them.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, one in enumerate(every):
        groups.setdefault(one.alike, []).append(place)
    made: dict[int, dict[str, Any]] = {}
    for places in groups.values():
        made |= zip(places, _coded([every[place] for place in places]), strict=True)
    return [made[place] for place in range(len(every))]


def _coded(alike: Sequence[Looked]) -> Iterator[dict[str, Any]]:
    """What one format makes of pieces that one call encodes, tensor by tensor."""
    encode = cache(_encoder(alike))
    spec = alike[0].spec
    first = encode(spec)
    roundings, rules = _variants(spec)
    others = Others(
        {mode: encode(asked).y for mode, asked in roundings.items()},
        {rule: encode(asked) for rule, asked in rules.items()},
    )
    start = 0
    for one in alike:
        pieces = [
            _piece(start + k, size, first, others) | _differing(k, size, first.y[start + k], one.deviations)
            for k, size in enumerate(one.picked.sizes)
        ]
        start += len(pieces)
        yield {**one.said, "pieces": pieces}


@lru_cache(maxsize=64)
def _variants(spec: QuantSpec) -> tuple[dict[str, QuantSpec], dict[str, QuantSpec]]:
    """The same options with every rounding, and with every scale rule where there are several."""
    rules = spec.block.scale_rules if spec.blocked else ()
    return (
        {mode: spec.replace(rounding=mode) for mode in DETERMINISTIC},
        {rule: spec.replace(scale_rule=rule) for rule in rules} if len(rules) > 1 else {},
    )


@dataclass(frozen=True)
class Encoded:
    """Pieces in a format: values of float32 or float64, codes, their bits by field, what elements share.

    scale: of each piece those of its elements, in their order; scale_codes, micro, zero: beside them, where
    the format has them.  starts: the places in a piece where each scale begins; None for whole blocks.
    """

    y: Array
    codes: Array
    bits: Callable[[int], str]
    scale: list[list[float]]
    scale_codes: list[list[int]] | None = None
    micro: list[list[int]] | None = None
    zero: list[list[float]] | None = None
    starts: list[list[int]] | None = None

    def own(self, k: int, size: int) -> dict[str, Any]:
        """What the page says of a piece by itself, its elements in columns."""
        codes = self.codes[k, :size].tolist()
        said: dict[str, Any] = {
            "c": codes, "b": [self.bits(code) for code in codes],
            "y": self.y[k, :size].astype(np.float64).tolist(), "s": self.scale[k],
        }  # fmt: skip
        for name, field in (("sc", self.scale_codes), ("m", self.micro), ("z", self.zero)):
            if field is not None:
                said[name] = field[k]
        if self.starts is not None and len(self.starts[k]) > 1:
            said["g"] = self.starts[k]
        return said


def starts_of(shares: Partition, axis: int, picked: Chosen) -> list[list[int]]:
    """The places in each piece, along that axis, where elements begin that share another scale."""
    if shares.axis is None or (shares.size is None and shares.axis != axis):
        return [[0]] * len(picked.at)
    every = shares.sharing(axis)
    return [[0, *range(every - at[-1] % every, size, every)]
            for at, size in zip(picked.at, picked.sizes, strict=True)]  # fmt: skip


def at_starts(field: Array, starts: list[list[int]]) -> list[list[Any]]:
    """What elements share, [pieces, length], once for those that share it."""
    return [row[places].tolist() for row, places in zip(field, starts, strict=True)]


@dataclass(frozen=True)
class Others:
    """What else could have become of the same rows: by rounding, by scale rule."""

    roundings: dict[str, Array]
    rules: dict[str, Encoded]


def _encoder(alike: Sequence[Looked]) -> Callable[[QuantSpec], Encoded]:
    """Encodes pieces as the whole tensors were: with their own scales where they are not the blocks'."""
    spec = alike[0].spec
    rows = np.concatenate([one.picked.rows for one in alike])
    if spec.blocked:
        d, scale_by = spec.block, alike[0].tensor_scales
        sizes = [size for one in alike for size in one.picked.sizes]
        return lambda asked: _blocks(d, asked, rows, sizes, scale_by[asked.scale_rule])
    unit, zero = _joined([one.unit for one in alike]), _joined([one.zero for one in alike])
    assert unit is not None
    starts = [places for one in alike for places in one.starts]
    units, zeros = at_starts(unit, starts), None if zero is None else at_starts(zero, starts)

    def encode(asked: QuantSpec) -> Encoded:
        if not spec.scaled:  # a cast
            q = quantize(rows, asked)
        else:
            each = asked.replace(scheme="per_group(1)")
            given: dict[str, Any] = {} if zero is None else {"zero_point": zero}
            q = quantize(rows, each, scale=unit.astype(rows.dtype), **given)
        return Encoded(
            np.asarray(q.decoded()), np.asarray(q.codes), fields_of(spec), units, zero=zeros, starts=starts
        )

    return encode


def _joined(fields: Sequence[Array | None]) -> Array | None:
    """What the elements of several tensors' pieces share, one below the other; None where nothing is."""
    kept = [field for field in fields if field is not None]
    return np.concatenate(kept) if kept else None


def integers_of(spec: QuantSpec) -> list[int] | None:
    """Of codes that are integers: their bits, and 1 where the first one is a sign; None for others."""
    element = element_of(spec.dtype)
    return [element.bits, int(element.signed)] if isinstance(element, Integer) else None


def fields_of(spec: QuantSpec) -> Callable[[int], str]:
    """What spells a code of a format by its fields; of elements that are read in two ways the sign alone."""
    element = element_of(spec.dtype)
    if element is not None:
        return lambda code: " ".join(part for _, part in bit_fields(code, element))
    width = spec.block.element_bits
    return lambda code: f"{code >> width - 1:b} {code & (1 << width - 1) - 1:0{width - 1}b}"


def _blocks(
    d: Block, asked: QuantSpec, rows: Array, sizes: Sequence[int], of_tensor: float | None
) -> Encoded:
    made = d.encode(rows, scale_rule=asked.scale_rule, rounding=asked.rounding, tensor_scale=of_tensor)
    micro = made.microexponents if isinstance(d, MicroexponentBlock) else None
    shared = [
        None if field is None else _unpadded(np.asarray(field), d.block, sizes)
        for field in (scales(d, made), made.scale, micro)
    ]
    return Encoded(
        np.asarray(d.decode(made)), np.asarray(made.codes), fields_of(asked), shared[0] or [], *shared[1:]
    )


def _unpadded(field: Array, block: int, sizes: Sequence[int]) -> list[list[Any]]:
    """What blocks share, without those that are padding alone."""
    return [row[: -(-size // block)].tolist() for row, size in zip(field, sizes, strict=True)]


def _deviated(found: Rounded, spec: QuantSpec, picked: Chosen) -> dict[str, Array]:
    """What each known deviation would have returned for the first pieces, by its name.

    Nothing where those are no numbers of float32, which is what is known to come to them.
    """
    d = spec.block
    of_tensor = found.q.blocks.tensor_scale if d.has_tensor_scale else None
    task = Task(d, "round", spec.rounding, "saturate", spec.scale_rule, -1, of_tensor)
    with np.errstate(over="ignore"):
        rows = picked.rows[:DEVIATED].astype(np.float32)
    if not np.array_equal(rows, picked.rows[:DEVIATED], equal_nan=True):
        return {}
    blocks = rows.reshape(-1, d.block) if rows.shape[1] % d.block == 0 else rows
    values: dict[str, Array] = {}
    for dialect in DIALECTS:
        if dialect.applies(task):
            with np.errstate(all="ignore"):
                y = as_values(task, bent(elements.exact, [dialect.deviation])(task, blocks, None))
            values[str(dialect)] = y.reshape(rows.shape)
    return values


def _piece(k: int, size: int, first: Encoded, other: Others) -> dict[str, Any]:
    """A piece, and of other options only what differs, by the place of the element."""
    y = first.y[k, :size]
    said = first.own(k, size)
    said["r"] = {mode: differing(y, found[k, :size]) for mode, found in other.roundings.items()}
    if other.rules:
        said["rules"] = {
            rule: {"s": found.scale[k], "y": differing(y, found.y[k, :size])}
            for rule, found in other.rules.items()
        }
    return said


def _differing(k: int, size: int, y: Array, deviations: dict[str, Array]) -> dict[str, Any]:
    """What known deviations make of a tensor's k-th piece, which became y: nothing of what nobody asked."""
    if not deviations or k >= DEVIATED:
        return {}
    every = {name: differing(y[:size], found[k, :size]) for name, found in deviations.items()}
    return {"d": {name: found for name, found in every.items() if found}}
