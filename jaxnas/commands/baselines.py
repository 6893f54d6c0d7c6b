"""`baselines`: the reference architectures with their costs."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from arch import ArchitectureConfig, cost
from arch.baselines import BASELINES
from arch.families import has_heads
from arch.published import KNOWN
from jaxnas.commands.options import Parser, add_settings, given_settings
from jaxnas.config import RunConfig, make_config, read_toml
from jaxnas.evaluation.costs import costs_of
from jaxnas.evaluation.evaluator import Evaluation
from jaxnas.hardware import hardware_named
from jaxnas.population.train_memory import training_memory
from jaxnas.report.tables import (
    add_numbers,
    millions,
    plain_console,
    plain_table,
)

BATCH, WINDOW = 8, 128  # of the training whose memory is counted


def main(arguments: list[str]) -> None:
    """Prints a row a baseline; trains them if asked to."""
    parser = Parser(
        prog="python -m jaxnas.run baselines",
        usage="python -m jaxnas.run baselines [--evaluate] [settings]",
        description="The reference architectures with their costs.",
    )
    parser.add_argument(
        "--evaluate",
        action="store_true",
        help="train and score them too",
    )
    parser.add_argument("--config", metavar="FILE", type=Path, help="settings as TOML")
    add_settings(parser)
    options = parser.parse_args(arguments)
    written = {} if options.config is None else read_toml(options.config)
    config = make_config(written | given_settings(options), "settings")
    console = plain_console()
    hardware = hardware_named(config.hardware)
    table = plain_table("Baselines, vocabulary 50,000", "name", "architecture")
    add_numbers(table, "params", "stored", "MiB", "MFLOP/token", "ms", "train MiB")
    for name, baseline in BASELINES.items():
        costs = costs_of(baseline, hardware)
        table.add_row(
            name,
            _shape(baseline),
            millions(costs.parameters),
            millions(costs.stored_parameters),
            f"{costs.size_mib:.1f}",
            f"{costs.forward_flops / 128 / 1e6:.0f}",
            f"{costs.latency_ms:.2f}",
            f"{training_memory(baseline, BATCH, WINDOW).total / cost.MIB:,.0f}",
        )
    console.print(table)
    console.print(
        f"params are counted before pruning, stored after; ms: 128 tokens at batch 1 "
        f"on {hardware.name}, by the roofline; train MiB: a training of {BATCH} "
        f"windows of {WINDOW} tokens in float32, see docs/costs.md",
    )
    console.print(_known_models())
    if options.evaluate:
        _evaluate(config, console)


def _known_models() -> Table:
    table = plain_table("Known models, in parameters", "name", "architecture")
    add_numbers(table, "counted", "published")
    for name, known in KNOWN.items():
        counted, published = cost.parameters(known.config), known.parameters
        table.add_row(name, _shape(known.config), f"{counted:,}", f"{published:,}")
    return table


def _evaluate(config: RunConfig, console: Console) -> None:
    from jaxnas.api import make_config_evaluator

    evaluator = make_config_evaluator(config)
    table = plain_table("Trained and scored", "name")
    add_numbers(table, "accuracy", "bits/byte", "perplexity", "fitness")
    for name, baseline in BASELINES.items():
        console.print(f"training {name} ...")
        table.add_row(name, *_quality(evaluator(baseline)))
    phase, data = evaluator.trainer.rungs[0].phase, evaluator.task.dataset
    console.print(table)
    console.print(
        f"{phase.samples} windows of {evaluator.task.settings.window} tokens x "
        f"{phase.epochs} epochs on {data.spec}, a tokenizer of {data.vocab_size}, "
        f"seed {evaluator.task.seed}; scored after quantisation and pruning",
    )


def _quality(evaluation: Evaluation) -> list[str]:
    metrics = evaluation.metrics
    if metrics is None:
        return [f"{evaluation.status}: {evaluation.reason}", "-", "-", "-"]
    return [
        f"{metrics.accuracy:.4f}",
        f"{metrics.bits_per_byte:.3f}",
        f"{metrics.perplexity:.1f}",
        f"{evaluation.fitness:.4f}",
    ]


def _shape(config: ArchitectureConfig) -> str:
    heads = f" heads {config.num_heads}" if has_heads(config.arch_type) else ""
    return f"{config.arch_type} L{config.num_layers} H{config.hidden_dim}{heads}"
