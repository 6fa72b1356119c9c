"""How torchao chooses scales and zero points: the ends of each block by our kernel, then a scale of them.

Where torchao's rule is docs/formats.md §6, the scale is ours, too.  Its rule is asked elsewhere, of the two
ends of a block instead of the block: of float16 and bfloat16, in whose arithmetic it computes; of a least
scale, Inf, NaN and differences that overflow; of a zero point next to a tie, which it rounds sooner.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from numerics.adapters.base import Function
from numerics.adapters.scaled import extremes, integer_of, row_length, takes
from numerics.backends.host.ieee import ieee_arithmetic
from numerics.backends.host.quantizing import AffineOptions
from numerics.formats import dispatch
from numerics.formats.dtype import Integer

Chosen = tuple[Tensor, Tensor]
"""Scales, and zero points."""
Ask = Callable[[Tensor], Chosen]
"""What torchao chooses of ends."""
Call = Mapping[str, Any]
"""The arguments of a call by their names."""
STORED = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
PAIR = (1, 2)  # a block of two numbers, its ends
NEEDED = inspect.Parameter.empty
RULE = {"mapping_type": NEEDED, "block_size": NEEDED, "target_dtype": NEEDED, "quant_min": None,
        "quant_max": None, "eps": None, "scale_dtype": None, "zero_point_dtype": None}  # fmt: skip
FLOAT8 = {"block_size": NEEDED, "float8_dtype": torch.float8_e4m3fn, "scale_dtype": torch.float32,
          "hp_value_lb": None, "hp_value_ub": None}  # fmt: skip
SYMMETRIC = {"SYMMETRIC": True, "ASYMMETRIC": False}  # the rules that are ours


def of_tensors(host: Function, correct: bool) -> Function:
    """choose_qparams_affine, whose range holds 0: of each block its ends, then its scale and zero point."""
    names = {"input": NEEDED, **RULE, "zero_point_dtype": torch.int32, "keepdim": False}
    return _of_blocks(host, names, lambda ends, call, ask: _chosen(ends, call, ask, correct))


def of_ends(host: Function, correct: bool) -> Function:
    """choose_qparams_affine_with_min_max, which is given the ends."""
    signature = _signature({"min_val": NEEDED, "max_val": NEEDED, **RULE})

    def choose(*arguments: Any, **named: Any) -> Any:
        call = _bound(signature, arguments, named)
        low, high = call["min_val"], call["max_val"]
        if (
            not takes(low, high)
            or low.dtype not in STORED
            or (low.dtype, low.shape) != (high.dtype, high.shape)
        ):
            return NotImplemented

        def ask(ends: Tensor) -> Chosen:
            found: Chosen = host(**{**call, "min_val": ends[:, 0], "max_val": ends[:, 1]})
            return found

        ends = torch.stack((low.reshape(-1), high.reshape(-1)), -1)
        if _unordered(call) or not _is_plain(ends, call, correct):
            return NotImplemented
        return tuple(one.view(low.shape) for one in _chosen(ends, call, ask, correct))

    return choose


def of_blocks(host: Function, correct: bool) -> Function:
    """What torchao chooses by another rule, of ranges that do not hold 0: the ends are ours, the rule its."""
    return _of_blocks(host, {"input": NEEDED, **RULE}, lambda ends, call, ask: ask(ends))


def of_float8(host: Function, correct: bool) -> Function:
    """choose_scale_float8: the largest magnitude is one of the ends."""
    signature = _signature({"tensor": NEEDED, **FLOAT8})

    def choose(*arguments: Any, **named: Any) -> Any:
        call = _bound(signature, arguments, named)
        x, block = call["tensor"], call["block_size"]
        length = row_length(x, block)
        if length is None:
            return NotImplemented
        ends = torch.stack(extremes(x.view(-1, length)), -1)
        return host(**{**call, "tensor": ends, "block_size": PAIR}).view(_counts(x.shape, block))

    return choose


def _of_blocks(host: Function, names: Call, rule: Callable[[Tensor, Call, Ask], Chosen]) -> Function:
    signature = _signature(names)

    def choose(*arguments: Any, **named: Any) -> Any:
        call = _bound(signature, arguments, named)
        x, block, keep = call["input"], call["block_size"], call.get("keepdim", False)
        length = row_length(x, block)
        if length is None or _unordered(call):
            return NotImplemented

        def ask(ends: Tensor) -> Chosen:
            apart = {"keepdim": False} if "keepdim" in call else {}
            found: Chosen = host(**{**call, "input": ends, "block_size": PAIR, **apart})
            return found

        found = rule(torch.stack(extremes(x.view(-1, length)), -1), call, ask)
        shape = _counts(x.shape, block) if keep else _kept(x.shape, block)
        return tuple(one.view(shape) for one in found)

    return choose


def _signature(names: Call) -> inspect.Signature:
    """torchao's, from names and what stands for those that are left out."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature([inspect.Parameter(name, kind, default=one) for name, one in names.items()])


def _bound(signature: inspect.Signature, arguments: Sequence[Any], named: Mapping[str, Any]) -> Call:
    """The arguments by their names, with those that were left out."""
    bound = signature.bind(*arguments, **named)
    bound.apply_defaults()
    return bound.arguments


def _counts(shape: Sequence[int], block: Sequence[int]) -> list[int]:
    """How many blocks there are along each axis."""
    return [size // one for size, one in zip(shape, block, strict=True)]


def _kept(shape: Sequence[int], block: Sequence[int]) -> list[int]:
    """The same without the axes that a block fills."""
    return [size // one for size, one in zip(shape, block, strict=True) if one == 1 or one != size]


def _unordered(call: Call) -> bool:
    """May the scale be a zero, whose sign hangs on the order in which a block is looked at?"""
    return call["eps"] is not None and not call["eps"] > 0


# ---- our rule -------------------------------------------------------------------------------------


def _is_plain(ends: Tensor, call: Call, correct: bool) -> bool:
    """Is the scale found as docs/formats.md §6 finds it?  In float32; of narrower types where correct."""
    known = call["mapping_type"].name in SYMMETRIC and _element(call) is not None
    stored = call["scale_dtype"] in (None, *STORED)
    return known and stored and (correct or ends.dtype == torch.float32)


def _element(call: Call) -> Integer | None:
    """The integer format of the range that a call asks for; None where there is none."""
    kind, low, high = call["target_dtype"], call["quant_min"], call["quant_max"]
    if kind not in (torch.int8, torch.uint8, torch.int16):
        return None
    facts = torch.iinfo(kind)
    low, high = facts.min if low is None else low, facts.max if high is None else high
    return integer_of(low, high) if facts.min <= low and high <= facts.max else None


def _chosen(ends: Tensor, call: Call, ask: Ask, correct: bool) -> Chosen:
    """Our scales and zero points, and torchao's of the blocks where it leaves the rule."""
    element = _element(call)
    if element is None or not _is_plain(ends, call, correct):
        return ask(ends)
    symmetric = SYMMETRIC[call["mapping_type"].name]
    stored = call["scale_dtype"] or ends.dtype
    wide = ends.float()
    scale, zero = _found(wide, element, symmetric, STORED[stored] if correct else "float32")
    odd = _odd(wide, scale, element, symmetric, correct)
    odd |= scale < (torch.finfo(ends.dtype).smallest_normal if call["eps"] is None else call["eps"])
    kind = call["zero_point_dtype"] or (ends.dtype if symmetric else torch.int32)
    made = scale.to(stored), zero.to(kind)
    at = odd.nonzero().squeeze(1)
    if len(at):
        for ours, theirs in zip(made, ask(ends[at]), strict=True):
            ours[at] = theirs
    return made


def _found(ends: Tensor, element: Integer, symmetric: bool, stored: str) -> Chosen:
    """Scales in float32, rounded to the type of that name, and zero points."""
    low, high = ends.unbind(-1)
    owner, options = dispatch.owner(ends), AffineOptions(symmetric, stored, "int32", symmetric)
    with ieee_arithmetic():
        scale, zero = owner.find_affine(*owner.native((low, high)), element, options)
    middle = int((element.max + element.min + 1) / 2)
    return torch.as_tensor(scale), torch.full_like(low, middle) if symmetric else torch.as_tensor(zero)


def _odd(ends: Tensor, scale: Tensor, element: Integer, symmetric: bool, correct: bool) -> Tensor:
    """Which blocks are torchao's own: without an extent, with Inf and NaN; its overflow, and its ties."""
    low, high = ends[:, 0].clamp(max=0), ends[:, 1].clamp(min=0)
    extent = torch.maximum(-low, high) if symmetric else high - low
    if correct:
        return ~((extent > 0) & (low > -torch.inf) & (high < torch.inf))  # not of NaN
    odd = ~((extent > 0) & (extent < torch.inf))
    if not symmetric:  # it rounds before it subtracts
        odd |= (element.min - low / scale).frac_().abs_() == 0.5
    return odd
