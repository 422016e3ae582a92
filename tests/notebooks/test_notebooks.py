"""Every notebook runs from top to bottom on the embedded model, and is committed with its pictures."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from tests.notebooks.running import MAX_BYTES, NOTEBOOKS, run_notebooks

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))


QUICK = [path for path in PATHS if path.stem in ("01_quickstart", "04_publishing_a_dataset")]


def pictures_of(notebook: NotebookNode) -> int:
    """Outputs that are pictures."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.thorough
def test_notebooks_run_small_from_top_to_bottom(tmp_path: Path) -> None:
    assert len(QUICK) == 2 and len(PATHS) == 4
    for notebook in run_notebooks(QUICK, tmp_path, is_tiny=True):
        assert pictures_of(notebook) >= 2
    assert (tmp_path / "quickstart-report" / "report.html").is_file()
    assert (tmp_path / "smoking-dataset" / "README.md").is_file()


@pytest.mark.slow
def test_longer_notebooks_run_small_from_top_to_bottom(tmp_path: Path) -> None:
    for notebook in run_notebooks([path for path in PATHS if path not in QUICK], tmp_path, is_tiny=True):
        assert pictures_of(notebook) >= 2


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebook_is_committed_whole_with_pictures_and_without_noise(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert pictures_of(notebook) >= 2
    assert {output.output_type for output in outputs} <= {"stream", "execute_result", "display_data"}
    assert not any(output.get("name") == "stderr" for output in outputs)
    assert path.stat().st_size <= MAX_BYTES
