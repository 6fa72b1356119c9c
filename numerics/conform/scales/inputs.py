"""Tensors for kernels that find their scales: what decides a scale, where it stands, and what shares it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from numerics.conform.inputs import narrow, shapes
from numerics.conform.inputs.spread import rank_of, shape_of
from numerics.conform.scales.groups import Groups, groups_of
from numerics.conform.scales.rule import LARGEST, MOST_OF, REFERENCE, Array, Float32, Rule
from numerics.conform.takes import ANYTHING, Takes
from numerics.formats.dtype import Element
from numerics.tensor.scheme import Scheme

SIMPLE = (1.0, 3.0, 0.5, 5.0, 100.0, 0.1, 7.0, 1000.0, 0.3, 448.0, 127.0, 65000.0, 1e-3)
"""Largest magnitudes that are asked first."""
ENDS = (
    2.0**-149, 3 * 2.0**-149, 2.0**-140, 2.0**-130, 2.0**-126, 2.0**-120, 1e-30, 1e-20, 1e30, 3e38,
    float(LARGEST), float(LARGEST) / 2, 65504.0, 57344.0, 2.0**-14, 2.0**-24, 1e-12, 5e-13, 1e-10, 3e-11,
    1e-8, 4e-9, 1e-7, 5e-8, 1e-6, 1e-5, 5e-6, 1e-4, 4e-5, 1.5e-3, 1e-2,
)  # fmt: skip
"""The ends of the types, and both sides of what kernels are known to clamp at."""
SHORT = (*range(1, 131), 255, 256, 257, 320, 511, 512, 513, 1023, 1024, 1025)
LONG = (
    *((1 << k) + more for k in range(11, 18) for more in (-1, 0, 1, 7)),
    (1 << 18) - 1, (1 << 18) + 7, (1 << 19) + 1, 1 << 20, (1 << 20) + 7,
)  # fmt: skip
"""How many numbers share a scale."""
HIDDEN = (768, 1024, 2048, 3072, 4096, 5120, 70000)
"""Numbers of a row, or of a tensor, that networks have; and of one past 2**16."""
BESIDE = (0.3, -0.02, 0.0, 0.11, -0.6, 0.07, 0.9)
"""Small numbers beside one of 1 and more."""
FAR_CUT = (1 << 20) + 1024
"""Numbers of a tensor, or of a row, that ends in a lone maximum; a quarter of the room, at most."""
LONG_CUT = 8192  # numbers of a row, of whose last few are asked
EACH = 130  # numbers: of so many, every place is asked
ROWS = 260
ANY = 1 << 30  # numbers that may share a scale, where nothing says how many
WHOLE = 4  # times that groups of one length are asked
ROOM = 1 << 22  # numbers of a tensor of whole groups, about
PLAIN = ANYTHING._replace(finite=True)
LINES = 1 << 18  # numbers of lines, about
MOST = 1 << 15  # codes whose values, and middles, are asked
EMPTY, NAN, INFINITE, NOTHING = 1, 2, 3, 4
"""What a group may be: zeros, with NaN, with Inf, without a finite number."""


class Turns(NamedTuple):
    """The largest numbers of groups, in turn; whether they stand in each place in turn, and from which."""

    largest: tuple[float, ...] = ()
    in_turn: bool = False
    turn: int = 0


DRAWN = Turns()


@lru_cache(maxsize=64)
def marks(d: Element) -> NDArray[np.float64]:
    """The values of a format, and the middles between them; of a long one every so many."""
    step = max(1, (1 << d.bits) // MOST)
    codes = np.arange(0, 1 << d.bits, step).astype(d.code_dtype)
    values = np.unique(REFERENCE.decode(codes, d).astype(np.float64))
    values = values[np.isfinite(values)]
    return np.concatenate([values, (values[1:] + values[:-1]) / 2])


def shape_with(scheme: Scheme, groups: int, size: int) -> tuple[int, ...]:
    """A shape of so many groups of so many numbers each; of groups that are smaller, fewer numbers.

    >>> shape_with(Scheme.parse("per_token"), 3, 5), shape_with(Scheme.parse("per_group(4, axis=0)"), 3, 9)
    ((3, 5), (4, 3))
    """
    if scheme.kind == "per_tensor":
        return (size,)
    if scheme.block is not None:
        rows, columns = scheme.block
        wide = min(size, columns)
        return groups * min(rows, -(-size // wide)), wide
    if scheme.kind == "per_token":
        return groups, size
    assert scheme.axis is not None
    rank = rank_of(scheme)
    other = 0 if scheme.axis % rank == rank - 1 else -1
    shape = [1] * rank
    along, across = (groups, size) if scheme.size is None else (min(size, scheme.size), groups)
    shape[scheme.axis], shape[other] = along, across
    return tuple(shape)


def tensors(rule: Rule, takes: Takes, quick: bool) -> Iterator[Float32]:
    """Groups of every length in whose every place the largest magnitude stands, of either sign.

    Where groups have a length, and whole ones alone are taken, of that length.
    """
    rng, longest = np.random.default_rng(53), _longest(rule.scheme)
    whole = takes.whole_blocks and longest < ANY
    for size in (longest,) if whole else (3, 8, 1, 2):
        yield from _lone(rule, size, rng, takes._replace(finite=True), SIMPLE)
    for size in (longest,) * WHOLE if whole else SHORT:
        yield from _lone(rule, size, rng, takes)
    yield from _every(rule, rng, takes)
    for turn, size in enumerate(LONG[1::2] if quick else LONG):
        if size <= longest and not whole:
            shape = shape_with(rule.scheme, max(2, min(16, (1 << 17) // size)), size)
            yield filled(rule, shape, rng, takes, Turns((), True, 2 * turn + turn // 2 % 2))


def _longest(scheme: Scheme) -> int:
    """How many numbers may share a scale."""
    return math.prod(scheme.block) if scheme.block else scheme.size or ANY


def whole(scheme: Scheme, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The least shape of whole groups in which one fits.

    >>> whole(Scheme.parse("per_group(4)"), (3, 5)), whole(Scheme.parse("per_block((2, 3))"), (3, 3))
    ((3, 8), (4, 3))
    """
    found = list(shape)
    if scheme.block is not None:
        found[-2:] = (-(-n // size) * size for n, size in zip(shape[-2:], scheme.block, strict=True))
    elif scheme.size is not None and scheme.axis is not None:
        found[scheme.axis] = -(-found[scheme.axis] // scheme.size) * scheme.size
    return tuple(found)


def _lone(
    rule: Rule, size: int, rng: np.random.Generator, takes: Takes, largest: tuple[float, ...] = ()
) -> Iterator[Float32]:
    """Of one length; of a tensor with one scale, a tensor for each place."""
    if size > _longest(rule.scheme):
        return
    turns = 2 * size if size <= EACH else 8
    if rule.scheme.kind != "per_tensor":
        count = max(min(turns, ROWS), len(largest))
        yield filled(rule, shape_with(rule.scheme, count, size), rng, takes, Turns(largest, True))
        return
    places = range(turns if size in (*range(1, 10), 31, 32, 33, 64, 65) else 4)
    for turn in (*places, *range(len(largest))):
        yield filled(rule, (size,), rng, takes, Turns(largest[turn % len(largest or "1") :][:1], True, turn))


def _every(rule: Rule, rng: np.random.Generator, takes: Takes) -> Iterator[Float32]:
    """Every number of a type of 16 bits as the largest of a group; of float32 the ends and many others."""
    every = narrow.every(rule.inputs) if rule.inputs != "float32" else largest_of(rule, 1 << 13, rng)
    takes = takes._replace(finite=True)
    every = np.unique(np.abs(every[np.isfinite(every) & (every != 0)]))
    if takes.whole_blocks and _longest(rule.scheme) < ANY:
        every = every[:: -(-len(every) * _longest(rule.scheme) // ROOM)]
    if rule.scheme.kind == "per_tensor":
        for one in every[:: -(-len(every) // 200)]:
            yield filled(rule, (3,), rng, takes, Turns((float(one),), True))
    else:
        yield filled(rule, shape_with(rule.scheme, len(every), 3), rng, takes, Turns(tuple(every.tolist())))


def drawn(rule: Rule, size: int, rng: np.random.Generator, takes: Takes) -> Float32:
    """A tensor of about so many numbers."""
    return filled(rule, shape_of(rule.scheme, size), rng, takes)


def largest_of(rule: Rule, count: int, rng: np.random.Generator) -> Float32:
    """Largest magnitudes: of a network, of the whole of float32, and of the ends."""
    end, least = rule.end, rule.least.value
    ends = [*ENDS, *(2.0**k for k in range(-20, 16, 3)), end, end * (1 + 2.0**-23), end / 3, 2 * end]
    for at in (least, least * end) if least else ():
        ends += [at * part for part in (0.5, 1 - 2.0**-23, 1.0, 1 + 2.0**-23, 2.0)]
    kind = rng.random(count)
    found = np.exp2(rng.uniform(-12, 10, count))
    found = np.where(kind < 0.15, np.exp2(rng.uniform(-149, 127.9, count)), found)
    found = np.where(kind > 0.8, np.array(ends)[rng.integers(0, len(ends), count)], found)
    return narrow.narrowed(np.minimum(found, MOST_OF[rule.inputs]).astype(np.float32), rule.inputs)


def filled(
    rule: Rule, shape: tuple[int, ...], rng: np.random.Generator, takes: Takes, turns_of: Turns = DRAWN
) -> Float32:
    """A tensor of groups whose other numbers are values and middles under the scale that is due, or beside.

    takes: whole groups alone, or finite numbers alone.  turns_of: the largest numbers of the groups, and
    their places.
    """
    largest, in_turn, turn = turns_of
    shape = whole(rule.scheme, shape) if takes.whole_blocks else shape
    groups = groups_of(rule.scheme, shape)
    count = len(groups.starts)
    x = np.zeros(math.prod(shape), np.float32)
    if not x.size:
        return x.reshape(shape)
    most = np.resize(np.array(largest, np.float32), count) if largest else largest_of(rule, count, rng)
    with np.errstate(all="ignore"):
        x = _about(rule, most, np.repeat(np.arange(count), groups.sizes), rng)
    turns = np.arange(count) + turn
    place = _places(turns // 2, groups.sizes) if in_turn else rng.integers(0, groups.sizes)
    negative = turns % 2 == 1 if in_turn else rng.random(count) < 0.5
    x[groups.starts + place] = np.where(negative, -most, most)
    if not takes.finite or not largest:
        _mixed(x, groups, rng, takes.finite)
    return groups.laid(x, shape)


def _places(turns: Array, sizes: Array) -> Array:
    """In turn every place of short groups; of long ones the ends, and what vectors and tiles leave over.

    >>> _places(np.arange(4), np.array([3, 3, 257, 257])).tolist()
    [0, 1, 128, 256]
    """
    tiles = [sizes - sizes % tile - (sizes % tile == 0) for tile in (256, 1024, 8, 64)]
    some = [0 * sizes, sizes - 1, sizes // 2, *tiles, sizes // 3]
    return np.where(sizes <= EACH, turns % sizes, np.choose(turns % len(some), some))


def standing(rule: Rule, shape: tuple[int, ...], places: Array) -> Float32:
    """A tensor of small numbers, in each of whose groups a larger one stands: in such a place of it.

    >>> from numerics.conform.scales.rule import ScalesClaim
    >>> x = standing(Rule.of("int8", ScalesClaim("per_token")), (2, 3), np.array([2, 0]))
    >>> abs(x).argmax(axis=1).tolist()
    [2, 0]
    """
    groups = groups_of(rule.scheme, shape)
    x = np.resize(BESIDE, len(groups.order)).astype(np.float32)
    turns = np.arange(len(groups.starts))
    largest = (1 + turns % 7) * np.where(rule.spec.symmetric & (places // 2 + turns % 2) % 2 == 1, -1, 1)
    x[groups.starts + places % groups.sizes] = largest
    return groups.laid(x, shape)


def in_many_places(rule: Rule, shape: tuple[int, ...], count: int) -> Iterator[Float32]:
    """Tensors of one shape, in whose groups a lone maximum stands in so many places, one after the other.

    >>> from numerics.conform.scales.rule import ScalesClaim
    >>> x = list(in_many_places(Rule.of("int8", ScalesClaim("per_token")), (2, 4), 4))
    >>> [int(row.argmax()) for tensor in x for row in abs(tensor)]
    [0, 1, 2, 3]
    """
    groups = groups_of(rule.scheme, shape)
    if not len(groups.starts):
        return
    places = many_places(int(groups.sizes.max()), count)
    for start in range(0, len(places), len(groups.starts)):
        yield standing(rule, shape, np.resize(np.roll(places, -start), len(groups.starts)))


def many_places(size: int, count: int) -> Array:
    """So many places of a row, if it has as many: of every lane of a vector, spread over its tiles.

    >>> many_places(3, 8).tolist(), many_places(12, 4).tolist()
    ([0, 1, 2], [0, 5, 10, 3])
    """
    if size <= count:
        return np.arange(size)
    lanes = np.arange(count)
    return lanes + lanes % (size // count) * count


def usual(rule: Rule, takes: Takes, count: int, room: int) -> Iterator[Float32]:
    """Groups as long as those of networks, and of lengths that leave over some of every tile.

    count: in how many places of each a lone maximum stands; of groups past `room` numbers, in fewer.
    """
    scheme, longest = rule.scheme, _longest(rule.scheme)
    if takes.whole_blocks and longest < ANY and scheme.block is None:
        yield from in_many_places(rule, shape_with(scheme, min(count, longest), longest), count)
        return
    sizes = [longest] if scheme.block else sorted({*HIDDEN, min(longest, HIDDEN[-1])})
    for size in sizes:
        if EACH < size <= longest:
            asked = min(count, size, max(1, room // size))
            yield from in_many_places(rule, shape_with(scheme, asked, size), asked)
    for size in shapes.CUT if scheme.block is None else ():
        if EACH < size <= longest:
            places = size - 1 - np.array(shapes.BEFORE_END)[: 2 if size > LONG_CUT else None]
            places = places[places >= 0]
            shape = shape_with(scheme, len(places), size)
            for start in range(len(places) if scheme.kind == "per_tensor" else 1):
                yield standing(rule, shape, np.roll(places, -start)[: len(groups_of(scheme, shape).starts)])
    if scheme.block is None and min(longest, room // 4) >= FAR_CUT:
        yield standing(rule, shape_with(scheme, 1, FAR_CUT), np.array([FAR_CUT - 1]))


def _about(rule: Rule, most: Float32, own: Array, rng: np.random.Generator) -> Float32:
    """Numbers within 15/16 of their group's largest magnitude."""
    d, end = rule.element, rule.end
    at = marks(d)
    if rule.spec.symmetric:
        at = at[np.abs(at) <= end * 15 / 16]
        scale = (most.astype(np.float64) / end)[own]
    else:  # a range from a part of the largest magnitude, either way, to all of it
        scale = (most.astype(np.float64) * rng.choice([1.0, 1.5, 1.9], len(most)) / end)[own]
        at = at - rng.choice([d.min, d.max, (d.min + d.max) // 2 + 0.5])
    exact = at[rng.integers(0, len(at), len(own))] * scale
    limit = most[own].astype(np.float64) * 15 / 16
    x = np.clip(exact, -limit, limit).astype(np.float32)
    moved = x.view(np.int32) + rng.integers(-1, 2, len(x)).astype(np.int32) * ((x != 0) & (np.abs(x) < 3e38))
    kind = rng.random(len(x))
    x = np.where(kind < 0.6, moved.astype(np.int32).view(np.float32), x)
    x = np.where(kind > 0.9, rng.uniform(-0.9, 0.9, len(x)).astype(np.float32) * most[own], x)
    return narrow.narrowed(np.where(kind > 0.97, np.copysign(np.float32(0), x), x), rule.inputs)


def _mixed(x: Float32, groups: Groups, rng: np.random.Generator, finite: bool) -> None:
    """Some groups become zeros; some have NaN or Inf beside their largest number, or nothing finite.

    x: the numbers, group by group.
    """
    kinds = rng.choice(16, len(groups.starts))
    kind = np.repeat(kinds, groups.sizes)
    x[kind == EMPTY] *= np.float32(0)
    if finite:
        return
    at = groups.starts + rng.integers(0, groups.sizes)
    for which, special in ((NAN, np.nan), (INFINITE, np.inf), (NOTHING, -np.inf)):
        x[at[kinds == which]] = special
    x[(kind == NOTHING) & (rng.random(len(x)) < 0.5)] = np.nan


# ---- groups of one length, a row each ----------------------------------------------------------------


def lines(rule: Rule, size: int, rng: np.random.Generator) -> NDArray[np.uint32]:
    """The bits of groups of so many numbers, a row each: the simplest first, as each may be asked once.

    A lone number in every place, of all magnitudes; one more beside it; then groups of every magnitude.
    """
    room = max(64, LINES // size)
    turns = max(256, min(2 * size, room))
    full = filled(rule, (turns, size), rng, PLAIN, Turns(SIMPLE, True))
    largest = np.abs(full).argmax(axis=1)[:, None]
    beside = (largest + 1 + np.arange(turns)[:, None] % max(1, size - 1)) % size
    at = np.arange(size)
    lone = np.where(at == largest, full, np.float32(0))
    two = np.where((at == largest) | (at == beside), full, np.float32(0))
    many = np.abs(largest_of(rule, min(4096, room), rng))
    many = many[many != 0]
    every = filled(rule, (len(many), size), rng, PLAIN, Turns(tuple(many.tolist()), True))
    places = np.resize(many_places(size, turns), (turns, 1))
    ends = np.where(at == places, largest_of(rule, turns, rng)[:, None], np.float32(0))
    drawn = filled(rule, (min(1024, room), size), rng, ANYTHING)
    return _due(rule, np.concatenate([np.zeros_like(lone[:1]), lone, ends, two, full, every, drawn]))


def drawn_lines(rule: Rule, shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint32]:
    """The bits of random groups, a row each."""
    return _due(rule, filled(rule, shape, rng, ANYTHING), True)


def due_lines(rule: Rule, rows: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Those of these groups to which codes are due, by their bits."""
    return _due(rule, rows.view(np.float32))


def _due(rule: Rule, x: Float32, all_of_them: bool = False) -> NDArray[np.uint32]:
    """Those to which codes are due: none are where a scale underflows to 0.  all_of_them: zeros instead."""
    found = rule.find(x)
    none = ((found.scale == 0) & (found.extent > 0)).reshape(-1)
    x = np.where(none[:, None], np.float32(0), x) if all_of_them else x[~none]
    return np.ascontiguousarray(x, np.float32).view(np.uint32)
