"""jaxnas from Python: the three calls that most users need."""

import dataclasses
from pathlib import Path
from typing import Any

from arch import ArchitectureConfig
from jaxnas.config import RunConfig, check_code, read_run_settings
from jaxnas.data import prepare
from jaxnas.errors import UsageError
from jaxnas.evaluation.evaluator import Evaluation, Evaluator
from jaxnas.latency.finalists import hardware_of
from jaxnas.pipeline.build import make_evaluator, make_task, make_trainer
from jaxnas.pipeline.run import run
from jaxnas.pipeline.watcher import OnCandidate
from jaxnas.presets import NO_LIMIT
from jaxnas.results.summary import Summary
from jaxnas.runtime import backend, set_up
from jaxnas.spaces import load_space, name_and_space
from jaxnas.storage.run_folder import existing_run, new_run


def make_config_evaluator(
    config: RunConfig, vocab_size: int | None = None
) -> Evaluator:
    """An evaluator with a run's settings, outside of a run.

    The limits that a space is searched within by default do not hold here: a model
    that someone names is trained, whatever its size. Limits that are given do.

    Args:
      config: resolved or not.
      vocab_size: what the models have room for; the tokenizer takes no more.
    """
    set_up()
    config = dataclasses.replace(
        config.resolve(backend()),
        max_size=config.max_size or NO_LIMIT,
        max_latency=config.max_latency,
    )
    tokens = (
        config.vocab_size if vocab_size is None else min(config.vocab_size, vocab_size)
    )
    task = make_task(config, prepare(config.data, tokens))
    trainer = make_trainer(config, task)
    space = load_space(config.space)
    return make_evaluator(config, trainer, space, hardware=hardware_of(config))


def evaluate(
    config: ArchitectureConfig, phase: str = "fast", **settings: Any
) -> Evaluation:
    """Trains one architecture on real code and scores it.

    Args:
      config: trained as it is; its vocabulary must hold the tokenizer's.
      phase: fast | medium | full, at the preset's scale; or SAMPLESxEPOCHS.
      **settings: of a `RunConfig`: data, preset, seed, samples, ...

    Returns:
      Costs, metrics on the validation split, objectives and fitness. A
      failure is a result too: see `status` and `reason`.

    Raises:
      UsageError: a setting that cannot be used.
      ValueError: the config has no room for the tokenizer or a window.
    """
    run_config = RunConfig(phases=phase, **settings)
    if "," in phase:
        raise UsageError(f"phase={phase!r}: one architecture is trained for one phase")
    return make_config_evaluator(run_config, config.vocab_size)(config)


def search(
    out: str | Path | None = None,
    *,
    on_candidate: OnCandidate | None = None,
    ray: str | None = None,
    **settings: Any,
) -> Summary:
    """Runs a whole search, as the command line does.

    Args:
      out: the run folder; by default the first free runs/SPACE-NNN, or
        runs/search-NNN without a space.
      on_candidate: called with the `Result` of each candidate once it is recorded,
        in their order, and once more for each later phase that it trains in; its
        `phase` names that. A true value ends the search after that generation, in
        later phases nothing. An exception ends the run and comes to the caller; what
        was recorded is kept, and `resume` goes on.
      ray: HOST:PORT of a Ray cluster whose workers train the candidates; auto is
        the one that this process is connected to, or that runs on this machine.
      **settings: of a `RunConfig`: space, population, generations, seed, ...

    Returns:
      The summary that the run folder holds too: the winner's config, the
      spread of each score, the winner's quality on the held-out splits.

    Raises:
      UsageError: a setting or the folder cannot be used.
      RunFailed: no candidate succeeded, or no model of the space keeps the limits.
    """
    config = RunConfig(**settings).anchored()
    path = None if out is None else Path(out)
    name, space = name_and_space(config.space)
    with new_run(path, name, config.to_toml(), space) as folder:
        return run(folder, config, on_candidate=on_candidate, ray=ray)


def resume(
    out: str | Path,
    *,
    on_candidate: OnCandidate | None = None,
    ray: str | None = None,
    objectives: str | None = None,
) -> Summary:
    """Goes on with a run that was stopped; returns what `search` returns.

    Args:
      out: the run folder.
      on_candidate: as for `search`. It is called first with the results that the
        run goes on from, so that it sees every candidate of the run once, in their
        order; of a run that is finished it sees none. A search that a callback ended
        does not go on, with or without one.
      ray: as for `search`, whether or not the run began so.
      objectives: the run's own, if it has any: code that a folder alone names is not
        run.

    Raises:
      UsageError: the folder holds no run, or one that cannot be resumed.
      RunFailed: no candidate succeeded, or no model of the space keeps the limits.
    """
    with existing_run(Path(out)) as folder:
        config = read_run_settings(folder.config)
        check_code(config, objectives, str(folder.config))
        return run(folder, config, resumed=True, on_candidate=on_candidate, ray=ray)
