"""What a graph has of its model besides tensors and operators: what is said of states."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import numerics as nx

MODES = ("eager_mode", "fx_graph_mode")
X = torch.linspace(-1, 1, 128).reshape(2, 64)


class Noted(nn.Module):
    """A module without parameters that has more to say in a state."""

    def __init__(self):
        super().__init__()
        self.said = 3

    def forward(self, x):
        return x.relu()

    def get_extra_state(self):
        return self.said

    def set_extra_state(self, state):
        self.said = state


class Hooked(nn.Module):
    """A model whose hooks add keys to states, take them out, and read what the model has."""

    def __init__(self):
        super().__init__()
        self.first, self.noted, self.out, self.version = nn.Linear(64, 32), Noted(), nn.Linear(32, 4), 7
        self.register_state_dict_post_hook(self.write)
        self.register_load_state_dict_pre_hook(self.read)
        self.register_load_state_dict_post_hook(
            lambda m, keys: keys.missing_keys.extend(["late"] * m.wants())
        )
        self.first.register_state_dict_post_hook(
            lambda m, state, prefix, _: state.update({f"{prefix}old": X})
        )
        self.first.register_load_state_dict_pre_hook(lambda m, state, prefix, *_: state.pop(f"{prefix}old"))

    @staticmethod
    def write(module, state, prefix, _):
        state[f"{prefix}version"] = torch.tensor(module.version)

    @staticmethod
    def read(module, state, prefix, *_):
        assert state.pop(f"{prefix}version") == 7

    def wants(self):
        return False

    def forward(self, x):
        return self.out(self.noted(self.first(x)))


@pytest.mark.parametrize("copied", [False, True])
def test_states_go_from_mode_to_mode_with_what_hooks_make_of_them(copied):
    """What a hook of the float model adds to a state was unexpected in a graph's."""
    torch.manual_seed(0)
    m = Hooked().eval()
    made = [nx.wrap(m, "int8", activations="int8", example=X, mode=mode) for mode in MODES]
    made = [copy.deepcopy(one) for one in made] if copied else made
    states = [one.state_dict() for one in made]
    extra = {"version", "first.old", "noted._extra_state"}
    assert {*states[0]} == {*states[1]} == {*m.state_dict()} >= extra
    for one in made:
        for state in states:
            one.load_state_dict(state)
        with pytest.raises(RuntimeError, match=r"noted\._extra_state"):
            one.load_state_dict({k: x for k, x in states[0].items() if "extra" not in k})
    assert torch.equal(*(one(X) for one in made))


def test_what_is_not_in_the_graph_is_refused_with_a_way_out():
    """A region that torch compiles once loses its modules in a graph."""

    class Region(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(64, 4)

        @torch.compiler.nested_compile_region
        def body(self, x):
            return self.first(x)

        def forward(self, x):
            return self.body(x)

    m = Region().eval()
    eager = nx.wrap(m, "int8", activations="int8", example=X)
    assert not torch.equal(eager(X), m(X))
    with pytest.raises(nx.NumericsError, match=r"not found in the graph.*mode='eager_mode'"):
        nx.wrap(m, "int8", activations="int8", example=X, mode="fx_graph_mode")
