"""nx.linear beside torch's products: every kind of format, batches and shapes, on one thread and on all.

python -m bench.bench_product [--small] [--json FILE]

A figure is a ratio within a round, peers and a read of as many bytes in turn; the median of the rounds is
written to bench/results/product.json.  `read`: the packed bytes summed by torch, the pace of memory.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import numerics as nx
from bench.records import text_of
from numerics.files.replacement import replace_file

SPECS: dict[str, Any] = {
    "mxfp4": "mxfp4", "nvfp4": "nvfp4", "int4 g128": nx.QuantSpec("int4", scheme="per_group(128)"),
    "mxfp6_e2m3": "mxfp6_e2m3", "mx6": "mx6", "mxfp8_e4m3": "mxfp8_e4m3", "mx9": "mx9",
    "int8 rows": nx.QuantSpec("int8", scheme="per_channel(0)"),
    "nf4 g64": nx.QuantSpec("nf4", scheme="per_group(64)"),
}  # fmt: skip
IN_INT8 = ("mxfp4", "int4 g128", "int8 rows")  # those that are measured with compute="int8", too
SHAPES = ((1024, 1024), (4096, 4096), (11008, 4096))
BATCHES = (1, 4, 16, 64, 256)
ROUNDS = 7


def _once(call: Callable[[], object], least: float = 2e-3) -> float:
    """Seconds of a call, of several where one is short; after one that wakes its threads."""
    call()
    start, count = time.perf_counter(), 0
    while True:
        call()
        count += 1
        if (took := time.perf_counter() - start) > least:
            return took / count


def int4_of_torch(w: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor] | str:
    """torch's own int4 product for the CPU, of groups of 128, for bfloat16 activations."""
    try:
        codes = torch.randint(0, 16, w.shape, dtype=torch.int32)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        scales = torch.rand(w.shape[1] // 128, w.shape[0], 2).bfloat16()
        product = torch.ops.aten._weight_int4pack_mm_for_cpu
        product(torch.ones(1, w.shape[1]).bfloat16(), packed, 128, scales)
    except (RuntimeError, AttributeError) as missing:
        return f"{type(missing).__name__}: {str(missing).splitlines()[0][:80]}"
    return lambda x: product(x, packed, 128, scales)


def onnx_nbits(w: np.ndarray, many: int) -> Callable[[], object] | str:
    """ONNX Runtime's MatMulNBits, 4 bits in blocks of 128."""
    try:
        import onnx
        import onnxruntime as ort
        from onnx import TensorProto, helper
    except ImportError as missing:
        return f"not installed ({missing.name})"
    n, k = w.shape
    rng = np.random.default_rng(0)
    packed = rng.integers(0, 256, (n, k // 128, 64)).astype(np.uint8)
    scales = rng.random((n, k // 128)).astype(np.float32).reshape(-1)
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=k, N=n, bits=4, block_size=128
    )
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [many, k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [many, n])],
        [onnx.numpy_helper.from_array(packed, "w"), onnx.numpy_helper.from_array(scales, "s")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # or the next to be timed waits
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = rng.standard_normal((many, k)).astype(np.float32)
    return lambda: session.run(None, {"x": x})


def cases(shape: tuple[int, int], batches: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Rows of the table: medians of ratios to ours."""
    w = torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    half = w.bfloat16()
    quantized = {name: nx.quantize(w, spec) for name, spec in SPECS.items()}
    quantized |= {f"{name}, int8": quantized[name] for name in IN_INT8}
    four = int4_of_torch(w)
    for many in batches:
        x = torch.randn(many, shape[1])
        low = x.bfloat16()
        peers: dict[str, Any] = {
            "torch float32": lambda x=x: F.linear(x, w), "torch bfloat16": lambda x=low: F.linear(x, half),
            "onnxruntime 4 bits": onnx_nbits(w.numpy(), many),
            "torch int4": four if isinstance(four, str) else (lambda x=low: four(x)),
        }  # fmt: skip
        said = {name: peer for name, peer in peers.items() if isinstance(peer, str)}
        runners = {name: peer for name, peer in peers.items() if not isinstance(peer, str)}
        ours = {
            name: (lambda q=q, x=x: nx.linear(x, q, compute="int8")) if "," in name
            else (lambda q=q, x=x: F.linear(x, q)) for name, q in quantized.items()
        }  # fmt: skip
        reads = {
            name: q.packed[: q.packed.numel() // 8 * 8].view(torch.int64) for name, q in quantized.items()
        }
        for call in (*runners.values(), *ours.values()):
            call()
        times: dict[str, list[float]] = {name: [] for name in (*runners, *ours, *(f"read {n}" for n in ours))}
        for _ in range(ROUNDS):
            for name, call in (*runners.items(), *ours.items()):
                times[name].append(_once(call))
            for name, part in reads.items():
                times[f"read {name}"].append(_once(part.sum))
        for name, q in quantized.items():
            mine = times[name]
            ratios = {peer: median(a / b for a, b in zip(times[peer], mine, strict=True)) for peer in runners}
            read = median(a / b for a, b in zip(times[f"read {name}"], mine, strict=True))
            yield {
                "format": name, "shape": list(shape), "batch": many, "threads": torch.get_num_threads(),
                "microseconds": 1e6 * median(mine), "gigabytes": q.nbytes / median(mine) / 1e9,
                "of read": read, "peers": ratios | said,
            }  # fmt: skip


def main() -> None:
    """Prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--side", type=int, help="of the one matrix, instead of three shapes")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "product.json")
    options = parser.parse_args()
    shapes, batches = (((256, 256),), (1, 16)) if options.small else (SHAPES, BATCHES)
    if options.side:
        shapes = ((options.side, options.side),)
    most, rows = torch.get_num_threads(), []
    for threads in sorted({1, most}):
        torch.set_num_threads(threads)
        os.environ["NUMERICS_NUM_THREADS"] = str(threads)
        for shape in shapes:
            for row in cases(shape, batches):
                rows.append(row)
                others = ", ".join(
                    f"{name} {x:.2f}x" for name, x in row["peers"].items() if isinstance(x, float)
                )
                print(f"{threads} {shape[0]}x{shape[1]} batch {row['batch']:3d} {row['format']:15s} "
                      f"{row['microseconds']:9.0f} us {100 * row['of read']:4.0f} % of a read  {others}",
                      flush=True)  # fmt: skip
    machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__,
               "numpy": np.__version__, "python": platform.python_version()}  # fmt: skip
    replace_file(options.json, text_of({"machine": machine, "rows": rows}).encode())


if __name__ == "__main__":
    main()
