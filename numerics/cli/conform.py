"""`numerics conform`: the judge on the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

import click

from numerics.cli.completing import (
    OVERFLOW,
    ROUNDING,
    SCALE_RULE_OF_ALL,
    SCHEME,
    SPEC,
    TARGET,
    ScaleType,
    WordType,
    of,
    word_option,
)
from numerics.cli.words import CLAIMED, examples
from numerics.conform.kinds import EFFORTS, INPUTS, KINDS
from numerics.formats.errors import NumericsError
from numerics.formats.rounding import OVERFLOWS, ROUNDINGS_TEXT, SCALE_RULES_TEXT
from numerics.view.bar import bar
from numerics.view.screen import Screen, deliver, draw, printing_beside, say
from numerics.view.table import records

if TYPE_CHECKING:
    pass

SWEEP = 1 << 14  # calls that ask all of float32, of 2**18 inputs each; a few come before them
CLAIM, TASK = "numerics.conform.products.claim", "numerics.conform.task"
LAYOUT = "numerics.conform.products.layout"
VALUE = WordType(of(CLAIM, "VALUES"))
ARRAY, OUT = WordType(of("numerics.conform.takes", "ARRAYS")), WordType(of(CLAIM, "OUTS"))


def _accumulators() -> tuple[str, ...]:
    """What a product may sum in."""
    from numerics.conform.products.claim import ACCUMULATORS, INT32

    return (*ACCUMULATORS, INT32)


@click.command(
    "conform",
    help=cleandoc("""Is the kernel TARGET, spelled module:function, right?

    The module is looked for in the current directory too; TARGET runs in a process of its own.  Exit code
    0: it is right; 1: it is not, and the law it breaks, the simplest input and the nearest dialect are
    printed; 2: it cannot be judged.
    """)
    + examples(
        "numerics conform mypkg.kernels:encode_e4m3 --dtype fp8_e4m3",
        "numerics conform mypkg.kernels:round_mx --dtype mxfp4 --kind round",
        "numerics conform kernels:f --dtype int8 --kind quantize --scheme per_token",
        "numerics conform mypkg.kernels:linear --kind matmul --a float32 --b mxfp4",
    ),
)
@click.argument("target", type=TARGET)
@click.option(
    "--dtype",
    type=CLAIMED,
    help="The format: fp8_e4m3, mxfp4 ... (`numerics formats`); of quantize also `uint8 symmetric=False`; "
    "not of matmul.",
)
@click.option("--kind", type=WordType(KINDS), help=", ".join(KINDS) + "; encode by default.")
@click.option("--rounding", type=ROUNDING, default="half_even", show_default=True, help=ROUNDINGS_TEXT + ".")
@click.option("--overflow", type=OVERFLOW, help=" or ".join(OVERFLOWS) + "; the format's own by default.")
@click.option(
    "--scale-rule", type=SCALE_RULE_OF_ALL, default="floor", show_default=True, help=SCALE_RULES_TEXT
)
@click.option(
    "--tensor-scale",
    type=ScaleType(("amax",)),
    help="Of NVFP4: the scale of the whole tensor, 1 by default; amax where TARGET finds it.",
)
@click.option("--axis", type=int, default=-1, show_default=True, help="Along which blocks lie.")
@click.option(
    "--array", type=ARRAY, default="numpy", show_default=True, help="What TARGET takes: numpy or torch."
)
@click.option("--contiguous", is_flag=True, help="TARGET takes only contiguous arrays of one dimension.")
@click.option("--whole-blocks", is_flag=True, help="TARGET takes only lines that are whole blocks.")
@click.option("--finite", is_flag=True, help="TARGET takes neither NaN nor Inf.")
@click.option("--one-thread", is_flag=True, help="TARGET is called by one thread alone.")
@click.option("--fills", is_flag=True, help="TARGET is given arrays for its result last, and fills them.")
@word_option("--inputs", INPUTS, "float32", "Of its values: " + ", ".join(INPUTS) + ".")
@click.option(
    "--scheme",
    type=SCHEME,
    help="Of affine and quantize, who shares a scale: `per_token`, `per_group(32)`, 128x128 ...",
)
@click.option("--draw", help="Of stochastic rounding: own, or a rule and bits as in a8; a30 by default.")
@click.option(
    "--least",
    help="Of quantize: the scale of zeros, one or none, or what clamps: `amax 1e-12`, `scale 1e-7`.",
)
@click.option("--packed", is_flag=True, help="Of blocks: codes come as bytes.")
@click.option(
    "--scale-layout",
    type=WordType(of(TASK, "LAYOUTS")),
    help="Of blocks: scales lie as cublas or cdna4 has them.",
)
@click.option("--strict-nan", is_flag=True, help="NaN must be the canonical code.")
@click.option("--exhaustive", is_flag=True, help="All 2**32 float32 inputs.")
@click.option(
    "--a", type=SPEC, help="Of matmul: float32, bfloat16, float16, a format, or `int4 per_group(128)`."
)
@click.option(
    "--b", type=SPEC, help="Of matmul: the same; rows of k elements, a row for each column of the result."
)
@word_option("--accumulate", _accumulators, "float32", "Of matmul: what it sums in.")
@click.option(
    "--out", type=OUT, help="Of matmul: the type of the result; float32, or int32 where that is summed in."
)
@word_option(
    "--layout",
    of(LAYOUT, "LAYOUTS"),
    "nk",
    "Of matmul: nk, kn where b is turned, or both operands, as in bmk,bnk.",
)
@click.option("--bias", is_flag=True, help="Of matmul: it takes a bias.")
@click.option("--alpha", is_flag=True, help="Of matmul: it takes alpha, which multiplies the product.")
@click.option("--beta", is_flag=True, help="Of matmul: it takes c and beta, and adds beta * c.")
@click.option("--nonempty", is_flag=True, help="Of matmul: TARGET takes no empty operands.")
@click.option("--in-place", is_flag=True, help="Of matmul: with --fills and --beta, its result holds c.")
@word_option("--zero-point", of(CLAIM, "ZERO_POINTS"), "split", "Of matmul: split or folded.")
@click.option("--seed", type=int, help="Of the numbers that are drawn; 0 by default.")
@click.option(
    "--effort", type=WordType(EFFORTS), default="default", show_default=True, help=", ".join(EFFORTS) + "."
)
@click.option(
    "--timeout", type=float, help="Seconds of a call, then TARGET hangs; 600 by default; not with --here."
)
@click.option(
    "--here", is_flag=True, help="In this process: a crash of TARGET ends it; what it prints goes to stderr."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def conform_command(target: str, as_json: bool, here: bool, timeout: float | None, **options: Any) -> None:
    from numerics.conform.checking import check

    if "" not in sys.path:
        sys.path.insert(0, "")
    if options["kind"] != "matmul" and options["dtype"] is None:
        raise NumericsError("--dtype is missing: the format that the kernel claims, as in --dtype fp8_e4m3")
    if here and timeout is not None:
        raise NumericsError(f"--timeout {timeout:g} is not for --here: what hangs here cannot be ended")
    with progress(f"calls of {target}", SWEEP if options["exhaustive"] else None), printing_beside():
        found = check(target, isolated=not here, timeout=timeout, **options)
    if as_json:
        deliver(f"{found.to_json()}\n")
    else:
        say(str(found))
    sys.exit(0 if found else 1)


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[None]:
    """A bar of what is judged inside, where somebody looks at standard error."""
    from numerics.conform.watching import watched

    with (
        bar(in_bytes=False) as shown,
        watched(lambda done, known: shown.update(*_come(what, done, total if known is None else known))),
    ):
        yield


def _come(what: str, done: int, total: int | None) -> tuple[str, int | None, int | None]:
    """What a bar says: of nothing yet that it is awaited, since a process starts, or a kernel is compiled."""
    return (what, done, total) if done else (f"{what}: the first is awaited", None, None)


@click.command(
    "fingerprint",
    help=cleandoc("""How does the product TARGET add?

    TARGET is spelled module:function.  Order, width and rounding of its sums, told by
    probes; a description, no verdict.  It is given a as (m, k) and b as (n, k), a row for each
    column of the result; --layout kn gives b as (k, n), as `a @ b` takes it.
    """)
    + examples(
        "numerics fingerprint mypkg.kernels:matmul",
        "numerics fingerprint mypkg.kernels:matmul --a bfloat16 --b bfloat16",
        "numerics fingerprint torch:matmul --array torch --layout kn",
    ),
)
@click.argument("target", type=TARGET)
@click.option("--a", type=VALUE, default="float32", show_default=True, help="float32, bfloat16 or float16.")
@click.option("--b", type=VALUE, default="float32", show_default=True, help="The same.")
@click.option("--out", type=OUT, help="The type of the result; float32 by default.")
@click.option(
    "--shape",
    default="64,64,32",
    show_default=True,
    help="m,n,k of the product that is probed: m and n of 2 and more, k of 3 to 64.",
)
@click.option(
    "--array", type=ARRAY, default="numpy", show_default=True, help="What TARGET takes: numpy or torch."
)
@word_option(
    "--layout", of(LAYOUT, "MATRICES"), "nk", "nk, kn where b is turned, or both operands, as in km,kn."
)
def fingerprint_command(target: str, shape: str, **options: Any) -> None:
    from numerics.conform.checking import TIMEOUT
    from numerics.conform.isolation.judging import imported
    from numerics.conform.products.fingerprint import LONGEST, fingerprint

    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        m, n, k = map(int, shape.split(","))
        if min(m, n, k) < 1:
            raise ValueError
    except ValueError:
        raise NumericsError(
            f"--shape {shape}: m,n,k are due, m and n of 2 and more, k of 3 to {LONGEST}, as in 64,64,32"
        ) from None
    with progress(f"calls of {target}"), printing_beside():
        imported(target, TIMEOUT)
        found = fingerprint(target, shape=(m, n, k), **options)
    facts = [(f"  {name}", said) for name, said in found.facts]
    draw([found.heading, *records(facts, Screen.of(sys.stdout)), f"  {found.tried}"])
