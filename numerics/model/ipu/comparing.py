"""A quantized model in ONNX Runtime beside the integer reference: what differs, counted by its cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

from numerics.model.ipu.fixed import Array, Rounded
from numerics.model.ipu.integers import Reference, shown
from numerics.model.ipu.running import opened, run


@dataclass
class Layer:
    """The integers of one QuantizeLinear.

    tensor: its output's name.  elements, differing: how many.  ties: of those that differ, midway between
    two integers: the documented rounding of the device decides.  wide: accumulators from 2**24 on, which
    float32 does not hold.  near: within 2**-20 of midway, where the order of float32 operations decides.
    unexplained: none of these.  most: the largest difference.
    """

    tensor: str
    elements: int = 0
    differing: int = 0
    ties: int = 0
    wide: int = 0
    near: int = 0
    unexplained: int = 0
    most: float = 0

    def take(self, came: Array, due: Array, rounded: Rounded | None) -> None:
        """Counts one batch."""
        differ = (came != due) & ~((came != came) & (due != due))  # two NaNs are the same
        self.elements += came.size
        self.differing += int(differ.sum())
        if not differ.any():
            return
        self.most = max(self.most, float(np.abs(came.astype(np.float64) - due)[differ].max()))
        nothing = np.zeros(came.shape, bool)
        tie, wide, near = (nothing,) * 3 if rounded is None else (rounded.tie, rounded.wide, rounded.near)
        self.ties += int((differ & tie).sum())
        self.wide += int((differ & ~tie & wide).sum())
        self.near += int((differ & ~tie & ~wide & near).sum())
        self.unexplained += int((differ & ~tie & ~wide & ~near).sum())


def compare(
    model: ModelProto, batches: Sequence[Mapping[str, Array]], device: str = "stx", *, optimized: bool = True,
    by_layer: bool = True,
) -> list[Layer]:  # fmt: skip
    """Returns a Layer for every QuantizeLinear of a model that `quantize_model` made, and for every output.

    To show its integers the model is changed, which keeps some fusions from it; so the outputs are those of
    the model as it is, beside those of the one that shows its integers.

    batches: input name -> array, each.  device: whose rounding the reference has.  optimized: with the
    runtime's fusions (the default), or without.  by_layer: each layer from the runtime's own integers before
    it (the default), so that no difference travels on; or all from the inputs alone.

    >>> from numerics.backends.ipu.verify import known_inputs, network
    >>> for device in "stx", "phx":
    ...     print([(row.differing, row.ties) for row in compare(network(3), [{"x": known_inputs()}], device)])
    [(0, 0), (0, 0), (0, 0), (0, 0)]
    [(0, 0), (0, 0), (256, 256), (0, 0)]
    """
    reference, session, plain = (
        Reference(model, device),
        opened(shown(model), optimized),
        opened(model, optimized),
    )
    layers: dict[str, Layer] = {}
    for feeds in batches:
        came = run(session, feeds)
        found = reference.run(feeds, came if by_layer else None)
        for name, due in found.integers.items():
            layers.setdefault(name, Layer(name)).take(came[name], due, found.rounded.get(name))
        for name, as_it_is in run(plain, feeds).items():
            layers.setdefault(name, Layer(name)).take(as_it_is, came[name], None)
    return list(layers.values())
