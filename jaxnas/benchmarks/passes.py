"""How often what a model writes passes a problem's tests: pass@k (arXiv:2107.03374)."""

import math
from collections.abc import Callable, Sequence

import jax

from arch.decoding.generate import position_limit, stream
from arch.decoding.sampling import Sampling
from arch.decoding.unrolled import Weights, unstack
from jaxnas.benchmarks.problems import CodeProblem, cut
from jaxnas.benchmarks.sandbox import Sandbox, SandboxLimits, judge_all
from jaxnas.export.model_folder import LoadedModel
from jaxnas.runtime import compute_dtype
from jaxnas.storage.jsonl import Json

BLOCK = 32  # tokens between looks at whether all samples have ended
KS = (1, 10)
_Z = 1.959964  # of a normal distribution's two-sided 95 %


def passes(
    model: LoadedModel,
    problems: Sequence[CodeProblem],
    sandbox: Sandbox,
    *,
    samples: int,
    sampling: Sampling,
    max_new: int,
    limits: SandboxLimits,
    seed: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Json:
    """pass@1 and pass@10 with an interval, and how many samples pass each problem.

    A problem whose prompt leaves no room in the model's window is one that no
    sample solves.

    Args:
      model: as it is stored.
      problems: to solve.
      sandbox: what runs the samples.
      samples: drawn for each problem.
      sampling: how.
      max_new: tokens of a sample, at most.
      limits: of each run.
      seed: of what is drawn.
      report: told how many problems have been drawn for, of how many.
    """
    weights = unstack(model.params)
    key = jax.random.key(seed)
    texts = []
    for number, problem in enumerate(problems):
        drawn = jax.random.fold_in(key, number)
        texts.append(
            _samples(drawn, model, weights, problem, samples, sampling, max_new)
        )
        report(number + 1, len(problems))
    right = _right(problems, texts, sandbox, limits)
    return scores(list(right.values()), samples) | {
        "sandbox": sandbox.name,
        "too_long": sum(not drawn for drawn in texts),
        "passed": right,
    }


def _right(
    problems: Sequence[CodeProblem],
    texts: Sequence[Sequence[str]],
    sandbox: Sandbox,
    limits: SandboxLimits,
) -> dict[str, int]:
    """How many texts pass each problem, by its name; equal ones are run once."""
    programs = [
        [problem.program(text) for text in drawn]
        for problem, drawn in zip(problems, texts, strict=True)
    ]
    distinct = list(dict.fromkeys(one for drawn in programs for one in drawn))
    verdicts = judge_all(distinct, sandbox, limits)
    passed = {one: found.passed for one, found in zip(distinct, verdicts, strict=True)}
    return {
        problem.name: sum(passed[one] for one in drawn)
        for problem, drawn in zip(problems, programs, strict=True)
    }


def scores(right: Sequence[int], samples: int) -> Json:
    """Of the samples that pass each problem, out of so many."""
    found: Json = {"problems": len(right), "samples": samples}
    for k in KS:
        if k <= samples:
            mean = sum(pass_at(samples, one, k) for one in right) / len(right)
            found[f"pass@{k}"] = mean
            found[f"pass@{k}_interval"] = interval(mean, len(right))
    return found


def pass_at(samples: int, right: int, k: int) -> float:
    """The chance that one of k samples is right, without bias (arXiv:2107.03374).

    Args:
      samples: drawn, at least k.
      right: of them.
      k: at least 1.
    """
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


def interval(mean: float, problems: int) -> tuple[float, float]:
    """95 % of a mean of values from 0 to 1, one a problem (Wilson 1927).

    Such values vary at most as hits and misses do, so it is never too narrow for
    the choice of problems; it has a width where the mean is 0 or 1.
    """
    z2 = _Z * _Z / problems
    middle = (mean + z2 / 2) / (1 + z2)
    half = _Z * math.sqrt(mean * (1 - mean) / problems + z2 / (4 * problems))
    half /= 1 + z2
    return max(0.0, middle - half), min(1.0, middle + half)


def _samples(
    key: jax.Array,
    model: LoadedModel,
    weights: Weights,
    problem: CodeProblem,
    samples: int,
    sampling: Sampling,
    max_new: int,
) -> list[str]:
    """What the model writes; nothing if the prompt fills its window."""
    config, tokenizer = model.config, model.tokenizer
    prompt = tokenizer.encode(problem.prompt).ids or [model.first_token()]
    limit = position_limit(config)
    room = max_new if limit is None else min(max_new, limit - len(prompt))
    if room < 1:
        return []
    before, ends = len(tokenizer.decode(prompt)), set(model.ends)
    texts: list[str] = []
    for found in stream(
        key,
        config,
        weights,
        [prompt] * samples,
        max_new=room,
        sampling=sampling,
        stop_tokens=model.ends,
        dtype=compute_dtype(),
        block=BLOCK,
    ):
        rows = [
            tokens[:length].tolist()
            for tokens, length in zip(found.tokens, found.lengths, strict=True)
        ]
        texts = [tokenizer.decode([*prompt, *tokens])[before:] for tokens in rows]
        if all(
            not ends.isdisjoint(tokens) or cut(text, problem.stops) != text
            for tokens, text in zip(rows, texts, strict=True)
        ):
            break
    return [cut(text, problem.stops) for text in texts]
