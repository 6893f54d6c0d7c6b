"""Source code in wheels: pinned, read in place, kept."""

import subprocess
import zipfile

import pytest

import jaxnas.data.wheels as module
from jaxnas.data import DataError, read_source

FILES = {
    "pkg/__init__.py": b"import os\n",
    "pkg/empty.py": b"",
    "pkg/table.csv": b"1,2\n",
    "pkg-1.0.dist-info/METADATA": b"License-Expression: MIT\n\nLicense: no\n",
    "../escape.py": b"print('outside')\n",
    "pkg/core.c": b"int main() { return 0; }\n",
    "pkg/large.py": b"x = 1\n" * 200_000,
}


@pytest.fixture
def pip(monkeypatch, tmp_path):
    """A pip that makes a wheel, and the commands it was given."""
    monkeypatch.setenv("JAXNAS_CACHE", str(tmp_path / "cache"))
    commands = []

    def run(command, **_):
        commands.append(command)
        folder = command[command.index("--dest") + 1]
        name, version = command[-1].split("==")
        if name == "none":
            error = "ERROR: No matching distribution found for none==1"
            return subprocess.CompletedProcess(command, 1, "", error)
        with zipfile.ZipFile(f"{folder}/{name}-{version}-py3-none-any.whl", "w") as out:
            for file, content in FILES.items():
                out.writestr(file, content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(module.subprocess, "run", run)
    return commands


def test_source_is_read_and_the_rest_is_counted(pip, tmp_path):
    source = read_source("pypi:pkg==1.0")
    found = {file.name: file.content for file in source.files}
    usable = ("pkg/__init__.py", "../escape.py", "pkg/core.c")
    assert found == {name: FILES[name] for name in usable}
    assert source.left_out == {
        "empty": 1,
        "larger than 1,000,000 bytes": 1,
        "without a source suffix": 2,
    }
    assert source.licences == {"MIT": 1}
    # Nothing was unpacked.
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".whl"]


def test_the_corpus_is_nine_wheels(pip):
    read_source("pypi:corpus")
    assert [command[-1] for command in pip] == module.CORPUS.split(",")
    assert len(pip) == 9


def test_a_wheel_is_fetched_once(pip):
    first = read_source("pypi:pkg==1.0,other==2")
    assert len(pip) == 2
    assert read_source("pypi:other==2,pkg==1.0").files == first.files
    assert len(pip) == 2
    assert all("--no-deps" in command for command in pip)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("pypi:pkg", "must be NAME==VERSION"),
        ("pypi:pkg==1.0,", "must be NAME==VERSION"),
        ("pypi:--index-url=x==1", "must be NAME==VERSION"),
        ("pypi:pkg==1.0 --pre", "must be NAME==VERSION"),
        ("pypi:none==1", "cannot fetch none==1: No matching distribution"),
        ("pypi:", "unknown data source"),
    ],
)
def test_what_cannot_be_used_is_one_line(pip, spec, said):
    with pytest.raises(DataError, match=said) as error:
        read_source(spec)
    assert "\n" not in str(error.value)


def test_a_damaged_wheel_is_one_line(pip, tmp_path):
    read_source("pypi:pkg==1.0")
    [kept] = (tmp_path / "cache" / "wheels").glob("*.whl")
    kept.write_bytes(b"no zip")
    with pytest.raises(DataError, match="cannot read"):
        read_source("pypi:pkg==1.0")


def test_a_wheel_that_unpacks_to_too_much_is_refused(pip, monkeypatch):
    monkeypatch.setattr(module, "_TOTAL", 1000)
    with pytest.raises(DataError, match="unpacks to more than"):
        read_source("pypi:pkg==1.0")
