"""Calls that do not fit a function: keywords that it does not take, which other libraries call an option,
more arguments than have a place in it, and those that it needs and did not get.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, Never, ParamSpec, TypeVar

from numerics.formats.errors import NumericsError, hint, kind_of, said, text_in

P = ParamSpec("P")
T = TypeVar("T")

_KIN = (
    ("scheme", "scheme=nx.per_group(32) shares a scale among so many; blocks have a size of their own",
     "group_size groupsize q_group_size block_size blocksize block_shape weight_block_size block group"),
    ("scheme", "scheme= takes 'per_tensor', 'per_token', nx.per_channel(0), nx.per_group(32) and others",
     "granularity qscheme strategy per_tensor per_token per_channel channelwise"),
    ("scheme", "axis= is of blocks; scheme= takes nx.per_channel(axis) and nx.per_group(size, axis)",
     "ch_axis channel_axis dim reduce_dim quant_axis block_axis"),
    ("dtype", "dtype= takes the name of a format, which says how many bits it has",
     "bits num_bits n_bits nbits wbits bitwidth qtype quant_type quant_dtype target_dtype torch_dtype type "
     "fmt format elem_dtype elem_format element_dtype mx_element_dtype weight_dtype float8_dtype out_dtype"),
    ("symmetric", "symmetric=False finds a zero point",
     "sym asym asymmetric is_symmetric symmetry mapping_type zero_point_domain preserve_zero use_zero_point"),
    ("rounding", "rounding= takes half_even, stochastic and others",
     "round round_method rounding_mode round_mode rmode stochastic"),
    ("seed", "seed= takes an integer, which draws the same bits everywhere",
     "generator rng random_state manual_seed key"),
    ("scale_rule", "scale_rule= is how a scale is found; nx.observe has what looks at batches first",
     "scale_calculation_mode scale_calculation scaling_mode scale_mode scale_method observer observer_cls"),
    ("scale_type", "scale_type= takes float32, float16, bfloat16, float and pof2",
     "scale_dtype scales_dtype scale_format pof2"),
    ("zero_point_type", "zero_point_type= takes int32 and float32", "zero_point_dtype zp_dtype"),
    ("zero_point", "zero_point= takes given ones", "zp zeros zero_points qzeros"),
    ("scale", "scale= takes given ones", "scales absmax scaling_factor"),
    ("tensor_scale", "tensor_scale= is the one scale of a whole tensor",
     "global_scale per_tensor_scale double_scale amax"),
    ("overflow", "overflow= takes saturate and nonsaturate", "saturate saturation satfinite clamp"),
    ("rules", "rules={'lm_head': None} leaves it in floats",
     "exclude skip ignore modules_to_not_convert filter_fn"),
    ("observer", "observer='mse(bins=512)' and observer='percentile(99.9)' say it",
     "bins num_bins nbins percentile averaging_constant moving_average averaging"),
    ("exponent", "exponent= is how many bits it has", "exponent_bits ebits exp_bits"),
    ("mantissa", "mantissa= is how many bits it has", "mantissa_bits mbits man_bits"),
)  # fmt: skip
"""An option, what it takes, and what torchao, bitsandbytes, Quark, ModelOpt and others call it."""
MEANT = {word: (option, way) for option, way, words in _KIN for word in words.split()}
_BITS = ("bits", "num_bits", "n_bits", "nbits")
_DRAWN = "how many random bits decide, random_bits=nx.random_bits(shape, seed, bits=8) says"
_SIZES = frozenset(_KIN[0][2].split())
"""What others call the size of a group or block."""
SIZED: list[Callable[[Any, Sequence[Any]], str]] = []
"""What says of a size, and of what a call was given, which block format has it: set by `blocks`."""
_ELSEWHERE = ("weights", "plan")  # what takes a format with its options in one, where no option stands alone


class UnknownArgument(NumericsError, TypeError):
    """A function was called with a keyword that it does not take, or with more arguments than places: a
    TypeError to whoever waits for that.
    """


class MissingArgument(NumericsError, TypeError):
    """A function was called without what it needs: a TypeError to whoever waits for that.

    names: what is missing.
    """

    def __init__(self, text: str, names: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.names = tuple(names)


MISSING: Any = type("Missing", (), {"__repr__": lambda self: "MISSING"})()
"""What stands for an argument that was not given, in a function that is `required`."""


def required(function: Callable[P, T]) -> Callable[P, T]:
    """The same function, in which MISSING stands for an argument that it needs and did not get.

    It costs no call: whoever reads its signature finds what it takes, and the function itself raises
    `unknown_argument`, which says what is missing, and what is too much where it has `*unnamed: Never` and
    `**unknown: Never`, which no signature shows.
    """
    signature = inspect.signature(function)
    signature = signature.replace(
        parameters=[p for p in signature.parameters.values() if p.name not in ("unnamed", "unknown")]
    )
    needed = _needed(signature)
    by_place = [
        name for name in needed if signature.parameters[name].kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    made: Any = function
    made.__signature__ = signature
    made.__defaults__ = (*([MISSING] * len(by_place)), *(made.__defaults__ or ()))
    made.__kwdefaults__ = {name: MISSING for name in needed if name not in by_place} | (
        made.__kwdefaults__ or {}
    )
    return function


def _needed(signature: inspect.Signature) -> list[str]:
    """The names of what a call has to give."""
    named = (p for p in signature.parameters.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
    return [p.name for p in named if p.default is p.empty and p.name not in ("self", "cls")]


def unknown_argument(
    function: Callable[..., Any],
    unknown: Iterable[str],
    needed: Sequence[Any] = (),
    unnamed: Sequence[Any] = (),
    also: Iterable[str] = (),
) -> UnknownArgument | MissingArgument:
    """Returns the error of a call that does not fit: the right word for a keyword that the function does not
    take, and all that it takes; the name for an argument that stands where it has no place; and what it needs
    and did not get, with a call that gives it.

    function: what was called; a class by what it is made with.  unknown: what it does not take, of which the
    first is told, and its value where it is by name.  needed: what came for the arguments that it needs, in
    their order, MISSING for what did not.  unnamed: what came by place beyond the last of its places.
    also: what it takes beside what its signature names.

    >>> def per_group(size, axis=-1): ...
    >>> print(unknown_argument(per_group, ["sise"]))
    per_group takes no sise=; did you mean 'size'? allowed: size, axis
    >>> print(unknown_argument(per_group, [], [MISSING]))
    per_group needs size, as in per_group(size); allowed: size, axis
    >>> print(unknown_argument(per_group, [], [32, 0], [3]))
    per_group takes 2 arguments, size and axis: 3 is one too many
    """
    name = next(iter(unknown), None)
    allowed = list(dict.fromkeys([*taken(function), *also]))
    called = function.__qualname__.removesuffix(".__init__")
    if name is None and unnamed:
        return _too_many(called, function, allowed, unnamed)
    names = [
        one
        for one, came in zip(_needed(inspect.signature(function)), needed, strict=False)
        if came is MISSING
    ]
    needs = f"needs {listed(names)}, as in {_example(function)};" if names else ""
    if name is None:
        return MissingArgument(f"{called} {needs} allowed: {', '.join(allowed)}", names)
    size = unknown.get(name) if isinstance(unknown, Mapping) else None
    of_blocks = SIZED[0](size, needed) if SIZED and name.lower() in _SIZES else ""
    way = of_blocks or _way(name, allowed)
    return UnknownArgument(
        f"{called} takes no {said(name)[1:-1]}=;{way}{needs and f' it {needs}'} allowed: {', '.join(allowed)}"
    )


def _example(function: Callable[..., Any]) -> str:
    """A call of the function: the first that its docstring shows on a line, else one of what it needs."""
    name = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
    for line in (inspect.getdoc(function) or "").splitlines():
        begins = re.search(rf"[\w.]*\b{name}\(", line) if line.startswith(">>> ") else None
        if begins and (ends := _closed(line, begins.end())):
            return line[begins.start() : ends]
    return f"{name}({', '.join(_needed(inspect.signature(function)))})"


def _too_many(
    called: str, function: Callable[..., Any], allowed: Sequence[str], unnamed: Sequence[Any]
) -> UnknownArgument:
    """The error of a call with more arguments than have a place: what else is taken goes by its name."""
    by_place = places(function)
    count = f"{len(by_place) or 'no'} argument{'s' * (len(by_place) != 1)}"
    names = f", {listed(by_place)}" if by_place else ""
    named = [name for name in allowed if name not in by_place]
    if not (named or _takes_options(function)):
        more = "is one too many" if len(unnamed) == 1 else f"and what follows are {len(unnamed)} too many"
        return UnknownArgument(f"{called} takes {count}{names}: {said(unnamed[0])} {more}")
    option = option_of(unnamed[0])
    way = f", {option}={said(unnamed[0])}" if option in named else ""
    return UnknownArgument(
        f"{called} takes {count} by place{names}: {said(unnamed[0])} needs its name{way}; "
        f"allowed: {', '.join(allowed)}"
    )


def _takes_options(function: Callable[..., Any]) -> bool:
    """Does it hand on options that its signature does not name?"""
    found = inspect.signature(function).parameters.values()
    return any(p.kind is p.VAR_KEYWORD and p.name != "unknown" for p in found)


def option_of(value: Any) -> str:
    """The option whose value that is, where its words or its class say so; else nothing.

    >>> option_of("per_tensor"), option_of("half_even"), option_of(32)
    ('scheme', 'rounding', '')
    """
    from numerics.formats.rounding import OVERFLOWS, ROUNDINGS, SCALE_RULES

    text = text_in(value)
    if text is None:
        return "scheme" if kind_of(value) == "Scheme" else ""
    words = {"scheme": ("per_",), "rounding": ROUNDINGS, "overflow": OVERFLOWS, "scale_rule": SCALE_RULES}
    return next((option for option, begun in words.items() if text.lower().startswith(tuple(begun))), "")


def places(function: Callable[..., Any]) -> list[str]:
    """The names of what a function takes by place, without `self`.

    >>> places(unknown_argument)
    ['function', 'unknown', 'needed', 'unnamed', 'also']
    """
    of_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = inspect.signature(function).parameters.values()
    return [p.name for p in found if p.kind in of_place and p.name not in ("self", "cls")]


def listed(names: Sequence[str]) -> str:
    """Returns names as a sentence has them.

    >>> listed(["x"]), listed(["x", "q", "dtype"])
    ('x', 'x, q and dtype')
    """
    return " and ".join([*([", ".join(names[:-1])] if names[1:] else []), *names[-1:]])


def _closed(line: str, place: int) -> int | None:
    """Where what is open at that place of a line closes; None where it does not."""
    depth = 1
    for k in range(place, len(line)):
        depth += (line[k] in "([{") - (line[k] in ")]}")
        if not depth:
            return k + 1
    return None


def taken(function: Callable[..., Any]) -> list[str]:
    """The names of what a function takes; of a class also of its bases, where it hands the rest to them.

    >>> taken(unknown_argument)
    ['function', 'unknown', 'needed', 'unnamed', 'also']
    """
    made = [vars(kind)["__init__"] for kind in getattr(function, "__mro__", ()) if "__init__" in vars(kind)]
    found: dict[str, None] = {}
    for one in made or [function]:
        parameters = inspect.signature(one).parameters.values()
        named = (p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
        found |= dict.fromkeys(p.name for p in named if p.name not in ("self", "cls"))
        if not any(p.kind is p.VAR_KEYWORD and p.name != "unknown" for p in parameters):
            break
    return list(found)


def _way(name: str, allowed: list[str]) -> str:
    """What is said of a word of others, where what it means is allowed; else the nearest of the names."""
    option, way = MEANT.get(name.lower(), ("", ""))
    drawn = f" {_DRAWN};" if name.lower() in _BITS and "random_bits" in allowed else ""
    if option in allowed:
        return f" {way};{drawn}"
    if drawn:
        return drawn
    spec = next((one for one in _ELSEWHERE if one in allowed), None)
    if spec is not None and name.lower() == "dtype":
        return f" {spec}= takes the name of a format, as in {spec}='mxfp4';"
    if way and spec is not None:
        return f" {spec}=nx.QuantSpec(...) says it: {way};"
    if option == "observer":  # and nothing here looks at batches: what is spelled alike means another thing
        return ""
    return hint(name, allowed)


def given(signature: inspect.Signature, args: Sequence[Any], options: Mapping[str, Any]) -> list[Any]:
    """Returns what a call gives for each argument that it has to give: MISSING where it gives nothing.

    >>> given(inspect.signature(lambda x, dtype: x), [1], {})
    [1, MISSING]
    """
    by_place = [p.name for p in signature.parameters.values() if p.kind is not p.KEYWORD_ONLY]
    came = {**dict(zip(by_place, args, strict=False)), **options}
    return [came.get(name, MISSING) for name in _needed(signature)]


def misfit(function: Any, args: Sequence[Any], options: Mapping[str, Any]) -> Exception | None:
    """Returns the error of a call that raised a TypeError; None where it fits, so that the error is another.

    The signature is made here, and held by no function of `keywords`, since torch's graphs have none.

    >>> misfit(lambda size, axis=-1: size, (32,), {}) is None
    True
    """
    signature = inspect.signature(function)
    kinds = [p.kind for p in signature.parameters.values()]
    takes_all = inspect.Parameter.VAR_KEYWORD in kinds
    unnamed: Sequence[Any] = ()
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        unnamed = args[len(kinds) - kinds.count(inspect.Parameter.KEYWORD_ONLY) - takes_all :]
    unknown = {} if takes_all else {k: v for k, v in options.items() if k not in signature.parameters}
    needed = given(signature, args, options)
    if not (unknown or unnamed or any(one is MISSING for one in needed)):
        return None
    made: Any = type(args[0]) if function.__name__ == "__init__" and args else function
    return unknown_argument(made, unknown, needed, unnamed)


def keywords(function: Callable[P, T]) -> Callable[P, T]:
    """The function, which names the right word where it is given a keyword that it does not take, what has no
    place where it is given too much, and what it needs where it does not get it.

    It costs a call more: what is called for every tensor is `required`, takes `*unnamed: Never` and
    `**unknown: Never` itself and raises `unknown_argument`.
    """

    @functools.wraps(function)
    def asked(*args: P.args, **options: P.kwargs) -> T:
        try:
            return function(*args, **options)
        except TypeError as wrong:
            within = wrong.__traceback__ is not None and wrong.__traceback__.tb_next is not None
            told = None if within else misfit(function, args, options)
            if told is None:
                raise
        raise told

    return asked


def named_fields(kind: type[T]) -> type[T]:
    """The same dataclass, which answers what does not fit its fields as functions of `keywords` do."""
    made: Any = kind
    made.__init__ = keywords(made.__init__)
    return kind


class _Called(ModuleType):
    """A module that answers a call with what in it can be called: Python's own error does not name it.

    >>> import numerics as nx
    >>> nx.interop([1.0])
    Traceback (most recent call last):
        ...
    numerics.formats.arguments.UnknownArgument: nx.interop is a module, not a function; it has as_arrays, \
as_tensors, from_gguf, from_native, from_native_packed, gguf_type, to_gguf, to_native, to_native_packed
    """

    def __call__(self, *_: Any, **__: Any) -> Never:
        """Raises UnknownArgument."""
        own = self.__name__
        public = getattr(self, "__all__", None) or [
            name
            for name, thing in vars(self).items()
            if name[0] != "_" and getattr(thing, "__module__", "") == own
        ]
        has = [name for name in public if name[0].islower() or inspect.isclass(getattr(self, name))]
        raise UnknownArgument(
            f"nx.{own.rpartition('.')[2]} is a module, not a function; it has {', '.join(has)}"
        )


def answer_calls(module: str) -> None:
    """The module of that name says what in it can be called where somebody calls the module itself."""
    sys.modules[module].__class__ = _Called
