"""What was found of a candidate: one typed value, and the file that keeps it."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypedDict

from arch import ArchitectureConfig
from jaxnas.errors import UsageError
from jaxnas.evaluation.costs import Costs
from jaxnas.evaluation.evaluator import Evaluation
from jaxnas.storage.jsonl import Json, Lines, Mark, read_lines
from jaxnas.storage.kinds import misfit
from jaxnas.training.scoring import Metrics

MOST = 2**31  # candidates


class Measurement(TypedDict):
    """One of the best candidates by the clock, see `jaxnas.latency.finalists`."""

    id: int
    predicted: dict[str, float]
    measured: dict[str, dict[str, float]]


class Candidate(NamedTuple):
    """What a strategy asked for, decoded."""

    id: int  # the same in every phase
    generation: int  # that asked for it, from 0
    genome: tuple[int, ...]
    config: ArchitectureConfig  # what the genome means


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A candidate in one phase; a failure is a result too.

    Attributes:
      id: of the candidate, the same in every phase.
      generation: that asked for it, from 0.
      genome: as integers.
      config: what the genome means.
      status: ok | failed | skipped.
      costs: from the config alone.
      reason: why it is not ok.
      metrics: after the config's compression; of a success alone.
      objectives: minimised; of a success alone.
      fitness: higher is better; of a success alone.
      phase: its name; None in the first phase.
      by: how it came into a later phase, rank | luck; None in the first.
    """

    id: int
    generation: int
    genome: tuple[int, ...]
    config: ArchitectureConfig
    status: str
    costs: Costs
    reason: str | None = None
    metrics: Metrics | None = None
    objectives: list[float] | None = None
    fitness: float | None = None
    phase: str | None = None
    by: str | None = None

    @classmethod
    def of(
        cls,
        candidate: Candidate,
        evaluation: Evaluation,
        phase: str | None = None,
        by: str | None = None,
    ) -> "Result":
        """The result of an evaluation: `Scored` if it succeeded."""
        kind = Scored if evaluation.status == "ok" else cls
        return kind(
            **candidate._asdict(),
            phase=phase,
            by=by,
            **{
                field.name: getattr(evaluation, field.name)
                for field in dataclasses.fields(evaluation)
            },
        )

    def in_phase(self, phase: str, by: str, evaluation: Evaluation) -> "Result":
        """The same candidate's result in a later phase."""
        candidate = Candidate(self.id, self.generation, self.genome, self.config)
        return Result.of(candidate, evaluation, phase, by)

    @classmethod
    def from_row(cls, row: Json) -> "Result":
        """The inverse of `to_row`.

        Raises:
          ValueError: the row holds no result: where it does not.
        """
        kind = Scored if row.get("status") == "ok" else cls
        if (wrong := misfit(row, kind)) is not None:
            raise ValueError(wrong)
        if not (0 <= row["id"] < MOST and 0 <= row["generation"] < MOST):
            raise ValueError("id or generation is beyond what there can be")
        metrics = row["metrics"]
        parsed = {
            "genome": tuple(row["genome"]),
            "config": ArchitectureConfig(**row["config"]),
            "costs": Costs(**row["costs"]),
            "metrics": None if metrics is None else Metrics(**metrics),
        }
        result = kind(**row | parsed)
        if (result.objectives is None) != (result.status != "ok"):
            raise ValueError(f"status {result.status!r} beside {result.objectives}")
        return result

    def to_row(self) -> Json:
        """As JSON types, in the order of a line of results.jsonl."""
        row = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self)
        }
        row["genome"] = list(self.genome)
        row["config"] = self.config.to_dict()
        row["costs"] = dataclasses.asdict(self.costs)
        row["metrics"] = self.metrics and dataclasses.asdict(self.metrics)
        if self.phase is None:
            del row["phase"], row["by"]
        return row


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored(Result):
    """A result whose status is ok."""

    metrics: Metrics
    objectives: list[float]
    fitness: float


def scored(results: Iterable[Result]) -> list[Scored]:
    """The successes among results, in their order."""
    return [result for result in results if isinstance(result, Scored)]


class ResultLog:
    """Results as a JSON-lines file, parsed once when it is opened."""

    def __init__(
        self, path: Path, added: Callable[[Result], None] = lambda result: None
    ) -> None:
        """Opens the file, or makes it.

        Args:
          path: of the file.
          added: called with each result that is appended, once the file has it.

        Raises:
          UsageError: a line is no result.
        """
        self._lines, self._added = Lines(path), added
        try:
            self._results = _parsed(path, self._lines)
        except UsageError:
            self._lines.close()
            raise

    @property
    def path(self) -> Path:
        """The file."""
        return self._lines.path

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[Result]:
        return iter(self._results)

    def append(self, result: Result) -> None:
        """Writes one more, and waits until the system has it."""
        self._lines.append(result.to_row())
        self._results.append(result)
        self._added(result)

    @property
    def proven(self) -> bool:
        """Whether every line holds its digest."""
        return self._lines.proven

    def mark(self, number: int | None = None) -> Mark:
        """See `Lines.mark`."""
        return self._lines.mark(number)

    def keep(self, number: int) -> None:
        """Drops all but the first `number`."""
        self._lines.keep(number)
        del self._results[number:]

    def close(self) -> None:
        """Closes the file."""
        self._lines.close()

    def __enter__(self) -> "ResultLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_results(path: Path) -> list[Result]:
    """The results in a file that another run may be writing to.

    Raises:
      UsageError: the file cannot be read, or a line is no result.
    """
    return _parsed(path, read_lines(path))


def _parsed(path: Path, rows: Iterable[Json]) -> list[Result]:
    results = []
    for number, row in enumerate(rows, 1):
        try:
            results.append(Result.from_row(row))
        except ValueError as error:
            raise UsageError(
                f"{path} is damaged in line {number}: it is no result: {error}"
            ) from None
    return results
