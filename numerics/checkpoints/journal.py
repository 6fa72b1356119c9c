"""The journal of a job: which shards of an output are done, and by what; so that a killed job goes on.

While a job runs, its output folder has a folder `.numerics`: `job.json` says which job it is, `lock` is held
by the process that leads it, and `<shard>.json` tells of each shard that is whole: it is written before the
shard gets its name, so that one which has its name is known, whenever the job was killed.  When all are done
`numerics_job.json` tells the same in one file, and the folder is removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from numerics._version import __version__
from numerics.checkpoints.beside import RECORD, hashes_beside
from numerics.checkpoints.ranks import Ranks, Work
from numerics.files.folders import made_folder
from numerics.files.replacement import DANGLING, lock, refuse_file_for_folder, refuse_same_file, replace_file
from numerics.files.signals import terminable
from numerics.formats.errors import NumericsError, said
from numerics.formats.text import json_in
from numerics.view.text import folded

FOLDER = ".numerics"
VERSION = 1
POLL = 0.05  # seconds between two looks for what other ranks did
BEGIN = 600.0  # seconds in which rank 0 must have begun
HASHED = 1 << 20  # bytes at a time


class Journal:
    """The journal of one output folder, as a context: it holds the lock where this process leads the job.

    Raises NumericsError where another job is at work on the folder or left it unfinished, where the folder
    holds something else, and where another rank failed.  An error inside gets a note that says how many
    shards are done; where nothing is, nothing of the job is left.

    parts: what makes the job the one that it is, each under the words that a person knows it by.
    """

    def __init__(self, target: Path, parts: Mapping[str, Any], ranks: Ranks, shards: Sequence[Work]) -> None:
        self.target, self.parts, self.ranks, self.shards = target, parts, ranks, shards
        self.job = digest_of(parts)
        self.folder = target / FOLDER
        self._lock: int | None = None
        self._began = 0
        self._ours = False  # the folder is of this job, and no other process leads it

    def __enter__(self) -> Journal:
        try:
            self._begin() if self.ranks.rank == 0 else self._await_begin()
        except OSError as wrong:
            self._put_away()
            raise NumericsError(f"cannot write {self.target}: {wrong.strerror or wrong}") from wrong
        except BaseException:
            self._put_away()
            raise
        return self

    def _put_away(self) -> None:
        """Removes a folder of the journal that stands for nothing; the lock goes with it, or after it."""
        with suppress(OSError):
            if self._ours and self.ranks.world == 1 and os.listdir(self.target) == [FOLDER]:
                self.clear()
        self._release()

    def _note_on(self, error: BaseException) -> None:
        """Adds to an error how far the job is, where the same call goes on from there."""
        done = sum(self.entry(shard) is not None for shard in self.shards) if self._ours else 0
        if done:
            error.add_note(
                f"{done} of {len(self.shards)} shards are done in {self.target}; the same command goes on"
            )

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and self.ranks.world > 1:
            with suppress(OSError, NumericsError):
                replace_file(self._failed(self.ranks.rank), f"{error or kind}".encode())
        if error is not None:
            self._note_on(error)
            self._put_away()
        self._release()

    # ---- begin ------------------------------------------------------------------------------------

    def check(self, source: Path) -> None:
        """Raises NumericsError, and changes nothing, where this job of that source could not begin now."""
        _refuse_inside(source, self.target)
        self._refuse_others()
        self._refuse_other_job(_read(self.folder / "job.json"))
        with suppress(OSError):
            handle = os.open(self.folder / "lock", os.O_RDWR)
            try:
                if os.name != "nt" and not lock(handle, wait=False):
                    raise NumericsError(self._at_work)
            finally:
                os.close(handle)

    @property
    def _at_work(self) -> str:
        return f"another job is at work on {self.target}; wait for it, or end it"

    def _begin(self) -> None:
        self._refuse_others()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as wrong:
            raise NumericsError(f"cannot write {self.target}: {wrong.strerror or wrong}") from wrong
        self._take_lock()
        self._began = time.time_ns()
        with suppress(OSError):
            os.utime(self.folder / "lock")
            self._began = (self.folder / "lock").stat().st_mtime_ns
        left = _read(self.folder / "job.json")
        self._ours = left is None or left.get("job") == self.job
        if left is None:
            told = {"version": VERSION, "job": self.job, "parts": self.parts}
            replace_file(self.folder / "job.json", _bytes(told))
        self._refuse_other_job(left)

    def _refuse_other_job(self, left: Mapping[str, Any] | None) -> None:
        """Raises NumericsError where what was left unfinished is of another job."""
        if left is not None and left.get("job") != self.job:
            raise NumericsError(
                f"{self.target} holds an unfinished job of another kind ({self._other(left)}); "
                f"finish it as it was begun, or remove {self.target} and begin anew"
            )

    def _other(self, left: Mapping[str, Any]) -> str:
        """What another job differs in, in words."""
        was = left.get("parts")
        if not isinstance(was, dict):
            return "it does not say which"
        if was.keys() != self.parts.keys() and was.get("version") == self.parts["version"]:
            return "another command began it"
        names = sorted(name for name in {*was, *self.parts} if was.get(name) != self.parts.get(name))
        return ", ".join(f"another {name}" for name in names) or "it says nothing of what it is"

    def _refuse_others(self) -> None:
        """Raises NumericsError for a file, and for a folder with something that is no part of this job."""
        refuse_file_for_folder(self.target)
        if self._record() is None and os.path.isdir(self.target) and not os.path.isdir(self.folder):
            held = sorted(os.listdir(self.target))
            if (other := _read(self.target / RECORD)) is not None:
                raise NumericsError(
                    f"{self.target} is the finished output of another job ({self._other(other)}), made of "
                    f"{said(other.get('source'))}; name another folder, or remove {self.target} and "
                    "begin anew"
                )
            if held:
                raise NumericsError(
                    f"{self.target} is not empty: it holds {held[0]}; name a new folder, or empty it"
                )

    def _take_lock(self) -> None:
        while True:
            handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
            if os.name == "nt":
                self._lock = handle
                return
            if not lock(handle, wait=False):
                os.close(handle)
                raise NumericsError(self._at_work)
            if os.fstat(handle).st_nlink:
                self._lock = handle
                return
            os.close(handle)  # the job before removed it when it was done
            self.folder.mkdir(parents=True, exist_ok=True)

    def _await_begin(self) -> None:
        with suppress(OSError):
            self._failed(self.ranks.rank).unlink()
        until = time.monotonic() + BEGIN
        while (_read(self.folder / "job.json") or {}).get("job") != self.job and self._record() is None:
            if time.monotonic() > until:
                raise NumericsError(f"rank 0 did not begin this job in {self.target} within {BEGIN:.0f} s")
            time.sleep(POLL)

    # ---- shards -----------------------------------------------------------------------------------

    def entry(self, shard: Work) -> dict[str, Any] | None:
        """What was noted of a shard, where its file is still what was written, of the source as it is."""
        found = _read(self.folder / f"{shard.name}.json")
        if found is None or found.get("source") != shard.stamp:
            return None
        path, due = self.target / shard.name, found["target"]
        try:
            status = path.stat()
        except OSError:
            return None
        if status.st_size != due["bytes"]:
            return None
        same = status.st_mtime_ns == due["mtime_ns"] or file_hash(path) == due["sha256"]
        return found if same else None

    def note(self, shard: Work, whole: Path, report: Mapping[str, Any]) -> None:
        """Notes that a shard is whole.  whole: the file that is about to get its name."""
        digest, status = file_hash(whole), whole.stat()
        facts = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": digest}
        found = {"source": shard.stamp, "target": facts, "report": dict(report)}
        replace_file(self.folder / f"{shard.name}.json", _bytes(found))

    def await_all(self) -> dict[str, dict[str, Any]]:
        """What was noted of every shard, when all are done; raises NumericsError where a rank failed."""
        return {shard.name: self._await_shard(shard) for shard in self.shards}

    def _await_shard(self, shard: Work) -> dict[str, Any]:
        """What another rank noted of a shard, when it has; raises NumericsError where a rank failed."""
        while True:
            noted = _read(self.folder / f"{shard.name}.json")
            if noted is not None and (found := self.entry(shard)) is not None:
                return found
            for rank in range(self.ranks.world):
                self._check_rank(rank)
            time.sleep(POLL)

    def _failed(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}.failed"

    def _check_rank(self, rank: int) -> None:
        path = self._failed(rank)
        with suppress(OSError):
            if path.stat().st_mtime_ns >= self._began:
                raise NumericsError(f"rank {rank} failed: {path.read_text(encoding='utf-8')}")

    # ---- the end ----------------------------------------------------------------------------------

    def finished(self, beside: Iterable[Path]) -> dict[str, Any] | None:
        """The record of this job, where it was finished before.

        beside: the files that would be copied.  Raises NumericsError where it was made of something else, or
        its shards are not what was written.
        """
        record = self._record()
        if record is not None:
            if self.ranks.rank == 0:
                self.clear()
            self._check_finished(record, beside)
        return record

    def _record(self) -> dict[str, Any] | None:
        found = _read(self.target / RECORD)
        return found if found is not None and found.get("job") == self.job else None

    def _check_finished(self, record: Mapping[str, Any], beside: Iterable[Path]) -> None:
        was, now = record["beside"], hashes_beside(beside)
        held = record["shards"]
        changed = [shard.name for shard in self.shards if held[shard.name]["source"] != shard.stamp]
        changed += sorted(name for name in {*was, *now} if was.get(name) != now.get(name))
        if changed:
            has = "has" if len(changed) == 1 else "have"
            raise NumericsError(
                f"{self.target} was made of another source: {folded(changed)} {has} changed there since; "
                f"name another output, or remove {self.target} and begin anew"
            )
        for name, facts in held.items():
            path = self.target / name
            if not os.path.lexists(path):
                raise NumericsError(
                    f"{path} is missing, which this job wrote; remove {self.target} and begin anew"
                )
            if not os.path.isfile(path) or file_hash(path) != facts["sha256"]:
                raise NumericsError(f"{path} is not what this job wrote; remove {self.target} and begin anew")

    def finish(
        self, source: Path, noted: Mapping[str, Any], beside: Mapping[str, str], facts: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Writes the record, and returns it; removes what served only while the job ran.

        noted: of the shards, as `await_all` has it.  beside: hashes of what was copied.  facts: what else the
        job says of itself.
        """
        record = {
            "version": VERSION, "job": self.job, "parts": self.parts, "numerics": __version__,
            "source": source.name,
            "shards": {name: _kept(found) for name, found in noted.items()}, "beside": beside, **facts,
        }  # fmt: skip
        replace_file(self.target / RECORD, _bytes(record))
        self.clear()
        return record

    def clear(self) -> None:
        """Removes the folder of a job that is done."""
        shutil.rmtree(self.folder, ignore_errors=True)


def digest_of(facts: Any) -> str:
    """The SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _bytes(facts: Mapping[str, Any]) -> bytes:
    return (json.dumps(facts, indent=1) + "\n").encode()


def _read(path: Path) -> dict[str, Any] | None:
    """What a file of the journal says; nothing where there is none, or none that can be read."""
    try:
        found = json_in(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("version", VERSION) == VERSION else None


def _kept(noted: Mapping[str, Any]) -> dict[str, Any]:
    """What a record keeps of a shard: nothing that another run on this source would have otherwise."""
    target = noted["target"]
    return {"source": noted["source"], "bytes": target["bytes"], "sha256": target["sha256"]}


@contextmanager
def making(
    source: Path, target: Path, parts: Mapping[str, Any], ranks: Ranks, shards: Sequence[Work]
) -> Iterator[Journal]:
    """The journal of a folder that is made of another: after an error a folder without a shard is gone.

    Raises NumericsError as Journal does, and for a target that must not be made of the source.
    """
    _refuse_inside(source, target)
    with made_folder(target), terminable(), Journal(target, parts, ranks, shards) as journal:
        yield journal


def _refuse_inside(source: Path, target: Path) -> None:
    """Raises NumericsError for an output that is the input, lies in it, or behind a link to nowhere, and for
    one that has the place or the name of a file.
    """
    for folder in (target, *target.parents):
        if os.path.islink(folder) and not os.path.exists(folder):
            raise NumericsError(
                f"cannot write {target}: {folder} is {DANGLING}; name a folder, or a new name"
            )
    refuse_same_file(source, target)
    refuse_file_for_folder(target)
    inner, outer = (Path(os.path.realpath(path)) for path in (target, source))
    if inner.is_relative_to(outer):
        raise NumericsError(f"the output {target} lies in the input; name another folder")


def file_hash(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    digest, room = hashlib.sha256(), bytearray(HASHED)
    view = memoryview(room)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(room):
            digest.update(view[:count])
    return digest.hexdigest()
