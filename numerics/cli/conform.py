"""`numerics conform`: the judge on the command line."""

from __future__ import annotations

import sys
from inspect import cleandoc
from typing import Any

import click

from numerics.cli.words import FORMAT, OVERFLOW, ROUNDING, SCALE_RULE, examples
from numerics.conform.kinds import KINDS
from numerics.formats.rounding import OVERFLOWS, ROUNDINGS_TEXT, SCALE_RULES
from numerics.view.screen import say


@click.command(
    "conform",
    help=cleandoc("""Is the kernel TARGET, spelled module:function, right?

    The module is looked for in the current directory too.  Exit code 0: it is; 1: it is not, and
    the law it breaks, the simplest input and the nearest dialect are printed.
    """)
    + examples(
        "numerics conform mypkg.kernels:encode_e4m3 --dtype fp8_e4m3",
        "numerics conform mypkg.kernels:round_mx --dtype mxfp4 --kind round",
    ),
)
@click.argument("target")
@click.option(
    "--dtype", type=FORMAT, required=True, help="The format: fp8_e4m3, mxfp4 ... (`numerics formats`)."
)
@click.option("--kind", help=", ".join(KINDS) + "; encode by default.")
@click.option("--rounding", type=ROUNDING, default="half_even", show_default=True, help=ROUNDINGS_TEXT + ".")
@click.option("--overflow", type=OVERFLOW, help=" or ".join(OVERFLOWS) + "; the format's own by default.")
@click.option(
    "--scale-rule", type=SCALE_RULE, default="floor", show_default=True, help=", ".join(SCALE_RULES) + "."
)
@click.option("--axis", type=int, default=-1, show_default=True, help="Along which blocks lie.")
@click.option("--array", default="numpy", show_default=True, help="What TARGET takes: numpy or torch.")
@click.option("--contiguous", is_flag=True, help="TARGET takes only contiguous arrays of one dimension.")
@click.option("--whole-blocks", is_flag=True, help="TARGET takes only lines that are whole blocks.")
@click.option("--finite", is_flag=True, help="TARGET takes neither NaN nor Inf.")
@click.option("--strict-nan", is_flag=True, help="NaN must be the canonical code.")
@click.option("--exhaustive", is_flag=True, help="All 2**32 float32 inputs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def conform_command(target: str, as_json: bool, **options: Any) -> None:
    from numerics.conform.checking import check

    if "" not in sys.path:
        sys.path.insert(0, "")
    verdict = check(target, **options)
    say(verdict.to_json() if as_json else str(verdict))
    sys.exit(0 if verdict else 1)
