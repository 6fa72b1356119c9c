"""Makes tensors known as soon as both this package and torch are there, whichever comes first.

`import numerics` must not import torch, and `torch.load(weights_only=True)` must know QTensors after
nothing but `import numerics`: so torch's own import, when it comes, is followed by ours.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

FACE = "numerics.face"


class _Loader(importlib.abc.Loader):
    """Loads torch as its own loader does, then our face."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """The loader's own."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """The loader's own, and what waited for it."""
        module.__spec__.loader = module.__loader__ = self._loader  # type: ignore[union-attr]
        self._loader.exec_module(module)
        try:
            importlib.import_module(FACE)
        except Exception as wrong:  # torch itself is whole: its import must not fail by us
            warnings.warn(f"numerics cannot serve torch tensors: {wrong!r}", RuntimeWarning, stacklevel=2)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds torch once, as others find it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Torch with the loader above; nothing else."""
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def arrange() -> None:
    """Now where torch is imported, else when it is."""
    if sys.modules.get("torch") is not None:
        importlib.import_module(FACE)
    else:
        sys.meta_path.insert(0, _Finder())
