"""Plans in files whose rows say two things, or what nothing acts on: refused with the row's name.

Such edits were carried out in part, without a word: a site under another row's name left a tensor in floats.
"""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import nn

import numerics as nx

X = torch.ones(4, 64)
MODES = ("eager_mode", "fx_graph_mode")


def mlp():
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))


def edited(mode, number, changed):
    """A plan as of a file, with a row changed, or without it."""
    came = nx.plan(mlp(), "int4", "int8", observer="min_max", example=X, mode=mode).as_dict()
    came["rows"][number] |= changed or {}
    if changed is None:
        del came["rows"][number]
    return came


def spec(name, **options):
    return nx.QuantSpec(name, **options).text


IN, OUT = "0:linear[0]", "0:linear[out]"
OBSERVED = {"observer": "min_max"}
WRONG = {  # the row, what is changed in it, what the refusal says
    "site of another row": (4, {"site": ["2", "linear", 0, 0]}, IN),
    "doubled site": (4, {"site": ["2", "linear", 0, 0], "name": "2:linear[0]"}, "two rows"),
    "number": (4, {"site": ["0", "linear", 5, 0], "name": "0:linear#5[0]"}, "0:linear#5"),
    "function": (4, {"site": ["0", "conv2d", 0, 0], "name": "0:conv2d[0]", "uses": ["0:conv2d"]}, "0:conv2d"),
    "kind of site": (4, {"kind": "output"}, IN),
    "weights": (4, {"weights": ["nix"]}, IN),
    "other weights": (4, {"weights": ["2.weight"]}, IN),
    "no activation": (4, None, "0"),
    "observer of a parameter": (0, OBSERVED, "0.weight"),
    "group of a parameter": (0, {"group": "g"}, "0.weight"),
    "weights of a parameter": (0, {"weights": ["0.bias"]}, "0.weight"),
    "graph of a parameter": (0, {"graph": True}, "0.weight"),
    "observer without a spec": (4, {"spec": None}, IN),
    "value_bits": (0, {"value_bits": 16}, "0.weight"),
    "names of none": (0, {"also": ["nix"]}, "nix"),
    "kind of parameter": (1, {"kind": "buffer"}, "0.bias"),
    "other names": (0, {"also": ["2.weight"]}, "2.weight"),
    "uses": (0, {"uses": ["0:conv"]}, "0"),
    "axis of blocks": (0, {"spec": spec("mxfp4", axis=5)}, "0.weight"),
    "channels": (2, {"spec": spec("int8", scheme="per_channel(7)")}, "2.weight"),
}  # fmt: skip
LOOKED_FOR = ("function", "other weights", "uses")  # what only a look at the model tells, with an example


@pytest.mark.turns(6)
@pytest.mark.parametrize("given", [True, False], ids=("example", "alone"))
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("which", WRONG)
def test_rows_that_do_not_agree_are_refused_by_name(which, mode, given, tmp_path):
    if not given and (mode == "fx_graph_mode" or which in LOOKED_FOR):
        return
    number, changed, said = WRONG[which]
    file = tmp_path / "plan.json"
    file.write_text(
        json.dumps({"format": "numerics plan 1", **edited(mode, number, changed)}), encoding="utf-8"
    )
    with pytest.raises(nx.NumericsError) as caught:
        nx.wrap(mlp(), nx.Plan.load(file), **({"example": X} if given else {}))
    assert said in str(caught.value)


@pytest.mark.parametrize("mode", MODES)
def test_what_planning_makes_agrees(mode):
    model = mlp()
    for options in ({}, {"outputs": "int8", "share": True}, {"rules": {"2": None}}):
        made = nx.plan(model, "int4", "int8", observer="min_max", example=X, mode=mode, **options)
        came = nx.Plan.from_dict(made.as_dict())
        batches = [X, X + 1]
        one, other = (nx.calibrate(nx.wrap(model, p, example=X), batches) for p in (made, came))
        assert torch.equal(one(X), other(X))


def test_a_row_that_was_changed_in_python_is_looked_at_too():
    made = nx.plan(mlp(), "int4", example=X)
    made.rows[0] = dataclasses.replace(made.rows[0], spec=nx.QuantSpec("mxfp4", axis=5))
    with pytest.raises(nx.NumericsError, match=r"0\.weight of shape"):
        nx.wrap(mlp(), made)
