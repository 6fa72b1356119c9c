"""`numerics ipu quantize` from a file to a file."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("click")

import onnx
from click.testing import CliRunner

from numerics.cli import commands
from numerics.cli.words import in_options
from numerics.formats import NumericsError
from numerics.view.screen import Screen
from tests.helpers.onnx_models import items, model, node, residual


@pytest.fixture
def folder(tmp_path):
    onnx.save(residual(), tmp_path / "in.onnx")
    np.savez(tmp_path / "data.npz", **items())
    return tmp_path


def asked(folder, *words):
    return CliRunner().invoke(
        commands, ["ipu", "quantize", f"{folder}/in.onnx", f"{folder}/out.onnx", *words]
    )


def test_a_model_is_quantized_with_a_table(folder):
    found = asked(folder, "--data", f"{folder}/data.npz")
    assert found.exit_code == 0, found.output
    assert found.output.splitlines()[0].split() == ["node", "operator", "step", "what", "why"]
    assert found.output.splitlines()[-1].endswith("xint8 for stx")
    assert onnx.load(folder / "out.onnx").metadata_props[0].value == "xint8"


def test_options_reach_the_configuration(folder):
    words = [
        "--data",
        f"{folder}/data.npz",
        "--observer",
        "min_max",
        "--bias",
        "int8",
        "--keep",
        "y",
        "--json",
    ]
    found = asked(folder, *words, "--device", "phx")
    assert found.exit_code == 0, found.output
    told = json.loads(found.output)
    assert (told["config"], told["device"]) == ("xint8", "phx")
    assert [row["why"] for row in told["rows"] if row["step"] == "keep"] == ["keep= names it"]
    assert {row["what"].split(",")[0] for row in told["rows"] if row["step"] == "bias"} == {"int8"}


def test_what_keep_names_is_there(folder):
    """A name that nothing has was taken without a word."""
    wrong = asked(folder, "--data", f"{folder}/data.npz", "--keep", "conv")
    assert (
        "keep= names 'conv', which is neither a node nor an operator of this model; did you mean 'Conv'?"
        in str(wrong.exception)
    )


def test_an_open_shape_is_given_by_its_name(folder):
    found = model(
        [node("Conv", "x w", "y")], {"x": ("n", 3, 6, 6)}, {"y": None}, {"w": np.ones((1, 3, 1, 1), "f")}
    )
    onnx.save(found, folder / "in.onnx")
    assert "--shape x=1,..." in str(asked(folder, "--data", f"{folder}/data.npz").exception)
    wrong = asked(folder, "--data", f"{folder}/data.npz", "--shape", "x=a")
    assert "allowed: NAME=1,3,224,224" in str(wrong.exception)
    assert asked(folder, "--data", f"{folder}/data.npz", "--shape", "x=4,3,6,6").exit_code == 0


@pytest.mark.parametrize("interrupted", [True, False])
def test_what_goes_wrong_leaves_nothing_half_written(folder, interrupted, monkeypatch):
    from numerics.observe import Observer

    if interrupted:

        def stop(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(Observer, "observe", stop)
    found = asked(folder, *(["--data", f"{folder}/data.npz"] if interrupted else []))
    assert found.exit_code != 0
    assert sorted(p.name for p in folder.iterdir()) == ["data.npz", "in.onnx"]


@pytest.mark.parametrize("kind", ["safetensors", "objects", "text"])
def test_data_of_another_kind_is_refused_without_numpys_advice_to_unpickle(folder, kind):
    from safetensors.numpy import save_file

    if kind == "safetensors":
        save_file({"x": np.zeros(3, np.float32)}, folder / "d.npz")
    elif kind == "objects":
        np.savez(folder / "d.npz", x=np.array([None, {}], object))
    else:
        (folder / "d.npz").write_bytes(b"numbers")
    found = asked(folder, "--data", f"{folder}/d.npz")
    assert "an .npz file is needed" in str(found.exception)
    assert "pickle" not in str(found.exception)


def test_the_file_of_a_models_data_was_overwritten_by_the_output(folder):
    onnx.save(
        residual(), folder / "in.onnx", save_as_external_data=True, location="in.data", size_threshold=0
    )
    before = (folder / "in.data").read_bytes()
    found = CliRunner().invoke(
        commands,
        ["ipu", "quantize", f"{folder}/in.onnx", f"{folder}/in.data", "--data", f"{folder}/data.npz"],
    )
    assert "is the input; name another file" in str(found.exception)
    assert (folder / "in.data").read_bytes() == before


def test_a_size_that_no_integer_of_a_file_holds_is_refused(folder):
    found = asked(folder, "--data", f"{folder}/data.npz", "--shape", "x=99999999999999999999,3,6,6")
    assert "of input 'x'; allowed: integers above 0" in str(found.exception)


@pytest.mark.parametrize(("d", "on_the_cpu"), [("mxfp4", True), ("mx6", True), ("int8", False)])
def test_what_the_profile_npu_leaves_to_the_host_is_said(tmp_path, d, on_the_cpu):
    """Blocks are no types of the NPU, and nothing said so."""
    found = CliRunner().invoke(commands, ["ipu", "export", d, f"{tmp_path}/o.onnx", "--profile", "npu"])
    assert found.exit_code == 0
    assert ("not a type of the NPU, runs on the host's CPU" in found.output) == on_the_cpu


def test_a_terminal_shows_the_totals_first_and_all_rows_where_they_are_asked_for(folder, monkeypatch):
    """Records of five lines a row filled ten screens."""
    screens = {}
    for words in ([], ["--all"]):
        monkeypatch.setattr("numerics.cli.ipu.Screen.of", lambda _: Screen(80))
        found = asked(folder, "--data", f"{folder}/data.npz", *words)
        assert found.exit_code == 0, found.output
        screens[bool(words)] = found.output.splitlines()
        assert all(len(line) <= 80 for line in screens[bool(words)][:-1])  # the last has the path
        assert screens[bool(words)][0].startswith("xint8 for stx: 11 nodes are integer; none stays in float")
    assert "  3 nodes  int32, at activation x weight; it is added to the accumulator" in screens[False]
    assert "           c{1-2}, y" in screens[False]
    assert not any("c{1-2}" in line for line in screens[True])
    assert len(screens[False]) < 40


def test_json_has_every_row_and_the_totals_quiet_or_not(folder):
    words = ["--data", f"{folder}/data.npz", "--json"]
    found = [json.loads(asked(folder, *words, *more).output) for more in ([], ["--quiet"])]
    assert found[0] == found[1]
    assert found[0]["totals"]["quantized"] == 11


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--keep", "/nope"], "--keep names '/nope', which is neither a node nor an operator of this model"),
        (["--keep", "LayerNormalization"], "neither a node nor an operator"),
        (["--keep", "n1"], "BatchNormalization 'n1' taken into Conv 'c1'"),
        (["--config", "bf16", "--observer", "kl"], "is about scales, which bfloat16 has none of"),
        (["--config", "bf16", "--observer", "min_max"], "is about scales"),
        (["--config", "bf16", "--data", "none.npz"], "cannot read none.npz: No such file or directory"),
        (["--config", "bf16", "--device", "phx"], "allowed for it: xint8, a8w8, a16w8"),
        (["--shape", "x=2,3,6,6", "--shape", "x=4,3,6,6"], "--shape names x twice"),
    ],
)
def test_what_is_asked_for_and_would_do_nothing_is_refused(folder, words, said, monkeypatch):
    data = [] if "bf16" in words else ["--data", f"{folder}/data.npz"]
    words = ["ipu", "quantize", f"{folder}/in.onnx", f"{folder}/out.onnx", *data, *words]
    monkeypatch.setattr(sys, "argv", ["numerics", *words])
    with pytest.raises(NumericsError) as wrong:
        commands.main(words, standalone_mode=False)
    assert said in in_options(str(wrong.value), commands, words)
    assert not (folder / "out.onnx").exists()


def test_calibration_that_bf16_does_not_use_is_said(folder):
    found = asked(folder, "--config", "bf16", "--data", f"{folder}/data.npz")
    assert found.exit_code == 0, found.output
    assert "8 batches of calibration not used" in found.output
