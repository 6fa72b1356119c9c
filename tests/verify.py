"""`make verify`: the long proofs, every case of them.

All scales of every MX element, all block exponents of mx4, mx6 and mx9, every deterministic rounding;
beside what `make test` proves.  About an hour and a half a core for half_even, eight times that for all
roundings; a rounding can be named:  python -m tests.verify half_even
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial

from rich.progress import Progress

from numerics.conform.sweep import Sweep
from numerics.formats.rounding import DETERMINISTIC
from tests.helpers.asked import add_names
from tests.helpers.proofs import MICRO, MX, prove_element, prove_micro


def cases(roundings: tuple[str, ...]) -> Iterator[tuple[str, Callable[[], Sweep]]]:
    """Every case, by name."""
    for rounding in roundings:
        for d in MX:
            for scale in range(255):
                yield f"{d} scale {scale} {rounding}", partial(prove_element, d, scale, rounding)
        for d in MICRO:
            for exponent in range(1, 255):
                for shift in (0, 1):
                    name = f"{d} exponent {exponent} microexponent {shift} {rounding}"
                    yield name, partial(prove_micro, d, exponent, shift, rounding)


def main(roundings: tuple[str, ...]) -> int:
    """Runs all cases on every core; returns how many failed."""
    os.environ["NUMERICS_NUM_THREADS"] = "1"
    named, failed, inputs = list(cases(roundings)), 0, 0
    with Progress() as progress, ProcessPoolExecutor() as pool:
        bar = progress.add_task("verify", total=len(named))
        running = {pool.submit(call): name for name, call in named}
        for done in as_completed(running):
            found = done.result(timeout=0)  # it is done
            inputs += found.inputs
            if found.mismatches:
                failed += 1
                progress.print(f"{running[done]}: {found}")
            progress.advance(bar)
    print(f"{len(named)} cases, {inputs:,} inputs, {failed} failed")
    return failed


def asked() -> tuple[str, ...]:
    """The roundings that the command line names; all where it names none."""
    options = argparse.ArgumentParser(
        prog="python -m tests.verify", description="The long proofs, every case."
    )
    add_names(options, "roundings", DETERMINISTIC, "ROUNDING")
    return tuple(options.parse_args().roundings)


if __name__ == "__main__":
    sys.exit(bool(main(asked())))
