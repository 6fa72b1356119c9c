"""Planning: one look at a model, then a decision and its reason for each of its tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.parameter import is_lazy
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils import _pytree as pytree

from numerics.formats.errors import NumericsError, one_of, truth, warn
from numerics.model import exported
from numerics.model.caches import PARTS, check_format
from numerics.model.groups import shared_scales
from numerics.model.places import check_finite, check_model, check_scripted
from numerics.model.plan import APART, DEVICES, MODES, MULTIPLIED, Plan
from numerics.model.rows import Row, stored_bytes
from numerics.model.rules import UNSET, Asked, Rule, observer_of, rules_of, spec_of
from numerics.model.trace import ONE_PRODUCT, OUT, Found, Seen, Site, Use, named_tensors, traced
from numerics.model.without_example import looked_at
from numerics.observe import OBSERVERS
from numerics.tensor.qtensor import QTensor
from numerics.tensor.scheme import per_group
from numerics.tensor.spec import QuantSpec

PLAIN = "a plain tensor, which no plan takes, and nothing saves: make it a Parameter or a buffer"
STRANGE = (
    "a parameter that the model does not have, so that no plan takes it, and nothing saves it: keep it, or "
    "its module, in an attribute, nn.ParameterList or nn.ModuleList"
)
Decided = tuple[QuantSpec | None, str]
"""A format, or None, and the reason."""
_OWN = ("_parameters", "_buffers", "_modules")


def plan(
    model: nn.Module,
    weights: Any = None,
    activations: Any = None,
    *,
    outputs: Any = None,
    biases: Any = None,
    rules: Any = None,
    example: Any = None,
    observer: str | None = None,
    mode: str = "eager_mode",
    device: str = "CPU",
    fold: bool = False,
    share: bool = False,
    caches: Any = None,
) -> Plan:
    """Returns which parameters and computed tensors of a model get which format, and why.  Changes nothing.

    model: a torch module.
    weights: the format of parameters that products multiply with: a name, a format, or a QuantSpec; None (the
        default) leaves them.  Blocks and groups lie along the axis that the product sums, unless the
        QuantSpec
        says another axis than -1.  Embeddings, norms and the head of a language model (a module named
        lm_head, what get_output_embeddings() returns, a weight that is an embedding's too) are left to rules.
    activations: the same for what goes into the products with such weights.
    outputs: the same for what comes out of them.  biases: the same for their biases.
    caches: the format of keys and values that a model keeps between calls; eager mode only.
    rules: exceptions, the first that matches holds: {where: what}.  where is a pattern of whole names of
        modules, parameters or sites (*, ?, [abc]), "re:" and a regular expression, a class of modules, or a
        function of (name, module).  what is a format for the weights, None to leave weights and activations,
        or a mapping of weights, activations, outputs, biases, caches, observer and group (a name: all that
        have it share one scale; None: a scale of its own).
    example: what the model is called with: a tuple of arguments, a mapping of named ones, or one tensor.  The
        model runs once, in evaluation, without gradients.  Without one, classes of modules say what is used
        how, and what they do not say is undecided, with a warning.
    observer: what finds the scales of activations and outputs in `calibrate`: min_max, moving_average,
        percentile, mse, kl, pof2 or pof2_mse.  None (the default): each tensor brings its own scale.
    mode: eager_mode (the default), or fx_graph_mode, which sees inside fused functions.
    device: CPU (the default), or IPU, whose formats are checked (docs/ipu.md).
    fold: True folds normalizations by batches into the convolutions before them.
    share: True gives one scale to outputs that are joined (cat, stack) or added, and to what goes into the
        next product by way of joins, pools, reshapes and relu alone, as integer devices want them.

    Raises NumericsError for rules and options without effect, for a parameter of two dimensions and more in
    an operation that is not known here, and for whatever cannot be planned, by name.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    >>> made = plan(model, "mxfp4", rules={"2": "int8"}, example=torch.ones(1, 64))
    >>> for row in made.rows[:3]:
    ...     print(row.name, row.format, row.reason)
    0.weight mxfp4 weights=
    0.bias - a bias
    2.weight int8 rule 2
    """
    check_model("plan", model)
    check_scripted(model)
    request = _Request(
        {"weights": spec_of("weights", weights), "activations": spec_of("activations", activations),
         "outputs": spec_of("outputs", outputs), "biases": spec_of("biases", biases),
         "caches": spec_of("caches", caches)},
        rules_of(rules), observer_of(observer), str(one_of("mode", mode, MODES)),
        str(one_of("device", device, DEVICES)), truth("fold", fold), truth("share", share),
    )  # fmt: skip
    return _Planner(model, request).made(_example_of(model, example))


@dataclass(frozen=True)
class _Request:
    """What was asked for, checked."""

    specs: dict[str, QuantSpec | None]
    rules: list[Rule]
    observer: str | None
    mode: str
    device: str
    fold: bool
    share: bool


def _example_of(model: nn.Module, example: Any) -> Any:
    """The example, or the one that a model of transformers brings."""
    if example is not None:
        return example
    own = getattr(model, "dummy_inputs", None)
    return own if isinstance(own, Mapping) and own else None


class _Planner:
    """Decides row by row."""

    def __init__(self, model: nn.Module, request: _Request) -> None:
        self.model, self.asked, self.observer = model, request.specs, request.observer
        self.rules = Asked(request.rules)
        self.mode, self.device, self.fold = request.mode, request.device, request.fold
        self.share = request.share
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.found = Found()
        self.rows: list[Row] = []
        self.folded: dict[str, str] = {}
        self.closed = ""

    def made(self, example: Any) -> Plan:
        """The plan."""
        lazy = [name for name, x in self.model.named_parameters() if is_lazy(x)]
        if lazy:
            raise NumericsError(
                f"{', '.join(lazy[:4])} have no shape yet, and looking at a model changes nothing: "
                "call it once before"
            )
        if self.asked["caches"]:
            self._check_mode_of_caches(f"caches={self.asked['caches']!r}")
        if example is None:
            self._check_without_example()
            self.found = looked_at(self.model)
        else:
            self.found = traced(self.model, example)
            self._open(example)
        self._check_unknown()
        self.rows += self._parameters()
        self.rows += [self._buffer(name, x) for name, x in self.model.named_buffers()]
        self.rows += self._norms()
        self.rows += shared_scales(self._computed(), self.found, self.folded, self.rules, self.share)
        self.rows += self._others()
        self.rows += self._plain()
        self._check_effect()
        made = Plan(self.rows, self.mode, self.device, example, self.folded)
        self._warn(made)
        return made

    def _check_without_example(self) -> None:
        asked = (
            any(self.asked[what] for what in ("activations", "outputs", "caches")) or self.fold or self.share
        )
        if asked or self.mode == "fx_graph_mode":
            raise NumericsError(
                "activations=, outputs=, caches=, fold=, share= and mode='fx_graph_mode' need example=: what "
                "the model is called with, as a tuple of arguments, a mapping of named ones, or one tensor"
            )

    def _open(self, example: Any) -> None:
        """Looks at the graph where it shows what a forward does not."""
        silent = [name for name, x in self.model.named_parameters() if self._is_silent(name, x)]
        if self.mode == "eager_mode" and not (self.found.fused or self.found.regions or silent):
            return
        if self.mode == "fx_graph_mode" and isinstance(self.model, GraphModule):
            self.found.sites.clear()  # whose nodes keep the names of the modules that it was made of
        try:
            exported.seen(exported.export(self.model, example), self.model, self.found)
        except NumericsError as wrong:
            if self.mode == "fx_graph_mode":
                raise
            self.closed = str(wrong)

    def _is_silent(self, name: str, x: Tensor) -> bool:
        """Is it of a module that never ran, or did nobody who watches functions see it used?"""
        owner = name.rpartition(".")[0]
        return bool(owner and not self.found.calls[owner]) or (x.ndim > 1 and name not in self.found.uses)

    def _check_unknown(self) -> None:
        wrong = {}
        for name, where in self.found.unknown.items():
            parameter = _parameter(self.model, name)
            if parameter is None or self._renormed(name):
                continue
            rule = self.rules.rule("weights", [name], self._owners([name]))
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

    def _owners(self, names: Sequence[str]) -> list[tuple[str, nn.Module | None]]:
        owners = dict.fromkeys(name.rpartition(".")[0] for name in names)
        return [(name, self.modules.get(name)) for name in owners]

    # ---- parameters -----------------------------------------------------------------------------

    def _parameters(self) -> list[Row]:
        every: dict[int, list[str]] = {}
        tensors: dict[int, Tensor] = {}
        for name, x in self.model.named_parameters(remove_duplicate=False):
            every.setdefault(id(x), []).append(name)
            tensors[id(x)] = x
        return [self._parameter(names, tensors[key]) for key, names in every.items()]

    def _parameter(self, names: list[str], x: Tensor) -> Row:
        uses = tuple(dict.fromkeys(use for name in names for use in self.found.uses.get(name, ())))
        role = _role(uses, x)
        if role == "norm" and all(name.endswith("bias") for name in names):
            role = "norm's bias"
        what = _what(role)
        rule = None
        if role is not None:
            rule = self.rules.rule(what, names, self._owners(names))

        def decided(rule: Rule | None) -> Decided:
            spec, reason = self._decided(names, x, uses, role, rule)
            axis = next((use.axis for use in uses if use.axis is not None), None)
            return (spec, reason) if spec is None else self._placed(names[0], x, (spec, reason), axis)

        spec, reason = decided(rule)
        if rule is not None:
            other = self.rules.next(rule, what, names, self._owners(names))
            note_effect(rule, spec, names[0], lambda: decided(other))
        if spec is not None:
            check_finite(names[0], x)
        if len(names) > 1:
            reason += f" (tied: {len(names)} names)"
        return Row(
            "parameter", names[0], tuple(x.shape), spec, reason, tuple(dict.fromkeys(map(str, uses))),
            tuple(names[1:]), value_bits=8 * x.element_size(),
        )  # fmt: skip

    def _decided(
        self, names: list[str], x: Tensor, uses: Sequence[Use], role: str | None, rule: Rule | None
    ) -> tuple[QuantSpec | None, str]:
        """The format and the reason, before its axis is known."""
        if isinstance(x, QTensor):
            if rule is not None and rule.specs["weights"] is not None:
                raise NumericsError(
                    f"{names[0]}: rule {rule.said} quantizes it, and it is {x.spec!r} already"
                )
            return None, f"packed already: {x.spec.dtype}"
        if not x.is_floating_point() or x.element_size() == 1:
            what = "narrow" if x.is_floating_point() else "not of"
            return None, f"{what} floats: {str(x.dtype).removeprefix('torch.')}"
        if rule is not None:
            spec = rule.specs[_what(role)]
            if spec is not None and not uses:
                raise NumericsError(
                    f"{names[0]}: rule {rule.said} quantizes it, and the example never used it; give an "
                    "example that does, or leave it out of the rule"
                )
            return spec, f"rule {rule.said}"
        return self._default(names, uses, role)

    def _default(
        self, names: list[str], uses: Sequence[Use], role: str | None
    ) -> tuple[QuantSpec | None, str]:
        """What the arguments say of a parameter that no rule takes."""
        asked = self.asked[_what(role)]
        word = f"{_what(role)}="
        if not uses:
            return None, "undecided: no use of it was seen"
        if role in ("norm", "norm's bias"):
            return None, "a norm"
        if role == "bias":
            return asked, word if asked else "a bias"
        if role == "other":
            return None, f"{APART} (a rule can take it)"
        if role == "rows":
            return None, "an embedding (a rule can take it)"
        if role == "head" or self._is_head(names):
            return None, "the head (a rule can take it)"
        if any(self._renormed(name) for name in names):
            return None, "a part of a weight that a hook makes: torch.nn.utils.remove_weight_norm first"
        if any(".parametrizations." in f".{name}" for name in names):
            return (
                None,
                "a part of a parametrization: torch.nn.utils.parametrize.remove_parametrizations first",
            )
        return asked, word if asked else "weights=None"

    def _is_head(self, names: Sequence[str]) -> bool:
        """Does it belong to what turns a language model's states into words?"""
        find = getattr(self.model, "get_output_embeddings", None)
        head = find() if callable(find) else None
        owners = [module for _, module in self._owners(names)]
        return any(name.split(".")[-2:-1] == ["lm_head"] for name in names) or (
            head is not None and any(module is head for module in owners)
        )

    def _renormed(self, name: str, parts: Sequence[str] = ("_g", "_v", "_orig")) -> bool:
        """Does a hook of torch.nn.utils.weight_norm or spectral_norm make a weight of it?"""
        owner, _, leaf = name.rpartition(".")
        hooks = self.modules[owner]._forward_pre_hooks.values()
        made = [hook.name for hook in hooks if isinstance(hook, (WeightNorm, SpectralNorm))]
        return any(leaf == one + part for one in made for part in parts)

    def _placed(
        self, name: str, x: Tensor, decided: tuple[QuantSpec, str], axis: int | None
    ) -> tuple[QuantSpec | None, str]:
        """The spec along the axis that is summed; none where it would take more bytes than it saves."""
        spec, reason = decided
        shape = tuple(x.shape)
        try:
            found = along(spec, None if axis is None else axis - x.ndim, shape)
        except NumericsError as wrong:
            raise NumericsError(f"{name} of shape {shape}: {wrong}") from None
        after, before = stored_bytes(found, shape), x.numel() * x.element_size()
        if after >= before:
            if reason.startswith("rule "):
                raise NumericsError(
                    f"{name} of shape {shape}: {reason} makes {after} bytes of {before}; give another "
                    f"format, or "
                    "leave it out of the rule"
                )
            return None, f"would grow: {before} bytes to {after}"
        return found, reason

    # ---- what is computed -----------------------------------------------------------------------

    def _computed(self) -> list[Row]:
        planned = {name for row in self.rows if row.spec for name in row.names}
        return [
            row
            for site, seen in self.found.sites.items()
            for row in [self._site(site, seen, planned)]
            if site.place != OUT or row.spec is not None
        ]

    def _site(self, site: Site, seen: Seen, planned: set[str]) -> Row:
        what = "outputs" if site.place == OUT else "activations"
        names = [str(site)]
        owner = (site.module, self.modules.get(site.module))
        rule = self.rules.rule(what, names, [owner])
        observer = self.observer
        if rule is not None:
            spec, reason = rule.specs[what], f"rule {rule.said}"
            observer = observer if rule.observer is UNSET else rule.observer
            other = self.rules.next(rule, what, names, [owner])
            usual = self._of_site(what, seen, planned)
            note_effect(rule, spec, names[0], lambda: (other.specs[what], "") if other else usual)
        else:
            spec, reason = self._of_site(what, seen, planned)
        if spec is not None:
            spec = along(spec, seen.axis, seen.shape)
            observer = self._observing(spec, observer, names[0], rule)
        graph = site in self.found.hidden and not isinstance(owner[1], ONE_PRODUCT)
        if graph:
            reason += "; only a graph reaches it"
        return Row(
            "output" if site.place == OUT else "activation", names[0], seen.shape, spec, reason,
            (str(site).partition("[")[0],), observer=observer if spec else None, site=site, graph=graph,
            weights=seen.weights,
        )  # fmt: skip

    def _of_site(self, what: str, seen: Seen, planned: set[str]) -> tuple[QuantSpec | None, str]:
        spec = self.asked[what]
        if spec is None:
            return None, f"{what}=None"
        if not seen.weights:
            return None, "no weight is in this product (a rule can take it)"
        if self.asked["weights"] is not None and not planned & set(seen.weights):
            return None, "its weight is left as it is"
        return spec, f"{what}="

    def _observing(self, spec: QuantSpec, observer: str | None, name: str, rule: Rule | None) -> str | None:
        """The observer; raises NumericsError where it would have nothing to watch."""
        if observer is None:
            return None
        try:
            OBSERVERS[observer](spec)
        except NumericsError as wrong:
            if rule is not None and rule.observer is not UNSET:
                raise NumericsError(f"{name}: observer={observer!r}: {wrong}") from None
            return None
        return observer

    # ---- the rest -------------------------------------------------------------------------------

    def _buffer(self, name: str, x: Tensor) -> Row:
        uses = self.found.uses.get(name, ())
        owner, _, leaf = name.rpartition(".")
        saved = leaf not in self.modules[owner]._non_persistent_buffers_set
        reason = "a buffer" if saved else "a buffer, not saved"
        if x.ndim > 1 and x.is_floating_point() and any(use.role == "factor" for use in uses):
            reason += f", {MULTIPLIED}: a Parameter is planned"
        return Row(
            "buffer", name, tuple(x.shape), None, reason, tuple(dict.fromkeys(map(str, uses))),
            value_bits=8 * x.element_size(),
        )  # fmt: skip

    def _norms(self) -> list[Row]:
        """Normalizations by batches, which convolutions can take in."""
        rows = []
        for name, module in self.modules.items():
            if not isinstance(module, nn.modules.batchnorm._BatchNorm):
                continue
            conv = self.found.after.get(name)
            reason = "left: fold=False" if conv else "left: no convolution right before it"
            if conv and self.fold:
                wrong = self._not_foldable(name, conv)
                reason = f"left: {wrong}" if wrong else f"folded into {conv}"
                if not wrong:
                    self.folded[name] = conv
            rows.append(Row("norm", name, (module.num_features,), None, reason, (conv,) if conv else ()))
        if self.fold and not self.folded:
            raise NumericsError(
                "fold=True folds nothing: " + ("; ".join(f"{r.name} is {r.reason}" for r in rows[:4]) or
                "there is no normalization by batches in this model")
            )  # fmt: skip
        return rows

    def _not_foldable(self, norm: str, conv: str) -> str | None:
        module, by = self.modules[norm], self.modules.get(conv)
        if not isinstance(by, nn.modules.conv._ConvNd):
            return "no module is the convolution before it"
        if self.found.calls[conv] != 1 or self.found.calls[norm] != 1:
            return "it runs several times"
        if module.running_mean is None:
            return "it has no statistics of its own"
        shared = [n for n, m in self.modules.items() if m is by]
        return f"{conv} is shared" if len(shared) > 1 else None

    def _others(self) -> list[Row]:
        """Fused functions, caches of keys and values, modules that never ran."""
        rows = []
        for name, function in self.found.fused.items():
            rows.append(
                Row("module", name, (), None, f"{function} has products inside, which only a graph reaches")
            )
        for name, operator in self.found.regions.items():
            what = (
                f"no graph shows what is inside: {self.closed}"
                if self.closed
                else "its branches are looked at in a graph"
            )
            rows.append(Row("module", name, (), None, f"{operator}: {what}"))
        rows += [
            self._cache(f"{name}.{part}", kind) for name, kind in self.found.caches.items() for part in PARTS
        ]
        for name, module in self.modules.items():
            own = [leaf for leaf, _ in module.named_parameters(recurse=False)]
            if not name or not own or self.found.calls[name] or not self.found.calls:
                continue
            read = [leaf for leaf in own if self.found.uses.get(f"{name}.{leaf}")]
            reason = "its forward never ran: others read its parameters" if read else "never called"
            rows.append(Row("module", name, (), None, reason))
        return rows

    def _cache(self, name: str, kind: str) -> Row:
        """The keys or the values of a cache."""
        rule = self.rules.rule("caches", [name], [])
        spec, reason = self.asked["caches"], "caches="
        if rule is not None:
            usual = spec
            spec, reason = rule.specs["caches"], f"rule {rule.said}"
            note_effect(rule, spec, name, lambda: (usual, "caches=None"))
        if spec is None:
            return Row("cache", name, (), None, f"{kind}: stay as they are computed", (kind,))
        check_format(name, spec)
        self._check_mode_of_caches(name)
        return Row("cache", name, (), spec, reason, (kind,))

    def _check_mode_of_caches(self, name: str) -> None:
        if self.mode != "eager_mode":
            raise NumericsError(
                f"{name}: a graph keeps caches as they are; mode='eager_mode' quantizes them, caches=None "
                "leaves them"
            )

    def _plain(self) -> list[Row]:
        """Tensors of two dimensions and more in attributes or products that are none of the model's."""
        registered = {id(x) for _, x in named_tensors(self.model)}
        every = [
            (f"{name}.{leaf}" if name else leaf, x)
            for name, module in self.modules.items()
            for leaf, came in vars(module).items()
            if leaf not in _OWN and not self._renormed(f"{name}.{leaf}", ("",))
            for x in _kept(came)
        ]
        every += [(f"what {site} takes", x) for site, x in self.found.strangers.values()]
        alone = {id(x): (name, x) for name, x in reversed(every) if id(x) not in registered}
        return [
            Row("module", name, tuple(x.shape), None, STRANGE if isinstance(x, nn.Parameter) else PLAIN)
            for name, x in reversed(alone.values())
            if x.ndim > 1 and x.is_floating_point()
        ]

    def _check_effect(self) -> None:
        names = [*self.modules, *(name for row in self.rows for name in row.names)]
        self.rules.check([name for name in names if name])
        self.rules.check_acting()
        for what, kinds in (("weights", "parameter"), ("biases", "parameter"), ("activations", "activation"),
                            ("outputs", "output"), ("caches", "cache")):  # fmt: skip
            spec = self.asked[what]
            if spec is not None and not any(r.kind == kinds and r.spec for r in self.rows):
                reasons = Counter(r.reason for r in self.rows if r.kind == kinds)
                most = "; ".join(f"{reason} ({n})" for reason, n in reasons.most_common(3)) or "there is none"
                unseen = any(reason.startswith("undecided") for reason in reasons)
                out = "; give example= that uses them: what the model is called with" if unseen else ""
                raise NumericsError(f"{what}={spec!r} has no effect: {most}{out}")
        if self.observer is not None and not any(row.observer == self.observer for row in self.rows):
            raise NumericsError(
                f"observer={self.observer!r} has nothing to observe: no planned activation or output has "
                f"a scale "
                "of its own (block formats find theirs anew in each block, wide floats have none)"
            )
        if self.device == "IPU":
            _check_ipu(self.rows)

    def _warn(self, made: Plan) -> None:
        for reason in (PLAIN, STRANGE):
            plain = [row.name for row in made.rows if row.reason == reason]
            if plain and self.asked["weights"] is not None:
                warn(f"{', '.join(plain[:8])}{' ...' if plain[8:] else ''} stay as they are: {reason}")
        parameters = [row for row in made.rows if row.kind == "parameter" and len(row.shape) > 1]
        undecided = [row for row in parameters if row.reason.startswith("undecided")]
        if undecided and self.asked["weights"] is not None:
            warn(
                f"{len(undecided)} parameters stay as they are, since no use of them was seen: "
                f"{', '.join(row.name for row in undecided[:8])}{' ...' if undecided[8:] else ''}; "
                "give example= that uses them, or a rule"
            )


def note_effect(rule: Rule, spec: QuantSpec | None, name: str, without: Callable[[], Decided]) -> None:
    """Notes whether a rule changes what becomes of a tensor.  without: what it is told without the rule."""
    if spec is None:
        try:
            spec, reason = without()
        except NumericsError:  # there is no plan without the rule
            rule.acts = True
            return
        if spec is None and not reason.startswith("undecided"):  # what the rule decides
            rule.idle = rule.idle or (name, reason)
            return
    rule.acts = True


def along(spec: QuantSpec, axis: int | None, shape: Sequence[int]) -> QuantSpec:
    """The spec with its blocks or groups along an axis, from the end, where it names none but -1."""
    if axis is None or axis == -1:
        found = spec
    elif spec.blocked and spec.axis == -1:
        found = spec.with_axis(axis % len(shape))
    elif (
        not spec.blocked
        and spec.scheme is not None
        and spec.scheme.kind == "per_group"
        and spec.scheme.axis == -1
    ):
        found = spec.with_scheme(per_group(int(spec.scheme.size or 1), axis % len(shape)))
    else:
        found = spec
    if all(n >= 0 for n in shape):
        found.shared_shape(tuple(shape)) if found.scaled else None  # an axis that is not there
    return found


def _kept(came: Any) -> Iterator[Tensor]:
    """The tensors in an attribute, those of modules in lists and dicts of Python's too."""
    for x in pytree.tree_leaves(came):
        if isinstance(x, Tensor):
            yield x
        elif isinstance(x, nn.Module):
            yield from x.parameters()


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
