"""Files and streams that somebody has tampered with: a base that is right, and what is changed in it."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch
from click.testing import CliRunner

import numerics as nx
from numerics.cli import commands
from numerics.files.checkpoint import dequantize_file, quantize_file
from numerics.pytorch.qtensor import TensorQTensor

RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "int4": ("int4", {"scheme": "per_group(16)"}),
    "int8": ("int8", {"scheme": "per_channel(0)", "symmetric": False}),
    "int16": ("int16", {"scheme": "per_channel(1)", "symmetric": False, "zero_point_type": "float32"}),
    "fp6": ("fp6_e2m3", {"scale_type": "pof2"}),
    "fp8": ("fp8_e4m3", {"scale_type": "float16"}),
    "mx6": ("mx6", {}),
    "mx9": ("mx9", {"axis": 0}),
    "mxfp4": ("mxfp4", {}),
    "nvfp4": ("nvfp4", {}),
    "declared": (nx.block_format(block=12, element="int4", name="fuzzed12"), {}),
}  # fmt: skip
BASES = ("plain", *RECIPES)
Header = dict[str, Any]
Change = tuple[Any, ...]


def _data(shape: tuple[int, ...] = (3, 40)) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@lru_cache
def _base(name: str) -> bytes:
    path = Path("base.safetensors")
    x = _data()
    if name == "plain":
        halves = {"h": x.astype(np.float16), "b": x.astype(ml_dtypes.bfloat16), "d": x.astype(np.float64)}
        nx.save({"w": x, "i": np.arange(6), "e": np.empty((0, 4), np.float32), **halves}, path)
    else:
        dtype, options = RECIPES[name]
        nx.save({"w": nx.quantize(x, dtype, **options), "plain": x[0]}, path)
    return path.read_bytes()


# ---- safetensors ---------------------------------------------------------------------------------


def damaged(base: str, *changes: Change) -> str:
    """The path of a safetensors file of ours with changes; each says of what, where, and how.

    ("header" | "manifest", place, text): the place-th value of the JSON becomes the text, which may
    be no JSON.  ("key", place, name): the place-th name.  ("byte", place, value), ("cut", count),
    ("more", count), ("length", number): of the file.
    """
    raw = _base(base)
    size = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    raws: dict[str, str] = {}
    for what, *rest in changes:
        if what == "header":
            _put(header, rest[0], _marked(raws, rest[1]))
        elif what == "key":
            _rename(header, *rest)
        elif what == "manifest" and "numerics" in header.get("__metadata__", {}):
            header["__metadata__"]["numerics"] = _manifest(header["__metadata__"]["numerics"], *rest)
    text = json.dumps(header)
    for mark, written in raws.items():
        text = text.replace(f'"{mark}"', written)
    name = text.encode("utf-8", "surrogatepass")
    made = bytearray(len(name).to_bytes(8, "little") + name + data)
    for what, *rest in changes:
        made = _in_bytes(made, what, rest)
    path = Path("damaged.safetensors")
    path.write_bytes(made)
    return str(path)


def _in_bytes(made: bytearray, what: str, rest: list[Any]) -> bytearray:
    if what == "byte" and made:
        made[rest[0] % len(made)] = rest[1] & 255
    elif what == "cut":
        return made[: max(len(made) - rest[0], 0)]
    elif what == "more":
        return made + bytes(rest[0])
    elif what == "length":
        made[:8] = (rest[0] % (1 << 64)).to_bytes(8, "little")
    return made


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a JSON value, with a key of each of its values."""
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        yield node, key
        yield from _places(node[key])


def _put(node: Any, place: int, value: Any) -> None:
    found = list(_places(node))
    if found:
        holder, key = found[place % len(found)]
        holder[key] = value


def _rename(node: Any, place: int, name: str) -> None:
    found = [(holder, key) for holder, key in _places(node) if isinstance(holder, dict)]
    if found:
        holder, key = found[place % len(found)]
        holder[name] = holder.pop(key)


def _marked(raws: dict[str, str], text: str) -> str:
    """A mark, for a text that goes into the JSON as it stands."""
    mark = f"\x01{len(raws)}".replace("\x01", "mark-")
    raws[mark] = text
    return mark


def _manifest(text: str, place: int, value: str) -> str:
    try:
        said = json.loads(text)
    except ValueError:
        return text
    raws: dict[str, str] = {}
    _put(said, place, _marked(raws, value))
    made = json.dumps(said)
    for mark, written in raws.items():
        made = made.replace(f'"{mark}"', written)
    return made


def streamed(path: str, dtype: Any = "int4", **options: Any) -> None:
    """Every reader of a file: load for both libraries, the values, both commands; no rest may stay."""
    refused: list[nx.NumericsError] = []
    uses: list[Callable[[], Any]] = [
        lambda: [_decoded(x) for x in nx.load(path).values()],
        lambda: [_decoded(x) for x in nx.load(path, library="torch").values()],
        lambda: dequantize_file(path, "back.safetensors"),
        lambda: quantize_file(path, "made.safetensors", dtype, **options),
    ]
    for use in uses:
        try:
            use()
        except nx.NumericsError as wrong:
            refused.append(wrong)
    rests = [p.name for p in Path().iterdir() if "partial" in p.name]
    assert not rests, f"{rests} stayed"
    if len(refused) == len(uses):
        raise refused[0]


def _decoded(x: Any) -> Any:
    return x.dequantize() if isinstance(x, nx.QTensor) else repr(x)


# ---- pickles -------------------------------------------------------------------------------------


class _Forged:
    """Pickled as a QTensor is, with other arguments."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.reduced


def forged(base: str, *changes: tuple[str, str]) -> TensorQTensor:
    """torch.load(weights_only=True) of a QTensor, arguments of whose pickle were changed.

    Each change: a place ("1" the shape, "3.0" the first of the parts ...) and an expression over
    `v`, what stood there.
    """
    dtype, options = RECIPES[base]
    q = nx.quantize(torch.from_numpy(_data()), dtype, **options)
    function, arguments = q.__reduce_ex__(2)[:2]
    held = [list(a) if isinstance(a, list) else a for a in arguments]
    for place, expression in changes:
        _replace(held, [int(k) for k in place.split(".")], expression)
    room = io.BytesIO()
    torch.save(_Forged(function, tuple(held)), room)
    return _loaded(room.getvalue())


def _replace(held: list[Any], place: list[int], expression: str) -> None:
    for k in place[:-1]:
        held = held[k % len(held)]
        if not isinstance(held, list):
            return
    k = place[-1] % len(held)
    try:
        held[k] = eval(expression, {"torch": torch, "v": held[k]})
    except Exception:  # what cannot be done to this part is not done
        return


def pickled(base: str, *changes: tuple[int, int]) -> Any:
    """torch.load(weights_only=True) of a saved QTensor with bytes of its pickle changed."""
    dtype, options = RECIPES[base]
    whole = io.BytesIO()
    torch.save(nx.quantize(torch.from_numpy(_data()), dtype, **options), whole)
    made = io.BytesIO()
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            raw = bytearray(old.read(name))
            if name.endswith("data.pkl"):
                for place, value in changes:
                    raw[place % len(raw)] = value
            new.writestr(name, bytes(raw))
    return _loaded(made.getvalue())


def _loaded(raw: bytes) -> Any:
    """What torch loads, used; where torch itself refuses the file, nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            q = torch.load(io.BytesIO(raw), weights_only=True)
        except Exception as wrong:
            if isinstance(wrong, nx.NumericsError) or ours(wrong):
                raise
            return None
    if isinstance(q, TensorQTensor):
        used = (lambda: q.dequantize(), lambda: q + 1, lambda: repr(q), lambda: q[:1].dequantize(),
                lambda: q.detach().clone().dequantize(), lambda: q._repr_html_())  # fmt: skip
        for use in used:
            try:
                use()
            except nx.NumericsError:
                continue
        _fits(q)
    return q


def _fits(q: TensorQTensor) -> None:
    """What is used has the bytes that its shape needs."""
    due = q.spec.packed_bytes(tuple(q.shape))
    if q.packed.is_meta:
        return
    assert q.packed.numel() == due, f"{q.packed.numel()} bytes are used for the {due} of {tuple(q.shape)}"


def ours(wrong: BaseException) -> bool:
    """Was it raised beneath a line of the package?"""
    trace, places = wrong.__traceback__, []
    while trace is not None:
        places.append(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    return any(name == "numerics" or name.startswith("numerics.") for name in places)


# ---- pipes and commands ----------------------------------------------------------------------------


def lines(d: str, op: str, *changes: Change) -> bytes:
    """Right vectors with lines changed: ("put" | "insert" | "drop" | "byte", line, what)."""
    from numerics.conform.vectors.operations import operation
    from numerics.conform.vectors.vectors import generate

    made = b"".join(generate(operation(d, op), count=20)).split(b"\n")
    for what, place, value in changes:
        at = place % max(len(made), 1)
        if what == "put" and made:
            made[at] = value
        elif what == "insert":
            made.insert(at, value)
        elif what == "drop" and made:
            made.pop(at)
        elif what == "byte" and made and made[at]:
            line = bytearray(made[at])
            line[value[0] % len(line)] = value[1]
            made[at] = bytes(line)
    return b"\n".join(made)


def run(*arguments: str, input: bytes = b"") -> None:
    """The command line; what it raises beside NumericsError and its own refusals is wrong."""
    found = CliRunner().invoke(commands, list(arguments), input=input)
    if isinstance(found.exception, SystemExit) or found.exception is None:
        return
    raise found.exception
