"""Recipe: the checked options of a quantization, which fit together (docs/formats.md §6)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Any, cast

from numerics.backends.host.affine import AffineOptions, Partition
from numerics.backends.partition import Blocking, check_axis
from numerics.formats.block import Block, no_tensor_scale
from numerics.formats.dtype import Dtype, Element
from numerics.formats.errors import NumericsError, integer, one_of, said, truth
from numerics.formats.registry import dtype as find_dtype
from numerics.formats.rounding import SCALE_RULES, check_rounding
from numerics.formats.text import facts_in, read, spelled
from numerics.tensor.scheme import Scheme, per_tensor

SCALE_TYPES = ("float32", "float", "float16", "bfloat16", "pof2")
OWN_TYPE = {"float64": "scale_type='float' is the type of the tensor itself, float64 too;"}
ZERO_POINT_TYPES = ("int32", "float32")


@dataclass(frozen=True)
class Recipe:
    """How tensors are quantized: options that fit together, as `quantize` takes them.

    Exactly one of two is set: scheme for formats of single numbers, axis for block formats.
    scaled: False for a plain cast, with the scale 1: what a wide float is where nobody asked for a scale.
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

    @classmethod
    def make(
        cls,
        dtype: Any,
        *,
        scheme: Scheme | str | None = None,
        symmetric: bool = True,
        scale_type: str | None = None,
        zero_point_type: str = "int32",
        rounding: str = "half_even",
        scale_rule: str = "floor",
        axis: int = -1,
    ) -> Recipe:
        """The options of `quantize`, checked; raises NumericsError where they contradict each other."""
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
        return cls(found, chosen, symmetric, scale_type, zero_point_type,
                   check_rounding(rounding), scale_rule, axis if blocked else None, scaled)  # fmt: skip

    @cached_property
    def text(self) -> str:
        """The recipe as JSON, without what says nothing: an operator's argument, a word of a pickle.

        >>> Recipe.make("int4", scheme="per_group(32)").text
        '{"dtype": "int4", "scheme": "per_group(32, axis=-1)"}'
        """
        facts = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        facts |= {"dtype": spelled(self.dtype), "scheme": self.scheme and repr(self.scheme)}
        if not facts.pop("scaled", True):  # a scheme would ask for a scale
            del facts["scheme"]
        return json.dumps({name: value for name, value in facts.items() if value is not None})

    @staticmethod
    def parse(text: str) -> Recipe:
        """Returns the recipe of a text that `text` gave; raises NumericsError for another."""
        if not isinstance(text, str):
            raise NumericsError(f"{said(text)} is not the text of a recipe")
        return _parsed(text)

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, f.name) for f in fields(self)))

    def __hash__(self) -> int:
        return self._hash  # once: what a tensor consists of is looked up by it in every call

    @property
    def element(self) -> Element:
        """The format, where it is one of single numbers."""
        return cast(Element, self.dtype)

    @property
    def block(self) -> Block:
        """The format, where it is one of blocks."""
        return cast(Block, self.dtype)

    @property
    def blocked(self) -> bool:
        """Is it a format of blocks?"""
        return isinstance(self.dtype, Block)

    @property
    def scheme_of_elements(self) -> Scheme:
        """The scheme, where the format is one of single numbers."""
        assert self.scheme is not None
        return self.scheme

    def partition(self, shape: tuple[int, ...]) -> Partition:
        """Which elements of a tensor share a scale."""
        return self.scheme_of_elements.partition(shape)

    def stored_scale_type(self, original: str) -> str:
        """The type of the scales of a tensor of that type: `float` means its own."""
        own = "float64" if original == "python" else original
        return own if self.scale_type == "float" else self.scale_type

    def options(self, original: str) -> AffineOptions:
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

    def with_scheme(self, scheme: Scheme) -> Recipe:
        """Returns the recipe of elements that share their scales otherwise."""
        return replace(self, scheme=scheme, scaled=self.scaled or scheme != self.scheme)

    def with_scale(self) -> Recipe:
        """Returns the recipe with a scale: that of a cast is given."""
        return self if self.scaled else replace(self, scaled=True)

    def with_axis(self, axis: int) -> Recipe:
        """Returns the recipe of blocks along another axis."""
        return replace(self, axis=axis)

    def refuse_given(self, scale: Any, zero_point: Any, tensor_scale: Any = None) -> None:
        """Block formats find the scales of their blocks themselves; some of them have one of the tensor."""
        if tensor_scale is not None and not (self.blocked and self.block.has_tensor_scale):
            raise no_tensor_scale(self.dtype)
        if self.blocked:
            given = {"scale": scale, "zero_point": zero_point}
            refuse(self.dtype, given, {"scale": None, "zero_point": None})


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Recipe:
    try:
        facts = facts_in(text, "a recipe")
        return Recipe.make(read(facts.pop("dtype")), **facts)
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as wrong:
        raise NumericsError(f"{said(text)} is not the text of a recipe: {wrong!s:.400}") from wrong


@lru_cache(maxsize=1024, typed=True)  # 1.0 and True equal 1, and are refused
def _known(*options: Any) -> Recipe:
    dtype, scheme, symmetric, scale_type, zero_point_type, rounding, scale_rule, axis, given = options
    made = Recipe.make(
        dtype, scheme=scheme, symmetric=symmetric, scale_type=scale_type, zero_point_type=zero_point_type,
        rounding=rounding, scale_rule=scale_rule, axis=axis,
    )  # fmt: skip
    return made.with_scale() if given else made


def recipe_of(*options: Any) -> Recipe:
    """Recipe.make of all its options in their order, and whether a scale is given; each set made once."""
    try:
        return _known(*options)
    except NumericsError:
        raise
    except Exception:  # what cannot be hashed or compared: made again, to be refused in words
        return _known.__wrapped__(*options)


def recipe_text(*options: Any) -> str:
    """The text of the same: a constant for torch.compile."""
    return recipe_of(*options).text


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


def refuse(dtype: Dtype, given: Mapping[str, Any], silent: Mapping[str, Any]) -> None:
    """Raises NumericsError for an option that is given though the format cannot have it."""
    for name, default in silent.items():
        came = given[name]
        if came is not default and not (type(came) is type(default) and came == default):
            raise NumericsError(f"{dtype}: {name}={said(came)} cannot be: {_WHY[dtype.kind]}")
