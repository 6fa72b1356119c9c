"""Single inputs on which libraries disagree, and what each of them makes of these."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

import numerics as nx
from numerics.conform.checking import asked
from numerics.conform.targets.faults import Fault
from numerics.conform.task import Fields
from tests.peers.claims import Claim

INF, NAN = float("inf"), float("nan")
LARGEST = float(np.finfo(np.float32).max)


def below(x: float) -> float:
    """The float32 number before x, toward zero."""
    return float(np.nextafter(np.float32(x), np.float32(0)))


def above(x: float) -> float:
    """The float32 number after x, away from zero."""
    return float(np.nextafter(np.float32(x), np.float32(np.copysign(np.inf, x))))


ELEMENTS: dict[str, dict[str, float]] = {
    "fp8_e4m3": {"464": 464, "464.01": 464.01, "Inf": INF, "NaN": NAN, "2^-10": 2.0**-10, "-0": -0.0,
                 "17": 17},
    "e4m3_ieee": {"300": 300, "464.01": 464.01, "Inf": INF, "NaN": NAN, "2^-10": 2.0**-10, "-0": -0.0,
                  "17": 17},
    "fp8_e5m2": {"61440": 61440, "65536": 65536, "Inf": INF},
    "fp4": {".25": 0.25, ".75": 0.75, "1.25": 1.25, "1.75": 1.75, "2.5": 2.5, "3.5": 3.5, "5": 5, "NaN": NAN,
            "-0": -0.0, "-.1": -0.1, "below .25": below(0.25)},
    "bfloat16": {"1+2^-8": 1 + 2.0**-8, "2^-133": 2.0**-133, "largest float32": LARGEST},
    "e8m0": {".75": 0.75, "1.5": 1.5, "3": 3, "0": 0, "-1": -1},
}  # fmt: skip
"""Inputs of single numbers, by format."""

BLOCKS: dict[str, dict[str, tuple[float, ...]]] = {
    "mxfp4": {
        "6": (6,), "6.5": (6.5,), "7": (7,), "7.9": (7.9,), "3.1": (3.1,), "below 8": (below(8),),
        "below 2^101": (below(2.0**101),), "above 6*2^10": (above(6 * 2.0**10),), "zeros": (0,),
        "Inf, 1": (INF, 1), "NaN, 1": (NAN, 1), "largest float32": (LARGEST,), ".25 of 4": (4, 0.25),
    },
    "mxfp8_e4m3": {"448": (448,), "449": (449,), "500": (500,), "zeros": (0,), "Inf, 1": (INF, 1),
                   "NaN, 1": (NAN, 1)},
    "mxint8": {"1": (1,), "1.999": (1.999,), "-1.999": (-1.999,)},
    "mx6": {"1 .9 .4 .3": (1, 0.9, 0.4, 0.3), "Inf, 1": (INF, 1)},
    "mx9": {"1 .9 .4 .3": (1, 0.9, 0.4, 0.3), "Inf, 1": (INF, 1)},
}  # fmt: skip
"""The first numbers of blocks, zeros after them, by format."""


def answers(claim: Claim) -> dict[str, str]:
    """What a claim makes of the inputs that are asked of its format, as text."""
    name = str(claim.dtype)
    if claim.kind not in ("encode", "round"):
        return {}
    if name in ELEMENTS:
        return {said: _element(claim, x) for said, x in ELEMENTS[name].items()}
    return {said: _block(claim, numbers) for said, numbers in BLOCKS.get(name, {}).items()}


def _element(claim: Claim, x: float) -> str:
    tested = asked(claim.kernel, claim.dtype, kind=claim.kind, **claim.options).target
    try:
        came = tested.elements(np.array([x], np.float32))
    except Fault as fault:
        return f"raises: {fault.found.came[:40]}"
    value = came if claim.kind == "round" else tested.task.values(came)
    return _number(float(value[0]))


def _block(claim: Claim, numbers: tuple[float, ...]) -> str:
    d = nx.dtype(claim.dtype)
    row = np.zeros((1, d.block), np.float32)
    row[0, : len(numbers)] = numbers
    tested = asked(claim.kernel, claim.dtype, kind=claim.kind, **claim.options).target
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            came = tested.blocks(row)
    except Fault as fault:
        return f"raises: {fault.found.came[:40]}"
    byte = ""
    if isinstance(came, Fields):
        byte, came = f"{int(came.scale[0, 0])}: ", tested.task.block_values(came)
    shown: Any = came[0, : len(numbers)]
    return byte + " ".join(_number(float(value)) for value in shown)


def _number(value: float) -> str:
    return f"{value:.9g}"
