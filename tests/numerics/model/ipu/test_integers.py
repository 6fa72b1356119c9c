"""The integer reference against ONNX Runtime, operator by operator and model by model: bits."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import numerics as nx
from numerics.formats import NumericsError
from tests.helpers.onnx_models import items, model, node, numbers, residual

X = (2, 4, 7, 6)
W = numbers(6, 4, 3, 3, spread=0.4)
HARD = node("HardSigmoid", "c", "h", alpha=1 / 6, beta=0.5)
CONV = node("Conv", "x w1", "c")
W1 = {"w1": numbers(4, 4, 1, 1, seed=3)}
EACH = {
    "pads": ([node("Conv", "x w b", "y", pads=[1, 0, 2, 1], strides=[2, 1])], {"w": W, "b": numbers(6)}),
    "dilations": ([node("Conv", "x w", "y", dilations=[2, 1])], {"w": W}),
    "groups": ([node("Conv", "x w", "y", group=2)], {"w": W[:, :2]}),
    "depthwise": ([node("Conv", "x w", "y", group=4)], {"w": W[:4, :1]}),
    "same_upper": ([node("Conv", "x w", "y", auto_pad="SAME_UPPER", strides=[2, 3])], {"w": W}),
    "same_lower": ([node("Conv", "x w", "y", auto_pad="SAME_LOWER")], {"w": W[..., :2, :2]}),
    "relu": ([CONV, node("Relu", "c", "y")], W1),
    "leaky": ([CONV, node("LeakyRelu", "c", "y", alpha=0.1)], W1),
    "clip": ([CONV, node("Clip", "c low high", "y")], {**W1, "low": np.float32(0), "high": np.float32(1.5)}),
    "matmul": ([node("MatMul", "x m", "y")], {"m": numbers(6, 5)}),
    "gemm": (
        [node("Relu", "x", "r"), node("Flatten", "r", "f"), node("Gemm", "f g b", "y", alpha=0.5)],
        {"g": numbers(168, 3, spread=0.2), "b": numbers(3)},
    ),
    "add": ([CONV, node("Add", "c x", "y")], W1),
    "sub": ([CONV, node("Sub", "c x", "s"), node("Relu", "s", "y")], W1),
    "mul": ([CONV, node("Mul", "c x", "y")], W1),
    "constants": (
        [node("Mul", "x k", "m"), node("Add", "m a", "y")],
        {"k": numbers(4, 1, 1), "a": numbers(6)},
    ),
    "max_pool": (
        [CONV, node("MaxPool", "c", "y", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 0])],
        W1,
    ),
    "mean_of_4": ([CONV, node("AveragePool", "c", "y", kernel_shape=[2, 2])], W1),
    "concat": ([CONV, node("Concat", "c x", "y", axis=2)], W1),
    "pad": ([CONV, node("Pad", "c p", "y")], {**W1, "p": np.array([0, 0, 1, 0, 0, 1, 2, 0])}),
    "slice": ([CONV, node("Slice", "c s e", "y")], {**W1, "s": np.array([0, 1]), "e": np.array([2, 3])}),
    "moves": (
        [CONV, node("Transpose", "c", "t", perm=[0, 2, 3, 1]), node("Reshape", "t to", "y")],
        {**W1, "to": np.array([2, -1])},
    ),
    "hard_swish": ([CONV, node("Sigmoid", "c", "s"), node("Mul", "c s", "y")], W1),
    "float_between": ([CONV, node("Softmax", "c", "s"), node("Conv", "s w1", "y")], W1),
}


def made(name, config="xint8", **changed):
    """One of EACH, quantized."""
    nodes, constants = EACH[name]
    options = nx.ipu.CONFIGS[config].replace(**changed)
    found = model(nodes, {"x": X}, {"y": None}, constants)
    return nx.ipu.quantize_model(found, {"x": numbers(8, *X[1:], seed=1, spread=2.0)}, options).model


FEEDS = [{"x": numbers(*X, seed=seed, spread=2.5)} for seed in range(6, 9)]


@pytest.mark.turns(6)
@pytest.mark.parametrize("optimized", [True, False])
@pytest.mark.parametrize("name", EACH)
def test_the_runtime_gives_the_predicted_integers(name, optimized):
    """And on X1 nothing differs but what lies midway."""
    found = made(name)
    for layer in nx.ipu.compare(found, FEEDS, "stx", optimized=optimized):
        assert layer.differing == 0, layer
    for layer in nx.ipu.compare(found, FEEDS, "phx", optimized=optimized):
        assert (layer.ties, layer.most) in ((layer.differing, 1), (0, 0)), layer


@pytest.mark.parametrize("name", ["pads", "leaky", "add", "gemm", "max_pool"])
@pytest.mark.parametrize("config", ["a8w8", "a16w8"])
def test_float_scales_differ_by_one_where_float32_rounds_and_nowhere_else(name, config):
    for layer in nx.ipu.compare(made(name, config), FEEDS):
        assert layer.unexplained == 0
        assert layer.most <= 1
        assert layer.differing * 100 <= layer.elements


@pytest.mark.parametrize("name", ["pads", "gemm"])
def test_a_bias_of_int8_has_its_own_position(name):
    found = made(name, bias="int8")
    assert "int8" in {str(a.dtype) for n, a in nx.ipu.Reference(found).constants.items() if "bias_quant" in n}
    assert all(layer.differing == 0 for layer in nx.ipu.compare(found, FEEDS))


def test_a_whole_network_is_predicted_from_its_inputs_alone():
    found = nx.ipu.quantize_model(residual(), items()).model
    feeds = [{"x": items(2, seed=seed)["x"]} for seed in range(3, 9)]
    for by_layer in (True, False):
        layers = nx.ipu.compare(found, feeds, by_layer=by_layer)
        assert [layer.differing for layer in layers] == [0] * len(layers)
        assert len(layers) == 9


def test_x1_and_x2_are_two_references():
    found = made("pads")
    x1, x2 = (nx.ipu.Reference(found, device).run(FEEDS[0]) for device in ("hpt", "krk"))
    (name,) = (name for name in x1.integers if name.startswith("y"))
    differ = x1.integers[name] != x2.integers[name]
    assert (differ <= x1.rounded[name].tie).all()
    assert ((x1.integers[name] - x2.integers[name])[differ] == 1).all()


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose", "Gemm"])
def test_a_layer_that_is_kept_in_float_keeps_its_weights(operator):
    """ONNX Runtime rounded them to int8, since their neighbours were quantized."""
    layer = {"Conv": node("Conv", "r w", "y"), "ConvTranspose": node("ConvTranspose", "r w", "y"),
             "Gemm": node("Gemm", "f g", "y")}[operator]  # fmt: skip
    nodes = [node("Relu", "x", "r"), node("Flatten", "r", "f"), layer, node("Relu", "y", "z")]
    constants = {"w": numbers(4, 4, 3, 3), "g": numbers(168, 3)}
    found = model(nodes, {"x": X}, {"z": None}, constants)
    options = nx.ipu.CONFIGS["xint8"].replace(keep=(operator,))
    made = nx.ipu.quantize_model(found, {"x": numbers(8, *X[1:], seed=1)}, options).model
    assert [layer.unexplained for layer in nx.ipu.compare(made, FEEDS)] == [0] * len(
        nx.ipu.compare(made, FEEDS)
    )


def test_an_accumulator_that_leaves_int32_names_the_node():
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("Conv", "d wd", "c"),
        node("DequantizeLinear", "w s w0", "wd"),
        node("QuantizeLinear", "c s z", "r"),
        node("DequantizeLinear", "r s z", "y"),
    ]
    nodes = [nodes[3], *nodes[:3], *nodes[4:]]
    constants = {
        "s": np.float32(1),
        "z": np.int16(0),
        "w0": np.int8(0),
        "w": np.full((1, 1024, 1, 1), 127, np.int8),
    }
    found = model(nodes, {"x": (1, 1024, 1, 1)}, {"y": (1, 1, 1, 1)}, constants)
    with pytest.raises(NumericsError, match=r"QuantizeLinear 'r': an accumulator of 4,2.* leaves int32"):
        nx.ipu.Reference(found).run({"x": np.full((1, 1024, 1, 1), 32767, np.float32)})


def test_files_whose_nodes_are_in_another_order_are_predicted():
    """AMD Quark writes some so; the reference asked for a tensor that was not there yet."""
    found = made("hard_swish")
    nodes = list(found.graph.node)
    del found.graph.node[:]
    found.graph.node.extend(reversed(nodes))
    assert all(layer.differing == 0 for layer in nx.ipu.compare(found, FEEDS[:1]))
    found.graph.node[0].input[0] = "nothing"
    with pytest.raises(NumericsError, match="takes what nothing makes"):
        nx.ipu.Reference(found)


LOW, HIGH = np.float32(-np.inf), np.float32(np.inf)
AWKWARD = {
    "gemm_of_two_computed": (
        [node("Flatten", "x", "f"), node("Gemm", "f g", "a"), node("Gemm", "f h", "b"),
         node("Gemm", "a b", "t", transA=1, alpha=0.5), node("Relu", "t", "y")],
        {"g": numbers(168, 3, spread=0.1), "h": numbers(168, 3, seed=1, spread=0.1)},
    ),
    "gemm_of_a_computed_bias": (
        [node("Flatten", "x", "f"), node("Gemm", "f g", "a"), node("Gemm", "a h a", "t", beta=0.25),
         node("Relu", "t", "y")],
        {"g": numbers(168, 3, spread=0.1), "h": numbers(3, 3, seed=1)},
    ),
    "conv_of_computed_weights": (
        [CONV, node("Relu", "x", "v"), node("Conv", "c v b", "t"), node("Relu", "t", "y")],
        {**W1, "b": numbers(2)},
    ),
    "another_hard_sigmoid": ([CONV, node("HardSigmoid", "c", "t"), node("Relu", "t", "y")], W1),
    "mean_at_the_edge": (
        [CONV, node("AveragePool", "c", "t", kernel_shape=[3, 3], pads=[1] * 4), node("Relu", "t", "y")],
        W1,
    ),
    "mean_with_automatic_pads": (
        [CONV, node("AveragePool", "c", "t", kernel_shape=[3, 3], auto_pad="SAME_UPPER"),
         node("Relu", "t", "y")],
        W1,
    ),
    "mean_of_a_part": (
        [CONV, node("AveragePool", "c", "t", kernel_shape=[3, 3], strides=[3, 3], ceil_mode=1),
         node("Relu", "t", "y")],
        W1,
    ),
    "padded_with_one": (
        [CONV, node("Pad", "c p v", "t"), node("Relu", "t", "y")],
        {**W1, "p": np.array([0, 0, 1, 0, 0, 1, 2, 0]), "v": np.float32(1)},
    ),
    "bounds_that_bound_nothing": (
        [CONV, node("Clip", "c low high", "y")], {**W1, "low": LOW, "high": HIGH},
    ),
    "one_bound": ([CONV, node("Clip", "c low high", "y")], {**W1, "low": np.float32(0), "high": HIGH}),
    "bounds_between": (
        [CONV, node("Clip", "c low high", "y")], {**W1, "low": np.float32(-0.3), "high": np.float32(0.7)},
    ),
    "a_bound_of_nan": (
        [CONV, node("Clip", "c low", "t"), node("Conv", "x w1", "y")], {**W1, "low": np.float32(np.nan)},
    ),
    "a_fine_slope": ([CONV, node("LeakyRelu", "c", "y", alpha=0.1)], W1),
    "softmax_of_rows": (
        [CONV, node("Softmax", "c", "s"), node("MatMul", "s m", "y")], {**W1, "m": numbers(6, 5)},
    ),
    "a_mask": (
        [CONV, node("Greater", "c k", "g"), node("Cast", "g", "m", to=1), node("Mul", "c m", "y")],
        {**W1, "k": np.float32(-100)},
    ),
}  # fmt: skip


@pytest.mark.turns(6)
@pytest.mark.parametrize("device", ["stx", "phx"])
@pytest.mark.parametrize("config", ["xint8", "a8w8", "a16w8"])
@pytest.mark.parametrize("name", AWKWARD)
def test_what_stays_in_float_is_not_predicted_as_integers(name, config, device):
    nodes, constants = AWKWARD[name]
    x = numbers(8, *X[1:], seed=5)
    found = nx.ipu.quantize_model(model(nodes, {"x": X}, {"y": None}, constants), {"x": x}, config, device)
    batches = [{"x": x[k : k + 2]} for k in range(0, 8, 2)]
    for optimized in (True, False):
        layers = nx.ipu.compare(found.model, batches, device, optimized=optimized)
        assert not any(layer.unexplained for layer in layers), [each for each in layers if each.unexplained]


def test_what_draws_numbers_is_not_predicted():
    nodes = [CONV, node("Dropout", "c r t", "d"), node("Relu", "d", "y")]
    constants = {**W1, "r": np.float32(0.5), "t": np.array(True)}
    found = nx.ipu.quantize_model(model(nodes, {"x": X}, {"y": None}, constants), {"x": numbers(*X)})
    assert "Dropout" in [each.op_type for each in found.model.graph.node]
    with pytest.raises(NumericsError, match="Dropout 'd' draws numbers"):
        nx.ipu.Reference(found.model)


OLD = {
    "softmax": (node("Softmax", "d", "f"), (10, 11, 12), (2, 3, 4)),
    "softmax of all axes": (node("Softmax", "d", "f", axis=0), (10, 11, 12), (2, 3, 4)),
    "softmax of the last": (node("Softmax", "d", "f", axis=-1), (10, 11, 12), (2, 3, 4)),
    "clip": (node("Clip", "d", "f", min=-0.1, max=0.3), (10,), (2, 3, 4)),
    "pad": (node("Pad", "d", "f", pads=[0, 0, 1, 0, 0, 1], value=0.5), (10,), (2, 3, 4)),
    "pad with zeros": (node("Pad", "d", "f", pads=[0, 0, 1, 0, 0, 1]), (10,), (2, 3, 4)),
    "resize": (node("Resize", "d to", "f", mode="linear"), (10,), (1, 1, 3, 4)),
    "nearest": (node("Resize", "d to", "f", mode="nearest"), (10,), (1, 1, 5, 4)),
    "mean": (node("ReduceMean", "d", "f", axes=[2], keepdims=0), (10, 11, 12), (2, 3, 4)),
}


@pytest.mark.parametrize("optimized", [True, False])
@pytest.mark.parametrize(("name", "opset"), [(name, opset) for name in OLD for opset in OLD[name][1]])
def test_operators_of_opsets_before_13_are_predicted_as_they_were_then(name, opset, optimized):
    """quantize_static keeps a model's opset: such a Softmax was predicted along one axis, a Clip not."""
    one, _, shape = OLD[name]
    nodes = [
        *(node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "d"), one),
        *(node("QuantizeLinear", "f t z", "r"), node("DequantizeLinear", "r t z", "y")),
    ]
    weights = {"s": np.float32(0.03), "t": np.float32(1 / 127), "z": np.int8(0)}
    weights |= {"to": np.float32([1, 1, 0.6, 1.5])} if "to" in one.input else {}
    old = model(nodes, {"x": shape}, {"y": None}, weights, opset=opset)
    layers = nx.ipu.compare(old, [{"x": numbers(*shape, seed=k)} for k in range(4)], optimized=optimized)
    assert sum(layer.elements for layer in layers) > 2
    assert not any(layer.unexplained for layer in layers)


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize(
    ("scale", "zero"),
    [(1 / 255, np.uint8(0)), (1 / 255, np.int8(-128)), (0.0123, np.uint8(7)), (0.35, np.int8(0))],
)
def test_the_softmax_of_the_runtime_with_its_cut_reciprocal_is_counted_as_its_own(axis, scale, zero):
    """In files of quantize_static a tenth of its integers was unexplained."""
    nodes = [
        *(node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "d")),
        node("Softmax", "d", "f", axis=axis),
        *(node("QuantizeLinear", "f t z", "r"), node("DequantizeLinear", "r t z", "y")),
    ]
    weights = {"s": np.float32(0.03), "t": np.nextafter(np.float32(scale), np.float32(9)), "z": zero}
    net = model(nodes, {"x": (16, 6, 8)}, {"y": None}, weights)
    layers = {row.tensor: row for row in nx.ipu.compare(net, [{"x": numbers(16, 6, 8)}])}
    assert layers["r"].own > 9
    assert not any(row.unexplained for row in layers.values())
    plain = {row.tensor: row for row in nx.ipu.compare(net, [{"x": numbers(16, 6, 8)}], optimized=False)}
    assert plain["r"].own == plain["r"].unexplained == 0
