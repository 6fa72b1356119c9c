"""What torch.compile must know: which of our functions are constants to it, and which belong in a graph."""

from __future__ import annotations

import torch

from numerics import face, recipe, spelling, subclass
from numerics.backends import words

for _constant in (recipe.recipe_text, spelling.text_of, subclass.text_of, words.bits_of):
    torch.compiler.assume_constant_result(_constant)
torch.compiler.allow_in_graph(face.wrapped)
