"""What a plan is refused for, and what it warns of: options and rules without effect, what nobody decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import Tensor, nn

from numerics.formats.errors import NumericsError, warn
from numerics.model.deciding.look import Look
from numerics.model.deciding.plan import Plan
from numerics.model.deciding.rest import PLAIN, STRANGE
from numerics.model.deciding.rows import Row
from numerics.model.looking import exported
from numerics.tensor.spec import QuantSpec


def check_unknown(look: Look) -> None:
    """Raises NumericsError for parameters in operations that nobody knows and no rule speaks of."""
    wrong = {}
    for name, where in look.found.unknown.items():
        parameter = _parameter(look.model, name)
        if parameter is None or look.renormed(name):
            continue
        rule = look.rules.rule("weights", [name], look.owners([name]))
        if rule is None:
            wrong[name] = f"{where} takes {name} of shape {tuple(parameter.shape)}"
        else:
            rule.acts = True
    if wrong:
        raise NumericsError(
            f"operations that are not known here: {'; '.join(list(wrong.values())[:5])}. Whether they "
            f"multiply is not decided by guessing: rules={{{next(iter(wrong))!r}: None}} keeps it, a "
            "format quantizes it"
        )


def check_effect(look: Look) -> None:
    """Raises NumericsError for options and rules that changed nothing."""
    names = [*look.modules, *(name for row in look.rows for name in row.names)]
    look.rules.check([name for name in names if name])
    look.rules.check_acting()
    for what, kinds in (("weights", "parameter"), ("biases", "parameter"), ("activations", "activation"),
                        ("outputs", "output"), ("caches", "cache")):  # fmt: skip
        spec = look.asked[what]
        if spec is not None and not any(r.kind == kinds and r.spec for r in look.rows):
            reasons = Counter(r.reason for r in look.rows if r.kind == kinds)
            most = "; ".join(f"{reason} ({n})" for reason, n in reasons.most_common(3)) or "there is none"
            unseen = any(reason.startswith("undecided") for reason in reasons)
            out = "; give example= that uses them: what the model is called with" if unseen else ""
            raise NumericsError(f"{what}={spec!r} has no effect: {most}{out}")
    if look.observer is not None and not any(row.observer == look.observer for row in look.rows):
        raise NumericsError(
            f"observer={look.observer!r} has nothing to observe: no planned activation or output has "
            "a scale of its own (block formats find theirs anew in each block, wide floats have none)"
        )
    if look.device == "IPU":
        _check_ipu(look.rows)


def tell(look: Look, made: Plan) -> None:
    """Warns of weights that nobody decided on, and of those that are none of the model's."""
    for reason in (PLAIN, STRANGE):
        plain = [row.name for row in made.rows if row.reason == reason]
        if plain and look.asked["weights"] is not None:
            warn(f"{', '.join(plain[:8])}{' ...' if plain[8:] else ''} stay as they are: {reason}")
    parameters = [row for row in made.rows if row.kind == "parameter" and len(row.shape) > 1]
    undecided = [row for row in parameters if row.reason.startswith("undecided")]
    if undecided and look.asked["weights"] is not None:
        stay = "parameters stay as they are" if undecided[1:] else "parameter stays as it is"
        warn(
            f"{len(undecided)} {stay}, since no use of them was seen: "
            f"{', '.join(row.name for row in undecided[:8])}{' ...' if undecided[8:] else ''}; "
            "give example= that uses them, or a rule"
        )


def _parameter(model: nn.Module, name: str) -> Tensor | None:
    found = exported.attribute(model, name)
    return found if isinstance(found, nn.Parameter) else None


def _is_integer_of_ipu(row: Row, spec: QuantSpec) -> bool:
    """Is it symmetric, with one scale a tensor, or one a channel where it is a weight of float scales?"""
    if spec.dtype.name not in ("int8", "uint8", "int16") or spec.scheme is None or not spec.symmetric:
        return False
    if repr(spec.scheme) == "per_tensor()":
        return True
    return row.kind == "parameter" and spec.scheme.kind == "per_channel" and spec.scale_type != "pof2"


def _check_ipu(rows: Sequence[Row]) -> None:
    """Raises NumericsError for what is no type of the NPU."""
    wrong = []
    for row in rows:
        spec = row.spec
        if spec is None:
            continue
        if not (_is_integer_of_ipu(row, spec) or (spec.dtype.name == "bfloat16" and not spec.scaled)):
            wrong.append(f"{row.name} {row.format}")
    if wrong:
        raise NumericsError(
            f"device='IPU' takes int8 and int16 with one scale for a tensor, best a power of two "
            f"(QuantSpec('int8', scale_type='pof2')), weights in int8 by channels too, and bfloat16; "
            f"not {'; '.join(wrong[:4])}{' ...' if wrong[4:] else ''}"
        )
