"""The phases after the search: the best train on, and are scored again."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator, Iterable, Sequence

from arch import ArchitectureConfig
from jaxnas.clock import NEVER, Deadline
from jaxnas.config import RunConfig
from jaxnas.evaluation.evaluator import Evaluator
from jaxnas.evaluation.training_log import training_key
from jaxnas.pipeline.promotion import Pool, choose, number_promoted
from jaxnas.pipeline.winner import BestWeights
from jaxnas.report.progress import Progress
from jaxnas.results.phases import Chosen, PhaseResult
from jaxnas.results.result import Result, ResultLog, Scored, scored
from jaxnas.training.curves import extrapolated


@dataclasses.dataclass(frozen=True, kw_only=True)
class Promotions:
    """How a run promotes.

    Attributes:
      share: of a phase's candidates that go on.
      lucky: others that go on at random, for each phase.
      seed: decides which.
      by_curve: whether quality is the loss that a learning curve leads to, by the
        last phase's end, instead of the one at hand.
    """

    share: float
    lucky: int
    seed: int
    by_curve: bool

    @classmethod
    def of(cls, config: RunConfig) -> "Promotions":
        """A resolved config's."""
        return cls(
            share=config.promote_share,
            lucky=config.lucky,
            seed=config.seed,
            by_curve=config.promote_by == "curve",
        )

    def choose(
        self, evaluator: Evaluator, results: Sequence[Result], among: Sequence[Result]
    ) -> Chosen:
        """Who goes on from the evaluator's phase, of those that still can."""
        return choose(
            among,
            number_promoted(len(scored(results)), self.share),
            self.lucky,
            self._seed(evaluator.trainer.rung),
            self.objectives(evaluator),
        )

    def pool(self, evaluator: Evaluator, candidates: int) -> Pool:
        """Who can be promoted from the first phase, of so many at most."""
        return Pool(
            number_promoted(candidates, self.share),
            self.lucky,
            self._seed(0),
            self.objectives(evaluator),
        )

    def objectives(self, evaluator: Evaluator) -> Callable[[Scored], list[float]]:
        """What the candidates of a phase are ordered by."""
        if not self.by_curve:
            return lambda result: result.objectives
        return functools.partial(_predicted, evaluator)

    def _seed(self, rung: int) -> int:
        return self.seed * 1000 + rung


def _predicted(evaluator: Evaluator, result: Scored) -> list[float]:
    """A result's objectives, with the loss at the last phase's end for its quality.

    That is its own loss now, after its compression, less what its learning curve
    still has to fall.
    """
    config, trainer = result.config, evaluator.trainer
    curve: list[tuple[int, float]] = []
    stopped = False
    for rung in range(trainer.rung + 1):
        training = evaluator.trainings.find(config, trainer.at(rung).stage)
        if training is not None and not stopped:
            curve += training.curve
            stopped = training.stopped is not None
    _, *others = result.objectives
    fall = 0.0
    if len(curve) > 1 and not stopped:
        now, last = (trainer.rungs[at].steps for at in (trainer.rung, -1))
        fall = extrapolated(curve, now) - extrapolated(curve, last)
    return [result.metrics.loss - fall, *others]


def keep_states(evaluator: Evaluator, configs: Iterable[ArchitectureConfig], rung: int):
    """Leaves, of the states up to a phase, its candidates' in it and the one below.

    States of later phases stay: a run that is resumed comes by here again.

    Args:
      evaluator: of any phase.
      configs: of the candidates.
      rung: the phase.
    """
    if evaluator.trainer.states is None:
        return
    stages = [evaluator.trainer.at(one).stage for one in range(rung + 1)]
    kept = {training_key(one, stage) for one in configs for stage in stages[-2:]}
    evaluator.trainer.states.keep(kept, stages)


def promote(
    evaluator: Evaluator,
    results: Sequence[Result],
    pool: Pool,
    promotions: Promotions,
    best: BestWeights,
    record: ResultLog,
    progress: Progress,
    room: Callable[[Evaluator, Chosen], Chosen] = lambda here, chosen: chosen,
    deadline: Callable[[str], Deadline] = lambda name: NEVER,
) -> list[PhaseResult]:
    """Trains the survivors of each phase on, to the last one.

    Args:
      evaluator: of the first phase.
      results: of its candidates.
      pool: those among them whose states were kept.
      promotions: who goes on.
      best: keeps the best candidate's weights; a later phase beats an earlier one.
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
    for rung in range(1, len(evaluator.trainer.rungs)):
        below = evaluator.at(rung - 1)
        here = evaluator.at(rung, on_trained=functools.partial(best.offer, rung=rung))
        chosen = room(here, promotions.choose(below, results, among))
        if not chosen.every:
            break
        keep_states(evaluator, [result.config for result in chosen.every], rung)
        name = evaluator.trainer.rungs[rung].name
        progress.phase(name, len(chosen.promoted), len(chosen.lucky))
        found: list[Result] = []
        ends = deadline(name)
        with contextlib.closing(_evaluated(here, chosen, ends, progress)) as evaluated:
            for result in evaluated:
                record.append(result)
                progress.candidate(result)
                found.append(result)
        if len(found) < len(chosen.every):
            ends.end(len(found))
        phases.append(PhaseResult(name, chosen.among(found), found))
        results = among = found
    keep_states(evaluator, (), len(evaluator.trainer.rungs) - 1)
    return phases


def _evaluated(
    here: Evaluator, chosen: Chosen, deadline: Deadline, progress: Progress
) -> Generator[Result]:
    """The chosen ones' results in this phase.

    After the deadline only of those that are known, or have ended in the meantime;
    of as many as it takes for one to succeed.
    """
    configs = [result.config for result in chosen.every]
    name = here.trainer.rungs[here.trainer.rung].name
    evaluations = here.evaluate_until(
        lambda succeeded: succeeded > 0 and deadline.passed(),
        configs,
        progress.steps(f"phase {name}"),
        phase=name,
    )
    promoted = {result.id for result in chosen.promoted}
    with contextlib.closing(evaluations):
        for result, evaluation in zip(chosen.every, evaluations, strict=True):
            if evaluation is not None:
                by = "rank" if result.id in promoted else "luck"
                yield result.in_phase(name, by, evaluation)


def repeated(
    evaluator: Evaluator,
    winner: Scored,
    results: Sequence[Result],
    number: int,
    progress: Progress,
) -> list[float]:
    """Accuracies of the winner after the first phase, from this and other seeds.

    Args:
      evaluator: of the first phase.
      winner: of the last phase.
      results: the first phase's; the winner's is among them.
      number: of other seeds; 0 to train nothing.
      progress: is told.
    """
    if not number:
        return []
    config = winner.config
    [own] = [result for result in scored(results) if result.id == winner.id]
    found = [own.metrics.accuracy]
    for repeat in range(1, number + 1):
        other = evaluator.at(0, repeat, on_trained=None)
        title = f"winner from seed {other.task.seed + repeat}"
        [evaluation] = other.evaluate([config], progress.steps(title), repeat=repeat)
        if evaluation.metrics is not None:
            found.append(evaluation.metrics.accuracy)
    return found
