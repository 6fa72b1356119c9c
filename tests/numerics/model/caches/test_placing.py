"""Keys and values that a model keeps between calls: packed, with the bits of a cache of rounded floats."""

from __future__ import annotations

import copy

import pytest

pytest.importorskip("transformers")
import torch
from torch import nn
from transformers.cache_utils import DynamicCache, DynamicLayer, QuantizedLayer, StaticCache

import numerics as nx
from numerics.model.caches.layers import PackedLayer
from numerics.model.caches.stored import MOST, Stored
from tests.helpers.transformers import llama, quiet

GROUPS = nx.QuantSpec("int8", scheme=nx.per_group(16), symmetric=False)
FORMATS = [
    "mxfp8_e4m3",
    "mx6",
    "mxfp4",
    GROUPS,
    nx.QuantSpec("fp8_e4m3", scheme=nx.per_group(32)),
    nx.QuantSpec("int4", scheme=nx.per_token()),
]
IDS = torch.arange(12).reshape(2, 6)


@pytest.fixture(autouse=True)
def _quiet():
    with quiet(), torch.no_grad():
        yield


def wrapped(caches="mxfp8_e4m3", **options):
    return nx.wrap(llama(), caches=caches, example={"input_ids": IDS}, **options)


class Rounded(DynamicLayer):
    """The judge: a layer of floats, each rounded as it comes."""

    def __init__(self, spec):
        super().__init__()
        self.spec = spec

    def update(self, key_states, value_states, *args, **kwargs):
        rounded = (nx.fake_quantize(x, self.spec) for x in (key_states, value_states))
        return super().update(*rounded, *args, **kwargs)


@pytest.mark.turns
@pytest.mark.parametrize("spec", FORMATS, ids=str)
def test_a_packed_cache_has_other_values_than_a_rounded_one(spec):
    one, due = wrapped(spec), DynamicCache()
    due.layer_class_to_replicate = lambda: Rounded(spec)
    came = None
    for ids in (IDS[:, :3], IDS[:, 3:4], IDS[:, 4:]):
        ours = one(input_ids=ids, use_cache=True, **({} if came is None else {"past_key_values": came}))
        came = ours.past_key_values
        assert torch.equal(ours.logits, llama()(input_ids=ids, past_key_values=due).logits)
    assert [type(layer) for layer in came.layers] == [PackedLayer] * 2
    assert came.layers[0].nbytes == 2 * nx.quantize(torch.ones(2, 2, 6, 32), spec).nbytes


@pytest.mark.turns
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}])
def test_what_is_generated_depends_on_how_the_cache_is_stored(options):
    one = wrapped("mxfp4", weights="int8")
    static = {"cache_implementation": "static"} if not options else {}
    found = one.generate(IDS, max_new_tokens=MOST + 4, do_sample=False, **options)
    assert found.shape == (2, 6 + MOST + 4)
    if static:
        assert torch.equal(found, one.generate(IDS, max_new_tokens=MOST + 4, do_sample=False, **static))
    frozen = nx.freeze(one)
    with nx.decoded_products():
        assert torch.equal(found, frozen.generate(IDS, max_new_tokens=MOST + 4, do_sample=False, **options))


def test_keys_have_the_format_of_values(tmp_path):
    one = wrapped(None, rules={"*.keys": {"caches": "mx9"}, "*.values": {"caches": "mxfp4"}}, weights="mx6")
    keys, values = one(IDS).past_key_values.layers[0].stored
    assert (keys.spec.dtype, values.spec.dtype) == (nx.mx9, nx.mxfp4)
    nx.save(nx.freeze(one).state_dict(), tmp_path / "m.safetensors")
    again = nx.load_into(llama(), tmp_path / "m.safetensors")
    assert torch.equal(again(IDS).logits, one(IDS).logits)
    assert type(again(IDS).past_key_values.layers[0]) is PackedLayer
    assert nx.report(one, llama(), [{"input_ids": IDS}]).output > 0
    plain = nx.unwrap(wrapped())
    assert type(plain(IDS).past_key_values.layers[0]) is DynamicLayer


@pytest.mark.parametrize("spec", FORMATS, ids=str)
def test_rows_and_tokens_of_a_packed_cache_are_decoded_when_they_move(spec):
    x = torch.randn(3, 2, MOST + 5, 32)
    one = Stored(nx.QuantSpec(spec) if isinstance(spec, str) else spec)
    for t in range(x.shape[2]):
        due = one.add(x[:, :, t : t + 1])
    assert torch.equal(due, nx.fake_quantize(x, spec)), "of a prompt at once"
    assert len(one.pieces) < MOST
    one.select([2, 0, 0])
    one.crop(6)
    assert torch.equal(one.values(), due[[2, 0, 0], :, : MOST - 1])
    assert one.tokens == MOST - 1
    assert one.nbytes == nx.quantize(x[:, :, : MOST - 1], spec).nbytes


def test_a_layer_of_a_cache_moves_its_keys_alone():
    x, spec = torch.randn(3, 2, MOST + 5, 32), nx.QuantSpec("mxfp4")
    layer = PackedLayer((spec, None))
    layer.update(x, x)
    other = copy.deepcopy(layer)
    layer.batch_repeat_interleave(2)
    layer.crop(-2)
    assert torch.equal(layer.values, x.repeat_interleave(2, 0)[:, :, :-2])
    layer.reset()
    assert (layer.keys, layer.get_seq_length(), other.get_seq_length()) == (None, 0, MOST + 5)


class Keeps(nn.Module):
    """Keeps keys in a list of its own."""

    def __init__(self):
        super().__init__()
        self.k = nn.Linear(32, 32)

    def forward(self, x, past_key_values=None):
        past = [*(past_key_values or []), self.k(x)]
        return {"y": torch.cat(past, 1), "past_key_values": past}


def filled():
    cache = DynamicCache()
    llama()(IDS, past_key_values=cache)
    return cache


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: wrapped("int8"), r"cache.keys: .*finds scales over several tokens.*per_group"),
        (lambda: wrapped("nvfp4"), "finds scales over several tokens"),
        (lambda: wrapped(nx.QuantSpec("mxfp4", axis=1)), "finds scales over several tokens"),
        (lambda: wrapped(mode="fx_graph_mode"), "a graph keeps caches as they are"),
        (lambda: wrapped(None, weights="int8", rules={"*.keys": {"caches": None}}), "without effect"),
        (
            lambda: nx.wrap(nn.Linear(32, 8), caches="mx6", example=torch.ones(1, 32)),
            "caches=.*has no effect",
        ),
        (lambda: nx.wrap(Keeps(), caches="mx6", example=torch.ones(1, 2, 32)), "past_key_values is a list"),
        (lambda: wrapped()(IDS, past_key_values=filled()), "6 tokens in floats already"),
        (lambda: wrapped()(IDS, past_key_values=[1]), "the cache is a list"),
        (lambda: wrapped("mx6")(IDS, past_key_values=wrapped()(IDS).past_key_values), "and the plan"),
    ],
)
def test_what_cannot_be_packed_stays_in_floats(wrong, said):
    with pytest.raises(nx.NumericsError, match=said):
        wrong()


def test_gradients_end_in_a_packed_cache_without_a_word():
    one = wrapped(qat="ste", weights="int8")
    with torch.enable_grad():
        out = one(IDS)
        out.logits.sum().backward()
        assert one.model.layers[0].self_attn.k_proj._parameters["weight"].grad.abs().sum() > 0
        with pytest.raises(nx.NumericsError, match="no gradient comes back"):
            one(IDS, past_key_values=out.past_key_values)
    assert one(IDS, use_cache=False).past_key_values is None
    cache = StaticCache(config=one.config, max_cache_len=8)
    one(IDS, past_key_values=cache)
    assert torch.equal(cache.layers[0].keys, nx.fake_quantize(cache.layers[0].keys, "mxfp8_e4m3"))
    assert not issubclass(PackedLayer, QuantizedLayer)
