"""Files that hold a benchmark's problems are found, and no others."""

import json
from pathlib import Path

import pytest
from corpus import write_corpus

from jaxnas.data import prepare, read_source
from jaxnas.data.folders import read_folder
from jaxnas.data.overlap import overlap_with, read_rows, without_overlap
from jaxnas.data.sources import DataError, SourceFile
from jaxnas.errors import UsageError
from jaxnas.source_name import anchored_source, source_name

DATA = Path(__file__).parents[2] / "shared" / "data"
SOLUTION = """\
    seen = {}
    for index, (left, right) in enumerate(zip(first, second)):
        seen.setdefault(left, []).append((index, right))
    return {key: value for key, value in seen.items() if len(value) > 1}
"""
ROW = {
    "task_id": "HumanEval/0",
    "prompt": 'def gather(first, second):\n    """ Pairs of equal heads. """\n',
    "canonical_solution": SOLUTION,
}


@pytest.fixture
def corpus(tmp_path):
    """Code, and a benchmark of one problem beside it."""
    code = write_corpus(tmp_path / "code")
    (tmp_path / "one.jsonl").write_text(json.dumps(ROW))
    return code, tmp_path / "one.jsonl"


def plant(code, text):
    path = code / "planted.py"
    path.write_text("import os\n\n" + text + "\n\nprint(os.name)\n")
    return path


@pytest.mark.parametrize(
    "text",
    [
        ROW["prompt"] + SOLUTION,
        "def gather(first, second):\n" + SOLUTION,
        "def renamed(first, second):\n" + SOLUTION.replace("    ", "  "),
    ],
)
def test_a_planted_solution_is_found(corpus, text):
    code, benchmark = corpus
    plant(code, text)
    files = read_folder(code).files
    kept, dropped = without_overlap(files, overlap_with([benchmark]))
    assert dropped == 1
    assert [one.name for one in files if one not in kept] == ["planted.py"]


def test_what_shares_a_line_stays(corpus):
    code, benchmark = corpus
    plant(code, "    for index, (left, right) in enumerate(zip(first, second)):\n")
    files = read_folder(code).files
    assert without_overlap(files, overlap_with([benchmark])) == (files, 0)


def test_a_source_says_what_it_is_without(corpus):
    code, benchmark = corpus
    plant(code, ROW["prompt"] + SOLUTION)
    spec = f"folder:{code}+without:{benchmark}"
    source = read_source(spec)
    assert source.left_out["overlapping with one.jsonl"] == 1
    assert len(source.files) == len(read_source(f"folder:{code}").files) - 1
    data = prepare(spec, 300)
    assert data.describe()["left_out"]["overlapping with one.jsonl"] == 1
    assert data.corpus_hash != prepare(f"folder:{code}", 300).corpus_hash


def test_paths_of_a_source_are_made_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert source_name("stdlib").without == ()
    named = source_name("stdlib+without:a,b")
    assert (named.source, named.without) == ("stdlib", (Path("a"), Path("b")))
    assert anchored_source("stdlib") == "stdlib"
    assert (
        anchored_source("folder:code+without:a,/b")
        == f"folder:{tmp_path}/code+without:{tmp_path}/a,/b"
    )
    several = anchored_source("folder:a+weight:3; stdlib+weight:1;pypi:x==1,y==2")
    assert several == f"folder:{tmp_path}/a+weight:3;stdlib;pypi:x==1,y==2"
    with pytest.raises(UsageError, match="names nothing"):
        source_name("stdlib+without:")
    for wrong in ("stdlib;", ";stdlib", "stdlib;;folder:a", ";"):
        with pytest.raises(UsageError, match="names nothing on one side"):
            anchored_source(wrong)
    for weight in ("2.5", "0.000001", "12.345678", "100"):
        named = source_name(f"stdlib+weight:{weight}")
        assert str(named) == f"stdlib+weight:{weight}"
    for wrong in ("0", "101", "-1", "nan", "1e3", "much", "0.0000001"):
        with pytest.raises(UsageError, match="must be a number above 0, at most 100"):
            source_name(f"stdlib+weight:{wrong}")


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"task_id": 1}'])
def test_another_file_is_one_line(tmp_path, content):
    path = tmp_path / "file"
    path.write_text(content)
    with pytest.raises(DataError, match=r"is no JSON|holds no|is not HumanEval's"):
        overlap_with([path])
    with pytest.raises(UsageError, match="cannot read"):
        read_rows(tmp_path / "none")


@pytest.mark.parametrize("name", ["HumanEval.jsonl.gz", "mbpp.jsonl"])
def test_five_planted_problems_are_five_found(tmp_path, name):
    if not (DATA / name).exists():
        pytest.skip("the data set is not here")
    overlap = overlap_with([DATA / name])
    files = read_folder(write_corpus(tmp_path)).files
    rows = read_rows(DATA / name)
    planted = [
        row["prompt"] + row["canonical_solution"] if "prompt" in row else row["code"]
        for row in rows[:: len(rows) // 5][:5]
    ]
    planted = [
        SourceFile(f"{number}.py", files[number].content + b"\n\n" + text.encode())
        for number, text in enumerate(planted)
    ]
    assert without_overlap(files, overlap) == (files, 0)
    assert without_overlap([*files, *planted], overlap) == (files, 5)
