"""A GPU: every float32 input proven there, the conversion instructions, and the speed beside a copy.

python -m bench.bench_gpu [--out FOLDER] [--minutes M] [--elements N] [--small]

Writes <gpu>.json and a plot.  Proofs come first; an instruction that they find equal is used in the
figures after it, and its row for backends/gpu/native.py is printed.  --small: a few inputs and elements,
for trying the script itself, with TRITON_INTERPRET=1 where there is no GPU.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import triton

import numerics as nx
from bench.records import text_of
from numerics.backends.gpu import BACKEND as GPU
from numerics.backends.gpu import backend, blocks, native
from numerics.backends.gpu.build import interpreting
from numerics.backends.host.executor import Affine
from numerics.backends.partition import Partition
from numerics.backends.reference.breakpoints import breakpoints
from numerics.conform.sweep import SIGN, Sweep
from numerics.files.replacement import replace_file
from numerics.formats.rounding import DETERMINISTIC, BlockOptions, Draw, Rounding

NONE = Draw()
PACKAGES = ("torch", "triton", "numpy", "numba", "torchao", "triton_kernels", "flag_gems", "amd-quark")
RANDOM_BLOCKS = 1 << 20


# ---- proofs --------------------------------------------------------------------------------------


def sweep(
    encode: Callable[[torch.Tensor], torch.Tensor], steps: list[tuple[int, int]], negative: bool,
    device: torch.device, end: int = SIGN, chunk: int = 1 << 26, start: int = 0,
) -> Sweep:  # fmt: skip
    """conform.exhaustive.sweep, on the GPU: the encoder over the magnitudes start .. end - 1 of one sign."""
    firsts = torch.tensor([first for first, _ in steps], dtype=torch.int64, device=device)
    codes = torch.tensor([code for _, code in steps], dtype=torch.int32, device=device)
    total = Sweep(0, 0)
    for at in range(start, end, chunk):
        magnitudes = torch.arange(at, min(at + chunk, end), device=device)
        bits = (magnitudes - (SIGN if negative else 0)).to(torch.int32)
        came = encode(bits.view(torch.float32)).to(torch.int32)
        due = codes[torch.searchsorted(firsts, magnitudes, right=True) - 1]
        wrong = came != due
        count = int(wrong.sum())
        first = None
        if count:
            k = int(wrong.to(torch.uint8).argmax())
            first = (int(bits[k]) & 0xFFFFFFFF, int(came[k]), int(due[k]))
        total += Sweep(len(magnitudes), count, first)
    return total


def prove(d: nx.Float, rounding: str, overflow: str, device: torch.device, end: int = SIGN) -> Sweep:
    """An element's encoder over every float32 input of both signs."""

    def encode(x: torch.Tensor) -> torch.Tensor:
        return GPU.encode(x, d, Rounding(rounding, overflow), None)

    found = Sweep(0, 0)
    for negative in (False, True):
        found += sweep(encode, breakpoints(d, rounding, overflow, negative), negative, device, end)
    return found


@contextmanager
def conversion(name: str | None) -> Iterator[None]:
    """Inside, formats of that name use the hardware's instruction, whatever is proven; None: nobody."""
    kept = backend.native
    asked = (name, "half_even", "saturate")
    backend.native = blocks.native = (  # type: ignore[assignment]
        lambda d, rounding, overflow, _: (
            name if (getattr(d, "name", ""), rounding, overflow) == asked else None
        )
    )
    try:
        yield
    finally:
        backend.native = blocks.native = kept


def prove_elements(
    device: torch.device, end: int, deadline: float, small: bool = False
) -> Iterator[tuple[str, Sweep]]:
    """Every float format, rounding and policy, until the time is up.

    small: 16-bit formats in half_even alone, whose steps take longer to list than a few inputs to prove.
    """
    for d in (d for d in nx.dtypes() if d.kind == "float"):
        for rounding in ("half_even",) if small and d.bits == 16 else DETERMINISTIC:
            for overflow in d.overflows:
                if time.monotonic() > deadline:
                    return
                with conversion(None):
                    yield f"{d} {rounding} {overflow}", prove(d, rounding, overflow, device, end)


def prove_native(device: torch.device, end: int) -> Iterator[tuple[str, Sweep]]:
    """The conversion instructions of this GPU, over every input and in blocks."""
    for name, least in native.CAPABLE.items():
        if interpreting() or torch.cuda.get_device_capability(device) < least:
            continue
        with conversion(name):
            found = prove(nx.dtype(name), "half_even", "saturate", device, end)
            yield name, found + prove_blocks(nx.dtype(f"mx{name}"), device)


def prove_blocks(d: nx.Block, device: torch.device, rows: int = RANDOM_BLOCKS) -> Sweep:
    """Random patterns, and values near each other, in blocks: the GPU against the CPU's kernels."""
    rng = np.random.default_rng(1)
    rows //= 16 if interpreting() else 1
    patterns = rng.integers(0, 1 << 32, (rows, d.block), np.uint32).view(np.float32)
    near = rng.standard_normal((rows, d.block), np.float32)
    near *= np.exp2(rng.integers(-126, 120, (rows, 1))).astype(np.float32)
    total = Sweep(0, 0)
    for x in (patterns, near):
        due = d.encode(x, tensor_scale=0.5 if isinstance(d, nx.ScaledBlock) else None)
        scale = 0.5 if isinstance(d, nx.ScaledBlock) else None
        came = GPU.encode_blocks(torch.from_numpy(x).to(device), d, -1, BlockOptions(tensor_scale=scale))
        for field in ("codes", "scale", "microexponents"):
            if getattr(due, field) is not None:
                wrong = getattr(came, field).cpu().numpy() != getattr(due, field)
                total += Sweep(wrong.size, int(wrong.sum()))
    return total


# ---- speed ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """A case: microseconds, bytes a second, and its share of a copy of as many bytes in the same run."""

    case: str
    microseconds: float
    gigabytes: float
    of_copy: float
    peers: dict[str, float | str]  # their time over ours


def contests(n: int, device: torch.device) -> Iterator[tuple[str, Callable[[], Any], int, dict[str, Any]]]:
    """(case, call, bytes moved, peers)."""
    wide = torch.randn(n, device=device)
    for kind in ("float32", "bfloat16"):
        x = wide.to(getattr(torch, kind))
        size, rows = x.element_size(), x.reshape(-1, 4096)
        for d in (nx.fp8_e4m3, nx.fp8_e5m2):
            out = torch.empty(n, dtype=torch.uint8, device=device)
            call = _bound(GPU.encode, x, d, Rounding(), out)
            yield f"{kind} -> {d}", call, n * (size + 1), _casts(x, d)
        for d in (nx.fp4, nx.fp6_e2m3):
            call = _bound(GPU.encode_packed, x, d, Rounding())
            yield f"{kind} -> packed {d}", call, n * size + n * d.bits // 8, {}
        d = nx.mxfp8_e4m3
        room = GPU.encode_blocks(rows, d, -1, BlockOptions())
        call = _bound(GPU.encode_blocks, rows, d, -1, BlockOptions(), room)
        yield f"{kind} -> {d}", call, n * (size + 1) + n // 32, _torchao(rows)
        for d in (nx.mxfp4, nx.mxfp6_e2m3, nx.mx6, nx.mx9):
            call = _bound(GPU.quantize_blocks, rows, d, -1, BlockOptions())
            yield f"{kind} -> stored {d}", call, n * size + int(n * d.bits / 8), {}
        for d in (nx.mxfp8_e4m3, nx.mxfp4, nx.mx6):
            out = torch.empty_like(rows)
            call = _bound(GPU.round_blocks, rows, d, -1, BlockOptions(), out)
            yield f"{kind} round {d}", call, 2 * n * size, {}
        out = torch.empty_like(x)
        yield (
            f"{kind} round fp8_e4m3", _bound(GPU.round, x, nx.fp8_e4m3, Rounding(), out),
            2 * n * size, {},
        )  # fmt: skip
    codes = torch.randint(0, 120, (n,), dtype=torch.uint8, device=device)
    values = torch.empty(n, device=device)
    eight = {"torch .to": _bound(codes.view(torch.float8_e4m3fn).to, torch.float32)}
    yield "fp8_e4m3 -> float32", _bound(GPU.decode, codes, nx.fp8_e4m3, values), 5 * n, eight
    made = GPU.encode_blocks(wide.reshape(-1, 4096), nx.mxfp8_e4m3, -1, BlockOptions())
    to = values.reshape(-1, 4096)
    yield "mxfp8_e4m3 -> float32", _bound(GPU.decode_blocks, made, to), 5 * n + n // 32, {}
    rows = wide.reshape(-1, 4096)
    for name, partition in (
        ("int8 per_channel", Partition(tuple(rows.shape), 0)),
        ("int4 per_group 128", Partition(tuple(rows.shape), 1, 128)),
    ):
        scales = Affine(torch.rand(partition.shared, device=device) + 0.1, None)
        d = nx.dtype(name.split()[0])
        peers = {}
        if partition.size is None:
            zero = torch.zeros(partition.shared, dtype=torch.int32, device=device)
            fake = torch.fake_quantize_per_channel_affine
            peers["torch.fake_quantize"] = _bound(fake, rows, scales.scale, zero, 0, -128, 127)
        call = _bound(GPU.round_affine, rows, d, partition, scales, Rounding())
        yield f"float32 fake_quantize {name}", call, 8 * n, peers


def _bound(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    return lambda: function(*arguments)


def _casts(x: torch.Tensor, d: nx.Float) -> dict[str, Any]:
    kind = {"fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}[d.name]

    def cast(x: torch.Tensor) -> torch.Tensor:
        return x.clamp(-d.max, d.max).to(kind)

    found: dict[str, Any] = {"torch .to": _bound(x.to, kind), "torch clamp .to": _bound(cast, x)}
    if not interpreting():
        found["torch.compile"] = _bound(torch.compile(cast), x)
    return found


def _torchao(rows: torch.Tensor) -> dict[str, Any]:
    """torchao's reference cast, compiled, and its own Triton kernel where the GPU is taken."""
    try:
        from torchao.prototype.mx_formats.mx_tensor import to_mx
    except ImportError as missing:
        return {"torchao": f"not installed ({missing.name})"}
    compiled = torch.compile(to_mx)
    found: dict[str, Any] = {"torchao compiled": _bound(compiled, rows, torch.float8_e4m3fn, 32)}
    try:
        from torchao.prototype.mx_formats.kernels import triton_to_mxfp8_dim0

        found["torchao triton"] = _bound(triton_to_mxfp8_dim0, rows.to(torch.bfloat16))
    except ImportError:
        found["torchao triton"] = "not in this version"
    return found


def microseconds(call: Callable[[], Any]) -> float:
    """Of one call: the median over about 100 ms, the caches emptied before each."""
    if interpreting():
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) * 1e6
    return float(triton.testing.do_bench(call, warmup=20, rep=80, return_mode="median")) * 1e3


def measure(n: int, device: torch.device, deadline: float, rounds: int = 3) -> Iterator[Figure]:
    """Each case beside a copy and its peers, in turn."""
    for case, call, size, peers in contests(n, device):
        if time.monotonic() > deadline:
            return
        source = torch.empty(size // 2, dtype=torch.uint8, device=device)
        copy = _bound(torch.empty_like(source).copy_, source)
        runners = {"ours": call, "copy": copy} | {k: p for k, p in peers.items() if callable(p)}
        times: dict[str, list[float]] = {name: [] for name in runners}
        said: dict[str, float | str] = {k: p for k, p in peers.items() if not callable(p)}
        for _ in range(rounds):
            for name, runner in runners.items():
                if name in said:
                    continue
                try:
                    times[name].append(microseconds(runner))
                except Exception as wrong:  # a peer that cannot is a row of its own
                    if name in ("ours", "copy"):
                        raise
                    said[name] = f"{type(wrong).__name__}: {str(wrong).splitlines()[0][:80]}"
        ours = median(times["ours"])
        shares = [copied / took for copied, took in zip(times["copy"], times["ours"], strict=True)]
        said |= {name: median(times[name]) / ours for name in runners
                 if name not in ("ours", "copy") and name not in said}  # fmt: skip
        yield Figure(case, ours, size / ours / 1e3, median(shares), said)


# ---- the whole -----------------------------------------------------------------------------------


def machine(device: torch.device) -> dict[str, str]:
    """What ran, and with what."""
    found = {"gpu": "interpreter", "capability": "", "python": platform.python_version()}
    if not interpreting():
        found["gpu"] = torch.cuda.get_device_name(device)
        found["capability"] = ".".join(map(str, torch.cuda.get_device_capability(device)))
        found["driver"] = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found | {"date": date.today().isoformat()}


def plot(figures: list[Figure], title: str, path: Path) -> None:
    """Share of the copy, a bar a case."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, axes = pyplot.subplots(figsize=(8, 0.25 * len(figures) + 1), layout="constrained")
    axes.barh([f.case for f in figures], [100 * f.of_copy for f in figures])
    axes.axvline(100, color="black", linewidth=0.5)
    axes.set(title=title, xlabel="% of a copy of as many bytes")
    axes.invert_yaxis()
    drawing.savefig(path)


def main() -> None:
    """Proofs, then figures, then the file; what does not fit in the time is left out and counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--elements", type=int, default=1 << 28)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    device = torch.device("cpu" if interpreting() else "cuda")
    end, n = (1 << 12, 1 << 14) if options.small else (SIGN, options.elements)
    began = time.monotonic()
    deadline = began + 60 * options.minutes
    facts, proofs = machine(device), {}
    print(facts, flush=True)
    for name, found in prove_native(device, end):
        proofs[f"native {name}"] = asdict(found)
        print(f"native {name}: {found}", flush=True)
        if found.mismatches == 0 and not options.small:
            capability = torch.cuda.get_device_capability(device)
            proof = native.Proof(capability, facts["gpu"], facts["date"], facts["triton"])
            native.PROVEN[name] = (*native.PROVEN.get(name, ()), proof)
            print(f'    "{name}": ({proof},),', flush=True)
    figures = []
    for figure in measure(n, device, began + 0.55 * (deadline - began), 1 if options.small else 3):
        figures.append(figure)
        others = (f"{k} {v:.2f}x" if isinstance(v, float) else f"{k}: {v}" for k, v in figure.peers.items())
        speed = f"{figure.gigabytes:7.0f} GB/s {100 * figure.of_copy:5.0f} % of a copy"
        print(f"{figure.case:36s} {speed}  {', '.join(others)}", flush=True)
    for d in (d for d in nx.dtypes() if d.kind == "block" and d.block <= 128):
        with conversion(None):
            proofs[f"{d} blocks"] = asdict(
                prove_blocks(d, device, 1 << 10 if options.small else RANDOM_BLOCKS)
            )
        print(f"{d} blocks: {proofs[f'{d} blocks']['mismatches']} mismatches", flush=True)
    for name, found in prove_elements(device, end, deadline, options.small):
        proofs[name] = asdict(found)
        if found.mismatches:
            print(f"{name}: {found}", flush=True)
    wrong = {name: found for name, found in proofs.items() if found["mismatches"]}
    print(f"{len(proofs)} proofs, {len(wrong)} with mismatches, {time.monotonic() - began:.0f} s")
    data = {"machine": facts, "proofs": proofs, "figures": [asdict(f) for f in figures]}
    place = options.out / f"{facts['gpu'].lower().replace(' ', '-')}.json"
    options.out.mkdir(parents=True, exist_ok=True)
    replace_file(place, text_of(data).encode())
    plot(figures, facts["gpu"], place.with_suffix(".png"))


if __name__ == "__main__":
    main()
