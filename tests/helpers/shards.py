"""Checkpoints as Hugging Face has them: folders of shards with an index, made for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import numerics as nx

INDEX = "model.safetensors.index.json"


def tensors_of(layers: int = 2, width: int = 64, seed: int = 0) -> dict[str, Any]:
    """A small model of the usual names: attention, a gated unit, norms, embeddings."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    found = {"model.embed_tokens.weight": weights(2 * width, width)}
    for layer in range(layers):
        begun = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            found[f"{begun}.self_attn.{name}.weight"] = weights(width, width) * rng.uniform(0.1, 9)
        for name in ("gate_proj", "up_proj"):
            found[f"{begun}.mlp.{name}.weight"] = weights(2 * width, width) * rng.uniform(0.1, 9)
        found[f"{begun}.mlp.down_proj.weight"] = weights(width, 2 * width)
        found[f"{begun}.input_layernorm.weight"] = weights(width)
    return {**found, "lm_head.weight": weights(2 * width, width)}


def write_shards(folder: Path, tensors: Mapping[str, Any], shards: int) -> Path:
    """A folder of that many shards, tensor by tensor in turn, with index, configuration and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    places = {}
    for k in range(shards):
        name = f"model-{k + 1:05d}-of-{shards:05d}.safetensors"
        held = {key: x for i, (key, x) in enumerate(tensors.items()) if i % shards == k}
        nx.save(held, folder / name)
        places |= dict.fromkeys(held, name)
    size = sum(x.nbytes for x in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    (folder / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
