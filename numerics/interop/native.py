"""The same bits as other libraries' types: views without copies, and QTensors between NumPy and torch.

Codes, packed bytes and scales are plain arrays and tensors, so DLPack takes them as they are
(`torch.from_dlpack(q.packed)`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics.backends.host.tensors import (
    check_memory,
    check_plain,
    check_storage,
    has_values,
    is_tensor,
    own_codes,
)
from numerics.formats.arguments import keywords
from numerics.formats.dtype import Dtype, Element
from numerics.formats.errors import NumericsError, a_kind_of
from numerics.formats.registry import dtype as find_dtype
from numerics.formats.registry import dtypes
from numerics.tensor.qtensor import QTensor

if TYPE_CHECKING:
    import torch


PAIR = "_x2"  # how torch ends the name of a type that holds two codes a byte


@keywords
def to_native(codes: Any, dtype: Any) -> Any:
    """Returns codes as the library's own type with the same bits, in the same memory.

    codes: a NumPy array or a torch tensor of the format's `code_dtype`, any shape and strides.
    dtype: the format, or its name.
    Returns an array of NumPy's or ml_dtypes' type (one element a byte for fewer than 8 bits), or a
    tensor of torch's.  Raises NumericsError where the library has no such type, and for other codes.

    >>> import ml_dtypes, numpy as np
    >>> to_native(np.array([42, 126], np.uint8), "fp8_e4m3").astype(np.float32)
    array([3.125e-01, 4.480e+02], dtype=float32)
    """
    d = _element(find_dtype(dtype))
    check_kind(codes, d.code_dtype, f"codes of {d}")
    own = _torch_type(d) if is_tensor(codes) else _numpy_type(d)
    check_range(codes, d)
    return codes.view(own)


@keywords
def from_native(x: Any) -> tuple[Any, Element]:
    """Returns the codes of an array of a library's own type, in the same memory, and the format they are of.

    x: a NumPy array or a torch tensor of a type such as ml_dtypes' or torch's float8_e4m3fn, any shape.
    Raises NumericsError for a dtype that is no format or whose bits are not its codes, and for bytes with
    more bits set than the format has.

    >>> import ml_dtypes, numpy as np
    >>> from_native(np.array([-1.0, 6.0], ml_dtypes.float4_e2m1fn))
    (array([10,  7], dtype=uint8), fp4)
    """
    check_array(x)
    d = _element(find_dtype(x.dtype))
    codes = own_codes(x, d.bits, d.code_dtype, d.name)
    if codes is x:
        raise NumericsError(f"the bits of {x.dtype} are not the codes of {d}: no view without a copy")
    check_range(codes, d)
    return codes, d


@keywords
def to_native_packed(packed: torch.Tensor, dtype: Any) -> torch.Tensor:
    """Returns packed codes, two a byte, as torch's own type of two codes a byte, in the same memory.

    packed: a tensor of uint8, any shape, element 2i in the low nibble, as `Element.pack` gives and
    `QTensor.packed` holds.  dtype: the format of the codes, or its name.  Raises NumericsError where the
    library has no such type.

    >>> import torch, numerics as nx
    >>> to_native_packed(nx.quantize(torch.ones(2, 32), "mxfp4").packed.view(2, 16), "fp4").dtype
    torch.float4_e2m1fn_x2
    """
    d = _element(find_dtype(dtype))
    check_kind(packed, "uint8", f"packed codes of {d}")
    if not is_tensor(packed):
        raise NumericsError(f"NumPy has no type of several {d} a byte; unpack them for to_native")
    return packed.view(_torch_type(d, PAIR))


@keywords
def from_native_packed(x: torch.Tensor) -> tuple[torch.Tensor, Element]:
    """Returns the bytes of a tensor of two codes a byte, in the same memory, and the format of its codes.

    x: a tensor such as one of torch.float4_e2m1fn_x2, any shape.  Returns uint8 of x's shape.  Raises
    NumericsError for a type that does not hold two codes a byte.

    >>> import torch
    >>> from_native_packed(torch.tensor([33, 15], dtype=torch.uint8).view(torch.float4_e2m1fn_x2))
    (tensor([33, 15], dtype=torch.uint8), fp4)
    """
    check_array(x)
    name = str(x.dtype)
    if not name.endswith(PAIR):
        raise NumericsError(f"{name} does not hold two codes a byte; from_native takes one an element")
    import torch

    return x.detach().view(torch.uint8), _element(find_dtype(name.removesuffix(PAIR)))


# ---- types -----------------------------------------------------------------------------------------


def _numpy_type(d: Element) -> np.dtype[Any]:
    names = _names(d)
    if names and d.name in np.sctypeDict:
        return np.dtype(d.name)
    try:
        import ml_dtypes
    except ImportError:
        raise NumericsError(f"NumPy has no {d} of its own: pip install ml_dtypes") from None
    for name in names:
        if hasattr(ml_dtypes, name):
            own: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
            return own
    raise NumericsError(f"neither NumPy nor ml_dtypes has a type of {d}'s bits")


def _torch_type(d: Element, ending: str = "") -> torch.dtype:
    import torch

    for name in _names(d):
        found = getattr(torch, name + ending, None)
        if isinstance(found, torch.dtype) and (ending or 8 * found.itemsize == d.bits):
            return found
    what = "two codes a byte" if ending else "one code an element"
    raise NumericsError(f"torch has no type of {d}'s bits with {what}")


def _names(d: Dtype) -> tuple[str, ...]:
    """What it is called elsewhere; a declared format has no name there, whatever it calls itself."""
    return (d.name, *d.aliases) if any(d is known for known in dtypes()) else ()


# ---- checks ----------------------------------------------------------------------------------------


def _element(d: Dtype) -> Element:
    if not isinstance(d, Element):
        raise NumericsError(f"{d} is a block format; its elements and its scales have types of their own")
    return d


def check_array(x: Any) -> None:
    """Raises NumericsError for what is no NumPy array and no plain torch tensor."""
    if isinstance(x, QTensor) or not (isinstance(x, np.ndarray) or is_tensor(x)):
        raise NumericsError(f"a NumPy array or a plain torch tensor is needed, not {a_kind_of(x)}")
    if is_tensor(x):
        check_memory(x)
        if x.device.type == "cpu" and has_values(x):
            check_storage(x)
    else:
        check_plain("x", x)


def check_kind(x: Any, kind: str, what: str) -> None:
    """Raises NumericsError for what is no array or tensor of that type."""
    check_array(x)
    came = str(x.dtype).removeprefix("torch.")
    if came != kind:
        raise NumericsError(f"{what} are {kind}, not {came}")


def check_range(codes: Any, d: Element) -> None:
    """Raises NumericsError for unsigned codes with more bits set than the format has, where there are any."""
    if is_tensor(codes) and not has_values(codes):
        return
    if d.bits < 8 * codes.dtype.itemsize and math.prod(codes.shape) and int(codes.max()) >= 1 << d.bits:
        raise NumericsError(f"{d}: code {int(codes.max())} is outside 0 .. {(1 << d.bits) - 1}")
