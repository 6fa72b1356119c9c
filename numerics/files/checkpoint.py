"""Checkpoints larger than memory: a .safetensors file into a format, and back, piece by piece.

What is written is itself a .safetensors file of plain integer and float tensors, with one JSON text
(header.py) that says everything needed to decode it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from numerics.backends.host.memory import taken_again
from numerics.files.header import KEY, ORIGINALS, Plan, already_quantized, plans_of, text_of
from numerics.files.replacement import refuse_same_file
from numerics.files.safetensors import BITS, Entry, Reader, Writer
from numerics.files.selection import Selection, chosen_axis, per_output_channel, says_no_axis, tiles_of_kernel
from numerics.files.signals import terminable
from numerics.files.stream import NO_SCALES, Scales, Stream, decode, encode
from numerics.files.ties import ties_of
from numerics.formats.errors import NumericsError
from numerics.formats.rounding import check_random
from numerics.tensor.qtensor import ErrorSums
from numerics.tensor.scheme import Scheme
from numerics.tensor.spec import QuantSpec

Array = NDArray[Any]
PathLike = str | os.PathLike[str]
Progress = Callable[[str, int, int], None]  # tensor, bytes of the source done, bytes in all

MAX_MEMORY = 64 << 20
BYTES_PER_ELEMENT = 32  # of a piece at work: input, rows, codes, output, float64 error
COPY = 1 << 22  # bytes at a time


@dataclass(frozen=True)
class TensorReport:
    """What became of one tensor; dtype, sqnr (dB), max_error, non_finite, lost are None where it was copied.

    sqnr, max_error, non_finite: as those of `Error`; where values were NaN or Inf, no sqnr says that the
    tensor is exact.  lost: how many finite values became NaN or Inf, which leaves no sqnr and max_error.
    axis: along which its blocks or groups lie, where that is not the last one.  why: it was copied.  short:
    which of its groups or blocks have fewer elements than asked, as "last groups of 72".
    """

    name: str
    shape: tuple[int, ...]
    dtype: str | None
    bits: float
    sqnr: float | None
    max_error: float | None
    bytes_before: int
    bytes_after: int
    axis: int | None = None
    why: str | None = None
    non_finite: int | None = None
    short: str | None = None
    lost: int | None = None

    @property
    def measured(self) -> bool:
        """Was it quantized, and is there something to say of its values, or of a NaN that was made?"""
        if self.sqnr is None or self.max_error is None or (self.non_finite or 0) == math.prod(self.shape):
            return False
        return not math.isnan(self.sqnr) or math.isnan(self.max_error)


@dataclass
class FileReport:
    """What became of a file: its tensors, and the sums over all finite values that were quantized."""

    tensors: list[TensorReport] = field(default_factory=list)
    sums: ErrorSums = field(default_factory=ErrorSums)

    @property
    def bytes_before(self) -> int:
        """Bytes of the tensors as they were."""
        return sum(tensor.bytes_before for tensor in self.tensors)

    @property
    def bytes_after(self) -> int:
        """Bytes of the tensors as they became."""
        return sum(tensor.bytes_after for tensor in self.tensors)

    @property
    def bits(self) -> float:
        """Bits a value of those that were quantized."""
        quantized = [tensor for tensor in self.tensors if tensor.dtype]
        count = sum(math.prod(tensor.shape) for tensor in quantized)
        return 8 * sum(tensor.bytes_after for tensor in quantized) / count if count else 0.0


Note = Callable[[FileReport, Path], object]  # what became of a file, which is whole and has not its name yet


@dataclass(frozen=True)
class RestoreReport:
    """What became of a quantized file: how many tensors came back, how many were copied, bytes."""

    restored: int
    copied: int
    bytes_before: int
    bytes_after: int

    def __str__(self) -> str:
        sizes = f"{self.bytes_before:,} bytes became {self.bytes_after:,}"
        return f"{self.restored} tensors dequantized, {self.copied} copied; {sizes}"


def quantize_file(
    source: PathLike,
    target: PathLike,
    dtype: Any,
    *,
    scheme: Scheme | str | None = None,
    symmetric: bool = True,
    scale_type: str | None = None,
    zero_point_type: str = "int32",
    rounding: str = "half_even",
    scale_rule: str = "floor",
    axis: int | None = None,
    seed: int | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    progress: Progress | None = None,
    max_memory: int = MAX_MEMORY,
) -> FileReport:
    """Writes a .safetensors file with its weights in a format, as `quantize` would make each of them.

    Float tensors of two and more dimensions are quantized, all others copied; so are those that would
    not get smaller, and the report says why.  include: fnmatch patterns of the names to quantize instead,
    of whatever dimensions, or of their layers; exclude: of what is copied.  axis: of blocks; where neither
    it nor the scheme says one, the last axis if a block or group fits on it, else a longer one (chosen_axis),
    as in the kernels of convolutions.  seed: every tensor draws as `quantize(x, seed=seed)` does.  progress:
    called with a tensor's name, and the bytes of the source done and in all.  max_memory: bytes of working
    memory, about; larger tensors are cut between blocks and groups, and read twice where a scale spans
    the pieces.
    The target appears when it is whole, with the mode and owner of what it replaces; after an error,
    Ctrl-C or a signal that ends processes what was there before is untouched.  Returns what became of
    every tensor.  Raises NumericsError for a source that is damaged or was quantized already, here or by
    another tool, a target that is the source or cannot be written, patterns that match nothing or nothing
    that can be quantized, and options that do not fit (naming the tensor).
    """
    spec = QuantSpec(
        dtype, scheme=scheme, symmetric=symmetric, scale_type=scale_type, zero_point_type=zero_point_type,
        rounding=rounding, scale_rule=scale_rule, axis=-1 if axis is None else axis,
    )  # fmt: skip
    check_random(spec.rounding, seed, None)
    refuse_same_file(source, target)
    reader = Reader(source)
    if KEY in reader.metadata:
        raise NumericsError(already_quantized(source))
    chosen = Selection(reader, include, exclude, ties_of(reader, reader.entries))
    plans = _plans(chosen, spec, free=axis is None and (scheme is None or says_no_axis(scheme)))
    return write_quantized(reader, target, Work(plans, chosen.why, seed, max_memory), progress)


@dataclass(frozen=True)
class Work:
    """What is done to the tensors of one file.

    plans: of those that are quantized; why: the others are copied; seed: of those whose rounding is
    stochastic; max_memory: bytes, about; errors: which pieces are measured (stream.ERRORS).  scales: of
    tensors whose spec alone does not find them.
    """

    plans: Mapping[str, Plan]
    why: Mapping[str, str]
    seed: int | None = None
    max_memory: int = MAX_MEMORY
    errors: str = "all"
    scales: Mapping[str, Scales] = field(default_factory=dict)


def write_quantized(
    reader: Reader, target: PathLike, work: Work, progress: Progress | None = None, note: Note | None = None
) -> FileReport:
    """Writes one file by its plans, whole or not at all; returns what became of each tensor.

    note: told what became of the tensors, and the whole file, before the file gets its name.
    Raises NumericsError where the source changes while it is read, and as `quantize_file` does.
    """
    plans = work.plans
    metadata = {**reader.metadata, **({KEY: text_of(plans, work.seed)} if plans else {})}
    report, done = FileReport(), _Progress(progress, reader.entries)
    before = None if note is None else partial(note, report)
    made = Writer(target, _entries(reader.entries, plans), metadata, before)
    with terminable(), taken_again(), made as writer:
        stream = Stream(reader, writer, most(work.max_memory), done.add, work.errors)
        for name, entry in reader.entries.items():
            if name in plans:
                seed = work.seed if plans[name].spec.rounding == "stochastic" else None
                sums = encode(stream, name, plans[name], seed, work.scales.get(name, NO_SCALES))
                report.sums.merge(sums)
                report.tensors.append(_quantized(name, entry, plans[name], sums))
            else:
                _copy(reader, writer, name, done)
                report.tensors.append(_copied(name, entry, work.why.get(name)))
        reader.check_unchanged()
    return report


def is_ours(source: PathLike) -> bool:
    """Is it a file that `quantize_file` made?  False for whatever is no .safetensors file."""
    if os.path.isdir(source):
        return False
    try:
        return KEY in Reader(source).metadata
    except NumericsError:
        return False


def dequantize_file(
    source: PathLike, target: PathLike, *, progress: Progress | None = None, max_memory: int = MAX_MEMORY
) -> RestoreReport:
    """Writes the floats of a quantized file, in the types that they had; all else is copied.

    Streams and replaces as `quantize_file` does, and returns what it did.  Raises NumericsError for a
    source that is damaged or was not made by it, and for a target that is the source or cannot be written.
    """
    refuse_same_file(source, target)
    reader = Reader(source)
    if KEY not in reader.metadata:
        raise NumericsError(
            f"{source} was not made by `numerics quantize`: nothing to dequantize here; "
            "what other tools quantized is read by `numerics dequantize`, and from Python by "
            "numerics.checkpoints.converting.dequantize"
        )
    plans = plans_of(reader.metadata[KEY], reader.entries, source)
    metadata = {key: text for key, text in reader.metadata.items() if key != KEY}
    types = {name: kind for kind, name in ORIGINALS.items()}
    restored = {name: Entry(types[plan.original], plan.shape) for name, plan in plans.items()}
    entries = {name: reader.entries[name] for name in plain_names(reader, plans)} | restored
    done = _Progress(progress, reader.entries)
    with terminable(), Writer(target, entries, metadata) as writer:
        stream = Stream(reader, writer, most(max_memory), done.add)
        for name in plain_names(reader, plans):
            _copy(reader, writer, name, done)
        for name, plan in plans.items():
            decode(stream, name, plan)
    before, after = (sum(entry.nbytes for entry in every.values()) for every in (reader.entries, entries))
    return RestoreReport(len(plans), len(entries) - len(plans), before, after)


def most(max_memory: int) -> int:
    """Elements of a piece; raises NumericsError where there is no memory to work with."""
    if max_memory < BYTES_PER_ELEMENT:
        raise NumericsError(f"max_memory={max_memory} bytes are too few; at least {BYTES_PER_ELEMENT}")
    return max_memory // BYTES_PER_ELEMENT


# ---- which tensors, and what they become --------------------------------------------------------


def _plans(chosen: Selection, spec: QuantSpec, free: bool) -> dict[str, Plan]:
    """What the chosen tensors become; free: the axis may be chosen for each."""
    entries, taken = chosen.reader.entries, set(chosen.reader.entries)
    plans: dict[str, Plan] = {}
    for name in chosen.names:
        plan = plan_of(name, entries[name], spec, free, name in chosen.layouts.first)
        try:
            if isinstance(plan, str):
                chosen.leave(name, plan)
            else:
                plans[name] = plan.named(taken)
        except NumericsError as wrong:
            raise NumericsError(f"tensor {name!r}: {wrong}") from None
    return plans


def plan_of(name: str, entry: Entry, spec: QuantSpec, free: bool, first: bool = False) -> Plan | str:
    """Returns how a tensor is stored by a spec, or why it is not: no fewer bytes, or tiles over a kernel.

    free: the axis of blocks and groups may be chosen.  first: its inputs come before its outputs.  Raises
    NumericsError, naming the tensor, for a spec that does not fit it.
    """
    try:
        plan = Plan(spec, entry.shape, ORIGINALS[entry.dtype], {"codes": name})
        if tiles := tiles_of_kernel(plan):
            return tiles
        if free:
            plan = per_output_channel(plan, first)
            plan = plan.along(chosen_axis(plan, first)) if plan.size and spec.rows == 1 else plan
        plan.check_padding()
        return plan if plan.nbytes < entry.nbytes or not entry.nbytes else _growth(plan, entry)
    except NumericsError as wrong:
        raise NumericsError(f"tensor {name!r}: {wrong}") from None


def _growth(plan: Plan, entry: Entry) -> str:
    bits = 8 * plan.nbytes / math.prod(entry.shape)
    return f"{plan.dtype} would take {bits:.4g} bits a value, and it has {BITS[entry.dtype]}"


def _entries(before: Mapping[str, Entry], plans: Mapping[str, Plan]) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for name, entry in before.items():
        if name in plans:
            found |= {plans[name].names[part]: made for part, made in plans[name].parts.items()}
        else:
            found[name] = entry
    return found


def plain_names(reader: Reader, plans: Mapping[str, Plan]) -> list[str]:
    """The tensors that are no part of a quantized one."""
    parts = {name for plan in plans.values() for name in plan.names.values()}
    return [name for name in reader.entries if name not in parts]


def _quantized(name: str, entry: Entry, plan: Plan, sums: ErrorSums) -> TensorReport:
    after, count, error = plan.nbytes, math.prod(entry.shape), sums.error
    bits = 8 * after / count if count else 0.0
    axis = None if plan.axis == len(plan.shape) - 1 else plan.axis
    some = bool(sums.count) or not count  # was any of it measured?
    return TensorReport(
        name, entry.shape, plan.dtype.name, bits, error.sqnr if some else None,
        error.max_error if some else None, entry.nbytes, after, axis,
        non_finite=error.non_finite if some else None, short=plan.spec.short(plan.shape) or None,
        lost=sums.lost if some else None,
    )  # fmt: skip


def _copied(name: str, entry: Entry, why: str | None) -> TensorReport:
    bits = float(BITS[entry.dtype])
    return TensorReport(name, entry.shape, None, bits, None, None, entry.nbytes, entry.nbytes, why=why)


class _Progress:
    """Tells a callback how many bytes of the source are done."""

    def __init__(self, callback: Progress | None, entries: Mapping[str, Entry]) -> None:
        self.callback, self.done = callback, 0
        self.total = sum(entry.nbytes for entry in entries.values())

    def add(self, name: str, nbytes: int) -> None:
        self.done += nbytes
        if self.callback is not None:
            self.callback(name, self.done, self.total)


def _copy(reader: Reader, writer: Writer, name: str, done: _Progress) -> None:
    nbytes = reader.entries[name].nbytes
    for start in range(0, nbytes, COPY):
        part = reader.read(name, start, min(start + COPY, nbytes))
        writer.put(name, start, part)
        done.add(name, part.size)
