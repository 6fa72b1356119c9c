"""AMD Quark: MX in three rules, mx6, mx9, bfp16, and everything with a scale in three schemes.

Of float16 and bfloat16 by channel fp4 and fp6 are left out: Quark's kernel takes their memory for float32 and
writes beyond its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
from quark.torch import kernel

from tests.adapters.hard import rows

ELEMENTS = ("fp8_e4m3", "fp8_e5m2", "fp6_e3m2", "fp6_e2m3", "fp4", "int8")
RANGES = {"int8": (-128.0, 127.0), "uint8": (0.0, 255.0), "int4": (-8.0, 7.0), "uint4": (0.0, 15.0),
          "fp8_e4m3": (-448.0, 448.0), "fp8_e5m2": (-57344.0, 57344.0), "fp6_e3m2": (-28.0, 28.0),
          "fp6_e2m3": (-7.5, 7.5), "fp4": (-6.0, 6.0)}  # fmt: skip
SCHEMES = (("per_tensor", 0, 0), ("per_channel", 0, 0), ("per_channel", 1, 0), ("per_group", -1, 32))
HALF_EVEN = 8
LONG = (1 << 21) + 5  # numbers, more than are summed at a time
REAL = (("mx6", "", 16), ("mx9", "", 16), ("mx", "fp4", 32), ("mx", "fp6_e2m3", 32), ("mx", "fp6_e3m2", 32))


def cases() -> Iterator[tuple[str, Callable[[bool], Any]]]:
    """Names and functions."""
    for kind, tame in product((torch.float32, torch.bfloat16, torch.float16), (False, True)):
        x = rows(kind, tame)
        for element, rule, size, axis in product(ELEMENTS, ("even", "floor", "ceil"), (32, 16), (-1, 0)):
            name, given = f"mx {element} {rule} {size} {axis}", ("mx", element, axis, size, rule)
            yield f"{name} {kind} tame={tame}", lambda _, a=(x, *given): kernel.non_scaled_fake_quantize(*a)
        for name in ("mx6", "mx9", "bfp16"):
            given = name, "", -1, 16
            yield f"{name} {kind} tame={tame}", lambda _, a=(x, *given): kernel.non_scaled_fake_quantize(*a)
        for name, element, size in REAL:
            given = name, element, -1, size
            yield f"real {given} {kind} tame={tame}", (
                lambda _, a=(x, *given): kernel.non_scaled_real_quantize(*a)
            )  # fmt: skip
        yield from _fp8(x, f"{kind} tame={tame}")
        yield from _trained(x, f"{kind} tame={tame}")
        for (name, ends), scheme in product(RANGES.items(), SCHEMES):
            if kind == torch.float32 or not (name[:3] in ("fp4", "fp6") and scheme[0] == "per_channel"):
                yield from _scaled(x, name, ends, scheme, f"{kind} tame={tame}")
    yield from _alone()


def _alone() -> Iterator[tuple[str, Callable[[bool], Any]]]:
    """lsq_quantize of many numbers with a scale each: nothing is summed."""
    x = torch.linspace(-9.0, 7.0, LONG)
    given = torch.linspace(0.01, 2.0, LONG), torch.zeros(LONG), 0.01, -8, 7, 0, HALF_EVEN
    yield "lsq of single numbers", partial(_with_gradients, "lsq_quantize", x, given)


def _trained(x: torch.Tensor, said: str) -> Iterator[tuple[str, Callable[[bool], Any]]]:
    """tqt_quantize of three widths, lsq_quantize along each axis; what they make, and their gradients."""
    none = torch.zeros(1, dtype=torch.int32)
    for bits, log_threshold in product((2, 4, 8), (-0.3, 0.0, 2.5, 20.0)):
        domain = torch.tensor([2.0 ** (bits - 1)])
        given = torch.tensor([log_threshold]), none, domain, HALF_EVEN
        yield f"tqt {bits} {log_threshold} {said}", partial(_with_gradients, "tqt_quantize", x, given)
    for (low, high), (axis, shape) in product(((-128, 127), (0, 255), (-8, 7), (-127, 127)), AXES.items()):
        y = x.reshape(shape)
        step = (
            y.detach()
            .abs()
            .nan_to_num(1.0, 1.0)
            .float()
            .transpose(axis, -1)
            .reshape(-1, y.shape[axis])
            .amax(0)
            / high
        )
        for moved in (False, True):
            zero = (torch.arange(len(step)) % 5).float() * moved
            given = step.clamp(1e-30, 1e30), zero, 0.01, low, high, axis, HALF_EVEN
            yield (
                f"lsq {low} {axis} {shape} {said} zero={moved}",
                partial(_with_gradients, "lsq_quantize", y, given),
            )


AXES = {0: (-1, 64), 1: (-1, 64), 2: (-1, 4, 16)}


def _with_gradients(name: str, x: torch.Tensor, given: tuple[Any, ...], _: bool) -> tuple[torch.Tensor, ...]:
    """What is made of x and of a scale, and the gradients of both for an incoming one of many sizes."""
    x, scale = x.detach().clone().requires_grad_(), given[0].clone().requires_grad_()
    made = getattr(kernel, name)(x, scale, *given[1:])
    incoming = torch.linspace(-3.0, 5.0, x.numel()).view(x.shape).to(x.dtype)
    turned = incoming.flip(0).T.contiguous().T if x.dim() == 2 else incoming
    return (made.detach(), *(
        one for given in (incoming, turned, torch.ones((), dtype=x.dtype).expand(x.shape))
        for one in torch.autograd.grad(made, (x, scale), given, retain_graph=True)
    ))  # fmt: skip


def _fp8(x: torch.Tensor, said: str) -> Iterator[tuple[str, Callable[[bool], Any]]]:
    for name, scale in product(("fp8_e4m3", "fp8_e5m2"), (None, 0.37)):
        call = partial(getattr(kernel, f"quant_{name}"), x, scale)
        yield f"quant {name} {scale} {said}", lambda _, call=call: call()
        both = getattr(torch.ops.quark, f"quant_dequant_{name}")
        yield f"quant_dequant {name} {scale} {said}", lambda _, both=both, s=scale: both(x / (s or 1.0))


def _scaled(
    x: torch.Tensor, name: str, ends: tuple[float, float], scheme: tuple[str, int, int], said: str
) -> Iterator[tuple[str, Callable[[bool], Any]]]:
    kind, axis, size = scheme
    shared = {"per_tensor": x.reshape(1, -1), "per_group": x.reshape(-1, size or 1)}.get(
        kind, x if axis == 0 else x.T
    )
    scale = (shared.float().nan_to_num().abs().amax(-1) / ends[1]).clamp(1e-30, 1e30)
    for moved in (False, True):
        zero = (torch.arange(len(scale)) % 7).int() * moved
        given = (scale, zero) if kind == "per_channel" else (scale[0], zero[0])
        if kind == "per_group":
            given = scale.view(len(x), -1), zero.view(len(x), -1)
        call = (name, x, *given, axis, size, *ends, HALF_EVEN, kind, "")
        yield f"{name} {scheme} {said} zero={moved}", lambda _, a=call: kernel.scaled_fake_quantize(*a)
        if "tame=True" in said or "int" not in name:  # of Inf and NaN integers are what a cast makes of them
            real = call[:-1]
            yield f"real {name} {scheme} {said} zero={moved}", (
                lambda _, a=real: kernel.scaled_real_quantize(*a)
            )  # fmt: skip
            yield f"back {name} {scheme} {said} zero={moved}", partial(_back, real)


def _back(real: tuple[Any, ...], _: bool) -> Any:
    """What is made of what was really quantized."""
    name, _, scale, zero, axis, size, *_, kind = real
    return kernel.dequantize(name, kernel.scaled_real_quantize(*real), scale, zero, axis, size, kind)
