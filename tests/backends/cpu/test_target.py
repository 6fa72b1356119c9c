"""Other machines than this one: what their processors lack, what their modes flush, what is not installed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys

import llvmlite.binding as binding
import numpy as np
import pytest
from llvmlite import ir

import numerics as nx
from numerics.backends.cpu import compiler, objects, target
from numerics.backends.cpu.operations import encode_operation, round_operation
from numerics.backends.cpu.streams import CODES
from numerics.backends.host import ieee
from numerics.formats import dispatch
from numerics.formats.rounding import Rounding
from tests.helpers.bits import assert_same_bits

LONG = bool(os.environ.get("NUMERICS_TEST_LONG"))


def run(code: str, *arguments: str, seconds: float = 400, **environment: str) -> str:
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments], env={**os.environ, **environment}, capture_output=True,
        text=True, timeout=seconds,
    )  # fmt: skip
    assert found.returncode == 0, f"{found.returncode}: {found.stderr[-3000:]}"
    return found.stdout


# ---- processors without instructions for float16 -------------------------------------------------

HALVES = """
import hashlib, json, sys
import numpy as np, numerics as nx
x = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
found = {}
for name in ("float16", "bfloat16", "fp8_e4m3", "fp8_e5m2", "int8"):
    d = nx.dtype(name)
    rounded = d.round(x)
    bits = np.where(np.isnan(rounded), np.uint16(0x7E00), rounded.view(np.uint16))
    found[name] = [d.encode(x), d.encode(x, rounding="floor"), bits]
for name in ("mxfp4", "nvfp4"):
    d, rows = nx.dtype(name), x.reshape(32, -1)
    rounded = d.round(rows)
    found[name] = [d.encode(rows).codes, np.where(np.isnan(rounded), 0x7E00, rounded.view(np.uint16))]
finite = np.where(np.isfinite(x), x, np.float16(0)).reshape(32, -1)
q = nx.quantize(finite, "int4", scheme="per_channel")
found["int4"] = [q.packed, q.scale, nx.fake_quantize(finite, "int4", scheme="per_channel")]
from numerics.backends.cpu import target
print(json.dumps([target._converts_halves.cache_info().currsize and target._converts_halves(),
    {name: [hashlib.sha256(part.tobytes()).hexdigest() for part in parts] for name, parts in found.items()}]))
"""


@pytest.mark.skipif(target.architecture(binding.get_process_triple()) != "x86", reason="x86's processors")
def test_float16_on_processors_without_f16c(tmp_path):
    """It was a segmentation fault: the library function that converts is at address 0."""
    with nx.use("array"):
        space: dict[str, object] = {}
        exec(HALVES.rsplit("from numerics.backends.cpu", 1)[0], space)
    due = {
        name: [hashlib.sha256(part.tobytes()).hexdigest() for part in parts]
        for name, parts in space["found"].items()
    }
    for name in ("generic", "nehalem") if LONG else ("generic",):
        cpu = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": "", "NUMERICS_CACHE_DIR": str(tmp_path / name)}
        converts, came = json.loads(run(HALVES, **cpu))
        assert converts is False
        assert came == due


@pytest.mark.skipif(target.architecture(binding.get_process_triple()) != "x86", reason="x86's processors")
def test_a_kernel_that_calls_what_is_not_there_is_refused(tmp_path):
    """Compiled, and found on disk: it is never run."""
    code = """
import numpy as np, numerics as nx
from numerics.backends.cpu import target, cache
target._converts_halves = lambda: True
x = np.ones(96, np.float16)
for _ in range(2):
    try:
        nx.fp4.encode(x)
    except nx.NumericsError as refused:
        print("__extendhfsf2" in str(refused), "array" in str(refused))
print(nx.fp4.encode(x.astype(np.float32))[0])
"""
    cpu = {"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": "", "NUMERICS_CACHE_DIR": str(tmp_path)}
    assert run(code, **cpu).split("\n") == ["True True", "True True", "2", ""]


# ---- the code of other machines ------------------------------------------------------------------

MACHINES = {
    "x86_64-unknown-linux-gnu": "nehalem",
    "aarch64-unknown-linux-gnu": "generic",
    "arm64-apple-darwin": "apple-m1",
    "x86_64-pc-windows-msvc": "haswell",
    "aarch64-pc-windows-msvc": "generic",
}


def machine(triple: str):
    """LLVM's machine for a triple."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    chosen = binding.Target.from_triple(triple)
    darwin = "darwin" in triple
    return chosen.create_target_machine(
        cpu=MACHINES[triple], features="", opt=3, reloc="pic" if darwin else "static",
        codemodel="jitdefault", jit=True,
    )  # fmt: skip


def compiled_for(triple: str, operation):
    """A kernel of an operation as LLVM's module, its machine, and that machine."""
    module, on = ir.Module("kernels"), machine(triple)
    module.triple = triple
    module.data_layout = str(on.target_data)
    compiler.write(module, "kernel", operation.words, lambda *a: operation.emit(False, *a))
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    return parsed, on


def operations():
    x = np.ones(1, np.float32)
    return [
        round_operation(x, nx.mxfp8_e5m2.element, Rounding()),
        encode_operation(x, nx.fp8_e4m3, Rounding(), CODES["uint8"]),
        round_operation(x.astype(np.float16), nx.bfloat16, Rounding("floor")),
    ]


def test_kernels_of_aarch64_set_the_mode_and_fuse_nothing():
    """Under flush-to-zero its results were wrong: only x86 was guarded."""
    for operation in operations():
        parsed, on = compiled_for("aarch64-unknown-linux-gnu", operation)
        lines = on.emit_assembly(parsed).splitlines()
        text = "\n".join(lines)
        assert not re.search(r"\bfn?m(add|sub|l[as])\b", text)
        entry = lines[next(k for k, line in enumerate(lines) if re.match(r"\"?kernel\"?:", line)) :]
        steps = [
            word
            for line in entry
            for word in re.findall(r"\b(?:mrs\s+\w+, FPCR|msr\s+FPCR|bl|ret)\b", line, re.IGNORECASE)
        ]
        names = [re.split(r"\s", step)[0].lower() for step in steps][:5]
        assert names == ["mrs", "msr", "bl", "msr", "ret"], "read, set, the body, set back"
        assert not objects.undefined(on.emit_object(parsed)) - objects.SERVED


def test_kernels_of_x86_set_the_mode_around_a_body_that_stays_one():
    for operation in operations()[:2]:
        parsed, on = compiled_for("x86_64-unknown-linux-gnu", operation)
        text = on.emit_assembly(parsed)
        entry = text[re.search(r"^\"?kernel\"?:", text, re.MULTILINE).start() :]
        steps = re.findall(r"\b(stmxcsr|ldmxcsr|call\w*|ret\w*)\b", entry)
        assert [step[:3] for step in steps[:5]] == ["stm", "ldm", "cal", "ldm", "ret"]


@pytest.mark.parametrize("triple", MACHINES)
def test_what_an_object_calls_is_read_in_every_format_of_objects(triple):
    module, on = ir.Module("calls"), machine(triple)
    module.triple = triple
    kind = ir.FunctionType(ir.VoidType(), [])
    called = [ir.Function(module, kind, name) for name in ("short", "a_function_with_a_long_name")]
    builder = ir.IRBuilder(ir.Function(module, kind, "defined").append_basic_block())
    for function in called:
        builder.call(function, [])
    builder.ret_void()
    data = on.emit_object(binding.parse_assembly(str(module)))
    assert objects.undefined(data) == {"short", "a_function_with_a_long_name"}
    for cut in (10, 40, len(data) - 30):
        try:
            objects.undefined(data[:cut])
        except ValueError:
            continue


def test_an_object_of_no_known_kind_is_refused():
    for data in (b"", b"\x7fELF", b"not an object", b"\0" * 100):
        with pytest.raises(ValueError, match="object file"):
            objects.undefined(data)


def test_the_machine_is_the_compilers_not_pythons(monkeypatch):
    """Under `setarch linux32` Python says i686: the guard was left out, for every later process too."""
    code = """
import platform
platform.machine = platform.processor = lambda: "ppc64"
import numpy as np, numerics as nx
nx.fp8_e4m3.encode(np.ones(32, np.float32))
from numerics.backends.cpu import EXECUTOR
text = "".join(map(EXECUTOR.assembly, EXECUTOR.compiled)).lower()
print("ldmxcsr" in text or "fpcr" in text)
"""
    assert run(code, NUMERICS_CACHE_DIR="/proc/none").strip() == "True"


# ---- the environment of other systems ------------------------------------------------------------


def test_the_c_library_is_found_wherever_it_is(monkeypatch):
    """musl has no libm.so.6, and ctypes may find no libm at all."""
    monkeypatch.setattr(ieee.ctypes.util, "find_library", lambda name: None)
    assert ieee._library_with("fesetenv").fesetenv
    monkeypatch.setattr(ieee.ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    with pytest.raises(nx.NumericsError, match="flushes subnormals"):
        ieee._library_with("fesetenv")


def test_each_system_has_its_default_environment(monkeypatch):
    """Apple's is an object of its library; glibc's and musl's is -1."""
    libm = ieee._library_with("fesetenv")
    assert ieee._default_of(libm).value == ieee.ctypes.c_void_p(-1).value
    monkeypatch.setattr(ieee, "_DEFAULTS", ("environ",))  # any object of the C library will do
    place = ieee._default_of(ieee.ctypes.CDLL(None)).value
    assert place not in (None, 0, ieee.ctypes.c_void_p(-1).value)


# ---- a backend that cannot be imported -----------------------------------------------------------

WITHOUT = """
import sys, warnings
{lack}
import numpy as np, numerics as nx
x = np.float32([0.3, 1.0, 5.0])
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    codes = [nx.fp4.encode(x).tolist(), nx.fp4.encode([1.0]), nx.quantize(x, "int8").dequantize().shape]
said = [str(w.message) for w in said if issubclass(w.category, nx.NumericsWarning)]
print(len(said), said[0])
try:
    with nx.use("cpu"):
        pass
except nx.NumericsError as refused:
    print(refused)
"""
LACKS = {
    "not there": ("sys.modules['numba'] = None", "needs numba, which is not installed"),
    "broken": (
        "import types; sys.modules['numba'] = m = types.ModuleType('numba'); m.__getattr__ = lambda name: "
        "(_ for _ in ()).throw(ImportError('Numba needs NumPy 2.3 or less'))",
        "cannot be imported: ",
    ),
    "moved": (
        "import numba.core.codegen as c; del c.CPUCodegen.magic_tuple",
        "has no JITCPUCodegen.magic_tuple",
    ),
    "renamed": (
        "import numba.core.codegen as c; del c.JITCPUCodegen",
        "cannot be imported: cannot import name 'JITCPUCodegen'",
    ),
    "llvmlite": ("sys.modules['llvmlite'] = None", "needs llvmlite, which is not installed"),
    "32-bit ARM": (
        "import llvmlite.binding as b; b.get_process_triple = lambda: 'armv7l-unknown-linux-gnueabihf'",
        "32-bit ARM",
    ),
}


@pytest.mark.turns(6)
@pytest.mark.parametrize("lack", LACKS)
def test_without_its_compiler_the_array_backend_computes_and_says_so_once(lack):
    """Without Numba every call ended, though NumPy gives the same bits."""
    setup, due = LACKS[lack]
    said, refused = run(WITHOUT.format(lack=setup)).splitlines()
    assert said.startswith("1 ")
    assert due in said
    assert "'array'" in said
    assert due in refused


def test_a_backend_that_serves_nobody_else_is_named(monkeypatch):
    monkeypatch.setitem(dispatch._homes, "gpu", dispatch._Home("numerics.no_such_backend", "gpu", "gpu"))
    monkeypatch.delitem(dispatch._backends, "gpu", raising=False)
    monkeypatch.setattr(dispatch, "_missing", {})  # what it notes is of this test alone

    class Elsewhere:
        device = type("device", (), {"type": "cuda"})()

    with pytest.raises(nx.NumericsError, match="backend 'gpu' cannot be imported"):
        dispatch.owner(Elsewhere())


# ---- microexponents ------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 4, 8, 12, 96])
@pytest.mark.parametrize("mantissa", [1, 4])
def test_microexponents_of_one_sub_block_compile(block, mantissa):
    """133 of 133 draws ended in an error of LLVM's parser."""
    d = nx.block_format(block=block, mantissa=mantissa, sub_block=block)
    rng = np.random.default_rng(block)
    x = (rng.standard_normal((7, block)) * np.exp2(rng.integers(-5, 5, (7, 1)))).astype(np.float32)
    x[1, 0], x[2] = np.inf, 1e-42
    made = {}
    for name in ("array", "cpu"):
        with nx.use(name):
            blocks, q = d.encode(x), nx.quantize(x, d)
            fields = [blocks.codes, blocks.scale, blocks.microexponents, q.packed]
            made[name] = [*fields, d.decode(blocks), d.round(x), d.round(x, rounding="floor"), q.dequantize()]
    for came, due in zip(made["cpu"], made["array"], strict=True):
        assert_same_bits(came, due)
