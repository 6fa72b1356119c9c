"""What a product promises: two operands, the accumulator, what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from numerics.conform.inputs.spread import MOST
from numerics.conform.products.layout import Layout
from numerics.formats.arguments import named_fields
from numerics.formats.block import Block, ElementBlock, MicroexponentBlock
from numerics.formats.codebook import Codebook
from numerics.formats.dtype import Element, Float, Integer
from numerics.formats.errors import NumericsError, integer, one_of, said, truth
from numerics.formats.registry import dtype as find_dtype
from numerics.tensor.spec import QuantSpec

VALUES = ("float32", "bfloat16", "float16")
OUTS = (*VALUES, "int32")
ZERO_POINTS = ("split", "folded")
NARROWED = ("float16", "bfloat16")
"""Types through which a deviation rounds results."""
LEAST, TOP = -1074, 1024
"""Exponents of the least number of float64, in which exact sums are kept, and past its largest."""


@named_fields
@dataclass(frozen=True)
class Accumulator:
    """How a kernel adds: an accumulator of so many bits, and how it rounds.

    bits: of the significand.  rounding: half_even, toward_zero, or any where nothing is promised but that
    what fits is exact.  fused: terms that are added at once, each cut to the accumulator's bits below the
    largest; 1 where they are added one by one.  least, top: a sum is a multiple of 2**least below 2**top.

    >>> ACCUMULATORS["hopper_fp8"]
    Accumulator(bits=14, rounding='toward_zero', fused=32, least=-149, top=128)
    """

    bits: int
    rounding: str = "half_even"
    fused: int = 1
    least: int = -149
    top: int = 128

    def __post_init__(self) -> None:
        for name in ("bits", "fused", "least", "top"):
            object.__setattr__(self, name, integer(name, getattr(self, name)))
        if not 2 <= self.bits <= 53:
            raise NumericsError(f"an accumulator of {said(self.bits)} bits cannot be; allowed: 2 to 53")
        if self.fused < 1:
            raise NumericsError(f"{said(self.fused)} terms cannot be added at once; allowed: 1 and more")
        if not LEAST <= self.least < self.top <= TOP:
            raise NumericsError(
                f"sums from 2**{said(self.least)} to 2**{said(self.top)} cannot be; allowed: least < top, "
                f"within {LEAST} and {TOP}"
            )
        one_of("rounding of an accumulator", self.rounding, ("half_even", "toward_zero", "any"))

    @property
    def rounds_to_nearest(self) -> bool:
        """Has one addition of two terms one right answer: the nearest number of the accumulator?"""
        return self.rounding == "half_even" and self.fused == 1


ACCUMULATORS: Mapping[str, Accumulator] = {
    "float32": Accumulator(24),
    "float64": Accumulator(53, least=-1074, top=1024),
    "float16": Accumulator(11, least=-24, top=16),
    "bfloat16": Accumulator(8, least=-133),
    "volta": Accumulator(24, "toward_zero", 4),
    "ampere": Accumulator(24, "toward_zero", 8),
    "hopper": Accumulator(24, "toward_zero", 16),
    "hopper_fp8": Accumulator(14, "toward_zero", 32),
    "blackwell": Accumulator(24, "toward_zero", 32),
}
"""Accumulators by name: float types, and NVIDIA's tensor cores as in arXiv 2511.10909 (MMA-Sim)."""
INT32 = "int32"


ENDLESS = 1 << 20  # numbers of a row by which a group is told from a whole row


@dataclass(frozen=True)
class Operand:
    """One side of a product, as a matrix whose last axis is summed: what its numbers are, who shares a scale.

    name: float32, bfloat16 or float16 for plain numbers, an integer format for plain integers, or None for
    what a QuantSpec quantizes.  spec: that QuantSpec, of a matrix (rows, length).

    >>> Operand.of("mxfp4").size, Operand.of(QuantSpec("int4", scheme="per_group(128)")).share
    (32, 'block')
    >>> Operand.of("int4 per_group(128)") == Operand.of(QuantSpec("int4", scheme="per_group(128)"))
    True
    """

    name: str | None
    spec: QuantSpec | None = None

    @classmethod
    def of(cls, came: Any, integers: bool = False) -> Operand:
        """The operand of a text as in `spelled`, a format, or a QuantSpec; integers: of plain integers."""
        came = spelled(came) if isinstance(came, str) else came
        if integers:
            plain = isinstance(came, str) and came in VALUES
            d = came if plain or isinstance(came, QuantSpec) else find_dtype(came)
            if not isinstance(d, Integer) or d.bits > 8:
                raise NumericsError(
                    f"accumulate='int32' needs integer operands of 8 bits or fewer, not {said(came)}"
                )
            return cls(d.name)
        if isinstance(came, str):
            return cls(came)
        found = cls(None, came if isinstance(came, QuantSpec) else QuantSpec(came))
        if why := found._not_judged():
            raise NumericsError(f"{found}: products of {why} are not judged; "
                                "judge the kernel's decoding (kind='decode')")  # fmt: skip
        assert found.share
        return found

    def _not_judged(self) -> str | None:
        """What this operand has whose products no law decides; None of all others."""
        if isinstance(self.block, ElementBlock) and self.block.has_two_readings:
            return "blocks whose scale says what their codes mean"
        if isinstance(self.block, MicroexponentBlock) and self.micro is None:
            return "blocks with microexponents in two tiers"
        lacks_zero = not self.element.has_zero if isinstance(self.element, Float) else (
            isinstance(self.element, Codebook) and 0.0 not in self.element.listed)  # fmt: skip
        return "numbers without a zero" if lacks_zero else None

    def __str__(self) -> str:
        if self.spec is None:
            return str(self.name)
        scheme = "" if self.spec.scheme is None else f" {self.spec.scheme_text}"
        return f"{self.spec.dtype}{scheme}" + (", zero points" * self.zero)

    @property
    def is_value(self) -> bool:
        """Plain floats?"""
        return self.name in VALUES

    @cached_property
    def element(self) -> Element | None:
        """The format of its codes; None for plain floats, and for magnitudes under microexponents."""
        if self.spec is None:
            return None if self.is_value else find_dtype(self.name)  # type: ignore[return-value]
        if not self.spec.blocked:
            return self.spec.element
        block = self.spec.block
        return block.element if isinstance(block, ElementBlock) else None

    @property
    def block(self) -> Block | None:
        """The format of its blocks; None where it has none."""
        return self.spec.block if self.spec is not None and self.spec.blocked else None

    @property
    def micro(self) -> MicroexponentBlock | None:
        """The same, where blocks have microexponents."""
        return self.block if type(self.block) is MicroexponentBlock else None

    @property
    def bits(self) -> int:
        """Bits of a code."""
        if self.block is not None:
            return self.block.element_bits
        return 0 if self.element is None else self.element.bits

    @property
    def is_integer(self) -> bool:
        """Codes of integers?"""
        return isinstance(self.element, Integer)

    @property
    def zero(self) -> bool:
        """Has it zero points?"""
        return self.spec is not None and not self.spec.symmetric

    @property
    def shifts(self) -> bool:
        """May a kernel read its codes as unsigned ones, or its zero points apart?"""
        element = self.element
        return isinstance(element, Integer) and self.block is None and (element.signed or self.zero)

    @cached_property
    def share(self) -> str:
        """Who shares a scale along the summed axis: none, tensor, row, column, block."""
        if self.spec is None or not self.spec.scaled:
            return "none"
        if self.spec.blocked:
            if self.spec.axis not in (-1, 1):
                raise NumericsError(f"{self.spec!r}: blocks of a product lie along the summed axis: axis=-1")
            return "block"
        partition = self.spec.partition((2, ENDLESS))
        if partition.rows > 1:
            raise NumericsError(f"{self.spec!r}: groups of a product lie along the summed axis alone")
        if partition.axis is None:
            return "tensor"
        if partition.size is None:
            return "row" if partition.axis == 0 else "column"
        if partition.axis == 0:
            raise NumericsError(f"{self.spec!r}: groups of a product lie along the summed axis: axis=-1")
        return "row" if partition.size == ENDLESS else "block"  # a scale a token

    @cached_property
    def size(self) -> int:
        """How many neighbours share a scale, where share is block; 0 elsewhere."""
        if self.share != "block" or self.spec is None:
            return 0
        return (
            self.spec.block.block if self.spec.blocked else int(self.spec.partition((2, ENDLESS)).size or 0)
        )

    @property
    def scale(self) -> Element | None:
        """The format of its scales' codes; None for float scales, and for those of microexponents."""
        return self.block.scale if isinstance(self.block, ElementBlock) else None

    @property
    def power_scale(self) -> bool:
        """Are its scales powers of two, or has it none?"""
        if self.share == "none" or self.micro is not None:
            return True
        if self.scale is not None:
            return self.scale.name == "e8m0"
        return self.spec is not None and self.spec.scale_type == "pof2"

    @property
    def number(self) -> bool:
        """Has it a scale of the whole tensor above those of its blocks?"""
        return self.block is not None and self.block.has_tensor_scale

    def shared(self, rows: int, length: int) -> tuple[int, int]:
        """The shape of its scales."""
        blocks = -(-length // self.size) if self.size else 1
        shapes = {"tensor": (1, 1), "row": (rows, 1), "column": (1, length), "block": (rows, blocks)}
        return shapes.get(self.share, (1, 1))


@dataclass(frozen=True)
class Claim:
    """What a target promises: a (m, k) times the rows of b (n, k), summed along k.

    kind, dtype: what a verdict says of it.
    """

    a: Operand
    b: Operand
    accumulate: str | Accumulator = "float32"
    out: str = "float32"
    layout: str = "nk"
    bias: bool = False
    zero_point: str = "split"
    alpha: bool = False
    beta: bool = False
    in_place: bool = False
    rounding: str = "half_even"

    kind = "matmul"

    @classmethod
    def of(cls, a: Any, b: Any, **options: Any) -> Claim:
        """The claim with its options checked; raises NumericsError for those that do not fit.

        >>> print(Claim.of("float32", "mxfp4"))
        float32 x mxfp4 -> float32, accumulate float32
        """
        if a is None or b is None:
            raise NumericsError("kind='matmul' needs a= and b=, as in a='float32', b='mxfp4'")
        accumulate = options.pop("accumulate", "float32")
        out = options.pop("out", None)
        if not isinstance(accumulate, Accumulator):
            accumulate = one_of("accumulate", accumulate, (*ACCUMULATORS, INT32))
        whole = accumulate == INT32
        out = one_of("out", ("int32" if whole else "float32") if out is None else out, OUTS)
        if (out == "int32") is not whole:
            raise NumericsError(f"out={out!r} does not go with accumulate={accumulate!r}")
        found = cls(Operand.of(a, whole), Operand.of(b, whole), accumulate, out,
                    options.pop("layout", "nk"),
                    truth("bias", options.pop("bias", False)),
                    one_of("zero_point", options.pop("zero_point", "split"), ZERO_POINTS),
                    alpha=truth("alpha", options.pop("alpha", False)),
                    beta=truth("beta", options.pop("beta", False)),
                    in_place=truth("in_place", options.pop("in_place", False)))  # fmt: skip
        assert not options
        for operand in (found.a, found.b):
            if operand.size > MOST:
                raise NumericsError(
                    f"{operand} is not judged: {MOST} elements may share a scale, and no more"
                )
        found._check_batches()
        found._check_blend()
        if whole and found.bias:
            raise NumericsError("accumulate='int32' has no bias here; add it to the result")
        return found

    def _check_batches(self) -> None:
        """Raises NumericsError for operands that do not come in batches so, and for a bias beside some."""
        laid = self.laid
        for name, op, turned in (("a", self.a, laid.turned_a), ("b", self.b, laid.turned_b)):
            if getattr(laid, name) and turned and op.share == "row":
                raise NumericsError(f"{name}={op} cannot come turned in batches: no scheme has its scales so")
        if self.bias and laid.b.strip("1"):
            raise NumericsError(f"bias=True goes with one b for all batches, not layout={said(self.layout)}")

    def _check_blend(self) -> None:
        """Raises NumericsError where there is nothing to add to."""
        if self.in_place and not self.beta:
            raise NumericsError("in_place=True needs beta=True: the array of the result holds c")

    @property
    def blends(self) -> bool:
        """Is a target given alpha, or c and beta?"""
        return self.alpha or self.beta

    @cached_property
    def laid(self) -> Layout:
        """How its operands come."""
        return Layout.of(self.layout)

    def laid_as(self, layout: str) -> Claim:
        """The same of operands that come otherwise; raises NumericsError where they cannot."""
        found = replace(self, layout=layout)
        found._check_batches()
        return found

    def __str__(self) -> str:
        spelled = self.accumulate if isinstance(self.accumulate, str) else repr(self.accumulate)
        said = f"{self.dtype} -> {self.out}, accumulate {spelled}"
        said += "".join(f", {name}" for name in ("bias", "alpha", "beta") if getattr(self, name))
        said += ", in place" * self.in_place + f", layout {self.layout}" * (self.layout != "nk")
        return said + f", zero points {self.zero_point}" * (self.zero_point != "split")

    @property
    def dtype(self) -> str:
        """Both operands."""
        return f"{self.a} x {self.b}"

    @property
    def takes_arrays(self) -> bool:
        """Is a target given an array, which may have gaps in memory: a plain operand, integers, a bias?"""
        return self.bias or self.beta or any(op.spec is None for op in (self.a, self.b))

    @property
    def integers(self) -> bool:
        """Is it a product of integers, modulo 2**32?"""
        return self.accumulate == INT32

    @property
    def accumulator(self) -> Accumulator:
        """How it adds, where it is no product of integers."""
        if isinstance(self.accumulate, Accumulator):
            return self.accumulate
        return ACCUMULATORS["float64" if self.integers else self.accumulate]

    @property
    def narrowed(self) -> str:
        """The type to whose nearest number one addition rounds: float32, or that of a deviation's sums."""
        return self.rounding if self.rounding in NARROWED else "float32"

    @property
    def splits(self) -> bool:
        """May it sum codes and zero points apart, so that terms cancel which stand in no value?"""
        return self.zero_point == "split" and (self.a.shifts or self.b.shifts)

    @property
    def apart(self) -> bool:
        """May it sum zero points apart, so that an Inf becomes NaN: one less another?

        A format without zero points has nothing to sum apart.  A kernel may shift its codes to unsigned ones
        for sums of finite numbers, but an Inf is due where an Inf is given.
        """
        return self.zero_point == "split" and (self.a.zero or self.b.zero)

    def accumulating(self, bits: int) -> Claim:
        """The same with a narrower accumulator: whose sums the wider one holds, too."""
        return replace(self, accumulate=replace(self.accumulator, bits=min(bits, self.accumulator.bits)))


def spelled(text: str) -> Any:
    """An operand in words: a float type's name, a format, or a format and a scheme.

    >>> spelled("float32"), spelled("int4 per_group(32) asymmetric")
    ('float32', QuantSpec('int4', scheme='per_group(32, axis=-1)', symmetric=False))
    >>> spelled("FP8 E4M3"), spelled("FP8-E4M3 per_channel(0)")
    (fp8_e4m3, QuantSpec('fp8_e4m3', scheme='per_channel(0)'))
    """
    if text in VALUES:
        return text
    if text.startswith("{"):
        return QuantSpec.parse(text)
    with suppress(NumericsError):  # names of formats may have blanks, too
        return find_dtype(text)
    return QuantSpec(text)
