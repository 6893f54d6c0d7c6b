"""What our model says, for other programs to be compared with: greedy, in float32."""

from typing import NamedTuple

import jax
import numpy as np
from tokenizers import Tokenizer

from arch import ArchitectureConfig, Params, build_model

NEW = 16  # greedy tokens to compare
PROMPT = 64  # tokens before them at most
LIKELY = 1e-5  # least probability of a token that is compared

TEXT = (
    "def add(a, b):\n    return a + b\n\n\nclass Stack:\n    def __init__(self):\n"
    '        self.items = []\n\n    def push(self, item):\n        """Puts it on '
    'top."""\n        self.items.append(item)\n'
)


class Agreed(NamedTuple):
    """How another program agrees with our model."""

    greedy: int  # likeliest next tokens that are the same, before the first other one
    new: int  # next tokens that were compared
    difference: float  # largest, of log-probabilities in nats


class Reference(NamedTuple):
    """A prompt, our likeliest tokens after it, and how likely each token was."""

    prompt: list[int]
    new: list[int]
    log_probabilities: np.ndarray  # f32[new, V]

    @property
    def read(self) -> list[int]:
        """The tokens that are read: after the last new one nothing is compared."""
        return [*self.prompt, *self.new[:-1]]

    def compare(self, likeliest: list[int], found: list[dict[int, float]]) -> Agreed:
        """How another program agrees, after the prompt and after each new token.

        Args:
          likeliest: its likeliest tokens.
          found: its log-probabilities by token; those that it leaves out are not
            compared.
        """
        same = [a == b for a, b in zip(likeliest, self.new, strict=True)]
        pairs = zip(self.log_probabilities, found, strict=True)
        return Agreed(
            greedy=[*same, False].index(False),
            new=len(self.new),
            difference=max(_difference(ours, theirs) for ours, theirs in pairs),
        )


def reference_of(
    config: ArchitectureConfig, params: Params, tokenizer: Tokenizer
) -> Reference:
    """Reads the beginning of a text, and goes on: as far as the model can read."""
    limit = config.max_seq_length
    new = max(1, min(NEW, limit // 2))
    prompt = tokenizer.encode(TEXT).ids[: max(1, min(PROMPT, limit - new))]
    model = build_model(config)

    @jax.jit
    def read(tokens: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            logits = model.apply({"params": params}, tokens)
        return jax.nn.log_softmax(logits[0].astype(np.float32))

    tokens = np.zeros((1, len(prompt) + new), np.int32)
    tokens[0, : len(prompt)] = prompt
    # Reading anew each time uses no cache of ours; what is behind does not matter.
    for at in range(len(prompt), len(prompt) + new):
        tokens[0, at] = np.asarray(read(tokens))[at - 1].argmax()
    likely = np.asarray(read(tokens))[len(prompt) - 1 : -1]
    return Reference(prompt, tokens[0, len(prompt) :].tolist(), likely)


def _difference(ours: np.ndarray, theirs: dict[int, float]) -> float:
    """Over the tokens that are likely to us; infinite if the likeliest is missing."""
    if int(ours.argmax()) not in theirs:
        return float("inf")
    likely = [token for token in theirs if ours[token] >= np.log(LIKELY)]
    return max(abs(float(ours[token]) - theirs[token]) for token in likely)
