"""What others offer for the same job on a CPU, where it is installed.

Each function gives name -> call, or name -> why not.  A peer works on its own kind of tensor, made
beforehand, and makes a fresh output, as it does for its users.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

Peers = dict[str, Callable[[], object] | str]


@lru_cache(maxsize=8)
def library(name: str) -> Any:
    """The module, or None where it cannot be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except Exception:  # whatever a foreign package makes of this machine
        return None


def _absent(*names: str) -> Peers:
    return dict.fromkeys(names, "not installed")


@lru_cache(maxsize=8)
def _compiled(name: str) -> Any:
    torch = library("torch")
    functions = {
        "encode": lambda t, d, top: t.clamp(-top, top).to(d),
        "fake": lambda t, d, top: t.clamp(-top, top).to(d).to(t.dtype),
    }
    return torch.compile(functions[name])


def encode(x: np.ndarray, torch_name: str | None, ml_name: str, top: float) -> Peers:
    """Values to codes."""
    found: Peers = {}
    ml_dtypes, torch = library("ml_dtypes"), library("torch")
    if ml_dtypes is not None and x.dtype == np.float32:
        theirs = getattr(ml_dtypes, ml_name)
        found["ml_dtypes astype"] = lambda: np.clip(x, -top, top).astype(theirs)
    if torch_name is None:
        return found
    if torch is None:
        return found | _absent("torch .to", "torch.compile")
    t, kind = torch.from_numpy(_torchable(x)), getattr(torch, torch_name)
    t = t.view(torch.bfloat16) if x.dtype.name == "bfloat16" else t
    found["torch .to"] = lambda: t.to(kind)
    found["torch clamp .to"] = lambda: t.clamp(-top, top).to(kind)
    found["torch.compile"] = lambda: _compiled("encode")(t, kind, top)
    return found


def _torchable(x: np.ndarray) -> np.ndarray:
    return x.view(np.int16) if x.dtype.name == "bfloat16" else x


def decode(codes: np.ndarray, torch_name: str | None, ml_name: str) -> Peers:
    """Codes to float32."""
    found: Peers = {}
    ml_dtypes, torch = library("ml_dtypes"), library("torch")
    if ml_dtypes is not None:
        theirs = codes.view(getattr(ml_dtypes, ml_name))
        found["ml_dtypes astype"] = lambda: theirs.astype(np.float32)
    if torch_name is not None:
        if torch is None:
            return found | _absent("torch .to")
        t = torch.from_numpy(codes).view(getattr(torch, torch_name))
        found["torch .to"] = lambda: t.to(torch.float32)
    return found


def quark() -> Any:
    """AMD Quark's kernels, or None."""
    return library("quark.torch.kernel")


def fake_quantize(x: np.ndarray, torch_name: str, quark_name: str, top: float) -> Peers:
    """Values to values of a float format."""
    torch = library("torch")
    if torch is None:
        return _absent("torch clamp .to .to", "torch.compile", "amd-quark")
    t, kind = torch.from_numpy(x), getattr(torch, torch_name)
    found: Peers = {
        "torch clamp .to .to": lambda: t.clamp(-top, top).to(kind).to(torch.float32),
        "torch.compile": lambda: _compiled("fake")(t, kind, top),
    }
    k = quark()
    if k is None:
        return found | _absent("amd-quark")
    one, zero = torch.tensor(1.0), torch.tensor(0)
    found["amd-quark"] = lambda: k.scaled_fake_quantize(
        quark_name, t, one, zero, 0, 0, -top, top, 8, "per_tensor", ""
    )
    return found


def mx_encode(x: np.ndarray, torch_name: str) -> Peers:
    """MX blocks of 32: scales and elements."""
    torch, ao = library("torch"), library("torchao.prototype.mx_formats.mx_tensor")
    if torch is None or ao is None:
        return _absent("torchao to_mx")
    t = torch.from_numpy(x)
    return {"torchao to_mx": lambda: ao.to_mx(t, getattr(torch, torch_name), 32)}


def block_fake(x: np.ndarray, family: str, element: str) -> Peers:
    """Values to values of a block format."""
    torch, k = library("torch"), quark()
    if torch is None or k is None:
        return _absent("amd-quark", "microxcaling")
    t, block = torch.from_numpy(x), 32 if family == "mx" else 16
    return {
        "amd-quark": lambda: k.non_scaled_fake_quantize(t, family, element, -1, block, "floor"),
        "microxcaling": "not on PyPI",
    }


def integers(x: np.ndarray, scale: np.ndarray, low: int, high: int, quark_name: str) -> Peers:
    """Rows with a scale each, to values."""
    torch = library("torch")
    if torch is None:
        return _absent("torch.fake_quantize", "amd-quark")
    t, s = torch.from_numpy(x), torch.from_numpy(scale)
    zero = torch.zeros(len(scale), dtype=torch.int32)
    found: Peers = {
        "torch.fake_quantize": lambda: torch.fake_quantize_per_channel_affine(t, s, zero, 0, low, high)
    }
    k = quark()
    if k is None:
        return found | _absent("amd-quark")
    found["amd-quark"] = lambda: k.scaled_fake_quantize(
        quark_name, t, s, zero, 0, 0, float(low), float(high), 8, "per_channel", ""
    )
    return found


def integer_codes(x: np.ndarray, scale: np.ndarray) -> Peers:
    """Rows with a scale each, to int8 codes."""
    torch = library("torch")
    if torch is None:
        return _absent("torch.quantize_per_channel")
    t, s = torch.from_numpy(x), torch.from_numpy(scale).double()
    zero = torch.zeros(len(scale), dtype=torch.int64)
    return {"torch.quantize_per_channel": lambda: torch.quantize_per_channel(t, s, zero, 0, torch.qint8)}


def _torchao_fake(t: Any, block: tuple[int, ...], symmetric: bool) -> tuple[Any, Any]:
    """torchao's scale and zero point of a tensor, and its fake-quantize with them."""
    q = library("torchao.quantization.quant_primitives")
    torch = library("torch")
    kind = q.MappingType.SYMMETRIC if symmetric else q.MappingType.ASYMMETRIC
    scale, zero = q.choose_qparams_affine(t, kind, block, torch.int8, -128, 127)
    return scale, lambda s=scale, z=zero: q._fake_quantize_affine(t, block, s, z, torch.int8, -128, 127)


def given_scale(x: np.ndarray, scheme: Any, q: Any, symmetric: bool) -> Peers:
    """int8 values of a matrix, by each scheme that a peer has, with a scale that is there."""
    torch, k = library("torch"), quark()
    if torch is None:
        return _absent("torch.fake_quantize", "torchao", "amd-quark")
    t, scale = torch.from_numpy(x), torch.from_numpy(np.atleast_1d(q.scale))
    zero = torch.zeros(scale.shape, dtype=torch.int32)
    zero = zero if symmetric else torch.from_numpy(np.atleast_1d(q.zero_point))
    found: Peers = {}
    if scheme.kind == "per_tensor":
        found["torch.fake_quantize"] = lambda: torch.fake_quantize_per_tensor_affine(
            t, scale[0], zero[0], -128, 127
        )
    elif scheme.kind == "per_channel":
        found["torch.fake_quantize"] = lambda: torch.fake_quantize_per_channel_affine(
            t, scale, zero, scheme.axis, -128, 127
        )
    if library("torchao.quantization.quant_primitives") is not None and _divides(x, scheme):
        found["torchao"] = _torchao_fake(t, _block(x, scheme), symmetric)[1]
    if k is not None and symmetric and (scheme.size is None or scheme.axis == -1):
        found["amd-quark"] = lambda: k.scaled_fake_quantize(
            "int8", t, scale, zero, scheme.axis or 0, scheme.size or 0, -128.0, 127.0, 8, scheme.kind, ""
        )
    return found


def found_scale(x: np.ndarray, scheme: Any) -> Peers:
    """The same with a scale that is found from the values."""
    torch = library("torch")
    if torch is None or library("torchao.quantization.quant_primitives") is None:
        return _absent("torchao")
    if not _divides(x, scheme):
        return {}
    t, block = torch.from_numpy(x), _block(x, scheme)
    return {"torchao": lambda: _torchao_fake(t, block, True)[1]()}


def _divides(x: np.ndarray, scheme: Any) -> bool:
    """Are all groups whole?  A single row torchao takes for something else."""
    return len(x) > 1 and all(n % size == 0 for n, size in zip(x.shape, _block(x, scheme), strict=True))


def _block(x: np.ndarray, scheme: Any) -> tuple[int, ...]:
    """torchao's words for a scheme on a matrix."""
    rows, columns = x.shape
    if scheme.kind == "per_tensor":
        return rows, columns
    if scheme.kind == "per_channel":
        return (1, columns) if scheme.axis == 0 else (rows, 1)
    return (1, scheme.size) if scheme.axis == -1 else (scheme.size, 1)
