"""Runs the notebook's cells in one process, and keeps what they show.

    python experiments/notebook/run.py            # writes the outputs into the notebook
    python experiments/notebook/run.py --check    # runs and writes nothing

No Jupyter is needed: a cell shows what it prints, and its last expression, as SVG or
as text.
"""

import argparse
import ast
import contextlib
import io
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).with_name("tiny_search.ipynb")


def code_cells(notebook: dict) -> list[dict]:
    """The cells that are run, in order."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run_cell(source: str, names: dict[str, Any]) -> list[dict]:
    """Runs a cell among these names, and returns its outputs as notebooks keep them."""
    tree, said, last = ast.parse(source), io.StringIO(), None
    final = (
        tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    )
    with contextlib.redirect_stdout(said):
        exec(compile(tree, "<cell>", "exec"), names)
        if final is not None:
            last = eval(compile(ast.Expression(final.value), "<cell>", "eval"), names)
    outputs: list[dict] = []
    if text := said.getvalue():
        lines = text.splitlines(keepends=True)
        outputs.append({"name": "stdout", "output_type": "stream", "text": lines})
    if last is not None:
        data: dict[str, Any] = {"text/plain": repr(last).splitlines(keepends=True)}
        if hasattr(last, "_repr_svg_"):
            svg = last._repr_svg_().splitlines(keepends=True)
            data = {"image/svg+xml": svg, "text/plain": ["a picture"]}
        outputs.append({"data": data, "metadata": {}, "output_type": "display_data"})
    return outputs


def run(notebook: dict, say=print) -> dict[str, Any]:
    """Runs all cells in a folder of their own; returns the names that they left.

    The outputs are kept in the notebook given.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for number, cell in enumerate(code_cells(notebook), 1):
                began = time.monotonic()
                cell["outputs"] = run_cell("".join(cell["source"]), names)
                cell["execution_count"] = number
                say(f"cell {number}: {time.monotonic() - began:.1f} s")
        finally:
            os.chdir(before)
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    given = parser.parse_args()
    notebook = json.loads(NOTEBOOK.read_text())
    run(notebook)
    if not given.check:
        NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
