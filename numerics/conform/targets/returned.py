"""What a kernel under test returned or raised, made plain: a stranger wrote it, nothing of it is trusted."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from numerics.formats.block import Blocks
from numerics.formats.errors import NumericsError, kind_of, shortened, words_of

T = TypeVar("T")
LONGEST = 600  # characters of what a target raised that a verdict repeats


class Raised(Exception):
    """A target's own code raised, whatever it was; the text says its kind and its words in one line."""


NO_DEVICE = re.compile(
    r"(?i)\bno (nvidia|cuda|hip|rocm|gpu|visible gpu|device|kernel image is available)"
    r"|compiled with cuda|cuda is not|cuda driver version is insufficient|cuda driver initialization failed"
    r"|cuda_error_no_device|cudaerrornodevice|libcuda\.so|\b0 active drivers"
)
"""What is said where a device is needed that is not there; not what a kernel of one does wrong."""


def check_device(name: str, wrong: Raised) -> None:
    """Raises NumericsError where a target could not even begin: it is neither right nor wrong.

    name: the target's.  wrong: what it raised.
    """
    if NO_DEVICE.search(str(wrong)):
        raise NumericsError(f"{name} cannot be judged on this machine: {wrong}") from None


class Unreadable(Exception):
    """What came is no array whose numbers are all there; its text says what it is, and why."""


class Returned(NamedTuple):
    """An array that came: its numbers, in memory that may still be the target's; the name of its type."""

    array: NDArray[Any]
    dtype: str


def returned(came: Any) -> Returned:
    """An array as NumPy's; torch's float8 and bfloat16, which NumPy lacks, by their bits; bytes as uint8.

    Raises Unreadable for all else, whatever looking at it raises.

    >>> returned(b"ab"), returned([1.5]).dtype
    (Returned(array=array([97, 98], dtype=uint8), dtype='uint8'), 'float64')
    >>> returned(np.ma.array([1, 2], mask=[True, False]))
    Traceback (most recent call last):
        ...
    numerics.conform.targets.returned.Unreadable: MaskedArray, of which some numbers are masked
    """
    try:  # a plain array runs no code of a stranger
        found = _returned(came) if type(came) is np.ndarray else guarded(lambda: _returned(came))
    except Raised as wrong:
        raise Unreadable(f"{kind_of(came)} ({wrong})") from wrong
    if found is None:
        raise Unreadable(f"{kind_of(came)}, of which some numbers are masked")
    if found.array.dtype.kind in "OSUMm":
        raise Unreadable(kind_of(came) + f" of {found.dtype}" * issubclass(type(came), np.ndarray))
    return found


def parts_of(came: Any) -> tuple[Any, ...]:
    """The fields of blocks that came, the items of a tuple or of a list of arrays, or what came alone.

    A list of numbers is an array.  Raises Raised as they do.

    >>> parts_of((1, 2)), parts_of([[1], 2]), parts_of([3])
    ((1, 2), ([1], 2), ([3],))
    """
    if issubclass(type(came), Blocks):
        return guarded(lambda: (came.codes, came.scale, came.microexponents))
    if issubclass(type(came), tuple):
        return guarded(lambda: tuple(came))
    if issubclass(type(came), list) and (items := guarded(lambda: tuple(came))) and not _is_number(items[0]):
        return items
    return (came,)


def _is_number(part: Any) -> bool:
    return issubclass(type(part), (int, float, np.generic))


def _returned(came: Any) -> Returned | None:
    """The same; None where numbers are hidden, which NumPy's own conversion would lay bare."""
    kind = type(came)
    if issubclass(kind, (bytes, bytearray)):
        return Returned(np.frombuffer(came, np.uint8), "uint8")
    if kind is not np.ndarray and hasattr(came, "detach"):
        return _of_tensor(came)
    found = np.asanyarray(came)
    if _hides(found) or (issubclass(kind, (list, tuple)) and _hides(came)):
        return None
    plain = np.asarray(found)
    return Returned(plain, plain.dtype.name)


def _hides(part: Any) -> bool:
    """Does an array hide some of its numbers by a mask, or one among the items of a list?"""
    kind = type(part)
    if kind in (np.ndarray, int, float, bool) or issubclass(kind, np.generic):
        return False
    if issubclass(kind, (list, tuple)):
        return any(map(_hides, part))
    return bool(np.any(getattr(part, "mask", False)))


def _of_tensor(came: Any) -> Returned:
    tensor = came.detach().cpu().resolve_neg()
    name = str(tensor.dtype).removeprefix("torch.")
    try:
        return Returned(np.asarray(tensor.numpy()), name)
    except TypeError:
        torch = torch_module()
        bits = torch.uint8 if tensor.element_size() == 1 else torch.uint16
        return Returned(np.asarray(tensor.contiguous().view(bits).numpy()), name)


def torch_module() -> Any:
    """Returns torch; raises NumericsError where it is not installed."""
    try:
        import torch
    except ImportError as missing:
        raise NumericsError(
            "array='torch' needs torch, which is not installed: pip install 'numerics-formats[torch]'"
        ) from missing
    return torch


# ---- what was raised -------------------------------------------------------------------------------


def guarded(call: Callable[[], T]) -> T:
    """Returns what a stranger's code returns; raises Raised for all that it raises.

    An exit and a KeyboardInterrupt of its own too, but what a signal's handler raises meanwhile goes on:
    somebody has stopped the judge.

    >>> guarded(lambda: {}["scale"])
    Traceback (most recent call last):
        ...
    numerics.conform.targets.returned.Raised: KeyError: 'scale'
    """
    with stops_noted() as stopped:
        try:
            return call()
        except BaseException as wrong:
            if any(wrong is one for one in stopped):
                raise
            raise Raised(f"{kind_of(wrong)}: {_words(wrong)}") from wrong


def _words(wrong: BaseException) -> str:
    """Its words; its own `__str__` is a stranger's too."""
    try:
        return shortened(words_of(wrong), LONGEST)
    except BaseException as worse:
        return f"its text raises {kind_of(worse)}"


class _Stop:
    """A handler of Ctrl-C that keeps what the one before it raises."""

    def __init__(self, before: Any) -> None:
        self.before = before
        self.raised: list[BaseException] = []

    def __call__(self, number: int, frame: Any) -> None:
        try:
            self.before(number, frame)
        except BaseException as wrong:
            self.raised.append(wrong)
            raise


@contextmanager
def stops_noted() -> Iterator[list[BaseException]]:
    """Fills a list with what the handler of Ctrl-C raises within it: in the main thread, where it runs.

    Within another one the list is that one's: to set a handler takes longer than many a kernel.
    """
    before = signal.getsignal(signal.SIGINT)
    if type(before) is _Stop:
        yield before.raised
        return
    stop = _Stop(before)
    try:
        if callable(before):
            with suppress(ValueError):  # of another thread than the main one: no handler runs there
                signal.signal(signal.SIGINT, stop)
        yield stop.raised
    finally:
        if signal.getsignal(signal.SIGINT) is stop:
            signal.signal(signal.SIGINT, before)
