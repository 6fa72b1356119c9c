"""Folders that transformers and compressed-tensors read: the values there are those of the QTensors."""

import json
import os

import pytest

pytest.importorskip("transformers")
pytest.importorskip("compressed_tensors")
import torch
from safetensors import safe_open
from torch import nn

import numerics as nx
from numerics.model import compressed_tensors
from tests.helpers.transformers import HIDDEN, bert, freeze, ids, minilm, mixtral, quantized, quiet

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.usefixtures("decoded_products"),
]
LONG = bool(os.environ.get("NUMERICS_TEST_LONG"))

INTEGERS = {
    bits: nx.integer_format(bits) if bits in (5, 6, 7) else nx.dtype(f"int{bits}") for bits in range(2, 9)
}
SPECS = {name: nx.QuantSpec(name) for name in ("mxfp4", "mxfp6_e2m3", "mxfp8_e4m3", "nvfp4")}
SPECS |= {
    f"int{bits} {scheme} {'symmetric' if symmetric else 'asymmetric'}":
        nx.QuantSpec(d, scheme=scheme, symmetric=symmetric)
    for bits, d in INTEGERS.items()
    for scheme in ("per_tensor()", "per_channel(0)", "per_group(32)") for symmetric in (True, False)
}  # fmt: skip
SPECS |= {
    f"fp8_e4m3 {scheme}": nx.QuantSpec("fp8_e4m3", scheme=scheme)
    for scheme in ("per_tensor()", "per_channel(0)", "per_group(32)", "per_block((8, 16))")
}
SPECS |= {"uint4": nx.QuantSpec("uint4", scheme="per_group(16)", symmetric=False),
          "uint8 symmetric": nx.QuantSpec("uint8", scheme="per_channel(0)")}  # fmt: skip
USUAL = [
    "mxfp4", "mxfp6_e2m3", "mxfp8_e4m3", "nvfp4", "fp8_e4m3 per_channel(0)", "fp8_e4m3 per_block((8, 16))",
    "int4 per_group(32) symmetric", "int4 per_group(32) asymmetric", "int3 per_group(32) symmetric",
    "int8 per_channel(0) symmetric",
]  # fmt: skip


LEARNED = {
    "tqt": nx.QuantSpec("int8"),
    "lsq": nx.QuantSpec("int4", scheme="per_channel(0)"),
}


def loaded(folder, kind="AutoModel", **options):
    """What transformers makes of a folder."""
    import transformers

    with quiet():
        model, info = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True, **options)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    return model.eval()


def values(q, kind=torch.float32):
    """What the weight should be: NVFP4 is decompressed to bfloat16."""
    return q.dequantize(torch.bfloat16 if q.format is nx.nvfp4 else None).to(kind)


def differing(model, frozen) -> dict[str, int]:
    """How many values of each quantized weight are others."""
    found = {}
    for name, q in quantized(frozen).items():
        came = model.get_parameter(name)
        assert came.shape == q.shape, name
        count = int((came.detach() != values(q, came.dtype)).sum())
        if count:
            found[name] = count
    return found


@pytest.mark.parametrize("name", [name for name in SPECS if "uint8" not in name] if LONG else USUAL)
def test_transformers_loads_the_values_and_the_logits_of_the_frozen_model(name, tmp_path):
    frozen = freeze(bert(), SPECS[name])
    compressed_tensors.save(frozen, tmp_path)
    came = loaded(tmp_path)
    assert len(quantized(frozen)) == 13
    assert differing(came, frozen) == {}
    assert came.dtype == torch.float32
    frozen = freeze_values(frozen) if name == "nvfp4" else frozen
    with torch.no_grad():
        assert torch.equal(came(ids()).last_hidden_state, frozen(ids()).last_hidden_state)


@pytest.mark.parametrize("method", ["tqt", "lsq"])
def test_learned_thresholds_become_integers_that_transformers_loads(method, tmp_path):
    """Trained, frozen, exported, loaded: the values and the logits of the model that learned."""
    float_model = bert()
    wrapped = nx.wrap(float_model, LEARNED[method], qat=method, example=ids())
    groups = nx.train.parameter_groups(wrapped, lr=1e-2)
    optimizer = torch.optim.Adam(groups, lr=1e-3)
    begun = [one.detach().clone() for one in nx.train.thresholds(wrapped)]
    for _ in range(3):
        optimizer.zero_grad()
        wrapped(ids()).last_hidden_state.square().mean().backward()
        optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(begun, nx.train.thresholds(wrapped), strict=True))
    wrapped.eval()
    with torch.no_grad():
        due = wrapped(ids()).last_hidden_state
    frozen = nx.freeze(wrapped)
    compressed_tensors.save(frozen, tmp_path)
    came = loaded(tmp_path)
    assert quantized(frozen)
    assert differing(came, frozen) == {}
    with torch.no_grad():
        assert torch.equal(came(ids()).last_hidden_state, due)


def freeze_values(model):
    """The QTensors of a model become the floats that are read."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(values(module.weight), requires_grad=False)
    return model


@pytest.mark.parametrize("name", SPECS)
def test_what_is_written_decodes_to_the_values_in_compressed_tensors_own_hands(name):
    """Without transformers: rows that end inside a word, groups, the ends of the range of codes."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    torch.manual_seed(3)
    w = torch.randn(24, 96) * torch.logspace(-3, 3, 24)[:, None]
    w = w.abs() if name == "uint8 symmetric" else w
    layer = nn.Linear(96, 24)
    layer.weight = nn.Parameter(nx.quantize(w, SPECS[name]), requires_grad=False)
    stored = compressed_tensors._layers(layer)[""]
    scheme = QuantizationScheme(targets=["Linear"], weights=json.loads(stored.scheme.weights))
    decompress = BaseCompressor.get_value_from_registry(stored.scheme.format).decompress
    came = decompress(dict(stored.tensors), scheme)["weight"]
    assert torch.equal(came, values(layer.weight, came.dtype))


@pytest.mark.parametrize("bits", INTEGERS)
@pytest.mark.parametrize("columns", [32, 33, 40, 100])
def test_codes_are_packed_as_compressed_tensors_packs_them(bits, columns):
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    torch.manual_seed(bits)
    codes = torch.randint(0, 1 << bits, (5, columns), dtype=torch.uint8)
    signed = (codes.to(torch.int32) - (1 << (bits - 1))).to(torch.int8)
    assert torch.equal(compressed_tensors._words(codes, bits), pack_to_int32(signed, bits))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=str)
def test_a_model_of_halves_has_its_own_values(kind, tmp_path):
    """Scales are float32: rounded to the model's type first, the products would be others."""
    frozen = freeze(bert().to(kind), "int4")
    compressed_tensors.save(frozen, tmp_path)
    came = loaded(tmp_path)
    assert came.dtype == kind
    assert differing(came, frozen) == {}


def test_layers_of_several_specs_are_groups_and_floats_are_ignored(tmp_path):
    frozen = bert()
    for name, module in frozen.named_modules():
        if isinstance(module, nn.Linear) and "pooler" not in name:
            spec = SPECS["int4 per_group(32) symmetric" if "attention" in name else "fp8_e4m3 per_channel(0)"]
            module.weight = nn.Parameter(nx.quantize(module.weight.detach(), spec), requires_grad=False)
    compressed_tensors.save(frozen, tmp_path)
    said = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    assert (said["format"], said["dequantize"]) == ("mixed-precision", False)
    assert [len(group["targets"]) for group in said["config_groups"].values()] == [8, 4]
    assert said["ignore"] == ["pooler.dense"]
    came = loaded(tmp_path)
    with torch.no_grad(), quiet():
        y = came(ids()).last_hidden_state  # it decompresses here
        assert torch.equal(y, frozen(ids()).last_hidden_state)
    assert differing(came, frozen) == {}


def test_mx_beside_another_spec_makes_a_model_of_bfloat16(tmp_path):
    """Decompressed to bfloat16 at the first call, a layer of a float32 model would refuse its input."""
    frozen = bert()
    freeze(frozen.encoder.layer[0], "mxfp4")
    freeze(frozen.encoder.layer[1], "mxfp8_e4m3")
    compressed_tensors.save(frozen, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16"
    came = loaded(tmp_path)
    with torch.no_grad(), quiet():
        assert came(ids()).last_hidden_state.dtype == torch.bfloat16
    assert differing(came, frozen) == {}


def test_an_embedding_and_the_head_that_is_tied_to_it_stay_one(tmp_path):
    frozen = freeze(bert("BertForMaskedLM"), "mxfp6_e2m3", nn.Linear, nn.Embedding)
    assert frozen.cls.predictions.decoder.weight is frozen.bert.embeddings.word_embeddings.weight
    compressed_tensors.save(frozen, tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = list(file.keys())
    assert not [name for name in names if "decoder" in name and "weight" in name]
    came = loaded(tmp_path, "AutoModelForMaskedLM")
    assert came.cls.predictions.decoder.weight is came.bert.embeddings.word_embeddings.weight
    assert differing(came, frozen) == {}
    with torch.no_grad():
        assert torch.equal(came(ids()).logits, frozen(ids()).logits)


def test_a_model_that_transformers_quantized_with_numericsconfig_is_stored(tmp_path):
    """Its configuration says another method already."""
    import transformers

    from numerics.model.huggingface import NumericsConfig

    with quiet():
        bert().save_pretrained(tmp_path / "float")
        config = NumericsConfig("mxfp4")
        model = transformers.AutoModel.from_pretrained(tmp_path / "float", quantization_config=config)
    compressed_tensors.save(model, tmp_path / "stored")
    assert differing(loaded(tmp_path / "stored"), model) == {}


def test_experts_that_stay_float_come_back_and_quantized_ones_are_refused(tmp_path):
    """transformers merges experts as it loads them; in the model's own names they lie merged already."""
    frozen = freeze(mixtral(), "mxfp4")
    compressed_tensors.save(frozen, tmp_path)
    assert (tmp_path / "generation_config.json").exists()
    came = loaded(tmp_path, "AutoModelForCausalLM")
    assert differing(came, frozen) == {}
    with torch.no_grad():
        assert torch.equal(came(ids()).logits, frozen(ids()).logits)
    experts = frozen.model.layers[0].mlp.experts
    for name, x in list(experts.named_parameters()):
        setattr(experts, name, nn.Parameter(nx.quantize(x.detach(), "mxfp4"), requires_grad=False))
    with pytest.raises(nx.NumericsError, match=r"gate_up_proj, .*down_proj: it serves .*not MixtralExperts"):
        compressed_tensors.save(frozen, tmp_path)


def test_a_large_model_lies_in_several_files(tmp_path):
    frozen = freeze(bert(), "mxfp4")
    compressed_tensors.save(frozen, tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert len(shards) > 2
    assert set(index["weight_map"].values()) == {shard.name for shard in shards}
    assert differing(loaded(tmp_path), frozen) == {}
    compressed_tensors.save(frozen, tmp_path)  # and into one again: transformers would take what is left over
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert differing(loaded(tmp_path), frozen) == {}


def test_every_layer_without_an_equivalent_is_named_before_anything_is_written(tmp_path):
    frozen = bert()
    freeze(frozen.encoder.layer[0], "mx6")
    freeze(frozen.pooler, "mxfp8_e5m2")
    freeze(frozen.embeddings, "int8", nn.LayerNorm)
    with pytest.raises(nx.NumericsError) as told:
        compressed_tensors.save(frozen, tmp_path / "new")
    for name in quantized(frozen):
        assert name in str(told.value)
    assert "it has no mx6; mxfp6_e2m3 would fit" in str(told.value)
    assert "it has no mxfp8_e5m2; mxfp8_e4m3 would fit" in str(told.value)
    assert "not LayerNorm" in str(told.value)
    assert not (tmp_path / "new").exists()


W = torch.randn(24, 96, generator=torch.Generator().manual_seed(1))


def far():
    """A zero point that no code is: made by hand, since quantize refuses it."""
    q = nx.quantize(W, "int4", symmetric=False)
    q.zero_point.fill_(99)
    return q


REFUSED = {
    "mx4": (nx.quantize(W, "mx4"), "it has no mx4; mxfp4"),
    "mx9": (nx.quantize(W, "mx9"), "it has no mx9; mxfp8_e4m3"),
    "an own format": (nx.quantize(W, nx.float_format(3, 3, name="own")), "it has no own; one of mxfp4"),
    "int16": (nx.quantize(W, "int16"), "it has no int16; int8"),
    "fp4": (nx.quantize(W, "fp4"), "it has no fp4; mxfp4 or nvfp4"),
    "columns": (nx.quantize(W, "int8", scheme="per_channel(1)"), r"per_channel\(1\) of 24 x 96 has no place"),
    "groups of rows": (nx.quantize(W, "int8", scheme="per_group(8, axis=0)"), "whole groups along"),
    "blocks of integers": (nx.quantize(W, "int8", scheme="per_block((8, 16))"), "of fp8_e4m3 whole blocks"),
    "a short tile": (nx.quantize(W, "fp8_e4m3", scheme="per_block((8, 64))"), "of fp8_e4m3 whole blocks"),
    "a short group": (nx.quantize(W, "int8", scheme="per_group(64)"), "whole groups along the last axis"),
    "blocks of rows": (nx.quantize(W, "mxfp4", axis=0), "blocks lie along axis 0"),
    "a short block": (nx.quantize(W[:, :80], "mxfp4"), "rows of 80 are not whole blocks of 32"),
    "float zero points": (nx.quantize(W, "int4", symmetric=False, zero_point_type="float32"), "are floats"),
    "a far zero point": (far(), "beyond the codes"),
    "NaN": (nx.quantize(W * torch.nan, "mxfp4"), "blocks of NaN"),
    "tiny": (nx.quantize(W * 2**-130, "mxfp8_e4m3"), r"below 2\*\*-133"),
    "float64": (nx.quantize(W.double(), "int8"), "float64"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_have_other_values_there_is_refused(name, tmp_path):
    q, why = REFUSED[name]
    layer = nn.Linear(q.shape[1], q.shape[0])
    layer.weight = nn.Parameter(q, requires_grad=False)
    with pytest.raises(nx.NumericsError, match=why):
        compressed_tensors.save(layer, tmp_path / "new", config={})
    assert not (tmp_path / "new").exists()


def test_tiny_blocks_of_other_formats_and_blocks_of_zeros_are_kept():
    for q in (nx.quantize(W * 2**-130, "mxfp4"), nx.quantize(W * 2**-130, "mxfp6_e2m3"),
              nx.quantize(W * 0, "mxfp8_e4m3")):  # fmt: skip
        layer = nn.Linear(96, 24)
        layer.weight = nn.Parameter(q, requires_grad=False)
        assert list(compressed_tensors._layers(layer)) == [""]


def test_modules_that_read_their_weights_past_forward_are_refused(tmp_path):
    attention = nn.MultiheadAttention(HIDDEN, 2)
    freeze(attention, "int8")
    with pytest.raises(nx.NumericsError, match=r"out_proj\.weight: .* not NonDynamicallyQuantizableLinear"):
        compressed_tensors.save(attention, tmp_path, config={})


def test_specs_that_cannot_stand_beside_each_other_are_refused(tmp_path):
    frozen = bert()
    freeze(frozen.encoder.layer[0], nx.QuantSpec("int4", scheme="per_group(32)", symmetric=False))
    freeze(frozen.encoder.layer[1], "mxfp4")
    with pytest.raises(nx.NumericsError, match=r"layer\.0.*zero points beside.*rounded to bfloat16"):
        compressed_tensors.save(frozen, tmp_path)


def test_what_freeze_leaves_is_stored_and_loaded_by_its_own_class(tmp_path):
    model = nx.freeze(nx.wrap(bert(), "mxfp4", example={"input_ids": ids()}))
    assert len(quantized(model)) == 13
    compressed_tensors.save(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["architectures"] == [
        "BertModel"
    ]
    assert differing(loaded(tmp_path), model) == {}


def test_what_is_not_frozen_or_quantizes_activations_is_refused(tmp_path):
    example = {"input_ids": ids()}
    with pytest.raises(nx.NumericsError, match=r"pooler\.dense\.weight.*nx\.freeze\(model\)"):
        compressed_tensors.save(nx.wrap(bert(), "mxfp4", example=example), tmp_path)
    model = nx.freeze(nx.wrap(bert(), "mxfp4", activations="mxfp8_e4m3", example=example))
    with pytest.raises(nx.NumericsError, match=r"pooler.*are computed are quantized too"):
        compressed_tensors.save(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_model_without_qtensors_or_without_a_config_is_refused(tmp_path):
    with pytest.raises(nx.NumericsError, match="BertModel has no quantized parameters"):
        compressed_tensors.save(bert(), tmp_path)
    with pytest.raises(nx.NumericsError, match="Linear has no configuration"):
        compressed_tensors.save(freeze(nn.Sequential(nn.Linear(32, 32)), "mxfp4")[0], tmp_path)
    with pytest.raises(nx.NumericsError, match=r"takes a torch\.nn\.Module, not dict"):
        compressed_tensors.save({}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_folder_as_it_was(tmp_path):
    compressed_tensors.save(freeze(bert(), "mxfp4"), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    frozen = freeze(bert(), "int8")
    frozen.register_buffer("odd", torch.zeros(3, dtype=torch.complex128))  # safetensors has no such type
    with pytest.raises(nx.NumericsError, match="safetensors has no complex128"):
        compressed_tensors.save(frozen, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(nx.NumericsError, match="name a folder"):
        compressed_tensors.save(freeze(bert(), "mxfp4"), tmp_path / "file")


@pytest.mark.skipif(not LONG, reason="NUMERICS_TEST_LONG=1: a pretrained model")
@pytest.mark.parametrize("name", USUAL)
def test_minilm_is_loaded_with_the_same_values_and_logits(name, tmp_path):
    import transformers

    with quiet():
        frozen = freeze(transformers.AutoModel.from_pretrained(minilm()), SPECS[name]).eval()
    compressed_tensors.save(frozen, tmp_path)
    came = loaded(tmp_path)
    assert differing(came, frozen) == {}
    frozen = freeze_values(frozen)
    with torch.no_grad():
        assert torch.equal(came(ids()).last_hidden_state, frozen(ids()).last_hidden_state)
