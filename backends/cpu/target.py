"""The machine that kernels are compiled for, as the compiler sees it.

Never the machine that Python says it is on: a personality (`setarch linux32`), an emulator or
NUMBA_CPU_NAME and NUMBA_CPU_FEATURES make another of it.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numba
from llvmlite import binding, ir
from numba.core import cgutils
from numba.core.codegen import AOTCodeLibrary, JITCPUCodegen

from numerics.backends.cpu import objects
from numerics.formats.errors import NumericsError


class Generator(JITCPUCodegen):
    """Numba's code generator for the CPU at hand, or the one that NUMBA_CPU_NAME names.

    It gives object code before anything is loaded: loading what cannot be linked ends the process.
    """

    _library_class = AOTCodeLibrary

    def _add_module(self, module: Any) -> None:
        """What is run is the object code (compiler.py)."""


# What is used of Numba that it promises to nobody.
_PRIVATE = {
    JITCPUCodegen: ("create_library", "magic_tuple"),
    AOTCodeLibrary: ("create_ir_module", "add_ir_module", "emit_native_object", "get_asm_str"),
    cgutils: (
        "alloca_once", "alloca_once_value", "for_range", "get_or_insert_function", "memset", "raw_memcpy",
    ),
}  # fmt: skip


@lru_cache(maxsize=1)
def generator() -> Any:
    """The one of this process."""
    return Generator("numerics")


def check() -> None:
    """Raises NumericsError for a machine whose vectors flush subnormals, ImportError for another Numba."""
    if architecture(binding.get_process_triple()) == "arm":
        raise NumericsError(
            "the vector unit of 32-bit ARM flushes subnormals to zero: no kernel is exact there"
        )
    for owner, names in _PRIVATE.items():
        for name in names:
            if not hasattr(owner, name):
                raise ImportError(f"numba {numba.__version__} has no {owner.__name__}.{name}")
    for name in ("_tm", "_engine"):
        if not hasattr(generator(), name):
            raise ImportError(f"numba {numba.__version__} has no {name} in its JITCPUCodegen")


def architecture(triple: str) -> str:
    """`x86`, `aarch64` or `arm`, and others by the name that the triple has for them.

    >>> [architecture(f"{name}-unknown-linux-gnu") for name in ("x86_64", "i686", "arm64e", "armv7l")]
    ['x86', 'x86', 'aarch64', 'arm']
    """
    name = triple.partition("-")[0]
    if name in ("x86_64", "amd64") or (name[:1] == "i" and name[2:] == "86"):
        return "x86"
    if name.startswith(("aarch64", "arm64")):
        return "aarch64"
    return "arm" if name.startswith(("arm", "thumb")) else name


@cache
def has(feature: str) -> bool:
    """Has the CPU that kernels are compiled for that feature, by LLVM's name for it?"""
    return f"+{feature}" in str(generator().magic_tuple()[2]).split(",")


def converts_halves(triple: str) -> bool:
    """Has that machine instructions between float16 and float32, or would a library be called?"""
    return architecture(triple) == "aarch64" or _converts_halves()


@lru_cache(maxsize=1)
def _converts_halves() -> bool:
    """Compiles both conversions for the CPU at hand and looks at what they call."""
    module = ir.Module()
    module.triple = binding.get_process_triple()
    half, single = (ir.VectorType(kind, 8) for kind in (ir.HalfType(), ir.FloatType()))
    kind = ir.FunctionType(ir.VoidType(), [half.as_pointer(), single.as_pointer()])
    function = ir.Function(module, kind, "halves")
    builder = ir.IRBuilder(function.append_basic_block())
    narrow, wide = function.args
    loaded = builder.load(narrow), builder.load(wide)
    builder.store(builder.fpext(loaded[0], single), wide)
    builder.store(builder.fptrunc(loaded[1], half), narrow)
    builder.ret_void()
    return not objects.undefined(generator()._tm.emit_object(binding.parse_assembly(str(module))))


def check_object(name: str, data: bytes) -> None:
    """Raises NumericsError for a kernel that would call what this process does not have."""
    missing = sorted(
        symbol
        for symbol in objects.undefined(data)
        if symbol not in objects.SERVED or binding.address_of_symbol(symbol) is None
    )
    if missing:
        machine = " ".join(part for part in generator().magic_tuple()[:2] if part)
        raise NumericsError(
            f"the kernel {name} calls {', '.join(missing)} on {machine}, which nobody serves here; "
            'choose numerics.use("array"), which gives the same bits'
        )
