"""Quantizers: modules that quantize what they are called with; their state is the model's state."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from numerics.backends.host.quantizing import Clipped, told_by
from numerics.backends.host.tensors import has_values
from numerics.formats.errors import NumericsError, said, warn
from numerics.model.deciding.rows import Row
from numerics.model.looking.trace import outside
from numerics.model.wrapped.watching import key_of, watched
from numerics.observe import Observer, observer
from numerics.pytorch.operators import called
from numerics.quantization import quantize
from numerics.tensor.qtensor import QTensor
from numerics.tensor.spec import QuantSpec
from numerics.train import LSQ, TQT
from numerics.train.states import (
    Recorded,
    check_positive,
    check_shape,
    check_state,
    check_zero_point,
    is_read,
    without_scales,
)

QAT = ("ste", "tqt", "lsq")


def tensor(name: str, x: Any) -> Tensor:
    """What came to a quantizer; raises NumericsError, with the site's name, for what is no tensor."""
    if not isinstance(x, Tensor):
        raise NumericsError(f"{name} is quantized, and what came is no tensor but {said(x)}")
    return x


class Quantizer(nn.Module):
    """Quantizes and dequantizes a tensor, by a scale of its own or one that each tensor brings.

    name: of the parameter or site in the model.  spec: how.
    """

    def __init__(self, name: str, spec: QuantSpec) -> None:
        super().__init__()
        self.name, self.spec, self.text = name, spec, spec.text
        self.told = not spec.clips  # was it said that it loses what is negative?

    def scales(self) -> dict[str, Tensor]:
        """What it keeps of scales and zero points, by name: nothing, where each tensor brings its own."""
        return {}

    def forward(self, x: Tensor) -> Tensor:
        """Returns x quantized and dequantized; the gradient passes straight through.

        What an unsigned format loses is said once, by name.
        """
        if self.spec.clips and not torch.compiler.is_compiling():
            with told_by(self._tell):
                return cast(Tensor, called("fake_quantize", tensor(self.name, x), self.text))
        return cast(Tensor, called("fake_quantize", tensor(self.name, x), self.text))

    def quantize(self, x: Tensor) -> QTensor:
        """Returns x as a QTensor of the same values as forward's."""
        with told_by(self._tell):
            return quantize(x, self.spec)

    def _tell(self, lost: str) -> None:
        """Says once what is lost."""
        if not self.told:
            self.told = True
            warn(f"{self.name}: {lost}")

    def extra_repr(self) -> str:
        """What it quantizes to."""
        options = {name: fact for name, fact in self.spec.options.items() if name != "dtype"}
        return ", ".join([self.spec.dtype.name, *(f"{name}={fact}" for name, fact in options.items())])


class Static(Recorded, Quantizer):
    """Quantizes by a scale that observers found, or that was learned: a buffer, NaN until then.

    shared: the shape of its scales.  While `watching` is an observer, tensors pass as they are and it sees
    them.
    """

    scale: Tensor | None
    zero_point: Tensor | None
    tensor_scale: Tensor | None

    def __init__(self, name: str, spec: QuantSpec, shared: tuple[int, ...], observed_by: str | None) -> None:
        super().__init__(name, spec)
        self.observed_by, self.used = observed_by, spec
        self.watching: Observer | None = None
        self.lost: Clipped | None = None
        self.key = 0
        self.ready = False
        blocked = spec.blocked
        unknown = torch.full(shared, float("nan"))
        zero = (
            None
            if blocked or spec.symmetric
            else torch.zeros(shared, dtype=getattr(torch, spec.zero_point_type))
        )
        self.register_buffer("scale", None if blocked else unknown)
        self.register_buffer("zero_point", zero)
        self.register_buffer("tensor_scale", unknown if blocked else None)

    @property
    def _known(self) -> Tensor | None:
        """Its scale: of blocks, which have their own, that of the tensor."""
        return self.tensor_scale if self.scale is None else self.scale

    def forward(self, x: Tensor) -> Tensor:
        """Returns x quantized and dequantized; x as it is while it is watched.

        Raises NumericsError where no scale is known yet.
        """
        if self.watching is not None:
            return cast(Tensor, watched(tensor(self.name, x).detach(), self.key))
        if not self.ready:
            raise NumericsError(
                f"{self.name} has no scale yet: nx.calibrate(model, batches) finds it by {self.observed_by}, "
                "load_state_dict brings one that was found"
            )
        beside = self.scale, self.zero_point, None, None, False, self.tensor_scale
        return cast(Tensor, called("fake_quantize", tensor(self.name, x), self.text, *beside))

    def extra_repr(self) -> str:
        """What it quantizes to, by which scale, and what finds or found that."""
        known, by = self._known, self.observed_by
        if not self.ready:
            return f"{super().extra_repr()}, waits for nx.calibrate{f' ({by})' if by else ''}"
        plain = known is not None and known.numel() == 1 and has_values(known)
        scale = f"{float(known):.4g}" if plain and known is not None else "known"
        return f"{super().extra_repr()}, scale={scale}{f' by {by}' if by else ''}"

    def watch(self) -> None:
        """From now on an observer sees what comes."""
        self.watching = observer(str(self.observed_by), self.spec)
        self.lost = Clipped(self.spec.element) if self.spec.clips else None
        self.key = key_of(self.watching, self.name, self.lost)

    def found(self) -> None:
        """Takes the scale that the observer found."""
        watching, self.watching = self.watching, None
        if watching is None:
            return
        if self.spec.blocked:
            self.give(tensor_scale=watching.tensor_scale)
        else:
            self.give(watching.scale, watching.zero_point)
        if self.lost is not None:
            self.lost.say(f"{self.name}: ")
            self.lost = None

    def give(self, scale: Any = None, zero_point: Any = None, tensor_scale: Any = None) -> None:
        """Takes scales."""
        for name, came in (("scale", scale), ("zero_point", zero_point), ("tensor_scale", tensor_scale)):
            old = getattr(self, name)
            if old is not None and came is not None:
                kept = torch.as_tensor(came).detach().to(old.device).clone()
                setattr(self, name, kept.reshape(()) if name == "tensor_scale" else kept)
        self.ready = True
        self._use()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Moves it, but not to another type of scale: in half of it a scale is another."""
        types = {name: x.dtype for name, x in self._buffers.items() if x is not None}
        old = {name: x for name, x in self._buffers.items() if x is not None}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, dtype in types.items():
            moved = self._buffers[name]
            if moved is not None and moved.dtype != dtype:
                self._buffers[name] = old[name].to(moved.device)
        return self

    def _load_from_state_dict(self, state: Any, prefix: str, notes: Any, *rest: Any) -> None:
        self.check_state(state, prefix, bool(notes.get("assign_to_params_buffers")))
        for name in ("scale", "tensor_scale"):
            came, old = state.get(prefix + name), getattr(self, name)
            if isinstance(came, Tensor) and old is not None and self._adopts(came):
                setattr(self, name, old.to(came.dtype))
        super()._load_from_state_dict(state, prefix, notes, *rest)
        self.settle()

    def settle(self) -> None:
        """Looks whether its scale is known."""
        known = self._known
        if known is not None and has_values(known):
            self.ready = not bool(known.isnan().any())
        self._use()

    def _use(self) -> None:
        """A scale that was learned in float64 is used so, as it was learned."""
        wide = self.scale is not None and self.scale.dtype == torch.float64
        self.used = self.spec.replace(scale_type="float") if wide and self.spec.scaled else self.spec
        self.text = self.used.text

    def _adopts(self, came: Tensor) -> bool:
        """Is a scale kept in the type in which it comes?  One that is known already stays in its own."""
        return came.is_floating_point() and not self.ready

    def check_state(self, state: Any, prefix: str, assign: bool) -> None:
        """Raises NumericsError for what is no scale of it, for one without its zero point, and for one that
        was never found where this one was.
        """
        super().check_state(state, prefix, assign)
        held = self.scales()
        came = {name: state[prefix + name] for name in held if prefix + name in state}
        for name, x in came.items():
            of_zero = name == "zero_point"
            adopted = not of_zero and isinstance(x, Tensor) and self._adopts(x)
            check_state(prefix + name, x, held[name], assign=assign or adopted, finite=of_zero)
            check_shape(prefix + name, x, tuple(held[name].shape), self.name)
            if of_zero:
                check_zero_point(prefix + name, x, self.spec.element)
            else:
                check_positive(prefix + name, x)
                self._check_found(state, prefix + name)
        missing = [prefix + name for name in held if came and name not in came]
        if missing and not self.ready:
            raise NumericsError(
                f"this state has {', '.join(prefix + name for name in came)} without {', '.join(missing)}: "
                f"{self.name} is quantized by both; give a state that has both"
            )

    def _check_found(self, state: Any, key: str) -> None:
        """Raises NumericsError for a scale that is unknown, NaN, in the place of one that is known."""
        if self.ready and is_read(state[key]) and bool(state[key].isnan().any()):
            raise NumericsError(
                f"{key} is NaN in this state, where no scale was found, and {self.name} has one here, which "
                "would be lost: nx.calibrate the model that is saved; or "
                f"{without_scales([key], state)}, which keeps the model's own"
            )

    def quantize(self, x: Tensor) -> QTensor:
        """Returns x as a QTensor of the same values as forward's."""
        return quantize(
            x, self.used, scale=self.scale, zero_point=self.zero_point, tensor_scale=self.tensor_scale
        )


class Learned(nn.Module):
    """Quantizes by a threshold (TQT) or a step (LSQ) that it learns.

    learns: the TQT or the LSQ.  shape: of what it quantizes.  spec: how it quantizes once its scale is fixed.
    """

    def __init__(self, name: str, learns: TQT | LSQ, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.name, self.learns, self.shape = name, learns, shape
        self.register_load_state_dict_post_hook(_settled)

    @property
    def spec(self) -> QuantSpec:
        """How it quantizes."""
        return self.learns.spec

    def scales(self) -> dict[str, Tensor]:
        """What is learned, by name."""
        return self.learns.scales()

    def forward(self, x: Tensor) -> Tensor:
        """Returns x quantized and dequantized, with the gradients of what is learned."""
        if hasattr(self.learns, _WAITS) and not self.learns.initialized:
            raise NumericsError(f"{self.name} has no threshold yet: nx.calibrate(model, batches) finds one")
        self.check_whole(tensor(self.name, x))
        return cast(Tensor, self.learns(x))

    def check_whole(self, x: Tensor) -> None:
        """Raises NumericsError for one entry of a tensor: its gradient is of the scale of all of them."""
        if not torch.compiler.is_compiling() and outside(x) is not None:
            raise NumericsError(
                f"{self.name} is inside torch.vmap, which shows one entry at a time, and a scale that is "
                "learned is that of all of them; qat='ste', or a rule {name: {'activations': None}}"
            )

    def check_shapes(self, state: Any, prefix: str) -> None:
        """Raises NumericsError for a state, with scales at that prefix, of a tensor of another shape."""
        if min(self.shape, default=0) < 0:  # a size that a graph leaves open
            return
        due = _shared(self.spec, self.shape)
        for name in self.learns.scales():
            if prefix + name in state:
                check_shape(prefix + name, state[prefix + name], due, f"{self.name} of shape {self.shape}")

    def begin(self, x: Tensor) -> None:
        """Takes x for the first batch, where there was none."""
        if self.learns.initialized:
            return
        if x.numel() == 0 or not bool(torch.isfinite(x.detach()).all()):
            what = "no values" if x.numel() == 0 else "NaN or Inf"
            raise NumericsError(
                f"{self.name} would begin with {what}, in which no threshold is found: give another example="
            )
        with torch.no_grad(), told_by(lambda lost: warn(f"{self.name}: {lost}")):
            self.learns(x.detach())

    def quantize(self, x: Tensor) -> QTensor:
        """Returns x as a QTensor of the same values as forward's."""
        return self.learns.quantize(x)

    def fixed(self) -> Static:
        """The same numbers by a scale that is learned no more; it is waited for where there is none yet."""
        if not self.learns.initialized:
            return Static(self.name, self.spec, _shared(self.spec, self.shape), None)
        found = Static(self.name, self.spec, tuple(self.learns.scale.shape), None)
        if self.spec.blocked:
            found.give(tensor_scale=self.learns.scale)
            return found
        zero = getattr(self.learns, "zero_point", None)
        found.scale = torch.empty_like(self.learns.scale)
        found.give(self.learns.scale, zero)
        return found


_WAITS = "_initialize_hook"
"""What a module of torch's has while it waits for its first batch; what is compiled can ask nothing else."""


def _settled(one: Learned, _: Any) -> None:
    """What has its threshold from a state waits for no batch; torch.compile would look for one."""
    if hasattr(one.learns, _WAITS) and one.learns.initialized:
        one.learns._initialize_hook.remove()
        one.learns._load_hook.remove()
        del one.learns._initialize_hook, one.learns._load_hook


def quantizer(row: Row, qat: str | None, threshold_init: str | None) -> nn.Module:
    """The quantizer of a row; raises NumericsError for what cannot be learned."""
    assert row.spec is not None
    if learnable(row.spec, qat):
        assert qat is not None
        return Learned(row.quantizer, _learns(row, qat, threshold_init), row.shape)
    if row.observer is not None:
        return Static(row.quantizer, row.spec, _shared(row.spec, row.shape), row.observer)
    return Quantizer(row.quantizer, row.spec)


def _shared(spec: QuantSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of what a quantizer of tensors of that shape keeps: scales, or the one of the tensor."""
    return () if spec.blocked else spec.shared_shape(shape)


LEARNED = {
    "tqt": "integers",
    "lsq": "integers, floats and codebooks with a scale, and blocks with one of the tensor",
}
"""Of which formats a way of training learns the scales."""


def learnable(spec: QuantSpec, qat: str | None) -> bool:
    """Does that way of training learn the scale of what is quantized so?"""
    if qat not in LEARNED or not spec.scaled:
        return False
    if spec.blocked:
        return qat == "lsq" and spec.block.has_tensor_scale
    return qat == "lsq" or spec.dtype.kind == "integer"


def _learns(row: Row, qat: str, threshold_init: str | None) -> TQT | LSQ:
    spec = row.spec
    assert spec is not None
    try:
        if not spec.symmetric:
            raise NumericsError(
                "symmetric=False: zero points are not learned here; give symmetric=True, or put the module "
                "nx.train.LSQ(dtype, zero_point='learned') where they should be"
            )
        if spec.blocked:
            return LSQ(spec)
        _check_options(spec, qat)
        if qat == "lsq":
            return LSQ(spec.dtype, scheme=spec.scheme)
        usual = "_3SD" if row.kind == "parameter" else "_LL_J"
        return TQT(spec.dtype, threshold_init or usual, scheme=spec.scheme)
    except NumericsError as wrong:
        raise NumericsError(f"{row.name}: qat={qat!r}: {wrong}") from None


def _check_options(spec: QuantSpec, qat: str) -> None:
    """Raises NumericsError for options of how a scale is found, and of rounding, that learning has not."""
    own = {"dtype", "scheme"} | ({"scale_type"} if (qat, spec.scale_type) == ("tqt", "pof2") else set())
    others = [f"{name}={fact!r}" for name, fact in spec.options.items() if name not in own]
    if others and spec != QuantSpec(spec.dtype, scheme=spec.scheme):
        raise NumericsError(
            f"{', '.join(others)} has no effect: what is learned is a float32, and rounding is half_even; "
            "leave it away, or qat='ste'"
        )


def quantizers(model: nn.Module) -> list[Quantizer | Learned]:
    """Every quantizer of a model, each once."""
    return [module for module in model.modules() if isinstance(module, (Quantizer, Learned))]


def check_known(model: nn.Module) -> None:
    """Raises NumericsError, with all of their names, for quantizers whose scales are no numbers by now."""
    odd: dict[str, str] = {}
    for one in quantizers(model):
        for name, x in one.scales().items():
            if not is_lazy(x) and has_values(x) and not bool(torch.isfinite(x.detach()).all()):
                odd[one.name] = f"{name} ({int((~torch.isfinite(x)).sum())} of {x.numel()})"
    if odd:
        first = ", ".join(f"{site}: {why}" for site, why in list(odd.items())[:6])
        raise NumericsError(
            f"NaN or Inf is in the scales of {first}{' ...' if len(odd) > 6 else ''}: training or "
            "calibration went astray; load_state_dict brings those of before, nx.wrap(model) begins anew"
        )


def unbegun(model: nn.Module) -> list[Learned]:
    """What has no threshold yet."""
    return [one for one in quantizers(model) if isinstance(one, Learned) and not one.learns.initialized]


def waits(one: nn.Module) -> bool:
    """Is it a quantizer that has no scale yet?"""
    if isinstance(one, Learned):
        return not one.learns.initialized
    return isinstance(one, Static) and not one.ready
