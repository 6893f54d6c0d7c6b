"""`report RUN`: a run as one page."""

import dataclasses
from pathlib import Path

from rich.console import Console

from jaxnas.commands.options import Parser, file_to_write
from jaxnas.data import prepare
from jaxnas.errors import UsageError
from jaxnas.pipeline.completions import complete, stored_completions
from jaxnas.report.page.overview import Completion
from jaxnas.report.page.write import write_page
from jaxnas.report.tables import plain_console
from jaxnas.results.record import Record, read_record
from jaxnas.storage.jsonl import Json

_ABOUT = """\
Writes a run as one HTML file that needs no network: what was asked and found, the
front, the history, what each choice was worth, every candidate, where the time went.
RUN may be going on: the page shows what there is by now.
"""


def main(arguments: list[str]) -> None:
    """Writes the page and says where it is."""
    parser = Parser(
        prog="python -m jaxnas.run report",
        usage="python -m jaxnas.run report RUN [--beside RUN ...] [--out FILE]",
        description=_ABOUT,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the run's folder")
    parser.add_argument(
        "--out", metavar="FILE", type=file_to_write, help="[RUN/report.html]"
    )
    parser.add_argument(
        "--beside",
        metavar="RUN",
        type=Path,
        nargs="+",
        default=[],
        help="other searches of the same data, such as one with --strategy random: "
        "their hypervolume is drawn beside this one's",
    )
    options = parser.parse_args(arguments)
    record, console = read_record(options.run), plain_console()
    beside = [_alike(read_record(path), record) for path in options.beside]
    path = options.out or record.folder.report
    write_page(path, record, _completions(record, console), beside)
    size = path.stat().st_size / 1024
    console.print(f"report      {path} ({size:.0f} KiB)", soft_wrap=True)
    if record.state == "running":
        console.print("the run goes on: the page shows what there is by now")


def _alike(other: Record, record: Record) -> Record:
    """A run whose scores can stand beside this one's.

    Raises:
      UsageError: they were scored on something else, or otherwise.
    """
    own, its = _scored_by(record), _scored_by(other)
    for what, value in own.items():
        if its[what] != value:
            raise UsageError(
                f"{other.folder.path} cannot stand beside {record.folder.path}: "
                f"its {what} is another"
            )
    return other


def _scored_by(record: Record) -> Json:
    """What accuracy, size and latency of a run's first phase are of."""
    decides: Json = {**record.manifest.get("decides", {})}
    config = record.config
    return {
        **{name: decides.get(name) for name in ("corpus_hash", "tokenizer_hash")},
        "device": (decides.get("hardware_profile") or {}).get("name"),
        "first phase": dataclasses.asdict(next(iter(config.named_phases().values()))),
        **{name: getattr(config, name) for name in ("window", "eval_windows")},
        "latency": config.latency,
    }


def _completions(record: Record, console: Console) -> list[Completion]:
    """Those that the run has, or new ones if its data is still what it was."""
    folder, config = record.folder, record.config
    if record.state != "finished":
        return []
    if (found := stored_completions(folder)) is not None:
        return found
    try:
        dataset = prepare(config.data, config.vocab_size)
    except UsageError as error:
        console.print(f"no completions: {error}", soft_wrap=True)
        return []
    if dataset.corpus_hash != record.manifest["data"]["corpus_hash"]:
        console.print("no completions: the data is not what the run was trained on")
        return []
    return complete(folder, dataset, config.seed)
