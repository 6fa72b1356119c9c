"""AMD Quark: fake and real quantization on the CPU, with scales and in blocks (docs/adapters.md §6).

    from numerics.adapters import quark
    with quark.substituted():
        ModelQuantizer(config).quantize_model(model)

Its operators `quark::scaled_fake_quantize`, `quark::non_scaled_fake_quantize` and the two `…_real_quantize`
serve every device by one kernel; ours stand before it for tensors on the CPU.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from numerics.adapters import conventions, quark_trained
from numerics.adapters.base import (
    Adapter,
    Calls,
    Function,
    Named,
    Operator,
    Seam,
    answered,
    fresh,
    is_hosts,
    is_seen,
)
from numerics.adapters.conventions import Convention
from numerics.adapters.quark_trained import KERNEL
from numerics.adapters.scaled import (
    ZEROS,
    default_widens,
    has_specials,
    is_odd,
    largest,
    odd_rows,
    ordinary,
    put_in,
    rows_of_blocks,
    takes,
    values_of,
    within,
)
from numerics.adapters.tensors.quark import NATIVE, from_host, to_host
from numerics.formats.block import Block
from numerics.formats.blocks import bfp16, block_format, mx6, mx9
from numerics.formats.dtype import Element, Integer
from numerics.formats.floats import fp4, fp6_e2m3, fp6_e3m2, fp8_e4m3, fp8_e5m2
from numerics.formats.integers import int8, integer_format, uint8

__all__ = ["calls", "from_host", "install", "installed", "substituted", "to_host", "uninstall"]

INTERFACE = "quark.torch.kernel.hw_emulation.hw_emulation_interface"
QUANTIZERS = "quark.torch.quantization.tensor_quantize"
FLOATS: dict[str, Element] = {
    "fp8_e4m3": fp8_e4m3, "fp8_e5m2": fp8_e5m2, "fp6_e3m2": fp6_e3m2, "fp6_e2m3": fp6_e2m3, "fp4": fp4
}  # fmt: skip
SMALL = ("fp4", "fp6_e2m3", "fp6_e3m2")
MICRO = {"mx6": mx6, "mx9": mx9}
REAL = 32  # elements of the MX blocks that it quantizes really
BIAS = 127  # of E8M0
WIDE = (torch.float32, torch.bfloat16, torch.float16)
OPERATORS = (
    "scaled_fake_quantize", "scaled_real_quantize", "non_scaled_fake_quantize", "non_scaled_real_quantize",
    "dequantize", *(f"quant_{name}{end}" for name in ("fp8_e4m3", "fp8_e5m2") for end in ("", "_with_scale")),
    "quant_dequant_fp8_e4m3", "quant_dequant_fp8_e5m2",
)  # fmt: skip
RULES = ("even", "floor", "ceil")
LEAST, MOST = 2.0**-90, 2.0**100  # of a block: beyond, Quark's scale leaves the rule of its name
TINY, FAR = 2.0**-126, 2.0**62
NEAR, AROUND = 0x80, 0x7FFF00  # of a mantissa: how near a power of two its float32 logarithm is not trusted


@lru_cache(maxsize=64)
def _integer(name: str) -> Integer | None:
    """The format of an integer type of its."""
    signed, bits = not name.startswith("u"), name.lstrip("u").removeprefix("int")
    return integer_format(int(bits), signed=signed) if bits.isdigit() and int(bits) <= 8 else None


@lru_cache(maxsize=64)
def _block(name: str, size: int) -> Block:
    return block_format(element=FLOATS.get(name, name), block=size)


# ---- blocks ------------------------------------------------------------------------------------------


def _unscaled(host: Any, correct: bool) -> Any:
    """non_scaled_fake_quantize of MX, bfp16, mx6 and mx9; NotImplemented for others."""

    def ours(
        x: Tensor, quant_dtype: str, mx_element_dtype: str, axis: int, block_size: int,
        scale_calculation_mode: str = "even",
    ) -> Any:  # fmt: skip
        block_size = bfp16.block if quant_dtype == "bfp16" else block_size  # Quark's, whatever was asked
        rows = rows_of_blocks(x, axis, block_size)
        if rows is None or (quant_dtype in MICRO and MICRO[quant_dtype].block != block_size):
            return NotImplemented
        found = _in_blocks(rows, quant_dtype, mx_element_dtype, scale_calculation_mode, correct)
        if found is None:
            return NotImplemented
        made, odd = found

        def theirs(at: Tensor) -> Tensor:
            rest = quant_dtype, mx_element_dtype, -1, block_size, scale_calculation_mode
            kept: Tensor = host(rows[at], *rest)
            return kept

        return (made if correct or not len(odd) else put_in(made, odd, theirs)).view(x.shape)

    return ours


def _in_blocks(
    rows: Tensor, kind: str, element: str, rule: str, correct: bool
) -> tuple[Tensor, Tensor] | None:
    """Rows as blocks of a type of Quark's, and those where it leaves its rule; None for a type not taken."""
    if kind in MICRO:
        return MICRO[kind].round(rows), odd_rows(rows)
    d: Block = bfp16
    if kind == "bfp16":
        rule, logarithm = "bump", True
    elif kind == "mx" and element in (*FLOATS, "int8") and rule in RULES:
        d, logarithm = _block(element, rows.shape[1]), rule != "even"
    else:
        return None
    signed = correct or (kind == "mx" and element.startswith("fp8"))
    how = Convention(zeros="ours" if signed else "positive")  # of -0 Quark makes 0, and of what becomes 0
    return conventions.mx_values(rows, d, rule, how, (LEAST, MOST), logarithm=logarithm)


def _odd_blocks(top: Tensor, rule: str) -> Tensor:
    """The numbers of blocks whose scale Quark may find otherwise than by its rule."""
    odd = ~((top >= LEAST) & (top <= MOST)) & (top != 0)
    if rule != "even":  # by a logarithm that float32 rounds
        odd |= (top.view(torch.int32) + NEAR) & AROUND == 0
        odd |= top == 0
    return odd.nonzero().squeeze(1)


def _unscaled_real(host: Any, correct: bool) -> Any:
    """non_scaled_real_quantize: of each block what it shares, then its elements, all as floats."""

    def ours(x: Tensor, quant_dtype: str, mx_element_dtype: str, axis: int, block_size: int) -> Any:
        rows, micro = rows_of_blocks(x, axis, block_size), MICRO.get(quant_dtype)
        small = mx_element_dtype if quant_dtype == "mx" and mx_element_dtype in SMALL else None
        size = micro.block if micro else REAL
        if rows is None or block_size != size or not (micro or small) or (micro and default_widens()):
            return NotImplemented
        if micro:
            made, odd = _micro_codes(rows, micro), odd_rows(rows)
        else:
            made, odd = (
                _values_in_blocks(rows, FLOATS[small or ""], correct),
                _odd_blocks(largest(rows), "floor"),
            )

        def theirs(at: Tensor) -> Tensor:
            found: Tensor = host(rows[at], quant_dtype, mx_element_dtype, -1, block_size)
            return found

        shape = (*x.shape[:-1], x.shape[-1] // size * made.shape[-1])
        return (made if correct or not len(odd) else put_in(made, odd, theirs)).view(shape)

    return ours


def _micro_codes(rows: Tensor, d: Block) -> Tensor:
    """The exponent of each block, its microexponents, bit j for pair j, and its elements as integers."""
    found: Any = d.encode(rows)
    half = 1 << (d.element_bits - 1)
    integers = torch.arange(float(half))
    table = torch.cat((integers, -integers))  # a sign, and a magnitude
    made = rows.new_empty(len(rows), rows.shape[1] + 2)
    made[:, :1] = found.scale.float() - BIAS
    made[:, 1:2] = found.microexponents
    made[:, 2:] = table[found.codes.int()]
    return made


def _values_in_blocks(rows: Tensor, element: Element, correct: bool) -> Tensor:
    """The scale of each block by the rule floor, and its elements over it."""
    found: Any = _block(element.name, rows.shape[1]).encode(rows, scale_rule="floor")
    values = element.decode(found.codes)
    scale = torch.exp2(found.scale.float() - BIAS)
    return torch.cat((scale, values if correct else values + 0.0), dim=-1)


# ---- tensors with scales -----------------------------------------------------------------------------


def _scaled_real(correct: bool) -> Any:
    """scaled_real_quantize: integers as int32, fp8 as torch has it, values of fp4 and fp6."""

    def ours(
        quant_dtype: str, x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, group_size: int,
        quant_min: float, quant_max: float, round_mode: int, qscheme: str,
    ) -> Any:  # fmt: skip
        rows = _rows_beside(x, (scale, zero_point), axis, group_size, qscheme)
        if rows is None:
            return NotImplemented
        steps, element = scale.reshape(-1, 1), FLOATS.get(quant_dtype)
        if element is None:
            if qscheme == "per_channel" and 1 in (*x.shape, rows.shape[1]):  # whose strides Quark turns
                return NotImplemented
            return _real_integers(
                rows, steps, zero_point, (quant_dtype, quant_min, quant_max), correct, x.shape
            )
        if quant_dtype in SMALL:
            if qscheme != "per_group":
                return NotImplemented
            return _real_values(rows / steps, element, correct).view(x.shape)
        if qscheme == "per_group":
            return NotImplemented
        return element.encode(rows / steps).view(NATIVE[element]).view(x.shape)

    return ours


def _real_values(quotient: Tensor, element: Element, correct: bool) -> Tensor:
    """Values of fp4 and fp6; Quark leaves a quotient that is Inf as it is, and the sign of a zero out."""
    made: Tensor = element.round(quotient)
    if correct:
        return made
    if has_specials(quotient):
        made = torch.where(quotient.isinf(), quotient, made)
    return made.add_(0.0)


def _whole_range(asked: tuple[str, float, float], zero: Any) -> Integer | None:
    """The integer format that a call names, all of whose range it asks for; None where it is not taken."""
    element = _integer(asked[0])
    fits = element is not None and asked[1:] == (element.min, element.max)
    fits = fits and takes(zero) and zero.dtype in ZEROS
    return element if fits else None


def _real_integers(
    rows: Tensor, steps: Tensor, zero: Any, asked: tuple[str, float, float], correct: bool, shape: Any
) -> Any:
    """clamp(round(x * (1 / scale) + zero)): here the zero point is added before what is rounded."""
    element = _whole_range(asked, zero)
    if element is None:
        return NotImplemented
    moved = zero.reshape(-1, 1)
    codes = rows / steps if correct else rows * (1.0 / steps)
    if bool(moved.any()):
        codes += moved
    if has_specials(codes):
        return NotImplemented
    element.round(codes, out=codes)
    return codes.to(torch.int32).view(shape)


def _scaled(correct: bool) -> Any:
    """scaled_fake_quantize of floats and integers whose scales lie along rows."""

    def ours(
        quant_dtype: str, x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, group_size: int,
        quant_min: float, quant_max: float, round_mode: int, qscheme: str, mx_element_dtype: str,
    ) -> Any:  # fmt: skip
        element = FLOATS.get(quant_dtype)
        numbers = (scale, zero_point) if element is None else (scale,)
        rows = _rows_beside(x, numbers, axis, group_size, qscheme)
        if rows is None:
            return NotImplemented
        steps = scale.reshape(-1)
        if element is None and qscheme == "per_channel" and axis < 0 and not correct:
            return NotImplemented  # of an axis counted from behind Quark makes integers of other shapes
        if element is not None:
            if qscheme == "per_tensor" and quant_dtype in SMALL:  # which Quark refuses
                return NotImplemented
            if qscheme == "per_group" and x.dim() > 2:  # which Quark refuses but for one matrix
                return NotImplemented
            small = quant_dtype in SMALL and not correct
            how = Convention(zeros="positive", infinite="kept") if small else Convention()
            return conventions.values(rows, (steps, steps), element, how).view(x.shape)
        if qscheme == "per_tensor" and not _is_moderate(rows, steps):
            return NotImplemented
        return _integers(rows, steps, zero_point, (quant_dtype, quant_min, quant_max), correct, x.shape)

    return ours


def _is_moderate(rows: Tensor, steps: Tensor) -> bool:
    """Are all quotients integers of 64 bits, which torch makes of them by tensor, and is the scale normal?"""
    return float(steps) >= TINY and float(largest(rows)) * (1 / float(steps)) < FAR


def _rows_of(x: Tensor, axis: int, group: int, scheme: str) -> Tensor | None:
    """The elements that share a scale as rows; None where they are not a tensor, a channel 0 or a group."""
    if not x.is_contiguous() or x.dim() == 0:
        return None
    if scheme == "per_tensor":
        return x.view(1, -1)
    if scheme == "per_channel" and axis in (0, -x.dim()):
        return x.view(len(x), -1)
    if scheme == "per_group" and group > 0:
        return rows_of_blocks(x, axis, group)
    return None


def _rows_beside(x: Tensor, numbers: Sequence[Any], axis: int, group: int, scheme: str) -> Tensor | None:
    """The rows of _rows_of, float32 without Inf and NaN; None where no scales that we take lie beside them.

    numbers: the scales, and what else has one number for each row.
    """
    scale = numbers[0]
    if not takes(x, scale) or scale.dtype != torch.float32 or x.dtype != torch.float32:
        return None
    rows = _rows_of(x, axis, group, scheme)
    fits = rows is not None and _lie_beside(numbers, x, group, scheme)
    return rows if fits and bool(ordinary(scale).all()) and not has_specials(x) else None


def _lie_beside(numbers: Sequence[Any], x: Tensor, group: int, scheme: str) -> bool:
    """Is there one number for each row of _rows_of, or one for a tensor, in the shape that Quark takes?"""
    if scheme == "per_tensor":
        return all(one.numel() == 1 and one.dim() <= x.dim() for one in numbers)
    shape = x.shape[:1] if scheme == "per_channel" else (*x.shape[:-1], x.shape[-1] // group)
    return all(one.shape == shape for one in numbers)


def _integers(
    rows: Tensor, steps: Tensor, zero: Any, asked: tuple[str, float, float], correct: bool, shape: Any
) -> Any:
    """(clamp(round(x * (1 / scale)) + zero) - zero) * scale."""
    element = _whole_range(asked, zero)
    if element is None:
        return NotImplemented
    moved = zero.reshape(-1)
    if not within(moved, element):
        return NotImplemented
    steps = steps.clamp(min=torch.finfo(torch.float32).tiny)
    numbers = (steps if correct else 1.0 / steps, steps)
    how = Convention(multiplies=not correct)
    return conventions.moved_values(rows, numbers, moved, element, how).view(shape)


# ---- fp8 alone, and the way back ---------------------------------------------------------------------


def _fp8(element: Element) -> dict[str, Any]:
    """Quark's operators of fp8, with a number as a scale or none; which are one cast of torch are its own."""
    name = element.name

    def codes(x: Tensor, scale: float = 1.0) -> Any:
        if (
            not takes(x)
            or x.dtype not in WIDE
            or not x.is_contiguous()
            or has_specials(quotient := x / scale)
        ):
            return NotImplemented
        return element.encode(quotient).view(NATIVE[element])

    def values(x: Tensor) -> Any:
        taken = takes(x) and x.dtype in WIDE and x.is_contiguous() and not has_specials(x)
        return element.round(x) if taken else NotImplemented

    return {f"quant_{name}": codes, f"quant_{name}_with_scale": codes, f"quant_dequant_{name}": values}


def _dequantize(
    quant_dtype: str,
    inputs: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    axis: int,
    group_size: int,
    qscheme: str,
) -> Any:
    """dequantize of integers and of fp8: (code - zero) * scale; NotImplemented for others.

    fp4 and fp6 are values by then, which torch multiplies.
    """
    if not takes(inputs, scale) or scale.dtype != torch.float32 or not bool(ordinary(scale).all()):
        return NotImplemented
    steps, element = scale.reshape(-1), FLOATS.get(quant_dtype)
    group = inputs.shape[-1] // scale.shape[-1] if qscheme == "per_group" and scale.dim() else 0
    rows = _rows_of(inputs, axis, group, qscheme)
    if rows is None or not _lie_beside((scale,), inputs, group, qscheme):
        return NotImplemented
    if element is not None:
        if inputs.dtype != NATIVE.get(element) or qscheme == "per_group":
            return NotImplemented
        return values_of(rows, steps, None, element).view(inputs.shape)
    if _integer(quant_dtype) is None or inputs.dtype != torch.int32 or not takes(zero_point):
        return NotImplemented
    zero = zero_point.reshape(-1)
    if zero.dtype not in ZEROS or not _lie_beside((zero_point,), inputs, group, qscheme):
        return NotImplemented
    if not within(zero, uint8 if quant_dtype.startswith("u") else int8):
        return NotImplemented
    exactly = qscheme == "per_tensor"
    return conventions.values_of_integers(rows, steps, zero.int(), exactly=exactly).view(inputs.shape)


# ---- the adapter ---------------------------------------------------------------------------------


def _before(name: str, ours: Any, host: Any, calls: Calls) -> Any:
    """The kernel that torch calls for tensors on the CPU."""

    def kernel(*arguments: Any) -> Any:
        hosts = is_hosts(arguments) or any(map(is_odd, arguments[:2]))  # x is the first, or the second
        found = NotImplemented if hosts else answered(ours, *arguments)
        if found is not NotImplemented:
            calls.count(calls.ours, name)
            return fresh(found)
        if getattr(_TRIED, "now", False):
            raise _NotTakenError
        with calls.one(name):
            calls.count(calls.passed_on, name)
            return host(*arguments)

    return kernel


_TRIED = threading.local()  # now: is what ours do not take given back to who called, in this thread?


class _NotTakenError(Exception):
    """Of a call that ours do not take, where another way than by the operator leads to the host."""


def _tried(bind: Function, *arguments: Any, **named: Any) -> Any:
    """What our kernel gives the operator, with the gradient of Quark's function; raises if it has none."""
    given = bind(*arguments, **named).args
    if not takes(*given[1:3]):  # of those on another device the operator is not ours
        return NotImplemented
    _TRIED.now = True
    try:
        return importlib.import_module(KERNEL).scaled_fake_quantize(*given)
    finally:
        _TRIED.now = False


def _dispatched(calls: Calls) -> Function:
    """Makes ours of dispatch_scaled_fake_quantize, by which Quark's quantizers call the operator, compiled.

    Calls that our kernels take go by Quark's function that is not compiled, with its gradient, to the
    operator; all others as Quark sends them, since a compiled call has other bits in 16 bits.
    """

    def make(host: Function) -> Function:
        signature = inspect.signature(host)

        @functools.wraps(host)
        def dispatch_scaled_fake_quantize(*arguments: Any, **named: Any) -> Any:
            if torch.compiler.is_compiling() or is_seen():
                return host(*arguments, **named)
            with calls.one("scaled_fake_quantize"):
                found = answered(_tried, signature.bind, *arguments, **named)
                if found is not NotImplemented:
                    return found
                calls.count(calls.passed_on, "scaled_fake_quantize")
                return host(*arguments, **named)

        return dispatch_scaled_fake_quantize

    return make


def _seams(correct: bool, calls: Calls) -> list[Seam]:
    interface = importlib.import_module(INTERFACE)
    kernels: dict[str, Any] = {
        "scaled_fake_quantize": _scaled(correct), "scaled_real_quantize": _scaled_real(correct),
        "dequantize": _dequantize, **_fp8(fp8_e4m3), **_fp8(fp8_e5m2),
    }  # fmt: skip
    hosts = {name: getattr(interface, f"{name}_impl", None) or getattr(interface, name) for name in OPERATORS}
    for name, make in (("non_scaled_fake_quantize", _unscaled), ("non_scaled_real_quantize", _unscaled_real)):
        kernels[name] = make(hosts[name], correct)
    operators: list[Seam] = [
        Operator("quark", name, _before(name, kernels[name], host, calls)) for name, host in hosts.items()
    ]
    dispatched = Named("quark", QUANTIZERS, "dispatch_scaled_fake_quantize", _dispatched(calls))
    return [*operators, dispatched, *quark_trained.seams(correct, calls)]


ADAPTER = Adapter("quark", "amd-quark", ("0.13",), _seams)
install, uninstall, substituted = ADAPTER.install, ADAPTER.uninstall, ADAPTER.substituted
installed, calls = ADAPTER.installed, ADAPTER.calls
to_host, from_host = ADAPTER.known(to_host), ADAPTER.known(from_host)
