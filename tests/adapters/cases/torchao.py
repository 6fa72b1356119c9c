"""torchao: MX in every element and scale rule, affine integers both ways and their scales, fp4 and fp6."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, product
from typing import Any

import torch
from torchao.prototype.mx_formats import kernels, mx_tensor
from torchao.prototype.mx_formats.config import ScaleCalculationMode
from torchao.quantization import quant_primitives as primitives

from tests.adapters.hard import ROW, rows

ELEMENTS = (torch.float8_e4m3fn, torch.float8_e5m2, "fp6_e2m3", "fp6_e3m2", torch.float4_e2m1fn_x2)
RANGES = ((torch.int8, None, None), (torch.int8, -8, 7), (torch.int8, -127, 127), (torch.uint8, 0, 15),
          (torch.uint8, None, None), (torch.uint8, 3, 12))  # fmt: skip
LIMITS = (*RANGES, (torch.int8, -10, 5), (torch.int16, None, None), (torch.float8_e4m3fn, None, None))
SCALES = (
    (None, None),
    (torch.bfloat16, torch.int8),
    (torch.float16, torch.float32),
    (torch.float32, torch.int32),
)
OTHERS = ("_choose_qparams_affine_dont_preserve_zero", "_choose_qparams_affine_tinygemm")
KINDS = (torch.float32, torch.bfloat16, torch.float16)


def cases() -> Iterator[tuple[str, Callable[[bool], Any]]]:
    """Names and functions."""
    for kind in KINDS:
        for tame in (False, True):
            yield from _mx(kind, tame)
            yield from _affine(kind, tame)
            yield from _scales(kind, tame)
    yield from _elements()


def _mx(kind: torch.dtype, tame: bool) -> Iterator[tuple[str, Callable[[bool], Any]]]:
    x = rows(kind, tame)
    for element in ELEMENTS:
        for mode in ScaleCalculationMode:
            for size in (16, 32):
                name = f"to_mx {element} {mode.name} {size} {kind} tame={tame}"
                yield name, lambda _, x=x, a=(element, size, mode): mx_tensor.to_mx(x, *a)


def _affine(kind: torch.dtype, tame: bool) -> Iterator[tuple[str, Callable[[bool], Any]]]:
    x = rows(kind, tame)
    for block in ((1, ROW), (1, 32), tuple(x.shape)):
        for mapping in primitives.MappingType:
            for out, low, high in RANGES:
                found = primitives.choose_qparams_affine(x, mapping, block, out, low, high)
                for scale in {found[0].dtype: found[0], torch.float32: found[0].float()}.values():
                    given = block, scale, found[1], out, low, high
                    name = f"{mapping.name} {block} {out} {low} {kind} {scale.dtype} tame={tame}"
                    yield f"quantize {name}", lambda _, x=x, a=given: primitives.quantize_affine(x, *a)
                    codes = primitives.quantize_affine(x, *given)
                    for back in KINDS:
                        call = partial(primitives.dequantize_affine, codes, *given, output_dtype=back)
                        yield f"dequantize {name} {back}", _later("dequantize_affine", call)


def _scales(kind: torch.dtype, tame: bool) -> Iterator[tuple[str, Callable[[bool], Any]]]:
    """What is chosen of tensors, and of ends that somebody has found; weights ask for gradients."""
    x, asked = rows(kind, tame).requires_grad_(), cycle(product(SCALES, (False, True), (None, 1e-3)))
    for block, ends in _blocks(x.detach()):
        for (out, low, high), mapping in product(LIMITS, primitives.MappingType):
            kinds, keep, eps = next(asked)
            rest = mapping, block, out, low, high, eps, *kinds
            name = f"{mapping.name} {block} {out} {low} {kinds} {eps} {kind} tame={tame}"
            yield f"ends {name}", _later("choose_qparams_affine_with_min_max", partial(print, *ends, *rest))
            yield f"scales {name} {keep}", _later("choose_qparams_affine", partial(print, x, *rest, keep))
            for other in OTHERS if mapping.name == "ASYMMETRIC" else ():
                yield f"{other} {name}", _later(other, partial(print, x.detach(), *rest))
        for element, stored in product(ELEMENTS[:2], (torch.float32, torch.float8_e8m0fnu)):
            call = partial(print, x.detach(), list(block), element, stored)
            yield f"float8 {block} {element} {stored} {kind} {tame}", _later("_choose_scale_float8", call)


def _blocks(x: torch.Tensor) -> Iterator[tuple[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]]]:
    """Sizes of blocks, rows, parts of them, columns and the whole, and their ends."""
    whole = tuple(x.shape)
    for block, shared in (
        ((1, ROW), x),
        ((1, 32), x.view(-1, 32)),
        ((len(x), 1), x.T),
        (whole, x.view(1, -1)),
    ):
        yield block, (shared.amin(-1), shared.amax(-1))


def _later(name: str, call: partial[Any]) -> Callable[[bool], Any]:
    """The call of what the module then has under the name."""
    return lambda _: getattr(primitives, name)(*call.args, **call.keywords)


def _elements() -> Iterator[tuple[str, Callable[[bool], Any]]]:
    for name, bits in (("f4", 4), ("f6_e2m3", 6), ("f6_e3m2", 6)):
        x, codes = rows(torch.float32), torch.arange(1 << bits, dtype=torch.uint8)
        yield f"f32_to_{name}", lambda _, x=x, n=f"f32_to_{name}_unpacked": getattr(kernels, n)(x)
        yield f"{name}_to_f32", lambda _, c=codes, n=f"{name}_unpacked_to_f32": getattr(kernels, n)(c)
