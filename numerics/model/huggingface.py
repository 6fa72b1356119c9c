"""Quantization as transformers knows it: `from_pretrained(name, quantization_config=NumericsConfig("mx6"))`.

The method is registered as "numerics" when transformers loads its quantizers, once this package is imported
(numerics/_autoload.py).  Weights are quantized one by one as they are loaded; `save_pretrained` writes plain
tensors and a JSON text in the metadata of the files, and `from_pretrained` makes the same bits of them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from numerics.files.safetensors import Reader
from numerics.formats.errors import NumericsError, hint, said, warn
from numerics.formats.text import json_in
from numerics.model.deciding.look import Decided, note_effect, of_weight, outputs_of
from numerics.model.deciding.routers import routers, told_routers
from numerics.model.deciding.rows import stored_bytes
from numerics.model.deciding.rules import Asked, rules_of, spec_of
from numerics.model.extras import missing
from numerics.model.looking.places import Place, memory_footprint, parameters, replace
from numerics.model.looking.trace import Use
from numerics.model.looking.without_example import looked_at
from numerics.model.wrapped.eager import show_packed
from numerics.pytorch.qtensor import FLOATS, TensorQTensor, rebuilt
from numerics.quantization import quantize
from numerics.tensor.parts import PARTS
from numerics.tensor.spec import QuantSpec
from numerics.view.text import folded

try:
    from transformers.core_model_loading import ConversionOps
    from transformers.quantizers import HfQuantizer
    from transformers.quantizers.auto import register_quantization_config, register_quantizer
    from transformers.quantizers.quantizers_utils import should_convert_module
    from transformers.utils.quantization_config import QuantizationConfigMixin
except ImportError as wrong:
    raise missing(__name__, wrong) from wrong

METHOD = "numerics"
VERSION = 1  # of what config.json and the files' metadata say
METADATA = "numerics_hf"  # the key of the text in the files' metadata
MARK = "_numerics_"  # between a parameter's name and its part: no boundary, where transformers ends names


@register_quantization_config(METHOD)
class NumericsConfig(QuantizationConfigMixin):
    """How `from_pretrained` quantizes a model's weights: one spec for all, and rules for others.

    spec: a format, its name, or a QuantSpec, which says scheme, symmetry and rounding too.  An axis of -1
    (the default) follows the use: it is the one that is summed over, input features or input channels.
    rules: a table of patterns of names of parameters or of modules (`*`, `?`, `[abc]`, or `re:` and a
    regular expression that names begin with) and what they get: a format, a QuantSpec, or None for float.
    The first that matches holds.  modules_to_not_convert: names as transformers has them, for float, after
    the rules.

    Without a rule the weights of linear layers, of convolutions and of experts (three axes) are quantized;
    embeddings, the output layer and what is tied to it stay float, and so do further parameters of two and
    more axes, which a warning names.  Raises NumericsError for arguments that it does not have, and when a
    model is loaded, for patterns that match nothing or keep what stays float anyway, and for tied parameters
    that are told different things.

    >>> NumericsConfig("int4", rules={"lm_head": "int8"}).to_dict()["rules"]
    {'lm_head': '{"dtype": "int8", "scheme": "per_tensor()"}'}
    """

    def __init__(
        self, spec: Any = None, rules: Mapping[str, Any] | None = None,
        modules_to_not_convert: Sequence[str] | None = None, **others: Any,
    ) -> None:  # fmt: skip
        self.quant_method = METHOD
        version = others.pop("version", VERSION)
        if others.pop("quant_method", METHOD) != METHOD or version != VERSION:
            raise NumericsError(f"a configuration of version {said(version)}; this one reads {VERSION}")
        for name in others:
            known = ("spec", "rules", "modules_to_not_convert")
            raise NumericsError(
                f"NumericsConfig has no argument {name!r};{hint(name, known)} allowed: {', '.join(known)}; "
                "what belongs to a format is said by spec=nx.QuantSpec(...)"
            )
        if spec is None:
            raise NumericsError("NumericsConfig needs a format, such as NumericsConfig('mx6')")
        self.spec = _spec(spec)
        self.rules = _rules(rules)
        self.modules_to_not_convert = None if modules_to_not_convert is None else list(modules_to_not_convert)

    def to_dict(self) -> dict[str, Any]:
        """Returns what `config.json` says of it.

        Specs are texts: of tables with a `dtype` transformers makes all numbers texts.
        """
        return {
            "quant_method": METHOD, "version": VERSION, "spec": self.spec.text,
            "rules": {where: spec and spec.text for where, spec in self.rules.items()},
            "modules_to_not_convert": self.modules_to_not_convert,
        }  # fmt: skip

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        yield from self.to_dict().items()


def _spec(came: Any) -> QuantSpec:
    """A spec from whatever names one, and from the text that config.json has."""
    if isinstance(came, str) and came.startswith("{"):
        came = QuantSpec.parse(came)
    return cast(QuantSpec, spec_of("spec", came))


def _rules(came: Any) -> dict[str, QuantSpec | None]:
    """The rules: of patterns, since config.json holds no classes, and of weights."""
    if came is not None and not isinstance(came, Mapping):
        raise NumericsError(f"rules are a table of patterns and formats, not {said(came)}")
    found = {}
    for where, what in (came or {}).items():
        if not isinstance(where, str):
            raise NumericsError(f"a rule is for a pattern of names, such as '*.q_proj', not {said(where)}")
        found[where] = None if what is None else _spec(what)
    rules_of(found)  # which refuses what is no pattern
    return found


# ---- which parameters ----------------------------------------------------------------------------------


@dataclass
class Choice:
    """What each parameter of two and more axes gets, by each of its names; None is float.

    left: those that stay float though nobody says so.  routers: those that no rule names, and that are
    quantized all the same.
    """

    specs: dict[str, QuantSpec | None]
    left: list[str]
    routers: list[str]


UNTOLD = "untold"
Told = QuantSpec | str | None


def choose(model: Any, config: NumericsConfig) -> Choice:
    """Returns what a transformers model's parameters get; raises NumericsError as NumericsConfig says."""
    places = {name: place for name, place in parameters(model).items()
              if place.tensor.ndim >= 2 and place.tensor.dtype in FLOATS}  # fmt: skip
    uses = looked_at(model).uses
    told, axes = _told(places, config), _axes(places, uses)
    output = model.get_output_embeddings()
    usual = {name for name, axis in axes.items() if axis is not None and places[name].module is not output}
    specs: dict[str, QuantSpec | None] = {}
    for names in _tied(model, places):
        spec = _of_one(names, told, config.spec if usual.issuperset(names) else None)
        for name in names:
            shape = tuple(places[name].tensor.shape)
            outputs = outputs_of(uses.get(name, ()))
            specs[name] = None if spec is None else of_weight(spec, axes.get(name), shape, outputs)
    _check_acting(places, config, usual, set(places) - axes.keys())
    left = [name for name, spec in specs.items()
            if spec is None and told[name] is UNTOLD and name not in axes]  # fmt: skip
    chosen = routers({name: tuple(place.tensor.shape) for name, place in places.items()})
    return Choice(specs, left, [n for n in places if n in chosen and specs[n] and told[n] is UNTOLD])


def _of_one(names: Sequence[str], told: Mapping[str, Told], usual: QuantSpec | None) -> QuantSpec | None:
    """What a parameter of those names gets; raises NumericsError where they are told different things."""
    found = {told[name] for name in names} - {UNTOLD}
    if len(found) > 1:
        raise NumericsError(f"{' and '.join(names)} are tied, and the rules tell them different things")
    return cast(QuantSpec | None, found.pop()) if found else usual


def _told(places: Mapping[str, Place], config: NumericsConfig) -> dict[str, Told]:
    """What the rules and modules_to_not_convert say of each; raises NumericsError for what has no effect."""
    asked, kept = Asked(rules_of(config.rules)), config.modules_to_not_convert or ()
    idle, found = set(kept), {}
    for name, place in places.items():
        owner = name.rpartition(".")[0]
        rule = asked.rule("weights", [name], [(owner, place.module)])
        keeping = {
            where for where in kept if not all(should_convert_module(n, [where]) for n in (name, owner))
        }
        idle -= keeping
        found[name] = rule.specs["weights"] if rule else None if keeping else UNTOLD
    names = [*places, *{name.rpartition(".")[0]: None for name in places}]
    asked.check(names)
    if idle:
        raise NumericsError(
            f"modules_to_not_convert: no parameter of two and more axes matches {', '.join(sorted(idle))}"
        )
    return found


def _check_acting(
    places: Mapping[str, Place], config: NumericsConfig, usual: set[str], undecided: set[str]
) -> None:
    """Raises NumericsError for rules that keep only what stays float; warns of such modules_to_not_convert.

    usual: what is quantized where nobody says otherwise.  undecided: what a warning names.
    """
    asked = Asked(rules_of(config.rules))
    for name, place in places.items():
        where: Any = ("weights", [name], [(name.rpartition(".")[0], place.module)])
        rule = asked.rule(*where)
        if rule is None:
            continue
        other = asked.next(rule, *where)
        spec = config.spec if name in usual else None
        reason = "undecided" if name in undecided else "an embedding, a norm or the head"
        without: Decided = (other.specs["weights"], f"rule {other.said}") if other else (spec, reason)

        def told_without(told: Decided = without) -> Decided:
            return told

        note_effect(rule, rule.specs["weights"], name, told_without)
    asked.check_acting()
    told = [*usual, *undecided, *(name.rpartition(".")[0] for name in (*usual, *undecided))]
    idle = [where for where in config.modules_to_not_convert or ()
            if all(should_convert_module(name, [where]) for name in told)]  # fmt: skip
    if idle:
        warn(f"modules_to_not_convert: {', '.join(idle)} would stay float without being named")


def _axes(places: Mapping[str, Place], seen: Mapping[str, Sequence[Use]]) -> dict[str, int | None]:
    """The axis, from the end, that products sum over, None for tables of rows and norms; no others."""
    found: dict[str, int | None] = {}
    for name, uses in seen.items():
        if name in places:
            axis = next((use.axis for use in uses if use.role == "factor"), None)
            found[name] = None if axis is None else axis - places[name].tensor.ndim
    for name, (module, _, tensor) in places.items():
        experts = (
            getattr(module, "num_experts", None) == tensor.shape[0] or "Experts" in type(module).__name__
        )
        if name not in found and tensor.ndim == 3 and experts:  # one behind the other
            found[name] = -2 if getattr(module, "is_transposed", False) else -1
    return found


def _tied(model: Any, places: Mapping[str, Place]) -> list[list[str]]:
    """The names of each parameter; those that transformers will tie when it has loaded them are one."""
    sources = getattr(model, "all_tied_weights_keys", None) or {}
    groups: dict[object, list[str]] = {}
    for name in places:
        source = sources.get(name, name)
        groups.setdefault(id(places[source].tensor) if source in places else source, []).append(name)
    return list(groups.values())


# ---- loading and saving ----------------------------------------------------------------------------------


class Quantize(ConversionOps):
    """Quantizes what has just been loaded."""

    def __init__(self, quantizer: NumericsHfQuantizer) -> None:
        self.quantizer = quantizer

    def convert(
        self, input_dict: dict[str, Any], *_: Any, full_layer_name: str = "", **others: Any
    ) -> dict[str, Any]:
        """Returns Parameters by their names; of several tensors those that the choice has stay float."""
        found: dict[str, Any] = {}
        for key, came in input_dict.items():
            name = key if key in self.quantizer.specs else full_layer_name
            value, spec = _single(came), self.quantizer.specs.get(name)
            made: Any = value if spec is None else quantize(value, spec)
            found[name] = made if spec is None else nn.Parameter(made, requires_grad=False)
        return found


class Deserialize(ConversionOps):
    """Makes a quantized Parameter of its parts."""

    def __init__(self, quantizer: NumericsHfQuantizer) -> None:
        self.hf_quantizer = quantizer  # the name by which transformers knows not to convert types

    def convert(
        self, input_dict: dict[str, Any], *_: Any, full_layer_name: str = "", model: Any = None, **others: Any
    ) -> dict[str, Any]:
        """Returns the Parameter by its name, in the model's float type."""
        parts = {key.rpartition(MARK)[2]: _single(came) for key, came in input_dict.items()}
        spec, shape, kind = self.hf_quantizer.told(full_layer_name, model)
        made = rebuilt(spec, tuple(shape), kind, [parts.get(part) for part in PARTS], False)
        wanted = model.get_parameter(full_layer_name).dtype
        found = made if made.dtype == wanted else made.to(wanted)
        if not isinstance(found, TensorQTensor):
            raise NumericsError(
                f"{full_layer_name} stands for {kind} and has other bits in {wanted}; "
                f"load it with dtype=torch.{kind}"
            )
        return {full_layer_name: nn.Parameter(found, requires_grad=False)}


def _single(came: Any) -> Any:
    return came[0] if isinstance(came, list) else came


@register_quantizer(METHOD)
class NumericsHfQuantizer(HfQuantizer):
    """What transformers calls while it loads and saves a model with a NumericsConfig."""

    requires_calibration = False
    quantization_config: NumericsConfig

    def __init__(self, quantization_config: NumericsConfig, **options: Any) -> None:
        super().__init__(quantization_config, **options)
        self.specs: dict[str, QuantSpec | None] = {}
        self._said: dict[str, Any] = {}

    def validate_environment(self, *_: Any, device_map: Any = None, **others: Any) -> None:
        """Raises NumericsError where parameters would be put on disk, as floats."""
        if isinstance(device_map, Mapping) and "disk" in device_map.values():
            raise NumericsError(
                "quantized parameters cannot be offloaded to disk; give a device_map without it"
            )

    def _process_model_before_weight_loading(
        self, model: Any, checkpoint_files: Any = None, **_: Any
    ) -> None:
        if self.pre_quantized:
            self._said = _metadata(checkpoint_files)
            return
        choice = choose(model, self.quantization_config)
        self.specs = choice.specs
        if not any(self.specs.values()):
            raise NumericsError(
                f"{type(model).__name__} has nothing to quantize by {self.quantization_config!r}"
            )
        if choice.left:
            warn(
                f"{folded(choice.left)} stay float: nobody says how they are used; rules={{name: None}} "
                "keeps them so, and rules={name: format} quantizes them"
            )
        if told := told_routers(choice.routers):
            warn(told)

    def _process_model_after_weight_loading(self, model: Any, **_: Any) -> Any:
        ours = (Deserialize, Quantize)  # not to be undone when the model is saved
        model._weight_conversions = [
            entry for entry in getattr(model, "_weight_conversions", None) or ()
            if not any(isinstance(op, ours) for op in getattr(entry, "operations", ()))
        ]  # fmt: skip
        model.get_memory_footprint = functools.partial(memory_footprint, model)  # which pickle takes
        show_packed(model)
        new = [name for name, place in parameters(model).items()
               if self.specs.get(name) and not isinstance(place.tensor, TensorQTensor)]  # fmt: skip
        if new:
            warn(f"{folded(new)} stay float: the checkpoint does not have them, and they begin anew")
        return model

    def param_needs_quantization(self, model: Any, param_name: str, **_: Any) -> bool:
        """Is it a parameter that is quantized as it is loaded?"""
        return not self.pre_quantized and self.specs.get(param_name) is not None

    def param_element_size(self, model: Any, param_name: str, param: Tensor) -> float:
        """Returns bytes a value, scales included: what decides which layers fit on a device."""
        spec = self.specs.get(param_name)
        if spec is None or not param.numel():
            return param.element_size()
        return stored_bytes(spec, tuple(param.shape)) / param.numel()

    def get_quantize_ops(self) -> Quantize:
        """What turns a loaded tensor into a quantized one."""
        return Quantize(self)

    @property
    def serialized_names(self) -> dict[str, list[str]]:
        """The names of the parts that a quantized parameter has in the file, by the last part of its name."""
        leaves = {name.rpartition(".")[2] for name in self._said}
        return {leaf: [f"{leaf}{MARK}{part}" for part in PARTS] for leaf in sorted(leaves)}

    def get_load_operations(self) -> dict[str, Any]:
        """What makes parameters of a quantized file's tensors."""
        return {"deserialize": Deserialize}

    def told(self, name: str, model: Any) -> Any:
        """Spec, shape and float type of a parameter, as the file says; with or without the base's prefix."""
        prefix = f"{model.base_model_prefix}."
        for known in (name, prefix + name, name.removeprefix(prefix)):
            if known in self._said:
                return self._said[known]
        raise NumericsError(f"the metadata of the checkpoint does not say what {name} is")

    def get_state_dict_and_metadata(self, model: Any) -> tuple[dict[str, Any], dict[str, str]]:
        """Returns plain tensors by name, and the text that says what they are; of tied parameters one."""
        flat: dict[str, Any] = {}
        told: dict[str, Any] = {}
        every, sources = parameters(model), getattr(model, "all_tied_weights_keys", None) or {}
        for name, came in model.state_dict().items():
            if not isinstance(came, TensorQTensor):
                flat[name] = came
                continue
            source = every.get(sources.get(name, ""))
            if source is not None and source.tensor is every[name].tensor:
                continue
            told[name] = (came.spec.text, tuple(came.shape), came.original)
            flat |= {
                f"{name}{MARK}{part}": getattr(came, part)
                for part in PARTS
                if getattr(came, part) is not None
            }
        return flat, {METADATA: json.dumps({"version": VERSION, "tensors": told}), "format": "pt"}

    def _dequantize(self, model: Any, dtype: Any = None) -> Any:
        """The values in the place of quantized parameters, tied ones as one."""
        places = parameters(model).values()
        quantized = {
            id(place.tensor): place.tensor for place in places if isinstance(place.tensor, TensorQTensor)
        }
        replace(places, {key: nn.Parameter(q.dequantize(dtype)) for key, q in quantized.items()})
        model.__dict__.pop("get_memory_footprint", None)
        return model

    def is_serializable(self) -> bool:
        """It can be saved."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Quantized parameters do not learn."""
        return False


def _metadata(files: Sequence[str] | None) -> dict[str, Any]:
    """What the files of a checkpoint say of its quantized parameters."""
    found: dict[str, Any] = {}
    for file in files or ():
        if not str(file).endswith(".safetensors"):
            raise NumericsError(f"{file}: quantized parameters are read from safetensors files only")
        text = Reader(file).metadata.get(METADATA)
        if text is None:
            raise NumericsError(
                f"{file} does not say how it is quantized: its metadata has no {METADATA!r}, which is lost "
                "where other tools write files anew; give the folder that save_pretrained wrote"
            )
        found |= _tensors_said(file, text)
    if not found:
        raise NumericsError("a quantized checkpoint is read from safetensors files, and there are none")
    return found


def _tensors_said(file: str, text: str) -> dict[str, Any]:
    try:
        facts = json_in(text)
        if facts["version"] != VERSION:
            raise NumericsError(f"{file} is of version {said(facts['version'])}; this one reads {VERSION}")
        return {name: (spec, shape, kind) for name, (spec, shape, kind) in facts["tensors"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as wrong:
        if isinstance(wrong, NumericsError):
            raise
        raise NumericsError(f"{file}: what it says of its quantization cannot be read: {wrong!r}") from wrong
