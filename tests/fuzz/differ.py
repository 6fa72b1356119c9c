"""Results that must agree: of every backend, of every number of threads, of a QTensor and its values."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch

import numerics as nx
from numerics.pytorch.wrapper import Wrapper
from numerics.tensor.qtensor import QTensor

BACKENDS = ("array", "cpu", "reference")
_PARTS = ("packed", "shared", "zero_point", "tensor_scale")


CASTS = {
    "x.half()": (torch.float16,), "x.bfloat16()": (torch.bfloat16,), "x.float()": (torch.float32,),
    "x.double()": (torch.float64,), "x.to(torch.float64)": (torch.float64,),
    "x.type(torch.float16)": (torch.float16,),
}  # fmt: skip
"""Texts of operations that ask for the values in another float type, rounded once from codes and scales."""


class Disagreement(AssertionError):
    """Two that must be equal are not.  `key`: what kind of case it is."""

    def __init__(self, key: str, said: str) -> None:
        super().__init__(f"{key}: {said}")
        self.key = key


def parted(came: Any) -> Iterator[tuple[str, Any]]:
    """The numbers of a result by name, as arrays."""
    if isinstance(came, nx.Blocks):
        fields = {name: getattr(came, name) for name in ("codes", "scale", "microexponents", "tensor_scale")}
        fields["values"] = came.decode()
    elif isinstance(came, QTensor):
        fields = {name: getattr(came, name) for name in _PARTS} | {"values": came.dequantize()}
    elif isinstance(came, tuple | list) and any(isinstance(x, np.ndarray | torch.Tensor) for x in came):
        fields = {str(k): x for k, x in enumerate(came)}
    else:
        fields = {"result": came}
    for name, x in fields.items():
        if x is not None:
            yield name, x


def bits(x: Any) -> tuple[Any, ...]:
    """What makes two results the same: type, shape, and bits, but for those of NaN."""
    if isinstance(x, torch.Tensor):
        plain = x.detach().resolve_neg().resolve_conj()
        kind, x = str(plain.dtype), plain.to(torch.float32) if plain.dtype == torch.bfloat16 else plain
        found = x.numpy()
    else:
        found = np.asarray(x)
        kind = found.dtype.name
    found = np.ascontiguousarray(found)
    if found.dtype.kind in "fV" and found.dtype.fields is None:
        nan = np.isnan(found.astype(np.float64))
        found = found.view(f"u{found.dtype.itemsize}").copy()
        found[nan] = 0
    return kind, found.shape, found.tobytes()


def first_difference(came: Any, due: Any) -> str | None:
    """The name of the first part in which two results differ."""
    ours, theirs = dict(parted(came)), dict(parted(due))
    if ours.keys() != theirs.keys():
        return f"parts {sorted(ours.keys() ^ theirs.keys())}"
    return next((name for name, x in ours.items() if bits(x) != bits(theirs[name])), None)


def _kind(d: Any) -> str:
    found = nx.dtype(d)
    return found.stem if isinstance(found, nx.Block) else found.kind


def _called(operation: str, d: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    if operation in ("quantize", "fake_quantize"):
        return getattr(nx, operation)(*args, d, **options)
    return getattr(nx.dtype(d), operation)(*args, **options)


def agree(operation: str, d: Any, *args: Any, **options: Any) -> None:
    """An operation of a format on every backend: the same bits, or NumericsError from all."""
    found: dict[str, Any] = {}
    for name in BACKENDS:
        try:
            with nx.use(name):
                found[name] = _called(operation, d, args, options)
        except nx.NumericsError as refused:
            found[name] = refused
    due = found["array"]
    kind = f"{operation} of {_kind(d)} from {getattr(args[0], 'dtype', type(args[0]).__name__)}"
    for name, came in found.items():
        if isinstance(came, nx.NumericsError) != isinstance(due, nx.NumericsError):
            raise Disagreement(f"refused by one of array and {name}, {kind}", f"{came!r}, {due!r}")
        if not isinstance(came, nx.NumericsError) and (where := first_difference(came, due)):
            raise Disagreement(f"{where} of array and {name} differ, {kind}", repr(nx.dtype(d)))
    if isinstance(due, nx.NumericsError):
        raise due


def same_threads(operation: str, d: Any, x: Any, **options: Any) -> None:
    """An operation with one thread and with several: the same bits."""
    found = []
    for count in ("1", "2", "3", "7"):
        with mock.patch.dict(os.environ, {"NUMERICS_NUM_THREADS": count}), nx.use("cpu"):
            found.append(_called(operation, d, (x,), options))
        if where := first_difference(found[-1], found[0]):
            raise Disagreement(f"{where} of {count} threads differ, {operation} of {_kind(d)}", repr(d))


def like(q: QTensor, *texts: str) -> Any:
    """Operations on a QTensor, one after the other: each as on its values, or NumericsError.

    Another float type is that of `dequantize`.  Products are those of the decoded values: in the order of
    packed ones a sum may pass the largest float32 that in torch's does not.  Where torch refuses the values,
    the QTensor may be refused in any words.  What has become a plain tensor is torch's alone, whose products
    with a tensor on meta are memory that nobody wrote.
    """
    came: Any = q
    for text in texts:
        if not isinstance(came, QTensor | Wrapper):
            return came
        values = came.dequantize(*CASTS.get(text, ()))
        names = {"torch": torch, "F": torch.nn.functional, "nx": nx}
        try:
            due = eval(text, names | {"x": values})
        except Exception:
            due = None
        try:
            with nx.decoded_products():
                came = eval(text, names | {"x": came})
        except nx.NumericsError:
            raise
        except Exception:
            if due is None:
                return None
            raise
        if due is None:
            return None
        _as_values(text, came, due)
    return came


def _as_values(text: str, came: Any, due: Any) -> None:
    plain = [x.dequantize() if isinstance(x, QTensor | Wrapper) else x for x in _leaves(came)]
    dues = _leaves(due)
    if len(plain) != len(dues):
        raise Disagreement(f"{text}: {len(plain)} results, not {len(dues)}", "")
    for one, other in zip(plain, dues, strict=True):
        if isinstance(other, torch.Tensor) and not other.is_meta and bits(one) != bits(other):
            raise Disagreement(f"{text} is not what the values give", f"{one}, not {other}")


def _leaves(x: Any) -> list[Any]:
    return list(torch.utils._pytree.tree_leaves(x))
