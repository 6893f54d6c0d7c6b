"""The docs as a site: every page in its place, no dead link inside."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import arch
import jaxnas
import search
from jaxnas.commands import COMMANDS

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(
    importlib.util.find_spec("material") is None,
    reason="no mkdocs-material here: pip install 'jaxnas[docs]'",
)
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir"]
    done = subprocess.run(
        [*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "experiments" / "index.html").exists()
    commands = (tmp_path / "commands.html").read_text()
    assert all(f'<h2 id="{name}">' in commands for name in COMMANDS)
    names = (tmp_path / "api.html").read_text()
    for package in (jaxnas, arch, search):
        assert all(
            f"<code>{package.__name__}.{name}</code>" in names
            for name in package.__all__
        )
