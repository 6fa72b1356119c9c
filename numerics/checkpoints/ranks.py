"""Which shards a process does: by RANK and WORLD_SIZE, as torchrun and other launchers set them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from numerics.formats.errors import NumericsError


class Work(Protocol):
    """One file of a job, made of others."""

    @property
    def name(self) -> str:
        """Of the file in the output."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of what it is made of."""
        ...

    @property
    def stamp(self) -> dict[str, Any]:
        """What a journal knows by: another stamp says that it is made of something else."""
        ...


Some = TypeVar("Some", bound=Work)


@dataclass(frozen=True)
class Ranks:
    """One of so many processes that share a job.  They need no network: a folder that all of them see."""

    rank: int = 0
    world: int = 1

    @classmethod
    def of_environment(cls) -> Ranks:
        """As the launcher says; one of one where there is none.  Raises NumericsError for what cannot be."""
        told = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
        if told == (None, None):
            return cls()
        try:
            rank, world = (int(text or "") for text in told)
        except ValueError:
            rank, world = 0, 0
        if not 0 <= rank < world:
            raise NumericsError(
                f"RANK={told[0]} and WORLD_SIZE={told[1]} are no rank of a job; allowed: 0 .. WORLD_SIZE-1, "
                "as torchrun sets them, or neither"
            )
        return cls(rank, world)

    def check_alone(self, path: Path) -> None:
        """Raises NumericsError, naming it, where several processes would make one file."""
        if self.world > 1:
            raise NumericsError(
                f"{path} is one file, which ranks cannot share; give a folder, or one process"
            )

    def share(self, shards: Sequence[Some]) -> list[Some]:
        """The shards of this rank: the largest first, each to the rank that has the fewest bytes.

        Every rank finds the same shares, so that nobody needs to be asked.
        """
        loads = [0] * self.world
        own = []
        for shard in sorted(shards, key=lambda shard: (-shard.nbytes, shard.name)):
            rank = loads.index(min(loads))
            loads[rank] += shard.nbytes
            if rank == self.rank:
                own.append(shard)
        return own
