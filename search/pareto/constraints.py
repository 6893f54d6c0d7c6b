"""Constraint domination: first what is allowed, then what is good."""

import jax
import jax.numpy as jnp

from search.pareto.dominance import dominates, failed
from search.pareto.ranks import non_dominated_ranks


def constraint_dominates(
    first: jax.Array,
    second: jax.Array,
    first_violation: jax.Array,
    second_violation: jax.Array,
) -> jax.Array:
    """Constraint domination (Deb et al. 2002) of one individual over another.

    The feasible dominate the infeasible; of two infeasible ones the one that
    violates less; of two feasible ones as `dominates` says. The failed, also
    those whose violation is not finite, are dominated by all that succeeded.

    Args:
      first, second: f32[M], minimised.
      first_violation, second_violation: f32[], in total; 0 or less if feasible.

    Returns:
      bool[].
    """
    lost = [
        failed(objectives) | ~jnp.isfinite(violation)
        for objectives, violation in (
            (first, first_violation),
            (second, second_violation),
        )
    ]
    over = [jnp.maximum(each, 0.0) for each in (first_violation, second_violation)]
    feasible = over[1] == 0.0
    better = (over[0] < over[1]) | (
        feasible & (over[0] == 0) & dominates(first, second)
    )
    return ~lost[0] & (lost[1] | better)


def constrained_ranks(objectives: jax.Array, violations: jax.Array) -> jax.Array:
    """Non-dominated ranks under constraint domination.

    Args:
      objectives: f32[N, M], minimised.
      violations: f32[N], in total; 0 or less if feasible.

    Returns:
      i32[N], from 0: the fronts of the feasible, then one for each amount of
      violation, ascending; N for those that failed.
    """
    number = objectives.shape[0]
    lost = failed(objectives) | ~jnp.isfinite(violations)
    feasible = ~lost & (violations <= 0)
    ranks = non_dominated_ranks(jnp.where(feasible[:, None], objectives, jnp.inf))
    fronts = jnp.where(feasible, ranks + 1, 0).max()
    amounts = jnp.where(lost | feasible, jnp.inf, violations)
    ascending = jnp.sort(amounts)
    new = jnp.append(ascending[:1] < jnp.inf, ascending[1:] > ascending[:-1])
    place = jnp.cumsum(new)[jnp.searchsorted(ascending, amounts)] - 1
    behind = jnp.where(lost, number, fronts + place)
    return jnp.where(feasible, ranks, behind).astype(jnp.int32)
