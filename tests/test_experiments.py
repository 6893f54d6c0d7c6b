"""The scripts of experiments/, as files."""

import importlib.metadata
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "experiments"
LATER = {"compression"}  # of the standard library from Python 3.14 on; JAX asks for it


def test_no_script_hides_a_module():
    # Its folder comes first on the path of whoever runs it.
    taken = set(sys.stdlib_module_names) | LATER | {"arch", "jaxnas", "search"}
    taken |= set(importlib.metadata.packages_distributions())
    names = {path.stem for path in FOLDER.rglob("*.py")}
    folders = {path.parent.name for path in FOLDER.glob("*/*/*.py")}
    assert len(names) > 10
    assert not taken & (names | folders)
