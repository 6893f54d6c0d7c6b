"""From a config to its objectives: costs, real training, compression, score."""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from arch import ArchitectureConfig
from arch.cost import Hardware
from jaxnas.errors import reason_of
from jaxnas.evaluation.analytic import Costs, costs_of
from jaxnas.evaluation.buckets import Plan
from jaxnas.evaluation.calls import Outcome, Work
from jaxnas.evaluation.compiler import Compiler
from jaxnas.evaluation.execution import execute
from jaxnas.evaluation.extra import Extra, ObjectiveFailed, compression_of
from jaxnas.evaluation.machine import Machine, local_machine
from jaxnas.evaluation.planner import Expected, Planner, planner_for
from jaxnas.evaluation.plans import Plans
from jaxnas.evaluation.programs import Program
from jaxnas.evaluation.scored import Compression, Metrics
from jaxnas.evaluation.states import States
from jaxnas.evaluation.task import Task
from jaxnas.evaluation.trained import Report, TrainingFailed, training_config
from jaxnas.evaluation.trainings import Training, Trainings, training_key
from jaxnas.fitness import FitnessSettings, fitness_of, objectives_of
from jaxnas.train.loop import TrainState, batch_starts
from jaxnas.train.phases import Phase
from jaxnas.train.rungs import Rung, rung_starts


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

# By the compression that is built in, None where it is data.
Compilers: TypeAlias = dict[Compression | None, Compiler]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evaluator:
    """Evaluates configs on one task.

    Attributes:
      rungs: the phases, each going on where the one before was stable.
      rung: which of them this evaluator trains for, see `at`.
      repeat: 0, or which repetition from another seed.
      recovery_share: of a rung's steps, that pruned weights train on for.
      flat: share of its loss that a training has to win to go on, see `Work`.
      latency: which one is an objective, of `LATENCIES`.
      compressions: scored after every training, for those that may ask later.
      extra: the user's objectives, asked for each of those scores.
      states: where trainings go on from, between phases; None keeps none.
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
    rungs: Sequence[Rung]
    hardware: Hardware
    fitness: FitnessSettings
    max_size: float  # MiB; larger models are not trained
    eval_windows: int
    rung: int = 0
    repeat: int = 0
    recovery_share: float = 0.0
    flat: float = 0.0
    latency: str = "estimate"
    compressions: Sequence[Compression] = ()
    extra: Extra = dataclasses.field(default_factory=Extra)
    states: States | None = None
    trainings: Trainings = dataclasses.field(default_factory=Trainings)
    plans: Plans = dataclasses.field(default_factory=Plans)
    machine: Machine = dataclasses.field(default_factory=local_machine)
    on_trained: Callable[[ArchitectureConfig, dict, Evaluation], None] | None = None
    on_failed: Callable[[ArchitectureConfig, str], None] = lambda config, trace: None
    on_planned: Callable[[Plan], None] = lambda plan: None
    on_run: Callable[[Plan, float], None] = lambda plan, seconds: None
    say: Callable[[str], None] = lambda text: None
    compilers: Compilers = dataclasses.field(default_factory=dict)

    def at(self, rung: int, repeat: int = 0, **changes: Any) -> "Evaluator":
        """This evaluator in another phase, or from another seed.

        It shares all that is known and compiled. A later phase needs a survivor's
        state; where that is not kept any more, the phases before are done again.

        Args:
          rung: place in `rungs`.
          repeat: from 1 on, another seed each.
          **changes: of other fields.
        """
        if rung and len(self.compressions) > 1:
            changes = {"compressions": ()} | changes  # only what is asked for
        return dataclasses.replace(self, rung=rung, repeat=repeat, **changes)

    @property
    def stage(self) -> str:
        """What sets its trainings apart from those of other phases and seeds."""
        phase = f"@{self.rungs[self.rung].name}" if self.rung else ""
        return phase + (f"#{self.repeat}" if self.repeat else "")

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
        for found in self.evaluate_until(
            lambda succeeded: False, configs, report, outlook, **about
        ):
            assert found is not None
            yield found

    def evaluate_until(
        self,
        enough: Callable[[int], bool],
        configs: Sequence[ArchitectureConfig],
        report: Report = lambda *_: None,
        outlook: Outlook = NOTHING_AHEAD,
        **about: Any,
    ) -> Generator[Evaluation | None]:
        """As `evaluate`, but that trainings may end before all are done.

        Args:
          enough: told how many are known to succeed, whether to train no more;
            asked before the first training and after each.
          configs: and all others, as for `evaluate`.
          report: as there.
          outlook: as there.
          **about: as there.

        Yields:
          In the configs' order, an evaluation of those that are known, None for
          the others.
        """
        for config in configs:
            self._check(config)
        costs = [costs_of(config, self.hardware, self.latency) for config in configs]
        waiting = [
            self._skipped(cost) or self._known(config, cost)
            for config, cost in zip(configs, costs, strict=True)
        ]
        open_ = [at for at, known in enumerate(waiting) if known is None]
        done, cost_of = 0, dict(zip(configs, costs, strict=True))
        succeeded = sum(one is not None and one.status == "ok" for one in waiting)
        chosen = [] if enough(succeeded) else [configs[at] for at in open_]
        with contextlib.closing(
            self._train(chosen, report, outlook, about)
        ) as trainings:
            for trained in trainings:
                while done < len(configs):
                    found = waiting[done] or self._known(configs[done], costs[done])
                    if found is None:
                        break
                    yield found
                    done += 1
                for config in trained:
                    found = self._known(config, cost_of[config])
                    succeeded += found is not None and found.status == "ok"
                if enough(succeeded):
                    break
        for at in range(done, len(configs)):
            yield waiting[at] or self._known(configs[at], costs[at])

    def weights(self, config: ArchitectureConfig, report: Report) -> dict:
        """What a config's training left, by training it again as it was planned.

        Raises:
          TrainingFailed: the loss stopped being finite.
        """
        if self._has_stopped(config):
            return self.at(self.rung - 1).weights(config, report)
        asked = {self._key(config): [compression_of(config)]}
        outcomes = self._run([config], asked, report, NOTHING_AHEAD, {})
        [outcome] = list(outcomes)
        weights = outcome.weights_for(config.pruning_ratio)
        if weights is None:
            raise TrainingFailed(str(outcome.error))
        return weights

    def foreseen(self, configs: Sequence[ArchitectureConfig]) -> float:
        """Seconds that these would take, with what is compiled so far."""
        chosen = {self._key(config): training_config(config) for config in configs}
        known = list(self.plans.homes())
        return self._planner.plan(list(chosen.values()), known=known).seconds

    def close(self):
        """Gives up what was to be compiled; nothing is evaluated afterwards."""
        for compiler in self.compilers.values():
            compiler.close()

    def programs(self) -> int:
        """Programs made ready so far, each for training and for scoring."""
        return sum(map(len, self.compilers.values()))

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
        training = self.trainings.find(config, self.stage)
        if training is None and self._has_stopped(config):
            # There was nothing left to win: the phase before has its result.
            before = self.at(self.rung - 1)._known(config, costs)
            training = self.trainings.find(config, self.at(self.rung - 1).stage)
            if before is not None and training is not None:
                key = self._key(config)
                self.trainings.add(dataclasses.replace(training, key=key))
            return before
        if training is None:
            return None
        # Known, but never scored so: the same weights are trained once more.
        unscored = not training.reason and (
            compression_of(config) not in training.metrics
            or self.extra.lacks(config, training)
        )
        return None if unscored else self._judge(config, costs, training)

    def _train(
        self, configs, report, outlook, about
    ) -> Generator[Sequence[ArchitectureConfig]]:
        """Trains the configs, each training once; remembers what it finds.

        Yields:
          After each training, the configs that share it.
        """
        wanted: dict[str, list[Compression]] = {}
        first: dict[str, ArchitectureConfig] = {}
        sharing: dict[str, list[ArchitectureConfig]] = {}
        for config in configs:
            key = self._key(config)
            first.setdefault(key, config)
            sharing.setdefault(key, []).append(config)
            known = self.trainings.find(config, self.stage)
            lacks = known is None or self.extra.lacks(config, known)
            before = {} if known is None or lacks else known.metrics
            asked = [*self.compressions, compression_of(config)]
            every = dict.fromkeys([*wanted.get(key, []), *asked])
            wanted[key] = [one for one in every if one not in before]
        chosen = list(first.values())
        for outcome in self._run(chosen, wanted, report, outlook, about):
            config = chosen[outcome.place]
            key = self._key(config)
            known = self.trainings.find(config, self.stage)
            before = known.metrics if known else {}
            if outcome.error is not None:
                self.on_failed(config, outcome.trace)
                reason = reason_of(outcome.error)
                extra = known.extra if known else {}
                training = Training(key=key, metrics=before, reason=reason, extra=extra)
            else:
                training = self.extra.measured(
                    Training(
                        key=key,
                        metrics=before | outcome.metrics,
                        stopped=outcome.stopped,
                        curve=outcome.curve,
                        extra=known.extra if known else {},
                    ),
                    sharing[key],
                    outcome,
                    lambda config: costs_of(config, self.hardware, self.latency),
                    self.on_failed,
                )
                weights = outcome.weights_for(config.pruning_ratio)
                if self.on_trained is not None and weights is not None:
                    costs = costs_of(config, self.hardware, self.latency)
                    judged = self._judge(config, costs, training)
                    self.on_trained(config, weights, judged)
            self.trainings.add(training)
            yield sharing[key]

    def _run(self, configs, wanted, report, outlook, about) -> Iterator[Outcome]:
        """Outcomes of the configs, in the plan that was made for them before."""
        if not configs:
            return
        keys = [self._key(config) for config in configs]
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
        begin = time.monotonic()
        work = self._work(
            candidates, lambda place: wanted.get(planned[place], ()), report
        )
        outcomes = execute(
            plan,
            candidates,
            work,
            self._compiler({one for every in wanted.values() for one in every}),
            devices=self.machine.devices,
            workers=self.machine.workers,
            memory=self.machine.memory,
            report=report,
            on_split=self._split,
        )
        with contextlib.closing(outcomes):
            for outcome in outcomes:
                key = planned[outcome.place]
                if self.states is not None and outcome.state is not None:
                    self.states.save(key, outcome.state)
                yield dataclasses.replace(outcome, place=place_of[key])
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
        settings, rung = self.task.settings, self.rungs[self.rung]
        scored = max(1, len(self.compressions)) * self.eval_windows
        scoring = scored / (3 * settings.batch)  # forward, of three passes
        if self._recovery is not None:
            pruned = {one.pruning_ratio for one in self.compressions} - {0.0}
            scoring += len(pruned) * len(self._recovery)
        return planner_for(self.machine, settings, rung.new_steps, scoring)

    def _compiler(self, wanted: set[Compression]) -> Compiler:
        """The programs; where all of a run ask for one compression, it is built in."""
        lone = None
        if len(self.compressions) == 1 and wanted <= set(self.compressions):
            lone = self.compressions[0]
        if lone not in self.compilers:
            windows, cores = len(self.validation_windows()), self.machine.cores
            self.compilers[lone] = Compiler(self.task, windows, lone, cores)
        return self.compilers[lone]

    def _key(self, config: ArchitectureConfig) -> str:
        return training_key(config, self.stage)

    def _has_stopped(self, config: ArchitectureConfig) -> bool:
        """Whether the config was done with in the phase before."""
        if not self.rung:
            return False
        before = self.trainings.find(config, self.at(self.rung - 1).stage)
        return before is not None and before.stopped is not None

    def _work(self, candidates, wanted, report) -> Work:
        """What all candidates of a plan do in this phase."""
        rung, settings = self.rungs[self.rung], self.task.settings
        task = self._own_task
        tokens = len(task.dataset.train)
        rungs = self.rungs[: self.rung + 1]
        begun = self._begun(candidates, report) if rung.begin else None
        return Work(
            task=task,
            starts=rung_starts(task.seed, tokens, settings, rungs),
            windows=self.validation_windows(),
            wanted=wanted,
            schedule=rung.schedule(settings),
            begin=rung.begin,
            begun=begun,
            keep=None if self.states is None else rung.keep,
            flat=self.flat,
            recovery=self._recovery,
        )

    def _begun(self, candidates, report) -> Callable[[int], TrainState]:
        """Where each candidate goes on from; what is missing is trained again."""
        assert self.states is not None
        below, states = self.at(self.rung - 1), self.states
        every = [config for config in candidates if config is not None]
        missing = [config for config in every if below._key(config) not in states]
        if missing:
            for _ in below._run(missing, {}, report, NOTHING_AHEAD, {}):
                pass  # the states are saved as they come
        return lambda place: states.load(
            below._key(candidates[place]), candidates[place], self.task.settings
        )

    @functools.cached_property
    def _own_task(self) -> Task:
        """The task; from another seed for a repetition."""
        if not self.repeat:
            return self.task
        return dataclasses.replace(self.task, seed=self.task.seed + self.repeat)

    @functools.cached_property
    def _recovery(self) -> np.ndarray | None:
        """i32[R, B], where windows begin that pruned weights train on for."""
        settings = self.task.settings
        steps = round(self.recovery_share * self.rungs[self.rung].steps)
        if not steps:
            return None
        phase = Phase(samples=steps * settings.batch, epochs=1)
        task = self._own_task
        tokens = len(task.dataset.train)
        return batch_starts(task.seed, tokens, settings, phase, "recovery")

    def _judge(self, config, costs: Costs, training: Training) -> Evaluation:
        metrics = training.metrics.get(compression_of(config))
        if metrics is None:
            reason = training.reason or "the validation loss is not finite"
            return Evaluation(status="failed", costs=costs, reason=reason)
        objectives = objectives_of(metrics.accuracy, costs.size_mib, costs.latency_ms)
        try:
            objectives += self.extra.found(config, training)
        except ObjectiveFailed as error:
            return Evaluation(status="failed", costs=costs, reason=str(error))
        return Evaluation(
            status="ok",
            costs=costs,
            metrics=metrics,
            objectives=objectives,
            fitness=fitness_of(objectives, self.fitness),
        )
