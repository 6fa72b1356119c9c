"""Marks of tests."""

from __future__ import annotations

import pytest

either_sign = pytest.mark.filterwarnings("ignore:.*negative and become:numerics.NumericsWarning")
"""The test gives unsigned formats numbers of either sign; what is said of it has tests of its own."""
