"""What the NPU's compiler allows of power-of-two scales, and what int32 accumulators need.

A tensor with position p holds integers in units of 2**-p.  A layer then only shifts:

    conv, gemm   acc = sum x * w + (bias << shift_bias),  y = SRS(acc, shift_cut)

and the hardware's shifts are bounded.  Positions are named ipos (ipos0, ipos1 ... where an operation has
several inputs), wpos, bpos, opos.  The bounds and what is moved to meet them: AMD Quark 0.13 (MIT),
onnx/postprocess/refinement/refine.py, read, not copied.

>>> check("conv", ipos=6, wpos=14, bpos=9, opos=3)
[Finding(shift='shift_cut', value=17, low=0, high=16, position='wpos', to=13)]
>>> print(*check("add", ipos0=3, ipos1=12, opos=2))
shift_read is 9, allowed 0 .. 7: move ipos1 to 10
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from numerics.formats.errors import NumericsError, one_of, said

FLOAT32_INTEGERS: Final = 1 << 24
"""Below it in magnitude every integer is a float32."""

Positions = Mapping[str, int]


@dataclass(frozen=True)
class Finding:
    """A shift outside its range.

    shift: its name in Quark.  value: what it is.  low, high: what is allowed, both included; high is None
    where there is no upper bound.  position, to: moving that position there repairs it.
    """

    shift: str
    value: int
    low: int
    high: int | None
    position: str
    to: int

    @property
    def repair(self) -> str:
        """What to do, in words."""
        return f"move {self.position} to {self.to}"

    def __str__(self) -> str:
        allowed = f"at least {self.low}" if self.high is None else f"{self.low} .. {self.high}"
        return f"{self.shift} is {self.value}, allowed {allowed}: {self.repair}"


def _outside(
    shift: str, value: int, allowed: tuple[int, int | None], moved: tuple[str, int], sign: int
) -> Iterator[Finding]:
    """The finding, if there is one.

    allowed: the lowest and the highest shift.  moved: the position that repairs it, and where it is now; one
    more of it adds `sign` to the shift.
    """
    (low, high), (position, at) = allowed, moved
    nearest = max(value, low) if high is None else min(max(value, low), high)
    if nearest != value:
        yield Finding(shift, value, low, high, position, at + sign * (nearest - value))


def _inputs(p: Positions) -> dict[str, int]:
    return {name: at for name, at in p.items() if name.startswith("ipos")}


def _shift_cut(p: Positions) -> Iterator[Finding]:
    return _outside("shift_cut", p["wpos"] + p["ipos"] - p["opos"], (0, 16), ("wpos", p["wpos"]), +1)


def _shift_bias(p: Positions, leaky: bool) -> Iterator[Finding]:
    if "bpos" in p:
        product = p["wpos"] + p["ipos"]
        shift_cut = product - p["opos"]
        low = 0 if leaky else min(0, -(24 - (8 + shift_cut)))
        yield from _outside("shift_bias", product - p["bpos"], (low, 15), ("bpos", p["bpos"]), -1)


def _shift_read(p: Positions) -> Iterator[Finding]:
    inputs = _inputs(p)
    most, least = max(inputs, key=inputs.__getitem__), min(inputs.values())
    return _outside("shift_read", inputs[most] - least, (0, 7), (most, inputs[most]), +1)


def _shift_write_of_sum(p: Positions) -> Iterator[Finding]:
    return _outside("shift_write", min(_inputs(p).values()) - p["opos"], (-7, 25), ("opos", p["opos"]), -1)


def _shift_of_product(shift: str, high: int, p: Positions) -> Iterator[Finding]:
    return _outside(shift, sum(_inputs(p).values()) - p["opos"], (0, high), ("opos", p["opos"]), -1)


def _hard_sigmoid(p: Positions) -> Iterator[Finding]:
    yield from _outside("ipos", p["ipos"], (0, 15), ("ipos", p["ipos"]), +1)
    yield from _outside("opos", p["opos"], (7, None), ("opos", p["opos"]), +1)
    yield from _outside("shift_sigmoid", 14 + p["ipos"] - p["opos"], (0, 31), ("opos", p["opos"]), -1)


def _aligned(p: Positions) -> Iterator[Finding]:
    """All share the lowest position: its unit is the coarsest, so nothing overflows."""
    least = min(p.values())
    for name, at in p.items():
        yield from _outside(f"{name} above the lowest", at - least, (0, 0), (name, at), +1)


@dataclass(frozen=True)
class _Operation:
    """inputs: how many; None: two or more.  Rules are met one after the other: a later one may read what an
    earlier one moved, never the other way round."""

    inputs: int | None
    rules: tuple[Callable[[Positions], Iterator[Finding]], ...]
    weights: bool = False


_LAYER = _Operation(1, (_shift_cut, partial(_shift_bias, leaky=False)), weights=True)
_LEAKY = _Operation(1, (_shift_cut, partial(_shift_bias, leaky=True)), weights=True)
_ONE_UNIT = _Operation(1, (_aligned,))

OPERATIONS: Final = {
    "conv": _LAYER,
    "gemm": _LAYER,
    "conv_leaky_relu": _LEAKY,
    "gemm_leaky_relu": _LEAKY,
    "add": _Operation(None, (_shift_read, _shift_write_of_sum)),
    "sub": _Operation(None, (_shift_read,)),
    "mul": _Operation(None, (partial(_shift_of_product, "shift_write", 32),)),
    "swish": _Operation(2, (partial(_shift_of_product, "shift_swish", 15),)),
    "hard_sigmoid": _Operation(1, (_hard_sigmoid,)),
    "concat": _Operation(None, (_aligned,)),
    "max_pool": _ONE_UNIT,
    "average_pool": _ONE_UNIT,
    "global_average_pool": _ONE_UNIT,
    "pad": _ONE_UNIT,
    "slice": _ONE_UNIT,
}
"""conv_leaky_relu, gemm_leaky_relu: followed by LeakyRelu, before which the bias cannot be shifted right.
swish: the Mul of x and HardSigmoid(x)."""


def check(operation: str, **positions: int) -> list[Finding]:
    """The shifts that are outside their ranges, in the order of repair.

    operation: a name from OPERATIONS.  positions: ipos, opos and, for conv and gemm, wpos and (where there
    is a bias) bpos; ipos0, ipos1 ... for an operation of several inputs.  Each finding holds once those
    before it are repaired, so that the list is the recipe; an empty list means that all is well.  Raises
    NumericsError for an unknown operation and for positions that are missing, foreign or no integers.

    >>> [finding.repair for finding in check("gemm", ipos=0, wpos=-3, bpos=-20, opos=2)]
    ['move wpos to 2', 'move bpos to -13']
    """
    return _recipe(operation, positions)[0]


def repaired(operation: str, **positions: int) -> dict[str, int]:
    """The positions after every repair of `check`, which then finds nothing; same arguments, same errors.

    >>> repaired("gemm", ipos=0, wpos=-3, bpos=-20, opos=2)
    {'ipos': 0, 'wpos': 2, 'bpos': -13, 'opos': 2}
    """
    return _recipe(operation, positions)[1]


def _recipe(operation: str, positions: Positions) -> tuple[list[Finding], dict[str, int]]:
    rules = OPERATIONS[one_of("operation", operation, OPERATIONS)].rules
    _check_names(operation, positions)
    now = {name: int(at) for name, at in positions.items()}
    found: list[Finding] = []
    while (finding := next((f for rule in rules for f in rule(now)), None)) is not None:
        found.append(finding)
        now[finding.position] = finding.to
    return found, now


def _check_names(operation: str, positions: Positions) -> None:
    """Exactly the operation's positions, all integers."""
    op = OPERATIONS[operation]
    count = op.inputs or max(2, len(_inputs(positions)))
    inputs = ["ipos"] if count == 1 else [f"ipos{i}" for i in range(count)]
    needed = [*inputs, *(["wpos"] if op.weights else []), "opos"]
    allowed = [*needed, "bpos"] if op.weights else needed
    foreign = sorted(positions.keys() - set(allowed))
    missing = [name for name in needed if name not in positions]
    if foreign or missing:
        raise NumericsError(
            f"{operation} has the positions {', '.join(allowed)}"
            f"{' (bpos only with a bias)' if op.weights else ''}; missing: {', '.join(missing) or 'none'};"
            f" not one of them: {', '.join(foreign) or 'none'}"
        )
    for name, at in positions.items():
        if isinstance(at, bool) or not isinstance(at, int | np.integer):
            raise NumericsError(f"{name} is {said(at)}; a position is an integer, the p of a scale 2**-p")


def accumulator_bound(
    weights: npt.NDArray[Any], bits: int, bias: npt.NDArray[Any] | None = None, axis: int = 0
) -> int:
    """The largest |acc| that any input can bring about, exactly.

    weights: int8, int16 or int32 of any shape; `axis` counts the outputs, along the rest is summed.
    bits: of the signed inputs, 8 or 16: -2**(bits - 1) .. 2**(bits - 1) - 1.  bias: one integer per output,
    in the accumulator's units (already shifted).  Returns a Python int.  Raises NumericsError for other
    types and shapes.

    >>> accumulator_bound(np.array([[127, -128], [1, 1]], np.int8), 8)
    32513
    """
    w = _rows(weights, axis)
    added = _biases(bias, len(w))
    if bits not in (8, 16):
        raise NumericsError(f"inputs of {said(bits)} bits; allowed: 8, 16")
    least, most = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    up: list[int] = np.maximum(w, 0).sum(axis=1).tolist()
    down: list[int] = np.minimum(w, 0).sum(axis=1).tolist()
    # The largest sum takes the largest input under a positive weight and the smallest under a negative one.
    highest = (p * most + n * least + b for p, n, b in zip(up, down, added, strict=True))
    lowest = (p * least + n * most + b for p, n, b in zip(up, down, added, strict=True))
    return max(max(highest), -min(lowest))


def _rows(weights: npt.NDArray[Any], axis: int) -> npt.NDArray[np.int64]:
    """The weights of each output as a row of int64, whose sums are exact: |w| <= 2**31."""
    w = np.asarray(weights)
    if w.dtype not in (np.dtype(np.int8), np.dtype(np.int16), np.dtype(np.int32)):
        raise NumericsError(f"weights of {w.dtype}; allowed: int8, int16, int32")
    if w.size == 0 or not -w.ndim <= axis < w.ndim:
        raise NumericsError(f"weights of shape {w.shape} have no outputs along axis {axis}")
    return np.moveaxis(w, axis, 0).reshape(w.shape[axis], -1).astype(np.int64)


def _biases(bias: npt.NDArray[Any] | None, outputs: int) -> list[int]:
    if bias is None:
        return [0] * outputs
    b = np.asarray(bias)
    if b.dtype.kind not in "iu" or b.shape != (outputs,):
        raise NumericsError(f"a bias of {b.dtype} {b.shape}; allowed: integers of shape ({outputs},)")
    return [int(value) for value in b]


def float32_is_exact(bound: int) -> bool:
    """Whether accumulators up to this magnitude pass through float32 unrounded.

    False from 2**24 on: a QDQ graph that requantizes through float32 may then be wrong by one unit, where
    the integer SRS is not.  Raises NumericsError for a negative bound.

    >>> float32_is_exact(2**24 - 1), float32_is_exact(2**24)
    (True, False)
    """
    if bound < 0:
        raise NumericsError(f"an accumulator bound of {bound}; it is a magnitude, 0 or more")
    return bound < FLOAT32_INTEGERS
