"""An image in formats: pixels that share a scale are posterized together, which shows the blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from numerics.backends.host.quantizing import to_host
from numerics.draw.grids import Array, Rounded, array_of, check_options, rounded
from numerics.draw.picture import Picture, canvas, named, styled
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError
from numerics.tensor.qtensor import QTensor
from numerics.tensor.spec import QuantSpec, described
from numerics.view.text import decibels

COLUMNS = 4


@keywords
def image(x: Any, dtype: Any, *, original: bool = True, **options: Any) -> Picture:
    """Draws an image as it becomes in one or several formats: the original first, then a panel a format.

    x: pixels of any range, of shape (height, width) or (height, width, 3); unsigned integers, as files of
        pictures have, count from 0 to 1, in units of the largest of their type.  Those of one row are
        neighbours in blocks, each colour by itself.  What `x` covers, its own mean taken off, is what is
        rounded.
    dtype: what `nx.quantize` takes, a list of such, or a mapping of titles to them.
    original: False leaves the original out.  options: as for `nx.quantize`, for all.
    Raises NumericsError for another shape, for NaN and Inf, for pixels further apart than their type of
    floats can say, for what `nx.quantize` refuses, and where
    matplotlib is missing.

    >>> import numpy as np, numerics as nx
    >>> ramp = np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64)
    >>> nx.draw.image(ramp, ["fp4", "mx9"]).alt
    'An image of 64 x 64 pixels, and the same in fp4 (19.2 dB, 4.008 bits), mx9 (50.5 dB, 9 bits).'
    """
    check_options(image, options, x, dtype)
    pixels = array_of(pixels_of(x))
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise NumericsError(f"an image has shape (height, width) or (height, width, 3), not {pixels.shape}")
    if not np.isfinite(pixels).all():
        raise NumericsError("an image has finite pixels: here some are NaN or Inf")
    wanted = _wanted(dtype)
    middle = _middle(pixels)
    planes = np.moveaxis(pixels, 2, 0) if pixels.ndim == 3 else pixels
    found = {title: rounded(planes - middle, one, **options) for title, one in wanted.items()}
    with styled():
        picture = _panels(pixels, {t: _pixels(r, middle) for t, r in found.items()}, _titles(found), original)
    said = ", ".join(f"{title} ({decibels(r.sqnr)}, {r.q.bits:.4g} bits)" for title, r in found.items())
    height, width = pixels.shape[:2]
    return Picture(picture, f"An image of {width} x {height} pixels, and the same in {said}.")


def pixels_of(x: Any) -> Any:
    """Pixels as numbers: unsigned integers, as files of pictures have, from 0 to 1; all else as it came.

    >>> pixels_of(np.uint8([0, 51, 255])).tolist()
    [0.0, 0.20000000298023224, 1.0]
    """
    if isinstance(x, QTensor) or not str(getattr(x, "dtype", "")).removeprefix("torch.").startswith("uint"):
        return x
    whole = to_host(x)
    return whole.astype(np.float32) / np.float32(np.iinfo(whole.dtype).max)


def _middle(pixels: Array) -> Any:
    """The mean of the pixels; raises NumericsError where they are further apart than their type can say."""
    kind = np.float64 if pixels.dtype.itemsize > 4 else np.float32
    with np.errstate(over="ignore"):
        if not np.isfinite(pixels.max() - pixels.min()):
            raise NumericsError(f"the pixels are further apart than {pixels.dtype} can say: scale them first")
        found = pixels.mean(dtype=np.float64)
    if not np.isfinite(found):  # the sum was not
        found = (pixels / pixels.size).sum(dtype=np.float64)
    return found.astype(kind)


def _wanted(d: Any) -> dict[str, Any]:
    if isinstance(d, Mapping):
        found = dict(d)
    elif isinstance(d, Sequence) and not isinstance(d, str):
        found = {_title(one): one for one in d}
    else:
        found = {_title(d): d}
    if not found:
        raise NumericsError("no format was given: name one, or several")
    return found


def _pixels(found: Rounded, middle: Any) -> Array:
    y = found.y + middle
    return np.moveaxis(y, 0, 2) if y.ndim == 3 else y


def _title(one: Any) -> str:
    return described(one) if isinstance(one, QuantSpec) else str(one)


def _titles(found: dict[str, Rounded]) -> dict[str, str]:
    return {title: f"{named(title)}: {r.q.bits:.3g} bits, {decibels(r.sqnr)}" for title, r in found.items()}


def _panels(pixels: Array, found: dict[str, Array], titles: dict[str, str], original: bool) -> Any:
    shown = ({"": pixels} if original else {}) | found
    columns = min(len(shown), COLUMNS)
    rows = -(-len(shown) // columns)
    height, width = pixels.shape[:2]
    wide = 2.55 if columns > 2 else 3.6
    figure, axes = canvas(rows, columns, (wide * columns, (wide * height / width + 0.3) * rows))
    low, high = float(np.nanmin(pixels)), float(np.nanmax(pixels))
    for panel in axes.flat:
        panel.set_axis_off()
    for panel, (title, data) in zip(axes.flat, shown.items(), strict=False):
        data = np.clip((data - low) / ((high - low) or 1.0), 0, 1)
        panel.imshow(data, cmap="gray", vmin=0, vmax=1)
        panel.set_title(titles.get(title, f"original, {pixels.dtype}"), fontsize=9)
    return figure
