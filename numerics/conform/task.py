"""Task: what a kernel is asked to do, and the exact answer to it, which is always the reference's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.executor import BlockFields
from numerics.backends.partition import Blocking, check_axis
from numerics.backends.reference import lookup
from numerics.backends.reference.binary32 import QuantParams
from numerics.backends.reference.blocks import tensor_scale_of
from numerics.backends.reference.executor import ReferenceExecutor
from numerics.conform.inputs.draws import Drawing
from numerics.conform.inputs.narrow import narrowed
from numerics.conform.inputs.spread import sharing
from numerics.conform.kinds import FINDS, INPUTS, KINDS
from numerics.conform.scales.rule import Rule, ScalesClaim
from numerics.formats.arguments import keywords
from numerics.formats.block import Block, ElementBlock, ScaledBlock
from numerics.formats.dtype import Dtype, Element, Integer
from numerics.formats.errors import NumericsError, integer, one_of, said, truth
from numerics.formats.registry import dtype as find_dtype
from numerics.formats.rounding import DETERMINISTIC, BlockOptions, Draw, check_rounding, check_rule
from numerics.interop.layouts import CDNA4, CUBLAS, ScaleLayout
from numerics.tensor.scheme import Scheme

Array = NDArray[Any]
Float32 = NDArray[np.float32]
REFERENCE = ReferenceExecutor()
GIVEN = Drawing()
FEW, MANY = 512, 1 << 13  # numbers of an array, and of all of them, that are asked one by one: see _singly
LAYOUTS = {"cublas": CUBLAS, "cdna4": CDNA4}
AXES = 32  # of the arrays whose blocks are judged
LONGEST_BLOCK = 2048  # elements: every place of a block is asked, with all others beside it
AMAX = "amax"
"""In the place of a tensor scale: the target finds it, as docs/formats.md §8 says."""
FINDS_OF_TENSOR = ("encode", "round")
"""Kinds of targets that can find it."""
UNROUNDED = ("decode", "pack", "unpack")
"""Kinds that round nothing."""
TOP = 1528.0
"""The largest number of the tensors that such a target is given, times a power of two: a reciprocal misses
its scale."""
FEW_IN_BLOCKS = 128  # numbers of blocks
_one_by_one: Counter[tuple[Element, str, str]] = Counter()
"""How many numbers were asked one by one, of each format, rounding and overflow."""
OWN = "a kernel that finds its scales itself is kind='quantize' or 'fake_quantize'"
ADVICE = {
    "affine": f"affine is for integers, beside a scale and a zero point that are given; {OWN};",
}
"""Of kinds that a format has not, or nobody."""


class Fields(NamedTuple):
    """Blocks as a tensor's fields: codes of its shape, the scales, the microexponents or None."""

    codes: Array
    scale: Array
    microexponents: Array | None


Answer = Array | Fields


def answers_at(answer: Answer, places: Array) -> Answer:
    """Returns the answers to some elements, or to some rows of blocks; places: indices or a mask.

    >>> answers_at(Fields(np.arange(6).reshape(3, 2), np.arange(3), None), np.array([0, 2])).scale
    array([0, 2])
    """
    if isinstance(answer, Fields):
        return Fields(*(None if part is None else part[places] for part in answer))  # type: ignore[arg-type]
    return answer[places]


def _singly(count: int, element: Element, rounding: str, overflow: str) -> bool:
    """Do so few numbers cost less one by one than a list of the breakpoints of a format of 16 bits?

    Not where as many were asked before as the list costs: most tests of a kernel ask of more.
    """
    asked = element, rounding, overflow
    if element.bits <= 8 or count >= FEW or _one_by_one[asked] >= MANY:
        return False
    _one_by_one[asked] += count
    return True


def kinds_of(dtype: Dtype) -> tuple[str, ...]:
    """The kinds that a format has.

    >>> from numerics.formats import fp4, mx6
    >>> kinds_of(fp4)[3:], kinds_of(mx6)
    (('pack', 'unpack', 'quantize', 'fake_quantize'), ('encode', 'decode', 'round'))
    """
    names = tuple(kind for kind in KINDS if kind != "matmul")  # products have two formats
    if isinstance(dtype, Block):
        return names[:3]
    return names if isinstance(dtype, Integer) else tuple(name for name in names if name != "affine")


def _axis(came: Any) -> int:
    """An axis of arrays that are made in memory, with some more of one index; else raises NumericsError."""
    axis = integer("axis", came)
    if not -AXES <= axis < AXES:
        raise NumericsError(f"axis={said(axis)} is not judged; allowed: {-AXES} to {AXES - 1}")
    return axis


def _unusual(**options: tuple[Any, Any]) -> dict[str, Any]:
    """Those options, each what came and its default, that are not what they are where nobody gives them."""
    return {name: came for name, (came, usual) in options.items() if came != usual}


@dataclass(frozen=True)
class Task:
    """What a target is to compute: a format, a kind, and the options of the format's encoder.

    kind: encode, decode, round, pack, unpack or affine; `KINDS` says what each takes and returns.
    """

    dtype: Dtype
    kind: str = "encode"
    rounding: str = "half_even"
    overflow: str = "saturate"
    scale_rule: str = "floor"
    axis: int = -1
    tensor_scale: float | None = None
    strict_nan: bool = False
    inputs: str = "float32"
    scheme: Scheme | None = None
    packed: bool = False
    scale_layout: ScaleLayout | None = None
    drawing: Drawing = GIVEN
    finds_scale: bool = False
    """Does the target find the tensor's scale?  It is then given tensors of which that is `tensor_scale`."""
    rule: Rule | None = None
    """Of kinds that find the scales of single numbers: how."""

    @classmethod
    @keywords
    def of(cls, dtype: Any, kind: str | None = None, *, rounding: str = "half_even",
           overflow: str | None = None, scale_rule: str = "floor", axis: int = -1,
           tensor_scale: float | str | None = None, strict_nan: bool = False,
           inputs: str = "float32", scheme: Any = None, packed: bool = False,
           scale_layout: Any = None, draw: Any = None, least: Any = None) -> Task:  # fmt: skip
        """The task with its options checked; raises NumericsError for those that the format has not.

        >>> Task.of("float8_e4m3fn")
        Task(fp8_e4m3 encode, half_even, saturate)
        """
        if isinstance(kind, str) and kind in FINDS:
            cls._refuse_beside(kind, overflow=overflow, tensor_scale=tensor_scale, draw=draw,
                               axis=None if axis == -1 else axis, scale_layout=scale_layout,
                               packed=packed or None)  # fmt: skip
            rule = Rule.of(dtype, ScalesClaim(scheme, least, rounding, scale_rule, inputs))
            return cls(rule.element, kind, rule.spec.rounding, inputs=rule.inputs, rule=rule,
                       strict_nan=truth("strict_nan", strict_nan))  # fmt: skip
        if least is not None:
            raise NumericsError(
                f"least={said(least)} is for {' and '.join(FINDS)}: the scales of others are given"
            )
        d = find_dtype(dtype)
        if isinstance(kind, str) and kind == "matmul":
            raise NumericsError("kind='matmul' has two formats: give a= and b= in place of a format")
        if isinstance(d, Block) and d.block > LONGEST_BLOCK:
            raise NumericsError(f"blocks of {d.block} elements are not judged; {LONGEST_BLOCK} are the most")
        kind = "encode" if kind is None else one_of(f"kind of {d}", kind, kinds_of(d), ADVICE)
        rounding = check_rounding(rounding)
        scale_rule = check_rule(scale_rule, d.scale_rules if isinstance(d, Block) else ("floor",))
        axis, strict_nan = _axis(axis), truth("strict_nan", strict_nan)
        if kind in UNROUNDED:
            cls._refuse_beside(kind, **_unusual(
                rounding=(rounding, "half_even"), overflow=(overflow, None),
                scale_rule=(scale_rule, "floor"), strict_nan=(strict_nan, False),
            ))  # fmt: skip
        if one_of("inputs", inputs, INPUTS) != "float32" and kind not in ("encode", "round"):
            raise NumericsError(f"inputs={inputs} is for kind='encode' and 'round', not {kind}")
        if kind == "affine" and rounding not in DETERMINISTIC:
            raise NumericsError.unknown("rounding mode of an affine check", rounding, DETERMINISTIC)
        drawing = Drawing.of(draw)
        if draw is not None and (
            rounding != "stochastic" or (drawing.needs_numbers and isinstance(d, Block))
        ):
            raise NumericsError(
                f"draw={said(draw)} is for rounding='stochastic'; own and c are for single numbers alone"
            )
        if scheme is not None and kind != "affine":
            kinds = "'affine'" if isinstance(d, Integer) else f"'affine' of integers, which {d} is not"
            raise NumericsError(
                f"scheme={said(scheme)} is for kind={kinds}: its scales are given, as arrays; {OWN}"
            )
        finds = isinstance(tensor_scale, str)
        if isinstance(tensor_scale, str):
            number: float | None = cls._found(d, kind, tensor_scale, scale_rule)
        else:
            number = tensor_scale
        placed = cls._placed(d, kind, axis, truth("packed", packed), scale_layout)
        if isinstance(d, Block):
            draw = Draw(seed=0) if rounding == "stochastic" else Draw()
            asked = d.check_options(BlockOptions(scale_rule, rounding, number, draw), overflow)
            overflow, number = "saturate", asked.tensor_scale
            if d.has_tensor_scale and number is None:
                number = 1.0
        else:
            assert isinstance(d, Element)
            overflow = d.check_overflow(overflow)
            cls._refuse_block_options(d, scale_rule, axis, number)
        return cls(d, kind, rounding, overflow, scale_rule, axis, number, strict_nan, inputs,
                   None if scheme is None else sharing(scheme), *placed, drawing, finds)  # fmt: skip

    @staticmethod
    def _refuse_beside(kind: str, **others: Any) -> None:
        """Raises NumericsError for an option that came and that the kind has not."""
        for name in (name for name, came in others.items() if came is not None):
            why = ", which does not round" if kind in UNROUNDED else ""
            raise NumericsError(f"{name}={said(others[name])} is not for kind='{kind}'{why}")

    @property
    def finding_scale(self) -> Task | None:
        """The same of a target that finds the tensor's scale itself; None where there is none to find."""
        d = self.dtype
        if self.finds_scale or not isinstance(d, ScaledBlock) or not d.has_tensor_scale:
            return None
        if self.kind not in FINDS_OF_TENSOR:
            return None
        number = self._found(d, self.kind, AMAX, self.scale_rule)
        return replace(self, finds_scale=True, tensor_scale=number)

    @staticmethod
    def _found(d: Dtype, kind: str, said_as: str, rule: str) -> float:
        """The scale of a tensor whose largest number is TOP; raises NumericsError where none is found."""
        one_of("tensor_scale", said_as, (AMAX,))
        if not isinstance(d, ScaledBlock) or not d.has_tensor_scale or kind not in FINDS_OF_TENSOR:
            raise NumericsError(
                f"tensor_scale='{AMAX}' is for encode and round of formats with a scale of the tensor, as "
                f"nvfp4: {d} {kind} is not that"
            )
        return float(tensor_scale_of([TOP], d, rule))

    @staticmethod
    def _placed(
        d: Dtype, kind: str, axis: int, packed: bool, scale_layout: Any
    ) -> tuple[bool, ScaleLayout | None]:
        """How codes and scales lie; raises NumericsError where there are none, or none of one byte."""
        if not packed and scale_layout is None:
            return False, None
        if not isinstance(d, Block) or d.sub_blocks or kind not in ("encode", "decode") or axis != -1:
            given = f"scale_layout={said(scale_layout)}" if scale_layout is not None else "packed=True"
            raise NumericsError(
                f"{given} is for encode and decode of blocks without microexponents, along the last axis: "
                f"{d} {kind} along {axis} is not that"
            )
        if scale_layout is None or isinstance(scale_layout, ScaleLayout):
            return packed, scale_layout
        return packed, LAYOUTS[one_of("scale layout", scale_layout, LAYOUTS)]

    @staticmethod
    def _refuse_block_options(d: Dtype, scale_rule: str, axis: int, tensor_scale: float | None) -> None:
        given = _unusual(scale_rule=(scale_rule, "floor"), axis=(axis, -1), tensor_scale=(tensor_scale, None))
        for name, came in given.items():
            raise NumericsError(f"{name}={said(came)} belongs to block formats, which {d} is not")

    def __repr__(self) -> str:
        return f"Task({self})"

    def __str__(self) -> str:
        return ", ".join([f"{self.dtype} {self.kind}", *self._options()])

    def _options(self) -> Iterator[str]:
        """Everything that decides what is due, in words; of what is not said the default holds."""
        blocks = isinstance(self.dtype, Block)
        if self.kind in ("encode", "round", "affine"):
            yield self.rounding
            ruled = isinstance(self.dtype, Block) and len(self.dtype.scale_rules) > 1
            yield f"scale rule {self.scale_rule}" if ruled else self.overflow
        if self.rule is not None:
            yield self.rounding
            yield str(self.rule)
        if self.finds_scale:
            yield "tensor scale found from amax"
        elif self.tensor_scale is not None:
            yield f"tensor scale {np.float32(self.tensor_scale):.9g}"
        if self.rounding == "stochastic":
            yield str(self.drawing)
        if self.inputs != "float32":
            yield f"{self.inputs} inputs"
        if self.packed:
            yield "packed"
        if self.scale_layout is not None:
            names = {layout: name for name, layout in LAYOUTS.items()}
            yield f"scales as {names.get(self.scale_layout, self.scale_layout)}"
        if self.scheme is not None:
            yield f"scales {self.scheme}"
        if blocks and self.axis != -1:
            yield f"axis {self.axis}"
        if self.strict_nan:
            yield "NaN by its code"

    @property
    def element(self) -> Element:
        """The format, which is one of single numbers."""
        assert isinstance(self.dtype, Element)
        return self.dtype

    @property
    def block(self) -> Block:
        """The format, which is one of blocks."""
        assert isinstance(self.dtype, Block)
        return self.dtype

    @property
    def elements(self) -> ElementBlock:
        """The format, which is one of blocks of elements."""
        assert isinstance(self.dtype, ElementBlock)
        return self.dtype

    @property
    def fill_bytes(self) -> int:
        """Of how many numbers a line is a multiple, where its packed codes are whole bytes; 1 of others."""
        return 8 // math.gcd(8, self.block.element_bits) if self.packed else 1

    def multiple(self, whole_blocks: bool) -> int:
        """Of how many numbers each line is a multiple; whole_blocks: of a target that takes these alone."""
        return self.block.block if whole_blocks else self.fill_bytes

    @property
    def draws(self) -> bool:
        """Does the target take random bits beside its values?"""
        return self.rounding == "stochastic" and self.kind in ("encode", "round") and not self.drawing.is_own

    @property
    def draws_itself(self) -> bool:
        """Does it round by bits that nobody gave it?"""
        return self.drawing.is_own and self.kind in ("encode", "round")

    # ---- the exact answers --------------------------------------------------------------------

    def codes(self, x: Array, random: Array | None = None) -> Array:
        """The codes of float32 elements."""
        flat = np.ascontiguousarray(x).reshape(-1)
        singly = _singly(flat.size, self.element, self.rounding, self.overflow)
        if singly:
            with np.errstate(invalid="ignore"):
                flat = flat.astype(np.float64)
        draws = None if random is None else self.drawing.wide(random.reshape(-1))
        judge = REFERENCE.encode if draws is None or singly else lookup.encode
        codes = judge(flat, self.element, self.rounding, self.overflow, draws).reshape(x.shape)
        return codes if random is None or self.drawing.rule != "c" else self._by_units(x, random, codes)

    def _by_units(self, x: Array, random: Array, codes: Array) -> Array:
        """Rule c of drawing: between two values, by the fraction itself; elsewhere the given codes."""
        plain = replace(self, drawing=GIVEN)
        down, low, high = (replace(plain, rounding=way).codes(x) for way in ("toward_zero", "floor", "ceil"))
        away = np.where(np.signbit(x), low, high)
        with np.errstate(all="ignore"):
            near, far = (np.abs(self.values(part).astype(np.float64)) for part in (down, away))
            fraction = (np.abs(x.astype(np.float64)) - near) / (far - near)
        between = np.isfinite(fraction) & (fraction > 0) & (fraction < 1)
        up = self.drawing.goes_up(np.where(between, fraction, 0.0), random)
        return np.where(between, np.where(up, away, down), codes)

    def values(self, codes: Array) -> Array:
        """The float32 values of elements' codes."""
        return REFERENCE.decode(codes.reshape(-1), self.element).reshape(codes.shape)

    def fields(self, x: Array, random: Array | None = None) -> Fields:
        """The blocks of a float32 tensor."""
        blocking = self.blocking(x.shape)
        draws = None if random is None else blocking.rows(self.drawing.wide(random))
        options = BlockOptions(self.scale_rule, self.rounding, self.tensor_scale, Draw(bits=draws))
        rows = blocking.rows(x)
        judge = REFERENCE.encode_blocks if rows.size < FEW_IN_BLOCKS else lookup.encode_blocks
        codes, scale, micro = judge(rows, self.block, options)
        shared = None if micro is None else blocking.shared(micro)
        return Fields(blocking.elements(codes), blocking.shared(scale), shared)

    def at_scale_of(self, x: Array) -> Task:
        """The same task at the scale that a tensor is due to find for itself (docs/formats.md §8)."""
        d, numbers = self.block, narrowed(x, self.inputs)
        assert isinstance(d, ScaledBlock)
        largest = np.abs(numbers[np.isfinite(numbers)]).max(initial=0)
        return replace(self, tensor_scale=float(tensor_scale_of([float(largest)], d, self.scale_rule)))

    def block_values(self, fields: Fields) -> Array:
        """The float32 values of blocks."""
        blocking = self.blocking(fields.codes.shape)
        scale, micro = blocking.shared_rows(fields.scale, "a shared field"), fields.microexponents
        if micro is not None:
            micro = blocking.shared_rows(micro, "a shared field")
        rows = blocking.rows(fields.codes)
        if rows.size < FEW_IN_BLOCKS:
            values = REFERENCE.decode_blocks(rows, scale, micro, self.tensor_scale, self.block)
        else:
            values = lookup.decode_blocks(BlockFields(rows, scale, micro), self.block, self.tensor_scale)
        return blocking.elements(values)

    def answer(self, x: Array, random: Array | None = None) -> Answer:
        """What the target is due to return for float32 values: codes, fields or values.

        The values are those that the target is given: of a narrower type, the nearest that it has.
        """
        x = narrowed(x, self.inputs)
        if self.rule is not None:
            return self.found(self.rule, x)
        if isinstance(self.dtype, Block):
            fields = self.fields(x, random)
            return fields if self.kind == "encode" else narrowed(self.block_values(fields), self.inputs)
        codes = self.codes(x, random)
        return codes if self.kind == "encode" else narrowed(self.values(codes), self.inputs)

    def found(self, rule: Rule, x: Array) -> Answer:
        """What a kernel of that rule makes of a tensor: codes, scales and zero points, or values."""
        found = rule.find(x)
        codes = rule.codes(x, found.scale, found.zero, found)
        if self.kind == "quantize":
            return Fields(codes, rule.given(found), found.zero)
        return rule.values(codes, found.scale, found.zero)

    def blocking(self, shape: tuple[int, ...]) -> Blocking:
        """How a tensor of that shape is cut into blocks along the task's axis."""
        return Blocking(shape, check_axis(self.axis, shape), self.block.block)

    def affine_codes(self, x: Array, scale: Any, zero_point: Any) -> Array:
        """clamp(round(x / scale) + zero_point) as codes (docs/formats.md §6), of arrays, too."""
        d = self.dtype
        assert isinstance(d, Integer)
        return lookup.encode_affine(x, QuantParams(scale, zero_point), d, self.rounding)

    def affine_values(self, codes: Array, scale: Any, zero_point: Any) -> Array:
        """(q - zero_point) * scale (docs/formats.md §6)."""
        return lookup.decode_affine(self.values(codes).astype(np.int64), QuantParams(scale, zero_point))

    # ---- what counts as equal -----------------------------------------------------------------

    def differs(self, came: Array, due: Array) -> NDArray[np.bool_]:
        """Where two answers differ, bit for bit, but any NaN equals any other (docs/formats.md §2)."""
        if due.dtype.kind == "f":
            unequal: NDArray[np.bool_] = came.view(np.uint32) != due.view(np.uint32)
            return unequal & ~(np.isnan(came) & np.isnan(due)) if unequal.any() else unequal
        unequal = came != due
        if (
            not unequal.any()
            or self.strict_nan
            or not getattr(self.dtype, "has_nan", False)
            or self.kind not in ("encode", "quantize")
        ):
            return unequal
        return unequal & ~(np.isnan(self.values(came)) & np.isnan(self.values(due)))

    def with_same_nan(self, came: Fields, due: Fields) -> Fields:
        """Returns the fields that came, but those of expected NaN blocks where both are NaN: any NaN will do.

        With strict_nan, what came.  Fields of a tensor, or of rows, whose shared fields have one dimension.
        """
        both = self._nan_blocks(came.scale) & self._nan_blocks(due.scale)
        if self.strict_nan or not both.any():
            return came
        elements = both[:, None]
        if came.scale.ndim == came.codes.ndim:
            whole = np.repeat(both, self.block.block, self.axis)
            elements = whole.take(range(came.codes.shape[self.axis]), self.axis)
        places = (elements, both, both)
        parts = zip(places, due, came, strict=True)
        return Fields(*(None if one is None else np.where(at, one, other) for at, one, other in parts))  # type: ignore[arg-type]

    def pairs(self, came: Answer, due: Answer) -> list[tuple[Array, Array]]:
        """What came beside what was due, part by part, the NaN of blocks made alike."""
        if not isinstance(came, Fields) or not isinstance(due, Fields):
            return [(np.asarray(came), np.asarray(due))]
        both = zip(came if self.rule is not None else self.with_same_nan(came, due), due, strict=True)
        return [(one, other) for one, other in both if one is not None and other is not None]

    def _nan_blocks(self, scale: Array) -> NDArray[np.bool_]:
        """Which shared scales say NaN."""
        d = self.block
        if isinstance(d, ElementBlock):
            return np.isnan(REFERENCE.decode(scale.reshape(-1), d.scale)).reshape(scale.shape)
        return np.asarray(scale == 255)
