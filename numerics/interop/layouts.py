"""How codes and scales lie for other people's kernels: orders of the same bytes, each with its inverse.

For NumPy arrays and for torch tensors on any device: nothing is computed, only cut, padded and permuted.

>>> import numpy as np
>>> words = pack_words(np.arange(8, dtype=np.uint8).reshape(1, 8), "uint4")
>>> words.shape, hex(int(words[0, 0]))
((1, 1), '0x76543210')
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from numerics.backends.host.tensors import is_tensor
from numerics.backends.partition import as_shape, check_axis
from numerics.formats.arguments import answer_calls, keywords, named_fields
from numerics.formats.dtype import Integer
from numerics.formats.errors import NumericsError, integer, said
from numerics.formats.registry import dtype as find_dtype
from numerics.interop.native import check_array, check_kind, check_range


@named_fields
@dataclass(frozen=True)
class ScaleLayout:
    """Where a kernel wants the one-byte scales of a matrix: tile after tile, row by row of tiles.

    rows, columns: the factors into which an index of a row or a column of a tile is cut, outermost
    first; their products are the tile's size.  order: the factors, those of rows counted first, as
    they lie in a tile's memory, outermost first.

    >>> CUBLAS.tile, CDNA4.tile
    ((128, 4), (32, 8))
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    order: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            factors = as_shape(getattr(self, name))
            if not factors or min(factors) < 1:
                raise NumericsError(f"{name}={said(getattr(self, name))} are not factors: 1 and more")
            object.__setattr__(self, name, factors)
        order = as_shape(self.order)
        if sorted(order) != list(range(len(self.rows) + len(self.columns))):
            raise NumericsError(
                f"order={said(self.order)} does not name each factor of rows and columns once"
            )
        object.__setattr__(self, "order", order)

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns of a tile."""
        return math.prod(self.rows), math.prod(self.columns)

    @keywords
    def arrange(self, scales: Any) -> Any:
        """Returns scales [..., rows, blocks of a row] as the kernel's bytes [..., bytes of a matrix].

        scales: any type of one byte, row by row as `QTensor.scale` gives them.  Rows and columns are
        filled up to whole tiles with bytes of zero.  Raises NumericsError for another type or shape.

        >>> import numpy as np
        >>> CUBLAS.arrange(np.arange(8, dtype=np.uint8).reshape(2, 4))[:20]
        array([0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 5, 6, 7],
              dtype=uint8)
        """
        _check_bytes(scales)
        lead, tiles = self._tiles(tuple(scales.shape))
        (height, width), (rows, columns) = self.tile, tiles
        data = _filled(_as_kind(scales, "uint8"), rows * height, columns * width)
        cut = data.reshape(math.prod(lead), rows, *self.rows, columns, *self.columns)
        laid = _permuted(cut, self._axes).reshape(*lead, rows * height * columns * width)
        return _as_kind(laid, scales.dtype)

    @keywords
    def restore(self, arranged: Any, shape: Sequence[int]) -> Any:
        """Returns the scales that `arrange` put in the kernel's order, what filled up the tiles cut off.

        arranged: bytes [..., bytes of a matrix].  shape: of the scales, [..., rows, blocks of a row].  Raises
        NumericsError when the bytes are not as many as the shape needs.

        >>> import numpy as np
        >>> scales = np.arange(10, dtype=np.uint8).reshape(2, 5)
        >>> bool((CDNA4.restore(CDNA4.arrange(scales), (2, 5)) == scales).all())
        True
        """
        _check_bytes(arranged)
        shape = as_shape(shape)
        lead, tiles = self._tiles(shape)
        (height, width), (rows, columns) = self.tile, tiles
        need = (*lead, rows * height * columns * width)
        if tuple(arranged.shape) != need:
            raise NumericsError(f"scales of shape {tuple(shape)} lie in {need}, not {tuple(arranged.shape)}")
        factors = (*self.rows, *self.columns)
        cut = arranged.reshape(math.prod(lead), *tiles, *(factors[k] for k in self.order))
        back = sorted(range(len(self._axes)), key=self._axes.__getitem__)
        whole = _permuted(cut, tuple(back)).reshape(*lead, rows * height, columns * width)
        return whole[..., : shape[-2], : shape[-1]]

    @property
    def _axes(self) -> tuple[int, ...]:
        """Matrix, row of tiles, column of tiles, factors in their order: among the axes of the cut scales."""
        between = 2 + len(self.rows)
        places = [*range(2, between), *range(between + 1, between + 1 + len(self.columns))]
        return (0, 1, between, *(places[k] for k in self.order))

    def _tiles(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, int]]:
        """The leading axes of scales of that shape, and how many tiles a matrix takes either way."""
        if len(shape) < 2:
            raise NumericsError(f"scales are [..., rows, blocks of a row], not of shape {shape}")
        height, width = self.tile
        return shape[:-2], (-(-shape[-2] // height), -(-shape[-1] // width))


CUBLAS = ScaleLayout(rows=(4, 32), columns=(4,), order=(1, 0, 2))
"""NVIDIA's tensor cores: tiles of 128 by 4, each as 32 by 16 (cuBLAS, "1D Block Scaling Factors Layout").

What fills up a tile is zero, as that page says.
"""

CDNA4 = ScaleLayout(rows=(2, 16), columns=(2, 4), order=(3, 1, 2, 0))
"""AMD's gfx950: tiles of 32 by 8 in the order of its scaled MFMA (Triton, CDNA4MXScaleLayout).

Triton takes whole tiles only; filling them up with zeros is ours.
"""

AWQ = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which element lies in which nibble of an AWQ word, lowest first (AutoAWQ; Quark's pack.py)."""


@keywords
def pack_words(codes: Any, dtype: Any, *, axis: int = -1, order: Sequence[int] | None = None) -> Any:
    """Returns integer codes in int32 words along an axis, the first in the lowest bits.

    codes: uint8 of an integer format of 2, 4 or 8 bits, any shape.  dtype: the format, or its name.  axis:
    along which 32 / bits neighbours become one word.  A word holds the values less the format's least: signed
    ones in offset binary, as compressed-tensors' pack-quantized stores them, unsigned ones as they are, as
    GPTQ (axis 0) and AWQ (order=AWQ) do.  order: which element of a word's worth lies where, lowest bits
    first.  The last word is filled up with zeros.  Raises NumericsError for other formats (versions of
    compressed-tensors differ on 3, 5, 6 and 7 bits) and orders.

    >>> import numpy as np
    >>> pack_words(np.array([1, 15, 8], np.uint8), "int4")             # 1, -1, -8
    array([121], dtype=int32)
    >>> pack_words(np.arange(8, dtype=np.uint8), "uint4", order=AWQ) == 0x75316420
    array([ True])
    """
    d, places = _word_of(dtype, order)
    check_kind(codes, d.code_dtype, f"codes of {d}")
    check_range(codes, d)
    axis = check_axis(axis, tuple(codes.shape))
    plain = codes ^ _offset(d)
    lines, fields = plain.swapaxes(axis, -1), 32 // d.bits
    count = -(-lines.shape[-1] // fields)
    filled = _filled(lines[..., None, :], 1, count * fields).reshape(*lines.shape[:-1], count, fields)
    words = d.pack(filled[..., places]).reshape(-1, 4)
    return _as_kind(words, "int32").reshape(*lines.shape[:-1], count).swapaxes(axis, -1)


@keywords
def unpack_words(
    words: Any, dtype: Any, length: int, *, axis: int = -1, order: Sequence[int] | None = None
) -> Any:
    """Returns the codes that `pack_words` put into int32 words: `length` of them along the axis.

    dtype, axis, order: as for `pack_words`.  Raises NumericsError for words that are not int32 or not as many
    as the length needs.

    >>> import numpy as np
    >>> unpack_words(np.array([121], np.int32), "int4", 3)
    array([ 1, 15,  8], dtype=uint8)
    """
    d, places = _word_of(dtype, order)
    check_kind(words, "int32", f"words of {d}")
    axis, length = check_axis(axis, tuple(words.shape)), integer("length", length)
    came, need = words.shape[axis], -(-length * d.bits // 32)
    if came != need or length < 0:
        raise NumericsError(f"{said(length)} codes of {d} are {said(need)} words, but {came} came")
    lines, fields = words.swapaxes(axis, -1), 32 // d.bits
    packed = _as_kind(_in_line(lines), "uint8")
    codes = d.unpack(packed, (*lines.shape, fields))[..., sorted(range(fields), key=places.__getitem__)]
    whole = codes.reshape(*lines.shape[:-1], need * fields)[..., :length]
    return (whole ^ _offset(d)).swapaxes(axis, -1)


def _word_of(dtype: Any, order: Sequence[int] | None) -> tuple[Integer, list[int]]:
    """The format and the order of the fields of a word, checked."""
    d = find_dtype(dtype)
    if not isinstance(d, Integer) or d.bits not in (2, 4, 8):
        raise NumericsError(f"words hold integers of 2, 4 or 8 bits, not {d}")
    fields = range(32 // d.bits)
    try:
        places = list(fields) if order is None else [integer("order", place) for place in order]
    except Exception:  # whatever what came raises: it is no order
        places = []
    if sorted(places) != list(fields):
        raise NumericsError(
            f"order={said(order)} does not say where each of {len(fields)} {d} lies in a word"
        )
    return d, places


def _offset(d: Integer) -> int:
    """What turns two's complement into offset binary: the sign bit."""
    return 1 << (d.bits - 1) if d.signed else 0


# ---- arrays and tensors alike ----------------------------------------------------------------------


def _check_bytes(x: Any) -> None:
    check_array(x)
    if x.dtype.itemsize != 1:
        raise NumericsError(f"scales of one byte are laid out so, not {x.dtype}")


def _as_kind(x: Any, kind: Any) -> Any:
    """Returns the same memory as another type."""
    if not is_tensor(x):
        return x.view(kind)
    import torch

    return x.view(getattr(torch, kind) if isinstance(kind, str) else kind)


def _in_line(x: Any) -> Any:
    """x in C order and one dimension, neighbours side by side in memory."""
    flat = x.reshape(-1)
    if not is_tensor(x):
        return np.ascontiguousarray(flat)
    import torch

    return flat if flat.stride(0) == 1 else flat.clone(memory_format=torch.contiguous_format)


def _permuted(x: Any, axes: tuple[int, ...]) -> Any:
    return x.permute(axes) if is_tensor(x) else x.transpose(axes)


def _filled(x: Any, rows: int, columns: int) -> Any:
    """x with zeros after its rows and columns, up to that many."""
    height, width = x.shape[-2:]
    if not is_tensor(x):
        beyond = [(0, 0)] * (x.ndim - 2) + [(0, rows - height), (0, columns - width)]
        return np.pad(x, beyond)
    import torch

    return torch.nn.functional.pad(x, (0, columns - width, 0, rows - height))


answer_calls(__name__)
