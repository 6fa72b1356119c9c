"""Every answer of a host with our kernels under it has the bits that the stock host gives."""

from __future__ import annotations

import contextlib
import importlib
from collections import Counter
from itertools import islice

import pytest

pytest.importorskip("torch")
from numerics.adapters import HOSTS
from tests.adapters.hosts import asked, same_bits

COMPARED = [host for host in HOSTS if host != "transformers"]

AT_ONCE = 200  # cases between an install and its uninstall, which look at every name of a host


def answered(cases):
    """The next cases with the stock host's answers; those that it refuses are left out."""
    found = []
    for name, call in cases:
        with contextlib.suppress(Exception):  # what the host refuses is not compared
            found.append((name, call, call(False)))
    return found


@pytest.mark.parametrize("host", COMPARED)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(1800)
def test_a_host_gives_the_same_bits_with_our_kernels(host):
    adapter = asked(host)
    cases = importlib.import_module(f"tests.adapters.cases.{host}").cases()
    wrong, compared, ours, names = [], 0, 0, Counter()
    while batch := list(islice(cases, AT_ONCE)):
        taken = answered(batch)
        with adapter.substituted() as calls:
            for name, call, expected in taken:
                before = calls.ours.total()
                if not same_bits(expected, call(True)):
                    wrong.append(name)
                ours += calls.ours.total() > before
            names += calls.ours
        compared += len(taken)
    assert not wrong, f"{len(wrong)} of {compared}: {wrong[:9]}"
    assert ours > compared // 8, f"our kernels answered {ours} of {compared} calls"
    print(f"{host}: {compared} answers have the same bits; our kernels gave {ours}: {dict(names)}")
