"""`train MODEL`: one model trained for long on a corpus of one's own."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

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
from jaxnas.commands.options import (
    MANY,
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
from jaxnas.training.settings import FURTHER_SHARE, OPTIMIZERS

if TYPE_CHECKING:
    from jaxnas.training.devices import Devices

_ABOUT = """\
Trains a model on: from its weights, or anew with --fresh. MODEL is the folder of a
run, whose winner it is, or a folder with a saved model; the model keeps its
tokenizer. Data, window, batch and learning rate are those of the run by default.
"""
_BUDGET = "30m"
_BOUNDS: dict[str, Values] = BOUNDS | {
    "tokens": {"kind": int, "least": 1},
    "accumulate": {"kind": int, "least": 1},
    "optimizer": {"kind": str, "among": OPTIMIZERS},
    "fim": {"kind": float, "least": 0, "most": 1},
    "evaluate_every": {"kind": int, "least": 1},
    "patience": {"kind": int, "least": 1},
}
_NAMES = ("model", "data", "fresh", "budget", *_BOUNDS)


def main(arguments: list[str]) -> None:
    """Starts a training, or goes on with one."""
    options = _parser().parse_args(arguments)
    if options.hosts is None:
        if options.host is not None:
            raise UsageError("--host goes with --hosts")
        _train(options)
        return
    address, index, number = _place(options)
    from jaxnas.runtime import set_up  # takes seconds
    from jaxnas.training import hosts, joining

    joining.join(address, number, index)
    if not joining.leads():
        set_up()
        print(joining.which(), flush=True)
        hosts.follow()
        return
    together = hosts.Hosts()
    with together.leading():
        _train(options, together)


def _place(options: argparse.Namespace) -> tuple[str | None, int | None, int | None]:
    """The first host's address, which host this is, and of how many."""
    if options.hosts == "auto":
        if options.host is not None:
            raise UsageError("--host is found out with --hosts auto: leave it out")
        return None, None, None
    port = re.fullmatch(r"(?:[^:/\s]+|\[[\da-fA-F:.]+\]):(\d{1,5})", options.hosts)
    if port is None or not 1 <= int(port[1]) < 2**16:
        raise UsageError(
            f"--hosts must be ADDRESS:PORT of the first (IPv6 as [ADDRESS]:PORT), or "
            f"auto, got {options.hosts!r}"
        )
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", options.host or "")
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(
            f"--host must say which host this is, such as 1/2 and 2/2, got "
            f"{options.host!r}"
        )
    return options.hosts, int(found[1]) - 1, int(found[2])


def _train(options: argparse.Namespace, devices: "Devices | None" = None) -> None:
    with claimed(options, "train", _NAMES, _values, _kept) as (folder, values):
        try:
            # Only now, for it takes seconds: a run killed before can be resumed.
            from jaxnas.pipeline.train import train
            from jaxnas.pipeline.train_plan import TrainPlan
            from jaxnas.report.tables import plain_console

            plan, console = TrainPlan(**values), plain_console()
            with tracked_by(options, folder) as tracker:
                train(folder, plan, console, BEGAN, tracker, devices)
        except KeyboardInterrupt as error:
            error.add_note(f"go on with --resume {folder.path}")
            raise


def _kept(folder: RunFolder, kept: Values) -> Values:
    """The values that a folder keeps."""
    if kept["model"] is None:
        raise UsageError(f"{folder.config} is not of a training: no model")
    return _checked(kept | {"optimizer": kept["optimizer"] or OPTIMIZERS[0]})


def _values(given: Values) -> Values:
    """All values of a plan: given, the run's, or by default."""
    if "model" not in given:
        raise UsageError("MODEL is missing: give a run's folder, or a model's")
    model, run = found_model(Path(given["model"]))
    fresh = given.get("fresh", False)
    values: Values = {
        "fresh": False,
        "tokens": None,
        "budget": None,
        "accumulate": 1,
        "optimizer": OPTIMIZERS[0],
        "fim": 0.0,
        "evaluate_every": 500,
        "patience": None,
        "seed": 0,
        **settings_of(run, not fresh, longer=fresh and "window" not in given),
        **given,
        "model": str(model),
    }
    values["data"] = anchored_source(values["data"])
    if values["tokens"] is None and values["budget"] is None:
        values["budget"] = _BUDGET
    return _checked(values)


def _checked(values: Values) -> Values:
    """The values, or what is wrong with one of them."""
    check_flags(values, _BOUNDS, open_=("tokens", "patience"))
    check_length(values)
    if values["batch"] % values["accumulate"]:
        raise UsageError(
            f"--batch {values['batch']} does not split into "
            f"{values['accumulate']} parts"
        )
    return values


def _parser() -> Parser:
    parser = Parser(
        prog="python -m jaxnas.run train",
        usage="python -m jaxnas.run train MODEL [--out DIR | --resume DIR] [settings]",
        description=_ABOUT,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", help="a run's folder, or a model's")
    add_folder(parser, "train", "this folder's training")
    add_of_run(parser)
    add(
        "--fresh",
        action="store_const",
        const=True,
        help="begin from untrained weights, not from the model's, and in windows four "
        "times as long as a search's",
    )
    add_length(parser, _BUDGET)
    add(
        "--accumulate",
        type=whole(),
        metavar="N",
        help="parts of a step's samples, one after the other: less memory [1]",
    )
    add(
        "--fim",
        type=float,
        metavar="SHARE",
        help="of the pieces of files that are rearranged, so that the model learns to "
        "fill in the middle [0]",
    )
    add(
        "--learning-rate",
        type=float,
        metavar="X",
        help=f"the peak [the run's with --fresh, else {FURTHER_SHARE:g} of it]",
    )
    add(
        "--optimizer",
        metavar="NAME",
        help=f"{' | '.join(OPTIMIZERS)}: of the matrices inside layers [adamw]",
    )
    add(
        "--evaluate-every",
        type=whole(),
        metavar="N",
        help="steps between evaluations on the validation split [500]",
    )
    add_tracking(parser)
    add(
        "--hosts",
        metavar="ADDRESS:PORT",
        help="all devices of several hosts share each batch: the same command on each, "
        "with an address of the first; or auto under SLURM, Open MPI or Kubernetes",
    )
    add("--host", metavar="K/N", help="which of the hosts this is, from 1/N")
    add("--eval-windows", type=whole(MANY), metavar="N", help="of one [the run's]")
    add(
        "--patience",
        type=whole(),
        metavar="N",
        help="end after so many evaluations without a better one [never]",
    )
    return parser
