"""Every command that the README and the docs show is one that there is."""

import argparse
import importlib
import keyword
import re
import shlex
from pathlib import Path

import pytest

from jaxnas.commands import COMMANDS
from jaxnas.commands.options import Parser
from jaxnas.run import DEFAULT, main

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "experiments").rglob("*.md")),
]
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
SHOWN = re.compile(r"python -m jaxnas\.run\b([^\n|#;&>]*)")
QUICK = ("space", "explain", "compare", "baselines", "show")
SIGNS = re.compile(r"\.\.\.|[\[\]…{}]")  # of a form to be filled in


def shown_in(path):
    """The arguments of each command in a document: in blocks and in lines."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    parts = [inside for language, inside in BLOCK.findall(text) if language == "bash"]
    rest = BLOCK.sub("", text)
    parts += INLINE.findall(rest)
    parts += [line for line in rest.split("\n") if line.startswith("    ")]
    for words in SHOWN.findall("\n".join(parts)):
        if not SIGNS.search(words):
            yield tuple(shlex.split(words))


EVERY = sorted({words for path in DOCUMENTS for words in shown_in(path)})


class Parsed(Exception):
    """The arguments are understood."""


def test_the_documents_show_commands():
    assert len(EVERY) > 50
    used = {words[0] for words in EVERY if words and not words[0].startswith("-")}
    assert used >= {"report", "status", "show", "front", "automl", "generate"}


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_a_command_is_understood(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def stop(self, arguments=None, namespace=None):
        argparse.ArgumentParser.parse_args(self, arguments, namespace)
        raise Parsed

    monkeypatch.setattr(Parser, "parse_args", stop)
    name, arguments = DEFAULT, list(words)
    if arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
    assert name in COMMANDS
    module = f"{name}_" if keyword.iskeyword(name) else name
    command = importlib.import_module(f"jaxnas.commands.{module}")
    with pytest.raises((Parsed, SystemExit)) as ended:
        command.main(arguments)
    if ended.type is SystemExit:
        assert ended.value.code == 0  # --help
        assert "--help" in arguments


def is_open(words):
    """Whether it trains, or names a file or a run of the reader's."""
    names = [word for word in words if word.endswith((".toml", ".json", ".svg"))]
    names += [word for word in words if word.isupper() or word.startswith("runs/")]
    return bool(names) or "--evaluate" in words


@pytest.mark.parametrize(
    "words",
    [words for words in EVERY if words and words[0] in QUICK and not is_open(words)],
    ids=" ".join,
)
def test_what_only_counts_does_what_is_shown(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(list(words)) == 0
    assert capsys.readouterr().out
