"""Intervals are those of the papers."""

from __future__ import annotations

import doctest

import pytest

pytest.importorskip("scipy")
from bench import intervals


def test_examples_of_intervals_hold():
    assert doctest.testmod(intervals).failed == 0


def test_nothing_gained_and_nothing_lost_has_a_width():
    difference, low, high = intervals.paired(60, 0, 0, 100)
    assert difference == 0
    assert low < 0 < high


def test_an_interval_of_more_items_is_shorter():
    few, many = intervals.paired(60, 5, 8, 100), intervals.paired(600, 50, 80, 1000)
    assert few[1] < many[1] < many[0] < many[2] < few[2]
