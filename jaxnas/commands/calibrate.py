"""`calibrate`: how long prefill and decode take on this device."""

import argparse
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import rich.progress
from rich.console import Console
from rich.table import Table

from jaxnas.commands.options import MANY, Parser, file_to_write, whole
from jaxnas.errors import UsageError
from jaxnas.report.steps import bars_on
from jaxnas.report.tables import add_numbers, plain_console, plain_table
from jaxnas.storage.files import write_json
from jaxnas.storage.jsonl import Json

if TYPE_CHECKING:
    import jax

    from arch import ArchitectureConfig
    from arch.cost import Calibrated
    from jaxnas.latency.compare import Comparison
    from jaxnas.latency.measure import Measured

_ABOUT = """\
Measures prefill (batch 1, 128 tokens) and decode (a token) of small models of all
families on this process's device, and fits the rates that searches predict latency
with (--latency prefill | decode). It is kept for this device, its cores and this
version of jax, in place of what was there; a search without one measures by itself.
"""
FEWEST = 12  # models, two of each family


def main(arguments: list[str]) -> None:
    """Measures, fits, keeps; with --check prints how it agrees on other models."""
    options = _parse(arguments)
    # Only now, for it takes seconds.
    import jax

    from jaxnas.latency.configs import draw_configs
    from jaxnas.latency.fit import fit
    from jaxnas.latency.measure import measure
    from jaxnas.latency.store import about_of, keep_calibration, path_of
    from jaxnas.runtime import compute_dtype, cores, set_up

    set_up()
    console, [device, *_] = plain_console(), jax.devices()
    configs = draw_configs(options.seed, options.models + options.check)
    with _shown(console) as report:
        measured = measure(configs, device, compute_dtype(), cores(), report)
    used = slice(0, options.models)
    calibrated = fit(configs[used], measured[used])
    rows = [
        {"config": config.to_dict(), **times.to_dict()}
        for config, times in zip(configs, measured, strict=True)
    ]
    result: Json = {
        "calibrated": dataclasses.asdict(calibrated),
        "about": about_of(device),
        "seed": options.seed,
        "measured": rows[used],
    }
    kept = keep_calibration(device, calibrated, seed=options.seed, measured=rows[used])
    console.print(_rates_table(calibrated, f"Rates of {device.device_kind}"))
    console.print(
        f"median error of {options.models} models, each left out of the fit: "
        f"prefill {calibrated.prefill.error:.1%}, decode {calibrated.decode.error:.1%}"
    )
    if options.check:
        result["agreement"] = _check(
            console, device, calibrated, configs, measured, options.models
        )
        result["checked"] = rows[options.models :]
    if options.out is not None:
        write_json(options.out, result)
    console.print(
        f"kept in {path_of(device)}" if kept else "the cache refuses: nothing is kept",
        soft_wrap=True,
    )


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog="python -m jaxnas.run calibrate",
        usage="python -m jaxnas.run calibrate [--check N] [--out FILE] [options]",
        description=_ABOUT,
    )
    for flag, value, text in (
        ("--models", 30, f"to measure and fit, at least {FEWEST}"),
        ("--check", 0, "further models, measured and compared with the predictions"),
        ("--seed", 0, "decides which models"),
    ):
        parser.add_argument(
            flag, type=whole(MANY), default=value, metavar="N", help=f"{text} [{value}]"
        )
    parser.add_argument(
        "--out", metavar="FILE", type=file_to_write, help="all figures as JSON too"
    )
    options = parser.parse_args(arguments)
    if options.models < FEWEST:
        raise UsageError(f"--models must be at least {FEWEST}, got {options.models}")
    if options.check < 0 or not 0 <= options.seed < 2**32:
        raise UsageError("--check must be at least 0, --seed in 0 to 2**32 - 1")
    return options


@contextlib.contextmanager
def _shown(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Yields a function that is told what is done, how much, and of how much."""
    bars = bars_on(console)
    tasks: dict[str, rich.progress.TaskID] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total)
        bars.update(tasks[what], completed=done)

    with bars:
        yield report


def _rates_table(calibrated: "Calibrated", title: str) -> Table:
    """Rates other than 0, of both readings."""
    from arch.cost.calibrated import TERMS

    table = plain_table(f"{title}, in seconds each", "term")
    add_numbers(table, "prefill", "decode")
    for term in TERMS:
        rates = [fit.rates.get(term) for fit in (calibrated.prefill, calibrated.decode)]
        if any(rates):
            table.add_row(term, *("-" if r is None else f"{r:.2e}" for r in rates))
    return table


def _check(
    console: Console,
    device: "jax.Device",
    calibrated: "Calibrated",
    configs: "Sequence[ArchitectureConfig]",
    measured: "Sequence[Measured]",
    models: int,
) -> "list[Comparison]":
    """Compares with models that no fit has seen; prints and returns the rows.

    Args:
      console: to print on.
      device: that was measured.
      calibrated: what the first models gave.
      configs: of all models.
      measured: their times.
      models: how many of them were fitted to.
    """
    from jaxnas.hardware import hardware_named
    from jaxnas.latency.compare import compare

    rows = compare(
        calibrated,
        hardware_named("auto"),
        (configs[:models], measured[:models]),
        (configs[models:], measured[models:]),
    )
    title = f"Predictions of {len(configs) - models} models that no fit has seen"
    table = plain_table(title, "reading", "predictor")
    add_numbers(table, "error", "worst", "Spearman", "within", "mean", "lowest")
    for row in rows:
        ranks = (row["spearman"], row["within"], row["mean"], row["lowest"])
        table.add_row(
            row["reading"],
            row["predictor"],
            f"{row['error']:.1%}",
            f"{row['worst']:.0%}",
            *("-" if rank is None else f"{rank:.3f}" for rank in ranks),
        )
    console.print(table)
    console.print(
        "error is the median; within: Spearman when the width is known; mean and "
        "lowest: of Spearman's among the models of each width",
    )
    return rows
