"""A slice of the matrix: the page is what the data say, and what is installed here still says the same."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest

from numerics.conform.deviations.table import AFFINE_DIALECTS, DIALECTS
from tests.helpers.executors import LONG
from tests.peers.__main__ import DATA, PAGE
from tests.peers.claims import LIBRARIES
from tests.peers.judge import row
from tests.peers.known import known
from tests.peers.report import markdown

SAID = json.loads(DATA.read_text(encoding="utf-8"))
PEERS: dict[str, Any] = SAID["peers"]


def test_the_page_is_written_anew_whenever_the_data_or_its_words_change():
    assert PAGE.read_text(encoding="utf-8") == markdown(PEERS, SAID["machine"])


def test_every_library_is_there():
    assert list(PEERS) == list(LIBRARIES)
    assert all(peer["rows"] for peer in PEERS.values())


def test_every_answer_that_the_survey_listed_comes_out_as_listed():
    """An answer that a new judgement corrects is corrected in known.py, by hand and with a reason."""
    found = [(fact, fact.found(PEERS)) for fact in known()]
    assert len(found) >= 200
    assert [(fact, came) for fact, came in found if came != fact.answer] == []


def test_dialects_are_those_of_the_table():
    names = {dialect.name for dialect in (*DIALECTS, *AFFINE_DIALECTS)}
    heard = {name for peer in PEERS.values() for one in peer["rows"] for name in one.get("dialects", [])}
    assert heard <= names
    assert len(heard) >= 15


@pytest.mark.turns(6)
@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("name", ["ml_dtypes", "torch", "gfloat"])
def test_libraries_that_are_here_say_the_same(name):
    """Of every third claim of a short format, in `make verify` of each: verdict, dialects, answers."""
    library = LIBRARIES[name]
    if importlib.util.find_spec(library.imports) is None or library.version != PEERS[name]["version"]:
        pytest.skip(f"the page is of {name} {PEERS[name]['version']}")
    before = {(one["dtype"], one["kind"], one["call"]): one for one in PEERS[name]["rows"]}
    for claim in [*library.claims()][:: 1 if LONG else 3]:
        if str(claim.dtype) in ("bfloat16", "float16") or str(claim.dtype).startswith("mx"):
            continue  # seconds each
        came = row(claim)
        due = before[str(claim.dtype), claim.kind, claim.call]
        for part in ("verdict", "dialects", "law", "answers"):
            assert came.get(part) == due.get(part), (claim.call, part)
