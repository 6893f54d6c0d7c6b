"""How likely a model holds tokens that were drawn."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from arch import ArchitectureConfig, Params, build_model
from arch.decoding.generate import bucket
from jaxnas.export.model_folder import LoadedModel
from jaxnas.runtime import compute_dtype
from jaxnas.training.loop import logits_of, next_token_losses


def log_probabilities(
    model: LoadedModel,
    prompts: Sequence[Sequence[int]],
    drawn: Sequence[Sequence[int]],
) -> list[np.ndarray]:
    """Of each token that was drawn, given the row's prompt and what was drawn before.

    Args:
      model: as it is stored.
      prompts: token ids of each row, at least one.
      drawn: token ids behind them.

    Returns:
      f32[N] of each row, natural logarithms.
    """
    rows = [[*one, *other] for one, other in zip(prompts, drawn, strict=True)]
    tokens = np.zeros((len(rows), bucket(max(map(len, rows)))), np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    scorer = _scorer(model.config, compute_dtype())
    found = -np.asarray(scorer(model.params, tokens))
    return [
        one[len(prompt) - 1 : len(row) - 1]
        for one, prompt, row in zip(found, prompts, rows, strict=True)
    ]


@functools.lru_cache(maxsize=4)
def _scorer(config: ArchitectureConfig, dtype: jax.typing.DTypeLike) -> Callable:
    model = build_model(config, dtype)

    @jax.jit
    def losses(params: Params, tokens: jax.Array) -> jax.Array:
        def of_row(row: jax.Array) -> jax.Array:
            logits = logits_of(model, params, row[None, :-1])[0]
            return next_token_losses(logits.astype(jnp.float32), row[1:])

        return jax.lax.map(of_row, tokens)  # logits of one row at a time

    return losses
