"""What a look says is there, and what a comparison finds."""

from __future__ import annotations

import json

import ml_dtypes  # noqa: F401  # whose bfloat16 NumPy knows by its name
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import save_file

import numerics as nx
from numerics.checkpoints.gguf_file import GGUFWriter, nbytes_of
from numerics.checkpoints.looking import compare, inspect
from numerics.cli import checkpoints as cli_checkpoints
from numerics.cli import commands
from numerics.view.screen import Screen

RNG = np.random.default_rng(2)


@pytest.fixture
def two(tmp_path):
    x = RNG.standard_normal((8, 64)).astype(np.float32)
    x[3, :32] = 0
    q = nx.quantize(x, "mxfp4")
    scale = q.scale.copy()
    scale[5, 1] = 0xFF
    codes = q.codes.copy()
    codes[2, 7] ^= 1
    first = {"w": q, "n": np.float32([1, np.nan, np.inf]), "same": q, "a": np.ones(2), "ids": np.arange(3)}
    second = {"w": nx.QTensor.from_parts("mxfp4", codes, q.scale), "n": first["n"], "same": q,
              "broken": nx.QTensor.from_parts("mxfp4", q.codes, scale), "ids": np.arange(4)}  # fmt: skip
    nx.save(first, tmp_path / "a.safetensors")
    nx.save(second, tmp_path / "b.safetensors")
    return tmp_path / "a.safetensors", tmp_path / "b.safetensors"


def test_a_look_says_formats_ranges_and_what_is_odd(two):
    first, second = ({look.name: look for look in inspect(path)} for path in two)
    q = nx.load(two[0])["w"]
    assert (first["w"].format, first["w"].bits) == ("mxfp4", 4.25)
    assert first["w"].amax == float(np.abs(q.dequantize()).max())
    assert "1 of 16 blocks are zeros" in first["w"].odd
    assert first["n"].odd == ("2 values are NaN or Inf",)
    assert any("1 of 16 scales are NaN" in odd for odd in second["broken"].odd)
    assert any("32 values are NaN" in odd for odd in second["broken"].odd)
    assert first["ids"].amax is None


def odd_of(tmp_path, *tensors):
    nx.save({str(k): q for k, q in enumerate(tensors)}, tmp_path / "odd.safetensors")
    return [look.odd for look in inspect(tmp_path / "odd.safetensors")]


def test_codes_are_counted_where_half_of_them_are_unused(tmp_path):
    x = RNG.standard_normal((16, 64)).astype(np.float32)
    small = np.float32(x / 100)
    small[0, 0] = np.abs(x).max() * 8
    e2m1 = np.resize(np.uint8([0, 1, 2, 3, 9, 10]), (16, 64))  # 0.5, 1 and 1.5 alone
    made = [
        nx.QTensor.from_parts("int4", np.resize(np.uint8([0, 1, 2, 3]), (16, 64)), np.float32(1)),
        nx.QTensor.from_parts("uint4", np.resize(np.uint8([9, 12]), (16, 64)), np.float32(1)),
        nx.quantize(small, "int4"),
        nx.QTensor.from_parts("mxfp4", e2m1, np.full((16, 2), 127, np.uint8)),
    ]  # fmt: skip
    assert [odd[-1] for odd in odd_of(tmp_path, *made)] == [
        "only 4 of 16 codes are used", "only 2 of 16 codes are used", "only 2 of 16 codes are used",
        "only 5 of 14 codes from 0.5 up are used",
    ]  # fmt: skip


WHOLE = [
    "int4", "int8", "nf4", "fp4", "fp8_e4m3", "fp8_e5m2", "hifloat8", "mxfp4", "nvfp4", "mx6", "mxint8",
    "mxfp8_e5m2", "if4", "hifloat4",
]  # fmt: skip


@pytest.mark.parametrize("d", WHOLE)
def test_a_code_or_two_that_no_value_has_are_not_odd(d, tmp_path):
    """-8 of int4, -0, NaN and the small binades of floats: "1 of 16 codes are unused" of every tensor."""
    x = RNG.standard_normal((64, 128)).astype(np.float32)
    assert odd_of(tmp_path, nx.quantize(x, d)) == [()]


def test_a_comparison_finds_the_first_code_that_differs(two):
    found = compare(*two)
    by_name = {one.name: one for one in found.tensors}
    assert (found.only_first, found.only_second) == (["a"], ["broken"])
    assert not found.same
    w = by_name["w"]
    values = [nx.load(path)["w"].dequantize()[2, 7] for path in two]
    assert (w.codes, w.values, w.first) == (1, 1, ((2, 7), *map(float, values)))
    assert 0 < w.sqnr < 100
    assert by_name["same"].same
    assert by_name["n"].same
    assert by_name["ids"].why == "shapes (3,) and (4,)"
    assert compare(two[0], two[0]).same


def run(*words):
    return CliRunner().invoke(commands, [str(word) for word in words], standalone_mode=False)


def test_the_commands_say_the_same(two, tmp_path):
    came = json.loads(run("inspect", two[0], "--json").output)
    assert {look["name"] for look in came} == {"w", "n", "same", "a", "ids"}
    assert "1 of 16 blocks are zeros" in run("inspect", two[0]).output
    differing = run("compare", *two)
    assert differing.return_value == 1
    assert "only in the second: broken" in differing.output
    assert "values differ" in differing.output.splitlines()[0]
    assert "4 tensors in both, 2 differ, 1 only in the first, 1 only in the second" in differing.output
    equal = run("compare", two[0], two[0])
    assert equal.return_value == 0
    assert equal.output == "5 tensors, all the same\n"
    assert "2 quantized tensors, 3 others" in run("convert", two[0], tmp_path / "c.safetensors").output
    assert run("compare", two[0], tmp_path / "c.safetensors").return_value == 0


def test_a_comparison_leaves_nan_and_inf_out_without_a_word(tmp_path):
    odd, whole = np.ones((4, 8), np.float32), np.ones((4, 8), np.float32)
    odd[0, :3] = np.nan, np.inf, -np.inf
    nx.save({"w": odd, "v": whole}, tmp_path / "a.safetensors")
    nx.save({"w": whole, "v": odd}, tmp_path / "b.safetensors")
    w, v = sorted(compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors").tensors,
                  key=lambda one: -one.non_finite)  # fmt: skip
    assert np.isnan(w.sqnr)
    assert (w.values, w.non_finite, w.lost) == (3, 3, 0)
    assert np.isnan(v.sqnr)
    assert (v.values, v.non_finite, v.lost) == (3, 0, 3)
    args = ["compare", str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")]
    said = CliRunner().invoke(commands, args).output
    assert "w: 3 NaN or Inf in the first, in no SQNR" in said
    assert "v: 3 NaN or Inf in the second alone" in said
    assert " inf " not in said
    assert " nan " not in said
    told = {
        one["name"]: one
        for one in json.loads(CliRunner().invoke(commands, [*args, "--json"]).output)["tensors"]
    }
    assert (told["w"]["non_finite"], told["v"]["lost"]) == (3, 3)


def test_values_that_differ_are_shown_whole(tmp_path):
    """Six digits of them were, which read back as others."""
    for name, value in (("a", -1.0392305), ("b", 1.0392305)):
        nx.save({"w": np.float32([value])}, tmp_path / f"{name}.safetensors")
    nx.save({"w": np.float64([-1.03923046])}, tmp_path / "c.safetensors")
    a, b, c = (str(tmp_path / f"{name}.safetensors") for name in "abc")
    assert "[0]: -1.0392305, 1.0392305" in run("compare", a, b).output
    assert "[0]: -1.039230465888977, -1.03923046" in run("compare", a, c).output


def test_what_has_no_finite_value_has_no_magnitude_and_is_not_zero(tmp_path):
    """A tensor of Inf alone was said to be of zeros alone."""
    half = np.where(np.arange(64) % 2, np.nan, 0).astype(np.float32).reshape(2, 32)
    with pytest.warns(nx.NumericsWarning, match="64 of 64 values are NaN"):
        q = nx.quantize(np.full_like(half, np.nan), "int4")
    nx.save({"inf": np.full_like(half, np.inf), "half": half, "zero": np.zeros_like(half),
             "none": half[:0], "q": q},
            tmp_path / "a.safetensors")  # fmt: skip
    looks = {look.name: (look.amax, look.odd[:2]) for look in inspect(tmp_path / "a.safetensors")}
    assert looks["inf"] == (None, ("64 values are NaN or Inf",))
    assert looks["half"] == (0, ("32 values are NaN or Inf", "all others are zero"))
    assert looks["zero"] == (0, ("all values are zero",))
    assert looks["none"] == (None, ())


def test_where_nothing_is_finite_there_is_no_sqnr_even_of_equals(tmp_path):
    """NaN against its own mxfp4 was "inf" dB, with no NaN counted."""
    nan, some = np.full((2, 32), np.nan, np.float32), np.ones((2, 32), np.float32)
    some[0, 0] = np.nan
    nx.save({"nan": nan, "ids": np.ones(2, np.int8)}, tmp_path / "a.safetensors")
    nx.save({"nan": nx.quantize(nan, "mxfp4"), "ids": np.ones(2, np.int8)}, tmp_path / "b.safetensors")
    found = {one.name: one for one in compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors").tensors}
    assert (found["nan"].values, found["nan"].non_finite, found["ids"].sqnr) == (0, 64, np.inf)
    assert np.isnan(found["nan"].sqnr)
    said = run("compare", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert "nan: 64 NaN or Inf in the first, in no SQNR" in said.output
    assert " inf " not in said.output


def gguf_file(path, kinds, values=512):
    """A file of GGUF with a tensor of each type, all bytes 0x22, and NVFP4's scale beside it."""
    tensors = {kind: (kind, (4, values)) for kind in kinds}
    tensors |= {"NVFP4.scale": ("F32", (1,))} if "NVFP4" in kinds else {}
    with GGUFWriter(path, (0, b""), tensors) as writer:
        for name, (kind, shape) in tensors.items():
            writer.put(name, np.full(nbytes_of(kind, shape), 0x22, np.uint8))
    return path


def test_of_a_gguf_file_its_own_types_bits_and_bytes_are_said(tmp_path):
    """Q4_K was float32 of 32 bits, which it would become, and NVFP4 had a tensor scale that no file had."""
    pytest.importorskip("gguf")
    kinds = ["Q4_K", "Q8_0", "MXFP4", "NVFP4", "F16", "I32", "Q5_1"]
    looks = {one.name: one for one in inspect(gguf_file(tmp_path / "a.gguf", kinds))}
    assert {name: look.stored for name, look in looks.items()} == {kind: kind for kind in kinds}
    bits = {
        "Q4_K": 4.5,
        "Q8_0": 8.5,
        "MXFP4": 4.25,
        "NVFP4": 4.5 + 32 / 2048,
        "F16": 16,
        "I32": 32,
        "Q5_1": 6,
    }
    assert {name: look.bits for name, look in looks.items()} == bits
    assert {name: look.nbytes for name, look in looks.items()} == {k: 256 * bits[k] for k in kinds}
    assert looks["Q4_K"].format == "float32"
    assert looks["NVFP4"].format == "nvfp4"


def test_types_that_nothing_decodes_are_listed(tmp_path, monkeypatch):
    """The first one ended the command: nothing was said of the others."""
    gguf = pytest.importorskip("gguf")

    def none(*_):
        raise NotImplementedError

    monkeypatch.setattr(gguf.quants, "dequantize", none)
    path = gguf_file(tmp_path / "a.gguf", ["Q4_K", "Q8_0", "Q6_K"])
    looks = {one.name: one for one in inspect(path)}
    assert (looks["Q4_K"].bits, looks["Q4_K"].shape, looks["Q4_K"].format) == (4.5, (4, 512), "not decoded")
    assert looks["Q4_K"].odd == ("the gguf package does not decode Q4_K",)
    assert looks["Q8_0"].format.startswith("int8")
    assert "the gguf package does not decode Q6_K: Q6_K" in run("inspect", path).output


def test_what_is_odd_of_many_is_said_once(tmp_path):
    path = tmp_path / "a.safetensors"
    nx.save({f"w{k}": np.zeros((2, 2), np.float32) for k in range(9)}, path)
    assert (
        run("inspect", path).output.splitlines()[-1]
        == f"all values are zero: {', '.join(f'w{k}' for k in range(9))}"
    )


def test_weights_of_other_tools_have_the_bytes_of_the_file(tmp_path):
    blocks, scales = np.full((2, 1, 16), 0x22, np.uint8), np.full((2, 1), 128, np.uint8)
    save_file({"w_blocks": blocks, "w_scales": scales}, tmp_path / "a.safetensors")
    (look,) = inspect(tmp_path / "a.safetensors")
    assert (look.stored, look.format, look.nbytes, look.bits) == ("MXFP4 of gpt-oss", "mxfp4", 34, 4.25)


def test_records_of_a_wrapped_models_state_say_of_what_they_are(tmp_path):
    """Each was a line: uint8, 43 values."""
    torch = pytest.importorskip("torch")
    model = nx.wrap(torch.nn.Sequential(torch.nn.Linear(64, 32)), "int4", activations="int8",
                    observer="min_max", example=torch.ones(2, 64))  # fmt: skip
    nx.calibrate(model, [torch.randn(4, 64)])
    state = {**model.state_dict(), "other._extra_state": torch.tensor([1, 2], dtype=torch.uint8)}
    nx.save(state, tmp_path / "a.safetensors")
    looks = {look.name: look for look in inspect(tmp_path / "a.safetensors")}
    (record,) = (look for look in looks.values() if look.record)
    assert record.name.endswith("quantize_linear_0._extra_state")
    assert record.record == "int8"
    assert looks["other._extra_state"].format == "uint8"


def test_equal_values_that_are_stored_otherwise_were_counted_as_differing(tmp_path):
    x = np.float32(RNG.integers(-7, 8, (4, 64)))
    x[:, 0] = 7  # every scale is 1
    q = nx.quantize(x, "int4", scheme="per_group(64)", scale_type="float16")
    zero = nx.QTensor.from_parts("mxfp4", np.zeros((2, 32), np.uint8), np.full((2, 1), 127, np.uint8))
    minus = nx.QTensor.from_parts("mxfp4", np.full((2, 32), 8, np.uint8), np.full((2, 1), 128, np.uint8))
    other = nx.quantize(x, "int4", scheme="per_group(64)", scale_type="bfloat16")
    nx.save({"a": q, "b": q, "z": zero, "w": x}, tmp_path / "a.safetensors")
    nx.save({"a": x, "b": other, "z": minus, "w": x}, tmp_path / "b.safetensors")
    found = compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    a, b, w, z = sorted(found.tensors, key=lambda one: one.name)
    assert [one.values for one in (a, b, w, z)] == [0, 0, 0, 0]
    assert [one.same for one in (a, b, w, z)] == [False, False, True, False]
    assert "scale_type=float16" in b.stored
    assert "scale_type=bfloat16" in b.stored
    assert (z.codes, z.scales, z.stored) == (64, 2, "other codes, other scales")
    assert (found.same, found.equal) == (False, True)
    came = run("compare", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert came.return_value == 1
    assert "equal values, stored otherwise (other codes, other scales): z" in came.output
    assert came.output.splitlines()[-1] == (
        "4 tensors in both, 0 differ, 3 with equal values that are stored otherwise"
    )
    assert "values differ" not in came.output


def test_a_narrow_terminal_gets_the_largest_magnitude_of_a_folder_too(tmp_path):
    name = "model.layers.{}.self_attn.{}_proj.weight"
    q = nx.quantize(RNG.standard_normal((64, 64)).astype(np.float32), "int4", scheme="per_group(32)")
    nx.save({name.format(i, k): q for i in range(12) for k in "qkvo"}, tmp_path / "m.safetensors")
    looks = list(inspect(tmp_path / "m.safetensors"))
    table = cli_checkpoints._looks(looks, 72, False)
    assert "amax" in table.spared(Screen(72))
    numbered, legend = table.numbered_to_fit(Screen(72), "format")
    assert "amax" not in numbered.spared(Screen(72))
    assert legend == ["format 1: int4 per_group(32)"]


@pytest.mark.parametrize(
    ("width", "stay", "spared", "whole"),
    [
        (None, ["long", "middle", "short"], [], True),
        (60, ["short"], ["amax", "scales"], False),
        (80, ["short"], ["scales"], True),
        (120, ["short", "middle"], [], True),
        (140, ["short", "middle"], [], True),
        (160, ["long", "middle", "short"], [], True),
    ],
)
def test_a_terminal_with_room_got_numbers_for_formats_and_names_without_their_middle(
    tmp_path, width, stay, spared, whole
):
    """Where a column had no room, every format became a number; where all had, names were cut for formats."""
    formats = {"long": ("int4", {"scheme": "per_group(32)", "symmetric": False, "scale_type": "bfloat16"}),
               "middle": ("int8", {"scheme": "per_group(32)"}), "short": ("mxfp4", {})}  # fmt: skip
    x = np.ones((4, 64), np.float32)
    tensors = {f"model.layers.0.self_attention.{name}.weight": nx.quantize(x, d, **options)
               for name, (d, options) in formats.items()}  # fmt: skip
    nx.save(tensors, tmp_path / "m.safetensors")
    looks, screen = list(inspect(tmp_path / "m.safetensors")), Screen(width)
    table, legend = cli_checkpoints._looks(looks, width, False).numbered_to_fit(screen, "format")
    assert {row[0].split(".")[4] for row in table.rows if not row[2].isdigit()} == set(stay)
    assert len(legend) == 3 - len(stay)
    assert table.spared(screen) == spared
    assert all(any(name in line for line in table.lines(screen)) for name in tensors) == whole


@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "bfloat16"])
def test_a_zero_of_the_other_sign_and_another_nan_were_the_same(kind, tmp_path):
    x = np.array([[0.0, 1.0], [np.nan, 2.0]]).astype(kind)
    other = x.copy()
    other[0, 0] = -0.0
    words = other.view(f"u{other.itemsize}")
    words[1, 0] += 1  # of the payload
    for name, made in (("a", x), ("b", other)):
        nx.save({"w": made, "same": x}, tmp_path / f"{name}.safetensors")
    found = compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    same, w = sorted(found.tensors, key=lambda one: one.name)
    assert same.same
    assert (w.equal, w.same, w.bits, w.stored) == (True, False, 2, "other bits of 0 or NaN")
    came = run("compare", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert came.return_value == 1
    assert "equal values, stored otherwise (other bits of 0 or NaN): w" in came.output


def test_complex_numbers_differed_from_themselves(tmp_path):
    """They were not compared, and that was counted as a difference."""
    x = torch.tensor([1 + 2j, 0 - 3j])
    made = {"a": x, "b": torch.tensor([1 + 2j, 0 - 4j]), "c": x.clone(), "r": x.real.clone()}
    made["c"][1] = torch.complex(torch.tensor(-0.0), torch.tensor(-3.0))
    for name, one in made.items():
        torch.save({"w": one}, tmp_path / f"{name}.pth")
    found = {name: compare(tmp_path / "a.pth", tmp_path / f"{name}.pth").tensors[0] for name in made}
    assert found["a"].same
    assert (found["b"].values, found["b"].first) == (1, ((1, 1), -3.0, -4.0))
    assert (found["c"].equal, found["c"].bits) == (True, 1)
    assert found["r"].why == "of complex and real numbers"


@pytest.mark.parametrize("kind", [np.float32, np.complex64, np.int8])
def test_tensors_without_numbers_could_not_be_compared(kind, tmp_path):
    for name in ("a", "b"):
        nx.save({"x": np.zeros((0, 4), kind)}, tmp_path / f"{name}.safetensors")
    assert compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors").same


def test_weights_that_come_back_in_another_type_were_the_same(tmp_path):
    x = RNG.standard_normal((4, 64)).astype(np.float32)
    wide = nx.quantize(x, "int8", scheme="per_channel(0)")
    narrow = nx.QTensor.from_parts(wide.spec, wide.codes, wide.scale, original="bfloat16")
    nx.save({"w": wide}, tmp_path / "a.safetensors")
    nx.save({"w": narrow}, tmp_path / "b.safetensors")
    (found,) = compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors").tensors
    assert (found.equal, found.same, found.stored) == (True, False, "values of float32 and bfloat16")
