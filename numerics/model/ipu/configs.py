"""What a quantized model for Ryzen AI is made of: the four configurations that its documents name.

Sources: Ryzen AI Software 1.8, `model_quantization.rst` (XINT8, A8W8, A16W8, BF16), `ops_support.rst` (which
operators each of them covers), `modelrun.rst` (BF16 is for stx, krk and newer; A8W8 and A16W8 belong to
the compiler of target X2); AMD Quark 0.13, quark/onnx/quantization/config (per-tensor weights in XINT8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from numerics.backends.ipu.devices import Device
from numerics.formats.arguments import keywords
from numerics.formats.errors import NumericsError, items_of, one_of, said
from numerics.observe import Observer, observer, observer_text

BIASES: Final = ("int32", "int8")
TYPES: Final = ("int8", "int16", "bfloat16")


@dataclass(frozen=True)
class Config:
    """How a model is quantized.

    name: which column of AMD's table of operators holds: xint8, a8w8, a16w8 or bf16.
    activations: int8, int16 or bfloat16.  weights: int8 or bfloat16.
    pof2: are scales powers of two?  Then the device only shifts, and the limits of shifts hold.
    observer: who finds the scales: a name from `nx.observe`, with its own options as in "percentile(99.9)";
        min_max where none is given.  Not for bfloat16, which has no scales.
    per_channel: has each output channel of a layer a scale of its own?  Not with pof2.
    bias: int32, at the scale of activation x weight; or int8 with a power of two of its own, as AMD Quark
        writes XINT8.
    shapes: input name -> its shape, where the model leaves sizes open.
    keep: names of nodes (as the report has them), or operators, that stay in float.  One that fits no node
        is refused when a model comes.

    >>> CONFIGS["xint8"].replace(observer="min_max", keep=("Add",)).keep
    ('Add',)
    """

    name: str
    activations: str
    weights: str
    pof2: bool
    observer: str | None = None
    per_channel: bool = False
    bias: str = "int32"
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        one_of("config", self.name, ("xint8", "a8w8", "a16w8", "bf16"))
        one_of("type of activations", self.activations, TYPES)
        one_of("type of weights", self.weights, ("int8", "bfloat16"))
        one_of("bias", self.bias, BIASES)
        if not isinstance(self.shapes, Mapping):
            raise NumericsError(f"shapes={said(self.shapes)}; allowed: a mapping of input name -> sizes")
        for name, shape in self.shapes.items():
            if not _is_shape(shape):
                raise NumericsError(f"shape {said(shape)} of input {said(name)}; allowed: integers above 0")
        self._check_keep()
        if self.floats:
            self._check_no_scales()
            return
        object.__setattr__(self, "observer", self.observer or "min_max")
        observer_text(self.observer)
        if self.pof2 and self.per_channel:
            raise NumericsError(
                f"{self.name}: weights of power-of-two scales share one a tensor: the device shifts all "
                "channels alike; per_channel=True is for a8w8 and a16w8"
            )
        if self.bias == "int8" and not self.pof2:
            raise NumericsError(f"{self.name}: a bias of int8 has a power of two; bias='int32' here")
        self._check_observer()

    def _check_observer(self) -> None:
        """Raises NumericsError for an observer that does not find scales of this kind."""
        try:
            observing(self, self.activations)
        except NumericsError as wrong:
            raise NumericsError(f"{self.name}: observer={self.observer!r}: {wrong}") from None

    def _check_keep(self) -> None:
        """Raises NumericsError for anything but names: a text would be taken letter by letter."""
        names = () if isinstance(self.keep, str) else tuple(items_of("keep", self.keep))
        if isinstance(self.keep, str) or not all(isinstance(name, str) and name for name in names):
            raise NumericsError(
                f"keep is {said(self.keep)}; allowed: a tuple of nodes' names and of operators, as in "
                "keep=('conv1', 'Softmax')"
            )
        object.__setattr__(self, "keep", names)

    def _check_no_scales(self) -> None:
        """Raises NumericsError for what only has a meaning where there are scales."""
        asked = [f"observer={self.observer!r}"] if self.observer is not None else []
        asked += [f"{name}=True" for name in ("pof2", "per_channel") if getattr(self, name)]
        if asked:
            raise NumericsError(
                f"{self.name}: {' and '.join(asked)} is about scales, which {self.activations} has none of; "
                "leave it out, or take xint8, a8w8 or a16w8"
            )

    @property
    def floats(self) -> bool:
        """Is nothing calibrated, since the types are floats?"""
        return self.activations == "bfloat16"

    @keywords
    def replace(self, **changed: Any) -> Config:
        """Returns the same with some fields changed; raises NumericsError for what is no field."""
        for name in changed:
            one_of("field of a Config", name, [each.name for each in fields(self)])
        return replace(self, **changed)


def _is_shape(came: Any) -> bool:
    """Sizes as a file has them; loading says which of them fit an input."""
    return isinstance(came, (tuple, list)) and all(type(n) is int and -(2**63) <= n < 2**63 for n in came)


def observing(config: Config, dtype: str, scheme: str | None = None) -> Observer:
    """Returns a new observer that finds scales of the configuration's kind; one where no scheme is given."""
    assert config.observer is not None, "of integers it is min_max by itself; bfloat16 is not observed"
    options = {"scheme": scheme} if scheme else {}
    return observer(config.observer, dtype, scale_type="pof2" if config.pof2 else "float32", **options)


CONFIGS: Final = {
    "xint8": Config("xint8", "int8", "int8", pof2=True, observer="pof2_mse"),
    "a8w8": Config("a8w8", "int8", "int8", pof2=False, per_channel=True),
    "a16w8": Config("a16w8", "int16", "int8", pof2=False, per_channel=True),
    "bf16": Config("bf16", "bfloat16", "bfloat16", pof2=False),
}
"""Name -> Config.  xint8 searches its powers of two for the least squared error, as Quark's MinMSE."""


def config_of(came: Any) -> Config:
    """The Config that came, or that of a name; raises NumericsError for anything else."""
    if isinstance(came, Config):
        return came
    if not isinstance(came, str):
        raise NumericsError(f"config is {said(came)}; allowed: a Config, or {', '.join(CONFIGS)}")
    return CONFIGS[one_of("config", came, CONFIGS)]


def check_device(config: Config, device: Device) -> None:
    """Raises NumericsError where the documents say that the device does not take the configuration."""
    if config.name == "bf16" and device.target == "X1":
        raise NumericsError(
            f"{device.name} runs no BF16 models: Ryzen AI has them on stx, krk and newer; "
            f"allowed for it: {', '.join(name for name in CONFIGS if name != 'bf16')}"
        )


def remark(config: Config, device: Device) -> str | None:
    """What the documents leave open about this pair, in words."""
    if device.target == "X1" and config.name in ("a8w8", "a16w8"):
        return f"documented for the compiler of target X2; of X1, which {device.name} needs, nothing is said"
    return None
