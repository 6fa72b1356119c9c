"""Results that must be equal, bit for bit: of every backend, and of every number of threads."""

from __future__ import annotations

from hypothesis import strategies as st

from numerics.formats.rounding import DETERMINISTIC, SCALE_RULES
from tests.fuzz import pools
from tests.fuzz.pools import Texts, array, call, mostly, one_of, repred

ROUNDINGS = one_of(
    ("", ", rounding='stochastic', seed=5", *(f", rounding={rounding!r}" for rounding in DETERMINISTIC))
)
OVERFLOWS = one_of(("", ", overflow='nonsaturate'", ", overflow='saturate'"))
RULES = one_of(("", "", *(f", scale_rule={rule!r}" for rule in SCALE_RULES)))
AXES = one_of(("", "", ", axis=0", ", axis=-2"))
AFFINE = one_of((
    "", ", symmetric=False", ", symmetric=False, zero_point_type='float32'", ", scale_type='pof2'",
    ", scale_type='float16'", ", scale_type='float'", ", scheme='per_channel(0)'", ", scheme='per_group(5)'",
    ", scheme='per_group(3, 0)', symmetric=False", ", scheme='per_channel(-1)', scale_type='bfloat16'",
    ", scale=0.37", ", scale=0.25, zero_point=3, symmetric=False",
))  # fmt: skip
LAYOUTS = mostly(
    repred("plain"),
    repred("reversed", "strided", "fortran", "turned", "spread", "odd address", "swapped", "read-only",
           "list", "field"),
)  # fmt: skip


def differential() -> Texts:
    """Formats of the table and declared ones on every backend, from any layout."""
    x = array(pools.float_kind, pools.small, LAYOUTS)
    code = array(repred("uint8", "uint16"), pools.small, LAYOUTS, pools.counting)
    elements = repred("encode", "round", "encode_packed")
    blocks = repred("encode", "round", "quantize", "fake_quantize")
    affine = repred("quantize", "fake_quantize")
    return st.one_of(
        call("agree({}, {}, {}{}{})", elements, pools.element, x, ROUNDINGS, OVERFLOWS),
        call("agree({}, {}, {}{}{}{})", blocks, pools.block, x, ROUNDINGS, RULES, AXES),
        call("agree({}, {}, {}{}{})", affine, pools.element, x, ROUNDINGS, AFFINE),
        call("agree({}, {}, {})", repred("decode", "pack"), pools.element, code),
    )


def threads() -> Texts:
    """Arrays large enough for several threads, in formats of the table and declared ones."""
    flat = st.integers(1, 5000).map(lambda more: f"({(1 << 21) + more},)")
    rows = st.tuples(st.integers(3, 60), st.integers(1, 999)).map(
        lambda drawn: f"({drawn[0]}, {(1 << 21) // drawn[0] + drawn[1]})"
    )
    shape, content = st.one_of(flat, rows), repred("bits", "normal")
    x = array(repred("float32", "float16"), shape, repred("plain", "turned"), content)
    operation = repred("encode", "round", "quantize", "fake_quantize")
    scheme = repred("per_channel(0)", "per_group(48)", "per_channel(-1)")
    formats = st.one_of(pools.block, pools.scaled, pools.micro, pools.element)
    return st.one_of(
        call("same_threads({}, {}, {})", operation, formats, x),
        call("same_threads('quantize', {}, {}, scheme={})", pools.element, x, scheme),
    )
