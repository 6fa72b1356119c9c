"""The names of the rounding modes, of the overflow policies and of the scale rules of blocks."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from numerics.formats.errors import NumericsError, integer, one_of, said, text_in

NEAREST: Final = ("half_even", "half_away", "half_up", "half_down")
DIRECTED: Final = ("toward_zero", "floor", "ceil", "to_odd")
DETERMINISTIC: Final = NEAREST + DIRECTED
ROUNDINGS: Final = (*DETERMINISTIC, "stochastic")
"""half_even, half_away: IEEE 754-2019 §4.3.1.  half_up, half_down: ties toward +Inf, -Inf.
toward_zero, floor, ceil: §4.3.2.  to_odd: an inexact result takes the odd neighbour.
stochastic: away from zero when (discarded fraction) + R/2**30 >= 1, R uniform in [0, 2**30)."""

CALLED: Final = {"round": "half_away"}
"""What others call a rounding: round is AMD Quark's word."""

_EVEN, _AWAY = "did you mean 'half_even'?", "did you mean 'half_away'?"
_NEAREST = (
    "to the nearest there are four, by where ties go: did you mean 'half_even', as in IEEE 754 and torch, "
    "or 'half_away'?"
)
_FEWER = "random_bits=nx.random_bits(shape, seed, bits=N)"
_RULE_A = f"it is 'stochastic' with {_FEWER};"  # of IEEE P3109, as the next two
_RULE_B = f"it is 'stochastic' with half a unit below the bits: {_FEWER} | 1 << (29 - N);"
_RULE_C = (
    "it rounds the fraction to N bits before it adds R, as nothing here does: 'stochastic' is StochasticA;"
)
_ZERO, _DOWN, _UP = "did you mean 'toward_zero'?", "did you mean 'floor'?", "did you mean 'ceil'?"
MEANT: Final = {
    "rne": _EVEN, "rn": _EVEN, "rte": _EVEN, "rtne": _EVEN, "nearest_even": _EVEN, "roundtiestoeven": _EVEN,
    "rna": _AWAY, "rta": _AWAY, "nearest_away": _AWAY, "roundtiestoaway": _AWAY, "nearest": _NEAREST,
    "rtn": _NEAREST, "rz": _ZERO, "rtz": _ZERO, "trunc": _ZERO, "truncate": _ZERO, "rd": _DOWN, "rdn": _DOWN,
    "ru": _UP, "rup": _UP, "sr": "did you mean 'stochastic'?", "odd": "did you mean 'to_odd'?",
    "down": "toward -Inf is 'floor', toward zero 'toward_zero';", "up": "toward +Inf is 'ceil';",
    "stochastica": _RULE_A, "stochasticb": _RULE_B, "stochasticc": _RULE_C,
    "stochastic_a": _RULE_A, "stochastic_b": _RULE_B, "stochastic_c": _RULE_C,
}  # fmt: skip
"""What others' words for roundings mean, in lower case: said where they are refused."""

ROUNDINGS_TEXT: Final = f"{', '.join(ROUNDINGS)}; or {', '.join(f'{a} for {b}' for a, b in CALLED.items())}"
"""All of them, as a list of options says them."""

OVERFLOWS: Final = ("saturate", "nonsaturate")
_CLIPS = "did you mean 'saturate'?"
_ENDS = "what is too large becomes Inf or NaN where it is 'nonsaturate';"
_OVERFLOWS_MEANT: Final = {
    "clip": _CLIPS, "clamp": _CLIPS, "sat": _CLIPS, "satfinite": _CLIPS, "finite": _CLIPS,
    "inf": _ENDS, "nan": _ENDS, "ieee": _ENDS, "nosat": _ENDS,
}  # fmt: skip

MX_RULES: Final = ("floor", "ceil", "even", "rceil", "tosa", "bump")
"""OCP MX 1.0 §6.3 (floor); the next power of two (ceil); the maximum first rounded to the
element's precision (even); the smallest power of two that does not clip (rceil); the smallest under
which the maximum, rounded half to even, does not pass the largest (tosa: TOSA 1.0); floor, and twice
that where an element would round past the largest (bump: AMD Quark's BFP16 in torch, which also
uses the most negative integer)."""

FOUR_OVER_SIX: Final = ("four_over_six", "four_over_six_mae")
FLOAT_RULES: Final = ("floor", "ceil", "nvidia", "mse", *FOUR_OVER_SIX)
"""Of float scales: the nearest to the maximum over the largest element (floor); rounded up (ceil);
TransformerEngine's order of operations (nvidia); the code of least square error (mse); of scales to 6
and to 4 the one with less square (four_over_six) or absolute error: arXiv 2512.02010."""

SCALE_RULES: Final = tuple(dict.fromkeys((*MX_RULES, *FLOAT_RULES)))
"""Every rule of blocks; which a format has, its `scale_rules` say, as they do of single numbers."""

SCALE_RULES_TEXT: Final = (
    f"Of MX: {', '.join(MX_RULES)}; of float scales, as NVFP4's: {', '.join(FLOAT_RULES)}."
)
"""Every rule with whose it is, as a list of options says them."""

FULL_RANGE: Final = "full_range"
"""Of symmetric signed integers: amax over half of the range, 127.5, instead of the largest value, 127."""

RANDOM_BITS: Final = 30


class Draw(NamedTuple):
    """Where the random bits of stochastic rounding come from: a seed, or the bits themselves."""

    seed: int | None = None
    bits: Any = None


class Rounding(NamedTuple):
    """How a value becomes one of a format's: the options of `encode`, checked.

    mode: one of ROUNDINGS.  overflow: one of OVERFLOWS that the format has.  draw: empty but for
    stochastic rounding; executors find in it the bits themselves, in the shape of their input.
    """

    mode: str = "half_even"
    overflow: str = "saturate"
    draw: Draw = Draw()

    def drawing(self, bits: Any) -> Rounding:
        """The same with those random bits, or with none."""
        return Rounding(self.mode, self.overflow, Draw(None, bits))


class BlockOptions(NamedTuple):
    """How values become blocks: the options of a block format's `encode`, checked.

    scale_rule: one of SCALE_RULES.  mode: the rounding of the elements, one of ROUNDINGS.
    tensor_scale: the one scale of a tensor where the format has such, or None to find it.  draw: as
    in Rounding.
    """

    scale_rule: str = "floor"
    mode: str = "half_even"
    tensor_scale: float | None = None
    draw: Draw = Draw()


def check_rule(came: object, own: tuple[str, ...], every: tuple[str, ...] = SCALE_RULES) -> str:
    """The name of a scale rule, which another format may have; own: those to tell where nobody has it."""
    name = text_in(came)
    if name is not None and name in every:
        return name
    raise NumericsError.unknown("scale rule", came, own)


def check_rounding(rounding: str) -> str:
    """Returns the rounding mode of that name; `round`, AMD Quark's word, is half_away.

    Raises NumericsError for a name that is not in ROUNDINGS.
    """
    found = one_of("rounding mode", rounding, (*ROUNDINGS, *CALLED), MEANT)
    return CALLED.get(found, found)


def check_overflow(overflow: str) -> str:
    """Returns the overflow policy of that name; raises NumericsError for a name that is not in OVERFLOWS."""
    return one_of("overflow policy", overflow, OVERFLOWS, _OVERFLOWS_MEANT)


def check_random(rounding: str, seed: int | None, random_bits: object) -> int | None:
    """The seed, where one is given; refuses randomness where nothing is drawn, and drawing without it."""
    given = (seed is not None) + (random_bits is not None)
    if rounding != "stochastic" and given:
        raise NumericsError(f"seed and random_bits belong to rounding='stochastic', not {rounding!r}")
    if rounding == "stochastic" and given != 1:
        raise NumericsError("rounding='stochastic' needs either seed= or random_bits=, exactly one")
    return None if seed is None else check_seed(seed)


def draw_of(rounding: str, seed: int | None, random_bits: Any) -> Draw:
    """Where the random bits of that rounding come from; errors as of `check_random`."""
    return Draw(check_random(rounding, seed, random_bits), random_bits)


def check_seed(seed: int) -> int:
    """The seed, when it is an integer of 64 bits; raises NumericsError otherwise."""
    if not 0 <= (found := integer("seed", seed)) < 1 << 64:
        raise NumericsError(f"seed {said(seed)} is outside 0 .. 2**64 - 1")
    return found
