"""How a figure is made: ours, the memory ceiling and the peers in turn, round after round.

A figure is a ratio within a round; the median of the rounds is quoted.  So a neighbour's load, which
comes and goes, weighs on both sides alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

SAMPLE = 2e-3  # seconds that a sample should last; short calls are repeated within it
SIZES = (1 << 10, 1 << 14, 1 << 18, 1 << 20, 1 << 23, 1 << 26)  # elements
PATIENCE = 4.0  # seconds a call may take; slower peers run once, on fewer elements


@dataclass
class Contest:
    """One case at one size.

    ours: the call; bytes: read and written by it.  ceiling: moves as many bytes and computes nothing.
    peers: name to call, or to the reason why there is none; peer_share: the part of the elements
    that a peer's call works on.
    """

    ours: Callable[[], object]
    bytes: int
    ceiling: Callable[[], object]
    ceiling_bytes: int
    peers: dict[str, Callable[[], object] | str] = field(default_factory=dict)
    peer_share: float = 1.0


@dataclass(frozen=True)
class Row:
    """What was measured: medians.  A peer's ratio is its time over ours for the same elements."""

    case: str
    elements: int
    threads: int
    seconds: float
    of_ceiling: float
    spread: tuple[float, float]  # of_ceiling, the lowest and the highest round
    peers: dict[str, float | str]

    @property
    def rate(self) -> float:
        """Elements a second, in G."""
        return self.elements / self.seconds / 1e9

    @property
    def lost(self) -> list[str]:
        """Peers that were faster."""
        return [name for name, ratio in self.peers.items() if isinstance(ratio, float) and ratio < 1]


def once(call: Callable[[], object], repeats: int) -> float:
    """Seconds a call, over `repeats` calls."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def repeats(call: Callable[[], object]) -> int:
    """Calls that make up a sample; the first call warms up and is not counted."""
    call()
    return max(1, int(SAMPLE / max(once(call, 1), 1e-7)))


def run(case: str, elements: int, threads: int, contest: Contest, rounds: int) -> Row:
    """Measures a contest, interleaved."""
    runners: dict[str, Callable[[], object]] = {"ours": contest.ours, "ceiling": contest.ceiling}
    runners |= {name: call for name, call in contest.peers.items() if callable(call)}
    counts = {name: repeats(call) for name, call in runners.items()}
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, call in runners.items():
            if name in ("ours", "ceiling") or not times[name] or median(times[name]) < PATIENCE / 4:
                times[name].append(once(call, counts[name]))
    per_byte = contest.bytes / contest.ceiling_bytes
    shares = [c * per_byte / o for c, o in zip(times["ceiling"], times["ours"], strict=True)]
    ours = median(times["ours"])
    found: dict[str, float | str] = {
        name: call if isinstance(call, str) else median(times[name]) / contest.peer_share / ours
        for name, call in contest.peers.items()
    }
    spread = (min(shares), max(shares))
    return Row(case, elements, threads, ours, median(shares), spread, found)
