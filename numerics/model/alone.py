"""Each quantized parameter of a layer by itself: how far the layer is off where nothing else is quantized."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from numerics.model.deciding.plan import Plan
from numerics.model.deciding.rows import Row
from numerics.model.folding import fold
from numerics.model.looking.places import is_shard, modules_around
from numerics.model.measuring import add, within
from numerics.model.wrapped.quantizers import Learned, Quantizer
from numerics.model.wrapping import shared_copy
from numerics.tensor.qtensor import ErrorSums, QTensor, rank

NO_VALUES = "no values"
"""What stands in the place of figures where what came out was empty."""


@dataclass(frozen=True)
class Parameter:
    """One quantized parameter of a layer, of which a report has several.

    name: its own.  format: its format and scales.  local: the SQNR in dB of the output of the layer, or of
    the module around it that reads the parameter, for the reference's input, where this parameter alone is
    quantized.  clipped: the share of its values that its scales cut off; NaN where they are not known any
    more.  nbytes: as stored, of float_nbytes; both 0 where it is counted at another layer to which it is
    tied.  unmeasured: empty, or why local is NaN: "sharded", "no values".
    """

    name: str
    format: str
    local: float
    clipped: float
    nbytes: int
    float_nbytes: int
    unmeasured: str = ""


@dataclass
class _One:
    """A parameter while batches run: its row and name, and the module that reads it, at first the model."""

    row: Row
    name: str
    at: str = ""
    sums: ErrorSums = field(default_factory=ErrorSums)

    @property
    def leaf(self) -> str:
        """Its name in the module that reads it."""
        return self.name.removeprefix(self.at).removeprefix(".")


class Alone:
    """The quantized parameters of each layer that has several, or layers inside, or that another reads.

    model: the modules of a wrapped one, eager, by their names in the reference.  reference: the float one.
    layers: the planned rows by the names of modules.  around: the modules that read what others have,
    whose inputs are due.
    """

    def __init__(
        self, model: Mapping[str, nn.Module], reference: nn.Module, plan: Plan,
        layers: Mapping[str, Sequence[Row]],
    ) -> None:  # fmt: skip
        self.model = model
        self.floats = _folded(reference, plan)
        self.modules = dict(self.floats.named_modules(remove_duplicate=False))
        self.layers = {name: self._of(name, rows) for name, rows in layers.items()}
        self.reads: Counter[str] = Counter()
        self._inside: dict[str, int] = {}
        self.around = {above for name in layers for above in modules_around(name)}
        self.holding = self.around & layers.keys()

    def _of(self, layer: str, rows: Sequence[Row]) -> list[_One]:
        """The quantized parameters of a layer; none of one that the reference has not."""
        if layer not in self.modules:
            return []
        return [
            _One(row, next(name for name in row.names if self._owner(name) is self._module(layer)))
            for row in rows
            if row.kind == "parameter"
        ]

    def _judged(self, layer: str) -> Sequence[_One]:
        """A layer's parameters, where its own line does not say each: of what it reads, or others read."""
        own = self.layers[layer]
        apart = layer in self.holding or self.reads[layer] > 1
        return own if apart or any(one.at != layer for one in own) else ()

    def _module(self, name: str) -> nn.Module | None:
        return self.modules.get(name)

    def _owner(self, parameter: str) -> nn.Module | None:
        return self._module(parameter.rpartition(".")[0])

    def settle(self, due: Mapping[str, Any]) -> None:
        """Parameters are read by the innermost module that ran in any batch, the layer or one around it.

        due: the calls of a batch by modules.  That is where the layer's own line is measured, or what it
        names: whatever was summed up around a module that runs now does not count.
        """
        for layer, parameters in self.layers.items():
            at = next((name for name in (layer, *modules_around(layer)) if name in due), "")
            for one in parameters:
                if len(at) > len(one.at):
                    one.at, one.sums = at, ErrorSums()
        self.reads = Counter(one.at for parameters in self.layers.values() for one in parameters)

    def add(self, due: Mapping[str, Any], after: Mapping[str, str]) -> None:
        """Runs the layers of the reference anew, each parameter quantized in its turn.

        due: by module, each call's arguments, named ones, and result; they have settled.  after: of a
        convolution the normalization that it took in.
        """
        for layer in self.layers:
            for one in self._judged(layer):
                calls, outs = due.get(one.at, ()), due.get(after.get(layer, one.at), ())
                value = self._value(one) if calls else None
                for call, (_, _, out, _) in zip(calls, outs, strict=False):
                    if value is not None:
                        add(one.sums, out, call.again(self.modules[one.at], {one.leaf: value}))

    def _value(self, one: _One) -> Tensor | None:
        """What the wrapped model reads; None of one that is sharded."""
        if is_shard(self._held(one)):
            return None
        x = getattr(*self._place(one))
        return x.dequantize() if isinstance(x, QTensor) else x.detach()  # type: ignore[no-any-return]

    def parameters(self, layer: str) -> tuple[Parameter, ...]:
        """What is found of the parameters of a layer, worst first."""
        found = [self._found(one, layer) for one in self._judged(layer)]
        return tuple(sorted(found, key=lambda one: rank(one.local)))

    def _found(self, one: _One, layer: str) -> Parameter:
        row, here = one.row, self._owner(one.row.name) is self._module(layer)  # what is tied counts once
        none = "" if one.sums.count else NO_VALUES
        why = "sharded" if is_shard(self._held(one)) else none
        return Parameter(
            one.name, row.format, math.nan if why else one.sums.error.sqnr,
            math.nan if why else self._clipped(one),
            row.nbytes if here else 0, row.unplanned_nbytes if here else 0, why,
        )  # fmt: skip

    def _clipped(self, one: _One) -> float:
        """The share of its values that its scales cut off."""
        inside = self._within(one)
        if inside is None:
            return math.nan
        return 1 - float(inside.double().mean()) if inside.numel() else 0.0

    def _within(self, one: _One) -> Tensor | None:
        """Which values its quantizer, or its packed scales, reach; None where not known."""
        module, leaf = self._place(one)
        held, quantizer = module._parameters[leaf], module._modules.get(f"quantize_{leaf}")
        if isinstance(quantizer, (Quantizer, Learned)) and held is not None:
            return within(quantizer, held)
        if isinstance(held, QTensor):
            x = self.floats.get_parameter(one.name).detach()
            found: Tensor = torch.ops.numerics.within_range(x, held.spec.text, *_scales(held))
            return found
        return None  # values are kept, and not by which scales they were found

    def cut(self, layer: str, came: Mapping[str, Any]) -> tuple[int, int]:
        """Of packed parameters, whose values no quantizer meets, how many values were cut off, of how many.

        came: the calls of modules, as they read them.
        """
        clipped = values = 0
        for one in self.layers[layer]:
            if one.at in came and isinstance(self._held(one), QTensor):
                if (inside := self._inside.get(one.name)) is None:
                    found = self._within(one)
                    inside = self._inside[one.name] = int(found.sum()) if found is not None else 0
                reads, size = len(came[one.at]), one.row.size
                clipped, values = clipped + reads * (size - inside), values + reads * size
        return clipped, values

    def _held(self, one: _One) -> Any:
        """The parameter itself, not as it is read."""
        module, leaf = self._place(one)
        return module._parameters[leaf]

    def _place(self, one: _One) -> tuple[nn.Module, str]:
        """The module of the wrapped model that has it, and its name there."""
        owner, _, leaf = one.name.rpartition(".")
        return self.model[owner], leaf


def _scales(q: Any) -> tuple[Tensor | None, ...]:
    """By which scales a tensor was packed; none of blocks, which find theirs in the values."""
    return (None, None, None) if q.spec.blocked else (q.scale, q.zero_point, None)


def _folded(reference: nn.Module, plan: Plan) -> nn.Module:
    """The reference, its normalizations folded as the plan has them."""
    if not plan.fold:
        return reference
    made = shared_copy(reference).eval()
    fold(made, plan.fold)
    return made
