"""`explain SHAPE`: where its parameters, memory and milliseconds go."""

import argparse
import dataclasses
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from arch import ArchitectureConfig
from arch.config import QUANTIZATIONS
from arch.cost.sizes import sizes_of
from arch.scaling.shape import TERMS, shape_terms
from jaxnas.analytic.breakdown import Portion, breakdown
from jaxnas.analytic.objectives import OBJECTIVES, Use
from jaxnas.automl.named_shape import in_words, named_shape
from jaxnas.automl.tables import counted
from jaxnas.automl.units import in_plain
from jaxnas.commands.options import Parser, whole
from jaxnas.errors import UsageError
from jaxnas.hardware import hardware_named
from jaxnas.report.tables import add_numbers, plain_console, plain_table, prints

_ABOUT = """\
Where the parameters, the memory and the milliseconds of a shape go, part by part.
SHAPE is an open model's name (llama-3-8b), FILE.json with a config, or numbers:
hidden=4096,layers=32,heads=32,kv=8,ffn=3.5,vocab=128256. Nothing is built.
"""
_BAR = 30  # characters of a whole
_MOST = 2**40  # of batch x tokens


def main(arguments: list[str]) -> None:
    """Prints a table of the parts, bars, and what the shape costs in predicted loss."""
    parser = Parser(
        prog="python -m jaxnas.run explain",
        usage="python -m jaxnas.run explain SHAPE [options]",
        description=_ABOUT,
    )
    parser.add_argument("shape", metavar="SHAPE")
    add_use(parser)
    options = parser.parse_args(arguments)
    use = use_of(options)
    config = shape_of(options.shape, options)
    console = plain_console()
    parts = breakdown(config, use)
    console.print(f"{options.shape}: {in_words(config)}")
    console.print(_table(parts))
    _bars(console, parts)
    sizes = sizes_of(config)
    for term in TERMS:
        share = float(shape_terms(sizes).get(term.name, 0.0))
        if share:
            console.print(
                f"{term.name} adds {100 * share:.2f} % to the predicted loss: "
                f"{term.measure}, free {term.free}"
            )
    loss = float(np.asarray(OBJECTIVES["loss"].of(sizes, sizes, use)))
    console.print(f"predicted loss {loss:.4f}: {use.law.label}")
    console.print(described(use))


def add_use(parser: argparse.ArgumentParser) -> None:
    """How shapes are used: the device, its work, how weights are stored."""
    parser.add_argument("--hardware", default="a100", metavar="NAME", help="[a100]")
    for flag, value, text in (
        ("--devices", 1, "that share every matrix"),
        ("--batch", 1, "sequences side by side"),
        ("--prompt", 512, "tokens of a prefill"),
        ("--context", 2048, "tokens remembered while decoding"),
    ):
        parser.add_argument(
            flag, type=whole(), default=value, metavar="N", help=f"{text} [{value}]"
        )
    parser.add_argument(
        "--tokens", default="1T", metavar="X", help="trained on, for the loss [1T]"
    )
    parser.add_argument(
        "--precision", choices=QUANTIZATIONS, default="fp16", help="of weights [fp16]"
    )


def use_of(options: argparse.Namespace) -> Use:
    """The use that options say.

    Raises:
      UsageError: no such device, or a number that cannot be.
    """
    if options.batch * max(options.prompt, options.context) > _MOST:
        raise UsageError("--batch times --prompt or --context cannot be counted")
    try:
        tokens = float(in_plain(options.tokens, "count"))
    except ValueError as error:
        raise UsageError(f"--tokens {options.tokens} {error}") from None
    try:
        return Use(
            hardware=hardware_named(options.hardware),
            devices=options.devices,
            batch=options.batch,
            prompt=options.prompt,
            context=options.context,
            training_tokens=tokens,
            shape=True,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def shape_of(text: str, options: argparse.Namespace) -> ArchitectureConfig:
    """The shape, its weights stored as options say."""
    return dataclasses.replace(named_shape(text), quantization=options.precision)


def described(use: Use) -> str:
    """How shapes are used, for a line."""
    return (
        f"latency: batch {use.batch}, {use.prompt} tokens read, {use.context} "
        f"remembered, on {use.devices} x {use.hardware.name}, not calibrated"
    )


def _table(parts: Sequence[Portion]) -> Table:
    table = plain_table("Where it goes", "part")
    add_numbers(table, "params", "MiB", "prefill ms", "ms/token")
    sums = [sum(column) for column in zip(*(part[1:] for part in parts), strict=True)]
    for part in [*parts, Portion("together", int(sums[0]), *sums[1:])]:
        table.add_row(
            part.name,
            counted(part.parameters),
            f"{part.mib:,.1f}",
            f"{part.prefill_ms:,.3f}",
            f"{part.decode_ms:,.3f}",
        )
    return table


def _bars(console: Console, parts: Sequence[Portion]) -> None:
    width = max(len(part.name) for part in parts)
    sign = "█" if prints("█") else "#"
    for title, values in (
        ("parameters", [float(part.parameters) for part in parts]),
        ("memory", [part.mib for part in parts]),
        ("prefill", [part.prefill_ms for part in parts]),
        ("decode", [part.decode_ms for part in parts]),
    ):
        console.print(f"{title}:")
        for part, value in zip(parts, values, strict=True):
            share = value / sum(values)
            if value:
                bar = sign * max(1, round(_BAR * share))
                console.print(f"  {part.name:<{width}} {bar} {100 * share:.1f} %")
