"""Does predicted loss rank and predict models that others have trained?

Reads the trained language models of LiteTransformerSearch (Javaheripi et al.
2022, arXiv:2203.02094). Their layers differ in width, so parameters are counted
here, from the fields of the architecture; the law is that of `arch.cost`.

    python experiments/capability/capability.py --out experiments/capability/result.json
"""

import argparse
import csv
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table
from scipy.stats import spearmanr

from arch.scaling import DEFAULT_LAW, Capacity, expected_loss
from arch.scaling.fit import fit_law, take
from arch.scaling.predicted_loss import one_hot
from jaxnas.commands.options import file_to_write
from jaxnas.report.tables import add_numbers, plain_console, plain_table

DATA = Path(__file__).parents[2].parent / "shared/data/lts_ground_truth.csv"

# The same for all models of a set, and not in the file: a fit finds no term of
# tokens, and a ranking does not depend on their number.
TOKENS = 1e9


@dataclasses.dataclass(frozen=True)
class Models:
    """The trained models of one set, as columns."""

    capacity: Capacity
    total: np.ndarray  # parameters, the file's own count: only to compare with
    loss: np.ndarray  # log-perplexity, nats a token

    def tokens(self) -> np.ndarray:
        return np.full(len(self.loss), TOKENS)

    def half(self, mask: np.ndarray) -> "Models":
        return Models(take(self.capacity, mask), self.total[mask], self.loss[mask])

    def by_total(self) -> "Models":
        """The same models for a law on total parameters."""
        capacity = self.capacity._replace(trained=self.total, kept=self.total)
        return dataclasses.replace(self, capacity=capacity)


def parameters_of(fields: dict[str, str]) -> int:
    """Parameters outside the embeddings, from the fields of the architecture.

    Both decoders have d channels, projections with biases in the feed-forward
    layer (2 d F + F + d), and two norms with scale and bias in a layer (4 d).
    GPT-2's attention has four projections with biases, and there is a last norm.
    TransformerXL's has five without, the fifth of positions, and two biases of
    the scores. The number of heads changes nothing.
    """
    hidden, layers = int(fields["d_model"]), int(fields["n_layer"])
    inner = [int(width) for width in fields["d_inner"].split("-")]
    inner *= layers // len(inner)  # one width stands for all layers
    feedforward = sum(2 * hidden * width + width + hidden for width in inner)
    if "GPT2" in fields["exp"]:
        attention, end = 4 * hidden**2 + 4 * hidden, 2 * hidden
    else:
        attention, end = 5 * hidden**2 + 2 * hidden, 0
    return layers * (attention + 4 * hidden) + feedforward + end


def read_sets(path: Path) -> dict[str, Models]:
    """Trained models by the name of their set."""
    sets: dict[str, list[dict[str, str]]] = {}
    with path.open(newline="") as file:
        for fields in csv.DictReader(file):
            if _perplexity(fields):
                sets.setdefault(fields["exp"], []).append(fields)
    return {name: _models(rows) for name, rows in sets.items()}


def _perplexity(fields: dict[str, str]) -> str:
    return fields["ppl_test_ppl"] or fields["ppl"]


def _models(rows: Sequence[dict[str, str]]) -> Models:
    column = lambda value: np.asarray([float(value(row)) for row in rows])
    parameters = column(parameters_of)
    capacity = Capacity(
        trained=parameters,
        kept=parameters,
        layers=column(lambda row: row["n_layer"]),
        hidden=column(lambda row: row["d_model"]),
        bits=np.full(len(rows), 16.0),
        family=tuple(np.full(len(rows), float(x)) for x in one_hot("transformer")),
    )
    return Models(
        capacity, column(lambda row: row["params_total"]), np.log(column(_perplexity))
    )


def rank_correlation(models: Models) -> float:
    """Spearman's, of predicted loss before any fit and measured loss."""
    predicted = expected_loss(models.capacity, models.tokens(), DEFAULT_LAW)
    return float(spearmanr(predicted, models.loss).statistic)


def half_error(models: Models, first: np.ndarray) -> float:
    """Mean absolute error in nats on the second half of a law fitted on the first."""
    seen, unseen = models.half(first), models.half(~first)
    law = fit_law(seen.capacity, seen.tokens(), seen.loss)
    predicted = expected_loss(unseen.capacity, unseen.tokens(), law)
    return float(np.mean(np.abs(predicted - unseen.loss)))


def constant_error(models: Models, first: np.ndarray) -> float:
    """The same of the median of the first half."""
    middle = np.median(models.loss[first])
    return float(np.mean(np.abs(middle - models.loss[~first])))


def measure(models: Models, halves: int, seed: int) -> dict[str, float]:
    """All figures of a set; errors are means over random halves."""
    rng = np.random.default_rng(seed)
    number = len(models.loss)
    firsts = [rng.permutation(number) < number // 2 for _ in range(halves)]
    by_total = models.by_total()
    over_halves = lambda error, of: float(np.mean([error(of, one) for one in firsts]))
    return {
        "models": number,
        "spearman": rank_correlation(models),
        "spearman_total": rank_correlation(by_total),
        "error": over_halves(half_error, models),
        "error_total": over_halves(half_error, by_total),
        "error_constant": over_halves(constant_error, models),
    }


def tables(found: dict[str, dict[str, float]]) -> tuple[Table, Table]:
    """Ranks before any fit; errors of fits on the halves that they did not see."""
    ranks = plain_table("Spearman: predicted loss, log-perplexity", "set")
    add_numbers(ranks, "models", "outside embeddings", "total")
    errors = plain_table("Error of log-perplexity, nats, fitted on a half", "set")
    add_numbers(errors, "outside embeddings", "total", "constant")
    for name, row in found.items():
        number, *figures = row.values()
        cells = [f"{figure:.4f}" for figure in figures]
        ranks.add_row(name, f"{number}", *cells[:2])
        errors.add_row(name, *cells[2:])
    return ranks, errors


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables; 2 where the data is absent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--halves", type=int, default=10, help="random halves a set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=file_to_write)
    options = parser.parse_args(arguments)
    if not options.data.is_file():
        print(f"no trained models at {options.data}: see --data", file=sys.stderr)
        return 2
    found = {
        name: measure(models, options.halves, options.seed)
        for name, models in sorted(read_sets(options.data).items())
    }
    for table in tables(found):
        plain_console().print(table)
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
