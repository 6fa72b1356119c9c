"""The words of a case: data of every type and layout, made from a few numbers, and what is looked at after.

Data that is made here is watched: a call that changes what it was given is wrong.  Targets of `out=`
are made by `room`, and are not.
"""

from __future__ import annotations

import contextlib
import decimal
import fractions
import pathlib
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import torch

import numerics as nx
from numerics import interop, layouts, observe, train
from numerics.tensor.qtensor import QTensor
from tests.fuzz.damage import damaged, forged, lines, pickled, run, streamed
from tests.fuzz.differ import agree, like, parted, same_threads

_watched: list[tuple[Any, bytes]] = []


class Odd(np.ndarray):
    """A subclass of arrays that adds nothing."""


class OddTensor(torch.Tensor):
    """A subclass of tensors that adds nothing."""


def values(kind: str, shape: tuple[int, ...], what: str, seed: int) -> np.ndarray:
    """An array of a type by name: normal numbers, any bits, extremes, specials, codes."""
    rng, size = np.random.default_rng(seed), int(np.prod(shape))
    dtype = np.dtype(getattr(ml_dtypes, kind) if hasattr(ml_dtypes, kind) else kind)
    if what == "bits" and dtype.kind not in "bOUSMm":
        found = np.frombuffer(rng.bytes(size * dtype.itemsize), dtype).copy()
    else:
        found = _numbers(what, size, rng, dtype)
    return found.reshape(shape)


def _numbers(what: str, size: int, rng: np.random.Generator, dtype: np.dtype) -> np.ndarray:
    normal = rng.standard_normal(size)
    specials = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1.0, 448.0, 2.0**-149, 3.4e38, 1e300])
    numbers = {
        "zeros": normal * 0, "huge": normal * 1e38, "tiny": normal * 1e-41,
        "specials": specials[rng.integers(0, len(specials), size)], "counting": np.arange(size) % 7.0,
    }.get(what, normal * 4)  # fmt: skip
    with np.errstate(all="ignore"):
        whole = np.nan_to_num(numbers, posinf=9, neginf=-9).clip(0, 100) if dtype.kind in "iu" else numbers
        return whole.astype(dtype)


def array(kind: str, shape: Any, layout: str = "plain", what: str = "normal", seed: int = 0) -> Any:
    """Watched data for NumPy's path."""
    found = _laid(values(kind, shape, what, seed), layout)
    if isinstance(found, np.ndarray):
        watch(found)
    return found


def _laid(x: np.ndarray, layout: str) -> Any:
    if layout == "reversed":
        return x[::-1] if x.ndim else x
    if layout == "strided":
        room = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype) if x.ndim else x
        return _filled(room[..., ::2], x) if x.ndim else x
    if layout == "spread":
        return np.broadcast_to(x[:1], x.shape) if x.ndim else x
    if layout == "odd address":
        raw = np.zeros(x.nbytes + 1, np.uint8)[1:]
        return _filled(raw.view(x.dtype).reshape(x.shape), x)
    if layout == "swapped":
        return x.astype(x.dtype.newbyteorder()) if x.dtype.kind in "iuf" and x.dtype.isnative else x
    if layout == "read-only":
        x.setflags(write=False)
        return x
    if layout == "field":
        return _filled(np.zeros(x.shape, [("a", "u1"), ("b", x.dtype)])["b"], x)
    made: dict[str, Callable[[], Any]] = {
        "fortran": lambda: np.asfortranarray(x), "turned": lambda: x.T, "list": x.tolist,
        "masked": lambda: np.ma.masked_array(x, mask=np.arange(x.size).reshape(x.shape) % 3 == 1),
        "matrix": lambda: np.asmatrix(x) if x.ndim <= 2 else x, "subclass": lambda: x.view(Odd),
    }  # fmt: skip
    return made.get(layout, lambda: x)()


def _filled(room: np.ndarray, x: np.ndarray) -> np.ndarray:
    room[...] = x
    return room


def tensor(kind: str, shape: Any, layout: str = "plain", what: str = "normal", seed: int = 0) -> Any:
    """Watched data for torch's path."""
    dtype = getattr(torch, kind)
    plain = torch.from_numpy(values("float64", shape, what if what != "bits" else "normal", seed)).to(dtype)
    found = _laid_tensor(plain, layout)
    with contextlib.suppress(RuntimeError, NotImplementedError, TypeError):
        watch(found)
    return found


def _laid_tensor(x: torch.Tensor, layout: str) -> torch.Tensor:
    if layout in ("leaf", "parameter") and not x.is_floating_point():
        return x
    if layout == "inference":
        with torch.inference_mode():
            return x.clone()
    if layout == "freed":
        found = x.clone()
        found.untyped_storage().resize_(0)
        return found
    made: dict[str, Callable[[], torch.Tensor]] = {
        "strided": lambda: torch.stack([x, x], -1)[..., 0], "turned": lambda: x.mT if x.ndim > 1 else x,
        "spread": lambda: x[:1].expand(x.shape) if x.ndim and x.shape[0] else x,
        "offset": lambda: torch.cat([x.reshape(-1)[:1], x.reshape(-1)])[-x.numel() or None:].view(x.shape),
        "leaf": lambda: x.clone().requires_grad_(), "parameter": lambda: torch.nn.Parameter(x.clone()),
        "meta": lambda: x.to("meta"), "sparse": lambda: x.to_sparse() if x.ndim else x,
        "conjugate": lambda: torch.complex(x.double(), x.double()).conj(),
        "negative": lambda: torch._neg_view(x), "subclass": lambda: x.as_subclass(OddTensor),
        "nested": lambda: torch.nested.nested_tensor([x, x]) if x.ndim else x,
    }  # fmt: skip
    return made.get(layout, lambda: x)()


def watch(x: Any) -> Any:
    """Remembers the bytes of what a call must not change."""
    _watched.append((x, _bytes(x)))
    return x


def changed() -> bool:
    """Has watched data changed?  Forgets it."""
    found = any(_bytes(x) != before for x, before in _watched)
    _watched.clear()
    return found


def _bytes(x: Any) -> bytes:
    if isinstance(x, torch.Tensor):
        plain = x.detach()
        if plain.is_meta or plain.is_sparse or plain.is_nested or plain.untyped_storage().nbytes() == 0:
            return b""
        return plain.resolve_neg().resolve_conj().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return np.ascontiguousarray(np.ma.getdata(x)).tobytes()


def room(kind: str, shape: Any, layout: str = "plain") -> Any:
    """Unwatched: a target for `out=`, of NumPy or ("torch ...") of torch."""
    if layout.startswith("torch "):
        return _laid_tensor(torch.zeros(shape, dtype=getattr(torch, kind)), layout.removeprefix("torch "))
    return _laid(np.zeros(shape, kind), layout)


def used(came: Any) -> Any:
    """Looks at a result as its receiver would: shows it, decodes it."""
    repr(came)
    if isinstance(came, QTensor):
        came._repr_html_()
        for name in ("codes", "scale", "microexponents", "nbytes", "bits", "dequantize"):
            found = getattr(came, name)
            if callable(found):
                found()
    elif isinstance(came, nx.Blocks):
        came.decode()
    elif isinstance(came, observe.Observer):
        came.observe(np.ones((4, 4), np.float32))
        repr((came.scale, came.zero_point, came.state))
    elif isinstance(came, nx.Dtype):
        repr((came.bits, came.max, came.min, came.smallest_subnormal, came.aliases))
        came.round([0.0, 1.0, -0.3])
    return came


NAMESPACE: dict[str, Any] = {
    "nx": nx, "np": np, "torch": torch, "ml_dtypes": ml_dtypes, "interop": interop, "layouts": layouts,
    "observe": observe, "train": train, "nan": float("nan"), "inf": float("inf"),
    "Fraction": fractions.Fraction, "Decimal": decimal.Decimal, "Path": pathlib.Path,
    "array": array, "tensor": tensor, "room": room, "used": used, "agree": agree, "like": like,
    "same_threads": same_threads, "parted": parted, "damaged": damaged, "forged": forged,
    "pickled": pickled, "streamed": streamed, "lines": lines, "run": run,
}  # fmt: skip
