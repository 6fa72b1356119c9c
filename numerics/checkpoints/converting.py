"""Checkpoints of any kind into another kind, without rounding a number: `numerics convert`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from numerics.backends.paths import path_of
from numerics.checkpoints.foreign import lone_codes
from numerics.checkpoints.gguf_file import GGUFWriter, Kinded, scale_name, value_of_text
from numerics.checkpoints.inputs import keep_inputs, said_of_inputs
from numerics.checkpoints.loading import Opened, OpenedGGUF, OpenedSafetensors, open_any
from numerics.checkpoints.source import INDEX, index_of
from numerics.files.checkpoint import PathLike, Progress
from numerics.files.folders import made_folder
from numerics.files.header import KEY, ORIGINALS, Plan, text_of
from numerics.files.replacement import refuse_same_file, replace_file
from numerics.files.safetensors import PACKED, Entry, Writer
from numerics.files.save_load import entry_of, packed_of
from numerics.files.signals import terminable
from numerics.files.stream import store
from numerics.files.ties import text_of as text_of_ties
from numerics.formats.block import ElementBlock
from numerics.formats.errors import NumericsError, one_of, said
from numerics.formats.floats import fp8_e4m3, fp8_e5m2
from numerics.formats.text import json_in
from numerics.interop.ggml import ENCODERS, quantize_as_ggml
from numerics.interop.gguf import BLOCK, gguf_type, to_gguf
from numerics.pytorch.convert import as_tensors
from numerics.tensor.qtensor import ArrayQTensor, QTensor

Array = NDArray[Any]
KINDS = ("numerics", "safetensors", "compressed-tensors", "gguf")
SINGLE = "model.safetensors"
ARCHITECTURE = "general.architecture"


@dataclass
class Converted:
    """What became of a checkpoint: names of weights that are quantized, and why others stay codes.

    notes: what the source says that the target does not.
    """

    quantized: list[str] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        said = f"{len(self.quantized)} quantized tensors, {len(self.plain)} others"
        return f"{said}, {len(self.left)} left as they were" if self.left else said


def convert(
    source: PathLike, target: PathLike, to: str = "numerics", *, ggml: str | None = None,
    progress: Progress | None = None,
) -> Converted:  # fmt: skip
    """Writes a checkpoint as another kind of file; codes and scales stay what they are.

    source: whatever `open_any` takes.  target: a file, or a folder where the source is one and for
    compressed-tensors.  to: "numerics", this package's safetensors, which hold every format; "safetensors",
    whose own types F4, F6, F8 hold the codes, with E8M0 scales beside; "compressed-tensors", a folder that
    transformers and vLLM load; "gguf", llama.cpp's blocks, with all that a GGUF source says of itself.  A
    tensor at a time is in memory.  ggml: Q8_0, Q4_0 or MXFP4, of "gguf" only: float matrices in whole blocks
    become that type as ggml's reference quantizer makes it, byte for byte; what else is there stays.

    Weights of other tools that are no QTensor here are copied as they are into the first two, and refused by
    the others.  Raises NumericsError, naming the tensor, for a format that the target kind does not have:
    nothing is ever rounded to make it fit.

    >>> import numerics as nx, numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nx.save({"w": nx.quantize(np.ones((2, 64), np.float32), "mxfp4")}, f"{folder}/a.safetensors")
    ...     print(convert(f"{folder}/a.safetensors", f"{folder}/b.safetensors", "safetensors"))
    1 quantized tensors, 0 others
    """
    one_of("kind of file", to, KINDS)
    refuse_same_file(source, path_of(target))
    if ggml is not None:
        one_of("type of ggml's", ggml, ENCODERS)
        if to != "gguf":
            raise NumericsError(f"ggml={ggml!r} belongs to to='gguf', not to {to!r}")
    work = _Conversion(open_any(source), path_of(target), progress, ggml)
    if to == "gguf":
        work.gguf()
    else:
        work.safetensors({"numerics": _own, "safetensors": _types, "compressed-tensors": _compressed}[to])
    work.note_inputs()
    if to in ("gguf", "compressed-tensors"):
        work.found.notes += [
            f"{alias} is {name}: written under that name alone" for alias, name in work.opened.ties.items()
        ]
    return work.found


def dequantize(source: PathLike, target: PathLike, *, progress: Progress | None = None) -> Converted:
    """Writes the floats of a quantized checkpoint of any kind that `open_any` takes, ours or another tool's.

    target: a file, or a folder where the source is one: shards keep their names, the index is written anew,
    configuration and tokenizer are copied, without `quantization_config`.  Each weight comes back in the
    float type that it stands for.  A tensor at a time is in memory.  Raises NumericsError, naming it, for a
    weight that stays codes, and where nothing is quantized; nothing is left of the target then.

    >>> import numerics as nx, numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nx.save({"w": nx.quantize(np.ones((2, 64), np.float32), "mxfp4")}, f"{folder}/a.safetensors")
    ...     dequantize(f"{folder}/a.safetensors", f"{folder}/b.safetensors").quantized
    ['w']
    """
    refuse_same_file(source, path_of(target))
    work = _Conversion(open_any(source), path_of(target), progress)
    if not work.opened.quantized:
        raise NumericsError(f"{source} holds no quantized tensors: nothing to dequantize")
    work.safetensors(_floats)
    return work.found


Piece = tuple[Entry, Array]
Layout = Callable[["_Conversion", str, Any], dict[str, Piece]]


@dataclass
class _Conversion:
    opened: Opened
    target: Path
    progress: Progress | None = None
    ggml: str | None = None
    found: Converted = field(default_factory=Converted)
    plans: dict[str, Plan] = field(default_factory=dict)
    schemes: dict[str, Any] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    _inputs_kept: bool = False
    _bytes: int = 0

    # ---- safetensors ------------------------------------------------------------------------------

    def safetensors(self, layout: Layout) -> None:
        """One file, or the shards of a folder."""
        shards = self._shards()
        folder = len(shards) > 1 or layout is _compressed or self._is_folder()
        self.taken = set(self.opened.names)
        with _new_folder(self.target) if folder else nullcontext():
            self._files(shards, layout, folder)

    def _files(self, shards: Mapping[str, list[str]], layout: Layout, folder: bool) -> None:
        places: dict[str, str] = {}
        total, done = len(self.opened.names), 0
        for shard, names in shards.items():
            path = self.target / shard if folder else self.target
            entries = self._file(path, names, layout, (done, total))
            places |= dict.fromkeys(entries, shard)
            self._bytes += sum(entry.nbytes for entry in entries.values())
            done += len(names)
        if folder:
            self._beside(layout)
            if len(shards) > 1:
                replace_file(self.target / INDEX, index_of(places, self._bytes))

    def _is_folder(self) -> bool:
        return isinstance(self.opened, OpenedSafetensors) and self.opened.source.folder

    def _shards(self) -> dict[str, list[str]]:
        """Names of tensors by the file in which they go."""
        if not self._is_folder():
            return {SINGLE: self.opened.names}
        found: dict[str, list[str]] = {}
        for name in self.opened.names:
            found.setdefault(cast(OpenedSafetensors, self.opened).shard(name), []).append(name)
        return dict(sorted(found.items()))

    def _file(self, path: Path, names: list[str], layout: Layout, at: tuple[int, int]) -> dict[str, Entry]:
        """One file of tensors: read once for what they become, and once more to be written."""
        entries: dict[str, Entry] = {}
        own: dict[str, Plan] = {}
        for name in names:
            self.plans.pop(name, None)
            for part, (entry, _) in self._pieces(name, layout).items():
                if part in entries:
                    raise NumericsError(f"{part!r} would stand for two tensors")
                entries[part] = entry
            if name in self.plans:
                own[name] = self.plans[name]
        kept = (
            () if layout is _compressed else {*own, *entries}
        )  # elsewhere a configuration says what is tied
        ties = {alias: name for alias, name in self.opened.ties.items() if name in kept}
        for alias, name in ties.items():
            (self.found.quantized if name in self.found.quantized else self.found.plain).append(alias)
        metadata = ({KEY: text_of(own, None)} if own else {"format": "pt"}) | text_of_ties(ties)
        with terminable(), Writer(path, entries, metadata) as writer:
            for place, name in enumerate(names):
                if name in own:
                    store(writer, own[name], cast(ArrayQTensor, self.opened.tensor(name)))
                else:
                    for part, (_, data) in self._pieces(name, layout).items():
                        writer.put(part, 0, data)
                if self.progress is not None:
                    self.progress(name, at[0] + place + 1, at[1])
        return entries

    def _pieces(self, name: str, layout: Layout) -> dict[str, Piece]:
        x = self.opened.tensor(name)
        if name in self.opened.left and isinstance(self.opened, OpenedSafetensors):
            if layout in (_compressed, _floats):
                raise NumericsError(f"{name} stays codes and cannot be stored: {self.opened.left[name]}")
            self.found.left[name] = self.opened.left[name]
            return self._as_they_were(name)
        if layout in (_compressed, _floats) and (why := lone_codes(x)):
            raise NumericsError(f"{name} stays codes and cannot be stored: it is {why}")
        kept = self.found.quantized if isinstance(x, QTensor) else self.found.plain
        if name not in kept:
            kept.append(name)
        if isinstance(x, QTensor):
            return layout(self, name, x)
        return {name: _plain(name, x)}

    def _as_they_were(self, name: str) -> dict[str, Piece]:
        opened = cast(OpenedSafetensors, self.opened)
        entries = opened.source.entries
        return {part: (entries[part], opened.reader(part).raw(part)) for part in opened.beside(name)}

    def _beside(self, layout: Layout) -> None:
        """Configuration, tokenizer and what else lies beside the shards."""
        config: dict[str, Any] = {}
        files = cast(OpenedSafetensors, self.opened).source.beside if self._is_folder() else []
        for file in files:
            if file.name == "config.json":
                config = _config(file)
            elif file.name != "numerics_job.json":
                replace_file(self.target / file.name, file.read_bytes())
        if layout is _compressed:
            self._say_schemes(config)
        else:
            config.pop("quantization_config", None)  # of what it was
        if config:
            replace_file(self.target / "config.json", (json.dumps(config, indent=2) + "\n").encode())

    def _say_schemes(self, config: dict[str, Any]) -> None:
        """How compressed-tensors finds the layers: into config.json, with what was said of their inputs."""
        from numerics.model.compressed_tensors import config_of_schemes

        layers = {name.rpartition(".")[0] for name in self.found.plain if name.endswith(".weight")}
        said = config["quantization_config"] = config_of_schemes(self.schemes, sorted(layers))
        self._inputs_kept = keep_inputs(getattr(self.opened, "config", {}), said)
        if len(set(self.schemes.values())) > 1 and any(s.halves for s in self.schemes.values()):
            config["dtype"] = "bfloat16"
            config.pop("torch_dtype", None)

    def note_inputs(self) -> None:
        """Notes what the source says of the inputs of its layers, where the target does not say it."""
        told = said_of_inputs(getattr(self.opened, "config", {}))
        if told and not self._inputs_kept:
            self.found.notes.append(f"not kept, how inputs are quantized ({told}): only weights are written")

    # ---- GGUF -------------------------------------------------------------------------------------

    def gguf(self) -> None:
        """A GGUF file."""
        tensors: dict[str, Kinded] = {}
        for name in self.opened.names:
            for part, (kind, shape, _) in self._blocks(name).items():
                tensors[part] = kind, shape
        head = self.opened.file.head() if isinstance(self.opened, OpenedGGUF) else (
            1, value_of_text(ARCHITECTURE, "unknown"))  # fmt: skip
        with GGUFWriter(self.target, head, tensors) as writer:
            for place, name in enumerate(self.opened.names):
                for part, (_, _, data) in self._blocks(name).items():
                    writer.put(part, data)
                if self.progress is not None:
                    self.progress(name, place + 1, len(self.opened.names))

    def _blocks(self, name: str) -> dict[str, tuple[str, tuple[int, ...], Array]]:
        if isinstance(self.opened, OpenedGGUF) and self.opened.file.decoded(name):
            place = self.opened.file.entries[name]
            return {name: (place.kind, place.shape, self.opened.file.raw(name))}
        x = self._for_ggml(self.opened.tensor(name))
        if name in self.opened.left:
            raise NumericsError(f"{name} stays codes and cannot be stored: {self.opened.left[name]}")
        kept = self.found.quantized if isinstance(x, QTensor) else self.found.plain
        if name not in kept:
            kept.append(name)
        if not isinstance(x, QTensor):
            kind = _plain(name, x)[0].dtype
            if kind not in ("F64", "F32", "F16", "BF16", "I8", "I16", "I32", "I64"):
                raise NumericsError(f"tensor {name!r}: GGUF has no {kind}")
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


def _plain(name: str, x: Any) -> Piece:
    entry = entry_of(name, x)
    return entry, packed_of(x, entry)


def _own(work: _Conversion, name: str, q: QTensor) -> dict[str, Piece]:
    """As `nx.save` writes it; its data is stored by its plan."""
    types = {kind: label for label, kind in ORIGINALS.items()} | {"python": "F64"}
    plan = Plan(q.spec, tuple(q.shape), ORIGINALS[types[q.original]], {"codes": name})
    plan.check_padding()
    work.plans[name] = plan.named(work.taken)
    parts = work.plans[name].parts
    return {work.plans[name].names[part]: (entry, np.empty(0, np.uint8)) for part, entry in parts.items()}


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
        raise NumericsError(f"compressed-tensors stores weights, not {name}; leave it in float")
    stored = stored_weight(name, as_tensors(q))
    work.schemes[layer] = stored.scheme
    return dict(_arrays(layer, stored.tensors))


def _arrays(layer: str, tensors: Mapping[str, Any]) -> Iterator[tuple[str, Piece]]:
    from numerics.files.save_load import on_host

    for part, tensor in tensors.items():
        name = f"{layer}.{part}"
        yield name, _plain(name, on_host(name, tensor.contiguous()))


@contextmanager
def _new_folder(target: Path) -> Iterator[None]:
    """The folder of the output, which was not there or was empty; after an error it is so again."""
    if os.path.exists(target) and not (os.path.isdir(target) and not os.listdir(target)):
        raise NumericsError(f"{target} is there already, and no empty folder; name a new one")
    try:
        with made_folder(target), _emptied(target):
            yield
    except OSError as wrong:
        raise NumericsError(f"cannot write {target}: {wrong.strerror or wrong}") from wrong


@contextmanager
def _emptied(target: Path) -> Iterator[None]:
    """After an error a folder that was empty is so again: all files in it are this conversion's."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for file in target.iterdir():
                file.unlink()
        raise


__all__ = ["KINDS", "Converted", "convert", "dequantize"]
