"""What quantization for AMD's NPU costs two real networks, and whether every integer of it is predicted.

python -m bench.npu [--items N] [--only crepe-tiny] [--out FILE] [--also LABEL=FILE]

crepe-tiny (convolutions, from torch) hears the pitch of computed tones; magika (a network in ONNX, which
ships in a package of that name) says what kind of file it sees, of files that are on this machine.  Each in
float32, in the four configurations, and as ONNX Runtime's own quantize_static makes it.  The rows go to
bench/results/npu.json, each as soon as it is there.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import resource
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

import numerics as nx
from bench import models, sounds
from bench.__main__ import machine
from bench.records import text_of
from numerics.files.replacement import replace_file
from numerics.model.ipu.comparing import Layer
from numerics.model.ipu.folding import fold
from numerics.model.ipu.loading import open_model
from numerics.model.ipu.report import Report
from numerics.model.ipu.running import opened, run

Array = NDArray[Any]
BATCH = 32
CALIBRATION = 256
ENDINGS = {
    "py": "python",
    "pyc": "pythonbytecode",
    "svg": "svg",
    "rst": "rst",
    "json": "json",
    "gz": "gzip",
    "so": "elf",
    "html": "html",
    "js": "javascript",
    "css": "css",
    "csv": "csv",
    "png": "png",
    "xml": "xml",
    "wav": "wav",
    "npz": "npz",
    "npy": "npy",
    "ttf": "ttf",
    "toml": "toml",
    "f90": "fortran",
    "onnx": "onnx",
    "md": "markdown",
    "txt": "txt",
    "c": "c",
    "cpp": "cpp",
}
MOST_OF_AN_ENDING = 80
COMPARED = {
    "crepe-tiny": 1 << 20,
    "magika": 128,
}  # items whose integers are compared: magika has 1.6 million each
BYTES, SEEN, PADDING = 1024, 4096, 256  # of each end of a file; how many are read; what stands for none


@dataclass(frozen=True)
class Network:
    """A network and its items.

    model: in float32.  keep: what of it stays in float.  calibration, items: arrays, the first axis counts.
    choices: outputs -> answers; right: outputs -> booleans.
    """

    name: str
    model: onnx.ModelProto
    keep: tuple[str, ...]
    input: str
    calibration: Array
    items: Array
    choices: Callable[[Array], Array]
    right: Callable[[Array], Array]


# ---- the networks ---------------------------------------------------------------------------------


def crepe(count: int) -> Network:
    """crepe-tiny, exported by torch."""
    frames, pitch = sounds.tones(count + CALIBRATION, models.PITCH_SAMPLES)
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            models.PitchTracker(),
            (torch.from_numpy(frames[:BATCH]),),
            dynamo=True,
            opset_version=18,
            verbose=False,
        )
    logging.disable(logging.NOTSET)
    due = pitch[CALIBRATION:]

    def right(y: Array) -> Array:
        heard = 10 * 2 ** ((20 * y.argmax(1) + 1997.3794084376191) / 1200)  # Hz of a bin
        return np.asarray(np.abs(1200 * np.log2(heard / due[: len(y)])) < 50)

    names = ("crepe-tiny", program.model_proto, ("Sigmoid",), "frames")
    return Network(*names, frames[:CALIBRATION], frames[CALIBRATION:], lambda y: y.argmax(1), right)


KEPT = ("Add", "Div", "Exp", "Max", "Mul", "ReduceMax", "ReduceSum", "Sub", "Tanh")
"""Of magika: the parts of its normalizations, its softmax and its GELUs."""


def magika(count: int) -> Network:
    """magika 1.0's network, whose normalizations and activations stay in float."""
    folder = models.folder("magika") / "models/standard_v3_3"
    facts = json.loads((folder / "config.min.json").read_text(encoding="utf-8"))
    labels = facts["target_labels_space"]
    files = list(chosen_files(count + CALIBRATION))
    seen = np.array([features(file.read_bytes()) for file in files], np.int32)
    due = np.array([labels.index(ENDINGS[file.suffix[1:]]) for file in files])[CALIBRATION:]
    names = ("magika", onnx.load(folder / "model.onnx"), KEPT, "bytes")
    answers = (lambda y: y.argmax(1), lambda y: y.argmax(1) == due[: len(y)])
    return Network(*names, seen[:CALIBRATION], seen[CALIBRATION:], *answers)


def chosen_files(count: int) -> Iterator[Path]:
    """Files of this machine's Python and its packages, as many of each ending, in an order of their names."""
    roots = {Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")}
    found: dict[str, list[tuple[int, Path]]] = {ending: [] for ending in ENDINGS}
    for root in roots:
        for file in root.rglob("*"):
            if file.suffix[1:] in found and file.is_file() and file.stat().st_size >= 64:
                found[file.suffix[1:]].append((crc32(str(file.relative_to(root)).encode()), file))
    every = [entry for files in found.values() for entry in sorted(files)[:MOST_OF_AN_ENDING]]
    yield from (file for _, file in sorted(every)[:count])


def features(content: bytes) -> list[int]:
    """The first and the last bytes of a file, without white space around it: magika 1.0, features 'v2'."""
    short = len(content) <= SEEN
    first = content.strip() if short else content[:SEEN].lstrip()
    last = content.strip() if short else content[-SEEN:].rstrip()
    begun, ended = list(first[:BYTES]), list(last[-BYTES:])
    return [*begun, *[PADDING] * (BYTES - len(begun)), *[PADDING] * (BYTES - len(ended)), *ended]


NETWORKS = {"crepe-tiny": crepe, "magika": magika}

# ---- the rows -------------------------------------------------------------------------------------


def batches(network: Network) -> list[dict[str, Array]]:
    """The items in whole batches."""
    whole = len(network.items) // BATCH
    return [{network.input: network.items[k * BATCH : (k + 1) * BATCH]} for k in range(whole)]


def outputs(network: Network, model: onnx.ModelProto) -> Array:
    """What a model gives for all items."""
    session = opened(model)
    return np.concatenate([next(iter(run(session, feeds).values())) for feeds in batches(network)])


def fixed(network: Network) -> onnx.ModelProto:
    """The float model with the shape of a batch, constants folded: what other quantizers are given."""
    found = open_model(network.model, {network.input: (BATCH, *network.items.shape[1:])})
    fold(found, Report("-", "-"))
    return found.model()


def measured(network: Network, due: Array, came: Array) -> dict[str, Any]:
    """A row's figures."""
    error = float(((came - due) ** 2).sum())
    return {
        "items": len(came),
        "SQNR dB": round(10 * float(np.log10(float((due**2).sum()) / error)), 2) if error else None,
        "as float": round(float((network.choices(came) == network.choices(due)).mean()), 4),
        "right": round(float(network.right(came).mean()), 4),
    }


def ours(network: Network, config: str) -> tuple[nx.ipu.Quantized, dict[str, Any]]:
    """The model in a configuration; seconds and memory of its calibration."""
    keep = tuple(name for name in network.keep if (name, config) != ("Sigmoid", "xint8"))  # the device's own
    options = nx.ipu.CONFIGS[config].replace(
        keep=keep, shapes={network.input: (BATCH, *network.items.shape[1:])}
    )
    before = time.perf_counter()
    made = nx.ipu.quantize_model(network.model, {network.input: network.calibration}, options)
    seconds = time.perf_counter() - before
    kept = [row for row in made.report if row.step == "keep"]
    return made, {
        "seconds": round(seconds, 1),
        "items a second": round(CALIBRATION / seconds, 1),
        "peak MB of the process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "nodes in float": len(kept),
        "rows of the report": len(made.report.rows),
    }


def agreement(network: Network, model: onnx.ModelProto, device: str) -> dict[str, Any]:
    """The integers of all items beside the reference, layer by layer."""
    layers = nx.ipu.compare(model, batches(network)[: COMPARED[network.name] // BATCH], device)
    shown = [layer for layer in layers if layer.tensor not in {o.name for o in model.graph.output}]
    counts = {name: int(sum(getattr(layer, name) for layer in shown)) for name in _COUNTS}
    compared = min(COMPARED[network.name], len(network.items))
    return {"items": compared, "layers": len(shown), **counts, "most": max(layer.most for layer in shown)}


_COUNTS = [name for name in Layer.__dataclass_fields__ if name not in ("tensor", "most")]


def static(network: Network, per_channel: bool, symmetric: bool = False) -> onnx.ModelProto:
    """What ONNX Runtime's quantize_static makes: int8, QDQ, minimum and maximum.

    symmetric: without zero points of activations, as the device's types are; by default it has them.
    """
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            whole = range(0, CALIBRATION, BATCH)
            self.rest = iter([{network.input: network.calibration[k : k + BATCH]} for k in whole])

        def get_next(self) -> Any:
            return next(self.rest, None)

    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{name}.onnx" for name in ("float", "prepared", "quantized")]
        onnx.save(fixed(network), paths[0])
        q.quant_pre_process(paths[0], paths[1], skip_symbolic_shape=True)
        q.quantize_static(
            paths[1], paths[2], Reader(), quant_format=q.QuantFormat.QDQ, per_channel=per_channel,
            op_types_to_quantize=["Conv", "Gemm", "MatMul", "Relu", "MaxPool", "Pad"],
            extra_options={"ActivationSymmetric": symmetric},
        )  # fmt: skip
        return onnx.load(paths[2])


def rows(network: Network) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of a network, by a name."""
    due = outputs(network, fixed(network))
    yield "float32", measured(network, due, due)
    for config in nx.ipu.CONFIGS:
        made, cost = ours(network, config)
        found = {**measured(network, due, outputs(network, made.model)), **cost}
        if config != "bf16":
            found["X2"] = agreement(network, made.model, "stx")
        if config == "xint8":
            found["X1"] = agreement(network, made.model, "phx")
        yield config, found
    for per_channel, symmetric in ((False, False), (True, False), (True, True)):
        name = f"quantize_static, int8{' by channels' * per_channel}{', symmetric' * symmetric}"
        yield name, measured(network, due, outputs(network, static(network, per_channel, symmetric)))


def others(network: Network, named: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of models that other tools made of the network, of int8 with scales of powers of two."""
    due = outputs(network, fixed(network))
    for label, _, file in (text.partition("=") for text in named):
        model = onnx.load(file)
        found = measured(network, due, outputs(network, model))
        yield label, {**found, **{target: agreement(network, model, d) for target, d in DEVICES.items()}}


DEVICES = {"X2": "stx", "X1": "phx"}


def main() -> None:
    """Makes the rows, prints them, writes JSON after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1024)
    parser.add_argument("--only", choices=[*NETWORKS])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "npu.json")
    parser.add_argument("--also", action="append", default=[], help="LABEL=FILE: a model by another tool.")
    options = parser.parse_args()
    facts = machine() | {"onnxruntime": onnxruntime.__version__, "batch": BATCH, "calibration": CALIBRATION}
    found: dict[str, Any] = {"machine": facts, "rows": {}}
    for name in [options.only] if options.only else NETWORKS:
        found["rows"][name] = {}
        network = NETWORKS[name](options.items)
        made = others(network, options.also) if options.also else rows(network)
        for label, row in made:
            found["rows"][name][label] = row
            print(name, label, row, flush=True)
            replace_file(options.out, text_of(found).encode())


if __name__ == "__main__":
    main()
