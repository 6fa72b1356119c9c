"""Two processes: QTensors cut, sent, gathered, and as FSDP2 parameters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_two_ranks():
    worker = Path(__file__).parents[2] / "helpers" / "two_ranks.py"
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(worker)]
    found = subprocess.run(run, capture_output=True, text=True, timeout=300)
    assert found.stdout.count("both done") == 2, found.stderr[-4000:]
