"""Recipe: the checked options of a quantization, which fit together (FORMATS §6)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Any, cast

import numpy as np

from numerics.backends.affine import AffineOptions, Partition
from numerics.backends.blocking import Blocking, check_axis
from numerics.formats.aliases import dtype as find_dtype
from numerics.formats.block import Block
from numerics.formats.dtype import Dtype, Element
from numerics.formats.errors import NumericsError, integer, one_of
from numerics.formats.rounding import SCALE_RULES, check_rounding
from numerics.scheme import Scheme, per_tensor
from numerics.spelling import facts_in, read, spelled

SCALE_TYPES = ("float32", "float", "float16", "bfloat16", "pof2")
ZERO_POINT_TYPES = ("int32", "float32")


@dataclass(frozen=True)
class Recipe:
    """How tensors are quantized: options that fit together.  scheme or axis is None: blocks have an axis."""

    dtype: Dtype
    scheme: Scheme | None
    symmetric: bool = True
    scale_type: str = "float32"
    zero_point_type: str = "int32"
    rounding: str = "half_even"
    scale_rule: str = "floor"
    axis: int | None = None

    @classmethod
    def make(
        cls,
        dtype: Any,
        *,
        scheme: Scheme | str | None = None,
        symmetric: bool = True,
        scale_type: str = "float32",
        zero_point_type: str = "int32",
        rounding: str = "half_even",
        scale_rule: str = "floor",
        axis: int = -1,
    ) -> Recipe:
        """The options of `quantize`, checked; raises NumericsError where they contradict each other."""
        found = find_dtype(dtype)
        one_of("scale type", scale_type, SCALE_TYPES)
        one_of("zero point type", zero_point_type, ZERO_POINT_TYPES)
        one_of("scale rule", scale_rule, SCALE_RULES)
        symmetric, axis = _bool("symmetric", symmetric), integer("axis", axis)
        blocked = isinstance(found, Block)
        given = {"scheme": scheme, "symmetric": symmetric, "scale_type": scale_type,
                 "zero_point_type": zero_point_type, "scale_rule": scale_rule, "axis": axis}  # fmt: skip
        refuse(found, given, FOR_ELEMENTS if blocked else FOR_BLOCKS)
        if not blocked and found.kind != "integer":
            refuse(found, given, FOR_INTEGERS)
        chosen = None if blocked else Scheme.parse(per_tensor() if scheme is None else scheme)
        return cls(found, chosen, symmetric, scale_type, zero_point_type,
                   check_rounding(rounding), scale_rule, axis if blocked else None)  # fmt: skip

    @cached_property
    def text(self) -> str:
        """The recipe as JSON, without what says nothing: an operator's argument, a word of a pickle.

        >>> Recipe.make("int4", scheme="per_group(32)").text
        '{"dtype": "int4", "scheme": "per_group(32, axis=-1)"}'
        """
        said = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        said |= {"dtype": spelled(self.dtype), "scheme": self.scheme and repr(self.scheme)}
        return json.dumps({name: value for name, value in said.items() if value is not None})

    @staticmethod
    @lru_cache(maxsize=1024)
    def parse(text: str) -> Recipe:
        """The inverse of `text`; raises NumericsError for another."""
        try:
            said = facts_in(text, "a recipe")
            return Recipe.make(read(said.pop("dtype")), **said)
        except (ValueError, KeyError, TypeError, AttributeError) as wrong:
            raise NumericsError(f"{text!r} is not the text of a recipe: {wrong}") from wrong

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
        if not self.blocked or self.block.family != "micro":
            bits = self.block.element_bits if self.blocked else self.element.bits
            return -(-math.prod(shape) * bits // 8)
        return self.blocking(shape).count * self.block.bytes_per_block

    def blocking(self, shape: tuple[int, ...]) -> Blocking:
        """The blocks of a tensor of that shape."""
        return Blocking(shape, check_axis(self.axis, shape), self.block.block)

    def with_scheme(self, scheme: Scheme) -> Recipe:
        """The same for elements that share their scales otherwise."""
        return replace(self, scheme=scheme)

    def with_axis(self, axis: int) -> Recipe:
        """The same for blocks along another axis."""
        return replace(self, axis=axis)

    def refuse_given(self, scale: Any, zero_point: Any) -> None:
        """Block formats find their scales themselves."""
        if self.blocked:
            given = {"scale": scale, "zero_point": zero_point}
            refuse(self.dtype, given, {"scale": None, "zero_point": None})


@lru_cache(maxsize=1024, typed=True)  # 1.0 and True equal 1, and are refused
def _known(*options: Any) -> Recipe:
    dtype, scheme, symmetric, scale_type, zero_point_type, rounding, scale_rule, axis = options
    return Recipe.make(
        dtype, scheme=scheme, symmetric=symmetric, scale_type=scale_type, zero_point_type=zero_point_type,
        rounding=rounding, scale_rule=scale_rule, axis=axis,
    )  # fmt: skip


def recipe_of(*options: Any) -> Recipe:
    """Recipe.make of all its options in their order, each set made once."""
    try:
        return _known(*options)
    except TypeError:  # what cannot be hashed: made again, to be refused in words
        return _known.__wrapped__(*options)


def recipe_text(*options: Any) -> str:
    """The text of the same: a constant for torch.compile."""
    return recipe_of(*options).text


def _bool(name: str, came: Any) -> bool:
    """The truth that came, NumPy's too."""
    if not isinstance(came, (bool, np.bool_)):
        raise NumericsError(f"{name}={came!r} is not allowed: True or False")
    return bool(came)


# Options that a kind of format cannot have, with the defaults that say nothing.
FOR_ELEMENTS = {"scheme": None, "symmetric": True, "scale_type": "float32", "zero_point_type": "int32"}
FOR_BLOCKS = {"scale_rule": "floor", "axis": -1}
FOR_INTEGERS = {"symmetric": True, "zero_point_type": "int32"}
_WHY = {
    "block": "a block format finds its own scales; allowed: axis, scale_rule, rounding",
    "integer": "an integer format takes a scheme; axis and scale_rule belong to block formats",
    "float": "a float format takes a scheme and is symmetric; "
    "zero points belong to integers, axis and scale_rule to block formats",
}


def refuse(dtype: Dtype, given: Mapping[str, Any], silent: Mapping[str, Any]) -> None:
    """Raises NumericsError for an option that is given though the format cannot have it."""
    for name, default in silent.items():
        if given[name] is not default and given[name] != default:
            raise NumericsError(f"{dtype}: {name}={given[name]!r} cannot be: {_WHY[dtype.kind]}")
