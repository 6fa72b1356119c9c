"""compressed-tensors: fp4, fp6, fp8, integers by group or channel, their packing (docs/adapters.md §3).

    from numerics.adapters import compressed_tensors
    with compressed_tensors.substituted():
        fake_quantize(x, scale, zero_point, args)

Where compressed-tensors has an entry for implementations, ours is registered; what has none is replaced.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from numerics.adapters import conventions
from numerics.adapters.base import (
    Adapter,
    Calls,
    Function,
    Maker,
    Seam,
    answered,
    changed,
    fresh,
    is_hosts,
    replaced,
)
from numerics.adapters.conventions import Convention
from numerics.adapters.scaled import (
    FLOATS,
    has_specials,
    is_odd,
    laid_like,
    ordinary,
    takes,
    values_of,
    within,
)
from numerics.adapters.tensors.compressed_tensors import from_host, to_host
from numerics.formats.dtype import Element, Integer
from numerics.formats.errors import NumericsError
from numerics.formats.floats import fp4, fp6_e2m3, fp8_e4m3
from numerics.formats.integers import int8, integer_format
from numerics.quantization import fake_quantize
from numerics.tensor.scheme import per_channel

__all__ = ["calls", "from_host", "install", "installed", "substituted", "to_host", "uninstall"]

PACKAGE = "compressed_tensors"
HELPERS = "compressed_tensors.quantization.lifecycle.forward_helpers"
NVFP4 = "compressed_tensors.compressors.nvfp4.helpers"
FP4 = "compressed_tensors.quantization.utils.fp4_utils"
FP6 = "compressed_tensors.quantization.utils.fp6_utils"
PACKED = "compressed_tensors.compressors.pack_quantized.helpers"
FIRST = -10  # of the registry: a lower number comes before a higher one
WORD = 32  # bits of the integers that codes are packed in


@lru_cache(maxsize=64)
def _integer(bits: int, signed: bool) -> Integer:
    """Integers of that many bits."""
    return integer_format(bits, signed=signed)


def _element(args: Any, low: Tensor, high: Tensor) -> Element | None:
    """The format of its arguments, where the range is the whole of it."""
    floats: dict[int, Element] = {4: fp4, 6: fp6_e2m3, 8: fp8_e4m3}
    bits = args.num_bits
    integers = _integer(bits, True) if 2 <= bits <= 8 else None
    found = floats.get(bits) if args.type == "float" else integers
    if found is None or (float(low), float(high)) != (found.min, found.max):
        return None
    return found


# ---- numbers ---------------------------------------------------------------------------------------


def _number(x: Any) -> bool:
    """A plain tensor of floats."""
    return takes(x) and x.dtype in FLOATS


def _cast_to_fp6(host: Function, correct: bool) -> Function:
    """cast_to_fp6: NaN stays NaN, which it has not."""

    def cast_to_fp6(x: Tensor) -> Any:
        return _rounded(x, fp6_e2m3, correct) if _number(x) else NotImplemented

    return cast_to_fp6


def _rounded(x: Tensor, element: Element, correct: bool) -> Any:
    """The element's value of each number: of -0 fp4 makes 0, and of NaN NaN.

    NotImplemented of numbers with a NaN among them, unless `correct`: its sign, which is packed into a code,
    hangs on which of torch's loops computed it, and so on where it stands.
    """
    nan = torch.isnan(x) if has_specials(x) else None
    if nan is not None and not correct and bool(nan.any()):
        return NotImplemented
    made: Tensor = element.round(x + 0.0 if element is fp4 and not correct else x)  # -0 + 0 is 0
    if nan is not None:
        made[nan] = torch.nan
    return laid_like(made, x)


# ---- tensors with scales -----------------------------------------------------------------------------


def _rows(x: Any, scale: Any) -> Tensor | None:
    """The scale of each row of x's last axis, where every row has one and quotients are float32; else None.

    torch takes a scale without axes in x's type.
    """
    if not _number(x) or not takes(scale) or scale.dtype != torch.float32 or not x.is_contiguous():
        return None
    if torch.result_type(x, scale) != torch.float32:
        return None
    return _rows_like(x, scale)


def _rows_like(x: Tensor, scale: Tensor) -> Tensor | None:
    """As _rows, of a tensor of any type."""
    if scale.dtype != torch.float32 or not _beside(scale, x):
        return None
    try:
        return scale.expand(*x.shape[:-1], 1).reshape(-1)
    except RuntimeError:  # shapes that do not fit, which the host refuses in its own words
        return None


def _beside(numbers: Tensor, x: Tensor) -> bool:
    """Is there one number for all of x, which gives it no axis, or one of each row of its last axis?"""
    if numbers.numel() == 1:
        return numbers.dim() <= x.dim()
    return numbers.dim() == x.dim() and numbers.shape[-1] == 1


def _fused(x: Tensor, steps: Tensor, zero: Tensor | None, element: Element) -> Tensor | None:
    """(round(x / scale + zero) - zero) * scale of rows as float32; None where a zero would lose its sign."""
    rows = x.reshape(len(steps), -1).float()
    integers = isinstance(element, Integer)
    if zero is None or (integers and not bool(zero.any())):
        plain = zero is not None or element is fp4  # a quotient of -0 is + 0 once 0 is added to it
        how = Convention(plain=plain, zeros="kept" if integers else "ours")
        return conventions.values(rows, (steps, steps), element, how)
    if not integers or float(steps.max()) > 1:  # a quotient may then underflow to -0, which + 0 makes 0
        return None
    if not bool(zero.all()) or float(zero.min()) < element.min or float(zero.max()) > element.max:
        return None
    options: dict[str, Any] = {"scheme": per_channel(0), "symmetric": False, "zero_point_type": "float32"}
    return fake_quantize(rows, element, scale=steps, zero_point=zero, **options)


def _zero_points(zero: Any, x: Tensor, rows: int) -> Tensor | None:
    """The zero point of each row; None where they do not fit, or are others in x's type."""
    if not takes(zero) or not _beside(zero, x):
        return None
    found = zero.expand(*x.shape[:-1], 1).reshape(-1).float()
    if len(found) != rows or not bool((found == found.to(x.dtype)).all()):
        return None
    return found


def _fake(host: Function, correct: bool) -> Function:
    """_quantize_dequantize."""

    def _quantize_dequantize(
        x: Tensor, scale: Tensor, zero_point: Tensor | None, q_min: Tensor, q_max: Tensor, args: Any,
        global_scale: Tensor | None = None,
    ) -> Any:  # fmt: skip
        element = _element(args, q_min, q_max)
        if element is None or not _number(x) or not takes(scale) or is_odd(x):
            return NotImplemented
        effective = scale if global_scale is None else scale / global_scale
        if not _quotients(x, effective):
            return NotImplemented
        steps = _rows(x, effective)
        zero = None if zero_point is None or steps is None else _zero_points(zero_point, x, len(steps))
        plain = steps is not None and (zero is not None) == (zero_point is not None)
        if plain and not correct and bool(ordinary(effective).all()) and not has_specials(x):
            assert steps is not None
            made = _fused(x, steps, zero, element)
            if made is not None:
                return made.view(x.shape)
        quantized = _to_range(_scaled(x, effective, zero_point), element, correct)
        if quantized is NotImplemented:
            return NotImplemented
        quantized = quantized.to(effective.dtype)
        if zero_point is not None:
            quantized -= zero_point.to(effective.dtype)
        return quantized * effective

    return _quantize_dequantize


def _quotients(x: Tensor, scale: Tensor) -> bool:
    """Are quotients of a type that we round, and in the axes of x?

    torch's cast of float64 to fp8 rounds twice; what has more axes than x lies in memory as its scale says.
    """
    return torch.result_type(x, scale) in FLOATS and scale.dim() <= x.dim()


def _scaled(x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    """x over its scale, moved by the zero point before anything is rounded."""
    scaled = x / scale
    if zero is not None:
        scaled += zero.to(x.dtype)
    return scaled


def _to_range(scaled: Tensor, element: Element, correct: bool) -> Any:
    """What _rounded gives; an integer keeps the sign of a zero."""
    made = _rounded(scaled, element, correct)
    if made is not NotImplemented and isinstance(element, Integer) and not correct:
        made.copysign_(scaled)
    return made


def _quantize(correct: bool) -> Function:
    def numerics_quantize(
        x: Tensor, scale: Tensor, zero_point: Tensor | None, q_min: Tensor, q_max: Tensor, args: Any,
        dtype: torch.dtype | None = None, global_scale: Tensor | None = None,
    ) -> Any:  # fmt: skip
        element = _element(args, q_min, q_max)
        assert element is not None
        effective = scale if global_scale is None else scale / global_scale
        if not _quotients(x, effective):
            return NotImplemented
        made = _to_range(_scaled(x, effective, zero_point), element, correct)
        return made if dtype is None or made is NotImplemented else made.to(dtype)

    return numerics_quantize


def _quantizes(
    x: Tensor, scale: Tensor, zero_point: Any, q_min: Tensor, q_max: Tensor, args: Any, *_: Any, **__: Any
) -> bool:
    return _number(x) and takes(scale) and _element(args, q_min, q_max) is not None


def _zeros_beside(zero: Any, x: Tensor) -> Tensor | None:
    """The zero point of each row of x; None where they do not fit."""
    if not takes(zero) or not _beside(zero, x):
        return None
    try:
        return zero.expand(*x.shape[:-1], 1).reshape(-1)
    except RuntimeError:  # which the host refuses in its own words
        return None


def _is_moved(zero: Tensor, element: Element) -> bool:
    """Are zero points integers of the format; of floats, are they 0, which changes none of them?"""
    return within(zero, element) if isinstance(element, Integer) else not bool(zero.any())


def _dequantize(host: Function, correct: bool) -> Function:
    """_dequantize: (code - zero_point) * scale."""
    containers: dict[torch.dtype, Element] = {torch.int8: int8, torch.float8_e4m3fn: fp8_e4m3}

    def _dequantize(
        x_q: Tensor, scale: Tensor, zero_point: Tensor | None = None, dtype: torch.dtype | None = None,
        global_scale: Tensor | None = None,
    ) -> Any:  # fmt: skip
        element = containers.get(x_q.dtype)
        if element is None or not takes(x_q, scale) or not x_q.is_contiguous() or is_odd(x_q):
            return NotImplemented
        effective = scale if global_scale is None else scale / global_scale
        steps = _rows_like(x_q, effective.float()) if effective.dtype in FLOATS else None
        if steps is None or not bool(ordinary(steps).all()):
            return NotImplemented
        zero = None if zero_point is None else _zeros_beside(zero_point, x_q)
        if zero_point is not None and (zero is None or not _is_moved(zero, element)):
            return NotImplemented
        moved = zero.int() if zero is not None and bool(zero.any()) else None
        made = values_of(x_q.reshape(len(steps), -1).view(torch.uint8), steps, moved, element).view(x_q.shape)
        made = made.to(effective.dtype)  # in which the product of 8 bits and a scale of 16 is rounded once
        return made if dtype is None else made.to(dtype=dtype)

    return _dequantize


# ---- packing -----------------------------------------------------------------------------------------


def _packs_fp4(x: Tensor) -> bool:
    """Is this a matrix of fp4's values?  Of others the host packs what it makes of them."""
    return _number(x) and x.dim() == 2 and x.shape[1] % 2 == 0 and torch.equal(fp4.round(x), x)


def _pack_fp4(correct: bool) -> Function:
    def numerics_pack_fp4(x: Tensor) -> Tensor:
        packed: Tensor = fp4.encode_packed(x)
        return packed.view(x.shape[0], x.shape[1] // 2)

    return numerics_pack_fp4


def _unpack_fp4(host: Function, correct: bool) -> Function:
    def unpack_fp4_from_uint8(a: Tensor, m: int, n: int, dtype: torch.dtype | None = torch.bfloat16) -> Any:
        if not takes(a) or a.dtype != torch.uint8 or a.numel() * 2 != m * n:
            return NotImplemented
        values: Tensor = fp4.decode_packed(a.reshape(-1), (m, n))
        return values if dtype is None else values.to(dtype=dtype)

    return unpack_fp4_from_uint8


def _pack_words(host: Function, correct: bool) -> Function:
    """pack_to_int32: codes from the lowest bit on, moved to be positive, whole words a row."""

    def pack_to_int32(value: Tensor, num_bits: int, packed_dim: int = 1) -> Any:
        if not takes(value) or value.dtype != torch.int8 or value.dim() != 2 or num_bits not in range(2, 9):
            return NotImplemented
        if packed_dim == 0:
            value = value.T.contiguous()
        half = 1 << (num_bits - 1)
        low, high = value.aminmax()
        length = value.shape[1] * num_bits // WORD
        if value.shape[1] * num_bits % WORD or int(low) < -half or int(high) >= half:
            return NotImplemented
        if 1 in (len(value), length):  # whose strides are those of what the host cuts off
            return NotImplemented
        packed = _integer(num_bits, False).pack(
            (value + half if num_bits < 8 else value ^ -half).view(torch.uint8)
        )
        words: Tensor = packed.view(torch.int32).view(-1, length)
        return words.T.contiguous() if packed_dim == 0 else words

    return pack_to_int32


def _unpack_words(host: Function, correct: bool) -> Function:
    def unpack_from_int32(value: Tensor, num_bits: int, shape: Any, packed_dim: int = 1) -> Any:
        if not takes(value) or value.dtype != torch.int32 or value.dim() != 2 or num_bits not in range(2, 9):
            return NotImplemented
        words = value.T.contiguous() if packed_dim == 0 else value.contiguous()
        rows, columns = words.shape[0], int(shape[packed_dim])
        if columns * num_bits != words.shape[1] * WORD:
            return NotImplemented
        half = 1 << (num_bits - 1)
        codes = _integer(num_bits, False).unpack(words.view(torch.uint8).reshape(-1), (rows, columns))
        values = codes.view(torch.int8)
        values = values - half if num_bits < 8 else values ^ -half
        return values.T if packed_dim == 0 else values

    return unpack_from_int32


# ---- the adapter ---------------------------------------------------------------------------------


class _Registered:
    """An entry of ImplBackend: a function of ours, and which calls it takes."""

    def __init__(self, name: str, takes: Callable[..., bool], ours: Function, calls: Calls) -> None:
        self._name, self._takes, self._ours, self._calls = name, takes, ours, calls
        self._entry: Any = None

    def put(self) -> None:
        """Registers it before all others."""
        from compressed_tensors.utils import impl_backend

        if impl_backend.ENFORCE_EAGER:
            raise NumericsError("CT_ENFORCE_EAGER switches compressed-tensors' registry off; unset it")

        registry = impl_backend.ImplBackend
        if self._ours.__name__ in registry._fn_registry:
            raise NumericsError(
                f"compressed-tensors has an implementation {self._ours.__name__} already; remove it"
            )
        host = registry._fn_registry[self._name]  # which answers where no entry does

        def following(*arguments: Any, **named: Any) -> Function:
            others = [one for one in registry._backends.get(self._name, ()) if one is not self._entry]
            return next((one for one, takes, _ in others if takes(*arguments, **named)), host)

        def wanted(*arguments: Any, **named: Any) -> bool:
            if torch.compiler.is_compiling():
                return False
            following(*arguments, **named)  # which a call that the host refuses may be refused by
            given = (*arguments, *named.values())
            taken = not is_hosts(given) and answered(self._takes, *arguments, **named) is True
            if not taken:
                self._calls.count(self._calls.passed_on, self._name)
            return taken

        @functools.wraps(self._ours)
        def function(*arguments: Any, **named: Any) -> Any:
            if self._entry is None or torch.compiler.is_compiling():  # somebody kept it
                return following(*arguments, **named)(*arguments, **named)
            found = answered(self._ours, *arguments, **named)
            which = self._calls.passed_on if found is NotImplemented else self._calls.ours
            self._calls.count(which, self._name)
            if found is NotImplemented:
                return following(*arguments, **named)(*arguments, **named)
            return fresh(found)

        registry.register(self._name, wanted, FIRST)(function)
        self._entry = next(one for one in registry._backends[self._name] if one[0] is function)

    def restore(self) -> None:
        """Takes it away, and no other; raises NumericsError where somebody else has taken it away."""
        from compressed_tensors.utils.impl_backend import ImplBackend

        names, entries = ImplBackend._fn_registry, ImplBackend._backends.get(self._name, [])
        mine = self._entry[0]
        whole = any(one is self._entry for one in entries) and names.get(mine.__name__) is mine
        entries[:] = [one for one in entries if one is not self._entry]
        if ImplBackend._backends.get(self._name) == []:
            del ImplBackend._backends[self._name]
        self._entry = None
        if names.get(mine.__name__) is mine:
            del names[mine.__name__]
        if not whole:
            raise changed(f"compressed-tensors' implementations of {self._name}")


REPLACED: dict[str, dict[str, Maker]] = {
    HELPERS: {"_quantize_dequantize": _fake, "_dequantize": _dequantize},
    FP6: {"cast_to_fp6": _cast_to_fp6},
    NVFP4: {"unpack_fp4_from_uint8": _unpack_fp4},
    PACKED: {"pack_to_int32": _pack_words, "unpack_from_int32": _unpack_words},
}


def _cast_to_fp4(correct: bool) -> Function:
    def numerics_cast_to_fp4(x: Tensor) -> Any:
        return _rounded(x, fp4, correct)

    return numerics_cast_to_fp4


def _seams(correct: bool, calls: Calls) -> list[Seam]:
    registered: list[Seam] = [
        _Registered("cast_to_fp4", _number, _cast_to_fp4(correct), calls),
        _Registered("_quantize", _quantizes, _quantize(correct), calls),
        _Registered("pack_fp4_to_uint8", _packs_fp4, _pack_fp4(correct), calls),
    ]
    return registered + replaced(PACKAGE, REPLACED, correct, calls)


ADAPTER = Adapter("compressed-tensors", "compressed-tensors", ("0.20.0",), _seams)
install, uninstall, substituted = ADAPTER.install, ADAPTER.uninstall, ADAPTER.substituted
installed, calls = ADAPTER.installed, ADAPTER.calls
to_host, from_host = ADAPTER.known(to_host), ADAPTER.known(from_host)
