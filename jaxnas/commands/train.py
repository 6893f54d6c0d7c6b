"""`train MODEL`: one model trained for long on a corpus of one's own."""

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tomli_w

from jaxnas.clock import BEGAN, seconds_of
from jaxnas.commands.options import Parser, check_flags
from jaxnas.config import Values, make_config, read_toml, read_values
from jaxnas.errors import UsageError, interrupted
from jaxnas.presets import PRESETS
from jaxnas.source_name import anchored_source
from jaxnas.storage.run_folder import RunFolder, existing_run, model_in, new_run

_ABOUT = """\
Trains a model on: from its weights, or anew with --fresh. MODEL is the folder of a
run, whose winner it is, or a folder with a saved model; the model keeps its
tokenizer. Data, window, batch and learning rate are those of the run by default.
"""
_BUDGET = "30m"
# Taken from the run that the model is of, or from the preset.
_OF_RUN = ("data", "window", "batch", "learning_rate", "eval_windows", "final_windows")
_BOUNDS: dict[str, Values] = {
    "tokens": {"kind": int, "least": 1},
    "window": {"kind": int, "least": 1, "most": 2**20},
    "batch": {"kind": int, "least": 1, "most": 2**20},
    "accumulate": {"kind": int, "least": 1},
    "learning_rate": {"kind": float, "above": 0},
    "fim": {"kind": float, "least": 0, "most": 1},
    "evaluate_every": {"kind": int, "least": 1},
    "eval_windows": {"kind": int, "least": 1, "most": 2**20},
    "final_windows": {"kind": int, "least": 1, "most": 2**20},
    "patience": {"kind": int, "least": 1},
    "seed": {"kind": int, "least": 0, "below": 2**32},
}
_NAMES = ("model", "data", "fresh", "budget", *_BOUNDS)


def main(arguments: list[str]) -> None:
    """Starts a training, or goes on with one."""
    options = _parser().parse_args(arguments)
    with _claimed(options) as (folder, values):
        try:
            # Only now, for it takes seconds: a run killed before can be resumed.
            from jaxnas.pipeline.train import TrainPlan, train
            from jaxnas.report.tables import plain_console

            train(folder, TrainPlan(**values), plain_console(), BEGAN)
        except KeyboardInterrupt:
            sys.exit(interrupted(f"go on with --resume {folder.path}"))


@contextmanager
def _claimed(
    options: argparse.Namespace,
) -> Iterator[tuple[RunFolder, Values]]:
    """The locked folder, new or to be resumed, and the plan's values."""
    given = {
        name: value
        for name, value in vars(options).items()
        if name not in ("out", "resume") and value is not None
    }
    if options.resume is None:
        if options.model is None:
            raise UsageError("MODEL is missing: give a run's folder, or a model's")
        values = _values(given)
        text = tomli_w.dumps({k: v for k, v in values.items() if v is not None})
        with new_run(options.out, "train", text) as folder:
            yield folder, values
        return
    with existing_run(options.resume) as folder:
        if given:
            raise UsageError(
                f"a resumed training keeps the settings in {folder.config}: leave out "
                f"{', '.join(sorted(given))}"
            )
        kept = read_values(folder.config, _NAMES)
        if "model" not in kept:
            raise UsageError(f"{folder.config} is not of a training: no model")
        yield folder, _checked({name: kept.get(name) for name in _NAMES})


def _values(given: Values) -> Values:
    """All values of a plan: given, the run's, or by default."""
    model, run = _found(Path(given["model"]))
    values: Values = {
        "fresh": False,
        "tokens": None,
        "budget": None,
        "accumulate": 1,
        "fim": 0.0,
        "evaluate_every": 500,
        "patience": None,
        "seed": 0,
        **_defaults(run),
        **given,
        "model": str(model.resolve()),
    }
    values["data"] = anchored_source(values["data"])
    if values["tokens"] is None and values["budget"] is None:
        values["budget"] = _BUDGET
    return _checked(values)


def _found(path: Path) -> tuple[Path, Path | None]:
    """The model's folder, and the settings of the run that it is of, if any."""
    if not path.is_dir():
        raise UsageError(f"{path} is no folder: give a run's, or a model's")
    model = model_in(path)
    if not (model / "config.json").is_file():
        raise UsageError(f"{path} holds no model (no config.json)")
    settings = model.parent / "config.toml"
    return model, settings if settings.is_file() else None


def _defaults(run: Path | None) -> Values:
    """What the run was searched with; a preset's values where there is no run."""
    from jaxnas.runtime import backend

    platform = backend()
    if run is not None:
        try:  # of a training
            return {name: read_values(run, _NAMES)[name] for name in _OF_RUN}
        except (UsageError, KeyError):
            config = make_config(read_toml(run), str(run))
        settings = dataclasses.asdict(config.resolve(platform))
        return {name: settings[name] for name in _OF_RUN}
    preset = PRESETS["small" if platform == "cpu" else "standard"].settings
    return {"data": "stdlib"} | {name: preset[name] for name in _OF_RUN[1:]}


def _checked(values: Values) -> Values:
    """The values, or what is wrong with one of them."""
    check_flags(values, _BOUNDS, open_=("tokens", "patience"))
    if (values["tokens"] is None) == (values["budget"] is None):
        raise UsageError("give --tokens or --budget, not both")
    if values["batch"] % values["accumulate"]:
        raise UsageError(
            f"--batch {values['batch']} does not split into "
            f"{values['accumulate']} parts"
        )
    if values["budget"] is not None:
        try:
            seconds_of(values["budget"])
        except ValueError as error:
            raise UsageError(f"--budget: {error}") from None
    return values


def _tokens(text: str) -> int:
    """20000, 5m or 2b."""
    factors = {"k": 10**3, "m": 10**6, "b": 10**9}
    factor = factors.get(text[-1:].lower(), 1)
    number = float(text[:-1] if factor > 1 else text) * factor
    if not 1 <= number < 1e15:
        raise ValueError(text)
    return round(number)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m jaxnas.run train",
        usage="python -m jaxnas.run train MODEL [--out DIR | --resume DIR] [settings]",
        description=_ABOUT,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", help="a run's folder, or a model's")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--out", metavar="DIR", type=Path, help="the folder [runs/train-NNN]"
    )
    where.add_argument(
        "--resume", metavar="DIR", type=Path, help="go on with this folder's training"
    )
    add("--data", metavar="SOURCE", help="as of a search [the run's]")
    add(
        "--fresh",
        action="store_const",
        const=True,
        help="begin from untrained weights, not from the model's",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--tokens", type=_tokens, metavar="N", help="to train on, such as 20m or 2b"
    )
    length.add_argument(
        "--budget", metavar="TIME", help=f"time for all of it, such as 4h [{_BUDGET}]"
    )
    add("--window", type=int, metavar="N", help="tokens a sample [the run's]")
    add("--batch", type=int, metavar="N", help="samples a step [the run's]")
    add(
        "--accumulate",
        type=int,
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
    add("--learning-rate", type=float, metavar="X", help="the peak [the run's]")
    add(
        "--evaluate-every",
        type=int,
        metavar="N",
        help="steps between evaluations on the validation split [500]",
    )
    add("--eval-windows", type=int, metavar="N", help="of one [the run's]")
    add("--final-windows", type=int, metavar="N", help="scored in the end [the run's]")
    add(
        "--patience",
        type=int,
        metavar="N",
        help="end after so many evaluations without a better one [never]",
    )
    add("--seed", type=int, metavar="N", help="of windows and new weights [0]")
    return parser
