"""Scheme: which elements of a tensor share a scale (docs/formats.md §6)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from numerics.backends.partition import AXES, Partition, as_shape, check_axis
from numerics.formats.errors import NumericsError, integer, one_of, said

NUMBERS = {"per_tensor": (), "per_channel": ("axis",), "per_group": ("size", "axis")}
KINDS = tuple(NUMBERS)
LONGEST = 100  # characters of a spelling
_TOKENS = (
    "a scale for each token is per_group(n) of the n features on the last axis, or per_channel(0) of rows;"
)
_AXIS = "a scale for each index of an axis is per_channel(axis);"
_GROUPS = "a scale for every n neighbours along an axis is per_group(n, axis);"
MEANT = {  # what other libraries say, in lower case
    "per_token": _TOKENS, "per_row": _TOKENS, "token": _TOKENS, "per_axis": _AXIS, "per_column": _AXIS,
    "channel": _AXIS, "per_block": _GROUPS, "block": _GROUPS, "group": _GROUPS, "groupwise": _GROUPS,
    "tensor": "did you mean 'per_tensor'?",
}  # fmt: skip
_OUTSIDE = re.compile(r"(\w+)\s*(\(([^()]*)\))?")  # no two parts of it take the same character


@dataclass(frozen=True, repr=False)
class Scheme:
    """Which elements share a scale; made by `per_tensor`, `per_channel` and `per_group`.

    >>> Scheme.parse("per_group(128, axis=0)"), Scheme.parse("per_tensor") == per_tensor()
    (per_group(128, axis=0), True)
    """

    kind: str
    axis: int | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", one_of("scheme", self.kind, KINDS, MEANT))
        has = {"axis": self.kind != "per_tensor", "size": self.kind == "per_group"}
        for name, what in (("axis", f"the axis of {self.kind}"), ("size", "the size of a group")):
            came = getattr(self, name)
            if has[name]:
                object.__setattr__(self, name, integer(what, came))
            elif came is not None:
                raise NumericsError(f"{name}={said(came)} does not belong to {self.kind}")
        if self.size is not None and not 1 <= self.size < 1 << 63:
            raise NumericsError(f"a group of {said(self.size)} elements cannot be; allowed: 1 and more")
        if self.axis is not None and not -AXES <= self.axis < AXES:
            raise NumericsError(f"axis {said(self.axis)} cannot be: arrays have {AXES} axes at most")

    def __repr__(self) -> str:
        if self.kind == "per_group":
            return f"per_group({self.size}, axis={self.axis})"
        return f"{self.kind}({'' if self.axis is None else self.axis})"

    @classmethod
    def parse(cls, text: str | Scheme, *, size: int | None = None, axis: int | None = None) -> Scheme:
        """A scheme from its repr, or from its bare name and a size and an axis that stand beside.

        Raises NumericsError for an unknown name or a spelling that is not understood.

        >>> Scheme.parse("per_channel(1)"), Scheme.parse("per_group", size=64)
        (per_channel(1), per_group(64, axis=-1))
        """
        if isinstance(text, Scheme):
            return text
        found = _OUTSIDE.fullmatch(_plain(text)) if isinstance(text, str) and len(text) <= LONGEST else None
        if found is None:
            allowed = "per_tensor, per_channel(0), per_group(128, axis=-1)"
            raise NumericsError(f"{said(text)} is not a scheme; allowed: {allowed}")
        kind, _, inside = found.groups()
        kind = one_of("scheme", kind, KINDS, MEANT)
        return _made(kind, _numbers(text, kind, inside or ""), size, axis)

    def partition(self, shape: tuple[int, ...]) -> Partition:
        """Returns which elements of a shape share a scale; raises NumericsError where it lacks the axis."""
        try:
            return partition_of(self, shape)
        except Exception:  # what came has no hash (torch.compile's sizes), or is no shape: looked at as it is
            return partition_of.__wrapped__(self, shape)


def _plain(text: str) -> str:
    """A spelling with its name as ours is written: per_channel of per-channel, perChannel, PER_CHANNEL."""
    name, bracket, inside = text.strip().partition("(")
    known = {kind.replace("_", ""): kind for kind in KINDS}
    name = name.strip().lower().replace("-", "_")
    return known.get(name.replace("_", ""), name) + bracket + inside


def spelled(scheme: Any) -> Any:
    """Returns repr(scheme) for a Scheme, anything else unchanged.

    torch.compile takes texts for constants: so a Scheme made inside a compiled function breaks no graph.
    """
    return repr(scheme) if isinstance(scheme, Scheme) else scheme


@lru_cache(maxsize=4096)
def partition_of(scheme: Scheme, shape: tuple[int, ...]) -> Partition:
    """`Scheme.partition`, remembered."""
    if type(shape) is not tuple:
        shape = as_shape(shape)
    axis = None if scheme.axis is None else check_axis(scheme.axis, shape)
    return Partition(shape, axis, scheme.size)


def _numbers(text: object, kind: str, inside: str) -> dict[str, int]:
    """What stands in the parentheses, by name; a comma may come last."""
    parts = inside.split(",")
    parts = parts if parts[-1].strip() else parts[:-1]
    names: tuple[str, ...] = NUMBERS[kind]
    numbers: dict[str, int] = {}
    if len(parts) > len(names):
        raise NumericsError(
            f"{kind} takes {len(names)} number{'s' * (len(names) != 1)}, not {inside.strip()}"
        )
    for place, part in zip(names, parts, strict=False):
        before, _, number = part.rpartition("=")
        name = before.strip() or place
        if name not in names or name in numbers:
            raise NumericsError(
                f"{part.strip()!r} in scheme {said(text)} cannot be; allowed: {', '.join(names)}, once"
            )
        try:
            numbers[name] = int(number)
        except ValueError:
            raise NumericsError(f"{part.strip()!r} in scheme {said(text)} is not an integer") from None
    return numbers


def _made(kind: str, numbers: dict[str, int], size: int | None, axis: int | None) -> Scheme:
    """A scheme of the numbers in its text and of those beside it; none may be given twice, or for nothing."""
    for name, beside in (("size", size), ("axis", axis)):
        if beside is not None and name in numbers and numbers[name] != beside:
            raise NumericsError(
                f"{kind} has {name}={numbers[name]} in its text, and {said(beside)} beside it"
            )
    if size is not None and kind != "per_group":
        raise NumericsError(f"a group size ({said(size)}) belongs to per_group, not {kind}")
    if kind == "per_tensor":
        if axis is not None:
            raise NumericsError(
                f"an axis ({said(axis)}) belongs to per_channel and per_group, not per_tensor"
            )
        return per_tensor()
    along = numbers.get("axis", axis)
    where = {} if along is None else {"axis": along}
    if kind == "per_channel":
        return per_channel(**where)
    size = numbers.get("size", size)
    if size is None:
        raise NumericsError("per_group needs the size of a group: per_group(128), or per_group(128, axis=0)")
    return per_group(size, **where)


def per_tensor() -> Scheme:
    """Returns the scheme of one scale for the whole tensor; the scale has shape ().

    >>> per_tensor()
    per_tensor()
    """
    return Scheme("per_tensor")


def per_channel(axis: int = 0) -> Scheme:
    """Returns the scheme of one scale for each index of an axis, n of them; the scale has shape (n,).

    axis: by default 0, the output channels of a weight; negative ones count from the end.  Raises
    NumericsError where it is no integer, and when it is used where the tensor lacks that axis.

    >>> per_channel(0)
    per_channel(0)
    """
    return Scheme("per_channel", axis=axis)


def per_group(size: int, axis: int = -1) -> Scheme:
    """Returns the scheme of one scale for every `size` neighbours along an axis; the last group may be short.

    size: elements that share a scale, 1 and more.  axis: along which they are neighbours, the last by
    default. The scale has the tensor's shape with ceil(n / size) along the axis.  Raises NumericsError for a
    size that is not positive, and when it is used where the tensor lacks that axis.

    >>> import numerics as nx
    >>> per_group(128), nx.quantize([[1.0, 2.0, 3.0]], "int4", scheme=per_group(2)).scale.shape
    (per_group(128, axis=-1), (1, 2))
    """
    return Scheme("per_group", axis=axis, size=size)
