"""Simple rules on HW-GPT-Bench-S, which a strategy has to beat."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from hwgpt_models import HWGPT, canonical, embedding, parameters, scaled_parameters

from search import spread
from search.pareto.exact_front import exact_front
from search.pareto.thinning import spread_order
from search.surrogate.contrasts import effects
from search.surrogate.hv_scalarization import gains, view_of

Evaluate = Callable[[np.ndarray], np.ndarray]  # i32[B, 27] -> f32[B, 2]
SAMPLE = 20_000
RAYS = 256
PENALTY = 0.1  # of the ridge, on columns of mean square 1


def sample(seed: int, number: int = SAMPLE) -> np.ndarray:
    """i32[number, 27], canonical, of all sizes."""
    return np.asarray(_draw(jax.random.split(_key(seed), number)))


@jax.jit
@jax.vmap
def _draw(key: jax.Array) -> jax.Array:
    return canonical(spread(key, HWGPT(), np.ones(27, bool)))


def random_spread(evaluate: Evaluate, budget: int, seed: int) -> np.ndarray:
    """f32[budget, 2] of genomes of all sizes, nothing learnt."""
    return np.asarray(evaluate(sample(seed, budget)))


def analytic_list(seed: int, number: int) -> np.ndarray:
    """i32[number, 27], few parameters against many outside the embedding, thinned.

    No formula knows the perplexity; that more parameters outside the embedding make
    it lower is all that this list knows.
    """
    genomes = sample(seed)
    total = np.asarray(jax.vmap(parameters)(genomes), float)
    inner = total - np.asarray(jax.vmap(embedding)(genomes), float)
    costs = np.stack([total, -inner], axis=1)
    front = exact_front(costs)
    return genomes[front[spread_order(costs[front], number)]]


def analytic(evaluate: Evaluate, budget: int, seed: int) -> np.ndarray:
    """f32[budget, 2] of the list alone."""
    return np.asarray(evaluate(analytic_list(seed, budget)))


def pairwise_ridge(
    evaluate: Evaluate, budget: int, seed: int, batch: int, start: int = 20
) -> np.ndarray:
    """f32[budget, 2]: after some of the list, what a ridge ranks first of a sample.

    Genes and all pairs of them, one penalty; of the batch each next genome is the
    one whose prediction adds the most hypervolume.
    """
    columns = effects(np.asarray(HWGPT().cardinality), np.ones(27, bool))
    genomes = np.concatenate([analytic_list(seed, start), sample(seed)])
    design = np.asarray(columns.design(jnp.asarray(genomes)))[:, 1:]
    sizes = np.asarray(scaled_parameters(jnp.asarray(genomes)))[:, 0]
    asked = list(range(start))
    found = np.asarray(evaluate(genomes[asked]))
    while len(asked) < budget:
        seen, values = design[asked], found[:, 0]
        gram = seen @ seen.T + PENALTY * design.shape[1] * np.eye(
            len(asked), dtype="f4"
        )
        weights = np.linalg.solve(gram, values - values.mean())
        guess = values.mean() + design @ (seen.T @ weights)
        asked += _greedy(guess, sizes, found, asked, batch, seed + len(asked))
        found = np.concatenate([found, np.asarray(evaluate(genomes[asked[-batch:]]))])
    return found[:budget]


def _greedy(
    guess: np.ndarray,
    sizes: np.ndarray,
    found: np.ndarray,
    asked: list[int],
    batch: int,
    seed: int,
) -> list[int]:
    """The next of the sample by predicted hypervolume, one after the other."""
    view = view_of(_key(seed), jnp.asarray(found), RAYS)
    longest = view.reach(jnp.asarray(found)).max(axis=1)
    reach = view.reach(jnp.stack([jnp.asarray(guess), jnp.asarray(sizes)], axis=1))
    reach = reach.at[:, np.asarray(asked)].set(0.0)
    chosen = []
    for _ in range(batch):
        gain = gains(reach, longest, 2).at[np.asarray([*asked, *chosen])].set(-1.0)
        chosen.append(int(gain.argmax()))
        longest = jnp.maximum(longest, reach[:, chosen[-1]])
    return chosen


def _key(seed: int) -> jax.Array:
    return jax.random.key(1000 + seed)
