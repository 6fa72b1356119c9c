"""The scale rules of a format as a picture: bars of what each leaves of one tensor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from numerics.draw.grids import array_of
from numerics.draw.picture import GREEN, SKY, Picture, canvas, named, styled
from numerics.draw.scales import RuleLoss, Scales
from numerics.draw.scales import scales as losses
from numerics.formats.arguments import keywords
from numerics.tensor.spec import described
from numerics.view.text import became, decibels, figure

PLACES = 200.0  # dB that a bar shows at most


@keywords
def scales(x: Any, dtype: Any, **options: Any) -> Picture:
    """Draws what each scale rule of a format leaves of a tensor, as bars, the one that loses least first.

    x, dtype, options: as for `nx.scales`, and so are the errors; NumericsError where matplotlib is missing.

    >>> import numerics as nx
    >>> nx.draw.scales([1.0, 0.3, -0.05, 5.0, 7.4], "mxfp4").alt.partition(";")[0]
    'The scale rules of mxfp4 on 5 values: ceil 17.5 dB, largest error 1, 0 % clipped'
    """
    return pictured(losses(x, dtype, **options), array_of(x).size)


def pictured(found: Scales, count: int) -> Picture:
    """The picture of what each rule leaves of so many values."""
    name = described(found.spec)
    with styled():
        picture = _bars(found, f"the scale rules of {named(name)} on {count:,} values")
    told = "; ".join(f"{one.rule} {_loss(one, 'largest')}" for one in found)
    verdict = "" if found.alike else f" {found.verdict[:1].upper()}{found.verdict[1:]}."
    return Picture(picture, f"The scale rules of {name} on {count:,} values: {told}.{verdict}")


def _loss(one: RuleLoss, largest: str, digits: int = 6) -> str:
    """What a rule loses, in words; nothing of an error that there is none of."""
    error = "" if math.isnan(one.max_error) else f", {largest} error {figure(one.max_error, digits)}"
    lost = f", {became(one.lost)}" if one.lost else ""
    return f"{decibels(one.sqnr)}{error}, {100 * one.clipped:.3g} % clipped{lost}"


def _bars(found: Scales, title: str) -> Any:
    """A bar a rule, with what it loses beside it."""
    picture, axes = canvas(1, 1, (8, 1.6 + 0.42 * max(len(found), 2)))
    panel = axes[0, 0]
    picture.suptitle(title, x=0.01, ha="left")
    shown = [float(np.clip(np.nan_to_num(one.sqnr, posinf=PLACES), 0, PLACES)) for one in found]
    best = max(*shown, 1.0)
    colours = [GREEN if one.rule in found.alike else SKY for one in found]
    panel.barh([one.rule for one in found], shown, color=colours, height=0.7)
    for place, one in enumerate(found):
        panel.text(shown[place], place, f"  {_loss(one, 'max', 4)}", va="center", fontsize=9)
    least = " (green: loses least)" if found.alike else f"; {found.verdict}"
    least = least if len(found) > 1 else ", by the one rule that it has"
    panel.set(xlabel=f"SQNR, dB{least}", xlim=(0, best * 1.9), ylim=(len(found) - 0.4, -0.6))
    return picture
