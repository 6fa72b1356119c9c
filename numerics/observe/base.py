"""Observer: what all observers share.  Each holds its state as NumPy arrays on the host."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from inspect import cleandoc
from typing import Any, ClassVar, Never, cast

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.backend import tensor_scale_of
from numerics.backends.host.executor import Affine
from numerics.backends.host.float_bits import as_float32
from numerics.backends.host.ieee import ieee_arithmetic
from numerics.backends.host.quantizing import Prepared, Quantizing, to_host, wide_type
from numerics.backends.host.tensors import as_tensor, check_plain, is_tensor
from numerics.backends.partition import Partition
from numerics.formats import dispatch
from numerics.formats.arguments import MISSING, keywords, required, unknown_argument
from numerics.formats.block import ScaledBlock
from numerics.formats.errors import NumericsError, integer, one_of, said
from numerics.formats.notebook import facts_table
from numerics.tensor.qtensor import ORIGINALS, values_of
from numerics.tensor.scheme import Scheme
from numerics.tensor.spec import (
    NOTHING,
    SYMMETRIC,
    ZERO_POINT_TYPE,
    Default,
    QuantSpec,
    default,
    described,
    spec_with,
)

Array = NDArray[Any]
MOST_BATCHES = 2**63 - 1


def host() -> Quantizing:
    """The backend that computes with the state, which is on the host wherever the tensors are."""
    return cast(Quantizing, dispatch.host())


POF2 = default("pof2")
"""The scale type of observers that find powers of two, where none is given."""


def check_within(name: str, came: Any, most: float) -> Any:
    """The number that came; raises NumericsError unless it is above 0 and at most that."""
    number = came.item() if isinstance(came, np.generic) else came
    if not isinstance(number, (int, float)) or isinstance(number, bool) or not 0 < number <= most:
        raise NumericsError(f"{name}={said(came)} is not allowed: a number above 0, at most {most}")
    return number


class Observer:
    """Watches tensors batch by batch; then `scale` and `zero_point` are what to give to `quantize`.

    dtype: an integer or float format, or its name; or a QuantSpec, which says all of these options at once.
    scheme: which elements share a scale: per_tensor (the default), per_channel(axis), per_token,
        per_group(size, axis), per_block((rows, columns)).
    symmetric: True (the default) for scales alone, False for scales and zero points; integers only.
    scale_type: what scales are rounded to: float32 (the default), float16, bfloat16, float, pof2.
    zero_point_type: int32 (the default) or float32.

    These options are those of `quantize`, with the same errors, and so are the scales that are found: 1 for
    bfloat16 and float16, which are a plain cast unless scheme or scale_type is given.  Block formats find the
    scales of their blocks themselves; what NVFP4 shares besides is its `tensor_scale`, and that alone is
    observed for it.  Raises NumericsError for other block formats.

    An observer has: low, high, the least and the largest finite value of all batches and 0, in the shape of
    the scales, float32, or float64 where the tensors are; original, the name of the tensors' float type;
    batches, how many it has seen.
    """

    mergeable: ClassVar[bool] = True
    own: ClassVar[tuple[str, ...]] = ()
    """Names of the options of its own."""
    arrays: ClassVar[tuple[str, ...]] = ("low", "high")
    """The arrays that are its state."""
    listed: ClassVar[tuple[str, ...]] = ()
    """Those of them that have any length; the others are in the shape of the scales."""

    original: str
    low: Array
    high: Array

    def __init_subclass__(cls, **options: Any) -> None:
        """Puts the options that all observers take into its help, which stands alone."""
        super().__init_subclass__(**options)
        if cls.__doc__ and Observer.__doc__:
            cls.__doc__ = _with_options(cls.__doc__, Observer.__doc__)

    @required
    def __init__(
        self,
        dtype: Any,
        *unnamed: Never,
        scheme: Scheme | str | None = NOTHING,
        symmetric: bool = SYMMETRIC,
        scale_type: str | None = NOTHING,
        zero_point_type: str = ZERO_POINT_TYPE,
        **unknown: Never,
    ) -> None:
        if unknown or unnamed or dtype is MISSING:
            raise unknown_argument(type(self), unknown, (dtype,), unnamed)
        options: dict[str, Any] = {"scheme": scheme, "symmetric": symmetric, "scale_type": scale_type,
                   "zero_point_type": zero_point_type}  # fmt: skip
        self.spec = spec_with(dtype, options)
        if self.spec.blocked and not self._takes_blocks():
            raise NumericsError(
                f"{self.spec.dtype}: a block format finds its scales itself, there is nothing for "
                f"{type(self).__name__} to observe; allowed: formats of integers and of floats, and for the "
                "tensor scale of nvfp4 MinMax, MovingAverage, Percentile"
            )
        self.batches = 0
        self._device: str | None = None

    def __repr__(self) -> str:
        own = "".join(f", {name}={getattr(self, name)!r}" for name in self.own)
        return f"{type(self).__name__}({described(self.spec)}{own}, batches={self.batches})"

    def _repr_html_(self) -> str:
        """A notebook's view: the options, how much was seen, and the range that was found."""
        rows = [
            ("observer", type(self).__name__),
            ("format", repr(self.spec)),
            ("batches", str(self.batches)),
        ]
        rows += [(name, repr(getattr(self, name))) for name in self.own]
        if self.batches:
            rows += [("low", f"{float(np.min(self.low)):.6g}"), ("high", f"{float(np.max(self.high)):.6g}")]
            rows += [("scales", f"shape {self.low.shape}")]
        return facts_table(rows)

    def __getattr__(self, name: str) -> Any:
        """Of what it has only once it has seen something; raises NumericsError before."""
        if name in ("original", *type(self).arrays):
            raise NumericsError(f"{self!r} has seen nothing; observe(x) first, with elements in x")
        raise AttributeError(f"{type(self).__name__} has no {name}")

    def _takes_blocks(self) -> bool:
        """Is there something to observe for this block format?"""
        return self.spec.block.has_tensor_scale

    # ---- watching --------------------------------------------------------------------------------

    @required
    def observe(self, x: Any, *unnamed: Never, **unknown: Never) -> None:
        """Takes in a batch.

        x: as for `quantize`, or a QTensor, which counts by its values; those that are not finite are
        ignored, as there.  A batch without elements tells nothing and is not counted.  Under
        torch.compile the graph breaks here.  Raises NumericsError for another float type than before,
        and for a shape whose scales would have another shape than before: per_channel needs as many
        channels, per_group a tensor of the same shape.

        >>> from numerics.observe import MinMax
        >>> watching = MinMax("int8")
        >>> watching.observe([63.5, -2.0]), watching.observe([127.0])
        (None, None)
        >>> float(watching.scale), watching.batches
        (1.0, 2)
        """
        if unknown or unnamed or x is MISSING:
            raise unknown_argument(Observer.observe, unknown, (x,), unnamed)
        self._watch(values_of(x))

    def _watch(self, x: Any) -> None:
        owner = dispatch.owner(x)
        if self._saw(owner, owner.prepare(x)):
            self._device = str(x.device) if is_tensor(x) else None

    def observe_prepared(self, x: Prepared) -> None:
        """Takes in an array that may stand for another type than it has."""
        self._saw(dispatch.owner(x.data), x)

    def _saw(self, owner: Any, x: Prepared) -> bool:
        """Takes in a batch, if it has elements."""
        data, original = x
        partition = self._partition(tuple(data.shape))
        if 0 in data.shape:
            return False
        self._admit(original, partition.shared)
        with ieee_arithmetic():
            low, high = (to_host(end) for end in owner.extremes(data, partition))
            self._take(low, high, data, partition)
        self._seen(1)
        return True

    def _partition(self, shape: tuple[int, ...]) -> Partition:
        """Which elements of a batch share a scale: of a block format all share the tensor's."""
        return Partition(shape) if self.spec.blocked else self.spec.partition(shape)

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
        self._put(self._blank(original, shared))

    def _put(self, arrays: dict[str, Array]) -> None:
        """Takes arrays for its state."""
        self.__dict__.update(arrays)

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

        A torch tensor on the device of the last batch where that was one, else a NumPy array; so too
        after `restore`, after a pickle, and of one that has seen nothing but what it took in by `merge`.
        Raises NumericsError where nothing was seen, and for NVFP4, which has a `tensor_scale`.
        """
        return self._given(self._affine.scale)

    @property
    def zero_point(self) -> Any:
        """The zero points, as `scale`; None where symmetric."""
        zero = self._affine.zero
        return None if zero is None else self._given(zero)

    @property
    def tensor_scale(self) -> float:
        """NVFP4's, as `Block.encode` and `Block.round` take it.

        Raises NumericsError where nothing was seen, and for a format that has none.

        >>> import numpy as np, numerics as nx
        >>> from numerics.observe import MinMax
        >>> watching, x = MinMax("nvfp4"), np.linspace(-1, 2688, 16, dtype=np.float32)
        >>> watching.observe(x)
        >>> watching.tensor_scale, nx.nvfp4.encode(x, tensor_scale=watching.tensor_scale).tensor_scale
        (1.0, 1.0)
        """
        d = self.spec.dtype
        if not isinstance(d, ScaledBlock):
            raise NumericsError(f"{d} has no tensor scale; ask for scale")
        self._check_seen()
        with ieee_arithmetic():
            low, high = (np.asarray(end, wide_type(self.original)) for end in self._range())
            amax = float(as_float32(np.maximum(-low, high)))
            return tensor_scale_of(amax, d, self.spec.scale_rule)

    def _given(self, found: Array) -> Any:
        return found.copy() if self._device is None else on_device(found.copy(), self._device)

    @cached_property
    def _affine(self) -> Affine:
        """Found by the arithmetic of `quantize`, from the range that the observer chooses."""
        self._check_seen()
        if self.spec.blocked:
            raise NumericsError(
                f"{self.spec.dtype} finds the scales of its blocks itself; what is observed is tensor_scale"
            )
        spec = self.spec
        if not spec.scaled:  # a cast
            return Affine(np.ones(self.low.shape, np.float32), None)
        options = spec.affine_options(self.original)
        with ieee_arithmetic():
            low, high = (end.astype(wide_type(self.original)) for end in self._range())
            scale = self._scale(low, high)
            return host().stored(host().find_affine(low, high, spec.element, options, scale), options)

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

    @required
    def merge(self, other: Observer, *unnamed: Never, **unknown: Never) -> None:
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
        if unknown or unnamed or other is MISSING:
            raise unknown_argument(Observer.merge, unknown, (other,), unnamed)
        self._check_mergeable()
        if not isinstance(other, Observer) or self._made != other._made:
            raise NumericsError(f"{self!r} cannot take in {said(other)}: it was made with other options")
        if other.batches:
            self._admit(other.original, other.low.shape)
            with ieee_arithmetic():
                self._merge(other)
            if not self.batches:
                self._device = other._device
            self._seen(other.batches)

    @property
    def _made(self) -> tuple[Any, ...]:
        return type(self), self.spec, *(getattr(self, name) for name in self.own)

    def _merge(self, other: Observer) -> None:
        self.low = np.asarray(np.minimum(self.low, other.low))
        self.high = np.asarray(np.maximum(self.high, other.high))

    def _check_mergeable(self) -> None:
        if not self.mergeable:
            raise NumericsError(
                f"{type(self).__name__} depends on the order of the batches, so it cannot be merged; "
                "others can: MinMax, Percentile, MSE, KL"
            )

    @keywords
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
        """All that was seen: a number, names and plain arrays, which are copies.

        spec: the text of the options that were asked for.
        device: torch's name of where the tensors were; None for arrays.

        Raises NumericsError where nothing was seen.

        >>> from numerics.observe import MinMax
        >>> watching = MinMax("int8")
        >>> watching.observe([1.0, -2.0])
        >>> watching.state
        {'spec': '{"dtype": "int8", "scheme": "per_tensor()"}', 'batches': 1, 'original': 'python', \
'device': None, 'low': array(-2.), 'high': array(1.)}
        """
        self._check_seen()
        arrays = {name: getattr(self, name).copy() for name in self.arrays}
        facts = {"spec": self.spec.text, "batches": self.batches, "original": self.original}
        return {**facts, "device": self._device, **arrays}

    @required
    def restore(self, state: Mapping[str, Any], *unnamed: Never, **unknown: Never) -> None:
        """Takes over a state that `state` gave, for an observer made with the same options.

        A state without a device is one of arrays; one without a spec is taken at its word.  Raises
        NumericsError for the state of one with another spec, with other arrays or another number of
        bins, and where its device is not here.

        >>> from numerics.observe import MinMax
        >>> watching, other = MinMax("int8"), MinMax("int8")
        >>> other.observe([-127.0]), watching.restore(other.state)
        (None, None)
        >>> float(watching.scale)
        1.0
        """
        if unknown or unnamed or state is MISSING:
            raise unknown_argument(Observer.restore, unknown, (state,), unnamed)
        if not isinstance(state, Mapping):
            raise NumericsError(f"a state is a table of names, as `state` gives it, not {said(state)}")
        names = ("spec", "batches", "original", "device", *self.arrays)
        if {*state, "spec", "device"} != set(names):
            allowed, came = ", ".join(names), ", ".join(map(str, state))
            raise NumericsError(f"the state of {type(self).__name__} has {allowed}, not {came}")
        if QuantSpec.parse(state.get("spec", self.spec.text)) != self.spec:
            raise NumericsError(
                f"{self!r} cannot take the state of one made with other options: {said(state['spec'])}"
            )
        original = one_of("float type", _text("original", state["original"]), ORIGINALS)
        batches = integer("batches", state["batches"])
        if not 1 <= batches <= MOST_BATCHES:
            raise NumericsError(f"batches={batches} is not allowed: 1 .. 2**63 - 1")
        device = state.get("device")
        if device is not None:
            on_device(np.zeros(0), _text("device", device))
        arrays = {name: read(name, state[name]) for name in self.arrays}
        due = self._blank(original, arrays["low"].shape)
        for name in self.arrays:
            _check_like(name, arrays[name], due[name], any_length=name in self.listed)
        with ieee_arithmetic():
            self._check_state(arrays)
        self.original, self.batches, self._device = original, 0, device
        self._put(arrays)
        self._seen(batches)

    def _check_state(self, arrays: dict[str, Array]) -> None:
        """Raises NumericsError where the arrays of a state contradict each other."""
        low, high = arrays["low"], arrays["high"]
        right = np.isfinite(low) & np.isfinite(high) & (low <= 0) & (high >= 0)
        if not right.all():
            raise NumericsError("low of a state is finite and at most 0, high finite and at least 0")


def _with_options(told: str, all_told: str) -> str:
    """The help of an observer with the lines of its options that it does not say itself."""
    told, all_told = cleandoc(told), cleandoc(all_told)  # Python 3.13 keeps no indentation, older ones do
    first, last = all_told.index("dtype:"), all_told.index("\nThese options are")
    lines = all_told[first:last].splitlines(keepends=True)
    own = [line for line in lines if f"\n{line.partition(':')[0]}:" not in told]
    return told.replace("dtype and the other options: as for `Observer`.\n", "".join(own))


def with_pof2(dtype: Any, scale_type: Any) -> tuple[Any, dict[str, Any]]:
    """The format and the scale type of an observer that finds powers of two; a spec that asks for no other.

    Raises NumericsError for another scale type.
    """
    if not isinstance(dtype, QuantSpec):
        asked = "pof2" if isinstance(scale_type, Default) else scale_type
        return dtype, {"scale_type": _pof2(asked)}
    spec = spec_with(dtype, {"scale_type": scale_type})
    if spec.blocked or spec.known_scale_type == "float32":  # it asks for none
        return spec if spec.blocked else spec.replace(scale_type="pof2"), {}
    _pof2(spec.scale_type)
    return spec, {}


def _pof2(scale_type: Any) -> Any:
    if not isinstance(scale_type, str) or scale_type != "pof2":
        raise NumericsError(
            f"scale type {said(scale_type)} of an observer that finds powers of two; allowed: pof2, or "
            "another observer (min_max, moving_average, percentile, mse, kl)"
        )
    return scale_type


def on_device(x: Array, device: str) -> Any:
    """An array as a torch tensor on that device; raises NumericsError where it is not here."""
    try:
        found = as_tensor(x).to(device)
        if found.is_meta:
            raise NotImplementedError("there are no numbers")
    except (ImportError, RuntimeError, AssertionError, NotImplementedError) as wrong:
        raise NumericsError(
            f"the tensors were on {said(device)}, which cannot be had here: {wrong}; "
            "restore({**state, 'device': 'cpu'}) gives tensors on the CPU, None in its place arrays"
        ) from None
    return found


def read(name: str, came: Any) -> Array:
    """A copy of what came as an array; raises NumericsError for what is none."""
    try:
        check_plain(name, came)
        return np.array(came)
    except (ValueError, TypeError, RuntimeError) as wrong:
        raise NumericsError(f"{name} of a state is no array: {wrong}") from None


def _text(name: str, came: Any) -> str:
    if not isinstance(came, str):
        raise NumericsError(f"{name} of a state is a name, not {said(came)}")
    return came


def _check_like(name: str, came: Array, due: Array, any_length: bool) -> None:
    """Raises NumericsError where an array is not like the one that is due."""
    alike = came.ndim == due.ndim if any_length else came.shape == due.shape
    if not alike or came.dtype != due.dtype:
        shape = "(n,)" if any_length else due.shape
        raise NumericsError(f"{name} is {due.dtype} of shape {shape}, not {came.dtype} of {came.shape}")
