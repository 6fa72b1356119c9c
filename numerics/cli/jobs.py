"""`numerics quantize`: the request of its options, the decisions before, the report after."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from numerics.cli.completing import FILE
from numerics.cli.files import job_options, quantize_options, report_json, say_report, spec_arguments
from numerics.cli.words import (
    as_json,
    check_seed,
    examples,
    format_of,
    json_of,
    of_text,
    quietly_or_json,
    say_kept,
    stoppable,
)
from numerics.formats.errors import NumericsError
from numerics.view.bar import bar
from numerics.view.screen import Screen, after, deliver, draw, say_beside, tell

if TYPE_CHECKING:
    from numerics.checkpoints.deciding import Request
    from numerics.checkpoints.job import JobReport
    from numerics.files.shards import Source
    from numerics.model.deciding.plan import Plan

UNITS = {"": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
OF_FORMATS = (
    "scheme", "group_size", "axis", "asymmetric", "scale_type", "zero_point_type", "rounding", "scale_rule",
)  # fmt: skip
OF_JOBS = (
    "plan_file", "save_plan", "dry_run", "errors", "max_memory", "seed", "include", "exclude", "tensor_scale",
    "every", "observer",
)  # fmt: skip


@click.command(
    "quantize",
    help=cleandoc("""Write the weights of MODEL in a format.

    MODEL is a .safetensors file, or a folder of shards with their index.  Float tensors of two and more
    dimensions are quantized, all others copied; rules say otherwise.  OUT appears when it is whole; a
    folder's shards one by one, and the same command goes on where one was stopped.  Under torchrun, ranks
    share the shards.  The report: bits a value with the scales, signal to noise in dB and the largest
    error of the values that were finite, and how many are NaN or Inf where there are any.  Where finite ones
    became that, too, it says how many, and neither of the two.
    """)
    + examples(
        "numerics quantize model.safetensors out.safetensors --dtype mxfp4",
        "numerics quantize m.safetensors q.safetensors --dtype int4 --group-size 128",
        "numerics quantize m.safetensors OUT --dtype nvfp4 --tensor-scale 0.001",
        "numerics quantize m.safetensors OUT --dtype int8 --observer mse",
        "numerics quantize FOLDER OUT --dtype mxfp4 --dtype 'lm_head*=none' --dry-run",
    ),
)
@click.argument("model", type=FILE)
@click.argument("out", type=FILE)
@quantize_options
@job_options
@as_json
@quietly_or_json
def quantize_command(model: str, out: str, as_json: bool, quiet: bool, **options: Any) -> None:
    from numerics.checkpoints import Source, decide
    from numerics.checkpoints.job import Options, check_target, quantize
    from numerics.checkpoints.ranks import Ranks

    job = {name: options.pop(name) for name in OF_JOBS}
    most, ranks = memory(job["max_memory"]), Ranks.of_environment()
    quiet = quiet or ranks.rank > 0
    with stoppable(out, quiet), bar(quiet) as shown:
        source = Source(model)
        _check_outputs(model, out, job)
        request = _request(source, options, job)
        lines = source.folder and not (quiet or as_json or shown.screen)
        how = Options(
            job["seed"], most, job["errors"], ranks, shown.update, _tell_shard if lines else None,
            job["tensor_scale"], _tell_kept if lines else None,
        )  # fmt: skip
        if job["dry_run"] or job["save_plan"] or (source.folder and not quiet and not as_json):
            decision = decide(source, request)
            how.check(decision)
            if not job["dry_run"]:
                check_target(source, out, decision, how)
            _tell_plan(decision.plan, job, as_json, quiet)
        if job["dry_run"]:
            return
        report = quantize(source, out, request, how)
    if ranks.rank == 0:
        _say(report, out, as_json, quiet, partial(say_report, every=job["every"], planned=source.folder))
        if not quiet:
            for line in source.said_of_not_copied():
                say_beside(line)


def _check_outputs(model: str, out: str, job: dict[str, Any]) -> None:
    """Raises NumericsError, before anything is decided, for files that must not be written there."""
    from numerics.files.replacement import check_output, refuse_same_file
    from numerics.model.deciding.written import KINDS, check_replaced

    check_output(out, (".safetensors",), model, job["plan_file"])
    if job["save_plan"]:
        refuse_same_file(out, job["save_plan"])
        check_output(job["save_plan"], KINDS, model, job["plan_file"])
        check_replaced(job["save_plan"])


def _tell_plan(plan: Plan, job: dict[str, Any], as_json: bool, quiet: bool) -> None:
    """What is decided: into a file where one is named, and to whoever reads."""
    if job["save_plan"]:
        plan.save(job["save_plan"])
    if as_json and job["dry_run"]:
        deliver(json_of(plan.as_dict()) + "\n")
    elif not quiet and not as_json:
        from numerics.files.selection import already_said

        screen = Screen.of(sys.stdout)
        draw(plan.lines(screen, full=job["every"] or (job["dry_run"] and screen.width is None)))
        already = already_said((row.shape, row.reason) for row in plan.rows)
        if already and job["dry_run"]:
            tell(already)


def _say(report: JobReport, out: str, as_json: bool, quiet: bool, tell: Callable[[JobReport], None]) -> None:
    """The report, told where nobody wants JSON or silence."""
    with after(f"{out} is written"):
        if as_json:
            found = report_json(report)
            found["total"] |= {"shards": report.shards, "resumed": report.resumed}
            deliver(json_of(found) + "\n")
        elif not quiet:
            tell(report)
        if not quiet:
            say_kept(report.resumed)


def _tell_shard(name: str, done: int, total: int) -> None:
    say_beside(f"{done} of {total} shards: {name}")


def _tell_kept(name: str, done: int, total: int) -> None:
    say_beside(f"{done} of {total} shards, done before and kept: {name}")


def _request(source: Source, options: dict[str, Any], job: dict[str, Any]) -> Request:
    """What is asked for; raises NumericsError where nothing is, or options that belong to no format."""
    from numerics.checkpoints.deciding import Request, planned, rules_of_texts
    from numerics.files.selection import says_no_axis
    from numerics.model.deciding.plan import Plan
    from numerics.tensor.spec import QuantSpec

    with of_text():
        usual, rules = rules_of_texts(options.pop("dtypes"), format_of)
        plan = None if job["plan_file"] is None else Plan.load(job["plan_file"])
    if usual is None and not rules and job["plan_file"] is None:
        raise NumericsError(
            "Missing option '--dtype': a format such as mxfp4 (`numerics formats`), a rule, or --plan"
        )
    spec, free = None, True
    usual, options = _with_words(usual, options)
    others = [*(spec for _, spec in rules), *(row.spec for row in (plan.rows if plan else ()))]
    stochastic = any(one.rounding == "stochastic" for one in others if one is not None)
    check_seed("stochastic" if stochastic else options["rounding"], job["seed"])
    if usual is not None:
        found = spec_arguments(**options, dtype=format_of(usual))
        scheme = found.get("scheme")
        free = "axis" not in found and (scheme is None or says_no_axis(scheme))
        spec = QuantSpec(found.pop("dtype"), **found)
    elif given := [name for name in OF_FORMATS if _is_given(name)]:
        raise NumericsError(
            f"--{given[0].replace('_', '-')} belongs to the format of all, and there is none; "
            "give --dtype FORMAT too, or say it in a rule, as 'PATTERN=FORMAT:SCHEME rounding=floor'"
        )
    request = Request(spec, rules, None, job["include"], job["exclude"], free, job["observer"])
    return request if plan is None else planned(request, plan, source)


def _is_given(option: str) -> bool:
    """Does the command line say that option, be it what it is by default?"""
    return click.get_current_context().get_parameter_source(option) is not ParameterSource.DEFAULT


def _with_words(usual: str | None, options: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The format and the options, with those that the format's own text says."""
    from numerics.tensor.words import words_in

    words = words_in(usual)
    if words is None:
        return usual, options
    found = dict(options)
    for name, value in words.items():
        option, value = ("asymmetric", not value) if name == "symmetric" else (name, value)
        if name != "dtype" and _is_given(option):
            raise NumericsError(f"--dtype {usual!r} says {name}, which --{option.replace('_', '-')} says too")
        found[option] = value
    return str(found.pop("dtype")), found


def memory(text: str) -> int:
    """Bytes of a text such as 64MB, 1.5GiB or 100000; raises NumericsError for another, and too few.

    >>> memory("64MB"), memory("1.5 GiB")
    (64000000, 1610612736)
    """
    from numerics.files.checkpoint import most

    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)", text.strip())
    if match is None or match[2].lower() not in UNITS or len(text) > 20:
        raise NumericsError(f"--max-memory {text!r} is no size; allowed: 64MB, 1.5GiB, bytes")
    found = int(float(match[1]) * UNITS[match[2].lower()])
    most(found)
    return found
