"""Exported operations of any rank, with open sizes: the same bits as flat, checked by ONNX and run."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime

import numerics as nx
from numerics.formats import NumericsError
from tests.helpers.bits import assert_same_bits

SHAPES = [(32,), ("n", 32), (2, "rows", 3, 64), (2, 1, "a", 2, "b")]


def run(model, **feeds):
    onnx.checker.check_model(model, full_check=True)
    opened = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return opened.run(None, feeds)


def numbers(shape):
    """Numbers of a shape whose open sizes are 32."""
    sizes = [size if isinstance(size, int) else 32 for size in shape]
    return np.random.default_rng(0).standard_normal(sizes).astype(np.float32)


@pytest.mark.parametrize("shape", [(), *SHAPES], ids=str)
@pytest.mark.parametrize("dtype", ["fp8_e4m3", "fp6_e2m3", "int4"])
def test_elements_of_any_rank(dtype, shape):
    d, x = nx.dtype(dtype), numbers(shape)
    for profile in ("bits", "portable"):
        assert_same_bits(
            run(nx.ipu.export(dtype, "round", profile, shape=shape), x=x)[0], np.asarray(d.round(x))
        )
    (codes,) = run(nx.ipu.export(dtype, "encode", shape=shape), x=x)
    assert_same_bits(codes, np.asarray(d.encode(x)))
    assert_same_bits(
        run(nx.ipu.export(dtype, "decode", shape=shape), codes=codes)[0], np.asarray(d.decode(codes))
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["mxfp4", "mx6", "nvfp4"])
def test_blocks_of_any_rank(dtype, shape):
    d, x = nx.dtype(dtype), numbers(shape)
    options = {"tensor_scale": 0.5} if dtype == "nvfp4" else {}
    due = d.encode(x, **options)
    fields = [f for f in (due.codes, due.scale, due.microexponents) if f is not None]
    came = run(nx.ipu.export(dtype, "encode", shape=shape, **options), x=x)
    for one, other in itertools.zip_longest(came, fields):
        assert_same_bits(one, other)
    feeds = dict(zip(("codes", "scale", "microexponents"), fields, strict=False))
    assert_same_bits(run(nx.ipu.export(dtype, "decode", shape=shape, **options), **feeds)[0], d.decode(due))
    assert_same_bits(
        run(nx.ipu.export(dtype, "round", shape=shape, **options), x=x)[0], d.round(x, **options)
    )


def test_the_npus_forms_have_any_rank():
    x = numbers((2, 3, 4, 5))
    for dtype in ("int8", "bfloat16"):
        flat = run(nx.ipu.export(dtype, profile="npu"), x=x.ravel())[0]
        deep = run(nx.ipu.export(dtype, profile="npu", shape=(2, "c", 4, 5)), x=x)[0]
        assert_same_bits(deep.ravel(), flat)


def test_quarks_operators_lie_along_the_last_axis():
    model = nx.ipu.export("mx6", profile="npu", shape=("n", 3, 5, 32))
    (axis,) = (a.i for node in model.graph.node for a in node.attribute if a.name == "axis")
    assert axis == 3


def test_accumulators_of_any_rank_are_requantized():
    acc = np.arange(-12, 12, dtype=np.int32).reshape(2, 3, 4)
    model = nx.ipu.export("int8", "requantize", shift=2, device="phx", shape=(2, "c", 4))
    assert (run(model, accumulator=acc)[0] == np.floor(acc / 4 + 0.5)).all()


def test_open_sizes_keep_their_names():
    model = nx.ipu.export("mxfp4", "encode", shape=("batch", "width"))
    dims = [[d.dim_param for d in value.type.tensor_type.shape.dim] for value in model.graph.output]
    assert dims == [["batch", "width"], ["batch", "width_blocks"]]


@pytest.mark.parametrize(
    ("dtype", "op", "shape", "said"),
    [
        ("fp4", "round", "n", "shape is 'n'; allowed: sizes and names"),
        ("fp4", "round", 3, "shape is 3"),
        ("fp4", "round", (0,), "shape has 0"),
        ("fp4", "round", (True,), "shape has True"),
        ("fp4", "round", ("a b",), "shape has 'a b'"),
        ("mxfp4", "round", (2, 33), "the last axis has 33, which is no multiple of the block of 32"),
        ("mxfp4", "round", (), "blocks lie along the last axis"),
        ("fp4", "pack", (2,), "a string of bits is flat"),
    ],
)
def test_what_is_no_shape_is_refused(dtype, op, shape, said):
    with pytest.raises(NumericsError, match=said):
        nx.ipu.export(dtype, op, shape=shape)
