"""ONNX Runtime as an executor on the host: each operation a graph (graphs.py), x to it and back.

For verification and deployment, not for speed: a graph holds every intermediate tensor whole, so
arrays go through in chunks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from numerics.backends.array.executor import ArrayExecutor, empty_fields, looks_further, narrow
from numerics.backends.host.executor import Affine, Array, BlockFields, Codes
from numerics.backends.host.float_bits import as_float32, words
from numerics.backends.host.ieee import ieee_arithmetic
from numerics.backends.onnx import graphs
from numerics.formats.block import Block
from numerics.formats.dtype import Element
from numerics.formats.grid import float32_bits
from numerics.formats.packing import group
from numerics.formats.rounding import BlockOptions, Rounding

CHUNK = 1 << 16  # elements of a run


@lru_cache(maxsize=512)
def _session(make: Callable[..., ModelProto], *arguments: Any) -> Any:
    """The graph of an operation, ready to run on the CPU; one thread, as parts are small."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = make(*arguments).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(feeds: dict[str, Array], make: Callable[..., ModelProto], *arguments: Any) -> list[Array]:
    """What the graph gives."""
    session = _session(make, *arguments)
    with ieee_arithmetic():  # on this thread, whose mode may be another
        found: list[Array] = session.run(None, feeds)
    return found


class IpuExecutor(ArrayExecutor):
    """ONNX graphs; float64 scales, which ONNX's lanes have not, stay with NumPy."""

    name = "ipu"

    def encode(self, x: Array, dtype: Element, rounding: Rounding, out: Codes) -> None:
        """Writes the code of each of x into out."""
        mode, overflow, _ = rounding
        for part, feeds in _parts(x, dtype, rounding):
            (out[part],) = run(feeds, graphs.encode, dtype, mode, overflow, "low" in feeds)

    def decode(self, codes: Codes, dtype: Element, out: NDArray[np.float32]) -> None:
        """Writes the float32 value of each code into out."""
        for start in range(0, codes.size, CHUNK):
            part = slice(start, start + CHUNK)
            (out[part],) = run({"codes": codes[part]}, graphs.decode, dtype)

    def round(self, x: Array, dtype: Element, rounding: Rounding, out: Array) -> None:
        """Writes the format's value for each of x into out, which is of x's type."""
        values, (mode, overflow, _) = np.empty(x.shape, np.float32), rounding
        for part, feeds in _parts(x, dtype, rounding):
            (values[part],) = run(feeds, graphs.round_elements, dtype, mode, overflow, "low" in feeds)
        out[...] = narrow(values, x.dtype)

    def encode_blocks(
        self, x: Array, dtype: Block, options: BlockOptions, out: BlockFields | None = None
    ) -> BlockFields:
        """Returns the rows of x as blocks, in out where it is given."""
        if looks_further(x, dtype, options):
            return super().encode_blocks(x, dtype, options, out)
        fields = empty_fields(len(x), dtype) if out is None else out
        for part, feeds in _rows(x, dtype, options):
            found = run(feeds, graphs.encode_blocks, dtype, _asked(options))
            for field, made in zip((f for f in fields if f is not None), found, strict=True):
                field[part] = made.reshape(field[part].shape)
        return fields

    def decode_blocks(
        self, fields: BlockFields, dtype: Block, tensor_scale: float | None, out: NDArray[np.float32]
    ) -> None:
        """Writes the float32 values of blocks into the rows of out."""
        for part in _slices(len(out), dtype.block):
            feeds: dict[str, Array] = {"codes": fields.codes[part], "scale": fields.scale[part, None]}
            if fields.microexponents is not None:
                feeds["microexponents"] = fields.microexponents[part, None]
            if dtype.has_tensor_scale:
                feeds["tensor_scale"] = _float32(tensor_scale)
            (out[part],) = run(feeds, graphs.decode_blocks, dtype)

    def round_blocks(self, x: Array, dtype: Block, options: BlockOptions, out: Array) -> None:
        """Writes the format's values for the rows of x into those of out, which is of x's type."""
        if looks_further(x, dtype, options):
            super().round_blocks(x, dtype, options, out)
            return
        for part, feeds in _rows(x, dtype, options):
            (values,) = run(feeds, graphs.round_blocks, dtype, _asked(options))
            out[part] = narrow(values, x.dtype)

    def pack(self, codes: Codes, bits: int) -> NDArray[np.uint8]:
        """Codes to bytes; a short last group is filled with zeros and cut off again."""
        count, _ = group(bits)
        filled = np.zeros(-(-codes.size // count) * count, codes.dtype)
        filled[: codes.size] = codes
        (packed,) = run({"codes": filled}, graphs.pack, bits)
        return packed[: -(-codes.size * bits // 8)]

    def unpack(self, packed: NDArray[np.uint8], count: int, bits: int) -> Codes:
        """Returns the `count` codes that `pack` made bytes of."""
        length, size = group(bits)
        filled = np.zeros(-(-count // length) * size, np.uint8)
        filled[: packed.size] = packed[: filled.size]
        (codes,) = run({"packed": filled}, graphs.unpack, bits)
        return codes[:count]

    def encode_affine(self, x: Array, dtype: Element, affine: Affine, rounding: Rounding) -> Codes:
        """clamp(round(x / scale) + zero)."""
        if x.dtype == np.float64 or x.ndim != 2:
            return super().encode_affine(x, dtype, affine, rounding)
        feeds: dict[str, Array] = {"x": as_float32(x), **_owners(affine)}
        if rounding.draw.bits is not None:
            feeds["random"] = rounding.draw.bits.reshape(x.shape)
        (codes,) = run(feeds, graphs.encode_affine, dtype, _zero_kind(affine), rounding.mode)
        return codes

    def decode_affine(self, codes: Codes, dtype: Element, affine: Affine) -> Array:
        """(q - zero) * scale."""
        if affine.scale.dtype == np.float64 or codes.ndim != 2:
            return super().decode_affine(codes, dtype, affine)
        (values,) = run({"codes": codes, **_owners(affine)}, graphs.decode_affine, dtype, _zero_kind(affine))
        return values


def _slices(n: int, size: int) -> list[slice]:
    step = max(CHUNK // size, 1)
    return [slice(start, start + step) for start in range(0, n, step)]


def _parts(x: Array, d: Element, rounding: Rounding) -> list[tuple[slice, dict[str, Array]]]:
    """Slices of elements, and what a graph takes for each."""
    found, random = [], rounding.draw.bits
    for part in _slices(x.size, 1):
        bits, low = words(x[part], rounding.mode == "stochastic", getattr(d, "has_zero", True))
        feeds: dict[str, Array] = {"x": bits.view(np.float32)}
        if random is not None:
            feeds["random"] = random[part]
        if low is not None:
            feeds["low"] = low
        found.append((part, feeds))
    return found


def _rows(x: Array, d: Block, o: BlockOptions) -> list[tuple[slice, dict[str, Array]]]:
    """Slices of blocks, and what a graph takes for each."""
    found = []
    for part in _slices(len(x), d.block):
        feeds: dict[str, Array] = {"x": as_float32(x[part])}
        if o.draw.bits is not None:
            feeds["random"] = o.draw.bits[part]
        if d.has_tensor_scale:
            feeds["tensor_scale"] = _float32(o.tensor_scale)
        found.append((part, feeds))
    return found


def _asked(options: BlockOptions) -> BlockOptions:
    """What a graph is made for; the rest are its inputs."""
    return BlockOptions(options.scale_rule, options.mode)


def _float32(tensor_scale: float | None) -> Array:
    """By its bits: a conversion would lose subnormals in a thread that flushes them."""
    return np.array(float32_bits(tensor_scale or 1.0), np.int32).view(np.float32)


def _zero_kind(affine: Affine) -> str:
    if affine.zero is None:
        return "none"
    return "float" if affine.zero.dtype.kind == "f" else "integer"


def _owners(affine: Affine) -> dict[str, Array]:
    owners = {"scale": affine.scale.reshape(-1, 1)}
    if affine.zero is not None:
        owners["zero"] = affine.zero.reshape(-1, 1)
    return owners
