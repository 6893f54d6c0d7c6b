"""The settings of a run: as a user gives them, and with none left open."""

import dataclasses
from collections.abc import Iterable

import tomli_w

from jaxnas.clock import seconds_of
from jaxnas.config.fields import Fields, Values, check
from jaxnas.errors import UsageError
from jaxnas.presets import (
    CALIBRATING,
    DECODE_SHARE,
    PRESETS,
    STRATEGY_SETTINGS,
    default_space,
    is_space_file,
    phases_of,
    readers_of,
    search_of,
    unread_by,
)
from jaxnas.source_name import anchored_source
from jaxnas.storage import inputs
from jaxnas.targets import Target, targets_of
from jaxnas.training.lengths import PhaseLength

PLANNED = "planned"  # the key of those that a budget's clock decided
MOST_HELD = 2**31  # numbers of one array


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(Fields):
    """Everything that decides a run's results, as a user gives it.

    A field whose default is None is open until `resolve` gives it the preset's
    value; what runs is `Settings`.

    Raises:
      UsageError: a value out of its range.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(RunConfig):
            check(field, getattr(self, field.name))
        if self.strategy is not None:
            self._check_read_by(self.strategy)
        if self.budget is not None:
            self.budget_seconds()
        if self.target is not None:
            self.targets()
        if self.phases is not None:
            self._phases(self.phases, "small")  # all presets know the same names

    def _check_read_by(self, strategy: str) -> None:
        for name in unread_by(strategy):
            if (value := getattr(self, name)) is not None:
                raise UsageError(
                    f"{name}={value!r} is not read by strategy {strategy}: only by "
                    f"{', '.join(readers_of(name))}"
                )

    def resolve(self, backend: str) -> "Settings":
        """Fills what was left open, for a JAX backend ("cpu", "gpu", "tpu")."""
        name = self.preset
        if name == "auto":
            name = "small" if backend == "cpu" else "standard"
        space = self.space or default_space(backend)
        search = search_of(space)
        strategy = self.strategy or str(search["strategy"])
        self._check_read_by(strategy)
        values: Values = {
            **PRESETS[name].settings,
            **search,
            **STRATEGY_SETTINGS[strategy],
            **self._weights(space),
            "space": space,
            "strategy": strategy,
        }
        if self.samples is not None or self.epochs is not None:
            values["phases"] = "fast"
        phases = self._phases(self.phases or values["phases"], name)
        several = len(phases) > 1
        values |= {
            "decay_share": 0.2 if several else 0.9,
            "repeats": 2 if several and "repeats" not in search else 0,
        }
        if not several:
            [phase] = phases.values()
            values |= {"samples": phase.samples, "epochs": phase.epochs}
        budget = self.budget_seconds()
        hasty = budget is not None and budget < CALIBRATING
        latency = self.latency or ("estimate" if hasty else search["latency"])
        top = 1 if latency == "estimate" else self.top_k
        values |= {"latency": latency, "measure_top": top}
        if latency == "decode":
            values["latency_target"] *= DECODE_SHARE
            if "max_latency" in values:
                values["max_latency"] *= DECODE_SHARE
        given = dataclasses.asdict(self)
        filled = {key: value for key, value in values.items() if given[key] is None}
        return Settings(**given | filled | {"preset": name})

    def _weights(self, space: str) -> dict[str, float]:
        """Of the scores: with limits the most accurate model wins."""
        limited = (
            self.max_size is not None
            or self.max_latency is not None
            or "max_latency" in search_of(space)
        )
        names = ("accuracy_weight", "size_weight", "latency_weight")
        return dict(zip(names, (1, 0, 0) if limited else (0.5, 0.3, 0.2), strict=True))

    def _phases(self, text: str, preset: str) -> dict[str, PhaseLength]:
        try:
            phases = phases_of(text, preset)
        except ValueError as error:
            raise UsageError(f"phases={text!r}: {error}") from None
        if len(phases) > 1 and (self.samples is not None or self.epochs is not None):
            raise UsageError(
                f"samples and epochs are of a lone phase, phases={text!r} has "
                f"{len(phases)}: write them as SAMPLESxEPOCHS there"
            )
        return phases

    def budget_seconds(self) -> float | None:
        """The budget in seconds, None if there is none."""
        try:
            return None if self.budget is None else seconds_of(self.budget)
        except ValueError as error:
            raise UsageError(f"budget={self.budget!r}: {error}") from None

    def targets(self) -> tuple[Target, ...]:
        """What a candidate has to reach for the search to end; none if empty."""
        try:
            return () if self.target is None else targets_of(self.target)
        except ValueError as error:
            raise UsageError(f"target={self.target!r}: {error}") from None

    def anchored(self) -> "RunConfig":
        """With all paths absolute: a resume may start anywhere."""
        data, earlier, space = self.data, self.warm_start, self.space
        if earlier is not None:
            earlier = str(inputs.user_path(earlier).resolve())
        if space is not None and is_space_file(space):
            space = str(inputs.user_path(space).resolve())
        data = anchored_source(data)
        return dataclasses.replace(self, data=data, warm_start=earlier, space=space)

    @property
    def code_flags(self) -> tuple[str, ...]:
        """What a command line has to say again for code that the settings name."""
        return () if self.objectives is None else ("--objectives", self.objectives)

    def to_toml(self, planned: Iterable[str] = ()) -> str:
        """TOML that `read_toml` reads back; what is open is left out.

        Args:
          planned: settings that a budget's clock decided, which a new run with these
            settings decides for itself.
        """
        values = dataclasses.asdict(self)
        given = {name: value for name, value in values.items() if value is not None}
        names = sorted(given.keys() & {*planned})
        return tomli_w.dumps(given | ({PLANNED: names} if names else {}))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(RunConfig):
    """The settings that a run uses: none that it needs is open."""

    space: str
    strategy: str
    population: int
    generations: int
    max_size: float
    promote_share: float
    lucky: int
    accuracy_weight: float
    size_weight: float
    latency_weight: float
    vocab_size: int
    eval_windows: int
    final_windows: int
    phases: str
    repeats: int
    window: int
    batch: int
    learning_rate: float
    decay_share: float
    final_steps: int
    size_target: float
    size_limit: float
    latency_target: float
    latency: str
    measure_top: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_work()

    def _check_work(self) -> None:
        """Refuses what no memory holds: numbers that are allowed can multiply."""
        tokens = self.window + 1
        held = {
            "eval_windows x window": self.eval_windows * tokens,
            "final_windows x window": self.final_windows * tokens,
            "final_steps x batch": self.final_steps * self.batch,
            "steps_per_call x batch": self.steps_per_call * self.batch,
        }
        for name, phase in self.named_phases().items():
            held[f"samples x epochs of phase {name}"] = phase.samples * phase.epochs
        for words, number in held.items():
            if number > MOST_HELD:
                raise UsageError(f"{words} is {number:,}: at most {MOST_HELD:,} fit")

    def named_phases(self) -> dict[str, PhaseLength]:
        """The phases by name, in their order."""
        phases = self._phases(self.phases, self.preset)
        if len(phases) > 1:
            return phases
        [name], samples, epochs = phases, self.samples, self.epochs
        assert samples is not None
        assert epochs is not None
        return {name: PhaseLength(samples=samples, epochs=epochs)}
