"""QuantSpec: how tensors are quantized, as one record of options that fit together (docs/formats.md §6)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any, cast

from numerics.backends.host.quantizing import AffineOptions
from numerics.backends.partition import Blocking, Partition, check_axis
from numerics.formats.block import Block, no_tensor_scale
from numerics.formats.dtype import Dtype, Element
from numerics.formats.errors import NumericsError, integer, one_of, said, truth
from numerics.formats.protocol import Given
from numerics.formats.registry import dtype as find_dtype
from numerics.formats.rounding import SCALE_RULES, check_rounding
from numerics.formats.text import facts_in, read, spelled
from numerics.tensor.scheme import Scheme, partition_of, per_tensor

SCALE_TYPES = ("float32", "float", "float16", "bfloat16", "pof2")
OWN_TYPE = {"float64": "scale_type='float' is the type of the tensor itself, float64 too;"}
ZERO_POINT_TYPES = ("int32", "float32")


@dataclass(frozen=True, init=False, repr=False)
class QuantSpec:
    """How tensors are quantized: the options of `quantize`, checked once and kept together.

    dtype, scheme, symmetric, scale_type, zero_point_type, rounding, scale_rule, axis: as for `quantize`,
    which takes a QuantSpec in their place, as `fake_quantize` and the observers do.  The attributes say
    what holds: `scheme` is None for block formats, `axis` for the others.  scaled: False where a wide
    float is cast, with the scale 1.  Raises NumericsError for options that contradict each other.

    >>> spec = QuantSpec("int4", scheme="per_group(128)", symmetric=False)
    >>> spec, spec.replace(dtype="uint4").dtype
    (QuantSpec('int4', scheme='per_group(128, axis=-1)', symmetric=False), uint4)
    """

    dtype: Dtype
    scheme: Scheme | None
    symmetric: bool = True
    scale_type: str = "float32"
    zero_point_type: str = "int32"
    rounding: str = "half_even"
    scale_rule: str = "floor"
    axis: int | None = None
    scaled: bool = True

    def __init__(
        self,
        dtype: Any,
        *,
        scheme: Scheme | str | None = None,
        symmetric: bool = True,
        scale_type: str | None = None,
        zero_point_type: str = "int32",
        rounding: str = "half_even",
        scale_rule: str = "floor",
        axis: int = -1,
    ) -> None:
        found = find_dtype(dtype)
        scaled = scheme is not None or scale_type is not None or not getattr(found, "wide", False)
        scale_type = one_of(
            "scale type", "float32" if scale_type is None else scale_type, SCALE_TYPES, OWN_TYPE
        )
        zero_point_type = one_of("zero point type", zero_point_type, ZERO_POINT_TYPES)
        scale_rule = one_of("scale rule", scale_rule, SCALE_RULES)
        symmetric, axis = truth("symmetric", symmetric), integer("axis", axis)
        blocked = isinstance(found, Block)
        given = {"scheme": scheme, "symmetric": symmetric, "scale_type": scale_type,
                 "zero_point_type": zero_point_type, "scale_rule": scale_rule, "axis": axis}  # fmt: skip
        refuse(found, given, FOR_ELEMENTS if blocked else FOR_BLOCKS)
        if not blocked and found.kind != "integer":
            refuse(found, given, FOR_INTEGERS)
        chosen = None if blocked else Scheme.parse(per_tensor() if scheme is None else scheme)
        self.__dict__.update(
            given, dtype=found, scheme=chosen, rounding=check_rounding(rounding),
            axis=axis if blocked else None, scaled=scaled,
        )  # fmt: skip

    def __repr__(self) -> str:
        if not isinstance(spelled(self.dtype), str):
            return f"QuantSpec.parse({self.text!r})"
        options = {**self.options, "scheme": self.scheme and repr(self.scheme)}
        given = [f"{name}={options[name]!r}" for name in self.options if name != "dtype"]
        return f"QuantSpec({', '.join([repr(self.dtype.name), *given])})"

    def __reduce__(self) -> tuple[Any, ...]:
        return QuantSpec.parse, (self.text,)

    @property
    def options(self) -> dict[str, Any]:
        """What it is made with, without what says nothing."""
        facts = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        silent = facts.pop("scaled", True) and not getattr(self.dtype, "wide", False)
        if not self.scaled or (silent and self.scheme == per_tensor()):  # a scheme asks for a scale
            del facts["scheme"]
        return {name: fact for name, fact in facts.items() if fact is not None and fact != -1}

    def replace(self, **changes: Any) -> QuantSpec:
        """The same with other options; raises NumericsError where they do not fit together.

        >>> QuantSpec("int4").replace(symmetric=False, rounding="floor")
        QuantSpec('int4', symmetric=False, rounding='floor')
        """
        known = {f.name for f in fields(self)} - {"scaled"}
        for name in changes:
            one_of("option of a QuantSpec", name, sorted(known))
        return QuantSpec(**{**self.options, **changes})

    @cached_property
    def text(self) -> str:
        """The options as JSON, without what says nothing: an operator's argument, a word of a pickle.

        >>> QuantSpec("int4", scheme="per_group(32)").text
        '{"dtype": "int4", "scheme": "per_group(32, axis=-1)"}'
        """
        facts = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        facts |= {"dtype": spelled(self.dtype), "scheme": self.scheme and repr(self.scheme)}
        if not facts.pop("scaled", True):  # a scheme would ask for a scale
            del facts["scheme"]
        return json.dumps({name: value for name, value in facts.items() if value is not None})

    @staticmethod
    def parse(text: str) -> QuantSpec:
        """Returns the spec of a text that `text` gave; raises NumericsError for another."""
        if not isinstance(text, str):
            raise NumericsError(f"{said(text)} is not the text of a recipe")
        return _parsed(text)

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, f.name) for f in fields(self)))

    def __hash__(self) -> int:
        return self._hash  # once: what a tensor consists of is looked up by it in every call

    @cached_property
    def element(self) -> Element:
        """The format, where it is one of single numbers."""
        return cast(Element, self.dtype)

    @cached_property
    def block(self) -> Block:
        """The format, where it is one of blocks."""
        return cast(Block, self.dtype)

    @cached_property
    def blocked(self) -> bool:
        """Is it a format of blocks?"""
        return isinstance(self.dtype, Block)

    @cached_property
    def scheme_of_elements(self) -> Scheme:
        """The scheme, where the format is one of single numbers."""
        assert self.scheme is not None
        return self.scheme

    def partition(self, shape: tuple[int, ...]) -> Partition:
        """Which elements of a tensor share a scale."""
        try:
            return partition_of(self.scheme_of_elements, shape)
        except TypeError:  # a list, or sizes that torch.compile does not know yet
            return self.scheme_of_elements.partition(shape)

    def stored_scale_type(self, original: str) -> str:
        """The type of the scales of a tensor of that type: `float` means its own."""
        own = "float64" if original == "python" else original
        return own if self.scale_type == "float" else self.scale_type

    def affine_options(self, original: str) -> AffineOptions:
        """What the backend must know to find a scale."""
        return AffineOptions(self.symmetric, self.stored_scale_type(original), self.zero_point_type)

    def packed_bytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of the codes of a tensor of that shape."""
        if not self.blocked or self.block.scale_beside:
            bits = self.block.element_bits if self.blocked else self.element.bits
            return -(-math.prod(shape) * bits // 8)
        return self.blocking(shape).count * self.block.bytes_per_block

    def shared_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the scales of a tensor of that shape."""
        return self.blocking(shape).shared_shape if self.blocked else self.partition(shape).shared

    def blocking(self, shape: tuple[int, ...]) -> Blocking:
        """The blocks of a tensor of that shape."""
        return Blocking(shape, check_axis(self.axis, shape), self.block.block)

    def with_scheme(self, scheme: Scheme) -> QuantSpec:
        """The same for elements that share their scales otherwise."""
        return self._with(scheme=scheme, scaled=self.scaled or scheme != self.scheme)

    def with_scale(self) -> QuantSpec:
        """The same with a scale: that of a cast is given."""
        return self if self.scaled else self._with(scaled=True)

    def with_axis(self, axis: int) -> QuantSpec:
        """The same for blocks along another axis."""
        return self._with(axis=axis)

    def with_dtype(self, dtype: Dtype) -> QuantSpec:
        """The same for another format, of which it keeps what that can have."""
        return self._with(dtype=dtype, **({} if dtype.kind in ("integer", "block") else FOR_INTEGERS))

    def _with(self, **facts: Any) -> QuantSpec:
        """The same with other facts, which are known to fit."""
        made = object.__new__(QuantSpec)
        made.__dict__.update({f.name: facts.get(f.name, getattr(self, f.name)) for f in fields(self)})
        return made

    def check_given(self, given: Given) -> None:
        """Raises NumericsError for scales that are given to a format that finds them itself, or has none."""
        scale, zero_point, tensor_scale = given
        if tensor_scale is not None and not (self.blocked and self.block.has_tensor_scale):
            raise no_tensor_scale(self.dtype)
        if self.blocked:
            refuse(
                self.dtype, {"scale": scale, "zero_point": zero_point}, dict.fromkeys(("scale", "zero_point"))
            )


@lru_cache(maxsize=1024)
def _parsed(text: str) -> QuantSpec:
    try:
        facts = facts_in(text, "a recipe")
        return QuantSpec(read(facts.pop("dtype")), **facts)
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as wrong:
        raise NumericsError(f"{said(text)} is not the text of a recipe: {wrong!s:.400}") from wrong


OPTIONS = ("scheme", "symmetric", "scale_type", "zero_point_type", "rounding", "scale_rule", "axis")
SILENT = (None, True, None, "int32", "half_even", "floor", -1)
"""What they are where nobody asks for anything."""


@lru_cache(maxsize=1024, typed=True)  # 1.0 and True equal 1, and are refused
def _known(given: bool, dtype: Any, *options: Any) -> QuantSpec:
    if not isinstance(dtype, QuantSpec):
        made = QuantSpec(dtype, **dict(zip(OPTIONS, options, strict=True)))
    else:
        refuse_beside(dict(zip(OPTIONS, options, strict=True)), dict(zip(OPTIONS, SILENT, strict=True)))
        made = dtype
    return made.with_scale() if given else made


def spec_of(given: bool, dtype: Any, *options: Any) -> QuantSpec:
    """A QuantSpec, or one of a format and OPTIONS in their order, made once for each set.

    given: is a scale given?
    """
    try:
        return _known(given, dtype, *options)
    except NumericsError:
        raise
    except Exception:  # what cannot be hashed or compared: made again, to be refused in words
        return _known.__wrapped__(given, dtype, *options)


def spec_facts(name: str, *asked: Any) -> str:
    """A fact of what `spec_of` gives: a constant for torch.compile."""
    fact: str = getattr(spec_of(*asked), name)
    return fact


# Options that a kind of format cannot have, with the defaults that say nothing.
FOR_ELEMENTS = {"scheme": None, "symmetric": True, "scale_type": "float32", "zero_point_type": "int32"}
FOR_BLOCKS = {"scale_rule": "floor", "axis": -1}
FOR_INTEGERS = {"symmetric": True, "zero_point_type": "int32"}
_WHY = {
    "block": "blocks have a size of their own and find their scales; allowed: axis=, scale_rule=, rounding=",
    "integer": "an integer format takes scheme=; axis= and scale_rule= belong to block formats",
    "float": "a float format takes scheme= and is symmetric; "
    "zero points belong to integers, axis= and scale_rule= to block formats",
}


def refuse_beside(given: Mapping[str, Any], silent: Mapping[str, Any]) -> None:
    """Raises NumericsError for options that are given beside a QuantSpec, which says them all."""
    for name, came in given.items():
        if came is not silent[name] and not (type(came) is type(silent[name]) and came == silent[name]):
            raise NumericsError(
                f"{name}={said(came)} beside a QuantSpec cannot be: it says all options; "
                f"give spec.replace({name}=...)"
            )


def refuse(dtype: Dtype, given: Mapping[str, Any], silent: Mapping[str, Any]) -> None:
    """Raises NumericsError for an option that is given though the format cannot have it."""
    for name, default in silent.items():
        came = given[name]
        if came is not default and not (type(came) is type(default) and came == default):
            raise NumericsError(f"{dtype}: {name}={said(came)} cannot be: {_WHY[dtype.kind]}")
