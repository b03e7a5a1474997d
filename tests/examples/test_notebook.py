"""Test that runs the notebook with a small shop and a short training."""

import base64
import io
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

from tests.docs.documents import ROOT

NOTEBOOK = ROOT / "examples" / "shop_to_plot.ipynb"
SMALL = 'FOLDER, ITEMS, SHOPPERS, STEPS = Path("small"), 336, 600, 4'


def results(notebook: Any) -> dict[str, str]:
    """Return the last result of each media type that the cells show."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return {kind: value for output in outputs for kind, value in output.get("data", {}).items()}


def test_notebook_plots_one_item_under_three_relations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    [parameters] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    parameters.source += f"\n{SMALL}"
    NotebookClient(
        notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert (tmp_path / "small" / "index").is_dir()
    chosen = next(cell for cell in notebook.cells if cell.source.endswith("\nCHOSEN"))
    assert len(set(eval(results(nbformat.from_dict({"cells": [chosen]}))["text/plain"]))) == 3
    with Image.open(io.BytesIO(base64.b64decode(results(notebook)["image/png"]))) as plot:
        assert plot.width > 800
        assert len(plot.convert("RGB").getcolors(2**24) or ()) > 1000  # pictures, not empty axes


def test_notebook_is_committed_without_output() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert [cell.id for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")] == []
