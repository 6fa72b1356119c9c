"""Every fault that docs/adapters.md lists: the host's answer by default, the standard's with correct=True."""

from __future__ import annotations

import importlib
import math

import pytest

pytest.importorskip("torch")
import torch

from tests.adapters.hosts import asked

pytestmark = pytest.mark.filterwarnings("ignore")
INF, NAN = math.inf, math.nan


def block(first, rest=0.0, size=32, kind=torch.float32):
    """A block with a number in front."""
    return torch.tensor([[first, *[rest] * (size - 1)]], dtype=kind)


def to_mx(x, mode):
    module = importlib.import_module("torchao.prototype.mx_formats.mx_tensor")
    scale, codes = module.to_mx(x, torch.float4_e2m1fn_x2, 32, module.ScaleCalculationMode[mode])
    return float(scale.view(torch.uint8)), float(codes.view(torch.uint8)[0, 0] & 7)


def primitives():
    return importlib.import_module("torchao.quantization.quant_primitives")


def chosen(x):
    found = primitives().choose_qparams_affine(
        x, primitives().MappingType.ASYMMETRIC, (1, x.shape[1]), torch.int8)  # fmt: skip
    return tuple(float(one) for one in found)


def f4(x):
    kernels = importlib.import_module("torchao.prototype.mx_formats.kernels")
    return float(kernels.f4_unpacked_to_f32(kernels.f32_to_f4_unpacked(torch.tensor([x]))))


def affine(x, scale):
    given = (
        torch.tensor([[x, x]]),
        (1, 2),
        torch.tensor([scale]),
        torch.zeros(1, dtype=torch.int32),
        torch.int8,
    )
    return float(primitives().quantize_affine(*given)[0, 0])


def cast_to_fp4(x):
    utils = importlib.import_module("compressed_tensors.quantization.utils.fp4_utils")
    return float(utils.cast_to_fp4(torch.tensor([x])))


def ct_integer(x):
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle import forward

    args = QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="channel")
    return float(forward.fake_quantize(torch.tensor([[x]]), torch.ones(1, 1), None, args))


def elemwise(x, name, saturate=True, rounding="even"):
    module = importlib.import_module("mx.elemwise_ops")
    more = {"round": rounding, "saturate_normals": saturate, "custom_cuda": True}
    return float(module._quantize_elemwise(torch.tensor([x]), name, **more)[0])


def mx_block(x):
    module = importlib.import_module("mx.mx_ops")
    more = {"axes": [-1], "block_size": 32, "round": "even", "custom_cuda": True}
    return float(module._quantize_mx(block(x), 8, "fp4_e2m1", **more)[0, 0])


def quark(x, *given):
    return tuple(
        importlib.import_module("quark.torch.kernel").non_scaled_fake_quantize(x, *given)[0, :2].tolist()
    )


def quark_fp4(x, scale, real=False):
    given = torch.full((1, 16), x), torch.full((1, 1), scale), torch.zeros(1, 1, dtype=torch.int32)
    kernel = importlib.import_module("quark.torch.kernel")
    how = -1, 16, -6.0, 6.0, 8, "per_group"
    if real:
        return float(kernel.scaled_real_quantize("fp4", *given, *how)[0, 0])
    return float(kernel.scaled_fake_quantize("fp4", *given, *how, "")[0, 0])


def quark_int(x, scale):
    given = torch.tensor([[x]]), torch.tensor([scale]), torch.zeros(1, dtype=torch.int32)
    kernel = importlib.import_module("quark.torch.kernel")
    return float(kernel.scaled_fake_quantize("int8", *given, 0, 0, -128.0, 127.0, 8, "per_channel", ""))


def lsq(x, scale):
    kernel = importlib.import_module("quark.torch.kernel")
    given = torch.tensor([[x]]), torch.tensor([scale]), torch.zeros(1), 1.0, -128, 127, 0, 8
    return float(kernel.lsq_quantize(*given))


def tqt(x, log_threshold, domain):
    kernel = importlib.import_module("quark.torch.kernel")
    x, threshold = (torch.tensor([one], requires_grad=True) for one in (x, log_threshold))
    none = torch.zeros(1, dtype=torch.int32)
    made = kernel.tqt_quantize(x, threshold, none, torch.tensor([domain]), 8)
    made.backward(torch.ones(1))
    return float(made), float(threshold.grad.sign())


def beside_a_tie():
    """A number and a scale of which x / scale and x * (1 / scale) round to neighbours."""
    scale = torch.arange(1, 4097).float() * 0.0123
    x = scale * 2.5
    moved = torch.round(x / scale) != torch.round(x * (1.0 / scale))
    at = int(moved.nonzero()[0])
    return float(x[at]), float(scale[at])


def rounded(pair):
    """The codes, by the quotient and by the product with the reciprocal."""
    x, scale = (torch.tensor(one) for one in pair)
    return float(torch.round(x * (1.0 / scale))), float(torch.round(x / scale))


def channels(axis):
    """The shape of four integers by channel of their one axis."""
    kernel = importlib.import_module("quark.torch.kernel")
    given = torch.ones(4), torch.ones(4), torch.zeros(4, dtype=torch.int32), axis, 0, -128.0, 127.0, 8
    return tuple(map(float, kernel.scaled_fake_quantize("int8", *given, "per_channel", "").shape))


PAIR = beside_a_tie()
THEIRS, OURS = rounded(PAIR)
STEP = torch.tensor(PAIR[1])
TOP = float(torch.nextafter(torch.tensor(2.0**101), torch.tensor(0.0)))
CASES = {
    "torchao reciprocal": ("torchao", lambda: affine(*PAIR), THEIRS, OURS),
    "torchao inf": ("torchao", lambda: to_mx(block(INF), "FLOOR"), (253.0, 7.0), (255.0, None)),
    "torchao rceil": ("torchao", lambda: to_mx(block(6144.00048828125), "RCEIL")[0], 137.0, 138.0),
    "torchao subnormals": ("torchao", lambda: to_mx(block(2.0**-127), "FLOOR"), (0.0, 1.0), (0.0, 2.0)),
    "torchao nan": ("torchao", lambda: f4(NAN), 1.5, 6.0),
    "torchao overflow": (
        "torchao", lambda: chosen(block(-40000.0, 40000.0, 2, torch.float16)), (INF, -128.0), (313.75, -1.0)
    ),
    "quark overflow": ("quark", lambda: quark_fp4(1e30, 2.0**-30), INF, 6 * 2.0**-30),
    "quark real overflow": ("quark", lambda: quark_fp4(-1e30, 2.0**-30, real=True), -INF, -6.0),
    "compressed-tensors zero": ("compressed_tensors", lambda: cast_to_fp4(-0.0), 0.0, -0.0),
    "compressed-tensors integer": ("compressed_tensors", lambda: ct_integer(-0.2), -0.0, 0.0),
    "microxcaling half": ("microxcaling", lambda: elemwise(0.24999998509883880615, "fp4_e2m1"), 0.5, 0.0),
    "microxcaling log2": ("microxcaling", lambda: mx_block(7.99999952316284), 8.0, 6.0),
    "microxcaling zero": ("microxcaling", lambda: elemwise(-0.0, "fp4_e2m1"), 0.0, -0.0),
    "microxcaling overflow": (
        "microxcaling", lambda: elemwise(464.0, "fp8_e4m3", False, "nearest"), INF, NAN
    ),
    "quark zero": ("quark", lambda: quark(block(-0.1, 6.0), "mx", "fp4", -1, 32)[0], 0.0, -0.0),
    "quark inf": ("quark", lambda: quark(block(INF, 1.0), "mx", "fp4", -1, 32), (INF, 0.0), (NAN, NAN)),
    "quark mx6": ("quark", lambda: quark(block(INF, 1.0, 16), "mx6", "", -1, 16), (INF, 1.0), (NAN, NAN)),
    "quark floor": (
        "quark", lambda: quark(block(TOP), "mx", "fp4", -1, 32, "floor")[0], 2.0**101, 6 * 2.0**98
    ),
    "quark reciprocal": ("quark", lambda: quark_int(*PAIR), float(THEIRS * STEP), float(OURS * STEP)),
    "quark channels from behind": ("quark", lambda: channels(-1), (4.0, 4.0), (4.0,)),
    "quark lsq reciprocal": ("quark", lambda: lsq(*PAIR), float(THEIRS * STEP), float(OURS * STEP)),
    "quark tqt tie": ("quark", lambda: tqt(-0.75, 0.0, 2.0), (-1.0, 1.0), (-1.0, -1.0)),
    "quark tqt nan": ("quark", lambda: tqt(NAN, 7.0, 128.0)[0], -128.0, 0.0),
}  # fmt: skip


def same(expected, found):
    """Are they equal, with the signs of zeros?  None stands for anything."""
    if isinstance(expected, tuple):
        return all(map(same, expected, found))
    return expected is None or repr(expected) == repr(found)


@pytest.mark.parametrize("case", CASES)
def test_a_fault_is_kept_by_default_and_mended_where_asked(case):
    host, call, theirs, standard = CASES[case]
    adapter = asked(host)
    for correct, expected in ((False, theirs), (True, standard)):
        with adapter.substituted(correct=correct):
            found = call()
        assert same(expected, found), f"correct={correct}: {found}, not {expected}"
