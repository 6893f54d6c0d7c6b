import json
import math
import os

import pytest

from jaxnas.errors import UsageError
from jaxnas.results.result import ResultLog
from jaxnas.storage import disk
from jaxnas.storage.files import write_json, write_whole
from jaxnas.storage.jsonl import CHAIN, Lines, chained, read_lines, to_line

ENTRIES = [
    {"id": 0, "fitness": 0.1 + 0.2, "name": "é\n\r\u2028"},
    {"id": 1, "list": [1, None, True], "tiny": 5e-324},
    {"id": 2},
]


def chain_of(entries):
    """The bytes of a file of these lines."""
    raw, digest = b"", ""
    for entry in entries:
        line, digest = chained(entry, digest)
        raw += line
    return raw


def written(path, entries=ENTRIES):
    lines = Lines(path)
    for entry in entries:
        lines.append(entry)
    lines.close()
    return path.read_bytes()


def reopened(path):
    lines = Lines(path)
    entries = list(lines)
    assert len(lines) == len(entries)
    lines.close()
    return entries


def test_what_is_appended_is_read_back(tmp_path):
    path = tmp_path / "lines"
    raw = written(path)
    assert raw == chain_of(ENTRIES)
    assert raw.count(b"\n") == len(ENTRIES)
    as_json = [json.loads(line) for line in raw.splitlines()]
    assert len({line.pop(CHAIN) for line in as_json}) == len(ENTRIES)
    assert as_json == ENTRIES
    assert reopened(path) == ENTRIES
    assert written(path) == chain_of(ENTRIES * 2)  # appended, not replaced


def test_each_line_is_on_disk_when_append_returns(tmp_path):
    lines = Lines(tmp_path / "lines")
    for number, entry in enumerate(ENTRIES, 1):
        lines.append(entry)
        assert list(lines) == ENTRIES[:number]
        assert (tmp_path / "lines").read_bytes().count(b"\n") == number
    lines.close()


def test_a_line_that_was_cut_anywhere_is_dropped(tmp_path):
    path = tmp_path / "lines"
    raw = written(path)
    new = {"id": 9}
    for cut in range(len(raw) + 1):
        path.write_bytes(raw[:cut])
        whole = raw[:cut].count(b"\n")
        lines = Lines(path)
        assert list(lines) == ENTRIES[:whole], cut
        assert path.read_bytes() == chain_of(ENTRIES[:whole]), cut
        lines.append(new)
        lines.close()
        assert reopened(path) == [*ENTRIES[:whole], new], cut


@pytest.mark.parametrize("number", range(5))
def test_keep_drops_the_later_lines(tmp_path, number):
    path = tmp_path / "lines"
    written(path)
    lines = Lines(path)
    lines.append({"id": 3})
    lines.keep(number)
    first = [*ENTRIES, {"id": 3}][:number]
    assert list(lines) == first
    assert path.read_bytes() == chain_of(first)
    lines.append({"id": 4})
    lines.close()
    assert reopened(path) == [*first, {"id": 4}]


def test_keep_counts_the_bytes_that_are_there(tmp_path):
    path = tmp_path / "lines"
    # As another program may have formatted them: shorter, and longer.
    raw = [b'{"id":0}\n', b'{ "id" :  1 }\n', '{"name": "é"}\n'.encode(), b'{"id":3}\n']
    for number in range(5):
        path.write_bytes(b"".join(raw))
        lines = Lines(path)
        lines.keep(number)
        lines.close()
        assert path.read_bytes() == b"".join(raw[:number])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_hold_is_refused(tmp_path, value):
    path = tmp_path / "lines"
    raw = written(path)
    lines = Lines(path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        lines.append({"id": 3, "deep": [{"fitness": value}]})
    assert list(lines) == ENTRIES
    lines.close()
    assert path.read_bytes() == raw
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"fitness": value})
    assert path.read_bytes() == raw


@pytest.mark.parametrize("bad", [b"{'id': 1}", b"", b"\xff\xfe", b"\0\0", b"[1]", b"3"])
def test_a_damaged_line_inside_is_named(tmp_path, bad):
    path = tmp_path / "lines"
    whole = to_line({"id": 0}) + bad + b"\n" + to_line({"id": 2})
    path.write_bytes(whole)
    with pytest.raises(UsageError, match="lines is damaged in line 2") as raised:
        Lines(path)
    assert "\n" not in str(raised.value)
    assert path.read_bytes() == whole


def changed(lines, how):
    first, second, third, fourth = lines
    return {
        "edited": [first, second.replace(b"1, null", b"2, null"), third, fourth],
        "twice": [first, second, second, third, fourth],
        "left out": [first, third, fourth],
        "swapped": [first, third, second, fourth],
        "from another file": [first, chain_of(ENTRIES[1:2]), third, fourth],
        "without its digest": [first, to_line(ENTRIES[1]), third, fourth],
        "reformatted": [first, second.replace(b", ", b","), third, fourth],
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        "edited",
        "twice",
        "left out",
        "swapped",
        "from another file",
        "without its digest",
        "reformatted",
    ],
)
def test_what_was_not_written_there_is_found(tmp_path, how):
    path = tmp_path / "lines"
    raw = written(path, [*ENTRIES, {"id": 3}])
    path.write_bytes(b"".join(changed(raw.splitlines(keepends=True), how)))
    for read in (Lines, read_lines):
        with pytest.raises(UsageError, match=r"in line [23]: it is not what was"):
            read(path)


def test_lines_without_digests_are_read_and_go_on_with_digests(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"".join(map(to_line, ENTRIES)))
    with Lines(path) as lines:
        assert list(lines) == ENTRIES
        assert not lines.proven
        lines.append({"id": 3})
    assert reopened(path) == [*ENTRIES, {"id": 3}]
    path.write_bytes(path.read_bytes().replace(b"5e-324", b"6e-324"))
    with pytest.raises(UsageError, match="in line 4"):  # whose digest is of all
        read_lines(path)


def test_a_mark_tells_the_first_lines(tmp_path):
    written(tmp_path / "lines")
    with Lines(tmp_path / "lines") as lines:
        marks = [lines.mark(number) for number in range(4)]
        assert [mark.lines for mark in marks] == [0, 1, 2, 3]
        assert len({mark.digest for mark in marks}) == 4
        assert lines.mark() == lines.mark(9) == marks[3]
        lines.keep(1)
        assert lines.mark() == marks[1]
        lines.append({"id": 1})
        assert lines.mark(2) != marks[2]


@pytest.mark.parametrize("content", ["text é\n", b"\0\xff"])
def test_a_whole_file_is_replaced(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(b"old and longer than the new")
    write_whole(path, content)
    raw = content.encode() if isinstance(content, str) else content
    assert path.read_bytes() == raw
    assert list(tmp_path.iterdir()) == [path]


class DiskFull(OSError):
    pass


def stop(*_):
    raise DiskFull


def half_a_write(file, content):
    """A file whose disk is full after three bytes."""
    file.write(content[:3])
    stop()


@pytest.mark.parametrize("when", ["write", "fsync", "replace"])
@pytest.mark.parametrize("old", [b"old", None])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, when, old):
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    if when == "write":
        monkeypatch.setattr(disk, "write", half_a_write)
    elif when == "fsync":
        monkeypatch.setattr(disk, "sync", stop)
    else:
        monkeypatch.setattr(disk, "rename", stop)
    with pytest.raises(DiskFull):
        write_whole(path, b"new content")
    monkeypatch.undo()
    left = {found.name: found.read_bytes() for found in tmp_path.iterdir()}
    assert left == ({} if old is None else {"file": old})


@pytest.mark.parametrize("when", ["write", "sync"])
def test_a_line_that_fails_leaves_no_half_of_it(tmp_path, monkeypatch, when):
    path = tmp_path / "lines"
    with Lines(path) as lines:
        lines.append(ENTRIES[0])
        whole = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(disk, when, half_a_write if when == "write" else stop)
            with pytest.raises(DiskFull):
                lines.append(ENTRIES[1])
        assert path.read_bytes() == whole
        lines.append(ENTRIES[2])
    assert reopened(path) == [ENTRIES[0], ENTRIES[2]]


def test_the_content_is_synced_before_the_file_takes_its_name(tmp_path, monkeypatch):
    path, seen = tmp_path / "file", []
    path.write_bytes(b"old")
    sync = os.fsync

    def watched(handle):
        size = os.fstat(handle).st_size
        seen.append((size, path.read_bytes()))
        sync(handle)

    monkeypatch.setattr(disk.os, "fsync", watched)
    write_whole(path, b"new content")
    assert seen == [(11, b"old")]


def test_json_is_read_back(tmp_path):
    value = {"b": [0.1, None], "a": {"é": -0.0}}
    write_json(tmp_path / "file", value)
    text = (tmp_path / "file").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert text.endswith("}\n")


def test_a_file_of_results_that_is_refused_is_closed(tmp_path, monkeypatch):
    path = tmp_path / "results.jsonl"
    path.write_bytes(to_line({"no": "result"}))
    opened, open_file = [], disk.open_file
    monkeypatch.setattr(
        disk, "open_file", lambda *given: opened.append(open_file(*given)) or opened[-1]
    )
    with pytest.raises(UsageError):
        ResultLog(path)
    assert [file.closed for file in opened] == [True]
