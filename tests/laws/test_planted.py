"""Faults that nobody chose: changes of a source at every place, and conditions that were drawn."""

from __future__ import annotations

import pytest

from numerics.conform import check
from tests.helpers.mutants import SOURCES, differs, mutants, planted, right

MUTANTS = mutants()
NO_FAULT = {67, 105, 175, 183, 258, 83}
"""Seeds whose fault cannot show: NaN goes wrong where there is none, ties where there are none."""
DRAWN = [seed for seed in range(300) if seed not in NO_FAULT]


@pytest.mark.turns(12)
@pytest.mark.parametrize("name", SOURCES)
def test_the_sources_are_right(name):
    dtype, kind, _ = SOURCES[name]
    found = check(right(name), dtype, kind=kind)
    assert found, str(found)


@pytest.mark.turns(360)
@pytest.mark.parametrize("word", MUTANTS)
def test_a_change_of_one_place_passed(word):
    """Those that change nothing, on inputs that the judge does not know, are no faults."""
    name, kernel = MUTANTS[word]
    dtype, kind, _ = SOURCES[name]
    assert not check(kernel, dtype, kind=kind) or not differs(name, kernel)


@pytest.mark.turns(300)
@pytest.mark.parametrize("seed", DRAWN)
def test_a_fault_that_was_drawn_passed(seed):
    word, kernel = planted(seed)
    assert not check(kernel, "fp8_e4m3"), word


def test_there_are_three_hundred_of_each():
    assert len(MUTANTS) > 300
    assert len(DRAWN) > 290
