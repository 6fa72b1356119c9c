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
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
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
from numerics.formats.rounding import DETERMINISTIC, BlockOptions, Rounding

PACKAGES = ("torch", "triton", "numpy", "numba", "torchao", "triton_kernels", "flag_gems", "amd-quark")
RANDOM_BLOCKS = 1 << 20


def where() -> torch.device:
    """The GPU; the CPU, where kernels are interpreted."""
    return torch.device("cpu" if interpreting() else "cuda")


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


def prove(d: nx.Element, rounding: str, overflow: str, device: torch.device, end: int = SIGN) -> Sweep:
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


def elements(small: bool = False) -> list[tuple[str, str, str]]:
    """Every float format and codebook, rounding and policy.

    small: 16-bit formats in half_even alone, whose steps take longer to list than a few inputs to prove.
    """
    return [
        (str(d), rounding, overflow)
        for d in nx.dtypes() if d.kind in ("float", "codebook")
        for rounding in (("half_even",) if small and d.bits == 16 else DETERMINISTIC)
        for overflow in d.overflows
    ]  # fmt: skip


def prove_element(case: tuple[str, str, str], end: int) -> Sweep:
    """One of them over every float32 input; in a process of its own, whose GPU it finds itself."""
    name, rounding, overflow = case
    with conversion(None):
        return prove(nx.dtype(name), rounding, overflow, where(), end)  # type: ignore[arg-type]


def prove_elements(end: int, deadline: float, small: bool) -> Iterator[tuple[str, Sweep | str]]:
    """All that is proven until the time is up; a kernel that fails is told in words.

    Eight processes at once: a kernel is compiled for each case, which takes longer than to run it.
    """
    if small:
        yield from ((" ".join(case), prove_element(case, end)) for case in elements(small))
        return
    with ProcessPoolExecutor(8, get_context("spawn")) as pool:
        waiting = {pool.submit(prove_element, case, end): " ".join(case) for case in elements(small)}
        try:
            for future in as_completed(waiting, max(1.0, deadline - time.monotonic())):
                wrong = future.exception()
                yield waiting[future], future.result(0) if wrong is None else _in_words(wrong)
        except TimeoutError:
            pool.shutdown(wait=False, cancel_futures=True)


def _in_words(wrong: BaseException) -> str:
    lines = str(wrong).splitlines() or [""]
    return f"{type(wrong).__name__}: {lines[0][:200]}"


def prove_native(device: torch.device, end: int) -> Iterator[tuple[str, Sweep | str]]:
    """The conversion instructions of this GPU, over every input and in blocks."""
    for name, least in native.CAPABLE.items():
        if interpreting() or torch.cuda.get_device_capability(device) < least:
            continue
        try:
            with conversion(name):
                found = prove(nx.dtype(name), "half_even", "saturate", device, end)
                yield name, found + prove_blocks(nx.dtype(f"mx{name}"), device)
        except Exception as wrong:  # an instruction that this compiler does not know is not used, and said
            yield name, _in_words(wrong)


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
        for part in ("codes", "scale", "microexponents"):
            if getattr(due, part) is not None:
                wrong = getattr(came, part).cpu().numpy() != getattr(due, part)
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
        for d in (nx.fp4, nx.fp6_e2m3, nx.nf4):
            call = _bound(GPU.encode_packed, x, d, Rounding())
            yield f"{kind} -> packed {d}", call, n * size + n * d.bits // 8, {}
        for d in (nx.hifloat8, nx.posit8) if kind == "float32" else ():
            out = torch.empty(n, dtype=torch.uint8, device=device)
            yield f"{kind} -> {d}", _bound(GPU.encode, x, d, Rounding(), out), n * (size + 1), {}
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
    yield "hifloat8 -> float32", _bound(GPU.decode, codes, nx.hifloat8, values), 5 * n, {}
    packed = torch.randint(0, 256, (n // 2,), dtype=torch.uint8, device=device)
    yield "packed nf4 -> float32", _bound(GPU.decode_packed, packed, (n,), nx.nf4), 4 * n + n // 2, {}
    made = GPU.encode_blocks(wide.reshape(-1, 4096), nx.mxfp8_e4m3, -1, BlockOptions())
    to = values.reshape(-1, 4096)
    yield "mxfp8_e4m3 -> float32", _bound(GPU.decode_blocks, made, to), 5 * n + n // 32, {}
    rows = wide.reshape(-1, 4096)
    for name, partition in (
        ("int8 per_channel", Partition(tuple(rows.shape), 0)),
        ("int4 per_group 128", Partition(tuple(rows.shape), 1, 128)),
        ("nf4 per_group 64", Partition(tuple(rows.shape), 1, 64)),
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
        torch.compiler.reset()  # or the second format would be compiled for any sizes
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
                    said[name] = _in_words(wrong)
        if "ours" in said:
            yield Figure(case, 0.0, 0.0, 0.0, said)
            continue
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


@dataclass
class Account:
    """What is written: the machine, proofs, figures, and what failed in words."""

    place: Path
    machine: dict[str, str]
    proofs: dict[str, dict[str, Any]] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def proof(self, name: str, found: Sweep | str, loud: bool = False) -> None:
        """Keeps a proof, or why there is none; what is wrong is printed."""
        if isinstance(found, str):
            self.failed[name] = found
        else:
            self.proofs[name] = asdict(found)
        if loud or isinstance(found, str) or found.mismatches:
            print(f"{name}: {found}", flush=True)

    def write(self) -> None:
        """The file, so far."""
        self.place.parent.mkdir(parents=True, exist_ok=True)
        figures = [asdict(f) for f in self.figures]
        data = {"machine": self.machine, "proofs": self.proofs, "figures": figures, "failed": self.failed}
        replace_file(self.place, text_of(data).encode())


def main() -> None:
    """Proofs, then figures, then more proofs; what does not fit in the time is left out and counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--elements", type=int, default=1 << 28)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    device, small = where(), options.small
    end, n = (1 << 12, 1 << 14) if small else (SIGN, options.elements)
    began = time.monotonic()
    deadline = began + 60 * options.minutes
    facts = machine(device)
    account = Account(options.out / f"{facts['gpu'].lower().replace(' ', '-')}.json", facts)
    print(facts, flush=True)
    for name, found in prove_native(device, end):
        account.proof(f"native {name}", found, loud=True)
        if isinstance(found, Sweep) and found.mismatches == 0 and not small:
            capability = torch.cuda.get_device_capability(device)
            proof = native.Proof(capability, facts["gpu"], facts["date"], facts["triton"])
            native.PROVEN[name] = (*native.PROVEN.get(name, ()), proof)
            print(f'    "{name}": ({proof},),', flush=True)
    for figure in measure(n, device, began + 0.55 * (deadline - began), 1 if small else 3):
        account.figures.append(figure)
        peers = figure.peers.items()
        others = [f"{name} {x:.2f}x" if isinstance(x, float) else f"{name}: {x}" for name, x in peers]
        speed = f"{figure.gigabytes:7.0f} GB/s {100 * figure.of_copy:5.0f} % of a copy"
        print(f"{figure.case:36s} {speed}  {', '.join(others)}", flush=True)
    account.write()
    for d in (d for d in nx.dtypes() if d.kind == "block" and d.block <= 128):
        with conversion(None):
            try:
                proven: Sweep | str = prove_blocks(d, device, 1 << 10 if small else RANDOM_BLOCKS)
            except Exception as failure:
                proven = _in_words(failure)
        account.proof(f"{d} blocks", proven, loud=True)
    account.write()
    for name, found in prove_elements(end, deadline, small):
        account.proof(name, found)
        account.write()
    wrong = sum(found["mismatches"] > 0 for found in account.proofs.values())
    took = f"{time.monotonic() - began:.0f} s"
    print(f"{len(account.proofs)} proofs, {wrong} with mismatches, {len(account.failed)} failed; {took}")
    account.write()
    plot(account.figures, facts["gpu"], account.place.with_suffix(".png"))


if __name__ == "__main__":
    main()
