"""Training with quantization: scales that are learned with the weights.  Needs torch.

`tqt` and `lsq` are functions of a tensor and of what is learned; `TQT` and `LSQ` are modules that own
it, for a weight (torch.nn.utils.parametrize) or an activation (called in forward).  The values are
those of `fake_quantize` with the same scale, bit for bit, on every device, compiled or not.  Where
nothing is learned, `fake_quantize` itself has the straight-through gradient.

>>> import numerics as nx
>>> layer = torch.nn.Linear(4, 2)
>>> _ = torch.nn.utils.parametrize.register_parametrization(layer, "weight", nx.train.TQT("int8"))
>>> layer(torch.ones(4)).sum().backward()
>>> [name for name, p in layer.named_parameters() if p.grad is not None]
['bias', 'parametrizations.weight.original', 'parametrizations.weight.0.log2_threshold']
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Never, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

from numerics.backends.broadcast import reduced, spread
from numerics.backends.host.ieee import ieee_arithmetic
from numerics.backends.host.quantizing import say_what_is_lost
from numerics.backends.host.tensors import (
    check_dense,
    check_memory,
    check_storage,
    given_tensor,
    has_values,
)
from numerics.formats.arguments import MISSING, required, unknown_argument
from numerics.formats.dtype import Element
from numerics.formats.errors import NumericsError, hint, one_of, said, text_in
from numerics.pytorch.autograd import is_transformed
from numerics.pytorch.constants import constant
from numerics.pytorch.learned_scales import (
    SMALLEST_SCALE,
    check_block_recipe,
    check_threshold_scheme,
    integer,
    learner,
    lsq_scale,
    lsq_zero,
    tqt_scale,
)
from numerics.pytorch.operators import called
from numerics.quantization import quantize
from numerics.tensor.qtensor import QTensor
from numerics.tensor.scheme import Scheme, spelled
from numerics.tensor.spec import RECORD, QuantSpec
from numerics.train.states import Recorded, check_state, check_values_come, check_zero_point
from numerics.train.threshold_init import THRESHOLD_INIT, threshold_3sd, threshold_kl_j

__all__ = ["LSQ", "THRESHOLD_INIT", "TQT", "lsq", "lsq_init", "threshold_3sd", "threshold_kl_j", "tqt"]


# ---- functions -------------------------------------------------------------------------------------


@required
def tqt(
    x: Tensor,
    log2_threshold: Tensor,
    dtype: Any,
    *unnamed: Never,
    scheme: Scheme | str | None = None,
    **unknown: Never,
) -> Tensor:
    """Returns x quantized and dequantized up to a threshold t, whose logarithm is learned (TQT).

    x: a tensor of float16, bfloat16, float32 or float64, any shape; what comes back is like it.
    log2_threshold: a tensor in the shape that the scheme makes, the logarithm of t.  dtype: an integer
        format, or its name.
    scheme: who shares a threshold: per_tensor (the default; its shape is ()) or per_channel(axis).

    n = 2**(bits - 1), unsigned 2**bits; s = 2**ceil(log2_threshold) / n, kept within 2**-127 .. 2**127;
    y = clamp(round_half_even(x / s), min, max) * s, which is fake_quantize(x, dtype, scale=s).
    dL/dx is dL/dy where round(x / s) is in the range, else 0; dL/dlog2_threshold is
    s ln 2 sum dL/dy (round(x / s) - x / s), clipped: min or max.  NaN becomes 0 and has no part in either.
    Raises NumericsError for a format that is not of integers, another scheme, and a threshold that is not
    finite or has another shape.
    arXiv 1903.08066 §3; docs/formats.md §7.

    >>> log2_threshold = torch.tensor(1.7, requires_grad=True)
    >>> y = tqt(torch.tensor([0.3, -1.5, 9.0]), log2_threshold, "int4")
    >>> y.sum().backward()
    >>> y.tolist(), log2_threshold.grad
    ([0.5, -1.5, 3.5], tensor(2.5646))
    """
    if unknown or unnamed or x is MISSING or log2_threshold is MISSING or dtype is MISSING:
        raise unknown_argument(tqt, unknown, (x, log2_threshold, dtype), unnamed)
    if not isinstance(log2_threshold, Tensor) or log2_threshold.is_nested:
        raise NumericsError(f"log2_threshold must be a tensor, not {said(log2_threshold)}")
    return cast(Tensor, called("tqt", _tensor(x), log2_threshold, _text(constant(dtype), spelled(scheme))))


@required
def lsq(
    x: Tensor,
    scale: Tensor,
    dtype: Any,
    *unnamed: Never,
    scheme: Scheme | str | None = None,
    zero_point: Any = None,
    **unknown: Never,
) -> Tensor:
    """Returns x quantized and dequantized with a scale that is learned (LSQ).

    x: a tensor of float16, bfloat16, float32 or float64, any shape; what comes back is like it.
    scale: a tensor in the shape that the scheme makes.  dtype: a format of single numbers (integers, floats
        such as fp8_e4m3 and fp4, codebooks), or its name; or one of blocks with a scale of the tensor, such
        as nvfp4, or its QuantSpec (with an axis), whose tensor scale, of shape (), is learned.
    scheme: who shares a scale: per_tensor (the default), per_channel(axis), per_token, per_group(size, axis)
        or per_block((rows, columns)).
    zero_point: of integers: int32 in the scale's shape, not learned; or a tensor of floats, which is learned
        where it requires a gradient (LSQ+, arXiv 2004.09576); None (the default) for symmetric quantization.

    s = |scale|, at least 2**-126, so that no step of an optimizer leads out of what a scale can be;
    y = (clamp(round_half_even(x / s + z)) - z) * s, z the zero point or 0; with integers for z that is
    fake_quantize(x, dtype, scale=s, zero_point=z).  dL/dx is dL/dy where x / s + z is between the ends of
    the range, else 0; dL/ds is sum dL/dy (round(x / s + z) - z - x / s), clipped: the end - z,
    over sqrt(numel * max), where numel elements share the scale (of an activation: the whole batch).  A zero
    point that is learned is used within the format's range, not rounded; its gradient is the sum of -s dL/dy
    where x was clipped, over the same root.  NaN becomes what the format makes of it, and has no part in any.
    Of blocks the scale of a block follows from its largest value and the tensor's, and is rounded straight
    through as the elements are.  Raises NumericsError for blocks without a scale of the tensor, and for a
    scale or a zero point that does not fit.
    arXiv 1902.08153 §2; docs/formats.md §7.

    >>> scale = torch.tensor(0.5, requires_grad=True)
    >>> y = lsq(torch.tensor([0.3, -1.5, 9.0]), scale, "int4")
    >>> y.sum().backward()
    >>> y.tolist(), scale.grad
    ([0.5, -1.5, 3.5], tensor(1.6148))
    """
    if unknown or unnamed or x is MISSING or scale is MISSING or dtype is MISSING:
        raise unknown_argument(lsq, unknown, (x, scale, dtype), unnamed)
    if not isinstance(scale, Tensor) or scale.is_nested:
        raise NumericsError(f"scale must be a tensor, not {said(scale)}")
    if blocks := _blocks(dtype, scheme, zero_point):
        return cast(Tensor, called("lsq", _tensor(x), scale, None, blocks.text))
    learned = isinstance(zero_point, Tensor) and not zero_point.is_nested and zero_point.is_floating_point()
    wide, symmetric = _tensor(x).dtype == torch.float64, zero_point is None
    text = _text(constant(dtype), spelled(scheme), symmetric, wide, learned)
    zero = zero_point
    if not symmetric and not learned:
        zero = given_tensor("zero_point", zero_point, device=x.device)
    return cast(Tensor, called("lsq", x, scale, zero, text))


@required
def lsq_init(
    x: Tensor, dtype: Any, *unnamed: Never, scheme: Scheme | str | None = None, **unknown: Never
) -> Tensor:
    """Returns where LSQ begins: 2 mean|x| / sqrt(n) of the finite values that share a scale; 1 for zeros.

    n: what `quantize` scales the largest magnitude to, `dtype.scale_end`: the largest value, of codebooks the
        largest magnitude, of posit8 and hifloat8 15.
    x, dtype, scheme: as for `lsq`; of blocks the scale of the tensor that `quantize` finds.  Returns float32
    (float64 for such x) in the shape that the scheme makes, on x's device: what `lsq` can use, so at least
    2**-126 and finite, however small or large x is.  Raises NumericsError as `lsq` does.
    arXiv 1902.08153 §2.1.

    >>> lsq_init(torch.tensor([[1.0, -3.0], [0.0, 0.0]]), "int4", scheme="per_channel")
    tensor([1.5119, 1.0000])
    """
    if unknown or unnamed or x is MISSING or dtype is MISSING:
        raise unknown_argument(lsq_init, unknown, (x, dtype), unnamed)
    if blocks := _blocks(dtype, scheme):
        found = quantize(_readable(x).detach(), blocks).tensor_scale
        return cast(Tensor, found).clamp(min=SMALLEST_SCALE)
    spec = _spec(dtype, scheme)
    shares, wide = spec.partition(tuple(_readable(x).shape)), torch.promote_types(x.dtype, torch.float32)
    finite = x.detach().isfinite()
    sizes = torch.where(finite, x.detach(), 0.0).abs().to(wide)
    unit = _unit(reduced(sizes, shares, torch.amax, 0.0))  # a sum of what is large is Inf, of what is small 0
    total = reduced(sizes / spread(unit, shares), shares, torch.sum, 0.0)
    count = reduced(finite.to(wide), shares, torch.sum, 0.0)
    found = 2 * total / count.clamp(min=1) / math.sqrt(spec.element.scale_end) * unit
    return found.clamp(SMALLEST_SCALE, torch.finfo(wide).max).masked_fill(total == 0, 1.0)


def _unit(largest: Tensor) -> Tensor:
    """A power of two for each number: the greatest that it reaches, at least the least normal float32."""
    powers = torch.ldexp(torch.ones_like(largest), largest.frexp().exponent - 1)
    return powers.clamp(min=SMALLEST_SCALE)


# ---- modules ---------------------------------------------------------------------------------------


class _Learned(LazyModuleMixin, Recorded):
    """A module that learns how to quantize; it begins with what its first batch says, once.

    Until then its parameter is uninitialized, as those of torch's lazy modules are: an optimizer may
    hold it; DistributedDataParallel, torch.compile and torch.load of its state want the first batch first.
    """

    spec: QuantSpec
    zero_point: Tensor | None

    def __init__(self, spec: QuantSpec, zero_point: Tensor | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("zero_point", zero_point)

    @property
    def initialized(self) -> bool:
        """Has it seen a batch, or loaded a state that has?"""
        return not self.has_uninitialized_params()

    @required
    def initialize_parameters(self, x: Tensor, *unnamed: Never) -> None:
        """From its first batch; nothing where a state was loaded."""
        if unnamed or x is MISSING:  # a forward before which torch calls this
            raise unknown_argument(type(self).forward, (), (x,), unnamed)
        if self.initialized:
            return
        if torch.compiler.is_compiling():
            raise NumericsError(f"{self} has seen no batch; call it once before it is compiled")
        if is_transformed():
            raise NumericsError(f"{self} has seen no batch; call it once before torch.func transforms it")
        if not has_values(_readable(x)) and not any(p.is_meta for p in self.parameters()):
            raise NumericsError(f"x on {x.device} has no values for {self} to begin with")
        with torch.inference_mode(False), torch.no_grad():  # what begins there must still learn later
            self._begin(x)
            if has_values(x):
                say_what_is_lost(self.spec, x.detach())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves it as any module, but what it learns stays in its type: in half of it a threshold is another.

        What has not begun stays so wherever it goes; what comes back from "meta" is empty, and begins anew.
        """
        learned = {name: p for name, p in self._parameters.items() if p is not None}
        waiting = {name: p for name, p in learned.items() if is_lazy(p)}
        from_meta = {name for name, p in learned.items() if name not in waiting and p.is_meta}
        self._parameters = {name: p for name, p in learned.items() if name not in waiting}
        try:
            super()._apply(lambda x: _kept_in_type(x, fn), recurse)  # type: ignore[no-untyped-call]
        finally:
            moved: dict[str, Any] = {name: self._parameters.get(name, p) for name, p in learned.items()}
            self._parameters = moved
        emptied = {name for name in from_meta if not moved[name].is_meta}
        for name in (*waiting, *emptied):
            moved[name] = _moved(moved[name], fn, name in emptied)
        if emptied and not hasattr(self, "_initialize_hook"):
            self._await_batch()
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Says in a state of which spec its scales are, too: torch's lazy modules leave that out."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + RECORD] = self.get_extra_state()

    def _load_from_state_dict(self, state: Any, prefix: str, notes: Any, *rest: Any) -> None:
        """Takes what a state has for it; raises NumericsError, before anything is taken, where that is none.

        What has begun in float64 stays so: torch would make room for it in the default type.
        """
        assigned = bool(notes.get("assign_to_params_buffers"))
        self.check_state(state, prefix, assigned)
        if assigned:  # of half of it the next step of an optimizer would be lost
            came = {key: state[key] for key in (prefix + name for name in self.scales()) if key in state}
            state.update(
                {key: x.float() for key, x in came.items() if x.dtype in (torch.half, torch.bfloat16)}
            )
        with torch.no_grad():
            for name, x in self._beginning(state, prefix).items():
                kind = torch.promote_types(x.dtype, torch.float32)
                cast(nn.UninitializedParameter, self.scales()[name]).materialize(x.shape, dtype=kind)
        super()._load_from_state_dict(state, prefix, notes, *rest)

    def check_state(self, state: Mapping[str, Any], prefix: str, assign: bool) -> None:
        """Raises NumericsError for a state that has, at that prefix, scales that cannot be this module's."""
        super().check_state(state, prefix, assign)
        held = self.scales()
        for name, x in held.items():
            if prefix + name in state:
                check_state(prefix + name, state[prefix + name], x, assign=assign)
                if not is_lazy(x) and not x.is_floating_point():
                    check_zero_point(prefix + name, state[prefix + name], self.spec.element)
        begun = self._beginning(state, prefix)
        self._check_begun(begun, [name for name, x in held.items() if is_lazy(x)], prefix)
        if not assign:
            check_values_come(prefix, begun, held)

    def _beginning(self, state: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
        """What a state has of that with which this module waits to begin."""
        waiting = [name for name, x in self.scales().items() if is_lazy(x)]
        came = {name: state[prefix + name] for name in waiting if prefix + name in state}
        return {name: x for name, x in came.items() if not is_lazy(x)}

    def _check_begun(self, begun: dict[str, Tensor], waiting: list[str], prefix: str) -> None:
        """Raises NumericsError unless a state says all with which this module waits to begin, or nothing."""
        missing = [prefix + name for name in waiting if begun and name not in begun]
        if missing:
            raise NumericsError(
                f"this state has {', '.join(prefix + name for name in begun)} without {', '.join(missing)}: "
                f"{self} begins with both; give a state that has both, or call it with its first batch before"
            )
        shapes = {tuple(x.shape) for x in begun.values()}
        if len(shapes) > 1 or (shapes - {()} and self.spec.scheme_of_elements.kind == "per_tensor"):
            said = ", ".join(f"{prefix + name} of shape {tuple(x.shape)}" for name, x in begun.items())
            raise NumericsError(
                f"{said} cannot be: with {self.spec.scheme!r} each is a number a scale, in one shape"
            )

    def _await_batch(self) -> None:
        """Makes it wait again: the first batch, or a state, says with what it begins."""
        load = self._register_load_state_dict_pre_hook(self._lazy_load_hook)  # type: ignore[no-untyped-call]
        self._load_hook = load
        self._initialize_hook = self.register_forward_pre_hook(self._infer_parameters, with_kwargs=True)

    @required
    def quantize(self, x: Tensor, *unnamed: Never) -> QTensor:
        """Returns x as a QTensor, whose values are those of forward, bit for bit."""
        if unnamed or x is MISSING:
            raise unknown_argument(type(self).quantize, (), (x,), unnamed)
        wide = _tensor(x).dtype == torch.float64
        if self.spec.blocked:
            return quantize(x, self.spec, tensor_scale=self.scale)
        zero = self.zero_point
        real = zero is not None and zero.is_floating_point()
        r = _spec(self.spec.dtype, self.spec.scheme, zero is None, wide, real)
        if real and zero is not None:
            zero = lsq_zero(self._ready(zero), r.element)
        return quantize(
            x, r.dtype, scheme=r.scheme, symmetric=r.symmetric, scale_type=r.scale_type, scale=self.scale,
            zero_point=zero, zero_point_type=r.zero_point_type,
        )  # fmt: skip

    @property
    def scale(self) -> Tensor:
        """The scale in use, positive, without its history."""
        raise NotImplementedError

    def _begin(self, x: Tensor) -> None:
        raise NotImplementedError

    def _ready(self, parameter: Tensor) -> Tensor:
        """What is learned; raises NumericsError before the first batch."""
        if not self.initialized:
            raise NumericsError(f"{self} has seen no batch yet, and loaded no state")
        return parameter.detach()


class TQT(_Learned):
    """A module that quantizes to integers up to thresholds that it learns, one a tensor or channel: `tqt`.

    The scale is a power of two.  Called with a tensor it returns the tensor quantized and dequantized.

    dtype: an integer format, or its name.  scheme: per_tensor (the default) or per_channel(axis).
    init: how the first batch gives a threshold, which is 1 where that would be 0:
        _3SD (the default, for weights): |mean| + 3 standard deviations
        _LL_J, also _KL_J (for activations): the least J distance of the distributions (arXiv 1805.07941)
    Learns `log2_threshold`, a float32 in the shape of the scales (float64 where x is), which stays so when
    the model is moved to another type.  threshold, scale: those in use.  Raises NumericsError for another
    format, scheme or init, and before the first batch where a threshold is asked for.  arXiv 1903.08066;
    docs/formats.md §7.

    >>> quantizer = TQT("int8", init="_LL_J")
    >>> quantizer(torch.tensor([0.3, -0.75])).tolist()
    [0.296875, -0.75]
    >>> quantizer.scale, quantizer.quantize(torch.tensor([0.3, -0.75])).codes
    (tensor(0.0078), tensor([ 38, 160], dtype=torch.uint8))
    """

    @required
    def __init__(
        self,
        dtype: Any,
        init: str = "_3SD",
        *unnamed: Never,
        scheme: Scheme | str | None = None,
        **unknown: Never,
    ) -> None:
        if unknown or unnamed or dtype is MISSING:
            raise unknown_argument(type(self), unknown, (dtype,), unnamed)
        spec = _spec(integer(dtype), scheme)
        check_threshold_scheme(spec)
        super().__init__(spec)
        self.init = one_of("threshold initialization", init, THRESHOLD_INIT)
        self.log2_threshold = _uninitialized()

    @required
    def forward(self, x: Tensor) -> Tensor:
        """Returns x quantized and dequantized, in its own type and shape."""
        if x is MISSING:
            raise unknown_argument(type(self).forward, (), (x,))
        return tqt(x, self.log2_threshold, self.spec.dtype, scheme=self.spec.scheme)

    @property
    def threshold(self) -> Tensor:
        """t, which is learned; what is clipped lies beyond the next power of two."""
        return self._ready(self.log2_threshold).exp2()

    @property
    def scale(self) -> Tensor:
        """The scale in use, without its history."""
        found = tqt_scale(self._ready(self.log2_threshold), integer(self.spec.dtype))
        with ieee_arithmetic():  # 2**-127 is a subnormal
            return found.to(torch.float32)

    def extra_repr(self) -> str:
        """What it was made with."""
        scheme = "" if self.spec.scheme_of_elements.kind == "per_tensor" else f", scheme={self.spec.scheme}"
        return f"{self.spec.dtype}, init={self.init!r}{scheme}"

    def _begin(self, x: Tensor) -> None:
        shared, scheme = self.spec.partition(tuple(_readable(x).shape)).shared, self.spec.scheme_of_elements
        each = [x] if scheme.axis is None else x.unbind(scheme.axis)
        found = [math.log2(THRESHOLD_INIT[self.init](one, self.spec.dtype) or 1.0) for one in each]
        self.log2_threshold.materialize(shared, x.device, torch.promote_types(x.dtype, torch.float32))
        self.log2_threshold.copy_(torch.tensor(found, dtype=torch.float64).reshape(shared))


class LSQ(_Learned):
    """A module that quantizes with scales that it learns: `lsq`, beginning with `lsq_init`.

    Called with a tensor it returns the tensor quantized and dequantized.

    dtype: a format of single numbers: integers, floats such as fp8_e4m3 and fp4, codebooks; or its name; or
        one of blocks with a scale of the tensor, such as nvfp4, or its QuantSpec (with an axis), of which
        that scale is learned.
    scheme: who shares a scale: per_tensor (the default), per_channel(axis), per_token, per_group(size, axis)
        or per_block((rows, columns)); those that share one must stay as many as in the first batch.
    zero_point: of integers: int32 in the shape of the scales, kept, not learned; "learned" for one that is,
        a real number within the range (LSQ+, arXiv 2004.09576), which begins, with the scale, where
        `quantize(x, symmetric=False)` finds them in the first batch: of its least and its largest value, and
        of 0, which lies between; None for symmetric quantization.
    Learns `step`, a float32 in the shape of the scales (float64 where x is), whose magnitude is the scale.
    scale: those in use.  Raises NumericsError for another format, and before the first batch where a scale
    is asked for.  arXiv 1902.08153; docs/formats.md §7.

    >>> quantizer = LSQ("int4", scheme="per_channel")
    >>> quantizer(torch.tensor([[1.0, -3.0], [0.5, 0.0]])).detach()
    tensor([[ 1.5119, -3.0237],
            [ 0.5669,  0.0000]])
    >>> quantizer.scale
    tensor([1.5119, 0.1890])
    """

    @required
    def __init__(
        self,
        dtype: Any,
        *unnamed: Never,
        scheme: Scheme | str | None = None,
        zero_point: Any = None,
        **unknown: Never,
    ) -> None:
        if unknown or unnamed or dtype is MISSING:
            raise unknown_argument(type(self), unknown, (dtype,), unnamed)
        learned = _is_word(zero_point)
        if blocks := _blocks(dtype, scheme, zero_point):
            super().__init__(blocks)
            self.step = _uninitialized()
            return
        found = None if zero_point is None or learned else given_tensor("zero_point", zero_point)
        real = learned or (found is not None and found.is_floating_point())
        super().__init__(_spec(dtype, scheme, zero_point is None, learned=real), found)
        self.step = _uninitialized()
        if learned:
            del self.zero_point  # a buffer
            self.zero_point = _uninitialized()

    @required
    def forward(self, x: Tensor) -> Tensor:
        """Returns x quantized and dequantized, in its own type and shape."""
        if x is MISSING:
            raise unknown_argument(type(self).forward, (), (x,))
        if self.spec.blocked:
            return lsq(x, self.step, self.spec)
        return lsq(x, self.step, self.spec.dtype, scheme=self.spec.scheme, zero_point=self.zero_point)

    @property
    def scale(self) -> Tensor:
        """The scales in use, positive, without their history."""
        return lsq_scale(self._ready(self.step))

    def extra_repr(self) -> str:
        """What it was made with."""
        who = "the scale of a tensor" if self.spec.blocked else f"scheme={self.spec.scheme}"
        return f"{self.spec.dtype}, {who}"

    def _begin(self, x: Tensor) -> None:
        begun: tuple[tuple[Any, Tensor], ...]
        if isinstance(self.zero_point, nn.UninitializedParameter):
            wide = x.dtype == torch.float64
            spec = _spec(self.spec.dtype, self.spec.scheme, symmetric=False, wide=wide, learned=True)
            made = quantize(x.detach(), spec)  # from the least and the largest value
            step = made.scale.clamp(min=SMALLEST_SCALE)
            zero = made.zero_point * (made.scale / step).to(made.zero_point.dtype)
            begun = (self.step, step), (self.zero_point, zero)
        else:
            blocked = self.spec.blocked
            asked: dict[str, Any] = {} if blocked else {"scheme": self.spec.scheme}
            begun = ((self.step, lsq_init(x, self.spec if blocked else self.spec.dtype, **asked)),)
        if not all(is_lazy(learned) for learned, _ in begun):
            raise NumericsError(
                f"{self} has one of step and zero_point, and waits for the other: give it both"
            )
        for learned, found in begun:
            learned.materialize(found.shape, found.device, found.dtype)
            learned.copy_(found)


def _is_word(zero_point: Any) -> bool:
    """Is it the word for one that is learned?  Raises NumericsError for another word."""
    word = text_in(zero_point)
    if word not in (None, "learned"):
        raise NumericsError(
            f"zero_point={said(zero_point)} is not allowed;{hint(word or '', ['learned'])} allowed: "
            "'learned', numbers in the shape of the scale, None"
        )
    return word is not None


# ---- what is learned, wherever it lies -------------------------------------------------------------


def _uninitialized(**options: Any) -> nn.UninitializedParameter:
    with torch.inference_mode(False):
        return nn.UninitializedParameter(**options)


def _kept_in_type(x: Tensor, fn: Callable[[Tensor], Tensor]) -> Tensor:
    """fn(x), in x's own type and of x's own values where they are somewhere."""
    moved = fn(x)
    if moved.dtype == x.dtype or not x.is_floating_point():
        return moved
    return x.to(moved.device)


def _moved(parameter: Any, fn: Callable[[Tensor], Tensor], emptied: bool) -> nn.UninitializedParameter:
    """One without values where fn would bring it; the same one where it stays, since optimizers hold it."""
    device = parameter.device if emptied else fn(torch.empty(0, device=parameter.device)).device
    if not emptied and device == parameter.device:
        return cast(nn.UninitializedParameter, parameter)
    return _uninitialized(requires_grad=parameter.requires_grad, device=device)


# ---- recipes and checks ----------------------------------------------------------------------------


def _spec(
    dtype: Any, scheme: Any = None, symmetric: bool = True, wide: bool = False, learned: bool = False
) -> QuantSpec:
    """Of a scale that is used as it is: float32, for float64 tensors float64.  learned: the zero point is."""
    found, kept = learner(dtype), "float" if wide else "float32"
    made = QuantSpec(found, scheme=scheme, symmetric=symmetric, scale_type=kept)
    return made.replace(zero_point_type="float32") if learned else made


def _blocks(dtype: Any, scheme: Any = None, zero_point: Any = None) -> QuantSpec | None:
    """The spec of blocks whose tensor scale is learned; None for formats of single numbers.

    Raises NumericsError for what such blocks have not, or what is not learned with them.
    """
    if not isinstance(dtype, QuantSpec) and isinstance(learner(constant(dtype)), Element):
        return None
    spec = dtype if isinstance(dtype, QuantSpec) else QuantSpec(constant(dtype))
    if not spec.blocked:
        raise NumericsError(f"{spec!r}: give dtype and scheme=; a QuantSpec is taken of blocks alone")
    if zero_point is not None:
        raise NumericsError(f"zero_point={said(zero_point)}: {spec.dtype} has no zero point")
    check_block_recipe(spec if scheme is None else spec.replace(scheme=scheme))
    return spec


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _text(*options: Any) -> str:
    return _spec(*options).text


def _tensor(x: Any) -> Tensor:
    """x, when it is a tensor that torch's operators, and NumericsError from them, can be asked about."""
    if not isinstance(x, Tensor):
        raise NumericsError(f"scales are learned for torch tensors, not {said(x)}")
    check_dense(x)
    return x


def _readable(x: Any) -> Tensor:
    """x, when it is a tensor of floats whose memory is there, or that has no values."""
    if not _tensor(x).is_floating_point():
        raise NumericsError(f"scales are learned for floats, not {x.dtype}")
    check_memory(x)
    if has_values(x):
        check_storage(x)
    return cast(Tensor, x)
