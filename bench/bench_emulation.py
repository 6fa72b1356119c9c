"""What MiniLM costs whose weights and activations are rounded in every forward: beside Quark and torchao.

make .venv/adapters/.numerics; .venv/adapters/bin/python -m bench.bench_emulation [--rounds N] [--json FILE]

Each host quantizes the layers that it calls linear, of the float model, by the format of the row;
ours the same layers.  CPU seconds of one thread, all models of a shape in turn, round after round; the median
of the rounds' ratios (theirs to ours: above 1 is ours ahead) is written to bench/results/emulation.json.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import nn

import numerics as nx
from bench.bench_models import SHAPES, Calls, timed
from bench.records import text_of
from bench.tasks import task
from numerics.files.replacement import replace_file

RESULTS = Path(__file__).parent / "results" / "emulation.json"
Batch = tuple[torch.Tensor, ...]


class Row(NamedTuple):
    """One format under one host: what ours is asked for, how the host makes its model, and of what type."""

    name: str
    host: str
    weights: nx.QuantSpec
    activations: nx.QuantSpec | None
    theirs: Callable[[nn.Module, Batch], nn.Module]
    kind: torch.dtype = torch.float32


def quark(
    weight: str, activation: str | None = None, **options: Any
) -> Callable[[nn.Module, Batch], nn.Module]:
    """A model that AMD Quark quantizes in eager mode by the specs of these names."""

    def quantize(model: nn.Module, batch: Batch) -> nn.Module:
        from quark.torch import ModelQuantizer
        from quark.torch.quantization.config import config

        specs = [
            None if name is None else getattr(config, name)(ch_axis=axis, **options).to_quantization_spec()
            for name, axis in ((weight, 0 if "Channel" in weight else -1), (activation, -1))
        ]
        layers = config.QLayerConfig(weight=specs[0], input_tensors=specs[1])
        quantizer = ModelQuantizer(config.QConfig(global_quant_config=layers))
        given = dict(zip(("input_ids", "attention_mask"), batch, strict=True))
        return quantizer.quantize_model(model, [given])  # type: ignore[no-any-return]

    return quantize


def torchao_integers(model: nn.Module, batch: Batch) -> nn.Module:
    """A model whose linear layers torchao prepares for training with int8 by channel and by token."""
    from torchao.quantization import quantize_
    from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig

    tokens = IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False)
    channels = IntxFakeQuantizeConfig(torch.int8, "per_channel")
    quantize_(model, QATConfig(activation_config=tokens, weight_config=channels, step="prepare"))
    return model


def torchao_mx(kind: torch.dtype) -> Callable[[nn.Module, Batch], nn.Module]:
    """A model whose linear layers torchao emulates: weights are kept in MX and decoded in every forward."""

    def quantize(model: nn.Module, batch: Batch) -> nn.Module:
        from torchao.prototype.mx_formats import MXDynamicActivationMXWeightConfig
        from torchao.quantization import quantize_
        from torchao.quantization.quantize_.common import KernelPreference

        config = MXDynamicActivationMXWeightConfig(
            activation_dtype=kind, weight_dtype=kind, kernel_preference=KernelPreference.EMULATED
        )
        quantize_(model, config)
        return model

    return quantize


CHANNELS = nx.QuantSpec("int8", scheme="per_channel(0)")
TOKENS = nx.QuantSpec("int8", scheme="per_token()", symmetric=False)
OCP = {"is_dynamic": True}
CHANNEL_OPTIONS = {"is_dynamic": False, "symmetric": True, "scale_type": "float", "round_method": "half_even"}


def rows() -> Iterator[Row]:
    """Every row of the table."""
    for name, spec, options in (
        ("mxfp4", "OCP_MXFP4Spec", OCP),
        ("mxfp6_e2m3", "OCP_MXFP6E2M3Spec", OCP),
        ("mxfp8_e4m3", "OCP_MXFP8E4M3Spec", OCP),
        ("mx6", "MX6Spec", {"block_size": 16}),
        ("mx9", "MX9Spec", {"block_size": 16}),
    ):
        yield Row(name, "amd-quark", nx.QuantSpec(name), nx.QuantSpec(name), quark(spec, spec, **options))
    alone = quark("Int8PerChannelSpec", **CHANNEL_OPTIONS)
    yield Row("int8 per channel, weights alone", "amd-quark", CHANNELS, None, alone)
    yield Row("int8 per channel and per token", "torchao", CHANNELS, TOKENS, torchao_integers)
    for name, kind in (("mxfp4", torch.float4_e2m1fn_x2), ("mxfp8_e4m3", torch.float8_e4m3fn)):
        yield Row(name, "torchao", nx.QuantSpec(name), nx.QuantSpec(name), torchao_mx(kind), torch.bfloat16)


def ours(model: nn.Module, batch: Batch, row: Row) -> nn.Module:
    """The model with the same tensors quantized, weights in every forward."""
    quantized = nx.wrap(model, row.weights, activations=row.activations, example=batch)
    quantized.eval()
    return quantized


def of_shape(
    model: nn.Module, example: Batch, shape: tuple[int, int, int], rounds: int
) -> Iterator[dict[str, Any]]:
    """What each row costs for so many texts of so many tokens."""
    texts, tokens, several = shape
    batch = tuple(x.repeat(texts, 1 + tokens)[:texts, :tokens].contiguous() for x in example)
    for row in rows():
        floats = copy.deepcopy(model).to(row.kind)
        pair = {"ours": ours(floats, batch, row), "theirs": row.theirs(copy.deepcopy(floats), batch).eval()}
        calls = {name: lambda one=one: one(*batch) for name, one in pair.items()}
        yield {
            "case": row.name,
            "host": row.host,
            **compared({"float": lambda one=floats: one(*batch), **calls}, rounds, several),
        }


def compared(calls: Calls, rounds: int, several: int) -> dict[str, Any]:
    """Milliseconds of each, and their time to ours, round by round."""
    times = timed(calls, rounds, several)
    ratios = [theirs / mine for theirs, mine in zip(times["theirs"], times["ours"], strict=True)]
    costs = {f"{name} milliseconds": median(found) for name, found in times.items()}
    return {**costs, "theirs to ours": median(ratios), "lowest": min(ratios), "highest": max(ratios)}


def main() -> None:
    """Prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="of all models in turn")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["NUMERICS_NUM_THREADS"] = "1"
    words, found = task("MiniLM", 2), []
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hosts'
        for shape, sizes in SHAPES.items():
            for row in of_shape(words.model, words.example, sizes, options.rounds):
                found.append({"shape": shape, **row})
                print(f"{shape:8s} {row['case']:32s} {row['host']:10s} {row['theirs to ours']:6.2f} of ours "
                      f"({row['lowest']:.2f} - {row['highest']:.2f})", flush=True)  # fmt: skip
    hosts = {name: version(name) for name in ("amd-quark", "torchao", "torch")}
    machine = {"processor": platform.processor() or platform.machine(), "threads": 1, **hosts}
    replace_file(options.json, text_of({"machine": machine, "rows": found}).encode())


if __name__ == "__main__":
    main()
