"""`verify RUN`: whether a run's files belong together."""

from pathlib import Path

from rich.console import Console

from jaxnas.commands.options import Parser
from jaxnas.errors import RunFailed
from jaxnas.report.tables import plain_console
from jaxnas.storage.run_folder import RunFolder, run_to_read

_ABOUT = """\
Reads all of a run's folder: each line of its files against the digest that it ends
with, the newest checkpoints against the lines that they know, what a resume goes on
from, the settings and decisions, the model and the summary against the results. Says
what is lost where something does not belong. Nothing is changed. The exit code is 0
if all belongs together, else 1.
"""


def main(arguments: list[str]) -> None:
    """Prints a line for each part."""
    parser = Parser(prog="python -m jaxnas.run verify", description=_ABOUT)
    parser.add_argument("run", metavar="RUN", type=Path, help="the run folder")
    path = parser.parse_args(arguments).run
    with run_to_read(path, to="verify") as folder:
        console, wrong = plain_console(), []
        for one in folder.parts or [folder]:
            if folder.parts:
                console.print(str(one.path), soft_wrap=True)
            wrong += _wrong(one, console)
    if wrong:
        raise RunFailed(f"{path} does not belong together: {', '.join(wrong)}")
    console.print(f"{path} belongs together")


def _wrong(folder: RunFolder, console: Console) -> list[str]:
    """Prints a line for each part; returns the names of those that are wrong."""
    from jaxnas.pipeline.verify import verify  # only now, for it takes seconds

    wrong = []
    for part in verify(folder):
        mark = "ok" if part.lost is None else "WRONG"
        console.print(f"{mark:<6}{part.name:<16}{part.said}", soft_wrap=True)
        if part.lost is not None:
            wrong.append(part.name)
            console.print(f"{'':<22}lost: {part.lost}", soft_wrap=True)
    return wrong
