"""One tensor from one file into another, a piece at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.float_bits import bits_of
from numerics.backends.host.ieee import ieee_arithmetic
from numerics.backends.host.quantizing import Clipped, Prepared, wide_type
from numerics.backends.host.sums import CHUNK
from numerics.backends.host.tensors import number_of
from numerics.backends.partition import Partition
from numerics.files.chunks import Piece, joined, random_bits, runs, shape_of, size
from numerics.files.header import Plan
from numerics.files.safetensors import Reader, Writer, word_type
from numerics.files.stretches import Joined, Stretch
from numerics.formats import dispatch
from numerics.formats.block import Block
from numerics.formats.errors import NumericsError
from numerics.formats.protocol import Given, Parts
from numerics.formats.rounding import Draw
from numerics.observe import observer
from numerics.tensor.parts import SCALE_CODECS, check_numbers
from numerics.tensor.qtensor import ArrayQTensor, ErrorSums, Figures, host_of
from numerics.tensor.spec import QuantSpec

T = TypeVar("T")
Array = NDArray[Any]
Done = Callable[[str, int], None]  # tensor, bytes of the source done since the last call


@dataclass(frozen=True)
class Shared:
    """Scales and zero points as a QTensor has them, and a tensor's one scale."""

    scale: Array | None = None
    zero: Array | None = None
    tensor_scale: float | None = None

    @classmethod
    def read(cls, reader: Reader, plan: Plan) -> Shared:
        """Returns the scales and zero points of a whole tensor, read from its file."""
        words = {part: reader.words(plan.names[part]) for part in plan.parts if part != "codes"}
        scale = words.get("scale")
        if scale is not None and not plan.spec.blocked and plan.scale_type in SCALE_CODECS:
            scale = cast(Array, SCALE_CODECS[plan.scale_type].decode(scale.view(f"u{scale.itemsize}")))
        tensor_scale = number_of(words["tensor_scale"]) if "tensor_scale" in words else None
        if tensor_scale is not None and not 0 < tensor_scale < 2.0**128:
            raise NumericsError(f"{reader.path}: {plan.names['tensor_scale']!r} is {tensor_scale}, no scale")
        zero = words.get("zero_point")
        try:
            check_numbers(plan.spec, plan.original, {"shared": scale, "zero_point": zero})
        except NumericsError as wrong:
            raise NumericsError(f"{reader.path}: tensor {plan.names['codes']!r}: {wrong}") from None
        return cls(scale, zero, tensor_scale)

    def of(self, plan: Plan, piece: Piece) -> Shared:
        """Returns the scales and zero points of one piece of the tensor."""
        index = _shared_index(plan, piece)
        scale, zero = (None if array is None else array[index] for array in (self.scale, self.zero))
        return Shared(scale, zero, self.tensor_scale)


def _shared_index(plan: Plan, piece: Piece) -> Piece:
    """Where among the scales of a tensor those of a piece are."""
    if _spans(plan):
        channel = plan.spec.scheme_of_elements.partition(plan.shape).axis
        return () if channel is None else (piece[channel],)
    if plan.spec.blocked:
        sizes = [plan.spec.block.block if axis == plan.axis else 1 for axis in range(len(piece))]
    else:
        sizes = list(map(plan.spec.partition(plan.shape).sharing, range(len(piece))))
    return tuple(
        slice(part.start // size, -(-part.stop // size)) for part, size in zip(piece, sizes, strict=True)
    )


def _spans(plan: Plan) -> bool:
    """May a scale belong to several pieces?"""
    return not plan.spec.blocked and plan.spec.partition(plan.shape).size is None


def qtensor(plan: Plan, shape: tuple[int, ...], packed: Array, shared: Shared) -> ArrayQTensor:
    """A tensor, or a piece of one, that was stored by that plan."""
    parts = Parts(packed, shared.scale, shared.zero, shared.tensor_scale, shape, plan.original)
    return ArrayQTensor.fitting(plan.spec, parts)


# ---- floats to codes ----------------------------------------------------------------------------


CACHED = 1 << 19  # elements of a part: whatever is done to it is done while a cache holds it
PARTS = 16  # of a tensor that has so many anyway they are longer: each costs what it costs to begin one
ERRORS = {"all": 1, "sampled": 16, "none": 0}
"""Of how many pieces one is measured, by the word that asks for it; 0: of none."""
SAMPLED = 1 << 18  # elements of a part, where parts are measured by sample


@dataclass(frozen=True)
class Stream:
    """From one file into another.

    most: elements at work at once, about; done: told of what was read; errors: which parts are measured
    (ERRORS).
    """

    reader: Reader
    writer: Writer
    most: int
    done: Done
    errors: str = "all"

    def part(self, plan: Plan) -> int:
        """Elements of a part of a tensor, about."""
        return min(self.most, SAMPLED) if self.errors == "sampled" else self.longest(plan)

    def longest(self, plan: Plan) -> int:
        """Elements of a part of a tensor that is not measured, about."""
        return min(self.most, max(CACHED, min(2 * CACHED, math.prod(plan.shape) // PARTS)))


@dataclass(frozen=True)
class Scales:
    """What finds the scales of a tensor, where that is not its spec alone.

    tensor_scale: NVFP4's, shared with other tensors.  observer: of `nx.observe`, which sees the whole tensor.
    """

    tensor_scale: float | None = None
    observer: str | None = None


NO_SCALES = Scales()


def encode(stream: Stream, name: str, plan: Plan, seed: int | None, scales: Scales = NO_SCALES) -> ErrorSums:
    """Quantizes a tensor piece by piece; returns how far the values moved, of those that were measured."""
    reader, done = stream.reader, stream.done
    every, part = ERRORS[stream.errors], stream.part(plan) // plan.padding
    source = _Source(
        reader, name, plan, stream.most // plan.padding, part, scales.observer, CHUNK if every == 1 else 1,
        max(every, 1), stream.longest(plan) // plan.padding,
    )  # fmt: skip
    writing, sums = _Writing(stream.writer, plan), Joined(every == 1)
    tensor_scale = scales.tensor_scale
    spanning = _spanning(source) if tensor_scale is None else Shared(tensor_scale=tensor_scale)
    clipped = Clipped(plan.spec.element) if plan.spec.clips else None
    for made in source.each(_Encoding(source, writing, spanning, seed, every)):
        if clipped is not None:
            clipped.count += made.clipped
            clipped.size += made.size
        if made.errors is not None:
            sums.add(made.errors)
        done(name, made.size * reader.entries[name].itemsize)
    writing.put_spanning(spanning)
    if clipped is not None:
        clipped.say(f"tensor {name!r}: ")
    return sums.end()


class _Place(NamedTuple):
    """A part of a tensor: which, what of each axis it has, and how much of the tensor is stored before it.

    first: elements before it; codes: bytes of their codes; scales: how many of their own they have.
    """

    number: int
    piece: Piece
    first: int
    codes: int
    scales: int


class _Made(NamedTuple):
    """A part, quantized and written: its elements, what an unsigned format loses, how far they moved."""

    size: int
    clipped: int
    errors: Stretch | None


@dataclass(frozen=True)
class _Encoding:
    """What writes a part's codes, on any thread.  every: of how many parts one is measured; 0: none is."""

    source: _Source
    writing: _Writing
    spanning: Shared
    seed: int | None
    every: int

    def __call__(self, place: _Place) -> _Made:
        source, spec = self.source, self.source.plan.spec
        data = source.piece(place.piece)
        clipped = Clipped(spec.element) if spec.clips else None
        if clipped is not None:
            clipped.add(data)
        seed = self.seed
        draw = Draw(bits=None if seed is None else random_bits(seed, source.plan.shape, place.piece))
        measured = bool(self.every) and place.number % self.every == 0
        first = place.first if self.every == 1 else 0
        ends = measured and self._ends_chunks(first, data)
        q, figures = self._quantized(data, place.piece, draw, ends)
        self.writing.put(q, place.codes, place.scales)
        errors = figures and Stretch.whole(figures)
        if measured and not ends:
            errors = self._errors(first, data, q)
        return _Made(data.size, clipped.count if clipped else 0, errors)

    def _quantized(
        self, data: Array, piece: Piece, draw: Draw, measured: bool
    ) -> tuple[ArrayQTensor, Figures | None]:
        """A piece, and the figures of its chunks where it is measured."""
        spec, original = self.source.plan.spec, self.source.plan.original
        given, came = _given(self.source, data, piece, self.spanning), Prepared(data, original)
        owner = dispatch.owner(data)
        if not measured:
            return ArrayQTensor.of_parts(
                spec, owner.quantize_prepared(came, spec, given, draw, whole=False)
            ), None
        parts, chunks = owner.quantize_measured(came, spec, given, draw)
        q = ArrayQTensor.of_parts(spec, parts)
        return q, q._figures(data) if chunks is None else Figures.of_chunks(chunks, data.size)

    def _errors(self, first: int, data: Array, q: ArrayQTensor) -> Stretch:
        """In the order in which elements are stored, in which all parts follow each other."""
        x, y = (array.transpose(self.source.plan.cut.order).reshape(-1) for array in (data, q.decoded()))
        return Stretch.of(x, y, first)

    def _ends_chunks(self, first: int, data: Array) -> bool:
        """Is a part that begins with that element stored as it lies, and has it no chunk with another one?"""
        plan = self.source.plan
        if plan.cut.order != tuple(range(len(plan.shape))) or first % CHUNK:
            return False
        return data.size % CHUNK == 0 or self.every != 1 or first + data.size == math.prod(plan.shape)


def _at(work: Callable[[_Place], T], places: list[_Place], number: int) -> T:
    return work(places[number])


@dataclass(frozen=True)
class _Source:
    """A float tensor of a file, and what finds its scales, where it is not its spec.

    chunk: elements of which parts hold whole numbers, where that makes none twice as long.  every: of so many
    parts one is measured; the others are joined, to `longest` elements at most.
    """

    reader: Reader
    name: str
    plan: Plan
    most: int  # elements at work at once
    part: int
    observer: str | None = None
    chunk: int = 1
    every: int = 1
    longest: int = 0

    def pieces(self) -> Iterator[Piece]:
        return self.plan.cut.pieces(self.most)

    def each(self, work: Callable[[_Place], T]) -> Iterator[T]:
        """What comes of each part, in order; side by side as many as there is memory for."""
        host = host_of(np.empty(0, wide_type(self.plan.original)))
        for some in self._together():
            yield from host.each(partial(_at, work, some), len(some))

    def _together(self) -> Iterator[list[_Place]]:
        """Parts of at most so many elements that are at work at once."""
        some: list[_Place] = []
        spec, own = self.plan.spec, not _spans(self.plan)
        first = codes = scales = held = 0
        pieces = self.plan.cut.pieces(self.part, self.chunk, min(2 * self.part, self.most))
        for number, piece in joined(enumerate(pieces), self.every, self.longest):
            shape, count = shape_of(piece), size(piece)
            if some and held + count > self.most:
                yield some
                some, held = [], 0
            some.append(_Place(number, piece, first, codes, scales))
            first, held, codes = first + count, held + count, codes + spec.packed_bytes(shape)
            scales += math.prod(spec.shared_shape(shape)) if own else 0
        if some:
            yield some

    def piece(self, piece: Piece) -> Array:
        """float32, or float64 where the tensor is."""
        words, codec = self._words(piece), SCALE_CODECS.get(self.plan.original)
        if codec is not None:
            return cast(Array, codec.decode(np.ascontiguousarray(words).view(f"u{words.itemsize}")))
        return words.astype(wide_type(self.plan.original), order="C", copy=False)

    def _words(self, piece: Piece) -> Array:
        """Read where it lies in one stretch; else gathered from the mapped file."""
        entry = self.reader.entries[self.name]
        stretches = list(islice(runs(self.plan.shape, piece), 2))
        if len(stretches) != 1:
            self.reader.check_size()
            return self.reader.words(self.name)[piece]
        first, count = stretches[0]
        raw = self.reader.read(self.name, first * entry.itemsize, (first + count) * entry.itemsize)
        return raw.view(word_type(entry.dtype)).reshape(shape_of(piece))


def _given(source: _Source, data: Array, piece: Piece, spanning: Shared) -> Given:
    """What is given of a piece: the scales that it shares with others, where it does."""
    plan = source.plan
    if _spans(plan) and plan.spec.scaled:
        own = spanning.of(plan, piece)
        return Given(own.scale, own.zero)
    if source.observer is not None and data.size:
        return _observed(source, [data])
    return Given(tensor_scale=spanning.tensor_scale)


def _spanning(source: _Source) -> Shared:
    """What pieces share, found by reading them all once; nothing where each finds its own."""
    plan = source.plan
    if isinstance(plan.dtype, Block):
        return _tensor_scale(source, plan.spec) if plan.dtype.has_tensor_scale else Shared()
    if not _spans(plan):
        return Shared()
    return _found(source) if source.observer is None or not plan.spec.scaled else _watched(source)


def _observed(source: _Source, pieces: Iterable[Array]) -> Given:
    """The scales and zero points that an observer finds, which sees these pieces."""
    watching = observer(cast(str, source.observer), source.plan.spec)
    for data in pieces:
        watching.observe_prepared(Prepared(data, source.plan.original))
    return Given(watching.scale, watching.zero_point) if watching.batches else Given()


def _watched(source: _Source) -> Shared:
    """What pieces share, found by an observer: of some channels at a time, so that its memory is bounded."""
    plan, partition = source.plan, source.plan.spec.partition(source.plan.shape)
    if 0 in plan.shape:
        return _found(source)
    axis, count = partition.axis, math.prod(partition.shared)
    step = max(source.most * count // math.prod(plan.shape), 1)
    scale = np.ones(partition.shared, wide_type(plan.original))
    zero = None if plan.spec.symmetric else np.zeros(partition.shared, plan.spec.zero_point_type)
    for start in range(0, count, step):
        channels = slice(start, min(start + step, count))
        index = () if axis is None else (channels,)
        found = _observed(source, map(source.piece, _within(source.pieces(), axis, channels)))
        scale[index] = found.scale
        if zero is not None:
            zero[index] = found.zero_point
    return Shared(scale, zero)


def _within(pieces: Iterable[Piece], axis: int | None, channels: slice) -> Iterator[Piece]:
    """What the pieces have of some channels."""
    for piece in pieces:
        if axis is None:
            yield piece
            continue
        start, stop = max(piece[axis].start, channels.start), min(piece[axis].stop, channels.stop)
        if start < stop:
            yield (*piece[:axis], slice(start, stop), *piece[axis + 1 :])


@dataclass(frozen=True)
class _Extremes:
    """What finds the least and largest values of a part, on any thread, and where among the scales they go.

    whole: those of the part as a whole.
    """

    source: _Source
    whole: bool = False

    def __call__(self, place: _Place) -> tuple[Piece, tuple[Array, Array]]:
        plan, data = self.source.plan, self.source.piece(place.piece)
        partition = (
            Partition(data.shape) if self.whole else plan.spec.scheme_of_elements.partition(data.shape)
        )
        with ieee_arithmetic():
            found = dispatch.owner(data).extremes(data, partition)
        return () if self.whole else _shared_index(plan, place.piece), found


def _found(source: _Source) -> Shared:
    plan, scheme = source.plan, source.plan.spec.scheme_of_elements
    if not plan.spec.scaled:  # nothing is looked for
        return Shared(np.ones(scheme.partition(plan.shape).shared, wide_type(plan.original)))
    low = np.zeros(scheme.partition(plan.shape).shared, wide_type(plan.original))
    high, backend = np.zeros_like(low), dispatch.owner(low)
    options = plan.spec.affine_options(plan.original)
    with ieee_arithmetic():
        for index, (least, largest) in source.each(_Extremes(source)):
            low[index], high[index] = np.minimum(low[index], least), np.maximum(high[index], largest)
        affine = backend.find_affine(low, high, plan.spec.element, options)
    return Shared(affine.scale, affine.zero)


def _tensor_scale(source: _Source, spec: QuantSpec) -> Shared:
    """The scale of the whole tensor: that of a block with its largest magnitude."""
    made = spec.block.encode(_amax(source), scale_rule=spec.scale_rule)
    return Shared(tensor_scale=made.tensor_scale)


def _amax(source: _Source) -> Array:
    amax = np.zeros(1, wide_type(source.plan.original))
    with ieee_arithmetic():
        for _, (low, high) in source.each(_Extremes(source, whole=True)):
            amax = np.maximum(amax, np.maximum(-low, high))
    return amax


def amax_of(reader: Reader, name: str, plan: Plan, most: int) -> Array:
    """Returns the largest finite magnitude of a tensor, [1], read piece by piece."""
    return _amax(_Source(reader, name, plan, most // plan.padding, min(most, CACHED) // plan.padding))


@dataclass(frozen=True)
class _Writing:
    """What writes the parts of one tensor, in any order."""

    writer: Writer
    plan: Plan

    def put(self, q: ArrayQTensor, codes: int = 0, scales: int = 0) -> None:
        """A piece's codes, and its scales where they are its own: after so many bytes, and so many scales."""
        self._put("codes", codes, q.packed)
        if not _spans(self.plan):
            self._put_shared(Shared(q.shared, q.zero_point), scales)

    def put_spanning(self, shared: Shared) -> None:
        """What the pieces share."""
        self._put_shared(shared, 0)
        if shared.tensor_scale is not None:
            self._put("tensor_scale", 0, np.uint32(bits_of(shared.tensor_scale)))

    def _put_shared(self, shared: Shared, before: int) -> None:
        scale, zero = shared.scale, shared.zero
        if scale is not None:
            words = scale if self.plan.spec.blocked else self._scale_words(scale)
            self._put("scale", before * words.itemsize, words)
        if zero is not None:
            words = zero.astype(np.float32) if zero.dtype.kind == "f" else zero
            self._put("zero_point", before * words.itemsize, words)

    def _scale_words(self, scale: Array) -> Array:
        kind = self.plan.scale_type
        return cast(Array, SCALE_CODECS[kind].encode(scale) if kind in SCALE_CODECS else scale.astype(kind))

    def _put(self, part: str, start: int, data: Any) -> None:
        self.writer.put(self.plan.names[part], start, np.asarray(data))


def store(writer: Writer, plan: Plan, q: ArrayQTensor) -> None:
    """A whole tensor that is quantized already."""
    writing = _Writing(writer, plan)
    writing.put(q)
    spanning = Shared(q.shared, q.zero_point) if _spans(plan) else Shared()
    writing.put_spanning(replace(spanning, tensor_scale=q.tensor_scale))


# ---- codes to floats ----------------------------------------------------------------------------


def decode(stream: Stream, name: str, plan: Plan) -> None:
    """Writes the floats of a tensor, piece by piece."""
    reader, done = stream.reader, stream.done
    shared, start = Shared.read(reader, plan), 0
    for piece in plan.cut.pieces(stream.most // plan.padding):
        shape = shape_of(piece)
        stop = start + plan.spec.packed_bytes(shape)
        packed = reader.read(plan.names["codes"], start, stop)
        reader.check_size()  # the scales are views
        q = qtensor(plan, shape, packed, shared.of(plan, piece))
        _put_values(stream.writer, name, plan, piece, _words(q))
        done(name, stop - start)
        start = stop
    done(name, sum(plan.parts[part].nbytes for part in plan.parts if part != "codes"))


def _words(q: ArrayQTensor) -> Array:
    """The values as the original type's bits."""
    codec, values = SCALE_CODECS.get(q.original), q.decoded()
    return values.astype(q.original, copy=False) if codec is None else cast(Array, codec.encode(values))


def _put_values(writer: Writer, name: str, plan: Plan, piece: Piece, words: Array) -> None:
    flat, taken = words.reshape(-1), 0
    for first, count in runs(plan.shape, piece):
        writer.put(name, first * words.itemsize, flat[taken : taken + count])
        taken += count
