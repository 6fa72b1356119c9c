"""Weights that other tools quantized, as QTensors: their codes and scales as they are, nothing rounded.

Recognized by their names and types, as the tools write them; what cannot be a QTensor is left as it is,
with the reason.  docs/checkpoints.md has the table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from numerics.files.companions import CODES as PACKED_TYPES
from numerics.files.safetensors import Entry, word_type
from numerics.formats.blocks import mxfp4, mxfp6_e2m3, mxfp6_e3m2, mxfp8_e4m3, mxfp8_e5m2, nvfp4
from numerics.formats.dtype import Element, Integer
from numerics.formats.errors import NumericsError, digits, said
from numerics.formats.floats import bfloat16, e8m0, fp4, fp6_e2m3, fp6_e3m2, fp8_e4m3, fp8_e5m2
from numerics.formats.integers import int8, integer_format, uint4, uint8
from numerics.interop.layouts import AWQ, unpack_words
from numerics.tensor.qtensor import ArrayQTensor, QTensor
from numerics.tensor.scheme import Scheme, per_block, per_channel, per_group, per_tensor
from numerics.tensor.spec import QuantSpec

Array = NDArray[Any]
_TILE = re.compile(r"[0-9]{1,9}x[0-9]{1,9}")  # older compressed-tensors
TILE = (128, 128)  # rows and columns that share a scale, in DeepSeek's files
FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
ELEMENTS: Mapping[str, Element] = {"F8_E4M3": fp8_e4m3, "F8_E5M2": fp8_e5m2, "I8": int8}
MX = {
    "F4": mxfp4, "F6_E2M3": mxfp6_e2m3, "F6_E3M2": mxfp6_e3m2, "F8_E4M3": mxfp8_e4m3, "F8_E5M2": mxfp8_e5m2,
}  # fmt: skip
CODES: Mapping[str, Element] = {"F4": fp4, "F6_E2M3": fp6_e2m3, "F6_E3M2": fp6_e3m2}
E8M0 = ("U8", "F8_E8M0")
PADDING_LIMIT = 1 << 31  # values of one tensor that are unpacked


class Left(Exception):
    """Why codes stay as they are."""


class Unreadable(Exception):
    """The file does not give a tensor: no word about the weight, but about the file."""


@dataclass(frozen=True)
class Weight:
    """A weight that another tool quantized.

    name: as the model has it.  source: who writes it so.  parts: the tensors of the file that it consists of,
    by their roles; why: it stays as it is; None where it becomes a QTensor.
    """

    name: str
    source: str
    parts: Mapping[str, str]
    make: Callable[[Parts], QTensor]


class Parts:
    """The tensors of one weight: their types and shapes, and their numbers when they are asked for."""

    def __init__(self, weight: Mapping[str, str], entries: Mapping[str, Entry], raw: Callable[[str], Array],
                 config: Mapping[str, Any]) -> None:  # fmt: skip
        self._names, self._entries, self._raw = weight, entries, raw
        self.config = config

    def __contains__(self, role: str) -> bool:
        return role in self._names

    @property
    def roles(self) -> list[str]:
        """What the weight consists of."""
        return list(self._names)

    @property
    def scale_name(self) -> str:
        """What the file calls the scales."""
        return self._names["scale"]

    def entry(self, role: str) -> Entry:
        return self._entries[self._names[role]]

    def raw(self, role: str) -> Array:
        """The bytes of a part; raises Unreadable where the file does not give them."""
        try:
            return self._raw(self._names[role])
        except NumericsError as wrong:
            raise Unreadable(str(wrong)) from wrong

    def words(self, role: str) -> Array:
        """A part as NumPy has it; small floats as bytes."""
        entry = self.entry(role)
        return self.raw(role).view(word_type(entry.dtype)).reshape(entry.shape)

    def floats(self, role: str) -> Array:
        """A part of wide floats, or of powers of two (E8M0), as float32."""
        entry, words = self.entry(role), self.words(role)
        if entry.dtype == "F8_E8M0":
            found = cast(Array, e8m0.decode(np.ascontiguousarray(words).view(np.uint8)))
            if not bool(np.isfinite(found).all()):
                raise Left(f"its {role} holds the byte 255, which is NaN in E8M0")
            return found.astype(np.float32)
        if entry.dtype == "BF16":
            return cast(Array, bfloat16.decode(np.ascontiguousarray(words)))
        if entry.dtype not in FLOATS:
            raise Left(f"its {role} is {entry.dtype}, no float")
        return words.astype(np.float32)

    @property
    def original(self) -> str:
        """The float type for which a weight stands: that of its scales."""
        return FLOATS.get(self.entry("scale").dtype, "float32")


# ---- which tensors belong together ----------------------------------------------------------------


def weights_of(entries: Mapping[str, Entry]) -> dict[str, Weight]:
    """Returns the weights that other tools quantized, by the name of the tensor that holds their codes."""
    found: dict[str, Weight] = {}
    for name, entry in entries.items():
        if entry.dtype not in PACKED_TYPES:
            continue
        for weight in _candidates(name, entry, entries):
            found[name] = weight
            break
    return found


def _candidates(name: str, entry: Entry, entries: Mapping[str, Entry]) -> Iterator[Weight]:
    for ending, source, roles, make in _KINDS:
        if not name.endswith(ending):
            continue
        stem = name.removesuffix(ending)
        parts = {role: stem + other for role, other in roles.items() if stem + other in entries}
        if "scale" in parts and parts["scale"] != name:
            model = stem + {"weight_packed": "weight", "qweight": "weight", "_blocks": ""}.get(ending, ending)
            yield Weight(model, source, {"codes": name, **parts}, make)


def read(weight: Weight, entries: Mapping[str, Entry], raw: Callable[[str], Array],
         config: Mapping[str, Any] | None = None) -> QTensor | str:  # fmt: skip
    """Returns a weight as a QTensor, or why it stays as it is.

    raw: gives the bytes of a tensor.  config: what the checkpoint says of its quantization.  Tensors that
    contradict each other are such a reason too; raises NumericsError, naming the weight, where the file does
    not give their bytes.
    """
    parts = Parts(weight.parts, entries, raw, config or {})
    try:
        if math.prod(parts.entry("codes").shape) > PADDING_LIMIT:
            raise Left("it is larger than what is unpacked at once")
        return weight.make(parts)
    except Left as why:
        return str(why)
    except Unreadable as wrong:
        raise NumericsError(f"{weight.name} ({weight.source}): {wrong}") from None
    except (NumericsError, ValueError, IndexError) as wrong:  # of NumPy: shapes that do not go together
        return f"its tensors do not fit each other: {wrong}"


def lone_codes(x: Any) -> str | None:
    """What is odd about an array of small floats by itself; None for any other tensor."""
    kind = "" if isinstance(x, QTensor) else x.dtype.name
    if not kind.startswith("float8_"):
        return None
    return f"{kind} with no scale beside it (weight_scale_inv, weight_scale), which its values would need"


# ---- scales by a scheme ---------------------------------------------------------------------------


def _shared(
    shape: tuple[int, ...], scale: Array, size: int | None, tile: tuple[int, int] | None = None
) -> tuple[Scheme, Array]:
    """The scheme of scales that lie as other tools have them, and the scales in the shape that it makes.

    size: the columns that share a scale; tile: the rows and columns that do; where the checkpoint says so, or
    who writes it always does.
    """
    if tile is not None and scale.shape == _tiles(shape, tile):
        return per_group(tile[1]) if tile[0] == 1 else per_block(tile), np.ascontiguousarray(scale)
    if scale.size == 1:
        return per_tensor(), scale.reshape(())
    if tile is None and scale.shape == _tiles(shape, TILE) and scale.shape[-2] != shape[-2]:
        return per_block(TILE), np.ascontiguousarray(scale)
    return _by_rows(shape, scale, size)


def _tiles(shape: tuple[int, ...], tile: tuple[int, int]) -> tuple[int, ...]:
    """How many blocks of two dimensions there are; none of vectors."""
    if len(shape) < 2:
        return ()
    return (*shape[:-2], -(-shape[-2] // tile[0]), -(-shape[-1] // tile[1]))


def _by_rows(shape: tuple[int, ...], scale: Array, size: int | None) -> tuple[Scheme, Array]:
    """Scales of the rows of a matrix, or of groups of their columns."""
    if len(shape) != 2 or scale.ndim not in (1, 2) or scale.shape[0] != shape[0]:
        raise Left(f"scales of shape {scale.shape} for {shape} are of no scheme")
    rows, columns = shape
    if scale.ndim == 1 or scale.shape[1] == 1:
        return per_channel(0), scale.reshape(rows)
    return per_group(_group_of(columns, scale.shape[1], size)), np.ascontiguousarray(scale)


def _group_of(columns: int, groups: int, told: int | None) -> int:
    """How many columns share a scale: as the checkpoint says, or the one power of two, or row, that fits.

    Of 96 columns two groups may be of 48, or of 64 and 32: who is not told cannot know.
    """
    size = told or columns // max(groups, 1)
    if told is None and groups > 1 and (size * groups != columns or size & (size - 1)):
        raise Left(f"{groups} scales for {columns} columns are groups of a size that is not told")
    if not size or -(-columns // size) != groups:
        raise Left(f"{groups} scales for {columns} columns are no groups of {size}")
    return size


def _group_size(parts: Parts) -> int | None:
    """Columns that share a scale, as the configuration says, or the group of every column."""
    found = parts.config.get("group_size")
    if type(found) is int and found > 0:
        return found
    return int((parts.words("order") == 0).sum()) or None if "order" in parts else None


def _tile(parts: Parts) -> tuple[int, int] | None:
    """Rows and columns that share a scale, as transformers and compressed-tensors say; or DeepSeek's own."""
    key = next(
        (key for key in ("weight_block_size", "block_structure") if parts.config.get(key) is not None), ""
    )
    if not key:
        return TILE if parts.scale_name.endswith("_scale_inv") else None
    came = parts.config[key]
    sizes = [int(n) for n in came.split("x")] if isinstance(came, str) and _TILE.fullmatch(came) else came
    if not (isinstance(sizes, list) and len(sizes) == 2 and all(type(n) is int and n > 0 for n in sizes)):
        raise Left(f"its {key} is {said(came)}, and should be two numbers above 0, as [128, 128]")
    return sizes[0], sizes[1]


def _scale_type(parts: Parts) -> str:
    return FLOATS.get(parts.entry("scale").dtype, "float32")


def _elements(parts: Parts) -> QTensor:
    """FP8 and int8: codes as they are, scales by a scheme, or of blocks of two dimensions."""
    entry, kind = parts.entry("codes"), parts.entry("scale").dtype
    if kind in E8M0 and not _powers_of_tiles(parts):
        return _mx(parts)
    if entry.dtype not in ELEMENTS:
        raise Left(f"codes of {entry.dtype} with such scales are of no format here")
    if "inputs" in parts:
        raise Left(
            "its inputs are multiplied by scales of their own (pre_quant_scale), which a weight has not"
        )
    scheme, scale = _shared(entry.shape, parts.floats("scale"), _group_size(parts), _tile(parts))
    spec = QuantSpec(ELEMENTS[entry.dtype], scheme=scheme, scale_type=_scale_type(parts))
    codes = parts.words("codes").view(np.uint8)
    if "zero" in parts:
        raise Left("its zero points are of int8 codes, which is not read")
    return QTensor.from_parts(spec, codes, scale, original=_wide(parts))


def _powers_of_tiles(parts: Parts) -> bool:
    """Are the scales E8M0, but of a whole weight, of rows, or of tiles (scale_fmt "ue8m0"), not of OCP MX?"""
    entry, scale = parts.entry("codes"), parts.entry("scale")
    if scale.dtype != "F8_E8M0" or entry.dtype not in ELEMENTS or not entry.shape:
        return False
    return scale.shape != (*entry.shape[:-1], -(-entry.shape[-1] // mxfp8_e4m3.block))


def _wide(parts: Parts) -> str:
    """What a weight with scales in float32 stands for: the checkpoint's own type, where that is told."""
    told = parts.config.get("dtype")
    if told in FLOATS.values() and parts.original == "float32":
        return str(told)
    return parts.original


# ---- blocks ---------------------------------------------------------------------------------------


def _mx(parts: Parts) -> QTensor:
    """OCP MX: small floats of safetensors' own types, and E8M0 bytes."""
    entry = parts.entry("codes")
    if entry.dtype not in MX:
        raise Left(f"codes of {entry.dtype} with E8M0 scales are of no format here")
    d = MX[entry.dtype]
    if entry.dtype in CODES:
        codes = CODES[entry.dtype].unpack(parts.raw("codes"), entry.shape)
    else:
        codes = parts.words("codes")
    return QTensor.from_parts(QuantSpec(d), codes, parts.words("scale").view(np.uint8), original="bfloat16")


def _packed_blocks(parts: Parts) -> QTensor:
    """MXFP4, MXFP6 and NVFP4 of compressed-tensors and ModelOpt: bytes of packed codes, row by row."""
    entry, scale = parts.entry("codes"), parts.entry("scale")
    if entry.dtype == "I32":
        return _words(parts)
    if entry.dtype == "F4" or entry.dtype.startswith("F6"):
        return _nvfp4(parts, entry.shape) if scale.dtype == "F8_E4M3" else _mx(parts)
    if entry.dtype != "U8" or len(entry.shape) < 2:
        return _elements(parts)
    lead, nbytes = entry.shape[:-1], entry.shape[-1]
    if scale.dtype == "F8_E4M3":
        return _nvfp4(parts, (*lead, 2 * nbytes))
    if scale.dtype not in E8M0 or not scale.shape:
        raise Left(f"bytes with scales of {scale.dtype} are of no format here")
    blocks = scale.shape[-1]
    d = {2 * nbytes: mxfp4, nbytes * 8 // 6: mxfp6_e2m3}.get(32 * blocks)
    if d is None:
        raise Left(f"{nbytes} bytes and {blocks} scales a row are no blocks of 32")
    return _made(QuantSpec(d), (*lead, 32 * blocks), parts)


def _made(
    spec: QuantSpec, shape: tuple[int, ...], parts: Parts, tensor_scale: float | None = None
) -> QTensor:
    """A tensor of bytes that lie as they do here."""
    packed = parts.raw("codes").view(np.uint8).reshape(-1)
    shared = parts.words("scale").view(np.uint8)
    original = "bfloat16"  # in which MX and NVFP4 are used everywhere
    return ArrayQTensor(spec=spec, shape=shape, packed=packed, shared=shared, tensor_scale=tensor_scale,
                        original=original)  # fmt: skip


def _nvfp4(parts: Parts, shape: tuple[int, ...]) -> QTensor:
    """NVFP4: ModelOpt's second scale multiplies; that of compressed-tensors divides."""
    if "inputs" in parts:
        raise Left(
            "its inputs are multiplied by scales of their own (pre_quant_scale), which a weight has not"
        )
    if "second" in parts:
        tensor_scale = parts.floats("second").reshape(-1)
    elif "global" in parts:
        with np.errstate(divide="ignore"):
            tensor_scale = np.float32(1) / parts.floats("global").reshape(-1)
    else:
        raise Left("its tensor scale is not there")
    if tensor_scale.size != 1:
        raise Left(f"it has {tensor_scale.size} tensor scales; one is read")
    return _made(QuantSpec(nvfp4), shape, parts, float(tensor_scale[0]))


def _gpt_oss(parts: Parts) -> QTensor:
    """MXFP4 of gpt-oss: blocks [..., blocks of a row, 16 bytes], scales [..., blocks of a row]."""
    codes, scale = parts.entry("codes"), parts.entry("scale")
    if codes.dtype != "U8" or scale.dtype not in E8M0 or codes.shape != (*scale.shape, 16):
        raise Left(f"{codes.dtype} {codes.shape} and {scale.dtype} {scale.shape} are no blocks of MXFP4")
    return _made(QuantSpec(mxfp4), (*scale.shape[:-1], 32 * scale.shape[-1]), parts)


# ---- integers in words ----------------------------------------------------------------------------


def _words(parts: Parts) -> QTensor:
    """compressed-tensors' pack-quantized: rows of words, the smallest code is 0."""
    rows, columns = _whole_shape(parts)
    bits = _bits(parts, columns)
    d = integer_format(bits)
    codes = _unpacked(parts.words("codes"), d, columns)
    scheme, scale = _shared((rows, columns), parts.floats("scale"), _group_size(parts))
    _check_order(parts, columns, scheme.size or columns)
    options: dict[str, Any] = {"scheme": scheme, "scale_type": _scale_type(parts)}
    if "zero" not in parts:
        return QTensor.from_parts(QuantSpec(d, **options), codes, scale, original=_wide(parts))
    zero = parts.words("zero")
    if _is_packed(zero, parts.entry("scale").shape, bits):
        half = 1 << (bits - 1)
        lines = _unpacked(zero.T, integer_format(bits, signed=False), rows).T
        zero = lines.astype(np.int32) - half
    spec = QuantSpec(d, symmetric=False, **options)
    _check_signs(scale)
    zero = _whole(zero).reshape(scale.shape).copy()  # ascontiguousarray would give () an axis
    return QTensor.from_parts(spec, codes, scale, zero_point=zero, original=_wide(parts))


def _unpacked(words: Array, d: Integer, count: int) -> Array:
    """Codes of rows of words, `count` a row; of 3, 5, 6 and 7 bits as a string of bits, code 0 lowest.

    In that string 32 codes are as many words as a code has bits.
    """
    if 32 % d.bits == 0:
        return cast(Array, unpack_words(np.ascontiguousarray(words), d, count))
    if words.shape[1] != -(-count * d.bits // 32):
        raise Left(f"{words.shape[1]} words a row do not hold {count} codes of {d.bits} bits")
    whole = np.pad(words, ((0, 0), (0, -words.shape[1] % d.bits)))
    codes = d.unpack(
        np.ascontiguousarray(whole, "<i4").view(np.uint8).reshape(-1),
        (len(whole), whole.shape[1] // d.bits * 32),
    )
    smallest = 1 << (d.bits - 1) if d.signed else 0
    return cast(Array, np.ascontiguousarray(codes[:, :count]) ^ np.uint8(smallest))


def _is_packed(zero: Array, scale: tuple[int, ...], bits: int) -> bool:
    """Are zero points words of some rows each?

    Of a single row both have one shape.  Its words then are what compressed-tensors packs, which stores zero
    points of 32 bits in no other way, unless one has bits where the rows end, as a negative number has.
    """
    if zero.dtype != np.int32:
        return False
    if zero.shape != scale:
        return True
    return zero.ndim == 2 and len(zero) == 1 and bool(((zero >> bits) == 0).all())


def _whole(zero: Array) -> Array:
    """Zero points as int32; of those that are no integers of 32 bits the first is named."""
    with np.errstate(invalid="ignore"):
        found = zero.astype(np.int32)
    wrong = zero[found != zero]
    if wrong.size:
        raise Left(f"it has the zero point {digits(wrong[0])}, which is no integer of 32 bits")
    return found


def _check_signs(scale: Array) -> None:
    """Of scales beside zero points, of which kernels take the sign for that of a positive number."""
    if not bool((scale > 0).all()):
        raise Left("it has scales that are not above zero beside zero points")


def _whole_shape(parts: Parts) -> tuple[int, int]:
    """Of a weight in words: as its file says."""
    entry = parts.entry("codes")
    if "shape" not in parts:
        raise Left("its shape is not there")
    said = [int(n) for n in parts.words("shape").reshape(-1)]
    if len(said) != 2 or len(entry.shape) != 2 or said[0] != entry.shape[0] or said[1] < 0:
        raise Left(f"its shape {said} is none of a matrix in words of {entry.shape}")
    return said[0], said[1]


def _bits(parts: Parts, columns: int) -> int:
    """Of a code: as the configuration says, or as the words tell."""
    words = parts.entry("codes").shape[1]
    told = parts.config.get("num_bits")
    fitting = [bits for bits in (2, 4, 8) if -(-columns * bits // 32) == words]
    if type(told) is int:
        if told in (2, 4, 8) and told not in fitting:
            raise Left(f"{words} words a row do not hold {columns} codes of {told} bits")
        if not 2 <= told <= 8:
            raise Left(f"its codes have {told} bits; 2 to 8 are read")
        if told not in (2, 4, 8) and words == -(-columns // (32 // told)):
            raise Left(f"its codes have {told} bits, which versions of compressed-tensors pack in different "
                       f"ways: {words} words a row may each hold whole codes alone")  # fmt: skip
        return told
    if len(fitting) != 1:
        raise Left(f"{words} words a row hold {columns} codes of no bits that are known")
    return fitting[0]


def _check_order(parts: Parts, columns: int, size: int) -> None:
    """Groups must lie one behind the other."""
    if "order" not in parts:
        return
    order = parts.words("order").reshape(-1)
    if order.size != columns or not (order == np.arange(columns) // size).all():
        raise Left("its inputs are in groups by activation order (g_idx), which is no scheme")


def _awq(parts: Parts) -> QTensor:
    """AutoAWQ: words along the outputs, in an order of their own; [inputs, outputs]."""
    return _transposed(parts, {"axis": 1, "order": AWQ}, 0)


def _gptq(parts: Parts) -> QTensor:
    """GPTQ: words along the inputs; [inputs, outputs]; zero points are stored less one."""
    told = parts.config.get("checkpoint_format", "gptq")
    if told not in ("gptq", "gptq_v2"):
        raise Left(f"its checkpoint_format is {told!r}; gptq and gptq_v2 are read")
    return _transposed(parts, {"axis": 0}, 0 if told == "gptq_v2" else 1)


def _transposed(parts: Parts, lie: dict[str, Any], less: int) -> QTensor:
    words, zeros, scale = (parts.entry(role) for role in ("codes", "zero", "scale"))
    groups, outputs = scale.shape if len(scale.shape) == 2 else (0, 0)
    bits = parts.config.get("bits", parts.config.get("w_bit", 4))
    d = {4: uint4, 8: uint8}.get(bits) if type(bits) is int else None
    if d is None or (lie["axis"] == 1 and d is not uint4):
        raise Left(f"its codes have {bits} bits; 4 are read, and 8 of GPTQ")
    inputs = words.shape[0] if lie["axis"] == 1 else words.shape[0] * 32 // d.bits
    if words.dtype != "I32" or zeros.dtype != "I32" or not groups:
        raise Left(f"{words.shape} words and {scale.shape} scales are no groups")
    codes = unpack_words(parts.words("codes"), d, outputs if lie["axis"] == 1 else inputs, **lie)
    zero = unpack_words(
        parts.words("zero"), d, outputs, axis=1, **{k: v for k, v in lie.items() if k == "order"}
    )
    if codes.shape != (inputs, outputs) or zero.shape != (groups, outputs):
        raise Left(
            f"codes {codes.shape} and zero points {zero.shape} do not belong to {groups} x {outputs} scales"
        )
    if less and bool((zero == (1 << d.bits) - 1).any()):
        raise Left("a zero point beyond the codes, which versions of GPTQ read in different ways")
    size = _group_of(inputs, groups, _group_size(parts))
    _check_order(parts, inputs, size)
    spec = QuantSpec(d, scheme=per_group(size), symmetric=False, scale_type=_scale_type(parts))
    scales = np.ascontiguousarray(parts.floats("scale").T)
    _check_signs(scales)
    return QTensor.from_parts(
        spec, np.ascontiguousarray(codes.T), scales,
        zero_point=np.ascontiguousarray(zero.T.astype(np.int32) + less), original=_wide(parts),
    )  # fmt: skip


def _gptq_or_awq(parts: Parts) -> QTensor:
    """Both call their tensors alike; the words lie along another axis."""
    words, scale = parts.entry("codes"), parts.entry("scale")
    if len(words.shape) != 2 or len(scale.shape) != 2 or "zero" not in parts:
        raise Left("its words, scales and zero points are no matrices")
    return _gptq(parts) if words.shape[1] == scale.shape[1] else _awq(parts)


_CT, GPT_OSS = "compressed-tensors, ModelOpt or Quark", "MXFP4 of gpt-oss"
_BESIDE = {
    "scale": "weight_scale", "second": "weight_scale_2", "global": "weight_global_scale",
    "inputs": "pre_quant_scale", "zero": "weight_zero_point", "order": "weight_g_idx",
    "shape": "weight_shape",
}  # fmt: skip
_KINDS: tuple[tuple[str, str, Mapping[str, str], Callable[[Parts], QTensor]], ...] = (
    ("weight_packed", "compressed-tensors", _BESIDE, _packed_blocks),
    ("qweight", "GPTQ or AWQ", {"scale": "scales", "zero": "qzeros", "order": "g_idx"}, _gptq_or_awq),
    ("_blocks", GPT_OSS, {"scale": "_scales"}, _gpt_oss),
    ("weight", "DeepSeek", {"scale": "weight_scale_inv"}, _elements),
    ("weight", _CT, _BESIDE, _packed_blocks),
    ("", "DeepSeek", {"scale": "_scale_inv"}, _elements),
    ("", _CT, {"scale": "_scale", "second": "_scale_2"}, _packed_blocks),
)
