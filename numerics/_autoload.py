"""Makes tensors known as soon as both this package and torch are there, whichever comes first.

`import numerics` must not import torch, and `torch.load(weights_only=True)` must know QTensors after
nothing but `import numerics`: so torch's own import, when it comes, is followed by ours.  The same
for torch's compiler, which is slow to import and rarely wanted, and for the quantizers of transformers,
among which ours is registered: transformers passes over a method that it does not know.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType

from numerics.formats import dispatch

FOLLOWERS = {
    "torch": "numerics.pytorch.dispatch",
    "torch._dynamo": "numerics.pytorch.compiled",
    "transformers.quantizers": "numerics.model.huggingface",
}


OURS = "numerics.pytorch."
"""Modules that torch's follower imports, and that import torch: whoever asks for one of them first gets it
whole before the follower comes."""


class _Loader(importlib.abc.Loader):
    """Loads a module as its own loader does, then the one that follows what is awaited."""

    def __init__(self, loader: importlib.abc.Loader, finder: _Finder) -> None:
        self._loader, self._finder = loader, finder

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """The loader's own."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """The loader's own, and what waited for it."""
        module.__spec__.loader = module.__loader__ = self._loader  # type: ignore[union-attr]
        with self._finder.loading(module.__name__):
            self._loader.exec_module(module)


def _follow(name: str) -> None:
    """Imports what follows a module that is there."""
    if "torch" not in sys.modules:  # transformers does without
        return
    try:
        importlib.import_module(FOLLOWERS[name])
    except Exception as wrong:  # what was asked for is whole: its import must not fail by us
        warnings.warn(f"numerics cannot serve {name}: {wrong!r}", RuntimeWarning, stacklevel=3)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module as others find it, and ours that may import it, until it is loaded."""

    def __init__(self, awaited: str) -> None:
        self._awaited, self._own = awaited, threading.local()

    @contextmanager
    def loading(self, name: str) -> Iterator[None]:
        """Around the loading of a module; what is awaited is followed once none of ours is half loaded."""
        ours = getattr(self._own, "ours", 0)
        self._own.ours = ours + (name != self._awaited)
        try:
            yield
        finally:
            self._own.ours = ours
        if name == self._awaited:
            with suppress(ValueError):  # loaded, not merely looked for: the finder has done its work
                sys.meta_path.remove(self)
        if not ours and self not in sys.meta_path:
            _follow(self._awaited)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The awaited module, and ours that may bring it, with the loader above; nothing else."""
        ours = self._awaited == "torch" and name.startswith(OURS)
        if not (name == self._awaited or ours) or getattr(self._own, "asks", False):
            return None
        self._own.asks = True  # the others
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._own.asks = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self)
        return spec


def arrange() -> None:
    """Imports what follows torch, now or when it is imported; a stub in its place is waited out."""
    dispatch.expect_face("torch", "Tensor", FOLLOWERS["torch"])
    dispatch.register_converter("torch", "numerics.pytorch.convert", "as_tensors")
    whole = isinstance(getattr(sys.modules.get("torch"), "Tensor", None), type)
    for awaited in FOLLOWERS:
        if whole and sys.modules.get(awaited) is not None:
            _follow(awaited)
        else:
            sys.meta_path.insert(0, _Finder(awaited))
