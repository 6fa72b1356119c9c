"""Dtype: what a number format is.  Facts in; everything else is derived from them.

Three kinds: `Integer`, `Float` and `Block`.  A row of integers.py, floats.py or blocks.py states
the facts; `Integer(...)`, `float_format` and `block_format` make a user's own.  Facts are exact: each
is an int, a bool or a str when the object is made, so that the same facts are the same object, whoever
gave them.  Methods that compute ask the backend that owns the data (dispatch.py); nothing here imports
NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import lru_cache
from inspect import Signature, signature
from typing import Any, ClassVar, Literal, Never
from zlib import crc32

from numerics.formats import dispatch
from numerics.formats.arguments import MISSING, keywords, misfit, required, unknown_argument
from numerics.formats.errors import NumericsError, digits, integer, one_of, said, text_in, truth
from numerics.formats.notebook import facts_table, number_line
from numerics.formats.rounding import FULL_RANGE, Rounding, check_overflow, check_rounding, draw_of

Specials = Literal["ieee", "fn", "fnuz", "extended", "none"]
SPECIALS: dict[str, str] = {
    "ieee": "the highest exponent holds Inf and NaN (IEEE 754-2019 §3.4)",
    "fn": "finite, and one NaN at the highest magnitude (OCP OFP8 1.0 §5)",
    "fnuz": "finite, one NaN in the place of -0",
    "extended": "Inf at the highest magnitude, one NaN: for -0, or without a sign above Inf (IEEE P3109)",
    "none": "every code is a finite number (OCP MX 1.0 §5.3)",
}


NAME_LENGTH = 200  # characters of a format's name
LONG_FACT = 40  # characters of a list of numbers that is told in full
BIASES = 1 << 12  # the largest magnitude of a bias: far beyond float32, and still a float64


def _text(what: str, came: object) -> str:
    """A text that can be printed in one line."""
    text = text_in(came)
    if text is not None and 0 < len(text) <= NAME_LENGTH and text.isprintable():
        return text
    raise NumericsError(f"{what} must be a text of 1 to {NAME_LENGTH} printable characters, not {said(came)}")


def _maybe_integer(what: str, came: object) -> int | None:
    return None if came is None else integer(what, came)


NO_FACTS = ("source", "aliases")  # two formats that differ in nothing else are one

_EXACT: dict[str, Callable[[str, Any], Any]] = {
    "int": integer,
    "int | None": _maybe_integer,
    "bool": truth,
    "str": _text,
    "Specials": lambda what, came: one_of(what, came, SPECIALS),
}
"""How a fact of that type becomes exact; those of other types check themselves."""


class Declared(type):
    """Makes formats: one object for the same facts, and no second format under a name of the tables."""

    def __call__(cls, *unnamed: Any, **facts: Any) -> Any:
        try:
            made = super().__call__(*unnamed, **facts)
        except TypeError as wrong:  # facts that are missing, or of no format
            raise misfit(cls, unnamed, facts) or NumericsError(f"{cls.__name__}: {wrong}") from None
        known = named(made.name) or _of_family(made.name)
        if known is None:
            return _interned.setdefault((cls, made._facts()), made)
        if (type(known), known._facts()[1:]) == (cls, made._facts()[1:]):
            return known
        raise NumericsError(f"the name {said(made.name)} is that of {known!r}, a format with other facts")

    @property
    def __signature__(cls) -> Signature:
        """The facts that it takes, for `help` and completion."""
        made = signature(vars(cls)["__init__"])
        return made.replace(parameters=list(made.parameters.values())[1:])


FAMILIES: list[Callable[[str], Dtype | None]] = []
"""What families of formats keep names of a form of their own for: the format of such a name, else None."""


def _of_family(name: str) -> Dtype | None:
    """The format of a name that a family keeps; None for another."""
    return next((found for family in FAMILIES if (found := family(name)) is not None), None)


def named(name: str) -> Dtype | None:
    """The format of the tables that goes by that name, in any case; None while they are being filled."""
    return TABLES.get(name.lower())


def declared(name: str) -> list[Dtype]:
    """The formats of that name that were declared, which no text names."""
    return [d for d in tuple(_interned.values()) if d.name == name and named(name) is not d]


def _fact(fact: Any) -> str:
    """A fact as a few words: of a long list of numbers the first and the last, and a checksum of all."""
    if isinstance(fact, Dtype):
        return told_apart(fact)
    text = str(fact)
    if len(text) <= LONG_FACT:
        return text
    try:
        first, *_, last = (f"{float(word):.4g}" for word in text.split())
    except ValueError:  # no list of numbers
        return text
    return f"{first} ... {last} #{crc32(text.encode()):08x}"


def told_apart(d: Dtype) -> str:
    """Its name; where another declared format has that too, with the facts in which they differ.

    >>> from numerics.formats import float_format
    >>> one, other = (float_format(4, 2, bias=bias, name="twice") for bias in (3, 5))
    >>> one, told_apart(one), told_apart(other)
    (twice, 'twice(bias=3)', 'twice(bias=5)')
    """
    mine = dict(d._facts())
    others = [(type(other), dict(other._facts())) for other in declared(d.name) if other is not d]
    if not others:
        return d.name
    kinds = [] if all(kind is type(d) for kind, _ in others) else [d.kind]
    differ = [key for key in mine if any(facts.get(key, mine) != mine[key] for _, facts in others)]
    facts = [f"{key}={_fact(x)}" for key, x in mine.items() if key in differ]
    return f"{d.name}({', '.join(kinds + facts)})"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Dtype(metaclass=Declared):
    """A number format.  The same facts are the same object; its repr is its name; it can be pickled.

    name: how it is called.  source: the standard or paper that it is taken from.  kind: "integer",
    "float" or "block".

    >>> from numerics.formats import fp8_e4m3
    >>> fp8_e4m3, fp8_e4m3.bits, fp8_e4m3.max
    (fp8_e4m3, 8, 448.0)
    """

    name: str
    source: str = "declared by the user"
    aliases: tuple[str, ...] = ()  # what other libraries and standards call it
    kind: ClassVar[str]

    def __post_init__(self) -> None:
        for fact in fields(self):
            exact = _EXACT.get(str(fact.type))
            if exact is not None and fact.init:
                what = fact.name if fact.name == "name" else f"{fact.name} of {said(self.name)}"
                object.__setattr__(self, fact.name, exact(what, getattr(self, fact.name)))

    @property
    def scale_rules(self) -> tuple[str, ...]:
        """The rules by which `quantize` can find scales for it; `floor` alone where it has no others.

        >>> from numerics.formats import fp8_e4m3, int4, mxfp4
        >>> fp8_e4m3.scale_rules, int4.scale_rules, mxfp4.scale_rules[:3]
        (('floor',), ('floor', 'full_range'), ('floor', 'ceil', 'even'))
        """
        return ("floor",)

    def __repr__(self) -> str:
        return self.name

    def _repr_html_(self) -> str:
        """A notebook's view: the facts, and the number line where there is one."""
        rows = [(name, str(fact)) for name, fact in self._facts() if fact is not None]
        ends = [(name, digits(getattr(self, name))) for name in ("max", "min", "smallest_subnormal")]
        return facts_table([*rows, *ends, ("source", self.source)]) + self._number_line()

    def _number_line(self) -> str:
        """The number line of single numbers as SVG; none of blocks."""
        return ""

    def __reduce__(self) -> tuple[Callable[..., Dtype], tuple[Any, ...]]:
        return _restore, (type(self), (*self._facts(), ("source", self.source)))

    def __deepcopy__(self, memo: object) -> Dtype:
        return self

    def _facts(self) -> tuple[tuple[str, Any], ...]:
        """The name, and what a format is declared with; where that was written is no fact of it."""
        return tuple(
            (f.name, getattr(self, f.name)) for f in fields(self) if f.init and f.name not in NO_FACTS
        )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Element(Dtype):
    """A format of single numbers: one code, one value.

    bits: of a code.  signed: has it negative values?  default_overflow: the overflow policy of `encode`
    where none is asked for.  overflows: those that the format can express.
    """

    signed: bool = True
    bits: int
    default_overflow: str = "saturate"
    overflows: ClassVar[tuple[str, ...]]

    @property
    def code_dtype(self) -> str:
        """The smallest unsigned type that holds a code: `uint8` or `uint16`."""
        return "uint8" if self.bits <= 8 else "uint16"

    @property
    def max(self) -> float:
        """The largest finite value."""
        raise NotImplementedError

    @property
    def extent(self) -> float:
        """How far from zero its symmetric range reaches: to the largest value.

        A list of values reaches as far as the longer of its two sides, which may be the negative one.

        >>> from numerics.formats import codebook_format, int8
        >>> int8.extent, codebook_format([-4.0, -2.0, -1.0, 0.5]).extent
        (127.0, 4.0)
        """
        return self.max

    @property
    def scale_end(self) -> float:
        """What the largest magnitude of a tensor becomes where its scale is found: the format's extent.

        A list of values that lie ever farther apart says where it is fine instead.

        >>> from numerics.formats import fp8_e4m3, hifloat8
        >>> fp8_e4m3.scale_end, hifloat8.scale_end, hifloat8.max
        (448.0, 15.0, 32768.0)
        """
        return self.extent

    @property
    def min(self) -> float:
        """The smallest finite value."""
        raise NotImplementedError

    @property
    def smallest_normal(self) -> float:
        """The smallest positive value with a full significand."""
        raise NotImplementedError

    @property
    def smallest_subnormal(self) -> float:
        """The smallest positive value."""
        raise NotImplementedError

    def check_overflow(self, overflow: str | None) -> str:
        """Returns the overflow policy, the format's own for None; raises NumericsError for another."""
        if overflow is None:
            return self.default_overflow
        overflow = check_overflow(overflow)
        if overflow not in self.overflows:
            raise NumericsError(
                f"{self.name} has neither Inf nor NaN: overflow={overflow!r} cannot be; "
                f"allowed: {', '.join(self.overflows)}"
            )
        return overflow

    def check_options(self, rounding: str, overflow: str | None, seed: int | None, bits: Any) -> Rounding:
        """The options of `encode` as a backend takes them; raises NumericsError for wrong ones."""
        named = type(rounding) is str and (overflow is None or type(overflow) is str)
        if named and seed is None and bits is None:
            return undrawn_once(self, rounding, overflow)
        mode = check_rounding(rounding)
        return Rounding(mode, self.check_overflow(overflow), draw_of(mode, seed, bits))

    def _number_line(self) -> str:
        return number_line(self.name, self.values())

    def _repr_svg_(self) -> str:
        """The number line: every finite value where it lies."""
        return self._number_line()

    @keywords
    def values(self) -> list[float]:
        """The value of every code, in the order of the codes.

        >>> from numerics.formats import fp4
        >>> fp4.values()[:8]
        [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
        """
        values: list[float] = self.decode(list(range(1 << self.bits)))
        return values

    @required
    def encode(
        self,
        x: Any,
        *unnamed: Never,
        rounding: str = "half_even",
        overflow: str | None = None,
        random_bits: Any = None,
        seed: int | None = None,
        out: Any = None,
        **unknown: Never,
    ) -> Any:
        """Returns the codes of values, each rounded once, straight from x's own precision into the format.

        x: a NumPy array or a torch tensor of float16, bfloat16, float32 or float64, of any shape and
            strides, or a Python number or nested list, which counts as float64.
        rounding: what happens to a value between two values of the format:
            half_even (the default): the nearest; a tie goes to the even code (IEEE 754-2019 §4.3.1)
            half_away, or AMD Quark's word round: the nearest; a tie goes away from zero (§4.3.1)
            half_up, half_down: the nearest; a tie goes toward +Inf, toward -Inf
            toward_zero, floor, ceil: toward zero, toward -Inf, toward +Inf (§4.3.2)
            to_odd: to the neighbour with the odd code
            stochastic: away from zero with a probability equal to the discarded fraction of a step
        overflow: what a value becomes that rounds past the largest, and what Inf becomes:
            saturate: the largest value with its sign
            nonsaturate: Inf, or NaN in a format without Inf (IEEE 754-2019 §7.4); refused by formats
                with neither
            None (the default): the format's own, `default_overflow`
        seed: for stochastic rounding: 0 .. 2**64 - 1; the same seed draws the same bits on every backend.
        random_bits: instead of a seed: uint32 in x's shape, of which the 30 low bits are used.  N bits of
            one's own are their highest, `own << (30 - N)`, as `random_bits(shape, seed, bits=N)` gives them.
        out: an array to write the codes into, of x's shape and the type `code_dtype`.

        Returns unsigned integers of the type `code_dtype` in x's shape, of x's library and on its device;
        Python integers for Python numbers.  Integers' codes are two's complement.  NaN becomes the
        format's NaN; in a float format without one its largest value, in an integer format 0.
        Raises NumericsError for another type of x, an unknown option, an overflow that the format
        cannot have, and an `out` that does not fit.  Every rule: docs/formats.md §2, §3.

        >>> from numerics.formats import fp8_e4m3
        >>> fp8_e4m3.encode([0.3, 448.0, float("inf")])
        [42, 126, 126]
        >>> fp8_e4m3.encode([0.3, -0.3], rounding="floor"), fp8_e4m3.encode(1e6, overflow="nonsaturate")
        ([41, 170], 127)
        """
        if unknown or unnamed or x is MISSING:
            raise unknown_argument(Element.encode, unknown, (x,), unnamed)
        how = self.check_options(rounding, overflow, seed, random_bits)
        return dispatch.of(x).encode(x, self, how, out)

    @required
    def decode(self, codes: Any, *unnamed: Never, out: Any = None, **unknown: Never) -> Any:
        """Returns the values that codes stand for, exactly, as float32.

        codes: an array or a tensor of unsigned integers below 2**bits, of any shape; or Python integers,
            which give Python floats.  An array of the format's own type (ml_dtypes' or torch's
            float8_e4m3fn, NumPy's int8) is taken by its bits.
        out: a float32 array of the same shape to write the values into.

        Raises NumericsError for codes out of range, and for another format's type.

        >>> from numerics.formats import fp8_e4m3
        >>> fp8_e4m3.decode([42, 126])
        [0.3125, 448.0]
        """
        if unknown or unnamed or codes is MISSING:
            raise unknown_argument(Element.decode, unknown, (codes,), unnamed)
        return dispatch.of(codes).decode(codes, self, out)

    @required
    def round(
        self,
        x: Any,
        *unnamed: Never,
        rounding: str = "half_even",
        overflow: str | None = None,
        random_bits: Any = None,
        seed: int | None = None,
        out: Any = None,
        **unknown: Never,
    ) -> Any:
        """Returns the format's value for each of x, in x's own type and shape: decode(encode(x)) in one pass.

        x, rounding, overflow, seed, random_bits: as for `encode`, with the same errors.  out: an array
        of x's type and shape to write the values into.  A value that x's type cannot hold (2**127 in
        float16) is rounded to it half to even.  In torch the gradient goes straight through.

        >>> from numerics.formats import fp4
        >>> fp4.round([0.7, -5.0, 100.0])
        [0.5, -4.0, 6.0]
        """
        if unknown or unnamed or x is MISSING:
            raise unknown_argument(Element.round, unknown, (x,), unnamed)
        how = self.check_options(rounding, overflow, seed, random_bits)
        return dispatch.of(x).round(x, self, how, out)

    @required
    def pack(self, codes: Any, *unnamed: Never, **unknown: Never) -> Any:
        """Returns codes as bytes: one little-endian string of bits, element 0 in the lowest bits.

        codes: unsigned integers of any shape, taken in C order; two 4-bit codes a byte, the first in
        the low nibble.  Returns ceil(size * bits / 8) bytes, uint8 of one dimension.  Raises
        NumericsError for codes out of range.

        >>> from numerics.formats import fp4
        >>> fp4.pack([1, 2, 15])
        [33, 15]
        """
        if unknown or unnamed or codes is MISSING:
            raise unknown_argument(Element.pack, unknown, (codes,), unnamed)
        return dispatch.of(codes).pack(codes, self)

    @required
    def encode_packed(
        self,
        x: Any,
        *unnamed: Never,
        rounding: str = "half_even",
        overflow: str | None = None,
        random_bits: Any = None,
        seed: int | None = None,
        **unknown: Never,
    ) -> Any:
        """Returns pack(encode(x)), made in one pass: the codes never stand in memory unpacked.

        x, rounding, overflow, seed, random_bits: as for `encode`, with the same errors.  Returns
        ceil(size * bits / 8) bytes, uint8 of one dimension.

        >>> from numerics.formats import fp6_e2m3
        >>> fp6_e2m3.encode_packed([1.0, -7.5, 0.125, 2.0])
        [200, 31, 64]
        """
        if unknown or unnamed or x is MISSING:
            raise unknown_argument(Element.encode_packed, unknown, (x,), unnamed)
        how = self.check_options(rounding, overflow, seed, random_bits)
        return dispatch.of(x).encode_packed(x, self, how)

    @required
    def decode_packed(self, packed: Any, shape: Any, *unnamed: Never, **unknown: Never) -> Any:
        """Returns the float32 values of packed codes, in the given shape: decode(unpack(packed, shape)).

        packed: ceil(size * bits / 8) bytes (uint8), as `pack` gives them.  shape: an integer or a tuple.
        Raises NumericsError when the bytes are not as many as the shape needs.

        >>> from numerics.formats import fp6_e2m3
        >>> fp6_e2m3.decode_packed([200, 31, 64], 4)
        [1.0, -7.5, 0.125, 2.0]
        """
        if unknown or unnamed or packed is MISSING or shape is MISSING:
            raise unknown_argument(Element.decode_packed, unknown, (packed, shape), unnamed)
        return dispatch.of(packed).decode_packed(packed, shape, self)

    @required
    def unpack(self, packed: Any, shape: Any, *unnamed: Never, **unknown: Never) -> Any:
        """Returns the codes that `pack` made bytes of, in the given shape.

        packed: ceil(size * bits / 8) bytes (uint8).  shape: an integer or a tuple.  Raises NumericsError
        when the bytes are not as many as the shape needs.

        >>> from numerics.formats import fp4
        >>> fp4.unpack([33, 15], 3)
        [1, 2, 15]
        """
        if unknown or unnamed or packed is MISSING or shape is MISSING:
            raise unknown_argument(Element.unpack, unknown, (packed, shape), unnamed)
        return dispatch.of(packed).unpack(packed, shape, self)


def undrawn(dtype: Element, rounding: str, overflow: str | None) -> Rounding:
    """The options that need no random bits, checked."""
    mode = check_rounding(rounding)
    return Rounding(mode, dtype.check_overflow(overflow), draw_of(mode, None, None))


_undrawn = lru_cache(maxsize=256)(undrawn)


def undrawn_once(dtype: Element, rounding: str, overflow: str | None) -> Rounding:
    """`undrawn` of names, whose answer is remembered: a call with them comes again."""
    return _undrawn(dtype, rounding, overflow)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Integer(Element):
    """Integers: two's complement where signed, else plain binary.  NaN becomes 0, and so does -0.

    narrow: the least is minus the largest, as -127: the code below it is read, and never written.

    >>> Integer(name="int5", bits=5).values()[14:18]
    [14.0, 15.0, -16.0, -15.0]
    >>> Integer(name="int5", bits=5, narrow=True).round(-20.0)
    -15.0
    """

    narrow: bool = False

    kind = "integer"
    overflows = ("saturate",)
    has_nan: ClassVar[bool] = False
    has_inf: ClassVar[bool] = False

    @property
    def scale_rules(self) -> tuple[str, ...]:
        """The rules by which `quantize` can find scales for it: `full_range` if the least is below -max."""
        return ("floor", FULL_RANGE) if self.signed and not self.narrow else ("floor",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 - (not self.signed) <= self.bits <= 16:
            raise NumericsError(
                f"{self.name}: integers have 2 to 16 bits (unsigned: 1), not {said(self.bits)}"
            )
        if self.narrow and not self.signed:
            raise NumericsError(f"{self.name}: a narrow range is of signed integers")
        self.check_overflow(self.default_overflow)

    @property
    def max(self) -> float:
        """The largest value."""
        return float((1 << (self.bits - self.signed)) - 1)

    @property
    def min(self) -> float:
        """The smallest value that is written."""
        return self.narrow - float(1 << (self.bits - 1)) if self.signed else 0.0

    @property
    def smallest_normal(self) -> float:
        """One."""
        return 1.0

    smallest_subnormal = smallest_normal


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Float(Element):
    """Sign, exponent, mantissa: (-1)**S * 2**(E - bias) * 1.M, subnormals at E = 0.

    exponent, mantissa, bias: as in the formula; bits = signed + exponent + mantissa.
    specials says where Inf and NaN are: `ieee`, the highest exponent holds both; `fn`, NaN at the
    highest magnitude and no Inf; `fnuz`, one NaN in the place of -0 and no Inf; `extended`, Inf at the
    highest magnitude and one NaN, where -0 would be or, without a sign, above Inf; `none`, neither.
    subnormals=False: E = 0 means zero, codes with E = 0 and M != 0 are never written and read as zero.
    has_zero=False (only without mantissa and sign, as in e8m0): E = 0 is a power of two like the others.
    There 0 and negatives become code 0 (saturate) or NaN (nonsaturate), what is positive and smaller
    code 0, and a tie, 1.5 times a power of two, goes to the even code.
    """

    kind = "float"
    exponent: int
    mantissa: int
    bias: int
    specials: Specials
    subnormals: bool = True
    has_zero: bool = True
    bits: int = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "bits", self.signed + self.exponent + self.mantissa)
        for wrong, why in self._contradictions():
            if wrong:
                raise NumericsError(f"{self.name}: {why}")
        self.check_overflow(self.default_overflow)

    def _contradictions(self) -> list[tuple[bool, str]]:
        shape = f"exponent={said(self.exponent)}, mantissa={said(self.mantissa)}"
        faults = [
            (not 1 <= self.exponent <= 8, f"a float has 1 to 8 exponent bits, not {said(self.exponent)}"),
            (self.mantissa < 0, f"mantissa={said(self.mantissa)} is negative"),
            (self.bits > 16, f"{said(self.bits)} bits ({shape}); at most 16 are allowed"),
            (self.bits < 2, f"{said(self.bits)} bit ({shape}); at least 2 are needed"),
            (abs(self.bias) > BIASES, f"bias={said(self.bias)} does not fit in float32"),
            (self.specials == "ieee" and self.mantissa < 1, "specials='ieee' needs a mantissa for NaN"),
            (self.specials == "ieee" and self.exponent < 2, "specials='ieee' needs 2 exponent bits"),
            (self.specials == "fnuz" and not self.signed, "specials='fnuz' needs a sign: -0 is NaN"),
            (not self.has_zero and (self.signed or self.mantissa > 0),
             "a format without a zero has neither sign nor mantissa"),
        ]  # fmt: skip
        if any(wrong for wrong, _ in faults):
            return faults
        low = self.has_zero - self.bias - self.mantissa  # of the last place, subnormals or not
        high = (self.last >> self.mantissa) - self.bias
        return [
            (self.last < self.has_zero, f"no number but zero is left ({shape}, specials={self.specials!r})"),
            (low < -149 or high > 127, f"exponents from {low} (of the last place) to {high} (bias="
             f"{self.bias}) do not fit in float32, whose are -149 to 127"),
        ]  # fmt: skip

    @property
    def has_inf(self) -> bool:
        """Is there an infinity?"""
        return self.specials in ("ieee", "extended")

    @property
    def has_nan(self) -> bool:
        """Is there a NaN?"""
        return self.specials != "none"

    @property
    def nan_is_negative_zero(self) -> bool:
        """Does the code of -0 mean NaN, so that zero has no sign?"""
        return self.signed and self.specials in ("fnuz", "extended")

    @property
    def wide(self) -> bool:
        """Is it one that numbers are kept in as they are: float16's exponents, or more, and over 8 bits?

        Scaling puts a tensor where a format has its numbers; a wide one has them wherever tensors have
        theirs, so that `quantize` casts to it unless a scale is asked for.

        >>> from numerics.formats import bfloat16, fp8_e5m2
        >>> bfloat16.wide, fp8_e5m2.wide
        (True, False)
        """
        return self.bits > 8 and self.smallest_normal <= 2.0**-14 and self.max >= 2.0**15

    @property
    def overflows(self) -> tuple[str, ...]:  # type: ignore[override]
        """The overflow policies that the format can express."""
        return ("saturate", "nonsaturate") if self.has_nan else ("saturate",)

    @property
    def last(self) -> int:
        """The code of the largest finite magnitude."""
        codes = 1 << (self.exponent + self.mantissa)
        taken = {"ieee": 1 << self.mantissa, "fn": 1, "extended": 2 - self.signed}
        return codes - taken.get(self.specials, 0) - 1

    @property
    def inf(self) -> int | None:
        """The code of +Inf."""
        return self.last + 1 if self.has_inf else None

    @property
    def nan(self) -> int | None:
        """The canonical NaN code: quiet where there are several, the sign bit clear."""
        if self.specials == "ieee":
            return self.last + 1 + (1 << (self.mantissa - 1))
        return self.last + 1 + self.has_inf if self.has_nan else None

    def _value(self, code: int) -> float:
        """The value of a finite magnitude's code, from the definition."""
        e, m = code >> self.mantissa, code & ((1 << self.mantissa) - 1)
        if e == 0 and self.has_zero:
            return m * self.smallest_subnormal if self.subnormals else 0.0
        return (1.0 + m / (1 << self.mantissa)) * 2.0 ** (e - self.bias)

    @property
    def max(self) -> float:
        """The largest finite value."""
        return self._value(self.last)

    @property
    def beyond(self) -> float:
        """What would follow the largest on the grid, had it no end."""
        return self._value(self.last + 1)

    @property
    def min(self) -> float:
        """The smallest finite value: -max, or the least one of an unsigned format."""
        return -self.max if self.signed else self._value(0)

    @property
    def smallest_normal(self) -> float:
        """The smallest positive value with a full significand."""
        return 2.0 ** (self.has_zero - self.bias)

    @property
    def smallest_subnormal(self) -> float:
        """The smallest positive value."""
        return self.smallest_normal * 2.0 ** -(self.mantissa if self.subnormals and self.has_zero else 0)


_interned: dict[tuple[Any, ...], Dtype] = {}  # by facts
TABLES: dict[str, Dtype] = {}
"""The formats of the tables by all their names, in lower case; their rows fill it (registry.py)."""


def _restore(kind: type[Dtype], facts: tuple[tuple[str, Any], ...]) -> Dtype:
    names = signature(kind).parameters
    return kind(**with_later(kind, {name: fact for name, fact in facts if name in names}))


def with_later(kind: type[Dtype], facts: dict[str, Any]) -> dict[str, Any]:
    """Facts that were kept, and those that formats had no word for then: of a known format, its own."""
    known = named(str(facts.get("name")))
    if type(known) is not kind:
        return facts
    names = (name for name in signature(kind).parameters if name not in NO_FACTS)
    return {name: getattr(known, name) for name in names} | facts
