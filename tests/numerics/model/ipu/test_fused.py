"""The integers of a model as the runtime runs it: none of its fusions may hide a difference."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import numerics as nx
from numerics.model.ipu.fixed import Fixed, requantized
from numerics.model.ipu.fused import shown
from numerics.model.ipu.running import opened, run
from tests.helpers.onnx_models import model, node, numbers

X = (1, 4, 8, 8)
W = {"w": numbers(8, 4, 3, 3, spread=0.3), "v": numbers(8, 8, 1, 1, seed=2, spread=0.3), "g": numbers(8, 5)}
NETS = {
    "means": [
        node("Conv", "x w", "c", strides=[3, 3]),
        node("Relu", "c", "r"),
        node("GlobalAveragePool", "r", "p"),
        node("Conv", "p v", "d"),
        node("HardSigmoid", "d", "h", alpha=1 / 6, beta=0.5),
        node("Mul", "r h", "m"),
        node("GlobalAveragePool", "m", "q"),
        node("Flatten", "q", "f"),
        node("Gemm", "f g", "y"),
    ],
    "sums": [
        node("Conv", "x w", "c", strides=[4, 4]),
        node("Add", "c one", "a"),
        node("Transpose", "a", "t", perm=[0, 2, 3, 1]),
        node("MatMul", "t g", "y"),
    ],
}
FEEDS = [{"x": numbers(*X, seed=seed, spread=1.5)} for seed in range(20, 60)]


def quantized(name, config):
    net = model(NETS[name], {"x": X}, {"y": None}, {**W, "one": np.float32(1)})
    data = np.concatenate([feeds["x"] for feeds in FEEDS])
    made = nx.ipu.quantize_model(net, {"x": data}, config).model
    held = {each.name: each for each in made.graph.initializer}
    for mean, of in (("p_scale", "r_scale"), ("q_scale", "m_scale")):
        if mean in held:  # means in steps of what they average are midway often
            held[mean].raw_data = held[of].raw_data
    return made


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("config", ["xint8", "a8w8", "a16w8"])
def test_outputs_follow_from_the_integers_that_are_shown(name, config):
    """Outputs beside integers of another graph differed by many steps, and nothing explained it."""
    layers = nx.ipu.compare(quantized(name, config), FEEDS)
    assert [layer for layer in layers if layer.unexplained or layer.ties] == []
    (y,) = [layer for layer in layers if layer.tensor == "y"]
    assert y.elements
    assert y.differing == 0


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("config", ["xint8", "a8w8", "a16w8"])
def test_the_graph_that_shows_integers_is_the_one_that_runs(name, config):
    made = quantized(name, config)
    reference = nx.ipu.Reference(made)
    seen, plain = shown(made, reference.constants, reference.zeros, True), opened(made)
    for feeds in FEEDS:
        outputs, integers = seen.run(feeds)
        assert np.array_equal(outputs["y"], run(plain, feeds)["y"])
        due = reference.run(feeds, integers).integers
        for name, came in integers.items():
            assert (came.dtype, came.shape) == (due[name].dtype, due[name].shape)
    assert len(integers) >= len(reference.zeros) - 2  # of a Flatten or Transpose nothing is left


def test_midway_by_scales_that_are_no_powers_of_two_is_near_and_no_tie():
    """127 steps of 1/127 and an odd number of them, in steps of 2/127: float32 rounds these either way."""
    net = model([node("Add", "x one", "y")], {"x": (1, 255)}, {"y": None}, {"one": np.float32(1)})
    x = np.arange(-127, 128, dtype=np.float32)[None] / 127
    made = nx.ipu.quantize_model(net, {"x": x}, "a8w8").model
    near = ties = 0
    for device in "stx", "phx":
        for layer in nx.ipu.compare(made, [{"x": x}], device, optimized=False):
            assert (layer.unexplained, layer.wide) == (0, 0)
            near, ties = near + layer.near, ties + layer.ties
            assert layer.ties == 0 or device == "phx"
    assert near
    assert ties


def test_midway_by_powers_of_two_is_exact_in_float32_and_explains_nothing():
    tie = Fixed(np.array([1, 3, 4]), Fraction(1))
    found = requantized(tie, Fraction(2), "conv_even", (-128, 127))
    assert (found.tie.tolist(), found.near.tolist()) == ([True, True, False], [False] * 3)
    tenths = Fraction(float(np.float32(0.1)))
    found = requantized(Fixed(tie.q, tenths), 2 * tenths, "conv_even", (-128, 127))
    assert (found.tie.tolist(), found.near.tolist()) == ([True, True, False], [True, True, False])
