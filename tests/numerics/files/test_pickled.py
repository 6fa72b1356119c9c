"""Files of torch.save: what is said of one is a call that works, and nothing in it is executed."""

from __future__ import annotations

import argparse
import random

import pytest
import torch
from torch import nn

import numerics as nx
from numerics.checkpoints.loading import load as load_any
from numerics.files.pickled import held_in


def model():
    return nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))


def adam():
    one = model()
    found = torch.optim.Adam(one.parameters())
    one(torch.ones(2, 16)).sum().backward()
    found.step()
    return found.state_dict()


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = model()


STATES = {
    "m and o": lambda: {"m": model().state_dict(), "o": adam()},
    "o first": lambda: {"o": adam(), "m": model().state_dict()},
    "epoch, net_g, opt": lambda: {"epoch": 3, "net_g": model().state_dict(), "opt": adam()},
    "two deep": lambda: {"a": {"b": model().state_dict()}},
    "model, state_dict": lambda: {"epoch": 1, "model": {"state_dict": model().state_dict()}},
    "an epoch that is a tensor": lambda: {"epoch": torch.tensor(3), "net": model().state_dict()},
    "a name in quotes": lambda: {"a b'": model().state_dict()},
    "packed": lambda: {"model": nx.freeze(nx.wrap(model(), "int4")).state_dict(), "opt": adam()},
    "a number beside them": lambda: {**model().state_dict(), "epoch": 3},
}
OTHERS = {
    "a whole module": model,
    "one of somebody's": Own,
    "a module inside": lambda: {"model": model(), "epoch": 3},
    "arguments beside it": lambda: {"args": argparse.Namespace(a=1), "model": model().state_dict()},
    "a list of states": lambda: [model().state_dict(), model().state_dict()],
}
COUNTS = {"a list": (lambda: [torch.ones(3), torch.ones(2)], 2), "one": (lambda: torch.ones(3), 1)}


def said_of(path):
    with pytest.raises(nx.NumericsError, match="looks like a PyTorch pickle") as caught:
        nx.load(path)
    return str(caught.value)


def followed(path, folder):
    """What is in the file that the advised call writes."""
    said = said_of(path)
    call = said[said.index("nx.save(") :].partition(", 'out.safetensors')")[0]
    made = folder / "out.safetensors"
    eval(f"{call}, made)", {"nx": nx, "torch": torch, "path": path, "made": made})
    return nx.load(made)


@pytest.mark.filterwarnings("ignore::numerics.NumericsWarning")
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("name", [*STATES, *OTHERS])
def test_the_way_out_of_a_pickle_named_a_key_that_was_not_there(name, old, tmp_path):
    """'params' came of Adam's param_groups, and a KeyError of that."""
    path, made = tmp_path / "m.pt", {**STATES, **OTHERS}[name]()
    torch.save(made, path, _use_new_zipfile_serialization=not old)
    found = followed(path, tmp_path)
    assert len(found) == 4
    assert all(key.endswith(("weight", "bias")) for key in found)
    if name in STATES:
        assert set(load_any(path)) == set(found)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("name", COUNTS)
def test_tensors_without_names_get_some(name, old, tmp_path):
    make, count = COUNTS[name]
    torch.save(make(), tmp_path / "m.pt", _use_new_zipfile_serialization=not old)
    assert len(followed(tmp_path / "m.pt", tmp_path)) == count


def test_what_has_no_tensors_by_name_gets_no_call(tmp_path):
    for made in ({"epoch": 3}, {"x": [torch.ones(2)]}, 3, {"opt": adam()}):
        torch.save(made, tmp_path / "m.pt")
        assert "in which no tensors lie by name" in said_of(tmp_path / "m.pt")


def test_others_that_are_like_it_are_named(tmp_path):
    torch.save({"g": model().state_dict(), "d": model().state_dict()}, tmp_path / "m.pt")
    assert "['g']" in said_of(tmp_path / "m.pt")
    assert "others lie under ['d']" in said_of(tmp_path / "m.pt")


class Bomb:
    def __reduce__(self):
        return open, ("executed", "w")


def test_nothing_in_a_pickle_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": model().state_dict(), "b": Bomb()}, tmp_path / "m.pt")
    assert "where you trust it" in said_of(tmp_path / "m.pt")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("old", [False, True])
def test_damaged_pickles_are_none(old, tmp_path):
    path, chance = tmp_path / "m.pt", random.Random(old)
    torch.save({"a": {"b": model().state_dict()}, "o": adam()}, path, _use_new_zipfile_serialization=not old)
    whole, found = path.read_bytes(), 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(100, min(len(whole), 4000))] = chance.randrange(256)
        path.write_bytes(damaged[: chance.choice([len(whole), chance.randrange(100, len(whole))])])
        found += held_in(path) is None
        said_of(path)
    assert found


def ones(*values):
    return {"w": torch.full((2,), float(values[0]))} if values else {}


BESIDE = {
    "two that scripts name": ({"model": ones(1), "ema": ones(2)}, {"w": 1}, "['ema'] (1)"),
    "the other way round": ({"ema": ones(2), "state_dict": ones(1)}, {"w": 1}, "['ema'] (1)"),
    "a tensor beside it": ({"model": ones(1), "extra": torch.ones(2)}, {"w": 1}, "['extra'] (1)"),
    "a list below": ({"w": ones(1)["w"], "lst": [torch.ones(2)] * 2}, {"w": 1}, "['lst'] (2)"),
    "an optimizer": ({"net_g": ones(1), "opt": adam()}, {"w": 1}, "['opt'] (12)"),
}  # fmt: skip
WHOLE = {
    "dicts in the model's": ({"model": {"x": {"y": ones(3)["w"]}}}, {"x.y": 3}),
    "dicts beside tensors": ({"w": ones(1)["w"], "sub": ones(2)}, {"w": 1, "sub.w": 2}),
    "parts of a model with names of models": (
        {"model": {"net": ones(1), "head": ones(2)}}, {"net.w": 1, "head.w": 2}),
    "one model under two names": ({"model": (same := ones(1)), "epoch": same["w"].ndim}, {"w": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_tensors_beside_the_model_were_dropped_without_a_word(name, tmp_path):
    made, due, said = BESIDE[name]
    torch.save(made, tmp_path / "m.pth")
    with pytest.warns(nx.NumericsWarning, match="left out is what lies under") as caught:
        found = load_any(tmp_path / "m.pth")
    assert {name: float(x[0]) for name, x in found.items()} == due
    assert said in str(caught[0].message)


@pytest.mark.parametrize("name", WHOLE)
def test_dicts_below_a_model_are_parts_of_it(name, tmp_path):
    made, due = WHOLE[name]
    torch.save(made, tmp_path / "m.pth")
    assert {name: float(x[0]) for name, x in load_any(tmp_path / "m.pth").items()} == due
    assert "numerics convert" in said_of(tmp_path / "m.pth")


def test_of_several_models_one_was_taken_by_its_size(tmp_path, monkeypatch):
    """The other one of a GAN was lost; what the error says to do gives either."""
    monkeypatch.chdir(tmp_path)
    torch.save({"generator": ones(1), "disc": ones(2), "optimizer": adam()}, "gan.pth")
    with pytest.raises(nx.NumericsError, match=r"under \['generator'\], \['disc'\], and none") as caught:
        load_any("gan.pth")
    call = str(caught.value)[str(caught.value).index("torch.save(") :]
    eval(call, {"torch": torch})
    assert float(load_any("model.pth")["w"][0]) == 1


def test_what_would_have_one_name_and_what_has_no_end_is_refused(tmp_path):
    for made in ({"a.b": torch.ones(2), "a": {"b": torch.zeros(2)}}, {1: torch.ones(1), "1": torch.ones(1)}):
        torch.save(made, tmp_path / "m.pth")
        with pytest.raises(nx.NumericsError, match="stands for two tensors"):
            load_any(tmp_path / "m.pth")
    deep = ones(1)
    for _ in range(150):
        deep = {"a": deep}
    torch.save(deep, tmp_path / "m.pth")
    with pytest.raises(nx.NumericsError, match="more than 100 deep"):
        load_any(tmp_path / "m.pth")
    assert "write the state_dict in it again" in said_of(tmp_path / "m.pth")


def test_what_torch_does_not_load_is_said_in_our_words(tmp_path):
    """torch's error was cut in its middle, with escapes of its colours; of half a file it was an errno."""
    torch.save(model(), tmp_path / "module.pth")
    with pytest.raises(nx.NumericsError, match=r"it would call torch\.nn\.modules") as caught:
        load_any(tmp_path / "module.pth")
    assert "\x1b" not in str(caught.value)
    assert "nx.save(torch.load(path, weights_only=False).state_dict()" in str(caught.value)
    torch.save({"model": model().state_dict(), "b": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(
        nx.NumericsError, match=r"it would call .*io.open, and nothing in a pickle is executed"
    ):
        load_any(tmp_path / "bomb.pth")
    torch.save(model().state_dict(), tmp_path / "half.pth")
    whole = (tmp_path / "half.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        nx.NumericsError, match=r"half\.pth: it is a PyTorch pickle that is damaged or cut short"
    ):
        load_any(tmp_path / "half.pth")
