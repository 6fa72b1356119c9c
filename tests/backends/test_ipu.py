"""The IPU backend: models of every profile, requantization, sessions and the command line.

That ONNX Runtime obeys every law of an executor is tried in tests/laws.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime

import numerics as nx
from numerics.backends.array import primitives
from numerics.backends.bind import PRIMITIVES, bind
from numerics.backends.cpu import BACKEND as CPU
from numerics.backends.ipu import srs
from numerics.backends.ipu.devices import DEVICES
from numerics.backends.ipu.verify import SHIFTS, expected, known_inputs, network
from numerics.backends.onnx import graphs, portable
from numerics.formats.rounding import DETERMINISTIC, ROUNDINGS
from tests.helpers.bits import assert_same_bits
from tests.helpers.children import LIMIT
from tests.helpers.dtypes import BLOCKS, DECLARED, DECLARED_BLOCKS, ELEMENTS
from tests.helpers.inputs import edges

LONG = os.environ.get("NUMERICS_TEST_LONG") == "1"  # make runtimes
X = edges(random=1 << 18 if LONG else 1 << 12)
RECORDED = Path(__file__).parents[1] / "data" / "ipu.json"
LEVELS = (
    onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
)
EVERY = [*ELEMENTS, *DECLARED, *BLOCKS, *DECLARED_BLOCKS]


@pytest.mark.skipif(not LONG, reason="make runtimes")
def test_a_million_patterns_are_tried():
    print(f"onnxruntime {onnxruntime.__version__}: {X.size} patterns")
    assert X.size > 1_000_000


def run(model: onnx.ModelProto, level: object = LEVELS[1], **feeds: np.ndarray) -> list[np.ndarray]:
    """Checked by ONNX, run by ONNX Runtime."""
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    opened = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return opened.run(None, feeds)


def rows(d: nx.Block, x: np.ndarray = X) -> np.ndarray:
    """Patterns of every kind mixed in blocks, and blocks of numbers near each other."""
    rng = np.random.default_rng(3)
    mixed = rng.permutation(x)[: len(x) // 2 // d.block * d.block].reshape(-1, d.block)
    near = rng.standard_normal(mixed.shape) * np.exp2(rng.integers(-148, 122, (len(mixed), 1)))
    return np.concatenate([mixed, near.astype(np.float32)])


@pytest.mark.turns(54)
@pytest.mark.parametrize("rounding", DETERMINISTIC)
@pytest.mark.parametrize("dtype", EVERY, ids=repr)
def test_exported_bits_equal_the_cpu(dtype, rounding):
    """The CPU's kernels, proven on every input (tests/laws/test_proof.py), stand in for the reference."""
    options = {"tensor_scale": 0.5} if isinstance(dtype, nx.ScaledBlock) else {}
    x = rows(dtype) if dtype.kind == "block" else X
    due, near = dtype.encode(x, rounding=rounding, **options), dtype.round(x, rounding=rounding, **options)
    fields = (due.codes, due.scale, due.microexponents) if dtype.kind == "block" else (due,)
    there = [field for field in fields if field is not None]
    encoder = nx.ipu.export(dtype, "encode", rounding=rounding, **options)
    rounder = nx.ipu.export(dtype, "round", rounding=rounding, **options)
    turn = EVERY.index(dtype) + DETERMINISTIC.index(rounding)
    for place, level in enumerate(LEVELS):  # half_even at both; of the others each model at one, in turns
        both = LONG or rounding == "half_even"
        if both or (turn + place) % 2 == 0:
            for came, field in zip(run(encoder, level, x=x), there, strict=True):
                assert_same_bits(came, field)
        if both or (turn + place) % 2 == 1:
            assert_same_bits(run(rounder, level, x=x)[0], near, x)
        if rounding == "half_even":
            feeds = dict(zip(("codes", "scale", "microexponents"), there, strict=False))
            (back,) = run(nx.ipu.export(dtype, "decode", **options), level, **feeds)
            assert_same_bits(back, dtype.decode(due))


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("dtype", [nx.fp6_e2m3, nx.int4, nx.mxfp4, nx.mx6, nx.nvfp4], ids=repr)
def test_every_rounding_equals_reference(dtype, rounding):
    x = rows(dtype, X[::400])[:64] if dtype.kind == "block" else X[::300]
    options = {"tensor_scale": 0.5} if isinstance(dtype, nx.ScaledBlock) else {}
    drawn = np.random.default_rng(1).integers(0, 1 << 30, x.shape).astype(np.int32)
    extra = {"random": drawn} if rounding == "stochastic" else {}
    (came,) = run(nx.ipu.export(dtype, "round", rounding=rounding, **options), x=x, **extra)
    bits = {"random_bits": drawn.astype(np.uint32)} if extra else {}
    with nx.use("reference"):
        due = dtype.round(x, rounding=rounding, **options, **bits)
    assert_same_bits(came, due, x)


@pytest.mark.parametrize("rule", ["ceil", "even", "rceil"])
def test_every_scale_rule(rule):
    x = rows(nx.mxfp6_e3m2)
    codes, scale = run(nx.ipu.export("mxfp6_e3m2", "encode", scale_rule=rule), x=x)
    due = nx.mxfp6_e3m2.encode(x, scale_rule=rule)
    assert_same_bits(codes, due.codes)
    assert_same_bits(scale, due.scale)


@pytest.mark.parametrize(
    "dtype", [nx.fp4, nx.fp6_e2m3, nx.int3, nx.bfloat16, nx.mxfp4, nx.mx6, nx.mx9], ids=repr
)
def test_packing(dtype):
    if isinstance(dtype, nx.MicroexponentBlock):
        blocks = dtype.encode(rows(dtype))
        feeds = {"codes": blocks.codes, "scale": blocks.scale, "microexponents": blocks.microexponents}
        (packed,) = run(nx.ipu.export(dtype, "pack"), **feeds)
        assert_same_bits(packed.reshape(-1), dtype.pack(blocks))
        for came, due in zip(run(nx.ipu.export(dtype, "unpack"), packed=packed), feeds.values(), strict=True):
            assert_same_bits(came, due)
        return
    bits = dtype.element_bits if dtype.kind == "block" else dtype.bits
    kind = np.uint8 if bits <= 8 else np.uint16
    codes = np.random.default_rng(2).integers(0, 1 << bits, 9600).astype(kind)
    (packed,) = run(nx.ipu.export(dtype, "pack"), codes=codes)
    assert_same_bits(packed, CPU.executor.pack(codes, bits))
    (back,) = run(nx.ipu.export(dtype, "unpack"), packed=packed)
    assert_same_bits(back, codes)


def _portable(d: nx.Dtype) -> str | None:
    overflow = "nonsaturate" if d.name == "bfloat16" else "saturate"
    return None if portable.refusal(d, overflow) else overflow


@pytest.mark.parametrize("level", LEVELS, ids=["plain", "optimized"])
@pytest.mark.parametrize("dtype", [d for d in EVERY if _portable(d)], ids=repr)
def test_portable_models_equal_the_cpu(dtype, level):
    model = nx.ipu.export(dtype, "round", "portable", overflow=_portable(dtype))
    assert model.opset_import[0].version == 13
    x = rows(dtype) if dtype.kind == "block" else X
    options = {} if dtype.kind == "block" else {"overflow": _portable(dtype)}
    assert_same_bits(run(model, level, x=x)[0], dtype.round(x, **options), x)


def test_what_a_profile_lacks_is_refused():
    refused = {
        ("mx6", "round", "portable"): "mx6 has no portable graph: only OCP MX blocks are",
        ("e8m0", "round", "portable"): "e8m0 has no portable graph",
        ("fp8_e4m3", "encode", "portable"): "profile 'portable' offers op='round', not 'encode'",
        ("fp8_e4m3", "round", "npu"): "fp8_e4m3 is not a type of the NPU",
        ("nvfp4", "round", "npu"): "AMD Quark has no operator for nvfp4",
        ("mxint8", "round", "npu"): "AMD Quark has no operator for mxint8",
        ("fp4", "rond", "bits"): "unknown op 'rond'",
        ("fp4", "round", "bit"): "unknown profile 'bit'",
        ("fp4", "requantize", "bits"): "accumulators become integers of 8 or 16 bits, not fp4",
    }
    for arguments, why in refused.items():
        with pytest.raises(nx.NumericsError, match=why.replace("(", r"\(")):
            nx.ipu.export(*arguments)
    with pytest.raises(nx.NumericsError, match="rounds half_even"):
        nx.ipu.export("fp4", "round", "portable", rounding="floor")
    with pytest.raises(nx.NumericsError, match="shift= within 0"):
        nx.ipu.export("int8", "requantize", device="stx", shift=32)
    with pytest.raises(nx.NumericsError, match="exactly one"):
        nx.ipu.export("int8", "requantize", device="stx", rounding="floor", shift=3)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "bfloat16"])
def test_npu_models_equal_the_cpu(dtype):
    d, scale = nx.dtype(dtype), 2.0**-3
    x = np.random.default_rng(4).standard_normal(1 << 20 if LONG else 1 << 16).astype(np.float32) * 20
    if dtype == "bfloat16":
        (came,) = run(nx.ipu.export(dtype, "round", "npu"), x=x)
        assert_same_bits(came, d.round(x))
        return
    (came,) = run(nx.ipu.export(dtype, "round", "npu", scale=scale), x=x)
    assert_same_bits(came, np.float32(scale) * d.round(x / np.float32(scale)), x)


@pytest.mark.parametrize("dtype", ["mx4", "mx6", "mx9", "bfp16", "mxfp8_e4m3", "mxfp4"])
def test_block_formats_for_the_npu_are_quarks_operators(dtype):
    model = nx.ipu.export(dtype, "round", "npu")
    assert model.graph.node[0].domain == "com.amd.quark"
    assert "not a type of the NPU" in model.doc_string
    with pytest.raises(nx.NumericsError, match="ONNX Runtime cannot open the model"):
        nx.ipu.session(model)


# ---- requantization --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", srs.MODES)
def test_the_graph_of_requantization_equals_the_integers(mode):
    bound = bind({name: getattr(primitives, name) for name in PRIMITIVES}, sources=(srs,))
    rng = np.random.default_rng(5)
    for shift in range(17):
        ties = (rng.integers(-300, 300, 2000) << shift) + (1 << shift >> 1) + rng.integers(-1, 2, 2000)
        ends = np.array([-(1 << 31), (1 << 31) - 1, 0, -1, 1, 1 << 30, -(1 << 30)])
        acc = np.concatenate([ties, ends, rng.integers(-(1 << 31), 1 << 31, 2000)]).astype(np.int32)
        (came,) = run(nx.ipu.export("int8", "requantize", rounding=mode, shift=shift), accumulator=acc)
        assert_same_bits(came.astype(np.int32), bound.srs(acc, shift, mode, -128, 127))


def test_a_quantized_convolution_rounds_like_x2_and_unlike_x1():
    """ONNX Runtime's CPU equals ties to even; where X1 differs, it is at ties, and counted."""
    x1, x2 = DEVICES["phx"].mode, DEVICES["stx"].mode
    differing = 0
    for shift in SHIFTS:
        (came,) = run(network(shift), x=known_inputs())
        assert_same_bits(came + 0.0, expected(shift, x2) + 0.0)
        differing += int((came != expected(shift, x1)).sum())
    # accumulators 7v that are odd multiples of half a step, whose floor is even: a quarter of 2**-shift
    ties = sum(
        int(((7 * v) % (1 << s) == 1 << (s - 1)) and ((7 * v) >> s) % 2 == 0 and -1024 <= 7 * v < 127 << s)
        for s in SHIFTS for v in range(-128, 128)
        if -128 <= (7 * v) >> s < 127
    )  # fmt: skip
    assert differing == 16 * ties
    assert differing > 0


# ---- sessions --------------------------------------------------------------------------------------


class FakeSession:
    """What onnxruntime.InferenceSession would be on a machine with an NPU."""

    made: list[object] = []  # noqa: RUF012
    starts = True

    def __init__(
        self, model: object, options: object, providers: list[object], disabled_optimizers: tuple[str, ...]
    ) -> None:
        assert disabled_optimizers == ("WeightBiasQuantization",)
        self.made.append(providers)
        self.providers = [p[0] if isinstance(p, tuple) else p for p in providers]

    def get_providers(self) -> list[str]:
        return self.providers if self.starts else self.providers[1:]


def test_the_npu_is_asked_first_where_there_is_one(monkeypatch):
    model = nx.ipu.export("fp4", "round")
    monkeypatch.setattr(onnxruntime, "get_available_providers",
                        lambda: ["VitisAIExecutionProvider", "CPUExecutionProvider"])  # fmt: skip
    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeSession)
    opened = nx.ipu.session(model, require_npu=True, device="phx", xclbin="4x4.xclbin", config_file="c.json")
    assert opened.has_npu
    assert FakeSession.made[-1] == [
        ("VitisAIExecutionProvider",
         {"target": "X1", "xlnx_enable_py3_round": "0", "xclbin": "4x4.xclbin", "config_file": "c.json"}),
        "CPUExecutionProvider",
    ]  # fmt: skip
    with pytest.raises(nx.NumericsError, match="phx needs xclbin="):
        nx.ipu.session(model, device="phx")
    with pytest.raises(nx.NumericsError, match="on stx none may be set"):
        nx.ipu.session(model, xclbin="4x4.xclbin")
    monkeypatch.setattr(FakeSession, "starts", False)
    assert not nx.ipu.session(model).has_npu
    with pytest.raises(nx.NumericsError, match="did not start; active: CPUExecutionProvider"):
        nx.ipu.session(model, require_npu=True)


def test_no_npu_is_said_when_one_is_required():
    model = nx.ipu.export("fp4", "round")
    assert nx.ipu.session(model).providers == ("CPUExecutionProvider",)
    with pytest.raises(nx.NumericsError, match="install AMD's Ryzen AI Software"):
        nx.ipu.session(model, require_npu=True)
    with pytest.raises(nx.NumericsError, match="unknown device 'stz'; did you mean 'stx'"):
        nx.ipu.session(model, device="stz")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a\x12\x00", None])
def test_what_is_no_model_is_an_error_of_ours(tmp_path, content):
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(nx.NumericsError, match=r"ONNX Runtime cannot open .*model\.onnx"):
        nx.ipu.session(path)
    with pytest.raises(nx.NumericsError, match="refused its inputs"):
        nx.ipu.session(nx.ipu.export("fp4")).run({"y": np.ones(3, np.float32)})


# ---- the command line, and what is recorded --------------------------------------------------------


def numerics(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "numerics", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)


def test_commands(tmp_path):
    out = tmp_path / "mxfp4.onnx"
    made = numerics("ipu", "export", "mxfp4", str(out), "--profile", "portable")
    assert made.returncode == 0, made.stderr
    assert nx.ipu.session(out).run({"x": np.ones((1, 32), np.float32)})["y"][0, 0] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["mxfp4.onnx"]
    found = json.loads(numerics("ipu", "verify", "--json").stdout)
    assert found["agrees"]
    assert found["shown_modes"] == ["conv_even"]
    assert found["providers"] == ["CPUExecutionProvider"]
    wrong = numerics("ipu", "verify", "--device", "hpt")
    assert wrong.returncode == 1
    refused = numerics("ipu", "export", "nvfp4", str(out), "--profile", "npu")
    assert refused.returncode == 2
    assert refused.stderr.startswith("numerics: AMD Quark has no operator for nvfp4")


def counts() -> dict[str, int]:
    """Nodes of every model of the house's formats, half to even."""
    found = {}
    for d in (*ELEMENTS, *BLOCKS):
        for op in ("encode", "decode", "round"):
            found[f"{d} {op} bits"] = graphs.node_count(nx.ipu.export(d, op))
        if overflow := _portable(d):
            found[f"{d} round portable"] = graphs.node_count(
                nx.ipu.export(d, "round", "portable", overflow=overflow)
            )
    return found


def test_graphs_have_not_grown():
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    assert {name: count for name, count in counts().items() if count > recorded[name]} == {}
