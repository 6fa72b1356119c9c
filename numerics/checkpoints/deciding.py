"""What becomes of each tensor of a checkpoint, and why: decided from headers, before a byte is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from numerics.files.checkpoint import plan_of
from numerics.files.header import ORIGINALS, Plan
from numerics.files.layouts import Layouts
from numerics.files.safetensors import BITS, Entry
from numerics.files.selection import EXCLUDED, Selection, outputs_of, says_no_axis, why_axis
from numerics.files.shards import Source
from numerics.formats.arguments import keywords, named_fields
from numerics.formats.errors import NumericsError, said
from numerics.formats.registry import dtype
from numerics.model.deciding import plan as model_plan
from numerics.model.deciding.routers import ROUTER, routers
from numerics.model.deciding.rows import Row, told_scales
from numerics.model.deciding.rules import KEPT, Asked, Rule, rules_of
from numerics.observe import OBSERVERS, observer, observer_text
from numerics.tensor.scheme import per_channel
from numerics.tensor.spec import QuantSpec, described
from numerics.tensor.words import words_in

"""How a rule on the command line says that tensors stay as they are."""
PLANNED, ALL = "the plan", "the format of all"
"""Who says it where a plan that was saved does, and where no rule speaks of a tensor."""
_RULE = re.compile(r"(?P<where>.+?)=(?P<what>none|keep|float|[A-Za-z][\w.]*([:\s].+)?|\{.*\})", re.DOTALL)

FUSED = (
    ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("w1", "w3"), ("query", "key", "value"),
    ("q_a_proj", "kv_a_proj_with_mqa"), ("wq", "wk", "wv"),
)  # fmt: skip
"""Layers that engines join to one matrix (vLLM's packed modules): one tensor scale serves all of them."""


@named_fields
@dataclass(frozen=True)
class Request:
    """What is asked of a checkpoint.

    spec: of the tensors that no rule names; None where only rules say something.  rules: as `nx.plan` takes
    them, patterns of names and what they get.  plan: specs by names, of a plan that was saved.  include,
    exclude: patterns of names.  free: the axis of blocks and groups may be chosen.  observer: a name of
    `nx.observe`, such as "mse" or "percentile(99.9)": it sees each tensor and finds its scales, of formats
    that have some by a scheme; None (the default) leaves that to the plan, and then to the specs.
    """

    spec: QuantSpec | None = None
    rules: Any = None
    plan: model_plan.Plan | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    free: bool = True
    observer: str | None = None


@dataclass
class Decision:
    """What becomes of a checkpoint: a plan a quantized tensor, and why the others are copied.

    fused: for each tensor whose tensor scale is shared, the names of all that share it.  also: further names
    of tensors.  observers: what finds the scales of those that have not what their spec finds.
    """

    plans: dict[str, Plan]
    why: dict[str, str]
    reasons: dict[str, str]
    entries: Mapping[str, Entry]
    fused: dict[str, tuple[str, ...]] = field(default_factory=dict)
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    observers: dict[str, str] = field(default_factory=dict)

    @property
    def plan(self) -> model_plan.Plan:
        """The same as a plan of a model: to be shown, saved and given again."""
        return model_plan.Plan([self._row(name, entry) for name, entry in self.entries.items()])

    def _row(self, name: str, entry: Entry) -> Row:
        plan = self.plans.get(name)
        reason = self.reasons[name] if plan else self.why[name]
        spec = plan.spec if plan else None
        also, watched = self.also.get(name, ()), self.observers.get(name)
        bits = BITS[entry.dtype]
        return Row("parameter", name, entry.shape, spec, reason, also=also, observer=watched, value_bits=bits)


@keywords
def decide(source: Source, request: Request) -> Decision:
    """Returns what becomes of each tensor, or raises NumericsError before anything is written.

    Refused are rules and patterns that match nothing or only what stays as it is, specs that do not fit the
    tensors that they are for, and a request that quantizes nothing.
    """
    chosen = Selection(source, request.include, request.exclude, source.ties)
    asked = Asked(_rules(request))
    found = Decision({}, dict(chosen.why), {}, source.entries, also=chosen.also)
    layouts = chosen.layouts
    _check_plan(request, chosen)
    where, left = _Where(request, layouts, set(source.entries)), False
    for name in (*chosen.names, *chosen.words):
        told = _told_of(chosen, name, asked, request)
        if told.reason == ALL and name in chosen.words:
            continue
        left |= told.reason == ALL
        if told.spec is None:
            found.why[name] = told.reason
        else:
            _place(found, name, _observed(name, told), where)
    _check_excluded(chosen, where)
    for name in routers({name: found.entries[name].shape for name in chosen.names}) & found.plans.keys():
        if found.reasons[name].startswith(ALL):
            found.reasons[name] += f", {ROUTER}"
    asked.check([one for name in chosen.names for one in chosen.names_of(name)], chosen.why)
    if chosen.names and not left:
        _check_of_all(request)
    if not found.plans:
        raise NumericsError(f"nothing of {source.path} would be quantized: {_some(found.why)}")
    _check_observer(request, found)
    _share(found)
    return found


def _told_of(chosen: Selection, name: str, asked: Asked, request: Request) -> _Told:
    """What a tensor is told; one that is no weight by its name, by rules that say that word alone."""
    names, word = chosen.names_of(name), chosen.words.get(name)
    owners = [(one.rpartition(".")[0], None) for one in names]
    rules = [rule for rule in asked.rules if word is None or word in str(rule.where).lower()]
    if word and not any(rule.specs["weights"] and rule.matches(names, owners) for rule in rules):
        rules = []  # those that keep it do nothing
    rule = Asked(rules).rule("weights", names, owners)
    told = _told(names, rule, request)
    left = word is not None and rule is None and told.spec is None
    return told._replace(reason=chosen.why[name]) if left else told


def _check_plan(request: Request, chosen: Selection) -> None:
    """Raises NumericsError where a saved plan quantizes a tensor that stays, whatever is asked for."""
    for row in request.plan.rows if request.plan else ():
        for name in row.names if row.kind == "parameter" and row.spec else ():
            why = chosen.why.get(name, EXCLUDED)
            if name not in chosen.words and why not in (EXCLUDED, "not included"):
                raise NumericsError(f"the plan quantizes {name}, which stays as it is: {why}")


def _check_excluded(chosen: Selection, where: _Where) -> None:
    """Raises NumericsError for patterns that exclude only what rules, plan and bytes leave as it is."""
    asked = Asked(_rules(where.request))
    for pattern in chosen.exclude:
        found = Decision({}, {}, {}, chosen.reader.entries)
        for name in chosen.excluded_by(pattern):
            told = _told_of(chosen, name, asked, where.request)
            if told.spec is None:
                found.why[name] = told.reason
                continue
            try:
                _place(found, name, _observed(name, told), where._replace(taken=set()))
            except NumericsError:  # what is refused is to be excluded
                break
            if found.plans:
                break
        else:
            chosen.check_excluding(pattern, found.why)


class _Told(NamedTuple):
    """The spec of a tensor, or None; who says so, and why; and what finds its scales, where that is asked."""

    spec: QuantSpec | None
    reason: str
    observer: str | None


def _observed(name: str, told: _Told) -> _Told:
    """The spec as the observer makes it (powers of two), without one where there is nothing for it."""
    spec = told.spec
    if told.observer is None or spec is None or spec.blocked or not spec.scaled:
        return told._replace(observer=None)
    try:
        watching = observer(told.observer, spec)
    except NumericsError as wrong:
        raise NumericsError(f"tensor {name!r}: {wrong}") from None
    if not watching.mergeable:
        raise NumericsError(
            f"observer={told.observer!r} depends on the order of batches, and a weight is one; "
            f"allowed: {', '.join(name for name, kind in OBSERVERS.items() if kind.mergeable)}"
        )
    return told._replace(spec=watching.spec)


def _check_observer(request: Request, found: Decision) -> None:
    """Raises NumericsError where an observer is asked for and finds the scales of nothing."""
    if request.observer is not None and not found.observers:
        raise NumericsError(
            f"observer={request.observer!r} finds the scales of nothing: no tensor becomes numbers "
            "with scales by a scheme, such as int4; blocks find their scales by scale_rule"
        )


def _check_of_all(request: Request) -> None:
    """Raises NumericsError for a format of all tensors that no rule and no plan names, of which none is."""
    who = " and ".join(["the rules"] * bool(request.rules) + ["the plan"] * (request.plan is not None))
    if request.spec is not None:
        raise NumericsError(
            f"{described(request.spec)} is the format of all that nothing else speaks of, and that is no "
            f"tensor: leave it out, since {who} speak{'s' * (who == 'the plan')} of every one that can be "
            "quantized"
        )


def _rules(request: Request) -> list[Rule]:
    """Rules first; what a saved plan says of each tensor comes after them."""
    found = rules_of(request.rules, once=True)
    for rule in found:
        if "weights" not in rule.specs:
            raise NumericsError(
                f"rule {rule.said!r} says nothing of weights, and a checkpoint has nothing else"
            )
    return found


def _told(names: Sequence[str], rule: Rule | None, request: Request) -> _Told:
    """The spec of a tensor and who says so; no spec and why."""
    watched = None if request.observer is None else observer_text(request.observer)
    if rule is not None:
        return _Told(rule.specs["weights"], f"rule {rule.said!r}", watched)
    if request.plan is not None:
        row = next((row for row in request.plan.rows if row.kind == "parameter"
                    and not set(names).isdisjoint(row.names)), None)  # fmt: skip
        if row is not None:
            reason = PLANNED if row.spec else f"{PLANNED}: {row.reason}"
            return _Told(row.spec, reason, watched or row.observer)
    return _Told(request.spec, ALL if request.spec else "no rule names it", watched)


class _Where(NamedTuple):
    """What a place depends on beside the tensor: what is asked, the order of axes, names that are taken."""

    request: Request
    layouts: Layouts
    taken: set[str]


def _place(found: Decision, name: str, told: _Told, where: _Where) -> None:
    request, layouts, taken = where
    spec, reason, watched = told
    assert spec is not None
    entry = found.entries[name]
    if not spec.scaled and spec.dtype.name == ORIGINALS[entry.dtype]:
        found.why[name] = f"{reason}: it is {spec.dtype} already"
        return
    planned = reason == PLANNED and spec.scheme == per_channel()  # whoever planned it saw the model
    chosen = request.free and _free(spec) and not planned
    plan = plan_of(name, entry, spec, chosen, name in layouts.first)
    if isinstance(plan, str):
        if request.include or reason.startswith("rule"):
            raise NumericsError(f"tensor {name!r}: {plan}: exclude it, or give another format ({reason})")
        found.why[name] = plan
        return
    along = _along(plan, layouts, name) if chosen else _along_axis(plan)
    scales = told_scales(spec, plan.spec, entry.shape, outputs_of(plan))
    found.why.pop(name, None)  # of one that is no weight by its name, and was asked for
    found.plans[name], found.reasons[name] = plan.named(taken), reason + scales + along
    if watched is not None:
        found.observers[name] = watched


def _along_axis(plan: Plan) -> str:
    """What a reason adds of an axis that is not the last one."""
    axis = plan.axis
    return f"; along axis {axis}" if axis is not None and axis != len(plan.shape) - 1 else ""


def _along(plan: Plan, layouts: Layouts, name: str) -> str:
    """The same of an axis that was chosen, and why it was."""
    along = _along_axis(plan)
    if plan.spec.rows > 1:  # they lie along the last axis
        return along
    if name in layouts.first:
        return f"{along}, {layouts.first[name]}"
    if name in layouts.open and not along:
        return "; along the last axis, as if its inputs were that: nothing says so, and a rule can name it"
    return along + why_axis(plan) if along else ""


def _free(spec: QuantSpec) -> bool:
    """Does it leave open along which axis blocks or groups lie?"""
    return spec.axis == -1 if spec.blocked else spec.scaled and says_no_axis(spec.scheme_of_elements)


# ---- what must be shared --------------------------------------------------------------------------


def _share(found: Decision) -> None:
    """Finds the partners that engines fuse, in whichever shards they are."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, plan in found.plans.items():
        if plan.spec.blocked and plan.spec.block.has_tensor_scale:
            groups.setdefault(_family(name), []).append(name)
    for names in map(sorted, groups.values()):
        if len(names) < 2:
            continue
        if len({found.plans[name].spec for name in names}) > 1:
            continue  # they cannot be fused, so each has its own
        for name in names:
            found.fused[name] = tuple(names)
            others = ", ".join(_layer(other) for other in names if other != name)
            found.reasons[name] += f"; shares its tensor scale with {others}"


def _family(name: str) -> tuple[str, ...]:
    """What the partners of a tensor have in common: the path to them, and which kind of partners they are."""
    parts = name.split(".")
    for place, part in enumerate(parts):
        for kind in FUSED:
            if part in kind:
                return (*parts[:place], kind[0] + " and partners", *parts[place + 1 :])
    return tuple(parts)


def _layer(name: str) -> str:
    parts = name.split(".")
    return next((part for part in parts if any(part in kind for kind in FUSED)), name)


# ---- rules as texts -------------------------------------------------------------------------------


def rules_of_texts(
    texts: Sequence[str], find: Callable[[str], Any] = dtype
) -> tuple[str | None, list[tuple[str, QuantSpec | None]]]:
    """Returns the format of all, where one text names no pattern, and the rules of the others.

    A rule is PATTERN=FORMAT, PATTERN=FORMAT:SCHEME (or what else `QuantSpec` takes as a format),
    PATTERN={a QuantSpec's text} or PATTERN=none; patterns match whole names of tensors or of layers by *, ?
    and [abc], or begin with re: and are regular expressions.  find: the format of a text that has a colon
    or is of facts, as the command line has them.  Raises NumericsError for two formats of all, and for what
    is no format and no rule.

    >>> rules_of_texts(["int4", "lm_head=none", "re:.*experts.*=mxfp4", "*.o_proj=int8:per_channel(0)"])[1][2]
    ('*.o_proj', QuantSpec('int8', scheme='per_channel(0)'))
    """
    usual: list[str] = []
    rules = []
    for text in texts:
        words = words_in(text)
        match = None if words else _RULE.fullmatch(text)
        if match is None and not words and "=" in text and not text.lstrip().startswith("{"):
            raise NumericsError(
                f"{said(text)} is no rule and no format; a rule is PATTERN=FORMAT, PATTERN=FORMAT:SCHEME or "
                "PATTERN=none"
            )
        if match is None:
            usual.append(text)
        else:
            rules.append((match["where"], _spec_of_text(match["what"], find)))
    if len(usual) > 1:
        raise NumericsError(
            f"{' and '.join(map(repr, usual))} are each the format of all; give one, the others by rules, "
            "such as 'lm_head=bfloat16'"
        )
    return (usual[0] if usual else None), rules


def _spec_of_text(text: str, find: Callable[[str], Any]) -> QuantSpec | None:
    if text in KEPT:
        return None
    if text.startswith("{"):
        return QuantSpec.parse(text) if '"dtype"' in text else QuantSpec(find(text))
    words = dict(words_in(text) or {"dtype": text})
    name = words.pop("dtype")
    return QuantSpec(find(name) if ":" in name else name, **words)


def _some(why: Mapping[str, str]) -> str:
    reasons: dict[str, list[str]] = {}
    for name, reason in why.items():
        reasons.setdefault(reason, []).append(name)
    told = [f"{names[0]}{f' and {len(names) - 1} more' if names[1:] else ''}: {reason}"
            for reason, names in list(reasons.items())[:3]]  # fmt: skip
    return "; ".join(told) or "it has no tensors"


def planned(request: Request, plan: model_plan.Plan, source: Source) -> Request:
    """The request with a plan that was saved; raises NumericsError where that is of another checkpoint."""
    known = source.entries.keys() | dict(source.ties).keys()
    unknown = [row.name for row in plan.rows
               if row.kind == "parameter" and row.spec and known.isdisjoint(row.names)]  # fmt: skip
    if unknown:
        more = f", nor {len(unknown) - 1} more that it names" * (len(unknown) > 1)
        raise NumericsError(f"the plan is of another checkpoint: {source.path} has no {unknown[0]}{more}")
    for row in plan.rows:
        for name in row.names:
            entry = source.entries.get(name)
            if row.kind == "parameter" and row.spec and entry and entry.shape != row.shape:
                raise NumericsError(f"the plan is of another checkpoint: {name} is {row.shape} there, "
                                    f"{entry.shape} in {source.path}")  # fmt: skip
    return replace(request, plan=plan)
