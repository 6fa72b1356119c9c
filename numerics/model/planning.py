"""Planning: one look at a model, then a decision and its reason for each of its tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.parameter import is_lazy

from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError, a_kind_of, one_of, truth
from numerics.model.deciding.agreeing import check_seen
from numerics.model.deciding.checks import check_effect, check_unknown, tell
from numerics.model.deciding.computed import computed, of_sites
from numerics.model.deciding.fields import DEVICES, MODES
from numerics.model.deciding.groups import shared_scales
from numerics.model.deciding.look import Look
from numerics.model.deciding.parameters import parameters
from numerics.model.deciding.plan import Plan
from numerics.model.deciding.rest import buffers, check_mode_of_caches, norms, others, plain
from numerics.model.deciding.rules import WHAT, Asked, observer_of, rules_of, spec_of
from numerics.model.looking import exported
from numerics.model.looking.places import check_model, check_scripted
from numerics.model.looking.trace import Site, is_one_product, traced
from numerics.model.looking.without_example import looked_at
from numerics.model.wrapped.state import check_unwrapped


@keywords
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
        QuantSpec says another axis than -1; per_channel is a scale for each output channel, of experts for
        each expert and output channel, unless it says another axis than 0.  Embeddings, norms and the head of
        a language model (a module named lm_head, what get_output_embeddings() returns, a weight that is an
        embedding's too) are left to rules; routers of experts are not, and the plan says which they are.
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
        percentile, mse, kl, pof2 or pof2_mse, with options of its own as in "percentile(99.9)".  None (the
        default): each tensor brings its own scale.
    mode: eager_mode (the default), or fx_graph_mode, which sees inside fused functions.
    device: CPU (the default), or IPU, whose formats are checked (docs/ipu.md).
    fold: True folds batch normalizations (BatchNorm) into the convolutions before them.
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
    check_unwrapped(model)
    formats = {
        "weights": spec_of("weights", weights), "activations": spec_of("activations", activations),
        "outputs": spec_of("outputs", outputs), "biases": spec_of("biases", biases),
        "caches": spec_of("caches", caches),
    }  # fmt: skip
    look = Look(
        model, formats, Asked(rules_of(rules)), observer_of(observer), str(one_of("mode", mode, MODES)),
        str(one_of("device", device, DEVICES)), truth("fold", fold), truth("share", share),
    )  # fmt: skip
    return _planned(look, _example_of(model, example))


def _example_of(model: nn.Module, example: Any) -> Any:
    """The example, or the one that a model of transformers brings."""
    if example is not None:
        return example
    own = getattr(model, "dummy_inputs", None)
    return own if isinstance(own, Mapping) and own else None


def _planned(look: Look, example: Any) -> Plan:
    """Every row, in the order in which they depend on each other."""
    _check_shapes(look.model)
    if look.asked["caches"]:
        check_mode_of_caches(look, f"caches={look.asked['caches']!r}")
    if example is None:
        _check_without_example(look)
    _find(look, example)
    check_unknown(look)
    look.rows += parameters(look)
    look.rows += buffers(look)
    look.rows += norms(look)
    look.rows += shared_scales(computed(look), look.found, look.folded, look.rules, look.share)
    look.rows += others(look)
    look.rows += plain(look)
    check_effect(look)
    made = Plan(look.rows, look.mode, look.device, example, look.folded, tuple(look.rows))
    tell(look, made)
    return made


def _find(look: Look, example: Any) -> None:
    """Looks at the model with its example, or without one."""
    if example is None:
        look.found = looked_at(look.model)
        return
    look.found = traced(look.model, example)
    _open(look, example)


def check_plan(model: nn.Module, made: Plan, example: Any) -> None:
    """Raises NumericsError where a plan is none of this model: one from a file is there to be edited.

    With an example its rows are compared with what a look at the model finds; those that planning made are
    known.
    """
    made.check_model(model)
    if made.looked and tuple(made.rows) == made.looked and made.example is not None:
        return
    look = Look(model, dict.fromkeys(WHAT), Asked(rules_of(None)), None, made.mode, made.device, False, False)
    if example is not None:
        _find(look, example)
    look.rows += parameters(look)
    seen = [*look.rows, *buffers(look)]
    if example is not None:
        seen += of_sites(look)
    else:
        _check_single(model, made)
    check_seen(made.rows, seen, example is not None)


def _check_single(model: nn.Module, made: Plan) -> None:
    """Raises NumericsError for a module that is one product, and has another number of them in a plan."""
    sites: dict[str, list[Site]] = {}
    for row in made.rows:
        if row.site is not None:
            sites.setdefault(row.site.module, []).append(row.site)
    if not sites or made.mode != "eager_mode":
        return
    takers = Counter(use for row in made.rows if row.kind in ("parameter", "buffer") and len(row.shape) > 1
                     for use in row.uses)  # fmt: skip
    single = {use.rpartition(":")[0] for use, count in takers.items() if count == 1}
    for name, module in model.named_modules():
        own = sites.get(name, [])
        due = not own and (name or "model") in single
        if is_one_product(module) and (due or any(site.number for site in own)):
            raise NumericsError(
                f"this plan has {', '.join(map(str, own)) or 'no row'} for what goes into {name or 'model'}, "
                f"{a_kind_of(module)}, whose forward is one product; example= beside the plan has it "
                "looked at"
            )


def _check_without_example(look: Look) -> None:
    asked = any(look.asked[what] for what in ("activations", "outputs", "caches")) or look.fold or look.share
    if asked or look.mode == "fx_graph_mode":
        raise NumericsError(
            "activations=, outputs=, caches=, fold=, share= and mode='fx_graph_mode' need example=: what "
            "the model is called with, as a tuple of arguments, a mapping of named ones, or one tensor"
        )


def _open(look: Look, example: Any) -> None:
    """Looks at the graph where it shows what a forward does not."""
    silent = [name for name, x in look.model.named_parameters() if _is_silent(look, name, x)]
    if look.mode == "eager_mode" and not (look.found.fused or look.found.regions or silent):
        return
    if look.mode == "fx_graph_mode" and isinstance(look.model, GraphModule):
        look.found.sites.clear()  # whose nodes keep the names of the modules that it was made of
    try:
        exported.seen(exported.export(look.model, example), look.model, look.found)
    except NumericsError as wrong:
        if look.mode == "fx_graph_mode":
            raise
        look.closed = str(wrong)


def _is_silent(look: Look, name: str, x: Tensor) -> bool:
    """Is it of a module that never ran, or did nobody who watches functions see it used?"""
    owner = name.rpartition(".")[0]
    return bool(owner and not look.found.calls[owner]) or (x.ndim > 1 and name not in look.found.uses)


def _check_shapes(model: nn.Module) -> None:
    lazy = [name for name, x in model.named_parameters() if is_lazy(x)]
    if lazy:
        raise NumericsError(
            f"{', '.join(lazy[:4])} have no shape yet, and looking at a model changes nothing: "
            "call it once before"
        )
