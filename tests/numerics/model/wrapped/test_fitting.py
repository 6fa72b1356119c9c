"""States of every kind of model in models of every kind: taken whole, or refused with the way out."""

from __future__ import annotations

import copy
import re
from functools import cache

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint import CheckpointException

import numerics as nx

MODES = ("eager_mode", "fx_graph_mode")
X = torch.linspace(-1, 1, 128).reshape(2, 64)
STATIC = {"activations": nx.QuantSpec("int8", symmetric=False), "observer": "min_max"}
LEARNED = [{"qat": "lsq"}, {"qat": "tqt"}, {"observer": "min_max"}]


def floats():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))


@cache
def traced(mode, dtype, options):
    """A model wrapped so, and calibrated where it is observed: made once, and copied for each who asks."""
    one = nx.wrap(floats(), dtype, example=X, mode=mode, **dict(options))
    return nx.calibrate(one, [X]) if "observer" in dict(options) else one


def wrapped(mode, dtype="int8", **options):
    return copy.deepcopy(traced(mode, dtype, tuple(options.items())))


MADE = {
    "float": lambda mode: floats(),
    "wrapped": lambda mode: wrapped(mode, "mxfp4"),
    "calibrated": lambda mode: wrapped(mode, **STATIC),
    "tqt": lambda mode: wrapped(mode, activations="int8", qat="tqt"),
    "lsq": lambda mode: wrapped(mode, activations="int8", qat="lsq"),
    "frozen": lambda mode: nx.freeze(wrapped(mode, "mxfp4")),
    "frozen int4": lambda mode: nx.freeze(wrapped(mode, "int4")),
    "frozen values": lambda mode: nx.freeze(wrapped(mode, "mxfp4"), keep="values"),
    "frozen activations": lambda mode: nx.freeze(wrapped(mode, "mxfp4", activations="mxfp8_e4m3")),
    "frozen calibrated": lambda mode: nx.freeze(wrapped(mode, **STATIC)),
}
FLOAT_WEIGHTS = ("float", "wrapped")
TAKEN = {(name, name) for name in MADE} | {(a, b) for a in FLOAT_WEIGHTS for b in FLOAT_WEIGHTS}
TAKEN |= {("frozen values", "float")}  # plain tensors: the values that the frozen model has
ASSIGNED = {("frozen", "float"), ("frozen int4", "float"), ("frozen activations", "float")}


def bits(model):
    """Everything that a model's state has, as plain tensors."""
    found = model.state_dict()
    return {k: (x.dequantize() if isinstance(x, nx.QTensor) else x).clone() for k, x in found.items()}


@pytest.mark.turns(4)
@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_a_state_is_taken_for_what_it_is_not(mode, assign):
    """Packed weights became float ones, float ones took the place of packed ones, scales were left, and
    nothing was said of it, or by torch alone.
    """
    made = {name: make(mode) for name, make in MADE.items()}
    due = TAKEN | ASSIGNED if assign else TAKEN
    for source, one in made.items():
        for name, other in made.items():
            state, target = copy.deepcopy(one.state_dict()), copy.deepcopy(other)
            before = bits(target)
            if (source, name) in due:
                target.load_state_dict(state, assign=assign)
                continue
            ours = nx.NumericsError if name != "float" else RuntimeError
            with pytest.raises(ours, match=r"nx\.|strict=False|Unexpected key"):
                target.load_state_dict(state, assign=assign)
            if name != "float":
                assert all(torch.equal(x, before[k]) for k, x in bits(target).items()), (source, name)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("keep", ["packed", "values"])
@pytest.mark.parametrize("assign", [False, True])
def test_floats_in_a_frozen_model_are_used_unquantized(mode, keep, assign):
    frozen = nx.freeze(wrapped(mode, "mxfp4"), keep=keep)
    for strict in (True, False):
        with pytest.raises(nx.NumericsError, match=r"0\.weight of this frozen model"):
            frozen.load_state_dict(floats().state_dict(), strict=strict, assign=assign)
    frozen.load_state_dict({"0.bias": torch.ones(32)}, strict=False)


@pytest.mark.parametrize("packed", [True, False])
def test_each_tensor_of_a_state_repeated_the_same_long_error(packed):
    frozen, plain = (
        torch.nn.Sequential(m[0], m[2]) for m in (nx.freeze(wrapped("eager_mode", "mxfp4")), floats())
    )
    one, other = (frozen, plain) if packed else (plain, frozen)
    with pytest.raises(RuntimeError, match=r"nx\.load_into\(") as caught:
        other.load_state_dict(one.state_dict())
    said = str(caught.value)
    assert said.count("nx.load_into") == 1
    assert said.count(": as above") == said.count("parameter named") - 1 > 0


def test_packed_weights_become_floats_of_a_part():
    """The layer alone is asked, which does not know that the model it is of is frozen."""
    frozen = nx.freeze(wrapped("eager_mode", "mxfp4"))
    with pytest.raises(RuntimeError, match=r"nx\.load_into\(model, file\) loads"):
        floats()[0].load_state_dict(frozen[0].state_dict())
    with pytest.raises(RuntimeError, match="of this model is packed"):
        frozen[0].load_state_dict(floats()[0].state_dict())
    x = torch.zeros(32, 64)
    x.copy_(frozen[0].weight)  # who asks for the values gets them
    assert torch.equal(x, frozen[0].weight.dequantize())


def test_a_zero_point_of_a_state_is_cut_to_an_integer():
    one = wrapped("eager_mode", **STATIC)
    state = one.state_dict()
    name = next(name for name in state if name.endswith("zero_point"))
    due = r"has fractions in this state.*which would cut it to an integer: zero_point_type='float32' in"
    with pytest.raises(nx.NumericsError, match=due):
        one.load_state_dict(state | {name: state[name] + 0.7})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("assign", [False, True])
def test_a_state_without_scales_made_a_calibrated_model_an_uncalibrated_one(mode, assign):
    one, state = (
        wrapped(mode, **STATIC),
        nx.wrap(floats(), "int8", example=X, mode=mode, **STATIC).state_dict(),
    )
    due = one(X)
    with pytest.raises(
        nx.NumericsError, match=r"is NaN in this state.*would be lost: nx\.calibrate"
    ) as caught:
        one.load_state_dict(state, assign=assign)
    assert torch.equal(one(X), due)
    followed(str(caught.value), one, state)
    assert torch.equal(one(X), due)
    fresh = nx.wrap(floats(), "int8", example=X, mode=mode, **STATIC)
    fresh.load_state_dict(state, assign=assign)
    with pytest.raises(nx.NumericsError, match=r"0:linear\[0\] has no scale yet"):
        fresh(X)


WRONG_SCALES = {
    "1e300": torch.tensor(1e300, dtype=torch.float64), "0.1": torch.tensor(0.1, dtype=torch.float64),
    "NaN": torch.tensor(float("nan")), "three": torch.ones(3), "none": torch.ones(0), "0": torch.tensor(0.0),
    "-1": torch.tensor(-1.0), "no number": None,
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("wrong", WRONG_SCALES)
def test_a_scale_that_is_none_was_taken_by_a_calibrated_model(mode, strict, frozen, wrong):
    """1e300 and 0.1 made its float32 a float64, of a shape of 3 the first was taken."""
    one = wrapped(mode, activations="int8", observer="min_max")
    one = nx.freeze(one) if frozen else one
    state, before = bits(one), bits(one)
    state = one.state_dict() | {k: x + 1 for k, x in state.items() if k.endswith("bias")}
    name = [name for name in state if name.endswith("scale")][-1]
    with pytest.raises(nx.NumericsError, match=name.replace(".", r"\.")):
        one.load_state_dict(state | {name: WRONG_SCALES[wrong]}, strict=strict)
    assert all(torch.equal(x, before[k]) for k, x in bits(one).items())
    one.load_state_dict(state | {name: before[name].double()}, strict=strict)  # the same number
    assert one.state_dict()[name].dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("strict", [False, True])
def test_biases_were_loaded_before_packed_weights_of_another_type_were_refused(dtype, mode, strict):
    one = nx.freeze(wrapped(mode, "int4", activations="int8"))
    made = nx.wrap(floats().to(dtype), "int4", activations="int8", example=X.to(dtype), mode=mode)
    other = nx.freeze(made)
    for source, target in ((one, other), (other, one)):
        state = dict(source.state_dict())
        state |= {k: x + 1 for k, x in state.items() if k.endswith("bias")}
        before = bits(target)
        if dtype == torch.float64:
            due = r"0\.weight cannot be loaded: .*assign=True"
            with pytest.raises(nx.NumericsError, match=due):
                target.load_state_dict({k: state[k] for k in sorted(state)}, strict=strict)
            assert all(torch.equal(x, before[k]) for k, x in bits(target).items())
    wide = one.state_dict()
    other.load_state_dict(wide, assign=True)
    assert torch.equal(other(X), one(X))


@pytest.mark.parametrize("mode", MODES)
def test_biases_were_loaded_before_packed_weights_of_another_shape_were_refused(mode):
    one = nx.freeze(wrapped(mode, "mxfp4"))
    name, before = [name for name in one.state_dict() if name.endswith("weight")][-1], bits(one)
    state = dict(one.state_dict())
    state |= {k: x + 1 for k, x in state.items() if k.endswith("bias")}
    state[name] = nx.quantize(torch.ones(5, 32), "mxfp4")
    for assign in (False, True):
        with pytest.raises(nx.NumericsError, match=r"2\.weight has shape \(5, 32\) in this state"):
            one.load_state_dict(state, assign=assign)
        assert all(torch.equal(x, before[k]) for k, x in bits(one).items())


@pytest.mark.parametrize("options", LEARNED, ids=["lsq", "tqt", "observer"])
def test_a_part_of_a_model_was_half_loaded(options):
    part = wrapped("eager_mode", activations="int8", **options)[0]
    state, before = {k: x + 1 if k == "bias" else x for k, x in part.state_dict().items()}, bits(part)
    name = next(k for k in state if k.endswith(("scale", "step", "log2_threshold")))
    with pytest.raises(nx.NumericsError, match=name.replace(".", r"\.")):
        part.load_state_dict(state | {name: torch.tensor(float("nan"))})
    assert all(torch.equal(x, before[k]) for k, x in bits(part).items())


def test_a_step_of_lsq_is_a_scale_by_its_magnitude():
    """As docs/formats.md §7 says: training may bring it below 0, and its state comes back."""
    one = wrapped("eager_mode", activations="int8", qat="lsq")
    state = one.state_dict()
    other = wrapped("eager_mode", activations="int8", qat="lsq")
    other.load_state_dict({k: -x if k.endswith("step") else x for k, x in state.items()})
    assert torch.equal(one(X), other(X))


# ---- formats of scales ----------------------------------------------------------------------------


@pytest.mark.parametrize("options", LEARNED, ids=["lsq", "tqt", "observer"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("frozen", [False, True], ids=["wrapped", "frozen"])
@pytest.mark.filterwarnings("ignore:.* are negative and become 0")
def test_scales_of_another_plan_were_taken_for_those_of_this(mode, options, frozen):
    """The names were the same, and int4's steps became uint8's."""
    one = wrapped(mode, activations="uint8", **options)
    other = wrapped(mode, activations="int4", **options)
    if frozen:
        one, other = nx.freeze(one), nx.freeze(other)
    state, before = dict(one.state_dict()), bits(other)  # without what torch keeps beside it
    scales = {k: x for k, x in state.items() if "quantize" in k}
    for came, strict in ((state, True), (state, False), (scales, False)):
        for assign in (False, True):
            with pytest.raises(nx.NumericsError, match=r"linear.*QuantSpec\('uint8'\).*QuantSpec\('int4'\)"):
                other.load_state_dict(came, strict=strict, assign=assign)
    assert all(torch.equal(x, before[k]) for k, x in bits(other).items())
    wrapped_again = wrapped(MODES[mode == MODES[0]], activations="uint8", **options)
    if not frozen:  # of the other mode
        assert torch.equal(one(X), (wrapped_again.load_state_dict(state), wrapped_again(X))[1])


@pytest.mark.parametrize("mode", MODES)
def test_a_state_that_says_no_format_of_its_scales_is_refused_with_the_way_out(mode):
    one = wrapped(mode, activations="int8", qat="lsq")
    plain = {k: x for k, x in one.state_dict().items() if not k.endswith("_extra_state")}
    with pytest.raises(nx.NumericsError, match=r"which says of which format that is.*strict=False"):
        one.load_state_dict(plain)
    one.load_state_dict(plain, strict=False)


@pytest.mark.parametrize("mode", MODES)
def test_the_first_layers_were_loaded_before_the_last_was_refused(mode):
    one = wrapped(mode, activations="int8", qat="lsq")
    name = [name for name in one.state_dict() if name.endswith("step")][-1]
    for value in (torch.tensor(1e300, dtype=torch.float64), torch.ones(3)):
        state = {k: x + 1 if x.is_floating_point() else x for k, x in one.state_dict().items()}
        before = bits(one)
        with pytest.raises(nx.NumericsError, match=f"^{name.replace('.', chr(92) + '.')}"):
            one.load_state_dict({**state, name: value}, strict=False)
        assert all(torch.equal(x, before[k]) for k, x in bits(one).items())


@pytest.mark.parametrize("options", LEARNED, ids=["lsq", "tqt", "observer"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.filterwarnings("ignore:.* are negative and become 0")
def test_a_file_of_a_wrapped_model_is_taken_whole_or_not_at_all(mode, options, tmp_path):
    """Its scales were taken for those of any format, and a calibrated model still waited for its own."""
    one, path = wrapped(mode, activations="uint8", **options), tmp_path / "a.safetensors"
    nx.save(one.state_dict(), path)
    other = wrapped(mode, activations="int4", **options)
    with pytest.raises(nx.NumericsError, match=r"is unchanged.*QuantSpec\('uint8'\).*QuantSpec\('int4'\)"):
        nx.load_into(other, path)
    alike = nx.wrap(floats(), "int8", example=X, mode=mode, activations="uint8", **options)
    assert torch.equal(nx.load_into(alike, path)(X), one(X))
    plain = {k: x for k, x in nx.load(path, library="torch").items() if not k.endswith("_extra_state")}
    nx.save(plain, path)
    with pytest.raises(nx.NumericsError, match="which says of which format that is"):
        nx.load_into(alike, path)


def test_what_a_module_of_somebodys_keeps_beside_its_tensors_was_lost_on_the_way_from_a_file(tmp_path):
    class Counting(nn.Linear):
        seen = 0

        def get_extra_state(self):
            return torch.tensor(self.seen)

        def set_extra_state(self, state):
            self.seen = int(state)

    one, other = nn.Sequential(Counting(4, 2)), nn.Sequential(Counting(4, 2))
    one[0].seen = 3
    nx.save(one.state_dict(), tmp_path / "a.safetensors")
    assert nx.load_into(other, tmp_path / "a.safetensors")[0].seen == 3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("qat", ["lsq", "tqt"])
def test_a_step_of_float64_was_rounded_when_it_was_frozen(mode, qat, tmp_path):
    x = X.double() / 3
    one = nx.wrap(floats().double(), "int8", activations="int8", qat=qat, example=x, mode=mode)
    frozen = nx.freeze(copy.deepcopy(one))
    assert torch.equal(frozen(x), one(x))
    nx.save(frozen.state_dict(), tmp_path / "a.safetensors")
    assert torch.equal(nx.load_into(floats().double(), tmp_path / "a.safetensors", example=x)(x), one(x))


# ---- the way out, as it is written ------------------------------------------------------------------


def followed(said, model, state, **names):
    """Does what a message says: the last call of load_state_dict in it, on that model."""
    call = said[said.rindex("load_state_dict(") :]
    ends = (end for end, letter in enumerate(call, 1) if letter == ")")
    call = next(call[:end] for end in ends if call[:end].count("(") == call[:end].count(")"))
    return eval(f"model.{call}", {"nx": nx, "torch": torch, "model": model, "state": state, **names})


@pytest.mark.parametrize("mode", MODES)
def test_strict_false_was_advised_where_it_is_refused_in_turn(mode):
    scheme = nx.QuantSpec("int4", scheme="per_channel")
    state = nx.wrap(floats_of(1), scheme, qat="lsq", example=X, mode=mode).state_dict()
    one = nx.wrap(floats(), "int4", activations="int4", qat="lsq", example=X, mode=mode)
    steps = {k: x.clone() for k, x in one.state_dict().items() if k.endswith("step")}
    with pytest.raises(nx.NumericsError) as caught:
        one.load_state_dict(state)
    said = str(caught.value)
    assert all(name in said for name in steps), said
    assert (
        "in this state of QuantSpec('int4', scheme='per_channel(0)'), in the model of QuantSpec('int4')"
        in said
    )
    followed(said, one, state)
    assert torch.equal(one.state_dict()["0.weight"], state["0.weight"])
    assert all(torch.equal(x, one.state_dict()[k]) for k, x in steps.items())
    with pytest.raises(nx.NumericsError) as caught:
        one.load_state_dict(state, strict=False)
    followed(str(caught.value), one, state)
    assert sum(name in str(caught.value) for name in steps) == 2  # of both weights, at once


class Named(nn.Module):
    """Has a part of its own whose name begins as those of quantizers."""

    def __init__(self):
        super().__init__()
        self.quantizer, self.head = nn.Linear(64, 64), nn.Linear(64, 4)

    def forward(self, x):
        return self.head(self.quantizer(x))


def test_a_part_named_quantizer_is_loaded_with_the_floats():
    source, float_model = Named(), Named()
    state = nx.wrap(source, nx.QuantSpec("int4", scheme="per_channel"), qat="lsq", example=X).state_dict()
    one = nx.wrap(float_model, "int4", activations="int4", qat="lsq", example=X)
    for strict in (True, False):
        with pytest.raises(nx.NumericsError) as caught:
            one.load_state_dict(state, strict=strict)
        followed(str(caught.value), one, state, float_model=float_model)
    assert torch.equal(nx.unwrap(one).quantizer.weight, source.quantizer.weight)


@pytest.mark.parametrize("options", LEARNED, ids=["lsq", "tqt", "observer"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "a.b."])
@pytest.mark.parametrize("how", ["state", "file"])
def test_strict_false_was_advised_where_it_loads_nothing(options, prefix, how, tmp_path):
    one, other = (wrapped("eager_mode", activations="int8", **options) for _ in range(2))
    with torch.no_grad():
        one[0].weight.mul_(2)
    state, path = {prefix + k: x for k, x in one.state_dict().items()}, tmp_path / "a.safetensors"
    nx.save(state, path)
    with pytest.raises(nx.NumericsError) as caught:
        other.load_state_dict(state) if how == "state" else nx.load_into(other, path)
    said = str(caught.value)
    assert "strict=False" not in said
    assert f"Every name of the state begins with '{prefix}'" in said
    assert "0.weight" in said.partition("not in the model")[0]
    assert f"{prefix}0.weight" in said
    call = said[said.index("state = " if how == "file" else "torch.nn.modules.utils.consume") :]
    call = call.replace(" takes that away", "")
    exec(call, {"nx": nx, "torch": torch, "state": state, "path": path})
    other.load_state_dict(state) if how == "state" else nx.load_into(other, path)
    assert torch.equal(other(X), one(X))


def test_the_calls_for_a_frozen_state_in_a_float_model_lacked_strict_false(tmp_path):
    one = nx.freeze(wrapped("eager_mode", "int4", activations="int8", observer="min_max"))
    state, model = one.state_dict(), floats_of(1)
    with pytest.raises(RuntimeError) as caught:
        model.load_state_dict(state)
    said = " ".join(str(caught.value).replace("\\'", "'").split())
    followed(said, model, state)
    assert torch.equal(model[0].weight, one[0].weight.dequantize())
    followed(said[: said.rindex("load_state_dict(")], model, state)
    assert model[0].weight.spec == one[0].weight.spec
    nx.save(dict(state), tmp_path / "a.safetensors")  # which says no plan
    with pytest.raises(nx.NumericsError, match=r"nx\.save the state_dict") as caught:
        nx.load_into(floats_of(1), tmp_path / "a.safetensors")
    followed(str(caught.value), floats_of(1), state, path=tmp_path / "a.safetensors")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "options", [{}, STATIC, {"activations": "int8", "qat": "tqt"}], ids=["", "static", "tqt"]
)
def test_a_frozen_model_advised_to_freeze_what_cannot_be_frozen(mode, options):
    """A float model is wrapped first, and an observed one calibrated."""
    frozen, plain = nx.freeze(wrapped(mode, **options)), floats_of(1)
    observed = "observer" in options
    due = "load it into the float model, and nx.wrap" + ", nx.calibrate" * observed + " and nx.freeze that"
    with pytest.raises(nx.NumericsError, match=due):
        frozen.load_state_dict(plain.state_dict())
    waiting = nx.wrap(floats_of(1), "int8", example=X, mode=mode, **options)
    due = r"nx\.freeze\(nx\.calibrate\(model, batches\)\) makes" if observed else r"nx\.freeze\(model\) makes"
    with pytest.raises(nx.NumericsError, match=due):
        waiting.load_state_dict(frozen.state_dict())
    taking = nx.freeze(nx.calibrate(waiting, [X]) if observed else waiting)
    taking.load_state_dict(frozen.state_dict())
    assert torch.equal(taking(X), frozen(X))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("qat", ["lsq", None])
@pytest.mark.parametrize("strict", [False, True])
def test_values_of_another_format_were_taken_by_a_model_that_keeps_values(mode, qat, strict, tmp_path):
    kinds = ("int4", nx.QuantSpec("int4", scheme="per_channel"))
    one, other = (nx.freeze(wrapped(mode, kind, qat=qat), keep="values") for kind in kinds)
    before = bits(one)
    with pytest.raises(nx.NumericsError, match=r"0\.weight of this frozen model.*makes the frozen model of"):
        one.load_state_dict(other.state_dict(), strict=strict)
    assert all(torch.equal(x, before[k]) for k, x in bits(one).items())


# ---- the way out, gone ------------------------------------------------------------------------------


def made_of(options, seed=0):
    torch.manual_seed(seed)
    return nx.wrap(floats_of(seed), "int8", activations="int8", example=X, **options)


def floats_of(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))


WAYS = {
    "wrapped": {}, "observer": {"observer": "min_max"}, "ste": {"qat": "ste"}, "tqt": {"qat": "tqt"},
    "lsq": {"qat": "lsq"},
}  # fmt: skip
KEPT = {"trained": None, "frozen": "packed", "frozen values": "values"}


def one_of_each(way, kept, seed, mode):
    """A model wrapped in that way, calibrated where it is observed, and frozen where that is asked for."""
    made = made_of({**WAYS[way], "mode": mode}, seed)
    made = nx.calibrate(made, [X]) if way == "observer" else made
    return nx.freeze(made, keep=KEPT[kept]) if KEPT[kept] else made


def through(how, folder, source):
    """The state of a model as it comes to another."""
    if how == "torch":
        torch.save(source.state_dict(), folder / "a.pt")
        return torch.load(folder / "a.pt", weights_only=True)
    nx.save(source.state_dict(), folder / "a.safetensors")
    return nx.load(folder / "a.safetensors", library="torch")


def gone(said, state, path):
    """The model that comes of doing what a message says first; its other ways are tried by the caller."""
    if "makes the frozen model of its file" in said:
        return nx.load_into(floats_of(0), path, example=X)
    if "load it into a model that nx.wrap(model, ..., " in said:
        option = said.partition("nx.wrap(model, ..., ")[2].partition(")")[0]
        way = {"observer=...": "observer", "qat='tqt'": "tqt", "qat='lsq'": "lsq"}[option]
        made = one_of_each(way, "trained", 0, "eager_mode")
        made.load_state_dict(state)
        return nx.freeze(made) if "nx.freeze that" in said else made
    assert "load it into the float model" in said
    made = floats_of(0)
    made.load_state_dict(state)
    return made


@pytest.mark.turns(72)
@pytest.mark.parametrize("source", [f"{kept} {way}" for kept in KEPT for way in WAYS] + ["float"])
@pytest.mark.parametrize("target", [f"{kept} {way}" for kept in KEPT for way in WAYS] + ["quantize_"])
def test_a_state_was_refused_with_advice_that_was_refused_in_turn(source, target, tmp_path):
    """Steps of LSQ in a frozen model: it had "scales that observers found", and strict=False was no way."""
    mode = "fx_graph_mode" if len(source + target) % 3 == 0 else "eager_mode"
    if source == "float":
        one = floats_of(1)
    else:
        kept, _, way = source.rpartition(" ")
        one = one_of_each(way, kept, 1, mode)
    kept, _, way = target.rpartition(" ")
    other = nx.quantize_(floats_of(0), "int8") if not kept else one_of_each(way, kept, 0, "eager_mode")
    nx.save(one.state_dict(), tmp_path / "a.safetensors")
    with torch.no_grad():
        due = one(X)
    for how in ("state", "torch", "load_into"):
        state = one.state_dict() if how != "torch" else through(how, tmp_path, one)
        into, before = copy.deepcopy(other), bits(other)
        try:
            if how == "load_into":
                into = nx.load_into(into, tmp_path / "a.safetensors", example=X)
            else:
                into.load_state_dict(state)
        except nx.NumericsError as wrong:
            said = str(wrong)
            assert all(torch.equal(x, before[k]) for k, x in bits(into).items())
            made = gone(said, state, tmp_path / "a.safetensors")
            if "a model that nx.wrap(" in said and "nx.freeze that" not in said:
                with torch.no_grad():
                    assert torch.equal(made.eval()(X), due), said
            if "frozen" in source:
                with torch.no_grad(), nx.decoded_products():
                    assert torch.equal(made(X), one(X)), said
            if "strict=False" in said:
                into.load_state_dict(state, strict=False)
                into = nx.calibrate(into, [X]) if "nx.calibrate" in said else into
                into(X)
        else:
            with torch.no_grad():
                assert torch.isfinite(into(X)).all()


def refused(state, folder):
    """What torch.distributed.checkpoint raises where it fills a state from a folder."""
    try:
        dcp.load({"model": state}, checkpoint_id=folder, no_dist=True)
    except CheckpointException as wrong:
        return str(wrong)
    return ""


PACKED = [name for name in MADE if name.startswith("frozen") and name != "frozen values"]


@pytest.mark.turns(8)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("source", MADE)
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_distributed_checkpoint_made_floats_of_packed_weights(source, mode, tmp_path):
    """Of every kind into every kind: the same bits come, or a tensor is named, and stays what it was."""
    one, taken = MADE[source](mode), []
    dcp.save({"model": one.state_dict()}, checkpoint_id=tmp_path, no_dist=True)
    came = bits(one)
    for name, make in MADE.items():
        target = make(mode)
        for x in target.parameters():
            if x.dtype == torch.float32 and not isinstance(x, nx.QTensor):
                x.data.add_(0.01)
        before, state = bits(target), target.state_dict()
        if said := refused(state, tmp_path):
            assert re.search(r"(0|2)\.weight, QTensor|cannot be copied|Missing key in checkpoint", said), name
            assert all(torch.equal(bits(target)[k], before[k]) for k in ("0.weight", "2.weight")), name
            continue
        target.load_state_dict(state)
        found = bits(target)
        assert all(torch.equal(found[k], came[k]) for k in found if not k.endswith("_extra_state")), name
        taken.append(name)
    assert source in taken
    if source in PACKED:
        assert set(taken) <= set(PACKED)
    elif source != "frozen values":  # whose values may be those that a packed model has already
        assert not set(taken) & set(PACKED)
