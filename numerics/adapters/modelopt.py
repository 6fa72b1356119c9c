"""NVIDIA ModelOpt: MX and NVFP4 on the CPU, where it has none, fp8 and integers (docs/adapters.md §5).

    from numerics.adapters import modelopt
    with modelopt.substituted():
        mtq.quantize(model, mtq.MXFP8_DEFAULT_CFG, loop)        # its own configurations, on a CPU
        mtq.quantize(model, config_with_backend_numerics, loop)  # or by its registry, quantizer by quantizer

A quantizer whose configuration says `"backend": "numerics"` computes as one without a backend does, by us.
"""

from __future__ import annotations

import copy
import importlib
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from numerics.adapters import conventions
from numerics.adapters.base import (
    MISSING,
    Adapter,
    Calls,
    Entry,
    Function,
    Maker,
    Operator,
    Refusal,
    Seam,
    answered,
    fresh,
    has_gradient,
    replaced,
)
from numerics.adapters.conventions import Convention
from numerics.adapters.scaled import FLOATS, has_specials, is_odd, laid_like, takes
from numerics.adapters.tensors.modelopt import from_host, to_host
from numerics.formats.block import Block
from numerics.formats.blocks import block_format
from numerics.formats.dtype import Element, Float
from numerics.formats.errors import NumericsError, said
from numerics.formats.floats import float_format, fp4, fp6_e2m3, fp6_e3m2, fp8_e4m3, fp8_e5m2
from numerics.formats.integers import int8, integer_format

__all__ = ["calls", "from_host", "install", "installed", "substituted", "to_host", "uninstall"]

PACKAGE, TENSOR_QUANT = "modelopt", "modelopt.torch.quantization.tensor_quant"
QUANTIZER = "modelopt.torch.quantization.nn.modules.tensor_quantizer"
BACKEND = "numerics"
EPSILON = 2.0**-24  # a largest magnitude up to it counts as 0
BY_PRODUCT = Convention(multiplies=True, divides_back=True, zeros="kept")

ELEMENTS: dict[tuple[int, int], Element] = {
    (8, 4): fp8_e4m3, (8, 5): fp8_e5m2, (6, 3): fp6_e3m2, (6, 2): fp6_e2m3, (4, 2): fp4, (8, 0): int8
}  # fmt: skip
"""By their bits, and those of the exponent; 0 for integers."""
POWERS, E4M3 = (9, 8), (8, 4)  # the bits of its scales, and those of the exponent


# ---- blocks ------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _block(element: tuple[int, int], scale: tuple[int, int], size: int) -> Block | None:
    """The format of such blocks; None where we have none."""
    if element not in ELEMENTS or scale not in (POWERS, E4M3):
        return None
    return block_format(element=ELEMENTS[element], block=size, scale=None if scale == POWERS else fp8_e4m3)


def _dynamic(
    inputs: Tensor, block_size: int, amax: Tensor | None, num_bits: int, exponent_bits: int,
    scale_num_bits: int, scale_exponent_bits: int,
) -> Any:  # fmt: skip
    """dynamic_block_quantize_op: NVIDIA's rule (rceil) for powers of two, two levels for float scales."""
    if not takes(inputs) or inputs.dtype not in FLOATS:
        return NotImplemented
    block = _block((num_bits, exponent_bits), (scale_num_bits, scale_exponent_bits), block_size)
    if block is None:
        raise Refusal(
            f"blocks of elements with (bits, exponent bits) {said((num_bits, exponent_bits))} and scales "
            f"with {said((scale_num_bits, scale_exponent_bits))}: allowed are {said(list(ELEMENTS))} and "
            f"{said([POWERS, E4M3])}"
        )
    if not block.has_tensor_scale:
        return block.round(inputs, scale_rule="rceil")
    return _two_levels(inputs, block, amax)


def _two_levels(x: Tensor, block: Block, amax: Tensor | None) -> Any:
    """Blocks under a scale of the tensor, which is amax over the largest of both formats."""
    if amax is None:
        raise Refusal("blocks with float scales need amax, the largest magnitude of the tensor: calibrate")
    top = float(amax.float().amax())
    scale = top / (fp4.max * fp8_e4m3.max)
    if not scale > 0:  # nothing but zeros was seen
        return block.round(x)
    return block.round(x, tensor_scale=scale)


# ---- numbers -----------------------------------------------------------------------------------------


def _fp8(host: Function, correct: bool) -> Function:
    """_fp8_eager: x * (448 / amax) to e4m3, times the reciprocal."""

    def _fp8_eager(x: Tensor, amax: Tensor | None = None) -> Any:
        if not takes(x) or x.dtype not in FLOATS or is_odd(x):
            return NotImplemented
        if amax is None:
            return laid_like(fp8_e4m3.round(x), x)
        if amax.dim() > x.dim():  # beside which x has more axes
            return NotImplemented
        top = amax.to(torch.float32)
        scale = 448.0 / torch.where(top <= EPSILON, torch.ones_like(top), top)
        product = x.to(torch.float32) * scale
        made: Tensor = fp8_e4m3.round(product, out=product)
        made *= 1 / scale
        return made.to(x.dtype)

    return _fp8_eager


@lru_cache(maxsize=16)
def _magnitudes(bits: int) -> Float:
    """Integers of sign and magnitude, -0 among them: a float of one exponent bit, with one step."""
    mantissa = bits - 2
    return float_format(1, mantissa, bias=1 - mantissa, specials="none", name=f"sm{bits}")


def _integers(host: Function, correct: bool) -> Function:
    """_tensor_quant: round(x * (largest / amax)) / (largest / amax)."""

    def _tensor_quant(
        inputs: Tensor, amax: Tensor, num_bits: int = 8, unsigned: bool = False, narrow_range: bool = True
    ) -> Any:
        taken = takes(inputs, amax) and inputs.dtype in FLOATS and num_bits in range(2, 15)
        if not taken or is_odd(inputs) or has_specials(inputs) or (unsigned and bool(inputs.min() < 0)):
            return NotImplemented
        top = amax.float()
        if amax.dim() > inputs.dim():  # beside which x has more axes
            return NotImplemented
        if bool(top.min() < 0) or not bool((top < torch.inf).all()):
            return NotImplemented
        bits = num_bits + unsigned
        most = torch.tensor((1 << (bits - 1)) - 1.0)  # of torch's default type, as ModelOpt's
        if float(most) != (1 << (bits - 1)) - 1:
            return NotImplemented
        scale = most / top
        nothing = top <= EPSILON
        scale[nothing] = 0
        back = torch.where(nothing, torch.ones_like(scale), scale)
        lowest = not (narrow_range or unsigned)  # has it one more below than above?
        rows = conventions.in_rows(inputs, scale, back)
        if rows is not None:
            element = integer_format(bits) if lowest else _magnitudes(bits)
            return conventions.values(rows[0], rows[1], element, BY_PRODUCT).view(inputs.shape)
        codes = inputs.float() * scale
        if has_specials(codes):
            return NotImplemented
        made: Tensor = _magnitudes(bits + lowest).round(codes, out=codes)
        if lowest:
            made.clamp_(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        made /= back
        return made.to(inputs.dtype)

    return _tensor_quant


# ---- the adapter ---------------------------------------------------------------------------------

REPLACED: dict[str, Maker] = {"_fp8_eager": _fp8, "_tensor_quant": _integers}
BLOCKS = "dynamic_block_quantize_op"
OVERLOADS = {"": "_dynamic_block_quantize_impl", ".overload": "_dynamic_block_quantize_impl_none_amax"}
"""Of that operator: what ModelOpt has for the CPU, of which it has CUDA code only."""


def _kernel(host: Function, calls: Calls) -> Function:
    """What torch calls for tensors on the CPU, in compiled graphs too; the host's has no answer there."""

    def kernel(*arguments: Any) -> Any:
        found = NotImplemented if has_gradient(arguments) else answered(_dynamic, *arguments)
        if found is NotImplemented:
            calls.count(calls.passed_on, BLOCKS)
            return host(*arguments)
        calls.count(calls.ours, BLOCKS)
        return fresh(found)

    return kernel


def _entry(calls: Calls) -> Function:
    """What a quantizer with our backend calls: itself without one."""
    registry: Any = importlib.import_module("modelopt.torch.quantization.nn")

    def numerics_backend(inputs: Tensor, quantizer: Any) -> Any:
        plain = copy.copy(quantizer)
        plain.backend = None
        if not registry.is_registered_quant_backend(BACKEND):  # of one that somebody kept no call is counted
            return plain._fake_quantize(inputs)
        with calls.one("backend"):
            calls.count(calls.passed_on, "backend")  # unless what it calls is ours
            return plain._fake_quantize(inputs)

    return numerics_backend


def _backends() -> Any:
    """ModelOpt's registry of backends by their names."""
    return importlib.import_module(QUANTIZER)._QUANT_FUNCTIONAL_BACKENDS


def _registered(calls: Calls, there: Any) -> Function:
    """Our entry, where there is none of that name."""
    if there is not MISSING:
        raise NumericsError(f"modelopt has a backend {BACKEND!r} already, which is not ours; unregister it")
    return _entry(calls)


def _seams(correct: bool, calls: Calls) -> list[Seam]:
    seams = replaced(PACKAGE, {TENSOR_QUANT: REPLACED}, correct, calls)
    hosts = importlib.import_module(TENSOR_QUANT)
    operators = [
        Operator("tensorrt", f"{BLOCKS}{overload}", _kernel(getattr(hosts, name), calls))
        for overload, name in OVERLOADS.items()
    ]
    backend = Entry(_backends, BACKEND, partial(_registered, calls), f"modelopt's backend {BACKEND!r}")
    return [*seams, *operators, backend]


ADAPTER = Adapter("modelopt", "nvidia-modelopt", ("0.47.0",), _seams)
install, uninstall, substituted = ADAPTER.install, ADAPTER.uninstall, ADAPTER.substituted
installed, calls = ADAPTER.installed, ADAPTER.calls
to_host, from_host = ADAPTER.known(to_host), ADAPTER.known(from_host)
