"""Tensors such as networks have: of weights, after a relu, of pixels, of one number, sorted; of blocks."""

import numpy as np
import pytest

import numerics as nx
from numerics.conform.checking import check
from numerics.conform.effort import AS_EVER
from numerics.conform.inputs.alike import tensors
from numerics.conform.laws import block_layouts, block_trials
from numerics.conform.laws.elements import filling
from numerics.conform.laws.rows import fields_of_rows
from numerics.conform.targets.target import Target
from numerics.conform.task import Task

KINDS = {
    "weights": lambda x: x.size >= 1 << 16 and (np.abs(x) < 1).all() and x.any(),
    "weights in an octave": lambda x: 2 < np.abs(x).max(initial=0) < 8,
    "what a relu leaves": lambda x: (x >= 0).all() and 0.3 < (x == 0).mean() < 0.8,
    "zeros for the most part": lambda x: (x == 0).mean() > 0.9 and x.any() and (x < 0).any(),
    "pixels": lambda x: (x == np.rint(x)).all() and (x >= 0).all() and 200 < x.max(initial=0) <= 255,
    "a mask": lambda x: np.isin(x, (0, 1)).all() and len(np.unique(x)) == 2,
    "zeros": lambda x: x.size >= 1 << 16 and not x.view(np.uint32).any(),
    "one number": lambda x: x.size > 1000 and x[0] != 0 and (x == x[0]).all(),
    "sorted": lambda x: (np.diff(x) >= 0).all() and x[0] < x[-1],
}


@pytest.mark.parametrize("dtype", ["fp8_e4m3", "int8", "fp4"])
def test_tensors_of_every_such_kind_are_asked(dtype):
    target = Target(lambda x: x, Task.of(dtype))
    table = filling(target).table
    x = np.append(table, np.arange(256, dtype=np.float32))
    found = [line for _, line in tensors(x, x, long=False)]
    for name, is_such in KINDS.items():
        assert any(line.size > 1000 and is_such(line) for line in found), name


def test_what_is_due_to_them_is_told_by_their_places():
    x = np.float32([-1.5, 0.25, 0, 1, 3, 200])
    for numbers, line in tensors(x, x, long=False):
        assert (numbers.by_place(line, nx.fp8_e4m3.encode) == nx.fp8_e4m3.encode(line)).all()


@pytest.mark.turns(4)
@pytest.mark.parametrize(("kind", "name"), [("encode", "weights"), ("decode", "what a relu leaves")])
def test_a_shortcut_for_such_a_tensor_was_never_taken(kind, name):
    def kernel(given):
        result = np.array(getattr(nx.fp8_e4m3, kind)(given))
        values = np.ravel(given if kind == "encode" else result)
        with np.errstate(invalid="ignore"):
            such = values.size > 1000 and KINDS[name](values)
        return result[::-1] if such else result

    assert check(kernel, "fp8_e4m3", kind=kind, effort="quick").law == "layout"


OF_BLOCKS = {
    "all negative": lambda x: (x < 0).all(),
    "the last one NaN": lambda x: np.isnan(x.flat[-1]) and np.isfinite(x.flat[:-1]).all(),
    "the first one NaN": lambda x: np.isnan(x.flat[0]) and np.isfinite(x.flat[1:]).all(),
    "the first one -0": lambda x: x.flat[0] == 0 and np.signbit(x.flat[0]) and np.isfinite(x).all(),
    "weights in an octave": lambda x: 2 < np.abs(x).max() < 8,
    "zeros for the most part": lambda x: (x == 0).mean() > 0.5 and x.any(),
}


@pytest.mark.parametrize(("dtype", "axis"), [("mxfp4", -1), ("mx6", 0), ("nvfp4", 1)])
def test_tensors_of_blocks_of_every_such_kind_are_asked(dtype, axis):
    task = Task.of(dtype, axis=axis)
    rows = block_trials.probes(task)
    known = block_layouts.Known((rows,), (), fields_of_rows(task, rows), np.arange(len(rows)))
    met = set()

    def ask(given, due):
        x = given[0]
        with np.errstate(invalid="ignore"):
            met.update(name for name, is_such in OF_BLOCKS.items() if is_such(x))

    block_layouts.everything(task, known, Target(lambda x: x, task).takes, ask, AS_EVER)
    assert met == set(OF_BLOCKS)
