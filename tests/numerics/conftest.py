"""What users call: tried on the host's own executors; tests/backends tries the others."""

from __future__ import annotations

import pytest

import numerics as nx


@pytest.fixture(params=("array", "cpu"))
def executor(request):
    """Runs the test on each."""
    with nx.use(request.param):
        yield request.param
