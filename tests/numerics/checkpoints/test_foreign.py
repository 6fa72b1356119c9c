"""Weights of other tools as QTensors, judged by the tools themselves, or by what their own code computes."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import numerics as nx
from numerics import layouts
from numerics.checkpoints.loading import load, open_any
from numerics.files.checkpoint import quantize_file
from numerics.files.safetensors import Entry, Reader, Writer
from tests.helpers.bits import assert_same_bits

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(7)
E4M3 = np.uint8([code for code in range(256) if code & 0x7F != 0x7F])


def halves(*shape):
    return RNG.uniform(0.001, 0.01, shape).astype(np.float16)


def written(path, tensors, config=None):
    """A file of arrays; a pair says safetensors' type and the bytes."""
    entries = {name: Entry(*x[:2]) if isinstance(x, tuple) else Entry(_kind(x), x.shape)
               for name, x in tensors.items()}  # fmt: skip
    with Writer(path, entries, {}) as writer:
        for name, x in tensors.items():
            writer.put(
                name, 0, x[2] if isinstance(x, tuple) else np.ascontiguousarray(x).reshape(-1).view(np.uint8)
            )
    if config is not None:
        (path.parent / "config.json").write_text(
            json.dumps({"quantization_config": config}), encoding="utf-8"
        )
    return path


def _kind(x):
    return {"float32": "F32", "float16": "F16", "uint8": "U8", "int32": "I32", "int64": "I64", "int8": "I8",
            "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3"}[x.dtype.name]  # fmt: skip


def floats(x):
    return np.asarray(x).astype(np.float32)


# ---- MX and NVFP4 -----------------------------------------------------------------------------------


def test_gpt_oss_blocks_have_the_values_that_transformers_makes_of_them(tmp_path):
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
    blocks = RNG.integers(0, 256, (3, 8, 2, 16)).astype(np.uint8)
    scales = RNG.integers(100, 140, (3, 8, 2)).astype(np.uint8)
    path = written(tmp_path / "a.safetensors", {"mlp.up_proj_blocks": blocks, "mlp.up_proj_scales": scales})
    q = load(path)["mlp.up_proj"]
    due = mxfp4._convert_moe_packed_tensors(
        torch.from_numpy(blocks), torch.from_numpy(scales), dtype=torch.bfloat16
    )
    assert q.shape == (3, 8, 64)
    assert np.array_equal(q.dequantize("float32"), due.float().numpy().transpose(0, 2, 1))
    assert q.packed.tobytes() == blocks.tobytes()


def test_every_code_and_every_scale_of_mxfp4(tmp_path):
    """All 256 bytes of codes under all 256 scales."""
    codes = np.tile(np.arange(256, dtype=np.uint8).reshape(1, 16, 16), (256, 1, 1)).reshape(256 * 16, 16)
    scales = np.repeat(np.arange(256, dtype=np.uint8), 16).reshape(-1, 1)
    path = written(tmp_path / "a.safetensors", {"l.weight_packed": codes, "l.weight_scale": scales})
    q = load(path)["l.weight"]
    blocks = nx.QTensor.from_parts("mxfp4", nx.fp4.unpack(codes.reshape(-1), (4096, 32)), scales)
    assert_same_bits(q.dequantize("float32"), blocks.dequantize())
    assert (q.packed.tobytes(), q.scale.tobytes()) == (codes.tobytes(), scales.tobytes())


def test_nvfp4_of_modelopt_and_of_compressed_tensors(tmp_path):
    packed = RNG.integers(0, 256, (32, 64)).astype(np.uint8)
    scales = RNG.choice(E4M3[:126], (32, 8)).astype(np.uint8)
    second = np.float32(0.003)
    kinds = {
        "l.weight": packed, "l.weight_scale": ("F8_E4M3", (32, 8), scales),
        "l.weight_scale_2": second.reshape(()),
        "m.weight_packed": packed, "m.weight_scale": ("F8_E4M3", (32, 8), scales),
        "m.weight_global_scale": np.float32([1 / second]),
    }  # fmt: skip
    found = load(written(tmp_path / "a.safetensors", kinds))
    assert found.keys() == {"l.weight", "m.weight"}
    values = nx.fp4.decode(nx.fp4.unpack(packed.reshape(-1), (32, 8, 16)))
    scale = nx.fp8_e4m3.decode(scales)[..., None] * second
    assert_same_bits(found["l.weight"].dequantize("float32"), (values * scale).reshape(32, 128))
    assert found["l.weight"].tensor_scale == float(second)
    assert found["m.weight"].tensor_scale == float(np.float32(1) / np.float32(1 / second))


def test_small_floats_of_safetensors_own_types(tmp_path):
    pairs = {"F4": "mxfp4", "F6_E2M3": "mxfp6_e2m3", "F6_E3M2": "mxfp6_e3m2", "F8_E4M3": "mxfp8_e4m3",
             "F8_E5M2": "mxfp8_e5m2"}  # fmt: skip
    x = RNG.standard_normal((8, 64)).astype(np.float32)
    tensors = {}
    for kind, name in pairs.items():
        q = nx.quantize(x, name)
        tensors[f"{name}.weight"] = kind, (8, 64), q.packed
        tensors[f"{name}.weight_scale"] = "F8_E8M0", (8, 2), q.scale
    found = load(written(tmp_path / "a.safetensors", tensors))
    for name in pairs.values():
        assert_same_bits(found[f"{name}.weight"].dequantize("float32"), nx.fake_quantize(x, name))


# ---- FP8 and int8 -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "tile", "told"),
    [
        ((200, 300), (128, 128), True),  # edges that are short
        ((200, 300), (128, 128), False),  # as DeepSeek's first files are: nothing is said
        ((64, 96), (16, 32), True),
        ((3, 130, 96), (128, 128), False),  # experts
        ((3, 64, 96), (64, 32), True),
        ((40, 48), (128, 128), True),  # one block
        ((1, 576), (128, 128), True),  # as many scales as rows, and as blocks
        ((1, 576), (128, 128), False),
        ((3, 1, 576), (128, 128), True),
    ],
)
@pytest.mark.parametrize("name", ["l.weight", "e.gate_up_proj"])
def test_fp8_in_blocks_of_two_dimensions_is_kept_with_one_scale_a_block(tmp_path, shape, tile, told, name):
    codes, (rows, columns) = np.resize(E4M3, shape), tile
    blocks = (*shape[:-2], -(-shape[-2] // rows), -(-shape[-1] // columns))
    scale = RNG.uniform(1e-4, 1e-2, blocks).astype(np.float32)
    tensors = {name: ("F8_E4M3", shape, codes), f"{name}_scale_inv": scale}
    config = {"weight_block_size": [*tile]} if told else {}
    q = load(written(tmp_path / "a.safetensors", tensors, config))[name]
    whole = np.repeat(np.repeat(scale, rows, axis=-2), columns, axis=-1)[..., : shape[-2], : shape[-1]]
    due = codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32) * whole
    assert_same_bits(q.dequantize(), due)
    assert q.scheme == nx.per_block(tile)
    assert q.codes.tobytes() == codes.tobytes()
    assert q.scale.tobytes() == scale.tobytes()


def test_a_last_group_that_is_short_was_read_as_groups_of_another_size(tmp_path):
    """128 columns of 576, or 64 of 96: read right where the size is told, left where it is not."""
    for columns, size in ((576, 128), (320, 128), (96, 64), (300, 128)):
        codes, groups = np.resize(E4M3, (4, columns)), -(-columns // size)
        scale = RNG.uniform(1e-3, 1, (4, groups)).astype(np.float32)
        due = codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
        due *= np.repeat(scale, size, axis=1)[:, :columns]
        for name, config in (
            ("_scale_inv", {"weight_block_size": [1, size]}),
            ("_scale", {"group_size": size}),
        ):
            tensors = {"l.weight": ("F8_E4M3", codes.shape, codes), f"l.weight{name}": scale}
            folder = tmp_path / f"{columns}{name}"
            folder.mkdir()
            q = load(written(folder / "a.safetensors", tensors, config))["l.weight"]
            assert_same_bits(q.dequantize(), due)
        tensors = {"l.weight": ("F8_E4M3", codes.shape, codes), "l.weight_scale": scale}
        with pytest.warns(nx.NumericsWarning, match="a size that is not told"):
            load(written(tmp_path / f"{columns}.safetensors", tensors))


@pytest.mark.parametrize("kind", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shape", [(), (1,), (64, 1), (64,), (64, 2)])
def test_fp8_and_int8_with_scales_of_every_scheme(tmp_path, kind, shape):
    codes, ints = np.resize(E4M3, (64, 256)), RNG.integers(-128, 128, (64, 256)).astype(np.int8)
    scale = RNG.uniform(0.001, 1, shape).astype(kind)
    found = load(written(tmp_path / "a.safetensors", {
        "f.weight": ("F8_E4M3", codes.shape, codes), "f.weight_scale": scale,
        "i.weight": ints, "i.weight_scale": scale,
    }))  # fmt: skip
    wide = floats(scale).reshape(shape if len(shape) == 2 else (-1, 1))
    wide = np.repeat(wide, 256 // wide.shape[1], axis=1)
    for name, values in (("f", floats(codes.view(ml_dtypes.float8_e4m3fn))), ("i", floats(ints))):
        q = found[f"{name}.weight"]
        assert_same_bits(q.dequantize("float32"), values * wide)
        assert q.original == np.dtype(kind).name


# ---- integers in words --------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("columns", [128, 160])
def test_words_of_compressed_tensors(tmp_path, bits, symmetric, columns):
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    codes = RNG.integers(low, high + 1, (24, columns)).astype(np.int8)
    zero = RNG.integers(low, high + 1, (24, columns // 32)).astype(np.int8)
    scale = (RNG.uniform(0.01, 1, zero.shape)).astype(ml_dtypes.bfloat16)
    tensors = {
        "l.weight_packed": helpers.pack_to_int32(torch.from_numpy(codes), bits).numpy(),
        "l.weight_shape": np.int64([24, columns]), "l.weight_scale": scale,
        "l.weight_g_idx": np.arange(columns, dtype=np.int32) // 32,
    }  # fmt: skip
    if not symmetric:
        packed = helpers.pack_to_int32(torch.from_numpy(zero), bits, packed_dim=0)
        tensors["l.weight_zero_point"] = packed.contiguous().numpy()
    told = {"num_bits": bits, "group_size": 32} if bits not in (4, 8) else None
    q = load(written(tmp_path / "a.safetensors", tensors, told))["l.weight"]
    assert q.spec.dtype.name == f"int{bits}"
    moved = codes.astype(np.int32) - (0 if symmetric else np.repeat(zero, 32, axis=1))
    assert_same_bits(q.dequantize("float32"), moved.astype(np.float32) * np.repeat(floats(scale), 32, axis=1))
    assert q.spec.symmetric == symmetric
    came = q.dequantize(torch.bfloat16) if hasattr(q, "device") else q.dequantize("bfloat16")
    assert came.dtype.name == "bfloat16"


def test_words_that_two_versions_would_read_otherwise_stay(tmp_path):
    """20 codes of 3 bits are two words as a string of bits, and where a word holds ten of them."""
    tensors = {"l.weight_packed": np.zeros((4, 2), np.int32), "l.weight_shape": np.int64([4, 20]),
               "l.weight_scale": np.ones((4, 1), np.float32)}  # fmt: skip
    opened = open_any(written(tmp_path / "a.safetensors", tensors, {"num_bits": 3}))
    opened.tensor("l.weight")
    assert "3 bits, which versions of compressed-tensors pack in different ways" in opened.left["l.weight"]


def test_awq(tmp_path):
    """AutoAWQ: value = (code - zero) * scale, [inputs, outputs]."""
    codes, zero = RNG.integers(0, 16, (256, 64)), RNG.integers(0, 16, (2, 64))
    scale = halves(2, 64)
    tensors = {
        "l.qweight": layouts.pack_words(codes.astype(np.uint8), "uint4", axis=1, order=layouts.AWQ),
        "l.qzeros": layouts.pack_words(zero.astype(np.uint8), "uint4", axis=1, order=layouts.AWQ),
        "l.scales": scale,
    }  # fmt: skip
    q = load(written(tmp_path / "a.safetensors", tensors, {"bits": 4, "group_size": 128}))["l.weight"]
    due = (codes - np.repeat(zero, 128, axis=0)).astype(np.float32) * np.repeat(floats(scale), 128, axis=0)
    assert q.shape == (64, 256)
    assert_same_bits(q.dequantize("float32"), np.ascontiguousarray(due.T))
    assert_same_bits(q.dequantize(), np.ascontiguousarray(due.T.astype(np.float16)))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
def test_gptq(tmp_path, bits, version):
    """AutoGPTQ: words along the inputs, zero points less one in version 1."""
    codes, zero = RNG.integers(0, 1 << bits, (256, 64)), RNG.integers(1, 1 << bits, (4, 64))
    scale, d = halves(4, 64), f"uint{bits}"
    stored = zero - (version == "gptq")
    tensors = {
        "l.qweight": layouts.pack_words(codes.astype(np.uint8), d, axis=0),
        "l.qzeros": layouts.pack_words(stored.astype(np.uint8), d, axis=1), "l.scales": scale,
        "l.g_idx": np.arange(256, dtype=np.int32) // 64,
    }  # fmt: skip
    config = {"bits": bits, "checkpoint_format": version}
    q = load(written(tmp_path / "a.safetensors", tensors, config))["l.weight"]
    due = (codes - np.repeat(zero, 64, axis=0)).astype(np.float32) * np.repeat(floats(scale), 64, axis=0)
    assert_same_bits(q.dequantize("float32"), np.ascontiguousarray(due.T))


# ---- what stays as it is --------------------------------------------------------------------------------

LEFT = {
    "an order of activations": ({
        "l.qweight": np.zeros((32, 64), np.int32), "l.qzeros": np.zeros((2, 8), np.int32),
        "l.scales": np.ones((2, 64), np.float16),
        "l.g_idx": np.arange(256, dtype=np.int32)[::-1].copy() // 128,
    }, {"bits": 4}, "activation order"),
    "three bits": ({
        "l.qweight": np.zeros((24, 64), np.int32), "l.qzeros": np.zeros((2, 6), np.int32),
        "l.scales": np.ones((2, 64), np.float16),
    }, {"bits": 3}, "its codes have 3 bits"),
    "a zero point beyond": ({
        "l.qweight": np.zeros((32, 64), np.int32), "l.qzeros": np.full((2, 8), -1, np.int32),
        "l.scales": np.ones((2, 64), np.float16),
    }, {"bits": 4}, "a zero point beyond the codes"),
    "scales of no scheme": ({
        "l.weight": ("F8_E4M3", (64, 64), np.zeros((64, 64), np.uint8)),
        "l.weight_scale": np.ones((3, 5), np.float32),
    }, None, "are of no scheme"),
    "inputs that are scaled": ({
        "l.weight": np.zeros((64, 64), np.int8), "l.weight_scale": np.ones((64, 1), np.float32),
        "l.pre_quant_scale": np.ones(64, np.float32),
    }, None, "inputs are multiplied"),
    "no tensor scale": ({
        "l.weight": np.zeros((64, 32), np.uint8),
        "l.weight_scale": ("F8_E4M3", (64, 4), np.zeros((64, 4), np.uint8)),
    }, None, "its tensor scale is not there"),
    "five bits in words": ({
        "l.weight_packed": np.zeros((64, 11), np.int32), "l.weight_shape": np.int64([64, 64]),
        "l.weight_scale": np.ones((64, 1), np.float32),
    }, {"num_bits": 5}, "have 5 bits"),
}  # fmt: skip
POINTS = {np.int32(8): "zero_point 8 is outside -8 .. 7", np.int32(2**24 + 1): "zero_point 16777217",
          np.int64(2**40): "the zero point 1099511627776", np.float32(1.5): "the zero point 1.5",
          np.float32("nan"): "the zero point nan"}  # fmt: skip
LEFT |= {f"the zero point {point!r}": ({
    "l.weight_packed": np.zeros((64, 8), np.int32), "l.weight_shape": np.int64([64, 64]),
    "l.weight_scale": np.ones((64, 1), np.float32), "l.weight_zero_point": np.full((64, 1), point),
}, {"num_bits": 4}, why) for point, why in POINTS.items()}  # fmt: skip
LEFT |= {f"scales that are {scale}": ({
    "l.weight": np.zeros((64, 64), np.int8), "l.weight_scale": np.full((64, 1), scale, np.float32),
}, None, f"scale {scale} is not finite") for scale in (np.nan, np.inf)}  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
def test_what_is_no_qtensor_stays_as_it_is_and_it_is_said(tmp_path, name):
    tensors, config, why = LEFT[name]
    path = written(tmp_path / "a.safetensors", tensors, config)
    with pytest.warns(nx.formats.errors.NumericsWarning, match=why):
        found = load(path)
    assert not any(isinstance(x, nx.QTensor) for x in found.values())


def test_a_checkpoint_of_ours_comes_back(tmp_path):
    x = {"a": RNG.standard_normal((8, 64)).astype(np.float32), "b": np.ones(3, np.float32)}
    nx.save(x, tmp_path / "m.safetensors")
    quantize_file(tmp_path / "m.safetensors", tmp_path / "q.safetensors", "mx6")
    found = load(tmp_path / "q.safetensors")
    assert_same_bits(found["a"].dequantize(), nx.fake_quantize(x["a"], "mx6"))
    assert load(tmp_path / "q.safetensors", library="torch")["a"].shape == (8, 64)


def test_numbers_in_pickles_and_onnx_models(tmp_path):
    onnx = pytest.importorskip("onnx")
    x = RNG.standard_normal((4, 8)).astype(np.float32)
    torch.save({"model": {"w": torch.from_numpy(x), "h": torch.ones(2, dtype=torch.bfloat16)}, "step": 3},
               tmp_path / "a.pth")  # fmt: skip
    assert load(tmp_path / "a.pth")["w"].tobytes() == x.tobytes()
    graph = onnx.helper.make_graph([], "g", [], [], [onnx.numpy_helper.from_array(x, "w")])
    onnx.save(onnx.helper.make_model(graph, producer_name="test"), tmp_path / "a.onnx")
    assert load(tmp_path / "a.onnx")["w"].tobytes() == x.tobytes()


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/this-was-executed",)


def test_a_pickle_that_would_execute_something_is_refused(tmp_path):
    torch.save({"w": Evil()}, tmp_path / "a.pth")
    with pytest.raises(nx.NumericsError, match=r"cannot read .*a.pth: it would call .*system, and nothing"):
        load(tmp_path / "a.pth")


def test_the_reader_that_wrote_these_files_is_safetensors_own(tmp_path):
    """What `written` writes is what the format's library writes."""
    x = {"a": halves(3, 4)}
    save_file(x, tmp_path / "a.safetensors")
    written(tmp_path / "b.safetensors", x)
    assert (
        Reader(tmp_path / "a.safetensors").raw("a").tobytes()
        == Reader(tmp_path / "b.safetensors").raw("a").tobytes()
    )


# ---- scales that are powers of two ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "blocks"), [((200, 300), (2, 3)), ((3, 130, 96), (3, 2, 1)), ((40, 48), (40, 1))]
)
def test_fp8_whose_scales_of_tiles_or_rows_are_e8m0_failed_the_whole_folder(tmp_path, shape, blocks):
    codes, scale = np.resize(E4M3, shape), RNG.integers(0, 255, blocks).astype(np.uint8)
    path = written(tmp_path / "a.safetensors", {
        "l.weight": ("F8_E4M3", shape, codes), "l.weight_scale_inv": ("F8_E8M0", blocks, scale),
    }, {"weight_block_size": [128, 128]})  # fmt: skip
    q = load(path)["l.weight"]
    due = np.ldexp(np.float32(1), scale.astype(np.int32) - 127)
    assert q.scale.tobytes() == (due[:, 0] if blocks == (40, 1) else due).tobytes()
    assert q.codes.tobytes() == codes.tobytes()
    assert q.spec.scale_type == "float32"


MISFITS = {
    "NaN among E8M0": ("F8_E4M3", (256, 256), ("F8_E8M0", (2, 2)), "255"),
    "E8M0 of no scheme": ("F8_E4M3", (256, 256), ("F8_E8M0", (3, 5)), "are of no scheme"),
    "bytes that are no blocks of 32": ("F8_E4M3", (256, 256), ("U8", (2, 2)), "do not fit each other"),
    "E8M0 of one number": ("F4", (64, 64), ("F8_E8M0", (3,)), "do not fit each other"),
    "E8M0 of too many blocks": ("F6_E2M3", (64, 64), ("F8_E8M0", (9, 9)), "do not fit each other"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_one_weight_whose_scales_do_not_fit_failed_all_others(tmp_path, name):
    kind, shape, (scale_kind, blocks), why = MISFITS[name]
    nbytes = Entry(kind, shape).nbytes
    scale = np.full(int(np.prod(blocks)), 255 if why == "255" else 127, np.uint8)
    path = written(tmp_path / "a.safetensors", {
        "l.weight": (kind, shape, np.zeros(nbytes, np.uint8)), "b": np.ones(3, np.float32),
        "l.weight_scale": (scale_kind, blocks, scale),
    })  # fmt: skip
    with pytest.warns(nx.formats.errors.NumericsWarning, match=why):
        found = load(path)
    assert not isinstance(found["l.weight"], nx.QTensor)
    assert floats(found["b"]).tolist() == [1, 1, 1]


# ---- every code under every scale ---------------------------------------------------------------------

BYTES = np.arange(256, dtype=np.uint8)


def same(came, due, nan=None):
    """Are values the same bits, and NaN where both are and where nan says so?"""
    came, due = np.ascontiguousarray(came), np.ascontiguousarray(due)
    odd = np.zeros(came.shape, bool) if nan is None else np.broadcast_to(nan, came.shape)
    assert np.isnan(floats(came)[odd]).all()
    either = odd | (np.isnan(floats(came)) & np.isnan(floats(due)))
    word = f"u{came.itemsize}"
    assert_same_bits(np.where(either, 0, came.view(word)), np.where(either, 0, due.view(word)))


def of_torch(x):
    """A tensor of torch's as an array, of two bytes a number."""
    kind = {torch.float16: np.float16, torch.bfloat16: ml_dtypes.bfloat16}[x.dtype]
    return x.contiguous().view(torch.int16).numpy().view(kind)


def undone(form, state, **facts):
    """The weight as compressed-tensors itself decompresses it."""
    compressors = pytest.importorskip("compressed_tensors.compressors")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    scheme = quantization.QuantizationScheme(
        targets=["Linear"], weights=quantization.QuantizationArgs(**facts)
    )
    tensors = {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in state.items()}
    return of_torch(compressors.BaseCompressor.load_from_registry(form).decompress(tensors, scheme)["weight"])


def finite_scales(kind, above=False):
    """All finite numbers of a type of two bytes, or those above zero."""
    every = np.arange(1 << 16, dtype=np.uint16).view(kind)
    return every[np.isfinite(floats(every)) & ((floats(every) > 0) | (not above))]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("stored", ["packed", "int32", "int8"])
def test_zero_points_of_a_weight_of_one_row(tmp_path, bits, stored):
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    each = np.arange(-(1 << (bits - 1)), 1 << (bits - 1), dtype=np.int8)
    codes = np.resize(each, (1, 32 * each.size))
    zero = each[None]
    came = zero.astype(np.int32 if stored == "int32" else np.int8)
    if stored == "packed":
        came = helpers.pack_to_int32(torch.from_numpy(zero), bits, packed_dim=0).contiguous().numpy()
    tensors = {"l.weight_packed": helpers.pack_to_int32(torch.from_numpy(codes), bits).numpy(),
               "l.weight_shape": np.int64(codes.shape), "l.weight_scale": np.ones(zero.shape, np.float32),
               "l.weight_zero_point": came}  # fmt: skip
    q = load(written(tmp_path / "a.safetensors", tensors, {"num_bits": bits, "group_size": 32}))["l.weight"]
    due = codes.astype(np.float32) - np.repeat(zero.astype(np.float32), 32, axis=1)
    assert_same_bits(q.dequantize("float32"), due)


@pytest.mark.turns(6)
@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_every_code_zero_point_and_scale_of_words_is_what_compressed_tensors_reads(
    tmp_path, kind, bits, symmetric
):
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    low, count = -(1 << (bits - 1)), 1 << bits
    scale, group = finite_scales(kind, above=not symmetric), max(count, 32)
    scale = np.resize(scale, (-(-scale.size // 32) * 32, 1))
    each = np.arange(low, low + count, dtype=np.int8)
    codes = np.tile(np.resize(each, group), (scale.size, 1))
    state = {"weight_packed": helpers.pack_to_int32(torch.from_numpy(codes), bits).numpy(),
             "weight_shape": np.int64(codes.shape)}  # fmt: skip
    if not symmetric:
        zero = torch.from_numpy(np.resize(each, scale.shape))
        state["weight_zero_point"] = helpers.pack_to_int32(zero, bits, packed_dim=0).contiguous().numpy()
    wide = torch.from_numpy(scale.view(np.int16)).view(getattr(torch, np.dtype(kind).name))
    due = undone("pack-quantized", {**state, "weight_scale": wide}, num_bits=bits, type="int",
                 symmetric=symmetric, strategy="group", group_size=group)  # fmt: skip
    parts = {f"l.{name}": x for name, x in state.items()} | {"l.weight_scale": scale}
    path = written(tmp_path / "a.safetensors", parts, {"num_bits": bits, "group_size": group})
    same(load(path)["l.weight"].dequantize(), due)


BLOCKS_OF_BYTES = {  # of a row; what the library calls the format, and of how many columns a scale is
    "mxfp4": (16, "mxfp4-pack-quantized", 32, "weight_packed"),
    "nvfp4": (8, "nvfp4-pack-quantized", 16, "weight_packed"),
    "mxfp8_e4m3": (32, "mxfp8-quantized", 32, "weight"),
}


@pytest.mark.parametrize("name", BLOCKS_OF_BYTES)
def test_every_byte_under_every_scale_byte_is_what_compressed_tensors_reads(tmp_path, name):
    """E8M0's 255 is NaN by the standard; the library reads 2 to the power of 128."""
    size, form, columns, part = BLOCKS_OF_BYTES[name]
    rows = 256 // size
    codes = np.tile(BYTES.reshape(rows, size), (256, 1))
    scale = np.repeat(BYTES, rows).reshape(-1, 1)
    fp8 = torch.float8_e4m3fn
    kinds = {part: fp8 if name == "mxfp8_e4m3" else torch.uint8,
             "weight_scale": fp8 if name == "nvfp4" else torch.uint8}  # fmt: skip
    state = {part: torch.from_numpy(codes).view(kinds[part]),
             "weight_scale": torch.from_numpy(scale).view(kinds["weight_scale"])}  # fmt: skip
    tensors = {f"l.{part}": ("F8_E4M3", codes.shape, codes) if part == "weight" else codes,
               "l.weight_scale": ("F8_E4M3", scale.shape, scale) if name == "nvfp4" else scale}  # fmt: skip
    if name == "nvfp4":
        tensors["l.weight_global_scale"] = state["weight_global_scale"] = np.float32([0.25])
    due = undone(form, state, num_bits=8 if name == "mxfp8_e4m3" else 4, type="float", symmetric=True,
                 strategy="tensor_group" if name == "nvfp4" else "group", group_size=columns)  # fmt: skip
    q = load(written(tmp_path / "a.safetensors", tensors))["l.weight"]
    assert (q.packed.tobytes(), q.scale.tobytes()) == (codes.tobytes(), scale.tobytes())
    same(q.dequantize(), due, nan=None if name == "nvfp4" else scale == 255)


def test_every_byte_under_every_scale_byte_of_gpt_oss_is_what_transformers_reads(tmp_path):
    """E8M0's 255 is NaN by the standard; transformers reads 2 to the power of 128."""
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
    blocks = np.broadcast_to(BYTES.reshape(16, 16), (1, 256, 16, 16)).copy()
    scales = np.broadcast_to(BYTES[:, None], (1, 256, 16)).copy()
    path = written(tmp_path / "a.safetensors", {"mlp.up_proj_blocks": blocks, "mlp.up_proj_scales": scales})
    due = mxfp4._convert_moe_packed_tensors(torch.from_numpy(blocks), torch.from_numpy(scales))
    same(
        load(path)["mlp.up_proj"].dequantize(), of_torch(due).transpose(0, 2, 1), nan=(BYTES == 255)[:, None]
    )


@pytest.mark.parametrize("name", ["l.weight_scale_inv", "l.weight_scale"])
def test_every_byte_of_fp8_under_scales_of_every_exponent_in_tiles(tmp_path, name):
    """Against torch's float32; scales are float32 numbers of every exponent, and of random fractions."""
    exponents = np.arange(1, 255, dtype=np.uint32) << 23
    scale = (exponents | RNG.integers(0, 1 << 23, 254).astype(np.uint32)).view(np.float32).reshape(1, 254)
    codes = np.tile(np.resize(BYTES, (128, 128)), (1, 254))
    tensors = {"l.weight": ("F8_E4M3", codes.shape, codes), name: scale}
    q = load(written(tmp_path / "a.safetensors", tensors, {"weight_block_size": [128, 128]}))["l.weight"]
    wide = torch.from_numpy(codes).view(torch.float8_e4m3fn).float()
    due = (wide * torch.from_numpy(scale).repeat_interleave(128, dim=1)).numpy()
    assert (q.codes.tobytes(), q.scale.tobytes()) == (codes.tobytes(), scale.tobytes())
    same(q.dequantize("float32"), due)


@pytest.mark.parametrize("name", ["l.weight_scale", "l.weight_scale_2"])
def test_every_byte_under_every_scale_byte_of_nvfp4_of_modelopt(tmp_path, name):
    """Value, block scale and tensor scale are multiplied; by float64, in which nothing is rounded."""
    codes = np.tile(BYTES.reshape(32, 8), (256, 1))
    scale, second = np.repeat(BYTES, 32).reshape(-1, 1), np.float32(2.0**-9 * 1.5)
    tensors = {"l.weight": codes, "l.weight_scale": ("F8_E4M3", scale.shape, scale),
               "l.weight_scale_2": second.reshape(() if name == "l.weight_scale" else (1,))}  # fmt: skip
    q = load(written(tmp_path / "a.safetensors", tensors))["l.weight"]
    small = np.float64([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
    wide = np.stack([small[codes & 15], small[codes >> 4]], axis=-1).reshape(-1, 16)
    due = wide * scale.view(ml_dtypes.float8_e4m3fn).astype(np.float64) * np.float64(second)
    assert (due[np.isfinite(due)].astype(np.float32) == due[np.isfinite(due)]).all()
    same(q.dequantize("float32"), due.astype(np.float32))
    assert np.isnan(due).any(axis=1).sum() == 2 * 32


@pytest.mark.parametrize("kind", ["F4", "F6_E2M3", "F6_E3M2", "F8_E4M3", "F8_E5M2"])
def test_every_code_under_every_scale_byte_of_safetensors_own_types(tmp_path, kind):
    """Against ml_dtypes and powers of two in float64."""
    spelled = {"F4": "float4_e2m1fn", "F6_E2M3": "float6_e2m3fn", "F6_E3M2": "float6_e3m2fn",
               "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}[kind]  # fmt: skip
    bits = int(kind[1])
    codes = np.tile(np.resize(np.arange(1 << bits, dtype=np.uint8), max(1 << bits, 32)), (256, 1))
    scale = np.repeat(BYTES[:, None], codes.shape[1] // 32, axis=1)
    packed = np.packbits((codes.reshape(-1, 1) >> np.arange(bits)) & 1, bitorder="little")
    tensors = {"l.weight": (kind, codes.shape, packed), "l.weight_scale": ("F8_E8M0", scale.shape, scale)}
    q = load(written(tmp_path / "a.safetensors", tensors))["l.weight"]
    powers = np.repeat(np.exp2(scale.astype(np.float64) - 127), 32, axis=1)
    with np.errstate(over="ignore"):
        due = (codes.view(getattr(ml_dtypes, spelled)).astype(np.float64) * powers).astype(np.float32)
    due[255] = np.nan
    assert (q.packed.tobytes(), q.scale.tobytes()) == (packed.tobytes(), scale.tobytes())
    same(q.dequantize("float32"), due)


@pytest.mark.turns(6)
@pytest.mark.parametrize("form", ["awq", "gptq 4", "gptq 8", "gptq_v2 4", "gptq_v2 8"])
def test_every_code_under_every_zero_point_and_scale_of_awq_and_gptq(tmp_path, form):
    """(code - zero) * scale in float64, in which nothing is rounded; words are made here, bit by bit."""
    version, _, bits = form.partition(" ")
    bits = int(bits or 4)
    count, per = 1 << bits, 32 // bits
    scale = finite_scales(np.float16, above=True)
    scale = np.resize(scale, (2, -(-scale.size // 64) * 32))
    inputs, outputs = 2 * max(count, 32), scale.shape[1]
    codes = np.broadcast_to(np.resize(np.arange(count), inputs)[:, None], (inputs, outputs))
    least = version == "gptq"
    zero = np.resize(np.arange(least, count), scale.shape)
    order = [0, 2, 4, 6, 1, 3, 5, 7] if version == "awq" else list(range(per))
    stored = zero - least

    def across(x):
        """Words along the last axis; order: which element each place of a word holds, lowest bits first."""
        parts = x.reshape(len(x), -1, per)[..., order].astype(np.uint64)
        shifts = np.arange(per, dtype=np.uint64) * np.uint64(bits)
        return (parts << shifts).sum(axis=-1).astype(np.uint32).view(np.int32)

    words = across(codes) if version == "awq" else across(np.ascontiguousarray(codes.T)).T
    tensors = {"l.qweight": np.ascontiguousarray(words), "l.qzeros": across(stored), "l.scales": scale}
    config = {"bits": bits, "group_size": inputs // 2}
    if version != "awq":
        config["checkpoint_format"] = version
    q = load(written(tmp_path / "a.safetensors", tensors, config))["l.weight"]
    moved = codes - np.repeat(zero, inputs // 2, axis=0)
    due = (moved * np.repeat(scale.astype(np.float64), inputs // 2, axis=0)).T
    came = q.dequantize("float32")
    assert_same_bits(came + np.float32(0), np.ascontiguousarray(due).astype(np.float32) + np.float32(0))
    assert_same_bits(q.scale, np.ascontiguousarray(scale.T).astype(q.scale.dtype))
