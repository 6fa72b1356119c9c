"""OCP MX and NVFP4 blocks: encode, encode to stored bytes, fake-quantize."""

from __future__ import annotations

import numpy as np

import numerics as nx
from bench import ceiling, peers
from bench.measure import Contest
from numerics.backends.cpu import EXECUTOR
from numerics.formats.rounding import BlockOptions

COLUMNS = 1024
TORCH = {"fp8_e4m3": "float8_e4m3fn", "fp4": "float4_e2m1fn_x2"}


def _matrix(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n // COLUMNS, COLUMNS), np.float32)


def _tensor_scale(d: nx.Block) -> float | None:
    return 1e-3 if isinstance(d, nx.ScaledBlock) else None


def encoding(name: str) -> object:
    """Codes, scales and microexponents into preallocated arrays."""

    def make(n: int) -> Contest:
        d, x = nx.dtype(name), _matrix(n)
        options = {"tensor_scale": _tensor_scale(d)}
        room = d.encode(x, **options)
        fields = [f for f in (room.codes, room.scale, room.microexponents) if f is not None]
        copy, size = ceiling.encode(x.reshape(-1), 8)
        element = d.element.name if isinstance(d, nx.MXBlock) else ""
        others = peers.mx_encode(x, TORCH[element]) if element in TORCH else {}
        written = sum(f.nbytes for f in fields)
        return Contest(lambda: d.encode(x, out=room, **options), x.nbytes + written, copy, size, others)

    return make


def storing(name: str) -> object:
    """Straight to the bytes that are stored."""

    def make(n: int) -> Contest:
        d, x = nx.dtype(name), _matrix(n).reshape(-1, nx.dtype(name).block)
        options = BlockOptions(tensor_scale=_tensor_scale(d))
        out, scale = EXECUTOR.encode_blocks_packed(x, d, options)
        written = out.nbytes + (0 if scale is None else scale.nbytes)
        copy, size = ceiling.encode(x.reshape(-1), max(int(d.bits), 4) if d.bits < 8 else 8)
        run = EXECUTOR.encode_blocks_into
        return Contest(lambda: run(x, d, options, out, scale), x.nbytes + written, copy, size)

    return make


def rounding(name: str) -> object:
    """Values to values."""

    def make(n: int) -> Contest:
        d, x = nx.dtype(name), _matrix(n)
        out, options = nx.empty(x.shape), {"tensor_scale": _tensor_scale(d)}
        copy, size = ceiling.copy(x.reshape(-1))
        family = "mx" if isinstance(d, nx.MXBlock) else name
        others = peers.block_fake(x, family, d.element.name if isinstance(d, nx.MXBlock) else "")
        others = {} if name in ("nvfp4", "mx4") else others
        return Contest(lambda: d.round(x, out=out, **options), 2 * x.nbytes, copy, size, others)

    return make


CASES = {
    "encode mxfp8_e4m3": encoding("mxfp8_e4m3"),
    "encode mxfp4": encoding("mxfp4"),
    "store mxfp4": storing("mxfp4"),
    "store nvfp4": storing("nvfp4"),
    "fake_quantize mxfp8_e4m3": rounding("mxfp8_e4m3"),
    "fake_quantize mxfp4": rounding("mxfp4"),
    "fake_quantize nvfp4": rounding("nvfp4"),
}
