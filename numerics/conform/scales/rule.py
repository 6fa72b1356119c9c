"""Rule: how a kernel that finds its scales itself is due to find them, and what is due under them.

Of docs/formats.md §6: one division of float32 numbers each, which NumPy rounds once; codes by the reference.
"""

from __future__ import annotations

import re
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
from numerics.formats.dtype import Element, Integer
from numerics.formats.errors import NumericsError, one_of, said
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
POF2 = (-127, 127)
"""The exponents of the smallest and the largest scale that is a power of two."""
_LEAST = re.compile(r"\s*(amax|scale)\s+(\S+)\s*")


class Least(NamedTuple):
    """What a scale is at least: `one` where all numbers are 0, `none`, or amax or the scale itself a number.

    >>> Least.of("amax 1e-12").kind, Least.of(None).kind
    ('amax', 'one')
    """

    kind: str = "one"
    value: float = 0.0

    @classmethod
    def of(cls, came: Any) -> Least:
        """As it is spelled; raises NumericsError for another spelling."""
        if came is None or came in ("one", "none"):
            return cls(came or "one")
        match = _LEAST.fullmatch(came) if isinstance(came, str) else None
        try:
            number = float(np.float32(float(match[2]))) if match else 0.0
        except ValueError:
            number = 0.0
        if match is None or not 0 < number < np.inf:
            raise NumericsError(
                f"least={said(came)}; allowed: one (the scale of zeros is 1), none (it is 0), "
                "'amax 1e-12' or 'scale 1e-7', which then are at least that"
            )
        return cls(match[1], number)

    def __str__(self) -> str:
        return self.kind if self.kind in ("one", "none") else f"{self.kind} {self.value:.9g}"


class Steps(NamedTuple):
    """How each step is done; a known deviation does one of them otherwise."""

    amax: str = "finite"
    """finite; inf where Inf counts, nan where NaN does too, signed where the largest number is taken."""
    divide: str = "divide"
    """divide; reciprocal of the maximum; or twice: 1 / (maximum / amax)."""
    end: float | None = None
    """What amax becomes, where it is another number than is due."""
    add: float = 0.0
    """A number that is added to amax."""
    code: str = "divide"
    """divide; reciprocal of the scale; ratio, x * (maximum / amax); unstored: the scale before its type."""
    rounding: str | None = None
    clip: bool = False
    """Are integers kept from their least number, as -128?"""
    gives: str = "scale"
    """What comes back: the scale, its inverse, or amax."""


ONE, AS_DUE = Least(), Steps()


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
        given = {name: came for name, came in steps.items() if came not in ("half_even", "floor")}
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
        if not self.spec.symmetric:
            return float(every)
        if self.steps.end is not None:
            return self.steps.end
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
        zero = None if self.spec.symmetric else self._zero(low, scale)
        return Found(scale, zero, unstored, extent)

    def _extremes(self, x: Float32, groups: Groups) -> tuple[Float32, Float32]:
        """The least and the largest number of each group, 0 among them."""
        flat = np.ascontiguousarray(x).reshape(-1)[groups.order]
        every: dict[str, Array] = {"inf": ~np.isnan(flat), "nan": np.ones(flat.shape, bool)}
        counted = every.get(self.steps.amax, np.isfinite(flat))
        taken = np.where(counted, flat, np.float32(0))
        low = np.minimum(np.minimum.reduceat(taken, groups.starts), np.float32(0))
        high = np.maximum(np.maximum.reduceat(taken, groups.starts), np.float32(0))
        return (low * np.float32(self.steps.amax != "signed")), high

    def _extent(self, low: Float32, high: Float32) -> Float32:
        extent = np.maximum(-low, high) if self.spec.symmetric else high - low
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
        return np.asarray(np.where(extent == 0, np.float32(1), scale) if self.least.kind == "one" else scale)

    def _stored(self, scale: Float32) -> Float32:
        """In its type, within whose range it is kept; 0 only where nothing keeps it from that."""
        kind = self.spec.stored_scale_type(self.inputs)
        if kind == "pof2":
            mantissa, exponent = np.frexp(np.clip(scale, LEAST_OF["float32"], LARGEST))
            power = np.ldexp(np.float32(1), np.clip(exponent - (mantissa == 0.5), *POF2)).astype(np.float32)
            return np.where(scale == 0, scale, power) if self.least.kind == "none" else power
        stored = narrowed(scale, kind)
        least = 0.0 if self.least.kind == "none" else LEAST_OF[kind]
        kept = np.minimum(np.maximum(stored, np.float32(least)), np.float32(MOST_OF[kind]))
        return np.where(np.isnan(stored) | (np.isinf(scale) & (self.steps != AS_DUE)), stored, kept)

    def _zero(self, low: Float32, scale: Float32) -> NDArray[np.int32]:
        d = self.element
        with np.errstate(all="ignore"):
            wanted = np.float32(d.min) - low / scale
        return np.asarray(np.clip(np.rint(np.nan_to_num(wanted)), d.min, d.max), np.int32)

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
        """The codes of a tensor under these scales; where one is 0, the code of 0."""
        groups, d = groups_of(self.scheme, x.shape), self.element
        own = scale.reshape(-1)[groups.places]
        rounding = self.steps.rounding or self.spec.rounding
        with np.errstate(all="ignore"):
            y = np.where(own == 0, x * np.float32(0), self._quotient(x, own, groups, found))
        if not isinstance(d, Integer):
            return lookup.encode(y.astype(np.float32).reshape(-1), d, rounding, "saturate", None).reshape(
                x.shape
            )
        moved: Any = 0 if zero is None else zero.reshape(-1)[groups.places].astype(np.int64)
        codes = lookup.encode_affine(y.astype(np.float32), QuantParams(1.0, moved), d, rounding)
        least = int(d.min) % (1 << d.bits)
        return np.where(codes == least, codes + 1, codes).astype(codes.dtype) if self.steps.clip else codes

    def _quotient(self, x: Float32, own: Float32, groups: Groups, found: Found | None) -> Float32:
        how = self.steps.code
        if how == "divide" or found is None:
            return np.asarray(x / own)
        if how == "reciprocal":
            return np.asarray(x * (np.float32(1) / own))
        if how == "unstored":
            return np.asarray(x / found.unstored.reshape(-1)[groups.places])
        return np.asarray(x * (np.float32(self.end) / found.extent).reshape(-1)[groups.places])

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
