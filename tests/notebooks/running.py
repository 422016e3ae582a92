"""Run the notebooks: small for the tests, or at the size that is shown, written back with their pictures.

    python -m tests.notebooks.running [NAME ...]     # notebooks/NAME*.ipynb; outputs are written into them
"""

from __future__ import annotations

import base64
import io
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SIZE_VARIABLE = "HFI_NOTEBOOK_SIZE"
CELL_TIMEOUT_SECONDS = 3600
MAX_BYTES = 600_000
# What a notebook on the web needs; the rest of an output is dropped.
KEPT_FORMATS = ("image/png", "text/markdown", "text/html", "text/plain")


def run_notebooks(paths: Sequence[Path], folder: Path, *, is_tiny: bool) -> Iterator[NotebookNode]:
    """Execute notebooks from top to bottom in one kernel, its names forgotten in between; torch is loaded once.

    Yields:
        Each notebook with its outputs, as soon as it is done.

    Args:
        paths: notebooks.
        folder: where they run and leave their files.
        is_tiny: at the size of the tests.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    forget = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("%reset -f")])
    environment = os.environ | {SIZE_VARIABLE: "tiny" if is_tiny else "full", "PYTHONWARNINGS": "ignore"}
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(forget, timeout=CELL_TIMEOUT_SECONDS, kernel_name="python3", resources=resources)
    with client.setup_kernel(env=environment):
        for path in paths:
            notebook = nbformat.read(path, as_version=4)
            for part in (forget, notebook):
                _run(client, part)
            yield notebook


def _run(client: NotebookClient, notebook: NotebookNode) -> None:
    client.nb = notebook
    client.reset_execution_trackers()
    number = 0
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            number += 1
            client.execute_cell(cell, index, execution_count=number)


def tidy_(notebook: NotebookNode) -> None:
    """Leave of each output what is looked at, and nothing that differs from run to run without need."""
    number = 0
    for cell in notebook.cells:
        cell.metadata.clear()
        if cell.cell_type != "code":
            continue
        number += 1
        cell.execution_count = number
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            if "data" in output:
                output.data = {name: output.data[name] for name in KEPT_FORMATS if name in output.data}
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = with_palette(output.data["image/png"])
            if output.output_type == "execute_result":
                output.execution_count = number
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}


def with_palette(png_base64: str) -> str:
    """A picture of 256 colours: a third of the bytes, and hardly another look."""
    with Image.open(io.BytesIO(base64.b64decode(png_base64))) as picture:
        few = picture.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG)
    stream = io.BytesIO()
    few.save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def main(names: Sequence[str]) -> None:
    """Execute notebooks at the size that is shown, and write them back."""
    paths = [p for p in sorted(NOTEBOOKS.glob("*.ipynb")) if not names or any(p.name.startswith(n) for n in names)]
    with tempfile.TemporaryDirectory() as folder:
        for path, notebook in zip(paths, run_notebooks(paths, Path(folder), is_tiny=False), strict=True):
            tidy_(notebook)
            nbformat.write(notebook, path)
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
