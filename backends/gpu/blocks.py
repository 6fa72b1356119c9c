"""Blocks on the GPU: how a tensor is cut into programs, and which kernel takes them.

A tensor is [outer, length, inner], blocked along `length`; nothing is moved or filled up for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from numerics.backends.gpu.launch import launch, per_program, power_of_two, programs
from numerics.backends.gpu.native import native
from numerics.backends.gpu.tensors import FLOATS, memory, pointers, random_bits, words
from numerics.backends.host.float_bits import FLOAT32_MAX, SMALLEST_NORMAL
from numerics.backends.partition import Blocking, blocks_along
from numerics.formats.block import Block, MicroexponentBlock, MXBlock, ScaledBlock, TieredBlock
from numerics.formats.floats import bfloat16
from numerics.formats.grid import Grid, element_grid, float32_bits, grid, scale_grid, scale_of
from numerics.formats.packing import planes
from numerics.formats.rounding import BlockOptions

BFLOAT16 = grid(bfloat16, "half_even", "nonsaturate")


@dataclass(frozen=True)
class Cut:
    """A tensor's blocks as programs take them."""

    dtype: Block
    blocking: Blocking
    width: int  # lanes that a block takes: a power of two

    @classmethod
    def of(cls, shape: tuple[int, ...], axis: int, d: Block) -> Cut:
        """For a tensor in a block format."""
        width = power_of_two(d.block)
        if isinstance(d, MicroexponentBlock):
            width = power_of_two(d.sub_blocks) * power_of_two(d.sub_block)
        return cls(d, blocks_along(axis, shape, d.block), width)

    @property
    def inner(self) -> int:
        """Elements between neighbours of a block."""
        return math.prod(self.blocking.shape[self.blocking.axis + 1 :])

    @property
    def tile(self) -> int:
        """Blocks of a program."""
        return max(per_program(self.blocking.count * self.width) // self.width, 1)

    @property
    def order(self) -> str:
        """How they lie: kernels.place_of_blocks."""
        if self.blocking.whole:
            return "rows"
        near = self.inner * self.blocking.size < 1 << 31  # offsets in a program are 32 bits
        return "columns" if near and self.inner % self.tile == 0 else "any"

    @property
    def programs(self) -> tuple[int]:
        """The grid of a launch."""
        return (-(-self.blocking.count // self.tile),)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Arguments of every block kernel: count, length, per_line, inner."""
        return self.blocking.count, self.blocking.length, self.blocking.per_line, self.inner

    @property
    def constants(self) -> dict[str, Any]:
        """What is compiled in."""
        return {"ORDER": self.order, "SIZE": self.blocking.size, "TILE": self.tile}


@dataclass(frozen=True)
class Fields:
    """Where the parts of blocks are, in the order of Blocks; or packed bytes in the place of codes."""

    codes: torch.Tensor
    scale: torch.Tensor | None
    micro: torch.Tensor | None = None


def packs(cut: Cut) -> bool:
    """Do blocks go straight to packed bytes: whole words, in the order of the memory?"""
    d = cut.dtype
    if not cut.blocking.whole or cut.width != d.block:
        return False
    if d.scale_beside:
        return d.element_bits * d.block % 32 == 0
    return d.block == 16 and [width for _, width in planes(d.element_bits)[1:]] in ([], [1])


def encode(x: torch.Tensor, cut: Cut, o: BlockOptions, what: str, to: Fields) -> None:
    """Floats to fields (`encode`), stored bytes (`pack`) or values (`round`), into `to`."""
    d, (draw, bits, key) = cut.dtype, random_bits(o.draw, x)
    common = {
        "rounding": o.mode, "WHAT": what, "KIND": FLOATS[x.dtype], "DRAW": draw, "BFLOAT16": BFLOAT16,
        **cut.constants,
    }  # fmt: skip
    count, length, per_line, inner = cut.sizes
    source, out = memory(x), _words(to.codes, d) if what == "pack" else memory(to.codes)
    random = source if bits is None else bits
    if isinstance(d, TieredBlock):
        launch(
            "tiered_kernel", cut.programs, source, random, out, *pointers(out, to.scale, to.micro),
            count, length, per_line, inner, key, m=d.mantissa, f=element_grid(d), PAIRS=d.pairs,
            SUB=d.sub_block, **common,
        )  # fmt: skip
        return
    if isinstance(d, MicroexponentBlock):
        launch(
            "micro_kernel", cut.programs, source, random, out, *pointers(out, to.scale, to.micro),
            count, length, per_line, inner, key,
            m=d.mantissa, PLANE=planes(d.element_bits)[0][1], **_groups(d), **common,
        )  # fmt: skip
        return
    s = scale_of(d, o.scale_rule) if isinstance(d, MXBlock) else scale_grid(d)
    plain = d.element if isinstance(d, MXBlock) and o.scale_rule != "bump" else None
    launch(
        "scaled_kernel", cut.programs, source, random, out, *pointers(out, to.scale),
        _tensor_scale(o.tensor_scale, x), count, length, per_line, inner, key, out.numel(),
        f=element_grid(d, o.scale_rule, o.mode), s=s, rule=None if isinstance(d, MXBlock) else o.scale_rule,
        FAMILY=d.stem, NATIVE=native(plain, o.mode, "saturate", x.device) if plain else None,
        WIDTH=cut.width, BITS=d.element_bits, CODES=codes_of_words(d.element_bits), **common,
    )  # fmt: skip


def drawn_codes(x: torch.Tensor, cut: Cut, o: BlockOptions, of: Fields) -> tuple[torch.Tensor, torch.Tensor]:
    """The codes of float64 x, exactly, under blocks whose shared fields are found; and the scales.

    As array/executor.py does it: over powers of two in float64, whose digits a draw sees (`looks_further`).
    """
    assert of.scale is not None
    d = cut.dtype
    f, up = element_grid(d, o.scale_rule, o.mode), None
    lost = _each(of.scale, cut) == 255
    steps = _steps(of, cut)
    if o.scale_rule == "bump":
        s = scale_of(d, o.scale_rule)
        wide = replace(f, limit=s.past, negative_limit=s.past, wrap=None, negative=None, sign=30)
        n = _encode_steps(_in_steps(x, steps, d), wide, o, torch.int32) & ((1 << 30) - 1)
        assert s.least is not None
        past = n > torch.where(x.signbit(), s.least, f.last)
        up = _any_of_block(past, cut) & (of.scale < 254)
        of.scale.add_(up.to(of.scale.dtype))
        steps = steps + _each(up, cut).to(steps.dtype)
    codes = _encode_steps(_in_steps(x, steps, d), f, o, of.codes.dtype)
    return torch.where(lost, of.codes, codes), of.scale


def _each(shared: torch.Tensor, cut: Cut) -> torch.Tensor:
    """What blocks share, for every element."""
    axis = cut.blocking.axis
    return shared.repeat_interleave(cut.blocking.size, axis).narrow(axis, 0, cut.blocking.length)


def _any_of_block(flags: torch.Tensor, cut: Cut) -> torch.Tensor:
    axis, size = cut.blocking.axis, cut.blocking.size
    lines = torch.nn.functional.pad(flags.movedim(axis, -1), (0, -cut.blocking.length % size))
    return lines.reshape(*lines.shape[:-1], -1, size).any(-1).movedim(-1, axis)


def _steps(of: Fields, cut: Cut) -> torch.Tensor:
    """The exponents of what each element counts: of the scale, or of the step of its sub-block."""
    assert of.scale is not None
    d = cut.dtype
    exponent = _each(of.scale, cut).to(torch.int64) - 127
    if of.micro is None or not isinstance(d, MicroexponentBlock):
        return exponent
    axis = cut.blocking.axis
    place = torch.arange(cut.blocking.length, device=exponent.device) % d.block // d.sub_block
    place = place.reshape([-1 if k == axis else 1 for k in range(exponent.ndim)])
    return exponent - ((_each(of.micro, cut).to(torch.int64) >> place) & 1) - (d.mantissa - 1)


def _in_steps(x: torch.Tensor, steps: torch.Tensor, d: Block) -> torch.Tensor:
    """x over powers of two; as blocks take it: no more than float32's largest, or (micro) normal."""
    y = x.clamp(-float(FLOAT32_MAX), float(FLOAT32_MAX))
    if isinstance(d, MicroexponentBlock):
        y = torch.where(y.abs() < SMALLEST_NORMAL, 0.0, y)
    return (y * ((1023 - steps) << 52).view(torch.float64)).contiguous()


def _encode_steps(x: torch.Tensor, f: Grid, o: BlockOptions, kind: torch.dtype) -> torch.Tensor:
    """float64 to codes of a grid, with all its digits."""
    draw, bits, key = random_bits(o.draw, x)
    y, low = words(x, stochastic=True)
    out, n = torch.empty(y.shape, dtype=kind, device=y.device), y.numel()
    source = memory(y)
    launch(
        "encode_kernel", programs(n), source, *pointers(source, low, bits), memory(out), n, key,
        f=f, rounding=o.mode, KIND="float32", DRAW=draw, LOW=True, NATIVE=None, BLOCK=per_program(n),
    )  # fmt: skip
    return out


def decode(of: Fields, cut: Cut, tensor_scale: float | None, packed: bool, out: torch.Tensor) -> None:
    """Fields, or packed bytes, to float32."""
    d, codes, to = cut.dtype, memory(of.codes), memory(out)
    if isinstance(d, TieredBlock):
        launch(
            "untiered_kernel", cut.programs, codes, *pointers(codes, of.scale, of.micro), to, *cut.sizes,
            m=d.mantissa, PAIRS=d.pairs, SUB=d.sub_block, **cut.constants,
        )  # fmt: skip
        return
    if isinstance(d, MicroexponentBlock):
        launch(
            "unmicro_kernel", cut.programs, codes, *pointers(codes, of.scale, of.micro), to, *cut.sizes,
            m=d.mantissa, PLANE=planes(d.element_bits)[0][1] if packed else None,
            **_groups(d), **cut.constants,
        )  # fmt: skip
        return
    g = scale_grid(d) if isinstance(d, ScaledBlock) else None
    launch(
        "unscaled_kernel", cut.programs,
        codes, *pointers(codes, of.scale), _tensor_scale(tensor_scale, out), to, *cut.sizes,
        f=element_grid(d), g=g, FAMILY=d.stem, WIDTH=cut.width, BITS=d.element_bits if packed else None,
        **cut.constants,
    )  # fmt: skip


def codes_of_words(bits: int) -> int:
    """Codes that fill whole 32-bit words."""
    return 32 // math.gcd(bits, 32)


def _groups(d: MicroexponentBlock) -> dict[str, int]:
    sub, groups = d.sub_block, d.sub_blocks
    return {"GROUPS": groups, "WIDE": power_of_two(groups), "SUB": sub, "SUB_WIDE": power_of_two(sub)}


def _words(packed: torch.Tensor, d: Block) -> torch.Tensor:
    """Bytes as the units in which kernels write them."""
    whole = d.scale_beside or d.bytes_per_block % 4 == 0
    return packed.view(torch.int32 if whole else torch.int16)


def _tensor_scale(tensor_scale: float | None, x: torch.Tensor) -> torch.Tensor:
    """Filled in there: a copy from the CPU would wait, and a graph that is captured refuses one."""
    return torch.full((1,), float32_bits(tensor_scale or 1.0), dtype=torch.int32, device=x.device)
