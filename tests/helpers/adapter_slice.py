"""A slice of what adapters must equal: calls of hosts, and ours of the same, which need no host.

The numbers are ordinary ones, of which adapters ask their hosts nothing.  What the hosts answer is in
tests/data/adapters.json, as digests; `python -m tests.adapters.record` writes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

Call = Callable[[], Any]
ROWS, ROW = 48, 64


def numbers() -> Tensor:
    """Rows of float32 with a magnitude each, by integer arithmetic: the same on every machine."""
    k = np.arange(1, ROWS * ROW + 1, dtype=np.uint64) * np.uint64(2654435761) & np.uint64(0xFFFFFFFF)
    spread = (k.astype(np.float64) / 2**31 - 1).astype(np.float32).reshape(ROWS, ROW)
    return torch.from_numpy(np.ldexp(spread, (np.arange(ROWS) % 16 - 8)[:, None]).astype(np.float32))


def digest(answer: Any) -> str:
    """Type, shape and bytes of tensors, as one text."""
    found = hashlib.sha256()
    for one in answer if isinstance(answer, tuple) else (answer,):
        found.update(f"{one.dtype} {tuple(one.shape)}".encode())
        found.update(
            torch.empty(one.numel(), dtype=one.dtype)
            .copy_(one.reshape(-1))
            .view(torch.uint8)
            .numpy()
            .tobytes()
        )
    return found.hexdigest()[:32]


X = numbers()
COLUMN = X.view(-1, 1)  # whose blocks along its first axis follow one another in memory
STEP = X.abs().amax(-1) / 127
ZERO = torch.zeros(ROWS, dtype=torch.int32)
MOVED = torch.arange(ROWS, dtype=torch.int32) % 9 - 4
ELEMENTS = {"fp4": torch.float4_e2m1fn_x2, "fp6_e2m3": "fp6_e2m3", "fp8_e4m3": torch.float8_e4m3fn}
CODES = (torch.arange(ROWS * ROW, dtype=torch.int32) % 256 - 128).view(ROWS, ROW)
TQT = torch.tensor([1.0]), torch.zeros(1, dtype=torch.int32), torch.tensor([128.0]), 8
LSQ = STEP * 0.7, MOVED, 0.01, -128, 127, 0, 8
RULES = ("FLOOR", "EVEN", "CEIL")


def trained(function: Any, scale: Tensor, *given: Any) -> tuple[Tensor, ...]:
    """What a function makes of X and a scale, and the gradients of both."""
    x, scale = X.clone().requires_grad_(), scale.clone().requires_grad_()
    made = function(x, scale, *given)
    return (made.detach(), *torch.autograd.grad(made, (x, scale), X.flip(0)))


def of_tensor(kind: Any, block: int, *given: int) -> Tensor:
    """What one of ModelOpt's own tensors makes of X, as values; of -0 NVFP4's makes 0."""
    made, *scales = kind.quantize(X, *given)
    named = dict(zip(("scale", "double_scale"), scales, strict=False))
    found: Tensor = made.dequantize(dtype=X.dtype, **named, block_sizes={-1: block})
    return found + 0.0


def stock() -> dict[str, Call]:
    """The hosts' own answers; needs all of them."""
    import mx.elemwise_ops as elements
    import mx.mx_ops as blocks
    from modelopt.torch.quantization import qtensor, tensor_quant
    from quark.torch import kernel
    from torchao.prototype.mx_formats import kernels, mx_tensor
    from torchao.quantization import quant_primitives as primitives

    modes = mx_tensor.ScaleCalculationMode
    by_channel = "int8", X, STEP
    ends = 0, 0, -128.0, 127.0, 8, "per_channel", ""
    return {
        **{f"torchao to_mx {n} {r}": lambda d=d, r=r: mx_tensor.to_mx(X, d, 32, modes[r])
           for n, d in ELEMENTS.items() for r in RULES},
        "torchao quantize": lambda: primitives.quantize_affine(X, (1, ROW), STEP, ZERO, torch.int8),
        "torchao quantize moved": lambda: primitives.quantize_affine(X, (1, ROW), STEP, MOVED, torch.int8),
        **{f"torchao scales {m.name}": lambda m=m: primitives.choose_qparams_affine(X, m, (1, 32), torch.int8)
           for m in (primitives.MappingType.SYMMETRIC, primitives.MappingType.ASYMMETRIC)},
        "torchao f32_to_f4": lambda: kernels.f32_to_f4_unpacked(X),
        **{f"quark mx {e}": lambda e=e: kernel.non_scaled_fake_quantize(X, "mx", e, -1, 32)
           for e in ("fp4", "fp8_e4m3", "int8")},
        **{f"quark {m}": lambda m=m: kernel.non_scaled_fake_quantize(X, m, "", -1, 16)
           for m in ("mx6", "mx9")},
        "quark int8": lambda: kernel.scaled_fake_quantize(*by_channel, ZERO, *ends),
        "quark int8 moved": lambda: kernel.scaled_fake_quantize(*by_channel, MOVED, *ends),
        "quark int8 back": lambda: kernel.dequantize(
            "int8", CODES, STEP, MOVED, 0, 0, "per_channel"),
        "quark tqt": lambda: trained(kernel.tqt_quantize, *TQT),
        "quark lsq": lambda: trained(kernel.lsq_quantize, *LSQ),
        **{f"microxcaling fp4 {r}": lambda r=r: elements._quantize_elemwise(
            X, "fp4_e2m1", round=r, saturate_normals=True) for r in ("nearest", "even")},
        **{f"microxcaling mx int8 {r}": lambda r=r: blocks._quantize_mx(
            X, 8, "int8", axes=[-1], block_size=32, round=r) for r in ("nearest", "even")},
        **{f"microxcaling mx column {r}": lambda r=r: blocks._quantize_mx(
            COLUMN, 8, "fp8_e4m3", axes=[0], block_size=32, round=r) for r in ("nearest", "even")},
        "modelopt fp8": lambda: tensor_quant.fp8_eager(X, STEP[:, None] * 127),
        "modelopt int8": lambda: tensor_quant._tensor_quant(X, STEP[:, None] * 127, 8, False, True),
        "modelopt mxfp4": lambda: of_tensor(qtensor.MXFP4QTensor, 32, 32),
        "modelopt mxfp8": lambda: of_tensor(qtensor.MXFP8QTensor, 32),
        "modelopt nvfp4": lambda: of_tensor(qtensor.NVFP4QTensor, 16, 16),
    }  # fmt: skip


def refuses(*_: Any, **__: Any) -> Any:
    """Stands for a host that must not be asked."""
    raise AssertionError("an adapter asked its host of ordinary numbers")


def exact_exponents(top: Tensor, correct: bool) -> Tensor:
    """floor(log2 amax) of ordinary numbers, which microxcaling's logarithm gives too."""
    return torch.frexp(top).exponent.float() - 1


def ours() -> dict[str, Call]:
    """The same by our kernels, without a host."""
    from numerics.adapters import microxcaling, modelopt, quark, quark_trained, torchao, torchao_scales
    from numerics.adapters.base import Calls

    made = {n: m(refuses, False) for table in torchao.FUNCTIONS.values() for n, m in table.items()}
    choose = torchao_scales.of_tensors(refuses, True)  # by default torchao itself is asked, of ends
    unscaled, scaled = quark._unscaled(refuses, False), quark._scaled(False)
    ours_trained = {
        name: quark_trained.trained(name, refuses, getattr(quark_trained, name)(False), Calls())
        for name in ("tqt", "lsq")
    }
    by_channel = "int8", X, STEP
    ends = 0, 0, -128.0, 127.0, 8, "per_channel", ""
    mx, top = microxcaling.Functions(False, Calls()), X.view(ROWS, -1, 32).abs().amax(-1, keepdim=True)
    rounds, column = {"nearest": 0, "even": 2}, COLUMN.view(-1, 32, 1)
    affine, in_blocks = made["quantize_affine"], modelopt._dynamic
    return {
        **{f"torchao to_mx {n} {r}": lambda d=d, r=r: made["to_mx"](X, d, 32, SimpleNamespace(name=r))
           for n, d in ELEMENTS.items() for r in RULES},
        "torchao quantize": lambda: affine(X, (1, ROW), STEP, ZERO, torch.int8),
        "torchao quantize moved": lambda: affine(X, (1, ROW), STEP, MOVED, torch.int8),
        **{f"torchao scales {m}": lambda m=m: choose(
            X, SimpleNamespace(name=m), (1, 32), torch.int8) for m in ("SYMMETRIC", "ASYMMETRIC")},
        "torchao f32_to_f4": lambda: made["f32_to_f4_unpacked"](X),
        **{f"quark mx {e}": lambda e=e: unscaled(X, "mx", e, -1, 32) for e in ("fp4", "fp8_e4m3", "int8")},
        **{f"quark {m}": lambda m=m: unscaled(X, m, "", -1, 16) for m in ("mx6", "mx9")},
        "quark int8": lambda: scaled(*by_channel, ZERO, *ends),
        "quark int8 moved": lambda: scaled(*by_channel, MOVED, *ends),
        "quark int8 back": lambda: quark._dequantize(
            "int8", CODES, STEP, MOVED, 0, 0, "per_channel"),
        "quark tqt": lambda: trained(ours_trained["tqt"].apply, *TQT),
        "quark lsq": lambda: trained(ours_trained["lsq"].apply, *LSQ),
        **{f"microxcaling fp4 {r}": lambda c=c: mx.quantize_elemwise_func_cpp(X, 3, 2, 6.0, c, True, True)
           for r, c in rounds.items()},
        **{f"microxcaling mx int8 {r}": lambda c=c: mx.quantize_mx_func_cpp(
            X.view(ROWS, -1, 32), 8, 0, 8, 127 / 64, top, 2, False, c).view(ROWS, ROW)
           for r, c in rounds.items()},
        **{f"microxcaling mx column {r}": lambda c=c: mx.quantize_mx_func_cpp(
            column, 8, 4, 5, 448.0, column.abs().amax(1, keepdim=True), 1, False, c).view(-1, 1)
           for r, c in rounds.items()},
        "modelopt fp8": lambda: modelopt._fp8(refuses, False)(X, STEP[:, None] * 127),
        "modelopt int8": lambda: modelopt._integers(refuses, False)(X, STEP[:, None] * 127, 8, False, True),
        "modelopt mxfp4": lambda: in_blocks(X, 32, None, 4, 2, 9, 8) + 0.0,
        "modelopt mxfp8": lambda: in_blocks(X, 32, None, 8, 4, 9, 8) + 0.0,
        "modelopt nvfp4": lambda: in_blocks(X, 16, X.abs().amax(), 4, 2, 8, 4) + 0.0,
    }  # fmt: skip
