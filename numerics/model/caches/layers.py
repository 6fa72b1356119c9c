"""Layers of transformers' caches whose keys and values are in the formats of a plan."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor

from numerics.formats.errors import NumericsError, a_kind_of
from numerics.model.caches.stored import SERVED, Stored
from numerics.model.extras import missing
from numerics.quantization import fake_quantize
from numerics.tensor.spec import QuantSpec

try:
    from transformers.cache_utils import (
        Cache,
        CacheLayerMixin,
        DynamicCache,
        DynamicLayer,
        EncoderDecoderCache,
        QuantizedCache,
    )
except ImportError as wrong:
    raise missing(__name__, wrong) from wrong

Specs = tuple[QuantSpec | None, QuantSpec | None]


class PackedLayer(DynamicLayer):
    """A layer that grows, and holds packed codes; what it returns are their values."""

    def __init__(self, specs: Specs) -> None:
        self.specs = specs
        self.stored = tuple(map(Stored, specs))
        super().__init__()

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Notes where it is."""
        self.device, self.dtype, self.is_initialized = key_states.device, key_states.dtype, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Packs the tokens of a call, and returns the values of all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values = self.stored
        return keys.add(key_states), values.add(value_states)

    def get_seq_length(self) -> int:
        """How many tokens it has."""
        return self.stored[0].tokens

    def crop(self, tokens_to_remove: int) -> None:
        """Takes tokens away: -n those at the end."""
        if tokens_to_remove > 0:
            raise NumericsError(f"crop({tokens_to_remove}): a negative number says how many tokens to remove")
        for one in self.stored:
            one.crop(-tokens_to_remove)

    def reset(self) -> None:
        """Forgets all."""
        self.stored, self.is_initialized = tuple(map(Stored, self.specs)), False

    def reorder_cache(self, beam_idx: Any) -> None:
        """Takes rows of the batch."""
        for one in self.stored:
            one.select(beam_idx.tolist())

    batch_select_indices = reorder_cache

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Has each row of the batch so many times."""
        for one in self.stored:
            rows = sum(part.shape[0] for part in one.pieces[0]) if one.pieces else 0
            one.select([row for row in range(rows) for _ in range(repeats)])

    def offload(self) -> None:
        """Packed codes stay where they are."""

    prefetch = offload

    @property
    def nbytes(self) -> int:
        """How many bytes its keys and values take."""
        return sum(one.nbytes for one in self.stored)

    def _values(self, place: int) -> Tensor | None:
        return self.stored[place].values() if self.stored[place].pieces else None

    def _refused(self, came: Any) -> None:
        if came is not None:
            raise NumericsError("keys and values of a packed layer come by update(keys, values)")

    keys = property(lambda self: self._values(0), _refused)
    values = property(lambda self: self._values(1), _refused)


@cache
def _rounding(base: type) -> type:
    """The class of layers of a kind that keep floats, which lie on the grid of a format."""

    def update(self: Any, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        came = [x if spec is None else fake_quantize(x, spec)
                for x, spec in zip((key_states, value_states), self.specs, strict=True)]  # fmt: skip
        return base.update(self, *came, *args, **kwargs)  # type: ignore[attr-defined]

    members = {"update": update, "__doc__": base.__doc__, "__module__": base.__module__, "rounds": True}
    return type(base.__name__, (base,), members)


def packed(came: Any, kind: str, specs: Specs, config: Any) -> Any:
    """A cache whose layers are in those formats, in place; a new one of that kind for None.

    Raises NumericsError for one that has tokens in floats, and for one of another kind.
    """
    if came is None:
        own = [DynamicCache(config=config) for _ in range(1 + (kind == "EncoderDecoderCache"))]
        came = EncoderDecoderCache(*own) if len(own) > 1 else own[0]
    if isinstance(came, EncoderDecoderCache):
        for one in (came.self_attention_cache, came.cross_attention_cache):
            packed(one, kind, specs, config)
        return came
    if not isinstance(came, Cache) or isinstance(came, QuantizedCache):
        raise NumericsError(
            f"the cache is {a_kind_of(came)}, and the plan has formats for its keys and values: served "
            f"are {', '.join(SERVED)} of transformers, or None for a new one"
        )
    came.layers[:] = [_layer(one, specs) for one in came.layers]
    if came.layer_class_to_replicate is DynamicLayer:
        came.layer_class_to_replicate = lambda: PackedLayer(specs)
    return came


def _layer(one: Any, specs: Specs) -> Any:
    if isinstance(one, PackedLayer) or getattr(one, "rounds", False):
        if one.specs != specs:
            raise NumericsError(f"this cache has {one.specs} for keys and values, and the plan {specs}")
        return one
    if not isinstance(one, CacheLayerMixin):
        raise NumericsError(f"{a_kind_of(one)} of the cache holds no keys and values to quantize")
    if one.is_initialized and int(one.get_seq_length()):
        raise NumericsError(
            f"this cache holds {int(one.get_seq_length())} tokens in floats already: begin with an empty "
            "one, or None, and let the wrapped model fill it"
        )
    if type(one) is DynamicLayer:
        return PackedLayer(specs)
    one.__class__ = _rounding(type(one))  # type: ignore[arg-type]
    one.specs = specs
    return one
