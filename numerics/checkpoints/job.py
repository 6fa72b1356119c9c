"""A checkpoint quantized as one job: shard by shard, by one process or many, and resumed where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from numerics._version import __version__
from numerics.backends.paths import path_of
from numerics.checkpoints.beside import copy_beside
from numerics.checkpoints.deciding import Decision, Request, decide
from numerics.checkpoints.journal import Journal, digest_of, making
from numerics.checkpoints.ranks import Ranks
from numerics.files.checkpoint import (
    MAX_MEMORY,
    FileReport,
    Note,
    PathLike,
    Progress,
    TensorReport,
    Work,
    most,
    write_quantized,
)
from numerics.files.header import Plan, text_of
from numerics.files.replacement import refuse_same_file
from numerics.files.shards import Shard, Source, needs_index, write_index
from numerics.files.stream import ERRORS, Scales, amax_of
from numerics.formats.arguments import keywords, named_fields
from numerics.formats.block import Block, stored_scale
from numerics.formats.errors import NumericsError, digits, one_of
from numerics.formats.rounding import check_random
from numerics.tensor.qtensor import ErrorSums

Finished = Callable[[str, int, int], None]  # shard, shards that are done, shards in all


@named_fields
@dataclass
class JobReport(FileReport):
    """What became of a checkpoint: as FileReport; shards in all, and how many were done before."""

    shards: int = 1
    resumed: int = 0


@dataclass(frozen=True)
class Options:
    """How a job runs, beside what it does.

    seed: of stochastic rounding; max_memory: bytes of working memory, about; errors: "all" (the default)
    measures every value, "sampled" one stretch in 16, "none" nothing.  ranks: which process of how many this
    is.  progress: called with a tensor's name, and the bytes of this process's shards done and in all;
    finished: with a shard's name, and how many of this process are done and in all; kept: the same for one
    that was done before, of which finished hears nothing.  tensor_scale: of NVFP4, one for every tensor; None
    (the default): each finds its own, but those that engines fuse share one.
    """

    seed: int | None = None
    max_memory: int = MAX_MEMORY
    errors: str = "all"
    ranks: Ranks = field(default_factory=Ranks)
    progress: Progress | None = None
    finished: Finished | None = None
    tensor_scale: float | None = None
    kept: Finished | None = None

    def check(self, decision: Decision) -> None:
        """Raises NumericsError for options that do not fit what is to be done."""
        one_of("errors", self.errors, tuple(ERRORS))
        most(self.max_memory)
        if self.tensor_scale is not None:
            stored_scale(self.tensor_scale)
            if not any(map(_has_tensor_scale, decision.plans.values())):
                raise NumericsError(
                    f"tensor_scale={digits(self.tensor_scale)}: no tensor becomes blocks with float scales, "
                    "such as nvfp4"
                )
        stochastic = [plan for plan in decision.plans.values() if plan.spec.rounding == "stochastic"]
        if stochastic or self.seed is not None:
            check_random((stochastic or list(decision.plans.values()))[0].spec.rounding, self.seed, None)


def _has_tensor_scale(plan: Plan) -> bool:
    return isinstance(plan.dtype, Block) and plan.dtype.has_tensor_scale


@keywords
def quantize(
    source: Source | PathLike, target: PathLike, request: Request, options: Options | None = None
) -> JobReport:
    """Quantizes a checkpoint by rules: a file into a file, or a folder of shards into a folder.

    source: a .safetensors file, the index of several, or a folder with either, as Hugging Face has them.
    target: a file for a file, a folder for a folder; never the source.  request: what becomes of each tensor;
    all of it is decided, and refused, from the headers before a byte is written.  options: how it is done.

    In a folder every shard keeps its name, the index is written anew, and what lies beside (configuration,
    tokenizer) is copied; `numerics_job.json` records the job with the hashes of all shards.  A shard appears
    when it is whole.  Who was killed calls again with the same arguments: what is done stays untouched.
    Under torchrun, or wherever RANK and WORLD_SIZE are set, ranks share the shards, without a network: the
    folder must be one that all of them see.  The bytes are the same for any number of ranks.

    Raises NumericsError as `decide` and `quantize_file` do; for a folder that holds something else, or the
    unfinished job of other options; and where another job is at work on it.

    >>> import numerics as nx, numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     a, b = (f"{folder}/{name}.safetensors" for name in "ab")
    ...     nx.save({"w": np.ones((2, 64), np.float32), "norm": np.ones(64)}, a)
    ...     report = quantize(a, b, Request(nx.QuantSpec("mxfp4")))
    >>> [(tensor.name, tensor.dtype, tensor.why) for tensor in report.tensors]
    [('norm', None, 'fewer than two dimensions'), ('w', 'mxfp4', None)]
    """
    source = source if isinstance(source, Source) else Source(source)
    options = options or Options()
    decision = decide(source, request)
    options.check(decision)
    job = _Job(source, path_of(target), decision, options)
    return job.folder() if source.folder else job.file()


def check_target(source: Source, target: PathLike, decision: Decision, options: Options) -> None:
    """Raises NumericsError, before anything is said or written, for a folder where the job cannot begin."""
    if source.folder and options.ranks.rank == 0:
        job = _Job(source, path_of(target), decision, options)
        Journal(job.target, job._parts(), options.ranks, source.shards).check(source.path)


@dataclass
class _Job:
    source: Source
    target: Path
    decision: Decision
    options: Options
    _amax: dict[tuple[str, ...], float] = field(default_factory=dict)
    _done: int = 0

    def file(self) -> JobReport:
        """One file into one."""
        self.options.ranks.check_alone(self.source.path)
        (shard,) = self.source.shards
        refuse_same_file(shard.path, self.target)
        found = self._write(shard, self.target, shard.nbytes)
        return JobReport(found.tensors, found.sums)

    def folder(self) -> JobReport:
        """A folder into a folder: this rank's shards; and rank 0 waits for all, and ends the job."""
        source, ranks = self.source, self.options.ranks
        with making(source.path, self.target, self._parts(), ranks, source.shards) as journal:
            record = journal.finished(source.beside)
            if record is not None:
                return _report_of(record, resumed=len(record["shards"]))
            resumed = self._shards(journal)
            if ranks.rank != 0:
                return JobReport(shards=len(source.shards), resumed=resumed)
            return self._end(journal, resumed)

    def _shards(self, journal: Journal) -> int:
        """Does the shards of this rank; returns how many were done before."""
        own = self.options.ranks.share(self.source.shards)
        total, resumed = sum(shard.nbytes for shard in own), 0
        for place, shard in enumerate(own):
            told = self.options.finished
            if journal.entry(shard) is not None:
                resumed, told = resumed + 1, self.options.kept
            else:
                self._write(shard, self.target / shard.name, total, partial(_note, journal, shard))
            self._done += shard.nbytes
            if told is not None:
                told(shard.name, place + 1, len(own))
        return resumed

    def _write(self, shard: Shard, target: Path, total: int, note: Note | None = None) -> FileReport:
        decision, options = self.decision, self.options
        plans = {name: decision.plans[name] for name in shard.entries if name in decision.plans}
        why = {name: decision.why[name] for name in shard.entries if name in decision.why}
        scales = {name: Scales(self._tensor_scale(name), decision.observers.get(name)) for name in plans}
        work = Work(plans, why, options.seed, options.max_memory, options.errors, scales)
        return write_quantized(shard.open(), target, work, self._told(total), note)

    def _told(self, total: int) -> Progress | None:
        """The progress of one file as that of all of this rank."""
        progress, before = self.options.progress, self._done
        if progress is None:
            return None
        return lambda name, done, _: progress(name, min(before + done, total), total)

    def _tensor_scale(self, name: str) -> float | None:
        """The tensor scale that is given, or that of the largest magnitude of all that engines fuse."""
        given, names = self.options.tensor_scale, self.decision.fused.get(name)
        if given is not None and _has_tensor_scale(self.decision.plans[name]):
            return stored_scale(given)
        if names is None:
            return None
        if names not in self._amax:
            self._amax[names] = self._scale_of(names)
        return self._amax[names]

    def _scale_of(self, names: tuple[str, ...]) -> float:
        plans, elements = self.decision.plans, most(self.options.max_memory)
        largest = [amax_of(self.source.shard_of[name].open(), name, plans[name], elements) for name in names]
        spec = plans[names[0]].spec
        amax = max(largest, key=lambda amax: float(amax[0]))
        found = spec.block.encode(amax, scale_rule=spec.scale_rule).tensor_scale
        assert found is not None
        return float(found)

    def _parts(self) -> dict[str, Any]:
        """What the job is: the same for the same headers, decisions, seed and version."""
        fused = sorted(set(self.decision.fused.values()))
        return {
            "version": __version__, "seed": self.options.seed, "errors": self.options.errors,
            "tensor scale": self.options.tensor_scale, "observer": digest_of(self.decision.observers),
            "format of some tensor": digest_of([text_of(self.decision.plans, None), fused]),
            "source": digest_of({shard.name: shard.header for shard in self.source.shards}),
        }  # fmt: skip

    def _end(self, journal: Journal, resumed: int) -> JobReport:
        """Waits for the other ranks' shards, and writes what says where all is."""
        source, noted = self.source, journal.await_all()
        if source.index is not None or needs_index(noted):
            write_index(self.target, noted)
        copied = copy_beside(source.beside, self.target)
        reports = {name: found["report"] for name, found in noted.items()}
        return _report_of(journal.finish(source.path, noted, copied, {"reports": reports}), resumed)


def _note(journal: Journal, shard: Shard, report: FileReport, whole: Path) -> None:
    """Notes that a shard is whole, with its report as plain values."""
    tensors = [asdict(tensor) for tensor in report.tensors]
    journal.note(shard, whole, {"tensors": tensors, "sums": asdict(report.sums)})


_TENSOR = {f.name for f in fields(TensorReport)}


def _report_of(record: Mapping[str, Any], resumed: int) -> JobReport:
    """The report of a whole job, from what was noted of its shards."""
    found = JobReport(shards=len(record["shards"]), resumed=resumed)
    for name in sorted(record["reports"]):
        facts = record["reports"][name]
        found.sums.merge(ErrorSums(**facts["sums"]))
        for tensor in facts["tensors"]:
            kept = {key: value for key, value in tensor.items() if key in _TENSOR}
            found.tensors.append(TensorReport(**{**kept, "shape": tuple(kept["shape"])}))
    return found


__all__ = ["JobReport", "Options", "Plan", "quantize"]
