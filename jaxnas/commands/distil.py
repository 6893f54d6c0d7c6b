"""`distil TEACHER STUDENT`: a small model learns from a larger one."""

from pathlib import Path

from jaxnas.clock import BEGAN
from jaxnas.commands.of_model import (
    BOUNDS,
    add_folder,
    add_length,
    add_of_run,
    check_length,
    claimed,
    found_model,
    settings_of,
)
from jaxnas.commands.options import Parser, add_tracking, check_flags, tracked_by
from jaxnas.config import Values
from jaxnas.errors import UsageError
from jaxnas.source_name import anchored_source
from jaxnas.storage.run_folder import RunFolder

_ABOUT = """\
Trains a student on a source's files and on what a teacher expects of each next token:
the likeliest ones are stored once, and the loss is a mixture of both. TEACHER is a
run's folder, or a folder with a saved model; STUDENT is another with the same
tokenizer, or a config (*.json), which begins untrained.
"""
_BUDGET = "30m"
_OWN: dict[str, Values] = {
    "tokens": {"kind": int, "least": 1},
    "share": {"kind": float, "least": 0, "most": 1},
    "top": {"kind": int, "least": 1, "most": 1024},
    "stored": {"kind": int, "least": 1},
}
_DEFAULTS: Values = {
    "fresh": False,
    "tokens": None,
    "budget": None,
    "share": 0.5,
    "top": 16,
    "stored": 20_000_000,
    "seed": 0,
}
_BOUNDS = {name: one for name, one in BOUNDS.items() if name != "eval_windows"} | _OWN
_NAMES = ("teacher", "student", "data", "fresh", "budget", *_BOUNDS)


def main(arguments: list[str]) -> None:
    """Starts a distillation, or goes on with one."""
    options = _parser().parse_args(arguments)
    with claimed(options, "distil", _NAMES, _values, _kept) as (folder, values):
        try:
            # Only now, for it takes seconds: a run killed before can be resumed.
            from jaxnas.pipeline.distil import DistilPlan, distil
            from jaxnas.report.tables import plain_console

            plan, console = DistilPlan(**values), plain_console()
            with tracked_by(options, folder) as tracker:
                distil(folder, plan, console, BEGAN, tracker)
        except KeyboardInterrupt as error:
            error.add_note(f"go on with --resume {folder.path}")
            raise


def _kept(folder: RunFolder, kept: Values) -> Values:
    """The values that a folder keeps."""
    if kept["teacher"] is None:
        raise UsageError(f"{folder.config} is not of a distillation")
    return _checked(kept)


def _values(given: Values) -> Values:
    """All values of a plan: given, the teacher's run's, or by default."""
    if "student" not in given:
        raise UsageError("give TEACHER and STUDENT: folders of models")
    teacher, run = found_model(Path(given["teacher"]))
    student = Path(given["student"])
    untrained = student.suffix == ".json"
    if untrained:
        given = given | {"fresh": True}
    if not untrained:
        student = found_model(student)[0]
    of_run = settings_of(run, further=not given.get("fresh", False))
    del of_run["eval_windows"]
    values = {
        **_DEFAULTS,
        **of_run,
        **given,
        "teacher": str(teacher),
        "student": str(student.resolve()),
    }
    values["data"] = anchored_source(values["data"])
    if values["tokens"] is None and values["budget"] is None:
        values["budget"] = _BUDGET
    return _checked(values)


def _checked(values: Values) -> Values:
    """The values, or what is wrong with one of them."""
    check_flags(values, _BOUNDS, open_=("tokens",))
    check_length(values)
    return values


def _parser() -> Parser:
    parser = Parser(
        prog="python -m jaxnas.run distil",
        usage="python -m jaxnas.run distil TEACHER STUDENT [--out DIR | --resume DIR] "
        "[settings]",
        description=_ABOUT,
    )
    add = parser.add_argument
    add("teacher", metavar="TEACHER", nargs="?", help="a run's folder, or a model's")
    add("student", metavar="STUDENT", nargs="?", help="the same, or a config (*.json)")
    add_folder(parser, "distil", "this folder's training")
    add(
        "--fresh",
        action="store_const",
        const=True,
        help="the student begins from untrained weights, not from its own",
    )
    add_length(parser, _BUDGET)
    add("--share", type=float, metavar="X", help="of the loss, the teacher's [0.5]")
    add("--top", type=int, metavar="N", help="likeliest tokens stored of each [16]")
    add(
        "--stored",
        type=int,
        metavar="N",
        help="tokens that the teacher reads at most; longer trainings see them again "
        "[20000000]",
    )
    add("--learning-rate", type=float, metavar="X", help="the peak [the run's]")
    add_of_run(parser)
    add_tracking(parser)
    return parser
