"""Claim: what a library says that it computes, as the judge takes it (numerics.conform.check)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any


@dataclass(frozen=True)
class Claim:
    """A kernel of a library, and the task by which it is judged.

    dtype: the format's name here, or a format that is declared for it.  call: how a user of the library
    spells it.  options: of `check`: what the library documents where that is not the default.
    """

    dtype: Any
    call: str
    kernel: Callable[..., Any]
    kind: str = "round"
    options: dict[str, Any] = field(default_factory=dict)


def of_tensors(claim: Claim) -> Claim:
    """The same, its kernel taking torch tensors."""
    return Claim(claim.dtype, claim.call, claim.kernel, claim.kind, {"array": "torch", **claim.options})


@dataclass(frozen=True)
class Library:
    """A library of the field.  distribution: its name on PyPI; None for one that has no package there."""

    name: str
    module: str
    distribution: str | None
    imports: str

    @property
    def version(self) -> str | None:
        """What is installed; None where nothing is."""
        try:
            module = importlib.import_module(self.imports)
        except ImportError:
            return None
        try:
            return version(self.distribution or self.imports)
        except PackageNotFoundError:
            return str(getattr(module, "__version__", "sources"))

    def claims(self) -> Iterator[Claim]:
        """What it claims; imports it."""
        yield from importlib.import_module(f"tests.peers.libraries.{self.module}").claims()


LIBRARIES = {
    library.name: library
    for library in (
        Library("ml_dtypes", "ml_dtypes", "ml_dtypes", "ml_dtypes"),
        Library("torch", "torch", "torch", "torch"),
        Library("gfloat", "gfloat", "gfloat", "gfloat"),
        Library("torchao", "torchao", "torchao", "torchao"),
        Library("amd-quark", "amd_quark", "amd-quark", "quark"),
        Library("compressed-tensors", "compressed_tensors", "compressed-tensors", "compressed_tensors"),
        Library("nvidia-modelopt", "modelopt", "nvidia-modelopt", "modelopt"),
        Library("brevitas", "brevitas", "brevitas", "brevitas"),
        Library("microxcaling", "microxcaling", None, "mx"),
        Library("tensorcast", "tensorcast", None, "tcast"),
        Library("apytypes", "apytypes", "apytypes", "apytypes"),
        Library("pychop", "pychop", "pychop", "pychop"),
        Library("qtorch", "qtorch", "qtorch", "qtorch"),
        Library("bitsandbytes", "bitsandbytes", "bitsandbytes", "bitsandbytes"),
        Library("en_dtypes", "en_dtypes", "en_dtypes", "en_dtypes"),
    )
}
