"""Adapters against what hosts answered when they were asked (tests/data/adapters.json), without the hosts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
from numerics.adapters import microxcaling
from tests.helpers import adapter_slice
from tests.helpers.adapter_slice import digest, exact_exponents

RECORDED = json.loads((Path(__file__).parents[1] / "data" / "adapters.json").read_text(encoding="utf-8"))


def test_every_recorded_answer_is_compared():
    assert set(adapter_slice.ours()) == set(RECORDED)


@pytest.mark.parametrize("name", RECORDED)
def test_our_kernels_give_what_the_host_gave(name, monkeypatch):
    monkeypatch.setattr(microxcaling, "_shared_exponents", exact_exponents)
    assert digest(adapter_slice.ours()[name]()) == RECORDED[name]
