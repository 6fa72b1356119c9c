"""Checkpoints of any kind into another kind, without rounding a number: `numerics convert`."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from numerics._version import __version__
from numerics.backends.paths import path_of
from numerics.checkpoints.beside import CONFIG, copy_beside
from numerics.checkpoints.foreign import GPT_OSS, lone_codes
from numerics.checkpoints.gguf_file import GGUFWriter, Kinded, scale_name, value_of_text
from numerics.checkpoints.inputs import keep_inputs, said_of_inputs
from numerics.checkpoints.journal import Journal, digest_of, making
from numerics.checkpoints.loading import Opened, OpenedGGUF, OpenedSafetensors, Stored, open_any
from numerics.checkpoints.pickles import OpenedPickles
from numerics.checkpoints.ranks import Ranks
from numerics.checkpoints.torchao_file import flattened, said_of_plain
from numerics.files.checkpoint import PathLike, Progress
from numerics.files.header import KEY, ORIGINALS, Plan, text_of
from numerics.files.replacement import Before, refuse_same_file, replace_file
from numerics.files.safetensors import PACKED, Entry, Writer
from numerics.files.save_load import entry_of, on_host, packed_of
from numerics.files.shards import SINGLE, needs_index, places_of, write_index
from numerics.files.signals import terminable
from numerics.files.stream import store
from numerics.files.ties import text_of as text_of_ties
from numerics.formats.arguments import keywords, named_fields
from numerics.formats.block import ElementBlock
from numerics.formats.errors import NumericsError, one_of, said
from numerics.formats.floats import fp8_e4m3, fp8_e5m2
from numerics.formats.text import json_in
from numerics.interop.ggml import ENCODERS, quantize_as_ggml
from numerics.interop.gguf import BLOCK, gguf_type, to_gguf
from numerics.pytorch.convert import as_tensors
from numerics.tensor.qtensor import ArrayQTensor, QTensor
from numerics.view.text import folded, many

Array = NDArray[Any]
SHARDED = OpenedSafetensors | OpenedPickles  # what may be a folder
KINDS = ("numerics", "safetensors", "compressed-tensors", "torchao", "gguf")
ARCHITECTURE = "general.architecture"
_GGML_NAME = re.compile(r"blk[.]|token_embd[.]|output[.]|v[.]blk[.]")
KIND_OF_DTYPE: Mapping[str, str] = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "I8", "int16": "I16",
    "int32": "I32", "int64": "I64",
}  # fmt: skip
"""The types of ggml's for plain numbers, by NumPy's names."""


@named_fields
@dataclass
class Converted:
    """What became of a checkpoint: each of its tensors, of several parts too, is in one of the first five.

    quantized: names of weights whose codes and scales were written, of `dequantize` their values.  plain:
    names of all that was not quantized.  left: weights that no QTensor holds, whose bytes were copied, and
    why.  decoded: weights that no QTensor holds, whose values were written as floats, and why.  made: float
    matrices that became a type of ggml's, where that was asked for, and which.
    rounded: weights whose values the target's readers find a little off, and by how much of themselves.
    widened: integers of fewer than 8 bits, and what they became.
    notes: what the source says or has that the target does not.  resumed: files that were done before.
    floats: was it `dequantize` that wrote them, so that none is quantized any more?
    """

    quantized: list[str] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    decoded: dict[str, str] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    rounded: dict[str, float] = field(default_factory=dict)
    widened: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    resumed: int = field(default=0, compare=False)
    floats: bool = False

    def __str__(self) -> str:
        if self.floats:
            return f"{many(len(self.quantized), 'tensor')} dequantized, {len(self.plain)} copied"
        quantized = len(self.quantized) + len(self.left) + len(self.decoded)
        found = [f"{len(self.left)} left as they were"] if self.left else []
        found += [f"{len(self.decoded)} decoded to floats"] if self.decoded else []
        of_them = f" ({', '.join(found)})" if found else ""
        made = "".join(f", {count} made {kind}" for kind, count in Counter(self.made.values()).items())
        return f"{many(quantized, 'quantized tensor')}{of_them}{made}, {many(len(self.plain), 'other')}"


@named_fields
@dataclass(frozen=True)
class Running:
    """How a conversion runs: progress, told of tensors done and in all; ranks: which process of how many."""

    progress: Progress | None = None
    ranks: Ranks = field(default_factory=Ranks)


ALONE = Running()


@keywords
def convert(
    source: PathLike, target: PathLike, to: str = "numerics", *, ggml: str | None = None,
    running: Running = ALONE,
) -> Converted:  # fmt: skip
    """Writes a checkpoint as another kind of file; codes and scales stay what they are.

    source: whatever `open_any` takes.  target: a file, or a folder where the source is one and for
    compressed-tensors.  to: "numerics", this package's safetensors, which hold every format; "safetensors",
    whose own types F4, F6, F8 hold the codes, with E8M0 scales beside; "compressed-tensors", a folder that
    transformers and vLLM load; "torchao", the tensors of that library, which must be installed; "gguf",
    llama.cpp's blocks, with all that a GGUF source says of itself.  A tensor at a time is in memory.
    ggml: Q8_0, Q4_0 or MXFP4, of "gguf" only: float matrices in whole blocks become that type as ggml's
    reference quantizer makes it, byte for byte; what else is there stays.
    running: who is told, and which of several processes this is.

    A folder is written as `quantize` writes one: shard by shard, a journal beside them until all is done, so
    that who was killed calls again with the same arguments; and ranks share its shards.  What cannot be is
    refused before the first byte, by the process whose shards have it.

    Weights of other tools that are no QTensor here are copied as they are into the first two, and refused by
    the others.  Raises NumericsError, naming the tensor, for a format that the target kind does not have:
    nothing is ever rounded to make it fit.

    >>> import numerics as nx, numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nx.save({"w": nx.quantize(np.ones((2, 64), np.float32), "mxfp4")}, f"{folder}/a.safetensors")
    ...     print(convert(f"{folder}/a.safetensors", f"{folder}/b.safetensors", "safetensors"))
    1 quantized tensor, 0 others
    """
    one_of("kind of file", to, KINDS)
    refuse_same_file(source, path_of(target))
    if ggml is not None:
        one_of("type of ggml's", ggml, ENCODERS)
        if to != "gguf":
            raise NumericsError(f"ggml={ggml!r} belongs to to='gguf', not to {to!r}")
    work = _Conversion(open_any(source, mapped=False), path_of(target), running, ggml)
    if to == "gguf":
        return work.gguf()
    return work.safetensors(_LAYOUTS[to])


@keywords
def dequantize(source: PathLike, target: PathLike, *, running: Running = ALONE) -> Converted:
    """Writes the floats of a quantized checkpoint of any kind that `open_any` takes, ours or another tool's.

    target: a file, or a folder where the source is one: shards keep their names, the index is written anew,
    configuration and tokenizer are copied, without `quantization_config`.  Each weight comes back in the
    float type that it stands for.  A tensor at a time is in memory; running, and what becomes of who is
    killed: as for `convert`.  Raises NumericsError, naming it, for a weight that stays codes, and where
    nothing is quantized; nothing is left of the target then.

    >>> import numerics as nx, numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nx.save({"w": nx.quantize(np.ones((2, 64), np.float32), "mxfp4")}, f"{folder}/a.safetensors")
    ...     dequantize(f"{folder}/a.safetensors", f"{folder}/b.safetensors").quantized
    ['w']
    """
    refuse_same_file(source, path_of(target))
    work = _Conversion(open_any(source, mapped=False), path_of(target), running)
    if not work.opened.quantized:
        raise NumericsError(
            f"{source} holds no quantized tensors: nothing to dequantize; `numerics convert` writes it as "
            "another kind of file"
        )
    found = work.safetensors(_floats)
    found.floats = True
    return found


Piece = tuple[Entry, Array]
Layout = Callable[["_Conversion", str, Any], dict[str, Piece]]


@dataclass
class _Look:
    """What becomes of the tensors of one file: its tensors, plans of ours, schemes of compressed-tensors.

    taken: names that no part of a tensor may get.  said: of each weight of torchao's, for the header.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)
    schemes: dict[str, Any] = field(default_factory=dict)
    found: Converted = field(default_factory=Converted)
    taken: set[str] = field(default_factory=set)
    said: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _File:
    """One file of the output: the tensors that go into it, and what it is made of."""

    name: str
    names: Sequence[str]
    sources: Mapping[str, os.stat_result]
    headers: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        """Bytes of what it is made of."""
        return sum(status.st_size for status in self.sources.values())

    @property
    def stamp(self) -> dict[str, Any]:
        """What a journal knows it by."""
        facts = {path: [status.st_size, status.st_mtime_ns] for path, status in self.sources.items()}
        return {"files": {Path(path).name: facts[path] for path in facts}, "headers": dict(self.headers)}

    def check_unchanged(self) -> None:
        """Raises NumericsError where a file that it is made of is another than it was."""
        for path, due in self.sources.items():
            try:
                now = os.stat(path)
            except OSError as wrong:
                raise NumericsError(f"cannot read {path}: {wrong.strerror or wrong}") from wrong
            if (now.st_size, now.st_mtime_ns) != (due.st_size, due.st_mtime_ns):
                raise NumericsError(f"cannot read {path}: it was changed while it was read; begin again")


@dataclass
class _Conversion:
    opened: Opened
    target: Path
    running: Running = ALONE
    ggml: str | None = None
    found: Converted = field(default_factory=Converted)
    look: _Look = field(default_factory=_Look)
    _done: int = 0
    _inputs_kept: bool = False

    # ---- safetensors ------------------------------------------------------------------------------

    def safetensors(self, layout: Layout) -> Converted:
        """One file, or the shards of a folder."""
        files = self._files()
        if len(files) > 1 or layout is _compressed or self._is_folder():
            return _Folder(self, layout, files).make()
        self.running.ranks.check_alone(self.target)
        self.look = self._looked(files[0], layout)
        self.found = self.look.found
        self._write(files[0], self.target, layout, len(files[0].names))
        self._note(False)
        return self.found

    def _is_folder(self) -> bool:
        return isinstance(self.opened, SHARDED) and self.opened.folder

    def _files(self) -> list[_File]:
        """The files of the output, with the tensors that go into each."""
        if not isinstance(self.opened, SHARDED):
            return [_File(SINGLE, self.opened.names, {str(self.opened.path): os.stat(self.opened.path)}, {})]
        named: dict[str, list[str]] = {}
        for name in self.opened.names:
            named.setdefault(self.opened.shard(name) if self.opened.folder else SINGLE, []).append(name)
        return [self._file(self.opened, shard, names) for shard, names in sorted(named.items())]

    def _file(self, opened: SHARDED, shard: str, names: list[str]) -> _File:
        if isinstance(opened, OpenedPickles):
            files = sorted({str(opened.source_of(name)) for name in names})
            return _File(shard, names, {file: os.stat(file) for file in files}, {})
        places = opened.source.shard_of
        used = {places[part].name: places[part] for name in names for part in opened.parts(name)}
        sources = {str(used[name].path): used[name].status for name in sorted(used)}
        return _File(shard, names, sources, {name: used[name].header for name in sorted(used)})

    def _looked(self, file: _File, layout: Layout) -> _Look:
        """What becomes of the tensors of a file: each is read once for it, and refused here if it is."""
        self.look = look = _Look(taken=set(self.opened.names))
        if layout is _torchao:
            look.said = said_of_plain(file.names)
        for name in file.names:
            for part, (entry, _) in self._pieces(name, layout).items():
                if part in look.entries:
                    raise NumericsError(f"{part!r} would stand for two tensors")
                look.entries[part] = entry
        return look

    def _write(
        self, file: _File, path: Path, layout: Layout, total: int, before: Before | None = None
    ) -> None:
        """Writes one file as it was looked at; its tensors are read once more."""
        look = self.look
        kept = () if layout is _compressed else {*look.plans, *look.entries}  # there a configuration says it
        ties = {alias: name for alias, name in self.opened.ties.items() if name in kept}
        for alias, name in ties.items():
            (look.found.quantized if name in look.found.quantized else look.found.plain).append(alias)
        said = {KEY: text_of(look.plans, None)} if look.plans else {"format": "pt", **look.said}
        metadata = said | text_of_ties(ties)
        with terminable(), Writer(path, look.entries, metadata, before) as writer:
            for name in file.names:
                if name in look.plans:
                    store(writer, look.plans[name], cast(ArrayQTensor, self.opened.tensor(name)))
                else:
                    for part, (_, data) in self._pieces(name, layout).items():
                        writer.put(part, 0, data)
                self._tell(name, total)
            file.check_unchanged()

    def _tell(self, name: str, total: int) -> None:
        self._done += 1
        if self.running.progress is not None:
            self.running.progress(name, self._done, total)

    def _pieces(self, name: str, layout: Layout) -> dict[str, Piece]:
        x = self.opened.tensor(name)
        if name in self.opened.left and isinstance(self.opened, OpenedSafetensors):
            if layout in (_compressed, _torchao, _floats):
                raise NumericsError(_stays(name, self.opened.left[name]))
            self.look.found.left[name] = self.opened.left[name]
            return self._as_they_were(name)
        found = self.look.found
        if why := lone_codes(x):
            if layout in (_compressed, _torchao, _floats):
                raise NumericsError(_stays(name, f"it is {why}"))
            found.left[name] = why
            return {name: _plain(name, x)}
        if name in self.opened.left and layout is not _floats:
            found.decoded[name] = self.opened.left[name]
            return {name: _plain(name, x)}
        quantized = isinstance(x, QTensor) or name in self.opened.left
        kept = found.quantized if quantized else found.plain
        if name not in kept:
            kept.append(name)
        if isinstance(x, QTensor):
            return layout(self, name, x)
        return {name: _plain(name, _widened(found, name, x))}

    def _as_they_were(self, name: str) -> dict[str, Piece]:
        opened = cast(OpenedSafetensors, self.opened)
        entries = opened.source.entries
        return {part: (entries[part], opened.reader(part).raw(part)) for part in opened.beside(name)}

    def _note(self, by_name_alone: bool) -> None:
        """Notes what the source says that the target does not."""
        told = said_of_inputs(getattr(self.opened, "config", {}))
        if told and not self._inputs_kept:
            self.found.notes.append(f"not kept, how inputs are quantized ({told}): only weights are written")
        self.found.notes += _said_of_numbers(self.found)
        if by_name_alone:
            ties = self.opened.ties.items()
            self.found.notes += [f"{alias} is {name}: written under that name alone" for alias, name in ties]

    # ---- GGUF -------------------------------------------------------------------------------------

    def gguf(self) -> Converted:
        """A GGUF file."""
        self.running.ranks.check_alone(self.target)
        files = self._files()
        tensors: dict[str, Kinded] = {}
        for name in self.opened.names:
            for part, (kind, shape, _) in self._blocks(name).items():
                tensors[part] = kind, shape
        head = self.opened.file.head() if isinstance(self.opened, OpenedGGUF) else (
            1, value_of_text(ARCHITECTURE, "unknown"))  # fmt: skip
        with GGUFWriter(self.target, head, tensors) as writer:
            for name in self.opened.names:
                for part, (_, _, data) in self._blocks(name).items():
                    writer.put(part, data)
                self._tell(name, len(self.opened.names))
            for file in files:
                file.check_unchanged()
        self._note(True)
        if not isinstance(self.opened, OpenedGGUF) and not any(map(_GGML_NAME.match, self.opened.names)):
            self.found.notes.append(
                "names are the source's, and no head says which model it is: llama.cpp looks for its own "
                "(blk.0.attn_q.weight ...), which its convert_hf_to_gguf.py writes"
            )
        return self.found

    def _blocks(self, name: str) -> dict[str, tuple[str, tuple[int, ...], Array]]:
        file = self.opened.file if isinstance(self.opened, OpenedGGUF) else None
        x = self.opened.tensor(name) if file is None else file.tensor(name)
        if file is not None and isinstance(x, str):  # which no QTensor holds: its bytes stay as they are
            self.found.left[name] = x
            return file.blocks(name)
        if name in self.opened.left:
            raise NumericsError(_stays(name, self.opened.left[name]))
        made = self._for_ggml(x)
        if made is not x:
            self.found.made[name], x = str(self.ggml), made
        kept = self.found.quantized if isinstance(x, QTensor) else self.found.plain
        if name not in kept and name not in self.found.made:
            kept.append(name)
        if not isinstance(x, QTensor):
            x = _widened(self.found, name, x)
            kind = KIND_OF_DTYPE.get(x.dtype.name)
            if kind is None:
                raise NumericsError(
                    f"tensor {name!r}: GGUF has no {x.dtype.name}; it has {', '.join(KIND_OF_DTYPE)}"
                )
            return {name: (kind, x.shape, x)}
        try:
            found = {name: (gguf_type(x), tuple(x.shape), cast(Array, to_gguf(x)))}
        except NumericsError as wrong:
            raise NumericsError(f"tensor {name!r}: {wrong}") from None
        if x.tensor_scale is not None and float(x.tensor_scale) != 1.0:
            found[scale_name(name)] = "F32", (1,), np.array([x.tensor_scale], np.float32)
        return found

    def _for_ggml(self, x: Any) -> Any:
        """A float matrix in blocks of ggml's, where they are asked for."""
        floats = not isinstance(x, QTensor) and x.dtype.name in ("float32", "float16", "bfloat16")
        if self.ggml is None or not floats or x.ndim < 2 or x.shape[-1] % BLOCK:
            return x
        return quantize_as_ggml(np.ascontiguousarray(x.astype(np.float32)), self.ggml)


# ---- layouts of one tensor ------------------------------------------------------------------------


def _config(file: Path) -> dict[str, Any]:
    """What a config.json says; raises NumericsError for one that is none."""
    try:
        found = json_in(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as wrong:
        raise NumericsError(f"{file} is not JSON that can be read: {wrong}") from None
    if not isinstance(found, dict):
        raise NumericsError(f"{file} holds {said(found)}; a configuration is a table")
    return found


def _stays(name: str, why: str) -> str:
    """What is said of codes that are neither decoded here nor stored by another kind of file."""
    return (
        f"{name} stays codes and cannot be stored: {why}; the tool that wrote it makes floats of it, and "
        "--to numerics and --to safetensors copy its codes"
    )


def _said_of_numbers(found: Converted) -> list[str]:
    """What readers find a little off, and what has a wider type."""
    said = []
    if found.rounded:
        said.append(
            f"not exact: {folded(found.rounded)}: the tensor scale is stored as a number that divides, and "
            "it is the inverse of no float32; readers find values off by up to "
            f"{max(found.rounded.values()):.1e} of themselves"
        )
    for kinds in dict.fromkeys(found.widened.values()):
        names = folded(name for name, kind in found.widened.items() if kind == kinds)
        said.append(f"{names}: {kinds}, which holds the same numbers; the file has no narrower type for them")
    return said


def _widened(found: Converted, name: str, x: Any) -> Any:
    """Integers of fewer than 8 bits, which no kind of file has by themselves, as those of 8; others as is."""
    kind = "" if isinstance(x, QTensor) else x.dtype.name
    if re.fullmatch(r"u?int[1-7]", kind) is None:
        return x
    wide = "uint8" if kind.startswith("u") else "int8"
    found.widened[name] = f"{kind} became {wide}"
    return x.astype(wide)


def _plain(name: str, x: Any) -> Piece:
    entry = entry_of(name, x)
    return entry, packed_of(x, entry)


def _own(work: _Conversion, name: str, q: QTensor) -> dict[str, Piece]:
    """As `nx.save` writes it; its data is stored by its plan."""
    types = {kind: label for label, kind in ORIGINALS.items()} | {"python": "F64"}
    plan = Plan(q.spec, tuple(q.shape), ORIGINALS[types[q.original]], {"codes": name})
    plan.check_padding()
    work.look.plans[name] = plan.named(work.look.taken)
    parts = work.look.plans[name].parts
    return {
        work.look.plans[name].names[part]: (entry, np.empty(0, np.uint8)) for part, entry in parts.items()
    }


def _floats(work: _Conversion, name: str, q: QTensor) -> dict[str, Piece]:
    """The values, in the type for which they stand."""
    return {name: _plain(name, q.dequantize())}


def _types(work: _Conversion, name: str, q: QTensor) -> dict[str, Piece]:
    """By safetensors' own types: codes under the name, `_scale` beside them, and `_scale_2` of NVFP4."""
    by_element: dict[Any, str] = {element: kind for kind, (element, _) in PACKED.items()}
    by_element |= {fp8_e4m3: "F8_E4M3", fp8_e5m2: "F8_E5M2"}
    element = q.spec.block.element if isinstance(q.spec.dtype, ElementBlock) else None  # type: ignore[attr-defined]
    kind = by_element.get(element if q.spec.blocked else q.spec.dtype)
    if kind is None or (isinstance(q.spec.dtype, ElementBlock) and q.spec.dtype.has_two_readings):
        raise NumericsError(f"tensor {name!r}: safetensors has no type of {q.format}; convert to 'numerics'")
    shape = tuple(q.shape)
    found = {name: (Entry(kind, shape), cast(Array, q.packed))}
    if not q.spec.blocked:
        scale = cast(Array, q.scale)
        return {**found, f"{name}_scale": (Entry("F32", scale.shape), scale.astype(np.float32))}
    if q.axis not in (-1, len(shape) - 1):
        raise NumericsError(f"tensor {name!r}: its blocks lie along axis {q.axis}; only the last has a place")
    scales = {"e8m0": "F8_E8M0", "fp8_e4m3": "F8_E4M3"}
    scale_kind = scales.get(q.spec.block.scale.name)  # type: ignore[attr-defined]
    if scale_kind is None:
        raise NumericsError(f"tensor {name!r}: safetensors has no type of the scales of {q.format}")
    found[f"{name}_scale"] = Entry(scale_kind, q.scale.shape), q.scale
    if q.tensor_scale is not None:
        found[f"{name}_scale_2"] = Entry("F32", ()), np.array(q.tensor_scale, np.float32)
    return found


def _compressed(work: _Conversion, name: str, q: QTensor) -> dict[str, Piece]:
    """As compressed-tensors has a layer."""
    from numerics.model.compressed_tensors import stored_weight

    layer, _, leaf = name.rpartition(".")
    if leaf != "weight":
        raise NumericsError(
            f"compressed-tensors cannot store {name}: {_no_layer(work.opened.stored(name), q)}"
        )
    stored = stored_weight(name, as_tensors(q))
    work.look.schemes[layer] = stored.scheme
    if stored.off:
        work.look.found.rounded[name] = stored.off
    return dict(_arrays(layer, stored.tensors))


def _no_layer(stored: Stored | None, q: QTensor) -> str:
    """Why a tensor that is no layer's weight by its name has no place in compressed-tensors."""
    if len(q.shape) < 3:
        return "it stores weights of layers, and this is none by its name; leave it in float"
    why = (
        f"it stores a matrix a layer, and this parameter holds {math.prod(q.shape[:-2])} of them, which its "
        "readers know as layers of their own names"
    )
    if stored is not None and stored.kind == GPT_OSS:
        why += "; transformers and vLLM read gpt-oss as it is, and so does `numerics`"
    return f"{why}; --to numerics and --to safetensors keep it, `numerics dequantize` makes floats of it"


def _torchao(work: _Conversion, name: str, q: QTensor) -> dict[str, Piece]:
    """As torchao flattens a tensor of its own."""
    tensors, said = flattened(name, as_tensors(q))
    work.look.said |= said
    return {part: _plain(part, on_host(part, tensor)) for part, tensor in tensors.items()}


_LAYOUTS: Mapping[str, Layout] = {
    "numerics": _own, "safetensors": _types, "compressed-tensors": _compressed, "torchao": _torchao,
}  # fmt: skip


def _arrays(layer: str, tensors: Mapping[str, Any]) -> Iterator[tuple[str, Piece]]:
    for part, tensor in tensors.items():
        name = f"{layer}.{part}"
        yield name, _plain(name, on_host(name, tensor.contiguous()))


# ---- folders --------------------------------------------------------------------------------------


@dataclass
class _Folder:
    """A folder in the making, by one process or by ranks that share its files."""

    work: _Conversion
    layout: Layout
    files: Sequence[_File]
    schemes: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    def make(self) -> Converted:
        """Writes what is this process's share; and rank 0 waits for all, and ends it."""
        work, ranks = self.work, self.work.running.ranks
        for file in self._files_beside():
            if file.name == CONFIG:
                self.config = _config(file)
        with making(work.opened.path, work.target, self._parts(), ranks, self.files) as journal:
            record = journal.finished(self._files_beside())
            if record is not None:
                return Converted(**record["found"] | {"resumed": len(self.files)})
            resumed = self._share(journal)
            found = self._end(journal) if ranks.rank == 0 else work.found
            found.resumed = resumed
            return found

    def _share(self, journal: Journal) -> int:
        """Does the files of this process, all looked at before one is written; how many were done before."""
        work, own = self.work, self.work.running.ranks.share(self.files)
        left = [file for file in own if journal.entry(file) is None]
        total = sum(len(file.names) for file in own)
        work._done = total - sum(len(file.names) for file in left)
        looks = [work._looked(file, self.layout) for file in left]
        places_of({file.name: look.entries for file, look in zip(left, looks, strict=True)})
        for file, work.look in zip(left, looks, strict=True):
            work._write(file, work.target / file.name, self.layout, total, partial(self._note, journal, file))
            _join(work.found, work.look.found)
        return len(own) - len(left)

    def _note(self, journal: Journal, file: _File, whole: Path) -> None:
        """Notes that a file is whole, with what became of its tensors as plain values."""
        look = self.work.look
        schemes = {layer: asdict(scheme) for layer, scheme in look.schemes.items()}
        journal.note(file, whole, {"found": asdict(look.found), "schemes": schemes})

    def _parts(self) -> dict[str, Any]:
        """What the conversion is: the same for the same headers, target, configuration and version."""
        config = getattr(self.work.opened, "config", {})
        files = {file.name: file.stamp["headers"] or file.stamp for file in self.files}
        return {
            "version": __version__, "kind of output": self.layout.__name__.strip("_"),
            "configuration": digest_of(config), "source": digest_of(files),
        }  # fmt: skip

    def _end(self, journal: Journal) -> Converted:
        """Waits for the other ranks' files, and writes what says where all is."""
        work, noted = self.work, journal.await_all()
        work.found = Converted()
        for told in noted.values():
            _join(work.found, Converted(**told["report"]["found"]))
            self.schemes |= told["report"]["schemes"]
        if needs_index(noted):
            write_index(work.target, noted)
        copied = copy_beside(self._files_beside(), work.target, but=[CONFIG])
        if config := self._said():
            replace_file(work.target / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
        work._note(self.layout is _compressed)
        if isinstance(work.opened, SHARDED):
            work.found.notes += work.opened.said_of_not_copied()
        journal.finish(work.opened.path, noted, copied, {"found": asdict(work.found)})
        return work.found

    def _files_beside(self) -> list[Path]:
        """Configuration, tokenizer and what else lies beside the shards."""
        opened = self.work.opened
        return opened.files_beside if isinstance(opened, SHARDED) else []

    def _said(self) -> dict[str, Any]:
        """The configuration of the output."""
        config = {**self.config}
        if self.layout is _compressed:
            self._say_schemes(config)
        elif not isinstance(self.work.opened, OpenedPickles):  # whose codes stay what they were
            config.pop("quantization_config", None)  # of what it was
        return config

    def _say_schemes(self, config: dict[str, Any]) -> None:
        """How compressed-tensors finds the layers: into config.json, with what was said of their inputs."""
        from numerics.model.compressed_tensors import Scheme, config_of_schemes

        work = self.work
        schemes = {layer: Scheme(**facts) for layer, facts in self.schemes.items()}
        floats = (*work.found.plain, *work.found.decoded)
        layers = {name.rpartition(".")[0] for name in floats if name.endswith(".weight")}
        said = config["quantization_config"] = config_of_schemes(schemes, sorted(layers))
        work._inputs_kept = keep_inputs(getattr(work.opened, "config", {}), said)
        if len(set(schemes.values())) > 1 and any(s.halves for s in schemes.values()):
            config["dtype"] = "bfloat16"
            config.pop("torch_dtype", None)


def _join(found: Converted, other: Converted) -> None:
    found.quantized += other.quantized
    found.plain += other.plain
    found.left |= other.left
    found.decoded |= other.decoded
    found.made |= other.made
    found.rounded |= other.rounded
    found.widened |= other.widened


__all__ = ["KINDS", "Converted", "Running", "convert", "dequantize"]
