"""`ship SOURCE`: from a body of code to a model that other software runs."""

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jaxnas.clock import clock_words, seconds_of
from jaxnas.commands.of_model import add_folder, begun, given_of, resumed
from jaxnas.commands.options import (
    Parser,
    add_tracking,
    check_flags,
    tracked_by,
    whole,
)
from jaxnas.config import Values
from jaxnas.errors import UsageError
from jaxnas.source_name import anchored_source
from jaxnas.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from jaxnas.pipeline.ship import Shipped

RUNTIMES = ("llama.cpp", "transformers", "any")
LEAST = 240.0  # seconds of a budget in which there is room for all of it
_OPEN = ("max_size", "max_latency", "vocab_size")  # decided where they are not given
_NAMES = ("data", "budget", *_OPEN, "fim", "seed", "runs_on")

_ABOUT = """\
Searches for a model of your code within limits, trains it for longer from untrained
weights, scores it on files that it has not seen, and exports it: one budget, one
folder. Only models that --runs-on has an exact form of are searched.
"""


def main(arguments: list[str]) -> None:
    """Starts, or goes on with what was begun."""
    options = _parser().parse_args(arguments)
    with _claimed(options) as (folder, values):
        try:
            _ship(folder, values, options)
        except KeyboardInterrupt as error:
            error.add_note(f"go on with --resume {folder.path}")
            raise


def _ship(folder: RunFolder, values: Values, options: argparse.Namespace) -> None:
    # Only now, for it takes seconds: what was begun can be gone on with.
    from jaxnas.export.choice import class_for
    from jaxnas.export.llama_cpp.architectures import architecture_for
    from jaxnas.pipeline.ship import ShipPlan, close, ship
    from jaxnas.report.tables import plain_console
    from jaxnas.runtime import backend, set_up

    set_up()
    runtime = values["runs_on"]
    exact = {"llama.cpp": architecture_for, "transformers": class_for, "any": None}
    plan = ShipPlan(
        **{name: values[name] for name in _NAMES if name != "runs_on"},
        exports=exact[runtime],
    )
    console = plain_console()
    with tracked_by(options, folder) as tracker:
        model = ship(folder.path, plan, backend(), console, tracker)
    shipped = _exported(folder.path, model, runtime)
    close(folder.path, plan, model, shipped, runtime, console)


def _exported(out: Path, model: Path, runtime: str) -> "Shipped":
    """The export, made unless it is there."""
    from jaxnas.export import export_folder
    from jaxnas.export.llama_cpp import export_gguf
    from jaxnas.pipeline.ship import Shipped

    if runtime == "any":
        return Shipped(model, "jaxnas")
    if runtime == "transformers":
        path = out / "transformers"
        if not path.exists():
            export_folder(model, path)
        return Shipped(path, "hf")
    path = out / "model.gguf"
    with tempfile.TemporaryDirectory(dir=out, prefix=".") as beside:
        again = Path(beside) / path.name  # its notes are wanted by a resume, too
        written = export_gguf(model, again)
        again.replace(path)
    return Shipped(path, "gguf", written.notes)


@contextlib.contextmanager
def _claimed(
    options: argparse.Namespace,
) -> Iterator[tuple[RunFolder, Values]]:
    """The locked folder, new or to be gone on with, and what was asked for."""
    given = given_of(options, _NAMES)
    if options.resume is not None:
        with resumed(options.resume, given, _NAMES) as (folder, kept):
            yield folder, _checked(kept)
        return
    if options.data is None:
        raise UsageError('SOURCE is missing: give "folder:PATH", or another')
    defaults = {"budget": "20m", "fim": 0.0, "seed": 0, "runs_on": RUNTIMES[0]}
    values = _checked(dict.fromkeys(_NAMES) | defaults | given)
    values["data"] = anchored_source(values["data"])
    with begun(options.out, "ship", values) as folder:
        yield folder, values


def _checked(values: Values) -> Values:
    """The values, or what is wrong with one of them."""
    bounds: dict[str, Values] = {
        "data": {"kind": str},
        "max_size": {"kind": float, "above": 0},
        "max_latency": {"kind": float, "above": 0},
        "vocab_size": {"kind": int, "least": 257, "most": 65536},
        "fim": {"kind": float, "least": 0, "most": 1},
        "seed": {"kind": int, "least": 0, "below": 2**32},
        "runs_on": {"kind": str, "among": RUNTIMES},
    }
    check_flags(values, bounds, open_=_OPEN)
    try:
        seconds = seconds_of(values["budget"])
    except ValueError as error:
        raise UsageError(f"--budget: {error}") from None
    if seconds < LEAST:
        raise UsageError(
            f"--budget {values['budget']} must be at least {clock_words(LEAST)}: "
            f"searching, training and scoring share it"
        )
    if values["runs_on"] == "llama.cpp":
        from jaxnas.export.llama_cpp.package import check_package

        check_package()  # hours before it is needed
    return values


def _parser() -> Parser:
    parser = Parser(
        prog="python -m jaxnas.run ship",
        usage="python -m jaxnas.run ship SOURCE [--out DIR | --resume DIR] [settings]",
        description=_ABOUT,
    )
    add = parser.add_argument
    add(
        "data",
        metavar="SOURCE",
        nargs="?",
        help='"folder:PATH", "stdlib" or "pypi:NAME==VERSION,..."',
    )
    add_folder(parser, "ship", "what was begun there")
    add("--budget", metavar="TIME", help="time for all of it, such as 4h [20m]")
    add(
        "--max-size",
        type=float,
        metavar="MIB",
        help="of the model [4 on a CPU, else the space's]",
    )
    add(
        "--max-latency",
        type=float,
        metavar="MS",
        help="of a prompt [5 on a CPU, else the space's]",
    )
    add(
        "--vocab-size",
        type=whole(),
        metavar="N",
        help="tokens of the vocabulary [on a CPU 1024 to 4096, as many as suit the "
        "code; else 8192]",
    )
    add(
        "--runs-on",
        metavar="NAME",
        help=f"{' | '.join(RUNTIMES)}: what runs the model in the end [{RUNTIMES[0]}]",
    )
    add(
        "--fim",
        type=float,
        metavar="SHARE",
        help="of the training's pieces that are rearranged, so that the model learns "
        "to fill in the middle [0]",
    )
    add("--seed", type=whole(), metavar="N", help="of everything [0]")
    add_tracking(parser)
    return parser
