"""Keywords that a function does not take: what other libraries call an option, and its name here."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from numerics.formats.errors import NumericsError, hint, said

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
    ("exponent", "exponent= is how many bits it has", "exponent_bits ebits exp_bits"),
    ("mantissa", "mantissa= is how many bits it has", "mantissa_bits mbits man_bits"),
)  # fmt: skip
"""An option, what it takes, and what torchao, bitsandbytes, Quark, ModelOpt and others call it."""
MEANT = {word: (option, way) for option, way, words in _KIN for word in words.split()}
_ELSEWHERE = ("weights", "plan")  # what takes a format with its options in one, where no option stands alone


class UnknownArgument(NumericsError, TypeError):
    """A function was called with a keyword that it does not take: a TypeError to whoever waits for that."""


def unknown_argument(
    function: Callable[..., Any], unknown: Iterable[str], called: str = "", also: Iterable[str] = ()
) -> UnknownArgument:
    """Returns the error of a keyword that a function does not take: the right word, and all that it takes.

    function: what was called; a class by what it is made with.  unknown: what it does not take, of which the
    first is told.  called: its name, where that is another than the function's own.  also: what it takes
    beside what its signature names.

    >>> def per_group(size, axis=-1): ...
    >>> print(unknown_argument(per_group, ["sise"]))
    per_group takes no sise=; did you mean 'size'? allowed: size, axis
    """
    name = next(iter(unknown))
    allowed = list(dict.fromkeys([*taken(function), *also]))
    called = called or function.__qualname__
    return UnknownArgument(
        f"{called} takes no {said(name)[1:-1]}=;{_way(name, allowed)} allowed: {', '.join(allowed)}"
    )


def taken(function: Callable[..., Any]) -> list[str]:
    """The names of what a function takes; of a class also of its bases, where it hands the rest to them.

    >>> taken(unknown_argument)
    ['function', 'unknown', 'called', 'also']
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
    if option in allowed:
        return f" {way};"
    spec = next((one for one in _ELSEWHERE if one in allowed), None)
    if way and spec is not None:
        return f" {spec}=nx.QuantSpec(...) says it: {way};"
    return hint(name, allowed)


def keywords(function: Callable[P, T]) -> Callable[P, T]:
    """The function, which names the right word where it is given a keyword that it does not take.

    It costs a call more: what is called for every tensor takes `**unknown: Never` itself and raises
    `unknown_argument`.
    """
    signature = inspect.signature(function)
    takes_all = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())

    @functools.wraps(function)
    def asked(*args: P.args, **options: P.kwargs) -> T:
        try:
            return function(*args, **options)
        except TypeError as wrong:
            within = wrong.__traceback__ is not None and wrong.__traceback__.tb_next is not None
            unknown = [name for name in options if name not in signature.parameters]
            if within or takes_all or not unknown:
                raise
        raise unknown_argument(function, unknown)

    return asked
