"""From a config to its objectives: costs, real training, compression, score."""

import contextlib
import dataclasses
import functools
import math
import re
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from arch import ArchitectureConfig
from arch.cost import Hardware
from jaxnas.evaluation.analytic import Costs, costs_of
from jaxnas.evaluation.buckets import Plan
from jaxnas.evaluation.compiler import Compiler
from jaxnas.evaluation.execution import Outcome, Work, execute
from jaxnas.evaluation.machine import Machine, local_machine
from jaxnas.evaluation.planner import Expected, Planner, planner_for
from jaxnas.evaluation.plans import Plans
from jaxnas.evaluation.programs import Program
from jaxnas.evaluation.scored import Compression, Metrics
from jaxnas.evaluation.task import Task
from jaxnas.evaluation.trained import Report, TrainingFailed, training_config
from jaxnas.evaluation.trainings import Training, Trainings, training_key
from jaxnas.fitness import FitnessSettings, fitness_of, objectives_of
from jaxnas.train.loop import batch_starts
from jaxnas.train.phases import Phase


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is known of a candidate; a failure is a result too."""

    status: str  # ok | failed | skipped
    costs: Costs
    reason: str | None = None  # if not ok
    metrics: Metrics | None = None  # if ok, after the config's compression
    objectives: list[float] | None = None  # if ok, minimised
    fitness: float | None = None  # if ok, higher is better

    def to_dict(self) -> dict:
        """As JSON types."""
        return dataclasses.asdict(self)


class Outlook(NamedTuple):
    """What a search expects after the candidates at hand."""

    horizon: float = 0.0  # candidates like each of these
    expected: Sequence[Expected] = ()  # kinds to choose programs for
    prepares: bool = False  # whether to compile those programs now
    price: float = 1.0  # of compiling, see `Planner.plan`
    programs: float = math.inf  # that a search should make do with


NOTHING_AHEAD = Outlook()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evaluator:
    """Evaluates configs on one task.

    Attributes:
      compressions: scored after every training, for those that may ask later.
      trainings: what was trained before, and what will be from now on.
      plans: how that was done, and will be.
      machine: what it trains on.
      on_trained: called with each newly trained config, its weights and its
        evaluation, before the training is remembered.
      on_failed: called with each config whose training failed and the traceback.
      on_planned: called with each new plan before it runs.
      on_run: called with each plan that has run, and its seconds.
      say: told what goes otherwise than planned.
    """

    task: Task
    phase: Phase
    hardware: Hardware
    fitness: FitnessSettings
    max_size: float  # MiB; larger models are not trained
    eval_windows: int
    compressions: Sequence[Compression] = ()
    trainings: Trainings = dataclasses.field(default_factory=Trainings)
    plans: Plans = dataclasses.field(default_factory=Plans)
    machine: Machine = dataclasses.field(default_factory=local_machine)
    on_trained: Callable[[ArchitectureConfig, dict, Evaluation], None] | None = None
    on_failed: Callable[[ArchitectureConfig, str], None] = lambda config, trace: None
    on_planned: Callable[[Plan], None] = lambda plan: None
    on_run: Callable[[Plan, float], None] = lambda plan, seconds: None
    say: Callable[[str], None] = lambda text: None

    def __call__(
        self, config: ArchitectureConfig, report: Report = lambda *_: None
    ) -> Evaluation:
        """Evaluates one config; whatever goes wrong in it is in the result.

        Raises:
          ValueError: the config's vocabulary is smaller than the tokenizer's, or
            its sequences than a window.
        """
        [evaluation] = self.evaluate([config], report)
        return evaluation

    def evaluate(
        self,
        configs: Sequence[ArchitectureConfig],
        report: Report = lambda *_: None,
        outlook: Outlook = NOTHING_AHEAD,
        **about: Any,
    ) -> Generator[Evaluation]:
        """Evaluates configs together, in as few seconds as the planner can.

        Args:
          configs: in any number.
          report: told of the steps of all of them.
          outlook: what may come after them.
          **about: recorded with the plan.

        Yields:
          Their evaluations, in their order; each as soon as it is there.

        Raises:
          ValueError: as `__call__`, before anything is trained.
        """
        for config in configs:
            self._check(config)
        costs = [costs_of(config, self.hardware) for config in configs]
        waiting = [
            self._skipped(cost) or self._known(config, cost)
            for config, cost in zip(configs, costs, strict=True)
        ]
        open_ = [at for at, known in enumerate(waiting) if known is None]
        done = 0
        chosen = [configs[at] for at in open_]
        with contextlib.closing(
            self._train(chosen, report, outlook, about)
        ) as trainings:
            for _ in trainings:
                while done < len(configs):
                    found = waiting[done] or self._known(configs[done], costs[done])
                    if found is None:
                        break
                    yield found
                    done += 1
        for at in range(done, len(configs)):
            found = waiting[at] or self._known(configs[at], costs[at])
            assert found is not None
            yield found

    def weights(self, config: ArchitectureConfig, report: Report) -> dict:
        """What a config's training left, by training it again as it was planned.

        Raises:
          TrainingFailed: the loss stopped being finite.
        """
        outcomes = self._run([config], {}, report, NOTHING_AHEAD, {}, scores=False)
        [outcome] = list(outcomes)
        if outcome.params is None:
            raise TrainingFailed(str(outcome.error))
        return outcome.params

    def close(self):
        """Gives up what was to be compiled; nothing is evaluated afterwards."""
        for compiler in self._compilers.values():
            compiler.close()

    def programs(self) -> int:
        """Programs made ready so far, each for training and for scoring."""
        return sum(map(len, self._compilers.values()))

    def validation_windows(self) -> np.ndarray:
        """i32[<= eval_windows, T+1], the same for every candidate."""
        return self.task.windows("validation", self.eval_windows)

    def _check(self, config: ArchitectureConfig):
        tokens = self.task.dataset.vocab_size
        if config.vocab_size < tokens:
            raise ValueError(
                f"vocab_size={config.vocab_size} is less than the tokenizer's {tokens}"
            )
        window = self.task.settings.window
        if config.max_seq_length < window:
            raise ValueError(
                f"max_seq_length={config.max_seq_length} is less than the window of "
                f"{window} tokens"
            )

    def _skipped(self, costs: Costs) -> Evaluation | None:
        if costs.size_mib <= self.max_size:
            return None
        reason = f"{costs.size_mib:.1f} MiB is over max_size={self.max_size}"
        return Evaluation(status="skipped", costs=costs, reason=reason)

    def _known(self, config: ArchitectureConfig, costs: Costs) -> Evaluation | None:
        training = self.trainings.find(config)
        if training is None:
            return None
        # Known, but never scored so: the same weights are trained once more.
        unscored = not training.reason and _asked(config) not in training.metrics
        return None if unscored else self._judge(config, costs, training)

    def _train(self, configs, report, outlook, about) -> Generator[None]:
        """Trains the configs, each training once; remembers what it finds."""
        wanted: dict[str, list[Compression]] = {}
        first: dict[str, ArchitectureConfig] = {}
        for config in configs:
            key = training_key(config)
            first.setdefault(key, config)
            known = self.trainings.find(config)
            before = known.metrics if known else {}
            asked = [*self.compressions, _asked(config)]
            every = dict.fromkeys([*wanted.get(key, []), *asked])
            wanted[key] = [one for one in every if one not in before]
        chosen = list(first.values())
        for outcome in self._run(chosen, wanted, report, outlook, about):
            config = chosen[outcome.place]
            key = training_key(config)
            if outcome.error is not None:
                self.on_failed(config, outcome.trace)
                reason = _reason(outcome.error)
                known = self.trainings.find(config)
                before = known.metrics if known else {}
                training = Training(key=key, metrics=before, reason=reason)
            else:
                known = self.trainings.find(config)
                metrics = (known.metrics if known else {}) | outcome.metrics
                training = Training(key=key, metrics=metrics)
                if self.on_trained is not None:
                    costs = costs_of(config, self.hardware)
                    judged = self._judge(config, costs, training)
                    self.on_trained(config, outcome.params or {}, judged)
            self.trainings.add(training)
            yield

    def _run(
        self, configs, wanted, report, outlook, about, scores: bool = True
    ) -> Iterator[Outcome]:
        """Outcomes of the configs, in the plan that was made for them before."""
        if not configs:
            return
        keys = [training_key(config) for config in configs]
        found = self.plans.find(keys)
        if found is None:
            planned, plan = keys, self._plan(configs, outlook)
            self.plans.add(keys, plan, **about)
            self.on_planned(plan)
        else:
            planned, plan = found
        # A plan that goes on may hold more than is asked for now.
        place_of = {key: place for place, key in enumerate(keys)}
        candidates = [
            training_config(configs[place_of[key]]) if key in place_of else None
            for key in planned
        ]
        if not scores:
            plan = dataclasses.replace(plan, prepared=())
        begin = time.monotonic()
        work = Work(
            task=self.task,
            starts=self._starts,
            windows=self.validation_windows(),
            wanted=lambda place: wanted.get(planned[place], ()),
        )
        outcomes = execute(
            plan,
            candidates,
            work,
            self._compiler({one for every in wanted.values() for one in every}, scores),
            devices=self.machine.devices,
            workers=self.machine.workers,
            memory=self.machine.memory,
            report=report,
            on_split=self._split,
        )
        with contextlib.closing(outcomes):
            for outcome in outcomes:
                place = place_of[planned[outcome.place]]
                yield dataclasses.replace(outcome, place=place)
        if found is None:  # all of it ran, as it was foreseen
            self.on_run(plan, time.monotonic() - begin)

    def _split(self, program: Program, parts: list[Program], reason: str):
        self.plans.split(program, parts, reason)
        shape = program.shape
        self.say(
            f"a bucket is split: {shape.arch_type} L{shape.num_layers} "
            f"H{shape.hidden_dim} in {program.lanes} lanes does not fit, {reason}; "
            f"now {parts[0].form} in {parts[0].lanes}"
        )

    def _plan(self, configs, outlook: Outlook) -> Plan:
        homes = self.plans.homes()
        known = list(homes)
        return self._planner.plan(
            [training_config(config) for config in configs],
            known=known,
            horizon=outlook.horizon,
            expected=[
                Expected(config=training_config(kind.config), number=kind.number)
                for kind in outlook.expected
            ],
            prepares=outlook.prepares,
            price=outlook.price,
            most=outlook.programs - len(known),
            homes=None if self.machine.portable else homes,
        )

    @functools.cached_property
    def _planner(self) -> Planner:
        settings = self.task.settings
        scored = max(1, len(self.compressions)) * self.eval_windows
        scoring = scored / (3 * settings.batch)  # forward, of three passes
        return planner_for(self.machine, settings, len(self._starts), scoring)

    def _compiler(self, wanted: set[Compression], scores: bool) -> Compiler:
        """The programs; where all of a run ask for one compression, it is built in."""
        lone = None
        if len(self.compressions) == 1 and wanted <= set(self.compressions):
            lone = self.compressions[0]
        if (lone, scores) not in self._compilers:
            windows = len(self.validation_windows()) if scores else None
            cores = self.machine.cores
            self._compilers[lone, scores] = Compiler(self.task, windows, lone, cores)
        return self._compilers[lone, scores]

    @functools.cached_property
    def _compilers(self) -> dict[tuple[Compression | None, bool], Compiler]:
        return {}

    @functools.cached_property
    def _starts(self) -> np.ndarray:
        tokens = len(self.task.dataset.train)
        return batch_starts(self.task.seed, tokens, self.task.settings, self.phase)

    def _judge(self, config, costs: Costs, training: Training) -> Evaluation:
        metrics = training.metrics.get(_asked(config))
        if metrics is None:
            reason = training.reason or "the validation loss is not finite"
            return Evaluation(status="failed", costs=costs, reason=reason)
        objectives = objectives_of(metrics.accuracy, costs.size_mib, costs.latency_ms)
        return Evaluation(
            status="ok",
            costs=costs,
            metrics=metrics,
            objectives=objectives,
            fitness=fitness_of(objectives, self.fitness),
        )


def _asked(config: ArchitectureConfig) -> Compression:
    return Compression(config.quantization, config.pruning_ratio)


def _reason(error: Exception) -> str:
    """One line that is the same each time: no addresses, no traceback."""
    line = (str(error).strip().splitlines() or [""])[0][:300]
    line = re.sub(r"0x[0-9a-fA-F]+", "0x...", line)
    return f"{type(error).__name__}: {line}"
