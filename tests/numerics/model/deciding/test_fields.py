"""Plans in files whose fields are of other types: refused when they are read, by row and field."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
import torch
from torch import nn

import numerics as nx

X = torch.ones(4, 64)
VALUES = (None, True, -1, 3, 1.5, "", "x", [], {}, [1], ["a"], [[1]], 10**400)


def mlp():
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))


@pytest.fixture(scope="module")
def plain():
    return nx.plan(mlp(), "int4", "int8", example=X).as_dict()


def places(tree, before=()):
    if before:
        yield before
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places(value, (*before, key))


def with_value(plain, place, value):
    made = json.loads(json.dumps({"format": "numerics plan 1", **plain}))
    held = made
    for key in place[:-1]:
        held = held[key]
    held[place[-1]] = value
    return made


def test_a_value_of_another_type_gets_past_the_reading(plain, tmp_path):
    path = tmp_path / "plan.json"
    once = {tuple("#" if isinstance(k, int) else k for k in place): place for place in places(plain)}
    for place in once.values():
        for value in VALUES:
            path.write_text(json.dumps(with_value(plain, place, value)), encoding="utf-8")
            with suppress(nx.NumericsError):
                made = nx.Plan.load(path)
                str(made), made._repr_html_()
                made.save(tmp_path / "again.toml")
                assert nx.Plan.load(tmp_path / "again.toml").as_dict() == made.as_dict()
                nx.wrap(mlp(), made, example=X)(X)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("rows", 0, "shape", 0), True, r"rows\[0\].shape=\[True, 64\]; allowed: a list of sizes"),
        (("rows", 0, "shape", 0), 1.0, r"rows\[0\].shape=\[1.0, 64\]"),
        (("rows", 1, "name"), 3, r"rows\[1\].name=3; allowed: a text"),
        (("rows", 1, "name"), [], r"rows\[1\].name=\[\]"),
        (("rows", 0, "reason"), None, r"rows\[0\].reason=None; allowed: a text"),
        (("rows", 0, "uses"), [1], r"rows\[0\].uses=\[1\]; allowed: a list of texts"),
        (("rows", 0, "graph"), 1, r"rows\[0\].graph=1; allowed: true or false"),
        (("rows", 0, "value_bits"), 0, r"rows\[0\].value_bits=0; allowed: an integer from 1 to 128"),
        (("rows", 0, "observer"), "mse2", r"rows\[0\].observer='mse2'; allowed: one of .*min_max"),
        (("rows", 0, "spec"), "", r"rows\[0\].spec: unknown format ''"),
        (("rows", 0, "obsever"), "mse", r"rows\[0\].obsever is no field; did you mean 'observer'"),
        (("rows", 0, "site"), ["", "linear", 0, 0], r"rows\[0\].site=.*; a row of kind 'parameter' has none"),
        (("rows", -1, "site", 3), 1.5, r"\.site=.*1.5\]; allowed: a module's name"),
        (("rows", -1, "site"), None, r"\.site=None; a row of kind 'activation' has a site"),
        (("rows", -1, "weights"), [3], r"\.weights=\[3\]; allowed: a list of texts"),
        (("rows", 2), 7, r"rows\[2\]=7; allowed: a table of kind, name"),
        (("rows",), {}, r"rows=.*; allowed: a list of rows"),
        (("fold",), {"a": 1}, r"fold=.*; allowed: a table of texts"),
        (("mode",), 3, r"mode=3; allowed: one of eager_mode, fx_graph_mode"),
    ],
)
def test_a_refusal_names_neither_file_nor_field(plain, tmp_path, place, value, said):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(with_value(plain, place, value)), encoding="utf-8")
    with pytest.raises(nx.NumericsError, match=f"plan.json: this is no plan: .*{said}"):
        nx.Plan.load(path)


def test_a_missing_field_is_told_in_pythons_words(plain):
    made = with_value(plain, ("mode",), "eager_mode")
    del made["rows"][0]["shape"]
    with pytest.raises(nx.NumericsError, match=r"rows\[0\].shape is missing; allowed: a list"):
        nx.Plan.from_dict(made)
    with pytest.raises(nx.NumericsError, match=r"no plan: \[\]; allowed: a table of"):
        nx.Plan.from_dict([])


@pytest.mark.parametrize("depth", [10**4, 10**5])
def test_brackets_in_each_other_end_the_reader(tmp_path, depth):
    texts = {
        "a.json": "[" * depth,
        "b.json": '{"format": "numerics plan 1", "rows": ' + "[" * depth + "]" * depth + "}",
        "c.toml": 'format = "numerics plan 1"\nrows = ' + "[" * depth + "]" * depth,
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(nx.NumericsError, match=f"{name}: "):
            nx.Plan.load(tmp_path / name)


@pytest.mark.filterwarnings("ignore:.*no use of them was seen")
@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
def test_a_plan_of_every_kind_of_row_is_not_read_again(mode, tmp_path):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4)
            self.apart = nn.Linear(8, 8)

        def forward(self, x):
            return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))

    made = nx.plan(Model().eval(), "int8", "int8", outputs="int8", observer="min_max", fold=True,
                   example=torch.ones(2, 3, 6, 6), mode=mode)  # fmt: skip
    assert {"parameter", "buffer", "activation", "output", "module"} <= {row.kind for row in made.rows}
    for name in ("a.json", "a.toml"):
        made.save(tmp_path / name)
        assert nx.Plan.load(tmp_path / name).rows == made.rows


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((None,), "rows=None; allowed: a list of rows"),
        (([None],), r"rows\[0\]=None; allowed: a Row; nx.plan"),
        (({"a": 1},), r"rows=<dict of 1>; allowed: a list"),
        (([], "graph"), "mode='graph'; allowed: one of eager_mode, fx_graph_mode"),
        (([], "eager_mode", "NPU"), "device='NPU'; allowed: one of CPU, IPU"),
        (([], "eager_mode", "CPU", None, [3]), r"fold=\[3\]; allowed: a table of texts"),
    ],
)
def test_a_plan_made_by_hand_failed_where_it_was_shown(given, said):
    with pytest.raises(nx.NumericsError, match=f"this is no plan: {said}"):
        nx.Plan(*given)
    assert "0 of 0 tensors" in str(nx.Plan([]))
