"""What the hosts cost stock and with our kernels, in turns in one process: bench/results/adapters.json.

    python -m tests.adapters.timing [host ...]

Four million numbers, one and two threads; stock and substituted alternate, so that a machine that is busy
slows both.  A turn of each is the best of a few calls after one that is not timed: what an install and the
other's turn left in the caches is nobody's time.  Each row has the medians of the turns, in milliseconds, and
the ratio with its quartiles; `processor_ratio` is that of the least times of the processor, which neighbours
stretch less; `copy_ms` is what torch needs to copy as many numbers beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from numerics.formats.errors import NumericsError
from tests.helpers.asked import add_names

RESULTS = Path(__file__).parents[2] / "bench" / "results" / "adapters.json"
SIDE, TURNS, CALLS = 2048, 5, 3
Call = Callable[[bool], Any]


def torchao(x: torch.Tensor) -> Iterator[tuple[str, Call]]:
    """to_mx in two rules; affine integers by channel, and the scales of channels and groups."""
    from torchao.prototype.mx_formats import mx_tensor
    from torchao.quantization import quant_primitives as primitives

    for name, element in (("mxfp8_e4m3", torch.float8_e4m3fn), ("mxfp6_e2m3", "fp6_e2m3"),
                          ("mxfp4", torch.float4_e2m1fn_x2)):  # fmt: skip
        for mode in (mx_tensor.ScaleCalculationMode.FLOOR, mx_tensor.ScaleCalculationMode.RCEIL):
            yield f"to_mx {name} {mode.name}", lambda _, a=(element, 32, mode): mx_tensor.to_mx(x, *a)
    scale, zero = x.abs().amax(-1) / 127, torch.zeros(SIDE, dtype=torch.int32)
    given = (1, SIDE), scale, zero, torch.int8
    codes = primitives.quantize_affine(x, *given)
    yield "quantize_affine int8 channel", lambda _: primitives.quantize_affine(x, *given)
    yield "dequantize_affine int8 channel", lambda _: primitives.dequantize_affine(codes, *given)
    for name, size in (("channel", SIDE), ("group", 32)):
        rule = primitives.MappingType.ASYMMETRIC, (1, size), torch.int8
        yield f"choose_qparams_affine int8 {name}", lambda _, r=rule: primitives.choose_qparams_affine(x, *r)


def compressed_tensors(x: torch.Tensor) -> Iterator[tuple[str, Call]]:
    """fake_quantize of blocks, of fp8 and of integers; the cast to fp4."""
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle import forward
    from compressed_tensors.quantization.utils import fp4_utils

    yield "cast_to_fp4", lambda _: fp4_utils.cast_to_fp4(x)
    for kind, bits, strategy, size in (("float", 4, "group", 32), ("float", 6, "group", 32),
                                       ("float", 8, "channel", None), ("int", 8, "channel", None),
                                       ("int", 4, "group", 32)):  # fmt: skip
        args = QuantizationArgs(num_bits=bits, type=kind, symmetric=True, strategy=strategy, group_size=size)
        groups = x.unflatten(-1, (-1, size)) if size else x
        scale = groups.abs().amax(-1, keepdim=not size) / 6
        yield f"fake_quantize {kind}{bits} {strategy}", (
            lambda _, a=(scale, None, args): forward.fake_quantize(x, *a)
        )  # fmt: skip


def microxcaling(x: torch.Tensor) -> Iterator[tuple[str, Call]]:
    """Blocks and single numbers, against its own PyTorch path."""
    from mx import mx_ops
    from mx.elemwise_ops import _quantize_elemwise

    for name in ("fp4_e2m1", "fp6_e2m3", "fp8_e4m3", "int8"):
        yield f"mx {name}", (
            lambda ours, n=name: mx_ops._quantize_mx(x, 8, n, axes=[-1], block_size=32, custom_cuda=ours)
        )  # fmt: skip
        yield f"elemwise {name}", lambda ours, n=name: _quantize_elemwise(x, n, custom_cuda=ours)


def modelopt(x: torch.Tensor) -> Iterator[tuple[str, Call]]:
    """What it has on a CPU: fp8 and integers by channel."""
    from modelopt.torch.quantization import tensor_quant

    top = x.abs().amax(-1, keepdim=True)
    yield "fp8 channel", lambda _: tensor_quant.fp8_eager(x, top)
    yield "int8 channel", lambda _: tensor_quant._tensor_quant(x, top, 8, False, True)


def quark(x: torch.Tensor) -> Iterator[tuple[str, Call]]:
    """Blocks, and numbers with scales by channel and group."""
    from quark.torch import kernel

    for name in ("fp4", "fp6_e2m3", "fp8_e4m3", "int8"):
        yield f"mx {name}", lambda _, n=name: kernel.non_scaled_fake_quantize(x, "mx", n, -1, 32, "even")
    for name in ("mx6", "mx9"):
        yield name, lambda _, n=name: kernel.non_scaled_fake_quantize(x, n, "", -1, 16)
    scale, zero = x.abs().amax(-1) / 127, torch.zeros(SIDE, dtype=torch.int32)
    call = "int8", x, scale, zero, 0, 0, -128.0, 127.0, 8, "per_channel", ""
    codes = kernel.scaled_real_quantize(*call[:-1])
    yield "dequantize int8 channel", lambda _: kernel.dequantize(
        "int8", codes, scale, zero, 0, 0, "per_channel")  # fmt: skip
    none, domain = torch.zeros(1, dtype=torch.int32), torch.tensor([128.0])
    tqt = torch.tensor([2.0]), none, domain, 8
    yield "tqt_quantize, both passes", lambda _: both_passes(kernel.tqt_quantize, x, *tqt)
    yield "lsq_quantize channel, both passes", lambda _: both_passes(
        kernel.lsq_quantize, x, scale, zero, 1e-3, -128, 127, 0, 8)  # fmt: skip
    yield "int8 channel", lambda _: kernel.scaled_fake_quantize(*call)
    groups = x.view(SIDE, -1, 32).abs().amax(-1) / 6
    call4 = (
        "fp4",
        x,
        groups,
        torch.zeros_like(groups, dtype=torch.int32),
        -1,
        32,
        -6.0,
        6.0,
        8,
        "per_group",
        "",
    )
    yield "fp4 group", lambda _: kernel.scaled_fake_quantize(*call4)


def both_passes(function: Callable[..., Any], x: torch.Tensor, scale: torch.Tensor, *rest: Any) -> None:
    """A forward, and the gradients of x and of what a scale is made of."""
    x, scale = x.detach().requires_grad_(), scale.detach().requires_grad_()
    torch.autograd.grad(function(x, scale, *rest), (x, scale), x.detach())


HOSTS = (torchao, compressed_tensors, microxcaling, modelopt, quark)


def measured(adapter: Any, call: Call) -> dict[str, Any]:
    """One call, stock and substituted in turns, and a copy."""
    stock, ours, copy = [], [], []
    x = torch.ones(SIDE, SIDE)
    out = torch.empty_like(x)
    for turn in range(TURNS + 1):  # the first compiles
        for times, substituted in ((stock, False), (ours, True)):
            with adapter.substituted() if substituted else contextlib.nullcontext():
                spent = best(lambda s=substituted: call(s))
            if turn:
                times.append(spent)
        copy.append(best(lambda: out.copy_(x)))
    (stock, of_stock), (ours, of_ours), (copy, _) = (
        zip(*times, strict=True) for times in (stock, ours, copy)
    )
    ratios = sorted(a / b for a, b in zip(stock, ours, strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {"stock_ms": round(statistics.median(stock), 1), "ours_ms": round(statistics.median(ours), 1),
            "ratio": round(middle, 2), "quartiles": [round(low, 2), round(high, 2)],
            "processor_ratio": round(min(of_stock) / min(of_ours), 2),
            "copy_ms": round(statistics.median(copy), 2)}  # fmt: skip


def best(call: Callable[[], Any]) -> tuple[float, float]:
    """Milliseconds, and those of the processor, of the quickest of a few calls after one not counted."""
    call()
    spent = []
    for _ in range(CALLS):
        start, busy = time.perf_counter(), time.process_time()
        call()
        spent.append(((time.perf_counter() - start) * 1e3, (time.process_time() - busy) * 1e3))
    wall, processor = zip(*spent, strict=True)
    return min(wall), min(processor)


def main() -> None:
    """Measures what is asked for, prints a row each, keeps the results."""
    names = [host.__name__ for host in HOSTS]
    options = argparse.ArgumentParser(prog="python -m tests.adapters.timing")
    add_names(options, "hosts", names, "HOST")
    wanted = options.parse_args().hosts
    x = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    rows = []
    for host in HOSTS:
        if host.__name__ not in wanted:
            continue
        adapter = importlib.import_module(f"numerics.adapters.{host.__name__}")
        try:
            adapter.ADAPTER.version()
        except NumericsError as missing:
            print(f"{host.__name__}: not timed, {missing}", flush=True)
            continue
        for threads in (1, 2):
            torch.set_num_threads(threads)
            os.environ["NUMERICS_NUM_THREADS"] = str(threads)
            for name, call in host(x):
                row = {"host": host.__name__, "call": name, "threads": threads, **measured(adapter, call)}
                rows.append(row)
                print(*row.values(), flush=True)
        keep(rows)


def keep(rows: list[dict[str, Any]]) -> None:
    """Writes the rows, and of which machine they are; so after each host, for a run that is stopped."""
    about = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(),
             "load": os.getloadavg()[0], "torch": torch.__version__, "numbers": SIDE * SIDE}  # fmt: skip
    RESULTS.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
