"""The gallery: what is committed is what `make gallery` draws, to the last pixel."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")
import matplotlib

from bench import gallery

ROOT = Path(__file__).parents[2]
PINNED = re.search(
    r"^matplotlib==(.+)$", (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8"), re.M
)


@pytest.mark.turns
@pytest.mark.parametrize("name", gallery.PICTURES)
def test_a_picture_that_is_committed_is_the_one_that_is_drawn(name, tmp_path):
    if matplotlib.__version__ != PINNED[1]:
        pytest.skip(f"matplotlib {matplotlib.__version__}: pictures are those of {PINNED[1]}")
    from matplotlib import image

    gallery.PICTURES[name][2]().save(tmp_path / "drawn.png")
    drawn, committed = (
        image.imread(p) for p in (tmp_path / "drawn.png", gallery.HERE / f"pictures/{name}.png")
    )
    assert np.array_equal(drawn, committed)


def test_the_page_says_in_words_what_is_on_every_picture():
    text = (gallery.HERE / "gallery.md").read_text(encoding="utf-8")
    alts = {name: draw().alt for name, (_, _, draw) in gallery.PICTURES.items()}
    assert text == gallery.page(alts)
