"""Scheme: which elements of a tensor share a scale (docs/formats.md §6)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Never

from numerics.backends.partition import AXES, Partition, check_axis, plain_shape
from numerics.formats.arguments import MISSING, keywords, required, unknown_argument
from numerics.formats.errors import NumericsError, integer, items_of, one_of, said, text_in

NUMBERS = {"per_tensor": (), "per_channel": ("axis",), "per_token": (), "per_group": ("size", "axis"),
           "per_block": ("rows", "columns")}  # fmt: skip
KINDS = tuple(NUMBERS)
LONGEST = 100  # characters of a spelling
_TOKENS = "a scale for each token is per_token(): all along the last axis share one;"
_BLOCKS = "a scale for every r x c elements of the last two axes is per_block((r, c));"
_AXIS = "a scale for each index of an axis is per_channel(axis);"
_GROUPS = "a scale for every n neighbours along an axis is per_group(n, axis);"
MEANT = {  # what other libraries say, in lower case
    "per_row": _TOKENS, "token": _TOKENS, "per_axis": _AXIS, "per_column": _AXIS,
    "channel": _AXIS, "block": _BLOCKS, "group": _GROUPS, "groupwise": _GROUPS,
    "tensor": "did you mean 'per_tensor'?",
}  # fmt: skip
_OUTSIDE = re.compile(
    r"(\w+)\s*(\(([^()]*)\)|\(\s*\(([^()]*)\)\s*\))?"
)  # no two parts of it take the same character
_TILE = re.compile(r"([1-9][0-9]{,18})\s*x\s*([1-9][0-9]{,18})")  # rows and columns that share a scale
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)")  # int() takes 064, 6_4 and the digits of every script


@dataclass(frozen=True, repr=False, init=False)
class Scheme:
    """Which elements share a scale; `per_tensor`, `per_channel`, `per_token` and their like make it.

    >>> Scheme.parse("per_group(128, axis=0)"), Scheme.parse("per_tensor") == per_tensor()
    (per_group(128, axis=0), True)
    """

    kind: str
    axis: int | None = None
    size: int | None = None
    block: tuple[int, int] | None = None

    @required
    def __init__(
        self,
        kind: str,
        axis: int | None = None,
        size: int | None = None,
        block: tuple[int, int] | None = None,
        *unnamed: Never,
        **unknown: Never,
    ) -> None:
        if unknown or unnamed or kind is MISSING:
            raise unknown_argument(Scheme, unknown, (kind,), unnamed)
        for name, fact in (("kind", kind), ("axis", axis), ("size", size), ("block", block)):
            object.__setattr__(self, name, fact)
        self._check()

    def _check(self) -> None:
        """Makes the facts exact; raises NumericsError for those that do not belong together."""
        object.__setattr__(self, "kind", one_of("scheme", self.kind, KINDS, MEANT))
        has = {"axis": self.kind in ("per_channel", "per_group"), "size": self.kind == "per_group"}
        self._check_block()
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

    def _check_block(self) -> None:
        if self.kind != "per_block":
            if self.block is not None:
                raise NumericsError(f"block={said(self.block)} does not belong to {self.kind}")
            return
        try:
            if not isinstance(self.block, (tuple, list)):
                raise TypeError
            rows, columns = (integer("the size of a block", size) for size in items_of("block", self.block))
        except (TypeError, ValueError):
            raise NumericsError(f"per_block takes two sizes, per_block((128, 128)), not {said(self.block)}") \
                from None  # fmt: skip
        if not (1 <= rows < 1 << 63 and 1 <= columns < 1 << 63):
            raise NumericsError(f"a block of {said(self.block)} elements cannot be; allowed: 1 x 1 and more")
        object.__setattr__(self, "block", (rows, columns))

    def __repr__(self) -> str:
        if self.kind == "per_group":
            return f"per_group({self.size}, axis={self.axis})"
        if self.kind == "per_block":
            return f"per_block({self.block})"
        return f"{self.kind}({'' if self.axis is None else self.axis})"

    @classmethod
    @required
    def parse(
        cls,
        text: str | Scheme | tuple[int, int],
        *unnamed: Never,
        size: int | None = None,
        axis: int | None = None,
    ) -> Scheme:
        """A scheme from its repr, or from its bare name and a size and an axis that stand beside.

        The text 128x128 and the pair (128, 128) mean `per_block`.  Raises NumericsError for an unknown name
        or a spelling that is not understood.

        >>> Scheme.parse("per_channel(1)"), Scheme.parse("per_group", size=64), Scheme.parse("128x64")
        (per_channel(1), per_group(64, axis=-1), per_block((128, 64)))
        """
        if unnamed:
            raise unknown_argument(cls.parse, (), (text,), unnamed)
        if isinstance(text, Scheme):
            return text
        if isinstance(text, (tuple, list)):
            return per_block(text)
        spelled = text_in(text)
        short = spelled is not None and len(spelled) <= LONGEST
        found = _OUTSIDE.fullmatch(_plain(spelled)) if short else None  # type: ignore[arg-type]
        if found is None:
            if text is MISSING:
                raise unknown_argument(cls.parse, (), (text,))
            allowed = "per_tensor, per_channel(0), per_group(128, axis=-1), per_token, per_block((128, 128))"
            raise NumericsError(f"{said(text)} is not a scheme; allowed: {allowed}")
        kind, _, inside, pair = found.groups()
        kind = one_of("scheme", kind, KINDS, MEANT)
        if pair is not None and kind != "per_block":
            raise NumericsError(f"{said(text)} is not a scheme: a pair of numbers belongs to per_block")
        return _made(kind, _numbers(text, kind, pair or inside or ""), size, axis)

    def partition(self, shape: tuple[int, ...]) -> Partition:
        """Returns which elements of a shape share a scale; raises NumericsError where it lacks the axis."""
        try:
            return partition_of(self, shape)
        except Exception:  # what came has no hash (torch.compile's sizes), or is no shape: looked at as it is
            return partition_of.__wrapped__(self, shape)


def _plain(text: str) -> str:
    """A spelling with its name as ours is written: per_channel of per-channel, perChannel, PER_CHANNEL."""
    if tile := _TILE.fullmatch(text.strip().lower()):
        return f"per_block(({tile[1]}, {tile[2]}))"
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
    shape = plain_shape(shape)
    if scheme.kind == "per_token":
        return Partition(shape, last := check_axis(-1, shape), shape[last])
    if scheme.block is not None:
        return _blocks(scheme, shape, scheme.block)
    axis = None if scheme.axis is None else check_axis(scheme.axis, shape)
    return Partition(shape, axis, scheme.size)


def _blocks(scheme: Scheme, shape: tuple[int, ...], block: tuple[int, int]) -> Partition:
    if len(shape) < 2:
        raise NumericsError(f"{scheme!r} needs two axes; shape {tuple(shape)} has {len(shape)}")
    rows = min(block[0], max(shape[-2], 1))
    return Partition(shape, len(shape) - 1, block[1], rows)


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
        if not _INTEGER.fullmatch(number.strip()):
            raise NumericsError(f"{part.strip()!r} in scheme {said(text)} is not an integer")
        numbers[name] = int(number)
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
    if kind not in ("per_channel", "per_group"):
        if axis is not None:
            raise NumericsError(f"an axis ({said(axis)}) belongs to per_channel and per_group, not {kind}")
        return Scheme(kind, block=tuple(numbers.values()) if kind == "per_block" else None)  # type: ignore[arg-type]
    along = numbers.get("axis", axis)
    where = {} if along is None else {"axis": along}
    if kind == "per_channel":
        return per_channel(**where)
    size = numbers.get("size", size)
    if size is None:
        raise NumericsError("per_group needs the size of a group: per_group(128), or per_group(128, axis=0)")
    return per_group(size, **where)


@keywords
def per_tensor() -> Scheme:
    """Returns the scheme of one scale for the whole tensor; the scale has shape ().

    >>> per_tensor()
    per_tensor()
    """
    return Scheme("per_tensor")


@keywords
def per_channel(axis: int = 0) -> Scheme:
    """Returns the scheme of one scale for each index of an axis, n of them; the scale has shape (n,).

    axis: by default 0, the output channels of a weight of (outputs, inputs ...); negative ones count from the
    end.  Of experts (experts, outputs, inputs) that is one scale an expert: one an expert and output channel
    is `per_token()`.  Raises NumericsError where it is no integer, and when it is used where the tensor lacks
    that axis.

    >>> per_channel(0)
    per_channel(0)
    """
    return Scheme("per_channel", axis=axis)


def per_output(shape: tuple[int, ...], summed: int, outputs: int | None = None) -> Scheme:
    """Returns the scheme of one scale for each output channel of a weight: what one output sums shares one.

    shape: of the weight.  summed: the axis that its product sums.  outputs: the axis of its output channels
    where it sums several axes, as a convolution: 0, or 1 of a transposed one.  Of experts each has channels
    of its own.

    >>> per_output((64, 32), 1), per_output((32, 64), 0), per_output((32, 64, 3), 0, outputs=1)
    (per_channel(0), per_channel(1), per_channel(1))
    >>> per_output((8, 64, 32), 2), per_output((8, 32, 64), 1)
    (per_token(), per_group(32, axis=1))
    """
    summed = check_axis(summed, shape)
    if outputs is not None or len(shape) <= 2:
        return per_channel(int(summed == 0) if outputs is None else outputs)
    return per_token() if summed == len(shape) - 1 else per_group(max(shape[summed], 1), summed)


def tiled_kernel(scheme: Scheme | None, shape: tuple[int, ...], outputs: int | None) -> str | None:
    """What is said of tiles that would lie over a convolution's kernel, the last axes; None of all else.

    shape: of the weight.  outputs: the axis of a convolution's output channels; None of other products.

    >>> tiled_kernel(per_block((128, 128)), (32, 64, 3, 3), 0)
    'tiles of 128x128 would lie over its kernel, of 3x3 (its axes are outputs, inputs, kernel)'
    >>> tiled_kernel(per_block((128, 128)), (32, 64), None), tiled_kernel(per_token(), (32, 64, 3, 3), 0)
    (None, None)
    """
    if scheme is None or scheme.block is None or outputs is None or len(shape) < 3:
        return None
    tile, kernel = ("x".join(map(str, sizes)) for sizes in (scheme.block, shape[2:]))
    order = "inputs, outputs, kernel" if outputs else "outputs, inputs, kernel"
    return f"tiles of {tile} would lie over its kernel, of {kernel} (its axes are {order})"


@keywords
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


@keywords
def per_token() -> Scheme:
    """Returns the scheme of one scale for each token: all elements along the last axis share one.

    The scale has the tensor's shape with 1 along the last axis.  Raises NumericsError when it is used where a
    tensor has no axis.

    >>> import numerics as nx
    >>> nx.quantize([[1.0, 2.0], [3.0, 7.0]], "int4", scheme=per_token()).scale.shape
    (2, 1)
    """
    return Scheme("per_token")


@keywords
def per_block(block: tuple[int, int]) -> Scheme:
    """Returns the scheme of one scale for every `rows` x `columns` elements of the last two axes.

    block: (rows, columns), each 1 and more; the last blocks of either axis may be short.  The scale has the
    tensor's shape with ceil(n / rows) and ceil(m / columns) in the place of its last two axes; axes before
    them (experts) have blocks of their own.  Of a block format with a scale beside its codes: (rows, the
    format's block), and every row keeps the scale that its block has.  Raises NumericsError for another
    block, and when it is used where a tensor has fewer than two axes.

    >>> import numerics as nx
    >>> w = [[1.0, -7.0, 0.5], [2.0, 3.0, 0.25], [14.0, 0.0, 1.75]]
    >>> per_block((2, 2)), nx.quantize(w, "int4", scheme=per_block((2, 2))).scale.tolist()
    (per_block((2, 2)), [[1.0, 0.0714285746216774], [2.0, 0.25]])
    """
    return Scheme("per_block", block=block)
