"""What adapters share: seams of a host that are ours for a while, and are then as they were found.

A host is another library.  A seam is a place in it where a function of ours can stand: a name in its
modules, an operator of torch, an entry of a table or of a registry.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import re
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol

import torch
from torch.autograd import forward_ad
from torch.overrides import _get_current_function_mode_stack as _modes
from torch.utils._device import DeviceContext

from numerics.backends.host.ieee import is_ieee
from numerics.formats.errors import NumericsError, said, truth
from numerics.pytorch.operators import are_recorded, is_traced

Function = Callable[..., Any]
Maker = Callable[[Function, bool], Function]
"""Makes ours of the host's function, which may be asked, and of `correct`."""
MISSING = object()  # of a name or an entry that was not there
NOTHING: Counter[str] = Counter()  # of a call within which none is counted yet
BUILD = re.compile(r"\+(cpu|xpu|cu\d+|rocm[\d.]+)$")  # of a version: the same sources, for a device


class Seam(Protocol):
    """A place in a host."""

    def put(self) -> None:
        """Puts ours there."""

    def restore(self) -> None:
        """Leaves it as it was found; raises NumericsError where somebody else has changed it since."""


@dataclass
class Calls:
    """How often each function of a host was called while ours stood in its place.

    ours: calls that our kernels answered.  passed_on: calls that the host answered itself, since they are of
    a kind that the adapter does not take (docs/adapters.md says which).  A call counts once, under the name
    of the outermost function: as ours where one of our kernels answered it, or a call within it.

    >>> calls = Calls()
    >>> calls.count(calls.ours, "quantize")
    >>> calls.ours["quantize"], calls.passed_on["quantize"]
    (1, 0)
    """

    ours: Counter[str] = field(default_factory=Counter)
    passed_on: Counter[str] = field(default_factory=Counter)
    _lock: Any = field(default_factory=threading.Lock, repr=False, compare=False)
    _inside: Any = field(default_factory=threading.local, repr=False, compare=False)

    def count(self, which: Counter[str], name: str) -> None:
        """Adds one call; of one within another it is kept whose it was."""
        if getattr(self._inside, "counted", None) is None:
            with self._lock:
                which[name] += 1
        elif self._inside.counted is not self.ours:
            self._inside.counted = which

    @contextlib.contextmanager
    def one(self, name: str) -> Iterator[None]:
        """Counts as one call of this name all that is counted until the end: as ours where any of it is.

        Where nothing is counted nothing is added.

        >>> calls = Calls()
        >>> with calls.one("fake_quantize"):
        ...     calls.count(calls.passed_on, "fake_quantize")
        ...     calls.count(calls.ours, "quantize")
        >>> dict(calls.ours), dict(calls.passed_on)
        ({'fake_quantize': 1}, {})
        """
        outer, self._inside.counted = getattr(self._inside, "counted", None), NOTHING
        try:
            yield
        finally:
            counted, self._inside.counted = self._inside.counted, outer
            if counted is not NOTHING:
                self.count(counted, name)

    def clear(self) -> None:
        """Begins to count anew."""
        self.ours.clear()
        self.passed_on.clear()

    def begin(self) -> Calls:
        """Begins to count in new counters, and returns the counts of those alone.

        >>> calls = Calls()
        >>> first = calls.begin()
        >>> calls.count(calls.ours, "quantize")
        >>> calls.begin().ours["quantize"], first.ours["quantize"]
        (0, 1)
        """
        self.ours, self.passed_on = Counter(), Counter()
        return Calls(self.ours, self.passed_on)


def is_seen() -> bool:
    """Does somebody look at what torch computes, or change it?

    A compiler, a trace, a mode, a transformation of torch.func, a level of dual numbers.  What our kernels
    compute is no operator of torch, and such a one would see a constant.
    """
    return is_traced() or forward_ad._current_level >= 0 or any(map(_changes, _modes()))


def _changes(mode: Any) -> bool:
    """Does a mode do more than make new tensors on the CPU, where they are made anyway?"""
    return not isinstance(mode, DeviceContext) or mode.device.type != "cpu"


def is_hosts(arguments: Sequence[Any], gradless: bool = False) -> bool:
    """Is a call with these arguments the host's, whatever our kernels take?

    One that somebody looks at, one that torch records a gradient of, and one in a thread that flushes
    float32's subnormals, as torch.set_flush_denormal does, or rounds another way: our kernels do neither.
    gradless: the host's computes without gradients.
    """
    return is_seen() or not is_ieee() or (not gradless and has_gradient(arguments))


def has_gradient(arguments: Sequence[Any]) -> bool:
    """Does torch record a gradient of one of these?"""
    return are_recorded([one for one in arguments if isinstance(one, torch.Tensor)])


class Refusal(NumericsError):
    """An adapter's own refusal of a call that its host has no answer to, either."""


def answered(ours: Function, *arguments: Any, **named: Any) -> Any:
    """What ours gives; NotImplemented of a call on which it raises.

    The host then answers that one, or refuses it in its own words: what a call may be is the host's to say.
    """
    try:
        return ours(*arguments, **named)
    except Refusal:
        raise
    except Exception:
        return NotImplemented


def fresh(found: Any) -> Any:
    """What ours gives as a host makes it: no view, since torch changes none in place under a gradient."""
    if isinstance(found, (tuple, list)):
        return type(found)(map(fresh, found))
    if not isinstance(found, torch.Tensor):
        return found
    if found._is_view():  # of what our kernels made in another shape
        with torch.no_grad():
            return torch.empty(0, dtype=found.dtype).set_(found)  # type: ignore[call-overload]
    return found


def standing_in(name: str, ours: Function, host: Function, calls: Calls, gradless: bool = False) -> Function:
    """Returns a function in the place of the host's, which counts, and calls ours or passes on.

    ours: returns NotImplemented for a call that it does not take, or raises.  The host answers that one, and
    what `is_hosts` says, so that graphs, traces and gradients are the host's own.
    gradless: the host's computes without gradients, whatever it is given; so does ours.
    """

    @functools.wraps(host)
    def function(*arguments: Any, **named: Any) -> Any:
        if torch.compiler.is_compiling():
            return host(*arguments, **named)
        with calls.one(name):
            found, given = NotImplemented, (*arguments, *named.values())
            if not is_hosts(given, gradless):
                with torch.no_grad() if gradless else contextlib.nullcontext():
                    found = answered(ours, *arguments, **named)
            if found is NotImplemented:
                calls.count(calls.passed_on, name)
                return host(*arguments, **named)
            calls.count(calls.ours, name)
            return fresh(found)

    return function


# ---- seams ---------------------------------------------------------------------------------------


def _inside(package: str) -> Iterator[ModuleType]:
    """The modules of a package that are imported now."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and (name == package or name.startswith(f"{package}.")):
            yield module


def exchange(package: str, old: object, new: object) -> None:
    """Puts `new` wherever a module of the package has `old` under a name."""
    for module in _inside(package):
        for name, found in list(vars(module).items()):
            if found is old:
                setattr(module, name, new)


@dataclass
class Named:
    """A function of a module, under every name by which modules of the host's package know it."""

    package: str
    module: str
    name: str
    make: Callable[[Function], Function]
    _host: Any = None
    _ours: Any = None
    _stands: bool = False

    def put(self) -> None:
        """Puts ours in all modules that have the host's, among them those that took it by `from`.

        Whoever else took ours by `from` keeps it, and is answered by the host once it is taken away.
        """
        host = self._host = getattr(importlib.import_module(self.module), self.name)
        ours = self.make(host)

        @functools.wraps(host)
        def function(*arguments: Any, **named: Any) -> Any:
            return (ours if self._stands else host)(*arguments, **named)

        if getattr(sys.modules.get(function.__module__), function.__qualname__, None) is not host:
            function.__module__, function.__qualname__ = self.module, self.name  # by which pickle finds it
        self._ours, self._stands = function, True
        exchange(self.package, self._host, self._ours)

    def restore(self) -> None:
        """Puts the host's back, in modules too that were imported since."""
        self._stands = False
        there = getattr(sys.modules.get(self.module), self.name, None)
        exchange(self.package, self._ours, self._host)
        if there is not self._ours:
            raise changed(f"{self.module}.{self.name}")


@dataclass
class Entry:
    """An entry of a table, such as sys.modules or a registry: ours while installed."""

    table: Callable[[], Any]
    key: Any
    make: Callable[[Any], Any]
    said: str
    _host: Any = MISSING
    _ours: Any = None

    def put(self) -> None:
        """Keeps what was there, if anything was."""
        table = self.table()
        self._host = table.get(self.key, MISSING)
        self._ours = self.make(self._host)
        table[self.key] = self._ours

    def restore(self) -> None:
        """Puts it back, or takes the entry away."""
        table = self.table()
        if table.get(self.key, MISSING) is not self._ours:
            raise changed(self.said)
        if self._host is MISSING:
            del table[self.key]
        else:
            table[self.key] = self._host


@dataclass
class Called:
    """A registry with functions of its own to enter and to leave it."""

    enter: Function
    leave: Function

    def put(self) -> None:
        """Enters."""
        self.enter()

    def restore(self) -> None:
        """Leaves."""
        self.leave()


@dataclass
class Operator:
    """An operator of torch: a kernel for tensors on the CPU, before the host's."""

    namespace: str
    name: str
    kernel: Function
    _library: Any = None
    _known: frozenset[str] = frozenset()

    def put(self) -> None:
        """Registers ours for the CPU; a kernel of the host's for it waits below."""
        self._known = frozenset(torch.library._impls)  # where torch remembers who registered from Python
        self._library = torch.library.Library(self.namespace, "IMPL")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Warning only once for all operators")  # that ours comes first
            self._library.impl(self.name, self.kernel, "CPU")

    def restore(self) -> None:
        """Takes it away again."""
        kept = self._library._op_impls & self._known
        self._library._destroy()
        torch.library._impls |= kept
        self._library = None


def changed(what: str) -> NumericsError:
    """The error for a seam that somebody else has changed since it was ours."""
    return NumericsError(
        f"{what} was changed by somebody else while the adapter was installed; it is left as it is now: "
        "uninstall in the reverse order of installing"
    )


# ---- an adapter ----------------------------------------------------------------------------------


class Adapter:
    """Our kernels in the place of a host's, between install() and uninstall().

    library: the host's name.  distribution: how its package is called where it is installed, or where its
    sources are had, if it has no package.  versions: those that the adapter was proven on.  seams: makes the
    seams, once the host is known to be there, of (correct, calls).  found: says the version of a host that
    has no package.
    """

    def __init__(
        self, library: str, distribution: str, versions: Sequence[str],
        seams: Callable[[bool, Calls], Sequence[Seam]], found: Callable[[], str] | None = None,
    ) -> None:  # fmt: skip
        self.library, self.distribution, self.versions = library, distribution, tuple(versions)
        self.calls = Calls()
        self._seams, self._found = seams, found
        self._put: list[Seam] = []
        self._counted = self.calls
        self._lock = threading.RLock()

    def installed(self) -> bool:
        """Do our kernels stand in the host now?"""
        return bool(self._put)

    def version(self) -> str:
        """Returns the version of the host; raises NumericsError where it is missing or not a known one."""
        wanted = " or ".join(self.versions)
        try:
            version = self._found() if self._found else importlib.metadata.version(self.distribution)
        except (ImportError, importlib.metadata.PackageNotFoundError):
            needed = f"{self.library} is not installed: its adapter needs {self.distribution} {wanted}"
            raise NumericsError(needed) from None
        if BUILD.sub("", version or "") not in self.versions:  # None of a package whose metadata is not whole
            raise NumericsError(
                f"{self.library} {said(version)} is not known to its adapter, which follows {wanted} bit for "
                f"bit: install {self.distribution} {wanted}"
            )
        return version

    def known(self, function: Function) -> Function:
        """Returns the function, which asks for a host of a known version before it does anything."""

        @functools.wraps(function)
        def asked(*arguments: Any, **named: Any) -> Any:
            version = self.version()
            try:
                return function(*arguments, **named)
            except ImportError as wrong:
                raise self._broken(version, wrong) from wrong

        return asked

    def _broken(self, version: str, wrong: Exception) -> NumericsError:
        """The error for a host that is installed, but not whole."""
        return NumericsError(
            f"{self.library} {version} is installed, but is not as its adapter knows it: {wrong}; install "
            f"{self.distribution} {version} anew"
        )

    def install(self, *, correct: bool = False) -> None:
        """Puts our kernels into the host, whose modules are imported by it.

        correct: where the host has a fault (docs/adapters.md lists them), False gives the host's bits, True
        those of the standard.  Raises NumericsError where the host is missing, where its version is unknown,
        and where the adapter is installed already; the host is then as it was.
        """
        truth("correct", correct)
        with self._lock:
            if self._put:
                raise NumericsError(f"the adapter of {self.library} is installed already; uninstall it first")
            version = self.version()
            put: list[Seam] = []
            try:
                for seam in self._seams(correct, self.calls):
                    seam.put()
                    put.append(seam)
            except BaseException as wrong:
                _restored(put)
                if isinstance(wrong, (ImportError, AttributeError)):
                    raise self._broken(version, wrong) from wrong
                raise
            self._put, self._counted = put, self.calls.begin()

    def uninstall(self) -> None:
        """Leaves the host as it was found.

        Raises NumericsError where the adapter is not installed, and where somebody else has changed one of
        its places since: all others are then as they were found.
        """
        with self._lock:
            if not self._put:
                raise NumericsError(f"the adapter of {self.library} is not installed")
            put, self._put = self._put, []
            faults = _restored(put)
        if faults:
            raise faults[0]

    def substituted(self, *, correct: bool = False) -> Substituted:
        """install() before, uninstall() after, whatever happens; gives the counts of calls.

        These counts stay when the adapter is installed again.  What the body raises is raised, also where
        the host cannot be left as it was found, which is then said beside it.  A body may uninstall() itself.
        One stands at a time: a second `with` inside of it raises NumericsError, as install() does.
        """
        return Substituted(self, correct)


class Substituted(contextlib.ContextDecorator):
    """What `Adapter.substituted` returns: for `with`, or before a function, as often as one likes."""

    def __init__(self, adapter: Adapter, correct: bool) -> None:
        self._adapter, self._correct = adapter, correct
        self._put: list[Seam] = []

    def __enter__(self) -> Calls:
        with self._adapter._lock:
            self._adapter.install(correct=self._correct)
            self._put = self._adapter._put
            return self._adapter._counted

    def __exit__(self, kind: Any, raised: BaseException | None, traceback: Any) -> None:
        """Uninstalls what was installed, unless the body has done so."""
        with self._adapter._lock:
            if self._adapter._put is not self._put:
                return
            try:
                self._adapter.uninstall()
            except NumericsError as fault:
                if raised is None:
                    raise
                raised.add_note(str(fault))


def _restored(put: Sequence[Seam]) -> list[NumericsError]:
    """Restores all seams, the last first, whatever one of them raises; returns what could not be."""
    faults = []
    for seam in reversed(put):
        try:
            seam.restore()
        except NumericsError as fault:
            faults.append(fault)
        except Exception as fault:  # of the host's own registries
            told = f"a place of the host could not be left as it was found: {fault!r}"
            faults.append(NumericsError(told))
    return faults


def replaced(
    package: str,
    table: Mapping[str, Mapping[str, Maker]],
    correct: bool,
    calls: Calls,
    gradless: Container[str] = (),
) -> list[Seam]:
    """Returns a seam for each function of a table of the host's modules: {module: {name: maker of ours}}.

    gradless: the names of those that compute without gradients.
    """

    def put(name: str, maker: Maker) -> Callable[[Function], Function]:
        return lambda host: standing_in(name, maker(host, correct), host, calls, name in gradless)

    return [
        Named(package, module, name, put(name, maker))
        for module, functions in table.items()
        for name, maker in functions.items()
    ]
