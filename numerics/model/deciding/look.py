"""What planning knows of a model while it decides, and what rules change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from numerics.formats.errors import NumericsError
from numerics.model.deciding.rows import Row
from numerics.model.deciding.rules import Asked, Rule
from numerics.model.looking.trace import Found, Use
from numerics.tensor.scheme import per_channel, per_group, per_output
from numerics.tensor.spec import QuantSpec


@dataclass
class Look:
    """A model as planning sees it: its modules, what was seen, what is asked, what is decided so far.

    asked: formats by `weights`, `activations`, `outputs`, `biases`, `caches`.  found: what `trace` saw.
    rows: those of parameters first, which the others look at.  folded: normalizations, and the convolutions
    that take them in.  closed: why no graph could be looked at.
    """

    model: nn.Module
    asked: dict[str, QuantSpec | None]
    rules: Asked
    observer: str | None
    mode: str
    device: str
    fold: bool
    share: bool
    found: Found = field(default_factory=Found)
    rows: list[Row] = field(default_factory=list)
    folded: dict[str, str] = field(default_factory=dict)
    closed: str = ""

    def __post_init__(self) -> None:
        self.modules = dict(self.model.named_modules(remove_duplicate=False))

    def owners(self, names: Sequence[str]) -> list[tuple[str, nn.Module | None]]:
        """The modules of parameters, with their names."""
        owners = dict.fromkeys(name.rpartition(".")[0] for name in names)
        return [(name, self.modules.get(name)) for name in owners]

    def renormed(self, name: str, parts: Sequence[str] = ("_g", "_v", "_orig")) -> bool:
        """Does a hook of torch.nn.utils.weight_norm or spectral_norm make a weight of it?"""
        owner, _, leaf = name.rpartition(".")
        hooks = self.modules[owner]._forward_pre_hooks.values()
        made = [hook.name for hook in hooks if isinstance(hook, (WeightNorm, SpectralNorm))]
        return any(leaf == one + part for one in made for part in parts)


Decided = tuple[QuantSpec | None, str]
"""A format, or None, and the reason."""


def note_effect(rule: Rule, spec: QuantSpec | None, name: str, without: Callable[[], Decided]) -> None:
    """Notes whether a rule changes what becomes of a tensor.  without: what it is told without the rule."""
    if spec is None:
        try:
            spec, reason = without()
        except NumericsError:  # there is no plan without the rule
            rule.acts = True
            return
        if spec is None and not reason.startswith("undecided"):  # what the rule decides
            rule.idle = rule.idle or (name, reason)
            return
    rule.acts = True


def of_weight(spec: QuantSpec, axis: int | None, shape: Sequence[int], outputs: int | None) -> QuantSpec:
    """`along` for a parameter: per_channel of its default axis, 0, is a scale for each output channel.

    outputs: the axis of a convolution's output channels; None of other products.
    """
    if axis is None or spec.blocked or spec.scheme != per_channel() or len(shape) < 2:
        return along(spec, axis, shape)
    return spec.with_scheme(per_output(tuple(shape), axis, outputs))


def outputs_of(uses: Sequence[Use]) -> int | None:
    """The axis of the output channels of a convolution's kernel; None of other products."""
    convs = [use.operation for use in uses if use.operation.startswith("conv")]
    return int("transpose" in convs[0]) if convs else None


def along(spec: QuantSpec, axis: int | None, shape: Sequence[int]) -> QuantSpec:
    """The spec with its blocks or groups along an axis, from the end, where it names none but -1."""
    if axis is None or axis == -1:
        found = spec
    elif spec.blocked and spec.axis == -1:
        found = spec.with_axis(axis % len(shape))
    elif (
        not spec.blocked
        and spec.scheme is not None
        and spec.scheme.kind == "per_group"
        and spec.scheme.axis == -1
    ):
        found = spec.with_scheme(per_group(int(spec.scheme.size or 1), axis % len(shape)))
    else:
        found = spec
    if found.scaled and all(n >= 0 for n in shape):
        found.shared_shape(tuple(shape))  # raises for an axis that is not there
    return found
