"""Kernels that draw for themselves, each with one planted fault: a draw that is used more than once."""

from __future__ import annotations

import threading
from itertools import count

import numpy as np

import numerics as nx

WORD = (1 << 64) - 1
TOP = 30  # random bits


def numbers_of(places, seed=0):
    """Random bits of a counter generator: splitmix64 of each place, its 30 upper bits."""
    step, turn = np.uint64(0x9E3779B97F4A7C15), np.uint64((seed * 0x632BE59BD9B4E019) & WORD)
    z = (np.asarray(places).astype(np.uint64) + turn) * step
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(64 - TOP)).astype(np.uint32)


def kernel(bits, dtype="fp8_e5m2"):
    """An encoder of which bits(shape) are the random bits."""
    d = nx.dtype(dtype)
    return lambda x: d.encode(x, rounding="stochastic", random_bits=bits(x.shape))


def counter(advance, place=None, seed=0):
    """Draws of places behind a counter, which `advance(numbers)` moves on after each call."""
    at, lock = [0], threading.Lock()

    def bits(shape):
        with lock:
            start = at[0]
            at[0] += advance(int(np.prod(shape)))
        return numbers_of(np.uint64(start) + (place or in_order)(shape).astype(np.uint64), seed)

    return bits


def of_calls(seed_of):
    """A new generator for each call, of the seed that `seed_of(number of the call)` says."""
    calls = count()
    return lambda shape: np.random.default_rng(seed_of(next(calls))).integers(0, 1 << 30, shape, np.uint32)


def random_seeds(most):
    """A new generator for each call, of one of so many seeds."""
    rng = np.random.default_rng(9)
    return of_calls(lambda call: int(rng.integers(0, most)))


def rows_alike(axis):
    """One draw for all along an axis."""
    rng = np.random.default_rng(1)

    def bits(shape):
        short = [1 if len(shape) > abs(axis) - (axis >= 0) and a == axis % len(shape) else n
                 for a, n in enumerate(shape)]  # fmt: skip
        return np.broadcast_to(rng.integers(0, 1 << 30, short, np.uint32), shape).copy()

    return bits


def in_order(shape):
    """The places of an array's numbers, one after the other."""
    return np.arange(int(np.prod(shape))).reshape(shape)


def skewed(shape):
    """Row and column added: each row begins one draw behind the one before it."""
    return sum(np.indices(shape)) if len(shape) > 1 else in_order(shape)


def repeated_after(period):
    """Places that come again after so many numbers of a call."""
    return lambda shape: in_order(shape) % period


def by_shape():
    """A generator for each shape, all of one seed."""
    every = {}

    def bits(shape):
        rng = every.setdefault(shape, np.random.default_rng(3))
        return rng.integers(0, 1 << 30, shape, np.uint32)

    return bits


def by_thread(seed):
    """A generator for each thread."""
    own = threading.local()

    def bits(shape):
        if not hasattr(own, "rng"):
            own.rng = np.random.default_rng(seed())
        return own.rng.integers(0, 1 << 30, shape, np.uint32)

    return bits


def unlocked(advance=lambda n: n):
    """A counter that two threads may read before one of them moves it."""
    at = [0]

    def bits(shape):
        start = at[0]
        found = numbers_of(start + in_order(shape))
        at[0] = start + advance(int(np.prod(shape)))
        return found

    return bits


def truncates_in_a_thread():
    """Draws in the first thread alone; another one truncates."""
    rng, first = np.random.default_rng(5), threading.get_ident()

    def bits(shape):
        drawn = rng.integers(0, 1 << 30, shape, np.uint32)
        return drawn if threading.get_ident() == first else drawn * 0

    return bits


def mixed_by_xor():
    """The number of the call is mixed into the place by XOR: call 1 has call 0's draws, turned in pairs."""
    calls = count()
    return lambda shape: numbers_of(in_order(shape) ^ next(calls))


def ends_alike(left, of=16, apart=1):
    """The last number of some lengths has the draw of one before it: what a vector leaves over."""
    rng = np.random.default_rng(8)

    def bits(shape):
        found = rng.integers(0, 1 << 30, shape, np.uint32)
        flat = found.reshape(-1)
        if flat.size % of == left and flat.size > apart:
            flat[-1] = flat[-1 - apart]
        return found

    return bits


def shares_a_third():
    """A third of the draws of each call are those of the call before, somewhere else."""
    rng, kept = np.random.default_rng(7), [np.zeros(0, np.uint32)]

    def bits(shape):
        drawn = rng.integers(0, 1 << 30, int(np.prod(shape)), np.uint32)
        few = min(drawn.size // 3, kept[0].size // 3)
        drawn[:few] = kept[0][kept[0].size - few :]
        kept[0] = drawn
        return drawn.reshape(shape)

    return bits


DRAWN = np.random.default_rng(23)


def drawn_bits(shape):
    """Random bits."""
    return DRAWN.integers(0, 1 << TOP, shape, np.uint32)


def row_again(shape):
    """The second row draws what the first drew; all others draw for themselves."""
    found = drawn_bits(shape)
    if len(shape) > 1 and shape[0] > 1:
        found[1] = found[0]
    return found


def batch_again(shape):
    """Of several axes, the last batch draws what the first drew."""
    found = drawn_bits(shape)
    if len(shape) == 3 and shape[0] > 1:
        found[-1] = found[0]
    return found


def stands_still_at_one():
    """A counter that calls of one number do not move."""
    return counter(lambda n: n if n > 1 else 0)


FAULTS = {
    "the end of nine left over": lambda: ends_alike(9),
    "the end of three left over, two apart": lambda: ends_alike(3, 4, 2),
    "the end of whole vectors": lambda: ends_alike(0, 32, 7),
    "a row that repeats the first": lambda: row_again,
    "a batch that repeats the first": lambda: batch_again,
    "a counter that one number does not move": stands_still_at_one,
    "the counter moves by one": lambda: counter(lambda n: 1),
    "the counter moves by half": lambda: counter(lambda n: max(1, n // 2)),
    "the counter moves by whole vectors of four": lambda: counter(lambda n: max(1, n // 4 * 4)),
    "the counter moves by whole blocks of 256": lambda: counter(
        lambda n: max(1, n // 256 * 256) if n > 256 else n
    ),
    "the counter moves by whole blocks of 1024": lambda: counter(
        lambda n: max(1, n // 1024 * 1024) if n > 1024 else n
    ),
    "the counter moves by a sixty-fourth": lambda: counter(lambda n: -(-n // 64)),
    "the counter moves by the number of warps": lambda: counter(lambda n: -(-n // 32)),
    "the counter stands still": lambda: counter(lambda n: 0),
    "the counter moves by 65,536 at the most": lambda: counter(lambda n: min(n, 65536)),
    "the counter is mixed in by XOR": mixed_by_xor,
    "a third of the draws of the call before": shares_a_third,
    "seeds of 4 bits": lambda: of_calls(lambda call: call % 16),
    "seeds of 8 bits": lambda: of_calls(lambda call: call % 256),
    "one seed": lambda: of_calls(lambda call: 0),
    "a seed for two calls": lambda: of_calls(lambda call: call // 2),
    "random seeds of 12 bits": lambda: random_seeds(1 << 12),
    "the same in each row": lambda: rows_alike(0),
    "the same in each row but of the first axis": lambda: rows_alike(1),
    "the same in each column": lambda: rows_alike(-1),
    "each row a draw behind the one before": lambda: counter(lambda n: n, skewed),
    "the same every 256": lambda: counter(lambda n: n, repeated_after(256)),
    "the same every 2**16": lambda: counter(lambda n: n, repeated_after(1 << 16)),
    "the same every 2**19": lambda: counter(lambda n: n, repeated_after(1 << 19)),
    "the same every 2**20": lambda: counter(lambda n: n, repeated_after(1 << 20)),
    "the same every 2**21": lambda: counter(lambda n: n, repeated_after(1 << 21)),
    "a generator for each shape, of one seed": by_shape,
    "a generator for each thread, of one seed": lambda: by_thread(lambda: 11),
    "a counter without a lock": unlocked,
}
"""name -> what makes the random bits; each breaks the law `independent`."""
IN_A_THREAD = {"truncates in a second thread": truncates_in_a_thread}
"""Those that break the law `threads`."""


def locked(rng):
    """Draws of a generator that several threads may use."""
    lock = threading.Lock()

    def bits(shape):
        with lock:
            return rng.integers(0, 1 << 30, shape, np.uint32)

    return bits


def seeded_by_calls(seed):
    """A generator for each call, of a seed of its own."""
    calls, lock = count(seed << 32), threading.Lock()

    def bits(shape):
        with lock:
            call = next(calls)
        return np.random.default_rng(call).integers(0, 1 << 30, shape, np.uint32)

    return bits


def two_in_a_word(words):
    """Two draws of 16 bits in each word of 32."""

    def bits(shape):
        size = int(np.prod(shape))
        drawn = words((size // 2 + 1,)) << np.uint32(2) | words((size // 2 + 1,)) & np.uint32(3)
        return (drawn.view(np.uint16)[:size].astype(np.uint32) << np.uint32(14)).reshape(shape)

    return bits


def few_bits(drawn):
    """Draws of 8 bits."""
    return lambda shape: drawn(shape) >> np.uint32(22) << np.uint32(22)


def threads_apart(seed):
    """A generator for each thread, of a seed of its own."""
    seeds = count(seed * 1000)
    return by_thread(lambda: next(seeds))


RIGHT = {
    "PCG64": lambda seed: locked(np.random.default_rng(seed)),
    "Philox": lambda seed: locked(np.random.Generator(np.random.Philox(seed))),
    "Mersenne twister": lambda seed: locked(np.random.Generator(np.random.MT19937(seed))),
    "a counter": lambda seed: counter(lambda n: n, seed=seed),
    "a counter in steps of 1024": lambda seed: counter(lambda n: -(-n // 1024) * 1024, seed=seed),
    "a seed for each call": seeded_by_calls,
    "a generator for each thread": threads_apart,
    "8 bits": lambda seed: few_bits(locked(np.random.default_rng(seed))),
    "two in a word": lambda seed: two_in_a_word(locked(np.random.default_rng(seed))),
}
"""Right ones, by a seed."""
