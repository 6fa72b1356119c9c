"""Tables that kernels look numbers up in: by permutations or one by one, on every kind of machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from math import inf, nan

import numpy as np
import pytest
from llvmlite import binding, ir

import numerics as nx
from numerics.backends.cpu import compiler, lookups
from numerics.backends.cpu.lanes import FINITE, LOWER, UPPER, joined_codes, kind_of_table
from numerics.backends.cpu.launch import address_of
from numerics.backends.cpu.streams import load_as, vector
from numerics.formats.grid import UNREACHED, grid
from tests.helpers.bits import assert_same_bits

TRIPLE = binding.get_process_triple()
RNG = np.random.default_rng(19)


# ---- vectors of indices --------------------------------------------------------------------------


def looked_up(table: np.ndarray, index: np.ndarray, in_memory: bool) -> np.ndarray:
    """table[index] by a kernel of its own."""
    element = ir.IntType(8 * table.itemsize)
    kinds = vector(element, table.size), vector(ir.IntType(8 * index.itemsize), index.size)

    def emit(builder, words):
        places = load_as(builder, words[1], kinds[1])
        if in_memory:
            found = lookups.in_memory(builder, words[0], places)
        else:
            found = lookups.in_registers(builder, load_as(builder, words[0], kinds[0]), places)
        builder.store(found, builder.inttoptr(words[2], found.type.as_pointer()), align=1)

    out = np.zeros(index.size, table.dtype)
    name = f"test_lookups_{table.dtype}_{table.size}_{index.size}_{in_memory}"
    compiler.build(name, 3, emit).run(*map(address_of, (table, index, out)))
    return out


@pytest.mark.parametrize("width", [1, 2, 5, 8, 16, 24, 32, 64])
def test_numbers_of_memory_are_those_at_their_places(width):
    table = RNG.integers(-(2**31), 2**31, 300).astype(np.int32)
    index = RNG.integers(0, 300, width).astype(np.int32)
    assert np.array_equal(looked_up(table, index, in_memory=True), table[index])


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_numbers_of_registers_are_those_at_their_places(dtype):
    """Tables of less than a register and of eight, indices of less and of two and a half."""
    room = lookups.room(TRIPLE, ir.IntType(8 * np.dtype(dtype).itemsize))
    if not room:
        pytest.skip("this machine permutes no such registers")
    for size in (1 << k for k in range(room.bit_length())):
        for width in (1, 3, 8, 12, 16, 32, 40):
            table = RNG.integers(-(2**15), 2**15, size).astype(dtype)
            index = RNG.integers(0, size, width).astype(dtype)
            assert np.array_equal(looked_up(table, index, in_memory=False), table[index]), (size, width)


def test_what_is_known_of_tables():
    assert kind_of_table("steps", (-0x7F800000, 0, 0x7F7FFFFF, UNREACHED)) == FINITE
    assert kind_of_table("steps", (0, 0x7F800000, UNREACHED)) == ""  # from infinity on
    assert kind_of_table("steps", (-0x7F800001, 0, UNREACHED)) == ""
    assert kind_of_table("values", tuple(k << 16 for k in range(-16, 16))) == UPPER
    assert kind_of_table("codes", tuple(range(256))) == LOWER
    assert kind_of_table("codes", tuple(range(16))) == ""  # a register holds them as they are
    assert kind_of_table("values", (*range(31), 1 << 16)) == ""


def test_steps_that_lie_close_are_joined_in_shorter_runs():
    """A list with two steps in a run of 2**16 keys was searched: a fifth of the speed."""
    codes = tuple(range(256))
    for apart, words in ((1 << 17, 1 << 16), (1 << 15, 1 << 17)):
        steps = tuple(0x3F800001 + apart * k for k in range(255))
        made = joined_codes(steps, codes)
        assert made is not None
        assert len(made) == words


def test_runs_with_several_steps_are_cut_into_parts():
    """Two values of 256 at random lie closer than runs are long: all of the list was searched."""
    codes = tuple(range(256))
    for steps, parts in (
        ([0x3F800001, 0x3F804001], 2),
        ([0x3F800001, 0x3F802001], 4),
        ([0x3F800005, 0x3F800005, 0x3F800007], 1 << 14),
        ([-0x3F800001, -0x3F804002, 0x40000001, 0x40004001], 4),
        ([0x3F800005, 0x3F800005], 0),  # several at one key are one
    ):
        steps = sorted(steps)
        made = joined_codes((*steps, *(UNREACHED,) * (255 - len(steps))), codes)
        assert made is not None
        assert len(made) == ((1 << 17) + parts if parts else 1 << 16)
    close = [start + k for start in range(0x3F800005, 0x42000005, 1 << 23) for k in range(3)]
    assert joined_codes(tuple(close), codes) is None  # five runs of a part for every other key


# ---- all tables, all machines --------------------------------------------------------------------

DENSE = [1 + k * 2.0**-16 for k in range(128)]  # too close for any run that is not cut
ADJACENT = [(1 + k * 2.0**-23) * 2.0**e for e in range(8) for k in range(16)]  # and for parts
BOOKS = {
    "nf4": nx.nf4,
    "bnb_fp4": nx.bnb_fp4,
    "hifloat8": nx.hifloat8,
    "posit8": nx.posit8,
    "binary8p4se": nx.p3109(8, 4),
    "binary6p3uf": nx.p3109(6, 3, signed=False, extended=False),
    "both_zeros": nx.codebook_format([3.0, -0.0, 0.0, nan], beyond=5.0, name="t_both_zeros"),
    "ends": nx.codebook_format([0, 0.5, 3.4028234663852886e38, -1, inf, -inf, nan, 7], name="t_ends"),
    "tiny": nx.codebook_format([-1e-45, 0.0, 1e-45, 3e-45], name="t_tiny"),
    "two": nx.codebook_format([-1.0, 1.0], name="t_two"),
    "dense": nx.codebook_format([*DENSE, *(-v for v in DENSE)], name="t_dense"),
    "adjacent": nx.codebook_format([*ADJACENT, *(-v for v in ADJACENT)], name="t_adjacent"),
    "ulps": nx.codebook_format([1 + k * 2.0**-23 for k in range(256)], name="t_ulps"),
    "subnormal": nx.codebook_format([k * 2.0**-149 for k in range(-128, 128)], name="t_subnormal"),
    **{
        f"random{n}": nx.codebook_format(RNG.standard_normal(n), name=f"t_random{n}")
        for n in (8, 16, 32, 64, 128, 256)
    },
}


def inputs(d: object) -> np.ndarray:
    """Every bfloat16, what lies around every step, and numbers in between."""
    steps = np.array([n for n in grid(d, "half_even", "saturate").steps if n != UNREACHED], np.int64)
    around = (steps[:, None] + np.arange(-3, 4)).ravel()
    bits = np.where(around < 0, (-1 - around) | 0x80000000, around).astype(np.uint32)
    every = np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)
    some = np.random.default_rng(7).integers(0, 1 << 32, 5000, np.uint32)
    return np.concatenate([every, bits, some]).view(np.float32)


def everything(name: str) -> list[np.ndarray]:
    """Codes and values of a book, packed ones, and those of groups."""
    d = BOOKS[name]
    x = inputs(d)
    made = [d.encode_packed(x), d.decode(np.arange(1 << d.bits, dtype=np.uint8))]
    for rounding in ("half_even", "floor", "stochastic"):  # the others' kernels differ in nothing but numbers
        for overflow in d.overflows:
            options = {"rounding": rounding, "overflow": overflow}
            options |= {"seed": 5} if rounding == "stochastic" else {}
            made += [d.encode(x, **options), d.round(x, **options)]
    with np.errstate(all="ignore"):
        made += [d.encode(x.astype(np.float16)), d.encode(x[-5000:-4000].astype(np.float64))]
    finite = np.clip(np.nan_to_num(x), -1e30 if d.signed else 0.0, 1e30)
    for size in (64, 12):
        rows = finite[: finite.size // size * size].reshape(-1, size)
        made.append(nx.fake_quantize(rows, d, scheme=nx.per_group(size)))
        made.append(nx.quantize(rows, d, scheme=nx.per_group(size)).packed)
    return [np.asarray(part) for part in made]


def hashes(name: str) -> list[str]:
    """Of everything; NaN has one spelling."""
    found = []
    for part in everything(name):
        if part.dtype.kind == "f":
            part = np.where(np.isnan(part), np.float32(nan), part)
        found.append(hashlib.sha256(part.tobytes()).hexdigest())
    return found


@pytest.mark.turns(6)
@pytest.mark.parametrize("name", BOOKS)
def test_every_table_gives_the_bits_that_numpy_gives(name):
    made = {}
    for executor in ("array", "cpu"):
        with nx.use(executor):
            made[executor] = everything(name)
    for came, due in zip(made["cpu"], made["array"], strict=True):
        assert_same_bits(came, due)


AVX2 = "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+sse4.2"
AVX512 = f"{AVX2},+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl"
MACHINES = {
    "generic": ("generic", "", "sse2"),
    "avx2": ("haswell", AVX2, "avx2"),
    "avx512": ("skylake-avx512", AVX512, "avx512bw"),
}
ELSEWHERE = """
import json, sys
from tests.backends.cpu.test_lookups import hashes
print(json.dumps({name: hashes(name) for name in sys.argv[1:]}))
"""


@pytest.mark.turns(6)
@pytest.mark.parametrize("machine", MACHINES)
def test_other_machines_look_up_the_same_bits(machine, tmp_path):
    """Without permutations, with those of eight numbers, and without shifts that take bits from elsewhere."""
    cpu, features, needed = MACHINES[machine]
    if not binding.get_host_cpu_features().get(needed):
        pytest.skip(f"this CPU has no {needed}")
    names = ["nf4", "hifloat8", "both_zeros", "dense", "random32"]
    env = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features, "NUMERICS_CACHE_DIR": str(tmp_path)}
    found = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *names], env={**os.environ, **env}, capture_output=True, text=True,
        timeout=400,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-3000:]
    came = json.loads(found.stdout)
    assert came == {name: hashes(name) for name in names}
