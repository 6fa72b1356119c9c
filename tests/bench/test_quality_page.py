"""The page says what the rows say, and no more."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("scipy")
import numerics as nx
from bench.quality_page import ABOUT, _families, markdown, of_most_items, write_page
from bench.tasks import TASKS
from tests.helpers.quality_rows import row


def test_the_page_shows_the_best_first_and_leaves_out_runs_on_fewer_items():
    rows = [row(), row(format="mx9", sqnr=50.0), row(format="mx6", items=10), row(format="mx4", sqnr=np.nan)]
    assert [found.format for found in of_most_items(rows)] == ["mx9", "mxfp4", "mx4"]
    text = markdown({"crepe-tiny": of_most_items(rows)})
    assert text.index("`mx9`") < text.index("`mxfp4`")
    assert "| 90.0 [82.6 .. 94.5] | -3.0 [-10.2 .. +4.2] | 0.58 | 15.0, 18.0 |" in text
    assert "float itself is right on 60.0 % [50.2 .. 69.1]" in text


def test_the_pictures_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    write_page([row(), row(mode="W+A", sqnr=15.0), row(model="g2p_en")], tmp_path / "page.md")
    drawn = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert drawn == ["quality_agreement.png", "quality_sqnr.png"]
    for name in drawn:
        assert f"(pictures/{name})" in (tmp_path / "page.md").read_text(encoding="utf-8")


def test_every_format_is_drawn_and_none_twice():
    """Those of no family (if4, nvint4, nf4, hifloat8) were named in the pictures, and had no dot."""
    names = [str(d) for d in nx.dtypes()]
    names += [
        f"{d} {how}" for d in names for how in ("per_tensor", "per_channel asymmetric", "per_group(64)")
    ]
    rows = [row(format=name) for name in names]
    families = list(_families(rows))
    assert sorted(r.format for _, _, members in families for r in members) == sorted(names)
    of = {r.format: family for family, _, members in families for r in members}
    assert of["mx6"] != of["mxfp6_e2m3"]
    assert len({of[f"int8 {how}"] for how in ("per_tensor", "per_channel asymmetric", "per_group(64)")}) == 3
    assert of["if4"] == of["nvint4"] == of["nvfp4"]
    assert len({colour for _, colour, _ in families}) == len(families)


def test_every_model_is_explained():
    assert set(ABOUT) == set(TASKS)
