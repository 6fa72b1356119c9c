"""What a state brings for thresholds, steps, scales and zero points: values as they were, or words."""

from __future__ import annotations

import pytest
import torch

import numerics as nx
from numerics.model.wrapped.quantizers import Static
from numerics.train import LSQ, TQT

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
MADE = {
    "TQT": (lambda: TQT("int8"), ["log2_threshold"]),
    "LSQ": (lambda: LSQ("int4"), ["step"]),
    "a step a channel": (lambda: LSQ("int4", scheme="per_channel"), ["step"]),
    "LSQ of a float": (lambda: LSQ("fp8_e4m3"), ["step"]),
    "LSQ+": (lambda: LSQ("uint4", zero_point="learned"), ["step", "zero_point"]),
    "a zero point": (lambda: LSQ("int4", zero_point=3), ["step", "zero_point"]),
    "one that is no integer": (lambda: LSQ("uint4", zero_point=3.5), ["step", "zero_point"]),
    "a fixed scale": (lambda: Static("w", nx.QuantSpec("int4", symmetric=False), (), None),
                      ["scale", "zero_point"]),
}  # fmt: skip
BAD = {
    "bool": lambda x: x.bool(),
    "complex": lambda x: x.to(torch.complex64),
    "fp8": lambda x: x.to(torch.float8_e4m3fn),
    "NaN": lambda x: x * float("nan"),
    "quantized": lambda x: nx.quantize(x.float(), "int8"),
    "sparse": lambda x: x.reshape(-1).to_sparse(),
    "nested": lambda x: torch.nested.nested_tensor([x.reshape(-1)]),
    "text": lambda x: "0.5",
    "a number": lambda x: 0.5,
    "nothing": lambda x: None,
}


def begun(name: str) -> torch.nn.Module:
    made = MADE[name][0]()
    if isinstance(made, Static):
        made.give(torch.tensor(0.5), torch.tensor(3, dtype=torch.int32))
    else:
        made(X)
    return made


@pytest.mark.turns(6)
@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "begun"])
@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("name", MADE)
@pytest.mark.filterwarnings("ignore:.*(sparse|nested).*:UserWarning")
def test_a_state_that_is_no_number_was_cast_without_a_word(name, what, fresh):
    """A bool became the step 1.0, a complex number lost its half, a text was an AttributeError."""
    for key in MADE[name][1]:
        if what == "NaN" and name == "a fixed scale" and key == "scale":
            continue  # what no observer has found yet
        state = begun(name).state_dict()
        made = MADE[name][0]() if fresh else begun(name)
        before = list(map(repr, made.state_dict().values()))
        state[key] = BAD[what](state[key].float())
        for options in ({}, {"assign": True}, {"strict": False}):
            with pytest.raises(nx.NumericsError, match=key):
                made.load_state_dict(state, **options)
        assert list(map(repr, made.state_dict().values())) == before


@pytest.mark.parametrize("key", ["step", "zero_point"])
def test_half_of_a_state_was_an_attribute_error_in_the_next_batch(key):
    """'Parameter' object has no attribute 'materialize'."""
    state = {key: begun("LSQ+").state_dict()[key]}
    fresh = MADE["LSQ+"][0]()
    for strict in (True, False):
        with pytest.raises(nx.NumericsError, match="begins with both"):
            fresh.load_state_dict(state, strict=strict)
    assert torch.equal(fresh(X), begun("LSQ+")(X)), "what it refused is half there"
    fresh.load_state_dict({key: torch.tensor(2.0)}, strict=False)  # it has begun: the other half is its own
    assert fresh.state_dict()[key] == 2.0


def test_a_scale_without_its_zero_point_was_used_with_0():
    fresh = MADE["a fixed scale"][0]()
    with pytest.raises(nx.NumericsError, match="quantized by both"):
        fresh.load_state_dict({"scale": torch.tensor(0.5)}, strict=False)


def test_fractions_of_a_zero_point_that_is_an_integer_were_cut():
    for name in ("a zero point", "a fixed scale"):
        made = begun(name)
        with pytest.raises(nx.NumericsError, match="zero_point has fractions"):
            made.load_state_dict({**made.state_dict(), "zero_point": torch.tensor(2.5)})


@pytest.mark.parametrize("name", ["TQT", "LSQ", "a step a channel", "LSQ+"])
def test_what_was_learned_in_float64_came_back_rounded(name):
    """A module that has not begun made room for it in float32."""
    made = MADE[name][0]()
    made(X.double())
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(1 / 3)
    fresh = MADE[name][0]()
    fresh.load_state_dict(made.state_dict())
    for key, x in made.state_dict().items():
        assert fresh.state_dict()[key].dtype == x.dtype
        assert torch.equal(fresh.state_dict()[key], x)


def test_a_state_of_another_shape_is_refused_before_it_is_taken():
    for name, key in (("TQT", "log2_threshold"), ("LSQ", "step")):
        fresh = MADE[name][0]()
        with pytest.raises(nx.NumericsError, match=r"shape \(3,\)"):
            fresh.load_state_dict({key: torch.ones(3)})
        assert not fresh.initialized


def test_a_state_on_meta_began_with_whatever_lay_in_memory():
    fresh = LSQ("int4")
    with pytest.raises(nx.NumericsError, match="on meta"):
        fresh.load_state_dict({"step": torch.ones((), device="meta")})
    assert not fresh.initialized


def test_a_state_without_the_batch_waits_for_it():
    fresh = LSQ("uint4", zero_point="learned")
    fresh.load_state_dict(LSQ("uint4", zero_point="learned").state_dict())
    assert not fresh.initialized
    assert torch.equal(fresh(X), begun("LSQ+")(X))


@pytest.mark.parametrize("word", ["learn", "Learned", "", "3"])
def test_a_word_that_is_no_zero_point_is_named(word):
    """It said: new(): invalid data type 'str'."""
    with pytest.raises(nx.NumericsError, match=r"zero_point=.* is not allowed.*'learned'"):
        LSQ("uint4", zero_point=word)
    with pytest.raises(nx.NumericsError, match="must be real numbers, not"):
        nx.train.lsq(X, torch.tensor(1.0), "uint4", zero_point=word)
    with pytest.raises(nx.NumericsError, match="must be real numbers, not"):
        nx.quantize(X, "int4", scale=word)


def test_a_zero_point_that_is_no_integer_is_quantized_as_it_is_called():
    made = begun("one that is no integer")
    assert torch.equal(made.quantize(X).dequantize(), made(X))


# ---- of which spec ---------------------------------------------------------------------------------

OTHERS = {
    "format": (lambda: LSQ("int4"), lambda: LSQ("int8")),
    "a float's": (lambda: LSQ("int8"), lambda: LSQ("fp8_e4m3")),
    "sign": (lambda: TQT("int8"), lambda: TQT("uint8")),
    "axis": (lambda: LSQ("int4", scheme="per_channel(0)"), lambda: LSQ("int4", scheme="per_channel(1)")),
    "scheme": (lambda: LSQ("int4", scheme="per_token"), lambda: LSQ("int4", scheme="per_channel(0)")),
    "group": (lambda: LSQ("int4", scheme="per_group(4)"), lambda: LSQ("int4", scheme="per_group(8)")),
    "zero point": (lambda: LSQ("uint4", zero_point=3), lambda: LSQ("uint4", zero_point=3.0)),
    "facts of one name": (lambda: LSQ(nx.integer_format(5, name="mine")),
                          lambda: LSQ(nx.integer_format(6, name="mine"))),
    "scale type": (lambda: Static("w", nx.QuantSpec("int4", scale_type="pof2"), (), None),
                   lambda: Static("w", nx.QuantSpec("int4"), (), None)),
    "format of a found scale": (lambda: Static("w", nx.QuantSpec("int4"), (), None),
                                lambda: Static("w", nx.QuantSpec("fp8_e4m3"), (), None)),
    "a tensor's scale": (lambda: Static("w", nx.QuantSpec("nvfp4"), (), None),
                         lambda: Static("w", nx.QuantSpec("nvint4"), (), None)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.* values are negative and become 0:numerics.NumericsWarning")
@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "begun"])
@pytest.mark.parametrize("name", OTHERS)
def test_a_scale_of_another_spec_was_taken_without_a_word(name, fresh):
    """The steps of int4 became those of int8."""
    one, other = (make() for make in OTHERS[name])
    for module in (one,) if fresh else (one, other):
        if isinstance(module, Static):
            module.give(0.5, 3, 0.25)
        else:
            module(X)
    state, before = one.state_dict(), list(map(repr, other.state_dict().values()))
    for options in ({}, {"strict": False}, {"assign": True}):
        with pytest.raises(nx.NumericsError, match=r"in this state of QuantSpec.*in the model of QuantSpec"):
            other.load_state_dict(state, **options)
        holder = torch.nn.ModuleDict({"a": torch.nn.Sequential(other)})
        with pytest.raises(nx.NumericsError, match=r"^a\.0\..*in the model of QuantSpec"):
            holder.load_state_dict({f"a.0.{key}": x for key, x in state.items()}, **options)
    assert list(map(repr, other.state_dict().values())) == before
    OTHERS[name][0]().load_state_dict(state)


def test_a_scale_fits_however_values_are_rounded():
    one = Static("w", nx.QuantSpec("int4"), (), None)
    one.give(0.5)
    other = Static("w", nx.QuantSpec("int4", rounding="half_away"), (), None)
    other.load_state_dict(one.state_dict())
    assert other.ready
    assert other.scale == 0.5


@pytest.mark.parametrize("record", [None, 3, "int4", torch.ones(3), torch.tensor([255], dtype=torch.uint8),
                                    torch.tensor([123, 125], dtype=torch.uint8)])  # fmt: skip
def test_what_says_nothing_of_the_spec_is_named(record):
    made = begun("LSQ")
    holder, state = torch.nn.Sequential(made), {"0.step": torch.tensor(0.25), "0._extra_state": record}
    if record is None:
        del state["0._extra_state"]
        with pytest.raises(RuntimeError, match=r'Missing key.*"0\._extra_state"'):
            holder.load_state_dict(state)
        holder.load_state_dict(state, strict=False)  # who says so knows of what format it is
        made.load_state_dict({"step": torch.tensor(0.5)})  # so does who asks the quantizer itself
        assert made.step == 0.5
        return
    with pytest.raises(nx.NumericsError, match=r"0\._extra_state is .*(due|no text of a spec)"):
        holder.load_state_dict(state)


# ---- after the cast --------------------------------------------------------------------------------

INTO = {
    "step": ("LSQ", [1e300, -1e300, 1e-300, 1 / 3, 2**60 + 1]),
    "log2_threshold": ("TQT", [3.0000000001, 1e300, 2**60 + 1]),
    "zero_point": ("a zero point", [1e20, -1e20, 2.0**40, 1000, -9.0, 2.5, 2**62]),
}
CAST = [(name, key, value) for key, (name, values) in INTO.items() for value in values]
CAST += [("LSQ+", "zero_point", value) for value in (1e300, 1 / 3, 2**24 + 1)]
CAST += [("a fixed scale", "zero_point", value) for value in INTO["zero_point"][1]]
CAST += [("a fixed scale", "scale", value) for value in (2**60 + 1, 0, -1, float("inf"), -float("inf"))]


@pytest.mark.parametrize(("name", "key", "value"), CAST)
def test_a_number_of_a_state_became_another_in_its_type(name, key, value):
    """1e300 became inf, 1e20 the least int64, and a threshold's 3.0000000001 the 3 that halves a scale."""
    made = begun(name)
    before = {k: x.clone() for k, x in made.state_dict().items()}
    came = torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float64)
    with pytest.raises(nx.NumericsError, match=f"^{key} "):
        made.load_state_dict({**before, key: came})
    assert all(torch.equal(x, before[k]) for k, x in made.state_dict().items())


@pytest.mark.parametrize("name", MADE)
def test_numbers_of_another_type_that_stay_themselves_are_taken(name):
    for dtype in (torch.float64, torch.float16, torch.int64):
        made = begun(name)
        state = {k: torch.tensor(2, dtype=dtype) if k in MADE[name][1] else x
                 for k, x in made.state_dict().items()}  # fmt: skip
        if name == "a step a channel":
            state["step"] = torch.full((4,), 2, dtype=dtype)
        kinds = {k: x.dtype for k, x in made.state_dict().items()}
        made.load_state_dict(state)
        assert all(bool((made.state_dict()[k] == 2).all()) for k in MADE[name][1])
        if name != "a fixed scale":
            assert {k: x.dtype for k, x in made.state_dict().items()} == kinds
        made(X)


def test_an_integer_scale_of_a_state_left_the_quantizer_without_one():
    made = Static("w", nx.QuantSpec("int4"), (), None)
    made.load_state_dict({**made.state_dict(), "scale": torch.tensor(2)})
    assert torch.equal(made(X), nx.fake_quantize(X, "int4", scale=2.0))


def test_integers_that_are_assigned_were_an_error_of_torch():
    made = begun("LSQ")
    with pytest.raises(nx.NumericsError, match="floats are due with assign=True"):
        made.load_state_dict({**made.state_dict(), "step": torch.tensor(1)}, assign=True)
    made.load_state_dict({**made.state_dict(), "step": torch.tensor(1e300, dtype=torch.float64)}, assign=True)
    assert made.step == 1e300


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "begun"])
@pytest.mark.parametrize("name", ["TQT", "LSQ", "LSQ+"])
def test_half_of_a_step_that_is_assigned_could_not_learn(name, fresh):
    """What it learns stays float32 whatever becomes of the model, and was float16 by assign=True."""
    made, state = MADE[name][0]() if fresh else begun(name), begun(name).state_dict()
    half = {k: x.half() if x.is_floating_point() else x for k, x in state.items()}
    made.load_state_dict(half, assign=True)
    for key in MADE[name][1]:
        assert half[key].dtype == torch.float16, "the state is the caller's"
        assert torch.equal(made.state_dict()[key], half[key].float())
    assert all(x.requires_grad for x in made.parameters())


def test_a_state_that_has_not_begun_was_an_error_of_torch_in_a_module_that_has():
    made = begun("LSQ")
    with pytest.raises(nx.NumericsError, match="step has not begun in this state"):
        made.load_state_dict(LSQ("int4").state_dict())
    assert made.initialized
