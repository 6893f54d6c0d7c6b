"""What each choice of a gene was worth to the candidates of a run, with intervals.

Candidates of a search are no experiment: good choices come together, and later
generations hold more of them. A choice's mean is therefore taken beside what the
other genes explain, by a linear model of main effects, and its interval is a
bootstrap over candidates (Efron 1979, doi:10.1214/aos/1176344552).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from arch import ArchitectureConfig
from arch.families import USES
from jaxnas.results.ranking import top_results
from jaxnas.results.result import Result, Scored, scored

RESAMPLES = 400
RIDGE = 1.0  # candidates' worth of evidence that a choice makes no difference
BEST = 0.25  # share of the candidates that are the survivors
_COVERS = 0.95


class Choice(NamedTuple):
    """One value of a gene.

    Attributes:
      value: in words.
      first: share of the first generation that has it.
      best: share of the best quarter.
      number: candidates that have it.
      worth: accuracy that it adds to the mean candidate, beside all other genes.
      low: of the interval that covers 95 % of the resamples,
      high: likewise.
    """

    value: str
    first: float
    best: float
    number: int
    worth: float
    low: float
    high: float


class Gene(NamedTuple):
    """A gene of which the candidates have several values."""

    name: str
    choices: tuple[Choice, ...]

    @property
    def span(self) -> float:
        """Between the worth of its best choice and that of its worst."""
        worths = [choice.worth for choice in self.choices]
        return max(worths) - min(worths)


def effects(results: Iterable[Result], seed: int = 0) -> list[Gene]:
    """The genes, those that make the most difference first.

    A gene that a candidate's family does not read has no value there.

    Args:
      results: of one phase.
      seed: of the resamples.
    """
    found = scored(results)
    if len(found) < 3:
        return []
    columns = _columns(found)
    values = [[column[row] for column in columns.values()] for row in range(len(found))]
    matrix, owners = _indicators(values, list(columns))
    accuracy = np.asarray([one.metrics.accuracy for one in found])
    worth = _worth(matrix, accuracy, owners)
    random = np.random.default_rng(seed)
    draws = [random.integers(len(found), size=len(found)) for _ in range(RESAMPLES)]
    resampled = np.stack([_worth(matrix[i], accuracy[i], owners) for i in draws])
    edge = (1 - _COVERS) / 2
    low, high = np.quantile(resampled, [edge, 1 - edge], axis=0)
    first = np.asarray([one.generation == found[0].generation for one in found])
    ids = {one.id for one in top_results(found, max(1, round(BEST * len(found))))}
    best = np.asarray([one.id in ids for one in found])
    genes = []
    for name in columns:
        own = [place for place, (gene, _) in enumerate(owners) if gene == name]
        choices = [
            Choice(
                owners[place][1],
                float(matrix[first, place].mean()),
                float(matrix[best, place].mean()),
                int(matrix[:, place].sum()),
                float(worth[place]),
                float(low[place]),
                float(high[place]),
            )
            for place in own
        ]
        genes.append(Gene(name, tuple(choices)))
    return sorted(genes, key=lambda gene: -gene.span)


def _columns(found: Sequence[Scored]) -> dict[str, list[str | None]]:
    """Field -> each candidate's value in words; fields that differ alone."""
    columns: dict[str, list[str | None]] = {}
    for name in found[0].config.to_dict():
        if name == "vocab_size":
            continue
        values = [choice_of(one.config, name) for one in found]
        if len({value for value in values if value is not None}) > 1:
            columns[name] = values
    return columns


def choice_of(config: ArchitectureConfig, name: str) -> str | None:
    """A value in words, None where the family does not read it or it is not set."""
    value = getattr(config, name)
    if name not in USES[config.arch_type] or value is None:
        return None
    return f"{value:g}" if isinstance(value, float) else str(value)


def _indicators(
    rows: Sequence[Sequence[str | None]], genes: Sequence[str]
) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """f64[N, C], 1 where a candidate has a choice; and what each column is of."""
    owners = []
    for place, gene in enumerate(genes):
        values = {value for row in rows if (value := row[place]) is not None}
        owners += [(gene, value) for value in sorted(values, key=_order)]
    places = {gene: place for place, gene in enumerate(genes)}
    matrix = [
        [float(row[places[gene]] == value) for gene, value in owners] for row in rows
    ]
    return np.asarray(matrix), owners


def _order(value: str) -> tuple[float, str]:
    """Numbers by their size, words behind them."""
    try:
        return float(value), ""
    except ValueError:
        return float("inf"), value


def _worth(
    matrix: np.ndarray, accuracy: np.ndarray, owners: Sequence[tuple[str, str]]
) -> np.ndarray:
    """f64[C]: main effects by ridge regression, each gene's around its own mean."""
    centred = matrix - matrix.mean(axis=0)
    gram = centred.T @ centred + RIDGE * np.eye(matrix.shape[1])
    slopes = np.linalg.solve(gram, centred.T @ (accuracy - accuracy.mean()))
    for gene in dict.fromkeys(gene for gene, _ in owners):
        own = np.asarray([name == gene for name, _ in owners])
        counts = matrix[:, own].sum(axis=0)
        if counts.sum():
            slopes[own] -= (counts * slopes[own]).sum() / counts.sum()
    return slopes
