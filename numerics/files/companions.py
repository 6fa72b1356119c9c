"""Tensors that other tools quantized already: codes, and beside them the numbers that decode them.

Known by structure: a tensor of small floats or of integers, and another one under its name with an ending
that stands here.  To quantize such numbers as if they were weights would ruin the codes without a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from numerics.files.safetensors import BITS, Entry
from numerics.formats.errors import said
from numerics.formats.text import json_in

LONGEST_CONFIG = 1 << 24  # bytes

CODES = frozenset(BITS) - {"F64", "F32", "F16", "BF16", "C64", "BOOL", "I64", "U64"}
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_NORM = re.compile(r"(?:(?:^|[._])|layer_?|group_?|batch_?|rms_?|instance_?|[a-z0-9]_)"
                   r"(norm|ln|bn)(?:_?[0-9a-z]|s[.][0-9]+)?$", re.IGNORECASE)  # fmt: skip
"""The end of a norm's name: `q_norm`, `input_layernorm`, `ln_1`, `norm2`, `norms.0`; not `normal`."""
LOST = "numerics, whose header text was lost"
RULES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("", ("_scale_inv",), "fine-grained FP8 of Hugging Face and DeepSeek"),
    ("", ("_scale", "_scales", "_zero_point", "_global_scale"), "compressed-tensors, Quark or FBGEMM"),
    ("", ("_scale_2",), "NVIDIA ModelOpt"),
    ("", (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"), "bitsandbytes"),
    ("", (".scale", ".zero_point", ".tensor_scale"), LOST),
    ("weight", ("input_scale", "output_scale", "input_scale_ub"), "compressed-tensors, Quark or FBGEMM"),
    ("weight", ("pre_quant_scale", "input_global_scale"), "NVIDIA ModelOpt or compressed-tensors"),
    ("weight", ("weights_scaling_factor", "weights_scaling_factor_2", "activation_scaling_factor"),
     "TensorRT-LLM"),
    ("weight", ("SCB",), "bitsandbytes"),
    ("weight", ("scales", "biases"), "MLX"),
    ("weight_packed", ("weight_scale", "weight_zero_point", "weight_global_scale", "weight_g_idx",
                       "input_scale", "input_global_scale"), "compressed-tensors"),
    ("qweight", ("scales", "qzeros", "g_idx", "weight_scales"), "GPTQ, AWQ or EETQ"),
    ("W_q", ("scale", "zero"), "HQQ"),
    ("._data", ("._scale", "._shift"), "optimum-quanto"),
    ("_qdata", ("_scale", "_zero_point"), "torchao"),
    ("_blocks", ("_scales",), "MXFP4 of gpt-oss"),
    ("codes", ("codebooks", "scales"), "AQLM"),
)  # fmt: skip


_PAIRS = tuple((ending, begun) for begun, endings, _ in RULES for ending in endings)
_ENDINGS = tuple({ending for ending, _ in _PAIRS})


class Companion(NamedTuple):
    """A tensor that belongs to codes: its ending, and who writes such files."""

    name: str
    codes: str
    ending: str
    source: str


def companions(entries: Mapping[str, Entry]) -> Iterator[Companion]:
    """Every tensor that belongs to the codes of another.

    >>> entries = {"a.weight": Entry("F8_E4M3", (4, 4)), "a.weight_scale_inv": Entry("F32", (1, 1))}
    >>> [found.name for found in companions(entries)]
    ['a.weight_scale_inv']
    """
    for codes, entry in entries.items():
        if entry.dtype not in CODES:
            continue
        for begun, endings, source in RULES:
            if codes.endswith(begun):
                stem = codes.removesuffix(begun)
                for ending in endings:
                    if stem + ending in entries and stem + ending != codes:
                        yield Companion(stem + ending, codes, ending, source)


def left_by_name(entries: Mapping[str, Entry]) -> dict[str, tuple[str, str]]:
    """Which float tensors are no weights by their names: a word of each name, and what it says it is.

    A bias is one by its own name (`gate_up_proj_bias`), a norm's by that of its layer (`q_norm.weight`), and
    a scale where what it scales lies beside it.

    >>> found = left_by_name({"a.weight": Entry("F32", (4, 4)), "a.weight_scale": Entry("F32", (4, 1)),
    ...                       "a.weight_bias": Entry("F32", (4, 4)), "rel_bias.weight": Entry("F32", (4, 4))})
    >>> {name: why for name, (_, why) in found.items()}
    {'a.weight_scale': 'a scale of a.weight by its name', 'a.weight_bias': 'a bias by its name'}
    """
    found: dict[str, tuple[str, str]] = {}
    for name, entry in entries.items():
        if entry.dtype in FLOATS and len(entry.shape) > 1:
            said = _scale_of(name, entries) if name.endswith(_ENDINGS) else None
            said = said or _bias_or_norm(name)
            if said is not None:
                found[name] = said
    return found


def _bias_or_norm(name: str) -> tuple[str, str] | None:
    *layer, leaf = name.split(".")[-3:]  # a norm in a list has a number behind its name
    if leaf.lower().endswith("bias"):
        return "bias", "a bias by its name"
    norm = _NORM.search(".".join(layer if leaf in ("weight", "scale", "gamma") else (*layer, leaf)))
    return None if norm is None else (norm[1].lower(), "a norm's by its name")


def _scale_of(name: str, entries: Mapping[str, Entry]) -> tuple[str, str] | None:
    """The same of what belongs to another float tensor, as scales do to codes."""
    for ending, begun in _PAIRS:
        weight = name.removesuffix(ending) + begun
        beside = entries.get(weight) if name.endswith(ending) and weight != name else None
        if beside is not None and beside.dtype in FLOATS:
            word = "scal" if "scal" in ending.lower() else ending.strip("._").lower()
            return word, f"a {'scale' if word == 'scal' else 'part'} of {weight} by its name"
    return None


def told_of_foreign(path: Path, entries: Mapping[str, Entry], ours: bool) -> str | None:
    """What to say of a file of which other tools quantized tensors; None where nothing shows that.

    entries: those tensors that no header of ours explains.  ours: the file has such a header.  Codes and
    scales may lie in two shards of a folder: then the configuration beside them says that they are codes.
    """
    found = next((one for one in companions(entries) if one.source != LOST), None)
    if found is not None:
        names, who = f"{found.codes!r} and {found.name!r} are codes and scales", f", as {found.source} writes"
    else:
        codes = next((name for name, entry in entries.items() if entry.dtype in CODES), None)
        told = None if codes is None or ours else quantization_config(path.parent)
        if told is None:
            return None
        method = told.get("quant_method")
        names, who = f"{codes!r} is codes", f", as {said(method)} writes" if isinstance(method, str) else ""
    return (
        f"{names}{who}, apart and not decoded; numerics.checkpoints.loading.load reads what "
        "docs/checkpoints.md lists as QTensors, and `numerics convert FILE OUT` makes a file of it that "
        "nx.load reads so"
    )


def quantization_config(folder: Path) -> dict[str, Any] | None:
    """What a folder of a model says of its quantization, as it lies there; None where it says nothing."""
    told = json_of(folder / "config.json").get("quantization_config")
    told = told or json_of(folder / "quantize_config.json")
    return dict(told) if isinstance(told, Mapping) and told else None


def json_of(path: Path) -> dict[str, Any]:
    """The object of a JSON file; an empty one where it is none, or cannot be read."""
    try:
        if path.stat().st_size > LONGEST_CONFIG:
            return {}
        found = json_in(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
