"""Every answer of a host with our kernels under it has the bits that the stock host gives."""

from __future__ import annotations

import importlib

import pytest

pytest.importorskip("torch")
from numerics.adapters import HOSTS
from tests.adapters.hosts import asked, same_bits

COMPARED = [host for host in HOSTS if host != "transformers"]


@pytest.mark.parametrize("host", COMPARED)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(1800)
def test_a_host_gives_the_same_bits_with_our_kernels(host):
    adapter = asked(host)
    cases = importlib.import_module(f"tests.adapters.cases.{host}").cases()
    wrong, ours, compared = [], 0, 0
    for name, call in cases:
        try:
            expected = call(False)
        except Exception:  # what the host refuses is not compared
            continue
        with adapter.substituted() as calls:
            actual = call(True)
        ours, compared = ours + bool(calls.ours), compared + 1
        if not same_bits(expected, actual):
            wrong.append(name)
    assert not wrong, f"{len(wrong)} of {compared}: {wrong[:9]}"
    assert ours > compared // 8, f"our kernels answered {ours} of {compared} calls"
    print(f"{host}: {compared} answers have the same bits; our kernels gave {ours}")
