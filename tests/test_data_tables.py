"""Texts that are no files of code: rows, other endings, long files, the hub."""

import gzip
import json

import pytest

from jaxnas.data import DataError, read_source, rows
from jaxnas.data.sources import MAX_BYTES, PIECE, pieces
from jaxnas.errors import UsageError
from jaxnas.source_name import anchored_source, source_name

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROWS = [
    {"content": "a = 1\n", "license": "mit", "path": "a.py"},
    {"content": "", "license": "mit"},
    {"content": "b = '\ud800'\n", "licenses": ["bsd-3-clause", "mit"]},
    {"content": None},
    {"content": "c = 'ü'\n", "license": "apache-2.0"},
]


def lines_of(table):
    return "".join(json.dumps(row) + "\n" for row in table).encode()


def contents(source):
    return [(file.name, file.text) for file in source.files]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_rows_are_files_and_their_licences_are_counted(tmp_path, name):
    content = lines_of(ROWS) + b"\n"
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    for spec in (f"folder:{path}", f"folder:{tmp_path}+include:*.jsonl,*.jsonl.gz"):
        source = read_source(spec)
        expected = [(f"{name}:1", "a = 1\n"), (f"{name}:5", "c = 'ü'\n")]
        assert contents(source) == expected
        assert source.left_out == {"empty": 1, "not UTF-8": 1, "rows without a text": 1}
        assert source.licences == {"apache-2.0": 1, "bsd-3-clause": 1, "mit": 3}


def test_the_field_of_the_text_can_be_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines_of([{"text": "t", "solution": "s"}]))
    assert contents(read_source(f"folder:{path}")) == [("rows.jsonl:1", "t")]
    named = read_source(f"folder:{path}+field:solution")
    assert contents(named) == [("rows.jsonl:1", "s")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"words": "a"}\n', "no field content or text or .*: it has words; name"),
        (b'{"content": "a"}\n{"content"\n', "line 2, is no JSON: Expecting"),
        (b"[1]\n", "line 1, is no JSON object"),
        (b'{"content": "\xff"}\n', "line 1, is no JSON: 'utf-8' codec"),
        (b"[" * 10**5 + b"\n", "line 1, is no JSON: it is nested too deeply"),
        (b"", "0 files seen"),
    ],
)
def test_a_table_that_is_none_is_one_line(tmp_path, content, words):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as error:
        read_source(f"folder:{path}")
    assert "\n" not in str(error.value)


def test_what_is_compressed_is_bounded(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n" * 10**6))
    monkeypatch.setattr(rows, "LINES_BYTES", 10**5)
    with pytest.raises(DataError, match="unpacks to more than 100,000 bytes"):
        read_source(f"folder:{path}")
    monkeypatch.setattr(rows, "MAX_ROW", 10)
    path.write_bytes(gzip.compress(lines_of(ROWS)))
    with pytest.raises(DataError, match="line 1, has over 10 bytes"):
        read_source(f"folder:{path}")
    path.write_bytes(gzip.compress(lines_of(ROWS))[:-12])
    monkeypatch.setattr(rows, "MAX_ROW", 10**4)
    with pytest.raises(DataError, match=r"cannot read .*rows.jsonl.gz: "):
        read_source(f"folder:{path}")


def test_patterns_say_what_is_read(tmp_path):
    for name in ("a.py", "docs/b.md", "docs/c.txt", "d.cobol"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{name}\n")
    (tmp_path / "LICENSE").write_text("\n  MIT License\n\nCopyright\n")

    def names(spec):
        return [file.name for file in read_source(f"folder:{tmp_path}{spec}").files]

    assert names("") == ["a.py"]
    assert names("+include:*.md,*.cobol") == ["d.cobol", "docs/b.md"]
    assert names("+include:docs/*.txt") == ["docs/c.txt"]
    assert read_source(f"folder:{tmp_path}").licences == {"MIT License": 1}
    with pytest.raises(DataError, match=r"5 not \*\.rs; usable are UTF-8 files like"):
        names("+include:*.rs")


def test_pieces_end_at_lines_and_are_the_whole():
    text = b"".join(b"line %d\r\n" % n + b"\n\n" * (n % 7 == 0) for n in range(9000))
    found = pieces(text)
    assert b"".join(found) == text
    assert max(map(len, found)) <= PIECE < len(text) / 3
    assert all(piece.endswith(b"\n\n") for piece in found[:-1])
    assert pieces(b"short") == [b"short"]
    assert b"".join(pieces(b"old\r" * 20_000)) == b"old\r" * 20_000


def test_large_files_are_read_in_pieces_where_they_are_asked_for(tmp_path):
    text = "word and word\n" * (MAX_BYTES // 14 + 1)
    (tmp_path / "large.py").write_text(text)
    (tmp_path / "a.py").write_text("a = 1\n")
    source = read_source(f"folder:{tmp_path}")
    assert source.left_out == {"larger than 1,000,000 bytes": 1}
    found = {f"large.py#{n}": p for n, p in enumerate(pieces(text.encode()), 1)}
    lone = read_source(f"folder:{tmp_path}/large.py")
    assert {file.name: file.content for file in lone.files} == found
    source = read_source(f"folder:{tmp_path}+largest:2mb")
    assert {file.name: file.content for file in source.files} == found | {
        "a.py": b"a = 1\n"
    }


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("folder:a+include:", "names nothing behind"),
        ("folder:a+include:*.py,,*.js", "names nothing behind"),
        ("folder:a+field:x+field:y", "twice"),
        ("folder:a+largest:0", "must be bytes or megabytes"),
        ("folder:a+largest:9999mb", r"at most 2,147,483,648 bytes"),
        ("stdlib+include:*.py", r"no \+include: for this source, only \+without:"),
        ("hf:a@b+largest:4", r"no \+largest: for this source"),
    ],
)
def test_options_that_are_none_are_one_line(spec, words):
    with pytest.raises(UsageError, match=words):
        source_name(spec)


def test_a_name_says_the_same_in_any_order_of_its_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = "folder:code+largest:4mb+without:h.jsonl+include:*.py,*.md"
    expected = (
        f"folder:{tmp_path}/code+include:*.py,*.md+largest:4000000"
        f"+without:{tmp_path}/h.jsonl"
    )
    assert anchored_source(spec) == expected
    assert anchored_source(expected) == expected
    assert anchored_source("parquet:p") == f"parquet:{tmp_path}/p"
    assert anchored_source("hf:a/b@c") == "hf:a/b@c"


def test_parquet_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    find = rows.importlib.util.find_spec
    monkeypatch.setattr(
        rows.importlib.util,
        "find_spec",
        lambda name: None if name == "pyarrow" else find(name),
    )
    with pytest.raises(DataError, match=r"pip install 'jaxnas\[parquet\]'"):
        read_source(f"parquet:{tmp_path}")


def write_parquet(path, table):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    names = sorted({name for row in table for name in row})
    columns = {name: [row.get(name) for row in table] for name in names}
    parquet.write_table(pyarrow.table(columns), path, row_group_size=2)


def test_parquet_is_read_by_its_columns(tmp_path):
    table = [
        {"code": "a = 1\n", "license": "mit", "n": 1},
        {"code": None, "license": "mit"},
        {"code": "c = 3\n", "license": None},
    ]
    write_parquet(tmp_path / "one.parquet", table)
    write_parquet(tmp_path / "two.parquet", [{"text": "d\n", "n": 1}])
    source = read_source(f"parquet:{tmp_path}")
    assert contents(source) == [
        ("one.parquet:1", "a = 1\n"),
        ("one.parquet:3", "c = 3\n"),
        ("two.parquet:1", "d\n"),
    ]
    assert source.licences == {"mit": 2}
    with pytest.raises(DataError, match="no field code: it has n, text"):
        read_source(f"parquet:{tmp_path}/two.parquet+field:code")
    with pytest.raises(DataError, match="the field n is of int64, not of texts"):
        read_source(f"parquet:{tmp_path}/two.parquet+field:n")
    (tmp_path / "two.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DataError, match=r"cannot read .*two\.parquet: ") as error:
        read_source(f"parquet:{tmp_path}")
    assert "\n" not in str(error.value)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's own cache, filled, with no network behind it; the data set's list."""
    package = pytest.importorskip("huggingface_hub")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setenv("JAXNAS_CACHE", str(tmp_path / "ours"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    base = tmp_path / "hub" / "datasets--claudios--code_search_net"
    (base / "blobs").mkdir(parents=True)
    (base / "snapshots" / COMMIT / "python").mkdir(parents=True)
    card = b"---\nlanguage: code\nlicense: other\nlicense_name: mixed\n---\n# Card\n"
    files = {
        "README.md": card,
        "python/train.jsonl": lines_of([{"whole_func_string": "def f(): pass\n"}]),
        "python/test.jsonl": lines_of([{"whole_func_string": "def g(): pass\n"}]),
        "script.py": b"raise SystemExit\n",
    }
    for n, (name, content) in enumerate(files.items()):
        (base / "blobs" / str(n)).write_bytes(content)
        (base / "snapshots" / COMMIT / name).symlink_to(base / "blobs" / str(n))
    asked = []

    def dataset_info(self, name, revision, files_metadata):
        asked.append((name, revision))
        kind = type("Sibling", (), {})
        listed = []
        for file, content in files.items():
            one = kind()
            one.rfilename, one.size = file, len(content)
            listed.append(one)
        return type("Info", (), {"siblings": listed})()

    monkeypatch.setattr(package.HfApi, "dataset_info", dataset_info)
    return asked


def test_a_data_set_of_the_hub_is_listed_once(hub):
    for _ in range(2):
        source = read_source(f"hf:CodeSearchNet@{COMMIT}")
        assert contents(source) == [
            ("python/test.jsonl:1", "def g(): pass\n"),
            ("python/train.jsonl:1", "def f(): pass\n"),
        ]
        assert source.licences == {"mixed": 1, "other": 1}
    assert hub == [("claudios/code_search_net", COMMIT)]
    some = read_source(f"hf:claudios/code_search_net@{COMMIT}+include:*/train*")
    assert [file.name for file in some.files] == ["python/train.jsonl:1"]
    with pytest.raises(DataError, match=r"no file like \*\.rs: it has README\.md"):
        read_source(f"hf:claudios/code_search_net@{COMMIT}+include:*.rs")


def test_a_data_set_that_cannot_be_had_is_one_line(hub, monkeypatch):
    with pytest.raises(DataError, match="must be NAME@COMMIT"):
        read_source("hf:claudios/code_search_net@main")
    monkeypatch.setattr("jaxnas.data.hub.LINES_BYTES", 10)
    with pytest.raises(DataError, match=r"at most 10 are read: name some of its 2"):
        read_source(f"hf:codesearchnet@{COMMIT}")
    monkeypatch.setattr("jaxnas.data.hub.LINES_BYTES", 10**9)
    # Of another one nothing is there, and nothing can be reached.
    with pytest.raises(DataError, match=r"cannot fetch .* from the hub: ") as error:
        read_source(f"hf:another/one@{COMMIT}")
    assert "\n" not in str(error.value)
