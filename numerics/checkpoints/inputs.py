"""What a checkpoint says of how the inputs of its layers are quantized, and how that is said elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FLOAT8 = "float-quantized"  # compressed-tensors' name of FP8 weights


def said_of_inputs(config: Mapping[str, Any]) -> str | None:
    """What a quantization_config says of inputs, in its own words; None where it says nothing.

    >>> said_of_inputs({"activation_scheme": "dynamic"})
    'activation_scheme: dynamic'
    """
    if config.get("activation_scheme") is not None:
        return f"activation_scheme: {config['activation_scheme']}"
    return "input_activations" if config.get("input_activations") else None


def keep_inputs(config: Mapping[str, Any], written: Mapping[str, Any]) -> bool:
    """Says in a quantization_config of compressed-tensors that inputs are quantized; can it be said?

    config: of the source.  written: is changed: its groups of FP8 weights get dynamic FP8 inputs, a scale for
    each group of a tile's columns where the weights have tiles, else for each token.
    """
    groups = list(written["config_groups"].values())
    if config.get("activation_scheme") != "dynamic" or any(one["format"] != FLOAT8 for one in groups):
        return False
    for group in groups:
        tile = group["weights"].get("block_structure")
        shared = {"strategy": "group", "group_size": tile[1]} if tile else {"strategy": "token"}
        group["input_activations"] = {
            "num_bits": 8, "type": "float", "symmetric": True, "dynamic": True, "observer": None, **shared,
        }  # fmt: skip
    return bool(groups)
