"""A format as a picture: its number line, its binades with what is special, and how fine it is where."""

from __future__ import annotations

from typing import Any

import numpy as np

from numerics.draw.grids import Array, grid, values
from numerics.draw.picture import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, Picture, canvas, named, styled
from numerics.formats.arguments import keywords
from numerics.formats.block import Block, ElementBlock, MicroexponentBlock
from numerics.formats.dtype import Dtype, Element, Float
from numerics.formats.registry import dtype as find_dtype
from numerics.view.text import number

MANY = 2048  # values: more are drawn as a line


@keywords
def format(dtype: Any) -> Picture:
    """Draws a format: every value on a line and by binades, with Inf and NaN, and the steps between.

    dtype: a format or a name, as `nx.dtype` takes it. Of a block format the grid is that of its elements at
    a shared scale of 1, above it what a block consists of.
    Raises NumericsError for an unknown name, and where matplotlib is missing.

    >>> import numerics as nx
    >>> nx.draw.format("fp8_e4m3").save("fp8.png")  # doctest: +SKIP
    """
    d = find_dtype(dtype)
    with styled():
        figure, axes = canvas(3, 1, (8, 7.2), height_ratios=(0.75, 2.6, 1.4))
        figure.suptitle(_title(d), x=0.01, ha="left")
        first, second, third = axes[:, 0]
        if isinstance(d, Block):
            _layout(first, d)
        else:
            _line(first, grid(d))
        _binades(second, d)
        _steps(third, grid(d))
    return Picture(figure, _alt(d))


def _title(d: Dtype) -> str:
    bits = d.bits if isinstance(d, Element) else getattr(d, "bits", "")
    return f"{named(str(d))}: {bits:g} bits{' a value' if d.kind == 'block' else ''} ({named(d.source, 60)})"


def _alt(d: Dtype) -> str:
    found = grid(d)
    least = found[found > 0].min()
    span = f"from {number(float(found[0]))} to {number(float(found[-1]))}"
    smallest = f"the smallest positive one {number(float(least))}"
    if isinstance(d, Block):
        return (
            f"The block format {d}: {d.block} elements of {d.element_bits} bits share a scale of "
            f"{d.scale_bits}; at a scale of 1 an element is one of {len(found)} values {span}, {smallest}."
        )
    has = {"Inf": getattr(d, "has_inf", False), "NaN": getattr(d, "has_nan", False)}
    named_first = sorted(
        has, key=lambda name: not has[name]
    )  # "NaN, no Inf": a no would go on to what follows
    special = ", ".join(name if has[name] else f"no {name}" for name in named_first)
    assert isinstance(d, Element)
    return f"The number format {d}: {1 << d.bits} codes, {span}, {smallest}; {special}."


def _line(axes: Any, found: Array) -> None:
    """Every value where it lies."""
    if len(found) > MANY:
        found = found[:: len(found) // MANY]
    axes.eventplot(found, colors=BLUE, linewidths=0.7, lineoffsets=0, linelengths=1)
    axes.set(yticks=[], title="every finite value, where it lies" + _some(found))
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.02)


def _some(found: Array) -> str:
    return " (some of them)" if len(found) > MANY else ""


def _layout(axes: Any, d: Block) -> None:
    """What a block consists of, bit by bit."""
    parts = [(d.scale_bits, ORANGE, f"scale: {d.scale_bits} bits")]
    if isinstance(d, MicroexponentBlock):
        parts.append((d.micro_bits, GREEN, f"{d.micro_bits} microexponents of 1 bit"))
    elements, left = d.block * d.element_bits, 0
    parts.append((elements, SKY, f"{d.block} elements of {d.element_bits} bits"))
    for width, colour, text in parts:
        axes.barh(0, width, left=left, color=colour, edgecolor="white", height=0.9, label=text)
        left += width
    for k in range(1, d.block):
        axes.plot([left - elements + k * d.element_bits] * 2, [-0.45, 0.45], color="white", linewidth=0.8)
    axes.set(yticks=[], xticks=[], title=f"a block: {left} bits for {d.block} values")
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.margins(x=0.02)
    axes.legend(loc="upper left", bbox_to_anchor=(0, 0), ncols=3, fontsize=9)


def _binades(axes: Any, d: Dtype) -> None:
    """A row a power of two, and in it the values between that and the next."""
    found = grid(d)
    found = found[found > 0]
    least, subnormal = _least_normal(d, found), 0
    exponents = np.floor(np.log2(np.maximum(found, least))).astype(int)
    places = found / np.ldexp(1.0, exponents)
    low = places < 1
    size = 16 if len(found) < 200 else 4 if len(found) < MANY else 0.5
    axes.scatter(places[~low], exponents[~low], s=size, color=BLUE, label="normal", linewidths=0)
    if low.any():
        axes.scatter(places[low], exponents[low], s=size, color=ORANGE, label="subnormal", linewidths=0)
        subnormal = int(low.sum())
    if 0 in grid(d):
        axes.scatter([0], [exponents.min()], s=24, facecolors="none", edgecolors=GREY, label="zero")
    if isinstance(d, Float):
        _specials(axes, d)
    axes.set(
        xlim=(-0.06, 2.06), xlabel="significand", ylabel="exponent",
        title=f"positive values by binades: {len(found) - subnormal} normal, {subnormal} subnormal",
    )  # fmt: skip
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_xticks([0, 0.5, 1, 1.5, 2])
    for handle in axes.legend(loc="upper left", fontsize=9, handletextpad=0.2).legend_handles:
        handle.set_sizes([26])


def _least_normal(d: Dtype, found: Array) -> float:
    if isinstance(d, ElementBlock):
        return d.element.smallest_normal * d.element_unit
    if isinstance(d, Float):
        return d.smallest_normal
    return float(found[0])


def _specials(axes: Any, d: Float) -> None:
    """Inf and NaN where their codes stand among the numbers."""
    every = values(d)[: 1 << (d.exponent + d.mantissa)]
    for wanted, marker, colour, name in ((np.isinf, "^", PURPLE, "Inf"), (np.isnan, "x", RED, "NaN")):
        codes = np.flatnonzero(wanted(every))
        if len(codes) == 0:
            continue
        exponents = (codes >> d.mantissa) - d.bias
        places = 1 + (codes & ((1 << d.mantissa) - 1)) / (1 << d.mantissa)
        axes.scatter(places, exponents, marker=marker, s=26, color=colour, linewidths=1.2, label=name)


def _steps(axes: Any, found: Array) -> None:
    """The step to the next value, against the value itself."""
    found = found[found > 0]
    if len(found) < 2:
        return
    gaps = np.diff(found) / found[:-1]
    axes.step(found, np.append(gaps, gaps[-1]), where="post", color=GREEN, linewidth=1.4)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set(
        xlabel="value", ylabel="step / value",
        title=f"how fine: at best a step is {_share(gaps.min())}",
    )  # fmt: skip


def _share(gap: float) -> str:
    """How large a step is beside the value that it begins at."""
    if gap < 1:
        return f"1/{round(1 / gap)} of the value"
    return "as large as the value" if gap == 1 else f"{gap:g} times the value"
