"""Parameters: which are weights, which biases, which stay, and along which axis scales are shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from numerics.formats.errors import NumericsError
from numerics.model.deciding.look import Decided, Look, note_effect, of_weight, outputs_of
from numerics.model.deciding.plan import APART, UNUSED
from numerics.model.deciding.routers import ROUTER, routers
from numerics.model.deciding.rows import Row, stored_bytes, told_scales
from numerics.model.deciding.rules import Rule
from numerics.model.looking.places import check_finite
from numerics.model.looking.products import RESHAPED, VIEWS
from numerics.model.looking.restoring import renorms
from numerics.model.looking.trace import Use
from numerics.tensor.qtensor import QTensor
from numerics.tensor.scheme import tiled_kernel
from numerics.tensor.spec import QuantSpec


class _Parameter(NamedTuple):
    """A parameter by all of its names, how it is used, and what it is by that (`_role`)."""

    names: list[str]
    x: Tensor
    uses: tuple[Use, ...]
    role: str | None


def parameters(look: Look) -> list[Row]:
    """A row of each parameter, tied ones in one."""
    every: dict[int, list[str]] = {}
    tensors: dict[int, Tensor] = {}
    for name, x in look.model.named_parameters(remove_duplicate=False):
        every.setdefault(id(x), []).append(name)
        tensors[id(x)] = x
    chosen = routers(
        {name: tuple(x.shape) for name, x in look.model.named_parameters(remove_duplicate=False)}
    )
    rows = [_row(look, _used(look, names, tensors[key])) for key, names in every.items()]
    return [_as_router(row) if chosen.intersection(row.names) else row for row in rows]


def _as_router(row: Row) -> Row:
    """The row of a router, which says so where it is quantized and no rule said it."""
    said = row.spec is not None and row.reason.startswith("weights=")
    return replace(row, reason=f"{row.reason}, {ROUTER}") if said else row


def _used(look: Look, names: list[str], x: Tensor) -> _Parameter:
    uses = tuple(dict.fromkeys(use for name in names for use in look.found.uses.get(name, ())))
    role = _role(uses, x)
    if role == "norm" and all(name.endswith("bias") for name in names):
        role = "norm's bias"
    return _Parameter(names, x, uses, role)


def _row(look: Look, one: _Parameter) -> Row:
    names, x, uses, role = one
    what, rule = _what(role), None
    if role is not None:
        rule = look.rules.rule(what, names, look.owners(names))

    def decided(rule: Rule | None) -> Decided:
        spec, reason = _decided(look, one, rule)
        return (spec, reason) if spec is None else _placed(one, (spec, reason))

    spec, reason = decided(rule)
    if rule is not None:
        other = look.rules.next(rule, what, names, look.owners(names))
        note_effect(rule, spec, names[0], lambda: decided(other))
    if spec is not None:
        check_finite(names[0], x)
    if len(names) > 1:
        reason += f" (tied: {len(names)} names)"
    return Row(
        "parameter", names[0], tuple(x.shape), spec, reason, tuple(dict.fromkeys(map(str, uses))),
        tuple(names[1:]), value_bits=8 * x.element_size(),
    )  # fmt: skip


def _decided(look: Look, one: _Parameter, rule: Rule | None) -> Decided:
    """The format and the reason, before its axis is known."""
    x, name = one.x, one.names[0]
    if isinstance(x, QTensor):
        if rule is not None and rule.specs["weights"] is not None:
            raise NumericsError(f"{name}: rule {rule.said} quantizes it, and it is {x.spec!r} already")
        return None, f"packed already: {x.spec.dtype}"
    if not x.is_floating_point() or x.element_size() == 1:
        what = "narrow" if x.is_floating_point() else "not of"
        return None, f"{what} floats: {str(x.dtype).removeprefix('torch.')}"
    if rule is not None:
        spec = rule.specs[_what(one.role)]
        if spec is not None and not one.uses:
            raise NumericsError(
                f"{name}: rule {rule.said} quantizes it, and the example never used it; give an "
                "example that does, or leave it out of the rule"
            )
        if spec is not None:
            _check_unwritten(look, one.names, rule)
        return spec, f"rule {rule.said}"
    return _default(look, one)


def _check_unwritten(look: Look, names: Sequence[str], rule: Rule) -> None:
    """Raises NumericsError for a parameter that its module writes into whenever it runs."""
    for name, module in look.owners(names):
        if module is not None and renorms(module):
            raise NumericsError(
                f"{names[0]}: rule {rule.said} quantizes it, and each forward of {name or 'the model'} "
                f"writes into it: max_norm={module.max_norm}; where its rows are within that "
                "norm, max_norm=None there changes nothing, else leave it out of the rule"
            )


def _default(look: Look, one: _Parameter) -> Decided:
    """What the arguments say of a parameter that no rule takes."""
    names, role = one.names, one.role
    asked, word = look.asked[_what(role)], f"{_what(role)}="
    if not one.uses:
        asked_for = any(look.asked[what] for what in ("weights", "activations", "outputs"))
        return None, UNUSED if look.found.calls and asked_for else "undecided: no use of it was seen"
    if role in ("norm", "norm's bias"):
        return None, "a norm"
    if role == "bias":
        return asked, word if asked else "a bias"
    if role == "other":
        return None, f"{APART}{_takers(one)} (a rule can take it)"
    if role == "rows":
        return None, "an embedding (a rule can take it)"
    if role == "head" or _is_head(look, names):
        return None, "the head (a rule can take it)"
    if any(look.renormed(name) for name in names):
        return None, "a part of a weight that a hook makes: torch.nn.utils.remove_weight_norm first"
    if any(".parametrizations." in f".{name}" for name in names):
        return (
            None,
            "a part of a parametrization: torch.nn.utils.parametrize.remove_parametrizations first",
        )
    return asked, word if asked else "weights=None"


def _takers(one: _Parameter) -> str:
    """What computes with it in the place of a product, such as a multiplication entry by entry."""
    names = dict.fromkeys(use.operation for use in one.uses if use.operation not in VIEWS | RESHAPED)
    return f", only {' and '.join(names)}" if names else ""


def _is_head(look: Look, names: Sequence[str]) -> bool:
    """Does it belong to what turns a language model's states into words?"""
    find = getattr(look.model, "get_output_embeddings", None)
    head = find() if callable(find) else None
    owners = [module for _, module in look.owners(names)]
    return any(name.split(".")[-2:-1] == ["lm_head"] for name in names) or (
        head is not None and any(module is head for module in owners)
    )


def _placed(one: _Parameter, decided: tuple[QuantSpec, str]) -> tuple[QuantSpec | None, str]:
    """The spec along the axis that is summed; none where it would take more bytes than it saves."""
    (spec, reason), x, name, shape = decided, one.x, one.names[0], tuple(one.x.shape)
    axis = next((use.axis for use in one.uses if use.axis is not None), None)
    outputs = outputs_of(one.uses)
    if axis is None:
        _check_axis(one, spec)
    try:
        found = of_weight(spec, None if axis is None else axis - x.ndim, shape, outputs)
    except NumericsError as wrong:
        raise NumericsError(f"{name} of shape {shape}: {wrong}") from None
    after, before = stored_bytes(found, shape), x.numel() * x.element_size()
    unfit = tiled_kernel(found.scheme, shape, outputs)
    if unfit is None and after >= before:
        unfit = f"would grow: {before} bytes to {after}"
    if unfit is not None:
        if reason.startswith("rule "):
            raise NumericsError(
                f"{name} of shape {shape}: {reason}: {unfit}; give another format, or leave it out of the "
                "rule"
            )
        return None, unfit
    return found, reason + told_scales(spec, found, shape, outputs)


def _check_axis(one: _Parameter, spec: QuantSpec) -> None:
    """Raises NumericsError where it is not known which axis a product sums, and the spec needs it."""
    uses = [use for use in one.uses if use.role == "factor"]
    shape, outputs = tuple(one.x.shape), outputs_of(one.uses)
    needs = {repr(of_weight(spec, k, shape, outputs)) for k in range(-len(shape), 0)}
    if not uses or len(needs) < 2:
        return
    between = ", ".join(dict.fromkeys(use.operation for use in one.uses if use.role == "other"))
    raise NumericsError(
        f"{one.names[0]} of shape {shape} comes to {uses[0]} by way of {between or 'views'}: "
        f"which of its axes is summed there is not decided by guessing: rules={{{one.names[0]!r}: None}} "
        "keeps it, a QuantSpec with axis= from 0 on quantizes it along that"
    )


def _what(role: str | None) -> str:
    """Which argument of a plan speaks of parameters of a role."""
    return "biases" if role in ("bias", "norm's bias") else "weights"


def _role(uses: Sequence[Use], x: Tensor) -> str | None:
    """What a parameter mostly is: a factor, rows of a table or both (a head), a bias, part of a norm, or
    something else.
    """
    roles = {use.role for use in uses}
    if x.ndim >= 2:
        if {"factor", "rows"} <= roles:
            return "head"  # of a language model, tied to its embedding
        for role in ("factor", "fused", "rows"):
            if role in roles:
                return "factor" if role == "fused" else role
        return "other"
    if any("norm" in use.operation for use in uses):
        return "norm" if x.ndim < 2 else "other"
    if "bias" in roles:
        return "bias"
    return "norm" if not uses else "bias" if any(use.operation == "add" for use in uses) else "norm"
