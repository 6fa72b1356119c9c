"""Weights that are stored (inputs, outputs) instead of (outputs, inputs): which they are, and what says so.

A product sums the inputs, so blocks lie along them.  What stands beside a weight decides first: its bias has
as many numbers as there are outputs, and a gate and an up projection that are joined have twice the width of
the down projection.  Where shapes leave it open, the model type of `config.json` does, by a table of the
classes that have such parameters.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from numerics.files.companions import json_of
from numerics.files.safetensors import Entry

EXPERTS = r"(.+\.)?experts\.(gate_up_proj|down_proj)"
"""Parameters that hold all experts: (experts, inputs, outputs) where inputs come first."""
CONV1D = r"(.+\.)?(c_attn|q_attn|c_proj|c_fc)\.weight"
"""Weights of `Conv1D`, the linear layer of GPT-2: (inputs, outputs)."""
MODELS: Mapping[str, str] = {
    "gpt_oss": EXPERTS, "openai_privacy_filter": EXPERTS,
    "llama4": EXPERTS, "llama4_text": EXPERTS,
    "aria": EXPERTS, "aria_text": EXPERTS,
    "gpt2": CONV1D, "openai-gpt": CONV1D, "imagegpt": CONV1D, "decision_transformer": CONV1D,
    "clvp": r"(.+\.)?(c_fc|c_proj)\.weight", "clvp_decoder": r"(.+\.)?(c_fc|c_proj)\.weight",
}  # fmt: skip
"""Which weights have their inputs first, by the `model_type` of transformers' configurations."""
_LEAVES = ("weight", "kernel")
_JOINED = {"gate_up_proj": "down_proj", "down_proj": "gate_up_proj"}


class Layouts:
    """What a checkpoint says of the order of its weights' axes.

    first: of each weight whose inputs come first, what says so.  open: the weights whose names are those of
    such a weight, and of which nothing says it.

    path: of the file or folder; the configuration lies in it or beside it.

    >>> entries = {"h.c_fc.weight": Entry("F32", (64, 256)), "h.c_fc.bias": Entry("F32", (256,))}
    >>> Layouts("", entries).first
    {'h.c_fc.weight': 'inputs first, as its bias of 256 says'}
    """

    def __init__(self, path: object, entries: Mapping[str, Entry]) -> None:
        kind, pattern = _model_of(str(path))
        self.first: dict[str, str] = {}
        self.open: set[str] = set()
        for name, entry in entries.items():
            shapes = _by_shapes(name, entry.shape, entries)
            if isinstance(shapes, str):
                self.first[name] = shapes
            elif shapes is None and pattern and len(entry.shape) > 1 and re.fullmatch(pattern, name):
                self.first[name] = f"inputs first in {kind}"
            elif shapes is None and not kind and _is_open(name, entry.shape):
                self.open.add(name)


def _by_shapes(name: str, shape: tuple[int, ...], entries: Mapping[str, Entry]) -> str | bool | None:
    """What says that inputs come first; False where outputs do; None where shapes do not say."""
    owner, _, leaf = name.rpartition(".")
    bias = entries.get(f"{owner}.bias" if leaf in _LEAVES else f"{name}_bias")
    if len(shape) > 1 and bias is not None and bias.shape[:-1] == shape[:-2] and bias.shape:
        count, (*_, rows, columns) = bias.shape[-1], shape
        if count in (rows, columns) and rows != columns:
            return count == columns and f"inputs first, as its bias of {count} says"
    if len(shape) == 3 and leaf in _JOINED:
        other = _JOINED[leaf]
        beside = entries.get(f"{owner}.{other}")
        both = (shape, beside.shape) if beside else ((), ())
        wide, narrow = both if other == "down_proj" else both[::-1]
        if len(wide) == len(narrow) == 3 and all((*wide, *narrow)):
            if wide[1:] == (narrow[2], 2 * narrow[1]):
                return f"inputs first, as {other} beside it says"
            return False if wide[1:] == (2 * narrow[2], narrow[1]) else None
    return None


def _is_open(name: str, shape: tuple[int, ...]) -> bool:
    return (len(shape) == 3 and re.fullmatch(EXPERTS, name) is not None) or (
        len(shape) == 2 and re.fullmatch(CONV1D, name) is not None
    )


def _model_of(path: str) -> tuple[str, str | None]:
    """The model type that a configuration says, and the pattern of its weights that have inputs first."""
    folder = Path(path) if os.path.isdir(path) else Path(path).parent
    said = list(_types(json_of(folder / "config.json")))
    found = next((kind for kind in said if kind in MODELS), said[0] if said else "")
    return found, MODELS.get(found)


def _types(config: Mapping[str, object]) -> Iterator[str]:
    """The model types of a configuration, the outer one first."""
    kind = config.get("model_type")
    if isinstance(kind, str):
        yield kind
    for name in ("text_config", "decoder_config", "language_config"):
        part = config.get(name)
        if isinstance(part, dict):
            yield from _types(part)
