"""Adapters against what hosts answered when they were asked (tests/data/adapters.json), without the hosts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch

from numerics.adapters import microxcaling
from numerics.adapters.base import Calls
from tests.helpers import adapter_slice
from tests.helpers.adapter_slice import digest, exact_exponents, refuses

RECORDED = json.loads((Path(__file__).parents[1] / "data" / "adapters.json").read_text(encoding="utf-8"))


def test_every_recorded_answer_is_compared():
    assert set(adapter_slice.ours()) == set(RECORDED)


@pytest.mark.parametrize("name", RECORDED)
def test_our_kernels_give_what_the_host_gave(name, monkeypatch):
    monkeypatch.setattr(microxcaling, "_shared_exponents", exact_exponents)
    assert digest(adapter_slice.ours()[name]()) == RECORDED[name]


@pytest.mark.parametrize(("name", "rounding"), [("nearest", 0), ("even", 2)])
def test_blocks_of_microxcalings_take_one_pass_along_the_last_axis(name, rounding, monkeypatch):
    monkeypatch.setattr(microxcaling.Functions, "blocks", refuses)
    rows, d = adapter_slice.X.view(-1, 32), microxcaling._format(8, 0, 127 / 64)
    made = microxcaling.Functions(False, Calls()).rows(rows, d, (8, False, rounding))
    assert digest(made.view_as(adapter_slice.X)) == RECORDED[f"microxcaling mx int8 {name}"]


def test_what_microxcalings_logarithm_takes_for_2_to_the_128_is_asked_of_microxcaling(monkeypatch):
    """A block of bfloat16 whose largest lies just below a power of two: it gives NaN, we gave a number."""
    came = []

    def of_host(x, *_, **__):
        came.append(x.tolist())
        return x * torch.nan

    monkeypatch.setattr(microxcaling, "_of_host", of_host)
    x = torch.tensor([1.0, 2.0**127 * (2 - 2.0**-23), -(2.0**126), 0.5])
    bfloat16 = microxcaling._format(9, 8, 2.0**127 * (2 - 2.0**-7))
    made = microxcaling._on_grid(x.clone(), bfloat16, 2, correct=False)
    assert came == [x[1:3].tolist()]
    assert made.isnan().tolist() == [False, True, True, False]
