"""The last part of an analytic search: downhill from the best that was found."""

import itertools

import numpy as np

from jaxnas.automl.problem import Candidates, Problem, joined

_MOST = 256  # choices of a dimension that are tried


def polished(problem: Problem, candidates: Candidates, budget: int) -> Candidates:
    """Adds the neighbours of the best shape until none of them is better.

    Near neighbours have one gene of any other choice, or all genes one step apart
    at most; when none of those is better, any two genes of any other choice.
    Where nothing keeps the limits, the best is the shape that breaks them least.

    Args:
      problem: see `Problem`.
      candidates: at least one.
      budget: shapes to evaluate, at most.
    """
    seen = {tuple(genome) for genome in candidates.genomes.tolist()}
    begin, reaches = _best(problem, candidates), [_near, _far]
    while reaches:
        around = reaches[0](problem, candidates.genomes[begin])
        new = [row for row in around.tolist() if tuple(row) not in seen][:budget]
        if new:
            seen.update(map(tuple, new))
            budget -= len(new)
            added = problem.candidates(np.asarray(new, np.int32))
            candidates = joined([candidates, added])
        best = _best(problem, candidates)
        if best == begin:
            reaches.pop(0)
        else:
            begin, reaches = best, [_near, _far]
    return candidates


def _best(problem: Problem, candidates: Candidates) -> int:
    scores = problem.scores(candidates)
    return int(np.lexsort((-scores, candidates.violation))[0])


def _near(problem: Problem, genome: np.ndarray) -> np.ndarray:
    """i32[N, G], distinct and valid."""
    steps = itertools.product((-1, 0, 1), repeat=len(genome))
    close = genome + np.asarray(list(steps))
    alone = [_varied(problem, genome, [gene]) for gene in range(len(genome))]
    return _valid(problem, [close, *alone])


def _far(problem: Problem, genome: np.ndarray) -> np.ndarray:
    """i32[N, G], distinct and valid."""
    pairs = itertools.combinations(range(len(genome)), 2)
    return _valid(problem, [_varied(problem, genome, list(pair)) for pair in pairs])


def _varied(problem: Problem, genome: np.ndarray, genes: list[int]) -> np.ndarray:
    """i[N, G], every combination of choices of some genes."""
    lengths = _lengths(problem)
    # Of very long dimensions, choices at even distances.
    ends = [
        np.linspace(0, lengths[gene] - 1, min(lengths[gene], _MOST)) for gene in genes
    ]
    choices = np.stack(np.meshgrid(*[end.astype(int) for end in ends]), -1)
    rows = np.repeat(genome[None], choices[..., 0].size, axis=0)
    rows[:, genes] = choices.reshape(-1, len(genes))
    return rows


def _valid(problem: Problem, parts: list[np.ndarray]) -> np.ndarray:
    inside = np.clip(np.concatenate(parts), 0, _lengths(problem) - 1)
    return np.unique(problem.shapes.repaired(inside), axis=0)


def _lengths(problem: Problem) -> np.ndarray:
    return np.asarray([len(values) for values in problem.shapes.choices.values()])
