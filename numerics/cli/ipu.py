"""`numerics ipu`: operations as ONNX models, and what the runtime at hand does with them."""

from __future__ import annotations

import sys
from typing import Any

import click

from numerics.cli.words import FORMAT, OVERFLOW, SCALE_RULE, as_json, examples, json_of
from numerics.formats.rounding import OVERFLOWS, SCALE_RULES
from numerics.view.screen import after, deliver, tell


@click.group("ipu", help="AMD's Ryzen AI NPU, by way of ONNX.")
def ipu_group() -> None: ...


@ipu_group.command(
    "export",
    help="Write an operation on FORMAT as an ONNX model to OUT."
    + examples(
        "numerics ipu export mxfp4 out.onnx", "numerics ipu export int8 q.onnx --op requantize --shift 7"
    ),
)
@click.argument("name", metavar="FORMAT", type=FORMAT)
@click.argument("out")
@click.option(
    "--op", default="round", show_default=True, help="encode, decode, round, pack, unpack, requantize."
)
@click.option("--profile", default="bits", show_default=True, help="bits, portable or npu.")
@click.option("--rounding", help="half_even by default; for requantize a mode of AIE-ML.")
@click.option("--overflow", type=OVERFLOW, help=" or ".join(OVERFLOWS) + "; the format's own by default.")
@click.option(
    "--scale-rule", type=SCALE_RULE, default="floor", show_default=True, help=", ".join(SCALE_RULES) + "."
)
@click.option("--shift", type=int, help="For requantize.")
@click.option("--device", help="For requantize: phx, hpt, stx or krk.")
def ipu_export_command(name: Any, out: str, **options: Any) -> None:
    import numerics as nx
    from numerics.files.replacement import replace_file

    model = nx.ipu.export(name, options.pop("op"), options.pop("profile"), **options)
    replace_file(out, model.SerializeToString())
    with after(f"{out} is written"):
        tell(f"{out}: {len(model.graph.node)} nodes, opset {model.opset_import[0].version}")


@ipu_group.command(
    "verify",
    help="Run known-answer networks; say which rounding they show."
    + examples("numerics ipu verify --device stx"),
)
@click.option("--device", default="stx", show_default=True, help="phx, hpt, stx or krk.")
@click.option("--xclbin", help="The NPU binary that phx and hpt need.")
@click.option("--require-npu", is_flag=True, help="Fail without the NPU's provider.")
@as_json
def ipu_verify_command(device: str, xclbin: str | None, require_npu: bool, as_json: bool) -> None:
    import numerics as nx

    found = nx.ipu.verify(device, require_npu=require_npu, xclbin=xclbin)
    if as_json:
        deliver(json_of(found) + "\n")
    else:
        shown = ", ".join(found["shown_modes"]) or "no mode of AIE-ML"
        tell(f"active providers: {', '.join(found['providers'])}")
        tell(f"{found['outputs']} outputs show {shown}; {device} should round {found['documented_mode']}")
        tell(found["note"])
    sys.exit(0 if found["agrees"] else 1)
