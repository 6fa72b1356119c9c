"""The page's blocks run as they stand, each alone, and our kernels answer what they ask of a host."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("torch")

from numerics.adapters import HOSTS
from tests.adapters.hosts import asked

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(1800)]
PAGE = Path(__file__).parents[2] / "docs" / "adapters.md"
BLOCKS = [
    block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    if ">>>" not in block
]  # fmt: skip


def host_of(block):
    (host,) = re.findall(r"^from numerics.adapters import (\w+)$", block, re.MULTILINE)
    return host


@pytest.mark.parametrize("block", BLOCKS, ids=host_of)
def test_a_block_of_the_page_runs_alone(block):
    asked(host_of(block))
    names = {"__name__": "block"}
    exec(compile(block, str(PAGE), "exec"), names)
    if "substituted" in block:
        assert names["calls"].ours.total(), names["calls"]
        assert not names["calls"].passed_on, names["calls"]


def test_every_host_has_a_block():
    assert {host_of(block) for block in BLOCKS} == set(HOSTS)
