"""Digests of what the package gives for fixed inputs: python corpus.py OUT.json SECTION.

Run by other interpreters, with other dependencies and on other machines, so it needs nothing but the
package and, for bfloat16, ml_dtypes.  OUT.json.now names the case at work: where a crash was.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import numerics as nx
from numerics.formats.rounding import MX_RULES, ROUNDINGS

try:
    import ml_dtypes

    BFLOAT16: Any = np.dtype(ml_dtypes.bfloat16)
except ImportError:
    BFLOAT16 = None

Case = tuple[str, Callable[[], Any]]
SOME = ("half_even", "to_odd", "stochastic")
ROWS = 2400  # a length that every block size of the corpus divides, but for 128 and 300
DECLARED = [
    nx.float_format(4, 3, subnormals=False, name="e4m3_flushed"),
    nx.float_format(5, 0, specials="none", name="e5m0"),
    nx.float_format(5, 3, signed=False, name="ue5m3"),
    nx.float_format(2, 5, bias=3, specials="fnuz", name="e2m5fnuz"),
    nx.float_format(8, 5, name="e8m5"),
    nx.float_format(6, 0, signed=False, subnormals=False, has_zero=False, specials="fn", name="e6m0"),
]
ELEMENTS = [d for d in nx.dtypes() if d.kind != "block"] + DECLARED
BLOCKS = [d for d in nx.dtypes() if d.kind == "block"] + [
    nx.block_format(block=24, element="fp4"),
    nx.block_format(block=300, element="int4"),
    nx.block_format(block=12, mantissa=3, sub_block=3),
    nx.block_format(block=16, element="fp6_e2m3", scale="fp8_e5m2"),
]


# ---- inputs ----------------------------------------------------------------------------------------


def random_bits(seed: int, count: int) -> np.ndarray:
    """64 bits each, by a generator of our own: NumPy's streams may change."""
    x = np.arange(count, dtype=np.uint64) + np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x ^= x >> np.uint64(shift)
        x *= np.uint64(factor)
    return x ^ (x >> np.uint64(31))


def float32(count: int) -> np.ndarray:
    """Every exponent with fractions about ties, and as many random bits."""
    near = [(k << s) + d for s in (12, 15, 18, 19, 20, 21) for k in (1, 2, 3, 5, 7) for d in (-1, 0, 1)]
    fractions = np.array([0, 1, 2, 3, 0x3FFFFF, 0x400000, 0x400001, 0x7FFFFE, 0x7FFFFF, *near], np.uint32)
    exponents = np.arange(256, dtype=np.uint32)[:, None] << np.uint32(23)
    edges = (exponents | fractions & np.uint32(0x7FFFFF)).ravel()
    bits = (random_bits(1, count) >> np.uint64(32)).astype(np.uint32)
    return np.concatenate([edges, edges ^ np.uint32(1 << 31), bits]).view(np.float32)


def float64(count: int) -> np.ndarray:
    """float32 numbers with bits below, and any bits."""
    wide = np.nan_to_num(float32(count), posinf=3.4e38, neginf=-3.4e38).astype(np.float64).view(np.uint64)
    low = np.array([0, 1, 0x0FFFFFFF, 0x10000000, 0x10000001, 0x1FFFFFFF], np.uint64)
    below = low[(random_bits(4, wide.size) % np.uint64(6)).astype(int)]
    return np.concatenate([wide ^ below, random_bits(5, count // 2)]).view(np.float64)


def data(kind: str, count: int) -> np.ndarray | None:
    """Inputs of a type; None where there is no such type here."""
    if kind in ("float16", "bfloat16"):
        codes = np.concatenate([np.arange(65536, dtype=np.uint16), np.arange(37, dtype=np.uint16)])
        dtype = np.dtype(np.float16) if kind == "float16" else BFLOAT16
        return None if dtype is None else codes.view(dtype)
    return float32(count) if kind == "float32" else float64(count)


def tame(kind: str) -> np.ndarray | None:
    """A matrix of finite numbers about 1."""
    bits = (random_bits(2, 64 * 96) >> np.uint64(32)).astype(np.uint32) & np.uint32(0x807FFFFF)
    exponents = (np.uint32(115) + (random_bits(3, bits.size) % np.uint64(20)).astype(np.uint32)) << np.uint32(
        23
    )
    dtype = BFLOAT16 if kind == "bfloat16" else np.dtype(kind)
    return None if dtype is None else (bits | exponents).view(np.float32).reshape(64, 96).astype(dtype)


# ---- cases -----------------------------------------------------------------------------------------


def drawn(rounding: str) -> dict[str, Any]:
    """A rounding mode, with a seed where it needs one."""
    return {"rounding": rounding, **({"seed": 7} if rounding == "stochastic" else {})}


def elements(kind: str, count: int, roundings: tuple[str, ...]) -> Iterator[Case]:
    """Values to codes and to values, codes to values and to bytes."""
    x = data(kind, count)
    if x is None:
        return
    for d in ELEMENTS:
        for rounding in roundings:
            for overflow in d.overflows:
                how = {"overflow": overflow, **drawn(rounding)}
                said = f"{kind} {d} {rounding} {overflow}"
                yield f"encode {said}", lambda d=d, how=how: d.encode(x, **how)
                yield f"round {said}", lambda d=d, how=how: d.round(x, **how)
            how = drawn(rounding)
            yield f"packed {kind} {d} {rounding}", lambda d=d, how=how: d.encode_packed(x, **how)


def codes() -> Iterator[Case]:
    """Every code of every format."""
    for d in ELEMENTS:
        every = np.resize(np.arange(1 << d.bits, dtype=d.code_dtype), max(1 << d.bits, 4099))
        yield f"decode {d}", lambda d=d, every=every: d.decode(every)
        yield f"pack {d}", lambda d=d, every=every: d.pack(every)
        yield f"unpack {d}", lambda d=d, every=every: d.decode_packed(d.pack(every), every.shape)


def blocks(kind: str, count: int, roundings: tuple[str, ...]) -> Iterator[Case]:
    """Values to blocks, to bytes and back."""
    flat = data(kind, count)
    if flat is None:
        return
    x = flat[: flat.size // ROWS * ROWS].reshape(-1, ROWS)
    for d in BLOCKS:
        for rule in MX_RULES if isinstance(d, nx.MXBlock) and kind == "float32" else ("floor",):
            for rounding in roundings if rule == "floor" else ("half_even",):
                how = drawn(rounding) | ({"scale_rule": rule} if isinstance(d, nx.MXBlock) else {})
                said = f"{kind} {d} {rounding} {rule}"
                yield f"quantize {said}", lambda d=d, how=how: nx.quantize(x, d, **how)
                given = {"tensor_scale": 1.0} if isinstance(d, nx.ScaledBlock) else {}
                yield f"round {said}", lambda d=d, how=how | given: d.round(x, **how)


def affine(kind: str, roundings: tuple[str, ...]) -> Iterator[Case]:
    """Tensors with scales and zero points."""
    x = tame(kind)
    if x is None:
        return
    for scheme in (
        "per_tensor",
        "per_channel(0)",
        "per_channel(1)",
        "per_group(32)",
        "per_group(20, axis=0)",
    ):
        for name in ("int4", "int8", "int3", "uint8", "int16", "fp8_e4m3", "fp4"):
            for options in _affine_options(nx.dtype(name)):
                for rounding in roundings:
                    how = {"scheme": scheme, **options, **drawn(rounding)}
                    said = f"{kind} {name} {' '.join(f'{k}={v}' for k, v in how.items())}"
                    yield f"quantize {said}", lambda name=name, how=how: nx.quantize(x, name, **how)
                    yield f"fake {said}", lambda name=name, how=how: nx.fake_quantize(x, name, **how)


def _affine_options(d: Any) -> Iterator[dict[str, Any]]:
    for scale_type in ("float32", "pof2", "float16"):
        yield {"scale_type": scale_type}
    if d.kind == "integer":
        yield {"symmetric": False}
        yield {"symmetric": False, "zero_point_type": "float32"}


def large() -> Iterator[Case]:
    """Results past every cache: several threads, streaming stores, odd addresses."""
    x = np.resize(float32(1 << 12), (24 << 20) + (1 << 16) + 40)
    rows = x[: x.size // 128 * 128].reshape(-1, 128)
    for name in ("fp8_e4m3", "fp4", "int8", "fp6_e3m2"):
        d = nx.dtype(name)
        yield f"large encode {d}", lambda d=d: d.encode(x)
        yield f"large round at an odd address {d}", lambda d=d: d.round(x[1:])
        yield f"large packed {d}", lambda d=d: d.encode_packed(x)
    for name in ("mxfp4", "mx9", "mx6", "nvfp4"):
        yield f"large quantize {name}", lambda name=name: nx.quantize(rows, name)
    yield "large fake int8", lambda: nx.fake_quantize(np.nan_to_num(rows), "int8", scheme="per_channel(0)")


def observers() -> Iterator[Case]:
    """Scales found batch by batch."""
    x = tame("float32")
    assert x is not None
    for kind in ("MinMax", "MovingAverage", "Percentile", "MSE", "KL"):
        for scheme in ("per_tensor", "per_channel(0)"):
            yield f"observe {kind} {scheme}", lambda kind=kind, scheme=scheme: _observed(kind, scheme, x)


def _observed(kind: str, scheme: str, x: np.ndarray) -> Any:
    watching = getattr(nx.observe, kind)("int8", scheme=scheme, symmetric=False)
    watching.observe(x)
    watching.observe(x * np.float32(0.5))
    return np.asarray(watching.scale), np.asarray(watching.zero_point)


# ---- flush to zero ---------------------------------------------------------------------------------

PLACES = {"x86_64": (7, 0x8040), "aarch64": (0, 1 << 24)}
"""Where glibc's fenv_t holds MXCSR or FPCR, and the bits that flush subnormals."""


@contextmanager
def flushing() -> Iterator[bool]:
    """A thread that flushes subnormals, as torch.set_flush_denormal makes it; False where unknown."""
    place, bits = PLACES.get(platform.machine(), (0, 0))
    if platform.libc_ver()[0] != "glibc" or not bits:
        yield False
        return
    libm, image = ctypes.CDLL("libm.so.6"), (ctypes.c_uint32 * 64)()
    libm.fegetenv(image)
    image[place] |= bits
    libm.fesetenv(image)
    try:
        yield bool(np.float32(1e-40) * np.float32(1) == 0)
    finally:
        image[place] &= ~bits
        libm.fesetenv(image)


def flushed() -> Iterator[Case]:
    """Subnormals, from a thread that flushes them and from one that does not: `flushed x` is due `x`."""
    tiny = (random_bits(9, 4096) % np.uint64(1 << 24)).astype(np.uint32).view(np.float32)
    long = np.resize(tiny, (1 << 21) + 4096)  # for several threads
    for d in (nx.bfloat16, nx.e8m0, nx.fp8_e5m2, nx.mxfp8_e5m2, nx.mxint8, nx.nvfp4, nx.mx9):
        yield from _both(f"tiny round {d}", lambda d=d: d.round(tiny))
        yield from _both(f"long tiny round {d}", lambda d=d: d.round(long))
    few = np.float32([1e-40, 1e-39, 5e-39] * 32)
    for name in ("int8", "fp8_e4m3"):
        yield from _both(f"tiny quantize {name}", lambda name=name: nx.quantize(few, name))
        yield from _both(f"tiny fake {name}", lambda name=name: nx.fake_quantize(few, name))


def _both(name: str, call: Callable[[], Any]) -> Iterator[Case]:
    def within() -> Any:
        with flushing():
            return call()

    yield name, call
    yield f"flushed {name}", within


# ---- digests ---------------------------------------------------------------------------------------

FLOATS = ("float32", "float16", "bfloat16", "float64")
SECTIONS = (
    *(f"elements {kind}" for kind in FLOATS), "codes", *(f"blocks {kind}" for kind in FLOATS),
    *(f"affine {kind}" for kind in FLOATS), "large", "observers", "flushed",
)  # fmt: skip


def cases(section: str, count: int, roundings: tuple[str, ...]) -> Iterator[Case]:
    """Those of a section: names, and calls."""
    name, _, kind = section.partition(" ")
    if name in ("elements", "blocks"):
        return (elements if name == "elements" else blocks)(kind, count, roundings)
    if name == "affine":
        return affine(kind, tuple(r for r in roundings if r != "to_odd"))
    return {"codes": codes, "large": large, "observers": observers, "flushed": flushed}[name]()


def digest(came: Any) -> str:
    """A hash of the types, shapes and bits of a result; NaN by class."""
    hashed = hashlib.sha256()
    for part in _parts(came):
        found = np.ascontiguousarray(part)
        hashed.update(f"{found.dtype.name} {found.shape}".encode())
        if found.dtype.kind == "f" or found.dtype == BFLOAT16:
            nan = np.isnan(found.astype(np.float64))
            found = found.view(f"u{found.dtype.itemsize}").copy()
            found[nan] = 0x7E7E
        hashed.update(found.tobytes())
    return hashed.hexdigest()[:16]


def _parts(came: Any) -> list[Any]:
    if isinstance(came, nx.QTensor):
        parts = (came.packed, came.shared, came.zero_point, came.tensor_scale, came.dequantize())
        return [part for part in parts if part is not None]
    return list(came) if isinstance(came, tuple) else [came]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--count", type=int, default=1 << 12)
    parser.add_argument("--slice", type=int, default=1, help="every so-manieth case only")
    parser.add_argument("--all", action="store_true", help="every rounding mode")
    asked = parser.parse_args()
    found, now = {}, asked.out.with_suffix(".now")
    with nx.use(asked.backend), np.errstate(all="ignore"):
        every = cases(asked.section, asked.count, ROUNDINGS if asked.all else SOME)
        step = 1 if asked.section == "flushed" else asked.slice  # its cases are due in pairs
        for name, call in islice(every, 0, None, step):
            now.write_text(name, encoding="utf-8")
            try:
                found[name] = digest(call())
            except nx.NumericsError as refused:
                found[name] = f"refused: {refused}"[:100]
    asked.out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
