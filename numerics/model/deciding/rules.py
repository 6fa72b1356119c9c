"""Rules: which parameters and computed tensors get another format than the plan's, by name, class or test."""

from __future__ import annotations

import fnmatch
import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numerics.formats.errors import NumericsError, a_kind_of, hint, items_of, one_of, said, text_in
from numerics.observe import observer_text
from numerics.tensor.spec import QuantSpec

if TYPE_CHECKING:
    from torch import nn

WHAT = ("weights", "activations", "outputs", "biases", "caches")
KEPT = ("none", "keep", "float")
"""By these words, instead of a format, what a rule takes stays as it is; None says the same."""
KEYS = (*WHAT, "observer", "group")
UNSET = object()
Where = str | type | Callable[[str, Any], bool]


def spec_of(what: str, came: Any, once: bool = False) -> QuantSpec | None:
    """A format, its name, or a QuantSpec as a QuantSpec; None as None.  Raises NumericsError for others.

    once: the tensor is read once, as that of a file: its rounding may be stochastic.
    """
    if came is None or text_in(came) in KEPT:
        return None
    try:
        found = came if isinstance(came, QuantSpec) else QuantSpec(came)
    except NumericsError as wrong:
        raise NumericsError(f"{what}={said(came)}: {wrong}") from None
    if found.rounding == "stochastic" and not once:
        raise NumericsError(
            f"{what}={found!r}: stochastic rounding draws anew wherever a tensor is read, and a model "
            "reads it several times; give another rounding"
        )
    return found


def observer_of(came: Any) -> str | None:
    """An observer in one text; None for scales that are found anew for each tensor."""
    return None if came is None else observer_text(came)


_PLACE = re.compile(r"(:[^:]*)\[(\d+|out)\]$")
"""The end of a site's name, as in `*:matmul[1]`: its brackets are no set of characters of a pattern."""


@dataclass
class Rule:
    """What one entry of rules= says.

    where: a pattern of whole names (*, ?, [abc]), "re:" and a regular expression that names begin with, a
    class of modules, or a test of (name, module).  specs: what it says of weights, activations, outputs and
    biases, where it says something.  group: the name of those with which it shares a scale; None for none.
    taken: how often it was asked for each of them and took it; shadowed:
    for each of them one name that another rule had taken before, and that rule.  acts: did it change what
    becomes of a tensor?  idle: the first that it took and left what it is without the rule, and why that is.
    """

    where: Where
    specs: dict[str, QuantSpec | None]
    observer: Any = UNSET
    group: Any = UNSET
    taken: Counter[str] = field(default_factory=Counter)
    shadowed: dict[str, tuple[str, str]] = field(default_factory=dict)
    acts: bool = False
    idle: tuple[str, str] | None = None

    @property
    def unmet(self) -> list[str]:
        """What it gives a format, and never met."""
        return [what for what, spec in self.specs.items() if spec is not None and not self.taken[what]]

    @property
    def in_shadow(self) -> list[str]:
        """What it speaks of and never gets, since others come first."""
        return [what for what in self.shadowed if not self.taken[what]]

    @property
    def said(self) -> str:
        """What it is called in a reason."""
        if isinstance(self.where, str):
            return self.where
        return getattr(self.where, "__name__", str(self.where))

    def matches(self, names: Iterable[str], modules: Sequence[tuple[str, nn.Module | None]]) -> bool:
        """Does it speak of a tensor of one of those names, or of one of those modules?"""
        if isinstance(self.where, type):
            return any(isinstance(module, self.where) for _, module in modules)
        if isinstance(self.where, str):
            every = [*names, *(name for name, _ in modules)]
            return any(self._named(name) for name in every)
        return any(self._tested(name, module) for name, module in modules if module is not None)

    def _tested(self, name: str, module: nn.Module) -> bool:
        test: Any = self.where
        try:
            return bool(test(name, module))
        except Exception as wrong:
            raise NumericsError(
                f"rule {self.said} fails on {name or 'the model'!r}, {a_kind_of(module)}: "
                f"{type(wrong).__name__}: {wrong}"
            ) from wrong

    def _named(self, name: str) -> bool:
        where = str(self.where)
        if where.startswith("re:"):
            return re.match(where[3:], name) is not None
        return name == where or fnmatch.fnmatchcase(name, _PLACE.sub(r"\1[[]\2]", where))


def rules_of(came: Any, once: bool = False) -> list[Rule]:
    """rules= as it may come: a mapping, or pairs of where and what; raises NumericsError for others.

    once: of weights of a file, as in spec_of.
    """
    if came is None:
        return []
    if isinstance(came, (str, bytes)) or not isinstance(came, Iterable):
        raise NumericsError(f"rules={said(came)} are none: a mapping of where and what, or pairs of them")
    pairs = items_of("rules", came.items() if isinstance(came, Mapping) else came)
    found = []
    for pair in pairs:
        if isinstance(pair, Rule):
            found.append(Rule(pair.where, pair.specs, pair.observer, pair.group))
            continue
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise NumericsError(f"rules: {said(pair)} is not a pair of where and what")
        where, what = pair
        found.append(_rule(where, what, once))
    return found


def _rule(where: Any, what: Any, once: bool) -> Rule:
    _check_where(where)
    if not isinstance(what, Mapping):
        name = f"rule {where!r}"
        kept: dict[str, QuantSpec | None] = {"weights": spec_of(name, what, once)}
        if kept["weights"] is None:
            kept["activations"] = None
        return Rule(where, kept)
    for key in what:
        one_of(f"key of rule {where!r}", key, KEYS)
    if not what:
        raise NumericsError(f"rule {where!r} says nothing; allowed: {', '.join(KEYS)}")
    if "observer" in what and what.get("activations") is None and what.get("outputs") is None:
        raise NumericsError(
            f"rule {where!r}: observer= finds the scales of activations and outputs, and the rule gives "
            "neither a format: give activations= or outputs= beside it, or leave it out"
        )
    specs = {key: spec_of(f"rule {where!r}, {key}", what[key], once) for key in WHAT if key in what}
    if "group" in what:
        specs["group"] = None  # it speaks of groups, and gives no format
    observer = observer_of(what["observer"]) if "observer" in what else UNSET
    return Rule(where, specs, observer, _group_of(where, what))


def _group_of(where: Any, what: Mapping[str, Any]) -> Any:
    """The group that a rule names, None for none; raises NumericsError for what is no name."""
    group = what.get("group", UNSET)
    if group is UNSET or group is None or (isinstance(group, str) and group):
        return group
    raise NumericsError(
        f"rule {where!r}: group={said(group)} is no name, such as 'sum', nor None for a scale of its own"
    )


def _check_where(where: Any) -> None:
    if isinstance(where, str):
        if where.startswith("re:"):
            try:
                re.compile(where[3:])
            except re.error as wrong:
                raise NumericsError(f"rule {where!r} is not a regular expression: {wrong}") from None
        return
    if isinstance(where, type) and _is_module(where):
        return
    if callable(where) and not isinstance(where, type):
        try:
            inspect.signature(where).bind("name", None)
            return
        except (TypeError, ValueError):
            pass
    raise NumericsError(
        f"rule {said(where)} is no place: a pattern of names such as '*.q_proj', 're:...', a class of "
        "modules, or a function of (name, module)"
    )


def _is_module(kind: type) -> bool:
    """Is it a class of modules?  Names alone need no torch."""
    from torch import nn

    return issubclass(kind, nn.Module)


@dataclass
class Asked:
    """What the arguments of a plan say of one kind of thing where no rule does, and the rules before it."""

    rules: list[Rule]

    def rule(
        self, what: str, names: Sequence[str], modules: Sequence[tuple[str, nn.Module | None]]
    ) -> Rule | None:
        """The first rule that speaks of it; later ones that do are in its shadow."""
        first = None
        for rule in self.rules:
            if what not in rule.specs or not rule.matches(names, modules):
                continue
            if first is None:
                first = rule
                rule.taken[what] += 1
            else:
                rule.shadowed.setdefault(what, (names[0], first.said))
        return first

    def next(
        self, rule: Rule, what: str, names: Sequence[str], modules: Sequence[tuple[str, nn.Module | None]]
    ) -> Rule | None:
        """The rule that would speak of it if that one, the first that does, were not there."""
        later = self.rules[self.rules.index(rule) + 1 :]
        return next((one for one in later if what in one.specs and one.matches(names, modules)), None)

    def check_acting(self) -> None:
        """Raises NumericsError for rules that leave all that they took what it is without them."""
        wrong = [_idle(rule) for rule in self.rules if rule.unmet or not rule.acts]
        if wrong:
            raise NumericsError("rules without effect: " + "; ".join(wrong) + "; leave them out")

    def check(self, names: Sequence[str], left: Mapping[str, str] | None = None) -> None:
        """Raises NumericsError for rules that took nothing, with what stood in their way.

        names: of what can be quantized.  left: why the others stay as they are, by name.
        """
        wrong = [rule for rule in self.rules if not rule.taken.total() or rule.in_shadow]
        if not wrong:
            return
        raise NumericsError(
            "rules without effect: " + "; ".join(_why(rule, names, left or {}) for rule in wrong)
        )


def _idle(rule: Rule) -> str:
    if rule.unmet:
        return f"{rule.said!r} gives {' and '.join(rule.unmet)} a format, and takes no tensor for it"
    name, reason = rule.idle or ("what it takes", "not quantized")
    return f"{rule.said!r} keeps {name}, which stays as it is without the rule ({reason})"


def _why(rule: Rule, names: Sequence[str], left: Mapping[str, str]) -> str:
    if rule.shadowed:
        what = (rule.in_shadow or [*rule.shadowed])[0]
        name, first = rule.shadowed[what]
        return (
            f"{rule.said!r} comes after {first!r}, which takes the {what} of {name} and of all else that it "
            "matches: put it first"
        )
    if not isinstance(rule.where, str):
        return f"{rule.said!r} matches nothing that can be quantized"
    matching = [name for name in names if rule.matches([name], [])]
    if matching:
        meant, due = _bracketed(_inside(rule.where, names)), " or ".join(rule.specs)
        return f"{rule.said!r} matches {matching[0]}, which has no {due} to quantize{meant}"
    for name, reason in left.items():
        if rule.matches([name], [(name.rpartition(".")[0], None)]):
            return f"{rule.said!r} matches {name}, which stays as it is without the rule ({reason})"
    meant = _inside(rule.where, names) or hint(rule.where, list(names))
    return f"{rule.said!r} matches no name{_bracketed(meant)}"


def _bracketed(meant: str) -> str:
    return f" ({meant.strip()})" if meant else ""


def _inside(where: str, names: Sequence[str]) -> str:
    """The pattern that was perhaps meant, of what is inside of a module."""
    return f" did you mean '{where}.*'?" if any(name.startswith(where + ".") for name in names) else ""
