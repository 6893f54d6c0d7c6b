"""The search loop: ask -> decode -> evaluate -> tell -> record -> checkpoint."""

import contextlib
import dataclasses
import inspect
import math
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arch.baselines import BASELINES
from arch.space import GENES, Space
from jaxnas.clock import NEVER, Deadline
from jaxnas.errors import RunFailed, UsageError
from jaxnas.evaluation.evaluator import Evaluator
from jaxnas.evaluation.fitness import OBJECTIVES, FitnessSettings, fitness
from jaxnas.keys import key_of
from jaxnas.pipeline.lookahead import outlook_of
from jaxnas.pipeline.warm_start import warm_start
from jaxnas.report.progress import Progress
from jaxnas.results.result import Result, ResultLog, read_results, scored
from jaxnas.storage.checkpoints import Checkpoints
from search import STRATEGIES, Strategy


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """What the search does, apart from how a candidate is evaluated."""

    space: Space
    strategy: str
    strategy_settings: dict[str, Any]  # its keyword arguments
    population: int
    generations: int
    seed: int
    config_fields: dict[str, Any]  # what is no gene: vocab_size, ...
    checkpoint_every: int
    earlier: Path | None = None  # results.jsonl of a run to learn from first
    max_evals: int | None = None  # distinct candidates to end after

    @property
    def most_candidates(self) -> int:
        """Distinct candidates at most."""
        asked = self.population * self.generations
        bound = asked if self.max_evals is None else self.max_evals
        return min(asked, bound, self.space.distinct_count)


class Checkpointed(NamedTuple):
    """What a checkpoint holds."""

    strategy: Any  # the strategy's state
    results: jax.Array  # i32[], lines of results.jsonl that it knows


def make_strategy(
    plan: SearchPlan, settings: FitnessSettings, objectives: int = len(OBJECTIVES)
) -> Strategy:
    """The plan's strategy, seeded near the baselines if it takes seeds.

    One that works on a single loss maximises fitness, which only our objectives
    make; the others minimise all objectives, so many as are given. Every family has
    an equal share of a first generation.
    """
    families = plan.space.families
    known = [
        plan.space.nearest(config)
        for config in BASELINES.values()
        if config.arch_type in families
    ]
    facts = {
        "objectives": objectives,
        "scalarize": lambda objectives: -fitness(objectives, settings, jnp),
        "ordered": plan.space.ordered,
        "canonical": plan.space.canonical,
        "seeds": np.unique(known, axis=0) if known else None,
        "stratum": GENES.index("arch_type") if len(families) > 1 else None,
    }
    make = STRATEGIES[plan.strategy]
    takes = inspect.signature(make).parameters  # not each needs every fact
    needed = {name: fact for name, fact in facts.items() if name in takes}
    return make(plan.space, **plan.strategy_settings, **needed)


def run_search(
    plan: SearchPlan,
    evaluator: Evaluator,
    results: ResultLog,
    checkpoints: Checkpoints,
    progress: Progress,
    on_generation: Callable[[int, list[Result]], None] = lambda *_: None,
    deadline: Deadline = NEVER,
) -> bool:
    """Runs the generations that are left; each new candidate becomes a result.

    Args:
      plan: see `SearchPlan`.
      evaluator: see `Evaluator`.
      results: those beyond the last checkpoint are written anew; what they
        took to find out is in the evaluator's trainings.
      checkpoints: where to go on from, and where to save.
      progress: is told of everything as it happens.
      on_generation: called at the end of each generation with its number, from 0,
        and all results so far.
      deadline: after which no new candidate is trained.

    Returns:
      True if every model of the space was evaluated.

    Raises:
      RunFailed: every candidate failed.
      UsageError: the results do not fit the checkpoint, or there is nothing to be
        learnt from the earlier run.
    """
    number = len(OBJECTIVES) + len(evaluator.extra.names)
    strategy = make_strategy(plan, evaluator.fitness, number)
    ask, tell = jax.jit(strategy.ask), jax.jit(strategy.tell)
    state = strategy.init(key_of(plan.seed, "init"))
    first, state = _restore(state, results, checkpoints)
    if plan.earlier is not None and first == 0:
        state = _warm(plan, plan.earlier, strategy, state, number, progress)
    progress.known(len(results))
    seen = _seen(results)
    most = math.inf if plan.max_evals is None else plan.max_evals
    exhausted = len(seen) >= plan.space.distinct_count
    for generation in range(first, plan.generations):
        ended = deadline.ended is not None and len(results) >= deadline.ended
        if exhausted or len(seen) >= most or ended:
            break
        genomes = ask(key_of(plan.seed, "ask", generation), state)
        genomes = np.asarray(jax.vmap(plan.space.canonical)(genomes))
        progress.begin_generation(generation)
        before = len(results)
        new = _evaluate_new(
            plan, evaluator, generation, genomes, seen, most, deadline, progress
        )
        with contextlib.closing(new):
            for result in new:
                results.append(result)
                progress.candidate(result)
        # One that was cut is not told: a resume with a higher bound asks it again.
        whole = all(tuple(genome) in seen for genome in genomes.tolist())
        late = not whole and len(seen) < most
        if late:
            deadline.end(len(results))
        if whole:
            ids = generation * plan.population + np.arange(plan.population)
            found = [seen[tuple(genome)] for genome in genomes.tolist()]
            state = tell(
                state,
                jnp.asarray(ids, jnp.int32),
                genomes,
                jnp.asarray([_told(one, number) for one in found], jnp.float32),
                jnp.ones(plan.population, bool),
            )
        exhausted = len(seen) >= plan.space.distinct_count
        progress.end_generation(generation, list(results))
        on_generation(generation, list(results))
        done = generation + whole
        last = exhausted or len(seen) >= most or late or done == plan.generations
        if done and (last or done % plan.checkpoint_every == 0):
            saved = Checkpointed(state, jnp.int32(len(results) if whole else before))
            checkpoints.save(done, saved)
        if late:
            break
    if not scored(results):
        reasons = sorted({str(result.reason) for result in results})
        raise RunFailed(f"no candidate succeeded: {'; '.join(reasons[:3])}")
    return exhausted


def _warm(
    plan: SearchPlan,
    earlier: Path,
    strategy: Strategy,
    state,
    number: int,
    progress: Progress,
):
    """The state before the first generation, told of the earlier run."""
    state, told = warm_start(
        strategy,
        state,
        read_results(earlier),
        plan.space,
        plan.config_fields,
        number,
    )
    if not told:
        raise UsageError(
            f"nothing in {earlier} can be used: no candidate that succeeded is "
            f"in space {plan.space.name} with {plan.config_fields}"
        )
    progress.say(f"told of {told} candidates in {earlier}")
    return state


def _restore(state, results: ResultLog, checkpoints: Checkpoints):
    """The first generation to run, and the strategy's state before it."""
    found = checkpoints.latest(Checkpointed(state, jnp.int32(0)))
    if found is None:
        results.keep(0)
        return 0, state
    generation, saved = found
    if len(results) < int(saved.results):
        raise UsageError(
            f"{results.path} holds {len(results)} lines, the checkpoint of "
            f"generation {generation} needs {int(saved.results)}: the file was cut"
        )
    results.keep(int(saved.results))
    return generation, saved.strategy


def _seen(results: Iterable[Result]) -> dict[tuple, list[float] | None]:
    """Genome -> objectives of the candidates that were evaluated."""
    return {result.genome: result.objectives for result in results}


def _evaluate_new(
    plan: SearchPlan,
    evaluator: Evaluator,
    generation: int,
    genomes: np.ndarray,
    seen: dict[tuple, list[float] | None],
    most: float,
    deadline: Deadline,
    progress: Progress,
) -> Generator[Result]:
    """Evaluates the genomes not seen before, while `most` are not; fills `seen`.

    After the deadline only those that are known already; before one has succeeded,
    as many more as that takes.

    Yields:
      Their results.
    """
    places: dict[tuple, int] = {}
    for place, genome in enumerate(genomes.tolist()):
        if tuple(genome) not in seen and len(seen) + len(places) < most:
            places.setdefault(tuple(genome), place)
    configs = [plan.space.decode(genome, **plan.config_fields) for genome in places]
    evaluations = evaluator.evaluate_until(
        lambda succeeded: (succeeded > 0 or any(seen.values())) and deadline.passed(),
        configs,
        progress.steps(f"training of generation {generation + 1}"),
        outlook_of(
            plan.space,
            plan.config_fields,
            population=plan.population,
            generations=plan.generations,
            generation=generation,
            new=len(configs),
            seen=len(seen),
            most=most,
            max_size=evaluator.max_size,
        ),
        generation=generation,
    )
    with contextlib.closing(evaluations):
        for (genome, place), config, evaluation in zip(
            places.items(), configs, evaluations, strict=True
        ):
            if evaluation is None:
                continue
            seen[genome] = evaluation.objectives
            identity = generation * plan.population + place
            yield Result.of(identity, generation, genome, config, evaluation)


def _told(objectives: list[float] | None, number: int) -> list[float]:
    return [float("nan")] * number if objectives is None else objectives
