"""Faults of memory, of calls and of threads, planted in a right kernel of every kind.

A fault takes the right kernel and how many arrays and numbers it is given, and gives the kernel that has it.
"""

from __future__ import annotations

import threading
import time

import numpy as np

import numerics as nx
from numerics.conform.task import Task
from tests.helpers.own_draws import RIGHT
from tests.helpers.own_draws import kernel as own_draws

ROOM = 1 << 22  # bytes of a buffer that calls share


def task_answers(dtype, kind):
    """The right kernel of a kind that finds its scales: codes and scales, or values."""
    task = Task.of(dtype, kind)

    def kernel(x):
        found = task.answer(np.ascontiguousarray(x).reshape(np.shape(x)))
        return found if kind == "fake_quantize" else tuple(part for part in found if part is not None)

    return kernel


def affine(x, scale, zero_point):
    plain = np.ascontiguousarray(x).reshape(np.shape(x))
    return Task.of("int8", "affine").affine_codes(plain, scale, zero_point)


def by_channels(x, scale, zero_point):
    scale, zero_point = (part.reshape(-1, *[1] * (x.ndim - 1)) for part in (scale, zero_point))
    with np.errstate(all="ignore"):
        y = np.where(np.isnan(x), 0, x / scale).astype(np.float64)
    return np.clip(np.rint(y) + zero_point, -128, 127).astype(np.int8)


def mxfp4(x):
    made = nx.mxfp4.encode(x)
    return made.codes, made.scale


KINDS = {
    "encode": (lambda x: nx.fp8_e4m3.encode(x), 1, "fp8_e4m3", {}),
    "round": (lambda x: nx.fp8_e4m3.round(x), 1, "fp8_e4m3", {"kind": "round"}),
    "decode": (lambda c: nx.fp8_e4m3.decode(c), 1, "fp8_e4m3", {"kind": "decode"}),
    "blocks": (mxfp4, 1, "mxfp4", {}),
    "rounded blocks": (lambda x: nx.mxfp4.round(x), 1, "mxfp4", {"kind": "round"}),
    "decoded blocks": (
        lambda c, s: nx.Blocks(nx.mxfp4, -1, c, s).decode(),
        *(2, "mxfp4", {"kind": "decode"}),
    ),
    "affine": (affine, 3, "int8", {"kind": "affine"}),
    "affine by channels": (by_channels, 3, "int8", {"kind": "affine", "scheme": "per_channel(0)"}),
    "pack": (lambda c: nx.fp4.pack(c), 1, "fp4", {"kind": "pack"}),
    "unpack": (lambda b, n: nx.fp4.unpack(b, n), 2, "fp4", {"kind": "unpack"}),
    "quantize": (task_answers("int8 per_token", "quantize"), 1, "int8 per_token", {"kind": "quantize"}),
    "fake_quantize": (
        task_answers("int8 per_token", "fake_quantize"),
        *(1, "int8 per_token", {"kind": "fake_quantize"}),
    ),
    "own draws": (
        lambda x, drawn=own_draws(RIGHT["PCG64"](0)): drawn(x),  # noqa: B008
        *(1, "fp8_e5m2", {"rounding": "stochastic", "draw": "own"}),
    ),
}
"""name -> (a right kernel, what it is given, format, options)."""


def parts(found):
    return [np.array(part) for part in (found if isinstance(found, tuple) else (found,))]


def like(found, made):
    return tuple(made) if isinstance(found, tuple) else made[0]


def filling(keeps):
    """Fills its results, but what `keeps(result, which)` says: that is left as it was."""

    def fault(kernel, given):
        def fills(*arrays):
            for which, (to, part) in enumerate(
                zip(arrays[given:], parts(kernel(*arrays[:given])), strict=True)
            ):
                held = to.copy()
                to[...] = part.view(to.dtype) if part.itemsize == to.itemsize else part
                left = keeps(to, which)
                to[left] = held[left]

        return fills

    return fault


def last(to, which):
    """The last number of the first result."""
    left = np.zeros(to.shape, bool)
    left.reshape(-1)[-1:] = which == 0
    return left


def adds(kernel, given):
    """Adds its codes, or the bytes of its values, to what the memory of its results holds."""

    def fills(*arrays):
        for to, part in zip(arrays[given:], parts(kernel(*arrays[:given])), strict=True):
            to.view(np.uint8)[...] |= np.ascontiguousarray(part).view(np.uint8)

    return fills


def changed(change):
    """What came, its parts changed by `change(parts, what was given)`."""

    def fault(kernel, given):
        bend = change()
        return lambda *arrays: (lambda found: like(found, bend(parts(found), arrays)))(kernel(*arrays))

    return fault


def kept_buffers(many):
    """As many buffers of each size as results of calls stand in, in turn."""

    def change():
        rooms, calls = {}, [0]

        def bend(found, _):
            calls[0] += 1
            made = []
            for which, part in enumerate(found):
                key = calls[0] % many, which, part.shape, part.dtype
                room = rooms.setdefault(key, np.empty_like(part))
                room[...] = part
                made.append(room)
            return made

        return bend

    return changed(change)


def first_of_a_shape(key):
    """The first result of a shape is given for ever."""

    def change():
        every = {}
        return lambda found, given: every.setdefault((*map(np.shape, given), key(given)), found)

    return changed(change)


def scratch_of_the_call_before():
    """What a loop of 8 leaves over comes from the call before."""
    kept = {}

    def bend(found, _):
        flat = found[0].reshape(-1)
        whole = flat.size // 8 * 8
        old, now = kept.get(flat.dtype, flat[:0]), flat[whole:].copy()
        flat[whole : whole + len(old)] = old[: flat.size - whole]
        if len(now):
            kept[flat.dtype] = now
        return found

    return bend


def every_fiftieth():
    """One bit of the first number of every fiftieth call is wrong."""
    calls = [0]

    def bend(found, _):
        calls[0] += 1
        if calls[0] % 50 == 0 and found[0].size:
            found[0].reshape(-1).view(np.uint8)[0] ^= 1
        return found

    return bend


def through_a_shared_room():
    """The first result lies for a while where that of another thread may come to lie."""
    room = np.empty(ROOM, np.uint8)

    def bend(found, _):
        size = found[0].nbytes
        if size > ROOM:
            return found
        shared = room[:size].view(found[0].dtype).reshape(found[0].shape)
        shared[...] = found[0]
        time.sleep(0)
        return [shared.copy(), *found[1:]]

    return bend


def inputs_in_a_shared_room(kernel, given):
    """So does the first input."""
    room = np.empty(ROOM, np.uint8)

    def call(x, *others):
        if x.nbytes > ROOM:
            return kernel(x, *others)
        shared = room[: x.nbytes].view(x.dtype).reshape(x.shape)
        shared[...] = x
        time.sleep(0)
        return kernel(shared.copy(), *others)

    return call


def wrong_in_a_thread():
    """All but the first thread lose the result."""
    first = threading.get_ident()

    def bend(found, _):
        if threading.get_ident() != first:
            found[0][...] = 0
        return found

    return bend


FILLS = {"fills": True}
FAULTS = {
    "nothing is written": (filling(lambda to, which: np.ones(to.shape, bool)), FILLS, "written"),
    "the last number is not written": (filling(last), FILLS, "written"),
    "the last result is not written where its size is odd": (
        filling(lambda to, which: np.full(to.shape, to.size % 2 == 1 and (which == 1 or to.size > 2))),
        *(FILLS, "written"),
    ),
    "results are added to memory": (adds, FILLS, "written"),
    "a buffer that is used again": (kept_buffers(1), {}, "repeatable"),
    "four buffers in turn": (kept_buffers(4), {}, "repeatable"),
    "sixteen buffers in turn": (kept_buffers(16), {}, "repeatable"),
    "the first of a shape": (first_of_a_shape(lambda given: 0), {}, "repeatable"),
    "the first of a shape and a first number": (
        first_of_a_shape(lambda given: np.ascontiguousarray(given[0]).reshape(-1)[:1].tobytes()),
        *({}, "repeatable"),
    ),
    "the rest of the call before": (changed(scratch_of_the_call_before), {}, "repeatable"),
    "every fiftieth call": (changed(every_fiftieth), {}, "repeatable"),
    "results in a shared room": (changed(through_a_shared_room), {}, "threads"),
    "inputs in a shared room": (inputs_in_a_shared_room, {}, "threads"),
    "lost in a second thread": (changed(wrong_in_a_thread), {}, "threads"),
}
"""name -> (what plants it, options, the law that it breaks)."""


def planted(kind, fault):
    """A kernel of that kind with that fault; its format, its options, and the law that it breaks."""
    kernel, given, dtype, options = KINDS[kind]
    plant, more, law = FAULTS[fault]
    return plant(kernel, given), dtype, options | more, law
