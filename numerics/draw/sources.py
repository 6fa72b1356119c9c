"""Tensors and reports out of files, for pictures and pages."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from numerics.backends.paths import check_regular
from numerics.draw.grids import ALLOWED, Array, Decoded, nothing_said, why_nothing
from numerics.draw.image import pixels_of
from numerics.files.arrays import ENDINGS as ARRAYS
from numerics.files.arrays import arrays_in
from numerics.files.replacement import check_inputs
from numerics.formats.errors import NumericsError, hint
from numerics.formats.text import json_in
from numerics.tensor.qtensor import QTensor
from numerics.tensor.spec import described
from numerics.view.text import many, some_of

REPORT = ".json"
ENDINGS = (".safetensors", *ARRAYS, REPORT)
"""Of names that are files' alone, whether they are there or not."""

SOME = 5  # names that stand for all
A_REPORT = "json.dumps(nx.report(model).as_dict()) makes one"


def names_a_file(path: Any) -> bool:
    """Is that the path of a file, there or not, rather than the name of a format?"""
    return os.path.exists(path) or Path(path).suffix in ENDINGS


def tensors_in(path: Any) -> dict[str, Any]:
    """The tensors of floats that `everything_in` finds; raises NumericsError where there are none."""
    return _with_floats(path, everything_in(path))


def _with_floats(path: Any, found: Mapping[str, Any]) -> dict[str, Any]:
    """Those that there is something to draw of; raises NumericsError where there are none."""
    kept = {name: x for name, x in found.items() if not why_nothing(x)}
    if not found:
        raise NumericsError(f"{path} has no tensors")
    if not kept:
        each = some_of([nothing_said(x, name) for name, x in found.items()], SOME)
        raise NumericsError(
            f"{path} has no tensor of floats with elements among its {len(found)}: {each}; {ALLOWED}"
        )
    return kept


def everything_in(path: Any) -> dict[str, Any]:
    """The tensors in a .npy or .npz file, or in a checkpoint of any kind, by name.

    A lone array has its file's name.  Tensors that were quantized come as QTensors, or as Decoded where none
    holds them.  Raises NumericsError for other files.
    """
    path = Path(path)
    if path.suffix in ARRAYS:
        check_inputs(path)
        return arrays_in(path)
    from numerics.checkpoints.loading import loaded, open_any  # late: pictures of arrays need none of it

    opened = open_any(path)
    found = loaded(opened)
    for name in opened.names:
        stored, x = opened.stored(name), found[name]
        if stored is not None and stored.kind and isinstance(x, np.ndarray) and stored.nbytes < x.nbytes:
            found[name] = Decoded.of(x, stored.kind)
    return found


def tensor_in(path: Any, name: str | None) -> tuple[str, Any]:
    """The tensor of that name, and its name; without one the file must hold one alone."""
    every = everything_in(path)
    if name in every and why_nothing(every[name]):
        raise NumericsError(
            f"{path}: there is nothing to draw of {nothing_said(every[name], name)}; {ALLOWED}"
        )
    found = _with_floats(path, every)
    if name is None and len(found) == 1:
        return next(iter(found.items()))
    some = ", ".join(list(found)[:SOME])
    if name is None:
        raise NumericsError(f"{path} has {len(found)} tensors: name= says which, such as {some}")
    if name not in found:
        held = f"{many(len(found), 'tensor')} of floats, such as {some}"
        raise NumericsError(f"{path} has no tensor {name!r};{hint(name, found)} it has {held}")
    return name, found[name]


def stored_as(x: Any) -> str | None:
    """In which format the values of a tensor of a file were stored; None where they are plain floats."""
    if isinstance(x, Decoded):
        return x.kind
    return described(x.spec) if isinstance(x, QTensor) else None


def report_in(path: Any) -> Mapping[str, Any]:
    """A report of a model: JSON of what `nx.report(...).as_dict()` returned."""
    check_inputs(path)
    check_regular(Path(path))
    try:
        said = json_in(Path(path).read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise NumericsError(f"{path} is not JSON, but bytes that are no text: {A_REPORT}") from None
    except ValueError as wrong:
        raise NumericsError(f"{path} is not JSON: {wrong}") from None
    if not isinstance(said, dict) or "layers" not in said:
        raise NumericsError(f"{path} is no report of a model: {A_REPORT}")
    return said


def image_in(path: Any) -> Array:
    """The pixels of a picture's file, from 0 to 1; what is transparent counts as it is."""
    try:
        from matplotlib import image
    except ImportError as missing:
        raise NumericsError(
            f"images need {missing.name}, which is not installed: pip install 'numerics-formats[plot]'"
        ) from None
    check_inputs(path)
    check_regular(Path(path))
    try:
        found: Array = np.asarray(image.imread(path))
    except (ValueError, SyntaxError, OSError) as wrong:
        if isinstance(wrong, FileNotFoundError):
            raise
        raise NumericsError(f"{path} is no picture that can be read: {wrong}") from None
    pixels: Array = pixels_of(found)
    return pixels[..., :3] if pixels.ndim == 3 else pixels
