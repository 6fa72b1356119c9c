"""Compiles every GPU kernel for GPUs that are not here, and says what became of it.

python -m tests.compile_gpu [--targets sm_90,gfx950] [--only WORD] [--once] [--json FILE]

The cases are what differs to a compiler: each kernel, each type that it loads, each way of rounding and
of finding a scale, and the rows whose codes are of another width or kind; not every format.

A line a kernel and target: registers, instructions an element, bytes of shared memory.  A fault is a
spill, a flush to zero, a fused multiply-add in the exact arithmetic, or narrow loads and stores.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)
if __name__ == "__main__":
    os.environ["TRITON_CACHE_DIR"] = tempfile.mkdtemp()

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.tools.disasm import get_sass

import numerics as nx
from bench.records import text_of
from numerics.backends.gpu import BACKEND as GPU
from numerics.backends.gpu import backend, blocks, launch, native
from numerics.backends.host.executor import Affine
from numerics.backends.host.hadamard import Rotation
from numerics.backends.partition import Partition
from numerics.formats.block import PackedBlocks
from numerics.formats.rounding import BlockOptions, Draw, Rounding
from tests.helpers.children import LIMIT

TARGETS = {f"sm_{n}": GPUTarget("cuda", n, 32) for n in (80, 89, 90, 100, 120)} | {
    "gfx942": GPUTarget("hip", "gfx942", 64),
    "gfx950": GPUTarget("hip", "gfx950", 64),
    "gfx1201": GPUTarget("hip", "gfx1201", 32),
}
N = 1 << 14
X = {kind: torch.zeros(N, dtype=getattr(torch, kind)) for kind in ("float32", "float16", "bfloat16")}
TYPES = {torch.int32: "*i32", torch.int16: "*i16", torch.uint8: "*u8", torch.uint16: "*u16",
         torch.uint32: "*u32", torch.float16: "*fp16"}  # fmt: skip
UNEVEN = nx.codebook_format([math.sin(k * k) for k in range(256)])  # neighbours of all distances
MX_NF4, MX_HIFLOAT8 = (nx.block_format(element=d, block=32) for d in (nx.nf4, nx.hifloat8))
Launch = tuple[Any, tuple[Any, ...], dict[str, Any]]  # a kernel, its arguments, what is compiled in


@dataclass(frozen=True)
class Compiled:
    """What became of a kernel on a target."""

    case: str
    target: str
    registers: int
    spilled: int
    shared: int
    instructions: float  # an element, whole kernel
    faults: tuple[str, ...]


def cases() -> dict[str, Callable[[], object]]:
    """Calls of the backend; each stands for the kernels that it launches."""
    found: dict[str, Callable[[], object]] = {}
    x = X["float32"]
    for kind in X:  # every type is loaded by elements and by blocks; what follows the load is the same
        found |= {
            f"encode fp8_e4m3 {kind}": lambda k=kind: _encode(nx.fp8_e4m3, X[k]),
            f"store mxfp4 {kind}": lambda k=kind: _store(nx.mxfp4, X[k]),
        }
    for kind in ("float32", "bfloat16"):
        found |= {
            f"store mx6 {kind}": lambda k=kind: _store(nx.mx6, X[k]),
            f"round mxfp4 {kind}": lambda k=kind: _round_blocks(nx.mxfp4, X[k]),
        }
    found |= {
        "encode_packed fp4 float32": lambda: _encode_packed(nx.fp4, x),
        "round fp8_e4m3 float32": lambda: _round(nx.fp8_e4m3, x),
        "encode mxfp8_e4m3 float32": lambda: _encode_blocks(nx.mxfp8_e4m3, x),
        "round mx6 float32": lambda: _round_blocks(nx.mx6, x),
        "round hifloat4 float32": lambda: _round_blocks(nx.hifloat4, x),
    }
    found |= {
        f"{verb} {d}": lambda d=d, call=call: call(d)
        for d in (nx.nf4, nx.hifloat8)
        for verb, call in {
            "encode": lambda d: _encode(d, x), "encode_packed": lambda d: _encode_packed(d, x),
            "round": lambda d: _round(d, x), "decode": _decode,
        }.items()
    } | {
        "decode_packed nf4": lambda: _decode_packed(nx.nf4),
        "encode uneven codebook": lambda: _encode(UNEVEN, x),
        "encode hifloat8 stochastic seed": lambda: GPU.encode(
            x, nx.hifloat8, Rounding("stochastic", "saturate", Draw(seed=1)), None
        ),
        "store mx of nf4": lambda: _store(MX_NF4, x),
        "round mx of hifloat8": lambda: _round_blocks(MX_HIFLOAT8, x),
        "load mx of nf4": lambda: _load(MX_NF4),
        "fake_quantize nf4 per_group": lambda: _affine(
            Partition((16, N // 16), 1, 64), None, "round_affine", nx.nf4
        ),
    }  # fmt: skip
    found |= {f"encode fp8_e4m3 {r}": lambda r=r: _encode(nx.fp8_e4m3, x, r) for r in ("floor", "half_away")}
    found |= {f"encode {d}": lambda d=d: _encode(d, x) for d in (nx.fp8_e5m2, nx.int8, nx.e8m0)}
    found |= {f"decode {d}": lambda d=d: _decode(d) for d in (nx.fp8_e4m3, nx.int8, nx.bfloat16)}
    found |= {
        "encode fp8_e4m3 stochastic seed": lambda: GPU.encode(
            x, nx.fp8_e4m3, Rounding("stochastic", "saturate", Draw(seed=1)), None
        ),
        "encode fp8_e4m3 nonsaturate": lambda: GPU.encode(
            x, nx.fp8_e4m3, Rounding(overflow="nonsaturate"), None
        ),
        "encode_packed fp6_e2m3": lambda: _encode_packed(nx.fp6_e2m3, x),
        "decode_packed fp6_e2m3": lambda: _decode_packed(nx.fp6_e2m3),
        "decode_packed fp4": lambda: _decode_packed(nx.fp4),
        "pack fp6_e2m3": lambda: GPU.pack(torch.zeros(N, dtype=torch.uint8), nx.fp6_e2m3),
        "unpack fp6_e2m3": lambda: GPU.unpack(torch.zeros(N * 6 // 8, dtype=torch.uint8), N, nx.fp6_e2m3),
        "store mx9": lambda: _store(nx.mx9, x),
        "store nvfp4": lambda: _store(nx.nvfp4, x),
        "store if4": lambda: _store(nx.if4, x),
        "decode if4": lambda: GPU.decode_blocks(_zeros(nx.if4), None),
        "store nvfp4 nvidia": lambda: _store(nx.nvfp4, x, "nvidia"),
        "encode mxfp8_e4m3 columns": lambda: GPU.encode_blocks(
            x.reshape(32, -1), nx.mxfp8_e4m3, 0, BlockOptions("rceil")
        ),
        "encode mx6": lambda: _encode_blocks(nx.mx6, x),
        "encode hifloat4": lambda: _encode_blocks(nx.hifloat4, x),
        "decode mxfp8_e4m3": lambda: GPU.decode_blocks(_zeros(nx.mxfp8_e4m3), None),
        "decode mx9": lambda: GPU.decode_blocks(_zeros(nx.mx9), None),
        "decode nvfp4": lambda: GPU.decode_blocks(_zeros(nx.nvfp4), None),
        "load mxfp4": lambda: _load(nx.mxfp4),
        "load mx6": lambda: _load(nx.mx6),
        "load hifloat4": lambda: _load(nx.hifloat4),
        "hadamard 128": lambda: GPU.hadamard(x, Rotation(128)),
        "quantize int8 per_channel": lambda: _affine(Partition((16, N // 16), 0), None),
        "quantize int4 per_group": lambda: _affine(Partition((16, N // 16), 1, 128), torch.zeros(16, 8)),
        "fake_quantize int8 per_channel": lambda: _affine(Partition((16, N // 16), 0), None, "round_affine"),
        "fake_quantize int8 asymmetric": lambda: _affine(
            Partition((16, N // 16), 1), torch.zeros(N // 16, dtype=torch.int32), "round_affine"
        ),
        "dequantize int8 per_channel": lambda: GPU.decode_affine(
            torch.zeros(16, N // 16, dtype=torch.uint8), nx.int8, Partition((16, N // 16), 0),
            Affine(torch.ones(16), None),  # type: ignore[arg-type]
        ),
    }  # fmt: skip
    for d in native.CAPABLE:
        found[f"native encode {d}"] = lambda d=d: _encode(nx.dtype(d), x)
        found[f"native encode mx{d}"] = lambda d=d: _encode_blocks(nx.dtype(f"mx{d}"), x)
    found["native encode fp8_e4m3 bfloat16"] = lambda: _encode(nx.fp8_e4m3, X["bfloat16"])
    return found


def _encode(d: Any, x: Any, rounding: str = "half_even") -> Any:
    return GPU.encode(x, d, Rounding(rounding), None)


def _encode_packed(d: Any, x: Any) -> Any:
    return GPU.encode_packed(x, d, Rounding())


def _round(d: Any, x: Any) -> Any:
    return GPU.round(x, d, Rounding(), None)


def _decode(d: Any) -> Any:
    return GPU.decode(torch.zeros(N, dtype=getattr(torch, d.code_dtype)), d, None)


def _decode_packed(d: Any) -> Any:
    return GPU.decode_packed(torch.zeros(N * d.bits // 8, dtype=torch.uint8), N, d)


def _encode_blocks(d: Any, x: Any, rounding: str = "half_even") -> Any:
    return GPU.encode_blocks(x, d, -1, BlockOptions(mode=rounding))


def _round_blocks(d: Any, x: Any) -> Any:
    return GPU.round_blocks(x, d, -1, BlockOptions(), None)


def _store(d: Any, x: Any, scale_rule: str = "floor") -> Any:
    options = BlockOptions(scale_rule, tensor_scale=1.0 if isinstance(d, nx.ScaledBlock) else None)
    return GPU.quantize_blocks(x, d, -1, options)


def _zeros(d: Any) -> Any:
    shared = torch.zeros(N // d.block, dtype=torch.uint8)
    micro = shared.to(getattr(torch, d.micro_dtype)) if isinstance(d, nx.MicroexponentBlock) else None
    return nx.Blocks(d, -1, torch.zeros(N, dtype=torch.uint8), shared, micro)


def _load(d: Any) -> Any:
    micro = isinstance(d, nx.MicroexponentBlock)
    size = N // d.block * d.bytes_per_block if micro else N * d.element_bits // 8
    scale = None if micro else torch.zeros(N // d.block, dtype=torch.uint8)
    return GPU.dequantize_blocks(PackedBlocks(d, -1, (N,), torch.zeros(size, dtype=torch.uint8), scale))


def _affine(partition: Partition, zero: Any, verb: str = "encode_affine", d: Any = nx.int8) -> Any:
    affine = Affine(torch.ones(partition.shared), zero)  # type: ignore[arg-type]
    x = X["float32"].reshape(partition.shape)
    return getattr(GPU, verb)(x, d, partition, affine, Rounding())


def source(kernel: Any, arguments: tuple[Any, ...], constants: dict[str, Any]) -> ASTSource:
    """What Triton compiles for a launch with these arguments, tensors aligned as torch's are."""
    signature: dict[str, str] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    given = iter(arguments)
    for k, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            continue
        value = next(given)
        if isinstance(value, torch.Tensor):
            signature[name] = TYPES[value.dtype]
            attributes[k,] = [["tt.divisibility", 16]]
        else:
            signature[name] = "i64" if name == "seed" else "i32"
            if value % 16 == 0:
                attributes[k,] = [["tt.divisibility", 16]]
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    return ASTSource(fn=kernel, signature=signature, constexprs=places, attrs=attributes)


def elements(constants: dict[str, Any]) -> int:
    """Elements of a program, by what is compiled into it."""
    c = constants
    if "cut" in c:
        return int(c["cut"].size * c["cut"].tile)
    columns = c.get("WIDTH" if "LOW" in c or "ZERO" in c else "SIZE") or c.get("CODES", 1)
    return int(c["BLOCK"]) if "BLOCK" in c else int(c["TILE"] * columns)


def judge(case: str, name: str, compiled: Any, count: int) -> Compiled:
    """The figures and the faults of machine code for `count` elements; `case` says what may divide."""
    text, target = compiled.asm, TARGETS[name]
    # AMD divides floats, and integers, by fused steps of a reciprocal; v_fma_mix minus zero is a product
    divides = any(
        word in case for word in ("quantize", "nvfp4", "if4", "columns", "hifloat4", "hifloat8 stochastic")
    )
    if target.backend == "cuda":
        usage = _resources(text["cubin"])
        lines = [line for line in get_sass(text["cubin"]).splitlines() if "\t" in line]
        instructions = sum("NOP" not in line for line in lines) / (count / 128)
        code, registers, spilled = text["ptx"], usage["REG"], usage["STACK"] + usage["LOCAL"]
        fused = r"fma\."
        wide = r"(ld|st)\.global[.\w:]*\.(v[48]\.|v2\.b(32|64)|b64|b128)"
    else:
        code = re.sub(r"v_fma_mix_f32.*neg\(0\)", "", text["amdgcn"])
        registers, spilled = (
            int(re.search(rf"\.{key}:\s+(\d+)", code)[1]) for key in ("vgpr_count", "vgpr_spill_count")
        )  # type: ignore[index]
        body = re.findall(r"^\t(?:v_|s_|global_|buffer_|ds_)\w+", code, re.M)
        instructions = len(body) / (count / (4 * target.warp_size))
        fused = r"v_(pk_)?(fma|mac|fmac|mad)\w*_f32"
        wide = r"(global|buffer)_(load|store)_(dwordx[24]|b(64|128))"
    faults = []
    if spilled:
        faults.append(f"{spilled} bytes spilled")
    if ".ftz" in code:
        faults.append("flushes to zero")
    if re.search(fused, code) and not (divides and target.backend == "hip"):
        faults.append("fused multiply-add")
    if not re.search(wide, code):
        faults.append("no wide access")
    return Compiled(
        case, name, registers, spilled, compiled.metadata.shared, round(instructions, 1), tuple(faults)
    )


def _resources(cubin: bytes) -> dict[str, int]:
    tool = triton.knobs.nvidia.cuobjdump.path
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        shown = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True, timeout=LIMIT
        ).stdout
    return {key: int(re.search(rf"{key}:(\d+)", shown)[1]) for key in ("REG", "STACK", "LOCAL")}  # type: ignore[index]


def converts(d: str, target: str) -> bool:
    """Has the target the conversion instruction of a format?"""
    found = re.fullmatch(r"sm_(\d+)(\d)", target)
    return found is not None and (int(found[1]), int(found[2])) >= native.CAPABLE[d]


def launches(case: str) -> list[Launch]:
    """What a case launches, launched by nobody."""
    found: list[Launch] = []
    launch.execute = lambda kernel, grid, a, c: found.append((kernel, a, c))
    conversion = (lambda d, *_: d.name) if case.startswith("native") else (lambda *_: None)
    backend.native = blocks.native = conversion
    cases()[case]()
    assert found, f"{case} launches nothing"
    return found


def chosen(only: str = "", once: bool = False) -> list[str]:
    """The cases with that word in their names.

    once: each kernel in the first of its cases only, and once more with a native conversion.
    """
    found, seen = [], set[tuple[str, bool]]()
    for case in (case for case in cases() if only in case):
        kernels = {(kernel.fn.__name__, case.startswith("native")) for kernel, _, _ in launches(case)}
        if not once or not kernels <= seen:
            found.append(case)
        seen |= kernels
    return found


def compiled(case: str, targets: list[str]) -> list[Compiled]:
    """A case on those targets that can have it: a native conversion is not on all."""
    found = []
    for name in targets:
        if case.startswith("native") and not converts(case.split()[2].removeprefix("mx"), name):
            continue
        for kernel, arguments, constants in launches(case):
            to_compile = source(kernel, arguments, constants)
            made = triton.compile(to_compile, target=TARGETS[name], options=launch.OPTIONS)
            found.append(judge(case, name, made, elements(constants)))
    return found


def matrix(targets: list[str], only: str = "", once: bool = False) -> Iterator[Compiled]:
    """Compiles the chosen cases, one after the other in this process."""
    for case in chosen(only, once):
        yield from compiled(case, targets)


def matrix_of_processes(targets: list[str], only: str, once: bool) -> Iterator[Compiled]:
    """The same in as many processes as there are cores, in the same order."""
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        for rows in pool.map(compiled, names := chosen(only, once), [targets] * len(names)):
            yield from rows


def main() -> None:
    """Prints the matrix; exits with 1 where there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--only", default="")
    parser.add_argument("--once", action="store_true", help="each kernel in the first of its cases only")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    print(f"triton {triton.__version__}, torch {torch.__version__}")
    for row in matrix_of_processes(options.targets.split(","), options.only, options.once):
        found.append(row)
        figures = f"{row.registers:4d} registers {row.instructions:6.1f} an element {row.shared:6d} shared"
        print(f"{row.case:40s} {row.target:8s} {figures}  {'; '.join(row.faults)}", flush=True)
    faulty = [row for row in found if row.faults]
    print(f"{len(found)} compiled, {len(faulty)} with faults")
    if options.json:
        data = {"triton": triton.__version__, "kernels": [asdict(row) for row in found]}
        options.json.write_text(text_of(data), encoding="utf-8")
    sys.exit(bool(faulty))


if __name__ == "__main__":
    main()
