"""Graphs of whole operations, profile `bits`: opset 26, integers, every format and every rounding.

Elements come flat.  Blocks come as [rows, columns], cut along the columns, which are a multiple of the
block; what blocks share is [rows, blocks].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto

from numerics.backends.onnx.trace import FLOAT, INT32, INT64, Graph, Lane, arithmetic, as_bits, as_float
from numerics.formats.block import Block, MicroexponentBlock, MXBlock, TieredBlock
from numerics.formats.dtype import Dtype, Element, Integer
from numerics.formats.grid import element_grid, float32_bits, grid, range_of, scale_grid, scale_of
from numerics.formats.packing import group, pack_group, planes, unpack_group
from numerics.formats.rounding import BlockOptions

OPSET = 26  # BitCast; ONNX Runtime 1.26 and later
CODES = {"uint8": TensorProto.UINT8, "uint16": TensorProto.UINT16, "uint32": TensorProto.UINT32}
UINT8 = TensorProto.UINT8


class Blocking:
    """Rows of blocks inside a graph, and back to the shape of what came."""

    def __init__(self, graph: Graph, like: Lane, d: Block) -> None:
        self.graph, self.d = graph, d
        self.whole = graph.node("Shape", [like], INT64)
        ends = graph.shape([0]), graph.shape([-1])
        lines = graph.node("Slice", [self.whole, *ends], INT64)
        self.shared = graph.node("Concat", [lines, graph.shape([-1])], INT64, axis=0)
        self.sizes = [-1, d.sub_blocks, d.sub_block] if isinstance(d, MicroexponentBlock) else [-1, d.block]
        if isinstance(d, TieredBlock):
            self.sizes = [-1, d.pairs, 2, d.sub_block]

    @property
    def arithmetic(self) -> Any:
        """The shared arithmetic over such rows."""
        return arithmetic(len(self.sizes), block=self.d.block)

    def rows(self, lane: Lane) -> Lane:
        """Elements as [n, block], or as [n, sub-blocks, elements]."""
        return self.graph.reshape(lane, self.sizes)

    def fields(self, lane: Lane) -> Lane:
        """What blocks share as rows."""
        return self.graph.reshape(lane, [-1, *[1] * (len(self.sizes) - 1)])


ROWS = "rows", "columns"
SHARED = "rows", "blocks"


def _random(graph: Graph, rounding: str, shape: tuple[str, ...] = ("n",)) -> Lane | None:
    return graph.input("random", INT32, shape) if rounding == "stochastic" else None


def encode(d: Element, rounding: str, overflow: str, low: bool = False) -> ModelProto:
    """Float32 x, with `random` where rounding is stochastic, to codes."""
    graph = Graph()
    x, random = graph.input("x", FLOAT), _random(graph, rounding)
    below = graph.input("low", INT32) if low else None
    code = arithmetic().encode(as_bits(x), grid(d, rounding, overflow), rounding, random, below)
    return _model(graph, {"codes": graph.cast(code, CODES[d.code_dtype])}, d, "encode", rounding)


def decode(d: Element) -> ModelProto:
    """Codes to float32 y."""
    graph = Graph()
    code = graph.cast(graph.input("codes", CODES[d.code_dtype]), INT32)
    y = arithmetic().decode(code, grid(d, "half_even", d.default_overflow))
    return _model(graph, {"y": as_float(y)}, d, "decode")


def round_elements(d: Element, rounding: str, overflow: str, low: bool = False) -> ModelProto:
    """Float32 x to the nearest values."""
    graph = Graph()
    x, random = graph.input("x", FLOAT), _random(graph, rounding)
    below = graph.input("low", INT32) if low else None
    y = arithmetic().round_bits(as_bits(x), grid(d, rounding, overflow), rounding, random, below)
    return _model(graph, {"y": as_float(y)}, d, "round", rounding)


# ---- blocks --------------------------------------------------------------------------------------


def _arguments(d: Block, options: BlockOptions, scaled: Lane | None) -> tuple[Any, ...]:
    """What the shared functions of a format take after the data."""
    if isinstance(d, TieredBlock):
        return d.mantissa, element_grid(d)
    if isinstance(d, MicroexponentBlock):
        return (d.mantissa,)
    rule = options.scale_rule
    if isinstance(d, MXBlock):
        return element_grid(d, rule, options.mode), scale_of(d, rule)
    return scaled, element_grid(d, rule, options.mode), scale_grid(d), rule


def _tensor_scale(graph: Graph, d: Block, tensor_scale: float | None) -> Lane | None:
    """The scale of the tensor: a constant, or an input where it is None."""
    if not d.has_tensor_scale:
        return None
    if tensor_scale is None:
        return as_bits(graph.input("tensor_scale", FLOAT, []))
    return graph.lift(float32_bits(tensor_scale), INT32)


def _blocks_of(graph: Graph, d: Block, rounding: str) -> tuple[Blocking, Lane, Lane | None]:
    x, random = graph.input("x", FLOAT, ROWS), _random(graph, rounding, ROWS)
    blocking = Blocking(graph, x, d)
    drawn = None if random is None else blocking.rows(random)
    return blocking, blocking.rows(as_bits(x)), drawn


def encode_blocks(d: Block, options: BlockOptions) -> ModelProto:
    """Float32 x to codes, scale and (microexponent formats) microexponents."""
    graph = Graph()
    blocking, b, random = _blocks_of(graph, d, options.mode)
    function = getattr(blocking.arithmetic, f"{d.stem}_encode")
    scaled = _tensor_scale(graph, d, options.tensor_scale)
    arguments = _arguments(d, options, scaled)
    found = function(b, *arguments, options.mode, random)
    code, scale = graph.reshape(found[-1], blocking.whole), graph.reshape(found[0], blocking.shared)
    outputs = {
        "codes": graph.cast(code, CODES[d.code_dtype]),
        "scale": graph.cast(scale, CODES[d.scale_code_dtype]),
    }
    if isinstance(d, TieredBlock):
        outputs["microexponents"] = graph.cast(_tiers(graph, found, d, blocking.shared), CODES[d.micro_dtype])
    elif d.sub_blocks:
        places = graph.constant(np.arange(blocking.sizes[1], dtype=np.int32).reshape(1, -1, 1))
        shifts = graph.node("ReduceSum", [found[1] << places, graph.shape([1, 2])], INT32, keepdims=0)
        outputs["microexponents"] = graph.cast(graph.reshape(shifts, blocking.shared), UINT8)
    return _model(graph, outputs, d, "encode", options.mode)


def _tiers(graph: Graph, found: Any, d: TieredBlock, shape: Lane) -> Lane:
    """The microexponents of pairs and of sub-blocks as one number a block."""
    words = []
    for lane, count, first in ((found[1], d.pairs, 0), (found[2], d.sub_blocks, d.pairs)):
        places = graph.constant(np.arange(first, first + count, dtype=np.int32)[None])
        shifted = graph.reshape(lane, [-1, count]) << places
        words.append(graph.node("ReduceSum", [shifted, graph.shape([1])], INT32, keepdims=0))
    return graph.reshape(words[0] + words[1], shape)


def decode_blocks(d: Block, tensor_scale: float | None = None) -> ModelProto:
    """codes, scale and microexponents to float32 y."""
    graph = Graph()
    codes = graph.input("codes", CODES[d.code_dtype], ROWS)
    scale = graph.input("scale", CODES[d.scale_code_dtype], SHARED)
    blocking = Blocking(graph, codes, d)
    code = blocking.rows(graph.cast(codes, INT32))
    shared = blocking.fields(graph.cast(scale, INT32))
    bound = blocking.arithmetic
    if isinstance(d, TieredBlock):
        micro = blocking.fields(
            graph.cast(graph.input("microexponents", CODES[d.micro_dtype], SHARED), INT32)
        )
        of_pairs = graph.constant(np.arange(d.pairs, dtype=np.int32).reshape(1, -1, 1, 1))
        of_parts = graph.constant(np.arange(d.sub_blocks, dtype=np.int32).reshape(1, -1, 2, 1) + d.pairs)
        y = bound.tiered_decode(
            shared, ((micro >> of_pairs) & 1) + ((micro >> of_parts) & 1), code, d.mantissa
        )
    elif isinstance(d, MicroexponentBlock):
        micro = blocking.fields(graph.cast(graph.input("microexponents", UINT8, SHARED), INT32))
        places = graph.constant(np.arange(d.sub_blocks, dtype=np.int32).reshape(1, -1, 1))
        y = bound.micro_decode(shared, (micro >> places) & 1, code, d.mantissa)
    elif isinstance(d, MXBlock):
        y = bound.mx_decode(shared, code, element_grid(d))
    else:
        scaled = _tensor_scale(graph, d, tensor_scale)
        y = bound.scaled_decode(shared, code, scaled, element_grid(d), scale_grid(d))
    return _model(graph, {"y": graph.reshape(as_float(y), blocking.whole)}, d, "decode")


def round_blocks(d: Block, options: BlockOptions) -> ModelProto:
    """Float32 x to the nearest values."""
    graph = Graph()
    blocking, b, random = _blocks_of(graph, d, options.mode)
    function = getattr(blocking.arithmetic, f"{d.stem}_round")
    scaled = _tensor_scale(graph, d, options.tensor_scale)
    arguments = _arguments(d, options, scaled)
    y = graph.reshape(as_float(function(b, *arguments, options.mode, random)), blocking.whole)
    return _model(graph, {"y": y}, d, "round", options.mode)


# ---- strings of bits (formats/packing.py) ----------------------------------------------------------


def pack(bits: int) -> ModelProto:
    """Codes, a whole number of groups, to bytes."""
    graph, (count, _) = Graph(), group(bits)
    codes = graph.cast(graph.input("codes", CODES["uint8" if bits <= 8 else "uint16"], ["n"]), INT32)
    columns = graph.columns(graph.reshape(codes, [-1, count]), count)
    packed = graph.reshape(graph.beside(pack_group(columns, bits)), [-1])
    return graph.model({"packed": graph.cast(packed, UINT8)}, OPSET, f"pack_{bits}")


def unpack(bits: int) -> ModelProto:
    """Returns the graph of the codes that `pack` made bytes of."""
    graph, (_, size) = Graph(), group(bits)
    packed = graph.cast(graph.input("packed", UINT8, ["n"]), INT32)
    columns = graph.columns(graph.reshape(packed, [-1, size]), size)
    codes = graph.reshape(graph.beside(unpack_group(columns, bits)), [-1])
    kind = CODES["uint8" if bits <= 8 else "uint16"]
    return graph.model({"codes": graph.cast(codes, kind)}, OPSET, f"unpack_{bits}")


def pack_micro(d: Block) -> ModelProto:
    """codes, scale and microexponents to whole blocks, a row of bytes each (docs/layout.md)."""
    graph = Graph()
    codes = graph.cast(graph.input("codes", CODES[d.code_dtype], ROWS), INT32)
    columns: list[Any] = list(graph.columns(graph.reshape(codes, [-1, d.block]), d.block))
    kinds = {"scale": UINT8, "microexponents": CODES[d.micro_dtype]}
    fields = [graph.cast(graph.input(name, kind, SHARED), INT32) for name, kind in kinds.items()]
    exponent, micro = (graph.reshape(field, [-1, 1]) for field in fields)
    found: list[Any] = []
    for first, width in planes(d.element_bits):
        count, _ = group(width)
        part = [(code >> first) & ((1 << width) - 1) for code in columns]
        part += [0] * (-d.block % count)
        for k in range(0, len(part), count):
            found += pack_group(part[k : k + count], width)
    shared = [micro, exponent]
    if isinstance(d, TieredBlock):
        shared = [exponent, *((micro >> (8 * k)) & 255 for k in range(d.micro_bytes))]
    packed = graph.beside([*found, *shared])
    return _model(graph, {"packed": graph.cast(packed, UINT8)}, d, "pack")


def unpack_micro(d: Block) -> ModelProto:
    """Returns the graph that undoes pack_micro; codes as rows [blocks, block]."""
    graph = Graph()
    packed = graph.cast(graph.input("packed", UINT8, ["blocks", d.bytes_per_block]), INT32)
    row = graph.columns(packed, d.bytes_per_block)
    codes: list[Any] = [0] * d.block
    start = 0
    for first, width in planes(d.element_bits):
        (_, step), end = group(width), start - (-d.block * width // 8)
        taken = [code for at in range(start, end, step) for code in unpack_group(row[at : at + step], width)]
        codes = [code | (part << first) for code, part in zip(codes, taken, strict=False)]
        start = end
    scale, micro = row[-1], row[-2]
    if isinstance(d, TieredBlock):
        scale, micro = row[start], row[start + 1]
        for k, byte in enumerate(row[start + 2 :], 1):
            micro = micro | (byte << (8 * k))
    outputs = {
        "codes": graph.cast(graph.beside(codes), CODES[d.code_dtype]),
        "scale": graph.cast(scale, UINT8),
        "microexponents": graph.cast(micro, CODES[d.micro_dtype]),
    }
    return _model(graph, outputs, d, "unpack")


# ---- a scale and a zero point ----------------------------------------------------------------------


def _owners(graph: Graph, zero: str) -> tuple[Lane, Lane | None]:
    """The inputs scale and zero, one entry a row, as int32."""
    scale = as_bits(graph.input("scale", FLOAT, ["rows", 1]))
    if zero == "none":
        return scale, None
    kind = FLOAT if zero == "float" else INT32
    point = graph.input("zero", kind, ["rows", 1])
    return scale, as_bits(point) if zero == "float" else point


def encode_affine(d: Element, zero: str, rounding: str, low: bool = False) -> ModelProto:
    """Rows x [rows, n], each with its scale and zero point (`none`, `integer`, `float`), to codes."""
    graph, bound = Graph(), arithmetic()
    b, random = as_bits(graph.input("x", FLOAT, ["rows", "n"])), _random(graph, rounding, ("rows", "n"))
    below = graph.input("low", INT32, ["rows", "n"]) if low else None
    scale, point = _owners(graph, zero)
    f = grid(d, rounding, "saturate")
    if zero == "none":
        code = bound.scaled_code(b, scale, f, rounding, random, below)
    elif zero == "float":
        code = bound.offset_code(b, scale, point, f, rounding, random, below)
    else:
        assert isinstance(d, Integer)
        code = bound.affine_code(b, scale, point, f, range_of(d), rounding, random, below)
    return _model(graph, {"codes": graph.cast(code, CODES[d.code_dtype])}, d, "quantize", rounding)


def decode_affine(d: Element, zero: str) -> ModelProto:
    """The inverse: float32 y [rows, n]."""
    graph, bound = Graph(), arithmetic()
    code = graph.cast(graph.input("codes", CODES[d.code_dtype], ["rows", "n"]), INT32)
    scale, point = _owners(graph, zero)
    if zero == "none":
        y = bound.scaled_value(code, scale, grid(d, "half_even", "saturate"))
    else:
        assert isinstance(d, Integer)
        value: Callable[..., Any] = bound.offset_value if zero == "float" else bound.affine_value
        y = value(code, scale, point, range_of(d))
    return _model(graph, {"y": as_float(y)}, d, "dequantize")


def _model(
    graph: Graph, outputs: dict[str, Lane], d: Dtype, op: str, rounding: str = "half_even"
) -> ModelProto:
    name = f"{op}_{d.name}" + ("" if rounding == "half_even" else f"_{rounding}")
    return graph.model(outputs, OPSET, name, f"numerics {op} {d.name}, {rounding}")


def node_count(model: ModelProto) -> int:
    """Nodes of a graph; what a regression of the lowering shows in."""
    return len(model.graph.node)
