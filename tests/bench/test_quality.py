"""What formats cost models: their order, and rows that a stopped run keeps."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

pytest.importorskip("torch")
import torch

from bench.quality import FORMATS, LEFT_OUT, MODES, due, measured, names, read, write
from numerics.formats.errors import NumericsError
from numerics.formats.registry import dtypes
from tests.helpers.pretrained import task_of
from tests.helpers.quality_rows import row

BEST_FIRST = ("bfloat16", "mx9", "mxfp8_e4m3", "mx6", "mxfp4", "mx4")


@pytest.fixture(scope="module")
def encoder():
    asked = task_of("MiniLM", 4)
    return asked, asked.run(asked.model)


@pytest.mark.turns
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
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(row(mode="W+A")))[:50])
    assert read(path) == [row()]
    write(path, row(mode="W+A"))
    assert read(path) == [row(), row(mode="W+A")]


def test_a_line_that_is_no_row_is_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"model": "crepe-tiny"}\n', encoding="utf-8")
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
