"""microxcaling: its `mx.custom_extensions`, without a compiler of CUDA (docs/adapters.md §4).

    from numerics.adapters import microxcaling
    with microxcaling.substituted():
        quantize_mx_op(x, mx_specs, elem_format="fp4_e2m1", axes=[-1])

Ours answer whatever its specs say of `custom_cuda`, which without CUDA may now be True.

microxcaling has no releases: its version is that of the four files that the adapter follows.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import math
import os
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from numerics.adapters import conventions
from numerics.adapters.base import (
    Adapter,
    Called,
    Calls,
    Entry,
    Function,
    Named,
    Seam,
    answered,
    fresh,
    is_hosts,
    standing_in,
)
from numerics.adapters.conventions import Convention
from numerics.adapters.scaled import is_odd, laid_like, rows_of, rows_of_blocks, takes
from numerics.adapters.scaled import largest as largest_of_rows
from numerics.formats.dtype import Float
from numerics.formats.errors import NumericsError, said
from numerics.formats.floats import float_format

__all__ = ["calls", "install", "installed", "substituted", "uninstall"]

PACKAGE, MODULE, NAME = "mx", "mx.custom_extensions", "custom_extensions"
FOLLOWED = ("elemwise_ops.py", "formats.py", "mx_ops.py", "specs.py")
SOURCES = "github.com/microsoft/microxcaling"
KNOWN = "7bc4195"  # the last state of its repository, of August 2024
DIGEST = "572139b27c1562a6c3960cb7a5cb39d03609669e52078236cc25519b3324e1d5"
ROUNDINGS = {0: "half_away", 1: "toward_zero", 2: "half_even"}
OF_HOST = {0: "nearest", 1: "floor", 2: "even"}
LARGE = 2.0**126  # from there on microxcaling's float32 logarithm may round up to 128
PIECE = 1 << 17  # elements
RUN = 32  # numbers of which it is said at once whether they are within limits
TINY = 2.0**-126  # float32's smallest normal
NEARLY = 0x7FFF00  # of a mantissa: just below a power of two, where that logarithm may be one too high


# ---- which format ------------------------------------------------------------------------------------


@lru_cache(maxsize=64, typed=True)  # a format that numbers of another type have not is remembered, too
def _format(bits: int, exponent: int, largest: float, rmode: int) -> Float | None:
    """The format with that many bits of significand, sign and hidden one counted; None where we have none.

    exponent: its bits; 0 for numbers of one step, which are a float of one exponent bit: sign and magnitude.
    A float that has one exponent bit itself is the host's, whose range of exponents ends elsewhere.
    rmode: None, too, where the host rounds half to even and no number above the least has an even one beside
    it, without mantissa bits: of two powers it takes the larger one, as IEEE 754-2019 §4.3.1 says, ours the
    one with the even code (docs/formats.md §2).
    """
    mantissa = bits - 2
    if exponent == 1 or (not mantissa and exponent and ROUNDINGS[rmode] == "half_even"):
        return None
    shape: dict[str, Any] = {"exponent": exponent or 1, "mantissa": mantissa}
    shape["bias"] = (1 << (exponent - 1)) - 1 if exponent else 1
    for specials in ("ieee", "fn", "none"):
        try:
            found = float_format(**shape, specials=specials, name=f"e{exponent}m{mantissa}_{specials}")
        except NumericsError:  # too wide, or no place for specials
            continue
        if found.max == largest:
            return found
    return None


def _numbers(x: Any) -> bool:
    """A plain tensor of float32, with an axis."""
    return takes(x) and x.dtype == torch.float32 and x.dim() > 0


def _least(d: Float) -> float:
    """Just below half of the least step: 0.5 added to it in float32 rounds up to 1.

    NaN where that is a float32 subnormal, whose sum with 0.5 is exact.
    """
    half = d.smallest_subnormal / 2
    return half * (1 - 2.0**-24) if half > TINY else math.nan


# ---- numbers -----------------------------------------------------------------------------------------


def _on_grid(y: Tensor, d: Float, rmode: int, correct: bool, spare: Tensor | None = None) -> Tensor:
    """The values of the format that microxcaling gives numbers of its range; y is written over.

    spare: memory for as many numbers, which need not be made anew for every piece.
    """
    if correct:
        return _tensor(d.round(y, rounding=ROUNDINGS[rmode], out=y))
    y += 0.0  # the sign of -0 is 0 to it
    spoiled = None  # where its float32 logarithm is one too high
    if rmode == 1:
        spoiled = y.view(torch.int32) & NEARLY == NEARLY
    else:
        magnitudes = torch.abs(y, out=spare) if spare is not None else y.abs()
        hit = magnitudes == _least(d)
        if hit.any():
            y[hit] = y[hit].sign() * d.smallest_subnormal
        if d.max > LARGE:
            spoiled = ~(magnitudes < LARGE)
    if spoiled is None:
        return _tensor(d.round(y, rounding=ROUNDINGS[rmode], out=y))
    places = spoiled.nonzero(as_tuple=True)
    came = y[places]
    made = _tensor(d.round(y, rounding=ROUNDINGS[rmode], out=y))
    made[places] = _of_host(came, d, rmode, saturate=True)
    return made


@lru_cache(maxsize=256)
def _convention(d: Float, rmode: int, correct: bool) -> tuple[Convention, conventions.Hit] | None:
    """How numbers come onto the grid in one pass; None where the host's logarithm has a say."""
    if not correct and (rmode == 1 or d.max > LARGE):
        return None
    hit = _least(d)
    least = None if correct or math.isnan(hit) else (hit, d.smallest_subnormal)
    return Convention(plain=not correct, rounding=ROUNDINGS[rmode]), least


def _in_one_pass(x: Tensor, steps: Tensor, d: Float, rmode: int, correct: bool) -> Tensor | None:
    """Rows over their steps, on the grid, times their steps; None where the host's logarithm has a say."""
    found = _convention(d, rmode, correct)
    return conventions.values(x, (steps, steps), d, *found) if found else None


def _tensor(x: Any) -> Tensor:
    assert isinstance(x, Tensor)
    return x


def _of_host(x: Tensor, d: Float, rmode: int, saturate: bool) -> Tensor:
    """microxcaling's own values of a few numbers."""
    own = importlib.import_module("mx.elemwise_ops")
    exponent = 0 if d.exponent == 1 else d.exponent
    found: Tensor = own._quantize_elemwise_core(
        x.clone(), d.mantissa + 2, exponent, d.max, round=OF_HOST[rmode], saturate_normals=saturate
    )
    return found


def _limit(d: Float, rmode: int, saturate: bool) -> float:
    """From which magnitude on microxcaling computes itself: what overflows, and what its logarithm spoils."""
    if saturate or d.beyond > LARGE:
        return LARGE if saturate else min(LARGE, d.max)
    return d.beyond if rmode == 1 else (d.max + d.beyond) / 2


class Functions:
    """What `mx.custom_extensions.funcs` is while the adapter is installed.

    quantize_elemwise_func_cpp, quantize_mx_func_cpp: as microxcaling calls them, with the bits of its own
    PyTorch path, which answers what ours do not take, and whoever keeps them once the adapter is taken away.
    The functions of GPUs raise NumericsError.
    """

    def __init__(self, correct: bool, calls: Calls) -> None:
        self._correct, self._calls, self._stands = correct, calls, True

    def leave(self) -> None:
        """From now on microxcaling answers, and no call is counted."""
        self._stands = False

    def _takes(self, name: str, x: Tensor, d: Float | None) -> bool:
        """Do ours answer this call?  It is counted."""
        taken = d is not None and _numbers(x) and not is_hosts((x,))
        if self._stands:
            self._calls.count(self._calls.ours if taken else self._calls.passed_on, name)
        return taken and self._stands

    def quantize_elemwise_func_cpp(
        self, x: Tensor, bits: int, exponent: int, largest: float, rmode: Any, saturate_normals: bool,
        allow_denorm: bool,
    ) -> Tensor:  # fmt: skip
        """Returns x rounded to a format of single numbers, in x's type."""
        rmode = int(rmode)
        d = _format(bits, exponent, largest, rmode)
        if not self._takes("quantize_elemwise", x, d) or d is None:
            own = importlib.import_module("mx.elemwise_ops")
            found: Tensor = own._quantize_elemwise_core(
                x, bits, exponent, largest, round=OF_HOST[rmode], saturate_normals=saturate_normals,
                allow_denorm=allow_denorm,
            )  # fmt: skip
            return found
        kept = x if allow_denorm or not exponent else x * (x.abs() >= d.smallest_normal)
        saturates = saturate_normals or not exponent
        limit = _limit(d, rmode, saturates)
        made, within = self._numbers(kept, d, rmode, limit)
        if not within and not self._correct:
            odd = (~(x.abs() < limit)).nonzero(as_tuple=True)
            made[odd] = _of_host(x[odd], d, rmode, saturates)
        elif not within and not saturates and d.has_nan:
            made = _tensor(d.round(x, rounding=ROUNDINGS[rmode], overflow="nonsaturate"))
        return _tensor(fresh(made))

    def _numbers(self, x: Tensor, d: Float, rmode: int, limit: float) -> tuple[Tensor, bool]:
        """The values that microxcaling gives numbers of the format's range, and are all below a limit?"""
        how = _convention(d, rmode, self._correct) if x.is_contiguous() else None
        if how is None:
            low, high = x.aminmax()
            within = bool(-low < limit) and bool(high < limit)  # no NaN, either
            made = x.clone(memory_format=torch.contiguous_format)
            return _on_grid(made, d, rmode, self._correct), within
        run = RUN if x.numel() % RUN == 0 else 1
        made, within = conventions.limited_values(x.view(-1, run), d, *how, limit)
        return made.view(x.shape), within

    def quantize_mx_func_cpp(
        self, x: Tensor, scale_bits: int, exponent: int, bits: int, largest: float, max_values: Tensor,
        axis: int, flush_fp32_subnorms: bool, rmode: Any,
    ) -> Tensor:  # fmt: skip
        """Returns x as blocks that share a power of two, as values; max_values: the largest of each."""
        rmode = int(rmode)
        d = _format(bits, exponent, largest, rmode)
        if not self._takes("quantize_mx", x, d) or d is None:
            return _blocks_of_host(x, scale_bits, (exponent, bits, largest), axis, flush_fp32_subnorms, rmode)
        return _tensor(fresh(self.blocks(x, max_values, d, (scale_bits, flush_fp32_subnorms, rmode))))

    def blocks(self, x: Tensor, top: Tensor, d: Float, how: tuple[int, bool, int]) -> Tensor:
        """x as blocks of a format; top: the largest magnitude of each.

        how: the bits of a scale, are blocks of float32's subnormals zeros, and the rounding's number.
        """
        scale_bits, flush_fp32_subnorms, rmode = how
        shared = _shared_exponents(top, self._correct)
        if flush_fp32_subnorms and not bool((shared > -127).all()):
            x = x * (shared > -127)
        shared = shared - (math.frexp(d.max)[1] - 1)
        limit = float((1 << (scale_bits - 1)) - 1)
        shared[shared > limit] = math.nan
        shared[shared < -limit] = -limit
        return self._at_steps(x, 2**shared, d, rmode)

    def rows(self, x: Tensor, d: Float, how: tuple[int, bool, int]) -> Tensor:
        """`blocks` of rows that are whole blocks; few, whose scale is microxcaling's own, in more passes."""
        found = _convention(d, how[2], self._correct) if conventions.holds(x.shape[1]) else None
        if found is None:
            return self.blocks(x, largest_of_rows(x).unsqueeze(1), d, how)
        made, odd = conventions.power_values(x, d, *found, math.frexp(d.max)[1] - 1, how[0])
        if len(odd):
            few = x[odd]
            made[odd] = self.blocks(few, largest_of_rows(few).unsqueeze(1), d, how)
        return made

    def _at_steps(self, x: Tensor, steps: Tensor, d: Float, rmode: int) -> Tensor:
        """Values over their steps, rounded, times their steps: a piece at a time, which a cache holds."""
        length = _length(x, steps) if x.is_contiguous() else None
        if length is None:  # blocks whose numbers do not follow one another
            return _on_grid(x / steps, d, rmode, self._correct).mul_(steps)
        found = _in_one_pass(x.view(-1, length), steps.reshape(-1), d, rmode, self._correct)
        if found is not None:
            return found.view(x.shape)
        made = torch.empty_like(x)
        rows = max(1, PIECE // length)
        pieces = (x.view(-1, length), made.view(-1, length), steps.reshape(-1, 1))
        spare = x.new_empty(min(rows, len(pieces[0])), length)
        for values, out, step in zip(*(one.split(rows) for one in pieces), strict=True):
            torch.div(values, step, out=out)
            _on_grid(out, d, rmode, self._correct, spare[: len(out)]).mul_(step)
        return made

    def __getattr__(self, name: str) -> Any:
        """Refuses what there is for GPUs only."""
        if name.startswith("__"):
            raise AttributeError(name)
        raise NumericsError(
            f"mx.custom_extensions.funcs.{name} is not there: the adapter computes on the CPU, "
            "quantize_mx_func_cpp and quantize_elemwise_func_cpp; uninstall it to use microxcaling's own CUDA"
        )


def _length(x: Tensor, steps: Tensor) -> int | None:
    """How many numbers of x that follow one another share a step; None where they do not, or it has others.

    >>> x, column = torch.ones(2, 4, 3), torch.ones(2, 4, 1)
    >>> _length(x, x[:, :, :1]), _length(x, x[:, :1, :1]), _length(x, x[:, :1]), _length(column, x[:, :1, :1])
    (3, 12, None, 4)
    """
    if steps.dim() != x.dim() or any(
        one not in (1, size) for one, size in zip(steps.shape, x.shape, strict=True)
    ):
        return None
    return rows_of(x.shape, [size // one for size, one in zip(x.shape, steps.shape, strict=True)])


def _shared_exponents(top: Tensor, correct: bool) -> Tensor:
    """floor(log2 amax), by microxcaling's float32 logarithm or exactly."""
    if correct:
        exponents = torch.frexp(top).exponent.float() - 1
        return torch.where(torch.isfinite(top), torch.where(top > 0, exponents, -126.0), torch.nan)
    found: Tensor = importlib.import_module("mx.mx_ops")._shared_exponents(top, method="none")
    return found


def _whole(functions: Functions) -> Function:
    """_quantize_mx, whose largest number of each block microxcaling finds in three passes.

    Blocks along the last axis are taken; others reach quantize_mx_func_cpp by microxcaling's own code.
    """
    params = importlib.import_module("mx.formats")._get_format_params
    roundings = {name: number for number, name in OF_HOST.items()}

    def _quantize_mx(
        A: Tensor, scale_bits: int, elem_format: Any, shared_exp_method: str = "max", axes: Any = None,
        block_size: int = 0, round: str = "nearest", flush_fp32_subnorms: bool = False,
        custom_cuda: bool = False,
    ) -> Any:  # fmt: skip
        fits = elem_format is not None and takes(A) and A.dim() > 0
        if not fits or shared_exp_method != "max" or round not in roundings or not scale_bits > 0:
            return NotImplemented
        along = [axes] if isinstance(axes, int) else list(axes or ())
        rows = rows_of_blocks(A, along[0], block_size or A.shape[-1]) if len(along) == 1 else None
        if rows is None:
            return NotImplemented
        exponent, bits, _, largest, _ = params(elem_format)
        rmode = roundings[round]
        d = _format(bits, exponent, largest, rmode)
        if d is None:
            return NotImplemented
        how = scale_bits, flush_fp32_subnorms, rmode
        return functions.rows(rows, d, how).view(A.shape)

    return _quantize_mx


_ASKED = threading.local()  # own: do ours ask microxcaling in this thread, which then answers itself?


Given = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments of a call, and those with a name."""


def _with(wanted: bool, place: int, arguments: tuple[Any, ...], named: dict[str, Any]) -> Given:
    """The same arguments with that `custom_cuda`; place: its number."""
    if len(arguments) > place:
        return (*arguments[:place], wanted, *arguments[place + 1 :]), named
    return arguments, {**named, "custom_cuda": wanted}


def _in_its_place(
    name: str, fits: Callable[..., bool], ours: Function, host: Function, calls: Calls
) -> Function:
    """A function with `custom_cuda`, whatever that says: ours where they take the call, or PyTorch's path.

    fits: of its arguments by name, has the extension what they ask for?  Results lie in memory as PyTorch's
    path lays them: the extension makes all tensors contiguous.  On a GPU the call is the extension's.
    """
    signature = inspect.signature(host)
    place = [*signature.parameters].index("custom_cuda")

    def taken(arguments: tuple[Any, ...], named: dict[str, Any]) -> bool:
        given = signature.bind(*arguments, **named)
        given.apply_defaults()
        return fits(**given.arguments)

    @functools.wraps(host)
    def function(*arguments: Any, **named: Any) -> Any:
        x = arguments[0] if arguments else named.get("A")
        wanted = arguments[place] if len(arguments) > place else named.get("custom_cuda", False)
        if getattr(_ASKED, "own", False) or not isinstance(x, Tensor) or (wanted and x.is_cuda):
            return host(*arguments, **named)
        by_pytorch = _with(False, place, arguments, named) if wanted else (arguments, named)
        if torch.compiler.is_compiling():
            return host(*by_pytorch[0], **by_pytorch[1])
        with calls.one(name):
            if not _numbers(x) or is_odd(x) or is_hosts((x,)):
                arguments, named = by_pytorch
            elif answered(taken, arguments, named) is True:
                return _laid(_asked(ours, *_with(True, place, arguments, named)), x)
            calls.count(calls.passed_on, name)
            return host(*arguments, **named)

    return function


def _asked(ours: Function, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """What ours give; for what they ask of microxcaling meanwhile, it answers itself."""
    _ASKED.own = True
    try:
        return ours(*arguments, **named)
    finally:
        _ASKED.own = False


def _laid(made: Any, x: Tensor) -> Any:
    """The result as PyTorch's path lays it; x itself where nothing is quantized."""
    if made is x or x.is_contiguous():
        return made
    filled = made.untyped_storage().nbytes() > made.nbytes  # blocks that x did not fill, in both ways
    return made if filled else laid_like(made, x)


def _has_rounding(round: str, **_: Any) -> bool:
    """Has the extension the rounding?"""
    return round in OF_HOST.values()


def _has_blocks(shared_exp_method: str, axes: Any, round: str, **_: Any) -> bool:
    """Has the extension blocks of that kind: along one axis, by their largest number?"""
    along = [axes] if isinstance(axes, int) else list(axes)
    return shared_exp_method == "max" and len(along) == 1 and _has_rounding(round)


def _finalized(host: Function) -> Function:
    """finalize_mx_specs, which asks for CUDA where it is told custom_cuda: here it is computed without.

    All else, what it leaves out and what it writes into the specs that it is given, is the host's.
    """

    @functools.wraps(host)
    def finalize_mx_specs(specs: Any, *arguments: Any, **named: Any) -> Any:
        asked = specs.get("custom_cuda")
        if not asked:
            return host(specs, *arguments, **named)
        specs["custom_cuda"] = False
        try:
            made = host(specs, *arguments, **named)
        finally:
            specs["custom_cuda"] = asked
        if made is not None:
            made["custom_cuda"] = asked
        return made

    return finalize_mx_specs


def _blocks_of_host(
    x: Tensor, scale_bits: int, asked: tuple[int, int, float], axis: int, flush: bool, rmode: int
) -> Tensor:
    """microxcaling's own PyTorch path."""
    formats = importlib.import_module("mx.formats")
    for one in formats.ElemFormat:
        found = formats._get_format_params(one)
        if (found[0], found[1], found[3]) == asked:
            made: Tensor = importlib.import_module("mx.mx_ops")._quantize_mx(
                x, scale_bits, one, axes=[axis], block_size=0, round=OF_HOST[rmode], flush_fp32_subnorms=flush
            )
            return made
    raise NumericsError(f"microxcaling has no format of exponent bits, bits and maximum {said(asked)}")


# ---- the adapter ---------------------------------------------------------------------------------


def _version() -> str:
    """The known version where the files that are followed are as they were; else their digest."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.origin:
        raise ImportError(PACKAGE)
    digest = hashlib.sha256()
    for name in FOLLOWED:
        path = Path(spec.origin).parent / name
        digest.update(path.read_bytes() if os.path.exists(path) else b"")
    return KNOWN if digest.hexdigest() == DIGEST else f"of the digest {digest.hexdigest()[:12]}"


def _seams(correct: bool, calls: Calls) -> list[Seam]:
    package = importlib.import_module(PACKAGE)
    module = ModuleType(MODULE, __doc__)
    functions = Functions(correct, calls)
    module.funcs = functions  # type: ignore[attr-defined]

    def ours(host: object) -> ModuleType:
        return module

    def whole(host: Function) -> Function:
        standing = standing_in("_quantize_mx", _whole(functions), host, calls)
        return _in_its_place("_quantize_mx", _has_blocks, standing, host, calls)

    def core(host: Function) -> Function:
        return _in_its_place("quantize_elemwise", _has_rounding, host, host, calls)

    return [
        Called(lambda: None, functions.leave),
        Named(PACKAGE, "mx.elemwise_ops", "_quantize_elemwise_core", core),
        Named(PACKAGE, "mx.mx_ops", "_quantize_mx", whole),
        Named(PACKAGE, "mx.specs", "finalize_mx_specs", _finalized),
        Entry(lambda: sys.modules, MODULE, ours, MODULE),
        Entry(lambda: vars(package), NAME, ours, f"{PACKAGE}.{NAME}"),
    ]


ADAPTER = Adapter("microxcaling", SOURCES, (KNOWN,), _seams, _version)
install, uninstall, substituted = ADAPTER.install, ADAPTER.uninstall, ADAPTER.substituted
installed, calls = ADAPTER.installed, ADAPTER.calls
