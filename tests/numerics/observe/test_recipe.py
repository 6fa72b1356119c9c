"""Observers by a text: their own options in a plan, whose scales are those of the observer with them."""

import numpy as np
import pytest

import numerics as nx
from numerics.observe import OBSERVERS, observer, observer_text

TEXTS = {
    " percentile( percentile = 99.90 )": "percentile(99.9)",
    "percentile(99.9, bins=512)": "percentile(99.9, bins=512)",
    "percentile(bins=512)": "percentile(bins=512)",
    "mse(512)": "mse(512)",
    "kl(bins=128)": "kl(128)",
    "moving_average(1e-1)": "moving_average(0.1)",
    "pof2(ceil)": "pof2(ceil)",
    "min_max()": "min_max",
}
WRONG = {
    "foo(3)": "unknown observer 'foo'",
    "min-max": "unknown observer 'min-max'; did you mean 'min_max'?",
    "min_max(3)": "min_max has no options of its own",
    "percentile(99": "cannot be read",
    "percentile(99,9)": "cannot be read",
    "percentile(99)x": "cannot be read",
    "percentile(bin=4)": "unknown option of percentile 'bin'; did you mean 'bins'?",
    "percentile(99, percentile=98)": "gives percentile twice",
    "percentile(0.9)": "in per cent, above 1",
    "percentile(nan)": "percentile='nan' is not allowed",
    "percentile(dtype=int8)": "unknown option of percentile 'dtype'",
    "mse(100)": "a power of two",
    "pof2(best)": "unknown rule 'best'",
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_one_observer(text):
    due = TEXTS[text]
    assert observer_text(text) == observer_text(due) == due
    made = observer(text, "int8")
    name, _, inside = due.partition("(")
    assert type(made) is OBSERVERS[name]
    for place, part in enumerate(filter(None, inside.rstrip(")").split(", "))):
        key, _, value = part.rpartition("=")
        assert str(getattr(made, key or made.own[place])) == value


@pytest.mark.parametrize("text", WRONG)
def test_a_text_that_is_none_says_why(text):
    with pytest.raises(nx.NumericsError) as refused:
        observer_text(text)
    assert WRONG[text] in str(refused.value)


@pytest.mark.parametrize(
    "came", [nx.observe.Percentile, nx.observe.Percentile("int8"), ("percentile", 99), 3]
)
def test_what_is_no_text_is_told_how_options_are_given(came):
    with pytest.raises(nx.NumericsError, match=r"as in 'percentile\(99.9\)'.*names: min_max, "):
        observer_text(came)


def test_an_option_is_given_once():
    with pytest.raises(nx.NumericsError, match="percentile is given in the observer's name and beside it"):
        observer("percentile(99)", "int8", percentile=98)


@pytest.mark.parametrize("mode", ["eager_mode", "fx_graph_mode"])
def test_a_model_is_calibrated_with_the_options(mode, tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(torch.nn.Linear(16, 8)), torch.randn(64, 16)
    text = "percentile(90, bins=512)"
    plan = nx.plan(model, "int8", "int8", observer=text, example=x, mode=mode)
    plan.save(tmp_path / "plan.toml")
    plan = nx.Plan.load(tmp_path / "plan.toml")
    assert [row.observer for row in plan.rows if row.kind == "activation"] == [text]
    assert f"int8 per_tensor() by {text}" in plan.table() or f"by {text}" in plan.table()
    wrapped = nx.wrap(model, nx.plan(model, "int8", "int8", observer=text, example=x, mode=mode))
    nx.calibrate(wrapped, [x])
    alone = nx.observe.Percentile("int8", percentile=90, bins=512)
    alone.observe(x)
    (scale,) = (b for name, b in wrapped.named_buffers() if name.endswith("scale"))
    assert np.float32(scale.item()) == np.float32(alone.scale)
    rules = {"0": {"activations": "int8", "observer": "percentile(90)"}}
    made = nx.plan(model, "int8", rules=rules, example=x, mode=mode)
    assert [row.observer for row in made.rows if row.kind == "activation"] == ["percentile(90)"]
