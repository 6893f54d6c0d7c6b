"""What the README shows is what happens."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYTHON = (ROOT / "docs" / "python.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README + PYTHON, re.DOTALL)


@pytest.mark.parametrize(
    "code",
    [
        # The first ones are whole runs.
        pytest.param(
            code, id=f"example-{number}", marks=[pytest.mark.slow] * (number <= 2)
        )
        for number, code in enumerate(EXAMPLES, 1)
    ],
)
def test_example_runs(code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    if "print(" in code:
        assert done.stdout.strip()


def test_the_readme_has_its_examples():
    assert len(EXAMPLES) == 4
    assert sum("jaxnas." in code for code in EXAMPLES) == 2
    assert len(README.splitlines()) < 150


def test_ci_runs_the_second_command():
    commands = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("-m jaxnas.run")
    assert "pytest" in commands[1]
    assert "grep -m 2 '^python3 -m venv' README.md" in (ROOT / ".ci/run").read_text()


def test_documents_point_to_files_that_exist():
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!http)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document}: {target}"
