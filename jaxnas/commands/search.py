"""`search`: the main job."""

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

from jaxnas.clock import BEGAN
from jaxnas.commands import COMMANDS
from jaxnas.commands.options import (
    Parser,
    add_settings,
    add_tracking,
    given_settings,
    tracked_by,
)
from jaxnas.config import (
    RunConfig,
    check_code,
    make_config,
    read_run_settings,
    read_toml,
)
from jaxnas.errors import UsageError
from jaxnas.presets import is_space_file
from jaxnas.storage.run_folder import RunFolder, existing_run, new_run

_ABOUT = """\
Searches a space of language-model architectures on real code: candidates are
trained, compressed and scored on held-out files; the winner trains on, is scored
on the test split, and is saved with its tokenizer.
"""


def _others() -> str:
    others = [(name, text) for name, text in COMMANDS.items() if name != "search"]
    return "\n".join(f"  {name:<10} {text}" for name, text in others)


def main(arguments: list[str]) -> None:
    """Starts a run, or goes on with one."""
    parser = Parser(
        prog="python -m jaxnas.run",
        usage="python -m jaxnas.run [search] [--out DIR | --resume DIR] [settings]",
        description=f"{_ABOUT}\nother commands, each with its own --help:\n{_others()}",
    )
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="settings as TOML; flags win"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="the run folder [runs/search-NNN, with --space runs/SPACE-NNN]",
    )
    where.add_argument(
        "--resume",
        metavar="DIR",
        type=Path,
        help="go on with the run in this folder, with its own settings",
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="print which candidates share a program, and its predicted seconds",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="HOST:PORT of a Ray cluster whose workers train the candidates, or auto: "
        "the one of this machine; results are those of this machine alone",
    )
    add_tracking(parser)
    add_settings(parser)
    options = parser.parse_args(arguments)
    with _claimed(options, given_settings(options)) as (folder, config):
        try:
            # Only now, for it takes seconds: a run killed before can be resumed.
            from jaxnas.pipeline.run import run
            from jaxnas.report.tracking import on_candidate

            with tracked_by(options, folder) as tracker:
                run(
                    folder,
                    config,
                    resumed=options.resume is not None,
                    verbose=options.verbose,
                    began=BEGAN,
                    ray=options.ray,
                    on_candidate=on_candidate(tracker),
                )
        except KeyboardInterrupt as error:
            again = " ".join(("--resume", str(folder.path), *config.code_flags))
            error.add_note(f"go on with {again}")
            raise


@contextlib.contextmanager
def _claimed(
    options: argparse.Namespace, flags: dict[str, str | int | float]
) -> Iterator[tuple[RunFolder, RunConfig]]:
    """The locked folder of the run, new or to be resumed, and its settings."""
    file = options.config
    if options.resume is None:
        written = {} if file is None else read_toml(file, anew=True)
        made = make_config(written, str(file))  # the file's own mistakes first
        if "objectives" not in flags:
            check_code(made, None, str(file))
        config = make_config(written | flags, "settings").anchored()
        name, space = _name_and_space(config.space)
        with new_run(options.out, name, config.to_toml(), space) as folder:
            yield folder, config
        return
    with existing_run(options.resume) as folder:
        config = read_run_settings(folder.config)
        if config.objectives is not None:
            check_code(config, flags.pop("objectives", None), str(folder.config))
        given = [f"--{name.replace('_', '-')}" for name in flags]
        given += [] if file is None else ["--config"]
        if given:
            raise UsageError(
                f"a resumed run keeps the settings in {folder.config}: "
                f"leave out {', '.join(given)}"
            )
        yield folder, config


def _name_and_space(space: str | None) -> tuple[str, str | None]:
    """See `jaxnas.spaces.name_and_space`, which needs JAX for a space of one's own."""
    if space is None or not is_space_file(space):
        return space or "search", None
    from jaxnas.spaces import name_and_space

    return name_and_space(space)
