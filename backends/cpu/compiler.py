"""Instructions to machine code, by Numba's own code generator and for this CPU.

Its dispatcher would infer types that are known here, and filling its registries takes a new process
longer than all else together; a kernel is therefore a plain C function of 64-bit integers, called
without the interpreter lock.
"""

from __future__ import annotations

import ctypes
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from llvmlite import ir
from numba.core.codegen import JITCPUCodegen
from numba.core.compiler_lock import global_compiler_lock

from numerics.backends.cpu import cache
from numerics.backends.cpu.kernels import ieee_arithmetic
from numerics.backends.cpu.lanes import I64

Emit = Callable[[ir.IRBuilder, list[ir.Value]], None]


@dataclass(frozen=True)
class Kernel:
    """A compiled function of 64-bit integers; run lets go of the interpreter lock."""

    run: Callable[..., None]
    library: Any  # of Numba's code generator: owns the machine code

    @property
    def assembly(self) -> str:
        """The instructions of what was compiled in this process, not found on disk."""
        return str(self.library.get_asm_str())


@lru_cache(maxsize=1)
def _generator() -> Any:
    return JITCPUCodegen("numerics")


def build(name: str, words: int, emit: Emit) -> Kernel:
    """The kernel of `words` integers whose body emit writes: from the disk, or compiled now."""
    with global_compiler_lock:
        library = _stored(name) or _compiled(name, words, emit)
        pointer = library.get_pointer_to_function(name)
    return Kernel(ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * words)(pointer), library)


def _compiled(name: str, words: int, emit: Emit) -> Any:
    library = _generator().create_library(name)
    module = library.create_ir_module(name)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * words), name)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    with ieee_arithmetic(builder):
        emit(builder, list(function.args))
    builder.ret_void()
    library.add_ir_module(module)
    library.enable_object_caching()
    library.finalize()
    cache.write(_key(name), pickle.dumps(library.serialize_using_object_code()))
    return library


def _stored(name: str) -> Any:
    found = cache.read(_key(name))
    if found is None:
        return None
    try:
        return _generator().unserialize_library(pickle.loads(found))
    except Exception:  # whole, but not what this version of Numba writes: a miss
        return None


def _key(name: str) -> tuple[str, str]:
    return name, repr(_generator().magic_tuple())
