"""The scripts of experiments/, as files."""

import gzip
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

from jaxnas.config import make_config, read_toml

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


def test_functions_of_one_file_become_one_file(tmp_path):
    script = FOLDER / "code-medium" / "unpack.py"
    part = tmp_path / "jsonl" / "train" / "python_train_0.jsonl.gz"
    part.parent.mkdir(parents=True)
    rows = [
        {"repo": "a/b", "path": "x.py", "original_string": "def f():\n    return 1"},
        {"repo": "a/b", "path": "../../y.py", "original_string": "def g(): pass"},
        {"repo": "a/b", "path": "x.py", "original_string": "def h():\n    return 2"},
    ]
    part.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    command = [sys.executable, str(script), str(tmp_path / "jsonl"), "out"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "2 files in out\n", done.stderr
    texts = {path.read_text() for path in (tmp_path / "out").rglob("*.py")}
    assert texts == {
        "def f():\n    return 1\n\n\ndef h():\n    return 2\n",
        "def g(): pass\n",
    }
    outside = [path for path in tmp_path.rglob("*.py") if "out" not in path.parts]
    assert outside == []


def test_the_configs_of_experiments_are_settings():
    files = sorted(FOLDER.rglob("config.toml"))
    assert files
    for file in files:
        config = make_config(read_toml(file), str(file))
        assert config.population * config.generations >= 1000
    small = FOLDER / "code-medium" / "small.toml"
    assert make_config(read_toml(small), str(small)).data.startswith("pypi:")
