"""The population as a Flax user trains it: for each model one jitted step.

The way of the tutorials: layers in a Python loop, `init` called eagerly, the step
jitted with its state donated and called from Python with the next batch. Nothing
is cached on disk. `arch.build_model` would do this arm wrong: its stack is a
scan, whose eager `init` compiles each model anew, for about twice as long.
"""

import functools
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from contenders.scenarios import (
    BETAS,
    CLIP_NORM,
    SEED,
    WEIGHT_DECAY,
    Problem,
    learning_rate,
)
from flax.training.train_state import TrainState

from arch import ArchitectureConfig
from arch.block import Block
from arch.initial import initializer
from arch.layers.norms import Norm
from arch.layers.positions import sinusoidal
from arch.model import POSITION_SCALE
from arch.traits import traits_of


class Transformer(nn.Module):
    """`arch.LanguageModel` with its layers in a Python loop, the head untied."""

    config: ArchitectureConfig

    @nn.compact
    def __call__(self, tokens: jax.Array, dropout_key: jax.Array | None = None):
        """i32[B, T] -> f32[B, T, V]."""
        config, traits = self.config, traits_of(self.config)
        hidden, vocab = config.hidden_dim, config.vocab_size
        x = nn.Embed(vocab, hidden, embedding_init=initializer(config, "embed"))(tokens)
        if config.position_encoding == "absolute":
            positions = jnp.arange(tokens.shape[1])[None]
            x += POSITION_SCALE * sinusoidal(positions, jnp.arange(hidden), hidden)
        for index in range(config.num_layers):
            key = (
                None if dropout_key is None else jax.random.fold_in(dropout_key, index)
            )
            x, _ = Block(config, jnp.float32)(x, None, traits, key)
        start = initializer(config, "head")
        return nn.Dense(vocab, use_bias=False, kernel_init=start)(Norm()(x, traits))


def set_up(problem: Problem) -> dict:
    """Nothing to choose."""
    return {}


def train(problem: Problem) -> dict:
    """One model after another; the seconds spent in each part, summed."""
    found = [train_one(fields, problem) for fields in problem.configs]
    parts = ("init_seconds", "first_step_seconds", "other_steps_seconds")
    return {
        "losses": [each["loss"] for each in found],
        "parameters": [each["parameters"] for each in found],
        **{part: sum(each[part] for each in found) for part in parts},
    }


def train_one(fields: dict, problem: Problem) -> dict:
    """Trains one model; the first step's seconds hold its compilation."""
    began = time.perf_counter()
    model = Transformer(ArchitectureConfig(**fields))
    steps = problem.scenario.steps
    for_params, for_dropout = jax.random.split(jax.random.key(SEED))
    dummy = jnp.zeros((1, problem.scenario.window), jnp.int32)
    params = model.init(for_params, dummy)["params"]
    state = TrainState.create(
        apply_fn=model.apply, params=params, tx=optimizer_for(steps)
    )
    ready = time.perf_counter()

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, windows, key):
        key = jax.random.fold_in(key, state.step)

        def loss_of(params):
            variables = {"params": params}
            logits = state.apply_fn(variables, windows[:, :-1], dropout_key=key)
            return optax.softmax_cross_entropy_with_integer_labels(
                logits, windows[:, 1:]
            ).mean()

        loss, grads = jax.value_and_grad(loss_of)(state.params)
        return state.apply_gradients(grads=grads), loss

    state, loss = step(state, problem.windows(0), for_dropout)
    jax.block_until_ready(loss)
    compiled = time.perf_counter()
    for index in range(1, steps):
        state, loss = step(state, problem.windows(index), for_dropout)
    return {
        "loss": float(loss),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "init_seconds": ready - began,
        "first_step_seconds": compiled - ready,
        "other_steps_seconds": time.perf_counter() - compiled,
    }


def optimizer_for(steps: int) -> optax.GradientTransformation:
    """AdamW with clipping and a schedule."""

    def rate(step):
        return learning_rate(step, steps, jnp.clip, jnp.minimum)

    def decayed(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: path[-1].key != "scale", params
        )

    return optax.chain(
        optax.clip_by_global_norm(CLIP_NORM),
        optax.adamw(rate, *BETAS, weight_decay=WEIGHT_DECAY, mask=decayed),
    )
