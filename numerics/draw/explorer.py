"""Explorer: one HTML file, without network, in which every number of a tensor, model or format is explained.

Nothing is computed in the page: what it shows was made here by the kernels, and by the exact judge where it
says what a known deviation would have done.
"""

from __future__ import annotations

import html
import json
import math
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.resources import files
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np

from numerics._version import __version__
from numerics.draw.grids import (
    ALLOWED,
    Array,
    Decoded,
    array_of,
    formats_asked,
    nothing_said,
    rounded,
    why_nothing,
)
from numerics.draw.layers import rows_of
from numerics.draw.pieces import Chosen, Looked, check_pieces, chosen, coded, held_as, looked
from numerics.draw.places import Place, check_somewhere, pieces_at, places_of
from numerics.draw.points import points
from numerics.draw.sources import REPORT, everything_in, names_a_file, report_in
from numerics.draw.stored import along_the_last, axis_of_stored, held, sharing
from numerics.files.replacement import replace_file
from numerics.files.selection import axis_of
from numerics.formats.arguments import keywords
from numerics.formats.dtype import Dtype, Element
from numerics.formats.errors import NumericsError, said
from numerics.formats.registry import dtype
from numerics.tensor.qtensor import QTensor
from numerics.tensor.spec import QuantSpec, described
from numerics.view.describe import facts, plain
from numerics.view.text import printable

FORMATS = ("mxfp4", "nvfp4", "mx6", "int4")
"""What tensors are shown in where nothing is asked for."""
LIMIT = 1_900_000  # bytes of the page's data: a page stays below two million
MOST_PIECES, FEWEST_PIECES = 24, 2  # of a tensor
SMALLEST_PIECE = 2000  # bytes that a piece takes in each format, or more
MOST_TENSORS = 200
NO_ROOM = "no room"
"""Why a tensor is not on a page of which there is something to draw."""


@dataclass(frozen=True, repr=False)
class Page:
    """One HTML file that needs nothing else; made by `explore`.

    html: the whole text.  left_out: why tensors are not on it, and which.

    >>> explore("fp4")
    Page('fp4', 29 kB)
    """

    title: str
    html: str
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Page({self.title!r}, {len(self.html.encode()) // 1000} kB)"

    @keywords
    def save(self, path: Any) -> None:
        """Writes the page, whole or not at all."""
        replace_file(path, self.html.encode())

    def _repr_html_(self) -> str:
        """The page in a frame, for notebooks."""
        return (
            f'<iframe title="{html.escape(self.title)}" srcdoc="{html.escape(self.html)}" '
            'style="width:100%;height:640px;border:1px solid #999"></iframe>'
        )


@keywords
def explore(
    what: Any,
    formats: Iterable[Any] | None = None,
    *,
    tensors: Mapping[str, Any] | None = None,
    at: Any = None,
) -> Page:
    """Returns a page in which each number is explained: code, bits, value, neighbours, tie, error, and what
    other roundings, other scale rules and known deviations would have made of it.

    what: a tensor, or tensors by name; what `nx.report` returned; a format or its name; or the path of a file
        of one of them, as `numerics explore` takes it: a checkpoint, .npy, or .json of a report.
    formats: what `nx.quantize` takes, each; by default mxfp4, nvfp4, mx6 and int4. The first says which parts
        of a tensor are shown: those where it loses most, and some spread over the rest. Beside a format: the
        formats that it is compared with, by default those of as many bits.  A QTensor is shown as it is
        stored, first; formats are what would become of its values, by default others than its own.
    tensors: with a report: the float model's weights by name, shown below its layers; those of another
        model, by their names or shapes, are refused.
    at: what is shown before what loses most: a row, as 17, an index, as (17, 64), or a list of them, of every
        tensor that has it.
    Of tensors so many pieces are on the page that it stays below 2 MB; it says how many are not. Raises what
    `nx.quantize` does, and NumericsError where there is nothing to show.

    >>> import numpy as np
    >>> page = explore({"w": np.linspace(-1, 1, 64, dtype=np.float32)}, ["mxfp4"])
    >>> page.title, "https://" in page.html
    ('w', False)
    """
    places, what = places_of(at), _read(what)
    if places and (_is_format(what) or (tensors is None and _is_report(what))):
        raise NumericsError(f"at={said(at)} is of tensors, and none are explored")
    if _is_format(what):
        return _page(str(dtype(what)), _of_format(dtype(what), formats))
    if _is_report(what):
        layers, output = rows_of(what)
        if isinstance(tensors, Mapping):
            _check_same_model(layers, tensors)
        for one in layers:
            del one["shapes"]
            one["name"], one["formats"] = printable(one["name"]), printable(one["formats"])
        found: dict[str, Any] = {"layers": layers, "output": output}
        title = "model"
    elif tensors is not None:
        raise NumericsError(
            "tensors= stands beside a report of a model: give tensors alone as what is explored"
        )
    else:
        found, title = {}, ""
        tensors = what if isinstance(what, Mapping) else {"tensor": what}
    if tensors is not None and not isinstance(tensors, Mapping):
        raise NumericsError(
            f"tensors= takes tensors by name, as a module's state_dict(), not {said(tensors)}"
        )
    if tensors:
        title = title or (next(iter(tensors)) if len(tensors) == 1 else f"{len(tensors)} tensors")
        found |= _of_tensors(tensors, None if formats is None else formats_asked(formats), places)
    if not found:
        raise NumericsError("there is nothing to explore: no tensor came")
    return _page(str(title), found)


def _check_same_model(layers: Sequence[Mapping[str, Any]], tensors: Mapping[str, Any]) -> None:
    """Raises NumericsError for tensors of another model than the report's, by their names and shapes."""
    due = {name: shape for one in layers for name, shape in one["shapes"].items()}
    shapes = {str(k): _shape(x) for k, x in tensors.items()}
    owners = {one["name"] for one in layers}
    if due and shapes and not any(name in due or name.rpartition(".")[0] in owners for name in shapes):
        raise NumericsError(
            f"the report is of another model: it has {printable(next(iter(due)))}, and none of the "
            f"{len(shapes)} tensors is of a layer of it, such as {printable(next(iter(shapes)))}"
        )
    for name, shape in shapes.items():
        if due.get(name, shape) != shape:
            raise NumericsError(
                f"the report is of another model: {printable(name)} is {due[name]} there, "
                f"{shape} among the tensors"
            )


def _shape(x: Any) -> tuple[int, ...]:
    """The shape of a tensor, or of numbers in a list."""
    return tuple((x if hasattr(x, "shape") else array_of(x)).shape)


def _read(what: Any) -> Any:
    """What a path names: tensors by name, or a report; anything else unchanged.

    Raises NumericsError for a text that is neither a format nor a file, and for a model, which is no tensor.
    """
    if isinstance(what, (str, os.PathLike)):
        try:
            return dtype(what)
        except NumericsError as wrong:
            if not names_a_file(what):
                raise NumericsError(
                    f"{said(what)} is no format, and no file that is there: {wrong}"
                ) from None
        try:
            return report_in(what) if Path(what).suffix == REPORT else everything_in(what)
        except OSError as wrong:
            raise NumericsError(f"cannot read {what}: {wrong.strerror or wrong}") from wrong
    if callable(getattr(what, "state_dict", None)):
        raise NumericsError(
            "a model is explored by its tensors, nx.explore(model.state_dict()), or by what nx.report(model) "
            "returns, with tensors=model.state_dict()"
        )
    return what


def _is_report(what: Any) -> bool:
    return hasattr(what, "as_dict") or (isinstance(what, Mapping) and "layers" in what)


def _is_format(what: Any) -> bool:
    return isinstance(what, (str, Dtype))


def _page(title: str, data: dict[str, Any]) -> Page:
    """The template with the data in it, which cannot end the script that holds it."""
    shown = printable(title)
    text = (
        _json({"title": shown, "version": __version__, **data})
        .replace("<", "\\u003c")
        .replace("\x7f", "\\u007f")
    )
    template = files("numerics.draw").joinpath("explorer.html").read_text(encoding="utf-8")
    values = {"TITLE": html.escape(shown), "MADE": f"numerics {__version__}", "DATA": text}
    page = re.sub("@(TITLE|MADE|DATA)@", lambda found: values[found[1]], template)
    return Page(title, page, data.get("left_out", {}))


def _json(data: Any) -> str:
    try:
        return _dumped(data)
    except (ValueError, TypeError):  # NaN, Inf, or what is no number of Python's: few pages have any
        return _dumped(plain(data))


_dumped = partial(json.dumps, ensure_ascii=True, separators=(",", ":"), allow_nan=False)


# ---- formats ------------------------------------------------------------------------------------


def _of_format(d: Dtype, others: Iterable[Any] | None) -> dict[str, Any]:
    """A format's codes, and its facts beside those of others; of blocks the facts alone."""
    from numerics.formats import dtypes

    if others is None:
        bits = math.floor(getattr(d, "bits", 0))
        beside = [one for one in dtypes() if one is not d and math.floor(getattr(one, "bits", 0)) == bits]
    else:
        beside = [dtype(one) for one in formats_asked(others)]
    found: dict[str, Any] = {"facts": [facts(one) for one in (d, *beside)]}
    if isinstance(d, Element) and d.bits <= 8:
        found["codes"] = points(d, [one for one in beside if isinstance(one, Element)])
    return found


# ---- tensors ------------------------------------------------------------------------------------


def _of_tensors(tensors: Mapping[str, Any], wanted: Sequence[Any] | None, at: list[Place]) -> dict[str, Any]:
    """The tensors' pieces in each format, as many as fit; wanted: None for those that are usual."""
    listed = FORMATS if wanted is None else wanted
    wished = (one if isinstance(one, QuantSpec) else QuantSpec(one) for one in listed)
    specs = {described(spec): spec for spec in wished}
    if not specs:
        raise NumericsError("no format was given: name one, or several")
    reasons = {str(name): "" if isinstance(x, (list, tuple)) else why_nothing(x)
               for name, x in tensors.items()}  # fmt: skip
    kept = {str(name): x for name, x in tensors.items() if not reasons[str(name)]}
    if not kept:
        came = ", ".join(map(nothing_said, islice(tensors.values(), 3)))
        raise NumericsError(
            f"there is nothing to explore: no tensor of floats with elements came, but {came}; {ALLOWED}"
        )
    if at:
        check_somewhere(at, {name: _shape(x) for name, x in kept.items()})
    names = list(kept)[:MOST_TENSORS]
    most = max(FEWEST_PIECES, min(MOST_PIECES, LIMIT // (SMALLEST_PIECE * len(names) * (len(specs) + 1))))
    begun = [
        _begun(name, kept[name], specs if wanted else _others(kept[name], specs), Asked(most, at, k < 2))
        for k, name in enumerate(names)
    ]
    made = iter(coded([one for tensor in begun for one in tensor.looked.values()]))
    every = [tensor.with_formats({text: next(made) for text in tensor.looked}) for tensor in begun]
    shown = _fitting(every, most)
    reasons |= dict.fromkeys(list(kept)[len(shown) :], NO_ROOM)
    left_out: dict[str, list[str]] = {}
    for name, why in reasons.items():
        if why:
            left_out.setdefault(why, []).append(printable(name))
    return {"tensors": shown, "left_out": left_out}


def _others(x: Any, specs: dict[str, QuantSpec]) -> dict[str, QuantSpec]:
    """Of formats that nobody asked for those that a tensor is not stored in, whatever its scheme."""
    if not isinstance(x, QTensor):
        return specs
    return {text: spec for text, spec in specs.items() if spec.dtype is not x.format}


@dataclass(frozen=True)
class Asked:
    """What is asked of a tensor: how many pieces at most, which places, and known deviations or not."""

    most: int
    at: list[Place]
    deviations: bool


def _fitting(every: list[_Tensor], most: int) -> list[dict[str, Any]]:
    """As many pieces of each tensor as fit on a page; fewer tensors where not even one of each does."""
    sizes = [one.bytes_of(most) for one in every]
    while sum(sizes) > LIMIT and most > 1:
        most -= 1
        sizes = [one.bytes_of(most) for one in every]
    count = bisect_right(list(accumulate(sizes)), LIMIT)
    return [one.said(most) for one in every[: max(count, 1)]]


@dataclass(frozen=True)
class _Tensor:
    """What is said of a tensor; its pieces apart: the numbers of each, and what each format makes of them."""

    picked: Chosen
    facts: dict[str, Any]
    formats: dict[str, dict[str, Any]]
    pieces: list[tuple[dict[str, Any], dict[str, Any]]]

    def said(self, most: int) -> dict[str, Any]:
        """The tensor with at most so many pieces, as the page takes it."""
        pieces = [self.pieces[k] for k in self.picked.fewer(most)]
        made = {
            text: {**facts, "pieces": [piece[text] for _, piece in pieces]}
            for text, facts in self.formats.items()
        }
        return {**self.facts, "shown": [own for own, _ in pieces], "in": made}

    def bytes_of(self, most: int) -> int:
        """About how many bytes it takes on the page."""
        return self._bytes[0] + sum(self._bytes[1][k] for k in self.picked.fewer(most))

    @cached_property
    def _bytes(self) -> tuple[int, list[int]]:
        return len(_json((self.facts, self.formats))), [len(_json(piece)) for piece in self.pieces]


@dataclass(frozen=True)
class _Begun:
    """What is said of a tensor before its pieces are encoded with those of others.

    stored: what it is already, by that name.  looked: of each format what is asked of the whole tensor.
    """

    picked: Chosen
    facts: dict[str, Any]
    stored: dict[str, dict[str, Any]]
    looked: dict[str, Looked]

    def with_formats(self, coded: dict[str, dict[str, Any]]) -> _Tensor:
        """The tensor with what each format makes of its pieces."""
        made, axis = {**self.stored, **coded}, self.facts["axis"]
        pieces = [
            {text: said["pieces"][k] for text, said in made.items()} for k in range(len(self.picked.at))
        ]
        shown = zip(self.picked.at, self.picked.rows, self.picked.sizes, strict=True)
        return _Tensor(
            self.picked,
            self.facts,
            {text: {k: v for k, v in said.items() if k != "pieces"} for text, said in made.items()},
            [({"at": [*at[:axis], at[-1], *at[axis:-1]], "x": _numbers(row[:size])}, piece)
             for (at, row, size), piece in zip(shown, pieces, strict=True)],
        )  # fmt: skip


def _begun(name: str, x: Any, specs: Mapping[str, QuantSpec], asked: Asked) -> _Begun:
    """One tensor: its pieces and what each format makes of all of it."""
    own = x if isinstance(x, QTensor) else None
    data = array_of(x)
    data = np.asarray(data.reshape(1) if data.ndim == 0 else data, held_as(data))
    if own is not None:  # what it is already, it does not become
        specs = {text: spec for text, spec in specs.items() if spec != along_the_last(own.spec)}
    axis = _axis(name, data.shape, list(specs.values())) if own is None else axis_of_stored(own)
    shape, data = data.shape, np.ascontiguousarray(np.moveaxis(data, axis, -1))
    length = check_pieces(list(specs.values()), data.ndim, 1 if own is None else sharing(own))
    by = next(iter(specs), None)  # the first format says which pieces are shown
    first = {} if by is None else {by: rounded(data, specs[by])}
    here = pieces_at(asked.at, shape, axis, min(length, shape[axis]))
    picked = chosen(data, data if by is None else first[by].decoded, length, asked.most, here)
    stored = {f"stored ({own.format})": held(own, axis, picked, data)} if own is not None else {}
    found = {}
    for text, spec in specs.items():
        whole = first.pop(text) if text in first else rounded(data, spec)
        found[text] = looked(whole, spec, picked, deviations=asked.deviations)
    return _Begun(
        picked,
        {"name": printable(name), "shape": list(shape), "axis": axis, "piece": min(length, data.shape[-1]),
         "pieces": picked.count, "by": by if picked.worst else None, "asked": picked.asked,
         "was": x.kind if isinstance(x, Decoded) else None, "formats": [*stored, *found]},
        stored,
        found,
    )  # fmt: skip


def _axis(name: str, shape: Sequence[int], specs: Sequence[QuantSpec]) -> int:
    """Along which axis a tensor's pieces lie: as a job lays the longest blocks, or the last."""
    blocked = [spec for spec in specs if spec.blocked]
    if not blocked or any(spec != QuantSpec(spec.dtype) for spec in specs):
        return len(shape) - 1
    return axis_of(name, shape, max(blocked, key=lambda spec: spec.block.block))


def _numbers(x: Array) -> list[float]:
    """Numbers as the page shows them: each exactly."""
    found: list[float] = np.asarray(x, np.float64).tolist()
    return found
