"""How a call flows through the house, its caches warm: how often it changes file, and whom it asks.

Counts, never times.  A number that falls is welcome: lower the limit.  One that rises says that a layer
only hands on, or that something below climbs back up.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

import numerics as nx

HERE = Path(nx.__file__).parent
ARRAY = np.random.default_rng(3).standard_normal((8, 256)).astype(np.float32)
TENSOR = torch.from_numpy(ARRAY)
GROUPS = nx.per_group(128)
MATRIX = nx.quantize(TENSOR, "mxfp4")
FLOWS = {  # the call, and how often it may change file
    "encode": (lambda: nx.fp8_e4m3.encode(ARRAY), 12),
    "encode, torch": (lambda: nx.fp8_e4m3.encode(TENSOR), 23),
    "encode in blocks": (lambda: nx.mxfp4.encode(ARRAY), 24),
    "quantize": (lambda: nx.quantize(ARRAY, "int4", scheme=GROUPS), 27),
    "quantize, torch": (lambda: nx.quantize(TENSOR, "int4", scheme=GROUPS), 35),
    "fake_quantize, torch": (lambda: nx.fake_quantize(TENSOR, "int4", scheme=GROUPS), 34),
    "fake_quantize in blocks, torch": (lambda: nx.fake_quantize(TENSOR, "mxfp4"), 39),
    "dequantize": (nx.quantize(ARRAY, "int4", scheme=GROUPS).dequantize, 16),
    "dequantize, torch": (nx.quantize(TENSOR, "int4", scheme=GROUPS).dequantize, 25),
    "functional.linear, torch": (lambda: torch.nn.functional.linear(TENSOR[:1], MATRIX), 35),
    "linear, torch": (lambda: nx.linear(TENSOR[:1], MATRIX), 43),
}


def calls_of(call: Callable[[], object]) -> list[tuple[str, str]]:
    """The file and the name of every function of ours that runs, in their order."""
    found: list[tuple[str, str]] = []

    def seen(frame, event, _):
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(str(HERE)):
            found.append((str(Path(file).relative_to(HERE)), frame.f_code.co_name))

    for _ in range(3):
        call()
    sys.setprofile(seen)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize("name", FLOWS)
def test_a_call_goes_from_file_to_file_no_more_often_than_this(name):
    call, most = FLOWS[name]
    files = [file for file, _ in calls_of(call)]
    changes = 1 + sum(here != there for here, there in pairwise(files))
    assert changes <= most


@pytest.mark.parametrize("name", FLOWS)
def test_the_owner_of_data_is_asked_once(name):
    assert [function for _, function in calls_of(FLOWS[name][0])].count("owner") == 1


@pytest.mark.parametrize("name", [name for name in FLOWS if "quantize" in name])
def test_nothing_climbs_back_to_where_the_request_was_made(name):
    files = [file for file, _ in calls_of(FLOWS[name][0])]
    entered = [here for here, before in zip(files, ["", *files], strict=False) if here != before]
    assert entered.count(str(Path("quantization.py"))) == (not name.startswith("dequantize"))
