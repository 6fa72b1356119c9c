"""Instructions to machine code, by Numba's own code generator and for this CPU.

Its dispatcher would infer types that are known here, and filling its registries takes a new process
longer than all else together; a kernel is therefore a plain C function of 64-bit integers, called
without the interpreter lock.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from llvmlite import binding, ir
from numba.core.compiler_lock import global_compiler_lock

from numerics.backends.cpu import cache, locks
from numerics.backends.cpu.helpers import aside
from numerics.backends.cpu.kernels import ieee_arithmetic
from numerics.backends.cpu.lanes import I64
from numerics.backends.cpu.target import check_object, generator

T = TypeVar("T")
Emit = Callable[[ir.IRBuilder, list[ir.Value]], None]


@dataclass(frozen=True)
class Kernel:
    """A compiled function of so many 64-bit integers, words; run lets go of the interpreter lock."""

    run: Callable[..., None]
    words: int
    library: Any  # of Numba's code generator, for its text; None for what was on disk

    @property
    def assembly(self) -> str:
        """The instructions of what was compiled in this process; empty for what was found on disk."""
        return "" if self.library is None else str(self.library.get_asm_str())


def undisturbed(function: Callable[[], T]) -> T:
    """function(), which compiles: a compiler that a signal handler interrupts half-way stays so.

    On this thread where it holds a compiler's lock: another would wait for it, and it for the other.
    """
    return function() if locks.compiling() else aside(function)


def build(name: str, words: int, emit: Emit) -> Kernel:
    """The kernel of `words` integers whose body emit writes: from the disk, or compiled now.

    Raises NumericsError where its machine code would call what is not there.
    """
    with global_compiler_lock:
        code, library = cache.read(_key(name)), None
        if code is None:
            code, library = _compiled(name, words, emit)
        check_object(name, code)
        if library is not None:
            cache.write(_key(name), code)
        address = _loaded(name, code)
    return Kernel(ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * words)(address), words, library)


def _compiled(name: str, words: int, emit: Emit) -> tuple[bytes, Any]:
    library = generator().create_library(name)
    module = library.create_ir_module(name)
    write(module, name, words, emit)
    library.add_ir_module(module)
    return library.emit_native_object(), library


def _loaded(name: str, code: bytes) -> int:
    engine = generator()._engine
    engine._ee.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return int(engine.get_function_address(name))


def write(module: ir.Module, name: str, words: int, emit: Emit) -> None:
    """Writes the kernel into a module: the caller's rounding mode aside, the body, the mode again.

    The body is a function that stays one: nothing of it can move to where the mode is another.
    """
    kind = ir.FunctionType(ir.VoidType(), [I64] * words)
    body, function = ir.Function(module, kind, f"{name}.body"), ir.Function(module, kind, name)
    body.linkage = "internal"
    body.attributes.add("noinline")
    builder = ir.IRBuilder(body.append_basic_block("entry"))
    emit(builder, list(body.args))
    builder.ret_void()
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    with ieee_arithmetic(builder):
        builder.call(body, function.args)
    builder.ret_void()


def _key(name: str) -> tuple[str, str]:
    return name, repr(generator().magic_tuple())
