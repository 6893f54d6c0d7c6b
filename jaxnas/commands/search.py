"""`search`: the main job."""

from pathlib import Path

from jaxnas.config import RunConfig, make_config, read_toml
from jaxnas.errors import UsageError
from jaxnas.folder import RunFolder, existing_folder, new_folder
from jaxnas.options import Parser, add_settings, given_settings
from jaxnas.records import write_whole

_ABOUT = """\
Searches a space of language-model architectures on real code: candidates are
trained, compressed and scored on held-out files; the winner trains on, is scored
on the test split, and is saved with its tokenizer.

other commands:
  python -m jaxnas.run space NAME     counts and samples of a search space
  python -m jaxnas.run baselines      the reference architectures with their costs
"""


def main(arguments: list[str]):
    """Starts a run, or goes on with one."""
    parser = Parser(
        prog="python -m jaxnas.run",
        usage="python -m jaxnas.run [search] [--out DIR | --resume DIR] [settings]",
        description=_ABOUT,
    )
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="settings as TOML; flags win"
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--out", metavar="DIR", type=Path, help="the run folder [runs/SPACE-NNN]"
    )
    place.add_argument(
        "--resume",
        metavar="DIR",
        type=Path,
        help="go on with the run in this folder, with its own settings",
    )
    add_settings(parser)
    options = parser.parse_args(arguments)
    flags = given_settings(options)
    if options.resume is not None:
        folder, config = _resumed(options.resume, flags, options.config)
    else:
        written = {} if options.config is None else read_toml(options.config)
        make_config(written, str(options.config))  # the file's own mistakes first
        config = make_config(written | flags, "settings")
        config = config.anchored()
        folder = _started(options.out, config)
    try:
        with folder.lock():
            # Only now, for it takes seconds: a run killed before can be resumed.
            from jaxnas.session import run

            run(folder, config, resumed=options.resume is not None)
    except UsageError:
        if options.resume is None:
            folder.discard()
        raise


def _resumed(path: Path, flags: dict, file: Path | None) -> tuple[RunFolder, RunConfig]:
    folder = existing_folder(path)
    given = [f"--{name.replace('_', '-')}" for name in flags]
    given += [] if file is None else ["--config"]
    if given:
        raise UsageError(
            f"a resumed run keeps the settings in {folder.config}: "
            f"leave out {', '.join(given)}"
        )
    return folder, make_config(read_toml(folder.config), str(folder.config))


def _started(out: Path | None, config: RunConfig) -> RunFolder:
    folder = new_folder(out, config.space)
    try:
        write_whole(folder.config, config.to_toml())
    except OSError as error:
        raise UsageError(f"cannot write in {folder.path}: {error.strerror}") from None
    return folder
