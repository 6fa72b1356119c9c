"""The other process of a judged target: what `python -c` runs there (isolation.py)."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np

from numerics.conform.checking import check
from numerics.conform.isolation import ANSWER, ASKED, LAST, Sent, sent
from numerics.conform.target import watch
from numerics.formats.errors import NumericsError


def child() -> None:
    """The other process: judges, writes its answer, and notes before each call what is given."""
    room = Path(sys.argv[1])
    target, options, paths = pickle.loads((room / ASKED).read_bytes())
    sys.path[:] = ["", *paths]

    def note(inputs: tuple[Any, ...]) -> None:
        arrays = [x for x in inputs if isinstance(x, np.ndarray)]
        if arrays:
            np.save(room / LAST, arrays[0])

    watch(note)
    try:
        answer: Sent | NumericsError = sent(check(target, **options))
    except NumericsError as wrong:
        answer = NumericsError(str(wrong))
    half = room / f"{ANSWER}.half"
    half.write_bytes(pickle.dumps(answer))
    os.replace(half, room / ANSWER)
