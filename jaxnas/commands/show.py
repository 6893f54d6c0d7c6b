"""`show WHAT`: a model drawn, and where its figures go."""

from typing import NamedTuple

from rich.table import Table

from arch import ArchitectureConfig
from arch.baselines import BASELINES
from arch.cost import MIB, Hardware
from jaxnas.analytic.breakdown import Portion, breakdown
from jaxnas.analytic.objectives import Use
from jaxnas.automl.named_shape import named_shape
from jaxnas.automl.tables import counted
from jaxnas.commands.options import Parser, check_flags, file_to_write
from jaxnas.errors import UsageError
from jaxnas.hardware import hardware_named
from jaxnas.population.train_memory import TrainingMemory, training_memory
from jaxnas.report.drawing import drawing_file, drawing_text
from jaxnas.report.tables import add_numbers, plain_console, plain_table, prints
from jaxnas.report.words import describe
from jaxnas.results.record import Record, read_record
from jaxnas.storage.files import write_whole
from jaxnas.storage.inputs import is_file, is_folder, user_path
from jaxnas.storage.jsonl import Json
from jaxnas.storage.run_folder import RunFolder

_ABOUT = """\
A model drawn, with what each part has of its parameters, bytes and milliseconds.
WHAT is a run's folder (its best, or candidate --id N), a folder with a saved model,
FILE.json with a config, a baseline's name, or a shape as for `explain`.
"""
_PROMPT = 128  # tokens read, and remembered while decoding
_HARDWARE = "cpu-core"
_STEP = 8, 64  # windows and tokens of a training step, where no run says


class Shown(NamedTuple):
    """What is shown, and on what device it runs."""

    title: str
    config: ArchitectureConfig
    hardware: Hardware | None = None  # of a run's own device
    step: tuple[int, int] = _STEP  # windows and tokens of a training step


def main(arguments: list[str]) -> None:
    """Prints the drawing and the tables; writes the drawing where --svg says so."""
    options = _parser().parse_args(arguments)
    size = {"least": 1, "most": 2**20, "kind": int}
    check_flags(vars(options), {"batch": size, "window": size}, ("batch", "window"))
    shown = shown_as(options.what, options.id)
    config = shown.config
    named = None if options.hardware is None else hardware_named(options.hardware)
    hardware = named or shown.hardware or hardware_named(_HARDWARE)
    console = plain_console()
    console.print(f"{shown.title}: {describe(config)}", soft_wrap=True)
    drawing = drawing_text(config, not prints("┌│╭"), console.width)
    console.print(drawing, soft_wrap=True)
    use = Use(hardware=hardware, prompt=_PROMPT, context=_PROMPT)
    console.print(_parts(breakdown(config, use)))
    console.print(
        f"ms of {_PROMPT} tokens read, and of a token drawn behind them, on "
        f"{hardware.name}, by the roofline",
        soft_wrap=True,
    )
    batch, window = options.batch or shown.step[0], options.window or shown.step[1]
    console.print(_memory(training_memory(config, batch, window), batch, window))
    if options.svg is not None:
        write_whole(options.svg, drawing_file(config))
        console.print(f"drawing     {options.svg}", soft_wrap=True)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m jaxnas.run show",
        usage="python -m jaxnas.run show WHAT [--id N] [--svg FILE]",
        description=_ABOUT,
    )
    add = parser.add_argument
    add("what", metavar="WHAT")
    add("--id", type=int, metavar="N", help="a run's candidate [its best]")
    add("--svg", type=file_to_write, metavar="FILE", help="write the drawing there")
    add("--batch", type=int, metavar="N", help=f"windows a step [run's, {_STEP[0]}]")
    add("--window", type=int, metavar="N", help=f"their tokens [run's, {_STEP[1]}]")
    add("--hardware", metavar="NAME", help=f"for ms [the run's, or {_HARDWARE}]")
    return parser


def shown_as(what: str, identity: int | None = None) -> Shown:
    """The config that a user means.

    Raises:
      UsageError: there is none.
    """
    path = user_path(what)
    if is_file(RunFolder(path).config) and not RunFolder(path).curve.exists():
        return _of_run(read_record(path), identity)
    if identity is not None:
        raise UsageError(f"--id {identity}: {what} is no run of a search")
    if is_folder(path):
        inside = RunFolder(path).model
        folder = path if is_file(path / "config.json") else inside
        return Shown(what, named_shape(str(folder / "config.json")))
    if what in BASELINES:
        return Shown(what, BASELINES[what])
    return Shown(what, named_shape(what))


def _of_run(record: Record, identity: int | None) -> Shown:
    decides: Json = {**record.manifest.get("decides", {})}
    profile = decides.get("hardware_profile")
    hardware = Hardware(**profile | {"calibrated": None}) if profile else None
    run, step = str(record.folder.path), (record.config.batch, record.config.window)
    if identity is None:
        if record.best is None:
            raise UsageError(f"{run}: no candidate has succeeded yet")
        title = "best so far" if record.summary is None else "winner"
        best = record.best
        return Shown(f"{run}, {title} #{best.id}", best.config, hardware, step)
    for one in record.results:
        if one.id == identity:
            title = f"{run}, candidate #{identity}"
            return Shown(title, one.config, hardware, step)
    most = max((one.id for one in record.results), default=-1)
    raise UsageError(f"--id {identity}: {run} has no such candidate, 0 to {most}")


def _parts(parts: list[Portion]) -> Table:
    table = plain_table("Part by part", "part")
    add_numbers(table, "params", "MiB", "prefill ms", "ms/token")
    sums = [sum(column) for column in zip(*(part[1:] for part in parts), strict=True)]
    there = [part for part in parts if any(part[1:])]
    for part in [*there, Portion("together", int(sums[0]), *sums[1:])]:
        table.add_row(
            part.name,
            counted(part.parameters),
            f"{part.mib:,.3f}",
            f"{part.prefill_ms:,.3f}",
            f"{part.decode_ms:,.4f}",
        )
    return table


def _memory(found: TrainingMemory, batch: int, window: int) -> Table:
    table = plain_table("Memory of a training", f"{batch} x {window} tokens a step")
    add_numbers(table, "MiB")
    for name, value in (*found._asdict().items(), ("together", found.total)):
        table.add_row(name, f"{value / MIB:,.2f}")
    return table
