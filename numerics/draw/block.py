"""A block as a picture: values, the scale that they share, and what each scale rule would make of them."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np

from numerics.backends.host.quantizing import to_host
from numerics.draw.grids import Array, array_of, grid, scales, tensor_scale
from numerics.draw.picture import BLUE, GREEN, GREY, ORANGE, RED, SKY, Picture, canvas, named, styled
from numerics.files.selection import axis_of
from numerics.formats.arguments import keywords
from numerics.formats.block import Block, Blocks, MicroexponentBlock, TieredBlock
from numerics.formats.errors import NumericsError, integer, said
from numerics.formats.registry import dtype as find_dtype
from numerics.tensor.qtensor import ErrorSums, QTensor
from numerics.tensor.spec import QuantSpec
from numerics.view.text import decibels, figure, number

FAR = 1e300  # beyond it no axis has room
Coded = tuple[Array, float, float, Blocks]
"""Values, their scale, the SQNR in dB, and the blocks themselves."""


@keywords
def block(x: Any, dtype: Any = None, *, scale_rule: str = "floor", block: int = 0) -> Picture:
    """Draws one block: its values, the grid at their scale, where each goes, and the other scale rules.

    x: a tensor; the block is drawn as `nx.quantize` of all of it makes it, with the scale of the whole tensor
        that each rule finds, where the format has one.  A QTensor is drawn as it is stored.
    dtype: a block format or its name; of a QTensor its own, which may be left out.
    scale_rule: as for `Block.encode`; not of a QTensor, whose scales are found already.
    block: which one, from 0: along the axis of the blocks, one row after another.  The axis is the one that a
        job takes: the last, but the input channels of a convolution's weight, which has four axes.
    Microexponents shade the parts of a block that have a finer grid.  Raises NumericsError for a format
    of single numbers, another scale rule, a block that is not there, and where matplotlib is missing.

    >>> import numerics as nx
    >>> nx.draw.block([1.0, 0.3, -0.05, 5.0, 7.4], "mxfp4").alt
    'A block of 5 values in mxfp4: they share the scale 1, 14.3 dB. By scale rule: floor 1, 14.3 dB; ceil 2, \
17.5 dB; even 2, 17.5 dB; rceil 2, 17.5 dB; tosa 2, 17.5 dB; bump 2, 17.5 dB.'
    >>> nx.draw.block(nx.quantize([[1.0] * 32, [3.0] * 32], "mxfp4"), block=1).alt
    'A block of 32 values in mxfp4, block 1 of 0 to 1: they share the scale 0.5.'
    """
    if isinstance(x, QTensor):
        return _stored(x, dtype, scale_rule, block)
    d, data = _blocked(dtype), array_of(x)
    d.check_scale_rule(scale_rule)
    axis = axis_of("", data.shape, QuantSpec(d)) if data.ndim else 0
    aside = f", along axis {axis}" if axis < data.ndim - 1 else ""
    data = np.moveaxis(data, axis, -1) if data.ndim else data
    data = data.reshape(-1, data.shape[-1] if data.ndim else 1)
    a_row = -(-data.shape[1] // d.block)
    place, where = _place(block, len(data) * a_row)
    where += aside
    start = place % a_row * d.block
    part = data[place // a_row, start : start + d.block]
    rules = {
        rule: _coded(d, part, rule, tensor_scale(data, d, rule))
        for rule in dict.fromkeys((scale_rule, *d.scale_rules))
    }
    return _picture(d, part, rules, scale_rule, where)


def _blocked(d: Any) -> Block:
    """The block format that was asked for; raises NumericsError for another and for none."""
    if d is None:
        raise NumericsError("a tensor of floats is drawn in a block format: name one, such as 'mxfp4'")
    d = find_dtype(d)
    if not isinstance(d, Block):
        raise NumericsError(f"{d} has no blocks: nx.draw.tensor and nx.draw.rounding show single numbers")
    return d


def _place(block: Any, count: int) -> tuple[int, str]:
    """Which block, and how it is told; raises NumericsError where there is none."""
    place = integer("block", block)
    if not 0 <= place < count:
        raise NumericsError(f"block={place}: the tensor has {count} blocks; allowed: 0 to {count - 1}")
    return place, f", block {place} of 0 to {count - 1}" if count > 1 else ""


def _picture(d: Block, part: Array, rules: dict[str, Coded], scale_rule: str, where: str) -> Picture:
    """The values of a block by a rule, and below it what each of the rules would do."""
    _, scale, sqnr, _ = rules[scale_rule]
    with styled():
        drawn, axes = canvas(2, 1, (8, 6.4), height_ratios=(2.4, 1))
        drawn.suptitle(
            f"a block in {named(str(d))}{where}: {len(part)} values, scale {figure(scale, 9)} "
            f"({scale_rule}), {decibels(sqnr)}",
            x=0.01, ha="left",
        )  # fmt: skip
        _values(axes[0, 0], d, part, rules[scale_rule])
        _rules(axes[1, 0], {rule: (found[1], found[2]) for rule, found in rules.items()})
    told = "; ".join(f"{rule} {number(s)}, {decibels(db)}" for rule, (_, s, db, _) in rules.items())
    by_rule = f" By scale rule: {told}." if len(rules) > 1 else ""
    shares = f"they share the scale {number(scale)}, {decibels(sqnr)}."
    return Picture(drawn, f"A block of {len(part)} values in {d}{where}: {shares}{by_rule}")


def _stored(q: QTensor, d: Any, scale_rule: str, block: int) -> Picture:
    """A block of a tensor that is quantized already, as it is."""
    own = _blocked(q.format)
    if d is not None and find_dtype(d) is not own:
        raise NumericsError(
            f"{q!r} is quantized already, and drawn as it is: leave {find_dtype(d)} out, or "
            "dequantize it first"
        )
    if scale_rule != "floor":
        raise NumericsError(
            f"{q!r} has its scales already: leave scale_rule={said(scale_rule)} out, or dequantize it first"
        )
    part, where = _cut(q, own, block)
    y, scale = np.asarray(own.decode(part), np.float64), float(scales(own, part)[0])
    shares = f"{where}: they share the scale {number(scale)}"
    with styled():
        drawn, axes = canvas(1, 1, (8, 4.6))
        drawn.suptitle(f"a block of {len(y)} values in {named(str(own))}{shares}", x=0.01, ha="left")
        _values(axes[0, 0], own, None, (y, scale, 0.0, part))
    return Picture(drawn, f"A block of {len(y)} values in {own}{shares}.")


def _cut(q: QTensor, d: Block, block: int) -> tuple[Blocks, str]:
    """The codes of one block with what they share, and which it is in words."""
    every, axis = q.blocks, cast(int, q.axis)
    fields = {"codes": every.codes, "scale": every.scale, "microexponents": every.microexponents}
    found = {name: np.moveaxis(to_host(x), axis, -1) for name, x in fields.items() if x is not None}
    codes, scale = found.pop("codes"), found["scale"]
    if not codes.size:
        raise NumericsError("there is nothing to draw: the tensor has no elements")
    place, where = _place(block, scale.size)
    a_row, start = scale.shape[-1], place % scale.shape[-1] * d.block
    own = np.array(codes.reshape(-1, codes.shape[-1])[place // a_row, start : start + d.block])
    shared: dict[str, Any] = {name: np.array(x.reshape(-1)[place : place + 1]) for name, x in found.items()}
    return Blocks(d, 0, own, **shared, tensor_scale=every.tensor_scale), where


def _coded(d: Block, x: Array, rule: str, of_tensor: float | None) -> Coded:
    """The values, the scale and the SQNR of one block by a rule, and with that scale of its tensor."""
    blocks = d.encode(x, scale_rule=rule, tensor_scale=of_tensor)
    y = np.asarray(d.decode(blocks), np.float64)
    sums = ErrorSums()
    sums.add(x.astype(np.float64), y)
    return y, float(scales(d, blocks)[0]), sums.error.sqnr, blocks


def _values(axes: Any, d: Block, x: Array | None, coded: Coded) -> None:
    """The values of a block over the grid at its scale; x: what they were, where that is known."""
    y, scale, _, blocks = coded
    places = np.arange(len(y))
    y, x = _drawable(y), None if x is None else _drawable(x)
    top = float(np.nanmax(np.abs(y if x is None else np.concatenate([x, y])), initial=0)) * 1.08 or 1.0
    lines = grid(d) * (scale if math.isfinite(scale) else math.nan)
    if len(lines) <= 160:
        axes.hlines(lines[np.abs(lines) <= top], -0.6, len(y) - 0.4, color=GREY, linewidth=0.5, alpha=0.6)
    if isinstance(d, MicroexponentBlock):
        _shade(axes, d, blocks)
    if x is not None:
        axes.vlines(places, x, y, color=RED, linewidth=1.4, label="error")
        axes.plot(places, x, "o", color=ORANGE, markersize=5, label="value")
    axes.plot(places, y, "_", color=BLUE, markersize=10, markeredgewidth=2.6, label="in the format")
    axes.set(xlim=(-0.6, len(y) - 0.4), ylim=(-top, top), xlabel="place in the block")
    axes.set_title("grey: the values that an element can take at this scale" + _finer(d))
    axes.figure.legend(loc="outside lower center", ncols=4)


def _drawable(x: Array) -> Array:
    """What has a place on an axis, in float64: NaN stands for NaN, Inf and what float64 hardly holds."""
    x = x.astype(np.float64)
    with np.errstate(invalid="ignore"):
        found: Array = np.where(np.abs(x) < FAR, x, math.nan)
    return found


def _shade(axes: Any, d: MicroexponentBlock, blocks: Blocks) -> None:
    """The parts of a block that have a finer grid."""
    length, flags = len(blocks.codes), int(np.asarray(blocks.microexponents).ravel()[0])
    for part in range(-(-length // d.sub_block)):
        set_bits = flags >> part & 1
        if isinstance(d, TieredBlock):
            set_bits = (flags >> part // 2 & 1) + (flags >> d.pairs + part & 1)
        if set_bits:
            axes.axvspan(part * d.sub_block - 0.5, (part + 1) * d.sub_block - 0.5, color=SKY,
                         alpha=0.25 * set_bits, label=None if part else "microexponent 1")  # fmt: skip


def _finer(d: Block) -> str:
    if isinstance(d, TieredBlock):
        return "; blue: microexponents, each of which makes a step twice as long"
    return "; blue: microexponent 1, a step half as long" if isinstance(d, MicroexponentBlock) else ""


def _rules(axes: Any, rules: dict[str, tuple[float, float]]) -> None:
    """A bar a scale rule: how much of the signal is left."""
    names = list(rules)
    shown = [float(np.clip(np.nan_to_num(rules[name][1]), 0, 200)) for name in names]
    best = max(shown)
    axes.barh(names, shown, color=[GREEN if value == best else SKY for value in shown], height=0.7)
    for place, name in enumerate(names):
        scale, sqnr = rules[name]
        axes.text(
            shown[place], place, f"  scale {figure(scale, 9)}, {decibels(sqnr)}", va="center", fontsize=9
        )
    rows = max(len(names), 4)  # a bar alone is no thicker than one of four
    axes.set(
        xlabel="SQNR of this block, dB", xlim=(0, max(best, 1.0) * 1.35), ylim=(rows - 0.4, -0.6),
    )  # fmt: skip
    axes.set_title(
        "what each scale rule would do (green: loses least)" if len(rules) > 1 else "its one scale rule"
    )
