"""Block: numbers that share a scale, as a format object like the others (dtype.py)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from inspect import Signature, signature
from math import frexp
from typing import Any, ClassVar, NamedTuple, Never, cast

from numerics.formats import dispatch
from numerics.formats.arguments import MISSING, misfit, required, unknown_argument
from numerics.formats.codebook import Codebook, nearest_float32
from numerics.formats.dtype import Declared, Dtype, Element, Float, Integer
from numerics.formats.errors import NumericsError, check_no_gradient, digits, integer, number_in, one_of, said
from numerics.formats.notebook import facts_table
from numerics.formats.packing import planes
from numerics.formats.rounding import (
    FLOAT_RULES,
    FOUR_OVER_SIX,
    MX_RULES,
    BlockOptions,
    Draw,
    check_overflow,
    check_random,
    check_rounding,
    check_rule,
)

LONGEST = 1 << 20  # elements of a block: scales that are shared by more are a scheme's


class Field(NamedTuple):
    """One of the arrays of Blocks: how many bits its entries have, and the type that holds them."""

    bits: int
    code_dtype: str


def _declared(
    *,
    name: str,
    source: str = "declared by the user",
    aliases: tuple[str, ...] = (),
    block: int,
    element: Element | None = None,
    scale: Float | None = None,
    integers: Integer | Float | None = None,
    step: float | None = None,
    mantissa: int | None = None,
    sub_block: int | None = None,
    tiers: int | None = None,
) -> Block:
    """The block format with these facts; those that are None are none of its own.

    Raises NumericsError for facts of two kinds of blocks, or of none.
    """
    if (element is None) == (mantissa is None):
        raise NumericsError(
            "a block has elements or mantissas: give either element= (with scale=) or mantissa= "
            "(with sub_block=)"
        )
    facts: dict[str, Any] = {"name": name, "source": source, "aliases": aliases, "block": block}
    if element is None:
        if scale is not None:
            raise NumericsError(
                f"{said(name)}: scale= belongs to element=; microexponent blocks share 8 exponent bits"
            )
        if integers is not None or step is not None:
            raise NumericsError(f"{said(name)}: integers= and step= belong to element= and a float scale")
        if sub_block is None:
            raise _no_sub_block(said(name), sub_block, block)
        facts |= {"mantissa": mantissa, "sub_block": sub_block}
        return MicroexponentBlock(**facts) if tiers is None else TieredBlock(**facts | {"tiers": tiers})
    if sub_block is not None or tiers is not None:
        raise NumericsError(f"{said(name)}: sub_block= and tiers= belong to mantissa=, not to element=")
    facts |= {"element": element, "scale": scale}
    if isinstance(scale, Float) and scale.has_zero:
        return ScaledBlock(**facts | {"integers": integers, "step": step})
    if integers is not None or step is not None:
        raise NumericsError(f"{said(name)}: integers= and step= go with a float scale, whose sign says which")
    return MXBlock(**facts)


_declared.__qualname__ = "Block"  # whom errors name: it is called as Block is


def _no_sub_block(named: str, sub_block: int | None, block: int) -> NumericsError:
    return NumericsError(
        f"{named}: sub_block={said(sub_block)} must divide block={said(block)} into at most 8 parts"
    )


class _DeclaredBlock(Declared):
    """Makes block formats: `Block(...)` takes the facts of any of them, and makes what has these."""

    def __call__(cls, *unnamed: Any, **facts: Any) -> Any:
        if hasattr(cls, "stem"):
            return super().__call__(*unnamed, **facts)
        try:
            return _declared(*unnamed, **facts)
        except TypeError as wrong:  # facts that are missing, or of no format
            raise misfit(_declared, unnamed, facts) or NumericsError(f"{cls.__name__}: {wrong}") from None

    @property
    def __signature__(cls) -> Signature:
        """The facts that it takes, for `help` and completion."""
        return super().__signature__ if hasattr(cls, "stem") else signature(_declared)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Block(Dtype, metaclass=_DeclaredBlock):
    """A format of blocks, neighbours along an axis that share a scale: one of three classes.

    MXBlock: OCP MX, a power of two a block (docs/formats.md §4).  ScaledBlock: a float scale a block and a
    float32 scale a tensor, as in NVFP4 (§8).  MicroexponentBlock: shared exponents and microexponents,
    elements of sign and magnitude (§5).  `block_format` makes one of a user's own; so does
    `Block(name=..., block=..., ...)`.  block: elements a block.
    """

    kind = "block"
    block: int
    default_overflow: ClassVar[str] = "saturate"
    overflows: ClassVar[tuple[str, ...]] = ("saturate",)
    stem: ClassVar[str]
    """How the names of its functions in scaling.py begin."""
    has_tensor_scale: ClassVar[bool] = False
    """Does a tensor have a scale beside those of its blocks?"""
    scale_beside: ClassVar[bool] = True
    """Do the scales stand beside the packed codes, or among them?"""
    in_float32: ClassVar[bool] = False
    """Is it float32 that computes with the scale, so that float64 is rounded to it first?"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.block <= LONGEST:
            raise NumericsError(
                f"{self.name}: a block has at least one element and at most {LONGEST}, not {said(self.block)}"
            )

    @property
    def sub_blocks(self) -> int:
        """Parts of a block that have a microexponent each; 0 where there are none."""
        return 0

    @property
    def micro_bits(self) -> int:
        """Bits of a block's microexponents, all of them; 0 where there are none."""
        return self.sub_blocks

    @property
    def micro_bytes(self) -> int:
        """Whole bytes that hold them."""
        return -(-self.micro_bits // 8)

    @property
    def micro_dtype(self) -> str:
        """The unsigned type that holds them."""
        return "uint8" if self.micro_bits <= 8 else "uint32"

    @property
    def sharing(self) -> tuple[Any, ...]:
        """What must be equal for two formats to take the same shared fields."""
        raise NotImplementedError

    @property
    def element_bits(self) -> int:
        """Bits of one element's code."""
        raise NotImplementedError

    @property
    def code_dtype(self) -> str:
        """The smallest unsigned type that holds an element's code."""
        return "uint8" if self.element_bits <= 8 else "uint16"

    @property
    def scale_bits(self) -> int:
        """Bits of what a block shares as its scale."""
        return 8

    @property
    def scale_code_dtype(self) -> str:
        """The smallest unsigned type that holds it."""
        return "uint8"

    @property
    def fields(self) -> dict[str, Field]:
        """What Blocks of the format consist of, in their order.

        >>> from numerics.formats import mx6
        >>> mx6.fields["microexponents"]
        Field(bits=8, code_dtype='uint8')
        """
        found = {
            "codes": Field(self.element_bits, self.code_dtype),
            "scale": Field(self.scale_bits, self.scale_code_dtype),
        }
        return found | (
            {"microexponents": Field(self.micro_bits, self.micro_dtype)} if self.sub_blocks else {}
        )

    @property
    def bits(self) -> float:
        """Bits a value, shared fields included (whole blocks; a tensor's one scale left out)."""
        raise NotImplementedError

    @property
    def bytes_per_block(self) -> int:
        """Bytes of one whole block, shared fields included (docs/layout.md)."""
        raise NotImplementedError

    @property
    def emax(self) -> int:
        """The exponent of the element's largest normal number."""
        return 0

    @property
    def max(self) -> float:
        """The largest value: the largest element times the largest scale."""
        raise NotImplementedError

    @property
    def min(self) -> float:
        """The smallest value."""
        return -self.max

    @property
    def smallest_subnormal(self) -> float:
        """The smallest positive value."""
        raise NotImplementedError

    @property
    def smallest_normal(self) -> float:
        """The smallest positive value with a full significand."""
        raise NotImplementedError

    @required
    def encode(
        self,
        x: Any,
        *unnamed: Never,
        axis: int = -1,
        scale_rule: str = "floor",
        rounding: str = "half_even",
        overflow: str | None = None,
        tensor_scale: float | None = None,
        random_bits: Any = None,
        seed: int | None = None,
        out: Blocks | None = None,
        **unknown: Never,
    ) -> Blocks:
        """Returns the values of x as blocks along an axis: codes, and the fields that blocks share.

        x: a NumPy array or a torch tensor of float16, bfloat16, float32 or float64, or a nested list of
            numbers.  A float64 beyond float32's range counts as the largest float32.
        axis: along which neighbours form blocks, the last by default.  A last block that is short is
            filled up with zeros that take part in nothing.
        scale_rule: how an MX block finds the power of two 2**e that it shares; amax is the largest
            magnitude of the block, emax the exponent of the element's largest value:
            floor (the default): e = floor(log2 amax) - emax (OCP MX 1.0 §6.3); the largest may saturate
            ceil: e = ceil(log2 amax) - emax
            even: floor, of amax rounded to the element's digits first (AMD Quark's default, torchao's EVEN)
            rceil: the smallest e for which nothing clips (NVIDIA's rule, torchao's RCEIL)
            tosa: the smallest e under which amax, rounded half to even, does not pass the largest (TOSA 1.0)
            bump: floor, and one more where an element would round past the largest (Quark's BFP16)
            Float scales, as NVFP4's (docs/formats.md §8): floor (the default): the nearest to amax over the
            largest element; ceil: that rounded up; nvidia: TransformerEngine's order of operations; mse: the
            code of least square error; four_over_six, four_over_six_mae: of scales to 6 and to 4 the one with
            less square, or absolute, error.  Microexponents have one way to find theirs, "floor".
        rounding: of the elements: half_even (the default), half_away, half_up, half_down, toward_zero,
            floor, ceil, to_odd or stochastic, as for `encode` of a format of single numbers.
        overflow: None or "saturate": the elements of blocks saturate.
        tensor_scale: of formats with float scales, as NVFP4: the float32 scale of the whole tensor, a
            positive number; found from x where None (the default).
        seed, random_bits: of stochastic rounding, exactly one: a 64-bit integer, or uint32 in x's shape.
        out: Blocks of the same format, axis and shape, whose arrays are written.

        Returns `Blocks`: codes (unsigned integers, x's shape), scale (one a block), and for some formats
        microexponents or a tensor_scale.  A block with NaN or Inf becomes NaN as a whole.  Raises
        NumericsError for another type of x, an axis that x lacks, and an option that the format cannot
        have.  Every rule: docs/formats.md §4 (MX), §5 (mx4, mx6, mx9), §8 (NVFP4).

        >>> from numerics.formats import mxfp4
        >>> blocks = mxfp4.encode([1.0, -2.0, 5.0])
        >>> blocks.codes, blocks.scale
        ([2, 12, 6], [127])
        >>> mxfp4.encode([1.0, -2.0, 7.0], scale_rule="rceil").scale
        [128]
        """
        if unknown or unnamed or x is MISSING:
            raise unknown_argument(Block.encode, unknown, (x,), unnamed)
        asked = BlockOptions(scale_rule, rounding, tensor_scale, Draw(seed, random_bits))
        options = self.check_options(asked, overflow)
        made: Blocks = dispatch.of(x).encode_blocks(x, self, axis, options, out)
        return made

    @required
    def decode(self, blocks: Blocks, *unnamed: Never, out: Any = None, **unknown: Never) -> Any:
        """Returns the float32 values of blocks, in the shape of their codes.

        blocks: what `encode` of this format returned.  out: a float32 array to write the values into.
        Raises NumericsError for the blocks of another format.

        >>> from numerics.formats import mxfp4
        >>> mxfp4.decode(mxfp4.encode([1.0, -2.0, 5.0]))
        [1.0, -2.0, 4.0]
        """
        if unknown or unnamed or blocks is MISSING:
            raise unknown_argument(Block.decode, unknown, (blocks,), unnamed)
        self._check_own("decode", blocks)
        return dispatch.of(blocks.codes).decode_blocks(blocks, out)

    @required
    def round(
        self,
        x: Any,
        *unnamed: Never,
        axis: int = -1,
        scale_rule: str = "floor",
        rounding: str = "half_even",
        overflow: str | None = None,
        tensor_scale: float | None = None,
        random_bits: Any = None,
        seed: int | None = None,
        out: Any = None,
        **unknown: Never,
    ) -> Any:
        """Returns decode(encode(x)), made in one pass, in x's own type and shape.

        Arguments and errors as for `encode`; out: an array of x's type and shape.  In torch the gradient
        goes straight through.

        >>> from numerics.formats import mx9
        >>> mx9.round([1.0, 0.3, 0.01])
        [1.0, 0.296875, 0.0078125]
        """
        if unknown or unnamed or x is MISSING:
            raise unknown_argument(Block.round, unknown, (x,), unnamed)
        asked = BlockOptions(scale_rule, rounding, tensor_scale, Draw(seed, random_bits))
        options = self.check_options(asked, overflow)
        return dispatch.of(x).round_blocks(x, self, axis, options, out)

    @required
    def pack(self, blocks: Blocks, *unnamed: Never, **unknown: Never) -> Any:
        """Returns blocks as bytes (uint8 of one dimension).

        MX and NVFP4: the codes of the elements in C order as one little-endian string of bits; the scales
        stay beside them.  mx4, mx6, mx9: whole blocks with all their fields, as docs/layout.md says.
        Raises NumericsError for the blocks of another format.

        >>> from numerics.formats import mxfp4
        >>> mxfp4.pack(mxfp4.encode([1.0, -2.0, 5.0]))
        [194, 6]
        """
        if unknown or unnamed or blocks is MISSING:
            raise unknown_argument(Block.pack, unknown, (blocks,), unnamed)
        self._check_own("pack", blocks)
        return dispatch.of(blocks.codes).pack_blocks(blocks)

    @required
    def unpack(
        self,
        packed: Any,
        shape: Any,
        *unnamed: Never,
        axis: int = -1,
        scale: Any = None,
        tensor_scale: float | None = None,
        **unknown: Never,
    ) -> Blocks:
        """Returns the blocks that `pack` made bytes of.

        packed: the bytes (uint8).  shape: of the tensor.  axis: along which blocks lie.  scale: the scales
        that stood beside, one a block: the tensor's shape with ceil(n / block) along the axis; mx4, mx6 and
        mx9 hold their own and take None.  tensor_scale: the tensor's, as of NVFP4.  Raises NumericsError
        when the bytes or the scales are not as many as the shape needs, and for a tensor_scale that the
        format does not have.

        >>> from numerics.formats import mxfp4
        >>> mxfp4.unpack([194, 6], 3, scale=[127]).decode()
        [1.0, -2.0, 4.0]
        """
        if unknown or unnamed or packed is MISSING or shape is MISSING:
            raise unknown_argument(Block.unpack, unknown, (packed, shape), unnamed)
        if tensor_scale is not None and not self.has_tensor_scale:
            raise no_tensor_scale(self)
        stored = PackedBlocks(self, axis, shape, packed, scale, tensor_scale)
        found: Blocks = dispatch.of(packed).unpack_blocks(stored)
        return found

    def _check_own(self, verb: str, blocks: object) -> None:
        if not isinstance(blocks, Blocks) or blocks.dtype is not self:
            came = f"{blocks.dtype} blocks" if isinstance(blocks, Blocks) else type(blocks).__name__
            raise NumericsError(f"{self.name}.{verb} takes the Blocks of {self.name}.encode, not {came}")

    def check_scale_rule(self, scale_rule: str) -> str:
        """Returns the scale rule; raises NumericsError for one that it does not have."""
        scale_rule = check_rule(scale_rule, self.scale_rules)
        if scale_rule not in self.scale_rules:
            kind = "MX formats" if scale_rule in MX_RULES else "float scales"
            one = f"{self.name} has one way to find its scale: scale_rule={scale_rule!r} is for {kind}"
            several = (
                f"{self.name}: scale_rule={scale_rule!r} cannot be; allowed: {', '.join(self.scale_rules)}"
            )
            raise NumericsError(one if len(self.scale_rules) == 1 else several)
        return scale_rule

    def check_options(self, asked: BlockOptions, overflow: str | None = None) -> BlockOptions:
        """Returns the options of `encode` as a backend takes them; raises NumericsError for wrong ones."""
        if not isinstance(asked, BlockOptions):
            raise NumericsError(f"the options of blocks are BlockOptions, not {said(asked)}")
        scale_rule, mode, tensor_scale, (seed, bits) = asked
        nothing = overflow is None and tensor_scale is None and seed is None and bits is None
        if nothing and type(scale_rule) is str and type(mode) is str:
            return undrawn_once(self, scale_rule, mode)
        scale_rule = self.check_scale_rule(scale_rule)
        if overflow is not None and check_overflow(overflow) != "saturate":
            raise NumericsError(
                f"{self.name}: the elements of a block saturate; overflow={overflow!r} cannot be"
            )
        if tensor_scale is not None:
            if not self.has_tensor_scale:
                raise no_tensor_scale(self)
            check_no_gradient("tensor_scale", tensor_scale)
            tensor_scale = asked_scale(tensor_scale)
        mode = check_rounding(mode)
        return BlockOptions(scale_rule, mode, tensor_scale, Draw(check_random(mode, seed, bits), bits))


def undrawn(dtype: Block, scale_rule: str, rounding: str) -> BlockOptions:
    """The options that need neither random bits nor a tensor's scale, checked."""
    mode = check_rounding(rounding)
    return BlockOptions(dtype.check_scale_rule(scale_rule), mode, None, Draw(check_random(mode, None, None)))


_undrawn = lru_cache(maxsize=256)(undrawn)


def undrawn_once(dtype: Block, scale_rule: str, rounding: str) -> BlockOptions:
    """`undrawn` of names, whose answer is remembered: a call with them comes again."""
    return _undrawn(dtype, scale_rule, rounding)


def _nearest_zero(element: Element) -> float:
    """The least magnitude of an element's values but zero."""
    if isinstance(element, Codebook):
        return min(abs(value) for value in element.finite if value)
    return element.smallest_subnormal


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ElementBlock(Block):
    """Blocks of integers or floats, and a scale of another format beside each."""

    element: Integer | Float | Codebook
    scale: Float

    def __post_init__(self) -> None:
        super().__post_init__()
        element = self.element
        if not isinstance(element, (Integer, Float, Codebook)):
            raise NumericsError(
                f"{self.name}: elements are integers, floats or codebooks, not {said(element)}"
            )
        if not element.signed:
            raise NumericsError(f"{self.name}: elements are signed, {element} is not")
        if not isinstance(self.scale, Float) or not self._can_scale(self.scale):
            listed = isinstance(self.scale, Codebook)
            raise NumericsError(
                f"{self.name}: scale={said(self.scale)} cannot be{', as a codebook is no scale' * listed}; "
                "allowed: e8m0, or floats of up to 8 bits with NaN, as nx.float_format makes them "
                "(a scale of another type goes with a scheme: nx.quantize(x, "
                f"{element.name!r}, scheme=nx.per_group({self.block}), scale_type=...))"
            )
        low, high = (self.element_unit * end for end in (_nearest_zero(element), element.extent))
        if low < 2.0**-40 or not 1.0 <= high < 2.0**40:
            raise NumericsError(
                f"{self.name}: elements from {digits(low)} to {digits(high)}; a block's must lie within "
                f"2**-40 .. 2**40 and reach 1, so that scaling stays exact{self._way_out(high)}"
            )
        if self.element_unit * element.scale_end < 1.0:
            raise NumericsError(
                f"{self.name}: elements that are scaled to {digits(element.scale_end)} cannot be a block's; "
                f"allowed: scaled_to= from 1 on, to {digits(element.extent)}: "
                "the largest float32 over less than 1 is none, and could be no scale"
            )

    def _way_out(self, high: float) -> str:
        """What becomes a block of a codebook that ends below 1."""
        if not (isinstance(self.element, Codebook) and 2.0**-40 <= high < 1):
            return ""
        times = 2 ** (1 - frexp(high)[1])
        return (
            f": {times} times the list does, for which the scale of a block makes up; or take the list as it "
            f"is, under scales by a scheme: nx.quantize(x, element, scheme=nx.per_group({self.block}))"
        )

    @staticmethod
    def _can_scale(scale: Float) -> bool:
        raise NotImplementedError

    @property
    def sharing(self) -> tuple[Any, ...]:
        """What must be equal for two formats to take the same shared fields."""
        return self.block, self.scale

    @property
    def has_two_readings(self) -> bool:
        """Does the sign of a block's scale say what its codes mean, as in IF4?"""
        return False

    @property
    def element_unit(self) -> float:
        """What an element's value is multiplied by: integers imply 2**-(bits - 2) (OCP MX 1.0 §5.3.4)."""
        return 2.0 ** (2 - self.element.bits) if isinstance(self.element, Integer) else 1.0

    @property
    def emax(self) -> int:
        """The exponent of the element's largest normal number, or of what a codebook scales to instead."""
        return frexp(self.element_unit * self.element.scale_end)[1] - 1

    @property
    def element_bits(self) -> int:
        """Bits of one element's code."""
        return self.element.bits

    @property
    def scale_bits(self) -> int:
        """Bits of a block's scale."""
        return self.scale.bits

    @property
    def scale_code_dtype(self) -> str:
        """The smallest unsigned type that holds it."""
        return self.scale.code_dtype

    @property
    def bits(self) -> float:
        """Bits a value, the scale included (whole blocks; a tensor's one scale left out)."""
        bits = self.element_bits + self.scale_bits / self.block
        return int(bits) if bits == int(bits) else bits

    @cached_property
    def bytes_per_block(self) -> int:
        """Bytes of one whole block, its scale included (docs/layout.md)."""
        return -(-(self.element_bits * self.block + self.scale_bits) // 8)

    @property
    def least_element(self) -> float:
        """The least element that is written, before the scale: minus the largest but of a codebook."""
        element = self.element
        return (element.min if isinstance(element, Codebook) else -element.max) * self.element_unit

    @property
    def max(self) -> float:
        """The largest value: the largest element times the largest scale."""
        return self.element.max * self.element_unit * self.scale.max

    @property
    def min(self) -> float:
        """The smallest value: the least element times the largest scale."""
        return self.least_element * self.scale.max

    @property
    def smallest_subnormal(self) -> float:
        """The smallest positive value."""
        return self.element.smallest_subnormal * self.element_unit * self.scale.smallest_subnormal

    @property
    def smallest_normal(self) -> float:
        """The smallest positive value with a full significand."""
        return self.element.smallest_normal * self.element_unit * self.scale.smallest_normal


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class MXBlock(ElementBlock):
    """OCP MX: a power of two, e8m0, for each block (docs/formats.md §4).

    >>> from numerics.formats import mxfp4
    >>> mxfp4.element, mxfp4.scale, mxfp4.block
    (fp4, e8m0, 32)
    """

    stem = "mx"

    @property
    def scale_rules(self) -> tuple[str, ...]:
        """The rules by which it can find a block's scale: `even`, `tosa` and `bump` speak of digits."""
        return ("floor", "ceil", "rceil") if isinstance(self.element, Codebook) else MX_RULES

    @staticmethod
    def _can_scale(scale: Float) -> bool:
        return (scale.exponent, scale.bias, scale.specials) == (8, 127, "fn") and not scale.has_zero


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ScaledBlock(ElementBlock):
    """A float scale for each block, and a float32 scale for the tensor, as in NVFP4.

    integers: what codes mean instead in blocks whose scale has its sign bit set, as in IF4: a number of
    steps.  step: what one of them counts, as float32; by default the largest element over their largest.

    >>> from numerics.formats import if4, nvfp4
    >>> nvfp4.scale, nvfp4.encode([1.0, 6.0]).tensor_scale
    (fp8_e4m3, 0.0022321429569274187)
    >>> if4.integers, if4.step, if4.encode([7.0, 5.0, 3.0]).scale
    (int4_narrow, 0.8571428656578064, [254])
    """

    integers: Integer | Float | None = None
    step: float | None = None
    stem = "scaled"
    has_tensor_scale = True
    in_float32 = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.integers is None:
            if self.step is not None:
                raise NumericsError(f"{self.name}: step={said(self.step)} goes with integers=")
            return
        self._check_integers(self.integers)
        step = self.element.scale_end / self.integers.max if self.step is None else _number(self.step)
        if not 0.5 <= step * self.integers.max / self.element.scale_end <= 2:
            raise NumericsError(
                f"{self.name}: step={said(self.step)} cannot be: the largest of integers= would not lie "
                f"within half and twice the largest element, {digits(self.element.scale_end)}"
            )
        object.__setattr__(self, "step", nearest_float32(step))

    def _check_integers(self, integers: Any) -> None:
        if not isinstance(integers, (Integer, Float)):
            raise NumericsError(f"{self.name}: integers= is a format, not {said(integers)}")
        if isinstance(self.element, Integer) or (integers.bits, integers.signed) != (self.element.bits, True):
            raise NumericsError(
                f"{self.name}: {integers} cannot be the other reading of {self.element}; allowed: a signed "
                f"format of its {self.element.bits} bits beside floats or a codebook"
            )
        if isinstance(integers, Integer):
            whole = integers.narrow
        else:
            whole = integers.smallest_subnormal == 1 and not (integers.has_nan or integers.has_inf)
            whole = whole and integers.max == 2 ** (integers.bits - 1) - 1
        if not whole or not self.scale.signed:
            raise NumericsError(
                f"{self.name}: integers={integers} under {self.scale} cannot be; allowed: narrow integers, "
                "or sign and magnitude (a float of one exponent bit that counts by 1), and a signed scale"
            )

    @property
    def has_two_readings(self) -> bool:
        """Does the sign of a block's scale say what its codes mean?"""
        return self.integers is not None

    @property
    def steps_in_one(self) -> float:
        """How many steps of `integers` an element's 1 is, in float32: their largest over the element's."""
        return (
            nearest_float32(self.integers.max / self.element.scale_end) if self.integers is not None else 1.0
        )

    @property
    def max(self) -> float:
        """The largest value: the largest element times the largest scale."""
        return max(self.element.max * self.element_unit, self._largest_count) * self.scale.max

    @property
    def min(self) -> float:
        """The smallest value: the least element times the largest scale."""
        return min(self.least_element, -self._largest_count) * self.scale.max

    @property
    def _largest_count(self) -> float:
        """The largest value that codes have under the other sign of the scale; 0 without such a reading."""
        return 0.0 if self.integers is None else nearest_float32(self.integers.max * (self.step or 1.0))

    @property
    def scale_rules(self) -> tuple[str, ...]:
        """The rules by which it can find a block's scale: four over six is of elements that end at 6."""
        ends_at_six = isinstance(self.element, Float) and self.element.max == 6 and self.integers is None
        return FLOAT_RULES if ends_at_six else tuple(r for r in FLOAT_RULES if r not in FOUR_OVER_SIX)

    def largest_under(self, rule: str) -> float:
        """What a tensor's largest magnitude becomes under its scale: where elements end times scale.

        Four over six leaves room for half as much again: the largest power of two that allows it, 256.

        >>> from numerics.formats import nvfp4
        >>> nvfp4.largest_under("floor"), nvfp4.largest_under("four_over_six")
        (2688.0, 1536.0)
        """
        four_over_six = one_of("scale rule", rule, self.scale_rules) in FOUR_OVER_SIX
        top = 2.0 ** (frexp(self.scale.max / 1.5)[1] - 1) if four_over_six else self.scale.max
        return self.element.scale_end * self.element_unit * top

    @staticmethod
    def _can_scale(scale: Float) -> bool:
        return scale.has_zero and scale.bits <= 8 and scale.has_nan


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class MicroexponentBlock(Block):
    """Shared microexponents (docs/formats.md §5): an exponent a block, and one bit below it a sub-block.

    mantissa: bits of an element's magnitude, which stands beside its sign.  sub_block: elements that
    share a microexponent.

    >>> from numerics.formats import mx6
    >>> mx6.mantissa, mx6.sub_block, mx6.sub_blocks, mx6.bytes_per_block
    (4, 2, 8, 12)
    """

    mantissa: int
    sub_block: int
    stem = "micro"
    scale_beside = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.mantissa <= 15:
            raise NumericsError(f"{self.name}: mantissa={said(self.mantissa)} is outside 1 .. 15")
        self._check_sub_blocks()

    def _check_sub_blocks(self) -> None:
        if self.sub_block < 1 or self.block % self.sub_block or self.block // self.sub_block > 8:
            raise _no_sub_block(self.name, self.sub_block, self.block)

    @property
    def sub_blocks(self) -> int:
        """Parts of a block that have a microexponent each."""
        return self.block // self.sub_block

    @property
    def sharing(self) -> tuple[Any, ...]:
        """What must be equal for two formats to take the same shared fields."""
        return self.block, self.sub_block

    @property
    def element_bits(self) -> int:
        """Bits of one element's code: sign and magnitude."""
        return 1 + self.mantissa

    @property
    def bits(self) -> float:
        """Bits a value, exponent and microexponents included (whole blocks)."""
        bits = 8 * self.bytes_per_block / self.block
        return int(bits) if bits == int(bits) else bits

    @cached_property
    def bytes_per_block(self) -> int:
        """Bytes of one whole block, shared fields included (docs/layout.md)."""
        codes = sum(-(-self.block * width // 8) for _, width in planes(self.element_bits))
        return codes + 1 + self.micro_bytes

    @property
    def max(self) -> float:
        """The largest value: the largest magnitude at the largest exponent."""
        return ((1 << self.mantissa) - 1) * 2.0 ** (127 - (self.mantissa - 1))

    @property
    def smallest_subnormal(self) -> float:
        """The smallest positive value."""
        return 2.0 ** (-126 - 1 - (self.mantissa - 1))

    @property
    def smallest_normal(self) -> float:
        """The smallest positive value with a full significand."""
        return 2.0**-126


E6M2 = {"bias": 48, "digits": 2, "last": 254}
"""The scale of tiered blocks: 6 exponent bits, two digits, no zero; the code after the last means NaN."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TieredBlock(MicroexponentBlock):
    """Microexponents in two tiers, which double steps, under a scale of 6 exponent bits and two digits.

    Each sub-block has a microexponent, and each two of them, side by side, another one (arXiv 2602.11287).
    mantissa, sub_block: as of MicroexponentBlock.  tiers: 2.

    >>> from numerics.formats import hifloat4
    >>> hifloat4.block, hifloat4.sub_blocks, hifloat4.micro_bits, hifloat4.bits
    (64, 16, 24, 4.5)
    """

    tiers: int = 2
    stem = "tiered"
    in_float32 = True

    def _check_sub_blocks(self) -> None:
        powers = all(n > 0 and n & (n - 1) == 0 for n in (self.block, self.sub_block))
        if self.tiers != 2 or not powers or not 2 <= self.block // self.sub_block <= 16:
            raise NumericsError(
                f"{self.name}: sub_block={said(self.sub_block)} must divide block={said(self.block)}, both "
                f"powers of two, into 2 to 16 parts under tiers=2, not {said(self.tiers)}"
            )

    @property
    def pairs(self) -> int:
        """Pairs of sub-blocks, each of which has a microexponent above theirs."""
        return self.sub_blocks // 2

    @property
    def micro_bits(self) -> int:
        """Bits of a block's microexponents: those of pairs in the lowest, then those of sub-blocks."""
        return self.pairs + self.sub_blocks

    @property
    def sharing(self) -> tuple[Any, ...]:
        """What must be equal for two formats to take the same shared fields."""
        return self.block, self.sub_block, self.tiers

    @property
    def max(self) -> float:
        """The largest value: the largest magnitude under both microexponents and the largest scale."""
        return ((1 << self.mantissa) - 1) * 4 * tiered_scale(E6M2["last"]) * 2.0 ** (1 - self.mantissa)

    @property
    def smallest_subnormal(self) -> float:
        """The smallest positive value."""
        return tiered_scale(0) * 2.0 ** (1 - self.mantissa)

    @property
    def smallest_normal(self) -> float:
        """The smallest positive value with a full significand."""
        return tiered_scale(0)


def tiered_scale(code: int) -> float:
    """What a code of the scale of tiered blocks means.

    >>> tiered_scale(0) == 2.0**-48, tiered_scale(254), tiered_scale(255)
    (True, 49152.0, nan)
    """
    exponent, digits = divmod(code, 1 << E6M2["digits"])
    return float("nan") if code > E6M2["last"] else (1 + digits / 4) * 2.0 ** (exponent - E6M2["bias"])


def reading(d: ElementBlock, scale: int) -> Element:
    """The format of the codes of a block with that code of a scale.

    >>> from numerics.formats import if4
    >>> reading(if4, 0x38), reading(if4, 0xB8), scale_values(if4, 0xB8)
    (fp4, int4_narrow, 1.0)
    """
    flag = isinstance(d, ScaledBlock) and d.integers is not None and scale >> (d.scale.bits - 1)
    return cast(Element, d.integers) if flag else d.element  # type: ignore[attr-defined]


def element_of(d: Dtype) -> Element | None:
    """What every code of a format is read in; None where there is no such one: mantissas, two readings.

    >>> from numerics.formats import fp4, if4, mx6, mxfp4
    >>> element_of(fp4), element_of(mxfp4), element_of(if4), element_of(mx6)
    (fp4, fp4, None, None)
    """
    if isinstance(d, ElementBlock):
        return None if d.has_two_readings else d.element
    return d if isinstance(d, Element) else None


def scale_values(d: ElementBlock, codes: Any) -> Any:
    """What elements are multiplied by under codes of a scale; where its sign is a flag, the magnitude."""
    found = d.scale.decode(codes)
    return abs(found) if d.has_two_readings else found


def no_tensor_scale(d: Dtype) -> NumericsError:
    """What is raised where tensor_scale= is given to a format that has none."""
    return NumericsError(
        f"{d} has no tensor scale; tensor_scale= belongs to blocks with float scales, such as nvfp4"
    )


def stored_scale(tensor_scale: Any) -> float:
    """A tensor's scale as float32 holds it, half to even; raises NumericsError where that is 0 or infinite.

    By integers, since a conversion would lose subnormals in a thread that flushes them.
    """
    number = _number(tensor_scale)
    if 0 < nearest_float32(number) < float("inf"):
        return nearest_float32(number)
    came = said(tensor_scale) if number != number else digits(number)
    raise NumericsError(f"tensor_scale={came} is not a positive finite float32 number")


def asked_scale(tensor_scale: Any) -> float:
    """`stored_scale` of what a caller asks for; in a graph of torch.compile a float as it is: it may change.

    torch's operators check it again when they run (numerics/pytorch/compiled.py).
    """
    return stored_scale(tensor_scale)


def _number(came: object) -> float:
    """`number_in`, NaN for what is none: a comparison with it is false."""
    number = number_in(came)
    return float("nan") if number is None else number


@dataclass(frozen=True, init=False)
class Blocks:
    """A tensor in a block format: codes and the fields that its blocks share.  Made by `Block.encode`.

    dtype: the block format.  axis: along which blocks lie.
    codes: of the elements, unsigned integers in the tensor's own shape.
    scale: one a block, in the tensor's shape with ceil(n / block) along the axis: E8M0 bytes (MX), codes of
        the scale's format (NVFP4) or float32 exponent fields (mx4, mx6, mx9).
    microexponents: one byte a block, bit j for sub-block j (of hifloat4 24 bits, those of pairs lowest, as
        uint32); None where the format has none.
    tensor_scale: the float32 scale of the tensor, of NVFP4 and its like; None elsewhere.

    >>> from numerics.formats import mxfp4
    >>> blocks = mxfp4.encode([1.0, -2.0, 5.0])
    >>> blocks.codes, blocks.scale, blocks.decode()
    ([2, 12, 6], [127], [1.0, -2.0, 4.0])
    """

    dtype: Block
    axis: int
    codes: Any
    scale: Any
    microexponents: Any = None
    tensor_scale: float | None = None

    @required
    def __init__(
        self,
        dtype: Block,
        axis: int,
        codes: Any,
        scale: Any,
        microexponents: Any = None,
        tensor_scale: float | None = None,
        *unnamed: Never,
        **unknown: Never,
    ) -> None:
        needed = (dtype, axis, codes, scale)
        if unknown or unnamed or any(one is MISSING for one in needed):
            raise unknown_argument(Blocks, unknown, needed, unnamed)
        if not isinstance(dtype, Block):
            raise NumericsError(f"Blocks are of a block format, not {said(dtype)}")
        for name, part in (
            ("dtype", dtype), ("axis", axis if type(axis) is int else integer("axis", axis)),
            ("codes", codes), ("scale", scale), ("microexponents", microexponents),
            ("tensor_scale", None if tensor_scale is None else stored_scale(tensor_scale)),
        ):  # fmt: skip
            object.__setattr__(self, name, part)

    def _repr_html_(self) -> str:
        """A notebook's view: the format, the shapes, and what is shared; nothing is decoded."""
        parts = {"codes": self.codes, "scale": self.scale, "microexponents": self.microexponents}
        rows = [(name, _shape(part)) for name, part in parts.items() if part is not None]
        shared = [] if self.tensor_scale is None else [("tensor scale", digits(self.tensor_scale))]
        return facts_table([("format", repr(self.dtype)), ("axis", str(self.axis)), *rows, *shared])

    @required
    def decode(self, *unnamed: Never) -> Any:
        """Returns the float32 values, in the shape of the codes."""
        if unnamed:
            raise unknown_argument(Blocks.decode, (), (), unnamed)
        return self.dtype.decode(self)


def _shape(part: Any) -> str:
    """What is said of an array of Blocks: its shape; of a list its length."""
    shape = getattr(part, "shape", None)
    return f"{len(part)} numbers" if shape is None else f"shape {tuple(shape)}"


class PackedBlocks(NamedTuple):
    """A tensor in a block format as it is stored: `Block.pack`'s bytes, and what stands beside them.

    shape: the tensor's.  scale: as in Blocks, or None where the bytes hold the scales.
    """

    dtype: Block
    axis: int
    shape: Any
    packed: Any
    scale: Any = None
    tensor_scale: float | None = None
