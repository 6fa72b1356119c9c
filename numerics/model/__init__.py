"""Models: a plan of what gets which format and why, and models that follow it, eager or as graphs.

`nx.plan`, `nx.wrap` and their like are its face.  By their modules are reached: `compressed_tensors`, which
writes checkpoints of that kind, and `huggingface`, what transformers knows us by.

>>> import numerics as nx
>>> nx.model.compressed_tensors.save.__name__
'save'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numerics.formats.arguments import answer_calls
from numerics.formats.forking import reached

if TYPE_CHECKING:  # what __getattr__ imports when it is first asked for
    from numerics.model import compressed_tensors as compressed_tensors
    from numerics.model import huggingface as huggingface

__all__ = ["compressed_tensors", "huggingface"]

if not TYPE_CHECKING:
    __getattr__ = reached(__name__, __all__)

answer_calls(__name__)
