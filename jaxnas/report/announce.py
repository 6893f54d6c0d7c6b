"""What a run says before it begins."""

import math

import jax
from rich.console import Console

from jaxnas.analytic.cost_table import CostTable, limits_in_words
from jaxnas.config import Settings
from jaxnas.data import score_bigram, score_unigram
from jaxnas.evaluation.evaluator import Evaluator
from jaxnas.evaluation.fitness import OBJECTIVES
from jaxnas.latency.finalists import describe_latency
from jaxnas.report.words import phases_in_words
from jaxnas.storage.run_folder import RunFolder
from jaxnas.wording import counted


def announce(
    folder: RunFolder,
    config: Settings,
    evaluator: Evaluator,
    table: CostTable,
    console: Console,
) -> None:
    """Where, what, on which data, how, and what there is to beat."""
    space = table.space
    dataset = evaluator.task.dataset
    chosen = evaluator.trainer.validation_windows()
    unigram = score_unigram(dataset.train, chosen, dataset.token_bytes)
    bigram = score_bigram(dataset.train, chosen, dataset.token_bytes)
    lines = [
        f"run folder   {folder.path}",
        f"space        {space.name}: {space.distinct_count:,} distinct "
        f"models; {counted(config.generations, 'generation')} of {config.population}, "
        f"{_ends(config)}{config.strategy}, seed {config.seed}",
        f"limits       {_limits(config)}: {table.feasible:,} models keep to them",
        f"data         {dataset.spec}: {dataset.statistics['bytes'] / 1e6:.1f} MB in "
        f"{dataset.statistics['files_kept']} files, {len(dataset.train):,} training "
        f"tokens of a vocabulary of {dataset.vocab_size}",
        f"training     {phases_in_words(config)} a candidate, on "
        f"{jax.devices()[0].device_kind}; "
        f"latency {describe_latency(evaluator.latency, evaluator.hardware)}",
        f"to beat      token unigram {unigram.bits_per_byte:.3f} bits/byte "
        f"(accuracy {unigram.accuracy:.4f}), token bigram "
        f"{bigram.bits_per_byte:.3f} ({bigram.accuracy:.4f}), on the validation split",
    ]
    if names := evaluator.extra.names:
        lines.insert(3, f"objectives   {', '.join([*OBJECTIVES, *names])}")
        if config.strategy in ("random", "genetic"):
            lines[3] += f"; {config.strategy} search is guided by none of yours"
    console.print("\n".join(lines), soft_wrap=True)


def _ends(config: Settings) -> str:
    """What may end the search before its last generation."""
    words = (
        (config.max_evals, "{} candidates at most, "),
        (config.patience, "{} in a row without progress at most, "),
        (config.target, "until {}, "),
    )
    return "".join(text.format(value) for value, text in words if value is not None)


def _limits(config: Settings) -> str:
    most = math.inf if config.max_latency is None else config.max_latency
    return limits_in_words(config.max_size, most)
