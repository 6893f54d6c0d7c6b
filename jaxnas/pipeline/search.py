"""The search loop: ask -> decode -> evaluate -> tell -> record -> checkpoint."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from arch import ArchitectureConfig
from arch.space import Space
from jaxnas.analytic.cost_table import CostTable
from jaxnas.clock import NEVER, Deadline
from jaxnas.config import Settings
from jaxnas.errors import RunFailed, UsageError
from jaxnas.evaluation.evaluator import Evaluation, Evaluator
from jaxnas.evaluation.fitness import OBJECTIVES, deciding
from jaxnas.keys import key_of
from jaxnas.pipeline.limits import fields_of
from jaxnas.pipeline.lookahead import outlook_of
from jaxnas.pipeline.strategy import compiled_strategy
from jaxnas.pipeline.warm_start import warm_start
from jaxnas.pipeline.watcher import Watcher
from jaxnas.population.trainer import NOTHING_AHEAD
from jaxnas.report.progress import Progress
from jaxnas.results.ending import generations_of, why_ended
from jaxnas.results.result import Candidate, Result, ResultLog, read_results, scored
from jaxnas.storage.checkpoints import Checkpoints
from jaxnas.storage.jsonl import Lines, Mark
from jaxnas.storage.run_folder import RunFolder
from jaxnas.training.phase import FIRST
from search import Strategy


def most_candidates(settings: Settings, table: CostTable) -> int:
    """Distinct candidates of a search at most."""
    asked = settings.population * settings.generations
    return int(min(asked, bound(settings), table.feasible))


def bound(settings: Settings) -> float:
    """Distinct candidates after which a search ends, inf for no bound."""
    return math.inf if settings.max_evals is None else settings.max_evals


# Which of these there is time to train, by their places; the name is of the decision.
Room: TypeAlias = Callable[[str, Sequence[ArchitectureConfig]], Sequence[int]]


class Checkpointed(NamedTuple):
    """What a checkpoint holds."""

    strategy: Any  # the strategy's state
    results: jax.Array  # i32[], lines of results.jsonl that it knows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """A search in its run: the settings, and what it reads and writes.

    Attributes:
      settings: of the run.
      evaluator: see `Evaluator`.
      table: what the space's models cost, and which the limits allow.
      results: those beyond the last checkpoint are written anew; what they took to
        find out is in the evaluator's trainings.
      checkpoints: where to go on from, and where to save.
      progress: is told of everything as it happens.
      on_generation: called at the end of each generation with its number, from 0,
        and all results so far.
      deadline: after which no new candidate is trained.
      watcher: is shown, at a resume, what earlier processes found.
      room: of those at hand, which there is time for until then.
      most: generations at most; None is the settings' number.
      strategy: as by `compiled_strategy`, if it is there already.
      logs: other files that a resume reads: checkpoints say how far they went.
    """

    settings: Settings
    evaluator: Evaluator
    table: CostTable
    results: ResultLog
    checkpoints: Checkpoints
    progress: Progress
    on_generation: Callable[[int, list[Result]], None] = lambda *_: None
    deadline: Deadline = NEVER
    watcher: Watcher | None = None
    room: Room = lambda name, configs: range(len(configs))
    most: int | None = None
    strategy: Strategy | None = None
    logs: Sequence[Lines] = ()

    @property
    def generations(self) -> int:
        """How many there are at most."""
        return self.most or self.settings.generations

    @property
    def space(self) -> Space:
        """The space that is searched."""
        return self.table.space

    @property
    def objectives(self) -> int:
        """How many every candidate has: ours, then the user's."""
        return len(OBJECTIVES) + len(self.evaluator.extra.names)

    @property
    def columns(self) -> tuple[int, ...]:
        """Which of them the strategy is told."""
        return deciding(self.evaluator.fitness, self.objectives)

    @property
    def fields(self) -> dict[str, int]:
        """See `fields_of`."""
        return fields_of(self.evaluator.task)

    @property
    def exhausted(self) -> bool:
        """Whether every model that the limits allow was evaluated."""
        return len(self.results) >= self.table.feasible

    @property
    def full(self) -> bool:
        """Whether there are as many candidates as there may be."""
        return self.exhausted or len(self.results) >= bound(self.settings)

    def run(self) -> str | None:
        """Runs the generations that are left; each new candidate becomes a result.

        Returns:
          Why it ended before its last generation, if it had found enough.

        Raises:
          RunFailed: every candidate failed.
          UsageError: the results do not fit the checkpoint, or there is nothing to
            be learnt from the earlier run.
        """
        strategy = self.strategy or compiled_strategy(
            self.settings, self.table, self.evaluator.fitness, self.columns
        )
        first, state = self._begin(strategy)
        why = None
        for generation in range(first, self.generations):
            why = self._found_enough(generation)
            if why is not None or self.full or self._ended():
                break
            state, late = self._generation(generation, strategy, state)
            if late:
                break
        if not scored(self.results):
            reasons = sorted({str(result.reason) for result in self.results})
            raise RunFailed(f"no candidate succeeded: {'; '.join(reasons[:3])}")
        return why

    def _found_enough(self, done: int) -> str | None:
        """Why no more is looked for after so many generations, None if it is."""
        settings = self.settings
        if self.watcher is not None and self.watcher.ends_after(done):
            return "the callback ended it"
        return why_ended(
            generations_of(self.results, done),
            patience=settings.patience,
            targets=settings.targets(),
            front=settings.size_weight != 0 or settings.latency_weight != 0,
        )

    def _begin(self, strategy: Strategy) -> tuple[int, Any]:
        """The first generation to run, and the strategy's state before it."""
        state = strategy.init(key_of(self.settings.seed, "init"))
        first, state = self._restore(state)
        if self.settings.warm_start is not None and first == 0:
            earlier = RunFolder(Path(self.settings.warm_start)).results
            state = self._warm(earlier, strategy, state)
        self.progress.known(len(self.results))
        if self.watcher is not None:
            for result in self.results:
                self.watcher.show(result)
        return first, state

    def _warm(self, earlier: Path, strategy: Strategy, state: Any) -> Any:
        """The state before the first generation, told of the earlier run."""
        state, told = warm_start(
            strategy,
            state,
            read_results(earlier),
            self.space,
            self.fields,
            self.objectives,
            self.columns,
        )
        if not told:
            raise UsageError(
                f"nothing in {earlier} can be used: no candidate that succeeded is "
                f"in space {self.space.name} with {self.fields}"
            )
        self.progress.say(f"told of {told} candidates in {earlier}")
        return state

    def _ended(self) -> bool:
        """Whether the clock ended the search here, in this process or an earlier."""
        ended = self.deadline.ended
        return ended is not None and len(self.results) >= ended

    def _generation(
        self, generation: int, strategy: Strategy, state: Any
    ) -> tuple[Any, bool]:
        """Asks, evaluates, tells and saves.

        Returns:
          The state after it, and whether the clock ended it before all were known.
        """
        settings, before = self.settings, len(self.results)
        asked = strategy.ask(key_of(settings.seed, "ask", generation), state)
        genomes = np.asarray(jax.jit(jax.vmap(self.space.canonical))(asked))
        self.progress.begin_generation(generation)
        self._evaluate(generation, genomes)
        seen = self._seen()
        # One that was cut is not told: a resume with a higher bound asks it again.
        whole = all(tuple(genome) in seen for genome in genomes.tolist())
        idle = len(self.results) == before and self.deadline.passed()
        late = (not whole or idle) and len(seen) < bound(settings)
        if late:
            self.deadline.end(len(self.results))
        if whole:
            ids = generation * settings.population + np.arange(settings.population)
            told = [self._told(seen[tuple(genome)]) for genome in genomes.tolist()]
            state = strategy.tell(
                state,
                jnp.asarray(ids, jnp.int32),
                jnp.asarray(genomes),
                jnp.asarray(told, jnp.float32),
                jnp.ones(settings.population, bool),
            )
        results = list(self.results)
        self.progress.end_generation(generation, results)
        self.on_generation(generation, results)
        done = generation + whole
        last = self.full or late or done == self.generations
        last = last or self._found_enough(done) is not None
        if done and (last or done % settings.checkpoint_every == 0):
            saved = len(results) if whole else before
            known = {log.path.name: log.mark() for log in self.logs}
            known[self.results.path.name] = self.results.mark(saved)
            checkpointed = Checkpointed(state, jnp.int32(saved))
            self.checkpoints.save(done, checkpointed, known)
        return state, late

    def _restore(self, state: Any) -> tuple[int, Any]:
        """The first generation to run, and the strategy's state before it.

        Raises:
          UsageError: the files are not those that the checkpoint knows.
        """
        found = self.checkpoints.latest(Checkpointed(state, jnp.int32(0)))
        if found is None:
            self.results.keep(0)
            return 0, state
        generation, saved = found
        number, known = int(saved.results), self.checkpoints.known()
        if known is None or not self.results.proven:
            self.progress.say(
                "an earlier version wrote this run, without digests: its lines are "
                "taken as they are"
            )
        known = known or {self.results.path.name: Mark(number, "")}
        logs: list[ResultLog | Lines] = [self.results, *self.logs]
        for log in logs:
            _check_known(log, known, f"the checkpoint of generation {generation}")
        self.results.keep(number)
        return generation, saved.strategy

    def _seen(self) -> dict[tuple[int, ...], Result]:
        """Genome -> result of the candidates that were evaluated."""
        return {result.genome: result for result in self.results}

    def _told(self, result: Result) -> list[float]:
        """The objectives that the strategy is told, NaN of a failure.

        For quality the loss that it comes to, where that is what decides and there is
        no earlier run, whose candidates it was told as they were.
        """
        if result.objectives is None:
            return [math.nan] * len(self.columns)
        objectives = result.objectives
        warm = self.settings.warm_start is not None
        if self.evaluator.steps_ahead is not None and not warm:
            worth = self.evaluator.prospects.worth(result.config, result, FIRST)
            assert worth is not None
            objectives = [-worth, *objectives[1:]]
        return [objectives[column] for column in self.columns]

    def _evaluate(self, generation: int, genomes: np.ndarray) -> None:
        """Evaluates the genomes not seen before, while there may be more."""
        settings, seen, most = self.settings, self._seen(), bound(self.settings)
        new: dict[ArchitectureConfig, Candidate] = {}
        for index, genome in enumerate(map(tuple, genomes.tolist())):
            if genome not in seen and len(seen) + len(new) < most:
                identity = generation * settings.population + index
                config = self.space.decode(genome, **self.fields)
                candidate = Candidate(identity, generation, genome, config)
                new.setdefault(config, candidate)

        self._evaluate_new(generation, new)

    def _evaluate_new(
        self, generation: int, new: Mapping[ArchitectureConfig, Candidate]
    ) -> None:
        """Evaluates those that there is time for, until there is time for none.

        After the deadline only those that are known already; before one has
        succeeded, as many more as that takes.
        """
        left = list(new)
        while left:
            chosen = self.room(f"generation {generation}, last {len(left)}", left)
            if not chosen:
                if scored(self.results):
                    break
                chosen = [0]
            part = [left[place] for place in chosen]
            self._evaluate_part(generation, {one: new[one] for one in part})
            left = [one for one in left if one not in part]

    def _evaluate_part(
        self, generation: int, new: Mapping[ArchitectureConfig, Candidate]
    ) -> None:
        """Evaluates candidates together; each that becomes known is a result."""
        settings, seen = self.settings, self._seen()

        def found(config: ArchitectureConfig, evaluation: Evaluation) -> None:
            result = Result.of(new[config], evaluation)
            self.results.append(result)
            self.deadline.save()
            self.progress.candidate(result)

        some = any(result.status == "ok" for result in seen.values())
        outlook = NOTHING_AHEAD
        if not self.deadline.bounded:  # else as `room` has planned it
            outlook = outlook_of(
                self.space,
                self.fields,
                population=settings.population,
                generations=settings.generations,
                generation=generation,
                new=len(new),
                seen=len(seen),
                most=bound(settings),
                max_size=self.evaluator.max_size,
            )
        self.evaluator.evaluate(
            list(new),
            self.progress.steps(f"training of generation {generation + 1}"),
            outlook,
            generation=generation,
            enough=lambda succeeded: (succeeded > 0 or some) and self.deadline.over(),
            begins=lambda succeeded, seconds: (
                not (succeeded or some) or seconds <= self.deadline.left()
            ),
            found=found,
        )


def _check_known(
    log: ResultLog | Lines, known: Mapping[str, Mark], checkpoint: str
) -> None:
    """Checks that a file begins with the lines that a checkpoint knows.

    Raises:
      UsageError: it does not.
    """
    wanted = known.get(log.path.name)
    if wanted is None:
        return
    number = wanted.lines
    if len(log) < number:
        raise UsageError(
            f"{log.path} holds {len(log)} lines, {checkpoint} needs {number}: the "
            f"file was cut"
        )
    if wanted.digest and log.mark(number) != wanted:
        raise UsageError(
            f"the first {number} lines of {log.path} are not those that {checkpoint} "
            f"knows: they are another run's, or were changed"
        )
