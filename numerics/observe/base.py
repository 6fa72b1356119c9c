"""Observer: what all observers share.  Each holds its state as NumPy arrays on the host."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from numerics.backends.affine import AffineBackend, Partition
from numerics.backends.environment import ieee_arithmetic
from numerics.backends.executor import Affine
from numerics.backends.tensors import as_tensor, is_tensor
from numerics.formats import backend
from numerics.formats.errors import NumericsError, integer, one_of
from numerics.quantization import stored
from numerics.recipe import Recipe
from numerics.scheme import Scheme
from numerics.tensor import ORIGINALS, affine_backend, to_host, values_of, wide_type

Array = NDArray[Any]


def host() -> AffineBackend:
    """The backend that computes with the state, which is on the host wherever the tensors are."""
    return cast(AffineBackend, backend.host())


def check_within(name: str, came: Any, most: float) -> Any:
    """The number that came; raises NumericsError unless it is above 0 and at most that."""
    if not isinstance(came, (int, float)) or isinstance(came, bool) or not 0 < came <= most:
        raise NumericsError(f"{name}={came!r} is not allowed: a number above 0, at most {most}")
    return came


class Observer:
    """Watches tensors batch by batch; then `scale` and `zero_point` are what to give to `quantize`.

    dtype, scheme, symmetric, scale_type, zero_point_type: as for `quantize`, with the same errors.
    Raises NumericsError for block formats: they find their scales themselves.

    low, high: the least and the largest finite value of all batches and 0, in the shape of the
    scales; float32, or float64 as the tensors are.  original: the float type of the tensors.
    batches: how many were seen.
    """

    mergeable: ClassVar[bool] = True
    own: ClassVar[tuple[str, ...]] = ()
    """Names of the options of its own."""
    arrays: ClassVar[tuple[str, ...]] = ("low", "high")
    """The arrays that are its state."""

    original: str
    low: Array
    high: Array

    def __init__(
        self,
        dtype: Any,
        *,
        scheme: Scheme | str | None = None,
        symmetric: bool = True,
        scale_type: str = "float32",
        zero_point_type: str = "int32",
    ) -> None:
        self.recipe = Recipe.make(
            dtype, scheme=scheme, symmetric=symmetric, scale_type=scale_type, zero_point_type=zero_point_type
        )
        if self.recipe.blocked:
            raise NumericsError(
                f"{self.recipe.dtype}: a block format finds its scales itself, there is nothing to observe; "
                "allowed: formats of integers and of floats"
            )
        self.batches = 0
        self._device: str | None = None

    def __repr__(self) -> str:
        own = "".join(f", {name}={getattr(self, name)!r}" for name in self.own)
        return f"{type(self).__name__}({self.recipe.text}{own}, batches={self.batches})"

    # ---- watching --------------------------------------------------------------------------------

    def observe(self, x: Any) -> None:
        """Takes in a batch.

        x: as for `quantize`, or a QTensor, which counts by its values; those that are not finite are
        ignored, as there.  A batch without elements tells nothing and is not counted.  Raises
        NumericsError for another float type than before, and for a shape whose scales would have
        another shape than before: per_channel needs as many channels, per_group a tensor of the same
        shape.

        >>> from numerics.observe import MinMax
        >>> watching = MinMax("int8")
        >>> watching.observe([63.5, -2.0]), watching.observe([127.0])
        (None, None)
        >>> float(watching.scale), watching.batches
        (1.0, 2)
        """
        x = values_of(x)
        owner = affine_backend(x)
        data, original = owner.prepare(x)
        partition = self.recipe.partition(tuple(data.shape))
        if 0 in data.shape:
            return
        self._admit(original, partition.shared)
        low, high = (to_host(end) for end in owner.extremes(data, partition))
        with ieee_arithmetic():
            self._take(low, high, data, partition)
        self._device = str(x.device) if is_tensor(x) else None
        self._seen(1)

    def _admit(self, original: str, shared: tuple[int, ...]) -> None:
        if not self.batches:
            self._begin(original, shared)
        elif original != self.original:
            raise NumericsError(f"the values are {original}, those of the batches before {self.original}")
        elif shared != self.low.shape:
            raise NumericsError(
                f"the scales would have shape {shared}, those of the batches before have {self.low.shape}"
            )

    def _begin(self, original: str, shared: tuple[int, ...]) -> None:
        self.original = original
        self.__dict__.update(self._blank(original, shared))

    def _blank(self, original: str, shared: tuple[int, ...]) -> dict[str, Array]:
        """The arrays of the state before anything is in them."""
        return {name: np.zeros(shared, wide_type(original)) for name in ("low", "high")}

    def _take(self, low: Array, high: Array, data: Any, partition: Partition) -> None:
        """Takes in a batch: its extremes, and itself as its backend has it."""
        self.low = np.asarray(np.minimum(self.low, low) + 0)  # 0, not -0, whichever came first
        self.high = np.asarray(np.maximum(self.high, high) + 0)

    def _seen(self, batches: int) -> None:
        self.batches += batches
        self.__dict__.pop("_affine", None)

    # ---- what was found --------------------------------------------------------------------------

    @property
    def scale(self) -> Any:
        """The scales, as `quantize` would store them, in the shape that the scheme makes.

        A torch tensor on the device of the last batch where that was one, else a NumPy array.
        Raises NumericsError where nothing was seen.
        """
        return self._given(self._affine.scale)

    @property
    def zero_point(self) -> Any:
        """The zero points, as `scale`; None where symmetric."""
        zero = self._affine.zero
        return None if zero is None else self._given(zero)

    def _given(self, found: Array) -> Any:
        return found.copy() if self._device is None else as_tensor(found.copy()).to(self._device)

    @cached_property
    def _affine(self) -> Affine:
        """Found by the arithmetic of `quantize`, from the range that the observer chooses."""
        self._check_seen()
        recipe = self.recipe
        with ieee_arithmetic():
            low, high = (end.astype(wide_type(self.original)) for end in self._range())
            scale = self._scale(low, high)
        found = host().find_affine(low, high, recipe.element, recipe.options(self.original), scale)
        return stored(recipe, host(), found, self.original)

    def _range(self) -> tuple[Array, Array]:
        """The range that the scale is found for."""
        return self.low, self.high

    def _scale(self, low: Array, high: Array) -> Array | None:
        """A scale for that range, where it is not the one of `quantize`."""
        return None

    def _check_seen(self) -> None:
        if not self.batches:
            raise NumericsError(f"{self!r} has seen nothing; observe(x) first, with elements in x")

    # ---- several of them -------------------------------------------------------------------------

    def merge(self, other: Observer) -> None:
        """Takes in all that another observer saw: bit for bit what one observer of all batches would hold.

        The order does not matter.  Raises NumericsError where the other was made with other options or
        saw other tensors (`observe`), and for a moving average, where order matters.

        >>> from numerics.observe import MinMax
        >>> one, other = MinMax("int8"), MinMax("int8")
        >>> one.observe([63.5]), other.observe([-127.0]), one.merge(other)
        (None, None, None)
        >>> float(one.scale)
        1.0
        """
        self._check_mergeable()
        if not isinstance(other, Observer) or self._made != other._made:
            raise NumericsError(f"{self!r} cannot take in {other!r}: it was made with other options")
        if other.batches:
            self._admit(other.original, other.low.shape)
            with ieee_arithmetic():
                self._merge(other)
            self._seen(other.batches)

    @property
    def _made(self) -> tuple[Any, ...]:
        return type(self), self.recipe, *(getattr(self, name) for name in self.own)

    def _merge(self, other: Observer) -> None:
        self.low = np.asarray(np.minimum(self.low, other.low))
        self.high = np.asarray(np.maximum(self.high, other.high))

    def _check_mergeable(self) -> None:
        if not self.mergeable:
            raise NumericsError(
                f"{type(self).__name__} depends on the order of the batches, so it cannot be merged; "
                "others can: MinMax, Percentile, MSE, KL"
            )

    def all_reduce(self, group: Any = None) -> None:
        """Takes in what the observers of all other processes saw: the same state in every one.

        group: of torch.distributed, the default one if None.  To be called by every process of it,
        once, after the last batch: what was merged is not told apart from what was observed.
        Raises NumericsError as `merge`, and where torch.distributed is not initialized.
        """
        import torch.distributed as dist

        self._check_mergeable()
        if not (dist.is_available() and dist.is_initialized()):
            raise NumericsError("torch.distributed is not initialized; call init_process_group first")
        seen = cast(list[Observer], [None] * dist.get_world_size(group))
        dist.all_gather_object(seen, self, group)
        for rank, other in enumerate(seen):
            if rank != dist.get_rank(group):
                self.merge(other)

    # ---- its state -------------------------------------------------------------------------------

    @property
    def state(self) -> dict[str, Any]:
        """All that was seen: a number, a name and plain arrays, which are copies.

        Raises NumericsError where nothing was seen.

        >>> from numerics.observe import MinMax
        >>> watching = MinMax("int8")
        >>> watching.observe([1.0, -2.0])
        >>> watching.state
        {'batches': 1, 'original': 'python', 'low': array(-2.), 'high': array(1.)}
        """
        self._check_seen()
        arrays = {name: getattr(self, name).copy() for name in self.arrays}
        return {"batches": self.batches, "original": self.original, **arrays}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`, for an observer made with the same options.

        Raises NumericsError for the state of one that has other arrays, or another number of bins.

        >>> from numerics.observe import MinMax
        >>> watching, other = MinMax("int8"), MinMax("int8")
        >>> other.observe([-127.0]), watching.restore(other.state)
        (None, None)
        >>> float(watching.scale)
        1.0
        """
        if not isinstance(state, Mapping):
            raise NumericsError(f"a state is a table of names, as `state` gives it, not {state!r}")
        names = ("batches", "original", *self.arrays)
        if set(state) != set(names):
            allowed, came = ", ".join(names), ", ".join(state)
            raise NumericsError(f"the state of {type(self).__name__} has {allowed}, not {came}")
        original = one_of("float type", state["original"], ORIGINALS)
        batches = integer("batches", state["batches"])
        if batches < 1:
            raise NumericsError(f"batches={batches} is not allowed: 1 and more")
        blank = self._blank(original, np.shape(state["low"]))
        arrays = {name: _alike(name, state[name], due) for name, due in blank.items()}
        self.original, self.batches = original, 0
        self.__dict__.update(arrays)
        self._seen(batches)


def _alike(name: str, came: Any, due: Array) -> Array:
    """A copy of an array that came; raises NumericsError where it is not like the one that is due."""
    found = np.array(came)
    if (found.shape, found.dtype) != (due.shape, due.dtype):
        raise NumericsError(f"{name} is {due.dtype} of shape {due.shape}, not {found.dtype} of {found.shape}")
    return found
