"""What torch.compile must know: which of our functions are constants to it, and which belong in a graph."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from numerics.backends.host import float_bits
from numerics.formats import text
from numerics.pytorch import dispatch, qtensor
from numerics.tensor import spec
from numerics.tensor.scheme import spelled

for _constant in (spec.spec_facts, text.text_of, qtensor.text_of, float_bits.bits_of):
    torch.compiler.assume_constant_result(_constant)
torch.compiler.allow_in_graph(dispatch.wrapped)


class SpecFacts(NamedTuple):
    """What stands for a QuantSpec in a graph, whose constants are texts."""

    text: str
    rounding: str


@torch.compiler.substitute_in_graph(spec.spec_of, skip_signature_check=True)
def _spec_of(given: bool, dtype: Any, scheme: Any, *options: Any) -> Any:
    """A scheme that was made in the graph goes by its text, too."""
    asked = given, dtype, spelled(scheme), *options
    return SpecFacts(spec.spec_facts("text", *asked), spec.spec_facts("rounding", *asked))
