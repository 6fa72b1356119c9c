"""`nx.ipu.export`: an operation on a format as an ONNX model, in one of three profiles.

bits      opset 26, integers: every format, every rounding; ONNX Runtime 1.26 and later.
portable  opset 13, float arithmetic, half to even: elements and OCP MX; old runtimes too.
npu       opset 17, what Ryzen AI takes: int8, uint8 and int16 as QuantizeLinear and DequantizeLinear,
          bfloat16 as casts.  Block formats become nodes of AMD Quark's own operators, which need its
          library; they are not types of the NPU.

What a profile does not offer raises NumericsError; nothing is replaced by something near it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from onnx import ModelProto, TensorProto

from numerics.backends.ipu.devices import device as find_device
from numerics.backends.ipu.shapes import shaped
from numerics.backends.ipu.srs import MODES
from numerics.backends.onnx import graphs, portable
from numerics.backends.onnx.trace import FLOAT, INT32, Graph, arithmetic
from numerics.formats.arguments import keywords
from numerics.formats.block import Block, MicroexponentBlock, MXBlock
from numerics.formats.dtype import Dtype, Element, Integer
from numerics.formats.errors import NumericsError, one_of
from numerics.formats.registry import dtype as find_dtype
from numerics.formats.rounding import SCALE_RULES, BlockOptions, Draw, check_rounding

OPS = ("encode", "decode", "round", "pack", "unpack", "requantize")
PROFILES = ("bits", "portable", "npu")
QDQ = {"int8": TensorProto.INT8, "uint8": TensorProto.UINT8, "int16": TensorProto.INT16}
QUARK, MICROSOFT = "com.amd.quark", "com.microsoft"
_BFP = {"mx4": 11, "mx6": 13, "mx9": 16, "bfp16": 16}  # Quark's bit_width: 8 exponent bits among them
_MX = {
    "fp8_e5m2": "fp8_e5m2", "fp8_e4m3": "fp8_e4m3", "fp6_e3m2": "fp6_e3m2", "fp6_e2m3": "fp6_e2m3",
    "fp4": "fp4_e2m1",
}  # fmt: skip
# not int8: Quark's reaches -128 steps, which the format leaves unused (OCP MX 1.0 §5.3.4)


@keywords
def export(
    dtype: Any,
    op: str = "round",
    profile: str = "bits",
    *,
    rounding: str | None = None,
    overflow: str | None = None,
    scale_rule: str = "floor",
    scale: float = 1.0,
    zero_point: int = 0,
    tensor_scale: float | None = None,
    shift: int | None = None,
    device: str | None = None,
    shape: Sequence[int | str] | None = None,
) -> ModelProto:
    """Returns an operation on a format as an onnx.ModelProto.

    Its input is `x`, float32, or codes or bytes where op begins from these: single numbers flat [n], blocks
    [rows, columns] along the columns; or of the shape that is asked for.

    dtype: the format, or its name.
    op: encode, decode, round (the default), pack, unpack; or requantize: int32 accumulators over 2**shift to
        the integers of dtype, rounded as `device` does (devices.py) or by one of AIE-ML's modes (srs.py).
    profile: bits (the default: opset 26, integers, every format and rounding); portable (opset 13, float
        arithmetic, round only, half_even); npu (opset 17, round only: int8, uint8 and int16 as
        QuantizeLinear and DequantizeLinear, bfloat16 as casts, blocks as AMD Quark's nodes).
    rounding: half_even (the default), half_away, half_up, half_down, toward_zero, floor, ceil, to_odd, or
        stochastic, which takes an input `random` (int32, 30 bits).
    overflow: saturate or nonsaturate, as for `Element.encode`.  scale_rule: of OCP MX: floor (the default),
        ceil, even, rceil, tosa or bump; of float scales floor, ceil, nvidia, mse, four_over_six or
        four_over_six_mae.  tensor_scale: of NVFP4; an input where it is not given.
    scale, zero_point: of the npu profile's integers.  shift, device: of requantize.
    shape: of the input: sizes, or names of sizes that are open, such as ("batch", 3, "height", "width");
        blocks lie along the last axis.  Not for pack and unpack, which take strings of bits.
    Raises NumericsError for what the profile does not offer.  docs/ipu.md says what was run where.

    >>> import numerics as nx
    >>> model = nx.ipu.export("fp6_e2m3", "round", "bits")
    >>> [value.name for value in model.graph.input], model.opset_import[0].version
    (['x'], 26)
    >>> [size.dim_param or size.dim_value for size in export(
    ...     "mxfp4", "encode", shape=("batch", 4, 64)).graph.output[1].type.tensor_type.shape.dim]
    ['batch', 4, 2]
    """
    one_of("op", op, OPS)
    one_of("profile", profile, PROFILES)
    one_of("scale rule", scale_rule, SCALE_RULES)
    d = find_dtype(dtype)
    if op == "requantize":
        return shaped(_requantize(d, profile, rounding, shift, device), d, op, shape)
    for name, given in (("shift", shift), ("device", device)):
        if given is not None:
            raise NumericsError(f"{name}= belongs to op='requantize', not {op!r}")
    asked = BlockOptions(scale_rule, check_rounding(rounding or "half_even"), tensor_scale)
    return shaped(_operation(d, op, profile, asked, (overflow, scale, zero_point)), d, op, shape)


def _operation(
    d: Dtype, op: str, profile: str, asked: BlockOptions, rest: tuple[str | None, float, int]
) -> ModelProto:
    """The model of an operation; rest: overflow, scale and zero point."""
    overflow, scale, zero_point = rest
    mode, scale_rule, tensor_scale = asked.mode, asked.scale_rule, asked.tensor_scale
    if profile != "npu" and (scale, zero_point) != (1.0, 0):
        raise NumericsError("scale and zero_point belong to profile='npu'")
    if profile == "bits":
        draw = Draw(seed=0) if mode == "stochastic" else Draw()  # the graph takes the bits as an input
        return _bits(d, op, BlockOptions(scale_rule, mode, tensor_scale, draw), overflow)
    if mode != "half_even" or scale_rule != "floor" or tensor_scale is not None:
        raise NumericsError(f"profile {profile!r} rounds half_even, with scale_rule='floor'; use 'bits'")
    if op != "round":
        raise NumericsError(f"profile {profile!r} offers op='round', not {op!r}; use 'bits'")
    return _portable(d, overflow) if profile == "portable" else _npu(d, overflow, scale, zero_point)


def _bits(d: Dtype, op: str, asked: BlockOptions, overflow: str | None) -> ModelProto:
    if isinstance(d, Block):
        options = d.check_options(asked, overflow)
        found: dict[str, Callable[[], ModelProto]] = {
            "encode": lambda: graphs.encode_blocks(d, options),
            "round": lambda: graphs.round_blocks(d, options),
            "decode": lambda: graphs.decode_blocks(d, options.tensor_scale),
            "pack": lambda: graphs.pack(d.element_bits) if d.scale_beside else graphs.pack_micro(d),
            "unpack": lambda: graphs.unpack(d.element_bits) if d.scale_beside else graphs.unpack_micro(d),
        }
        return found[op]()
    assert isinstance(d, Element)
    if asked.tensor_scale is not None:
        raise NumericsError(f"{d.name} has no tensor scale")
    policy = d.check_overflow(overflow)
    elements: dict[str, Callable[[], ModelProto]] = {
        "encode": lambda: graphs.encode(d, asked.mode, policy),
        "round": lambda: graphs.round_elements(d, asked.mode, policy),
        "decode": lambda: graphs.decode(d),
        "pack": lambda: graphs.pack(d.bits),
        "unpack": lambda: graphs.unpack(d.bits),
    }
    return elements[op]()


def _portable(d: Dtype, overflow: str | None) -> ModelProto:
    if isinstance(d, Block):
        if why := portable.refusal(d, "saturate"):
            raise NumericsError(f"{d.name} has no portable graph: {why}; use profile='bits'")
        return portable.round_blocks(cast(MXBlock, d))
    assert isinstance(d, Element)
    if why := portable.refusal(d, d.check_overflow(overflow)):
        raise NumericsError(f"{d.name} has no portable graph: {why}; use profile='bits'")
    return portable.round_elements(d)


def _npu(d: Dtype, overflow: str | None, scale: float, zero_point: int) -> ModelProto:
    graph = Graph()
    note = f"numerics round {d.name} for Ryzen AI"
    if isinstance(d, Block):
        x = graph.input("x", FLOAT, ["rows", "columns"])
        y = _quark(graph, x, d)
        note += "; AMD Quark's operator: not a type of the NPU, runs on the host's CPU"
        return graph.model({"y": y}, 17, f"round_{d.name}", note, domains=[QUARK])
    x = graph.input("x", FLOAT)
    if d.name == "bfloat16":
        if overflow not in (None, "nonsaturate"):
            raise NumericsError("bfloat16 for the NPU is a cast: only overflow='nonsaturate' is offered")
        y = graph.cast(graph.cast(x, TensorProto.BFLOAT16), FLOAT)
        return graph.model({"y": y}, 17, "round_bfloat16", note)
    if d.name not in QDQ:
        raise NumericsError(
            f"{d.name} is not a type of the NPU; it has int8, uint8, int16 and bfloat16: use profile='bits'"
        )
    assert isinstance(d, Integer)
    if not 0 < scale < float("inf") or not d.min <= zero_point <= d.max:
        raise NumericsError(f"scale={scale}, zero_point={zero_point} do not fit {d.name}")
    parameters = [
        graph.constant(np.array(scale, np.float32)),
        graph.constant(np.array(zero_point, d.name)),
    ]
    # int16 came to the standard with opset 21; before that it is ONNX Runtime's own operator
    domain = {"domain": MICROSOFT} if d.bits == 16 else {}
    q = graph.node("QuantizeLinear", [x, *parameters], QDQ[d.name], **domain)
    y = graph.node("DequantizeLinear", [q, *parameters], FLOAT, **domain)
    return graph.model({"y": y}, 17, f"round_{d.name}", note, domains=list(domain.values()))


def _quark(graph: Graph, x: Any, d: Block) -> Any:
    operator, attributes = quark_operator(d)
    return graph.node(operator, [x], FLOAT, domain=QUARK, axis=1, **attributes)


def quark_operator(d: Any) -> tuple[str, dict[str, Any]]:
    """The operator of amd-quark 0.13 (quark/onnx/operators/custom_ops) that quantizes like d.

    Returns its name and its attributes but for the axis.  Raises NumericsError where there is none.

    >>> quark_operator(find_dtype("mxfp4"))
    ('MXQuantizeDequantize', {'element_dtype': 'fp4_e2m1', 'block_size': 32, 'rounding_mode': 2})
    """
    if d.name in _BFP:
        micro = d if isinstance(d, MicroexponentBlock) else None
        return "BFPQuantizeDequantize", {
            "bfp_method": "to_bfp_prime" if micro else "to_bfp", "bit_width": _BFP[d.name],
            "block_size": d.block, "rounding_mode": 2, "sub_block_size": micro.sub_block if micro else 2,
            "sub_block_shift_bits": 1, "convert_to_bfloat_before_bfp": 0,
            "use_compiler_version_cpu_kernel": 0,
        }  # fmt: skip
    if isinstance(d, MXBlock) and d.element.name in _MX:
        attributes = {"element_dtype": _MX[d.element.name], "block_size": d.block, "rounding_mode": 2}
        return "MXQuantizeDequantize", attributes
    raise NumericsError(f"AMD Quark has no operator for {d.name}; use profile='bits'")


def _requantize(
    d: Dtype, profile: str, rounding: str | None, shift: int | None, device: str | None
) -> ModelProto:
    """int32 accumulators over 2**shift, rounded and saturated: the explicit integer graph."""
    from numerics.backends.ipu import srs

    if not isinstance(d, Integer) or d.bits not in (8, 16):
        raise NumericsError(f"accumulators become integers of 8 or 16 bits, not {d.name}")
    if profile != "bits":
        raise NumericsError(f"requantize is an integer graph: profile='bits', not {profile!r}")
    if shift is None or not 0 <= shift <= 31:
        raise NumericsError(f"requantize needs shift= within 0 .. 31, not {shift}")
    if (rounding is None) == (device is None):
        raise NumericsError("requantize needs either device= or rounding=, an AIE-ML mode, exactly one")
    mode = find_device(device).mode if device is not None else one_of("AIE-ML mode", str(rounding), MODES)
    graph = Graph()
    bound = arithmetic(sources=(srs,))
    q = bound.srs(graph.input("accumulator", INT32), shift, mode, int(d.min), int(d.max))
    kind = {(8, True): TensorProto.INT8, (8, False): TensorProto.UINT8, (16, True): TensorProto.INT16,
            (16, False): TensorProto.UINT16}[d.bits, d.signed]  # fmt: skip
    return graph.model(
        {"y": graph.cast(q, kind)}, graphs.OPSET, f"requantize_{d.name}", f"AIE-ML SRS, {mode}"
    )
