"""Which tensors of a checkpoint are quantized, and along which axis; what is left says why."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import numerics as nx
from numerics.cli import commands
from numerics.files.checkpoint import dequantize_file, quantize_file
from numerics.files.companions import RULES
from numerics.files.safetensors import NUMPY, Entry, Reader, Writer
from numerics.files.selection import already_said
from tests.helpers.marks import either_sign

CREPE = {
    "conv1": (128, 1, 512, 1), "conv2": (16, 128, 64, 1), "conv3": (16, 16, 64, 1), "conv4": (16, 16, 64, 1),
    "conv5": (32, 16, 64, 1), "conv6": (64, 32, 64, 1), "classifier": (360, 256), "bias": (16,),
}  # fmt: skip
SILERO = {
    "stft": (258, 1, 256), "encoder.0": (128, 129, 3), "encoder.1": (64, 128, 3), "encoder.2": (64, 64, 3),
    "encoder.3": (128, 64, 3), "lstm": (512, 128), "decoder": (1, 128, 1),
}  # fmt: skip
MOBILE = {
    "stem": (32, 3, 3, 3),
    "depthwise": (256, 1, 3, 3),
    "pointwise": (64, 256, 1, 1),
    "column": (1024, 1),
}
DTYPES = [("int4", {"scheme": "per_group(128)"}), ("mx6", {}), ("mxfp4", {}), ("nvfp4", {}), ("mx9", {})]
RNG = np.random.default_rng(0)


def saved(path, shapes, kind=np.float32):
    nx.save({name: RNG.standard_normal(shape).astype(kind) for name, shape in shapes.items()}, path)
    return path


def raw_file(path, tensors):
    """A file of tensors of any type, as other tools write them: name -> (type, shape)."""
    entries = {name: Entry(kind, shape) for name, (kind, shape) in tensors.items()}
    with Writer(path, entries, {}) as writer:
        for name, entry in entries.items():
            if entry.dtype in NUMPY and entry.dtype.startswith("F"):
                writer.put(name, 0, np.ones(entry.shape, NUMPY[entry.dtype]))
    return path


# ---- the axis -----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [CREPE, SILERO, MOBILE], ids=["crepe", "silero", "mobile"])
@pytest.mark.parametrize(("name", "options"), DTYPES)
def test_convolutions_grew(tmp_path, model, name, options):
    """crepe took 36 bits a value in int4, silero 15 in mx6, one weight 96: the axis was the kernel's."""
    path = saved(tmp_path / "m", model)
    report = quantize_file(path, tmp_path / "q", name, **options)
    loaded = nx.load(tmp_path / "q")
    for tensor in report.tensors:
        if len(tensor.shape) < 2:
            continue
        q = loaded[tensor.name]
        assert tensor.dtype == name
        assert tensor.bits <= 2 * max(nx.dtype(name).bits, 4)
        along = len(tensor.shape) - 1 if tensor.axis is None else tensor.axis
        found = q.axis if q.scheme is None else q.scheme.axis
        assert found % len(tensor.shape) == along
        due = {"axis": along} if q.scheme is None else {"scheme": nx.per_group(128, axis=along)}
        x = nx.load(path)[tensor.name]
        assert q.dequantize().tobytes() == nx.fake_quantize(x, name, **due).tobytes()
    dequantize_file(tmp_path / "q", tmp_path / "back")
    assert Reader(tmp_path / "back").entries.keys() == model.keys()


@pytest.mark.parametrize(
    ("shape", "size", "axis"),
    [
        ((128, 1, 512, 1), 128, 0), ((64, 128, 3), 128, 1), ((1, 128, 1), 128, 1), ((258, 1, 256), 128, None),
        ((512, 128), 128, None), ((4, 9), 128, None), ((64, 32, 64), 128, None), ((256, 1, 3, 3), 128, 0),
        ((1024, 1), 128, 0), ((64, 64, 3, 3), 32, 1), ((2, 40, 40, 3), 128, 1), ((3, 5, 40), 32, None),
    ],
)  # fmt: skip
def test_the_axis(tmp_path, shape, size, axis):
    path = saved(tmp_path / "m", {"w": shape})
    report = quantize_file(path, tmp_path / "q", "int4", scheme=nx.per_group(size))
    assert report.tensors[0].axis == axis


def test_an_axis_that_is_said_is_kept(tmp_path):
    path = saved(tmp_path / "m", {"w": (64, 128, 3), "v": (8, 64, 5)})
    for options in ({"scheme": "per_group(8, axis=-1)"}, {"scheme": "per_group(size=8, axis=2)"}):
        report = quantize_file(path, tmp_path / "q", "int4", **options)
        assert [tensor.axis for tensor in report.tensors] == [None, None]
        assert report.tensors[0].bits > 14
    report = quantize_file(path, tmp_path / "q", "int4", scheme=nx.per_group(8, axis=0))
    assert [tensor.axis for tensor in report.tensors] == [0, 0]
    report = quantize_file(path, tmp_path / "q", "mxfp4", axis=-1)
    assert [tensor.axis for tensor in report.tensors] == [None, None]
    report = quantize_file(path, tmp_path / "q", "mxfp4")
    assert [tensor.axis for tensor in report.tensors] == [1, 1]


def test_the_command_chooses_too(tmp_path):
    path = saved(tmp_path / "m", {"w": (64, 128, 3)})

    def axis(*options):
        found = CliRunner().invoke(commands, ["quantize", str(path), str(tmp_path / "q"), "--json", *options])
        assert found.exit_code == 0, found.output
        return nx.load(tmp_path / "q")["w"].scheme

    grouped = ("--dtype", "int4", "--scheme", "per_group", "--group-size", "128")
    assert axis(*grouped) == nx.per_group(128, axis=1)
    assert axis(*grouped, "--axis", "-1") == nx.per_group(128, axis=-1)
    assert axis("--dtype", "int4", "--scheme", "per_group(128, axis=-1)") == nx.per_group(128, axis=-1)


# ---- nothing grows ------------------------------------------------------------------------------


@either_sign
@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=4),
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.sampled_from([d.name for d in nx.dtypes()]), st.sampled_from([None, -1, 0]),
)  # fmt: skip
def test_nothing_grows_in_silence(tmp_path_factory, shape, kind, name, axis):
    folder = tmp_path_factory.getbasetemp()
    blocked = nx.dtype(name).kind == "block"
    options = (
        {"axis": axis} if blocked else {"scheme": f"per_group(4{'' if axis is None else f', axis={axis}'})"}
    )
    path = saved(folder / "m", {"w": tuple(shape)}, kind)
    (tensor,) = quantize_file(path, folder / "q", name, **options).tensors
    if tensor.dtype is None:
        assert tensor.bytes_after == tensor.bytes_before
        assert "bits a value, and it has" in tensor.why
        assert nx.load(folder / "q")["w"].tobytes() == nx.load(path)["w"].tobytes()
        with pytest.raises(nx.NumericsError, match=r"tensor 'w': .* bits a value, and it has .*: exclude it"):
            quantize_file(path, folder / "q", name, include=["w"], **options)
    else:
        assert tensor.bytes_after < tensor.bytes_before
        assert tensor.bits < 8 * np.dtype(kind).itemsize


# ---- patterns -----------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path):
    nx.save({"w": np.ones((8, 64), np.float32), "ids": np.arange(4), "one": np.array(1.0)}, tmp_path / "m")
    return tmp_path / "m"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"include": ["ids"]}, "chooses no tensor of .* that can be quantized: 'ids': I64 is not quantized"),
        ({"include": ["one", "ids"]}, "'one': a single number"),
        ({"include": ["w"], "exclude": ["*"]}, "'w': excluded"),
        ({"exclude": [".*w.*"]}, "exclude='.\\*w.\\*' matches no tensor"),
        ({"exclude": ["w", "W"]}, "exclude='W' matches no tensor"),
        ({"include": ["x"]}, "include='x' matches no tensor"),
        ({"include": [3]}, "3 is not a pattern"),
    ],
)
def test_patterns_that_did_nothing_were_silent(mixed, options, said):
    with pytest.raises(nx.NumericsError, match=said):
        quantize_file(mixed, mixed.with_name("q"), "int4", **options)
    assert not mixed.with_name("q").exists()


def test_the_report_says_why(mixed):
    def why(**options):
        report = quantize_file(mixed, mixed.with_name("q"), "int4", **options)
        return {tensor.name: tensor.why for tensor in report.tensors}

    said = "I64 is not quantized; F64, F32, F16, BF16 are"
    assert why() == {"w": None, "ids": said, "one": "a single number"}
    assert why(exclude="w") == {"w": "excluded", "ids": said, "one": "a single number"}
    assert why(include="w") == {"w": None, "ids": "not included", "one": "not included"}


# ---- what other tools quantized -----------------------------------------------------------------

OTHERS = {
    "DeepSeek": {"l.weight": ("F8_E4M3", (256, 128)), "l.weight_scale_inv": ("F32", (2, 1))},
    "experts": {"e.gate_up_proj": ("F8_E4M3", (4, 64, 64)), "e.gate_up_proj_scale_inv": ("BF16", (4, 1, 1))},
    "compressed-tensors": {"l.weight": ("I8", (64, 64)), "l.weight_scale": ("BF16", (64, 1))},
    "NVFP4": {"l.weight_packed": ("U8", (64, 32)), "l.weight_scale": ("F16", (64, 4))},
    "ModelOpt": {"l.weight": ("U8", (64, 32)), "l.weight_scale_2": ("F32", (4, 1))},
    "ModelOpt's AWQ": {"l.weight": ("U8", (64, 32)), "l.pre_quant_scale": ("F16", (1, 64))},
    "TensorRT-LLM": {"l.weight": ("I8", (64, 64)), "l.weights_scaling_factor": ("F32", (64, 1))},
    "GPTQ": {"l.qweight": ("I32", (8, 64)), "l.qzeros": ("I32", (1, 8)), "l.scales": ("F16", (1, 64)),
             "l.g_idx": ("I32", (64,))},
    "bitsandbytes": {"l.weight": ("U8", (2048, 1)), "l.weight.absmax": ("F32", (64, 1)),
                     "l.weight.quant_map": ("F32", (16,))},
    "bitsandbytes' int8": {"l.weight": ("I8", (64, 64)), "l.SCB": ("F32", (64, 1))},
    "MLX": {"l.weight": ("U32", (64, 8)), "l.scales": ("F16", (64, 1)), "l.biases": ("F16", (64, 1))},
    "HQQ": {"l.W_q": ("U8", (64, 32)), "l.scale": ("F16", (64, 1)), "l.zero": ("F16", (64, 1))},
    "quanto": {"l.weight._data": ("I8", (64, 64)), "l.weight._scale": ("F32", (64, 1))},
    "torchao": {"l.weight_qdata": ("I8", (64, 64)), "l.weight_scale": ("F32", (64, 1))},
    "MXFP4": {"l.w_blocks": ("U8", (4, 8, 16)), "l.w_scales": ("F32", (4, 8))},
    "AQLM": {"l.codes": ("I8", (64, 8, 2)), "l.codebooks": ("F16", (2, 256, 1, 8)),
             "l.scales": ("F16", (64, 1, 1, 1))},
    "F6": {"l.weight": ("F6_E2M3", (64, 64)), "l.weight_scale": ("F32", (64, 2))},
    "F4": {"l.weight": ("F4", (64, 64)), "l.weight_scale": ("F32", (64, 2))},
    "our own without its text": {"w": ("U8", (64, 32)), "w.scale": ("F32", (64, 4))},
}  # fmt: skip


@pytest.mark.parametrize("tool", OTHERS)
def test_the_scales_of_quantized_weights_were_quantized(tmp_path, tool):
    tensors = OTHERS[tool] | {"embed": ("F32", (64, 64)), "norm": ("F32", (64,))}
    path = raw_file(tmp_path / "m", tensors)
    with pytest.raises(nx.NumericsError, match=r"was quantized already by another tool .*: exclude '"):
        quantize_file(path, tmp_path / "q", "int8", include=["*"])
    assert not (tmp_path / "q").exists()
    report = quantize_file(path, tmp_path / "q", "int8")
    assert [tensor.name for tensor in report.tensors if tensor.dtype] == ["embed"]
    why = {tensor.name: tensor.why for tensor in report.tensors}
    assert why[next(iter(tensors))].startswith("quantized already: ")
    scales = [name for name, reason in why.items() if reason and reason.startswith("belongs to codes")]
    assert scales
    assert all(name in OTHERS[tool] for name in scales)
    before, after = Reader(path), Reader(tmp_path / "q")
    for name in OTHERS[tool]:
        assert after.raw(name).tobytes() == before.raw(name).tobytes()


@pytest.mark.parametrize(("begun", "ending"), [(begun, e) for begun, endings, _ in RULES for e in endings])
def test_every_rule_refuses(tmp_path, begun, ending):
    path = raw_file(
        tmp_path / "m",
        {f"a.{begun or 'w'}": ("I8", (8, 8)), f"a.{'' if begun else 'w'}{ending}": ("F32", (8, 1))},
    )
    with pytest.raises(nx.NumericsError, match="was quantized already"):
        quantize_file(path, tmp_path / "q", "int8", scheme="per_channel(1)")


def test_scales_that_are_no_weights_are_left_and_it_is_said(tmp_path):
    path = raw_file(
        tmp_path / "m",
        {"a.weight": ("F8_E4M3", (64, 64)), "a.weight_scale": ("F32", ()), "b": ("F32", (8, 8))},
    )
    report = quantize_file(path, tmp_path / "q", "int8")
    why = {tensor.name: tensor.why for tensor in report.tensors}
    assert why["a.weight"] == "quantized already: F8_E4M3, as compressed-tensors, Quark or FBGEMM has it"
    assert why["b"] is None


def test_names_that_only_look_alike(tmp_path):
    """Floats with scales are no codes, and scales of their own are nobody's; a weight's are its."""
    tensors = {"a.weight": ("F32", (64, 64)), "a.weight_scale": ("F32", (64, 4)), "scales": ("F32", (8, 8)),
               "ids": ("I64", (8, 8)), "ids_scale": ("F32", (8, 8))}  # fmt: skip
    report = quantize_file(raw_file(tmp_path / "m", tensors), tmp_path / "q", "int8")
    assert {tensor.name for tensor in report.tensors if tensor.dtype} == {"a.weight", "scales", "ids_scale"}


def test_include_and_exclude_did_not_know_layers_as_rules_do(tmp_path):
    path = raw_file(tmp_path / "m", {
        "a.lm_head.weight": ("F32", (64, 64)), "a.lm_head.bias": ("F32", (64,)), "a.w": ("F32", (64, 64)),
    })  # fmt: skip
    report = quantize_file(path, tmp_path / "q", "int8", exclude=["*lm_head"])
    assert [tensor.name for tensor in report.tensors if tensor.dtype] == ["a.w"]
    report = quantize_file(path, tmp_path / "q", "int8", include=["a.lm_head"])
    assert [tensor.name for tensor in report.tensors if tensor.dtype] == ["a.lm_head.weight"]
    with pytest.raises(nx.NumericsError, match="names of tensors or of layers"):
        quantize_file(path, tmp_path / "q", "int8", exclude=["lm_head"])


def test_matrices_that_stay_since_another_tool_quantized_them_were_not_counted():
    fp8 = [((4, 4), "quantized already: F8_E4M3, as DeepSeek has it"), ((1, 1), "belongs to codes")]
    told = already_said([*fp8, ((4, 4), None), ((4,), "fewer than two dimensions")])
    assert told.startswith(
        "1 of 2 matrices are quantized already and stay; to requantize: numerics dequantize"
    )
    assert already_said([((4, 4), None)]) is None
