"""`numerics scales`: which scale rule of a format loses least on a tensor."""

from __future__ import annotations

import sys
from inspect import cleandoc
from typing import Any

import click

from numerics.cli.completing import FILE
from numerics.cli.plot import how, sharing_options, tensor_option
from numerics.cli.words import FORMAT_OR_HOW, HOW, as_json, examples, json_of
from numerics.view.bar import bar
from numerics.view.screen import Screen, deliver, draw, tell


@click.command(
    "scales",
    help=cleandoc("""Which scale rule of a format loses least on FILE's tensor?

    FILE: a checkpoint or .npy; of what is quantized already the values count.  A line a rule, the one that
    loses least first: signal to noise in dB, the largest error, how many values lie more than half a step
    beyond what their scale can represent, and how many finite ones became NaN or Inf, where any did.
    """)
    + examples(
        "numerics scales x.npy --dtype nvfp4",
        "numerics scales m.safetensors --tensor w --dtype int4 --group-size 32",
        "numerics scales x.npy --dtype 'int4 per_group(32)'",
    ),
)
@click.argument("file", type=FILE)
@tensor_option
@click.option("--dtype", type=HOW, required=True, help=FORMAT_OR_HOW)
@sharing_options
@as_json
def scales_command(file: str, name: str | None, dtype: Any, as_json: bool, **options: Any) -> None:
    from numerics.draw.scales import found_by
    from numerics.draw.sources import stored_as, tensor_in
    from numerics.tensor.spec import described

    name, x = tensor_in(file, name)
    stored = stored_as(x)
    with bar(as_json, in_bytes=False) as shown:
        found = found_by(x, *how(dtype, **options), shown.update)
    if as_json:
        deliver(json_of({"tensor": name, "stored": stored, **found.as_dict()}) + "\n")
        return
    draw(found.table().lines(Screen.of(sys.stdout)))
    beside = f", of its values as {stored} stores them" if stored else ""
    tell(f"{name} in {described(found.spec)}{beside}: {found.verdict}")
