"""What is built holds all that an installation needs, and nothing else."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("jaxnas", "arch", "search")
BESIDE = {"tests", "docs"}  # folders of the source archive
FILES = {
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "PKG-INFO",
    "README.md",
    "SECURITY.md",
    "noxfile.py",
    "pyproject.toml",
    ".gitignore",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the source archive."""
    pytest.importorskip("hatchling", reason="pip install 'jaxnas[dev]'")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel], [archive] = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, archive


def of_the_packages():
    """Files in git of the three packages."""
    listed = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("no git here")
    return set(listed.stdout.split())


def test_the_wheel_holds_the_packages_and_nothing_else(built):
    wheel, _ = built
    assert wheel.name.endswith("-py3-none-any.whl")  # no compiler
    names = set(zipfile.ZipFile(wheel).namelist())
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside == of_the_packages()
    assert {"jaxnas/py.typed", "jaxnas/population/rates.json"} <= inside
    assert {"jaxnas/population/train_memory.json"} <= inside
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_source_archive_holds_what_is_named_and_nothing_else(built):
    _, archive = built
    with tarfile.open(archive) as tar:
        paths = [Path(*Path(name).parts[1:]) for name in tar.getnames()]
    tops = {path.parts[0] for path in paths}
    assert tops == {*PACKAGES, *BESIDE} | FILES
    inside = {path.as_posix() for path in paths if path.parts[0] in PACKAGES}
    assert inside == of_the_packages()
    assert not [path for path in paths if "__pycache__" in path.parts]


@pytest.mark.slow
def test_the_wheel_is_enough(built, tmp_path):
    wheel, _ = built
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path)], check=True)
    python = next(tmp_path.glob("bin/python"))
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(install, check=True, cwd=tmp_path)
    show = "import jaxnas, jaxnas.commands; print(jaxnas.__version__, jaxnas.__file__)"
    said = subprocess.run(
        [python, "-I", "-c", show], capture_output=True, text=True, check=True
    ).stdout.split()
    assert said[0] == wheel.name.split("-")[1]
    assert Path(said[1]).is_relative_to(tmp_path)
