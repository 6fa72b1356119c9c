"""Buffers, batch normalizations, caches, modules that never ran, tensors that are none of a model's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from numerics.formats.errors import NumericsError
from numerics.model.caches.placing import PARTS, check_format
from numerics.model.deciding.look import Look, note_effect
from numerics.model.deciding.plan import MULTIPLIED
from numerics.model.deciding.rows import Row
from numerics.model.looking.trace import named_tensors

PLAIN = "a plain tensor, which no plan takes, and nothing saves: make it a Parameter or a buffer"
STRANGE = (
    "a parameter that the model does not have, so that no plan takes it, and nothing saves it: keep it, or "
    "its module, in an attribute, nn.ParameterList or nn.ModuleList"
)
_OWN = ("_parameters", "_buffers", "_modules")


def buffers(look: Look) -> list[Row]:
    """Buffers, which stay."""
    return [_buffer(look, name, x) for name, x in look.model.named_buffers()]


def _buffer(look: Look, name: str, x: Tensor) -> Row:
    uses = look.found.uses.get(name, ())
    owner, _, leaf = name.rpartition(".")
    saved = leaf not in look.modules[owner]._non_persistent_buffers_set
    reason = "a buffer" if saved else "a buffer, not saved"
    if x.ndim > 1 and x.is_floating_point() and any(use.role == "factor" for use in uses):
        reason += f", {MULTIPLIED}: a Parameter is planned"
    return Row(
        "buffer", name, tuple(x.shape), None, reason, tuple(dict.fromkeys(map(str, uses))),
        value_bits=8 * x.element_size(),
    )  # fmt: skip


def norms(look: Look) -> list[Row]:
    """Batch normalizations, which convolutions can take in."""
    rows = []
    for name, module in look.modules.items():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            continue
        conv = look.found.after.get(name)
        reason = "left: fold=False" if conv else "left: no convolution right before it"
        if conv and look.fold:
            wrong = _not_foldable(look, name, conv)
            reason = f"left: {wrong}" if wrong else f"folded into {conv}"
            if not wrong:
                look.folded[name] = conv
        rows.append(Row("norm", name, (module.num_features,), None, reason, (conv,) if conv else ()))
    if look.fold and not look.folded:
        raise NumericsError(
            "fold=True folds nothing: " + ("; ".join(f"{r.name} is {r.reason}" for r in rows[:4]) or
            "there is no batch normalization in this model")
        )  # fmt: skip
    return rows


def _not_foldable(look: Look, norm: str, conv: str) -> str | None:
    module, by = look.modules[norm], look.modules.get(conv)
    if not isinstance(by, nn.modules.conv._ConvNd):
        return "no module is the convolution before it"
    if look.found.calls[conv] != 1 or look.found.calls[norm] != 1:
        return "it runs several times"
    if module.running_mean is None:
        return "it has no statistics of its own"
    shared = [n for n, m in look.modules.items() if m is by]
    return f"{conv} is shared" if len(shared) > 1 else None


def others(look: Look) -> list[Row]:
    """Fused functions, caches of keys and values, modules that never ran."""
    rows = []
    for name, function in look.found.fused.items():
        rows.append(
            Row("module", name, (), None, f"{function} has products inside, which only a graph reaches")
        )
    for name, operator in look.found.regions.items():
        what = (
            f"no graph shows what is inside: {look.closed}"
            if look.closed
            else "its branches are looked at in a graph"
        )
        rows.append(Row("module", name, (), None, f"{operator}: {what}"))
    rows += [
        _cache(look, f"{name}.{part}", kind) for name, kind in look.found.caches.items() for part in PARTS
    ]
    for name, module in look.modules.items():
        own = [leaf for leaf, _ in module.named_parameters(recurse=False)]
        if not name or not own or look.found.calls[name] or not look.found.calls:
            continue
        read = [leaf for leaf in own if look.found.uses.get(f"{name}.{leaf}")]
        reason = "its forward never ran: others read its parameters" if read else "never called"
        rows.append(Row("module", name, (), None, reason))
    return rows


def _cache(look: Look, name: str, kind: str) -> Row:
    """The keys or the values of a cache."""
    rule = look.rules.rule("caches", [name], [])
    spec, reason = look.asked["caches"], "caches="
    if rule is not None:
        usual = spec
        spec, reason = rule.specs["caches"], f"rule {rule.said}"
        note_effect(rule, spec, name, lambda: (usual, "caches=None"))
    if spec is None:
        return Row("cache", name, (), None, f"{kind}: stay as they are computed", (kind,))
    check_format(name, spec)
    check_mode_of_caches(look, name)
    return Row("cache", name, (), spec, reason, (kind,))


def check_mode_of_caches(look: Look, name: str) -> None:
    """Raises NumericsError where a graph would keep caches as they are."""
    if look.mode != "eager_mode":
        raise NumericsError(
            f"{name}: a graph keeps caches as they are; mode='eager_mode' quantizes them, caches=None "
            "leaves them"
        )


def plain(look: Look) -> list[Row]:
    """Tensors of two dimensions and more in attributes or products that are none of the model's."""
    registered = {id(x) for _, x in named_tensors(look.model)}
    every = [
        (f"{name}.{leaf}" if name else leaf, x)
        for name, module in look.modules.items()
        for leaf, came in vars(module).items()
        if leaf not in _OWN and not look.renormed(f"{name}.{leaf}", ("",))
        for x in _kept(came)
    ]
    every += [(f"what {site} takes", x) for site, x in look.found.strangers.values()]
    alone = {id(x): (name, x) for name, x in reversed(every) if id(x) not in registered}
    return [
        Row("module", name, tuple(x.shape), None, STRANGE if isinstance(x, nn.Parameter) else PLAIN)
        for name, x in reversed(alone.values())
        if x.ndim > 1 and x.is_floating_point()
    ]


def _kept(came: Any) -> Iterator[Tensor]:
    """The tensors in an attribute, those of modules in lists and dicts of Python's too."""
    for x in pytree.tree_leaves(came):
        if isinstance(x, Tensor):
            yield x
        elif isinstance(x, nn.Module):
            yield from x.parameters()
