"""Tensors that other tools quantized already: codes, and beside them the numbers that decode them.

Known by structure: a tensor of small floats or of integers, and another one under its name with an ending
that stands here.  To quantize such numbers as if they were weights would ruin the codes without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from numerics.files.safetensors import BITS, Entry

CODES = frozenset(BITS) - {"F64", "F32", "F16", "BF16", "C64", "BOOL", "I64", "U64"}
RULES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("", ("_scale_inv",), "fine-grained FP8 of Hugging Face and DeepSeek"),
    ("", ("_scale", "_scales", "_zero_point", "_global_scale"), "compressed-tensors, Quark or FBGEMM"),
    ("", ("_scale_2",), "NVIDIA ModelOpt"),
    ("", (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"), "bitsandbytes"),
    ("", (".scale", ".zero_point", ".tensor_scale"), "numerics, whose header text was lost"),
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
