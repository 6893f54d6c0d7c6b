"""What a run knows before anything trains: data, device, a plan that fits."""

import contextlib
import math
from collections.abc import Callable
from typing import NamedTuple

from rich.console import Console

from arch import ArchitectureConfig
from arch.cost import MIB, Hardware
from arch.space import Space
from jaxnas.analytic.cost_table import CostTable
from jaxnas.clock import Clock
from jaxnas.config import RunConfig, Settings
from jaxnas.data import prepare
from jaxnas.evaluation.fitness import OBJECTIVES, deciding
from jaxnas.evaluation.user_objectives import objective_names
from jaxnas.latency.finalists import hardware_of
from jaxnas.pipeline.budget import before_plan, fit_to_budget, planned_by
from jaxnas.pipeline.build import (
    check_memory,
    check_settings,
    make_fitness,
    make_task,
)
from jaxnas.pipeline.limits import costs_of_space, fields_of
from jaxnas.pipeline.strategy import compiled_strategy, first_asked
from jaxnas.population.devices import Machine, local_machine
from jaxnas.population.pace import Pace
from jaxnas.population.probe import Probed
from jaxnas.population.ray_cluster import Cluster, connected
from jaxnas.runtime import backend
from jaxnas.spaces import read_space, still_holds
from jaxnas.storage.files import write_whole
from jaxnas.storage.run_folder import RunFolder
from jaxnas.training.task import Task
from search import Strategy


class Ready(NamedTuple):
    """What a run knows before anything trains."""

    folder: RunFolder
    config: Settings  # fitted to the budget
    clock: Clock
    task: Task
    hardware: Hardware  # whose latency is predicted
    machine: Machine
    table: CostTable  # what the space's models cost
    pace: Pace  # learned from what runs
    probed: Probed | None  # compiled by then
    strategy: Strategy | None  # that asked for it
    cluster: Cluster | None  # whose workers train


def connected_to(
    address: str, config: Settings, console: Console
) -> contextlib.AbstractContextManager[Cluster]:
    """The Ray cluster there, until the context ends."""
    return connected(address, _memory_limit(config), _sayer(console))


def space_of_run(folder: RunFolder, config: Settings, console: Console) -> Space:
    """The space that the run began with, whatever became of its file."""
    space, text = read_space(config.space, folder.space)
    if not still_holds(config.space, text):
        console.print(
            f"{config.space} is not what it was when the run began: the run keeps "
            f"the space in {folder.space}",
            soft_wrap=True,
        )
    return space


def prepare_run(
    folder: RunFolder,
    given: RunConfig,
    config: Settings,
    space: Space,
    clock: Clock,
    cluster: Cluster | None,
    console: Console,
) -> Ready:
    """Reads the data, knows the device, fits the settings to the budget.

    Args:
      folder: where the settings are written as they came to be.
      given: the settings as they were asked for.
      config: them, resolved.
      space: that is searched.
      clock: the budget's.
      cluster: whose workers train, if any do.
      console: is told what takes long.
    """
    say = _sayer(console)
    check_settings(config)  # before the data, which can take minutes
    dataset = prepare(config.data, config.vocab_size)
    members = 0 if cluster is None else len(cluster.members)
    machine = local_machine(_memory_limit(config), members)
    check_memory(config, machine)
    # Before the plan, which is for the time that is left then.
    hardware = hardware_of(config, folder.manifest, say)
    task = make_task(config, dataset)
    pace = Pace(machine.cores if machine.shares_cores else math.inf)
    strategies: list[Strategy] = []
    # What is asked for is decided before the plan is; a resume asks for the same.
    unplanned = before_plan(given, clock).resolve(backend())
    table = costs_of_space(unplanned, hardware, fields_of(task), space)
    first = _asker(strategies, task, table)
    config, probed = fit_to_budget(
        given, config, table, task, machine, clock, pace, first, say
    )
    write_whole(folder.config, config.to_toml(planned_by(clock)))
    task = make_task(config, dataset)
    return Ready(
        folder,
        config,
        clock,
        task,
        hardware,
        machine,
        table,
        pace,
        probed,
        next(iter(strategies), None),
        cluster,
    )


def _asker(
    strategies: list[Strategy], task: Task, table: CostTable
) -> Callable[[Settings], list[ArchitectureConfig]]:
    """What a search with given settings asks for first; its strategy is kept."""

    def first(config: Settings) -> list[ArchitectureConfig]:
        scores, number = make_fitness(config), len(objective_names(config.objectives))
        columns = deciding(scores, len(OBJECTIVES) + number)
        strategies.append(compiled_strategy(config, table, scores, columns))
        return first_asked(config, strategies[0], table, fields_of(task))

    return first


def _memory_limit(config: Settings) -> float | None:
    """Bytes of a device that may be used, if the settings say so."""
    return None if config.memory_limit is None else config.memory_limit * MIB


def _sayer(console: Console) -> Callable[[str], None]:
    """Prints a line, however long."""
    return lambda text: console.print(text, soft_wrap=True)
