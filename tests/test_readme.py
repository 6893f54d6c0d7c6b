"""What the README and the docs show is what happens."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from arch import ArchitectureConfig, build_model
from arch.initial import draw_parameters
from jaxnas.data import train_tokenizer
from jaxnas.export import export_folder
from jaxnas.export.model_folder import save_model

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXPERIMENTS = sorted((ROOT / "experiments").rglob("*.md"))
EXAMPLES = [
    (f"{path.stem}-{number}", code)
    for path in DOCUMENTS
    for number, code in enumerate(BLOCK.findall(path.read_text()), 1)
]
# What trains, compiles much or reads a whole corpus.
SLOW = (
    "README-1",
    "python-1",
    "python-4",
    "runs-1",
    "data-1",
    "generation-1",
    "export-1",
)
MODEL = "runs/search-001/model"
TINY_SPACE = """
[genes]
arch_type = "transformer"
num_layers = 1
hidden_dim = [32, 48]
"""


def save_untrained(folder):
    """A model of two narrow layers that transformers has a class for."""
    config = ArchitectureConfig(
        arch_type="transformer",
        num_layers=2,
        hidden_dim=32,
        num_heads=2,
        ffn_multiplier=2.0,
        normalization="rmsnorm",
        activation="swiglu",
        position_encoding="rope",
        vocab_size=257,
        max_seq_length=256,
    )
    params = draw_parameters(build_model(config), jax.random.key(0))
    save_model(folder, config, params, train_tokenizer(["def f(x):\n"], 257))


def put_there(code, folder):
    """What an example names that a reader has by then."""
    if MODEL in code or '"exported"' in code:
        save_untrained(folder / MODEL)
    if '"exported"' in code:
        pytest.importorskip("torch")
        pytest.importorskip("transformers")
        export_folder(folder / MODEL, folder / "exported")
    if "import wandb" in code:
        pytest.importorskip("wandb")
    (folder / "tiny.toml").write_text(TINY_SPACE)


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(code, id=name, marks=[pytest.mark.slow] * (name in SLOW))
        for name, code in EXAMPLES
    ],
)
def test_example_runs(code, tmp_path):
    put_there(code, tmp_path)
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "120", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    if "print(" in code:
        assert done.stdout.strip()


def test_the_documents_have_their_examples():
    names = {name for name, _ in EXAMPLES}
    assert names >= {*SLOW, "python-5", "costs-1", "fitness-1"}
    assert sum("jaxnas." in code for _, code in EXAMPLES) >= 4
    assert len(README.splitlines()) < 150


def test_ci_runs_the_second_command():
    commands = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("-m jaxnas.run")
    assert "pytest" in commands[1]
    assert "grep -m 2 '^python3 -m venv' README.md" in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize(
    "document",
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *EXPERIMENTS],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_document_points_to_what_is_there(document):
    text = document.read_text()
    for target, anchor in re.findall(r"\]\((?!http)([^)#\s]*)(#[^)]*)?\)", text):
        path = document.parent / target if target else document
        assert path.exists(), f"{document}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", one).lower() for one in headings]
            assert anchor[1:] in [one.replace(" ", "-") for one in slugs]
