"""QuantSpec: how tensors are quantized, as one record of options that fit together (docs/formats.md §6)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any, Never, TypeVar, cast

from numerics.backends.host.quantizing import AffineOptions
from numerics.backends.partition import Blocking, Partition, check_axis
from numerics.formats.arguments import MISSING, keywords, required, unknown_argument
from numerics.formats.block import Block, ElementBlock, no_tensor_scale
from numerics.formats.dtype import Dtype, Element, told_apart
from numerics.formats.errors import NumericsError, hint, integer, one_of, said, text_in, truth
from numerics.formats.protocol import Given
from numerics.formats.registry import dtype as find_dtype
from numerics.formats.rounding import FULL_RANGE, SCALE_RULES, check_rounding, check_rule
from numerics.formats.text import facts_in, read, spelled
from numerics.tensor.scheme import Scheme, partition_of, per_tensor
from numerics.tensor.scheme import spelled as spelled_scheme
from numerics.tensor.words import DEFAULTS, OPTIONS, words_in

SCALE_TYPES = ("float32", "float", "float16", "bfloat16", "pof2")
OWN_TYPE = {"float64": "scale_type='float' is the type of the tensor itself, float64 too;"}
ZERO_POINT_TYPES = ("int32", "float32")

SILENT = {**DEFAULTS, "scale_type": "float32"}
"""What those that nobody gives then mean, and what a text does not say."""

T = TypeVar("T")


class Default:
    """What stands for an option that is not given: help and signatures show the value that then holds."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value)


@lru_cache(maxsize=64, typed=True)
def default(value: T) -> T:
    """The one Default of that value, for a parameter of the value's type."""
    return cast(T, Default(value))


OMITTED = tuple(map(default, DEFAULTS.values()))
NOTHING, SYMMETRIC, _, ZERO_POINT_TYPE, ROUNDING, SCALE_RULE, AXIS = OMITTED
RECORD = "_extra_state"
"""The name, which is torch's, under which a state has the spec of the scales beside it: its text as bytes."""
ABSENT = "\0"  # their word for a graph, and nobody else's
"""Defaults of options: what is given beside a QuantSpec is told from what is not."""


@dataclass(frozen=True, init=False, repr=False)
class QuantSpec:
    """How tensors are quantized: the options of `quantize`, checked once and kept together.

    `quantize`, `fake_quantize` and the observers take it in place of a format, and then no option beside it.

    dtype: the format, such as nx.int4, or its name; or a text that says options beside it, as tables do:
        "int4 per_group(32)", "int4:per_group(32)", "uint8 per_token() symmetric=False".
    scheme: which elements share a scale: per_tensor() (the default), per_channel(axis), per_group(size,
        axis=-1), per_token(), per_block((rows, columns)), or such a text; of block formats only
        per_block((rows, block)): rows of blocks share a scale, as TransformerEngine's 16x16 of NVFP4.
    symmetric: True (the default) for scales alone, False for scales and zero points; False of integers only.
    scale_type: what a scale is rounded to: float32 (the default), float16, bfloat16, float (the tensor's own
        type) or pof2 (a power of two); not of block formats.
    zero_point_type: int32 (the default), or float32 for one that is not rounded; float32 of integers only.
    rounding: half_even (the default), half_away or round, half_up, half_down, toward_zero, floor, ceil,
        to_odd or stochastic.
    scale_rule: of OCP MX blocks: floor (the default), ceil, even, rceil, tosa or bump; of blocks with float
        scales: floor, ceil, nvidia, mse, four_over_six or four_over_six_mae; of symmetric signed integers:
        full_range, amax over half of the range (127.5), which clips amax, instead of the largest value (127).
    axis: of block formats: along which blocks lie, by default -1, the last.
    bfloat16 and float16 are a plain cast, with the scale 1, unless scheme or scale_type is given.

    The attributes say what holds, and given back they make the same spec: `scheme` (but for rows of blocks)
    and `scale_type` are None for block formats and where a wide float is cast, `axis` is None for all but
    block formats.  scaled: False where a wide float is cast.  Raises NumericsError for options that do not
    fit together.

    >>> spec = QuantSpec("int4", scheme="per_group(128)", symmetric=False)
    >>> spec, spec.replace(dtype="uint4").dtype
    (QuantSpec('int4', scheme='per_group(128, axis=-1)', symmetric=False), uint4)
    """

    dtype: Dtype
    scheme: Scheme | None
    symmetric: bool
    scale_type: str | None
    zero_point_type: str
    rounding: str
    scale_rule: str
    axis: int | None

    @required
    def __init__(
        self,
        dtype: Any,
        *unnamed: Never,
        scheme: Scheme | str | None = None,
        symmetric: bool = True,
        scale_type: str | None = None,
        zero_point_type: str = "int32",
        rounding: str = "half_even",
        scale_rule: str = "floor",
        axis: int | None = -1,
        **unknown: Never,
    ) -> None:
        if unknown or unnamed or dtype is MISSING:
            raise unknown_argument(type(self), unknown, (dtype,), unnamed)
        options = symmetric, scale_type, zero_point_type, rounding, scale_rule, axis
        self._take(checked(dtype, spelled_scheme(scheme), *options))

    def _take(self, facts: tuple[Any, ...]) -> None:
        """Becomes what the facts say; one by one, as torch.compile sees it."""
        for name, fact in zip(FACTS, facts, strict=True):
            object.__setattr__(self, name, fact)

    @cached_property
    def scaled(self) -> bool:
        """Is there a scale, or the scales of blocks?  False where a wide float is cast."""
        return self.scheme is not None or self.blocked

    def __repr__(self) -> str:
        if not isinstance(spelled(self.dtype), str):
            return f"QuantSpec.parse({self.text!r})"
        given = [f"{name}={fact!r}" for name, fact in self.options.items() if name != "dtype"]
        return f"QuantSpec({', '.join([repr(self.dtype.name), *given])})"

    def __reduce__(self) -> tuple[Any, ...]:
        return spec_of_text, (self.text,)

    @property
    def options(self) -> dict[str, Any]:
        """What it is made with, without what says nothing."""
        found: dict[str, Any] = {"dtype": self.dtype}
        asks = getattr(self.dtype, "wide", False)  # of a wide float any scheme asks for a scale
        if self.scheme is not None and (
            asks or isinstance(self.dtype, Block) or self.scheme.kind != "per_tensor"
        ):
            found["scheme"] = self.scheme_text
        for name in OPTIONS[1:]:
            fact = getattr(self, name)
            if fact is not None and fact != SILENT[name]:
                found[name] = fact
        return found

    @keywords
    def replace(self, **changes: Any) -> QuantSpec:
        """The same with other options; raises NumericsError where they do not fit together.

        >>> QuantSpec("int4").replace(symmetric=False, rounding="floor")
        QuantSpec('int4', symmetric=False, rounding='floor')
        """
        if unknown := [name for name in changes if name not in ("dtype", *OPTIONS)]:
            raise unknown_argument(QuantSpec, unknown)
        return QuantSpec(**{**self.options, **changes})

    @property
    def rows(self) -> int:
        """Of a block format: how many rows of blocks share a scale, each keeping it; 1 without a scheme."""
        return 1 if self.scheme is None or self.scheme.block is None else self.scheme.block[0]

    @cached_property
    def scheme_text(self) -> str | None:
        """The scheme as a text."""
        return None if self.scheme is None else repr(self.scheme)

    @cached_property
    def text(self) -> str:
        """The options as JSON, without what says nothing: an operator's argument, a word of a pickle.

        >>> QuantSpec("int4", scheme="per_group(32)").text
        '{"dtype": "int4", "scheme": "per_group(32, axis=-1)"}'
        """
        return text_of_facts(tuple(getattr(self, f.name) for f in fields(self)))

    @staticmethod
    @required
    def parse(text: str, *unnamed: Never) -> QuantSpec:
        """Returns the spec of a text that `text` gave; raises NumericsError for another."""
        if unnamed:
            raise unknown_argument(QuantSpec.parse, (), (text,), unnamed)
        letters = text if type(text) is str else text_in(text)
        if letters is None:
            if text is MISSING:
                raise unknown_argument(QuantSpec.parse, (), (text,))
            raise NumericsError(f"{said(text)} is not the text of a QuantSpec")
        return _parsed(letters)

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, f.name) for f in fields(self)))

    def __hash__(self) -> int:
        return self._hash  # once: what a tensor consists of is looked up by it in every call

    @cached_property
    def element(self) -> Element:
        """The format, where it is one of single numbers; raises NumericsError for one of blocks."""
        self._check_kind("has blocks, not elements alone", blocked=False)
        return cast(Element, self.dtype)

    @cached_property
    def block(self) -> Block:
        """The format, where it is one of blocks; raises NumericsError for one of single numbers."""
        self._check_kind("has no blocks", blocked=True)
        return cast(Block, self.dtype)

    @cached_property
    def blocked(self) -> bool:
        """Is it a format of blocks?"""
        return isinstance(self.dtype, Block)

    @cached_property
    def clips(self) -> bool:
        """Does it lose negative values: is its format unsigned, its range not shifted?"""
        return not self.blocked and self.symmetric and not self.element.signed

    @cached_property
    def scheme_of_elements(self) -> Scheme:
        """The scheme, where the format is one of single numbers; raises NumericsError for one of blocks."""
        self._check_kind("has blocks, which have a size of their own, and no scheme", blocked=False)
        return per_tensor() if self.scheme is None else self.scheme

    def partition(self, shape: tuple[int, ...]) -> Partition:
        """Which elements of a tensor share a scale; raises NumericsError for a format of blocks."""
        try:  # what Scheme.partition asks too: a call less on the way of every tensor
            return partition_of(self.scheme_of_elements, shape)
        except Exception:
            return self.scheme_of_elements.partition(shape)

    def stored_scale_type(self, original: str) -> str:
        """The type of the scales of a tensor of that type: `float` means its own."""
        own = "float64" if original == "python" else original
        return own if self.scale_type == "float" else self.known_scale_type

    @property
    def known_scale_type(self) -> str:
        """The type of the scales, of those that are 1, too."""
        return self.scale_type or "float32"

    def affine_options(self, original: str) -> AffineOptions:
        """What the backend must know to find a scale; raises NumericsError for a format of blocks."""
        return _affine_options(self, original)

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
        """The blocks of a tensor of that shape; raises NumericsError for a format of single numbers."""
        size = self.block.block
        return Blocking(shape, check_axis(cast(int, self.axis), shape), size)

    def short(self, shape: tuple[int, ...]) -> str:
        """Which groups or blocks of a tensor of that shape have fewer elements than was asked, in words.

        A size of -1, which a graph leaves open, says nothing; nor do shapes that lack the axis.

        >>> QuantSpec("int4", scheme="per_group(128)").short((64, 200)), QuantSpec("mxfp4").short((64, 48))
        ('last groups of 72', 'last blocks of 16')
        >>> QuantSpec("int4", scheme="per_group(128)").short((64, 48)), QuantSpec("int4").short((64, 48))
        ('groups of 48', '')
        >>> QuantSpec("int8", scheme="per_block((128, 128))").short((130, 64))
        'last blocks of 2 rows, blocks of 64 columns'
        """
        told = (_short(what, size, shape[axis], of) for what, size, axis, of in self._sizes()
                if -len(shape) <= axis < len(shape))  # fmt: skip
        return ", ".join(text for text in told if text)

    def _sizes(self) -> list[tuple[str, int, int, str]]:
        """What shares a scale along an axis: what it is called, of how many, along which, and of what."""
        if self.scheme is not None and self.scheme.block is not None:
            rows, columns = self.scheme.block
            return [("blocks", rows, -2, " rows"), ("blocks", columns, -1, " columns")]
        if self.blocked:
            return [("blocks", self.block.block, cast(int, self.axis), "")]
        if self.scheme is not None and self.scheme.size is not None:
            return [("groups", self.scheme.size, cast(int, self.scheme.axis), "")]
        return []

    def with_scheme(self, scheme: Scheme) -> QuantSpec:
        """The same for elements that share their scales otherwise; raises NumericsError for blocks."""
        self._check_kind("has blocks, which have a size of their own, and no scheme", blocked=False)
        scheme = Scheme.parse(scheme)
        if self.scaled or scheme != per_tensor():
            return self._with(scheme=scheme, scale_type=self.known_scale_type)
        return self

    def with_scale(self) -> QuantSpec:
        """The same with a scale: that of a cast is given."""
        return self if self.scaled else self._with(scheme=per_tensor(), scale_type="float32")

    def with_axis(self, axis: int) -> QuantSpec:
        """The same for blocks along another axis; raises NumericsError for a format of single numbers."""
        self._check_kind("has no blocks, and no axis along which they lie", blocked=True)
        axis = integer("axis", axis)
        if self.rows > 1 and axis != -1:
            raise NumericsError(
                f"{self!r}: axis={axis} cannot be: rows of blocks lie along the last axis, -1"
            )
        return self._with(axis=axis)

    def with_dtype(self, dtype: Dtype) -> QuantSpec:
        """The same for another format, of which it keeps what that can have.

        Raises NumericsError for single numbers in place of blocks, and for blocks in place of them.
        """
        dtype = find_dtype(dtype)
        if isinstance(dtype, Block) and self.scheme is not None and self.scheme.block is not None:
            tile_scheme(dtype, self.scheme, cast(int, self.axis))
        if isinstance(dtype, Block) is not self.blocked:
            raise NumericsError(
                f"{self.dtype} to {dtype}: scales of blocks and scales by a scheme do not become each other; "
                f"give QuantSpec({dtype.name!r}, ...)"
            )
        kept = self if self.scaled or getattr(dtype, "wide", False) else self.with_scale()
        anew = {} if self.scale_rule in dtype.scale_rules else FOUND_ANEW
        return kept._with(dtype=dtype, **anew, **({} if dtype.kind in ("integer", "block") else FOR_INTEGERS))

    def _check_kind(self, what: str, blocked: bool) -> None:
        """Raises NumericsError unless the format is one of blocks, or none of them, as it is due."""
        if self.blocked is not blocked:
            raise NumericsError(f"{self!r}: {self.dtype} {what}")

    def _with(self, **facts: Any) -> QuantSpec:
        """The same with other facts, which are known to fit."""
        made = object.__new__(QuantSpec)
        found = tuple(facts.get(f.name, getattr(self, f.name)) for f in fields(self))
        made._take((*found, found[1] and repr(found[1]), text_of_facts(found)))
        return made

    def check_given(self, given: Given) -> None:
        """Raises NumericsError for scales that are given to a format that finds them itself, or has none."""
        if not isinstance(given, Given):
            raise NumericsError(
                f"what is given is a scale, a zero point and a tensor scale, not {said(given)}"
            )
        scale, zero_point, tensor_scale = given
        if tensor_scale is not None and not (self.blocked and self.block.has_tensor_scale):
            raise no_tensor_scale(self.dtype)
        if self.blocked:
            refuse(
                self.dtype, {"scale": scale, "zero_point": zero_point}, dict.fromkeys(("scale", "zero_point"))
            )


@lru_cache(maxsize=1024)
def _affine_options(spec: QuantSpec, original: str) -> AffineOptions:
    """`QuantSpec.affine_options`, remembered: every call with a tensor asks."""
    spec._check_kind("has blocks, which find their scales themselves", blocked=False)
    kept = spec.stored_scale_type(original), spec.zero_point_type
    return AffineOptions(spec.symmetric, *kept, spec.scale_rule == FULL_RANGE)


def _check_full_range(d: Dtype, symmetric: bool) -> None:
    if not (FULL_RANGE in d.scale_rules and symmetric):
        how = "" if symmetric else " with symmetric=False"
        raise NumericsError(
            f"{d}{how}: scale_rule={FULL_RANGE!r} cannot be; it is of symmetric signed integers whose range "
            "is not, such as int8; leave it away"
        )


FACTS = (*(f.name for f in fields(QuantSpec)), "scheme_text", "text")


def checked(*asked: Any) -> tuple[Any, ...]:
    """The facts of a QuantSpec, in the order of FACTS: a constant for torch.compile.

    asked: a format and OPTIONS in their order.  Raises NumericsError for options that contradict each other.
    """
    dtype, scheme, symmetric, scale_type, zero_point_type, rounding, scale_rule, axis = asked
    if isinstance(dtype, QuantSpec):
        raise NumericsError(f"{dtype!r} is a QuantSpec already; give spec.replace(...) for other options")
    try:
        found = find_dtype(dtype)
    except NumericsError:
        if (words := words_in(dtype)) is None:
            raise
        return checked(*_with_words(words, asked))
    blocked = isinstance(found, Block)
    if scale_type is not None:
        scale_type = one_of("scale type", scale_type, SCALE_TYPES, OWN_TYPE)
    zero_point_type = one_of("zero point type", zero_point_type, ZERO_POINT_TYPES)
    scale_rule = check_rule(scale_rule, found.scale_rules, (*SCALE_RULES, FULL_RANGE))
    symmetric = truth("symmetric", symmetric)
    axis = -1 if axis is None and not blocked else integer("axis", axis)
    if blocked and scheme is not None:
        scheme = tile_scheme(cast(Block, found), scheme, axis)
    given = {"scheme": None if blocked else scheme, "symmetric": symmetric, "scale_type": scale_type,
             "zero_point_type": zero_point_type, "scale_rule": scale_rule, "axis": axis}  # fmt: skip
    if scale_rule == FULL_RANGE:
        _check_full_range(found, symmetric)
        given["scale_rule"] = DEFAULTS["scale_rule"]  # it is theirs, too
    refuse(found, given, FOR_ELEMENTS if blocked else FOR_BLOCKS)
    if isinstance(found, Block):
        found.check_scale_rule(scale_rule)
    elif found.kind != "integer":
        refuse(found, given, FOR_INTEGERS)
    scaled = scheme is not None or scale_type is not None or not getattr(found, "wide", False)
    if not blocked and scaled:
        scheme = Scheme.parse(per_tensor() if scheme is None else scheme)
        scale_type = scale_type or "float32"
    facts = (found, scheme, symmetric, scale_type, zero_point_type, check_rounding(rounding), scale_rule,
             axis if blocked else None)  # fmt: skip
    return (*facts, scheme and repr(scheme), text_of_facts(facts))


def _with_words(words: dict[str, Any], asked: tuple[Any, ...]) -> tuple[Any, ...]:
    """What is asked for, with what the format's text says beside its name; each once."""
    given = dict(zip(OPTIONS, asked[1:], strict=True))
    twice = [name for name in words if name != "dtype" and given[name] != DEFAULTS[name]]
    if twice:
        raise NumericsError(
            f"{twice[0]}={said(given[twice[0]])} beside {said(asked[0])}, which says it: give one of them"
        )
    given |= words
    return given.pop("dtype"), spelled_scheme(given.pop("scheme")), *(given[name] for name in OPTIONS[1:])


def tile_scheme(d: Block, came: Any, axis: int) -> Scheme:
    """The scheme of a block format: rows of blocks share a scale; raises NumericsError for another."""
    scheme = Scheme.parse(came)
    if scheme.block is None:
        refuse(d, {"scheme": came}, {"scheme": None})
    if not isinstance(d, ElementBlock):
        raise NumericsError(f"{d}: {scheme!r} cannot be: its scales lie among the codes of each row")
    if scheme.block is not None and (scheme.block[1] != d.block or axis != -1):
        raise NumericsError(
            f"{d}: {scheme!r} along axis {axis} cannot be; rows of blocks share a scale by "
            f"per_block(({scheme.block[0]}, {d.block})), along the last axis"
        )
    return scheme


def text_of_facts(facts: tuple[Any, ...]) -> str:
    """The text of a QuantSpec."""
    dtype, scheme, *rest, axis = facts
    said: dict[str, Any] = {"dtype": spelled(dtype)}
    if scheme is not None:
        said["scheme"] = repr(scheme)
    for name, fact in zip(OPTIONS[1:-1], rest, strict=True):
        if fact is not None and fact != SILENT[name]:
            said[name] = fact
    return json.dumps(said if axis is None else {**said, "axis": axis})


def spec_of_text(text: str) -> QuantSpec:
    """What a pickle calls: `torch.load(weights_only=True)` takes functions, no methods."""
    return QuantSpec.parse(text)


@lru_cache(maxsize=1024)
def _parsed(text: str) -> QuantSpec:
    no_text = f"{said(text)} is not the text of a QuantSpec"
    try:
        facts = facts_in(text, "a QuantSpec")
    except NumericsError as wrong:
        raise NumericsError(f"{no_text}: {wrong.__cause__ or wrong}") from wrong
    if "dtype" not in facts:
        near = next(filter(None, (hint(name, ["dtype"]) for name in facts)), "")
        raise NumericsError(f"{no_text}: it says no dtype{';' * bool(near)}{near}")
    try:
        return QuantSpec(read(facts.pop("dtype")), **facts)
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as wrong:
        raise NumericsError(f"{no_text}: {wrong!s:.400}") from wrong


@lru_cache(maxsize=1024, typed=True)  # 1.0 and True equal 1, and are refused
def _known(given: bool, dtype: Any, *options: Any) -> QuantSpec:
    made = spec_with(dtype, dict(zip(OPTIONS, options, strict=True)))
    return made.with_scale() if given else made


def spec_with(dtype: Any, options: Mapping[str, Any]) -> QuantSpec:
    """A QuantSpec that came, or one of a format and of those options that are given.

    Raises NumericsError for an option that is given beside a QuantSpec, which says them all.
    """
    given = {name: came for name, came in options.items() if type(came) is not Default}
    if not isinstance(dtype, QuantSpec):
        return QuantSpec(dtype, **given)
    for name, came in given.items():
        raise NumericsError(
            f"{name}={said(came)} beside a QuantSpec cannot be: it says all options; "
            f"give spec.replace({name}=...)"
        )
    return dtype


def described(spec: QuantSpec | None) -> str:
    """A format and its options in a few words.

    >>> described(QuantSpec("int4", scheme="per_group(32)", symmetric=False))
    'int4 per_group(32, axis=-1) symmetric=False'
    """
    if spec is None:
        return "-"
    options = {k: v for k, v in spec.options.items() if k != "dtype"}
    return " ".join(
        [told_apart(spec.dtype), *(str(v) if k == "scheme" else f"{k}={v}" for k, v in options.items())]
    )


def _short(what: str, size: int, length: int, of: str) -> str:
    """What is said of groups along an axis of that length; nothing where all are whole."""
    if length <= 0 or length % size == 0:
        return ""
    return f"{what} of {length}{of}" if length < size else f"last {what} of {length % size}{of}"


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
    """A fact of what `spec_of` gives: a constant for torch.compile.  ABSENT stands for a default."""
    given, dtype, *options = asked
    filled = (OMITTED[i] if option == ABSENT else option for i, option in enumerate(options))
    fact: str = getattr(spec_of(given, dtype, *filled), name)
    return fact


def facts_beside(name: str, given: bool, text: str, *options: Any) -> str:
    """The same of a spec, by its text, with what stands beside it."""
    return spec_facts(name, given, QuantSpec.parse(text), *options)


# Options that a kind of format cannot have, with the defaults that say nothing.
FOR_ELEMENTS = {name: DEFAULTS[name] for name in ("scheme", "symmetric", "scale_type", "zero_point_type")}
FOR_BLOCKS = {name: DEFAULTS[name] for name in ("scale_rule", "axis")}
FOUND_ANEW = {"scale_rule": DEFAULTS["scale_rule"]}
FOR_INTEGERS = {name: DEFAULTS[name] for name in ("symmetric", "zero_point_type")}
_WHY = {
    "block": "blocks have a size of their own and find their scales; allowed: axis=, scale_rule=, rounding=",
    "integer": "an integer format takes scheme=; axis= and other rules belong to block formats, and "
    "nx.observe has scales of the least error (MSE)",
    "codebook": "a codebook takes scheme= and is symmetric; "
    "zero points belong to integers, axis= and scale_rule= to block formats",
    "float": "a float format takes scheme= and is symmetric; "
    "zero points belong to integers, axis= and scale_rule= to block formats",
}


def refuse(dtype: Dtype, given: Mapping[str, Any], silent: Mapping[str, Any]) -> None:
    """Raises NumericsError for an option that is given though the format cannot have it."""
    for name, default in silent.items():
        came = given[name]
        if came is not default and not (type(came) is type(default) and came == default):
            own = f"; allowed here: scale_rule={FULL_RANGE!r}" if _may_be_full(dtype, name, given) else ""
            raise NumericsError(f"{dtype}: {name}={said(came)} cannot be: {_WHY[dtype.kind]}{own}")


def _may_be_full(d: Dtype, name: str, given: Mapping[str, Any]) -> bool:
    """Is it a scale rule that came, where full_range may be?"""
    return name == "scale_rule" and FULL_RANGE in d.scale_rules and given.get("symmetric", True) is not False
