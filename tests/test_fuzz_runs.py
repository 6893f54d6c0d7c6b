"""Run folders with mistakes in them: exit 0, 1 or 2, one line."""

import itertools
import json
import shutil
import tempfile
from pathlib import Path

import pytest
from corpus import write_corpus
from fuzzing import ended, fuzz, json_text, mutated_toml, spoilt
from hypothesis import given
from hypothesis import strategies as st
from test_faults import SETTINGS, searched
from test_fuzz_settings import WORDS

import jaxnas.pipeline.run as pipeline
from jaxnas.errors import RunFailed
from jaxnas.population import compiler
from jaxnas.storage.jsonl import digest_of, read_lines
from jaxnas.storage.run_folder import RunFolder

LINES = ("results", "rungs", "trainings", "plans", "timings")
WHOLE = ("manifest", "summary", "completions", "stopped", "best", "budget")
COPIES = itertools.count()
READERS = (["status"], ["status", "--json"], ["verify"], ["report"], ["show"])


@pytest.fixture(scope="module")
def runs():
    """A finished run, and a folder in which nothing is compiled and trained."""
    root = Path(tempfile.mkdtemp())
    write_corpus(root / "code")
    searched(root / "run", root / "code")
    folder = RunFolder(root / "run")
    folder.budget.write_text('{"spent": 9.5, "decided": {"open": ["phases"]}}')
    folder.stopped.write_text('{"generations": 9, "id": 3}')

    def stop(*_):
        raise RunFailed("nothing is trained here")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "compile_program", stop)
        patch.setattr(pipeline, "_finish", stop)
        yield root
    shutil.rmtree(root)


def other_content(data, folder):
    """A file of the folder, and what it holds instead."""
    kind = data.draw(st.sampled_from(["lines", "lines", "json", "toml", "bytes"]))
    if kind == "lines":
        path = getattr(folder, data.draw(st.sampled_from(LINES)))
        rows = read_lines(path)
        at = data.draw(st.integers(0, len(rows) - 1))
        text = data.draw(json_text(rows[at])).decode("utf-8", "surrogatepass")
        return path, _lines(data, rows, at, text)
    if kind == "json":
        names = [name for name in WHOLE if getattr(folder, name).exists()]
        path = getattr(folder, data.draw(st.sampled_from(names)))
        return path, data.draw(json_text(json.loads(path.read_text())))
    if kind == "toml":
        path = data.draw(st.sampled_from([folder.config, folder.space]))
        return path, data.draw(mutated_toml(path.read_text(), WORDS)).encode()
    files = [path for path in sorted(folder.path.rglob("*")) if path.is_file()]
    path = data.draw(st.sampled_from(files))
    return path, data.draw(spoilt(path.read_bytes()))


def _lines(data, rows, at, text):
    """One of them replaced, left out or doubled: with digests that fit, or none."""
    lines = [json.dumps(row) for row in rows]
    kind = data.draw(st.sampled_from(["other", "other", "other", "drop", "double"]))
    lines[at : at + 1] = {"other": [text], "drop": [], "double": [lines[at]] * 2}[kind]
    raw = [line.encode("utf-8", "surrogatepass") for line in lines]
    if data.draw(st.booleans()):
        return b"".join(line + b"\n" for line in raw)
    return b"".join(_chained(raw))


def _chained(raw):
    digest = ""
    for line in raw:
        digest = digest_of(digest, line)
        comma = b", " if line != b"{}" else b""
        yield line[:-1] + comma + f'"chain": "{digest}"}}\n'.encode()


def copied(runs, data, ended_already):
    """A copy of the run with another file, or two."""
    for old in runs.glob("copy-*"):
        # What a run leaves to threads may still be at work there.
        shutil.rmtree(old, ignore_errors=True)
    copy = RunFolder(runs / f"copy-{next(COPIES)}")
    shutil.copytree(runs / "run", copy.path)
    if not ended_already:
        copy.summary.unlink()
        if data.draw(st.booleans()):
            shutil.rmtree(copy.checkpoints)
    for _ in range(data.draw(st.integers(1, 2))):
        path, content = other_content(data, RunFolder(runs / "run"))
        file = copy.path / path.relative_to(runs / "run")
        if file.parent.exists():
            file.write_bytes(content)
    return copy.path


def test_without_mistakes_all_is_read(runs):
    for command in READERS:
        assert ended("sound", [*command, runs / "run"]) == 0
    assert ended("sound", ["search", "--resume", runs / "run"]) == 0


@fuzz(60)
@given(st.data())
def test_a_run_is_read(runs, data):
    run = copied(runs, data, data.draw(st.booleans()))
    command = data.draw(st.sampled_from([*READERS, ["compare", runs / "run"]]))
    ended(f"runs: {command[0]}", [*command, run])


@fuzz(40)
@given(st.data())
def test_a_run_is_gone_on_with(runs, data):
    run = copied(runs, data, data.draw(st.sampled_from([False, False, True])))
    ended("runs: resume", ["search", "--resume", run])


@fuzz(10, costly=5)
@given(st.data())
def test_a_run_is_learned_from(runs, data):
    run = copied(runs, data, True)
    shutil.rmtree(runs / "new", ignore_errors=True)
    flags = [f"--{name.replace('_', '-')}={x}" for name, x in SETTINGS.items()]
    flags = [flag for flag in flags if "--baseline" not in flag]
    where = ["--data", f"folder:{runs / 'code'}", "--space", runs / "two.toml"]
    more = ["--warm-start", run, "--out", runs / "new"]
    ended("runs: warm start", ["search", *where, *flags, *more])
