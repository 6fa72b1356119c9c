"""How good a quantized model is: layer by layer beside its reference, beside another, in many formats."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.func import functional_call

from numerics.backends.host.tensors import same_bits
from numerics.formats.arguments import keywords
from numerics.formats.dtype import told_apart
from numerics.formats.errors import NumericsError, a_kind_of, items_of, one_of, said, text_in
from numerics.formats.notebook import rows_table
from numerics.model.alone import NO_VALUES, Alone, Parameter
from numerics.model.deciding.fields import MODES
from numerics.model.deciding.plan import Plan
from numerics.model.deciding.rows import Row
from numerics.model.deciding.rules import rules_of, spec_of
from numerics.model.looking.places import check_model, modules_around, packed, parameters
from numerics.model.looking.restoring import restored
from numerics.model.looking.trace import (
    Casts,
    arguments,
    as_in_use,
    autocast_as,
    autocast_here,
    batches_of,
    outside,
    tensors_of,
)
from numerics.model.measuring import add, floats_in, within
from numerics.model.planning import plan as plan_of
from numerics.model.wrapped import eager
from numerics.model.wrapped.following import as_planned, named_now
from numerics.model.wrapped.graph import QuantizedGraph
from numerics.model.wrapped.inside import INSIDE, hidden_modules, part_of, run_as_graph, without_hidden
from numerics.model.wrapped.quantizers import Learned, Quantizer
from numerics.model.wrapped.running import named_failure, run
from numerics.model.wrapped.state import State, check_unwrapped, is_wrapped, state_of
from numerics.model.wrapped.structure import check_structure
from numerics.model.wrapping import float_of, in_evaluation, packed_of, quantizers_of, shared_copy, wrap
from numerics.tensor.qtensor import ErrorSums, QTensor, rank
from numerics.tensor.spec import described
from numerics.view.table import EMPTY, Column, Table, name_column
from numerics.view.text import decibels, some_of

SOME = 4
"""Layers that a report names among those with NaN or Inf."""
_WEIGHTS, _COMPUTED = "weights", "computed"
_CLIPPED = "clipped: of the values that are quantized, those cut off by their scales, and NaN and Inf"


@dataclass(frozen=True)
class Layer:
    """One layer of a report.

    name: of its module.  formats: of its weights and of what goes in.  local: the SQNR in dB of its output
    for the reference's input, so of its own quantizers alone; cumulative: of its output for its own input.
    clipped: the share of values that its quantizers cut off, of its weights or of what goes in and comes out,
    whichever is larger: those more than half a step beyond the largest or smallest that their scales reach,
    and those that are NaN or Inf.  nbytes: of its parameters as
    stored, of float_nbytes; what is tied counts at the first of its layers.  inside: empty, or what stands in
    the place of its figures, which are NaN: "in self_attn" where a module around it reads its parameters,
    "never ran" where none ran, "no values" where what came out was empty, as of an expert without tokens.
    also: the other modules that have one of its parameters, and further names of its module.  non_finite: how
    many values of its output are NaN or Inf in the reference, in no SQNR.  parameters: its quantized
    parameters one by one, worst first, where it has several or layers inside, where others read them, and
    where it reads those of others: each judged where its line is, or at what that names.  shapes: of its
    quantized parameters, by all names that these have in the model.
    """

    name: str
    formats: str
    local: float
    cumulative: float
    clipped: float
    nbytes: int
    float_nbytes: int
    inside: str = ""
    also: tuple[str, ...] = ()
    non_finite: int = 0
    parameters: tuple[Parameter, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)

    @property
    def title(self) -> str:
        """Its name, and those of the modules that have one of its parameters too."""
        return " = ".join((self.name or "(the model)", *self.also))


@dataclass(frozen=True, repr=False)
class Report:
    """Layers, worst first, and what comes out at the end; made by `report`.

    output: the SQNR in dB of the model's output.  batches: how many were run.  non_finite: how many values of
    the reference's output are NaN or Inf, in no SQNR, and lost: how many more are that in the model's.
    """

    layers: tuple[Layer, ...]
    output: float
    batches: int
    non_finite: int = 0
    lost: int = 0

    def __str__(self) -> str:
        table = Table([
            name_column("layer", least=24), name_column("formats", least=20), Column("local dB"),
            Column("cumulative dB"), Column("clipped"), Column("bytes", spare=1), Column("of float", spare=1),
        ], self._rows)  # fmt: skip
        return table.text(*self._end.splitlines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """A notebook's view: the layers, worst first."""
        headings = ("layer", "formats", "local dB", "cumulative dB", "clipped", "bytes", "of float")
        return rows_table(headings, self._rows, self._end)

    @property
    def _rows(self) -> list[Sequence[str]]:
        """Each layer, and below it its parameters, one by one."""
        return [row for one in self.layers for row in (_row(one), *map(_row_of_one, one.parameters))]

    @property
    def _end(self) -> str:
        found = [f"output: {decibels(self.output)} over {_batches(self.batches)}"]
        found += _left_out("the reference's output", self.non_finite, "the model's", self.lost)
        odd = [one for one in self.layers if one.non_finite]
        found += [f"{_named(odd)} of the reference's layers, in no SQNR"] if odd else []
        return "\n".join([*found, *[_CLIPPED] * any(one.clipped for one in self.layers)])

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, as JSON takes them."""
        layers = [_finite(asdict(one)) for one in self.layers]
        found = {"output": _finite(self.output), "batches": self.batches, "layers": layers}
        return {**found, "non_finite": self.non_finite, "lost": self.lost}


def _named(layers: Sequence[Layer]) -> str:
    """How many values are NaN or Inf in which layers, some of them by name."""
    each = [f"{one.non_finite} in {one.name or 'the model'}" for one in layers]
    return f"NaN or Inf: {some_of(each, SOME)}"


def _left_out(of: str, non_finite: int, other: str, lost: int) -> list[str]:
    """What is in no SQNR, and what makes one of no use, where it is something."""
    found = [f"{non_finite} values of {of} are NaN or Inf, in no SQNR or error"] if non_finite else []
    return found + ([f"{lost} values of {other} are NaN or Inf, and finite in {of}"] if lost else [])


def _db(value: float) -> str:
    return "exact" if value == math.inf else f"{value:.1f}"


def _figures(one: Layer) -> tuple[str, str]:
    return (one.inside, EMPTY) if one.inside else (_db(one.local), _db(one.cumulative))


def _batches(count: int) -> str:
    return "1 batch" if count == 1 else f"{count} batches"


def _row(one: Layer) -> Sequence[str]:
    return (one.title, one.formats, *_figures(one), *_shares(one))


def _row_of_one(one: Parameter) -> Sequence[str]:
    """The line of one parameter, below its layer's; what it adds to errors before it is none of its own."""
    return (f"  {one.name}", one.format, one.unmeasured or _db(one.local), EMPTY, *_shares(one))


def _shares(one: Layer | Parameter) -> tuple[str, str, str]:
    """What is clipped, and what is stored, of floats."""
    of_float = f"{one.nbytes / one.float_nbytes:.1%}" if one.float_nbytes else EMPTY
    return f"{one.clipped:.2%}" if one.clipped > 0 else EMPTY, f"{one.nbytes:,}", of_float


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


@dataclass
class _Sums:
    """What is summed up over batches for one layer."""

    local: ErrorSums = field(default_factory=ErrorSums)
    cumulative: ErrorSums = field(default_factory=ErrorSums)
    clipped: Counter[str] = field(default_factory=Counter)
    values: Counter[str] = field(default_factory=Counter)

    @property
    def share(self) -> float:
        """The share that is cut off of its weights, or of what it computes, whichever is larger."""
        return max((self.clipped[kind] / count for kind, count in self.values.items() if count), default=0.0)


@keywords
def report(
    model: nn.Module, reference: nn.Module | None = None, batches: Iterable[Any] | None = None
) -> Report:
    """Returns how far each layer of a wrapped model is from its reference, worst first.

    model: what `wrap` returned, in either mode, calibrated where it waits for scales; frozen or not.  Or one
        that is not wrapped, whose weights are packed, as `load_into` makes it of a file.
    reference: the float model; None (the default) for the one that was wrapped.
    batches: each what the models are called with: a tuple of arguments, a mapping of named ones, or one
        tensor. None (the default) for the example of the plan.

    Its columns are those of `Layer`: local and cumulative are SQNR in dB, of a layer's output for what the
    reference gives it, and for what it gets here; "exact" where no bit differs.  bytes are those of its
    parameters as stored, with their share of the floats'; clipped is the share of values, of weights or of
    what goes in and comes out, the larger one, that quantizers cut off, as they are more than half a step
    beyond the largest or smallest that their scales reach, or NaN or Inf; "-" is none.

    A layer is a module that owns a planned parameter or site; those that share a parameter, as an embedding
    and the head that is tied to it, are layers each, and named together.  Where a layer has several quantized
    parameters, as experts, recurrences and lists of parameters have, or layers inside it, as those of the
    tokens and positions of a vision transformer, each has a line below it: its local SQNR
    is that of the reference's layer, or of the module around it that reads it, with this one parameter
    quantized and nothing else.

    Raises NumericsError for a model that is not wrapped, for a graph that quantizes inside a fused function
    of the model's own forward, and where there is nothing to run or to compare: no batch, one that is empty,
    empty outputs.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))
    >>> x = torch.linspace(-1, 1, 64).reshape(1, 64)
    >>> found = report(wrap(model, "mxfp4", example=x))
    >>> sorted(one.name for one in found.layers), found.layers[0].local <= found.layers[1].local
    (['0', '2'], True)
    """
    if isinstance(model, nn.Module) and isinstance(reference, nn.Module):
        _check_order(model, reference)
    state = _state(model)
    check_structure(model, anew=True)
    reference = state.original if reference is None else reference
    if not isinstance(reference, nn.Module):
        raise NumericsError(
            f"the reference is the float model, a torch.nn.Module, not {a_kind_of(reference)}"
        )
    if batches is None:
        if state.plan.example is None:
            raise NumericsError("batches= is due: the plan was made without an example")
        batches = [state.plan.example]
    twin = _twin(model)
    plan, modules = _named_as(reference, twin, state)
    rows = _by_layer(plan, reference)
    after = {conv: norm for norm, conv in plan.fold.items()}
    alone, weights = Alone(modules, reference, plan, rows), state.planned.parameters.keys()
    judged = _Judged({name: _Sums() for name in rows}, after, alone, modules, weights)
    count = 0
    with restored(reference), restored(twin):
        for batch in batches_of(batches):
            _run_pair(twin, reference, batch, judged)
            count += 1
    layers = [_layer(name, rows[name], judged) for name in rows]
    worst = sorted(layers, key=lambda one: (bool(one.inside), rank(one.local), rank(one.cumulative)))
    whole = judged.whole
    _check_compared(whole)
    return Report(tuple(worst), whole.error.sqnr, count, whole.non_finite, whole.lost)


def _state(model: nn.Module) -> State:
    """What a model was made of; of one that is not wrapped, whose weights came packed, what those say."""
    if not isinstance(model, nn.Module) or is_wrapped(model) or not packed(model):
        return state_of(model)
    names: dict[int, list[str]] = {}
    places = parameters(model)
    for name, place in places.items():
        names.setdefault(id(place.tensor), []).append(name)
    rows = [_row_of_packed(places[some[0]].tensor, some) for some in names.values()]
    return State(Plan(rows), None, None).as_frozen("packed")


def _row_of_packed(x: Tensor, names: Sequence[str]) -> Row:
    """What a plan would have said of a parameter."""
    spec, bits = x.spec if isinstance(x, QTensor) else None, 8 * x.element_size()
    return Row(
        "parameter", names[0], tuple(x.shape), spec, "as it came", also=tuple(names[1:]), value_bits=bits
    )


def _named_as(reference: nn.Module, twin: nn.Module, state: State) -> tuple[Plan, Mapping[str, nn.Module]]:
    """The plan and the modules of a model by the names of its reference.

    They are those of now where that has all of them, as one with the same adapters; else those of before
    anything came in.
    """
    now, theirs = dict(named_now(twin)), {name for name, _ in reference.named_modules(remove_duplicate=False)}
    if state.plan is state.planned or now.keys() <= theirs:
        return state.plan, now
    return as_planned(state.planned, twin)


def _check_order(model: nn.Module, reference: nn.Module) -> None:
    if is_wrapped(reference) and not is_wrapped(model):
        raise NumericsError(
            "report(model, reference, batches): the wrapped model comes first, and then the float one"
        )


def _by_layer(plan: Plan, model: nn.Module) -> dict[str, list[Row]]:
    """The planned rows of each module, under its first name; tied parameters at all that have them."""
    first: dict[int, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        first.setdefault(id(module), name)
    known = {name: first[id(module)] for name, module in model.named_modules(remove_duplicate=False)}
    found: dict[str, list[Row]] = {}
    for row in plan.rows:
        if row.spec is not None and row.kind != "cache":
            names = [row.site.module] if row.site is not None else _owners(row)
            for name in dict.fromkeys(known.get(name, name) for name in names):
                found.setdefault(name, []).append(row)
    return found


def _owners(row: Row) -> list[str]:
    """The names of the modules that have a parameter."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in row.names))


def _inside(name: str, judged: _Judged) -> str:
    """What is said of a layer whose module never ran as one, or made no values; nothing of the others."""
    if judged.calls[name]:
        return "" if judged.layers[name].local.count else NO_VALUES
    for above in modules_around(name):
        if judged.calls[above]:
            return f"in {above.rpartition('.')[2] or 'the model'}"
    return "never ran"


def _layer(name: str, rows: list[Row], judged: _Judged) -> Layer:
    sums, inside = judged.layers[name], _inside(name, judged)
    parts = (sums.local, sums.cumulative)
    local, cumulative = (math.nan if inside or not one.count else one.error.sqnr for one in parts)
    weights = [row for row in rows if row.kind == "parameter"]
    own = [row for row in weights if row.name.rpartition(".")[0] == name]  # what is tied counts once
    also = dict.fromkeys(owner for row in weights for owner in _owners(row) if owner != name)
    formats = dict.fromkeys(row.format for row in weights)
    inputs = dict.fromkeys(row.format for row in rows if row.kind == "activation")
    said = ", ".join(formats) + (f" x {', '.join(inputs)}" if inputs else "")
    after = sum(row.nbytes for row in own)
    return Layer(
        name, said, local, cumulative, sums.share, after,
        sum(row.unplanned_nbytes for row in own), inside, tuple(also), sums.cumulative.non_finite,
        judged.alone.parameters(name), {one: tuple(row.shape) for row in weights for one in row.names},
    )  # fmt: skip


def _twin(model: nn.Module) -> nn.Module:
    """The model itself; of a graph the eager model with the same quantizers and packed parameters."""
    if not isinstance(model, QuantizedGraph):
        return model
    state = state_of(model)
    hidden = hidden_modules(state.plan)
    if "" in hidden:
        raise NumericsError(
            "this graph quantizes inside a fused function of the model's own forward, and a report runs "
            "modules one by one: nx.compare(float_model, model, batches) judges what comes out; a rule "
            "{name: {'activations': None}} plans a model that nx.report can take apart"
        )
    found = float_of(model)
    own = dict(found.named_parameters(remove_duplicate=False))
    every, packed = quantizers_of(model, state.plan), packed_of(model, own)
    floats = [shared_copy(found.get_submodule(name)).eval() for name in hidden]
    eager.wrap(found, without_hidden(state.plan), every)
    if state.frozen:
        eager.freeze(found, {id(own[name]): x for name, x in packed.items()})
    for name, original in zip(hidden, floats, strict=True):
        plan, theirs = part_of(state.plan, name)
        inside = {k.removeprefix(f"{name}."): x for k, x in packed.items() if k.startswith(f"{name}.")}
        ours = {key: every[their] for key, their in theirs.items()}
        run_as_graph(found.get_submodule(name), original, plan, ours, inside)
    return found


@dataclass
class _Judged:
    """What is summed up of a model.

    layers: by the names of modules.  calls: how often each ran in the reference.  after: of a convolution the
    normalization that it took in: what that returned is due.  alone: parameters of layers, one by one.
    modules: of the model, by their names in the reference.  weights: names of quantizers of parameters.
    """

    layers: dict[str, _Sums]
    after: dict[str, str]
    alone: Alone
    modules: Mapping[str, nn.Module]
    weights: Set[str]
    whole: ErrorSums = field(default_factory=ErrorSums)
    calls: Counter[str] = field(default_factory=Counter)


def _run_pair(model: nn.Module, reference: nn.Module, batch: Any, judged: _Judged) -> None:
    """Runs the reference, the model, and each layer of the model on the reference's inputs."""
    sums, after = judged.layers, judged.after
    args, kwargs = arguments(batch)
    with (
        named_failure(reference),
        as_in_use(reference),
        _recorded(
            dict(reference.named_modules(remove_duplicate=False)),
            dict.fromkeys([*sums, *after.values(), *judged.alone.around]),
        ) as due,
    ):
        expected = reference(*args, **kwargs)
    judged.alone.settle(due)
    with named_failure(model), as_in_use(model):
        modules = judged.modules
        here = dict.fromkeys(name for name in (*sums, *judged.alone.around) if name in modules)
        with _recorded(modules, here) as came, _counted(judged):
            actual = model(*args, **kwargs)
        judged.calls.update({name: len(calls) for name, calls in due.items()})
        for name in sums:
            clipped, values = judged.alone.cut(name, came)
            sums[name].clipped[_WEIGHTS] += clipped
            sums[name].values[_WEIGHTS] += values
            calls = due.get(name, ())
            outs = due.get(after.get(name, name), ())
            for call, (_, _, out, _), (_, _, own, _) in zip(calls, outs, came.get(name, ()), strict=False):
                add(sums[name].cumulative, out, own)
                add(sums[name].local, out, call.again(modules[name]))
    with as_in_use(reference):
        judged.alone.add(due, after)
    add(judged.whole, *_corresponding(expected, actual))


class Call(NamedTuple):
    """What went into and came out of a module, and what torch.autocast did around it."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    casts: Casts

    def again(self, module: nn.Module, parameters: Mapping[str, Tensor] | None = None) -> Any:
        """What a module makes of the same; parameters: some that stand in for its own."""
        with autocast_as(self.casts):
            if parameters:
                return functional_call(module, dict(parameters), self.args, self.kwargs)
            return module(*self.args, **self.kwargs)


Calls = dict[str, list[Call]]


@contextmanager
def _recorded(modules: Mapping[str, nn.Module], names: Iterable[str]) -> Iterator[Calls]:
    """What goes into and comes out of the modules of those names, call by call."""
    found: Calls = {}
    handles = []
    for name in names:
        if name not in modules:
            raise NumericsError(f"the reference has no module {name!r}: it is another model")

        def keep(_: Any, args: Any, kwargs: Any, out: Any, name: str = name) -> None:
            if any(outside(x) is not None for x in tensors_of((args, kwargs))):
                raise NumericsError(
                    f"{name} is called inside torch.vmap, which shows it one entry at a time: nx.report runs "
                    "each layer again by itself, and does not reach into that; nx.compare(model, reference, "
                    "batches) compares what both return"
                )
            found.setdefault(name, []).append(Call(args, kwargs, out, autocast_here()))

        handles.append(modules[name].register_forward_hook(keep, with_kwargs=True))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _counted(judged: _Judged) -> Iterator[None]:
    """Counts what the quantizers of each layer cut off."""
    handles, sums = [], judged.layers
    seen: set[nn.Module] = set()
    for name, module in judged.modules.items():
        if name not in sums or module in seen:
            continue
        seen.add(module)
        for child in (*module._modules.values(), *module.__dict__.get(INSIDE, ())):
            if isinstance(child, (Quantizer, Learned)):
                kind = _WEIGHTS if child.name in judged.weights else _COMPUTED

                def count(one: Any, args: Any, _: Any, into: _Sums = sums[name], kind: str = kind) -> None:
                    into.values[kind] += args[0].numel()
                    into.clipped[kind] += int((~within(one, args[0])).sum())

                handles.append(child.register_forward_hook(count))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _corresponding(expected: Any, actual: Any) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors of floats of two results; raises NumericsError where they do not correspond."""
    x, y = floats_in(expected), floats_in(actual)
    if not x:
        raise NumericsError(
            f"there are no floats in what comes out, {a_kind_of(expected)}: tensors, and lists, "
            "tuples, mappings and dataclasses of them are looked at; give a module that returns such"
        )
    if [one.shape for one in x] != [one.shape for one in y]:
        raise NumericsError(
            f"the outputs do not correspond: shapes {[tuple(one.shape) for one in x]} and "
            f"{[tuple(one.shape) for one in y]}"
        )
    return x, y


def _check_compared(sums: ErrorSums) -> None:
    """Raises NumericsError where no value came out of any batch: that nothing differs says nothing."""
    if not sums.count:
        raise NumericsError("what comes out of these batches is empty: there is no value to compare")


# ---- models beside each other ---------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Comparison:
    """How far the outputs of two models are apart; made by `compare`.

    sqnr: in dB, of the first over their difference.  max_error: the largest difference.  equal: are all bits
    the same, those of NaN too.  agreement: the share of rows of the first output whose largest value is a
    finite number at the same place.  non_finite: how many values of the first are NaN or Inf, in no sqnr or
    max_error; lost: how many more are that in the second.  Where they are left out, nothing reads as exact:
    sqnr is NaN where all others are equal.
    """

    sqnr: float
    max_error: float
    equal: bool
    agreement: float
    batches: int
    non_finite: int = 0
    lost: int = 0

    def __str__(self) -> str:
        agreed = f"{self.agreement:.1%} agree on the largest value"
        left_out = _left_out("the first", self.non_finite, "the second", self.lost)
        return "; ".join([self._same, *left_out, agreed, _batches(self.batches)])

    __repr__ = __str__

    @property
    def _same(self) -> str:
        if self.equal:
            return "equal, bit for bit"
        if not math.isnan(self.sqnr) or self.lost:
            return f"{decibels(self.sqnr)}, largest difference {self.max_error:.3g}"
        return "no finite value differs" if self.max_error == 0 else "no finite value to compare"


@keywords
def compare(a: nn.Module, b: nn.Module, batches: Iterable[Any] | None = None) -> Comparison:
    """Returns how far the outputs of a model are from another's, on the same batches.

    a, b: two models with the same inputs and outputs, wrapped or not; a is the reference.
    batches: each what they are called with: a tuple of arguments, a mapping of named ones, or one tensor;
        they cannot be left away.
    Raises NumericsError where no batch came, for an empty one, for outputs that do not correspond or have no
    values, and for what is no model:
    how far a QTensor is from the values that it stands for says `q.error(x)`.

    >>> import torch
    >>> model = torch.nn.Linear(32, 4)
    >>> print(compare(model, model, [torch.ones(2, 32)]))
    equal, bit for bit; 100.0% agree on the largest value; 1 batch
    """
    sums, equal, count = ErrorSums(), True, 0
    hits = rows = 0
    for model in (a, b):
        if isinstance(model, (QTensor, Tensor, np.ndarray)):
            raise NumericsError(
                f"compare takes two models and batches, not {a_kind_of(model)}; how far a QTensor is "
                "from the values it stands for says q.error(x)"
            )
        check_model("compare", model)
    if batches is None:
        raise NumericsError("compare needs batches=: a list of what both models are called with")
    a, b = in_evaluation(a), in_evaluation(b)
    with restored(a), restored(b):
        for batch in batches_of(batches):
            x, y = _corresponding(run(a, batch), run(b, batch))
            equal = equal and all(same_bits(one, other) for one, other in zip(x, y, strict=True))
            add(sums, x, y)
            if x[0].ndim and x[0].shape[-1]:
                same = x[0].argmax(-1) == y[0].argmax(-1)
                same &= x[0].amax(-1).isfinite() & y[0].amax(-1).isfinite()
                hits, rows = hits + int(same.sum()), rows + same.numel()
            count += 1
    _check_compared(sums)
    error = sums.error
    agreed = hits / rows if rows else 1.0
    return Comparison(error.sqnr, error.max_error, equal, agreed, count, error.non_finite, sums.lost)


@dataclass(frozen=True)
class Swept:
    """One row of a sweep: a format, its quality and its size.

    non_finite: how many values of the float model's output are NaN or Inf, in no sqnr; lost: how many more
    are that in the quantized model's.
    """

    format: str
    activations: str
    sqnr: float
    agreement: float
    bits: float
    nbytes: int
    non_finite: int = 0
    lost: int = 0


@dataclass(frozen=True, repr=False)
class Sweep:
    """Formats by quality, best first; made by `sweep`.  refused: those that cannot be planned, and why."""

    rows: tuple[Swept, ...]
    refused: dict[str, str]

    def __str__(self) -> str:
        table = Table([
            name_column("weights", least=20), name_column("activations"), Column("SQNR dB"),
            Column("agreement"), Column("bits a value"), Column("bytes"),
        ])  # fmt: skip
        for row in self.rows:
            table.add(
                row.format, row.activations, _db(row.sqnr), f"{row.agreement:.1%}", f"{row.bits:.2f}",
                f"{row.nbytes:,}",
            )  # fmt: skip
        return table.text(*self._below, *(f"{name}: {why}" for name, why in self.refused.items()))

    __repr__ = __str__

    @property
    def _below(self) -> list[str]:
        """What is in no SQNR: the same of the float model's output for all formats, and what each made."""
        found = _left_out(
            "the float model's output", max((r.non_finite for r in self.rows), default=0), "", 0
        )
        for row in self.rows:
            found += _left_out("the float model's", 0, f"{row.format}'s output", row.lost)
        return found

    def as_dict(self) -> dict[str, Any]:
        """The sweep as plain values, as JSON takes them."""
        rows = [{f.name: _finite(getattr(row, f.name)) for f in fields(row)} for row in self.rows]
        return {"rows": rows, "refused": dict(self.refused)}


SAME = "same"


@keywords
def sweep(
    model: nn.Module,
    formats: Sequence[Any],
    batches: Sequence[Any],
    *,
    activations: Any = None,
    rules: Any = None,
    mode: str = "eager_mode",
) -> Sweep:
    """Returns a table of formats by the quality of the model's output and its size, best first.

    model: a float model.  formats: what `plan` takes for weights, each tried alone.
    batches: a list; the first is the example.  activations: None (the default) for weights alone, a format,
    or "same" for each format's own.  rules, mode: as for `plan`; fx_graph_mode reaches products
    inside fused functions.
    Raises NumericsError where there is no batch, and for other arguments that are none; a format that the
    model cannot be planned, wrapped or run in is listed with the reason.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
    >>> x = torch.linspace(-1, 1, 256).reshape(4, 64)
    >>> [row.format for row in sweep(model, ["mx4", "mx9", "mxfp4"], [x]).rows][0]
    'mx9'
    """
    check_model("sweep", model)
    check_unwrapped(model)
    one_of("mode", mode, MODES)
    if isinstance(formats, str) or not isinstance(formats, Iterable):
        raise NumericsError(
            f"formats={said(formats)} is no list of formats, such as ['mxfp4', 'int8'], or ['mxfp4'] for one"
        )
    asked = items_of("formats", formats)
    if not asked:
        raise NumericsError("formats=[] has no format to try: a list of them, such as ['mxfp4', 'int8']")
    if text_in(activations) != SAME:
        spec_of("activations", activations)
    rules = items_of("rules", rules) if isinstance(rules, Iterator) else rules
    rules_of(rules)
    batches = list(batches_of(batches))
    arguments(batches[0])
    rows, refused = [], {}
    for one in asked:
        try:
            beside = one if text_in(activations) == SAME else activations
            made = plan_of(model, one, beside, rules=rules, example=batches[0], mode=mode)
            rows.append(_swept(model, made, described(spec_of("formats", one)), batches))
        except NumericsError as wrong:
            refused[one if isinstance(one, str) else said(one)] = str(wrong)
    return Sweep(tuple(sorted(rows, key=lambda row: -rank(row.sqnr))), refused)


def _swept(model: nn.Module, made: Plan, name: str, batches: Sequence[Any]) -> Swept:
    found = compare(model, wrap(model, made), batches)
    planned = [row for row in made.rows if row.kind == "parameter" and row.spec]
    values = sum(row.size for row in planned)
    stored = sum(row.nbytes for row in planned)
    inputs = dict.fromkeys(told_apart(r.spec.dtype) for r in made.rows if r.kind == "activation" and r.spec)
    return Swept(
        name, ", ".join(inputs) or "-", found.sqnr,
        found.agreement, 8 * stored / values if values else 0.0,
        sum(row.nbytes for row in made.rows if row.kind in ("parameter", "buffer")),
        found.non_finite, found.lost,
    )  # fmt: skip
