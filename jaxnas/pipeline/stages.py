"""The stages of a run: search, later phases, and the end."""

from typing import Any, NamedTuple

from arch.cost import Hardware
from jaxnas.clock import PHASES_END, SEARCH_ENDS, Clock, Deadline
from jaxnas.config import RunConfig
from jaxnas.evaluation.evaluator import Evaluator
from jaxnas.latency.finalists import measure_finalists
from jaxnas.pipeline.budget import room_for
from jaxnas.pipeline.finish import finish
from jaxnas.pipeline.manifest import record_compilations
from jaxnas.pipeline.phases import (
    Promotions,
    promote,
    repeated,
)
from jaxnas.pipeline.promotion import Pool
from jaxnas.pipeline.search import SearchPlan, run_search
from jaxnas.pipeline.winner import BestWeights
from jaxnas.population.compile_stats import compile_counts
from jaxnas.population.devices import Machine
from jaxnas.report.plots import plot_fitness, plot_pareto
from jaxnas.report.progress import Progress
from jaxnas.results.phases import PhaseResult, finalists
from jaxnas.results.ranking import top_results
from jaxnas.results.result import Result, ResultLog
from jaxnas.results.summary import summary_of
from jaxnas.results.trust import phase_summary, trust_of
from jaxnas.storage.checkpoints import Checkpoints
from jaxnas.storage.files import write_whole
from jaxnas.storage.jsonl import Lines
from jaxnas.storage.run_folder import RunFolder
from jaxnas.training.phase import FIRST
from jaxnas.training.task import Task


class Ready(NamedTuple):
    """What a run knows before anything trains."""

    folder: RunFolder
    config: RunConfig  # resolved, and fitted to the budget
    clock: Clock
    task: Task
    hardware: Hardware  # whose latency is predicted
    machine: Machine
    plan: SearchPlan


class Stages(NamedTuple):
    """A run's parts while it goes on, and its steps in their order."""

    ready: Ready
    evaluator: Evaluator
    best_weights: BestWeights
    results: ResultLog
    later: ResultLog  # of the phases after the first
    timings: Lines
    progress: Progress

    def search(self, pool: Pool) -> bool:
        """The first phase; whether the space is exhausted."""
        folder, config, clock, *_, plan = self.ready
        with (
            Checkpoints(folder.checkpoints, config.keep_checkpoints) as checkpoints,
            self.progress.stage("search"),
        ):
            return run_search(
                plan,
                self.evaluator,
                self.results,
                checkpoints,
                self.progress,
                _Generations(folder, self.evaluator, pool),
                Deadline(clock, SEARCH_ENDS, "evaluated"),
            )

    def promote(
        self, results: list[Result], pool: Pool, promotions: Promotions
    ) -> list[PhaseResult]:
        """The later phases."""
        clock = self.ready.clock
        with self.progress.stage("phases"):
            if len(self.evaluator.trainer.rungs) > 1:
                pool.read(results)
            return promote(
                self.evaluator,
                results,
                pool,
                promotions,
                self.later,
                self.progress,
                room_for(clock, self.evaluator.trainer),
                lambda name: Deadline(clock, PHASES_END, f"phase {name}"),
            )

    def say_what_ended(self, exhausted: bool, candidates: int) -> None:
        """Says why there are fewer candidates than were asked for, if so."""
        say, plan = self.progress.say, self.ready.plan
        if exhausted:
            say(
                f"the space is exhausted: all {plan.space.distinct_count} distinct "
                f"models were evaluated"
            )
        elif self.ready.clock.decided("evaluated") is not None:
            say(f"the clock ends the search after {candidates} candidates")
        elif plan.max_evals is not None and candidates >= plan.max_evals:
            say(f"the search ends at max_evals={plan.max_evals}")

    def plot(self, results: list[Result]) -> None:
        """Fitness over generations, and the front."""
        folder = self.ready.folder
        plot_fitness(folder.fitness_plot, results)
        plot_pareto(folder.pareto_plot, results, self.evaluator.extra.names)

    def finish(
        self, results: list[Result], phases: list[PhaseResult], exhausted: bool
    ) -> tuple[dict[str, Any], list[Result]]:
        """Trains the winner on and measures.

        Returns:
          The summary, and the results of the last phase that anyone survived.
        """
        folder, config, clock, *_ = self.ready
        evaluator, progress = self.evaluator, self.progress
        rung, last = finalists(results, phases)
        [winner] = top_results(last, 1)
        write_whole(folder.best, winner.config.to_json())
        with progress.stage("finish"):
            final = finish(
                folder,
                config,
                clock,
                evaluator,
                evaluator.trainer.phases[rung],
                winner,
                self.best_weights,
                progress,
            )
        with progress.stage("repeats"):
            again = repeated(evaluator, winner, results, config.repeats, progress)
        with progress.stage("latency"):
            best = top_results(last, config.measure_top)
            measured = measure_finalists(
                best, evaluator.hardware, self.timings, progress.say
            )
        summary = summary_of(config, evaluator, results, winner, final, exhausted)
        rungs = evaluator.trainer.rungs
        summary["phases"] = phase_summary(rungs, results, phases)
        summary["trust"] = trust_of(rungs[0].name, results, phases, again)
        summary["latency"] = {"objective": config.latency, "finalists": measured}
        return summary, last


class _Generations:
    """Records what each generation compiled, and forgets whom it left behind."""

    def __init__(self, folder: RunFolder, evaluator: Evaluator, pool: Pool) -> None:
        self._folder, self._evaluator, self._pool = folder, evaluator, pool
        self._counts, self._programs = compile_counts(), 0

    def __call__(self, generation: int, results: list[Result]) -> None:
        if self._evaluator.trainer.states is not None:  # there is a later phase
            self._pool.read(results)
            kept = [result.config for result in self._pool.results]
            self._evaluator.trainer.keep_states(kept, FIRST)
        counts, programs = compile_counts(), self._evaluator.trainer.programs()
        record_compilations(
            self._folder.manifest,
            generation=generation,
            candidates=sum(result.generation == generation for result in results),
            programs=programs - self._programs,
            **counts.since(self._counts)._asdict(),
        )
        self._counts, self._programs = counts, programs
