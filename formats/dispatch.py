"""Which backend takes this data.

Formats call `of(x)`; backends register themselves from above, so that nothing here imports them.  What
they offer is in protocol.py, which knows formats; this module knows none.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Never, Protocol

from numerics.formats.arguments import MISSING, required, unknown_argument
from numerics.formats.errors import NumericsError, one_of, text_in, warn
from numerics.formats.forking import imported


class Owner(Protocol):
    """What is asked of a backend before anything is computed; the rest is in protocol.py."""

    name: str

    def check(self) -> None:
        """Raises NumericsError where what it runs on is not there."""

    def owns(self, x: Any) -> bool:
        """Is this the executor for data of x's kind, on x's device?"""


@dataclass(frozen=True)
class _Home:
    """Where a backend lives, on which device the data lies that it takes, and what to install for it."""

    module: str
    device: str | None = "cpu"
    extra: str | None = None

    def may_own(self, x: Any) -> bool:
        """Is it worth importing for x?"""
        if self.device is None:
            return False
        try:
            device = getattr(x, "device", "cpu")  # arrays say "cpu", tensors have an object of that type
            on_cpu = getattr(device, "type", device) == "cpu"
        except Exception:  # whatever what came raises: no backend's data does
            return False
        return bool(on_cpu) == (
            self.device == "cpu"
        )  # of what torch.fx traces no bool is to be had: it says so


MEANT = {  # what else backends are called, in lower case
    "cuda": "did you mean 'gpu'?", "triton": "did you mean 'gpu'?", "hip": "did you mean 'gpu'?",
    "rocm": "did you mean 'gpu'?", "numpy": "did you mean 'array'?", "numba": "did you mean 'cpu'?",
    "npu": "did you mean 'ipu'?", "onnx": "did you mean 'ipu'?",
    "cuda:0": "did you mean 'gpu'? tensors are computed on the GPU on which they lie;",
    "mps": "Apple's GPUs have no backend here; tensors are computed on the CPU: 'cpu';",
}  # fmt: skip
_CALLED = {"CPU": "cpu", "IPU": "ipu"}  # by numerics.vocabulary.DeviceType
_homes: dict[str, _Home] = {}
_backends: dict[str, Owner] = {}
_missing: dict[str, NumericsError] = {}
_said: set[str] = set()
_faces: list[tuple[type, Owner]] = []
_expected: dict[str, tuple[str, str]] = {}
_converters: dict[str, tuple[str, str]] = {}
choice: contextvars.ContextVar[str | None] = contextvars.ContextVar("numerics_backend", default=None)
"""The name of the backend that `use` chose; None where it did not."""


def register(name: str, home: str, *, device: str | None = "cpu", extra: str | None = None) -> None:
    """Makes a backend known by the module that holds it as `BACKEND`; nothing is imported yet.

    device: "cpu", "gpu", or None for a backend that takes nothing unasked; extra: of this
    distribution, what it needs.
    """
    _homes[name] = _Home(home, device, extra)


def register_face(kind: type, face: Owner) -> None:
    """Sends data of that type through a library's own dispatch first (torch's operators: gradients,
    compilation); what is dispatched then asks `owner`.
    """
    _faces.append((kind, face))
    for library, (name, _) in list(_expected.items()):
        if getattr(sys.modules.get(library), name, None) is kind:
            del _expected[library]


def expect_face(library: str, kind: str, home: str) -> None:
    """Says which module registers the face of a library's type, for data that comes before it is imported."""
    _expected[library] = kind, home


def register_converter(library: str, home: str, name: str) -> None:
    """Says which function, in which module, turns what we have into that library's kind."""
    _converters[library] = home, name


def converter(library: str) -> Any:
    """The function that turns what we have into that library's kind; its module is imported now."""
    home, name = _converters[library]
    return getattr(imported(home), name)


def names() -> Sequence[str]:
    """The registered backends, in the order in which they are asked."""
    return tuple(_homes)


def get(name: str) -> Any:
    """The backend of that name; raises NumericsError where it is unknown or cannot be imported."""
    try:
        return _backends[name]
    except (KeyError, TypeError):  # not asked for yet, or no name at all
        return _backends.setdefault(name, module(name).BACKEND)


def module(name: str) -> ModuleType:
    """The module of that backend; errors as for `get`."""
    name = one_of("backend", name, _homes, MEANT)
    try:
        return imported(_homes[name].module)
    except NumericsError:  # it says itself why it does not run here
        raise
    except Exception as missing:  # of whatever library it stands on
        raise NumericsError(f"backend {name!r} {_lack(missing, _homes[name].extra)}") from missing


def _lack(missing: Exception, extra: str | None) -> str:
    """What an import lacked, and what to install for it."""
    help = f": pip install 'numerics-formats[{extra}]'" if extra else ""
    package = (missing.name or "").partition(".")[0] if isinstance(missing, ModuleNotFoundError) else ""
    if package and sys.modules.get(package) is None:
        return f"needs {package}, which is not installed{help}"
    kind = "" if isinstance(missing, ImportError) else f"{type(missing).__name__}: "
    return f"cannot be imported: {kind}{missing}{help}"  # a library is there, but not one that serves


def of(x: Any) -> Any:
    """Returns what a call with x goes to: the dispatch of x's library where it has one, else its backend."""
    return face(x) or owner(x)


def face(x: Any) -> Any:
    """What x's own library dispatches through, or None."""
    for kind, found in _faces:
        if isinstance(x, kind):
            return found
    for library, (name, home) in _expected.items():
        kind = getattr(sys.modules.get(library), name, object)
        if kind is not object and isinstance(kind, type) and isinstance(x, kind):
            imported(home)
            return face(x)
    return None


def owner(x: Any) -> Any:
    """The backend that computes with x: the one chosen by `use`, else the first registered one that does.

    One that cannot be imported is passed over, unless it was chosen, and a NumericsWarning says so once.
    """
    if choice.get() is None:
        for name, home in _homes.items():
            backend = _backends.get(name)
            if backend is None:  # whether it is worth importing is another question
                break
            if home.device is not None and backend.owns(x):
                return backend
    return _sought(x)


def _sought(x: Any) -> Any:
    """`owner` of what no backend takes that is there, or while one is chosen."""
    chosen = choice.get()
    passed = []
    for name, home in _homes.items():
        if name == chosen if chosen else home.may_own(x):
            backend = _backends.get(name) or (get(name) if chosen else _if_there(name))
            if backend is None:
                passed.append(name)
            elif backend.owns(x):
                if passed:
                    _say_passed(passed, name)
                return backend
    if passed:
        raise NumericsError(*_missing[passed[0]].args) from _missing[passed[0]]
    place = _place_of(x)
    raise NumericsError(
        f"no backend takes a {type(x).__module__}.{type(x).__name__}{place}"
        f"{f' while {chosen!r} is chosen' if chosen else ''}; "
        f"give a NumPy array, a Python number, a nested list, or a torch tensor on the CPU or a GPU"
        f"{_meant(x)}"
    )


def _place_of(x: Any) -> str:
    """Where it is, as a message says it."""
    try:
        return f" on {x.device}" if hasattr(x, "device") else ""
    except Exception:  # whatever what came raises: it is nowhere
        return ""


def _meant(x: Any) -> str:
    """What is done with a whole model, and with a text; nothing of other things."""
    if isinstance(x, (str, os.PathLike)):
        return "; a file is read by nx.load(path), .npy by numpy.load(path)"
    kind = getattr(getattr(sys.modules.get("torch"), "nn", None), "Module", None)
    model = isinstance(kind, type) and isinstance(x, kind)
    return "; a model is quantized by nx.quantize_(model, ...) or nx.wrap(model, ...)" if model else ""


def host() -> Any:
    """The backend that computes with arrays when none is chosen."""
    token = choice.set(None)
    try:
        return owner(0.0)
    finally:
        choice.reset(token)


def _if_there(name: str) -> Any:
    """The backend, or None where it cannot be imported: that is tried once, since it takes long."""
    if name not in _missing:
        try:
            return get(name)
        except NumericsError as missing:
            _missing[name] = missing
    return None


def _say_passed(passed: Sequence[str], name: str) -> None:
    """Says once which backends were passed over for that one."""
    for lacking in passed:
        if lacking not in _said:
            _said.add(lacking)
            warn(f"{_missing[lacking]}; {name!r} computes, with the same bits")


class use(contextlib.ContextDecorator):
    """Runs everything inside on one backend: `with nx.use("reference"):`, or as a decorator.

    name: where the arithmetic runs; the bits are the same everywhere:
        cpu: Numba's vector code on threads; the default for arrays and for tensors on the CPU
        array: NumPy alone; the default where Numba cannot be imported
        reference: exact integers and fractions, slow; what the others are compared with
        gpu: Triton kernels on torch tensors of NVIDIA's and AMD's GPUs; the default for those
        ipu: ONNX models in ONNX Runtime, for AMD's Ryzen AI NPU; only where it is asked for
        CPU, IPU: cpu and ipu, as nx.vocabulary.DeviceType says them
    It holds for this thread or task and for what is called inside.  `with nx.use(name) as backend` gives the
    backend itself.  Raises NumericsError for an unknown name, and where packages or the device are not
    there, as soon as it is called.  Called as a statement of its own it changes nothing, and warns so.

    >>> import numerics as nx
    >>> with nx.use("reference"):
    ...     nx.fp4.round(0.7)
    0.5
    """

    _idle = False  # is it made, and was it of no use yet?

    @required
    def __init__(self, name: str, *unnamed: Never, **unknown: Never) -> None:
        if unknown or unnamed or name is MISSING:
            raise unknown_argument(type(self), unknown, (name,), unnamed)
        self.name = one_of("backend", _CALLED.get(text_in(name) or "", name), _homes, MEANT)
        self._backend = get(self.name)
        self._backend.check()
        self._tokens: list[contextvars.Token[str | None]] = []
        self._idle = True

    def __enter__(self) -> Any:
        self._idle = False
        self._tokens.append(choice.set(self.name))
        return self._backend

    def __exit__(self, *raised: object) -> None:
        choice.reset(self._tokens.pop())

    def __call__(self, function: Any) -> Any:
        self._idle = False
        return super().__call__(function)

    def _recreate_cm(self) -> use:
        """Another one for each call of what was decorated."""
        return type(self)(self.name)

    def __del__(self) -> None:
        if self._idle:
            warn(f"nx.use({self.name!r}) had no effect: it holds in a block, with nx.use({self.name!r}): ...")
