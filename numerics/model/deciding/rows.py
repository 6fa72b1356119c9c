"""Row: one line of a plan, and how many bytes what it says takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from numerics.tensor.spec import QuantSpec, described

if TYPE_CHECKING:
    from numerics.model.looking.trace import Site


@dataclass(frozen=True)
class Row:
    """One line of a plan.

    kind: parameter, buffer, activation (what goes into a product), output (what comes out), norm (one over
    batches, folded or not), cache (keys and values that a model keeps) or module (one that the example never
    called).  name: its own, or that of its site.  shape: of the parameter, or as the example had it; -1 for a
    size that a graph leaves open.  spec: how it is quantized; None where it is not.  observer: what finds its
    scale beforehand; None where each tensor brings its own.  reason: why.  uses: the operations that take it.
    also: its other names.  graph: only a graph reaches it.  value_bits: of one value where it is not
    quantized.  weights: the parameters that a computed tensor is multiplied with.  group: with the others of
    that name it shares one scale; None for a scale of its own.
    """

    kind: str
    name: str
    shape: tuple[int, ...]
    spec: QuantSpec | None
    reason: str
    uses: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    observer: str | None = None
    site: Site | None = None
    graph: bool = False
    value_bits: int = 32
    weights: tuple[str, ...] = ()
    group: str | None = None

    @property
    def quantizer(self) -> str:
        """The name of its quantizer: its group's, or its own."""
        return self.group or self.name

    @property
    def names(self) -> tuple[str, ...]:
        """All its names."""
        return (self.name, *self.also)

    @property
    def size(self) -> int:
        """How many values it has."""
        return math.prod(n for n in self.shape if n >= 0)

    @property
    def format(self) -> str:
        """Its format and scales in a few words; "-" where it stays as it is."""
        if self.spec is None:
            return "-"
        said = described(self.spec) + (f" by {self.observer}" if self.observer else "")
        return said + (f", one scale for {self.group}" if self.group else "")

    @property
    def short(self) -> str:
        """Which of its groups or blocks are shorter than asked, as `QuantSpec.short` says it."""
        return "" if self.spec is None else self.spec.short(self.shape)

    @property
    def told(self) -> str:
        """The reason as tables show it, with what is said of short groups or blocks."""
        return f"{self.reason}; {self.short}" if self.short else self.reason

    @property
    def nbytes(self) -> int:
        """How many bytes it takes as it is planned."""
        return self.unplanned_nbytes if self.spec is None else stored_bytes(self.spec, self.shape)

    @property
    def unplanned_nbytes(self) -> int:
        """How many bytes it takes in the model, before a plan."""
        return self.size * self.value_bits // 8


def told_scales(asked: QuantSpec, spec: QuantSpec, shape: tuple[int, ...], outputs: int | None = None) -> str:
    """What a reason adds of scales that a channel has: where planning chose the axis, or several share one.

    asked: the spec as it was given.  spec: as it became.  outputs: the axis of a
    convolution's output channels.

    >>> asked = QuantSpec("int8", scheme="per_channel(0)")
    >>> told_scales(asked, QuantSpec("int8", scheme="per_token"), (4, 64, 32))
    ': 256 scales, one for each output channel of 4 x 64'
    >>> asked = QuantSpec("int8", scheme="per_channel(1)")
    >>> told_scales(asked, asked, (4, 64, 32))
    ': 64 scales, one for each index of axis 1 alone'
    """
    if asked.blocked or asked.scheme is None or asked.scheme.kind != "per_channel":
        return ""
    count = math.prod(spec.shared_shape(shape))
    if spec.scheme == asked.scheme:
        single = len(shape) < 3 or outputs is not None
        return "" if single else f": {count} scales, one for each index of axis {asked.scheme.axis} alone"
    rest = [n for n, scales in zip(shape, spec.shared_shape(shape), strict=False) if scales == n]
    of = f" of {' x '.join(map(str, rest))}" if len(shape) > 2 and outputs is None else ""
    return f": {count} scales, one for each output channel{of}"


def stored_bytes(spec: QuantSpec, shape: tuple[int, ...]) -> int:
    """How many bytes a tensor of that shape takes, its scales and zero points counted."""
    codes = spec.packed_bytes(shape)
    if not spec.scaled:
        return codes
    if spec.blocked:
        d = spec.block
        beside = math.prod(spec.shared_shape(shape)) if d.scale_beside else 0
        return codes + beside + (4 if d.has_tensor_scale else 0)
    shares = math.prod(spec.shared_shape(shape))
    return codes + shares * (4 + (0 if spec.symmetric else 4))
