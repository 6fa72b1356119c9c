"""Thresholds apart from weights: a group of an optimizer, held still, float32 wherever a model goes."""

import pytest

pytest.importorskip("torch")
import torch
from torch import nn

import numerics as nx
from numerics import train
from tests.helpers.bits import assert_same_bits

MODES = ("eager_mode", "fx_graph_mode")
X = torch.randn(16, 8, generator=torch.Generator().manual_seed(3))


def model():
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


def wrapped(qat, mode="eager_mode"):
    options = {"scheme": "per_channel(0)"} if qat == "lsq" else {}
    weights = nx.QuantSpec("int8", **options)
    return nx.wrap(model(), weights, activations="int8", qat=qat, mode=mode, example=X)


def learners(module):
    return [one for one in module.modules() if isinstance(one, (train.TQT, train.LSQ))]


def learn(module, groups, steps=3):
    optimizer = torch.optim.Adam(groups, lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        module(X).square().sum().backward()
        optimizer.step()


def copies(parameters):
    return [parameter.detach().clone() for parameter in parameters]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("qat", ["tqt", "lsq"])
def test_thresholds_are_all_that_quantizers_learn_and_nothing_else(qat, mode):
    made = wrapped(qat, mode)
    found = train.thresholds(made)
    assert len(found) == 4  # two weights, two inputs
    assert {id(p) for p in found} == {id(p) for one in learners(made) for p in one.parameters()}
    assert {id(p) for p in found} | {id(p) for p in model_parameters(made)} == {
        id(p) for p in made.parameters()
    }


def model_parameters(made):
    return [p for name, p in made.named_parameters() if not name.endswith(("log2_threshold", "step"))]


def test_a_shared_quantizer_is_counted_once():
    one = train.TQT("int8")
    assert len(train.thresholds(nn.ModuleList([one, nn.Sequential(one)]))) == 1


def test_tied_thresholds_are_counted_once():
    one, other = train.TQT("int8"), train.TQT("int8")
    other.log2_threshold = one.log2_threshold
    assert len(train.thresholds(nn.ModuleList([one, other]))) == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("qat", ["tqt", "lsq"])
def test_groups_hold_each_parameter_once(qat, mode):
    made = wrapped(qat, mode)
    groups = train.parameter_groups(made, lr=0.5)
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted({id(p) for p in made.parameters()})
    assert [{k: v for k, v in group.items() if k != "params"} for group in groups] == [
        {"weight_decay": 0.0, "lr": 0.5}, {}
    ]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_a_rate_of_thresholds_moves_them_alone(mode):
    made = wrapped("tqt", mode)
    ours, rest = train.thresholds(made), model_parameters(made)
    before = copies(ours), copies(rest)
    optimizer = torch.optim.SGD(train.parameter_groups(made, lr=1e-2), lr=0.0)
    made(X).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(ours, before[0], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(rest, before[1], strict=True))


def test_weight_decay_leaves_thresholds_alone_unless_it_is_asked_for():
    for asked, stays in (({}, True), ({"weight_decay": 0.5}, False)):
        made = wrapped("tqt")
        ours = train.thresholds(made)
        before = copies(ours)
        optimizer = torch.optim.SGD(train.parameter_groups(made, **asked), lr=0.1, weight_decay=0.5)
        for p in made.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
        assert all(torch.equal(a, b) == stays for a, b in zip(ours, before, strict=True))
        assert not torch.equal(made[0]._parameters["weight"], model()[0].weight)


def test_a_quantizer_alone_is_one_group():
    assert len(train.parameter_groups(train.TQT("int8"))) == 1


def test_an_optimizer_may_hold_groups_before_the_first_batch():
    quantizer = nn.Sequential(nn.Linear(8, 8), train.TQT("int8"))
    groups = train.parameter_groups(quantizer, lr=0.1)
    optimizer = torch.optim.Adam(groups, lr=0.1)
    quantizer(X).square().sum().backward()
    before = copies(train.thresholds(quantizer))
    optimizer.step()
    assert not torch.equal(train.thresholds(quantizer)[0], before[0])


@pytest.mark.turns(6)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("qat", ["tqt", "lsq"])
def test_frozen_thresholds_stay_while_weights_learn(qat, mode):
    made = wrapped(qat, mode)
    groups = train.parameter_groups(made, lr=0.1)
    learn(made, groups)
    assert train.freeze_thresholds(made) is made
    before = copies(train.thresholds(made)), copies(model_parameters(made))
    learn(made, groups)
    assert all(torch.equal(a, b) for a, b in zip(train.thresholds(made), before[0], strict=True))
    assert all(not torch.equal(a, b) for a, b in zip(model_parameters(made), before[1], strict=True))
    train.freeze_thresholds(made, frozen=False)
    learn(made, groups)
    assert all(not torch.equal(a, b) for a, b in zip(train.thresholds(made), before[0], strict=True))


def test_what_is_frozen_before_the_first_batch_begins_and_stays():
    """torch refuses requires_grad_() of a parameter that has not begun."""
    made = nn.Sequential(nn.Linear(8, 8), train.TQT("int8"))
    train.freeze_thresholds(made)
    optimizer = torch.optim.Adam(train.parameter_groups(made, lr=0.1), lr=0.1)
    made(X).square().sum().backward()
    (ours,) = before = train.thresholds(made)
    assert not ours.requires_grad
    before = copies(before)
    optimizer.step()
    assert torch.equal(ours, before[0])


def test_an_optimizer_with_momentum_does_not_move_what_is_frozen():
    """Adam goes on with what it remembers where a gradient is left."""
    made = wrapped("tqt")
    optimizer = torch.optim.Adam(train.parameter_groups(made, lr=0.1), lr=1e-3)
    made(X).square().sum().backward()
    optimizer.step()
    train.freeze_thresholds(made)
    before = copies(train.thresholds(made))
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(train.thresholds(made), before, strict=True))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("qat", ["tqt", "lsq"])
def test_thresholds_in_a_wrapped_model_stay_float32(qat, mode):
    """A threshold of 3.001 in bfloat16 is 3, and half the scale."""
    made = wrapped(qat, mode)
    for one in learners(made):
        next(one.parameters()).data.fill_(3.001)
    due = copies(train.thresholds(made)), [one.scale.clone() for one in learners(made)]
    for convert in ("half", "bfloat16", "double", "float"):
        getattr(made, convert)()
        assert all(p.dtype == torch.float32 for p in train.thresholds(made))
        for p, kept in zip(train.thresholds(made), due[0], strict=True):
            assert_same_bits(p, kept)
        for one, scale in zip(learners(made), due[1], strict=True):
            assert_same_bits(one.scale, scale)


def test_a_model_that_is_trained_in_groups_freezes_to_what_it_computed():
    made = wrapped("tqt")
    learn(made, train.parameter_groups(made, lr=1e-2))
    due = made(X).detach()
    assert_same_bits(nx.freeze(made)(X), due)
    with pytest.raises(nx.NumericsError, match="learns no thresholds"):
        train.thresholds(made)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: train.thresholds(model()), "this Sequential learns no thresholds: .* nx.wrap"),
        (lambda: train.parameter_groups(model(), lr=1.0), "learns no thresholds"),
        (lambda: train.freeze_thresholds(model()), "learns no thresholds"),
        (lambda: train.thresholds([X]), "those of a torch module, not of"),
        (lambda: train.thresholds(nx.wrap(model(), "int8", example=X)), "learns no thresholds"),
        (lambda: train.parameter_groups(train.TQT("int8"), rate=1.0), "unknown option of an optimizer"),
        (lambda: train.parameter_groups(train.TQT("int8"), params=[]), "option of an optimizer 'params'"),
        (lambda: train.freeze_thresholds(train.TQT("int8"), frozen=1), "frozen=1 is not allowed"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(call, said):
    with pytest.raises(nx.NumericsError, match=said):
        call()


ODD = [{"lr": -1}, {"lr": float("nan")}, {"lr": float("inf")}, {"lr": "x"}, {"lr": None}, {"lr": True},
       {"weight_decay": -1}, {"weight_decay": "x"}, {"betas": (2, 1)}, {"betas": 0.9}, {"eps": -1},
       {"momentum": -1}, {"dampening": "x"}, {"nesterov": 3}, {"foreach": "x"}, {"rho": 7}]  # fmt: skip


@pytest.mark.parametrize("option", ODD, ids=str)
def test_a_group_takes_a_value_that_no_optimizer_takes(option):
    with pytest.raises(nx.NumericsError, match=f"{next(iter(option))}=.* is not allowed"):
        train.parameter_groups(wrapped("lsq"), **option)


@pytest.mark.parametrize("option", [{"lr": 0}, {"lr": torch.tensor(0.1)}, {"betas": [0.9, 0.99]},
                                    {"foreach": None}, {"eps": (None, 1e-3)}, {"nesterov": True},
                                    {"beta2_decay": -0.8}], ids=str)  # fmt: skip
def test_a_group_refuses_a_value_of_an_optimizer(option):
    assert option.items() <= train.parameter_groups(wrapped("lsq"), **option)[0].items()
