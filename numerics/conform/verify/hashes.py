"""The truth of every encoder and decoder as one hash each, shipped with the package in truth.json.

An encoder's hash is the sha256 of its runs over the float32 inputs in the order of their bits: for each
run the bits of its first input (uint32) and its code (uint16), little-endian; 0x80000000 begins a run.
A decoder's is the sha256 of the float32 bits (little-endian) of every code in turn, NaN as 0x7FC00000.
So a hash can be derived from any implementation by running it, without trusting anybody's reference.

Made by `python -m numerics.conform.verify.hashes`, from backends/reference.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from numerics.backends.host.executor import Codes
from numerics.backends.reference.executor import ReferenceExecutor, steps
from numerics.conform.vectors.operations import ElementOperation, every_code
from numerics.formats.dtype import Element
from numerics.formats.registry import dtypes
from numerics.formats.rounding import DETERMINISTIC

SIGN = np.uint32(1 << 31)
NAN = np.float32(np.nan)
RUN = np.dtype([("first", "<u4"), ("code", "<u2")])


@cache
def shipped() -> dict[str, str]:
    """The hash of every case, by its name.

    >>> shipped()["fp4 encode half_even saturate"][:16]
    'db82c3447c1fe7ef'
    """
    found: dict[str, str] = json.loads((files(__package__) / "truth.json").read_text(encoding="utf-8"))
    return found


def cases_of(dtype: Element) -> Iterator[ElementOperation]:
    """Its decoder, and its encoder in every deterministic rounding and overflow policy."""
    yield ElementOperation("decode", None, dtype, None)
    for rounding in DETERMINISTIC:
        for overflow in dtype.overflows:
            yield ElementOperation("encode", rounding, dtype, overflow)


def hash_of_runs(firsts: NDArray[np.uint32], codes: Codes) -> str:
    """The hash of an encoder: the bits of the first input of each run, and its code."""
    runs = np.empty(len(firsts), RUN)
    runs["first"], runs["code"] = firsts, codes
    return hashlib.sha256(runs.tobytes()).hexdigest()


def hash_of_values(values: NDArray[np.float32]) -> str:
    """The hash of a decoder: the value of every code."""
    plain = np.where(np.isnan(values), NAN, values)
    return hashlib.sha256(plain.astype("<f4").tobytes()).hexdigest()


def hash_of_reference(case: ElementOperation) -> str:
    """The hash of the exact judge."""
    d = case.dtype
    if case.name == "decode":
        return hash_of_values(ReferenceExecutor().decode(every_code(d), d))
    assert case.rounding is not None
    assert case.overflow is not None
    sides = [steps(d, case.rounding, case.overflow, negative) for negative in (False, True)]
    firsts = np.concatenate([sides[0][0], sides[1][0] | SIGN])
    return hash_of_runs(firsts, np.concatenate([codes for _, codes in sides]))


def main() -> None:
    """Writes the hashes of all formats to stdout."""
    elements = [d for d in dtypes() if isinstance(d, Element)]
    hashes = {str(case): hash_of_reference(case) for d in elements for case in cases_of(d)}
    sys.stdout.write(json.dumps(hashes, indent=0) + "\n")


if __name__ == "__main__":
    main()
