"""Are m, n and k asked past tiles at once, at a cost that does not grow with them?"""

from __future__ import annotations

from itertools import count, product

import numpy as np
import pytest

from numerics.conform import check
from numerics.conform.products import pace
from numerics.conform.products.cases.order import problems
from numerics.conform.products.cases.tiles import SIZES, shapes
from numerics.conform.products.certificate import answer
from numerics.conform.products.claim import Claim
from numerics.conform.products.problem import LARGE

PLAIN = {"a": "float32", "b": "float32"}
SECONDS_OF_A_CALL = 1.0
INTEGERS = {"a": "int8", "b": "int8", "accumulate": "int32"}
TILED = {
    "decoding": (PLAIN, lambda m, n, k: m <= 16 and n >= 512 and k >= 512),
    "some rows": (PLAIN, lambda m, n, k: 17 <= m <= 64 and n >= 256 and k >= 256),
    "a pipeline of three stages": (PLAIN, lambda m, n, k: m >= 128 <= n and k % 64 == 0 and k >= 192),
    "rows that are whole tiles": (PLAIN, lambda m, n, k: m % 256 == 0 and n >= 16),
    "long sums": (PLAIN, lambda m, n, k: m >= 64 <= n and k >= 512),
    "rows of a batch": (PLAIN, lambda m, n, k: 17 <= m <= 511 and n >= 400 and k >= 400),
    "rows of one tile or two": (PLAIN, lambda m, n, k: 17 <= m <= 32 and n >= 1024 and k >= 512),
    "rows of three and four tiles": (INTEGERS, lambda m, n, k: 65 <= m <= 128 and n >= 512 and k >= 512),
    "more rows": (PLAIN, lambda m, n, k: 129 <= m <= 255 and n >= 512 and k >= 512),
    "some rows, and long sums": (PLAIN, lambda m, n, k: 17 <= m <= 64 and n >= 256 and k >= 1024),
    "tiles of long sums": (PLAIN, lambda m, n, k: min(m, n) >= 32 and k >= 1024),
    "many tiles of long sums": (PLAIN, lambda m, n, k: min(m, n) >= 128 and k >= 1024),
    "tiles of longer sums": (PLAIN, lambda m, n, k: min(m, n) >= 32 and k >= 2048),
    "tiles of sums that are long and not whole": (
        INTEGERS, lambda m, n, k: min(m, n) >= 32 and k >= 1024 and k % 32 > 0,
    ),
    "everything large": (PLAIN, lambda m, n, k: min(m, n, k) >= 512),
    "many columns": (PLAIN, lambda m, n, k: n >= 4096),
    "many rows": (PLAIN, lambda m, n, k: m > 2048),
    "many terms": (PLAIN, lambda m, n, k: k > 32768),
    "blocks of 64 beside rows left over": (
        INTEGERS, lambda m, n, k: m > 16 <= n and k % 64 == 0 and k >= 128 and m % 16 > 0,
    ),
}  # fmt: skip
"""Claims, and the shapes in which the last terms are lost."""


@pytest.mark.turns(16)
@pytest.mark.parametrize("name", TILED)
def test_terms_that_are_lost_where_m_n_and_k_are_large_at_once_passed(name):
    claim, there = TILED[name]

    def kernel(a, b):
        whole = np.int64 if "accumulate" in claim else np.float64
        a, b = a.astype(whole), b.astype(whole)
        k = a.shape[1] - 16 * there(len(a), len(b), a.shape[1])
        with np.errstate(all="ignore"):
            return (a[:, :k] @ b[:, :k].T).astype(np.int32 if "accumulate" in claim else np.float32)

    found = check(kernel, kind="matmul", effort="quick", **claim)
    assert found.law in ("sums", "integers"), str(found)
    m, n, k = found.counterexample.problem.shape
    assert there(m, n, k)
    halves = [(m, n, k // 2)] * (k > 1) + [(m, n // 2, k)] * (n > 1)
    assert not halves or not all(there(*half) for half in halves), "it is no small case"


def _one_for_all(r, a, b):
    r[4:] = a[4:] @ b[:1].mT


def _not_the_last(r, a, b):
    r[-1] = 0


def _fours(r, a, b):
    r[len(r) // 4 * 4 :] = 0
    r[3] = r[2]


BATCHES = {
    "the first one's b is taken for all": (5, 16, 16, 1, _one_for_all),
    "the last of twelve heads": (8, 32, 64, 64, _not_the_last),
    "the last of eight heads": (8, 128, 128, 64, _not_the_last),
    "fours of them": (4, 32, 32, 1, _fours),
    "long sums": (4, 32, 32, 1024, _not_the_last),
    "more than a warp of them": (33, 16, 16, 1, _not_the_last),
}
"""From how many batches, m, n and k on some of them are wrong, and how."""


@pytest.mark.turns(6)
@pytest.mark.parametrize("name", BATCHES)
def test_batches_of_whole_tiles_were_two_or_three(name):
    *least, spoil = BATCHES[name]

    def kernel(a, b):
        r = a @ b.mT
        if all(size >= few for size, few in zip((*r.shape, a.shape[2]), least, strict=True)):
            spoil(r, a, b)
        return r

    found = check(kernel, kind="matmul", layout="bmk,bnk", effort="quick", **PLAIN)
    assert not found
    sizes = found.counterexample.problem.sizes_of_all
    assert all(size >= few for size, few in zip(sizes, least, strict=True)), sizes


def test_two_sizes_were_not_asked_whole_and_not_together():
    """Any two of m, n and k are few, some or many: both whole tiles, neither, and either alone."""

    def said(size):
        return next((kind, size in whole) for kind, (whole, rest) in enumerate(SIZES) if size in whole + rest)

    known = {size for pair in SIZES for part in pair for size in part}
    asked = [[said(size) for size in shape] for shape in shapes() if known >= set(shape)]
    every = [*product(range(3), (False, True))]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert {(shape[one], shape[other]) for shape in asked} == set(product(every, every))


@pytest.mark.turns(8)
@pytest.mark.parametrize(
    "claim",
    [
        PLAIN,
        INTEGERS,
        {"a": "float32", "b": "uint4 per_group(32) asymmetric", "bias": True},
        {"a": "nvfp4", "b": "nvfp4"},
        {**PLAIN, "alpha": True, "beta": True},
        {**PLAIN, "layout": "bmk,bnk"},
    ],
    ids=["float32", "integers", "zero points", "nvfp4", "gemm", "batches"],
)  # fmt: skip
def test_what_is_due_of_few_rows_was_not_what_is_due_of_all(claim):
    large = [problem for problem in problems(Claim.of(**claim)) if problem.few is not None]
    assert large
    assert all(np.prod(problem.shape) >= LARGE for problem in large)
    dense = [problem for problem in large if problem.law in ("sums", "integers")]
    for problem in (dense[0], dense[-1]):
        due, decided = answer(problem)
        assert decided.sum() * 2 > problem.few.problem.due().size
        if problem.batch:
            continue
        rows, columns = ([0, size // 2, size - 1] for size in problem.shape[:2])
        part = problem.cut(rows, columns)
        assert part.few is None
        for found, whole in zip(answer(part), (due, decided), strict=True):
            assert np.array_equal(found, whole[np.ix_(rows, columns)], equal_nan=True)


def test_the_time_of_others_counted_as_a_targets(monkeypatch):
    """A loaded machine takes its processors from a product, which is then slow by the clock alone."""
    ticks = count(step=SECONDS_OF_A_CALL)
    monkeypatch.setattr(pace, "perf_counter", lambda: next(ticks))
    for worked, due in ((0.5, 0.5), (9.0, SECONDS_OF_A_CALL), (0.0, SECONDS_OF_A_CALL / pace.SHARE)):
        spent = count(step=worked)
        monkeypatch.setattr(pace, "process_time", lambda spent=spent: next(spent))
        kept = pace.Pace()

        def call(kept=kept):
            with kept.watch.running():
                pass

        kept.timed((256, 256, 256), call)
        assert kept.spent == pytest.approx(due)
        call()
        assert kept.watch.seconds == pytest.approx(due), "what nobody times counted, too"


def test_a_slow_target_was_asked_for_hours(monkeypatch):
    monkeypatch.setattr(pace, "SECONDS", 1e-9)
    found = check(lambda a, b: a @ b.T, kind="matmul", effort="quick", **PLAIN)
    assert found
    assert any("would take this target more than" in note for note in found.notes), str(found)
