"""AMD's table of operators, as a fact: its size, and rows read by eye."""

from __future__ import annotations

import pytest

from numerics.model.ipu.documented import DOCUMENTED, lists


def test_the_table_has_the_rows_of_the_document():
    assert len(DOCUMENTED) == 99


@pytest.mark.parametrize(
    ("operator", "configs"),
    [
        ("ConvTranspose", {"bf16", "a16w8", "a8w8"}),
        ("LayerNormalization", {"xint8"}),
        ("Tanh", {"bf16", "a16w8", "xint8"}),
        ("Resize", {"bf16", "a8w8", "xint8"}),
        ("PRelu", set()),
        ("HardSigmoid", {"a8w8", "xint8"}),
    ],
)
def test_a_row_is_that_of_the_document(operator, configs):
    assert {name for name in ("bf16", "a16w8", "a8w8", "xint8") if lists(operator, name)} == configs
