"""Formats that list their values: looked up at the speed of memory?  Beside bitsandbytes and gfloat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import numerics as nx
from bench import ceiling, peers
from bench.measure import Contest
from numerics.backends.cpu import EXECUTOR
from numerics.formats.rounding import Rounding

GROUP = 64  # values that share a scale, as bitsandbytes has them
GFLOAT_SHARE = 1 / 64  # of the values that gfloat works on: it is that slow


def encode(name: str) -> Callable[[int], Contest]:
    """Returns a contest of values to codes, one a byte, or packed where they have 4 bits or fewer."""

    def make(n: int) -> Contest:
        d, x = nx.dtype(name), np.random.default_rng(0).standard_normal(n, np.float32)
        copy, size = ceiling.encode(x, d.bits)
        out = nx.empty(n * d.bits // 8, np.uint8)
        run = EXECUTOR.encode_packed
        return Contest(lambda: run(x, d, Rounding(), out), x.nbytes + out.nbytes, copy, size)

    return make


def decode(name: str) -> Callable[[int], Contest]:
    """Returns a contest of packed codes to values."""

    def make(n: int) -> Contest:
        d = nx.dtype(name)
        packed = np.random.default_rng(0).integers(0, 256, n * d.bits // 8, dtype=np.uint8)
        out = nx.empty(n)
        copy, size = ceiling.decode(packed, n, d.bits)
        run = EXECUTOR.decode_packed
        return Contest(lambda: run(packed, d, out), packed.nbytes + out.nbytes, copy, size)

    return make


def rounded(name: str) -> Callable[[int], Contest]:
    """Returns a contest of values to the nearest values of the list."""

    def make(n: int) -> Contest:
        d, x = nx.dtype(name), np.random.default_rng(0).standard_normal(n, np.float32)
        out = nx.empty(x.shape)
        copy, size = ceiling.copy(x)
        return Contest(lambda: d.round(x, out=out), 2 * x.nbytes, copy, size)

    return make


def p3109(n: int) -> Contest:
    """Returns a contest of Binary8p4se beside gfloat, which has no other of these formats."""
    d, x = nx.p3109(8, 4), np.random.default_rng(0).standard_normal(n, np.float32)
    out, few = nx.empty(n, np.uint8), x[: max(int(n * GFLOAT_SHARE), 1)].astype(np.float64)
    copy, size = ceiling.encode(x, 8)
    gfloat = peers.library("gfloat")
    theirs: Any = "not installed"
    if gfloat is not None:
        sign, domain = gfloat.Signedness.Signed, gfloat.Domain.Extended
        info = peers.library("gfloat.formats").format_info_p3109(8, 4, sign, domain)
        even = gfloat.RoundMode.TiesToEven

        def theirs() -> object:
            return gfloat.encode_ndarray(info, gfloat.round_ndarray(info, few, even, True))

    share = len(few) / n
    return Contest(lambda: d.encode(x, out=out), x.nbytes + n, copy, size, {"gfloat": theirs}, share)


def groups(stored: bool) -> Callable[[int], Contest]:
    """Returns a contest of nf4 with a scale for each 64: stored, or rounded in one pass."""

    def make(n: int) -> Contest:
        x = np.random.default_rng(0).standard_normal((n // GROUP, GROUP), np.float32)
        scheme, torch = nx.per_group(GROUP), peers.library("torch")
        theirs: Any = "not installed"
        bitsandbytes = peers.library("bitsandbytes.functional") if torch is not None else None
        if bitsandbytes is not None:
            t = torch.from_numpy(x)

            def theirs() -> object:
                made, state = bitsandbytes.quantize_4bit(t, blocksize=GROUP, quant_type="nf4")
                return made if stored else bitsandbytes.dequantize_4bit(made, state)

        if stored:
            copy, size = ceiling.encode(x.reshape(-1), 4)
            moved = x.nbytes + n // 2 + 4 * n // GROUP
            return Contest(
                lambda: nx.quantize(x, "nf4", scheme=scheme), moved, copy, size, {"bitsandbytes": theirs}
            )
        copy, size = ceiling.copy(x.reshape(-1))
        ours = lambda: nx.fake_quantize(x, "nf4", scheme=scheme)  # noqa: E731
        return Contest(ours, 2 * x.nbytes, copy, size, {"bitsandbytes": theirs})

    return make


CASES = {
    "tables: packed nf4": encode("nf4"),
    "tables: hifloat8": encode("hifloat8"),
    "tables: posit8": encode("posit8"),
    "tables: unpacked nf4": decode("nf4"),
    "tables: values of hifloat8": decode("hifloat8"),
    "tables: round nf4": rounded("nf4"),
    "tables: round hifloat8": rounded("hifloat8"),
    "tables: binary8p4se": p3109,
    "tables: store nf4 per_group 64": groups(stored=True),
    "tables: fake_quantize nf4 per_group 64": groups(stored=False),
}
