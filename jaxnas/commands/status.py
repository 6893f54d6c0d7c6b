"""`status RUN`: how far a run is."""

import json
from pathlib import Path

from jaxnas.commands.options import Parser
from jaxnas.report.standing import lines_of, standing
from jaxnas.report.tables import plain_console
from jaxnas.results.record import read_record

_ABOUT = """\
How far a run is: what it does, candidates, the best so far, time spent and left,
whether it can be resumed. Nothing in the folder changes; the run may be going on.
"""


def main(arguments: list[str]) -> None:
    """Prints a line a fact, or all of them as JSON."""
    parser = Parser(
        prog="python -m jaxnas.run status",
        usage="python -m jaxnas.run status RUN [--json]",
        description=_ABOUT,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the run's folder")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(arguments)
    about = standing(read_record(options.run))
    if options.json:
        print(json.dumps(about, indent=2))
        return
    plain_console().print("\n".join(lines_of(about)), soft_wrap=True)
