"""Pictures: of formats, of roundings, and of what becomes of your tensors, blocks, images and models.

Each function computes with the library's own kernels and returns a `Picture`: a matplotlib figure, a
sentence that says what is on it for those who cannot see it, and `save`.  Needs `numerics-formats[plot]`.

>>> import numerics as nx
>>> nx.draw.format("fp4").alt.partition(":")[0]
'The number format fp4'
"""

from __future__ import annotations

from numerics.draw.block import block
from numerics.draw.explorer import Page, explore
from numerics.draw.formats import formats
from numerics.draw.image import image
from numerics.draw.layers import model
from numerics.draw.numberline import format
from numerics.draw.picture import Picture
from numerics.draw.rules import scales
from numerics.draw.stairs import rounding
from numerics.draw.tensor import tensor
from numerics.formats.arguments import answer_calls

__all__ = ["Page", "Picture", "block", "explore", "format", "formats", "image", "model", "rounding", "scales",
           "tensor"]  # fmt: skip

answer_calls(__name__)
