"""`numerics ipu`: operations and models as ONNX for Ryzen AI, and what the runtime at hand does with them."""

from __future__ import annotations

import sys
from inspect import cleandoc
from typing import Any

import click

from numerics.cli.completing import DEVICE, FILE, OBSERVER, OVERFLOW, SCALE_RULE, WordType, of, word_option
from numerics.cli.words import FORMAT, as_json, examples, json_of, quietly_or_json
from numerics.formats.errors import NumericsError
from numerics.formats.rounding import OVERFLOWS, ROUNDINGS, SCALE_RULES_TEXT
from numerics.view.bar import bar
from numerics.view.screen import Screen, after, deliver, draw, tell
from numerics.view.text import many

MODELS = (".onnx",)
EXPORT, CONFIGS = "numerics.backends.ipu.export", "numerics.model.ipu.configs"
every_row = click.option("--all", "every", is_flag=True, help="Every row of the report, none folded.")


def _roundings() -> tuple[str, ...]:
    """The roundings of quantizing, and AIE-ML's of requantizing."""
    from numerics.backends.ipu.srs import MODES

    return (*ROUNDINGS, *MODES)


@click.group(
    "ipu",
    help="AMD's Ryzen AI NPU, by way of ONNX."
    + examples("numerics ipu quantize model.onnx out.onnx --data calibration.npz"),
)
def ipu_group() -> None: ...


@ipu_group.command(
    "export",
    help="Write an operation on FORMAT as an ONNX model to OUT."
    + examples(
        "numerics ipu export mxfp4 out.onnx",
        "numerics ipu export int8 q.onnx --op requantize --shift 7 --device stx",
    ),
)
@click.argument("name", metavar="FORMAT", type=FORMAT)
@click.argument("out", type=FILE)
@word_option("--op", of(EXPORT, "OPS"), "round", "encode, decode, round, pack, unpack, requantize.")
@word_option("--profile", of(EXPORT, "PROFILES"), "bits", "bits, portable or npu.")
@click.option(
    "--rounding", type=WordType(_roundings), help="half_even by default; for requantize a mode of AIE-ML."
)
@click.option("--overflow", type=OVERFLOW, help=" or ".join(OVERFLOWS) + "; the format's own by default.")
@click.option("--scale-rule", type=SCALE_RULE, default="floor", show_default=True, help=SCALE_RULES_TEXT)
@click.option("--shift", type=int, help="For requantize: bits, 0 to 31.")
@click.option("--device", type=DEVICE, help="For requantize: phx, hpt, stx or krk.")
def ipu_export_command(name: Any, out: str, **options: Any) -> None:
    import numerics as nx
    from numerics.files.replacement import check_output, replace_file

    check_output(out, MODELS)
    model = nx.ipu.export(name, options.pop("op"), options.pop("profile"), **options)
    replace_file(out, model.SerializeToString())
    with after(f"{out} is written"):
        tell(f"{out}: {_nodes(model)}, opset {model.opset_import[0].version}: {model.doc_string}")


@ipu_group.command(
    "quantize",
    help=cleandoc("""Write a float ONNX MODEL for the device, to OUT.

    The report says what was done to each node, and why: totals first, on a terminal what is alike in one
    line (--all: every row).  The data is an .npz file, an array for every input, whose first axis holds
    the items.  On a CPU, defaults of ONNX Runtime change integers: nx.ipu.session(OUT) turns them off.
    """)
    + examples(
        "numerics ipu quantize model.onnx out.onnx --data calibration.npz",
        "numerics ipu quantize model.onnx out.onnx --config bf16 --device krk",
    ),
)
@click.argument("model", type=FILE)
@click.argument("out", type=FILE)
@click.option("--data", type=FILE, help="What it is calibrated on: an .npz file; bf16 needs none.")
@word_option("--config", of(CONFIGS, "CONFIGS"), "xint8", "xint8, a8w8, a16w8 or bf16.")
@click.option("--device", type=DEVICE, default="stx", show_default=True, help="phx, hpt, stx or krk.")
@click.option(
    "--observer",
    type=OBSERVER,
    help="Who finds scales: pof2_mse for xint8, min_max for others by default; not for bf16.",
)
@click.option("--bias", type=WordType(of(CONFIGS, "BIASES")), help="int32 (the default), or int8 for xint8.")
@click.option("--keep", multiple=True, help="A node's name or an operator that stays in float; repeatable.")
@click.option("--shape", multiple=True, help="NAME=1,3,224,224: an input's shape, if open; repeatable.")
@every_row
@as_json
@quietly_or_json
def ipu_quantize_command(model: str, out: str, as_json: bool, quiet: bool, **options: Any) -> None:
    import numerics as nx
    from numerics.files.replacement import check_output, refuse_same_file
    from numerics.model.ipu.loading import files_beside

    check_output(out, MODELS, model, options["data"])
    for beside in files_beside(model):
        refuse_same_file(beside, out)
    config = _config(options)
    with bar(quiet, in_bytes=False) as shown:
        found = nx.ipu.quantize_model(model, options["data"], config, options["device"], shown.update)
    found.save(out)
    with after(f"{out} is written"):
        if as_json:
            deliver(json_of(found.report.as_dict()) + "\n")
        elif not quiet:
            screen = Screen.of(sys.stdout)
            draw(found.report.lines(screen, options["every"]))
            totals = f"{found.report.summary}; " if screen.width is None else ""
            tell(f"{totals}{out}: {_nodes(found.model)}, {found.report.config} for {found.report.device}")


def _nodes(model: Any) -> str:
    return many(len(model.graph.node), "node")


def _config(options: dict[str, Any]) -> Any:
    """The named configuration, with what was asked to be otherwise."""
    from numerics.model.ipu.configs import config_of

    asked = {name: options[name] for name in ("observer", "bias", "keep") if options[name]}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, sizes in map(_shape, options["shape"]):
        if name in shapes:
            raise NumericsError(f"--shape names {name} twice; allowed: one shape an input")
        shapes[name] = sizes
    return config_of(options["config"]).replace(**asked, **({"shapes": shapes} if shapes else {}))


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition("=")
    if not name or not all(size.strip().isascii() and size.strip().isdecimal() for size in sizes.split(",")):
        raise NumericsError(f"--shape {text}: allowed: NAME=1,3,224,224")
    return name, tuple(int(size) for size in sizes.split(","))


@ipu_group.command(
    "verify",
    help=cleandoc("""Run known-answer networks; say which rounding they show.

    Exit code 1 where it is not the one that the device should have.
    """)
    + examples("numerics ipu verify --device stx"),
)
@click.option("--device", type=DEVICE, default="stx", show_default=True, help="phx, hpt, stx or krk.")
@click.option("--xclbin", type=FILE, help="The NPU binary that phx and hpt need.")
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
