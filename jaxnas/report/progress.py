"""What a run says while it works."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import rich.progress
from rich.console import Console

from jaxnas.clock import clock_words
from jaxnas.population.plan import Plan
from jaxnas.report.plans import plan_table
from jaxnas.report.words import describe
from jaxnas.results.result import Result, Scored, scored
from jaxnas.results.summary import generation_statistics
from jaxnas.storage.jsonl import Lines


class Progress:
    """Prints a line a candidate and a line a generation; bars on a terminal."""

    def __init__(
        self,
        console: Console,
        candidates: int,
        timings: Lines,
        ends: Callable[[str], float] = lambda part: math.inf,
    ) -> None:
        """What is shown on the console.

        Args:
          console: to print to.
          candidates: how many distinct ones there can be at most.
          timings: what took how long.
          ends: seconds until the clock ends a part, search | phase; inf if it
            does not.
        """
        self.console = console
        self._ends, self._part = ends, "search"
        self._timings = timings
        self._bars = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[left]}"),
            rich.progress.TextColumn("{task.fields[workers]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._all = self._bars.add_task(
            "candidates", total=candidates, left="", workers=""
        )
        self._steps = self._bars.add_task(
            "steps", total=None, left="", workers="", visible=False
        )
        self._candidates = candidates
        self._done = 0
        self._trained = 0
        self._spent = 0.0  # seconds on the candidates that were trained

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Takes the time of a part of the run."""
        began = time.monotonic()
        yield
        seconds = round(time.monotonic() - began, 3)
        self._timings.append({"stage": name, "seconds": seconds})

    def begin_generation(self, generation: int) -> None:
        """Names the generation in the bar."""
        self._bars.update(self._all, description=f"generation {generation + 1}")

    def planned(self, plan: Plan, verbose: bool) -> None:
        """A plan is about to run."""
        if verbose:
            self.console.print(plan_table(plan))

    def plan_has_run(self, plan: Plan, seconds: float) -> None:
        """A plan is done: records its seconds beside the predicted ones."""
        self._timings.append(
            {
                "buckets": len(plan.buckets),
                "predicted": round(plan.seconds, 3),
                "seconds": round(seconds, 3),
            }
        )
        self._spent += seconds
        self._trained += sum(len(bucket.members) for bucket in plan.buckets)

    def steps(self, title: str) -> Callable[[int, int, float], None]:
        """A report function that moves the bar of steps, with its time left."""
        began = time.monotonic()

        def report(done: int, total: int, loss: float) -> None:
            left = (time.monotonic() - began) / done * (total - done)
            self._bars.update(
                self._steps,
                description=title,
                completed=done,
                total=total,
                visible=done < total,
                left=f"loss {loss:.3f}, {clock_words(left)} left",
            )

        return report

    def workers(self, busy: int, there: int) -> None:
        """How many of a cluster's workers train."""
        self._bars.update(self._all, workers=f"{busy} of {there} workers busy")

    def candidate(self, result: Result) -> None:
        """One candidate is done."""
        self._done += 1
        last = self._done >= self._candidates
        left = "" if last else f"at most {self._left()} left"
        self._bars.update(self._all, completed=self._done, left=left, visible=not last)
        self.say(
            f"  {result.id:>4}  {describe(result.config)}\n        {_outcome(result)}"
        )

    def phase(self, name: str, promoted: int, at_random: int) -> None:
        """A later phase begins."""
        drawn = f" and {at_random} drawn at random" if at_random else ""
        self.say(f"phase {name}: the best {promoted}{drawn} train on")
        self._candidates, self._done = promoted + at_random, 0
        self._part = "phase"
        self._trained, self._spent = 0, 0.0
        self._bars.update(
            self._all,
            description=f"phase {name}",
            total=self._candidates,
            completed=0,
            left="",
            visible=True,
        )

    def known(self, number: int) -> None:
        """Candidates that an earlier process evaluated."""
        self._done += number
        self._bars.update(self._all, completed=self._done)

    def end_generation(self, generation: int, results: Sequence[Result]) -> None:
        """Best so far, and this generation's mean and deviation."""
        stats = generation_statistics(results, generation)
        fitness = [result.fitness for result in scored(results)]
        best = f"{max(fitness):.4f}" if fitness else "none yet"
        tried = sum(result.generation == generation for result in results)
        now = "nothing new: every candidate was known"
        if stats["new"]:
            now = (
                f"mean {stats['mean']:.4f} +- {stats['std']:.4f} over "
                f"{stats['new']} new"
            )
        elif tried:
            now = f"none of the {tried} new succeeded"
        last = self._done >= self._candidates
        left = "" if last else f"; at most {self._left()} of search left"
        self.say(f"generation {generation + 1}: best fitness {best}, {now}{left}")

    def _left(self) -> str:
        """The time until the clock ends the part, or by the candidates to come."""
        open_ = max(0, self._candidates - self._done)
        seconds = self._spent / max(1, self._trained) * open_
        if (by_clock := self._ends(self._part)) < math.inf:
            seconds, open_ = by_clock, 1
        return clock_words(max(1.0, seconds) if open_ else 0.0)

    def say(self, text: str) -> None:
        """Prints a line above the bars."""
        self.console.print(text, soft_wrap=True)


def _outcome(result: Result) -> str:
    if not isinstance(result, Scored):
        return f"{result.status}: {result.reason}"
    metrics, costs = result.metrics, result.costs
    return (
        f"accuracy {metrics.accuracy:.4f}  "
        f"bits/byte {metrics.bits_per_byte:.3f}  "
        f"{costs.size_mib:.1f} MiB  {costs.latency_ms:.2f} ms  "
        f"fitness {result.fitness:.4f}"
    )
