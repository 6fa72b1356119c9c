"""Quark's two functions that are trained: tqt_quantize, of a power of two, and lsq_quantize, of any scale.

Both round and both have a gradient of their own; what is summed for the gradient of a threshold or a scale is
ours, element by element, and the sum is torch's, in Quark's order.  A pass whose gradient is to be
differentiated again is Quark's.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from numerics.adapters import conventions
from numerics.adapters.base import Called, Calls, Function, Named, Seam, answered, fresh, is_seen
from numerics.adapters.conventions import Convention
from numerics.adapters.scaled import (
    FLOATS,
    ZEROS,
    default_widens,
    has_specials,
    integer_of,
    is_odd,
    ordinary,
    takes,
    whole_steps,
    within,
)
from numerics.formats.dtype import Integer
from numerics.pytorch.learned_scales import tqt_gradients
from numerics.tensor.scheme import Scheme, per_channel, per_tensor
from numerics.tensor.spec import QuantSpec

KERNEL = "quark.torch.kernel"
HALF_EVEN = 8  # Quark's number for it
LN2 = math.log(2.0)
PIECE = 1 << 19  # numbers whose parts of a sum are kept at a time
SHARED = 1 << 21  # the same for several threads: fewer are given to one
Passes = tuple[Callable[..., Any], Callable[..., Any]]
"""Forward, which gives what it made, the tensors and the rest that Quark keeps; and backward, of those."""


def seams(correct: bool, calls: Calls) -> list[Seam]:
    """Both functions, wherever Quark knows them by name."""
    found = {"tqt_quantize": ("TQTQuantize", tqt(correct)), "lsq_quantize": ("LSQQuantize", lsq(correct))}
    memory = Called(conventions.keep_spare, conventions.give_back_spare)
    return [memory, *(_seam(name, host, passes, calls) for name, (host, passes) in found.items())]


def _seam(name: str, host: str, passes: Passes, calls: Calls) -> Seam:
    def make(apply: Function) -> Function:
        ours = trained(name, getattr(importlib.import_module(KERNEL), host), passes, calls)

        def function(*arguments: Any, **named: Any) -> Any:
            if named or is_seen() or any(map(is_odd, arguments[:1])):
                return apply(*arguments, **named)
            return ours.apply(*arguments)

        return function

    return Named("quark", KERNEL, name, make)


def trained(name: str, host: Any, passes: Passes, calls: Calls) -> Any:
    """A function with a gradient in the place of the host's, which answers what ours does not take."""
    forward_of, backward_of = passes

    def forward(ctx: Any, *arguments: Any) -> Any:
        ctx.count, found = len(arguments), answered(forward_of, *arguments)
        if found is not NotImplemented:
            calls.count(calls.ours, name)
            made, tensors, ctx.others = found
            made = fresh(made)
        else:
            calls.count(calls.passed_on, name)
            tensors = []
            kept = SimpleNamespace(save_for_backward=lambda *every: tensors.extend(every), others=None)
            made, ctx.others = host.forward(kept, *arguments), kept.others
        ctx.save_for_backward(*tensors)
        return made

    def backward(ctx: Any, gradient: Tensor) -> Any:
        tensors, named = ctx.saved_tensors, f"{name} backward"
        found = NotImplemented
        if not torch.is_grad_enabled():
            found = answered(backward_of, gradient, tensors, ctx.others)
        if found is not NotImplemented:
            calls.count(calls.ours, named)
            return (*fresh(found), *(None,) * (ctx.count - len(found)))
        calls.count(calls.passed_on, named)
        given = SimpleNamespace(saved_tensors=tensors, others=ctx.others)
        return (*host.backward(given, gradient),)[: ctx.count]

    body = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    base: Any = torch.autograd.Function
    return type(base)(host.__name__, (base,), body)  # whose name a graph tells


# ---- tqt -------------------------------------------------------------------------------------------


def tqt(correct: bool) -> Passes:
    """2**ceil(log2 t) / n as a scale (arXiv 1903.08066 §3), by torch's fused kernel and Quark's gradient."""

    def forward(x: Tensor, log_threshold: Tensor, zero_point: Tensor, domain: Tensor, round_mode: int) -> Any:
        scale = 2 ** torch.ceil(log_threshold) / domain
        kept = (x, scale, domain - 1, -domain, log_threshold), None
        if not _sizes(x, scale, zero_point):
            return NotImplemented
        element = integer_of(-float(domain), float(domain) - 1)
        if element is None or not within(zero_point, element):
            return NotImplemented
        return _by_tensor(x, scale, zero_point, element, correct), *kept

    def backward(gradient: Tensor, kept: Sequence[Tensor], _: Any) -> Any:
        x, scale, most, least, log_threshold = kept
        element = integer_of(float(least), float(most)) if _sizes(x, scale) else None
        plain = takes(gradient) and (gradient.is_contiguous() or not any(gradient.stride()))
        if element is None or not plain or gradient.dtype != x.dtype:  # the order of a sum is the memory's
            return NotImplemented
        if correct:
            given = log_threshold.detach().reshape(()), QuantSpec(element, scheme=per_tensor()).text
            of_x, total = tqt_gradients(gradient.contiguous(), x.detach(), *given)
            return of_x, total.reshape(log_threshold.shape)
        found = conventions.in_rows(x.detach(), scale)
        if found is not None:
            rows, (steps,) = found
            of_x, g = conventions.room(rows), gradient.contiguous().view_as(rows)
            with conventions.spare(rows.numel()) as parts:
                conventions.tqt_slopes(rows, g, steps, element, (of_x, parts.view_as(rows)))
                total = parts.view(x.shape).sum()
            return of_x.view(x.shape), total.expand_as(log_threshold)
        steps = x / scale
        if steps.dtype != torch.float32:
            return NotImplemented
        inside = _inside(steps, element)
        slope = element.round(steps)
        if has_specials(steps):
            slope = torch.where(steps.isnan(), steps, slope)
            inside |= steps.isnan()
        added = slope - steps
        added = torch.where((added == -0.5) & (steps < 0), 0.5, added)  # its ties of negative numbers go up
        slope = torch.where(inside, added, slope)
        total = (gradient * scale * LN2 * slope).sum()
        return torch.where(inside, gradient, 0.0), total.expand_as(log_threshold)

    return forward, backward


def _sizes(x: Any, scale: Any, *zero: Any) -> bool:
    """Are these a contiguous tensor of floats, and one scale that our kernels and a reciprocal can be of?"""
    if not takes(x, scale, *zero) or x.dtype not in FLOATS or not x.is_contiguous():
        return False
    if (
        scale.dtype != torch.float32
        or any(one.dtype not in ZEROS for one in zero)
        or any(one.numel() != 1 for one in (scale, *zero))
    ):
        return False
    return 2.0**-120 <= float(scale) <= 2.0**120


def _by_tensor(x: Tensor, scale: Tensor, zero: Tensor, element: Integer, correct: bool) -> Tensor:
    """(clamp(round(x * (1 / scale)) + zero) - zero) * scale, where NaN is the least code, or 0."""
    reciprocal = (1.0 / scale.detach()).reshape(())
    found = conventions.in_rows(x.detach(), reciprocal, scale.detach(), zero)
    if found is not None:
        how = Convention(multiplies=True, nan="ours" if correct else "least")
        return _in_one_pass(found, element, how, x.shape)
    steps, of_nan = x.detach().float() * reciprocal, 0.0 if correct else element.min - float(zero)
    made = _but_nan(steps, zero.reshape(()), element, per_tensor(), of_nan)
    return made.mul_(scale.detach().reshape(())).to(x.dtype)


def _in_one_pass(
    found: tuple[Tensor, tuple[Tensor, ...]], element: Integer, how: Convention, shape: Sequence[int]
) -> Tensor:
    """(clamp(round(x by its first number) + zero) - zero) * scale, of rows and their three numbers."""
    rows, (first, scale, zero) = found
    return conventions.moved_values(rows, (first, scale), zero, element, how).view(shape)


def _but_nan(steps: Tensor, zero: Tensor, element: Integer, scheme: Scheme, of_nan: float) -> Tensor:
    """What whole_steps makes, and of NaN that number."""
    nan = steps.isnan() if has_specials(steps) else None
    made = whole_steps(steps, zero, element, scheme)
    return made if nan is None else made.masked_fill_(nan, of_nan)


def _inside(steps: Tensor, element: Integer) -> Tensor:
    """Which of them are within the range once they are rounded half to even, whose largest is odd?"""
    return _over(steps, element.min) & (steps < element.max + 0.5)


def _over(steps: Tensor, least: float) -> Tensor:
    return steps >= least - 0.5 if least % 2 == 0 else steps > least - 0.5


# ---- lsq -------------------------------------------------------------------------------------------


def lsq(correct: bool) -> Passes:
    """A scale of a tensor or of a channel (arXiv 1902.08153), with the gradient factor that is given."""

    def forward(
        x: Tensor, scale: Tensor, zero_point: Tensor, grad_factor: float, quant_min: int, quant_max: int,
        ch_axis: int | None = None, rounding_key: int = HALF_EVEN,
    ) -> Any:  # fmt: skip
        kept = (x, scale, zero_point), (quant_min, quant_max, ch_axis, grad_factor)
        element = _lsq_element(*kept)
        if element is None or (ch_axis is None and rounding_key != HALF_EVEN):
            return NotImplemented
        shape = _along(x, ch_axis)
        step = scale.detach().float().clamp(min=torch.finfo(torch.float32).tiny).view(shape)
        wide = x.detach().float()
        first = step if correct else 1.0 / step
        found = conventions.in_rows(*_by_channel(x.detach(), ch_axis, first, step, zero_point))
        if found is not None:
            how = Convention(multiplies=not correct, nan="kept")
            return _in_one_pass(found, element, how, x.shape), *kept
        steps = wide / step if correct else wide * first
        scheme = per_tensor() if ch_axis is None else per_channel(ch_axis)
        zero = zero_point.reshape(() if ch_axis is None else -1)
        made = _but_nan(steps, zero, element, scheme, torch.nan)
        return made.mul_(step).to(x.dtype), *kept

    def backward(gradient: Tensor, kept: Sequence[Tensor], others: tuple[Any, ...]) -> Any:
        (x, scale, zero), (_, _, ch_axis, factor) = kept, others
        element = _lsq_element(kept, others)
        if element is None or not takes(gradient) or default_widens():
            return NotImplemented
        shape = _along(x, ch_axis)
        numbers = scale.detach(), zero.float(), x.new_full((1,), factor)
        found = conventions.in_rows(*_by_channel(x.detach(), ch_axis, *numbers))
        if found is not None:
            return _lsq_in_rows(*found, gradient.contiguous(), element, ch_axis)
        steps = x / scale.view(shape) + zero.view(shape)
        if steps.dtype != torch.float32 or has_specials(steps):
            return NotImplemented
        slope = element.round(steps)
        slope = torch.where(_inside(steps, element), slope - steps, slope)
        of_scale = _summed(slope * gradient * factor, ch_axis)
        return _inside(steps, element).float() * gradient, of_scale

    return forward, backward


def _summed(parts: Tensor, ch_axis: int | None) -> Tensor:
    """What each element adds to the gradient of its scale, summed."""
    dims = [axis for axis in range(parts.dim()) if axis != ch_axis]
    return parts.sum(dims).unsqueeze(0) if dims else parts.clone()  # whose memory is not kept


def _by_channel(x: Tensor, ch_axis: int | None, *numbers: Tensor) -> tuple[Tensor, ...]:
    """x in two dimensions whose rows are channels, where they lie so, and the numbers beside them."""
    if ch_axis != 0:
        return x, *numbers
    return x.view(len(x), -1), *(one.reshape(-1, 1) for one in numbers)


def _lsq_in_rows(
    rows: Tensor, numbers: Sequence[Tensor], gradient: Tensor, element: Integer, ch_axis: int | None
) -> tuple[Tensor, Tensor]:
    """Both gradients.  Where rows are channels some at a time, so that what is summed stays in a cache: torch
    sums every row by itself, but a single one in another order.
    """
    shape, g = gradient.shape, gradient.view_as(rows)
    piece = SHARED if torch.get_num_threads() > 1 else PIECE
    count = max(2, piece // rows.shape[1]) if ch_axis == 0 else len(rows)
    ends = [*range(count, len(rows) - 1, count), len(rows)]
    longest = max(end - first for first, end in pairwise((0, *ends)))
    of_x, sums, first = conventions.room(rows), [], 0
    with conventions.spare(longest * rows.shape[1]) as parts:
        given = rows, g, numbers, element, of_x, parts.view(longest, -1)
        for end in conventions.lsq_slopes(*given, ends):
            summed = parts[: (end - first) * rows.shape[1]].view(-1, *shape[1:])
            sums.append(_summed(summed if ch_axis == 0 else parts.view(shape), ch_axis))
            first = end
    of_scale = sums[0] if len(sums) == 1 else torch.cat(sums, -1)
    return of_x.view(shape), of_scale


def _lsq_element(tensors: Sequence[Any], others: tuple[Any, ...]) -> Integer | None:
    """The format of the range; None for tensors that are not taken."""
    (x, scale, zero), (low, high, axis, _) = tensors, others
    if not takes(x, scale, zero) or x.dtype not in FLOATS or not x.is_contiguous() or x.dim() == 0:
        return None
    if axis is not None and not 0 <= axis < x.dim():
        return None
    count = 1 if axis is None else x.shape[axis]
    if (scale.dtype, scale.shape, zero.shape) != (torch.float32, (count,), (count,)):
        return None
    element = integer_of(low, high) if zero.dtype in ZEROS else None
    fits = element is not None and within(zero, element) and bool(ordinary(scale).all())
    return element if fits else None


def _along(x: Tensor, axis: int | None) -> list[int]:
    """The shape in which a number a channel stands beside x."""
    return [-1 if one == axis else 1 for one in range(x.dim())]
