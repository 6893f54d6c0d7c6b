"""The population as this project trains it."""

import numpy as np
from contenders.scenarios import LEARNING_RATE, SEED, Problem

from arch import ArchitectureConfig
from jaxnas.data import Dataset
from jaxnas.population.call import Outcome, Work
from jaxnas.population.compiler import Compiler
from jaxnas.population.devices import local_machine
from jaxnas.population.executor import execute
from jaxnas.population.plan import Plan
from jaxnas.population.planner import planner_for
from jaxnas.training.settings import TrainSettings
from jaxnas.training.single import training_config
from jaxnas.training.task import Task


def run_ours(
    configs: list[ArchitectureConfig], task: Task, starts: np.ndarray, how: str
) -> tuple[np.ndarray, Plan]:
    """Trains all configs.

    Args:
      configs: distinct transformers.
      task: tokens, settings and seed.
      starts: i32[steps, B], where each step's windows begin.
      how: "planned", buckets as planned by cost; "one_bucket", all that have the
        same heads padded into one program; "exact", a program for each config.

    Returns:
      f32[M], nats per token at each model's last step, and the plan.
    """
    machine = local_machine()
    members = [training_config(config) for config in configs]
    planner = planner_for(machine, task.settings, steps=len(starts), scoring=0.0)
    if how == "planned":
        plan = planner.plan(members)
    else:
        plan = planner.fixed(members, exact=how == "exact")
    losses = np.full(len(members), np.nan)
    work = Work(task=task, starts=starts, windows=starts[:0], wanted={})

    def take(outcome: Outcome) -> bool:
        if outcome.error is not None:
            raise outcome.error
        losses[int(outcome.key)] = outcome.loss
        return True

    execute(
        plan,
        {str(number): member for number, member in enumerate(members)},
        work,
        Compiler(task, windows=None, lone=None),
        take,
        devices=machine.devices,
        workers=machine.workers,
        memory=machine.memory,
    )
    return losses, plan


def set_up(problem: Problem) -> dict:
    """The devices, and how many calls run side by side."""
    return {"workers": local_machine().workers}


def train(problem: Problem, how: str) -> dict:
    """Through `run_ours`."""
    configs = [ArchitectureConfig(**fields) for fields in problem.configs]
    losses, plan = run_ours(configs, task_of(problem), problem.starts, how)
    return {
        "losses": losses.tolist(),
        "programs": len(plan.programs()),
        "predicted": plan.seconds,
    }


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
