"""QTensors in safetensors files: the files that `numerics quantize` writes, from and to memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.arrays import listed
from numerics.backends.host.quantizing import to_host
from numerics.backends.host.tensors import as_tensor, is_tensor
from numerics.files.checkpoint import PathLike, plain_names
from numerics.files.companions import told_of_foreign
from numerics.files.header import KEY, ORIGINALS, Plan, plans_of, text_of
from numerics.files.safetensors import BITS, ML_DTYPES, NUMPY, PACKED, Entry, Reader, Writer
from numerics.files.signals import terminable
from numerics.files.stream import Shared, qtensor, store
from numerics.files.ties import text_of as text_of_ties
from numerics.files.ties import ties_among, ties_of
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError, a_kind_of, one_of, said, truth, warn
from numerics.interop import native
from numerics.interop.native import from_native, to_native
from numerics.pytorch.convert import as_arrays, as_tensors
from numerics.tensor.qtensor import ArrayQTensor, QTensor

Array = NDArray[Any]
MODEL = "numerics.model"  # of the text in __metadata__ that says what a model was made of
LIBRARIES = ("numpy", "torch")
_ENTRIES = {np.dtype(spelled): name for name, spelled in NUMPY.items()}
_NAMED = {name: entry for entry, name in ML_DTYPES.items()} | {
    name: entry for entry, (_, name) in PACKED.items()
}
_TYPES = {name: kind for kind, name in ORIGINALS.items()} | {"python": "F64"}


@keywords
def save(tensors: Mapping[str, Any], path: PathLike) -> None:
    """Writes QTensors, arrays and torch tensors by name as one safetensors file, whole or not at all.

    tensors: a mapping of names to tensors.  path: a text or os.PathLike; a file there is replaced.
    A QTensor becomes plain tensors that any reader of safetensors takes (`w`, `w.scale` ...), and the
    header says how to decode them: what `numerics quantize` writes, and `load` and `numerics
    dequantize` read.  The state_dict() of a frozen model brings its plan, which `load_into` follows.
    Python's numbers and lists become arrays, which `load` gives back: 3 one of shape () and int64.
    A tensor that has several names, as an embedding that is the head too, is written once, under the first;
    the header says the others, and `load` gives it back under all.  Tensors on a GPU are copied.
    Raises NumericsError for what is no tensor, a type that safetensors does not have, a name that it cannot
    hold, and a target that cannot be written.

    >>> import numerics as nx, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nx.save({"w": nx.quantize([0.5, -1.0, 2.0, 3.5], "int4")}, f"{folder}/w.safetensors")
    ...     nx.load(f"{folder}/w.safetensors")["w"].dequantize()
    array([ 0.5, -1. ,  2. ,  3.5])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nx.save({"steps": 3}, f"{folder}/w.safetensors")
    ...     nx.load(f"{folder}/w.safetensors")
    {'steps': array(3)}
    """
    if not isinstance(tensors, Mapping):
        raise NumericsError(
            f"save takes tensors by name, as {{'w': q}} or a module's state_dict(), not {a_kind_of(tensors)}"
        )
    for name in tensors:
        _check_name(name)
    came = dict(tensors)  # held, so that no other tensor takes the place of one
    ties = ties_among(came)
    held = {name: on_host(name, tensor) for name, tensor in came.items() if name not in ties}
    quantized = {name: q for name, q in held.items() if isinstance(q, ArrayQTensor)}
    plain = {name: x for name, x in held.items() if not isinstance(x, ArrayQTensor)}
    plans = _plans(quantized, set(came))
    entries = {name: entry_of(name, x) for name, x in plain.items()}
    for plan in plans.values():
        entries |= {plan.names[part]: entry for part, entry in plan.parts.items()}
    metadata = ({KEY: text_of(plans, None)} if plans else {}) | text_of_ties(ties)
    if (beside := _beside(tensors)) is not None:
        metadata[MODEL] = beside
    with terminable(), Writer(path, entries, metadata) as writer:
        for name, x in plain.items():
            writer.put(name, 0, packed_of(x, entries[name]))
        for name, q in quantized.items():
            store(writer, plans[name], q)


def _beside(tensors: Mapping[str, Any]) -> str | None:
    """What a frozen model says of itself in its state, where torch keeps versions of modules."""
    modules = getattr(tensors, "_metadata", None)
    of_model = modules.get("") if isinstance(modules, Mapping) else None
    found = of_model.get(MODEL) if isinstance(of_model, Mapping) else None
    return found if isinstance(found, str) else None


def model_text(path: PathLike) -> str | None:
    """What the model of a file says of itself: its plan; None where the file has tensors only."""
    return Reader(path).metadata.get(MODEL)


@keywords
def load(path: PathLike, *, library: str = "numpy", mapped: bool = False) -> dict[str, Any]:
    """Returns the tensors of a safetensors file by name; quantized ones as QTensors.

    One that `save` was given under several names comes back under each, as one object.

    path: of a safetensors file, anybody's.  library: whose arrays come back: "numpy" (the default) or
    "torch", on the CPU.  NumPy's bfloat16 and floats of fewer bits need ml_dtypes; F4 and F6 are unpacked to
    one element a byte there, F4 is float4_e2m1fn_x2 to torch.  mapped: of NumPy's, codes and arrays are
    read-only views of the file, read when they are used: it may then be replaced, as everything here replaces
    files, but not cut, since to touch what is gone ends the process (and on Windows not be replaced either).
    What other tools quantized comes as it lies in the file, codes and scales apart, with a NumericsWarning
    that names `numerics.checkpoints.loading.load`: that reads it as QTensors, and whole folders.
    Raises NumericsError for a damaged file, a type that the library does not have, and mapped with torch.

    >>> import numerics as nx, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nx.save({"w": nx.quantize([0.5, -1.0], "mxfp4")}, f"{folder}/w.safetensors")
    ...     nx.load(f"{folder}/w.safetensors", library="torch")
    {'w': QTensor(mxfp4, shape=(2,), axis=-1, 8 bits a value)}
    """
    loaded, foreign = loaded_of(path, library, mapped)
    if foreign is not None:
        warn(f"{path}: {foreign}")
    return loaded


def loaded_of(
    path: PathLike, library: str = "numpy", mapped: bool = False
) -> tuple[dict[str, Any], str | None]:
    """As `load`, without a warning: and what is to be said of what another tool quantized, or None."""
    one_of("library", library, LIBRARIES)
    mapped = truth("mapped", mapped)
    if mapped and library == "torch":
        raise NumericsError("mapped=True cannot be with library='torch': its tensors are copies; take numpy")
    reader = Reader(path, mapped=mapped or library == "torch")  # whose tensors are copies
    plans = plans_of(reader.metadata[KEY], reader.entries, path) if KEY in reader.metadata else {}
    loaded: dict[str, Any] = {name: reader.tensor(name) for name in plain_names(reader, plans)}
    for name, plan in plans.items():
        loaded[name] = qtensor(plan, plan.shape, reader.raw(plan.names["codes"]), Shared.read(reader, plan))
    ties = ties_of(reader, loaded)
    if library == "torch":
        loaded = {name: as_tensors(x) if isinstance(x, QTensor) else _tensor(name, x)
                  for name, x in loaded.items()}  # fmt: skip
    plain = {name: reader.entries[name] for name in plain_names(reader, plans)}
    foreign = told_of_foreign(reader.path, plain, bool(plans))
    return loaded | {name: loaded[kept] for name, kept in ties.items()}, foreign


def _tensor(name: str, x: Array) -> Any:
    """A copy, of torch's type of the same name where NumPy has it from ml_dtypes."""
    if x.dtype.name not in _NAMED:
        return as_tensor(x.copy())
    codes, d = from_native(x)
    try:
        if _NAMED[x.dtype.name] not in PACKED:
            return to_native(as_tensor(codes.copy()), d)
        if not x.shape or x.shape[-1] % 2:
            raise NumericsError(f"its shape {x.shape} does not lie two codes a byte; take library='numpy'")
        pairs = native.to_native_packed(as_tensor(d.pack(codes)), d)
        return pairs.reshape(*x.shape[:-1], x.shape[-1] // 2)
    except NumericsError as wrong:
        raise NumericsError(f"tensor {name!r}: {wrong}") from None


def _array(x: Any) -> Array:
    """Returns the array of a tensor; in its memory where that is on the host."""
    name = str(x.dtype).removeprefix("torch.")
    if name.endswith(native.PAIR):
        packed, d = native.from_native_packed(x)
        data = to_host(packed)
        return cast(Array, to_native(d.unpack(data.reshape(-1), (*data.shape[:-1], 2 * data.shape[-1])), d))
    if name not in _NAMED:
        return to_host(x)
    codes, d = from_native(x)
    return cast(Array, to_native(to_host(codes), d))


def packed_of(x: Array, entry: Entry) -> Array:
    """Returns what a file holds of an array: codes of fewer than 8 bits without gaps."""
    return PACKED[entry.dtype][0].pack(from_native(x)[0]) if entry.dtype in PACKED else x


def _check_name(name: Any) -> None:
    """Raises NumericsError for what a reader would not take back as the name of a tensor."""
    halves = isinstance(name, str) and any("\ud800" <= letter <= "\udfff" for letter in name)
    if not isinstance(name, str) or name == "__metadata__" or halves:
        raise NumericsError(f"{said(name)} cannot name a tensor; allowed: text in UTF-8, not '__metadata__'")


def on_host(name: str, tensor: Any) -> Any:
    """A tensor as arrays; raises NumericsError, naming it, where it is none."""
    if isinstance(tensor, Mapping):
        held = f", such as {said(next(iter(tensor)))}" if tensor else ""
        raise NumericsError(
            f"{name!r} is no tensor but {a_kind_of(tensor)} of {len(tensor)}{held}; where those are "
            f"the tensors, save them alone: nx.save(tensors[{name!r}], path); else leave it out"
        )
    if tensor is None or isinstance(tensor, (str, bytes, set)) or callable(tensor):
        raise NumericsError(f"{name!r} is no tensor but {said(tensor)}; leave it out")
    try:
        if isinstance(tensor, QTensor):
            return as_arrays(tensor.to("cpu") if is_tensor(tensor) else tensor)
        return _array(tensor) if is_tensor(tensor) else listed("it", tensor)
    except (ValueError, TypeError, NotImplementedError) as wrong:  # the last: on torch's meta device
        raise NumericsError(f"tensor {name!r}: {wrong}") from None


def _plans(quantized: Mapping[str, ArrayQTensor], taken: set[str]) -> dict[str, Plan]:
    plans = {}
    for name, q in quantized.items():
        plan = Plan(q.spec, q.shape, ORIGINALS[_TYPES[q.original]], {"codes": name})
        try:
            plan.check_padding()
            q.check_numbers()
            plans[name] = plan.named(taken)
        except NumericsError as wrong:
            raise NumericsError(f"tensor {name!r}: {wrong}") from None
    return plans


def entry_of(name: str, x: Array) -> Entry:
    """Returns the type and the shape that an array has in a file; raises NumericsError for other types."""
    kind = _ENTRIES.get(x.dtype.newbyteorder("<")) or _NAMED.get(x.dtype.name)
    if kind is None:
        what = "neither Python's objects nor integers past 64 bits"
        raise NumericsError(
            f"tensor {name!r}: safetensors has {what if x.dtype.kind == 'O' else f'no {x.dtype.name}'}"
        )
    if x.size * BITS[kind] % 8:
        raise NumericsError(f"tensor {name!r}: safetensors has {kind} in whole bytes only, not {x.shape}")
    return Entry(kind, x.shape)
