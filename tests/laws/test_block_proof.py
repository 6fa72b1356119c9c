"""Blocks: every maximum, every element at many scales, every code at many exponents.

The cases here are a slice of `make verify`, which has all scales and exponents (tests/verify.py).
`make test` tries a fourth of the slice, by turns: a format, rule, scale or exponent on every input, each
pair of them in every rounding on the inputs that decide; `make verify` all of it, on every input.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from numerics.formats.rounding import DETERMINISTIC, MX_RULES
from tests import verify
from tests.helpers.children import LIMIT
from tests.helpers.proofs import (
    LONG,
    MICRO,
    MX,
    near_steps,
    prove_element,
    prove_micro,
    prove_scale,
    prove_tiered_element,
    prove_tiered_scale,
)

SCALES = (0, 1, 2, 127, 200, 254)
EXPONENTS = (1, 2, 23, 127, 254)


def in_turn(first: int, second: int, of: int) -> bool:
    """Is this pair's turn to be tried on every input?"""
    return LONG or first % of == second % of


@pytest.mark.turns(8)
@pytest.mark.proof
@pytest.mark.parametrize("rule", MX_RULES)
@pytest.mark.parametrize("dtype", MX, ids=repr)
def test_every_block_maximum(dtype, rule):
    found = prove_scale(dtype, rule, near_steps)
    assert found.mismatches == 0, str(found)
    if in_turn(MX.index(dtype), MX_RULES.index(rule), len(MX_RULES)):
        found = prove_scale(dtype, rule)
        assert found.inputs == 1 << 31
        assert found.mismatches == 0, str(found)


@pytest.mark.turns(8)
@pytest.mark.proof
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", MX, ids=repr)
def test_every_element_at_a_scale(dtype, scale):
    """half_even at each scale; at the ends one other mode too: they take turns over the formats."""
    for rounding in DETERMINISTIC:
        found = prove_element(dtype, scale, rounding, near_steps)
        assert found.mismatches == 0, f"{rounding}: {found}"
    other = DETERMINISTIC[1:][(MX.index(dtype) + (scale == 254)) % 7]
    roundings = ("half_even", other) if LONG and scale in (0, 254) else ("half_even",)
    for rounding in roundings if in_turn(MX.index(dtype), SCALES.index(scale), len(SCALES)) else ():
        found = prove_element(dtype, scale, rounding)
        assert found.inputs == 2 * 0x7F800000
        assert found.mismatches == 0, f"{rounding}: {found}"


@pytest.mark.turns(8)
@pytest.mark.proof
@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("dtype", MICRO, ids=repr)
def test_every_element_at_a_block_exponent(dtype, exponent):
    for rounding in DETERMINISTIC:
        for shift in (0, 1):
            found = prove_micro(dtype, exponent, shift, rounding, near_steps)
            assert found.mismatches == 0, f"{rounding}, microexponent {shift}: {found}"
    other = DETERMINISTIC[1:][(MICRO.index(dtype) + 3 * (exponent == 254)) % 7]
    roundings = ("half_even", other) if LONG and exponent in (1, 254) else ("half_even",)
    for rounding in roundings if in_turn(MICRO.index(dtype), EXPONENTS.index(exponent), len(MICRO)) else ():
        for shift in (0, 1):
            found = prove_micro(dtype, exponent, shift, rounding)
            assert found.mismatches == 0, f"{rounding}, microexponent {shift}: {found}"


@pytest.mark.turns(8)
@pytest.mark.proof
@pytest.mark.parametrize(("scale", "up"), [(0, 0), (1, 2), (192, 1), (201, 0), (254, 2)])
def test_every_element_under_two_tiers(scale, up):
    """hifloat4: its scale for every maximum, and elements under some scales, in every rounding."""
    assert prove_tiered_scale(near_steps).mismatches == 0
    for rounding in DETERMINISTIC:
        found = prove_tiered_element(scale, up, rounding, near_steps)
        assert found.mismatches == 0, f"{rounding}: {found}"
    if LONG or scale == 192:
        found = prove_tiered_scale()
        assert (found.inputs, found.mismatches) == (1 << 31, 0), str(found)
        found = prove_tiered_element(scale, up, "half_even")
        assert (found.inputs, found.mismatches) == (2 * 0x7F800000, 0), str(found)


def answer(*command):
    """The exit code of a command of the tests, and what it said."""
    run = [sys.executable, "-m", *command]
    found = subprocess.run(run, capture_output=True, text=True, timeout=LIMIT)
    return found.returncode, found.stdout + found.stderr


def test_a_word_that_is_no_rounding_began_the_proofs_and_was_a_key_error():
    code, said = answer("tests.verify", "--help")
    assert code == 0
    assert ", ".join(DETERMINISTIC) in " ".join(said.split())
    for word in ("half_evn", "stochastic", ""):
        code, said = answer("tests.verify", "half_even", word)
        assert code == 2
        assert "Traceback" not in said
        assert "half_even" in said.partition("choose from")[2]


@pytest.mark.parametrize("command", ["tests.peers", "tests.adapters.timing", "tests.adapters.suites ."])
def test_a_name_that_is_none_ran_nothing_or_all(command):
    pytest.importorskip("torch")
    code, said = answer(*command.split(), "nobody")
    assert code == 2
    assert "invalid choice: 'nobody' (choose from" in said


def test_no_name_was_refused_by_python_3_11_and_is_all_of_them(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["verify"])
    assert verify.asked() == DETERMINISTIC
    monkeypatch.setattr(sys, "argv", ["verify", "half_even", "floor"])
    assert verify.asked() == ("half_even", "floor")
    for command in ("peers/__main__.py", "adapters/timing.py", "adapters/suites.py"):
        code = (Path(verify.__file__).parent / command).read_text(encoding="utf-8")
        assert "add_names(options" in code
        assert "choices=" not in code
