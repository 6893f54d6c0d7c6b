"""The population as this project trains it."""

import jax
import numpy as np
from population_scenarios import LEARNING_RATE, SEED, Problem

from arch import ArchitectureConfig
from jaxnas.data import Dataset
from jaxnas.evaluation.task import Task
from jaxnas.train.settings import TrainSettings


# ---------------------------------------------------------------------------
# TO FILL IN: the one function of this benchmark that waits for the API.
# ---------------------------------------------------------------------------
def run_ours(
    configs: list[ArchitectureConfig], task: Task, steps: int, how: str
) -> np.ndarray:
    """Trains all configs.

    Args:
      configs: distinct transformers.
      task: tokens, settings and seed; its starts are drawn with `batch_starts`
        over `Phase(samples=steps * task.settings.batch, epochs=1)`.
      steps: of each model.
      how: "planned", buckets as planned by cost; "one_bucket", all padded into
        one program; "exact", a program for each config. JAX's compilation
        cache is set up already, by the environment.

    Returns:
      f32[M], nats per token at each model's last step, on the host.

    Raises:
      population_scenarios.CannotRunError: one bucket cannot hold these configs;
        its text is printed as the reason.
    """
    raise NotImplementedError(f"run_ours({how=}) is to be filled in")


def set_up(problem: Problem) -> dict:
    """Nothing to choose; says what it runs on."""
    return {"cache": jax.config.values["jax_compilation_cache_dir"] is not None}


def train(problem: Problem, how: str) -> dict:
    """Through `run_ours`."""
    configs = [ArchitectureConfig(**fields) for fields in problem.configs]
    losses = run_ours(configs, task_of(problem), problem.scenario.steps, how)
    return {"losses": np.asarray(losses, float).tolist()}


def task_of(problem: Problem) -> Task:
    """The problem's tokens and hyperparameters as a run's task."""
    scenario = problem.scenario
    dataset = Dataset(
        spec="synthetic",
        corpus_hash="",
        train=problem.tokens,
        validation=problem.tokens[:0],
        test=problem.tokens[:0],
        token_bytes=np.ones(scenario.vocab, np.int32),
        tokenizer=None,  # training reads tokens only
        vocab_size=scenario.vocab,
        statistics={},
    )
    settings = TrainSettings(
        window=scenario.window, batch=scenario.batch, learning_rate=LEARNING_RATE
    )
    return Task(
        dataset=dataset, settings=settings, seed=SEED, dtype=np.dtype(np.float32)
    )
