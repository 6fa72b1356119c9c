"""Models that transformers quantizes as it loads them, saves, and loads again with the same bits."""

import importlib.util
import json
import os
import subprocess
import sys
import warnings

import pytest

pytest.importorskip("transformers")
import torch
from safetensors import safe_open
from torch import nn

import numerics as nx
from numerics.formats.errors import NumericsWarning
from numerics.model.huggingface import NumericsConfig, choose
from numerics.pytorch.qtensor import TensorQTensor
from tests.helpers.children import LIMIT
from tests.helpers.transformers import bert, ids, minilm, mixtral, quantized, quiet

pytestmark = pytest.mark.usefixtures("decoded_products")  # bits of frozen models beside wrapped ones

LONG = bool(os.environ.get("NUMERICS_TEST_LONG"))
SPECS = {
    "mx6": nx.QuantSpec("mx6"), "mxfp4": nx.QuantSpec("mxfp4"), "nvfp4": nx.QuantSpec("nvfp4"),
    "int4 asymmetric": nx.QuantSpec("int4", scheme="per_group(32)", symmetric=False),
    "int8 of halves": nx.QuantSpec("int8", scheme="per_channel(0)", scale_type="float16"),
    "an own format": nx.QuantSpec(nx.float_format(3, 2), scheme="per_group(16)"),
}  # fmt: skip
SPECS_OF_ALL = {d.name: nx.QuantSpec(d) for d in nx.dtypes() if getattr(d, "signed", True)}


@pytest.fixture(autouse=True)
def _quiet():
    with quiet():
        warnings.simplefilter("error", NumericsWarning)
        yield


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folders of float models."""

    def folder(make, *args, **options):
        path = tmp_path_factory.mktemp("float")
        with quiet():
            make(*args, **options).save_pretrained(path)
        return path

    return {"bert": folder(bert), "mlm": folder(bert, "BertForMaskedLM"), "mixtral": folder(mixtral)}


def load(folder, config=None, kind="AutoModel", **options):
    import transformers

    given = {} if config is None else {"quantization_config": config}
    return getattr(transformers, kind).from_pretrained(folder, **given, **options).eval()


def logits(model):
    with torch.no_grad():
        return model(ids())[0]


def same_bits(a, b) -> bool:
    """Have two models the same quantized parameters?"""
    ours, theirs = quantized(a), quantized(b)
    return ours.keys() == theirs.keys() and all(
        q.spec == theirs[name].spec and q.dtype == theirs[name].dtype
        and all(torch.equal(x, y) for x, y in zip(q.parts, theirs[name].parts, strict=True))
        for name, q in ours.items()
    )  # fmt: skip


@pytest.mark.parametrize("name", {**SPECS, **SPECS_OF_ALL} if LONG else SPECS)
def test_a_model_is_quantized_as_it_is_loaded_and_comes_back_with_the_same_bits(name, saved, tmp_path):
    spec = {**SPECS, **SPECS_OF_ALL}[name]
    model, plain = load(saved["bert"], NumericsConfig(spec)), bert()
    due = {n: nx.quantize(p.detach(), spec) for n, p in plain.named_parameters()
           if p.ndim == 2 and "embeddings" not in n}  # fmt: skip
    assert quantized(model).keys() == due.keys()
    assert all(torch.equal(quantized(model)[n].dequantize(), q.dequantize()) for n, q in due.items())
    assert all(torch.equal(p, plain.get_parameter(n)) for n, p in model.named_parameters() if n not in due)
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert same_bits(model, again)
    assert torch.equal(logits(model), logits(again))
    again.save_pretrained(tmp_path / "twice")
    assert same_bits(model, load(tmp_path / "twice"))


def test_the_files_hold_plain_tensors_and_a_text_that_says_what_they_are(saved, tmp_path):
    model = load(saved["bert"], NumericsConfig("mxfp4"))
    model.save_pretrained(tmp_path)
    name = "encoder.layer.0.attention.self.query.weight"
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        told = json.loads(file.metadata()["numerics_hf"])
        assert torch.equal(file.get_tensor(f"{name}_numerics_packed"), model.get_parameter(name).packed)
        assert torch.equal(file.get_tensor(f"{name}_numerics_shared"), model.get_parameter(name).shared)
        assert name not in list(file.keys())
    assert told["tensors"][name] == ['{"dtype": "mxfp4", "axis": -1}', [64, 64], "float32"]
    said = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    assert said == {
        "quant_method": "numerics", "version": 1, "spec": '{"dtype": "mxfp4", "axis": -1}', "rules": {},
        "modules_to_not_convert": None,
    }  # fmt: skip


def test_a_model_in_several_files_comes_back(saved, tmp_path):
    model = load(saved["bert"], NumericsConfig("mx9"))
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert same_bits(model, load(tmp_path))


# ---- ties --------------------------------------------------------------------------------------------


def test_a_tied_head_stays_float_by_default(saved):
    model = load(saved["mlm"], NumericsConfig("mx6"), "AutoModelForMaskedLM")
    assert not [name for name in quantized(model) if "word_embeddings" in name or "decoder" in name]
    assert len(quantized(model)) == 13


@pytest.mark.parametrize(
    "rule", ["*word_embeddings", "cls.predictions.decoder.weight", "re:.*(word_emb|decoder)"]
)
def test_what_is_tied_is_quantized_once_and_tied_when_it_comes_back(rule, saved, tmp_path):
    config = NumericsConfig("mx6", rules={rule: "mxfp8_e4m3"})
    model = load(saved["mlm"], config, "AutoModelForMaskedLM")
    words = model.bert.embeddings.word_embeddings.weight
    assert words.format is nx.mxfp8_e4m3
    assert model.cls.predictions.decoder.weight is words
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        packed = [name for name in list(file.keys()) if name.endswith("_packed")]
    assert len([name for name in packed if "decoder" in name or "word_emb" in name]) == 1
    again = load(tmp_path, kind="AutoModelForMaskedLM")
    assert again.cls.predictions.decoder.weight is again.bert.embeddings.word_embeddings.weight
    assert same_bits(model, again)
    assert torch.equal(logits(model), logits(again))


def test_rules_that_tell_tied_parameters_different_things_are_refused(saved):
    config = NumericsConfig("mx6", rules={"*word_embeddings": "mx9", "*decoder": None})
    with pytest.raises(nx.NumericsError, match="are tied, and the rules tell them different things"):
        load(saved["mlm"], config, "AutoModelForMaskedLM")


def test_a_base_model_is_loaded_from_a_model_with_a_head(saved, tmp_path):
    """transformers strips `bert.` from the names: what the file says of them must still be found."""
    model = load(saved["mlm"], NumericsConfig("mx6"), "AutoModelForMaskedLM")
    model.save_pretrained(tmp_path)
    base = load(tmp_path, add_pooling_layer=False)
    assert len(quantized(base)) == 12
    x = ids()
    with torch.no_grad():
        assert torch.equal(base(x).last_hidden_state, model.bert(x).last_hidden_state)


# ---- experts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mxfp4", "int4 asymmetric"])
def test_experts_are_quantized_merged_or_not(name, saved, tmp_path):
    """They come expert by expert, are merged, and have names that do not end in `weight`."""
    warnings.filterwarnings("ignore", r".*mlp\.gate\.weight stay float")
    model = load(saved["mixtral"], NumericsConfig(SPECS[name]), "AutoModelForCausalLM")
    names = [n for n, _ in model.named_parameters() if n.endswith(("gate_up_proj", "down_proj"))]
    assert len(names) == 2
    plain = mixtral()
    for n in names:
        due = nx.quantize(plain.get_parameter(n).detach(), SPECS[name])
        assert torch.equal(model.get_parameter(n).packed, due.packed)
        assert model.get_parameter(n).ndim == 3
    floats = {n for n, p in model.named_parameters() if p.ndim >= 2} - quantized(model).keys()
    assert floats == {"model.embed_tokens.weight", "lm_head.weight", "model.layers.0.mlp.gate.weight"}
    model.save_pretrained(tmp_path)
    again = load(tmp_path, kind="AutoModelForCausalLM")
    assert same_bits(model, again)
    assert torch.equal(logits(model), logits(again))
    again.save_pretrained(tmp_path / "twice")
    assert same_bits(model, load(tmp_path / "twice", kind="AutoModelForCausalLM"))


@pytest.mark.long
@pytest.mark.parametrize("how", ["eager", "batched_mm", "grouped_mm"])
def test_experts_of_an_implementation_stay_in_float(how):
    """A loop over experts that were hit is no graph; the others give the same bits as one."""
    model = mixtral()
    model.set_experts_implementation(how)
    example = {"input_ids": ids()[:, :4], "use_cache": False}
    made = [nx.plan(model, "mxfp4", "mxfp8_e4m3", example=example, mode=mode)
            for mode in ("eager_mode", "fx_graph_mode")[: 1 + (how != "eager")]]  # fmt: skip
    for plan in made:
        assert [
            row.format.split()[0] for row in plan.rows if len(row.shape) == 3 and row.kind == "parameter"
        ] == (["mxfp4"] * 2)
        assert all(row.spec for row in plan.rows if row.kind == "activation" and "experts" in row.name)
        assert not [row.name for row in plan.rows if row.reason.startswith("undecided")]
    with torch.no_grad():
        outs = [nx.wrap(model, plan)(**example).logits for plan in made]
    assert torch.equal(outs[0], outs[-1])


def test_a_parameter_that_nobody_knows_stays_float_with_a_warning(saved):
    with pytest.warns(NumericsWarning, match=r"model\.layers\.0\.mlp\.gate\.weight stay float"):
        load(saved["mixtral"], NumericsConfig("mx6"), "AutoModelForCausalLM")
    for what in ("mx9", None):
        config = NumericsConfig("mx6", rules={"*.mlp.gate": what})
        model = load(saved["mixtral"], config, "AutoModelForCausalLM")
        assert isinstance(model.model.layers[0].mlp.gate.weight, TensorQTensor) is (what is not None)


# ---- rules -------------------------------------------------------------------------------------------


def test_the_first_rule_holds_and_names_are_those_of_modules_or_parameters(saved, tmp_path):
    rules = {"encoder.layer.0.*": nx.QuantSpec("int8", scheme="per_channel(0)"), "*.query": "mx9",
             "re:encoder.*value": None, "pooler.dense.weight": "mxfp4"}  # fmt: skip
    model = load(saved["bert"], NumericsConfig("mx6", rules=rules))
    layer = model.encoder.layer
    assert layer[0].attention.self.query.weight.spec == rules["encoder.layer.0.*"]
    assert layer[0].attention.self.value.weight.format is nx.int8
    assert layer[1].attention.self.query.weight.format is nx.mx9
    assert not isinstance(layer[1].attention.self.value.weight, TensorQTensor)
    assert layer[1].attention.self.key.weight.format is nx.mx6
    assert model.pooler.dense.weight.format is nx.mxfp4
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert same_bits(model, again)
    assert again.config.quantization_config.rules == model.config.quantization_config.rules


def test_modules_to_not_convert_stay_float(saved):
    model = load(
        saved["bert"], NumericsConfig("mx6", modules_to_not_convert=["pooler", "attention.self.key"])
    )
    floats = {n for n, p in model.named_parameters() if p.ndim == 2 and "embeddings" not in n} - quantized(
        model
    ).keys()
    assert floats == {
        "pooler.dense.weight",
        *(f"encoder.layer.{k}.attention.self.key.weight" for k in (0, 1)),
    }


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"rules": {"*.qery": None}}, r"rules without effect: '\*\.qery' matches no name"),
        ({"rules": {"encoder*": None, "encoder.layer.0*": "mx9"}}, r"comes after 'encoder\*'"),
        ({"modules_to_not_convert": ["lm_head"]}, "modules_to_not_convert: no parameter .* lm_head"),
        ({"rules": {"*": None}}, "BertModel has nothing to quantize"),
        ({"rules": {"*embeddings": None}}, r"'\*embeddings' keeps embeddings\.\w+\.weight, which stays"),
        ({"modules_to_not_convert": ["pooler", "embeddings"]}, "embeddings would stay float without being"),
    ],
)
def test_what_has_no_effect_is_refused(options, why, saved):
    with pytest.raises((nx.NumericsError, NumericsWarning), match=why):
        load(saved["bert"], NumericsConfig("mx6", **options))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: NumericsConfig("mx6", rule=1), "has no argument 'rule'; did you mean 'rules'"),
        (lambda: NumericsConfig("mx6", scheme="per_tensor"), r"spec=nx\.QuantSpec"),
        (lambda: NumericsConfig(), "needs a format"),
        (lambda: NumericsConfig("mx66"), "unknown format 'mx66'"),
        (lambda: NumericsConfig("mx6", rules={"re:(": None}), "is not a regular expression"),
        (lambda: NumericsConfig("mx6", rules={nn.Linear: None}), "a pattern of names"),
        (lambda: NumericsConfig("mx6", rules=["lm_head"]), "rules are a table"),
        (lambda: NumericsConfig("mx6", rules={"a": "int44"}), "unknown format 'int44'"),
        (lambda: NumericsConfig("mx6", version=2), "version 2; this one reads 1"),
        (lambda: NumericsConfig(nx.QuantSpec("int4", rounding="stochastic")), "stochastic rounding draws"),
    ],
)
def test_configurations_that_mean_nothing_are_refused(make, why):
    with pytest.raises(nx.NumericsError, match=why):
        make()


def test_blocks_lie_along_the_axis_that_is_summed_over():
    """Along the last axis of a 3 x 3 kernel a block would hold three values."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.up = nn.Conv2d(64, 8, 3), nn.ConvTranspose1d(64, 8, 3)
            self.linear, self.rows = nn.Linear(64, 8), nn.Linear(64, 8)

        def get_output_embeddings(self):
            return None

    found = choose(Net(), NumericsConfig("mxfp4")).specs
    assert {name: spec.axis for name, spec in found.items()} == {
        "conv.weight": 1, "up.weight": 0, "linear.weight": -1, "rows.weight": -1
    }  # fmt: skip
    groups = NumericsConfig(
        nx.QuantSpec("int4", scheme="per_group(32)"), rules={"rows": nx.QuantSpec("mx6", axis=0)}
    )
    found = choose(Net(), groups).specs
    assert {name: spec.axis if spec.blocked else spec.scheme.axis for name, spec in found.items()} == {
        "conv.weight": 1, "up.weight": 0, "linear.weight": -1, "rows.weight": 0
    }  # fmt: skip


# ---- what transformers does with them ---------------------------------------------------------------


def test_the_footprint_counts_packed_bytes(saved):
    plain, model = bert(), load(saved["bert"], NumericsConfig("mxfp4"))
    packed = sum(q.numel() for q in quantized(model).values())
    assert plain.get_memory_footprint() - model.get_memory_footprint() == 4 * packed - packed * 17 // 32
    assert model.get_memory_footprint(return_buffers=False) < model.get_memory_footprint()


def test_an_element_takes_what_it_takes(saved):
    model = load(saved["bert"], NumericsConfig("mxfp4"))
    name = "pooler.dense.weight"
    assert model.hf_quantizer.param_element_size(model, name, bert().get_parameter(name)) == 17 / 32
    assert model.hf_quantizer.param_element_size(model, "pooler.dense.bias", torch.zeros(4)) == 4


def test_dequantize_gives_a_float_model_of_the_same_values(saved):
    model = load(
        saved["mlm"], NumericsConfig("mx6", rules={"*word_embeddings": "mx9"}), "AutoModelForMaskedLM"
    )
    y = logits(model)
    plain = model.dequantize()
    assert not quantized(plain)
    assert plain.cls.predictions.decoder.weight is plain.bert.embeddings.word_embeddings.weight
    assert torch.equal(logits(plain), y)
    assert not hasattr(plain.config, "quantization_config")


def test_a_new_head_stays_float_and_is_named(saved):
    with pytest.warns(NumericsWarning, match=r"classifier\.weight stay float: the checkpoint does not have"):
        model = load(saved["bert"], NumericsConfig("mx6"), "AutoModelForSequenceClassification")
    assert not isinstance(model.classifier.weight, TensorQTensor)
    assert model.classifier.weight.requires_grad
    assert torch.isfinite(model.classifier.bias).all()
    assert len(quantized(model)) == 13


def test_a_quantized_model_is_loaded_in_another_float_type(saved, tmp_path):
    model = load(saved["bert"], NumericsConfig("mxfp8_e4m3"))
    model.save_pretrained(tmp_path)
    again = load(tmp_path, dtype=torch.bfloat16)
    for name, q in quantized(again).items():
        assert q.dtype == torch.bfloat16
        assert torch.equal(q.packed, model.get_parameter(name).packed)
    assert logits(again).dtype == torch.bfloat16


def test_files_that_another_tool_wrote_anew_are_refused(saved, tmp_path):
    """Without the metadata transformers would say that weights are missing, and begin them anew."""
    from safetensors.torch import load_file, save_file

    load(saved["bert"], NumericsConfig("mx6")).save_pretrained(tmp_path)
    save_file(
        load_file(tmp_path / "model.safetensors"), tmp_path / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(nx.NumericsError, match="does not say how it is quantized"):
        load(tmp_path)


def test_disks_are_refused(saved, tmp_path):
    model = load(saved["bert"], NumericsConfig("mx6"))
    with pytest.raises(nx.NumericsError, match="cannot be offloaded to disk"):
        model.hf_quantizer.validate_environment(device_map={"": "disk"})


def child(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


KNOWN = "from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING as known; print('numerics' in known)"


def test_the_method_is_known_after_both_imports_and_transformers_is_not_imported_for_it():
    told = child(f"import numerics, torch, sys; print('transformers' in sys.modules); {KNOWN}")
    assert told.split() == ["False", "True"]


@pytest.mark.long
def test_the_method_is_known_where_transformers_came_first():
    assert child(f"import transformers.quantizers, numerics; {KNOWN}").split() == ["True"]


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers.core_model_loading", None)
    file = sys.modules["numerics.model.huggingface"].__file__
    place = importlib.util.spec_from_file_location("another", file)
    with pytest.raises(nx.NumericsError, match=r"needs transformers.*numerics-formats\[hub\]") as told:
        place.loader.exec_module(importlib.util.module_from_spec(place))
    assert isinstance(told.value, ModuleNotFoundError)


@pytest.mark.skipif(not LONG, reason="NUMERICS_TEST_LONG=1: a pretrained model")
@pytest.mark.parametrize("name", SPECS)
def test_minilm_comes_back_with_the_same_bits(name, tmp_path):
    model = load(minilm(), NumericsConfig(SPECS[name]))
    assert len(quantized(model)) == 37
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert same_bits(model, again)
    assert torch.equal(logits(model), logits(again))
