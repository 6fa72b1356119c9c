"""Keys or values of one layer of a cache, packed as they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from numerics.formats.errors import NumericsError
from numerics.quantization import fake_quantize, quantize
from numerics.tensor.qtensor import QTensor
from numerics.tensor.spec import QuantSpec

SERVED = ("DynamicCache", "StaticCache", "EncoderDecoderCache")
"""transformers' caches whose keys and values can be quantized."""
MOST = 16
"""So many pieces of a cache are kept before they are made one."""


class Stored:
    """Keys or values of one layer, packed as they come; of shape (batch, heads, tokens, width).

    spec: their format; None leaves them floats.  pieces: by the calls that brought them, each in parts along
    the batch, so that rows change places without being decoded.
    """

    def __init__(self, spec: QuantSpec | None) -> None:
        self.spec = spec
        self.pieces: list[list[Any]] = []
        self.learned = False

    def add(self, x: Tensor) -> Tensor:
        """Packs the tokens of a call; returns all, with the gradient of those, straight through."""
        learns = torch.is_grad_enabled() and x.requires_grad
        if learns and self.learned:
            raise NumericsError(
                "the keys and values of an earlier call are packed, and no gradient comes back to it: "
                "use_cache=False in training, or torch.no_grad()"
            )
        before = [self.values()] if self.pieces else []
        self.learned = learns
        came = x if self.spec is None else fake_quantize(x, self.spec)
        self.pieces.append([x.detach() if self.spec is None else quantize(x.detach(), self.spec)])
        if len(self.pieces) > MOST:
            self._join()
        return torch.cat([*before, came], -2)

    def values(self) -> Tensor:
        """All of them, as floats."""
        return torch.cat([torch.cat([_floats(part) for part in parts], 0) for parts in self.pieces], -2)

    @property
    def tokens(self) -> int:
        """How many there are."""
        return sum(parts[0].shape[-2] for parts in self.pieces)

    @property
    def nbytes(self) -> int:
        """How many bytes they take."""
        return sum(part.nbytes for parts in self.pieces for part in parts)

    def crop(self, count: int) -> None:
        """Takes so many tokens away, the last ones."""
        while count > 0 and self.pieces:
            last = self.pieces.pop()
            tokens = last[0].shape[-2]
            if tokens > count:
                self.pieces.append([part[..., : tokens - count, :] for part in last])
            count -= tokens

    def select(self, rows: Sequence[int]) -> None:
        """Takes rows of the batch, in that order."""
        found = []
        for parts in self.pieces:
            every = [part[k : k + 1] for part in parts for k in range(part.shape[0])]
            found.append([every[row] for row in rows])
        self.pieces = found

    def _join(self) -> None:
        """Makes all pieces one, where that has the same values: a format can have two codes for one."""
        values, spec = self.values(), self.spec
        found = spec is None or spec.blocked or not spec.scaled  # scales are found again, or there are none
        given: dict[str, Any] = (
            {} if found else {name: self._beside(name) for name in ("scale", "zero_point")}
        )
        whole = values if spec is None else quantize(values, spec, **given)
        if torch.equal(_floats(whole), values):
            self.pieces = [[whole]]

    def _beside(self, name: str) -> Tensor | None:
        """The scales or the zero points of all pieces; None where the format has none."""
        every = [[getattr(part, name) for part in parts] for parts in self.pieces]
        if every[0][0] is None:
            return None
        return torch.cat([torch.cat(parts, 0) for parts in every], -2)


def _floats(part: Any) -> Tensor:
    found: Tensor = part.dequantize() if isinstance(part, QTensor) else part
    return found
