"""The notebooks of the documentation run from top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))


def test_there_are_three_of_them():
    assert len(NOTEBOOKS) == 3


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_it_makes(path):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    import nbformat

    made = nbformat.read(path, as_version=4)
    assert not [cell for cell in made.cells if cell.get("outputs")], "outputs are not kept in the repository"
    nbclient.NotebookClient(made, timeout=120, kernel_name="python3").execute()
    last = [cell for cell in made.cells if cell.cell_type == "code"][-1]
    assert any("text/html" in output.get("data", {}) for output in last.outputs)
