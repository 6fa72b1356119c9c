"""Do two threads meet within a product, where Python does not turn from one to the other?"""

from __future__ import annotations

from time import sleep

import numpy as np
import pytest

from numerics.conform.products.asking import ProductTarget
from numerics.conform.products.cases import tiles
from numerics.conform.products.cases.maker import Maker
from numerics.conform.products.circumstances.together import at_once_of_itself
from numerics.conform.products.claim import Claim

CLAIM = Claim.of("float32", "float32")
ROOM = np.empty(1 << 20, np.float32)


def right(a, b):
    with np.errstate(all="ignore"):
        return a @ b.T


def in_a_shared_room(a, b):
    """b is copied to memory that all calls share, and multiplied, in one line, while another thread runs."""
    room = ROOM[: b.size].reshape(b.shape)
    np.copyto(room, b); sleep(0.002); return right(a, room)  # fmt: skip # noqa: E702


@pytest.fixture(scope="module")
def medium():
    maker, shape = Maker(CLAIM, np.random.default_rng(0)), (64, 261, 384)
    return tiles.scattered(maker, shape, maker.long(tiles.of_few(shape))).scattered()


@pytest.mark.parametrize("kernel", [right, in_a_shared_room])
def test_a_room_of_two_threads_that_is_filled_and_read_in_one_line_passed(kernel, medium):
    target = ProductTarget(kernel, CLAIM)
    seen = [target.see(medium)]
    assert not seen[0].wrong.any()
    asked = (at_once_of_itself(target, seen) is not None for _ in range(1 if kernel is right else 8))
    assert any(asked) == (kernel is in_a_shared_room)


def test_small_products_are_left_to_turns_of_python(medium):
    target = ProductTarget(right, CLAIM)
    assert at_once_of_itself(target, [target.see(medium.cut([0], [0, 1]))]) is None
