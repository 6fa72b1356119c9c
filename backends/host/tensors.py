"""torch tensors on the CPU as NumPy arrays in the same memory, and back.

A tensor brings torch along: nothing here imports it before one came.
"""

from __future__ import annotations

import sys
from functools import cache, reduce
from operator import or_
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics.backends.host.executor import Array
from numerics.backends.host.float_bits import bfloat16_type, bits_of, number_of_bits
from numerics.formats.errors import NumericsError, a_kind_of, items_of, said, with_article
from numerics.formats.registry import is_called

if TYPE_CHECKING:
    import torch


def is_tensor(x: Any) -> bool:
    """Is x a torch tensor?"""
    kind = getattr(sys.modules.get("torch"), "Tensor", None)
    return isinstance(kind, type) and isinstance(x, kind)  # builders of documentation put a stub there


def on_host(x: Any) -> bool:
    """Is x a tensor whose memory NumPy can read?"""
    return is_tensor(x) and bool(x.is_cpu)


def as_array(x: torch.Tensor) -> Array:
    """A tensor's memory as an array, without its history; bfloat16 as ml_dtypes' type.

    Raises NumericsError where it lies elsewhere, or has no such memory (`check_readable`).
    """
    import torch

    known = is_plain(x)
    if known:
        _check_held(x)
        plain = x.detach() if x.requires_grad else x
    else:
        check_readable(x)
        if x.device.type != "cpu":
            raise NumericsError(f"a tensor on {x.device} cannot be read; a plain one on the CPU can")
        plain = settled(x.detach())
    try:  # by DLPack: after x.numpy() torch could never resize the memory again, as FSDP does
        words = plain.view(torch.int16) if plain.dtype == torch.bfloat16 else plain
        array: Array = np.from_dlpack(_Held(words) if known else words)
        return array if words is plain else array.view(bfloat16_type())
    except (TypeError, RuntimeError, BufferError) as wrong:
        raise NumericsError(f"NumPy cannot read a tensor of {x.dtype}: {wrong}") from None


class _Held:
    """A tensor that `is_plain` and waits for no gradient, as NumPy takes it by DLPack.

    `Tensor.__dlpack__` asks all that once more, at three times the cost of the rest.
    """

    __slots__ = ("tensor",)

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __dlpack__(self, **_: Any) -> Any:
        """The memory, in the version of DLPack that says who may write."""
        return sys.modules["torch"]._C._to_dlpack_versioned(self.tensor)

    def __dlpack_device__(self) -> tuple[int, int]:
        """The CPU."""
        return 1, 0


def settled(x: Any) -> Any:
    """x, its elements as its memory has them: torch keeps a negation (`z.conj().imag`) as a mark on a view,
    and zeros that autograd made of nothing (`torch._efficientzerotensor`) as a mark and no memory at all.

    What is no tensor comes back as it is.  Who reads memory by its address, or works where torch does not
    look at that mark (within `__torch_dispatch__`, in kernels), asks here first.
    """
    if not is_tensor(x) or not is_marked(x):
        return x
    return x.clone() if x._is_zerotensor() else x.resolve_neg().resolve_conj()


def is_marked(x: torch.Tensor) -> bool:
    """Are the elements of a tensor others than its memory has (`settled`)?"""
    return x.is_neg() or x.is_conj() or x._is_zerotensor()


@cache
def _plain_keys() -> frozenset[int]:
    """What torch's dispatcher knows of a plain tensor on the CPU: under inference_mode, and elsewhere."""
    from torch._C import DispatchKey, DispatchKeySet

    keys = DispatchKey.CPU, DispatchKey.AutogradCPU, DispatchKey.AutocastCPU
    inside = reduce(or_, map(DispatchKeySet, keys))
    return frozenset(s.raw_repr() for s in (inside, inside | DispatchKeySet(DispatchKey.ADInplaceOrView)))


def is_plain(x: torch.Tensor) -> bool:
    """Is x torch's own kind of tensor, dense, on the CPU, with values as they stand there?

    One question to the dispatcher in the place of a dozen; whoever gets False asks them one by one.
    """
    import torch

    kind = type(x)
    own = kind is torch.Tensor or kind is torch.nn.Parameter
    return own and torch._C._dispatch_keys(x).raw_repr() in _plain_keys()


def check_memory(x: torch.Tensor) -> None:
    """Raises NumericsError for a tensor without memory of its own: what it would give goes as it is read.

    Sparse and nested ones, those quantized by torch, and subclasses that hold other tensors (QTensor,
    DTensor).
    """
    import torch

    check_dense(x)
    holds = hasattr(type(x), "__tensor_flatten__")
    if holds or x.is_quantized or x.layout != torch.strided:
        what = type(x).__name__ if holds else f"{x.dtype if x.is_quantized else x.layout} tensor"
        if hasattr(x, "quantized"):
            what, rest = "view of a QTensor", "the QTensor itself can, or its values, x.dequantize()"
        elif hasattr(x, "spec"):
            what, rest = "QTensor", "its values can, q.dequantize()"
        else:
            rest = "a plain one can"
        raise NumericsError(f"{with_article(what)} cannot be read; {rest}")


def is_qtensor(x: torch.Tensor) -> bool:
    """Is a tensor a QTensor, or a view of one?"""
    return hasattr(type(x), "__tensor_flatten__") and (hasattr(x, "spec") or hasattr(x, "quantized"))


def check_readable(x: torch.Tensor) -> None:
    """`check_memory`, and that the memory is there (`check_storage`)."""
    check_memory(x)
    check_storage(x)


def check_dense(x: torch.Tensor) -> None:
    """Raises NumericsError for a tensor of tensors, which torch's operators do not even ask about."""
    if x.is_nested:
        raise NumericsError("a nested tensor cannot be read; its parts can (x.unbind())")


def has_values(x: torch.Tensor) -> bool:
    """Are there numbers to look at?  Not on "meta", nor in what stands for a tensor while torch traces."""
    from torch._subclasses import FakeTensor

    return not (x.is_meta or isinstance(x, FakeTensor))


def check_storage(x: torch.Tensor) -> None:
    """Raises NumericsError for a tensor whose memory was freed or cut, as FSDP frees what it has sharded.

    And for a FakeTensor, which says that it lies on a device and lies nowhere.
    """
    if not (has_values(x) or x.is_meta):
        raise NumericsError(
            f"{a_kind_of(x)} has no values to read: torch puts it in a tensor's place to trace"
        )
    if not x.is_meta:
        _check_held(x)


def same_bits(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Have two tensors of one shape the same type and the same bits, those of NaN and of -0 too?"""
    import torch

    mine, theirs = (one.detach().reshape(-1).contiguous().view(torch.uint8) for one in (x, y))
    return x.dtype == y.dtype and torch.equal(mine, theirs)


def is_of_level(x: torch.Tensor) -> bool:
    """Does a tensor stand for another within a transformation of torch.func?"""
    import torch

    return bool(torch._C._functorch.is_functorch_wrapped_tensor(x))


def no_memory_of_level() -> str:
    """What is said of a tensor that stands for others within torch.func, and of what is made of such."""
    return (
        "a tensor of torch.vmap or of another transformation of torch.func has no memory of its own, and "
        "a QTensor of such ones is none outside of it: return q.dequantize(), or make it outside"
    )


def _check_held(x: torch.Tensor) -> None:
    """Is all of the memory there in which x says that it lies?"""
    try:
        there = x.untyped_storage().nbytes()
    except NotImplementedError:
        raise NumericsError(no_memory_of_level()) from None
    if x.is_contiguous():
        last = x.numel() - 1
    else:
        last = sum((size - 1) * step for size, step in zip(x.shape, x.stride(), strict=True))
    need = (x.storage_offset() + last + 1) * x.dtype.itemsize
    if there < need and x.numel():
        raise NumericsError(
            f"the memory of a tensor of shape {tuple(x.shape)} was freed: {there} bytes are left of {need}"
        )


def check_plain(what: str, x: Any) -> None:
    """Raises NumericsError for an array whose type means more than its numbers: a mask, units, a matrix.

    In nested lists too.
    """
    kind = type(x)
    if isinstance(x, (list, tuple)):
        items = x if kind in (list, tuple) else items_of(what, x)
        kinds = {kind for kind in set(map(type, items)) if issubclass(kind, (list, tuple, np.ndarray))}
        for part in items if kinds else ():
            if type(part) in kinds:
                check_plain(what, part)
        return
    if kind is np.ndarray or kind is np.memmap or not isinstance(x, np.ndarray):
        return
    if isinstance(x, np.ma.MaskedArray):
        hidden = int(np.sum(np.ma.getmaskarray(x)))
        if not hidden:
            raise NumericsError(
                f"{what} is a masked array, whose mask would be lost; it hides none of its {x.size} values: "
                "give its .data"
            )
        raise NumericsError(
            f"{what} is a masked array that hides {hidden} of {x.size} values, which codes cannot; "
            "give its .filled(...) with a number for them, or its .data"
        )
    raise NumericsError(
        f"{what} is a {kind.__name__}, and what it means beside its numbers would be lost; give np.asarray(x)"
    )


def as_tensor(x: Array) -> torch.Tensor:
    """An array's memory as a tensor; a copy where it may not be written, or is many numbers at once."""
    import torch

    if not x.flags.writeable or 0 in x.strides:
        x = x.copy()
    if x.dtype.kind == "V" and x.dtype.name == "bfloat16":
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x)


def given_tensor(what: str, came: Any, kind: Any = None, device: Any = None) -> torch.Tensor:
    """Real numbers that stand beside a tensor, as one themselves; a tensor as it is, its checks to come.

    kind: a dtype of torch, the numbers' own where it is None.  Raises NumericsError for what are none.
    """
    import torch

    if isinstance(came, torch.Tensor):
        check_dense(came)
        return came
    if isinstance(came, (str, bytes)):
        raise NumericsError(f"{what} must be real numbers, not {said(came)}")
    try:
        check_plain(what, came)
        if isinstance(came, np.ndarray) and not torch.compiler.is_compiling() and not came.flags.writeable:
            came = came.copy()  # of which torch would warn
        if type(came) is float:
            return torch.as_tensor(came, dtype=kind, device=device)
        found = torch.as_tensor(came, device=device)  # told no type, it says what they are
        if found.is_complex() or found.dtype == torch.bool:
            raise TypeError(f"they are {found.dtype}")
        return found if kind is None else torch.as_tensor(came, dtype=kind, device=device)
    except NumericsError:
        raise
    except Exception as wrong:  # whatever what came raises: it is not numbers
        raise NumericsError(f"{what} must be real numbers: {wrong}") from None


def number_tensor(number: float, device: Any = None) -> torch.Tensor:
    """A positive float32 number as a tensor of shape () on that device, subnormal or not (`bits_of`)."""
    import torch

    return torch.tensor(bits_of(number), dtype=torch.int32, device=device).view(torch.float32)


def number_of(x: Any) -> float:
    """A float32 number, subnormal or not, from a tensor or array of one; from Python's, itself."""
    if isinstance(x, float):
        return x
    if not is_tensor(x):
        return number_of_bits(int(np.asarray(x, np.float32).view(np.int32)))
    import torch

    check_storage(x)
    if x.is_meta:
        raise NumericsError("a number on meta has no value; a tensor's scale is one")
    return number_of_bits(int(settled(x).view(torch.int32)))


def own_codes(x: Any, bits: int, kind: str, name: str) -> Any:
    """An array or tensor of the format's own type as its codes, in the same memory; others as they are.

    bits, kind, name: of the format, and the unsigned type of its codes.  torch's types of fewer than
    8 bits are left as they are: torch says nothing of where in a byte their bits lie.
    """
    if not is_called(x.dtype, name):
        return x
    if is_tensor(x):
        import torch

        return x.detach().view(getattr(torch, kind)) if 8 * x.dtype.itemsize == bits else x
    return x.view(kind) if x.dtype.isnative else x
