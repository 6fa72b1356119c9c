"""A model that transformers quantized by any format is the same in a fresh process, however loaded."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

import numerics as nx
from numerics.formats.errors import NumericsError
from numerics.formats.registry import dtypes
from tests.adapters.hosts import asked, same_bits

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(1800)]
LIMIT = 900  # seconds of a fresh process
SMALL = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
         "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip
SOME = ("mx6", "int8", "mxfp4", "nvfp4")
LOADED = ({"dtype": "auto"}, {"dtype": "bfloat16"}, {"device_map": "cpu"}, {"device_map": "auto"},
          {"device_map": {"": "cpu"}, "dtype": "auto"})  # fmt: skip

FRESH = """
import json, sys, torch, transformers, numerics.model.huggingface
for folder in sys.argv[1:]:
    options = json.load(open(f"{folder}/options.json"))
    found = transformers.AutoModelForCausalLM.from_pretrained(folder, **options).eval()
    with torch.no_grad():
        torch.save(found(torch.arange(12)[None]).logits, f"{folder}/again.pt")
"""


@pytest.fixture(scope="module")
def floats(tmp_path_factory):
    """Folders of small models: plain, with a head that is the embedding, of experts, in bfloat16."""
    folder = tmp_path_factory.mktemp("floats")
    torch.manual_seed(0)
    llama, mixtral = transformers.LlamaConfig, transformers.MixtralConfig
    made = {
        "plain": transformers.LlamaForCausalLM(llama(**SMALL)),
        "tied": transformers.LlamaForCausalLM(llama(**SMALL, tie_word_embeddings=True)),
        "experts": transformers.MixtralForCausalLM(
            mixtral(**SMALL, num_local_experts=4, num_experts_per_tok=2)
        ),
        "narrow": transformers.LlamaForCausalLM(llama(**SMALL)).to(torch.bfloat16),
    }
    for name, model in made.items():
        model.save_pretrained(folder / name)
    return folder


def jobs():
    """Models, formats and options of from_pretrained."""
    yield from (("plain", d.name, {}) for d in dtypes())
    yield from ((model, name, {}) for model in ("tied", "experts", "narrow") for name in SOME)
    yield from (("plain", name, options) for name in SOME for options in LOADED)
    yield from (("narrow", name, {"dtype": "auto"}) for name in SOME)


def needs_accelerate(options) -> bool:
    return "device_map" in options and not transformers.utils.is_accelerate_available()


def test_a_model_in_every_format_has_the_same_logits_in_a_fresh_process(floats, tmp_path):
    asked("transformers")
    from numerics.model.huggingface import NumericsConfig

    saved = []
    for k, (model, name, options) in enumerate(jobs()):
        if needs_accelerate(options):
            continue
        found = transformers.AutoModelForCausalLM.from_pretrained(
            floats / model, quantization_config=NumericsConfig(name), **options
        ).eval()
        folder = tmp_path / f"{k}_{model}_{name}"
        found.save_pretrained(folder)
        (folder / "options.json").write_text(json.dumps(options), encoding="utf-8")
        with torch.no_grad():
            torch.save(found(torch.arange(12)[None]).logits, folder / "logits.pt")
        saved.append(folder)
    command = [sys.executable, "-W", "ignore", "-c", FRESH, *map(str, saved)]
    subprocess.run(command, check=True, timeout=LIMIT, capture_output=True)
    for folder in saved:
        first, again = (torch.load(folder / f"{name}.pt") for name in ("logits", "again"))
        assert same_bits(first, again), folder.name
    assert len(saved) > 60


def test_a_device_map_with_a_disk_is_refused(floats):
    asked("transformers")
    pytest.importorskip("accelerate")
    from numerics.model.huggingface import NumericsConfig

    places = {"model": "cpu", "lm_head": "disk"}
    with pytest.raises(NumericsError, match="cannot be offloaded to disk"):
        transformers.AutoModelForCausalLM.from_pretrained(
            floats / "plain", quantization_config=NumericsConfig("mx6"), device_map=places
        )


def test_an_argument_that_a_config_does_not_have_is_refused():
    asked("transformers")
    from numerics.model.huggingface import NumericsConfig

    with pytest.raises(NumericsError, match="no argument 'nonsense'"):
        NumericsConfig("mx6", nonsense=1)
    assert NumericsConfig(nx.QuantSpec("mx6")).spec == NumericsConfig("mx6").spec
