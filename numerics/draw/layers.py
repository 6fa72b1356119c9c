"""A model's layers as a picture: what each loses by itself beside what has gathered up to it, worst first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from numerics.draw.grids import decibels
from numerics.draw.picture import BLUE, GREY, ORANGE, ROOM, Picture, canvas, named, styled
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError, integer
from numerics.view.text import shortened

EXACT = 160.0  # dB: where an exact layer is drawn


@keywords
def model(report: Any, *, most: int = 30) -> Picture:
    """Draws the layers of a report by what is left of their outputs, in dB, the worst above.

    report: what `nx.report` returned, or its `as_dict()`.  most: how many layers, 30 by default.
    A dot is a layer by itself, on the float model's inputs; a square its output on the quantized model's
    own inputs, with all that layers before it lost.  Raises NumericsError for what is no report, and where
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
        local = [_at(one["local"]) for one in shown]
        gathered = [_at(one["cumulative"]) for one in shown]
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
        figure.legend(loc="outside lower center", ncols=2)
    worst = "; ".join(
        f"{shortened(_name(one), ROOM)} {decibels(_number(one['local']))} by itself, "
        f"{decibels(_number(one['cumulative']))} in all"
        for one in shown[:5]
    )
    return Picture(figure, f"{len(layers)} layers, worst first: {worst}. The output: {decibels(output)}.")


def _title(layers: list[Any], shown: list[Any], output: float) -> str:
    some = (
        f"the worst {len(shown)} of {len(layers)} layers"
        if len(shown) < len(layers)
        else f"{len(layers)} layers"
    )
    return f"{some}; the model's output: {decibels(output)}"


def rows_of(report: Any) -> tuple[list[dict[str, Any]], float]:
    """The layers of a report, worst first, and the SQNR of the output; raises NumericsError for no report."""
    try:
        said = report.as_dict() if hasattr(report, "as_dict") else report
        if not isinstance(said, Mapping):
            raise TypeError
        layers = sorted(
            (dict(one) for one in said["layers"] if not one.get("inside")),
            key=lambda one: (_number(one["local"]), _number(one["cumulative"])),
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


def _at(came: Any) -> float:
    value = _number(came)
    return EXACT if value == math.inf else 0.0 if value != value else value
