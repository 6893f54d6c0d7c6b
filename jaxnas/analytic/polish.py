"""The last part of an analytic search: downhill from the best that was found."""

import itertools

import numpy as np

from jaxnas.analytic.problem import Candidates, Problem, joined


def polished(problem: Problem, candidates: Candidates, budget: int) -> Candidates:
    """Adds the neighbours of the best shape until none of them is better.

    Neighbours have one gene of any other choice, or all genes one step apart at
    most. Where nothing keeps the limits, the best is who breaks them least.

    Args:
      problem: see `Problem`.
      candidates: at least one.
      budget: shapes to evaluate, at most.
    """
    seen = {tuple(genome) for genome in candidates.genomes.tolist()}
    begin = _best(problem, candidates)
    while True:
        near = _neighbours(problem, candidates.genomes[begin])
        new = [one for one in near.tolist() if tuple(one) not in seen][:budget]
        if not new:
            return candidates
        seen.update(map(tuple, new))
        budget -= len(new)
        added = problem.candidates(np.asarray(new, np.int32))
        candidates = joined([candidates, added])
        best = _best(problem, candidates)
        if best == begin:
            return candidates
        begin = best


def _best(problem: Problem, candidates: Candidates) -> int:
    scores = problem.scores(candidates)
    return int(np.lexsort((-scores, candidates.violation))[0])


def _neighbours(problem: Problem, genome: np.ndarray) -> np.ndarray:
    """i32[N, G], distinct and valid."""
    lengths = [len(values) for values in problem.shapes.choices.values()]
    rows = [
        genome + steps for steps in itertools.product((-1, 0, 1), repeat=len(genome))
    ]
    for gene, length in enumerate(lengths):
        for choice in range(length):
            row = genome.copy()
            row[gene] = choice
            rows.append(row)
    clipped = np.clip(np.asarray(rows), 0, np.asarray(lengths) - 1)
    return np.unique(problem.shapes.mended(clipped), axis=0)
