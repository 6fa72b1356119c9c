"""What is hunted: for each target, a strategy of cases."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz.pools import Texts
from tests.fuzz.targets.api import api
from tests.fuzz.targets.damaged import files, pickles, pipes
from tests.fuzz.targets.equal import differential, threads
from tests.fuzz.targets.tensors import tensors

TARGETS: dict[str, Callable[[], Texts]] = {
    "api": api,
    "tensors": tensors,
    "files": files,
    "pickles": pickles,
    "pipes": pipes,
    "differential": differential,
    "threads": threads,
}
