"""Members of a program, trained side by side or one after the other."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from arch import ArchitectureConfig, Params, build_model
from arch.initial import draw_parameters
from arch.padding import extract, pad
from jaxnas.population.program import Program, compressed_on_host
from jaxnas.training.loop import Schedule, TrainState, fresh_state
from jaxnas.training.members import extract_state, pad_state, stack, stack_members
from jaxnas.training.scoring import (
    AS_IT_IS,
    Compression,
    Metrics,
    compressed,
    scores_of,
)
from jaxnas.training.task import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Members of one call: as many as the program has lanes, or fewer."""

    program: Program
    configs: Sequence[ArchitectureConfig]  # of `training_config`

    def __post_init__(self) -> None:
        if not 1 <= len(self.configs) <= self.program.lanes:
            raise ValueError(
                f"{len(self.configs)} members for {self.program.lanes} lanes"
            )
        for config in self.configs:
            if not self.program.takes(config):
                raise ValueError(f"{config} is no member of {self.program}")

    @property
    def lanes(self) -> list[ArchitectureConfig]:
        """A config for each lane: the last one fills those that are left."""
        empty = self.program.lanes - len(self.configs)
        return [*self.configs, *[self.configs[-1]] * empty]


class Running:
    """A group's training on a device, between its calls."""

    def __init__(
        self,
        group: Group,
        task: Task,
        schedule: Schedule,
        device: jax.Device,
        purpose: str = "dropout",
        begun: Sequence[TrainState] | None = None,
    ) -> None:
        """Puts members on the device.

        Args:
          group: see `Group`.
          task: see `Task`.
          schedule: of the whole training.
          device: where the group's program was compiled for.
          purpose: which of the task's keys dropout draws from.
          begun: where the members go on from, in their own shapes; None for
            untrained ones.
        """
        self.group, self._task, self._device = group, task, device
        shape = group.program.shape
        if begun is None:
            states = [self._fresh(config) for config in group.configs]
        else:
            pairs = zip(begun, group.configs, strict=True)
            states = [pad_state(state, config, shape) for state, config in pairs]
        states += [states[-1]] * (group.program.lanes - len(states))
        self._states = self._put(stack(states))
        self._keys = [task.key(purpose)] * group.program.lanes
        self.follow([schedule] * len(group.configs))
        self._tokens = task.tokens_on(device)
        self.step = int(states[0].step)

    def follow(self, schedules: Sequence[Schedule]) -> None:
        """Changes the members' schedules for the steps to come."""
        empty = self.group.program.lanes - len(schedules)
        every = [*schedules, *[schedules[-1]] * empty]
        configs = self.group.lanes if self.group.program.elastic else None
        members = stack_members(configs, every, self._keys)
        self._members = self._put(members)

    def advance(self, train: Callable, starts: np.ndarray) -> np.ndarray:
        """Trains for some steps, at most `steps_per_call`.

        Args:
          train: the group's compiled program.
          starts: i32[steps, B], where their windows begin.

        Returns:
          f32[members, steps], losses.
        """
        number = len(starts)
        rows = np.resize(starts, (self._task.settings.steps_per_call, starts.shape[1]))
        self._states, losses = train(
            self._states,
            self._members,
            self._tokens,
            self._put(rows),
            self._put(np.int32(number)),
        )
        self.step += number
        return np.asarray(losses)[: len(self.group.configs), :number]

    def score(
        self, score: Callable, windows: np.ndarray, wanted: Sequence[Compression]
    ) -> list[dict[Compression, Metrics | None]]:
        """Each member's quality after each of the compressions."""

        def metrics(params: Params, asked: Sequence[Compression]) -> list:
            scorer = functools.partial(score, params, self._members.traits)
            lanes = self.group.lanes
            return scores_of(scorer, lanes, self._task, windows, asked, self._put)

        if compressed_on_host(self._device):
            own = self.params()
            found = [
                metrics(self._compressed(own, one), [AS_IT_IS])[0] for one in wanted
            ]
        else:
            found = metrics(self._states.params, wanted)
        return [
            {one: found[at][place] for at, one in enumerate(wanted)}
            for place in range(len(self.group.configs))
        ]

    def states(self) -> list[TrainState]:
        """The members' own training states, in their true shapes, on the host."""
        return self._own(self._states, extract_state)

    def params(self) -> list[Params]:
        """The members' own weights, in their true shapes, on the host."""
        return self._own(self._states.params, extract)

    def _fresh(self, config: ArchitectureConfig) -> TrainState:
        params = draw_parameters(build_model(config), self._task.key("parameters"))
        padded = pad(params, config, self.group.program.shape)
        return fresh_state(padded, self._task.settings)

    def _compressed(self, own: Sequence[Params], one: Compression) -> Params:
        """What the program scores after a compression, of the members' weights."""
        shape = self.group.program.shape
        padded = [
            pad(compressed(config, params, one), config, shape)
            for config, params in zip(self.group.configs, own, strict=True)
        ]
        padded += [padded[-1]] * (self.group.program.lanes - len(padded))
        return self._put(stack(padded))

    def drop_moments(self) -> None:
        """Frees what only training needs: room for scoring."""
        self._states = self._states._replace(moments=None)

    def drop(self) -> None:
        """Frees the members; only their number is known afterwards."""
        self._states = self._states._replace(params=None, moments=None)

    def _own(self, tree: Any, take: Callable) -> list:
        host = jax.device_get(tree)
        shape = self.group.program.shape
        return [
            take(jax.tree.map(lambda leaf, at=at: leaf[at], host), config, shape)
            for at, config in enumerate(self.group.configs)
        ]

    def _put(self, tree: Any) -> Any:
        return jax.device_put(tree, self._device)
