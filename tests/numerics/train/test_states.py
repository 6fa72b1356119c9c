"""What a state brings for thresholds, steps, scales and zero points: values as they were, or words."""

from __future__ import annotations

import pytest
import torch

import numerics as nx
from numerics.model.quantizers import Static
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
    "a fixed scale": (lambda: Static("w", nx.QuantSpec("int4", symmetric=False), (4, 8), None),
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
