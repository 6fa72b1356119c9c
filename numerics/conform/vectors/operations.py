"""What a line of vectors asks and what is due: an operation of a format, with its options.

The truth is that of backends/reference, by look-up; nothing of it runs a kernel.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.executor import BlockFields, Codes
from numerics.backends.reference import lookup
from numerics.backends.reference.binary32 import QuantParams
from numerics.backends.reference.executor import ReferenceExecutor
from numerics.conform.inputs.draws import Drawing
from numerics.conform.inputs.strings import packed, unpacked
from numerics.conform.kinds import FINDS, OPERATIONS
from numerics.conform.scales.rule import Rule, ScalesClaim
from numerics.conform.task import GIVEN, LONGEST_BLOCK, UNROUNDED, Task, kinds_of
from numerics.conform.vectors.lines import Field, Layout
from numerics.formats.block import Block, ElementBlock
from numerics.formats.dtype import Element, Integer
from numerics.formats.errors import NumericsError, one_of, said
from numerics.formats.registry import dtype as find
from numerics.formats.rounding import DETERMINISTIC, BlockOptions, Draw, check_rounding
from numerics.tensor.spec import spec_with

STRING = 13  # codes of a line that is packed: whole bytes, and one that is not full
GROUP = 16  # numbers that share a scale, where nobody says how many
INF = np.uint32(0x7F800000)
MAGNITUDE = np.uint32(0x7FFFFFFF)

Fields = dict[str, NDArray[Any]]
"""The numbers of some lines, an array [lines, count] for each field; floats as the bits of float32."""

_exact = ReferenceExecutor()


@dataclass(frozen=True)
class Operation(ABC):
    """An operation of a format; the options that it does not have are None."""

    name: str
    rounding: str | None

    def __str__(self) -> str:
        return " ".join(self.facts.values())

    @property
    @abstractmethod
    def facts(self) -> dict[str, str]:
        """What a header must say for a verifier to need no options."""

    @property
    @abstractmethod
    def asked(self) -> tuple[Field, ...]:
        """The fields that a device is given."""

    @property
    @abstractmethod
    def answered(self) -> tuple[Field, ...]:
        """The fields that it has to fill in."""

    @abstractmethod
    def due(self, asked: Fields) -> Fields:
        """The exact answers."""

    @abstractmethod
    def nan(self, answers: Fields, name: str) -> NDArray[np.bool_]:
        """The numbers of a field of the answers that are NaN, whatever its bits; broadcasts to the field."""

    def differs(self, came: Fields, due: Fields, strict_nan: bool = False) -> dict[str, NDArray[np.bool_]]:
        """Where each field of the answers differs; NaN from NaN does not, unless strict_nan."""
        found = {}
        for name in (answer.name for answer in self.answered):
            wrong = came[name] != due[name]
            found[name] = wrong if strict_nan else wrong & ~(self.nan(came, name) & self.nan(due, name))
        return found

    @cached_property
    def layout(self) -> Layout:
        """A line with its answer."""
        return Layout(self.asked + self.answered)

    @property
    def draws(self) -> bool:
        """Do the vectors carry random bits?"""
        return self.rounding == "stochastic"


def whole(field: Field) -> Field:
    """An answer may be any digits: what stands for no code is wrong, not malformed."""
    return replace(field, bits=4 * field.digits)


def _floats(bits: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(bits, np.uint32).view(np.float32)


def _bits(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    return np.ascontiguousarray(values).view(np.uint32)


def _is_nan(bits: NDArray[Any]) -> NDArray[np.bool_]:
    return (bits & MAGNITUDE) > INF


@dataclass(frozen=True)
class DrawnOperation(Operation):
    """One that may draw; drawing: how."""

    drawing: Drawing = field(default=GIVEN, kw_only=True)

    @property
    def _draw(self) -> str | None:
        return self.drawing.spelling if self.draws else None


@dataclass(frozen=True)
class ElementOperation(DrawnOperation):
    """An operation on single numbers: `input code`, `code value`, `input value`."""

    dtype: Element
    overflow: str | None

    @property
    def facts(self) -> dict[str, str]:
        """Format, operation, rounding, overflow policy, and how it draws."""
        known = {"format": self.dtype.name, "operation": self.name, "rounding": self.rounding,
                 "overflow": self.overflow, "draw": self._draw}  # fmt: skip
        return {name: fact for name, fact in known.items() if fact is not None}

    @property
    def asked(self) -> tuple[Field, ...]:
        """A float32 or a code, and the random bits where they are drawn."""
        if self.name == "decode":
            return (Field("code", self.dtype.bits),)
        if self.draws:
            return Field("input", 32), Field("random", self.drawing.bits)
        return (Field("input", 32),)

    @property
    def answered(self) -> tuple[Field, ...]:
        """A code or a float32."""
        return (whole(Field("code", self.dtype.bits)),) if self.name == "encode" else (Field("value", 32),)

    def due(self, asked: Fields) -> Fields:
        """By the breakpoints, and by the table of values."""
        codes = asked["code"] if self.name == "decode" else self._encoded(asked)
        if self.name == "encode":
            return {"code": codes}
        return {"value": _bits(_exact.decode(codes.reshape(-1), self.dtype)).reshape(codes.shape)}

    def _encoded(self, asked: Fields) -> NDArray[Any]:
        assert self.rounding is not None
        assert self.overflow is not None
        x, random = _floats(asked["input"]), asked.get("random")
        if self.drawing != GIVEN:
            return self._task.codes(x, random)
        return lookup.encode(x, self.dtype, self.rounding, self.overflow, random)

    @property
    def _task(self) -> Task:
        """The encoder, as `check` judges it."""
        return Task.of(self.dtype, rounding=str(self.rounding), overflow=self.overflow,
                       draw=self.drawing.spelling)  # fmt: skip

    def nan(self, answers: Fields, name: str) -> NDArray[np.bool_]:
        """A code without a value is none."""
        if "value" in answers:
            return _is_nan(answers["value"])
        return np.isin(answers["code"], _nan_codes(self.dtype))


@lru_cache(maxsize=64)
def _nan_codes(dtype: Element) -> Codes:
    """All codes that are NaN."""
    every = every_code(dtype)
    return every[np.isnan(_exact.decode(every, dtype))]


def every_code(dtype: Element) -> Codes:
    """0 .. 2**bits - 1."""
    codes: Codes = np.arange(1 << dtype.bits).astype(dtype.code_dtype)
    return codes


@dataclass(frozen=True)
class BlockOperation(DrawnOperation):
    """Of blocks, one a line: `inputs : scale codes`, `scale codes : values`, `inputs : values`."""

    dtype: Block
    scale_rule: str | None
    tensor_scale: float | None

    @property
    def facts(self) -> dict[str, str]:
        """Format, operation, rounding, scale rule, how it draws, and a tensor scale as bits of a float32."""
        known = {"format": self.dtype.name, "operation": self.name, "rounding": self.rounding,
                 "scale-rule": self.scale_rule, "draw": self._draw}  # fmt: skip
        if self.tensor_scale is not None:
            known["tensor-scale"] = struct.pack(">f", self.tensor_scale).hex()
        return {name: fact for name, fact in known.items() if fact is not None}

    def __str__(self) -> str:
        if self.tensor_scale is None:
            return super().__str__()
        return f"{replace(self, tensor_scale=None)} tensor scale {self.tensor_scale:.9g}"

    def _encoded_fields(self, opens: bool) -> tuple[Field, ...]:
        d = self.dtype
        fields = [Field("scale", d.scale_bits, 1, opens)]
        if d.sub_blocks:
            fields.append(Field("microexponents", d.micro_bits))
        return (*fields, Field("code", d.element_bits, d.block))

    @property
    def asked(self) -> tuple[Field, ...]:
        """The block's float32 numbers, and the random bits where they are drawn; or its codes."""
        if self.name == "decode":
            return self._encoded_fields(False)
        inputs = Field("input", 32, self.dtype.block)
        return (
            (inputs, Field("random", self.drawing.bits, self.dtype.block, True)) if self.draws else (inputs,)
        )

    @property
    def answered(self) -> tuple[Field, ...]:
        """The block's codes, or its values."""
        if self.name == "encode":
            return tuple(map(whole, self._encoded_fields(True)))
        return (Field("value", 32, self.dtype.block, True),)

    def due(self, asked: Fields) -> Fields:
        """By the breakpoints of scales and elements."""
        fields = self._given(asked) if self.name == "decode" else self._encoded(asked)
        if self.name != "encode":
            return {"value": _bits(lookup.decode_blocks(fields, self.dtype, self.tensor_scale))}
        micro = fields.microexponents
        shared = {"scale": fields.scale[:, None], "code": fields.codes}
        return shared if micro is None else shared | {"microexponents": micro[:, None]}

    def _encoded(self, asked: Fields) -> BlockFields:
        assert self.rounding is not None
        draw = Draw(bits=self.drawing.wide(asked["random"]) if self.draws else None)
        options = BlockOptions(self.scale_rule or "floor", self.rounding, self.tensor_scale, draw)
        return lookup.encode_blocks(_floats(asked["input"]), self.dtype, options)

    def _given(self, asked: Fields) -> BlockFields:
        micro = asked.get("microexponents")
        return BlockFields(
            asked["code"].astype(self.dtype.code_dtype),
            asked["scale"][:, 0].astype(np.uint8),
            None if micro is None else micro[:, 0].astype(self.dtype.micro_dtype),
        )

    def nan(self, answers: Fields, name: str) -> NDArray[np.bool_]:
        """A block whose scale is NaN stands for nothing else, whatever its codes."""
        if "value" in answers:
            return _is_nan(answers["value"])
        d = self.dtype
        return np.isin(answers["scale"], _nan_codes(d.scale) if isinstance(d, ElementBlock) else [255])


@dataclass(frozen=True)
class AffineOperation(Operation):
    """Integers with a scale and a zero point: `input scale zero-point code`."""

    dtype: Integer

    @property
    def facts(self) -> dict[str, str]:
        """Format, operation and rounding."""
        return {"format": self.dtype.name, "operation": self.name, "rounding": str(self.rounding)}

    @property
    def asked(self) -> tuple[Field, ...]:
        """A float32, the bits of the scale, and the zero point as an int32."""
        return Field("input", 32), Field("scale", 32), Field("zero-point", 32)

    @property
    def answered(self) -> tuple[Field, ...]:
        """A code."""
        return (whole(Field("code", self.dtype.bits)),)

    def due(self, asked: Fields) -> Fields:
        """By the reference, a scale and a zero point at a time."""
        x, codes = _floats(asked["input"][:, 0]), np.zeros(len(asked["input"]), np.uint32)
        for own, scale, zero_point in each_scale(asked):
            self._check(scale, zero_point)
            params = QuantParams(scale, zero_point)
            codes[own] = lookup.encode_affine(x[own], params, self.dtype, str(self.rounding))
        return {"code": codes[:, None]}

    def _check(self, scale: float, zero_point: int) -> None:
        """The questions of a file may be somebody's own."""
        if not 0 < scale < np.inf:
            raise NumericsError(f"a scale of {scale:g} cannot be; allowed: finite numbers above 0")
        if not self.dtype.min <= zero_point <= self.dtype.max:
            least, most = int(self.dtype.min), int(self.dtype.max)
            raise NumericsError(f"a zero point of {zero_point} cannot be; allowed: {least} .. {most}")

    def nan(self, answers: Fields, name: str) -> NDArray[np.bool_]:
        """No integer is NaN."""
        return np.zeros((1, 1), np.bool_)


def each_scale(fields: Fields) -> Iterator[tuple[NDArray[np.bool_], float, int]]:
    """The lines of each scale and zero point, and these two."""
    both = np.stack([fields["scale"][:, 0], fields["zero-point"][:, 0]], axis=1).astype(np.uint32)
    pairs, places = np.unique(both, axis=0, return_inverse=True)
    for at, pair in enumerate(pairs):
        yield places.reshape(-1) == at, float(pair.view(np.float32)[0]), int(pair.view(np.int32)[1])


@dataclass(frozen=True)
class StringOperation(Operation):
    """Codes and their bytes, a string a line: `13 codes : bytes` of pack, `bytes : 13 codes` of unpack."""

    dtype: Element

    @property
    def facts(self) -> dict[str, str]:
        """Format and operation."""
        return {"format": self.dtype.name, "operation": self.name}

    @property
    def _fields(self) -> tuple[Field, Field]:
        size = -(-STRING * self.dtype.bits // 8)
        fields = Field("code", self.dtype.bits, STRING), Field("byte", 8, size)
        return fields if self.name == "pack" else fields[::-1]

    @property
    def asked(self) -> tuple[Field, ...]:
        """Codes, or bytes."""
        return self._fields[:1]

    @property
    def answered(self) -> tuple[Field, ...]:
        """Bytes, or codes."""
        return (replace(whole(self._fields[1]), opens=True),)

    def due(self, asked: Fields) -> Fields:
        """By NumPy's packing of bits."""
        if self.name == "pack":
            return {"byte": packed(asked["code"].astype(np.uint32), self.dtype.bits)}
        return {"code": unpacked(asked["byte"], STRING, self.dtype.bits)}

    def nan(self, answers: Fields, name: str) -> NDArray[np.bool_]:
        """Codes are compared as they are."""
        return np.zeros((1, 1), np.bool_)


@dataclass(frozen=True)
class FoundOperation(Operation):
    """Numbers that share a scale, which the device finds: `inputs : scale [zero-point] codes`, or values."""

    rule: Rule

    @property
    def dtype(self) -> Element:
        """The format of the codes."""
        return self.rule.element

    @property
    def size(self) -> int:
        """How many numbers share a scale: those of a line."""
        assert self.rule.scheme.size is not None
        return self.rule.scheme.size

    @property
    def task(self) -> Task:
        """The same, as `check` judges it."""
        return Task(self.dtype, self.name, self.rule.spec.rounding, rule=self.rule)

    @property
    def facts(self) -> dict[str, str]:
        """The format with its options and the length of a group, the operation, the rounding, `least`."""
        said = {"dtype", "scheme", "rounding"}
        options = [f"{name}={came}" for name, came in self.rule.spec.options.items() if name not in said]
        return {"format": " ".join([self.dtype.name, f"per_group({self.size})", *options]),
                "operation": self.name, "rounding": self.rule.spec.rounding,
                "least": str(self.rule.least)}  # fmt: skip

    @property
    def asked(self) -> tuple[Field, ...]:
        """The float32 numbers of a group."""
        return (Field("input", 32, self.size),)

    @property
    def answered(self) -> tuple[Field, ...]:
        """The bits of the scale, a zero point as an int32 if there is one, and the codes; or the values."""
        if self.name == "fake_quantize":
            return (Field("value", 32, self.size, True),)
        zero = () if self.rule.spec.symmetric else (Field("zero-point", 32),)
        return Field("scale", 32, 1, True), *zero, whole(Field("code", self.dtype.bits, self.size))

    def due(self, asked: Fields) -> Fields:
        """By the rule, a row a group."""
        return self.under(asked, self.found(asked))

    def found(self, asked: Fields) -> Fields:
        """The scales that are due, and the zero points."""
        found = self.rule.find(_floats(asked["input"]))
        scale = {"scale": _bits(found.scale)}
        return scale if found.zero is None else scale | {"zero-point": found.zero.view(np.uint32)}

    def under(self, asked: Fields, shared: Fields) -> Fields:
        """What is due under some scales and zero points."""
        scale, zero = _floats(shared["scale"]), shared.get("zero-point")
        zero = None if zero is None else np.ascontiguousarray(zero, np.uint32).view(np.int32)
        codes = self.rule.codes(_floats(asked["input"]), scale, zero)
        if self.name == "fake_quantize":
            return {"value": _bits(self.rule.values(codes, scale, zero))}
        return {**shared, "code": codes}

    def nan(self, answers: Fields, name: str) -> NDArray[np.bool_]:
        """A code without a value, or a value, is none; a scale is never due to be NaN."""
        if name == "value":
            return _is_nan(answers["value"])
        if name == "code":
            return np.isin(answers["code"], _nan_codes(self.dtype))
        return np.zeros((1, 1), np.bool_)


def operation(
    dtype: Any,
    name: str = "encode",
    *,
    rounding: str | None = None,
    overflow: str | None = None,
    scale_rule: str | None = None,
    tensor_scale: float | None = None,
    draw: str | None = None,
    scheme: Any = None,
    least: str | None = None,
) -> Operation:
    """One of `OPERATIONS` of a format, its options checked; those not given have their defaults.

    dtype: a format or its name.  tensor_scale: rounded to float32; 1 where a format has one.  draw: how a
    stochastic device draws, a rule and its number of random bits, as in a8; a30 by default.
    Of quantize and fake_quantize dtype may say more, as "uint8 symmetric=False"; scheme says how many numbers
    share a scale, those of a line: per_group(16) by default; least what a scale is at least, as in `check`.
    Raises NumericsError for an option that the operation does not have, or does not know.

    >>> operation("fp8_e4m3").facts
    {'format': 'fp8_e4m3', 'operation': 'encode', 'rounding': 'half_even', 'overflow': 'saturate'}
    """
    if name == "matmul":
        raise NumericsError(
            "operation 'matmul' is not for vectors: `numerics conform --kind matmul` judges a product, "
            f"through a function that starts the device; allowed: {', '.join(OPERATIONS)}"
        )
    if one_of("operation", name, OPERATIONS) in FINDS:
        _refuse(True, f"{name} has none", overflow=overflow, tensor_scale=tensor_scale, draw=draw)
        return _found(dtype, name, ScalesClaim(scheme, least, rounding or "half_even", scale_rule or "floor"))
    d = find(dtype)
    _refuse(True, f"the scales of {name} are given", scheme=scheme, least=least)
    plain = name in UNROUNDED
    _refuse(plain, f"{name} does not round", rounding=rounding, overflow=overflow,
            scale_rule=scale_rule, draw=draw)  # fmt: skip
    mode = None if plain else check_rounding(rounding or "half_even")
    if name in ("affine", "pack", "unpack"):
        one_of(f"operation of {d}", name, kinds_of(d))
        _refuse(True, f"{name} has none", overflow=overflow, scale_rule=scale_rule, tensor_scale=tensor_scale,
                draw=draw)  # fmt: skip
        if name != "affine":
            return StringOperation(name, None, cast(Element, d))
        return AffineOperation(name, one_of("rounding of affine", mode, DETERMINISTIC), cast(Integer, d))
    drawing = GIVEN if draw is None else _drawing(d, name, mode, draw)
    if isinstance(d, Block):
        drawn = Draw(seed=0) if rounding == "stochastic" else Draw()
        asked = BlockOptions(scale_rule or "floor", mode or "half_even", tensor_scale, drawn)
        asked = _with_scale(d, asked)
        d.check_options(asked, overflow)
        rule = asked.scale_rule if mode and len(d.scale_rules) > 1 else None
        return BlockOperation(name, mode, d, rule, asked.tensor_scale, drawing=drawing)
    assert isinstance(d, Element)
    _refuse(True, f"{d} has no blocks", scale_rule=scale_rule, tensor_scale=tensor_scale)
    return ElementOperation(name, mode, d, d.check_overflow(overflow) if mode else None, drawing=drawing)


def _found(dtype: Any, name: str, claim: ScalesClaim) -> FoundOperation:
    """Of a claim; raises NumericsError for groups that are no line, and as `Rule.of`."""
    plain = spec_with(dtype, {})
    if claim.scheme is None and "scheme" not in plain.options and not plain.blocked:
        claim = claim._replace(scheme=f"per_group({GROUP})")
    rule = Rule.of(dtype, claim)
    scheme = rule.scheme
    if scheme.kind != "per_group" or scheme.axis != -1 or not 1 <= (scheme.size or 0) <= LONGEST_BLOCK:
        raise NumericsError(
            f"scheme={scheme} is not that of a line of vectors; allowed: per_group(n), n of 1 .. "
            f"{LONGEST_BLOCK}, along the last axis"
        )
    return FoundOperation(name, None, rule)


def _drawing(d: Any, name: str, mode: str | None, draw: str) -> Drawing:
    """How a device draws; raises NumericsError where nothing is drawn, and for one that draws for itself."""
    drawing = Task.of(d, name, rounding=str(mode), draw=draw).drawing
    if drawing.is_own:
        raise NumericsError(
            f"draw={said(draw)} is not for vectors, which hold the random bits; allowed: a rule and its "
            "bits, as in a8; a function that draws for itself is judged by numerics conform --draw own"
        )
    return drawing


def _with_scale(d: Block, asked: BlockOptions) -> BlockOptions:
    """The options with the scale of the tensor, where the format has one: 1 where none is given."""
    if not d.has_tensor_scale:
        return asked
    scale = 1.0 if asked.tensor_scale is None else asked.tensor_scale
    with np.errstate(over="ignore", under="ignore"):
        return asked._replace(tensor_scale=float(np.float32(scale)))


def _refuse(when: bool, why: str, **options: object) -> None:
    """Options that came where there is none."""
    for option, came in options.items():
        if when and came is not None:
            raise NumericsError(f"{why}: {option}={said(came)} cannot be")
