"""Products of real libraries, judged and described: `python -m tests.peers.products` fills docs/products.md.

What is not installed is left out and said so.  Each runs in a process of its own: some crash.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import numerics as nx
from numerics.conform import check, fingerprint
from tests.helpers.children import LIMIT

PAGE = Path(__file__).parents[2] / "docs" / "products.md"
BEGIN, END = "<!-- table: make peers -->", "<!-- end of the table -->"
INT4 = nx.QuantSpec("int4", scheme="per_group(32)")
UINT4 = nx.QuantSpec("uint4", scheme="per_group(32)", symmetric=False)


def torch_mm(a, b):
    return a @ b.T


def torch_baddbmm(a, b, c, alpha, beta):
    import torch

    return torch.baddbmm(c, a, b, alpha=alpha, beta=beta)


def torch_addmm(a, b, c, alpha, beta):
    import torch

    return torch.addmm(c, a, b, alpha=alpha, beta=beta)


def torch_int_mm(a, b):
    import torch

    return torch._int_mm(a, b.T)


def torch_int8pack(a, b):
    import torch

    codes = b.codes.view(torch.int8)
    return torch.ops.aten._weight_int8pack_mm(a, codes, b.scale.reshape(-1).to(torch.bfloat16))


def torch_scaled_mm(a, b):
    import torch

    left, right = (x.codes.view(torch.float8_e4m3fn) for x in (a, b))
    return torch._scaled_mm(left, right.T, a.scale.reshape(()), b.scale.reshape(()), out_dtype=torch.float32)


def ort_session(nodes, inputs, outputs, constants=()):
    import onnxruntime
    from onnx import helper

    graph = helper.make_graph(nodes, "product", inputs, outputs, list(constants))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def ort_nbits(level):
    def onnxruntime_nbits(a, b):
        from onnx import TensorProto, helper, numpy_helper

        (m, k), (n, _), size = a.shape, b.codes.shape, b.scheme.size
        blocks = -(-k // size)
        codes = np.full((n, blocks * size), 15, np.uint8)
        codes[:, :k] = b.codes
        packed = (codes[:, 0::2] | codes[:, 1::2] << 4).reshape(n, blocks, size // 2)
        zero = np.zeros((n, blocks + blocks % 2), np.uint8)
        zero[:, :blocks] = b.zero_point
        parts = (
            ("B", packed),
            ("S", np.float32(b.scale).reshape(-1)),
            ("Z", (zero[:, 0::2] | zero[:, 1::2] << 4).reshape(-1)),
        )
        node = helper.make_node(
            "MatMulNBits",
            ["A", "B", "S", "Z"],
            ["Y"],
            domain="com.microsoft",
            K=k,
            N=n,
            bits=4,
            block_size=size,
            accuracy_level=level,
        )
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (("A", a.shape), ("Y", (m, n)))
        ]
        session = ort_session(
            [node], ends[:1], ends[1:], [numpy_helper.from_array(x, name) for name, x in parts]
        )
        return session.run(None, {"A": a})[0]

    return onnxruntime_nbits


def ort_integer(a, b):
    from onnx import TensorProto, helper, numpy_helper

    kinds = {np.dtype("uint8"): TensorProto.UINT8, np.dtype("int8"): TensorProto.INT8}
    ends = [
        helper.make_tensor_value_info("A", kinds[a.dtype], a.shape),
        helper.make_tensor_value_info("Y", TensorProto.INT32, (len(a), len(b))),
    ]
    node = helper.make_node("MatMulInteger", ["A", "B"], ["Y"])
    constants = [numpy_helper.from_array(np.ascontiguousarray(b.T), "B")]
    return ort_session([node], ends[:1], ends[1:], constants).run(None, {"A": a})[0]


def numpy_int8(a, b):
    return (a @ b.T).astype(np.int32)


TORCH = {"array": "torch"}
BLENDED = {**TORCH, "alpha": True, "beta": True}
KERNELS: dict[str, tuple[Callable[..., object], dict[str, object]]] = {
    "numerics nx.linear": (nx.linear, {"a": "float32", "b": "mxfp4"}),
    "numpy float32": (np.inner, {"a": "float32", "b": "float32"}),
    "numpy float16": (np.inner, {"a": "float16", "b": "float16", "out": "float16"}),
    "numpy int8 @ int8": (numpy_int8, {"a": "int8", "b": "int8", "accumulate": "int32"}),
    "torch float32": (torch_mm, {"a": "float32", "b": "float32", **TORCH}),
    "torch bfloat16": (torch_mm, {"a": "bfloat16", "b": "bfloat16", "out": "bfloat16", **TORCH}),
    "torch float16": (torch_mm, {"a": "float16", "b": "float16", "out": "float16", **TORCH}),
    **{
        f"torch.{name} {kind}": (
            function,
            {"a": kind, "b": kind, "out": kind, "layout": layout, **BLENDED},
        )
        for name, function, layout in (
            ("addmm", torch_addmm, "kn"),
            ("baddbmm", torch_baddbmm, "bmk,bkn"),
        )
        for kind in ("float32", "bfloat16", "float16")
    },
    "torch._int_mm": (torch_int_mm, {"a": "int8", "b": "int8", "accumulate": "int32", **TORCH}),
    "torch._scaled_mm fp8": (torch_scaled_mm, {"a": "fp8_e4m3", "b": "fp8_e4m3", **TORCH}),
    "aten::_weight_int8pack_mm": (
        torch_int8pack,
        {
            "a": "bfloat16",
            "b": nx.QuantSpec("int8", scheme="per_channel(0)", scale_type="bfloat16"),
            "out": "bfloat16",
            **TORCH,
        },
    ),
    "onnxruntime MatMulNBits, level 0": (ort_nbits(0), {"a": "float32", "b": UINT4}),
    "onnxruntime MatMulNBits, level 4": (ort_nbits(4), {"a": "float32", "b": UINT4}),
    "onnxruntime MatMulInteger u8 x s8": (ort_integer, {"a": "uint8", "b": "int8", "accumulate": "int32"}),
}


def row(name: str) -> str:
    """A line of the table: what the judge and the probes say."""
    function, claim = KERNELS[name]
    found = check(function, kind="matmul", **claim)
    said = "right" if found else f"**{found.law}**: {found.dialect or 'no known deviation'}"
    plain = {"float32", "bfloat16", "float16"}
    how = ""
    if found and {claim["a"], claim["b"]} <= plain and "alpha" not in claim:
        options = {key: claim[key] for key in ("a", "b", "out", "array") if key in claim}
        seen = fingerprint(function, **options)
        how = f"{seen.order}; {seen.bits} bits, products {seen.products}; {seen.reproduced} of 64"
        how += "" if seen.alone else "; one row alone: other bits"
    return f"| {name} | {found.task} | {said} | {found.tried} | {how} |"


def rows() -> list[str]:
    """All lines, each by a process of its own."""
    found = []
    for name in KERNELS:
        ran = subprocess.run(
            [sys.executable, "-m", "tests.peers.products", name],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=LIMIT,
        )
        last = ran.stderr.strip().splitlines()[-1:] or ["no word"]
        died = f"died with signal {-ran.returncode}" if ran.returncode < 0 else last[0][:120]
        found.append(ran.stdout.strip() if ran.returncode == 0 else f"| {name} | | **{died}** | | |")
        print(found[-1], flush=True)
    return found


def main() -> None:
    if sys.argv[1:]:
        print(row(sys.argv[1]))
        return
    table = ["| product | claim | verdict | results judged | how it adds |", "|---|---|---|---|---|", *rows()]
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    PAGE.write_text(
        f"{before}{BEGIN}\n" + "\n".join(table) + f"\n{END}" + rest.partition(END)[2], encoding="utf-8"
    )


if __name__ == "__main__":
    main()
