"""A quantized model in ONNX Runtime beside the integer reference: what differs, counted by its cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from onnx import ModelProto

from numerics.formats.arguments import keywords
from numerics.model.ipu.fixed import Array, Rounded
from numerics.model.ipu.fused import shown
from numerics.model.ipu.integers import Reference
from numerics.model.ipu.running import opened, run

HALF_EVEN: Final = "conv_even"  # how ONNX Runtime rounds, and X2


@dataclass
class Layer:
    """The integers of one QuantizeLinear.

    tensor: its output's name.  elements, differing: how many; no elements where the runtime's fusions
    leave none of its integers.  ties: of those that differ, midway between two integers, where the
    device's documented rounding is not the runtime's, half to even (X1).  wide: accumulators from 2**24
    on, which float32 does not hold.  near: within 2**-20 of midway, or midway by scales that are no
    powers of two, where the order of float32 operations decides.  own: what the runtime's Softmax in
    integers gives, which cuts the reciprocal of its scale to a whole number.  unexplained: none of these.
    most: the largest difference.
    """

    tensor: str
    elements: int = 0
    differing: int = 0
    ties: int = 0
    wide: int = 0
    near: int = 0
    own: int = 0
    unexplained: int = 0
    most: float = 0

    def take(
        self, came: Array, due: Array, rounded: Rounded | None, own: Rounded | None = None, ties: bool = True
    ) -> None:
        """Counts one batch.  ties: does the device round them in another way than the runtime?"""
        differ = (came != due) & ~((came != came) & (due != due))  # two NaNs are the same
        self.elements += came.size
        self.differing += int(differ.sum())
        if not differ.any():
            return
        self.most = max(self.most, float(np.abs(came.astype(np.float64) - due)[differ].max()))
        tie = wide = near = np.zeros(came.shape, bool)
        if rounded is not None:
            tie, wide, near = rounded.tie & ties, rounded.wide, rounded.near
        causes = {"ties": tie, "wide": wide, "near": near, "own": _is_own(came, own)}
        for name, holds in causes.items():  # each element under the first that holds
            setattr(self, name, getattr(self, name) + int((differ & holds).sum()))
            differ &= ~holds
        self.unexplained += int(differ.sum())


def _is_own(came: Array, own: Rounded | None) -> Array:
    """Where the runtime gave what its own way gives, by one step beside it only where that is near midway."""
    if own is None:
        return np.zeros(came.shape, bool)
    apart = np.abs(came.astype(np.int64) - own.integers)
    return np.asarray((apart == 0) | (own.near & (apart == 1)))


@keywords
def compare(
    model: ModelProto, batches: Sequence[Mapping[str, Array]], device: str = "stx", *, optimized: bool = True,
    by_layer: bool = True,
) -> list[Layer]:  # fmt: skip
    """Returns a Layer for every QuantizeLinear of a quantized model, and for every output.

    The integers are those of the model as the runtime runs it, where its fusions leave them
    (`fused.py`).  The outputs are those of the model as it is, beside those of the one that shows its
    integers.

    model: what `quantize_model` made, or another one of QuantizeLinear and DequantizeLinear.  batches:
    input name -> array, each.  device: whose rounding the reference has.  optimized: with the runtime's
    fusions (the default), or without.  by_layer: each layer from the runtime's own integers before it
    (the default), so that no difference travels on; or all from the inputs alone.  Raises NumericsError
    as `Reference`.

    >>> from numerics.backends.ipu.verify import known_inputs, network
    >>> for device in "stx", "phx":
    ...     print([(row.differing, row.ties) for row in compare(network(3), [{"x": known_inputs()}], device)])
    [(0, 0), (0, 0), (0, 0), (0, 0)]
    [(0, 0), (0, 0), (256, 256), (0, 0)]
    """
    reference = Reference(model, device)
    seen, plain = shown(model, reference.constants, reference.zeros, optimized), opened(model, optimized)
    ties = reference.mode != HALF_EVEN
    layers = {name: Layer(name) for name in reference.zeros}
    for feeds in batches:
        outputs, came = seen.run(feeds)
        found = reference.run(feeds, came if by_layer else None)
        for name in came:
            layers[name].take(
                came[name], found.integers[name], found.rounded.get(name), found.own.get(name), ties
            )
        for name, as_it_is in run(plain, feeds).items():
            layers.setdefault(name, Layer(name)).take(as_it_is, outputs[name], None)
    return list(layers.values())
