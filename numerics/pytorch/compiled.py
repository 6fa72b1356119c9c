"""What torch.compile must know: which of our functions are constants to it, and which belong in a graph."""

from __future__ import annotations

import torch

from numerics.backends.host import float_bits
from numerics.formats import text
from numerics.pytorch import dispatch, qtensor
from numerics.tensor import spec

for _constant in (spec.recipe_text, text.text_of, qtensor.text_of, float_bits.bits_of):
    torch.compiler.assume_constant_result(_constant)
torch.compiler.allow_in_graph(dispatch.wrapped)
