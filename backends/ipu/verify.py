"""Known-answer networks for owners of an NPU: which rounding does this runtime show?

Two quantized convolutions, since VitisAI places no single operation; the second one's requantization
divides accumulators by a power of two, every tie among them.  What comes out is compared with every
rounding mode of AIE-ML (srs.py).  We have run this on ONNX Runtime's CPU provider only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from numerics.backends.array import primitives
from numerics.backends.bind import PRIMITIVES, bind
from numerics.backends.ipu import srs
from numerics.backends.ipu.devices import device as find_device
from numerics.backends.ipu.session import session
from numerics.formats.arguments import keywords

CHANNELS = 16
SHIFTS = (1, 2, 3, 4)
_bound = bind({name: getattr(primitives, name) for name in PRIMITIVES}, sources=(srs,))


def network(shift: int) -> ModelProto:
    """NCHW float32 in and out: a convolution that changes nothing, then one by 7 with steps of 2**shift.

    Weights 1 and 7 on the diagonal; scales 1, so the input's integers are its values.
    """
    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, array: NDArray[Any]) -> str:
        constants.append(numpy_helper.from_array(array, name))
        return name

    def quantized(name: str, x: str, scale: str) -> str:
        nodes.append(helper.make_node("QuantizeLinear", [x, scale, "zero"], [f"{name}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", scale, "zero"], [name]))
        return name

    constant("zero", np.array(0, np.int8))
    one = constant("one", np.array(1, np.float32))
    step = constant("step", np.array(2.0**shift, np.float32))
    value = quantized("x_value", "x", one)
    for name, weight, scale in (("first", 1, one), ("second", 7, step)):
        diagonal = (weight * np.eye(CHANNELS, dtype=np.int8)).reshape(CHANNELS, CHANNELS, 1, 1)
        constant(f"{name}_weight", diagonal)
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_weight", one, "zero"], [f"{name}_w"]))
        nodes.append(helper.make_node("Conv", [value, f"{name}_w"], [f"{name}_sum"]))
        value = quantized(f"{name}_value", f"{name}_sum", scale)
    nodes.append(helper.make_node("Identity", [value], ["y"]))
    shape = [1, CHANNELS, 16, 16]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph(nodes, f"requantize_by_{shift}", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def known_inputs() -> NDArray[np.float32]:
    """Every int8 value that the first convolution keeps, in every channel."""
    values = np.resize(np.arange(-128, 128, dtype=np.float32), CHANNELS * 256)
    return values.reshape(1, CHANNELS, 16, 16)


def expected(shift: int, mode: str) -> NDArray[np.float32]:
    """What a device of that rounding mode gives."""
    accumulators = 7 * known_inputs().astype(np.int32)
    integers: NDArray[np.int32] = _bound.srs(accumulators, shift, mode, srs.INT8_LOW, srs.INT8_HIGH)
    return integers.astype(np.float32) * np.float32(2.0**shift)


@keywords
def verify(device: str = "stx", *, require_npu: bool = False, **options: Any) -> dict[str, Any]:
    """A verdict: what this runtime shows, and whether it is what the device should show.

    require_npu, options: as for `session`.  Returns providers, the modes that every output agrees with,
    the mode that the device is documented to have, `agrees`, and for every mode the share of outputs
    that differ.  It does not say where the network ran: the provider's own report does.

    >>> sorted(verify("stx"))[:3]
    ['agrees', 'device', 'differing']
    """
    profile = find_device(device)
    differing: dict[str, int] = dict.fromkeys(srs.MODES, 0)
    providers: tuple[str, ...] = ()
    for shift in SHIFTS:
        opened = session(network(shift), require_npu=require_npu, device=device, **options)
        providers = opened.providers
        came = opened.run({"x": known_inputs()})["y"]
        for mode in differing:
            differing[mode] += int((came != expected(shift, mode)).sum())
    return {
        "device": device,
        "target": profile.target,
        "onnxruntime": onnxruntime.__version__,
        "providers": list(providers),
        "documented_mode": profile.mode,
        "shown_modes": [mode for mode, count in differing.items() if count == 0],
        "agrees": differing[profile.mode] == 0,
        "outputs": len(SHIFTS) * known_inputs().size,
        "differing": differing,
        "note": "an active provider takes the nodes it wants; where these ran, only its own report says",
    }
