"""Which weights choose among experts: by the names and the shapes of what stands beside them.

A router is small and decides: the error of a code sends a token to another expert.  Other quantizers leave
routers in floats (AMD Quark's and llm-compressor's lists of exclusions); here they are weights like others,
and whoever quantizes one is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

ROUTER = "a router's (a rule can keep it)"
"""What a reason adds."""
_NAMED = re.compile(r"router|shared_expert_gate", re.IGNORECASE)
_GATE = re.compile(r"gate|gating", re.IGNORECASE)

Shape = Sequence[int]


def routers(shapes: Mapping[str, Shape]) -> set[str]:
    """Returns the names of the matrices that choose among experts.

    shapes: of all weights of a model or a checkpoint, by name.  One is a router's where its name says so, or
    where it has as many outputs as there are experts beside it: modules `experts.0`, `experts.1` ..., or
    weights of three axes.

    >>> moe = {"mlp.gate.weight": (8, 64), "mlp.experts.gate_up_proj": (8, 96, 64), "q.weight": (8, 64)}
    >>> sorted(routers(moe)), routers({"router.layer.weight": (4, 16), "gate_proj.weight": (4, 16)})
    (['mlp.gate.weight'], {'router.layer.weight'})
    """
    experts = _experts(shapes)
    return {name for name, shape in shapes.items() if len(shape) == 2 and _chooses(name, shape, experts)}


def told_routers(names: Iterable[str]) -> str:
    """What a summary says of routers that are quantized; nothing where there are none.

    >>> told_routers(["mlp.gate.weight"])
    "1 router is quantized (a rule 'mlp.gate': none keeps it)"
    >>> told_routers(["layers.0.gate.weight", "layers.1.gate.weight"])
    "2 routers are quantized (a rule 'layers.*.gate': none keeps them)"
    """
    found = list(names)
    if not found:
        return ""
    if len(found) == 1:
        return f"1 router is quantized (a rule {_module(found[0])!r}: none keeps it)"
    rules = [repr(rule) for rule in dict.fromkeys(map(_pattern, found))]
    said = f"rules {', '.join(rules)}: none keep" if rules[1:] else f"a rule {rules[0]}: none keeps"
    return f"{len(found)} routers are quantized ({said} them)"


def _module(name: str) -> str:
    """What a rule says of a weight: its module, or itself where it is no module's `weight`."""
    owner, _, leaf = name.rpartition(".")
    return owner if owner and leaf == "weight" else name


def _pattern(name: str) -> str:
    """The same of all layers."""
    return re.sub(r"(?<=[.])[0-9]+(?=[.])", "*", _module(name))


def _experts(shapes: Mapping[str, Shape]) -> dict[str, int]:
    """How many experts there are in a module, by its name."""
    counts: dict[str, int] = {}
    numbers: dict[str, set[str]] = {}
    for name, shape in shapes.items():
        parts = name.split(".")
        if len(shape) == 3:
            counts[".".join(parts[:-1])] = shape[0]
        for k, part in enumerate(parts[:-1]):
            if not _is_expert(part):
                continue
            if parts[k + 1].isdigit():
                numbers.setdefault(".".join(parts[:k]), set()).add(parts[k + 1])
            elif len(shape) == 3:
                counts[".".join(parts[:k])] = shape[0]
    return counts | {name: len(found) for name, found in numbers.items()}


def _is_expert(part: str) -> bool:
    return "expert" in part.lower() and not _NAMED.search(part)


def _chooses(name: str, shape: Shape, experts: Mapping[str, int]) -> bool:
    parts = name.split(".")
    if any(map(_is_expert, parts)):
        return False
    if any(map(_NAMED.search, parts)):
        return True
    deep = 3 if any(map(_GATE.fullmatch, parts[:-1])) else 2  # gate.weight, gate.wg.weight
    around = [experts.get(".".join(parts[:-k]), 0) for k in range(1, deep + 1) if k <= len(parts)]
    return shape[0] != shape[1] and min(shape) > 1 and min(shape) in around
