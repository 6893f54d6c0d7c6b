"""The notebook of experiments/: it runs from top to bottom, and shows a real run."""

import ast
import importlib.util
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "experiments" / "notebook"
SPEC = importlib.util.spec_from_file_location("notebook_run", FOLDER / "run.py")
module = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(module)


@pytest.fixture
def notebook():
    return json.loads(module.NOTEBOOK.read_text())


def test_every_cell_was_run_in_order(notebook):
    cells = module.code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    kinds = {out["output_type"] for cell in cells for out in cell["outputs"]}
    assert kinds == {"stream", "display_data"}
    pictures = [
        out["data"]["image/svg+xml"]
        for cell in cells
        for out in cell["outputs"]
        if "data" in out
    ]
    assert len(pictures) == 1
    assert "".join(pictures[0]).count("<circle") >= 4
    for cell in cells:
        ast.parse("".join(cell["source"]))


def test_a_cell_shows_what_it_prints_and_its_last_value():
    names = {}
    said, value = module.run_cell("x = 2\nprint('so')\nx + 1", names)
    assert said["text"] == ["so\n"]
    assert value["data"] == {"text/plain": ["3"]}
    assert names["x"] == 2
    assert module.run_cell("y = x", names) == []


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(notebook, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = module.run(notebook)
    assert len(names["found"]) >= 4
    assert len(names["front"]) >= 1
    best = min(wrong for wrong, *_ in names["found"].values())
    assert 0 < 1 - best < 1
    assert names["done"].tokens.shape[0] == len(names["prompts"])
