"""What a quantized file says of itself: one JSON text in safetensors' `__metadata__`.

A tensor `w` becomes plain tensors: `w` (codes), `w.scale`, `w.zero_point`, `w.tensor_scale`, as
far as its format has them.  The text names them and gives every fact that decoding needs.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, cast

from numerics.backends.partition import check_axis, fits_array
from numerics.files.chunks import Cut
from numerics.files.json_members import Members
from numerics.files.safetensors import Entry
from numerics.formats.block import Block
from numerics.formats.dtype import Dtype, Element
from numerics.formats.errors import NumericsError, said, truth
from numerics.formats.text import dtype_of, facts_of
from numerics.tensor.spec import QuantSpec

KEY = "numerics"  # of the text in __metadata__
VERSION = 2  # of the text
LAYOUT = 1  # of the bytes of mx4, mx6 and mx9: docs/layout.md
SCALES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "pof2": "U8"}
ORIGINALS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}

PADDING = 64  # times the values of a tensor, where its blocks are longer than their axis
MOST_PADDED = 1 << 22  # values that may always be


def already_quantized(path: object) -> str:
    """What is said of a file that is to be quantized, and was already."""
    return f"{path} was quantized already; give the original, or the floats that `numerics dequantize` writes"


@dataclass(frozen=True)
class Plan:
    """How one tensor is stored."""

    spec: QuantSpec
    shape: tuple[int, ...]
    original: str
    names: Mapping[str, str]  # codes, scale, zero_point, tensor_scale -> tensors of the file

    @property
    def dtype(self) -> Dtype:
        """Its format."""
        return self.spec.dtype

    @property
    def scale_type(self) -> str:
        """The type of its scales."""
        return self.spec.stored_scale_type(self.original)

    @property
    def axis(self) -> int | None:
        """The axis along which blocks or groups lie, from the front."""
        if not self.spec.blocked:
            partition = self.spec.partition(self.shape)
            return None if partition.size is None else partition.axis
        return check_axis(self.spec.axis, self.shape)

    @property
    def size(self) -> int | None:
        """Elements of a block or group; None where scales have no groups."""
        return self.dtype.block if isinstance(self.dtype, Block) else self.spec.scheme_of_elements.size

    def along(self, axis: int) -> Plan:
        """Returns a copy with its blocks or groups along another axis."""
        if self.spec.blocked:
            return replace(self, spec=self.spec.with_axis(axis))
        scheme = self.spec.scheme_of_elements
        return replace(self, spec=self.spec.with_scheme(replace(scheme, axis=axis)))

    @property
    def nbytes(self) -> int:
        """Bytes of all its parts."""
        return sum(part.nbytes for part in self.parts.values())

    def named(self, taken: set[str]) -> Plan:
        """Returns a copy whose parts beside the codes are named `<codes>.<part>`, with `_` until unused."""
        names = dict(self.names)
        for part in self.parts:
            if part != "codes":
                names[part] = f"{names['codes']}.{part}"
                while names[part] in taken:
                    names[part] += "_"
                taken.add(names[part])
        return replace(self, names=names)

    @cached_property
    def parts(self) -> dict[str, Entry]:
        """The tensors that it becomes, without their places."""
        shared = self.spec.shared_shape(self.shape)
        if isinstance(self.dtype, Block):
            return self._block_parts(self.dtype, shared)
        codes = self._codes(cast(Element, self.dtype).bits)
        found = {"codes": codes, "scale": Entry(SCALES[self.scale_type], shared)}
        if not self.spec.symmetric:
            kind = {"int32": "I32", "float32": "F32"}[self.spec.zero_point_type]
            found["zero_point"] = Entry(kind, shared)
        return found

    def _block_parts(self, d: Block, blocks: tuple[int, ...]) -> dict[str, Entry]:
        if not d.scale_beside:
            return {"codes": Entry("U8", (math.prod(blocks), d.bytes_per_block))}
        scale = Entry("U8" if d.scale_bits <= 8 else "U16", blocks)
        found = {"codes": self._codes(d.element_bits), "scale": scale}
        if d.has_tensor_scale:
            found["tensor_scale"] = Entry("F32", ())
        return found

    def _codes(self, bits: int) -> Entry:
        if bits in (8, 16):
            return Entry(f"U{bits}", self.shape)
        return Entry("U8", (-(-math.prod(self.shape) * bits // 8),))

    @property
    def padding(self) -> int:
        """How many times the values the blocks take that are worked on, where the last ones are short."""
        if not isinstance(self.dtype, Block):
            return 1
        length, block = self.shape[cast(int, self.axis)], self.dtype.block
        return max(-(-length // block) * block // max(length, 1), 1)

    def check_padding(self) -> None:
        """Raises NumericsError where blocks much longer than their axis would take memory without end."""
        if math.prod(self.shape) * self.padding > MOST_PADDED and self.padding > PADDING:
            raise NumericsError(
                f"blocks of {self.size} along axis {self.axis} of shape {self.shape} take {self.padding} "
                f"times its values; allowed: {PADDING} times; give another axis or a scheme"
            )

    @property
    def cut(self) -> Cut:
        """Where it may be cut."""
        axes, axis = tuple(range(len(self.shape))), self.axis
        if not isinstance(self.dtype, Block):
            partition, bits = self.spec.partition(self.shape), cast(Element, self.dtype).bits
            if partition.rows > 1:  # whole lines of blocks
                return Cut(self.shape, axes, bits, len(self.shape) - 2, partition.rows)
            return Cut(self.shape, axes, bits, axis, partition.size or 1)
        if not self.dtype.scale_beside:  # whole blocks, the blocked axis innermost
            order = sorted(axes, key=lambda a: a == axis)
            return Cut(self.shape, tuple(order), 8, axis, self.dtype.block)
        if self.spec.rows > 1:  # whole lines of tiles
            return Cut(self.shape, axes, self.dtype.element_bits, len(self.shape) - 2, self.spec.rows)
        return Cut(self.shape, axes, self.dtype.element_bits, axis, self.dtype.block)


# ---- the text -----------------------------------------------------------------------------------


def text_of(plans: Mapping[str, Plan], seed: int | None) -> str:
    """The JSON text of a file: its recipes, and which of them each tensor has."""
    specs: dict[QuantSpec, int] = {}
    tensors = {
        name: {
            "recipe": specs.setdefault(plan.spec, len(specs)), "shape": list(plan.shape),
            "original": plan.original, "names": dict(plan.names),
        }
        for name, plan in plans.items()
    }  # fmt: skip
    head = {"version": VERSION, "layout": LAYOUT, "seed": seed}
    return json.dumps({**head, "recipes": [_facts(spec) for spec in specs], "tensors": tensors})


def _facts(spec: QuantSpec) -> dict[str, Any]:
    """Every option, and every fact of the format: a file outlives its reader's tables."""
    facts = {f.name: getattr(spec, f.name) for f in fields(spec)}
    facts |= {"dtype": facts_of(spec.dtype), "scale_type": spec.known_scale_type, "scaled": spec.scaled}
    return facts | {"scheme": spec.scheme_text if spec.blocked else repr(spec.scheme_of_elements)}


def plans_of(text: str, entries: Mapping[str, Entry], file: object) -> dict[str, Plan]:
    """The plans that a file's text states; raises NumericsError where it is wrong or of a later version."""
    try:
        plans = _plans(Members(text), entries)
        parts = [part for plan in plans.values() for part in plan.names.values()]
        for name in plans.keys() & (entries.keys() - set(parts)):
            raise NumericsError(f"{name!r} stands for two tensors")
        if len(set(parts)) < len(parts):
            twice = next(part for part, count in Counter(parts).items() if count > 1)
            raise NumericsError(f"{twice!r} is part of two tensors")
    except NumericsError as wrong:
        raise NumericsError(f"{file}: what it says of its quantization is wrong: {wrong}") from None
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        ArithmeticError,
        RecursionError,
    ) as wrong:
        why = str(wrong) if isinstance(wrong, ValueError) else repr(wrong)
        raise NumericsError(f"{file}: what it says of its quantization cannot be read: {why}") from wrong
    return plans


def _plans(text: Members, entries: Mapping[str, Entry]) -> dict[str, Plan]:
    """Member by member, in the order in which `text_of` writes them."""
    head: dict[str, Any] = {}
    for name in text.names():
        if name == "recipes":
            _check_version(head)
            head[name] = _specs(text, len(entries))
        elif name == "tensors":
            _check_version(head)
            head[name] = {
                tensor: _plan(tensor, head["recipes"], facts, entries)
                for tensor, facts in text.members(Members.value)
            }
        else:
            head[name] = text.value()
    text.end()
    _check_version(head)
    if type(head.get("seed")) not in (int, type(None)):
        raise NumericsError(f"seed={said(head['seed'])} is not allowed: an integer, or null")
    return cast(dict[str, Plan], head["tensors"])


def _check_version(head: Mapping[str, Any]) -> None:
    versions = head["version"], head["layout"]
    if versions != (VERSION, LAYOUT) or any(type(version) is not int for version in versions):
        raise NumericsError(f"version and layout {said(versions)}; this one reads {(VERSION, LAYOUT)}")


def _specs(text: Members, most: int) -> list[QuantSpec]:
    """Every recipe makes its format known for good, so a file has no more of them than tensors."""
    found: list[QuantSpec] = []
    for facts in text.items():
        if len(found) == most:
            raise NumericsError(f"more recipes than the {most} tensors of the file")
        found.append(_spec(facts))
    return found


def _spec(facts: Any) -> QuantSpec:
    if not isinstance(facts, dict):
        raise NumericsError(f"a recipe is an object, not {said(facts)}")
    axis = {} if facts["axis"] is None else {"axis": facts["axis"]}
    keys = ("scheme", "symmetric", "scale_type", "zero_point_type", "rounding", "scale_rule")
    options = {key: facts[key] for key in keys}
    dtype = dtype_of(facts["dtype"])
    if not truth("scaled", facts.get("scaled", True)):  # a cast, which nothing asks to scale
        options |= {"scheme": None, "scale_type": None}
    elif dtype.kind == "block" and options["scale_type"] == "float32":  # as is written where there is none
        options["scale_type"] = None
    made = QuantSpec(dtype, **options, **axis)
    if facts.get("scaled", made.scaled) is not made.scaled:
        raise NumericsError(f"scaled={said(facts['scaled'])} of {made!r}; its facts say {made.scaled}")
    return made


def _plan(name: str, recipes: list[QuantSpec], facts: Any, entries: Mapping[str, Entry]) -> Plan:
    if not isinstance(facts, dict):
        raise NumericsError(f"{said(name)} is described by an object, not by {said(facts)}")
    shape, place, names, original = (facts[fact] for fact in ("shape", "recipe", "names", "original"))
    if type(place) is not int or not 0 <= place < len(recipes):
        raise NumericsError(f"recipe {said(place)} is not one of the {len(recipes)} that the file has")
    if not isinstance(names, dict):
        raise NumericsError(f"the parts of {said(name)} are named by an object, not by {said(names)}")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise NumericsError(f"{said(shape)} is no shape of {said(name)}")
    if original not in ORIGINALS.values():
        raise NumericsError(f"{said(name)} cannot stand for {said(original)}")
    if not fits_array(shape):
        raise NumericsError(f"the shape {said(shape)} of {said(name)} is more than an array can have")
    plan = Plan(recipes[place], tuple(shape), original, names)
    _check_parts(name, plan, entries)
    plan.check_padding()
    return plan


def _check_parts(name: str, plan: Plan, entries: Mapping[str, Entry]) -> None:
    parts = plan.parts
    for part, planned in parts.items():
        found = entries.get(plan.names[part])
        if found is None or (found.dtype, found.shape) != (planned.dtype, planned.shape):
            came = f"{found.dtype} {found.shape}" if found else "nothing"
            wanted = f"{planned.dtype} {planned.shape}"
            raise NumericsError(f"the {part} of {said(name)} should be {wanted}, not {came}")
    if plan.names.keys() != parts.keys():
        further = ", ".join(map(str, plan.names.keys() - parts.keys()))
        raise NumericsError(f"{said(name)} has no part {further}; its parts: {', '.join(parts)}")
