"""Pieces of tensors: together they are the tensor, in the order of its codes, and joined they still are."""

from __future__ import annotations

import numpy as np
import pytest

import numerics as nx
from numerics.checkpoints import Request, quantize
from numerics.checkpoints.job import Options
from numerics.files import stream
from numerics.files.chunks import Cut, joined, size

CUTS = [
    (Cut((64, 96), (0, 1), 4, 1, 32), 128), (Cut((5, 7, 32), (0, 1, 2), 8), 40),
    (Cut((16, 6, 8), (1, 2, 0), 8, 0, 16), 32), (Cut((1, 4096), (0, 1), 4, 1, 32), 96),
    (Cut((64, 3), (0, 1), 8, 0, 16), 60), (Cut((), (), 8), 4),
]  # fmt: skip


@pytest.mark.parametrize(("cut", "part"), CUTS)
@pytest.mark.parametrize("every", [1, 3, 16])
def test_joined_pieces_are_the_tensor_in_the_order_of_its_codes(cut, part, every):
    x = np.arange(max(int(np.prod(cut.shape)), 1)).reshape(cut.shape)

    def stored(pieces):
        return np.concatenate([x[piece].transpose(cut.order).reshape(-1) for piece in pieces])

    pieces, most = list(cut.pieces(part)), 3 * part
    made = list(joined(enumerate(pieces), every, most))
    assert stored(piece for _, piece in made).tolist() == stored(pieces).tolist()
    assert [piece for number, piece in made if number % every == 0] == pieces[::every]
    assert all(size(piece) <= max(most, size(pieces[0])) for _, piece in made)
    assert every == 1 or len(pieces) < 4 or len(made) < len(pieces)


def test_sampled_errors_cost_more_parts_than_all_of_them(tmp_path, monkeypatch):
    """A part had 2^18 values, measured or not, where others have up to 2^20: sampled took longer than all."""
    nx.save({"w": np.ones((1 << 11, 1 << 12), np.float32)}, tmp_path / "a.safetensors")
    counts, encoding = {}, stream._Encoding.__call__

    def counted(self, place):
        counts[kind] = counts.get(kind, 0) + 1
        return encoding(self, place)

    monkeypatch.setattr(stream._Encoding, "__call__", counted)
    for kind in ("all", "sampled", "none"):
        asked = Request(nx.QuantSpec("mxfp4")), Options(errors=kind)
        quantize(tmp_path / "a.safetensors", tmp_path / "b.safetensors", *asked)
    assert counts["none"] <= counts["all"] <= 17
    assert counts["sampled"] <= counts["none"] * 5 // 4 + 2
