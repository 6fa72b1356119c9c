"""A slice of `make platforms`: generic x86-64 code gives the same bits, and differences are seen."""

from __future__ import annotations

import platform
import sys

import pytest

from tests.platforms import emulated
from tests.platforms.corpus import SECTIONS, cases
from tests.platforms.levels import LEVELS, level, native, oldest
from tests.platforms.run import Machine, differences

OPTIONS = ("--count", "16", "--slice", "40")
X86 = platform.machine() in ("x86_64", "AMD64")


@pytest.mark.turns
@pytest.mark.skipif(not X86, reason="another architecture's levels")
@pytest.mark.parametrize("section", ["elements float16", "blocks float32", "affine float16", "flushed"])
def test_generic_x86_gives_the_same_bits(tmp_path, section):
    due = native().run(section, tmp_path, OPTIONS)
    assert not differences(due, due)
    found = level("generic", LEVELS["generic"][0]).run(section, tmp_path, OPTIONS)
    assert not differences(found, due)


def test_every_section_has_cases():
    for section in SECTIONS:
        assert next(cases(section, 16, ("half_even",)))[0]
    assert set(emulated.SECTIONS) <= set(SECTIONS)


def test_differences_are_seen(tmp_path):
    due = {"a": "1", "b": "2", "tiny": "3", "flushed tiny": "3"}
    assert not differences(due, due)
    assert differences(due | {"b": "7"}, due) == ["b differs"]
    assert differences({"a": "1"}, {"a": "1", "b": "2"}) == ["b is missing"]
    flushed = due | {"flushed tiny": "4"}
    assert differences(flushed, flushed) == ["tiny differs under flush-to-zero"]
    crashed = Machine("crash", (sys.executable, "-c", "import os; os.abort()")).run("codes", tmp_path)
    assert crashed.startswith("SIGABRT in")
    assert differences(crashed, due) == [crashed]


def test_the_oldest_versions_are_those_that_are_promised():
    assert {"numpy==2.1", "numba==0.61", "click==8.1", "rich==13"} <= set(oldest())
