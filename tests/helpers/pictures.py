"""Pictures that are committed, beside the same drawn again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PINNED = re.search(
    r"^matplotlib==(.+)$", (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8"), re.M
)


def assert_same_pixels(picture: Any, committed: Path, folder: Path) -> None:
    """A picture is the committed one, drawn by the matplotlib that is pinned; folder: for the drawn one."""
    import matplotlib

    if matplotlib.__version__ != PINNED[1]:
        pytest.skip(f"matplotlib {matplotlib.__version__}: pictures are those of {PINNED[1]}")
    from matplotlib import image

    picture.save(folder / "drawn.png")
    assert np.array_equal(image.imread(folder / "drawn.png"), image.imread(committed))
