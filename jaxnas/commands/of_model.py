"""What the commands that train a saved model share: its folder, its run's settings."""

import argparse
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import tomli_w

from jaxnas.clock import seconds_of
from jaxnas.commands.options import MANY, check_flags, whole
from jaxnas.config import Values, make_config, read_toml, read_values
from jaxnas.errors import UsageError
from jaxnas.presets import PRESETS, longer_windows
from jaxnas.storage import inputs
from jaxnas.storage.run_folder import RunFolder, existing_run, model_in, new_run
from jaxnas.training.settings import FURTHER_SHARE

# Taken from the run that a model is of, or from the preset.
OF_RUN = ("data", "window", "batch", "learning_rate", "eval_windows", "final_windows")
# What their flags may be.
BOUNDS: dict[str, Values] = {
    "window": {"kind": int, "least": 1, "most": 2**20},
    "batch": {"kind": int, "least": 1, "most": 2**20},
    "learning_rate": {"kind": float, "above": 0},
    "eval_windows": {"kind": int, "least": 1, "most": 2**20},
    "final_windows": {"kind": int, "least": 1, "most": 2**20},
    "seed": {"kind": int, "least": 0, "below": 2**32},
}


def found_model(path: Path) -> tuple[Path, Path | None]:
    """A model's folder, and the settings of the run that it is of, if any.

    Raises:
      UsageError: there is no model.
    """
    if not inputs.is_folder(path):
        raise UsageError(f"{path} is no folder: give a run's, or a model's")
    model = model_in(path)
    if not inputs.is_file(model / "config.json"):
        raise UsageError(f"{path} holds no model (no config.json)")
    settings = model.parent / "config.toml"
    return model.resolve(), settings if inputs.is_file(settings) else None


def settings_of(run: Path | None, further: bool = True, longer: bool = False) -> Values:
    """OF_RUN as a run was searched or trained with; a preset's where there is none.

    Args:
      run: its settings.
      further: whether the model is trained on from its weights, which takes a lower
        learning rate.
      longer: whether windows are to be longer than a search's.
    """
    kept = _kept(run)
    values = kept.values
    if further and not kept.further:
        values["learning_rate"] *= FURTHER_SHARE
    if longer and kept.of_search:
        names = ("window", "eval_windows", "final_windows")
        values |= longer_windows(*(int(values[name]) for name in names))
    return values


class _Kept(NamedTuple):
    """Settings of OF_RUN.

    Attributes:
      values: by name.
      further: whether their learning rate is the lower one.
      of_search: whether their windows are a search's.
    """

    values: Values
    further: bool
    of_search: bool


def _kept(run: Path | None) -> _Kept:
    from jaxnas.runtime import backend

    platform = backend()
    if run is not None:
        kept = inputs.read_toml(run)
        if "space" not in kept and set(OF_RUN) - {"eval_windows"} <= kept.keys():
            # Of a training, a compression, a distillation.
            found = {"eval_windows": kept["final_windows"]} | kept
            found = {name: found[name] for name in OF_RUN}
            check_flags(found, {name: BOUNDS[name] for name in OF_RUN[1:]})
            return _Kept(found, kept.get("fresh") is not True, False)
        config = make_config(read_toml(run), str(run))
        settings = dataclasses.asdict(config.resolve(platform))
        found = {name: settings[name] for name in OF_RUN}
        return _Kept(found, False, True)
    preset = PRESETS["small" if platform == "cpu" else "standard"].settings
    found = {"data": "stdlib"} | {name: preset[name] for name in OF_RUN[1:]}
    return _Kept(found, False, True)


def add_of_run(parser: argparse.ArgumentParser) -> None:
    """Flags for those of OF_RUN that say how it is trained and scored."""
    add = parser.add_argument
    add("--data", metavar="SOURCE", help="as of a search [the run's]")
    add("--window", type=whole(MANY), metavar="N", help="tokens a sample [the run's]")
    add("--batch", type=whole(MANY), metavar="N", help="samples a step [the run's]")
    add(
        "--final-windows",
        type=whole(MANY),
        metavar="N",
        help="scored in the end [the run's]",
    )
    add("--seed", type=whole(), metavar="N", help="of windows and new weights [0]")


def add_folder(parser: argparse.ArgumentParser, name: str, what: str) -> None:
    """--out and --resume, of a command that can go on with what was stopped."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--out", metavar="DIR", type=Path, help=f"the folder [runs/{name}-NNN]"
    )
    where.add_argument("--resume", metavar="DIR", type=Path, help=f"go on with {what}")


def add_length(parser: argparse.ArgumentParser, budget: str) -> None:
    """--tokens or --budget, of which the last has a default."""
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--tokens", type=tokens_of, metavar="N", help="to train on, such as 20m or 2b"
    )
    length.add_argument(
        "--budget", metavar="TIME", help=f"time for all of it, such as 4h [{budget}]"
    )


def check_length(values: Values) -> None:
    """Raises a UsageError unless there are tokens or a budget, which is a time."""
    if (values["tokens"] is None) == (values["budget"] is None):
        raise UsageError("give --tokens or --budget, not both")
    if values["budget"] is not None:
        try:
            seconds_of(values["budget"])
        except ValueError as error:
            raise UsageError(f"--budget: {error}") from None


def given_of(options: argparse.Namespace, names: Sequence[str]) -> Values:
    """The settings of these names that were written out."""
    return {name: x for name in names if (x := getattr(options, name)) is not None}


@contextmanager
def claimed(
    options: argparse.Namespace,
    command: str,
    names: Sequence[str],
    begin: Callable[[Values], Values],
    go_on: Callable[[RunFolder, Values], Values],
) -> Iterator[tuple[RunFolder, Values]]:
    """The locked folder, new or to be resumed, and the values of its plan.

    Args:
      options: the command's, with --out and --resume.
      command: its name.
      names: of the settings that a folder keeps.
      begin: all values from those that are given; raises what is wrong with them.
      go_on: the values from those that a folder keeps; raises as well.
    """
    given = given_of(options, names)
    if options.resume is not None:
        with resumed(options.resume, given, names) as (folder, kept):
            yield folder, go_on(folder, kept)
        return
    values = begin(given)
    with begun(options.out, command, values) as folder:
        yield folder, values


@contextmanager
def resumed(path: Path, given: Values, names: Sequence[str]) -> Iterator[tuple]:
    """Locks the folder of what was begun: yields its RunFolder and what it keeps.

    Raises:
      UsageError: there is none, or settings are given anew.
    """
    with existing_run(path) as folder:
        if given:
            raise UsageError(
                f"what was begun keeps the settings in {folder.config}: leave out "
                f"{', '.join(sorted(given))}"
            )
        kept = read_values(folder.config, names)
        yield folder, {name: kept.get(name) for name in names}


@contextmanager
def begun(out: Path | None, name: str, values: Values) -> Iterator[RunFolder]:
    """Makes and locks the folder of a new run with these values in it."""
    text = tomli_w.dumps({k: v for k, v in values.items() if v is not None})
    with new_run(out, name, text) as folder:
        yield folder


def tokens_of(text: str) -> int:
    """20000, 5m or 2b.

    Raises:
      ValueError: anything else.
    """
    factors = {"k": 10**3, "m": 10**6, "b": 10**9}
    factor = factors.get(text[-1:].lower(), 1)
    number = float(text[:-1] if factor > 1 else text) * factor
    if not 1 <= number < 1e15:
        raise ValueError(text)
    return round(number)
