"""How torchao chooses scales and zero points: the ends of each block by our kernel, then a scale of them.

The scale is torchao's own, asked of the two ends of a block instead of the block.  Where the standard's is
asked for, and torchao's rule is docs/formats.md §6 but for the type in which it computes, it is ours.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from numerics.adapters.base import Function
from numerics.adapters.scaled import extremes, integer_of, is_long, row_length, takes
from numerics.backends.host.ieee import ieee_arithmetic
from numerics.backends.host.quantizing import AffineOptions
from numerics.formats import dispatch
from numerics.formats.dtype import Integer

PRIMITIVES = "torchao.quantization.quant_primitives"
Chosen = tuple[Tensor, Tensor]
"""Scales, and zero points."""
Ends = tuple[Tensor, Tensor]
"""The least and the largest number of each block."""
Ask = Callable[[Ends], Chosen]
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
    return _of_blocks(host, names, _chosen if correct else _asked)


def of_ends(host: Function, correct: bool) -> Function:
    """choose_qparams_affine_with_min_max, which is given the ends: a scale that is ours (`correct`)."""
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

        def ask(ends: Ends) -> Chosen:
            found: Chosen = host(**{**call, "min_val": ends[0], "max_val": ends[1]})
            return found

        if _unordered(call, low.dtype) or _element(call) is None:
            return NotImplemented
        found = _chosen((low.reshape(-1), high.reshape(-1)), call, ask)
        return tuple(one.view(low.shape) for one in found)

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
        if length is None or is_long(x, length):
            return NotImplemented
        ends = torch.stack(extremes(x.view(-1, length)), -1)
        return host(**{**call, "tensor": ends, "block_size": PAIR}).view(_counts(x.shape, block))

    return choose


def _of_blocks(host: Function, names: Call, rule: Callable[[Ends, Call, Ask], Chosen]) -> Function:
    signature = _signature(names)

    def choose(*arguments: Any, **named: Any) -> Any:
        call = _bound(signature, arguments, named)
        x, block, keep = call["input"], call["block_size"], call.get("keepdim", False)
        length = row_length(x, block)
        if not _typed(call) or not isinstance(keep, int):
            return NotImplemented
        if length is None or _unordered(call, x.dtype) or (rule is not _chosen and is_long(x, length)):
            return NotImplemented  # the ends of long rows torchao finds as soon

        def ask(ends: Ends) -> Chosen:
            apart = {"keepdim": False} if "keepdim" in call else {}
            found: Chosen = host(**{**call, "input": torch.stack(ends, -1), "block_size": PAIR, **apart})
            return found

        found = rule(extremes(x.view(-1, length)), call, ask)
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


def _typed(call: Call) -> bool:
    """Are the numbers of a call numbers?  Operators of torchao's refuse tensors with one."""
    return all(isinstance(call[name], (int, float, type(None))) for name in ("quant_min", "quant_max", "eps"))


def _unordered(call: Call, kind: torch.dtype) -> bool:
    """May the scale be a zero, whose sign hangs on the order in which a block is looked at?

    kind: the type of its numbers, in which the least scale, eps, may be 0 itself.
    """
    return call["eps"] is not None and not bool(torch.tensor(call["eps"], dtype=kind) > 0)


# ---- torchao's rule -------------------------------------------------------------------------------


def _asked(ends: Ends, call: Call, ask: Ask) -> Chosen:
    """torchao's own function of ends, which does no more than it has to."""
    if call["zero_point_dtype"] is None:  # which that one does not take
        return ask(ends)
    primitives = importlib.import_module(PRIMITIVES)
    asked = {name: call[name] for name in RULE}
    found: Chosen = primitives.choose_qparams_affine_with_min_max(*ends, **asked)
    return found


# ---- our rule -------------------------------------------------------------------------------------


def _element(call: Call) -> Integer | None:
    """The integer format of the range that a call asks for.

    None where there is none, or where the scale is not found as docs/formats.md §6 finds it, but for the type
    in which it is computed.
    """
    if call["mapping_type"].name not in SYMMETRIC or call["scale_dtype"] not in (None, *STORED):
        return None
    kind, low, high = call["target_dtype"], call["quant_min"], call["quant_max"]
    if kind not in (torch.int8, torch.uint8, torch.int16):
        return None
    facts = torch.iinfo(kind)
    low, high = facts.min if low is None else low, facts.max if high is None else high
    return integer_of(low, high) if facts.min <= low and high <= facts.max else None


def _chosen(ends: Ends, call: Call, ask: Ask) -> Chosen:
    """Our scales and zero points, and torchao's of the blocks that have no scale by the rule."""
    element = _element(call)
    if element is None:
        return ask(ends)
    symmetric = SYMMETRIC[call["mapping_type"].name]
    kind = ends[0].dtype
    stored = call["scale_dtype"] or kind
    wide = ends[0].float(), ends[1].float()
    scale, zero = _found(wide, element, symmetric, STORED[stored])
    odd = ~_has_extent(wide, symmetric)
    odd |= scale < (torch.finfo(kind).smallest_normal if call["eps"] is None else call["eps"])
    made = scale.to(stored), zero.to(call["zero_point_dtype"] or (kind if symmetric else torch.int32))
    at = odd.nonzero().squeeze(1)
    if len(at):
        for ours, theirs in zip(made, ask((ends[0][at], ends[1][at])), strict=True):
            ours[at] = theirs
    return made


def _found(ends: Ends, element: Integer, symmetric: bool, stored: str) -> Chosen:
    """Scales in float32, rounded to the type of that name, and zero points."""
    low, high = ends
    owner, options = dispatch.owner(low), AffineOptions(symmetric, stored, "int32", symmetric)
    with ieee_arithmetic():
        scale, zero = owner.find_affine(*owner.native((low, high)), element, options)
    middle = int((element.max + element.min + 1) / 2)
    return torch.as_tensor(scale), torch.full_like(low, middle) if symmetric else torch.as_tensor(zero)


def _has_extent(ends: Ends, symmetric: bool) -> Tensor:
    """Which blocks are of finite numbers that are not all 0?  A difference of two may overflow."""
    low, high = ends[0].clamp(max=0), ends[1].clamp(min=0)
    extent = torch.maximum(-low, high) if symmetric else high - low
    return (extent > 0) & (low > -torch.inf) & (high < torch.inf)  # not of NaN
