"""What models are asked: items that are the same on every run, and answers that float mostly finds."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
import torch

from bench.tasks import ANSWERS, TASKS, docstrings, task
from numerics.formats.errors import NumericsError
from tests.helpers.pretrained import NEEDS, task_of


@pytest.mark.turns
@pytest.mark.parametrize("model", TASKS)
def test_a_model_in_float_is_right_more_often_than_chance(model):
    asked = task_of(model, 16)
    found = asked.run(asked.model)
    assert len(found.right) == len(found.choices) == 16
    assert found.right.sum() > (12 if model == "silero-vad" else 4)  # of two answers, or of many


@pytest.mark.turns
@pytest.mark.parametrize("model", TASKS)
def test_items_are_the_same_when_they_are_made_again(model):
    first, second = task_of(model, 8), task_of(model, 8)
    assert torch.equal(first.run(first.model).values, second.run(first.model).values)


def test_an_unknown_model_is_refused():
    with pytest.raises(NumericsError, match="crepe-tiny"):
        task("crepe", 2)


def test_more_items_than_there_are_are_refused(monkeypatch):
    monkeypatch.setattr("bench.tasks.docstrings", lambda: iter([("first", "rest")]))
    with pytest.raises(NumericsError, match="2 pairs of docstrings were asked for, and there are 1"):
        task("MiniLM", 2)


def test_a_docstring_is_an_item_once():
    firsts = [first for first, _ in zip((first for first, _ in docstrings()), range(200), strict=False)]
    assert len(set(firsts)) == len(firsts) == 200


def test_every_model_has_a_name_for_its_answers():
    assert set(ANSWERS) == set(TASKS) == set(NEEDS)
