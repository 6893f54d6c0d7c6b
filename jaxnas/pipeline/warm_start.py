"""What an earlier run found, told to the strategy of a new one."""

from collections.abc import Iterable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from arch import ArchitectureConfig
from arch.space import Space
from jaxnas.errors import UsageError
from jaxnas.evaluation.fitness import OBJECTIVES
from jaxnas.results.result import Result, scored
from search.types import State, Strategy


def warm_start(
    strategy: Strategy[State],
    state: State,
    results: Iterable[Result],
    space: Space,
    fields: Mapping[str, int],
    objectives: int = len(OBJECTIVES),
    columns: Sequence[int] = range(len(OBJECTIVES)),
) -> tuple[State, int]:
    """Tells a strategy what succeeded in an earlier run, as if it had asked first.

    Their ids are negative: they come before all that the strategy asks. Objectives
    count as they are, so data, training and hardware should be the new run's.

    Args:
      strategy: any.
      state: its state.
      results: of the earlier run.
      space: of the new run; candidates that are not in it are left out.
      fields: non-gene fields of the new run's configs: vocab_size, ...; candidates
        with others are left out.
      objectives: of the new run, how many.
      columns: those of them that the strategy is told.

    Returns:
      The state, and how many it was told.

    Raises:
      UsageError: the earlier run had more or fewer objectives.
    """
    rows = [
        (genome, result.objectives)
        for result in scored(results)
        if (genome := _genome(result.config, space, fields)) is not None
    ]
    if not rows:
        return state, 0
    genomes, told = zip(*rows, strict=True)
    if (numbers := {len(one) for one in told}) != {objectives}:
        said = ", ".join(map(str, sorted(numbers)))
        raise UsageError(
            f"warm_start: the earlier run has {said} objectives, this one {objectives}"
        )
    number = len(rows)
    state = strategy.tell(
        state,
        jnp.arange(-number, 0, dtype=jnp.int32),
        jnp.asarray(np.stack(genomes), jnp.int32),
        jnp.asarray(told, jnp.float32)[:, np.asarray(columns)],
        jnp.ones(number, bool),
    )
    return state, number


def _genome(
    config: ArchitectureConfig, space: Space, fields: Mapping[str, int]
) -> np.ndarray | None:
    """i32[12] of a config, or None if the new run could not ask for it."""
    if any(getattr(config, name) != value for name, value in fields.items()):
        return None
    try:
        return space.encode(config)
    except ValueError:
        return None
