"""Folders that are made for an output are gone after an error, and none that was there before."""

from __future__ import annotations

import os

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

import numerics as nx
from numerics.files.folders import made_folder
from numerics.model.folder import write_folder


def everything(room):
    return sorted(str(path.relative_to(room)) for path in room.rglob("*"))


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("there", [(), ("a",), ("a", "a/b"), ("a", "a/other"), ("a", "a/b", "a/b/c")])
def test_a_failed_save_left_the_parents_that_it_had_made(tmp_path, there):
    for folder in there:
        (tmp_path / folder).mkdir()
    no_type = torch.zeros(4, dtype=torch.complex32)
    with pytest.raises(nx.NumericsError):
        write_folder(tmp_path / "a" / "b" / "c", {"w": no_type}, {"config.json": "{}"})
    assert everything(tmp_path) == sorted(there)


def test_what_somebody_else_put_there_was_removed(tmp_path):
    def fails():
        with made_folder(tmp_path / "a" / "b"):
            (tmp_path / "a" / "note.txt").write_text("mine", encoding="utf-8")
            raise LookupError

    with pytest.raises(LookupError):
        fails()
    assert everything(tmp_path) == ["a", "a/note.txt"]


def test_parents_stayed_where_the_folder_itself_cannot_be_made(tmp_path):
    """The last of the names is too long for any file system."""
    with pytest.raises(nx.NumericsError, match="cannot write"):
        write_folder(tmp_path / "a" / "b" / ("x" * 300), {"w": torch.ones(2)}, {"config.json": "{}"})
    assert everything(tmp_path) == []
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(nx.NumericsError, match="cannot write"):
        write_folder(tmp_path / "file" / "b", {"w": torch.ones(2)}, {"config.json": "{}"})
    assert everything(tmp_path) == ["file"]


def test_a_folder_that_is_written_stays(tmp_path):
    write_folder(tmp_path / "a" / "b", {"w": torch.ones(2)}, {"config.json": "{}"})
    assert np.array_equal(nx.load(tmp_path / "a" / "b" / "model.safetensors")["w"], np.ones(2))
    assert os.listdir(tmp_path) == ["a"]
