"""Held-out lines as a run's winner writes them, for its report."""

from pathlib import Path
from typing import TypedDict

from jaxnas.benchmarks.lines import cursors, drawn_lines, first_line, with_first_line
from jaxnas.data import END_OF_TEXT, Dataset, SourceFile
from jaxnas.errors import UsageError
from jaxnas.export.model_folder import load_model
from jaxnas.report.page.overview import Completion
from jaxnas.storage.files import write_json
from jaxnas.storage.kinds import read_kept
from jaxnas.storage.run_folder import RunFolder

NUMBER = 10
CONTEXT = 256  # tokens before a cursor, at most
_ABOVE = 4  # lines that are shown of them


class _Stored(TypedDict):
    completions: list[Completion]


def complete(folder: RunFolder, dataset: Dataset, seed: int) -> list[Completion]:
    """Draws lines of the test files and writes them down; none if it cannot.

    Args:
      folder: of a run that is finished.
      dataset: the run's.
      seed: decides which lines.
    """
    try:
        model = load_model(folder.model)
        places = cursors(test_files(dataset), NUMBER, seed)
        drawn = list(drawn_lines(model, places, CONTEXT))
    except UsageError:  # too few positions for a line
        return []
    shown: list[Completion] = [
        {
            "before": "\n".join(place.before.split("\n")[-_ABOVE:]),
            "written": first_line(text),
            "line": place.line,
            "text": with_first_line(text),
        }
        for place, text in zip(places, drawn, strict=True)
    ]
    write_json(folder.completions, {"completions": shown})
    return shown


def test_files(dataset: Dataset) -> list[SourceFile]:
    """The files of the test split, from their tokens; their names are numbers."""
    end = dataset.tokenizer.token_to_id(END_OF_TEXT)
    files: list[SourceFile] = []
    text: list[int] = []
    for token in dataset.test.tolist():
        if token != end:
            text.append(token)
            continue
        if content := dataset.tokenizer.decode(text).encode():
            files.append(SourceFile(str(len(files)), content))
        text = []
    return files


def stored_completions(folder: RunFolder) -> list[Completion] | None:
    """What `complete` wrote; None if it did not.

    Raises:
      UsageError: the file is damaged.
    """
    path: Path = folder.completions
    if not path.exists():
        return None
    return read_kept(path, _Stored)["completions"]
