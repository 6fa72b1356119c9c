"""A block as a picture: values, the scale that they share, and what each scale rule would make of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from numerics.draw.grids import Array, array_of, decibels, grid, scales
from numerics.draw.picture import BLUE, GREEN, GREY, ORANGE, RED, SKY, Picture, canvas, styled
from numerics.formats.block import Block, Blocks, MicroexponentBlock
from numerics.formats.errors import NumericsError
from numerics.formats.registry import dtype
from numerics.tensor.qtensor import ErrorSums
from numerics.view.text import number

Coded = tuple[Array, float, float, Blocks]
"""Values, their scale, the SQNR in dB, and the blocks themselves."""


def block(x: Any, d: Any, *, scale_rule: str = "floor") -> Picture:
    """Draws one block: its values, the grid at their scale, where each goes, and the other scale rules.

    x: at most as many numbers as a block has; of a longer array the first block along its last axis.
    d: a block format or its name.  scale_rule: as for `Block.encode`.
    Microexponents shade the parts of a block that have a finer grid.  Raises NumericsError for a format
    of single numbers, another scale rule, and where matplotlib is missing.

    >>> import numerics as nx
    >>> nx.draw.block([1.0, 0.3, -0.05, 5.0, 7.4], "mxfp4").alt
    'A block of 5 values in mxfp4: they share the scale 1, 14.3 dB. By scale rule: floor 1, 14.3 dB; ceil 2, \
17.5 dB; even 2, 17.5 dB; rceil 2, 17.5 dB; tosa 2, 17.5 dB; bump 2, 17.5 dB.'
    """
    d = dtype(d)
    if not isinstance(d, Block):
        raise NumericsError(f"{d} has no blocks: nx.draw.tensor and nx.draw.rounding show single numbers")
    data = array_of(x)
    data = data.reshape(-1, data.shape[-1] if data.ndim else 1)[0, : d.block]
    rules = {rule: _coded(d, data, rule) for rule in dict.fromkeys((scale_rule, *d.scale_rules))}
    with styled():
        figure, axes = canvas(2, 1, (8, 6.4), height_ratios=(2.4, 1))
        _, scale, sqnr, _ = rules[scale_rule]
        figure.suptitle(
            f"a block in {d}: {len(data)} values, scale {number(scale)} ({scale_rule}), {decibels(sqnr)}",
            x=0.01, ha="left",
        )  # fmt: skip
        _values(axes[0, 0], d, data, rules[scale_rule])
        _rules(axes[1, 0], {rule: (found[1], found[2]) for rule, found in rules.items()})
    told = "; ".join(f"{rule} {number(s)}, {decibels(db)}" for rule, (_, s, db, _) in rules.items())
    by_rule = f" By scale rule: {told}." if len(rules) > 1 else ""
    alt = f"A block of {len(data)} values in {d}: they share the scale {number(scale)}, {decibels(sqnr)}."
    return Picture(figure, alt + by_rule)


def _coded(d: Block, x: Array, rule: str) -> Coded:
    """The values, the scale and the SQNR of one block by a rule."""
    blocks = d.encode(x, scale_rule=rule)
    y = np.asarray(d.decode(blocks), np.float64)
    sums = ErrorSums()
    sums.add(x.astype(np.float64), y)
    return y, float(scales(d, blocks)[0]), sums.error.sqnr, blocks


def _values(axes: Any, d: Block, x: Array, coded: Coded) -> None:
    y, scale, _, blocks = coded
    places = np.arange(len(x))
    top = float(np.nanmax(np.abs(np.concatenate([x, y])), initial=0)) * 1.08 or 1.0
    lines = grid(d) * scale
    if len(lines) <= 160:
        axes.hlines(lines[np.abs(lines) <= top], -0.6, len(x) - 0.4, color=GREY, linewidth=0.5, alpha=0.6)
    if isinstance(d, MicroexponentBlock):
        flags = int(np.asarray(blocks.microexponents).ravel()[0])
        for part in range(-(-len(x) // d.sub_block)):
            if flags >> part & 1:
                axes.axvspan(part * d.sub_block - 0.5, (part + 1) * d.sub_block - 0.5, color=SKY, alpha=0.25,
                             label=None if part else "microexponent 1")  # fmt: skip
    axes.vlines(places, x, y, color=RED, linewidth=1.4, label="error")
    axes.plot(places, x, "o", color=ORANGE, markersize=5, label="value")
    axes.plot(places, y, "_", color=BLUE, markersize=10, markeredgewidth=2.6, label="in the format")
    axes.set(xlim=(-0.6, len(x) - 0.4), ylim=(-top, top), xlabel="place in the block")
    axes.set_title("grey: the values that an element can take at this scale" + _finer(d))
    axes.figure.legend(loc="outside lower center", ncols=4)


def _finer(d: Block) -> str:
    return "; blue: microexponent 1, a step half as long" if isinstance(d, MicroexponentBlock) else ""


def _rules(axes: Any, rules: dict[str, tuple[float, float]]) -> None:
    """A bar a scale rule: how much of the signal is left."""
    names = list(rules)
    shown = [min(rules[name][1], 200.0) if rules[name][1] == rules[name][1] else 0.0 for name in names]
    best = max(shown)
    axes.barh(names, shown, color=[GREEN if value == best else SKY for value in shown], height=0.7)
    for place, name in enumerate(names):
        scale, sqnr = rules[name]
        axes.text(shown[place], place, f"  scale {number(scale)}, {decibels(sqnr)}", va="center", fontsize=9)
    axes.invert_yaxis()
    axes.set(xlabel="SQNR of this block, dB", xlim=(0, max(best, 1.0) * 1.35))
    axes.set_title(
        "what each scale rule would do (green: loses least)" if len(rules) > 1 else "its one scale rule"
    )
