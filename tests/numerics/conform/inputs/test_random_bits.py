"""Random bits beside arrays: what their places say is due is what the reference says of each number."""

from __future__ import annotations

import numpy as np
import pytest

import numerics as nx
from numerics.conform.inputs import random_bits
from numerics.conform.inputs.random_bits import GREATEST
from numerics.conform.task import Task
from numerics.formats.codebook import Codebook
from numerics.formats.dtype import Element

ELEMENTS = [d.name for d in nx.dtypes() if isinstance(d, Element)]


@pytest.mark.parametrize("draw", ["a30", "a8", "b8"])
@pytest.mark.parametrize("overflow", ["saturate", "nonsaturate"])
@pytest.mark.parametrize("name", ELEMENTS)
def test_a_threshold_said_another_answer_than_the_reference(name, overflow, draw):
    try:
        task = Task.of(name, rounding="stochastic", overflow=overflow, draw=draw)
    except nx.NumericsError as refused:
        pytest.skip(str(refused))
    x, _ = random_bits.elements(task.element)
    x = x[:: -(-len(x) // 3000)]
    known = random_bits.turning(task, x)
    if known is None:
        assert isinstance(task.element, Codebook), name
        return
    for bits in (
        random_bits.beside(known["threshold"], np.random.default_rng(7)),
        np.full(x.shape, GREATEST, np.uint32),
    ):
        random = task.drawing.narrow(bits)
        below = task.drawing.wide(random) < known["threshold"]
        due = np.where(below, known["below"], known["above"])
        assert not task.differs(due, np.asarray(task.answer(x, random))).any()


def test_random_bits_stand_at_thresholds_and_just_below_them():
    thresholds = random_bits.thresholds(nx.fp4, np.full(3000, 1.25, np.float32))
    bits = random_bits.beside(thresholds, np.random.default_rng(0)).astype(np.int64)
    assert (bits == thresholds).sum() > 900
    assert (bits == thresholds - 1).sum() > 900
    assert len(np.unique(bits)) > 900


def test_rule_c_has_thresholds_of_its_own():
    assert (
        random_bits.turning(Task.of("fp8_e4m3", rounding="stochastic", draw="c8"), np.float32([1.25])) is None
    )
