"""Rule: how a kernel that finds its scales itself is due to find them, and what is due under them.

Of docs/formats.md §6: one division of float32 numbers each, which NumPy rounds once; codes by the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numerics.backends.reference import lookup
from numerics.backends.reference.binary32 import QuantParams
from numerics.backends.reference.executor import ReferenceExecutor
from numerics.conform.inputs.narrow import narrowed
from numerics.conform.inputs.spread import sharing
from numerics.conform.kinds import INPUTS
from numerics.conform.scales.groups import Groups, groups_of
from numerics.conform.scales.steps import AS_DUE, ONE, Least, Steps
from numerics.formats.dtype import Element, Integer
from numerics.formats.errors import NumericsError, one_of
from numerics.formats.floats import bfloat16, float16
from numerics.formats.rounding import DETERMINISTIC, FULL_RANGE, check_rounding
from numerics.tensor.scheme import Scheme
from numerics.tensor.spec import QuantSpec, spec_with

Array = NDArray[Any]
Float32 = NDArray[np.float32]
REFERENCE = ReferenceExecutor()
LARGEST = np.finfo(np.float32).max
LEAST_OF = {"float32": 2.0**-149, **{d.name: d.smallest_subnormal for d in (float16, bfloat16)}}
MOST_OF = {"float32": float(LARGEST), **{d.name: d.max for d in (float16, bfloat16)}}
"""The smallest and the largest number of a type of scales."""
NORMAL = np.float32(2.0**-126)
NORMAL_OF = {"float32": float(NORMAL), **{d.name: d.smallest_normal for d in (float16, bfloat16)}}
"""The smallest number of a type of scales that is not subnormal."""
INT32 = (-(2.0**31), 2.0**31 - 1)
WHOLE: dict[str, Callable[[Array], Array]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "toward_zero": np.trunc,
    "half_away": lambda x: np.trunc(x + np.copysign(np.float32(0.5), x)),
}
"""Ways to make a zero point whole, beside half_even."""
POF2 = (-127, 127)
"""The exponents of the smallest and the largest scale that is a power of two."""


class ScalesClaim(NamedTuple):
    """What `check` was told about scales that a target finds, as it came; of the rest the format's text says.

    >>> ScalesClaim("per_token", rounding="half_away").options()
    {'rounding': 'half_away', 'scheme': per_token()}
    """

    scheme: Any = None
    least: Any = None
    rounding: Any = "half_even"
    scale_rule: Any = "floor"
    inputs: Any = "float32"

    def options(self) -> dict[str, Any]:
        """The options of a QuantSpec that were given; raises NumericsError for an unknown rounding."""
        steps = {"rounding": check_rounding(self.rounding), "scale_rule": self.scale_rule}
        given = {name: came for name, came in steps.items() if came != self._field_defaults[name]}
        return given if self.scheme is None else {**given, "scheme": sharing(self.scheme)}


class Found(NamedTuple):
    """What is found of a tensor: scales and zero points, and the scales before they had a type."""

    scale: Float32
    zero: NDArray[np.int32] | None
    unstored: Float32
    extent: Float32


@dataclass(frozen=True)
class Rule:
    """A spec, what a scale is at least, and how each step is done.

    >>> rule = Rule.of("int8", ScalesClaim("per_token"))
    >>> rule.find(np.float32([[0, 127], [0, 0]])).scale.tolist()
    [[1.0], [1.0]]
    """

    spec: QuantSpec
    least: Least = ONE
    inputs: str = "float32"
    steps: Steps = AS_DUE

    @classmethod
    def of(cls, dtype: Any, claim: ScalesClaim) -> Rule:
        """The rule of a format, a text of one with its options, or a QuantSpec, and of the claim beside it.

        Raises NumericsError for what does not fit together, and for blocks, which find their scales anyway.
        """
        inputs = one_of("inputs", claim.inputs, INPUTS)
        spec = spec_with(dtype, claim.options())
        if spec.blocked:
            raise NumericsError(
                f"{spec.dtype} finds the scales of its blocks itself: judge it by kind='encode' or 'round'"
            )
        spec = spec.with_scale()
        if spec.rounding not in DETERMINISTIC:
            raise NumericsError.unknown(
                "rounding mode of scales that are found", spec.rounding, DETERMINISTIC
            )
        if spec.zero_point_type != "int32":
            raise NumericsError("zero_point_type='float32' is not judged; allowed: int32")
        if inputs == "float64":
            raise NumericsError("inputs=float64 is not judged of kernels that find their scales")
        sharing(spec.scheme_of_elements)
        return cls(spec, Least.of(claim.least), inputs)

    @property
    def scheme(self) -> Scheme:
        """Which elements share a scale."""
        return self.spec.scheme_of_elements

    @property
    def element(self) -> Element:
        """The format of the codes."""
        return self.spec.element

    def __str__(self) -> str:
        said_as = [f"{self.scheme}", "amax / " + f"{self.end:.9g}"]
        if not self.spec.symmetric:
            said_as[1] = f"(max - min) / {self.end:.9g} and a zero point"
        if self.spec.known_scale_type != "float32":
            said_as.append(f"scales in {self.spec.stored_scale_type(self.inputs)}")
        return ", ".join(["scales found " + said_as[0], *said_as[1:], f"least {self.least}"])

    @property
    def end(self) -> float:
        """What the largest magnitude, or the range, becomes."""
        every = self.element.max - self.element.min
        if self.steps.end is not None:
            return self.steps.end
        if not self.spec.symmetric:
            return float(every)
        return float(every / 2 if self.spec.scale_rule == FULL_RANGE else self.element.scale_end)

    def bent(self, **steps: Any) -> Rule:
        """The same with other steps; `least` and `store` are options of the rule itself."""
        least, store = steps.pop("least", self.least), steps.pop("store", None)
        spec = self.spec if store is None else self.spec.replace(scale_type=store)
        return replace(self, spec=spec, least=least, steps=self.steps._replace(**steps))

    # ---- what is found ----------------------------------------------------------------------------

    def find(self, x: Float32) -> Found:
        """The scales and zero points of a tensor."""
        groups = groups_of(self.scheme, x.shape)
        if not x.size:
            nothing = np.ones(groups.shared, np.float32)
            zero = None if self.spec.symmetric else np.zeros(groups.shared, np.int32)
            return Found(
                nothing, zero if zero is None else self._zero(nothing * 0, nothing), nothing, nothing
            )
        low, high = (part.reshape(groups.shared) for part in self._extremes(x, groups))
        with np.errstate(all="ignore"):
            extent = self._extent(low, high)
            unstored = self._scale(extent, high / np.float32(2) - low / np.float32(2))
            scale = self._stored(unstored)
        if self.steps.zeros is not None:
            unstored, scale = (
                np.where(extent == 0, np.float32(self.steps.zeros), part) for part in (unstored, scale)
            )
        zero = None if self.spec.symmetric else _beside(self._zero(low, scale), self.steps.zero_group)
        unstored, scale = (_beside(part, self.steps.scale_group) for part in (unstored, scale))
        return Found(scale, zero, unstored, extent)

    def _extremes(self, x: Float32, groups: Groups) -> tuple[Float32, Float32]:
        """The least and the largest number of each group, 0 among them."""
        flat = np.ascontiguousarray(x).reshape(-1)[groups.order]
        every: dict[str, Array] = {"inf": ~np.isnan(flat), "nan": np.ones(flat.shape, bool)}
        if self.steps.amax == "flushed":
            flat = np.where(np.abs(flat) < NORMAL, np.float32(0), flat)
        counted = every.get(self.steps.amax, np.isfinite(flat))
        taken = np.where(counted, flat, np.float32(0))
        low, high = (np.asarray(part.reduceat(taken, groups.starts)) for part in (np.minimum, np.maximum))
        if not self.steps.bare:
            low, high = np.minimum(low, np.float32(0)), np.maximum(high, np.float32(0))
        low = low * np.float32(self.steps.amax != "signed")
        return _of_groups(low, self.steps.group, np.min), _of_groups(high, self.steps.group, np.max)

    def _extent(self, low: Float32, high: Float32) -> Float32:
        extent = np.maximum(-low, high) if self.spec.symmetric else high - low
        if self.steps.nothing:
            extent = np.where(extent <= np.float32(self.steps.nothing), np.float32(0), extent)
        extent = extent + np.float32(self.steps.add) if self.steps.add else extent
        return np.maximum(extent, np.float32(self.least.value)) if self.least.kind == "amax" else extent

    def _scale(self, extent: Float32, half: Float32) -> Float32:
        """Before it is given a type; half: of a range, which fits where the range does not."""
        end = np.float32(self.end)
        if self.steps.divide == "reciprocal":
            scale = extent * (np.float32(1) / end)
        elif self.steps.divide == "twice":
            scale = np.float32(1) / (end / extent)
        elif not self.spec.symmetric:
            scale = np.where(np.isinf(extent), half / (end / np.float32(2)), extent / end)
        else:
            scale = extent / end
        if self.least.kind == "scale":
            scale = np.maximum(scale, np.float32(self.least.value))
        if self.steps.more:
            return np.asarray(scale + np.float32(self.steps.more))
        return np.asarray(np.where(extent == 0, np.float32(1), scale) if self.least.kind == "one" else scale)

    def _stored(self, scale: Float32) -> Float32:
        """In its type, within whose range it is kept; 0 only where nothing keeps it from that."""
        kind = self.spec.stored_scale_type(self.inputs)
        if kind == "pof2":
            mantissa, exponent = np.frexp(np.clip(scale, LEAST_OF["float32"], LARGEST))
            power = np.ldexp(np.float32(1), np.clip(exponent - (mantissa == 0.5), *POF2)).astype(np.float32)
            return np.where(scale == 0, scale, power) if self.least.kind == "none" else power
        stored = narrowed(scale, kind)
        if self.steps.underflow == "flushed":
            stored = np.where(stored < np.float32(NORMAL_OF[kind]), np.float32(0), stored)
        may_be_zero = self.least.kind == "none" or self.steps.underflow != "kept"
        least = 0.0 if may_be_zero else LEAST_OF[kind]
        kept = np.minimum(np.maximum(stored, np.float32(least)), np.float32(MOST_OF[kind]))
        infinite = np.isinf(stored if self.steps.overflow == "inf" else scale) & (self.steps != AS_DUE)
        return np.where(np.isnan(stored) | infinite, stored, kept)

    def _zero(self, low: Float32, scale: Float32) -> NDArray[np.int32]:
        d, how = self.element, self.steps.zero
        with np.errstate(all="ignore"):
            quotient = low / scale
            found = np.float32(d.min) - (np.rint(quotient) if how == "apart" else quotient)
            whole = WHOLE.get(how, np.rint)(np.nan_to_num(found))
        ends = (d.min, d.max) if self.steps.clamped else INT32
        return np.asarray(np.clip(whole.astype(np.float64), *ends), np.int32)

    def zero_under(self, x: Float32, scale: Float32) -> NDArray[np.int32]:
        """The zero points that are due under scales that came."""
        groups = groups_of(self.scheme, x.shape)
        if not x.size:
            return self._zero(np.zeros(groups.shared, np.float32), scale)
        return self._zero(self._extremes(x, groups)[0].reshape(groups.shared), scale)

    def given(self, found: Found) -> Float32:
        """What comes back in the place of the scales."""
        with np.errstate(all="ignore"):
            if self.steps.gives == "inverse":
                return np.asarray(np.float32(1) / found.scale)
        return found.extent if self.steps.gives == "amax" else found.scale

    # ---- codes and values -------------------------------------------------------------------------

    def codes(self, x: Float32, scale: Float32, zero: Array | None, found: Found | None = None) -> Array:
        """The codes of a tensor under these scales; where one is 0, the code of 0.

        found: what was found, where a deviation needs more of it than the scales.
        """
        groups, d = groups_of(self.scheme, x.shape), self.element
        own = _beside(scale, self.steps.code_scale).reshape(-1)[groups.places]
        moved: Any = 0
        if zero is not None:
            moved = _beside(zero, self.steps.code_zero).reshape(-1)[groups.places].astype(np.int64)
        if self.steps.minus_zero == "read":
            x = np.where(x == 0, np.float32(0), x)
        with np.errstate(all="ignore"):
            y = np.where(own == 0, x * np.float32(0), self._quotient(x, own, groups, found))
        if not isinstance(d, Integer):
            return self._of_elements(np.asarray(y, np.float32))
        if self.steps.code == "moved":
            y, moved = np.nan_to_num(y) + moved.astype(np.float32) if zero is not None else y, 0
        rounding = self.steps.rounding or self.spec.rounding
        codes = lookup.encode_affine(y.astype(np.float32, copy=False), QuantParams(1.0, moved), d, rounding)
        least = int(d.min) % (1 << d.bits)
        return np.where(codes == least, codes + 1, codes).astype(codes.dtype) if self.steps.clip else codes

    def _of_elements(self, y: Float32) -> Array:
        """The codes of numbers of a format that is no integer."""
        d = self.element
        rounding = self.steps.rounding or self.spec.rounding
        codes = lookup.encode(y.reshape(-1), d, rounding, "saturate", None).reshape(y.shape)
        if self.steps.middles == "float32":
            codes = np.where(np.isfinite(y), by_rounded_middles(d, y), codes)
        if self.steps.minus_zero == "lost":
            values = REFERENCE.decode(codes.reshape(-1), d).reshape(codes.shape)
            codes = np.where(values == 0, lookup.encode(np.zeros(1, np.float32), d, "half_even", "saturate",
                                                        None), codes)  # fmt: skip
        return codes.astype(d.code_dtype)

    def _quotient(self, x: Float32, own: Float32, groups: Groups, found: Found | None) -> Float32:
        how = self.steps.code
        if how == "reciprocal":
            return np.asarray(x * (np.float32(1) / own))
        if how == "double":
            return to_odd(x.astype(np.float64) / own)
        if found is not None and how in ("unstored", "doubles", "ratio"):
            extent = found.extent.reshape(-1)[groups.places]
            if how == "ratio":
                return np.where(extent == 0, x / own, x * (np.float32(self.end) / extent))
            unstored = found.unstored.reshape(-1)[groups.places]
            if how == "unstored":
                return np.asarray(x / unstored)
            double = np.where(unstored == extent / np.float32(self.end), extent / np.float64(self.end), own)
            return to_odd(x / double)
        return np.asarray(x / own)

    def values(self, codes: Array, scale: Float32, zero: Array | None) -> Float32:
        """What codes stand for, in the type of the inputs."""
        groups, d = groups_of(self.scheme, codes.shape), self.element
        own = scale.reshape(-1)[groups.places]
        plain = REFERENCE.decode(codes.reshape(-1), d).reshape(codes.shape)
        with np.errstate(all="ignore"):
            if zero is None:
                return narrowed(np.asarray(plain * own, np.float32), self.inputs)
            moved: Any = zero.reshape(-1)[groups.places]
            return narrowed(
                lookup.decode_affine(plain.astype(np.int64), QuantParams(own, moved)), self.inputs
            )


def _of_groups(part: Float32, which: str, all_of: Callable[[Float32], Any]) -> Float32:
    """What is found of each group, or of the group beside it in its place, or of the whole tensor."""
    if which == "all":
        return np.full_like(part, all_of(part))
    return _beside(part, which)


def _beside(part: Array, which: str) -> Array:
    """What belongs to each group, or to the one before or after it."""
    return part if which == "own" else np.roll(part, 1 if which == "before" else -1)


def to_odd(y: NDArray[np.float64]) -> Float32:
    """The float32 numbers that round as these float64 ones do: of what is inexact the odd neighbour.

    >>> to_odd(np.array([1 + 2.0**-40, 1.0])).view(np.uint32) & 1
    array([1, 0], dtype=uint32)
    """
    with np.errstate(over="ignore"):
        near = np.asarray(y).astype(np.float32)
    far = np.abs(near) > np.abs(y)
    inward = np.where(far, np.nextafter(near, np.float32(0)), near)
    inexact = np.isfinite(y) & (inward != y)
    return np.where(inexact, (inward.view(np.uint32) | 1).view(np.float32), near)


def by_rounded_middles(d: Element, y: Float32) -> Array:
    """The codes of numbers by the middles of values, rounded to float32; ties go to the lower value."""
    codes = np.arange(1 << d.bits).astype(d.code_dtype)
    every = REFERENCE.decode(codes, d)
    kept = np.flatnonzero(np.isfinite(every))
    values, first = np.unique(every[kept], return_index=True)
    middles = (values[1:].astype(np.float64) + values[:-1]) / 2
    return np.asarray(codes[kept[first[np.searchsorted(middles.astype(np.float32), y, side="left")]]])
