"""Targets that return what is no answer, or answer in memory that they use again: a verdict in every kind."""

from __future__ import annotations

import numpy as np
import pytest

import numerics as nx
from numerics.conform import check
from numerics.formats.block import Blocks

SCHEMES = ("per_tensor()", "per_channel(1)", "per_group(4, axis=0)", "per_token()", "per_block((2, 3))")
KINDS = [
    *(("int8", {"kind": "affine", "scheme": scheme}) for scheme in (None, *SCHEMES)),
    *(("fp6_e2m3", {"kind": kind}) for kind in ("encode", "decode", "round", "pack", "unpack")),
    *((name, {"kind": kind}) for name in ("mxfp4", "mx6", "nvfp4") for kind in ("encode", "decode", "round")),
    *(("mxfp4", {"kind": kind, "packed": True, "scale_layout": "cublas"}) for kind in ("encode", "decode")),
    ("mxfp4", {"axis": 0, "whole_blocks": True}),
    ("fp8_e4m3", {"rounding": "stochastic"}),
    ("fp8_e4m3", {"rounding": "stochastic", "draw": "own"}),
    ("fp8_e4m3", {"kind": "round", "inputs": "bfloat16"}),
    (None, {"kind": "matmul", "a": "float32", "b": "mxfp4"}),
    (None, {"kind": "matmul", "a": "int8", "b": "int8", "accumulate": "int32"}),
]


def raises(*given):
    raise ValueError("no")


def exits(*given):
    raise SystemExit(3)


NO_ANSWERS = {
    "it raises": raises,
    "it ends the process": exits,
    "nothing": lambda *given: None,
    "another shape": lambda *given: np.zeros((3, 7, 2), np.uint8),
    "complex numbers": lambda *given: np.zeros(np.shape(given[0]), np.complex128),
    "texts": lambda *given: np.full(np.shape(given[0]), "x"),
    "a ragged list": lambda *given: [[1], [1, 2]],
    "NaN": lambda *given: np.full(np.shape(given[0]), np.nan, np.float32),
    "its input": lambda *given: given[0],
    "2**40": lambda *given: np.full(np.shape(given[0]), 2**40),
}


@pytest.mark.parametrize("name", NO_ANSWERS)
def test_a_target_without_an_answer_ended_the_judge(name):
    """An affine target with one scale that raised was cut in halves along an axis that its scale lacks."""
    for dtype, options in KINDS:
        found = check(NO_ANSWERS[name], dtype, effort="quick", **options)
        assert not found, (dtype, options)
        assert found.to_json()


def test_the_input_that_a_target_cannot_take_is_shown_as_small_as_it_is():
    def refuses(x, *others):
        if np.isnan(x).any():
            raise ValueError("NaN")
        return nx.mxfp4.encode(x, axis=0)

    found = check(refuses, "mxfp4", axis=0, whole_blocks=True, effort="quick").counterexample
    assert found.law == "runs"
    assert found.where.startswith("an input of shape (32, 1)"), str(found)


# ---- one buffer for all answers -------------------------------------------------------------------


def in_one_buffer(right):
    """A kernel that writes each of its answers into the memory of the one before, of that shape."""
    rooms = {}

    def kernel(*given):
        made = right(*given)
        parts = made if isinstance(made, tuple) else (made,)
        for place, part in enumerate(parts):
            room = rooms.setdefault((place, np.shape(part), part.dtype), np.array(part))
            room[...] = part
        kept = tuple(rooms[place, np.shape(part), part.dtype] for place, part in enumerate(parts))
        return kept if isinstance(made, tuple) else kept[0]

    return kernel


def fields(dtype, **options):
    def encode(x, *random):
        drawn = {"rounding": "stochastic", "random_bits": random[0]} if random else {}
        made = dtype.encode(x, **options, **drawn)
        parts = (made.codes, made.scale, made.microexponents)
        return tuple(np.array(part) for part in parts if part is not None)

    return encode


def decoder(dtype):
    return lambda codes, scale, micro=None: Blocks(dtype, -1, codes, scale, micro).decode()


def affine(scheme):
    def quantize(x, scale, zero_point):
        return nx.quantize(
            x, "int8", scheme=scheme, symmetric=False, scale=scale, zero_point=zero_point
        ).codes

    return quantize


def scale_alone(x, room={}):  # noqa: B006 - the fault
    """The codes are new each time, the scales are not."""
    codes, scale = fields(nx.mxfp4)(x)
    kept = room.setdefault(scale.shape, scale.copy())
    kept[...] = scale
    return codes, kept


def stochastic(x, random):
    return nx.fp8_e4m3.encode(x, rounding="stochastic", random_bits=random)


def own_draws(x, rng=np.random.default_rng(0)):  # noqa: B008 - one generator for all calls
    return stochastic(x, rng.integers(0, 1 << 30, x.shape, np.uint32))


BUFFERS = {
    "encode": (nx.fp8_e4m3.encode, "fp8_e4m3", {}),
    "decode": (nx.fp8_e4m3.decode, "fp8_e4m3", {"kind": "decode"}),
    "round": (nx.fp8_e4m3.round, "fp8_e4m3", {"kind": "round"}),
    "pack": (nx.fp6_e2m3.pack, "fp6_e2m3", {"kind": "pack"}),
    "unpack": (nx.fp6_e2m3.unpack, "fp6_e2m3", {"kind": "unpack"}),
    "affine": (affine(nx.per_tensor()), "int8", {"kind": "affine"}),
    "scales": (affine(nx.per_channel(0)), "int8", {"kind": "affine", "scheme": "per_channel(0)"}),
    "blocks": (fields(nx.mxfp4), "mxfp4", {}),
    "columns": (fields(nx.mxfp4, axis=0), "mxfp4", {"axis": 0}),
    "blocks decoded": (decoder(nx.mxfp4), "mxfp4", {"kind": "decode"}),
    "microexponents": (fields(nx.mx6), "mx6", {}),
    "random bits": (stochastic, "fp8_e4m3", {"rounding": "stochastic"}),
    "own draws": (own_draws, "fp8_e4m3", {"rounding": "stochastic", "draw": "own"}),
    "a product": (nx.linear, None, {"kind": "matmul", "a": "float32", "b": "mxfp4"}),
}


@pytest.mark.parametrize("name", BUFFERS)
def test_an_answer_that_the_next_call_overwrites_passed_a_quick_check(name):
    right, dtype, options = BUFFERS[name]
    found = check(in_one_buffer(right), dtype, effort="quick", **options)
    assert found.law == "repeatable", str(found)
    assert "a buffer that is used again" in str(found)


def test_scales_that_the_next_call_overwrites_passed():
    assert check(scale_alone, "mxfp4", effort="quick").law == "repeatable"


# ---- what is asked of it --------------------------------------------------------------------------


def test_a_time_for_a_target_of_this_process_was_passed_over():
    with pytest.raises(nx.NumericsError, match="timeout=5 is for isolated=True"):
        check(nx.fp4.encode, "fp4", timeout=5)


@pytest.mark.parametrize("draw", ["a08", "a\N{FULLWIDTH DIGIT EIGHT}", "a0", "b30", "a31", "a8 ", "A8"])
def test_bits_of_a_draw_in_another_spelling_were_taken(draw):
    with pytest.raises(nx.NumericsError, match="allowed: own, or a rule and its bits"):
        check(stochastic, "fp8_e4m3", rounding="stochastic", draw=draw)


@pytest.mark.parametrize("scheme", ["\N{FULLWIDTH DIGIT FOUR}x4", "04x4", "0x4", "per_group(9999999)"])
def test_a_scheme_that_cannot_be_asked_was_taken(scheme):
    with pytest.raises(nx.NumericsError, match="scheme"):
        check(affine(None), "int8", kind="affine", scheme=scheme)


@pytest.mark.parametrize(("rule", "said"), [("a", "rounded down"), ("b", "R + 1/2"), ("c", "half to even")])
def test_the_law_of_draws_stated_rule_a_for_every_rule(rule, said):
    found = check(
        lambda x, random: stochastic(x, random ^ 1), "fp8_e4m3", rounding="stochastic", draw=f"{rule}8"
    )
    assert found.law == "draws"
    assert said in found.counterexample.sentence
