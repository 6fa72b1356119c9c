"""The gallery: what is committed is what `make gallery` draws, to the last pixel."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")
from bench import gallery
from tests.helpers.pictures import assert_same_pixels


@pytest.mark.turns
@pytest.mark.parametrize("name", gallery.PICTURES)
def test_a_picture_that_is_committed_is_the_one_that_is_drawn(name, tmp_path):
    assert_same_pixels(gallery.PICTURES[name][2](), gallery.HERE / f"pictures/{name}.png", tmp_path)


def test_the_page_says_in_words_what_is_on_every_picture():
    text = (gallery.HERE / "gallery.md").read_text(encoding="utf-8")
    alts = {name: draw().alt for name, (_, _, draw) in gallery.PICTURES.items()}
    assert text == gallery.page(alts)
