"""What the population benchmark trains: configs, tokens and windows, by a seed.

NumPy only, so that no contender pays for another one's imports.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

SEED = 0
TOKENS = 100_000  # of the stream that all models read

# Every contender's hyperparameters: those of `jaxnas.training.TrainSettings`.
LEARNING_RATE = 3e-3  # the schedule's peak
WEIGHT_DECAY = 0.1  # of matrices alone
BETAS = (0.9, 0.95)
CLIP_NORM = 1.0
WARMUP_SHARE, DECAY_SHARE = 0.1, 0.9  # of all steps

_CHOICES = {
    "num_heads": (2, 4),
    "ffn_multiplier": (2.0, 3.0, 4.0),
    "normalization": ("layernorm", "rmsnorm", "groupnorm"),
    "activation": ("gelu", "silu", "geglu", "swiglu"),
    "position_encoding": ("absolute", "rope", "alibi"),
}


class CannotRunError(Exception):
    """A contender that cannot train this population, and why."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scenario:
    """A population of models and what they are trained on."""

    hidden: tuple[int, ...]  # channels to choose from
    vocab: int
    window: int  # tokens a sample
    batch: int  # samples a step
    steps: int  # of each model
    layers: tuple[int, ...] = (2, 3, 4, 5, 6)
    members: int = 16


SCENARIOS = {
    "32-64": Scenario(hidden=(32, 48, 64), vocab=512, window=32, batch=4, steps=200),
    "64-128": Scenario(hidden=(64, 96, 128), vocab=1024, window=64, batch=4, steps=50),
    "128": Scenario(hidden=(128,), vocab=1024, window=64, batch=4, steps=50),
    "64-256": Scenario(
        hidden=tuple(range(64, 257, 32)), vocab=2048, window=128, batch=8, steps=50
    ),
    "small": Scenario(  # to try the benchmark out
        hidden=(16, 32),
        layers=(1, 2),
        vocab=64,
        window=16,
        batch=2,
        steps=4,
        members=4,
    ),
}


class Problem(NamedTuple):
    """A scenario drawn: the same for every contender."""

    scenario: Scenario
    configs: list[dict]  # fields of `arch.ArchitectureConfig`, all distinct
    tokens: np.ndarray  # u16[N]
    starts: np.ndarray  # i32[steps, B], where each step's windows begin

    def windows(self, step: int) -> np.ndarray:
        """i32[B, T+1]: the samples of a step, each with the token after it."""
        reach = np.arange(self.scenario.window + 1)
        return self.tokens[self.starts[step][:, None] + reach].astype(np.int32)


def draw(scenario: Scenario) -> Problem:
    """Draws a scenario's configs, tokens and windows."""
    rng = np.random.default_rng(SEED)
    configs = draw_configs(rng, scenario)
    tokens = draw_tokens(rng, scenario.vocab)
    shape = (scenario.steps, scenario.batch)
    starts = rng.integers(0, TOKENS - scenario.window, shape, dtype=np.int32)
    return Problem(scenario, configs, tokens, starts)


def draw_configs(rng: np.random.Generator, scenario: Scenario) -> list[dict]:
    """Distinct transformers; a model drops out everywhere or nowhere."""
    choices = {"num_layers": scenario.layers, "hidden_dim": scenario.hidden, **_CHOICES}
    configs: list[dict] = []
    while len(configs) < scenario.members:
        fields = {
            name: values[rng.integers(len(values))] for name, values in choices.items()
        }
        rate = (0.0, 0.1)[rng.integers(2)]
        fields |= {
            "arch_type": "transformer",
            "attention_dropout": rate,
            "residual_dropout": rate,
            "vocab_size": scenario.vocab,
            "max_seq_length": scenario.window,
        }
        if fields not in configs:
            configs.append(fields)
    return configs


def draw_tokens(rng: np.random.Generator, vocab: int) -> np.ndarray:
    """u16[N]: half of the tokens follow from the one before, half are Zipf's."""
    share = 1 / np.arange(1, vocab + 1)
    fresh = rng.choice(vocab, TOKENS, p=share / share.sum()).tolist()
    follows = (rng.random(TOKENS) < 0.5).tolist()
    follower = rng.permutation(vocab).tolist()
    tokens = [0]
    for drawn, does_follow in zip(fresh[1:], follows[1:], strict=True):
        tokens.append(follower[tokens[-1]] if does_follow else drawn)
    return np.asarray(tokens, np.uint16)


def learning_rate(step: int, steps: int, clip=np.clip, minimum=np.minimum):
    """Warms up and decays to zero, as `jaxnas.training.loop.Schedule` does."""
    up = (step + 1) / max(1.0, WARMUP_SHARE * steps)
    down = (steps - step) / max(1.0, DECAY_SHARE * steps)
    return LEARNING_RATE * clip(minimum(up, down), 0, 1)


def deviations(layers: int, hidden: int, feedforward: int) -> dict[str, float]:
    """Initial deviations of matrices, as in `arch.initial`."""
    writing = math.sqrt(2 * layers)
    return {
        "embed": 1.0,
        "head": 0.02,
        "reading": 1 / math.sqrt(hidden),  # query, key, value, up, gate
        "out": 1 / math.sqrt(hidden) / writing,
        "down": 1 / math.sqrt(feedforward) / writing,
    }
