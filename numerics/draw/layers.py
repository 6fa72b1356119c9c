"""A model's layers as a picture: what each loses by itself beside what has gathered up to it, worst first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numerics.draw.picture import BLUE, GREY, ORANGE, ROOM, Picture, canvas, named, styled
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError, integer
from numerics.tensor.qtensor import rank
from numerics.view.text import decibels, many, shortened

ASIDE = 0.12  # of the scale: how far beside it stands what has no place on it


@keywords
def model(report: Any, *, most: int = 30) -> Picture:
    """Draws the layers of a report by what is left of their outputs, in dB, the worst above.

    report: what `nx.report` returned, or its `as_dict()`.  most: how many layers, 30 by default.
    A dot is a layer by itself, on the float model's inputs; a square its output on the quantized model's
    own inputs, with all that layers before it lost.  What is exact stands to the right of the scale, what
    has no SQNR, or one of -inf, to the left of it.  Raises NumericsError for what is no report, and where
    matplotlib is missing.

    >>> import torch, numerics as nx
    >>> net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
    >>> x = torch.linspace(-1, 1, 256).reshape(4, 64)
    >>> nx.draw.model(nx.report(nx.wrap(net, "mxfp4", example=x))).alt.startswith("2 layers, worst first: ")
    True
    """
    layers, output = rows_of(report)
    shown = layers[: max(integer("most", most), 1)]
    with styled():
        figure, axes = canvas(1, 1, (8, 1.9 + 0.26 * len(shown)))
        panel = axes[0, 0]
        places = range(len(shown))
        every = [(_number(one["local"]), _number(one["cumulative"])) for one in shown]
        axis = Axis.of([value for both in every for value in both])
        local, gathered = ([axis.place(value) for value in some] for some in zip(*every, strict=True))
        panel.hlines(places, local, gathered, color=GREY, linewidth=1)
        panel.plot(local, places, "o", color=BLUE, label="by itself")
        panel.plot(gathered, places, "s", color=ORANGE, markersize=5, label="with all before it")
        panel.set_yticks(
            places, [f"{named(_name(one))}  {named(one['formats'], 26)}" for one in shown], fontsize=8
        )
        panel.invert_yaxis()
        panel.grid(axis="x", linewidth=0.4, color="#cccccc")
        panel.set(
            xlabel="SQNR of a layer's output, dB (right is better)", title=_title(layers, shown, output)
        )
        axis.mark(panel)
        figure.legend(loc="outside lower center", ncols=2)
    worst = "; ".join(
        f"{shortened(_name(one), ROOM)} {decibels(_number(one['local']))} by itself, "
        f"{decibels(_number(one['cumulative']))} in all"
        for one in shown[:5]
    )
    return Picture(
        figure, f"{many(len(layers), 'layer')}, worst first: {worst}. The output: {decibels(output)}."
    )


def _title(layers: list[Any], shown: list[Any], output: float) -> str:
    every = many(len(layers), "layer")
    some = f"the worst {len(shown)} of {every}" if len(shown) < len(layers) else every
    return f"{some}; the model's output: {decibels(output)}"


def rows_of(report: Any) -> tuple[list[dict[str, Any]], float]:
    """The layers of a report, worst first, and the SQNR of the output; raises NumericsError for no report."""
    try:
        said = report.as_dict() if hasattr(report, "as_dict") else report
        if not isinstance(said, Mapping):
            raise TypeError
        layers = sorted(
            (dict(one) for one in said["layers"] if not one.get("inside")),
            key=lambda one: (rank(_number(one["local"])), rank(_number(one["cumulative"]))),
        )
        for one in layers:
            one["name"], one["formats"] = str(one["name"]), str(one["formats"])
            shapes = dict(one.get("shapes", {}))
            one["shapes"] = {str(name): tuple(map(int, shape)) for name, shape in shapes.items()}
        output = _number(said["output"])
    except Exception:  # whatever what came raises: it is no report
        raise NumericsError(
            "this is no report of a model: nx.report(model) makes one, and its as_dict() is taken too"
        ) from None
    if not layers:
        raise NumericsError("this report has no layers")
    return layers, output


def _name(one: dict[str, Any]) -> str:
    return " = ".join((one["name"] or "(the model)", *map(str, one.get("also", ()))))


def _number(came: Any) -> float:
    return float(came)


@dataclass(frozen=True)
class Axis:
    """A scale of dB, and beside it places of what is on none: what is exact, and what has no SQNR.

    low, high: the ends of the scale; known: is anything on it?  others: the names of what is beside it, by
    place.
    """

    low: float
    high: float
    known: bool
    others: Mapping[float, str]

    @classmethod
    def of(cls, values: Sequence[float]) -> Axis:
        """The scale of these values."""
        finite = [value for value in values if math.isfinite(value)]
        low, high = min(finite, default=0.0), max(finite, default=0.0)
        aside = ASIDE * max(high - low, 10.0)
        exact = {high + aside: "exact"} if math.inf in values else {}
        return cls(
            low, high, bool(finite), exact | ({low - aside: "none"} if any(map(_is_none, values)) else {})
        )

    def place(self, value: float) -> float:
        """Where a value stands."""
        return value if math.isfinite(value) else (min if _is_none(value) else max)(self.others)

    def mark(self, panel: Any) -> None:
        """Names what is beside the scale, and draws a line between; nothing where all is on it."""
        if not self.others:
            return
        from matplotlib.ticker import MaxNLocator

        near = 0.4 * ASIDE * max(self.high - self.low, 10.0)
        spread = MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values
        ticks = [self.low] * self.known if self.low == self.high else spread(self.low, self.high)
        scale = {float(tick): f"{tick:g}" for tick in ticks if self.low - near <= tick <= self.high + near}
        labels = scale | dict(self.others)
        panel.set_xticks([*labels], [*labels.values()])
        for place in self.others if self.known else ():
            end = self.high if place > self.high else self.low
            panel.axvline((place + end) / 2, color=GREY, linewidth=0.8, linestyle=":")


def _is_none(value: float) -> bool:
    return math.isnan(value) or value == -math.inf
