"""The phases after the search: the best train on, and are scored again."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Hashable, Sequence
from typing import TypeAlias

from arch import ArchitectureConfig
from jaxnas.clock import NEVER, Deadline
from jaxnas.config import Settings
from jaxnas.evaluation.evaluator import Evaluation, Evaluator
from jaxnas.pipeline.promotion import Pool, choose, number_promoted
from jaxnas.report.progress import Progress
from jaxnas.results.phases import Chosen, PhaseResult
from jaxnas.results.result import Result, ResultLog, Scored, scored
from jaxnas.training.phase import FIRST, Phase

# Of those chosen for a phase, the ones that there is time for.
Room: TypeAlias = Callable[[Phase, Chosen], Chosen]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Promotions:
    """How a run promotes.

    Attributes:
      share: of a phase's candidates that go on.
      lucky: others that go on at random, for each phase.
      seed: decides which.
      by: which objectives order the candidates.
      by_curve: whether quality is the loss that a learning curve leads to, by the
        last phase's end, instead of the one at hand. Where the clock plans the last
        training it is what each comes to in its time, see `Prospects.worth`.
    """

    share: float
    lucky: int
    seed: int
    by: tuple[int, ...]
    by_curve: bool

    @classmethod
    def of(cls, config: Settings, by: tuple[int, ...]) -> "Promotions":
        """As a run's settings say; `by`, see `Promotions`."""
        return cls(
            share=config.promote_share,
            lucky=config.lucky,
            seed=config.seed,
            by=by,
            by_curve=config.promote_by == "curve",
        )

    def choose(
        self,
        evaluator: Evaluator,
        phase: Phase,
        results: Sequence[Result],
        among: Sequence[Result],
    ) -> Chosen:
        """Which go on from a phase with these results, of those that still can."""
        return choose(
            among,
            number_promoted(len(scored(results)), self.share),
            self.lucky,
            self._seed(phase.rung),
            self.objectives(evaluator, phase),
            _worth(evaluator, phase),
            _alike(evaluator),
        )

    def pool(self, evaluator: Evaluator, candidates: int) -> Pool:
        """Which can be promoted from the first phase, of this many or more."""
        return Pool(
            lambda known: number_promoted(max(candidates, known), self.share),
            self.lucky,
            self._seed(0),
            self.objectives(evaluator),
            _worth(evaluator, FIRST),
            _alike(evaluator),
        )

    def objectives(
        self, evaluator: Evaluator, phase: Phase = FIRST
    ) -> Callable[[Scored], list[float]]:
        """What the candidates of a phase are ordered by."""
        values: Callable[[Scored], list[float]] = lambda result: result.objectives
        if self.by_curve or evaluator.steps_ahead is not None:
            values = functools.partial(_predicted, evaluator, phase)

        def deciding(result: Scored) -> list[float]:
            every = values(result)
            return [every[index] for index in self.by]

        return deciding

    def _seed(self, rung: int) -> int:
        return self.seed * 1000 + rung


def _alike(evaluator: Evaluator) -> Callable[[Scored], Hashable]:
    """Of what one goes on: each training once, where accuracy alone decides."""
    if evaluator.steps_ahead is None:
        return lambda result: result.id
    return lambda result: evaluator.trainer.key(result.config)


def _worth(evaluator: Evaluator, phase: Phase) -> Callable[[Scored], float]:
    """What decides which candidate of a phase wins."""

    def worth(result: Scored) -> float:
        found = evaluator.prospects.worth(result.config, result, phase)
        assert found is not None
        return found

    return worth


def _predicted(evaluator: Evaluator, phase: Phase, result: Scored) -> list[float]:
    """A result's objectives, with the loss that it comes to for its quality."""
    _, *others = result.objectives
    if evaluator.steps_ahead is not None:
        return [-_worth(evaluator, phase)(result), *others]
    last = evaluator.trainer.rungs[-1].steps
    loss = evaluator.prospects.loss(result.config, result.metrics.loss, phase, last)
    return [loss, *others]


def promote(
    evaluator: Evaluator,
    results: Sequence[Result],
    pool: Pool,
    promotions: Promotions,
    record: ResultLog,
    progress: Progress,
    room: Room = lambda phase, chosen: chosen,
    deadline: Callable[[str], Deadline] = lambda name: NEVER,
) -> list[PhaseResult]:
    """Trains the survivors of each phase on, to the last one.

    Args:
      evaluator: see `Evaluator`.
      results: of the first phase's candidates.
      pool: those among them whose states were kept.
      promotions: which go on.
      record: a result a candidate and phase; written anew, from what the evaluator
        remembers of its trainings.
      progress: is told of everything as it happens.
      room: leaves of the chosen those that a phase has time for.
      deadline: of a phase by its name; after it no one else is trained in it.

    Returns:
      The later phases. A candidate that fails in one is not in the next.
    """
    record.keep(0)
    phases: list[PhaseResult] = []
    among: Sequence[Result] = pool.results
    trainer = evaluator.trainer
    for below, phase in itertools.pairwise(trainer.phases):
        chosen = room(phase, promotions.choose(evaluator, below, results, among))
        if not chosen.every:
            break
        trainer.keep_states([result.config for result in chosen.every], phase)
        progress.phase(phase.name, len(chosen.promoted), len(chosen.lucky))
        before, ends = len(record), deadline(phase.name)
        _train_on(evaluator, phase, chosen, ends, record, progress)
        found = list(record)[before:]
        if len(found) < len(chosen.every):
            ends.end(len(found))
        if not found:  # the phase before has the results
            break
        phases.append(PhaseResult(phase.name, chosen.among(found), found))
        results = among = found
    trainer.keep_states((), trainer.phases[-1])
    return phases


def _train_on(
    evaluator: Evaluator,
    phase: Phase,
    chosen: Chosen,
    deadline: Deadline,
    record: ResultLog,
    progress: Progress,
) -> None:
    """Records the chosen ones' results in this phase.

    After the deadline only of those that are known, or have ended in the meantime.
    """
    of_config = {result.config: result for result in chosen.every}
    promoted = {result.id for result in chosen.promoted}

    def found(config: ArchitectureConfig, evaluation: Evaluation) -> None:
        before = of_config[config]
        by = "rank" if before.id in promoted else "luck"
        result = before.in_phase(phase.name, by, evaluation)
        record.append(result)
        deadline.save()
        progress.candidate(result)

    evaluator.evaluate(
        list(of_config),
        progress.steps(f"phase {phase.name}"),
        phase=phase,
        enough=lambda _: deadline.over(),
        begins=lambda _, seconds: seconds <= deadline.left(),
        found=found,
    )


def repeated(
    evaluator: Evaluator,
    winner: Scored,
    results: Sequence[Result],
    number: int,
    progress: Progress,
    late: Callable[[], bool] = lambda: False,
) -> list[float]:
    """Accuracies of the winner after the first phase, from this and other seeds.

    Args:
      evaluator: see `Evaluator`.
      winner: of the last phase.
      results: the first phase's; the winner's is among them.
      number: of other seeds; 0 to train nothing.
      progress: is told.
      late: whether there is no time for another.
    """
    if not number:
        return []
    config = winner.config
    [own] = [result for result in scored(results) if result.id == winner.id]
    found = [own.metrics.accuracy]
    for repeat in range(1, number + 1):
        if late():
            break
        title = f"winner from seed {evaluator.task.seed + repeat}"
        phase = FIRST._replace(repeat=repeat)
        evaluation = evaluator(config, progress.steps(title), phase)
        if evaluation.metrics is not None:
            found.append(evaluation.metrics.accuracy)
    return found
