"""Caches of keys and values: what a model keeps between calls is in the formats of a plan.

A cache grows by the tokens of each call, so a scale may not depend on which tokens came together: formats
whose scales lie along the last axis, that of the head, give the same bits for a prompt at once and token by
token.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from numerics.formats.errors import NumericsError, with_article
from numerics.model.caches.stored import SERVED
from numerics.model.deciding.plan import Plan
from numerics.tensor.spec import QuantSpec

PARTS = ("keys", "values")
CACHES = "numerics_caches"
"""Under that name a wrapped model has the name of its cache and the formats of keys and values."""
ALIASES = ("past_key_values", "cache")
"""What transformers calls the argument, in one version or another, and takes both for."""


def check_format(name: str, spec: QuantSpec) -> None:
    """Raises NumericsError for a format whose scales would depend on which tokens come together."""
    if spec.blocked:
        fits = spec.axis == -1 and not spec.block.has_tensor_scale
    else:
        scheme = spec.scheme_of_elements
        fits = (
            not spec.scaled or scheme.kind == "per_token" or (scheme.kind, scheme.axis) == ("per_group", -1)
        )
    if not fits:
        raise NumericsError(
            f"{name}: {spec!r} finds scales over several tokens, and a cache gets them call by call: give "
            "blocks along the last axis, such as 'mxfp8_e4m3', or groups along it, "
            "QuantSpec('int8', scheme=nx.per_group(32)) or QuantSpec('fp8_e4m3', scheme=nx.per_token())"
        )


def placed(model: nn.Module, plan: Plan) -> None:
    """Lets the forward of an eager model put its keys and values into the formats of the plan.

    Raises NumericsError for a cache of another library or kind, and for a forward that takes none.
    """
    rows = [row for row in plan.rows if row.kind == "cache" and row.spec is not None]
    if not rows:
        return
    name, kind = rows[0].name.rpartition(".")[0], rows[0].uses[0]
    if kind not in SERVED or "transformers" not in sys.modules:
        raise NumericsError(
            f"{name} is {with_article(kind)}: served are transformers' {', '.join(SERVED)}; "
            f"a rule {{{name + '*'!r}: {{'caches': None}}}} leaves it as it is"
        )
    if name not in inspect.signature(model.forward).parameters:
        raise NumericsError(f"{name} is returned by {type(model).__name__}, whose forward takes no {name}")
    formats = {row.name.rpartition(".")[2]: row.spec for row in rows}
    model.__dict__[CACHES] = name, kind, tuple(formats.get(part) for part in PARTS)


def with_cache(
    module: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Sequence[Any], dict[str, Any]]:
    """The arguments of a call of a wrapped model, its cache one of the plan's formats."""
    name, kind, specs = module.__dict__[CACHES]
    signature = inspect.signature(module.forward)
    given = signature.bind_partial(*args, **kwargs).arguments
    name = next((alias for alias in (name, *ALIASES) if alias in kwargs), name)
    came, used = kwargs.get(name, given.get(name)), kwargs.get("use_cache", given.get("use_cache"))
    config = getattr(module, "config", None)
    if came is None and not (getattr(config, "use_cache", False) if used is None else used):
        return args, dict(kwargs)
    from numerics.model.caches import layers as cache_layers  # and with it transformers

    packed = cache_layers.packed(came, kind, specs, config)
    at = [*signature.parameters, name].index(name)
    if at < len(args):
        return (*args[:at], packed, *args[at + 1 :]), dict(kwargs)
    return args, {**kwargs, name: packed}
